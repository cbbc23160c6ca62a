"""Every result of a sweep in one SQLite file, under its key: append-only, safe to kill, shared by sweeps at once.

A *result* is what one engine run of one point gave, figures or a message; its key is a digest of all that it rests on,
the version of imcsim included, so a result is never changed and never removed. A *place* says which point of which
sweep has which key at which stage. A *claim* says that somebody is at work on a key; it holds while its owner lives and
is heard from. Every row that is to last bears a checksum over its content: a store whose bytes were damaged says so
in place of giving wrong figures, and `imcsim.sweep.recover` tells good rows from bad ones.

Figures that are NaN are none, and are left out.
"""

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.errors import DataError, ImcsimError, OutputError
from imcsim.sweep.kept import (
    KEY,
    KEY_BYTES,
    Columns,
    blocks,
    checksum,
    find,
    keys_of,
    text_of,
    text_of_list,
    text_of_messages,
    turned,
)
from imcsim.sweep.lease import LEASE_S, Heart, Owner, this_owner
from imcsim.sweep.points import Column, Points, Value
from imcsim.version import __version__

FORMAT = 1
"""Of the tables below; a store of another one is refused."""

APPLICATION_ID = 0x696D6373
"""Tells a store from other SQLite files: "imcs"."""

PAGE_BYTES = 4096
"""Fixed, so that pages can be found in a file without its header."""

BUSY_S = 60.0
"""How long one process waits for another's transaction."""

CHECK_S = 0.5
"""How long a store is looked through when it is opened."""

TABLES = f"""
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE results(
    id INTEGER PRIMARY KEY, engine TEXT NOT NULL, version TEXT NOT NULL, at REAL NOT NULL, keys BLOB NOT NULL,
    seconds TEXT NOT NULL, figures TEXT NOT NULL, messages TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE keys(key BLOB PRIMARY KEY CHECK (length(key) = {KEY_BYTES}), block INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sweeps(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, version TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL,
    at REAL NOT NULL, checksum INTEGER NOT NULL, UNIQUE (digest, version));
CREATE TABLE points(
    id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL, numbers TEXT NOT NULL, parameters TEXT NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE places(
    id INTEGER PRIMARY KEY, sweep INTEGER NOT NULL, stage INTEGER NOT NULL, numbers TEXT NOT NULL, keys BLOB NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE owners(
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    started TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE claims(key BLOB PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID;
"""

COLUMNS = {
    "results": "engine, version, at, keys, seconds, figures, messages",
    "sweeps": "digest, version, name, text, at",
    "points": "sweep, numbers, parameters",
    "places": "sweep, stage, numbers, keys",
}
"""What the rows that are to last hold beside their number and their checksum."""


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
    """Results that came together, as they are kept; texts are bytes."""

    engine: bytes
    version: bytes
    at: float
    content: bytes
    """Their keys, one after the other."""

    seconds_text: bytes
    figures_text: bytes
    messages_text: bytes

    def keys(self) -> list[bytes]:
        """Return the keys."""
        return _split(self.content)

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


