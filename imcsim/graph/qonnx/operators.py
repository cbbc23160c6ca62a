"""ONNX's own operators on what follows from the input: a function for each, from a call to the value that comes out.

What is linear stays with the codes: their scale and zero change, and no step is made. A function raises UnfitError for
what it does not take, with the nearest thing that it does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from imcsim.graph.epilogue import (
    Abs,
    AddChannels,
    Clip,
    Concat,
    HardSwish,
    Mean,
    Mul,
    PRelu,
    Sigmoid,
    Slice,
    SpatialAffine,
)
from imcsim.graph.formats import TERNARY
from imcsim.graph.ir import LayerAttrs, Product
from imcsim.graph.qonnx.constants import Constant, UnfitError, axes_of, clip_limits, target_shape, unsqueezed
from imcsim.graph.qonnx.file import Node
from imcsim.graph.qonnx.values import ONE, ZERO, Value, bounds_after, is_flat, placed
from imcsim.graph.qonnx.weights import planes_of
from imcsim.graph.steps import (
    Add,
    Affine,
    AvgPool,
    Flatten,
    LogSoftmax,
    MaxPool,
    Relu,
    Shape,
    Step,
    Tanh,
    Threshold,
    window_shape,
)
from imcsim.ternary import PlaneSum

if TYPE_CHECKING:
    from imcsim.graph.qonnx.walk import Walk

Array = np.ndarray
GREATEST = float(np.finfo(np.float32).max)
NO_PADS = (0, 0, 0, 0)
MOST_WEIGHTS = 1 << 26
"""Greatest number of weights, all planes together, once zeros are put into a kernel."""


@dataclass(frozen=True, eq=False)
class Call:
    """One node, with what it reads."""

    node: Node
    given: Sequence[Value | Constant | None]
    walk: "Walk"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the node."""
        return self.node.attributes

    def value(self, place: int = 0, *, takes_pads: bool = False) -> Value:
        """Return the input at *place*, which follows from the network's input."""
        found = self.given[place] if len(self.given) > place else None
        if not isinstance(found, Value):
            raise UnfitError(f"whose input {place + 1} is a constant", "a constant on the other side")
        if found.pads != NO_PADS and not takes_pads:
            raise UnfitError("behind a Pad", "a Pad right before Conv, MaxPool or AveragePool")
        return found

    def constant(self, place: int, what: str) -> Constant:
        """Return the input at *place*, which the file holds."""
        found = self.given[place] if len(self.given) > place else None
        if not isinstance(found, Constant):
            raise UnfitError(f"with {what} that are {'computed' if found is not None else 'missing'}", "an initializer")
        return found

    def has(self, place: int) -> bool:
        """Whether there is an input at *place*."""
        return len(self.given) > place and self.given[place] is not None

    def constants(self) -> list[Constant | None]:
        """Return the inputs that the file holds, None in the place of others."""
        return [found if isinstance(found, Constant) else None for found in self.given]


Take = Callable[[Call], Value | Constant]


def per_channel(values: Array, value: Value, what: str) -> Array:
    """Return *values*, which meet the axes of *value*, as one number () or one per channel (c)."""
    wide = _meeting(values, value.shape, what)
    if wide.size == 1:
        return wide.reshape(())
    if prod(wide.shape[1:]) != 1:
        raise UnfitError(f"with {what} for each pixel", f"{what} for all, or one per channel")
    return wide.reshape(-1)


def _meeting(values: Array, shape: Shape, what: str) -> Array:
    """Return *values* as float64 with the axes of *shape*, each whole or 1."""
    values = np.asarray(values, np.float64)
    n_axes = len(shape) + 1
    if values.size == 1:
        return values.reshape((1,) * len(shape))
    if values.ndim > n_axes:
        raise UnfitError(f"with {what} of shape {values.shape} for numbers of shape {shape}")
    wide = values.reshape((1,) * (n_axes - values.ndim) + values.shape)
    if wide.shape[0] != 1 or any(n not in (1, m) for n, m in zip(wide.shape[1:], shape, strict=True)):
        raise UnfitError(f"with {what} of shape {values.shape} for numbers of shape {shape}")
    return wide[0]


