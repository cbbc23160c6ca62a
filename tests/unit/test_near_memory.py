"""Chips whose tiles are read row by row and computed beside: what they refuse, spend and say."""

import io
import re

import numpy as np
import pytest
from rich.console import Console
from strategies import Fixed

import imcsim
from imcsim.arch.load import load_chip, vary
from imcsim.costs import digital, sram
from imcsim.costs.activity import relative_energy
from imcsim.costs.peaks import peaks
from imcsim.costs.price import price
from imcsim.errors import ConfigError
from imcsim.mapping.place import place
from imcsim.report.load import read_run
from imcsim.report.page import sections
from imcsim.report.terminal import print_run
from imcsim.run import run

CHIP = load_chip("near-memory-iso-capacity")
COSTS = price(CHIP)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tile.rows_per_access", 16, "must be 1 in a near-memory chip, got 16; a near-memory tile reads one row at"),
        ("tile.access.characterized_at.rows_per_access", 16, "must be 1 in a near-memory chip, got 16; "),
        ("tile.count_max", 10, "must be 1 in a near-memory chip, got 10; a near-memory tile has no ADCs"),
        ("tile.access.characterized_at.count_max", 8, "must be 1 in a near-memory chip, got 8; "),
        ("tile.conversion.adc_fraction", 0.7, "must be 0 in a near-memory chip, got 0.7; "),
        ("tile.sense", "n", "must be both in a near-memory chip, got n; "),
        ("tile.misreads", "circuit", "must be none in a near-memory chip, got circuit; "),
        ("tile.imperfections.adc_offset_counts", 0.5, "must be 0 in a near-memory chip, got 0.5; "),
        ("tile.imperfections.adc_gain_fraction", 0.1, "must be 0 in a near-memory chip, got 0.1; "),
        ("tile.imperfections.read_noise_counts", 0.1, "must be 0 in a near-memory chip, got 0.1; "),
        (
            "tile.resistive",
            {"basis": "assumed", "source": "me"},
            "must not be given for a near-memory chip, got a mapp",
        ),
        (
            "tile.access.activity",
            {"nonzero_products": 0.36, "basis": "assumed", "source": "me"},
            "must not be given for a near-memory chip, got a mapping; every column of a row discharges",
        ),
        ("circuit", load_chip("tim-dnn").circuit.model_dump(), "must not be given for a near-memory chip, got a mapp"),
    ],
)
def test_what_a_near_memory_chip_does_not_have_is_refused(key, value, message):
    with pytest.raises(ConfigError, match=f"^(near-memory-iso-capacity: )?{re.escape(f'{key}: {message}')}") as error:
        vary(CHIP, {key: value})
    assert "\n" not in str(error.value)


def test_a_users_override_is_not_blamed_on_the_file():
    with pytest.raises(ConfigError, match=r"^tile\.count_max: must be 1 in a near-memory chip, got 10; "):
        load_chip("near-memory-iso-area", {"tile.count_max": 10})


def test_a_chip_that_counts_on_its_bitlines_says_at_which_activity():
    with pytest.raises(ConfigError, match=r"^tile\.access\.activity: must be given for a chip of kind ternary-in-mem"):
        load_chip("tim-dnn", {"tile.access.activity": None})


def test_cells_may_be_stuck(tiny_graph):
    x = np.random.default_rng(0).normal(size=(20, 1, 4, 4))
    right, wrong = (
        imcsim.execute(place(tiny_graph, load_chip(CHIP.name, {"tile.imperfections.stuck_at_zero_probability": p})), x)
        for p in (0.0, 0.4)
    )
    assert not np.array_equal(right, wrong)


def test_a_row_spends_the_same_whatever_it_holds():
    nothing, everything = np.array([100, 0]), np.array([0, 100])
    assert relative_energy(CHIP, nothing, nothing) == relative_energy(CHIP, everything, nothing) == 1


def test_actions_and_components_are_those_of_nmc_units(tiny_graph):
    trace = imcsim.simulate(place(tiny_graph, CHIP, style="temporal"))
    actions = {action for spent in trace.counts.values() for action in spent}
    assert "tile.multiply_add" in actions
    assert not actions & {"tile.convert", "tile.convert_one"}
    components = {row.component for row in trace.to_rows()} | {area.component for area in COSTS.areas}
    assert "tile.nmc" in components
    assert "tile.pcu" not in components
    assert {"tile.nmc", "tile.array+nmc"} <= set(imcsim.explain(trace).without)


def test_costs_are_those_of_the_file_and_scale_from_one_row():
    assert 256 * COSTS.energy_pJ("tile.multiply_add") == 6.2
    assert 256 * COSTS.energy_pJ("tile.column_read") == 2.6
    assert COSTS.energy_pJ("tile.access") == 0.158 + 0.28
    assert COSTS.timings["tile.multiply_add"].interval_ns == 1.0
    longer = price(load_chip(CHIP.name, {"tile.n_rows": 512}))
    assert longer.energy_pJ("tile.column_read") == 2 * COSTS.energy_pJ("tile.column_read")
    assert longer.energy_pJ("tile.multiply_add") == COSTS.energy_pJ("tile.multiply_add")


