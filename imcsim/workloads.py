"""Workloads by name or path: a folder with a `workload.py` that says how to build, feed and test a network.

`workload.py` offers ``build()``, a torch module in evaluation mode, and ``example_input()``, one input (1 ...); or, in
place of both, ``graph()``, a `Graph` made directly, for which torch is never imported. Where there is a trained
network, it offers ``data(folder)``, its test set as inputs (n ...) and labels (n), and perhaps ``expected(folder)``,
outputs that others published, by which the network is checked. It may name its data set (`DATASET`), describe itself
(`DESCRIPTION`), say which layers take 8 bits (`EIGHT_BIT_LAYERS`) and name what its outputs are judged by (`METRIC`:
accuracy, or perplexity of log-probabilities (n v 1 t) against labels (n t)).

Of a network of several inputs ``example_input()`` is a tuple or a dict of tensors, and the inputs of ``data(folder)``
are a dict of arrays by name. Of several outputs the first is held against the labels, or the one that `OUTPUT` names,
which is put first.

A workload is an ONNX file, too, with the quantizers of QONNX in it (`imcsim.graph.qonnx`). Its test set, if it has one,
lies beside it under its name: `model.npz` beside `model.onnx`, with inputs x (n ...), as the model takes them, and
labels (n); where the model has several inputs, with an array under the name of each.
"""

import ast
import difflib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from imcsim.data import load_samples
from imcsim.errors import ConfigError, DataError, ImcsimError
from imcsim.graph import Graph
from imcsim.graph.assumption import Assumption, parse_assumption
from imcsim.graph.passes import simplify
from imcsim.graph.samples import Samples
from imcsim.metrics import METRICS, Metric
from imcsim.shipped import shipped_folder

MODEL = ".onnx"
"""How the name of a model file ends."""

PICKLED = (".pt2", ".pt", ".pth")
"""How names of files end that torch unpickles, by which a file can run any code."""


