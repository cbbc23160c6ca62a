"""Digital steps that published quantizers need beside the common ones of `imcsim.graph.steps` (quantizers.md B.5).

Scales: static per pixel (`SpatialAffine`), computed per sample or per pixel at run time (`Abs` and `Mean` make the
factors, `Mul` applies them). Branches: `Concat`, `Slice`, `AddChannels`. Functions: `PRelu`, `Clip`, `Sigmoid`,
`HardSwish`. Choices: `ArgMax`. Sums among themselves: `ChannelMix`, `OnesColumn`. Windows: `ExtremePool`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.formats import Format, unsigned
from imcsim.graph.steps import Joining, Shape, Step, window_shape
from imcsim.records import frozen_array

# --- functions of one number ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PRelu(Step):
    """``x`` above 0, else ``slope * x``; a leaky ReLU has one slope. RPReLU is this between two affine steps."""

    slope: np.ndarray
    """float64, a number or one per channel."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", _per_channel("prelu: slope", self.slope))

    def shape(self, shape: Shape) -> Shape:
        """Return *shape*; raises GraphError when it has not one channel for each slope."""
        _require_channels("prelu: slope", self.slope, shape)
        return shape


@dataclass(frozen=True, eq=False)
class Clip(Step):
    """``min(max(x, low), high)``: hard tanh, ReLU6, the clamp of PACT."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low <= self.high):
            raise GraphError(f"clip: must have a finite low that is not above high, got {self.low} and {self.high}")


@dataclass(frozen=True, eq=False)
class Sigmoid(Step):
    """``1 / (1 + exp(-x))``."""


@dataclass(frozen=True, eq=False)
class HardSwish(Step):
    """``x * min(max(x + 3, 0), 6) / 6``."""


@dataclass(frozen=True, eq=False)
class Abs(Step):
    """``|x|``."""


@dataclass(frozen=True, eq=False)
class ArgMax(Step):
    """Which of the `n_choices` numbers of a sample is the greatest, as a code; the first one of equals.

    CConv's gate: winner takes all.
    """

    n_choices: int

    def __post_init__(self) -> None:
        if self.n_choices < 2:
            raise GraphError(f"arg max: n_choices must be at least 2, got {self.n_choices}")

    @property
    def format(self) -> Format:
        """Of the codes that come out."""
        return unsigned((self.n_choices - 1).bit_length())

    def shape(self, shape: Shape) -> Shape:
        """(n_choices) to (1)."""
        if shape != (self.n_choices,):
            raise GraphError(f"arg max: must get {self.n_choices} numbers, got shape {shape}")
        return (1,)


# --- scales ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SpatialAffine(Step):
    """``scale * x + offset`` with tables over the image: XNOR-Net++'s Gamma, corrections that differ at the borders."""

    scale: np.ndarray
    """float64, a number or (c h w), each axis whole or 1."""

    offset: np.ndarray = 0.0  # type: ignore[assignment]
    """float64, a number or (c h w), each axis whole or 1."""

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            values = frozen_array(getattr(self, name), np.float64)
            if values.ndim not in (0, 3) or not np.all(np.isfinite(values)):
                raise GraphError(
                    f"spatial affine: {name} must be finite, a number or a table (c h w), got "
                    f"{_wrong(values) if values.ndim in (0, 3) else f'shape {values.shape}'}"
                )
            object.__setattr__(self, name, values)

    def shape(self, shape: Shape) -> Shape:
        """Return *shape*; raises GraphError when it is not an image that the tables meet."""
        for name in ("scale", "offset"):
            table = getattr(self, name)
            if len(shape) != 3 or (table.ndim and not _meets(table.shape, shape)):
                raise GraphError(
                    f"spatial affine: {name} must meet an image (c h w), each axis whole or 1, got shape {table.shape} "
                    f"for numbers of shape {shape}"
                )
        return shape


