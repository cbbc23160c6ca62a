"""Scaling between process nodes: pure functions, only for the nodes and metrics that a chip file of ours rests on.

Source: Stillmaker and Baas, "Scaling equations for the accurate prediction of CMOS device performance from 180 nm to
7 nm", Integration 58 (2017), doi:10.1016/j.vlsi.2017.02.002; the coefficients as the repository wromaszkan/nodeScale
(nodeScale.py) gives them, not read in the paper.
"""

ENERGY_COEFFICIENTS = {45: (1.018, -0.3107, 0.1539), 32: (0.8367, -0.4341, 0.1701)}
"""Energy of a gate of a high-performance process: a V^2 + b V + c, in a unit that cancels."""

AREA_OF_32_NM_IN_45_NM = 0.46


def energy_45_to_32_nm(energy_pJ: float, from_V: float = 0.9, to_V: float = 0.9) -> float:
    """Return what an energy at 45 nm and *from_V* becomes at 32 nm and *to_V*.

    >>> round(energy_45_to_32_nm(1.0), 3)
    0.654
    """
    return energy_pJ * gate_energy(32, to_V) / gate_energy(45, from_V)


def area_45_to_32_nm(area_um2: float) -> float:
    """Return what an area at 45 nm becomes at 32 nm."""
    return area_um2 * AREA_OF_32_NM_IN_45_NM


def gate_energy(node_nm: int, supply_V: float) -> float:
    """Return the energy of a gate, in a unit that cancels."""
    a, b, c = ENERGY_COEFFICIENTS[node_nm]
    return a * supply_V**2 + b * supply_V + c
