"""The critical path of a trace: walked back from its end, each stretch through what the one behind it waited for last.

The segments tile the time from 0 to the end without gap or overlap, so that they add up to the latency exactly. Where
bursts hold many items, times inside a burst are those of the engine: between its first and its last result. What a
burst loses in between because its results find no room counts as its own work, unless its last item was held up.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from imcsim.mapping.program import Program, Task
from imcsim.sim.engine import Burst, Span

Kind = Literal["work", "drain", "lag", "wait"]
"""Items keep the unit busy; they do, having waited for a feeder or for room once more; a result is on its way; nobody
works."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the critical path, all of it one task's."""

    task: str
    layer: str
    unit: str
    start_ps: int
    end_ps: int
    kind: Kind

    holds_up: str
    """Why the next segment waited for it: after, stream, unit, own ...; empty for the last segment."""


class _Place(NamedTuple):
    """A moment in a burst that the walk comes to."""

    task: str
    burst: int
    time_ps: int
    holds_up: str


def critical_path(program: Program, spans: Sequence[Span]) -> tuple[Segment, ...]:
    """Return the segments, from 0 to the last end, that decide how long *program* took."""
    if not spans:
        return ()
    walk = _Walk(program, spans)
    last = max(spans, key=lambda span: span.end_ps)
    place = walk.result(last.task, last.end_ps, "")
    while place is not None:
        place = walk.back(place)
    return tuple(_joined(reversed(walk.found)))


class _Walk:
    """Goes back in time, burst by burst, and notes the segments from the last to the first."""

    def __init__(self, program: Program, spans: Sequence[Span]) -> None:
        self.task_of = program.task_of
        self.span_of = {span.task: span for span in spans}
        self.found: list[Segment] = []
        self.seen: set[tuple[str, int, int]] = set()  # bursts of no length lie at one moment: none is walked twice

    def back(self, place: _Place) -> _Place | None:
        """Note why there is work until *place*, and return what it waited for; None at the very beginning."""
        name, i, time_ps, why = place
        self.seen.add((name, i, time_ps))
        burst, items = self.span_of[name].bursts[i], _Items(self.task_of[name], len(self.span_of[name].bursts), i)
        if time_ps > burst.end_ps:
            self.note(name, burst.end_ps, time_ps, "wait", why)
            time_ps, why = burst.end_ps, "own"
        if burst.stalled_by and why != "unit" and time_ps > burst.start_ps + items.work_ps:
            begun_ps = time_ps - (items.last_ps if time_ps == burst.end_ps else items.mean_ps)
            if begun_ps > burst.start_ps and (reader := self.at(burst.stalled_by, begun_ps, "space")):
                self.note(name, begun_ps, time_ps, "drain", why)
                return reader
        if burst.ended_after and why not in ("unit", "space") and time_ps > burst.start_ps + items.first_ps:
            item_ps = items.last_ps if time_ps == burst.end_ps else items.mean_ps
            fed_ps = time_ps - item_ps
            before = len(self.found)
            self.note(name, fed_ps, time_ps, "drain", why)
            if fed_ps > burst.start_ps and (fed := self.result(burst.ended_after, fed_ps, "stream")):
                return fed
            del self.found[before:]
        is_fed_again = i > 0 and burst.begun_by == "stream"
        self.note(name, burst.start_ps, time_ps, "drain" if is_fed_again else "work", why)
        return self.cause(name, i, burst)

    def cause(self, name: str, i: int, burst: Burst) -> _Place | None:
        """Return what burst *i* of a task waited for last before it began."""
        start_ps, why, other = burst.start_ps, burst.begun_by, burst.begun_after
        if not start_ps:
            return None
        found = None
        if why == "own":
            found = self.at(name, start_ps, why)
        elif why in ("after", "stream"):
            found = self.result(other, start_ps, why) or self.beginning(other, start_ps, why)
        elif why == "unit":
            found = self.at(other, start_ps, why)
        elif other:  # it was made to wait by what another task did at this moment
            found = self.beginning(other, start_ps, why) or self.at(other, start_ps, why)
        if found is None:
            self.note(name, 0, start_ps, "wait", "own")
        return found

    def result(self, name: str, time_ps: int, why: str) -> _Place | None:
        """Return where the result of a task that is there at a moment left its unit, and note its lag."""
        lag_ps = self.task_of[name].lag_ps
        found = self.at(name, time_ps - lag_ps, "own" if lag_ps else why)
        if found is None and lag_ps:  # its first item took no whole picosecond
            found = self.beginning(name, time_ps - lag_ps, "own")
        if found is None or (why == "stream" and self.span_of[name].bursts[found.burst].end_ps < found.time_ps):
            return None
        self.note(name, time_ps - lag_ps, time_ps, "lag", why)
        return found

    def at(self, name: str, time_ps: int, why: str) -> _Place | None:
        """Return the last burst of a task that had begun before a moment."""
        bursts = self.span_of[name].bursts
        i = bisect_right(bursts, time_ps, key=lambda burst: burst.start_ps) - 1
        while i >= 0 and (bursts[i].start_ps == time_ps < bursts[i].end_ps or (name, i, time_ps) in self.seen):
            i -= 1
        return _Place(name, i, time_ps, why) if i >= 0 else None

    def beginning(self, name: str, time_ps: int, why: str) -> _Place | None:
        """Return the burst of a task that begins at a moment."""
        bursts = self.span_of[name].bursts
        i = bisect_right(bursts, time_ps, key=lambda burst: burst.start_ps) - 1
        is_it = i >= 0 and bursts[i].start_ps == time_ps and (name, i, time_ps) not in self.seen
        return _Place(name, i, time_ps, why) if is_it else None

    def note(self, name: str, start_ps: int, end_ps: int, kind: Kind, why: str) -> None:
        if start_ps < end_ps:
            span = self.span_of[name]
            self.found.append(Segment(name, span.layer, span.unit, start_ps, end_ps, kind, why))


class _Items:
    """How long the items of one burst keep the unit busy."""

    def __init__(self, task: Task, n_bursts: int, i: int) -> None:
        begin, end = task.n_items * i // n_bursts, task.n_items * (i + 1) // n_bursts
        until = [task.work_ps * item // task.n_items for item in (begin, begin + 1, end - 1, end)]
        self.first_ps = until[1] - until[0]
        self.last_ps = until[3] - until[2]
        self.mean_ps = task.work_ps // task.n_items
        self.work_ps = until[3] - until[0]
        self.all_ps = until[3] - until[0]


def work_of_burst_ps(task: Task, n_bursts: int, i: int) -> int:
    """Return how long burst *i* of *n_bursts* keeps the unit of *task* busy."""
    return _Items(task, n_bursts, i).all_ps


def _joined(segments: "reversed[Segment]") -> list[Segment]:
    """Return *segments* with those of one task and kind that follow each other as one."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and (joined[-1].task, joined[-1].kind) == (segment.task, segment.kind):
            first = joined.pop()
            segment = Segment(
                first.task, first.layer, first.unit, first.start_ps, segment.end_ps, first.kind, segment.holds_up
            )
        joined.append(segment)
    return joined
