"""Weights as one instance of a chip holds them: every copy of a layer in cells and behind ADCs of its own.

A layer that is cut into shards has, in every copy, other tiles for other blocks of its rows (a *strip*), and within a
strip other ADCs for other columns. A temporal plan writes round after round into the same cells, which are wrong in the
same places each time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from weakref import WeakKeyDictionary, ref

import numpy as np

from imcsim.arch.spec import Tile
from imcsim.circuit.misreads import ErrorTable
from imcsim.functional.adcs import Adcs
from imcsim.functional.conversions import Conductances
from imcsim.functional.instance import FREE, ChipInstance
from imcsim.graph import Op
from imcsim.mapping.plan import LayerPlan, Plan, Shard
from imcsim.ternary.packing import ROWS_PER_QUAD, PackedMatrix, n_blocks_of, pack_matrix, polarities, quads_of

Array = np.ndarray

KEPT_BYTES = 1 << 30
"""Conductances of a plan are kept from batch to batch up to this size, and put together anew beyond it."""


@dataclass(frozen=True, eq=False)
class Strip:
    """Blocks of a layer that lie in the same tiles."""

    first_block: int
    last_block: int
    """The block behind the last one."""

    adcs: Adcs


@dataclass(frozen=True, eq=False)
class Copy:
    """One copy of the weights of one group."""

    weights: PackedMatrix | Conductances
    strips: tuple[Strip, ...] = ()
    """Ascending, all blocks together; empty where every ADC of the chip is ideal."""


@dataclass(frozen=True, eq=False)
class Copies:
    """All copies of the weights of one group."""

    copies: tuple[Copy, ...]
    """In the order of the replicas; those that are read alike are one and the same object."""


class PlacedWeights:
    """The weights of the layers of a plan, each a list of groups; put together layer by layer when first asked for."""

    def __init__(self, plan: Plan, instance: ChipInstance, table: ErrorTable | None) -> None:
        self.instance, self.table = instance, table
        self._plan = ref(plan)  # they are kept as long as the plan lives, and must not keep it alive
        self._stuck_cells = cache(partial(instance.stuck_cells, plan.chip.tile))
        self._adcs = cache(partial(instance.adcs, plan.chip.tile))
        self._devices = cache(partial(instance.devices, plan.chip.tile))
        self._layers: dict[str, list[Copies]] = {}
        bytes_of_cell = 8 if plan.chip.tile.resistive is not None else 1
        self._keeps = plan.n_cells * bytes_of_cell <= KEPT_BYTES

    @property
    def plan(self) -> Plan:
        """The plan, which whoever asks for its weights still has."""
        plan = self._plan()
        assert plan is not None
        return plan

    def __getitem__(self, name: str) -> list[Copies]:
        if name in self._layers:
            return self._layers[name]
        layer = next(layer for layer in self.plan.layers if layer.name == name)
        matrices = matrices_of(self.plan.op_of[name])
        copies_of_group = [self._copies(layer, group, matrix) for group, matrix in enumerate(matrices)]
        if self._keeps:
            self._layers[name] = copies_of_group
        return copies_of_group

    def _copies(self, layer: LayerPlan, group: int, matrix: Array) -> Copies:
        shards_of = defaultdict(list)
        for round_ in layer.rounds:
            for shard in round_.shards:
                if shard.group == group:
                    shards_of[shard.replica].append(shard)
        copies: list[Copy] = []
        for replica in range(layer.n_replicas):
            copy = self._copy(layer, shards_of[replica], matrix)
            copies.append(next((other for other in copies if _are_alike(copy, other)), copy))
        return Copies(tuple(copies))

    def _copy(self, layer: LayerPlan, shards: Sequence[Shard], matrix: Array) -> Copy:
        spec = self.plan.chip.tile
        rows = spec.rows_per_access
        if any(spec.imperfections.stuck_probabilities):
            matrix = self._with_stuck_cells(matrix, shards)
        strips: tuple[Strip, ...] = ()
        if spec.imperfections.has_deviating_adcs:
            strips = self._strips(layer, shards, matrix.shape[1])
        if spec.resistive is not None:
            return Copy(self._conductances(matrix, shards), strips)
        if layer.sense == "n":
            return Copy(pack_matrix(polarities(matrix, axis=0), 2 * rows), strips)
        return Copy(pack_matrix(matrix, rows), strips)

    def _with_stuck_cells(self, matrix: Array, shards: Sequence[Shard]) -> Array:
        """Return *matrix* (r c) as the cells hold it."""
        held = matrix.astype(np.int8)
        for shard in shards:
            stuck = self._stuck_cells(shard.tile)[_cells_of(shard, self.plan.chip.tile)]
            part = held[_part_of(shard)]  # a view
            np.copyto(part, stuck, where=stuck != FREE)
        return held

    def _strips(self, layer: LayerPlan, shards: Sequence[Shard], n_columns: int) -> tuple[Strip, ...]:
        spec = self.plan.chip.tile
        greatest = spec.rows_per_access * (2 if layer.sense == "n" else 1)  # as `polarities` are packed
        shards_of = defaultdict(list)
        for shard in shards:
            shards_of[shard.row_start].append(shard)
        strips = []
        for row_start, beside in sorted(shards_of.items()):
            gain, offset = np.ones((2, n_columns)), np.zeros((2, n_columns))
            for shard in beside:
                gains, offsets = self._adcs(shard.tile)
                pcus = (shard.column + np.arange(shard.n_columns)) // spec.columns_per_pcu
                columns = slice(shard.column_start, shard.column_stop)
                gain[:, columns], offset[:, columns] = gains[:, pcus], offsets[:, pcus]
            first = row_start // spec.rows_per_access
            last = first + beside[0].n_blocks(spec.rows_per_access)
            noise_counts = spec.imperfections.read_noise_counts
            adcs = Adcs(gain, offset, spec.count_max, greatest, noise_counts, self.table)
            strips.append(Strip(first, last, adcs))
        return tuple(strips)

    def _conductances(self, matrix: Array, shards: Sequence[Shard]) -> Conductances:
        """Return what the devices of a *matrix* (r c) conduct, its rows in the places of quads."""
        spec = self.plan.chip.tile
        assert spec.resistive is not None
        off = np.float32(1 / spec.resistive.on_off_ratio if spec.resistive.on_off_ratio is not None else 0)
        n_rows, n_columns = matrix.shape
        relative = np.zeros((2, n_rows, n_columns), np.float32)
        for shard in shards:
            relative[:, *_part_of(shard)] = self._devices(shard.tile)[:, *_cells_of(shard, spec)]
        relative[0] *= np.where(matrix > 0, np.float32(1), off)
        relative[1] *= np.where(matrix < 0, np.float32(1), off)
        plus, minus = (_in_places_of_quads(part, spec.rows_per_access) for part in relative)
        return Conductances(plus, minus, n_rows, spec.rows_per_access)


_PLACED: "WeakKeyDictionary[Plan, PlacedWeights]" = WeakKeyDictionary()


def placed_weights(plan: Plan, instance: ChipInstance, table: ErrorTable | None) -> PlacedWeights:
    """Return the weights of *plan* in an *instance* of its chip, whose ADCs misread as *table* says.

    Of the last instance they are kept.
    """
    kept = _PLACED.get(plan)
    if kept is None or kept.instance != instance:
        kept = _PLACED[plan] = PlacedWeights(plan, instance, table)
    return kept


def matrices_of(op: Op) -> list[Array]:
    """Return the weights of each group (r, c * j), the planes of an output side by side."""
    assert op.product is not None
    matrix = op.product.matrix.transpose(1, 2, 3, 0)  # j g r c -> g r c j
    return [group.reshape(group.shape[0], -1) for group in matrix]


def _are_alike(copy: Copy, other: Copy) -> bool:
    """Whether two copies are read alike, as those that no stuck cell has hit."""
    if copy.strips or not isinstance(copy.weights, PackedMatrix) or not isinstance(other.weights, PackedMatrix):
        return False
    return np.array_equal(copy.weights.codes, other.weights.codes)


def _part_of(shard: Shard) -> tuple[slice, slice]:
    """Rows and columns of the group's matrix."""
    return slice(shard.row_start, shard.row_stop), slice(shard.column_start, shard.column_stop)


def _cells_of(shard: Shard, spec: Tile) -> tuple[slice, slice]:
    """Rows and columns of the tile."""
    row = shard.block * spec.rows_per_access
    return slice(row, row + shard.n_rows), slice(shard.column, shard.column + shard.n_columns)


def _in_places_of_quads(values: Array, rows_per_access: int) -> Array:
    """Return *values* (r c) with the rows of each block filled up to whole quads."""
    n_rows, n_columns = values.shape
    n_blocks, height = n_blocks_of(n_rows, rows_per_access), quads_of(rows_per_access) * ROWS_PER_QUAD
    rows = np.zeros((n_blocks * rows_per_access, n_columns), values.dtype)
    rows[:n_rows] = values
    filled = np.zeros((n_blocks, height, n_columns), values.dtype)
    filled[:, :rows_per_access] = rows.reshape(n_blocks, rows_per_access, n_columns)
    return filled.reshape(n_blocks * height, n_columns)
