"""Reads that are not what an ideal ADC gives, compiled with numba: deviating levels, noise, sums of conductances.

What is read of a column is an exact count plus a *correction* where the ADC deviates, so that only the ADCs that do
are ever looked at again. A *pair* is one ADC of one column of one block range: a column and a side (n or k).

Noise is numbered, not streamed: the read of a vector, block and pair draws by hashing its number with a key. So the
bits are the same for any number of threads.
"""

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from imcsim.functional.drawing import normal, uniform
from imcsim.functional.kernels import compiled, popcount, run_tasks
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray

VECTORS_PER_TASK = 1024
"""Their counts and corrections stay in the nearest cache."""


@dataclass(frozen=True, eq=False)
class Conductances:
    """Relative conductances of a matrix of resistive cells; a matrix packed into quads has its rows in these places."""

    plus: Array
    """Of the devices that are on where the weight is +1, float32 (4 * quads, c)."""

    minus: Array
    """Of those that are on where it is -1."""

    n_rows: int
    rows_per_access: int


@dataclass(frozen=True, eq=False)
class AnalogCounts:
    """What a resistive tile reads."""

    plus: Array
    """Sum over the blocks of what is read on the bitline of n, int32 (b c)."""

    minus: Array
    n_clipped_accesses: int
    n_clipped_conversions: int
    n_misreads: int
    """Reads that noise moved to another level."""


# --- What others call -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sums:
    """Where corrections go: the sums of n and of k, which may be one array for n - k."""

    n: Array
    """int32 (b c)."""

    k: Array
    sign_of_k: int
    times: int = 1
    """How often what is added counts."""

    def of(self, side: Array) -> Array:
        """Return what a count of each side counts for."""
        return (np.where(side == 1, self.sign_of_k, 1) * self.times).astype(np.int32)


def correct_levels(
    x: PackedVectors, w: PackedMatrix, *, column: Array, side: Array, deviations: Array, sums: Sums, skips: bool = False
) -> None:
    """Add to *sums* what the levels of some pairs are more than ideal reads.

    Args:
        x: Vectors.
        w: Weights, packed with the same rows of a block.
        column: Column of each pair.
        side: Side of each pair: 0 for n, 1 for k.
        deviations: What each count is read as, less what an ideal ADC reads (pair count).
        sums: Changed in place.
        skips: Whether nothing is read where no input of a block is driven.
    """
    steps = np.diff(deviations, axis=1).astype(np.int32)
    pair, count = np.nonzero(steps)
    starts = np.searchsorted(pair, np.arange(len(column) + 1))
    at_zero = deviations[:, 0].astype(np.int32)
    jumps = (at_zero, starts, (count + 1).astype(np.int32), steps[pair, count])
    places = (column, side, sums.of(side), sums.n, sums.k)
    _share(_levels_task, x.n_vectors, _words_of_vectors(x), skips, w.words[side, column], *jumps, *places)


def draw_reads(
    x: PackedVectors,
    w: PackedMatrix,
    *,
    column: Array,
    side: Array,
    middles: Array,
    count_max: int,
    noise_counts: float,
    misreads: tuple[Array, Array],
    key: int,
    sums: Sums,
    skips: bool = False,
) -> int:
    """Draw every read of some pairs, add to *sums* what is more than ideal reads; return how many are not their level.

    Args:
        x: Vectors.
        w: Weights, packed with the same rows of a block.
        column: Column of each pair.
        side: Side of each pair: 0 for n, 1 for k.
        middles: What the ADC meets at each count without noise, in counts (pair count).
        count_max: The largest count that the ADCs tell apart.
        noise_counts: Standard deviation of the noise.
        misreads: Probability that each count is misread one too low and one too high.
        key: Which draws.
        sums: Changed in place.
        skips: Whether nothing is read where no input of a block is driven.
    """
    wrong = np.zeros(_n_tasks(x.n_vectors), np.int64)
    lower, upper = misreads[0], misreads[0] + misreads[1]
    adcs = (np.ascontiguousarray(middles), count_max, noise_counts, lower, upper, np.uint64(key))
    places = (column, side, sums.of(side), sums.n, sums.k)
    _share(_noisy_task, x.n_vectors, _words_of_vectors(x), skips, w.words[side, column], *adcs, *places, wrong)
    return int(wrong.sum())


