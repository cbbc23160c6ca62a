"""BN-Inception with twice as many feature maps, as WRPN widens it, by its shapes alone."""

from imcsim.graph import Graph
from imcsim.workloads import module_beside

DESCRIPTION = (
    "BN-Inception as in bn-inception with twice as many outputs in every layer but the last (WRPN 2x wide), shapes "
    "alone: 2-bit activations, ternary weights (assumed: 40 % zeros)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "Ioffe, Szegedy, Batch Normalization, ICML 2015, arXiv:1502.03167, Figure 5",
    "Mishra, Nurvitadhi, Cook, Marr, WRPN: Wide Reduced-Precision Networks, ICLR 2018, arXiv:1709.01134",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels; all others take 2-bit activations"


def graph() -> Graph:
    """Return the wide network."""
    return module_beside(__file__, "../bn-inception/workload.py").graph(width=2)
