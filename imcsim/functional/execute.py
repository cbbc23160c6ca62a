"""Plan and input to outputs: every product as the tiles compute it, every step as the digital units do.

Images travel channels last (b h w c), so that neighbouring rows of a block are neighbouring numbers; the outputs come
back as the model gives them. Sums before the first scale are whole numbers, exact whatever the order.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from imcsim.errors import DataError
from imcsim.functional.kernels import clipped_product, pack_patches, pack_vectors_fast
from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Flatten,
    LogSoftmax,
    MaxPool,
    Op,
    Product,
    Quantize,
    Relu,
    Step,
    Threshold,
)
from imcsim.mapping.plan import LayerPlan, Plan
from imcsim.ternary.packing import PackedMatrix, PackedVectors, pack_matrix

Array = np.ndarray

MAX_BATCH = 64
"""Samples that go through the network together; bounds the memory, changes no number."""


@dataclass(frozen=True)
class Clipping:
    """How often the ADCs of one layer met more than they can tell apart."""

    n_accesses: int = 0
    """Reads of one block by one tile."""

    n_clipped_accesses: int = 0
    """Accesses in which at least one column had n or k above count_max."""

    n_conversions: int = 0
    """Column reads, each of n and of k."""

    n_clipped_conversions: int = 0

    def __add__(self, other: "Clipping") -> "Clipping":
        return Clipping(
            self.n_accesses + other.n_accesses,
            self.n_clipped_accesses + other.n_clipped_accesses,
            self.n_conversions + other.n_conversions,
            self.n_clipped_conversions + other.n_clipped_conversions,
        )


@dataclass(frozen=True, eq=False)
class Execution:
    """What came out, and what the ADCs met on the way."""

    outputs: Array
    """(b ...), shaped as the model's outputs; float64, or whole-number codes where the network ends in codes."""

    clipping: dict[str, Clipping]
    """By layer, for the layers on tiles."""

    @property
    def total(self) -> Clipping:
        """All layers together."""
        return sum(self.clipping.values(), Clipping())


def execute(plan: Plan, x: Any, rng: np.random.Generator | None = None) -> Array:
    """Return the outputs of *plan* for the inputs *x* (b ...), an array or tensor as the model takes it.

    *rng* is the generator that imperfections are drawn from; a chip without any draws nothing. Raises DataError for
    an input of another shape or with NaN in it.
    """
    return run(plan, x, rng=rng).outputs


