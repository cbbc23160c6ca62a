"""BN-Inception for images of 224 x 224, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "BN-Inception for 224 x 224 images, shapes alone: 69 convolutions and 1 linear layer, 2-bit activations, "
    "ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "Ioffe, Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, Figure 5 (ports of a later Caffe model "
    "have 128 outputs for 96 behind the pools of 4c and 4d)",
    "Mishra, Nurvitadhi, Cook, Marr, WRPN: Wide Reduced-Precision Networks, ICLR 2018, arXiv:1709.01134",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"

MODULES = (
    # name, 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool, projection behind the pool
    ("3a", 64, 64, 64, 64, 96, "average", 32),
    ("3b", 64, 64, 96, 64, 96, "average", 64),
    ("3c", 0, 128, 160, 64, 96, "max", 0),
    ("4a", 224, 64, 96, 96, 128, "average", 128),
    ("4b", 192, 96, 128, 96, 128, "average", 128),
    ("4c", 160, 128, 160, 128, 160, "average", 96),
    ("4d", 96, 128, 192, 160, 192, "average", 96),
    ("4e", 0, 128, 192, 192, 256, "max", 0),
    ("5a", 352, 192, 320, 160, 224, "average", 128),
    ("5b", 352, 192, 320, 192, 224, "max", 128),
)
"""A module without a 1x1 branch has stride 2, and hands on what it pools."""


def graph(width: int = 1) -> Graph:
    """Return the network; pools round their size up, which padding does here.

    *width* times as many outputs in every layer but the last.
    """
    name = "bn-inception" if width == 1 else f"bn-inception-{width}x"
    net = Outline(name, (3, 224, 224), weights=Weights(zero_fraction=0.4))
    x = net.conv("conv1", net.input, 64 * width, 7, stride=2, padding=3)
    x = net.max_pool("pool1", x, 3, 2, 1)
    x = net.conv("conv2.reduce", x, 64 * width, 1)
    x = net.conv("conv2", x, 192 * width, 3, padding=1)
    x = net.max_pool("pool2", x, 3, 2, 1)
    for at, single, reduce, n, twice_reduce, twice, pool, last in MODULES:
        widths = (width * outputs for outputs in (single, reduce, n, twice_reduce, twice, last))
        x = _module(net, x, at, pool, *widths)
    return net.graph(net.linear("linear", net.average("average", x), 1000, codes=False))


def _module(
    net: Outline, x: str, at: str, pool: str, single: int, reduce: int, n: int, twice_reduce: int, twice: int, last: int
) -> str:
    stride = 1 if single else 2
    branches = [net.conv(f"{at}.1x1", x, single, 1)] if single else []
    y = net.conv(f"{at}.3x3.reduce", x, reduce, 1)
    branches.append(net.conv(f"{at}.3x3", y, n, 3, stride=stride, padding=1))
    y = net.conv(f"{at}.double.reduce", x, twice_reduce, 1)
    y = net.conv(f"{at}.double.1", y, twice, 3, padding=1)
    branches.append(net.conv(f"{at}.double.2", y, twice, 3, stride=stride, padding=1))
    pooled = (net.max_pool if pool == "max" else net.average_pool)(f"{at}.pool", x, 3, stride, 1)
    branches.append(net.conv(f"{at}.projection", pooled, last, 1) if last else pooled)
    return net.concat(at, branches)
