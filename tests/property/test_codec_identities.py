"""Identities between the levels of published quantizers and planes in {-1, 0, +1}, each for all numbers.

They are those of the project's list (quantizers.md, section F, "checked numerically"). Where an identity is one of
ours, the code of the package stands on one side and the formula, written out here, on the other.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imcsim.errors import ConfigError
from imcsim.functional.reference import reference
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Affine,
    Format,
    LayerAttrs,
    Op,
    Product,
    Tensor,
    Threshold,
    signed,
    unsigned,
)
from imcsim.graph.ir import Graph
from imcsim.graph.offsets import take_apart
from imcsim.graph.passes import fold_into_thresholds
from imcsim.quant.activation import above, threshold_step
from imcsim.quant.methods.multi_base import UNIFORM_STEP, FoldableWeights, HalfWaveActivation
from imcsim.ternary import (
    Codec,
    PlaneSum,
    bit_serial,
    half_range,
    odd_binary,
    odd_trits,
    powers_of_two,
    residual_levels,
    sign_magnitude,
    signed_trits,
    thermometer,
    trit_serial,
    twos_complement,
    twos_complement_trits,
    unequal,
)

SIXTEENTHS = st.integers(-160, 160).map(lambda n: n / 16)
POSITIVE = st.integers(1, 64).map(lambda n: n / 16)


def codes_of(codec: Codec):
    """Every code of *codec*; those of odd codecs alone are odd."""
    every = np.arange(codec.low, codec.high + 1)
    return every[every % 2 != 0] if codec.name.startswith("odd") else every


def written_out(codec: Codec, codes):
    """Sum of the planes, added up here: factor times plane, and the offset."""
    planes = codec.encode(codes)
    assert np.all(np.abs(planes) <= 1)
    return (
        sum(factor * plane.astype(object) for factor, plane in zip(codec.factors, planes, strict=True)) + codec.offset
    )


# --- whole numbers as planes


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_k_bit_levels_of_dorefa_are_k_planes_of_signs_and_no_offset(bits):
    top = 2**bits - 1
    levels = [2 * Fraction(q, top) - 1 for q in range(top + 1)]
    codec = odd_binary(bits)
    planes = codec.encode(np.array([int(level * top) for level in levels]))
    assert (codec.n_planes, codec.offset, codec.factors) == (bits, 0, tuple(2**b for b in range(bits)))
    assert np.all(np.abs(planes) == 1)
    assert [Fraction(int(code), top) for code in np.array(codec.factors) @ planes] == levels


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_symmetric_whole_numbers_are_planes_of_the_magnitude_with_the_sign(bits):
    codec = sign_magnitude(bits)
    codes = codes_of(codec)
    planes = codec.encode(codes)
    assert codec.n_planes == bits - 1
    assert codes.tolist() == list(range(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1)))
    assert np.all((planes == 0) | (np.sign(planes) == np.sign(codes)))
    assert written_out(codec, codes).tolist() == codes.tolist()


@pytest.mark.parametrize(
    ("family", "digits"),
    [
        (trit_serial, {2: 2, 3: 2, 4: 3, 5: 4, 6: 4, 7: 5, 8: 6}),
        (odd_trits, {2: 2, 3: 3, 4: 4, 5: 4, 6: 5, 7: 6, 8: 6}),
        (signed_trits, {2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 5, 8: 6}),
        (twos_complement_trits, {2: 2, 8: 6}),
    ],
)
def test_balanced_ternary_takes_the_digits_that_are_listed_and_no_more(family, digits):
    for bits, n in digits.items():
        codec = family(bits)
        codes = codes_of(codec)
        assert codec.n_planes == n
        assert written_out(codec, codes).tolist() == codes.tolist()
        n_numbers = codes.max() - codes.min() + 1  # of which n - 1 digits tell 3^(n - 1) apart
        assert 3 ** (n - 1) < n_numbers <= 3**n


@pytest.mark.parametrize(("bits", "offset"), [(1, 0), (2, 0), (3, 3), (4, 2), (5, 0), (6, 23), (7, 6), (8, 0)])
def test_unsigned_trits_are_exact_for_every_value_with_the_offset_that_is_listed(bits, offset):
    codec = trit_serial(bits)
    codes = np.arange(2**bits)
    assert codec.offset == offset == max(0, 2**bits - 1 - (3**codec.n_planes - 1) // 2)
    assert written_out(codec, codes).tolist() == codes.tolist()


@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_the_offset_of_trits_is_that_many_sums_of_the_weights(bits, seed):
    rng = np.random.default_rng(seed)
    weights, codes = rng.integers(-1, 2, (5, 7)), rng.integers(0, 2**bits, 7)
    codec = trit_serial(bits)
    passes = sum(f * (weights @ plane) for f, plane in zip(codec.factors, codec.encode(codes), strict=True))
    assert (passes + codec.offset * weights.sum(axis=1)).tolist() == (weights @ codes).tolist()


def test_two_bit_weights_of_lsq_are_two_trits_or_two_planes():
    for codec in (twos_complement_trits(2), twos_complement(2)):
        assert (codec.n_planes, codec.low, codec.high, codec.offset) == (2, -2, 1, 0)
        assert written_out(codec, np.arange(-2, 2)).tolist() == [-2, -1, 0, 1]
    assert twos_complement_trits(2).encode(np.arange(-2, 2)).tolist() == [[1, -1, 0, 1], [-1, 0, 0, 0]]


@given(st.sets(st.integers(0, 12), min_size=1, max_size=6), st.data())
def test_powers_of_two_are_one_plane_an_exponent_and_one_digit_a_number(exponents, data):
    codec = powers_of_two(tuple(exponents))
    each = [0, *(sign * 2**p for p in exponents for sign in (-1, 1))]
    codes = np.array(data.draw(st.lists(st.sampled_from(each), min_size=1)))
    planes = codec.encode(codes)
    assert codec.n_planes == len(exponents)
    assert np.all(np.abs(planes).sum(axis=0) == (codes != 0))
    assert codec.decode(planes).tolist() == codes.tolist()


# --- levels that are no even grid


@given(POSITIVE, POSITIVE, st.lists(st.integers(-1, 1), min_size=1))
def test_unequal_levels_are_the_signs_and_their_magnitudes(minus, plus, codes):
    codec = unequal(minus, plus)
    numbers = [{-1: -minus, 0: 0.0, 1: plus}[code] for code in codes]
    planes = codec.encode(np.array(codes))
    assert planes.tolist() == [codes, np.abs(codes).tolist()]
    assert codec.decode(planes).tolist() == numbers
    alone = PlaneSum(planes=[codes], factors=[1], scale=plus, minus=minus / plus)
    np.testing.assert_allclose(alone.to_numbers(), numbers, rtol=1e-12)


@given(st.lists(POSITIVE, min_size=1, max_size=6), st.data())
def test_a_thermometer_reads_as_many_steps_as_its_code(steps, data):
    levels = [0.0, *np.cumsum(steps)]
    codec = thermometer(levels)
    codes = np.array(data.draw(st.lists(st.integers(0, len(steps)), min_size=1)))
    planes = codec.encode(codes)
    assert set(planes.ravel().tolist()) <= {0, 1}
    assert planes.sum(axis=0).tolist() == codes.tolist()
    assert codec.decode(planes).tolist() == [levels[code] for code in codes]


def test_the_centres_of_hwgq_without_an_even_grid_are_two_steps():
    codec = thermometer((0.0, 0.453, 1.51))
    np.testing.assert_allclose(codec.factors, (0.453, 1.057), rtol=1e-12)


@given(st.lists(st.floats(-4, 4), min_size=1))
def test_the_uniform_levels_of_hwgq_are_a_2_bit_code_times_0_538(numbers):
    x = torch.tensor(numbers, dtype=torch.float64)
    step = HalfWaveActivation().imc_quantizer()
    q = (x[:, None].numpy() >= step.thresholds[0]).sum(axis=1)
    assert step.format == unsigned(2, UNIFORM_STEP)
    planes = bit_serial(2).encode(q)
    np.testing.assert_allclose(0.538 * (planes[0] + 2 * planes[1]), HalfWaveActivation()(x), rtol=1e-12)
    # 0 up to 0, else the nearest of the centres
    centres = np.array([0.538, 1.076, 1.614])
    for number, code in zip(numbers, q, strict=True):
        distance = np.abs(centres - number)
        assume(np.ptp(np.sort(distance)[:2]) > 1e-9)
        assert code == (0 if number <= 0 else 1 + distance.argmin())


@given(st.lists(st.integers(1, 64).map(lambda n: n / 16), min_size=1, max_size=5), st.lists(SIXTEENTHS, min_size=1))
@example([0.5, 0.25], [0.0, 0.5, -0.5])
def test_residual_signs_are_planes_that_add_up_to_what_the_encoder_gives(gamma, numbers):
    thresholds, digits = residual_levels(gamma)
    for number in numbers:
        rest, found = number, []
        for g in gamma:
            found.append(1 if rest >= 0 else -1)
            rest -= g * found[-1]
        level = sum(number >= t for t in thresholds)
        assert digits[level] == tuple(found)
        assert np.dot(gamma, digits[level]) == number - rest


@given(st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=2, max_size=12))
def test_two_equal_residual_signs_are_ternary_levels_of_twice_the_threshold(row):
    weight = torch.tensor(row, dtype=torch.float64)[None]
    coded = FoldableWeights("lst")(weight)
    v = float(coded.scales[0]) / 2
    stem = v * np.where(np.array(row) >= 0, 1, -1)
    residual = v * np.where(np.array(row) - stem >= 0, 1, -1)
    assert coded.numbers()[0].tolist() == (stem + residual).tolist()
    ternary = np.where(np.array(row) >= v, 1, 0) - np.where(np.array(row) < -v, 1, 0)
    assert coded.codes[0][0].tolist() == ternary.tolist()
    assert set(coded.numbers()[0].tolist()) <= {-2 * v, 0.0, 2 * v}


def test_the_half_range_of_fatnn_is_one_trit_and_one_sum_of_weights():
    codec = half_range()
    assert (codec.n_planes, codec.offset) == (1, 1)
    assert written_out(codec, np.arange(3)).tolist() == [0, 1, 2]


@given(POSITIVE, POSITIVE, SIXTEENTHS)
def test_fatnn_has_thresholds_of_half_a_slope(alpha_0, alpha_1, x):
    def rounded_half_up_in_size(value):  # 1/2 itself is left out below
        return float(np.rint(value))

    assume(abs(alpha_0 * x) != 0.5)
    assume(abs(alpha_1 * x) != 0.5)
    formula = rounded_half_up_in_size(min(max(alpha_0 * x, -1), 0)) + rounded_half_up_in_size(
        min(max(alpha_1 * x, 0), 1)
    )
    step = threshold_step([-0.5 / alpha_0, 0.5 / alpha_1], [-1, 0, 1], TERNARY)
    assert step.codes[(x >= step.thresholds[0]).sum()] == formula


@given(st.floats(-4, 4))
@example(1.0)
@example(-1.0)
@example(float(np.nextafter(1, 0)))
def test_gxnor_fires_at_1(x):
    def hard(value):
        return min(max((value + 1) / 2, 0), 1)

    exact = Fraction(x)
    fires = (exact >= 1) - (exact <= -1)
    total = Fraction(hard(2 * (exact - 1))) + Fraction(hard(2 * (exact + 1))) - 1
    half_away = int(np.sign(total)) * int(abs(total) + Fraction(1, 2))  # as Theano rounds
    assert half_away == fires
    step = threshold_step([above(-1.0), 1.0], [-1, 0, 1], TERNARY)
    assert step.codes[(x >= step.thresholds[0]).sum()] == fires


# --- products


def trits(rng, *shape):
    return rng.integers(-1, 2, shape)


@given(st.integers(0, 2**32 - 1), *[SIXTEENTHS] * 4)
def test_two_affine_ternary_operands_have_four_terms(seed, gamma_w, beta_w, gamma_a, beta_a):
    assume(gamma_w and gamma_a)
    rng = np.random.default_rng(seed)
    weights, codes = trits(rng, 3, 8), trits(rng, 8)
    expected = (gamma_w * weights + beta_w) @ (gamma_a * codes + beta_a)
    four = (
        gamma_w * gamma_a * (weights @ codes)
        + gamma_a * beta_w * codes.sum()
        + gamma_w * beta_a * weights.sum(axis=1)
        + 8 * beta_a * beta_w
    )
    np.testing.assert_allclose(four, expected, atol=1e-9)
    # and so does the package, with one column of ones for the second and the rest static
    operand = PlaneSum(planes=weights[np.newaxis], factors=[1], scale=gamma_w, offset=beta_w)
    form = Format("ternary", 2, gamma_a, zero=-beta_a / gamma_a)
    product, steps = take_apart(Product(kind="linear", weights=operand), Tensor("x", (8,), form))
    sums = product.weights.to_codes() @ codes
    if len(product.weights.planes[0]) == 4:  # the column of ones
        (step,) = steps
        assert sums[3] == codes.sum()
        ours = step.scale * sums[:3] + step.ones_scale * sums[3] + step.offset
    else:
        assert beta_w == 0
        ours = steps[0].scale * sums + steps[0].offset
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def popcount(bits):
    return int(np.count_nonzero(bits))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_ternary_product_is_a_popcount_of_nonzeros_less_twice_that_of_unlike_signs(seed, n):
    rng = np.random.default_rng(seed)
    a, w = trits(rng, n), trits(rng, n)
    both = (a != 0) & (w != 0)
    dot = popcount(both) - 2 * popcount(((a < 0) ^ (w < 0)) & both)
    assert dot == a @ w
    # as a tile counts: n products of +1, k of -1, n + k of them not 0
    plus, minus = popcount(a * w > 0), popcount(a * w < 0)
    assert (plus + minus, plus - minus) == (popcount(both), dot)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_a_ternary_product_in_thermometer_code_takes_two_popcounts(seed, n):
    rng = np.random.default_rng(seed)
    a, w = trits(rng, n), trits(rng, n)

    def code(values):
        """-1 is 00, 0 is 01 and 1 is 11: (high, low)."""
        return values > 0, values >= 0

    (a_high, a_low), (w_high, w_low) = code(a), code(w)
    z_high = (a_high & w_high) | (~a_low & ~w_low)  # the product is +1
    z_low = ~((a_high & ~w_low) | (~a_low & w_high))  # it is not -1
    assert popcount(z_high) + popcount(z_low) - n == a @ w


# --- steps


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 16).map(lambda n: n / 4),
    st.integers(1, 8).map(lambda n: n / 2),
    st.integers(-16, 16).map(lambda n: n / 4),
    st.integers(-16, 16).map(lambda n: n / 4),
    st.sampled_from([-1, 1]),
)
def test_a_batch_norm_before_a_sign_is_one_threshold_in_the_direction_of_gamma(seed, s, sigma, beta, mu, sign):
    gamma = 0.5 * sign
    weights = trits(np.random.default_rng(seed), 2, 9)
    x = trits(np.random.default_rng(seed + 1), 5, 9).astype(float)
    operand = PlaneSum(planes=weights[np.newaxis], factors=[1])
    norm = Affine(np.array(gamma / sigma), np.array(beta - gamma * mu / sigma))
    unfolded = Graph(
        name="net",
        inputs=(Tensor("x", (9,), REAL),),
        ops=(
            Op(
                name="codes",
                input="x",
                output=Tensor("a", (9,), TERNARY),
                steps=(Threshold(np.array([[0.0, above(0.0)]]), np.array([-1, 0, 1]), TERNARY),),
            ),
            Op(
                name="layer",
                input="a",
                output=Tensor("y", (2,), BINARY),
                product=Product(kind="linear", weights=operand, attrs=LayerAttrs()),
                steps=(
                    Affine(np.array(s), np.array(0.0)),
                    norm,
                    Threshold(np.array([[0.0]]), np.array([-1, 1]), BINARY),
                ),
            ),
        ),
        outputs=("y",),
    )
    folded = fold_into_thresholds(unfolded)
    (step,) = folded.ops[1].steps
    tau = (Fraction(mu) - Fraction(beta) * Fraction(sigma) / Fraction(gamma)) / Fraction(s)
    assert set(step.direction.tolist()) == {sign}
    sums = x.astype(int) @ weights.T
    expected = [[1 if sign * (y - tau) >= 0 else -1 for y in row] for row in sums.tolist()]
    # the quotients of the norm are exact in float64 only where sigma divides them
    assume(
        all(
            abs(y - tau) > Fraction(1, 10**6) or (y == tau and sigma in (0.5, 1, 2, 4))
            for row in sums
            for y in map(int, row)
        )
    )
    assert reference(folded, x).tolist() == expected
    assert reference(unfolded, x).tolist() == expected


# --- what the codecs refuse


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: thermometer((0.5, 1.0)),
            r"thermometer: levels must be 0 and .*, got \[0.5, 1.0\]",
        ),
        (lambda: thermometer((0.0, 1.0, 1.0)), r"thermometer: levels must be 0 and others"),
        (lambda: thermometer((0.0,)), r"thermometer: levels must be 0 and others"),
        (lambda: residual_levels(()), r"residual: factors must be finite numbers from 0 up, got \[\]"),
        (lambda: residual_levels((0.5, -0.25)), r"residual: factors must be finite numbers from 0 up"),
        (lambda: residual_levels((0.5,), sign_zero=2), r"residual: sign_zero must be -1, 0 or 1, got 2"),
        (lambda: unequal(0, 1), r"unequal: minus and plus must be finite and above 0, got 0 and 1"),
        (
            lambda: powers_of_two((1, 1)),
            r"power-of-two: exponents must be different numbers .*, got \[1, 1\]",
        ),
        (lambda: powers_of_two((-1,)), r"power-of-two: exponents must be different numbers"),
        (lambda: powers_of_two((0, 2)).encode(np.array([2])), r"power-of-two: codes must be 0 or \+-\[1, 4\], got 2"),
    ],
)
def test_what_is_no_code_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@given(st.integers(2, 8), hnp.arrays(np.int64, st.integers(1, 20), elements=st.integers(-127, 127)))
def test_formats_send_the_codes_of_their_codec(bits, codes):
    form = signed(bits)
    codes = np.clip(codes, form.low, form.high)
    assert form.codec().decode(form.codec().encode(codes)).tolist() == codes.tolist()
