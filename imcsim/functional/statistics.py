"""What the ADCs of a layer met: how many reads there were, and how many of them clipped or came out wrong."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcsim.records import Record


@dataclass(frozen=True)
class Clipping:
    """How often the ADCs of one layer met more than they can tell apart."""

    n_accesses: int = 0
    """Reads of one block by one tile, those that drive no input among them."""

    n_clipped_accesses: int = 0
    """Accesses in which at least one column had n or k above count_max."""

    n_conversions: int = 0
    """Column reads, each of n and of k."""

    n_clipped_conversions: int = 0

    n_misreads: int = 0
    """Reads that a misread or noise took to another count than the ADC gives without them."""

    n_idle_accesses: int = 0
    """Accesses that drive no input: a chip that skips zero blocks leaves them out."""

    @property
    def idle_share(self) -> float:
        """Share of the accesses that drive no input; 0 where there were none."""
        return self.n_idle_accesses / self.n_accesses if self.n_accesses else 0.0

    def __add__(self, other: "Clipping") -> "Clipping":
        return Clipping(
            self.n_accesses + other.n_accesses,
            self.n_clipped_accesses + other.n_clipped_accesses,
            self.n_conversions + other.n_conversions,
            self.n_clipped_conversions + other.n_clipped_conversions,
            self.n_misreads + other.n_misreads,
            self.n_idle_accesses + other.n_idle_accesses,
        )


@dataclass(frozen=True, eq=False)
class Occupancy(Record):
    """How often the bitlines of a layer hold each count, before any clipping, from a sample of the accesses."""

    n: NDArray[np.int64]
    """Histogram of n (rows_per_access + 1), from n = 0."""

    k: NDArray[np.int64]
    """Histogram of k."""

    n_rows: int
    """Rows of the reads behind it, all together: rows that do not exist in a last block do not count."""

    def __add__(self, other: "Occupancy") -> "Occupancy":
        return Occupancy(self.n + other.n, self.k + other.k, self.n_rows + other.n_rows)

    def upto(self, greatest: int) -> "Occupancy":
        """Return the same with histograms up to the count *greatest*: blocks may be packed without their empty rows."""
        more = (0, max(0, greatest + 1 - len(self.n)))
        return Occupancy(np.pad(self.n, more), np.pad(self.k, more), self.n_rows)

    @property
    def n_reads(self) -> int:
        """Column reads in the sample, each of n and of k."""
        return int(self.n.sum())

    @property
    def zero_products(self) -> float:
        """Share of the products that are 0, and so leave both bitlines alone; 1 where nothing was read."""
        counts = np.arange(len(self.n))
        return 1 - float(counts @ (self.n + self.k)) / self.n_rows if self.n_rows else 1.0
