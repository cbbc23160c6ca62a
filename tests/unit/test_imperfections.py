import numpy as np
import pytest
from scipy.stats import chi2, chisquare, kstest, norm

from imcsim.arch.load import chip_schema, load_chip
from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError
from imcsim.functional.adcs import Adcs
from imcsim.functional.conversions import Sums
from imcsim.functional.drawing import normal
from imcsim.functional.execute import execute, run
from imcsim.functional.instance import FREE, ChipInstance
from imcsim.functional.noise import draw_misreads
from imcsim.functional.placed import placed_weights
from imcsim.functional.reading import Keys, Reader
from imcsim.graph import REAL, TERNARY, Graph, Op, Product, Tensor, Threshold
from imcsim.mapping.place import Split, place
from imcsim.mapping.plan import LayerPlan
from imcsim.ternary import PlaneSum
from imcsim.ternary.packing import pack_matrix, pack_vectors, unpack_matrix

TINY = {"n_tiles": 2, "tile.n_rows": 8, "tile.n_columns": 4, "tile.rows_per_access": 4, "tile.n_pcus": 2}
STUCK_AT_MINUS = {"tile.imperfections.stuck_at_minus_probability": 0.5}


def chip(**imperfections):
    return load_chip("tim-dnn", TINY | {f"tile.imperfections.{name}": value for name, value in imperfections.items()})


def resistive(**keys):
    about = {"basis": "assumed", "source": "a test"}
    return load_chip("tim-dnn", TINY | {f"tile.resistive.{name}": value for name, value in (about | keys).items()})


def network(weights, n_pixels=1):
    """A 1 x 1 convolution of ternary codes that come in as they are; weights (c r)."""
    weights = np.array(weights)
    n_out, n_in = weights.shape
    product = Product(kind="conv2d", weights=PlaneSum(planes=weights[None, :, :, None, None], factors=[1]))
    shape = (n_in, n_pixels, 1)
    step = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    codes = Op(name="in", input="x", output=Tensor("codes", shape, TERNARY), steps=(step,))
    layer = Op(name="layer", input="codes", output=Tensor("y", (n_out, n_pixels, 1), REAL), product=product)
    return Graph(name="net", inputs=(Tensor("x", shape, REAL),), ops=(codes, layer), outputs=("y",))


# --- what a chip file may say ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("imperfections.stuck_at_zero_probability", 1.5, "must be at most 1, got 1.5"),
        ("imperfections.stuck_at_plus_probability", -0.1, "must be at least 0, got -0.1"),
        ("imperfections.stuck_at_minus_probability", float("nan"), "must be"),
        ("imperfections.adc_offset_counts", -1, "must be at least 0, got -1"),
        ("imperfections.adc_gain_fraction", float("inf"), "must be finite, got inf"),
        ("imperfections.read_noise_counts", "much", "must be a number, got 'much'"),
        ("imperfections.read_noise", 0.1, "no such field in Imperfections; did you mean 'read_noise_counts'?"),
    ],
)
def test_an_imperfection_is_refused_by_its_name(key, value, message):
    with pytest.raises(ConfigError) as error:
        load_chip("tim-dnn", {f"tile.{key}": value})
    assert f"tile.{key}: {message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cell_is_stuck_at_one_value_at_most():
    with pytest.raises(
        ConfigError,
        match=r"imperfections\.stuck_at_zero_probability: must be at most 1 together with plus and minus, got 1\.2",
    ):
        chip(stuck_at_zero_probability=0.7, stuck_at_plus_probability=0.5)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"on_off_ratio": 0.5}, "tile.resistive.on_off_ratio: must be at least 1, got 0.5"),
        ({"spread": "uniform"}, "tile.resistive.spread: must be one of lognormal, gaussian, got 'uniform'"),
        ({"programming_fraction": -1.0}, "tile.resistive.programming_fraction: must be at least 0, got -1.0"),
        ({"elapsed_s": 0.0}, "tile.resistive.elapsed_s: must be greater than 0, got 0.0"),
        (
            {"elapsed_s": 2, "drift_reference_s": 10},
            "tile.resistive.elapsed_s: must be at least drift_reference_s (10), got 2; the law of the drift holds",
        ),
    ],
)
def test_a_resistive_cell_is_refused_by_the_key_that_is_wrong(keys, message):
    with pytest.raises(ConfigError) as error:
        resistive(**keys)
    assert message in str(error.value)


