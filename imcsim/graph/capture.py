"""A PyTorch module to a `Graph`, quantized layers kept whole; torch stops here.

Modules that implement `imcsim.graph.protocol` are taken as they are; of the rest, `MODULES` and `FUNCTIONS` list what
is understood. Everything that is not comes back as one error, all at once, with counts and module paths.
"""

import inspect
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor as TorchTensor
from torch import fx, nn
from torch.nn import functional

from imcsim.errors import GraphError
from imcsim.graph.assumption import Assumption, parse_assumption
from imcsim.graph.attention import Erf, Exp, Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax
from imcsim.graph.epilogue import Abs, ArgMax, Clip, Concat, HardSwish, Mean, Mul, PRelu, Sigmoid, Slice, SpatialAffine
from imcsim.graph.formats import REAL, Format
from imcsim.graph.ir import Graph, Op, Product, Tensor
from imcsim.graph.offsets import take_apart
from imcsim.graph.passes import rename_outputs, simplify
from imcsim.graph.protocol import DigitalLayer, QuantizedActivation, QuantizedProduct, QuantizedRecurrence
from imcsim.graph.recurrent import Cell, Embedding
from imcsim.graph.steps import (
    Add,
    Affine,
    AvgPool,
    Flatten,
    LogSoftmax,
    MaxPool,
    Quantize,
    Relu,
    Shape,
    Step,
    Tanh,
    Threshold,
)

Example = TorchTensor | Sequence[TorchTensor] | Mapping[str, TorchTensor]
"""What forward() is called with: one tensor (b ...), several in its order, or several by the names of its arguments."""


def capture(
    module: nn.Module,
    example_input: Example,
    *,
    name: str | None = None,
    assume: str | Assumption | None = None,
) -> Graph:
    """Return *module* as a graph, for inputs shaped like *example_input* (b ...): one op a layer, batch norms folded.

    Where forward() takes several tensors, *example_input* is a tuple of them, or a dict by the names of its arguments;
    so are the graph's inputs called. What forward() returns is one tensor, or a tuple, list or dict of tensors, one in
    another; those of a dict are called by its keys.

    With *assume*, ``W=ternary,A=2``, the module is one of real numbers, and its layers have the bits that it says, for
    time, energy and area (`imcsim.graph.assumption`).

    The module is read in evaluation mode and left in the mode it was in. Raises GraphError that lists every
    operator that cannot be taken.
    """
    if assume is not None:
        return _with_assumed_bits(module, example_input, parse_assumption(assume), name or type(module).__name__)
    return simplify(as_written(module, example_input, name=name))


def _with_assumed_bits(module: nn.Module, example_input: Example, assumption: Assumption, name: str) -> Graph:
    """Return *module* as torch.export reads it, with assumed bits in the place of real numbers."""
    from imcsim.graph.exported import export, model_of
    from imcsim.graph.qonnx.walk import as_assumed

    _require_module(module, name)
    for path, part in module.named_modules():
        if isinstance(part, QuantizedProduct | QuantizedActivation | QuantizedRecurrence):
            raise GraphError(
                f"{path or name}: assume: must meet layers of torch, got {type(part).__name__}, which says its bits; "
                "leave it out"
            )
    device = "meta" if any(weights.is_meta for weights in module.parameters()) else None
    given = [(argument, tensor[:1].to(device)) for argument, tensor in _tensors(name, example_input)]
    if any(argument is None for argument, _ in given):
        arguments = tuple(tensor for _, tensor in given)
    else:
        arguments = inspect.signature(module.forward).bind(**dict(given)).args  # type: ignore[arg-type]
    program = export(module, arguments, name)
    with torch.device("cpu"):  # whatever device weights without numbers are on
        model = model_of(program, name=name)
    return simplify(as_assumed(model, assumption, name))


def _require_module(module: Any, name: str) -> None:
    if not isinstance(module, nn.Module):
        raise GraphError(f"{name}: must be a torch.nn.Module, got {type(module).__name__}")


def as_written(module: nn.Module, example_input: Example, *, name: str | None = None) -> Graph:
    """Return *module* as a graph of one product or one step an op, before any pass."""
    name = name or type(module).__name__
    _require_module(module, name)
    given = _tensors(name, example_input)
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        traced = _trace(module, name)
        arguments = _arguments(traced, name, given)
        _record_shapes(traced, arguments, name)
        return _Walk(name, module, traced, len(given[0][1])).graph()
    finally:
        for part in was_training:
            part.training = True


