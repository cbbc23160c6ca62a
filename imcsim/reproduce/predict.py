"""What the fitted chips say of every figure: simulated, with intervals from the stated ranges, and what moves them.

An interval comes from chips drawn from the stated ranges. Each of them is calibrated anew, to what the chip at hand
gives of the calibrated figures, as closely as those are known; what cannot be is left out. The formulas give the
spread, a simulation the value in the middle.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from imcsim.analytic import estimate
from imcsim.analytic.variants import estimate_variants
from imcsim.arch.spec import Basis, Chip
from imcsim.errors import ConfigError
from imcsim.mapping.place import place
from imcsim.reproduce.fit import (
    KERNEL_ROWS,
    PARAMETERS,
    area_mm2,
    calibrate,
    kernel_ns,
    nothing_changed,
    power_w,
    rate_per_s,
)
from imcsim.reproduce.ranges import Changes, Floats, draw, moved, ranges_of
from imcsim.reproduce.suite import CHIPS, ISO_AREA, ISO_CAPACITY, NETWORKS, TIM, Chips, Suite
from imcsim.reproduce.targets import Target
from imcsim.results import Row

Engine = Literal["simulate", "estimate"]
Progress = Callable[[str, int, int], None]

SPAN = (0.05, 0.95)
"""Quantiles of an interval: nine chips in ten lie inside."""

MET_WITHIN = 0.02
"""A drawn chip counts as calibrated if each figure is met so closely; plans that jump leave some out."""

RATIOS = {"speedup_iso_area": ISO_AREA, "speedup_iso_capacity": ISO_CAPACITY}

MAC, PROGRAMMING, MEMORY, BUFFERS, DIGITAL, CONTROL = (
    "MAC", "Programming", "Main memory", "Buffers", "RU and SFU", "Control, leakage",
)  # fmt: skip
PARTS = (MAC, PROGRAMMING, MEMORY, BUFFERS, DIGITAL, CONTROL)
"""What time and energy are split into, as the paper splits them; what it does not name is the last one."""

PART_OF_COMPONENT = {
    "tile.write": PROGRAMMING,
    "network": PROGRAMMING,
    "main_memory": MEMORY,
    "activation_buffer": BUFFERS,
    "psum_buffer": BUFFERS,
    "reduce_unit": DIGITAL,
    "sfu": DIGITAL,
    "scheduler": CONTROL,
}


def part_of(component: str) -> str:
    """Return the part that a component of rows or of a timeline belongs to; all else of a tile does MACs.

    >>> part_of("sfu.qu"), part_of("tile.pcu"), part_of("activation_buffer.read")
    ('RU and SFU', 'MAC', 'Buffers')
    """
    if component in PART_OF_COMPONENT:
        return PART_OF_COMPONENT[component]
    return PART_OF_COMPONENT.get(component.partition(".")[0], MAC)


@dataclass(frozen=True)
class Run:
    """One network on one chip: what one inference takes."""

    network: str
    chip: str
    """What the chip is: one of `CHIPS`."""

    rate_per_s: float
    energy_pJ: float
    time_ns: dict[str, float]
    """By part: what the critical path is spent in, or by formula what bounds each layer."""

    energy_of_pJ: dict[str, float]
    """By part."""


@dataclass(frozen=True)
class Prediction:
    """A line of the table."""

    quantity: str
    printed: float | None
    ours: float
    low: float
    high: float
    role: Literal["calibrated", "predicted"]
    basis: Basis | None
    """How well the printed figure is known."""

    source: str = ""

    @property
    def difference(self) -> float | None:
        """Ours relative to the printed figure: 0.02 is 2 % more."""
        return None if self.printed is None else self.ours / self.printed - 1


@dataclass(frozen=True)
class Lever:
    """How one uncertain number moves one prediction, all others as they are."""

    quantity: str
    range: str
    basis: Basis
    factor: float
    low: float
    high: float
    """The prediction where the number is divided by the factor, and where it is multiplied with it."""


@dataclass(frozen=True)
class Results:
    """Everything that the report shows."""

    suite: Suite
    engine: Engine
    runs: list[Run]
    predictions: list[Prediction]
    levers: list[Lever]
    n_draws: int
    n_kept: int
    """Draws that could be calibrated."""

    def run(self, network: str, chip: str) -> Run:
        """Return the run of a network on a chip."""
        return next(run for run in self.runs if (run.network, run.chip) == (network, chip))

    def prediction(self, quantity: str) -> Prediction:
        """Return the line of a quantity."""
        return next(each for each in self.predictions if each.quantity == quantity)


# --- one run ----------------------------------------------------------------------------------------------------


def run_of(suite: Suite, network: str, name: str, chip: Chip, engine: Engine) -> Run:
    """Return *network* on *chip*, which is *name* among the chips."""
    plan = place(suite.graph(network), chip, n_samples=suite.batch)
    n = suite.inferences(network)
    if engine == "simulate":
        from imcsim.sim import simulate
        from imcsim.sim.critical_path import critical_path

        trace = simulate(plan)
        component_of = {span.task: trace.component_of(span) for span in trace.spans}
        time: Counter[str] = Counter()
        for segment in critical_path(trace.program, trace.spans):
            time[part_of(component_of[segment.task])] += (segment.end_ps - segment.start_ps) / 1000  # type: ignore[assignment]
        latency_ns, rows = trace.latency_ns, trace.to_rows()
    else:
        formula = estimate(plan)
        time = Counter()
        for layer in formula.times.values():
            time[part_of(layer.bound_by)] += layer.added_ns  # type: ignore[assignment]
        latency_ns, rows = formula.latency_ns, formula.to_rows()
    energy = energy_by_part(rows)
    return Run(network, name, n * 1e9 / latency_ns, sum(energy.values()) / n,
               {part: time[part] / n for part in PARTS}, {part: energy[part] / n for part in PARTS})  # fmt: skip


def energy_by_part(rows: Sequence[Row]) -> dict[str, float]:
    """Return the energy of one inference by part, in pJ."""
    found = dict.fromkeys(PARTS, 0.0)
    for row in rows:
        if row.phase == "inference" and row.energy_pJ:
            found[CONTROL if row.action == "leak" else part_of(row.component)] += row.energy_pJ
    return found


def runs_of(chips: Chips, suite: Suite, engine: Engine, progress: Progress, *, n_workers: int = 2) -> list[Run]:
    """Return every network on every chip."""
    jobs = [(network, name) for network in NETWORKS for name in CHIPS]
    if engine == "estimate":
        return [run_of(suite, network, name, chips.of_name[name], engine) for network, name in jobs]
    bare = Suite(suite.width, suite.batch)
    with ProcessPoolExecutor(n_workers) as pool:
        waiting = [pool.submit(run_of, bare, network, name, chips.of_name[name], engine) for network, name in jobs]
        runs = []
        for done, future in enumerate(waiting):
            runs.append(future.result())
            progress(engine, done + 1, len(jobs))
    return runs


# --- figures ----------------------------------------------------------------------------------------------------


def figures_of(rates: Mapping[tuple[str, str], Any], energies: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """Return rates, speed-ups and ratios of energies from what each network takes on each chip."""
    found = {f"rate.{network}": rates[network, TIM] for network in NETWORKS}
    for quantity, baseline in RATIOS.items():
        found |= {f"{quantity}.{network}": rates[network, TIM] / rates[network, baseline] for network in NETWORKS}
    found |= {f"energy_ratio.{network}": energies[network, ISO_AREA] / energies[network, TIM] for network in NETWORKS}
    for quantity in (*RATIOS, "energy_ratio"):
        each = np.array([found[f"{quantity}.{network}"] for network in NETWORKS])
        found |= {f"{quantity}.least": each.min(axis=0), f"{quantity}.greatest": each.max(axis=0)}
    return found


def figures_at_full_rate(chips: Chips, changes: Mapping[str, Changes]) -> dict[str, Any]:
    """Return what follows without a network: peaks, power, area, kernel speed-ups."""
    chip, own = chips.tim, changes[TIM]
    n_operations = 2 * chip.tile.rows_per_access * chip.tile.n_columns * chip.n_tiles
    accesses = -(-KERNEL_ROWS // chip.tile.rows_per_access)
    tops = n_operations * accesses / kernel_ns(chip, own) / 1000
    power, area = power_w(chip, own), area_mm2(chip, own)
    near = kernel_ns(chips.iso_capacity, changes[ISO_CAPACITY])
    tim_8 = {key: values for key, values in own.items() if key.startswith(("tile.access.", "tile.conversion."))}
    return {
        "peak_tops": tops,
        "tops_per_w": tops / power,
        "tops_per_mm2": tops / area,
        "power_w": power,
        "area_mm2": area,
        "kernel_speedup.tim16": near / kernel_ns(chip, own),
        "kernel_speedup.tim8": near / kernel_ns(chips.tim_8, tim_8),
    }


def formulas(chips: Chips, suite: Suite, changes: Mapping[str, Changes]) -> dict[str, Floats]:
    """Return every figure of every variant, by formula."""
    rates, energies = {}, {}
    for network in NETWORKS:
        for name in CHIPS:
            found = estimate_variants(suite.graph(network), chips.of_name[name], changes[name], n_samples=suite.batch)
            rates[network, name] = suite.inferences(network) * 1e9 / found.latency_ns
            energies[network, name] = found.energy_pJ
    return figures_of(rates, energies) | figures_at_full_rate(chips, changes)


def at_hand(chips: Chips, suite: Suite) -> dict[str, float]:
    """Return every figure of the chips themselves, by formula."""
    found = formulas(chips, suite, nothing_changed(chips))
    return {quantity: float(np.ravel(values)[0]) for quantity, values in found.items()}


# --- intervals and levers ---------------------------------------------------------------------------------------


def spreads(
    chips: Chips, suite: Suite, calibration: Mapping[str, Target], central: Mapping[str, float], *, seed: int, n: int
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return the quantiles of every figure relative to *central*, and how many of *n* draws could be calibrated.

    Where none could be, the quantiles are those of all draws.
    """
    rng = np.random.default_rng(seed)
    changes = draw(ranges_of(chips, calibration), chips, rng, n)
    quantities = [parameter.quantity for parameter in PARAMETERS]
    wanted = {each: central[each] * calibration[each].within ** rng.uniform(-1, 1, n) for each in quantities}
    _, fitted = calibrate(chips, changes, wanted, suite)
    met = np.ones(n, dtype=bool)
    for network in ("alexnet", "lstm"):
        ratio = rate_per_s(suite, network, chips.tim, fitted[TIM]) / wanted[f"rate.{network}"]
        met &= np.abs(ratio - 1) < MET_WITHIN
    for quantity, ours in figures_at_full_rate(chips, fitted).items():
        if quantity in wanted:
            met &= np.abs(ours / wanted[quantity] - 1) < MET_WITHIN
    used = met if met.any() else ~met  # an interval that is too wide says more than none
    kept = {name: {key: values[used] for key, values in own.items()} for name, own in fitted.items()}
    found = {}
    for quantity, ours in formulas(chips, suite, kept).items():
        low, high = np.quantile(ours / central[quantity], SPAN)
        found[quantity] = (float(low), float(high))
    return found, int(met.sum())


