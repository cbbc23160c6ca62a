"""Ternary planes, the codecs that make them, and their packing into machine words."""

from imcsim.ternary.codecs import (
    CODECS,
    Codec,
    binary,
    bit_serial,
    multi_base,
    odd_binary,
    odd_trits,
    sign_magnitude,
    signed_trits,
    ternary,
    trit_serial,
    twos_complement,
    twos_complement_trits,
)
from imcsim.ternary.planes import PlaneSum, UnknownPlanes, no_values

__all__ = [
    "CODECS",
    "Codec",
    "PlaneSum",
    "UnknownPlanes",
    "binary",
    "bit_serial",
    "multi_base",
    "no_values",
    "odd_binary",
    "odd_trits",
    "sign_magnitude",
    "signed_trits",
    "ternary",
    "trit_serial",
    "twos_complement",
    "twos_complement_trits",
]
