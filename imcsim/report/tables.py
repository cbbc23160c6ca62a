"""Tables from rows: what each layer and each component takes. Every total is a sum of rows.

A component of the chip (`tile.bitlines`) belongs to a group (Tile array), so that a figure has a dozen colours and not
thirty. The functions take the table of all rows of a run; where it holds rows of two engines they use those of
`main_engine`, unless told which.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd

from imcsim.arch.spec import BASES
from imcsim.report.load import LayerSummary
from imcsim.report.totals import ABOUT_TIME, ENGINES, GROUPS, group_of


def main_engine(frame: pd.DataFrame) -> str | None:
    """Return the engine whose rows a report shows: simulate, if it was run, else estimate; None without either."""
    spent = frame[(frame.phase == "inference") & (frame.action != "area")]
    return next((engine for engine in ENGINES if (spent.engine == engine).any()), None)


def rows_of(frame: pd.DataFrame, engine: str | None = None, *, phase: str = "inference") -> pd.DataFrame:
    """Return the rows of one *phase* and one engine, `main_engine` by default; area is not among them."""
    engine = engine or main_engine(frame)
    return frame[(frame.engine == engine) & (frame.phase == phase) & (frame.action != "area")]


def layers_of(frame: pd.DataFrame, engine: str | None = None) -> list[str]:
    """Return the layers in the order of the rows."""
    return list(dict.fromkeys(rows_of(frame, engine).layer))


def energy_by_layer(frame: pd.DataFrame, engine: str | None = None, *, phase: str = "inference") -> pd.DataFrame:
    """Return the energy in pJ: a line a layer, a column a group that spends any; leakage is a group of its own."""
    rows = rows_of(frame, engine, phase=phase)
    group = rows.component.map(group_of).where(rows.action != "leak", "Leakage")
    table = rows.assign(group=group).pivot_table(
        index="layer", columns="group", values="energy_pJ", aggfunc="sum", fill_value=0.0, sort=False
    )
    spent = [name for name in GROUPS if name in table.columns and table[name].any()]
    table = table.reindex(index=list(dict.fromkeys(rows.layer)), columns=spent, fill_value=0.0).astype(float)
    return table.rename_axis(index="layer", columns=None)


def energy_by_component(frame: pd.DataFrame, engine: str | None = None) -> pd.DataFrame:
    """Return for each component with a cost: group, actions_pJ, leak_pJ, energy_pJ (the sum), share; greatest first."""
    rows = rows_of(frame, engine)
    rows = rows[~rows.action.isin(ABOUT_TIME)]
    leaks = rows.action == "leak"
    table = pd.DataFrame(
        {
            "actions_pJ": rows.energy_pJ.where(~leaks, 0.0).groupby(rows.component, sort=False).sum(),
            "leak_pJ": rows.energy_pJ.where(leaks, 0.0).groupby(rows.component, sort=False).sum(),
        },
        dtype=float,
    )
    table["energy_pJ"] = table.actions_pJ + table.leak_pJ
    table["share"] = shares(table.energy_pJ)
    table.insert(0, "group", [group_of(name) for name in table.index])
    return table.rename_axis("component").sort_values("energy_pJ", ascending=False, kind="stable")


def latency_by_layer(frame: pd.DataFrame, engine: str | None = None) -> pd.DataFrame:
    """Return for each layer: latency_ns that it adds, share, bound_by (a component), its group, and bound_busy_ns.

    bound_busy_ns is how long the busiest unit of that component works for the layer. Where that is much less than the
    latency, the time goes into waiting for first results, and not into throughput.
    """
    rows = rows_of(frame, engine)
    busy = rows[rows.action == "busy"].groupby(["layer", "component"], sort=False).busy_ns.sum()
    rows = rows[rows.action == "time"]
    table = rows.groupby("layer", sort=False).agg(latency_ns=("latency_ns", "sum"), bound_by=("component", "first"))
    table.insert(1, "share", shares(table.latency_ns))
    table["group"] = [group_of(name) for name in table.bound_by]
    table["bound_busy_ns"] = [float(busy.get(key, 0.0)) for key in zip(table.index, table.bound_by, strict=True)]
    return table


def latency_by_bound(frame: pd.DataFrame, engine: str | None = None) -> pd.DataFrame:
    """Return for each component that bounds a layer: latency_ns of those layers, share, n_layers; greatest first."""
    layers = latency_by_layer(frame, engine)
    table = layers.groupby("bound_by", sort=False).agg(latency_ns=("latency_ns", "sum"), n_layers=("share", "size"))
    table.insert(1, "share", shares(table.latency_ns))
    return table.sort_values("latency_ns", ascending=False, kind="stable")


def utilization(frame: pd.DataFrame, engine: str | None = None) -> pd.DataFrame:
    """Return for each component: group, busy_ns of its busiest unit, and utilization, busy_ns of the latency."""
    rows = rows_of(frame, engine)
    busy = rows[rows.action == "busy"].groupby("component", sort=False).busy_ns.sum()
    latency_ns = float(rows.latency_ns.sum())
    table = pd.DataFrame({"group": [group_of(name) for name in busy.index], "busy_ns": busy})
    table["utilization"] = table.busy_ns / latency_ns if latency_ns else 0.0
    return table.rename_axis("component").sort_values("busy_ns", ascending=False, kind="stable")


def area_by_component(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each component of the chip: group, n_instances, area_um2, share, basis, source; greatest first."""
    rows = _area_rows(frame)
    table = rows.groupby("component", sort=False).agg(
        n_instances=("count", "sum"),
        area_um2=("area_um2", "sum"),
        basis=("basis", "first"),
        source=("source", "first"),
    )
    table.insert(0, "group", [group_of(name) for name in table.index])
    table.insert(3, "share", shares(table.area_um2))
    return table.sort_values("area_um2", ascending=False, kind="stable")