def test_the_arithmetic_of_the_sources_gives_the_numbers():
    tim, tile, volts = load_chip("tim-dnn"), CHIP.tile, CHIP.technology.supply_V
    cell_um2 = 146 * 0.032**2
    height_um, width_um = (cell_um2 / 1.46) ** 0.5, (cell_um2 * 1.46) ** 0.5
    bitline_pF = 256 * (height_um * 0.3e-3 + 1.31 * 0.032 * 1e-3)
    assert tile.access.bitlines.energy_pJ == pytest.approx(512 * bitline_pF * volts * 2 * 0.08, rel=0.02)
    decoded_pJ = tile.access.wordlines.energy_pJ + tile.access.decoders.energy_pJ
    assert tile.write_row.energy_pJ == pytest.approx(512 * bitline_pF * volts**2 + decoded_pJ, rel=0.02)
    digital_pJ = (1 - tim.tile.conversion.adc_fraction) * tim.tile.access.pcus.energy_pJ
    assert tile.access.pcus.energy_pJ == pytest.approx(digital_pJ + 512 * 2.16e-3, rel=0.01)
    assert tile.access.wordlines.energy_pJ == pytest.approx(
        4 * tim.tile.access.wordlines.energy_pJ / (16 * 0.6), rel=0.01
    )
    wordline_pF = 512 * (2 * 0.1e-3 + width_um * 0.3e-3)
    assert wordline_pF * volts**2 == pytest.approx(0.14, abs=0.005)
    assert tile.access.interval_ns == pytest.approx(11.8 * tim.tile.access.interval_ns / 16, rel=0.005)
    assert tile.array.area_um2 == pytest.approx(256 * 512 * sram.CELL_UM2, abs=1)
    tile_um2 = (tim.tile.array.area_um2 + tim.tile.pcus.area_um2) / 1.89
    assert tile.array.area_um2 + tile.pcus.area_um2 == pytest.approx(tile_um2, abs=1)
    for silicon in (tile.array, tile.pcus):
        assert silicon.leakage_mW == pytest.approx(digital.LOGIC_LEAKAGE_MW_PER_UM2 * silicon.area_um2, rel=0.01)


def test_peaks_count_the_words_of_one_row():
    found = {peak.name: peak for peak in peaks(CHIP, COSTS)}
    assert found["peak_TOPS"].value == pytest.approx(32 * 2 * 256 / 1.70 / 1000)
    assert found["tile_access_pJ"].value == pytest.approx(6.2 + 2.6 + 0.158 + 0.28)
    assert all(peak.printed is None for peak in found.values())  # what is printed is of another chip


def test_rows_without_an_input_can_be_left_out(tiny_graph):
    plans = [
        place(tiny_graph, load_chip(CHIP.name, {"tile.skips_zero_blocks": skips}), style="temporal")
        for skips in (False, True)
    ]
    activity = imcsim.Activity(idle_share={"conv": 0.5})
    all_rows, driven = (imcsim.estimate(plan, activity=activity) for plan in plans)
    assert driven.counts["conv"]["tile.access"] == all_rows.counts["conv"]["tile.access"] // 2
    assert driven.energy_pJ < all_rows.energy_pJ


def test_variants_are_refused_what_the_kind_does_not_have(tiny_graph):
    found = imcsim.estimate_variants(tiny_graph, CHIP, {"tile.access.latency_ns": [1.7, 3.4]}, style="temporal")
    assert found.latency_ns[0] == imcsim.estimate(place(tiny_graph, CHIP, style="temporal")).latency_ns
    for key, values in {"tile.count_max": [1, 2], "tile.conversion.adc_fraction": [0.0, 0.5]}.items():
        with pytest.raises(ConfigError, match=f"{re.escape(key)}: must be . in a near-memory chip"):
            imcsim.estimate_variants(tiny_graph, CHIP, {key: values})
    with pytest.raises(ConfigError, match=r"tile\.access\.activity"):
        imcsim.estimate_variants(tiny_graph, CHIP, {"tile.access.activity.nonzero_products": [0.3]})


def test_a_run_knows_neither_pcus_nor_clipping(tiny_graph, tmp_path):
    rng = np.random.default_rng(0)
    done = run(Fixed(tiny_graph, (rng.normal(size=(30, 1, 4, 4)), rng.integers(0, 3, 30))), CHIP)
    done.write(tmp_path / "out", page=False)
    found = read_run(tmp_path / "out")
    assert found.summary.check.exact
    assert found.summary.chip_kind == "near-memory"
    console = Console(record=True, width=200, file=io.StringIO())
    print_run(found.summary, found.rows, console)
    said = console.export_text()
    assert "nothing clips, there are no ADCs" in said
    assert "NMC units" in said
    assert not {"PCUs", "clipped"} & set(said.split())
    pages = {section.name: section for section in sections(found)}
    assert "its NMC units in the lower" in pages["tiles"].paragraphs[0]
    assert [table.head for table in pages["accuracy"].tables] == [("Layer", "Rows", "Words", "Idle", "Zero products")]
    told = " ".join(pages["accuracy"].paragraphs)
    assert "nothing clips" in told
    assert "every column discharges" in told
    assert "an ADC clipped" not in told
