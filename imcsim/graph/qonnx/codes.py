"""QuantizeLinear and DequantizeLinear on what follows from the input, and the operators that hold them inside.

``QuantizeLinear``: ``clip(round(x / scale) + zero, low, high)``, halves to even; the limits are those of the type of
the zero point, or of a Clip that alone reads the codes. ``DequantizeLinear``: ``scale (code - zero)``, which is linear
and makes no step. Source: ONNX's own operators, github.com/onnx/onnx, docs/Operators.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imcsim.graph.formats import TERNARY, Format
from imcsim.graph.qonnx.call import Call, Take, per_channel
from imcsim.graph.qonnx.constants import Constant, UnfitError, clip_limits, code_limits, dequantized, spread
from imcsim.graph.qonnx.products import PRODUCTS
from imcsim.graph.qonnx.quantizers import MOST_BITS, MOST_BITS_OF_THRESHOLDS, MOST_THRESHOLDS, reached_from
from imcsim.graph.qonnx.values import ONE, ZERO, Value
from imcsim.graph.steps import Affine, Quantize, Step, Threshold

Array = np.ndarray

FLOATS = (0, 1, 11)
"""Data types in which a quantizer may reckon: that of its scale, float32 and float64."""


@dataclass(frozen=True, eq=False)
class Coding:
    """Codes of a type: numbers ``scale * (code - zero)`` with codes from `low` to `high`."""

    scale: Array
    """float64, () or (c)."""

    zero: int
    low: int
    high: int

    @property
    def shift(self) -> int:
        """What is taken off every code, so that numbers from 0 on have codes from 0 on, and the number 0 code 0."""
        return self.low if self.zero == self.low else 0

    def form(self) -> Format:
        """Return the least format that holds the codes, less the shift."""
        low, high = self.low - self.shift, self.high - self.shift
        if low == 0:
            return Format("unsigned", high.bit_length())
        if (low, high) == (-1, 1):
            return TERNARY
        bits = max(-low - 1, high).bit_length() + 1
        return Format("signed" if -low <= high else "integer", bits) if low < 0 else Format("unsigned", bits - 1)


def _require_float(call: Call, attribute: str) -> None:
    """Raise UnfitError for arithmetic in less than float32, which gives other numbers."""
    if call.attributes.get(attribute, 0) not in FLOATS:
        raise UnfitError(f"whose {attribute} is data type {call.attributes[attribute]}", "float32, data type 1")


def _quantize_linear(call: Call) -> Value:
    value = call.as_it_lies()
    _require_float(call, "precision")
    scale, zero = _parameters(call, value)
    low, high = code_limits(call.attributes, call.constant(2, "a zero point") if call.has(2) else None)
    return _coded(call, value, Coding(scale, zero, *_clipped(call, low, high)))


def _parameters(call: Call, value: Value, places: Sequence[int] = (1, 2)) -> tuple[Array, int]:
    """Return the scale, () or (c), and the zero point of all channels of an activation."""
    scale = spread(call.constant(places[0], "a scale").numbers, call.attributes, value.whole(1))
    if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        raise UnfitError("with a scale that is not above 0")
    if not call.has(places[1]):
        return per_channel(scale, value, "a scale"), 0
    zeros = np.unique(call.constant(places[1], "a zero point").numbers.astype(np.int64))
    if len(zeros) != 1:
        raise UnfitError("with a zero point for each channel", "one zero point for all of them")
    return per_channel(scale, value, "a scale"), int(zeros[0])


def _clipped(call: Call, low: int, high: int) -> tuple[int, int]:
    """Return the limits of the codes, those of a Clip included where nothing else reads them."""
    name = call.node.outputs[0]
    readers = call.walk.readers[name]
    if len(readers) != 1 or readers[0].kind != "Clip" or name in call.walk.model.outputs:
        return low, high
    given = [call.walk.known.get(source) if source else None for source in readers[0].inputs]
    if any(
        source and not isinstance(found, Constant)
        for source, found in zip(readers[0].inputs[1:], given[1:], strict=True)
    ):
        return low, high
    least, most = clip_limits(readers[0].attributes, [None, *(x for x in given[1:] if not isinstance(x, Value))])
    return max(low, int(np.ceil(least)) if least > low else low), min(high, int(most) if most < high else high)


def _coded(call: Call, value: Value, coding: Coding, what: str = "") -> Value:
    """Return the codes of *value* as numbers of their own, with a scale of 1."""
    if coding.high <= coding.low or coding.high - coding.low >= 1 << MOST_BITS:
        raise UnfitError(f"to codes from {coding.low} to {coding.high}", f"2 levels to {MOST_BITS} bits")
    form, scale, zero = coding.form(), coding.scale, np.array(float(coding.zero - coding.shift))
    offset = np.array(float(-coding.shift))
    if (
        value.is_codes
        and np.array_equal(value.scale, scale)
        and np.array_equal(value.zero, zero)
        and coding.low <= value.form.low + coding.shift
        and value.form.high + coding.shift <= coding.high
    ):
        return replace(value, scale=ONE, zero=offset, low=coding.low, high=coding.high)
    full = replace(form, scale=float(scale), zero=float(zero)) if not scale.ndim else replace(form, zero=float(zero))
    steps = (*value.numbers(), *_steps(coding, full))
    return call.walk.apply(value, steps, zero=offset, bounds=(coding.low, coding.high), what=what)


def _steps(coding: Coding, form: Format) -> tuple[Step, ...]:
    low, high = coding.low - coding.shift, coding.high - coding.shift
    n_levels, is_whole = high - low + 1, (low, high) == (form.low, form.high)
    if is_whole and n_levels > 1 << MOST_BITS_OF_THRESHOLDS:
        if not coding.scale.ndim:
            return (Quantize(form),)
        return (Affine(1 / coding.scale, ZERO), Quantize(replace(form, scale=1.0)))
    if n_levels > MOST_THRESHOLDS:
        raise UnfitError(f"to codes from {coding.low} to {coding.high}", "the limits of a whole number of bits")
    codes, zero = np.arange(low, high + 1), coding.zero - coding.shift
    limits = [reached_from("ROUND", int(code) - zero) for code in codes[1:]]  # of x / scale, rounded before zero
    thresholds = np.array([limit for limit, _ in limits]) * coding.scale.reshape(-1, 1)
    strict = np.array([is_strict for _, is_strict in limits])
    return (Threshold(np.where(strict, np.nextafter(thresholds, np.inf), thresholds), codes, form),)


def _dequantize_linear(call: Call) -> Value:
    value = call.as_it_lies()
    _require_float(call, "output_dtype")
    return _numbered(call, value, *_parameters(call, value))


def _numbered(call: Call, value: Value, scale: Array, zero: int) -> Value:
    """Return the numbers of codes: their scale and zero change, and no step is made."""
    low, high = float(np.min(scale * (value.low - zero))), float(np.max(scale * (value.high - zero)))
    if value.is_codes and np.all(value.scale == 1):
        return replace(value, scale=scale, zero=value.zero + zero, low=low, high=high)
    if value.is_codes:
        return value.affine(scale, -scale * zero)
    return call.walk.apply(value, (Affine(scale, -scale * zero),), bounds=(low, high))


def _dynamic(call: Call) -> Value:
    raise UnfitError("whose scale follows from each sample", "static quantization (QuantizeLinear)")


def _quantized_layer(kind: str) -> Take:
    """Return what takes a QLinearConv or QLinearMatMul: its numbers, *kind*, and codes again."""

    def take(call: Call) -> Value:
        # x, its scale and zero; w, its scale and zero; y's scale and zero; and of a convolution the bias
        value = call.value()
        plain = replace(call, node=replace(call.node, attributes={}))  # those of a layer say nothing of scales
        numbers = _numbered(call, value, *_parameters(plain, value))
        axis = 0 if kind == "Conv" else call.constant(3, "weights").numbers.ndim - 1
        given = [call.constant(place, what) for place, what in ((3, "weights"), (4, "a scale"), (5, "a zero point"))]
        weights = dequantized({"axis": axis}, given)
        inputs: list[Value | Constant | None] = [numbers, weights]
        if call.has(8):
            scale = np.asarray(call.constant(1, "a scale").numbers, np.float64) * given[1].numbers.astype(np.float64)
            bias = call.constant(8, "a bias").numbers
            inputs.append(Constant((bias * np.broadcast_to(scale.reshape(-1), bias.shape)).astype(np.float32)))
        made = PRODUCTS[kind](replace(call, given=inputs))
        assert isinstance(made, Value)
        scale, zero = _parameters(plain, made, (6, 7))
        low, high = code_limits({}, call.constant(7, "a zero point"))
        return _coded(call, made, Coding(scale, zero, low, high), what="codes")

    return take


CODES: dict[str, Take] = {
    "DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic,
    "QLinearConv": _quantized_layer("Conv"),
    "QLinearMatMul": _quantized_layer("MatMul"),
    "QuantizeLinear": _quantize_linear,
}
