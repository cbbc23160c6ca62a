"""Points that a user gives one by one: in the sweep file, or as a CSV file with the parameters' names on top."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imcsim.arch.load import shown
from imcsim.errors import ConfigError
from imcsim.sweep.distinct import firsts
from imcsim.sweep.parameters import kind_of, require_value
from imcsim.sweep.points import Column, Points, points_of
from imcsim.sweep.records import about

GREATEST_FILE_BYTES = 1 << 30


def points_of_records(records: Sequence[Any]) -> Points:
    """Return the points of mappings; raises ConfigError for one that is none, or that is there twice."""
    kinds: dict[str, str] = {}
    for i, record in enumerate(records, start=1):
        if not isinstance(record, Mapping) or not record:
            raise ConfigError(f"{i}: must be a mapping of parameters to values, got {shown(record)}")
        for name, value in record.items():
            with about(f"{i}: {name}"):
                require_value(value)
                kind = kind_of((value,))
                if kinds.setdefault(name, kind) != kind:
                    raise ConfigError(f"must be a {kinds[name]} as in the points before, got {shown(value)}")
    found = points_of(records)
    _require_different(found)
    return found


def points_of_file(path: Path, label: str) -> Points:
    """Return the points of a CSV file; a point lacks the parameters whose field is empty.

    A column of whole numbers, of numbers, or of true and false holds these; any other holds texts. Raises ConfigError
    for a file that cannot be read so, and for a point that is there twice.
    """
    if not path.is_file():
        raise ConfigError(f"{label}: {'must be a CSV file, got a folder' if path.is_dir() else 'no such file'}")
    if (size := path.stat().st_size) > GREATEST_FILE_BYTES:
        raise ConfigError(f"{label}: must be a CSV file of at most {GREATEST_FILE_BYTES} bytes, got {size}")
    with about(label):
        table = _table(path)
        columns, has = {}, {}
        for name in table.column_names:
            columns[name], there = _column(name, table.column(name))
            if not there.all():
                has[name] = there
        found = Points(np.arange(len(table)), columns, has)
        _require_different(found)
    return found


def _table(path: Path) -> Any:
    """Return the file as a table of pyarrow, its columns texts without space around them."""
    import pyarrow as pa
    from pyarrow import compute
    from pyarrow import csv as arrow

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
        if not names or "" in names or len(set(names)) < len(names):
            raise ConfigError(f"must name every column once in its first line, got {shown(','.join(names))}")
        read = arrow.ReadOptions(column_names=names, skip_rows=1)
        texts = arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)
        texts.null_values = [""]
        table = arrow.read_csv(path, read_options=read, convert_options=texts)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}") from None
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        first, *_ = str(error).splitlines()
        raise ConfigError(f"must be a CSV file with the parameters' names on top, got {first}") from None
    if not len(table):
        raise ConfigError("must hold at least one point, got none")
    return pa.table({name: compute.utf8_trim_whitespace(table.column(name)) for name in names})


def _column(name: str, texts: Any) -> tuple[Column, Any]:
    """Return a column of texts as what they mean, and which points have one; the others hold the first."""
    import pyarrow as pa
    from pyarrow import compute

    there = ~np.asarray(texts.is_null())
    if not there.any():
        raise ConfigError(f"{name}: must have a value in some point, got none")
    texts = texts.fill_null(texts.drop_null()[0])
    if set(compute.unique(texts).to_pylist()) <= {"true", "false"}:
        return np.asarray(compute.cast(texts, pa.bool_())), there
    for kind in (pa.int64(), pa.float64()):
        try:
            column = np.asarray(compute.cast(texts, kind))
        except pa.ArrowInvalid:
            continue
        if not np.isfinite(column).all():
            at = int(np.flatnonzero(~np.isfinite(column))[0])
            raise ConfigError(f"{name}: must be finite, got {column[at]} in point {at + 1}")
        return column, there
    return np.array(texts.to_pylist(), dtype=object), there


def _require_different(found: Points) -> None:
    """Raise ConfigError for a point that is there twice."""
    places = firsts(found)
    if len(places) == len(found):
        return
    again = int(np.setdiff1d(np.arange(len(found)), places)[0])
    row = found.row(again)
    first = next(i for i, other in enumerate(found.rows()) if other == row)
    raise ConfigError(f"{again + 1}: must be a point of its own, got point {first + 1} again")
