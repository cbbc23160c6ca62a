"""Sums, scales and functions of one number: what is linear stays with the codes, and no step is made."""

from collections.abc import Sequence
from math import inf, prod

import numpy as np

from imcsim.graph.epilogue import (
    Abs,
    AddChannels,
    Clip,
    HardSwish,
    Mul,
    PRelu,
    Sigmoid,
    SpatialAffine,
)
from imcsim.graph.formats import TERNARY
from imcsim.graph.qonnx.call import Call, Take, finite, meeting, per_channel
from imcsim.graph.qonnx.constants import Constant, UnfitError, clip_limits
from imcsim.graph.qonnx.values import ONE, ZERO, Value, bounds_after
from imcsim.graph.steps import (
    Add,
    Affine,
    LogSoftmax,
    Relu,
    Step,
    Tanh,
    Threshold,
)

Array = np.ndarray

GREATEST = float(np.finfo(np.float32).max)


def _affine(call: Call, value: Value, scale: Array, offset: Array) -> Value:
    """Return ``scale * x + offset``; both meet the axes of x."""
    scale, offset = (
        value.arranged(finite(meeting(values, value, "a constant"), "a constant")) for values in (scale, offset)
    )
    if all(values.size == 1 or prod(values.shape[1:]) == 1 for values in (scale, offset)):
        scale, offset = (values.reshape(()) if values.size == 1 else values.reshape(-1) for values in (scale, offset))
        if value.is_codes and np.all(scale != 0):
            return value.affine(scale, offset)
        step = Affine(scale, offset)
        bounds = bounds_after(step, value.low, value.high)
        return call.walk.apply(value, (*value.numbers(), step), bounds=bounds)
    if scale.ndim != 3:
        raise UnfitError(f"with a constant over {scale.ndim} axes", "at most 3 axes behind the batch")
    tables = [values.reshape(()) if values.size == 1 else values for values in (scale, offset)]
    return call.walk.apply(value, (*value.numbers(), SpatialAffine(*tables)))


def _masked(values: Array) -> Array:
    """Return *values* to be added, with a very small number where they are minus infinity: a mask before a Softmax."""
    return np.where(np.isneginf(values), -GREATEST, values)


def _add(call: Call) -> Value:
    return _sum(call, 1.0)


def _sub(call: Call) -> Value:
    return _sum(call, -1.0)


def _sum(call: Call, sign: float) -> Value:
    left, right = call.given[0], call.given[1]
    if isinstance(right, Constant):
        return _affine(call, call.as_it_lies(0), ONE, _masked(sign * right.numbers.astype(np.float64)))
    if isinstance(left, Constant):
        return _affine(call, call.as_it_lies(1), np.array(sign), _masked(left.numbers.astype(np.float64)))
    values = [call.as_it_lies(place) for place in (0, 1)]
    if len({(value.shape, value.batch_axis) for value in values}) > 1:
        raise UnfitError(f"of shapes {values[0].shape} and {values[1].shape}", "two tensors of one shape")
    signs = [1.0, sign]
    if call.walk.made_at(values[1]) > call.walk.made_at(values[0]):  # the op that makes the later one takes the step
        values.reverse()
        signs.reverse()
    base, other = values
    other = call.walk.turned(other, base.axes)
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
            return _affine(call, call.as_it_lies(place), constant.numbers.astype(np.float64), ZERO)
    left, right = call.value(0, any_order=True), call.value(1, any_order=True)
    if prod(left.shape) < prod(right.shape):
        left, right = right, left
    right = call.walk.turned(right, left.axes if len(left.shape) == len(right.shape) else range(len(right.shape)))
    right = call.walk.as_numbers(right, "other")
    return call.walk.apply(left, (*left.numbers(), Mul(right.tensor)))