def _finite(values: Array, what: str) -> Array:
    if not np.all(np.isfinite(values)):
        raise UnfitError(f"with {what} that is not finite")
    return values


# --- arithmetic -----------------------------------------------------------------------------------------------------


def _affine(call: Call, value: Value, scale: Array, offset: Array) -> Value:
    """Return ``scale * x + offset``; both meet the axes of x."""
    scale, offset = (_finite(_meeting(values, value.shape, "a constant"), "a constant") for values in (scale, offset))
    if all(values.size == 1 or prod(values.shape[1:]) == 1 for values in (scale, offset)):
        scale, offset = (values.reshape(()) if values.size == 1 else values.reshape(-1) for values in (scale, offset))
        if value.is_codes and np.all(scale != 0):
            return value.affine(scale, offset)
        step = Affine(scale, offset)
        bounds = bounds_after(step, value.low, value.high)
        return call.walk.apply(value, (*value.numbers(), step), bounds=bounds)
    if len(value.shape) == 1:
        raise AssertionError("one number a channel is no table")
    tables = [
        values.reshape(()) if values.size == 1 else values.reshape(placed(values.shape)) for values in (scale, offset)
    ]
    return call.walk.apply(value, (*value.numbers(), SpatialAffine(*tables)))


def _add(call: Call) -> Value:
    return _sum(call, 1.0)


def _sub(call: Call) -> Value:
    return _sum(call, -1.0)


def _sum(call: Call, sign: float) -> Value:
    left, right = call.given[0], call.given[1]
    if isinstance(right, Constant):
        return _affine(call, call.value(0), ONE, sign * right.numbers.astype(np.float64))
    if isinstance(left, Constant):
        return _affine(call, call.value(1), np.array(sign), left.numbers.astype(np.float64))
    values = [call.value(0), call.value(1)]
    if values[0].shape != values[1].shape:
        raise UnfitError(f"of shapes {values[0].shape} and {values[1].shape}", "two tensors of one shape")
    signs = [1.0, sign]
    if call.walk.made_at(values[1]) > call.walk.made_at(values[0]):  # the op that makes the later one takes the step
        values.reverse()
        signs.reverse()
    base, other = values
    bounds = _sum_bounds(base, other, signs)
    steps: list[Step] = list(base.numbers())
    if signs[0] < 0:
        steps.append(Affine(-ONE, ZERO))
    if other.scale.ndim:
        steps.append(AddChannels(other.tensor, signs[1] * other.scale))
    else:
        steps.append(Add(other.tensor, signs[1] * float(other.scale)))
    if np.any(other.zero != 0):
        steps.append(Affine(ONE, -signs[1] * other.scale * other.zero))
    return call.walk.apply(base, steps, bounds=bounds)


def _sum_bounds(base: Value, other: Value, signs: Sequence[float]) -> tuple[float, float]:
    ends = [(signs[0] * base.low, signs[0] * base.high), (signs[1] * other.low, signs[1] * other.high)]
    return min(ends[0]) + min(ends[1]), max(ends[0]) + max(ends[1])


def _mul(call: Call) -> Value:
    for place in (0, 1):
        constant = call.given[1 - place]
        if isinstance(constant, Constant):
            return _affine(call, call.value(place), constant.numbers.astype(np.float64), ZERO)
    left, right = call.value(0), call.value(1)
    if prod(left.shape) < prod(right.shape):
        left, right = right, left
    right = call.walk.as_numbers(right, "other")
    return call.walk.apply(left, (*left.numbers(), Mul(right.tensor)))


def _div(call: Call) -> Value:
    value = call.value(0)
    divisor = call.constant(1, "divisors").numbers.astype(np.float64)
    if np.any(divisor == 0):
        raise UnfitError("by 0")
    return _affine(call, value, 1 / divisor, ZERO)


