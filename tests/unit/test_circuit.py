"""The bitline, its misreads, their tables and the fit, by hand where a hand can do it."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console
from scipy.integrate import solve_ivp
from scipy.special import ndtr
from scipy.stats import chi2

from imcsim.arch.spec import Circuit
from imcsim.circuit.bitline import (
    bitline_energy,
    cell_current,
    column_energy,
    discharged,
    margins,
    mean_column_energy,
    nonzero_of_energy,
    operating_threshold,
    saturation_count,
    states,
)
from imcsim.circuit.calibrate import Given, alternatives, fit, held_at, main, predict, report, tim_dnn, with_variation
from imcsim.circuit.misreads import ErrorTable, assumed_occupancy, occupancy_at, occupancy_of, read_table
from imcsim.circuit.sensing import BLOCK, midway, sample_voltages, sense, weighted_table
from imcsim.errors import ConfigError, DataError
from imcsim.report.circuit import circuit_figure, circuit_lines, print_circuit, write_circuit_figure

TIM_DNN = tim_dnn()


def changed(**records):
    """TiM-DNN's circuit with other numbers, checked."""
    tree = TIM_DNN.model_dump()
    for name, values in records.items():
        tree[name] |= values
    return Circuit.model_validate(tree)


# An overdrive of 1 V: I = 0.01 mA, knee at 0.5 V; 0.1 pF and 1 ns make it 0.1 V a cell.
ROUND = changed(
    discharge={"precharge_V": 1.5, "current_mA": 0.01, "saturation_V": 0.5},
    path={"threshold_V": 0.5, "alpha": 2.0},
    bitline={"capacitance_pF": 0.1, "pulse_ns": 1.0},
)


# --- The bitline ----------------------------------------------------------------------------------------------------


def test_saturated_cells_draw_a_constant_current():
    assert states(ROUND, 10) == pytest.approx([1.5, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])


def test_cells_in_triode_follow_the_square_law_of_the_book():
    # u = V / knee: u' = -0.2 u (2 - u) a cell, so u / (2 - u) falls from 1 by exp(-0.4) with each cell beyond ten.
    for n in (12, 14):
        ratio = np.exp(-2 * 0.2 * (n - 10))
        assert states(ROUND, 16)[n] == pytest.approx(0.5 * 2 * ratio / (1 + ratio))


def test_channel_length_modulation_adds_current_above_the_knee():
    circuit = changed(**{name: getattr(ROUND, name).model_dump() for name in ("discharge", "bitline")},
                      path={"threshold_V": 0.5, "alpha": 2.0, "modulation_per_V": 0.2})  # fmt: skip
    assert cell_current(circuit, 1.5) == pytest.approx(0.01 * 1.2)
    assert cell_current(circuit, 0.5) == pytest.approx(0.01)
    # dV/dt = -0.1 (1 + 0.2 (V - 0.5)): 1 + 0.2 (V - 0.5) falls from 1.2 by exp(-0.02) for one cell.
    assert states(circuit, 1)[1] == pytest.approx(0.5 + (1.2 * np.exp(-0.02) - 1) / 0.2)


def test_no_discharging_cell_leaves_the_precharge():
    assert states(TIM_DNN)[0] == TIM_DNN.discharge.precharge_V


def test_off_cells_leak_in_proportion_to_the_voltage():
    circuit = changed(bitline={"capacitance_pF": 0.1, "pulse_ns": 1.0, "off_current_mA": 0.001})
    assert states(circuit, 16)[0] == pytest.approx(1.05 * np.exp(-16 * 0.001 / 1.05 / 0.1))


def test_a_cell_whose_threshold_is_above_the_supply_draws_nothing():
    assert discharged(TIM_DNN, [[1.2, 1.3], [1.2, 0.494]]) == pytest.approx([1.05, states(TIM_DNN)[1]])