def _div(call: Call) -> Value:
    value = call.as_it_lies(0)
    divisor = call.constant(1, "divisors").numbers.astype(np.float64)
    if np.any(divisor == 0):
        raise UnfitError("by 0")
    return _affine(call, value, 1 / divisor, ZERO)


def _neg(call: Call) -> Value:
    return _affine(call, call.as_it_lies(), -ONE, ZERO)


def _batch_norm(call: Call) -> Value:
    value = call.value(any_order=True)
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


def _function(*steps: Step, low: float = -inf, high: float = inf) -> Take:
    def take(call: Call) -> Value:
        value = call.as_it_lies()
        return call.walk.apply(value, (*value.numbers(), *steps), bounds=(low, high))

    return take


def _relu(call: Call) -> Value:
    value = call.as_it_lies()
    if value.is_codes and value.low >= 0:
        return value
    return call.walk.apply(value, (*value.numbers(), Relu()), bounds=(max(0.0, value.low), max(0.0, value.high)))


def _leaky_relu(call: Call) -> Value:
    value = call.as_it_lies()
    slope = np.array(np.float32(call.attributes.get("alpha", 0.01)), np.float64)
    return call.walk.apply(value, (*value.numbers(), PRelu(slope)))


def _prelu(call: Call) -> Value:
    value = call.as_it_lies()
    slope = per_channel(call.constant(1, "slopes").numbers, value, "a slope")
    return call.walk.apply(value, (*value.numbers(), PRelu(slope)))


def _clip(call: Call) -> Value:
    value = call.as_it_lies()
    for place in range(1, len(call.given)):
        if call.has(place):
            call.constant(place, "limits")
    low, high = clip_limits(call.attributes, call.constants())
    if value.is_codes and low <= value.low and value.high <= high:
        return value
    step = Clip(max(low, -GREATEST), min(high, GREATEST))
    return call.walk.apply(value, (*value.numbers(), step), bounds=(max(low, value.low), min(high, value.high)))


def _sign(call: Call) -> Value:
    value = call.as_it_lies()
    step = Threshold([[0.0, np.nextafter(0.0, 1.0)]], [-1, 0, 1], TERNARY)  # type: ignore[arg-type]
    return call.walk.apply(value, (*value.numbers(), step), bounds=(-1.0, 1.0))


def _hard_sigmoid(call: Call) -> Value:
    value = call.as_it_lies()
    alpha, beta = (float(np.float32(call.attributes.get(*said))) for said in (("alpha", 0.2), ("beta", 0.5)))
    steps = (*value.numbers(), Affine(np.array(alpha), np.array(beta)), Clip(0.0, 1.0))
    return call.walk.apply(value, steps, bounds=(0.0, 1.0))


def axis_of_softmax(call: Call, value: Value) -> int:
    """Return the axis, behind the batch, that a softmax of *value* goes along."""
    said = int(call.attributes.get("axis", -1 if call.walk.model.opset >= 13 else 1))
    if said % len(value.whole(1)) == value.batch_axis:
        raise UnfitError("over the batch", "any other axis")
    axis = value.behind_batch(said)
    if call.walk.model.opset < 13 and prod(value.shape[axis + 1 :]) > 1:
        raise UnfitError("over several axes, as before opset 13", "the last axis alone")
    return axis


def _log_softmax(call: Call) -> Value:
    value = call.as_it_lies()
    value = call.walk.led_by(value, axis_of_softmax(call, value))
    return call.walk.apply(value, (*value.numbers(), LogSoftmax()))


ARITHMETIC: dict[str, Take] = {
    "Abs": _function(Abs(), low=0.0),
    "Add": _add,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Div": _div,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function(HardSwish()),
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "Mul": _mul,
    "Neg": _neg,
    "PRelu": _prelu,
    "Relu": _relu,
    "Sigmoid": _function(Sigmoid(), low=0.0, high=1.0),
    "Sign": _sign,
    "Sub": _sub,
    "Tanh": _function(Tanh(), low=-1.0, high=1.0),
}
