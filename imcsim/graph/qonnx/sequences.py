"""Which axes of the network's input are batch, time and channels, told by what reads it.

A sequence is an image (c 1 t) in a graph. A file has it as (b t c), or (t b c), and tokens as (b t) or (t b).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from imcsim.graph.qonnx.model import Input, Model, Node
from imcsim.graph.qonnx.values import Value

RECURRENT = ("LSTM", "GRU", "QuantLSTMCell")

QUANTIZING = ("Quant", "IntQuant", "BipolarQuant", "MultiThreshold", "Trunc")

KEEPS_AXES = (
    *QUANTIZING, "Abs", "Add", "Cast", "Clip", "Codes", "Div", "Dropout", "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Mul", "Neg", "PRelu", "Relu", "Sigmoid", "Sign", "Sub", "Tanh",
)  # fmt: skip
"""Operators behind which the axes are those before."""


def is_time_first(node: Node) -> bool:
    """Whether a recurrent *node* takes (t b c), and not (b t c)."""
    if node.kind == "QuantLSTMCell":
        return not node.attributes.get("batch_first", 0)
    return not node.attributes.get("layout", 0)


def input_value(model: Model, source: Input) -> Value:
    """Return the network's input as the graph has it."""
    reached, makers = {source.name}, dict[str, Node]()
    for node in model.nodes:
        if reached & set(node.inputs):
            reached |= set(node.outputs)
        makers |= dict.fromkeys(node.outputs, node)
    for name, roles in _readers(model, reached):
        found = _roles(name, roles, makers, reached, source.name)
        if found is not None and len(found) == len(source.shape):
            batch_axis = found.index("b")
            shape = source.shape[:batch_axis] + source.shape[batch_axis + 1 :]
            if "c" not in found:
                return Value(source.name, shape, batch_axis=batch_axis, is_tokens=True)
            order = (1, 0) if found.index("t") < found.index("c") else None
            return Value(source.name, shape, batch_axis=batch_axis, order=order)
    return Value(source.name, source.shape[1:])


def has_sequences(model: Model, inputs: Iterable[Value]) -> bool:
    """Whether sequences or tokens go through *model*: its inputs, or what a recurrent layer takes."""
    return any(value.is_tokens or value.is_moved for value in inputs) or any(
        node.kind in RECURRENT for node in model.nodes
    )


def _readers(model: Model, reached: set[str]) -> Iterator[tuple[str, str]]:
    """Yield tensors whose axes are told by who reads them: batch, time, channels; recurrent layers before tables."""
    for node in model.nodes:
        if node.kind in RECURRENT and node.inputs[:1] and node.inputs[0] in reached:
            yield node.inputs[0], "tbc" if is_time_first(node) else "btc"
    for node in model.nodes:
        if is_table(node, reached):
            yield node.inputs[1], "bt"


def is_table(node: Node, reached: set[str]) -> bool:
    """Whether *node* looks up what follows from the network's input in a table that does not."""
    return (
        node.kind == "Gather" and len(node.inputs) > 1 and node.inputs[1] in reached and node.inputs[0] not in reached
    )


def _roles(name: str, roles: str, makers: Mapping[str, Node], reached: set[str], source: str) -> str | None:
    """Return what the axes of *source* are where those of *name*, which follows from it, are *roles*; None: untold."""
    while name != source:
        node = makers[name]
        if node.kind == "Transpose":
            perm = tuple(node.attributes.get("perm", reversed(range(len(roles)))))
            if sorted(perm) != list(range(len(roles))):
                return None
            roles = "".join(roles[perm.index(axis)] for axis in range(len(roles)))
        elif is_table(node, reached):
            roles = roles.replace("c", "")
        elif node.kind not in KEEPS_AXES:
            return None
        name = next(name for name in node.inputs if name in reached)
    return roles


def with_quantized_tables(model: Model) -> Model:
    """Return *model* with the quantizer behind a table moved into the table, which gives the same numbers."""
    reached = {source.name for source in model.inputs}
    readers: dict[str, int] = dict.fromkeys(model.outputs, 1)
    for node in model.nodes:
        if reached & set(node.inputs):
            reached |= set(node.outputs)
        for name in node.inputs:
            readers[name] = readers.get(name, 0) + 1
    tables = {
        node.outputs[0]: node for node in model.nodes if is_table(node, reached) and readers.get(node.outputs[0]) == 1
    }
    nodes: list[Node] = []
    for node in model.nodes:
        table = tables.get(node.inputs[0]) if node.inputs and node.kind in QUANTIZING[:3] else None
        if table is None or reached & set(node.inputs[1:]):
            nodes.append(node)
            continue
        codes = f"{node.outputs[0]}.table"
        nodes.remove(table)
        nodes.append(replace(node, inputs=(table.inputs[0], *node.inputs[1:]), outputs=(codes,)))
        nodes.append(replace(table, inputs=(codes, table.inputs[1]), outputs=node.outputs))
    return replace(model, nodes=tuple(nodes))
