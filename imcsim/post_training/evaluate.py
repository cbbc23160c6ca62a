"""What a model gives for a batch of inputs, node by node in float32: float networks, and networks half quantized.

Products, pools and the commonest functions are torch's, since calibration runs many samples; every other operator is
run by ONNX's own reference (onnx.reference), so that whatever the walk takes can be calibrated.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import GraphError
from imcsim.graph.qonnx.constants import Constant, UnfitError, target_shape
from imcsim.graph.qonnx.model import Model, Node
from imcsim.graph.qonnx.quantizers import bipolar_grid, quant_grid, quantized
from imcsim.graph.qonnx.walk import QONNX

Array = np.ndarray
Given = Sequence[Array | None]


def outputs_of(model: Model, x: Array, *, n_together: int = 256) -> Array:
    """Return what *model* gives for the inputs *x* (n ...), so many samples at a time, float32."""
    parts = []
    for start in range(0, len(x), n_together):
        tensors = dict(model.constants) | {model.inputs[0].name: np.asarray(x[start : start + n_together], np.float32)}
        waiting = readers(model)
        for node in model.nodes:
            tensors |= results(model, node, [tensors[name] if name else None for name in node.inputs])
            forget(tensors, node, waiting)
        parts.append(tensors[model.outputs[0]])
    return np.concatenate(parts)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums of products depend on the number of threads, so there is one; what was set comes back."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def readers(model: Model) -> Counter[str]:
    """Return how often each tensor is read, by nodes and as an output."""
    return Counter(name for node in model.nodes for name in node.inputs if name) + Counter(model.outputs)


def forget(tensors: dict[str, Array], node: Node, waiting: Counter[str]) -> None:
    """Drop from *tensors* what nobody reads behind *node*; *waiting*: how many readers each still has."""
    for name in filter(None, node.inputs):
        waiting[name] -= 1
        if not waiting[name]:
            tensors.pop(name, None)


def results(model: Model, node: Node, given: Given) -> dict[str, Array]:
    """Return what *node* makes of what is *given*, by the names of its outputs.

    Raises GraphError, naming the node, for one that cannot be run.
    """
    try:
        if node.domain in QONNX:
            made = [_quantizer(node, given)]
        else:
            with torch.no_grad():
                found = FAST[node.kind](model, node.attributes, given) if node.kind in FAST else None
            made = [found] if found is not None else _by_reference(model, node, given)
    except GraphError:
        raise
    except Exception as error:  # whatever torch and onnx raise for what they cannot run
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise GraphError(
            f"{model.origin}: {node.kind} {node.name} must run on samples, got {type(error).__name__}: {reason}"
        ) from None
    return {name: array for name, array in zip(node.outputs, made, strict=False) if name}


def _quantizer(node: Node, given: Given) -> Array:
    x, *parameters = [Constant(array) for array in given if array is not None]
    match node.kind:
        case "Quant" | "IntQuant":
            return quantized(quant_grid(node.attributes, *parameters), x).numbers
        case "BipolarQuant":
            return quantized(bipolar_grid(*parameters), x).numbers
    raise UnfitError(f"{node.kind} is no quantizer that is put in")


def _by_reference(model: Model, node: Node, given: Given) -> list[Array]:
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    from imcsim.graph.qonnx.write import node_proto

    feeds = {name: array for name, array in zip(node.inputs, given, strict=True) if name and array is not None}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.outputs if name]
    graph = helper.make_graph([node_proto(node)], "node", inputs, outputs)
    made = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", model.opset)]))
    found = iter(made.run(None, feeds))
    return [np.asarray(next(found)) if name else np.zeros(0) for name in node.outputs]


# --- the operators of which there are many, or which take long -----------------------------------------------------

Attributes = Mapping[str, Any]
Fast = Callable[[Model, Attributes, Given], Array | None]
"""None: it is left to the reference."""


def product(left: Array, right: Array) -> Array:
    """Return the matrix product, by torch: with `one_thread`, its bits do not depend on the machine's cores."""
    return torch.matmul(tensor(left), tensor(right)).numpy()


def tensor(array: Array) -> torch.Tensor:
    """Return *array* as torch has it; nothing is copied where it need not be."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]) if array.dtype.isnative else array.copy())


def padded(x: torch.Tensor, pads: Sequence[int], value: float = 0.0) -> torch.Tensor:
    """Return *x* (b c ...) with *pads* around its image: all that come before, and all that come behind."""
    n = len(pads) // 2
    return F.pad(x, [side for axis in reversed(range(n)) for side in (pads[axis], pads[n + axis])], value=value)


def window_of(attributes: Attributes, n: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return strides, dilations and pads of a window over *n* axes."""
    strides, dilations = (tuple(attributes.get(name, (1,) * n)) for name in ("strides", "dilations"))
    return strides, dilations, tuple(attributes.get("pads", (0,) * (2 * n)))


