"""Accesses that drive no input: how many there are, and what a chip that skips them spends and takes."""

import numpy as np
import pytest
from strategies import variant

from imcsim.analytic import estimate
from imcsim.costs.activity import Activity, relative_energy
from imcsim.costs.price import price
from imcsim.errors import ConfigError
from imcsim.functional.conversions import Conductances, analog_counts
from imcsim.functional.execute import execute, run
from imcsim.functional.kernels import count_idle
from imcsim.functional.torch_kernels import TorchKernels
from imcsim.graph import REAL, TERNARY, Affine, Graph, Op, Product, Quantize, Tensor, Threshold, unsigned
from imcsim.mapping.place import as_they_are, place
from imcsim.results import latency_of
from imcsim.sim import simulate
from imcsim.ternary import PlaneSum
from imcsim.ternary.packing import pack_vectors

near = pytest.approx
SKIPS = {"tile.skips_zero_blocks": True}
TILE_ACTIONS = ("tile.access", "tile.column_read", "tile.convert")


@pytest.fixture(scope="module")
def skipping_chip(tiny_chip):
    return variant(tiny_chip, SKIPS)


def one_layer(quantizer, n_inputs=8, n_outputs=3):
    """A linear layer of ones behind a quantizer."""
    codes = Tensor("codes", (n_inputs,), quantizer.format)
    product = Product(kind="linear", weights=PlaneSum(planes=[np.ones((n_outputs, n_inputs), dtype=int)], factors=[1]))
    ops = (
        Op(name="quantize", input="x", output=codes, steps=(quantizer,)),
        Op(
            name="fc", input="codes", output=Tensor("y", (n_outputs,), REAL), product=product, steps=(Affine(1.0, 0.0),)
        ),
    )
    return Graph(name="one", inputs=(Tensor("x", (n_inputs,), REAL),), ops=ops, outputs=("y",))


TERNARIZE = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)

HALF = np.array([[1, 0, 0, -1, 0, 0, 0, 1], [0, -1, 0, 0, 0, 0, 0, 0]] * 2)
"""Two blocks of 4 rows; the second is all zero in half of the vectors."""


def test_of_two_blocks_one_is_zero_in_half_of_the_vectors(skipping_chip):
    plan = place(one_layer(TERNARIZE), skipping_chip, n_samples=4, policy=as_they_are)
    found = run(plan, HALF)
    assert (found.total.n_accesses, found.total.n_idle_accesses, found.total.idle_share) == (8, 2, 0.25)

    activity, costs = Activity(idle_share={"fc": 0.25}), price(skipping_chip)
    estimated, trace = estimate(plan, costs, activity=activity), simulate(plan, costs, activity=activity)
    tasks = trace.program.task_of
    access, convert = tasks["fc/access.round0.tile0"], tasks["fc/convert.round0.tile0"]
    assert access.actions == {"tile.access": 6, "tile.column_read": 18}
    assert convert.actions == {"tile.convert": 18}
    assert (access.n_items, access.work_ps) == (8, 6 * 2300)
    assert (convert.n_items, convert.work_ps) == (8, 6 * 4 * 287.5)
    assert [estimated.counts["fc"][action] for action in TILE_ACTIONS] == [6, 18, 18]
    assert estimated.times["fc"].busy_ns["tile.array"] == near(6 * 2.3)


def test_passes_count_apart_and_so_do_polarities(tiny_chip):
    planes = run(place(one_layer(Quantize(unsigned(2))), tiny_chip), np.array([[2, 0, 0, 0, 1, 0, 2, 3]]))
    assert planes.total.n_idle_accesses == 1  # of the units, the first block
    graph = one_layer(Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY.__class__(**vars(TERNARY) | {"minus": 0.5})))
    plan = place(graph, tiny_chip, n_samples=4)
    assert plan.layers[1].accesses_per_pass == 2
    found = run(plan, HALF).total  # positive inputs in 2 + 2 + 0 + 0 of 8 blocks, negative in 1 of 2 of each vector
    assert (found.n_accesses, found.n_idle_accesses) == (16, 16 - 4 - 4)


@pytest.mark.parametrize("rows_per_access", [1, 3, 4, 6, 16, 32, 40])
@pytest.mark.parametrize("which", ["signed", "positive", "negative"])
def test_idle_blocks_are_those_that_numpy_finds(rows_per_access, which):
    rng = np.random.default_rng(rows_per_access)
    x = (rng.integers(-1, 2, (50, 70)) * (rng.random((50, 70)) < 0.2)).astype(np.int8)
    driven = {"signed": x != 0, "positive": x > 0, "negative": x < 0}[which]
    starts = range(0, 70, rows_per_access)
    expected = sum(int((~driven[:, start : start + rows_per_access].any(axis=1)).sum()) for start in starts)
    packed = pack_vectors(x, rows_per_access)
    assert count_idle(packed, which) == expected
    assert TorchKernels("cpu").count_idle(packed, which) == expected


def test_no_vectors_have_no_idle_blocks():
    empty = pack_vectors(np.zeros((0, 20), np.int8), 16)
    assert count_idle(empty) == TorchKernels("cpu").count_idle(empty) == 0


