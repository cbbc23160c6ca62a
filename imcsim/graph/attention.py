"""Digital steps of networks that attend: products of two tensors, soft maxima, norms over axes, axes in other orders.

A sequence of t tokens with c channels is an image (c 1 t), and a linear map of each token a convolution of 1 x 1 over
it. Attention cuts the channels into heads, (h t d), and multiplies two tensors head by head. These steps count axes
from 0 behind the batch, and take any number of them.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.steps import Joining, Shape, Step
from imcsim.records import frozen_array

# --- the order of numbers -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Permute(Step):
    """The axes in another order: the i-th that comes out is the `axes[i]`-th that goes in."""

    axes: tuple[int, ...]
    keeps_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.axes or sorted(self.axes) != list(range(len(self.axes))):
            raise GraphError(f"permute: axes must be those from 0 on, each once, got {self.axes}")

    def shape(self, shape: Shape) -> Shape:
        """Return the sizes in the order of `axes`; raises GraphError for another number of axes."""
        if len(shape) != len(self.axes):
            raise GraphError(f"permute: must get {len(self.axes)} axes, got shape {shape}")
        return tuple(shape[axis] for axis in self.axes)


@dataclass(frozen=True, eq=False)
class Reshape(Step):
    """The same numbers in their order, the last axis first to change, cut into axes of other sizes."""

    sizes: tuple[int, ...]
    """Of the axes that come out."""

    keeps_codes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise GraphError(f"reshape: sizes must be at least 1, got {self.sizes}")

    def shape(self, shape: Shape) -> Shape:
        """Return `sizes`; raises GraphError where these are not as many numbers."""
        if prod(shape) != prod(self.sizes):
            raise GraphError(f"reshape: must get {prod(self.sizes)} numbers for {self.sizes}, got shape {shape}")
        return self.sizes


# --- products of two tensors ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MatMul(Joining):
    """The matrix product with another tensor, one for each place of the axes before: (... m d) by (... d n).

    Codes count as the whole numbers that they are; scales are steps of their own. The terms of one number are added in
    the order of d, each sum rounded to float64, as one lane would do it.
    """

    other: str

    n_columns: int
    """n: columns of the other tensor's matrices."""

    is_transposed: bool = False
    """Whether the other is (... n d), so that its rows are multiplied."""

    def __post_init__(self) -> None:
        if self.n_columns < 1:
            raise GraphError(f"mat mul: n_columns must be at least 1, got {self.n_columns}")

    def shape(self, shape: Shape) -> Shape:
        """(... m d) to (... m n)."""
        if len(shape) < 2:
            raise GraphError(f"mat mul: must get matrices (... m d), got shape {shape}")
        return (*shape[:-1], self.n_columns)

    def require_fit(self, shape: Shape, other: Shape) -> None:
        """Raise GraphError unless the other has matrices that fit, as many as this one or one in place of an axis."""
        matrix = (self.n_columns, shape[-1]) if self.is_transposed else (shape[-1], self.n_columns)
        places = zip(other[:-2], shape[:-2], strict=False)
        if len(other) != len(shape) or other[-2:] != matrix or any(a not in (1, b) for a, b in places):
            raise GraphError(
                f"mat mul: must get matrices of shape {(*shape[:-2], *matrix)}, or with 1 in the place of an axis "
                f"before the last two, got {other}"
            )


# --- functions of several numbers -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Softmax(Step):
    """``exp(x - greatest) / sum(exp(x - greatest))`` along one axis, terms added in its order."""

    axis: int

    def __post_init__(self) -> None:
        if self.axis < 0:
            raise GraphError(f"softmax: axis must be counted from 0 behind the batch, got {self.axis}")

    def shape(self, shape: Shape) -> Shape:
        """Return *shape*; raises GraphError where it has no such axis."""
        if self.axis >= len(shape):
            raise GraphError(f"softmax: axis must be one of the {len(shape)} of shape {shape}, got {self.axis}")
        return shape


@dataclass(frozen=True, eq=False)
class LayerNorm(Step):
    """``scale * (x - mean) / sqrt(variance + eps) + offset``, mean and variance over some axes of each sample.

    Over the channels of a token this is layer norm, over the image instance norm. Without `is_centred` nothing is
    taken away and the mean of the squares stands for the variance (RMSNorm; Zhang, Sennrich, 2019). Numbers are added
    in their order, the last axis first to change.
    """

    axes: tuple[int, ...]
    eps: float = 1e-5

    scale: np.ndarray = 1.0  # type: ignore[assignment]
    """float64, a number or a table with as many axes as the numbers, each whole or 1."""

    offset: np.ndarray = 0.0  # type: ignore[assignment]
    """As the scale."""

    is_centred: bool = True

    def __post_init__(self) -> None:
        if not self.axes or sorted(set(self.axes)) != list(self.axes) or self.axes[0] < 0:
            raise GraphError(f"layer norm: axes must ascend, counted from 0 behind the batch, got {self.axes}")
        if not (np.isfinite(self.eps) and self.eps >= 0):
            raise GraphError(f"layer norm: eps must be finite and at least 0, got {self.eps}")
        for name in ("scale", "offset"):
            values: Any = frozen_array(getattr(self, name), np.float64)
            if not np.all(np.isfinite(values)):
                raise GraphError(f"layer norm: {name} must be finite, got {values[~np.isfinite(values)].flat[0]}")
            object.__setattr__(self, name, values)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is scaled or added behind the norm."""
        return bool(np.all(self.scale == 1) and np.all(self.offset == 0))

    def shape(self, shape: Shape) -> Shape:
        """Return *shape*; raises GraphError where it has not these axes, or the tables do not meet it."""
        if self.axes[-1] >= len(shape):
            raise GraphError(f"layer norm: axes must be among the {len(shape)} of shape {shape}, got {self.axes}")
        for name in ("scale", "offset"):
            table = getattr(self, name)
            meets = len(table.shape) == len(shape) and all(
                a in (1, b) for a, b in zip(table.shape, shape, strict=False)
            )
            if table.ndim and not meets:
                raise GraphError(
                    f"layer norm: {name} must be a number or a table of shape {shape}, each axis whole or 1, got shape "
                    f"{table.shape}"
                )
        return shape


# --- functions of one number ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Gelu(Step):
    """``x / 2 * (1 + erf(x / sqrt(2)))``, or the form with a tanh that is near it (Hendrycks, Gimpel, 2016)."""

    form: Literal["erf", "tanh"] = "erf"
    """tanh: ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))``."""

    def __post_init__(self) -> None:
        if self.form not in ("erf", "tanh"):
            raise GraphError(f"gelu: form must be erf or tanh, got {self.form!r}")


@dataclass(frozen=True, eq=False)
class Silu(Step):
    """``x / (1 + exp(-x))``."""


@dataclass(frozen=True, eq=False)
class Exp(Step):
    """``exp(x)``."""


@dataclass(frozen=True, eq=False)
class Erf(Step):
    """``erf(x)``."""
