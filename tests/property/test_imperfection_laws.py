"""Laws of imperfect tiles: what is off changes no bit, and what is drawn does not depend on how the work is shared."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.arch.load import load_chip
from imcsim.functional.execute import run
from imcsim.functional.instance import ChipInstance
from imcsim.graph import BINARY, REAL, TERNARY, Format, Graph, Op, Product, Quantize, Tensor, Threshold, unsigned
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum

RESISTIVE = {"tile.resistive.basis": "assumed", "tile.resistive.source": "a test"}
ALL = {
    "tile.imperfections.stuck_at_zero_probability": 0.02,
    "tile.imperfections.adc_offset_counts": 0.4,
    "tile.imperfections.adc_gain_fraction": 0.05,
}
NOISE = {"tile.imperfections.read_noise_counts": 0.2}
SMALL = {"n_tiles": 6, "tile.n_rows": 32, "tile.n_columns": 16, "tile.n_pcus": 4}


def network(fmt, minus=1.0, seed=0, n_pixels=5):
    rng = np.random.default_rng(seed)
    codes = rng.choice([-1, 1], (7, 24, 2, 1)) if fmt == BINARY else rng.integers(-1, 2, (7, 24, 2, 1))
    product = Product(kind="conv2d", weights=PlaneSum(planes=codes[None], factors=[1], minus=minus))
    shape = (24, n_pixels, 3)
    if fmt.kind == "unsigned":
        step = Quantize(fmt)
    else:
        step = Threshold([[0.0]] if fmt == BINARY else [[-0.5, 0.5]], [-1, 1] if fmt == BINARY else [-1, 0, 1], fmt)
    quantize = Op(name="in", input="x", output=Tensor("codes", shape, fmt), steps=(step,))
    layer = Op(name="layer", input="codes", output=Tensor("y", product.shape(shape), REAL), product=product)
    return Graph(name="net", inputs=(Tensor("x", shape, REAL),), ops=(quantize, layer), outputs=("y",))


def chip(**changes):
    return load_chip("tim-dnn", SMALL | changes)


formats = st.sampled_from([TERNARY, BINARY, Format("ternary", 2, minus=0.5), unsigned(2)])


@settings(max_examples=25)
@given(
    fmt=formats,
    minus=st.sampled_from([1.0, 0.75]),
    sense=st.sampled_from(["both", "n"]),
    rows=st.sampled_from([4, 8, 16, 32]),
    count_max=st.integers(1, 20),
    resistive=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_tile_whose_imperfections_are_zero_gives_the_bits_of_one_without(
    fmt, minus, sense, rows, count_max, resistive, seed
):
    graph = network(fmt, minus, seed)
    tile = {"tile.sense": sense, "tile.rows_per_access": rows, "tile.count_max": count_max}
    # a spread of ADCs too small to cross a threshold takes the path of those that deviate
    zero = {"tile.imperfections.adc_offset_counts": 1e-9, "tile.imperfections.read_noise_counts": 1e-9}
    x = np.random.default_rng(seed).integers(-1, 4, (3, 24, 5, 3))
    plain = run(place(graph, chip(**tile)), x)
    other = run(
        place(graph, chip(**tile, **zero, **(RESISTIVE if resistive else {}))), x,
        rng=np.random.default_rng(seed), instance=ChipInstance(seed),
    )  # fmt: skip
    assert np.array_equal(plain.outputs, other.outputs)
    assert plain.total == other.total


@pytest.mark.parametrize("changes", [ALL, ALL | RESISTIVE | {"tile.resistive.programming_fraction": 0.2}])
@pytest.mark.parametrize("n_samples", [1, 2])
def test_a_chip_instance_does_not_depend_on_how_the_inputs_are_split(changes, n_samples):
    plan = place(network(TERNARY), chip(**changes), n_samples=n_samples)
    assert plan.layers[1].n_replicas > 1
    x = np.random.default_rng(1).integers(-1, 2, (132, 24, 5, 3))
    whole = run(plan, x, instance=ChipInstance(2)).outputs
    for cut in (2, 64, 70):
        parts = [run(plan, part, instance=ChipInstance(2)).outputs for part in (x[:cut], x[cut:])]
        assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, run(plan, x, instance=ChipInstance(3)).outputs)


@pytest.mark.parametrize("noise_counts", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(
    "more", [{}, {"tile.misreads": "circuit"}, RESISTIVE | {"tile.resistive.read_noise_fraction": 0.1}]
)
def test_a_seed_gives_the_same_bits_with_one_thread_and_two(noise_counts, more):
    built = chip(**ALL, **more, **{"tile.imperfections.read_noise_counts": noise_counts})
    plan = place(network(TERNARY), built)
    x = np.random.default_rng(1).integers(-1, 2, (60, 24, 5, 3))
    before, found = numba.get_num_threads(), []
    for n_threads, seed in ((1, 5), (min(2, before), 5), (1, 6)):
        numba.set_num_threads(n_threads)
        found.append(run(plan, x, rng=np.random.default_rng(seed), instance=ChipInstance(1)))
    numba.set_num_threads(before)
    assert np.array_equal(found[0].outputs, found[1].outputs)
    assert found[0].total == found[1].total
    assert found[0].total.n_misreads > 0
    assert not np.array_equal(found[0].outputs, found[2].outputs)


def test_noise_drawn_by_skipping_and_read_by_read_is_the_same_noise(monkeypatch):
    plan = place(network(TERNARY), chip(**ALL, **NOISE))
    x = np.random.default_rng(1).integers(-1, 2, (64, 24, 5, 3))
    quiet = run(place(network(TERNARY), chip(**ALL)), x).outputs
    changes = {}
    for limit in (0.0, 2.0):
        monkeypatch.setattr("imcsim.functional.adcs.DENSE_PROBABILITY", limit)
        plan = place(network(TERNARY), chip(**ALL, **NOISE))
        change = [run(plan, x, rng=np.random.default_rng(seed)).outputs - quiet for seed in range(8)]
        changes[limit] = np.stack(change)
    moments = {limit: (each.mean(), (each**2).mean()) for limit, each in changes.items()}
    spread = changes[0.0].std() / changes[0.0].size ** 0.5
    assert moments[0.0][0] == pytest.approx(moments[2.0][0], abs=6 * spread)
    assert moments[0.0][1] == pytest.approx(moments[2.0][1], rel=0.05)
