"""The fit of TiM-DNN's unknown numbers, in the open: ``python -m imcsim.reproduce.fit [--write]``.

Given to it is `calibration.yaml` alone. Five factors are fitted, each to one figure that it is read off:

* `digital_area` on the area and leakage of everything outside the tiles: 1.96 mm2;
* `digital_clock` on the times of reduce unit, SFU and scheduler, all of them assumed to be one cycle at 1 GHz: the
  LSTM, whose weights are resident, so that it waits for little else;
* `row_write` on the time of writing a row of weights, in the baselines' tiles too: AlexNet, which writes 61 million
  weights for every batch;
* `digital_energy` on the energies outside the tiles, main memory left out: 0.9 W at full rate;
* `near_memory_read` on the time of reading a row near memory: the kernel speed-up of TiM-16.

Five figures and five factors leave no residual unless a figure cannot be reached. What is left to check is TiM-8's
kernel speed-up, and whether a factor leaves the range that the chip file states; everything else is prediction. Width
and batch are chosen for all networks alike, by how many of the chips within the stated ranges meet both rates.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imcsim.analytic.variants import estimate_variants, with_arrays
from imcsim.arch.load import load_chip, vary
from imcsim.arch.spec import Chip
from imcsim.costs.peaks import access_interval_ns, full_rates
from imcsim.costs.price import price
from imcsim.errors import ConfigError, ImcsimError
from imcsim.mapping.place import place
from imcsim.reproduce.ranges import KINDS, Changes, Floats, draw, has_value, ranges_of, value_of
from imcsim.reproduce.suite import BATCHES, CHIPS, ISO_AREA, ISO_CAPACITY, TIM, TIM_8, WIDTHS, Chips, Suite
from imcsim.reproduce.targets import CALIBRATION, FOLDER, Target, read_targets
from imcsim.results import write_whole
from imcsim.shipped import shipped_folder
from imcsim.units import UM2_PER_MM2

COMMAND = "python -m imcsim.reproduce.fit --write"
RECORD = FOLDER / "fit.json"
MOST = 20.0
"""A factor is looked for from 1 / MOST to MOST."""

_TIMED = (*KINDS["time"], *KINDS["bandwidth"])

KERNEL_ROWS = 16
"""The kernel of the paper's comparison: 16 inputs by 256 columns."""

FORMULAS_WITHIN = 1.05
"""How far the formulas may be from a simulation: a chip within this of AlexNet's rate meets it."""

N_CHOICE_DRAWS = 1000


@dataclass(frozen=True)
class Parameter:
    """A factor on numbers of the chip files that are not known."""

    name: str
    quantity: str
    """The calibration target that it is read off."""

    kind: str
    """Which numbers of the records, as `imcsim.reproduce.ranges.KINDS` names them."""

    records: tuple[str, ...]
    chips: tuple[str, ...] = CHIPS

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted keys of the numbers; a chip has those that its records have."""
        return tuple(f"{record}.{field}" for record in self.records for field in KINDS[self.kind])


_OPERATIONS = (
    "reduce_unit.add",
    *(f"sfu.{lane}.operation" for lane in ("relu", "vpe", "spe", "qu")),
    "scheduler.issue",
)
_PORTS = tuple(f"{buffer}.{port}" for buffer in ("activation_buffer", "psum_buffer") for port in ("read", "write"))
_UNITS = ("activation_buffer", "psum_buffer", "reduce_unit", *(f"sfu.{lane}" for lane in ("relu", "vpe", "spe", "qu")))

PARAMETERS = (
    Parameter(
        "digital_area", "area_mm2", "area", tuple(f"{unit}.silicon" for unit in (*_UNITS, "scheduler", "network"))
    ),
    Parameter("digital_clock", "rate.lstm", "time", _OPERATIONS),
    Parameter("row_write", "rate.alexnet", "time", ("tile.write_row",)),
    Parameter("digital_energy", "power_w", "energy", (*_PORTS, *_OPERATIONS, "network")),
    Parameter("near_memory_read", "kernel_speedup.tim16", "time", ("tile.access",), (ISO_CAPACITY, ISO_AREA)),
)
"""In the order in which they are fitted: what comes later leans on what came before."""

Factors = dict[str, Floats]


@dataclass(frozen=True)
class Choice:
    """One width and batch, and what speaks for it."""

    width: int
    batch: int
    share_alexnet: float
    share_lstm: float
    share: float
    """Shares of the chips within the stated ranges that meet AlexNet's rate, the LSTM's, and both."""


@dataclass(frozen=True)
class Residual:
    """A calibration target after the fit."""

    quantity: str
    printed: float
    ours: float


@dataclass(frozen=True)
class Fit:
    """Factors, and the record of how they came about."""

    given: dict[str, Target]
    suite: Suite
    choices: tuple[Choice, ...]
    factors: dict[str, float]
    stated_within: dict[str, float]
    """The factor that the chip file states for the numbers of each parameter: the least of its records'."""

    residuals: tuple[Residual, ...]

    @property
    def beyond(self) -> list[str]:
        """Parameters whose factor leaves the stated range."""
        return [name for name, within in self.stated_within.items()
                if not 1 / within <= self.factors[name] <= within]  # fmt: skip


