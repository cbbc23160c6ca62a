"""What no input reaches: constants, and the operators that are worked out on them when the file is read.

A constant that went through a quantizer keeps its whole-number codes and their scale beside its numbers, through
whatever changes its shape or scales it, so that a product gets the codes as they are. Numbers stay of the type that
the file stores, mostly float32: then they round as they do where the model was made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from imcsim.graph.formats import Format
from imcsim.graph.refusal import UnfitError as UnfitError

Array = np.ndarray

MOST_NUMBERS = 1 << 24
"""Greatest constant that an operator may make; a larger one is stored."""


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that the file holds, or that follows from such arrays."""

    numbers: Array

    codes: Array | None = None
    """Whole numbers; `numbers` are ``scale * codes``. None where no quantizer said so."""

    scale: Array | None = None
    """float64, with as many axes as the codes, each whole or 1."""

    form: Format | None = None
    """Of the codes, where a quantizer said so; its scale is 1."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.numbers.shape

    def moved(self, move: Callable[[Array], Array]) -> "Constant":
        """Return what *move* makes of the array, which changes the places of numbers and nothing else."""
        if self.codes is None or self.scale is None:
            return Constant(move(self.numbers))
        scale = np.broadcast_to(self.scale, self.codes.shape)
        moved = move(scale)
        if self.scale.size == 1:
            moved = self.scale.reshape((1,) * moved.ndim)
        return Constant(move(self.numbers), move(self.codes), moved, self.form)

    def times(self, factor: Array) -> "Constant":
        """Return the product with *factor*, which is no larger than the array."""
        numbers = self.numbers * factor
        if self.codes is None or self.scale is None or numbers.shape != self.shape:
            return Constant(numbers)
        wide = np.asarray(factor, np.float64)
        wide = wide.reshape((1,) * (self.codes.ndim - wide.ndim) + wide.shape)
        return Constant(numbers, self.codes, self.scale * wide, self.form)


def whole(constant: Constant, what: str) -> int:
    """Return the one whole number that *constant* is; raises UnfitError for anything else."""
    values = constant.numbers.reshape(-1)
    if values.size != 1 or not np.isfinite(values[0]) or values[0] != np.rint(values[0]):
        raise UnfitError(f"with {what} that is not one whole number")
    return int(values[0])


def _limited(shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(int(n) for n in shape)
    if any(n < 0 for n in shape) or prod(shape) > MOST_NUMBERS:
        raise UnfitError(f"with a result of shape {shape}, which is no constant of at most {MOST_NUMBERS} numbers")
    return shape


def target_shape(shape: Sequence[int], wanted: Sequence[int], *, keeps_zeros: bool = True) -> tuple[int, ...]:
    """Return the shape that Reshape makes of *shape*: 0 keeps an axis, -1 takes what is left."""
    full = [shape[i] if n == 0 and keeps_zeros and i < len(shape) else int(n) for i, n in enumerate(wanted)]
    if full.count(-1) > 1 or any(n < -1 for n in full):
        raise UnfitError(f"to a shape {tuple(map(int, wanted))} that does not say what it is")
    if -1 in full:
        rest = prod(n for n in full if n != -1)
        if rest == 0 or prod(shape) % rest:
            raise UnfitError(f"from {tuple(shape)} to {tuple(map(int, wanted))}, which does not fit")
        full[full.index(-1)] = prod(shape) // rest
    if prod(full) != prod(shape):
        raise UnfitError(f"from {tuple(shape)} to {tuple(map(int, wanted))}, which does not fit")
    return tuple(full)


def axes_of(attributes: Mapping[str, Any], given: Sequence[Constant | None], n_axes: int) -> tuple[int, ...] | None:
    """Return the axes of Squeeze, Unsqueeze or a Reduce, an attribute of old files and an input of new ones."""
    axes = attributes.get("axes")
    if axes is None and len(given) > 1 and given[1] is not None:
        axes = given[1].numbers.reshape(-1).tolist()
    if axes is None:
        return None
    found = tuple(int(axis) + n_axes if axis < 0 else int(axis) for axis in axes)
    if any(not 0 <= axis < n_axes for axis in found) or len(set(found)) < len(found):
        raise UnfitError(f"over axes {tuple(axes)} that {n_axes} axes do not have")
    return tuple(sorted(found))


def unsqueezed(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Return *shape* with axes of size 1 put in."""
    rest = iter(shape)
    return tuple(1 if i in axes else next(rest) for i in range(len(shape) + len(axes)))


