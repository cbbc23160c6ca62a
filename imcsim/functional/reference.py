"""The same graph in plain whole numbers, with no tile: what an ideal chip gives.

Shares no code with `execute`: images stay channels first, codes are never split into planes, and a product is one
matrix product. Its numbers are whole and kept in float64, which holds every whole number below 2^53 exactly, so
that the result does not depend on the order of additions.
"""

from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Cell,
    Embedding,
    Flatten,
    Graph,
    LogSoftmax,
    MaxPool,
    Op,
    Quantize,
    RealProduct,
    Relu,
    Step,
    Tanh,
    Threshold,
)

Array = np.ndarray


def reference(graph: Graph, x: Any, *, batch: int = 64) -> Array:
    """Return the outputs of *graph* for the inputs *x* (b ...), *batch* samples at a time."""
    x = np.asarray(x, dtype=np.float64)
    parts = [tensors_of(graph, x[i : i + batch])[graph.output] for i in range(0, len(x), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, *graph.tensors[graph.output].shape))


def tensors_of(graph: Graph, x: Array) -> dict[str, Array]:
    """Return every tensor of *graph* for the inputs *x* (b ...), by its name; channels first."""
    tensors = {graph.input.name: np.asarray(x, dtype=np.float64)}
    for op in graph.ops:
        y = tensors[op.input]
        if op.product is not None and op.product.is_recurrent:
            tensors[op.output.name] = _recurrent(op, y)
            continue
        if op.product is not None:
            y = _product(op, y, graph.tensors[op.input].format.minus)
        for step in op.steps:
            y = _step(step, y, tensors)
        tensors[op.output.name] = y
    return tensors


def _product(op: Op, x: Array, minus_input: float) -> Array:
    """Return the sums of a layer; where -1 counts for something else than +1, from sums that are whole."""
    product = op.product
    assert product is not None
    weights, minus = _whole_weights(op), product.weights.minus
    if product.kind == "conv2d":
        (py, px) = product.padding
        x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=product.attrs.pad_value)

    def multiply(x: Array, weights: Array) -> Array:
        return _conv2d(op, x, weights) if x.ndim == 4 else x @ weights.T

    if not product.weights.is_asymmetric and minus_input == 1:
        return multiply(x, weights)
    plus, less = np.maximum(weights, 0), np.maximum(-weights, 0)
    weight = minus if minus.ndim == 0 else minus.reshape(1, -1, *(1,) * (x.ndim - 2))
    if minus_input == 1:
        return multiply(x, plus) - weight * multiply(x, less)
    above, below = np.maximum(x, 0), np.maximum(-x, 0)
    return (multiply(above, plus) - weight * multiply(above, less)) - minus_input * (
        multiply(below, plus) - weight * multiply(below, less)
    )


def _recurrent(op: Op, x: Array) -> Array:
    """(b i 1 t) to the codes (b h 1 t): the sums over the inputs of all time steps at once, then step by step."""
    (cell,) = op.steps
    assert isinstance(cell, Cell)
    weights = _whole_weights(op)
    n_hidden = len(weights) // 4
    w_x, w_h = weights[:, :-n_hidden], weights[:, -n_hidden:]
    of_inputs = np.einsum("ci,bit->tbc", w_x, x[:, :, 0, :])
    h = state = np.zeros((len(x), n_hidden))
    outputs = []
    for now in of_inputs:
        z = cell.scale * (now + h @ w_h.T) + cell.offset  # b 4h
        z1, z2, z3, z4 = (z[:, part * n_hidden : (part + 1) * n_hidden] for part in range(4))
        if cell.kind == "lstm":
            state = _sigmoid(z2) * state + _sigmoid(z1) * np.tanh(z3)
            real = _sigmoid(z4) * np.tanh(state)
        else:
            new = np.tanh(z3 + _sigmoid(z1) * z4)
            real = state = new + _sigmoid(z2) * (state - new)
        h = _step(cell.quantizer, real, {})
        outputs.append(h)
    return np.stack(outputs, axis=-1)[:, :, None, :] if outputs else np.zeros((len(x), n_hidden, 1, 0))


def _sigmoid(x: Array) -> Array:
    return (1 + np.tanh(x / 2)) / 2  # the form that a lane works out: another one differs in the last bit


