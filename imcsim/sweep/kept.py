"""How a store keeps rows: in blocks of a few dozen, column by column as JSON, each block with a checksum; and back.

A float is written with the shortest digits that give it back exactly, an infinite one as 1e999, which every reader of
JSON takes for infinity; what a row does not have, or is NaN, is null.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.sweep.points import Column, Value

BLOCK_ROWS = 64
"""Most rows of a block: about a page of the file, so that a broken page takes few rows with it."""

KEY_BYTES = 16
KEY = np.dtype(f"S{KEY_BYTES}")
"""Of an array of keys; what numpy takes off their ends, zeros, it takes off all alike."""

_dump = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def text_of(columns: Mapping[str, Sequence[Value | None]]) -> str:
    """Return columns as compact JSON.

    >>> text_of({"latency_ns": [0.1, float("inf"), None]})
    '{"latency_ns":[0.1,1e999,null]}'
    """
    try:
        return _dump(columns)
    except ValueError:
        parts = (f"{_dump(name)}:[{','.join(map(_text_of_value, values))}]" for name, values in columns.items())
        return "{" + ",".join(parts) + "}"


def _text_of_value(value: Value | None) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    return _dump(value)


def text_of_list(values: Sequence[int | float]) -> str:
    """Return finite numbers as compact JSON."""
    return _dump(values)


def text_of_messages(messages: Sequence[str | None]) -> str:
    """Return the messages of those rows that have one, by row, as compact JSON."""
    return _dump({str(row): message for row, message in enumerate(messages) if message is not None})


def turned(rows: Sequence[Mapping[str, Value]]) -> dict[str, list[Value | None]]:
    """Return rows as columns."""
    return {name: [row.get(name) for row in rows] for name in _names(rows)}


def turned_figures(rows: Sequence[Mapping[str, float]]) -> dict[str, list[Value | None]]:
    """Return rows of numbers of any kind as columns of Python's own; NaN is taken for absent."""
    columns: dict[str, list[Value | None]] = {}
    for name in _names(rows):
        values = np.array([row.get(name) for row in rows], dtype=np.float64)  # None is NaN
        columns[name] = values.tolist()
        for row in np.flatnonzero(np.isnan(values)).tolist():
            columns[name][row] = None
    return columns


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for row in rows:
        if not row.keys() <= names.keys():
            names.update(dict.fromkeys(row))
    return list(names)


def blocks(n: int) -> Iterator[slice]:
    """Yield the blocks into which *n* rows are cut."""
    for start in range(0, n, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, n))


def checksum(table: str, *parts: bytes | str | int | float) -> int:
    """Return the checksum of a row of a table."""
    total = zlib.crc32(table.encode())
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        total = zlib.crc32(content, zlib.crc32(b"%d:" % len(content), total))
    return total


class Columns:
    """Columns of blocks, put together."""

    def __init__(self) -> None:
        self._n = 0
        self._parts: dict[str, list[tuple[int, Column, NDArray[np.bool_] | None]]] = {}
        self._waiting: dict[str, list[Value | None]] = {}
        self._n_waiting = 0

    def add(self, n: int, columns: Mapping[str, Sequence[Value | None]]) -> None:
        """Take the next *n* rows."""
        waiting = self._waiting
        for name, values in columns.items():
            if name not in waiting:
                waiting[name] = [None] * self._n_waiting
            waiting[name].extend(values)
        self._n_waiting += n
        for name in waiting.keys() - columns.keys():
            waiting[name].extend([None] * n)
        if self._n_waiting >= 50_000:  # Python's own numbers take much room
            self._pack()

    def _pack(self) -> None:
        for name, values in self._waiting.items():
            there = None
            if None in values:
                there = np.array([value is not None for value in values])
                values = [value for value in values if value is not None]
            if values:
                self._parts.setdefault(name, []).append((self._n, _typed(values), there))
        self._n += self._n_waiting
        self._waiting, self._n_waiting = {}, 0

    def joined(self) -> tuple[dict[str, Column], dict[str, NDArray[np.bool_]]]:
        """Return name to values, and name to which rows have it for those that not all have."""
        self._pack()
        columns, has = {}, {}
        for name, parts in self._parts.items():
            kind = _common({values.dtype for _, values, _ in parts})
            column = np.full(self._n, parts[0][1][0], dtype=kind)
            is_there = np.zeros(self._n, dtype=np.bool_)
            for start, values, there in parts:
                rows = slice(start, start + (len(values) if there is None else len(there)))
                mask = np.ones(len(values), dtype=np.bool_) if there is None else there
                column[rows][mask] = values.astype(object) if kind.hasobject else values
                is_there[rows] = mask
            columns[name] = column
            if not is_there.all():
                has[name] = is_there
        return columns, has


def _typed(values: Sequence[Any]) -> Column:
    """Whole numbers as int64, numbers as float64, truths as bool, all else and mixtures as they are."""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values, dtype=np.bool_)
    if kinds == {int}:
        return np.array(values, dtype=np.int64)
    if kinds <= {int, float}:
        return np.array(values, dtype=np.float64)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _common(kinds: set[np.dtype[Any]]) -> np.dtype[Any]:
    numbers = {np.dtype(np.int64), np.dtype(np.float64)}
    if len(kinds) == 1:
        return next(iter(kinds))
    return np.dtype(np.float64) if kinds <= numbers else np.dtype(object)


def keys_of(content: bytes) -> NDArray[np.bytes_]:
    """Return keys that were written one after the other."""
    return np.frombuffer(content, dtype=KEY)


def find(wanted: NDArray[np.bytes_], among: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the place of each key *wanted* in *among*, -1 where it is not there; *among* holds none twice."""
    if not len(among):
        return np.full(len(wanted), -1, dtype=np.int64)
    halves, those = wanted.view(">u8").reshape(-1, 2).astype(np.uint64), among.view(">u8").reshape(-1, 2)
    firsts = those[:, 0].astype(np.uint64)
    order = np.argsort(firsts, kind="stable")
    firsts = firsts[order]
    if (firsts[1:] == firsts[:-1]).any():  # never of digests; numbers of 8 bytes are far quicker to sort than keys
        place_of = {key: place for place, key in enumerate(among.tolist())}
        return np.array([place_of.get(key, -1) for key in wanted.tolist()], dtype=np.int64)
    at = order[np.minimum(np.searchsorted(firsts, halves[:, 0]), len(firsts) - 1)]
    return np.where((those[at].astype(np.uint64) == halves).all(axis=1), at, -1)
