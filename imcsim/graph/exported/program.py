"""A module to a program by torch.export, and a program to a model: node after node, constants as arrays."""

import operator
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from imcsim.errors import GraphError
from imcsim.graph.exported.call import Call, NoWordError, Writer, Written, shape_of, whole_number
from imcsim.graph.exported.operators import OPERATORS
from imcsim.graph.exported.quantized import QUANTIZED
from imcsim.graph.qonnx.model import Input, Model, Node

OPSET = 23
"""The version of ONNX's operators that is written."""


def export(module: nn.Module, example_inputs: tuple[Any, ...], name: str) -> ExportedProgram:
    """Return *module* as torch.export reads it in evaluation mode, for inputs shaped like *example_inputs*.

    The module is left in the mode it was in. Raises GraphError, one line, where torch.export cannot read it.
    """
    was_training = [part for part in module.modules() if part.training]
    try:
        for part in was_training:  # eval() is forbidden to modules that were exported
            part.training = False
        with _quietly():
            return torch.export.export(module, example_inputs, strict=False)
    except Exception as error:  # whatever the user's forward() does while it is traced
        raise GraphError(
            f"{name}: forward() must be one that torch.export can read, got: {_reason(error)}; make it free of "
            "branches and loops that depend on values"
        ) from error
    finally:
        for part in was_training:
            part.training = True


def model_of(program: ExportedProgram, *, name: str) -> Model:
    """Return *program* in the operators of ONNX, and of ATen where ONNX has none; nodes are named by module path.

    Constants share the memory of the program's parameters. What no input reaches is worked out by torch, but for what
    is dequantized, which stays a node. Raises GraphError for a program that torch cannot make free of operators that
    change their input.
    """
    if any(_changes_its_input(node) for node in program.graph.nodes):
        try:
            with _quietly():
                program = program.run_decompositions({})
        except Exception as error:
            raise GraphError(
                f"{name}: the program must be one that torch can make free of operators in place, got: {_reason(error)}"
            ) from error
    return _Reading(program).model(name)


