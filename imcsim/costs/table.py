"""What every action of a chip costs: energy by component, with basis and source; area and leakage by component."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from imcsim.arch.spec import Basis


@dataclass(frozen=True)
class Cost:
    """What one component spends in one action."""

    action: str
    component: str
    energy_pJ: float
    basis: Basis
    source: str

    formula: str
    """How the number follows from the chip file's keys, in words of the keys."""

    within_factor: float | None = None


@dataclass(frozen=True)
class Timing:
    """How long one unit takes for one action."""

    latency_ns: float
    """From the start of an item to its result."""

    interval_ns: float
    """Time until the unit takes the next item."""


@dataclass(frozen=True)
class ComponentArea:
    """Area and leakage of all instances of one component."""

    component: str
    n_instances: int
    area_um2: float
    leakage_mW: float
    basis: Basis
    source: str
    within_factor: float | None = None


@dataclass(frozen=True)
class CostTable:
    """All costs of a chip. Totals are sums of these lines."""

    chip: str
    costs: tuple[Cost, ...]
    timings: dict[str, Timing]
    areas: tuple[ComponentArea, ...]

    servers: dict[str, int] = field(default_factory=dict)
    """How many tasks a unit serves at one time, where it is more than one: ports of a buffer, channels of main memory.

    A timing is that of one port, but of all channels together.
    """

    @cached_property
    def by_action(self) -> dict[str, tuple[Cost, ...]]:
        """The costs of each action, one line a component."""
        table: dict[str, list[Cost]] = {}
        for cost in self.costs:
            table.setdefault(cost.action, []).append(cost)
        return {action: tuple(costs) for action, costs in table.items()}

    def energy_pJ(self, action: str) -> float:
        """Return the energy of one *action*, all components together."""
        return total(cost.energy_pJ for cost in self.by_action[action])

    @property
    def area_um2(self) -> float:
        """Area of the chip."""
        return total(area.area_um2 for area in self.areas)

    @property
    def leakage_mW(self) -> float:
        """Leakage of the chip."""
        return total(area.leakage_mW for area in self.areas)


def total(values: Iterable[float]) -> float:
    """Add up in the order given."""
    return sum(values, 0.0)
