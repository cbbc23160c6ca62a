"""Functions of one number, and sums, products and comparisons of two."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from imcsim.graph.exported.call import DTYPES, Call, NoWordError, Write


def _named(kind: str, **attributes: Any) -> Write:
    """Return what writes an operator of one tensor as the node *kind*."""

    def write(call: Call) -> str:
        source = "input" if "input" in call.arguments else "self"
        return call.add(kind, call.tensor(source), **attributes)

    return write


def _two(kind: str) -> Write:
    def write(call: Call) -> str:
        return call.add(kind, _operand(call, "self"), _operand(call, "other"))

    return write


def _operand(call: Call, name: str) -> str:
    """Return one of two operands, of the type that torch gives both of them."""
    values = [value.meta["val"] if isinstance(value, fx.Node) else value for value in (call["self"], call["other"])]
    common = torch.result_type(*values)
    if isinstance(call[name], fx.Node) and call.dtype(name) != common:
        if common not in DTYPES:
            raise NoWordError
        return call.add("Cast", call.tensor(name), what=f"{name}.cast", to=DTYPES[common])
    return call.tensor(name)


def _sum(kind: str) -> Write:
    def write(call: Call) -> str:
        left, right = _operand(call, "self"), _times(call, "other", call.get("alpha", 1))
        return call.add(kind, left, right)

    return write


def _times(call: Call, name: str, factor: float) -> str:
    """Return the argument *name* times *factor*, by a node where that is not 1."""
    value = call[name]
    if factor == 1:
        return _operand(call, name)
    if not isinstance(value, fx.Node):
        return call.tensor_of(value * factor, name)
    return call.add("Mul", _operand(call, name), call.tensor_of(factor, "factor"), what="alpha")


def _reversed_difference(call: Call) -> str:
    return call.add("Sub", _operand(call, "other"), _times(call, "self", call.get("alpha", 1)))


def _div(call: Call) -> str:
    mode = call.get("rounding_mode")
    if mode not in (None, "floor"):
        raise NoWordError
    left, right = _operand(call, "self"), _operand(call, "other")
    if mode == "floor":
        return call.add("Floor", call.add("Div", left, right, what="quotient"))
    return call.add("Div", left, right)


def _pow(call: Call) -> str:
    base, exponent = call["self"], call["exponent"]
    if isinstance(base, fx.Node) and exponent == 2:
        return call.add("Mul", call.tensor("self"), call.tensor("self"))
    if isinstance(base, fx.Node) and exponent == 0.5:
        return call.add("Sqrt", call.tensor("self"))
    return call.add("Pow", call.tensor("self"), call.tensor("exponent"))


def _square(call: Call) -> str:
    return call.add("Mul", call.tensor("self"), call.tensor("self"))


def _reciprocal_root(call: Call) -> str:
    return call.add("Reciprocal", call.add("Sqrt", call.tensor("self"), what="root"))


def _clip(low: str, high: str) -> Write:
    """Return what writes a Clip whose limits are the arguments *low* and *high*."""

    def write(call: Call) -> str:
        return call.add("Clip", call.tensor("self"), *(_limit(call, name) for name in (low, high)))

    return write


def _limit(call: Call, name: str) -> str:
    value = call.get(name)
    if value is None:
        return ""
    if isinstance(value, fx.Node):
        array = call.array(name)
        if array is None or array.size != 1:
            raise NoWordError
        return call.constant(array.reshape(()), name)
    return call.tensor_of(value, name)


def _relu6(call: Call) -> str:
    return call.add("Clip", call.tensor("self"), call.tensor_of(0, "min"), call.tensor_of(6, "max"))


def _leaky_relu(call: Call) -> str:
    return call.add("LeakyRelu", call.tensor("self"), alpha=float(call["negative_slope"]))


def _prelu(call: Call) -> str:
    """One slope, or one for each channel, the axis behind the batch; ONNX has it meet the last axes."""
    shape, slope = call.shape("self"), call.tensor("weight")
    if len(call.shape("weight")) == 1 and call.shape("weight") != (1,) and len(shape) > 2:
        wide = (-1, *(1,) * (len(shape) - 2))
        array = call.array("weight")
        wanted = None if array is None else array.reshape(wide)
        slope = call.moved(slope, wanted, "Reshape", "slope", call.whole(wide, "shape"))
    return call.add("PRelu", call.tensor("self"), slope)


def _silu(call: Call) -> str:
    return call.add("Mul", call.tensor("self"), call.add("Sigmoid", call.tensor("self"), what="sigmoid"))


def _gelu(call: Call) -> str:
    return call.add("Gelu", call.tensor("self"), approximate=str(call["approximate"]))


def _elu(call: Call) -> str:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise NoWordError
    return call.add("Elu", call.tensor("self"), alpha=float(call["alpha"]))


def _softplus(call: Call) -> str:
    if call["beta"] != 1:
        raise NoWordError
    return call.add("Softplus", call.tensor("self"))


def _different(call: Call) -> str:
    return call.add("Not", call.add("Equal", _operand(call, "self"), _operand(call, "other"), what="equal"))


def _where(call: Call) -> str:
    if "self" not in call.arguments:
        raise NoWordError
    return call.add("Where", call.tensor("condition"), call.tensor("self"), call.tensor("other"))


def _masked(call: Call) -> str:
    value = call["value"]
    fill = call.tensor("value") if isinstance(value, fx.Node) else call.tensor_of(value, "value")
    return call.add("Where", call.tensor("mask"), fill, call.tensor("self"))


def _cast(call: Call) -> str:
    """A change of type; of layout or device alone, nothing."""
    before, after = call.dtype("self"), call.dtype()
    if before == after:
        return call.tensor("self")
    if after not in DTYPES:
        raise NoWordError
    return call.add("Cast", call.tensor("self"), to=DTYPES[after])


def _round(call: Call) -> str:
    if call.get("decimals", 0) != 0:
        raise NoWordError
    return call.add("Round", call.tensor("self"))


def _softmax(kind: str) -> Write:
    def write(call: Call) -> str:
        if call.get("dtype") not in (None, call.dtype("self")) or call.get("half_to_float", False):
            raise NoWordError
        return call.add(kind, call.tensor("self"), axis=int(call["dim"]))

    return write


def _is_one(kind: str) -> Write:
    """Return what writes a comparison of bits, of truth values alone."""

    def write(call: Call) -> str:
        if call.dtype("self") is not torch.bool:
            raise NoWordError
        other = (call.tensor("other"),) if "other" in call.arguments else ()
        return call.add(kind, call.tensor("self"), *other)

    return write


def _filled(number: float) -> Write:
    """Return what writes zeros or ones in the shape of a tensor: a constant."""

    def write(call: Call) -> str:
        empty = torch.empty(0, dtype=call.dtype()).numpy()
        return call.constant(np.full(call.shape(), number, empty.dtype), "filled")

    return write


ELEMENTWISE: dict[str, Callable[[Call], Any]] = {
    "aten.abs": _named("Abs"),
    "aten.add": _sum("Add"),
    "aten.__and__": _is_one("And"),
    "aten.__or__": _is_one("Or"),
    "aten.bitwise_and": _is_one("And"),
    "aten.bitwise_not": _is_one("Not"),
    "aten.bitwise_or": _is_one("Or"),
    "aten.ceil": _named("Ceil"),
    "aten.celu": lambda call: call.add("Celu", call.tensor("self"), alpha=float(call["alpha"])),
    "aten.clamp": _clip("min", "max"),
    "aten.clamp_max": _clip("", "max"),
    "aten.clamp_min": _clip("min", ""),
    "aten.clip": _clip("min", "max"),
    "aten.cos": _named("Cos"),
    "aten.div": _div,
    "aten.divide": _div,
    "aten.elu": _elu,
    "aten.eq": _two("Equal"),
    "aten.erf": _named("Erf"),
    "aten.exp": _named("Exp"),
    "aten.floor": _named("Floor"),
    "aten.ge": _two("GreaterOrEqual"),
    "aten.gelu": _gelu,
    "aten.gt": _two("Greater"),
    "aten.hardsigmoid": _named("HardSigmoid", alpha=1 / 6, beta=0.5),
    "aten.hardswish": _named("HardSwish"),
    "aten.hardtanh": _clip("min_val", "max_val"),
    "aten.le": _two("LessOrEqual"),
    "aten.leaky_relu": _leaky_relu,
    "aten.log": _named("Log"),
    "aten.log_softmax": _softmax("LogSoftmax"),
    "aten._log_softmax": _softmax("LogSoftmax"),
    "aten.logical_and": _is_one("And"),
    "aten.logical_not": _is_one("Not"),
    "aten.logical_or": _is_one("Or"),
    "aten.lt": _two("Less"),
    "aten.masked_fill": _masked,
    "aten.maximum": _two("Max"),
    "aten.minimum": _two("Min"),
    "aten.mish": _named("Mish"),
    "aten.mul": _two("Mul"),
    "aten.multiply": _two("Mul"),
    "aten.ne": _different,
    "aten.neg": _named("Neg"),
    "aten.ones_like": _filled(1.0),
    "aten.pow": _pow,
    "aten.prelu": _prelu,
    "aten._prelu_kernel": _prelu,
    "aten.reciprocal": _named("Reciprocal"),
    "aten.relu": _named("Relu"),
    "aten.relu6": _relu6,
    "aten.round": _round,
    "aten.rsqrt": _reciprocal_root,
    "aten.rsub": _reversed_difference,
    "aten.selu": _named("Selu"),
    "aten.sigmoid": _named("Sigmoid"),
    "aten.sign": _named("Sign"),
    "aten.silu": _silu,
    "aten.sin": _named("Sin"),
    "aten.softmax": _softmax("Softmax"),
    "aten._softmax": _softmax("Softmax"),
    "aten.softplus": _softplus,
    "aten.sqrt": _named("Sqrt"),
    "aten.square": _square,
    "aten.sub": _sum("Sub"),
    "aten.subtract": _sum("Sub"),
    "aten.tanh": _named("Tanh"),
    "aten.to": _cast,
    "aten._to_copy": _cast,
    "aten.true_divide": _div,
    "aten.type_as": _cast,
    "aten.where": _where,
    "aten.zeros_like": _filled(0.0),
}