def _neg(call: Call) -> Value:
    return _affine(call, call.value(), -ONE, ZERO)


def _batch_norm(call: Call) -> Value:
    value = call.value()
    if call.attributes.get("training_mode", 0) or call.attributes.get("spatial", 1) != 1:
        raise UnfitError("that is training, or has a statistic for each pixel", "an export in evaluation mode")
    gamma, beta, mean, variance = (
        call.constant(place, "parameters").numbers.astype(np.float64).reshape(-1) for place in range(1, 5)
    )
    if any(len(values) != value.shape[0] for values in (gamma, beta, mean, variance)):
        raise UnfitError(f"with other parameters than one for each of {value.shape[0]} channels")
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    wide = (-1, *(1,) * (len(value.shape) - 1))
    return _affine(call, value, scale.reshape(wide), (beta - mean * scale).reshape(wide))


# --- functions of one number ----------------------------------------------------------------------------------------


def _function(*steps: Step, low: float = -inf, high: float = inf) -> Take:
    def take(call: Call) -> Value:
        value = call.value()
        return call.walk.apply(value, (*value.numbers(), *steps), bounds=(low, high))

    return take


def _relu(call: Call) -> Value:
    value = call.value()
    if value.is_codes and value.low >= 0:
        return value
    return call.walk.apply(value, (*value.numbers(), Relu()), bounds=(max(0.0, value.low), max(0.0, value.high)))


def _leaky_relu(call: Call) -> Value:
    value = call.value()
    slope = np.array(np.float32(call.attributes.get("alpha", 0.01)), np.float64)
    return call.walk.apply(value, (*value.numbers(), PRelu(slope)))


def _prelu(call: Call) -> Value:
    value = call.value()
    slope = per_channel(call.constant(1, "slopes").numbers, value, "a slope")
    return call.walk.apply(value, (*value.numbers(), PRelu(slope)))


def _clip(call: Call) -> Value:
    value = call.value()
    for place in range(1, len(call.given)):
        if call.has(place):
            call.constant(place, "limits")
    low, high = clip_limits(call.attributes, call.constants())
    step = Clip(max(low, -GREATEST), min(high, GREATEST))
    return call.walk.apply(value, (*value.numbers(), step), bounds=(max(low, value.low), min(high, value.high)))


def _sign(call: Call) -> Value:
    value = call.value()
    step = Threshold([[0.0, np.nextafter(0.0, 1.0)]], [-1, 0, 1], TERNARY)  # type: ignore[arg-type]
    return call.walk.apply(value, (*value.numbers(), step), bounds=(-1.0, 1.0))


def _hard_sigmoid(call: Call) -> Value:
    value = call.value()
    alpha, beta = (float(np.float32(call.attributes.get(*said))) for said in (("alpha", 0.2), ("beta", 0.5)))
    steps = (*value.numbers(), Affine(np.array(alpha), np.array(beta)), Clip(0.0, 1.0))
    return call.walk.apply(value, steps, bounds=(0.0, 1.0))


def _log_softmax(call: Call) -> Value:
    value = call.value()
    if call.attributes.get("axis", -1 if call.walk.model.opset >= 13 else 1) not in (1, -len(value.shape)):
        raise UnfitError("over anything but the channels", "the axis behind the batch")
    if call.walk.model.opset < 13 and len(value.shape) > 1:
        raise UnfitError("over all axes behind the batch, as before opset 13", "the channels alone")
    return call.walk.apply(value, (*value.numbers(), LogSoftmax()))


# --- products -------------------------------------------------------------------------------------------------------


