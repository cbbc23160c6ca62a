"""Bounded stores between tasks: literal answers, deadlock, and what is refused."""

import pytest
from strategies import variant

from imcsim.costs.price import price
from imcsim.errors import SimulationError
from imcsim.mapping.lower import lower
from imcsim.mapping.place import Split, place
from imcsim.mapping.program import Program, Task
from imcsim.sim.engine import Burst, play


def task(name, unit, n_items, work_ps, *, lag=0, after=(), **rooms):
    """A task that is fed by those in *rooms*; None: by a store without end."""
    bounded = {feeder: room for feeder, room in rooms.items() if room is not None}
    return Task(name, "layer", unit, n_items, work_ps, lag_ps=lag, after=after, streams=tuple(rooms), rooms=bounded)


def log(*tasks, burst=None):
    return {span.task: (span.start_ps, span.end_ps) for span in play(Program(tasks), burst=burst)}


every_burst = pytest.mark.parametrize("burst", [None, 1, 2, 5, 1000])


@every_burst
@pytest.mark.parametrize(("room", "end"), [(1, 320), (2, 220), (3, 120), (4, 50), (5, 50)])
def test_a_fast_producer_goes_no_further_ahead_of_a_slow_reader_than_there_is_room(burst, room, end):
    # the reader begins its items at 10, 110, 210, 310, 410; the producer begins its fifth when item 5 - room has begun
    tasks = task("make", "x", 5, 50), task("take", "y", 5, 500, make=room)
    assert log(*tasks, burst=burst) == {"make": (0, end), "take": (10, 510)}


@every_burst
def test_room_for_one_makes_a_pipeline_of_two_stages(burst):
    tasks = task("array", "x", 200, 200 * 23), task("pcus", "y", 200, 200 * 40, array=1)
    # the last access begins with the conversion before it
    assert log(*tasks, burst=burst) == {"array": (0, 23 + 198 * 40 + 23), "pcus": (23, 23 + 200 * 40)}


@every_burst
def test_a_store_that_is_never_full_changes_nothing(burst):
    tasks = task("make", "x", 6, 600), task("take", "y", 6, 60, make=1)
    assert log(*tasks, burst=burst) == {"make": (0, 600), "take": (100, 610)}


@every_burst
def test_want_of_room_is_handed_on_from_store_to_store(burst):
    tasks = task("a", "x", 50, 500), task("b", "y", 50, 1000, a=1), task("c", "z", 50, 5000, b=1)
    # c begins its items at 30, 130, ...; b begins its i-th when c begins its (i-1)-th, and a when b does
    ends = {"c": (30, 5030), "b": (10, 30 + 48 * 100 + 20), "a": (0, 30 + 47 * 100 + 10)}
    assert log(*tasks, burst=burst) == ends


def test_a_result_on_its_way_takes_room_too():
    tasks = task("make", "x", 4, 40, lag=30), task("take", "y", 4, 4, make=1)
    assert log(*tasks, burst=1) == log(*tasks, burst=4) == {"make": (0, 160), "take": (40, 161)}


def test_a_reader_of_fewer_items_makes_room_for_several_at_once():
    tasks = task("make", "x", 6, 60), task("take", "y", 2, 200, make=3)
    # the reader begins its items at 30 and 130; three more may be made from 30 on
    assert log(*tasks, burst=1) == {"make": (0, 60), "take": (30, 230)}
    tasks = task("make", "x", 9, 90), task("take", "y", 3, 300, make=3)
    assert log(*tasks, burst=1) == {"make": (0, 160), "take": (30, 330)}


def test_a_burst_says_who_left_it_no_room():
    make, take = play(Program((task("make", "x", 4, 40), task("take", "y", 4, 400, make=1))), burst=2)
    assert make.bursts == (
        Burst(0, 20, "begin", "", ""),
        Burst(110, 220, "space", "take", "", stalled_by="take"),
    )
    assert [burst.begun_by for burst in take.bursts] == ["stream", "own"]


def test_a_task_that_waits_for_room_leaves_its_unit_to_others():
    tasks = task("make", "x", 4, 40), task("take", "y", 4, 400, make=1), task("other", "x", 1, 50)
    assert log(*tasks, burst=1)["other"] == (10, 60)


def test_tasks_that_wait_for_room_for_ever_are_named():
    # the reader waits for a task that needs all that the store cannot hold
    tasks = task("make", "x", 4, 40), task("all", "y", 1, 10, make=None), task("take", "z", 4, 40, make=2, all=None)
    message = (
        r"^program: every task must come to its end, got 3 that wait: "
        r"make waits for room before take; take waits for all; all waits for make$"
    )
    for burst in (1, None):
        with pytest.raises(SimulationError, match=message):
            log(*tasks, burst=burst)


def test_a_ring_is_named_before_those_that_wait_for_it():
    tasks = [task(f"t{i}", "x", 1, 1, after=("a",)) for i in range(7)]
    tasks += [task("a", "x", 1, 1, after=("b",)), task("b", "x", 1, 1, after=("a",))]
    with pytest.raises(SimulationError, match=r"got 9 that wait: a waits for b; b waits for a; t0 waits for a; "):
        log(*tasks)


def test_room_that_does_not_hold_what_one_item_needs_is_refused():
    with pytest.raises(SimulationError, match=r"^take: must have room for the 3 items of make .* needs, got 2$"):
        log(task("make", "x", 5, 40), task("take", "y", 2, 40, make=2))
    with pytest.raises(SimulationError, match=r"^take: must have room for the 1 items of make .* needs, got 0$"):
        log(task("make", "x", 5, 40), task("take", "y", 5, 40, make=0))
    with pytest.raises(SimulationError, match=r"^take: must have room for those that feed it, got 'make'$"):
        log(task("make", "x", 5, 40), Task("take", "layer", "y", 5, 40, rooms={"make": 1}))


def two_chunks(*_):
    return [Split(1, 1), Split(2, 1)]


def test_sample_and_holds_keep_one_access(tiny_chip, tiny_graph):
    program = lower(*plan_and_costs(tiny_chip, tiny_graph))
    assert program.task_of["linear/convert.round0.tile1"].rooms == {"linear/access.round0.tile1": 1}


def test_the_psum_buffer_takes_a_vector_in_as_many_pieces_as_it_needs(tiny_chip, tiny_graph):
    # 2 psums of 4 bits for each of 3 outputs: 24 bits a vector
    for capacity, n_items, room in ((65536, 1, 2730), (48, 1, 2), (24, 2, 2), (16, 3, 2)):
        chip = variant(tiny_chip, {"psum_buffer.capacity_bits": capacity})
        tasks = lower(*plan_and_costs(chip, tiny_graph)).task_of
        write, read = tasks["linear/psums.round0"], tasks["linear/psums.read.round0"]
        assert (write.n_items, read.n_items, read.rooms) == (n_items, n_items, {write.name: room})
        assert write.actions["psum_buffer.write"] == read.actions["psum_buffer.read"] == 24


def plan_and_costs(chip, graph):
    return place(graph, chip, policy=two_chunks), price(chip)


@pytest.mark.parametrize("burst", [2, 7, 100, 10**6])
def test_bursts_of_any_length_come_to_their_end_where_stores_lie_between_tasks_of_different_items(burst):
    make, take, few = task("make", "x", 60, 600), task("take", "y", 60, 900, make=1), task("few", "z", 4, 40, take=30)
    played = {span.task: span.end_ps for span in play(Program((make, take, few)), burst=burst)}
    assert played["few"] >= 910 + 10
    assert played["make"] <= played["take"] <= played["few"]