@pytest.mark.parametrize("modulation_per_V", [0.0, 0.3])
@pytest.mark.parametrize("off_current_mA", [0.0, 1e-4])
def test_the_closed_solution_is_that_of_a_general_integrator(modulation_per_V, off_current_mA):
    circuit = changed(path={"modulation_per_V": modulation_per_V}, bitline={"off_current_mA": off_current_mA})
    rng = np.random.default_rng(1)
    for n in (1, 7, 16):
        thresholds = 0.494 * (1 + 0.1 * rng.standard_normal((1, n)))
        for ours, cells in zip(discharged(circuit, thresholds), thresholds, strict=True):

            def slope(_, v, cells=cells, n=n):
                overdrive = 1.05 - cells
                current, knee = 0.011066 * overdrive**1.3, 0.80542 * overdrive**0.65
                sat = current * (1 + modulation_per_V * (v[0] - knee))
                triode = current * (v[0] / knee) * (2 - v[0] / knee)
                leak = (16 - n) * off_current_mA * v[0] / 1.05
                return [-(np.where(v[0] >= knee, sat, triode).sum() + leak) / 0.061277]

            theirs = solve_ivp(slope, (0, 1.15), [1.05], rtol=1e-9, atol=1e-11, max_step=0.01).y[0, -1]
            assert ours == pytest.approx(theirs, abs=1e-7)


def test_the_result_does_not_depend_on_the_order_of_the_cells():
    cells = np.array([[0.4, 0.5, 0.6, 0.45, 0.55]])
    assert discharged(TIM_DNN, cells[:, ::-1]) == discharged(TIM_DNN, cells)


def test_voltages_fall_and_margins_shrink_with_the_count():
    voltages = states(TIM_DNN)
    assert (np.diff(voltages) < 0).all()
    assert (np.diff(margins(voltages)) < 1e-12).all()
    assert saturation_count(voltages) == 11


def test_a_longer_pulse_discharges_further():
    assert (states(TIM_DNN, pulse_ns=2.0)[1:] < states(TIM_DNN, pulse_ns=1.0)[1:]).all()


def test_heat_weakens_the_cells_by_mobility_and_strengthens_them_by_threshold():
    nominal = states(TIM_DNN)[8]
    mobility = changed(temperature={"operating_K": 360.0, "threshold_V_per_K": 0.0})
    threshold = changed(temperature={"operating_K": 360.0, "mobility_exponent": 0.0})
    both = changed(temperature={"operating_K": 360.0})
    assert states(mobility)[8] > nominal
    assert states(threshold)[8] < nominal
    assert states(both)[8] > nominal  # at this overdrive mobility outweighs the threshold
    assert operating_threshold(both) == pytest.approx(0.494 - 0.000366 * 59.85)


def test_more_cells_on_than_cells_is_refused():
    with pytest.raises(ConfigError, match=r"n_cells: must be at least the number of discharging cells \(3\), got 2"):
        discharged(TIM_DNN, [[0.5, 0.5, 0.5]], n_cells=2)


def test_a_threshold_above_the_supply_is_refused():
    with pytest.raises(ValidationError, match=r"path.threshold_V: must be less than discharge.precharge_V \(1.05\)"):
        changed(path={"threshold_V": 1.1})


def test_modulation_that_turns_the_current_round_is_refused():
    with pytest.raises(ValidationError, match=r"path.modulation_per_V: must be at most 0.8 / 0.55 V"):
        changed(path={"modulation_per_V": 2.0})


# --- Energy ---------------------------------------------------------------------------------------------------------


def test_energy_is_the_charge_times_the_supply():
    assert bitline_energy(ROUND, [1.5, 1.4, 0.5]) == pytest.approx([0, 0.1 * 1.5 * 0.1, 0.1 * 1.5 * 1.0])


def test_energy_of_a_column_grows_with_both_counts_and_is_symmetric():
    energy = column_energy(TIM_DNN)
    assert energy[0, 0] == 0
    assert energy[3, 2] == energy[2, 3] > energy[2, 2]
    assert np.isnan(energy[9, 8])
    assert not np.isnan(energy[8, 8])


def test_energy_of_a_column_can_be_scaled_to_the_characterized_one():
    for given in (9.18 / 256, 1.0):
        energy = column_energy(TIM_DNN, energy_pJ=given, nonzero=0.36)
        scale = energy[1, 0] / column_energy(TIM_DNN)[1, 0]
        assert scale * mean_column_energy(TIM_DNN, 0.36) == pytest.approx(given)


def test_the_recalled_energy_implies_the_sparsity_it_was_set_for():
    assert nonzero_of_energy(TIM_DNN, 9.18 / 256) == pytest.approx(0.36, abs=1e-3)


def test_an_energy_that_no_sparsity_gives_is_refused():
    with pytest.raises(ConfigError, match=r"energy_pJ: must be from 0 to .* pJ, what a column takes when .* got 1"):
        nonzero_of_energy(TIM_DNN, 1.0)


