"""Every result of a sweep in one SQLite file, under its key: append-only, safe to kill, shared by sweeps at once.

A *result* is what one engine run of one point gave, figures or a message; its key is a digest of all that it rests on,
the version of imcsim included, so a result is never changed and never removed. A *place* says which point of which
sweep has which key at which stage. A *claim* says that somebody is at work on a key; it holds while its owner lives and
is heard from. Every row that is to last bears a checksum over its content: a store whose bytes were damaged says so
in place of giving wrong figures, and `imcsim.sweep.recover` tells good rows from bad ones.

Figures that are NaN are none, and are left out.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.errors import DataError, ImcsimError
from imcsim.sweep.kept import (
    KEY_BYTES,
    Columns,
    blocks,
    checksum,
    find,
    keys_of,
    text_of,
    text_of_list,
    turned,
    turned_figures,
)
from imcsim.sweep.lease import LEASE_S, Heart, Owner, this_owner
from imcsim.sweep.points import Column, Points, Value
from imcsim.sweep.storefile import COLUMNS, damaged, in_words, make_missing, open_store
from imcsim.sweep.tables import (
    NO_MESSAGES,
    NO_NUMBERS,
    Described,
    Kept,
    KeptSweep,
    Placed,
    Progress,
    ResultBlock,
    StageCounts,
    Table,
    Worker,
    block_of,
    cut,
    is_rising,
    joined_table,
    last_of_each,
    split,
)
from imcsim.version import __version__


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
        self._placed: dict[tuple[int, int], Placed] = {}
        self._described: dict[int, Described] = {}
        if not read_only:
            make_missing(self.path)
        with in_words(self.path):
            self._db = open_store(self.path, read_only=read_only)

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
            placed = self._placed.setdefault((sweep, stage), Placed())
            placed.read(self._rows("places", "WHERE sweep = ? AND stage = ? AND id > ?", sweep, stage, placed.last))
            described = self._described.setdefault(sweep, Described())
            described.read(self._rows("points", "WHERE sweep = ? AND id > ?", sweep, described.last))
            old, has_row = placed.of(at), described.of(at)
            is_new = old != new
            to_describe = np.flatnonzero(~has_row | (is_new & (old != b""))).tolist()
            columns = turned([rows[i] for i in to_describe])
            self._append(
                "points",
                [
                    (sweep, text_of_list(at[to_describe[rows]].tolist()), text_of(cut(columns, rows)))
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
        with in_words(self.path), self._reading():
            wanted = dict(self._among("SELECT key, block FROM keys WHERE key IN", keys))
            numbers = list(dict.fromkeys(wanted.values()))
            for block in self._among(f"SELECT {COLUMNS['results']}, checksum FROM results WHERE id IN", numbers):
                _, _, _, content, _, texts, said = self._sound("results", block)
                figures, messages = json.loads(texts), json.loads(said)
                for row, key in enumerate(split(content)):
                    if key in wanted:
                        of_row = {
                            name: float(values[row]) for name, values in figures.items() if values[row] is not None
                        }
                        found[key] = Kept(of_row, messages.get(str(row)))
            if found.keys() != wanted.keys():
                raise damaged(self.path, "keys without results")
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
            columns = turned_figures([figures[row] for row in kept])
            found = []
            for rows in blocks(len(kept)):
                those = kept[rows]
                block = block_of(
                    engine,
                    __version__,
                    at,
                    [keys[row] for row in those],
                    [seconds[row] for row in those],
                    {name: values[rows] for name, values in columns.items()},
                    [messages[row] for row in those],
                )
                found.append(astuple(block))
            last = self._append("results", found)
            first = last - len(found) + 1
            pairs = [(keys[row], first + i) for i, rows in enumerate(blocks(len(kept))) for row in kept[rows]]
            self._db.executemany("INSERT INTO keys(key, block) VALUES (?, ?)", pairs)
            self._db.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])

    def adopt(self, results: Iterable[ResultBlock]) -> int:
        """Keep results of another store as they are; what is there already stays. Return how many were new."""
        n_new = 0
        with self._writing():
            for block in results:
                keys = block.keys()
                there = {key for (key,) in self._among("SELECT key FROM keys WHERE key IN", keys)}
                row_of_key = {key: row for row, key in reversed(list(enumerate(keys))) if key not in there}
                rows = sorted(row_of_key.values())
                if rows:
                    number = self._append("results", [astuple(block if len(rows) == len(keys) else block.take(rows))])
                    pairs = [(keys[row], number) for row in rows]
                    self._db.executemany("INSERT INTO keys(key, block) VALUES (?, ?)", pairs)
                n_new += len(rows)
        return n_new

    def adopt_sweeps(
        self,
        sweeps: Iterable[tuple[Any, ...]],
        points: Iterable[tuple[Any, ...]],
        places: Iterable[tuple[Any, ...]],
    ) -> int:
        """Take over the sweeps of another store, number first, with their points; return of how many points.

        Only for a store without sweeps of its own, since they keep their numbers; points of no sweep are left out.
        """
        with self._writing():
            numbers = set()
            for number, *row in sweeps:
                numbers.add(number)
                self._db.execute(
                    f"INSERT INTO sweeps(id, {COLUMNS['sweeps']}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (number, *row, checksum("sweeps", *row)),
                )
            of_sweeps = [row for row in points if row[0] in numbers]
            self._append("points", of_sweeps)
            self._append("places", [row for row in places if row[0] in numbers])
        return len({(row[0], number) for row in of_sweeps for number in json.loads(row[1])})

    # Reading

    def sweeps(self) -> list[KeptSweep]:
        """Return all sweeps that were begun on this store, in that order."""
        with in_words(self.path):
            rows = list(self._rows("sweeps", ""))
        return [KeptSweep(number, name, text, version, at) for number, _, version, name, text, at in rows]

    def table(self, sweep: int) -> Table:
        """Return all points of a sweep with their figures; raises DataError where rows were damaged."""
        with in_words(self.path), self._reading():
            points = self._points(sweep)
            places = self._keys_of_stages(sweep)
            contents = self._db.execute("SELECT keys FROM results ORDER BY id").fetchall()
            all_keys = keys_of(b"".join(content for (content,) in contents))
            found = {stage: find(keys, all_keys) for stage, (_, keys) in places.items()}
            needed = np.zeros(len(all_keys), dtype=np.bool_)
            for at in found.values():
                needed[at[at >= 0]] = True
            figures, has, engines, messages = self._results(needed, [len(content) for (content,) in contents])
        return joined_table(
            points, {stage: (places[stage][0], at) for stage, at in found.items()}, figures, has, engines, messages
        )

    def progress(self, sweep: int) -> Progress:
        """Return how far a sweep is; quick enough to be asked every few seconds."""
        now = time.time()
        with in_words(self.path), self._reading():
            name = self._db.execute("SELECT name FROM sweeps WHERE id = ?", (sweep,)).fetchone()
            if name is None:
                raise DataError(f"{self.path}: must hold sweep {sweep}, got none of that number")
            places = self._keys_of_stages(sweep)
            results = [(content, at, said) for _, _, _, at, content, _, _, said in self._rows("results", "")]
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
            if said != NO_MESSAGES:
                has_failed[[start + int(row) for row in json.loads(said)]] = True
        stages, n_last_minute = [], 0
        for stage, (_, keys) in places.items():
            at = find(keys, all_keys)
            at = at[at >= 0]
            n_claimed = int((find(keys, claimed) >= 0).sum())
            stages.append(StageCounts(stage, len(keys), len(at), int(has_failed[at].sum()), n_claimed))
            n_last_minute += int(is_new[at].sum())
        return Progress(name[0], tuple(stages), workers, n_last_minute)

    def results(self) -> Iterator[ResultBlock]:
        """Yield all results in the order in which they came, many at a time."""
        with in_words(self.path):
            for _, *row in self._rows("results", ""):
                yield ResultBlock(*row)

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
            raise damaged(self.path, f"a wrong checksum in {table}")
        return row[:-1]

    def _rows(self, table: str, where: str, *values: int) -> Iterator[tuple[Any, ...]]:
        """Yield rows, each with its number first, as they are found to be sound."""
        query = f"SELECT id, {COLUMNS[table]}, checksum FROM {table} {where} ORDER BY id"
        for number, *row in self._db.execute(query, values):
            yield number, *self._sound(table, tuple(row))

    def _points(self, sweep: int) -> Points:
        columns, numbers = Columns(), []
        for _, _, texts, parameters in self._rows("points", "WHERE sweep = ?", sweep):
            of_block = json.loads(texts)
            numbers.append(np.array(of_block, dtype=np.int64))
            columns.add(len(of_block), json.loads(parameters))
        points = Points(np.concatenate([NO_NUMBERS, *numbers]), *columns.joined())
        return points if is_rising(points.numbers) else points.take(last_of_each(points.numbers))

    def _keys_of_stages(self, sweep: int) -> dict[int, tuple[NDArray[np.int64], NDArray[np.bytes_]]]:
        """Return stage to numbers, rising, and keys of its points."""
        numbers: dict[int, list[NDArray[np.int64]]] = {}
        keys: dict[int, list[bytes]] = {}
        for _, _, stage, texts, content in self._rows("places", "WHERE sweep = ?", sweep):
            numbers.setdefault(stage, []).append(np.array(json.loads(texts), dtype=np.int64))
            keys.setdefault(stage, []).append(content)
        found = {}
        for stage in sorted(numbers):
            at, of_stage = np.concatenate(numbers[stage]), keys_of(b"".join(keys[stage]))
            if not is_rising(at):
                last = last_of_each(at)
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
                engines[start : start + n] = block.engine
                if block.messages_text != NO_MESSAGES:
                    messages.update({start + at: message for at, message in block.messages().items()})
            else:
                columns.add(n, {})
            start += n
        return *columns.joined(), engines, messages

    # Transactions, owners

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with in_words(self.path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
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
            owner = Owner(name, host, pid, started, seen)
            found.append((id, owner, owner.is_alive(now, LEASE_S)))
        return found

    def _bury(self, *owners: int) -> None:
        for owner in owners:
            self._db.execute("DELETE FROM claims WHERE owner = ?", (owner,))
            self._db.execute("DELETE FROM owners WHERE id = ?", (owner,))
