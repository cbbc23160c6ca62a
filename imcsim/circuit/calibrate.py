"""Fitting the bitline to what is known of TiM-DNN, in the open: ``python -m imcsim.circuit.calibrate``.

Given to the fit are the sensing margins alone, recalled as 96 mV on average for S0 to S7 and 60 to 80 mV for S8 to S10.
Three numbers follow them: the precharge voltage (within bounds), the current of a cell and the voltage at which it
saturates. The capacitance then follows the recalled bitline energy, the current with it: only their ratio moves a
voltage. The error probability, P_E = 1.5e-4, and the saturation beyond S10 are held out: they are predictions.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, least_squares

from imcsim.arch.load import load_chip
from imcsim.arch.spec import Circuit
from imcsim.circuit.bitline import (
    Array,
    margins,
    mean_column_energy,
    nonzero_of_energy,
    saturation_count,
    states,
)
from imcsim.circuit.misreads import occupancy_at, occupancy_of
from imcsim.circuit.sensing import weighted_table
from imcsim.errors import ConfigError, ImcsimError


@dataclass(frozen=True, kw_only=True)
class Given:
    """What is recalled of TiM-DNN and given to the fit, and how closely each is known."""

    mean_margin_V: float = 0.096
    """Mean of the margins between S0 and S7."""

    mean_margin_error_V: float = 0.0005
    """Half of the last digit."""

    last_margins_V: tuple[float, ...] = (0.080, 0.070, 0.060)
    """Margins S7-S8, S8-S9 and S9-S10; recalled is their range, that they fall evenly through it is assumed."""

    last_margins_error_V: float = 0.005
    precharge_V: tuple[float, float] = (0.85, 1.05)
    """Bounds of the supply."""

    column_energy_pJ: float = 9.18 / 256
    """Bitline energy of one column in one access."""

    nonzero: float = 0.36
    """Share of products that are not zero where that energy holds; 0.6 x 0.6, assumed in the chip file."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is recalled of TiM-DNN and was not given to the fit."""

    error_probability: float = 1.5e-4
    """P_E of one read, over the occupancies of a real workload, which are not known."""

    last_state: int = 10
    """The last state that can be told from its neighbour."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted circuit, and the record of its fit."""

    circuit: Circuit
    given: Given
    margins_V: tuple[float, ...]
    """Margins S0-S1, S1-S2 ... of the fitted circuit."""

    residuals_V: dict[str, float]
    """Ours less the given one."""

    chi_square: float
    """Sum of squared residuals, each over its error; four residuals, three parameters."""

    at_bound: bool
    """Whether the supply lies at one of its bounds: the margins then want it beyond."""

    n_evaluations: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a circuit predicts of the held-out figures."""

    error_probability: float
    error_probability_error: float

    occupancy: str
    """Where the occupancy comes from that weighs the misreads: given, gathered, scaled or assumed."""

    """Its standard error, of sampling alone."""

    factor: float
    """The recalled error probability over ours."""

    matching_fraction: float | None
    """The variation of the threshold that would give the recalled one; None where none up to 20 % does."""

    matching_offset_V: float | None
    """The comparator offset that would, at the variation as it is; None where none does."""

    saturated_from: int | None
    """The first n whose margin from n - 1 is below the recalled 60 to 80 mV."""

    half_margin_from: int | None
    """The first n whose margin is below half of the first margin."""


def tim_dnn() -> Circuit:
    """Return the circuit of the chip file, where a fit starts."""
    circuit = load_chip("tim-dnn").circuit
    assert circuit is not None, "tim-dnn describes its bitline"
    return circuit


def fit(given: Given | None = None, start: Circuit | None = None) -> Calibration:
    """Fit supply, current and saturation voltage to the margins, then capacitance and current to the energy.

    Everything else stays as in *start*, by default the chip file's. Raises ConfigError where the bounds of the supply
    leave the cells off.
    """
    given, start = given or Given(), start or tim_dnn()
    low, high = given.precharge_V
    if not start.path.threshold_V < low < high:
        raise ConfigError(
            f"precharge_V: must be two rising bounds above the threshold ({start.path.threshold_V:g} V), "
            f"got {low:g} and {high:g}"
        )

    def residuals(parameters: Array) -> Array:
        steps = margins(states(_with(start, *parameters), 10))
        return np.array(list(_residuals(steps, given).values())) / _errors(given)

    guess = [0.5 * (low + high), start.discharge.current_mA, start.discharge.saturation_V]
    found = least_squares(
        residuals, guess, bounds=([low, guess[1] / 20, 0.05], [high, guess[1] * 20, 3.0]), x_scale=[1.0, guess[1], 1.0],
        xtol=1e-12, ftol=1e-12, gtol=1e-12,
    )  # fmt: skip
    circuit = _at_energy(_with(start, *found.x), given)
    steps = margins(states(circuit, 16))
    return Calibration(
        circuit=circuit,
        given=given,
        margins_V=tuple(map(float, steps)),
        residuals_V=_residuals(steps, given),
        chi_square=float(2 * found.cost),
        at_bound=bool(min(found.x[0] - low, high - found.x[0]) < 1e-6),
        n_evaluations=int(found.nfev),
    )


def predict(
    circuit: Circuit,
    occupancy: ArrayLike | None = None,
    *,
    count_max: int = 8,
    held_out: HeldOut | None = None,
    n_samples: int = 20_000,
    seed: int = 0,
) -> Prediction:
    """Return what *circuit* predicts of the held-out figures, reads being those of an ADC up to *count_max*.

    *occupancy* is a histogram of n (or of n and k together); by default that of the circuit.
    """
    held_out = held_out or HeldOut()
    share, whose = occupancy_at(circuit) if occupancy is None else (occupancy_of(occupancy), "given")
    table = weighted_table(circuit, count_max=count_max, n_samples=n_samples, seed=seed)
    ours = table.total(share)
    below = np.flatnonzero(margins(states(circuit, 16)) < 0.060)

    def total(**variation: float) -> float:
        changed = with_variation(circuit, **variation)
        return weighted_table(changed, count_max=count_max, n_samples=min(n_samples, 4096), seed=seed).total(share)

    target = held_out.error_probability
    return Prediction(
        error_probability=ours,
        error_probability_error=table.total_error(share),
        occupancy=whose,
        factor=target / ours if ours else float("inf"),
        matching_fraction=_matching(lambda fraction: total(threshold_fraction=fraction), (0.005, 0.2), target),
        matching_offset_V=_matching(lambda offset_V: total(offset_V=offset_V), (1e-5, 0.05), target),
        saturated_from=int(below[0]) + 1 if len(below) else None,
        half_margin_from=saturation_count(states(circuit, 16)),
    )


def with_variation(
    circuit: Circuit, *, threshold_fraction: float | None = None, offset_V: float | None = None
) -> Circuit:
    """Return *circuit* with other variation; its basis becomes assumed."""
    variation, comparator = circuit.variation, circuit.comparator
    if threshold_fraction is not None:
        changes = {"threshold_fraction": threshold_fraction, "basis": "assumed", "source": "set by the caller"}
        variation = variation.model_copy(update=changes)
    if offset_V is not None:
        comparator = comparator.model_copy(
            update={"offset_V": offset_V, "basis": "assumed", "source": "set by the caller"}
        )
    return circuit.model_copy(update={"variation": variation, "comparator": comparator})


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A fit with two numbers held that the fit does not know well."""

    precharge_V: float
    threshold_V: float
    chi_square: float
    error_probability: float
    factor: float
    """The recalled error probability over this one."""


