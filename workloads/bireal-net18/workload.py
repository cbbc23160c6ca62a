"""Bi-Real Net 18 for images of 224 x 224, of the paper's method or another, untrained.

The network is `imcsim.quant.architectures.bireal_net18`: a real shortcut around every 1-bit convolution.
"""

from torch import Tensor, nn

from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = "Bi-Real Net 18 for 224 x 224 images, 16 binary convolutions with real shortcuts, untrained"
DATASET = "none: untrained"
PAPERS = ("Liu, Wu, Luo, Yang, Liu, Cheng, Bi-Real Net, ECCV 2018, arXiv:1808.00278",)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "bi-real"
"""The method where none is given, that of the paper."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 1000)."""
    return architectures.bireal_net18(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(2, size=224))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 224 224), float32, pixels divided by 256."""
    return drawn_images(1, size=224)
