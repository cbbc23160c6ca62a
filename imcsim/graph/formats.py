"""What the numbers of a tensor are between two ops: whole-number codes with a scale, or real numbers."""

from dataclasses import dataclass
from itertools import pairwise, product
from math import isfinite
from typing import Literal

from imcsim.errors import GraphError
from imcsim.ternary import (
    Codec,
    binary,
    bit_serial,
    multi_base,
    sign_magnitude,
    signed_trits,
    ternary,
    trit_serial,
    twos_complement,
    twos_complement_trits,
)

Kind = Literal["binary", "ternary", "unsigned", "signed", "integer", "bases", "real"]
"""signed: symmetric about 0; integer: two's complement, with one code more below; bases: numbered levels, as listed."""

Serial = Literal["bit", "trit"]
"""How codes of several bits are sent, pass by pass: binary digits, or fewer balanced ternary ones."""


@dataclass(frozen=True)
class Format:
    """The numbers of a tensor: ``scale * (code - zero)``, or real numbers that live on the digital side only.

    >>> Format("unsigned", 2, scale=0.5).n_passes
    2
    """

    kind: Kind

    bits: int
    """How many bits one number takes in a buffer; a ternary digit takes 2."""

    scale: float = 1.0
    """What code 1 stands for; 1 for real numbers."""

    minus: float = 1.0
    """For ternary codes: -1 stands for ``-minus * scale``; other than 1 it makes the encoding asymmetric."""

    zero: float = 0.0
    """Which code stands for 0, perhaps one between two codes: a zero point, or ``-beta / gamma`` of RTN.

    Tiles multiply codes; what the zero adds is a correction of the product (`imcsim.graph.offsets`).
    """

    factors: tuple[float, ...] = ()
    """For bases: what each plane counts for, times the scale."""

    digits: tuple[tuple[int, ...], ...] = ()
    """For bases: the digits, in {-1, 0, 1}, of each level, in the order in which numbers reach the levels."""

    def __post_init__(self) -> None:
        if (self.kind == "bases") != bool(self.factors) or (self.kind == "bases" and self.zero):
            raise GraphError(f"format: factors and digits, and a zero of 0, belong to bases, got {self.kind}")
        fixed = {"binary": 1, "ternary": 2}
        if self.kind in fixed and self.bits != fixed[self.kind]:
            raise GraphError(f"format: {self.kind} codes take {fixed[self.kind]} bits, got {self.bits}")
        if self.minus != 1 and (self.kind != "ternary" or not self.minus > 0):
            raise GraphError(f"format: minus must be 1, or above 0 for ternary codes, got {self.minus} for {self.kind}")
        if not isfinite(self.zero) or (self.zero and (self.kind == "real" or self.minus != 1)):
            raise GraphError(
                f"format: zero must be finite, and 0 for real numbers and asymmetric codes, got {self.zero} for "
                f"{self.kind}"
            )
        if not 1 <= self.bits <= 64:
            raise GraphError(f"format: bits must be from 1 to 64, got {self.bits}")

    @property
    def is_real(self) -> bool:
        """Whether the tensor holds real numbers, which no tile can take."""
        return self.kind == "real"

    @property
    def offset(self) -> float:
        """What code 0 stands for."""
        return -self.scale * self.zero if self.zero else 0.0

    @property
    def zero_code(self) -> int | None:
        """The code that stands for 0 exactly, or None where there is none."""
        if self.kind == "bases":  # its last code, which no level has, is digits of 0
            return self.high
        is_code = self.zero == round(self.zero) and self.low <= self.zero <= self.high
        return round(self.zero) if is_code else None

    @property
    def low(self) -> int:
        """Least code."""
        top = 1 << (self.bits - 1)
        return {"binary": -1, "ternary": -1, "unsigned": 0, "signed": 1 - top, "integer": -top, "bases": 0}[self.kind]

    @property
    def high(self) -> int:
        """Greatest code."""
        return {"binary": 1, "ternary": 1, "bases": len(self.digits)}.get(
            self.kind, (1 << self.bits) - 1 if self.kind == "unsigned" else (1 << (self.bits - 1)) - 1
        )

    def codec(self, serial: Serial = "bit") -> Codec:
        """Return how the codes are sent to a tile, pass by pass; *serial* says how codes of several bits are."""
        match self.kind, serial:
            case "binary", _:
                return binary()
            case "ternary", _:
                return ternary()
            case "unsigned", "bit":
                return bit_serial(self.bits)
            case "unsigned", "trit":
                return trit_serial(self.bits)
            case "signed", "bit":
                return sign_magnitude(self.bits)
            case "signed", "trit":
                return signed_trits(self.bits)
            case "integer", "bit":
                return twos_complement(self.bits)
            case "integer", "trit":
                return twos_complement_trits(self.bits)
            case "bases", _:
                return multi_base(self.factors, self.digits)
        raise GraphError("format: a tile takes codes, got real numbers; quantize the activation first (imcsim.quant)")

    @property
    def n_passes(self) -> int:
        """How many planes, and so passes through the tiles, the codes take bit-serially."""
        return self.codec().n_planes

    def bits_per_digit(self, serial: Serial = "bit") -> int:
        """Bits that one digit of one pass takes on its way to a row driver: 2 where a digit can be -1, 0 and +1."""
        if self.kind in ("binary", "bases"):
            return 1 if self.is_dense or not self.codec(serial).is_signed else 2
        return 2 if self.codec(serial).is_signed else 1

    @property
    def is_dense(self) -> bool:
        """Whether no digit of any plane is 0, so that -1 and +1 are all that a row line carries."""
        return self.kind == "binary" or (self.kind == "bases" and all(all(digits) for digits in self.digits))

    @property
    def ascends(self) -> bool:
        """Whether a greater code stands for a greater number, so that the greatest of some numbers has the greatest."""
        if self.kind != "bases":
            return self.scale >= 0
        levels = [self.scale * _level(self.factors, digits) for digits in self.digits]
        return all(below <= above for below, above in pairwise(levels))

    @property
    def is_affine(self) -> bool:
        """Whether ``scale * (code - zero)`` is what codes stand for; the levels of bases are any numbers."""
        return self.kind != "bases" and self.minus == 1

    def __str__(self) -> str:
        letter = {"unsigned": "u", "signed": "s", "integer": "i", "real": "real"}
        if self.kind == "bases":
            return f"{len(self.digits)} levels of {len(self.factors)} bases"
        return self.kind if self.kind in ("binary", "ternary") else f"{letter[self.kind]}{self.bits}"


