from itertools import pairwise
from math import exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TIM_DNN

from imcsim.analytic import estimate
from imcsim.analytic.variants import estimate_variants
from imcsim.arch.load import load_chip, shipped_chips, vary
from imcsim.arch.spec import Chip
from imcsim.circuit.bitline import alike_states, states
from imcsim.circuit.sensing import weighted_table
from imcsim.costs.operating import AS_STATED, access_interval_ns, access_latency_ns, relative
from imcsim.costs.price import price
from imcsim.errors import ConfigError
from imcsim.functional.noise import error_table
from imcsim.mapping.place import place

SUPPLY = "circuit.discharge.precharge_V"
PULSE = "circuit.bitline.pulse_ns"
CAPACITANCE = "circuit.bitline.capacitance_pF"
KELVIN = "circuit.temperature.operating_K"


def test_shipped_chips_stand_where_their_energies_were_given():
    for name in shipped_chips():
        machine = load_chip(name) if name.startswith(("tim-", "near-")) else None
        assert machine is None or relative(machine) == AS_STATED
    assert load_chip("tim-8").tile.access.operating_point is not None


def test_energies_of_the_array_by_hand():
    # In blocks of one row a bitline holds 0 or 1. Saturated all along, one cell lets it fall by current x pulse / C:
    # 0.5 mA x (V - 0.5 V) x 1 ns / 5 pF, 0.05 V at 1 V and 0.03 V at 0.8 V.
    chip = vary(TIM_DNN, {
        "tile.rows_per_access": 1, "circuit.path.alpha": 1.0, "circuit.path.threshold_V": 0.5,
        "circuit.discharge.current_mA": 0.5, "circuit.discharge.saturation_V": 0.1, PULSE: 1.0, CAPACITANCE: 5.0,
        "tile.access.operating_point.precharge_V": 1.0, "tile.access.operating_point.pulse_ns": 1.0,
        "tile.access.operating_point.capacitance_pF": 5.0, SUPPLY: 0.8,
    })  # fmt: skip
    found = relative(chip)
    assert found.bitlines == pytest.approx(0.8 * 0.03 / (1.0 * 0.05))
    assert found.wordlines == found.write_row == pytest.approx(0.64)
    assert found.longer_ns == 0
    twice = relative(vary(chip, {CAPACITANCE: 10.0, SUPPLY: 1.0, PULSE: 3.0}))
    assert twice.bitlines == pytest.approx(3.0)  # C V (V - V(n)): whatever C is, current x pulse leaves the bitline
    assert (twice.wordlines, twice.write_row, twice.longer_ns) == (1.0, 2.0, 2.0)


def test_what_follows_the_circuit_and_what_stays():
    at_hand, lower = price(TIM_DNN), price(vary(TIM_DNN, {SUPPLY: 0.9}))
    found = relative(vary(TIM_DNN, {SUPPLY: 0.9}))
    energies = {(line.action, line.component): line.energy_pJ for line in at_hand.costs}
    for line in lower.costs:
        stated = energies.pop((line.action, line.component))
        ratio = {"tile.wordlines": found.wordlines, "tile.bitlines": found.bitlines, "tile.write": found.write_row}
        assert line.energy_pJ == pytest.approx(stated * ratio.get(line.component, 1.0))
        if line.component in ratio:
            assert line.basis == "assumed"
            assert line.formula.endswith("relative to access.operating_point")
    assert not energies
    assert (at_hand.leakage_mW, at_hand.area_um2) == (lower.leakage_mW, lower.area_um2)
    assert at_hand.timings == lower.timings


def test_a_pulse_is_a_part_of_the_access():
    chip = vary(TIM_DNN, {PULSE: 2.15})
    assert (access_latency_ns(chip), access_interval_ns(chip)) == pytest.approx((3.3, 3.3))
    assert price(chip).timings["tile.access"].interval_ns == pytest.approx(3.3)
    longer = vary(TIM_DNN, {"tile.access.latency_ns": 3.3, "tile.access.interval_ns": 3.3})
    assert price(longer).timings == pytest.approx(price(chip).timings)


def test_cells_that_are_alike_discharge_as_any_do():
    for changes in (
        {},
        {SUPPLY: 0.6},
        {KELVIN: 400.0, PULSE: 0.3},
        {"circuit.bitline.off_current_mA": 0.002, "circuit.path.modulation_per_V": 0.4},
        {"circuit.discharge.saturation_V": 3.0, "circuit.path.alpha": 2.0},
    ):
        circuit = vary(TIM_DNN, changes).circuit
        np.testing.assert_allclose(alike_states(circuit), states(circuit), rtol=1e-12, atol=1e-15)
    leaking = vary(TIM_DNN, {"circuit.bitline.off_current_mA": 0.002}).circuit
    time = 1.15 / 0.061277 * 16 * 0.002 / 1.05
    assert alike_states(leaking)[0] == pytest.approx(1.05 * exp(-time))


def test_a_chip_that_does_not_say_where_it_was_measured_follows_nothing():
    silent = vary(TIM_DNN, {"tile.access.operating_point": None, SUPPLY: 0.7, PULSE: 3.0})
    assert relative(silent) == AS_STATED
    assert price(silent).timings == price(TIM_DNN).timings


@settings(max_examples=30)
@given(st.lists(st.floats(0.55, 1.2), min_size=2, max_size=6, unique=True), st.floats(0.2, 4), st.floats(250, 400))
def test_energy_rises_with_the_supply(volts, pulse_ns, kelvin):
    changes = {PULSE: pulse_ns, KELVIN: kelvin}
    chips = [vary(TIM_DNN, changes | {SUPPLY: volt}) for volt in sorted(volts)]
    for action in ("tile.access", "tile.column_read", "tile.write_row"):
        energies = [price(chip).energy_pJ(action) for chip in chips]
        assert all(a < b for a, b in pairwise(energies))


