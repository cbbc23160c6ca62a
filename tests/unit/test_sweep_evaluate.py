from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imcsim
from imcsim.arch.load import vary
from imcsim.errors import ConfigError
from imcsim.run import run
from imcsim.sweep.evaluate import evaluate
from imcsim.sweep.keys import keys_of
from imcsim.sweep.network import Network, method_text, network_of, require_method
from imcsim.sweep.objectives import GIVEN_BY
from imcsim.sweep.points import points_of
from imcsim.sweep.stages import Batch, Stage
from imcsim.workloads import find_workload

DIGITS = "digits-ternary-cnn"
CHIP = imcsim.load_chip("tim-dnn")
ESTIMATE = Stage(("estimate",))


def batch_of(rows, stage=ESTIMATE, *, workload=DIGITS, quantizer=None, seed=0):
    points = points_of(rows)
    digest = network_of(workload, quantizer).digest
    return Batch(0, stage, workload, quantizer, digest, CHIP, points, keys_of(points, CHIP, ()), seed)


def estimated(changes, *, policy=None, style=None, n_samples=1):
    from imcsim.search import place_by

    chip = vary(CHIP, changes) if changes else CHIP
    return imcsim.estimate(place_by(policy, network_of(DIGITS).graph, chip, style=style, n_samples=n_samples))


@pytest.mark.parametrize(
    ("parameters", "placed"),
    [
        ({}, {}),
        ({"tile.count_max": 4}, {}),
        ({"tile.count_max": 12, "main_memory.bits_per_ns": 64.0, "tile.rows_per_access": 32}, {}),
        ({"tile.serial": "trit"}, {}),
        ({"n_tiles": 2, "mapping.style": "temporal"}, {"style": "temporal"}),
        ({"mapping.batch": 4}, {"n_samples": 4}),
        ({"mapping.policy": "as_they_are", "n_tiles": 64}, {"policy": "as_they_are"}),
        ({"mapping.style": "pipelined"}, {"style": "pipelined"}),
        ({"tile.misreads": "circuit"}, {}),
    ],
)
def test_a_point_by_formula_has_what_estimate_says_of_its_plan(parameters, placed):
    found = evaluate(batch_of([parameters]))
    changes = {key: value for key, value in parameters.items() if not key.startswith("mapping.")}
    alone = estimated(changes, **placed)
    assert found.messages == (None,)
    wanted = {
        "latency_ns": alone.latency_ns,
        "energy_pJ": alone.energy_pJ,
        "edp_pJ_ns": alone.energy_pJ * alone.latency_ns,
        "area_um2": alone.area_um2,
        "throughput_per_s": placed.get("n_samples", 1) * alone.throughput_per_s,
    }
    assert set(found.figures) == set(wanted)
    for name, value in wanted.items():
        assert found.figures[name][0] == pytest.approx(value, rel=1e-12), name


ROWS = [
    {"tile.count_max": 4},
    {"tile.count_max": 8, "n_tiles": 4},
    {"tile.rows_per_access": 17},
    {"tile.serial": "trit", "mapping.batch": 2},
    {"mapping.style": "temporal", "n_tiles": 1},
    {"mapping.policy": "as_they_are"},
    {"tile.count_max": 16, "main_memory.bits_per_ns": 100.0},
    {},
]


@cache
def together():
    return evaluate(batch_of(ROWS))


@settings(max_examples=6)
@given(order=st.permutations(range(len(ROWS))), cut=st.integers(1, len(ROWS) - 1))
def test_what_comes_out_of_a_point_does_not_depend_on_the_others(order, cut):
    for part in (order[:cut], order[cut:]):
        apart = evaluate(batch_of([ROWS[i] for i in part]))
        for name, values in together().figures.items():
            assert apart.figures[name].tobytes() == values[part].tobytes(), name
        assert apart.messages == tuple(together().messages[i] for i in part)


def test_a_point_that_does_not_hold_has_a_message_and_no_figures():
    found = evaluate(batch_of([{"tile.count_max": 4}, {"tile.rows_per_access": 17}, {"tile.n_pcus": 10}]))
    assert found.messages[0] is None
    assert "rows_per_access: must divide n_rows (256) evenly, got 17" in found.messages[1]
    assert "n_pcus: must divide n_columns (256) evenly, got 10" in found.messages[2]
    assert np.isfinite(found.figures["latency_ns"][0])
    assert all(np.isnan(values[1:]).all() for values in found.figures.values())


@pytest.mark.parametrize("stage", [ESTIMATE, Stage(("simulate",)), Stage(("estimate", "execute"), n_samples=4)])
def test_a_network_that_does_not_fit_is_said_by_any_engine(stage):
    small = {"mapping.style": "spatial", "n_tiles": 1, "tile.n_rows": 16, "tile.n_columns": 32}
    found = evaluate(batch_of([small, {}], stage))
    assert "must fit" in found.messages[0]
    assert "\n" not in found.messages[0]
    assert found.messages[1] is None


