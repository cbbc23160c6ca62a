"""What the time would be if a component took none: the same plan, played again with its actions free."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from imcsim.costs.table import CostTable, Timing
from imcsim.errors import SimulationError
from imcsim.sim import simulate
from imcsim.sim.trace import Trace

TOGETHER = {"tile.array+pcu": ("tile.array", "tile.pcu"), "tile.array+nmc": ("tile.array", "tile.nmc")}
"""The two stages of a tile together: they often keep the same pace, so that to free one of them helps nobody."""

_TILE_COMPONENT = {"tile.access": "tile.array", "tile.convert": "tile.pcu", "tile.multiply_add": "tile.nmc",
                   "tile.write_row": "tile.write"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """A trace without the time of one component."""

    component: str
    actions: tuple[str, ...]
    """What takes no time."""

    latency_ns: float

    added_ns: dict[str, float]
    """What each layer adds to the latency then."""


def component_of_action(action: str) -> str:
    """Return the component whose time an action takes; both ports of a buffer, and all lanes of the SFU, are one.

    >>> component_of_action("tile.write_row"), component_of_action("psum_buffer.read"), component_of_action("sfu.qu")
    ('tile.write', 'psum_buffer', 'sfu')
    """
    return _TILE_COMPONENT.get(action, action.partition(".")[0])


def free(costs: CostTable, actions: Iterable[str]) -> CostTable:
    """Return *costs* with *actions* that take no time; what they spend stays.

    Raises SimulationError for an action that has no time.
    """
    actions = tuple(actions)
    for action in actions:
        if action not in costs.timings:
            raise SimulationError(
                f"free: must be given actions that take time, got {action!r}; there are {', '.join(costs.timings)}"
            )
    return replace(costs, timings=costs.timings | {action: Timing(0.0, 0.0) for action in actions})


def what_if(trace: Trace, *, progress: Callable[[int, int], None] | None = None) -> dict[str, WhatIf]:
    """Play the plan of *trace* once more for each component at work in it, without that component's time.

    The two stages of the tiles are tried `TOGETHER` as well.
    *progress* is told how many of them are played, and how many there are.
    """
    spent = {action for actions in trace.program.actions.values() for action in actions}
    of_component: dict[str, list[str]] = {}
    for action in trace.costs.timings:
        if action in spent or f"{action}_one" in spent:  # n alone is converted in the time of both
            of_component.setdefault(component_of_action(action), []).append(action)
    for both, stages in TOGETHER.items():
        if of_component.keys() >= set(stages):
            of_component[both] = [action for stage in stages for action in of_component[stage]]
    found = {}
    for done, (component, actions) in enumerate(of_component.items(), start=1):
        costs = free(trace.costs, actions)
        other = simulate(trace.plan, costs, burst=trace.burst, phase=trace.phase, seed=trace.seed)
        found[component] = WhatIf(
            component=component, actions=tuple(actions), latency_ns=other.latency_ns, added_ns=other.added_ns
        )
        if progress is not None:
            progress(done, len(of_component))
    return found
