"""What the digital units compute: every step of a layer on numbers with the channels last (b h w c).

A step looks at one sample at a time, so a few samples go through all steps of a layer while they are in the nearest
cache, and threads share the samples out. No number depends on how.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from imcsim.errors import DataError
from imcsim.functional.attention import ATTENTION
from imcsim.functional.axes import channels_first
from imcsim.functional.epilogue import EPILOGUE
from imcsim.functional.kernels import compiled, share
from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Embedding,
    Flatten,
    Joining,
    LogSoftmax,
    MaxPool,
    Quantize,
    RealProduct,
    Relu,
    Step,
    Tanh,
    Threshold,
)

Array = np.ndarray

MOST_NUMBERS = 1 << 16
"""Numbers that go through the steps of a layer together, unless one sample has more."""


def apply_steps(steps: Sequence[Step], x: Array, tensors: dict[str, Array]) -> Array:
    """Return what *steps* make of *x* (b ...), where a step may read further *tensors* (b ...)."""
    if not steps:
        return x

    def applied(first: int, last: int) -> Array:
        part = x[first:last]
        others = {name: tensors[name][first:last] for name in names}
        for step in steps:
            part = STEPS[type(step)](step, part, others)
        return part

    names = [step.other for step in steps if isinstance(step, Joining)]
    at_once = max(1, MOST_NUMBERS // max(1, prod(x.shape[1:])))
    if len(x) <= at_once:
        return applied(0, len(x))
    begun = applied(0, at_once)
    out = np.empty((len(x), *begun.shape[1:]), begun.dtype)
    out[:at_once] = begun

    def fill(first: int, last: int) -> None:
        out[at_once + first : at_once + last] = applied(at_once + first, at_once + last)

    share(fill, len(x) - at_once, at_most=at_once)
    return out


def _rows(x: Array) -> Array:
    """Return *x* (... c) as (m c)."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


class _Same:
    """A step as a key: records are told apart by identity, since they hold arrays."""

    def __init__(self, step: Any) -> None:
        self.step = step

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.step is other.step

    def __hash__(self) -> int:
        return id(self.step)


def _affine(step: Affine, x: Array, tensors: dict[str, Array]) -> Array:
    out = np.empty(x.shape)
    _affine_rows(_rows(x), *_factors(_Same(step), x.shape[-1]), _rows(out))
    return out


@lru_cache(maxsize=256)
def _factors(key: _Same, n: int) -> tuple[Array, Array]:
    """Return scale (n) and offset (n)."""
    step = key.step
    return np.full(n, step.scale), np.full(n, step.offset)


@compiled
def _affine_rows(x, scale, offset, out):
    for m in range(x.shape[0]):
        numbers, made = x[m], out[m]
        for c in range(made.size):
            made[c] = scale[c] * numbers[c] + offset[c]


def _real_product(step: RealProduct, x: Array, tensors: dict[str, Array]) -> Array:
    """NOTE: image after image in place, so that the sums stay in the nearest cache; the order of additions is said."""
    n_outputs, *inner = step.weights.shape
    if step.kind == "linear":
        places = [x[..., np.newaxis, i] for i in range(inner[0])]
    else:
        (py, px), (sy, sx) = step.padding, step.stride
        _, height, width = step.shape((x.shape[3], x.shape[1], x.shape[2]))
        padded = np.pad(x, ((0, 0), (py, py), (px, px), (0, 0)))
        places = [
            padded[:, i : i + (height - 1) * sy + 1 : sy, j : j + (width - 1) * sx + 1 : sx, c : c + 1]
            for c in range(inner[0])
            for i in range(inner[1])
            for j in range(inner[2])
        ]
    columns = np.ascontiguousarray(step.weights.reshape(n_outputs, -1).T)
    total = np.zeros((*places[0].shape[:-1], n_outputs))
    group = 1 if step.kind == "conv2d" else max(1, len(x))
    for start in range(0, len(x), group):
        sums = total[start : start + group]
        term = np.empty_like(sums)
        for place, weights in zip(places, columns, strict=True):
            np.multiply(place[start : start + group], weights, out=term)
            sums += term
        sums += step.bias
    return total


def _tanh(step: Tanh, x: Array, tensors: dict[str, Array]) -> Array:
    return np.tanh(x, dtype=np.float64)  # of codes numpy would make half precision


def _relu(step: Relu, x: Array, tensors: dict[str, Array]) -> Array:
    return np.maximum(x, 0)


