"""Why a simulation takes the time it takes: its critical path, what bounds each layer, and what its units wait for."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from imcsim.sim.critical_path import Segment, critical_path
from imcsim.sim.stalls import Use, use_of_units
from imcsim.sim.trace import Trace
from imcsim.sim.what_if import TOGETHER, WhatIf, what_if
from imcsim.units import PS_PER_NS, human, percent

PATH_COLUMNS = ("task", "layer", "unit", "component", "kind", "holds_up", "start_ns", "end_ns")

_WORDS = {
    "tile.array": "the tile arrays",
    "tile.pcu": "the PCUs",
    "tile.nmc": "the NMC units",
    "tile.array+pcu": "the tile arrays and the PCUs together",
    "tile.array+nmc": "the tile arrays and the NMC units together",
    "tile.write": "the writing of weights",
    "activation_buffer": "the activation buffer",
    "psum_buffer": "the psum buffer",
    "reduce_unit": "the reduce unit",
    "sfu": "the SFU",
    "network": "the network",
    "main_memory": "main memory",
    "scheduler": "the scheduler",
}


def explain(trace: Trace, *, progress: Callable[[int, int], None] | None = None) -> "TimeExplanation":
    """Say why *trace* took the time it took; its plan is played once more for each component.

    *progress* is told how many of them are played, and how many there are.
    """
    path = critical_path(trace.program, trace.spans)
    return TimeExplanation(trace, path, what_if(trace, progress=progress), use_of_units(trace))


@dataclass(frozen=True, eq=False)
class TimeExplanation:
    """Where the time of a trace goes."""

    trace: Trace
    path: tuple[Segment, ...]
    """The critical path; its segments add up to the latency."""

    without: dict[str, WhatIf]
    """The whole without the time of one component, by component."""

    units: dict[str, Use]

    @cached_property
    def path_ps(self) -> dict[str, Counter[str]]:
        """Time on the critical path: of each layer, by component."""
        table: dict[str, Counter[str]] = {layer: Counter() for layer in self.trace.added_ns}
        for segment in self.path:
            table[segment.layer][self.component_of(segment)] += segment.end_ps - segment.start_ps
        return table

    @cached_property
    def path_of_component_ps(self) -> Counter[str]:
        """Time on the critical path, by component."""
        return sum(self.path_ps.values(), Counter())

    def _path_of_ps(self, component: str) -> int:
        """Time on the critical path of one entry of `without`."""
        return sum(self.path_of_component_ps[part] for part in TOGETHER.get(component, (component,)))

    @cached_property
    def bound_by(self) -> dict[str, str]:
        """For each layer the component in which its part of the critical path is spent longest."""
        return {
            layer: max(self.path_ps[layer] or self.without, key=lambda name: self.path_ps[layer][name])
            for layer in self.trace.added_ns
        }

    def helps_most(self, layer: str | None = None, *, but: str = "") -> str:
        """Return the component, not *but*, without whose time the whole, or what *layer* adds, is shortest.

        It is not always what bounds it: where two units keep the same pace, to free one of them helps nobody.
        """
        return min(self.without, key=lambda name: (name == but, self._without_ns(name, layer)))

    def _without_ns(self, component: str, layer: str | None) -> float:
        other = self.without[component]
        return other.latency_ns if layer is None else other.added_ns[layer]

    def speedup(self, component: str, layer: str | None = None) -> float | None:
        """Return how many times as fast the whole, or *layer*, is without the time of *component*; None: no time left.

        A layer may take longer where its neighbours take less, since what it shares with them comes at another time.
        """
        now_ns = self.trace.latency_ns if layer is None else self.trace.added_ns[layer]
        return _ratio(now_ns, self._without_ns(component, layer))

    def component_of(self, segment: Segment) -> str:
        """Return the component that a segment of the path is spent in."""
        return _coarse(self._component_of_task[segment.task])

    @cached_property
    def _component_of_task(self) -> dict[str, str]:
        return {span.task: self.trace.component_of(span) for span in self.trace.spans}

    @cached_property
    def use_of_components(self) -> dict[str, Use]:
        """The time of all units of a component together; arrays do accesses and row writes."""
        uses: dict[str, Use] = {}
        for unit, use in self.units.items():
            name = f"tile.{unit.partition('.')[2]}" if unit.startswith("tile") else unit
            uses[name] = uses.get(name, Use()) + use
        return uses

    @cached_property
    def sentences(self) -> list[str]:
        """The answer in words."""
        latency_ns = self.trace.latency_ns
        if not latency_ns:
            return ["Nothing takes any time."]
        layer, added_ns = max(self.trace.added_ns.items(), key=lambda item: item[1])
        bound, best = self.bound_by[layer], self.helps_most()
        held = self.path_ps[layer][bound] / (self.path_ps[layer].total() or 1)
        shares = [
            f"{_words(name)} ({percent(ps / self.trace.latency_ps, digits=0)})"
            for name, ps in self.path_of_component_ps.most_common(3)
        ]
        lag_ps = sum(s.end_ps - s.start_ps for s in self.path if s.kind == "lag")
        first = best if best != bound else self.helps_most(but=bound)
        return [
            f"{layer} takes {percent(added_ns / latency_ns, digits=0)} of the {human(latency_ns, 'ns')}. "
            f"{percent(held, digits=0)} of its critical path is spent in {_words(bound)}: freeing {_words(bound)} "
            f"alone would make the layer {_faster(self.speedup(bound, layer))}, the whole "
            f"{_faster(self.speedup(bound))}.",
            f"Of all {'' if first == best else 'other '}components, freeing {_words(first)} would help most: it would "
            f"make the whole {_faster(self.speedup(first))}.",
            f"The critical path of the whole is spent mostly in {_listed(shares)}; "
            f"{percent(lag_ps / self.trace.latency_ps, digits=0)} of it is waiting for results on their way through "
            "units and links, which more throughput does not shorten.",
        ]

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of it under ``time``."""
        trace, latency_ps = self.trace, self.trace.latency_ps or 1
        kinds: Counter[str] = Counter()
        for segment in self.path:
            kinds[segment.kind] += segment.end_ps - segment.start_ps
        return {
            "latency_ns": trace.latency_ns,
            "sentences": self.sentences,
            "kinds": {kind: ps / latency_ps for kind, ps in kinds.items()},
            "layers": [
                {
                    "name": layer,
                    "added_ns": added_ns,
                    "path_ns": self.path_ps[layer].total() / PS_PER_NS,
                    "bound_by": self.bound_by[layer],
                    "path_ns_by_component": _in_ns(self.path_ps[layer]),
                    "without_ns": {name: other.added_ns[layer] for name, other in self.without.items()},
                    "speedup": self.speedup(self.bound_by[layer], layer),
                    "helps_most": self.helps_most(layer),
                    "best_speedup": self.speedup(self.helps_most(layer), layer),
                }
                for layer, added_ns in trace.added_ns.items()
            ],
            "components": [
                {
                    "name": name,
                    "path_ns": self._path_of_ps(name) / PS_PER_NS,
                    "path_share": self._path_of_ps(name) / latency_ps,
                    "without_ns": other.latency_ns,
                    "speedup": self.speedup(name),
                }
                for name, other in self.without.items()
            ],
            "use": [{"name": name, **use.shares} for name, use in self.use_of_components.items()],
            "units": [{"name": name, **use.shares} for name, use in self.units.items()],
        }

    def to_csv(self) -> str:
        """Return the critical path as CSV text, a line a segment, from the first to the last."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(PATH_COLUMNS)
        for s in self.path:
            times = [f"{ps / PS_PER_NS:.3f}" for ps in (s.start_ps, s.end_ps)]
            writer.writerow([s.task, s.layer, s.unit, self.component_of(s), s.kind, s.holds_up, *times])
        return text.getvalue()


def _coarse(component: str) -> str:
    """Return the component of `what_if` that a component of a span belongs to."""
    return component if component.startswith("tile.") else component.partition(".")[0]


def _words(component: str) -> str:
    return _WORDS.get(component, component)


def _ratio(before_ns: float, after_ns: float) -> float | None:
    if after_ns:
        return before_ns / after_ns
    return None if before_ns else 1.0


def _faster(speedup: float | None) -> str:
    """Say how fast something would be.

    >>> _faster(1.604), _faster(1.001), _faster(None)
    ('1.60 times as fast', 'no faster, since others keep the same pace', 'so fast that it takes no time')
    """
    if speedup is None:
        return "so fast that it takes no time"
    return f"{speedup:.2f} times as fast" if speedup >= 1.005 else "no faster, since others keep the same pace"


def _listed(parts: Iterable[str]) -> str:
    """Return *parts* as a list in a sentence.

    >>> _listed(["a"]), _listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def _in_ns(times_ps: Counter[str]) -> dict[str, float]:
    return {name: ps / PS_PER_NS for name, ps in times_ps.most_common()}
