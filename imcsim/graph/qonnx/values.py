"""A tensor of the file as the walk knows it: which tensor of the graph holds it, and what its codes count for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, prod

import numpy as np

from imcsim.graph.formats import REAL, Format
from imcsim.graph.qonnx.constants import UnfitError
from imcsim.graph.steps import Affine, Shape, Step

Array = np.ndarray
ONE, ZERO = np.array(1.0), np.array(0.0)


@dataclass(frozen=True, eq=False)
class Value:
    """Numbers ``scale * (code - zero)`` of a tensor of codes, or the numbers of a real tensor themselves.

    Scales, shifts and padding wait here until an operator needs the numbers; what is linear passes them on.
    """

    tensor: str
    """Of the graph."""

    shape: Shape
    """As the file has it, without the batch: (c), (c l), (c h w), or other axes in any number."""

    form: Format = REAL
    """Of the tensor."""

    scale: Array = field(default_factory=lambda: ONE)
    """float64, () or (c), for the first axis of the tensor; so is the zero. 1 and 0 for real numbers."""

    zero: Array = field(default_factory=lambda: ZERO)

    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Rows and columns of `pad_number` that lie around the image and not in the tensor: top, left, bottom, right."""

    pad_number: float = 0.0
    low: float = -inf
    """No number is below this, and none above `high`."""

    high: float = inf
    is_assumed: bool = False
    """Whether the codes are those of assumed bits (`imcsim.graph.qonnx.assume`)."""

    order: tuple[int, ...] | None = None
    """Which of the file's axes each axis of the tensor is, where they lie in another order than the file has them."""

    batch_axis: int | None = 0
    """Where the file has the batch, None where a batch of 1 is part of another axis.

    Elsewhere than in front it is of sequences (t b c) of recurrent layers, and between operators that move axes.
    """

    is_tokens: bool = False
    """Whether these are rows of a table: (t) in the file, an image (1 1 t) in the graph."""

    def behind_batch(self, axis: int) -> int:
        """Return which of the axes of `shape` the *axis* of the file is; raises UnfitError for the batch."""
        at = self.batch_axis
        axis %= len(self.shape) + (at is not None)
        if axis == at:
            raise UnfitError("of the batch", "any other axis")
        return axis - (at is not None and axis > at)

    def whole(self, batch: int) -> Shape:
        """Return the shape as the file has it, with a *batch*."""
        at = self.batch_axis
        return self.shape if at is None else (*self.shape[:at], batch, *self.shape[at:])

    @property
    def axes(self) -> tuple[int, ...]:
        """Which of the file's axes each axis of the tensor is."""
        return tuple(range(len(self.shape))) if self.order is None else self.order

    @property
    def is_moved(self) -> bool:
        """Whether the file has the axes, or the batch, elsewhere than the tensor."""
        return self.order is not None or self.batch_axis != 0

    def place_of(self, axis: int) -> int:
        """Return where the *axis* of the file, counted behind the batch, lies in the tensor of the graph."""
        place = self.axes.index(axis)
        return 2 * place if len(self.shape) == 2 else place

    def arranged(self, values: Array) -> Array:
        """Return *values*, which have the axes of the file, with those of the tensor in the graph."""
        moved = values.transpose(self.axes)
        return moved.reshape(placed(moved.shape))

    @property
    def is_codes(self) -> bool:
        """Whether the tensor holds codes."""
        return not self.form.is_real

    @property
    def placed(self) -> Shape:
        """The shape of the tensor in the graph, without padding: a sequence (c l) is an image (c 1 l)."""
        if self.is_tokens:
            return (1, 1, prod(self.shape))
        return placed(tuple(self.shape[axis] for axis in self.axes))

    def taken_back(self, shape: Shape) -> Shape:
        """Return what the file has for *shape* of the graph, where the axes of this value stay."""
        if self.is_tokens:
            return self.shape
        sizes = dict(zip(self.axes, taken_back(shape, len(self.shape)), strict=True))
        return tuple(sizes[axis] for axis in range(len(sizes)))

    @property
    def padded(self) -> Shape:
        """The shape as the file has it, padding included."""
        top, left, bottom, right = self.pads
        more = (0, top + bottom, left + right) if len(self.shape) == 3 else (0, left + right)
        return tuple(n + m for n, m in zip(self.shape, more, strict=False))

    def numbers(self) -> tuple[Step, ...]:
        """Return the steps that make numbers of what the tensor holds."""
        if np.all(self.scale == 1) and np.all(self.zero == 0):
            return ()
        return (Affine(self.scale, -self.scale * self.zero),)

    def as_format(self) -> Format:
        """Return what the codes count for, as a format; raises UnfitError where that differs between channels."""
        if self.scale.ndim or self.zero.ndim:
            raise UnfitError("of codes whose scale or zero differs between channels", "one scale for all channels")
        return replace(self.form, scale=float(self.scale), zero=float(self.zero))

    def affine(self, scale: Array, offset: Array) -> "Value":
        """Return ``scale * x + offset`` of codes, without a step; neither holds a 0 as its scale."""
        now = self.scale * scale
        low, high = _bounds(self.low, self.high, scale, offset)
        return replace(self, scale=now, zero=self.zero - offset / now, low=low, high=high)


def placed(shape: Shape) -> Shape:
    """Return the shape that a tensor of the file has in the graph.

    >>> placed((3, 8))
    (3, 1, 8)
    """
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def taken_back(shape: Shape, n_axes: int) -> Shape:
    """Return the shape of the file, of *n_axes* axes, for one of the graph."""
    return (shape[0], shape[2]) if n_axes == 2 else shape


def in_order(axes: Sequence[int]) -> tuple[int, ...] | None:
    """Return *axes* as the order of a `Value`: None where they are as the file has them."""
    return None if list(axes) == list(range(len(axes))) else tuple(axes)


def bounds_after(step: Step, low: float, high: float) -> tuple[float, float]:
    """Return the least and the greatest number behind an affine *step*."""
    return _bounds(low, high, step.scale, step.offset) if isinstance(step, Affine) else (-inf, inf)


def _bounds(low: float, high: float, scale: Array, offset: Array) -> tuple[float, float]:
    if not (np.isfinite(low) and np.isfinite(high)):
        return -inf, inf
    ends = [scale * low + offset, scale * high + offset]
    return float(np.min(ends)), float(np.max(ends))


def is_flat(shape: Shape) -> bool:
    """Whether numbers of *shape* lie in a row, whatever axes they have."""
    return prod(shape[1:]) == 1
