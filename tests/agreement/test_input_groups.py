"""Scales for groups of inputs (FGQ) against a loop over single rows that shares no code with the engines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import STYLES, TIM_DNN, seeds, variant

from imcsim.analytic import estimate
from imcsim.circuit.misreads import ErrorTable
from imcsim.costs.price import price
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
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
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum, sign_magnitude

FORMATS = [TERNARY, BINARY, unsigned(4), unsigned(8), signed(3), integer(2), Format("ternary", 2, minus=0.625)]


def network(form, product, shape):
    """A network whose input is codes."""
    if form.kind in ("binary", "ternary"):
        levels = {"binary": ([[0.0]], [-1, 1]), "ternary": ([[-0.5, 0.5]], [-1, 0, 1])}[form.kind]
        quantizer = Threshold(*levels, form)
    else:
        quantizer = Quantize(form)
    ops = (
        Op(name="in", input="x", output=Tensor("codes", shape, form), steps=(quantizer,)),
        Op(name="layer", input="codes", output=Tensor("y", product.shape(shape), REAL), product=product),
    )
    return Graph(name="net", inputs=(Tensor("x", shape, REAL),), ops=ops, outputs=("y",))


@st.composite
def cases(draw, clipping=True):
    """A network with one grouped product, codes for it, and changes of a chip."""
    rng = np.random.default_rng(draw(seeds()))
    form = draw(st.sampled_from(FORMATS))
    groups = draw(st.sampled_from([1, 1, 2]))
    kind = draw(st.sampled_from(["linear", "conv2d"])) if groups == 1 else "conv2d"
    n_inputs, n_outputs = draw(st.integers(1, 21 if kind == "linear" else 9)), groups * draw(st.integers(1, 3))
    geometry, kernel, image = {}, (), ()
    if kind == "conv2d":
        kernel, image = draw(st.sampled_from([(1, 1), (2, 3), (3, 1)])), (3, draw(st.integers(3, 4)))
        pads = [0] if form.kind == "unsigned" else [0, 1, -1]
        geometry = {
            "groups": groups,
            "padding": draw(st.sampled_from([(0, 0), (1, 0)])),
            "stride": draw(st.sampled_from([(1, 1), (1, 2)])),
            "attrs": LayerAttrs(pad_value=draw(st.sampled_from(pads))),
        }
    n_planes = draw(st.sampled_from([1, 1, 2])) if form.minus == 1 else 1
    shape = (n_outputs, n_inputs, *kernel)
    codes = rng.integers(-(2**n_planes) + 1, 2**n_planes, shape)
    if form == BINARY and draw(st.booleans()):
        codes = np.where(codes > 0, 2**n_planes - 1, 1 - 2**n_planes)
    size = draw(st.integers(1, n_inputs + 2))
    window = kernel if draw(st.booleans()) else (1,) * len(kernel)
    scale = rng.normal(size=(n_outputs, -(-n_inputs // size), *window))
    planes = sign_magnitude(n_planes + 1).encode(codes)
    minus = 0.75 if n_planes == 1 and draw(st.integers(0, 3)) == 0 else 1.0
    weights = PlaneSum(
        planes=planes, factors=[1, 2][:n_planes], group_size=size, group_scale=scale, scale=0.5, minus=minus
    )
    product = Product(kind=kind, weights=weights, **geometry)
    x = rng.integers(form.low, form.high + 1, (2, n_inputs * groups, *image))
    x = np.where(x == 0, 1, x) if form == BINARY else x
    height = draw(st.sampled_from([16, 4, 5, 32]))
    changes = {
        "n_tiles": draw(st.integers(1, 8)),
        "tile.rows_per_access": height,
        "tile.n_rows": height * draw(st.integers(1, 4)),
        "tile.n_columns": 8,
        "tile.n_pcus": 4,
        "tile.count_max": draw(st.sampled_from([1, 2, 3, 8])) if clipping else height,
        "tile.sense": draw(st.sampled_from(["both", "n"])),
        "tile.serial": draw(st.sampled_from(["bit", "trit"])),
    }
    return network(form, product, x.shape[1:]), x, changes


def groups_of(weights):
    """The inputs that share a scale, as lists of (input, place in the window), in the order that design.md B.2 says."""
    n_inputs, window = weights.shape[1], list(np.ndindex(*weights.shape[2:]))
    starts = range(0, n_inputs, weights.group_size)
    inputs = [range(start, min(start + weights.group_size, n_inputs)) for start in starts]
    if weights.group_scale.size == len(weights.group_scale) * len(inputs):
        return [(i, window[0], [(c, at) for at in window for c in group]) for i, group in enumerate(inputs)]
    return [(i, at, [(c, at) for c in group]) for at in window for i, group in enumerate(inputs)]


def slowly(graph, x, chip):
    """Row by row: sums, accesses, clipped conversions."""
    op = graph.ops[-1]
    product, weights, form = op.product, op.product.weights, graph.tensors[op.input].format
    tile = chip.tile
    codec = form.codec(tile.serial)
    is_asymmetric = weights.is_asymmetric or form.minus != 1
    n_in, n_out = weights.shape[1], product.n_columns
    minus = np.broadcast_to(weights.minus.ravel(), weights.shape[0])
    (py, px), (sy, sx) = product.padding, product.stride
    if product.kind == "conv2d":
        x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=product.attrs.pad_value)
    else:
        x = x[:, :, None, None]
    shape = (*product.shape(graph.tensors[op.input].shape), 1, 1)[:3]
    total, n_blocks = np.zeros((len(x), *shape)), 0
    planes = codec.encode(x)
    is_padded = product.padding != (0, 0) and product.attrs.pad_value == 0
    is_dense = form == BINARY and not is_asymmetric and np.all(weights.planes != 0) and not is_padded
    for b, o, h, w in np.ndindex(*total.shape):
        group = o // n_out
        for number, at, rows in groups_of(weights):
            sums = 0
            for factor, plane in zip(codec.factors, planes, strict=True):
                for j, weight in enumerate(weights.factors):
                    for start in range(0, len(rows), tile.rows_per_access):
                        block = rows[start : start + tile.rows_per_access]
                        n_blocks += 1
                        inputs = [plane[b, group * n_in + c, h * sy + (y or (0, 0))[0], w * sx + (y or (0, 0))[1]]
                                  for c, y in block]  # fmt: skip
                        cells = [weights.planes[(j, o, c, *y)] for c, y in block]
                        sums += factor * weight * read(inputs, cells, tile.count_max, is_asymmetric, minus[o],
                                                       form.minus, is_dense and tile.sense == "n")  # fmt: skip
            cells = np.array([[weights.planes[(j, o, c, *y)] for c, y in rows] for j in range(len(weights.planes))])
            ones = (weights.factors[:, None] * np.where(cells < 0, -minus[o], cells)).sum()
            total[b, o, h, w] += weights.group_scale.reshape(*weights.group_scale.shape[:2], -1)[
                o, number, np.ravel_multi_index(at, weights.shape[2:]) if weights.group_scale.ndim > 2 and at and
                weights.group_scale[0, 0].size > 1 else 0
            ] * (sums + codec.offset * ones)  # fmt: skip
    return total if product.kind == "conv2d" else total[:, :, 0, 0]


def read(inputs, cells, count_max, is_asymmetric, minus_cell, minus_input, n_alone):
    """What the PCU makes of one block of one column."""
    hits = list(zip(inputs, cells, strict=True))

    def count(x, w):
        return sum(1 for a, b in hits if (a, b) == (x, w))

    if n_alone:
        return 2 * min(count(1, 1) + count(-1, -1), count_max) - len(hits)
    if not is_asymmetric:
        return min(count(1, 1) + count(-1, -1), count_max) - min(count(1, -1) + count(-1, 1), count_max)
    first = min(count(1, 1), count_max) - minus_cell * min(count(1, -1), count_max)
    second = min(count(-1, 1), count_max) - minus_cell * min(count(-1, -1), count_max)
    return first - minus_input * second


@settings(max_examples=30)
@given(cases())
def test_grouped_scales_are_what_single_rows_add_up_to(case):
    graph, x, changes = case
    chip = variant(TIM_DNN, changes)
    found = run(place(graph, chip), x).outputs
    assert found == pytest.approx(slowly(graph, x, chip), rel=1e-12, abs=1e-9)


@settings(max_examples=30)
@given(cases(clipping=False))
def test_an_ideal_chip_gives_the_bits_of_the_reference_for_grouped_scales(case):
    graph, x, changes = case
    chip = variant(TIM_DNN, changes)
    found = run(place(graph, chip), x)
    assert np.array_equal(found.outputs, reference(graph, x))
    assert found.total.n_clipped_accesses == 0


@settings(max_examples=30)
@given(cases(), st.sampled_from(STYLES))
def test_formulas_tasks_and_values_count_the_same_for_grouped_scales(case, style):
    graph, x, changes = case
    chip = variant(TIM_DNN, changes)
    plan = place(graph, chip, n_samples=len(x), style="temporal" if style == "temporal" else None)
    by_formula, layer = estimate(plan).counts["layer"], plan.layers[-1]
    by_tasks = lower(plan, price(chip)).actions["layer"]
    assert {k: n for k, n in by_formula.items() if n} == {k: n for k, n in by_tasks.items() if n}
    clips = run(plan, x).clipping["layer"]
    assert (clips.n_accesses, clips.n_conversions) == (by_formula["tile.access"], by_formula[layer.conversion])
    sizes = [len(rows) for *_, rows in groups_of(graph.ops[-1].product.weights)]
    accesses = sum(-(-n // chip.tile.rows_per_access) for n in sizes)  # quantizers.md B.2
    n_segments = -(-layer.n_outputs // (chip.tile.n_columns // layer.n_weight_planes))
    assert by_formula["tile.access"] == (
        accesses * n_segments * layer.n_vectors * layer.n_groups * layer.n_passes * layer.accesses_per_pass
    )


def test_weights_with_grouped_scales_are_the_product_of_their_numbers():
    rng = np.random.default_rng(0)
    codes = rng.integers(-1, 2, (3, 10, 3, 3))
    for window in ((1, 1), (3, 3)):
        scale = rng.integers(1, 9, (3, 3, *window)) / 8  # dyadic, so that no sum is rounded
        weights = PlaneSum(planes=[codes], factors=[1], group_size=4, group_scale=scale)
        assert np.array_equal(weights.to_numbers(), codes * np.repeat(scale, 4, axis=1)[:, :10])
        graph = network(signed(4), Product(kind="conv2d", weights=weights), (10, 5, 5))
        x = rng.integers(-7, 8, (2, 10, 5, 5))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
        wanted = np.einsum("bihwyx,oiyx->bohw", windows, weights.to_numbers())
        assert np.array_equal(reference(graph, x), wanted)
        assert np.array_equal(run(place(graph, variant(TIM_DNN, {"tile.count_max": 16})), x).outputs, wanted)


def test_misreads_reach_grouped_sums(monkeypatch):
    weights = PlaneSum(planes=np.ones((1, 2, 8)), factors=[1], group_size=4, group_scale=[[1.0, 10.0], [0.5, 100.0]])
    graph = network(unsigned(1), Product(kind="linear", weights=weights), (8,))
    chip = variant(TIM_DNN, {"tile.count_max": 16})
    x = np.ones((3, 8))
    assert run(place(graph, chip), x).outputs.tolist() == [[44.0, 402.0]] * 3
    always_less = ErrorTable(lower=np.array([0, 0, 0, 0, 1.0]), higher=np.zeros(5))
    monkeypatch.setattr("imcsim.functional.execute.error_table", lambda chip: always_less)
    found = run(place(graph, chip), x, rng=np.random.default_rng(0))
    assert found.outputs.tolist() == [[33.0, 301.5]] * 3
    assert found.total.n_misreads == 3 * 2 * 2
