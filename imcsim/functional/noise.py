"""What goes wrong when a tile reads: reads that miss their level by noise or a misread, drawn from a given generator.

Where that is rare it is drawn by skipping: the gaps between candidates are geometric at the greatest probability of all
reads, and a candidate is kept with the probability of its own count relative to that. Only candidates are ever counted
anew. The result is the same as drawing every read, and depends on the generator alone.
"""

from dataclasses import dataclass

import numpy as np

from imcsim.arch.spec import Chip
from imcsim.circuit.misreads import ErrorTable, read_table
from imcsim.circuit.sensing import weighted_table
from imcsim.errors import ConfigError
from imcsim.functional.adcs import Adcs
from imcsim.functional.kernels import keep_wrong
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray

TABLE_SEED = 0
"""Seed of the Monte Carlo behind a table that the chip's circuit gives: a property of the chip, not of a run."""

CANDIDATES_AT_ONCE = 1 << 20
"""Candidates that are looked at together; bounds the memory."""


@dataclass(frozen=True, eq=False)
class Misreads:
    """Reads that came out other than their level."""

    vector: Array
    """(m), and so are the others."""

    column: Array
    is_n: Array
    """Whether n was misread, else k."""

    step: Array
    """What was read less the level."""

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
    x: PackedVectors,
    w: PackedMatrix,
    adcs: Adcs,
    rng: np.random.Generator,
    *,
    column: Array | None = None,
    side: Array | None = None,
    reads_k: bool = True,
) -> Misreads:
    """Draw which reads of all blocks come out other than their level.

    Args:
        x: Vectors as they are driven.
        w: Weights, packed with the same rows of a block.
        adcs: How the columns are read.
        rng: The generator.
        column: Column of each pair (column, side) that is drawn; all of them by default.
        side: Side of each pair: 0 for n, 1 for k.
        reads_k: Whether k is read as well as n, where no pairs are given.
    """
    if column is None or side is None:
        n_sides = 2 if reads_k else 1
        column, side = np.divmod(np.arange(w.n_columns * n_sides), n_sides)
    row = column if adcs.gain.shape[1] > 1 else np.zeros_like(column)  # where all columns are read alike
    greatest = float(adcs.wrong[side, row].max(initial=0))
    reads_of_vector = x.n_blocks * len(column)
    at_once = max(1, int(CANDIDATES_AT_ONCE / max(1e-300, reads_of_vector * greatest)))
    found = [
        _drawn(x[start : start + at_once], w, adcs, rng, start, column, side, row, greatest)
        for start in range(0, x.n_vectors if reads_of_vector and greatest else 0, at_once)
    ]
    parts = zip(*found, strict=True) if found else [[np.zeros(0, np.int64)]] * 4
    vector, at_column, at_side, step = (np.concatenate(list(part)) for part in parts)
    return Misreads(vector, at_column, at_side == 0, step)


def _drawn(
    x: PackedVectors,
    w: PackedMatrix,
    adcs: Adcs,
    rng: np.random.Generator,
    start: int,
    column: Array,
    side: Array,
    row: Array,
    greatest: float,
) -> tuple[Array, Array, Array, Array]:
    """Return vector, counted from -*start*, column, side and step of each wrong read."""
    at = _candidates(x.n_vectors * x.n_blocks * len(column), greatest, rng)
    draw = rng.random(len(at)) * greatest
    count = keep_wrong(x, w, at, (column, side, row), draw, adcs.wrong)
    kept = count >= 0
    count, draw = count[kept], draw[kept]
    at, pair = np.divmod(at[kept], len(column))  # at: which block of which vector
    where = (side[pair], row[pair], count)
    noisy = sum(part[where] for part in adcs.noise)
    lower, higher = (part[count] for part in adcs.misreads)
    is_noisy = draw < noisy
    step = np.zeros(len(count), np.int64)
    misread = np.where(draw - noisy < (1 - noisy) * lower, -1, 1)
    if adcs.noise_counts > 0:
        step = np.where(is_noisy, adcs.moved_by_noise(*where, draw), 0)
        again = rng.random(len(count)) if adcs.table is not None else np.ones(len(count))
        misread_too = np.where(again < lower, -1, np.where(again < lower + higher, 1, 0))
        misread = np.where(is_noisy, misread_too, misread)
    level = adcs.levels[where]
    step = np.clip(level + step + misread, 0, adcs.count_max) - level
    moved = step != 0
    return start + at[moved] // x.n_blocks, column[pair[moved]], side[pair[moved]], step[moved]


def _candidates(n_reads: int, probability: float, rng: np.random.Generator) -> Array:
    """Return which of *n_reads* reads are candidates, each with *probability*, ascending."""
    if probability <= 0 or n_reads == 0:
        return np.zeros(0, np.int64)
    found = []
    last = -1
    rate = -np.log1p(-probability) if probability < 1 else np.inf  # the whole part of an exponential is geometric
    while last < n_reads:
        expected = (n_reads - last) * probability
        waits = rng.standard_exponential(int(expected + 4 * np.sqrt(expected) + 16)) / rate
        gaps = 1 + np.minimum(waits, n_reads).astype(np.int64)
        places = last + np.cumsum(gaps)
        found.append(places)
        last = int(places[-1])
    places = np.concatenate(found)
    return places[places < n_reads]
