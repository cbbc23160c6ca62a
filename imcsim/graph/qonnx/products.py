"""Conv, MatMul and Gemm: the products that tiles do, with their padding and their biases."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from imcsim.graph.epilogue import SpatialAffine
from imcsim.graph.ir import LayerAttrs, Product
from imcsim.graph.offsets import sums_inside
from imcsim.graph.qonnx.assume import weights_of
from imcsim.graph.qonnx.attention import multiplied
from imcsim.graph.qonnx.call import NO_PADS, Call, Take, finite
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.shapes import reshaped
from imcsim.graph.qonnx.values import ONE, ZERO, Value
from imcsim.graph.qonnx.weights import coded
from imcsim.graph.qonnx.windows import pads_of, per_axis, shape_around
from imcsim.ternary import PlaneSum, UnknownPlanes

Array = np.ndarray

MOST_WEIGHTS = 1 << 26
"""Greatest number of weights, all planes together, once zeros are put into a kernel."""

MOST_TIMES = 16
"""Greatest multiple of the least scale of a channel that goes into the codes of weights: 4 planes more."""


def _source_of_product(value: Value) -> None:
    if not value.is_codes:
        raise UnfitError(
            "that reads real numbers",
            "a Quant, BipolarQuant or MultiThreshold before it, or --assume W=ternary,A=2 for time and energy alone",
        )


def _conv(call: Call) -> Value:
    value = call.value(takes_pads=True)
    _source_of_product(value)
    weights = call.constant(1, "weights")
    n = len(value.shape) - 1
    if n not in (1, 2) or weights.numbers.ndim != n + 2:
        raise UnfitError(f"with weights of shape {weights.shape} for an input of shape {value.shape}", "1 or 2 axes")
    kernel = weights.shape[2:]
    if tuple(call.attributes.get("kernel_shape", kernel)) != kernel:
        raise UnfitError(f"whose kernel_shape is not that of its weights, {kernel}")
    stride, dilation = (per_axis(call, name, n) for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    call.walk.require_size(value.padded)
    pads, pad_code = _joined_pads(value, pads_of(call, value.padded[1:], reach, stride))
    call.walk.require_size(shape_around(value, pads))
    groups = int(call.attributes.get("group", 1))
    if groups < 1 or weights.shape[0] % groups or weights.shape[1] * groups != value.shape[0]:
        raise UnfitError(f"of {value.shape[0]} channels with weights of shape {weights.shape} in {groups} groups")
    if n == 1:
        weights = weights.moved(lambda array: array[:, :, np.newaxis])
        stride, dilation = (1, *stride), (1, *dilation)
    value, planes = scale_into_weights(value, weights_of(call, weights), groups)
    planes, padding, dilation = _even_pads(planes, pads, dilation)
    product = Product(
        kind="conv2d",
        weights=planes,
        stride=stride,  # type: ignore[arg-type]
        padding=padding,
        dilation=dilation,  # type: ignore[arg-type]
        groups=groups,
        attrs=LayerAttrs(pad_value=pad_code),
    )
    bias = _bias(call, 2, weights.shape[0])
    return _multiplied(call, replace(value, pads=NO_PADS), product, bias)


def _multiplied(call: Call, value: Value, product: Product, bias: Array) -> Value:
    """Return the product with a bias, and what zeros that differ between channels add to it."""
    if not value.zero.ndim or not product.weights.has_values:
        value = value if not value.zero.ndim else replace(value, zero=ZERO)
        return call.walk.multiply(value, product, bias)
    shape, n_outputs = value.placed, product.n_outputs
    zeros = np.repeat(value.zero.reshape(product.groups, -1), n_outputs // product.groups, axis=0)  # c i
    inside = -value.scale * sums_inside(product, shape if len(shape) == 3 else (*shape, 1, 1), zeros)  # c h w
    value = replace(value, zero=ZERO)
    if product.padding == (0, 0):
        return call.walk.multiply(value, product, bias + inside[:, 0, 0])
    made = call.walk.multiply(value, product, bias)
    return call.walk.apply(made, (SpatialAffine(ONE, inside),), what="zero")


def scale_into_weights(value: Value, planes: PlaneSum, groups: int) -> tuple[Value, PlaneSum]:
    """Return codes of one scale, and weights that hold whatever the scales of the channels differ by.

    Where all inputs of an output have one scale (a depthwise convolution), it goes to the scale of the output. Where
    the scales are whole multiples of the least, the codes of the weights are multiplied, which makes more planes; else
    neighbouring channels of equal scale become an input group, whose sums are scaled before they are added.
    """
    scale, zero = (each[0] if each.ndim and np.all(each == each[0]) else each for each in (value.scale, value.zero))
    value = replace(value, scale=scale, zero=zero)
    if not scale.ndim:
        return value, planes
    each = np.repeat(scale.reshape(groups, -1), planes.shape[0] // groups, axis=0)  # c i
    behind = (1,) * (len(planes.shape) - 2)
    if np.all(each == each[:, :1]):
        one = each[:, :1].reshape(-1, 1, *behind)
        return replace(value, scale=ONE), replace(planes, scale=planes.scale * one, offset=planes.offset * one)
    planes, least = _without_offset(planes), scale[np.argmin(np.abs(scale))]
    times = np.rint(each / least)
    if planes.has_values and planes.is_whole and np.all(least * times == each) and np.abs(times).max() <= MOST_TIMES:
        codes = planes.to_codes() * times.astype(np.int64).reshape(*each.shape, *behind)
        return replace(value, scale=least), coded(codes, planes.scale.reshape(-1))
    changes = 1 + np.flatnonzero(np.any(each[:, 1:] != each[:, :-1], axis=0))
    size = int(np.gcd.reduce(changes))
    return replace(value, scale=ONE), replace(planes, group_size=size, group_scale=each[:, ::size])


def _joined_pads(value: Value, own: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the padding of a Pad and of the convolution behind it, and the code that it brings in; 0: the number 0."""
    together = tuple(a + b for a, b in zip(value.pads, own, strict=True))
    if value.pads == NO_PADS or value.pad_number == 0:
        return together, 0
    code = value.pad_number / float(value.scale) + float(value.zero) if not value.scale.ndim else 0.0
    code = float(np.round(code, 9))
    if any(own) or code != np.rint(code) or not value.form.low <= code <= value.form.high or code == 0:
        raise UnfitError(f"behind a Pad with {value.pad_number:g}", "a Pad with 0, or with a number that is a code")
    return together, int(code)


