"""Scaling between process nodes from 180 to 7 nm: factors for energy, delay and area, and figures brought to one node.

Source: Stillmaker and Baas, "Scaling equations for the accurate prediction of CMOS device performance from 180 nm to
7 nm", Integration 58 (2017), doi:10.1016/j.vlsi.2017.02.002. Coefficients and areas as the repository
wromaszkan/nodeScale (nodeScale.py) gives them, not read in the paper; Accelergy-Project/hwcomponents
(hwcomponents/scaling/techscaling.py) gives the same areas, and the same energies of ten processes. The authors' page
of the paper prints one worked example, which `tests/golden/technology-scaling.yaml` holds against this module.

What the factors say is how a chain of logic gates scales. Converters, long wires, arrays that are limited by matching,
and main memory scale less; leakage has no factor here. A node that the paper does not have (28 nm) is interpolated
between its neighbours at the same share of their nominal supplies, the logarithm of a factor over the logarithm of the
node: ours, not the paper's. At the paper's nodes the factors are the paper's.

>>> at_45, at_32 = Process(45, 0.9), Process(32, 0.9)
>>> round(energy_factor(at_45, at_32), 3), area_factor(at_45, at_32)
(0.654, 0.46)
>>> round(normalized("energy_efficiency", 100.0, at_45, at_32), 1)  # TOPS/W
152.9
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Literal

from imcsim.errors import ConfigError

Kind = Literal["HP", "LP"]
"""High performance or low power; processes of 65 nm and more are of one kind."""

Figure = Literal[
    "energy", "latency", "area", "throughput", "power", "energy_delay", "energy_efficiency", "area_efficiency"
]

POWERS: dict[Figure, tuple[int, int, int]] = {
    "energy": (1, 0, 0),
    "latency": (0, 1, 0),
    "area": (0, 0, 1),
    "throughput": (0, -1, 0),
    "power": (1, -1, 0),
    "energy_delay": (1, 1, 0),
    "energy_efficiency": (-1, 0, 0),
    "area_efficiency": (0, -1, -1),
}
"""With which powers of the factors for energy, delay and area a figure scales; efficiencies are operations a second,
per watt and per area. `power` is that of switching."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The fitted polynomials of one process, and where they hold."""

    nominal_V: float
    """Supply of the transistor models (PTM) that were fitted: recalled; for 45, 14, 10 and 7 nm read in others'
    code."""

    energy: tuple[float, ...]
    """Coefficients of V^2, V, 1; the unit cancels."""

    energy_V: tuple[float, float]
    """Supplies at which the fit is positive and rises, at most 1.2 times the nominal one. The ranges that the paper
    states were not read."""

    delay: tuple[float, ...]
    """Coefficients of V^3, V^2, V, 1; the unit cancels."""

    delay_V: tuple[float, float]
    """Supplies at which the fit is positive and falls, but for a rise of 15 % at its end."""


