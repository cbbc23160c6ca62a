"""scikit-learn's digits (8 x 8, real handwriting) by attention over their rows, of ternary weights and activations.

Each row of an image is a token. Two blocks of attention with four heads, each behind a layer norm, and of two maps
with a GELU between; what attention multiplies is ternary, and its chances are codes of 4 bits, so that a chip may do
these products on its tiles, too (``--set activation_products.done_by=tiles``). Trained by ``train.py`` beside it.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imcsim.data import load_digits
from imcsim.quant import (
    ChannelNorm,
    InputQuantizer,
    SignedActivation,
    TernaryActivation,
    TernaryConv2d,
    TernaryLinear,
    UnsignedActivation,
    load_packed,
)

DESCRIPTION = "scikit-learn digits, 2 blocks of attention over the rows, ternary weights and activations"
DATASET = "scikit-learn digits"
PAPERS = (
    "Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762",
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
)
EIGHT_BIT_LAYERS = "none; the first layer takes the grey levels 0 to 16 as 5-bit codes (weights ternary)"
WEIGHTS = Path(__file__).with_name("weights.safetensors")

N_CHANNELS, N_HEADS, N_TOKENS, N_INNER, N_BLOCKS = 32, 4, 8, 64, 2
DELTA = 0.6
"""Threshold of the ternary activations, behind a norm."""


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities (b 10)."""
    net = network()
    load_packed(net, load_file(WEIGHTS), where=str(WEIGHTS))
    return net.eval()


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 8 8), float32, grey levels 0 to 16 divided by 16."""
    ramp = torch.arange(64, dtype=torch.float32) % 17
    return (ramp / 16).reshape(1, 1, 8, 8)


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: images (355 1 8 8) as the network takes them, and labels (355); *folder* is not needed."""
    return split("test", folder)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, and their labels; *folder* is not needed."""
    images, labels = load_digits(name)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(16).unsqueeze(1), torch.from_numpy(labels)


def network() -> nn.Module:
    """Return the network with fresh weights."""
    return Network()


def linear(n_inputs: int, n_outputs: int) -> list[nn.Module]:
    """Return a linear map of each token and its batch norm."""
    return [TernaryConv2d(n_inputs, n_outputs, 1, bias=False), nn.BatchNorm2d(n_outputs)]


class Attention(nn.Module):
    """What each token gathers from all others, head by head: (b c 1 t) to (b c 1 t)."""

    def __init__(self) -> None:
        super().__init__()
        self.codes = nn.Sequential(ChannelNorm(N_CHANNELS), TernaryActivation(DELTA))
        self.key, self.value, self.query = (
            nn.Sequential(*linear(N_CHANNELS, N_CHANNELS), TernaryActivation(DELTA)) for _ in range(3)
        )
        self.chances = UnsignedActivation(4, top=1.0)
        self.gathered = SignedActivation(4, top=1.0)
        self.output = nn.Sequential(*linear(N_CHANNELS, N_CHANNELS))

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to *x*."""
        codes = self.codes(x)
        size = N_CHANNELS // N_HEADS
        key, value, query = (
            part(codes).reshape(-1, N_HEADS, size, N_TOKENS) for part in (self.key, self.value, self.query)
        )
        scores = torch.matmul(query.transpose(2, 3), key) * size**-0.5  # b h t t
        chances = self.chances(torch.softmax(scores, dim=3))
        gathered = torch.matmul(chances, value.transpose(2, 3))  # b h t d
        return self.output(self.gathered(gathered.transpose(2, 3).reshape(-1, N_CHANNELS, 1, N_TOKENS)))


class Network(nn.Module):
    """Rows as tokens, blocks, the mean of all tokens, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.grey = InputQuantizer(5, scale=1 / 16)
        self.embedding = nn.Sequential(*linear(8, N_CHANNELS))
        self.places = nn.Parameter(torch.randn(1, N_CHANNELS, 1, N_TOKENS) / 2)
        self.attention = nn.ModuleList(Attention() for _ in range(N_BLOCKS))
        self.inner = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(N_CHANNELS),
                TernaryActivation(DELTA),
                *linear(N_CHANNELS, N_INNER),
                nn.GELU(),
                SignedActivation(4, top=3.5),
                *linear(N_INNER, N_CHANNELS),
            )
            for _ in range(N_BLOCKS)
        )
        self.last = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.BatchNorm1d(N_CHANNELS),
            SignedActivation(4, top=3.5),
            TernaryLinear(N_CHANNELS, 10, bias=False),
            nn.BatchNorm1d(10),
            nn.LogSoftmax(dim=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities (b 10) of images (b 1 8 8)."""
        tokens = self.grey(x).permute(0, 3, 1, 2)  # b column 1 row
        x = self.embedding(tokens) + self.places
        for attention, inner in zip(self.attention, self.inner, strict=True):
            x = x + attention(x)
            x = x + inner(x)
        return self.last(x)
