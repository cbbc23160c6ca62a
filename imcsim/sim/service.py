"""Requests that arrive at a chip: when each begins and ends, how many a second leave, how long they wait.

A request is one inference of the plan (`n_samples` samples). Spatial and temporal plans take one after the other: a
request begins when the one before it has ended, a temporal one writes its weights anew, and nothing of two requests is
ever on the chip together, so that one inference played tells the time of each. A pipelined plan works at several: all
of them are played together (`imcsim.mapping.requests`).
"""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from imcsim.costs.activity import Activity
from imcsim.costs.price import price
from imcsim.costs.rows import dynamic_energy_pJ
from imcsim.costs.table import CostTable
from imcsim.errors import SimulationError
from imcsim.mapping.lower import lower
from imcsim.mapping.plan import Plan
from imcsim.mapping.program import Program
from imcsim.mapping.requests import lower_requests
from imcsim.sim.arrivals import NS_PER_S, poisson, require_arrivals
from imcsim.sim.engine import play
from imcsim.units import PS_PER_NS

LOADS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Offered loads of a sweep: shares of the rate that the formula says the chip can do."""

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True, eq=False)
class Service:
    """What happened to each request."""

    plan: Plan
    costs: CostTable
    once: Program
    """The tasks of one request."""

    arrivals_ps: np.ndarray
    """Whole picoseconds, as the two below (n)."""

    starts_ps: np.ndarray
    ends_ps: np.ndarray
    activity: Activity | None = None

    @property
    def n_requests(self) -> int:
        """How many there were."""
        return len(self.arrivals_ps)

    @cached_property
    def latencies_ns(self) -> np.ndarray:
        """From arrival to end of each request (n)."""
        return (self.ends_ps - self.arrivals_ps) / PS_PER_NS

    @cached_property
    def waits_ns(self) -> np.ndarray:
        """From arrival to the start of the first task of each request (n)."""
        return (self.starts_ps - self.arrivals_ps) / PS_PER_NS

    @property
    def makespan_ns(self) -> float:
        """From the first arrival to the last end."""
        return float(self.ends_ps.max() - self.arrivals_ps[0]) / PS_PER_NS

    @property
    def offered_per_s(self) -> float | None:
        """Requests that arrive in a second, by the gaps between them; None where all come at once."""
        return _rate(self.arrivals_ps)

    @property
    def throughput_per_s(self) -> float:
        """Requests that leave in a second, by the gaps between their ends; of one request: of its latency."""
        return _rate(np.sort(self.ends_ps)) or NS_PER_S * self.n_requests / self.makespan_ns

    @cached_property
    def busy_ns(self) -> dict[str, float]:
        """How long each unit works for one request, all its servers together."""
        busy: dict[str, float] = defaultdict(float)
        for task in self.once.tasks:
            busy[task.unit] += self.once.occupied_ps(task)
        return {unit: ps / PS_PER_NS for unit, ps in busy.items()}

    @property
    def busiest_unit(self) -> str:
        """The unit that works longest for a request."""
        return max(self.busy_ns, key=lambda unit: self.busy_ns[unit])

    def utilization(self, unit: str) -> float:
        """Return the share of the time, from the first arrival to the last end, that *unit* works."""
        return self.n_requests * self.busy_ns[unit] / self.makespan_ns

    @property
    def mean_in_system(self) -> float:
        """Requests that have arrived and not ended, on average over the time (Little's law)."""
        return float(self.latencies_ns.sum()) / self.makespan_ns

    @property
    def most_in_system(self) -> int:
        """The most requests that had arrived and not ended at one time."""
        ended = np.searchsorted(np.sort(self.ends_ps), self.arrivals_ps, side="right")
        return int((np.arange(1, self.n_requests + 1) - ended).max())

    @property
    def energy_pJ(self) -> float:
        """Of one request: its actions, and its share of what the chip leaks from the first arrival to the last end."""
        spent = dynamic_energy_pJ(self.once.actions, self.costs, self.activity)
        return spent + self.costs.leakage_mW * self.makespan_ns / self.n_requests

    @property
    def latency_summary(self) -> dict[str, float]:
        """Mean, percentiles (linear between requests) and greatest of the latencies, in ns."""
        found = {name: float(np.percentile(self.latencies_ns, share)) for name, share in PERCENTILES.items()}
        return {"mean": float(self.latencies_ns.mean()), **found, "greatest": float(self.latencies_ns.max())}

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says under ``requests``."""
        return {
            "n": self.n_requests,
            "offered_per_s": self.offered_per_s,
            "throughput_per_s": self.throughput_per_s,
            "latency_ns": self.latency_summary,
            "wait_ns": float(self.waits_ns.mean()),
            "mean_in_system": self.mean_in_system,
            "most_in_system": self.most_in_system,
            "busiest_unit": self.busiest_unit,
            "utilization": self.utilization(self.busiest_unit),
            "energy_pJ": self.energy_pJ,
        }

    def to_csv(self) -> str:
        """Return the requests as CSV text, a line each."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["arrival_ns", "start_ns", "end_ns", "latency_ns"])
        times = (self.arrivals_ps, self.starts_ps, self.ends_ps, self.ends_ps - self.arrivals_ps)
        writer.writerows([f"{ps / PS_PER_NS:.3f}" for ps in line] for line in zip(*times, strict=True))
        return text.getvalue()


def serve(
    plan: Plan,
    arrivals_ns: Sequence[float] | np.ndarray,
    costs: CostTable | None = None,
    *,
    burst: int | None = None,
    activity: Activity | None = None,
) -> Service:
    """Play requests that arrive at *arrivals_ns* (n), ascending, each one inference of *plan*.

    Args:
        plan: What goes where and when; its style says whether requests overlap.
        arrivals_ns: When each request arrives; `imcsim.sim.arrivals` makes them.
        costs: Costs of the plan's chip; priced anew if not given.
        burst: Items of one event, as for `simulate`.
        activity: What the bitlines of each layer spend, relative to the chip file, and which accesses drive no input.

    Raises:
        ConfigError: *arrivals_ns* are not at least one finite time from 0, ascending; or *activity* gives an idle
            share for something else than a layer on tiles.
        SimulationError: *burst* is less than 1, or no layer of the network is on the chip.
    """
    if burst is not None and burst < 1:
        raise SimulationError(f"burst: must be at least 1, got {burst}")
    costs = costs or price(plan.chip)
    if activity is not None:
        plan = plan.skipping(activity.idle_share)
    arrivals_ps = np.round(require_arrivals(arrivals_ns) * PS_PER_NS).astype(np.int64)
    once = lower(plan, costs)
    if not once.tasks:
        raise SimulationError(f"{plan.graph.name}: must have a layer on the chip to serve requests, got none")
    if plan.style == "pipelined":
        program = lower_requests(plan, costs, arrivals_ps.tolist())
        spans = play(program, burst=burst)
        starts = np.array([span.start_ps for span in spans], dtype=np.int64).reshape(len(arrivals_ps), -1).min(axis=1)
        ends = np.array([span.end_ps for span in spans], dtype=np.int64).reshape(len(arrivals_ps), -1).max(axis=1)
    else:
        time_ps = max(span.end_ps for span in play(once, burst=burst))
        before = time_ps * np.arange(len(arrivals_ps))
        starts = np.maximum.accumulate(arrivals_ps - before) + before  # the later of its arrival and the last one's end
        ends = starts + time_ps
    return Service(plan, costs, once, arrivals_ps, starts, ends, activity)


def serve_loads(
    plan: Plan,
    costs: CostTable,
    capacity_per_s: float,
    n: int,
    *,
    seed: int = 0,
    loads: Sequence[float] = LOADS,
    activity: Activity | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Return what comes of *n* (2 or more) Poisson arrivals at each of *loads*, which are shares of *capacity_per_s*.

    All loads see the same random numbers, stretched so that just their share arrives: what differs between them is
    the load. *progress* is told how many loads were served.
    """
    arrivals = poisson(NS_PER_S, n, np.random.default_rng(seed))
    arrivals = (arrivals - arrivals[0]) / (arrivals[-1] - arrivals[0]) * (n - 1)
    found: list[dict[str, float]] = []
    for load in loads:
        rate_per_s = load * capacity_per_s
        served = serve(plan, arrivals * NS_PER_S / rate_per_s, costs, activity=activity)
        found.append(
            {
                "load": load,
                "offered_per_s": rate_per_s,
                "throughput_per_s": served.throughput_per_s,
                **{f"{name}_ns": value for name, value in served.latency_summary.items()},
            }
        )
        if progress is not None:
            progress(len(found))
    return found


def _rate(times_ps: np.ndarray) -> float | None:
    """Return how many of *times_ps*, ascending, there are in a second; None where no time passes between them."""
    passed = int(times_ps[-1] - times_ps[0])
    return (len(times_ps) - 1) * NS_PER_S * PS_PER_NS / passed if passed else None