def _threshold(step: Threshold, x: Array, tensors: dict[str, Array]) -> Array:
    if x.dtype.kind == "i" and x.dtype.itemsize < 4:
        x = x.astype(np.int32)
    low, high = int(step.codes[0]), int(step.codes[-1])
    codes = np.empty(x.shape, np.int8 if low >= -128 and high < 128 and high - low < 128 else np.int32)
    known = _thresholds(_Same(step), x.shape[-1], x.dtype.str, codes.dtype.str)
    _threshold_rows(_rows(x), *known, codes.dtype.type(low), _rows(codes))
    return codes


@lru_cache(maxsize=256)
def _thresholds(key: _Same, n: int, numbers: str, codes: str) -> tuple[Array, Array, Array]:
    """Return directions (n), thresholds (i n) and gains (i) in the types that they meet."""
    step = key.step
    thresholds = step.thresholds
    if np.dtype(numbers).kind == "i":  # whole numbers reach a threshold when they reach its ceiling
        most = min(np.iinfo(numbers).max, 2**53)  # what float64 still tells apart, and out of reach of every sum
        thresholds = np.clip(np.ceil(thresholds), -most, most).astype(numbers)
    each = np.ascontiguousarray(np.broadcast_to(thresholds, (n, thresholds.shape[1])).T)
    return np.full(n, step.direction, numbers), each, np.diff(step.codes).astype(codes)


@compiled
def _threshold_rows(x, direction, thresholds, gains, low, codes):
    for m in range(x.shape[0]):
        numbers, made = x[m], codes[m]
        made[:] = low
        for i in range(gains.size):
            gain, least = gains[i], thresholds[i]
            for c in range(made.size):
                made[c] += gain if numbers[c] * direction[c] >= least[c] else gain - gain


def _quantize(step: Quantize, x: Array, tensors: dict[str, Array]) -> Array:
    form = step.format
    codes = np.rint(x / form.scale + form.zero % 1) + form.zero // 1
    return np.clip(codes, form.low, form.high).astype(np.int32)


def _windows(x: Array, step: MaxPool | AvgPool, fill: float) -> Iterator[Array]:
    """Yield, for each place in the window, the number that every window has there (b h' w' c)."""
    (py, px), (sy, sx) = step.padding, step.stride
    _, height, width = step.shape((x.shape[3], x.shape[1], x.shape[2]))
    if py or px:
        x = np.pad(x, ((0, 0), (py, py), (px, px), (0, 0)), constant_values=fill)
    for i in range(step.kernel[0]):
        for j in range(step.kernel[1]):
            yield x[:, i : i + (height - 1) * sy + 1 : sy, j : j + (width - 1) * sx + 1 : sx]


def _max_pool(step: MaxPool, x: Array, tensors: dict[str, Array]) -> Array:
    least = np.iinfo(x.dtype).min if x.dtype.kind == "i" else -np.inf
    windows = _windows(x, step, least)
    greatest = next(windows).copy()
    for window in windows:
        np.maximum(greatest, window, out=greatest)
    return greatest


def _avg_pool(step: AvgPool, x: Array, tensors: dict[str, Array]) -> Array:
    windows = _windows(x, step, 0)
    total = next(windows).astype(np.float64)
    for window in windows:
        total += window
    return total / prod(step.kernel)


def _add(step: Add, x: Array, tensors: dict[str, Array]) -> Array:
    out = np.empty(x.shape)
    _add_numbers(
        np.ascontiguousarray(x).ravel(), step.scale, np.ascontiguousarray(tensors[step.other]).ravel(), out.ravel()
    )
    return out


@compiled
def _add_numbers(x, scale, other, out):
    for i in range(out.size):
        out[i] = x[i] + scale * other[i]


def _flatten(step: Flatten, x: Array, tensors: dict[str, Array]) -> Array:
    return channels_first(x).reshape(len(x), -1)


def _log_softmax(step: LogSoftmax, x: Array, tensors: dict[str, Array]) -> Array:
    x = np.ascontiguousarray(x, dtype=np.float64)  # codes are whole numbers, of which numpy makes half precision
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _embedding(step: Embedding, x: Array, tensors: dict[str, Array]) -> Array:
    tokens = x[..., 0].astype(np.int64)
    wrong = (tokens != x[..., 0]) | (tokens < 0) | (tokens >= len(step.table))
    if np.any(wrong):
        raise DataError(
            f"input: must be tokens, whole numbers from 0 to {len(step.table) - 1}, got {x[..., 0][wrong].flat[0]}"
        )
    return step.table[tokens]


STEPS: dict[type[Step], Callable[[Any, Array, dict[str, Array]], Array]] = {
    Affine: _affine,
    RealProduct: _real_product,
    Tanh: _tanh,
    Relu: _relu,
    Threshold: _threshold,
    Quantize: _quantize,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    Add: _add,
    Flatten: _flatten,
    LogSoftmax: _log_softmax,
    **EPILOGUE,
    **ATTENTION,
    Embedding: _embedding,
}
