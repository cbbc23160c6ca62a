"""The folder of a sweep, read and checked: its summary, its points column by column, and the roofline of its chip."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from imcsim.analytic.roofline import RooflineRow, from_csv
from imcsim.errors import DataError
from imcsim.report.load import read_text
from imcsim.report.parts import NotNegative, Number, Part

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

STATUSES = {
    "done": "has all figures that were asked for",
    "dropped": "did not go on to the next stage",
    "infeasible": "does not keep to a constraint on its figures",
    "failed": "could not be evaluated; the message says why",
    "pruned": "was given up by the search before its last engine",
    "pending": "has not been evaluated yet",
}


class ObjectiveSummary(Part):
    """One objective."""

    name: str
    """As the user wrote it."""

    figure: str
    """The figure it is, with its unit."""

    is_maximized: bool = False


class SearchSummary(Part):
    """What a search says of itself."""

    sampler: str = ""
    evaluations: Number | None = None
    history: Annotated[tuple[Annotated[tuple[Number, NotNegative], Field(strict=False)], ...], Field(strict=False)] = ()
    """Pairs of evaluations and the hypervolume behind them."""

    importances: dict[str, dict[str, NotNegative]] = Field(default_factory=dict)
    """For each objective the parameters' shares of its variance."""


class SweepSummary(Part):
    """``sweep.json``, as far as a report reads it."""

    name: str
    description: str = ""
    chip: str
    chip_text: str = ""
    """The base chip as a file."""

    workload: str | None = None
    workloads: Annotated[tuple[str, ...], Field(strict=False)] = ()
    assume: str = ""
    """Bits that are assumed of networks of real numbers."""

    objectives: Annotated[tuple[ObjectiveSummary, ...], Field(strict=False)]
    parameters: Annotated[tuple[str, ...], Field(strict=False)]
    stages: Annotated[tuple[Any, ...], Field(strict=False)] = ()
    seed: int = 0
    version: str = ""
    search: SearchSummary | None = None

    @property
    def all_workloads(self) -> tuple[str, ...]:
        """What was run."""
        return self.workloads or ((self.workload,) if self.workload else ())


@dataclass(frozen=True, eq=False)
class Parameter:
    """What a sweep varied, and the values that the points have."""

    name: str
    kind: Literal["number", "bool", "text"]
    different: NDArray[Any]
    """The different values, ascending."""

    codes: Codes
    """Which of them each point has (n); -1 where it does not have the parameter."""

    @property
    def n_levels(self) -> int:
        """How many different values there are."""
        return len(self.different)

    @cached_property
    def levels(self) -> tuple[Any, ...]:
        """The different values in Python's own types."""
        return tuple(self.different.tolist())

    @cached_property
    def values(self) -> Floats:
        """The points' numbers, or the places of their texts among the levels (n); NaN where there is none."""
        numbers = self.different if self.kind == "number" else np.arange(self.n_levels)
        return np.append(numbers.astype(float), np.nan)[self.codes]

    @cached_property
    def is_log(self) -> bool:
        """Whether its numbers are better told apart by their ratios: they span 15 times, or grow by factors."""
        if self.kind != "number" or self.n_levels < 3:
            return False
        levels = self.different.astype(float)
        return spans_decades(levels) or grows_by_factors(levels)


@dataclass(frozen=True, eq=False)
class SweepFolder:
    """What one sweep left behind."""

    folder: Path
    summary: SweepSummary
    frame: pd.DataFrame
    """A line for each point, as ``points.csv`` has it."""

    rooflines: tuple[RooflineRow, ...] = ()

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What was varied, in the order of the sweep file."""
        return tuple(parameter_of(name, self.frame[name]) for name in self.summary.parameters)

    @cached_property
    def objectives(self) -> tuple[Floats, ...]:
        """The points' figures, objective by objective (n each); NaN where a point has none."""
        found = []
        for objective in self.summary.objectives:
            values = self.frame[objective.name].to_numpy(dtype=float)
            found.append(np.where(np.isfinite(values), values, np.nan))
        return tuple(found)

    @cached_property
    def on_front(self) -> NDArray[np.bool_]:
        """Which points no other is better than in every objective (n)."""
        return self.frame["on_front"].to_numpy(dtype=bool)

    @cached_property
    def numbers(self) -> NDArray[np.int64]:
        """What the sweep calls each point (n)."""
        return self.frame["point"].to_numpy(dtype=np.int64)


def spans_decades(values: Floats) -> bool:
    """Whether all *values* are above 0 and the greatest is more than 15 times the least.

    >>> spans_decades(np.array([1.0, 64.0])), spans_decades(np.array([0.0, 64.0]))
    (True, False)
    """
    values = values[np.isfinite(values)]
    return bool(len(values) and values.min() > 0 and values.max() > 15 * values.min())


def grows_by_factors(levels: Floats) -> bool:
    """Whether ascending *levels* above 0 lie more evenly by their ratios than by their differences.

    >>> grows_by_factors(np.array([8.0, 16.0, 32.0])), grows_by_factors(np.array([4.0, 6.0, 8.0, 12.0]))
    (True, False)
    """
    if levels[0] <= 0 or levels[-1] < 4 * levels[0]:
        return False
    differences, ratios = np.diff(levels), np.diff(np.log(levels))
    return bool(ratios.std() / ratios.mean() < 0.5 * differences.std() / differences.mean())


