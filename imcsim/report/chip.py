"""A chip as tables of plain rows, drawn elsewhere: parameters, costs and times of actions, areas, and peaks."""

from collections.abc import Iterator
from dataclasses import dataclass

from imcsim.arch.load import unit_of
from imcsim.arch.spec import Basis, Chip, Figure, Geometry, Sourced, Spec
from imcsim.costs.peaks import Peak, peaks
from imcsim.costs.table import CostTable


@dataclass(frozen=True)
class ChipRow:
    """One number of a chip."""

    key: str
    """The dotted key of the chip file, or the name of the action or component."""

    value: float | int | bool | str
    unit: str
    basis: Basis | None = None
    """None where the number says nothing of its basis: structure, and derived times."""

    source: str = ""
    within_factor: float | None = None


@dataclass(frozen=True)
class PeakRow:
    """One figure at full rate beside the printed one."""

    name: str
    value: float
    unit: str
    printed: float | None
    printed_basis: Basis | None
    difference_percent: float | None
    shares_percent: dict[Basis, float]
    formula: str


def chip_tables(chip: Chip, costs: CostTable) -> dict[str, list[ChipRow]]:
    """Return the tables of a chip by name: ``parameters``, ``costs``, ``timings`` and ``areas``."""
    return {
        "parameters": list(parameters(chip)),
        "costs": [
            ChipRow(
                f"{line.action} / {line.component}", line.energy_pJ, "pJ", line.basis, line.source, line.within_factor
            )
            for line in costs.costs
        ],
        "timings": [
            ChipRow(f"{action}.{name}", getattr(timing, name), "ns")
            for action, timing in costs.timings.items()
            for name in ("latency_ns", "interval_ns")
        ],
        "areas": [
            ChipRow(
                f"{line.component}.{name}",
                getattr(line, name),
                unit_of(name),
                line.basis,
                line.source,
                line.within_factor,
            )
            for line in costs.areas
            for name in ("area_um2", "leakage_mW")
        ],
    }


def peak_rows(chip: Chip, costs: CostTable) -> list[PeakRow]:
    """Return the peaks of a chip, differences and shares in percent."""
    return [peak_row(peak) for peak in peaks(chip, costs)]


def peak_row(peak: Peak) -> PeakRow:
    """Return *peak* as a row."""
    difference = None if peak.difference is None else 100 * peak.difference
    shares = {basis: 100 * share for basis, share in peak.shares.items()}
    return PeakRow(peak.name, peak.value, peak.unit, peak.printed, peak.printed_basis, difference, shares, peak.formula)


def parameters(record: Spec, key: str = "", sourced: Sourced | None = None) -> Iterator[ChipRow]:
    """Yield every number of *record* and of the records in it, each with the basis and source that speak for it."""
    if isinstance(record, Sourced):
        sourced = record
    elif not isinstance(record, Geometry):  # the measures of a characterization belong to the record around them
        sourced = None
    for name, value in record:
        dotted = f"{key}.{name}" if key else name
        if isinstance(value, Spec):
            yield from parameters(value, dotted, sourced)
        elif name == "figures":
            for figure_name, figure in value.items():
                yield figure_row(f"{dotted}.{figure_name}", figure)
        elif value is not None and name not in {"basis", "source", "within_factor"}:
            if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
                value = ", ".join(value)
            if sourced is None:
                yield ChipRow(dotted, value, unit_of(name))
            else:
                yield ChipRow(dotted, value, unit_of(name), sourced.basis, sourced.source, sourced.within_factor)


def figure_row(key: str, figure: Figure) -> ChipRow:
    """Return a printed figure as a row."""
    return ChipRow(key, figure.value, figure.unit, figure.basis, figure.source, figure.within_factor)
