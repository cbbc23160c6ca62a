"""What machines to compare with print of themselves, against their models; the file says which figures were fitted."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from imcsim.arch.comparators import Comparator
from imcsim.arch.load import load_machine, shipped_chips
from imcsim.comparators import assess
from imcsim.graph.formats import BINARY, TERNARY, unsigned
from imcsim.graph.outline import Outline, Weights

PRINTED = yaml.safe_load(Path(__file__).with_name("comparators.yaml").read_text())
BINARY_WEIGHTS, TERNARY_WEIGHTS = Weights(zero_fraction=0), Weights(zero_fraction=0.4)
WORDS = Weights(zero_fraction=0.1, n_planes=7)
"""Weights in 8 bits: layers that a library of binary networks keeps in floats."""


def binary_conv(size, n_inputs, n_outputs, kernel, stride=1):
    net = Outline("conv", (n_inputs, size, size), weights=BINARY_WEIGHTS, input_codes=BINARY)
    x = net.conv("conv", net.input, n_outputs, kernel, stride=stride, padding=kernel // 2, codes=False)
    return net.graph(x)


def bireal18():
    """Bi-Real-18: the first convolution, the shortcuts and the last layer in floats."""
    net = Outline("bireal18", (3, 224, 224), weights=BINARY_WEIGHTS, activations=BINARY)
    x = net.conv("conv1", net.input, 64, 7, stride=2, padding=3, weights=WORDS)
    x = net.max_pool("pool", x, 3, 2, 1)
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(4):
            stride = 2 if stage and not block else 1
            shortcut = x
            if stride == 2:
                net.activations = unsigned(8)
                shortcut = net.average_pool(f"mean{stage}", x, 2, 2)
                shortcut = net.conv(f"shortcut{stage}", shortcut, width, 1, codes=False, weights=WORDS)
                net.activations = BINARY
            x = net.conv(f"conv{stage}.{block}", x, width, 3, stride=stride, padding=1,
                         add=shortcut if stride == 2 else None)  # fmt: skip
    net.activations = unsigned(8)
    return net.graph(net.linear("linear", net.average("mean", x), 1000, codes=False, weights=WORDS))


def vgg16():
    net = Outline("vgg16", (3, 224, 224), weights=BINARY_WEIGHTS, activations=BINARY)
    x = net.input
    for stage, (n, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for i in range(n):
            x = net.conv(f"conv{stage}.{i}", x, width, 3, padding=1)
        x = net.max_pool(f"pool{stage}", x, 2, 2)
    x = net.flatten("flatten", x)
    for i in range(2):
        x = net.linear(f"fc{i}", x, 4096)
    return net.graph(net.linear("fc2", x, 1000, codes=False))


def tnn_cifar(width):
    """The networks of FPL 2017, recalled: two convolutions of each width, three widths, three linear layers."""
    net = Outline("tnn", (3, 32, 32), weights=TERNARY_WEIGHTS, activations=TERNARY, input_codes=TERNARY)
    x = net.input
    for stage in range(3):
        for i in range(2):
            x = net.conv(f"conv{stage}.{i}", x, width << stage, 3, padding=1)
        x = net.max_pool(f"pool{stage}", x, 2, 2)
    x = net.flatten("flatten", x)
    for i in range(2):
        x = net.linear(f"fc{i}", x, 8 * width)
    return net.graph(net.linear("fc2", x, 10, codes=False))


def tnn_mnist():
    net = Outline("tnn", (784, 1, 1), weights=TERNARY_WEIGHTS, activations=TERNARY, input_codes=TERNARY)
    x = net.flatten("flatten", net.input)
    for i in range(3):
        x = net.linear(f"fc{i}", x, 750)
    return net.graph(net.linear("fc3", x, 10, codes=False))


def cnv(n_planes):
    """FINN's CIFAR-10 network, with activations of *n_planes* planes."""
    codes = BINARY if n_planes == 1 else unsigned(n_planes)
    net = Outline("cnv", (3, 32, 32), weights=BINARY_WEIGHTS, activations=codes)
    x = net.input
    for stage, width in enumerate((64, 128, 256)):
        for i in range(2):
            x = net.conv(f"conv{stage}.{i}", x, width, 3)
        x = net.max_pool(f"pool{stage}", x, 2, 2) if stage < 2 else x
    x = net.flatten("flatten", x)
    for i in range(2):
        x = net.linear(f"fc{i}", x, 512)
    return net.graph(net.linear("fc2", x, 10, codes=False))


