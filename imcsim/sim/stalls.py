"""What each unit of a chip did with its time: at work, or why not.

A unit that does not work waits for what its next burst waits for. Until the layer of that burst begins, and behind its
last burst, it has nothing to do. Of a unit with several servers, ports or channels, the times of all of them are added
up; a burst takes those that have been free for longest.
"""

from collections import defaultdict
from dataclasses import astuple, dataclass

from imcsim.sim.critical_path import work_of_burst_ps
from imcsim.sim.engine import Span
from imcsim.sim.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Use:
    """The time of one unit, in ps; the parts add up to the latency, times its servers."""

    busy_ps: int = 0
    inputs_ps: int = 0
    """Waits for items of those that feed it."""

    end_ps: int = 0
    """Waits for the end of a task of its layer, weights that are being written among them."""

    room_ps: int = 0
    """Waits for room in a buffer."""

    idle_ps: int = 0
    """Has nothing to do: no request, no task of a layer that has begun."""

    def __add__(self, other: "Use") -> "Use":
        parts = zip(astuple(self), astuple(other), strict=True)
        return Use(**dict(zip(PARTS, (a + b for a, b in parts), strict=True)))

    @property
    def all_ps(self) -> int:
        """The whole time."""
        return sum(astuple(self))

    @property
    def shares(self) -> dict[str, float]:
        """Each part as a share of the whole time."""
        return {part.removesuffix("_ps"): getattr(self, part) / (self.all_ps or 1) for part in PARTS}


PARTS = ("busy_ps", "inputs_ps", "end_ps", "room_ps", "idle_ps")

_PART_OF_REASON = {"stream": "inputs_ps", "own": "inputs_ps", "space": "room_ps", "room": "room_ps"}


def use_of_units(trace: Trace) -> dict[str, Use]:
    """Return what each unit that works at all did from 0 to the end of *trace*."""
    begun: dict[str, int] = {}  # layers
    ready: dict[str, int] = {}  # when a task has nobody's end to wait for any more
    end_of = {span.task: span.end_ps for span in trace.spans}
    for span in trace.spans:
        begun[span.layer] = min(begun.get(span.layer, span.start_ps), span.start_ps)
        task = trace.program.task_of[span.task]
        ready[span.task] = max((end_of[name] for name in task.after), default=0)
    works: dict[str, list[tuple[int, int, str, Span]]] = defaultdict(list)
    for span in trace.spans:
        task = trace.program.task_of[span.task]
        for i, burst in enumerate(span.bursts):
            work_ps = work_of_burst_ps(task, len(span.bursts), i)
            works[span.unit].append((burst.start_ps, burst.start_ps + work_ps, burst.begun_by, span))
    uses = {}
    for unit, mine in works.items():
        parts = dict.fromkeys(PARTS, 0)
        servers_ps = [0] * trace.program.servers_of(unit)  # from when on each of them is free
        for start_ps, end_ps, reason, span in sorted(mine, key=lambda work: work[:2]):
            task = trace.program.task_of[span.task]
            servers_ps.sort()
            for i in range(task.n_servers):
                layer_ps = min(max(servers_ps[i], begun[span.layer], task.release_ps), start_ps)
                ready_ps = min(max(layer_ps, ready[span.task]), start_ps)
                parts["idle_ps"] += layer_ps - servers_ps[i]
                parts["end_ps"] += ready_ps - layer_ps
                parts[_PART_OF_REASON.get(reason, "end_ps")] += start_ps - ready_ps
                parts["busy_ps"] += end_ps - start_ps
                servers_ps[i] = end_ps
        parts["idle_ps"] += sum(trace.latency_ps - free_ps for free_ps in servers_ps)
        uses[unit] = Use(**parts)
    return uses