def _whole_weights(op: Op) -> Array:
    assert op.product is not None
    weights = op.product.weights
    factors = weights.factors.astype(np.float64)
    factors = factors.reshape(factors.shape + (1,) * (weights.planes.ndim - factors.ndim))  # one, or one an output
    return np.sum(weights.planes * factors, axis=0)


def _conv2d(op: Op, padded: Array, weights: Array) -> Array:
    """(b c h w), padded, to (b c' h' w')."""
    product = op.product
    assert product is not None
    dy, dx = product.dilation
    kh, kw = product.kernel
    windows = sliding_window_view(padded, (dy * (kh - 1) + 1, dx * (kw - 1) + 1), axis=(2, 3))
    windows = windows[:, :, :: product.stride[0], :: product.stride[1], ::dy, ::dx]  # b c h' w' kh kw
    outs = []
    per_group = weights.shape[1]
    for g, kernel in enumerate(np.split(weights, product.groups)):
        taken = windows[:, g * per_group : (g + 1) * per_group]
        outs.append(np.tensordot(taken, kernel, axes=((1, 4, 5), (1, 2, 3))))  # b h' w' c'
    return np.concatenate(outs, axis=-1).transpose(0, 3, 1, 2)


def _per_channel(values: Array, x: Array) -> Array:
    """Values one per channel (or one) shaped to meet x (b c ...)."""
    values = np.asarray(values)
    return values if values.ndim == 0 else values.reshape(1, -1, *(1,) * (x.ndim - 2))


def _step(step: Step, x: Array, tensors: dict[str, Array]) -> Array:
    match step:
        case Affine(scale=scale, offset=offset):
            return _per_channel(scale, x) * x + _per_channel(offset, x)
        case RealProduct():
            return _real_product(step, x)
        case Tanh():
            return np.tanh(x)
        case Relu():
            return np.where(x > 0, x, 0.0)
        case Threshold():
            seen = x * _per_channel(step.direction, x)
            reached = np.zeros(x.shape, dtype=np.int64)
            for i in range(step.thresholds.shape[1]):
                reached += seen >= _per_channel(step.thresholds[:, i], x)
            return step.codes[reached].astype(np.float64)
        case Quantize(format=fmt):
            return np.minimum(np.maximum(np.round(x / fmt.scale), fmt.low), fmt.high)
        case MaxPool() | AvgPool():
            return _pool(step, x)
        case Add(other=other, scale=scale):
            return x + scale * tensors[other]
        case Flatten():
            return x.reshape(len(x), prod(x.shape[1:]))
        case Embedding(table=table):
            return table[x[:, 0].astype(int)].transpose(0, 3, 1, 2).astype(np.float64)
        case LogSoftmax():
            top = x.max(axis=1, keepdims=True)
            return (x - top) - np.log(np.sum(np.exp(x - top), axis=1, keepdims=True))
    raise AssertionError(f"no reference for {type(step).__name__}")


def _real_product(step: RealProduct, x: Array) -> Array:
    """(b c ...) to (b c' ...), input after input: a library's product adds in an order of its own."""
    if step.kind == "conv2d":
        padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in step.padding)))
        windows = sliding_window_view(padded, step.weights.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: step.stride[0], :: step.stride[1]]  # b c h' w' kh kw
        inputs = windows.transpose(1, 4, 5, 0, 2, 3).reshape(-1, len(x), 1, *windows.shape[2:4])  # r b 1 h' w'
    else:
        inputs = x.T[:, :, None]  # r b 1
    columns = step.weights.reshape(len(step.weights), -1).T  # r c'
    total = np.zeros(1)
    for values, weights in zip(inputs, columns, strict=True):
        total = total + values * _per_channel(weights, values)
    return total + _per_channel(step.bias, total)


def _pool(step: MaxPool | AvgPool, x: Array) -> Array:
    is_max = isinstance(step, MaxPool)
    (py, px) = step.padding
    padded = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=-np.inf if is_max else 0.0)
    windows = sliding_window_view(padded, step.kernel, axis=(2, 3))[:, :, :: step.stride[0], :: step.stride[1]]
    if is_max:
        return windows.max(axis=(4, 5))
    # added one after the other, as a pooling lane does, and not pairwise as numpy would: the last bit depends on it
    total = np.zeros(windows.shape[:4])
    for i in range(step.kernel[0]):
        for j in range(step.kernel[1]):
            total = total + windows[:, :, :, :, i, j]
    return total / (step.kernel[0] * step.kernel[1])
