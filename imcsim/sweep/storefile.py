"""The file of a store: its tables, how it is made and opened, and what is said of one that cannot be."""

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imcsim.errors import DataError, OutputError
from imcsim.sweep.kept import KEY_BYTES
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
    id INTEGER PRIMARY KEY, engine TEXT NOT NULL, version TEXT NOT NULL, at NOT NULL, keys BLOB NOT NULL,
    seconds TEXT NOT NULL, figures TEXT NOT NULL, messages TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE keys(key BLOB PRIMARY KEY CHECK (length(key) = {KEY_BYTES}), block INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sweeps(
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, version TEXT NOT NULL, name TEXT NOT NULL, text TEXT NOT NULL,
    at NOT NULL, checksum INTEGER NOT NULL, UNIQUE (digest, version));
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


def make(path: Path) -> None:
    """Make an empty store; raises FileExistsError where a file of the name is there, and leaves that alone.

    The store is made under a passing name: under its own nobody ever sees half of one.
    """
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        new = Path(folder) / path.name
        with in_words(path):
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
        publish(new, path)


def publish(new: Path, path: Path) -> None:
    """Give a finished store its name; raises FileExistsError where another has it, and leaves that alone."""
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise FileExistsError(path) from None
        new.rename(path)


def make_missing(path: Path) -> None:
    """Make an empty store where there is none; raises ImcsimError where that cannot be."""
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


def open_store(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a store that is there; raises DataError where it is none, of another format, or seen to be damaged."""
    has_log = _look_at(path)
    db = connect(path, "ro")
    try:
        db.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError:
        db.close()
        if not read_only or has_log:
            raise
        db = connect(path, "ro&immutable=1")  # in a folder that cannot be written to, where nobody can be at work
    try:
        _check(db, path)
        if not read_only:  # only now: who closes a store that he may write brings the log into the file
            db.close()
            db = connect(path, "rw")
            db.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last results, and never the file
            db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: new keys lie anywhere among the old ones
        db.execute("PRAGMA cache_size = -65536")  # KiB: the index of a million keys
    except BaseException:
        db.close()
        raise
    return db


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Return a connection to a store that is there."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)


def _look_at(path: Path) -> bool:
    """Check what can be seen of a file without SQLite, which may change it; return whether it has a log beside it."""
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
        raise damaged(path, "an empty file" if not size else "an empty header")
    if not header.startswith(b"SQLite format 3\0"):
        raise DataError(f"{path}: must be the store of a sweep, got another kind of file; {_help(path)}")
    n_bytes = int.from_bytes(header[28:32], "big") * PAGE_BYTES
    if size < n_bytes and not has_log:
        raise damaged(path, f"{size} of {n_bytes} bytes")
    return has_log


def _check(db: sqlite3.Connection, path: Path) -> None:
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise DataError(f"{path}: must be the store of a sweep, got an SQLite file of another program")
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        version = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
        by = f" (imcsim {version[0]})" if version else ""
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
        verdict = "ok"  # as far as it got
    finally:
        db.set_progress_handler(None, 0)
    if verdict != "ok":
        raise damaged(path, " ".join(verdict.split()))


def _help(path: Path) -> str:
    return f"if it once was one, 'imcsim sweep recover {path.parent}' saves what can still be read"


def damaged(path: Path, what: str) -> DataError:
    """Return what to say of a store that was damaged."""
    return DataError(
        f"{path}: must be a whole store, got {what}; it was damaged: "
        f"'imcsim sweep recover {path.parent}' saves what can still be read"
    )


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one line for the user."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_no_text = str(error).startswith("Could not decode")
        if is_no_text or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise damaged(path, str(error)) from None
        if code == sqlite3.SQLITE_BUSY:
            message = f"{path}: must become free within {BUSY_S:g} s, got {error}; is another program at work on it?"
        elif code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            message = f"{path}: must be possible to write, got {error}; what was kept stays: make room and start again"
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            message = f"{path}: must be possible to write, got {error}"
        else:
            raise
        raise OutputError(message) from None
