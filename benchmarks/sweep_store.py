"""How fast a store takes results and gives tables, beside one transaction a result and beside lines of a CSV file.

Run: python benchmarks/sweep_store.py [--points N] [--table-points N]
"""

import argparse
import csv
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from imcsim.sweep.store import Store

BATCH = 4000
LIMITS_S = {"add": 5.0, "table": 12.0, "export": 20.0}
"""For 100 000 results with their places; for the table, and each export, of 1 000 000 points."""

LIMIT_GIB = 1.5


def key(number: int) -> bytes:
    return blake2b(b"%d" % number, digest_size=16).digest()


def parameters(number: int) -> dict[str, int | float | str]:
    return {
        "tile.count_max": number % 13,
        "tile.rows_per_access": 8 * (number % 5),
        "main_memory.bits_per_ns": number / 7,
        "mapping.policy": "least_time",
    }


def figures(number: int) -> dict[str, float]:
    return {"latency_ns": number * 1.1, "energy_pJ": number / 3, "edp_pJ_ns": number * 1.7, "area_um2": number / 9}


Batch = tuple[range, list[bytes], list[dict], list[dict]]


def batches(n: int):
    for start in range(0, n, BATCH):
        numbers = range(start, min(start + BATCH, n))
        yield numbers, [key(i) for i in numbers], [parameters(i) for i in numbers], [figures(i) for i in numbers]


def seconds_of(n: int, take: Callable[[Batch], None]) -> tuple[float, float]:
    """Return the seconds on the clock, and of the processor, that a way takes for n points, without making them."""
    total = of_processor = 0.0
    for batch in batches(n):
        start, start_of_processor = time.perf_counter(), time.process_time()
        take(batch)
        total += time.perf_counter() - start
        of_processor += time.process_time() - start_of_processor
    return total, of_processor


def into_store(store: Store, sweep: int) -> Callable[[Batch], None]:
    def take(batch: Batch) -> None:
        numbers, keys, rows, values = batch
        store.place(sweep, 0, numbers, keys, rows)
        store.add(keys, values, [None] * len(keys), [0.0] * len(keys), "estimate")

    return take


def into_transactions(path: Path) -> Callable[[Batch], None]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    names = [*parameters(0), *figures(0)]
    db.execute(f"CREATE TABLE results(key BLOB PRIMARY KEY, number, {', '.join(map(repr, names))})")
    insert = f"INSERT INTO results VALUES ({', '.join('?' * (len(names) + 2))})"

    def take(batch: Batch) -> None:
        for number, one, row, values in zip(*batch, strict=True):
            db.execute(insert, (one, number, *row.values(), *values.values()))

    return take


def into_csv(path: Path) -> Callable[[Batch], None]:
    def take(batch: Batch) -> None:
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            for number, one, row, values in zip(*batch, strict=True):
                writer.writerow((number, one.hex(), *row.values(), *values.values()))
            file.flush()
            os.fsync(file.fileno())

    return take


def timed(function: Callable[[], object]) -> tuple[float, float]:
    start, start_of_processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - start_of_processor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--table-points", type=int, default=1_000_000)
    args = parser.parse_args()
    missed = False

    def line(name: str, seconds: tuple[float, float], n: int, limit: float | None = None) -> None:
        nonlocal missed
        missed |= limit is not None and seconds[0] >= limit
        verdict = "" if limit is None else f"  {limit:g} s {'PASS' if seconds[0] < limit else 'MISS'}"
        rate = n / seconds[0]
        print(f"{name:<46} {seconds[0]:7.2f} s {seconds[1]:7.2f} s of processor {rate:9.0f} points/s{verdict}")

    with tempfile.TemporaryDirectory() as name:
        folder, n = Path(name), args.points
        print(f"{n} results with four parameters and four figures, in batches of {BATCH}")
        with Store(folder / "store.sqlite") as store:
            of_store = seconds_of(n, into_store(store, store.begin("a", "text", b"1" * 16)))
        of_transactions = seconds_of(n, into_transactions(folder / "transactions.sqlite"))
        of_csv = seconds_of(n, into_csv(folder / "lines.csv"))
        line("store: results and places", of_store, n, LIMITS_S["add"] if n == 100_000 else None)
        line("SQLite, one transaction a result", of_transactions, n)
        line("lines of a CSV file, neither sought nor unique", of_csv, n)
        ratios = [other[1] / of_store[1] for other in (of_transactions, of_csv)]
        print(f"by the processor's time {ratios[0]:.2f} times as fast as single transactions, {ratios[1]:.2f} as CSV")

    with tempfile.TemporaryDirectory() as name:
        path, n = Path(name) / "store.sqlite", args.table_points
        print(f"{n} points with four parameters and four figures")
        with Store(path) as store:
            line("all added", seconds_of(n, into_store(store, store.begin("a", "text", b"1" * 16))), n)
        with Store(path, read_only=True) as store:
            is_full = n == 1_000_000
            line("progress", timed(lambda: store.progress(1)), n)
            line("table", timed(lambda: store.table(1)), n, LIMITS_S["table"] if is_full else None)
            gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"greatest memory so far: {gib:.2f} GiB  {LIMIT_GIB} GiB {'PASS' if gib < LIMIT_GIB else 'MISS'}")
            missed |= gib >= LIMIT_GIB
            for suffix in ("parquet", "csv"):
                seconds = timed(lambda file=f"all.{suffix}": store.export(path.with_name(file)))
                line(f"export to {suffix}", seconds, n, LIMITS_S["export"] if is_full else None)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
