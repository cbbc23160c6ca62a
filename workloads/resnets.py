"""What the ResNets that are told by their shapes share: He et al., CVPR 2016, arXiv:1512.03385."""

from imcsim.graph import Graph
from imcsim.graph.outline import Outline, Weights

WEIGHTS = Weights(zero_fraction=0.4)
"""At least 40 % zeros are recalled of the networks that TiM-DNN was made for; which layer has how many is not."""


def imagenet(name: str, n_blocks: tuple[int, ...], *, is_bottleneck: bool = False, width: int = 1) -> Graph:
    """Return the ResNet of Table 1 with *n_blocks* in its four stages, for images of 224 x 224.

    *width* times as many outputs in every layer but the last.
    """
    net = Outline(name, (3, 224, 224), weights=WEIGHTS)
    x = net.conv("conv1", net.input, 64 * width, 7, stride=2, padding=3)
    x = net.max_pool("pool1", x, 3, 2, 1)
    n_channels = 64 * width
    for stage, n in enumerate(n_blocks):
        n_inner = 64 * width << stage
        n_outputs = 4 * n_inner if is_bottleneck else n_inner
        for block in range(n):
            at, stride = f"conv{stage + 2}.{block + 1}", 2 if stage and not block else 1
            shortcut = x
            if stride != 1 or n_channels != n_outputs:
                shortcut = net.conv(f"{at}.shortcut", x, n_outputs, 1, stride=stride, codes=False)
            if is_bottleneck:
                y = net.conv(f"{at}.a", x, n_inner, 1)
                y = net.conv(f"{at}.b", y, n_inner, 3, stride=stride, padding=1)
                x = net.conv(f"{at}.c", y, n_outputs, 1, add=shortcut)
            else:
                y = net.conv(f"{at}.a", x, n_inner, 3, stride=stride, padding=1)
                x = net.conv(f"{at}.b", y, n_inner, 3, padding=1, add=shortcut)
            n_channels = n_outputs
    return net.graph(net.linear("linear", net.average("average", x), 1000, codes=False))
