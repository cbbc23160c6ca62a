"""What the numbers of a tensor are between two ops: whole-number codes with a scale, or real numbers."""

from dataclasses import dataclass
from typing import Literal

from imcsim.errors import GraphError
from imcsim.ternary import Codec, binary, bit_serial, sign_magnitude, ternary

Kind = Literal["binary", "ternary", "unsigned", "signed", "real"]


@dataclass(frozen=True)
class Format:
    """The numbers of a tensor: ``scale * code``, or real numbers that live on the digital side only.

    >>> Format("unsigned", 2, scale=0.5).n_passes
    2
    """

    kind: Kind

    bits: int
    """How many bits one number takes in a buffer; a ternary digit takes 2."""

    scale: float = 1.0
    """What code 1 stands for; 1 for real numbers."""

    def __post_init__(self) -> None:
        fixed = {"binary": 1, "ternary": 2}
        if self.kind in fixed and self.bits != fixed[self.kind]:
            raise GraphError(f"format: {self.kind} codes take {fixed[self.kind]} bits, got {self.bits}")
        if not 1 <= self.bits <= 64:
            raise GraphError(f"format: bits must be from 1 to 64, got {self.bits}")

    @property
    def is_real(self) -> bool:
        """Whether the tensor holds real numbers, which no tile can take."""
        return self.kind == "real"

    @property
    def low(self) -> int:
        """Least code."""
        return {"binary": -1, "ternary": -1, "unsigned": 0, "signed": 1 - (1 << (self.bits - 1))}[self.kind]

    @property
    def high(self) -> int:
        """Greatest code."""
        return {"binary": 1, "ternary": 1}.get(
            self.kind, (1 << self.bits) - 1 if self.kind == "unsigned" else (1 << (self.bits - 1)) - 1
        )

    def codec(self) -> Codec:
        """Return how the codes are sent to a tile, pass by pass."""
        match self.kind:
            case "binary":
                return binary()
            case "ternary":
                return ternary()
            case "unsigned":
                return bit_serial(self.bits)
            case "signed":
                return sign_magnitude(self.bits)
        raise GraphError("format: a tile takes codes, got real numbers; quantize the activation first (imcsim.quant)")

    @property
    def n_passes(self) -> int:
        """How many planes, and so passes through the tiles, the codes take."""
        return self.codec().n_planes

    @property
    def bits_per_digit(self) -> int:
        """Bits that one digit of one pass takes on its way to a row driver: 2 where a digit can be -1, 0 and +1."""
        return 1 if self.kind in ("binary", "unsigned") else 2

    def __str__(self) -> str:
        name = {"binary": "binary", "ternary": "ternary", "unsigned": f"u{self.bits}", "signed": f"s{self.bits}"}
        return name.get(self.kind, f"real{self.bits}")


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
