"""Laws of accuracies, of their intervals, and of what is said about layers, for all graphs and chips."""

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import chips, graphs, inputs_of, seeds

from imcsim.accuracy import Paired
from imcsim.functional.execute import run
from imcsim.functional.layer_errors import explain
from imcsim.functional.reference import reference
from imcsim.intervals import paired_interval, wilson_interval
from imcsim.mapping.place import place
from imcsim.trials import seed_of_trial

laws = settings(max_examples=20)


@st.composite
def tables(draw):
    """How many samples only the chip gets right, only the reference does, and how many there are."""
    n = draw(st.integers(1, 5000))
    n_better = draw(st.integers(0, n))
    return n_better, draw(st.integers(0, n - n_better)), n


@given(tables())
def test_an_interval_holds_what_was_found_and_stays_within_what_can_be(table):
    n_better, n_worse, n = table
    low, high = paired_interval(n_better, n_worse, n)
    assert -1 <= low <= (n_better - n_worse) / n <= high <= 1
    assert low < high
    low, high = wilson_interval(n_better, n)
    assert 0 <= low <= n_better / n <= high <= 1


@given(tables())
def test_chip_and_reference_may_change_places(table):
    n_better, n_worse, n = table
    low, high = paired_interval(n_better, n_worse, n)
    np.testing.assert_allclose(paired_interval(n_worse, n_better, n), (-high, -low), atol=1e-9)


@given(st.integers(1, 300), seeds())
def test_a_pair_counts_every_sample_once(n, seed):
    reference_right, chip_right = np.random.default_rng(seed).integers(0, 2, (2, n)).astype(bool)
    found = Paired.of(reference_right, chip_right)
    assert found.reference == reference_right.mean()
    assert found.chip == chip_right.mean()
    assert found.n_right_chip - found.n_right_reference == found.n_better - found.n_worse
    assert found.n_better + found.n_worse == np.sum(reference_right != chip_right)


@given(seeds(), st.integers(1, 50))
def test_the_seed_of_a_trial_is_exact_in_json(seed, i):
    assert 0 <= seed_of_trial(seed, i) < 2**53
    assert seed_of_trial(seed, i) != seed_of_trial(seed, i + 1)


@laws
@given(graphs(), chips(ideal=True), seeds())
def test_every_layer_of_an_ideal_chip_is_exact(graph, chip, seed):
    found = explain(place(graph, chip), inputs_of(graph, 3, seed))
    assert found.first_difference is None
    for layer in found.layers:
        for deviation in (layer.sums, layer.own_sums, layer.outputs, layer.own_outputs):
            assert deviation is None or (deviation.n_different, deviation.error, deviation.ratio_dB) == (0, 0, np.inf)


@laws
@given(graphs(), chips(), seeds())
def test_a_network_without_a_real_layer_is_the_reference_and_with_all_of_them_the_chip(graph, chip, seed):
    plan, x = place(graph, chip), inputs_of(graph, 4, seed)
    none, every = run(plan, x, only=()), run(plan, x, only=[op.name for op in graph.products])
    whole = run(plan, x)
    assert np.array_equal(none.outputs, reference(graph, x))
    assert none.total.n_clipped_conversions == 0
    assert np.array_equal(every.outputs, whole.outputs)
    assert every.clipping == whole.clipping


@laws
@given(graphs(), chips(), seeds())
def test_the_first_product_adds_all_the_error_that_it_shows(graph, chip, seed):
    found = explain(place(graph, chip), inputs_of(graph, 4, seed))
    at = next(i for i, op in enumerate(graph.ops) if op.product is not None)
    assert found.layers[at].sums == found.layers[at].own_sums
    if (first := found.first_difference) is not None:
        assert first.expected != first.found
        before = found.layers[: [op.name for op in graph.ops].index(first.layer)]
        assert all(layer.outputs.n_different == 0 for layer in before)


@laws
@given(graphs(), chips(), seeds(), st.integers(1, 5))
def test_errors_are_the_same_however_the_samples_are_split(graph, chip, seed, size):
    plan, x = place(graph, chip), inputs_of(graph, 7, seed)
    whole = explain(plan, x)
    with patch("imcsim.functional.execute.MAX_BATCH", size):
        split = explain(plan, x)
    assert split.first_difference == whole.first_difference
    for one, other in zip(split.layers, whole.layers, strict=True):
        assert one.outputs.n_different == other.outputs.n_different
        np.testing.assert_allclose(one.outputs.error, other.outputs.error, rtol=1e-12)
