"""Rows as a store keeps them: as JSON, each with a checksum; and back to columns.

A float is written with the shortest digits that give it back exactly, an infinite one as 1e999, which every reader of
JSON takes for infinity.
"""

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.sweep.points import Value

_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def json_of(row: Mapping[str, Value]) -> str:
    """Return a row of values as compact JSON; infinities as 1e999.

    >>> json_of({"latency_ns": float("inf"), "n_tiles": 4})
    '{"latency_ns":1e999,"n_tiles":4}'
    """
    try:
        return _dump(row)
    except ValueError:
        parts = (f"{_dump(name)}:{_infinite(value) or _dump(value)}" for name, value in row.items())
        return "{" + ",".join(parts) + "}"


def _infinite(value: Value) -> str | None:
    return f"{'-' if value < 0 else ''}1e999" if isinstance(value, float) and math.isinf(value) else None


def checksum_of_result(key: bytes, engine: bytes, figures: bytes, message: bytes | None) -> int:
    """Return the checksum that a result is kept with."""
    return zlib.crc32(b"\0".join((b"result", key, engine, figures, b"" if message is None else b"." + message)))


def checksum_of_sweep(digest: bytes, name: str, text: str) -> int:
    """Return the checksum that a sweep is kept with."""
    return zlib.crc32(b"\0".join((b"sweep", digest, name.encode(), text.encode())))


def checksum_of_point(sweep: int, number: int, parameters: bytes) -> int:
    """Return the checksum that the parameters of a point are kept with."""
    return zlib.crc32(b"point %d %d %b" % (sweep, number, parameters))


def checksum_of_place(sweep: int, stage: int, number: int, key: bytes) -> int:
    """Return the checksum that a place is kept with."""
    return zlib.crc32(b"place %d %d %d %b" % (sweep, stage, number, key))


def parsed(texts: Iterable[bytes]) -> list[dict[str, Value]]:
    """Return many objects of JSON, read as one."""
    rows: list[dict[str, Value]] = json.loads(b"[" + b",".join(texts) + b"]")
    return rows


class Columns:
    """Rows turned into columns, many at a time."""

    def __init__(self) -> None:
        self._n = 0
        self._parts: dict[str, list[tuple[int, NDArray[Any], NDArray[np.bool_] | None]]] = {}

    def add(self, rows: Sequence[Mapping[str, Value]]) -> None:
        """Take the next rows."""
        for name in dict.fromkeys(name for row in rows for name in row):
            given = [row[name] for row in rows if name in row]
            there = None if len(given) == len(rows) else np.array([name in row for row in rows])
            self._parts.setdefault(name, []).append((self._n, _typed(given), there))
        self._n += len(rows)

    def joined(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
        """Return name to values, and name to which rows have it for those that not all have."""
        columns, has = {}, {}
        for name, parts in self._parts.items():
            kinds = {values.dtype for _, values, _ in parts}
            kind = kinds.pop() if len(kinds) == 1 else _common(kinds)
            column = np.full(self._n, parts[0][1][0], dtype=kind)
            is_there = np.zeros(self._n, dtype=np.bool_)
            for start, values, there in parts:
                n = len(values) if there is None else len(there)
                given = values.astype(object).astype(kind) if kind.hasobject else values
                if there is None:
                    column[start : start + n] = given
                    is_there[start : start + n] = True
                else:
                    column[start : start + n][there] = given
                    is_there[start : start + n] = there
            columns[name] = column
            if not is_there.all():
                has[name] = is_there
        return columns, has


def _typed(values: Sequence[Value]) -> NDArray[Any]:
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
    return np.dtype(np.float64) if kinds <= numbers else np.dtype(object)
