"""What goes wrong when a tile reads: reads that miss their level by noise or a misread, drawn from a given generator.

Where that is rare it is drawn by thinning (Lewis and Shedler, Naval Research Logistics Quarterly 26, 1979): a read that
is wrong with probability p is hit at least once by a Poisson process of rate -ln(1 - p). So candidates are drawn at the
greatest rate of all reads, wherever they fall, and each is kept with the rate of its own count relative to that. Only
candidates are ever counted anew. The result is the same as drawing every read, and depends on the generator alone:
tasks of a size that no thread knows of have numbers of their own.
"""

import numpy as np

from imcsim.arch.spec import Chip
from imcsim.circuit.misreads import ErrorTable, read_table
from imcsim.circuit.sensing import weighted_table
from imcsim.errors import ConfigError
from imcsim.functional.adcs import Adcs
from imcsim.functional.conversions import Sums, as_read, is_idle
from imcsim.functional.drawing import mixed, normal, two_below, uniform
from imcsim.functional.kernels import compiled, popcount, run_tasks
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray

TABLE_SEED = 0
"""Seed of the Monte Carlo behind a table that the chip's circuit gives: a property of the chip, not of a run."""

CANDIDATES_PER_TASK = 8192
"""Candidates that a thread looks at in one go, on average."""

AT_A_TIME = 128
"""Candidates that are drawn before the first of them is looked at."""


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
    column: Array,
    side: Array,
    sums: Sums,
    skips: bool = False,
) -> int:
    """Draw which reads of all blocks come out other than their level, change *sums* by it; return how many do.

    Args:
        x: Vectors as they are driven.
        w: Weights, packed with the same rows of a block.
        adcs: How the columns are read.
        rng: The generator.
        column: Column of each pair (column, side) that is drawn.
        side: Side of each pair: 0 for n, 1 for k.
        sums: Changed in place.
        skips: Whether nothing is read where no input of a block is driven.
    """
    row = column if adcs.gain.shape[1] > 1 else np.zeros_like(column)  # where all columns are read alike
    rates = -np.log1p(-np.minimum(adcs.wrong, 1 - 2.0**-53))
    greatest = float(rates[side, row].max(initial=0))
    reads_of_vector = x.n_blocks * len(column)
    if not (x.n_vectors and reads_of_vector and greatest):
        return 0
    chunk = int(max(1, min(x.n_vectors, CANDIDATES_PER_TASK / (reads_of_vector * greatest))))
    ends = np.append(np.arange(0, x.n_vectors, chunk), x.n_vectors)
    n_candidates = rng.poisson(np.diff(ends) * (reads_of_vector * greatest))
    key = np.uint64(rng.integers(1 << 63))
    n_wrong = np.zeros(len(n_candidates), np.int64)
    words = x.words()
    pairs = column, side, row, sums.of(side)
    probabilities = rates, greatest, adcs.wrong, *adcs.noise, *adcs.misreads

    def draw(task: int) -> None:
        vectors = slice(ends[task], ends[task + 1])
        own_key = np.uint64(mixed(key + np.uint64(task)))
        found = _hit(n_candidates[task], words[vectors], skips, w.words, *pairs[:3], *probabilities[:2], own_key)
        n_wrong[task] = _move(
            *found, *pairs, *probabilities[2:], adcs.middles, adcs.noise_counts, adcs.count_max,
            sums.n[vectors], sums.k[vectors],
        )  # fmt: skip

    run_tasks(draw, len(n_wrong))
    return int(n_wrong.sum())


@compiled
def _hit(n_drawn, x, skips, w, column, side, row, rates, greatest, key):
    """Return (place, vector, pair, count) of the reads of *x* that are hit, and two numbers between 0 and 1 of each.

    The loops over candidates are apart and do not branch, so that no candidate waits for the memory of another.
    """
    n_vectors, n_blocks, n_words = x.shape
    n_pairs = column.size
    found, draws, again, n_found = np.empty((n_drawn, 4), np.int64), np.empty(n_drawn), np.empty(n_drawn), 0
    vector, block, pair, count = np.empty((4, AT_A_TIME), np.int64)
    draw, hit = np.empty(AT_A_TIME), np.empty(AT_A_TIME, np.int64)
    for start in range(0, n_drawn, AT_A_TIME):
        n_here, n_hit = min(n_drawn - start, AT_A_TIME), 0
        for i in range(n_here):
            place = 4 * (start + i)
            vector[i], block[i] = two_below(key, place, n_vectors, n_blocks)
            pair[i], _ = two_below(key, place + 1, n_pairs, 1)
            draw[i] = uniform(key, place + 2)
        for i in range(n_here):
            driven, held = x[vector[i], block[i]], w[side[pair[i]], column[pair[i]], block[i]]
            bits = np.uint32(0)
            for word in range(n_words):
                bits += popcount(driven[word] & held[word])
            count[i] = bits
            hit[n_hit] = i
            is_read = not (skips and is_idle(driven))
            n_hit += is_read and draw[i] * greatest < rates[side[pair[i]], row[pair[i]], count[i]]
        for i in hit[:n_hit]:
            place = (vector[i] * n_blocks + block[i]) * n_pairs + pair[i]
            found[n_found] = place, vector[i], pair[i], count[i]
            draws[n_found] = draw[i] * greatest / rates[side[pair[i]], row[pair[i]], count[i]]
            again[n_found] = uniform(key, 4 * (start + i) + 3)
            n_found += 1
    return found[:n_found], draws[:n_found], again[:n_found]


@compiled
def _move(
    found, draws, again, column, side, row, sign, wrong, below, above, lower, higher, middles, noise_counts, count_max,
    n_sums, k_sums,
):  # fmt: skip
    """Move the reads that are hit, each once, and return how many are not their level."""
    n_wrong = 0
    room = 16
    while room < 2 * len(found):
        room *= 2
    seen = np.full(room, -1, np.int64)  # a read of hash h is noted at h, or where there is room after it
    for i in range(len(found)):
        place, vector, pair, count = found[i]
        slot = np.int64(mixed(np.uint64(place)) & np.uint64(room - 1))
        while seen[slot] >= 0 and found[seen[slot], 0] != place:
            slot = (slot + 1) % room
        if seen[slot] >= 0:  # hit before
            continue
        seen[slot] = i
        where = side[pair], row[pair], count
        low, noisy = below[where], below[where] + above[where]
        middle = middles[where]
        level = as_read(middle, count_max)
        draw = draws[i] * wrong[where]
        if draw < noisy:
            read = level + _step_of_noise(draw, low, noisy - low, middle, level, noise_counts, count_max)
            if again[i] < lower[count]:
                read -= 1
            elif again[i] < lower[count] + higher[count]:
                read += 1
        else:
            read = level - 1 if draw - noisy < (1 - noisy) * lower[count] else level + 1
        step = min(max(read, 0), count_max) - level
        n_wrong += step != 0
        sums = k_sums if side[pair] == 1 else n_sums
        sums[vector, column[pair]] += sign[pair] * np.int32(step)
    return n_wrong


@compiled
def _step_of_noise(draw, below, above, middle, level, noise_counts, count_max):
    """Return by how much noise moves a read that it moves; *draw* is uniform up to *below* + *above*."""
    # The ends of the two tails are where rounding of floating point numbers could leave a read at its level.
    if draw < below:
        return min(as_read(middle + noise_counts * normal(draw), count_max) - level, -1)
    return max(as_read(middle - noise_counts * normal(min(max(draw - below, 1e-300), above)), count_max) - level, 1)
