"""Machines side by side: figures, technologies, files, and what is wrong with a request."""

import csv
import json

import pytest

import imcsim
from imcsim.arch.load import load_machine
from imcsim.comparators import assess
from imcsim.comparison import load_changed, write
from imcsim.costs.technology import Process, area_factor, delay_factor, energy_factor
from imcsim.errors import ConfigError
from imcsim.graph.formats import TERNARY
from imcsim.graph.outline import Outline, Weights
from imcsim.report.comparison_tables import caveats, comparison_table


@pytest.fixture(scope="module")
def graph():
    net = Outline("tiny", (4, 6, 6), weights=Weights(zero_fraction=0.5), activations=TERNARY, input_codes=TERNARY)
    x = net.conv("conv", net.input, 8, 3)
    return net.graph(net.linear("fc", net.flatten("flatten", x), 10, codes=False))


@pytest.fixture(scope="module")
def found(graph):
    return imcsim.compare(graph, ["tim-dnn", "v100", "brein"])


def test_chips_are_estimated_and_comparators_go_through_their_model(graph, found):
    estimate = imcsim.estimate(imcsim.place(graph, imcsim.load_chip("tim-dnn")))
    chip, v100, _ = found.rows
    assert (chip.latency_ns, chip.energy_pJ, chip.area_um2) == (
        estimate.latency_ns, pytest.approx(estimate.energy_pJ), estimate.area_um2
    )  # fmt: skip
    assert sum(layer.energy_pJ for layer in chip.layers) == pytest.approx(chip.energy_pJ)
    assert sum(layer.latency_ns for layer in chip.layers) == pytest.approx(chip.latency_ns)
    assert v100.energy_pJ == assess(graph, load_machine("v100")).energy_pJ
    assert [layer.n_products for layer in chip.layers if layer.n_macs] == [4 * 9 * 8 * 16, 8 * 16 * 10]
    assert found.n_macs == 4 * 9 * 8 * 16 + 8 * 16 * 10


def test_a_simulated_chip_takes_its_simulated_time(graph):
    (row,) = imcsim.compare(graph, ["tim-dnn"], engine="simulate").rows
    trace = imcsim.simulate(imcsim.place(graph, imcsim.load_chip("tim-dnn")))
    assert (row.latency_ns, row.energy_pJ) == (pytest.approx(trace.latency_ns), pytest.approx(trace.energy_pJ))


def test_every_figure_says_what_it_rests_on_and_every_energy_what_it_covers(found):
    told = {row.chip: (row.latency_basis, row.energy_basis, row.area_basis, row.energy_covers, row.energy_obtained)
            for row in found.rows}  # fmt: skip
    assert told["brein"] == ("assumed", "derived", "recalled", "chip", "measured")
    assert told["v100"] == ("assumed", "assumed", "published", "board", "rated")
    assert told["tim-dnn"] == ("assumed", "assumed", "assumed", "chip and memory", "modelled")
    assert sum(found.rows[0].energy_shares.values()) == pytest.approx(1)


def test_figures_are_brought_to_one_technology_and_stay_where_they_are_in_it(graph, found):
    there = imcsim.compare(graph, ["tim-dnn", "brein"], technology="32nm@0.9V")
    chip, brein = there.shown
    assert (chip.latency_ns, chip.energy_pJ, chip.area_um2) == pytest.approx(
        (found.rows[0].latency_ns, found.rows[0].energy_pJ, found.rows[0].area_um2)
    )
    own, source, target = found.rows[2], Process(65), Process(32, 0.9)
    assert brein.latency_ns == pytest.approx(own.latency_ns * delay_factor(source, target))
    assert brein.energy_pJ == pytest.approx(own.energy_pJ * energy_factor(source, target))
    assert brein.area_um2 == pytest.approx(own.area_um2 * area_factor(source, target))
    assert brein.throughput_per_s_per_W == pytest.approx(own.throughput_per_s_per_W / energy_factor(source, target))
    assert there.rows[1] == own


