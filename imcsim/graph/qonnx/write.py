"""A model to the bytes of an ONNX file: what `file` reads is what was written, node by node and bit by bit."""

from typing import TYPE_CHECKING, Any

import numpy as np

from imcsim.errors import ConfigError
from imcsim.graph.qonnx.file import ONNX, OPSETS
from imcsim.graph.qonnx.model import Model, Node
from imcsim.version import __version__

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def to_bytes(model: Model) -> bytes:
    """Return the ONNX file of *model*: the same bytes for the same model. Raises ConfigError where onnx is missing."""
    content: bytes = to_proto(model).SerializeToString(deterministic=True)
    return content


def to_proto(model: Model) -> "ModelProto":
    """Return *model* as onnx has it, for whatever else runs it."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        raise ConfigError(
            f"{model.origin}: the package onnx must be installed to write a model, got none; pip install imcsim[onnx]"
        ) from None
    assert OPSETS[0] <= model.opset <= OPSETS[1]
    inputs = [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.shape) for each in model.inputs]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in model.outputs]
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        for name, array in model.constants.items()
    ]
    nodes = [node_proto(node) for node in model.nodes]
    graph = helper.make_graph(nodes, "imcsim", inputs, outputs, constants)
    domains = sorted({node.domain for node in model.nodes if node.domain not in ONNX})
    opsets = [helper.make_opsetid("", model.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets, ignore_unknown=True),
        producer_name="imcsim",
        producer_version=__version__,
    )


def node_proto(node: Node) -> "NodeProto":
    """Return *node* as onnx has it."""
    from onnx import helper

    attributes = {name: _attribute(value) for name, value in node.attributes.items() if _is_kept(value)}
    return helper.make_node(node.kind, node.inputs, node.outputs, name=node.name, domain=node.domain, **attributes)


def _is_kept(value: Any) -> bool:
    """Whether an attribute says something: of an empty tuple nobody knows what it would hold."""
    return value is not None and not (isinstance(value, tuple) and not value)


def _attribute(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    from onnx import numpy_helper

    return numpy_helper.from_array(value)
