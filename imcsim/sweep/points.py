"""Points of a design space, column by column: what a sweep varies, by name, and the values that the points have."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Value = bool | int | float | str
Column = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Points:
    """Points of a sweep; each has a number, and a value for every name, or for those names that it has."""

    numbers: NDArray[np.int64]
    """What the sweep calls each point, from 0 (n)."""

    columns: Mapping[str, Column]
    """Name of a parameter to the points' values (n): int64, float64, bool, or object for texts."""

    has: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Which points have the parameter (n), for those that not all have; what stands in its column elsewhere is idle."""

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, at: NDArray[Any] | slice) -> "Points":
        """Return the points at these places, or of this mask, in this order."""
        return Points(
            self.numbers[at],
            {name: values[at] for name, values in self.columns.items()},
            {name: is_there[at] for name, is_there in self.has.items()},
        )

    def row(self, at: int) -> dict[str, Value]:
        """Return the parameters that the point at this place has, in Python's own types."""
        return {
            name: values[at].item() if isinstance(values[at], np.generic) else values[at]
            for name, values in self.columns.items()
            if name not in self.has or self.has[name][at]
        }

    def rows(self) -> Iterator[dict[str, Value]]:
        """Yield the parameters of each point, as `row` does."""
        lists = {name: values.tolist() for name, values in self.columns.items()}
        there = {name: values.tolist() for name, values in self.has.items()}
        for i in range(len(self)):
            yield {name: values[i] for name, values in lists.items() if name not in there or there[name][i]}


def points_of(rows: Sequence[Mapping[str, Value]], numbers: Sequence[int] | None = None) -> Points:
    """Return *rows* as points, numbered from 0 by default; a column of whole numbers and others holds float64.

    >>> points = points_of([{"n_tiles": 8}, {"n_tiles": 16, "tile.serial": "trits"}])
    >>> points.columns["n_tiles"].tolist(), points.has["tile.serial"].tolist(), points.row(0)
    ([8, 16], [False, True], {'n_tiles': 8})
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns, has = {}, {}
    for name in names:
        there = np.array([name in row for row in rows])
        given = [row[name] for row in rows if name in row]
        kinds = {type(value) for value in given}
        if kinds <= {int, float} and float in kinds:
            kind: Any = np.float64
        else:
            kind = {int: np.int64, bool: np.bool_}.get(next(iter(kinds)), object) if len(kinds) == 1 else object
        column = np.full(len(rows), given[0], dtype=kind)
        column[there] = given
        columns[name] = column
        if not there.all():
            has[name] = there
    at = range(len(rows)) if numbers is None else numbers
    return Points(np.asarray(at, dtype=np.int64), columns, has)
