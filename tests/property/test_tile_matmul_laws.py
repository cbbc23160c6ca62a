"""What holds for every product of a tile."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.functional import kernels
from imcsim.functional.crossbar import tile_matmul, tile_matmul_plain
from imcsim.ternary.packing import pack_matrix, pack_vectors, unpack_vectors

heights = st.sampled_from([1, 2, 3, 4, 5, 8, 12, 13, 15, 16, 17, 20, 32, 50, 128, 300])
ceilings = st.integers(1, 20) | st.sampled_from([254, 255, 256, 1000])
levels = st.none() | st.tuples(st.floats(-4, -0.01), st.floats(0.01, 4))
laws = settings(max_examples=75, deadline=None)


@st.composite
def operands(draw):
    b, r, c = draw(st.integers(0, 12)), draw(st.integers(0, 90)), draw(st.integers(0, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = []
    for shape in ((b, r), (r, c)):
        nonzero, positive = draw(st.sampled_from([0.1, 0.5, 0.9, 1.0])), draw(st.sampled_from([0.2, 0.5, 1.0]))
        signs = np.where(rng.random(shape) < positive, 1, -1)
        sides.append((signs * (rng.random(shape) < nonzero)).astype(np.int8))
    return tuple(sides)


@laws
@given(operands(), heights, ceilings, levels, levels)
def test_the_fast_product_is_the_plain_one_bit_for_bit(xw, rows_per_access, count_max, x_levels, w_levels):
    options = {
        "rows_per_access": rows_per_access,
        "count_max": count_max,
        "x_levels": x_levels,
        "w_levels": w_levels,
    }
    fast, plain = tile_matmul(*xw, **options), tile_matmul_plain(*xw, **options)
    assert (fast.dtype, fast.shape) == (plain.dtype, plain.shape)
    assert fast.tobytes() == plain.tobytes()


@laws
@given(operands(), heights, st.integers(0, 5))
def test_a_converter_that_never_clips_gives_the_integer_product(xw, rows_per_access, more):
    x, w = xw
    expected = x.astype(int) @ w.astype(int)
    result = tile_matmul(x, w, rows_per_access=rows_per_access, count_max=rows_per_access + more)
    np.testing.assert_array_equal(result, expected)


@laws
@given(operands(), heights, ceilings)
def test_nothing_is_reported_as_clipped_only_if_the_product_is_exact(xw, rows_per_access, count_max):
    x, w = xw
    vectors, matrix = pack_vectors(x, rows_per_access), pack_matrix(w, rows_per_access)
    product = kernels.clipped_product(vectors, matrix, count_max=count_max)
    if product.n_clipped_conversions == 0:
        np.testing.assert_array_equal(product.total, x.astype(int) @ w.astype(int))
    assert (product.n_clipped_accesses > 0) == (product.n_clipped_conversions > 0)
    assert product.n_clipped_accesses <= product.n_clipped_conversions


@laws
@given(operands(), heights, ceilings, st.integers(0, 12))
def test_vectors_multiplied_in_two_batches_give_what_they_give_in_one(xw, rows_per_access, count_max, cut):
    x, w = xw
    options = {"rows_per_access": rows_per_access, "count_max": count_max}
    whole = tile_matmul(x, w, **options)
    np.testing.assert_array_equal(whole[:cut], tile_matmul(x[:cut], w, **options))
    np.testing.assert_array_equal(whole[cut:], tile_matmul(x[cut:], w, **options))


@laws
@given(operands(), heights, ceilings)
def test_turning_every_input_around_turns_the_result_around(xw, rows_per_access, count_max):
    x, w = xw
    options = {"rows_per_access": rows_per_access, "count_max": count_max}
    np.testing.assert_array_equal(tile_matmul(-x, w, **options), -tile_matmul(x, w, **options))
    np.testing.assert_array_equal(tile_matmul(x, -w, **options), -tile_matmul(x, w, **options))


@laws
@given(operands(), heights)
def test_unpacking_undoes_packing(xw, rows_per_access):
    x, _ = xw
    np.testing.assert_array_equal(unpack_vectors(pack_vectors(x, rows_per_access)), x)
    np.testing.assert_array_equal(unpack_vectors(kernels.pack_vectors_fast(x, rows_per_access)), x)
