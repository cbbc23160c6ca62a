"""The report of a sweep: one HTML page that opens without a network, figures for print, chip files of the front.

The page is that of a run (`imcsim.report.page`) with charts that a reader asks: any two columns against each other, the
points with their parameters side by side, two parameters as a map; a point that is picked shows its chip file.
"""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from imcsim.report.charts import Chart, _rows_chart
from imcsim.report.page import Card, render_page
from imcsim.report.palette import layer_colours, ordered_colours
from imcsim.report.sweep_axes import level_text, parameter_axis, short_key
from imcsim.report.sweep_chips import base_name, is_chip_key, write_chips
from imcsim.report.sweep_figures import (
    MOST_AXES,
    MOST_BARS,
    Drawing,
    front_colour,
    sensitivity_words,
    sweep_drawings,
    write_drawing,
)
from imcsim.report.sweep_load import STATUSES, Floats, Parameter, SweepFolder, read_sweep
from imcsim.report.sweep_roofs import (
    hypervolume_chart,
    importance_chart,
    roofline_chart,
    roofline_drawings,
    roofline_words,
    roofs_by_workload,
    search_drawings,
)
from imcsim.report.sweep_tables import (
    MOST_LEVELS,
    MOST_MAPPED,
    Effects,
    Findings,
    counts_by_status,
    density,
    failures,
    findings_of,
    heat_map,
)
from imcsim.report.views import Section, TableView
from imcsim.results import write_whole
from imcsim.units import human
from imcsim.version import __version__

NOTHING = "–"
MOST_MESSAGES = 50
MOST_PAIRS = 10
"""Pairs of objectives whose densities the page holds."""


def build_sweep_report(folder: Path) -> Path:
    """Write ``report.html``, ``figures/`` and ``chips/`` into the *folder* of a sweep and return the path of the page.

    Raises DataError when the folder does not hold a whole sweep, OutputError when it cannot be written to.
    """
    sweep = read_sweep(folder)
    found = findings_of(sweep)
    drawn = drawings_of(found)
    for stale in STALE:
        for path in (sweep.folder / "figures").glob(f"{stale}.*"):
            path.unlink()
    for drawing in drawn:
        write_drawing(sweep.folder, drawing)
    n_chips = write_chips(sweep)
    path = sweep.folder / "report.html"
    write_whole(path, sweep_page(found, drawn, n_chips))
    return path


STALE = ("front", "parallel", "sensitivity", "heat_map", "roofline*", "hypervolume", "importance")
"""Figures that an earlier report may have left and this one may not have the numbers for."""


def drawings_of(found: Findings) -> list[Drawing]:
    """Return all figures for print that a sweep has the numbers for."""
    search = found.sweep.summary.search
    return [
        *sweep_drawings(found),
        *roofline_drawings(found.sweep.rooflines),
        *(search_drawings(search) if search else []),
    ]


def sweep_page(found: Findings, drawn: list[Drawing], n_chips: int) -> str:
    """Return the page."""
    summary = found.sweep.summary
    has_points = bool(found.drawn.n_points)
    more = {
        "sweep_json": safe(page_data(found, n_chips)) if has_points else "",
        "drawn_words": found.drawn.words if has_points else "",
        "has_map": has_points and len(found.ranked) > 1,
        "has_parallel": has_points and bool(found.ranked),
        "mapped": list(found.ranked[:MOST_MAPPED]) if has_points else [],
        "files": [(drawing.name, drawing.title, drawing.caption) for drawing in drawn],
        "height_parallel": 360 + 12 * max(0, max((len(name) for name in found.ranked), default=0) - 24),
    }
    footer = (
        f"seed {summary.seed}. points.csv holds every point; figures/ every figure as PNG, SVG, PDF and its numbers."
    )
    title = f"Sweep {summary.name}"
    subtitle = summary.description or f"{', '.join(summary.all_workloads) or 'a network'} on {summary.chip}"
    return render_page(title, subtitle, sections(found, n_chips), cards=cards(found), footer=footer,
                       by=summary.version or __version__, template="sweep.html.j2", more=more,
                       draws=has_points)  # fmt: skip