def alternatives(
    precharges_V: Sequence[float] = (0.9, 0.95, 1.0, 1.05),
    thresholds_V: Sequence[float] = (0.4, 0.45, 0.494),
    *,
    occupancy: ArrayLike | None = None,
    count_max: int = 8,
    seed: int = 0,
) -> list[Alternative]:
    """Return what the fit and its prediction become at other supplies and thresholds: how far neither is known."""
    found = []
    chip_file = tim_dnn()
    share = occupancy_at(chip_file)[0] if occupancy is None else occupancy_of(occupancy)
    for threshold_V in thresholds_V:
        path = chip_file.path.model_copy(update={"threshold_V": threshold_V})
        start = chip_file.model_copy(update={"path": path})
        for precharge_V in precharges_V:
            fitted = fit(held_at(precharge_V), start)
            ours = weighted_table(fitted.circuit, count_max=count_max, n_samples=4096, seed=seed).total(share)
            found.append(
                Alternative(
                    precharge_V=precharge_V,
                    threshold_V=threshold_V,
                    chi_square=fitted.chi_square,
                    error_probability=ours,
                    factor=HeldOut().error_probability / ours,
                )
            )
    return found


def held_at(precharge_V: float) -> Given:
    """Return what is given, with the precharge voltage held."""
    return Given(precharge_V=(precharge_V - 1e-9, precharge_V + 1e-9))


# Pieces


def _with(circuit: Circuit, precharge_V: float, current_mA: float, saturation_V: float) -> Circuit:
    values = {
        "precharge_V": float(precharge_V), "current_mA": float(current_mA), "saturation_V": float(saturation_V)
    }  # fmt: skip
    return circuit.model_copy(update={"discharge": circuit.discharge.model_copy(update=values)})


def _at_energy(circuit: Circuit, given: Given) -> Circuit:
    """Scale capacitance and current together, so that no voltage moves and the energy is the given one."""
    scale = given.column_energy_pJ / mean_column_energy(circuit, given.nonzero)
    bitline = circuit.bitline.model_copy(update={"capacitance_pF": circuit.bitline.capacitance_pF * scale})
    discharge = circuit.discharge.model_copy(update={"current_mA": circuit.discharge.current_mA * scale})
    return circuit.model_copy(update={"bitline": bitline, "discharge": discharge})


def _residuals(steps: Array, given: Given) -> dict[str, float]:
    """Return margins less the given ones, by name."""
    found = {"mean S0-S7": float(steps[:7].mean()) - given.mean_margin_V}
    for place, target in enumerate(given.last_margins_V):
        found[f"S{7 + place}-S{8 + place}"] = float(steps[7 + place]) - target
    return found


