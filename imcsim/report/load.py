"""A run folder, read back and checked: summary, rows, and the spans of a simulation."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from imcsim.arch.spec import Basis
from imcsim.errors import DataError
from imcsim.report.parts import (
    AblationSummary,
    Difference,
    LayerErrorsSummary,
    NotNegative,
    Number,
    Part,
    RequestsSummary,
    Share,
    TrialsSummary,
)
from imcsim.report.time_parts import TimeSummary, parse_path
from imcsim.results import COLUMNS, Row, energy_of, from_csv, latency_of

if TYPE_CHECKING:
    import pandas as pd  # a terminal does without

SPAN_COLUMNS = ("task", "layer", "unit", "component", "start_ns", "end_ns", "busy_ns")
_SPAN_NUMBERS = 3

_SAME = 1e-6
"""Relative difference up to which the rows of an engine add up to the total in the summary: both are sums of floats."""


class Totals(Part):
    """What one engine says of one inference."""

    latency_ns: NotNegative
    energy_pJ: NotNegative


class EstimateTotals(Totals):
    """What the formulas say, with the bounds of the simulated time."""

    least_ns: NotNegative
    greatest_ns: NotNegative
    throughput_per_s: NotNegative | None = None
    """Inferences where requests never run out; None in a summary of an earlier version."""

    throughput_bound_by: str = ""
    """The unit or the layer that sets it."""


class Accuracy(Part):
    """Task accuracy of the reference and of the chip on the same samples."""

    reference: Share
    chip: Share
    n_samples: Number
    n_clipped_accesses: Number
    n_accesses: Number
    n_clipped_conversions: Number = 0
    n_conversions: Number = 0
    difference: Difference | None = None
    """Chip less reference; None in a summary of an earlier version."""


class Perplexity(Part):
    """Perplexity of the reference and of the chip over the same tokens."""

    reference: NotNegative
    chip: NotNegative
    n_tokens: Number


class Check(Part):
    """The outputs of `execute` against those of the reference."""

    exact: bool
    n_outputs: Number
    n_different: Number
    n_different_classes: Number | None = None
    """Samples whose greatest output is another one than the reference's."""


class OccupancySummary(Part):
    """What the bitlines of a layer held, from a sample of the reads."""

    n: list[Number]
    """Reads of n by count, from 0."""

    k: list[Number]
    zero_products: Share
    relative_energy: NotNegative
    """Energy of a column read, relative to that of the chip file."""


class AssumedSummary(Part):
    """What of the network was assumed, and not told by a model."""

    bits: str
    """As ``--assume`` takes them."""

    basis: Basis
    """What the bits rest on: nothing but this."""

    weights: list[str]
    """Layers whose weights have assumed bits."""

    inputs: list[str]
    """Layers that read codes of assumed bits."""

    n_products: Number
    """Layers with weights in all."""


class LayerSummary(Part):
    """How one layer was mapped, and what execution found."""

    name: str
    kind: str
    """conv2d, linear, digital or host."""

    input: str = ""
    shape: str = ""
    """Of the output."""

    input_format: str = ""
    output_format: str = ""
    n_macs: Number = 0
    n_weights: Number = 0
    weight_planes: Number = 0
    activation_planes: Number = 0
    zero_weights: Share | None = None
    n_rows: Number = 0
    n_columns: Number = 0
    n_groups: Number = 0
    n_row_chunks: Number = 0
    n_replicas: Number = 0
    n_rounds: Number = 0
    n_tiles: Number = 0
    utilization: Share | None = None
    """Share of the cells of its tiles that hold a weight."""

    n_accesses_per_inference: Number | None = None
    n_accesses: Number | None = None
    """Of all samples that were executed; None, like the rest below, where nothing was."""

    n_clipped_accesses: Number | None = None
    n_idle_accesses: Number | None = None
    """Those that drive no input."""

    n_conversions: Number | None = None
    n_clipped_conversions: Number | None = None
    occupancy: OccupancySummary | None = None
    reference_differs: Number | None = None
    """Outputs that differ from the reference's."""


class Summary(Part):
    """``summary.json``."""

    workload: str
    chip: str
    seed: int
    version: str
    engine: str = ""
    command: str = ""
    style: Literal["spatial", "temporal", "pipelined", ""] = ""
    n_tiles: Number = 0
    chip_kind: str = ""
    """Empty in a summary of an earlier version, which knew chips with PCUs alone."""

    skips_zero_blocks: bool = False
    """Whether the chip leaves accesses out that drive no input."""

    batch: Annotated[int, Field(ge=1)] = 1
    """Samples that one inference takes together."""

    simulate: Totals | None = None
    estimate: EstimateTotals | None = None
    setup: Totals | None = None
    area_um2: NotNegative | None = None
    basis: dict[Basis, Share] | None = None
    basis_area: dict[Basis, Share] | None = None
    accuracy: Accuracy | None = None
    perplexity: Perplexity | None = None
    check: Check | None = None
    has_values: bool = True
    """Whether the workload has weights; one that is told by its shapes alone has no outputs."""

    assumed: AssumedSummary | None = None
    trials: TrialsSummary | None = None
    layer_errors: LayerErrorsSummary | None = None
    ablation: AblationSummary | None = None
    time: TimeSummary | None = None
    requests: RequestsSummary | None = None
    layers: Annotated[tuple[LayerSummary, ...], Field(strict=False)] = ()
    chip_description: str = ""
    energy_interval_pJ: Annotated[tuple[NotNegative, NotNegative], Field(strict=False)] | None = None

    @property
    def has_adcs(self) -> bool:
        """Whether the chip reads counts, which may clip; a near-memory chip reads words."""
        return self.chip_kind != "near-memory"

    @property
    def n_macs(self) -> int:
        """Multiply-adds of one inference, the whole batch."""
        return self.batch * sum(layer.n_macs for layer in self.layers)


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What one run left behind."""

    folder: Path
    summary: Summary
    rows: tuple[Row, ...]
    spans: "pd.DataFrame | None"
    """Columns `SPAN_COLUMNS`, a line for each task; None when the run was not simulated."""

    path: "pd.DataFrame | None" = None
    """Columns `PATH_COLUMNS`, a line for each segment of the critical path; None when the time was not explained."""

    @cached_property
    def frame(self) -> "pd.DataFrame":
        """The rows as a table."""
        return to_frame(self.rows)


def read_run(folder: str | Path) -> RunFolder:
    """Return what the run *folder* holds.

    Raises DataError when a file is missing, cut off or malformed, or when rows and summary do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: must be the folder of a run, got {found}; imcsim run --out makes one")
    summary = parse_summary(read_text(folder / "summary.json"), str(folder / "summary.json"))
    rows = _rows(folder / "rows.csv")
    for engine, totals in (("simulate", summary.simulate), ("estimate", summary.estimate)):
        if totals is not None:
            _require_sums([row for row in rows if row.engine == engine], totals, engine, folder / "rows.csv")
    spans = None if summary.simulate is None else _spans(folder / "spans.csv")
    path = None
    if summary.time is not None:
        path = parse_path(_read_csv(folder / "critical_path.csv"), str(folder / "critical_path.csv"))
    return RunFolder(folder, summary, tuple(rows), spans, path)


