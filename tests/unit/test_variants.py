from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import KINDS, TIM_DNN, chips, graphs, many_banks, seeds, variant

import imcsim
from imcsim.analytic import estimate
from imcsim.analytic.variants import SHAPE, _by_spills, estimate_variants
from imcsim.arch.load import vary
from imcsim.errors import ConfigError, MappingError
from imcsim.graph import REAL, TERNARY, Graph, Op, Product, Tensor, Threshold
from imcsim.mapping.place import Split, as_they_are, place
from imcsim.ternary import PlaneSum

N = 5


def draws(seed, *, columns=16):
    """Values of many keys for N variants, those that change the plan among them; seven in ten keys are varied."""
    rng = np.random.default_rng(seed)
    everything = {
        "n_tiles": rng.choice([3, 6], N),
        "double_buffered": rng.choice([True, False], N),
        "tile.rows_per_access": rng.choice([2, 4], N),
        "tile.n_rows": rng.choice([16, 24], N),
        "tile.n_columns": np.full(N, columns),
        "tile.serial": rng.choice(["bit", "trit"], N),
        "tile.sense": rng.choice(["both", "n"], N),
        "tile.count_max": rng.integers(1, 9, N),
        "tile.n_pcus": rng.choice([1, 2, 4], N),
        "tile.access.latency_ns": rng.uniform(0.5, 5, N),
        "tile.access.interval_ns": rng.uniform(0.5, 5, N),
        "tile.block_select.latency_ns": rng.choice([0.0, 0.4, 6.0], N),
        "tile.conversion.adc_fraction": rng.uniform(0, 1, N),
        "tile.write_row.latency_ns": rng.uniform(0.1, 20, N),
        "tile.array.leakage_mW": rng.uniform(0, 2, N),
        "activation_buffer.capacity_bits": rng.choice([300, 131072], N),
        "psum_buffer.write.bits_per_ns": rng.uniform(1, 500, N),
        "reduce_unit.n_adders": rng.choice([1, 8, 256], N),
        "reduce_unit.adder_bits": rng.choice([3, 12], N),
        "sfu.vpe.n_lanes": rng.choice([1, 32], N),
        "scheduler.n_entries": rng.choice([1, 6, 128], N),
        "scheduler.entry.width_bits": rng.choice([32, 64], N),
        "scheduler.issue.latency_ns": rng.uniform(0, 3, N),
        "network.bits_per_ns": rng.uniform(1, 500, N),
        "main_memory.bits_per_ns": rng.uniform(1, 500, N),
        "main_memory.latency_ns": rng.uniform(0, 200, N),
        "main_memory.n_channels": rng.choice([1, 2, 8], N),
        "main_memory.interleave.piece_bits": rng.choice([4, 256], N),
        "activation_buffer.write.n_ports": rng.choice([1, 2], N),
        "main_memory.read_energy.energy_pJ_per_bit": rng.uniform(0, 9, N),
    }
    keys = [key for key in everything if rng.random() < 0.7 or key in ("tile.n_columns", "tile.n_pcus")]
    keys += ["tile.rows_per_access", "tile.n_rows"]  # of the chip as it is, 16 rows make a block
    return {key: everything[key] for key in keys}


def one(changes, i):
    return variant(TIM_DNN, {key: values[i].item() for key, values in changes.items()})


def assert_equal(found, i, est):
    assert found.latency_ns[i] == pytest.approx(est.latency_ns, rel=1e-12)
    assert found.energy_pJ[i] == pytest.approx(est.energy_pJ, rel=1e-12)
    assert found.area_um2[i] == pytest.approx(est.area_um2, rel=1e-12)
    assert found.edp[i] == found.energy_pJ[i] * found.latency_ns[i]
    assert found.throughput_per_s[i] == pytest.approx(found.n_samples * est.throughput_per_s, rel=1e-12)
    assert found.messages[i] is None


