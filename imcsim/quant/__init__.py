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
from imcsim.quant.digital import ChannelNorm, DigitalConv2d, DigitalLinear
from imcsim.quant.integer import IntConv2d, IntLinear
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.recurrent import BernoulliActivation, TernaryEmbedding, TernaryGRU, TernaryLSTM
from imcsim.quant.storage import load_packed, packed_state
from imcsim.quant.straight import rounded, signs, surrogate, window
from imcsim.quant.ternary import TernaryConv2d, TernaryLinear, ternarize
from imcsim.quant.weights import Coded, WeightQuantizer

__all__ = [
    "BernoulliActivation",
    "ChannelNorm",
    "Coded",
    "DigitalConv2d",
    "DigitalLinear",
    "InputQuantizer",
    "IntConv2d",
    "IntLinear",
    "Method",
    "MethodRecord",
    "QuantizedConv2d",
    "QuantizedLinear",
    "SignActivation",
    "SignedActivation",
    "TernaryActivation",
    "TernaryConv2d",
    "TernaryEmbedding",
    "TernaryGRU",
    "TernaryLSTM",
    "TernaryLinear",
    "UnsignedActivation",
    "WeightQuantizer",
    "load_packed",
    "packed_state",
    "rounded",
    "signs",
    "surrogate",
    "ternarize",
    "window",
]