class Store:
    """A store of results; one process may open it several times, each time as another owner of claims.

    Raises DataError where the file is no store, damaged, or of another format, and OutputError where it cannot be
    written; with *read_only* it writes nothing, holds nobody up, and reads from folders that cannot be written to.
    """

    def __init__(self, path: Path, *, owner: str | None = None, read_only: bool = False):
        self.path = Path(path)
        self._owner = this_owner(owner)
        self._owner_id: int | None = None
        self._heart: Heart | None = None
        self._places: dict[tuple[int, int], _Placed] = {}
        self._placed_points: dict[int, _Described] = {}
        if not read_only:
            _make_missing(self.path)
        with _in_words(self.path):
            self._db = _open(self.path, read_only=read_only)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is still claimed, and close the file."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None
        if self._owner_id is not None:
            with suppress(ImcsimError), self._writing():  # a full disk must not hide what went wrong before
                self._bury(self._owner_id)
            self._owner_id = None
        self._db.close()

    # Sweeps and their points

    def begin(self, name: str, text: str, digest: bytes) -> int:
        """Register a sweep by the *digest* of its normalised *text*, once for each imcsim; return its number."""
        with self._writing():
            same = "SELECT id FROM sweeps WHERE digest = ? AND version = ?"
            if found := self._db.execute(same, (digest, __version__)).fetchone():
                return int(found[0])
            row = (digest, __version__, name, text, time.time())
            return self._append("sweeps", [row])

    def place(
        self,
        sweep: int,
        stage: int,
        numbers: Iterable[int],
        keys: Sequence[bytes],
        parameters: Iterable[Mapping[str, Value]],
    ) -> None:
        """Say which *keys* the points of these *numbers*, none twice, have at a stage of a sweep.

        What was said already is not written again; the last word counts.
        """
        at, new = np.array(list(numbers), dtype=np.int64), keys_of(b"".join(keys))
        rows = list(parameters)
        if not len(at) == len(new) == len(rows):
            raise ValueError(f"place: must get one key and one row for each of {len(at)} numbers")
        if not len(at):
            return
        with self._writing():
            old = self._places.setdefault((sweep, stage), _Placed()).of(self._db, sweep, stage, at)
            has_row = self._placed_points.setdefault(sweep, _Described()).of(self._db, sweep, at)
            is_new = old != new
            to_describe = np.flatnonzero(is_new & (~has_row | (old != b""))).tolist()
            columns = turned([rows[i] for i in to_describe])
            self._append(
                "points",
                [
                    (sweep, text_of_list(at[to_describe[rows]].tolist()), text_of(_cut(columns, rows)))
                    for rows in blocks(len(to_describe))
                ],
            )
            at, new = at[is_new], new[is_new]
            self._append(
                "places",
                [(sweep, stage, text_of_list(at[rows].tolist()), new[rows].tobytes()) for rows in blocks(len(at))],
            )

    # Results

    def known(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """Return what the store has under those of *keys* that it has."""
        found = {}
        with _in_words(self.path), self._reading():
            wanted = dict(self._among("SELECT key, block FROM keys WHERE key IN", keys))
            numbers = list(dict.fromkeys(wanted.values()))
            for block in self._among(f"SELECT {COLUMNS['results']}, checksum FROM results WHERE id IN", numbers):
                _, _, _, content, _, texts, said = self._sound("results", block)
                figures, messages = json.loads(texts), json.loads(said)
                for row, key in enumerate(_split(content)):
                    if key in wanted:
                        of_row = {
                            name: float(values[row]) for name, values in figures.items() if values[row] is not None
                        }
                        found[key] = Kept(of_row, messages.get(str(row)))
            if found.keys() != wanted.keys():
                raise _damaged(self.path, "keys without results")
        return found

    def claim(self, keys: Sequence[bytes]) -> list[bool]:
        """Say of each key whether it is ours to compute from now on: not known, and nobody is at work on it.

        A key that we hold already is not given a second time. Claims of owners that are gone or silent lapse.
        """
        with self._writing():
            owner = self._present()
            self._bury(*(id for id, _, is_alive in self._owners() if not is_alive and id != owner))
            taken = {key for (key,) in self._among("SELECT key FROM keys WHERE key IN", keys)}
            taken.update(key for (key,) in self._among("SELECT key FROM claims WHERE key IN", keys))
            ours = []
            for key in keys:
                ours.append(key not in taken)
                taken.add(key)
            rows = [(key, owner) for key, is_ours in zip(keys, ours, strict=True) if is_ours]
            self._db.executemany("INSERT INTO claims(key, owner) VALUES (?, ?)", rows)
        self._owner_id = owner
        if self._heart is None:
            self._heart = Heart(self, self.path, owner)
        return ours

    def release(self, keys: Iterable[bytes]) -> None:
        """Give claims of ours back without a result."""
        if self._owner_id is not None:
            rows = [(key, self._owner_id) for key in keys]
            with self._writing():
                self._db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", rows)

    def add(
        self,
        keys: Sequence[bytes],
        figures: Sequence[Mapping[str, float]],
        messages: Sequence[str | None],
        seconds: Sequence[float],
        engine: str,
    ) -> None:
        """Keep results, all or none of them; what is there already stays as it is. Claims on *keys* end.

        Raises OutputError where the disk is full: nothing is lost then, and what is added once there is room is kept.
        """
        at = time.time()
        with self._writing():
            there = {key for (key,) in self._among("SELECT key FROM keys WHERE key IN", keys)}
            row_of_key = {key: row for row, key in reversed(list(enumerate(keys))) if key not in there}
            kept = sorted(row_of_key.values())
            columns = turned([_floats(figures[row]) for row in kept])
            found = []
            for rows in blocks(len(kept)):
                those = kept[rows]
                found.append(
                    (
                        engine,
                        __version__,
                        at,
                        b"".join(keys[row] for row in those),
                        text_of_list([round(float(seconds[row]), 6) for row in those]),
                        text_of(_cut(columns, rows)),
                        text_of_messages([messages[row] for row in those]),
                    )
                )
            last = self._append("results", found)
            first = last - len(found) + 1
            pairs = [(keys[row], first + i) for i, rows in enumerate(blocks(len(kept))) for row in kept[rows]]
            self._db.executemany("INSERT INTO keys(key, block) VALUES (?, ?)", pairs)
            self._db.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])

    # Reading

    def sweeps(self) -> list[KeptSweep]:
        """Return all sweeps that were begun on this store, in that order."""
        with _in_words(self.path):
            rows = self._db.execute(f"SELECT id, {COLUMNS['sweeps']}, checksum FROM sweeps ORDER BY id").fetchall()
        found = []
        for number, *row in rows:
            _, version, name, text, at = self._sound("sweeps", tuple(row))
            found.append(KeptSweep(number, name.decode(), text.decode(), version.decode(), at))
        return found

    def table(self, sweep: int) -> Table:
        """Return all points of a sweep with their figures; raises DataError where rows were damaged."""
        with _in_words(self.path), self._reading():
            points = self._points(sweep)
            places = self._keys_of_stages(sweep)
            contents = self._db.execute("SELECT keys FROM results ORDER BY id").fetchall()
            all_keys = keys_of(b"".join(content for (content,) in contents))
            found = {stage: find(keys, all_keys) for stage, (_, keys) in places.items()}
            needed = np.zeros(len(all_keys), dtype=np.bool_)
            for at in found.values():
                needed[at[at >= 0]] = True
            figures, has, engines, messages = self._results(needed, [len(content) for (content,) in contents])
        return _joined(
            points, {stage: (places[stage][0], at) for stage, at in found.items()}, figures, has, engines, messages
        )

    def progress(self, sweep: int) -> Progress:
        """Return how far a sweep is; quick enough to be asked every few seconds."""
        now = time.time()
        with _in_words(self.path), self._reading():
            name = self._db.execute("SELECT name FROM sweeps WHERE id = ?", (sweep,)).fetchone()
            if name is None:
                raise DataError(f"{self.path}: must hold sweep {sweep}, got none of that number")
            places = self._keys_of_stages(sweep)
            results = self._db.execute("SELECT keys, at, messages FROM results ORDER BY id").fetchall()
            claimed = keys_of(b"".join(key for (key,) in self._db.execute("SELECT key FROM claims")))
            claims = dict(self._db.execute("SELECT owner, count(*) FROM claims GROUP BY owner"))
            workers = tuple(
                Worker(owner.name, claims.get(id, 0), now - owner.seen, is_alive)
                for id, owner, is_alive in self._owners()
            )
        all_keys = keys_of(b"".join(content for content, _, _ in results))
        n_rows = np.array([len(content) // KEY_BYTES for content, _, _ in results], dtype=np.int64)
        starts = np.cumsum(n_rows) - n_rows
        is_new = np.repeat(np.array([at > now - 60 for _, at, _ in results], dtype=np.bool_), n_rows)
        has_failed = np.zeros(len(all_keys), dtype=np.bool_)
        for start, (_, _, said) in zip(starts.tolist(), results, strict=True):
            if said != b"{}":
                has_failed[[start + int(row) for row in json.loads(said)]] = True
        stages, n_last_minute = [], 0
        for stage, (_, keys) in places.items():
            at = find(keys, all_keys)
            at = at[at >= 0]
            n_claimed = int((find(keys, claimed) >= 0).sum())
            stages.append(StageCounts(stage, len(keys), len(at), int(has_failed[at].sum()), n_claimed))
            n_last_minute += int(is_new[at].sum())
        return Progress(name[0].decode(), tuple(stages), workers, n_last_minute)

    def results(self) -> Iterator[ResultBlock]:
        """Yield all results in the order in which they came, many at a time."""
        with _in_words(self.path):
            rows = self._db.execute(f"SELECT {COLUMNS['results']}, checksum FROM results ORDER BY id")
            while chunk := rows.fetchmany(100):
                for row in chunk:
                    yield ResultBlock(*self._sound("results", row))

    def export(self, path: Path) -> None:
        """Write every result to a Parquet or a CSV file, by its suffix."""
        from imcsim.sweep.export import write_results  # pyarrow: only where it is needed

        write_results(self.results(), Path(path))

    # Rows of tables

    def _append(self, table: str, rows: Sequence[tuple[Any, ...]]) -> int:
        """Append rows, each with its checksum; return the number of the last row of the table."""
        last = int(self._db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0])
        places = ", ".join("?" * (COLUMNS[table].count(",") + 3))
        self._db.executemany(
            f"INSERT INTO {table}(id, {COLUMNS[table]}, checksum) VALUES ({places})",
            [(number, *row, checksum(table, *row)) for number, row in enumerate(rows, start=last + 1)],
        )
        return last + len(rows)

    def _sound(self, table: str, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a row without its checksum, which is the last; raises DataError where that is not right."""
        if row[-1] != checksum(table, *row[:-1]):
            raise _damaged(self.path, f"a wrong checksum in {table}")
        return row[:-1]

    def _rows(self, table: str, where: str, *values: int) -> Iterator[tuple[Any, ...]]:
        query = f"SELECT {COLUMNS[table]}, checksum FROM {table} {where} ORDER BY id"
        for row in self._db.execute(query, values):
            yield self._sound(table, row)

    def _points(self, sweep: int) -> Points:
        columns, numbers = Columns(), []
        for _, texts, parameters in self._rows("points", "WHERE sweep = ?", sweep):
            of_block = json.loads(texts)
            numbers.append(np.array(of_block, dtype=np.int64))
            columns.add(len(of_block), json.loads(parameters))
        points = Points(np.concatenate([_NO_NUMBERS, *numbers]), *columns.joined())
        return points if _is_rising(points.numbers) else points.take(_last_of_each(points.numbers))

    def _keys_of_stages(self, sweep: int) -> dict[int, tuple[NDArray[np.int64], NDArray[np.bytes_]]]:
        """Return stage to numbers, rising, and keys of its points."""
        numbers: dict[int, list[NDArray[np.int64]]] = {}
        keys: dict[int, list[bytes]] = {}
        for _, stage, texts, content in self._rows("places", "WHERE sweep = ?", sweep):
            numbers.setdefault(stage, []).append(np.array(json.loads(texts), dtype=np.int64))
            keys.setdefault(stage, []).append(content)
        found = {}
        for stage in sorted(numbers):
            at, of_stage = np.concatenate(numbers[stage]), keys_of(b"".join(keys[stage]))
            if not _is_rising(at):
                last = _last_of_each(at)
                at, of_stage = at[last], of_stage[last]
            found[stage] = at, of_stage
        return found

    def _results(
        self, needed: NDArray[np.bool_], n_bytes: Sequence[int]
    ) -> tuple[dict[str, Column], dict[str, NDArray[np.bool_]], NDArray[np.object_], dict[int, str]]:
        """Return figures, which results have them, engines and messages, for the blocks of results that are needed."""
        columns, messages, start = Columns(), {}, 0
        engines = np.full(len(needed), None, dtype=object)
        query = f"SELECT {COLUMNS['results']}, checksum FROM results ORDER BY id"
        for size, row in zip(n_bytes, self._db.execute(query), strict=True):
            n = size // KEY_BYTES
            if needed[start : start + n].any():
                block = ResultBlock(*self._sound("results", row))
                columns.add(n, block.figures())
                engines[start : start + n] = block.engine.decode()
                messages.update({start + at: message for at, message in block.messages().items()})
            else:
                columns.add(n, {})
            start += n
        return *columns.joined(), engines, messages

    # Transactions, owners

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _in_words(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself rolls back some, such as one that found the disk full
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One moment for several queries."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _among(self, select: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        at_once = 900  # what every SQLite takes
        for start in range(0, len(keys), at_once):
            some = list(keys[start : start + at_once])
            yield from self._db.execute(f"{select} ({', '.join('?' * len(some))})", some)

    def _present(self) -> int:
        """Make sure that our owner is in the table and was heard from now; return its number."""
        owner = self._owner
        row = (self._owner_id, owner.name, owner.host, owner.pid, owner.started, time.time())
        self._db.execute(
            """INSERT INTO owners(id, name, host, pid, started, seen) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT(id) DO UPDATE SET seen = excluded.seen""",
            row,
        )
        if self._owner_id is not None:
            return self._owner_id
        return int(self._db.execute("SELECT last_insert_rowid()").fetchone()[0])

    def _owners(self) -> list[tuple[int, Owner, bool]]:
        rows = self._db.execute("SELECT id, name, host, pid, started, seen FROM owners ORDER BY id").fetchall()
        now, found = time.time(), []
        for id, name, host, pid, started, seen in rows:
            owner = Owner(name.decode(), host.decode(), pid, started.decode(), seen)
            found.append((id, owner, owner.is_alive(now, LEASE_S)))
        return found

    def _bury(self, *owners: int) -> None:
        for owner in owners:
            self._db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
            self._db.execute("DELETE FROM owners WHERE id = ?", (owner,))


# Files


def make(path: Path) -> None:
    """Make an empty store; raises FileExistsError where a file of the name is there, and leaves that alone.

    The store is made under a passing name: under its own nobody ever sees half of one.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / path.name
        with _in_words(path):
            db = sqlite3.connect(new, isolation_level=None)
            try:
                db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {FORMAT}")
                db.executescript(f"BEGIN; {TABLES} COMMIT;")
                rows = [("format", str(FORMAT)), ("version", __version__)]
                db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
                mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            finally:
                db.close()
        if mode != "wal":
            raise OutputError(
                f"{path}: must lie where SQLite can keep a write-ahead log, got journal mode {mode!r}; "
                "a network file system cannot: give a folder on a local disk"
            )
        try:
            os.link(new, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if path.exists():
                raise FileExistsError(path) from None
            new.rename(path)


def _make_missing(path: Path) -> None:
    if path.exists():
        return
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size and not path.exists():
        raise DataError(
            f"{path}: must be there, for {log.name} is, got no such file; "
            f"'imcsim sweep recover {path.parent}' saves what that holds, or move it away to begin anew"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    except FileExistsError:
        if not path.exists():
            raise OutputError(f"{path.parent}: must be a folder, got a file") from None
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: must be possible to write, got {error.strerror or error}") from None


def _open(path: Path, *, read_only: bool) -> sqlite3.Connection:
    _look_at(path)
    if not read_only:
        db = connect(path, "rw")
    else:
        db = connect(path, "ro")
        try:
            db.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError:  # the log cannot be shared: nobody writes here, or may
            db.close()
            db = connect(path, "ro&immutable=1")
    try:
        _check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection to a store that is there; texts come as bytes, so that damaged ones can be told."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_S)
    db.text_factory = bytes
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 4000")
    db.execute("PRAGMA cache_size = -65536")  # KiB: the index of a million keys
    return db


def _look_at(path: Path) -> None:
    try:
        with path.open("rb") as file:
            header = file.read(100)
        size = path.stat().st_size
        log = path.with_name(path.name + "-wal")
        has_log = log.exists() and log.stat().st_size > 0
    except FileNotFoundError:
        raise DataError(f"{path}: must be the store of a sweep, got no such file") from None
    except OSError as error:
        raise DataError(f"{path}: must be possible to read, got {error.strerror or error}") from None
    if not size or header.count(0) == len(header):
        raise _damaged(path, "an empty file" if not size else "an empty header")
    if not header.startswith(b"SQLite format 3\0"):
        raise DataError(f"{path}: must be the store of a sweep, got another kind of file; {_help(path)}")
    n_bytes = int.from_bytes(header[28:32], "big") * PAGE_BYTES
    if size < n_bytes and not has_log:
        raise _damaged(path, f"{size} of {n_bytes} bytes")


def _check(db: sqlite3.Connection, path: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise DataError(f"{path}: must be the store of a sweep, got an SQLite file of another program")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        version = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        by = f" (imcsim {version[0].decode()})" if version else ""
        raise DataError(
            f"{path}: must be a store of format {FORMAT}, got format {found}{by}; "
            "go on with that version of imcsim, or give another --out"
        )
    deadline = time.monotonic() + CHECK_S
    db.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
    try:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        verdict = b"ok"  # as far as it got
    finally:
        db.set_progress_handler(None, 0)
    if verdict != b"ok":
        raise _damaged(path, " ".join(verdict.decode().split()))


def _help(path: Path) -> str:
    return f"if it once was one, 'imcsim sweep recover {path.parent}' saves what can still be read"


def _damaged(path: Path, what: str) -> DataError:
    return DataError(
        f"{path}: must be a whole store, got {what}; it was damaged: "
        f"'imcsim sweep recover {path.parent}' saves what can still be read"
    )


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one line for the user."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(path, str(error)) from None
        if code == sqlite3.SQLITE_BUSY:
            message = f"{path}: must become free within {BUSY_S:g} s, got {error}; is another program at work on it?"
        elif code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            message = f"{path}: must be possible to write, got {error}; what was kept stays: make room and start again"
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            message = f"{path}: must be possible to write, got {error}"
        else:
            raise
        raise OutputError(message) from None


# Columns and numbers

_NO_NUMBERS = np.zeros(0, dtype=np.int64)


class _Placed:
    """The keys of the points of one stage by their numbers, as far as they were read."""

    def __init__(self) -> None:
        self._last = 0
        self._keys = np.zeros(0, dtype=KEY)

    def of(self, db: sqlite3.Connection, sweep: int, stage: int, numbers: NDArray[np.int64]) -> NDArray[np.bytes_]:
        """Return the keys of *numbers*, empty where there are none; reads what came since it was last asked."""
        rows = db.execute(
            "SELECT id, numbers, keys FROM places WHERE sweep = ? AND stage = ? AND id > ? ORDER BY id",
            (sweep, stage, self._last),
        )
        for id, texts, content in rows:
            at = np.array(json.loads(texts), dtype=np.int64)
            self._keys = _grown(self._keys, int(at.max()) + 1)
            self._keys[at] = keys_of(content)
            self._last = id
        self._keys = _grown(self._keys, int(numbers.max()) + 1)
        return self._keys[numbers]


class _Described:
    """Which points of a sweep have parameters in the store, as far as they were read."""

    def __init__(self) -> None:
        self._last = 0
        self._is_there = np.zeros(0, dtype=np.bool_)

    def of(self, db: sqlite3.Connection, sweep: int, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say it of *numbers*; reads what came since it was last asked."""
        rows = db.execute("SELECT id, numbers FROM points WHERE sweep = ? AND id > ? ORDER BY id", (sweep, self._last))
        for id, texts in rows:
            at = np.array(json.loads(texts), dtype=np.int64)
            self._is_there = _grown(self._is_there, int(at.max()) + 1)
            self._is_there[at] = True
            self._last = id
        self._is_there = _grown(self._is_there, int(numbers.max()) + 1)
        return self._is_there[numbers]


def _grown(array: NDArray[Any], n: int) -> NDArray[Any]:
    if n <= len(array):
        return array
    larger = np.zeros(max(n, 2 * len(array)), dtype=array.dtype)
    larger[: len(array)] = array
    return larger


def _cut(columns: Mapping[str, list[Value | None]], rows: slice) -> dict[str, list[Value | None]]:
    parts = {name: values[rows] for name, values in columns.items()}
    return {name: part for name, part in parts.items() if any(value is not None for value in part)}


def _floats(row: Mapping[str, float]) -> dict[str, Value]:
    return {name: float(value) for name, value in row.items()}


def _split(content: bytes) -> list[bytes]:
    return [content[at : at + KEY_BYTES] for at in range(0, len(content), KEY_BYTES)]


def _is_rising(numbers: NDArray[np.int64]) -> bool:
    return bool((numbers[1:] > numbers[:-1]).all())


def _last_of_each(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each number comes last, in the order of numbers."""
    _, from_end = np.unique(numbers[::-1], return_index=True)
    return len(numbers) - 1 - from_end


def _joined(
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
    for stage, (numbers, results) in places.items():
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
        messages[at] = [messages_of_results.get(result) for result in results.tolist()]
    return Table(points, placed, stages, values, engines, messages)
