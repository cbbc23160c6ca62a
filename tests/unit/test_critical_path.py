import pytest

from imcsim.mapping.program import Program, Task
from imcsim.sim import play
from imcsim.sim.critical_path import critical_path


def task(name, unit, n_items, work_ps, *, lag=0, after=(), streams=(), release=0):
    return Task(name, "layer", unit, n_items, work_ps, lag_ps=lag, after=tuple(after), streams=tuple(streams),
                release_ps=release)  # fmt: skip


def path(*tasks, burst=None):
    program = Program(tasks)
    return [
        (s.task, s.kind, s.start_ps, s.end_ps, s.holds_up) for s in critical_path(program, play(program, burst=burst))
    ]


every_burst = pytest.mark.parametrize("burst", [None, 1, 2, 1000])


@every_burst
def test_a_task_alone_is_the_path_its_work_and_its_lag(burst):
    assert path(task("a", "bus", 7, 700, lag=30), burst=burst) == [
        ("a", "work", 0, 700, "own"),
        ("a", "lag", 700, 730, ""),
    ]


@every_burst
def test_the_path_goes_through_the_task_that_ended_last(burst):
    tasks = task("a", "x", 2, 300, lag=20), task("b", "y", 1, 100), task("c", "z", 3, 30, after=["a", "b"])
    assert path(*tasks, burst=burst) == [
        ("a", "work", 0, 300, "own"),
        ("a", "lag", 300, 320, "after"),
        ("c", "work", 320, 350, ""),
    ]


@every_burst
def test_a_slow_reader_holds_the_path_from_the_first_item_on(burst):
    tasks = task("make", "x", 4, 400), task("take", "y", 4, 800, streams=["make"])
    assert path(*tasks, burst=burst) == [("make", "work", 0, 100, "stream"), ("take", "work", 100, 900, "")]


@every_burst
def test_of_a_fast_reader_only_the_last_item_is_on_the_path(burst):
    tasks = task("make", "x", 4, 400, lag=7), task("take", "y", 4, 40, streams=["make"])
    assert path(*tasks, burst=burst) == [
        ("make", "work", 0, 400, "own"),
        ("make", "lag", 400, 407, "stream"),
        ("take", "drain", 407, 417, ""),
    ]


def test_a_task_that_waits_for_its_unit_is_held_up_by_the_one_that_has_it():
    tasks = task("gate", "g", 1, 50), task("a", "bus", 1, 300), task("b", "bus", 1, 200, after=["gate"])
    assert path(*tasks) == [("a", "work", 0, 300, "unit"), ("b", "work", 300, 500, "")]


def test_two_tasks_that_take_turns_are_both_on_the_path():
    assert path(task("a", "bus", 2, 300), task("b", "bus", 2, 200), burst=1) == [
        ("a", "work", 0, 150, "unit"),
        ("b", "work", 150, 250, "unit"),
        ("a", "work", 250, 400, "unit"),
        ("b", "work", 400, 500, ""),
    ]


def test_what_waits_for_its_request_begins_the_path_with_a_wait():
    assert path(task("a", "x", 1, 40, release=100)) == [("a", "wait", 0, 100, "own"), ("a", "work", 100, 140, "")]


def test_tasks_that_take_no_time_are_not_on_the_path():
    tasks = [task(f"n{i}", "x", 3, 0, after=[f"n{i - 1}"] if i else []) for i in range(3)]
    assert path(*tasks) == []
    assert path(*tasks, task("a", "x", 3, 30, after=["n2"])) == [("a", "work", 0, 30, "")]


def test_a_program_of_no_tasks_has_no_path():
    assert path() == []
