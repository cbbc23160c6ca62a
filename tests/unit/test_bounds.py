from imcsim.analytic import bounds_ps
from imcsim.mapping.program import Program, Task


def bounds(*tasks):
    return bounds_ps(Program(tasks))


def test_one_task_leaves_no_room():
    assert bounds(Task("a", "layer", "x", 4, 100, lag_ps=7)) == (107, 107)


def test_work_of_one_unit_adds_up_and_work_of_two_may_overlap():
    assert bounds(Task("a", "layer", "x", 1, 100), Task("b", "layer", "x", 1, 50)) == (150, 150)
    assert bounds(Task("a", "layer", "x", 1, 100), Task("b", "layer", "y", 1, 50)) == (100, 150)


def test_tasks_after_one_another_add_up():
    tasks = Task("a", "layer", "x", 1, 100, lag_ps=5), Task("b", "layer", "y", 1, 50, after=("a",))
    assert bounds(*tasks) == (155, 155)


def test_a_stream_needs_at_least_one_item_of_each_beyond_its_slowest():
    slow_reader = Task("a", "layer", "x", 4, 400), Task("b", "layer", "y", 4, 800, streams=("a",))
    fast_reader = Task("a", "layer", "x", 4, 400), Task("b", "layer", "y", 4, 40, streams=("a",))
    assert bounds(*slow_reader) == (900, 1200)
    assert bounds(*fast_reader) == (410, 440)


def test_requests_are_waited_for():
    tasks = Task("a", "layer", "x", 1, 100), Task("b", "layer", "x", 1, 50, release_ps=400)
    assert bounds(*tasks) == (450, 550)


def test_no_work_takes_no_time():
    assert bounds() == (0, 0)
