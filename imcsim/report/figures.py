"""Figures for print: matplotlib figures from rows and spans, and their PNG and SVG files.

Figures are objects; nothing is shown and no state of pyplot is touched. The same input gives the same bytes.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from imcsim.arch.spec import BASES
from imcsim.report.load import Accuracy, RunFolder
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
    basis_shares,
    clipping_by_layer,
    energy_by_component,
    energy_by_layer,
    latency_by_layer,
    limited,
    main_engine,
    rows_of,
    solidity,
    timeline,
)
from imcsim.report.totals import GROUPS, interval_95
from imcsim.results import write_whole
from imcsim.units import human, percent

WIDTH_INCHES = 7.0
"""Two columns of a paper."""

DPI = 200

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.labelsize": 8.0,
    "axes.titlesize": 9.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.handleheight": 0.9,
    "legend.columnspacing": 1.2,
    "hatch.linewidth": 0.5,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "svg.hashsalt": "imcsim",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


_METADATA: Any = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": "imcsim"},
    "pdf": {"CreationDate": None, "Creator": "imcsim"},
}
"""Without times: the same input gives the same bytes."""


def write_figures(folder: Path, drawn: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    """Write ``figures/NAME.png`` and ``figures/NAME.svg`` into the run *folder* and return their paths."""
    paths = []
    for name, draw in drawn.items():
        png, svg = render(draw)
        for suffix, content in ((".png", png), (".svg", svg)):
            path = folder / "figures" / f"{name}{suffix}"
            write_whole(path, content)
            paths.append(path)
    return paths


def drawings(run: RunFolder) -> dict[str, Callable[[], Figure]]:
    """Return the figures that *run* has the numbers for: name to the function that draws it."""
    frame, found = run.frame, {}
    if main_engine(frame):
        found["energy_by_layer"] = lambda: energy_by_layer_figure(frame)
        found["energy_by_component"] = lambda: energy_by_component_figure(frame)
        found["latency_by_layer"] = lambda: latency_by_layer_figure(frame)
        found["basis"] = lambda: basis_figure(frame)
    if run.spans is not None and len(run.spans):
        lanes = timeline(run.spans)
        found["tile_utilization"] = lambda: tile_utilization_figure(lanes)
    if accuracy := run.summary.accuracy:
        layers = run.summary.layers if run.summary.has_adcs else ()
        found["accuracy"] = lambda: accuracy_figure(accuracy, clipping_by_layer(layers))
    return found


def render(draw: Callable[[], Figure]) -> tuple[bytes, str]:
    """Return the figure that *draw* makes, as PNG and as SVG."""
    files = rendered(draw, ("png", "svg"))
    return files["png"], files["svg"].decode()


def rendered(draw: Callable[[], Figure], forms: Sequence[Literal["png", "svg", "pdf"]]) -> dict[str, bytes]:
    """Return the figure that *draw* makes in each of *forms*."""
    files: dict[str, bytes] = {}
    with mpl.rc_context(_STYLE):
        figure = draw()
        FigureCanvasAgg(figure)
        figure.set_dpi(DPI)  # letters are not equally wide at every resolution
        if layout := figure.get_layout_engine():  # laid out once, not drawn: it is slow, and all files look the same
            layout.execute(figure)
            figure.set_layout_engine(None)
            for axes in figure.axes:  # the solver's last digits differ from time to time
                axes.set_position(tuple(round(edge, 6) for edge in axes.get_position().bounds))
        for form in forms:
            content = io.BytesIO()
            figure.savefig(content, format=form, dpi=DPI, metadata=_METADATA[form])
            files[form] = content.getvalue()
    return files


def energy_by_layer_figure(frame: pd.DataFrame, engine: str | None = None) -> Figure:
    """Return a bar a layer, stacked by group of components."""
    table = limited(energy_by_layer(frame, engine))
    totals = table.sum(axis=1)
    size, unit = axis_unit(totals.max() if len(totals) else 0.0, "pJ")
    figure, axes = _bars_figure(list(table.index), n_legend=len(table.columns))
    left = pd.Series(0.0, index=table.index)
    for group in table.columns:
        _barh(axes, table[group] / size, left=left / size, color=COLOUR_OF_GROUP[group], hatch=_hatch_of(group))
        left = left + table[group]
    _label_ends(axes, list(totals / size), [human(value, "pJ", digits=3) for value in totals])
    axes.set_xlabel(_energy_label(frame, engine, unit))
    _group_legend(figure, list(table.columns))
    return figure


def energy_by_component_figure(frame: pd.DataFrame, engine: str | None = None) -> Figure:
    """Return a bar a component, what it leaks behind what its actions spend."""
    table = energy_by_component(frame, engine)
    table = table[table.energy_pJ > 0]
    size, unit = axis_unit(table.energy_pJ.max() if len(table) else 0.0, "pJ")
    figure, axes = _bars_figure(list(table.index), n_legend=1)
    colours = [COLOUR_OF_GROUP[group] for group in table.group]
    _barh(axes, table.actions_pJ / size, color=colours)
    _barh(axes, table.leak_pJ / size, left=table.actions_pJ / size, color=COLOUR_OF_GROUP["Leakage"], hatch="////")
    texts = [
        f"{human(value, 'pJ', digits=3)} ({percent(share)})"
        for value, share in zip(table.energy_pJ, table.share, strict=True)
    ]
    _label_ends(axes, list(table.energy_pJ / size), texts)
    axes.set_xlabel(_energy_label(frame, engine, unit))
    if table.leak_pJ.any():
        _legend(figure, [_patch("Leakage", COLOUR_OF_GROUP["Leakage"], "////")])
    return figure


def latency_by_layer_figure(frame: pd.DataFrame, engine: str | None = None) -> Figure:
    """Return a bar a layer: what it adds to the latency, coloured by the group of the component that bounds it."""
    whole = latency_by_layer(frame, engine)
    kept = limited(whole[["latency_ns", "share"]])
    table = kept.join(whole[["bound_by", "group"]])
    size, unit = axis_unit(table.latency_ns.max() if len(table) else 0.0, "ns")
    groups = [group for group in GROUPS if (table.group == group).any()]
    figure, axes = _bars_figure(list(table.index), n_legend=len(groups))
    _barh(axes, table.latency_ns / size, color=[COLOUR_OF_GROUP.get(group, "#999999") for group in table.group])
    texts = [
        percent(share) if pd.isna(bound_by) else f"{percent(share)}, {bound_by}"
        for share, bound_by in zip(table.share, table.bound_by, strict=True)
    ]
    _label_ends(axes, list(table.latency_ns / size), texts)
    total = human(float(whole.latency_ns.sum()), "ns")
    axes.set_xlabel(
        f"{_how_known(frame, engine)} latency that the layer adds ({unit}), share of {total}, what bounds it"
    )
    _group_legend(figure, groups)
    return figure


def basis_figure(frame: pd.DataFrame, engine: str | None = None) -> Figure:
    """Return how much of energy and area rests on numbers of each basis."""
    table = basis_shares(frame, engine)
    table = table.loc[:, table.sum() > 0]
    figure, axes = _bars_figure([str(name).capitalize() for name in table.columns], n_legend=5, step=0.42)
    left = pd.Series(0.0, index=table.columns)
    for basis in BASES:
        values = table.T[basis]
        _barh(axes, 100 * values, left=100 * left, color=COLOUR_OF_BASIS[basis], height=0.66)
        for place, (start, value) in enumerate(zip(left, values, strict=True)):
            if value >= 0.05:
                axes.text(100 * (start + value / 2), place, percent(value, digits=0), ha="center", va="center",
                          color=ink_on(COLOUR_OF_BASIS[basis]), fontsize=7.5)  # fmt: skip
        left = left + values
    axes.set_xlim(0, 100)
    axes.set_xlabel("Share that rests on numbers of each basis (%)")
    _legend(figure, [_patch(basis, COLOUR_OF_BASIS[basis]) for basis in BASES])
    return figure


def accuracy_figure(accuracy: Accuracy, clipping: pd.DataFrame) -> Figure:
    """Return reference against chip with their 95 % intervals, and below the share of clipped accesses by layer.

    Without layers in *clipping* the figure ends above.
    """
    table = limited(clipping[["share"]], total=False) if len(clipping) else clipping
    step, font = _row_size(len(table))
    below = 0.55 + step * len(table) if len(table) else 0.0
    figure = Figure(figsize=(WIDTH_INCHES, 1.25 + below), layout="constrained")
    if not len(table):
        _accuracy_axes(figure.subplots(), accuracy)
        return figure
    above, axes = figure.subplots(2, 1, height_ratios=[0.7, max(0.5, step * len(table))])
    _accuracy_axes(above, accuracy)
    _set_rows(axes, list(table.index), font)
    _barh(axes, 100 * table.share, color="#4477AA")
    _label_ends(axes, list(100 * table.share), [percent(share, digits=2 if share else 0) for share in table.share])
    axes.set_xlabel("Accesses in which an ADC clipped (%)")
    return figure


def tile_utilization_figure(lanes: Timeline) -> Figure:
    """Return who works when: a lane a tile (array above, PCUs or NMC units below) or shared unit, coloured by layer."""
    n_tiles, n_lanes = lanes.n_tile_lanes, len(lanes.lanes)
    tops, heights = lanes.tops, lanes.heights
    bottom = tops[-1] + heights[-1]
    inches_a_row = min(0.115, 6.5 / bottom)
    size, unit = axis_unit(lanes.latency_ns, "ns")
    figure = Figure(figsize=(WIDTH_INCHES, 1.15 + bottom * inches_a_row), layout="constrained")
    axes = figure.subplots()
    colour_of_layer = dict(zip(lanes.layers, layer_colours(len(lanes.layers)), strict=True))

    boxes, colours = [], []
    columns = [list(lanes.bars[name]) for name in ("lane", "stage", "layer", "start_ns", "end_ns", "busy")]
    for lane, stage, layer, start_ns, end_ns, busy in zip(*columns, strict=True):
        upper, lower = EXTENT_OF_STAGE[stage]
        end_ns = max(end_ns, start_ns + lanes.latency_ns / 1000)  # as wide as can be seen
        boxes.append(
            _box(start_ns / size, end_ns / size, tops[lane] + upper * heights[lane], tops[lane] + lower * heights[lane])
        )
        colours.append(to_rgba(colour_of_layer[layer], solidity(stage, busy)))
    axes.add_collection(PolyCollection(boxes, facecolors=colours, linewidths=0))

    every = max(1, round(0.13 / (heights[0] * inches_a_row) + 0.49)) if n_tiles else 1
    shown = [i for i in range(n_lanes) if i >= n_tiles or i % every == 0]
    centres = [tops[i] + heights[i] / 2 for i in range(n_lanes)]
    axes.set_yticks([centres[i] for i in shown], [lanes.lanes[i] for i in shown], fontsize=6.5)
    for i in shown:
        axes.annotate(percent(lanes.utilizations[i], digits=0), (1.0, centres[i]), (5, 0), textcoords="offset points",
                      xycoords=axes.get_yaxis_transform(), va="center_baseline", fontsize=6.5)  # fmt: skip
    axes.annotate("busy", (1.0, 1.0), (5, 4), xycoords="axes fraction", textcoords="offset points", fontsize=6.5)
    if 0 < n_tiles < n_lanes:
        axes.axhline(tops[n_tiles] - 0.5, color="#999999", linewidth=0.5)
    axes.set_xlim(0, (lanes.latency_ns / size) or 1.0)
    axes.set_ylim(bottom, 0)
    axes.tick_params(axis="y", length=2)
    axes.grid(axis="x")
    axes.set_xlabel(f"Time ({unit})")
    how = (
        f"A tile: array above (thin: weights being written), {lanes.converters} below. "
        "Pale: part of the time waiting for others.\n"
        "busy: share of the time at work; of a tile: its array"
    )
    _timeline_legend(figure, axes, colour_of_layer, how)
    return figure


# Pieces


def _accuracy_axes(axes: Axes, accuracy: Accuracy) -> None:
    for place, (value, colour) in enumerate(((accuracy.reference, "#000000"), (accuracy.chip, "#D55E00"))):
        low, high = interval_95(value, accuracy.n_samples)
        error = [[100 * (value - low)], [100 * (high - value)]]
        axes.errorbar(100 * value, place, xerr=error, fmt="o", markersize=4, color=colour, capsize=3, linewidth=1.2)
        axes.annotate(f"{percent(value, digits=2)} ({percent(low)} to {percent(high)})", (100 * value, place), (0, 6),
                      textcoords="offset points", ha="center", fontsize=7, color=colour)  # fmt: skip
    axes.set_yticks([0, 1], ["Reference", "Chip"])
    axes.set_ylim(1.5, -0.75)
    low, high = axes.get_xlim()
    room = max(0.35 * (high - low), 0.5)
    axes.set_xlim(max(0.0, low - room) if low > 0 else low, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 100])
    axes.grid(axis="x")
    axes.set_xlabel(f"Accuracy (%), with its 95 % interval; {accuracy.n_samples} samples")


def _bars_figure(names: Sequence[str], *, n_legend: int, step: float | None = None) -> tuple[Figure, Axes]:
    """Return a figure as high as its rows and its legend need, and axes with a row for each name."""
    usual, font = _row_size(len(names))
    height = max(1, len(names)) * (step or usual) + 0.55 + 0.17 * -(-n_legend // 5)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    _set_rows(axes, names, font)
    return figure, axes


def _row_size(n: int) -> tuple[float, float]:
    """Return the inches a row and the size of its font, for *n* rows."""
    if n <= 12:
        return 0.27, 7.5
    return (0.19, 7.0) if n <= 32 else (0.135, 5.5)


def _set_rows(axes: Axes, names: Sequence[str], font: float) -> None:
    axes.set_yticks(range(len(names)), [short(name, 34) for name in names], fontsize=font)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _barh(
    axes: Axes,
    values: pd.Series,
    *,
    color: str | list[str],
    left: pd.Series | None = None,
    height: float = 0.74,
    hatch: str | None = None,
) -> None:
    axes.barh(range(len(values)), list(values), left=0 if left is None else list(left), height=height, color=color,
              hatch=hatch, edgecolor="white", linewidth=0.3)  # fmt: skip


def _label_ends(axes: Axes, ends: Sequence[float], texts: Sequence[str]) -> None:
    """Write a text at the end of each bar, and make room for the longest."""
    greatest = max(ends, default=0.0) or 1.0
    font = _row_size(len(ends))[1] - 0.5
    for place, (end, text) in enumerate(zip(ends, texts, strict=True)):
        axes.annotate(
            text, (end, place), (3, 0), textcoords="offset points", va="center_baseline", fontsize=font, color="#333333"
        )
    characters = max((len(text) + 60 * end / greatest for end, text in zip(ends, texts, strict=True)), default=60)
    axes.set_xlim(0, greatest * max(1.04, 1.04 * characters * font / (60 * 7.0)))


def _energy_label(frame: pd.DataFrame, engine: str | None, unit: str) -> str:
    total = human(float(rows_of(frame, engine).energy_pJ.sum()), "pJ")
    return f"{_how_known(frame, engine)} energy of one inference ({unit}), {total} in total"


def _how_known(frame: pd.DataFrame, engine: str | None) -> str:
    return "Simulated" if (engine or main_engine(frame)) == "simulate" else "Estimated"


def _hatch_of(group: str) -> str | None:
    return "////" if group == "Leakage" else None


def _patch(label: str, colour: str, hatch: str | None = None) -> Patch:
    return Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=label, linewidth=0)


def _group_legend(figure: Figure, groups: Sequence[str]) -> None:
    _legend(figure, [_patch(group, COLOUR_OF_GROUP[group], _hatch_of(group)) for group in groups])


def _legend(figure: Figure, patches: Sequence[Patch], **how: Any) -> None:
    if patches:
        figure.legend(handles=list(patches), loc="outside lower center", ncols=min(len(patches), 5), **how)


def _timeline_legend(figure: Figure, axes: Axes, colour_of_layer: dict[str, str], how: str) -> None:
    layers, n = list(colour_of_layer), len(colour_of_layer)
    if n <= MOST_NAMED_COLOURS:
        patches = [_patch(short(layer, 26), colour) for layer, colour in colour_of_layer.items()]
        _legend(figure, patches, title=how, title_fontsize=6.5)
        return
    scale = ScalarMappable(
        BoundaryNorm([i + 0.5 for i in range(n + 1)], n), ListedColormap(list(colour_of_layer.values()))
    )
    bar = figure.colorbar(scale, ax=axes, location="bottom", aspect=60, pad=0.02, shrink=0.9)
    ticks = [1, *(i for i in range(0, n, 10) if 1 < i < n - 3), n]
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(length=2, labelsize=6.5)
    bar.outline.set_visible(False)
    first, last = short(layers[0], 34), short(layers[-1], 34)
    bar.set_label(f"Layer, from {first} (1) to {last} ({n})\n{how}", fontsize=6.5)


def _box(left: float, right: float, top: float, bottom: float) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
