"""An ONNX file to nodes in dependency order and constants as arrays; every size is checked before memory is taken."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from heapq import heappop, heappush
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from imcsim.errors import ConfigError, GraphError
from imcsim.graph.qonnx.model import Input, Model, Node
from imcsim.graph.qonnx.wire import WireError, check_size
from imcsim.graph.steps import Shape

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, TensorProto, ValueInfoProto

Array = np.ndarray

OPSETS = (9, 27)
"""The least and the greatest version of ONNX's own operators that the tables of `operators` are held against."""

MOST_FILE_BYTES = 400 << 20
"""Greatest file: what is parsed takes twice its size. Larger weights are kept as external data."""

MOST_BYTES = 512 << 20
"""Greatest size of all constants together, as they are stored."""

MOST_NODES = 20_000

MOST_NUMBERS = 1 << 24
"""Greatest number of values in one tensor of one sample."""

DTYPES = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}
"""Of `TensorProto.DataType`: the numbers that are read."""

FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}
"""Where numbers stand that are not raw bytes; the others stand in int32_data."""

MOST_LETTERS = 4000
"""Of a message."""

ONNX = ("", "ai.onnx")
"""Domains of ONNX's own operators."""


MOST_SMALL = 1 << 12
"""So many external numbers are read at once, even where they may be missing."""

MOST_SHAPED = 1 << 36
"""Greatest number of external numbers, all constants together, of which the shapes alone are wanted."""


def read_file(path: str | Path, *, needs_values: bool = True) -> Model:
    """Return what the ONNX file *path* says.

    Where it *needs_values* not, real numbers of external data may be missing, and however many they are, they take no
    memory: ones stand in their place (`Model.missing`). Raises ConfigError where the package onnx is missing,
    GraphError for a file that cannot be taken: one line each.
    """
    path = Path(path)
    try:
        return _read(path, needs_values=needs_values)
    except _FileError as error:
        raise GraphError(f"{path}: {one_line(str(error))}") from None


class _FileError(Exception):
    """What is wrong with the file, without its name."""


def _read(path: Path, *, needs_values: bool) -> Model:
    model = _parsed(path)
    graph, opset = model.graph, _opset(model)
    constants = _Constants(path.resolve().parent, needs_values=needs_values)
    known = {_text(tensor.name): constants.array(tensor, repr(tensor.name)) for tensor in graph.initializer}
    if len(known) < len(graph.initializer):
        raise _FileError(f"initializers must have different names, got {len(graph.initializer)} of {len(known)} names")
    if graph.sparse_initializer:
        raise _FileError("initializers must be dense, got sparse ones; make them dense")
    inputs = [
        value for value in graph.input if _text(value.name) not in known
    ]  # old files list initializers there, too
    sources, outputs = _inputs(inputs), tuple(_text(value.name) for value in graph.output)
    if not outputs or len(set(outputs)) < len(outputs):
        raise _FileError(f"must have one or more outputs of different names, got {listed(outputs) or 'none'}")
    nodes = _sorted([_node(node, constants) for node in graph.node], {*known, *(source.name for source in sources)})
    made = {name for node in nodes for name in node.outputs}
    if missing := [output for output in outputs if output not in made]:
        raise _FileError(f"output {missing[0]!r} must be made by a node, got none that makes it")
    return Model(str(path), opset, sources, known, nodes, outputs, frozenset(constants.missing & set(known)))


def _parsed(path: Path) -> "ModelProto":
    try:
        size = path.stat().st_size
        if size > MOST_FILE_BYTES:
            raise _FileError(
                f"must have at most {MOST_FILE_BYTES >> 20} MiB, got {size >> 20} MiB; keep weights as external data"
            )
        content = path.read_bytes()
    except OSError as error:
        raise _FileError(f"must be a file that can be read, got {error.strerror}") from None
    try:
        from onnx import ModelProto
    except ImportError:
        raise ConfigError(f"{path}: the package onnx must be installed, got none; pip install imcsim[onnx]") from None
    from google.protobuf.message import DecodeError

    model = ModelProto()
    try:
        check_size(content, ModelProto.DESCRIPTOR)
        model.ParseFromString(content)
    except WireError as error:
        raise _FileError(str(error)) from None
    except DecodeError:
        raise _FileError(
            f"must be a whole ONNX file, got {size} bytes of something else; it is cut off or another format"
        ) from None
    if not model.HasField("graph") or not model.graph.node:
        raise _FileError("must be an ONNX model with a graph of nodes, got none")
    if len(model.graph.node) > MOST_NODES:
        raise _FileError(f"must have at most {MOST_NODES} nodes, got {len(model.graph.node)}")
    return model


