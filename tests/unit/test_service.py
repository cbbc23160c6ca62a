import numpy as np
import pytest
from test_recurrent import big_lstm

from imcsim.analytic import estimate
from imcsim.arch.load import load_chip
from imcsim.costs.price import price
from imcsim.errors import ConfigError, DataError, MappingError, SimulationError
from imcsim.graph import REAL, Graph, Op, Quantize, Tensor, unsigned
from imcsim.mapping.place import place
from imcsim.mapping.requests import lower_requests
from imcsim.sim import serve, simulate
from imcsim.sim.arrivals import every, parse_arrivals, poisson, read_arrivals
from imcsim.workloads import load_workload


@pytest.fixture(scope="module")
def spatial(tiny_chip, tiny_graph):
    return place(tiny_graph, tiny_chip, style="spatial")


@pytest.fixture(scope="module")
def pipelined(tiny_chip, tiny_graph):
    return place(tiny_graph, tiny_chip, style="pipelined")


@pytest.mark.parametrize("style", ["spatial", "temporal"])
def test_one_at_a_time_a_request_begins_when_the_one_before_it_has_ended(tiny_chip, tiny_graph, style):
    plan = place(tiny_graph, tiny_chip, style=style)
    time_ps = simulate(plan).latency_ps
    served = serve(plan, [0, 1, 2, 10_000])
    assert served.starts_ps.tolist() == [0, time_ps, 2 * time_ps, 10_000_000]
    assert served.ends_ps.tolist() == [time_ps, 2 * time_ps, 3 * time_ps, 10_000_000 + time_ps]
    assert served.most_in_system == 3
    assert served.waits_ns.tolist() == [0, time_ps / 1000 - 1, 2 * time_ps / 1000 - 2, 0]


def test_a_request_alone_in_the_pipeline_takes_what_one_inference_takes(pipelined):
    alone = simulate(pipelined, burst=1).latency_ps
    served = serve(pipelined, [0, 5000, 10_000], burst=1)
    assert (served.ends_ps - served.arrivals_ps).tolist() == [alone] * 3
    assert serve(pipelined, [7], burst=1).throughput_per_s == pytest.approx(1e12 / alone)


def test_the_tasks_of_a_request_wait_for_those_of_the_one_before_and_for_a_place_in_the_buffer(pipelined):
    program = lower_requests(pipelined, price(pipelined.chip), [0, 10, 20])
    task = program.task_of
    assert pipelined.places_of == {"codes": 2, "edges": 2, "scores": 1}
    assert task["conv/read.round0#0"].after == ("conv/issue.0#0",)
    assert task["conv/read.round0#1"].after == ("conv/issue.0#1", "conv/read.round0#0")
    assert task["conv/qu#1"].release_ps == 10
    # Its output has two places: that of the request before is still in use, that of the second before was read.
    assert task["conv/issue.0#2"].after == ("conv/issue.0#1", "linear/read.round0#0")
    assert task["conv/fetch.codes#2"].after == ("conv/read.round0#0", "linear/read.round0#0")


def test_the_pipeline_works_for_two_requests_at_once(pipelined):
    alone = simulate(pipelined).latency_ns
    served = serve(pipelined, np.zeros(20))
    assert served.makespan_ns < 0.8 * 20 * alone
    assert np.all(np.diff(served.ends_ps) > 0)
    assert served.mean_in_system == pytest.approx(served.latencies_ns.sum() / served.makespan_ns)


def test_a_recurrent_layer_is_left_before_the_next_request_enters(tiny_chip):
    plan = place(big_lstm(), tiny_chip, style="pipelined")
    task = lower_requests(plan, price(tiny_chip), [0, 0]).task_of
    last = f"rnn/spill.t{plan.layers[1].n_steps - 1}#0"
    assert last in task["rnn/issue.0.t0#1"].after
    assert not [name for name in task["rnn/issue.0.t1#1"].after if name.endswith("#0")]
    served = serve(plan, [0, 0, 0], burst=1)
    period = estimate(plan).period
    assert period.bound_by == "rnn"
    assert np.diff(served.ends_ps) / 1000 == pytest.approx(period.period_ns, rel=0.1)


@pytest.fixture(scope="module")
def digits():
    return place(load_workload("digits-ternary-cnn"), load_chip("tim-dnn"), style="pipelined")


def test_above_saturation_the_digits_leave_at_the_rate_of_the_busiest_unit(digits):
    period = estimate(digits).period
    served = serve(digits, np.zeros(40))
    assert (served.busiest_unit, period.bound_by, period.period_ns) == ("sfu.qu", "sfu.qu", 224.0)
    assert served.throughput_per_s == pytest.approx(estimate(digits).throughput_per_s, rel=0.04)
    assert served.utilization("sfu.qu") > 0.9


def test_at_low_load_the_digits_take_what_one_inference_takes(digits):
    alone = simulate(digits).latency_ns
    served = serve(digits, every(2 * alone, 4))
    assert served.latencies_ns.tolist() == [alone] * 4
    assert served.throughput_per_s == pytest.approx(0.5e9 / alone)


def test_random_arrivals_wait_as_queueing_theory_says(spatial):
    service_ns = simulate(spatial).latency_ns
    load = 0.6
    served = serve(spatial, poisson(load * 1e9 / service_ns, 40_000, np.random.default_rng(1)))
    assert served.waits_ns.mean() == pytest.approx(service_ns * load / (2 * (1 - load)), rel=0.05)  # M/D/1
    assert served.utilization(served.busiest_unit) < served.mean_in_system


