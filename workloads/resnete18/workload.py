"""ResNetE-18 for images of 224 x 224, of any method, untrained.

The network is `imcsim.quant.architectures.resnete18`: ResNet-18 with a shortcut around every convolution.
"""

from torch import Tensor, nn

from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = "ResNetE-18 for 224 x 224 images, 16 binary convolutions with real shortcuts, untrained"
DATASET = "none: untrained"
PAPERS = ("Bethge, Yang, Bornstein, Meinel, Back to Simplicity, 2019, arXiv:1906.08637",)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "meliusnet"
"""The method where none is given: signs without scales, which the authors took here too."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 1000)."""
    return architectures.resnete18(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(2, size=224))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 224 224), float32, pixels divided by 256."""
    return drawn_images(1, size=224)
