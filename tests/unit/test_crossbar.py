import numpy as np
import pytest
import torch

from imcsim.errors import ConfigError
from imcsim.functional.crossbar import tile_matmul, tile_matmul_plain

both = pytest.mark.parametrize("multiply", [tile_matmul, tile_matmul_plain])

X = np.array([[1, -1, 0, 1]])
W = np.array([[1, 1], [-1, 1], [1, 1], [1, -1]])  # column 0: n = 3, k = 0; column 1: n = 1, k = 2


@both
def test_a_column_reads_its_plus_products_less_its_minus_products(multiply):
    assert multiply(X, W).tolist() == [[3, -1]]


@both
def test_counts_above_count_max_are_read_as_count_max(multiply):
    assert multiply(X, W, count_max=2).tolist() == [[2, -1]]
    assert multiply(X, W, count_max=1).tolist() == [[1, 0]]


@both
def test_each_block_is_clipped_by_itself(multiply):
    ones = np.ones((1, 40)), np.ones((40, 1))
    assert multiply(*ones).tolist() == [[8 + 8 + 8]]
    assert multiply(*ones, rows_per_access=32, count_max=10).tolist() == [[10 + 8]]
    assert multiply(*ones, rows_per_access=40, count_max=33).tolist() == [[33]]


@both
@pytest.mark.parametrize("sign", [1, -1])
def test_a_block_of_sixteen_equal_products_is_not_lost(multiply, sign):
    x, w = np.full((1, 32), sign), np.ones((32, 3))
    assert multiply(x, w, count_max=15).tolist() == [[sign * 30] * 3]
    assert multiply(x, w, count_max=16).tolist() == [[sign * 32] * 3]


@both
def test_unequal_weights_with_inputs_never_negative_take_one_access(multiply):
    x = np.array([[1, 1, 1]])
    w = np.array([[1], [1], [-1]])
    assert multiply(x, w, w_levels=(-0.5, 2.0)).tolist() == [[2 * 2.0 - 0.5]]
    assert multiply(x, w, w_levels=(-0.5, 2.0), count_max=1).tolist() == [[2.0 - 0.5]]


@both
def test_unequal_levels_with_negative_inputs_clip_the_two_accesses_apart(multiply):
    x = np.array([[1, 1, -1, -1]])
    w = np.array([[1], [1], [-1], [-1]])  # n1 = 2, k1 = 0, n2 = 0, k2 = 2
    levels = {"x_levels": (-0.5, 1.0), "w_levels": (-0.25, 2.0)}
    assert multiply(x, w, **levels).tolist() == [[1.0 * 2.0 * 2 + 0.5 * 0.25 * 2]]
    assert multiply(x, w, **levels, count_max=1).tolist() == [[1.0 * 2.0 + 0.5 * 0.25]]


@both
def test_equal_levels_take_one_access_and_clip_both_signs_together(multiply):
    x = np.array([[1, 1, -1, -1]])
    w = np.array([[1], [1], [-1], [-1]])  # n = 4
    assert multiply(x, w, x_levels=(-0.5, 0.5), w_levels=(-2.0, 2.0), count_max=3).tolist() == [[0.5 * 2.0 * 3]]


@both
def test_one_negative_input_anywhere_makes_every_vector_take_two_accesses(multiply):
    x = np.array([[1, 1, 0], [0, 0, -1]])
    w = np.array([[1], [1], [1]])
    assert multiply(x, w, x_levels=(-0.5, 1.0), count_max=1).tolist() == [[1.0], [-0.5]]


@both
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (0, 0, 0)])
def test_empty_operands_give_zeros_of_the_right_shape(multiply, shape):
    b, r, c = shape
    result = multiply(np.zeros((b, r)), np.zeros((r, c)))
    assert (result.shape, result.dtype, result.any()) == ((b, c), np.int32, False)
    assert multiply(np.zeros((b, r)), np.zeros((r, c)), x_levels=(-1, 2)).dtype == np.float64


@both
@pytest.mark.parametrize("convert", [np.int64, np.float32, torch.tensor, lambda v: v.tolist(), np.asfortranarray])
def test_operands_of_any_kind_of_number_will_do(multiply, convert):
    assert multiply(convert(X), convert(W)).tolist() == [[3, -1]]


@both
def test_booleans_and_trained_tensors_will_do(multiply):
    weights = torch.tensor(W, dtype=torch.float32, requires_grad=True)
    assert multiply(X > 0, weights).tolist() == [[2, 0]]


@both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X * 2}, r"^tile_matmul: x must hold -1, 0 and \+1 only, got 2; give scales as x_levels$"),
        ({"w": W * 0.5}, r"^tile_matmul: w must hold -1, 0 and \+1 only, got 0\.5; give scales as w_levels$"),
        ({"x": X * np.nan}, "x must hold -1, 0 and .1 only, got nan"),
        ({"x": X * 256}, "x must hold -1, 0 and .1 only, got 256"),
        ({"x": np.array([["1"]])}, "x must hold numbers, got <U1"),
        ({"x": [[1, 0], [1]]}, "x must be a matrix of numbers, got list; "),
        ({"w": torch.ones(4, 2, dtype=torch.bfloat16)}, "w must be a matrix of numbers, got Tensor; "),
        ({"x": X[0]}, r"x must have two axes \(b r\), got shape \(4,\)"),
        ({"w": W[None]}, r"w must have two axes \(r c\), got shape \(1, 4, 2\)"),
        ({"w": W[1:]}, r"w must have as many rows as x has columns \(4\), got 3; x is \(1, 4\) and w is \(3, 2\)"),
        ({"rows_per_access": 0}, "rows_per_access must be a whole number of at least 1, got 0"),
        ({"rows_per_access": 1.5}, "rows_per_access must be a whole number of at least 1, got 1.5"),
        ({"count_max": 0}, "count_max must be a whole number of at least 1, got 0"),
        ({"count_max": 8.0}, "count_max must be a whole number of at least 1, got 8.0"),
        ({"count_max": True}, "count_max must be a whole number of at least 1, got True"),
        (
            {"x_levels": (0.0, 1.0)},
            r"x_levels must be two finite values \(low, high\) with low < 0 < high, got \(0.0, 1.0\)",
        ),
        ({"w_levels": (-1.0, np.inf)}, r"w_levels must be two finite values .* got \(-1.0, inf\)"),
        ({"w_levels": (-1.0, np.nan)}, r"w_levels must be two finite values .* got \(-1.0, nan\)"),
        ({"w_levels": 2.0}, "w_levels must be two finite values .* got 2.0"),
        ({"w_levels": (1.0, -1.0)}, "w_levels must be two finite values"),
    ],
)
def test_an_argument_that_will_not_do_is_named(multiply, arguments, message):
    with pytest.raises(ConfigError, match=message):
        multiply(**{"x": X, "w": W, **arguments})


@both
def test_levels_of_any_kind_of_number_will_do(multiply):
    expected = multiply(X, W, x_levels=(-0.5, 1.0), w_levels=(-0.25, 2.0))
    same = multiply(X, W, x_levels=np.array([-0.5, 1.0], dtype=np.float32), w_levels=[-0.25, 2])
    assert (same.dtype, same.tolist()) == (np.float64, expected.tolist())
