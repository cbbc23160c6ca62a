"""One ATen operator with its arguments by name, and the model that is being written."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from imcsim.graph.qonnx.model import Node
from imcsim.graph.steps import Shape

Array = np.ndarray

DTYPES = {
    torch.float32: 1,
    torch.uint8: 2,
    torch.int8: 3,
    torch.int16: 5,
    torch.int32: 6,
    torch.int64: 7,
    torch.bool: 9,
    torch.float16: 10,
    torch.float64: 11,
    torch.bfloat16: 16,
}
"""Of `TensorProto.DataType`."""

NUMPY = {torch.bfloat16: torch.float32}
"""What is kept as another type, since numpy has none for it."""


class NoWordError(Exception):
    """The operator, as it is called here, is none of ONNX's."""


Written = str | tuple[str | None, ...]
"""The tensor that an operator makes, or its tensors; None: one that nothing reads."""


@dataclass(eq=False)
class Writer:
    """What is written so far."""

    constants: dict[str, Array] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    written: dict[fx.Node, Written] = field(default_factory=dict)
    value_of: Callable[[fx.Node], Any] = field(default=lambda node: None)
    """The tensor that a node has whatever goes in; None where that is not so."""

    parameter_of: Mapping[fx.Node, str] = field(default_factory=dict)
    """Names of parameters and buffers."""

    needed: Set[fx.Node] = field(default_factory=frozenset)
    """What the outputs follow from."""

    missing: set[str] = field(default_factory=set)
    """Constants whose shape alone is known."""

    def constant(self, array: Array, name: str) -> str:
        """Keep *array* and return its name, *name* or one like it."""
        number, wanted = 1, name
        while name in self.constants:
            number += 1
            name = f"{wanted}#{number}"
        array = array.view()
        array.flags.writeable = False
        self.constants[name] = array
        return name

    def tensor(self, node: fx.Node) -> Written:
        """Return the name of what *node* makes, which is a constant, an input, or written already."""
        if node not in self.written:
            value = self.value_of(node)
            if not isinstance(value, torch.Tensor):
                raise NoWordError
            name = self.constant(as_array(value), self.parameter_of.get(node, node.name))
            if value.is_meta:
                self.missing.add(name)
            self.written[node] = name
        return self.written[node]


@dataclass(frozen=True, eq=False)
class Call:
    """One operator of the program."""

    node: fx.Node
    name: str
    """The path of the module that calls it, with the node's own name where it calls more than one."""

    arguments: Mapping[str, Any]
    """By the names of its schema, defaults included; whole numbers for symbols."""

    writer: Writer

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the argument *name*; *default* where there is none."""
        return self.arguments.get(name, default)

    def array(self, name: str) -> Array | None:
        """Return the argument *name* as an array; None where it is missing, or follows from an input."""
        value = self.arguments.get(name)
        if isinstance(value, fx.Node):
            value = self.writer.value_of(value)
        return as_array(value) if isinstance(value, torch.Tensor) else None

    def shape(self, name: str = "") -> Shape:
        """Return the shape, batch included, of the argument *name*, or else of what comes out."""
        return shape_of(self.arguments[name] if name else self.node)

    def dtype(self, name: str = "") -> torch.dtype:
        """Return the type of the numbers of the argument *name*, or else of what comes out."""
        node = self.arguments[name] if name else self.node
        return _value(node).dtype

    def tensor(self, name: str) -> str:
        """Return the tensor of the argument *name*: a number is a constant of the type that comes out."""
        return self.tensor_of(self.arguments[name], name)

    def tensor_of(self, value: Any, what: str) -> str:
        """Return the tensor of an argument."""
        if isinstance(value, fx.Node):
            found = self.writer.tensor(value)
            if not isinstance(found, str):
                raise NoWordError
            return found
        if isinstance(value, bool | int | float):
            dtype = self.dtype()
            if dtype is torch.bool:  # a comparison is of the type of what it compares
                other = next(_value(each) for each in self.arguments.values() if isinstance(each, fx.Node))
                dtype = torch.result_type(other, value)
            return self.constant(as_array(torch.tensor(value, dtype=dtype)), what)
        raise NoWordError

    def optional(self, name: str) -> str:
        """Return the tensor of the argument *name*, the empty name where it is None."""
        return "" if self.arguments.get(name) is None else self.tensor(name)

    def constant(self, array: Array, what: str) -> str:
        """Keep *array* as a constant of this operator and return its name."""
        return self.writer.constant(array, self.output(what))

    def whole(self, numbers: Sequence[int], what: str) -> str:
        """Keep whole numbers, such as a shape, as a constant."""
        return self.constant(np.array(numbers, np.int64), what)

    def output(self, what: str = "") -> str:
        """Return the name of the tensor that comes out, or of one on the way to it; no path of a module has a "/"."""
        return f"{self.node.name}/{what}" if what else self.node.name

    def add(self, kind: str, *inputs: str, what: str = "", **attributes: Any) -> str:
        """Write a node, and return the tensor that it makes; *what* tells several of one operator apart."""
        self.add_many(kind, inputs, (self.output(what),), what=what, **attributes)
        return self.output(what)

    def add_many(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], *, what: str = "", **attributes: Any
    ) -> None:
        """Write a node that makes *outputs*."""
        name = f"{self.name}.{what}" if what else self.name
        self.writer.nodes.append(Node(kind, "", name, tuple(inputs), tuple(outputs), attributes))

    def moved(self, tensor: str, array: Array | None, kind: str, what: str, *inputs: str, **attributes: Any) -> str:
        """Return *array* as a constant where the program holds it, and else *tensor* through a node."""
        if array is not None and not self.is_dequantized(tensor):
            return self.constant(array, what)
        return self.add(kind, tensor, *inputs, what=what, **attributes)

    def is_dequantized(self, tensor: str) -> bool:
        """Whether *tensor* is made by a node, so that its codes would be lost in an array of its numbers."""
        return tensor not in self.writer.constants

    def is_read(self, place: int) -> bool:
        """Whether something reads the tensor at *place* of those that come out."""
        return any(user.args[1] == place for user in self.node.users if user in self.writer.needed)


Write = Callable[[Call], Written]


def shape_of(node: fx.Node) -> Shape:
    """Return the shape of the tensor that *node* makes; symbols count as in the example."""
    value = _value(node)
    if not isinstance(value, torch.Tensor):
        raise NoWordError
    return tuple(whole_number(n) for n in value.shape)


def whole_number(value: Any) -> int:
    """Return a whole number, a symbol as it is in the example."""
    if isinstance(value, int):
        return value
    hint = value.node.hint
    if hint is None:
        raise NoWordError
    return int(hint)


def as_array(tensor: torch.Tensor) -> Array:
    """Return the numbers of *tensor*; the array shares its memory where it can. On the device meta they are ones."""
    if tensor.is_meta:
        one = torch.ones((), dtype=NUMPY.get(tensor.dtype, tensor.dtype), device="cpu")
        return np.broadcast_to(one.numpy(), tuple(tensor.shape))
    tensor = tensor.detach()
    tensor = tensor.to("cpu", NUMPY.get(tensor.dtype, tensor.dtype))
    return tensor.numpy()


def axis_of(axis: int, n_axes: int) -> int:
    """Return *axis* counted from the front."""
    return axis % max(n_axes, 1)


def _value(node: fx.Node) -> Any:
    value = node.meta.get("val")
    return value[0] if isinstance(value, tuple | list) else value