def parameter_of(name: str, column: pd.Series) -> Parameter:
    """Return a column of the table as a parameter: numbers, booleans, or, where not all are either, texts."""
    there = column.dropna()
    if pd.api.types.is_bool_dtype(there.dtype) or (len(there) and {type(value) for value in there.unique()} == {bool}):
        kind: Literal["number", "bool", "text"] = "bool"
    elif pd.api.types.is_numeric_dtype(there.dtype):
        kind = "number"
    else:
        kind = "text"
    codes, found = pd.factorize(column, use_na_sentinel=True)
    levels = np.asarray(found)
    if kind == "text":
        kind, levels = _numbers_or_texts(levels)
    elif kind == "number" and np.issubdtype(levels.dtype, np.floating) and (levels == np.floor(levels)).all():
        levels = levels.astype(np.int64)  # whole numbers in a column with blanks are floats there
    order = np.argsort(levels, kind="stable")
    place = np.empty(len(levels) + 1, dtype=np.int64)
    place[order], place[-1] = np.arange(len(levels)), -1
    return Parameter(name, kind, levels[order], place[codes])


def _numbers_or_texts(levels: NDArray[Any]) -> tuple[Literal["number", "text"], NDArray[Any]]:
    """Return different values of a column of texts as numbers, where all are numbers, or as texts."""
    numbers = pd.to_numeric(pd.Series(levels), errors="coerce")
    if len(levels) and numbers.notna().all():
        return "number", numbers.to_numpy()
    return "text", np.array([str(level) for level in levels], dtype=object)


def is_sweep(folder: str | Path) -> bool:
    """Whether *folder* holds a sweep rather than a run."""
    return (Path(folder) / "sweep.json").is_file()


def read_sweep(folder: str | Path) -> SweepFolder:
    """Return what the sweep *folder* holds.

    Raises DataError when a file is missing, cut off or malformed, or when table and summary do not belong together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: must be the folder of a sweep, got {found}; imcsim sweep --out makes one")
    summary = parse_sweep(read_text(folder / "sweep.json"), str(folder / "sweep.json"))
    frame = _points(folder, summary)
    path = folder / "roofline.csv"
    rooflines = from_csv(read_text(path), str(path)) if path.is_file() else []
    return SweepFolder(folder, summary, frame, tuple(rooflines))


def parse_sweep(text: str, where: str) -> SweepSummary:
    """Return the summary in JSON *text*; raises DataError, naming *where*, when it is none."""
    try:
        return SweepSummary.model_validate(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: must be JSON, got {error}; is it cut off?") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(step) for step in problem["loc"]) or "all of it"
        if problem["type"] == "missing":
            raise DataError(f"{where}: {key}: must be there, got nothing; sweep again to write it anew") from None
        must = problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
        raise DataError(f"{where}: {key}: must be {must}, got {str(problem['input'])[:80]!r}") from None


def _points(folder: Path, summary: SweepSummary) -> pd.DataFrame:
    parquet, csv = folder / "points.parquet", folder / "points.csv"
    path = parquet if parquet.is_file() else csv
    if not path.is_file():
        raise DataError(f"{csv}: must be there, got no such file; imcsim sweep --out writes it")
    try:
        frame = pd.read_parquet(path) if path == parquet else pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        first, *_ = str(error).splitlines() or [""]
        raise DataError(f"{path}: must be a table of points, got {first}; is it cut off?") from None
    wanted = ["point", *summary.parameters, *(each.name for each in summary.objectives), "engine", "status",
              "on_front", "message"]  # fmt: skip
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise DataError(f"{path}: must have the columns of sweep.json, got none called {', '.join(missing)}")
    if frame["point"].isna().any() or not pd.api.types.is_integer_dtype(frame["point"].dtype):
        raise DataError(f"{path}: point: must be a whole number in every line, got another")
    for name in (each.name for each in summary.objectives):
        try:
            frame[name] = pd.to_numeric(frame[name]).astype(float)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: {name}: must be a number in every line, got {error}") from None
    unknown = sorted(set(frame["status"].dropna().astype(str).unique()) - set(STATUSES)) or (
        ["nothing"] if frame["status"].isna().any() else []
    )
    if unknown:
        raise DataError(f"{path}: status: must be among {', '.join(STATUSES)}, got {', '.join(unknown)}")
    frame["on_front"] = _flags(frame["on_front"], path)
    return frame


def _flags(column: pd.Series, path: Path) -> pd.Series:
    """Return the column `on_front` as booleans; a blank is false."""
    if pd.api.types.is_bool_dtype(column.dtype):
        return column.fillna(False).astype(bool)
    texts = column.fillna("false").astype(str).str.lower()
    if not texts.isin(["true", "false"]).all():
        raise DataError(f"{path}: on_front: must be true or false in every line, got another")
    return texts == "true"