def test_nothing_is_skipped_where_nothing_was_gathered_or_the_chip_does_not(tiny_chip, skipping_chip, tiny_graph):
    gathered = Activity(idle_share={"conv": 0.5})
    skips, takes = place(tiny_graph, skipping_chip), place(tiny_graph, tiny_chip)
    plain = estimate(takes)
    for other in (estimate(skips), estimate(skips, activity=Activity()), estimate(takes, activity=gathered)):
        assert (other.latency_ns, other.counts) == (plain.latency_ns, plain.counts)
    assert estimate(skips, activity=gathered).counts["conv"]["tile.access"] == plain.counts["conv"]["tile.access"] // 2


def test_inputs_that_are_all_zero_take_no_access_and_the_program_still_runs(skipping_chip, tiny_graph):
    for style in ("spatial", "temporal"):
        plan = place(tiny_graph, skipping_chip, style=style)
        activity = Activity(idle_share={"conv": 1.0, "linear": 1.0})
        trace, estimated = simulate(plan, activity=activity), estimate(plan, activity=activity)
        for counts in (trace.counts, estimated.counts):
            assert [counts[layer][action] for layer in activity.idle_share for action in TILE_ACTIONS] == [0] * 6
        assert 0 < trace.latency_ns < simulate(plan).latency_ns
        assert latency_of(trace.to_rows()) == near(trace.latency_ns)
        assert trace.energy_pJ == near(estimated.energy_pJ, rel=0.05)


def test_what_is_skipped_discharges_nothing_so_the_bitlines_spend_the_same(tiny_chip, skipping_chip):
    n, k = np.array([6, 2, 0, 0, 0]), np.array([7, 1, 0, 0, 0])
    assert relative_energy(skipping_chip, n, k, 0.5) == near(2 * relative_energy(tiny_chip, n, k, 0.5))
    assert relative_energy(skipping_chip, np.array([4, 0, 0, 0, 0]), np.array([4, 0, 0, 0, 0]), 1.0) == 1


def test_values_do_not_depend_on_what_is_skipped(tiny_chip, skipping_chip, tiny_graph):
    x = np.random.default_rng(0).normal(size=(3, 1, 4, 4)) * (np.arange(4) < 1)
    assert np.array_equal(execute(place(tiny_graph, tiny_chip), x), execute(place(tiny_graph, skipping_chip), x))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda plan: Activity(idle_share={"conv": 1.5}), "idle_share of conv must be from 0 to 1, got 1.5"),
        (lambda plan: Activity(idle_share={"conv": float("nan")}), "idle_share of conv must be from 0 to 1, got nan"),
        (lambda plan: Activity(relative_energy={"conv": -1.0}), "must be finite and at least 0, got -1.0"),
        (
            lambda plan: estimate(plan, activity=Activity(idle_share={"conv9": 0.5})),
            r"idle_share must name layers on tiles \(conv, linear\), got 'conv9'",
        ),
        (
            lambda plan: simulate(plan, activity=Activity(idle_share={"quantize": 0.5})),
            r"idle_share must name layers on tiles \(conv, linear\), got 'quantize'",
        ),
    ],
)
def test_what_is_wrong_with_an_activity_is_said(make, says, tiny_chip, tiny_graph):
    with pytest.raises(ConfigError, match=says):
        make(place(tiny_graph, tiny_chip))


IMPERFECT = [
    {"tile.misreads": "circuit", "tile.imperfections.read_noise_counts": 0.2},
    {"tile.imperfections.read_noise_counts": 3.0},
    {"tile.imperfections.adc_offset_counts": 2.0, "tile.imperfections.adc_gain_fraction": 0.2},
]


@pytest.mark.parametrize("wrong", IMPERFECT)
def test_what_is_skipped_is_read_neither_wrong_nor_at_all(wrong, tiny_chip):
    graph = one_layer(TERNARIZE, n_outputs=16)
    x = np.tile(HALF, (200, 1))

    def outputs(changes, x):
        plan = place(graph, variant(tiny_chip, wrong | changes), policy=as_they_are)
        return execute(plan, x, rng=np.random.default_rng(3))

    zeros, ones = np.zeros((400, 8)), np.ones((400, 8))
    assert not outputs(SKIPS, zeros).any()
    assert outputs({}, zeros).any()
    assert np.array_equal(outputs(SKIPS, ones), outputs({}, ones))  # the draws of what is read are the same
    skips, takes = outputs(SKIPS, x), outputs({}, x)
    assert np.array_equal(skips[::2], takes[::2])  # every block has an input
    assert not np.array_equal(skips[1::2], takes[1::2])


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_resistive_tile_reads_nothing_of_what_it_skips(noise):
    codes = np.zeros((50, 8), np.int8)
    codes[::2, 1] = 1
    x = pack_vectors(codes, 4)
    plus = np.random.default_rng(0).uniform(0.5, 1.0, (8, 5)).astype(np.float32)
    weights = Conductances(plus, plus[::-1].copy(), 8, 4)
    options = {"count_max": 4, "columns_per_tile": 5, "reads_k": True, "noise_counts": noise, "noise_fraction": 0.0}
    options |= {"gain": np.ones((2, 1)), "offset": np.full((2, 1), 0.9), "key": 5}
    takes, skips = (analog_counts(x, weights, **options, skips=skips) for skips in (False, True))
    assert takes.plus[1::2].any()
    assert not skips.plus[1::2].any()
    assert not skips.minus[1::2].any()
    idle = analog_counts(pack_vectors(np.zeros((50, 4), np.int8), 4), Conductances(plus[:4], plus[:4], 4, 4), **options)
    if not noise:  # the second block of every vector is idle
        assert np.array_equal(skips.plus[::2] + idle.plus[::2], takes.plus[::2])
