"""How the ADCs of some columns read a count: gain, offset, noise, rounding, clipping, misreads - in this order.

A read of a count c is ``clip(floor(gain * c + offset + noise + 1/2), 0, count_max)``, as of a flash converter whose
comparators fire at their thresholds. A misread then moves what was read by one, as often as the table says for c, and
not past 0 or count_max. What an ADC reads without noise and misreads is its *level*.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from imcsim.circuit.misreads import ErrorTable

Array = np.ndarray

DENSE_PROBABILITY = 1 / 32
"""ADCs that read any count other than its level with at least this probability are drawn read by read."""


@dataclass(frozen=True, eq=False)
class Adcs:
    """The ADCs of the columns of some blocks: for n (side 0) and for k (side 1)."""

    gain: Array
    """(side c), or (side 1) where all columns are read alike; so is *offset*."""

    offset: Array
    """In counts."""

    count_max: int
    greatest: int
    """The greatest count that a column can have."""

    noise_counts: float = 0.0
    """Standard deviation of the noise on every read."""

    table: ErrorTable | None = None
    """How often each count is misread, by the true count; nothing above its end is."""

    @classmethod
    def ideal(cls, count_max: int, greatest: int, noise_counts: float, table: ErrorTable | None) -> "Adcs":
        """Return ADCs that all read each count as it is, up to *count_max*; every batch asks for the same."""
        key = count_max, greatest, noise_counts, id(table)
        if key not in _IDEAL:
            if len(_IDEAL) >= MOST_KEPT:
                _IDEAL.clear()
            _IDEAL[key] = cls(np.ones((2, 1)), np.zeros((2, 1)), count_max, greatest, noise_counts, table)
        return _IDEAL[key]

    @cached_property
    def levels(self) -> Array:
        """What each count is read as without noise and misreads (side c count), from 0 up to the greatest."""
        return self.rounded(self.middles)

    @cached_property
    def deviations(self) -> Array:
        """The levels less what an ideal ADC reads (side c count)."""
        return self.levels - np.minimum(np.arange(self.greatest + 1), self.count_max)

    @cached_property
    def is_off(self) -> Array:
        """Which ADCs (side c) do not read every count as an ideal one does, noise and misreads aside."""
        return np.any(self.deviations, axis=2)

    @cached_property
    def noise(self) -> tuple[Array, Array]:
        """Probability that noise takes a count below and above its level, each (side c count)."""
        if self.noise_counts == 0:
            return np.zeros(self.levels.shape), np.zeros(self.levels.shape)
        below = ndtr((self.levels - 0.5 - self.middles) / self.noise_counts)
        above = ndtr((self.middles - self.levels - 0.5) / self.noise_counts)
        return np.where(self.levels > 0, below, 0), np.where(self.levels < self.count_max, above, 0)

    @cached_property
    def misreads(self) -> tuple[Array, Array]:
        """Probability that a count is misread one too low and one too high, each (count)."""
        lower, higher = np.zeros(self.greatest + 1), np.zeros(self.greatest + 1)
        if self.table is not None:
            known = min(len(self.table.lower), len(lower))
            lower[:known], higher[:known] = self.table.lower[:known], self.table.higher[:known]
        return lower, higher

    @cached_property
    def wrong(self) -> Array:
        """Probability that a count is hit by noise, a misread or both (side c count)."""
        noisy, misread = sum(self.noise), sum(self.misreads)
        return np.minimum(1, noisy + (1 - noisy) * misread)

    @cached_property
    def rates(self) -> Array:
        """Rate of the Poisson process that hits a read at least once with the probability `wrong` (side c count)."""
        return -np.log1p(-np.minimum(self.wrong, 1 - 2.0**-53))

    @cached_property
    def is_dense(self) -> Array:
        """Which ADCs (side c) are wrong too often for skipping from one wrong read to the next."""
        return self.wrong.max(axis=2) >= DENSE_PROBABILITY

    @property
    def is_noisy(self) -> bool:
        """Whether reads draw at all."""
        return self.noise_counts > 0 or self.table is not None

    @cached_property
    def middles(self) -> Array:
        """What an ADC meets at each count without noise, in counts (side c count)."""
        return self.gain[..., None] * np.arange(self.greatest + 1) + self.offset[..., None]

    def rounded(self, values: Array) -> Array:
        """Return what analog *values*, in counts, are read as: halves up, then clipped; int64."""
        return np.clip(np.floor(values + 0.5), 0, self.count_max).astype(np.int64)


MOST_KEPT = 64
_IDEAL: dict[tuple[int, int, float, int], Adcs] = {}
"""Ideal ADCs by what they are of; each holds its table, so that no other one can have its place in memory."""