def _source_of_product(value: Value) -> None:
    if not value.is_codes:
        raise UnfitError("that reads real numbers", "a Quant, BipolarQuant or MultiThreshold before it")


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
    stride, dilation = (_per_axis(call, name, n) for name in ("strides", "dilations"))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    call.walk.require_size(value.padded)
    pads, pad_code = _joined_pads(value, _pads(call, value.padded[1:], reach, stride))
    call.walk.require_size(_around(value, pads))
    groups = int(call.attributes.get("group", 1))
    if groups < 1 or weights.shape[0] % groups or weights.shape[1] * groups != value.shape[0]:
        raise UnfitError(f"of {value.shape[0]} channels with weights of shape {weights.shape} in {groups} groups")
    if n == 1:
        weights = weights.moved(lambda array: array[:, :, np.newaxis])
        stride, dilation = (1, *stride), (1, *dilation)
    planes = planes_of(weights)
    value, planes = _scale_into_weights(value, planes, groups)
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
    return call.walk.multiply(replace(value, pads=NO_PADS), product, bias, n + 1)


def _scale_into_weights(value: Value, planes: PlaneSum, groups: int) -> tuple[Value, PlaneSum]:
    """Move scales per channel into the weights where each channel has outputs of its own: a depthwise convolution."""
    if not value.scale.ndim or groups != value.shape[0]:
        return value, planes
    if value.zero.ndim and np.all(value.zero == value.zero[0]):
        value = replace(value, zero=value.zero[0])
    each = np.repeat(value.scale, planes.shape[0] // groups).reshape(-1, *(1,) * (len(planes.shape) - 1))
    return replace(value, scale=ONE), replace(planes, scale=planes.scale * each, offset=planes.offset * each)


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
        planes = replace(planes, planes=np.pad(planes.planes, ((0, 0), (0, 0), (0, 0), *more)))
    return planes, (max(sides[0]), max(sides[1])), dilation


def _require_kernel(planes: PlaneSum, kernel: Sequence[int]) -> None:
    """Raise UnfitError for weights that would be absurdly large with a window *kernel*."""
    if prod(planes.planes.shape[:3]) * prod(kernel) > MOST_WEIGHTS:
        raise UnfitError(f"with a window {tuple(kernel)}, zeros included", "as much padding on both sides")


def _without_gaps(planes: PlaneSum, dilation: Sequence[int]) -> PlaneSum:
    """Return a kernel whose dilation is 1, with weights of 0 in the gaps."""
    (dy, dx), (kh, kw) = dilation, planes.shape[2:]
    _require_kernel(planes, (dy * (kh - 1) + 1, dx * (kw - 1) + 1))
    wide = np.zeros((*planes.planes.shape[:3], dy * (kh - 1) + 1, dx * (kw - 1) + 1), np.int8)
    wide[..., ::dy, ::dx] = planes.planes
    return replace(planes, planes=wide)


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
    bias = _finite(call.constant(place, "a bias").numbers.astype(np.float64), "a bias").reshape(-1)
    if bias.size not in (1, n_outputs):
        raise UnfitError(f"with {bias.size} biases for {n_outputs} outputs")
    return bias.reshape(()) if bias.size == 1 else bias


def _matmul(call: Call) -> Value:
    value = call.value()
    weights = call.constant(1, "a second factor")
    return _linear(call, value, weights.moved(np.transpose), ZERO)


def _gemm(call: Call) -> Value:
    value = call.value()
    if call.attributes.get("transA", 0):
        raise UnfitError("of a transposed input", "transA=0")
    weights = call.constant(1, "a second factor")
    if weights.numbers.ndim == 2 and not call.attributes.get("transB", 0):
        weights = weights.moved(np.transpose)
    weights = weights.times(np.array(call.attributes.get("alpha", 1.0), np.float32))
    bias = _bias(call, 2, weights.shape[0]) * np.float64(np.float32(call.attributes.get("beta", 1.0)))
    return _linear(call, value, weights, bias)


def _linear(call: Call, value: Value, weights: Constant, bias: Array) -> Value:
    _source_of_product(value)
    if len(value.shape) != 1 or weights.numbers.ndim != 2:
        raise UnfitError(
            f"of numbers of shape {value.shape} and weights of shape {weights.shape}", "vectors (b c) and a matrix"
        )
    return call.walk.multiply(value, Product(kind="linear", weights=planes_of(weights)), bias, 1)


# --- windows --------------------------------------------------------------------------------------------------------


def _per_axis(call: Call, name: str, n: int) -> tuple[int, ...]:
    found = tuple(call.attributes.get(name, (1,) * n))
    if len(found) != n or any(k < 1 for k in found):
        raise UnfitError(f"with {name} {found} for {n} axes")
    return found


def _pads(call: Call, sizes: Sequence[int], reach: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    """Return the padding top, left, bottom, right; of a sequence 0, left, 0, right."""
    n, auto = len(sizes), call.attributes.get("auto_pad", "NOTSET")
    pads = tuple(call.attributes.get("pads", (0,) * (2 * n)))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max(0, (-(-m // s) - 1) * s + r - m) for m, r, s in zip(sizes, reach, stride, strict=True)]
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = (*less, *more) if auto == "SAME_UPPER" else (*more, *less)
    elif auto == "VALID":
        pads = (0,) * (2 * n)
    if len(pads) != 2 * n or any(p < 0 for p in pads) or auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise UnfitError(f"with pads {pads} and auto_pad {auto} for {n} axes")
    return pads if n == 2 else (0, pads[0], 0, pads[1])


def _around(value: Value, pads: Sequence[int]) -> Shape:
    """Return the shape of an image with all its padding, top, left, bottom, right."""
    channels, height, width = value.placed
    return (channels, height + pads[0] + pads[2], width + pads[1] + pads[3])


def _window(call: Call, value: Value, *, fills: float) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return kernel, stride and padding of a pool that a graph has; *fills*: the number that padding stands for."""
    n = len(value.shape) - 1
    kernel = tuple(call.attributes.get("kernel_shape", ()))
    if n not in (1, 2) or len(kernel) != n or any(k < 1 for k in kernel):
        raise UnfitError(f"with a window {kernel} over numbers of shape {value.shape}", "1 or 2 axes")
    stride = _per_axis(call, "strides", n)
    if any(d != 1 for d in _per_axis(call, "dilations", n)):
        raise UnfitError("with dilation", "a window without gaps")
    pads = _pads(call, value.padded[1:], kernel, stride)
    if value.pads != NO_PADS:
        if value.pad_number != fills or any(pads):
            raise UnfitError(f"behind a Pad with {value.pad_number:g}", "padding of its own")
        pads = value.pads
    if pads[:2] != pads[2:]:
        raise UnfitError(f"with padding {pads}", "as much padding on both sides")
    call.walk.require_size(_around(value, pads))
    if n == 1:
        kernel, stride = (1, *kernel), (1, *stride)
    if call.attributes.get("ceil_mode", 0):
        sizes = value.placed[1:]
        if any((m + 2 * p - k) % s for m, p, k, s in zip(sizes, pads[:2], kernel, stride, strict=True)):
            raise UnfitError("with ceil_mode, by which the last window sticks out", "ceil_mode=0")
    return (kernel[0], kernel[1]), (stride[0], stride[1]), (pads[0], pads[1])


def _max_pool(call: Call) -> Value:
    value = call.value(takes_pads=True)
    if len(call.node.outputs) > 1 and call.node.outputs[1]:
        raise UnfitError("that gives indices, too", "its first output alone")
    return _greatest(call, replace(value, pads=NO_PADS), *_window(call, value, fills=-inf))


def _global_max_pool(call: Call) -> Value:
    value = call.value()
    size = value.placed[1:]
    return _greatest(call, value, size, size)  # type: ignore[arg-type]


def _greatest(
    call: Call, value: Value, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int] = (0, 0)
) -> Value:
    step, bounds = MaxPool(kernel, stride, padding), (value.low, value.high)
    if value.is_codes and (np.any(value.scale <= 0) or not value.form.ascends):
        return call.walk.apply(value, (*value.numbers(), step), bounds=bounds)
    return call.walk.apply(value, (step,), scale=value.scale, zero=value.zero, bounds=bounds)


def _average_pool(call: Call) -> Value:
    value = call.value(takes_pads=True)
    kernel, stride, padding = _window(call, value, fills=0.0)
    is_inside = value.pads == NO_PADS and not call.attributes.get("count_include_pad", 0)
    made = _mean_of(call, replace(value, pads=NO_PADS), kernel, stride, padding)
    if padding == (0, 0) or not is_inside:
        return made
    table = _shares(value.placed, kernel, stride, padding)
    return call.walk.apply(made, (SpatialAffine(table),), what="inside")


def _mean_of(
    call: Call, value: Value, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int] = (0, 0)
) -> Value:
    bounds = (value.low, value.high) if padding == (0, 0) else (min(0.0, value.low), max(0.0, value.high))
    step = AvgPool(kernel, stride, padding)
    if padding == (0, 0):  # the mean of codes is scaled, which is exact, and not their numbers one by one
        return call.walk.apply(value, (step, *value.numbers()), bounds=bounds)
    return call.walk.apply(value, (*value.numbers(), step), bounds=bounds)


def _shares(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Array:
    """Return (1 h w): for each window, how many numbers it takes over how many of them lie on the image."""
    _, height, width = window_shape(shape, kernel, stride, padding)
    inside = []
    for size, n, k, s, p in zip(shape[1:], (height, width), kernel, stride, padding, strict=True):
        starts = np.arange(n) * s - p
        inside.append(np.minimum(starts + k, size) - np.maximum(starts, 0))
    return kernel[0] * kernel[1] / (inside[0][:, np.newaxis] * inside[1])[np.newaxis]


def _global_average_pool(call: Call) -> Value:
    value = call.value()
    size = value.placed[1:]
    if not size:
        raise UnfitError(f"of numbers of shape {value.shape}", "an image or a sequence")
    return _mean_of(call, value, size, size)  # type: ignore[arg-type]


def _reduce_mean(call: Call) -> Value:
    value = call.value()
    n_axes = len(value.shape) + 1
    axes = axes_of(call.attributes, call.constants(), n_axes) or tuple(range(n_axes))
    keeps = bool(call.attributes.get("keepdims", 1))
    if n_axes > 2 and axes == tuple(range(2, n_axes)):
        made = _global_average_pool(call)
        return made if keeps else _flat(call, made)
    if axes == (1,) and keeps:
        return call.walk.apply(value, (*value.numbers(), Mean("channels")), shape=(1, *value.shape[1:]))
    raise UnfitError(f"over axes {axes}", "the axes of the image, or the channels with keepdims")


def _pad(call: Call) -> Value:
    value = call.value(takes_pads=True)
    if call.attributes.get("mode", "constant") != "constant":
        raise UnfitError(f"with mode {call.attributes['mode']}", "a constant")
    pads = call.attributes.get("pads")
    if pads is None:
        pads = [int(n) for n in call.constant(1, "a padding").numbers.reshape(-1)]
    number = float(call.attributes.get("value", 0.0))
    if call.has(2):
        number = float(call.constant(2, "a number").numbers.reshape(-1)[0])
    n_axes = len(value.shape) + 1
    axes = range(n_axes)
    if call.has(3):
        axes = [int(n) % n_axes for n in call.constant(3, "axes").numbers.reshape(-1)]  # type: ignore[assignment]
    if len(pads) != 2 * len(axes):
        raise UnfitError(f"with {len(pads)} pads for {len(axes)} axes")
    before, after = [0] * n_axes, [0] * n_axes
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    if not any(before) and not any(after):
        return value
    if any(before[:2]) or any(after[:2]) or min(*before, *after) < 0 or value.pads != NO_PADS:
        raise UnfitError(f"with pads {list(pads)}", "padding around the image")
    if n_axes == 3:
        around = (0, before[2], 0, after[2])
    else:
        around = (before[2], before[3], after[2], after[3])
    return replace(value, pads=around, pad_number=number)


# --- shapes ---------------------------------------------------------------------------------------------------------


def _same(call: Call) -> Value:
    return call.value(takes_pads=True)


def _cast(call: Call) -> Value:
    if call.attributes.get("to") not in (1, 10, 11, 16):
        raise UnfitError("to whole numbers", "a Quant, which says how it rounds")
    return call.value(takes_pads=True)


def _dropout(call: Call) -> Value:
    if call.has(2) and np.any(call.constant(2, "training_mode").numbers):
        raise UnfitError("that is training", "an export in evaluation mode")
    return call.value()


def _shape(call: Call) -> Constant:
    value = call.value()
    shape = (call.walk.batch, *value.shape)
    first, last = call.attributes.get("start", 0), call.attributes.get("end", len(shape))
    return Constant(np.array(shape[first:last], np.int64))


def _reshaped(call: Call, value: Value, shape: Sequence[int]) -> Value:
    """Return *value* with *shape*, the batch included, where its numbers keep their places in the graph."""
    shape, batch = tuple(shape), call.walk.batch
    if prod(shape) != batch * prod(value.shape) or not shape or shape[0] != batch or len(shape) < 2:
        raise UnfitError(f"from {(batch, *value.shape)} to {shape}", "a shape that keeps the batch")
    after = shape[1:]
    if after == value.shape:
        return value
    if len(after) <= 3 and placed(after) == value.placed:
        return replace(value, shape=after)
    if len(after) == 1:
        return _flat(call, value)
    raise UnfitError(f"from {value.shape} to {after}", "Flatten, or axes of size 1")


def _flat(call: Call, value: Value) -> Value:
    n = prod(value.shape[1:])
    scale, zero = (np.repeat(each, n) if each.ndim else each for each in (value.scale, value.zero))
    if len(value.shape) == 1:
        return value
    return call.walk.apply(
        value, (Flatten(),), shape=(prod(value.shape),), scale=scale, zero=zero, bounds=(value.low, value.high)
    )


def _flatten(call: Call) -> Value:
    value = call.value()
    if call.attributes.get("axis", 1) not in (1, -len(value.shape)):
        raise UnfitError(f"from axis {call.attributes.get('axis')} on", "axis=1")
    return _flat(call, value)


def _reshape(call: Call) -> Value:
    value = call.value()
    wanted = call.attributes.get("shape")
    if wanted is None:
        wanted = [int(n) for n in call.constant(1, "a shape").numbers.reshape(-1)]
    full = (call.walk.batch, *value.shape)
    return _reshaped(call, value, target_shape(full, wanted, keeps_zeros=not call.attributes.get("allowzero", 0)))


def _squeeze(call: Call) -> Value:
    value = call.value()
    full = (call.walk.batch, *value.shape)
    axes = axes_of(call.attributes, call.constants(), len(full))
    if axes is None:
        axes = tuple(axis for axis, n in enumerate(full) if n == 1 and axis)
    if any(full[axis] != 1 for axis in axes):
        raise UnfitError(f"of axes {axes} of {full}, which are not 1")
    return _reshaped(call, value, [n for axis, n in enumerate(full) if axis not in axes])


def _unsqueeze(call: Call) -> Value:
    value = call.value()
    full = (call.walk.batch, *value.shape)
    n = len(call.attributes["axes"]) if "axes" in call.attributes else call.constant(1, "axes").numbers.size
    axes = axes_of(call.attributes, call.constants(), len(full) + n)
    assert axes is not None
    return _reshaped(call, value, unsqueezed(full, axes))


def _transpose(call: Call) -> Value:
    value = call.value()
    full = (call.walk.batch, *value.shape)
    perm = tuple(call.attributes.get("perm", reversed(range(len(full)))))
    if sorted(perm) != list(range(len(full))):
        raise UnfitError(f"by {perm}, which is no order of {len(full)} axes")
    moved = [axis for axis in perm if axis and full[axis] != 1]
    if perm[0] == 0 and moved == sorted(moved) and (is_flat(value.shape) or not value.scale.ndim):
        return _reshaped(call, value, [full[axis] for axis in perm])
    raise UnfitError(f"by {perm} of {full}", "channels behind the batch throughout (NCHW)")


def _concat(call: Call) -> Value:
    values = [call.value(place) for place in range(len(call.given))]
    n_axes = len(values[0].shape) + 1
    if call.attributes.get("axis") not in (1, 1 - n_axes):
        raise UnfitError(f"along axis {call.attributes.get('axis')}", "channels, axis=1")
    if len(values) == 1:
        return values[0]
    first = values[0]
    alike = all(
        value.form == first.form
        and np.array_equal(value.scale, first.scale)
        and np.array_equal(value.zero, first.zero)
        and not first.scale.ndim
        and not first.zero.ndim
        for value in values
    )
    if not alike:
        values = [call.walk.as_numbers(value, f"part{number}") for number, value in enumerate(values)]
        if any(value.is_codes for value in values):  # whose numbers are their codes
            values = [
                call.walk.apply(value, (Affine(ONE, ZERO),), what=f"real{number}") if value.is_codes else value
                for number, value in enumerate(values)
            ]
        first = values[0]
    bounds = min(value.low for value in values), max(value.high for value in values)
    steps = [Concat(value.tensor, value.shape[0]) for value in values[1:]]
    return call.walk.apply(first, steps, scale=first.scale, zero=first.zero, bounds=bounds)


def _slice(call: Call) -> Value:
    value = call.value()
    n_axes = len(value.shape) + 1
    said = []
    for place, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        found = call.attributes.get(name)
        if found is None and call.has(place):
            found = [int(n) for n in call.constant(place, name).numbers.reshape(-1)]
        said.append(found)
    starts, ends, axes, steps = said
    axes = [axis % n_axes for axis in (axes if axes is not None else range(len(starts or ())))]
    if starts is None or ends is None or axes != [1] or (steps or [1]) != [1] or value.scale.ndim or value.zero.ndim:
        raise UnfitError("of anything but a range of channels", "axes=[1] with steps of 1")
    first, last, _ = slice(starts[0], ends[0]).indices(value.shape[0])
    bounds = (value.low, value.high)
    return call.walk.apply(value, (Slice(first, last),), scale=value.scale, zero=value.zero, bounds=bounds)


OPERATORS: dict[str, Take] = {
    "Abs": _function(Abs(), low=0.0),
    "Add": _add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _same,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function(HardSwish()),
    "Identity": _same,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _prelu,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _relu,
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _function(Sigmoid(), low=0.0, high=1.0),
    "Sign": _sign,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Tanh": _function(Tanh(), low=-1.0, high=1.0),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""ONNX's own operators that are taken where they read what follows from the input."""

INSTEAD = {
    "FloatQuant": "Quant, whose numbers are whole",
    "ConvTranspose": "Conv behind zeros put between the pixels by the model",
    "Softmax": "LogSoftmax, or no Softmax: the greatest stays the greatest",
    "ArgMax": "the numbers themselves",
    "Gelu": "Relu",
    "Erf": "Relu",
    "LSTM": "imcsim.quant's recurrent layers (imcsim.capture)",
    "GRU": "imcsim.quant's recurrent layers (imcsim.capture)",
    "RNN": "imcsim.quant's recurrent layers (imcsim.capture)",
    "Resize": "Conv with a stride",
    "Upsample": "Conv with a stride",
    "If": "a model without branches that depend on values",
    "Loop": "a model without loops",
    "LayerNormalization": "BatchNormalization",
    "InstanceNormalization": "BatchNormalization",
    "QuantizeLinear": "Quant of qonnx.custom_op.general (qonnx.transformation.qcdq_to_qonnx)",
    "DequantizeLinear": "Quant of qonnx.custom_op.general (qonnx.transformation.qcdq_to_qonnx)",
    "QLinearConv": "Quant and Conv (qonnx.transformation.qcdq_to_qonnx)",
    "ConvInteger": "Quant and Conv (qonnx.transformation.qcdq_to_qonnx)",
    "MatMulInteger": "Quant and MatMul (qonnx.transformation.qcdq_to_qonnx)",
}
"""The nearest thing to an operator that is not taken."""
