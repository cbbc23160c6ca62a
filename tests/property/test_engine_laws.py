"""Laws of the event engine, for all programs."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import programs, seeds

from imcsim.analytic import bounds_ps
from imcsim.mapping.program import Program
from imcsim.sim import play
from imcsim.sim.critical_path import critical_path

laws = settings(max_examples=60)
BURSTS = st.sampled_from([None, 1, 2, 7, 1000])


def makespan(spans):
    return max(span.end_ps for span in spans)


def shuffled(program, seed):
    """The same tasks in another order in which everyone comes behind those it waits for."""
    rng = np.random.default_rng(seed)
    waiting, order = list(program.tasks), []
    while waiting:
        listed = {task.name for task in order}
        free = [task for task in waiting if {*task.after, *task.streams} <= listed]
        order.append(free[rng.integers(len(free))])
        waiting.remove(order[-1])
    return Program(tuple(order))


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
        for other in task.streams:
            assert spans[task.name].end_ps >= spans[other].end_ps
            assert spans[task.name].start_ps >= spans[other].start_ps


@laws
@given(programs(), BURSTS)
def test_a_unit_is_never_busier_than_the_time_there_is(program, burst):
    spans = play(program, burst=burst)
    for unit in {span.unit for span in spans}:
        mine = [span for span in spans if span.unit == unit]
        assert sum(span.busy_ps for span in mine) <= makespan(mine) - min(span.start_ps for span in mine)


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


@laws
@given(programs(), BURSTS)
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
