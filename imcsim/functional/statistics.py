"""What the ADCs of a layer met: how many reads there were, and how many of them clipped or came out wrong."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Clipping:
    """How often the ADCs of one layer met more than they can tell apart."""

    n_accesses: int = 0
    """Reads of one block by one tile."""

    n_clipped_accesses: int = 0
    """Accesses in which at least one column had n or k above count_max."""

    n_conversions: int = 0
    """Column reads, each of n and of k."""

    n_clipped_conversions: int = 0

    n_misreads: int = 0
    """Reads that a misread or noise took to another count than the ADC gives without them."""

    def __add__(self, other: "Clipping") -> "Clipping":
        return Clipping(
            self.n_accesses + other.n_accesses,
            self.n_clipped_accesses + other.n_clipped_accesses,
            self.n_conversions + other.n_conversions,
            self.n_clipped_conversions + other.n_clipped_conversions,
            self.n_misreads + other.n_misreads,
        )
