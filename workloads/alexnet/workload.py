"""AlexNet for images of 224 x 224, in two groups, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "AlexNet for 224 x 224 images, grouped, shapes alone: 5 convolutions and 3 linear layers, 2-bit activations, "
    "ternary weights (assumed: 40 % zeros; batch norms in place of the response normalization, as in WRPN)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
    "Mishra, Nurvitadhi, Cook, Marr, WRPN: Wide Reduced-Precision Networks, ICLR 2018, arXiv:1709.01134",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"


def graph(width: int = 1) -> Graph:
    """Return the network as one GPU would hold it; padding of 2 makes the published 55 x 55 of 224 x 224.

    *width* times as many outputs in every layer but the last.
    """
    name = "alexnet" if width == 1 else f"alexnet-{width}x"
    net = Outline(name, (3, 224, 224), weights=Weights(zero_fraction=0.4))
    x = net.conv("conv1", net.input, 96 * width, 11, stride=4, padding=2)
    x = net.max_pool("pool1", x, 3, 2)
    x = net.conv("conv2", x, 256 * width, 5, padding=2, groups=2)
    x = net.max_pool("pool2", x, 3, 2)
    x = net.conv("conv3", x, 384 * width, 3, padding=1)
    x = net.conv("conv4", x, 384 * width, 3, padding=1, groups=2)
    x = net.conv("conv5", x, 256 * width, 3, padding=1, groups=2)
    x = net.flatten("flatten", net.max_pool("pool5", x, 3, 2))
    x = net.linear("fc6", x, 4096 * width)
    x = net.linear("fc7", x, 4096 * width)
    return net.graph(net.linear("fc8", x, 1000, codes=False))
