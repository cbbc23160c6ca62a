"""A float model before it is quantized: constants worked out, products in one form, what scales their sums in them.

A batch norm behind a product goes into its weights. With one scale for each output that changes no ternary, binary or
k-bit code, since a factor of an output's weights is a factor of its scale and nothing else; so nothing is lost, and
what is left is a weight, a bias, and one number of each to correct.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.qonnx.call import Call
from imcsim.graph.qonnx.constants import FOLDED, Constant, UnfitError
from imcsim.graph.qonnx.file import ONNX
from imcsim.graph.qonnx.model import Model, Node
from imcsim.graph.qonnx.quantized import QUANTIZERS
from imcsim.graph.qonnx.walk import QONNX, Walk, with_live_nodes
from imcsim.graph.qonnx.windows import pads_of
from imcsim.graph.refusal import listed
from imcsim.post_training.evaluate import readers, results, window_of

Array = np.ndarray

INTEGER = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


def require_float(model: Model) -> None:
    """Raise GraphError for a model that holds quantizers, or lacks weights."""
    found = [node.kind for node in model.nodes if node.domain in QONNX and node.kind in QUANTIZERS]
    found += [node.kind for node in model.nodes if node.domain in ONNX and node.kind in INTEGER]
    if found:
        raise GraphError(
            f"{model.origin}: must be a float model to be quantized, got {len(found)} quantizers, "
            f"{', '.join(sorted(set(found)))}; it runs as it is"
        )
    if model.missing:
        raise GraphError(
            f"{model.origin}: weights must be there to be quantized, got shapes alone of "
            f"{listed(sorted(model.missing))}"
        )


def prepare(model: Model) -> Model:
    """Return *model* with constants folded, products as Conv, Gemm or MatMul and Add, and batch norms in them.

    Raises GraphError for a model without a product with weights.
    """
    model = _with_scales_inside(_with_plain_products(_folded(with_live_nodes(model))))
    if not any(is_product(model, node) for node in model.nodes):
        kinds = Counter(node.kind for node in model.nodes)
        raise GraphError(
            f"{model.origin}: must have a layer with weights (Conv, Gemm or MatMul), got none among "
            + ", ".join(f"{kind} x{n}" for kind, n in sorted(kinds.items()))
        )
    return without_unread(model)


def is_product(model: Model, node: Node) -> bool:
    """Whether *node* multiplies what follows from the input by weights that the model holds."""
    if node.domain not in ONNX or node.kind not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return False
    return node.inputs[1] in model.constants and node.inputs[0] not in model.constants


def output_axis(node: Node) -> int:
    """Return which axis of a product's weights has its outputs."""
    return 1 if node.kind == "MatMul" else 0


def without_unread(model: Model) -> Model:
    """Return *model* without the constants that nobody reads."""
    read = readers(model)
    return replace(model, constants={name: array for name, array in model.constants.items() if read[name]})


# --- constants ------------------------------------------------------------------------------------------------------


def _folded(model: Model) -> Model:
    """Work out what no input reaches, and shapes of what it does: one sample of zeros is run for them."""
    constants = dict(model.constants)
    (source,) = model.inputs
    samples = {source.name: np.zeros(source.shape, np.float32)}
    nodes = []
    for node in model.nodes:
        if node.domain in ONNX and node.kind == "Shape":
            shape = samples[node.inputs[0]].shape if node.inputs[0] in samples else constants[node.inputs[0]].shape
            first, last = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
            constants[node.outputs[0]] = np.array(shape[first:last], np.int64)
        elif node.domain in ONNX and node.kind in FOLDED and all(name in constants for name in node.inputs if name):
            given = [Constant(constants[name]) if name else None for name in node.inputs]
            try:
                constants[node.outputs[0]] = FOLDED[node.kind](node.attributes, given).numbers
            except UnfitError as error:
                raise GraphError(f"{model.origin}: {node.kind} {node.name} {error}") from None
        else:
            given_arrays = [samples.get(name, constants.get(name)) if name else None for name in node.inputs]
            samples |= results(model, node, given_arrays)
            nodes.append(node)
    return replace(model, constants=constants, nodes=tuple(nodes))


# --- products -------------------------------------------------------------------------------------------------------


def _with_plain_products(model: Model) -> Model:
    """Give every product a bias and no factors: Conv, Gemm with weights (c_out c_in), MatMul and Add of sequences."""
    constants, nodes = dict(model.constants), list[Node]()
    shapes = _shapes(model)
    for node in model.nodes:
        is_odd = node.attributes.get("transA", 0) or (
            node.kind == "MatMul" and is_product(model, node) and constants[node.inputs[1]].ndim != 2
        )
        if not is_product(model, node) or is_odd:  # the walk says what is wrong with an odd one
            nodes.append(node)
            continue
        weights = np.asarray(constants[node.inputs[1]], np.float32)
        name, bias = f"{node.outputs[0]}.weights", f"{node.outputs[0]}.bias"
        is_sequence = node.kind == "MatMul" and len(shapes[node.inputs[0]]) != 2
        if (node.kind == "Gemm" and not node.attributes.get("transB", 0)) or (
            node.kind == "MatMul" and not is_sequence
        ):
            weights = weights.T
        weights = weights * np.float32(node.attributes.get("alpha", 1.0))
        n_outputs = weights.shape[output_axis(node) if is_sequence else 0]
        offset = np.zeros(n_outputs, np.float32)
        if len(node.inputs) > 2 and node.inputs[2]:
            stored = np.asarray(constants[node.inputs[2]], np.float32).reshape(-1)
            offset = np.broadcast_to(stored, (n_outputs,)) * np.float32(node.attributes.get("beta", 1.0))
        constants[name], constants[bias] = np.ascontiguousarray(weights), np.ascontiguousarray(offset)
        if is_sequence:
            sums = f"{node.outputs[0]}.sums"
            nodes.append(replace(node, inputs=(node.inputs[0], name), outputs=(sums,)))
            nodes.append(Node("Add", "", f"{node.name}.bias", (sums, bias), node.outputs, {}))
        elif node.kind == "Conv":
            attributes = _with_plain_pads(model, node, shapes[node.inputs[0]], weights.shape[2:])
            nodes.append(replace(node, inputs=(node.inputs[0], name, bias), attributes=attributes))
        else:
            nodes.append(replace(node, kind="Gemm", inputs=(node.inputs[0], name, bias), attributes={"transB": 1}))
    return replace(model, constants=constants, nodes=tuple(nodes))


