"""Laws of mapping, time and energy (design.md, section 5), for all graphs, chips, styles and batches."""

from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import STYLES, TIM_DNN, chips, graphs, plane_sum, seeds, variant

from imcsim.analytic import bounds_ps, estimate
from imcsim.analytic.counts import count_actions, count_setup
from imcsim.costs.activity import Activity
from imcsim.costs.price import price
from imcsim.costs.rows import dynamic_energy_pJ
from imcsim.graph import REAL, Graph, Joining, Op, Product, Quantize, Tensor, unsigned
from imcsim.graph.passes import simplify
from imcsim.mapping.instructions import is_reloaded, n_instructions
from imcsim.mapping.lower import lower
from imcsim.mapping.place import as_they_are, greatest_rate, least_energy_delay, least_time, place
from imcsim.results import energy_of, latency_of
from imcsim.sim import simulate

EXACT = {"rel": 1e-9, "abs": 1e-6}

many = settings(max_examples=40)
few = settings(max_examples=30)


@st.composite
def plans(draw):
    """Plans of random networks on random chips, as written or with their steps joined."""
    graph = draw(graphs(ends=3))
    graph = simplify(graph) if draw(st.booleans()) else graph
    policy = draw(st.sampled_from([least_time, as_they_are, least_energy_delay]))
    style = draw(st.sampled_from([None, "temporal"]))  # None: spatial where it fits
    plan = place(graph, draw(chips()), style=style, n_samples=draw(st.integers(1, 5)), policy=policy)
    if plan.is_resident and draw(st.booleans()):
        rate = greatest_rate if policy is least_time else policy
        plan = place(graph, plan.chip, style="pipelined", n_samples=plan.n_samples, policy=rate)
    return plan


def nonzero(counts):
    return {layer: {action: n for action, n in actions.items() if n} for layer, actions in counts.items()}


@many
@given(plans(), st.sampled_from([None, 1]))
def test_simulated_time_stays_between_the_bounds(plan, burst):
    trace = simulate(plan, burst=burst)
    least, greatest = bounds_ps(trace.program)
    assert least <= trace.latency_ps <= greatest
    by_formula = estimate(plan).bounds
    n_roundings = len(trace.program.tasks)  # each task's work is rounded to whole picoseconds
    assert by_formula.least_ns - 0.001 * n_roundings <= trace.latency_ns
    assert trace.latency_ns <= by_formula.greatest_ns + 0.001 * n_roundings


@few
@given(graphs(ends=3), chips(instructions=True), st.sampled_from(STYLES), st.integers(1, 3), st.sampled_from([None, 1]))
def test_programs_that_exceed_the_instruction_memory_are_loaded_in_time_and_counted(graph, chip, style, n, burst):
    plan = place(graph, chip, style="temporal" if style == "temporal" else None, n_samples=n)
    trace, est = simulate(plan, burst=burst), estimate(plan)
    least, greatest = bounds_ps(trace.program)
    assert least <= trace.latency_ps <= greatest
    n_roundings = len(trace.program.tasks)
    assert est.bounds.least_ns - 0.001 * n_roundings <= trace.latency_ns
    assert trace.latency_ns <= est.bounds.greatest_ns + 0.001 * n_roundings
    assert nonzero(est.counts) == nonzero(trace.counts)
    loads = [task for task in trace.program.tasks if task.name.partition("/")[2].startswith("instructions.")]
    assert bool(loads) == is_reloaded(plan)
    loaded = sum(task.actions["main_memory.read"] for task in loads)
    assert loaded == is_reloaded(plan) * chip.scheduler.entry.width_bits * sum(
        n_instructions(plan, layer) for layer in plan.layers
    )


@many
@given(plans())
def test_the_actions_counted_by_formula_are_those_of_the_program_layer_by_layer(plan):
    program = lower(plan, price(plan.chip))
    assert nonzero(count_actions(plan)) == nonzero(program.actions)


