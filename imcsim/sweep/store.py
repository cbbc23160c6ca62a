"""Every result of a sweep in one SQLite file, under its key: append-only, safe to kill, shared by sweeps at once.

A *result* is what one engine run of one point gave, figures or a message; its key is a digest of all that it rests on,
the version of imcsim included, so a result is never changed and never removed. A *place* says which point of which
sweep has which key at which stage. A *claim* says that somebody is at work on a key; it holds while its owner lives and
is heard from. Every row that is to last bears a checksum over its content: a store whose bytes were damaged says so
in place of giving wrong figures, and `imcsim.sweep.recover` tells good rows from bad ones.

Figures that are NaN are none, and are left out.
"""

import json
import math
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
    Columns,
    checksum_of_place,
    checksum_of_point,
    checksum_of_result,
    checksum_of_sweep,
    json_of,
    parsed,
)
from imcsim.sweep.lease import LEASE_S, Heart, Owner, this_owner
from imcsim.sweep.points import Points, Value
from imcsim.version import __version__

FORMAT = 1
"""Of the tables below; a store of another one is refused."""

APPLICATION_ID = 0x696D6373
"""Tells a store from other SQLite files: "imcs"."""

PAGE_BYTES = 4096
"""Fixed, so that pages can be found in a file without its header."""

KEY_BYTES = 16
BUSY_S = 60.0
"""How long one process waits for another's transaction."""

CHECK_S = 0.5
"""How long a store is looked through when it is opened."""

CHUNK_ROWS = 50_000
"""Rows of a table that are Python objects at one time."""

TABLES = f"""
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE results(
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE CHECK (length(key) = {KEY_BYTES}), engine TEXT NOT NULL,
    version TEXT NOT NULL, seconds REAL NOT NULL, at REAL NOT NULL, figures TEXT NOT NULL, message TEXT,
    checksum INTEGER NOT NULL);
CREATE TABLE sweeps(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL, text TEXT NOT NULL, version TEXT NOT NULL,
    at REAL NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE points(
    sweep INTEGER NOT NULL, number INTEGER NOT NULL, parameters TEXT NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (sweep, number)) WITHOUT ROWID;
CREATE TABLE places(
    sweep INTEGER NOT NULL, stage INTEGER NOT NULL, number INTEGER NOT NULL, key BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (sweep, stage, number)) WITHOUT ROWID;
CREATE TABLE owners(
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    started TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE claims(key BLOB PRIMARY KEY, owner INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX claims_of_owner ON claims(owner);
"""

