"""A PyTorch module to a `Graph`, quantized layers kept whole; torch stops here.

Modules that implement `imcsim.graph.protocol` are taken as they are; of the rest, `MODULES` and `FUNCTIONS` list what
is understood. Everything that is not comes back as one error, all at once: operator, how many, module paths, why, and
the nearest thing that is. Sequences (b c t) are images (b c 1 t). What no output follows from is left out.
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
from torch.export import ExportedProgram
from torch.nn import functional

from imcsim.errors import GraphError, ImcsimError
from imcsim.graph import brevitas
from imcsim.graph.assumption import Assumption, parse_assumption
from imcsim.graph.attention import Erf, Exp, Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax
from imcsim.graph.epilogue import Abs, ArgMax, Clip, Concat, HardSwish, Mean, Mul, PRelu, Sigmoid, Slice, SpatialAffine
from imcsim.graph.exported import export, is_program, model_of, program_of
from imcsim.graph.formats import REAL, Format
from imcsim.graph.ir import Graph, Op, Product, Tensor
from imcsim.graph.offsets import take_apart
from imcsim.graph.passes import rename_outputs, simplify
from imcsim.graph.protocol import DigitalLayer, QuantizedActivation, QuantizedProduct, QuantizedRecurrence
from imcsim.graph.qonnx.values import placed
from imcsim.graph.qonnx.walk import as_assumed, as_stored
from imcsim.graph.recurrent import Cell, Embedding
from imcsim.graph.refusal import Refusals, UnfitError
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
    module: nn.Module | ExportedProgram,
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

    A module that torch quantized (torchao's PT2E), and a program of torch.export, which has its shapes already, come in
    by their QuantizeLinear and DequantizeLinear (`imcsim.graph.exported`).

    The module is read in evaluation mode and left in the mode it was in. Raises GraphError that lists every
    operator that cannot be taken.
    """
    if assume is not None:
        return _with_assumed_bits(module, example_input, parse_assumption(assume), name or type(module).__name__)
    return simplify(as_written(module, example_input, name=name))


def _with_assumed_bits(
    module: nn.Module | ExportedProgram, example_input: Example, assumption: Assumption, name: str
) -> Graph:
    """Return *module* as torch.export reads it, with assumed bits in the place of real numbers."""
    if is_program(module):
        return simplify(as_assumed(model_of(program_of(module, example_input, name), name=name), assumption, name))
    module = _required(module, name)
    for path, part in module.named_modules():
        if isinstance(part, QuantizedProduct | QuantizedActivation | QuantizedRecurrence):
            raise GraphError(
                f"{path or name}: assume: must meet layers of torch, got {type(part).__name__}, which says its bits; "
                "leave it out"
            )
    device = "meta" if any(weights.is_meta for weights in module.parameters()) else None
    given = [(argument, tensor[:1].to(device)) for argument, tensor in _tensors(name, example_input)]
    in_order = [tensor for argument, tensor in given if argument is None]
    by_name = {argument: tensor for argument, tensor in given if argument is not None}
    try:
        arguments = inspect.signature(module.forward).bind(*in_order, **by_name).args
    except TypeError as error:
        raise GraphError(
            f"{name}: example input must be a tensor for each argument of forward(), got: {error}; give a tuple of "
            "tensors, or a dict"
        ) from None
    program = export(module, arguments, name)
    with torch.device("cpu"):  # whatever device weights without numbers are on
        model = model_of(program, name=name)
    graph = simplify(as_assumed(model, assumption, name))
    spec = program.call_spec.out_spec
    keys = [] if spec is None else [key for key, _ in _leaves(spec.unflatten(range(spec.num_leaves)))]
    if len(keys) != len(graph.outputs) or all(key is None for key in keys):
        return graph
    return rename_outputs(graph, [key or output for key, output in zip(keys, graph.outputs, strict=True)])


