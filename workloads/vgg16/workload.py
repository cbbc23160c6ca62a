"""VGG-16 for images of 224 x 224, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "VGG-16 for 224 x 224 images, shapes alone: 13 convolutions and 3 linear layers, 2-bit activations, "
    "ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, "
    "arXiv:1409.1556, Table 1, column D",
)
EIGHT_BIT_LAYERS = "conv1.1 takes 8-bit pixels; all others take 2-bit activations"

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions between two pools."""


def graph() -> Graph:
    """Return configuration D."""
    net = Outline("vgg16", (3, 224, 224), weights=Weights(zero_fraction=0.4))
    x = net.input
    for i, widths in enumerate(STAGES, start=1):
        for j, width in enumerate(widths, start=1):
            x = net.conv(f"conv{i}.{j}", x, width, 3, padding=1)
        x = net.max_pool(f"pool{i}", x, 2, 2)
    x = net.flatten("flatten", x)
    x = net.linear("fc6", x, 4096)
    x = net.linear("fc7", x, 4096)
    return net.graph(net.linear("fc8", x, 1000, codes=False))
