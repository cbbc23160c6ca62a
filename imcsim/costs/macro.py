"""What a published macro reaches, by its own parts, by scaling and by our models, beside what its paper prints.

Names of figures: `TOPS`, `cycle_pJ`, `TOPS_per_W`, `TOPS_per_mm2` by the macro's own parts at its own supply; with
``@POINT`` behind at another supply, to which energy and cycle are scaled by `imcsim.costs.technology`; with ``tile_``
before by the tile of another chip, changed and scaled (``@NAME`` for another share of products that are not zero); with
``adders_`` before by the adders of `imcsim.costs.digital`. One product (MAC) is two operations.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from imcsim.arch.load import load_chip
from imcsim.arch.macros import Macro
from imcsim.arch.spec import Basis, Chip
from imcsim.costs import digital
from imcsim.costs.activity import mean_discharge
from imcsim.costs.peaks import access_actions, access_interval_ns
from imcsim.costs.price import price
from imcsim.costs.table import total
from imcsim.costs.technology import Process, area_factor, delay_factor, energy_factor
from imcsim.errors import ConfigError
from imcsim.units import UM2_PER_MM2

Role = Literal["own parts", "fitted", "predicted"]
"""own parts: the paper's own parts added up, a check of our reading and of its arithmetic; fitted: a number of the file
was chosen to meet it; predicted: nothing of what this macro reaches there went into it."""

OPERATIONS = 2
"""Of one product."""


@dataclass(frozen=True)
class MacroFigure:
    """One figure of a macro, ours beside the printed one."""

    name: str
    value: float
    unit: str
    role: Role
    how: str
    printed: float | None = None
    printed_basis: Basis | None = None
    printed_source: str = ""

    @property
    def error(self) -> float | None:
        """Ours relative to the printed one: 0.1 is 10 % more; None where nothing is printed."""
        return None if self.printed is None else self.value / self.printed - 1


def macro_figures(macro: Macro) -> list[MacroFigure]:
    """Return the figures of *macro*, those that its paper prints beside them.

    Raises ConfigError where a supply is outside the fits of the node, or where the paper's figures name none of these.
    """
    found = [*_of_parts(macro), *_of_points(macro), *_of_tile(macro), *_of_adders(macro)]
    names = [figure.name for figure in found]
    for name in macro.figures:
        if name not in names:
            raise ConfigError(f"{macro.name}: figures: must be one of {', '.join(names)}, got {name!r}")
    return [_beside_paper(figure, macro) for figure in found]


def _beside_paper(figure: MacroFigure, macro: Macro) -> MacroFigure:
    printed = macro.figures.get(figure.name)
    if printed is None:
        return figure
    role: Role = "fitted" if figure.name in macro.fitted else figure.role
    how = f"{figure.how}; fitted: {macro.fitted[figure.name]}" if role == "fitted" else figure.how
    return replace(figure, role=role, how=how, printed=printed.value, printed_basis=printed.basis,
                   printed_source=printed.source)  # fmt: skip


def process_of(macro: Macro, supply_V: float | None = None) -> Process:
    """Return the process of *macro*, at another supply where one is given."""
    return Process(macro.technology.node_nm, supply_V or macro.technology.supply_V)


def _n_operations(macro: Macro) -> int:
    return OPERATIONS * macro.array.n_inputs * macro.array.n_outputs


def _cycle_pJ(macro: Macro) -> float:
    return total(part.n_per_cycle * part.energy_pJ for part in macro.energies.values())


def _of_parts(macro: Macro) -> Iterator[MacroFigure]:
    """At the macro's own supply, by its own parts."""
    interval_ns = macro.cycle.interval_ns if macro.cycle is not None else None
    words = " + ".join(f"{part.n_per_cycle} x {part.energy_pJ:g} pJ {name}" for name, part in macro.energies.items())
    energy_pJ = _cycle_pJ(macro) if macro.energies else None
    yield from _figures(macro, "", interval_ns, energy_pJ, "own parts", words)


def _of_points(macro: Macro) -> Iterator[MacroFigure]:
    """At other supplies, scaled from the macro's own."""
    own = process_of(macro)
    for name, point in macro.points.items():
        there = process_of(macro, point.supply_V)
        interval_ns = macro.cycle.interval_ns * delay_factor(own, there) if macro.cycle is not None else None
        energy_pJ = _cycle_pJ(macro) * energy_factor(own, there) if macro.energies else None
        how = f"scaled from {own.supply:g} V to {there.supply:g} V"
        yield from _figures(macro, f"@{name}", interval_ns, energy_pJ, "predicted", how)