def test_pipelined_the_busiest_tile_works_least_and_what_does_not_fit_is_said(tiny_chip, tiny_graph, spatial):
    plan = place(tiny_graph, tiny_chip, style="pipelined")
    assert estimate(plan).throughput_per_s > estimate(spatial).throughput_per_s
    small = tiny_chip.model_copy(
        update={"n_tiles": 1, "tile": tiny_chip.tile.model_copy(update={"n_rows": 8, "n_columns": 4})}
    )
    with pytest.raises(MappingError, match="tiny: must fit into the 32 cells of tim-dnn at once, got conv 18 cells"):
        place(tiny_graph, small, style="pipelined")


def test_tensors_of_several_inferences_share_the_activation_buffer(tiny_chip, tiny_graph):
    bits = {tensor.name: tensor.n_bits for tensor in (op.output for op in tiny_graph.ops)}
    assert bits["edges"] == 16
    for capacity, is_kept in ((32, True), (31, False)):
        chip = tiny_chip.model_copy(
            update={"activation_buffer": tiny_chip.activation_buffer.model_copy(update={"capacity_bits": capacity})}
        )
        assert ("edges" not in place(tiny_graph, chip, style="pipelined").off_chip) == is_kept
        assert "edges" not in place(tiny_graph, chip, style="spatial").off_chip


def test_what_cannot_be_served_is_said(spatial, tiny_chip):
    for arrivals, found in (([2, 1], "1 at place 1"), ([0, np.nan], "nan at place 1"), ([-1.0], "-1 at place 0")):
        with pytest.raises(ConfigError, match=f"arrivals_ns: must be finite, from 0 and ascending, got {found}"):
            serve(spatial, arrivals)
    with pytest.raises(ConfigError, match=r"arrivals_ns: must be one time a request, got shape \(0,\)"):
        serve(spatial, [])
    with pytest.raises(SimulationError, match="burst: must be at least 1, got 0"):
        serve(spatial, [0], burst=0)
    x, quantizer = Tensor("x", (1,), REAL), Quantize(unsigned(8))
    codes = Op(name="codes", input="x", output=Tensor("codes", (1,), unsigned(8)), steps=(quantizer,))  # the host's
    empty = place(Graph(name="none", inputs=(x,), ops=(codes,), outputs=("codes",)), tiny_chip)
    with pytest.raises(SimulationError, match="none: must have a layer on the chip to serve requests, got none"):
        serve(empty, [0])


def test_arrivals_are_read_with_or_without_a_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("0\n1.5\n\n1.5\n30\n")
    assert read_arrivals(path).tolist() == [0, 1.5, 1.5, 30]
    path.write_text("end_ns,arrival_ns\n9,1\n10,2\n")
    assert read_arrivals(path).tolist() == [1, 2]
    assert parse_arrivals(str(path), 1).tolist() == [1]
    assert parse_arrivals("every:2.5", 3).tolist() == [0, 2.5, 5]
    assert parse_arrivals("poisson:1e6", 3, seed=4).tolist() == parse_arrivals("poisson:1e6", 3, seed=4).tolist()
    assert np.diff(poisson(1e6, 20_000, np.random.default_rng(0))).mean() == pytest.approx(1000, rel=0.03)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"line 1: must have an arrival time in ns, got an empty file"),
        ("arrival_ns\n", r"line 2: must have an arrival time in ns, got an empty file"),
        ("0\nnan\n", r"line 2: must be an arrival time in ns from 0, got 'nan'"),
        ("0\n-1\n", r"line 2: must be an arrival time in ns from 0, got '-1'"),
        ("0\n\nsoon\n", r"line 3: must be an arrival time in ns from 0, got 'soon'"),
        ("5\n4\n", r"line 2: must not be before the arrival on the line before \(5 ns\), got 4"),
    ],
)
def test_a_broken_file_of_arrivals_is_said_with_its_line(tmp_path, text, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"a.csv: {said}"):
        read_arrivals(path)


@pytest.mark.parametrize(
    ("text", "n", "said"),
    [
        ("poisson:0", 3, "arrivals: poisson: must be more than 0 requests a second, got '0'"),
        ("poisson:x", 3, "arrivals: poisson: must be more than 0 requests a second, got 'x'"),
        ("every:-1", 3, "arrivals: every: must be a time in ns from 0, got '-1'"),
        ("every:1", None, "requests: must say how many arrive by every:1, got nothing; give --requests N"),
        ("every:1", 0, "requests: must be from 1 to 1000000, got 0"),
        ("nowhere.csv", None, "nowhere.csv: must be a file of arrival times, got No such file"),
    ],
)
def test_arrivals_that_cannot_be_are_said(text, n, said):
    with pytest.raises((ConfigError, DataError), match=said):
        parse_arrivals(text, n)


def test_a_file_must_hold_as_many_requests_as_asked_for(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1\n")
    with pytest.raises(ConfigError, match=r"requests: must be at most the 1 arrivals of .*a.csv, got 2"):
        parse_arrivals(str(path), 2)


def test_requests_are_written_a_line_each(spatial):
    text = serve(spatial, [1, 2]).to_csv().splitlines()
    assert text[0] == "arrival_ns,start_ns,end_ns,latency_ns"
    assert text[1].startswith("1.000,1.000,")
    assert len(text) == 3