Attributes = Mapping[str, Any]
Given = Sequence[Constant | None]


def _constant(attributes: Attributes, given: Given) -> Constant:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = attributes.get(name)
        if value is not None:
            dtype = None if name == "value" else np.float32 if "float" in name else np.int64
            return Constant(np.asarray(value, dtype))
    raise UnfitError("of anything but numbers")


def _gather(attributes: Attributes, given: Given) -> Constant:
    array, indices = _first(given), _second(given).numbers
    _limited((array.numbers.size // max(1, array.shape[attributes.get("axis", 0)]) * indices.size,))
    return array.moved(lambda values: np.take(values, indices.astype(np.int64), axis=attributes.get("axis", 0)))


def _unsqueeze(attributes: Attributes, given: Given) -> Constant:
    array = _first(given)
    wanted = attributes.get("axes")
    n = len(wanted) if wanted is not None else _second(given).numbers.size
    axes = axes_of(attributes, given, array.numbers.ndim + n)
    assert axes is not None
    return array.moved(lambda values: values.reshape(unsqueezed(values.shape, axes)))


def _squeeze(attributes: Attributes, given: Given) -> Constant:
    array = _first(given)
    axes = axes_of(attributes, given, array.numbers.ndim)
    return array.moved(lambda values: np.squeeze(values, axes))


def _concat(attributes: Attributes, given: Given) -> Constant:
    parts = [constant.numbers for constant in given if constant is not None]
    return Constant(np.concatenate(parts, axis=attributes.get("axis", 0)))


def _slice(attributes: Attributes, given: Given) -> Constant:
    array = _first(given)
    said = [
        attributes.get(name) if name in attributes else _ints(given, place)
        for place, name in enumerate(("starts", "ends", "axes", "steps"), start=1)
    ]
    starts, ends, axes, steps = said
    if starts is None or ends is None:
        raise UnfitError("without its starts and ends")
    axes = axes if axes is not None else range(len(starts))
    steps = steps if steps is not None else [1] * len(starts)
    cut: list[slice] = [slice(None)] * array.numbers.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        lowest = -array.numbers.shape[axis] - 1
        cut[axis] = slice(start, None if step < 0 and end <= lowest else end, step)
    return array.moved(lambda values: values[tuple(cut)])


def _ints(given: Given, place: int) -> list[int] | None:
    found = given[place] if len(given) > place else None
    return None if found is None else [int(n) for n in found.numbers.reshape(-1)]


def _cast(attributes: Attributes, given: Given) -> Constant:
    from imcsim.graph.qonnx.file import DTYPES

    dtype = DTYPES.get(attributes.get("to"))  # type: ignore[arg-type]
    if dtype is None:
        raise UnfitError(f"to data type {attributes.get('to')}")
    array = _first(given)
    cast: Array = array.numbers.astype(dtype)
    return replace(array, numbers=cast) if cast.dtype.kind == "f" else Constant(cast)


def _reshape(attributes: Attributes, given: Given) -> Constant:
    array = _first(given)
    wanted = _ints(given, 1) or list(attributes.get("shape", ()))
    shape = target_shape(array.shape, wanted, keeps_zeros=not attributes.get("allowzero", 0))
    return array.moved(lambda values: values.reshape(shape))


def _flatten(attributes: Attributes, given: Given) -> Constant:
    array = _first(given)
    axis = attributes.get("axis", 1)
    axis = axis + array.numbers.ndim if axis < 0 else axis
    return array.moved(lambda values: values.reshape(prod(values.shape[:axis]), -1))


def _transpose(attributes: Attributes, given: Given) -> Constant:
    return _first(given).moved(lambda values: values.transpose(attributes.get("perm")))


def _expand(attributes: Attributes, given: Given) -> Constant:
    array = _first(given)
    shape = _limited(np.broadcast_shapes(array.shape, tuple(_ints(given, 1) or ())))
    return array.moved(lambda values: np.broadcast_to(values, shape))


def _constant_of_shape(attributes: Attributes, given: Given) -> Constant:
    value = np.asarray(attributes.get("value", np.zeros(1, np.float32)))
    return Constant(np.full(_limited(_ints(given, 0) or ()), value.reshape(-1)[0]))


def _range(attributes: Attributes, given: Given) -> Constant:
    start, limit, delta = (_at(given, i).numbers.reshape(()).item() for i in range(3))
    _limited((max(0, int((limit - start) / delta) + 1),))
    return Constant(np.arange(start, limit, delta, dtype=_first(given).numbers.dtype))


def _shape(attributes: Attributes, given: Given) -> Constant:
    return Constant(np.array(_first(given).shape, np.int64))


def _reduce(function: Callable[..., Any]) -> Callable[[Attributes, Given], Constant]:
    def reduced(attributes: Attributes, given: Given) -> Constant:
        array = _first(given).numbers
        axes = axes_of(attributes, given, array.ndim)
        return Constant(np.asarray(function(array, axis=axes, keepdims=bool(attributes.get("keepdims", 1)))))

    return reduced


def _elementwise(function: Callable[..., Any]) -> Callable[[Attributes, Given], Constant]:
    def computed(attributes: Attributes, given: Given) -> Constant:
        arrays = [constant.numbers for constant in given if constant is not None]
        _limited(np.broadcast_shapes(*(array.shape for array in arrays)))
        with np.errstate(all="ignore"):
            made = np.asarray(function(*arrays))
        return Constant(made.astype(arrays[0].dtype) if made.dtype.kind != "b" else made)

    return computed


def _mul(attributes: Attributes, given: Given) -> Constant:
    left, right = _first(given), _second(given)
    _limited(np.broadcast_shapes(left.shape, right.shape))
    return left.times(right.numbers) if left.codes is not None else right.times(left.numbers)


def _div(attributes: Attributes, given: Given) -> Constant:
    left, right = _first(given), _second(given).numbers
    _limited(np.broadcast_shapes(left.shape, right.shape))
    with np.errstate(all="ignore"):
        if right.dtype.kind in "iu":
            return Constant((left.numbers / right).astype(left.numbers.dtype))
        made = left.times(1 / np.asarray(right, np.float64)) if left.codes is not None else left
        return replace(made, numbers=left.numbers / right)


def _pow(base: Array, exponent: Array) -> Array:
    return np.power(base, exponent.astype(base.dtype))


def _where(attributes: Attributes, given: Given) -> Constant:
    condition, yes, no = (_at(given, place).numbers for place in range(3))
    _limited(np.broadcast_shapes(condition.shape, yes.shape, no.shape))
    return Constant(np.where(condition.astype(bool), yes, no))


def _trilu(attributes: Attributes, given: Given) -> Constant:
    diagonal = int(given[1].numbers.reshape(())) if len(given) > 1 and given[1] is not None else 0
    half = np.triu if attributes.get("upper", 1) else np.tril
    return _first(given).moved(lambda values: half(values, diagonal))


def _clip(attributes: Attributes, given: Given) -> Constant:
    low, high = clip_limits(attributes, given)
    array = _first(given).numbers
    return Constant(np.clip(array, low, high).astype(array.dtype))


def clip_limits(attributes: Attributes, given: Given) -> tuple[float, float]:
    """Return the limits of Clip, attributes of old files and inputs of new ones."""
    limits = [attributes.get("min", -np.inf), attributes.get("max", np.inf)]
    for place in (1, 2):
        found = given[place] if len(given) > place else None
        if found is not None:
            limits[place - 1] = found.numbers.reshape(())[()]
    return float(limits[0]), float(limits[1])


def spread(values: Array, attributes: Attributes, shape: Sequence[int]) -> Array:
    """Return scales or zero points of QuantizeLinear as float64 with as many axes as *shape*, each whole or 1.

    One number counts for everything; several lie along the axis that the attributes say, or stand for blocks of it.
    """
    values = np.asarray(values, np.float64)
    n_axes = len(shape)
    if values.size == 1:
        return values.reshape((1,) * n_axes)
    axis = int(attributes.get("axis", 1))
    axis = axis + n_axes if axis < 0 else axis
    block = int(attributes.get("block_size", 0))
    if block and values.ndim == n_axes and 0 <= axis < n_axes:
        return np.take(np.repeat(values, block, axis), range(shape[axis]), axis)
    if not 0 <= axis < n_axes or values.shape != (shape[axis],):
        raise UnfitError(f"with a scale of shape {values.shape} for axis {axis} of {tuple(shape)}")
    return values.reshape([-1 if i == axis else 1 for i in range(n_axes)])


TYPES_OF_CODES = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 21: "uint4", 22: "int4"}
"""Of `TensorProto.DataType`: what QuantizeLinear gives."""


def code_limits(attributes: Attributes, zero: Constant | None) -> tuple[int, int]:
    """Return the least and the greatest code of the type of the zero point *zero*, or of the attribute output_dtype."""
    said = TYPES_OF_CODES.get(attributes.get("output_dtype") or 2, "")
    name = said if zero is None else zero.numbers.dtype.name
    if name not in TYPES_OF_CODES.values():
        raise UnfitError("to anything but whole numbers", "uint8, int8, uint16 or int16")
    bits = int(name.lstrip("uint"))
    return (0, (1 << bits) - 1) if name.startswith("u") else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def _quantized(attributes: Attributes, given: Given) -> Constant:
    numbers, zero = _first(given).numbers, given[2] if len(given) > 2 else None
    scale = spread(_second(given).numbers, attributes, numbers.shape).astype(numbers.dtype)
    low, high = code_limits(attributes, zero)
    steps = np.round(numbers / scale)
    if zero is not None:
        steps = steps + spread(zero.numbers, attributes, numbers.shape)
    if not np.all(np.isfinite(steps)):
        raise UnfitError("of numbers, or by a scale, that are not finite")
    return Constant(np.clip(steps, low, high).astype(np.int64))


def dequantized(attributes: Attributes, given: Given) -> Constant:
    """Return codes as numbers ``scale * (code - zero)``, with the codes, less the zero, beside them."""
    codes, zero = _first(given).numbers.astype(np.int64), given[2] if len(given) > 2 else None
    if _first(given).numbers.dtype.kind == "f":
        raise UnfitError("of numbers that are not whole")
    scale = spread(_second(given).numbers, attributes, codes.shape)
    if zero is not None:
        codes = codes - spread(zero.numbers, attributes, codes.shape).astype(np.int64)
    numbers = codes.astype(np.float32) * scale.astype(np.float32)
    if not np.all(np.isfinite(numbers)):
        raise UnfitError("with a scale that is not finite")
    return Constant(numbers, codes, scale)


def _at(given: Given, place: int) -> Constant:
    found = given[place] if len(given) > place else None
    if found is None:
        raise UnfitError(f"without its input {place + 1}")
    return found


def _first(given: Given) -> Constant:
    return _at(given, 0)


def _second(given: Given) -> Constant:
    return _at(given, 1)


FOLDED: dict[str, Callable[[Attributes, Given], Constant]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DequantizeLinear": dequantized,
    "Div": _div,
    "Equal": _elementwise(np.equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "Identity": lambda attributes, given: _first(given),
    "Less": _elementwise(np.less),
    "Log": _elementwise(np.log),
    "Max": _elementwise(lambda *arrays: np.max(np.broadcast_arrays(*arrays), axis=0)),
    "Min": _elementwise(lambda *arrays: np.min(np.broadcast_arrays(*arrays), axis=0)),
    "Mul": _mul,
    "Neg": _elementwise(np.negative),
    "Pow": _elementwise(_pow),
    "QuantizeLinear": _quantized,
    "Range": _range,
    "Reciprocal": _elementwise(np.reciprocal),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Relu": _elementwise(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Round": _elementwise(np.round),
    "Shape": _shape,
    "Sign": _elementwise(np.sign),
    "Slice": _slice,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tanh": _elementwise(np.tanh),
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""ONNX's own operators that are worked out on constants."""
