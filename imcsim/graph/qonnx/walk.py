"""From node to node of a model file: each becomes a constant, a step, a product, or a line of what does not fit."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import inf, prod
from pathlib import Path

import numpy as np

from imcsim.errors import GraphError, ImcsimError
from imcsim.graph.assumption import Assumed, Assumption, parse_assumption
from imcsim.graph.attention import Permute
from imcsim.graph.formats import REAL, Format
from imcsim.graph.ir import Graph, Op, Product, Tensor
from imcsim.graph.offsets import take_apart
from imcsim.graph.passes import rename_outputs, simplify
from imcsim.graph.qonnx.assume import OF_ASSUMED, take_codes, with_assumed_bits
from imcsim.graph.qonnx.call import Call, Known
from imcsim.graph.qonnx.constants import FOLDED, Constant, UnfitError
from imcsim.graph.qonnx.file import MOST_NUMBERS, ONNX, read_file
from imcsim.graph.qonnx.model import Model, Node
from imcsim.graph.qonnx.operators import INSTEAD, OPERATORS
from imcsim.graph.qonnx.patterns import recognized
from imcsim.graph.qonnx.quantized import QUANTIZERS
from imcsim.graph.qonnx.recurrences import CELLS, DOMAIN, OWN
from imcsim.graph.qonnx.sequences import has_sequences, input_value, with_quantized_tables
from imcsim.graph.qonnx.values import ONE, ZERO, Value, in_order
from imcsim.graph.recurrent import Cell, Embedding
from imcsim.graph.refusal import Refusals, listed, one_line
from imcsim.graph.steps import Quantize, Shape, Step, Threshold

Array = np.ndarray

QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "finn")
"""Domains of the quantizers: today's, and those of older files."""


def read_qonnx(path: str | Path, *, name: str | None = None, assume: str | Assumption | None = None) -> Graph:
    """Return the model in the ONNX file *path* as a graph: one op a layer, batch norms folded.

    *name* is by default that of the file. Sequences (b c l) are images (b c 1 l). With *assume*, layers of real numbers
    have the bits that it says, and no values (`imcsim.graph.assumption`). Raises GraphError, one line: what is wrong
    with the file, or every operator that cannot be taken, how many, where, why, and the nearest thing that can.
    """
    if assume is None:
        return simplify(as_stored(read_file(path), name or Path(path).stem))
    bits = parse_assumption(assume)
    return simplify(as_assumed(read_file(path, needs_values=False), bits, name or Path(path).stem))


def as_assumed(model: Model, assumption: Assumption, name: str) -> Graph:
    """Return the model with assumed bits in the place of real numbers, before any pass.

    Raises GraphError where it has none to assume bits of.
    """
    graph = as_stored(with_assumed_bits(model, assumption), name)
    if graph.assumed is None:
        raise GraphError(f"{model.origin}: assume: must meet a layer of real numbers, got quantized ones; leave it out")
    return graph


def as_stored(model: Model, name: str) -> Graph:
    """Return the model as a graph of one product or one step an op, before any pass."""
    if model.missing and model.assumption is None:
        raise GraphError(
            f"{model.origin}: weights must be there, got shapes alone of {listed(sorted(model.missing))}; for time and "
            "energy without them see --assume"
        )
    model = with_quantized_tables(with_live_nodes(recognized(model)))
    walk = Walk(model)
    for node in model.nodes:
        walk.take(node)
    return walk.graph(name)


def with_live_nodes(model: Model) -> Model:
    """Return *model* without the nodes that no output follows from: nothing is lost, and nobody pays for them."""
    wanted, live = set(model.outputs), list[Node]()
    for node in reversed(model.nodes):
        if wanted & set(node.outputs):
            live.append(node)
            wanted |= set(node.inputs)
    return replace(model, nodes=tuple(reversed(live)))