_ADD_RESULT = """
INSERT INTO results(key, engine, version, seconds, at, figures, message, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(key) DO NOTHING"""
_ADD_SWEEP = """
INSERT INTO sweeps(digest, name, text, version, at, checksum) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT(digest) DO NOTHING"""
_ADD_POINT = """
INSERT INTO points(sweep, number, parameters, checksum) VALUES (?, ?, ?, ?)
ON CONFLICT(sweep, number) DO UPDATE SET parameters = excluded.parameters, checksum = excluded.checksum
WHERE checksum != excluded.checksum"""
_ADD_PLACE = """
INSERT INTO places(sweep, stage, number, key, checksum) VALUES (?, ?, ?, ?, ?)
ON CONFLICT(sweep, stage, number) DO UPDATE SET key = excluded.key, checksum = excluded.checksum
WHERE checksum != excluded.checksum"""


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
        """Register a sweep by the *digest* of its normalised *text*, once, and return its number."""
        with self._writing():
            row = (digest, name, text, __version__, time.time(), checksum_of_sweep(digest, name, text))
            self._db.execute(_ADD_SWEEP, row)
            return int(self._db.execute("SELECT id FROM sweeps WHERE digest = ?", (digest,)).fetchone()[0])

    def place(
        self,
        sweep: int,
        stage: int,
        numbers: Iterable[int],
        keys: Sequence[bytes],
        parameters: Iterable[Mapping[str, Value]],
    ) -> None:
        """Say which *keys* the points of these *numbers* have at a stage of a sweep; the last word counts."""
        texts = [json_of(row) for row in parameters]
        wanted = [int(number) for number in numbers]
        points = [
            (sweep, number, text, checksum_of_point(sweep, number, text.encode()))
            for number, text in zip(wanted, texts, strict=True)
        ]
        places = [
            (sweep, stage, number, key, checksum_of_place(sweep, stage, number, key))
            for number, key in zip(wanted, keys, strict=True)
        ]
        with self._writing():
            self._db.executemany(_ADD_POINT, points)
            self._db.executemany(_ADD_PLACE, places)

    # Results

    def known(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """Return what the store has under those of *keys* that it has."""
        found = {}
        with _in_words(self.path):
            select = "SELECT key, engine, figures, message, checksum FROM results WHERE key IN"
            for key, engine, figures, message, checksum in self._among(select, keys):
                if checksum != checksum_of_result(key, engine, figures, message):
                    raise _damaged(self.path, f"a wrong checksum of the result {key.hex()}")
                found[key] = Kept(
                    {name: float(value) for name, value in json.loads(figures).items()},
                    None if message is None else message.decode(),
                )
        return found

    def claim(self, keys: Sequence[bytes]) -> list[bool]:
        """Say of each key whether it is ours to compute from now on: not known, and nobody is at work on it.

        A key that we hold already is not given a second time. Claims of owners that are gone or silent lapse.
        """
        with self._writing():
            owner = self._present()
            self._bury(*(id for id, _, is_alive in self._owners() if not is_alive and id != owner))
            taken = {key for (key,) in self._among("SELECT key FROM results WHERE key IN", keys)}
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
        rows = []
        for key, of_point, message, second in zip(keys, figures, messages, seconds, strict=True):
            text = json_of({name: float(value) for name, value in of_point.items() if value == value})
            checksum = checksum_of_result(
                key, engine.encode(), text.encode(), None if message is None else message.encode()
            )
            rows.append((key, engine, __version__, float(second), at, text, message, checksum))
        with self._writing():
            self._db.executemany(_ADD_RESULT, rows)
            self._db.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])

    # Reading

    def sweeps(self) -> list[KeptSweep]:
        """Return all sweeps that were begun on this store, in that order."""
        with _in_words(self.path):
            rows = self._db.execute("SELECT id, digest, name, text, version, at, checksum FROM sweeps ORDER BY id")
            found = []
            for number, digest, name, text, version, at, checksum in rows:
                if checksum != checksum_of_sweep(digest, name.decode(), text.decode()):
                    raise _damaged(self.path, f"a wrong checksum of sweep {number}")
                found.append(KeptSweep(number, name.decode(), text.decode(), version.decode(), at))
            return found

    def table(self, sweep: int) -> Table:
        """Return all points of a sweep with their figures; raises DataError where rows were damaged."""
        with _in_words(self.path), self._reading():
            points = _points(self._db, self.path, sweep)
            return _with_results(self._db, self.path, sweep, points)

    def progress(self, sweep: int) -> Progress:
        """Return how far a sweep is; quick enough to be asked every few seconds."""
        now = time.time()
        with _in_words(self.path), self._reading():
            name = self._db.execute("SELECT name FROM sweeps WHERE id = ?", (sweep,)).fetchone()
            if name is None:
                raise DataError(f"{self.path}: must hold sweep {sweep}, got none of that number")
            counts = self._db.execute(
                """SELECT p.stage, count(*), count(r.id), count(r.message), count(c.key), sum(coalesce(r.at, 0) > ?)
                FROM places p LEFT JOIN results r ON r.key = p.key LEFT JOIN claims c ON c.key = p.key
                WHERE p.sweep = ? GROUP BY p.stage ORDER BY p.stage""",
                (now - 60, sweep),
            ).fetchall()
            claims = dict(self._db.execute("SELECT owner, count(*) FROM claims GROUP BY owner"))
            workers = tuple(
                Worker(owner.name, claims.get(id, 0), now - owner.seen, is_alive)
                for id, owner, is_alive in self._owners()
            )
        stages = tuple(StageCounts(*row[:5]) for row in counts)
        return Progress(name[0].decode(), stages, workers, sum(row[5] for row in counts))

    def results(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield all results in the order in which they came, many at a time.

        Each is (key, engine, version, seconds, at, figures, message); texts are bytes, figures JSON.
        """
        with _in_words(self.path):
            rows = self._db.execute(
                "SELECT key, engine, version, seconds, at, figures, message, checksum FROM results ORDER BY id"
            )
            while chunk := rows.fetchmany(CHUNK_ROWS):
                for row in chunk:
                    if row[7] != checksum_of_result(row[0], row[1], row[5], row[6]):
                        raise _damaged(self.path, f"a wrong checksum of the result {row[0].hex()}")
                yield [row[:7] for row in chunk]

    def export(self, path: Path) -> None:
        """Write every result to a Parquet or a CSV file, by its suffix."""
        from imcsim.sweep.export import write_results  # pyarrow: only where it is needed

        write_results(self.results(), Path(path))

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


# Tables, column by column


def _points(db: sqlite3.Connection, path: Path, sweep: int) -> Points:
    query = "SELECT number, parameters, checksum FROM points WHERE sweep = ? ORDER BY number"
    rows = db.execute(query, (sweep,))
    numbers: list[NDArray[np.int64]] = []
    columns = Columns()
    while chunk := rows.fetchmany(CHUNK_ROWS):
        for number, parameters, checksum in chunk:
            if checksum != checksum_of_point(sweep, number, parameters):
                raise _damaged(path, f"a wrong checksum of point {number}")
        numbers.append(np.array([number for number, _, _ in chunk], dtype=np.int64))
        columns.add(parsed(parameters for _, parameters, _ in chunk))
    values, has = columns.joined()
    return Points(np.concatenate([np.zeros(0, dtype=np.int64), *numbers]), values, has)


def _with_results(db: sqlite3.Connection, path: Path, sweep: int, points: Points) -> Table:
    n = len(points)
    placed, stages = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    engines, messages = np.full(n, None, dtype=object), np.full(n, None, dtype=object)
    figures: dict[str, NDArray[np.float64]] = {}
    known = db.execute("SELECT DISTINCT stage FROM places WHERE sweep = ? ORDER BY stage", (sweep,)).fetchall()
    for (stage,) in known:
        rows = db.execute(
            """SELECT p.number, r.key, r.engine, r.figures, r.message, r.checksum
            FROM places p LEFT JOIN results r ON r.key = p.key WHERE p.sweep = ? AND p.stage = ? ORDER BY p.number""",
            (sweep, stage),
        )
        while chunk := rows.fetchmany(CHUNK_ROWS):
            at = np.searchsorted(points.numbers, np.array([row[0] for row in chunk], dtype=np.int64))
            placed[at] = stage
            has_result = np.array([row[1] is not None for row in chunk])
            at, chunk = at[has_result], [row for row in chunk if row[1] is not None]
            for _, key, engine, text, message, checksum in chunk:
                if checksum != checksum_of_result(key, engine, text, message):
                    raise _damaged(path, f"a wrong checksum of the result {key.hex()}")
            stages[at] = stage
            _fill(chunk, at, figures, engines, messages)
    return Table(points, placed, stages, figures, engines, messages)


def _fill(
    chunk: Sequence[tuple[Any, ...]],
    at: NDArray[np.int64],
    figures: dict[str, NDArray[np.float64]],
    engines: NDArray[np.object_],
    messages: NDArray[np.object_],
) -> None:
    """Write the results of a chunk into the columns, at their places."""
    n = len(engines)
    rows = parsed(row[3] for row in chunk)
    for name in sorted({name for row in rows for name in row}):
        column = figures.setdefault(name, np.full(n, np.nan))
        values = np.array([row.get(name, math.nan) for row in rows], dtype=np.float64)
        is_there = ~np.isnan(values)
        column[at[is_there]] = values[is_there]
    names = {engine: engine.decode() for engine in {row[2] for row in chunk}}
    for place, row, of_point in zip(at.tolist(), chunk, rows, strict=True):
        messages[place] = None if row[4] is None else row[4].decode()
        if of_point:
            engines[place] = names[row[2]]
