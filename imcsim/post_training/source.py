"""What is to be quantized, and on which samples: a workload, an ONNX file, or a torch module in a Python file.

Nothing that is pickled is read: weights come from safetensors files, samples from npz files.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from imcsim.data import load_inputs
from imcsim.errors import ConfigError, DataError, GraphError, ImcsimError
from imcsim.graph.exported import export, model_of
from imcsim.graph.qonnx.file import read_file
from imcsim.graph.qonnx.model import Model
from imcsim.workloads import MODEL, Workload, find_workload, offers

Array = np.ndarray

SAMPLES = ".npz"


@dataclass(frozen=True, eq=False)
class Source:
    """A float model with the samples that it is quantized by, and those that it is judged by."""

    name: str
    model: Model

    calibration: Array
    """(n ...), float32."""

    calibration_from: str
    """Where these samples are from, in words."""

    x: Array | None
    """The test set (n ...), none of which is a calibration sample unless they were given; None where there is none."""

    labels: Array | None
    """(n); None where the samples have none."""


def find_source(
    text: str,
    *,
    n_samples: int,
    seed: int = 0,
    state: Path | None = None,
    data: Path | None = None,
    calibration_data: Path | None = None,
) -> Source:
    """Return the model that *text* names, with *n_samples* calibration samples drawn by *seed*, and its test set.

    Args:
        text: A workload's name or path, an ONNX file, or ``FILE.py:NAME`` or ``PACKAGE.MODULE:NAME``, where the name is
            a class or a function without arguments that gives a torch module.
        n_samples: How many samples to draw; all where there are fewer.
        seed: Of the draw.
        state: A safetensors file with the weights of such a module.
        data: The folder of data sets of a workload; or an npz file with x (n ...) and perhaps labels (n).
        calibration_data: An npz file with x, in place of what the workload offers.

    Without calibration samples of their own, the test set's first ones are taken from it: nothing is judged by what it
    was fitted to. Raises ConfigError, DataError or GraphError, one line, for what cannot be had.
    """
    builder = _builder_of(text)
    workload = find_workload(text) if builder is None else None
    if state is not None and builder is None:
        raise ConfigError(f"state: must go with a module, FILE.py:NAME, got {text}; the others hold their weights")
    name = workload.name if workload is not None else text.rpartition(":")[2]
    folder, file = (None, data) if data is not None and data.suffix == SAMPLES else (data, None)
    x, labels = _test_set(workload, name, folder, file)
    drawn, said = _calibration(workload, name, folder, calibration_data)
    if drawn is None:
        if x is None:
            raise DataError(
                f"{name}: calibration samples must be there, got none; give --data FILE.npz with x, or "
                "--calibration-data"
            )
        n_taken = min(n_samples, len(x))
        drawn, said = x[:n_taken], f"the first {n_taken} samples of the test set, which is judged without them"
        x, labels = x[n_taken:], labels[n_taken:] if labels is not None else None
    elif len(drawn) > n_samples:
        picks = np.sort(np.random.default_rng(seed).choice(len(drawn), n_samples, replace=False))
        drawn, said = drawn[picks], f"{n_samples} of {len(drawn)} {said}"
    if builder is not None:
        model = _model_of(_built(builder, text, state), _tensor(drawn[:1]), name)
    else:
        assert workload is not None
        model = _model_of_workload(workload)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise GraphError(
            f"{name}: must have one input and one output to be quantized, got {len(model.inputs)} and "
            f"{len(model.outputs)}"
        )
    shape = model.inputs[0].shape[1:]
    for what, samples in (("calibration samples", drawn), ("test samples", x)):
        if samples is not None:
            _require_fit(samples, shape, f"{name}: {what}")
    if labels is not None and x is not None and len(labels) != len(x):
        raise DataError(f"{name}: there must be as many labels as test samples, got {len(labels)} and {len(x)}")
    is_empty = x is None or len(x) == 0
    return Source(name, model, drawn, said, None if is_empty else x, None if is_empty else labels)


def _require_fit(samples: Array, shape: tuple[int, ...], where: str) -> None:
    if samples.shape[1:] != shape:
        raise DataError(f"{where} must have shape (n, {', '.join(map(str, shape))}), got {samples.shape}")
    wrong = ~np.isfinite(samples)
    if np.any(wrong):
        raise DataError(f"{where} must be finite, got {samples[wrong].flat[0]}")


# --- samples --------------------------------------------------------------------------------------------------------


def _test_set(
    workload: Workload | None, name: str, folder: Path | None, file: Path | None
) -> tuple[Array | None, Array | None]:
    beside = workload.path.with_suffix(SAMPLES) if workload is not None and workload.path.suffix == MODEL else None
    file = beside if file is None and beside is not None and beside.is_file() else file
    if file is not None:
        inputs, labels = load_inputs(file)
        return _float32(inputs["x"], str(file)), labels
    if workload is None or beside is not None or not workload.has_data:
        return None, None
    x, labels = workload.data(folder)
    return _float32(x, name), labels


def _calibration(
    workload: Workload | None, name: str, folder: Path | None, file: Path | None
) -> tuple[Array | None, str]:
    """Return the samples that are for calibration alone, None where there are none, and what they are."""
    if file is not None:
        return _float32(load_inputs(file)[0]["x"], str(file)), f"samples of {file.name}"
    if workload is None:
        return None, ""
    if offers(workload.module, "calibration"):
        found = workload.call("calibration", folder)
        return _float32(found[0] if isinstance(found, tuple | list) else found, f"{name}: calibration()"), (
            "samples of calibration()"
        )
    if offers(workload.module, "split"):
        return _float32(workload.call("split", "train", folder)[0], f"{name}: split()"), "training samples"
    return None, ""


def _float32(samples: Any, where: str) -> Array:
    try:
        found = np.asarray(samples, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{where}: samples must be an array of numbers (n ...), got: {reason}") from None
    if found.ndim < 2 or len(found) == 0:
        raise DataError(f"{where}: samples must be an array of numbers (n ...), got shape {found.shape}")
    return found


# --- models ---------------------------------------------------------------------------------------------------------


def _model_of_workload(workload: Workload) -> Model:
    if workload.path.suffix == MODEL:
        return read_file(workload.path)
    for needed in ("build", "example_input"):
        if not offers(workload.module, needed):
            raise ConfigError(f"{workload.path}: {needed}(): missing; a workload that is quantized needs it")
    return _model_of(workload.call("build"), workload.call("example_input"), workload.name)


def _model_of(module: Any, example: Any, name: str) -> Model:
    if not isinstance(module, nn.Module):
        raise GraphError(f"{name}: must be a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(example, torch.Tensor):
        raise GraphError(f"{name}: example input must be a tensor, got {type(example).__name__}")
    return model_of(export(module, (example,), name), name=name)


def _tensor(samples: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples))


def _builder_of(text: str) -> Callable[[], Any] | None:
    """Return the class or function that ``FILE.py:NAME`` or ``PACKAGE.MODULE:NAME`` names; None for another text."""
    where, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        return None
    is_file = where.endswith(".py")
    if not is_file and not all(part.isidentifier() for part in where.split(".")):
        return None
    if is_file and not Path(where).is_file():
        raise ConfigError(f"{where}: must be a Python file, got nothing there")
    try:
        module = _module_in(Path(where)) if is_file else importlib.import_module(where)
    except ImcsimError:
        raise
    except Exception as error:  # the user's own code
        raise ConfigError(f"{where}: must be a module that Python can read, got {_reason(error)}") from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ConfigError(f"{where}: {name}: must be a class or function that gives a torch module, got none")
    builder: Callable[[], Any] = found
    return builder


def _module_in(path: Path) -> Any:
    name = f"imcsim_model_{path.stem.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _built(builder: Callable[[], Any], text: str, state: Path | None) -> nn.Module:
    """Return the module with the weights in *state*, in evaluation mode."""
    try:
        module = builder()
    except Exception as error:  # the user's own code
        raise ConfigError(f"{text}: must run without arguments, got {_reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise GraphError(f"{text}: must give a torch.nn.Module, got {type(module).__name__}")
    if state is not None:
        if state.suffix != ".safetensors":
            raise ConfigError(
                f"state: must be a .safetensors file, got {state}; safetensors.torch.save_file(net.state_dict(), FILE) "
                "writes one, and pickles are not read"
            )
        try:
            module.load_state_dict(load_file(state))
        except (SafetensorError, OSError, RuntimeError) as error:
            raise DataError(f"{state}: must hold the weights of {text}, got {_reason(error)}") from None
    return module.eval()


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__
