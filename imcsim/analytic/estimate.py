"""Plan and cost table to an estimate: actions, energy, area, and time with its bounds, all by formula."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from imcsim.analytic.counts import count_actions, count_setup
from imcsim.analytic.pipeline import Period, period_of, times_of
from imcsim.analytic.timing import LayerTime
from imcsim.costs.activity import Activity
from imcsim.costs.price import price
from imcsim.costs.rows import area_rows, dynamic_energy_pJ, energy_rows, leak_rows
from imcsim.costs.table import CostTable
from imcsim.mapping.plan import Plan
from imcsim.results import Identity, Row


@dataclass(frozen=True)
class Bounds:
    """The least and the greatest time that any order of the work can take."""

    least_ns: float
    greatest_ns: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the formulas say of one inference."""

    plan: Plan
    costs: CostTable
    counts: dict[str, Counter[str]]
    times: dict[str, LayerTime]
    seed: int = 0
    activity: Activity | None = None

    @cached_property
    def latency_ns(self) -> float:
        """Sum of what the layers add."""
        return float(sum(time.added_ns for time in self.times.values()))

    @cached_property
    def period(self) -> Period:
        """From one inference to the next, where requests never run out."""
        return period_of(self.plan, self.costs, self.times, self.counts)

    @property
    def throughput_per_s(self) -> float:
        """Inferences a second, where requests never run out."""
        return self.period.rate_per_s

    @property
    def energy_pJ(self) -> float:
        """All actions, and what the chip leaks meanwhile."""
        return dynamic_energy_pJ(self.counts, self.costs, self.activity) + self.costs.leakage_mW * self.latency_ns

    @property
    def area_um2(self) -> float:
        """Area of the chip."""
        return self.costs.area_um2

    @property
    def bounds(self) -> Bounds:
        """Bounds of the simulated time."""
        return Bounds(
            sum(time.least_ns for time in self.times.values()), sum(time.greatest_ns for time in self.times.values())
        )

    @cached_property
    def setup_energy_pJ(self) -> float:
        """Writing resident weights once, without leakage; 0 for a temporal plan."""
        return dynamic_energy_pJ(count_setup(self.plan), self.costs)

    def to_rows(self) -> list[Row]:
        """Return a row for each layer, component and action, and the area of every component."""
        identity = Identity(chip=self.plan.chip.name, workload=self.plan.graph.name, engine="estimate", seed=self.seed)
        added = {layer: time.added_ns for layer, time in self.times.items()}
        rows = list(energy_rows(self.counts, self.costs, identity, phase="inference", activity=self.activity))
        rows += leak_rows(added, self.costs, identity, phase="inference")
        for layer, time in self.times.items():
            rows.append(identity.row(phase="inference", layer=layer, component=time.bound_by, action="time", count=1,
                                     latency_ns=time.added_ns))  # fmt: skip
            for component, busy_ns in time.busy_ns.items():
                rows.append(identity.row(phase="inference", layer=layer, component=component, action="busy", count=1,
                                         busy_ns=busy_ns))  # fmt: skip
        rows += energy_rows(count_setup(self.plan), self.costs, identity, phase="setup")
        rows += area_rows(self.costs, identity)
        return rows


def estimate(
    plan: Plan, costs: CostTable | None = None, *, seed: int = 0, activity: Activity | None = None
) -> Estimate:
    """Return time, energy and area of one inference of *plan* by formula; *costs* are priced anew if not given.

    *activity* says what the bitlines of each layer spend, relative to the chip file, and which share of its accesses
    drives no input; a chip that skips those is taken to skip none where nothing is said. Raises ConfigError where such
    a share is given for something else than a layer on tiles.
    """
    costs = costs or price(plan.chip)
    if activity is not None:
        plan = plan.skipping(activity.idle_share)
    return Estimate(plan, costs, count_actions(plan), times_of(plan, costs), seed, activity)
