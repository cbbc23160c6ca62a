"""Laws of plans over several banks and chips: for all graphs, chips, links, styles and batches."""

from collections import defaultdict
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import KINDS, TIM_DNN, changes_of_tim_dnn, graphs, many_banks, variant

from imcsim.analytic import bounds_ps, estimate
from imcsim.analytic.counts import count_actions, count_setup
from imcsim.analytic.variants import estimate_variants
from imcsim.costs.price import price
from imcsim.costs.rows import dynamic_energy_pJ
from imcsim.graph.passes import simplify
from imcsim.mapping.links import component_of_unit, local_unit, route
from imcsim.mapping.lower import lower
from imcsim.mapping.place import as_they_are, greatest_rate, least_time, place
from imcsim.sim import serve, simulate

some = settings(max_examples=20)
few = settings(max_examples=10)


@st.composite
def plans(draw):
    """Plans of random networks on one to three chips of one to three banks, at least two in all."""
    chip = many_banks(variant(TIM_DNN, draw(changes_of_tim_dnn(False, KINDS, False))), **draw(spreads()))
    graph = simplify(draw(graphs(ends=3)))
    policy = draw(st.sampled_from([least_time, as_they_are]))
    plan = place(graph, chip, style=draw(st.sampled_from([None, "temporal"])), n_samples=draw(st.integers(1, 3)),
                 policy=policy)  # fmt: skip
    if plan.is_resident and draw(st.booleans()):
        rate = greatest_rate if policy is least_time else policy
        plan = place(graph, chip, style="pipelined", n_samples=plan.n_samples, policy=rate)
    return plan


@st.composite
def spreads(draw):
    """How many banks and chips, and the links between them."""
    n_banks, n_chips = draw(st.sampled_from([(2, 1), (1, 2), (3, 1), (1, 3), (2, 2), (3, 3)]))
    return {
        "n_banks": n_banks,
        "n_chips": n_chips,
        "topology": draw(st.sampled_from(["chain", "ring", "all-to-all"])),
        "latency_ns": draw(st.sampled_from([20.0, 0.0, 3.7])),
        "bits_per_ns": draw(st.sampled_from([200.0, 1.0, 13.7])),
    }


def nonzero(counts):
    return {layer: {action: n for action, n in actions.items() if n} for layer, actions in counts.items()}


@some
@given(plans())
def test_every_weight_is_covered_once_in_each_copy_and_tiles_hold_what_they_can(plan):
    tile = plan.chip.tile
    for layer in plan.layers:
        covered = defaultdict(partial(np.zeros, (layer.n_rows, layer.n_columns), dtype=int))
        for round_ in layer.rounds:
            for s in round_.shards:
                covered[s.group, s.replica][s.row_start : s.row_stop, s.column_start : s.column_stop] += 1
                assert 0 <= s.tile < plan.chip.all_tiles
        assert len(covered) == layer.n_groups * layer.n_replicas
        assert all(np.all(matrix == 1) for matrix in covered.values())
    rounds = [round_ for layer in plan.layers for round_ in layer.rounds]
    for shards in [[s for r in rounds for s in r.shards]] if plan.is_resident else [r.shards for r in rounds]:
        cells = np.zeros((plan.chip.all_tiles, tile.n_blocks, tile.n_columns), dtype=int)
        for s in shards:
            n_blocks = s.n_blocks(tile.rows_per_access)
            assert s.block + n_blocks <= tile.n_blocks
            assert s.column + s.n_columns <= tile.n_columns
            cells[s.tile, s.block : s.block + n_blocks, s.column : s.column + s.n_columns] += 1
        assert cells.max(initial=0) <= 1


@some
@given(plans())
def test_counts_by_formula_are_those_of_the_programs(plan):
    costs = price(plan.chip)
    assert nonzero(count_actions(plan)) == nonzero(lower(plan, costs).actions)
    assert nonzero(count_setup(plan)) == nonzero(lower(plan, costs, phase="setup").actions)