def analog_counts(
    x: PackedVectors,
    w: Conductances,
    *,
    gain: Array,
    offset: Array,
    count_max: int,
    columns_per_tile: int,
    reads_k: bool,
    noise_counts: float,
    noise_fraction: float,
    key: int,
    skips: bool = False,
) -> AnalogCounts:
    """Add up the conductances of the driven devices of every block and read each sum.

    The sum runs over the rows of the block in their order, in single precision; the ADC adds gain, offset and noise in
    double precision. What meets the ADC clips where it rounds to more than *count_max*.

    Args:
        x: Vectors, packed with the rows of a block of *w*.
        w: Conductances.
        gain: Of the ADCs for n and for k (side c).
        offset: Likewise, in counts.
        count_max: The largest count that the ADCs tell apart.
        columns_per_tile: Columns that one access reads; only the number of clipped accesses depends on it.
        reads_k: Whether k is read as well as n.
        noise_counts: Standard deviation of the noise of a read.
        noise_fraction: That of the current of each device, relative to its conductance.
        key: Which draws.
        skips: Whether nothing is read where no input of a block is driven.
    """
    n_columns = w.plus.shape[1]
    sums = np.zeros((2, x.n_vectors, n_columns), np.int32)
    found = np.zeros((_n_tasks(x.n_vectors), 3), np.int64)
    adcs = (np.broadcast_to(gain, (2, n_columns)).copy(), np.broadcast_to(offset, (2, n_columns)).copy())
    args = (*adcs, count_max, max(1, min(columns_per_tile, n_columns)), reads_k, noise_counts, noise_fraction, skips)
    codes = np.ascontiguousarray(x.codes)
    _share(_analog_task, x.n_vectors, codes, w.plus, w.minus, x.quads_per_block, *args, np.uint64(key), sums, found)
    n_accesses, n_conversions, n_misreads = found.sum(axis=0).tolist()
    return AnalogCounts(sums[0], sums[1], n_accesses, n_conversions, n_misreads)


# --- Sharing the work out -------------------------------------------------------------------------------------------


