"""The bitline for print and on a terminal: states, margins, distributions and misreads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from scipy.stats import gaussian_kde

from imcsim.arch.spec import Circuit, Sourced
from imcsim.circuit.bitline import Array, bitline_energy, margins, mean_column_energy, nonzero_of_energy
from imcsim.circuit.calibrate import Given, HeldOut
from imcsim.circuit.misreads import occupancy_at, occupancy_of
from imcsim.circuit.sensing import Sensing, sample_voltages
from imcsim.intervals import wilson_interval
from imcsim.report.figures import WIDTH_INCHES, render
from imcsim.results import write_whole

OURS, LOWER, HIGHER, RECALLED = "#0072B2", "#0072B2", "#D55E00", "#CFCFCF"
"""Blue and vermilion of Okabe and Ito; grey for what is recalled of the paper."""

N_DRAWN = 4000
"""Samples behind each distribution that is drawn."""


def write_circuit_figure(
    circuit: Circuit,
    sensing: Sensing,
    folder: Path,
    *,
    count_max: int = 8,
    occupancy: Sequence[float] | None = None,
    name: str = "circuit",
) -> list[Path]:
    """Write ``NAME.png`` and ``NAME.svg`` into *folder* and return their paths."""
    png, svg = render(lambda: circuit_figure(circuit, sensing, count_max=count_max, occupancy=occupancy))
    write_whole(folder / f"{name}.png", png)
    write_whole(folder / f"{name}.svg", svg)
    return [folder / f"{name}.png", folder / f"{name}.svg"]


def circuit_figure(
    circuit: Circuit, sensing: Sensing, *, count_max: int = 8, occupancy: Sequence[float] | None = None
) -> Figure:
    """Return states and energy, margins, distributions with the references, and misreads by count."""
    figure = Figure(figsize=(WIDTH_INCHES, 5.9), layout="constrained")
    (states_axes, margins_axes), (distributions_axes, misreads_axes) = figure.subplots(2, 2)
    _states(states_axes, circuit, sensing, count_max)
    _margins(margins_axes, sensing, count_max)
    _distributions(distributions_axes, circuit, sensing, count_max)
    _misreads(misreads_axes, circuit, sensing, count_max, occupancy)
    for letter, axes in zip("abcd", (states_axes, margins_axes, distributions_axes, misreads_axes), strict=True):
        axes.set_title(letter, loc="left", fontweight="bold")
    return figure


def _states(axes: Axes, circuit: Circuit, sensing: Sensing, count_max: int) -> None:
    n = np.arange(len(sensing.states_V))
    axes.axvspan(count_max + 0.5, n[-1] + 0.5, color="#F2F2F2", linewidth=0)
    axes.plot(n, sensing.states_V, "o-", color=OURS, markersize=3.5, linewidth=1)
    axes.set_xlabel("Discharging cells, n")
    axes.set_ylabel("Bitline voltage V(n) (V)", color=OURS)
    axes.set_xlim(-0.5, n[-1] + 0.5)
    axes.set_ylim(0, 1.06 * sensing.states_V[0])
    axes.annotate(f"read as {count_max}", ((count_max + 0.5 + n[-1] + 0.5) / 2, 0.5), fontsize=7.5, ha="center",
                  xycoords=("data", "axes fraction"), color="#666666", va="center")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    energy = axes.twinx()
    energy.plot(n, 1e3 * bitline_energy(circuit, sensing.states_V), "s--", color=HIGHER, markersize=2.5, linewidth=0.9)
    energy.set_ylabel("Energy of one bitline (fJ)", color=HIGHER)
    energy.set_ylim(0, None)
    energy.spines["right"].set_visible(True)


def _margins(axes: Axes, sensing: Sensing, count_max: int) -> None:
    given = Given()
    steps = 1e3 * margins(sensing.states_V)
    n = np.arange(1, len(steps) + 1)
    axes.bar(n, steps, width=0.72, color=[OURS if count <= count_max else "#8DB8D8" for count in n])
    if len(steps) >= 10:
        _recalled_margins(axes)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("State n")
    axes.set_ylabel("Margin V(n−1) − V(n) (mV)")
    axes.set_xlim(0.3, n[-1] + 0.7)
    axes.set_ylim(0, 1.2 * max(steps.max(), 1e3 * given.mean_margin_V))


def _recalled_margins(axes: Axes) -> None:
    given = Given()
    axes.plot([0.5, 7.5], [1e3 * given.mean_margin_V] * 2, color="black", linewidth=1)
    axes.annotate("96 mV, mean of S0–S7", (0.6, 1e3 * given.mean_margin_V), (0, 4), textcoords="offset points",
                  fontsize=7)  # fmt: skip
    axes.fill_between([7.5, 10.5], 60, 80, color=RECALLED, alpha=0.55, linewidth=0.6, edgecolor="black", zorder=3)
    axes.annotate("60–80 mV, S8–S10", (10.6, 70), (3, 0), textcoords="offset points", fontsize=7, va="center")
    axes.annotate("black, grey: recalled of TiM-DNN", (1.0, 1.0), xycoords="axes fraction", fontsize=7, ha="right",
                  va="top", color="#444444")  # fmt: skip


def _distributions(axes: Axes, circuit: Circuit, sensing: Sensing, count_max: int) -> None:
    last = min(count_max + 2, len(sensing.states_V) - 1)
    tallest = 0.0
    for n in range(1, last + 1):
        samples = sample_voltages(circuit, n, n_samples=N_DRAWN, seed=sensing.counted.seed or 0,
                                  n_cells=len(sensing.states_V) - 1)  # fmt: skip
        if samples.std() < 1e-9:
            axes.axvline(samples[0], color=OURS)
            continue
        volts = np.linspace(samples.mean() - 4.5 * samples.std(), samples.mean() + 4.5 * samples.std(), 200)
        density = gaussian_kde(samples)(volts) / 1e3  # per mV
        tallest = max(tallest, float(density.max()))
        colour = OURS if n <= count_max else "#8DB8D8"
        axes.fill_between(volts, density, color=colour, alpha=0.35, linewidth=0)
        axes.plot(volts, density, color=colour, linewidth=0.9)
        axes.annotate(f"{n}", (float(volts[density.argmax()]), float(density.max())), (0, 2),
                      textcoords="offset points", ha="center", fontsize=7, color=colour)  # fmt: skip
    tallest = tallest or 1.0
    axes.axvline(sensing.states_V[0], color=OURS, linewidth=1.6, ymax=0.87)
    axes.annotate("0", (float(sensing.states_V[0]), 1.13 * tallest * 0.87), (0, 3), textcoords="offset points",
                  ha="center", fontsize=7, color=OURS)  # fmt: skip
    for reference in sensing.references_V[:count_max]:
        axes.axvline(reference, color="#777777", linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
    axes.set_ylim(0, 1.13 * tallest)
    axes.invert_xaxis()
    axes.set_xlabel("Bitline voltage (V); dashed: references of the ADC")
    axes.set_ylabel("Density (1/mV); the number is n")


def _misreads(
    axes: Axes, circuit: Circuit, sensing: Sensing, count_max: int, occupancy: Sequence[float] | None
) -> None:
    table, counted = sensing.table.clipped(count_max), sensing.counted.clipped(count_max)
    share, whose = _occupancy(circuit, sensing, occupancy)
    n = np.arange(count_max + 1)
    seen_share = share[: count_max + 1]
    axes.bar(np.arange(len(seen_share)), seen_share, width=0.86, color="#E4E4E4", label=f"occurs ({whose})", zorder=0)
    for side, colour, marker in (("lower", LOWER, "o"), ("higher", HIGHER, "s")):
        p, error = getattr(table, side)[: count_max + 1], getattr(table, f"{side}_error")[: count_max + 1]
        seen = p > 0
        reading = "n − 1" if side == "lower" else "n + 1"
        axes.errorbar(n[seen], p[seen], 2 * error[seen], fmt=f"{marker}-", color=colour, markersize=3.2, linewidth=0.9,
                      capsize=2, label=f"read {reading}")  # fmt: skip
        raw = getattr(counted, side)[: count_max + 1]
        low, high = np.transpose([wilson_interval(round(p * counted.n_samples), counted.n_samples) for p in raw])
        hit = raw > 0
        shift = -0.16 if side == "lower" else 0.16
        axes.errorbar(n[hit] + shift, raw[hit], [(raw - low)[hit], (high - raw)[hit]], fmt="x", color=colour,
                      markersize=3.5, linewidth=0.7, capsize=1.5)  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(1e-10, 1.5)
    axes.set_xlim(-0.6, count_max + 0.6)
    axes.set_xticks(n)
    axes.grid(axis="y")
    axes.set_xlabel("n; crosses: counted, with 95 % interval")
    axes.set_ylabel("Probability")
    total, recalled = table.total(share), HeldOut().error_probability
    axes.annotate(
        f"$P_E$ = {_scientific(total)}\nrecalled: {_scientific(recalled)}",
        (0.97, 0.05),
        xycoords="axes fraction",
        ha="right",
        va="bottom",
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2.0},
    )
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2, columnspacing=0.9, handlelength=1.4
    )


def _occupancy(circuit: Circuit, sensing: Sensing, occupancy: Sequence[float] | None) -> tuple[Array, str]:
    if occupancy is None:
        return occupancy_at(circuit, len(sensing.references_V))
    return occupancy_of(occupancy), "given"


def _scientific(value: float) -> str:
    if value <= 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"{mantissa}$\times$10$^{{{int(exponent)}}}$"


# On a terminal


def print_circuit(
    circuit: Circuit,
    sensing: Sensing,
    console: Console,
    *,
    count_max: int = 8,
    occupancy: Sequence[float] | None = None,
) -> None:
    """Print the numbers of the circuit, its states, how often each is misread, and P_E beside the recalled one."""
    console.print(parameters_table(circuit))
    console.print(states_table(circuit, sensing, count_max))
    for line in circuit_lines(circuit, sensing, count_max=count_max, occupancy=occupancy):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def parameters_table(circuit: Circuit) -> Table:
    """Return every number of the circuit with its basis and source."""
    table = Table(title="Circuit", title_justify="left")
    table.add_column("key", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("basis")
    table.add_column("within", justify="right")
    table.add_column("source", overflow="fold")
    for name in type(circuit).model_fields:
        record = getattr(circuit, name)
        if record is None:
            continue
        about = [record.basis, f"x{record.within_factor:g}" if record.within_factor else "", record.source]
        for key, value in record.model_dump(exclude=set(Sourced.model_fields)).items():
            table.add_row(f"{name}.{key}", _number(value), *about)
            about = []  # said once a record
    return table


def _number(value: float | tuple[float, ...]) -> str:
    return f"{len(value)} counts" if isinstance(value, tuple) else f"{value:.6g}"


def states_table(circuit: Circuit, sensing: Sensing, count_max: int) -> Table:
    """Return a line a state: voltage, margin, spread, misreads and energy."""
    steps = margins(sensing.states_V)
    energy_pJ = bitline_energy(circuit, sensing.states_V)
    table, counted = sensing.table.clipped(count_max), sensing.counted.clipped(count_max)
    lines = Table(title=f"States, read up to {count_max}", title_justify="left")
    for column in ("n", "V(n) (V)", "margin (mV)", "sd (mV)", "read n-1", "counted", "read n+1", "counted",
                   "bitline (fJ)"):  # fmt: skip
        lines.add_column(column, justify="right")
    for n, voltage in enumerate(sensing.states_V):
        lines.add_row(
            str(n),
            f"{voltage:.4f}",
            f"{1e3 * steps[n - 1]:.1f}" if n else "",
            f"{1e3 * sensing.sd_V[n]:.2f}",
            f"{table.lower[n]:.2e}",
            f"{counted.lower[n]:.2e}",
            f"{table.higher[n]:.2e}",
            f"{counted.higher[n]:.2e}",
            f"{1e3 * energy_pJ[n]:.2f}",
        )
    return lines


def circuit_lines(
    circuit: Circuit, sensing: Sensing, *, count_max: int = 8, occupancy: Sequence[float] | None = None
) -> list[str]:
    """Return margins, error probability and energy beside the recalled ones, a line each."""
    steps, given = 1e3 * margins(sensing.states_V), Given()
    share, whose = _occupancy(circuit, sensing, occupancy)
    table = sensing.table.clipped(count_max)
    total, recalled = table.total(share), HeldOut().error_probability
    lines = []
    if len(steps) >= 10:
        last = ", ".join(f"{step:.1f}" for step in steps[7:10])
        lines.append(
            f"margins  mean S0-S7 {steps[:7].mean():.1f} mV (recalled 96), S8-S10 {last} mV (recalled 60 to 80)"
        )
    lines.append(
        f"P_E      {total:.3g} +- {table.total_error(share):.1g} a read, over the {whose} occupancy "
        f"(recalled {recalled:g}, {recalled / total:.3g} times ours)"
        if total
        else f"P_E      0 a read, over the {whose} occupancy (recalled {recalled:g})"
    )
    deviation = sensing.deviation()
    agree = (
        "counted misreads too few to compare"
        if deviation is None
        else (f"counted and weighted misreads differ by at most {deviation:.1f} standard errors")
    )
    lines.append(
        f"samples  {sensing.counted.n_samples} a state, seed {sensing.counted.seed}; {agree}; "
        f"{int(sensing.n_far.sum())} reads off by more than one"
    )
    n_cells = len(sensing.references_V)
    if given.column_energy_pJ > mean_column_energy(circuit, 1.0, n_cells):
        return lines
    lines.append(
        f"energy   {given.column_energy_pJ:.5f} pJ a column (recalled 9.18 pJ / 256) where "
        f"{100 * nonzero_of_energy(circuit, given.column_energy_pJ, n_cells):.1f} % of the products are not zero"
    )
    return lines