def _opset(model: "ModelProto") -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in ONNX]
    if len(versions) != 1:
        raise _FileError(f"must import one version of ONNX's operators, got {len(versions)}")
    least, greatest = OPSETS
    if not least <= versions[0] <= greatest:
        raise _FileError(
            f"opset must be from {least} to {greatest}, got {versions[0]}; convert it (onnx.version_converter)"
        )
    return versions[0]


def _inputs(values: "list[ValueInfoProto]") -> tuple[Input, ...]:
    names = [_text(value.name) for value in values]
    if not names or len(set(names)) < len(names):
        raise _FileError(f"must have one or more inputs of different names, got {listed(names) or 'none'}")
    shapes = [_input_shape(value) for value in values]
    fixed = {
        name: shape[0]
        for name, shape, value in zip(names, shapes, values, strict=True)
        if value.type.tensor_type.shape.dim[0].dim_value
    }
    if len(set(fixed.values())) > 1:
        got = listed(f"{n} of {name}" for name, n in fixed.items())
        raise _FileError(f"all inputs must have one batch, got {got}")
    batch = next(iter(fixed.values()), 1)
    return tuple(Input(name, (batch, *shape[1:])) for name, shape in zip(names, shapes, strict=True))


def _input_shape(value: "ValueInfoProto") -> Shape:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or kind.elem_type not in DTYPES or not kind.HasField("shape"):
        raise _FileError(f"input {value.name!r} must be a tensor of numbers with a shape, got another")
    shape = []
    for axis, dim in enumerate(kind.shape.dim):
        if axis == 0 and not dim.dim_value:
            shape.append(1)
            continue
        if not dim.HasField("dim_value") or dim.dim_value < 1:
            got = dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "nothing")
            raise _FileError(
                f"input {value.name!r}: every axis behind the batch must have a fixed size, got {got} for axis {axis}; "
                "export the model with static shapes"
            )
        shape.append(dim.dim_value)
    if shape and shape[0] < 1:
        raise _FileError(f"input {value.name!r}: the batch must be at least 1, got {shape[0]}")
    if not 2 <= len(shape) <= 4:
        raise _FileError(f"input {value.name!r} must have shape (b c), (b c l) or (b c h w), got {tuple(shape)}")
    if prod(shape[1:]) > MOST_NUMBERS or shape[0] > MOST_NUMBERS:
        raise _FileError(
            f"input {value.name!r} must have at most {MOST_NUMBERS} numbers a sample, got shape {tuple(shape)}"
        )
    return tuple(shape)


class _Constants:
    """Reads stored tensors, within `MOST_BYTES` for all of them."""

    def __init__(self, folder: Path, *, needs_values: bool) -> None:
        self.folder, self.needs_values, self.n_bytes, self.n_shaped = folder, needs_values, 0, 0
        self.missing: set[str] = set()

    def array(self, tensor: "TensorProto", what: str) -> Array:
        shape = tuple(tensor.dims)
        dtype: Any = DTYPES.get(tensor.data_type)
        if dtype is None:
            raise _FileError(f"tensor {what} must hold numbers, got data type {tensor.data_type}")
        if any(n < 0 for n in shape):
            raise _FileError(f"tensor {what} must have a shape of whole numbers, got {shape}")
        dtype, n = np.dtype(dtype).newbyteorder("<"), prod(shape)
        if tensor.data_location == 1 and dtype.kind == "f" and not self.needs_values:
            return self._shaped(tensor, what, dtype, shape)
        self.n_bytes += n * dtype.itemsize
        if self.n_bytes > MOST_BYTES:
            raise _FileError(
                f"constants must take at most {MOST_BYTES >> 20} MiB together, got more with {what} of shape {shape}"
            )
        if tensor.data_location == 1:  # EXTERNAL
            path, start = self._external(tensor, what, dtype, n)
            return np.fromfile(path, dtype, count=n, offset=start).reshape(shape)
        if tensor.HasField("raw_data"):
            found = len(tensor.raw_data) // dtype.itemsize
            if len(tensor.raw_data) != n * dtype.itemsize:
                raise _FileError(f"tensor {what} must hold {n} numbers for shape {shape}, got {found}")
            return np.frombuffer(tensor.raw_data, dtype).reshape(shape)
        stored = getattr(tensor, FIELDS.get(tensor.data_type, "int32_data"))
        if len(stored) != n:
            raise _FileError(f"tensor {what} must hold {n} numbers for shape {shape}, got {len(stored)}")
        if tensor.data_type == 10:  # halves stand as their bits
            return np.array(stored, np.int32).astype(np.uint16).view(np.float16).reshape(shape)
        return np.array(stored).astype(dtype).reshape(shape)

    def _shaped(self, tensor: "TensorProto", what: str, dtype: np.dtype, shape: Shape) -> Array:
        """Return external numbers where they lie, or ones where they are missing."""
        self.n_shaped += prod(shape)
        if self.n_shaped > MOST_SHAPED:
            raise _FileError(f"constants must be at most {MOST_SHAPED} numbers, got more with {what} of shape {shape}")
        if not self._path(tensor, what).is_file():
            self.missing.add(_text(tensor.name))
            return np.broadcast_to(np.ones((), dtype), shape)
        path, start = self._external(tensor, what, dtype, prod(shape))
        if prod(shape) <= MOST_SMALL:  # nothing, or one number, which no file is mapped for
            return np.fromfile(path, dtype, count=prod(shape), offset=start).reshape(shape)
        return np.memmap(path, dtype, "r", start, shape)

    def _path(self, tensor: "TensorProto", what: str) -> Path:
        location = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}.get("location", "")
        path = (self.folder / location).resolve() if "\0" not in location else self.folder
        if not location or not path.is_relative_to(self.folder):
            raise _FileError(f"tensor {what}: external data must lie in the folder of the model, got {location!r}")
        return path

    def _external(self, tensor: "TensorProto", what: str, dtype: np.dtype, n: int) -> tuple[Path, int]:
        """Return the file of external data, and where in it *n* numbers begin."""
        said = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}
        path = self._path(tensor, what)
        if not path.is_file():
            raise _FileError(f"tensor {what}: external data must be there, got no file {said['location']!r}")
        try:
            start, size = int(said.get("offset", "0")), int(said.get("length", str(n * dtype.itemsize)))
        except ValueError:
            raise _FileError(
                f"tensor {what}: external data must have an offset and a length in bytes, got others"
            ) from None
        if size != n * dtype.itemsize or start < 0 or start + size > path.stat().st_size:
            raise _FileError(
                f"tensor {what}: external data must hold {n * dtype.itemsize} bytes from {start} on, got a length of "
                f"{size} in a file of {path.stat().st_size}"
            )
        return path, start