@dataclass(frozen=True)
class Workload:
    """A network and its test set, read when they are asked for."""

    name: str
    path: Path
    """The `workload.py`, or the model file."""

    assumption: Assumption | None = None
    """Bits of layers of real numbers; such a network has no values, and so no test set."""

    @cached_property
    def module(self) -> ModuleType:
        """The Python module behind the workload, or one that stands for a model file.

        Raises ConfigError when it cannot be read.
        """
        if self.path.suffix == MODEL:
            return _module_of_model(self.name, self.path, self.assumption)
        module = _read_module(f"imcsim_workload_{self.name.replace('-', '_')}", self.path)
        for needed in () if offers(module, "graph") else ("build", "example_input"):
            if not offers(module, needed):
                raise ConfigError(f"{self.path}: {needed}(): missing; a workload needs it, or graph()")
        return module

    @property
    def is_shipped(self) -> bool:
        """Whether it comes with imcsim; a user's own folder may bear the same name."""
        return self.path.resolve().is_relative_to(shipped_folder("workloads").resolve())

    @property
    def description(self) -> str:
        """What the workload is, in a line."""
        return self.said("DESCRIPTION") or (self.module.__doc__ or "").split("\n")[0]

    def said(self, name: str) -> str:
        """Return the text that the workload says under *name*, such as DATASET; empty where it says nothing.

        A text that stands in the file as it is is read there, so that a list of workloads does not wait for torch.
        """
        if "module" not in self.__dict__ and (text := self._texts.get(name)):
            return text
        return str(getattr(self.module, name, ""))

    @cached_property
    def _texts(self) -> dict[str, str]:
        """What the file assigns as plain text at its top level."""
        if self.path.suffix == MODEL:
            return {}
        try:
            tree = ast.parse(self.path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):  # reading it as a module says what is wrong
            return {}
        return {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    @property
    def metric(self) -> Metric:
        """What the outputs are judged by; raises ConfigError for a name that is none."""
        name = getattr(self.module, "METRIC", "accuracy")
        if name not in METRICS:
            raise ConfigError(f"{self.path}: METRIC: must be {' or '.join(METRICS)}, got {name!r}")
        return METRICS[name]

    def graph(self) -> Graph:
        """Return the network as a graph, its steps joined and its batch norms folded.

        Raises ConfigError where the `workload.py` does not give one, GraphError for what cannot be taken.
        """
        if offers(self.module, "graph"):
            if self.assumption is not None and self.path.suffix != MODEL:
                raise ConfigError(
                    f"{self.name}: assume: must go with a model file or a torch module, got a workload whose graph() "
                    "says its bits; leave it out"
                )
            made = self.call("graph")
            if not isinstance(made, Graph):
                raise ConfigError(f"{self.path}: graph() must give an imcsim Graph, got {type(made).__name__}")
            return self._judged_first(simplify(replace(made, name=self.name)))
        from imcsim.graph.capture import capture

        built = self.call("build")
        try:
            found = capture(built, self.call("example_input"), name=self.name, assume=self.assumption)
        except ImcsimError as error:
            raise type(error)(f"{self.name}: {error}") from None
        return self._judged_first(found)

    def _judged_first(self, graph: Graph) -> Graph:
        name = self.said("OUTPUT")
        if not name or graph.outputs[0] == name:
            return graph
        if name not in graph.outputs:
            raise ConfigError(f"{self.path}: OUTPUT: must be {' or '.join(graph.outputs)}, got {name!r}")
        return replace(graph, outputs=(name, *(other for other in graph.outputs if other != name)))

    def one_example(self) -> Any:
        """Return the example input of a network that is built with a method, a tensor.

        Raises ConfigError where there are several: methods and training know networks of one input.
        """
        example = self.call("example_input")
        if not hasattr(example, "shape"):
            raise ConfigError(
                f"{self.path}: example_input() must give one tensor for a network that is built with a method, got "
                f"{type(example).__name__}"
            )
        return example

    def data(self, folder: str | Path | None = None) -> tuple[np.ndarray | Samples, np.ndarray]:
        """Return the test set: inputs (n ...) float64 and labels (n); raises DataError where there is none.

        Inputs that have names are `Samples`.
        """
        if not self.has_data:
            missing = f"{self.path.with_suffix('.npz')}" if self.path.suffix == MODEL else "data()"
            raise DataError(
                f"{self.name}: {missing}: missing; a workload without a test set runs with --engine simulate"
            )
        found = self.call("data", folder)
        try:
            x, labels = found
            if isinstance(x, Mapping):
                return _samples(self.path, {name: np.asarray(x[name], dtype=np.float64) for name in x}), np.asarray(
                    labels
                )
            return np.asarray(x, dtype=np.float64), np.asarray(labels)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.path}: data() must give inputs and labels, got {_reason(error)}") from None

    def expected(self, folder: str | Path | None = None) -> np.ndarray:
        """Return the published outputs (n ...) of the first samples of the test set, *folder* that of the models.

        Raises DataError where there are none.
        """
        if not offers(self.module, "expected"):
            raise DataError(f"{self.name}: expected(): missing; nobody published outputs of this workload")
        return np.asarray(self.call("expected", folder))

    @property
    def has_data(self) -> bool:
        """Whether the workload comes with a test set."""
        return self.assumption is None and offers(self.module, "data")

    def call(self, name: str, *args: Any) -> Any:
        """Call a function of the `workload.py`; raises ConfigError for what goes wrong in it, in one line."""
        function: Callable[..., Any] = getattr(self.module, name)
        try:
            return function(*args)
        except ImcsimError:
            raise
        except Exception as error:  # the user's own code
            raise ConfigError(f"{self.path}: {name}() must run, got {_reason(error)}") from error


