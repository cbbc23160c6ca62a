"""ONNX's own operators on what follows from the input: a function for each, from a call to the value that comes out.

What is linear stays with the codes: their scale and zero change, and no step is made. A function raises UnfitError for
what it does not take, with the nearest thing that it does.
"""

from imcsim.graph.qonnx.arithmetic import ARITHMETIC
from imcsim.graph.qonnx.attention import ATTENTION
from imcsim.graph.qonnx.call import Take
from imcsim.graph.qonnx.products import PRODUCTS
from imcsim.graph.qonnx.shapes import SHAPES
from imcsim.graph.qonnx.windows import WINDOWS

OPERATORS: dict[str, Take] = {**ARITHMETIC, **ATTENTION, **PRODUCTS, **SHAPES, **WINDOWS}
"""ONNX's own operators that are taken where they read what follows from the input."""

INSTEAD = {
    "FloatQuant": "Quant, whose numbers are whole",
    "ConvTranspose": "Conv behind zeros put between the pixels by the model",
    "ArgMax": "the numbers themselves",
    "LSTM": "imcsim.quant's recurrent layers (imcsim.capture)",
    "GRU": "imcsim.quant's recurrent layers (imcsim.capture)",
    "RNN": "imcsim.quant's recurrent layers (imcsim.capture)",
    "Resize": "Conv with a stride",
    "Upsample": "Conv with a stride",
    "If": "a model without branches that depend on values",
    "Loop": "a model without loops",
    "Pow": "Mul of a tensor with itself, or LayerNormalization as one node",
    "Sqrt": "LayerNormalization as one node",
    "Attention": "MatMul, Softmax and MatMul (an opset below 23)",
    "QuantizeLinear": "Quant of qonnx.custom_op.general (qonnx.transformation.qcdq_to_qonnx)",
    "DequantizeLinear": "Quant of qonnx.custom_op.general (qonnx.transformation.qcdq_to_qonnx)",
    "QLinearConv": "Quant and Conv (qonnx.transformation.qcdq_to_qonnx)",
    "ConvInteger": "Quant and Conv (qonnx.transformation.qcdq_to_qonnx)",
    "MatMulInteger": "Quant and MatMul (qonnx.transformation.qcdq_to_qonnx)",
}
"""The nearest thing to an operator that is not taken."""