def _tensors(name: str, example_input: Any) -> list[tuple[str | None, TorchTensor]]:
    """Return the tensors of an example input, each with the name of its argument where it is told."""
    given: list[tuple[str | None, Any]] = [(None, example_input)]
    if isinstance(example_input, Mapping):
        given = list(example_input.items())
    elif isinstance(example_input, tuple | list):
        given = [(None, each) for each in example_input]
    for _, each in given:
        if not isinstance(each, TorchTensor) or each.ndim not in (2, 4) or len(each) < 1:
            what = tuple(each.shape) if isinstance(each, TorchTensor) else type(each).__name__
            raise GraphError(f"{name}: example input must be a tensor (b c) or (b c h w), got {what}")
    batches = [len(each) for _, each in given]
    if len(set(batches)) != 1:
        got = ", ".join(map(str, batches)) or "no tensor"
        raise GraphError(f"{name}: example input must be tensors of one batch, got {got}")
    return given


def _arguments(traced: fx.GraphModule, name: str, given: list[tuple[str | None, TorchTensor]]) -> list[Any]:
    """Return what forward() gets, argument after argument; one that is not *given* keeps its default."""
    nodes = [node for node in traced.graph.nodes if node.op == "placeholder"]
    known = [str(node.target) for node in nodes]
    if unnamed := [argument for argument in known if argument.startswith("*")]:
        raise GraphError(f"{name}: forward() must name its inputs, got {unnamed[0]}")
    wanted = [str(node.target) for node in nodes if not node.args]  # the others it can do without
    by_name = {argument or known[i]: tensor for i, (argument, tensor) in enumerate(given) if argument or i < len(known)}
    if not set(wanted) <= set(by_name) <= set(known) or len(by_name) < len(given):
        got = ", ".join(by_name) if None not in dict(given) else str(len(given))
        raise GraphError(
            f"{name}: example input must be a tensor for each argument of forward() ({', '.join(wanted)}), got {got}; "
            "give a tuple of tensors, or a dict"
        )
    for node in nodes:
        if str(node.target) in by_name:
            node.meta["is_input"] = True
    return [by_name[str(node.target)] if str(node.target) in by_name else node.args[0] for node in nodes]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_ours = isinstance(m, QuantizedProduct | QuantizedActivation | QuantizedRecurrence | DigitalLayer)
        return is_ours or super().is_leaf_module(m, module_qualified_name)


def _trace(module: nn.Module, name: str) -> fx.GraphModule:
    try:
        return fx.GraphModule(module, _Tracer().trace(module))
    except Exception as error:  # whatever the user's forward() does while it is traced
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GraphError(
            f"{name}: forward() must be free of branches and loops that depend on values, got: {reason}; "
            "rewrite it, or make the part a layer with imc_product() or imc_quantizer()"
        ) from error


class _Shapes(fx.Interpreter):
    """Runs the traced module and notes the shape of every tensor, and the numbers of those that no input reaches."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, TorchTensor):
            n.meta["shape"] = tuple(result.shape)
            inputs = n.all_input_nodes
            is_default = n.op == "placeholder" and not n.meta.get("is_input")
            if (
                is_default
                or n.op == "get_attr"
                or (n.op in ("call_function", "call_method") and inputs and all("constant" in i.meta for i in inputs))
            ):
                n.meta["constant"] = result.detach().double().numpy()
        return result


def _record_shapes(traced: fx.GraphModule, arguments: list[Any], name: str) -> None:
    try:
        with torch.no_grad():
            _Shapes(traced).run(*arguments)
    except Exception as error:  # the user's own shapes do not fit
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        shapes = [str(tuple(each.shape)) for each in arguments if isinstance(each, TorchTensor)]
        raise GraphError(
            f"{name}: forward() must run on the example input {', '.join(shapes)}, got: {reason}"
        ) from error


@dataclass(frozen=True)
class _Call:
    """One node of the traced module: who is called, with what."""

    path: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: list[Shape] = field(default_factory=list)
    """Shapes with the batch of the tensor arguments, then of the result."""

    def get(self, index: int, key: str, default: Any = None) -> Any:
        """Return the argument that is *index*-th or named *key*."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(key, default)


class _UnsupportedError(Exception):
    """The operator at hand is not one that a graph has."""


@dataclass(frozen=True)
class Recurrence:
    """A recurrent layer: its product and its cell."""

    product: Product
    cell: Cell


Piece = Product | Recurrence | Step | tuple[Step, ...] | None
"""What a node becomes; None: nothing, its input passes through."""


