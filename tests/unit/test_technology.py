"""Scaling between nodes: the laws that factors and fits keep, and what is said of nodes and supplies beyond them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imcsim.costs.technology import (
    AREAS,
    FITS,
    NODES,
    POWERS,
    Process,
    area_factor,
    delay_factor,
    energy_factor,
    normalized,
    polynomial,
    process,
)
from imcsim.errors import ConfigError

nodes = st.builds(Process, st.floats(7, 180) | st.sampled_from(NODES), kind=st.sampled_from(["HP", "LP"]))
"""Any node at its nominal supply."""


@given(nodes, nodes)
def test_there_and_back_is_where_one_was(source, target):
    assert energy_factor(source, target) * energy_factor(target, source) == pytest.approx(1)
    assert delay_factor(source, target) * delay_factor(target, source) == pytest.approx(1)
    # areas are printed to two digits: each is off by at most 1 in 20, as 0.1 x 9.8 is
    assert area_factor(source, target) * area_factor(target, source) == pytest.approx(1, abs=0.06)


@given(nodes, nodes)
def test_figures_scale_as_the_quantities_that_they_are_made_of(source, target):
    def times(figure):
        return normalized(figure, 1.0, source, target)

    assert times("power") == pytest.approx(times("energy") / times("latency"))
    assert times("power") == pytest.approx(times("throughput") / times("energy_efficiency"))
    assert times("area_efficiency") == pytest.approx(times("throughput") / times("area"))
    assert times("energy_delay") == pytest.approx(times("energy") * times("latency"))
    assert all(normalized(figure, 7.0, source, source) == 7.0 for figure in POWERS)


@pytest.mark.parametrize(("node", "kind"), FITS)
def test_where_a_fit_is_said_to_hold_it_behaves_as_a_gate_does(node, kind):
    fit = FITS[node, kind]
    assert fit.energy_V[0] <= fit.nominal_V <= fit.energy_V[1]
    assert fit.delay_V[0] <= fit.nominal_V <= fit.delay_V[1]
    assert max(*fit.energy_V, *fit.delay_V) <= 1.2 * fit.nominal_V + 1e-9
    energies, delays = sampled(fit.energy, fit.energy_V), sampled(fit.delay, fit.delay_V)
    assert energies == sorted(energies)
    assert min(*energies, *delays) > 0
    assert all(later < 1.15 * min(delays[:i]) for i, later in enumerate(delays) if i)


def sampled(coefficients, supplies):
    low, high = supplies
    return [polynomial(coefficients, low + (high - low) * step / 200) for step in range(201)]


def test_areas_shrink_from_node_to_node():
    assert all(list(row) == sorted(row, reverse=True) for row in AREAS.values())
    assert list(AREAS) == list(NODES)


def test_a_node_between_two_lies_between_them():
    at_32, at_28, at_20 = (energy_factor(Process(45, 0.9), Process(node, 0.9)) for node in (32, 28, 20))
    assert at_20 < at_28 < at_32
    assert 0.46 > area_factor(Process(45), Process(28)) > 0.21


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("32nm", Process(32)),
        ("32 nm", Process(32)),
        ("32nm-LP@0.8V", Process(32, 0.8, "LP")),
        ("6.9nm", r"technology: the node must be from 7 to 180 nm, got 6\.9 nm$"),
        ("7", r"technology: must be a node and may name kind and supply, as 32nm, 32nm-LP or 32nm@0\.8V, got '7'$"),
        ("3.2.1nm", r"technology: must be a node .*, got '3\.2\.1nm'$"),
    ],
)
def test_a_process_is_named_by_a_word(text, meant):
    if isinstance(meant, Process):
        assert process(text) == meant
    else:
        with pytest.raises(ConfigError, match=meant):
            process(text)


def test_a_supply_beyond_the_fits_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"^technology: 32 nm: the supply must be from 0\.4 to 0\.9 V to scale delay, got 1 V; the published fits "
        r"do not reach further$",
    ):
        normalized("latency", 1.0, Process(45), Process(32, 1.0))
    assert normalized("energy", 1.0, Process(45), Process(32, 1.0)) > 0
    with pytest.raises(
        ConfigError, match=r"^technology: 28 nm: the supply must be from 0\.4 to 1\.08 V to scale energy"
    ):
        normalized("energy", 1.0, Process(28, 1.2), Process(32))
