"""The product of a layer whose input groups have scales of their own (FGQ): group after group, each in its own blocks.

The sums of a group are whole numbers, exact whatever the order; its scale is applied once, and the scaled sums of the
groups are added in the order in which tiles hold them, each rounded to float64.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from imcsim.functional.kernels import count_idle, grouped_product, takes_groups
from imcsim.functional.placed import Copies, matrices_of
from imcsim.functional.products import (
    Counts,
    Multiplied,
    asked_of_adcs,
    channels_of,
    drives_of,
    factors_of,
    join_planes,
    minus_of,
    occupancy_of,
    pack,
    weigh,
)
from imcsim.functional.reading import Reader
from imcsim.functional.spreading import block_height, spread
from imcsim.functional.statistics import Clipping, Occupancy
from imcsim.graph import Op, Product
from imcsim.mapping.plan import LayerPlan, Plan
from imcsim.ternary import Codec
from imcsim.ternary.packing import PackedMatrix, PackedRows, PackedVectors

Array = np.ndarray


def grouped_product_of(
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
    """Return the sums of one layer, float64, as `products.product_of` does for other layers."""
    codec = plan.codec(op)
    rows = plan.chip.tile.rows_per_access
    height = block_height(product.row_groups, rows)
    out = product.shape(plan.graph.tensors[op.input].shape)
    pads = codec.split(np.array(product.attrs.pad_value))
    sums: list[Array] = []
    clips, n_idle = Clipping(), 0
    occupancy: Occupancy | None = None
    for group, packed in enumerate(weights):
        assert isinstance(packed, PackedMatrix), "copies that differ are refused"
        planes = codec.split(channels_of(product, codes, group))
        passes = [_pack(product, plane, int(pad), height, layer.sense) for plane, pad in zip(planes, pads, strict=True)]
        if _is_plain(plan, op, layer, codec, tiles) and takes_groups(height, tiles.columns_per_tile):
            total, found = _at_once(op, group, packed, passes, codec, tiles)
        else:
            total, found = _one_by_one(plan, op, layer, group, packed, passes, codec, tiles)
        sums.append(total)
        clips += found
        n_idle += sum(count_idle(vectors, drive) for vectors in passes for drive in drives_of(layer))
        for vectors in passes if looks else ():
            for drive in drives_of(layer):
                seen = occupancy_of(vectors.driven(drive), packed, product.n_rows, layer.sense).upto(rows)
                occupancy = seen if occupancy is None else occupancy + seen
    blocks = len(codes) * prod(out[1:]) * codec.n_planes * layer.accesses_per_pass * product.groups
    blocks *= layer.n_blocks(rows)
    clips += asked_of_adcs(layer, tiles, blocks, n_idle)
    return Multiplied(np.concatenate(sums, axis=-1).reshape(len(codes), *out[1:], out[0]), clips, occupancy)


def _is_plain(plan: Plan, op: Op, layer: LayerPlan, codec: Codec, tiles: Reader) -> bool:
    """Whether the layer is one plane of symmetric weights, read right, with sums that 32 bits hold."""
    assert op.product is not None
    largest = max(op.product.row_groups) * (sum(abs(factor) for factor in codec.factors) + abs(codec.offset))
    is_one = op.product.n_planes == 1 and bool(np.all(op.product.weights.factors == 1))
    reads_right = tiles.table is None and not tiles.noise_counts
    is_symmetric = layer.sense != "n" and not plan.graph.is_asymmetric(op)
    return reads_right and is_symmetric and is_one and largest < 2**31


def _at_once(
    op: Op, group: int, packed: PackedMatrix, passes: list[PackedVectors], codec: Codec, tiles: Reader
) -> tuple[Array, Clipping]:
    product = op.product
    assert product is not None
    width = product.n_columns
    n_blocks = _n_blocks(product, packed.rows_per_access)
    found = grouped_product(
        passes,
        packed,
        pass_factors=np.array(codec.factors, np.int32),
        group_of_block=np.repeat(np.arange(len(n_blocks)), n_blocks),
        start=np.stack([codec.offset * matrix.sum(axis=0) for matrix in _matrices(op, group)]).astype(np.int32),
        group_factors=np.ascontiguousarray(product.group_factors[:, group * width : (group + 1) * width]),
        count_max=tiles.count_max,
        columns_per_tile=tiles.columns_per_tile,
    )
    clips = Clipping(n_clipped_accesses=found.n_clipped_accesses, n_clipped_conversions=found.n_clipped_conversions)
    return found.total, clips


def _one_by_one(
    plan: Plan,
    op: Op,
    layer: LayerPlan,
    group: int,
    packed: PackedMatrix,
    passes: list[PackedVectors],
    codec: Codec,
    tiles: Reader,
) -> tuple[Array, Clipping]:
    """Do the same for any encoding: a product for each input group."""
    product = op.product
    assert product is not None
    read = tiles.of(
        sense=layer.sense, accesses_per_pass=layer.accesses_per_pass, is_asymmetric=plan.graph.is_asymmetric(op)
    )
    width = product.n_columns
    total = np.zeros((passes[0].n_vectors, width))
    clips = Clipping()
    n_blocks = _n_blocks(product, plan.chip.tile.rows_per_access)
    vectors = [_parts(x, x.codes, n_blocks) for x in passes]
    for i, (matrix, quads) in enumerate(
        zip(_matrices(op, group), _parts(packed, packed.codes.T, n_blocks), strict=True)
    ):
        height = packed.rows_per_access
        weights = PackedMatrix(np.ascontiguousarray(quads.T), n_blocks[i] * height, height)
        counts = Counts(read, codec, layer.sense, len(matrix))
        for factor, parts in zip(codec.factors, vectors, strict=True):
            counts.add(factor, PackedVectors(np.ascontiguousarray(parts[i]), n_blocks[i] * height, height), weights)
        clips += counts.clipping
        weighed = weigh(
            counts.corrected(matrix),
            minus_of(product, group),
            plan.graph.tensors[op.input].format.minus,
        )
        sums = join_planes(weighed, factors_of(product, group))
        total += product.group_factors[i, group * width : (group + 1) * width] * sums
    return total, clips


def _n_blocks(product: Product, rows_per_access: int) -> list[int]:
    return [-(-n_rows // block_height(product.row_groups, rows_per_access)) for n_rows in product.row_groups]


def _matrices(op: Op, group: int) -> list[Array]:
    """Return the weights (r, c * j) of each input group."""
    assert op.product is not None
    return np.split(matrices_of(op)[group], np.cumsum(op.product.row_groups)[:-1])


def _parts(packed: PackedRows, codes: Array, n_blocks: list[int]) -> list[Array]:
    """Return the quads of each input group, of *codes* (... quads)."""
    return np.split(codes, np.cumsum(n_blocks)[:-1] * packed.quads_per_block, axis=1)


def _pack(product: Product, plane: Array, pad: int, height: int, sense: str) -> PackedVectors:
    """Pack one plane with each input group in blocks of its own, *height* rows each."""
    weights = product.weights
    assert weights.group_size is not None
    n_inputs = weights.shape[1]
    sizes = [min(weights.group_size, n_inputs - i) for i in range(0, n_inputs, weights.group_size)]
    if product.splits_window or prod(product.kernel) == 1:
        return pack(product, spread(plane, sizes, height, axis=-1), pad, height, sense)
    parts, start = [], 0
    for size in sizes:  # each over the whole window
        parts.append(pack(product, plane[..., start : start + size], pad, height, sense))
        start += size
    codes = np.concatenate([part.codes for part in parts], axis=1)
    return replace(parts[0], codes=codes, n_rows=sum(part.n_blocks for part in parts) * parts[0].rows_per_access)
