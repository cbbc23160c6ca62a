"""On-chip SRAM: how energy, area and leakage follow the capacity."""

CELL_UM2 = 0.171
"""6T cell at 32 nm: Natarajan et al., IEDM 2008, in the title."""

ARRAY_EFFICIENCY = 0.5
"""Assumed: share of the cells in the area, with a second port and wide words."""


def access_energy(energy_pJ_per_bit: float, capacity_bits: float, characterized_at_bits: float) -> float:
    """Return the energy of a bit read or written at another capacity: word and bit lines grow with its square root.

    Source: Horowitz, ISSCC 2014, as others quote it: 64 bits take 10 pJ at 8 KB, 20 pJ at 32 KB, 100 pJ at 1 MB.

    >>> access_energy(10 / 64, capacity_bits=32 * 8192, characterized_at_bits=8 * 8192) * 64
    20.0
    """
    return energy_pJ_per_bit * (capacity_bits / characterized_at_bits) ** 0.5


def per_capacity(value: float, capacity_bits: float, characterized_at_bits: float) -> float:
    """Return area or leakage at another capacity: cells dominate both."""
    return value * capacity_bits / characterized_at_bits


def area_um2(capacity_bits: float) -> float:
    """Return the area of a buffer at 32 nm."""
    return capacity_bits * CELL_UM2 / ARRAY_EFFICIENCY
