"""What a terminal says of a run, added up from rows: by layer and by group of components.

Without pandas, so that an estimate is there before pandas would be; the tables of a page are `imcsim.report.tables`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from imcsim.intervals import wilson_interval
from imcsim.results import Row
from imcsim.units import UM2_PER_MM2

ENGINES = ("simulate", "estimate")
"""The engines that write rows; the one that is trusted more first."""

ABOUT_TIME = ("time", "busy")

GROUPS = (
    "Tile array",
    "PCUs",
    "NMC units",
    "Tile writes",
    "Activation buffer",
    "Psum buffer",
    "Reduce unit",
    "SFU",
    "Network",
    "Main memory",
    "Scheduler",
    "Other",
    "Leakage",
)
"""Groups of components, in the order in which bars are stacked. Leakage stands for all components together."""

_GROUP_OF_BEGINNING = {
    "tile.pcu": "PCUs",
    "tile.nmc": "NMC units",
    "tile.write": "Tile writes",
    "tile": "Tile array",
    "activation_buffer": "Activation buffer",
    "psum_buffer": "Psum buffer",
    "reduce_unit": "Reduce unit",
    "sfu": "SFU",
    "network": "Network",
    "main_memory": "Main memory",
    "scheduler": "Scheduler",
}


@dataclass
class LayerTotal:
    """What one layer takes."""

    energy_pJ: float = 0.0
    latency_ns: float | None = None
    """What it adds to the latency; None where nothing says so."""

    bound_by: str = ""


@dataclass
class GroupTotal:
    """What a group of components takes, leakage included."""

    energy_pJ: float = 0.0
    busy_ns: float | None = None
    """Of its busiest component; None where no time is told."""

    area_um2: float | None = None


def group_of(component: str) -> str:
    """Return the group of a component.

    >>> group_of("tile.bitlines"), group_of("tile.pcu"), group_of("sfu.qu"), group_of("abacus")
    ('Tile array', 'PCUs', 'SFU', 'Other')
    """
    return next((group for start, group in _GROUP_OF_BEGINNING.items() if component.startswith(start)), "Other")


def spent_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of an inference by simulate, if it was run, else by estimate; area is not among them."""
    spent = [row for row in rows if row.phase == "inference" and row.action != "area"]
    engine = next((engine for engine in ENGINES if any(row.engine == engine for row in spent)), None)
    return [row for row in spent if row.engine == engine]


def by_layer(rows: Sequence[Row]) -> dict[str, LayerTotal]:
    """Return what each layer takes, of the rows that `spent_rows` gives."""
    totals: dict[str, LayerTotal] = defaultdict(LayerTotal)
    for row in rows:
        total = totals[row.layer]
        total.energy_pJ += row.energy_pJ
        if row.action == "time":
            total.bound_by = total.bound_by or row.component
            total.latency_ns = (total.latency_ns or 0.0) + row.latency_ns
    return dict(totals)


def by_group(rows: Sequence[Row], every: Sequence[Row]) -> dict[str, GroupTotal]:
    """Return what each group of components takes, of the rows that `spent_rows` gives; its area stands in *every*."""
    totals: dict[str, GroupTotal] = defaultdict(GroupTotal)
    busy: dict[str, float] = defaultdict(float)
    for row in rows:
        if row.action == "busy":
            busy[row.component] += row.busy_ns
        elif row.action not in ABOUT_TIME:
            totals[group_of(row.component)].energy_pJ += row.energy_pJ
    for component, busy_ns in busy.items():
        total = totals[group_of(component)]
        total.busy_ns = max(total.busy_ns or 0.0, busy_ns)
    areas = [row for row in every if row.action == "area"]
    for row in areas:
        if row.engine == areas[0].engine:  # whichever engines wrote it, once
            total = totals[group_of(row.component)]
            total.area_um2 = (total.area_um2 or 0.0) + row.area_um2
    return {name: totals[name] for name in GROUPS if name in totals}


def area_text(area_um2: float) -> str:
    """Return an area for people, in mm² from a thousandth of one.

    >>> area_text(310400.0), area_text(12.5)
    ('0.3104 mm²', '12.5 µm²')
    """
    if area_um2 >= UM2_PER_MM2 / 1000:
        return f"{area_um2 / UM2_PER_MM2:.4g} mm²"
    return f"{area_um2:.4g} µm²"


def interval_95(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a *share* that was counted in *n* samples.

    >>> low, high = interval_95(0.9, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    return wilson_interval(round(share * n), n)
