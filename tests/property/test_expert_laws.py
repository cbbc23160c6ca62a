"""Laws of layers whose kernel a gate chooses sample by sample: values, cells, counts, time."""

from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import TIM_DNN, chips, many_banks, plane_sum, seeds, variant

from imcsim.analytic import bounds_ps, estimate
from imcsim.analytic.counts import count_actions, count_setup, derive_actions, derive_setup
from imcsim.analytic.factors import how_of_factors
from imcsim.analytic.variants import estimate_variants
from imcsim.costs.price import price
from imcsim.errors import MappingError
from imcsim.functional.execute import run, samples_at_once
from imcsim.functional.reference import reference, tensors_of
from imcsim.graph import (
    REAL,
    Affine,
    ArgMax,
    AvgPool,
    Flatten,
    Graph,
    Op,
    Product,
    Quantize,
    RealProduct,
    Tensor,
    unsigned,
)
from imcsim.mapping.lower import lower
from imcsim.mapping.place import as_they_are, greatest_rate, least_time, place
from imcsim.sim import serve, simulate

some = settings(max_examples=20, deadline=None)
CODES = unsigned(2, 0.5)


def gated(n_experts, *, shape=(3, 4, 5), n_outputs=4, bits=2, padding=1, seed=0, is_linear=False):
    """A layer with *n_experts* kernels of *bits* bits, its gate, and a layer of one kernel that reads its codes."""
    rng = np.random.default_rng(seed)
    top = 2 ** (bits - 1)
    kernel = () if is_linear else (3, 3)
    shape = (int(np.prod(shape)),) if is_linear else shape
    weights = plane_sum(rng.integers(1 - top, top, (n_experts * n_outputs, shape[0], *kernel)), bits)
    product = Product(
        kind="linear" if is_linear else "conv2d",
        weights=weights,
        padding=(0, 0) if is_linear else (padding, padding),
        n_experts=n_experts,
    )
    out = product.shape(shape)
    gate = RealProduct("linear", rng.standard_normal((n_experts, shape[0])), rng.standard_normal(n_experts))
    pooled = () if is_linear else (AvgPool(shape[1:], shape[1:]), Flatten())
    last = Product(kind="linear", weights=plane_sum(rng.integers(-1, 2, (3, int(np.prod(out)))), 1))
    codes = Tensor("codes", shape, CODES)
    ops = (
        Op(name="quantize", input="x", output=codes, steps=(Quantize(CODES),)),
        Op(
            name="gate",
            input="codes",
            output=Tensor("choice", (1,), ArgMax(n_experts).format),
            steps=(Affine(np.array(CODES.scale), np.array(0.0)), *pooled, gate, ArgMax(n_experts)),
        ),
        Op(
            name="conv",
            input="codes",
            output=Tensor("between", (int(np.prod(out)),), CODES),
            product=product,
            steps=(Quantize(CODES), Flatten()),
            gate="choice",
        ),
        Op(name="last", input="between", output=Tensor("y", (3,), REAL), product=last),
    )
    return Graph(name="gated", inputs=(Tensor("x", shape, REAL),), ops=ops, outputs=("y",))


def with_one_kernel(graph, e=0):
    """The same network with one of the kernels in the place of all."""
    ops = tuple(op if op.gate is None else replace(op, product=op.product.experts[e], gate=None) for op in graph.ops)
    return graph.replace_ops(ops)


