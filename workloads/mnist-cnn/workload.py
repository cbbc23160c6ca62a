"""MNIST by a small plain network of any method, untrained: three of its layers between 8-bit ones.

The network is `imcsim.quant.networks.small_cnn`: the same layers, channels and images for each method, so that methods
can be compared. ``network(method)`` gives it with fresh weights, ``split`` the images to train it on.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_mnist
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method
from imcsim.quant.networks import small_cnn

DESCRIPTION = "MNIST, 4 convolutions and 1 linear layer of any method (ternary weights unless told), untrained"
DATASET = "MNIST"
PAPERS = ("Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels and 8-bit weights, linear 8-bit activations and weights"

METHOD = "twn"
"""The method where none is given."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 10)."""
    return small_cnn(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of ternary weights in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(16, n_channels=1, size=28))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 28 28), float32, pixels divided by 256."""
    return drawn_images(1, n_channels=1, size=28)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, (n 1 28 28), and their labels (n)."""
    images, labels = load_mnist(name, folder)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(256).unsqueeze(1), torch.from_numpy(labels)
