"""From the ranges that a chip file states to the interval of an energy."""

from collections.abc import Mapping

import numpy as np

from imcsim.costs.activity import Activity
from imcsim.costs.rows import share_of
from imcsim.costs.table import CostTable

N_DRAWS = 4000
SPAN = (0.05, 0.95)
"""Quantiles of the interval: nine draws in ten lie inside."""


def energy_interval_pJ(
    counts: Mapping[str, Mapping[str, int]],
    latency_ns: float,
    costs: CostTable,
    rng: np.random.Generator,
    activity: Activity | None = None,
) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles of the energy, when every stated range is taken seriously.

    A number that its source puts `within_factor` f of v is drawn from v / f to v * f, all ratios equally likely;
    numbers with one source move together, all others on their own. Numbers without a range stay.
    """
    weight: dict[tuple[str, float], float] = {}
    fixed = 0.0
    terms = [
        (n * cost.energy_pJ * share_of(action, layer, activity), cost.source, cost.within_factor)
        for layer, actions in counts.items()
        for action, n in actions.items()
        for cost in costs.by_action[action]
    ]
    terms += [(area.leakage_mW * latency_ns, f"leak: {area.source}", area.within_factor) for area in costs.areas]
    for energy_pJ, source, factor in terms:
        if factor is None:
            fixed += energy_pJ
        else:
            weight[source, factor] = weight.get((source, factor), 0.0) + energy_pJ
    energy = np.full(N_DRAWS, fixed)
    for (_, factor), energy_pJ in weight.items():
        energy += energy_pJ * factor ** rng.uniform(-1, 1, N_DRAWS)
    low, high = np.quantile(energy, SPAN)
    return float(low), float(high)