def test_a_resistive_tile_cannot_be_misread_by_a_table():
    with pytest.raises(
        ConfigError,
        match=r"tile\.misreads: must be none where the tile is resistive, got circuit; a table says how whole counts",
    ):
        load_chip("tim-dnn-rram", {"tile.misreads": "circuit"})


def test_an_imperfection_changes_the_basis_of_no_other_number():
    before, after = load_chip("tim-dnn"), chip(read_noise_counts=0.1)
    assert (after.tile.imperfections.basis, after.tile.imperfections.source[:15]) == ("assumed", "set by the user")
    assert load_chip("tim-dnn", {"tile.imperfections.read_noise_counts": 0.1}).tile.basis == before.tile.basis


def test_the_schema_says_the_units():
    records = chip_schema()["$defs"]
    assert records["Imperfections"]["properties"]["adc_offset_counts"]["description"].endswith("Unit: counts.")
    assert records["Resistive"]["properties"]["elapsed_s"]["description"].endswith("Unit: s.")


# --- instances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1"])
def test_an_instance_is_numbered_from_zero_up(seed):
    with pytest.raises(ConfigError, match="instance: seed must be a whole number of at least 0, got"):
        ChipInstance(seed)


def test_each_seed_tile_and_kind_has_draws_of_its_own():
    spec = chip(stuck_at_zero_probability=0.5, adc_offset_counts=1.0).tile
    one = ChipInstance(3).stuck_cells(spec, 0)
    assert np.array_equal(one, ChipInstance(3).stuck_cells(spec, 0))
    assert not np.array_equal(one, ChipInstance(4).stuck_cells(spec, 0))
    assert not np.array_equal(one, ChipInstance(3).stuck_cells(spec, 1))
    assert not np.array_equal(ChipInstance(3).adcs(spec, 0)[1], ChipInstance(3).adcs(spec, 1)[1])


def test_cells_are_stuck_as_often_as_the_chip_says():
    shares = (0.02, 0.05, 0.03)
    names = ("zero", "plus", "minus")
    keys = {f"tile.imperfections.stuck_at_{name}_probability": share
            for name, share in zip(names, shares, strict=True)}  # fmt: skip
    spec = load_chip("tim-dnn", keys).tile
    stuck = np.stack([ChipInstance(0).stuck_cells(spec, tile) for tile in range(4)])
    observed = [int(np.sum(stuck == value)) for value in (0, 1, -1, FREE)]
    assert chisquare(observed, np.array([*shares, 1 - sum(shares)]) * stuck.size).pvalue > 0.01


def test_adcs_deviate_as_the_chip_says_n_and_k_apart():
    keys = {"tile.imperfections.adc_offset_counts": 0.3, "tile.imperfections.adc_gain_fraction": 0.05}
    spec = load_chip("tim-dnn", keys).tile
    gain, offset = (np.stack(part) for part in zip(*(ChipInstance(1).adcs(spec, tile) for tile in range(16)),
                                                   strict=True))  # fmt: skip
    assert gain.shape == offset.shape == (16, 2, 32)
    assert kstest(offset.ravel(), norm(0, 0.3).cdf).pvalue > 0.01
    assert kstest(gain.ravel(), norm(1, 0.05).cdf).pvalue > 0.01
    assert abs(np.corrcoef(offset[:, 0].ravel(), offset[:, 1].ravel())[0, 1]) < 4 / 512**0.5


