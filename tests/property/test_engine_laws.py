"""Laws of the event engine, for all programs."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import programs, seeds

from imcsim.analytic import bounds_ps
from imcsim.mapping.program import Program, Task
from imcsim.sim import play
from imcsim.sim.critical_path import critical_path

laws = settings(max_examples=30)
BURSTS = st.sampled_from([None, 1, 2, 7, 1000])


def makespan(spans):
    return max(span.end_ps for span in spans)


def shuffled(program, seed):
    """The same tasks in another order in which everyone comes behind those it waits for."""
    rng = np.random.default_rng(seed)
    waiting, order = list(program.tasks), []
    while waiting:
        listed = {task.name for task in order}
        free = [task for task in waiting if {*task.after, *task.behind, *task.streams} <= listed]
        order.append(free[rng.integers(len(free))])
        waiting.remove(order[-1])
    return Program(tuple(order), program.servers)


@laws
@given(programs(), BURSTS)
def test_played_time_stays_between_the_bounds(program, burst):
    least, greatest = bounds_ps(program)
    assert least <= makespan(play(program, burst=burst)) <= greatest


@laws
@given(programs(), BURSTS)
def test_a_task_takes_at_least_its_work_and_its_lag(program, burst):
    for span in play(program, burst=burst):
        task = program.task_of[span.task]
        assert span.end_ps - span.start_ps >= task.work_ps + task.lag_ps
        assert span.busy_ps == task.work_ps


@laws
@given(programs(), BURSTS)
def test_a_task_begins_behind_those_it_waits_for_and_ends_behind_those_that_feed_it(program, burst):
    spans = {span.task: span for span in play(program, burst=burst)}
    for task in program.tasks:
        for other in task.after:
            assert spans[task.name].start_ps >= spans[other].end_ps
        for other in task.behind:
            assert spans[task.name].start_ps >= spans[other].start_ps
        for other in task.streams:
            assert spans[task.name].end_ps >= spans[other].end_ps
            assert spans[task.name].start_ps >= spans[other].start_ps


@laws
@given(programs(), BURSTS)
def test_a_unit_is_never_busier_than_the_time_there_is(program, burst):
    spans = play(program, burst=burst)
    for unit in {span.unit for span in spans}:
        mine = [span for span in spans if span.unit == unit]
        held = sum(span.busy_ps * program.task_of[span.task].n_servers for span in mine)
        assert held <= program.servers_of(unit) * (makespan(mine) - min(span.start_ps for span in mine))


@laws
@given(programs(), BURSTS, seeds())
def test_the_order_in_which_tasks_are_listed_changes_no_action_and_no_bound(program, burst, seed):
    other = shuffled(program, seed)
    assert other.actions == program.actions
    assert bounds_ps(other) == bounds_ps(program)
    least, greatest = bounds_ps(program)
    assert least <= makespan(play(other, burst=burst)) <= greatest


@laws
@given(programs(), BURSTS)
def test_playing_twice_gives_the_same_times(program, burst):
    assert play(program, burst=burst) == play(program, burst=burst)


@laws
@given(programs())
def test_actions_of_layers_are_those_of_all_tasks(program):
    assert sum(program.actions.values(), Counter()) == sum((task.actions for task in program.tasks), Counter())


@st.composite
def lines(draw):
    """Tasks in a line, each with room for so many items before the next, and lags that are shorter than an item."""
    n, tasks = draw(st.integers(1, 120)), []
    for i in range(draw(st.integers(2, 4))):
        room = draw(st.sampled_from([1, 2, 5, 30, None]))
        work = draw(st.integers(10, 99))
        tasks.append(
            Task(
                f"t{i}", "line", f"unit{i}", n, n * work, lag_ps=draw(st.sampled_from([0, 0, 9])),
                streams=(f"t{i - 1}",) if i else (), rooms={f"t{i - 1}": room} if i and room else {},
            )
        )  # fmt: skip
    return Program(tuple(tasks))


@laws
@given(st.one_of(programs(), lines()), BURSTS)
def test_the_critical_path_tiles_the_time_without_gap_or_overlap(program, burst):
    spans = play(program, burst=burst)
    path = critical_path(program, spans)
    edges = [0, *(segment.end_ps for segment in path)]
    assert [segment.start_ps for segment in path] == edges[:-1]
    assert edges[-1] == makespan(spans)
    assert all(segment.start_ps < segment.end_ps for segment in path)
    assert all(segment.kind != "wait" for segment in path)  # nobody waits for nothing


@laws
@given(programs(), BURSTS)
def test_no_unit_and_no_lag_of_the_critical_path_is_longer_than_its_task_has(program, burst):
    spans = play(program, burst=burst)
    spent = Counter()
    for segment in critical_path(program, spans):
        spent[segment.task, segment.kind == "lag"] += segment.end_ps - segment.start_ps
    for (name, is_lag), ps in spent.items():
        task = program.task_of[name]
        assert is_lag or ps <= task.work_ps


@settings(max_examples=20)
@given(lines())
def test_bursts_before_full_stores_take_the_time_of_single_items(program):
    one, many = play(program, burst=1), play(program)
    for single, burst in zip(one, many, strict=True):
        assert burst.busy_ps == single.busy_ps
        assert abs(burst.end_ps - single.end_ps) <= 0.01 * single.end_ps
    least, greatest = bounds_ps(program)
    assert least <= makespan(one) <= greatest
    assert least <= makespan(many) <= greatest


@settings(max_examples=20)
@given(lines())
def test_a_store_never_holds_less_than_nothing_nor_more_than_its_room(program):
    spans = {span.task: span for span in play(program, burst=1)}
    for task in program.tasks:
        for feeder, room in task.rooms.items():
            made = sorted(burst.start_ps for burst in spans[feeder].bursts)
            taken = sorted(burst.start_ps for burst in spans[task.name].bursts)
            lag = program.task_of[feeder].lag_ps
            there = sorted(burst.end_ps + lag for burst in spans[feeder].bursts)
            for i, at in enumerate(made):  # with what is taken at that very moment
                assert i + 1 - sum(t <= at for t in taken) <= room
            assert all(arrives <= t for arrives, t in zip(there, taken, strict=True))