def to_frame(rows: Sequence[Row]) -> "pd.DataFrame":
    """Return *rows* as a table with the columns of `Row`."""
    import pandas as pd

    return pd.DataFrame({name: [getattr(row, name) for row in rows] for name in COLUMNS}, columns=list(COLUMNS))


def parse_summary(text: str, where: str) -> Summary:
    """Return the summary in JSON *text*; raises DataError, naming *where*, when it is none."""
    try:
        tree = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: must be JSON, got {error}; is it cut off?") from None
    if not isinstance(tree, dict):
        raise DataError(f"{where}: must be an object with the keys of a summary, got {type(tree).__name__}")
    return check_summary(tree, where)


def check_summary(tree: Mapping[str, Any], where: str) -> Summary:
    """Return the summary that *tree* says; raises DataError, naming *where*, for the first field that is wrong."""
    try:
        return Summary.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "missing":
            raise DataError(f"{where}: {key}: must be there, got nothing; run again to write it anew") from None
        must = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        raise DataError(f"{where}: {key}: must be {must}, got {problem['input']!r}") from None


def read_text(path: Path) -> str:
    """Return the text of a file of a run; raises DataError where it is not there or is no text."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: must be there, got no such file; imcsim run --out writes it") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text, got byte {error.object[error.start]:#04x}") from None
    except OSError as error:
        raise DataError(f"{path}: must be possible to read, got {error.strerror}") from None


def _read_csv(path: Path) -> str:
    text = read_text(path)
    if not text.endswith("\n"):
        raise DataError(f"{path}: must end with a whole line, got {text[-20:]!r}; is it cut off?")
    return text


def _rows(path: Path) -> list[Row]:
    text = _read_csv(path)
    try:
        rows = from_csv(text, str(path))
    except csv.Error as error:
        raise DataError(f"{path}: must be CSV, got {error}") from None
    for number, row in enumerate(rows, start=2):
        values = (row.energy_pJ, row.latency_ns, row.busy_ns, row.area_um2)
        if not all(math.isfinite(value) and value >= 0 for value in values):
            raise DataError(f"{path}: row {number} must hold finite numbers from 0, got {values}")
    return rows


def _require_sums(rows: Sequence[Row], totals: Totals, engine: str, path: Path) -> None:
    for what, unit, total, stated in (
        ("latency", "ns", latency_of(rows), totals.latency_ns),
        ("energy", "pJ", energy_of(rows), totals.energy_pJ),
    ):
        if not math.isclose(total, stated, rel_tol=_SAME, abs_tol=_SAME):
            raise DataError(
                f"{path}: the {what} of engine {engine} must add up to summary.json's {stated:g} {unit}, "
                f"got {total:g} {unit}; is it cut off, or of another run?"
            )


def _spans(path: Path) -> "pd.DataFrame":
    import pandas as pd

    text = _read_csv(path)
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise DataError(f"{path}: must be CSV, got {error}") from None
    if not lines or tuple(lines[0]) != SPAN_COLUMNS:
        got = ",".join((lines or [[]])[0])
        raise DataError(f"{path}: must begin with the columns {','.join(SPAN_COLUMNS)}, got {got}")
    names: list[list[str]] = []
    times: list[list[float]] = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(SPAN_COLUMNS):
            raise DataError(f"{path}: line {number} must have {len(SPAN_COLUMNS)} columns, got {len(line)}")
        try:
            start_ns, end_ns, busy_ns = (float(value) for value in line[-_SPAN_NUMBERS:])
        except ValueError as error:
            raise DataError(f"{path}: line {number} must end with three numbers, got {error}") from None
        if not (0 <= start_ns <= end_ns < math.inf and 0 <= busy_ns < math.inf):
            raise DataError(f"{path}: line {number} must end no earlier than it starts, got {start_ns} to {end_ns}")
        names.append(line[:-_SPAN_NUMBERS])
        times.append([start_ns, end_ns, busy_ns])
    frame = pd.DataFrame(names, columns=list(SPAN_COLUMNS[:-_SPAN_NUMBERS]), dtype=object)
    for column, values in zip(
        SPAN_COLUMNS[-_SPAN_NUMBERS:], zip(*times, strict=True) if times else ((),) * 3, strict=True
    ):
        frame[column] = pd.Series(values, dtype=float)
    return frame
