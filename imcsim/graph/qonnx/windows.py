"""Pools, means over the image, and the padding around it."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from imcsim.graph.epilogue import (
    Mean,
    SpatialAffine,
)
from imcsim.graph.qonnx.call import NO_PADS, Call, Take
from imcsim.graph.qonnx.constants import UnfitError, axes_of
from imcsim.graph.qonnx.shapes import flat, reshaped
from imcsim.graph.qonnx.values import Value
from imcsim.graph.steps import (
    AvgPool,
    MaxPool,
    Shape,
    window_shape,
)

Array = np.ndarray


def per_axis(call: Call, name: str, n: int) -> tuple[int, ...]:
    """Return the attribute *name*, a number above 0 for each of *n* axes; 1 where it is missing."""
    found = tuple(call.attributes.get(name, (1,) * n))
    if len(found) != n or any(k < 1 for k in found):
        raise UnfitError(f"with {name} {found} for {n} axes")
    return found


def pads_of(call: Call, sizes: Sequence[int], reach: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
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


def shape_around(value: Value, pads: Sequence[int]) -> Shape:
    """Return the shape of an image with all its padding, top, left, bottom, right."""
    channels, height, width = value.placed
    return (channels, height + pads[0] + pads[2], width + pads[1] + pads[3])


def _window(call: Call, value: Value, *, fills: float) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return kernel, stride and padding of a pool that a graph has; *fills*: the number that padding stands for."""
    n = len(value.shape) - 1
    kernel = tuple(call.attributes.get("kernel_shape", ()))
    if n not in (1, 2) or len(kernel) != n or any(k < 1 for k in kernel):
        raise UnfitError(f"with a window {kernel} over numbers of shape {value.shape}", "1 or 2 axes")
    stride = per_axis(call, "strides", n)
    if any(d != 1 for d in per_axis(call, "dilations", n)):
        raise UnfitError("with dilation", "a window without gaps")
    pads = pads_of(call, value.padded[1:], kernel, stride)
    if value.pads != NO_PADS:
        if value.pad_number != fills or any(pads):
            raise UnfitError(f"behind a Pad with {value.pad_number:g}", "padding of its own")
        pads = value.pads
    if pads[:2] != pads[2:]:
        raise UnfitError(f"with padding {pads}", "as much padding on both sides")
    call.walk.require_size(shape_around(value, pads))
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
    call: Call,
    value: Value,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int] = (0, 0),
    *,
    what: str = "",
) -> Value:
    bounds = (value.low, value.high) if padding == (0, 0) else (min(0.0, value.low), max(0.0, value.high))
    step = AvgPool(kernel, stride, padding)
    if padding == (0, 0):  # the mean of codes is scaled, which is exact, and not their numbers one by one
        return call.walk.apply(value, (step, *value.numbers()), bounds=bounds, what=what)
    return call.walk.apply(value, (*value.numbers(), step), bounds=bounds, what=what)


def _shares(shape: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Array:
    """Return (1 h w): for each window, how many numbers it takes over how many of them lie on the image."""
    _, height, width = window_shape(shape, kernel, stride, padding)
    inside = []
    for size, n, k, s, p in zip(shape[1:], (height, width), kernel, stride, padding, strict=True):
        starts = np.arange(n) * s - p
        inside.append(np.minimum(starts + k, size) - np.maximum(starts, 0))
    return kernel[0] * kernel[1] / (inside[0][:, np.newaxis] * inside[1])[np.newaxis]


def _global_average_pool(call: Call) -> Value:
    return _mean_of_image(call)


def _mean_of_image(call: Call, what: str = "") -> Value:
    value = call.value()
    size = value.placed[1:]
    if not size:
        raise UnfitError(f"of numbers of shape {value.shape}", "an image or a sequence")
    return _mean_of(call, value, size, size, what=what)  # type: ignore[arg-type]


def _reduce_mean(call: Call) -> Value:
    value = call.value(any_order=True)
    n_axes = len(value.shape) + 1
    axes = axes_of(call.attributes, call.constants(), n_axes) or tuple(range(n_axes))
    keeps = bool(call.attributes.get("keepdims", 1))
    if n_axes > 2 and axes == tuple(range(2, n_axes)) and n_axes <= 4:
        return _mean_of_image(call) if keeps else flat(call, _mean_of_image(call, "mean"))
    if len(axes) == 1 and axes != (0,) and n_axes > 2:
        led = call.walk.led_by(value, axes[0] - 1)
        after = tuple(1 if axis == axes[0] - 1 else n for axis, n in enumerate(value.shape))
        bounds = (value.low, value.high)
        made = call.walk.apply(
            led, (*led.numbers(), Mean("channels")), shape=after, order=led.order, bounds=bounds
        )  # fmt: skip
        left = [n for axis, n in enumerate(after) if axis != axes[0] - 1]
        return made if keeps else reshaped(call, made, (call.walk.batch, *left))
    raise UnfitError(f"over axes {axes}", "the axes of the image, or one axis behind the batch")


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


WINDOWS: dict[str, Take] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "MaxPool": _max_pool,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
}
