"""The formulas against the event engine on whole networks that are told by their shapes."""

import pytest

from imcsim.analytic import estimate
from imcsim.arch.load import load_chip
from imcsim.mapping.place import place
from imcsim.sim import simulate
from imcsim.workloads import load_workload


@pytest.mark.parametrize("workload", ["resnet18", "resnet20-cifar", "gru-ptb"])
def test_an_estimate_is_within_5_percent_of_the_simulation(workload):
    plan = place(load_workload(workload), load_chip("tim-dnn"), style="temporal")
    formula, played = estimate(plan), simulate(plan)
    assert formula.latency_ns == pytest.approx(played.latency_ns, rel=0.05)
    assert formula.energy_pJ == pytest.approx(played.energy_pJ, rel=0.05)
    assert formula.counts == played.counts
    assert formula.bounds.least_ns <= played.latency_ns * (1 + 1e-9)
    assert played.latency_ns <= formula.bounds.greatest_ns


@pytest.mark.parametrize("workload", ["alexnet", "resnet34", "bn-inception"])
def test_a_network_of_twice_the_width_has_four_times_the_weights_in_every_inner_layer(workload):
    narrow, wide = load_workload(workload), load_workload(f"{workload}-2x")
    assert [op.name for op in wide.ops] == [op.name for op in narrow.ops]
    inner = narrow.products[1:-1]
    for op in narrow.products:
        other = next(each for each in wide.products if each.name == op.name)
        times = 4 if op in inner else 2  # the pixels and the classes stay as many
        assert other.product.n_weights == times * op.product.n_weights, op.name
        assert wide.n_macs(other) == times * narrow.n_macs(op), op.name
    assert wide.tensors[wide.output].shape == narrow.tensors[narrow.output].shape