@settings(max_examples=15)
@given(st.floats(0.02, 0.12), st.floats(1.1, 2.0))
def test_misreads_rise_with_the_variation_of_the_thresholds(fraction, times):
    tables = [
        weighted_table(vary(TIM_DNN, {"circuit.variation.threshold_fraction": f}).circuit, count_max=8, n_samples=4000)
        for f in (fraction, fraction * times)
    ]
    few, many = (table.lower[1:9].sum() + table.higher[:8].sum() for table in tables)
    assert few < many


def test_the_table_of_a_circuit_is_made_once_and_is_that_of_its_numbers():
    one, same = (load_chip("tim-dnn", {"tile.misreads": "circuit", SUPPLY: 0.9}) for _ in range(2))
    other = vary(one, {SUPPLY: 0.85})
    assert error_table(one) is error_table(same)
    assert error_table(other).lower[4] > error_table(one).lower[4]
    fresh = weighted_table(one.circuit, n_cells=16, count_max=8)
    assert error_table(one).lower.tolist() == fresh.lower.tolist()


# --- many at once


def circuits(seed, n):
    rng = np.random.default_rng(seed)
    return {
        SUPPLY: rng.choice([1.05, 0.9, 0.7], n),
        PULSE: rng.choice([1.15, 2.0, 0.4], n),
        CAPACITANCE: rng.choice([0.061277, 0.1], n),
        KELVIN: rng.uniform(280, 380, n),
        "circuit.path.threshold_V": rng.uniform(0.3, 0.5, n),
        "tile.access.latency_ns": rng.uniform(1.2, 3, n),
        "tile.access.activity.nonzero_products": rng.choice([0.36, 0.2], n),
        "tile.rows_per_access": rng.choice([4, 8], n),
    }


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["spatial", "temporal"]), st.floats(0.8, 1.1))
def test_variants_of_the_circuit_are_the_estimates_of_their_chips(tiny_chip, tiny_graph, seed, style, supply_V):
    changes, chip = circuits(seed, 4), vary(tiny_chip, {SUPPLY: supply_V})
    if seed % 2:
        del changes[SUPPLY]
    found = estimate_variants(tiny_graph, chip, changes, style=style)
    for i in range(4):
        one = {key: values[i].item() for key, values in changes.items()}
        alone = estimate(place(tiny_graph, vary(chip, one), style=style))
        assert found.latency_ns[i] == pytest.approx(alone.latency_ns, rel=1e-12)
        assert found.energy_pJ[i] == pytest.approx(alone.energy_pJ, rel=1e-12)
        assert found.area_um2[i] == pytest.approx(alone.area_um2, rel=1e-12)
        part = estimate_variants(tiny_graph, chip, {key: values[i : i + 1] for key, values in changes.items()},
                                 style=style)  # fmt: skip
        assert (part.latency_ns[0], part.energy_pJ[0]) == (found.latency_ns[i], found.energy_pJ[i])


def test_a_circuit_whose_numbers_clash_fails_alone(tiny_chip, tiny_graph):
    changes = {
        SUPPLY: [1.05, 0.4, 0.9, 1.05],
        PULSE: [1.15, 1.15, 0.01, 0.01],
        "tile.access.interval_ns": [2.3, 2.3, 1.0, 2.3],
    }
    found = estimate_variants(tiny_graph, tiny_chip, changes, failures="keep")
    assert [message is None for message in found.messages] == [True, False, False, True]
    for i in (1, 2):
        with pytest.raises(ConfigError) as error:
            vary(tiny_chip, {key: values[i] for key, values in changes.items()})
        assert found.messages[i] == str(error.value)
    with pytest.raises(ConfigError, match=r"circuit\.path\.threshold_V: must be less than discharge\.precharge_V"):
        estimate_variants(tiny_graph, tiny_chip, changes)


def test_a_chip_without_a_circuit_has_no_variants_of_it(tiny_graph):
    near = load_chip("near-memory-iso-capacity")
    with pytest.raises(ConfigError, match=r"^circuit\.bitline\.pulse_ns: must be a key of near-memory-iso-capacity, "):
        estimate_variants(tiny_graph, near, {PULSE: [1.0]})
    silent = vary(TIM_DNN, {"tile.access.operating_point": None})
    with pytest.raises(ConfigError, match=r"^tile\.access\.operating_point\.pulse_ns: must be a key of tim-dnn, got"):
        estimate_variants(tiny_graph, silent, {"tile.access.operating_point.pulse_ns": [1.0]})
    found = estimate_variants(tiny_graph, silent, {SUPPLY: [1.05, 0.7]})
    assert found.energy_pJ[0] == found.energy_pJ[1]


# --- mistakes


def test_a_pulse_that_leaves_an_access_no_time_is_refused():
    message = (
        r"^circuit\.bitline\.pulse_ns: must be greater than 0\.15, which leaves an access no time \(its latency holds "
        r"a pulse of 1\.15\), got 0\.1$"
    )
    with pytest.raises(ConfigError, match=message):
        load_chip("tim-dnn", {PULSE: 0.1, "tile.access.interval_ns": 1.0})


def test_a_chip_with_an_operating_point_is_saved_and_loaded(tmp_path):
    from imcsim.arch.load import dump_chip

    path = tmp_path / "chip.yaml"
    path.write_text(dump_chip(vary(TIM_DNN, {SUPPLY: 0.9})))
    chip = load_chip(path)
    assert isinstance(chip, Chip)
    assert relative(chip) == relative(vary(TIM_DNN, {SUPPLY: 0.9}))