class _Walk:
    """From traced nodes to ops, in order."""

    def __init__(self, name: str, module: nn.Module, traced: fx.GraphModule, batch: int) -> None:
        self.name, self.module, self.traced, self.batch = name, module, traced, batch
        self.tensors: dict[str, Tensor] = {}  # by tensor name
        self.tensor_of: dict[fx.Node, str] = {}
        self.ops: list[Op] = []
        self.names: Counter[str] = Counter()
        self.float_layers: list[tuple[str, str]] = []
        self.refused: dict[str, list[str]] = {}

    def graph(self) -> Graph:
        inputs: list[Tensor] = []
        returned: Any = None
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if node.meta.get("is_input"):
                    inputs.append(self._input(node))
            elif node.op == "output":
                returned = node.args[0]
            elif "constant" not in node.meta and "shape" in node.meta:
                self._node(node)
        self._refuse()
        outputs = list(self._outputs(returned))
        tensors = tuple(self.tensor_of[node] for _, node in outputs)
        graph = Graph(name=self.name, inputs=tuple(inputs), ops=tuple(self.ops), outputs=tensors)
        if all(key is None for key, _ in outputs):
            return graph
        return rename_outputs(graph, [key or tensor for (key, _), tensor in zip(outputs, tensors, strict=True)])

    def _outputs(self, returned: Any, key: str | None = None) -> Iterator[tuple[str | None, fx.Node]]:
        """Yield the tensors of what forward() returns, each with its key where a dict has it."""
        match returned:
            case tuple() | list():
                for i, each in enumerate(returned):
                    yield from self._outputs(each, None if key is None else f"{key}.{i}")
            case dict():
                for name, each in returned.items():
                    yield from self._outputs(each, str(name) if key is None else f"{key}.{name}")
            case fx.Node() if "constant" in returned.meta:
                raise GraphError(
                    f"{returned.name}: must read the network's input or what follows from it, got a constant"
                )
            case fx.Node() if "shape" in returned.meta:
                yield key, returned
            case _:
                got = returned.name if isinstance(returned, fx.Node) else returned
                raise GraphError(f"{self.name}: forward() must return tensors, alone or in tuples and dicts, got {got}")

    def _input(self, node: fx.Node) -> Tensor:
        tensor = Tensor(str(node.target), _shape(node)[1:], REAL)
        self.tensors[tensor.name] = tensor
        self.tensor_of[node] = tensor.name
        return tensor

    def _node(self, node: fx.Node) -> None:
        path, kind = self._who(node)
        listed = [part for arg in node.args for part in (arg if isinstance(arg, list | tuple) else [arg])]
        sources = [arg for arg in listed if isinstance(arg, fx.Node) and arg in self.tensor_of]
        call = _Call(path, node.args, node.kwargs, [_shape(node)])
        try:
            piece = self._piece(node, call, sources)
        except _UnsupportedError as reason:
            self.refused.setdefault(f"{kind}{reason}", []).append(path)
            piece = None
        if not sources:
            if not self.refused and not self.float_layers:
                raise GraphError(f"{path}: must read the network's input or what follows from it, got a constant")
            self.tensors[node.name] = Tensor(node.name, _shape(node)[1:], REAL)
            self.tensor_of[node] = node.name
            return
        source = self.tensors[self.tensor_of[sources[0]]]
        if piece is None:
            if self.refused or self.float_layers:  # go on, to list all of them; nothing is built from this
                source = Tensor(node.name, _shape(node)[1:], source.format)
                self.tensors[node.name] = source
            self.tensor_of[node] = source.name
        elif isinstance(piece, Product):
            self._product(node, path, source, piece, [self.tensor_of[gate] for gate in sources[1:]])
        elif piece == ():
            self.tensor_of[node] = source.name
        elif isinstance(piece, Recurrence):
            self._recurrence(node, path, source, piece.product, piece.cell)
        else:
            source = self.tensors[self.tensor_of[sources[0]]]  # a step that joins two may have changed their order
            self._steps(node, path, source, piece if isinstance(piece, tuple) else (piece,))

    def _who(self, node: fx.Node) -> tuple[str, str]:
        if node.op == "call_module":
            return str(node.target), _kind_of(self.module.get_submodule(str(node.target)))
        if node.op == "call_method":
            kind = f"Tensor.{node.target}"
        else:
            home = getattr(node.target, "__module__", "") or ""
            kind = f"{home.removeprefix('_')}.{getattr(node.target, '__name__', node.target)}".lstrip(".")
        stack = node.meta.get("nn_module_stack") or {}
        inside = [where for where, _ in stack.values() if where] if stack else []
        return f"{inside[-1]}.{node.name}" if inside else node.name, kind

    def _piece(self, node: fx.Node, call: _Call, sources: list[fx.Node]) -> Piece:
        if node.op == "call_module":
            module = self.module.get_submodule(str(node.target))
            if isinstance(module, QuantizedProduct):
                return module.imc_product()
            if isinstance(module, QuantizedActivation):
                return module.imc_quantizer()
            if isinstance(module, QuantizedRecurrence):
                return Recurrence(*module.imc_recurrence())
            if isinstance(module, DigitalLayer):
                return module.imc_steps()
            if isinstance(module, nn.Conv2d | nn.Linear | nn.Conv1d | nn.Conv3d):
                self.float_layers.append((call.path, str(module.weight.dtype).removeprefix("torch.")))
                return None
            for kind, take_module in MODULES.items():
                if type(module) is kind:
                    return take_module(module, call)
            raise _UnsupportedError
        take = FUNCTIONS.get(node.target)
        if take is None:
            raise _UnsupportedError
        if take is _cat:
            return self._cat(node, call, sources)
        if take is _matmul:
            return self._matmul(node, call, sources)
        if take in _ARITHMETIC:
            if len(sources) == 1:
                return _with_constant(take, call)
            if len(sources) != 2 or call.kwargs.get("alpha", 1) != 1:
                raise _UnsupportedError(" of anything but two tensors, or one and a constant")
            return self._two(take, call, sources)
        return take(call)

    def _two(self, take: Any, call: _Call, sources: list[fx.Node]) -> Piece:
        if take is _div:
            raise _UnsupportedError(" by a tensor")
        # The op that makes the later tensor takes the step, so that the earlier one is there to read.
        is_first = {node: i for i, node in reversed(list(enumerate(sources)))}
        sources.sort(key=lambda node: self._made_at(self.tensor_of[node]), reverse=True)
        shapes = [_shape(node) for node in sources]
        if take is _mul and shapes[0] != shapes[1]:
            sources.sort(key=lambda node: prod(_shape(node)), reverse=True)  # the smaller one is spread over the larger
            if len(shapes[0]) != len(shapes[1]) or shapes[0][0] != shapes[1][0]:
                raise _UnsupportedError(" of tensors of which neither is spread over the other")
        elif shapes[0] != shapes[1]:
            raise _UnsupportedError(" of anything but two tensors of one shape")
        other = self.tensors[self.tensor_of[sources[1]]]
        form = other.format
        if take is _mul:
            if form.zero:
                raise _UnsupportedError(" by codes whose zero is not code 0")
            scaled = Affine(np.array(form.scale), np.array(0.0))
            return Mul(other.name) if form.scale == 1 else (Mul(other.name), scaled)
        turns = take is _sub and is_first[sources[0]] == 1 and sources[0] is not sources[1]  # earlier less later
        sign = -1.0 if take is _sub and not turns else 1.0
        steps: tuple[Step, ...] = (Add(other.name, sign * form.scale),)
        if turns:
            steps = (Affine(np.array(-1.0), np.array(0.0)), *steps)
        if form.zero:
            steps = (*steps, Affine(np.array(1.0), np.array(sign * form.offset)))
        return steps if len(steps) > 1 else steps[0]

    def _matmul(self, node: fx.Node, call: _Call, sources: list[fx.Node]) -> Piece:
        shapes = [_shape(source)[1:] for source in sources]
        if len(sources) != 2 or len(shapes[0]) != len(shapes[1]) or len(shapes[0]) < 2:
            raise _UnsupportedError(" of anything but matrices of two tensors with as many axes")
        left, right = (self.tensors[self.tensor_of[source]] for source in sources)
        if right.format.zero:
            right = self._as_numbers(right, f"{node.name}.other")
        scale = right.format.scale * (1.0 if left.format.zero else left.format.scale)
        step = MatMul(right.name, right.shape[-1])
        return step if scale == 1 else (step, Affine(np.array(scale), np.array(0.0)))

    def _cat(self, node: fx.Node, call: _Call, sources: list[fx.Node]) -> Piece:
        ndim = len(call.shapes[-1])
        if call.get(1, "dim", 0) not in (1, 1 - ndim) or len(sources) != len(call.get(0, "tensors")):
            raise _UnsupportedError(" of anything but channels that follow from the network's input")
        tensors = [self.tensors[self.tensor_of[source]] for source in sources]
        if any(tensor.format != tensors[0].format for tensor in tensors):
            tensors = [self._as_numbers(tensor, f"{node.name}.{i}") for i, tensor in enumerate(tensors)]
            self.tensor_of[node] = tensors[0].name  # so that the step reads the numbers, not the codes
            sources[0] = node
        return tuple(Concat(tensor.name, tensor.shape[0]) for tensor in tensors[1:]) or None

    def _as_numbers(self, tensor: Tensor, name: str) -> Tensor:
        if tensor.format.is_real:
            return tensor
        numbers = Tensor(name, tensor.shape, REAL)
        step = Affine(np.array(tensor.format.scale), np.array(tensor.format.offset))
        self._emit(Op(name=self._op_name(name), input=tensor.name, output=numbers, steps=(step,)))
        return numbers

    def _made_at(self, tensor: str) -> int:
        return next((i for i, op in enumerate(self.ops) if op.output.name == tensor), -1)

    def _recurrence(self, node: fx.Node, path: str, source: Tensor, product: Product, cell: Cell) -> None:
        _require_codes(path, source)
        try:
            shape = cell.shape(product.shape(source.shape))
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from None
        output = Tensor(node.name, shape, cell.format)
        self._emit(Op(name=self._op_name(path), input=source.name, output=output, product=product, steps=(cell,)))
        self.tensor_of[node] = node.name

    def _product(self, node: fx.Node, path: str, source: Tensor, product: Product, gates: list[str]) -> None:
        _require_codes(path, source)
        if len(gates) != (product.n_experts > 1):
            raise GraphError(
                f"{path}: must read its input, and the choice of a kernel where there are several, got {len(gates)} "
                f"tensors beside the input for {product.n_experts} kernels"
            )
        bias = getattr(self.module.get_submodule(path), "bias", None)
        try:
            product, steps = take_apart(product, source, 0.0 if bias is None else bias.detach().double().numpy())
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from None
        shape = product.shape(source.shape)
        name = self._op_name(path)
        total = Tensor(f"{name}.sum", shape, REAL)
        self._emit(Op(name=name, input=source.name, output=total, product=product, gate=gates[0] if gates else None))
        for what, step in zip(("scale", "border"), steps, strict=False):
            is_last = step is steps[-1]
            shape = step.shape(shape)
            made = Tensor(node.name if is_last else f"{name}.{what}", shape, REAL)
            self._emit(Op(name=f"{name}.{what}", input=total.name, output=made, steps=(step,)))
            total = made
        self.tensor_of[node] = node.name

    def _steps(self, node: fx.Node, path: str, source: Tensor, steps: tuple[Step, ...]) -> None:
        form = source.format
        if isinstance(steps[0], MaxPool) and not form.ascends:
            raise GraphError(
                f"{path}: a max pool must read numbers that ascend with their codes, got {form}; pool before"
            )
        takes_codes = isinstance(steps[0], MatMul) and not form.zero  # and has their scale behind it
        if not all(step.keeps_codes for step in steps) and (form.scale != 1 or form.zero) and not takes_codes:
            steps = (Affine(np.array(form.scale), np.array(form.offset)), *steps)
        shape: Shape = source.shape
        fmt: Format = form
        for step in steps:
            shape = step.shape(shape)
            if isinstance(step, Threshold | Quantize | Embedding | ArgMax):
                fmt = step.format
            elif not step.keeps_codes:
                fmt = REAL
        name = self._op_name(path)
        self._emit(Op(name=name, input=source.name, output=Tensor(node.name, shape, fmt), steps=steps))
        self.tensor_of[node] = node.name

    def _emit(self, op: Op) -> None:
        self.ops.append(op)
        self.tensors[op.output.name] = op.output

    def _op_name(self, path: str) -> str:
        self.names[path] += 1
        return path if self.names[path] == 1 else f"{path}#{self.names[path]}"

    def _refuse(self) -> None:
        problems = []
        if self.float_layers:
            paths = ", ".join(path for path, _ in self.float_layers)
            dtype = self.float_layers[0][1]
            problems.append(
                f"{paths}: weights must be ternary or binary planes, got {dtype} values; quantize the model first "
                "(imcsim.quant), or assume bits, for time and energy alone (assume W=ternary,A=2)"
            )
        if self.refused:
            n = sum(len(paths) for paths in self.refused.values())
            listed = "; ".join(f"{kind} x{len(paths)} ({', '.join(paths)})" for kind, paths in self.refused.items())
            problems.append(f"{self.name}: every operator must be one that a graph has, got {n} that are not: {listed}")
        if problems:
            raise GraphError(" | ".join(problems))


