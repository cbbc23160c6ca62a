"""What goes wrong when a tile reads: misread counts, drawn from a given generator.

Misreads are rare, so they are drawn by skipping: the gaps between candidates are geometric at the greatest
probability of the table, and a candidate is kept with the probability of its own count relative to that. Only
candidates are ever counted anew. The result is the same as drawing every read, and depends on the generator alone.
"""

from dataclasses import dataclass

import numpy as np

from imcsim.arch.spec import Chip
from imcsim.circuit.misreads import ErrorTable, read_table
from imcsim.circuit.sensing import weighted_table
from imcsim.errors import ConfigError
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray

TABLE_SEED = 0
"""Seed of the Monte Carlo behind a table that the chip's circuit gives: a property of the chip, not of a run."""


@dataclass(frozen=True, eq=False)
class Misreads:
    """Reads that came out wrong by one."""

    vector: Array
    """(m), and so are the others."""

    column: Array
    is_n: Array
    """Whether n was misread, else k."""

    step: Array
    """-1 or +1."""

    def __len__(self) -> int:
        return len(self.vector)


def error_table(chip: Chip) -> ErrorTable | None:
    """Return how often the tiles of *chip* misread each count, or None where they read right.

    ``tile.misreads`` is none, circuit, or the path of a table; raises ConfigError for circuit without one.
    """
    tile = chip.tile
    if tile.misreads == "none":
        return None
    count_max = min(tile.count_max, tile.rows_per_access)
    if tile.misreads == "circuit":
        if chip.circuit is None:
            raise ConfigError("tile.misreads: circuit needs a chip that describes one, got none; give a table")
        return weighted_table(chip.circuit, n_cells=tile.rows_per_access, count_max=count_max, seed=TABLE_SEED)
    table = read_table(tile.misreads)
    if len(table.lower) <= count_max:
        raise ConfigError(
            f"tile.misreads: {tile.misreads}: must have a line for each count up to {count_max}, got {len(table.lower)}"
        )
    return table.clipped(count_max)


def draw_misreads(
    x: PackedVectors, w: PackedMatrix, table: ErrorTable, rng: np.random.Generator, *, reads_k: bool
) -> Misreads:
    """Draw which reads of all blocks and columns come out wrong.

    Args:
        x: Vectors as they are driven.
        w: Weights, packed with the same rows of a block.
        table: How often each count is misread, by the true count; nothing above its end is misread.
        rng: The generator.
        reads_k: Whether k is read as well as n.
    """
    lower, wrong = np.zeros(x.rows_per_access + 1), np.zeros(x.rows_per_access + 1)
    known = min(len(table.lower), len(wrong))
    lower[:known], wrong[:known] = table.lower[:known], (table.lower + table.higher)[:known]
    greatest = float(wrong.max())
    n_sides = 2 if reads_k else 1
    n_reads = x.n_vectors * x.n_blocks * w.n_columns * n_sides
    at = _candidates(n_reads, greatest, rng)
    at, side = np.divmod(at, n_sides)
    at, column = np.divmod(at, w.n_columns)  # at: which block of which vector
    count = _counts(x, w, at, column, side)
    draw = rng.random(len(count)) * greatest
    kept = draw < wrong[count]
    step = np.where(draw < lower[count], -1, 1)
    return Misreads(at[kept] // x.n_blocks, column[kept], side[kept] == 0, step[kept])


def _candidates(n_reads: int, probability: float, rng: np.random.Generator) -> Array:
    """Return which of *n_reads* reads are candidates, each with *probability*, ascending."""
    if probability <= 0 or n_reads == 0:
        return np.zeros(0, np.int64)
    found = []
    last = -1
    while last < n_reads:
        expected = (n_reads - last) * probability
        gaps = rng.geometric(probability, int(expected + 4 * np.sqrt(expected) + 16))
        places = last + np.cumsum(gaps)
        found.append(places)
        last = int(places[-1])
    places = np.concatenate(found)
    return places[places < n_reads]


def _counts(x: PackedVectors, w: PackedMatrix, at: Array, column: Array, side: Array) -> Array:
    """Return n (side 0) or k (side 1) of single reads; *at* counts the blocks of all vectors."""
    inputs = _words(x.codes.reshape(-1, x.quads_per_block))
    weights = _words(w.codes.reshape(w.n_blocks, w.quads_per_block, w.n_columns).swapaxes(1, 2).copy())
    low = weights.dtype.type(int.from_bytes(b"\x0f" * weights.itemsize, "little"))
    swapped = ((weights >> weights.dtype.type(4)) & low) | ((weights & low) << weights.dtype.type(4))
    both = np.stack([weights, swapped])  # n: where the signs agree; k: where they differ
    block = at % x.n_blocks
    same = inputs[at] & both[side, block, column]
    return np.bitwise_count(same).sum(axis=-1, dtype=np.int64)


def _words(codes: Array) -> Array:
    """Join the quads along the last axis to as few words as they fill (... word)."""
    n_quads = codes.shape[-1]
    size = next(size for size in (8, 4, 2, 1) if n_quads % size == 0)
    return np.ascontiguousarray(codes).view(f"<u{size}")
