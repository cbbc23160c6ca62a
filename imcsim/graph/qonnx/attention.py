"""Operators of networks that attend: soft maxima, norms over axes, products of two tensors, functions behind them."""

from dataclasses import replace
from math import inf

import numpy as np

from imcsim.graph.attention import Erf, Exp, Gelu, LayerNorm, MatMul, Reshape, Silu, Softmax
from imcsim.graph.epilogue import SpatialAffine
from imcsim.graph.qonnx.arithmetic import GREATEST, axis_of_softmax
from imcsim.graph.qonnx.call import Call, Take, finite, meeting
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.shapes import reshaped
from imcsim.graph.qonnx.values import ZERO, Value
from imcsim.graph.steps import Affine, Step

Array = np.ndarray


def multiplied(call: Call, left: Value, right: Value) -> Value:
    """Return the matrix product of two tensors, head by head; codes are multiplied as they are, then scaled."""
    n_axes = max(len(left.shape), len(right.shape), 3)
    shape = (*left.shape[:-1], right.shape[-1])
    if min(len(left.shape), len(right.shape)) < 2 or left.shape[-1] != right.shape[-2]:
        raise UnfitError(f"of shapes {left.shape} and {right.shape}", "matrices (b ... m d) and (b ... d n)")
    left, right = (
        reshaped(call, value, (call.walk.batch, *(1,) * (n_axes - len(value.shape)), *value.shape))
        for value in (left, right)
    )
    wide = right.shape[:-2]
    if any(n not in (1, m) for n, m in zip(wide, left.shape[:-2], strict=True)):
        raise UnfitError(f"of shapes {left.shape} and {right.shape}", "as many matrices on both sides, or one behind")
    left, right = _plain(call, left, "left"), _plain(call, right, "right")
    axes = tuple(range(n_axes))
    swapped = (*axes[:-2], axes[-1], axes[-2])
    is_transposed = right.axes == swapped
    left = call.walk.turned(left, axes)
    right = right if is_transposed else call.walk.turned(right, axes)
    scale = left.scale * right.scale
    steps: list[Step] = [MatMul(right.tensor, right.shape[-1], is_transposed)]
    if scale != 1:
        steps.append(Affine(scale, ZERO))
    made = call.walk.apply(left, steps)
    if len(shape) < n_axes:
        made = reshaped(call, made, (call.walk.batch, *made.shape[n_axes - len(shape) :]))
    return made


def _plain(call: Call, value: Value, what: str) -> Value:
    """Return *value* as codes of one scale whose 0 is code 0, or else as real numbers."""
    if value.scale.ndim or np.any(value.zero != 0) or not value.form.is_affine:
        return call.walk.as_numbers(value, what)
    return value


def _softmax(call: Call) -> Value:
    value = call.value(any_order=True)
    step = Softmax(value.place_of(axis_of_softmax(call, value)))
    return call.walk.apply(value, (*value.numbers(), step), bounds=(0.0, 1.0))


def _layer_norm(call: Call) -> Value:
    return _norm_of_last_axes(call, is_centred=True)


def _rms_norm(call: Call) -> Value:
    return _norm_of_last_axes(call, is_centred=False)


def _norm_of_last_axes(call: Call, *, is_centred: bool) -> Value:
    value = call.value(any_order=True)
    n_axes = len(value.shape) + 1
    first = int(call.attributes.get("axis", -1)) % n_axes
    if first == 0:
        raise UnfitError("over the batch", "the axes behind it")
    if any(call.node.outputs[1:]):
        raise UnfitError("that gives means, too", "its first output alone")
    scale, offset = (_table(call, value, place, missing) for place, missing in ((1, 1.0), (2, 0.0)))
    axes = tuple(range(first - 1, n_axes - 1))
    eps = float(np.float32(call.attributes.get("epsilon", 1e-5)))
    return _norm(call, value, axes, LayerNorm((0,), eps, scale, offset, is_centred=is_centred))


def _table(call: Call, value: Value, place: int, missing: float) -> Array:
    """Return the constant at *place* with the axes of the tensor of *value*."""
    if not call.has(place):
        return np.array(missing)
    values = finite(meeting(call.constant(place, "parameters").numbers, value, "parameters"), "parameters")
    return values.reshape(()) if values.size == 1 else value.arranged(values)