def _require_codes(path: str, source: Tensor) -> None:
    if source.format.is_real:
        raise GraphError(
            f"{path}: its input must be quantized, got real numbers; put a quantized activation before it "
            "(imcsim.quant)"
        )


def _kind_of(module: nn.Module) -> str:
    kind = type(module)
    home = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__
    return f"{home}.{kind.__qualname__}"


def _shape(node: fx.Node) -> Shape:
    return node.meta["shape"]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, call: _Call) -> Affine:
    if module.running_mean is None or module.running_var is None:
        raise _UnsupportedError(" without running statistics")
    scale = 1 / np.sqrt(module.running_var.detach().double().numpy() + module.eps)
    offset = -module.running_mean.detach().double().numpy() * scale
    if module.affine:
        gamma, beta = module.weight.detach().double().numpy(), module.bias.detach().double().numpy()
        scale, offset = gamma * scale, gamma * offset + beta
    return Affine(scale, offset)


def _max_pool(module: nn.MaxPool2d, call: _Call) -> MaxPool:
    if module.ceil_mode or module.return_indices or _pair(module.dilation) != (1, 1):
        raise _UnsupportedError(" with ceil_mode, dilation or indices")
    return MaxPool(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding))


def _avg_pool(module: nn.AvgPool2d, call: _Call) -> AvgPool:
    if module.ceil_mode or module.divisor_override or (not module.count_include_pad and module.padding != 0):
        raise _UnsupportedError(" with ceil_mode, divisor_override or count_include_pad=False")
    return AvgPool(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding))


