"""What can still be read of a damaged store, brought into a new one beside it; the damaged one is only read.

SQLite reads rows from the root of a table down, so it loses all that lies behind a broken page, and without the header
of the file it reads nothing. Here every page of the file and of its write-ahead log is looked at by itself: a page of
rows says where they begin, and the checksum that each row bears says which of them are whole. The layout of pages and
rows is SQLite's file format (sqlite.org/fileformat2.html, sections 1.6, 2.1 and 4.1).
"""

import mmap
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imcsim.errors import DataError, OutputError
from imcsim.sweep.kept import checksum
from imcsim.sweep.store import Store
from imcsim.sweep.storefile import COLUMNS, PAGE_BYTES, make, publish
from imcsim.sweep.tables import ResultBlock

HEADER_BYTES = 100
"""Of the file, at the start of its first page."""

LOG_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24
LEAF = 0x0D
"""Kind of a page with rows of a table."""

MOST_BYTES = 1 << 28
"""No row is longer: what claims to be is broken."""

Page = Callable[[int], bytes]
"""The content of a page by its number, from 1; empty where there is none."""


@dataclass(frozen=True)
class Recovered:
    """What was saved of a damaged store."""

    path: Path
    """The new store."""

    n_results: int
    """With those from exports."""

    n_from_exports: int
    """Results that only Parquet files beside the store still had."""

    n_sweeps: int
    n_points: int
    """Points of these sweeps of which the parameters were saved."""


def recover(path: Path) -> Recovered:
    """Bring all that can still be read of a store, and of its exports to Parquet beside it, into a new store.

    Raises DataError where nothing can be read, OutputError where the new store cannot be written.
    """
    path = Path(path)
    rows = _rows(path)
    exports = _exported(path.parent)
    if not rows["results"] and not rows["sweeps"] and not exports:
        raise DataError(f"{path}: must hold results that can be read, got none; it is left as it is")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            whole = Path(folder) / path.name
            make(whole)
            with Store(whole) as store:
                n_results = store.adopt(ResultBlock(*row) for row in rows["results"])
                n_from_exports = store.adopt(exports)
                n_points = store.adopt_sweeps(rows["sweeps"], rows["points"], rows["places"])
                n_sweeps = len(store.sweeps())
            new = _free(path, "recovered")
            publish(whole, new)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path.parent}: must be possible to write, got {error.strerror or error}") from None
    return Recovered(new, n_results + n_from_exports, n_from_exports, n_sweeps, n_points)


def put_in_place(recovered: Recovered, path: Path) -> Path:
    """Give the new store the name of the damaged one, which is kept under another; return that."""
    aside = _free(path, "damaged")
    try:
        for suffix in ("-wal", "-shm", ""):  # the log first: beside the new store it would be taken for its own
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        recovered.path.rename(path)
    except OSError as error:
        raise OutputError(f"{path}: must be possible to move, got {error.strerror or error}") from None
    return aside


def _free(path: Path, word: str) -> Path:
    """Return a name beside *path* that no file has."""
    number = 1
    while True:
        name = path.with_name(f"{path.stem}-{word}{'' if number == 1 else f'-{number}'}{path.suffix}")
        if not name.exists() and not name.with_name(name.name + "-wal").exists():
            return name
        number += 1


# Rows in pages


def _rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all whole rows, table by table, in the order in which they were written."""
    content, log = _bytes(path), _bytes(path.with_name(path.name + "-wal"))
    if content is None and log is None:
        raise DataError(f"{path}: must be the store of a sweep, got no such file")
    content, log = content or b"", log or b""
    frames = range(LOG_HEADER_BYTES, len(log) - FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + PAGE_BYTES)
    in_log = {int.from_bytes(log[at : at + 4], "big"): at + FRAME_HEADER_BYTES for at in frames}

    def of_file(number: int) -> bytes:
        return content[(number - 1) * PAGE_BYTES : number * PAGE_BYTES] if number > 0 else b""

    def newest(number: int) -> bytes:
        at = in_log.get(number)
        return of_file(number) if at is None else log[at : at + PAGE_BYTES]

    found: dict[str, dict[tuple[int, int], tuple[Any, ...]]] = {table: {} for table in COLUMNS}
    for at in range(0, len(content), PAGE_BYTES):
        start = HEADER_BYTES if at == 0 else 0
        for table, number, row in _rows_of_page(content[at : at + PAGE_BYTES], start, (of_file, newest)):
            found[table][number, row[-1]] = row[:-1]
    for at in frames:
        page = log[at + FRAME_HEADER_BYTES : at + FRAME_HEADER_BYTES + PAGE_BYTES]
        start = HEADER_BYTES if log[at : at + 4] == b"\0\0\0\1" else 0
        for table, number, row in _rows_of_page(page, start, (newest, of_file)):
            found[table].setdefault((number, row[-1]), row[:-1])
    return {
        table: [(number, *row) if table == "sweeps" else row for (number, _), row in sorted(rows.items(), key=_number)]
        for table, rows in found.items()
    }


def _number(item: tuple[tuple[int, int], Any]) -> int:
    return item[0][0]


def _bytes(path: Path) -> "mmap.mmap | bytes | None":
    """Return the content of a file, which is not read before it is looked at."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: must be possible to read, got {error.strerror or error}") from None


