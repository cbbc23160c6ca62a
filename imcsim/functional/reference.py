"""The same graph in plain whole numbers, with no tile: what an ideal chip gives.

Shares no code with `execute`: images stay channels first, codes are never split into planes, and a product is one
matrix product. Its numbers are whole and kept in float64, which holds every whole number below 2^53 exactly, so
that the result does not depend on the order of additions.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imcsim.functional.reference_attention import attention_step
from imcsim.functional.reference_epilogue import epilogue_step
from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Cell,
    Embedding,
    Flatten,
    Format,
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
from imcsim.graph.samples import Samples, as_told, checked_inputs

Array = np.ndarray


def reference(graph: Graph, x: Any, *, batch: int = 64) -> Any:
    """Return the outputs of *graph* for the inputs *x* (b ...), *batch* samples at a time.

    As `execute` does: an array, or a dict of arrays by name where the network has several outputs.
    """
    return as_told(graph, reference_outputs(graph, x, batch=batch).arrays)


def reference_outputs(graph: Graph, x: Any, *, batch: int = 64) -> Samples:
    """Return the outputs of *graph* by their names, *batch* samples at a time."""
    x = checked_inputs(graph, x)
    outputs: dict[str, list[Array]] = {name: [] for name in graph.outputs}
    for start in range(0, len(x), batch):
        tensors = tensors_of(graph, x[start : start + batch])
        for name, parts in outputs.items():
            parts.append(tensors[name])
    return Samples(
        {
            name: np.concatenate(parts) if parts else np.zeros((0, *graph.tensors[name].shape))
            for name, parts in outputs.items()
        }
    )


def tensors_of(graph: Graph, x: Any, observe: Callable[[Op, str, Array], None] | None = None) -> dict[str, Array]:
    """Return every tensor of *graph* for the inputs *x* (b ...), by its name; channels first.

    *observe* is told the "sums" of each product, before its digital steps.
    """
    graph.require_values()
    tensors = dict(checked_inputs(graph, x).arrays)
    for op in graph.ops:
        y = tensors[op.input]
        if op.product is not None and op.product.is_recurrent:
            tensors[op.output.name], sums = _recurrent(op, y)
            if observe is not None:
                observe(op, "sums", sums)
            continue
        if op.written is not None:
            y = attention_step(op.written, y, tensors)
        elif op.product is not None:
            y = _product_of(op, y, graph.tensors[op.input].format, tensors)
        if op.product is not None and observe is not None:
            observe(op, "sums", y)
        for step in op.steps:
            y = _step(step, y, tensors)
        tensors[op.output.name] = y
    return tensors


def _product_of(op: Op, x: Array, source: Format, tensors: dict[str, Array]) -> Array:
    """Return the sums of a layer, sample by sample with the kernel that its gate has chosen where there are several."""
    if op.gate is None:
        return _product(op, x, source)
    assert op.product is not None
    ops = [replace(op, product=product, gate=None) for product in op.product.experts]
    chosen = tensors[op.gate][:, 0].astype(int)
    parts = [_product(ops[e], x[i : i + 1], source) for i, e in enumerate(chosen)]
    return np.concatenate(parts) if parts else _product(ops[0], x, source)


def _product(op: Op, x: Array, source: Format) -> Array:
    """Return the sums of a layer; where -1 counts for something else than +1, from sums that are whole."""
    product = op.product
    assert product is not None
    minus_input = source.minus
    weights = _whole_weights(op)
    if product.kind == "conv2d":
        (py, px) = product.padding
        x = np.pad(x, ((0, 0), (0, 0), (py, py), (px, px)), constant_values=product.attrs.pad_value)

    if product.weights.is_grouped:
        return _grouped_product(op, x, weights, minus_input)
    if source.kind == "bases" or not product.weights.is_whole:
        return _planes_product(op, x, source)

    def multiply(x: Array, weights: Array) -> Array:
        return _conv2d(op, x, weights) if x.ndim == 4 else x @ weights.T

    return _sums(multiply, x, weights, product.weights.minus.reshape(-1), minus_input)


def _planes_product(op: Op, x: Array, source: Format) -> Array:
    """Add up whole-number products of planes whose factors are real: passes first, then the planes of the weights."""
    product = op.product
    assert product is not None
    passes: list[tuple[float, Array]] = [(1.0, x)]
    if source.kind == "bases":
        digits = np.array((*source.digits, (0,) * len(source.factors)), dtype=np.float64)
        passes = [(factor, digits[x.astype(np.int64), p]) for p, factor in enumerate(source.factors)]
    minus = product.weights.minus.reshape(-1)

    def multiply(x: Array, weights: Array) -> Array:
        return _conv2d(op, x, weights) if x.ndim == 4 else x @ weights.T

    planes = np.asarray(product.weights.planes, dtype=np.float64)
    factors = product.weights.factors.astype(np.float64).reshape(len(planes), -1)
    total: Array | float = 0.0
    for plane, factor in zip(planes, factors, strict=True):
        of_plane: Array | float = 0.0
        for weight, digit in passes:
            of_plane = of_plane + weight * _sums(multiply, digit, plane, minus, source.minus)
        assert isinstance(of_plane, np.ndarray)
        total = total + of_plane * factor.reshape(1, -1, *(1,) * (x.ndim - 2))
    assert isinstance(total, np.ndarray)
    return total


def _grouped_product(op: Op, x: Array, weights: Array, minus_input: float) -> Array:
    """Add up what each group of inputs gives, scaled, in the order (window, group); (b c ...), padded."""
    product = op.product
    assert product is not None
    size, scales = product.weights.group_size, product.weights.group_scale
    assert size is not None
    assert scales is not None
    n_inputs, n_outputs = weights.shape[1], product.n_columns
    image = (*x.shape[:2], *(x.shape[2:] or (1, 1)))
    x, weights = x.reshape(image), weights.reshape(*weights.shape[:2], *product.kernel)
    scales = scales.reshape(*scales.shape[:2], *(scales.shape[2:] or (1, 1)))
    (dy, dx), (kh, kw) = product.dilation, product.kernel
    windows = sliding_window_view(x, (dy * (kh - 1) + 1, dx * (kw - 1) + 1), axis=(2, 3))
    windows = windows[:, :, :: product.stride[0], :: product.stride[1], ::dy, ::dx]  # b c h' w' kh kw
    minus = np.broadcast_to(product.weights.minus.reshape(-1), len(weights))

    def multiply(taken: Array, kernel: Array) -> Array:
        return np.tensordot(taken, kernel, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)

    outs = []
    for g in range(product.groups):
        outputs = slice(g * n_outputs, (g + 1) * n_outputs)
        total = np.zeros(1)
        for y in range(scales.shape[2]):
            for z in range(scales.shape[3]):
                rows = slice(None) if scales.shape[2] == 1 else slice(y, y + 1)
                columns = slice(None) if scales.shape[3] == 1 else slice(z, z + 1)
                for i, start in enumerate(range(0, n_inputs, size)):
                    stop = min(start + size, n_inputs)
                    kernel = weights[outputs, start:stop, rows, columns]
                    taken = windows[:, g * n_inputs + start : g * n_inputs + stop, :, :, rows, columns]
                    sums = _sums(multiply, taken, kernel, minus[outputs], minus_input)
                    total = total + scales[outputs, i, y, z].reshape(-1, 1, 1) * sums
        outs.append(total)
    together = np.concatenate(outs, axis=1)
    return together if product.kind == "conv2d" else together[:, :, 0, 0]


def _sums(
    multiply: Callable[[Array, Array], Array], x: Array, weights: Array, minus: Array, minus_input: float
) -> Array:
    """Return what *multiply* makes of *x* and *weights*, where -1 counts for *minus* (1 or c) and *minus_input*."""
    if minus_input == 1 and np.all(minus == 1):
        return multiply(x, weights)
    plus, less = np.maximum(weights, 0), np.maximum(-weights, 0)
    weight = minus.reshape(1, -1, *(1,) * (weights.ndim - 2))
    if minus_input == 1:
        return multiply(x, plus) - weight * multiply(x, less)
    above, below = np.maximum(x, 0), np.maximum(-x, 0)
    return (multiply(above, plus) - weight * multiply(above, less)) - minus_input * (
        multiply(below, plus) - weight * multiply(below, less)
    )


def _recurrent(op: Op, x: Array) -> tuple[Array, Array]:
    """(b i 1 t) to codes (b h 1 t) and sums (b 4h 1 t): those over the inputs of all time steps at once."""
    (cell,) = op.steps
    assert isinstance(cell, Cell)
    weights = _whole_weights(op)
    n_hidden = len(weights) // 4
    w_x, w_h = weights[:, :-n_hidden], weights[:, -n_hidden:]
    of_inputs = np.einsum("ci,bit->tbc", w_x, x[:, :, 0, :])
    h = state = np.zeros((len(x), n_hidden))
    outputs, sums = np.zeros((len(x), n_hidden, 1, len(of_inputs))), np.zeros((len(x), len(weights), 1, len(of_inputs)))
    for t, now in enumerate(of_inputs):
        sums[:, :, 0, t] = now + h @ w_h.T
        z = cell.scale * sums[:, :, 0, t] + cell.offset  # b 4h
        z1, z2, z3, z4 = (z[:, part * n_hidden : (part + 1) * n_hidden] for part in range(4))
        if cell.kind == "lstm":
            state = _sigmoid(z2) * state + _sigmoid(z1) * np.tanh(z3)
            real = _sigmoid(z4) * np.tanh(state)
        else:
            new = np.tanh(z3 + _sigmoid(z1) * z4)
            real = state = new + _sigmoid(z2) * (state - new)
        h = _step(cell.quantizer, real, {})
        outputs[:, :, 0, t] = h
    return outputs, sums


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
            between = fmt.zero - np.floor(fmt.zero)  # halves are those of the numbers where the zero is a code
            codes = np.round(x / fmt.scale + between) + np.floor(fmt.zero)
            return np.minimum(np.maximum(codes, fmt.low), fmt.high)
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
    return epilogue_step(step, x, tensors)


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