def _leaves(returned: Any, key: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Yield what stands in tuples, lists and dicts that forward() returns, each with its key where a dict has it."""
    match returned:
        case tuple() | list():
            for i, each in enumerate(returned):
                yield from _leaves(each, None if key is None else f"{key}.{i}")
        case dict():
            for name, each in returned.items():
                yield from _leaves(each, str(name) if key is None else f"{key}.{name}")
        case _:
            yield key, returned


def _required(module: Any, name: str) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise GraphError(f"{name}: must be a torch.nn.Module, got {type(module).__name__}")
    return module


def as_written(module: nn.Module | ExportedProgram, example_input: Example, *, name: str | None = None) -> Graph:
    """Return *module* as a graph of one product or one step an op, before any pass."""
    name = name or type(module).__name__
    if is_program(module):
        return as_stored(model_of(program_of(module, example_input, name), name=name), name)
    module = _required(module, name)
    given = _tensors(name, example_input)
    if brevitas.is_brevitas(module):
        return as_stored(brevitas.model_of(module, given, name=name), name)
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        traced = _trace(module, name)
        arguments = _arguments(traced, name, given)
        _record_shapes(traced, arguments, name)
        traced.graph.eliminate_dead_code(lambda node: node.is_impure() or "in_place" in node.meta)
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
        if not isinstance(each, TorchTensor) or each.ndim not in (2, 3, 4) or len(each) < 1:
            what = tuple(each.shape) if isinstance(each, TorchTensor) else type(each).__name__
            raise GraphError(f"{name}: example input must be a tensor (b c), (b c t) or (b c h w), got {what}")
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
    """Runs the traced module and notes the shape of every tensor, and the numbers of those that no input reaches.

    It notes as well who changes, in place, numbers that others read afterwards: nothing of that is seen in the nodes.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.place_of = {node: place for place, node in enumerate(traced.graph.nodes)}

    def run_node(self, n: fx.Node) -> Any:
        before = {node: made._version for node, made in self.env.items() if isinstance(made, TorchTensor)}
        result = super().run_node(n)
        changed = {node for node, version in before.items() if self.env[node]._version != version}
        if any(self.place_of[reader] > self.place_of[n] for node in changed for reader in node.users):
            n.meta["in_place"] = True
        if isinstance(result, tuple | list) and n.op != "output":
            n.meta["gives_several"] = any(isinstance(each, TorchTensor) for each in result)
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

    is_sequence: bool = False
    """Whether what it reads is a sequence (b c t) that lies as an image (c 1 t)."""

    def axis(self, index: int) -> int:
        """Return where the *index*-th axis behind the batch lies in the graph."""
        return 2 if self.is_sequence and index == 1 else index

    def get(self, index: int, key: str, default: Any = None) -> Any:
        """Return the argument that is *index*-th or named *key*."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(key, default)


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
        self.refused = Refusals()
        self.unknown: set[fx.Node] = set()
        """Those that do not fit, and what follows from them."""

    def graph(self) -> Graph:
        inputs: list[Tensor] = []
        returned: Any = None
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if node.meta.get("is_input"):
                    inputs.append(self._input(node))
            elif node.op == "output":
                returned = node.args[0]
            elif node.meta.get("gives_several"):
                path, kind = self._who(node)
                self.refused.add(kind, " that gives several tensors", _instead_of(kind), path)
                self.unknown.add(node)
            elif "constant" not in node.meta and "shape" in node.meta:
                self._node(node)
        self._refuse()
        outputs = list(self._outputs(returned))
        tensors = tuple(self.tensor_of[node] for _, node in outputs)
        graph = Graph(name=self.name, inputs=tuple(inputs), ops=tuple(self.ops), outputs=tensors)
        if all(key is None for key, _ in outputs):
            return graph
        return rename_outputs(graph, [key or tensor for (key, _), tensor in zip(outputs, tensors, strict=True)])

    def _outputs(self, returned: Any) -> Iterator[tuple[str | None, fx.Node]]:
        """Yield the tensors of what forward() returns, each with its key where a dict has it."""
        for key, leaf in _leaves(returned):
            if not isinstance(leaf, fx.Node) or not {"constant", "shape"} & set(leaf.meta):
                got = leaf.name if isinstance(leaf, fx.Node) else leaf
                raise GraphError(f"{self.name}: forward() must return tensors, alone or in tuples and dicts, got {got}")
            if "constant" in leaf.meta:
                raise GraphError(f"{leaf.name}: must read the network's input or what follows from it, got a constant")
            yield key, leaf

    def _input(self, node: fx.Node) -> Tensor:
        tensor = Tensor(str(node.target), _placed(node), REAL)
        self.tensors[tensor.name] = tensor
        self.tensor_of[node] = tensor.name
        return tensor

    def _node(self, node: fx.Node) -> None:
        if any("shape" not in source.meta for source in self.unknown.intersection(node.all_input_nodes)):
            self.unknown.add(node)
            self._note(node, REAL)
            return
        path, kind = self._who(node)
        listed = [part for arg in node.args for part in (arg if isinstance(arg, list | tuple) else [arg])]
        sources = [arg for arg in listed if isinstance(arg, fx.Node) and arg in self.tensor_of]
        is_sequence = (
            bool(sources) and len(_shape(sources[0])) == 3 and len(self.tensors[self.tensor_of[sources[0]]].shape) == 3
        )
        call = _Call(path, node.args, node.kwargs, [_shape(node)], is_sequence)
        try:
            piece = self._piece(node, call, sources)
            if self.unknown.isdisjoint((node, *node.all_input_nodes)):
                self._place(node, path, sources, piece)
                return
            if isinstance(piece, Product | Threshold | Quantize):  # whatever goes in, it is known what comes out
                self._note(node, REAL if isinstance(piece, Product) else piece.format)
                return
        except UnfitError as problem:
            self.refused.add(kind, f" {problem}", problem.help or _instead_of(kind), path)
        except ImcsimError as error:
            self.refused.add(kind, f": {error}", "", path)
        self.unknown.add(node)
        self._note(node, REAL)

    def _note(self, node: fx.Node, form: Format) -> None:
        """Go on without an op that makes the tensor of *node*, to list all that does not fit; no graph comes of it."""
        self.tensors[node.name] = Tensor(node.name, _placed(node), form)
        self.tensor_of[node] = node.name

    def _place(self, node: fx.Node, path: str, sources: list[fx.Node], piece: Piece) -> None:
        """Put *piece* behind the ops that there are."""
        if not sources:
            raise UnfitError("of a constant alone", "numbers that follow from the network's input")
        source = self.tensors[self.tensor_of[sources[0]]]
        if piece is None or piece == ():
            self.tensor_of[node] = source.name
        elif isinstance(piece, Product):
            self._product(node, path, source, piece, [self.tensor_of[gate] for gate in sources[1:]])
        elif isinstance(piece, Recurrence):
            self._recurrence(node, path, source, piece.product, piece.cell)
        else:
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
        if "in_place" in node.meta:
            raise UnfitError("in place, whose input is read again", "inplace=False, or the result")
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
                self.unknown.add(node)
                return None
            for kind, take_module in MODULES.items():
                if type(module) is kind:
                    return take_module(module, call)
            raise UnfitError
        take = FUNCTIONS.get(node.target)
        if take is None:
            raise UnfitError
        if take is _cat:
            return self._cat(node, call, sources)
        if take is _matmul:
            return self._matmul(node, call, sources)
        if take in _ARITHMETIC:
            if len(sources) == 1:
                return _with_constant(take, call)
            if len(sources) != 2 or call.kwargs.get("alpha", 1) != 1:
                raise UnfitError("of anything but two tensors, or one and a constant")
            return self._two(take, call, sources)
        return take(call)

    def _two(self, take: Any, call: _Call, sources: list[fx.Node]) -> Piece:
        if take is _div:
            raise UnfitError("by a tensor")
        # The op that makes the later tensor takes the step, so that the earlier one is there to read.
        is_first = {node: i for i, node in reversed(list(enumerate(sources)))}
        sources.sort(key=lambda node: self._made_at(self.tensor_of[node]), reverse=True)
        shapes = [_shape(node) for node in sources]
        if take is _mul and shapes[0] != shapes[1]:
            sources.sort(key=lambda node: prod(_shape(node)), reverse=True)  # the smaller one is spread over the larger
            if len(shapes[0]) != len(shapes[1]) or shapes[0][0] != shapes[1][0]:
                raise UnfitError("of tensors of which neither is spread over the other")
        elif shapes[0] != shapes[1]:
            raise UnfitError("of anything but two tensors of one shape")
        other = self.tensors[self.tensor_of[sources[1]]]
        form = other.format
        if take is _mul:
            if form.zero:
                raise UnfitError("by codes whose zero is not code 0")
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
            raise UnfitError("of anything but matrices of two tensors with as many axes", "two tensors of as many axes")
        left, right = (self.tensors[self.tensor_of[source]] for source in sources)
        if right.format.zero:
            right = self._as_numbers(right, f"{node.name}.other")
        scale = right.format.scale * (1.0 if left.format.zero else left.format.scale)
        step = MatMul(right.name, right.shape[-1])
        return step if scale == 1 else (step, Affine(np.array(scale), np.array(0.0)))

    def _cat(self, node: fx.Node, call: _Call, sources: list[fx.Node]) -> Piece:
        ndim = len(call.shapes[-1])
        if call.get(1, "dim", 0) not in (1, 1 - ndim) or len(sources) != len(call.get(0, "tensors")):
            raise UnfitError("of anything but channels that follow from the network's input")
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
        _require_codes(source)
        shape = cell.shape(product.shape(source.shape))
        if cell.format != source.format:
            raise UnfitError(
                f"whose codes are {cell.format} of scale {cell.format.scale:g}, and those of its input {source.format} "
                f"of scale {source.format.scale:g}",
                "one quantizer for both",
            )
        output = Tensor(node.name, shape, cell.format)
        self._emit(Op(name=self._op_name(path), input=source.name, output=output, product=product, steps=(cell,)))
        self.tensor_of[node] = node.name

    def _product(self, node: fx.Node, path: str, source: Tensor, product: Product, gates: list[str]) -> None:
        _require_codes(source)
        if len(gates) != (product.n_experts > 1):
            raise UnfitError(
                f"with {len(gates)} tensors beside its input for {product.n_experts} kernels",
                "the choice of a kernel where there are several",
            )
        bias = getattr(self.module.get_submodule(path), "bias", None)
        product, steps = take_apart(product, source, 0.0 if bias is None else bias.detach().double().numpy())
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
            raise UnfitError(
                f"of {form}, whose numbers do not ascend with their codes", "the pool before the quantizer"
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
                "(imcsim.quant), without training by imcsim quantize, or assume bits, for time and energy alone "
                "(assume W=ternary,A=2)"
            )
        if self.refused:
            problems.append(f"{self.name}: {self.refused.line('operator')}")
        if problems:
            raise GraphError(" | ".join(problems))


def _require_codes(source: Tensor) -> None:
    if source.format.is_real:
        raise UnfitError("that reads real numbers", "a quantized activation before it (imcsim.quant)")


def _instead_of(kind: str) -> str:
    """Return the nearest thing to a module, a function or a method that is not taken, or nothing."""
    return INSTEAD.get(kind.rpartition(".")[2].rstrip("_").lower(), "")


def _kind_of(module: nn.Module) -> str:
    kind = type(module)
    home = "torch.nn" if kind.__module__.startswith("torch.nn.") else kind.__module__
    return f"{home}.{kind.__qualname__}"


def _shape(node: fx.Node) -> Shape:
    return node.meta["shape"]


def _placed(node: fx.Node) -> Shape:
    """Return the shape of a tensor in the graph, without the batch: a sequence (c t) is an image (c 1 t)."""
    return placed(_shape(node)[1:])


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, call: _Call) -> Affine:
    if module.running_mean is None or module.running_var is None:
        raise UnfitError("without running statistics")
    scale = 1 / np.sqrt(module.running_var.detach().double().numpy() + module.eps)
    offset = -module.running_mean.detach().double().numpy() * scale
    if module.affine:
        gamma, beta = module.weight.detach().double().numpy(), module.bias.detach().double().numpy()
        scale, offset = gamma * scale, gamma * offset + beta
    return Affine(scale, offset)


def _over(call: _Call, value: Any, along: int) -> tuple[int, int]:
    """Return *value*, a number for each axis of a window or one for all, for the image; *along* the axis of height 1 of
    a sequence it is another."""
    if len(call.shapes[-1]) == 3:
        return (along, value if isinstance(value, int) else int(value[0]))
    return _pair(value)


def _window(call: _Call, kernel: Any, stride: Any, padding: Any) -> tuple[tuple[int, int], ...]:
    stride = kernel if stride is None or stride == [] else stride
    return _over(call, kernel, 1), _over(call, stride, 1), _over(call, padding, 0)


def _max_pool(module: nn.MaxPool1d | nn.MaxPool2d, call: _Call) -> MaxPool:
    if module.ceil_mode or module.return_indices or _pair(_each(module.dilation)) != (1, 1):
        raise UnfitError("with ceil_mode, dilation or indices", "windows that lie on the image, without gaps")
    return MaxPool(*_window(call, module.kernel_size, module.stride, module.padding))


def _avg_pool(module: nn.AvgPool1d | nn.AvgPool2d, call: _Call) -> AvgPool:
    divisor = getattr(module, "divisor_override", None)
    is_padded = _each(module.padding) not in (0, (0, 0))
    if module.ceil_mode or divisor or (not module.count_include_pad and is_padded):
        raise UnfitError("with ceil_mode, divisor_override or count_include_pad=False", "padding that counts as zeros")
    return AvgPool(*_window(call, module.kernel_size, module.stride, module.padding))


def _each(value: Any) -> Any:
    """Return *value*, of one axis as a number."""
    return value[0] if isinstance(value, tuple | list) and len(value) == 1 else value


def _adaptive_avg_pool(module: nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d, call: _Call) -> AvgPool:
    return _global_pool(call, module.output_size)


def _global_pool(call: _Call, size: Any) -> AvgPool:
    window = placed(_shape(call.args[0])[1:])[1:]
    if _each(size) not in (1, (1, 1), [1, 1]):
        raise UnfitError("to anything but one value a channel", "AvgPool with a window")
    return AvgPool((window[0], window[1]), (window[0], window[1]))


def _flatten(module: nn.Flatten, call: _Call) -> Piece:
    return _flat(call, module.start_dim, module.end_dim)


def _flat(call: _Call, start: int, end: int) -> Piece:
    ndim = len(_shape(call.args[0]))
    if start != 1 or end % ndim != ndim - 1:
        raise UnfitError("of anything but all axes behind the batch")
    return Flatten() if ndim > 2 else None


def _log_softmax(module: nn.LogSoftmax, call: _Call) -> LogSoftmax:
    return _softmax_over(call, module.dim)


def _chances(call: _Call, dim: int | None) -> Softmax:
    n_axes = len(call.shapes[-1])
    if dim is None or dim % n_axes == 0:
        raise UnfitError("over the batch, or over an axis that is not told", "an axis behind the batch")
    return Softmax(call.axis(dim % n_axes - 1))


def _layer_norm(module: nn.LayerNorm, call: _Call) -> LayerNorm:
    scale, offset = (None if each is None else each.detach().double().numpy() for each in (module.weight, module.bias))
    return _normed(call, len(module.normalized_shape), scale, offset, module.eps)


def _function_layer_norm(call: _Call) -> LayerNorm:
    given = call.get(2, "weight"), call.get(3, "bias")
    scale, offset = (None if each is None else _constant(each) for each in given)
    if any(each is not None and found is None for each, found in zip(given, (scale, offset), strict=True)):
        raise UnfitError("with a weight or a bias that is computed", "parameters, or none")
    return _normed(call, len(call.get(1, "normalized_shape")), scale, offset, float(call.get(4, "eps", 1e-5)))


def _normed(call: _Call, n: int, scale: np.ndarray | None, offset: np.ndarray | None, eps: float) -> LayerNorm:
    n_axes = len(call.shapes[-1]) - 1
    if n > n_axes:
        raise UnfitError("over the batch", "axes behind it")
    scale, offset = (
        missing if values is None else values.reshape((1,) * (n_axes - n) + values.shape)
        for values, missing in ((scale, np.array(1.0)), (offset, np.array(0.0)))
    )
    if call.is_sequence:
        scale, offset = (each[:, None] if each.ndim else each for each in (scale, offset))
    return LayerNorm(tuple(call.axis(index) for index in range(n_axes - n, n_axes)), eps, scale, offset)


def _gelu(approximate: str) -> Gelu:
    return Gelu("tanh" if approximate == "tanh" else "erf")


def _permute(call: _Call) -> Permute:
    n_axes, dims = len(_shape(call.args[0])), call.args[1:] or (call.kwargs["dims"],)
    dims = tuple(dims[0]) if isinstance(dims[0], list | tuple) else tuple(dims)
    order = [dim % n_axes for dim in dims]
    if order[0] != 0:
        raise UnfitError("that moves the batch", "an order that keeps it in front")
    return _permuted(call, [axis - 1 for axis in order[1:]])


def _transpose(call: _Call) -> Permute:
    n_axes = len(_shape(call.args[0]))
    a, b = (call.get(index, key) % n_axes for index, key in ((1, "dim0"), (2, "dim1")))
    if 0 in (a, b):
        raise UnfitError("that moves the batch", "an order that keeps it in front")
    order = list(range(n_axes - 1))
    order[a - 1], order[b - 1] = b - 1, a - 1
    return _permuted(call, order)


def _permuted(call: _Call, order: list[int]) -> Permute:
    lie = [call.axis(index) for index in order]
    return Permute((lie[0], 1, lie[1]) if call.is_sequence else tuple(lie))


def _softmax_over(call: _Call, dim: int | None) -> LogSoftmax:
    n_axes = len(call.shapes[-1])
    if dim is None or not 2 <= n_axes <= 4 or dim % n_axes != 1:
        raise UnfitError("over anything but the channels of (b c), (b c t) or (b c h w)")
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
    nn.MaxPool1d: _max_pool,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool1d: _avg_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool1d: _adaptive_avg_pool,
    nn.AdaptiveAvgPool2d: _adaptive_avg_pool,
    nn.Flatten: _flatten,
    nn.LogSoftmax: _log_softmax,
    nn.Dropout: _nothing,
    nn.Dropout1d: _nothing,
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
        raise UnfitError("of anything but two tensors, or one and a constant")
    shape = _shape(left if is_right else right)
    value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape) if value.ndim <= len(shape) else value
    if len(value.shape) != len(shape) or value.shape[0] != 1 or call.shapes[-1] != shape:
        raise UnfitError("with a constant that differs from sample to sample, or is larger than the tensor")
    one, zero = np.array(1.0), np.array(0.0)
    if value.size == 1:
        value = value.reshape(())
    elif prod(value.shape[2:]) == 1:
        value = value.reshape(-1)
    else:
        value = value[0].reshape(placed(value.shape[1:]))
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
        raise UnfitError("with slopes that are computed")
    return PRelu(_slopes(slope))


def _clamp(call: _Call) -> Clip:
    low, high = call.get(1, "min"), call.get(2, "max")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise UnfitError("without a number as its least and greatest")
    return Clip(float(low), float(high))


def _hardtanh(call: _Call) -> Clip:
    return Clip(float(call.get(1, "min_val", -1.0)), float(call.get(2, "max_val", 1.0)))


def _mean(call: _Call) -> Piece:
    shape = _shape(call.args[0])
    dims, keeps = call.get(1, "dim"), call.get(2, "keepdim", False)
    axes = tuple(sorted(d % len(shape) for d in ((dims,) if isinstance(dims, int) else dims or range(len(shape)))))
    everything = tuple(range(1, len(shape)))
    if len(shape) > 2 and axes == tuple(range(2, len(shape))):
        window = placed(shape[1:])[1:]
        pool = AvgPool(window, window)  # type: ignore[arg-type]
        return pool if keeps else (pool, Flatten())
    if not keeps or axes not in ((1,), everything):
        raise UnfitError("over anything but channels or whole samples with keepdim, or the image")
    return Mean("sample") if axes == everything else Mean("channels")


def _get_item(call: _Call) -> Piece:
    shape, index = _shape(call.args[0]), call.args[1]
    index = index if isinstance(index, tuple) else (index,)
    whole = [i for i, part in enumerate(index) if part == slice(None)]
    others = set(range(len(index))) - set(whole)
    time = len(shape) - 1
    if len(shape) > 2 and others in ({time}, {2, 3}) and isinstance(index[time], int) and placed(shape[1:])[1] == 1:
        first = index[time] % shape[time]
        step = Slice(first, first + 1, axis=2)
        return (step, Flatten()) if len(call.shapes[-1]) == 2 else step
    if len(index) < 2 or not isinstance(index[1], slice) or others - {1}:
        raise UnfitError("of anything but a range of channels", "a slice of channels, or one time step of a sequence")
    first, last, stride = index[1].indices(shape[1])
    if stride != 1 or last <= first:
        raise UnfitError("of anything but a range of channels", "a slice of channels, or one time step of a sequence")
    return Slice(first, last)


def _function_max_pool(call: _Call) -> MaxPool:
    if _each(call.get(4, "dilation", 1)) not in (1, (1, 1), [1, 1]) or call.get(5, "ceil_mode", False):
        raise UnfitError("with ceil_mode or dilation", "windows that lie on the image, without gaps")
    return MaxPool(*_window(call, call.get(1, "kernel_size"), call.get(2, "stride"), call.get(3, "padding", 0)))


def _function_avg_pool(call: _Call) -> AvgPool:
    window = _window(call, call.get(1, "kernel_size"), call.get(2, "stride"), call.get(3, "padding", 0))
    if call.get(4, "ceil_mode", False) or call.get(6, "divisor_override") or (
        window[2] != (0, 0) and not call.get(5, "count_include_pad", True)
    ):  # fmt: skip
        raise UnfitError("with ceil_mode, divisor_override or count_include_pad=False", "padding that counts as zeros")
    return AvgPool(*window)


def _function_flatten(call: _Call) -> Piece:
    return _flat(call, call.get(1, "start_dim", 0), call.get(2, "end_dim", -1))


def _reshape(call: _Call) -> Piece:
    before, after = _shape(call.args[0]), call.shapes[-1]
    if after[:1] == before[:1] and placed(after[1:]) == placed(before[1:]):
        return None
    if after == (before[0], prod(before[1:])):
        return Flatten()
    if after[0] == before[0] and len(after) > 1:
        return Reshape(after[1:])
    raise UnfitError(f"from {before} to {after}", "a shape that keeps the batch")


def _function_dropout(call: _Call) -> None:
    if call.get(2, "training", True):
        raise UnfitError("that is on in evaluation mode; pass training=self.training")


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
    functional.max_pool1d: _function_max_pool,
    functional.max_pool2d: _function_max_pool,
    functional.avg_pool1d: _function_avg_pool,
    functional.avg_pool2d: _function_avg_pool,
    functional.adaptive_avg_pool1d: lambda call: _global_pool(call, call.get(1, "output_size")),
    functional.adaptive_avg_pool2d: lambda call: _global_pool(call, call.get(1, "output_size")),
    torch.flatten: _function_flatten,
    "flatten": _function_flatten,
    "view": _reshape,
    "reshape": _reshape,
    torch.reshape: _reshape,
    torch.squeeze: _reshape,
    "squeeze": _reshape,
    torch.unsqueeze: _reshape,
    "unsqueeze": _reshape,
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
    functional.layer_norm: _function_layer_norm,
    torch.layer_norm: _function_layer_norm,
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


INSTEAD = {
    **dict.fromkeys(("elu", "selu", "celu", "softplus", "mish"), "ReLU, PReLU, GELU or Hardswish"),
    **dict.fromkeys(("logsigmoid", "softsign", "tanhshrink"), "Hardswish, Sigmoid or Tanh"),
    **dict.fromkeys(("softmin", "softmax2d"), "Softmax"),
    **dict.fromkeys(("groupnorm", "group_norm", "rmsnorm"), "LayerNorm or BatchNorm"),
    **dict.fromkeys(
        ("instancenorm1d", "instancenorm2d", "instance_norm", "localresponsenorm", "batchnorm3d"), "BatchNorm"
    ),
    **dict.fromkeys(
        ("convtranspose1d", "convtranspose2d", "convtranspose3d", "conv_transpose1d", "conv_transpose2d"),
        "a quantized convolution (imcsim.quant), and whatever enlarges its image outside of the chip",
    ),
    **dict.fromkeys(("upsample", "interpolate", "upsamplingnearest2d"), "a quantized convolution with a stride"),
    **dict.fromkeys(("adaptivemaxpool1d", "adaptivemaxpool2d", "fractionalmaxpool2d", "lppool2d"), "MaxPool2d"),
    **dict.fromkeys(("maxpool3d", "avgpool3d", "adaptiveavgpool3d"), "pools over images"),
    **dict.fromkeys(("conv1d", "conv2d", "linear"), "a module of imcsim.quant, whose weights are quantized"),
    **dict.fromkeys(("lstm", "lstmcell", "rnn", "rnncell"), "TernaryLSTM (imcsim.quant)"),
    **dict.fromkeys(("gru", "grucell"), "TernaryGRU (imcsim.quant)"),
    **dict.fromkeys(("embedding", "embeddingbag"), "TernaryEmbedding (imcsim.quant)"),
    **dict.fromkeys(("multiheadattention", "scaled_dot_product_attention"), "a recurrent layer (imcsim.quant)"),
    **dict.fromkeys(("matmul", "bmm", "einsum"), "a quantized linear layer, whose weights are constant (imcsim.quant)"),
    **dict.fromkeys(("max", "amax"), "MaxPool2d over the whole image"),
    **dict.fromkeys(("transpose", "permute"), "channels right behind the batch throughout"),
    **dict.fromkeys(("chunk", "split"), "slices of channels, x[:, a:b]"),
    "stack": "torch.cat of channels",
}
"""The nearest thing to what is not taken, by the last part of its name in lower case."""


def supported() -> Iterator[str]:
    """Name every module of torch that `capture` takes."""
    yield from (f"torch.nn.{kind.__name__}" for kind in MODULES)