def basis_shares(frame: pd.DataFrame, engine: str | None = None) -> pd.DataFrame:
    """Return how well energy and area are known: a line a basis, columns energy and area, shares of 1."""
    spent, area = rows_of(frame, engine), _area_rows(frame)
    return pd.DataFrame(
        {
            "energy": shares(spent.groupby("basis").energy_pJ.sum().reindex(list(BASES), fill_value=0.0)),
            "area": shares(area.groupby("basis").area_um2.sum().reindex(list(BASES), fill_value=0.0)),
        },
        dtype=float,
    ).rename_axis("basis")


def cost_sources(frame: pd.DataFrame, engine: str | None = None) -> pd.DataFrame:
    """Return every cost that the energy rests on, leakage apart: component, action, count, energies, basis, source."""
    rows = rows_of(frame, engine)
    rows = rows[~rows.action.isin((*ABOUT_TIME, "leak"))]
    table = rows.groupby(["component", "action", "basis", "source"], sort=False, as_index=False).agg(
        count=("count", "sum"), energy_pJ=("energy_pJ", "sum")
    )
    table["energy_pJ_per_action"] = table.energy_pJ / table["count"].where(table["count"] > 0, 1)
    table["share"] = table.energy_pJ / (rows_of(frame, engine).energy_pJ.sum() or 1.0)
    columns = ["component", "action", "energy_pJ_per_action", "count", "energy_pJ", "share", "basis", "source"]
    return table[columns].sort_values("energy_pJ", ascending=False, kind="stable", ignore_index=True)


