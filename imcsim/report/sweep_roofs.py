"""The roofline of the base chip with its layers on it, and how a search went: figures for print and for the page."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from imcsim.analytic.roofline import RooflineRow
from imcsim.report.charts import Chart, _chart, _layout, _rows_chart
from imcsim.report.figures import WIDTH_INCHES
from imcsim.report.palette import MOST_NAMED_COLOURS, layer_colours, short
from imcsim.report.sweep_axes import short_key
from imcsim.report.sweep_figures import Drawing
from imcsim.report.sweep_load import SearchSummary
from imcsim.units import human, percent

MEMORY_COLOUR = "#7B2476"
BUFFER_COLOUR = "#0E6B17"
"""Of main memory and of the activation buffers, as everywhere."""

QUIET_MARK = "#6B6B6B"
MOST_PARAMETERS = 20


def roofs_by_workload(rows: Sequence[RooflineRow]) -> dict[str, list[RooflineRow]]:
    """Return the rows of each workload, in order."""
    found: dict[str, list[RooflineRow]] = {}
    for row in rows:
        found.setdefault(row.workload, []).append(row)
    return found


def roofline_drawings(rows: Sequence[RooflineRow]) -> list[Drawing]:
    """Return a figure a workload."""
    groups = roofs_by_workload(rows)
    return [
        Drawing(
            "roofline" if len(groups) == 1 else f"roofline_{re.sub(r'[^A-Za-z0-9.-]+', '_', workload)}",
            f"Roofline: {workload} on {group[0].chip}",
            roofline_words(group),
            lambda group=group: roofline_figure(group),  # type: ignore[misc]
            lambda group=group: roofline_table(group),  # type: ignore[misc]
        )
        for workload, group in groups.items()
    ]


def roofline_words(rows: Sequence[RooflineRow]) -> str:
    """Return what the figure shows, and what to keep in mind."""
    none = [row.layer for row in rows if row.operations_per_main_memory_bit is None]
    words = (
        "The base chip, by formula. An operation is a multiplication or an addition of two planes; a layer's rate is "
        "its operations by the time that it adds. A filled mark stands at the operations for each bit to or from main "
        "memory, an open one at those for each bit read from the activation buffers, each below its own slope; both "
        "reach no higher than the tiles' rate."
    )
    if none:
        words += (
            f" {len(none)} of {len(rows)} layers move nothing to or from main memory: their arrow stands at the right "
            "edge."
        )
    above = [
        row for row in rows if (lies := row.operations_per_main_memory_bit) is not None
        and row.operations_per_ns > 1.001 * lies * row.main_memory_bits_per_ns
    ]  # fmt: skip
    if above:
        words += (
            f" {len(above)} lie above the slope of main memory: their weights were written while earlier layers worked."
        )
    return words


def roofline_table(rows: Sequence[RooflineRow]) -> pd.DataFrame:
    """Return a line a layer, with its place in the figure."""
    from dataclasses import asdict

    return pd.DataFrame(
        [
            asdict(row)
            | {
                "operations_per_ns": row.operations_per_ns,
                "operations_per_main_memory_bit": row.operations_per_main_memory_bit,
                "operations_per_buffer_bit": row.operations_per_buffer_bit,
            }
            for row in rows
        ]
    )


def limits(rows: Sequence[RooflineRow]) -> tuple[float, float, float, float]:
    """Return left, right, low and high end of the axes: room for all layers and for the knees of the roofs."""
    first = rows[0]
    knees = [first.peak_operations_per_ns / first.main_memory_bits_per_ns,
             first.peak_operations_per_ns / first.buffer_bits_per_ns]  # fmt: skip
    places = [place for row in rows for place in (row.operations_per_main_memory_bit, row.operations_per_buffer_bit)
              if place is not None]  # fmt: skip
    rates = [row.operations_per_ns for row in rows]
    return min([*knees, *places]) / 2, 6 * max([*knees, *places]), min(rates) / 2.5, 2.5 * first.peak_operations_per_ns


def roofline_figure(rows: Sequence[RooflineRow]) -> Figure:
    """Return the two roofs and the layers, both axes logarithmic."""
    first = rows[0]
    left, right, low, high = limits(rows)
    figure = Figure(figsize=(WIDTH_INCHES, 0.62 * WIDTH_INCHES), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    x = np.geomspace(left, right, 400)
    peak = first.peak_operations_per_ns
    for rate, colour, dashes in ((first.main_memory_bits_per_ns, MEMORY_COLOUR, "-"),
                                 (first.buffer_bits_per_ns, BUFFER_COLOUR, (0, (4, 2)))):  # fmt: skip
        axes.plot(x, np.minimum(rate * x, peak), color=colour, linewidth=1.4, linestyle=dashes, zorder=2)
    colours = layer_colours(len(rows))
    for row, colour in zip(rows, colours, strict=True):
        rate, from_memory, from_buffer = (
            row.operations_per_ns, row.operations_per_main_memory_bit, row.operations_per_buffer_bit,
        )  # fmt: skip
        ends = [place for place in (from_memory, from_buffer) if place is not None]
        if from_buffer is not None:
            axes.plot([from_buffer, ends[0] if from_memory is not None else right / 1.25], [rate, rate], color=colour,
                      linewidth=0.6, linestyle="-" if from_memory is not None else ":", zorder=2.5)  # fmt: skip
        if from_buffer is not None:
            axes.plot(from_buffer, rate, "s", markersize=5, markerfacecolor="white", markeredgecolor=colour, zorder=3)
        if from_memory is not None:
            axes.plot(from_memory, rate, "o", markersize=5.5, markerfacecolor=colour, markeredgecolor="#1B1F24",
                      markeredgewidth=0.4, zorder=3)  # fmt: skip
        else:
            axes.plot(right / 1.25, rate, ">", markersize=6, markerfacecolor=colour, markeredgecolor="#1B1F24",
                      markeredgewidth=0.4, zorder=3)  # fmt: skip
    axes.grid(visible=True)
    axes.set_xlabel("Operations for each bit moved (operations/bit)")
    axes.set_ylabel("Operations in a nanosecond (GOPS)")
    handles = [
        Line2D([], [], color=MEMORY_COLOUR, linewidth=1.4,
               label=f"main memory, {first.main_memory_bits_per_ns:g} bits/ns"),
        Line2D([], [], color=BUFFER_COLOUR, linewidth=1.4, linestyle=(0, (4, 2)),
               label=f"activation buffers, {first.buffer_bits_per_ns:g} bits/ns"),
        Line2D([], [], linestyle="", marker="o", markersize=5, color=QUIET_MARK, label="a layer, by main memory"),
        Line2D([], [], linestyle="", marker="s", markersize=5, markerfacecolor="white", markeredgecolor=QUIET_MARK,
               label="a layer, by buffer reads"),
    ]  # fmt: skip
    if any(row.operations_per_main_memory_bit is None for row in rows):
        handles.append(Line2D([], [], linestyle="", marker=">", markersize=5, color=QUIET_MARK,
                              label="no main-memory traffic"))  # fmt: skip
    axes.annotate(
        f"all tiles: {human(1e9 * peak, '')}OPS", (left, peak), (4, 3), textcoords="offset points", fontsize=7
    )
    figure.legend(handles=handles, loc="outside lower left", ncols=3)
    shown = [(short(row.layer, 22), colour) for row, colour in zip(rows, colours, strict=True)]
    if len(rows) > MOST_NAMED_COLOURS:
        shown = [shown[i * (len(rows) - 1) // 6] for i in range(7)]
    figure.legend(handles=[Line2D([], [], linestyle="", marker="o", markersize=5, color=colour, label=name)
                           for name, colour in shown], loc="outside right upper", title="Layer", title_fontsize=7.5,
                  alignment="left")  # fmt: skip
    return figure


def roofline_chart(rows: Sequence[RooflineRow], name: str) -> Chart:
    """Return the same for the page: names and numbers show at the marks."""
    first = rows[0]
    left, right, low, high = limits(rows)
    peak = first.peak_operations_per_ns
    data: list[Any] = []
    for rate, colour, dash, what in (
        (first.main_memory_bits_per_ns, MEMORY_COLOUR, "solid", "main memory"),
        (first.buffer_bits_per_ns, BUFFER_COLOUR, "dash", "activation buffers"),
    ):
        knee = peak / rate
        x = [left, max(left, knee), right]
        y = [min(peak, rate * value) for value in x]
        data.append(go.Scatter(mode="lines", x=x, y=y, line={"color": colour, "width": 2, "dash": dash},
                               hovertemplate=f"{what}: {rate:g} bits/ns<extra></extra>"))  # fmt: skip
    colours = layer_colours(len(rows))
    memory, buffer = [], []
    for row in rows:
        lies = row.operations_per_main_memory_bit
        told = [
            row.layer,
            f"{row.operations_per_ns:,.4g} GOPS, {percent(row.operations_per_ns / peak)} of the tiles' rate",
        ]
        traffic = "no main-memory traffic" if lies is None else f"{lies:.4g} operations a bit of main memory"
        memory.append((right / 1.25 if lies is None else lies, row.operations_per_ns, [*told, traffic]))
        from_buffer = row.operations_per_buffer_bit
        if from_buffer is not None:
            buffer.append((from_buffer, row.operations_per_ns, [*told, f"{from_buffer:.4g} operations a bit read"]))
    hover = "%{customdata[0]}<br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>"
    symbols = ["triangle-right" if row.operations_per_main_memory_bit is None else "circle" for row in rows]
    of_buffer = [colour for row, colour in zip(rows, colours, strict=True) if row.operations_per_buffer_bit is not None]
    for points, marker in (
        (buffer, {"symbol": "square-open", "size": 9, "color": of_buffer}),
        (memory, {"symbol": symbols, "size": 10, "color": colours, "line": {"width": 0.5, "color": "#1B1F24"}}),
    ):
        data.append(go.Scatter(mode="markers", x=[x for x, _, _ in points], y=[y for _, y, _ in points], marker=marker,
                               customdata=[text for _, _, text in points], hovertemplate=hover))  # fmt: skip
    log_range = lambda a, b: [float(np.log10(a)), float(np.log10(b))]  # noqa: E731
    axis = {"type": "log", "dtick": 1, "tickformat": "~s", "automargin": True, "zeroline": False, "ticks": "outside"}
    layout = _layout() | {
        "xaxis": axis
        | {"title": {"text": "Operations for each bit moved (operations/bit)"}, "range": log_range(left, right)},
        "yaxis": axis | {"title": {"text": "Operations in a nanosecond (GOPS)"}, "range": log_range(low, high)},
    }
    most = max(rows, key=lambda row: row.operations_per_ns)
    label = (
        f"Roofline of {first.chip}: tiles {peak:,.0f} GOPS, main memory {first.main_memory_bits_per_ns:g} bits/ns; "
        f"the fastest layer is {most.layer} at {most.operations_per_ns:,.0f} GOPS"
    )
    legend = [("main memory (filled: layers)", MEMORY_COLOUR), ("activation buffers (open: layers)", BUFFER_COLOUR)]
    if len(rows) <= MOST_NAMED_COLOURS:
        legend += [(short(row.layer, 24), colour) for row, colour in zip(rows, colours, strict=True)]
    return _chart(name, f"Roofline: {first.workload} on {first.chip}", label, 460, data, layout, legend, is_wide=True)


# Search


def search_drawings(search: SearchSummary) -> list[Drawing]:
    """Return how the hypervolume grew, and which parameters matter, where the search says so."""
    drawings = []
    if search.history:
        caption = (
            "The volume of the objectives' space that the points so far dominate, from one reference point, in percent "
            "of that in the end: it only grows; where it is level, searching on brings little."
        )
        drawings.append(Drawing("hypervolume", "Hypervolume against evaluations", caption,
                                lambda: hypervolume_figure(search),
                                lambda: hypervolume_table(search)))  # fmt: skip
    if any(search.importances.values()):
        caption = (
            "How much of an objective's variance over the evaluated points each parameter explains, as the search "
            "estimates it (fANOVA); searched points crowd where it is good, and so does what they say."
        )
        drawings.append(Drawing("importance", "Importance of parameters", caption, lambda: importance_figure(search),
                                lambda: importance_table(search)))  # fmt: skip
    return drawings


def hypervolume_table(search: SearchSummary) -> pd.DataFrame:
    """Return the hypervolume after so many evaluations."""
    return pd.DataFrame(list(search.history), columns=["evaluations", "hypervolume"])


def growth_of(search: SearchSummary) -> tuple[list[int], list[float]]:
    """Return evaluations, and the hypervolume behind each in percent of the last."""
    last = search.history[-1][1] or 1.0
    return [n for n, _ in search.history], [100 * volume / last for _, volume in search.history]


def hypervolume_figure(search: SearchSummary) -> Figure:
    """Return the hypervolume against evaluations, in steps."""
    figure = Figure(figsize=(WIDTH_INCHES, 0.42 * WIDTH_INCHES), layout="constrained")
    axes = figure.add_subplot()
    evaluations, volumes = growth_of(search)
    axes.step(evaluations, volumes, where="post", color="#0072B2", linewidth=1.4)
    axes.set_xlabel("Evaluations")
    axes.set_ylabel("Hypervolume (% of that in the end)")
    axes.set_xlim(0, max(evaluations) * 1.02 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(visible=True)
    return figure


def hypervolume_chart(search: SearchSummary) -> Chart:
    """Return the same for the page."""
    evaluations, volumes = growth_of(search)
    line = go.Scatter(mode="lines", x=evaluations, y=volumes, line={"shape": "hv", "color": "#0072B2"},
                      hovertemplate="%{x} evaluations: %{y:.2f} %<extra></extra>")  # fmt: skip
    axis = {"automargin": True, "zeroline": False, "ticks": "outside"}
    layout = _layout() | {
        "xaxis": axis | {"title": {"text": "Evaluations"}},
        "yaxis": axis | {"title": {"text": "Hypervolume (% of that in the end)"}},
    }
    label = f"Hypervolume: {volumes[0]:.1f} % after {evaluations[0]} evaluations, all of it after {evaluations[-1]}"
    return _chart("hypervolume", "Hypervolume against evaluations", label, 320, [line], layout)


def importance_table(search: SearchSummary) -> pd.DataFrame:
    """Return a line for each objective and parameter."""
    rows = [(objective, name, share) for objective, shares in search.importances.items()
            for name, share in sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))]  # fmt: skip
    return pd.DataFrame(rows, columns=["objective", "parameter", "importance"])


def importance_figure(search: SearchSummary) -> Figure:
    """Return a group of bars a parameter, a bar an objective."""
    objectives = [name for name, shares in search.importances.items() if shares]
    names = list(dict.fromkeys(importance_table(search).parameter))[:MOST_PARAMETERS]
    step = 0.12 * len(objectives) + 0.12
    figure = Figure(figsize=(WIDTH_INCHES, step * len(names) + 0.75), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(objectives)
    for k, (objective, colour) in enumerate(zip(objectives, layer_colours(len(objectives)), strict=True)):
        shares = search.importances[objective]
        axes.barh([i - 0.4 + (k + 0.5) * height for i in range(len(names))],
                  [100 * shares.get(name, 0.0) for name in names], height=height, color=colour,
                  label=objective)  # fmt: skip
    axes.set_yticks(range(len(names)), [short_key(name, 36) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_xlabel("Importance (%)")
    figure.legend(loc="outside lower center", ncols=min(5, len(objectives)))
    return figure


def importance_chart(search: SearchSummary) -> Chart:
    """Return the same for the page."""
    objectives = [name for name, shares in search.importances.items() if shares]
    names = list(dict.fromkeys(importance_table(search).parameter))[:MOST_PARAMETERS]
    colours = layer_colours(len(objectives))
    height = 0.8 / len(objectives)
    bars = [
        go.Bar(
            orientation="h", name=objective, width=[height] * len(names),
            y=[i - 0.4 + (k + 0.5) * height for i in range(len(names))],
            x=[100 * search.importances[objective].get(name, 0.0) for name in names],
            marker={"color": colour}, customdata=names,
            hovertemplate="%{customdata}: %{x:.1f} % of " + objective + "<extra></extra>",
        )
        for k, (objective, colour) in enumerate(zip(objectives, colours, strict=True))
    ]  # fmt: skip
    label = f"Importance of parameters for {', '.join(objectives)}: most {names[0]}"
    return _rows_chart("importance", "Importance of parameters", label, bars, [short_key(name, 26) for name in names],
                       "Importance (%)", list(zip(objectives, colours, strict=True)))  # fmt: skip
