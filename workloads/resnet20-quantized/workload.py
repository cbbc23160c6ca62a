"""ResNet-20 for CIFAR-10, of any method, untrained.

The network is `imcsim.quant.architectures.resnet20`; ``resnet20-cifar`` is the same network by its shapes alone, with
another shortcut between stages.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_cifar10
from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = (
    "ResNet-20 for CIFAR-10, 21 convolutions and 1 linear layer of any method (ternary unless told), untrained"
)
DATASET = "CIFAR-10"
PAPERS = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "twn:bits_a=2"
"""The method where none is given: ternary weights, 2-bit activations."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 10)."""
    return architectures.resnet20(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(8))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 32 32), float32, pixels divided by 256."""
    return drawn_images(1)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, (n 3 32 32), and their labels (n)."""
    images, labels = load_cifar10(name, folder)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(256), torch.from_numpy(labels)