FITS: dict[tuple[int, Kind], Fit] = {
    (180, "HP"): Fit(
        nominal_V=1.8,
        energy=(0, 24.64, -17.98),
        energy_V=(0.9, 2.16),
        delay=(0, 97.09, -356.7, 406.5),
        delay_V=(0.6, 1.9),
    ),
    (130, "HP"): Fit(
        nominal_V=1.3,
        energy=(7.171, -6.709, 2.904),
        energy_V=(0.5, 1.56),
        delay=(-76.65, 334.9, -493.4, 275.8),
        delay_V=(0.5, 1.56),
    ),
    (90, "HP"): Fit(
        nominal_V=1.2,
        energy=(4.762, -4.781, 2.092),
        energy_V=(0.55, 1.44),
        delay=(-60.34, 262.5, -384.2, 210.9),
        delay_V=(0.5, 1.44),
    ),
    (65, "HP"): Fit(
        nominal_V=1.1,
        energy=(3.755, -4.398, 1.975),
        energy_V=(0.6, 1.32),
        delay=(-53.3, 230.4, -333.9, 178.6),
        delay_V=(0.5, 1.32),
    ),
    (45, "HP"): Fit(
        nominal_V=1.0,
        energy=(1.018, -0.3107, 0.1539),
        energy_V=(0.4, 1.2),
        delay=(-501.6, 1567, -1619, 566.1),
        delay_V=(0.4, 1.1),
    ),
    (32, "HP"): Fit(
        nominal_V=0.9,
        energy=(0.8367, -0.4341, 0.1701),
        energy_V=(0.4, 1.08),
        delay=(-1047, 2982, -2797, 873.5),
        delay_V=(0.4, 0.9),
    ),
    (20, "HP"): Fit(
        nominal_V=0.9,
        energy=(0.373, -0.1582, 0.04104),
        energy_V=(0.4, 1.08),
        delay=(0, 34.63, -66.37, 41.15),
        delay_V=(0.4, 1.08),
    ),
    (16, "HP"): Fit(
        nominal_V=0.85,
        energy=(0.2958, -0.1241, 0.03024),
        energy_V=(0.4, 1.02),
        delay=(0, 24.8, -47.52, 28.87),
        delay_V=(0.4, 1.02),
    ),
    (14, "HP"): Fit(
        nominal_V=0.8,
        energy=(0.2363, -0.09675, 0.02239),
        energy_V=(0.4, 0.96),
        delay=(-40.66, 109.2, -100.6, 35.92),
        delay_V=(0.4, 0.96),
    ),
    (10, "HP"): Fit(
        nominal_V=0.75,
        energy=(0.2068, -0.09311, 0.02375),
        energy_V=(0.4, 0.9),
        delay=(-34.95, 93.65, -85.99, 30.4),
        delay_V=(0.4, 0.9),
    ),
    (7, "HP"): Fit(
        nominal_V=0.7,
        energy=(0.1776, -0.09097, 0.02447),
        energy_V=(0.4, 0.84),
        delay=(-28.58, 76.6, -70.26, 24.69),
        delay_V=(0.4, 0.84),
    ),
    (45, "LP"): Fit(
        nominal_V=1.1,
        energy=(1.103, -0.362, 0.2767),
        energy_V=(0.4, 1.32),
        delay=(-285.7, 1239, -1795, 898.8),
        delay_V=(0.4, 1.32),
    ),
    (32, "LP"): Fit(
        nominal_V=1.0,
        energy=(0.9559, -0.7823, 0.471),
        energy_V=(0.45, 1.2),
        delay=(-325.9, 1374, -1922, 913.2),
        delay_V=(0.4, 1.2),
    ),
    (20, "LP"): Fit(
        nominal_V=0.9,
        energy=(0.2632, -0.14, 0.06841),
        energy_V=(0.4, 1.08),
        delay=(-160.5, 514.1, -558.6, 217.5),
        delay_V=(0.4, 1.08),
    ),
    (16, "LP"): Fit(
        nominal_V=0.85,
        energy=(0.2139, -0.1187, 0.05639),
        energy_V=(0.4, 1.02),
        delay=(-114.6, 366.7, -397.4, 153.6),
        delay_V=(0.4, 1.02),
    ),
    (14, "LP"): Fit(
        nominal_V=0.8,
        energy=(0.1556, -0.06472, 0.03066),
        energy_V=(0.4, 0.96),
        delay=(-85.37, 271.6, -292.2, 111.4),
        delay_V=(0.4, 0.96),
    ),
    (10, "LP"): Fit(
        nominal_V=0.75,
        energy=(0.1261, -0.0518, 0.02769),
        energy_V=(0.4, 0.9),
        delay=(-71.76, 228.6, -246.3, 93.91),
        delay_V=(0.4, 0.9),
    ),
    (7, "LP"): Fit(
        nominal_V=0.7,
        energy=(0.09365, -0.03409, 0.02043),
        energy_V=(0.4, 0.84),
        delay=(-61.79, 196.1, -210.3, 79.55),
        delay_V=(0.4, 0.84),
    ),
}

