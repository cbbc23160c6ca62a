import pytest

from imcsim.errors import SimulationError
from imcsim.mapping.program import Program, Task
from imcsim.sim.engine import BURSTS_PER_TASK, busy_of_units, play


def task(name, unit, n_items, work_ps, *, lag=0, after=(), streams=()):
    return Task(name, "layer", unit, n_items, work_ps, lag_ps=lag, after=tuple(after), streams=tuple(streams))


def log(*tasks, burst=None):
    return {span.task: (span.start_ps, span.end_ps) for span in play(Program(tasks), burst=burst)}


every_burst = pytest.mark.parametrize("burst", [None, 1, 2, 3, 1000])


@every_burst
def test_a_task_alone_takes_its_work_and_its_lag(burst):
    assert log(task("a", "bus", 7, 700, lag=30), burst=burst) == {"a": (0, 730)}


@every_burst
def test_two_tasks_on_one_unit_take_turns(burst):
    assert log(task("a", "bus", 1, 300), task("b", "bus", 1, 200), burst=burst) == {"a": (0, 300), "b": (300, 500)}


def test_tasks_of_several_items_take_turns_burst_by_burst():
    two = task("a", "bus", 2, 300), task("b", "bus", 2, 200)
    assert log(*two, burst=1) == {"a": (0, 400), "b": (150, 500)}
    assert log(*two, burst=2) == {"a": (0, 300), "b": (300, 500)}


@every_burst
def test_tasks_on_units_of_their_own_run_side_by_side(burst):
    assert log(task("a", "x", 3, 300), task("b", "y", 2, 200), burst=burst) == {"a": (0, 300), "b": (0, 200)}


@every_burst
def test_a_task_begins_when_all_that_it_waits_for_have_ended(burst):
    tasks = task("a", "x", 2, 300, lag=20), task("b", "y", 1, 100), task("c", "z", 3, 30, after=["a", "b"])
    assert log(*tasks, burst=burst) == {"a": (0, 320), "b": (0, 100), "c": (320, 350)}


@every_burst
def test_a_stream_passes_items_on_one_by_one(burst):
    tasks = task("make", "x", 4, 400), task("take", "y", 4, 400, streams=["make"])
    assert log(*tasks, burst=burst) == {"make": (0, 400), "take": (100, 500)}


@every_burst
def test_a_slow_reader_begins_with_the_first_item_and_never_waits_again(burst):
    tasks = task("make", "x", 4, 400), task("take", "y", 4, 800, streams=["make"])
    assert log(*tasks, burst=burst) == {"make": (0, 400), "take": (100, 900)}


@every_burst
def test_a_fast_reader_ends_one_item_behind_what_feeds_it(burst):
    tasks = task("make", "x", 4, 400), task("take", "y", 4, 40, streams=["make"])
    assert log(*tasks, burst=burst) == {"make": (0, 400), "take": (100, 410)}


@every_burst
def test_the_lag_of_a_stream_comes_once(burst):
    tasks = task("make", "x", 4, 400, lag=70), task("take", "y", 4, 400, lag=5, streams=["make"])
    assert log(*tasks, burst=burst) == {"make": (0, 470), "take": (170, 575)}


def test_a_reader_of_fewer_items_waits_for_its_share_of_each():
    tasks = task("make", "x", 4, 400), task("take", "y", 2, 20, streams=["make"])
    assert log(*tasks, burst=1) == {"make": (0, 400), "take": (200, 410)}


def test_a_reader_of_more_items_takes_several_from_each():
    tasks = task("make", "x", 2, 200), task("take", "y", 4, 40, streams=["make"])
    assert log(*tasks, burst=1) == {"make": (0, 200), "take": (100, 220)}


@every_burst
def test_a_reader_of_two_streams_waits_for_the_later_one(burst):
    tasks = task("a", "x", 4, 400), task("b", "y", 4, 800), task("c", "z", 4, 40, streams=["a", "b"])
    assert log(*tasks, burst=burst)["c"] == (200, 810)


def test_a_stream_waits_for_the_end_of_others_first():
    tasks = task("gate", "g", 1, 250), task("make", "x", 4, 400), task("take", "y", 4, 40, after=["gate"],
                                                                       streams=["make"])  # fmt: skip
    assert log(*tasks, burst=1)["take"] == (250, 410)


def test_bursts_change_how_many_events_are_played_and_here_nothing_else():
    chain = [task("t0", "u0", 160, 16000, lag=9)]
    chain += [task(f"t{i}", f"u{i}", 160, 160 * work, streams=[f"t{i - 1}"]) for i, work in enumerate([70, 130, 50], 1)]
    assert log(*chain) == log(*chain, burst=1)
    assert BURSTS_PER_TASK < 160


@every_burst
def test_busy_times_are_the_work_whatever_was_waited_for(burst):
    tasks = task("make", "x", 4, 400), task("take", "y", 4, 40, streams=["make"]), task("more", "y", 1, 7)
    spans = play(Program(tasks), burst=burst)
    assert [span.busy_ps for span in spans] == [400, 40, 7]
    assert dict(busy_of_units(spans)) == {"x": 400, "y": 47}


@every_burst
def test_the_clock_counts_whole_picoseconds_whatever_the_shares(burst):
    spans = play(Program((task("a", "x", 7, 100), task("b", "y", 3, 101, streams=["a"]))), burst=burst)
    assert all(isinstance(time, int) for span in spans for time in (span.start_ps, span.end_ps))
    assert spans[0].end_ps == 100


def test_a_program_of_no_tasks_is_played_at_once():
    assert play(Program(())) == []


def test_tasks_that_wait_for_each_other_are_named_with_whom_they_wait_for():
    message = r"^program: every task must come to its end, got 2 that wait: a waits for b; b waits for a$"
    with pytest.raises(SimulationError, match=message):
        log(task("a", "x", 1, 1, after=["b"]), task("b", "y", 1, 1, after=["a"]), task("c", "z", 1, 1))
    with pytest.raises(SimulationError, match=message):
        log(task("a", "x", 1, 1, streams=["b"]), task("b", "y", 1, 1, after=["a"]))


def test_only_the_first_of_many_that_wait_are_named():
    ring = [task(f"t{i}", "x", 1, 1, after=[f"t{(i + 1) % 7}"]) for i in range(7)]
    with pytest.raises(SimulationError, match=r"got 7 that wait: t0 waits for t1; .*; t4 waits for t5; \.\.\.$"):
        log(*ring)


def test_a_task_that_waits_for_nobody_known_is_refused():
    with pytest.raises(SimulationError, match=r"^a: must wait for tasks of the program, got 'ghost'$"):
        log(task("a", "x", 1, 1, after=["ghost"]))
    with pytest.raises(SimulationError, match=r"^a: must wait for tasks of the program, got 'ghost'$"):
        log(task("a", "x", 1, 1, streams=["ghost"]))


def test_a_burst_that_waits_for_its_feeder_leaves_the_unit_to_others():
    # "b" is fed by "a" on the very same unit: were it to keep the unit while it waits, "a" could never go on in time
    program = Program(
        (
            Task("a", "l", "bus", n_items=8, work_ps=80, lag_ps=10),
            Task("b", "l", "bus", n_items=4, work_ps=40, streams=("a",)),
        )
    )
    assert max(span.end_ps for span in play(program, burst=2)) <= 80 + 10 + 40
