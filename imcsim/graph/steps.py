"""The digital steps that follow a product: each a frozen record that knows the shape it makes.

A step takes numbers (b, channels, ...) and gives numbers. It says nothing of hardware: which lane of a chip's special
function unit does it is said in `imcsim.mapping.digital`, how it is computed in `imcsim.functional`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.formats import Format
from imcsim.records import Record, frozen_array

Shape = tuple[int, ...]


class Step(Record):
    """One digital operation on the numbers of a tensor."""

    keeps_codes: ClassVar[bool] = False
    """Whether codes that go in come out as codes of the same format; the others make real numbers of them."""

    def shape(self, shape: Shape) -> Shape:
        """Return the shape that comes out for numbers of *shape* (without the batch)."""
        return shape


class Joining(Step):
    """A step that reads a second tensor of the graph, which must be made before."""

    other: str
    """Name of the second tensor."""

    def require_fit(self, shape: Shape, other: Shape) -> None:
        """Raise GraphError unless a second tensor of shape *other* meets numbers of *shape*."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Affine(Step):
    """``scale * x + offset``, each a number or one per channel: scale factors, bias, batch norm."""

    scale: np.ndarray
    offset: np.ndarray

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            values = frozen_array(getattr(self, name), np.float64)
            if values.ndim > 1 or not np.all(np.isfinite(values)):
                raise GraphError(f"affine.{name}: must be finite, a number or one per channel, got {values}")
            object.__setattr__(self, name, values)

    def then(self, after: "Affine") -> "Affine":
        """Return the one affine step that does this one and then *after*."""
        return Affine(after.scale * self.scale, after.scale * self.offset + after.offset)


@dataclass(frozen=True, eq=False)
class RealProduct(Step):
    """A convolution or a linear map with real weights, which no tile can hold: its layer stays on the digital side.

    The products of one output are added one after the other in the order of the weights, the bias last, each sum
    rounded to float64, as one lane would do it: so every engine gives the same bits.
    """

    kind: Literal["conv2d", "linear"]

    weights: np.ndarray
    """float64; conv2d: (c_out, c_in, kh, kw); linear: (c_out, c_in)."""

    bias: np.ndarray = 0.0  # type: ignore[assignment]
    """float64, a number or one per output channel."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        for name in ("weights", "bias"):
            values = frozen_array(getattr(self, name), np.float64)
            if not np.all(np.isfinite(values)):
                raise GraphError(f"real {self.kind}: {name} must be finite, got {values[~np.isfinite(values)].flat[0]}")
            object.__setattr__(self, name, values)
        ndim = {"conv2d": 4, "linear": 2}[self.kind]
        if self.weights.ndim != ndim:
            raise GraphError(f"real {self.kind}: weights must have {ndim} axes, got shape {self.weights.shape}")
        if self.bias.shape not in ((), self.weights.shape[:1]):
            raise GraphError(
                f"real {self.kind}: bias must be a number or one for each of the {self.weights.shape[0]} outputs, got "
                f"shape {self.bias.shape}"
            )

    def shape(self, shape: Shape) -> Shape:
        """(c h w) to (c' h' w'), or (c) to (c'); raises GraphError when the weights do not fit."""
        if self.kind == "linear":
            if shape != self.weights.shape[1:]:
                raise GraphError(f"real linear: must get {self.weights.shape[1]} inputs, got shape {shape}")
            return (self.weights.shape[0],)
        if len(shape) != 3 or shape[0] != self.weights.shape[1]:
            raise GraphError(f"real conv2d: must get {self.weights.shape[1]} channels, got shape {shape}")
        window = window_shape(shape, self.weights.shape[2:], self.stride, self.padding)
        return (self.weights.shape[0], *window[1:])


@dataclass(frozen=True, eq=False)
class Tanh(Step):
    """``tanh(x)``."""


@dataclass(frozen=True, eq=False)
class Relu(Step):
    """``max(x, 0)``."""


@dataclass(frozen=True, eq=False)
class Threshold(Step):
    """Numbers to codes: ``codes[how many thresholds direction * x reaches]``, channel by channel.

    This is a quantizer, with whatever batch norm went before it folded in: a batch norm with a negative gamma
    turns `direction` to -1 instead of turning the codes round.
    """

    thresholds: np.ndarray
    """float64, (c n) or (1 n) ascending along n; reached means ``direction * x >= threshold``."""

    codes: np.ndarray
    """int64, (n + 1), strictly ascending."""

    format: Format
    """Of the codes that come out."""

    direction: np.ndarray = 1  # type: ignore[assignment]
    """int8, (c) or (1), each +1 or -1."""

    def __post_init__(self) -> None:
        thresholds = frozen_array(np.atleast_2d(np.asarray(self.thresholds, dtype=np.float64)), np.float64)
        codes = frozen_array(self.codes, np.int64)
        direction = frozen_array(np.atleast_1d(self.direction), np.int8)
        if np.any(np.isnan(thresholds)) or np.any(thresholds[:, 1:] < thresholds[:, :-1]):
            raise GraphError("threshold: thresholds must be numbers in ascending order; check the activation's levels")
        if codes.shape != (thresholds.shape[1] + 1,) or np.any(np.diff(codes) <= 0):
            raise GraphError(
                f"threshold: {thresholds.shape[1]} thresholds need {thresholds.shape[1] + 1} ascending codes, got "
                f"{codes.tolist()}"
            )
        if self.format.is_real:
            raise GraphError("threshold: format must be one of codes, got real numbers")
        if codes[0] < self.format.low or codes[-1] > self.format.high:
            raise GraphError(f"threshold: codes must fit {self.format}, got {codes[0]} to {codes[-1]}")
        if not np.all(np.abs(direction) == 1):
            raise GraphError("threshold: direction must be +1 or -1 for each channel")
        for name, value in (("thresholds", thresholds), ("codes", codes), ("direction", direction)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class Quantize(Step):
    """Numbers to codes on an even grid: ``clip(round(x / format.scale) + format.zero, low, high)``, halves to even.

    For grids with too many levels to be thresholds, such as 8 bits. A zero between two codes is added before rounding.
    """

    format: Format


@dataclass(frozen=True, eq=False)
class MaxPool(Step):
    """Greatest number of each window; what the padding adds is never the greatest."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    keeps_codes: ClassVar[bool] = True

    def shape(self, shape: Shape) -> Shape:
        """(c h w) to (c h' w')."""
        return window_shape(shape, self.kernel, self.stride, self.padding)


