"""ReActNet-A for images of 224 x 224, of the paper's method or another, untrained.

The network is `imcsim.quant.architectures.reactnet`: MobileNet's body with 1-bit 3x3 and 1x1 convolutions, shifted
signs and PReLUs.
"""

from torch import Tensor, nn

from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = "ReActNet-A for 224 x 224 images, 26 binary convolutions on MobileNet's body, untrained"
DATASET = "none: untrained"
PAPERS = ("Liu, Shen, Savvides, Cheng, ReActNet, ECCV 2020, arXiv:2003.03488",)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "reactnet"
"""The method where none is given, that of the paper."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 1000)."""
    return architectures.reactnet(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(2, size=224))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 224 224), float32, pixels divided by 256."""
    return drawn_images(1, size=224)
