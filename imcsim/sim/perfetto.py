"""A trace in the trace event format that Chrome and Perfetto open: a track a unit, and arrows between tasks.

Slices of one track may not overlap; where tasks share a unit burst by burst, it has further tracks, "bus (2)" ... . An
arrow (flow event) goes from every task to those that wait for its end or that it feeds. Both its ends lie in the middle
of their slices, so that each is bound to the one slice around it, and none points backwards: who waits neither begins
nor ends before whom it waits for. Times are microseconds.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from imcsim.mapping.program import Program
from imcsim.sim.engine import Span
from imcsim.units import PS_PER_NS

MOST_FLOWS = 50_000
"""Default: how many arrows a file has at most, about 9 MB of it."""

Event = dict[str, object]

_PS_PER_US = 1e6


def events_of(program: Program, spans: Sequence[Span], name: str, *, most_flows: int = MOST_FLOWS) -> Event:
    """Return *spans* as trace events of one process, *name*.

    Of more than *most_flows* dependencies those are kept that held somebody up, of these the first; how many were left
    out is in ``otherData``.
    """
    track_of, tracks = tracks_of(spans)
    events: list[Event] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": name}}]
    for track, track_name in enumerate(tracks, start=1):
        events.append({"ph": "M", "pid": 1, "tid": track, "name": "thread_name", "args": {"name": track_name}})
        events.append({"ph": "M", "pid": 1, "tid": track, "name": "thread_sort_index", "args": {"sort_index": track}})
    for span in spans:
        task = program.task_of[span.task]
        events.append(
            {
                "ph": "X",
                "pid": 1,
                "tid": track_of[span.task],
                "ts": span.start_ps / _PS_PER_US,
                "dur": (span.end_ps - span.start_ps) / _PS_PER_US,
                "name": span.task,
                "cat": span.layer,
                "args": {"items": task.n_items, "busy_ns": span.busy_ps / PS_PER_NS, **dict(task.actions)},
            }
        )
    span_of = {span.task: span for span in spans}
    n_all = sum(1 for _ in _dependencies(program))
    kept = _dependencies(program)
    if n_all > most_flows:
        kept = (found for found in kept if found[1] in _held_up_by(span_of[found[2]]))
    n_flows = 0
    for n_flows, (how, source, reader) in enumerate(islice(kept, most_flows), start=1):
        for phase, task_name in (("s", source), ("f", reader)):
            span = span_of[task_name]
            events.append(
                {
                    "ph": phase,
                    "pid": 1,
                    "tid": track_of[task_name],
                    "ts": (span.start_ps + span.end_ps) // 2 / _PS_PER_US,
                    "id": n_flows,
                    "name": how,
                    "cat": "dependency",
                }
                | ({"bp": "e"} if phase == "f" else {})
            )
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"dependencies": n_all, "dependencies_left_out": n_all - n_flows},
    }


def tracks_of(spans: Sequence[Span]) -> tuple[dict[str, int], list[str]]:
    """Return the track of each task, from 1, and the names of the tracks: one a unit, more where its spans overlap."""
    lanes: dict[str, list[int]] = {unit: [] for unit in dict.fromkeys(span.unit for span in spans)}
    lane_of: dict[str, int] = {}
    for span in sorted(spans, key=lambda span: (span.start_ps, span.end_ps)):
        free = lanes[span.unit]
        lane = next((i for i, from_ps in enumerate(free) if from_ps <= span.start_ps), len(free))
        free[lane:] = [max(span.end_ps, span.start_ps + 1), *free[lane + 1 :]]  # a slice of no length has its moment
        lane_of[span.task] = lane
    first, names = dict[str, int](), list[str]()
    for unit, free in lanes.items():
        first[unit] = len(names) + 1
        names += [unit, *(f"{unit} ({lane})" for lane in range(2, len(free) + 1))]
    return {span.task: first[span.unit] + lane_of[span.task] for span in spans}, names


def _dependencies(program: Program) -> Iterator[tuple[str, str, str]]:
    """Yield how a task depends on another, the other, and the task."""
    for task in program.tasks:
        yield from (("after", other, task.name) for other in task.after)
        yield from (("stream", other, task.name) for other in task.streams)


def _held_up_by(span: Span) -> set[str]:
    """Return the tasks that a burst of *span* waited for last."""
    return {name for burst in span.bursts for name in (burst.begun_after, burst.ended_after)}