def safe(tree: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# Headline


def cards(found: Findings) -> list[Card]:
    """Return how many points there are, and the best of every objective."""
    counts = counts_by_status(found.sweep.frame)
    n, n_done = len(found.sweep.frame), counts.get("done", 0)
    others = ", ".join(f"{count:,} {status}" for status, count in counts.items() if status != "done")
    shown = [Card("Points", f"{n:,}", f"{n_done:,} done" + (f", {others}" if others else ""))]
    if found.drawn.n_points:
        n_front = int(found.sweep.on_front.sum())
        names = ", ".join(objective.name for objective in found.sweep.summary.objectives)
        shown.append(Card("On the front", f"{n_front:,}", f"no other point is better in all of: {names}"))
    for axis, values in zip(found.axes, found.sweep.objectives, strict=True):
        candidates = np.where(found.done, values, np.nan)
        if np.isfinite(candidates).any():
            at = int(np.nanargmax(candidates) if axis.is_maximized else np.nanargmin(candidates))
            word = "Greatest" if axis.is_maximized else "Least"
            name = axis.title[0].lower() + axis.title[1:]
            shown.append(Card(f"{word} {name}", axis.text(candidates[at]), f"point {found.sweep.numbers[at]}"))
    return shown


# Sections after the charts that a reader asks


def sections(found: Findings, n_chips: int) -> list[Section]:
    """Return the parts of the page that stand still."""
    sweep, parts = found.sweep, []
    if not found.drawn.n_points:
        parts.append(Section("nothing", "No point has figures", [nothing_words(sweep)]))
    if found.effects:
        parts.append(sensitivity(found.effects))
    if sweep.rooflines:
        charts = [roofline_chart(rows, f"roofline{i}" if i else "roofline")
                  for i, rows in enumerate(roofs_by_workload(sweep.rooflines).values())]  # fmt: skip
        words = [roofline_words(rows) for rows in roofs_by_workload(sweep.rooflines).values()]
        parts.append(Section("roofline", "Roofline", list(dict.fromkeys(words)), charts, [roofline_view(found)]))
    if search := sweep.summary.search:
        parts += [searched(found)] if search.history or any(search.importances.values()) else []
    parts.append(status(found))
    parts.append(what_ran(found, n_chips))
    return parts


def nothing_words(sweep: SweepFolder) -> str:
    """Return why there is nothing to draw."""
    counts = counts_by_status(sweep.frame)
    if not len(sweep.frame):
        return "The table holds no point."
    told = ", ".join(f"{n:,} {status}" for status, n in counts.items())
    return (
        f"Of {len(sweep.frame):,} points: {told}. There is nothing to draw; the messages below say why points failed."
    )


def sensitivity(effects: tuple[Effects, ...]) -> Section:
    """Return what each parameter does to each objective."""
    rows: list[tuple[str, ...]] = [
        (each.objective.name, effect.parameter, each.objective.text(effect.low), effect.low_text,
         each.objective.text(effect.high), effect.high_text, f"{100 * effect.share:.1f} %")
        for each in effects for effect in each.effects
    ]  # fmt: skip
    head = ("Objective", "Parameter", "Least mean", "at", "Greatest mean", "at", "Share of variance")
    tables = [TableView("What each parameter does to each objective", head, rows, frozenset({2, 4, 6}))]
    charts = [sensitivity_chart(each) for each in effects]
    return Section("sensitivity", "Sensitivity", sensitivity_words(effects), charts, tables)


def sensitivity_chart(effects: Effects) -> Chart:
    """Return a bar a parameter, from the least to the greatest mean of the objective."""
    axis, shown = effects.objective, effects.effects[:MOST_BARS]
    mean = float(axis.shown(effects.mean))
    bars = []
    for ends, low_side in ((("low", "low_text"), True), (("high", "high_text"), False)):
        value, text = ends
        places = [float(axis.shown(getattr(effect, value))) for effect in shown]
        is_better = bool(axis.is_maximized) != low_side
        bars.append(
            go.Bar(
                orientation="h",
                base=[mean] * len(shown),
                x=[place - mean for place in places],
                y=list(range(len(shown))),
                marker={"color": "#0072B2" if is_better else "#E69F00", "line": {"width": 0}},
                text=[getattr(effect, text) for effect in shown],
                textposition="outside",
                cliponaxis=False,
                textfont={"size": 11},
                customdata=[[effect.parameter, getattr(effect, text), axis.text(getattr(effect, value))]
                            for effect in shown],
                hovertemplate="%{customdata[0]} = %{customdata[1]}<br>mean %{customdata[2]}<extra></extra>",
            )
        )  # fmt: skip
    low, high = min(axis.shown(effect.low) for effect in shown), max(axis.shown(effect.high) for effect in shown)
    room = 0.2 * float(high - low or abs(mean) or 1.0)
    layout = {
        "title": {"text": f"{axis.label}, mean"},
        "range": [float(low) - room, float(high) + room],
    }
    first = shown[0]
    label = (
        f"What each parameter does to {axis.title}: most {first.parameter}, from {axis.text(first.low)} at "
        f"{first.low_text} to {axis.text(first.high)} at {first.high_text}"
    )
    name = f"sensitivity-{axis.name.replace('_', '-')}"
    return _rows_chart(name, f"{axis.title}: {effects.n_points:,} points", label, bars,
                       [short_key(effect.parameter, 26) for effect in shown], layout,
                       [("better", "#0072B2"), ("worse", "#E69F00")])  # fmt: skip


def roofline_view(found: Findings) -> TableView:
    """Return the layers in numbers."""
    rows: list[tuple[str, ...]] = []
    for row in found.sweep.rooflines:
        memory, buffer = row.operations_per_main_memory_bit, row.operations_per_buffer_bit
        rows.append(
            (
                row.layer,
                row.workload,
                human(row.operations, ""),
                f"{row.operations_per_ns:,.0f}",
                f"{100 * row.operations_per_ns / row.peak_operations_per_ns:.1f} %",
                NOTHING if memory is None else f"{memory:.4g}",
                NOTHING if buffer is None else f"{buffer:.4g}",
            )
        )
    head = (
        "Layer",
        "Workload",
        "Operations",
        "GOPS",
        "of the tiles' rate",
        "per bit of main memory",
        "per bit of buffer",
    )
    return TableView("Layers below their roofs", head, rows, frozenset({2, 3, 4, 5, 6}))


def searched(found: Findings) -> Section:
    """Return how the search went."""
    search = found.sweep.summary.search
    assert search is not None
    n = search.evaluations if search.evaluations is not None else len(search.history)
    paragraphs = [f"{search.sampler or 'A sampler'} chose the points, {n:,} evaluations in all."]
    paragraphs += [drawing.caption for drawing in search_drawings(search)]
    charts = [hypervolume_chart(search)] if search.history else []
    if any(search.importances.values()):
        charts.append(importance_chart(search))
    return Section("search", "Search", paragraphs, charts)


def status(found: Findings) -> Section:
    """Return what became of all points, and why some failed."""
    frame = found.sweep.frame
    counts = counts_by_status(frame)
    tables = [
        TableView("Points by status", ("Status", "Points", "Meaning"),
                  [(name, f"{n:,}", STATUSES[name]) for name, n in counts.items()], frozenset({1}))
    ]  # fmt: skip
    engines = frame["engine"].astype(object).fillna("").astype(str).value_counts()
    told: list[tuple[str, ...]] = [(str(name), f"{engines[name]:,}") for name in sorted(engines.index) if name]
    if len(told) > 1:
        tables.append(
            TableView("Points by the last engine that gave figures", ("Engine", "Points"), told, frozenset({1}))
        )
    messages = failures(frame)
    if messages:
        rows: list[tuple[str, ...]] = [
            (message, name, f"{n:,}", str(first)) for name, message, n, first in messages[:MOST_MESSAGES]
        ]
        more = f", the {MOST_MESSAGES} most frequent of {len(messages)}" if len(messages) > MOST_MESSAGES else ""
        tables.append(
            TableView(f"Messages{more}", ("Message", "Status", "Points", "First point"), rows, frozenset({2, 3}))
        )
    paragraphs = [] if messages else ["No point has a message."]
    return Section("status", "What became of the points", paragraphs, tables=tables)


def what_ran(found: Findings, n_chips: int) -> Section:
    """Return who varied what."""
    summary = found.sweep.summary
    said = [
        ("Workload", ", ".join(summary.all_workloads)),
        ("Assumed bits", summary.assume),
        ("Base chip", summary.chip),
        ("Stages", "; ".join(stage_text(stage) for stage in summary.stages)),
        ("Objectives", "; ".join(f"{each.name}, {'greatest' if each.is_maximized else 'least'}"
                                 for each in summary.objectives)),
        ("Search", summary.search.sampler if summary.search else ""),
        ("Chip files of the front", f"chips/, {n_chips} of {int(found.sweep.on_front.sum()):,}" if n_chips else ""),
        ("Seed", str(summary.seed)),
        ("Version", f"imcsim {summary.version or __version__}"),
    ]  # fmt: skip
    rows: list[tuple[str, ...]] = [(name, text) for name, text in said if text]
    parameters: list[tuple[str, ...]] = [
        (each.name, str(each.n_levels), values_text(each),
         f"{int((each.codes < 0).sum()):,}" if (each.codes < 0).any() else NOTHING)
        for each in found.sweep.parameters
    ]  # fmt: skip
    tables = [TableView("What ran", ("", ""), rows)]
    if parameters:
        tables.append(TableView("Parameters", ("Parameter", "Values", "Which", "Points without it"), parameters,
                                frozenset({1, 3})))  # fmt: skip
    return Section("ran", "What ran", tables=tables)


def stage_text(stage: Any) -> str:
    """Return a stage in words, whatever a version writes of it.

    >>> stage_text({"engines": ["estimate"], "keep": "front", "n_samples": None}), stage_text("execute")
    ('estimate (keep front)', 'execute')
    """
    if not isinstance(stage, dict):
        return str(stage)
    engines = stage.get("engines", stage.get("engine", ""))
    names = ", ".join(map(str, engines)) if isinstance(engines, list) else str(engines)
    others = [f"{key.removeprefix('n_')} {value}" for key, value in stage.items()
              if key not in ("engine", "engines") and value is not None]  # fmt: skip
    return f"{names} ({', '.join(others)})" if others else names


def values_text(parameter: Parameter) -> str:
    """Return the values of a parameter, or from where to where they go."""
    if parameter.n_levels <= MOST_LEVELS:
        return ", ".join(level_text(level) for level in parameter.levels)
    if parameter.kind == "number":
        return " to ".join(level_text(level) for level in parameter.different[[0, -1]].tolist())
    return ", ".join([*(level_text(level) for level in parameter.levels[:MOST_LEVELS]), "..."])


# What the page's script works with


def page_data(found: Findings, n_chips: int) -> dict[str, Any]:
    """Return the points that are drawn, column by column, densities and maps of all points."""
    sweep, at = found.sweep, found.drawn.at
    colour = front_colour(found) if found.ranked or found.pair else None
    statuses, engines = list(STATUSES), sorted(str(name) for name in sweep.frame["engine"].dropna().unique())
    engine_code = {name: i for i, name in enumerate(engines)}
    taken = sweep.frame.iloc[at]
    return {
        "name": sweep.summary.name,
        "base": base_name(sweep),
        "isAll": found.drawn.is_all,
        "point": sweep.numbers[at].tolist(),
        "onFront": sweep.on_front[at].astype(int).tolist(),
        "chips": sweep.numbers[np.flatnonzero(sweep.on_front)[:n_chips]].tolist(),
        "statuses": statuses,
        "status": [statuses.index(name) for name in taken["status"].astype(str)],
        "engines": [*engines, ""],
        "engine": [engine_code.get(str(name), len(engines)) for name in taken["engine"]],
        "parameters": [parameter_data(each, at) for each in sweep.parameters],
        "objectives": [
            {"name": axis.name, "title": axis.title, "unit": axis.unit, "size": axis.size, "isLog": axis.is_log,
             "isMaximized": bool(axis.is_maximized), "values": numbers_of(values[at], 10)}
            for axis, values in zip(found.axes, sweep.objectives, strict=True)
        ],
        "pair": list(found.pair) if found.pair else None,
        "ranked": list(found.ranked),
        "upright": [each.name for each in sweep.parameters if each.name in found.ranked[:MOST_AXES]],
        "colour": colour.name if colour is not None else None,
        "density": densities(found),
        "maps": maps_data(found),
    }  # fmt: skip


def parameter_data(parameter: Parameter, at: Any) -> dict[str, Any]:
    """Return one parameter of the drawn points: its values, and which of them each point has."""
    codes = parameter.codes[at]
    used, places = np.unique(codes[codes >= 0], return_inverse=True)
    shown = np.full(len(codes), -1)
    shown[codes >= 0] = places
    n, levels = len(used), parameter.different[used].tolist()
    few = n <= len(layer_colours(8)) or parameter.kind != "number"
    colours = (ordered_colours(n) if parameter.kind == "number" else layer_colours(n)) if few else []
    return {
        "name": parameter.name,
        "kind": parameter.kind,
        "isChipKey": is_chip_key(parameter.name),
        "isLog": parameter_axis(parameter).is_log,
        "levels": levels,
        "texts": [level_text(level) for level in levels] if few or n <= 40 else [],
        "colours": colours,
        "codes": shown.tolist(),
    }


def numbers_of(values: Floats, digits: int) -> list[float | None]:
    """Return numbers with so many digits, None for those that are none."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]


def densities(found: Findings) -> dict[str, Any]:
    """Return for pairs of objectives how many points lie in each cell; none where all points are drawn."""
    if found.drawn.is_all:
        return {}
    pairs = list(combinations(range(len(found.axes)), 2))
    pairs.sort(key=lambda pair: pair != tuple(sorted(found.pair or ())))
    cells = {}
    for i, j in pairs[:MOST_PAIRS]:
        one = density(found.sweep.objectives[i], found.sweep.objectives[j], found.axes[i], found.axes[j])
        cells[f"{i},{j}"] = {"x": numbers_of(one.x_edges, 6), "y": numbers_of(one.y_edges, 6), "n": one.counts.tolist()}
    return cells


def maps_data(found: Findings) -> dict[str, Any]:
    """Return best and mean of every objective for any two of the parameters that matter most."""
    names = found.ranked[:MOST_MAPPED]
    maps: dict[str, Any] = {}
    for a, b in combinations(range(len(names)), 2):
        x, y = found.levels[names[a]], found.levels[names[b]]
        each: dict[str, Any] = {"x": list(x.texts), "y": list(y.texts), "objectives": []}
        for axis, values in zip(found.axes, found.sweep.objectives, strict=True):
            one = heat_map(x, y, values, bool(axis.is_maximized))
            each["objectives"].append(
                {"best": [numbers_of(axis.shown(row), 5) for row in one.best],
                 "mean": [numbers_of(axis.shown(row), 5) for row in one.mean], "n": one.counts.tolist()}
            )  # fmt: skip
        maps[f"{a},{b}"] = each
    return maps