# --- Misreads -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sensing():
    return sense(TIM_DNN, n_samples=30_000, n_weighted=8_000, seed=3)


def test_counted_misreads_agree_with_weighted_ones(sensing):
    assert 0 < sensing.deviation() < 4
    assert sense(TIM_DNN, n_cells=2, n_samples=100, n_weighted=100).deviation() is None
    counted = sensing.counted.total(assumed_occupancy())
    assert counted == pytest.approx(sensing.table.total(assumed_occupancy()), rel=0.5)


def test_normal_tails_are_of_the_right_size(sensing):
    n = slice(3, 8)
    assert np.abs(np.log(sensing.fitted.lower[n] / sensing.weighted.lower[n])).max() < 1
    assert np.abs(np.log(sensing.fitted.higher[n] / sensing.weighted.higher[n])).max() < 1


def test_a_weighted_probability_is_that_of_the_threshold_where_one_cell_discharges(sensing):
    # With one cell, V < reference means a threshold below the one that discharges to it: a normal tail.
    thresholds = np.linspace(0.2, 0.494, 4001)
    voltages = discharged(TIM_DNN, thresholds[:, None])
    at = np.interp(sensing.references_V[1], voltages, thresholds)
    assert sensing.weighted.higher[1] == pytest.approx(ndtr((at - 0.494) / (0.05 * 0.494)), rel=0.05)


def test_the_counts_with_the_most_spread_are_misread_by_one_at_most(sensing):
    assert sensing.n_far[:9].sum() == 0


def test_mean_and_spread_are_those_of_the_samples():
    found = sense(TIM_DNN, n_samples=10_000, n_weighted=100)
    samples = sample_voltages(TIM_DNN, 5)
    assert found.mean_V[5] == pytest.approx(samples.mean())
    assert found.sd_V[5] == pytest.approx(samples.std())
    assert found.sd_V[0] == 0


def test_one_seed_gives_the_same_bits_on_any_number_of_threads():
    one, three = (sense(TIM_DNN, n_cells=6, n_samples=2 * BLOCK + 77, n_weighted=500, seed=9, n_threads=n)
                  for n in (1, 3))  # fmt: skip
    assert one == three
    assert one != sense(TIM_DNN, n_cells=6, n_samples=2 * BLOCK + 77, n_weighted=500, seed=10)


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    long = sample_voltages(TIM_DNN, 3, n_samples=2 * BLOCK)
    assert (sample_voltages(TIM_DNN, 3, n_samples=BLOCK + 5) == long[: BLOCK + 5]).all()


def test_without_variation_nothing_is_misread():
    found = sense(with_variation(TIM_DNN, threshold_fraction=0.0), n_samples=50, n_weighted=50)
    for table in (found.counted, found.fitted, found.weighted):
        assert table.total(np.ones(17)) == 0


def test_an_offset_alone_makes_normal_tails():
    circuit = with_variation(ROUND, threshold_fraction=0.0, offset_V=0.02)
    found = sense(circuit, n_cells=4, n_samples=20_000, n_weighted=20_000)
    tail = 0.006209665  # beyond 2.5 standard deviations: half a margin of 0.1 V over 0.02 V
    assert found.fitted.lower[1:] == pytest.approx([tail] * 4)
    assert found.weighted.lower[1:] == pytest.approx([tail] * 4, rel=0.05)
    assert found.weighted.higher[:4] == pytest.approx([tail] * 4, rel=0.05)
    assert found.weighted.higher[4] == 0


def test_references_that_do_not_follow_the_temperature_misread_more():
    hot = changed(temperature={"operating_K": 340.0})
    follow = sense(hot, n_samples=100, n_weighted=2000)
    stay = sense(hot, n_samples=100, n_weighted=2000, references_V=midway(states(TIM_DNN)))
    assert stay.table.total(assumed_occupancy()) > 10 * follow.table.total(assumed_occupancy())


