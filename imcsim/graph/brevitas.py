"""A PyTorch module of Brevitas layers to a `Model`: by Brevitas's own export to QONNX, from a copy of the module.

The export says what is multiplied and what is added, and the scales. What it leaves out is put in here: weights come
from the layers' own quantizers (the export names the unquantized ones, whatever rounds them), each quantizer of
activations is held against its own forward, and nodes bear the paths of the modules that they are from.

Needs brevitas, onnx and onnxoptimizer, which are imported when a module of Brevitas comes in and not before.
"""

import inspect
import io
import logging
import os
import re
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor as TorchTensor
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from imcsim.errors import ConfigError, GraphError
from imcsim.graph.protocol import DigitalLayer, QuantizedActivation, QuantizedProduct, QuantizedRecurrence
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.file import one_line, read_file
from imcsim.graph.qonnx.model import Model, Node
from imcsim.graph.qonnx.quantizers import Grid, bipolar_grid, quant_grid, quantized
from imcsim.graph.qonnx.walk import QONNX

VERSIONS = ((0, 13), (0, 14))
"""The least version of Brevitas that is taken, and the first that is not."""

PACKAGES = ("onnx", "onnxoptimizer")
"""What the export needs beside Brevitas."""

OPSET = 17
"""Version of ONNX's operators that is asked for: one that the exporter of every supported torch knows."""

PROBES = 1 << 14
"""At most so many numbers are sent through a quantizer of activations to see what it does."""

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def is_brevitas(module: nn.Module) -> bool:
    """Whether a part of *module* is a layer of Brevitas, or of a class made from one; needs no Brevitas."""
    return any(_is_from(part, "brevitas.") for part in module.modules())


def _is_from(module: nn.Module, package: str) -> bool:
    return any(kind.__module__.startswith(package) for kind in type(module).__mro__)


def model_of(module: nn.Module, given: Sequence[tuple[str | None, TorchTensor]], *, name: str) -> Model:
    """Return what *module* computes in evaluation mode, for inputs shaped like those *given*.

    Each is a tensor (b ...) with the name of the argument of forward() that it is, or None where its place tells. The
    module is neither changed nor put into another mode. Raises ConfigError where a package is missing or of another
    version, GraphError for a module that cannot be exported: one line each.
    """
    _require_packages(name)
    if any(
        isinstance(part, QuantizedProduct | QuantizedActivation | QuantizedRecurrence | DigitalLayer)
        for part in module.modules()
    ):
        raise GraphError(f"{name}: must have layers of Brevitas or of imcsim.quant, got both; take one of them")
    try:
        copy = deepcopy(module).eval()
    except Exception as error:  # whatever the user's own attributes do
        raise GraphError(f"{name}: must be a module that can be copied, got {_reason(error)}") from error
    examples = _in_order(copy, given, name)
    with _quietly(), torch.no_grad():
        _require_handlers(copy, name)
        keys = _give_numbers(copy)
        _try(copy, examples, name)
        model = _exported(copy, examples, name)
        return _named(_corrected(model, copy), copy, keys)


def _in_order(module: nn.Module, given: Sequence[tuple[str | None, TorchTensor]], name: str) -> dict[str, TorchTensor]:
    """Return the tensors *given* by the names of the arguments of forward(), in their order."""
    known = list(inspect.signature(module.forward).parameters)
    by_name = {argument or known[i]: tensor for i, (argument, tensor) in enumerate(given) if argument or i < len(known)}
    if len(by_name) < len(given) or set(by_name) != set(known[: len(given)]):
        raise GraphError(
            f"{name}: example input must be tensors for the first arguments of forward() ({', '.join(known)}), got "
            f"{', '.join(argument or str(i + 1) for i, (argument, _) in enumerate(given))}"
        )
    return {argument: by_name[argument] for argument in known[: len(given)]}


def _require_packages(name: str) -> None:
    least, beyond = (".".join(map(str, part)) for part in VERSIONS)
    try:
        found = version("brevitas")
    except PackageNotFoundError:  # its source, on the path
        found = "none that is installed"
    numbers = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if not VERSIONS[0] <= numbers < VERSIONS[1]:
        raise ConfigError(
            f"{name}: brevitas must be at least {least} and below {beyond}, got {found}; pip install imcsim[brevitas]"
        )
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"{name}: the packages {' and '.join(PACKAGES)} must be installed, got no {' and no '.join(missing)}; pip "
            "install imcsim[brevitas]"
        )


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what exporters print, warn and log away from the terminal, also what they write from C++."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), _closed(1, 2):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextmanager
def _closed(*descriptors: int) -> Iterator[None]:
    """Lead what is written to the open *descriptors* of this process nowhere."""
    kept: list[tuple[int, int]] = []
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in descriptors:
            with suppress(OSError):  # not open
                kept.append((descriptor, os.dup(descriptor)))
                os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, copy in kept:
            os.dup2(copy, descriptor)
            os.close(copy)
        os.close(nowhere)


