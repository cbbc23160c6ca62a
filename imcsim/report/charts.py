"""Charts for the page: plotly figures from rows and spans, as JSON that the page draws when it opens.

Rows of a chart stand at whole numbers and not at names, so that two layers whose shortened names are equal stay two.
Colours of text and grid are the page's; it sets them, light or dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from imcsim.arch.spec import BASES
from imcsim.report.load import Accuracy, EstimateTotals, Totals
from imcsim.report.palette import (
    COLOUR_OF_BASIS,
    COLOUR_OF_GROUP,
    MOST_NAMED_COLOURS,
    axis_unit,
    ink_on,
    layer_colours,
    short,
)
from imcsim.report.tables import (
    EXTENT_OF_STAGE,
    Timeline,
    area_by_component,
    basis_shares,
    limited,
    solidity,
)
from imcsim.report.tables import energy_by_component as energy_by_component_table
from imcsim.report.tables import energy_by_layer as energy_by_layer_table
from imcsim.report.tables import latency_by_layer as latency_by_layer_table
from imcsim.report.tables import utilization as utilization_table
from imcsim.report.totals import GROUPS, area_text, interval_95
from imcsim.units import UM2_PER_MM2, human, percent

_TICKS_OF_ROWS = {
    "automargin": True,
    "showgrid": False,
    "zeroline": False,
    "ticks": "outside",
    "ticklen": 5,
    "tickcolor": "rgba(0,0,0,0)",
}
"""Ticks that nobody sees keep the names off the bars."""

_OUTLINE = {"width": 0.5, "color": "rgba(128,128,128,0.6)"}


Legend = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Chart:
    """One chart of the page."""

    name: str
    """Its element has the id ``chart-NAME``."""

    title: str
    label: str
    """What it shows, for those who do not see it."""

    height: int
    """In CSS pixels."""

    json: str
    """Data and layout, safe inside a script element."""

    legend: tuple[tuple[str, str], ...] = ()
    """Names and colours; the page writes them, as plotly's legend does not fit into a narrow screen."""

    is_wide: bool = False
    """Whether it scrolls on a narrow screen rather than shrink."""


def energy_by_layer(frame: pd.DataFrame) -> Chart:
    """Return a bar a layer, stacked by group of components."""
    table = limited(energy_by_layer_table(frame))
    totals = table.sum(axis=1)
    size, unit = axis_unit(_greatest(totals), "pJ")
    bars = [
        go.Bar(
            name=group,
            orientation="h",
            y=list(range(len(table))),
            x=list(table[group] / size),
            marker=_marker(COLOUR_OF_GROUP[group], "/" if group == "Leakage" else ""),
            customdata=[[name, human(value, "pJ")] for name, value in table[group].items()],
            hovertemplate="%{customdata[0]}<br>" + group + ": %{customdata[1]}<extra></extra>",
        )
        for group in table.columns
    ]
    label = _label("Energy by layer, stacked by group of components", totals, "pJ")
    return _rows_chart("energy_by_layer", "Energy by layer", label, bars, list(table.index), f"Energy ({unit})",
                       [(group, COLOUR_OF_GROUP[group]) for group in table.columns])  # fmt: skip


