"""Laws of the values (design.md, sections 2 and 5), for all graphs and chips."""

from unittest.mock import patch

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import STYLES, chips, code_formats, graphs, inputs_of, same_outputs, seeds

from imcsim.analytic import estimate
from imcsim.functional.execute import run
from imcsim.functional.reference import reference, reference_outputs, tensors_of
from imcsim.functional.statistics import Clipping
from imcsim.graph import REAL, Affine, Graph, MaxPool, Op, Relu, Tensor, Threshold, unsigned
from imcsim.graph.passes import simplify
from imcsim.mapping.place import place
from imcsim.ternary import bit_serial, sign_magnitude

laws = settings(max_examples=30)


@laws
@given(graphs(ends=3), chips(ideal=True), st.booleans(), seeds())
def test_an_ideal_chip_gives_the_bits_of_the_reference(graph, chip, joined, seed):
    graph = simplify(graph) if joined else graph
    x = inputs_of(graph, 3, seed)
    found = run(place(graph, chip), x)
    assert same_outputs(found.outputs, reference(graph, x))
    assert found.total.n_clipped_accesses == found.total.n_clipped_conversions == 0


# --- brute force ----------------------------------------------------------------------------------------------------


def first_product(graph):
    """The graph up to its first product: whole-number sums come out."""
    at = next(i for i, op in enumerate(graph.ops) if op.product is not None)
    return Graph(name="one", inputs=(graph.input,), ops=graph.ops[: at + 1], outputs=(graph.ops[at].output.name,))


