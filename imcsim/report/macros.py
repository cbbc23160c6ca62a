"""Macros beside what their papers print, as a figure for print."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from imcsim.arch.macros import Macro
from imcsim.costs.macro import MacroFigure, Role
from imcsim.report.figures import WIDTH_INCHES

LOOK: dict[Role, tuple[str, str]] = {
    "own parts": ("o", "#67A9CF"),
    "fitted": ("x", "#7F7F7F"),
    "predicted": ("D", "#B2182B"),
}
"""Marker and colour."""

MEANING: dict[Role, str] = {
    "own parts": "the paper's own parts, added up",
    "fitted": "fitted to the figure",
    "predicted": "predicted by scaling or by our models",
}
LEAST, GREATEST = 0.1, 10.0


WORDS = {"TOPS": "TOPS", "cycle_pJ": "energy of a cycle", "TOPS_per_W": "TOPS/W", "TOPS_per_mm2": "TOPS/mm²"}
MODELS = {"tile_": "by our tile", "adders_": "by our adders"}


def figure_words(name: str) -> str:
    """Return the name of a figure of `imcsim.costs.macro` for people.

    >>> figure_words("TOPS_per_W@1200mV"), figure_words("tile_TOPS_per_W@dense")
    ('TOPS/W at 1.2 V', 'TOPS/W by our tile, dense')
    """
    base, _, point = name.partition("@")
    model = next((begin for begin in MODELS if base.startswith(begin)), "")
    words = WORDS[base.removeprefix(model)] + (f" {MODELS[model]}" if model else "")
    if point.endswith("mV"):
        return f"{words} at {float(point.removesuffix('mV')) / 1000:g} V"
    return f"{words}, {point}" if point else words


def ratios_figure(found: Sequence[tuple[Macro, MacroFigure]]) -> Figure:
    """Return a row for each printed figure of (macro, figure): ours by the printed one, on a logarithmic axis."""
    rows: list[tuple[str, MacroFigure | None]] = []
    for macro, printed in found:
        title = f"{macro.description.partition(':')[0]}, {macro.technology.node_nm:g} nm"
        if title not in (name for name, _ in rows):
            rows.append((title, None))
        rows.append((figure_words(printed.name), printed))
    room = ConstrainedLayoutEngine(w_pad=0.12)  # labels grow a little from the layout's resolution to that of the file
    drawn = Figure(figsize=(WIDTH_INCHES, 0.9 + 0.17 * len(rows)), layout=room)
    axes = drawn.add_subplot()
    axes.axvspan(1 / 1.3, 1.3, color="#EDEDED", linewidth=0, zorder=0)
    axes.axvline(1.0, color="#1B1F24", linewidth=0.8, zorder=1)
    for place, (name, figure) in enumerate(rows):
        if figure is None:
            axes.axhline(place - 0.5, color="#D7DBE0", linewidth=0.5, zorder=0)
            axes.text(LEAST * 1.05, place, name, fontweight="bold", va="center")
        else:
            _mark(axes, place, figure)
    axes.set_yticks(range(len(rows)), [name if figure else "" for name, figure in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    axes.set_xlim(LEAST, GREATEST)
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Ours / printed (shaded: within a factor 1.3)")
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, markersize=4.5, label=MEANING[role])
        for role, (marker, colour) in LOOK.items()
    ]
    drawn.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.3)
    return drawn


def _mark(axes: Axes, place: int, figure: MacroFigure) -> None:
    """Draw the row of one figure, with the ratio in numbers on the side away from 1."""
    assert figure.printed, "only printed figures are drawn"
    ratio = figure.value / figure.printed
    marker, colour = LOOK[figure.role]
    axes.plot([1.0, ratio], [place, place], color=colour, linewidth=0.8, zorder=2)
    axes.plot(ratio, place, marker, color=colour, markersize=4.5, zorder=3)
    side = -1 if ratio < 0.995 else 1
    axes.annotate(f"{ratio:.2f}", (ratio, place), xytext=(6 * side, 0), textcoords="offset points",
                  ha="right" if side < 0 else "left", va="center", fontsize=7)  # fmt: skip
