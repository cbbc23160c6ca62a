"""Adders, multipliers and registers at 32 nm: the figures that chip files take for their digital units.

Energies and areas at 45 nm and 0.9 V: Horowitz, "Computing's energy problem", ISSCC 2014, as others quote it (int add
0.03 pJ at 8 bits, 0.1 pJ at 32; int multiply 0.2 pJ and 3.1 pJ; areas 36, 137, 282 and 3495 um2). A register bit:
Aladdin's 40 nm figures (9 fJ, 5.98 um2), read in ashleyswang/pm-tech-lib, py-script/test.c.
"""

from imcsim.costs.technology import Process, area_factor, energy_factor

AT_45_NM, AT_32_NM = Process(45, 0.9), Process(32, 0.9)

ADDER_PJ_AT_45_NM = {8: 0.03, 32: 0.1}
"""Energy of an addition by its bits, at 45 nm and 0.9 V."""

REGISTER_BIT_PJ = 0.009 * (32 / 40)
"""A register bit at 32 nm: energy falls with the length."""

REGISTER_BIT_UM2 = 5.98 * (32 / 40) ** 2
LOGIC_LEAKAGE_MW_PER_UM2 = 1.2e-5
"""Aladdin's register leaks 74 nW on 5.98 um2, its multiplier 77.9 uW on 6350 um2: 12 nW/um2 both.

Memories are taken to leak as much for their area, for want of a better figure.
"""


def adder_energy_pJ(n_bits: float) -> float:
    """Return the energy of one addition at 32 nm, on the line through 8 and 32 bits.

    >>> round(adder_energy_pJ(12), 3)
    0.027
    """
    at_8, at_32 = ADDER_PJ_AT_45_NM[8], ADDER_PJ_AT_45_NM[32]
    return energy_factor(AT_45_NM, AT_32_NM) * (at_8 + (at_32 - at_8) * (n_bits - 8) / 24)


def adder_area_um2(n_bits: float) -> float:
    """Return the area of an adder at 32 nm, on the line through 8 and 32 bits."""
    return area_factor(AT_45_NM, AT_32_NM) * (36 + (137 - 36) * (n_bits - 8) / 24)


def multiplier_energy_pJ(n_bits: float) -> float:
    """Return the energy of one multiplication at 32 nm, on the power law through 8 and 32 bits.

    >>> round(multiplier_energy_pJ(16), 3)
    0.515
    """
    return energy_factor(AT_45_NM, AT_32_NM) * between(n_bits, 0.2, 3.1)


def multiplier_area_um2(n_bits: float) -> float:
    """Return the area of a multiplier at 32 nm, on the power law through 8 and 32 bits."""
    return area_factor(AT_45_NM, AT_32_NM) * between(n_bits, 282, 3495)


def between(n_bits: float, at_8: float, at_32: float) -> float:
    """Return the value at *n_bits* on the power law through the values at 8 and 32 bits."""
    steps_of_two_bits_doublings = (n_bits / 8) ** 1  # 4 at 32 bits
    return at_8 * steps_of_two_bits_doublings ** exponent(at_8, at_32)


def exponent(at_8: float, at_32: float) -> float:
    """Return the power by which a value grows with the bits, from 8 to 32."""
    from math import log

    return log(at_32 / at_8, 4)


def per_bits(value: float, n_bits: float, n_bits_characterized: float) -> float:
    """Return energy, area or leakage of an adder of *n_bits*: ripple and register grow with the width.

    >>> per_bits(0.12, 16, 12)
    0.16
    """
    return value * n_bits / n_bits_characterized
