"""ResNet-50 for images of 224 x 224, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.workloads import module_beside

DESCRIPTION = (
    "ResNet-50 for 224 x 224 images, stride in the 3x3 layers (v1.5), shapes alone: 53 convolutions and 1 linear "
    "layer, 2-bit activations, ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, Table 1",
    "Mishra, Nurvitadhi, Cook, Marr, WRPN: Wide Reduced-Precision Networks, ICLR 2018, arXiv:1709.01134",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"


def graph() -> Graph:
    """Return the network in the variant that the usual 4.1 billion multiply-adds are of (torchvision's, NVIDIA's)."""
    return module_beside(__file__, "../resnets.py").imagenet("resnet50", (3, 4, 6, 3), is_bottleneck=True)
