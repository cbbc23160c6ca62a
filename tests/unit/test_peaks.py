"""Figures at full rate."""

import pytest

from imcsim.arch.load import load_chip
from imcsim.costs.peaks import full_rates, peaks, power_mW
from imcsim.costs.price import price
from imcsim.report.chip import chip_tables, peak_rows


def peaks_of(overrides=None):
    chip = load_chip("tim-dnn", overrides)
    return {peak.name: peak for peak in peaks(chip, price(chip))}


def test_a_tile_does_two_operations_per_cell_and_access():
    assert peaks_of()["peak_TOPS"].value == pytest.approx(32 * 16 * 256 * 2 / 2.3 / 1000)


def test_too_few_pcus_halve_the_peak():
    few = peaks_of({"tile.n_pcus": 16})["peak_TOPS"].value
    assert few == pytest.approx(peaks_of()["peak_TOPS"].value / 2)


def test_more_pcus_than_the_array_needs_change_no_peak():
    assert peaks_of({"tile.n_pcus": 64})["peak_TOPS"].value == peaks_of()["peak_TOPS"].value


def test_a_peak_stands_beside_what_the_paper_prints():
    power = peaks_of()["power_mW"]
    assert (power.printed, power.printed_basis) == (900, "published")
    assert power.difference == pytest.approx(power.value / 900 - 1)


def test_a_chip_without_a_paper_has_peaks_and_no_differences():
    chip = load_chip("tim-dnn").model_copy(update={"figures": {}})
    assert all(peak.printed is None and peak.difference is None for peak in peaks(chip, price(chip)))


def test_shares_add_up_to_one():
    for peak in peaks_of().values():
        assert not peak.shares or sum(peak.shares.values()) == pytest.approx(1)


def test_power_is_the_sum_of_actions_and_leakage():
    chip = load_chip("tim-dnn")
    costs = price(chip)
    rates = full_rates(chip, costs)
    by_hand = sum(rate * costs.energy_pJ(action) for action, rate in rates.items()) + costs.leakage_mW
    assert power_mW(costs, rates)[0] == pytest.approx(by_hand)
    assert peaks_of()["power_mW"].value == pytest.approx(by_hand)


def test_the_rates_of_a_full_chip():
    chip = load_chip("tim-dnn")
    rates = full_rates(chip, price(chip))
    assert rates["activation_buffer.read"] == pytest.approx(32 * 16 * 2 / 2.3)
    assert rates["psum_buffer.write"] == pytest.approx(32 * 256 * 12 / (16 * 2.3))
    assert rates["reduce_unit.add"] == pytest.approx(32 * 256 / (16 * 2.3))
    assert (rates["sfu.relu"], rates["sfu.qu"]) == (64, 32)


def test_no_unit_works_faster_than_it_can():
    chip = load_chip("tim-dnn", {"psum_buffer.write.bits_per_ns": 100.0})
    assert full_rates(chip, price(chip))["psum_buffer.write"] == pytest.approx(100)


def test_the_buffers_keep_up_with_the_tiles():
    chip = load_chip("tim-dnn")
    costs = price(chip)
    rates = full_rates(chip, costs)
    for action in ("activation_buffer.read", "psum_buffer.write", "reduce_unit.add"):
        assert rates[action] < 1 / costs.timings[action].interval_ns


def test_the_chip_holds_two_mebi_ternary_weights():
    assert peaks_of()["weight_capacity"].value == 2 << 20


def test_main_memory_is_in_no_other_line():
    memory = {"main_memory.read_energy.energy_pJ_per_bit": 8.0}
    assert peaks_of(memory)["power_mW"].value == peaks_of()["power_mW"].value
    assert peaks_of(memory)["main_memory_power_mW"].value == pytest.approx(8.0 * 2048)


def test_a_peak_row_speaks_in_percent():
    chip = load_chip("tim-dnn")
    row = next(row for row in peak_rows(chip, price(chip)) if row.name == "area_um2")
    assert row.difference_percent == pytest.approx(100 * (row.value / 1.96e6 - 1))
    assert sum(row.shares_percent.values()) == pytest.approx(100)


def test_the_table_of_parameters_has_every_number_with_its_source():
    chip = load_chip("tim-dnn")
    rows = {row.key: row for row in chip_tables(chip, price(chip))["parameters"]}
    pcus = rows["tile.access.pcus.energy_pJ"]
    assert (pcus.value, pcus.unit, pcus.basis, pcus.within_factor) == (17, "pJ", "recalled", 1.1)
    assert rows["tile.access.characterized_at.n_rows"].basis == "recalled"
    assert rows["sfu.relu.n_lanes"].basis == "recalled"
    assert rows["n_tiles"].basis is None
    assert rows["figures.power_mW"].unit == "mW"


def test_the_tables_of_costs_and_areas_add_up():
    chip = load_chip("tim-dnn")
    costs = price(chip)
    tables = chip_tables(chip, costs)
    areas = [row.value for row in tables["areas"] if row.key.endswith(".area_um2")]
    assert sum(areas) == pytest.approx(costs.area_um2)
    assert len(tables["costs"]) == len(costs.costs)
    assert len(tables["timings"]) == 2 * len(costs.timings)
