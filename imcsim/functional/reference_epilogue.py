"""The steps of `imcsim.graph.epilogue` for the reference: channels first (b c ...), in float64, term after term."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imcsim.functional.reference_attention import attention_step
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


def epilogue_step(step: Step, x: Array, tensors: dict[str, Array]) -> Array:
    """Return what *step* makes of *x* (b c ...)."""
    match step:
        case PRelu(slope=slope):
            return np.maximum(x, 0.0) + _meet(slope, x) * np.minimum(x, 0.0)
        case Clip(low=low, high=high):
            return np.minimum(np.maximum(x, low), high)
        case Sigmoid():
            small = np.exp(-np.abs(x))
            return np.where(x < 0, small / (1.0 + small), 1.0 / (1.0 + small))
        case HardSwish():
            return x * np.minimum(np.maximum(x + 3.0, 0.0), 6.0) / 6.0
        case Abs():
            return np.maximum(x, -x)
        case SpatialAffine(scale=scale, offset=offset):
            return x * scale[np.newaxis] + offset[np.newaxis]
        case Mean(over="channels"):
            return _sum_of(x[:, c] for c in range(x.shape[1]))[:, np.newaxis] / x.shape[1]
        case Mean():
            pixels = _sum_of(x[:, c] for c in range(x.shape[1])).reshape(len(x), -1)
            total = _sum_of(pixels[:, p] for p in range(pixels.shape[1]))
            return (total / (x.size // max(1, len(x)))).reshape(-1, *(1,) * (x.ndim - 1))
        case Mul(other=name):
            return x * tensors[name]
        case Concat(other=name):
            return np.hstack([x, tensors[name]])
        case ArgMax(n_choices=n):
            firsts = [[sum(np.all(row[: i + 1] < row.max()) for i in range(n))] for row in x]
            return np.array(firsts, dtype=np.float64).reshape(len(x), 1)
        case Slice(first=first, last=last):
            return x[:, first:last]
        case AddChannels(other=name, scale=scale, first=first):
            other = tensors[name]
            below, above = np.zeros_like(x[:, :first]), np.zeros_like(x[:, first + other.shape[1] :])
            return x + np.hstack([below, other * _meet(scale, other), above])
        case ChannelMix(matrix=matrix):
            return np.stack([_sum_of(x[:, t] * row[t] for t in range(len(row))) for row in matrix], axis=1)
        case OnesColumn(groups=groups):
            return _ones_column(step, x, groups)
        case ExtremePool():
            return _extreme_pool(step, x)
    return attention_step(step, x, tensors)


def _sum_of(terms) -> Array:  # type: ignore[no-untyped-def]
    total = np.zeros(1)
    for term in terms:
        total = total + term
    return total


def _meet(values: Array, x: Array) -> Array:
    """Values one per channel (or one) shaped to meet x (b c ...)."""
    return values if values.ndim == 0 else values.reshape(1, -1, *(1,) * (x.ndim - 2))


def _ones_column(step: OnesColumn, x: Array, groups: int) -> Array:
    parts, ones = [], []
    for part in np.split(x, groups, axis=1):
        parts.append(part[:, :-1])
        ones.append(np.repeat(part[:, -1:], part.shape[1] - 1, axis=1))
    sums, ones_of = np.hstack(parts), np.hstack(ones)
    return _meet(step.scale, sums) * sums + _meet(step.ones_scale, sums) * ones_of + _meet(step.offset, sums)


def _extreme_pool(step: ExtremePool, x: Array) -> Array:
    (py, px), direction = step.padding, _meet(step.direction, x)
    turned = np.pad(x * direction, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=-np.inf)
    windows = sliding_window_view(turned, step.kernel, axis=(2, 3))[:, :, :: step.stride[0], :: step.stride[1]]
    return windows.max(axis=(4, 5)) * direction
