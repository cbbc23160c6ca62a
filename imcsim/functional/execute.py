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

from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError, DataError
from imcsim.functional.kernels import pack_patches, pack_vectors_fast
from imcsim.functional.noise import error_table
from imcsim.functional.reading import Reader
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
    RealProduct,
    Relu,
    Step,
    Tanh,
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

    n_misreads: int = 0
    """Counts that came out one too low or too high."""

    def __add__(self, other: "Clipping") -> "Clipping":
        return Clipping(
            self.n_accesses + other.n_accesses,
            self.n_clipped_accesses + other.n_clipped_accesses,
            self.n_conversions + other.n_conversions,
            self.n_clipped_conversions + other.n_clipped_conversions,
            self.n_misreads + other.n_misreads,
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
    tiles = _readers(plan, rng)
    clipping = {layer.name: Clipping() for layer in plan.layers if layer.is_on_tiles}
    outputs = []
    for start in range(0, len(x), MAX_BATCH):
        batch = x[start : start + MAX_BATCH]
        outputs.append(_run_batch(plan, batch, weights, tiles, clipping))
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
_TABLES: "WeakKeyDictionary[Plan, ErrorTable | None]" = WeakKeyDictionary()


def _packed_weights(plan: Plan) -> dict[str, list[PackedMatrix]]:
    """Return the packed weights of each layer, a matrix (r, c * j) a group; kept as long as the plan lives."""
    if plan not in _WEIGHTS:
        rows = plan.chip.tile.rows_per_access
        packed = {}
        for layer in plan.layers:
            if layer.is_on_tiles:
                matrices = _matrices(plan.op_of[layer.name])
                if layer.sense == "n":
                    packed[layer.name] = [pack_matrix(_polarities(matrix, axis=0), 2 * rows) for matrix in matrices]
                else:
                    packed[layer.name] = [pack_matrix(matrix, rows) for matrix in matrices]
        _WEIGHTS[plan] = packed
    return _WEIGHTS[plan]


def _matrices(op: Op) -> list[Array]:
    """Return the weights of each group (r, c * j), the planes of an output side by side."""
    assert op.product is not None
    matrix = op.product.matrix.transpose(1, 2, 3, 0)  # j g r c -> g r c j
    return [group.reshape(group.shape[0], -1) for group in matrix]


def _polarities(values: Array, axis: int) -> Array:
    """Put in the place of each number two: whether it is +1, and whether it is -1.

    The +1 products of two such operands are those of the numbers; there are no others. So n is counted alone.
    """
    both = np.stack([values > 0, values < 0], axis=axis + 1 if axis >= 0 else axis + values.ndim + 1)
    shape = list(values.shape)
    shape[axis] *= 2
    return both.reshape(shape).astype(np.int8)


def _readers(plan: Plan, rng: np.random.Generator | None) -> dict[str, Reader]:
    """Return how the tiles read each layer; raises ConfigError for a chip that misreads without a generator."""
    tile = plan.chip.tile
    if plan not in _TABLES:
        _TABLES[plan] = error_table(plan.chip)
    table = _TABLES[plan]
    if table is not None and rng is None:
        raise ConfigError("rng: must be a generator for a chip that misreads, got None; numpy.random.default_rng(seed)")
    return {
        layer.name: Reader(tile.count_max, tile.n_columns // layer.n_weight_planes * layer.n_weight_planes, table, rng)
        for layer in plan.layers
        if layer.is_on_tiles
    }


def _run_batch(
    plan: Plan,
    x: Array,
    weights: dict[str, list[PackedMatrix]],
    tiles: dict[str, Reader],
    clipping: dict[str, Clipping],
) -> Array:
    tensors = {plan.graph.input.name: np.moveaxis(x, 1, -1) if x.ndim == 4 else x}
    layers = {layer.name: layer for layer in plan.layers}
    for op in plan.graph.ops:
        values = tensors[op.input]
        if op.product is not None:
            values, clips = _product(plan, op, op.product, layers[op.name], values, weights[op.name], tiles[op.name])
            clipping[op.name] += clips
        for step in op.steps:
            values = STEPS[type(step)](step, values, tensors)
        tensors[op.output.name] = values
    output = tensors[plan.graph.output]
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output


def _product(
    plan: Plan, op: Op, product: Product, layer: LayerPlan, codes: Array, weights: list[PackedMatrix], tiles: Reader
) -> tuple[Array, Clipping]:
    """Return the sums (b ... c) of one layer: pass after pass, plane by plane."""
    codec = plan.codec(op)
    read = tiles.of(
        sense=layer.sense, accesses_per_pass=layer.accesses_per_pass, is_asymmetric=plan.graph.is_asymmetric(op)
    )
    pads = codec.split(np.array(product.attrs.pad_value))
    sums: list[Array] = []
    clips = Clipping()
    for group, packed in enumerate(weights):
        planes = codec.split(_channels_of(product, codes, group))
        counted: list[Array] = []  # whole numbers, weighted by the factors of the passes
        for factor, plane, pad in zip(codec.factors, planes, pads, strict=True):
            found = read(_pack(product, plane, int(pad), plan.chip.tile.rows_per_access, layer.sense), packed)
            weighted = [part.astype(np.int64) * factor for part in found.sums] if codec.n_planes > 1 else found.sums
            counted = [a + b for a, b in zip(counted, weighted, strict=True)] if counted else weighted
            clips += Clipping(
                n_clipped_accesses=found.n_clipped_accesses,
                n_clipped_conversions=found.n_clipped_conversions,
                n_misreads=found.n_misreads,
            )
        if codec.offset:  # a static correction, the same for every vector: what the padding brings in is a code too
            matrix = _matrices(op)[group]
            ones = [matrix.sum(axis=0)] if len(counted) == 1 else [(matrix > 0).sum(axis=0), (matrix < 0).sum(axis=0)]
            counted[: len(ones)] = [part + codec.offset * n for part, n in zip(counted, ones, strict=False)]
        if layer.sense == "n":
            counted = [2 * counted[0] - product.n_rows * sum(codec.factors)]
        total = _weigh(counted, _minus_of(product, group), plan.graph.tensors[op.input].format.minus)
        sums.append(_join_planes(total, _factors_of(product, group)))
    together = np.concatenate(sums, axis=-1) if len(sums) > 1 else sums[0]
    out = product.shape(plan.graph.tensors[op.input].shape)
    n_blocks = -(-product.n_rows // plan.chip.tile.rows_per_access)
    blocks = len(codes) * prod(out[1:]) * codec.n_planes * layer.accesses_per_pass * product.groups * n_blocks
    clips += Clipping(
        n_accesses=blocks * -(-layer.n_columns // tiles.columns_per_tile), n_conversions=blocks * layer.n_columns
    )
    return together.reshape(len(codes), *out[1:], out[0]), clips


def _weigh(counted: list[Array], minus_weight: Array, minus_input: float) -> Array:
    """Return ``n - W2 k``, or ``(n1 - W2 k1) - I2 (n2 - W2 k2)``, with W1 = I1 = 1; whole numbers as long as may be."""
    match counted:
        case [difference]:
            return difference
        case [n, k]:
            return n - minus_weight * k
        case [n1, k1, n2, k2] if minus_input == 1:
            return (n1 - n2) - minus_weight * (k1 - k2)
        case [n1, k1, n2, k2]:
            return (n1 - minus_weight * k1) - minus_input * (n2 - minus_weight * k2)
    raise AssertionError("no encoding reads so many counts")


def _minus_of(product: Product, group: int) -> Array:
    """Return () or (c): what -1 counts for in the outputs of one group."""
    minus = product.weights.minus.reshape(-1)
    width = product.n_columns
    return minus if minus.size == 1 else minus[group * width : (group + 1) * width]


def _channels_of(product: Product, codes: Array, group: int) -> Array:
    if product.groups == 1:
        return codes
    width = product.weights.shape[1]
    return codes[..., group * width : (group + 1) * width]


def _pack(product: Product, plane: Array, pad: int, rows_per_access: int, sense: str) -> PackedVectors:
    padding = product.padding
    if sense == "n":
        if padding != (0, 0):
            (py, px), padding = padding, (0, 0)
            plane = np.pad(plane, ((0, 0), (py, py), (px, px), (0, 0)), constant_values=pad)
        plane, pad, rows_per_access = _polarities(plane, axis=-1), 0, 2 * rows_per_access
    if product.kind == "linear":
        return pack_vectors_fast(plane, rows_per_access)
    return pack_patches(
        np.ascontiguousarray(plane),
        kernel=product.kernel,
        stride=product.stride,
        padding=padding,
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
}