@settings(max_examples=20)
@given(graphs(ends=3), seeds(), st.sampled_from([None, "temporal"]), st.integers(1, 3))
def test_each_variant_is_the_estimate_of_its_chip(graph, seed, style, n_samples):
    changes = draws(seed)
    found = estimate_variants(graph, TIM_DNN, changes, style=style, n_samples=n_samples)
    for i in range(N):
        assert_equal(found, i, estimate(place(graph, one(changes, i), style=style, n_samples=n_samples)))
    assert not found.keeps_splits


@settings(max_examples=12)
@given(graphs(), chips(kinds=KINDS[:1]), seeds(), st.sampled_from([None, "temporal"]))
def test_variants_of_a_plan_keep_its_splits(graph, chip, seed, style):
    plan = place(graph, chip, style=style, n_samples=2)
    splits = [Split(layer.n_row_chunks, layer.n_replicas) for layer in plan.layers if layer.is_on_tiles]
    changes = {key: values for key, values in draws(seed).items() if not key.startswith("tile.n_")}
    changes = {key: values for key, values in changes.items()
               if key not in ("n_tiles", "tile.rows_per_access")}  # fmt: skip
    found = estimate_variants(plan, chip, changes)
    for i in range(N):
        other = variant(chip, {key: values[i].item() for key, values in changes.items()})
        kept = place(graph, other, style=plan.style, n_samples=2, policy=lambda *_: splits)
        assert_equal(found, i, estimate(kept))
    assert found.keeps_splits


def test_plans_are_as_many_as_the_policy_has_answers(tiny_chip, tiny_graph):
    changes = {"tile.access.latency_ns": np.linspace(1, 2, 50), "main_memory.bits_per_ns": np.geomspace(0.01, 9999, 50)}
    found = imcsim.estimate_variants(tiny_graph, tiny_chip, changes, style="temporal")
    plans = {
        tuple((layer.n_row_chunks, layer.n_replicas) for layer in place(
            tiny_graph, variant(tiny_chip, {key: values[i].item() for key, values in changes.items()}), style="temporal"
        ).layers)
        for i in range(50)
    }  # fmt: skip
    assert found.n_plans == len(plans) > 1
    kept = place(tiny_graph, tiny_chip, style="temporal", policy=as_they_are)
    assert estimate_variants(kept, tiny_chip, changes).n_plans == 1


FIGURES = ("latency_ns", "energy_pJ", "area_um2", "throughput_per_s")


def part_of(changes, at):
    return {key: values[at] for key, values in changes.items()}


def assert_same_bits(whole, at, part):
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(whole, name)[at], getattr(part, name))
    assert [whole.messages[i] for i in at] == list(part.messages)


@settings(max_examples=30)
@given(graphs(), seeds(), st.sampled_from([None, "temporal"]), st.lists(st.integers(0, N - 1), min_size=1, max_size=N))
def test_the_bits_of_a_variant_do_not_depend_on_the_others(graph, seed, style, at):
    rng = np.random.default_rng(seed)
    changes = draws(seed)
    changes |= {key: np.full(N, values[0]) for key, values in changes.items() if key in SHAPE}  # so that many share it
    changes |= {
        "n_tiles": rng.choice([1, 3], N),
        "tile.block_select.latency_ns": rng.choice([0.0, 0.4], N),
        "tile.count_max": rng.integers(1, 9, N),
        "psum_buffer.capacity_bits": np.full(N, rng.choice([16, 20, 24, 40, 64])),
    }
    whole = estimate_variants(graph, TIM_DNN, changes, style=style, failures="keep")
    assert_same_bits(whole, at, estimate_variants(graph, TIM_DNN, part_of(changes, at), style=style, failures="keep"))