def test_files_hold_both_technologies_and_every_layer(graph, tmp_path):
    there = imcsim.compare(graph, ["tim-dnn", "brein", "v100"], technology="45nm")
    page = write(there, tmp_path)
    lines = list(csv.DictReader((tmp_path / "compare.csv").read_text().splitlines()))
    assert [line["chip"] for line in lines] == ["tim-dnn", "brein", "v100"]
    assert float(lines[1]["energy_pJ"]) == there.rows[1].energy_pJ
    assert float(lines[1]["energy_pJ_there"]) == there.shown[1].energy_pJ
    assert {line["technology"] for line in lines} == {"45 nm HP at 1 V"}
    layers = list(csv.DictReader((tmp_path / "layers.csv").read_text().splitlines()))
    assert [line["layer"] for line in layers if line["chip"] == "brein"] == ["conv", "fc"]
    assert json.loads((tmp_path / "compare.json").read_text())["rows"][2]["energy_covers"] == "board"
    assert "tiny on 3 machines, all brought to 45 nm HP at 1 V" in page.read_text()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"compare.png", "compare.svg"}


def test_who_cannot_take_the_network_is_listed_and_told_layer_by_layer(graph):
    fussy = load_machine("xnor-sram", {"operands.adds_planes": False})
    found = imcsim.compare(graph, ["brein", fussy])
    assert [row.chip for row in found.rows] == ["brein"]
    why = "must get one plane of binary weights by binary or ternary inputs a layer, got conv (2 binary x 1 ternary for"
    assert why in caveats(found)[-1]
    with pytest.raises(ConfigError, match=r"^chips: must be able to run tiny, got xnor-sram: must get one plane"):
        imcsim.compare(graph, [fussy])


def test_the_table_begins_with_the_least_energy(found):
    table = comparison_table(found)
    assert [row[0] for row in table.rows] == [row.chip for row in sorted(found.rows, key=lambda row: row.energy_pJ)]
    assert all(len(row) == len(table.head) for row in table.rows)


@pytest.mark.parametrize(
    ("chips", "options", "message"),
    [
        ([], {}, "chips: must be one or more of different names, got none"),
        (["brein", "brein"], {}, "chips: must be one or more of different names, got brein, brein"),
        (["brein"], {"engine": "execute"}, "engine: must be one of estimate, simulate, got 'execute'"),
        (["brein"], {"technology": "3nm"}, "technology: the node must be from 7 to 180 nm, got 3 nm"),
        ([load_machine("xnor-sram", {"technology.supply_V": 0.3})], {"technology": "32nm"},
         "chips: must be able to run tiny, got xnor-sram: technology: 65 nm: the supply must be from 0.5 to 1.32 V to "
         "scale delay, got 0.3 V; the published fits do not reach further"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_be_made(graph, chips, options, message):
    with pytest.raises(ConfigError) as error:
        imcsim.compare(graph, chips, **options)
    assert str(error.value) == message


def test_a_change_goes_to_every_chip_that_has_the_key_or_to_the_one_that_is_named():
    chip, v100, brein = load_changed(
        ["tim-dnn", "v100", "brein"], ["n_tiles=8", "peak.macs_per_ns=100", "v100:memory.batch=4"]
    )
    assert (chip.n_tiles, v100.peak.macs_per_ns, brein.peak.macs_per_ns, v100.memory.batch) == (8, 100, 100, 4)
    assert v100.peak.basis == "assumed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tile.count_max=3", "tile.count_max: must be a key of a chip that is compared, got v100, brein"),
        ("cutie:peak.macs_per_ns=3", "cutie:peak.macs_per_ns=3: must change a chip that is compared (v100, brein), "
         "got 'cutie'"),
        ("v100:peak.x=3", "peak.x: no such field in PeakRate"),
    ],
)  # fmt: skip
def test_a_change_that_reaches_nobody_is_refused(change, message):
    with pytest.raises(ConfigError) as error:
        load_changed(["v100", "brein"], [change])
    assert str(error.value) == message
