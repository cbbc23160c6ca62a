"""What a store says of its content: results, sweeps, tables, progress; and the numbers and columns behind them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.sweep.kept import KEY, KEY_BYTES, keys_of, text_of, text_of_list, text_of_messages
from imcsim.sweep.points import Column, Points, Value


@dataclass(frozen=True)
class Kept:
    """What the store has under a key."""

    figures: dict[str, float]
    message: str | None
    """Why the point failed; None where it did not."""


@dataclass(frozen=True)
class KeptSweep:
    """A sweep that has been begun on a store."""

    number: int
    name: str
    text: str
    """Its file, normalised."""

    version: str
    """Of imcsim, when it was begun."""

    at: float
    """When it was begun, in seconds since 1970."""


@dataclass(frozen=True, eq=False)
class Table:
    """The points of a sweep with all that the store has of them, column by column, by number."""

    points: Points
    placed: NDArray[np.int64]
    """Last stage that each point has come to (n)."""

    stages: NDArray[np.int64]
    """Last stage with a result (n); -1 where there is none yet."""

    figures: dict[str, NDArray[np.float64]]
    """Name of a figure to its values (n), a later stage's over an earlier one's; NaN where a point has none."""

    engines: NDArray[np.object_]
    """Of the last result with figures (n); None where there is none."""

    messages: NDArray[np.object_]
    """Why a point's last result is a failure (n); None where it is not."""


@dataclass(frozen=True)
class StageCounts:
    """How far one stage of a sweep is."""

    stage: int
    n_points: int
    """Points that have come to it."""

    n_known: int
    """Of these, those with a result, failures included."""

    n_failed: int
    n_claimed: int
    """Those that somebody is at work on."""


@dataclass(frozen=True)
class Worker:
    """Somebody who is at work on a store."""

    name: str
    n_claims: int
    silent_s: float
    """Time since last heard from."""

    is_alive: bool


@dataclass(frozen=True)
class Progress:
    """How far a sweep is, as ``imcsim sweep status`` says it."""

    name: str
    stages: tuple[StageCounts, ...]
    workers: tuple[Worker, ...]
    """Of the whole store."""

    n_last_minute: int
    """Results of the sweep that came in the last 60 s."""


@dataclass(frozen=True)
class ResultBlock:
    """Results that came together, as they are kept."""

    engine: str
    version: str
    at: float
    content: bytes
    """Their keys, one after the other."""

    seconds_text: str
    figures_text: str
    messages_text: str

    def keys(self) -> list[bytes]:
        """Return the keys."""
        return split(self.content)

    def figures(self) -> dict[str, list[float | None]]:
        """Return name of a figure to values."""
        found: dict[str, list[float | None]] = json.loads(self.figures_text)
        return found

    def messages(self) -> dict[int, str]:
        """Return row to message, for those that failed."""
        return {int(row): message for row, message in json.loads(self.messages_text).items()}

    def seconds(self) -> list[float]:
        """Return what each took."""
        found: list[float] = json.loads(self.seconds_text)
        return found

    def take(self, rows: Sequence[int]) -> "ResultBlock":
        """Return the block of some of its rows, in this order."""
        keys, seconds, messages = self.keys(), self.seconds(), self.messages()
        return block_of(
            self.engine,
            self.version,
            self.at,
            [keys[row] for row in rows],
            [seconds[row] for row in rows],
            {name: [values[row] for row in rows] for name, values in self.figures().items()},
            [messages.get(row) for row in rows],
        )


def block_of(
    engine: str,
    version: str,
    at: float,
    keys: Sequence[bytes],
    seconds: Sequence[float],
    figures: Mapping[str, Sequence[Value | None]],
    messages: Sequence[str | None],
) -> ResultBlock:
    """Return results as a block."""
    return ResultBlock(
        engine,
        version,
        at,
        b"".join(keys),
        text_of_list([round(float(second), 6) for second in seconds]),
        text_of({name: values for name, values in figures.items() if any(value is not None for value in values)}),
        text_of_messages(messages),
    )