def _node(node: Any, constants: _Constants) -> Node:
    kind, inputs, outputs = _text(node.op_type), tuple(map(_text, node.input)), tuple(map(_text, node.output))
    name = _text(node.name) or next((output for output in outputs if output), kind)
    attributes = {_text(attribute.name): _attribute(attribute, constants, name) for attribute in node.attribute}
    return Node(kind, _text(node.domain), name, inputs, outputs, attributes)


def _attribute(attribute: "AttributeProto", constants: _Constants, node: str) -> Any:
    match attribute.type:
        case 1:
            return float(attribute.f)
        case 2:
            return int(attribute.i)
        case 3:
            return _text(attribute.s)
        case 4:
            return constants.array(attribute.t, f"{attribute.name!r} of node {node}")
        case 6:
            return tuple(map(float, attribute.floats))
        case 7:
            return tuple(map(int, attribute.ints))
        case 8:
            return tuple(map(_text, attribute.strings))
    return None


def _sorted(nodes: list[Node], known: set[str]) -> tuple[Node, ...]:
    """Return *nodes* in dependency order, as they stand where that is one; *known* needs no node."""
    made = Counter(name for node in nodes for name in node.outputs if name)
    twice = [name for name, n in made.items() if n > 1 or name in known]
    if twice:
        raise _FileError(f"every tensor must be made once, got more for {listed(twice)}")
    missing = {name for node in nodes for name in node.inputs if name and name not in made and name not in known}
    if missing:
        raise _FileError(
            f"every tensor that a node reads must be an input, an initializer or made by a node, got none for "
            f"{listed(sorted(missing))}"
        )
    readers: dict[str, list[int]] = defaultdict(list)
    waits = []
    for number, node in enumerate(nodes):
        wanted = {name for name in node.inputs if name in made}
        waits.append(len(wanted))
        for name in wanted:
            readers[name].append(number)
    ready, order = [number for number, n in enumerate(waits) if n == 0], []  # a heap, since it ascends
    while ready:
        order.append(heappop(ready))
        for output in nodes[order[-1]].outputs:
            for reader in readers[output]:
                waits[reader] -= 1
                if waits[reader] == 0:
                    heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = [node.name for number, node in enumerate(nodes) if waits[number]]
        raise _FileError(f"nodes must have no cycle, got one among {listed(stuck)}")
    return tuple(nodes[number] for number in order)


def _text(value: Any) -> str:
    """Return a name as text: bytes that are none come as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def one_line(message: str) -> str:
    """Return *message* in one line of bearable length, whatever names are in it."""
    line = " ".join(message.splitlines())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]} ..."


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return *names* with commas between them, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