def _adaptive_avg_pool(module: nn.AdaptiveAvgPool2d, call: _Call) -> AvgPool:
    return _global_pool(call, module.output_size)


def _global_pool(call: _Call, size: Any) -> AvgPool:
    source = _shape(call.args[0])
    if size not in (1, (1, 1), [1, 1]):
        raise _UnsupportedError(" to anything but one value a channel")
    return AvgPool((source[2], source[3]), (source[2], source[3]))


def _flatten(module: nn.Flatten, call: _Call) -> Piece:
    return _flat(call, module.start_dim, module.end_dim)


def _flat(call: _Call, start: int, end: int) -> Piece:
    ndim = len(_shape(call.args[0]))
    if start != 1 or end % ndim != ndim - 1:
        raise _UnsupportedError(" of anything but all axes behind the batch")
    return Flatten() if ndim > 2 else None


def _log_softmax(module: nn.LogSoftmax, call: _Call) -> LogSoftmax:
    return _softmax_over(call, module.dim)


def _chances(call: _Call, dim: int | None) -> Softmax:
    n_axes = len(call.shapes[-1])
    if dim is None or dim % n_axes == 0:
        raise _UnsupportedError(" over the batch, or over an axis that is not told")
    return Softmax(dim % n_axes - 1)


def _layer_norm(module: nn.LayerNorm, call: _Call) -> LayerNorm:
    n_axes, n = len(call.shapes[-1]) - 1, len(module.normalized_shape)
    if n > n_axes:
        raise _UnsupportedError(" over the batch")
    scale, offset = (
        missing if values is None else values.detach().double().numpy().reshape((1,) * (n_axes - n) + values.shape)
        for values, missing in ((module.weight, np.array(1.0)), (module.bias, np.array(0.0)))
    )
    return LayerNorm(tuple(range(n_axes - n, n_axes)), module.eps, scale, offset)


