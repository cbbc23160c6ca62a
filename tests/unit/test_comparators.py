"""Models of machines to compare with: hand-made layers, literal answers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.arch.comparators import Comparator, PopcountCpu
from imcsim.arch.load import load_machine, shipped_chips
from imcsim.comparators import assess
from imcsim.comparators.work import held_as, works_of
from imcsim.errors import ConfigError, MappingError
from imcsim.graph.formats import BINARY, TERNARY, unsigned
from imcsim.graph.outline import Outline, Weights

BINARY_WEIGHTS, TERNARY_WEIGHTS = Weights(zero_fraction=0), Weights(zero_fraction=0.25)


def linear(n_inputs, n_outputs, *, weights=TERNARY_WEIGHTS, codes=TERNARY):
    net = Outline("fc", (n_inputs, 1, 1), weights=weights, input_codes=codes)
    return net.graph(net.linear("fc", net.flatten("flatten", net.input), n_outputs, codes=False))


def convolutions(*widths, size=8, codes=TERNARY):
    net = Outline("net", (widths[0], size, size), weights=TERNARY_WEIGHTS, activations=codes, input_codes=codes)
    x = net.input
    for i, width in enumerate(widths[1:]):
        x = net.conv(f"conv{i}", x, width, 3, padding=1)
    return net.graph(x)


def passes(chip, graph, **changes):
    """Products for each multiply-add of the one layer of *graph*, and the words that tell how."""
    (layer,) = assess(graph, load_machine(chip, {k.replace("__", "."): v for k, v in changes.items()})).layers
    return layer.n_products / layer.n_macs, layer.how.split(";")[0]


# What the same network is on each machine


@pytest.mark.parametrize(
    ("weights", "codes", "brein", "gap8"),
    [
        (BINARY_WEIGHTS, BINARY, (1, "1 binary x 1 binary"), 1),
        (BINARY_WEIGHTS, TERNARY, (1, "1 binary x 1 ternary"), 2),
        (TERNARY_WEIGHTS, TERNARY, (1, "1 ternary x 1 ternary"), 4),
        (TERNARY_WEIGHTS, unsigned(2), (2, "1 ternary x 2 bit"), 4),
        (Weights(zero_fraction=0.4, n_planes=3), unsigned(4), (12, "3 ternary x 4 bit"), 24),
        (Weights(zero_fraction=0.4, minus=2.0), TERNARY, (2, "2 binary x 1 ternary for 2 bit x 1 ternary"), 4),
    ],
)
def test_a_layer_costs_its_pairs_of_planes_and_four_times_that_where_ternary_is_two_binary(weights, codes, brein, gap8):
    graph = linear(32, 8, weights=weights, codes=codes)
    assert passes("brein", graph) == brein
    assert passes("gap8-xor-net", graph)[0] == gap8
    assert passes("neural-cache", graph) == (1, "words")


@pytest.mark.parametrize("chip", [name for name in shipped_chips() if isinstance(load_machine(name), Comparator)])
def test_twice_the_activation_planes_are_twice_the_products_wherever_planes_are_multiplied(chip):
    machine = load_machine(chip)
    if isinstance(machine, PopcountCpu):
        machine = machine.model_copy(update={"words": None})
    one, two = (assess(convolutions(8, 8, 8, codes=unsigned(bits)), machine) for bits in (2, 4))
    times = 1 if machine.operands.arithmetic == "words" else 2
    for few, many in zip(one.layers, two.layers, strict=True):
        assert many.n_products == times * few.n_products
    assert two.energy_pJ >= one.energy_pJ > 0
    assert two.latency_ns >= one.latency_ns > 0


def test_digits_of_three_values_are_fewer_than_bits_where_a_machine_takes_them():
    graph = linear(32, 8, codes=unsigned(8))
    assert passes("cutie", graph)[0] == 8
    assert passes("cutie", graph, operands__serial="trit") == (6, "1 ternary x 6 ternary")


def test_planes_are_sums_of_the_planes_that_are_held():
    assert held_as(("ternary",), ("bit",)) == ("bit", 2)
    assert held_as(("binary", "binary"), ("bit", "ternary")) == ("bit", 2)
    assert held_as(("bit",), ("binary",)) == ("binary", 1)


def test_layers_that_need_several_planes_are_refused_by_name_where_none_are_added():
    machine = load_machine("xnor-sram", {"operands.adds_planes": False})
    assert assess(linear(32, 8, weights=BINARY_WEIGHTS), machine).latency_ns > 0
    message = (
        r"^xnor-sram: must get one plane of binary weights by binary or ternary inputs a layer, "
        r"got conv0 \(2 binary x 1 ternary for 1 ternary x 1 ternary\), conv1 \(.*\)$"
    )
    with pytest.raises(MappingError, match=message):
        assess(convolutions(4, 8, 8), machine)


def test_a_network_without_products_cannot_be_compared():
    net = Outline("none", (3, 8, 8), weights=TERNARY_WEIGHTS)
    with pytest.raises(MappingError, match=r"^none: must have a layer with a product to be compared, got none$"):
        assess(net.graph(net.flatten("flatten", net.input)), load_machine("brein"))


# Processors


CPU = {"cores.word_bits": 32, "issue.utilization": 0.5, "overhead.output_cycles": 2.0, "overhead.input_cycles": 3.0,
       "clock.clock_GHz": 2.0, "power.power_mW": 10.0, "words.macs_per_cycle": 0.001}  # fmt: skip


def test_a_word_takes_its_instructions_and_a_begun_word_is_a_whole_one():
    found = assess(linear(40, 8), load_machine("dabnn-pixel1", CPU))
    cycles = 8 * 2 * (3 / 2 + 2 / 2 + 2 / 2) / 0.5 + 2 * 8 + 3 * 40
    assert found.latency_ns == pytest.approx(cycles / 2)
    assert found.energy_pJ == pytest.approx(10 * cycles / 2)
    assert found.throughput_per_s == pytest.approx(1e9 / (cycles / 2))


def test_each_further_core_adds_its_share():
    one, many = (assess(linear(64, 8), load_machine("dabnn-pixel1", CPU | {
        "overhead.output_cycles": 0.0, "overhead.input_cycles": 0.0, "cores.n_cores": n, "cores.scaling": 0.5,
    })) for n in (1, 5))  # fmt: skip
    assert one.latency_ns == pytest.approx(3 * many.latency_ns)


def test_a_layer_goes_by_whole_words_where_that_is_quicker():
    quick = assess(linear(40, 8), load_machine("dabnn-pixel1", CPU | {"words.macs_per_cycle": 100.0}))
    assert (quick.latency_ns, quick.layers[0].how) == (pytest.approx(40 * 8 / 100 / 2), "words")


# FPGAs


def fpga(n_lanes, **changes):
    told = {"lanes.n_lanes": n_lanes, "fabric.luts_per_lane": 1.0, "clock.clock_GHz": 0.5, "static.power_mW": 3.0}
    return load_machine("fpga-tnn-fpl2017", told | {"energy.energy_pJ_per_mac": 2.0} | changes)


def test_the_slowest_layer_says_how_many_images_a_second():
    found = assess(convolutions(4, 8, 16), fpga(4 * 8 + 8 * 16))  # every channel at once, the window in 9 turns
    assert [layer.latency_ns for layer in found.layers] == [8 * 8 * 9 / 0.5] * 2
    assert found.throughput_per_s == pytest.approx(1e9 * 0.5 / (64 * 9))
    n_macs = 64 * 9 * (4 * 8 + 8 * 16)
    assert found.energy_pJ == pytest.approx(2 * n_macs + 3 * 64 * 9 / 0.5)


def test_lanes_that_open_the_window_make_it_quicker():
    found = assess(convolutions(4, 8), fpga(9 * 4 * 8, **{"lanes.unrolls_window": True}))
    assert found.throughput_per_s == pytest.approx(1e9 * 0.5 / 64)


def test_channels_that_are_convolved_one_by_one_have_lanes_side_by_side():
    net = Outline("net", (16, 8, 8), weights=TERNARY_WEIGHTS, input_codes=TERNARY)
    x = net.conv("conv", net.input, 16, 3, padding=1, groups=-1, codes=False)
    found = assess(net.graph(x), fpga(16))
    assert (found.layers[0].latency_ns, found.layers[0].n_macs) == (8 * 8 * 9 / 0.5, 8 * 8 * 9 * 16)


def test_planes_of_activations_take_turns_or_lanes():
    two = convolutions(4, 8, codes=unsigned(2))
    together, in_turn = (assess(two, fpga(64, **{"lanes.serial_planes": n})) for n in (1, 2))
    assert in_turn.throughput_per_s == pytest.approx(together.throughput_per_s / 2)
    assert (together.notes[0].split()[0], in_turn.notes[0].split()[0]) == ("64", "32")


def test_a_network_with_more_planes_than_lanes_is_refused():
    with pytest.raises(MappingError, match=r"^fpga-tnn-fpl2017: must have a lane for each .* layer, 3, got 2$"):
        assess(convolutions(4, 8, 8, 8), fpga(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 3000), st.integers(1, 3000), st.lists(st.integers(1, 40), min_size=2, max_size=4))
def test_more_lanes_are_never_slower_and_never_exceeded(n_lanes, more, widths):
    graph = convolutions(*widths, size=4)
    few, many = (assess(graph, fpga(n)) for n in (n_lanes, n_lanes + more))
    assert many.throughput_per_s >= few.throughput_per_s
    assert int(few.notes[0].split()[0]) <= n_lanes
    least = max(work.n_vectors * work.window for work in works_of(graph))
    n_macs = sum(layer.n_macs for layer in few.layers)
    assert 0.5e9 / few.throughput_per_s >= max(least, n_macs / n_lanes) * (1 - 1e-12)


# Spikes, events, roofs


def test_cores_are_counted_by_inputs_outputs_and_positions():
    graph = linear(300, 500, codes=unsigned(1))  # 3 cores of 128 inputs by 2 of 256 neurons
    changes = {"tick.ticks_per_s": 1000.0, "power.static_mW": 4.0, "power.energy_pJ_per_core_tick": 5.0}
    found = assess(graph, load_machine("truenorth-eedn", changes | {"grid.n_cores": 4}))
    assert found.layers[0].how == "1 ternary x 1 bit; 6 cores"
    assert (found.n_chips, found.area_um2) == (2, 2 * 430e6)
    assert found.energy_pJ == pytest.approx(6 * 5 + 2 * 4 * 1e6)
    assert found.latency_ns == pytest.approx(1e6)
    assert "partial sums could be joined at no cost, which spikes cannot: fc" in found.notes[-1]


def test_small_windows_share_a_core_and_planes_take_ticks():
    net = Outline("net", (1, 8, 8), weights=TERNARY_WEIGHTS, input_codes=unsigned(3))
    found = assess(net.graph(net.conv("conv", net.input, 32, 3, codes=False)), load_machine("truenorth-eedn"))
    assert found.layers[0].how == "1 ternary x 3 bit; 5 cores"  # 36 positions, 256 / 32 = 8 to a core
    assert found.throughput_per_s == pytest.approx(1249 / 3)


def test_time_steps_follow_each_other_on_the_same_cores():
    net = Outline("net", (60, 1, 7), weights=TERNARY_WEIGHTS, input_codes=unsigned(1))
    found = assess(net.graph(net.recurrent("lstm", "lstm", net.input, 60)), load_machine("truenorth-eedn"))
    assert found.layers[0].how == "1 ternary x 1 bit; 1 cores"  # 120 inputs, 240 outputs
    assert found.throughput_per_s == pytest.approx(1249 / 7)


def test_products_with_a_zero_rest():
    changes = {"events.active_pJ": 8.0, "events.resting_pJ": 1.0, "density.ternary": 0.5, "units.n_units": 16,
               "clock.clock_GHz": 2.0}  # fmt: skip
    found = assess(linear(32, 8), load_machine("gxnor-event-driven", changes))
    active = 0.75 * 0.5
    assert found.energy_pJ == pytest.approx(256 * (8 * active + 1 - active))
    assert found.latency_ns == 256 / 16 / 2


def test_a_roofline_is_the_slower_of_peak_and_memory():
    changes = {"launch.latency_ns": 0.0, "peak.macs_per_ns": 1.0, "memory.bits_per_ns": 16.0, "power.power_mW": 2.0}
    moved = 32 * 8 + 32 + 8  # numbers of 16 bits
    found = assess(linear(32, 8), load_machine("v100", changes))
    assert (found.latency_ns, found.energy_pJ) == (moved, 2 * moved)
    assert found.layers[0].how == "words; bound by memory"
    shared = assess(linear(32, 8), load_machine("v100", changes | {"memory.batch": 4, "launch.latency_ns": 4.0}))
    assert shared.layers[0].how == "words; bound by peak"
    assert shared.throughput_per_s == pytest.approx(1e9 / (256 + 1))
    assert shared.latency_ns == pytest.approx(4 * (256 + 1))


def test_the_basis_of_a_figure_is_the_weakest_behind_it():
    found = assess(linear(32, 8), load_machine("brein"))
    assert found.basis == {"latency": "assumed", "energy": "derived", "area": "recalled"}


# Files


@pytest.mark.parametrize(
    ("chip", "changes", "message"),
    [
        ("rebnet-fpga", {"operands.serial": "trit"},
         "operands.serial: must be bit where activations are binary or bit, got trit"),
        ("rebnet-fpga", {"lanes.n_lanes": 10**6},
         "lanes.n_lanes: must fit into the 53200 LUTs at 12 a lane, got 1000000"),
        ("rebnet-fpga", {"operands.activations": ["bit", "trinary"]},
         "operands.activations.1: must be one of binary, ternary, bit, got 'trinary'; did you mean 'ternary'?"),
        ("rebnet-fpga", {"operands.weights": []}, "operands.weights: must hold at least 1, got 0"),
        ("rebnet-fpga", {"operands.weights": 5}, "operands.weights: must be a list, got 5"),
        ("rebnet-fpga", {"lanes.folding": [{"n_outputs": 0, "n_inputs": 1}]},
         "lanes.folding.0.n_outputs: must be at least 1, got 0"),
        ("gap8-xor-net", {"operands.weights": ["bit"]},
         "instructions: must have bitxbinary, as operands says, got binaryxbinary, binaryxternary, ternaryxbinary, "
         "ternaryxternary, binaryxbit, ternaryxbit"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_hold_says_where(chip, changes, message):
    with pytest.raises(ConfigError) as error:
        load_machine(chip, changes)
    assert str(error.value).removeprefix("arch/parts/popcount.yaml: ") == message
