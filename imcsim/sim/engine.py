"""Program to trace: tasks played with contention and back-pressure, by SimPy.

A task is played in bursts. When a burst begins on its unit it is known when its first and its last result will
be there, so that the tasks it feeds start on its first result instead of its last (cut-through): bursts change how many
events are played, not what they say. With ``burst=1`` every item is an event of its own. The clock counts whole
picoseconds.

Where a store between two tasks has room for so many items and no more (`Task.rooms`), an item begins only when the
reader has begun on enough of those before it; meanwhile its unit is free for others. A burst that is longer than the
room begins when its first item may, and when its last item leaves is settled once the reader has begun on that burst:
until then its last result, and whatever follows from it, is known as "not before".
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import simpy

from imcsim.errors import SimulationError
from imcsim.mapping.program import Program, Task

BURSTS_PER_TASK = 16
"""Default: how many bursts a task is cut into, when it has that many items."""


Reason = Literal["begin", "release", "after", "behind", "stream", "space", "unit", "own"]
"""What a burst waited for last: nothing, its request, a task's end, a task's beginning, what feeds it, room, its unit,
the burst before."""


class Burst(NamedTuple):
    """What one burst of a task did, and why not earlier."""

    start_ps: int
    end_ps: int
    """When its last item left the unit."""

    begun_by: Reason
    begun_after: str
    """The task that it waited for last: for a unit the one that held it, for space the reader; else empty."""

    ended_after: str
    """The task whose last result it waited for; empty where its own work ended it, or want of room."""

    stalled_by: str = ""
    """The reader that left its last item no room; empty where none did."""


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
    """How long its items kept the unit busy; the rest of the span it waited for those that feed it, or for room."""

    bursts: tuple[Burst, ...] = ()


@dataclass(eq=False, slots=True)
class _Unit:
    """A unit while the program is played: a burst at a time on each of its servers, first come first served."""

    n_free: int = 1
    """Servers that nobody holds."""

    user: str = ""
    """The task that held a server last."""

    queue: deque[tuple[simpy.Event, int]] = field(default_factory=deque)
    """Who waits, and for how many servers; nobody overtakes."""

    def leave(self, task: str, n_servers: int) -> None:
        """Hand *n_servers* over to those who wait longest."""
        self.user = task
        self.n_free += n_servers
        while self.queue and self.queue[0][1] <= self.n_free:
            turn, n = self.queue.popleft()
            self.n_free -= n
            turn.succeed()


@dataclass(eq=False, slots=True)
class _Store:
    """What lies between a task and a reader that takes only so much."""

    reader: "_Play"
    room: int
    """Items of the feeder that it holds."""


@dataclass(eq=False, slots=True)
class _Play:
    """A task while it is played."""

    task: Task
    bounds: list[int]
    """Items up to the end of each burst."""

    done: simpy.Event
    feeders: "list[_Play]" = field(default_factory=list)
    waits: "list[_Play]" = field(default_factory=list)
    behind: "list[_Play]" = field(default_factory=list)
    stores: list[_Store] = field(default_factory=list)
    """Of its readers that take only so much."""

    starts_ps: list[int] = field(default_factory=list)
    leaves_ps: list[int] = field(default_factory=list)
    """When the last item of each burst leaves the unit; of a burst that is not settled: not before."""

    first_ps: list[int] = field(default_factory=list)
    """Time of the first result of each burst."""

    n_settled: int = 0
    """Bursts whose last result is known for good."""

    known: dict[int, simpy.Event] = field(default_factory=dict)
    settled: dict[int, simpy.Event] = field(default_factory=dict)
    """What others wait for, by burst: that it has begun; that it is settled."""

    bursts: list[Burst] = field(default_factory=list)
    waits_for: str = ""
    """What it waits for, in words; read only where all wait for ever."""

    ring: "_Play | None" = None
    """For whom it waits, likewise."""

    end_ps: int = -1

    def work_until(self, item: int) -> int:
        """Work of the first *item* items, in ps."""
        return self.task.work_ps * item // self.task.n_items

    def result_ps(self, item: int) -> int:
        """When the result of *item* (from 1) is there; its burst must have begun."""
        burst = bisect_left(self.bounds, item)
        start, stop = (self.bounds[burst - 1] if burst else 0), self.bounds[burst]
        last = self.leaves_ps[burst] + self.task.lag_ps
        if item == stop:
            return last
        first = self.first_ps[burst]
        return first + (last - first) * (item - start - 1) // (stop - start - 1)

    def begin_ps(self, item: int, burst: int) -> int:
        """When *item* (from 1), of *burst*, which must have begun, begins."""
        before, stop = (self.bounds[burst - 1] if burst else 0), self.bounds[burst]
        first = self.starts_ps[burst]
        if item == before + 1:
            return first
        last = self.leaves_ps[burst] - self.work_until(stop) + self.work_until(stop - 1)
        return first + (last - first) * (item - before - 1) // (stop - before - 1)

    def begun(self, env: simpy.Environment, burst: int) -> simpy.Event:
        """Return what happens when *burst* begins; it must not have begun."""
        return self.known.setdefault(burst, env.event())


def play(program: Program, *, burst: int | None = None) -> list[Span]:
    """Play *program* and return the span of every task, in the program's order.

    A burst has *burst* items; by default each task is cut into `BURSTS_PER_TASK`. Tasks with stores between them are
    cut into as many as the one of them with most items: a burst that is longer than its room must end where that of
    its reader does. Raises SimulationError when tasks wait for each other for ever, or a store could not hold what one
    item of its reader needs.
    """
    env = simpy.Environment()
    units = {unit: _Unit(program.servers_of(unit)) for unit in dict.fromkeys(task.unit for task in program.tasks)}
    n_bursts = _bursts_of(program, burst)
    plays = {task.name: _Play(task, _bounds(task.n_items, n_bursts[task.name]), env.event()) for task in program.tasks}
    for run in plays.values():
        run.feeders = [_named(plays, name, run.task) for name in run.task.streams]
        run.waits = [_named(plays, name, run.task) for name in run.task.after]
        run.behind = [_named(plays, name, run.task) for name in run.task.behind]
        for name, room in run.task.rooms.items():
            _check_room(run.task, name, room, plays)
            plays[name].stores.append(_Store(run, room))
        _check_servers(run.task, program)
        env.process(_perform(env, run, units[run.task.unit]))
    env.run()
    stuck = [run for run in plays.values() if not run.done.triggered]
    if stuck:
        raise SimulationError(
            f"program: every task must come to its end, got {len(stuck)} that wait: {_waiting(stuck)}"
        )
    return [
        Span(task.name, task.layer, task.unit, run.starts_ps[0], run.end_ps, task.work_ps, tuple(run.bursts))
        for task, run in zip(program.tasks, plays.values(), strict=True)
    ]


def _named(plays: dict[str, _Play], name: str, task: Task) -> _Play:
    if name not in plays:
        raise SimulationError(f"{task.name}: must wait for tasks of the program, got {name!r}")
    return plays[name]


def _check_room(task: Task, name: str, room: int, plays: dict[str, _Play]) -> None:
    if name not in task.streams:
        raise SimulationError(f"{task.name}: must have room for those that feed it, got {name!r}")
    least = -(-plays[name].task.n_items // task.n_items)
    if room < least:
        raise SimulationError(
            f"{task.name}: must have room for the {least} items of {name} that one of its own needs, got {room}"
        )


def _check_servers(task: Task, program: Program) -> None:
    if task.n_servers > program.servers_of(task.unit):
        raise SimulationError(
            f"{task.name}: must take at most the {program.servers_of(task.unit)} servers of {task.unit}, "
            f"got {task.n_servers}"
        )


def _bursts_of(program: Program, burst: int | None) -> dict[str, int]:
    """Return how many bursts each task is cut into, if it has that many items."""
    if burst is None:
        return {task.name: BURSTS_PER_TASK for task in program.tasks}
    together: dict[str, list[str]] = {}  # tasks with stores between them, one list for all of them
    for task in program.tasks:
        for name in task.rooms:
            here, there = together.setdefault(task.name, [task.name]), together.setdefault(name, [name])
            if here is not there:
                here += there
                together.update(dict.fromkeys(there, here))
    most = {id(names): max(program.task_of[name].n_items for name in names) for names in together.values()}
    return {
        task.name: -(-(most[id(together[task.name])] if task.name in together else task.n_items) // burst)
        for task in program.tasks
    }


def _bounds(n_items: int, n_bursts: int) -> list[int]:
    n_bursts = min(n_items, n_bursts)
    return [n_items * (i + 1) // n_bursts for i in range(n_bursts)]


def _perform(env: simpy.Environment, run: _Play, unit: _Unit) -> Generator[simpy.Event, Any, None]:
    """Play one task: a SimPy process."""
    task, begin, start, pace = run.task, 0, 0, 0
    reason: Reason = "begin"
    cause = ""
    if task.release_ps > env.now:
        yield env.timeout(task.release_ps - env.now)
        reason = "release"
    for other in run.waits:
        if not other.done.processed:
            run.waits_for, run.ring = other.task.name, other
            yield other.done
            reason, cause = "after", other.task.name
    for other in run.behind:
        if not other.starts_ps:
            run.waits_for, run.ring = f"{other.task.name} to begin", other
            yield other.begun(env, 0)
            reason, cause = "behind", other.task.name
    for number, end in enumerate(run.bounds):
        needs: list[tuple[_Play, int, int]] = []  # who feeds this burst, up to which of its items and bursts
        first_input = 0
        first_feeder = ""
        for feeder in run.feeders:
            first, last = _needed(run, number, begin, end, feeder)
            burst = bisect_left(feeder.bounds, last)
            needs.append((feeder, last, burst))
            if len(feeder.starts_ps) <= burst:
                run.waits_for, run.ring = feeder.task.name, feeder
                yield feeder.begun(env, burst)
                reason, cause = "stream", feeder.task.name
            if (at := feeder.result_ps(first)) > first_input:
                first_input, first_feeder = at, feeder.task.name
        if first_input > env.now:
            yield env.timeout(first_input - env.now)
            reason, cause = "stream", first_feeder
        if start + pace > env.now:
            yield env.timeout(start + pace - env.now)
            reason, cause = "space", run.stores[0].reader.task.name
        for store in run.stores:
            while (at := _room_ps(run, store, begin + 1, number)) > env.now or at < 0:
                run.waits_for, run.ring = f"room before {store.reader.task.name}", store.reader
                yield _more_room(env, run, store, begin + 1, number) if at < 0 else env.timeout(at - env.now)
                reason, cause = "space", store.reader.task.name
        asked = env.now
        if unit.n_free < task.n_servers or unit.queue:
            turn = env.event()
            unit.queue.append((turn, task.n_servers))
            yield turn
        else:
            unit.n_free -= task.n_servers
        start = int(env.now)
        if start > asked:
            reason, cause = "unit", unit.user
        work, one = run.work_until(end) - run.work_until(begin), run.work_until(end) - run.work_until(end - 1)
        least, pace = _in_turns_ps(run, end - begin, work) if run.stores else (0, 0)
        own_end = start + max(work, least)
        last_input, last_feeder = _last_input(needs)
        run.starts_ps.append(start)
        run.first_ps.append(start + run.work_until(begin + 1) - run.work_until(begin) + task.lag_ps)
        run.leaves_ps.append(max(own_end, last_input + one))
        is_settled = not run.stores and all(feeder.n_settled > burst for feeder, _, burst in needs)
        if is_settled:
            run.n_settled = number + 1
        if number in run.known:
            run.known.pop(number).succeed()
        if work:
            yield env.timeout(work)
        # while a burst waits for those that feed it, or for room, its unit is free for others
        unit.leave(task.name, task.n_servers)
        stalled_by = ""
        if not is_settled:
            for feeder, _, burst in needs:
                if feeder.n_settled <= burst:
                    run.waits_for, run.ring = feeder.task.name, feeder
                    yield feeder.settled.setdefault(burst, env.event())
            last_input, last_feeder = _last_input(needs)
            leaves = max(own_end, last_input + one)
            for store in run.stores:
                while (at := _room_ps(run, store, end, number + 1)) < 0:
                    run.waits_for, run.ring = f"room before {store.reader.task.name}", store.reader
                    yield _more_room(env, run, store, end, number + 1)
                if at + one > leaves:
                    leaves, stalled_by = at + one, store.reader.task.name
            run.leaves_ps[number] = max(leaves, int(env.now))
            run.n_settled = number + 1
            if number in run.settled:
                run.settled.pop(number).succeed()
        leaves = run.leaves_ps[number]
        ended_after = "" if stalled_by or last_input + one <= own_end else last_feeder
        run.bursts.append(Burst(start, leaves, reason, cause, ended_after, stalled_by))
        if leaves > env.now:
            yield env.timeout(leaves - env.now)
        begin = end
        reason, cause = "own", ""
    if task.lag_ps:
        yield env.timeout(task.lag_ps)
    run.end_ps = int(env.now)
    run.done.succeed()


def _last_input(needs: list[tuple[_Play, int, int]]) -> tuple[int, str]:
    """Return when the last of what a burst needs is there, as far as is known, and who brings it."""
    last_input, last_feeder = 0, ""
    for feeder, last, _ in needs:
        if (at := feeder.result_ps(last)) > last_input:
            last_input, last_feeder = at, feeder.task.name
    return last_input, last_feeder


def _needed(run: _Play, number: int, begin: int, end: int, feeder: _Play) -> tuple[int, int]:
    """Return which items of *feeder* the first and the last item of a burst need: the same share of the whole.

    Where that falls a little behind the end of the feeder's corresponding burst, that burst's end will do.
    """
    n, n_feeder = run.task.n_items, feeder.task.n_items
    corresponding = -(-(number + 1) * len(feeder.bounds) // len(run.bounds)) - 1
    last = min(-(-end * n_feeder // n), feeder.bounds[corresponding])
    return min(-(-(begin + 1) * n_feeder // n), last), last


def _taken(run: _Play, store: _Store, item: int, n_bursts: int) -> int:
    """Return which item of the reader must have begun before there is room for *item*; 0 where there always is.

    A reader that begins an item takes all that this item needs. Where that lies in a burst of the reader that needs
    more than the first *n_bursts* of *run*, what it can begin without them will do.
    """
    reader = store.reader
    if item <= store.room:
        return 0
    taken = (item - store.room - 1) * reader.task.n_items // run.task.n_items + 1
    whole = n_bursts * len(reader.bounds) // len(run.bounds)
    return min(taken, reader.bounds[whole - 1]) if whole else 0


def _room_ps(run: _Play, store: _Store, item: int, n_bursts: int) -> int:
    """Return when there is room for *item* in *store*; -1 where a reader has not yet begun what tells."""
    taken = _taken(run, store, item, n_bursts)
    if not taken:
        return 0
    reader = store.reader
    burst = bisect_left(reader.bounds, taken)
    if len(reader.starts_ps) <= burst:
        return -1
    at = reader.begin_ps(taken, burst)
    if reader.n_settled <= burst and taken > (reader.bounds[burst - 1] if burst else 0) + 1:
        for further in reader.stores:  # the reader may itself want room
            further_ps = _room_ps(reader, further, taken, burst + 1)
            if further_ps < 0:
                return -1
            at = max(at, further_ps)
    return at


def _more_room(env: simpy.Environment, run: _Play, store: _Store, item: int, n_bursts: int) -> simpy.Event:
    """Return what must happen before it is known when there is room for *item*: the beginning of a burst."""
    reader, taken = store.reader, _taken(run, store, item, n_bursts)
    burst = bisect_left(reader.bounds, taken)
    if len(reader.starts_ps) <= burst:
        return reader.begun(env, burst)
    unknown = next(s for s in reader.stores if _room_ps(reader, s, taken, burst + 1) < 0)
    return _more_room(env, reader, unknown, taken, burst + 1)


def _in_turns_ps(run: _Play, n_items: int, work: int) -> tuple[int, int]:
    """Return the least time of *n_items* items in a row, and until the next may begin, where lag takes room, too.

    Of a burst that is longer than the room: results that are on their way lie in the store like those that are there.
    """
    least = pace = 0
    for store in run.stores:
        together = -(-run.task.n_items // store.reader.task.n_items)  # items that the reader takes at once
        at_once = store.room // together * together
        if n_items > at_once:
            turns, turn = (n_items - 1) // at_once, work * together // n_items + run.task.lag_ps
            least = max(least, turns * turn + work * (n_items - turns * at_once) // n_items)
            pace = max(pace, turn * n_items // at_once)
    return least, pace


def _waiting(stuck: list[_Play]) -> str:
    """Say who waits for whom, for the first few, those first that wait for each other in a ring."""
    run: _Play | None = stuck[0]
    path: list[_Play] = []
    while run is not None and run not in path:
        path.append(run)
        run = run.ring
    ring = path[path.index(run) :] if run is not None else []
    lines = [f"{run.task.name} waits for {run.waits_for}" for run in [*ring, *(r for r in stuck if r not in ring)][:5]]
    return "; ".join(lines) + ("; ..." if len(stuck) > 5 else "")


def busy_of_units(spans: list[Span]) -> Iterator[tuple[str, int]]:
    """Yield each unit with the time, in ps, that it was busy."""
    busy: Counter[str] = Counter()
    for span in spans:
        busy[span.unit] += span.busy_ps
    yield from busy.items()
