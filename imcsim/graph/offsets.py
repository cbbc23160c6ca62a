"""Weights with an offset and codes whose zero is not code 0, taken apart so that tiles multiply planes alone.

For weights ``s T + beta`` and numbers ``t (a - z)`` the product is ``s t sum(T a) + beta t sum(a) - t z sum(W)``
(quantizers.md B.3; with ``z = -beta_a / gamma_a`` it is RTN's four terms). The first sum is that of the tiles; the
second is that of one more column, all ones, which every output of a group shares; the third is static.
"""

from dataclasses import replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imcsim.errors import GraphError
from imcsim.graph.epilogue import OnesColumn, SpatialAffine
from imcsim.graph.ir import Product, Tensor
from imcsim.graph.steps import Affine, Shape, Step
from imcsim.ternary import PlaneSum

Array = np.ndarray


def take_apart(product: Product, source: Tensor, bias: Array | float = 0.0) -> tuple[Product, tuple[Step, ...]]:
    """Return the product of the codes of *source* as tiles hold it, and the steps that make numbers of its sums.

    *bias* is one number or one per output. A convolution pads with the number 0, as PyTorch does: with the code of
    0 where there is one, else with code 0 and a correction that differs at the borders. Another ``pad_value`` than 0
    stays the code that it is. Raises GraphError for weights with an offset that differs between inputs.
    """
    weights, form = product.weights, source.format
    scale: Array = weights.scale.reshape(-1) * form.scale
    offset: Array = np.asarray(bias, dtype=np.float64).reshape(-1)
    has_ones = bool(np.any(weights.offset != 0))
    table: tuple[Step, ...] = ()
    if form.kind == "bases" and product.attrs.pad_value == 0:
        product = replace(product, attrs=replace(product.attrs, pad_value=form.high))  # the code without digits
    if form.zero and product.n_experts > 1:
        raise GraphError("kernels to choose from must get codes whose zero is code 0, got another zero")
    if form.zero:
        if product.padding != (0, 0) and product.attrs.pad_value == 0 and form.zero_code is None:
            sums = _sums_inside(product, source.shape)
            table = (SpatialAffine(np.array(1.0), form.offset * sums),)
        else:
            if product.attrs.pad_value == 0 and form.zero_code is not None:
                product = replace(product, attrs=replace(product.attrs, pad_value=form.zero_code))
            offset = offset + form.offset * _sums(weights)
    if has_ones:
        ones_scale = form.scale * _offset_of_outputs(weights)
        return with_ones_column(product), (OnesColumn(scale, ones_scale, offset, product.groups), *table)
    if scale.size == 1 and offset.size == 1:
        scale, offset = scale.reshape(()), offset.reshape(())
    return product, (Affine(scale, offset), *table)


def with_ones_column(product: Product) -> Product:
    """Return *product* without the offset of its weights, and behind the outputs of each group the sum of its inputs.

    The column of ones takes as many cells a row as an output has planes: one plane of ones, the others empty.
    """
    weights, groups = product.weights, product.groups
    n_outputs = weights.shape[0]
    per_output = (n_outputs, *(1,) * (len(weights.shape) - 1))

    def extended(values: Array, more: Array | float) -> Array:
        """Put *more* behind the entries of each group; outputs come first."""
        parts = np.split(values, groups)
        return np.concatenate([np.concatenate([part, np.full_like(part[:1], more)]) for part in parts])

    factors = weights.factors
    ones = np.flatnonzero(factors == 1) if factors.ndim == 1 else np.zeros(0, int)
    at = int(ones[0]) if ones.size else 0
    if not ones.size:  # no plane counts for 1: one of the ones does
        each = np.broadcast_to(factors.reshape(len(factors), -1), (len(factors), n_outputs))
        factors = np.stack([extended(row, float(j == at)) for j, row in enumerate(each)])
        factors = factors.reshape(len(factors), -1, *per_output[1:])
    planes = np.stack([extended(plane, int(j == at)) for j, plane in enumerate(weights.planes)])
    scale = extended(np.broadcast_to(weights.scale, per_output), 1.0)
    minus = extended(weights.minus, 1.0) if weights.minus.ndim else weights.minus
    group_scale = None if weights.group_scale is None else extended(weights.group_scale, 1.0)
    return replace(
        product,
        weights=replace(
            weights,
            planes=planes,
            factors=factors,
            scale=scale,
            offset=np.array(0.0),
            minus=minus,
            group_scale=group_scale,
        ),
    )


def _offset_of_outputs(weights: PlaneSum) -> Array:
    """Return the offset (1) or (c) of each output's weights."""
    offset = weights.offset
    if offset.size not in (1, weights.shape[0]) or (offset.size > 1 and offset.shape[0] != offset.size):
        raise GraphError(
            f"weights: offset must be one number or one for each of the {weights.shape[0]} outputs, got shape "
            f"{offset.shape}"
        )
    return offset.reshape(-1)


def _sums(weights: PlaneSum) -> Array:
    """Return for each output (c) the sum of its weights, as numbers; 0 for those without entries."""
    if not weights.has_values:
        return np.zeros(weights.shape[0])
    return weights.to_numbers().reshape(len(weights.planes[0]), -1).sum(axis=1)


def _sums_inside(product: Product, shape: Shape) -> Array:
    """Return for each output (c h w) the sum of those weights, as numbers, that lie on the image and not beside it."""
    if not product.weights.has_values:
        return np.zeros(product.shape(shape))
    (py, px), (sy, sx), (dy, dx), (kh, kw) = product.padding, product.stride, product.dilation, product.kernel
    is_inside = np.pad(np.ones(shape[1:]), ((py, py), (px, px)))
    windows = sliding_window_view(is_inside, (dy * (kh - 1) + 1, dx * (kw - 1) + 1))[::sy, ::sx, ::dy, ::dx]
    weights = np.broadcast_to(product.weights.to_numbers(), product.weights.shape).sum(axis=1)  # c kh kw
    return np.einsum("hwyx,cyx->chw", windows, weights)
