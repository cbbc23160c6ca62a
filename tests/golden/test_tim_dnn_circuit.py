"""TiM-DNN's sensing: what is recalled of the paper, and where imcsim differs from it."""

from pathlib import Path

import pytest
import yaml

from imcsim.circuit.bitline import margins, mean_column_energy, states
from imcsim.circuit.calibrate import HeldOut, tim_dnn
from imcsim.circuit.misreads import occupancy_at
from imcsim.circuit.sensing import weighted_table

TIM_DNN = tim_dnn()

GOLDEN = yaml.safe_load(Path(__file__).with_name("tim-dnn-circuit.yaml").read_text())
MARGINS_mV = 1e3 * margins(states(TIM_DNN))
OURS = {
    "mean_margin_mV": MARGINS_mV[:7].mean(),
    "threshold_percent": 100 * TIM_DNN.variation.threshold_fraction,
    "bitlines_pJ": 256 * mean_column_energy(TIM_DNN, 0.36),
}


def named(rows):
    return pytest.mark.parametrize("row", rows, ids=[row["name"] for row in rows])


@named(GOLDEN["given"])
def test_what_was_given_to_the_fit_rounds_to_what_is_recalled(row):
    assert OURS[row["name"]] == pytest.approx(row["printed"], abs=row["step"] / 2)


@named(GOLDEN["ranges"])
def test_a_margin_is_in_the_recalled_range_or_off_it_by_the_documented_difference(row):
    ours = round(MARGINS_mV[row["n"] - 1], 1)
    assert ours == row["ours"]
    by = {each["name"]: each["by"] for each in GOLDEN["differences"]}.get(row["name"], 0)
    nearest = min(max(ours, row["least"]), row["greatest"])
    assert ours - nearest == pytest.approx(by)


@named(GOLDEN["held_out"])
def test_what_was_held_out_differs_by_the_documented_factor(row):
    ours = weighted_table(TIM_DNN, count_max=8, n_samples=20_000).total(occupancy_at(TIM_DNN)[0])
    assert HeldOut().error_probability == row["printed"]
    assert round(row["printed"] / ours, 1) == pytest.approx(row["factor"], abs=0.11)
