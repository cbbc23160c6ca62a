"""Program to trace: tasks played with contention, by SimPy.

A task is played in bursts. When a burst begins on its unit it is known when its first and its last result will
be there, so that the tasks it feeds start on its first result instead of its last (cut-through): bursts change how many
events are played, not what they say. With ``burst=1`` every item is an event of its own. The clock counts whole
picoseconds.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import simpy

from imcsim.errors import SimulationError
from imcsim.mapping.program import Program, Task

BURSTS_PER_TASK = 16
"""Default: how many bursts a task is cut into, when it has that many items."""


Reason = Literal["begin", "release", "after", "stream", "unit", "own"]
"""What a burst waited for last: nothing, its request, a task's end, what feeds it, its unit, the burst before it."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What one burst of a task did, and why not earlier."""

    start_ps: int
    end_ps: int
    """When its last item left the unit."""

    begun_by: Reason
    begun_after: str
    """The task that it waited for last; for a unit, the one that held it; empty where nothing held it up."""

    ended_after: str
    """The task whose last result it waited for; empty where its own work ended it."""


@dataclass(frozen=True)
class Span:
    """What one task did."""

    task: str
    layer: str
    unit: str
    start_ps: int
    end_ps: int
    """When its last result was there."""

    busy_ps: int
    """How long its items kept the unit busy; the rest of the span it waited for those that feed it."""

    bursts: tuple[Burst, ...] = ()


@dataclass(eq=False)
class _Play:
    """A task while it is played."""

    task: Task
    bounds: list[int]
    """Items up to the end of each burst."""

    done: simpy.Event
    known: list[simpy.Event]
    """One a burst: it has begun, and the times of its results are known."""

    feeders: "list[_Play]" = field(default_factory=list)
    waits: "list[_Play]" = field(default_factory=list)
    first_ps: list[int] = field(default_factory=list)
    """Time of the first result of each burst."""

    last_ps: list[int] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    start_ps: int = -1
    end_ps: int = -1

    def work_until(self, item: int) -> int:
        """Work of the first *item* items, in ps."""
        return self.task.work_ps * item // self.task.n_items

    def result_ps(self, item: int) -> int:
        """When the result of *item* (from 1) is there; its burst must have begun."""
        burst = bisect_left(self.bounds, item)
        start, stop = (self.bounds[burst - 1] if burst else 0), self.bounds[burst]
        if item == stop:
            return self.last_ps[burst]
        first, last = self.first_ps[burst], self.last_ps[burst]
        return first + (last - first) * (item - start - 1) // (stop - start - 1)


@dataclass(eq=False)
class _Unit:
    """A unit while the program is played."""

    resource: simpy.Resource
    user: str = ""
    """The task that held it last."""


def play(program: Program, *, burst: int | None = None) -> list[Span]:
    """Play *program* and return the span of every task, in the program's order.

    A burst has *burst* items; by default each task is cut into `BURSTS_PER_TASK`. Raises SimulationError when tasks
    wait for each other for ever.
    """
    env = simpy.Environment()
    units = {unit: _Unit(simpy.Resource(env)) for unit in dict.fromkeys(task.unit for task in program.tasks)}
    plays: dict[str, _Play] = {}
    for task in program.tasks:
        bounds = _bounds(task.n_items, burst)
        plays[task.name] = _Play(task, bounds, env.event(), [env.event() for _ in bounds])
    for run in plays.values():
        run.feeders = [_named(plays, name, run.task) for name in run.task.streams]
        run.waits = [_named(plays, name, run.task) for name in run.task.after]
        env.process(_perform(env, run, units[run.task.unit]))
    env.run()
    stuck = [run for run in plays.values() if not run.done.triggered]
    if stuck:
        raise SimulationError(
            f"program: every task must come to its end, got {len(stuck)} that wait: {_waiting(stuck)}"
        )
    return [
        Span(task.name, task.layer, task.unit, run.start_ps, run.end_ps, task.work_ps, tuple(run.bursts))
        for task, run in zip(program.tasks, plays.values(), strict=True)
    ]


