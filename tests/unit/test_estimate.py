import numpy as np
import pytest
from strategies import TIM_DNN, many_banks, plane_sum, variant

from imcsim.analytic import estimate
from imcsim.analytic.counts import count_actions, count_setup
from imcsim.analytic.timing import Stage, chain_ns
from imcsim.costs.price import price
from imcsim.graph import REAL, TERNARY, Add, Graph, Op, Product, Tensor, Threshold, unsigned
from imcsim.mapping.place import as_they_are, place
from imcsim.results import area_of, energy_of, latency_of
from imcsim.sim import simulate


def stage(n_items, work_ns, lag_ns=0.0):
    return Stage("unit", n_items, work_ns, lag_ns, work_ns)


def test_a_chain_takes_its_slowest_stage_and_what_fills_and_drains_it():
    assert chain_ns([]) == 0
    assert chain_ns([stage(4, 400)]) == 400
    assert chain_ns([stage(4, 400), stage(4, 800)]) == 100 + 800
    assert chain_ns([stage(4, 400), stage(4, 40)]) == 400 + 10
    assert chain_ns([stage(4, 40), stage(4, 400), stage(4, 40)]) == 10 + 400 + 10
    assert chain_ns([stage(4, 400, lag_ns=7), stage(4, 40, lag_ns=1)]) == 418
    assert chain_ns([stage(4, 400), stage(2, 20)]) == 400 + 10
    assert chain_ns([stage(4, 400), stage(2, 2000)]) == 200 + 2000


def test_accesses_follow_the_formula(tiny_chip, tiny_graph):
    counts = count_actions(place(tiny_graph, tiny_chip, n_samples=3, policy=as_they_are))
    assert "quantize" not in counts
    # vectors x passes x ceil(rows / 4) x ceil(columns / 16)
    assert counts["conv"]["tile.access"] == 3 * 4 * 1 * 3 * 1
    assert counts["conv"]["tile.convert"] == counts["conv"]["tile.column_read"] == 3 * 4 * 3 * 2
    assert counts["linear"]["tile.access"] == 3 * 1 * 1 * 2 * 1
    assert counts["conv"]["sfu.qu"] == 3 * 8


def test_the_setup_writes_each_row_of_each_copy(tiny_chip, tiny_graph):
    plan = place(tiny_graph, tiny_chip, style="spatial", policy=as_they_are)
    assert count_setup(plan)["conv"]["tile.write_row"] == 9
    assert count_setup(place(tiny_graph, tiny_chip, style="temporal")) == {}


@pytest.mark.parametrize("style", ["spatial", "temporal"])
def test_the_estimate_of_the_tiny_network_is_that_of_the_simulation(tiny_chip, tiny_graph, style):
    plan = place(tiny_graph, tiny_chip, style=style, policy=as_they_are)
    est, trace = estimate(plan), simulate(plan)
    assert est.latency_ns == pytest.approx(trace.latency_ns, rel=0.02)
    assert est.energy_pJ == pytest.approx(trace.energy_pJ, rel=0.02)
    assert est.bounds.least_ns <= trace.latency_ns <= est.bounds.greatest_ns


@pytest.mark.parametrize("n_banks", [1, 2])
def test_operands_that_are_read_from_one_buffer_take_turns(n_banks):
    rng = np.random.default_rng(0)
    made = Tensor("y", (8, 8, 8), REAL)
    graph = Graph(
        name="shortcut",
        inputs=(Tensor("x", (4, 8, 8), TERNARY), Tensor("shortcut", (8, 8, 8), REAL)),
        ops=(
            Op(
                name="conv",
                input="x",
                output=made,
                product=Product(kind="conv2d", weights=plane_sum(rng.integers(-1, 2, (8, 4, 1, 1)))),
                steps=(Add("shortcut"),),
            ),
        ),
        outputs=("y",),
    )
    chip = variant(TIM_DNN, {"activation_buffer.read.bits_per_ns": 16.0})
    if n_banks > 1:
        chip = many_banks(chip, n_banks=n_banks)
    plan = place(graph, chip, policy=as_they_are)
    est, trace = estimate(plan), simulate(plan, burst=1)
    all_bits = 4 * 64 * 2 + 8 * 64 * 16 + 8 * 64 * 16  # what the tiles read, the shortcut, the output to main memory
    assert all_bits / 16 <= est.latency_ns <= trace.latency_ns
    assert est.latency_ns > 0.8 * trace.latency_ns
    assert sum(part.time_ns for part in est.times["conv"].parts()) == pytest.approx(est.times["conv"].added_ns)


def test_totals_are_sums_of_rows(tiny_chip, tiny_graph):
    est = estimate(place(tiny_graph, tiny_chip), seed=3)
    rows = est.to_rows()
    assert energy_of(rows) == pytest.approx(est.energy_pJ, rel=1e-12)
    assert latency_of(rows) == pytest.approx(est.latency_ns, rel=1e-12)
    assert area_of(rows) == pytest.approx(est.area_um2, rel=1e-12) == price(tiny_chip).area_um2
    assert energy_of(rows, phase="setup") == pytest.approx(est.setup_energy_pJ, rel=1e-12)
    assert est.setup_energy_pJ > 0
    assert {(row.engine, row.seed) for row in rows} == {("estimate", 3)}


def test_a_layer_is_bound_by_what_bounds_it_in_the_simulation(tiny_chip, tiny_graph):
    for latency_ns in (0.0, 100.0):
        chip = variant(tiny_chip, {"main_memory.latency_ns": latency_ns})
        plan = place(tiny_graph, chip, style="temporal", policy=as_they_are)
        assert {name: time.bound_by for name, time in estimate(plan).times.items()} == simulate(plan).bound_by


def test_more_samples_together_take_longer_and_each_of_them_less(tiny_chip, tiny_graph):
    one, ten = (
        estimate(place(tiny_graph, tiny_chip, style="temporal", n_samples=n, policy=as_they_are)) for n in (1, 10)
    )
    assert one.latency_ns < ten.latency_ns < 10 * one.latency_ns


def test_rounds_that_read_unequally_keep_the_least_bound_below_the_simulated_time():
    kernel = Product(kind="conv2d", weights=plane_sum(np.ones((3, 8, 1, 1), dtype=int)), groups=3)
    codes = Tensor("codes", (24, 30, 30), TERNARY)
    ops = (
        Op(name="q", input="x", output=codes, steps=(Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY),)),
        Op(name="conv", input="codes", output=Tensor("y", (3, 30, 30), unsigned(1)), product=kernel,
           steps=(Threshold([[0.5]], [0, 1], unsigned(1)),)),
    )  # fmt: skip
    graph = Graph(name="g", inputs=(Tensor("x", (24, 30, 30), REAL),), ops=ops, outputs=("y",))
    tile = {"tile.n_rows": 8, "tile.rows_per_access": 8, "tile.n_columns": 2, "tile.n_pcus": 2}
    slow = {"activation_buffer.read.bits_per_ns": 8.0, "main_memory.latency_ns": 0.0}
    chip = variant(TIM_DNN, {"n_tiles": 1, **tile, **slow, "activation_buffer.capacity_bits": 1 << 30})
    plan = place(graph, chip, style="temporal", policy=as_they_are)
    assert [len(round_.shards) for round_ in plan.layers[1].rounds] == [2, 1]  # two groups, then one
    assert estimate(plan).bounds.least_ns <= simulate(plan).latency_ns
