"""What the float networks share: three blocks of convolution, batch norm, ReLU and max pool, and a linear layer.

Plain torch modules with float weights, as a user has them: `imcsim quantize` makes networks of few bits of them. They
are trained by ``train_float_cnn.py`` beside this file.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTHS = (16, 32, 64)
N_CLASSES = 10


def network(size: int) -> nn.Sequential:
    """Return the network for images (1 size size) with fresh weights; it gives log-probabilities (b 10)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = 1
    for number, width in enumerate(WIDTHS, start=1):
        layers[f"conv{number}"] = nn.Conv2d(n_in, width, 3, padding=1, bias=False)
        layers[f"norm{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        n_in, size = width, size // 2
    layers["flatten"] = nn.Flatten()
    layers["linear"] = nn.Linear(n_in * size * size, N_CLASSES)
    layers["log_softmax"] = nn.LogSoftmax(dim=1)
    return nn.Sequential(layers)


def trained(file: str | Path, size: int) -> nn.Module:
    """Return the network in eval mode with the weights beside the `workload.py` *file*."""
    net = network(size)
    net.load_state_dict(load_file(Path(file).with_name("weights.safetensors")))
    return net.eval()


def ramp(size: int, n_levels: int) -> Tensor:
    """Return an image (1 1 size size), float32, of the grey levels from 0 up to below 1."""
    return (torch.arange(size * size, dtype=torch.float32) % n_levels / n_levels).reshape(1, 1, size, size)
