"""What happened: start and end of every task, and what follows from them."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from imcsim.costs.activity import Activity
from imcsim.costs.rows import dynamic_energy_pJ, energy_rows, leak_rows
from imcsim.costs.table import CostTable
from imcsim.mapping.links import component_of_unit
from imcsim.mapping.lower import Phase
from imcsim.mapping.plan import Plan
from imcsim.mapping.program import Program
from imcsim.results import Identity, Row, write_whole
from imcsim.sim.engine import Span
from imcsim.sim.perfetto import MOST_FLOWS, events_of
from imcsim.units import PS_PER_NS


@dataclass(frozen=True, eq=False)
class Trace:
    """A program that was played."""

    plan: Plan
    program: Program
    costs: CostTable
    spans: tuple[Span, ...]
    seed: int = 0
    phase: Phase = "inference"
    activity: Activity | None = None
    burst: int | None = None
    """Items of one event, as `simulate` was given them."""

    @cached_property
    def latency_ps(self) -> int:
        """From the start to the end of the last task."""
        return max((span.end_ps for span in self.spans), default=0)

    @property
    def latency_ns(self) -> float:
        """From the start to the end of the last task."""
        return self.latency_ps / PS_PER_NS

    @cached_property
    def added_ns(self) -> dict[str, float]:
        """What each layer adds to the latency: from the end of all earlier layers to its own end.

        Adds up to the latency.
        """
        ends: dict[str, int] = {}
        for span in self.spans:
            ends[span.layer] = max(ends.get(span.layer, 0), span.end_ps)
        added, frontier = {}, 0
        for layer, end in ends.items():
            added[layer] = max(0, end - frontier) / PS_PER_NS
            frontier = max(frontier, end)
        return added

    @cached_property
    def busy_ns(self) -> dict[str, dict[str, float]]:
        """For each layer and component: how long its busiest unit works, all its servers together."""
        return self._of_busiest_unit(lambda span: self.program.occupied_ps(self.program.task_of[span.task]))

    @cached_property
    def bound_by(self) -> dict[str, str]:
        """For each layer the component whose busiest unit holds it longest, its work and the lag of its results."""
        task_of = self.program.task_of
        held = self._of_busiest_unit(
            lambda span: (
                self.program.occupied_ps(task_of[span.task])
                + (0 if task_of[span.task].is_aside else task_of[span.task].lag_ps)
            )
        )
        return {layer: max(times, key=lambda component: times[component]) for layer, times in held.items()}

    def _of_busiest_unit(self, time_ps: Callable[[Span], float]) -> dict[str, dict[str, float]]:
        """For each layer and component: *time_ps* of all spans of the unit that has most of it, in ns."""
        of_unit: dict[str, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
        for span in self.spans:
            of_unit[span.layer][self.component_of(span), span.unit] += time_ps(span)
        most: dict[str, dict[str, float]] = {}
        for layer, units in of_unit.items():
            of_component = most.setdefault(layer, {})
            for (component, _), ps in units.items():
                of_component[component] = max(of_component.get(component, 0.0), ps / PS_PER_NS)
        return most

    @property
    def energy_pJ(self) -> float:
        """All actions, and what the chip leaks meanwhile."""
        return (
            dynamic_energy_pJ(self.program.actions, self.costs, self.activity) + self.costs.leakage_mW * self.latency_ns
        )

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """Actions that each layer spent."""
        return self.program.actions

    def component_of(self, span: Span) -> str:
        """Return the component of the chip that a span kept busy; row writes apart from accesses."""
        if "tile.write_row" in self.program.task_of[span.task].actions:
            return "tile.write"
        return component_of_unit(span.unit)

    def to_rows(self) -> list[Row]:
        """Return a row for each layer, component and action: energy, leakage, time, and busy times."""
        identity = Identity(chip=self.plan.chip.name, workload=self.plan.graph.name, engine="simulate", seed=self.seed)
        rows = list(energy_rows(self.counts, self.costs, identity, phase=self.phase, activity=self.activity))
        rows += leak_rows(self.added_ns, self.costs, identity, phase=self.phase)
        rows += self._time_rows(identity)
        return rows

    def _time_rows(self, identity: Identity) -> Iterator[Row]:
        bound_by = self.bound_by
        for layer, added_ns in self.added_ns.items():
            yield identity.row(phase=self.phase, layer=layer, component=bound_by[layer], action="time", count=1,
                               latency_ns=added_ns)  # fmt: skip
            for component, busy_ns in self.busy_ns[layer].items():
                yield identity.row(phase=self.phase, layer=layer, component=component, action="busy", count=1,
                                   busy_ns=busy_ns)  # fmt: skip

    def to_perfetto(self, path: str | Path, *, most_flows: int = MOST_FLOWS) -> None:
        """Write the trace in the trace event format that Chrome and Perfetto open (`imcsim.sim.perfetto`)."""
        write_whole(Path(path), json.dumps(self.to_events(most_flows=most_flows), separators=(",", ":")))

    def to_events(self, *, most_flows: int = MOST_FLOWS) -> dict[str, object]:
        """Return the trace in the trace event format, with at most *most_flows* arrows between tasks."""
        return events_of(self.program, self.spans, self.plan.chip.name, most_flows=most_flows)
