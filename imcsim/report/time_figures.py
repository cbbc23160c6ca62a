"""The figure for print of who works when, with the critical path."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from imcsim.report.figures import WIDTH_INCHES, _box, _timeline_legend
from imcsim.report.load import RunFolder
from imcsim.report.palette import axis_unit, layer_colours
from imcsim.report.tables import _merged, solidity
from imcsim.units import percent

MOST_TILES = 3
"""So many arrays, and so many PCUs or NMC units, have a row of their own if there are more: those most on the path."""

TO_AND_FRO = 0.01
"""A stay of the path in a row that is a smaller share of the time has no line back to where the path came from."""

_FLOW = (
    "scheduler",
    "main_memory",
    "network",
    "activation_buffer",
    "array",
    "pcu",
    "nmc",
    "psum_buffer",
    "reduce_unit",
    "sfu",
)
"""Rows from above follow the way of the data, as far as it is a way."""

_INK = "#000000"


@dataclass(frozen=True)
class Row:
    """A row of the figure: one unit, or all units of a kind that have no row of their own."""

    name: str
    units: tuple[str, ...]


def time_drawings(run: RunFolder) -> dict[str, Callable[[], Figure]]:
    """Return the figure, if *run* has its numbers: name to the function that draws it."""
    spans, path = run.spans, run.path
    if spans is None or path is None or not len(path):
        return {}
    return {"critical_path": lambda: critical_path_figure(spans, path)}


def rows_of_units(spans: pd.DataFrame, path: pd.DataFrame) -> list[Row]:
    """Return the rows from above: shared units one by one, and of the tiles those with most of the path."""
    on_path = (path.end_ns - path.start_ns).groupby(path.unit).sum()
    busy = spans.groupby("unit").busy_ns.sum()
    groups: dict[str, list[str]] = {}
    for unit in dict.fromkeys(spans.unit):
        groups.setdefault(unit.partition(".")[2] if unit.startswith("tile") else unit, []).append(unit)
    rows = []
    for kind in sorted(groups, key=_place_in_flow):
        units = sorted(groups[kind], key=lambda unit: (-on_path.get(unit, 0.0), -busy[unit], len(unit), unit))
        n_alone = len(units) if len(units) <= MOST_TILES + 1 else MOST_TILES
        rows += [Row(unit, (unit,)) for unit in sorted(units[:n_alone], key=lambda unit: (len(unit), unit))]
        if rest := units[n_alone:]:
            rows.append(Row(f"{len(rest)} other tiles' {kind}", tuple(rest)))
    return rows


def critical_path_figure(spans: pd.DataFrame, path: pd.DataFrame) -> Figure:
    """Return a row a unit: bars of its tasks, coloured by layer, and the critical path through them as a line."""
    rows = rows_of_units(spans, path)
    row_of_unit = {unit: i for i, row in enumerate(rows) for unit in row.units}
    latency_ns = float(spans.end_ns.max())
    size, unit = axis_unit(latency_ns, "ns")
    layers = list(dict.fromkeys(spans.sort_values("start_ns", kind="stable").layer))
    colour_of_layer = dict(zip(layers, layer_colours(len(layers)), strict=True))
    figure = Figure(figsize=(WIDTH_INCHES, 1.35 + 0.19 * len(rows)), layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, spans, row_of_unit, colour_of_layer, size, latency_ns)
    _draw_path(axes, path, row_of_unit, size)
    _name_rows(axes, rows, path, latency_ns)
    axes.set_xlim(0, latency_ns / size)
    axes.set_xlabel(f"Time ({unit})")
    handles = [
        Line2D([], [], color=_INK, linewidth=2.0, solid_capstyle="butt", label="critical path: at work"),
        Line2D([], [], color=_INK, linewidth=1.0, linestyle=(0, (1.2, 1.0)), label="critical path: result on its way"),
    ]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    how = "A bar is a task, from its first item to its last result; pale: part of that time it waits for others."
    _timeline_legend(figure, axes, colour_of_layer, how)
    return figure


def _place_in_flow(kind: str) -> tuple[int, str]:
    name = kind.partition(".")[0]
    port = {"activation_buffer.write": "0", "psum_buffer.write": "0"}.get(kind, kind)  # what is written is read later
    return (_FLOW.index(name) if name in _FLOW else len(_FLOW)), port


def _draw_bars(
    axes: Axes,
    spans: pd.DataFrame,
    row_of_unit: dict[str, int],
    colour_of_layer: dict[str, str],
    size: float,
    latency_ns: float,
) -> None:
    bars = _merged(spans.assign(lane=spans.unit.map(row_of_unit), stage="unit"), latency_ns / 4000)
    boxes, colours = [], []
    columns = [list(bars[name]) for name in ("lane", "layer", "start_ns", "end_ns", "busy")]
    for row, layer, start_ns, end_ns, busy in zip(*columns, strict=True):
        end_ns = max(end_ns, start_ns + latency_ns / 1000)  # as wide as can be seen
        boxes.append(_box(start_ns / size, end_ns / size, row - 0.4, row + 0.4))
        colours.append(to_rgba(colour_of_layer[layer], solidity("unit", busy)))
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0))


def _draw_path(axes: Axes, path: pd.DataFrame, row_of_unit: dict[str, int], size: float) -> None:
    places = [row_of_unit[unit] for unit in path.unit]
    starts, ends = list(path.start_ns / size), list(path.end_ns / size)
    stays = [list(stay) for _, stay in groupby(range(len(places)), key=lambda i: places[i])]  # in one row each
    turns = []
    for i, (stay, following) in enumerate(pairwise(stays)):
        here, there, end = places[stay[0]], places[following[0]], ends[stay[-1]]
        goes_back = i > 0 and places[stays[i - 1][0]] == there and end - starts[stay[0]] < TO_AND_FRO * ends[-1]
        if not goes_back:
            turns.append([(end, here), (end, there)])
    level = [[(start, place), (end, place)] for start, end, place in zip(starts, ends, places, strict=True)]
    works = [kind in ("work", "drain") for kind in path.kind]
    axes.add_collection(LineCollection(turns, colors=_INK, linewidths=0.35, zorder=3))
    axes.add_collection(
        LineCollection([line for line, is_work in zip(level, works, strict=True) if is_work], colors=_INK,
                       linewidths=2.0, capstyle="butt", zorder=4)
    )  # fmt: skip
    axes.add_collection(
        LineCollection([line for line, is_work in zip(level, works, strict=True) if not is_work], colors=_INK,
                       linewidths=1.0, linestyles=[(0, (1.2, 1.0))], zorder=4)
    )  # fmt: skip


def _name_rows(axes: Axes, rows: Sequence[Row], path: pd.DataFrame, latency_ns: float) -> None:
    """Name each row at its left, and at its right say what share of the critical path is spent there."""
    on_path = (path.end_ns - path.start_ns).groupby(path.unit).sum()
    for i, row in enumerate(rows):
        share = sum(on_path.get(unit, 0.0) for unit in row.units) / latency_ns
        text = percent(share, digits=0) if share >= 0.005 else ("< 1 %" if share else "–")
        axes.annotate(text, (1.0, i), (5, 0), textcoords="offset points", xycoords=axes.get_yaxis_transform(),
                      va="center_baseline", fontsize=6.5)  # fmt: skip
    axes.annotate(
        "of the\npath", (1.0, 1.0), (5, 3), xycoords="axes fraction", textcoords="offset points", fontsize=6.5
    )
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=6.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