def engines_compared(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each layer the latency by each engine, in ns, and ratio: the estimate by the simulation."""
    table = pd.DataFrame({engine: latency_by_layer(frame, engine).latency_ns for engine in ENGINES})
    table = table.reindex(layers_of(frame, "simulate")).astype(float)
    return table.assign(ratio=table.estimate / table.simulate.where(table.simulate > 0)).rename_axis("layer")


def clipping_by_layer(layers: Sequence[LayerSummary]) -> pd.DataFrame:
    """Return for each layer that was executed on tiles: n_accesses, n_clipped_accesses, share; conversions likewise;
    idle_share, NaN in a summary of an earlier version.
    """
    executed = [layer for layer in layers if layer.n_clipped_accesses is not None and layer.n_accesses]
    table = pd.DataFrame(
        {
            "n_accesses": [layer.n_accesses for layer in executed],
            "n_clipped_accesses": [layer.n_clipped_accesses for layer in executed],
            "n_conversions": [layer.n_conversions or 0 for layer in executed],
            "n_clipped_conversions": [layer.n_clipped_conversions or 0 for layer in executed],
            "idle_share": [_idle_share(layer) for layer in executed],
        },
        index=pd.Index([layer.name for layer in executed], name="layer", dtype=object),
    )
    table.insert(2, "share", (table.n_clipped_accesses / table.n_accesses).astype(float))
    return table


def _idle_share(layer: LayerSummary) -> float:
    return nan if layer.n_idle_accesses is None or not layer.n_accesses else layer.n_idle_accesses / layer.n_accesses


MOST_LAYERS = 64
"""So many layers a figure shows one by one."""


def limited(table: pd.DataFrame, most: int = MOST_LAYERS, *, total: bool = True) -> pd.DataFrame:
    """Return *table* with its *most* greatest lines in their order, and the sum of the others in a last line.

    With *total* false the others are left out: shares of different wholes have no sum.
    """
    if len(table) <= most:
        return table
    size = table.sum(axis=1)
    n_kept = most - 1 if total else most
    kept = size.sort_values(ascending=False, kind="stable").index[:n_kept]
    is_kept = table.index.isin(kept)
    shown = table[is_kept]
    if total:
        shown.loc[f"{(~is_kept).sum()} smaller layers"] = table[~is_kept].sum()
    return shown


def shares(values: pd.Series) -> pd.Series:
    """Return *values* as shares of their sum; zeros when there is nothing to share."""
    total = values.sum()
    return values / total if total else values * 0.0


# Timelines


@dataclass(frozen=True, eq=False)
class Timeline:
    """Spans as the bars of a Gantt chart: one lane a shared unit, one lane a tile, or several tiles where many."""

    lanes: tuple[str, ...]
    """Names, from the top; lanes of tiles come first."""

    utilizations: tuple[float, ...]
    """For each lane, how much of the latency its units work, the mean of units (of a tile: of its array)."""

    n_tile_lanes: int
    tiles_per_lane: int
    layers: tuple[str, ...]
    """In the order of their first start."""

    bars: pd.DataFrame
    """lane (number), stage, layer, start_ns, end_ns, busy (share of the time), n_tasks."""

    latency_ns: float

    @property
    def converters(self) -> str:
        """What serves the columns of the tiles, for captions."""
        return "NMC units" if "nmc" in set(self.bars.stage) else "PCUs"

    @property
    def heights(self) -> list[float]:
        """Height of each lane: many tiles are drawn low, as they mostly do the same."""
        tile = 1.0 if self.n_tile_lanes > 12 else 2.0
        return [tile if i < self.n_tile_lanes else 2.0 for i in range(len(self.lanes))]

    @property
    def tops(self) -> list[float]:
        """Where each lane begins, from the top; what is shared stands a little apart from the tiles."""
        tops, top = [], 0.0
        for i, height in enumerate(self.heights):
            top += 1.0 if i == self.n_tile_lanes > 0 else 0.0
            tops.append(top)
            top += height
        return tops


CONVERTERS = ("pcu", "nmc")
"""Stages of the units that serve the columns of a tile."""

EXTENT_OF_STAGE = {"array": (0.06, 0.54), "write": (0.22, 0.38), "unit": (0.1, 0.9)} | dict.fromkeys(
    CONVERTERS, (0.54, 0.94)
)
"""From where to where, of the height of its lane, a bar of a timeline reaches."""


def solidity(stage: str, busy: float) -> float:
    """Return the opacity of a bar that works for a share *busy* of its time; what hardly works can still be seen."""
    return (0.3 + 0.7 * busy) * (0.65 if stage in CONVERTERS else 1.0)


_FINEST = 2500
"""Into how many steps a timeline divides the latency: about the pixels of a printed page."""

MOST_TILE_LANES = 64


def timeline(spans: pd.DataFrame) -> Timeline:
    """Return *spans* as lanes of bars.

    Bars of one lane, stage and layer that touch, or that lie closer than anyone can see, become one. Stages are
    ``array``, ``write`` and ``pcu`` or ``nmc`` of a tile, and ``unit`` for what all tiles share.
    """
    latency_ns = float(spans.end_ns.max()) if len(spans) else 0.0
    parts = spans.unit.str.extract(r"^tile(?P<tile>\d+)(?:\.(?P<part>.*))?$")
    of_tile = parts.tile.notna()
    tile = parts.tile[of_tile].astype(int)
    tiles = sorted(set(tile))
    per_lane = -(-len(tiles) // MOST_TILE_LANES) or 1
    lane_of_tile = {number: i // per_lane for i, number in enumerate(tiles)}
    lanes = [_tiles_name(tiles[i : i + per_lane]) for i in range(0, len(tiles), per_lane)]
    shared = sorted(set(spans.unit[~of_tile]), key=_place_of_unit)
    lane_of_unit = {unit: len(lanes) + i for i, unit in enumerate(shared)}

    lane = pd.Series(0, index=spans.index)
    lane[of_tile] = tile.map(lane_of_tile)
    lane[~of_tile] = spans.unit[~of_tile].map(lane_of_unit)
    stage = pd.Series("unit", index=spans.index, dtype=object)
    stage[of_tile] = parts.part[of_tile].fillna("array").where(parts.part[of_tile].isin(CONVERTERS), "array")
    stage[of_tile & spans.component.str.startswith("tile.write")] = "write"

    n_units = dict.fromkeys(lane_of_unit.values(), 1)
    for i in lane_of_tile.values():
        n_units[i] = n_units.get(i, 0) + 1
    busy = spans.busy_ns.where(~stage.isin(CONVERTERS), 0.0).groupby(lane).sum()
    utilizations = [
        float(busy.get(i, 0.0)) / (n_units[i] * latency_ns) if latency_ns else 0.0
        for i in range(len(lanes) + len(shared))
    ]
    return Timeline(
        lanes=(*lanes, *shared),
        utilizations=tuple(utilizations),
        n_tile_lanes=len(lanes),
        tiles_per_lane=per_lane,
        layers=tuple(dict.fromkeys(spans.sort_values("start_ns", kind="stable").layer)),
        bars=_merged(spans.assign(lane=lane, stage=stage), latency_ns / _FINEST),
        latency_ns=latency_ns,
    )


def _tiles_name(tiles: Sequence[int]) -> str:
    return f"tile {tiles[0]}" if len(tiles) == 1 else f"tiles {tiles[0]}-{tiles[-1]}"


def _place_of_unit(unit: str) -> tuple[int, str]:
    return GROUPS.index(group_of(unit)), unit


def _merged(spans: pd.DataFrame, gap_ns: float) -> pd.DataFrame:
    """Return one line for all spans of a lane, stage and layer that lie no further than *gap_ns* apart."""
    keys = ["lane", "stage", "layer"]
    spans = spans.sort_values([*keys, "start_ns"], kind="stable")
    until = spans.groupby(keys, sort=False).end_ns.cummax().shift()
    new = (spans[keys] != spans[keys].shift()).any(axis=1) | (spans.start_ns > until + gap_ns)
    bars = spans.groupby(new.cumsum(), sort=False).agg(
        lane=("lane", "first"),
        stage=("stage", "first"),
        layer=("layer", "first"),
        start_ns=("start_ns", "min"),
        end_ns=("end_ns", "max"),
        busy_ns=("busy_ns", "sum"),
        n_units=("unit", "nunique"),
        n_tasks=("task", "size"),
    )
    length = (bars.end_ns - bars.start_ns) * bars.n_units
    bars["busy"] = np.where(length > 0, bars.busy_ns / length.where(length > 0, 1.0), 1.0).clip(0.0, 1.0)
    return bars.reset_index(drop=True)


def _area_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the area of every component once, whichever engines wrote it."""
    rows = frame[frame.action == "area"]
    return rows[rows.engine == rows.engine.iloc[0]] if len(rows) else rows
