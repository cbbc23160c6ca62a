"""Figures of a sweep for print: each as PNG, SVG and PDF, with its numbers as CSV beside them."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from imcsim.report.figures import WIDTH_INCHES, rendered
from imcsim.report.palette import MOST_NAMED_COLOURS, layer_colours, ordered_colours, short
from imcsim.report.sweep_axes import Axis, level_text, named, parameter_axis, rounded_text, short_key
from imcsim.report.sweep_load import Floats, Parameter
from imcsim.report.sweep_tables import (
    Effects,
    Findings,
    HeatMap,
    density,
    heat_map,
)
from imcsim.results import write_whole

FORMS: tuple[Literal["png", "svg", "pdf"], ...] = ("png", "svg", "pdf")
FRONT_COLOUR = "#D55E00"
QUIET = "#8C8C8C"
MOST_LINES = 800
"""Lines of parallel coordinates beside those of the front."""

MOST_FRONT_LINES = 200
MOST_AXES = 8
"""Parameters that parallel coordinates show: those that matter most."""

MOST_BARS = 12
RASTER_FROM = 1500
"""From so many points on a vector file holds them as a picture: it opens at once, and stays small."""


@dataclass(frozen=True)
class Drawing:
    """One figure for print."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]
    table: Callable[[], pd.DataFrame]
    """Its numbers, in the units of ``points.csv``."""


def write_drawing(folder: Path, drawing: Drawing) -> str:
    """Write a figure and its numbers into ``figures/``; return the PNG in base 64."""
    files = rendered(drawing.draw, FORMS)
    for form, content in files.items():
        write_whole(folder / "figures" / f"{drawing.name}.{form}", content)
    table = drawing.table().to_csv(index=False, lineterminator="\n", float_format="%.10g")
    write_whole(folder / "figures" / f"{drawing.name}.csv", table)
    return base64.b64encode(files["png"]).decode()


def sweep_drawings(found: Findings) -> list[Drawing]:
    """Return the figures that the points have the numbers for; the rooflines and the search have their own."""
    drawings = []
    if found.drawn.n_points and (found.pair or found.ranked):
        drawings.append(front_drawing(found))
        if len(found.ranked) + len(found.axes) > 2 and found.ranked:
            drawings.append(parallel_drawing(found))
    if found.effects:
        drawings.append(sensitivity_drawing(found.effects))
    if len(found.ranked) > 1 and found.drawn.n_points:
        drawings.append(heat_map_drawing(found))
    return drawings


# The front


def front_drawing(found: Findings) -> Drawing:
    """Return the first two objectives against each other, or the only one against the parameter that matters most."""
    x, y = front_axes(found)
    (x_axis, _), (y_axis, _) = x, y
    across = x_axis.title[0].lower() + x_axis.title[1:] if found.pair else x_axis.name
    title = f"{y_axis.title} against {across}"
    colour = front_colour(found)
    words = [found.drawn.words]
    if found.pair:
        words.append(
            "The line is the front of these two objectives"
            + ("; ringed points are on the front of all objectives." if len(found.axes) > 2 else ".")
        )
    if colour is not None:
        words.append(f"Colours tell {colour.name} apart.")
    return Drawing("front", title, " ".join(words), lambda: front_figure(found), lambda: front_table(found))


def front_axes(found: Findings) -> tuple[tuple[Axis, Floats], tuple[Axis, Floats]]:
    """Return axis and values of all points, for x and for y."""
    objectives = found.sweep.objectives
    if found.pair:
        i, j = found.pair
        return (found.axes[i], objectives[i]), (found.axes[j], objectives[j])
    first = named(found.sweep.parameters, found.ranked[0])
    return (parameter_axis(first), first.values), (found.axes[0], objectives[0])


def front_colour(found: Findings) -> Parameter | None:
    """Return the parameter that colours tell apart: the one that matters most, unless it is the axis."""
    names = found.ranked if found.pair else found.ranked[1:]
    return named(found.sweep.parameters, names[0]) if names else None


