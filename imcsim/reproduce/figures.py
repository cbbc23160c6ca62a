"""The paper's figures drawn anew from our rows, and what they rest on; for print."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from imcsim.report.figures import WIDTH_INCHES
from imcsim.report.palette import COLOUR_OF_BASIS, COLOUR_OF_GROUP
from imcsim.reproduce.kernel import KernelCurve
from imcsim.reproduce.predict import (
    BUFFERS,
    CONTROL,
    DIGITAL,
    MAC,
    MEMORY,
    PARTS,
    PROGRAMMING,
    Lever,
    Prediction,
    Results,
)
from imcsim.reproduce.suite import CHIPS, ISO_AREA, ISO_CAPACITY, NETWORKS, TIM
from imcsim.reproduce.targets import Accelerator

SHOWN = {"alexnet": "AlexNet", "resnet34": "ResNet-34", "inception": "Inception", "lstm": "LSTM", "gru": "GRU"}
CHIP_SHOWN = {TIM: "TiM-DNN", ISO_CAPACITY: "iso-capacity", ISO_AREA: "iso-area"}
OURS, OTHER, PRINTED = "#0072B2", "#D55E00", "#BDBDBD"
"""Blue and vermilion of Okabe and Ito; grey for what the paper prints."""

COLOUR_OF_PART = {
    MAC: COLOUR_OF_GROUP["Tile array"],
    PROGRAMMING: COLOUR_OF_GROUP["Tile writes"],
    MEMORY: COLOUR_OF_GROUP["Main memory"],
    BUFFERS: COLOUR_OF_GROUP["Psum buffer"],
    DIGITAL: COLOUR_OF_GROUP["SFU"],
    CONTROL: COLOUR_OF_GROUP["Leakage"],
}
TORNADO = tuple(f"{quantity}.{network}" for network in ("alexnet", "resnet34", "inception", "lstm")
                for quantity in ("speedup_iso_area", "energy_ratio"))  # fmt: skip
"""Predictions whose levers are drawn."""

N_BARS = 6
LOWEST = 0.5
"""TOPS/W: what lies below has its label below it."""


def drawings(
    results: Results, kernel: KernelCurve, accelerators: dict[str, Accelerator]
) -> dict[str, Callable[[], Figure]]:
    """Return the figures: name to the function that draws it."""
    return {
        "overview": lambda: overview(results),
        "speedup": lambda: speedup(results),
        "runtime": lambda: runtime(results),
        "energy": lambda: energy(results),
        "kernel": lambda: kernel_energy(kernel),
        "accelerators": lambda: accelerators_figure(results, accelerators),
        "sensitivity": lambda: sensitivity(results),
    }


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, with room at its sides: texts are a little wider in print than in layout."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12)  # type: ignore[union-attr, call-arg]
    return figure


def overview(results: Results) -> Figure:
    """Return ours relative to the printed figure, with its interval, a line a figure."""
    lines = [each for each in results.predictions if each.printed is not None]
    figure = _figure(WIDTH_INCHES, 0.6 + 0.24 * len(lines))
    axes = figure.subplots()
    axes.axvspan(0.9, 1.1, color="#EEEEEE", linewidth=0)
    axes.axvline(1, color="#777777", linewidth=0.8)
    for place, each in enumerate(lines):
        colour = OURS if each.role == "predicted" else "#777777"
        low, ours, high = (value / (each.printed or 1) for value in (each.low, each.ours, each.high))
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
        axes.plot(ours, place, "o" if each.role == "predicted" else "s", color=colour, markersize=4)
        axes.annotate(f"{each.printed:g}", (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7)
    axes.annotate("printed", (1.01, -1), xycoords=("axes fraction", "data"), va="center", fontsize=7, color="#555555",
                  annotation_clip=False)  # fmt: skip
    axes.set_yticks(range(len(lines)), [each.quantity for each in lines])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([0.2, 0.3, 0.5, 0.7, 1, 1.5])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("Ours / printed (dot: simulated; line: 90 % of the chips within the stated ranges; band: ±10 %)")
    handles = [Patch(color="#777777", label="calibrated (squares)"), Patch(color=OURS, label="predicted (dots)")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def speedup(results: Results) -> Figure:
    """Return the speed-up of each network over both baselines, beside the ranges that are printed."""
    figure = _figure(WIDTH_INCHES, 2.7)
    places = np.arange(len(NETWORKS))
    axes = figure.subplots(1, 2, sharey=False)
    for side, (quantity, title) in zip(
        axes,
        (("speedup_iso_capacity", "Near-memory, same capacity (32 tiles)"),
         ("speedup_iso_area", "Near-memory, same area (60 tiles)")),
        strict=True,
    ):  # fmt: skip
        lines = [results.prediction(f"{quantity}.{network}") for network in NETWORKS]
        ends = [results.prediction(f"{quantity}.{end}").printed for end in ("least", "greatest")]
        if all(ends):
            side.axhspan(ends[0], ends[1], color="#DDDDDD", linewidth=0)
            side.annotate(f"printed, over the five networks: {ends[0]:g} to {ends[1]:g}", (0.99, ends[1]), (0, 2),
                          xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                          fontsize=6.5, color="#555555")  # fmt: skip
        side.bar(places, [each.ours for each in lines], width=0.6, color=OURS)
        _whiskers(side, lines, places)
        side.set_xticks(places, [SHOWN[network] for network in NETWORKS])
        side.tick_params(axis="x", length=0)
        side.set_ylim(0, 1.22 * max(*(each.high for each in lines), ends[1] or 0))
        side.set_title(title, fontsize=8)
    axes[0].set_ylabel("TiM-DNN's speed-up")
    return figure


def _whiskers(axes: Axes, lines: Sequence[Prediction], places: np.ndarray) -> None:
    """Draw the intervals; above each the value."""
    for place, each in zip(places, lines, strict=True):
        axes.plot([place, place], [each.low, each.high], color="black", linewidth=1)
        axes.annotate(f"{each.ours:.2g}" if each.ours < 10 else f"{each.ours:.3g}", (place, each.high), (0, 2),
                      textcoords="offset points", ha="center", fontsize=7)  # fmt: skip


def runtime(results: Results) -> Figure:
    """Return what the critical path of each network is spent in, on all chips, relative to the slowest chip."""
    return _split(
        results,
        lambda network, chip: results.run(network, chip).time_ns,
        CHIPS,
        "Time of an inference, that on the iso-capacity baseline = 1",
        lambda network: sum(results.run(network, ISO_CAPACITY).time_ns.values()),
        {MAC: "MAC operations", PROGRAMMING: "Programming", MEMORY: "Main memory", BUFFERS: "Buffers",
         DIGITAL: "RU and SFU", CONTROL: "Control"},
    )  # fmt: skip


def energy(results: Results) -> Figure:
    """Return what the energy of each network is spent in, on TiM-DNN and the baseline of its area."""
    return _split(
        results,
        lambda network, chip: results.run(network, chip).energy_of_pJ,
        (TIM, ISO_AREA),
        "Energy of an inference, that on the iso-area baseline = 1",
        lambda network: sum(results.run(network, ISO_AREA).energy_of_pJ.values()),
        {MAC: "MAC operations", PROGRAMMING: "Programming", MEMORY: "Main memory", BUFFERS: "Buffers",
         DIGITAL: "RU and SFU", CONTROL: "Control and leakage"},
    )  # fmt: skip


def _split(
    results: Results,
    parts_of: Callable[[str, str], dict[str, float]],
    chips: Sequence[str],
    label: str,
    whole_of: Callable[[str], float],
    names: dict[str, str],
) -> Figure:
    """Return a stacked bar for each network and chip."""
    height = 0.17 * len(chips) * len(NETWORKS) + 0.08 * len(NETWORKS) + 0.9
    figure = _figure(WIDTH_INCHES, height)
    axes = figure.subplots()
    ticks, labels, place = [], [], 0.0
    used = set()
    for network in NETWORKS:
        whole = whole_of(network)
        top = place
        for chip in chips:
            left, parts = 0.0, parts_of(network, chip)
            for part in PARTS:
                if parts[part]:
                    used.add(part)
                    axes.barh(place, parts[part] / whole, left=left, height=0.82, color=COLOUR_OF_PART[part],
                              edgecolor="white", linewidth=0.3)  # fmt: skip
                left += parts[part] / whole
            share = parts[MAC] / (left * whole or 1)
            axes.annotate(f"{left:.3g}   ({share:.0%} MAC)", (left, place), (3, 0), textcoords="offset points",
                          va="center", fontsize=6.5)  # fmt: skip
            ticks.append(place)
            labels.append(CHIP_SHOWN[chip])
            place += 1
        axes.annotate(SHOWN[network], (-0.16, (top + place - 1) / 2), xycoords=("axes fraction", "data"), va="center",
                      ha="right", fontweight="bold", fontsize=7.5, annotation_clip=False)  # fmt: skip
        place += 0.6
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.set_xlim(0, 1.25)
    figure.legend(
        handles=[Patch(color=COLOUR_OF_PART[part], label=names[part]) for part in PARTS if part in used],
        loc="outside lower center", ncols=6,
    )  # fmt: skip
    return figure


def kernel_energy(curve: KernelCurve) -> Figure:
    """Return the energy of one 16 x 256 product against the share of products that are zero, and the gain."""
    figure = _figure(WIDTH_INCHES, 2.6)
    left, right = figure.subplots(1, 2)
    zeros = 100 * curve.zero_share
    for name, colour, style in (("TiM-16", OURS, "-"), ("TiM-8", "#56B4E9", "--"), ("Near-memory", OTHER, "-")):
        values = curve.energy_pJ[name]
        left.plot(zeros, values, style, color=colour)
        left.annotate(name, (zeros[2], values[2]), (0, 4), textcoords="offset points", color=colour, fontsize=7)
        if name in curve.gain:
            low, middle, high = curve.gain[name]
            right.plot(zeros, middle, style, color=colour)
            right.fill_between(zeros, low, high, color=colour, alpha=0.15, linewidth=0)
            right.annotate(name, (zeros[-1], middle[-1]), (-2, 3), textcoords="offset points", color=colour, fontsize=7,
                           ha="right")  # fmt: skip
    left.axvline(100 * curve.stated_zero_share, color="#999999", linewidth=0.7, linestyle=":")
    left.annotate("chip file", (100 * curve.stated_zero_share, 0), (2, 3), textcoords="offset points", fontsize=6.5,
                  color="#777777")  # fmt: skip
    left.set_ylabel("Energy of a 16 × 256 product (pJ)")
    right.set_ylabel("Near-memory / TiM")
    for axes in (left, right):
        axes.set_xlabel("Products that are zero (%)")
        axes.set_xlim(0, 100)
        axes.set_ylim(0, None)
    right.set_title("band: 90 % of the baselines within the stated ranges", fontsize=7, color="#555555")
    return figure


def accelerators_figure(results: Results, accelerators: dict[str, Accelerator]) -> Figure:
    """Return efficiency by energy and by area of the accelerators that the paper compares, and of ours."""
    figure = _figure(WIDTH_INCHES * 0.62, 3.0)
    axes = figure.subplots()
    for name, each in accelerators.items():
        axes.plot(each.tops_per_mm2, each.tops_per_w, "o", color="#555555", markersize=5, markerfacecolor="none")
        is_far = each.tops_per_mm2 > 1
        shift, height = ((-7, 0), "center") if is_far else ((7, 6), "baseline")
        if each.tops_per_w < LOWEST:
            shift, height = (7, -6), "top"  # neighbours keep apart
        axes.annotate(f"{_shown(name)}\n{each.tops:g} TOPS, {each.node_nm:g} nm", (each.tops_per_mm2, each.tops_per_w),
                      shift, textcoords="offset points", fontsize=6.8, va=height,
                      ha="right" if is_far else "left")  # fmt: skip
    ours = [results.prediction(name) for name in ("tops_per_mm2", "tops_per_w")]
    axes.plot(ours[0].ours, ours[1].ours, "x", color=OURS, markersize=7, markeredgewidth=1.6)
    axes.annotate("ours", (ours[0].ours, ours[1].ours), (6, 5), textcoords="offset points", color=OURS, fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.07, 200)
    axes.set_ylim(0.15, 400)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel("TOPS/mm²")
    axes.set_ylabel("TOPS/W")
    return figure


def _shown(name: str) -> str:
    return {"tim-dnn, printed": "TiM-DNN, printed", "nvidia v100": "NVIDIA V100", "neural cache": "Neural Cache",
            "brein memory": "BRein Memory"}.get(name, name)  # fmt: skip


def sensitivity(results: Results) -> Figure:
    """Return for some predictions the numbers that move them most, one at a time through their stated ranges."""
    figure = _figure(WIDTH_INCHES, 7.6)
    used = []
    for axes, quantity in zip(figure.subplots(4, 2).ravel(), TORNADO, strict=True):
        used += _tornado(axes, quantity, results)
    handles = [Patch(color=COLOUR_OF_BASIS[basis], label=basis) for basis in dict.fromkeys(used)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, title="basis of the number", title_fontsize=7)
    return figure


def _tornado(axes: Axes, quantity: str, results: Results) -> list:
    levers = greatest_levers(results.levers, quantity)
    kind, network = quantity.split(".")
    centre = _centre(results.levers, quantity)
    for place, each in enumerate(levers):
        low, high = sorted((each.low / centre - 1, each.high / centre - 1))
        axes.barh(place, high - low, left=low, height=0.7, color=COLOUR_OF_BASIS[each.basis])
    axes.axvline(0, color="#555555", linewidth=0.7)
    ends = [value / centre - 1 for each in levers for value in (each.low, each.high)]
    room = 0.05 * (max(ends) - min(ends))
    axes.set_xlim(min(ends) - room, max(ends) + room)
    axes.set_yticks(range(len(levers)), [f"{short_range(each.range)} (×÷{each.factor:.3g})" for each in levers])
    axes.tick_params(axis="y", length=0, labelsize=6)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    title = {"speedup_iso_area": "speed-up, iso-area", "energy_ratio": "energy ratio"}[kind]
    axes.set_title(f"{SHOWN[network]}: {title}, ours {results.prediction(quantity).ours:.2f}", fontsize=7.5)
    return [each.basis for each in levers]


def greatest_levers(levers: Sequence[Lever], quantity: str, n: int = N_BARS) -> list[Lever]:
    """Return the *n* levers that move *quantity* most, the greatest first."""
    of_it = [each for each in levers if each.quantity == quantity]
    return sorted(of_it, key=lambda each: -abs(np.log(each.high / each.low)))[:n]


def _centre(levers: Sequence[Lever], quantity: str) -> float:
    """Return the value by formula that most levers leave *quantity* at."""
    return float(np.median([value for each in levers if each.quantity == quantity for value in (each.low, each.high)]))


def short_range(name: str) -> str:
    """Return the name of a range as an axis has room for it.

    >>> short_range("sfu.vpe.operation time"), short_range("tile.access.pcus energy (near-memory)")
    ('sfu.vpe time', 'pcus energy (near-memory)')
    """
    path, _, rest = name.partition(" ")
    path = path.removesuffix(".operation").removesuffix(".issue").removeprefix("tile.access.")
    shown = f"{path} {rest}".replace("activation_buffer", "act. buffer").replace("_", " ")
    return shown.replace("energy energy", "energy")
