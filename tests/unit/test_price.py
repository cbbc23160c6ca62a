"""What actions cost: the chip file's numbers at the characterized tile, and the scaling laws away from it."""

import numpy as np
import pytest

from imcsim.arch.load import load_chip
from imcsim.costs import digital, sram, tile
from imcsim.costs.price import least_sure, price
from imcsim.costs.technology import energy_factor

CHIP = load_chip("tim-dnn")
COSTS = price(CHIP)


def priced(**overrides):
    return price(load_chip("tim-dnn", {key.replace("__", "."): value for key, value in overrides.items()}))


def part_pJ(costs, component):
    return next(line.energy_pJ for line in costs.costs if line.component == component)


def area_of(costs, component):
    return next(line for line in costs.areas if line.component == component)


def test_the_parts_of_an_access_are_the_recalled_ones():
    assert part_pJ(COSTS, "tile.wordlines") == 0.38
    assert part_pJ(COSTS, "tile.decoders") == 0.28
    assert 256 * COSTS.energy_pJ("tile.column_read") == 9.18
    assert 256 * COSTS.energy_pJ("tile.convert") == 17.0


def test_every_action_has_a_cost_and_a_timing():
    actions = {
        *("tile.access", "tile.column_read", "tile.convert", "tile.convert_one", "tile.write_row", "reduce_unit.add"),
        *("activation_buffer.read", "activation_buffer.write", "psum_buffer.read", "psum_buffer.write"),
        *("sfu.relu", "sfu.vpe", "sfu.spe", "sfu.qu", "scheduler.issue"),
        *("network.transfer", "main_memory.read", "main_memory.write"),
    }
    assert COSTS.by_action.keys() == actions
    assert COSTS.timings.keys() == actions - {"tile.column_read", "tile.convert_one"}


def test_every_line_says_where_it_comes_from():
    assert all(line.source and line.formula for line in COSTS.costs)
    assert all(line.source for line in COSTS.areas)


def test_the_pcus_convert_an_access_in_rounds():
    timing = COSTS.timings["tile.convert"]
    assert timing.interval_ns == pytest.approx(8 * 0.2875)
    assert timing.latency_ns == pytest.approx(7 * 0.2875 + 0.575)


def test_half_the_pcus_take_twice_as_long_and_the_same_energy():
    costs = priced(tile__n_pcus=16)
    assert costs.timings["tile.convert"].interval_ns == pytest.approx(4.6)
    assert costs.energy_pJ("tile.convert") == COSTS.energy_pJ("tile.convert")
    assert area_of(costs, "tile.pcu").area_um2 == area_of(COSTS, "tile.pcu").area_um2 / 2


def test_intervals_are_those_of_all_lanes_together():
    assert COSTS.timings["activation_buffer.read"].interval_ns == 1 / 512
    assert COSTS.timings["reduce_unit.add"].interval_ns == 1 / 256
    assert COSTS.timings["sfu.relu"].interval_ns == 1 / 64
    assert COSTS.timings["sfu.spe"].interval_ns == 1 / 20
    assert COSTS.timings["main_memory.write"].interval_ns == 1 / 2048


def test_bitlines_of_half_the_length_take_half_the_energy():
    assert priced(tile__n_rows=128).energy_pJ("tile.column_read") == COSTS.energy_pJ("tile.column_read") / 2


def test_half_the_rows_on_take_half_the_bitline_and_wordline_energy():
    costs = priced(tile__rows_per_access=8)
    assert costs.energy_pJ("tile.column_read") == COSTS.energy_pJ("tile.column_read") / 2
    assert part_pJ(costs, "tile.wordlines") == 0.19
    assert part_pJ(costs, "tile.decoders") == 0.28


def test_wordlines_of_half_the_length_take_half_the_energy():
    costs = priced(tile__n_columns=128)
    assert part_pJ(costs, "tile.wordlines") == 0.19
    assert costs.energy_pJ("tile.column_read") == COSTS.energy_pJ("tile.column_read")


def test_twice_the_counts_double_the_adc_share_of_a_pcu():
    costs = priced(tile__count_max=16)
    assert costs.energy_pJ("tile.convert") == pytest.approx(17 / 256 * (0.3 + 2 * 0.7))
    assert area_of(costs, "tile.pcu").area_um2 == pytest.approx(32 * 9700 * (0.3 + 2 * 0.7))


def test_the_array_is_as_large_as_its_cells():
    costs = priced(tile__n_rows=128, n_tiles=64)
    assert area_of(costs, "tile.array").area_um2 == area_of(COSTS, "tile.array").area_um2
    assert area_of(costs, "tile.array").n_instances == 64


def test_writing_a_row_follows_the_length_of_row_and_bitline():
    assert priced(tile__n_rows=128, tile__n_columns=128).energy_pJ("tile.write_row") == 30 / 4


def test_a_buffer_four_times_as_large_takes_twice_the_energy_a_bit():
    costs = priced(psum_buffer__capacity_bits=4 * 65536)
    assert costs.energy_pJ("psum_buffer.read") == 2 * COSTS.energy_pJ("psum_buffer.read")
    assert area_of(costs, "psum_buffer").area_um2 == 4 * area_of(COSTS, "psum_buffer").area_um2


