"""The quantizers of QONNX as nodes: a constant is quantized when the file is read, an activation by a step."""

from collections.abc import Callable
from math import inf

import numpy as np

from imcsim.graph.qonnx.call import Call, per_channel
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.quantizers import (
    MOST_BITS,
    MOST_BITS_OF_CONSTANTS,
    Grid,
    bipolar_grid,
    multi_threshold,
    quant_grid,
    quantized,
    quantizing_steps,
    truncated,
    truncating_steps,
    truncation,
)
from imcsim.graph.qonnx.values import Value

Array = np.ndarray


def _quant(call: Call) -> Value | Constant:
    scale, zero, bits = (call.constant(place, what) for place, what in ((1, "scale"), (2, "zero point"), (3, "bits")))
    most_bits = MOST_BITS_OF_CONSTANTS if isinstance(call.given[0], Constant) else MOST_BITS
    return _on_grid(call, quant_grid(call.attributes, scale, zero, bits, most_bits=most_bits))


def _bipolar_quant(call: Call) -> Value | Constant:
    return _on_grid(call, bipolar_grid(call.constant(1, "scale")))


def _on_grid(call: Call, grid: Grid) -> Value | Constant:
    source = call.given[0]
    if isinstance(source, Constant):
        return quantized(grid, source)
    value = call.as_it_lies()
    scale, zero = per_channel(grid.scale, value, "a scale"), per_channel(grid.zero, value, "a zero point")
    if scale.ndim != zero.ndim:
        shape = (value.placed[0],)
        scale, zero = np.broadcast_to(scale, shape), np.broadcast_to(zero, shape)
    if grid.rounding != "SIGN" and _is_on_grid(value, grid, scale, zero):
        return value
    bounds = float(np.min(scale * (grid.low - zero))), float(np.max(scale * (grid.high - zero)))
    steps = (*value.numbers(), *quantizing_steps(grid, scale, zero))
    return call.walk.apply(value, steps, scale=scale, zero=zero, bounds=bounds)


def _is_on_grid(value: Value, grid: Grid, scale: Array, zero: Array) -> bool:
    """Whether the numbers are some of those of the grid already, so that quantizing changes none."""
    same = value.is_codes and np.array_equal(value.scale, scale) and np.array_equal(value.zero, zero)
    return same and grid.low <= value.form.low and value.form.high <= grid.high


def _trunc(call: Call) -> Value | Constant:
    given = [call.constant(place, "parameters") for place in range(1, len(call.given))]
    source = call.given[0]
    if isinstance(source, Constant):
        return truncated(truncation(call.attributes, given, (-inf, inf)), source)
    value = call.as_it_lies()
    trunc = truncation(call.attributes, given, (value.low, value.high))
    grid = trunc.grid
    bounds = float(grid.scale * (grid.low - grid.zero)), float(grid.scale * (grid.high - grid.zero))
    steps = (*value.numbers(), *truncating_steps(trunc))
    return call.walk.apply(value, steps, scale=grid.scale, zero=grid.zero, bounds=bounds)


def _multi_threshold(call: Call) -> Value:
    value = call.value(0)
    step, scale, zero = multi_threshold(call.attributes, call.constant(1, "thresholds"))
    layout = call.attributes.get("data_layout", "") or ("NC", "NWC", "NCHW")[len(value.shape) - 1]  # as qonnx has it
    if len(step.thresholds) > 1 and layout.find("C") != 1:
        raise UnfitError(f"with data layout {layout}", "channels behind the batch (data_layout NCW or NCHW)")
    if len(step.thresholds) not in (1, value.shape[0]):
        raise UnfitError(f"with thresholds for {len(step.thresholds)} channels of {value.shape[0]}")
    bounds = scale * (int(step.codes[0]) - zero), scale * (int(step.codes[-1]) - zero)
    return call.walk.apply(value, (*value.numbers(), step), scale=np.array(scale), zero=np.array(zero), bounds=bounds)


QUANTIZERS: dict[str, Callable[[Call], Value | Constant]] = {
    "Quant": _quant,
    "IntQuant": _quant,
    "BipolarQuant": _bipolar_quant,
    "Trunc": _trunc,
    "MultiThreshold": _multi_threshold,
}
"""By the names of QONNX's operators."""