def _n_tasks(n_vectors: int) -> int:
    return max(1, -(-n_vectors // _chunk(n_vectors)))


def _chunk(n_vectors: int) -> int:
    return max(1, min(VECTORS_PER_TASK, -(-n_vectors // numba.get_num_threads())))


def _share(task: Any, n_vectors: int, *args: Any) -> None:
    """Run *task* for ranges of the vectors."""
    chunk = _chunk(n_vectors)
    run_tasks(lambda n: task(n, n * chunk, min((n + 1) * chunk, n_vectors), *args), -(-n_vectors // chunk))


def _words_of_vectors(x: PackedVectors) -> Array:
    """Return *x* as words of four quads (block word b), so that neighbouring vectors are neighbouring numbers."""
    return np.ascontiguousarray(x.words().transpose(1, 2, 0))


# --- Compiled -------------------------------------------------------------------------------------------------------


@compiled
def is_idle(words):
    """Whether the *words* of a block drive no input."""
    bits = words[0]
    for word in words[1:]:
        bits |= word
    return bits == 0


@compiled
def _count(x, w, first, last, counts):
    """Count the bits that the words of some vectors *x* (word b) share with those of a pair *w* (word)."""
    n_words = w.size
    counts = counts[: last - first]
    word, mask = x[0, first:last], w[0]
    for b in range(counts.size):
        counts[b] = popcount(word[b] & mask)
    for i in range(1, n_words):
        word, mask = x[i, first:last], w[i]
        for b in range(counts.size):
            counts[b] += popcount(word[b] & mask)


@compiled
def _add(total, sums, first, column, sign):
    """Add the *total* of one pair to its column of *sums* (b c)."""
    for b in range(total.size):
        sums[first + b, column] += sign * total[b]


@compiled
def _levels_task(
    task, first, last, x, skips, w, at_zero, starts, jump_at, jump, column, side, sign, n_sums, k_sums
):  # fmt: skip
    """Add up the jumps that counts reach: each pair has its own, from *starts* on."""
    counts, total = np.zeros(last - first, np.uint32), np.zeros(last - first, np.int32)
    n_read = np.full(last - first, w.shape[1], np.int32)  # blocks of each vector
    if skips:
        for block in range(w.shape[1]):
            for b in range(first, last):
                n_read[b - first] -= is_idle(x[block, :, b])
    for pair in range(w.shape[0]):
        for b in range(total.size):
            total[b] = at_zero[pair] * n_read[b]
        if starts[pair] < starts[pair + 1]:
            for block in range(w.shape[1]):
                _count(x[block], w[pair, block], first, last, counts)
                for i in range(starts[pair], starts[pair + 1]):
                    least, gain = np.uint32(jump_at[i]), jump[i]
                    for b in range(total.size):
                        total[b] += gain if counts[b] >= least else np.int32(0)
        _add(total, k_sums if side[pair] == 1 else n_sums, first, column[pair], sign[pair])


@compiled
def as_read(value, count_max):
    """Return what an analog *value*, in counts, is read as."""
    return np.int64(min(max(math.floor(value + 0.5), 0.0), float(count_max)))


@compiled
def _noisy_task(
    task, first, last, x, skips, w, middles, count_max, noise_counts, lower, upper, key, column, side, sign, n_sums,
    k_sums, wrong,
):  # fmt: skip
    """Draw every read of some vectors and pairs."""
    counts, total = np.zeros(last - first, np.uint32), np.zeros(last - first, np.int32)
    n_pairs, n_blocks = w.shape[0], w.shape[1]
    n_wrong = 0
    for pair in range(n_pairs):
        total[:] = 0
        for block in range(n_blocks):
            _count(x[block], w[pair, block], first, last, counts)
            for b in range(total.size):
                count = np.int64(counts[b])
                if skips and count == 0 and is_idle(x[block, :, first + b]):
                    continue
                number = (np.int64(first + b) * n_blocks + block) * n_pairs + pair
                middle = middles[pair, count]
                read = level = as_read(middle, count_max)
                if noise_counts > 0:
                    read = as_read(middle + noise_counts * normal(uniform(key, 2 * number)), count_max)
                if upper[count] > 0:
                    draw = uniform(key, 2 * number + 1)
                    if draw < lower[count]:
                        read = max(read - 1, 0)
                    elif draw < upper[count]:
                        read = min(read + 1, count_max)
                n_wrong += read != level
                total[b] += np.int32(read - min(count, count_max))
        _add(total, k_sums if side[pair] == 1 else n_sums, first, column[pair], sign[pair])
    wrong[task] = n_wrong


@compiled
def _gather(codes, start, quads_per_block, plus, minus, n, k):
    """Add up to *n* and *k* (c) what the driven devices of one block conduct, row after row."""
    for quad in range(start, start + quads_per_block):
        code = codes[quad]
        if code == 0:
            continue
        for row in range(4):
            on_n, on_k = plus[4 * quad + row], minus[4 * quad + row]
            if code >> np.uint8(row) & np.uint8(1):
                for c in range(n.size):
                    n[c] += on_n[c]
                    k[c] += on_k[c]
            elif code >> np.uint8(row + 4) & np.uint8(1):
                for c in range(n.size):
                    n[c] += on_k[c]
                    k[c] += on_n[c]


@compiled
def _analog_task(
    task, first, last, codes, plus, minus, quads_per_block, gain, offset, count_max, columns_per_tile, reads_k,
    noise_counts, noise_fraction, skips, key, sums, found,
):  # fmt: skip
    """Read all columns for some vectors; *found* counts clipped accesses, clipped conversions and noisy reads."""
    n_columns = plus.shape[1]
    n_blocks = codes.shape[1] // quads_per_block
    n_sides = 2 if reads_k else 1
    analog, squares = np.zeros((2, n_columns), np.float32), np.zeros((2, n_columns), np.float32)
    plus_squares, minus_squares = plus, minus
    if noise_fraction > 0:
        plus_squares, minus_squares = plus * plus, minus * minus
    n_accesses = n_conversions = n_wrong = 0
    for b in range(first, last):
        for block in range(n_blocks):
            start = block * quads_per_block
            if skips and is_idle(codes[b, start : start + quads_per_block]):
                continue
            analog[:] = 0
            _gather(codes[b], start, quads_per_block, plus, minus, analog[0], analog[1])
            if noise_fraction > 0:
                squares[:] = 0
                _gather(codes[b], start, quads_per_block, plus_squares, minus_squares, squares[0], squares[1])
            for from_column in range(0, n_columns, columns_per_tile):
                n_clipped = 0
                for c in range(from_column, min(from_column + columns_per_tile, n_columns)):
                    above = analog[0, c] if n_sides == 1 else max(analog[0, c], analog[1, c])
                    n_clipped += math.floor(np.float64(above) + 0.5) > count_max
                n_conversions += n_clipped
                n_accesses += n_clipped > 0
            for side in range(n_sides):
                total = sums[side, b]
                for c in range(n_columns):
                    value = gain[side, c] * np.float64(analog[side, c]) + offset[side, c]
                    total[c] += np.int32(as_read(value, count_max))
                if noise_counts == 0 and noise_fraction == 0:
                    continue
                for c in range(n_columns):
                    fraction = noise_fraction * gain[side, c]  # what comes from the devices is amplified
                    variance = noise_counts * noise_counts + fraction * fraction * squares[side, c]
                    if variance > 0:
                        value = gain[side, c] * np.float64(analog[side, c]) + offset[side, c]
                        level = as_read(value, count_max)
                        number = ((np.int64(b) * n_blocks + block) * n_columns + c) * 2 + side
                        deviation = math.sqrt(variance) * normal(uniform(key, 2 * number))
                        change = as_read(value + deviation, count_max) - level
                        total[c] += np.int32(change)
                        n_wrong += change != 0
    found[task, 0], found[task, 1], found[task, 2] = n_accesses, n_conversions, n_wrong