def _require_handlers(module: nn.Module, name: str) -> None:
    """Raise GraphError for quantizers that QONNX does not have, all of them at once."""
    from brevitas.export.onnx.qonnx.handler import BrevitasFloatQuantProxyHandler
    from brevitas.export.onnx.qonnx.manager import QONNXManager
    from brevitas.proxy.quant_proxy import QuantProxyFromInjector

    unfit = []
    for path, part in module.named_modules():
        if isinstance(part, QuantProxyFromInjector) and part.is_quant_enabled:
            handler = QONNXManager.handler_from_module(part, no_inheritance=True)
            if handler is None or issubclass(handler, BrevitasFloatQuantProxyHandler):
                unfit.append(f"{type(part).__name__} ({path})")
    if unfit:
        raise GraphError(
            f"{name}: every quantizer must be one that QONNX has, of whole numbers with scales that do not depend on "
            f"the input, got {', '.join(unfit)}"
        )


def _give_numbers(module: nn.Module) -> list[str | None]:
    """Let *module* give plain tensors in a row, whatever its forward() puts them in.

    The list that comes back holds, once it was called, the key of each of them where a dict has it.
    """
    forward = module.forward
    keys: list[str | None] = []

    def plain(*args: Any) -> Any:
        made = list(_flat(forward(*args)))
        keys[:] = [key for key, _ in made]
        return made[0][1] if len(made) == 1 else tuple(value for _, value in made)

    plain.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    module.forward = plain
    return keys


def _flat(made: Any, key: str | None = None) -> Iterator[tuple[str | None, Any]]:
    from brevitas.quant_tensor import QuantTensor

    if isinstance(made, QuantTensor):
        yield key, made.value
    elif isinstance(made, tuple | list):
        for i, each in enumerate(made):
            yield from _flat(each, None if key is None else f"{key}.{i}")
    elif isinstance(made, Mapping):
        for word, each in made.items():
            yield from _flat(each, str(word) if key is None else f"{key}.{word}")
    else:
        yield key, made