@st.composite
def gated_graphs(draw):
    return gated(
        draw(st.integers(2, 4)),
        shape=(draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        n_outputs=draw(st.integers(1, 5)),
        bits=draw(st.integers(2, 3)),
        seed=draw(seeds()),
        is_linear=draw(st.booleans()),
    )


@st.composite
def plans(draw):
    graph, style = draw(gated_graphs()), draw(st.sampled_from([None, "temporal"]))
    chip = draw(chips())
    if draw(st.integers(0, 3)) == 0:
        chip = many_banks(chip, n_banks=draw(st.integers(2, 3)))
    is_resident = place(graph, chip, style=style).is_resident
    n_samples = draw(st.integers(1, 4)) if is_resident else 1
    if is_resident and draw(st.booleans()):
        return place(graph, chip, style="pipelined", n_samples=n_samples, policy=greatest_rate)
    policy = draw(st.sampled_from([least_time, as_they_are]))
    return place(graph, chip, style=style, n_samples=n_samples, policy=policy)


def inputs(graph, n, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 2.5, (n, *graph.input.shape))


def nonzero(counts):
    return {layer: {action: n for action, n in actions.items() if n} for layer, actions in counts.items()}


@some
@given(gated_graphs(), chips(ideal=True), st.sampled_from([None, "temporal"]))
def test_a_chip_gives_each_sample_what_the_network_with_its_kernel_alone_gives(graph, chip, style):
    x = inputs(graph, 6)
    chosen = tensors_of(graph, x)["choice"][:, 0].astype(int)
    alone = [reference(with_one_kernel(graph, e), x[i : i + 1])[0] for i, e in enumerate(chosen)]
    ours = reference(graph, x)
    assert np.array_equal(ours, alone)
    assert np.array_equal(run(place(graph, chip, style=style), x).outputs, ours)


@some
@given(gated_graphs(), chips())
def test_adcs_are_asked_as_often_as_for_one_kernel(graph, chip):
    x = inputs(graph, 5)
    plan, alone = place(graph, chip, policy=as_they_are), place(with_one_kernel(graph), chip, policy=as_they_are)
    ours, theirs = run(plan, x).clipping["conv"], run(alone, x).clipping["conv"]
    assert (ours.n_accesses, ours.n_conversions) == (theirs.n_accesses, theirs.n_conversions)
    if not chip.tile.skips_zero_blocks:
        assert ours.n_accesses == 5 * count_actions(plan)["conv"]["tile.access"]


@some
@given(plans())
def test_counts_by_formula_are_those_of_the_programs(plan):
    costs = price(plan.chip)
    assert nonzero(count_actions(plan)) == nonzero(lower(plan, costs).actions)
    assert nonzero(count_setup(plan)) == nonzero(lower(plan, costs, phase="setup").actions)


@some
@given(plans(), st.sampled_from([None, 1]))
def test_simulated_time_stays_between_the_bounds(plan, burst):
    trace, by_formula = simulate(plan, burst=burst), estimate(plan).bounds
    least, greatest = bounds_ps(trace.program)
    assert least <= trace.latency_ps <= greatest
    n_roundings = len(trace.program.tasks)
    assert by_formula.least_ns - 0.001 * n_roundings <= trace.latency_ns
    assert trace.latency_ns <= by_formula.greatest_ns + 0.001 * n_roundings


@some
@given(gated_graphs(), chips())
def test_an_inference_spends_what_one_kernel_spends_and_its_gate(graph, chip):
    plan, alone = place(graph, chip, policy=as_they_are), place(with_one_kernel(graph), chip, policy=as_they_are)
    assume(plan.style == alone.style)
    ours, theirs = count_actions(plan)["conv"], count_actions(alone)["conv"]
    for action in ("tile.access", "tile.column_read", chip.conversion, "reduce_unit.add", "tile.write_row"):
        assert ours[action] == theirs[action]
    gate_bits = graph.tensors["choice"].n_bits
    assert ours["activation_buffer.read"] - theirs["activation_buffer.read"] <= gate_bits * plan.n_samples


@some
@given(plans())
def test_every_weight_of_every_kernel_is_covered_once_in_each_copy(plan):
    n_experts = plan.op_of["conv"].product.n_experts if plan.is_resident else 1
    layer = plan.layers[[each.name for each in plan.layers].index("conv")]
    covered = defaultdict(partial(np.zeros, (layer.n_rows, layer.n_columns), dtype=int))
    for shard in (s for round_ in layer.stored.rounds for s in round_.shards):
        rows, columns = slice(shard.row_start, shard.row_stop), slice(shard.column_start, shard.column_stop)
        covered[shard.group, shard.replica][rows, columns] += 1
    assert set(covered) == {(e, replica) for e in range(n_experts) for replica in range(layer.n_replicas)}
    assert all(np.all(matrix == 1) for matrix in covered.values())
    assert layer.n_cells == n_experts * layer.n_rows * layer.n_columns


@some
@given(plans())
def test_what_is_resident_together_fits_its_tiles_and_does_not_overlap(plan):
    assume(plan.is_resident)
    tile, in_tile = plan.chip.tile, defaultdict(list)
    for s in (s for layer in plan.layers for round_ in layer.stored.rounds for s in round_.shards):
        block_stop, column_stop = s.block + s.n_blocks(tile.rows_per_access), s.column + s.n_columns
        assert 0 <= s.block < block_stop <= tile.n_blocks
        assert 0 <= s.column < column_stop <= tile.n_columns
        in_tile[s.tile].append((s.block, block_stop, s.column, column_stop))
    for rectangles in in_tile.values():
        for (top, bottom, left, right), (top2, bottom2, left2, right2) in combinations(rectangles, 2):
            assert bottom <= top2 or bottom2 <= top or right <= left2 or right2 <= left


@some
@given(plans())
def test_the_setup_writes_every_row_of_every_kernel(plan):
    assume(plan.is_resident)
    spent = sum(count_setup(plan).values(), Counter())
    shards = [s for layer in plan.layers for round_ in layer.stored.rounds for s in round_.shards]
    assert spent["tile.write_row"] == sum(s.n_rows for s in shards)
    assert spent["network.transfer"] == 2 * plan.n_cells == 2 * sum(s.n_rows * s.n_columns for s in shards)
    if plan.chip.all_banks == 1:  # each bank fetches what it holds of a copy
        assert spent["main_memory.read"] == 2 * sum(s.n_rows * s.n_columns for s in shards if s.replica == 0)


@some
@given(plans())
def test_every_factor_of_a_count_is_explained(plan):
    for derived in (derive_actions(plan), derive_setup(plan)):
        for layer in plan.layers:
            terms = [term for found in derived.get(layer.name, {}).values() for term in found]
            said = how_of_factors(plan, layer, derived.get(layer.name, {}))
            assert {name for term in terms for name, _ in term.factors} == set(said)


@some
@given(gated_graphs(), chips(kinds=("ternary-in-memory",)), st.sampled_from([None, "temporal"]))
def test_variants_have_the_estimate_of_each_one_alone(graph, chip, style):
    values = [1.0, 7.3, 200.0]
    found = estimate_variants(graph, chip, {"main_memory.bits_per_ns": values}, style=style)
    for i, value in enumerate(values):
        alone = estimate(place(graph, variant(chip, {"main_memory.bits_per_ns": value}), style=style))
        assert found.latency_ns[i] == pytest.approx(alone.latency_ns, rel=1e-12)
        assert found.energy_pJ[i] == pytest.approx(alone.energy_pJ, rel=1e-12)


def test_resident_kernels_take_as_many_times_the_cells_and_a_round_by_round_one_is_written_alone():
    graph = gated(4)
    conv = graph.ops[2].product
    resident, alone = place(graph, TIM_DNN), place(with_one_kernel(graph), TIM_DNN)
    extra = 3 * conv.n_rows * conv.n_columns * conv.n_planes
    one = [place(g, TIM_DNN, policy=as_they_are) for g in (graph, with_one_kernel(graph))]
    assert one[0].n_cells == one[1].n_cells + extra
    assert resident.is_resident
    assert alone.is_resident
    temporal = [place(g, TIM_DNN, style="temporal") for g in (graph, with_one_kernel(graph))]
    written = [count_actions(plan)["conv"]["tile.write_row"] for plan in temporal]
    assert written[0] == written[1] > 0


def test_the_weights_of_a_chosen_kernel_are_written_after_the_choice():
    plan = place(gated(2), variant(TIM_DNN, {"double_buffered": True}), style="temporal")
    span_of = {span.task: span for span in simulate(plan).spans}
    assert span_of["conv/weights.round0"].start_ps >= span_of["gate/store"].end_ps


def test_several_samples_may_not_choose_what_is_written_round_by_round():
    with pytest.raises(MappingError, match="conv: must take one sample at a time where the kernel it has chosen"):
        place(gated(2), TIM_DNN, style="temporal", n_samples=2)


def test_requests_are_served_in_a_pipeline():
    plan = place(gated(3), TIM_DNN, style="pipelined", policy=greatest_rate)
    assert np.all(np.asarray(serve(plan, [0.0, 0.0, 0.0]).latencies_ns) >= simulate(plan).latency_ns - 1e-3)


def test_misreads_of_a_batch_are_the_same_whatever_is_chosen_before_it():
    graph = gated(3)
    chip = variant(TIM_DNN, {"tile.imperfections.read_noise_counts": 0.7})
    plan = place(graph, chip)
    x = inputs(graph, 3)
    chosen = tensors_of(graph, x)["choice"][:, 0]
    first, last = x[np.argsort(chosen)][:1], x[np.argsort(chosen)][-1:]
    n = samples_at_once(plan)
    tails = []
    for head in (np.repeat(first, n, axis=0), np.repeat(last, n, axis=0), np.concatenate([first] * (n - 1) + [last])):
        everything = np.concatenate([head, x, x])
        tails.append(run(place(graph, chip), everything, rng=np.random.default_rng(5)).outputs[n:])
    assert np.array_equal(tails[0], tails[1])
    assert np.array_equal(tails[0], tails[2])
    assert not np.array_equal(tails[0], reference(graph, np.concatenate([x, x])))
