import json

import pytest
from strategies import variant

from imcsim.costs.price import price
from imcsim.errors import OutputError, SimulationError
from imcsim.mapping.place import as_they_are, place
from imcsim.results import energy_of, latency_of
from imcsim.sim import simulate


@pytest.fixture(scope="module")
def plan(tiny_chip, tiny_graph):
    return place(tiny_graph, tiny_chip, style="temporal", policy=as_they_are)


@pytest.fixture(scope="module")
def trace(plan):
    return simulate(plan, seed=7)


def test_the_latency_is_the_end_of_the_last_task(trace):
    assert trace.latency_ps == max(span.end_ps for span in trace.spans)
    assert trace.latency_ns == trace.latency_ps / 1000


def test_what_layers_add_is_the_time_from_the_end_of_the_earlier_ones_to_their_own(trace):
    ends = {name: max(s.end_ps for s in trace.spans if s.layer == name) / 1000 for name in ("conv", "linear")}
    assert trace.added_ns == {"conv": ends["conv"], "linear": pytest.approx(ends["linear"] - ends["conv"])}


def test_row_writes_are_a_component_apart_from_accesses(trace):
    assert {"tile.write", "tile.array", "tile.pcu"} <= set(trace.busy_ns["conv"])
    # 12 accesses and 9 row writes of 2.3 ns each, on one tile
    assert trace.busy_ns["conv"]["tile.array"] == pytest.approx(12 * 2.3)
    assert trace.busy_ns["conv"]["tile.write"] == pytest.approx(9 * 2.3)


def test_a_layer_is_bound_by_what_holds_it_longest_with_the_lag_of_its_results(trace, tiny_graph, tiny_chip):
    assert trace.bound_by == {"conv": "main_memory", "linear": "main_memory"}  # little work, and 100 ns until it comes
    at_once = variant(tiny_chip, {"main_memory.latency_ns": 0.0})
    plan = place(tiny_graph, at_once, style="temporal", policy=as_they_are)
    assert simulate(plan).bound_by == {"conv": "tile.array", "linear": "tile.write"}


def test_energy_is_that_of_all_actions_and_what_the_chip_leaks_meanwhile(trace):
    costs = price(trace.plan.chip)
    spent = sum(n * costs.energy_pJ(action) for actions in trace.counts.values() for action, n in actions.items())
    assert trace.energy_pJ == pytest.approx(spent + costs.leakage_mW * trace.latency_ns)


def test_totals_are_sums_of_rows(trace):
    rows = trace.to_rows()
    assert energy_of(rows) == pytest.approx(trace.energy_pJ, rel=1e-12)
    assert latency_of(rows) == pytest.approx(trace.latency_ns, rel=1e-12)
    assert {row.engine for row in rows} == {"simulate"}
    assert {row.seed for row in rows} == {7}
    assert {row.phase for row in rows} == {"inference"}
    assert all(row.basis and row.source for row in rows if row.energy_pJ)


def test_the_setup_has_rows_of_its_own_phase(tiny_graph, tiny_chip):
    setup = simulate(place(tiny_graph, tiny_chip, style="spatial"), phase="setup")
    rows = setup.to_rows()
    assert {row.phase for row in rows} == {"setup"}
    assert energy_of(rows) == 0
    assert energy_of(rows, phase="setup") == pytest.approx(setup.energy_pJ, rel=1e-12)


def test_a_temporal_plan_has_an_empty_setup(plan):
    setup = simulate(plan, phase="setup")
    assert (setup.latency_ns, setup.energy_pJ, setup.to_rows()) == (0, 0, [])


def test_costs_may_be_handed_in(plan, trace):
    assert simulate(plan, price(plan.chip)).latency_ps == trace.latency_ps


def test_a_burst_has_at_least_one_item(plan):
    with pytest.raises(SimulationError, match=r"^burst: must be at least 1, got 0$"):
        simulate(plan, burst=0)


def test_the_trace_opens_in_perfetto_with_a_track_a_unit(trace, tmp_path):
    path = tmp_path / "new" / "trace.json"
    trace.to_perfetto(path)
    content = json.loads(path.read_text())
    events = content["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "s", "f"}
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    units = {span.unit for span in trace.spans}
    assert units <= set(names.values())
    assert {name.partition(" (")[0] for name in names.values()} == units  # one more each where its spans overlap
    assert len(names) == len(set(names.values()))
    slices = [e for e in events if e["ph"] == "X"]
    assert len(slices) == len(trace.spans)
    for event, span in zip(slices, trace.spans, strict=True):
        assert names[event["tid"]].partition(" (")[0] == span.unit
        assert event["name"] == span.task
        assert (event["ts"], event["ts"] + event["dur"]) == pytest.approx((span.start_ps / 1e6, span.end_ps / 1e6))
        assert event["dur"] >= 0


def test_slices_say_what_a_task_spent(trace):
    access = next(e for e in trace.to_events()["traceEvents"] if e["name"] == "conv/access.round0.tile0")
    assert access["args"] == {"items": 12, "busy_ns": pytest.approx(27.6), "tile.access": 12, "tile.column_read": 24}


def test_a_trace_that_cannot_be_written_is_one_line(trace, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/trace\.json: must be possible to write, got "):
        trace.to_perfetto(tmp_path / "file" / "trace.json")
