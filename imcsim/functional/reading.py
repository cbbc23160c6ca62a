"""How a tile reads an encoding: which accesses it takes, what it counts, and what goes wrong on the way.

The exact, clipped counts come first. Where ADCs deviate or reads are noisy, corrections are added to them: of the
levels, for the ADCs that do not read every count as it is; of reads that are drawn, one by one where they are wrong
often and by skipping where that is rare. A resistive tile has no exact counts and is read as it is.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from imcsim.arch.spec import Resistive
from imcsim.circuit.misreads import ErrorTable
from imcsim.functional.adcs import Adcs
from imcsim.functional.conversions import Conductances, Sums, analog_counts, correct_levels, draw_reads
from imcsim.functional.device import COMPILED, Counting
from imcsim.functional.kernels import clipped_product
from imcsim.functional.noise import draw_misreads
from imcsim.functional.placed import Copies, Copy, Strip
from imcsim.mapping.plan import LayerPlan
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray

Onto = tuple[Array, int]
"""Totals (b c) that a product is added to, and how often."""


@dataclass(frozen=True, eq=False)
class Counted:
    """What one pass through a group of a layer gave."""

    sums: list[Array]
    """Sums of the counts as they were read, int32 (b c): ``[n - k]``, ``[n, k]``, or ``[n1, k1, n2, k2]``."""

    n_clipped_accesses: int
    n_clipped_conversions: int
    n_misreads: int = 0


class Keys:
    """The keys that the reads of one batch draw with, from a generator: as they are asked for, or *n* beforehand.

    Batches that draw beforehand, one after the other, draw what they would draw if each came after the one before.
    """

    def __init__(self, rng: np.random.Generator, n: int | None = None) -> None:
        self._rng = rng
        self._waiting = None if n is None else iter([self._draw() for _ in range(n)])
        self.n_drawn = 0

    def next(self) -> int:
        """Return the next key."""
        self.n_drawn += 1
        return self._draw() if self._waiting is None else next(self._waiting)

    def _draw(self) -> int:
        return int(self._rng.integers(1 << 63))


@dataclass(frozen=True, eq=False)
class Reader:
    """The reading side of a tile."""

    count_max: int
    columns_per_tile: int
    table: ErrorTable | None = None
    """How often each count is misread; None where every count is read right."""

    keys: Keys | None = None
    """What the misreads and the noise are drawn with."""

    noise_counts: float = 0.0
    """Standard deviation of the noise on every read."""

    cells: Resistive | None = None
    """What the devices of a resistive tile are like."""

    layer: LayerPlan | None = None
    """Says which vectors go to which copy of the weights, where the copies differ."""

    first_sample: int = 0
    """Place of the first vector's sample among the inputs, which inference after inference takes in turn."""

    counting: Counting = COMPILED
    """What counts: the compiled kernels, or a GPU."""

    skips: bool = False
    """Whether a block is not read where none of its inputs is driven, so that nothing goes wrong there."""

    def difference(
        self, x: PackedVectors, w: PackedMatrix | Copies, *, reads_k: bool = True, onto: Onto | None = None
    ) -> Counted:
        """One access, n less k: symmetric encodings. For *onto* ask `adds`."""
        return self._by_copy(partial(self._difference, reads_k=reads_k, onto=onto), x, w)

    def n_alone(self, x: PackedVectors, w: PackedMatrix | Copies, *, onto: Onto | None = None) -> Counted:
        """One access, n alone: operands split into their polarities have no k."""
        return self.difference(x, w, reads_k=False, onto=onto)

    def both(self, x: PackedVectors, w: PackedMatrix | Copies) -> Counted:
        """One access, n and k apart: asymmetric weights, inputs never negative."""
        return self._by_copy(self._both, x, w)

    def twice(self, x: PackedVectors, w: PackedMatrix | Copies) -> Counted:
        """Two accesses, n and k apart: positive inputs first, then negative ones."""
        first, second = self.both(x.driven("positive"), w), self.both(x.driven("negative"), w)
        return Counted(first.sums + second.sums, *_added(first, second))

    def of(self, *, sense: str, accesses_per_pass: int, is_asymmetric: bool) -> Callable[..., Counted]:
        """Return how an encoding is read (design.md section 2)."""
        if sense == "n":
            return self.n_alone
        if not is_asymmetric:
            return self.difference
        # near memory one access tells the products of positive from those of negative inputs, as two do elsewhere
        return self.twice if accesses_per_pass == 2 or sense == "words" else self.both

    def adds(self, w: PackedMatrix | Copies) -> bool:
        """Whether `difference` and `n_alone` can add to totals: on this machine, where no copies differ."""
        return self.counting is COMPILED and isinstance(w, PackedMatrix)

    # One copy of the weights

    def _difference(self, x: PackedVectors, copy: Copy, *, reads_k: bool, onto: Onto | None = None) -> Counted:
        if isinstance(copy.weights, Conductances):
            found = self._analog(x, copy, copy.weights, reads_k=reads_k)
            return Counted([found.sums[0] - found.sums[1]], *_added(found))
        limits: dict[str, Any] = {"count_max": self.count_max, "columns_per_tile": self.columns_per_tile}
        if onto is None:
            exact = self.counting.clipped_product(x, copy.weights, **limits)
        else:
            exact = clipped_product(x, copy.weights, **limits, onto=onto)
        total, times = exact.total, onto[1] if onto is not None else 1
        n_misreads = self._corrected(x, copy, Sums(total, total, -1, times), reads_k=reads_k)
        return Counted([total], exact.n_clipped_accesses, exact.n_clipped_conversions, n_misreads)

    def _both(self, x: PackedVectors, copy: Copy) -> Counted:
        if isinstance(copy.weights, Conductances):
            return self._analog(x, copy, copy.weights, reads_k=True)
        exact = self.counting.clipped_counts(
            x, copy.weights, count_max=self.count_max, columns_per_tile=self.columns_per_tile
        )
        n_misreads = self._corrected(x, copy, Sums(exact.plus, exact.minus, 1))
        return Counted([exact.plus, exact.minus], exact.n_clipped_accesses, exact.n_clipped_conversions, n_misreads)

    def _analog(self, x: PackedVectors, copy: Copy, w: Conductances, *, reads_k: bool) -> Counted:
        """Read the sums of a resistive tile, strip by strip."""
        assert self.cells is not None
        noise_fraction = self.cells.read_noise_fraction
        parts = []
        for strip in self._strips(x, copy):
            first, last = strip.first_block * x.quads_per_block, strip.last_block * x.quads_per_block
            found = analog_counts(
                _blocks(x, strip),
                Conductances(w.plus[4 * first : 4 * last], w.minus[4 * first : 4 * last], w.n_rows, w.rows_per_access),
                gain=strip.adcs.gain,
                offset=strip.adcs.offset,
                count_max=self.count_max,
                columns_per_tile=self.columns_per_tile,
                reads_k=reads_k,
                noise_counts=self.noise_counts,
                noise_fraction=noise_fraction,
                key=self._key() if self.noise_counts or noise_fraction else 0,
                skips=self.skips,
            )
            clips = found.n_clipped_accesses, found.n_clipped_conversions, found.n_misreads
            parts.append(Counted([found.plus, found.minus], *clips))
        sums = [sum(part.sums[side] for part in parts[1:]) + parts[0].sums[side] for side in range(2)]
        return Counted(sums, *_added(*parts))

    def _corrected(self, x: PackedVectors, copy: Copy, sums: Sums, *, reads_k: bool = True) -> int:
        """Change *sums* by all that is not ideal, and return how many reads are not the level of their ADC."""
        if not copy.strips and not self._ideal(x).is_noisy:
            return 0
        assert isinstance(copy.weights, PackedMatrix)
        n_misreads = 0
        n_sides = 2 if reads_k else 1
        for strip in self._strips(x, copy):
            n_misreads += self._correct(
                _blocks(x, strip), _blocks_of_matrix(copy.weights, strip), strip.adcs, sums, n_sides
            )
        return n_misreads

    def _correct(self, x: PackedVectors, w: PackedMatrix, adcs: Adcs, sums: Sums, n_sides: int) -> int:
        """Do so for the blocks of one strip: level by level, read by read, and the rare wrong reads."""
        n_misreads = 0
        if adcs.is_dense.any() or adcs.is_off.any():
            n_misreads += self._correct_often(x, w, adcs, sums, n_sides)
        if adcs.is_noisy:
            n_misreads += draw_misreads(x, w, adcs, self._key, n_sides=n_sides, sums=sums, skips=self.skips)
        return n_misreads

    def _correct_often(self, x: PackedVectors, w: PackedMatrix, adcs: Adcs, sums: Sums, n_sides: int) -> int:
        """Do so for what is wrong in many reads: levels that are off, and noise too great for skipping reads."""
        column, side = np.divmod(np.arange(w.n_columns * n_sides), n_sides)
        row = column if adcs.gain.shape[1] > 1 else np.zeros_like(column)  # where all columns are read alike
        is_dense = adcs.is_dense[side, row]
        off = adcs.is_off[side, row] & ~is_dense
        if off.any():
            deviations = adcs.deviations[side[off], row[off]]
            correct_levels(x, w, column=column[off], side=side[off], deviations=deviations, sums=sums, skips=self.skips)
        if not is_dense.any():
            return 0
        return draw_reads(
            x,
            w,
            column=column[is_dense],
            side=side[is_dense],
            middles=adcs.middles[side[is_dense], row[is_dense]],
            count_max=adcs.count_max,
            noise_counts=adcs.noise_counts,
            misreads=adcs.misreads,
            key=self._key(),
            sums=sums,
            skips=self.skips,
        )

    def _strips(self, x: PackedVectors, copy: Copy) -> tuple[Strip, ...]:
        return copy.strips or (Strip(0, x.n_blocks, self._ideal(x)),)

    def _ideal(self, x: PackedVectors) -> Adcs:
        if x.rows_per_access not in self._ideal_adcs:
            self._ideal_adcs[x.rows_per_access] = Adcs.ideal(
                self.count_max, x.rows_per_access, self.noise_counts, self.table
            )
        return self._ideal_adcs[x.rows_per_access]

    @cached_property
    def _ideal_adcs(self) -> dict[int, Adcs]:
        return {}

    def _key(self) -> int:
        assert self.keys is not None
        return self.keys.next()

    # Copy after copy

    def _by_copy(self, read: Callable[..., Counted], x: PackedVectors, w: PackedMatrix | Copies) -> Counted:
        """Let each copy *read* the vectors that the plan gives it, and put the sums in their places."""
        if isinstance(w, PackedMatrix):
            return read(x, Copy(w))
        usual, n_usual = Counter(w.copies).most_common(1)[0]
        if n_usual == len(w.copies):
            return read(x, usual)
        shape, turns = self._turns(x.n_vectors, len(w.copies))
        n_quads = x.codes.shape[1]
        sums: list[Array] = []
        parts = []
        unread = list(zip(turns, w.copies, strict=True))
        if 2 * n_usual > len(w.copies) and not self._ideal(x).is_noisy:
            # What is alike is read at once, in its place: where nothing is driven, nothing is counted and nothing clips
            unread = [(at, copy) for at, copy in unread if copy is not usual]
            codes = x.codes.copy()
            for at, _ in unread:
                codes.reshape(*shape, n_quads)[at] = 0
            parts.append(read(PackedVectors(codes, x.n_rows, x.rows_per_access), usual))
            sums = parts[0].sums
        for at, copy in unread:
            codes = x.codes.reshape(*shape, n_quads)[at]
            part = read(PackedVectors(codes.reshape(-1, n_quads), x.n_rows, x.rows_per_access), copy)
            sums = sums or [np.empty((x.n_vectors, total.shape[1]), total.dtype) for total in part.sums]
            for whole, total in zip(sums, part.sums, strict=True):
                whole.reshape(*shape, whole.shape[1])[at] = total.reshape(*codes.shape[:-1], whole.shape[1])
            parts.append(part)
        return Counted(sums, *_added(*parts))

    def _turns(self, n_vectors: int, n_copies: int) -> tuple[tuple[int, ...], list[Any]]:
        """Return a shape for the vectors, and in it the places of those of each copy; see `LayerPlan.replica_of`."""
        assert self.layer is not None
        period = self.layer.n_vectors
        first = self.first_sample * (period // self.layer.n_samples)
        if first % period == 0 and n_vectors % period == 0:  # whole inferences: views do, and are quicker
            return (n_vectors // period, period), [np.s_[:, number::n_copies] for number in range(n_copies)]
        copy_of = self.layer.replica_of(first + np.arange(n_vectors))
        return (n_vectors,), [np.flatnonzero(copy_of == number) for number in range(n_copies)]


def _added(*parts: Counted) -> tuple[int, int, int]:
    """Return clipped accesses, clipped conversions and misreads of all *parts*."""
    return (
        sum(part.n_clipped_accesses for part in parts),
        sum(part.n_clipped_conversions for part in parts),
        sum(part.n_misreads for part in parts),
    )


def _blocks(x: PackedVectors, strip: Strip) -> PackedVectors:
    """Return the inputs of the blocks of *strip*."""
    if (strip.first_block, strip.last_block) == (0, x.n_blocks):
        return x
    quads = slice(strip.first_block * x.quads_per_block, strip.last_block * x.quads_per_block)
    return PackedVectors(np.ascontiguousarray(x.codes[:, quads]), _rows_of(x, strip), x.rows_per_access)


def _blocks_of_matrix(w: PackedMatrix, strip: Strip) -> PackedMatrix:
    """Return the weights of the blocks of *strip*."""
    if (strip.first_block, strip.last_block) == (0, w.n_blocks):
        return w
    quads = slice(strip.first_block * w.quads_per_block, strip.last_block * w.quads_per_block)
    return PackedMatrix(w.codes[quads], _rows_of(w, strip), w.rows_per_access)


def _rows_of(packed: PackedVectors | PackedMatrix, strip: Strip) -> int:
    return min(packed.n_rows, strip.last_block * packed.rows_per_access) - strip.first_block * packed.rows_per_access