def bases(
    factors: tuple[float, ...], digits: tuple[tuple[int, ...], ...] | None = None, *, scale: float = 1.0
) -> Format:
    """Levels ``scale * sum_p factors[p] * digit_p``, numbered as listed; each plane is a pass of the tiles.

    Args:
        factors: What each plane counts for.
        digits: Of each level, for each plane, in the order in which numbers reach the levels; by default all the sums
            of -1 and +1, in ascending order.
        scale: What the factors are times of.

    Digits that are given need not ascend as levels: a base with a negative factor makes a level lower than the one
    before it (ABC-Net's beta is free). Raises GraphError for levels by default that do not ascend.
    """
    if digits is None:
        digits = tuple(sorted(product((-1, 1), repeat=len(factors)), key=lambda d: _level(factors, d)))
        levels = [scale * _level(factors, digit) for digit in digits]
        if any(above <= below for below, above in pairwise(levels)):
            raise GraphError(f"bases: levels must ascend, got {levels}; give the digits of each level")
    n_bits = max(1, (len(digits) - 1).bit_length())
    return Format("bases", n_bits, scale, factors=tuple(map(float, factors)), digits=tuple(map(tuple, digits)))


def _level(factors: tuple[float, ...], digits: tuple[int, ...]) -> float:
    return sum(factor * digit for factor, digit in zip(factors, digits, strict=True))


BINARY = Format("binary", 1)
TERNARY = Format("ternary", 2)
REAL = Format("real", 16)
"""Real numbers, kept in 16 bits on the digital side (quantizers.md B.5: residual maps need at least 16)."""


def unsigned(bits: int, scale: float = 1.0) -> Format:
    """Codes ``0 .. 2^bits - 1``."""
    return Format("unsigned", bits, scale)


def signed(bits: int, scale: float = 1.0) -> Format:
    """Symmetric codes ``-(2^(bits-1) - 1) .. 2^(bits-1) - 1``."""
    return Format("signed", bits, scale)


def integer(bits: int, scale: float = 1.0) -> Format:
    """Two's complement codes ``-2^(bits-1) .. 2^(bits-1) - 1``."""
    return Format("integer", bits, scale)
