"""The product of one layer as the tiles compute it: pass after pass, plane by plane, group by group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from weakref import WeakKeyDictionary

import numpy as np

from imcsim.arch.spec import Chip
from imcsim.functional.device import COMPILED, Counting, add_pass, fetched
from imcsim.functional.placed import Copies, matrices_of
from imcsim.functional.reading import Counted, Reader
from imcsim.functional.spreading import block_height, spread
from imcsim.functional.statistics import Clipping, Occupancy
from imcsim.graph import Op, Product
from imcsim.mapping.plan import LayerPlan, Plan
from imcsim.ternary import Codec
from imcsim.ternary.packing import Drive, PackedMatrix, PackedVectors, pack_matrix, polarities

Array = np.ndarray

_WEIGHTS: "WeakKeyDictionary[Plan, dict[str, list[PackedMatrix]]]" = WeakKeyDictionary()


def packed_weights(plan: Plan) -> dict[str, list[PackedMatrix]]:
    """Return the packed weights of each layer, a matrix (r, c * j) a group; kept as long as the plan lives."""
    if plan not in _WEIGHTS:
        _WEIGHTS[plan] = {
            layer.name: pack_weights(plan.op_of[layer.name], layer, plan.chip)
            for layer in plan.layers
            if layer.is_on_tiles and not layer.is_written
        }
    return _WEIGHTS[plan]


def pack_weights(op: Op, layer: LayerPlan, chip: Chip) -> list[PackedMatrix]:
    """Return the packed weights of *op*, a matrix (r, c * j) a group, as *layer* holds them."""
    rows = chip.tile.rows_per_access
    matrices, height = matrices_of(op), rows
    if layer.row_groups:
        height = block_height(layer.row_groups, rows)
        matrices = [spread(matrix, layer.row_groups, height, axis=0) for matrix in matrices]
    if layer.sense == "n":
        return [pack_matrix(polarities(matrix, axis=0), 2 * height) for matrix in matrices]
    return [pack_matrix(matrix, height) for matrix in matrices]


VECTORS_PER_SAMPLE = 128
"""One vector of so many is looked at for the occupancy of the bitlines: to look takes longer than to read."""


@dataclass(frozen=True, eq=False)
class Multiplied:
    """What one layer gave for some samples."""

    sums: Array
    """(b ... c)."""

    clipping: Clipping
    occupancy: Occupancy | None
    """None where nobody asked, and on a resistive tile, whose bitlines hold no counts."""


def product_of(
    plan: Plan,
    op: Op,
    product: Product,
    layer: LayerPlan,
    codes: Array,
    weights: Sequence[PackedMatrix | Copies],
    tiles: Reader,
    *,
    looks: bool,
) -> Multiplied:
    """Return the sums of one layer, pass after pass, plane by plane; of a recurrent one for one time step.

    Of a product of two tensors *product* is that of one head.

    *looks* says whether to look at the occupancy of the bitlines too.
    """
    codec = plan.codec(op)
    has_devices = plan.chip.tile.resistive is not None and isinstance(weights[0], Copies)
    packed_as = "both" if has_devices else layer.sense  # each device has its own conductance
    read = tiles.of(
        sense=layer.sense, accesses_per_pass=layer.accesses_per_pass, is_asymmetric=plan.graph.is_asymmetric(op)
    )
    pads = codec.split(np.array(product.attrs.pad_value))
    sums: list[Array] = []
    clips, n_idle = Clipping(), 0
    occupancy: Occupancy | None = None
    for group, packed in enumerate(weights):
        planes = codec.split(channels_of(product, codes, group))
        adds = tiles.adds(packed) and not plan.graph.is_asymmetric(op)
        counts = Counts(read, codec, layer.sense, product.n_rows, adds=adds)
        for factor, plane, pad in zip(codec.factors, planes, pads, strict=True):
            vectors = pack(product, plane, int(pad), plan.chip.tile.rows_per_access, packed_as, tiles.counting)
            counts.add(factor, vectors, packed)
            n_idle += sum(tiles.counting.count_idle(vectors, drive) for drive in drives_of(layer))
            held = packed.copies[0].weights if isinstance(packed, Copies) else packed
            if looks and isinstance(held, PackedMatrix):
                for drive in drives_of(layer):
                    seen = occupancy_of(vectors.driven(drive), held, product.n_rows, layer.sense, tiles.counting)
                    occupancy = seen if occupancy is None else occupancy + seen
        counted = counts.corrected(matrices_of(op)[group] if codec.offset else None)
        clips += counts.clipping
        total = weigh(counted, minus_of(product, group), plan.graph.tensors[op.input].format.minus)
        sums.append(join_planes(total, factors_of(product, group)))
    together = np.concatenate(sums, axis=-1) if len(sums) > 1 else sums[0]
    is_vector = product.is_recurrent or op.written is not None
    out = product.weights.shape[:1] if is_vector else product.shape(plan.graph.tensors[op.input].shape)
    n_blocks = -(-product.n_rows // plan.chip.tile.rows_per_access)
    blocks = len(codes) * prod(out[1:]) * codec.n_planes * layer.accesses_per_pass * product.groups * n_blocks
    clips += asked_of_adcs(layer, tiles, blocks, n_idle)
    return Multiplied(together.reshape(len(codes), *out[1:], out[0]), clips, occupancy)


def chosen_product_of(
    plan: Plan,
    op: Op,
    product: Product,
    layer: LayerPlan,
    codes: Array,
    weights: Sequence[PackedMatrix | Copies],
    tiles: Reader,
    *,
    looks: bool,
    chosen: Array,
) -> Multiplied:
    """Return the sums of one layer whose samples each meet the kernel that is *chosen* (b) for them, and no other.

    A kernel that nobody chose is read for no sample: a batch draws as many keys whatever is chosen in it.
    """
    sums: Array | None = None
    clips, occupancy = Clipping(), None
    for e, expert in enumerate(product.experts):
        here = np.flatnonzero(chosen == e)
        part = replace(op, product=expert, gate=None)
        done = product_of(plan, part, expert, layer, codes[here], [weights[e]], tiles, looks=looks)
        if sums is None:
            sums = np.zeros((len(codes), *done.sums.shape[1:]), done.sums.dtype)
        sums = sums.astype(np.result_type(sums, done.sums), copy=False)
        sums[here] = done.sums
        clips += done.clipping
        if done.occupancy is not None:
            occupancy = done.occupancy if occupancy is None else occupancy + done.occupancy
    assert sums is not None
    return Multiplied(sums, clips, occupancy)


class Counts:
    """The counts of one matrix of weights, added up over the passes: whole numbers, each pass by its factor."""

    def __init__(self, read: Callable[..., Counted], codec: Codec, sense: str, n_rows: int, *, adds: bool = False):
        """*adds* says that *read* may add to totals by itself."""
        self._read, self._codec, self._sense, self._n_rows = read, codec, sense, n_rows
        self._counted: list[Array] = []
        self._bound = n_rows * sum(abs(factor) for factor in codec.factors)
        self._adds = adds and codec.n_planes > 1 and codec.is_whole and self._bound < 2**31
        self.clipping = Clipping()

    def add(self, factor: float, vectors: PackedVectors, packed: PackedMatrix | Copies) -> None:
        """Read *packed* for the vectors of one pass, which counts for *factor*."""
        if self._adds and isinstance(packed, PackedMatrix):
            totals = self._counted or [np.zeros((vectors.n_vectors, packed.n_columns), np.int32)]
            found = self._read(vectors, packed, onto=(totals[0], int(factor)))
        else:
            found = self._read(vectors, packed)
        if self._adds or (self._codec.n_planes == 1 and self._codec.is_whole):
            self._counted = found.sums
        else:
            sums = found.sums
            if self._sense == "n" and not self._codec.is_whole:  # a total of rounded numbers takes no whole correction
                sums = [2 * part - self._n_rows for part in fetched(sums)]
            self._counted = add_pass(self._counted, sums, factor, self._bound)
        self.clipping += Clipping(
            n_clipped_accesses=found.n_clipped_accesses,
            n_clipped_conversions=found.n_clipped_conversions,
            n_misreads=found.n_misreads,
        )

    def corrected(self, matrix: Array | None) -> list[Array]:
        """Return what the passes gave, with what is the same for every vector: offsets of codes, halves of rows.

        *matrix* (r, c) holds the weights in {-1, 0, +1}; codes without an offset need none.
        """
        counted, codec = fetched(self._counted), self._codec
        if codec.offset:  # what the padding brings in is a code too
            assert matrix is not None
            ones = [matrix.sum(axis=0)] if len(counted) == 1 else [(matrix > 0).sum(axis=0), (matrix < 0).sum(axis=0)]
            counted[: len(ones)] = [part + codec.offset * n for part, n in zip(counted, ones, strict=False)]
        if self._sense == "n" and codec.is_whole:
            counted = [2 * counted[0] - self._n_rows * sum(codec.factors)]
        return counted


def asked_of_adcs(layer: LayerPlan, tiles: Reader, blocks: int, n_idle: int) -> Clipping:
    """Return the accesses and conversions of so many *blocks*, in *n_idle* of which no input is driven."""
    n_segments = -(-layer.n_columns // tiles.columns_per_tile)
    return Clipping(
        n_accesses=blocks * n_segments, n_conversions=blocks * layer.n_columns, n_idle_accesses=n_idle * n_segments
    )


def drives_of(layer: LayerPlan) -> tuple[Drive, ...]:
    """Return which inputs the accesses of a pass drive, one after the other."""
    return ("signed",) if layer.accesses_per_pass == 1 else ("positive", "negative")


def occupancy_of(
    x: PackedVectors, w: PackedMatrix, n_rows: int, sense: str, counting: Counting = COMPILED
) -> Occupancy:
    """Return how often each count occurs in one vector of each `VECTORS_PER_SAMPLE`, which one being drawn.

    The generator depends on the number of vectors alone: looking takes nothing from those who draw what goes wrong.
    """
    first = np.arange(0, x.n_vectors, VECTORS_PER_SAMPLE)
    which = first + np.random.default_rng(x.n_vectors).integers(0, VECTORS_PER_SAMPLE, len(first))
    taken = x[np.minimum(which, x.n_vectors - 1)]
    n, k = counting.count_histograms(taken, w)
    if sense == "n":  # rows are halves of inputs; exchanged, they meet the weights of the other sign
        exchanged = ((taken.codes & np.uint8(5)) << np.uint8(1)) | ((taken.codes & np.uint8(10)) >> np.uint8(1))
        k, _ = counting.count_histograms(PackedVectors(exchanged, x.n_rows, x.rows_per_access), w)
        n, k = n[: x.rows_per_access // 2 + 1], k[: x.rows_per_access // 2 + 1]
    return Occupancy(n, k, len(which) * n_rows * w.n_columns)


def weigh(counted: list[Array], minus_weight: Array, minus_input: float) -> Array:
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


def minus_of(product: Product, group: int) -> Array:
    """Return () or (c): what -1 counts for in the outputs of one group."""
    minus = product.weights.minus.reshape(-1)
    width = product.n_columns
    return minus if minus.size == 1 else minus[group * width : (group + 1) * width]


def channels_of(product: Product, codes: Array, group: int) -> Array:
    """Return the codes (b ... c) of the input channels that one group reads."""
    if product.groups == 1:
        return codes
    width = product.weights.shape[1]
    return codes[..., group * width : (group + 1) * width]


def pack(
    product: Product, plane: Array, pad: int, rows_per_access: int, sense: str, counting: Counting = COMPILED
) -> PackedVectors:
    """Pack one plane (b c) or (b h w c) as the vectors that the tiles get, as *sense* reads them."""
    padding = product.padding
    if sense == "n":
        if padding != (0, 0):
            (py, px), padding = padding, (0, 0)
            plane = np.pad(plane, ((0, 0), (py, py), (px, px), (0, 0)), constant_values=pad)
        plane, pad, rows_per_access = polarities(plane, axis=-1), 0, 2 * rows_per_access
    if product.kind != "conv2d":
        return counting.pack_vectors_fast(plane, rows_per_access)
    return counting.pack_patches(
        np.ascontiguousarray(plane),
        kernel=product.kernel,
        stride=product.stride,
        padding=padding,
        dilation=product.dilation,
        pad_value=pad,
        rows_per_access=rows_per_access,
    )


def factors_of(product: Product, group: int) -> Array:
    """Return (j 1) or (j c): what each weight plane counts for in the outputs of one group."""
    factors = product.weights.factors.reshape(product.n_planes, -1)
    width = product.n_columns
    return factors if factors.shape[1] == 1 else factors[:, group * width : (group + 1) * width]


def join_planes(total: Array, factors: Array) -> Array:
    """(b, c * j) to (b c): add up the weight planes of each output by their *factors*."""
    if len(factors) == 1 and np.all(factors == 1):
        return total
    planes = total.reshape(len(total), total.shape[1] // len(factors), len(factors))
    return sum(planes[:, :, j] * factor for j, factor in enumerate(factors))
