"""What goes wrong when a tile reads: reads that miss their level by noise or a misread, drawn from a given generator.

Where that is rare it is drawn by thinning (Lewis and Shedler, Naval Research Logistics Quarterly 26, 1979): a read that
is wrong with probability p is hit at least once by a Poisson process of rate -ln(1 - p). So candidates are drawn at the
greatest rate that n and k of a column can have together, given how many weights of the block are not zero, and each is
kept with the rate of its own counts relative to that. Only candidates are ever counted anew. The result is the same as
drawing every read, and depends on the generator alone: tasks of a size that no thread knows of have numbers of their
own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from imcsim.arch.spec import Chip, Circuit
from imcsim.circuit.misreads import ErrorTable, read_table
from imcsim.circuit.sensing import weighted_table
from imcsim.errors import ConfigError
from imcsim.functional.adcs import Adcs
from imcsim.functional.conversions import Sums, as_read
from imcsim.functional.drawing import exponentials, mixed, normal, uniform
from imcsim.functional.kernels import compiled, popcount, run_tasks
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray

TABLE_SEED = 0
"""Seed of the Monte Carlo behind a table that the chip's circuit gives: a property of the chip, not of a run."""

BLOCKS_PER_TASK = 1 << 16
"""Blocks of vectors that a thread goes through in one go."""

CANDIDATES_OF_A_RUN = 4096
"""Candidates that take as long as starting another run of them."""

AT_A_TIME = 256
"""Candidates that are found before the first of them is looked at."""


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
        return _table_of(chip.circuit, tile.rows_per_access, count_max)
    table = read_table(tile.misreads)
    if len(table.lower) <= count_max:
        raise ConfigError(
            f"tile.misreads: {tile.misreads}: must have a line for each count up to {count_max}, got {len(table.lower)}"
        )
    return table.clipped(count_max)


@lru_cache(maxsize=1024)
def _table_of(circuit: Circuit, n_cells: int, count_max: int) -> ErrorTable:
    """Return the table that a circuit gives; kept, as chips of a sweep share circuits and it takes a good while."""
    return weighted_table(circuit, n_cells=n_cells, count_max=count_max, seed=TABLE_SEED)