# --- what a chip gives, for arrays of its numbers ---------------------------------------------------------------


def rate_per_s(suite: Suite, network: str, chip: Chip, changes: Changes) -> Floats:
    """Return inferences a second of every variant, by formula."""
    timed = {key: values for key, values in changes.items() if key.rpartition(".")[2] in _TIMED}  # the others are slow
    found = estimate_variants(suite.graph(network), chip, timed, n_samples=suite.batch)
    return suite.inferences(network) * 1e9 / found.latency_ns


def area_mm2(chip: Chip, changes: Changes) -> Any:
    """Return the area of every variant."""
    return price(with_arrays(chip, changes)).area_um2 / UM2_PER_MM2


def power_w(chip: Chip, changes: Changes) -> Any:
    """Return the power of every variant at full rate, as `imcsim.costs.peaks` defines it."""
    varied = with_arrays(chip, changes)
    costs = price(varied)
    spent = sum(rate * costs.energy_pJ(action) for action, rate in full_rates(varied, costs).items())
    return (spent + costs.leakage_mW) / 1000


def kernel_ns(chip: Chip, changes: Changes) -> Any:
    """Return how long a tile of every variant takes for one product of 16 inputs by its columns, at full rate."""
    varied = with_arrays(chip, changes)
    return -(-KERNEL_ROWS // chip.tile.rows_per_access) * access_interval_ns(varied, price(varied))


# --- the fit ----------------------------------------------------------------------------------------------------


def times(parameter: Parameter, chips: Chips, changes: Mapping[str, Changes], factor: Floats) -> dict[str, Changes]:
    """Return *changes* with the numbers of *parameter* multiplied by *factor* (n)."""
    found = dict(changes)
    for name in parameter.chips:
        chip = chips.of_name[name]
        own = dict(changes[name])
        for key in parameter.keys:
            if has_value(chip, key):
                own[key] = own.get(key, value_of(chip, key)) * factor
        found[name] = own
    return found


def calibrate(
    chips: Chips, changes: Mapping[str, Changes], wanted: Mapping[str, Floats], suite: Suite, *, n_steps: int = 16
) -> tuple[Factors, dict[str, Changes]]:
    """Return the factors that give each variant the figures *wanted* of it (n), and the variants with them.

    A figure that no factor within its bounds gives is met as nearly as can be.
    """
    factors: Factors = {}
    for parameter in PARAMETERS:
        target = wanted[parameter.quantity]
        here = changes

        def ours(factor: Floats, parameter: Parameter = parameter, here: Mapping[str, Changes] = here) -> Any:
            return _figure(parameter.quantity, chips, times(parameter, chips, here, factor), suite)

        one = np.ones_like(target)
        if parameter.name in ("digital_area", "digital_energy"):  # the figure is linear in the factor
            first = ours(one)
            factor = 1 + (target - first) / (ours(2 * one) - first)
            factor = np.clip(factor, 1 / MOST, MOST)
        elif parameter.name == "near_memory_read":
            factor = target / ours(one)
        else:
            factor = _solved(ours, target, n_steps)
        factors[parameter.name] = factor
        changes = times(parameter, chips, changes, factor)
    return factors, dict(changes)


def _figure(quantity: str, chips: Chips, changes: Mapping[str, Changes], suite: Suite) -> Any:
    """Return a calibrated figure of every variant."""
    if quantity == "area_mm2":
        return area_mm2(chips.tim, changes[TIM])
    if quantity == "power_w":
        return power_w(chips.tim, changes[TIM])
    if quantity == "kernel_speedup.tim16":
        return kernel_ns(chips.iso_capacity, changes[ISO_CAPACITY]) / kernel_ns(chips.tim, changes[TIM])
    return rate_per_s(suite, quantity.removeprefix("rate."), chips.tim, changes[TIM])


def _solved(rate: Callable[[Floats], Floats], wanted: Floats, n_steps: int) -> Floats:
    """Return the factor at which *rate*, which falls with it, is *wanted*: by bisection of its logarithm."""
    low, high = np.full(len(wanted), -np.log(MOST)), np.full(len(wanted), np.log(MOST))
    for _ in range(n_steps):
        middle = (low + high) / 2
        is_fast = rate(np.exp(middle)) > wanted
        low, high = np.where(is_fast, middle, low), np.where(is_fast, high, middle)
    return np.exp((low + high) / 2)


def nothing_changed(chips: Chips) -> dict[str, Changes]:
    """Return one variant of each chip that is the chip itself."""
    return {name: {"tile.access.latency_ns": np.array([value_of(chip, "tile.access.latency_ns")])}
            for name, chip in chips.of_name.items()}  # fmt: skip


def fit(
    chips: Chips,
    calibration: Mapping[str, Target],
    suite: Suite,
    choices: tuple[Choice, ...] = (),
    *,
    simulated: bool = True,
) -> Fit:
    """Fit the factors to *calibration*; *simulated*: so that simulations, not formulas, give the two rates.

    Raises ConfigError where a parameter has no target.
    """
    missing = [each.quantity for each in PARAMETERS if each.quantity not in calibration]
    if missing:
        raise ConfigError(f"calibration: must have a target for every parameter, got none for {', '.join(missing)}")
    printed = {parameter.quantity: calibration[parameter.quantity].printed for parameter in PARAMETERS}
    wanted = dict(printed)
    for _ in range(3 if simulated else 1):
        arrays = {quantity: np.array([value]) for quantity, value in wanted.items()}
        factors, changes = calibrate(chips, nothing_changed(chips), arrays, suite, n_steps=20)
        ours = {quantity: float(_figure(quantity, chips, changes, suite)[0]) for quantity in wanted}
        if simulated:
            fitted = fitted_chips(chips, {name: float(factor[0]) for name, factor in factors.items()})
            for network in ("alexnet", "lstm"):
                played = _simulated_rate(suite, network, fitted.tim)
                wanted[f"rate.{network}"] = printed[f"rate.{network}"] * ours[f"rate.{network}"] / played
                ours[f"rate.{network}"] = played
    times_8 = float(kernel_ns(chips.tim, {}) / kernel_ns(chips.tim_8, {}))
    ours["kernel_speedup.tim8"] = ours["kernel_speedup.tim16"] * times_8
    residuals = tuple(
        Residual(quantity, target.printed, ours[quantity])
        for quantity, target in calibration.items()
        if quantity in ours
    )
    return Fit(
        given=dict(calibration),
        suite=suite,
        choices=choices,
        factors={name: float(factor[0]) for name, factor in factors.items()},
        stated_within={parameter.name: _stated_within(parameter, chips) for parameter in PARAMETERS},
        residuals=residuals,
    )


def _simulated_rate(suite: Suite, network: str, chip: Chip) -> float:
    from imcsim.sim import simulate

    plan = place(suite.graph(network), chip, n_samples=suite.batch)
    return suite.inferences(network) * 1e9 / simulate(plan).latency_ns


def _stated_within(parameter: Parameter, chips: Chips) -> float:
    """Return the least factor that the records of *parameter* state."""
    stated = []
    for path in parameter.records:
        record: Any = chips.of_name[parameter.chips[0]]
        for name in path.split("."):
            record = getattr(record, name)
        stated.append(record.within_factor or 1.0)
    return min(stated)


def compare_choices(
    chips: Chips, calibration: Mapping[str, Target], *, seed: int = 0, n: int = N_CHOICE_DRAWS
) -> tuple[Choice, ...]:
    """Return every width and batch with the share of chips within the stated ranges that meet the two rates."""
    ranges = ranges_of(chips, calibration)
    changes = draw(ranges, chips, np.random.default_rng(seed), n)[TIM]
    found, graphs = [], Suite().graphs
    for width in WIDTHS:
        for batch in BATCHES:
            suite = Suite(width, batch, graphs)
            meets = {}
            for network in ("alexnet", "lstm"):
                target = calibration[f"rate.{network}"]
                ratio = rate_per_s(suite, network, chips.tim, changes) / target.printed
                meets[network] = np.abs(np.log(ratio)) <= np.log(max(target.within, FORMULAS_WITHIN))
            both = meets["alexnet"] & meets["lstm"]
            found.append(Choice(width, batch, float(meets["alexnet"].mean()), float(meets["lstm"].mean()),
                                float(both.mean())))  # fmt: skip
    return tuple(found)


def best_choice(choices: Sequence[Choice]) -> Suite:
    """Return the width and batch that most chips within the stated ranges meet the calibration with."""
    best = max(choices, key=lambda choice: choice.share)
    if not best.share:
        raise ConfigError("choices: one width and batch must be able to meet both rates, got none; widen the ranges")
    return Suite(best.width, best.batch)


# --- chips ------------------------------------------------------------------------------------------------------


def stated_chips(changes: Mapping[str, object] | None = None) -> Chips:
    """Return the chips as their files state them; *changes* as in `with_changes`."""
    tim, iso_capacity, iso_area, tim_8 = map(load_chip, (*CHIPS, TIM_8))
    return with_changes(Chips(tim, iso_capacity, iso_area, tim_8), changes or {})


def load_fitted(changes: Mapping[str, object] | None = None) -> Chips:
    """Return the fitted chips that come with imcsim; *changes* as in `with_changes`."""
    tim, iso_capacity, iso_area, tim_8 = map(load_chip, (*(f"{name}-fitted" for name in CHIPS), TIM_8))
    return with_changes(Chips(tim, iso_capacity, iso_area, tim_8), changes or {})


def with_changes(chips: Chips, changes: Mapping[str, object]) -> Chips:
    """Return *chips* with a user's *changes*: those of a tile in TiM-DNN and TiM-8, all others in the baselines too."""
    if not changes:
        return chips
    shared = {key: value for key, value in changes.items() if not key.startswith("tile.") and key != "n_tiles"}
    changed = chips.each(lambda name, chip: vary(chip, changes if name == TIM else shared))
    return replace(changed, tim_8=vary(chips.tim_8, changes))


def fitted_values(chips: Chips, factors: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the numbers that the fit changes, by chip."""
    changes: dict[str, Changes] = {name: {} for name in CHIPS}
    for parameter in PARAMETERS:
        changes = times(parameter, chips, changes, np.array([factors[parameter.name]]))
    return {name: {key: float(f"{value[0]:.6g}") for key, value in own.items()} for name, own in changes.items()}


def fitted_chips(chips: Chips, factors: Mapping[str, float]) -> Chips:
    """Return *chips* with the fitted numbers."""
    values = fitted_values(chips, factors)
    return chips.each(lambda name, chip: vary(chip, values[name]))


def chip_file(chip: Chip, values: Mapping[str, float], found: Fit) -> str:
    """Return the text of the chip file that lays the fitted *values* over the shipped *chip*."""
    of_key = {key: each for each in PARAMETERS if chip.name in each.chips for key in each.keys}
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, field = key.split(".")
        record = tree
        for name in path:
            record = record.setdefault(name, {})
        record[field] = value
        record.setdefault("basis", "fitted")
        parameter = of_key[key]
        said = f"{field} x {found.factors[parameter.name]:.4g} for {parameter.quantity}"
        source = record.get("source", f"{COMMAND}: ")
        record["source"] = source + ("" if source.endswith(": ") else ", ") + said
    head = (
        f"# Written by {COMMAND}; do not change it by hand.\n"
        f"# What {chip.name} leaves open, fitted to the figures in imcsim/reproduce/tim-dnn/calibration.yaml.\n"
        f"include: {chip.name}\n"
        f"name: {chip.name}-fitted\n"
        f"description: {json.dumps(f'{chip.description}; fitted', ensure_ascii=False)}\n"
    )
    return head + "\n".join(_yaml_lines(tree)) + "\n"


def _yaml_lines(tree: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_yaml_lines(value, indent + "  ")]
        elif isinstance(value, str):
            lines.append(f"{indent}{key}: {value if value == 'fitted' else json.dumps(value)}")
        else:
            lines.append(f"{indent}{key}: {np.format_float_positional(value, trim='0')}")
    return lines


# --- the command ------------------------------------------------------------------------------------------------


def run(calibration_file: str | Path = CALIBRATION, *, seed: int = 0, suite: Suite | None = None) -> Fit:
    """Read the calibration, compare widths and batches if no *suite* is given, and fit."""
    calibration = read_targets(calibration_file)
    chips = stated_chips()
    if suite is not None:
        return fit(chips, calibration, suite)
    choices = compare_choices(chips, calibration, seed=seed)
    return fit(chips, calibration, best_choice(choices), choices)


def lines_of(found: Fit) -> list[str]:
    """Return the record of a fit, a line each."""
    lines = ["choices: shares of the chips within the stated ranges that meet AlexNet's rate, the LSTM's, both"]
    lines += [
        f"  width {it.width}, batch {it.batch:2}: {it.share_alexnet:7.1%} {it.share_lstm:7.1%} {it.share:7.1%}"
        for it in found.choices
    ]
    lines.append(f"chosen: width {found.suite.width}, batch {found.suite.batch}, for all networks")
    lines.append("fitted factors, the range that the chip file states, what each was read off")
    for parameter in PARAMETERS:
        factor, within = found.factors[parameter.name], found.stated_within[parameter.name]
        beyond = "; beyond its range" if parameter.name in found.beyond else ""
        lines.append(f"  {parameter.name:17} x {factor:<8.4g} within {within:g}: {parameter.quantity}{beyond}")
    lines.append("calibration targets")
    for each in found.residuals:
        difference = each.ours / each.printed - 1
        lines.append(f"  {each.quantity:21} printed {each.printed:<10.6g} ours {each.ours:<10.6g} {difference:+.2%}")
    return lines


def record_of(found: Fit) -> dict[str, Any]:
    """Return the record of a fit for a file."""
    return {
        "command": COMMAND,
        "given": {quantity: target.model_dump() for quantity, target in found.given.items()},
        "suite": {"width": found.suite.width, "batch": found.suite.batch},
        "choices": [asdict(choice) for choice in found.choices],
        "factors": found.factors,
        "stated_within": found.stated_within,
        "residuals": [asdict(residual) for residual in found.residuals],
    }


def read_record(path: Path = RECORD) -> Fit:
    """Return the fit that a record file holds."""
    told = json.loads(path.read_text(encoding="utf-8"))
    return Fit(
        given={quantity: Target.model_validate(target) for quantity, target in told["given"].items()},
        suite=Suite(**told["suite"]),
        choices=tuple(Choice(**choice) for choice in told["choices"]),
        factors=told["factors"],
        stated_within=told["stated_within"],
        residuals=tuple(Residual(**residual) for residual in told["residuals"]),
    )


def write(found: Fit) -> list[Path]:
    """Write the fitted chips and the record where they come with imcsim; return their paths."""
    chips = stated_chips()
    values = fitted_values(chips, found.factors)
    paths = []
    for name, chip in chips.of_name.items():
        paths.append(shipped_folder("arch") / f"{name}-fitted.yaml")
        write_whole(paths[-1], chip_file(chip, values[name], found))
    write_whole(RECORD, json.dumps(record_of(found), indent=2, ensure_ascii=False) + "\n")
    return [*paths, RECORD]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print the record, and write the chips if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m imcsim.reproduce.fit",
        description="Fit what is not known of TiM-DNN and its baselines to the calibration targets.",
    )
    parser.add_argument(
        "--calibration", type=Path, default=CALIBRATION, help="file of targets; the shipped one by default"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws that compare widths and batches")
    parser.add_argument(
        "--write", action="store_true", help="write arch/*-fitted.yaml and the record beside the targets"
    )
    chosen = parser.parse_args(arguments)
    try:
        found = run(chosen.calibration, seed=chosen.seed)
        print("\n".join(lines_of(found)))
        if chosen.write:
            print("\n".join(f"written: {path}" for path in write(found)))
    except ImcsimError as error:
        print(f"fit: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
