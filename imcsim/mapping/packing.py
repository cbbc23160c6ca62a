"""Shards and the tiles that they fill, rectangle by rectangle."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace
from itertools import pairwise
from typing import NamedTuple

from imcsim.arch.spec import Chip, Tile
from imcsim.mapping.plan import LayerPlan, Shard


@dataclass(frozen=True)
class Split:
    """How a layer is cut: a policy's answer."""

    n_row_chunks: int
    n_replicas: int


class Free(NamedTuple):
    """A free rectangle of a tile, in blocks and columns."""

    block: int
    column: int
    n_blocks: int
    n_columns: int


class Tiles:
    """Tiles that fill up, rectangle by rectangle."""

    def __init__(self, chip: Chip) -> None:
        tile = chip.tile
        self.rows_per_access = tile.rows_per_access
        self.free = [[Free(0, 0, tile.n_blocks, tile.n_columns)] for _ in range(chip.n_tiles)]
        self.load = [0] * chip.n_tiles

    def copy(self) -> "Tiles":
        """Return tiles that are filled alike, to try something on."""
        copy = object.__new__(Tiles)
        copy.rows_per_access = self.rows_per_access
        copy.free, copy.load = [list(free) for free in self.free], list(self.load)
        return copy

    def put(
        self, shard: Shard, load_of_layer: dict[int, int], work: int = 1, most: float | None = None
    ) -> Shard | None:
        """Place *shard* in the tile that this layer burdens least; None where it fits nowhere.

        *work* is what each of its blocks burdens a tile with, *most* the burden that a tile may come to.
        """
        found = self.take(shard.n_blocks(self.rows_per_access), shard.n_columns, load_of_layer, work, most)
        if found is None:
            return None
        tile, space = found
        return replace(shard, tile=tile, block=space.block, column=space.column)

    def take(
        self,
        n_blocks: int,
        n_columns: int,
        load_of_layer: dict[int, int],
        work: int = 1,
        most: float | None = None,
    ) -> tuple[int, Free] | None:
        """Fill a rectangle in the tile that this layer burdens least; return the tile and the space it was taken of."""
        best: tuple[tuple[int, int], int, int] | None = None
        for tile in range(len(self.free)):
            key = (load_of_layer[tile], self.load[tile])
            if best is not None and key >= best[0]:
                continue
            if most is not None and self.load[tile] + n_blocks * work > most:
                continue
            found = self._tightest(tile, n_blocks, n_columns)
            if found >= 0:
                best = (key, tile, found)
        if best is None:
            return None
        _, tile, i = best
        load_of_layer[tile] += n_blocks
        return tile, self._cut(tile, i, n_blocks, n_columns, work)

    def fill(self, sizes: list[tuple[int, int]]) -> bool:
        """Fill the rectangles of one layer, of *sizes* in blocks and columns, as `take` does one after the other.

        Return whether all of them find room.
        """
        # NOTE: for speed. Burdens grow and free rectangles shrink, so of the tiles in a heap those whose burden has
        # grown go back into it, and those without room for a size have none for it any more.
        load_of_layer = [0] * len(self.free)
        in_order: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for size in sizes:
            heap = in_order.get(size)
            if heap is None:
                heap = in_order[size] = [(load_of_layer[tile], load, tile) for tile, load in enumerate(self.load)]
                heapify(heap)
            while heap:
                *burden, tile = heap[0]
                if burden != [load_of_layer[tile], self.load[tile]]:
                    heapreplace(heap, (load_of_layer[tile], self.load[tile], tile))
                elif (found := self._tightest(tile, *size)) < 0:
                    heappop(heap)
                else:
                    self._cut(tile, found, *size, 1)
                    load_of_layer[tile] += size[0]
                    break
            else:
                return False
        return True

    def _tightest(self, tile: int, n_blocks: int, n_columns: int) -> int:
        """Return which free rectangle of a tile has least to spare for one of this size; -1 where none has room."""
        least, found = 0, -1
        for i, space in enumerate(self.free[tile]):
            if space.n_blocks >= n_blocks and space.n_columns >= n_columns:
                size = space.n_blocks * space.n_columns
                if found < 0 or size < least:
                    least, found = size, i
        return found

    def _cut(self, tile: int, i: int, n_blocks: int, n_columns: int, work: int) -> Free:
        """Fill a corner of the *i*-th free rectangle of a tile; return the rectangle as it was."""
        space = self.free[tile].pop(i)
        if space.n_blocks > n_blocks:  # below
            self.free[tile].append(
                Free(space.block + n_blocks, space.column, space.n_blocks - n_blocks, space.n_columns)
            )
        if space.n_columns > n_columns:  # beside
            self.free[tile].append(Free(space.block, space.column + n_columns, n_blocks, space.n_columns - n_columns))
        self.load[tile] += n_blocks * work
        return space


