"""Quantized layers and activations as torch modules, one file per family; each names its paper.

A module follows `imcsim.graph.protocol`: whatever it does to train, ``imc_product()`` or ``imc_quantizer()`` says what
it computes at inference, and ``forward`` in eval mode computes exactly that.
"""

from imcsim.quant.activation import (
    InputQuantizer,
    SignActivation,
    SignedActivation,
    TernaryActivation,
    UnsignedActivation,
)
from imcsim.quant.integer import IntConv2d, IntLinear
from imcsim.quant.recurrent import BernoulliActivation, TernaryEmbedding, TernaryGRU, TernaryLSTM
from imcsim.quant.storage import load_packed, packed_state
from imcsim.quant.ternary import TernaryConv2d, TernaryLinear, ternarize

__all__ = [
    "BernoulliActivation",
    "InputQuantizer",
    "IntConv2d",
    "IntLinear",
    "SignActivation",
    "SignedActivation",
    "TernaryActivation",
    "TernaryConv2d",
    "TernaryEmbedding",
    "TernaryGRU",
    "TernaryLSTM",
    "TernaryLinear",
    "UnsignedActivation",
    "load_packed",
    "packed_state",
    "ternarize",
]