def _gelu(approximate: str) -> Gelu:
    return Gelu("tanh" if approximate == "tanh" else "erf")


def _permute(call: _Call) -> Permute:
    n_axes, dims = len(_shape(call.args[0])), call.args[1:] or (call.kwargs["dims"],)
    dims = tuple(dims[0]) if isinstance(dims[0], list | tuple) else tuple(dims)
    order = [dim % n_axes for dim in dims]
    if order[0] != 0:
        raise _UnsupportedError(" that moves the batch")
    return Permute(tuple(axis - 1 for axis in order[1:]))


def _transpose(call: _Call) -> Permute:
    n_axes = len(_shape(call.args[0]))
    a, b = (call.get(index, key) % n_axes for index, key in ((1, "dim0"), (2, "dim1")))
    if 0 in (a, b):
        raise _UnsupportedError(" that moves the batch")
    order = list(range(n_axes - 1))
    order[a - 1], order[b - 1] = b - 1, a - 1
    return Permute(tuple(order))


def _softmax_over(call: _Call, dim: int | None) -> LogSoftmax:
    n_axes = len(call.shapes[-1])
    if dim is None or n_axes not in (2, 4) or dim % n_axes != 1:
        raise _UnsupportedError(" over anything but the channels of (b c) or (b c h w)")
    return LogSoftmax()


def _nothing(module: nn.Module, call: _Call) -> None:
    return None


HARD_SIGMOID = (Affine(np.array(1 / 6), np.array(0.5)), Clip(0.0, 1.0))


def _slopes(slope: np.ndarray) -> np.ndarray:
    return slope.reshape(()) if slope.size == 1 else slope


MODULES: dict[type[nn.Module], Callable[[Any, _Call], Piece]] = {
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda module, call: Relu(),
    nn.ReLU6: lambda module, call: Clip(0.0, 6.0),
    nn.PReLU: lambda module, call: PRelu(_slopes(module.weight.detach().double().numpy())),
    nn.LeakyReLU: lambda module, call: PRelu(np.array(module.negative_slope)),
    nn.Hardtanh: lambda module, call: Clip(float(module.min_val), float(module.max_val)),
    nn.Hardsigmoid: lambda module, call: HARD_SIGMOID,
    nn.Hardswish: lambda module, call: HardSwish(),
    nn.GELU: lambda module, call: _gelu(module.approximate),
    nn.SiLU: lambda module, call: Silu(),
    nn.LayerNorm: _layer_norm,
    nn.Softmax: lambda module, call: _chances(call, module.dim),
    nn.Sigmoid: lambda module, call: Sigmoid(),
    nn.Tanh: lambda module, call: Tanh(),
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.Flatten: _flatten,
    nn.LogSoftmax: _log_softmax,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    nn.Identity: _nothing,
}
"""Modules of torch that a graph has, other than quantized layers."""