def digits(codes, form):
    """(factor, digits) of each pass, from what bit-serial and sign-magnitude mean."""
    if form.kind in ("binary", "ternary"):
        return [(1, codes)]
    n_bits = form.bits if form.kind == "unsigned" else form.bits - 1
    return [(2**bit, np.sign(codes) * (np.abs(codes) // 2**bit % 2)) for bit in range(n_bits)]


def window(product, image, group, y, x, pad):
    """The digits that one group's rows get at one place: kernel position after kernel position, then channels."""
    if product.kind == "linear":
        return image
    n = product.weights.shape[1]
    rows = []
    for ky in range(product.kernel[0]):
        for kx in range(product.kernel[1]):
            at_y = y * product.stride[0] - product.padding[0] + ky * product.dilation[0]
            at_x = x * product.stride[1] - product.padding[1] + kx * product.dilation[1]
            inside = 0 <= at_y < image.shape[1] and 0 <= at_x < image.shape[2]
            rows.extend(image[group * n : (group + 1) * n, at_y, at_x] if inside else [pad] * n)
    return np.array(rows)


def columns_of(product, group):
    """(rows, columns): outputs of a group side by side, all planes of an output together."""
    columns = []
    for output in range(group * product.n_columns, (group + 1) * product.n_columns):
        for plane in product.weights.planes:
            kernel = plane[output]
            columns.append(kernel.ravel() if product.kind == "linear" else kernel.transpose(1, 2, 0).ravel())
    return np.array(columns).T


def brute_force(plan, x):
    """Access after access, shard after shard, as the plan says where they sit."""
    op, layer, tile = plan.graph.ops[-1], plan.layers[-1], plan.chip.tile
    product = op.product
    form = plan.graph.tensors[op.input].format
    codes = tensors_of(plan.graph, x)[op.input].astype(int)
    out = product.shape(plan.graph.tensors[op.input].shape)
    height, width = out[1:] if product.kind == "conv2d" else (1, 1)
    sums = np.zeros((len(x), out[0], height, width))
    accesses = idle = clipped_accesses = conversions = clipped_conversions = 0
    shards = [s for round_ in layer.rounds for s in round_.shards if s.replica == 0]
    pads = digits(np.array(product.attrs.pad_value), form)
    for b, y, x_ in np.ndindex(len(x), height, width):
        for (factor, plane), (_, pad) in zip(digits(codes[b], form), pads, strict=True):
            for s in shards:
                rows = window(product, plane, s.group, y, x_, int(pad))
                weights = columns_of(product, s.group)
                for start in range(s.row_start, s.row_stop, tile.rows_per_access):
                    stop = min(start + tile.rows_per_access, s.row_stop)
                    products = rows[start:stop, None] * weights[start:stop, s.column_start : s.column_stop]
                    n, k = (products == 1).sum(axis=0), (products == -1).sum(axis=0)
                    over = (n > tile.count_max) | (k > tile.count_max)
                    read = np.minimum(n, tile.count_max) - np.minimum(k, tile.count_max)
                    accesses, clipped_accesses = accesses + 1, clipped_accesses + bool(over.any())
                    idle += not rows[start:stop].any()
                    conversions, clipped_conversions = conversions + len(over), clipped_conversions + over.sum()
                    for column, value in enumerate(read, start=s.column_start):
                        output = s.group * product.n_columns + column // product.n_planes
                        weight = product.weights.factors[column % product.n_planes]
                        sums[b, output, y, x_] += factor * weight * value
    clips = Clipping(accesses, clipped_accesses, conversions, int(clipped_conversions), n_idle_accesses=idle)
    return sums.reshape(len(x), *out), clips


@settings(max_examples=50)
@given(graphs(most_layers=1, grouped=False, recurrent=False), chips(), st.sampled_from(STYLES), seeds())
def test_a_chip_that_clips_gives_what_access_after_access_adds_up_to(graph, chip, style, seed):
    graph = first_product(graph)
    x = inputs_of(graph, 2, seed)
    plan = place(graph, chip, style="temporal" if style == "temporal" else None)
    sums, clips = brute_force(plan, x)
    found = run(plan, x)
    assert np.array_equal(found.outputs, sums)
    assert found.total == clips


@laws
@given(graphs(ends=3), chips(), st.integers(1, 3))
def test_the_accesses_executed_are_those_counted_by_formula(graph, chip, n_samples):
    plan = place(graph, chip, n_samples=n_samples)
    clipping = run(plan, inputs_of(graph, n_samples)).clipping
    counts = estimate(plan).counts
    for layer, clips in clipping.items():
        assert clips.n_accesses == counts[layer]["tile.access"]
        assert clips.n_conversions == counts[layer][chip.conversion]


@laws
@given(graphs(ends=3), chips(), st.integers(1, 5), seeds())
def test_values_depend_neither_on_batches_nor_on_threads_nor_on_where_weights_sit(graph, chip, size, seed):
    x = inputs_of(graph, 7, seed)
    plan = place(graph, chip)
    whole = run(plan, x)
    elsewhere = place(graph, with_changes(chip, n_tiles=chip.n_tiles + 3), style="temporal", n_samples=2)
    with patch("imcsim.functional.execute.MAX_BATCH", size):
        split = run(elsewhere, x)
    n_threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = run(plan, x)
    finally:
        numba.set_num_threads(n_threads)
    for other in (split, alone):
        assert same_outputs(other.outputs, whole.outputs)
        assert other.clipping == whole.clipping
    assert same_outputs(reference(graph, x, batch=size), reference(graph, x))


def with_changes(chip, **changes):
    return chip.model_copy(update=changes)


@laws
@given(graphs(recurrent=False), chips(), seeds())
def test_a_larger_count_max_clips_no_more(graph, chip, seed):
    graph = first_product(graph)
    x = inputs_of(graph, 3, seed)
    finer = with_changes(chip, tile=chip.tile.model_copy(update={"count_max": chip.tile.count_max + 1}))
    one, other = (run(place(graph, c), x).total for c in (chip, finer))
    assert other.n_clipped_accesses <= one.n_clipped_accesses
    assert other.n_clipped_conversions <= one.n_clipped_conversions


# --- passes ---------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(graphs(dyadic=True, ends=3), seeds())
def test_passes_change_no_number_where_float64_never_rounds(graph, seed):
    x = inputs_of(graph, 4, seed)
    before, after = tensors_of(graph, x), tensors_of(simplify(graph), x)
    assert set(after) <= set(before)
    for name, values in after.items():
        assert np.array_equal(values, before[name])


@laws
@given(graphs(ends=3), seeds())
def test_passes_change_real_numbers_by_rounding_alone(graph, seed):
    short = simplify(graph)
    assert len(short.ops) <= len(graph.ops)
    x = inputs_of(graph, 4, seed)
    before, after = reference_outputs(graph, x).arrays, reference_outputs(short, x).arrays
    for name in graph.outputs:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-9, atol=1e-9)


@laws
@given(graphs(ends=3))
def test_passes_done_twice_are_done_once(graph):
    once = simplify(graph)
    assert simplify(once) == once


@laws
@given(seeds(), st.integers(1, 4), st.booleans(), st.booleans())
def test_codes_change_only_at_thresholds_when_a_batch_norm_is_folded(seed, n_thresholds, has_relu, has_pool):
    rng = np.random.default_rng(seed)
    norm = Affine(rng.normal(size=3), rng.normal(size=3))
    thresholds = np.sort(rng.normal(size=(3, n_thresholds)), axis=1)
    form = unsigned(n_thresholds.bit_length())
    codes = Threshold(thresholds, np.arange(n_thresholds + 1), form, rng.choice([-1, 1], size=3))
    steps = [*([Relu()] * has_relu), norm, *([MaxPool((2, 2), (1, 1))] * has_pool), codes]
    graph = one_step_an_op(steps, (3, 5, 5))
    x = rng.normal(size=(6, 3, 5, 5)) * 3
    before, after = tensors_of(graph, x), tensors_of(simplify(graph), x)
    (changed,) = np.nonzero((before[graph.output] != after[graph.output]).ravel())
    seen = before[graph.ops[-2].output.name]
    away = np.abs(seen[..., None] - codes.direction[:, None, None, None] * thresholds[:, None, None, :]).min(axis=-1)
    assert np.all(away.ravel()[changed] < 1e-12)


def one_step_an_op(steps, shape):
    start = at = Tensor("x", shape, REAL)
    ops = []
    for i, step in enumerate(steps):
        form = step.format if isinstance(step, Threshold) else REAL
        made = Tensor(f"t{i}", step.shape(at.shape), form)
        ops.append(Op(name=f"op{i}", input=at.name, output=made, steps=(step,)))
        at = made
    return Graph(name="steps", inputs=(start,), ops=tuple(ops), outputs=(at.name,))


# --- codecs ---------------------------------------------------------------------------------------------------------


@given(code_formats(), seeds())
def test_every_code_is_the_sum_of_its_planes(form, seed):
    codec = form.codec()
    codes = np.random.default_rng(seed).integers(form.low, form.high + 1, size=(3, 4))
    planes = codec.encode(codes)
    assert planes.dtype == np.int8
    assert planes.shape == (form.n_passes, 3, 4)
    assert np.all(np.abs(planes) <= 1)
    assert codec.is_signed or planes.min() >= 0
    assert np.array_equal(codec.decode(planes), codes)
    assert np.array_equal(codec.plane_sum(codes, scale=0.5).to_numbers(), 0.5 * codes)


@given(st.integers(1, 31), st.integers(2, 32))
def test_the_least_and_greatest_codes_come_back(unsigned_bits, signed_bits):
    for codec in (bit_serial(unsigned_bits), sign_magnitude(signed_bits)):
        codes = np.array([codec.low, codec.high, 0])
        assert codec.decode(codec.encode(codes)).tolist() == codes.tolist()


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_brute_force_itself_tells_a_clipped_sum_from_a_whole_one(tiny_chip, tiny_graph, n_outputs):
    graph = first_product(tiny_graph)
    x = np.ones((n_outputs, 1, 4, 4))
    sums, clips = brute_force(place(graph, tiny_chip), x)
    assert clips.n_clipped_accesses > 0
    assert not np.array_equal(sums, reference(graph, x))