@pytest.mark.parametrize("spread", ["lognormal", "gaussian"])
def test_devices_are_programmed_around_nominal(spread):
    keys = {"programming_fraction": 0.3, "spread": spread, "basis": "assumed", "source": "a test"}
    spec = load_chip("tim-dnn", {f"tile.resistive.{name}": value for name, value in keys.items()}).tile
    factors = ChipInstance(0).devices(spec, 0).ravel()[:20000].astype(float)
    assert factors.mean() == pytest.approx(1, abs=4 * 0.32 / 20000**0.5)
    if spread == "lognormal":
        assert kstest(np.log(factors), norm(-0.045, 0.3).cdf).pvalue > 0.01
    else:
        assert factors.min() >= 0
        assert kstest(factors, lambda x: np.where(x < 0, 0, norm(1, 0.3).cdf(x))).pvalue > 0.01


def test_conductances_drift_by_the_power_law():
    fresh = ChipInstance(0).devices(resistive(programming_fraction=0.1, drift_exponent=0.05).tile, 0)
    keys = {"programming_fraction": 0.1, "drift_exponent": 0.05, "drift_reference_s": 10.0, "elapsed_s": 1e6}
    old = ChipInstance(0).devices(resistive(**keys).tile, 0)
    assert old == pytest.approx(fresh * 1e5**-0.05, rel=1e-6)
    spread = ChipInstance(0).devices(resistive(drift_exponent_spread=0.02, elapsed_s=1e6).tile, 0)
    nu = -np.log(spread) / np.log(1e6)
    assert nu.min() == 0
    assert 0.2 < np.mean(nu == 0) < 0.8  # an exponent below zero is taken as zero


# --- where it sits --------------------------------------------------------------------------------------------------


class Marked(ChipInstance):
    """An instance with three stuck cells, by hand."""

    def stuck_cells(self, spec, tile):
        stuck = np.full((spec.n_rows, spec.n_columns), FREE, np.int8)
        if tile == 0:
            stuck[4, 1] = -1  # the first row of the second block
            stuck[7, 0] = -1  # below the weights
        else:
            stuck[2, 0] = 0
        return stuck


def test_stuck_cells_lie_where_the_plan_puts_each_copy():
    graph = network([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], n_pixels=3)
    plan = place(graph, chip(stuck_at_minus_probability=0.5), policy=lambda layers, chip, style: [Split(1, 2)])
    places = [(s.replica, s.tile, s.block, s.column) for s in plan.layers[1].rounds[0].shards]
    assert places == [(0, 0, 0, 0), (1, 1, 0, 0)]
    found = run(plan, np.ones((2, 5, 3, 1)), instance=Marked()).outputs[:, :, :, 0]
    for sample in found:  # copies take turns: pixels 0 and 2 in the first, 1 in the second
        assert sample.T.tolist() == [[5, 3], [4, 5], [5, 3]]


class Quartered(ChipInstance):
    """An instance whose only tile has one stuck cell in each quarter but the first, by hand."""

    def stuck_cells(self, spec, tile):
        stuck = np.full((spec.n_rows, spec.n_columns), FREE, np.int8)
        stuck[1, 3] = 0  # first block, third and fourth column: output 1
        stuck[6, 0] = -1  # second block, first two columns: output 0
        stuck[4, 2] = stuck[7, 2] = -1  # second block, third and fourth column: output 0
        return stuck


