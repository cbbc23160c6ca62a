"""Macros: figures in literal numbers, and what is said of files that do not hold together."""

import pytest

from imcsim.arch.load import load_machine, vary
from imcsim.costs.macro import macro_figures
from imcsim.costs.technology import Process, energy_factor
from imcsim.errors import ConfigError

COLONNADE = load_machine("macro-colonnade")
T8T = load_machine("macro-t8t-sram")


def figures_of(macro):
    return {figure.name: figure for figure in macro_figures(macro)}


def test_the_figures_of_parts_follow_from_array_cycle_energy_and_area():
    found = figures_of(COLONNADE)
    assert found["TOPS"].value == 2 * 128 * 16 / 10 / 1000
    assert found["TOPS_per_W"].value == pytest.approx(2 / 0.068317)
    assert found["TOPS_per_mm2"].value == pytest.approx(0.4096 / 0.2272)


def test_another_supply_scales_energy_and_nothing_else_of_it():
    found = figures_of(COLONNADE)
    ratio = found["cycle_pJ@700mV"].value / found["cycle_pJ"].value
    assert ratio == pytest.approx(energy_factor(Process(65, 0.8), Process(65, 0.7)))
    assert found["TOPS_per_W@700mV"].value * found["cycle_pJ@700mV"].value == pytest.approx(4096)


def test_fewer_products_that_are_not_zero_take_less_energy():
    found = figures_of(T8T)
    dense, middle, sparse = (found[f"tile_TOPS_per_W{name}"].value for name in ("@dense", "", "@sparse"))
    assert dense < middle < sparse
    factor = energy_factor(Process(32, 0.9), Process(28, 0.9))
    assert sparse == pytest.approx(8192 / (17 + 0.38 + 0.28) / factor)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("macro-colonnade", {"figures.GOPS": {"value": 1, "unit": "", "basis": "assumed", "source": "x"}},
         r"macro-colonnade: figures: must be one of TOPS, .*, got 'GOPS'"),
        ("macro-colonnade", {"points.300mV": {"supply_V": 0.3, "basis": "assumed", "source": "x"}},
         r"technology: 65 nm: the supply must be from 0\.5 to 1\.32 V to scale delay, got 0\.3 V"),
        ("macro-t8t-sram", {"array.n_outputs": 64},
         r"tile\.changes: must make an access of array\.n_inputs x array\.n_outputs \(16 x 64\), got 16 x 256"),
        ("macro-t8t-sram", {"tile": None}, r"energies: must be given, or a tile or adders .*, got none"),
        ("macro-cheon-10t", {"points": {"low": {"supply_V": 0.7, "basis": "assumed", "source": "x"}}},
         r"technology\.supply_V: must be given to scale from it to other points, got none"),
        ("macro-colonnade", {"fitted.TOPS": "x"}, r"fitted: must name figures, got 'TOPS'"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_hold_together_is_told_in_a_line(name, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        macro_figures(vary(load_machine(name), changes))
    assert "\n" not in str(caught.value)


def test_a_macro_takes_no_network():
    from imcsim.arch.load import load_chip

    with pytest.raises(ConfigError, match=r"must be .* to place a network on, got macro; imcsim chip show takes it"):
        load_chip("macro-colonnade")
