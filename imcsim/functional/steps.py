"""What the digital units compute: every step of a layer on numbers with the channels last (b h w c)."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from imcsim.errors import DataError
from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Embedding,
    Flatten,
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


def _affine(step: Affine, x: Array, tensors: dict[str, Array]) -> Array:
    return step.scale * x + step.offset


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
    thresholds = step.thresholds
    if x.dtype.kind == "i":  # whole numbers reach a threshold when they reach its ceiling
        x = x.astype(np.int32) if x.dtype.itemsize < 4 else x
        most = min(np.iinfo(x.dtype).max, 2**53)  # what float64 still tells apart, and out of reach of every sum
        thresholds = np.clip(np.ceil(thresholds), -most, most).astype(x.dtype)
    turned = x if np.all(step.direction == 1) else x * step.direction
    low, high = int(step.codes[0]), int(step.codes[-1])
    codes = np.full(x.shape, low, np.int8 if low >= -128 and high < 128 and high - low < 128 else np.int32)
    for i, gain in enumerate(np.diff(step.codes)):
        codes += (turned >= thresholds[:, i]) * codes.dtype.type(gain)
    return codes


def _quantize(step: Quantize, x: Array, tensors: dict[str, Array]) -> Array:
    return np.clip(np.rint(x / step.format.scale), step.format.low, step.format.high).astype(np.int32)


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
    return x + step.scale * tensors[step.other]


def _flatten(step: Flatten, x: Array, tensors: dict[str, Array]) -> Array:
    return np.moveaxis(x, -1, 1).reshape(len(x), -1) if x.ndim == 4 else x


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
    Embedding: _embedding,
}
