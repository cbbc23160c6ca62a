"""What came out: one row per layer, component and action, units in the column names; totals are sums of rows."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from imcsim.errors import DataError, OutputError
from imcsim.version import __version__


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    The kind of a line is its `action`: an action of the chip (energy), ``leak`` (energy of a component while a
    layer runs), ``time`` (the latency that a layer adds; the component is the one that bounds it), ``busy`` (how
    long the busiest unit of a component works for a layer), ``area`` (a component of the chip).
    """

    chip: str
    workload: str
    engine: str
    """simulate or estimate."""

    version: str
    seed: int
    phase: str
    """inference, or setup: the writing of resident weights before the first inference."""

    layer: str
    """Name of the layer; empty for what belongs to the whole chip."""

    component: str
    action: str
    count: int
    """How often the action was done; instances for area, 1 for leak, time and busy."""

    energy_pJ: float = 0.0
    latency_ns: float = 0.0
    busy_ns: float = 0.0
    area_um2: float = 0.0
    basis: str = ""
    """How well the number behind the row is known; empty for times, which mix the numbers of many keys."""

    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What every row of a run says of the run."""

    chip: str
    workload: str
    engine: str
    seed: int
    version: str = __version__

    def row(self, **values: Any) -> Row:
        """Return a row of this run."""
        return Row(chip=self.chip, workload=self.workload, engine=self.engine, version=self.version, seed=self.seed,
                   **values)  # fmt: skip


COLUMNS = tuple(field.name for field in fields(Row))


def energy_of(rows: Iterable[Row], *, phase: str = "inference") -> float:
    """Return the energy of all *rows* of one phase, in pJ."""
    return float(sum(row.energy_pJ for row in rows if row.phase == phase))


def latency_of(rows: Iterable[Row], *, phase: str = "inference") -> float:
    """Return the latency of all *rows* of one phase, in ns: the sum of what the layers add."""
    return float(sum(row.latency_ns for row in rows if row.phase == phase))


def area_of(rows: Iterable[Row]) -> float:
    """Return the area of all *rows*, in um2."""
    return float(sum(row.area_um2 for row in rows))


def to_csv(rows: Sequence[Row]) -> str:
    """Return *rows* as CSV text with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def from_csv(text: str, where: str) -> list[Row]:
    """Return the rows of CSV *text* that `to_csv` wrote; raises DataError, naming *where*, for any other."""
    try:
        lines = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise DataError(f"{where}: must be a table that imcsim wrote, got {error}") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise DataError(f"{where}: must begin with the columns {','.join(COLUMNS)}, got {','.join((lines or [[]])[0])}")
    kinds: list[Any] = [field.type for field in fields(Row)]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(COLUMNS):
            raise DataError(f"{where}: line {number} must have {len(COLUMNS)} columns, got {len(line)}; is it cut off?")
        try:
            values = [kind(value) for kind, value in zip(kinds, line, strict=True)]
        except ValueError as error:
            raise DataError(f"{where}: line {number} must hold numbers where the column says so, got {error}") from None
        rows.append(Row(**dict(zip(COLUMNS, values, strict=True))))
    return rows


def write_whole(path: Path, content: str | bytes) -> None:
    """Write *content* under a passing name and then give it its own: nobody ever sees half a file.

    Raises OutputError when the folder cannot be written to or the disk is full; nothing is left behind then.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            part.write_text(content, encoding="utf-8")
        else:
            part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise OutputError(f"{path}: must be possible to write, got {error.strerror or error}") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