def test_importance_sampling_alone_gives_the_same_table():
    whole = sense(TIM_DNN, n_samples=10, n_weighted=1000, seed=2).table
    part = weighted_table(TIM_DNN, count_max=8, n_samples=1000, seed=2)
    assert (part.lower == whole.clipped(8).lower).all()
    assert (part.higher == whole.clipped(8).higher).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples: must be a whole number of at least 2, got 0"),
        ({"n_cells": 2.5}, "n_cells: must be a whole number of at least 1, got 2.5"),
        ({"seed": -1}, "seed: must be a whole number of at least 0, got -1"),
        ({"n_threads": 0}, "n_threads: must be a whole number of at least 1, got 0"),
        ({"references_V": [0.5]}, r"references_V: must be 16 falling voltages, got \[0.5\]"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        sense(TIM_DNN, **arguments)


# --- Tables ---------------------------------------------------------------------------------------------------------


TABLE = ErrorTable(lower=[0, 0.1, 0.2, 0.05], higher=[0.01, 0.2, 0.3, 0.0])


def test_a_total_is_the_sum_over_the_counts():
    assert TABLE.total([1, 0, 0, 0]) == pytest.approx(0.01)
    assert TABLE.total([5, 3, 2]) == pytest.approx(0.5 * 0.01 + 0.3 * 0.3 + 0.2 * 0.5)


def test_what_lies_above_count_max_is_read_as_it():
    clipped = TABLE.clipped(2)
    assert clipped.lower.tolist() == [0, 0.1, 0.2, 0]
    assert clipped.higher.tolist() == [0.01, 0.2, 0, 0]
    assert TABLE.upto(2).lower.tolist() == [0, 0.1, 0.2]


def test_drawn_reads_follow_the_table():
    rng = np.random.default_rng(5)
    counts = np.repeat(np.arange(4), 20_000)
    reads = TABLE.draw(counts, rng)
    statistic, freedom = 0.0, 0
    for n in range(4):
        seen = np.array([(reads[counts == n] == n + step).sum() for step in (-1, 0, 1)])
        wanted = 20_000 * TABLE.probabilities[n]
        assert seen.sum() == 20_000
        assert (seen[wanted == 0] == 0).all()
        statistic += ((seen - wanted)[wanted > 0] ** 2 / wanted[wanted > 0]).sum()
        freedom += (wanted > 0).sum() - 1
    assert statistic < chi2.ppf(0.9999, freedom)
    assert TABLE.draw(np.zeros((2, 3), int), rng).shape == (2, 3)


def test_a_table_written_and_read_is_equal(tmp_path):
    table = sense(TIM_DNN, n_cells=3, n_samples=100, n_weighted=100).table
    path = tmp_path / "table.csv"
    path.write_text(table.to_csv())
    again = read_table(path)
    assert (again.probabilities == table.probabilities).all()
    assert (again.lower_error == table.lower_error).all()
    assert again.source == str(path)


def test_a_table_is_read_from_yaml(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("lower: [0, 1.0e-6, 2e-05]\nhigher: [1.0e-7, 3.0e-6, 0]\n")
    assert read_table(path).lower.tolist() == [0, 1e-6, 2e-5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "n,lower,higher\n0,0,2\n", r"t.csv: n=0: higher must be a probability from 0 to 1, got 2"),
        ("t.csv", "n,lower,higher\n0,0.1,0\n", r"t.csv: n=0: lower must be 0, got 0.1; no count is less than 0"),
        ("t.csv", "n,lower,higher\n0,0,nan\n", r"t.csv: n=0: higher must be a finite number, got 'nan'"),
        ("t.csv", "n,lower,higher\n0,0,\n", r"t.csv: n=0: higher must be a finite number, got ''"),
        ("t.csv", "n,lower,higher\n0,0,0\n1,.6,.6\n", r"t.csv: n=1: lower \+ higher must be at most 1, got 1.2"),
        ("t.csv", "n,lower,higher\n1,0,0\n", r"t.csv: row 1 must be that of n=0, got n='1'"),
        ("t.csv", "n,lower,higher\n0,0\n", r"t.csv: row 1 must have 3 columns, got 2"),
        ("t.csv", "a,b\n", r"t.csv: must begin with the columns n,lower,higher, got 'a,b'"),
        ("t.csv", "", r"t.csv: must begin with the columns n,lower,higher, got ''"),
        ("t.csv", "n,lower,higher\n", r"t.csv: lower: must be a list of numbers, got shape \(0,\)"),
        ("t.yaml", "lower: [0, 0]\nhigher: [0]\n", r"t.yaml: higher: must have as many entries as lower \(2\), got 1"),
        ("t.yaml", "lower: [0, .nan]\nhigher: [0, 0]\n", r"t.yaml: n=1: lower must be a finite number, got nan"),
        ("t.yaml", "lower: [0, true]\nhigher: [0, 0]\n", r"t.yaml: n=1: lower must be a finite number, got True"),
        ("t.yaml", "lower: 0\nhigher: [0]\n", r"t.yaml: lower: must be a list of numbers, got 0"),
        ("t.yaml", "- 1\n", r"t.yaml: must be a mapping with the lists lower and higher, got a list"),
        ("t.yaml", "lower: [0]\nhigher: [0]\nupper: [0]\n", r"t.yaml: upper: no such field in an error table"),
        ("t.yaml", "lower: [", r"t.yaml: line \d+: cannot be read as YAML"),
        ("t.txt", "", r"t.txt: must be an error table ending in .csv, .yaml or .yml, got .txt"),
    ],
)
def test_a_bad_table_is_told_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(DataError, match=r"none.csv: cannot be read: No such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes(b"n,\xff")
    with pytest.raises(DataError, match=r"t.csv: must be UTF-8 text, got byte 0xff at 2"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"0" * (1 << 20 | 1))
    with pytest.raises(DataError, match=r"t.csv: must be an error table of at most 1048576 bytes, got 1048577"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("histogram", "message"),
    [
        ([1, -1], "occupancy: n=1: must be a finite number of at least 0, got -1"),
        ([1, float("nan")], "occupancy: n=1: must be a finite number of at least 0, got nan"),
        ([0, 0], "occupancy: must have a count above 0, got none"),
        ([[1]], r"occupancy: must be a list of numbers, got shape \(1, 1\)"),
        (["a"], r"occupancy: must be a list of numbers, got \['a'\]"),
    ],
)
def test_a_bad_occupancy_is_named(histogram, message):
    with pytest.raises(DataError, match=message):
        occupancy_of(histogram)


def test_an_occupancy_longer_than_the_table_is_refused():
    with pytest.raises(DataError, match="occupancy: must be 0 above n=3, the last of the error table, got 5 entries"):
        TABLE.total([1, 1, 1, 1, 1])


def test_the_occupancy_is_that_of_the_circuit_where_it_fits():
    gathered, whose = occupancy_at(TIM_DNN, 16)
    assert whose == "gathered"
    assert gathered == pytest.approx(np.array(TIM_DNN.occupancy.reads) / sum(TIM_DNN.occupancy.reads))
    scaled, whose = occupancy_at(TIM_DNN, 8)
    assert whose == "scaled"
    assert scaled @ np.arange(9) / 8 == pytest.approx(gathered @ np.arange(17) / 16)
    none = TIM_DNN.model_copy(update={"occupancy": None})
    assert occupancy_at(none, 8)[1] == "assumed"
    assert occupancy_at(none, 8)[0].tolist() == assumed_occupancy(8).tolist()


def test_the_assumed_occupancy_is_binomial():
    occupancy = assumed_occupancy()
    assert occupancy.sum() == pytest.approx(1)
    assert occupancy @ np.arange(17) == pytest.approx(16 * 0.55 * 0.55 / 2)
    assert occupancy[0] == pytest.approx((1 - 0.15125) ** 16)


# --- The fit --------------------------------------------------------------------------------------------------------


def test_the_fit_gives_the_shipped_numbers_and_from_elsewhere_too():
    for start in (TIM_DNN, changed(discharge={"precharge_V": 0.9, "current_mA": 0.03, "saturation_V": 0.3})):
        found = fit(start=start).circuit
        assert found.discharge.precharge_V == pytest.approx(TIM_DNN.discharge.precharge_V, rel=1e-4)
        assert found.discharge.current_mA == pytest.approx(TIM_DNN.discharge.current_mA, rel=1e-4)
        assert found.discharge.saturation_V == pytest.approx(TIM_DNN.discharge.saturation_V, rel=1e-4)
        assert found.bitline.capacitance_pF == pytest.approx(TIM_DNN.bitline.capacitance_pF, rel=1e-4)


def test_the_fit_says_what_it_was_given_and_how_far_off_it_is():
    found = fit()
    assert found.at_bound
    assert found.residuals_V["mean S0-S7"] == pytest.approx(np.mean(found.margins_V[:7]) - 0.096)
    assert list(found.residuals_V) == ["mean S0-S7", "S7-S8", "S8-S9", "S9-S10"]
    assert found.given == Given()


def test_margins_of_a_known_circuit_are_found_again():
    steps = margins(states(ROUND, 12))
    given = Given(mean_margin_V=steps[:7].mean(), last_margins_V=tuple(steps[7:10]), precharge_V=(1.499, 1.501))
    start = changed(discharge={"current_mA": 0.02, "saturation_V": 0.9}, path={"threshold_V": 0.5, "alpha": 2.0})
    assert fit(given, start).margins_V[:10] == pytest.approx(steps[:10], abs=2e-4)


@pytest.fixture(scope="module")
def prediction():
    return predict(TIM_DNN, n_samples=512)


def test_the_prediction_names_what_would_meet_the_recalled_figure(prediction):
    found = prediction
    assert found.factor == pytest.approx(1.5e-4 / found.error_probability)
    for circuit in (
        with_variation(TIM_DNN, threshold_fraction=found.matching_fraction),
        with_variation(TIM_DNN, offset_V=found.matching_offset_V),
    ):
        again = weighted_table(circuit, count_max=8, n_samples=512).total(occupancy_at(TIM_DNN)[0])
        assert again == pytest.approx(1.5e-4, rel=0.05)


def test_no_offset_meets_a_figure_that_is_already_passed():
    assert predict(with_variation(TIM_DNN, threshold_fraction=0.08), n_samples=50).matching_offset_V is None


def test_a_given_occupancy_is_used():
    found = predict(TIM_DNN, [1, 0, 0], n_samples=50)
    assert found.error_probability == 0


def test_the_prediction_leans_on_the_supply():
    low, high = alternatives((0.9, 1.05), (0.494,))
    assert low.chi_square > high.chi_square
    assert low.error_probability > high.error_probability


def test_a_supply_below_the_threshold_is_refused():
    with pytest.raises(ConfigError, match=r"precharge_V: must be two rising bounds above the threshold \(0.494 V\)"):
        fit(held_at(0.4))


def test_the_record_says_what_was_given_fitted_and_held_out(prediction):
    text = "\n".join(report(fit(), prediction))
    assert "mean margin S0-S7      96.0 mV   ours  95.98 mV" in text
    assert "precharge_V    1.0500, at its bound: the margins want it beyond" in text
    assert f"P_E  recalled 1.50e-04, ours {prediction.error_probability:.3e}" in text


def test_the_command_prints_the_record(capsys):
    assert main(["--precharge", "1.0", "--samples", "20", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["circuit"]["discharge"]["precharge_V"] == pytest.approx(1.0)
    assert main(["--precharge", "0.3"]) == 1
    assert capsys.readouterr().err.startswith("calibrate: precharge_V: must be two rising bounds")


# --- Report ---------------------------------------------------------------------------------------------------------


def test_the_figure_is_written(tmp_path, sensing):
    png, svg = write_circuit_figure(TIM_DNN, sensing, tmp_path)
    assert (png.name, svg.name) == ("circuit.png", "circuit.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_text().startswith("<?xml")


def test_the_tables_say_margins_misreads_and_energy(sensing):
    console = Console(width=160, record=True, file=io.StringIO())
    print_circuit(TIM_DNN, sensing, console)
    text = console.export_text()
    assert "mean S0-S7 96.0 mV (recalled 96)" in text
    assert "discharge.precharge_V" in text
    assert "recalled 0.00015" in text


def test_the_lines_use_the_given_occupancy(sensing):
    assert any("P_E      0 a read, over the given" in line for line in circuit_lines(TIM_DNN, sensing, occupancy=[1.0]))


@pytest.mark.parametrize(("n_cells", "count_max"), [(4, 2), (20, 3)])
def test_blocks_of_other_sizes_are_drawn_and_told_too(n_cells, count_max):
    found = sense(TIM_DNN, n_cells=n_cells, n_samples=200, n_weighted=50)
    assert len(circuit_figure(TIM_DNN, found, count_max=count_max).axes) == 5  # four panels, one with two scales
    assert any(line.startswith("P_E ") for line in circuit_lines(TIM_DNN, found, count_max=count_max))


def test_the_circuit_needs_neither_torch_nor_matplotlib():
    heavy = "('torch', 'matplotlib', 'pandas', 'numba')"
    code = f"import sys, imcsim.circuit.calibrate as _; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
