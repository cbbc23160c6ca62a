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
from imcsim.graph.qonnx.weights import table_codes
from imcsim.graph.recurrent import Embedding
from imcsim.graph.steps import (
    Affine,
    Flatten,
)

Array = np.ndarray


def _same(call: Call) -> Value:
    return call.value(takes_pads=True, takes_order=True)


def _cast(call: Call) -> Value:
    value = call.value(takes_pads=True, takes_order=True)
    if call.attributes.get("to") not in (1, 10, 11, 16) and value.channels != "none":  # tokens are whole numbers
        raise UnfitError("to whole numbers", "a Quant, which says how it rounds")
    return value


def _dropout(call: Call) -> Value:
    if call.has(2) and np.any(call.constant(2, "training_mode").numbers):
        raise UnfitError("that is training", "an export in evaluation mode")
    return call.value(takes_order=True)


def _shape(call: Call) -> Constant:
    value = call.value(takes_order=True)
    shape = value.full(call.walk.batch)
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


def vector_of(call: Call, value: Value, what: str = "") -> Value:
    """Return the channels (c) of a sequence that has one time step, whatever order its axes have."""
    steps, bounds = (Flatten(),), (value.low, value.high)
    made = call.walk.apply(
        value, steps, shape=value.shape[-1:], scale=value.scale, zero=value.zero, bounds=bounds, what=what
    )
    return replace(made, channels="first", batch_axis=0)


def _renamed(call: Call, value: Value, full: Sequence[int], batch_axis: int) -> Value:
    """Return *value*, whose axes are in another order than in the graph, with axes *full* of which some were 1."""
    shape = tuple(n for axis, n in enumerate(full) if axis != batch_axis)
    keeps = [n for n in shape if n != 1] == [n for n in value.shape if n != 1]
    if not keeps or not shape or (value.channels == "last" and shape[-1] != value.shape[-1]):
        raise UnfitError(
            f"from {value.full(call.walk.batch)} to {tuple(full)}", "the last time step, or axes of size 1"
        )  # fmt: skip
    made = replace(value, shape=shape, batch_axis=batch_axis)
    return vector_of(call, made) if len(shape) == 1 and value.channels == "last" else made


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
    value = call.value(takes_order=True)
    wanted = call.attributes.get("shape")
    if wanted is None:
        wanted = [int(n) for n in call.constant(1, "a shape").numbers.reshape(-1)]
    full, batch = value.full(call.walk.batch), call.walk.batch
    shape = target_shape(full, wanted, keeps_zeros=not call.attributes.get("allowzero", 0))
    if value.is_plain:
        return _reshaped(call, value, shape)
    before = prod(full[: value.batch_axis])
    axes = [axis for axis, n in enumerate(shape) if n == batch and prod(shape[:axis]) == before]
    if not axes:
        raise UnfitError(f"from {full} to {shape}", "a shape that keeps the batch")
    return _renamed(call, value, shape, axes[0])


def _squeeze(call: Call) -> Value:
    value = call.value(takes_order=True)
    full = value.full(call.walk.batch)
    axes = axes_of(call.attributes, call.constants(), len(full))
    if axes is None:
        axes = tuple(axis for axis, n in enumerate(full) if n == 1 and axis != value.batch_axis)
    if any(full[axis] != 1 for axis in axes):
        raise UnfitError(f"of axes {axes} of {full}, which are not 1")
    if not value.is_plain:
        if value.batch_axis in axes:
            raise UnfitError("of the batch", "the other axes of size 1")
        rest = [axis for axis in range(len(full)) if axis not in axes]
        return _renamed(call, value, [full[axis] for axis in rest], rest.index(value.batch_axis))
    return _reshaped(call, value, [n for axis, n in enumerate(full) if axis not in axes])


def _unsqueeze(call: Call) -> Value:
    value = call.value(takes_order=True)
    full = value.full(call.walk.batch)
    n = len(call.attributes["axes"]) if "axes" in call.attributes else call.constant(1, "axes").numbers.size
    axes = axes_of(call.attributes, call.constants(), len(full) + n)
    assert axes is not None
    if not value.is_plain:
        others = [axis for axis in range(len(full) + n) if axis not in axes]
        return _renamed(call, value, unsqueezed(full, axes), others[value.batch_axis])
    return _reshaped(call, value, unsqueezed(full, axes))


def _transpose(call: Call) -> Value:
    value = call.value(takes_order=True)
    full = value.full(call.walk.batch)
    perm = tuple(call.attributes.get("perm", reversed(range(len(full)))))
    if sorted(perm) != list(range(len(full))):
        raise UnfitError(f"by {perm}, which is no order of {len(full)} axes")
    moved = [axis for axis in perm if axis and full[axis] != 1]
    if value.is_plain and perm[0] == 0 and moved == sorted(moved) and (is_flat(value.shape) or not value.scale.ndim):
        return _reshaped(call, value, [full[axis] for axis in perm])
    turned = _in_order(value, perm)
    if turned is None:
        raise UnfitError(
            f"by {perm} of {full}", "channels behind the batch throughout (NCHW), or those of a sequence last"
        )
    return turned