@few
@given(plans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.83, 1.0]), st.data())
def test_what_is_skipped_is_left_out_of_counts_time_and_energy_alike(plan, share, data):
    plan = replace(plan, chip=variant(plan.chip, {"tile.skips_zero_blocks": True}))
    on_tiles = [layer.name for layer in plan.layers if layer.is_on_tiles]
    idle = {name: share for name in on_tiles if data.draw(st.booleans())}
    costs, activity = price(plan.chip), Activity(idle_share=idle)
    trace, by_formula = simulate(plan, costs, activity=activity), estimate(plan, costs, activity=activity)
    assert nonzero(by_formula.counts) == nonzero(trace.counts)
    least, greatest = bounds_ps(trace.program)
    assert least <= trace.latency_ps <= greatest
    n_roundings = len(trace.program.tasks)
    assert by_formula.bounds.least_ns - 0.001 * n_roundings <= trace.latency_ns
    assert trace.latency_ns <= by_formula.bounds.greatest_ns + 0.001 * n_roundings
    plain = estimate(plan, costs)
    assert by_formula.latency_ns <= plain.latency_ns * (1 + 1e-12)
    # Simulated time itself may rise a little: tasks that share a port come to it in another order.
    least_of_all, greatest_of_all = bounds_ps(lower(plan, costs))
    assert least <= least_of_all
    assert greatest <= greatest_of_all
    for layer in plan.layers:
        for action in ("tile.access", "tile.column_read"):
            asked, taken = (
                plain.counts.get(layer.name, {}).get(action, 0),
                by_formula.counts.get(layer.name, {}).get(action, 0),
            )
            assert 0 <= taken <= asked
            assert layer.name in idle or taken == asked
        if layer.name in idle:
            off = (1 - share) * plain.counts[layer.name]["tile.access"] - by_formula.counts[layer.name]["tile.access"]
            assert abs(off) <= 0.5 * len(layer.rounds) * max(1, layer.n_steps) + 1e-6


@few
@given(plans())
def test_the_setup_counted_by_formula_is_that_of_the_program_layer_by_layer(plan):
    program = lower(plan, price(plan.chip), phase="setup")
    assert nonzero(count_setup(plan)) == nonzero(program.actions)
    assert bool(program.tasks) == plan.is_resident


@few
@given(plans())
def test_the_setup_writes_every_resident_row_and_sends_every_resident_cell(plan):
    assume(plan.is_resident)
    spent = sum(count_setup(plan).values(), Counter())
    shards = [s for layer in plan.layers for round_ in layer.rounds for s in round_.shards]
    assert spent["tile.write_row"] == sum(s.n_rows for s in shards)
    assert spent["network.transfer"] == 2 * plan.n_cells
    assert spent["main_memory.read"] == 2 * sum(s.n_rows * s.n_columns for s in shards if s.replica == 0)


@many
@given(plans())
def test_every_weight_is_covered_once_in_each_copy(plan):
    tile = plan.chip.tile
    for layer in plan.layers:
        covered = defaultdict(partial(np.zeros, (layer.n_rows, layer.n_columns), dtype=int))
        for shard in (s for round_ in layer.rounds for s in round_.shards):
            covered[shard.group, shard.replica][
                shard.row_start : shard.row_stop, shard.column_start : shard.column_stop
            ] += 1
            assert layer.row_groups or shard.row_start % tile.rows_per_access == 0
            assert shard.column_start % layer.n_weight_planes == 0
            assert shard.column_stop % layer.n_weight_planes == 0
        assert len(covered) == layer.n_groups * layer.n_replicas
        assert all(np.all(matrix == 1) for matrix in covered.values())
        assert sum(layer.vectors_of(replica) for replica in range(layer.n_replicas)) == layer.n_vectors


@many
@given(plans())
def test_what_is_resident_together_fits_its_tiles_and_does_not_overlap(plan):
    tile = plan.chip.tile
    rounds = [round_ for layer in plan.layers for round_ in layer.rounds]
    if plan.is_resident:
        together = [[s for round_ in rounds for s in round_.shards]]
    else:
        together = [list(round_.shards) for round_ in rounds]
    for shards in together:
        in_tile = defaultdict(list)
        for s in shards:
            block_stop, column_stop = s.block + s.n_blocks(tile.rows_per_access), s.column + s.n_columns
            assert 0 <= s.tile < plan.chip.n_tiles
            assert 0 <= s.block < block_stop <= tile.n_blocks
            assert 0 <= s.column < column_stop <= tile.n_columns
            in_tile[s.tile].append((s.block, block_stop, s.column, column_stop))
        for rectangles in in_tile.values():
            for (top, bottom, left, right), (top2, bottom2, left2, right2) in combinations(rectangles, 2):
                assert bottom <= top2 or bottom2 <= top or right <= left2 or right2 <= left


@few
@given(plans())
def test_the_energy_of_actions_depends_neither_on_bursts_nor_on_the_engine(plan):
    costs = price(plan.chip)
    one, many = simulate(plan, costs, burst=1), simulate(plan, costs)
    spent = dynamic_energy_pJ(one.counts, costs)
    assert spent == dynamic_energy_pJ(many.counts, costs)
    assert spent == pytest.approx(dynamic_energy_pJ(estimate(plan, costs).counts, costs), rel=1e-12)
    for trace in (one, many):
        assert trace.energy_pJ == spent + costs.leakage_mW * trace.latency_ns


@few
@given(plans(), st.sampled_from([None, 1]))
def test_totals_are_sums_of_what_layers_add_and_of_rows(plan, burst):
    for engine in (simulate(plan, burst=burst), estimate(plan)):
        rows = engine.to_rows()
        assert latency_of(rows) == pytest.approx(engine.latency_ns, **EXACT)
        assert energy_of(rows) == pytest.approx(engine.energy_pJ, **EXACT)
    trace = simulate(plan, burst=burst)
    assert sum(trace.added_ns.values()) == pytest.approx(trace.latency_ns, **EXACT)


