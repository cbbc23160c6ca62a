"""What a sweep came to, as files: ``points.csv``, the same as Parquet, and ``sweep.json`` for the report.

Nothing in them says when, where or how fast it was computed: a sweep that was stopped and went on writes the same bytes
as one that was not.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from imcsim.arch.load import dump_chip
from imcsim.results import write_whole
from imcsim.sweep.pareto import front
from imcsim.sweep.points import Points
from imcsim.sweep.rooflines import write_rooflines
from imcsim.sweep.spec import Sweep
from imcsim.sweep.stages import Floats
from imcsim.sweep.store import Store, Table
from imcsim.version import __version__

POINTS, PARQUET, SUMMARY = "points.csv", "points.parquet", "sweep.json"

STATUSES = ("done", "failed", "infeasible", "dropped", "pruned", "pending")
"""What can have become of a point: it has passed every stage; an engine refused it; its figures do not satisfy the
constraints; it did not go on to the next stage; a search gave it up; it has still to be computed."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found, whoever evaluated it."""

    points: Points
    figures: Mapping[str, Floats]
    messages: tuple[str | None, ...]
    statuses: tuple[str, ...]
    said: Mapping[str, Any]
    """Of the search itself: its history, and which parameters matter."""


def write_tables(store: Store, number: int, sweep: Sweep, out: Path, found: Found | None = None) -> Path:
    """Write the tables of a sweep from its store, as far as it is, and return ``points.csv``.

    Args:
        store: Where the results are.
        number: Of the sweep in the store.
        sweep: The sweep.
        out: Its folder.
        found: What a search has found.
    """
    table = store.table(number)
    if found is None:
        status = statuses(table, sweep)
    else:
        table, status = _of_search(table, found, sweep), np.array(found.statuses, dtype=object)
    is_on_front = on_front(table, sweep, status)
    columns = _columns(table, sweep, status, is_on_front)
    write_whole(out / PARQUET, _parquet(columns))
    write_whole(out / SUMMARY, _summary(sweep, table, status, is_on_front, found))
    write_rooflines(sweep, out, sweep.space.base)
    write_whole(out / POINTS, _csv(columns))
    return out / POINTS


def _of_search(table: Table, found: Found, sweep: Sweep) -> Table:
    """Return the points that a search has finished: others may have evaluated some, so the store need not have all."""
    engine_of = dict(zip(table.points.numbers.tolist(), table.engines.tolist(), strict=True))
    last = "+".join(sweep.stages[-1].engines)
    engines = [
        engine_of.get(number) or (last if status == "done" else None)
        for number, status in zip(found.points.numbers.tolist(), found.statuses, strict=True)
    ]
    n = len(found.points)
    reached = np.full(n, len(sweep.stages) - 1)
    return Table(
        found.points,
        reached,
        reached,
        dict(found.figures),
        np.array(engines, dtype=object),
        np.array(found.messages, dtype=object),
    )


def statuses(table: Table, sweep: Sweep) -> NDArray[Any]:
    """Return what became of each point: texts (n) of `STATUSES`."""
    last = len(sweep.stages) - 1
    status = np.full(len(table.points), "pending", dtype=object)
    has_result = (table.stages >= 0) & (table.stages == table.placed)
    # a stage has chosen its points when the first of them is placed there
    goes_no_further = has_result & (table.stages < table.placed.max(initial=-1))
    status[goes_no_further] = "dropped"
    status[has_result & (table.stages == last)] = "done"
    status[has_result & ~sweep.space.feasible(table.figures, table.points)] = "infeasible"
    status[has_result & np.array([message is not None for message in table.messages], dtype=bool)] = "failed"
    return status


def on_front(table: Table, sweep: Sweep, status: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which points are done and no other done point is better than in every objective (n)."""
    missing = np.full(len(table.points), np.nan)
    values = np.stack([table.figures.get(o.figure, missing) for o in sweep.objectives], axis=1)
    values[status != "done"] = np.nan
    return front(values, [objective.is_maximized for objective in sweep.objectives])


def _columns(table: Table, sweep: Sweep, status: NDArray[Any], is_on_front: NDArray[np.bool_]) -> pa.Table:
    arrays: dict[str, pa.Array] = {"point": pa.array(table.points.numbers)}
    for name, values in table.points.columns.items():
        idle = ~table.points.has[name] if name in table.points.has else None
        if values.dtype == object and len({type(value) for value in values.tolist()}) > 1:
            values = np.array([_text(value) for value in values.tolist()], dtype=object)
        arrays[name] = pa.array(values, mask=idle)
    for objective in sweep.objectives:
        figures = table.figures.get(objective.figure, np.full(len(table.points), np.nan))
        arrays[objective.name] = pa.array(figures, mask=np.isnan(figures))
    arrays["engine"] = pa.array(table.engines, type=pa.string())
    arrays["status"] = pa.array(status, type=pa.string())
    arrays["on_front"] = pa.array(is_on_front)
    arrays["message"] = pa.array(table.messages, type=pa.string())
    return pa.table(arrays)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _csv(columns: pa.Table) -> bytes:
    text = io.BytesIO()
    pyarrow.csv.write_csv(columns, text, pyarrow.csv.WriteOptions(quoting_style="needed", quoting_header="none"))
    return text.getvalue()


def _parquet(columns: pa.Table) -> bytes:
    data = io.BytesIO()
    pyarrow.parquet.write_table(columns, data)
    return data.getvalue()


def _summary(
    sweep: Sweep, table: Table, status: NDArray[Any], is_on_front: NDArray[np.bool_], found: Found | None
) -> str:
    said = {
        "name": sweep.name,
        "description": sweep.description,
        "workloads": list(sweep.workloads),
        **({} if sweep.assume is None else {"assume": sweep.assume}),
        "chip": sweep.space.base.name,
        "objectives": [
            {"name": objective.name, "figure": objective.figure, "is_maximized": objective.is_maximized}
            for objective in sweep.objectives
        ],
        "parameters": list(table.points.columns),
        "constraints": [constraint.text for constraint in sweep.space.constraints],
        "stages": [
            {"engines": list(stage.engines), "keep": stage.keep, "n_samples": stage.n_samples} for stage in sweep.stages
        ],
        "seed": sweep.seed,
        "version": __version__,
        "counts": {"points": len(table.points), **{name: int(np.sum(status == name)) for name in STATUSES}},
        "front": table.points.numbers[is_on_front].tolist(),
        "chip_text": dump_chip(sweep.space.base),
        "search": None if found is None else dict(found.said),
    }
    return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
