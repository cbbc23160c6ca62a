"""The steps of `imcsim.graph.attention` for the reference: channels first (b c ...), in float64, term after term."""

from math import pi

import numpy as np
from scipy.special import erf

from imcsim.graph import Erf, Exp, Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax, Step

Array = np.ndarray


def attention_step(step: Step, x: Array, tensors: dict[str, Array]) -> Array:
    """Return what *step* makes of *x* (b c ...)."""
    match step:
        case Permute(axes=axes):
            return np.moveaxis(x, [axis + 1 for axis in axes], range(1, x.ndim))
        case Reshape(sizes=sizes):
            return np.stack([sample.ravel().reshape(sizes) for sample in x]) if len(x) else np.zeros((0, *sizes))
        case MatMul(other=name, is_transposed=is_transposed):
            y = tensors[name]
            total = np.zeros(1)
            for k in range(x.shape[-1]):
                column = y[..., :, k] if is_transposed else y[..., k, :]
                total = total + x[..., :, k : k + 1] * column[..., np.newaxis, :]
            return total
        case Softmax(axis=axis):
            raised = np.exp(np.ascontiguousarray(x - np.max(x, axis=axis + 1, keepdims=True)))
            total = np.zeros(1)
            for i in range(x.shape[axis + 1]):
                total = total + np.take(raised, [i], axis=axis + 1)
            return raised / total
        case LayerNorm():
            return _layer_norm(step, x)
        case Gelu(form="erf"):
            return x / 2 * (erf(np.ascontiguousarray(x * np.sqrt(0.5))) + 1)
        case Gelu():
            return x / 2 * (np.tanh(np.ascontiguousarray(np.sqrt(2 / pi) * (x**2 * x * 0.044715 + x))) + 1)
        case Silu():
            small = np.exp(np.ascontiguousarray(-np.abs(x)))
            return x * np.where(x < 0, small / (1.0 + small), 1.0 / (1.0 + small))
        case Exp():
            return np.exp(np.ascontiguousarray(x))
        case Erf():
            return erf(np.ascontiguousarray(x))
    raise AssertionError(f"no reference for {type(step).__name__}")


def _layer_norm(step: LayerNorm, x: Array) -> Array:
    places = list(np.ndindex(*(x.shape[axis + 1] for axis in step.axes)))

    def mean(numbers: Array) -> Array:
        total = np.zeros(1)
        for place in places:
            at: list[slice] = [slice(None)] * x.ndim
            for axis, i in zip(step.axes, place, strict=True):
                at[axis + 1] = slice(i, i + 1)
            total = total + numbers[tuple(at)]
        return total / len(places)

    centred = x - mean(x) if step.is_centred else x
    normal = centred * (1 / np.sqrt(mean(centred * centred) + step.eps))
    return normal * step.scale + step.offset