NODES = (180, 130, 90, 65, 45, 32, 20, 16, 14, 10, 7)
"""The nodes of the paper, in nm."""

FIRST_OF_TWO_KINDS_NM = 45

AREAS: dict[int, tuple[float, ...]] = {
    180: (1, 0.34, 0.15, 0.08, 0.053, 0.025, 0.011, 0.01, 0.0093, 0.0055, 0.0032),
    130: (2.9, 1, 0.44, 0.23, 0.16, 0.072, 0.033, 0.03, 0.027, 0.016, 0.0092),
    90: (6.6, 2.3, 1, 0.53, 0.35, 0.16, 0.075, 0.067, 0.061, 0.036, 0.021),
    65: (12, 4.3, 1.9, 1, 0.66, 0.31, 0.14, 0.13, 0.12, 0.068, 0.039),
    45: (19, 6.4, 2.8, 1.5, 1, 0.46, 0.21, 0.19, 0.17, 0.1, 0.059),
    32: (40, 14, 6.1, 3.3, 2.2, 1, 0.46, 0.41, 0.38, 0.22, 0.13),
    20: (88, 30, 13, 7.1, 4.7, 2.2, 1, 0.89, 0.82, 0.48, 0.28),
    16: (99, 34, 15, 7.9, 5.3, 2.4, 1.1, 1, 0.91, 0.54, 0.31),
    14: (110, 37, 16, 8.7, 5.8, 2.7, 1.2, 1.1, 1, 0.59, 0.34),
    10: (180, 63, 28, 15, 9.8, 4.5, 2.1, 1.9, 1.7, 1, 0.58),
    7: (320, 110, 48, 25, 17, 7.8, 3.6, 3.2, 2.9, 1.7, 1),
}
"""What an area at the node of the row becomes at each node of `NODES`, to two digits, as printed."""


@dataclass(frozen=True)
class Process:
    """A process node, and the supply that a chip has in it."""

    node_nm: float

    supply_V: float | None = None
    """None for the nominal supply of the node."""

    kind: Kind = "HP"

    def __post_init__(self) -> None:
        if not NODES[-1] <= self.node_nm <= NODES[0]:
            raise ConfigError(
                f"technology: the node must be from {NODES[-1]} to {NODES[0]} nm, got {self.node_nm:g} nm"
            )

    @property
    def supply(self) -> float:
        """Supply in V: the given one, or the nominal one."""
        return between_fits(self, lambda fit: fit.nominal_V) if self.supply_V is None else self.supply_V

    def __str__(self) -> str:
        kind = f" {self.kind}" if self.node_nm <= FIRST_OF_TWO_KINDS_NM else ""
        return f"{self.node_nm:g} nm{kind} at {self.supply:.3g} V"