def energy_by_component(frame: pd.DataFrame) -> Chart:
    """Return a bar a component: its actions, and what it leaks."""
    table = energy_by_component_table(frame)
    table = table[table.energy_pJ > 0]
    size, unit = axis_unit(_greatest(table.energy_pJ), "pJ")
    parts = (
        ("Actions", table.actions_pJ, [COLOUR_OF_GROUP[group] for group in table.group], ""),
        ("Leakage", table.leak_pJ, COLOUR_OF_GROUP["Leakage"], "/"),
    )
    bars = [
        go.Bar(
            name=name,
            orientation="h",
            y=list(range(len(table))),
            x=list(values / size),
            marker=_marker(colour, pattern),
            customdata=[
                [part, human(value, "pJ"), percent(share)]
                for part, value, share in zip(table.index, values, table.share, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>"
            + name
            + ": %{customdata[1]}<br>both: %{customdata[2]} of all<extra></extra>",
        )
        for name, values, colour, pattern in parts
    ]
    label = _label("Energy by component of the chip", table.energy_pJ, "pJ")
    title = "Energy by component"
    return _rows_chart("energy_by_component", title, label, bars, list(table.index), f"Energy ({unit})",
                       [("Leakage", COLOUR_OF_GROUP["Leakage"])])  # fmt: skip


def latency_by_layer(frame: pd.DataFrame) -> Chart:
    """Return a bar a layer, coloured by what bounds it."""
    whole = latency_by_layer_table(frame)
    table = limited(whole[["latency_ns", "share"]]).join(whole[["bound_by", "group"]])
    table = table.fillna({"bound_by": "several components", "group": "Other"})
    table["place"] = range(len(table))
    size, unit = axis_unit(_greatest(table.latency_ns), "ns")
    bars = []
    for group in GROUPS:
        part = table[table.group == group]
        if len(part):
            bars.append(
                go.Bar(
                    name=group,
                    orientation="h",
                    y=list(part.place),
                    x=list(part.latency_ns / size),
                    marker=_marker(COLOUR_OF_GROUP[group]),
                    customdata=[
                        [name, human(latency_ns, "ns"), percent(share), bound_by]
                        for name, latency_ns, share, bound_by in zip(
                            part.index, part.latency_ns, part.share, part.bound_by, strict=True
                        )
                    ],
                    hovertemplate="%{customdata[0]}<br>adds %{customdata[1]} (%{customdata[2]})<br>"
                    "bound by %{customdata[3]}<extra></extra>",
                )
            )
    label = _label("Latency that each layer adds, coloured by what bounds it", table.latency_ns, "ns")
    title = "Latency by layer, coloured by what bounds it"
    legend = [(group, COLOUR_OF_GROUP[group]) for group in GROUPS if (table.group == group).any()]
    axis = f"Latency added ({unit})"
    return _rows_chart("latency_by_layer", title, label, bars, list(table.index), axis, legend)


def utilization(frame: pd.DataFrame) -> Chart:
    """Return a bar a component: how much of the latency its busiest unit works."""
    table = utilization_table(frame)
    bars = [
        go.Bar(
            orientation="h",
            y=list(range(len(table))),
            x=list(100 * table.utilization),
            marker=_marker([COLOUR_OF_GROUP[group] for group in table.group]),
            customdata=[
                [name, human(busy_ns, "ns"), percent(share)]
                for name, busy_ns, share in zip(table.index, table.busy_ns, table.utilization, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>works %{customdata[1]}, %{customdata[2]}<extra></extra>",
        )
    ]
    most = f": most {table.index[0]}, {percent(table.utilization.iloc[0])}" if len(table) else ""
    label = f"How much of the latency the busiest unit of each component works{most}"
    title = "How busy the components are"
    return _rows_chart("utilization", title, label, bars, list(table.index), "Busy (% of the latency)")


def area(frame: pd.DataFrame) -> Chart:
    """Return a bar a component: its area."""
    table = area_by_component(frame)
    bars = [
        go.Bar(
            orientation="h",
            y=list(range(len(table))),
            x=list(table.area_um2 / UM2_PER_MM2),
            marker=_marker([COLOUR_OF_GROUP[group] for group in table.group]),
            customdata=[
                [name, area_text(area_um2), percent(share)]
                for name, area_um2, share in zip(table.index, table.area_um2, table.share, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}, %{customdata[2]}<extra></extra>",
        )
    ]
    label = f"Area by component: most {table.index[0]}, {percent(table.share.iloc[0])}"
    return _rows_chart("area", "Area by component", label, bars, list(table.index), "Area (mm²)")


def clipping(table: pd.DataFrame) -> Chart:
    """Return a bar a layer: the share of its accesses in which an ADC clipped."""
    shown = limited(table[["share"]], total=False)
    bars = [
        go.Bar(
            orientation="h",
            y=list(range(len(shown))),
            x=list(100 * shown.share),
            marker=_marker("#D55E00"),
            customdata=[[name, percent(share, digits=2)] for name, share in shown.share.items()],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]} of accesses clipped<extra></extra>",
        )
    ]
    label = f"Share of accesses in which an ADC clipped, by layer: at most {percent(_greatest(shown.share), digits=2)}"
    return _rows_chart("clipping", "Clipping by layer", label, bars, list(shown.index), "Accesses clipped (%)")


def accuracy(told: Accuracy) -> Chart:
    """Return reference and chip with their 95 % intervals."""
    names, values = ["Reference", "Chip"], [told.reference, told.chip]
    spans = [interval_95(value, told.n_samples) for value in values]
    points = go.Scatter(
        mode="markers",
        y=[0, 1],
        x=[100 * value for value in values],
        marker={"size": 11, "color": ["#56B4E9", "#D55E00"]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (high - value) for value, (_, high) in zip(values, spans, strict=True)],
            "arrayminus": [100 * (value - low) for value, (low, _) in zip(values, spans, strict=True)],
            "color": "#8C8C8C",
        },
        customdata=[
            [name, percent(value, digits=2), percent(low, digits=2), percent(high, digits=2)]
            for name, value, (low, high) in zip(names, values, spans, strict=True)
        ],
        hovertemplate="%{customdata[0]}: %{customdata[1]}<br>%{customdata[2]} to %{customdata[3]}<extra></extra>",
    )
    label = f"Accuracy: reference {percent(told.reference, digits=2)}, chip {percent(told.chip, digits=2)}"
    axis = "Accuracy (%), 95 % interval"
    return _rows_chart("accuracy", "Accuracy of reference and chip", label, [points], names, axis)


def bounds(estimate: EstimateTotals, simulate: Totals) -> Chart:
    """Return simulated and estimated time between the bounds, on a logarithmic axis."""
    size, unit = axis_unit(max(estimate.greatest_ns, simulate.latency_ns), "ns")
    between = go.Scatter(
        mode="lines+markers",
        y=[0, 0],
        x=[estimate.least_ns / size, estimate.greatest_ns / size],
        line={"width": 6, "color": "#B8B8B8"},
        marker={"size": 16, "symbol": "line-ns-open", "color": "#8C8C8C", "line": {"width": 2}},
        customdata=[["least", human(estimate.least_ns, "ns")], ["greatest", human(estimate.greatest_ns, "ns")]],
        hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
    )
    points = [
        go.Scatter(
            name=name,
            mode="markers",
            y=[0],
            x=[totals.latency_ns / size],
            marker={"size": size_px, "color": colour, "symbol": symbol, "line": _OUTLINE},
            hovertemplate=f"{name}: {human(totals.latency_ns, 'ns')}<extra></extra>",
        )
        for name, totals, colour, symbol, size_px in (
            ("Estimated", estimate, "#E69F00", "diamond", 20),
            ("Simulated", simulate, "#0072B2", "circle", 10),
        )
    ]
    label = (
        f"Simulated {human(simulate.latency_ns, 'ns')} and estimated {human(estimate.latency_ns, 'ns')} "
        f"between the bounds {human(estimate.least_ns, 'ns')} and {human(estimate.greatest_ns, 'ns')}"
    )
    axis = {"title": {"text": ""}, "type": "log"}
    title = f"Latency between its bounds ({unit}, logarithmic)"
    legend = [("Simulated", "#0072B2"), ("Estimated", "#E69F00"), ("Bounds", "#B8B8B8")]
    return _rows_chart("bounds", title, label, [between, *points], ["Latency"], axis, legend)


def basis(frame: pd.DataFrame) -> Chart:
    """Return how much of energy and area rests on numbers of each basis."""
    table = basis_shares(frame)
    table = table.loc[:, table.sum() > 0]
    names = [str(name).capitalize() for name in table.columns]
    bars = []
    for word in BASES:
        values = [float(value) for value in table.T[word].array]
        bars.append(
            go.Bar(
                name=word,
                orientation="h",
                y=list(range(len(values))),
                x=[100 * value for value in values],
                marker=_marker(COLOUR_OF_BASIS[word]),
                text=[percent(value, digits=0) if value >= 0.05 else "" for value in values],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": ink_on(COLOUR_OF_BASIS[word])},
                customdata=[[name, percent(value)] for name, value in zip(names, values, strict=True)],
                hovertemplate="%{customdata[0]}: %{customdata[1]} " + word + "<extra></extra>",
            )
        )
    told = "; ".join(
        f"{name}: " + ", ".join(f"{percent(share)} {word}" for word, share in table[name].items() if share)
        for name in table.columns
    )
    axis = {"title": {"text": "Share (%)"}, "range": [0, 100]}
    return _rows_chart("basis", "How well the numbers are known", f"Shares by basis. {told}", bars, names, axis,
                       [(word, COLOUR_OF_BASIS[word]) for word in BASES])  # fmt: skip


def tile_utilization(lanes: Timeline) -> Chart:
    """Return who works when: a lane a tile, a lane a shared unit, coloured by layer."""
    tops, heights = lanes.tops, lanes.heights
    size, unit = axis_unit(lanes.latency_ns, "ns")
    bars = lanes.bars
    colour_of_layer = dict(zip(lanes.layers, layer_colours(len(lanes.layers)), strict=True))
    extents = [EXTENT_OF_STAGE[stage] for stage in bars.stage]
    bar_tops = [tops[lane] + up * heights[lane] for lane, (up, _) in zip(bars.lane, extents, strict=True)]
    bar_heights = [(down - up) * heights[lane] for lane, (up, down) in zip(bars.lane, extents, strict=True)]
    columns = (bars.lane, bars.stage, bars.layer, bars.start_ns, bars.end_ns, bars.busy, bars.n_tasks)
    data = go.Bar(
        orientation="h",
        base=_rounded(bars.start_ns / size),
        x=_rounded((bars.end_ns - bars.start_ns) / size),
        y=_rounded(top + height / 2 for top, height in zip(bar_tops, bar_heights, strict=True)),
        width=_rounded(bar_heights),
        marker={
            "color": [colour_of_layer[layer] for layer in bars.layer],
            "opacity": [round(solidity(*pair), 2) for pair in zip(bars.stage, bars.busy, strict=True)],
            "line": {"width": 0},
        },
        customdata=[
            [lanes.lanes[lane], stage, layer, human(start, "ns"), human(end, "ns"), percent(busy, digits=0), n_tasks]
            for lane, stage, layer, start, end, busy, n_tasks in zip(*columns, strict=True)
        ],
        hovertemplate="%{customdata[0]}, %{customdata[1]}<br>%{customdata[2]}<br>"
        "%{customdata[3]} to %{customdata[4]}<br>"
        "works %{customdata[5]} of it, tasks: %{customdata[6]}<extra></extra>",
    )
    every = 2 if lanes.n_tile_lanes > 12 else 1
    shown = [i for i in range(len(tops)) if i >= lanes.n_tile_lanes or i % every == 0]
    bottom = tops[-1] + heights[-1]
    layout = _layout() | {
        "barmode": "overlay",
        "hovermode": "closest",
        "xaxis": _x_axis({"title": {"text": f"Time ({unit})"}, "range": [0, lanes.latency_ns / size or 1.0]}),
        "yaxis": {
            "tickvals": [tops[i] + heights[i] / 2 for i in shown],
            "ticktext": [f"{lanes.lanes[i]}  {percent(lanes.utilizations[i], digits=0)}" for i in shown],
            "tickfont": {"size": 10},
            "range": [bottom + 0.5, -0.5],
            "fixedrange": True,
            **_TICKS_OF_ROWS,
        },
    }
    label = f"Gantt chart of {len(tops)} lanes over {human(lanes.latency_ns, 'ns')}, coloured by layer"
    title = "Who works when, and how much of the time"
    return _chart(
        "tile_utilization",
        title,
        label,
        int(11 * bottom) + 90,
        [data],
        layout,
        _legend_of_layers(lanes.layers),
        is_wide=True,
    )


# Pieces


def _rows_chart(
    name: str,
    title: str,
    label: str,
    data: Sequence[Any],
    rows: Sequence[str],
    x_axis: str | dict[str, Any],
    legend: Legend = (),
) -> Chart:
    """Return a chart with a row for each name, the first at the top."""
    step = 30 if len(rows) <= 12 else 20
    layout = _layout() | {
        "barmode": "stack",
        "bargap": 0.25,
        "xaxis": _x_axis({"title": {"text": x_axis}} if isinstance(x_axis, str) else x_axis),
        "yaxis": {
            "tickvals": list(range(len(rows))),
            "ticktext": [short(row, 26) for row in rows],
            "tickfont": {"size": 12 if step == 30 else 11},
            "range": [max(1, len(rows)) - 0.4, -0.6],
            "fixedrange": True,
            **_TICKS_OF_ROWS,
        },
    }
    height = step * max(1, len(rows)) + 75
    return _chart(name, title, label, height, data, layout, legend)


def _chart(
    name: str,
    title: str,
    label: str,
    height: int,
    data: Sequence[Any],
    layout: dict[str, Any],
    legend: Legend = (),
    *,
    is_wide: bool = False,
) -> Chart:
    figure = go.Figure(data=list(data), layout=go.Layout(layout | {"height": height}))
    text = str(figure.to_json()).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Chart(name, title, label, height, text, tuple(legend), is_wide)


def _layout() -> dict[str, Any]:
    """Return what all charts share; an empty template keeps plotly's own colours out."""
    return {
        "template": go.layout.Template(),
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "family": "system-ui, sans-serif"},
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "showlegend": False,
        "hoverlabel": {"font": {"size": 12}, "align": "left"},
    }


def _x_axis(own: dict[str, Any]) -> dict[str, Any]:
    return {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4, "title": {"standoff": 6}} | own


def _marker(colour: str | list[str], pattern: str = "") -> dict[str, Any]:
    shape = (
        {"pattern": {"shape": pattern, "size": 5, "solidity": 0.25, "fillmode": "overlay", "fgcolor": "#FFFFFF"}}
        if pattern
        else {}
    )
    return {"color": colour, "line": _OUTLINE} | shape


def _legend_of_layers(layers: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return all layers with their colours, or, of many, a few that show how the colours go."""
    pairs = [(short(layer, 24), colour) for layer, colour in zip(layers, layer_colours(len(layers)), strict=True)]
    if len(layers) <= MOST_NAMED_COLOURS:
        return tuple(pairs)
    return tuple(pairs[i * (len(layers) - 1) // 6] for i in range(7))


def _rounded(values: Any) -> list[float]:
    """Return numbers with as many digits as a screen can show."""
    return [float(f"{value:.7g}") for value in values]


def _greatest(values: pd.Series) -> float:
    return float(values.max()) if len(values) else 0.0


def _label(what: str, values: pd.Series, unit: str) -> str:
    if not len(values) or not values.sum():
        return f"{what}: all zero"
    return f"{what}: {human(float(values.sum()), unit)} in all, most in {values.idxmax()} ({human(values.max(), unit)})"
