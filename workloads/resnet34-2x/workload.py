"""ResNet-34 with twice as many feature maps, as WRPN widens it, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.workloads import module_beside

DESCRIPTION = (
    "ResNet-34 as in resnet34 with twice as many outputs in every layer but the last (WRPN 2x wide), shapes alone: "
    "2-bit activations, ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385, Table 1",
    "Mishra, Nurvitadhi, Cook, Marr, WRPN: Wide Reduced-Precision Networks, ICLR 2018, arXiv:1709.01134",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"


def graph() -> Graph:
    """Return the wide network."""
    return module_beside(__file__, "../resnets.py").imagenet("resnet34-2x", (3, 4, 6, 3), width=2)