@some
@given(plans(), st.sampled_from([None, 1]))
def test_simulated_time_stays_between_the_bounds(plan, burst):
    trace = simulate(plan, burst=burst)
    least, greatest = bounds_ps(trace.program)
    assert least <= trace.latency_ps <= greatest
    by_formula, n_roundings = estimate(plan).bounds, len(trace.program.tasks)
    assert by_formula.least_ns - 0.001 * n_roundings <= trace.latency_ns
    assert trace.latency_ns <= by_formula.greatest_ns + 0.001 * n_roundings


@few
@given(plans())
def test_bursts_and_formulas_come_near_and_energy_depends_on_neither(plan):
    costs = price(plan.chip)
    exact, bursts, by_formula = simulate(plan, costs, burst=1), simulate(plan, costs), estimate(plan, costs)
    assert 0.8 * exact.latency_ns <= bursts.latency_ns <= 1.6 * exact.latency_ns
    assert 0.4 * exact.latency_ns <= by_formula.latency_ns <= 2.5 * exact.latency_ns
    spent = dynamic_energy_pJ(exact.counts, costs)
    assert spent == dynamic_energy_pJ(bursts.counts, costs)
    assert spent == pytest.approx(dynamic_energy_pJ(by_formula.counts, costs), rel=1e-12)


@few
@given(plans())
def test_each_bank_works_on_its_own_units_and_what_crosses_takes_the_way_of_its_links(plan):
    chip, costs = plan.chip, price(plan.chip)
    program = lower(plan, costs)
    busy = defaultdict(float)
    for task in program.tasks:
        busy[task.unit] += program.occupied_ps(task)
        if local_unit(task.unit).startswith("tile"):
            assert int(local_unit(task.unit).partition(".")[0][4:]) < chip.n_tiles
    by_formula = estimate(plan, costs).period.busy_ns
    assert {unit for unit, ps in busy.items() if ps} <= set(by_formula)
    for unit, ns in by_formula.items():
        assert busy[unit] == pytest.approx(1000 * ns, abs=len(program.tasks)), unit
    for source in range(chip.all_banks):
        hops = route(chip, source, range(chip.all_banks))
        assert sorted(hop.target for hop in hops) == [bank for bank in range(chip.all_banks) if bank != source]
        seen = {source}
        for hop in hops:
            assert hop.source in seen
            seen.add(hop.target)
            assert component_of_unit(hop.unit) == hop.action.partition(".")[0]


@few
@given(plans(), st.integers(2, 3))
def test_requests_through_banks_come_out_in_order_and_no_faster_than_the_busiest_unit(plan, n):
    costs = price(plan.chip)
    assume(estimate(plan, costs).counts)
    served = serve(plan, [0.0] * n, costs)
    assert np.all(np.diff(served.ends_ps) >= 0)
    assert served.makespan_ns >= n * max(served.busy_ns.values()) - 1e-6
    assert served.ends_ps[0] >= simulate(plan, costs).latency_ps * 0.5


@few
@given(plans(), st.lists(st.sampled_from([1.0, 40.0, 900.0]), min_size=1, max_size=3))
def test_variants_over_banks_have_the_estimate_of_each_one_alone(plan, rates):
    assume(plan.style != "pipelined")
    name = "chip_link" if plan.chip.n_chips > 1 else "bank_link"
    changes = {f"{name}.bits_per_ns": rates, "tile.access.latency_ns": [2.0 + i for i in range(len(rates))]}
    found = estimate_variants(plan.graph, plan.chip, changes, n_samples=plan.n_samples, style=plan.style)
    for i in range(len(rates)):
        chip = variant(plan.chip, {key: values[i] for key, values in changes.items()})
        alone = estimate(place(plan.graph, chip, style=plan.style, n_samples=plan.n_samples))
        assert found.latency_ns[i] == pytest.approx(alone.latency_ns, rel=1e-9)
        assert found.energy_pJ[i] == pytest.approx(alone.energy_pJ, rel=1e-9)
        assert found.area_um2[i] == pytest.approx(alone.area_um2, rel=1e-9)
