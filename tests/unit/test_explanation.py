from types import SimpleNamespace

import pytest

import imcsim
from imcsim.costs.price import price
from imcsim.errors import SimulationError
from imcsim.mapping.place import as_they_are, place
from imcsim.mapping.program import Program, Task
from imcsim.sim import play, simulate
from imcsim.sim.stalls import Use, use_of_units
from imcsim.sim.what_if import free


@pytest.fixture(scope="module")
def trace(tiny_chip, tiny_graph):
    return simulate(place(tiny_graph, tiny_chip, style="temporal", policy=as_they_are))


@pytest.fixture(scope="module")
def found(trace):
    return imcsim.explain(trace)


def uses(*tasks, burst=None):
    program = Program(tasks)
    spans = tuple(play(program, burst=burst))
    latency_ps = max(span.end_ps for span in spans)
    return use_of_units(SimpleNamespace(program=program, spans=spans, latency_ps=latency_ps))


def test_the_path_of_the_layers_adds_up_to_the_latency(trace, found):
    assert sum(times.total() for times in found.path_ps.values()) == trace.latency_ps
    assert found.path_of_component_ps.total() == trace.latency_ps
    assert sum(layer["path_ns"] for layer in found.summary["layers"]) == pytest.approx(trace.latency_ns)
    assert set(found.path_of_component_ps) <= set(found.without)


def test_a_component_is_free_when_its_actions_take_no_time(trace, found):
    costs = free(price(trace.plan.chip), ["main_memory.read", "main_memory.write"])
    assert found.without["main_memory"].actions == ("main_memory.read", "main_memory.write")
    assert found.without["main_memory"].latency_ns == simulate(trace.plan, costs).latency_ns
    assert costs.energy_pJ("main_memory.read") == trace.costs.energy_pJ("main_memory.read")


def test_what_waits_for_main_memory_is_bound_by_it(trace, found):
    assert found.bound_by == {"conv": "main_memory", "linear": "main_memory"}
    assert found.helps_most() == "main_memory"
    assert found.speedup("main_memory") == trace.latency_ns / found.without["main_memory"].latency_ns > 2
    assert found.helps_most(but="main_memory") != "main_memory"


def test_the_answer_in_words_names_layer_component_and_speedup(trace, found):
    first, *_ = found.sentences
    layer = max(trace.added_ns, key=trace.added_ns.get)
    assert first.startswith(f"{layer} takes ")
    assert "spent in main memory" in first
    assert first.endswith(f"the whole {found.speedup('main_memory'):.2f} times as fast.")


def test_the_path_as_csv_has_a_line_a_segment(trace, found):
    head, *lines = found.to_csv().splitlines()
    assert head == "task,layer,unit,component,kind,holds_up,start_ns,end_ns"
    assert len(lines) == len(found.path)
    assert lines[-1].endswith(f"{trace.latency_ns:.3f}")


def test_an_empty_trace_is_explained_in_one_sentence(trace):
    empty = imcsim.explain(simulate(trace.plan, phase="setup"))
    assert empty.sentences == ["Nothing takes any time."]
    assert (empty.summary["layers"], empty.summary["units"]) == ([], [])


def test_a_trace_of_single_items_is_explained_by_single_items(tiny_chip, tiny_graph):
    plan = place(tiny_graph, tiny_chip, style="spatial")
    found = imcsim.explain(simulate(plan, burst=1))
    costs = free(price(tiny_chip), found.without["sfu"].actions)
    assert found.without["sfu"].latency_ns == simulate(plan, costs, burst=1).latency_ns


def test_only_actions_that_take_time_can_be_free(tiny_chip):
    with pytest.raises(
        SimulationError, match=r"^free: must be given actions that take time, got 'tile\.x'; there are "
    ):
        free(price(tiny_chip), ["tile.x"])


def test_the_time_of_every_unit_adds_up_to_the_latency(trace, found):
    servers = {unit: trace.program.servers_of(unit) for unit in found.units}
    assert servers["main_memory"] == 8
    assert {unit: use.all_ps for unit, use in found.units.items()} == {
        unit: n * trace.latency_ps for unit, n in servers.items()
    }
    assert all(sum(use.shares.values()) == pytest.approx(1) for use in found.units.values())


def test_a_reader_waits_for_inputs_and_then_has_nothing_to_do():
    found = uses(
        Task("make", "l", "x", 4, 400, lag_ps=20),
        Task("take", "l", "y", 4, 40, streams=("make",)),
        Task("last", "l", "z", 1, 50, after=("take",)),
        burst=1,
    )
    assert found == {
        "x": Use(busy_ps=400, idle_ps=80),
        "y": Use(busy_ps=40, inputs_ps=390, idle_ps=50),
        "z": Use(busy_ps=50, end_ps=430),
    }


def test_until_its_layer_begins_a_unit_has_nothing_to_do():
    found = uses(
        Task("a", "l", "x", 1, 100),
        Task("b", "m", "x", 1, 30, after=("a",)),
        Task("c", "m", "y", 1, 7, after=("b",)),
        Task("d", "m", "z", 1, 5, release_ps=120),
    )
    assert found["y"] == Use(busy_ps=7, end_ps=30, idle_ps=100)
    assert found["z"] == Use(busy_ps=5, idle_ps=132)
