"""Machines side by side: a table for the terminal, a figure, and a page."""

import base64
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from imcsim.arch.spec import BASES, Basis
from imcsim.comparators.compared import Compared, Comparison
from imcsim.report.comparison_tables import caveats, comparison_table, layers_table, title_of
from imcsim.report.figures import WIDTH_INCHES, write_figures
from imcsim.report.palette import COLOUR_OF_BASIS, axis_unit
from imcsim.report.views import Image, Section

MARK_OF_COVER = {"array": "v", "core": "D", "chip": "o", "chip and memory": "s", "board": "^"}
"""What the energy covers, from the least to the most."""


Box = tuple[float, ...]
"""Left, low, right, high."""

DISTANCES = (7, 13, 20, 28, 38, 50)
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""Where a name is tried, in points from its mark: right, left, above, below, then the corners."""

NARROW = 100
"""Axes that span less have ticks at 1, 2 and 5 times the powers of ten."""


def write_comparison(found: Comparison, folder: Path) -> Path:
    """Write ``figures/compare.png`` and ``.svg`` and the page into *folder*; return the page."""
    from imcsim.report.page import render_page
    from imcsim.results import write_whole

    write_figures(folder, {"compare": lambda: comparison_figure(found)})
    png = base64.b64encode((folder / "figures" / "compare.png").read_bytes()).decode()
    label = "; ".join(f"{row.chip}: {row.latency_ns:.4g} ns, {row.energy_pJ:.4g} pJ" for row in found.shown)
    image = Image("compare", "Latency and energy of one inference", label, png)
    sections = [
        Section("compared", "Side by side", caveats(found), images=[image], tables=[comparison_table(found)]),
        Section("layers", "Layers", [], tables=[layers_table(row) for row in found.rows]),
    ]
    page = folder / "compare.html"
    footer = "compare.csv and layers.csv hold every number."
    write_whole(page, render_page(title_of(found), "Machines side by side", sections, footer=footer))
    return page


def comparison_figure(found: Comparison) -> Figure:
    """Return energy against latency, both logarithmic: the mark says what the energy covers, the colour its basis."""
    rows = found.shown
    time_size, time_unit = axis_unit(median(row.latency_ns for row in rows), "ns")
    energy_size, energy_unit = axis_unit(median(row.energy_pJ for row in rows), "pJ")
    figure = Figure(figsize=(WIDTH_INCHES, 0.62 * WIDTH_INCHES), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(visible=True, which="major")
    for row in rows:
        axes.plot(
            row.latency_ns / time_size, row.energy_pJ / energy_size, MARK_OF_COVER[row.energy_covers], markersize=7,
            markerfacecolor=COLOUR_OF_BASIS[row.energy_basis], markeredgecolor="#1B1F24", markeredgewidth=0.7,
        )  # fmt: skip
    axes.margins(x=0.12, y=0.1)
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if limits[1] < NARROW * limits[0]:  # too few powers of ten to read off
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    place_names(figure, axes, [(row.chip, row.latency_ns / time_size, row.energy_pJ / energy_size) for row in rows])
    axes.set_xlabel(f"Latency of one inference ({time_unit})")
    axes.set_ylabel(f"Energy of one inference ({energy_unit})")
    axes.set_title(title_of(found), loc="left")
    figure.legend(handles=marks(rows), loc="outside lower left", ncols=5, title="What the energy covers",
                  alignment="left")  # fmt: skip
    figure.legend(handles=colours(rows), loc="outside lower right", ncols=5, title="Weakest basis of the energy",
                  alignment="left")  # fmt: skip
    return figure


def place_names(figure: Figure, axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write the name of each point (name, x, y) beside it, where it covers no other name and no mark."""
    figure.draw_without_rendering()
    scale, frame = figure.dpi / 72, axes.get_window_extent()
    at = [axes.transData.transform((x, y)) for _, x, y in points]
    taken: list[Box] = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in at]
    for (name, *values), (x, y) in sorted(zip(points, at, strict=True), key=lambda pair: pair[0][1:]):
        for distance, (right, up) in product(DISTANCES, DIRECTIONS):
            box = name_box(x / scale + right * distance, y / scale + up * distance, right, up, len(name))
            box = tuple(scale * edge for edge in box)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
            if inside and not any(overlap(box, other) for other in taken):
                taken.append(box)
                break
        else:  # no room anywhere: to the right of the mark, over what is there
            distance, (right, up) = DISTANCES[0], DIRECTIONS[0]
        axes.annotate(
            name, (values[0], values[1]), (right * distance, up * distance), textcoords="offset points", fontsize=7.5,
            ha=("center", "left", "right")[right], va=("center", "bottom", "top")[up],
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#8C8C8C"} if distance > 13 else None,
        )  # fmt: skip


def name_box(x: float, y: float, right: int, up: int, n_letters: int) -> Box:
    """Return about where a name of *n_letters* lies whose corner, edge or middle is at (x, y), in points."""
    width, height = 4.3 * n_letters, 9.0
    left = x - width * (1 - right) / 2
    low = y - height * (1 - up) / 2
    return left, low, left + width, low + height


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes (left, low, right, high) share something."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def marks(rows: tuple[Compared, ...]) -> list[Line2D]:
    """Return what the legend shows of the marks that are there."""
    there = {row.energy_covers for row in rows}
    return [
        Line2D([], [], linestyle="", marker=mark, markersize=6, markerfacecolor="white", markeredgecolor="#1B1F24",
               label=cover)
        for cover, mark in MARK_OF_COVER.items() if cover in there
    ]  # fmt: skip


def colours(rows: tuple[Compared, ...]) -> list[Line2D]:
    """Return what the legend shows of the colours that are there."""
    there: set[Basis] = {row.energy_basis for row in rows}
    return [
        Line2D([], [], linestyle="", marker="o", markersize=6, markerfacecolor=COLOUR_OF_BASIS[basis],
               markeredgecolor="#1B1F24", markeredgewidth=0.7, label=basis)
        for basis in BASES if basis in there
    ]  # fmt: skip
