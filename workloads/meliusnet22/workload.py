"""MeliusNet-22 for images of 224 x 224, of the paper's method or another, untrained.

The network is `imcsim.quant.architectures.meliusnet22`: dense and improvement blocks in turn.
"""

from torch import Tensor, nn

from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = "MeliusNet-22 for 224 x 224 images, 34 binary convolutions in dense and improvement blocks, untrained"
DATASET = "none: untrained"
PAPERS = ("Bethge, Bartz, Yang, Chen, Meinel, MeliusNet, WACV 2021, arXiv:2001.05936",)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "meliusnet"
"""The method where none is given, that of the paper."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 1000)."""
    return architectures.meliusnet22(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(2, size=224))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 224 224), float32, pixels divided by 256."""
    return drawn_images(1, size=224)