def cores(height, width):
    """A layer that takes a core of TrueNorth for each of its output positions: 126 inputs, 256 outputs."""
    net = Outline("cores", (14, height + 2, width + 2), weights=TERNARY_WEIGHTS, input_codes=unsigned(1))
    return net.graph(net.conv("conv", net.input, 256, 3, codes=False))


def ternary_conv(zero_fraction, n_inputs=256):
    net = Outline("conv", (n_inputs, 28, 28), weights=Weights(zero_fraction=zero_fraction), input_codes=TERNARY)
    return net.graph(net.conv("conv", net.input, 512, 3, padding=1, codes=False))


@cache
def assessed(chip, network, of, changes):
    return assess(globals()[network](*of), load_machine(chip, dict(changes)))


def of_row(row, chip=None):
    return assessed(chip or row["chip"], row["network"], tuple(row.get("of", ())), tuple(row.get("set", {}).items()))


def figure(row):
    found = of_row(row)
    clock = getattr(found.machine, "clock", None)
    n_products, n_macs = (sum(getattr(layer, name) for layer in found.layers) for name in ("n_products", "n_macs"))
    tops = 2 * n_products / found.latency_ns / 1e3
    match row["figure"]:
        case "ms":
            return found.latency_ns / 1e6
        case "cycles":
            return found.latency_ns * clock.clock_GHz
        case "layer_cycles":
            return [layer.latency_ns * clock.clock_GHz for layer in found.layers[: len(row["printed"])]]
        case "times_dabnn":
            return found.latency_ns / of_row(row, "dabnn-pixel1").latency_ns
        case "speedup_over_words":
            return n_macs / (found.machine.words.macs_per_cycle * clock.clock_GHz) / found.latency_ns
        case "throughput_per_s":
            return found.throughput_per_s
        case "macs_per_ns":
            return n_macs * found.throughput_per_s / 1e9
        case "million_macs":
            return n_macs / 1e6
        case "lanes_share":
            n_lanes = int(found.notes[0].split()[0])
            return n_lanes * found.machine.fabric.luts_per_lane / found.machine.fabric.n_luts
        case "power_mW":
            return found.energy_pJ * found.throughput_per_s / 1e9
        case "energy_uJ":
            return found.energy_pJ / 1e6
        case "throughput_per_s_per_W":
            return 1e12 / found.energy_pJ
        case "active_share":
            active, resting = found.machine.events.active_pJ, found.machine.events.resting_pJ
            return (found.energy_pJ / n_products - resting) / (active - resting)
        case "TOPS":
            return tops
        case "TOPS_per_W":
            return 2 * n_products / found.energy_pJ
        case "TOPS_per_mm2":
            return tops / (found.area_um2 / 1e6)


@pytest.mark.parametrize(
    "row",
    PRINTED["figures"],
    ids=lambda row: f"{row['chip']}-{row['network']}-{row['figure']}-{row.get('printed', '')}",
)
def test_a_machine_gives_what_is_printed_of_it(row):
    if "between" in row:
        low, high = row["between"]
        assert low <= figure(row) <= high
    else:
        assert figure(row) == pytest.approx(row["printed"], rel=row["within"])


def test_every_machine_to_compare_with_is_held_against_print():
    held = {row["chip"] for row in PRINTED["figures"]} | set(PRINTED["no_absolute_figures"])
    assert held == {name for name in shipped_chips() if isinstance(load_machine(name), Comparator)}