def run(
    plan: Plan,
    x: Any,
    *,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Execution:
    """Return outputs and clipping statistics; *progress* is told how many samples were done, batch after batch."""
    x = checked_input(plan, x)
    weights = _packed_weights(plan)
    clipping = {layer.name: Clipping() for layer in plan.layers if layer.is_on_tiles}
    outputs = []
    for start in range(0, len(x), MAX_BATCH):
        batch = x[start : start + MAX_BATCH]
        outputs.append(_run_batch(plan, batch, weights, clipping))
        if progress is not None:
            progress(len(batch))
    if not outputs:
        outputs.append(np.zeros((0, *plan.graph.tensors[plan.graph.output].shape)))
    return Execution(np.concatenate(outputs), clipping)


def checked_input(plan: Plan, x: Any) -> Array:
    """Return *x* as float64 (b ...); raises DataError for another shape, NaN or infinity."""
    try:
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"input: must be numbers, got {error}") from None
    shape = plan.graph.input.shape
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        raise DataError(f"input: must have shape (b, {', '.join(map(str, shape))}), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise DataError(f"input: must be finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    return array


# --- products ---------------------------------------------------------------------------------------------------


_WEIGHTS: "WeakKeyDictionary[Plan, dict[str, list[PackedMatrix]]]" = WeakKeyDictionary()


def _packed_weights(plan: Plan) -> dict[str, list[PackedMatrix]]:
    """Return the packed weights of each layer, a matrix (r, c * j) a group; kept as long as the plan lives."""
    if plan not in _WEIGHTS:
        packed = {}
        for op in plan.graph.products:
            assert op.product is not None
            matrix = op.product.matrix.transpose(1, 2, 3, 0)  # j g r c -> g r c j: planes of an output side by side
            packed[op.name] = [
                pack_matrix(group.reshape(group.shape[0], -1), plan.chip.tile.rows_per_access) for group in matrix
            ]
        _WEIGHTS[plan] = packed
    return _WEIGHTS[plan]


def _run_batch(plan: Plan, x: Array, weights: dict[str, list[PackedMatrix]], clipping: dict[str, Clipping]) -> Array:
    tensors = {plan.graph.input.name: np.moveaxis(x, 1, -1) if x.ndim == 4 else x}
    layers = {layer.name: layer for layer in plan.layers}
    for op in plan.graph.ops:
        values = tensors[op.input]
        if op.product is not None:
            values, clips = _product(plan, op, op.product, layers[op.name], values, weights[op.name])
            clipping[op.name] += clips
        for step in op.steps:
            values = STEPS[type(step)](step, values, tensors)
        tensors[op.output.name] = values
    output = tensors[plan.graph.output]
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output


def _product(
    plan: Plan, op: Op, product: Product, layer: LayerPlan, codes: Array, weights: list[PackedMatrix]
) -> tuple[Array, Clipping]:
    """Return the sums (b ... c) of one layer: pass after pass, plane by plane."""
    tile = plan.chip.tile
    codec = plan.graph.tensors[op.input].format.codec()
    pads = codec.split(np.array(product.attrs.pad_value))
    segment = tile.n_columns // product.n_planes * product.n_planes
    sums: list[Array] = []
    n_clipped_accesses = n_clipped_conversions = 0
    for group, matrix in enumerate(weights):
        total: Array | int = 0
        planes = codec.split(_channels_of(product, codes, group))
        for factor, plane, pad in zip(codec.factors, planes, pads, strict=True):
            vectors = _pack(product, plane, int(pad), tile.rows_per_access)
            counts = clipped_product(vectors, matrix, count_max=tile.count_max, columns_per_tile=segment)
            total = total + counts.total.astype(np.int64) * factor if codec.n_planes > 1 else counts.total
            n_clipped_accesses += counts.n_clipped_accesses
            n_clipped_conversions += counts.n_clipped_conversions
        sums.append(_join_planes(np.asarray(total), _factors_of(product, group)))
    together = np.concatenate(sums, axis=-1) if len(sums) > 1 else sums[0]
    n_images = len(codes)
    out = product.shape(plan.graph.tensors[op.input].shape)
    n_blocks = -(-product.n_rows // tile.rows_per_access)
    blocks = n_images * prod(out[1:]) * codec.n_planes * layer.accesses_per_pass * product.groups * n_blocks
    clips = Clipping(
        n_accesses=blocks * -(-layer.n_columns // segment),
        n_clipped_accesses=n_clipped_accesses,
        n_conversions=blocks * layer.n_columns,
        n_clipped_conversions=n_clipped_conversions,
    )
    return together.reshape(n_images, *out[1:], out[0]), clips


def _channels_of(product: Product, codes: Array, group: int) -> Array:
    if product.groups == 1:
        return codes
    width = product.weights.shape[1]
    return codes[..., group * width : (group + 1) * width]


def _pack(product: Product, plane: Array, pad: int, rows_per_access: int) -> PackedVectors:
    if product.kind == "linear":
        return pack_vectors_fast(plane, rows_per_access)
    return pack_patches(
        np.ascontiguousarray(plane),
        kernel=product.kernel,
        stride=product.stride,
        padding=product.padding,
        dilation=product.dilation,
        pad_value=pad,
        rows_per_access=rows_per_access,
    )


def _factors_of(product: Product, group: int) -> Array:
    """Return (j 1) or (j c): what each weight plane counts for in the outputs of one group."""
    factors = product.weights.factors.reshape(product.n_planes, -1)
    width = product.n_columns
    return factors if factors.shape[1] == 1 else factors[:, group * width : (group + 1) * width]


def _join_planes(total: Array, factors: Array) -> Array:
    """(b, c * j) to (b c): add up the weight planes of each output by their *factors*."""
    if len(factors) == 1 and np.all(factors == 1):
        return total
    planes = total.reshape(len(total), -1, len(factors))
    return sum(planes[:, :, j] * factor for j, factor in enumerate(factors))


# --- steps, channels last ---------------------------------------------------------------------------------------


def _affine(step: Affine, x: Array, tensors: dict[str, Array]) -> Array:
    return step.scale * x + step.offset


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


STEPS: dict[type[Step], Callable[[Any, Array, dict[str, Array]], Array]] = {
    Affine: _affine,
    Relu: _relu,
    Threshold: _threshold,
    Quantize: _quantize,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    Add: _add,
    Flatten: _flatten,
    LogSoftmax: _log_softmax,
}
