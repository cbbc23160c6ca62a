"""Published in-memory-computing macros: what their papers state of them, to hold our models against silicon.

A macro is no chip that networks are placed on. Its file says array, cycle, energies and areas of its parts at one
supply (what the paper gives of them), or which tile of another chip stands for it, changed and scaled to its process;
and what the paper prints. `imcsim.costs.macro` works out the printed figures and says of each whether it follows from
the paper's own parts, was fitted, or is predicted.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from imcsim.arch.comparators import Area, Process
from imcsim.arch.spec import Count, Figure, Machine, Positive, Probability, Sourced, Spec


class MacroArray(Sourced):
    """What one cycle multiplies and adds."""

    n_inputs: Count
    """Inputs that are added up in one output: rows that are on together."""

    n_outputs: Count
    """Outputs of one cycle."""


class Cycle(Sourced):
    """From the start of one cycle to that of the next."""

    interval_ns: Positive


class CyclePart(Sourced):
    """What a part of the macro spends in one cycle."""

    energy_pJ: Positive
    """Of one of them."""

    n_per_cycle: Count


class TileModel(Spec):
    """The tile of a shipped chip, changed to the macro's measures and scaled to its process."""

    chip: str
    changes: dict[str, int | float | str] = Field(default_factory=dict)
    """Dotted keys of the chip file, as ``tile.n_columns``."""

    nonzero_products: dict[str, Probability] = Field(default_factory=dict)
    """By name, shares of products that are not zero, for which the energy is told as well."""


class Adders(Sourced):
    """Digital logic: adders of `imcsim.costs.digital`, scaled to the macro's process."""

    bits_per_mac: Count
    """Full adders that one product goes through."""


class SupplyPoint(Sourced):
    """Another supply, to which energy and cycle are scaled from those at the macro's own."""

    supply_V: Positive


class Macro(Machine):
    """One array with its periphery, as a paper describes it."""

    taken_by = "imcsim chip show"

    kind: Literal["macro"]
    technology: Process
    array: MacroArray
    cycle: Cycle | None = None
    """None where it is not known: then no throughput is told, but of a tile that stands for it."""

    energies: dict[str, CyclePart] = Field(default_factory=dict)
    """By part, all that one cycle spends; none where it is not known."""

    areas: dict[str, Area] = Field(default_factory=dict)
    tile: TileModel | None = None
    adders: Adders | None = None
    points: dict[str, SupplyPoint] = Field(default_factory=dict)
    fitted: dict[str, str] = Field(default_factory=dict)
    """Figures that numbers of this file were fitted to, each with the number: they are no test of anything."""

    figures: dict[str, Figure] = Field(default_factory=dict)
    """What the paper prints, by the names of `imcsim.costs.macro`; never used in a computation."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.energies or self.tile or self.adders):
            raise ValueError("energies: must be given, or a tile or adders that stand for the macro, got none")
        if self.points and self.technology.supply_V is None:
            raise ValueError("technology.supply_V: must be given to scale from it to other points, got none")
        for name in self.fitted:
            if name not in self.figures:
                raise ValueError(f"fitted: must name figures, got {name!r}")
        return self
