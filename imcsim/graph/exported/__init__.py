"""Programs of torch.export, hence modules of PyTorch, to a model in ONNX's operators.

`program` exports a module and goes from node to node; `call` is one ATen operator with its arguments by name, as the
functions get it that write it in ONNX's words: `elementwise`, `layers`, `recurrent`, `shapes`, `windows` and
`quantized`, each with a table at its end. What has no word there keeps its ATen name. Nothing here knows which
operators a graph has: that is for whoever walks the model.
"""

from imcsim.graph.exported.program import export, model_of

__all__ = ["export", "model_of"]
