"""How a tile reads an encoding: which accesses it takes, what it counts, and what clips or is misread on the way."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imcsim.circuit.misreads import ErrorTable
from imcsim.functional.device import COMPILED, Counting
from imcsim.functional.noise import draw_misreads
from imcsim.ternary.packing import PackedMatrix, PackedVectors

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Counted:
    """What one pass through a group of a layer gave."""

    sums: list[Array]
    """Sums of the counts as they were read, int32 (b c): ``[n - k]``, ``[n, k]``, or ``[n1, k1, n2, k2]``."""

    n_clipped_accesses: int
    n_clipped_conversions: int
    n_misreads: int = 0


@dataclass(frozen=True, eq=False)
class Reader:
    """The reading side of a tile."""

    count_max: int
    columns_per_tile: int
    table: ErrorTable | None = None
    """How often each count is misread; None where every count is read right."""

    rng: np.random.Generator | None = None
    """Draws the misreads."""

    counting: Counting = COMPILED
    """What counts: the compiled kernels, or a GPU."""

    def difference(self, x: PackedVectors, w: PackedMatrix, *, reads_k: bool = True) -> Counted:
        """One access, n less k: symmetric encodings."""
        found = self.counting.clipped_product(x, w, count_max=self.count_max, columns_per_tile=self.columns_per_tile)
        total = found.total
        n_misreads = self._misread(x, w, n=total, k=total, reads_k=reads_k, sign_of_k=-1)
        return Counted([total], found.n_clipped_accesses, found.n_clipped_conversions, n_misreads)

    def n_alone(self, x: PackedVectors, w: PackedMatrix) -> Counted:
        """One access, n alone: operands split into their polarities have no k."""
        return self.difference(x, w, reads_k=False)

    def both(self, x: PackedVectors, w: PackedMatrix) -> Counted:
        """One access, n and k apart: asymmetric weights, inputs never negative."""
        found = self.counting.clipped_counts(x, w, count_max=self.count_max, columns_per_tile=self.columns_per_tile)
        n_misreads = self._misread(x, w, n=found.plus, k=found.minus)
        return Counted([found.plus, found.minus], found.n_clipped_accesses, found.n_clipped_conversions, n_misreads)

    def twice(self, x: PackedVectors, w: PackedMatrix) -> Counted:
        """Two accesses, n and k apart: positive inputs first, then negative ones."""
        first, second = self.both(x.driven("positive"), w), self.both(x.driven("negative"), w)
        return Counted(
            first.sums + second.sums,
            first.n_clipped_accesses + second.n_clipped_accesses,
            first.n_clipped_conversions + second.n_clipped_conversions,
            first.n_misreads + second.n_misreads,
        )

    def _misread(
        self, x: PackedVectors, w: PackedMatrix, *, n: Array, k: Array, reads_k: bool = True, sign_of_k: int = 1
    ) -> int:
        """Change the sums *n* and *k* (b c), which may be one array, by what is misread; return how many reads are."""
        if self.table is None or self.rng is None:
            return 0
        wrong = draw_misreads(x, w, self.table, self.rng, reads_k=reads_k)
        for sums, side, sign in ((n, wrong.is_n, 1), (k, ~wrong.is_n, sign_of_k)):
            np.add.at(sums, (wrong.vector[side], wrong.column[side]), (sign * wrong.step[side]).astype(sums.dtype))
        return len(wrong)

    def of(self, *, sense: str, accesses_per_pass: int, is_asymmetric: bool) -> Callable[..., Counted]:
        """Return how an encoding is read (design.md section 2)."""
        if sense == "n":
            return self.n_alone
        if not is_asymmetric:
            return self.difference
        return self.twice if accesses_per_pass == 2 else self.both
