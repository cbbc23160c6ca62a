"""BERT-base with ternary weights, by its shapes alone: the blocks of one sentence."""

from imcsim.graph import Graph, signed
from imcsim.graph.outline import Outline, Weights

DESCRIPTION = (
    "BERT-base, shapes alone: 12 blocks of attention over 128 tokens, 768 channels, 12 heads, ternary weights, codes "
    "of 8 bits (recalled of BERT and TernaryBERT; assumed: 50 % zeros; tokens are looked up by the host)"
)
DATASET = "none: shapes alone"
PAPERS = (
    "Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019",
    "Zhang et al., TernaryBERT: Distillation-aware Ultra-low Bit BERT, EMNLP 2020",
)

N_BLOCKS = 12
N_CHANNELS = 768
N_HEADS = 12
N_INNER = 3072
N_TOKENS = 128


def graph() -> Graph:
    """Return all blocks over one sentence of word vectors (768 1 128); real numbers come out."""
    told = Weights(zero_fraction=0.5)
    shape = (N_CHANNELS, 1, N_TOKENS)
    net = Outline("bert-base", shape, weights=told, activations=signed(8), input_codes=signed(8))
    x = net.input
    for block in range(N_BLOCKS):
        x = net.transformer(f"block{block}", x, N_HEADS, N_INNER)
    return net.graph(x)