def _errors(given: Given) -> Array:
    return np.array([given.mean_margin_error_V, *[given.last_margins_error_V] * len(given.last_margins_V)])


def _matching(total: Callable[[float], float], bounds: tuple[float, float], target: float) -> float | None:
    """Return the value within *bounds* at which *total* is *target*; None where none is."""

    def gap(log_value: float) -> float:
        return float(np.log(max(total(float(np.exp(log_value))), 1e-300) / target))

    low, high = np.log(bounds)
    if gap(low) > 0 or gap(high) < 0:
        return None
    return float(np.exp(brentq(gap, low, high, xtol=1e-3)))


# Command


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, predict, and print the record."""
    parser = argparse.ArgumentParser(
        prog="python -m imcsim.circuit.calibrate",
        description="Fit the bitline to TiM-DNN's recalled sensing margins and compare what is predicted of the rest.",
    )
    parser.add_argument("--precharge", type=float, metavar="V", help="hold the precharge voltage instead of fitting it")
    parser.add_argument("--count-max", type=int, default=8, metavar="N", help="largest count that the ADC tells apart")
    parser.add_argument("--samples", type=int, default=20_000, metavar="N", help="weighted samples of each count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the fitted circuit and its record as JSON")
    chosen = parser.parse_args(arguments)
    try:
        calibration = fit(Given() if chosen.precharge is None else held_at(chosen.precharge))
        prediction = predict(
            calibration.circuit, count_max=chosen.count_max, n_samples=chosen.samples, seed=chosen.seed
        )
    except ImcsimError as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    if chosen.json:
        record = asdict(calibration) | {"circuit": calibration.circuit.model_dump(), "predicted": asdict(prediction)}
        print(json.dumps(record, indent=2))
    else:
        print("\n".join(report(calibration, prediction)))
        if chosen.precharge is None:
            print("how the prediction leans on what is not known: supply and threshold held, the rest fitted anew")
            print("  precharge_V  threshold_V  chi-square       P_E  recalled / ours")
            for each in alternatives(count_max=chosen.count_max, seed=chosen.seed):
                print(f"  {each.precharge_V:11.3f}  {each.threshold_V:11.3f}  {each.chi_square:10.2f}  "
                      f"{each.error_probability:8.2e}  {each.factor:15.2f}")  # fmt: skip
    return 0


def report(calibration: Calibration, prediction: Prediction) -> list[str]:
    """Return the record of a fit and of its predictions, a line each."""
    circuit, given, held_out = calibration.circuit, calibration.given, HeldOut()
    discharge, steps = circuit.discharge, 1e3 * np.array(calibration.margins_V)
    implied = nonzero_of_energy(circuit, given.column_energy_pJ)
    held = given.precharge_V[1] - given.precharge_V[0] < 1e-6
    bound = ", at its bound: the margins want it beyond" if calibration.at_bound else ""
    bound = ", held" if held else bound
    lines = [
        "given to the fit (recalled; the even fall through 80, 70, 60 mV is assumed)",
        f"  mean margin S0-S7    {1e3 * given.mean_margin_V:6.1f} mV   ours {steps[:7].mean():6.2f} mV",
    ]
    for place, target in enumerate(given.last_margins_V):
        lines.append(
            f"  margin S{7 + place}-S{8 + place:<2}       {1e3 * target:6.1f} mV   ours {steps[7 + place]:6.2f} mV"
        )
    lines += [
        f"  chi-square {calibration.chi_square:.3f} with 4 margins and {2 if held else 3} parameters",
        "fitted",
        f"  precharge_V    {discharge.precharge_V:.4f}{bound}",
        f"  current_mA     {discharge.current_mA:.5f} at 1 V of overdrive",
        f"  saturation_V   {discharge.saturation_V:.4f} at 1 V of overdrive",
        f"  capacitance_pF {circuit.bitline.capacitance_pF:.5f}, from {given.column_energy_pJ:.5f} pJ a column "
        f"where {100 * implied:.1f} % of the products are not zero",
        "held out",
        f"  margins beyond S10   {', '.join(f'{step:.1f}' for step in steps[10:13])} mV; first below 60 mV: "
        f"S{prediction.saturated_from}; first below half of S0-S1: S{prediction.half_margin_from}; "
        f"recalled: saturated beyond S{held_out.last_state}",
        f"  P_E  recalled {held_out.error_probability:.2e}, ours {prediction.error_probability:.3e} "
        f"+- {prediction.error_probability_error:.1e} ({prediction.occupancy} occupancy): recalled / ours = "
        f"{prediction.factor:.2f}",
        f"       it would be met with sigma/mu of V_T {_said(prediction.matching_fraction, 100, '%')} instead of "
        f"{100 * circuit.variation.threshold_fraction:g} %, or with a comparator offset of "
        f"{_said(prediction.matching_offset_V, 1e3, 'mV')}; neither is used",
    ]
    return lines


def _said(value: float | None, scale: float, unit: str) -> str:
    return "none" if value is None else f"{scale * value:.2f} {unit}"


if __name__ == "__main__":
    sys.exit(main())
