from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from strategies import programs

from imcsim.mapping.place import as_they_are, place
from imcsim.mapping.program import Program, Task
from imcsim.sim import play, simulate
from imcsim.sim.perfetto import events_of, tracks_of

CHAIN = Program((Task("a", "l", "x", 4, 400), Task("b", "l", "y", 4, 40, streams=("a",)),
                 Task("c", "l", "x", 1, 7, after=("a", "b"))))  # fmt: skip


def by_phase(program, **how):
    found = defaultdict(list)
    for event in events_of(program, play(program), "chip", **how)["traceEvents"]:
        found[event["ph"]].append(event)
    return found


def slices_around(event, slices):
    """The slices of an event's track that it lies in, their ends not included; a slice of no length has its moment."""
    ts = round(event["ts"] * 1e6)
    found = []
    for each in slices:
        start, length = round(each["ts"] * 1e6), round(each["dur"] * 1e6)
        if each["tid"] == event["tid"] and start <= ts < start + max(length, 1):
            found.append(each["name"])
    return found


def assert_well_formed(program, events):
    """The rules of the trace event format for flows: one start and one end an id, each in the slice that is meant."""
    starts, ends = ({e["id"]: e for e in events[phase]} for phase in ("s", "f"))
    assert set(starts) == set(ends)
    assert (len(starts), len(ends)) == (len(events["s"]), len(events["f"]))
    found = Counter()
    for i, start in starts.items():
        end = ends[i]
        assert (start["name"], start["cat"]) == (end["name"], end["cat"])
        assert start["ts"] <= end["ts"]
        assert end["bp"] == "e"
        (source,), (reader,) = (slices_around(event, events["X"]) for event in (start, end))
        found[start["name"], source, reader] += 1
    wanted = Counter(("after", other, task.name) for task in program.tasks for other in task.after)
    wanted += Counter(("stream", other, task.name) for task in program.tasks for other in task.streams)
    assert found == wanted


def test_an_arrow_goes_to_every_task_that_waits_for_another():
    events = by_phase(CHAIN)
    assert_well_formed(CHAIN, events)
    assert [(e["name"], e["ts"]) for e in events["s"]] == [("stream", 2e-4), ("after", 2e-4), ("after", 2.55e-4)]


def test_tasks_that_share_a_unit_burst_by_burst_have_tracks_of_their_own():
    program = Program((Task("a", "l", "bus", 2, 300), Task("b", "l", "bus", 2, 200), Task("c", "l", "z", 1, 0)))
    assert tracks_of(play(program, burst=1)) == ({"a": 1, "b": 2, "c": 3}, ["bus", "bus (2)", "z"])
    assert tracks_of(play(program, burst=2)) == ({"a": 1, "b": 1, "c": 2}, ["bus", "z"])


def test_of_too_many_arrows_those_stay_that_held_somebody_up():
    whole = events_of(CHAIN, play(CHAIN), "chip")
    assert whole["otherData"] == {"dependencies": 3, "dependencies_left_out": 0}
    some = events_of(CHAIN, play(CHAIN), "chip", most_flows=2)
    assert some["otherData"] == {"dependencies": 3, "dependencies_left_out": 1}
    assert [e["ts"] for e in some["traceEvents"] if e["ph"] == "s"] == [2e-4, 2.55e-4]  # "c" waited for "b", not "a"
    assert not [e for e in events_of(CHAIN, play(CHAIN), "chip", most_flows=0)["traceEvents"] if e["ph"] in "sf"]


@settings(max_examples=30)
@given(programs())
def test_every_arrow_is_bound_to_its_slices(program):
    assert_well_formed(program, by_phase(program))


@pytest.mark.parametrize("style", ["spatial", "temporal"])
def test_slices_of_a_track_do_not_overlap(tiny_graph, tiny_chip, style):
    trace = simulate(place(tiny_graph, tiny_chip, style=style, policy=as_they_are))
    last = {}
    for event in sorted((e for e in trace.to_events()["traceEvents"] if e["ph"] == "X"), key=lambda e: e["ts"]):
        assert event["ts"] >= last.get(event["tid"], 0.0) - 1e-9
        last[event["tid"]] = event["ts"] + event["dur"]
