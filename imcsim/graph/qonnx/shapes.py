"""What moves numbers or names them anew, and changes none of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import prod

import numpy as np

from imcsim.graph.attention import Reshape
from imcsim.graph.epilogue import Concat, Slice
from imcsim.graph.qonnx.call import Call, Take
from imcsim.graph.qonnx.constants import Constant, UnfitError, axes_of, target_shape, unsqueezed
from imcsim.graph.qonnx.values import ONE, ZERO, Value, in_order
from imcsim.graph.qonnx.weights import table_codes
from imcsim.graph.recurrent import Embedding
from imcsim.graph.steps import Affine, Flatten, Shape

Array = np.ndarray

MOST_ORDERS = 1000
"""So many orders of axes of size 1 are tried, of which a file may have any number."""


def _same(call: Call) -> Value:
    return call.as_it_lies(takes_pads=True)


def _cast(call: Call) -> Value:
    value = call.as_it_lies(takes_pads=True)
    if call.attributes.get("to") not in (1, 10, 11, 16) and not value.is_tokens:  # which are whole numbers
        raise UnfitError("to whole numbers", "a Quant, which says how it rounds")
    return value


def _dropout(call: Call) -> Value:
    if call.has(2) and np.any(call.constant(2, "training_mode").numbers):
        raise UnfitError("that is training", "an export in evaluation mode")
    return call.as_it_lies()


def _shape(call: Call) -> Constant:
    shape = call.as_it_lies().whole(call.walk.batch)
    first, last = call.attributes.get("start", 0), call.attributes.get("end", len(shape))
    return Constant(np.array(shape[first:last], np.int64))


def reshaped(call: Call, value: Value, shape: Sequence[int]) -> Value:
    """Return *value* with *shape*, the batch included; its numbers move only where they must."""
    shape, batch = tuple(shape), call.walk.batch
    if prod(shape) != batch * prod(value.shape) or not shape or shape[0] != batch or len(shape) < 2:
        raise UnfitError(f"from {(batch, *value.shape)} to {shape}", "a shape that keeps the batch")
    after = shape[1:]
    if after == value.shape:
        return value
    if value.is_tokens:
        if [n for n in after if n != 1] != [n for n in value.shape if n != 1]:
            raise UnfitError("of tokens", "axes of size 1")
        return replace(value, shape=after)
    if len(after) == 1:
        return flat(call, value)
    axes = _axes_after(value, after)
    if axes is None:
        value = call.walk.turned(value, range(len(value.shape)))
        axes = tuple(range(len(after)))
    made = replace(value, shape=after, order=in_order(axes))
    if made.placed == value.placed:
        return made
    if value.scale.ndim or value.zero.ndim:  # which are for channels
        value = call.walk.as_numbers(value, "numbers")
    return call.walk.apply(
        value, (Reshape(made.placed),), shape=after, order=made.order, scale=value.scale, zero=value.zero,
        bounds=(value.low, value.high),
    )  # fmt: skip


def _axes_after(value: Value, after: Shape) -> tuple[int, ...] | None:
    """Return the order of the axes *after* a reshape that moves no number of *value*, or None where some must move.

    Axes are cut or joined in groups that hold as many numbers before and behind; each must lie together in the graph.
    Those of size 1 lie anywhere: where the tensor keeps its shape, if there is such a place.
    """
    before, behind = ([axis for axis, n in enumerate(shape) if n != 1] for shape in (value.shape, after))
    if not before:
        return tuple(range(len(after)))
    lie = [before.index(axis) for axis in value.axes if axis in before]
    group_of, groups = _groups([value.shape[axis] for axis in before], [after[axis] for axis in behind])
    axes: list[int] = []
    for place, axis in enumerate(lie):
        first, last, made = groups[group_of[axis]]
        if axis == first:
            if lie[place : place + last - first] != list(range(first, last)):
                return None
            axes.extend(behind[n] for n in made)
    ones = [axis for axis, n in enumerate(after) if n == 1]
    orders = list(islice(_with_ones(tuple(axes), ones), MOST_ORDERS))
    same = (order for order in orders if replace(value, shape=after, order=order).placed == value.placed)
    return next(same, orders[0])


def _with_ones(axes: tuple[int, ...], ones: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield *axes* with the axes *ones* in every place, first of all each behind the axis that comes before it.

    >>> list(_with_ones((2, 1), [0]))
    [(0, 2, 1), (2, 0, 1), (2, 1, 0)]
    """
    if not ones:
        yield axes
        return
    first = axes.index(ones[0] - 1) + 1 if ones[0] - 1 in axes else 0
    for place in (first, *(n for n in range(len(axes) + 1) if n != first)):
        yield from _with_ones((*axes[:place], ones[0], *axes[place:]), ones[1:])


