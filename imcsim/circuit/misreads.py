"""How often a count is misread: a table by count, given by Monte Carlo or by a user's file.

A file is CSV with the header ``n,lower,higher`` and a line for each n from 0, or YAML with two lists::

    lower: [0, 1.0e-6, 2.0e-5]
    higher: [1.0e-7, 3.0e-6, 0]
"""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from imcsim.arch.spec import Circuit
from imcsim.circuit.bitline import Array, binomial
from imcsim.errors import DataError
from imcsim.records import Record, frozen_array

GREATEST_FILE_BYTES = 1 << 20
COLUMNS = ("n", "lower", "higher")


@dataclass(frozen=True, eq=False, kw_only=True)
class ErrorTable(Record):
    """Probability of reading a count too low or too high, by count; raises DataError where it cannot be one."""

    lower: Array
    """Probability that n is read as n - 1 (n), from n = 0."""

    higher: Array
    """Probability that n is read as n + 1 (n)."""

    lower_error: Array = ()  # type: ignore[assignment]
    """Standard error of `lower` (n); 0 where it is not known."""

    higher_error: Array = ()  # type: ignore[assignment]
    n_samples: int = 0
    """Samples behind each probability; 0 for a table that was given."""

    seed: int | None = None
    source: str = "error table"
    """File or method; the beginning of every message."""

    def __post_init__(self) -> None:
        for name in ("lower", "higher", "lower_error", "higher_error"):
            values = getattr(self, name)
            if name.endswith("_error") and not len(values):
                values = np.zeros(len(self.lower))
            try:
                array = frozen_array(values, float)
            except (TypeError, ValueError):
                raise DataError(f"{self.source}: {name}: must be a list of numbers, got {_short(values)}") from None
            if array.ndim != 1 or not len(array):
                raise DataError(f"{self.source}: {name}: must be a list of numbers, got shape {array.shape}")
            object.__setattr__(self, name, array)
        n = len(self.lower)
        for name in ("higher", "lower_error", "higher_error"):
            if len(getattr(self, name)) != n:
                raise DataError(
                    f"{self.source}: {name}: must have as many entries as lower ({n}), got {len(getattr(self, name))}"
                )
        self._check_values()

    def _check_values(self) -> None:
        for name in ("lower", "higher"):
            array = getattr(self, name)
            for n in np.flatnonzero(~((array >= 0) & (array <= 1))):
                raise DataError(f"{self.source}: n={n}: {name} must be a probability from 0 to 1, got {array[n]:g}")
        if self.lower[0] > 0:
            raise DataError(f"{self.source}: n=0: lower must be 0, got {self.lower[0]:g}; no count is less than 0")
        for n in np.flatnonzero(self.lower + self.higher > 1 + 1e-12):
            raise DataError(
                f"{self.source}: n={n}: lower + higher must be at most 1, got {self.lower[n] + self.higher[n]:g}"
            )

    @property
    def probabilities(self) -> Array:
        """P(read lower), P(read right), P(read higher) (n 3); each row adds up to 1."""
        return np.stack([self.lower, 1 - self.lower - self.higher, self.higher], axis=1)

    def clipped(self, count_max: int) -> "ErrorTable":
        """Return the table of an ADC that reads min(n, count_max): what lies above reads as count_max, right or not."""
        n = np.arange(len(self.lower))
        lower, higher = n <= count_max, n < count_max
        return self._with(self.lower * lower, self.higher * higher, self.lower_error * lower,
                          self.higher_error * higher)  # fmt: skip

    def upto(self, count_max: int) -> "ErrorTable":
        """Return the rows 0 .. count_max of `clipped`, for those who look up the clipped count.

        A count above *count_max* then meets the row of *count_max*, which is misread more often than it.
        """
        rows = slice(0, count_max + 1)
        table = self.clipped(count_max)
        return table._with(table.lower[rows], table.higher[rows], table.lower_error[rows], table.higher_error[rows])

    def total(self, occupancy: ArrayLike) -> float:
        """Return P_E, the probability that a read is wrong, where n occurs as often as *occupancy* (n) says.

        *occupancy* is a histogram or probabilities, from n = 0; divided by its sum here. Beyond the table it must be 0.
        """
        share = self._share(occupancy)
        return float(share @ (self.lower + self.higher))

    def total_error(self, occupancy: ArrayLike) -> float:
        """Return the standard error of `total`."""
        share = self._share(occupancy)
        return float(np.sqrt(share**2 @ (self.lower_error**2 + self.higher_error**2)))

    def draw(self, counts: ArrayLike, rng: np.random.Generator) -> Array:
        """Return what is read for whole-number *counts* of any shape, each drawn independently."""
        counts = np.asarray(counts)
        u = rng.random(counts.shape)
        return counts - (u < self.lower[counts]) + (u >= 1 - self.higher[counts])

    def to_csv(self) -> str:
        """Return the table as CSV text, which `read_table` reads."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, "lower_error", "higher_error"])
        for n in range(len(self.lower)):
            values = (self.lower, self.higher, self.lower_error, self.higher_error)
            writer.writerow([n, *(float(each[n]) for each in values)])
        return text.getvalue()

    def _share(self, occupancy: ArrayLike) -> Array:
        share = occupancy_of(occupancy)
        if share[len(self.lower) :].any():
            raise DataError(
                f"occupancy: must be 0 above n={len(self.lower) - 1}, the last of the error table, "
                f"got {len(share)} entries"
            )
        return np.pad(share[: len(self.lower)], (0, max(0, len(self.lower) - len(share))))

    def _with(self, lower: Array, higher: Array, lower_error: Array, higher_error: Array) -> "ErrorTable":
        return ErrorTable(
            lower=lower, higher=higher, lower_error=lower_error, higher_error=higher_error,
            n_samples=self.n_samples, seed=self.seed, source=self.source,
        )  # fmt: skip


def occupancy_of(histogram: ArrayLike) -> Array:
    """Return the probabilities of a histogram of counts (n), from n = 0.

    >>> occupancy_of([6, 3, 1])
    array([0.6, 0.3, 0.1])
    """
    try:
        array = np.array(histogram, dtype=float)
    except (TypeError, ValueError):
        raise DataError(f"occupancy: must be a list of numbers, got {_short(histogram)}") from None
    if array.ndim != 1 or not len(array):
        raise DataError(f"occupancy: must be a list of numbers, got shape {array.shape}")
    for n in np.flatnonzero(~((array >= 0) & np.isfinite(array))):
        raise DataError(f"occupancy: n={n}: must be a finite number of at least 0, got {array[n]:g}")
    if array.sum() <= 0:
        raise DataError("occupancy: must have a count above 0, got none")
    return array / array.sum()


def assumed_occupancy(n_cells: int = 16, nonzero: float = 0.55 * 0.55) -> Array:
    """Return an assumed occupancy of n (or of k), used where none was gathered from a workload.

    Each product of a block is +1 or -1, with probability *nonzero* / 2 each, independently: inputs and weights of 45 %
    zeros, a little more than the 40 % that TiM-DNN is recalled to rely on.
    """
    return binomial(n_cells, nonzero / 2)


def occupancy_at(circuit: Circuit, n_cells: int = 16) -> tuple[Array, str]:
    """Return the occupancy of bitlines with *n_cells* cells a block, and a word for where it comes from.

    That of the circuit where it fits ("gathered"); where it was gathered for blocks of another height, a binomial one
    with as many nonzero products ("scaled"); where there is none, `assumed_occupancy` ("assumed").
    """
    if circuit.occupancy is None:
        return assumed_occupancy(n_cells), "assumed"
    share = occupancy_of(circuit.occupancy.reads)
    if len(share) == n_cells + 1:
        return share, "gathered"
    return binomial(n_cells, float(share @ np.arange(len(share))) / (len(share) - 1)), "scaled"


# Files


def read_table(path: str | Path) -> ErrorTable:
    """Return the table of a CSV or YAML file; raises DataError, one line, for what it does not hold."""
    path = Path(path)
    if path.suffix not in {".csv", ".yaml", ".yml"}:
        raise DataError(
            f"{path}: must be an error table ending in .csv, .yaml or .yml, got {path.suffix or 'no ending'}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) > GREATEST_FILE_BYTES:
        raise DataError(f"{path}: must be an error table of at most {GREATEST_FILE_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8 text, got byte {data[error.start]:#04x} at {error.start}") from None
    columns = _from_csv(text, str(path)) if path.suffix == ".csv" else _from_yaml(text, str(path))
    return ErrorTable(**columns, source=str(path))


def _from_csv(text: str, where: str) -> dict[str, Any]:
    try:
        lines = [line for line in csv.reader(io.StringIO(text)) if line]
    except csv.Error as error:
        raise DataError(f"{where}: must be CSV, got {error}") from None
    header = tuple(name.strip() for name in lines[0]) if lines else ()
    allowed = (*COLUMNS, "lower_error", "higher_error")
    if header not in (COLUMNS, allowed):
        raise DataError(f"{where}: must begin with the columns {','.join(COLUMNS)}, got {_short(','.join(header))}")
    columns: dict[str, list[float]] = {name: [] for name in header[1:]}
    for place, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise DataError(f"{where}: row {place + 1} must have {len(header)} columns, got {len(line)}")
        if line[0].strip() != str(place):
            raise DataError(f"{where}: row {place + 1} must be that of n={place}, got n={_short(line[0])}")
        for name, value in zip(header[1:], line[1:], strict=True):
            columns[name].append(_number(value, f"{where}: n={place}: {name}"))
    return columns


def _from_yaml(text: str, where: str) -> dict[str, Any]:
    from imcsim.arch.load import parsed, shown
    from imcsim.errors import ConfigError

    try:
        tree = parsed(text, where)
    except ConfigError as error:
        raise DataError(str(error)) from None
    if not isinstance(tree, dict) or not {"lower", "higher"} <= tree.keys():
        raise DataError(f"{where}: must be a mapping with the lists lower and higher, got {shown(tree)}")
    for name in tree.keys() - {"lower", "higher", "lower_error", "higher_error"}:
        raise DataError(f"{where}: {name}: no such field in an error table; it has lower and higher")
    columns = {}
    for name, values in tree.items():
        if not isinstance(values, list):
            raise DataError(f"{where}: {name}: must be a list of numbers, got {shown(values)}")
        columns[name] = [_number(value, f"{where}: n={n}: {name}") for n, value in enumerate(values)]
    return columns


def _number(value: Any, where: str) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except (OverflowError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise DataError(f"{where} must be a finite number, got {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
