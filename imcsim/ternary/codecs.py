"""Codecs: whole-number codes as planes in {-1, 0, +1}, and back.

A codec is a value with a name, the factors of its planes and a function from codes to planes; it promises that
``sum_p factors[p] * planes[p] + offset == codes`` for every code from `low` to `high`. Codecs are
functions that return a `Codec`, entered in `CODECS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from imcsim.errors import ConfigError
from imcsim.ternary.planes import Array, PlaneSum


@dataclass(frozen=True)
class Codec:
    """How whole-number codes are written as planes."""

    name: str

    factors: tuple[float, ...]
    """What each plane counts for: whole numbers, but for `multi_base`."""

    low: int
    high: int
    """Least and greatest code that the planes can carry."""

    split: Callable[[Array], Array] = field(repr=False)
    """Codes (...) to planes (p ...), int8; for codes that have been checked."""

    offset: int = 0
    """Added to the sum of the planes; a static correction of the layer that reads them."""

    is_signed: bool = False
    """Whether a plane can hold -1, so that a row line needs both of its polarities."""

    @property
    def n_planes(self) -> int:
        """How many planes, and so how many passes of an activation."""
        return len(self.factors)

    def encode(self, codes: Array) -> Array:
        """Return the planes (p ...) of whole-number *codes* (...), int8.

        Raises ConfigError for a code that the planes cannot carry.

        >>> bit_serial(2).encode(np.array([0, 1, 2, 3])).tolist()
        [[0, 1, 0, 1], [0, 0, 1, 1]]
        """
        codes = np.asarray(codes)
        if codes.size and (codes.min() < self.low or codes.max() > self.high):
            worst = codes.min() if codes.min() < self.low else codes.max()
            raise ConfigError(f"{self.name}: codes must be from {self.low} to {self.high}, got {worst}")
        return self.split(codes)

    def plane_sum(self, codes: Array, *, scale: Array | float = 1.0) -> PlaneSum:
        """Return ``scale * codes`` as a `PlaneSum`."""
        scale = np.asarray(scale, dtype=np.float64)
        return PlaneSum(
            planes=self.encode(codes), factors=np.array(self.factors), scale=scale, offset=scale * self.offset
        )

    @property
    def is_whole(self) -> bool:
        """Whether planes add up to whole numbers: the codes themselves, but for `multi_base`."""
        return all(isinstance(factor, int) for factor in self.factors)

    def decode(self, planes: Array) -> Array:
        """Return the codes (...) that *planes* (p ...) stand for, int64; of `multi_base` the levels, float64."""
        if not self.is_whole:
            return np.tensordot(np.array(self.factors), np.asarray(planes, dtype=np.float64), axes=1)
        factors = np.array(self.factors, dtype=np.int64)
        return np.tensordot(factors, np.asarray(planes, dtype=np.int64), axes=1) + self.offset


def binary() -> Codec:
    """Codes -1 and +1 as one plane; 0 is taken too, since padding brings it in."""
    return Codec("binary", (1,), -1, 1, lambda codes: codes[np.newaxis].astype(np.int8), is_signed=True)


def ternary() -> Codec:
    """Codes -1, 0 and +1 as one plane."""
    return Codec("ternary", (1,), -1, 1, lambda codes: codes[np.newaxis].astype(np.int8), is_signed=True)


def bit_serial(bits: int) -> Codec:
    """Unsigned codes of *bits* bits as planes {0, 1}, least bit first."""
    _require_bits(bits, "bit-serial", least=1)

    def split(codes: Array) -> Array:
        whole = codes if codes.dtype.kind in "iu" else codes.astype(np.int64)
        planes = np.empty((bits, *codes.shape), np.int8)
        for bit in range(bits):  # one plane after the other: they are many numbers
            planes[bit] = (whole >> bit) & 1
        return planes

    return Codec("bit-serial", tuple(1 << b for b in range(bits)), 0, (1 << bits) - 1, split)


def sign_magnitude(bits: int) -> Codec:
    """Symmetric codes from ``-(2^(bits-1) - 1)`` as ``bits - 1`` planes, each bit of the magnitude with the sign.

    >>> sign_magnitude(3).encode(np.array([-3, -1, 0, 2])).tolist()
    [[-1, -1, 0, 0], [-1, 0, 0, 1]]
    """
    _require_bits(bits, "sign-magnitude", least=2)
    magnitude = bit_serial(bits - 1)
    top = (1 << (bits - 1)) - 1

    def split(codes: Array) -> Array:
        return magnitude.split(np.abs(codes)) * np.sign(codes).astype(np.int8)

    return Codec("sign-magnitude", magnitude.factors, -top, top, split, is_signed=True)


def trit_serial(bits: int) -> Codec:
    """Unsigned codes of *bits* bits as balanced ternary digits of ``code - offset``, least digit first.

    As many digits as cover the codes: 6 for 8 bits, 3 for 4. The offset is as small as that allows, and is a static
    correction: offset times the sum of the weights (quantizers.md B.3).

    >>> trit_serial(4).n_planes, trit_serial(4).offset, trit_serial(8).n_planes, trit_serial(8).offset
    (3, 2, 6, 0)
    >>> trit_serial(2).encode(np.array([0, 1, 2, 3])).tolist()
    [[0, 1, -1, 0], [0, 0, 1, 1]]
    """
    _require_bits(bits, "trit-serial", least=1)
    top = (1 << bits) - 1
    n_digits = _digits_of(top + 1)
    offset = max(0, top - (3**n_digits - 1) // 2)
    factors = tuple(3**digit for digit in range(n_digits))
    return Codec("trit-serial", factors, 0, top, lambda codes: _trits(codes, n_digits, offset), offset, is_signed=True)


def signed_trits(bits: int) -> Codec:
    """Symmetric codes from ``-(2^(bits-1) - 1)`` as balanced ternary digits; no correction.

    >>> signed_trits(8).n_planes, signed_trits(2).n_planes
    (6, 1)
    """
    _require_bits(bits, "signed-trits", least=2)
    top = (1 << (bits - 1)) - 1
    n_digits = _digits_of(2 * top + 1)
    factors = tuple(3**digit for digit in range(n_digits))
    return Codec("signed-trits", factors, -top, top, lambda codes: _trits(codes, n_digits, 0), is_signed=True)


def twos_complement(bits: int) -> Codec:
    """Codes from ``-2^(bits-1)`` to ``2^(bits-1) - 1``: sign-magnitude planes, and one more for the least code alone.

    >>> twos_complement(3).encode(np.array([-4, -3, 3])).tolist()
    [[0, -1, 1], [0, -1, 1], [-1, 0, 0]]
    """
    _require_bits(bits, "twos-complement", least=2)
    inner = sign_magnitude(bits)
    least = -(1 << (bits - 1))

    def split(codes: Array) -> Array:
        is_least = codes == least
        return np.concatenate([inner.split(np.where(is_least, 0, codes)), -is_least[np.newaxis].astype(np.int8)])

    return Codec("twos-complement", (*inner.factors, -least), least, -least - 1, split, is_signed=True)


def twos_complement_trits(bits: int) -> Codec:
    """Codes from ``-2^(bits-1)`` to ``2^(bits-1) - 1`` as balanced ternary digits; no correction."""
    _require_bits(bits, "twos-complement-trits", least=2)
    n_digits = _digits_of(1 << bits)
    least = -(1 << (bits - 1))
    factors = tuple(3**digit for digit in range(n_digits))
    return Codec(
        "twos-complement-trits", factors, least, -least - 1, lambda codes: _trits(codes, n_digits, 0), is_signed=True
    )


def odd_binary(bits: int) -> Codec:
    """Odd codes from ``-(2^bits - 1)`` as planes of -1 and +1, least bit first: DoReFa's and AQD's weights.

    Code 0 is taken too, as planes of 0, since padding brings it in; other even codes are not.

    >>> odd_binary(2).encode(np.array([-3, -1, 1, 3])).tolist()
    [[-1, 1, -1, 1], [-1, -1, 1, 1]]
    """
    _require_bits(bits, "odd-binary", least=1)
    top = (1 << bits) - 1

    def split(codes: Array) -> Array:
        _require_odd(codes, "odd-binary")
        unsigned = (np.asarray(codes, dtype=np.int64) + top) >> 1
        planes = np.stack([2 * ((unsigned >> bit) & 1) - 1 for bit in range(bits)]).astype(np.int8)
        return planes * (np.asarray(codes) != 0)

    return Codec("odd-binary", tuple(1 << b for b in range(bits)), -top, top, split, is_signed=True)


def odd_trits(bits: int) -> Codec:
    """Odd codes from ``-(2^bits - 1)`` as balanced ternary digits: 6 planes for 7 and for 8 bits.

    >>> [odd_trits(bits).n_planes for bits in range(2, 9)]
    [2, 3, 4, 4, 5, 6, 6]
    """
    _require_bits(bits, "odd-trits", least=1)
    top = (1 << bits) - 1
    n_digits = _digits_of(2 * top + 1)
    factors = tuple(3**digit for digit in range(n_digits))
    return Codec("odd-trits", factors, -top, top, lambda codes: _trits(codes, n_digits, 0), is_signed=True)


def multi_base(factors: Sequence[float], digits: Sequence[Sequence[int]]) -> Codec:
    """Levels ``sum_p factors[p] * digits[level][p]`` with real factors: code 0 is the first level, and so on.

    One code more than there are levels, the last, has digits of 0 throughout: padding by the number 0 brings it in.

    Args:
        factors: What each plane counts for: the bases of ABC-Net, LQ-Nets, ReBNet and LS-BQNN, the steps of a
            thermometer.
        digits: For each level, from the least, a digit in {-1, 0, +1} for each plane.

    Raises ConfigError for other digits, another number of them, and factors that are not finite.

    >>> codec = multi_base((0.5, 0.25), [(-1, -1), (-1, 1), (1, -1), (1, 1)])
    >>> codec.decode(codec.encode(np.array([0, 2, 3, 4]))).tolist()
    [-0.75, 0.25, 0.75, 0.0]
    """
    table = np.array(digits)
    if table.ndim != 2 or table.shape[1] != len(factors) or not np.all(np.abs(table) <= 1):
        raise ConfigError(
            f"multi-base: digits must be -1, 0 or 1 for each level and each of the {len(factors)} factors, got "
            f"{list(digits)}"
        )
    if not np.all(np.isfinite(factors)):
        raise ConfigError(f"multi-base: factors must be finite, got {list(factors)}")
    table = np.concatenate([table, np.zeros((1, len(factors)))]).astype(np.int8)
    return Codec(
        "multi-base",
        tuple(float(factor) for factor in factors),
        0,
        len(table) - 1,
        lambda codes: np.ascontiguousarray(np.moveaxis(table[codes.astype(np.int64)], -1, 0)),
        is_signed=bool(np.any(table < 0)),
    )


def thermometer(levels: Sequence[float]) -> Codec:
    """Ascending *levels*, the least of them 0, as one plane {0, 1} for each step from a level to the next.

    Code k is level k. HWGQ's levels without an even grid are 0, 0.453 and 1.51 (quantizers.md B.3). Raises ConfigError
    for levels that do not ascend from 0.

    >>> thermometer((0, 0.5, 1.75)).factors
    (0.5, 1.25)
    >>> thermometer((0, 0.5, 1.75)).encode(np.array([0, 1, 2])).tolist()
    [[0, 1, 1], [0, 0, 1]]
    """
    if len(levels) < 2 or levels[0] != 0 or not all(a < b for a, b in pairwise(levels)):
        raise ConfigError(f"thermometer: levels must be 0 and others that ascend from it, got {list(levels)}")
    steps = [above - below for below, above in pairwise(levels)]
    digits = np.tri(len(levels), len(steps), -1, dtype=np.int8)
    return replace(multi_base(steps, digits.tolist()), name="thermometer")


def residual_levels(
    factors: Sequence[float], *, sign_zero: int = 1
) -> tuple[tuple[float, ...], tuple[tuple[int, ...], ...]]:
    """Return the thresholds and, from the least level, the digits of a residual encoder.

    The encoder takes the sign of a number, takes ``factors[0]`` times it away, takes the sign of what is left, and so
    on: ``e_l = sgn(r_l)``, ``r_(l+1) = r_l - factors[l] e_l`` (ReBNet; the greedy foldable quantizers of LS-BQNN). A
    number reaches level i where it is at least ``thresholds[i - 1]``. Signs that no number can have together, as of
    factors that rise, are not among the levels; nor do the levels ascend then.

    Args:
        factors: At least 0; what each sign counts for.
        sign_zero: The sign of a rest of exactly 0: -1, 0 or +1; behind a sign of 0 the others are 0, too.

    Raises ConfigError for other factors or another sign.

    >>> residual_levels((0.5, 0.25))
    ((-0.5, 0.0, 0.5), ((-1, -1), (-1, 1), (1, -1), (1, 1)))
    """
    if not factors or not all(0 <= factor < np.inf for factor in factors):
        raise ConfigError(f"residual: factors must be finite numbers from 0 up, got {list(factors)}")
    if sign_zero not in (-1, 0, 1):
        raise ConfigError(f"residual: sign_zero must be -1, 0 or 1, got {sign_zero!r}")
    thresholds: list[float] = []
    digits: list[tuple[int, ...]] = []

    def split(low: float, high: float, signs: tuple[int, ...], taken: float) -> None:
        """Enter the levels of the numbers from *low* to below *high*, whose first signs are known."""
        if low >= high:
            return
        if len(signs) == len(factors):
            if digits:
                thresholds.append(low)
            digits.append(signs)
            return
        factor, above = factors[len(signs)], float(np.nextafter(taken, np.inf))
        first_minus = above if sign_zero == -1 else taken
        first_plus = taken if sign_zero == 1 else above
        split(low, min(high, first_minus), (*signs, -1), taken - factor)
        if sign_zero == 0 and low <= taken < high:
            if digits:
                thresholds.append(taken)
            digits.append((*signs, *(0,) * (len(factors) - len(signs))))
        split(max(low, first_plus), high, (*signs, 1), taken + factor)

    split(-np.inf, np.inf, (), 0.0)
    return tuple(thresholds), tuple(digits)


def unequal(minus: float, plus: float) -> Codec:
    """Codes -1, 0 and +1 that count for ``-minus``, 0 and ``plus``, as two planes: the codes, and their magnitudes.

    ``(minus + plus) / 2 T + (plus - minus) / 2 |T|`` (quantizers.md B.3). Tiles that scale their two counts apart need
    one plane alone (`PlaneSum.minus`). Raises ConfigError unless both are finite and above 0.

    >>> unequal(0.5, 1.5).decode(unequal(0.5, 1.5).encode(np.array([-1, 0, 1]))).tolist()
    [-0.5, 0.0, 1.5]
    """
    if not 0 < minus < np.inf or not 0 < plus < np.inf:
        raise ConfigError(f"unequal: minus and plus must be finite and above 0, got {minus} and {plus}")
    factors = (float(minus + plus) / 2, float(plus - minus) / 2)
    return Codec(
        "unequal", factors, -1, 1, lambda codes: np.stack([codes, np.abs(codes)]).astype(np.int8), is_signed=True
    )


def powers_of_two(exponents: Sequence[int]) -> Codec:
    """Codes 0 and ``+-2^p`` with p of *exponents*, whole numbers from 0 up: one plane for each exponent (INQ).

    No two planes of a code are both other than 0. Raises ConfigError for exponents that repeat or are above 30, and
    in `encode` for other codes.

    >>> powers_of_two((0, 2)).encode(np.array([-4, 0, 1])).tolist()
    [[0, 0, 1], [-1, 0, 0]]
    """
    exponents = tuple(sorted(exponents))
    if not exponents or len(set(exponents)) < len(exponents) or not 0 <= exponents[0] <= exponents[-1] <= 30:
        raise ConfigError(f"power-of-two: exponents must be different numbers from 0 to 30, got {list(exponents)}")
    factors = tuple(1 << exponent for exponent in exponents)

    def split(codes: Array) -> Array:
        codes = np.asarray(codes, dtype=np.int64)
        wrong = ~np.isin(np.abs(codes), (0, *factors))
        if np.any(wrong):
            raise ConfigError(f"power-of-two: codes must be 0 or +-{list(factors)}, got {codes[wrong].flat[0]}")
        return np.stack([np.sign(codes) * (np.abs(codes) == factor) for factor in factors]).astype(np.int8)

    return Codec("power-of-two", factors, -factors[-1], factors[-1], split, is_signed=True)


def half_range() -> Codec:
    """Codes 0, 1 and 2 as one ternary digit of ``code - 1``; the 1 is a static correction (FATNN behind a ReLU).

    >>> half_range().encode(np.array([0, 1, 2])).tolist(), half_range().offset
    ([[-1, 0, 1]], 1)
    """
    return Codec("half-range", (1,), 0, 2, lambda codes: (codes[np.newaxis] - 1).astype(np.int8), 1, is_signed=True)


def _digits_of(n_codes: int) -> int:
    """Least number of ternary digits that tell *n_codes* codes apart."""
    n_digits = 1
    while 3**n_digits < n_codes:
        n_digits += 1
    return n_digits


def _trits(codes: Array, n_digits: int, offset: int) -> Array:
    rest = np.asarray(codes, dtype=np.int64) - offset
    digits = np.empty((n_digits, *rest.shape), np.int8)
    for digit in range(n_digits):
        digits[digit] = (rest + 1) % 3 - 1
        rest = (rest - digits[digit]) // 3
    return digits


def _require_odd(codes: Array, name: str) -> None:
    codes = np.asarray(codes)
    wrong = (codes % 2 == 0) & (codes != 0)
    if np.any(wrong):
        raise ConfigError(f"{name}: codes must be odd, got {codes[wrong].flat[0]}")


def _require_bits(bits: int, name: str, *, least: int) -> None:
    if not isinstance(bits, int) or not least <= bits <= 32:
        raise ConfigError(f"{name}: bits must be a whole number from {least} to 32, got {bits!r}")


CODECS: dict[str, Callable[..., Codec]] = {
    "binary": binary,
    "ternary": ternary,
    "half-range": half_range,
    "multi-base": multi_base,
    "odd-binary": odd_binary,
    "odd-trits": odd_trits,
    "power-of-two": powers_of_two,
    "thermometer": thermometer,
    "unequal": unequal,
    "bit-serial": bit_serial,
    "sign-magnitude": sign_magnitude,
    "signed-trits": signed_trits,
    "trit-serial": trit_serial,
    "twos-complement": twos_complement,
    "twos-complement-trits": twos_complement_trits,
}
"""Codecs by name; those that need a number of bits, or levels, take them as their arguments."""