def renamed(graph, seed):
    """The same graph with other names, in another alphabetical order; its ends from the last to the first."""
    names = [
        *(tensor.name for tensor in graph.inputs),
        *(op.output.name for op in graph.ops),
        *(op.name for op in graph.ops),
    ]
    numbers = np.random.default_rng(seed).permutation(len(names))
    new = {name: f"n{number:03}" for name, number in zip(names, numbers, strict=True)}

    def step_of(step):
        return replace(step, other=new[step.other]) if isinstance(step, Joining) else step

    ops = tuple(
        replace(
            op,
            name=new[op.name],
            input=new[op.input],
            output=replace(op.output, name=new[op.output.name]),
            steps=tuple(map(step_of, op.steps)),
        )
        for op in graph.ops
    )
    inputs = tuple(replace(tensor, name=new[tensor.name]) for tensor in reversed(graph.inputs))
    outputs = tuple(new[name] for name in reversed(graph.outputs))
    return Graph(name="other", inputs=inputs, ops=ops, outputs=outputs), new


@few
@given(plans(), seeds())
def test_other_names_change_nothing_else(plan, seed):
    graph, new = renamed(plan.graph, seed)
    other = place(graph, plan.chip, style=plan.style, n_samples=plan.n_samples)
    plan = place(plan.graph, plan.chip, style=plan.style, n_samples=plan.n_samples)
    assert other.off_chip == {new[name] for name in plan.off_chip}
    here, there = (lower(p, price(p.chip)).tasks for p in (plan, other))
    assert [(t.unit, t.n_items, t.work_ps, t.actions) for t in there] == [
        (t.unit, t.n_items, t.work_ps, t.actions) for t in here
    ]
    assert estimate(other).latency_ns == estimate(plan).latency_ns


@few
@given(plans(), st.integers(2, 4))
def test_accesses_and_element_operations_of_a_batch_are_those_of_its_samples(plan, times):
    batch = place(plan.graph, plan.chip, style=plan.style, n_samples=plan.n_samples * times)
    for layer, counts in count_actions(plan).items():
        on_tiles = ("tile.access", plan.chip.conversion, "tile.column_read")
        for action in (*on_tiles, "sfu.relu", "sfu.vpe", "sfu.spe", "sfu.qu"):
            assert count_actions(batch)[layer][action] == times * counts[action]


@few
@given(chips(), st.integers(1, 20), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.sampled_from(STYLES))
def test_twice_the_activation_planes_are_twice_the_accesses(chip, n_inputs, n_outputs, weight_bits, bits, style):
    product = Product(kind="linear", weights=plane_sum(np.ones((n_outputs, n_inputs), dtype=int), weight_bits))

    def counts(form):
        ops = (
            Op(name="q", input="x", output=Tensor("codes", (n_inputs,), form), steps=(Quantize(form),)),
            Op(name="fc", input="codes", output=Tensor("y", (n_outputs,), REAL), product=product),
        )
        graph = Graph(name="one", inputs=(Tensor("x", (n_inputs,), REAL),), ops=ops, outputs=("y",))
        return count_actions(place(graph, chip, style="temporal" if style == "temporal" else None))["fc"]

    once, twice = counts(unsigned(bits)), counts(unsigned(2 * bits))
    for action in ("tile.access", chip.conversion, "tile.column_read"):
        assert twice[action] == 2 * once[action] > 0
    if style == "temporal":
        assert twice["tile.write_row"] >= once["tile.write_row"] > 0


@few
@given(plans())
def test_bursts_and_formulas_come_near_to_every_access_played(plan):
    # Loose, for any chip and the smallest layers: in 4000 draws bursts were off by -8 % to +30 % (nine in ten by
    # less than 1 %), formulas by -37 % to +43 % (nine in ten between -21 % and +4 %). The chip as it is comes far
    # closer: see the next test.
    costs = price(plan.chip)
    exact = simulate(plan, costs, burst=1).latency_ns
    assert 0.8 * exact <= simulate(plan, costs).latency_ns <= 1.6 * exact
    assert 0.4 * exact <= estimate(plan, costs).latency_ns <= 2.5 * exact


@settings(max_examples=30)
@given(graphs(), st.sampled_from(STYLES), st.integers(1, 4))
def test_on_the_chip_as_it_is_bursts_and_formulas_come_within_some_percent(graph, style, n_samples):
    plan = place(simplify(graph), TIM_DNN, style=style, n_samples=n_samples)
    costs = price(plan.chip)
    exact = simulate(plan, costs, burst=1).latency_ns
    assert simulate(plan, costs).latency_ns == pytest.approx(exact, rel=0.03)
    assert estimate(plan, costs).latency_ns == pytest.approx(exact, rel=0.10)
