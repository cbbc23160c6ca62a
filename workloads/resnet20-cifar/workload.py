"""ResNet-20 for images of 32 x 32, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "ResNet-20 for 32 x 32 images, shapes alone: 19 convolutions and 1 linear layer, 2-bit activations, "
    "ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, section 4.2",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"


def graph() -> Graph:
    """Return the network; where the width grows, every second pixel is added to the first channels (option A)."""
    net = Outline("resnet20-cifar", (3, 32, 32), weights=Weights(zero_fraction=0.4))
    x = net.conv("conv1", net.input, 16, 3, padding=1)
    for stage, width in enumerate((16, 32, 64)):
        for block in range(3):
            at, stride = f"stage{stage + 1}.{block + 1}", 2 if stage and not block else 1
            shortcut = x if stride == 1 else net.max_pool(f"{at}.shortcut", x, 1, 2)
            y = net.conv(f"{at}.a", x, width, 3, stride=stride, padding=1)
            x = net.conv(f"{at}.b", y, width, 3, padding=1, add=shortcut)
    return net.graph(net.linear("linear", net.average("average", x), 10, codes=False))
