import numpy as np
import pytest

from imcsim.analytic import estimate
from imcsim.costs.activity import Activity, bitline_energies, relative_energy
from imcsim.costs.price import price
from imcsim.mapping.place import place
from imcsim.sim import simulate

near = pytest.approx


def without_circuit(chip):
    return chip.model_copy(update={"circuit": None})


def test_without_a_circuit_the_energy_is_proportional_to_the_discharges(tiny_chip):
    chip = without_circuit(tiny_chip)  # blocks of 4 rows, 36 % of the products not zero: 1.44 discharges a read
    assert bitline_energies(chip).tolist() == [0, 1, 2, 3, 4]
    n, k = np.array([0, 0, 1, 0, 0]), np.array([0, 1, 0, 0, 0])
    assert relative_energy(chip, n, k) == near(3 / 1.44)


def test_with_a_circuit_a_further_discharge_takes_less_than_the_one_before(tiny_chip):
    steps = np.diff(bitline_energies(tiny_chip))
    assert (steps > 0).all()
    assert steps[-1] < steps[0]


def test_nothing_read_is_as_the_chip_file_says(tiny_chip):
    assert relative_energy(tiny_chip, np.zeros(5, int), np.zeros(5, int)) == 1


def test_only_the_bitlines_of_the_layer_follow_and_the_rows_say_so(tiny_chip, tiny_graph):
    plan, costs = place(tiny_graph, tiny_chip), price(tiny_chip)
    activity = Activity(relative_energy={"conv": 0.5})
    for engine in (estimate, simulate):
        plain, halved = engine(plan, costs), engine(plan, costs, activity=activity)
        changed = [(a, b) for a, b in zip(plain.to_rows(), halved.to_rows(), strict=True) if a.energy_pJ != b.energy_pJ]
        assert [(a.layer, a.component) for a, _ in changed] == [("conv", "tile.bitlines")]
        ((a, b),) = changed
        assert b.energy_pJ == near(a.energy_pJ / 2)
        assert b.source == f"{a.source}; x 0.5 by the discharges gathered"
        assert plain.energy_pJ - halved.energy_pJ == near(a.energy_pJ / 2)