def levers_of(chips: Chips, suite: Suite, calibration: Mapping[str, Target], quantities: Sequence[str]) -> list[Lever]:
    """Return how each uncertain number moves each of *quantities*, one at a time, nothing calibrated anew."""
    ranges = ranges_of(chips, calibration)
    factors = {}
    for i, each in enumerate(ranges):
        factors[each.name] = np.ones(2 * len(ranges))
        factors[each.name][2 * i : 2 * i + 2] = 1 / each.factor, each.factor
    found = formulas(chips, suite, moved(ranges, chips, factors))
    return [
        Lever(quantity, each.name, each.basis, each.factor, *map(float, found[quantity][2 * i : 2 * i + 2]))
        for quantity in quantities
        for i, each in enumerate(ranges)
    ]


# --- everything -------------------------------------------------------------------------------------------------


def predict(
    chips: Chips,
    suite: Suite,
    calibration: Mapping[str, Target],
    validation: Mapping[str, Target],
    *,
    engine: Engine = "simulate",
    n_draws: int = 400,
    seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Results:
    """Return everything that the report shows of *chips*; the order of the lines is that of the table."""
    runs = runs_of(chips, suite, engine, progress)
    rates = {(run.network, run.chip): run.rate_per_s for run in runs}
    energies = {(run.network, run.chip): run.energy_pJ for run in runs}
    full = figures_at_full_rate(chips, nothing_changed(chips))
    ours = {name: float(value) for name, value in figures_of(rates, energies).items()}
    ours |= {name: float(np.ravel(value)[0]) for name, value in full.items()}
    if unknown := sorted({*validation, *(each for each in calibration if not calibration[each].keys)} - set(ours)):
        raise ConfigError(f"targets: must be quantities of the table ({', '.join(ours)}), got {unknown[0]!r}")
    progress("intervals", 0, 2)
    central = at_hand(chips, suite)
    spread, n_kept = spreads(chips, suite, calibration, central, seed=seed, n=n_draws)
    progress("intervals", 1, 2)
    levers = levers_of(chips, suite, calibration, [name for name in ours if name not in calibration])
    progress("intervals", 2, 2)
    lines = []
    for quantity, value in ours.items():
        known = calibration.get(quantity) or validation.get(quantity)
        low, high = spread[quantity]
        lines.append(
            Prediction(
                quantity,
                known.printed if known else None,
                value,
                value * low,
                value * high,
                "calibrated" if quantity in calibration else "predicted",
                known.basis if known else None,
                known.source if known else "",
            )
        )
    return Results(suite, engine, runs, lines, levers, n_draws, n_kept)