def _figures(
    macro: Macro, behind: str, interval_ns: float | None, energy_pJ: float | None, role: Role, how: str
) -> Iterator[MacroFigure]:
    n_operations = _n_operations(macro)
    area_um2 = total(part.area_um2 for part in macro.areas.values())
    if interval_ns is not None:
        tops = n_operations / interval_ns / 1000
        rate = f"{n_operations} operations / {interval_ns:.4g} ns" + (f"; {how}" if behind else "")
        yield MacroFigure(f"TOPS{behind}", tops, "TOPS", role, rate)
        if area_um2:
            words = " + ".join(macro.areas)
            per_area = f"TOPS / {area_um2 / UM2_PER_MM2:.4g} mm2 of {words}"
            yield MacroFigure(f"TOPS_per_mm2{behind}", tops / area_um2 * UM2_PER_MM2, "TOPS/mm2", role, per_area)
    if energy_pJ is not None:
        yield MacroFigure(f"cycle_pJ{behind}", energy_pJ, "pJ", role, how)
        per_energy = f"{n_operations} operations / {energy_pJ:.4g} pJ" + (f"; {how}" if behind else "")
        yield MacroFigure(f"TOPS_per_W{behind}", n_operations / energy_pJ, "TOPS/W", role, per_energy)


def _of_tile(macro: Macro) -> Iterator[MacroFigure]:
    """By the tile of another chip, changed to the macro's measures and scaled to its process."""
    model = macro.tile
    if model is None:
        return
    chip = load_chip(model.chip, model.changes)
    if (chip.tile.rows_per_access, chip.tile.n_columns) != (macro.array.n_inputs, macro.array.n_outputs):
        needed = f"array.n_inputs x array.n_outputs ({macro.array.n_inputs} x {macro.array.n_outputs})"
        raise ConfigError(
            f"{macro.name}: tile.changes: must make an access of {needed}, "
            f"got {chip.tile.rows_per_access} x {chip.tile.n_columns}"
        )
    costs, there = price(chip), process_of(macro)
    own = Process(chip.technology.node_nm, chip.technology.supply_V)
    how = f"the tile of {chip.name}{_changes_text(model.changes)}, from {own} to {there}"
    spent = {action: n * costs.energy_pJ(action) for action, n in _access(chip).items()}
    factor, n_operations = energy_factor(own, there), _n_operations(macro)
    yield MacroFigure("tile_TOPS_per_W", n_operations / (sum(spent.values()) * factor), "TOPS/W", "predicted", how)
    for name, share in model.nonzero_products.items():
        energy_pJ = (sum(spent.values()) + spent["tile.column_read"] * (_discharge(chip, share) - 1)) * factor
        words = f"{how}, {share:g} of the products not zero"
        yield MacroFigure(f"tile_TOPS_per_W@{name}", n_operations / energy_pJ, "TOPS/W", "predicted", words)
    interval_ns = access_interval_ns(chip, costs) * delay_factor(own, there)
    tile_um2 = total(line.area_um2 for line in costs.areas if line.component in ("tile.array", "tile.pcu"))
    area_mm2 = tile_um2 / chip.all_tiles * area_factor(own, there) / UM2_PER_MM2
    per_area = n_operations / interval_ns / 1000 / area_mm2
    yield MacroFigure("tile_TOPS_per_mm2", per_area, "TOPS/mm2", "predicted", how)


def _access(chip: Chip) -> dict[str, float]:
    """Return the actions of one full access; one ADC where n alone is read."""
    actions = access_actions(chip)
    if chip.tile.sense == "n":
        actions["tile.convert_one"] = actions.pop("tile.convert")
    return actions


def _discharge(chip: Chip, nonzero_products: float) -> float:
    """Return what a bitline discharges on average, relative to the activity that the chip file's energy is for."""
    activity, n_rows = chip.tile.access.activity, chip.tile.rows_per_access
    assert activity is not None, "bitlines that count have an activity"
    return mean_discharge(chip, n_rows, nonzero_products) / mean_discharge(chip, n_rows, activity.nonzero_products)


def _changes_text(changes: dict[str, int | float | str]) -> str:
    return f" with {', '.join(f'{key}={value}' for key, value in changes.items())}" if changes else ""


def _of_adders(macro: Macro) -> Iterator[MacroFigure]:
    """By the adders of `imcsim.costs.digital`."""
    if macro.adders is None:
        return
    there, n_bits = process_of(macro), macro.adders.bits_per_mac
    # as many full adders as the 8-bit adder that is characterized has, a product: energy goes with them
    energy_pJ = digital.ADDER_PJ_AT_45_NM[8] * n_bits / 8 * energy_factor(digital.AT_45_NM, there)
    adders = f"{n_bits} full adders a product, an eighth of the 8-bit adder's energy each"
    how = f"{adders}, from {digital.AT_45_NM} to {there}"
    yield MacroFigure("adders_TOPS_per_W", OPERATIONS / energy_pJ, "TOPS/W", "predicted", how)