def _norm(call: Call, value: Value, axes: tuple[int, ...], step: LayerNorm) -> Value:
    """Return *step* over the file's *axes*, counted behind the batch."""
    places = tuple(sorted(value.place_of(axis) for axis in axes))
    return call.walk.apply(value, (*value.numbers(), replace(step, axes=places)))


def _instance_norm(call: Call) -> Value:
    value = call.value(any_order=True)
    if len(value.shape) < 2:
        raise UnfitError(f"of numbers of shape {value.shape}", "an image or a sequence")
    wide = (-1, *(1,) * (len(value.shape) - 1))
    scale, offset = (
        value.arranged(meeting(call.constant(place, "parameters").numbers.reshape(wide), value, "parameters"))
        for place in (1, 2)
    )
    eps = float(np.float32(call.attributes.get("epsilon", 1e-5)))
    return _norm(call, value, tuple(range(1, len(value.shape))), LayerNorm((0,), eps, scale, offset))


def _group_norm(call: Call) -> Value:
    value = call.value()
    groups, n = int(call.attributes["num_groups"]), value.shape[0]
    if groups < 1 or n % groups:
        raise UnfitError(f"of {n} channels in {groups} groups")
    scale, offset = (
        finite(call.constant(place, "parameters").numbers.astype(np.float64).reshape(-1), "parameters")
        for place in (1, 2)
    )
    if len(scale) == groups != n:  # one for each group, as up to opset 20
        scale, offset = np.repeat(scale, n // groups), np.repeat(offset, n // groups)
    eps = float(np.float32(call.attributes.get("epsilon", 1e-5)))
    size = int(np.prod(value.placed)) // groups
    steps = (Reshape((groups, size)), LayerNorm((1,), eps), Reshape(value.placed), Affine(scale, offset))
    return call.walk.apply(value, (*value.numbers(), *steps))


def _function(step: Step, low: float = -inf, high: float = inf) -> Take:
    def take(call: Call) -> Value:
        value = call.value(any_order=True)
        return call.walk.apply(value, (*value.numbers(), step), bounds=(low, high))

    return take


def _gelu(call: Call) -> Value:
    value = call.value(any_order=True)
    form = {"none": "erf", "tanh": "tanh"}.get(str(call.attributes.get("approximate", "none")))
    if form is None:
        raise UnfitError(f"of the form {call.attributes['approximate']}", "none or tanh")
    return call.walk.apply(value, (*value.numbers(), Gelu(form)))  # type: ignore[arg-type]


def _swish(call: Call) -> Value:
    if call.attributes.get("alpha", 1.0) != 1:
        raise UnfitError(f"with alpha {call.attributes['alpha']:g}", "alpha=1")
    return _function(Silu())(call)  # type: ignore[return-value]


def _where(call: Call) -> Value:
    """Numbers where a constant condition says so, and constants elsewhere: a mask before a Softmax."""
    chosen = call.constant(0, "conditions").numbers.astype(bool)
    place = 1 if isinstance(call.given[2], Constant) else 2
    value, other = call.value(place, any_order=True), call.constant(3 - place, "numbers").numbers.astype(np.float64)
    chosen = chosen if place == 1 else ~chosen
    offset = np.where(chosen, 0.0, np.maximum(other, -GREATEST))
    scale = np.where(chosen, 1.0, 0.0)
    tables = [value.arranged(meeting(finite(each, "numbers"), value, "numbers")) for each in (scale, offset)]
    if tables[0].ndim != 3:
        raise UnfitError(f"with a condition over {tables[0].ndim} axes", "2 or 3 axes behind the batch")
    return call.walk.apply(value, (*value.numbers(), SpatialAffine(*tables)))


ATTENTION: dict[str, Take] = {
    "Erf": _function(Erf(), -1.0, 1.0),
    "Exp": _function(Exp(), 0.0),
    "Gelu": _gelu,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "Softmax": _softmax,
    "Swish": _swish,
    "Where": _where,
}
