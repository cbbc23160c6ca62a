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

    def of(self, side: Array) -> Array:
        """Return the signs of sides."""
        return np.where(side == 1, self.sign_of_k, 1).astype(np.int32)


def correct_levels(
    x: PackedVectors, w: PackedMatrix, *, column: Array, side: Array, deviations: Array, sums: Sums
) -> None:
    """Add to *sums* what the levels of some pairs are more than ideal reads.

    Args:
        x: Vectors.
        w: Weights, packed with the same rows of a block.
        column: Column of each pair.
        side: Side of each pair: 0 for n, 1 for k.
        deviations: What each count is read as, less what an ideal ADC reads (pair count).
        sums: Changed in place.
    """
    steps = np.diff(deviations, axis=1).astype(np.int32)
    pair, count = np.nonzero(steps)
    starts = np.searchsorted(pair, np.arange(len(column) + 1))
    at_zero = (deviations[:, 0] * x.n_blocks).astype(np.int32)
    jumps = (at_zero, starts, (count + 1).astype(np.int32), steps[pair, count])
    places = (column, side, sums.of(side), sums.n, sums.k)
    _share(_levels_task, x.n_vectors, _words_of_vectors(x), _words_of_pairs(w, column, side), *jumps, *places)


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
    """
    wrong = np.zeros(_n_tasks(x.n_vectors), np.int64)
    lower, upper = misreads[0], misreads[0] + misreads[1]
    adcs = (np.ascontiguousarray(middles), count_max, noise_counts, lower, upper, np.uint64(key))
    places = (column, side, sums.of(side), sums.n, sums.k)
    _share(_noisy_task, x.n_vectors, _words_of_vectors(x), _words_of_pairs(w, column, side), *adcs, *places, wrong)
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
    """
    n_columns = w.plus.shape[1]
    sums = np.zeros((2, x.n_vectors, n_columns), np.int32)
    found = np.zeros((_n_tasks(x.n_vectors), 3), np.int64)
    adcs = (np.broadcast_to(gain, (2, n_columns)).copy(), np.broadcast_to(offset, (2, n_columns)).copy())
    args = (*adcs, count_max, max(1, min(columns_per_tile, n_columns)), reads_k, noise_counts, noise_fraction)
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
    words = _filled(x.codes, x.quads_per_block)  # b g word
    return np.ascontiguousarray(words.transpose(1, 2, 0))


def _words_of_pairs(w: PackedMatrix, column: Array, side: Array) -> Array:
    """Return the columns of *w* as words (pair block word); where k is read, with the signs the other way round."""
    words = _filled(np.ascontiguousarray(w.codes.T[column]), w.quads_per_block)
    low = np.uint32(0x0F0F0F0F)
    swapped = ((words >> np.uint32(4)) & low) | ((words & low) << np.uint32(4))
    return np.ascontiguousarray(np.where(side[:, None, None] == 1, swapped, words))


def _filled(codes: Array, quads_per_block: int) -> Array:
    """Fill each block of *codes* (v quads) up to whole words (v block word)."""
    n, n_blocks = len(codes), codes.shape[1] // quads_per_block
    n_words = -(-quads_per_block // 4)
    filled = np.zeros((n, n_blocks, 4 * n_words), np.uint8)
    filled[:, :, :quads_per_block] = codes.reshape(n, n_blocks, quads_per_block)
    return filled.view(np.uint32)


# --- Compiled -------------------------------------------------------------------------------------------------------


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
    task, first, last, x, w, at_zero, starts, jump_at, jump, column, side, sign, n_sums, k_sums
):  # fmt: skip
    """Add up the jumps that counts reach: each pair has its own, from *starts* on."""
    counts, total = np.zeros(last - first, np.uint32), np.zeros(last - first, np.int32)
    for pair in range(w.shape[0]):
        total[:] = at_zero[pair]
        if starts[pair] < starts[pair + 1]:
            for block in range(w.shape[1]):
                _count(x[block], w[pair, block], first, last, counts)
                for i in range(starts[pair], starts[pair + 1]):
                    least, gain = np.uint32(jump_at[i]), jump[i]
                    for b in range(total.size):
                        total[b] += gain if counts[b] >= least else np.int32(0)
        _add(total, k_sums if side[pair] == 1 else n_sums, first, column[pair], sign[pair])


