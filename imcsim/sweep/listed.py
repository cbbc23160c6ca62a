"""Points that a user gives one by one: in the sweep file, or as a CSV file with the parameters' names on top."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imcsim.arch.load import shown
from imcsim.errors import ConfigError
from imcsim.sweep.parameters import column_of
from imcsim.sweep.points import Points, points_of

GREATEST_FILE_BYTES = 1 << 30


def points_of_records(records: Sequence[Any]) -> Points:
    """Return the points of mappings; raises ConfigError for one that is none, or that is there twice."""
    seen: dict[frozenset[tuple[str, Any]], int] = {}
    for i, record in enumerate(records, start=1):
        if not isinstance(record, Mapping) or not record:
            raise ConfigError(f"{i}: must be a mapping of parameters to values, got {shown(record)}")
        for name, value in record.items():
            if not isinstance(value, bool | int | float | str):
                raise ConfigError(f"{i}: {name}: must be a number, text, true or false, got {shown(value)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{i}: {name}: must be finite, got {shown(value)}")
            if isinstance(value, int) and abs(value) >= 2**63:
                raise ConfigError(f"{i}: {name}: must be less than 2**63, got {shown(value)}")
        first = seen.setdefault(frozenset(record.items()), i)
        if first < i:
            raise ConfigError(f"{i}: must be a point of its own, got point {first} again")
    found = points_of(records)
    for name, column in found.columns.items():
        values = column if name not in found.has else column[found.has[name]]
        kinds = {
            "text" if isinstance(v, str) else "truth" if isinstance(v, bool) else "number" for v in values.tolist()
        }
        if len(kinds) > 1:
            raise ConfigError(f"{name}: must be values of one kind, got {' and '.join(sorted(kinds))}")
    return found


def points_of_file(path: Path, label: str) -> Points:
    """Return the points of a CSV file; a point lacks the parameters whose field is empty.

    A column of whole numbers, of numbers, or of true and false holds these; any other holds texts. Raises ConfigError
    for a file that cannot be read so, and for a point that is there twice.
    """
    import pyarrow as pa
    from pyarrow import compute, csv

    if not path.is_file():
        raise ConfigError(f"{label}: no such file")
    if (size := path.stat().st_size) > GREATEST_FILE_BYTES:
        raise ConfigError(f"{label}: must be a CSV file of at most {GREATEST_FILE_BYTES} bytes, got {size}")
    try:
        with path.open("rb") as file:
            names = next(iter(file.readline().decode("utf-8-sig").splitlines()), "").split(",")
        names = [name.strip().strip('"') for name in names]
        kinds = {name: pa.string() for name in names}
        read = csv.ReadOptions(column_names=names, skip_rows=1)
        options = csv.ConvertOptions(column_types=kinds, strings_can_be_null=True, null_values=[""])
        table = csv.read_csv(path, read_options=read, convert_options=options)
    except OSError as error:
        raise ConfigError(f"{label}: cannot be read: {error.strerror or error}") from None
    except (pa.ArrowInvalid, UnicodeDecodeError, pa.ArrowKeyError) as error:
        said = str(error).splitlines()[0]
        raise ConfigError(f"{label}: must be a CSV file with names on top, got {said}") from None
    if "" in names or len(set(names)) < len(names):
        raise ConfigError(f"{label}: must name every column once, got {shown(','.join(names))}")
    if not len(table):
        raise ConfigError(f"{label}: must hold at least one point, got none")
    columns, has = {}, {}
    for name in names:
        texts = table.column(name)
        if texts.null_count == len(texts):
            raise ConfigError(f"{label}: {name}: must have a value in some point, got none")
        column = None
        for kind in (pa.int64(), pa.float64()):
            try:
                column = compute.cast(texts, kind)
                break
            except pa.ArrowInvalid:
                continue
        if column is None and set(compute.unique(texts).to_pylist()) <= {"true", "false", None}:
            column = compute.cast(texts, pa.bool_())
        there = ~np.asarray(texts.is_null())
        found = texts if column is None else column
        if not there.all():
            has[name] = there
            found = found.fill_null(found.drop_null()[0])
        columns[name] = column_of(found.to_numpy()) if column is not None else np.array(found.to_pylist(), dtype=object)
        if columns[name].dtype == np.float64 and not np.isfinite(columns[name]).all():
            at = int(np.flatnonzero(~np.isfinite(columns[name]))[0])
            raise ConfigError(f"{label}: {name}: must be finite, got {columns[name][at]} in point {at + 1}")
    return Points(np.arange(len(table)), columns, has)
