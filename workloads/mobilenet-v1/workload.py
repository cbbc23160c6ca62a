"""MobileNet (v1) for images of 224 x 224, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "MobileNet v1 for 224 x 224 images, shapes alone: 14 plain and 13 depthwise convolutions and 1 linear layer, "
    "2-bit activations, ternary weights (both assumed; 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = ("Howard et al., MobileNets, 2017, arXiv:1704.04861, Table 1",)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"

LAYERS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Outputs, and stride of the depthwise convolution before, of each pointwise convolution."""


def graph() -> Graph:
    """Return the network of full width."""
    net = Outline("mobilenet-v1", (3, 224, 224), weights=Weights(zero_fraction=0.4))
    x = net.conv("conv1", net.input, 32, 3, stride=2, padding=1)
    n_channels = 32
    for i, (n_outputs, stride) in enumerate(LAYERS, start=2):
        x = net.conv(f"conv{i}.depthwise", x, n_channels, 3, stride=stride, padding=1, groups=-1)
        x = net.conv(f"conv{i}.pointwise", x, n_outputs, 1)
        n_channels = n_outputs
    return net.graph(net.linear("linear", net.average("average", x), 1000, codes=False))
