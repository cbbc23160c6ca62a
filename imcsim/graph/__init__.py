"""The workload as frozen records, how it is captured from PyTorch, and the passes over it."""

from imcsim.graph.formats import BINARY, REAL, TERNARY, Format, integer, signed, unsigned
from imcsim.graph.ir import Graph, LayerAttrs, Op, Product, Tensor
from imcsim.graph.protocol import QuantizedActivation, QuantizedProduct, QuantizedRecurrence
from imcsim.graph.recurrent import Cell, Embedding, GruCell, LstmCell
from imcsim.graph.steps import (
    Add,
    Affine,
    AvgPool,
    Flatten,
    LogSoftmax,
    MaxPool,
    Quantize,
    RealProduct,
    Relu,
    Step,
    Tanh,
    Threshold,
)

__all__ = [
    "BINARY",
    "REAL",
    "TERNARY",
    "Add",
    "Affine",
    "AvgPool",
    "Cell",
    "Embedding",
    "Flatten",
    "Format",
    "Graph",
    "GruCell",
    "LayerAttrs",
    "LogSoftmax",
    "LstmCell",
    "MaxPool",
    "Op",
    "Product",
    "Quantize",
    "QuantizedActivation",
    "QuantizedProduct",
    "QuantizedRecurrence",
    "RealProduct",
    "Relu",
    "Step",
    "Tanh",
    "Tensor",
    "Threshold",
    "integer",
    "signed",
    "unsigned",
]