class _Reading:
    """Which node holds what, and the model that is being written."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self.spec_of = {node: specs[node.name] for node in program.graph.nodes if node.op == "placeholder"}
        self.values: dict[fx.Node, Any] = {}
        self.is_fixed: dict[fx.Node, bool] = {}
        self.is_kept: set[fx.Node] = set()
        taken = {node.name for node in program.graph.nodes}  # as names of what nodes make
        parameter_of = {
            node: spec.target if spec.target not in taken else node.name
            for node, spec in self.spec_of.items()
            if spec.target
        }
        self.writer = Writer(value_of=self.value_of, parameter_of=parameter_of)

    def model(self, name: str) -> Model:
        output = next(node for node in reversed(self.program.graph.nodes) if node.op == "output")
        specs = self.program.graph_signature.output_specs
        wanted = [
            arg
            for spec, arg in zip(specs, output.args[0], strict=True)
            if spec.kind is OutputKind.USER_OUTPUT and isinstance(arg, fx.Node)
        ]
        needed = self.writer.needed = _reaching(wanted)
        inputs = []
        for node, spec in self.spec_of.items():
            if spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument):
                inputs.append(Input(node.name, shape_of(node)))
                self.writer.written[node] = node.name
                self.is_fixed[node] = False
        for node in self.program.graph.nodes:  # in dependency order
            if node in needed:
                self._note(node)
        name_of = _names([node for node in needed if self._is_written(node)])
        for node in self.program.graph.nodes:
            if node in needed and self._is_written(node):
                self.writer.written[node] = self._write(node, name_of)
        outputs = tuple(name for node in wanted for name in _flat(self.writer.tensor(node)))
        return Model(
            name,
            OPSET,
            tuple(inputs),
            self.writer.constants,
            tuple(self.writer.nodes),
            outputs,
            frozenset(self.writer.missing),
        )

    def value_of(self, node: fx.Node) -> Any:
        """Return what *node* gives whatever goes in; None where that depends on it."""
        if not self.is_fixed.get(node, False):
            return None
        if node not in self.values:
            self.values[node] = self._worked_out(node)
        return self.values[node]

    def _worked_out(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            target = self.spec_of[node].target
            found = self.program.state_dict.get(target)
            return self.program.constants.get(target) if found is None else found
        if node.op == "get_attr":
            return getattr(self.program.graph_module, str(node.target), None)
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.value_of)
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]

    def _note(self, node: fx.Node) -> None:
        """Note whether *node* is the same whatever goes in, and whether it stays a node all the same."""
        if node in self.is_fixed or node.op == "output":
            return
        tags = getattr(node.target, "tags", ())
        is_random = torch.Tag.nondeterministic_seeded in tags
        is_operator = isinstance(node.target, torch._ops.OpOverload) or node.target is operator.getitem
        is_fixed = all(self.is_fixed.get(source, False) for source in node.all_input_nodes)
        is_known = node.op in ("placeholder", "get_attr") or (is_operator and not is_random)
        self.is_fixed[node] = is_fixed and is_known
        if _word(node) in QUANTIZED or any(source in self.is_kept for source in node.all_input_nodes):
            self.is_kept.add(node)

    def _is_written(self, node: fx.Node) -> bool:
        """Whether *node* becomes nodes of the model: it is an operator on what goes in, or on what is dequantized."""
        if node.op != "call_function" or isinstance(node.meta.get("val"), torch.SymInt | int | float):
            return False
        return node in self.is_kept or not self.is_fixed[node]

    def _write(self, node: fx.Node, name_of: Mapping[fx.Node, str]) -> Written:
        if node.target is operator.getitem:
            made = self.writer.written[node.args[0]]  # type: ignore[index]
            found = made[node.args[1]]  # type: ignore[index]
            assert found is not None
            return found
        word, before = _word(node), len(self.writer.nodes)
        write = OPERATORS.get(word)
        try:
            if write is None:
                raise NoWordError
            return write(Call(node, name_of[node], _arguments(node), self.writer))
        except NoWordError:
            del self.writer.nodes[before:]
            return self._as_it_is(node, word, name_of[node])

    def _as_it_is(self, node: fx.Node, word: str, name: str) -> Written:
        """Write *node* under its ATen name."""
        inputs = tuple(tensor for source in node.all_input_nodes for tensor in self._tensors(source))
        value = node.meta.get("val")
        if isinstance(value, tuple | list):
            outputs = tuple(f"{node.name}/{place}" for place in range(len(value)))
            self.writer.nodes.append(Node(word, "", name, inputs, outputs, {}))
            return outputs
        self.writer.nodes.append(Node(word, "", name, inputs, (node.name,), {}))
        return node.name

    def _tensors(self, node: fx.Node) -> tuple[str, ...]:
        try:
            return _flat(self.writer.tensor(node))
        except NoWordError:  # a number, or a part of the program
            return ()


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of *node* by the names of its schema."""
    schema = node.target._schema  # type: ignore[union-attr]
    found = {argument.name: argument.default_value for argument in schema.arguments}
    found.update(zip(found, node.args, strict=False))
    found.update(node.kwargs)
    return {name: fx.map_arg(value, _number) for name, value in found.items()}


def _number(node: fx.Node) -> Any:
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt | torch.SymFloat):
        return whole_number(value)
    return value if isinstance(value, int | float) else node


def _word(node: fx.Node) -> str:
    """Return the name of the operator without its overload: ``aten.add``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket)
    return str(getattr(target, "__name__", target))


def _changes_its_input(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable and _word(node) != "aten.detach_"


def _reaching(wanted: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that *wanted* follow from, themselves included."""
    found, waiting = set(wanted), list(wanted)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _names(nodes: list[fx.Node]) -> dict[fx.Node, str]:
    """Return names: the module's path, with the node's own name behind it where a module calls several operators."""
    paths = {node: _path(node) for node in nodes}
    plain = [node for node in nodes if node.target is not operator.getitem and _word(node) not in QUANTIZED]
    calls = Counter(paths[node] for node in plain)
    alone = {node for node in plain if paths[node] and calls[paths[node]] == 1}
    return {
        node: path if node in alone else f"{path}.{node.name}" if path else node.name for node, path in paths.items()
    }


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return next((str(path) for path, _ in reversed(stack.values()) if path), "") if stack else ""


def _flat(written: Written) -> tuple[str, ...]:
    return (written,) if isinstance(written, str) else tuple(name for name in written if name is not None)


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what torch warns of while it traces, and attention's one-piece kernels, which say nothing."""
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