@dataclass(frozen=True, eq=False)
class Mean(Step):
    """Mean over the channels of each pixel, (c h w) to (1 h w), or over all numbers of a sample, to (1 1 1) or (1).

    The numbers of a pixel are added in the order of the channels, the sums of pixels row by row. Behind `Abs`, over
    the channels and with an `AvgPool` behind it, this is XNOR-Net's K; over the sample it is the scale of LS-BQNN.
    """

    over: Literal["channels", "sample"]

    def __post_init__(self) -> None:
        if self.over not in ("channels", "sample"):
            raise GraphError(f"mean: over must be channels or sample, got {self.over!r}")

    def shape(self, shape: Shape) -> Shape:
        """(c h w) to (1 h w) or (1 1 1), (c) to (1)."""
        return (1, *shape[1:]) if self.over == "channels" else (1,) * len(shape)


@dataclass(frozen=True, eq=False)
class Mul(Joining):
    """Multiply by another tensor: ``x * other``, which may have 1 in the place of any axis."""

    other: str

    def require_fit(self, shape: Shape, other: Shape) -> None:
        """Raise GraphError unless each axis of the other is that of the numbers, or 1."""
        if not _meets(other, shape):
            raise GraphError(f"mul: must get a tensor of shape {shape}, or with 1 in the place of an axis, got {other}")


# --- branches -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Concat(Joining):
    """The channels of another tensor behind those of this one; codes stay codes where both have one format."""

    other: str

    n_channels: int
    """Channels of the other tensor."""

    keeps_codes: ClassVar[bool] = True

    def shape(self, shape: Shape) -> Shape:
        """(c ...) to (c + n_channels ...)."""
        return (shape[0] + self.n_channels, *shape[1:])

    def require_fit(self, shape: Shape, other: Shape) -> None:
        """Raise GraphError unless the other has `n_channels` channels of the same image."""
        if other != (self.n_channels, *shape[1:]):
            raise GraphError(f"concat: must get a tensor of shape {(self.n_channels, *shape[1:])}, got {other}")


@dataclass(frozen=True, eq=False)
class Slice(Step):
    """The channels from `first` up to `last`, without it; or the places along another axis, such as time steps."""

    first: int
    last: int
    axis: int = 0
    """Behind the batch; 0: channels."""

    keeps_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last or self.axis < 0:
            raise GraphError(
                f"slice: must have first below last, both from 0 up, along an axis from 0 up, got {self.first} and "
                f"{self.last} along {self.axis}"
            )

    def shape(self, shape: Shape) -> Shape:
        """(c ...) to (last - first ...)."""
        if self.axis >= len(shape) or self.last > shape[self.axis]:
            raise GraphError(
                f"slice: must lie within shape {shape}, got {self.first} up to {self.last} along axis {self.axis}"
            )
        return (*shape[: self.axis], self.last - self.first, *shape[self.axis + 1 :])


@dataclass(frozen=True, eq=False)
class AddChannels(Joining):
    """Add another tensor, channel by channel, to as many channels from `first` on: ``x[c] + scale[c] * other[c]``.

    MeliusNet's improvement block adds to the last 64 channels; BBG's gated branch adds with a gate for each channel.
    """

    other: str

    scale: np.ndarray = 1.0  # type: ignore[assignment]
    """float64, a number or one for each channel of the other."""

    first: int = 0
    """Channel of this tensor that the first channel of the other is added to."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _per_channel("add channels: scale", self.scale))
        if self.first < 0:
            raise GraphError(f"add channels: first must be at least 0, got {self.first}")

    def require_fit(self, shape: Shape, other: Shape) -> None:
        """Raise GraphError unless the other's channels lie within these and each has a scale."""
        if len(other) != len(shape) or other[1:] != shape[1:] or self.first + other[0] > shape[0]:
            raise GraphError(
                f"add channels: must get channels that lie within the {shape[0]} of shape {shape} from {self.first} "
                f"on, got shape {other}"
            )
        _require_channels("add channels: scale", self.scale, other)


