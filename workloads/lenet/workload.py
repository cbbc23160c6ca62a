"""LeNet for MNIST, of any method, untrained.

The network is `imcsim.quant.architectures.lenet`: 20 and 50 channels, 500 and 10 outputs.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_mnist
from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = "LeNet for MNIST, 2 convolutions and 2 linear layers of any method (binary unless told), untrained"
DATASET = "MNIST"
PAPERS = (
    "LeCun, Bottou, Bengio, Haffner, Gradient-Based Learning Applied to Document Recognition, Proc. IEEE, 1998",
    "Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, Binarized Neural Networks, 2016, arXiv:1602.02830",
)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "bnn"
"""The method where none is given: a plain binary one."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 10)."""
    return architectures.lenet(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(16, n_channels=1, size=28))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 28 28), float32, pixels divided by 256."""
    return drawn_images(1, n_channels=1, size=28)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, (n 1 28 28), and their labels (n)."""
    images, labels = load_mnist(name, folder)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(256).unsqueeze(1), torch.from_numpy(labels)