@compiled
def _hash(number):
    """Mix the bits of a 64-bit *number*: the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@compiled
def _uniform(key, number, which):
    """Return a number between 0 and 1, both excluded: draw *which* of read *number*."""
    bits = _hash(key + (np.uint64(2) * np.uint64(number) + np.uint64(which)) * np.uint64(0x9E3779B97F4A7C15))
    return (np.float64(bits >> np.uint64(12)) + 0.5) * 2.0**-52


@compiled
def _poly(x, a, b, c, d, e, f, g, h):
    return ((((((h * x + g) * x + f) * x + e) * x + d) * x + c) * x + b) * x + a


@compiled
def _normal(p):
    """Return the standard normal quantile of *p* (Wichura, Algorithm AS 241, PPND16, Applied Statistics 37, 1988)."""
    q = p - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        above = _poly(r, 3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125,
                      45921.953931549871457, 67265.770927008700853, 33430.575583588128105,
                      2509.0809287301226727)  # fmt: skip
        below = _poly(r, 1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077,
                      21213.794301586595867, 39307.895800092710610, 28729.085735721942674,
                      5226.4952788528545610)  # fmt: skip
        return q * above / below
    r = math.sqrt(-math.log(min(p, 1 - p)))
    if r <= 5:
        r -= 1.6
        above = _poly(r, 1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550,
                      3.64784832476320460504, 1.27045825245236838258, 0.241780725177450611770,
                      0.0227238449892691845833, 7.74545014278341407640e-4)  # fmt: skip
        below = _poly(r, 1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550,
                      0.148103976427480074590, 0.0151986665636164571966, 5.47593808499534494600e-4,
                      1.05075007164441684324e-9)  # fmt: skip
    else:
        r -= 5
        above = _poly(r, 6.65790464350110377720, 5.46378491116411436990, 1.78482653991729133580,
                      0.296560571828504891230, 0.0265321895265761230930, 1.24266094738807843860e-3,
                      2.71155556874348757815e-5, 2.01033439929228813265e-7)  # fmt: skip
        below = _poly(r, 1.0, 0.599832206555887937690, 0.136929880922735805310, 0.0148753612908506148525,
                      7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
                      2.04426310338993978564e-15)  # fmt: skip
    return math.copysign(above / below, q)


@compiled
def _level(value, count_max):
    """Return what an analog *value*, in counts, is read as."""
    return np.int64(min(max(math.floor(value + 0.5), 0.0), float(count_max)))


@compiled
def _noisy_task(
    task, first, last, x, w, middles, count_max, noise_counts, lower, upper, key, column, side, sign, n_sums, k_sums,
    wrong,
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
                number = (np.int64(first + b) * n_blocks + block) * n_pairs + pair
                middle = middles[pair, count]
                read = level = _level(middle, count_max)
                if noise_counts > 0:
                    read = _level(middle + noise_counts * _normal(_uniform(key, number, 0)), count_max)
                if upper[count] > 0:
                    draw = _uniform(key, number, 1)
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
    noise_counts, noise_fraction, key, sums, found,
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
                    total[c] += np.int32(_level(value, count_max))
                if noise_counts == 0 and noise_fraction == 0:
                    continue
                for c in range(n_columns):
                    fraction = noise_fraction * gain[side, c]  # what comes from the devices is amplified
                    variance = noise_counts * noise_counts + fraction * fraction * squares[side, c]
                    if variance > 0:
                        value = gain[side, c] * np.float64(analog[side, c]) + offset[side, c]
                        level = _level(value, count_max)
                        number = ((np.int64(b) * n_blocks + block) * n_columns + c) * 2 + side
                        deviation = math.sqrt(variance) * _normal(_uniform(key, number, 0))
                        change = _level(value + deviation, count_max) - level
                        total[c] += np.int32(change)
                        n_wrong += change != 0
    found[task, 0], found[task, 1], found[task, 2] = n_accesses, n_conversions, n_wrong