NO_MESSAGES = "{}"
NO_NUMBERS = np.zeros(0, dtype=np.int64)


class Placed:
    """The keys of the points of one stage by their numbers, as far as they were read."""

    def __init__(self) -> None:
        self.last = 0
        self._keys = np.zeros(0, dtype=KEY)

    def read(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take the rows of places that came since."""
        for row, _, _, texts, content in rows:
            at = np.array(json.loads(texts), dtype=np.int64)
            self._keys = _grown(self._keys, int(at.max()) + 1)
            self._keys[at] = keys_of(content)
            self.last = row

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """Return the keys of *numbers*, empty where there are none."""
        self._keys = _grown(self._keys, int(numbers.max()) + 1)
        return self._keys[numbers]


class Described:
    """Which points of a sweep have parameters in the store, as far as they were read."""

    def __init__(self) -> None:
        self.last = 0
        self._is_there = np.zeros(0, dtype=np.bool_)

    def read(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Take the rows of points that came since."""
        for row, _, texts, _ in rows:
            at = np.array(json.loads(texts), dtype=np.int64)
            self._is_there = _grown(self._is_there, int(at.max()) + 1)
            self._is_there[at] = True
            self.last = row

    def of(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say it of *numbers*."""
        self._is_there = _grown(self._is_there, int(numbers.max()) + 1)
        return self._is_there[numbers]


def _grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    if n <= len(array):
        return array
    larger = np.zeros(max(n, 2 * len(array)), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def cut(columns: Mapping[str, list[Value | None]], rows: slice) -> dict[str, list[Value | None]]:
    """Return the columns of some rows, without those that these rows lack."""
    parts = {name: values[rows] for name, values in columns.items()}
    return {name: part for name, part in parts.items() if any(value is not None for value in part)}


def split(content: bytes) -> list[bytes]:
    """Return keys that were written one after the other, one by one."""
    return [content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)]


def is_rising(numbers: NDArray[np.int64]) -> bool:
    """Whether each number is greater than the one before."""
    return bool((numbers[1:] > numbers[:-1]).all())


def last_of_each(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each number comes last, in the order of numbers."""
    _, from_end = np.unique(numbers[::-1], return_index=True)
    return len(numbers) - 1 - from_end


def joined_table(
    points: Points,
    places: Mapping[int, tuple[NDArray[np.int64], NDArray[np.int64]]],
    figures: Mapping[str, Column],
    has: Mapping[str, NDArray[np.bool_]],
    engines_of_results: NDArray[np.object_],
    messages_of_results: Mapping[int, str],
) -> Table:
    """Return points with results; *places* says for each stage, in order, numbers of points and places of results."""
    n = len(points)
    placed, stages = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    engines, messages = np.full(n, None, dtype=object), np.full(n, None, dtype=object)
    values = {name: np.full(n, np.nan) for name in sorted(figures)}
    failed = np.fromiter(messages_of_results, dtype=np.int64)
    for stage, (numbers, results) in places.items():
        is_described = np.isin(numbers, points.numbers, assume_unique=True)  # not all may be, of a recovered store
        numbers, results = numbers[is_described], results[is_described]
        at = np.searchsorted(points.numbers, numbers)
        placed[at] = stage
        at, results = at[results >= 0], results[results >= 0]
        stages[at] = stage
        has_any = np.zeros(len(at), dtype=np.bool_)
        for name, column in values.items():
            is_there = has[name][results] if name in has else np.ones(len(results), dtype=np.bool_)
            column[at[is_there]] = figures[name][results[is_there]]
            has_any |= is_there
        engines[at[has_any]] = engines_of_results[results[has_any]]
        messages[at] = None
        has_failed = np.flatnonzero(np.isin(results, failed))
        messages[at[has_failed]] = [messages_of_results[result] for result in results[has_failed].tolist()]
    return Table(points, placed, stages, values, engines, messages)
