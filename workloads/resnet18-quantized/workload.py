"""ResNet-18 for images of 224 x 224, of any method, untrained.

The network is `imcsim.quant.architectures.resnet18`; ``resnet18`` is the same network by its shapes alone.
"""

from torch import Tensor, nn

from imcsim.quant import architectures
from imcsim.quant.drawn import drawn, drawn_images
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method

DESCRIPTION = (
    "ResNet-18 for 224 x 224 images, 20 convolutions and 1 linear layer of any method (ternary unless told), untrained"
)
DATASET = "none: untrained"
PAPERS = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
)
EIGHT_BIT_LAYERS = "the first layer takes 8-bit pixels and 8-bit weights, the last 8-bit activations and weights"

METHOD = "twn:bits_a=2"
"""The method where none is given: ternary weights, 2-bit activations."""


def network(method: Method | None = None) -> nn.Module:
    """Return the network of *method* with fresh weights, in training mode; it gives log-probabilities (b 1000)."""
    return architectures.resnet18(method or find_method(METHOD))


def build() -> nn.Module:
    """Return the network of `METHOD` in eval mode: weights drawn, norms measured on drawn images."""
    method = find_method(METHOD)
    return drawn(network, method, drawn_images(2, size=224))


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 224 224), float32, pixels divided by 256."""
    return drawn_images(1, size=224)