class _NoReading(TorchDispatchMode):
    """Notes where the user's own code reads a number out of a tensor, which the export would keep for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            frames = [frame for frame in traceback.extract_stack() if not _is_of_package(frame.filename, "torch")]
            outside = [frame for frame in frames if frame.filename != __file__]
            if outside and outside[-1] is frames[-2] and not _is_of_package(outside[-1].filename, "brevitas"):
                self.found.append(f"line {outside[-1].lineno} of {Path(outside[-1].filename).name}")
        return func(*args, **(kwargs or {}))


def _is_of_package(file: str, package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None and file.startswith(str(Path(spec.origin).parent))


def _try(module: nn.Module, examples: Mapping[str, TorchTensor], name: str) -> None:
    """Raise GraphError unless *module* makes tensors of the *examples*, by the same operators for all values."""
    try:
        with _NoReading() as reading:
            made = module(*examples.values())
    except Exception as error:  # the user's own shapes do not fit
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in examples.values())
        raise GraphError(f"{name}: forward() must run on the example input {shapes}, got: {_reason(error)}") from error
    if reading.found:
        raise GraphError(
            f"{name}: forward() must be free of branches and loops that depend on values, got one at "
            f"{reading.found[0]}; rewrite it"
        )
    for each in made if isinstance(made, tuple) else (made,):
        if not isinstance(each, TorchTensor):
            got = type(each).__name__
            raise GraphError(f"{name}: forward() must return tensors, alone or in tuples and dicts, got {got}")


def _exported(module: nn.Module, examples: Mapping[str, TorchTensor], name: str) -> Model:
    from brevitas.export import export_qonnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            export_qonnx(
                module,
                args=tuple(examples.values()),
                export_path=str(path),
                input_names=list(examples),
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:  # the exporter's own, of any kind
            raise GraphError(f"{name}: must be a module that brevitas.export takes, got {_reason(error)}") from error
        return read_file(path, origin=name)


def _reason(error: BaseException) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return one_line(f"{type(error).__name__}: {first}" if first else type(error).__name__)


# --- what the export leaves out -------------------------------------------------------------------------------------


def _corrected(model: Model, module: nn.Module) -> Model:
    """Return *model* with what the quantizers of *module* do, where the export says something else or less."""
    scopes = _Scopes(module)
    constants, nodes = dict(model.constants), []
    for node in model.nodes:
        path = scopes.path(node)
        if node.kind in ("Quant", "BipolarQuant") and node.domain in QONNX and path:
            if path.rpartition(".")[2] == "weight_quant":
                node = _weights(node, scopes.layer_of_weights(node, path), path, constants)
            elif getattr(scopes.modules[path], "fused_activation_quant_proxy", None) is not None:
                node = _activation(node, scopes.modules[path], path, constants)
        nodes.append(node)
    return replace(model, constants=constants, nodes=tuple(nodes))


def _weights(node: Node, layer: Any, path: str, constants: dict[str, np.ndarray]) -> Node:
    """Return the quantizer *node* of what *layer* gives as its weights; quantizing them again changes none."""
    numbers = layer.quant_weight().value.detach().numpy()
    grid = _grid(node, constants)
    if grid is not None and not np.allclose(quantized(grid, Constant(numbers)).numbers, numbers, rtol=1e-5, atol=0):
        raise GraphError(f"{path}: must be a quantizer whose numbers are those of its export, got others")
    constants[f"{node.inputs[0]} of {path}"] = numbers
    return replace(node, inputs=(f"{node.inputs[0]} of {path}", *node.inputs[1:]))


def _activation(node: Node, proxy: Any, path: str, constants: dict[str, np.ndarray]) -> Node:
    """Return the quantizer *node* as what its *proxy* does; raises GraphError where that is something else."""
    quantizer = proxy.fused_activation_quant_proxy.tensor_quant
    if node.kind == "BipolarQuant" and proxy.is_signed is False:  # 0 and 1, which are exported as -1 and +1
        constants[f"{path}.zero"] = proxy.zero_point().detach().numpy()
        constants[f"{path}.bits"] = np.ones((), np.float32)
        said = {"signed": 0, "narrow": 0, "rounding_mode": proxy.rounding_mode}
        node = replace(node, kind="Quant", inputs=(*node.inputs, f"{path}.zero", f"{path}.bits"), attributes=said)
    grid = _grid(node, constants)
    if grid is None:
        return node
    if type(quantizer).__name__ == "TernaryQuant":
        return _ternary(node, quantizer, grid, path, constants)
    x = _probe(grid)
    expected = quantizer(torch.from_numpy(x))[0].detach().numpy()
    if not np.array_equal(quantized(grid, Constant(x)).numbers, expected):
        raise GraphError(
            f"{path}: must be a quantizer that gives what its export says, got {type(quantizer).__name__}, which gives "
            "other numbers (a rounding of its own, a delay, or an observer)"
        )
    return node


def _grid(node: Node, constants: Mapping[str, np.ndarray]) -> Grid | None:
    """Return the grid of a quantizer, or None where there is none, of which the walk says why with all the others."""
    found = [constants.get(name) for name in node.inputs[1:]]
    given = [Constant(array) for array in found if array is not None]
    try:
        match given:
            case [scale] if node.kind == "BipolarQuant":
                return bipolar_grid(scale)
            case [scale, zero, bits]:
                return quant_grid(node.attributes, scale, zero, bits)
    except UnfitError:
        pass
    return None


def _probe(grid: Grid) -> np.ndarray:
    """Return numbers (n ...) in eighths of a step around the levels of *grid*, around its ends where there are many."""
    reach = min(grid.n_levels, PROBES // 8 // grid.scale.size) + 2
    ends = np.arange(-8 * reach, 8 * reach + 1) / 8
    steps = np.unique(np.concatenate([grid.low + ends, grid.high + ends]))
    shape = np.broadcast_shapes(grid.scale.shape, grid.zero.shape)
    numbers = (steps.reshape(-1, *(1,) * len(shape)) - grid.zero) * grid.scale
    if len(shape) and shape[0] == 1:  # the axis of the batch
        numbers = numbers.reshape(-1, *numbers.shape[2:])
    return numbers.astype(np.float32)


def _ternary(node: Node, quantizer: Any, grid: Grid, path: str, constants: dict[str, np.ndarray]) -> Node:
    """Return the node of a TernaryQuant, whose zero ends at a threshold of its own, which the export does not say."""
    if grid.scale.size != 1:
        raise GraphError(f"{path}: must be a ternary quantizer of one scale, got {grid.scale.size} scales")
    scale = np.float32(grid.scale.reshape(()))
    limit = np.float32(quantizer.threshold) * scale
    constants[f"{path}.thresholds"] = np.array([[-limit, np.nextafter(limit, np.float32(np.inf))]], np.float32)
    return replace(
        node,
        kind="MultiThreshold",
        inputs=(node.inputs[0], f"{path}.thresholds"),
        attributes={"out_scale": float(scale), "out_bias": -float(scale)},
    )


# --- names ----------------------------------------------------------------------------------------------------------


class _Scopes:
    """The module that each node is from, told by the name that the exporter gave it.

    ``/blocks.0/conv/weight_quant/export_handler/Quant`` is from ``blocks.0.conv.weight_quant``: each part is the last
    word of a module's path, or its last word with the numbers behind it, and ends in ``_1`` when it is called again.
    """

    def __init__(self, module: nn.Module) -> None:
        self.modules: dict[str, nn.Module] = dict(module.named_modules(remove_duplicate=False))
        self.parameters = dict(module.named_parameters(remove_duplicate=False))
        self.by_part: dict[str, list[str]] = {}
        for path in sorted(self.modules, key=lambda path: path.count(".")):
            self.by_part.setdefault(_part(path), []).append(path)

    def path(self, node: Node) -> str:
        """Return the path of the module, as deep as it can be told; empty for the whole module."""
        found = ""
        for part in node.name.split("/")[1:-1]:
            below = self._below(found, part) or self._below(found, re.sub(r"_\d+$", "", part))
            if below is None:
                break
            found = below
        return found

    def _below(self, path: str, part: str) -> str | None:
        inside = f"{path}." if path else ""
        return next((found for found in self.by_part.get(part, ()) if found and found.startswith(inside)), None)

    def layer_of_weights(self, node: Node, path: str) -> Any:
        """Return the layer whose weights *node* quantizes: that of the quantizer at *path*, or one that shares it."""
        weights = self.parameters.get(node.inputs[0])
        for where in (path.rpartition(".")[0], node.inputs[0].rpartition(".")[0]):
            layer: Any = self.modules.get(where)
            if hasattr(layer, "quant_weight") and weights is not None and layer.weight is weights:
                return layer
        raise GraphError(f"{path}: must quantize the weights of its layer, got {node.inputs[0]!r}")

    def layer(self, path: str) -> str | None:
        """Return the path of the layer of Brevitas or torch that *path* is or lies in; None for the user's modules."""
        words = path.split(".")
        for n in range(1, len(words) + 1):
            above = ".".join(words[:n])
            module = self.modules[above]
            is_container = isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
            if not is_container and (_is_from(module, "brevitas.") or type(module).__module__.startswith("torch.nn.")):
                return above
        return None