def front_table(found: Findings) -> pd.DataFrame:
    """Return the points that are drawn, and whether they are on the front, and on that of the two objectives."""
    (x_axis, _), (y_axis, _) = front_axes(found)
    at, sweep = found.drawn.at, found.sweep
    columns: dict[str, Any] = {"point": sweep.numbers[at]}
    if (colour := front_colour(found)) is not None:
        columns[colour.name] = sweep.frame[colour.name].to_numpy()[at]
    for axis in (x_axis, y_axis):
        columns[axis.name] = sweep.frame[axis.name].to_numpy()[at]
    columns["on_front"] = np.where(sweep.on_front[at], "true", "false")
    if found.pair:
        on_both = np.isin(at, found.pair_front)
        columns["on_front_of_both"] = np.where(on_both, "true", "false")
    return pd.DataFrame(columns)


def front_figure(found: Findings) -> Figure:
    """Return the scatter with its front; the marks' colour tells a parameter apart."""
    (x_axis, x), (y_axis, y) = front_axes(found)
    at = found.drawn.at
    at = at[np.isfinite(x[at]) & np.isfinite(y[at])]
    figure = Figure(figsize=(WIDTH_INCHES, 0.62 * WIDTH_INCHES), layout="constrained")
    axes = figure.add_subplot()
    if found.pair and not found.drawn.is_all:
        cells = density(x, y, x_axis, y_axis)
        shown = np.ma.masked_equal(cells.counts, 0)
        mesh = axes.pcolormesh(cells.x_edges, cells.y_edges, shown, cmap="Greys", norm=LogNorm(vmin=0.3), alpha=0.45,
                        linewidth=0, rasterized=True, zorder=0.5)  # fmt: skip
        mesh.sticky_edges.x[:] = mesh.sticky_edges.y[:] = []  # or points at the edges would be cut in half
    colour = front_colour(found)
    on_front = found.sweep.on_front[at]
    size = 16 if len(at) <= 500 else 7 if len(at) <= 5000 else 3
    colours = colours_of(figure, axes, colour, at) if colour is not None else np.tile(to_rgba("#0072B2"), (len(at), 1))
    raster = len(at) > RASTER_FROM
    for here, mark in ((~on_front, size), (on_front, 2.2 * max(size, 8))):
        axes.scatter(
            x_axis.shown(x[at[here]]), y_axis.shown(y[at[here]]), s=mark, c=colours[here], rasterized=raster,
            edgecolors="#1B1F24" if mark != size else "none", linewidths=0.5, alpha=0.95 if mark != size else 0.7,
            zorder=3 if mark != size else 2,
        )  # fmt: skip
    if found.pair:
        line = found.pair_front
        axes.step(
            x_axis.shown(x[line]), y_axis.shown(y[line]), where="post", color="#1B1F24", linewidth=0.9, zorder=2.5
        )
    handles: list[Artist] = [Line2D([], [], linestyle="", marker="o", markersize=5, markerfacecolor="white",
                      markeredgecolor="#1B1F24", markeredgewidth=0.6,
                      label=f"on the front ({int(found.sweep.on_front.sum()):,})")]  # fmt: skip
    if found.pair:
        handles.append(Line2D([], [], color="#1B1F24", linewidth=0.9, label="front of the two"))
    if not found.drawn.is_all:
        handles.append(Patch(facecolor="#B8B8B8", label=f"all {found.drawn.n_points:,} points, darker: more"))
    if found.sweep.on_front.any():
        axes.legend(handles=handles, loc="best")
    set_axis(axes, "x", x_axis)
    set_axis(axes, "y", y_axis)
    axes.grid(visible=True)
    return figure