def _rows_of_page(page: bytes, start: int, sources: tuple[Page, ...]) -> Iterator[tuple[str, int, tuple[Any, ...]]]:
    """Yield table, number and content, its checksum last, of the whole rows of a page whose header is at *start*.

    The rest of a long row is on other pages: of each of the *sources* until the checksum is right.
    """
    if len(page) < start + 8 or page[start] != LEAF:
        return
    n_rows = int.from_bytes(page[start + 3 : start + 5], "big")
    for i in range(min(n_rows, PAGE_BYTES // 4)):
        at = start + 8 + 2 * i
        cell = int.from_bytes(page[at : at + 2], "big")
        for source in sources:
            try:
                number, payload = _cell(page, cell, source)
                row = _record(payload)
            except (IndexError, ValueError, struct.error):
                continue
            if table := _table_of(row):
                yield table, number, row
                break


def _cell(page: bytes, at: int, source: Page) -> tuple[int, bytes]:
    """Return number and payload of the row at a place of a page."""
    n_bytes, at = _varint(page, at)
    number, at = _varint(page, at)
    if n_bytes > MOST_BYTES:
        raise ValueError(n_bytes)
    if n_bytes <= PAGE_BYTES - 35:
        return number, page[at : at + n_bytes]
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    n_here = least + (n_bytes - least) % (PAGE_BYTES - 4)
    if n_here > PAGE_BYTES - 35:
        n_here = least
    parts, left = [page[at : at + n_here]], n_bytes - n_here
    next_page = int.from_bytes(page[at + n_here : at + n_here + 4], "big")
    while left > 0:
        more = source(next_page)
        if len(more) < min(left + 4, PAGE_BYTES):
            raise ValueError(next_page)
        parts.append(more[4 : 4 + left])
        left -= len(parts[-1])
        next_page = int.from_bytes(more[:4], "big")
    return number, b"".join(parts)


_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _record(payload: bytes) -> tuple[Any, ...]:
    """Return the values of a row after its number."""
    end, at = _varint(payload, 0)
    if end > len(payload):
        raise ValueError(end)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        value: Any = None
        if kind in _INTEGER_BYTES:
            n = _INTEGER_BYTES[kind]
            value = int.from_bytes(payload[at : at + n], "big", signed=True)
        elif kind == 7:
            n = 8
            (value,) = struct.unpack(">d", payload[at : at + n])
        elif kind >= 12:
            n = (kind - 12) // 2
            value = payload[at : at + n].decode() if kind % 2 else payload[at : at + n]
        else:
            n, value = 0, {8: 0, 9: 1}.get(kind)
        values.append(value)
        at += n
    if at != len(payload):
        raise ValueError(at)
    return tuple(values[1:])


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for i in range(8):
        byte = content[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | content[at + 8], at + 9


_TABLE_OF_LENGTH = {columns.count(",") + 2: table for table, columns in COLUMNS.items()}


def _table_of(row: tuple[Any, ...]) -> str | None:
    """Return the table that a row is of, None where it is of none or not whole."""
    table = _TABLE_OF_LENGTH.get(len(row))
    if table is None or any(value is None for value in row):
        return None
    return table if row[-1] == checksum(table, *row[:-1]) else None


# Exports


def _exported(folder: Path) -> list[ResultBlock]:
    """Return the results in the Parquet files of a folder that `Store.export` wrote; broken ones are passed over."""
    from imcsim.sweep.export import read_results

    found: list[ResultBlock] = []
    for path in sorted(folder.glob("*.parquet")):
        found.extend(read_results(path))
    return found
