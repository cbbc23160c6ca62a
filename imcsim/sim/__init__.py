"""How long it takes: programs played with contention, by SimPy."""

from imcsim.costs.activity import Activity
from imcsim.costs.price import price
from imcsim.costs.table import CostTable
from imcsim.errors import SimulationError
from imcsim.mapping.lower import Phase, lower
from imcsim.mapping.plan import Plan
from imcsim.sim.engine import Span, play
from imcsim.sim.service import Service, serve
from imcsim.sim.trace import Trace

__all__ = ["Service", "Span", "Trace", "play", "serve", "simulate"]


def simulate(
    plan: Plan,
    costs: CostTable | None = None,
    *,
    burst: int | None = None,
    phase: Phase = "inference",
    seed: int = 0,
    activity: Activity | None = None,
) -> Trace:
    """Play one inference of *plan* (or its setup) and return the trace.

    Args:
        plan: What goes where and when.
        costs: Costs of the plan's chip; priced anew if not given.
        burst: Items of one event; 1 plays every access. By default each task is cut into 16 bursts.
        phase: "inference", or "setup": the writing of resident weights, which only a spatial plan has.
        seed: Named in the rows; nothing here is random.
        activity: What the bitlines of each layer spend, relative to the chip file, and which share of its accesses
            drives no input; a chip that skips those is taken to skip none where nothing is said.

    Raises:
        SimulationError: *burst* is less than 1.
        ConfigError: *activity* gives an idle share for something else than a layer on tiles.
    """
    if burst is not None and burst < 1:
        raise SimulationError(f"burst: must be at least 1, got {burst}")
    costs = costs or price(plan.chip)
    if activity is not None:
        plan = plan.skipping(activity.idle_share)
    program = lower(plan, costs, phase=phase)
    return Trace(plan, program, costs, tuple(play(program, burst=burst)), seed, phase, activity, burst)