def _with_plain_pads(model: Model, node: Node, shape: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, Any]:
    """Return the attributes of a Conv with pads in the place of a rule for them."""
    attributes = dict(node.attributes)
    if attributes.pop("auto_pad", "NOTSET") == "NOTSET":
        return attributes
    strides, dilations, _ = window_of(node.attributes, len(kernel))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    around = pads_of(Call(node, (), Walk(model)), shape[2:], reach, strides)
    return attributes | {"pads": around if len(kernel) == 2 else (around[1], around[3])}


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, from one sample of zeros."""
    (source,) = model.inputs
    known: dict[str, Array] = dict(model.constants) | {source.name: np.zeros(source.shape, np.float32)}
    for node in model.nodes:
        known |= results(model, node, [known[name] if name else None for name in node.inputs])
    return {name: array.shape for name, array in known.items()}


# --- scales and shifts behind products ------------------------------------------------------------------------------


def _with_scales_inside(model: Model) -> Model:
    """Put what scales and shifts the outputs of a product, each by a number of its own, into its weights and bias."""
    constants, nodes = dict(model.constants), list(model.nodes)
    while (found := next(_scalings(replace(model, constants=constants, nodes=tuple(nodes))), None)) is not None:
        product, reader, scale, offset = found
        _, weights, bias = nodes[product].inputs
        wide = (-1, *(1,) * (constants[weights].ndim - 1))
        constants[weights] = (constants[weights] * scale.reshape(wide)).astype(np.float32)
        constants[bias] = (constants[bias] * scale + offset).astype(np.float32)
        nodes[product] = replace(nodes[product], outputs=nodes[reader].outputs[:1])
        del nodes[reader]
    return replace(model, constants=constants, nodes=tuple(nodes))


def _scalings(model: Model) -> Iterator[tuple[int, int, Array, Array]]:
    """Yield which Conv or Gemm has a node as its only reader that scales or shifts, which that is, scale and shift.

    Scale and shift are one number an output, float64.
    """
    read = readers(model)
    reader_of = {name: at for at, node in enumerate(model.nodes) for name in node.inputs}
    for at, node in enumerate(model.nodes):
        output = node.outputs[0]
        if node.kind == "MatMul" or not is_product(model, node) or read[output] != 1 or output not in reader_of:
            continue
        shape = model.constants[node.inputs[1]].shape
        found = _scaling(model, model.nodes[reader_of[output]], output, shape[0], len(shape))
        if found is not None:
            yield at, reader_of[output], *found


def _scaling(model: Model, node: Node, source: str, n_outputs: int, n_axes: int) -> tuple[Array, Array] | None:
    """Return by what *node* scales and shifts each output of a product, if it does nothing else."""
    one, zero = np.ones(n_outputs), np.zeros(n_outputs)
    if node.domain not in ONNX or any(name and name not in model.constants for name in node.inputs if name != source):
        return None
    if node.kind == "BatchNormalization" and node.inputs[0] == source and not node.attributes.get("training_mode", 0):
        gamma, beta, mean, variance = (model.constants[name].astype(np.float64) for name in node.inputs[1:5])
        scale = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        return scale, beta - mean * scale
    if node.kind not in ("Add", "Sub", "Mul", "Div") or node.inputs.count(source) != 1:
        return None
    place = 1 - node.inputs.index(source)
    values = _each(model.constants[node.inputs[place]].astype(np.float64), n_outputs, n_axes)
    if values is None or (place == 0 and node.kind in ("Sub", "Div")) or (node.kind == "Div" and np.any(values == 0)):
        return None
    match node.kind:
        case "Add":
            return one, values
        case "Sub":
            return one, -values
        case "Mul":
            return values, zero
    return 1 / values, zero


def _each(values: Array, n_outputs: int, n_axes: int) -> Array | None:
    """Return *values* as one number an output (axis 1 of *n_axes*), or None where they differ along others."""
    if values.ndim > n_axes:
        return None
    wide = values.reshape((1,) * (n_axes - values.ndim) + values.shape)
    if any(n != 1 for axis, n in enumerate(wide.shape) if axis != 1) or wide.shape[1] not in (1, n_outputs):
        return None
    return np.broadcast_to(wide.reshape(-1), (n_outputs,))
