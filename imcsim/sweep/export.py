"""Results of a store as one table for other programs: Parquet or CSV, a column for each figure."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from imcsim.errors import ConfigError
from imcsim.results import write_whole
from imcsim.sweep.kept import parsed

MARK = b"imcsim.store"
"""Metadata of a Parquet file that `imcsim.sweep.recover` reads back."""

BEFORE = ("key", "engine", "version", "seconds", "at", "message")
"""Columns before those of the figures."""


def write_results(chunks: Iterable[list[tuple[Any, ...]]], path: Path) -> None:
    """Write results as `Store.results` yields them, by the suffix of *path*; an absent figure is null or empty."""
    writers = {".parquet": pyarrow.parquet.write_table, ".csv": pyarrow.csv.write_csv}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: must end in .parquet or .csv, got {path.suffix!r}")
    table = pa.concat_tables([_empty(), *map(_table, chunks)], promote_options="default")
    names = sorted(set(table.column_names) - set(BEFORE))
    table = table.select([*BEFORE, *names]).replace_schema_metadata({MARK: b"results"})
    output = pa.BufferOutputStream()
    writers[path.suffix](table, output)
    write_whole(path, output.getvalue().to_pybytes())


def _empty() -> pa.Table:
    kinds = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.string())
    return pa.schema(list(zip(BEFORE, kinds, strict=True))).empty_table()


def _table(chunk: list[tuple[Any, ...]]) -> pa.Table:
    figures = parsed(row[5] for row in chunk)
    columns = {
        "key": pa.array([row[0].hex() for row in chunk], pa.string()),
        "engine": pa.array([row[1].decode() for row in chunk], pa.string()),
        "version": pa.array([row[2].decode() for row in chunk], pa.string()),
        "seconds": pa.array([row[3] for row in chunk], pa.float64()),
        "at": pa.array([row[4] for row in chunk], pa.float64()),
        "message": pa.array([row[6] and row[6].decode() for row in chunk], pa.string()),
    }
    for name in sorted({name for row in figures for name in row}):
        columns[name] = pa.array([row.get(name) for row in figures], pa.float64())
    return pa.table(columns)