def _groups(before: Sequence[int], after: Sequence[int]) -> tuple[dict[int, int], list[tuple[int, int, range]]]:
    """Return the group of each axis *before*, and of each group its axes before, first and behind the last, and after.

    >>> _groups((5, 6), (5, 2, 3))[1]
    [(0, 1, range(0, 1)), (1, 2, range(1, 3))]
    """
    groups: list[tuple[int, int, range]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        first, start, n, m = i, j, before[i], after[j]
        i, j = i + 1, j + 1
        while n != m:
            if n < m:
                n, i = n * before[i], i + 1
            else:
                m, j = m * after[j], j + 1
        groups.append((first, i, range(start, j)))
    return {axis: g for g, (start, stop, _) in enumerate(groups) for axis in range(start, stop)}, groups


def flat(call: Call, value: Value, what: str = "") -> Value:
    """Return *value* with all axes behind the batch in one."""
    if len(value.shape) == 1:
        return value
    lie = [axis for axis in value.axes if value.shape[axis] != 1]
    if lie != sorted(lie):
        value = call.walk.turned(value, range(len(value.shape)))
    n = prod(value.placed[1:])
    scale, zero = (np.repeat(each, n) if each.ndim else each for each in (value.scale, value.zero))
    return call.walk.apply(
        value, (Flatten(),), shape=(prod(value.shape),), scale=scale, zero=zero, bounds=(value.low, value.high),
        what=what,
    )  # fmt: skip


def _flatten(call: Call) -> Value:
    value = call.value(any_order=True)
    if call.attributes.get("axis", 1) not in (1, -len(value.shape)):
        raise UnfitError(f"from axis {call.attributes.get('axis')} on", "axis=1")
    return flat(call, value)


def _reshape(call: Call) -> Value:
    value = call.as_it_lies()
    wanted = call.attributes.get("shape")
    if wanted is None:
        wanted = [int(n) for n in call.constant(1, "a shape").numbers.reshape(-1)]
    full, batch = value.whole(call.walk.batch), call.walk.batch
    shape = target_shape(full, wanted, keeps_zeros=not call.attributes.get("allowzero", 0))
    if value.batch_axis is not None and prod(shape) == prod(full):
        before = prod(full[: value.batch_axis])
        places = [axis for axis, n in enumerate(shape) if n == batch and prod(shape[:axis]) == before]
        if places and len(shape) > 1:
            return _beside_batch(call, value, shape, places[0])
    return _to_whole(call, value, shape)


def _beside_batch(call: Call, value: Value, shape: Sequence[int], at: int) -> Value:
    """Return *value* with *shape*, in which the batch is axis *at*, and as many numbers come before it."""
    others = [n for axis, n in enumerate(shape) if axis != at]
    return replace(reshaped(call, replace(value, batch_axis=0), [call.walk.batch, *others]), batch_axis=at)


def _to_whole(call: Call, value: Value, shape: Sequence[int]) -> Value:
    """Return *value* with *shape*, in which a batch of 1 may be anywhere."""
    shape, value = tuple(shape), replace(value, batch_axis=0)
    if call.walk.batch == 1 and prod(shape) == prod(value.shape) and shape[:1] != (1,):
        return replace(reshaped(call, value, (1, *shape)), batch_axis=None)
    return reshaped(call, value, shape)


def _squeeze(call: Call) -> Value:
    value = call.as_it_lies()
    full = value.whole(call.walk.batch)
    axes = axes_of(call.attributes, call.constants(), len(full))
    if axes is None:
        axes = tuple(axis for axis, n in enumerate(full) if n == 1 and axis != value.batch_axis)
    if any(full[axis] != 1 for axis in axes):
        raise UnfitError(f"of axes {axes} of {full}, which are not 1")
    at = value.batch_axis
    if at is None or at in axes:
        return _to_whole(call, value, [n for axis, n in enumerate(full) if axis not in axes])
    shape = [n for axis, n in enumerate(full) if axis not in axes]
    return _beside_batch(call, value, shape, at - sum(axis < at for axis in axes))


def _unsqueeze(call: Call) -> Value:
    value = call.as_it_lies()
    full = value.whole(call.walk.batch)
    n = len(call.attributes["axes"]) if "axes" in call.attributes else call.constant(1, "axes").numbers.size
    axes = axes_of(call.attributes, call.constants(), len(full) + n)
    assert axes is not None
    shape, at = unsqueezed(full, axes), value.batch_axis
    if at is None or (at == 0 and 0 in axes):
        return _to_whole(call, value, shape)
    return _beside_batch(call, value, shape, [axis for axis in range(len(shape)) if axis not in axes][at])


def _transpose(call: Call) -> Value:
    value = call.as_it_lies()
    at, full = value.batch_axis, value.whole(call.walk.batch)
    perm = tuple(call.attributes.get("perm", reversed(range(len(full)))))
    if sorted(perm) != list(range(len(full))):
        raise UnfitError(f"by {perm}, which is no order of {len(full)} axes")
    moved = [axis for axis in perm if axis and full[axis] != 1]
    stays = perm[0] == at == 0 and moved == sorted(moved) and value.order is None
    if stays and len(full) <= 4 and not value.scale.ndim:
        return reshaped(call, value, [full[axis] for axis in perm])
    others = [value.behind_batch(axis) for axis in perm if axis != at]
    if value.is_tokens and others != sorted(others):
        raise UnfitError("of tokens", "a Gather of a table")
    place_of = {axis: place for place, axis in enumerate(others)}
    shape = tuple(value.shape[axis] for axis in others)
    order = in_order([place_of[axis] for axis in value.axes])
    made = replace(value, shape=shape, order=order, batch_axis=None if at is None else perm.index(at))
    if at is None and shape[0] == 1 and len(shape) > 1:  # the batch of 1 that was part of another axis is in front
        return reshaped(call, replace(made, batch_axis=0), shape)
    return made


def _concat(call: Call) -> Value:
    n_axes = len(call.value(any_order=True).shape) + 1
    axis = int(call.attributes.get("axis", 1)) % n_axes
    if axis == 0:
        raise UnfitError("along the batch", "any other axis")
    values = [call.value(place, any_order=True) for place in range(len(call.given))]
    if len(values) == 1:
        return values[0]
    leading = call.walk.led_by(values[0], axis - 1)
    values = [leading, *(call.walk.turned(value, leading.axes) for value in values[1:])]
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
    steps = [Concat(value.tensor, value.shape[axis - 1]) for value in values[1:]]
    return call.walk.apply(first, steps, scale=first.scale, zero=first.zero, bounds=bounds)


def cut(call: Call, value: Value, axis: int, first: int, last: int, what: str = "") -> Value:
    """Return what lies from *first* up to *last*, without it, along the *axis* counted behind the batch."""
    if (first, last) == (0, value.shape[axis]):
        return value
    if first >= last:
        raise UnfitError("of nothing", "a range that holds something")
    if value.is_tokens:
        raise UnfitError("of tokens", "a Gather of a table")
    place, bounds = value.place_of(axis), (value.low, value.high)
    scale, zero = (each[first:last] if each.ndim and not place else each for each in (value.scale, value.zero))
    steps = (Slice(first, last, axis=place),)
    return call.walk.apply(value, steps, scale=scale, zero=zero, bounds=bounds, what=what)


def _slice(call: Call) -> Value:
    value = call.as_it_lies()
    said = []
    for place, name in enumerate(("starts", "ends", "axes", "steps"), start=1):
        found = call.attributes.get(name)
        if found is None and call.has(place):
            found = [int(n) for n in call.constant(place, name).numbers.reshape(-1)]
        said.append(found)
    starts, ends, axes, steps = said
    if starts is None or ends is None or any(step != 1 for step in steps or ()):
        raise UnfitError("with gaps", "steps of 1")
    inner = [value.behind_batch(axis) for axis in (axes if axes is not None else range(len(starts)))]
    for axis, start, end in zip(inner, starts, ends, strict=True):
        first, last, _ = slice(start, end).indices(value.shape[axis])
        value = cut(call, value, axis, first, last, what=f"axis{axis}" if len(inner) > 1 else "")
    return value


def _split(call: Call) -> tuple[Value, ...]:
    value = call.as_it_lies()
    axis, n = value.behind_batch(int(call.attributes.get("axis", 0))), len(call.node.outputs)
    size, sizes = value.shape[axis], call.attributes.get("split")
    if sizes is None and call.has(1):
        sizes = [int(m) for m in call.constant(1, "sizes").numbers.reshape(-1)]
    if sizes is None:
        each = -(-size // n)
        sizes = [each] * (n - 1) + [size - each * (n - 1)]
    if len(sizes) != n or sum(sizes) != size or min(sizes) < 1:
        raise UnfitError(f"of {size} into {tuple(sizes)}")
    ends = np.cumsum(sizes)
    return tuple(
        cut(call, value, axis, int(end - m), int(end), what=f"part{number}")
        for number, (m, end) in enumerate(zip(sizes, ends, strict=True))
    )


def _gather(call: Call) -> Value:
    if isinstance(call.given[0], Constant):
        return _looked_up(call, call.given[0])
    value = call.as_it_lies()
    axis, found = int(call.attributes.get("axis", 0)), call.constant(1, "places").numbers
    inner, places = value.behind_batch(axis), [int(n) for n in found.reshape(-1)]
    size = value.shape[inner]
    places = [place + size if place < 0 else place for place in places]
    first, n = min(places, default=0), len(places)
    if found.ndim > 1 or not n or places != list(range(first, first + n)) or first < 0 or first + n > size:
        raise UnfitError(f"of places {tuple(places)} of {size}", "one place, or places one behind the other")
    made = cut(call, replace(value, batch_axis=0), inner, first, first + n)
    at = value.batch_axis
    if not found.ndim:
        left = [n for other, n in enumerate(made.shape) if other != inner]
        made = flat(call, made, "vector") if len(left) == 1 else reshaped(call, made, (call.walk.batch, *left))
        at = at - 1 if at and inner < at else at
    return replace(made, batch_axis=at)


def _looked_up(call: Call, table: Constant) -> Value:
    """Return the codes of tokens, which are the network's input."""
    value = call.as_it_lies(1)
    if call.walk.made_at(value) >= 0 or not value.is_tokens or call.attributes.get("axis", 0):
        raise UnfitError(
            "of a table by anything but the network's input", "tokens (b t) that go into the rows of a table"
        )
    if table.numbers.ndim != 2 or len(value.shape) != 1:
        raise UnfitError(
            f"of a table of shape {table.shape} by tokens of shape {value.shape}", "a table (tokens codes)"
        )
    codes, form = table_codes(table)
    bounds = form.scale * int(codes.min()), form.scale * int(codes.max())
    shape, scale = (*value.shape, table.shape[1]), np.array(form.scale)
    return call.walk.apply(value, (Embedding(codes, form),), shape=shape, order=(1, 0), scale=scale, bounds=bounds)


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
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