def draw_misreads(
    x: PackedVectors,
    w: PackedMatrix,
    adcs: Adcs,
    key_of: Callable[[], int],
    *,
    n_sides: int,
    sums: Sums,
    skips: bool = False,
) -> int:
    """Draw which reads of all blocks come out other than their level, change *sums* by it; return how many do.

    Columns whose ADCs are wrong too often for this (`Adcs.is_dense`) are left alone.

    Args:
        x: Vectors as they are driven.
        w: Weights, packed with the same rows of a block.
        adcs: How the columns are read.
        key_of: Gives the key to draw with; asked once, and only where something can be drawn.
        n_sides: 1 where n alone is read, 2 where k is too.
        sums: Changed in place.
        skips: Whether nothing is read where no input of a block is driven.
    """
    rare = _rare_of(w, adcs, n_sides, x.n_vectors)
    if not (x.n_vectors and len(rare.runs)):
        return 0
    cells, starts = _cells_of(w)
    chunk = max(1, BLOCKS_PER_TASK // x.n_blocks)
    n_wrong = np.zeros(-(-x.n_vectors // chunk), np.int64)
    key = np.uint64(key_of())
    words, signs = x.words(), sums.of(np.arange(2))
    drawn = rare.runs, rare.bounds, rare.rows, rare.rates, rare.reads, signs

    def draw(task: int) -> None:
        vectors = slice(task * chunk, (task + 1) * chunk)
        own_key = key + np.uint64(task * len(starts))
        n_wrong[task] = _move_all(words[vectors], skips, cells, *drawn, sums.n[vectors], sums.k[vectors], own_key)

    run_tasks(draw, len(n_wrong))
    return int(n_wrong.sum())


@dataclass(frozen=True, eq=False)
class _Rare:
    """What is known of the rare wrong reads of some weights before there are inputs."""

    adcs: Adcs
    """What it is of; kept here, so that no other has its place in memory."""

    runs: Array
    """Runs of cells (run 2): from, up to."""

    bounds: Array
    """The greatest rate of each run."""

    rows: Array
    """Row of *rates* that each column has (side c)."""

    rates: Array
    """Rate of each count (side row count); the last row is zero, for columns of which nothing is drawn."""

    reads: tuple[Any, ...]
    """How the ADCs read, as `_step` takes it."""


_RARE: "WeakKeyDictionary[PackedMatrix, dict[tuple[int, int, int], _Rare]]" = WeakKeyDictionary()
MOST_RARE = 8
"""Kept of one matrix: as many chips may be drawn around the same weights."""


def _rare_of(w: PackedMatrix, adcs: Adcs, n_sides: int, n_vectors: int) -> _Rare:
    """Return what is known before there are inputs; every batch asks for the same."""
    known = _RARE.setdefault(w, {})
    key = id(adcs), n_sides, n_vectors
    rare = known.get(key)
    if rare is None:
        if len(known) >= MOST_RARE:
            known.clear()
        rare = known[key] = _rare(w, adcs, n_sides, n_vectors)
    return rare


def _rare(w: PackedMatrix, adcs: Adcs, n_sides: int, n_vectors: int) -> _Rare:
    _, starts = _cells_of(w)
    own = np.arange(w.n_columns) if adcs.rates.shape[1] > 1 else np.zeros(w.n_columns, np.int64)
    is_drawn = ~adcs.is_dense[:, own]
    is_drawn[n_sides:] = False
    sides = np.flatnonzero(is_drawn.any(axis=1))
    classes = _classes(_bounds(adcs.rates, sides, len(starts) - 2), starts, n_vectors) if len(sides) else []
    return _Rare(
        adcs,
        runs=np.array([run[:2] for run in classes]).reshape(-1, 2),
        bounds=np.array([run[2] for run in classes]),
        rows=np.where(is_drawn, own, adcs.rates.shape[1]).astype(np.uint32),
        rates=np.append(adcs.rates, np.zeros((2, 1, adcs.rates.shape[2])), axis=1),
        reads=(adcs.wrong, *adcs.noise, *adcs.misreads, adcs.middles, adcs.noise_counts, adcs.count_max),
    )


_CELLS: "WeakKeyDictionary[PackedMatrix, tuple[Array, Array]]" = WeakKeyDictionary()


def _cells_of(w: PackedMatrix) -> tuple[Array, Array]:
    """Return the columns of all blocks, those with the fewest nonzero weights first, and where each number begins.

    One line (block, column, words of weights) each; kept as long as the weights live.
    """
    if w not in _CELLS:
        words = w.words[0]
        starts = np.zeros(32 * words.shape[2] + 2, np.int64)
        cells = np.empty((words.shape[0] * words.shape[1], 2 + words.shape[2]), np.uint32)
        _sort_cells(words, starts, cells)
        _CELLS[w] = cells, starts
    return _CELLS[w]


def _bounds(rates: Array, sides: Array, most_weights: int) -> Array:
    """Return the greatest rate of n and k of a column together, for each number of nonzero weights from 0.

    n + k is at most that number. *rates* (side row count) are those of each count; *sides* are what is drawn of them.
    """
    most = np.maximum.accumulate(rates.max(axis=1), axis=1)[sides]  # of any count up to here
    weights, last = np.arange(most_weights + 1)[:, None], rates.shape[2] - 1
    n = np.minimum(np.arange(last + 1), weights)
    return (most[0, n] + (most[1, np.minimum(weights - n, last)] if len(sides) == 2 else 0)).max(axis=1)


def _classes(bounds: Array, starts: Array, n_vectors: int) -> list[tuple[int, int, float]]:
    """Return runs of cells (from, up to) and the greatest rate of each.

    A run ends where going on with it would make more candidates than another run is worth.
    """
    classes, first = [], 0
    for number in np.flatnonzero(np.diff(starts)).tolist():
        last, next_bound = int(starts[number + 1]), bounds[min(number + 1, len(bounds) - 1)]
        more = (last - first) * n_vectors * (next_bound - bounds[number])
        if last == starts[-1] or more > CANDIDATES_OF_A_RUN:
            if bounds[number] > 0:
                classes.append((first, last, float(bounds[number])))
            first = last
    return classes


@compiled
def _sort_cells(words, starts, cells):
    n_columns, n_blocks, n_words = words.shape
    for column in range(n_columns):
        for block in range(n_blocks):
            starts[_bits_of(words[column, block]) + 1] += 1
    for number in range(1, starts.size):
        starts[number] += starts[number - 1]
    place = starts.copy()
    for block in range(n_blocks):
        for column in range(n_columns):
            number = _bits_of(words[column, block])
            line = cells[place[number]]
            line[0], line[1] = block, column
            for word in range(n_words):
                line[2 + word] = words[column, block, word]
            place[number] += 1


@compiled
def _bits_of(words):
    bits = 0
    for word in words:
        bits += popcount(word)
    return bits


@compiled
def _move_all(x, skips, cells, runs, bounds, rows, rates, reads, signs, n_sums, k_sums, key):
    """Go through the *runs* (from, up to) of cells, each with its greatest rate; return how many reads are moved."""
    n_wrong = 0
    for number in range(len(runs)):
        part, own_key = cells[runs[number, 0] : runs[number, 1]], mixed(key + np.uint64(number))
        n_wrong += _move(x, skips, part, rows, rates, bounds[number], reads, signs, n_sums, k_sums, own_key)
    return n_wrong


@compiled
def _move(x, skips, cells, rows, rates, greatest, reads, signs, n_sums, k_sums, key):
    """Go from candidate to candidate and move the reads that they hit, each once; return how many are not their level.

    The *cells*, and for each the vectors, lie one after the other, all as long as the greatest rate; the distances
    between candidates are exponential. How far into its vector a candidate lies says whether it hits n, k, or nothing.
    The loops over some candidates are apart and hardly branch, so that none waits for the memory of another.
    """
    n_vectors, _, n_words = x.shape
    end = float(cells.shape[0] * n_vectors)
    per_vector, per_candidate = 1 / n_vectors, 1 / greatest
    low = np.uint32(0x0F0F0F0F)
    depth, of_n, of_both, gaps = np.empty((4, AT_A_TIME))
    random_bits, rare = np.empty(AT_A_TIME, np.uint64), np.empty(AT_A_TIME, np.int64)
    vector, cell, block, column, driven, n, k, hit, side = np.empty((9, AT_A_TIME), np.uint32)
    step = np.empty(AT_A_TIME, np.int32)
    last = (np.uint32(0), np.uint32(0), np.uint32(0), np.uint32(2))  # none: there are two sides
    n_wrong, n_drawn, position = 0, 0, 0.0
    while position < end:
        exponentials(key, n_drawn, gaps, random_bits, rare)
        n_drawn += AT_A_TIME
        n_here = 0
        for i in range(AT_A_TIME):
            position += gaps[i] * per_candidate
            depth[i] = position
            n_here += position < end
        for i in range(n_here):
            place = np.int64(depth[i])
            first = np.int64((place + 0.5) * per_vector)  # the half keeps rounding away from whole numbers
            depth[i] = (depth[i] - place) * greatest
            cell[i], vector[i] = first, place - first * n_vectors
        n[:n_here] = k[:n_here] = 0
        for i in range(n_here):
            block[i], column[i] = cells[cell[i], 0], cells[cell[i], 1]
        for word in range(n_words):
            for i in range(n_here):
                driven[i] = x[vector[i], block[i], word]
            for i in range(n_here):
                bits, held = driven[i], cells[cell[i], 2 + word]
                n[i] += popcount(bits & held)
                k[i] += popcount(bits & (((held >> np.uint32(4)) & low) | ((held & low) << np.uint32(4))))
        for i in range(n_here):
            of_n[i] = rates[0, rows[0, column[i]], n[i]]
            of_both[i] = of_n[i] + rates[1, rows[1, column[i]], k[i]]
        if skips:
            for i in range(n_here):
                if _bits_of(x[vector[i], block[i]]) == 0:
                    of_n[i] = of_both[i] = 0.0
        n_hit = 0
        for i in range(n_here):
            hit[n_hit] = i
            n_hit += depth[i] < of_both[i]
        for h in range(n_hit):
            i = hit[h]
            side[h] = depth[i] >= of_n[i]
            here = vector[i], block[i], column[i], side[h]
            row, count = rows[side[h], column[i]], k[i] if side[h] == 1 else n[i]
            draws = 2 * (n_drawn - AT_A_TIME + i)  # numbers of the candidate, whatever was hit before
            step[h] = 0 if here == last else _step(side[h], row, count, reads, ~key, draws)  # a read moves once
            last = here
            n_wrong += step[h] != 0
        for h in range(n_hit):
            i, sums = hit[h], k_sums if side[h] == 1 else n_sums
            sums[vector[i], column[i]] += signs[side[h]] * np.int32(step[h])
    return n_wrong


@compiled
def _step(side, row, count, reads, key, place):
    """Return by how much a read that is hit comes out other than its level."""
    wrong, below, above, lower, higher, middles, noise_counts, count_max = reads
    at = side, row, count
    low, noisy = below[at], below[at] + above[at]
    middle = middles[at]
    level = as_read(middle, count_max)
    draw = uniform(key, place) * wrong[at]
    if draw < noisy:
        read = level + _step_of_noise(draw, low, noisy - low, middle, level, noise_counts, count_max)
        again = uniform(key, place + 1)
        if again < lower[count]:
            read -= 1
        elif again < lower[count] + higher[count]:
            read += 1
    else:
        read = level - 1 if draw - noisy < (1 - noisy) * lower[count] else level + 1
    return min(max(read, 0), count_max) - level


@compiled
def _step_of_noise(draw, below, above, middle, level, noise_counts, count_max):
    """Return by how much noise moves a read that it moves; *draw* is uniform up to *below* + *above*."""
    # The ends of the two tails are where rounding of floating point numbers could leave a read at its level.
    if draw < below:
        return min(as_read(middle + noise_counts * normal(draw), count_max) - level, -1)
    return max(as_read(middle - noise_counts * normal(min(max(draw - below, 1e-300), above)), count_max) - level, 1)