def _add(call: _Call) -> Piece:
    raise AssertionError("handled where both tensors are known")


def _sub(call: _Call) -> Piece:
    raise AssertionError("handled where both tensors are known")


def _mul(call: _Call) -> Piece:
    raise AssertionError("handled where both tensors are known")


def _div(call: _Call) -> Piece:
    raise AssertionError("handled where both tensors are known")


def _cat(call: _Call) -> Piece:
    raise AssertionError("handled where all tensors are known")


def _matmul(call: _Call) -> Piece:
    raise AssertionError("handled where both tensors are known")


_ARITHMETIC = (_add, _sub, _mul, _div)


def _with_constant(take: Any, call: _Call) -> Step:
    """Return a tensor plus, less, times or over a constant as an affine step."""
    left, right = call.get(0, "input"), call.get(1, "other")
    is_right = _constant(right) is not None
    value = _constant(right if is_right else left)
    if value is None or call.kwargs.get("alpha", 1) != 1 or (take is _div and not is_right):
        raise _UnsupportedError(" of anything but two tensors, or one and a constant")
    shape = _shape(left if is_right else right)
    value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape) if value.ndim <= len(shape) else value
    if len(value.shape) != len(shape) or value.shape[0] != 1 or call.shapes[-1] != shape:
        raise _UnsupportedError(" with a constant that differs from sample to sample, or is larger than the tensor")
    one, zero = np.array(1.0), np.array(0.0)
    if value.size == 1:
        value = value.reshape(())
    elif prod(value.shape[2:]) == 1:
        value = value.reshape(-1)
    else:
        value = value[0]
    if take is _add:
        scale, offset = one, value
    elif take is _sub:
        scale, offset = (one, -value) if is_right else (-one, value)
    else:
        scale, offset = (value if take is _mul else one / value), zero
    return SpatialAffine(scale, offset) if value.ndim > 1 else Affine(scale, offset)


def _constant(value: Any) -> np.ndarray | None:
    if isinstance(value, fx.Node):
        return value.meta.get("constant")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return np.array(float(value)) if is_number else None


def _negate(call: _Call) -> Affine:
    return Affine(np.array(-1.0), np.array(0.0))


def _prelu(call: _Call) -> PRelu:
    slope = _constant(call.get(1, "weight"))
    if slope is None:
        raise _UnsupportedError(" with slopes that are computed")
    return PRelu(_slopes(slope))


def _clamp(call: _Call) -> Clip:
    low, high = call.get(1, "min"), call.get(2, "max")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise _UnsupportedError(" without a number as its least and greatest")
    return Clip(float(low), float(high))


def _hardtanh(call: _Call) -> Clip:
    return Clip(float(call.get(1, "min_val", -1.0)), float(call.get(2, "max_val", 1.0)))


def _mean(call: _Call) -> Piece:
    shape = _shape(call.args[0])
    dims, keeps = call.get(1, "dim"), call.get(2, "keepdim", False)
    axes = tuple(sorted(d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims or range(len(shape)))))
    everything = tuple(range(1, len(shape)))
    if axes == (2, 3):
        pool = AvgPool(shape[2:], shape[2:])  # type: ignore[arg-type]
        return pool if keeps else (pool, Flatten())
    if not keeps or axes not in ((1,), everything):
        raise _UnsupportedError(" over anything but channels or whole samples with keepdim, or the image")
    return Mean("sample") if axes == everything else Mean("channels")


def _get_item(call: _Call) -> Slice:
    shape, index = _shape(call.args[0]), call.args[1]
    index = index if isinstance(index, tuple) else (index,)
    whole = [i for i, part in enumerate(index) if part == slice(None)]
    if len(index) < 2 or not isinstance(index[1], slice) or set(range(len(index))) - set(whole) - {1}:
        raise _UnsupportedError(" of anything but a range of channels")
    first, last, stride = index[1].indices(shape[1])
    if stride != 1 or last <= first:
        raise _UnsupportedError(" of anything but a range of channels")
    return Slice(first, last)


def _function_max_pool(call: _Call) -> MaxPool:
    kernel = _pair(call.get(1, "kernel_size"))
    stride = call.get(2, "stride")
    if call.get(4, "dilation", 1) not in (1, (1, 1), [1, 1]) or call.get(5, "ceil_mode", False):
        raise _UnsupportedError(" with ceil_mode or dilation")
    return MaxPool(kernel, _pair(stride) if stride else kernel, _pair(call.get(3, "padding", 0)))


