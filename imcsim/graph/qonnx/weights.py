"""Constants to planes: the codes that a quantizer gave, or else the few levels that the numbers have."""

from dataclasses import replace

import numpy as np

from imcsim.graph.formats import BINARY, TERNARY, Format, signed, unsigned
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.ternary import PlaneSum, binary, sign_magnitude, ternary
from imcsim.ternary.planes import whole_factors

Array = np.ndarray

MOST_CODE = 127
"""Greatest code of a grid that is found in numbers that no quantizer made."""

MOST_BITS = 16
ROUNDING = 2.0**-22
"""Greatest relative difference of a float32 number from the level that it is."""


def planes_of(weights: Constant) -> PlaneSum:
    """Return *weights* (c_out ...) as planes, by their codes or by their levels; raises UnfitError for others.

    One plane holds -1, 0 and +1; k of them the codes from ``-(2^k - 1)`` to ``2^k - 1``, each bit of the magnitude
    with the sign. Codes with a common divisor are divided by it first.
    """
    numbers = weights.numbers.astype(np.float64)
    if not np.all(np.isfinite(numbers)) or numbers.size == 0:
        raise UnfitError("with weights that are not finite numbers")
    if weights.codes is not None and weights.scale is not None:
        scale = np.broadcast_to(weights.scale, numbers.shape).reshape(len(numbers), -1)
        if np.any(scale != scale[:, :1]):
            raise UnfitError("with weights whose scale differs within an output", "one scale, or one per output")
        each = scale[:1, 0] if np.all(scale[:, 0] == scale[0, 0]) else scale[:, 0]
        return coded(weights.codes.astype(np.int64), each)
    return _levelled(numbers)


def table_codes(table: Constant) -> tuple[Array, Format]:
    """Return the codes (v e) of a *table* and their format; raises UnfitError where it is not codes times one scale."""
    codes, scale = table.codes, table.scale
    if codes is None or scale is None:
        found = _grid(table.numbers.astype(np.float64).reshape(1, -1))
        if found is None:
            raise UnfitError("of a table of real numbers", "a table through Quant or BipolarQuant, or of few levels")
        codes, scale = found[0].reshape(table.shape), found[1]
    if np.any(scale != scale.reshape(-1)[0]):
        raise UnfitError("of a table whose scale differs between its numbers", "one scale for the table")
    form = table.form or _least_format(codes)
    return codes, replace(form, scale=float(scale.reshape(-1)[0]))


def _least_format(codes: Array) -> Format:
    """Return the format of fewest bits that has *codes*."""
    low, high = int(codes.min()), int(codes.max())
    if low >= -1 and high <= 1:
        return TERNARY if np.any(codes == 0) else BINARY
    if low >= 0:
        return unsigned(high.bit_length())
    return signed(max(-low, high).bit_length() + 1)


def coded(codes: Array, scale: Array) -> PlaneSum:
    """Return whole-number *codes* (c ...) times *scale*, (1) or (c), as planes; raises UnfitError for too many bits."""
    divisor = int(np.gcd.reduce(np.abs(codes).ravel())) or 1
    codes, scale = codes // divisor, scale * divisor
    top = int(np.abs(codes).max())
    if top.bit_length() > MOST_BITS:
        raise UnfitError(f"with weights of {top.bit_length() + 1} bits", f"at most {MOST_BITS} bits")
    scale = scale.reshape(-1, *(1,) * (codes.ndim - 1)) if scale.size > 1 else scale.reshape(())
    if top > 1:
        return sign_magnitude(top.bit_length() + 1).plane_sum(codes, scale=scale)
    return (ternary() if np.any(codes == 0) else binary()).plane_sum(codes, scale=scale)


def _levelled(numbers: Array) -> PlaneSum:
    """Find the grid of all numbers, or that of each output, or two or three levels of each output."""
    rows = numbers.reshape(len(numbers), -1)
    found = _grid(rows.reshape(1, -1))
    if found is None:
        found = _grid(rows)
    if found is not None:
        codes, scale = found
        return coded(codes.reshape(numbers.shape), scale)
    wide = (-1, *(1,) * (numbers.ndim - 1))
    levels = [np.unique(row) for row in rows]
    if all(_is_uneven_ternary(level) for level in levels):
        high, low = (np.array([level[at] for level in levels]) for at in (-1, 0))
        plus = np.where(high > 0, high, np.where(low < 0, -low, 1.0))  # an output of zeros alone has any scale
        minus = np.where(low < 0, -low, plus) / plus
        return PlaneSum(
            planes=np.sign(numbers)[np.newaxis],
            factors=whole_factors([1]),
            scale=plus.reshape(wide),
            minus=minus.reshape(wide),
        )
    if all(len(level) <= 2 for level in levels):
        low, high = (np.array([level[at] for level in levels]).reshape(wide) for at in (0, -1))
        codes = np.where(numbers > (low + high) / 2, 1, -1)
        return PlaneSum(
            planes=codes[np.newaxis], factors=whole_factors([1]), scale=(high - low) / 2, offset=(high + low) / 2
        )
    raise UnfitError(
        "with float weights", "weights through Quant or BipolarQuant, or of few levels; quantize the model first"
    )


def _is_uneven_ternary(levels: Array) -> bool:
    others = levels[levels != 0]
    return len(others) < 2 or (len(others) == 2 and bool(others[0] < 0 < others[1]))


def _grid(rows: Array) -> tuple[Array, Array] | None:
    """Return codes and scales (r) of numbers (r n) that are codes times a scale, row by row, to float32 rounding."""
    codes, scales = np.zeros(rows.shape, np.int64), np.ones(len(rows))
    for i, row in enumerate(rows):
        levels = np.unique(np.abs(row))
        if len(levels) > MOST_CODE + 1:
            return None
        if levels[-1] == 0:
            continue
        least = np.concatenate([levels[levels > 0][:1], np.diff(levels)[np.diff(levels) > ROUNDING * levels[-1]]]).min()
        top = np.rint(levels[-1] / least)
        if top > MOST_CODE:
            return None
        scales[i] = levels[-1] / top
        codes[i] = np.rint(row / scales[i])
        if np.any(np.abs(codes[i] * scales[i] - row) > ROUNDING * np.abs(row)):
            return None
    return codes, scales
