"""ONNX's own operators on what follows from the input: a function for each, from a call to the value that comes out.

What is linear stays with the codes: their scale and zero change, and no step is made. A function raises UnfitError for
what it does not take, with the nearest thing that it does.
"""

from imcsim.graph.qonnx.arithmetic import ARITHMETIC
from imcsim.graph.qonnx.attention import ATTENTION
from imcsim.graph.qonnx.call import Take
from imcsim.graph.qonnx.codes import CODES
from imcsim.graph.qonnx.products import PRODUCTS
from imcsim.graph.qonnx.recurrences import RECURRENCES
from imcsim.graph.qonnx.shapes import SHAPES
from imcsim.graph.qonnx.windows import WINDOWS

OPERATORS: dict[str, Take] = {**ARITHMETIC, **ATTENTION, **CODES, **PRODUCTS, **RECURRENCES, **SHAPES, **WINDOWS}
"""ONNX's own operators that are taken where they read what follows from the input."""

INSTEAD = {
    "FloatQuant": "Quant, whose numbers are whole",
    "ConvTranspose": "Conv, and whatever enlarges its image outside of the chip",
    "ArgMax": "the numbers themselves",
    "RNN": "LSTM or GRU of imcsim.quant (imcsim.capture), or QuantLSTM of Brevitas",
    "QuantRNNCell": "QuantLSTM of Brevitas",
    "Resize": "Conv with a stride",
    "Upsample": "Conv with a stride",
    "If": "a model without branches that depend on values",
    "Loop": "a model without loops",
    "Pow": "Mul of a tensor with itself, or LayerNormalization as one node",
    "Sqrt": "LayerNormalization as one node",
    "Attention": "MatMul, Softmax and MatMul (an opset below 23)",
    "ConvInteger": "QuantizeLinear, DequantizeLinear and Conv (static quantization)",
    "MatMulInteger": "QuantizeLinear, DequantizeLinear and MatMul (static quantization)",
    "quantized_decomposed.choose_qparams": "static quantization, whose scales are constants",
    "torchao.choose_qparams_affine": "static quantization, whose scales are constants",
    "aten.adaptive_avg_pool2d": "a size that divides that of the image",
}
"""The nearest thing to an operator that is not taken."""
