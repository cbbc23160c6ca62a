"""Models in ONNX files with the quantizers of QONNX (Brevitas, QKeras, FINN) to a `Graph`. Needs onnx, and no torch.

`file` reads and checks what is stored and gives a `model`; `constants` works out what no input reaches; `quantizers`
says what Quant, BipolarQuant, Trunc and MultiThreshold do to numbers; `weights` makes planes of constants; `operators`
lists what is understood, from `arithmetic`, `products`, `shapes` and `windows`; `walk` goes from node to node. A file
is data: nothing in it is executed.

Source of the quantizers: Pappalardo et al., "QONNX: Representing Arbitrary-Precision Quantized Neural Networks",
2022, arXiv:2206.07527, and github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops, as release 1.0 runs them.
"""

from imcsim.graph.qonnx.walk import read_qonnx

__all__ = ["read_qonnx"]
