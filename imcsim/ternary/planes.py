"""Every operand as a sum of scaled planes with entries in {-1, 0, +1}."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from imcsim.errors import ConfigError, DataError
from imcsim.records import Record, frozen_array

Array = np.ndarray


@dataclass(frozen=True)
class UnknownPlanes:
    """Planes of which nobody has the entries: their shape and their share of zeros, and one clear line for the rest.

    They stand where an array of planes would stand, and take no memory. Whoever asks for an entry gets a DataError.
    """

    shape: tuple[int, ...]
    """(p ...)."""

    zero_fraction: float
    of: str
    """The network that they are weights of."""

    def __post_init__(self) -> None:
        if len(self.shape) < 2 or any(size < 1 for size in self.shape):
            raise ConfigError(f"{self.of}: weights must have planes and a shape (p ...) of 1 or more, got {self.shape}")
        if not 0 <= self.zero_fraction <= 1:
            raise ConfigError(f"{self.of}: zero_fraction must be from 0 to 1, got {self.zero_fraction}")

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Axes, that of the planes included."""
        return len(self.shape)

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise DataError(no_values(self.of))

    def __getitem__(self, index: Any) -> NoReturn:
        raise DataError(no_values(self.of))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what Python and numpy probe for
            raise AttributeError(name)
        raise DataError(no_values(self.of))


def no_values(name: str, has: str = "shapes alone, no weights") -> str:
    """Return the line for whoever asks the network *name*, which *has* something else, for values."""
    return f"{name}: has {has}, so no values; run it with --engine simulate or estimate"


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

    group_size: int | None = None
    """How many consecutive inputs of an output share a scale (FGQ); None: all of them."""

    group_scale: Array | None = None
    """float64, (c g) or (c g ...): what each of the g groups of inputs of an output counts for, on top of the scale.

    Further axes are those behind the inputs, each whole or 1: a convolution's (c g kh kw) has groups of their own at
    each position of its window, (c g) or (c g 1 1) has groups over the whole window.
    """

    @classmethod
    def of_shape(
        cls, shape: tuple[int, ...], *, zero_fraction: float, of: str, n_planes: int = 1, minus: float = 1.0
    ) -> "PlaneSum":
        """Return the operand of *shape* whose entries nobody has: the weights of a network given by its shapes.

        Args:
            shape: Of the operand.
            zero_fraction: Share of the entries of its planes that are 0.
            of: The network that it is of, for messages.
            n_planes: How many planes; they count for 1, 2, 4 ...
            minus: What -1 counts for where +1 counts for 1.
        """
        planes: Any = UnknownPlanes((n_planes, *shape), zero_fraction, of)
        return cls(planes=planes, factors=whole_factors([1 << p for p in range(n_planes)]), minus=np.array(minus))

    def __post_init__(self) -> None:
        planes = self.planes
        if self.has_values:
            planes = np.asarray(planes)
            if planes.ndim < 1 or len(planes) == 0:
                raise ConfigError(f"planes: must hold at least one plane (p ...), got shape {planes.shape}")
            require_ternary(planes, "planes")
            object.__setattr__(self, "planes", frozen_array(planes, np.int8))
        factors = np.asarray(self.factors)
        whole = factors.dtype.kind in "iub"
        factors = frozen_array(factors, np.int64 if whole else np.float64)
        if len(factors) != len(planes):
            raise ConfigError(f"factors: must be one for each of the {len(planes)} planes, got {len(factors)}")
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
        self._check_groups()

    def _check_groups(self) -> None:
        if self.group_size is None and self.group_scale is None:
            return
        if self.group_size is None or self.group_scale is None:
            raise ConfigError("group_scale: must come with a group_size, and a group_size with it, got one of the two")
        shape = self.shape
        if isinstance(self.group_size, bool) or not isinstance(self.group_size, int) or self.group_size < 1:
            raise ConfigError(f"group_size: must be a whole number of at least 1, got {self.group_size!r}")
        if len(shape) < 2:
            raise ConfigError(f"group_size: must be of an operand with outputs and inputs (c i ...), got shape {shape}")
        scale = np.asarray(self.group_scale, dtype=np.float64)
        if scale.ndim == 2:
            scale = scale.reshape(*scale.shape, *(1,) * (len(shape) - 2))
        groups = (shape[0], -(-shape[1] // self.group_size))
        if scale.shape[:2] != groups or scale.shape[2:] not in (shape[2:], (1,) * (len(shape) - 2)):
            raise ConfigError(
                f"group_scale: must be one for each output and group {groups}, each also for each position of the "
                f"window {shape[2:]} or for all of them, got shape {np.shape(self.group_scale)}"
            )
        if not np.all(np.isfinite(scale)):
            raise ConfigError(f"group_scale: must be finite, got {scale[~np.isfinite(scale)].flat[0]}")
        object.__setattr__(self, "group_scale", frozen_array(scale, np.float64))

    @property
    def has_values(self) -> bool:
        """Whether the entries are known, and not their shape alone."""
        return not isinstance(self.planes, UnknownPlanes)

    @property
    def is_grouped(self) -> bool:
        """Whether groups of inputs have scales of their own."""
        return self.group_size is not None

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
        if isinstance(self.planes, UnknownPlanes):
            return self.planes.zero_fraction
        return float(np.mean(self.planes == 0)) if self.planes.size else 0.0

    def to_codes(self) -> Array:
        """Return ``sum_p factors[p] * planes[p]``: the operand before its scale and offset."""
        factors = self.factors.reshape(self.factors.shape + (1,) * (self.planes.ndim - self.factors.ndim))
        if self.is_asymmetric:
            return factors[0] * np.where(self.planes[0] < 0, -self.minus, self.planes[0])
        return (self.planes * factors).sum(axis=0)

    def to_numbers(self) -> Array:
        """Return the operand as float64 numbers."""
        return self.scale * self.scaled_codes() + self.offset

    def scaled_codes(self) -> Array:
        """Return the operand's codes, each times the scale of its group of inputs: the operand before its scale."""
        codes = self.to_codes()
        if self.group_size is None or self.group_scale is None:
            return codes
        return codes * np.repeat(self.group_scale, self.group_size, axis=1)[:, : self.shape[1]]


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
