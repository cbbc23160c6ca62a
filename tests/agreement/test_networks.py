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