@dataclass(frozen=True, eq=False)
class AvgPool(Step):
    """Mean of each window; padding counts as zeros, as in PyTorch."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def shape(self, shape: Shape) -> Shape:
        """(c h w) to (c h' w')."""
        return window_shape(shape, self.kernel, self.stride, self.padding)


@dataclass(frozen=True, eq=False)
class Add(Joining):
    """Add another tensor of the same shape: ``x + scale * other``."""

    other: str
    """Name of the tensor; its scale is the one its codes have (1 for real numbers)."""

    scale: float = 1.0

    def require_fit(self, shape: Shape, other: Shape) -> None:
        """Raise GraphError unless the shapes are equal."""
        if other != shape:
            raise GraphError(f"add: must get shapes that are equal, got {shape} and {other}")


@dataclass(frozen=True, eq=False)
class Flatten(Step):
    """(c h w) to (c * h * w), channel after channel."""

    keeps_codes: ClassVar[bool] = True

    def shape(self, shape: Shape) -> Shape:
        """(c h w) to (c * h * w)."""
        return (int(np.prod(shape)),)


@dataclass(frozen=True, eq=False)
class LogSoftmax(Step):
    """``x - log(sum(exp(x)))`` over the channels."""


def window_shape(shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape = (1, 1)) -> Shape:
    """Return (c h' w') of a window that slides over (c h w); raises GraphError when it does not fit."""
    if len(shape) != 3:
        raise GraphError(f"window: needs an image (c h w), got shape {shape}")
    out = []
    for size, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True):
        n = (size + 2 * p - d * (k - 1) - 1) // s + 1
        if n < 1:
            raise GraphError(f"window: kernel {kernel} must fit the image {shape[1:]} with padding {padding}")
        out.append(n)
    return (shape[0], *out)
