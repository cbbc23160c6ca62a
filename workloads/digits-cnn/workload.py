"""scikit-learn's digits by a small plain network of any method, untrained: two of its layers between 8-bit edges.

The network is `imcsim.quant.networks.small_cnn` with 16 and 32 channels; needs no data folder, and trains in seconds.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_digits
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method
from imcsim.quant.networks import small_cnn

DESCRIPTION = "scikit-learn digits, 3 convolutions and 1 linear layer of any method (ternary unless told), untrained"
DATASET = "scikit-learn digits"
PAPERS = ("Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",)
EIGHT_BIT_LAYERS = "conv1 takes grey levels and weights of 8 bits, linear 8-bit activations and weights"

METHOD = "twn"
"""The method where none is given."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 10)."""
    return small_cnn(method or find_method(METHOD), size=8, widths=(16, 32))


def build() -> nn.Module:
    """Return the network of ternary weights in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(16, n_channels=1, size=8))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 8 8), float32, grey levels 0 to 16 divided by 16."""
    return drawn_images(1, n_channels=1, size=8)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, and their labels; *folder* is not needed."""
    images, labels = load_digits(name)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(16).unsqueeze(1), torch.from_numpy(labels)