# --- sums among themselves ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ChannelMix(Step):
    """Whole-number sums of channels, pixel by pixel: ``y[s] = sum_t matrix[s, t] * x[t]``.

    CI-BCNN's corrections of one popcount by others, with the ones of the popcounts themselves on the diagonal. The
    terms of one output are added in the order of the channels.
    """

    matrix: np.ndarray
    """int64, (c_out c_in), mostly zeros."""

    def __post_init__(self) -> None:
        values = np.asarray(self.matrix)
        if values.ndim != 2 or 0 in values.shape:
            raise GraphError(f"channel mix: matrix must have two axes (c_out c_in), got shape {values.shape}")
        if not np.all(np.isfinite(values)) or np.any(values != np.rint(values)):
            wrong = values[~(np.isfinite(values) & (values == np.rint(values)))].flat[0]
            raise GraphError(f"channel mix: matrix must hold whole numbers, got {wrong}")
        object.__setattr__(self, "matrix", frozen_array(values, np.int64))

    def shape(self, shape: Shape) -> Shape:
        """(c_in ...) to (c_out ...)."""
        if shape[0] != self.matrix.shape[1]:
            raise GraphError(f"channel mix: must get {self.matrix.shape[1]} channels, got shape {shape}")
        return (self.matrix.shape[0], *shape[1:])

    @property
    def n_terms(self) -> int:
        """Multiply-adds of one pixel: entries that are not 0, but for a +1 that an output can begin with."""
        begins = np.any(self.matrix == 1, axis=1)
        return int(np.count_nonzero(self.matrix) - np.count_nonzero(begins))


@dataclass(frozen=True, eq=False)
class OnesColumn(Step):
    """Use the sum of the inputs, which an all-ones column gives as the last channel of each group, and drop it.

    ``scale[c] * x[c] + ones_scale[c] * ones + offset[c]``: what weights with an offset add to each output
    (quantizers.md B.3: ``gamma_a beta_w sum T_a``).
    """

    scale: np.ndarray
    """float64, a number or one per output channel; so are the others."""

    ones_scale: np.ndarray
    offset: np.ndarray = 0.0  # type: ignore[assignment]
    groups: int = 1
    """Groups of the convolution; each has a column of ones of its own."""

    def __post_init__(self) -> None:
        for name in ("scale", "ones_scale", "offset"):
            object.__setattr__(self, name, _per_channel(f"ones column: {name}", getattr(self, name)))
        if self.groups < 1:
            raise GraphError(f"ones column: groups must be at least 1, got {self.groups}")

    def shape(self, shape: Shape) -> Shape:
        """(c + groups ...) to (c ...)."""
        if shape[0] % self.groups or shape[0] < 2 * self.groups:
            raise GraphError(
                f"ones column: must get the outputs of {self.groups} groups, each with its sum of inputs behind them, "
                f"got shape {shape}"
            )
        out = (shape[0] - self.groups, *shape[1:])
        for name in ("scale", "ones_scale", "offset"):
            _require_channels(f"ones column: {name}", getattr(self, name), out)
        return out


# --- windows --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ExtremePool(Step):
    """Greatest number of each window in channels of direction +1, least in those of -1; padding is never it.

    A max pool before a batch norm with a negative gamma is a min pool behind the sign (quantizers.md B.4).
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    direction: np.ndarray = -1  # type: ignore[assignment]
    """int8, one number or one per channel, each +1 or -1."""

    keeps_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        direction = frozen_array(np.atleast_1d(self.direction), np.int8)
        if direction.ndim != 1 or not np.all(np.abs(direction) == 1):
            raise GraphError(f"extreme pool: direction must be +1 or -1 for each channel, got {direction.tolist()}")
        object.__setattr__(self, "direction", direction)

    def shape(self, shape: Shape) -> Shape:
        """(c h w) to (c h' w')."""
        _require_channels("extreme pool: direction", self.direction, shape)
        return window_shape(shape, self.kernel, self.stride, self.padding)


# --- checks ---------------------------------------------------------------------------------------------------------


def _per_channel(name: str, values: Any) -> np.ndarray:
    """Return *values* as float64, a number or one per channel; raises GraphError for anything else."""
    array = frozen_array(values, np.float64)
    if array.ndim > 1:
        raise GraphError(f"{name} must be a number or one per channel, got shape {array.shape}")
    if not np.all(np.isfinite(array)):
        raise GraphError(f"{name} must be finite, got {_wrong(array)}")
    return array


def _wrong(values: np.ndarray) -> float:
    return float(values[~np.isfinite(values)].flat[0])


def _require_channels(name: str, values: np.ndarray, shape: Shape) -> None:
    if values.size not in (1, shape[0]):
        raise GraphError(f"{name} must be one for each of the {shape[0]} channels, got {values.size}")


def _meets(other: Shape, shape: Shape) -> bool:
    return len(other) == len(shape) and all(a in (1, b) for a, b in zip(other, shape, strict=True))
