"""What the digital units compute: the steps of `imcsim.graph.epilogue`, on numbers with the channels last (b h w c)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from imcsim.graph import (
    Abs,
    AddChannels,
    ArgMax,
    ChannelMix,
    Clip,
    Concat,
    ExtremePool,
    HardSwish,
    Mean,
    Mul,
    OnesColumn,
    PRelu,
    Sigmoid,
    Slice,
    SpatialAffine,
    Step,
)

Array = np.ndarray
Tensors = dict[str, Array]


def _prelu(step: PRelu, x: Array, tensors: Tensors) -> Array:
    return np.where(x > 0, x, step.slope * x)


def _clip(step: Clip, x: Array, tensors: Tensors) -> Array:
    return np.clip(x, np.float64(step.low), np.float64(step.high))


def _sigmoid(step: Sigmoid, x: Array, tensors: Tensors) -> Array:
    x = np.ascontiguousarray(x, dtype=np.float64)
    small = np.exp(-np.abs(x))  # never above 1, so that nothing overflows
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _hard_swish(step: HardSwish, x: Array, tensors: Tensors) -> Array:
    return x * np.clip(x + np.float64(3.0), 0.0, 6.0) / 6.0


def _abs(step: Abs, x: Array, tensors: Tensors) -> Array:
    return np.abs(x.astype(np.float64))  # -128 has no counterpart among codes of 8 bits


def _spatial_affine(step: SpatialAffine, x: Array, tensors: Tensors) -> Array:
    scale, offset = (np.moveaxis(table, 0, -1) if table.ndim else table for table in (step.scale, step.offset))
    return scale * x + offset


def _mean(step: Mean, x: Array, tensors: Tensors) -> Array:
    total = _total(x, axis=-1)  # b ...
    if step.over == "channels":
        return total[..., np.newaxis] / x.shape[-1]
    n = x[0].size if len(x) else 1
    total = _total(total.reshape(len(x), -1), axis=-1) if x.ndim > 2 else total
    return (total / n).reshape(len(x), *(1,) * (x.ndim - 1))


def _total(x: Array, axis: int) -> Array:
    """Add up along *axis* one after the other, as one lane does, and not pairwise as numpy would."""
    return np.add.accumulate(x, axis=axis, dtype=np.float64).take(-1, axis=axis)


def _mul(step: Mul, x: Array, tensors: Tensors) -> Array:
    return x * tensors[step.other].astype(np.float64)


def _concat(step: Concat, x: Array, tensors: Tensors) -> Array:
    return np.concatenate([x, tensors[step.other]], axis=-1)


def _add_channels(step: AddChannels, x: Array, tensors: Tensors) -> Array:
    other = tensors[step.other]
    result = x.astype(np.float64)
    result[..., step.first : step.first + other.shape[-1]] += step.scale * other
    return result


def _channel_mix(step: ChannelMix, x: Array, tensors: Tensors) -> Array:
    """The k-th terms of all outputs together: outputs with fewer terms add nothing."""
    x = x.astype(np.int64) if x.dtype.kind == "i" else x
    most = int(np.count_nonzero(step.matrix, axis=1).max())
    places = np.argsort(step.matrix == 0, axis=1, kind="stable")[:, :most]  # c k: those that are not 0, ascending
    entries = np.take_along_axis(step.matrix, places, axis=1)
    total = np.zeros((*x.shape[:-1], len(step.matrix)), x.dtype)
    for place, entry in zip(places.T, entries.T, strict=True):
        total += entry * x[..., place]
    return total


def _ones_column(step: OnesColumn, x: Array, tensors: Tensors) -> Array:
    grouped = x.reshape(*x.shape[:-1], step.groups, -1)
    ones = np.broadcast_to(grouped[..., -1:], grouped[..., :-1].shape)
    sums, ones = (part.reshape(*x.shape[:-1], -1) for part in (grouped[..., :-1], ones))
    return step.scale * sums + step.ones_scale * ones + step.offset


def _extreme_pool(step: ExtremePool, x: Array, tensors: Tensors) -> Array:
    (py, px), (sy, sx) = step.padding, step.stride
    _, height, width = step.shape((x.shape[3], x.shape[1], x.shape[2]))
    least, greatest = (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max) if x.dtype.kind == "i" else (-np.inf, np.inf)
    found = []
    for choose, fill in ((np.maximum, least), (np.minimum, greatest)):
        padded = np.pad(x, ((0, 0), (py, py), (px, px), (0, 0)), constant_values=fill)
        result = np.full((len(x), height, width, x.shape[3]), fill, x.dtype)
        for i in range(step.kernel[0]):
            for j in range(step.kernel[1]):
                window = padded[:, i : i + (height - 1) * sy + 1 : sy, j : j + (width - 1) * sx + 1 : sx]
                choose(result, window, out=result)
        found.append(result)
    return np.where(step.direction > 0, *found)


def _slice(step: Slice, x: Array, tensors: Tensors) -> Array:
    """The channels, the first axis of the graph's, are last; the others keep their places behind the batch."""
    axis = step.axis or -1
    return np.moveaxis(np.moveaxis(x, axis, 0)[step.first : step.last], 0, axis)


EPILOGUE: dict[type[Step], Callable[[Any, Array, Tensors], Array]] = {
    PRelu: _prelu,
    Clip: _clip,
    Sigmoid: _sigmoid,
    HardSwish: _hard_swish,
    Abs: _abs,
    SpatialAffine: _spatial_affine,
    Mean: _mean,
    Mul: _mul,
    Concat: _concat,
    ArgMax: lambda step, x, tensors: x.argmax(axis=-1, keepdims=True).astype(np.int32),
    Slice: _slice,
    AddChannels: _add_channels,
    ChannelMix: _channel_mix,
    OnesColumn: _ones_column,
    ExtremePool: _extreme_pool,
}
"""How each step is computed: the step, the numbers, and the tensors made before."""