def segments(layer: LayerPlan, tile: Tile) -> list[tuple[int, int]]:
    """Columns of each segment: all planes of as many outputs as a tile holds side by side."""
    width = tile.n_columns // layer.n_weight_planes * layer.n_weight_planes
    return [(start, min(start + width, layer.n_columns)) for start in range(0, layer.n_columns, width)]


def chunks(layer: LayerPlan, n_chunks: int, tile: Tile) -> list[tuple[int, int, tuple[int, ...]]]:
    """Rows of each chunk, and how they fall into input groups: whole blocks, as even as they can be."""
    n_blocks = layer.n_blocks(tile.rows_per_access)
    cuts = [i * n_blocks // n_chunks for i in range(n_chunks)] + [n_blocks]
    if not layer.row_groups:
        rows = [cut * tile.rows_per_access for cut in cuts[:-1]] + [layer.n_rows]
        return [(start, stop, ()) for start, stop in pairwise(rows)]
    blocks = [  # input group and rows of each
        (group, min(tile.rows_per_access, n_rows - start))
        for group, n_rows in enumerate(layer.row_groups)
        for start in range(0, n_rows, tile.rows_per_access)
    ]
    found, row = [], 0
    for first, last in pairwise(cuts):
        sizes: Counter[int] = Counter()
        for group, n_rows in blocks[first:last]:
            sizes[group] += n_rows
        found.append((row, row + sizes.total(), tuple(sizes.values())))
        row += sizes.total()
    return found


def shards_of(layer: LayerPlan, split: Split, tile: Tile) -> Iterator[list[Shard]]:
    """Yield the shards that add up to the same outputs, all copies: they belong into one round."""
    for group in range(layer.n_groups * layer.n_experts):
        for column_start, column_stop in segments(layer, tile):
            yield [
                Shard(layer.name, group, replica, start, stop, column_start, column_stop, -1, -1, -1, row_groups)
                for replica in range(split.n_replicas)
                for start, stop, row_groups in chunks(layer, split.n_row_chunks, tile)
            ]


def accesses_of_block(layer: LayerPlan, split: Split) -> int:
    """How often one block is accessed in one inference, in the copy that takes most vectors."""
    n_together = max(1, layer.n_steps)
    vectors = -(-layer.n_vectors // n_together // split.n_replicas) * n_together
    return vectors * layer.n_passes * layer.accesses_per_pass


def stays_together(layer: LayerPlan, chip: Chip) -> bool:
    """Whether *layer* must lie within one bank.

    A recurrent one must; one that is gathered does, where each shard of a single copy may have a tile of its own there.
    """
    tile = chip.tile
    n_chunks = -(-layer.n_blocks(tile.rows_per_access) // tile.n_blocks)
    n_shards = layer.n_groups * layer.n_experts * n_chunks * len(segments(layer, tile))
    return layer.n_steps > 0 or (layer.is_gathered and n_shards <= chip.n_tiles)


def n_banks_for(layer: LayerPlan, chip: Chip) -> int:
    """Return into how many banks *layer* may be dealt out."""
    return 1 if stays_together(layer, chip) else chip.all_banks


class RelativeRound(NamedTuple):
    """A round wherever it may begin."""

    shards: tuple[Shard, ...]
    """Their tiles are counted from the one of their bank that the round begins at."""

    tiles: tuple[int, ...]
    """The tiles in use, counted likewise, those of all banks together."""

    goes_on: bool
    """Whether it goes on with the outputs of the round before, beginning at the same tile, or behind its tiles."""
