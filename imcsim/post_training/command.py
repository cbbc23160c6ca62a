"""The whole of `imcsim quantize`: a float model to a QONNX file, its samples beside it, and how it was made."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imcsim.accuracy import is_right
from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError
from imcsim.functional.reference import reference
from imcsim.graph import Graph
from imcsim.graph.qonnx import read_qonnx
from imcsim.graph.qonnx.write import to_bytes
from imcsim.metrics import METRICS
from imcsim.post_training.evaluate import one_thread, outputs_of
from imcsim.post_training.layerwise import LayerRecord, quantize
from imcsim.post_training.settings import Settings
from imcsim.post_training.source import find_source
from imcsim.results import write_whole
from imcsim.run import execute_samples, require_writable
from imcsim.search import place_by
from imcsim.version import __version__
from imcsim.workloads import MODEL

Array = np.ndarray
Progress = Callable[[str, int, int], None]

MOST_SAMPLE_BYTES = 32 << 20
"""Test sets up to this size are written beside the model."""

N_TOGETHER = 256


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of the test samples that are put into their class."""

    n_samples: int
    original: float
    """Of the float model."""

    quantized: float
    """Of what was written, by the reference, on an ideal chip."""

    on_chip: float | None
    chip: str | None
    """The chip that was named, if one was."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What came of a post-training quantization."""

    name: str
    path: Path
    settings: Settings
    calibration: str
    """Which samples it was calibrated on, in words."""

    layers: tuple[LayerRecord, ...]
    accuracy: Accuracy | None
    """None where there are no labels."""

    samples: Path | None
    """The test set beside the model, where it is small."""

    @property
    def record(self) -> dict[str, Any]:
        """How it was made and what it gives, for a file."""
        return {
            "model": self.name,
            "version": __version__,
            "settings": asdict(self.settings),
            "calibration_samples": self.calibration,
            "layers": [asdict(layer) for layer in self.layers],
            "accuracy": None if self.accuracy is None else asdict(self.accuracy),
        }


def quantize_file(
    text: str,
    out: Path,
    settings: Settings,
    *,
    state: Path | None = None,
    data: Path | None = None,
    calibration_data: Path | None = None,
    n_samples: int | None = None,
    chip: Chip | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Quantized:
    """Quantize the model that *text* names by *settings* and write it to the ONNX file *out*.

    Beside it go its test set (``.npz``), where it has one of at most 32 MiB, and a record of all (``.json``). Accuracy
    is that of the float model, of what was written on an ideal chip, and on *chip* where one is given, over the first
    *n_samples* test samples, all by default. Raises an ImcsimError, one line, for what cannot be had.
    """
    _require_target(text, out)
    if n_samples is not None and n_samples < 1:
        raise ConfigError(f"samples: must be at least 1, got {n_samples}")
    with one_thread():
        source = find_source(
            text,
            n_samples=settings.n_samples,
            seed=settings.seed,
            state=state,
            data=data,
            calibration_data=calibration_data,
        )
        x = source.x[:n_samples] if source.x is not None else None
        labels = source.labels[:n_samples] if source.labels is not None else None
        model, layers = quantize(source.model, source.calibration, settings, progress=progress)
        plain = None
        if x is not None and labels is not None:
            plain = float(np.mean(is_right(outputs_of(source.model, x), labels, source.name)))
    write_whole(out, to_bytes(model))
    graph = read_qonnx(out)
    x = x.reshape(len(x), *graph.input.shape) if x is not None else None  # a sequence is an image of one row
    accuracy = None
    if plain is not None and x is not None and labels is not None:
        lossy = float(np.mean(is_right(_outputs(graph, x, progress), labels, source.name)))
        on_chip = None if chip is None else _on_chip(graph, chip, x, labels, settings.seed, progress)
        accuracy = Accuracy(
            n_samples=len(x),
            original=plain,
            quantized=lossy,
            on_chip=on_chip,
            chip=None if chip is None else chip.name,
        )
    samples = None
    if x is not None and labels is not None and x.nbytes <= MOST_SAMPLE_BYTES:
        samples = out.with_suffix(".npz")
        write_whole(samples, _npz(x, labels))
    made = Quantized(
        name=source.name,
        path=out,
        settings=settings,
        calibration=source.calibration_from,
        layers=layers,
        accuracy=accuracy,
        samples=samples,
    )
    record = {"command": command} | made.record
    write_whole(out.with_suffix(".json"), json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return made


def _require_target(text: str, out: Path) -> None:
    if out.suffix != MODEL:
        raise ConfigError(f"out: must be a file that ends in {MODEL}, got {out}")
    if Path(text).is_file() and out.exists() and Path(text).samefile(out):
        raise ConfigError(f"out: must be another file than the float model, got {out}")
    require_writable(out.parent)


def _outputs(graph: Graph, x: Array, progress: Progress | None) -> Array:
    parts = []
    for start in range(0, len(x), N_TOGETHER):
        parts.append(reference(graph, x[start : start + N_TOGETHER]))
        if progress is not None:
            progress("reference", min(start + N_TOGETHER, len(x)), len(x))
    return np.concatenate(parts)


def _on_chip(graph: Graph, chip: Chip, x: Array, labels: Array, seed: int, progress: Progress | None) -> float:
    plan = place_by(None, graph, chip, seed=seed)
    outcome = execute_samples(plan, x, labels, metric=METRICS["accuracy"], seed=seed, progress=progress)
    return float(np.mean(outcome.chip.right))


def _npz(x: Array, labels: Array) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, x=x, labels=labels)
    return content.getvalue()