def colours_of(figure: Figure, axes: Axes, parameter: Parameter, at: Any) -> Any:
    """Return the colour of each point *at* (n 4) by its value of *parameter*; draws the legend or the scale."""
    codes, n = parameter.codes[at], parameter.n_levels
    absent = to_rgba("#C4C4C4")
    if n <= MOST_NAMED_COLOURS or parameter.kind != "number":
        names = ordered_colours(n) if parameter.kind == "number" else layer_colours(n)
        handles = [Line2D([], [], linestyle="", marker="o", markersize=4.5, color=name, label=short(level_text(level)))
                   for name, level in zip(names, parameter.levels, strict=True)]  # fmt: skip
        if (codes < 0).any():
            handles.append(Line2D([], [], linestyle="", marker="o", markersize=4.5, color=absent, label="not there"))
        step = -(-len(handles) // 16)
        figure.legend(handles=handles[::step], loc="outside right upper", title=short_key(parameter.name, 28),
                      title_fontsize=7.5, alignment="left")  # fmt: skip
        return np.array([*(to_rgba(name) for name in names), absent])[codes]
    low, high = float(parameter.different[0]), float(parameter.different[-1])
    norm: Normalize = LogNorm(low, high) if parameter.is_log else Normalize(low, high)
    scale = ScalarMappable(norm, "viridis")
    bar = figure.colorbar(scale, ax=axes, pad=0.015, aspect=32)
    bar.set_label(short_key(parameter.name, 44))
    bar.outline.set_visible(False)
    colours = scale.to_rgba(np.nan_to_num(parameter.values[at], nan=low))
    colours[codes < 0] = absent
    return colours


def set_axis(axes: Axes, which: str, axis: Axis) -> None:
    """Give an axis its name, its scale and ticks that people read."""
    of_axes = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.label if axis.unit or not axis.name else
                                                          (axis.title if axis.is_maximized is not None
                                                           else short_key(axis.name, 60)))  # fmt: skip
    if axis.texts:
        step = -(-len(axis.texts) // 16)
        ticks = list(range(0, len(axis.texts), step))
        of_axes.set_ticks(ticks, labels=[short(axis.texts[i], 18) for i in ticks])
        return
    if not axis.is_log:
        of_axes.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    if high < 1000 * low:  # too few powers of ten to read off
        of_axes.set_major_locator(LogLocator(subs=(1, 2, 5)))
    of_axes.set_major_formatter(plain if high <= 1e5 and low >= 1e-4 else of_axes.get_major_formatter())
    of_axes.set_minor_formatter(NullFormatter())


# Parallel coordinates


@dataclass(frozen=True, eq=False)
class Coordinate:
    """One upright axis of the parallel coordinates."""

    axis: Axis
    values: Floats
    """Of all points."""

    low: float
    high: float
    """Its ends, as shown."""

    ticks: tuple[float, ...]
    """As shown, at `texts`."""

    texts: tuple[str, ...]

    def place(self, shown: Any) -> Floats:
        """Return how high numbers stand, from 0 to 1; below 0 what is no number."""
        low, high, numbers = self.low, self.high, np.asarray(shown, dtype=float)
        if self.axis.is_log:
            low, high, numbers = np.log(low), np.log(high), np.log(numbers)
        return np.nan_to_num((numbers - low) / (high - low), nan=-0.12)

    def places(self, at: Any) -> Floats:
        """Return how high the points at these places of the table stand."""
        return self.place(self.axis.shown(self.values[at]))


def coordinates(found: Findings) -> list[Coordinate]:
    """Return the axes: the parameters that matter most in the order of the sweep file, then the objectives."""
    kept = set(found.ranked[:MOST_AXES])
    rows = [coordinate(parameter_axis(parameter), parameter.values, parameter)
            for parameter in found.sweep.parameters if parameter.name in kept]  # fmt: skip
    return rows + [coordinate(axis, values, None)
                   for axis, values in zip(found.axes, found.sweep.objectives, strict=True)]  # fmt: skip


def coordinate(axis: Axis, values: Floats, parameter: Parameter | None) -> Coordinate:
    """Return an axis from its least number to its greatest, with ticks that people read."""
    there = values[np.isfinite(values)]
    ends: list[float] = axis.shown([there.min(), there.max()]).tolist() if len(there) else [0.0, 1.0]
    low, high = ends
    if low == high:
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    if axis.texts:
        ticks = [float(i) for i in range(0, len(axis.texts), -(-len(axis.texts) // 14))]
        texts = [axis.texts[int(i)] for i in ticks]
    elif parameter is not None and parameter.n_levels <= 10:
        ticks, texts = [float(level) for level in parameter.levels], [level_text(level) for level in parameter.levels]
    elif axis.is_log:
        ticks = [float(tick) for tick in np.geomspace(low, high, 5)]
        texts = [rounded_text(tick) for tick in ticks]
    else:
        steps = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        ticks = [float(tick) for tick in steps if low <= tick <= high]
        texts = [f"{tick:.6g}" for tick in ticks]
    return Coordinate(axis, values, low, high, tuple(ticks), tuple(texts))


def parallel_lines(found: Findings) -> tuple[Any, Any]:
    """Return the places of the points whose lines are drawn: those of the front, and others."""
    figures = np.array(found.sweep.objectives)
    with_all = np.logical_and.reduce(np.isfinite(figures), axis=0)
    front = np.flatnonzero(found.sweep.on_front & with_all)
    others = np.setdiff1d(found.drawn.at[with_all[found.drawn.at]], front)
    return thinned(front, MOST_FRONT_LINES), thinned(others, MOST_LINES)


def thinned(at: Any, most: int) -> Any:
    """Return *most* of the places *at*, drawn with one seed, ascending; all of them where they are no more."""
    return at if len(at) <= most else np.sort(np.random.default_rng(0).choice(at, most, replace=False))


def parallel_drawing(found: Findings) -> Drawing:
    """Return parameters and objectives side by side, a line a point."""
    front, others = parallel_lines(found)
    n_front, n_left = int(found.sweep.on_front.sum()), len(found.ranked) - MOST_AXES
    caption = (
        f"A line a point: {len(front):,} of the {n_front:,} on the front in colour, and {len(others):,} others in "
        "grey. An arrow says where better lies."
    )
    if n_left > 0:
        caption += f" {n_left} parameters that matter less are left out."
    return Drawing("parallel", "Parallel coordinates", caption, lambda: parallel_figure(found),
                   lambda: parallel_table(found))  # fmt: skip


def parallel_table(found: Findings) -> pd.DataFrame:
    """Return the points whose lines are drawn."""
    front, others = parallel_lines(found)
    at = np.sort(np.concatenate([front, others]))
    names = ["point", *(each.axis.name for each in coordinates(found))]
    table = found.sweep.frame[names].iloc[at]
    return table.assign(on_front=np.where(found.sweep.on_front[at], "true", "false"))


def parallel_figure(found: Findings) -> Figure:
    """Return the axes side by side; lines of the front are coloured by an objective."""
    shown = coordinates(found)
    front, others = parallel_lines(found)
    width = max(WIDTH_INCHES, 0.95 * len(shown) + 0.6)
    figure = Figure(figsize=(width, 3.3), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(len(shown))

    def lines(at: Any) -> list[Any]:
        return [np.column_stack([steps, line]) for line in np.array([each.places(at) for each in shown]).T]

    axes.add_collection(LineCollection(lines(others), colors=to_rgba(QUIET, 0.25), linewidths=0.5, rasterized=True))
    coloured = found.pair[1] if found.pair else 0
    first, values = found.axes[coloured], found.sweep.objectives[coloured]
    if len(front):
        numbers = first.shown(values[front])
        low, high = float(numbers.min()), float(numbers.max())
        high = high if high > low else low + (abs(low) or 1.0) * 1e-6
        scale = ScalarMappable(LogNorm(low, high) if first.is_log else Normalize(low, high), "plasma")
        axes.add_collection(LineCollection(lines(front), colors=scale.to_rgba(numbers), linewidths=1.0, alpha=0.9))
        if len(front) > 1:
            bar = figure.colorbar(scale, ax=axes, pad=0.01, aspect=30)
            bar.set_label(f"{first.label} of points on the front")
            bar.outline.set_visible(False)
    is_drawn = np.concatenate([front, others]).astype(int)
    gaps = [bool((each.places(is_drawn) < 0).any()) for each in shown]
    for step, (each, has_gap) in enumerate(zip(shown, gaps, strict=True)):
        axes.plot([step, step], [0, 1], color="#1B1F24", linewidth=0.8, zorder=4)
        ticks = [*zip(each.place(each.ticks), each.texts, strict=True), *([(-0.12, "none")] if has_gap else [])]
        for place, text in ticks:
            axes.plot([step - 0.02, step], [place, place], color="#1B1F24", linewidth=0.6, zorder=4)
            axes.annotate(short(text, 14), (step, place), (-4, 0), textcoords="offset points", ha="right",
                          va="center_baseline", fontsize=6.5, zorder=5,
                          bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "alpha": 0.75,
                                "linewidth": 0})  # fmt: skip
    names = [heading(each.axis) for each in shown]
    axes.set_xticks(steps, names, fontsize=7)
    axes.tick_params(axis="x", length=0, pad=5)
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.55, len(shown) - 0.85)
    axes.set_ylim(-0.17 if any(gaps) else -0.04, 1.04)
    return figure


def heading(axis: Axis) -> str:
    """Return what stands at the foot of an axis: a parameter's key in lines, an objective with its unit."""
    if axis.is_maximized is None:
        steps = axis.name.split(".")
        lines = [".".join(steps[:-1]), steps[-1]] if len(steps) > 1 else steps
        return "\n".join(short(line, 17) for line in lines)
    return f"{short(axis.title, 17)}\n({axis.unit}, {'↑' if axis.is_maximized else '↓'})".replace("(, ", "(")


# Sensitivity


def sensitivity_drawing(effects: Sequence[Effects]) -> Drawing:
    """Return for each objective a bar a parameter: from the least to the greatest of its means."""
    return Drawing("sensitivity", "Sensitivity", " ".join(sensitivity_words(effects)),
                   lambda: sensitivity_figure(effects), lambda: sensitivity_table(effects))  # fmt: skip


def sensitivity_words(effects: Sequence[Effects]) -> list[str]:
    """Return how the bars came about."""
    if all(each.is_exact for each in effects):
        how = (
            "The points are a full grid: a bar runs from the least to the greatest mean of the objective over the "
            "values of one parameter, each the mean over all values of all others (main effects)."
        )
    else:
        how = (
            "The points are no full grid: the objective is taken apart, by least squares, into a constant and one "
            "number a value of each parameter (numbers with many values in bins of equally many points); a bar runs "
            "from the least to the greatest of them, the other parameters' influence taken off. Which points are there "
            "may still show: where good ones alone went on to a stage, or several parameters act together."
        )
    return [how, "The upright line is the mean of all points; at a bar's ends stand the values that lead there."]


def sensitivity_table(effects: Sequence[Effects]) -> pd.DataFrame:
    """Return the mean at every value of every parameter."""
    rows = [
        (each.objective.name, effect.parameter, text, n, mean, effect.share)
        for each in effects
        for effect in each.effects
        for text, n, mean in zip(effect.texts, effect.n_points, effect.means, strict=True)
    ]
    return pd.DataFrame(rows, columns=["objective", "parameter", "value", "n_points", "mean", "share_of_variance"])


def sensitivity_figure(effects: Sequence[Effects]) -> Figure:
    """Return a panel an objective, the strongest parameter at the top."""
    rows = [min(MOST_BARS, len(each.effects)) for each in effects]
    heights = [0.24 * n + 0.55 for n in rows]
    figure = Figure(figsize=(WIDTH_INCHES, sum(heights)), layout="constrained")
    panels = figure.subplots(len(effects), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, each, n in zip(panels, effects, rows, strict=True):
        axis, shown = each.objective, each.effects[:n]
        for place, effect in enumerate(shown):
            low, high = axis.shown([effect.low, effect.high])
            mean = axis.shown(each.mean)
            better = bool(axis.is_maximized)
            axes.barh(place, mean - low, left=low, height=0.62, color="#E69F00" if better else "#0072B2")
            axes.barh(place, high - mean, left=mean, height=0.62, color="#0072B2" if better else "#E69F00")
            for end, text, side in ((low, effect.low_text, "right"), (high, effect.high_text, "left")):
                axes.annotate(short(text, 20), (end, place), (-3 if side == "right" else 3, 0), ha=side,
                              textcoords="offset points", va="center_baseline", fontsize=6.5,
                              color="#333333")  # fmt: skip
        axes.axvline(axis.shown(each.mean), color="#1B1F24", linewidth=0.8)
        axes.set_yticks(range(n), [short_key(effect.parameter, 36) for effect in shown])
        axes.set_ylim(n - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        low, high = axes.get_xlim()
        room = 0.16 * ((high - low) or 1.0)
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        axes.grid(axis="x")
        axes.set_xlabel(f"{axis.label}, mean; {100 * each.explained:.0f} % of its variance is of single parameters")
    return figure


# Heat maps


def maps_of(found: Findings) -> list[tuple[Axis, HeatMap]]:
    """Return each objective over the two parameters that matter most; the coarser one upright."""
    first, second = (found.levels[name] for name in found.ranked[:2])
    x, y = (first, second) if len(first) >= len(second) else (second, first)
    return [(axis, heat_map(x, y, values, bool(axis.is_maximized)))
            for axis, values in zip(found.axes, found.sweep.objectives, strict=True)
            if np.isfinite(values).any()]  # fmt: skip


def heat_map_drawing(found: Findings) -> Drawing:
    """Return a map for each objective."""
    first, second = found.ranked[:2]
    others = len(found.ranked) - 2
    words = [f"{first} and {second} matter most of all parameters."] if others else []
    words.append(
        "A cell has the best value of the objective over all points with these two values"
        + (f", whatever the {others} other parameter{'s are' if others > 1 else ' is'}" if others else "")
        + ". Bright is better; a white cell has no points."
    )
    return Drawing("heat_map", "Two parameters", " ".join(words), lambda: heat_map_figure(found),
                   lambda: heat_map_table(found))  # fmt: skip


def heat_map_table(found: Findings) -> pd.DataFrame:
    """Return best, mean and number of points of every cell of every objective."""
    rows = [
        (axis.name, one.x.texts[i], one.y.texts[j], one.best[j, i], one.mean[j, i], one.counts[j, i])
        for axis, one in maps_of(found)
        for j in range(len(one.y))
        for i in range(len(one.x))
    ]
    one = maps_of(found)[0][1]
    columns = ["objective", one.x.name, one.y.name, "best", "mean", "n_points"]
    return pd.DataFrame(rows, columns=columns)


def heat_map_figure(found: Findings) -> Figure:
    """Return the maps side by side, at most three in a line."""
    maps = maps_of(found)
    n_columns = len(maps) if len(maps) <= 3 else 2 if len(maps) == 4 else 3
    n_lines = -(-len(maps) // n_columns)
    one = maps[0][1]
    height = min(3.6, max(1.9, 0.22 * len(one.y) + 1.3))
    figure = Figure(figsize=(WIDTH_INCHES, height * n_lines), layout="constrained")
    panels = figure.subplots(n_lines, n_columns, squeeze=False)
    for axes in panels.flat[len(maps) :]:
        axes.set_axis_off()
    for k, (axes, (axis, each)) in enumerate(zip(panels.flat, maps, strict=False)):
        shown = axis.shown(each.best)
        there = shown[np.isfinite(shown)]
        norm = LogNorm(there.min(), there.max()) if axis.is_log else Normalize(there.min(), there.max())
        mesh = axes.pcolormesh(np.ma.masked_invalid(shown), norm=norm, edgecolors="white", linewidth=0.4,
                               cmap="viridis" if axis.is_maximized else "viridis_r")  # fmt: skip
        bar = figure.colorbar(mesh, ax=axes, location="bottom", pad=0.03, aspect=28)
        bar.set_label(axis.label)
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(5) if not axis.is_log else bar.locator
        if len(each.x) <= 8 and len(each.y) <= 10 and len(maps) <= 4:
            for j in range(len(each.y)):
                for i in range(len(each.x)):
                    if np.isfinite(shown[j, i]):
                        red, green, blue, _ = mesh.cmap(norm(shown[j, i]))
                        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                        axes.text(i + 0.5, j + 0.5, rounded_text(shown[j, i]), ha="center", va="center_baseline",
                                  fontsize=6 if n_columns < 3 else 5, color="white" if dark else "black")  # fmt: skip
        long = max(len(text) for text in each.x.texts) * len(each.x) > 46
        axes.set_xticks(np.arange(len(each.x)) + 0.5, [short(text, 16) for text in each.x.texts],
                        rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor",
                        fontsize=6.5)  # fmt: skip
        axes.set_yticks(np.arange(len(each.y)) + 0.5, [short(text, 16) for text in each.y.texts], fontsize=6.5)
        axes.tick_params(length=0)
        axes.set_xlabel(short_key(each.x.name, 40))
        if k % n_columns == 0:
            axes.set_ylabel(short_key(each.y.name, 30))
        axes.set_title(f"{axis.title}, best", loc="left")
        axes.spines[["left", "bottom"]].set_visible(False)
    return figure