def _in_order(value: Value, perm: Sequence[int]) -> Value | None:
    """Return a sequence whose axes, with the batch, are named in the order *perm*; None for what is no sequence."""
    batch_axis = perm.index(value.batch_axis)
    axes = [axis - (axis > value.batch_axis) for axis in perm if axis != value.batch_axis]
    shape = tuple(value.shape[axis] for axis in axes)
    if value.channels == "none":
        keeps = axes == sorted(axes)
        return replace(value, shape=shape, batch_axis=batch_axis) if keeps else None
    channels = len(shape) - 1 if value.channels == "last" else 0
    times = [axis for axis in axes if axis != channels and value.shape[axis] != 1]
    if len(shape) < 2 or len(times) > 1 or len(value.placed) != 3 or value.placed[1] != 1:
        return None
    if axes[-1] == channels:
        return replace(value, shape=shape, channels="last", batch_axis=batch_axis)
    made = replace(value, shape=shape, channels="first", batch_axis=batch_axis)
    return made if axes[0] == channels and made.placed == value.placed else None


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
    value = call.value(takes_order=True)
    n_axes = len(value.shape) + 1
    said = []
    for place, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        found = call.attributes.get(name)
        if found is None and call.has(place):
            found = [int(n) for n in call.constant(place, name).numbers.reshape(-1)]
        said.append(found)
    starts, ends, axes, steps = said
    axes = [axis % n_axes for axis in (axes if axes is not None else range(len(starts or ())))]
    if starts and ends and len(axes) == 1 and (steps or [1]) == [1] and is_time(value, axes[0]):
        return times(call, value, axes[0], *slice(starts[0], ends[0]).indices(value.full(1)[axes[0]])[:2])
    if not value.is_plain or starts is None or ends is None or axes != [1] or (steps or [1]) != [1]:
        raise UnfitError("of anything but a range of channels", "axes=[1] with steps of 1")
    first, last, _ = slice(starts[0], ends[0]).indices(value.shape[0])
    scale, zero = (each[first:last] if each.ndim else each for each in (value.scale, value.zero))
    return call.walk.apply(value, (Slice(first, last),), scale=scale, zero=zero, bounds=(value.low, value.high))


def is_time(value: Value, axis: int) -> bool:
    """Whether *axis*, the batch counted, is the time of a sequence (c l), in whatever order the file has its axes."""
    if len(value.shape) != 2 or axis == value.batch_axis or value.channels == "none":
        return False
    return axis - (axis > value.batch_axis) == (0 if value.channels == "last" else 1)


def times(call: Call, value: Value, axis: int, first: int, last: int) -> Value:
    """Return the time steps of a sequence from *first* up to *last*."""
    if first >= last:
        raise UnfitError("of no time step")
    shape = list(value.shape)
    shape[axis - (axis > value.batch_axis)] = last - first
    steps, bounds = (Slice(first, last, axis=2),), (value.low, value.high)
    return call.walk.apply(value, steps, shape=tuple(shape), scale=value.scale, zero=value.zero, bounds=bounds)


def _gather(call: Call) -> Value:
    if isinstance(call.given[0], Constant):
        return _looked_up(call, call.given[0])
    value = call.value(takes_order=True)
    full = value.full(call.walk.batch)
    axis = int(call.attributes.get("axis", 0)) % len(full)
    place = call.constant(1, "places").numbers
    if place.size != 1 or not is_time(value, axis):
        raise UnfitError("of anything but one time step of a sequence", "Slice for a range of channels")
    first = int(place.reshape(())) % full[axis]
    made = times(call, value, axis, first, first + 1)
    if place.ndim:
        return made
    if value.channels == "last":
        return vector_of(call, made, "vector")
    return flat(call, made)


def _looked_up(call: Call, table: Constant) -> Value:
    """Return the codes of tokens, which are the network's input."""
    value = call.value(1, takes_order=True)
    if call.walk.made_at(value) >= 0 or value.channels != "none" or call.attributes.get("axis", 0):
        raise UnfitError(
            "of a table by anything but the network's input", "tokens (b t) that go into the rows of a table"
        )
    if table.numbers.ndim != 2 or len(value.shape) != 1:
        raise UnfitError(
            f"of a table of shape {table.shape} by tokens of shape {value.shape}", "a table (tokens codes)"
        )
    codes, form = table_codes(table)
    bounds = form.scale * int(codes.min()), form.scale * int(codes.max())
    made = call.walk.apply(
        value,
        (Embedding(codes, form),),
        shape=(*value.shape, table.shape[1]),
        scale=np.array(form.scale),
        bounds=bounds,
    )
    return replace(made, channels="last")


SHAPES: dict[str, Take] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _same,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _same,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
