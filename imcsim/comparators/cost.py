"""What a layer costs on a comparator, and what an inference does."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum

from imcsim.arch.comparators import Comparator, Covers, Obtained
from imcsim.arch.spec import BASES, Basis, Sourced
from imcsim.comparators.work import Lowered

NS_PER_S = 1e9


@dataclass(frozen=True)
class LayerCost:
    """One layer of an inference."""

    layer: str
    n_macs: int
    """One a weight and activation."""

    n_products: float
    """What the machine multiplies: products of planes, or of words."""

    latency_ns: float
    energy_pJ: float
    how: str
    """How the operands are taken, and how the layer is laid out, in words."""


@dataclass(frozen=True)
class Assessment:
    """What the model of a machine says of one inference."""

    machine: Comparator
    layers: tuple[LayerCost, ...]
    latency_ns: float
    throughput_per_s: float
    idle_energy_pJ: float
    """What is not a layer's: static power until the next inference."""

    covers: Covers
    obtained: Obtained
    basis: dict[str, Basis]
    """The weakest basis behind the latency, the energy and the area."""

    notes: tuple[str, ...] = ()
    n_chips: int = 1

    @property
    def energy_pJ(self) -> float:
        """Of one inference, where they follow each other at full rate."""
        return fsum(layer.energy_pJ for layer in self.layers) + self.idle_energy_pJ

    @property
    def area_um2(self) -> float | None:
        """Area of all chips, None where it is not told."""
        return self.n_chips * self.machine.area.area_um2 if self.machine.area is not None else None


def one_after_the_other(
    machine: Comparator,
    layers: tuple[LayerCost, ...],
    *,
    time: tuple[Sourced, ...],
    energy: tuple[Sourced, ...],
    covers: Covers,
    obtained: Obtained,
    notes: tuple[str, ...] = (),
) -> Assessment:
    """Return the inference of a machine whose layers follow each other, one inference at a time."""
    latency_ns = fsum(layer.latency_ns for layer in layers)
    return Assessment(
        machine, layers, latency_ns, NS_PER_S / latency_ns, 0.0, covers, obtained, bases(machine, time, energy), notes
    )


def bases(machine: Comparator, time: tuple[Sourced, ...], energy: tuple[Sourced, ...]) -> dict[str, Basis]:
    """Return the weakest basis of the records behind latency, energy and area."""
    found = {
        "latency": weakest(record.basis for record in time),
        "energy": weakest(record.basis for record in energy),
    }
    return found | ({"area": machine.area.basis} if machine.area is not None else {})


def weakest(found: Iterable[Basis]) -> Basis:
    """Return the basis that is known least well."""
    return max(found, key=BASES.index)


def n_products(n_macs: int, went: Lowered) -> int:
    """Return the products of planes of a layer, or of words."""
    return n_macs * went.n_passes