@pytest.mark.parametrize("policy", ["nonsense"])
def test_an_unknown_policy_is_said_of_its_point(policy):
    found = evaluate(batch_of([{"mapping.policy": policy}]))
    assert "policy: must be one of" in found.messages[0]


@pytest.mark.parametrize("engines", [("estimate",), ("simulate",)])
def test_figures_that_are_not_finite_are_a_failure(engines):
    found = evaluate(batch_of([{"tile.access.pcus.energy_pJ": 1.7e308}, {}], Stage(engines)))
    assert "must be finite, got inf" in found.messages[0]
    assert np.isnan([values[0] for values in found.figures.values()]).all()
    assert found.messages[1] is None


def test_events_and_values_are_those_of_a_run():
    stage = Stage(("simulate", "execute"), n_samples=40)
    found = evaluate(batch_of([{"tile.count_max": 2}, {"tile.count_max": 6, "mapping.batch": 4}], stage, seed=3))
    assert found.messages == (None, None)
    for i, (count_max, n) in enumerate([(2, 1), (6, 4)]):
        chip = vary(CHIP, {"tile.count_max": count_max})
        result = run(find_workload(DIGITS), chip, n_samples=40, batch=n, seed=3).summary
        figures = {name: values[i] for name, values in found.figures.items()}
        assert figures["latency_ns"] == pytest.approx(result["simulate"]["latency_ns"], rel=1e-12)
        assert figures["energy_pJ"] == pytest.approx(result["simulate"]["energy_pJ"], rel=1e-12)
        assert figures["accuracy"] == result["accuracy"]["chip"]
        assert figures["reference_accuracy"] == result["accuracy"]["reference"]
        clipped = result["accuracy"]["n_clipped_accesses"] / result["accuracy"]["n_accesses"]
        assert figures["clipped_share"] == clipped
        assert figures["different_share"] == result["check"]["n_different"] / result["check"]["n_outputs"]
        assert figures["throughput_per_s"] == pytest.approx(n * 1e9 / figures["latency_ns"], rel=1e-12)


def test_energy_beside_values_follows_what_the_bitlines_held():
    alone = evaluate(batch_of([{}])).figures["energy_pJ"][0]
    beside = evaluate(batch_of([{}], Stage(("estimate", "execute"), n_samples=20)))
    result = run(find_workload(DIGITS), CHIP, n_samples=20).summary
    assert beside.figures["energy_pJ"][0] == pytest.approx(result["estimate"]["energy_pJ"], rel=1e-12)
    assert beside.figures["energy_pJ"][0] != alone


@pytest.mark.parametrize("engines", [("estimate",), ("simulate",), ("execute",), ("estimate", "simulate", "execute")])
def test_engines_give_the_figures_that_objectives_rely_on(engines):
    found = evaluate(batch_of([{}], Stage(engines, n_samples=4)))
    promised = set().union(*(GIVEN_BY[engine] for engine in engines))
    assert set(found.figures) == promised
    given = {name for name, values in found.figures.items() if not np.isnan(values[0])}
    assert given == promised - {"perplexity"}


def test_a_process_that_finds_another_network_refuses_the_batch():
    other = replace(batch_of([{}]), network_digest=b"another")
    with pytest.raises(ConfigError, match="must be the network that the sweep began with"):
        evaluate(other)


def test_a_workload_takes_the_method_that_a_point_names():
    stage = ESTIMATE
    latencies = [
        evaluate(batch_of([{}], stage, workload="digits-cnn", quantizer=f"lsq:bits_w=2,bits_a={bits}")).figures
        for bits in (2, 4)
    ]
    assert latencies[0]["latency_ns"][0] < latencies[1]["latency_ns"][0]


def test_a_workload_that_takes_no_method_is_told_so():
    with pytest.raises(ConfigError, match="quantizer: must go with a workload that takes a method, got digits-ternary"):
        require_method(find_workload(DIGITS))
    with pytest.raises(ConfigError, match="takes a method"):
        _ = Network(find_workload(DIGITS), "lsq").graph


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({}, None),
        ({"quantizer": "xnor"}, "xnor"),
        ({"quantizer": "lsq:bits_w=2", "quantizer.bits_a": 4}, "lsq:bits_w=2,bits_a=4"),
        ({"quantizer": "lsq:bits_w=2", "quantizer.bits_w": 3}, "lsq:bits_w=3"),
        ({"quantizer": "bc", "quantizer.stochastic": True}, "bc:stochastic=true"),
        (
            {"quantizer": "lsq:2.bits_a=4", "quantizer.2.bits_a": 8, "quantizer.1.bits_a": 3},
            "lsq:2.bits_a=8,1.bits_a=3",
        ),
    ],
)
def test_a_method_is_written_with_its_options(parameters, text):
    assert method_text(parameters) == text
