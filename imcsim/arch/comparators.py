"""Machines that a network is compared on: one model for each way of counting what a layer costs there.

They are not placed and simulated: `imcsim.comparators` works out time and energy from a few published figures and the
layers of a lowered network. Where each figure comes from stands beside it, as in all chip files, and every energy says
what it covers, so that the power of a core is not read as that of a board.
"""

from typing import Annotated, Literal

from pydantic import Field

from imcsim.arch.spec import Figure, Machine, Positive, Sourced

Covers = Literal["array", "core", "chip", "board"]
"""array: one memory array with its periphery; core: the accelerator without host, memory and pads; chip: a whole die;
board: what a supply feeds, with memories and losses."""

Obtained = Literal["measured", "simulated", "rated", "modelled"]
"""measured: on silicon; simulated: of a netlist or a layout; rated: a data sheet's limit; modelled: by arithmetic."""

WeightPlane = Literal["binary", "ternary"]
ActivationPlane = Literal["binary", "ternary", "bit"]
"""What one plane of an operand holds: binary {-1, +1}, ternary {-1, 0, +1}, bit {0, 1}."""


class Process(Sourced):
    """The process that the machine is made in."""

    node_nm: Positive
    supply_V: Positive | None = None
    """None where it is not told."""


class Operands(Sourced):
    """What the machine multiplies."""

    arithmetic: Literal["planes", "words"]
    """planes: one product a pair of planes, so layers of several planes take several; words: one a weight and input."""

    weights: Annotated[tuple[WeightPlane, ...], Field(min_length=1, strict=False)] = ("binary", "ternary")
    """Planes that it holds as they are; what it does not is written as a sum of those that it does."""

    activations: Annotated[tuple[ActivationPlane, ...], Field(min_length=1, strict=False)] = (
        "binary",
        "ternary",
        "bit",
    )

    splits: bool = True
    """Whether it can add up the products of several planes; what needs that is refused where it cannot."""


class Utilization(Sourced):
    """How much of the peak a layer reaches."""

    share: Annotated[float, Field(gt=0, le=1)]


class Area(Sourced):
    """Area of what `covers` says of the energy."""

    area_um2: Positive


class Comparator(Machine):
    """A machine whose time and energy are worked out by a formula."""

    taken_by = "imcsim compare"

    technology: Process
    operands: Operands
    figures: dict[str, Figure] = Field(default_factory=dict)
    """What its paper prints, by name; never used in a computation."""


class PeakRate(Sourced):
    """Products at full rate."""

    macs_per_ns: Positive


class EnergyPerMac(Sourced):
    """Energy of one product of planes, with everything that goes with it."""

    energy_pJ_per_mac: Positive
    covers: Covers
    obtained: Obtained


class ThroughputRow(Comparator):
    """A row of a table: a peak rate and an energy a product, and how much of the peak is assumed to be reached."""

    kind: Literal["throughput"]
    peak: PeakRate
    utilization: Utilization
    energy: EnergyPerMac
    area: Area | None = None