def _function_avg_pool(call: _Call) -> AvgPool:
    kernel = _pair(call.get(1, "kernel_size"))
    stride = call.get(2, "stride")
    padding = _pair(call.get(3, "padding", 0))
    if call.get(4, "ceil_mode", False) or call.get(6, "divisor_override") or (
        padding != (0, 0) and not call.get(5, "count_include_pad", True)
    ):  # fmt: skip
        raise _UnsupportedError(" with ceil_mode, divisor_override or count_include_pad=False")
    return AvgPool(kernel, _pair(stride) if stride else kernel, padding)


def _function_flatten(call: _Call) -> Piece:
    return _flat(call, call.get(1, "start_dim", 0), call.get(2, "end_dim", -1))


def _reshape(call: _Call) -> Piece:
    before, after = _shape(call.args[0]), call.shapes[-1]
    if after == before:
        return None
    if after == (before[0], prod(before[1:])):
        return Flatten()
    if after[0] == before[0] and len(after) > 1:
        return Reshape(after[1:])
    raise _UnsupportedError(f" from {before} to {after}")


def _function_dropout(call: _Call) -> None:
    if call.get(2, "training", True):
        raise _UnsupportedError(" that is on in evaluation mode; pass training=self.training")


FUNCTIONS: dict[Any, Callable[[_Call], Piece]] = {
    operator.add: _add,
    operator.iadd: _add,
    torch.add: _add,
    "add": _add,
    "add_": _add,
    operator.sub: _sub,
    operator.isub: _sub,
    torch.sub: _sub,
    "sub": _sub,
    operator.mul: _mul,
    operator.imul: _mul,
    torch.mul: _mul,
    "mul": _mul,
    operator.truediv: _div,
    torch.div: _div,
    "div": _div,
    operator.neg: _negate,
    torch.neg: _negate,
    "neg": _negate,
    torch.cat: _cat,
    torch.concat: _cat,
    operator.getitem: _get_item,
    torch.abs: lambda call: Abs(),
    "abs": lambda call: Abs(),
    torch.mean: _mean,
    "mean": _mean,
    torch.clamp: _clamp,
    "clamp": _clamp,
    functional.hardtanh: _hardtanh,
    functional.relu6: lambda call: Clip(0.0, 6.0),
    functional.prelu: _prelu,
    functional.leaky_relu: lambda call: PRelu(np.array(float(call.get(1, "negative_slope", 0.01)))),
    functional.hardsigmoid: lambda call: HARD_SIGMOID,
    functional.hardswish: lambda call: HardSwish(),
    functional.sigmoid: lambda call: Sigmoid(),
    torch.sigmoid: lambda call: Sigmoid(),
    "sigmoid": lambda call: Sigmoid(),
    functional.tanh: lambda call: Tanh(),
    torch.tanh: lambda call: Tanh(),
    "tanh": lambda call: Tanh(),
    functional.relu: lambda call: Relu(),
    torch.relu: lambda call: Relu(),
    "relu": lambda call: Relu(),
    functional.max_pool2d: _function_max_pool,
    functional.avg_pool2d: _function_avg_pool,
    functional.adaptive_avg_pool2d: lambda call: _global_pool(call, call.get(1, "output_size")),
    torch.flatten: _function_flatten,
    "flatten": _function_flatten,
    "view": _reshape,
    "reshape": _reshape,
    torch.reshape: _reshape,
    "permute": _permute,
    torch.permute: _permute,
    "transpose": _transpose,
    torch.transpose: _transpose,
    operator.matmul: _matmul,
    torch.matmul: _matmul,
    "matmul": _matmul,
    functional.softmax: lambda call: _chances(call, call.get(1, "dim")),
    torch.softmax: lambda call: _chances(call, call.get(1, "dim")),
    "softmax": lambda call: _chances(call, call.get(1, "dim")),
    functional.gelu: lambda call: _gelu(call.kwargs.get("approximate", "none")),
    functional.silu: lambda call: Silu(),
    torch.exp: lambda call: Exp(),
    "exp": lambda call: Exp(),
    torch.erf: lambda call: Erf(),
    "erf": lambda call: Erf(),
    "contiguous": lambda call: None,
    functional.log_softmax: lambda call: _softmax_over(call, call.get(1, "dim")),
    torch.log_softmax: lambda call: _softmax_over(call, call.get(1, "dim")),
    "log_softmax": lambda call: _softmax_over(call, call.get(1, "dim")),
    functional.dropout: _function_dropout,
}
"""Functions and tensor methods that a graph has."""


def supported() -> Iterator[str]:
    """Name every module of torch that `capture` takes."""
    yield from (f"torch.nn.{kind.__name__}" for kind in MODULES)
