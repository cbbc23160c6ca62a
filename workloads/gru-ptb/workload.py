"""GRU language model of HitNet for the Penn Treebank, by its shapes alone."""

from imcsim.graph import TERNARY, Graph
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "GRU language model for the Penn Treebank, shapes alone: 300 hidden units, 35 time steps, ternary activations and "
    "weights (recalled of HitNet; assumed: 300 inputs, 40 % zeros; words are looked up and chosen by the host)"
)
DATASET = "none: shapes alone"
PAPERS = ("Wang et al., HitNet: Hybrid Ternary Recurrent Neural Network, NeurIPS 2018",)

N_HIDDEN = 300
N_STEPS = 35


def graph() -> Graph:
    """Return the recurrent layer over one sequence of word vectors (300 1 35)."""
    told = Weights(zero_fraction=0.4)
    net = Outline("gru-ptb", (N_HIDDEN, 1, N_STEPS), weights=told, activations=TERNARY, input_codes=TERNARY)
    return net.graph(net.recurrent("gru", "gru", net.input, N_HIDDEN))