def _is_padded_by_rule(attributes: Attributes) -> bool:
    return attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _conv(model: Model, attributes: Attributes, given: Given) -> Array | None:
    x, weights = given[0], given[1]
    assert x is not None
    assert weights is not None
    if _is_padded_by_rule(attributes) or x.ndim not in (3, 4):
        return None
    strides, dilations, pads = window_of(attributes, x.ndim - 2)
    bias = tensor(given[2]) if len(given) > 2 and given[2] is not None else None
    conv = F.conv1d if x.ndim == 3 else F.conv2d
    made = conv(padded(tensor(x), pads), tensor(weights), bias, strides, 0, dilations, int(attributes.get("group", 1)))
    return made.numpy()


def _gemm(model: Model, attributes: Attributes, given: Given) -> Array | None:
    x, weights = given[0], given[1]
    assert x is not None
    assert weights is not None
    x, weights = (x.T if attributes.get("transA", 0) else x), (weights.T if attributes.get("transB", 0) else weights)
    made = product(x, weights) * np.float32(attributes.get("alpha", 1.0))
    bias = given[2] if len(given) > 2 else None
    return made if bias is None else made + bias * np.float32(attributes.get("beta", 1.0))


def _matmul(model: Model, attributes: Attributes, given: Given) -> Array | None:
    left, right = given
    assert left is not None
    assert right is not None
    return product(left, right)


def _pool(x: Array, attributes: Attributes, *, fills: float, is_mean: bool) -> Array | None:
    kernel = tuple(attributes["kernel_shape"])
    strides, dilations, pads = window_of(attributes, len(kernel))
    is_plain = not attributes.get("ceil_mode", 0) and set(dilations) == {1} and len(kernel) in (1, 2)
    if _is_padded_by_rule(attributes) or not is_plain:
        return None
    if not is_mean:
        pool = F.max_pool1d if len(kernel) == 1 else F.max_pool2d
        return pool(padded(tensor(x), pads, fills), kernel, strides).numpy()
    if any(pads) and not attributes.get("count_include_pad", 0):
        return None
    mean = F.avg_pool1d if len(kernel) == 1 else F.avg_pool2d
    return mean(padded(tensor(x), pads, fills), kernel, strides).numpy()


def _max_pool(model: Model, attributes: Attributes, given: Given) -> Array | None:
    assert given[0] is not None
    return _pool(given[0], attributes, fills=-np.inf, is_mean=False)


def _average_pool(model: Model, attributes: Attributes, given: Given) -> Array | None:
    assert given[0] is not None
    return _pool(given[0], attributes, fills=0.0, is_mean=True)


def _batch_norm(model: Model, attributes: Attributes, given: Given) -> Array | None:
    x, gamma, beta, mean, variance = (tensor(array) for array in given if array is not None)
    return F.batch_norm(x, mean, variance, gamma, beta, eps=float(attributes.get("epsilon", 1e-5))).numpy()


def _elementwise(function: Callable[..., Array]) -> Fast:
    def run(model: Model, attributes: Attributes, given: Given) -> Array | None:
        arrays = [array for array in given if array is not None]
        return np.asarray(function(*arrays)).astype(arrays[0].dtype)

    return run


def _reshape(model: Model, attributes: Attributes, given: Given) -> Array | None:
    """A shape that is written with the batch of the model keeps whatever batch comes."""
    x, wanted = given[0], given[1] if len(given) > 1 else np.asarray(attributes["shape"])
    assert x is not None
    assert wanted is not None
    batch = model.inputs[0].shape[0]
    shape = target_shape((batch, *x.shape[1:]), wanted.tolist(), keeps_zeros=not attributes.get("allowzero", 0))
    if not shape or shape[0] != batch:
        raise UnfitError(f"to {shape}, which does not keep the batch")
    return x.reshape(len(x), *shape[1:])


def _flatten(model: Model, attributes: Attributes, given: Given) -> Array | None:
    assert given[0] is not None
    return given[0].reshape(len(given[0]), -1) if attributes.get("axis", 1) == 1 else None


def _same(model: Model, attributes: Attributes, given: Given) -> Array | None:
    return given[0]


def _log_softmax(model: Model, attributes: Attributes, given: Given) -> Array | None:
    assert given[0] is not None
    if given[0].ndim > 2:
        return None
    return torch.log_softmax(tensor(given[0]), dim=int(attributes.get("axis", -1))).numpy()


FAST: dict[str, Fast] = {
    "Add": _elementwise(np.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Div": _elementwise(np.divide),
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _same,
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _elementwise(np.multiply),
    "Relu": _elementwise(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Sub": _elementwise(np.subtract),
}
