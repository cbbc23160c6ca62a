"""Results of a store as one table for other programs: Parquet or CSV, a column for each figure."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from imcsim.errors import ConfigError
from imcsim.results import write_whole
from imcsim.sweep.kept import BLOCK_ROWS, Columns
from imcsim.sweep.tables import ResultBlock, block_of

MARK = b"imcsim"
"""Name of the metadata of a Parquet file by which `imcsim.sweep.recover` knows it."""

BEFORE = {
    "key": pa.string(),
    "engine": pa.string(),
    "version": pa.string(),
    "seconds": pa.float64(),
    "at": pa.float64(),
    "message": pa.string(),
}
"""Columns before those of the figures."""

_BLOCKS = 1000
"""So many are Python's own values at one time."""


def write_results(results: Iterable[ResultBlock], path: Path) -> None:
    """Write *results* by the suffix of *path*, .parquet or .csv; what a result does not have is null, or empty."""
    parquet = partial(pyarrow.parquet.write_table, write_page_checksum=True)
    writers = {".parquet": parquet, ".csv": pyarrow.csv.write_csv}
    if path.suffix not in writers:
        raise ConfigError(f"{path}: must end in .parquet or .csv, got {path.name}")
    table = pa.concat_tables([pa.schema(BEFORE).empty_table(), *_tables(results)], promote_options="default")
    names = sorted(set(table.column_names) - set(BEFORE))
    output = pa.BufferOutputStream()
    writers[path.suffix](table.select([*BEFORE, *names]).replace_schema_metadata({MARK: b"results"}), output)
    write_whole(path, output.getvalue().to_pybytes())


def _tables(results: Iterable[ResultBlock]) -> Iterator[pa.Table]:
    some: list[ResultBlock] = []
    for block in results:
        some.append(block)
        if len(some) == _BLOCKS:
            yield _table(some)
            some = []
    if some:
        yield _table(some)


def _table(some: list[ResultBlock]) -> pa.Table:
    figures = Columns()
    columns: dict[str, list[str | float | None]] = {name: [] for name in BEFORE}
    for block in some:
        keys, messages = block.keys(), block.messages()
        n = len(keys)
        columns["key"] += [key.hex() for key in keys]
        columns["engine"] += [block.engine] * n
        columns["version"] += [block.version] * n
        columns["seconds"] += block.seconds()
        columns["at"] += [block.at] * n
        columns["message"] += [messages.get(row) for row in range(n)]
        figures.add(n, block.figures())
    arrays = {name: pa.array(values, BEFORE[name]) for name, values in columns.items()}
    values, has = figures.joined()
    for name, column in values.items():
        arrays[name] = pa.array(column, pa.float64(), mask=~has[name] if name in has else np.zeros(len(column), bool))
    return pa.table(arrays)


def read_results(path: Path) -> Iterator[ResultBlock]:
    """Yield the results of a Parquet file that `write_results` wrote; none of any other file, or of a broken one."""
    try:
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
        if MARK not in (file.schema_arrow.metadata or {}):
            return
        for batch in file.iter_batches(batch_size=BLOCK_ROWS):
            yield from _blocks(batch.to_pydict())
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return


def _blocks(columns: dict[str, list[Any]]) -> Iterator[ResultBlock]:
    """Yield the rows of a table as blocks, each of rows that came together."""
    together = list(zip(columns["engine"], columns["version"], columns["at"], strict=True))
    names = [name for name in columns if name not in BEFORE]
    start = 0
    for end in range(1, len(together) + 1):
        if end == len(together) or together[end] != together[start]:
            rows = slice(start, end)
            yield block_of(
                *together[start],
                [bytes.fromhex(key) for key in columns["key"][rows]],
                columns["seconds"][rows],
                {name: columns[name][rows] for name in names},
                columns["message"][rows],
            )
            start = end
