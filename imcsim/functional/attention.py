"""What the digital units compute: the steps of `imcsim.graph.attention`, on numbers with channels last (b ... c)."""

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np
from scipy.special import erf

from imcsim.functional.axes import channels_first, channels_last
from imcsim.functional.kernels import compiled
from imcsim.graph import Erf, Exp, Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax, Step

Array = np.ndarray
Tensors = dict[str, Array]


def _permute(step: Permute, x: Array, tensors: Tensors) -> Array:
    return channels_last(channels_first(x).transpose(0, *(axis + 1 for axis in step.axes)))


def _reshape(step: Reshape, x: Array, tensors: Tensors) -> Array:
    return channels_last(channels_first(x).reshape(len(x), *step.sizes))


def _mat_mul(step: MatMul, x: Array, tensors: Tensors) -> Array:
    first, second = channels_first(x), channels_first(tensors[step.other])
    if step.is_transposed:
        second = second.swapaxes(-1, -2)
    return channels_last(multiply(first, np.broadcast_to(second, (*first.shape[:-2], *second.shape[-2:]))))


def multiply(x: Array, y: Array) -> Array:
    """Return the products of the matrices *x* (... m d) and *y* (... d n), terms added in the order of d.

    Sums of whole numbers that float64 holds do not depend on the order, and a library adds them faster.
    """
    is_whole = x.dtype.kind == y.dtype.kind == "i"
    if is_whole and _most(x) * _most(y) * x.shape[-1] < 2**53:
        return np.matmul(x.astype(np.float64), y.astype(np.float64))
    (m, d), n, places = x.shape[-2:], y.shape[-1], prod(x.shape[:-2])
    out = np.zeros((places, m, n))
    _multiply(_real(x).reshape(places, m, d), _real(y).reshape(places, d, n), out)
    return out.reshape(*x.shape[:-1], n)


def _most(codes: Array) -> int:
    return max(abs(int(codes.min())), abs(int(codes.max()))) if codes.size else 0


def _real(x: Array) -> Array:
    """Return *x* in float64, one number beside another, so that what numpy works out does not hang on the strides."""
    return np.ascontiguousarray(x, dtype=np.float64)


@compiled
def _multiply(x, y, out):
    for place in range(out.shape[0]):
        for i in range(out.shape[1]):
            made = out[place, i]
            for k in range(x.shape[2]):
                factor, row = x[place, i, k], y[place, k]
                for j in range(made.size):
                    made[j] += factor * row[j]


def _softmax(step: Softmax, x: Array, tensors: Tensors) -> Array:
    x = _real(np.moveaxis(channels_first(x), step.axis + 1, -1))
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    made = raised / _total(raised)
    return channels_last(np.moveaxis(made, -1, step.axis + 1))


def _total(x: Array) -> Array:
    """Add up along the last axis (... n) to (... 1), one after the other and not pairwise as numpy would."""
    return np.add.accumulate(x, axis=-1)[..., -1:]


def _layer_norm(step: LayerNorm, x: Array, tensors: Tensors) -> Array:
    numbers = channels_first(x)
    others = [axis for axis in range(numbers.ndim - 1) if axis not in step.axes]
    order = (0, *(axis + 1 for axis in (*others, *step.axes)))
    moved = numbers.transpose(order)
    n = prod(moved.shape[1 + len(others) :])
    rows = _real(moved).reshape(-1, n)
    if step.is_centred:
        rows = rows - _total(rows) / n
    made = rows * (1 / np.sqrt(_total(rows * rows) / n + step.eps))
    made = made.reshape(moved.shape).transpose(np.argsort(order))
    return channels_last(made if step.is_plain else step.scale * made + step.offset)


def _gelu(step: Gelu, x: Array, tensors: Tensors) -> Array:
    x = _real(x)
    if step.form == "erf":
        return 0.5 * x * (1.0 + erf(x * sqrt(0.5)))
    return 0.5 * x * (1.0 + np.tanh(sqrt(2 / np.pi) * (x + 0.044715 * (x * x * x))))


def _silu(step: Silu, x: Array, tensors: Tensors) -> Array:
    x = _real(x)
    small = np.exp(-np.abs(x))  # never above 1, so that nothing overflows
    return x * (np.where(x >= 0, 1.0, small) / (1.0 + small))


ATTENTION: dict[type[Step], Callable[[Any, Array, Tensors], Array]] = {
    Permute: _permute,
    Reshape: _reshape,
    MatMul: _mat_mul,
    Softmax: _softmax,
    LayerNorm: _layer_norm,
    Gelu: _gelu,
    Silu: _silu,
    Exp: lambda step, x, tensors: np.exp(_real(x)),
    Erf: lambda step, x, tensors: erf(_real(x)),
}
"""How each step is computed: the step, the numbers, and the tensors made before."""
