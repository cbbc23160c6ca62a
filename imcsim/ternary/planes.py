"""Every operand as a sum of scaled planes with entries in {-1, 0, +1}."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imcsim.errors import ConfigError
from imcsim.records import Record, frozen_array

Array = np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class PlaneSum(Record):
    """An operand ``scale * sum_p factors[p] * planes[p] + offset``, where an entry of -1 may count for ``-minus``.

    The factors of one operand are kept apart from its scale so that what is a whole number stays one: a
    bit-serial operand has the factors 1, 2, 4 ... and adds up in integers, whatever its scale is.

    >>> two = PlaneSum(planes=[[1, 0, -1], [1, 1, 0]], factors=[1, 2], scale=0.5)
    >>> two.to_numbers().tolist()
    [1.5, 1.0, -0.5]
    """

    planes: Array
    """int8, (p ...): plane after plane, each of the operand's shape, entries in {-1, 0, +1}."""

    factors: Array
    """(p) or (p ...) broadcast against the planes: whole numbers (int64) where the codec allows, else float64."""

    scale: Array = 1.0  # type: ignore[assignment]
    """float64, broadcast against the operand's shape: per tensor, or per output channel (c 1 1 1)."""

    offset: Array = 0.0  # type: ignore[assignment]
    """float64, broadcast against the operand's shape."""

    minus: Array = 1.0  # type: ignore[assignment]
    """float64, () or one per output channel (c 1 ...): what -1 counts for where +1 counts for 1.

    Other than 1 it makes the encoding asymmetric, {-minus, 0, 1} times the scale; the operand has one plane then.
    """

    def __post_init__(self) -> None:
        planes = np.asarray(self.planes)
        if planes.ndim < 1 or len(planes) == 0:
            raise ConfigError(f"planes: must hold at least one plane (p ...), got shape {planes.shape}")
        require_ternary(planes, "planes")
        factors = np.asarray(self.factors)
        whole = factors.dtype.kind in "iub"
        factors = frozen_array(factors, np.int64 if whole else np.float64)
        if len(factors) != len(planes):
            raise ConfigError(f"factors: must be one for each of the {len(planes)} planes, got {len(factors)}")
        object.__setattr__(self, "planes", frozen_array(planes, np.int8))
        object.__setattr__(self, "factors", factors)
        for name in ("scale", "offset", "minus"):
            values = frozen_array(getattr(self, name), np.float64)
            if not np.all(np.isfinite(values)):
                raise ConfigError(f"{name}: must be finite, got {values[~np.isfinite(values)].flat[0]}")
            object.__setattr__(self, name, values)
        if np.any(self.minus <= 0):
            raise ConfigError(f"minus: must be above 0, got {self.minus.min()}; the sign is that of the plane")
        if self.is_asymmetric and len(planes) > 1:
            raise ConfigError(f"minus: must be 1 for an operand of {len(planes)} planes, got {self.minus.flat[0]}")

    @property
    def is_asymmetric(self) -> bool:
        """Whether -1 counts for something else than +1 does."""
        return bool(np.any(self.minus != 1))

    @property
    def n_planes(self) -> int:
        """How many planes the operand has."""
        return len(self.planes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the operand, which is that of each plane."""
        return self.planes.shape[1:]

    @property
    def is_whole(self) -> bool:
        """Whether planes add up in whole numbers before the scale."""
        return self.factors.dtype == np.int64 and not self.is_asymmetric

    @property
    def zero_fraction(self) -> float:
        """Share of the entries of all planes that are 0."""
        return float(np.mean(self.planes == 0)) if self.planes.size else 0.0

    def to_codes(self) -> Array:
        """Return ``sum_p factors[p] * planes[p]``: the operand before its scale and offset."""
        factors = self.factors.reshape(self.factors.shape + (1,) * (self.planes.ndim - self.factors.ndim))
        if self.is_asymmetric:
            return factors[0] * np.where(self.planes[0] < 0, -self.minus, self.planes[0])
        return (self.planes * factors).sum(axis=0)

    def to_numbers(self) -> Array:
        """Return the operand as float64 numbers."""
        return self.scale * self.to_codes() + self.offset


def require_ternary(values: Array, where: str) -> None:
    """Raise ConfigError, naming *where*, unless every entry of *values* is -1, 0 or +1."""
    values = np.asarray(values)
    if values.dtype == object or values.dtype.kind not in "iufb":
        raise ConfigError(f"{where}: must hold numbers in {{-1, 0, 1}}, got dtype {values.dtype}")
    wrong = (values != -1) & (values != 0) & (values != 1)
    if np.any(wrong):
        raise ConfigError(f"{where}: values must be in {{-1, 0, 1}}, got {values[wrong].flat[0]!r}")


def whole_factors(values: Sequence[int]) -> Array:
    """Return plane factors that are whole numbers, as int64."""
    return np.array(values, dtype=np.int64)