def process(text: str) -> Process:
    """Return the process that *text* names: `32nm`, `32nm@0.8V`, `32nm-LP`, `32nm-LP@0.8V`.

    Raises ConfigError where it names none, or a node that the factors do not reach.

    >>> str(process("32nm")), str(process("22nm-LP@0.8V"))
    ('32 nm HP at 0.9 V', '22 nm LP at 0.8 V')
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*nm(?:-(HP|LP))?(?:@([0-9.]+)\s*V)?\s*", text, flags=re.IGNORECASE)
    try:
        if found is None:
            raise ValueError
        kind: Kind = "LP" if (found[2] or "").upper() == "LP" else "HP"
        return Process(float(found[1]), float(found[3]) if found[3] else None, kind)
    except ConfigError:
        raise
    except ValueError:
        raise ConfigError(
            f"technology: must be a node and may name kind and supply, as 32nm, 32nm-LP or 32nm@0.8V, got {text!r}"
        ) from None


def normalized(figure: Figure, value: float, source: Process, target: Process) -> float:
    """Return what *value* of *figure*, known in the process *source*, becomes in the process *target*.

    Raises ConfigError where a supply is outside the fits of its node.
    """
    energy, delay, area = POWERS[figure]
    factor = energy_factor(source, target) ** energy if energy else 1.0
    if delay:
        factor *= delay_factor(source, target) ** delay
    if area:
        factor *= area_factor(source, target) ** area
    return value * factor


def energy_factor(source: Process, target: Process) -> float:
    """Return what an energy of 1 in *source* becomes in *target*."""
    return gate_energy(target) / gate_energy(source)


def delay_factor(source: Process, target: Process) -> float:
    """Return what a delay of 1 in *source* becomes in *target*."""
    return gate_delay(target) / gate_delay(source)


def area_factor(source: Process, target: Process) -> float:
    """Return what an area of 1 in *source* becomes in *target*."""
    if (
        source.node_nm == target.node_nm
    ):  # between nodes the products of printed areas, of two digits, miss 1 by a little
        return 1.0

    def to(column: int) -> float:
        return between_nodes(source.node_nm, lambda row: AREAS[row][NODES.index(column)])

    return between_nodes(target.node_nm, to)


def gate_energy(at: Process) -> float:
    """Return the energy of a gate, in a unit that cancels."""
    relative = relative_supply(at, "energy", lambda fit: fit.energy_V)
    return between_fits(at, lambda fit: polynomial(fit.energy, relative * fit.nominal_V))


def gate_delay(at: Process) -> float:
    """Return the delay of a gate, in a unit that cancels."""
    relative = relative_supply(at, "delay", lambda fit: fit.delay_V)
    return between_fits(at, lambda fit: polynomial(fit.delay, relative * fit.nominal_V))


def relative_supply(at: Process, of: str, supplies: Callable[[Fit], tuple[float, float]]) -> float:
    """Return the supply relative to the nominal one.

    Raises ConfigError where the fits of the node, or of its neighbours, do not hold for it.
    """
    nominal_V = between_fits(at, lambda fit: fit.nominal_V)
    near = [fit_of(node, at.kind) for node in neighbours(at.node_nm)]
    least = max(supplies(fit)[0] / fit.nominal_V for fit in near)
    greatest = min(supplies(fit)[1] / fit.nominal_V for fit in near)
    relative = at.supply / nominal_V
    if not least * (1 - 1e-9) <= relative <= greatest * (1 + 1e-9):
        raise ConfigError(
            f"technology: {at.node_nm:g} nm: the supply must be from {least * nominal_V:.3g} to "
            f"{greatest * nominal_V:.3g} V to scale {of}, got {at.supply:g} V; the published fits do not reach further"
        )
    return relative


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """Return the value of a polynomial whose *coefficients* begin with that of the highest power."""
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def between_fits(at: Process, value: Callable[[Fit], float]) -> float:
    """Return *value* of the fit of the node, or between those of its neighbours."""
    return between_nodes(at.node_nm, lambda node: value(fit_of(node, at.kind)))


def fit_of(node_nm: int, kind: Kind) -> Fit:
    """Return the fit of a node of the paper."""
    return FITS[node_nm, kind if node_nm <= FIRST_OF_TWO_KINDS_NM else "HP"]


def between_nodes(node_nm: float, value: Callable[[int], float]) -> float:
    """Return *value* at a node of the paper, or between its neighbours, on a straight line between logarithms.

    >>> round(between_nodes(28, lambda node: node**2))
    784
    """
    near = neighbours(node_nm)
    if len(near) == 1:
        return value(near[0])
    larger, smaller = near
    share = log(node_nm / smaller) / log(larger / smaller)
    return exp(share * log(value(larger)) + (1 - share) * log(value(smaller)))


def neighbours(node_nm: float) -> tuple[int, ...]:
    """Return the node if it is one of the paper's, or the next larger and the next smaller one."""
    if node_nm in NODES:
        return (NODES[NODES.index(int(node_nm))],)
    return min(node for node in NODES if node > node_nm), max(node for node in NODES if node < node_nm)
