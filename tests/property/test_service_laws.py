"""Laws of requests (design.md, section 5): what is spent and how long it takes, for all graphs, chips and arrivals."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import chips, graphs

from imcsim.analytic import bounds_ps, estimate
from imcsim.analytic.pipeline import busy_of_units
from imcsim.costs.price import price
from imcsim.errors import MappingError
from imcsim.graph.passes import simplify
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.mapping.requests import lower_requests
from imcsim.sim import play, serve

few = settings(max_examples=25)


@st.composite
def plans(draw, style):
    graph, chip = simplify(draw(graphs(most_layers=2, ends=3))), draw(chips())
    try:
        plan = place(graph, chip, style=style, n_samples=draw(st.integers(1, 3)))
    except MappingError:
        assume(False)
    assume(lower(plan, price(chip)).tasks)
    return plan


gaps = st.lists(st.integers(0, 3000), min_size=1, max_size=5)


@few
@given(plans("pipelined"), gaps, st.sampled_from([None, 1]))
def test_a_pipeline_spends_what_its_requests_spend_and_stays_between_the_bounds(plan, gaps, burst):
    costs = price(plan.chip)
    releases_ps = [1000 * int(at) for at in np.cumsum(gaps)]
    program, once = lower_requests(plan, costs, releases_ps), lower(plan, costs)
    assert program.actions == {
        layer: Counter({action: n * len(gaps) for action, n in spent.items()}) for layer, spent in once.actions.items()
    }
    least, greatest = bounds_ps(program)
    spans = play(program, burst=burst)
    assert least <= max(span.end_ps for span in spans) <= greatest
    by_task = {span.task: span for span in spans}
    recurrent = {layer.name for layer in plan.layers if layer.n_steps}
    for number, release_ps in enumerate(releases_ps):
        for task in once.tasks:
            span = by_task[f"{task.name}#{number}"]
            assert span.start_ps >= release_ps
            if number and task.layer not in recurrent and task.unit != "main_memory":
                assert span.start_ps >= by_task[f"{task.name}#{number - 1}"].end_ps


@few
@given(plans("pipelined"), st.integers(2, 5))
def test_no_pipeline_is_faster_than_its_busiest_unit_and_the_formula_knows_how_long_each_works(plan, n):
    costs = price(plan.chip)
    served = serve(plan, np.zeros(n), costs)
    busy = busy_of_units(plan, costs)
    n_roundings = len(served.once.tasks)  # each task's work is rounded to whole picoseconds
    for unit, busy_ns in served.busy_ns.items():
        assert busy_ns == pytest.approx(busy[unit], rel=1e-9, abs=0.001 * n_roundings)
        assert served.makespan_ns >= n * busy_ns
    assert served.makespan_ns <= n * (estimate(plan, costs).bounds.greatest_ns + 0.001 * n_roundings)


@few
@given(plans(None), gaps)
def test_one_after_the_other_the_busy_times_of_the_formula_are_those_of_the_tasks(plan, gaps):
    costs = price(plan.chip)
    served = serve(plan, np.cumsum(gaps), costs)
    busy = busy_of_units(plan, costs)
    for unit, busy_ns in served.busy_ns.items():
        assert busy_ns == pytest.approx(busy[unit], rel=1e-9, abs=0.001 * len(served.once.tasks))
