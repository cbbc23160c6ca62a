"""Codecs: whole-number codes as planes in {-1, 0, +1}, and back.

A codec is a value with a name, the factors of its planes and a function from codes to planes; it promises that
``sum_p factors[p] * planes[p] + offset == codes`` for every code from `low` to `high`. Codecs that follow
(thermometer, multi-base) are further functions that return a `Codec`, entered in `CODECS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from imcsim.errors import ConfigError
from imcsim.ternary.planes import Array, PlaneSum, whole_factors


@dataclass(frozen=True)
class Codec:
    """How whole-number codes are written as planes."""

    name: str

    factors: tuple[int, ...]
    """What each plane counts for."""

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
            planes=self.encode(codes), factors=whole_factors(self.factors), scale=scale, offset=scale * self.offset
        )

    def decode(self, planes: Array) -> Array:
        """Return the codes (...) that *planes* (p ...) stand for, int64."""
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


def _require_bits(bits: int, name: str, *, least: int) -> None:
    if not isinstance(bits, int) or not least <= bits <= 32:
        raise ConfigError(f"{name}: bits must be a whole number from {least} to 32, got {bits!r}")


CODECS: dict[str, Callable[..., Codec]] = {
    "binary": binary,
    "ternary": ternary,
    "bit-serial": bit_serial,
    "sign-magnitude": sign_magnitude,
    "signed-trits": signed_trits,
    "trit-serial": trit_serial,
    "twos-complement": twos_complement,
    "twos-complement-trits": twos_complement_trits,
}
"""Codecs by name; those that need a number of bits take it as their argument."""