def test_copies_in_one_tile_have_the_stuck_cells_and_the_adcs_of_their_own_blocks_and_columns():
    built = load_chip("tim-dnn", TINY | {"n_tiles": 1, "tile.imperfections.stuck_at_minus_probability": 0.5,
                                         "tile.imperfections.adc_offset_counts": 1e-9})  # fmt: skip
    graph = network(np.ones((2, 4), int), n_pixels=4)
    plan = place(graph, built, policy=lambda layers, chip, style: [Split(1, 4)])
    shards = plan.layers[1].rounds[0].shards
    assert {(s.block, s.column) for s in shards} == {(0, 0), (0, 2), (1, 0), (1, 2)}
    sums = {(0, 0): [4, 4], (0, 2): [4, 3], (1, 0): [2, 4], (1, 2): [0, 4]}
    found = run(plan, np.ones((1, 4, 4, 1)), instance=Quartered()).outputs[0, :, :, 0].T
    assert found.tolist() == [sums[s.block, s.column] for s in shards]  # pixel i in copy i
    _, offset = Quartered().adcs(built.tile, 0)
    copies = placed_weights(plan, Quartered(), None)["layer"][0].copies
    for shard, copy in zip(shards, copies, strict=True):  # two columns share a PCU
        assert copy.strips[0].adcs.offset.tolist() == offset[:, [shard.column // 2] * 2].tolist()


def test_two_samples_of_one_inference_take_turns_on_the_copies():
    layer = LayerPlan("layer", 2, n_vectors=6, n_replicas=4)
    turns = layer.replica_of(np.arange(12)).tolist()
    assert turns == [0, 1, 2, 3, 0, 1] * 2
    assert [turns[:6].count(replica) for replica in range(4)] == [layer.vectors_of(replica) for replica in range(4)]


def test_rounds_write_into_the_same_wrong_cells():
    graph = network(np.ones((16, 8), int))  # four segments of columns; two tiles of 8 x 4 cells
    built = chip(stuck_at_minus_probability=0.5)
    plan = place(graph, built, style="temporal", policy=lambda layers, chip, style: [Split(1, 1)])
    assert len(plan.layers[1].rounds) > 1
    instance = ChipInstance(0)
    held = unpack_matrix(placed_weights(plan, instance, None)["layer"][0].copies[0].weights)
    for round_ in plan.layers[1].rounds:
        for shard in round_.shards:
            stuck = instance.stuck_cells(built.tile, shard.tile)[:, shard.column : shard.column + shard.n_columns]
            part = held[:, shard.column_start : shard.column_stop]
            assert np.array_equal(part, np.where(stuck == FREE, 1, stuck))


def test_columns_are_read_by_the_adcs_of_their_place():
    built = chip(adc_offset_counts=2.0)
    plan = place(network([[1], [1], [1], [1]]), built)
    (shard,) = plan.layers[1].rounds[0].shards
    copy = placed_weights(plan, ChipInstance(0), None)["layer"][0].copies[0]
    _, offset = ChipInstance(0).adcs(built.tile, shard.tile)
    (strip,) = copy.strips
    assert strip.adcs.offset.tolist() == offset[:, [0, 0, 1, 1]].tolist()  # two columns share a PCU


def test_weights_are_kept_for_one_instance_and_no_longer_than_the_plan():
    plan = place(network([[1]]), chip(stuck_at_zero_probability=0.5))
    first = placed_weights(plan, ChipInstance(0), None)
    assert placed_weights(plan, ChipInstance(0), None) is first
    assert placed_weights(plan, ChipInstance(1), None) is not first


# --- ADCs -----------------------------------------------------------------------------------------------------------


def test_an_adc_rounds_halves_up_and_then_clips():
    adcs = Adcs(np.array([[1.5], [1.0]]), np.array([[0.0], [-0.5]]), count_max=3, greatest=4)
    assert adcs.levels[0, 0].tolist() == [0, 2, 3, 3, 3]  # of 0, 1.5, 3, 4.5, 6
    assert adcs.levels[1, 0].tolist() == [0, 1, 2, 3, 3]  # of -0.5, 0.5, 1.5, 2.5, 3.5


def test_noise_takes_a_count_from_its_level_as_often_as_the_normal_distribution_says():
    adcs = Adcs(np.array([[0.9], [1.0]]), np.array([[0.2], [0.0]]), count_max=8, greatest=16, noise_counts=0.3)
    counts = np.arange(17)
    for side, (gain, offset) in enumerate([(0.9, 0.2), (1.0, 0.0)]):
        middle = gain * counts + offset
        level = np.clip(np.floor(middle + 0.5), 0, 8)
        edges = np.concatenate([[-np.inf], np.arange(8) + 0.5, [np.inf]])
        table = norm.cdf((edges[1:] - middle[:, None]) / 0.3) - norm.cdf((edges[:-1] - middle[:, None]) / 0.3)
        reads = np.arange(9)
        below, above = (part[side, 0] for part in adcs.noise)
        assert below == pytest.approx(np.where(reads < level[:, None], table, 0).sum(axis=1), abs=1e-12)
        assert above == pytest.approx(np.where(reads > level[:, None], table, 0).sum(axis=1), abs=1e-12)


def test_the_quantiles_of_the_compiled_code_are_those_of_scipy():
    p = np.concatenate([np.linspace(0.001, 0.999, 999), 10.0 ** -np.arange(4, 300, 7), 1 - 10.0 ** -np.arange(4, 16)])
    assert np.array([normal(each) for each in p]) == pytest.approx(norm.ppf(p), rel=1e-13, abs=1e-15)


def reads_of(table_of_counts, count_max, noise_counts, gain=1.0, offset=0.0, misreads=(0.0, 0.0)):
    """P(read, count): noise, rounding, clipping, then a misread."""
    count = np.arange(table_of_counts)[:, None]
    edges = np.concatenate([[-np.inf], np.arange(count_max) + 0.5, [np.inf]])
    middle = gain * count + offset
    table = norm.cdf((edges[1:] - middle) / noise_counts) - norm.cdf((edges[:-1] - middle) / noise_counts)
    lower, higher = misreads
    moved = table * (1 - lower - higher)
    moved[:, :-1] += lower * table[:, 1:]
    moved[:, 0] += lower * table[:, 0]
    moved[:, 1:] += higher * table[:, :-1]
    moved[:, -1] += higher * table[:, -1]
    return moved


@pytest.mark.parametrize("noise_counts", [0.19, 0.7, 3.0])  # drawn by skipping, and read by read
@pytest.mark.parametrize("misreads", [(0.0, 0.0), (0.004, 0.006)])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_noisy_reads_are_distributed_as_the_normal_distribution_says(noise_counts, misreads, offset):
    n_rows, n_vectors, count_max = 6, 4000, 4
    lower, higher = np.full(7, misreads[0]), np.full(7, misreads[1])
    lower[0] = 0  # as every table
    table = ErrorTable(lower=lower, higher=higher) if any(misreads) else None
    x = pack_vectors(np.tril(np.ones((n_rows + 1, n_rows), np.int8), -1)[np.arange(n_vectors) % (n_rows + 1)], n_rows)
    w = pack_matrix(np.tile(np.array([[1, -1]], np.int8), (n_rows, 4)), n_rows)
    adcs = Adcs(np.full((2, 1), 1.0), np.full((2, 1), offset), count_max, n_rows, noise_counts, table)
    assert bool(adcs.is_dense.all()) is (noise_counts > 0.5)
    reader = Reader(count_max, 256, table, Keys(np.random.default_rng(3)), noise_counts)
    reader._ideal_adcs[n_rows] = adcs
    sums = reader.both(x, w).sums
    expected = reads_of(n_rows + 1, count_max, noise_counts, 1.0, offset, misreads)
    # a misread table has no misread to below 0
    expected[0] = reads_of(1, count_max, noise_counts, 1.0, offset, (0.0, misreads[1]))[0]
    counts = np.arange(n_vectors) % (n_rows + 1)
    statistic, n_cells = 0.0, 0
    for side, columns in ((0, slice(0, None, 2)), (1, slice(1, None, 2))):
        for count in range(n_rows + 1):
            read = sums[side][counts == count][:, columns].ravel()
            observed = np.bincount(read, minlength=count_max + 1)
            mean = expected[count] * read.size
            likely = mean >= 5
            assert observed[~likely].sum() <= mean[~likely].sum() + 5 * mean[~likely].sum() ** 0.5 + 3
            statistic += float(np.sum((observed - mean)[likely] ** 2 / mean[likely]))
            n_cells += int(likely.sum()) - 1
        idle = sums[side][:, 1 - side :: 2]  # columns of which nothing is counted on this side
        share = np.bincount(idle.ravel(), minlength=count_max + 1) / idle.size
        assert share == pytest.approx(expected[0], abs=5 * 0.5 / idle.size**0.5)
    assert chi2.sf(statistic, n_cells) > 0.001


def test_reads_drawn_by_skipping_are_those_that_are_wrong():
    x, w = pack_vectors(np.ones((5000, 4), np.int8), 4), pack_matrix(np.ones((4, 6), np.int8), 4)
    adcs = Adcs.ideal(8, 4, 0.2, None)
    n, k = np.zeros((2, 5000, 6), np.int32)
    n_wrong = draw_misreads(x, w, adcs, Keys(np.random.default_rng(0)).next, n_sides=1, sums=Sums(n, k, 1))
    assert not k.any()
    assert n_wrong == np.count_nonzero(n)
    assert set(np.unique(n)) == {-1, 0, 1}
    assert n_wrong == pytest.approx(30000 * 2 * norm.sf(2.5), abs=4 * 373**0.5)


# --- the whole ------------------------------------------------------------------------------------------------------


def test_what_is_fixed_in_a_chip_draws_nothing_from_the_generator():
    plan = place(network([[1, -1]]), chip(stuck_at_zero_probability=0.3, adc_offset_counts=0.5))
    rng = np.random.default_rng(0)
    execute(plan, np.ones((1, 2, 1, 1)), rng)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    assert execute(plan, np.ones((1, 2, 1, 1))).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    "built", [chip(read_noise_counts=0.1), resistive(read_noise_fraction=0.1)], ids=["counts", "devices"]
)
def test_a_chip_that_reads_with_noise_needs_a_generator(built):
    with pytest.raises(ConfigError, match=r"rng: must be a generator for a chip that misreads or reads with noise"):
        execute(place(network([[1, -1]]), built), np.ones((1, 2, 1, 1)))


def test_off_devices_add_up():
    plan = place(network([[1, 0, 0, 0, 1]]), resistive(on_off_ratio=4.0))
    # block 1: one on device, and three at a quarter: 1.75; block 2: one on device
    assert execute(plan, np.ones((1, 5, 1, 1))).ravel().tolist() == [2 + 1 - 1 - 0]  # k: 4 x 1/4 and 1/4


def test_noise_of_the_devices_grows_with_what_is_driven():
    plan = place(network(np.ones((4, 4), int)), resistive(read_noise_fraction=0.5))
    x = np.zeros((20000, 4, 1, 1))
    x[10000:] = 1
    found = run(plan, x, rng=np.random.default_rng(0))
    assert not found.outputs[:10000].any()  # nothing driven, nothing noisy
    reads = found.outputs[10000:].ravel()  # of 4 devices: 4 with a deviation of 0.5 x 2
    observed = np.bincount(reads.astype(int), minlength=9)
    edges = np.concatenate([[-np.inf], np.arange(8) + 0.5, [np.inf]])
    expected = np.diff(norm(4, 1).cdf(edges)) * reads.size
    assert chisquare(observed[1:8], expected[1:8] / expected[1:8].sum() * observed[1:8].sum()).pvalue > 0.01
    assert found.total.n_misreads == np.sum(reads != 4)


def test_what_meets_the_adc_of_a_resistive_tile_clips():
    built = load_chip("tim-dnn", TINY | {"tile.count_max": 2, "tile.resistive.basis": "assumed",
                                         "tile.resistive.source": "a test"})  # fmt: skip
    found = run(place(network([[1, 1, 1, 1], [-1, -1, -1, 1]]), built), np.ones((1, 4, 1, 1)))
    assert found.outputs.ravel().tolist() == [2, 1 - 2]
    assert (found.total.n_clipped_accesses, found.total.n_clipped_conversions) == (1, 2)