def test_wider_adders_take_more_in_proportion():
    costs = priced(reduce_unit__adder_bits=24)
    assert costs.energy_pJ("reduce_unit.add") == 2 * COSTS.energy_pJ("reduce_unit.add")
    assert area_of(costs, "reduce_unit").area_um2 == 2 * area_of(COSTS, "reduce_unit").area_um2


def test_a_scaled_number_is_no_surer_than_what_scales_it():
    lines = {line.component: line for line in priced(tile__count_max=4).costs}
    assert lines["tile.pcu"].basis == "assumed"  # the ADC's share is
    assert lines["tile.pcu"].source.endswith("scaled by imcsim.costs from the measures that it holds for")
    assert lines["tile.bitlines"].basis == "recalled"


def test_a_published_number_is_derived_once_it_is_scaled():
    costs = priced(tile__access__bitlines__basis="published", tile__n_rows=128)
    assert next(line.basis for line in costs.costs if line.component == "tile.bitlines") == "derived"


def test_a_number_is_as_sure_as_the_least_sure_below_it():
    assert least_sure("published") == "published"
    assert least_sure("published", "derived", "recalled") == "recalled"
    assert least_sure("assumed", "published") == "assumed"


def test_the_chip_is_the_sum_of_its_components():
    assert sum(line.area_um2 for line in COSTS.areas) == COSTS.area_um2
    assert {line.component for line in COSTS.areas} == {
        *("tile.array", "tile.pcu", "activation_buffer", "psum_buffer", "reduce_unit"),
        *("sfu.relu", "sfu.vpe", "sfu.spe", "sfu.qu", "scheduler", "network"),
    }


def near(value, digits):
    """Equal to within the last of *digits* significant digits."""
    return pytest.approx(value, rel=0.6 * 10 ** (1 - digits))


def test_the_digital_figures_of_the_file_are_those_of_the_formulas():
    register_pJ, register_um2 = digital.REGISTER_BIT_PJ, digital.REGISTER_BIT_UM2
    add_pJ, add_um2 = digital.adder_energy_pJ(12), digital.adder_area_um2(12)
    assert CHIP.reduce_unit.add.energy_pJ == near(add_pJ + 12 * register_pJ, 3)
    assert CHIP.reduce_unit.silicon.area_um2 == near(add_um2 + 12 * register_um2, 3)
    assert CHIP.sfu.qu.operation.energy_pJ == near(3 * add_pJ + 12 * register_pJ, 3)
    assert CHIP.sfu.qu.silicon.area_um2 == near(3 * add_um2 + 12 * register_um2, 3)
    multiply_add_pJ = digital.multiplier_energy_pJ(16) + digital.adder_energy_pJ(16) + 16 * register_pJ
    multiply_add_um2 = digital.multiplier_area_um2(16) + digital.adder_area_um2(16) + 16 * register_um2
    assert CHIP.sfu.vpe.operation.energy_pJ == near(multiply_add_pJ, 3)
    assert CHIP.sfu.vpe.silicon.area_um2 == near(multiply_add_um2, 2)


def test_the_memory_figures_of_the_file_are_those_of_the_formulas():
    buffer, psums = CHIP.activation_buffer, CHIP.psum_buffer
    at_8_kilobytes = 10 / 64 * energy_factor(digital.AT_45_NM, digital.AT_32_NM)
    assert psums.read.energy_pJ_per_bit == near(at_8_kilobytes, 3)
    assert buffer.read.energy_pJ_per_bit == near(sram.access_energy(at_8_kilobytes, 16, 8), 3)
    assert buffer.silicon.area_um2 == near(sram.area_um2(buffer.capacity_bits), 5)
    assert psums.silicon.area_um2 == near(sram.area_um2(psums.capacity_bits), 5)


def test_leakage_follows_the_area():
    records = [CHIP.tile.array, CHIP.tile.pcus, CHIP.activation_buffer.silicon, CHIP.psum_buffer.silicon]
    records += [CHIP.reduce_unit.silicon, CHIP.sfu.vpe.silicon, CHIP.scheduler.silicon, CHIP.network.silicon]
    for record in records:
        assert record.leakage_mW == near(record.area_um2 * digital.LOGIC_LEAKAGE_MW_PER_UM2, 2)


def test_the_tile_is_cells_and_the_rest_of_the_implied_area():
    cells_um2 = 720 * 0.032**2 * 65536
    tile_um2 = 8192 / 2.3 / 1000 / 61.39 * 1e6
    assert CHIP.tile.array.area_um2 == near(cells_um2, 5)
    assert CHIP.tile.pcus.area_um2 == near(tile_um2 - cells_um2, 4)


def test_the_formulas_take_arrays():
    n_rows = np.array([0.5, 1.0, 2.0])
    assert tile.column_read_energy(9.18, 256, n_rows, 1.0).tolist() == [9.18 / 512, 9.18 / 256, 9.18 / 128]
