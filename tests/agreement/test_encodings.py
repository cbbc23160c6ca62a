"""Every encoding of a tile against loops that share no code with the engines."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.analytic import estimate
from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError, GraphError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Affine,
    Format,
    Graph,
    LayerAttrs,
    Op,
    Product,
    Quantize,
    Tensor,
    Threshold,
    integer,
    signed,
    unsigned,
)
from imcsim.mapping.place import place
from imcsim.sim import simulate
from imcsim.ternary import PlaneSum

FORMATS = [TERNARY, Format("ternary", 2, minus=0.625), unsigned(2), unsigned(3), unsigned(4), signed(3), integer(3)]


def codes_of(fmt, shape, rng):
    return rng.integers(fmt.low, fmt.high + 1, shape)


def weights_of(kind, shape, rng):
    codes = rng.integers(-1, 2, shape)
    axes = (-1,) + (1,) * (len(shape) - 1)
    minus = {"symmetric": 1.0, "one": 0.75, "each": rng.uniform(0.25, 2.0, shape[0]).reshape(axes)}[kind]
    return PlaneSum(planes=codes[None], factors=[1], minus=minus)


def network(fmt, product, shape):
    """A network whose input is codes: what comes in is what the product reads."""
    if fmt.kind in ("binary", "ternary"):
        quantizer = Threshold([[-0.5, 0.5]] if fmt.kind == "ternary" else [[0.0]],
                              [-1, 0, 1] if fmt.kind == "ternary" else [-1, 1], fmt)  # fmt: skip
    else:
        quantizer = Quantize(fmt)
    return Graph(
        name="net",
        inputs=(Tensor("x", shape, REAL),),
        ops=(
            Op(name="in", input="x", output=Tensor("codes", shape, fmt), steps=(quantizer,)),
            Op(name="layer", input="codes", output=Tensor("y", product.shape(shape), REAL), product=product),
        ),
        outputs=("y",),
    )


def chip(**tile):
    return load_chip("tim-dnn", {f"tile.{name}": value for name, value in tile.items()})


@cache
def near_memory(serial="bit"):
    return load_chip("near-memory-iso-capacity", {"tile.serial": serial})


def by_table(codes, matrix, fmt, minus, rows_per_access, count_max, serial="bit"):
    """Add up the table of design.md section 2 block by block: codes (b r), matrix (r c) in {-1, 0, 1}, minus (c)."""
    codec = fmt.codec(serial)
    planes = codec.encode(codes)
    asymmetric = np.any(minus != 1) or fmt.minus != 1
    out = np.zeros((len(codes), matrix.shape[1]))
    for factor, plane in zip(codec.factors, planes, strict=True):
        for b in range(len(codes)):
            for c in range(matrix.shape[1]):
                for start in range(0, len(matrix), rows_per_access):
                    x, w = plane[b, start : start + rows_per_access], matrix[start : start + rows_per_access, c]

                    def read(hit):
                        return min(int(np.sum(hit)), count_max)

                    if not asymmetric:
                        out[b, c] += factor * (read(x * w == 1) - read(x * w == -1))
                        continue
                    for value, weight in ((1, 1.0), (-1, -fmt.minus)):
                        n, k = read((x == value) & (w == 1)), read((x == value) & (w == -1))
                        out[b, c] += factor * weight * (n - minus[c] * k)
    return out + codec.offset * (np.maximum(matrix, 0) - minus * np.maximum(-matrix, 0)).sum(axis=0)


@settings(deadline=None, max_examples=30)
@given(
    fmt=st.sampled_from(FORMATS),
    kind=st.sampled_from(["symmetric", "one", "each"]),
    serial=st.sampled_from(["bit", "trit"]),
    rows=st.integers(1, 40),
    rows_per_access=st.sampled_from([4, 8, 16]),
    count_max=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_encoding_is_what_the_table_says(fmt, kind, serial, rows, rows_per_access, count_max, seed):
    rng = np.random.default_rng(seed)
    weights = weights_of(kind, (5, rows), rng)
    graph = network(fmt, Product(kind="linear", weights=weights), (rows,))
    codes = codes_of(fmt, (3, rows), rng)
    plan = place(graph, chip(rows_per_access=rows_per_access, count_max=count_max, serial=serial))
    ours = run(plan, codes).outputs
    minus = np.broadcast_to(weights.minus.reshape(-1), (5,))
    expected = by_table(codes, weights.planes[0].T, fmt, minus, rows_per_access, count_max, serial)
    assert ours == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    fmt=st.sampled_from([*FORMATS, BINARY]),
    kind=st.sampled_from(["symmetric", "one", "each"]),
    serial=st.sampled_from(["bit", "trit"]),
    groups=st.sampled_from([1, 2]),
    pad=st.sampled_from([0, 1]),
    is_near_memory=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_an_ideal_tile_gives_the_reference_bit_for_bit(fmt, kind, serial, groups, pad, is_near_memory, seed):
    rng = np.random.default_rng(seed)
    weights = weights_of(kind, (4, 6 // groups, 3, 3), rng)
    product = Product(kind="conv2d", weights=weights, padding=(1, 1), groups=groups, attrs=LayerAttrs(pad_value=pad))
    graph = network(fmt, product, (6, 5, 4))
    x = codes_of(fmt, (2, 6, 5, 4), rng)
    ideal = near_memory(serial) if is_near_memory else chip(count_max=16, serial=serial)
    plan = place(graph, ideal)
    assert np.array_equal(run(plan, x).outputs, reference(graph, x))


@pytest.mark.parametrize(
    ("fmt", "kind", "accesses"),
    [
        (TERNARY, "symmetric", 1),
        (TERNARY, "one", 2),
        (Format("ternary", 2, minus=0.5), "symmetric", 2),
        (unsigned(2), "one", 2),
        (signed(3), "one", 4),
    ],
)
def test_asymmetric_encodings_take_a_second_access_where_inputs_may_be_negative(fmt, kind, accesses):
    rng = np.random.default_rng(0)
    product = Product(kind="linear", weights=weights_of(kind, (4, 16), rng))
    plan = place(network(fmt, product, (16,)), chip())
    assert estimate(plan).counts["layer"]["tile.access"] == accesses
    assert simulate(plan).counts["layer"] == estimate(plan).counts["layer"]
    assert run(plan, np.zeros((1, 16))).total.n_accesses == accesses


@pytest.mark.parametrize(("fmt", "reads"), [(TERNARY, 16), (Format("ternary", 2, minus=0.5), 16), (signed(3), 32)])
def test_near_memory_every_row_is_read_once_a_pass_whatever_the_encoding(fmt, reads):
    rng = np.random.default_rng(0)
    product = Product(kind="linear", weights=weights_of("each", (4, 16), rng))
    plan = place(network(fmt, product, (16,)), near_memory())
    codes = codes_of(fmt, (1, 16), rng)
    codes[0, :5] = 0
    assert estimate(plan).counts["layer"]["tile.access"] == reads
    assert simulate(plan).counts["layer"] == estimate(plan).counts["layer"]
    total = run(plan, codes).total
    assert (total.n_accesses, total.n_conversions) == (reads, 4 * reads)
    assert total.n_idle_accesses >= 5 * reads // 16


@pytest.mark.parametrize(("bits", "passes"), [(2, 2), (3, 2), (4, 3), (5, 4), (6, 4), (7, 5), (8, 6)])
def test_trits_save_the_passes_that_they_promise(bits, passes):
    product = Product(kind="linear", weights=PlaneSum(planes=np.ones((1, 4, 16)), factors=[1]))
    graph = network(unsigned(bits), product, (16,))
    accesses = {serial: estimate(place(graph, chip(serial=serial))).counts["layer"]["tile.access"]
                for serial in ("bit", "trit")}  # fmt: skip
    assert accesses == {"bit": bits, "trit": passes}


def dense(padding=(0, 0), pad_value=0, zero=False):
    rng = np.random.default_rng(3)
    codes = rng.choice([-1, 1], (4, 5, 3, 3))
    codes[0, 0, 0, 0] = 0 if zero else 1
    product = Product(kind="conv2d", weights=PlaneSum(planes=codes[None], factors=[1]), padding=padding,
                      attrs=LayerAttrs(pad_value=pad_value))  # fmt: skip
    return network(BINARY, product, (5, 6, 6)), rng.choice([-1.0, 1.0], (3, 5, 6, 6))


@pytest.mark.parametrize("padding", [(0, 0), (1, 1)])
def test_sensing_n_alone_is_exact_with_an_adc_as_wide_as_the_block(padding):
    graph, x = dense(padding, pad_value=-1)
    plan = place(graph, chip(sense="n", count_max=16))
    assert plan.layers[1].sense == "n"
    assert np.array_equal(run(plan, x).outputs, reference(graph, x))


def test_sensing_n_alone_reads_twice_the_clipped_n_less_the_rows():
    product = Product(kind="linear", weights=PlaneSum(planes=np.ones((1, 1, 20)), factors=[1]))
    graph = network(BINARY, product, (20,))
    plan = place(graph, chip(sense="n", count_max=8))
    found = run(plan, np.ones((1, 20)))
    assert found.outputs.tolist() == [[2 * (8 + 4) - 20]]
    assert (found.total.n_clipped_accesses, found.total.n_clipped_conversions) == (1, 1)
    # nothing is read of k, so nothing of it clips
    assert run(plan, -np.ones((1, 20))).total.n_clipped_accesses == 0
    assert run(plan, -np.ones((1, 20))).outputs.tolist() == [[-20]]


@pytest.mark.parametrize("graph", [dense((1, 1), 0)[0], dense(zero=True)[0]], ids=["padded with 0", "a zero weight"])
def test_layers_that_are_not_dense_are_sensed_on_both_bitlines(graph):
    plan = place(graph, chip(sense="n"))
    assert plan.layers[1].sense == "both"


def test_sensing_n_alone_costs_less_and_as_many_conversions():
    graph, _ = dense()
    both, one = (estimate(place(graph, chip(sense=sense))) for sense in ("both", "n"))
    assert one.counts["layer"]["tile.convert_one"] == both.counts["layer"]["tile.convert"] > 0
    assert one.counts["layer"]["tile.convert"] == 0
    assert one.energy_pJ < both.energy_pJ
    assert simulate(one.plan).counts["layer"] == one.counts["layer"]


def test_asymmetric_numbers_are_what_the_planes_say():
    weights = PlaneSum(planes=[[1, 0, -1]], factors=[1], scale=2.0, minus=0.25)
    assert weights.to_numbers().tolist() == [2.0, 0.0, -0.5]
    assert not weights.is_whole


@pytest.mark.parametrize(("minus", "message"), [(0.0, "minus: must be above 0, got 0.0"),
                                                (float("nan"), "minus: must be finite, got nan")])  # fmt: skip
def test_what_minus_one_counts_for_is_a_positive_number(minus, message):
    with pytest.raises(ConfigError, match=message):
        PlaneSum(planes=[[1]], factors=[1], minus=minus)


def test_an_asymmetric_operand_has_one_plane():
    with pytest.raises(ConfigError, match="minus: must be 1 for an operand of 2 planes"):
        PlaneSum(planes=[[1], [0]], factors=[1, 2], minus=0.5)


def test_only_ternary_codes_can_be_asymmetric():
    with pytest.raises(
        GraphError, match=r"format: minus must be 1, or above 0 for ternary codes, got 0\.5 for unsigned"
    ):
        Format("unsigned", 2, minus=0.5)


def test_asymmetric_codes_go_to_products_alone():
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1]]], factors=[1]))
    graph = network(Format("ternary", 2, minus=0.5), product, (1,))
    step = Op(name="after", input="codes", output=Tensor("z", (1,), REAL), steps=(Affine(2.0, 0.0),))
    with pytest.raises(GraphError, match="after: asymmetric codes must go to products alone"):
        replace(graph, ops=(*graph.ops, step))
