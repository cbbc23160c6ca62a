"""ATen's operators in the words of ONNX: a function for each, from a call to the tensors that come out."""

from imcsim.graph.exported.call import Write
from imcsim.graph.exported.elementwise import ELEMENTWISE
from imcsim.graph.exported.layers import LAYERS
from imcsim.graph.exported.quantized import QUANTIZED
from imcsim.graph.exported.recurrent import RECURRENT
from imcsim.graph.exported.shapes import SHAPES
from imcsim.graph.exported.windows import WINDOWS

OPERATORS: dict[str, Write] = {**ELEMENTWISE, **LAYERS, **QUANTIZED, **RECURRENT, **SHAPES, **WINDOWS}
"""By their names without the overload."""