def find_workload(name_or_path: str | Path, *, assume: str | Assumption | None = None) -> Workload:
    """Return the workload of a shipped name, a folder with a `workload.py`, such a file, or an ONNX file.

    With *assume*, ``W=ternary,A=2``, its layers of real numbers have the bits that it says, and no values
    (`imcsim.graph.assumption`). Raises ConfigError where there is none, with the nearest shipped name.
    """
    if assume is not None:
        return replace(find_workload(name_or_path), assumption=parse_assumption(assume))
    text = str(name_or_path)
    shipped = shipped_folder("workloads") / text / "workload.py"
    if text in shipped_workloads():
        return Workload(text, shipped)
    path = Path(text)
    if path.is_dir() and (path / "workload.py").is_file():
        return Workload(path.resolve().name, path / "workload.py")
    if path.is_file() and path.suffix == ".py":
        return Workload(path.resolve().parent.name if path.name == "workload.py" else path.stem, path)
    if path.is_file() and path.suffix == MODEL:
        return Workload(path.stem, path)
    if path.suffix in PICKLED:
        raise ConfigError(
            f"{path}: must be a file of data alone, got one that torch unpickles, by which it could run code; write it "
            "as an .onnx file (torch.onnx.export), or load it in the build() of a workload.py"
        )
    near = difflib.get_close_matches(text, shipped_workloads(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"shipped: {', '.join(shipped_workloads())}"
    raise ConfigError(
        f"{text}: must be a shipped workload, a folder with a workload.py, a .py file or an .onnx file, got nothing "
        f"there; {hint}"
    )


def shipped_workloads() -> tuple[str, ...]:
    """Return the names of the workloads that come with imcsim."""
    return tuple(sorted(path.parent.name for path in shipped_folder("workloads").glob("*/workload.py")))


def load_workload(name_or_path: str | Path, *, assume: str | Assumption | None = None) -> Graph:
    """Return the graph of a shipped workload by its name, or of one's own by its path.

    A path is that of a folder with a `workload.py`, or of an ONNX file. With *assume*, ``W=ternary,A=2``, layers of
    real numbers have the bits that it says, for time, energy and area (`imcsim.graph.assumption`).

    Raises ConfigError where there is none, with the nearest shipped name, or its file cannot be read; GraphError for
    a network that cannot be taken; DataError where what it reads its weights from is missing.
    """
    return find_workload(name_or_path, assume=assume).graph()


def module_beside(file: str | Path, path: str) -> ModuleType:
    """Return the module in *path*, relative to the folder of *file*: code that several workloads share.

    A `workload.py` calls ``module_beside(__file__, "../reader.py")``. Raises ConfigError when it cannot be read.
    """
    found = (Path(file).resolve().parent / path).resolve()
    return _read_module(f"imcsim_workload_shared_{found.stem}", found)


def _module_of_model(name: str, path: Path, assumption: Assumption | None) -> ModuleType:
    """Return a module that offers what a `workload.py` would, for the ONNX file *path*; its graph() reads it."""

    @cache
    def graph() -> Graph:
        from imcsim.graph.qonnx import read_qonnx

        return read_qonnx(path, name=name, assume=assumption)

    def data(folder: str | Path | None = None) -> tuple[Any, Any]:
        names = [tensor.name for tensor in graph().inputs]
        if len(names) > 1:
            return load_samples(samples, names)
        x, labels = load_samples(samples)
        return x["x"], labels

    module = ModuleType(f"imcsim_model_{name}")
    samples = path.with_suffix(".npz")
    offered: dict[str, Any] = {"graph": graph, "DESCRIPTION": f"ONNX model {path.name}"}
    if samples.is_file():
        offered["data"] = data
    vars(module).update(offered)
    return module


def _read_module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImcsimError:
        raise
    except Exception as error:  # the user's own code
        sys.modules.pop(name, None)
        raise ConfigError(f"{path}: must be a module that Python can read, got {_reason(error)}") from error
    return module


def offers(module: ModuleType, function: str) -> bool:
    """Whether the module of a workload has a function of that name."""
    return callable(getattr(module, function, None))


def _samples(path: Path, arrays: dict[str, np.ndarray]) -> Samples:
    sizes = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(sizes.values())) != 1:
        got = ", ".join(f"{n} of {name}" for name, n in sizes.items())
        raise DataError(f"{path}: data() must give as many samples of each input, got {got or 'no input'}")
    return Samples(arrays)


def _reason(error: BaseException) -> str:
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
