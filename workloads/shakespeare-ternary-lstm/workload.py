"""A language model of characters with ternary weights and activations: a table of codes, an LSTM, scores of 65.

Tiny Shakespeare, in windows of 64 characters that each begin with an empty memory. Ternary weights follow Li et al.,
"Ternary Weight Networks", 2016; ternary hidden states follow HitNet (Wang et al., NeurIPS 2018, recalled). Trained by
``train.py`` beside this file.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imcsim.data import load_shakespeare
from imcsim.quant import TernaryConv2d, TernaryEmbedding, TernaryLSTM, load_packed
from imcsim.quant.sequences import windows

DESCRIPTION = "Tiny Shakespeare by characters, an LSTM of 128 units, ternary weights and activations; perplexity"
DATASET = "Tiny Shakespeare"
PAPERS = (
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
    "Wang et al., HitNet: Hybrid Ternary Recurrent Neural Network, NeurIPS 2018 (recalled)",
)
EIGHT_BIT_LAYERS = "none; the host looks characters up in a ternary table"
METRIC = "perplexity"
WEIGHTS = Path(__file__).with_name("weights.safetensors")

N_TOKENS = 65
N_CODES = 64
N_HIDDEN = 128
LENGTH = 64
"""Characters of a window."""


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities of the next character (b 65 1 64)."""
    net = network()
    load_packed(net, load_file(WEIGHTS), where=str(WEIGHTS))
    return net.eval()


def example_input() -> Tensor:
    """Return one window as the network takes it: (1 1 1 64), float32, whole numbers below 65."""
    return torch.arange(LENGTH, dtype=torch.float32).reshape(1, 1, 1, LENGTH)


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: windows (1742 1 1 64) and the characters that follow each of theirs (1742 64)."""
    x, labels = split("test", folder)
    return x, labels.squeeze(1)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` text as windows (w 1 1 64) and what comes next (w 1 64)."""
    tokens, _ = load_shakespeare(name, folder)  # type: ignore[arg-type]
    return windows(torch.from_numpy(tokens), LENGTH)


def network() -> nn.Sequential:
    """Return the network with fresh weights."""
    layers = OrderedDict(
        table=TernaryEmbedding(N_TOKENS, N_CODES),
        # (64 1 64)
        lstm=TernaryLSTM(N_CODES, N_HIDDEN),
        # (128 1 64)
        scores=TernaryConv2d(N_HIDDEN, N_TOKENS, 1, per_channel=True),
        log_softmax=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)


class FloatEmbedding(nn.Embedding):
    """`torch.nn.Embedding` of tokens (b 1 1 t)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows of *tokens* (b e 1 t)."""
        return super().forward(tokens[:, 0].long()).permute(0, 3, 1, 2)


class FloatLSTM(nn.LSTM):
    """`torch.nn.LSTM` on sequences (b i 1 t)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the hidden states (b h 1 t)."""
        y, _ = super().forward(x.squeeze(2).permute(2, 0, 1))
        return y.permute(1, 2, 0).unsqueeze(2)


def float_network() -> nn.Sequential:
    """Return the same network in plain float32, for comparison."""
    layers = OrderedDict(
        table=FloatEmbedding(N_TOKENS, N_CODES),
        lstm=FloatLSTM(N_CODES, N_HIDDEN),
        scores=nn.Conv2d(N_HIDDEN, N_TOKENS, 1),
        log_softmax=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)
