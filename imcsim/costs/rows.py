"""Counts of actions, and what they cost, as rows."""

from collections.abc import Iterator, Mapping

from imcsim.costs.activity import FOLLOWS, Activity
from imcsim.costs.table import CostTable
from imcsim.results import Identity, Row


def energy_rows(
    counts: Mapping[str, Mapping[str, int]],
    costs: CostTable,
    identity: Identity,
    *,
    phase: str,
    activity: Activity | None = None,
) -> Iterator[Row]:
    """Yield a row for each layer, action and component of *counts* (layer to action to count)."""
    for layer, actions in counts.items():
        for action, count in actions.items():
            share = share_of(action, layer, activity)
            for cost in costs.by_action[action] if count else ():
                yield identity.row(
                    phase=phase,
                    layer=layer,
                    component=cost.component,
                    action=action,
                    count=count,
                    energy_pJ=count * cost.energy_pJ * share,
                    basis=cost.basis,
                    source=cost.source if share == 1 else f"{cost.source}; x {share:.4g} by the discharges gathered",
                )


def leak_rows(latency_ns: Mapping[str, float], costs: CostTable, identity: Identity, *, phase: str) -> Iterator[Row]:
    """Yield what every component leaks while each layer adds its *latency_ns*."""
    for layer, time_ns in latency_ns.items():
        for area in costs.areas:
            if area.leakage_mW and time_ns:
                yield identity.row(
                    phase=phase,
                    layer=layer,
                    component=area.component,
                    action="leak",
                    count=1,
                    energy_pJ=area.leakage_mW * time_ns,
                    basis=area.basis,
                    source=area.source,
                )


def area_rows(costs: CostTable, identity: Identity) -> Iterator[Row]:
    """Yield the area of every component."""
    for area in costs.areas:
        yield identity.row(
            phase="inference",
            layer="",
            component=area.component,
            action="area",
            count=area.n_instances,
            area_um2=area.area_um2,
            basis=area.basis,
            source=area.source,
        )


def dynamic_energy_pJ(
    counts: Mapping[str, Mapping[str, int]], costs: CostTable, activity: Activity | None = None
) -> float:
    """Return the energy of all actions of all layers, without leakage."""
    return sum(
        (
            n * costs.energy_pJ(action) * share_of(action, layer, activity)
            for layer, actions in counts.items()
            for action, n in actions.items()
        ),
        0.0,
    )


def share_of(action: str, layer: str, activity: Activity | None) -> float:
    """Return the energy of *action* in *layer* relative to that of the chip file."""
    return activity.relative_energy.get(layer, 1.0) if activity is not None and action == FOLLOWS else 1.0
