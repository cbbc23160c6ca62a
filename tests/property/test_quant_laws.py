"""Laws of the quantizers, for all weights and all float32 numbers."""

import numpy as np
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imcsim.graph import Quantize
from imcsim.quant import (
    SignActivation,
    SignedActivation,
    TernaryActivation,
    TernaryConv2d,
    UnsignedActivation,
    ternarize,
)
from imcsim.quant.integer import to_integers
from imcsim.quant.ternary import DELTA_FACTOR

SIZES = st.floats(2**-60, 2**60, width=32)
WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
    elements=st.one_of(st.just(0.0), SIZES, SIZES.map(lambda w: -w), st.sampled_from([-2.0, -1.0, 0.5, 1.0])),
).map(torch.from_numpy)
EVERY_NUMBER = st.floats(width=32, allow_nan=False)


@given(WEIGHTS, st.booleans())
def test_ternary_weights_made_ternary_again_are_the_same_bit_for_bit(weights, per_channel):
    codes, scale = ternarize(weights, per_channel=per_channel)
    again = ternarize(scale * codes, per_channel=per_channel)
    assert torch.equal(again[0], codes)
    assert torch.equal(again[1], scale)


@given(WEIGHTS, st.booleans(), st.integers(2, 12))
def test_whole_number_weights_made_whole_again_are_the_same_bit_for_bit(weights, per_channel, bits):
    codes, scale = to_integers(weights, bits, per_channel=per_channel)
    again = to_integers(scale * codes, bits, per_channel=per_channel)
    assert torch.equal(again[0], codes)
    assert torch.equal(again[1], scale)


@given(WEIGHTS, st.integers(2, 12))
def test_whole_number_weights_are_off_by_at_most_half_a_step(weights, bits):
    codes, scale = to_integers(weights, bits)
    top = (1 << (bits - 1)) - 1
    assert codes.abs().max() <= top
    assert bool(((scale.double() * codes - weights.double()).abs() <= scale.double() / 2).all())


@given(WEIGHTS, st.integers(-20, 20), st.booleans())
def test_weights_twice_as_large_have_the_same_codes_and_twice_the_scale(weights, exponent, per_channel):
    factor = 2.0**exponent
    codes, scale = ternarize(weights, per_channel=per_channel)
    scaled = ternarize(weights * factor, per_channel=per_channel)
    assert torch.equal(scaled[0], codes)
    assert torch.equal(scaled[1], scale * factor)


@given(WEIGHTS)
def test_turning_the_sign_of_the_weights_turns_the_codes(weights):
    codes, scale = ternarize(weights)
    turned = ternarize(-weights)
    assert torch.equal(turned[0], -codes)
    assert torch.equal(turned[1], scale)


@given(WEIGHTS)
def test_the_scale_is_the_best_one_for_the_codes(weights):
    codes, scale = ternarize(weights)
    wide = weights.double()
    kept = int((codes != 0).sum())
    assume(kept)
    best = float((wide * codes).sum()) / kept  # least squares: <w, t> / <t, t>
    assert np.isclose(float(scale), best, rtol=1e-6)
    delta = DELTA_FACTOR * float(wide.abs().mean())
    assert bool((codes == torch.sign(wide) * (wide.abs() > delta)).all())


@given(
    st.sampled_from(
        [SignActivation(1), SignActivation(0), SignActivation(-1), UnsignedActivation(4), SignedActivation(6, top=1.0)]
    ),
    st.lists(EVERY_NUMBER, min_size=1, max_size=8),
)
def test_codes_rise_with_the_number(module, numbers):
    codes = module(torch.tensor(sorted(numbers), dtype=torch.float32))
    assert bool((codes.diff() >= 0).all())


@given(st.integers(1, 6), st.floats(2**-20, 2**20, width=32), st.data())
def test_thresholds_and_rounding_agree_for_every_number_and_every_scale(bits, scale, data):
    module = UnsignedActivation(bits, scale=scale)
    near = st.integers(0, 2 * module.format.high + 2).map(lambda k: np.float32(k * module.format.scale / 2))
    nudged = st.tuples(near, st.integers(-3, 3)).map(lambda pair: nudge(*pair))
    x = data.draw(st.one_of(EVERY_NUMBER, nudged))
    assert_step_agrees(module, x)


@given(st.floats(0, 4, width=32), st.sampled_from([-1, 1]), st.integers(-3, 3))
def test_ternary_thresholds_agree_next_to_delta(delta, sign, n):
    assert_step_agrees(TernaryActivation(delta), nudge(np.float32(sign * delta), n))


@given(
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 2**16),
)
def test_a_convolution_with_any_geometry_has_the_shape_and_sums_of_its_record(
    groups, kernel, stride, padding, dilation, seed
):
    torch.manual_seed(seed)
    layer = TernaryConv2d(
        2 * groups, 3 * groups, kernel, stride, padding, dilation, groups, bias=False, per_channel=True
    )
    product = layer.imc_product()
    x = torch.randint(-1, 2, (2, 2 * groups, 7, 6)).float()
    with torch.no_grad():
        y = layer(x)
    assert product.shape((2 * groups, 7, 6)) == tuple(y.shape[1:])
    corner = window_sum(product, x.numpy().astype(np.int64))
    scale = product.weights.scale.reshape(-1, 1, 1).astype(np.float32)
    np.testing.assert_array_equal(y.numpy(), corner.astype(np.float32) * scale)


def window_sum(product, x):
    """The convolution by its definition, in whole numbers: loops over outputs and kernel positions."""
    weights = product.weights.to_codes()
    (down, right), (sy, sx), (dy, dx) = product.padding, product.stride, product.dilation
    x = np.pad(x, ((0, 0), (0, 0), (down, down), (right, right)))
    c_out, height, width = product.shape((x.shape[1], x.shape[2] - 2 * down, x.shape[3] - 2 * right))
    y = np.zeros((len(x), c_out, height, width), dtype=np.int64)
    for c, i, j in np.ndindex(c_out, height, width):
        first = c // product.n_columns * weights.shape[1]
        for r, u, v in np.ndindex(weights.shape[1:]):
            y[:, c, i, j] += weights[c, r, u, v] * x[:, first + r, i * sy + u * dy, j * sx + v * dx]
    return y


def nudge(x, n):
    for _ in range(abs(n)):
        x = np.nextafter(np.float32(x), np.float32(np.inf if n > 0 else -np.inf))
    return float(x)


def assert_step_agrees(module, x):
    step = module.imc_quantizer()
    scale = step.format.scale
    if isinstance(step, Quantize):
        code = np.clip(np.round(np.float64(x) / scale), step.format.low, step.format.high)
    else:
        code = step.codes[(x >= step.thresholds[0]).sum()]
    assert module(torch.tensor(x, dtype=torch.float32)).item() == np.float32(code * scale)