@settings(max_examples=10)
@given(graphs(), seeds(), st.sampled_from([None, "temporal"]), st.lists(st.integers(0, N - 1), min_size=1, max_size=N))
def test_neither_do_they_across_banks(graph, seed, style, at):
    rng = np.random.default_rng(seed)
    changes = {
        "n_banks": rng.choice([1, 2], N),
        "tile.count_max": rng.integers(1, 9, N),
        "tile.n_pcus": rng.choice([1, 2, 4], N),
        "tile.n_columns": np.full(N, 16),
        "psum_buffer.capacity_bits": rng.choice([40, 65536], N),
        "bank_link.bits_per_ns": rng.uniform(1, 500, N),
    }
    chip = many_banks(TIM_DNN)
    whole = estimate_variants(graph, chip, changes, style=style, failures="keep")
    assert_same_bits(whole, at, estimate_variants(graph, chip, part_of(changes, at), style=style, failures="keep"))


def wide_layer(n_rows=96, n_outputs=8):
    """A network whose one product takes several rounds of a small tile, so that psums wait from one to the next."""
    rows = np.resize([1, -1, 0, 1, 1], (n_outputs, n_rows))
    quantizer = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    product = Product(kind="linear", weights=PlaneSum(planes=[rows], factors=[1]))
    ops = (
        Op(name="quantize", input="x", output=Tensor("codes", (n_rows,), TERNARY), steps=(quantizer,)),
        Op(name="linear", input="codes", output=Tensor("y", (n_outputs,), REAL), product=product),
    )
    return Graph(name="wide", inputs=(Tensor("x", (n_rows,), REAL),), ops=ops, outputs=("y",))


def test_a_stage_that_only_some_variants_have_leaves_the_others_as_they_are(tiny_chip):
    rng, n = np.random.default_rng(0), 60
    chip = vary(tiny_chip, {"n_tiles": 2, "tile.n_rows": 8})
    changes = {f"tile.access.{name}.energy_pJ": rng.uniform(0, 9, n) for name in ("decoders", "wordlines")}
    changes["tile.block_select.latency_ns"] = rng.choice([0.0, 0.4], n)
    whole = estimate_variants(wide_layer(), chip, changes, style="temporal")
    for i in range(n):
        assert_same_bits(whole, [i], estimate_variants(wide_layer(), chip, part_of(changes, [i]), style="temporal"))


def test_variants_whose_psums_spill_are_taken_apart_from_the_others(tiny_chip):
    # half of the buffer keeps 400 bits; two rounds leave 32 and 64 psums of 6, 7 or 8 bits waiting: 384, 448 or 512
    chip = vary(tiny_chip, {"n_tiles": 2, "tile.n_rows": 8, "psum_buffer.capacity_bits": 800})
    plan = place(wide_layer(), chip, style="temporal")
    layer = replace(plan.layers[1], psum_bits=np.array([6, 7, 6, 8]))
    assert [at.tolist() for at in _by_spills(plan, layer, 4)] == [[0, 2], [1, 3]]
    assert len(_by_spills(plan, replace(layer, psum_bits=7), 4)) == 1


def test_samples_a_second_are_the_batch_over_the_latency(tiny_chip, tiny_graph):
    found = estimate_variants(tiny_graph, tiny_chip, {"tile.access.latency_ns": [1.0, 400.0]}, n_samples=4)
    assert found.throughput_per_s.tolist() == (4 * (1e9 / found.latency_ns)).tolist()
    assert found.throughput_per_s[0] > found.throughput_per_s[1]
    single = estimate(place(tiny_graph, variant(tiny_chip, {"tile.access.latency_ns": 400.0}), n_samples=4))
    assert found.throughput_per_s[1] == pytest.approx(4 * single.throughput_per_s)


def error_of(graph, chip, changes, **options):
    with pytest.raises((ConfigError, MappingError)) as error:
        place(graph, vary(chip, changes), **options)
    return str(error.value)