class Walk:
    """The tensors known so far, and the ops that make them."""

    def __init__(self, model: Model) -> None:
        values = {source.name: input_value(model, source) for source in model.inputs}
        batches = {source.name: source.shape[values[source.name].batch_axis or 0] for source in model.inputs}
        if len(set(batches.values())) > 1:
            got = listed(f"{n} of {name}" for name, n in batches.items())
            raise GraphError(f"{model.origin}: all inputs must have one batch, got {got}")
        self.model, self.batch = model, batches[model.inputs[0].name]
        self.known: dict[str, Known] = {key: Constant(array) for key, array in model.constants.items()}
        self.inputs = tuple(Tensor(name, value.placed, REAL) for name, value in values.items())
        self.input_names, self.has_sequences = set(values), has_sequences(model, values.values())
        self.known |= values
        self.read = {name for node in model.nodes for name in node.inputs} | set(model.outputs)
        self.readers: dict[str, list[Node]] = defaultdict(list)
        for node in model.nodes:
            for read in dict.fromkeys(node.inputs):
                self.readers[read].append(node)
        self.ops: list[Op] = []
        self.names: Counter[str] = Counter()
        self.tensors: Counter[str] = Counter()
        self.turns: dict[tuple[str, Shape, tuple[int, ...]], Value] = {}
        self.refused = Refusals()
        self.node: Node | None = None
        self.assumed: dict[str, list[str]] = {"weights": [], "inputs": []}

    def take(self, node: Node) -> None:
        """Note what *node* makes, or why it does not fit."""
        self.node = node
        made: tuple[Known, ...] = ()
        try:
            found = self._made(node)
            made = found if isinstance(found, tuple) else (found,)
            self._require_outputs(node, made)
        except UnfitError as problem:
            self._refuse(node, f" {problem}", problem.help)
        except ImcsimError as error:
            self._refuse(node, f": {error}")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError) as error:
            reason = next(iter(str(error).splitlines()), "")  # a node that is not what ONNX says it is
            self._refuse(node, f" that is not as ONNX has it ({type(error).__name__}: {reason})")
        for number, output in enumerate(node.outputs):
            if output:
                self.known[output] = made[number] if number < len(made) else None

    def _require_outputs(self, node: Node, made: tuple[Known, ...]) -> None:
        """Raise UnfitError where somebody reads an output that *node*, which fits, does not make."""
        for number, output in enumerate(node.outputs):
            is_missing = number >= len(made) or (number > 0 and made[number] is None)
            if made and made[0] is not None and is_missing and output in self.read:
                raise UnfitError(f"whose output {number + 1} is read", "its first output alone")

    def _made(self, node: Node) -> Known | tuple[Known, ...]:
        given = [self.known[name] if name else None for name in node.inputs]
        is_known = all(value is not None for name, value in zip(node.inputs, given, strict=True) if name)
        is_constant = all(not isinstance(value, Value) for value in given)
        if node.domain == OF_ASSUMED and self.model.assumption is not None:
            return take_codes(Call(node, given, self)) if is_known else None
        custom = {**QUANTIZERS, **CELLS} if node.domain in QONNX else OWN if node.domain == DOMAIN else {}
        if node.kind in custom:
            return custom[node.kind](Call(node, given, self)) if is_known else None
        if node.domain not in ONNX or node.kind not in (FOLDED if is_known and is_constant else OPERATORS):
            where = f" of domain {node.domain!r}" if node.domain not in (*ONNX, *QONNX) else ""
            if node.kind in OPERATORS and node.domain in ONNX:
                raise UnfitError("of constants alone", "its result as an initializer")
            raise UnfitError(where.strip(), INSTEAD.get(node.kind, ""))
        if not is_known:
            return None
        if is_constant:
            constants = [value for value in given if not isinstance(value, Value)]
            return FOLDED[node.kind](node.attributes, constants)
        return OPERATORS[node.kind](Call(node, given, self))

    def _refuse(self, node: Node, why: str, instead: str = "") -> None:
        self.refused.add(node.kind, why, instead, node.name)

    # --- what operators call ------------------------------------------------------------------------------------------

    def apply(
        self,
        value: Value,
        steps: Sequence[Step],
        *,
        shape: Shape | None = None,
        order: tuple[int, ...] | None = None,
        scale: Array = ONE,
        zero: Array = ZERO,
        bounds: tuple[float, float] = (-inf, inf),
        what: str = "",
        label: str = "",
    ) -> Value:
        """Return what *steps* make of the tensor of *value*, as an op named after the node at hand.

        *shape* is that of the file, where it is not told by the steps, and *order* that of its axes; else the axes stay
        where they are. *scale* and *zero* are those of codes that come out; *what* tells several ops of one node apart,
        and their tensors, *label* the ops alone.
        """
        assert self.node is not None
        now, form, is_assumed = value.placed, value.form, value.is_assumed
        for step in steps:
            now = step.shape(now)
            if isinstance(step, Threshold | Quantize | Embedding):
                form, is_assumed = step.format, False
            elif not step.keeps_codes:
                form, is_assumed = REAL, False
        is_tokens = value.is_tokens and shape is None
        if shape is None:
            shape, order = value.taken_back(now), value.order
        if not steps:
            return replace(value, shape=shape, order=order)
        self.require_size(shape)
        name = f"{self.node.name}.{label or what}" if label or what else self.node.name
        output = self._tensor(what, now, form)
        self.ops.append(Op(name=self._op_name(name), input=value.tensor, output=output, steps=tuple(steps)))
        return Value(
            output.name,
            shape,
            form,
            scale,
            zero,
            low=bounds[0],
            high=bounds[1],
            is_assumed=is_assumed,
            order=order,
            batch_axis=value.batch_axis,
            is_tokens=is_tokens,
        )

    def turned(self, value: Value, axes: Sequence[int]) -> Value:
        """Return *value* with the file's *axes* in that order in its tensor; made once for all who ask for it."""
        order = in_order(axes)
        if value.order == order or len(value.shape) < 2:
            return replace(value, order=order)
        if value.scale.ndim or value.zero.ndim:  # which are for the first axis
            value = self.as_numbers(value, f"numbers{len(self.turns)}")
        steps = Permute((2, 1, 0) if len(axes) == 2 else tuple(value.axes.index(axis) for axis in axes))
        key = value.tensor, value.placed, steps.axes
        if key not in self.turns:
            self.turns[key] = self.apply(value, (steps,), shape=value.shape, what=f"turned{len(self.turns)}")
        return replace(value, tensor=self.turns[key].tensor, order=order)

    def led_by(self, value: Value, axis: int) -> Value:
        """Return *value* with the *axis* of the file, counted behind the batch, in the place of the channels."""
        return self.turned(value, (axis, *(other for other in value.axes if other != axis)))

    def as_numbers(self, value: Value, what: str) -> Value:
        """Return *value* as a real tensor, by an op of its own where it is codes."""
        steps = value.numbers()
        if not steps:
            return value
        return self.apply(value, steps, what=what, bounds=(value.low, value.high))

    def multiply(self, value: Value, product: Product, bias: Array | float) -> Value:
        """Return the product of the codes of *value*, scaled, with a bias of one number or one per output."""
        assert self.node is not None
        source = Tensor(value.tensor, value.placed, value.as_format())
        self.require_size(product.shape(source.shape))
        product, steps = take_apart(product, source, bias)
        shape = product.shape(source.shape)
        name = self._op_name(self.node.name)
        self._note_assumed(name, value, product)
        total = self._tensor("sum", shape, REAL)
        self.ops.append(Op(name=name, input=value.tensor, output=total, product=product))
        made = Value(total.name, value.taken_back(shape), order=value.order, batch_axis=value.batch_axis)
        for number, step in enumerate(steps):
            label = f"scale{number}"
            made = self.apply(made, (step,), what="" if step is steps[-1] else label, label=label)
        return made

    def recur(self, value: Value, product: Product, cell: Cell, bounds: tuple[float, float]) -> Value:
        """Return the hidden codes of a recurrent layer over the sequence *value*, their axes in the order of those."""
        assert self.node is not None
        source = Tensor(value.tensor, value.placed, value.as_format())
        made = cell.shape(product.shape(source.shape))
        self.require_size(made)
        output, name = self._tensor("", made, cell.format), self._op_name(self.node.name)
        self.ops.append(Op(name=name, input=value.tensor, output=output, product=product, steps=(cell,)))
        self._note_assumed(name, value, product)
        return replace(value, tensor=output.name, shape=value.taken_back(made), low=bounds[0], high=bounds[1])

    def _note_assumed(self, name: str, value: Value, product: Product) -> None:
        for what, is_assumed in (("weights", not product.weights.has_values), ("inputs", value.is_assumed)):
            self.assumed[what] += [name] * is_assumed

    def made_at(self, value: Value) -> int:
        """Return which op makes the tensor of *value*; -1 for an input of the network."""
        return next((i for i, op in enumerate(self.ops) if op.output.name == value.tensor), -1)

    def _tensor(self, what: str, shape: Shape, form: Format) -> Tensor:
        assert self.node is not None
        name = f"{self.node.outputs[0]}.{what}" if what else self.node.outputs[0]
        self.tensors[name] += 1
        return Tensor(name if self.tensors[name] == 1 else f"{name}#{self.tensors[name]}", shape, form)

    def _op_name(self, name: str) -> str:
        self.names[name] += 1
        return name if self.names[name] == 1 else f"{name}#{self.names[name]}"

    @staticmethod
    def require_size(shape: Shape) -> None:
        """Raise UnfitError for a tensor of absurd *shape*."""
        if prod(shape) > MOST_NUMBERS:
            raise UnfitError(f"with a result of shape {shape}", f"at most {MOST_NUMBERS} numbers a sample")

    # --- the end ------------------------------------------------------------------------------------------------------

    def graph(self, name: str) -> Graph:
        """Return the graph of all nodes; raises GraphError that lists every one that does not fit."""
        path = self.model.origin
        if self.refused:
            raise GraphError(f"{path}: {self.refused.line('node')}")
        try:
            tensors = tuple(map(self._output, self.model.outputs))
            graph = Graph(name=name, inputs=self.inputs, ops=tuple(self.ops), outputs=tensors)
            graph = replace(graph, assumed=self._assumed())
            # who gets several outputs asks for each by the name that the model gives it
            return graph if len(tensors) == 1 else rename_outputs(graph, self.model.outputs)
        except ImcsimError as error:
            raise GraphError(f"{path}: {one_line(str(error))}") from None

    def _output(self, output: str) -> str:
        """Return the tensor with the numbers of an output of the model."""
        value = self.known[output]
        which = f"output {output!r}" if len(self.model.outputs) > 1 else "output"
        is_input = isinstance(value, Value) and value.tensor in self.input_names
        if not isinstance(value, Value) or (is_input and (self.has_sequences or not value.is_moved)):
            raise GraphError(f"{which} must follow from the input by an operator, got one that does not")
        if value.pads != (0, 0, 0, 0):
            raise GraphError(f"{which} must not be padding, got a Pad behind everything")
        self.node = Node("output", "", "output", (), (f"{output}.numbers",), {})
        made = self.as_numbers(value, "")
        if self.has_sequences:  # which are (c 1 t), wherever the file has the batch and the time
            return made.tensor
        if value.batch_axis != 0:
            raise GraphError(f"{which} must have the batch in front, got it elsewhere")
        return self.turned(made, range(len(value.shape))).tensor

    def _assumed(self) -> Assumed | None:
        if not any(self.assumed.values()):
            return None
        return Assumed(str(self.model.assumption), tuple(self.assumed["weights"]), tuple(self.assumed["inputs"]))
