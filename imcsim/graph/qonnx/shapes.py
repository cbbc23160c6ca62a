"""What moves numbers or names them anew, and changes none of them."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from imcsim.graph.epilogue import (
    Concat,
    Slice,
)
from imcsim.graph.qonnx.call import Call, Take
from imcsim.graph.qonnx.constants import Constant, UnfitError, axes_of, target_shape, unsqueezed
from imcsim.graph.qonnx.values import ONE, ZERO, Value, is_flat, placed
from imcsim.graph.steps import (
    Affine,
    Flatten,
)

Array = np.ndarray


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
        return flat(call, value)
    raise UnfitError(f"from {value.shape} to {after}", "Flatten, or axes of size 1")


def flat(call: Call, value: Value) -> Value:
    """Return *value* with all axes behind the batch in one."""
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
    return flat(call, value)


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
    if starts is None or ends is None or axes != [1] or (steps or [1]) != [1]:
        raise UnfitError("of anything but a range of channels", "axes=[1] with steps of 1")
    first, last, _ = slice(starts[0], ends[0]).indices(value.shape[0])
    scale, zero = (each[first:last] if each.ndim else each for each in (value.scale, value.zero))
    return call.walk.apply(value, (Slice(first, last),), scale=scale, zero=zero, bounds=(value.low, value.high))


SHAPES: dict[str, Take] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _same,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Identity": _same,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