def _part(path: str) -> str:
    """Return the last word of *path* that is no number, with the numbers behind it.

    >>> _part("blocks.conv1.0")
    'conv1.0'
    """
    words = path.split(".")
    first = next((i for i in reversed(range(len(words))) if not words[i].isnumeric()), 0)
    return ".".join(words[first:])


def _named(model: Model, module: nn.Module, keys: Sequence[str | None]) -> Model:
    """Return *model* with nodes and tensors named after the modules that they are from, outputs by their *keys*."""
    scopes = _Scopes(module)
    taken: Counter[str] = Counter([*model.constants, *(tensor.name for tensor in model.inputs)])
    called = dict(zip(model.outputs, keys, strict=True))
    seen: dict[str, set[str]] = {}
    fresh: dict[str, str] = {}
    nodes = []
    for node in model.nodes:
        name = _name(node, scopes, seen)
        for number, output in enumerate(node.outputs):
            wanted = called.get(output) or (f"{name}.{number}" if number else name)
            taken[wanted] += 1
            fresh[output] = wanted if taken[wanted] == 1 else f"{wanted}#{taken[wanted]}"
        nodes.append(replace(node, name=name))
    named = tuple(
        replace(node, inputs=_renamed(node.inputs, fresh), outputs=_renamed(node.outputs, fresh)) for node in nodes
    )
    return replace(model, nodes=named, outputs=_renamed(model.outputs, fresh))


def _renamed(names: tuple[str, ...], fresh: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(fresh.get(name, name) if name else name for name in names)


def _name(node: Node, scopes: _Scopes, seen: dict[str, set[str]]) -> str:
    """Return the path of the layer for its first node or its product, and one within it for the rest.

    *seen* has the kinds of nodes that each layer made since it was called; one that is there is from the next call.
    """
    path, kind = scopes.path(node), node.kind.lower()
    layer = scopes.layer(path) if path else None
    if layer is None:
        return f"{path}.{kind}".lstrip(".")
    if path.rpartition(".")[2] in ("input_quant", "output_quant", "weight_quant", "bias_quant"):
        return path
    if hasattr(scopes.modules[layer], "weight_quant"):
        return layer if node.kind in PRODUCTS else f"{layer}.{kind}"
    kinds = seen.setdefault(layer, set())
    if kind in kinds:
        kinds.clear()
    is_first = not kinds
    kinds.add(kind)
    return layer if is_first else f"{layer}.{kind}"
