"""AlexNet with twice as many feature maps, as WRPN widens it, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.workloads import module_beside

DESCRIPTION = (
    "AlexNet as in alexnet with twice as many outputs in every layer but the last (WRPN 2x wide), shapes alone: "
    "2-bit activations, ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012",
    "Mishra, Nurvitadhi, Cook, Marr, WRPN: Wide Reduced-Precision Networks, ICLR 2018, arXiv:1709.01134",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"


def graph() -> Graph:
    """Return the wide network."""
    return module_beside(__file__, "../alexnet/workload.py").graph(width=2)