def _even_pads(
    planes: PlaneSum, pads: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[PlaneSum, tuple[int, int], tuple[int, ...]]:
    """Return weights, padding of equal sides and dilation: the side padded less gets weights of 0."""
    sides = tuple(zip(pads[:2], pads[2:], strict=True))
    gaps = [(max(side) - side[0], max(side) - side[1]) for side in sides]
    if any(map(any, gaps)):
        planes = _without_offset(planes)
        if any(gap % d for both, d in zip(gaps, dilation, strict=True) for gap in both):
            planes, dilation = _without_gaps(planes, dilation), (1, 1)
        more = [tuple(gap // d for gap in both) for both, d in zip(gaps, dilation, strict=True)]
        _require_kernel(planes, [k + sum(both) for k, both in zip(planes.shape[2:], more, strict=True)])
        around = ((0, 0), (0, 0), *more)
        if planes.has_values:
            planes = replace(planes, planes=np.pad(planes.planes, ((0, 0), *around)))
        else:
            planes = _spread(planes, [n + sum(gap) for n, gap in zip(planes.shape, around, strict=True)])
    return planes, (max(sides[0]), max(sides[1])), dilation


def _require_kernel(planes: PlaneSum, kernel: Sequence[int]) -> None:
    """Raise UnfitError for weights that would be absurdly large with a window *kernel*."""
    if prod(planes.planes.shape[:3]) * prod(kernel) > MOST_WEIGHTS:
        raise UnfitError(f"with a window {tuple(kernel)}, zeros included", "as much padding on both sides")


def _without_gaps(planes: PlaneSum, dilation: Sequence[int]) -> PlaneSum:
    """Return a kernel whose dilation is 1, with weights of 0 in the gaps."""
    (dy, dx), (kh, kw) = dilation, planes.shape[2:]
    window = dy * (kh - 1) + 1, dx * (kw - 1) + 1
    _require_kernel(planes, window)
    if not planes.has_values:
        return _spread(planes, (*planes.shape[:2], *window))
    wide = np.zeros((*planes.planes.shape[:3], *window), np.int8)
    wide[..., ::dy, ::dx] = planes.planes
    return replace(planes, planes=wide)


def _spread(planes: PlaneSum, shape: Sequence[int]) -> PlaneSum:
    """Return weights without entries in a larger *shape*, whose further entries are 0."""
    told: Any = planes.planes
    share = prod(planes.shape) / prod(shape)
    wider: Any = UnknownPlanes((len(told), *shape), 1 - share * (1 - told.zero_fraction), told.of)
    return replace(planes, planes=wider)


def _without_offset(planes: PlaneSum) -> PlaneSum:
    """Return weights of two levels with a plane of ones in the place of their offset."""
    if not np.any(planes.offset != 0):
        return planes
    per_output = (planes.shape[0], *(1,) * (len(planes.shape) - 1))
    factors = np.stack([np.broadcast_to(each, per_output) for each in (planes.scale, planes.offset)])
    return PlaneSum(planes=np.concatenate([planes.planes, np.ones_like(planes.planes)]), factors=factors)


def _bias(call: Call, place: int, n_outputs: int) -> Array:
    if not call.has(place):
        return ZERO
    bias = finite(call.constant(place, "a bias").numbers.astype(np.float64), "a bias").reshape(-1)
    if bias.size not in (1, n_outputs):
        raise UnfitError(f"with {bias.size} biases for {n_outputs} outputs")
    return bias.reshape(()) if bias.size == 1 else bias


def _matmul(call: Call) -> Value:
    if isinstance(call.given[1], Value):
        return multiplied(call, call.value(any_order=True), call.value(1, any_order=True))
    value = call.as_it_lies()
    weights = call.constant(1, "a second factor")
    return _linear(call, value, weights.moved(np.transpose), ZERO)


def _gemm(call: Call) -> Value:
    value = call.as_it_lies()
    if call.attributes.get("transA", 0):
        raise UnfitError("of a transposed input", "transA=0")
    weights = call.constant(1, "a second factor")
    if weights.numbers.ndim == 2 and not call.attributes.get("transB", 0):
        weights = weights.moved(np.transpose)
    if call.attributes.get("alpha", 1.0) != 1:
        weights = weights.times(np.array(call.attributes["alpha"], np.float32))
    bias = _bias(call, 2, weights.shape[0]) * np.float64(np.float32(call.attributes.get("beta", 1.0)))
    return _linear(call, value, weights, bias)


def _linear(call: Call, value: Value, weights: Constant, bias: Array) -> Value:
    _source_of_product(value)
    if value.batch_axis == len(value.shape):
        raise UnfitError("over the batch", "the batch in front")
    if weights.numbers.ndim != 2 or value.is_tokens or value.shape[-1] != weights.shape[1]:
        raise UnfitError(
            f"of numbers of shape {value.shape} and weights of shape {weights.shape}", "vectors (b ... c) and a matrix"
        )
    if len(value.shape) == 1:
        value, planes = scale_into_weights(value, weights_of(call, weights), 1)
        return _multiplied(call, value, Product(kind="linear", weights=planes), bias)
    return _each_token(call, value, weights.moved(lambda array: array[:, :, np.newaxis, np.newaxis]), bias)


def _each_token(call: Call, value: Value, weights: Constant, bias: Array) -> Value:
    """Return the linear map of the last axis at each place of the others: a convolution of 1 x 1."""
    *places, n_inputs = value.shape
    at, value = value.batch_axis, replace(value, batch_axis=0)
    tokens = reshaped(call, value, (call.walk.batch, prod(places), n_inputs))
    tokens = call.walk.turned(tokens, (1, 0))
    if not tokens.is_codes:
        raise UnfitError("of codes whose scale or zero differs between places", "one scale, or one per channel")
    tokens, planes = scale_into_weights(tokens, weights_of(call, weights), 1)
    made = _multiplied(call, tokens, Product(kind="conv2d", weights=planes), bias)
    return replace(reshaped(call, made, (call.walk.batch, *places, weights.shape[0])), batch_axis=at)


PRODUCTS: dict[str, Take] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