def _named(plays: dict[str, _Play], name: str, task: Task) -> _Play:
    if name not in plays:
        raise SimulationError(f"{task.name}: must wait for tasks of the program, got {name!r}")
    return plays[name]


def _bounds(n_items: int, burst: int | None) -> list[int]:
    n_bursts = min(n_items, BURSTS_PER_TASK) if burst is None else -(-n_items // burst)
    return [n_items * (i + 1) // n_bursts for i in range(n_bursts)]


def _perform(env: simpy.Environment, run: _Play, unit: _Unit) -> Generator[simpy.Event, Any, None]:
    """Play one task: a SimPy process."""
    task, begin = run.task, 0
    reason: Reason = "begin"
    cause = ""
    if task.release_ps > env.now:
        yield env.timeout(task.release_ps - env.now)
        reason = "release"
    for other in run.waits:
        if not other.done.processed:
            yield other.done
            reason, cause = "after", other.task.name
    for number, end in enumerate(run.bounds):
        first_input = last_input = 0
        first_feeder = last_feeder = ""
        for feeder in run.feeders:
            first, last = _needed(run, number, begin, end, feeder)
            known = feeder.known[bisect_left(feeder.bounds, last)]
            if not known.processed:
                yield known
                reason, cause = "stream", feeder.task.name
            if (at := feeder.result_ps(first)) > first_input:
                first_input, first_feeder = at, feeder.task.name
            if (at := feeder.result_ps(last)) > last_input:
                last_input, last_feeder = at, feeder.task.name
        if first_input > env.now:
            yield env.timeout(first_input - env.now)
            reason, cause = "stream", first_feeder
        asked = env.now
        turn = unit.resource.request()
        yield turn
        start = int(env.now)
        if start > asked:
            reason, cause = "unit", unit.user
        done_before, done_after = run.work_until(begin), run.work_until(end)
        own_end = start + done_after - done_before
        leaves = max(own_end, last_input + done_after - run.work_until(end - 1))
        run.first_ps.append(start + run.work_until(begin + 1) - done_before + task.lag_ps)
        run.last_ps.append(leaves + task.lag_ps)
        run.bursts.append(Burst(start, leaves, reason, cause, last_feeder if leaves > own_end else ""))
        if number == 0:
            run.start_ps = start
        run.known[number].succeed()
        if done_after > done_before:
            yield env.timeout(done_after - done_before)
        unit.user = task.name
        unit.resource.release(turn)  # while a burst waits for those that feed it, its unit is free for others
        if leaves > env.now:
            yield env.timeout(leaves - env.now)
        begin = end
        reason, cause = "own", ""
    if task.lag_ps:
        yield env.timeout(task.lag_ps)
    run.end_ps = int(env.now)
    run.done.succeed()


def _needed(run: _Play, number: int, begin: int, end: int, feeder: _Play) -> tuple[int, int]:
    """Return which items of *feeder* the first and the last item of a burst need: the same share of the whole.

    Where that falls a little behind the end of the feeder's corresponding burst, that burst's end will do.
    """
    n, n_feeder = run.task.n_items, feeder.task.n_items
    corresponding = -(-(number + 1) * len(feeder.bounds) // len(run.bounds)) - 1
    last = min(-(-end * n_feeder // n), feeder.bounds[corresponding])
    return min(-(-(begin + 1) * n_feeder // n), last), last


def _waiting(stuck: list[_Play]) -> str:
    """Say who waits for whom, for the first few."""
    lines = []
    for run in stuck[:5]:
        others = [other.task.name for other in (*run.waits, *run.feeders) if not other.done.triggered]
        lines.append(f"{run.task.name} waits for {', '.join(others) or f'unit {run.task.unit}'}")
    return "; ".join(lines) + ("; ..." if len(stuck) > 5 else "")


def busy_of_units(spans: list[Span]) -> Iterator[tuple[str, int]]:
    """Yield each unit with the time, in ps, that it was busy."""
    busy: Counter[str] = Counter()
    for span in spans:
        busy[span.unit] += span.busy_ps
    yield from busy.items()