def test_what_fails_is_told_and_the_others_have_their_figures(tiny_chip, tiny_graph):
    changes = {
        "n_tiles": [4, 1, 4, 4, 4, 4],
        "tile.n_pcus": [4, 4, 3, 4, 4, 4],
        "main_memory.bits_per_ns": [2048.0, 2048.0, 2048.0, -1.0, 2048.0, 512.0],
        "psum_buffer.capacity_bits": [65536, 65536, 65536, 65536, 2, 65536],
    }
    tiles = {"tile.n_rows": [4] * 6, "tile.rows_per_access": [4] * 6, "tile.n_columns": [8] * 6}
    changes |= tiles
    found = estimate_variants(tiny_graph, tiny_chip, changes, style="spatial", failures="keep")
    told = [message is not None for message in found.messages]
    assert told == [False, True, True, True, True, False]
    for i in range(6):
        if told[i]:
            row = {key: values[i] for key, values in changes.items()}
            assert found.messages[i] == error_of(tiny_graph, tiny_chip, row, style="spatial")
            assert "\n" not in found.messages[i]
            assert all(np.isnan(getattr(found, name)[i]) for name in FIGURES)
    at = [0, 5]
    alone = estimate_variants(tiny_graph, tiny_chip, {key: np.array(v)[at] for key, v in changes.items()},
                              style="spatial")  # fmt: skip
    assert_same_bits(found, at, alone)
    with pytest.raises(ConfigError, match=r"^main_memory.bits_per_ns: variant 3: must be greater than 0, got -1.0$"):
        estimate_variants(tiny_graph, tiny_chip, changes, style="spatial")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"^changes: must name at least one key of the chip, got none$"),
        ({"tile.acess.latency_ns": [1.0]}, r"^tile.acess.latency_ns: no such field in Tile; did you mean 'access'\?$"),
        ({"tile.n_pcu": [1]}, r"^tile.n_pcu: no such field in Tile; did you mean 'n_pcus'\?$"),
        ({"tile.n_pcus": 4}, r"^tile.n_pcus: must be one value for each variant \(n\), got an array of shape \(\)$"),
        (
            {"tile.count_max": [8, 9], "tile.access.latency_ns": [1.0, 2.0, 3.0]},
            r"^tile.access.latency_ns: must have as many values as tile.count_max \(2\), got 3$",
        ),
        ({"tile.access.latency_ns": [1.0, np.nan]}, r"^tile.access.latency_ns: variant 1: must be finite, got nan$"),
        (
            {"main_memory.bits_per_ns": [1.0, 0.0]},
            r"^main_memory.bits_per_ns: variant 1: must be greater than 0, got 0.0$",
        ),
        ({"tile.count_max": [8.0]}, r"^tile.count_max: variant 0: must be a whole number, got 8.0; write 8$"),
        ({"tile.n_pcus": [8, 10]}, r"^tile.n_pcus: must divide n_columns \(16\) evenly, got 10; "),
        (
            {"tile.serial": ["bit", "tri"]},
            r"^tile.serial: variant 1: must be one of bit, trit, got 'tri'; did you mean",
        ),
        (
            {"tile.source": ["me"]},
            r"^tile.source: must be numbers, got .*; texts have no part in time, energy and area$",
        ),
        (
            {"circuit.variation.threshold_fraction": [0.1]},
            r"^circuit.variation.threshold_fraction: must be a key that time, energy or area follow from, got one that",
        ),
    ],
)
def test_a_wrong_variant_is_one_line(tiny_chip, tiny_graph, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        estimate_variants(tiny_graph, tiny_chip, changes)
    assert "\n" not in str(error.value)


def test_what_comes_from_the_plan_is_not_given_beside_it(tiny_chip, tiny_graph):
    plan = place(tiny_graph, tiny_chip)
    with pytest.raises(ConfigError, match="n_samples and style must come from the plan"):
        estimate_variants(plan, tiny_chip, {"tile.count_max": [2]}, n_samples=2)
    with pytest.raises(MappingError, match="n_samples: must be at least 1, got 0"):
        estimate_variants(tiny_graph, tiny_chip, {"tile.count_max": [2]}, n_samples=0)


def test_splits_that_do_not_suit_other_tiles_are_refused(tiny_chip, tiny_graph):
    plan = place(tiny_graph, tiny_chip, style="temporal", policy=as_they_are)
    with pytest.raises(MappingError, match="conv: the plan's row chunks must be from 3 to 3 in tiles of 4 rows"):
        estimate_variants(plan, tiny_chip, {"tile.n_rows": [4]})
