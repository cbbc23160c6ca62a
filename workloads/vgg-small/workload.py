"""VGG-small for CIFAR-10, of any method, untrained.

The network is `imcsim.quant.architectures.vgg_small`: 128-128-256-256-512-512 channels and one linear layer.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_cifar10
from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = "VGG-small for CIFAR-10, 6 convolutions and 1 linear layer of any method (binary unless told), untrained"
DATASET = "CIFAR-10"
PAPERS = (
    "Zhang, Yang, Ye, Hua, LQ-Nets, ECCV 2018, arXiv:1807.10029",
    "Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, Binarized Neural Networks, 2016, arXiv:1602.02830",
)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "bnn"
"""The method where none is given: a plain binary one."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 10)."""
    return architectures.vgg_small(method or find_method(METHOD))


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
