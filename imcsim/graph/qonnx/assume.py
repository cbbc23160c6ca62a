"""A pass over a model: bits that nobody told are assumed, for time, energy and area of a network of real numbers.

Codes come to be where the numbers are made that a product reads, behind a batch norm and a ReLU, so that whoever else
reads them, such as the shortcut of a residual block, gets the codes, too, as in a network that was trained with them.
What moves codes alone (a max pool, a flattening, a concatenation) is looked through. A mean over windows reads codes as
a product does. A product notes its place in the network, by which `weights_of` gives planes of shapes alone to weights
that no quantizer made; others keep theirs, and so do codes that a quantizer of the model makes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.assumption import Assumption, Place, codes_of, n_bits_of, with_sign
from imcsim.graph.outline import quantizer
from imcsim.graph.qonnx.call import Call
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.model import Model, Node
from imcsim.graph.qonnx.sequences import is_table
from imcsim.graph.qonnx.values import Value
from imcsim.graph.qonnx.weights import MOST_CODE, planes_of
from imcsim.ternary import PlaneSum

OF_ASSUMED = "imcsim.assume"
QONNX = "qonnx.custom_op.general"
CODES = "Codes"
"""The node that this pass puts in: codes of assumed bits, of whatever it reads."""

NOTE = "imcsim.assume"
"""The attribute of a product that holds a `Note`."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul"})
RECURRENT = frozenset({"GRU", "LSTM"})
"""What has one format for its input and its hidden state: codes with a sign, of the bits that most layers read."""

MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
LOOKED_THROUGH = frozenset({
    "Cast", "Concat", "DepthToSpace", "Dropout", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Pad", "Reshape",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
"""What gives codes where it gets them."""

MAKES_CODES = frozenset({
    "Quant", "IntQuant", "BipolarQuant", "Trunc", "MultiThreshold", "QuantizeLinear", "DequantizeLinear",
    "DynamicQuantizeLinear",
})  # fmt: skip

SAMPLE = 1 << 16
"""So many weights tell whether they have few levels."""


@dataclass(frozen=True)
class Note:
    """What is assumed of the weights of one product."""

    assumption: Assumption
    place: Place
    is_there: bool
    """Whether the model has numbers in the place of the weights."""


def with_assumed_bits(model: Model, assumption: Assumption) -> Model:
    """Return *model* with codes and weights of assumed bits where it has real numbers.

    Raises GraphError where a quantizer of the model should make codes of weights that are not there.
    """
    maker = {name: node for node in model.nodes for name in node.outputs if name}
    reached, missing = _reached(model), _missing(model)
    places = _places(model, reached)
    wanted: dict[str, str] = {}
    for node in model.nodes:
        if node.outputs[:1] and node.outputs[0] in places:
            told = assumption.activations[places[node.outputs[0]]]
            if node.kind in RECURRENT:
                told = with_sign(assumption.activations["middle"])
            _want(wanted, node.inputs[0], told, maker, reached)
        elif _is_of_two(node, reached):  # of activations, as in attention: both sides are codes that others read
            for name in node.inputs:
                _want(wanted, name, assumption.activations["middle"], maker, reached)
    nodes: list[Node] = []
    inputs = {source.name for source in model.inputs}
    constants = dict(model.constants)
    for name in sorted(inputs & set(wanted)):
        nodes.append(_codes(name, _inside(name), wanted[name], is_positive=True))
    for node in model.nodes:
        read = tuple(_inside(name) if name in inputs and name in wanted else name for name in node.inputs)
        made = tuple(_inside(name) if name in wanted else name for name in node.outputs)
        attributes = node.attributes
        if node.outputs[:1] and node.outputs[0] in places:
            is_there = not missing & set(node.inputs)
            attributes = {**attributes, NOTE: Note(assumption, places[node.outputs[0]], is_there)}
        nodes.append(replace(node, inputs=read, outputs=made, attributes=attributes))
        for name in node.outputs:
            if name in wanted and is_table(node, reached) and node.inputs[0] in constants:
                nodes.append(_table_quantizer(node, f"{name}~codes", wanted[name], constants))
                nodes.append(_codes(f"{name}~codes", name, wanted[name], is_positive=False))
            elif name in wanted:
                nodes.append(_codes(_inside(name), name, wanted[name], is_positive=False))
    return replace(model, nodes=tuple(nodes), constants=constants, assumption=assumption)


def take_codes(call: Call) -> Value:
    """Return the codes of assumed bits that a node of this pass makes."""
    value = call.as_it_lies()
    if call.node.inputs[0].endswith("~codes"):  # of the words of a table
        return replace(value, is_assumed=True)
    if value.is_codes and (not value.is_assumed or _is_as_made(value)):  # of a quantizer in the model, or these already
        return value
    is_positive = bool(call.attributes["is_positive"]) or value.low >= 0
    form = codes_of(str(call.attributes["codes"]), is_positive=is_positive)
    steps = (*value.numbers(), quantizer(form))
    return replace(call.walk.apply(value, steps, bounds=(float(form.low), float(form.high))), is_assumed=True)


def _is_as_made(value: Value) -> bool:
    """Whether nothing scaled or moved the codes since they were made."""
    return not value.scale.ndim and not value.zero.ndim and value.as_format() == value.form


def weights_of(call: Call, weights: Constant) -> PlaneSum:
    """Return the planes of the *weights* (c_out ...) of a product: their own, or those that are assumed."""
    note = call.attributes.get(NOTE)
    if not isinstance(note, Note):
        return planes_of(weights)
    if note.is_there and (found := _own_planes(weights)) is not None:
        return found
    numbers = weights.numbers if note.is_there else None
    return note.assumption.planes(note.place, weights.shape, numbers, call.node.name)


def _own_planes(weights: Constant) -> PlaneSum | None:
    """Return the planes of weights that a quantizer made, or that are stored as few numbers again and again."""
    if weights.codes is None:
        some = np.unique(weights.numbers[:1])
        sample = weights.numbers[: 1 + SAMPLE // max(1, weights.numbers[:1].size)].reshape(-1)[:SAMPLE]
        n_levels = len(np.unique(sample))
        if len(some) > 2 * MOST_CODE + 1 or n_levels == 1 or 2 * n_levels > sample.size:
            return None
    try:
        return planes_of(weights)
    except UnfitError:
        if weights.codes is not None:
            raise
        return None


def _reached(model: Model) -> set[str]:
    """Return the tensors that follow from the model's inputs."""
    reached = {source.name for source in model.inputs}
    for node in model.nodes:
        if reached & set(node.inputs):
            reached |= set(node.outputs) - {""}
    return reached


def _missing(model: Model) -> set[str]:
    """Return the constants whose numbers nobody has, and what follows from them; raises GraphError for their codes."""
    missing = set(model.missing)
    for node in model.nodes:
        if not missing & set(node.inputs):
            continue
        if node.kind in MAKES_CODES:
            name = sorted(missing & set(node.inputs))[0]
            raise GraphError(
                f"{model.origin}: {node.kind} {node.name} must read weights that are there, got {name!r}, whose "
                "external data is missing; put it beside the model, or take a model without quantizers of weights"
            )
        if all(name in model.constants or name in missing for name in node.inputs if name):
            missing |= set(node.outputs) - {""}
    return missing


def _is_of_two(node: Node, reached: set[str]) -> bool:
    """Whether *node* multiplies two tensors that follow from the model's inputs, and no weights."""
    return node.kind == "MatMul" and set(node.inputs) <= reached


def _places(model: Model, reached: set[str]) -> dict[str, Place]:
    """Return where in the network each product is, by the name of what it makes."""
    products = [
        node
        for node in model.nodes
        if node.kind in PRODUCTS and len(node.inputs) > 1 and node.inputs[0] in reached and node.outputs[0]
        if not _is_of_two(node, reached)
    ]
    made = {node.outputs[0] for node in products}
    behind: set[str] = set()  # tensors that follow from a product
    for node in model.nodes:
        if behind & set(node.inputs) or (node.outputs[:1] and node.outputs[0] in made):
            behind |= set(node.outputs) - {""}
    before: set[str] = set()  # tensors that a product follows from
    for node in reversed(model.nodes):
        if before & set(node.outputs) or (node.outputs[:1] and node.outputs[0] in made):
            before |= set(node.inputs) - {""}
    return {
        node.outputs[0]: "first"
        if not behind & set(node.inputs)
        else "last"
        if not before & set(node.outputs)
        else "middle"
        for node in products
    }


def _want(wanted: dict[str, str], name: str, told: str, maker: Mapping[str, Node], reached: set[str]) -> None:
    """Note where codes of *told* bits come to be, so that the tensor *name* holds them; of several, the most bits."""
    for source in _sources(name, maker, reached, set()):
        if source not in wanted or n_bits_of(told) > n_bits_of(wanted[source]):
            wanted[source] = told


def _sources(name: str, maker: Mapping[str, Node], reached: set[str], seen: set[str]) -> Iterator[str]:
    """Yield the tensors of numbers that the tensor *name* holds, in other places or the means of them."""
    if name in seen or name not in reached:
        return
    seen.add(name)
    node = maker.get(name)
    if node is not None and node.kind in MAKES_CODES:
        return
    if node is None or node.kind not in LOOKED_THROUGH:
        yield name
    if node is not None and node.kind in LOOKED_THROUGH | MEANS:
        for source in node.inputs if node.kind == "Concat" else node.inputs[:1]:
            yield from _sources(source, maker, reached, seen)


def _inside(name: str) -> str:
    """Return what the numbers of a tensor are called whose name its codes take; of an input, the other way round."""
    return f"{name}~"


def _table_quantizer(table: Node, made: str, told: str, constants: dict[str, np.ndarray]) -> Node:
    """Return a quantizer of what *table* looks up, whose codes reach as far as its numbers; its constants are added."""
    form = codes_of(told, is_positive=False)
    greatest = float(np.abs(constants[table.inputs[0]]).max()) or 1.0
    names = tuple(f"{made}.{what}" for what in ("scale", "zero", "bits"))
    for name, number in zip(names, (greatest / form.high, 0.0, float(form.bits)), strict=True):
        constants[name] = np.array(number, np.float32)
    read = (_inside(table.outputs[0]), *(names[:1] if form.kind == "binary" else names))
    attributes = {"signed": int(form.low < 0), "narrow": int(form.low < 0), "rounding_mode": "ROUND"}
    kind = "BipolarQuant" if form.kind == "binary" else "Quant"
    return Node(kind, QONNX, f"{table.name}.codes", read, (made,), attributes)


def _codes(read: str, made: str, told: str, *, is_positive: bool) -> Node:
    name = read if is_positive else made
    return Node(CODES, OF_ASSUMED, f"{name}.codes", (read,), (made,), {"codes": told, "is_positive": is_positive})
