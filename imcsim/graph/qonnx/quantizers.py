"""What QONNX's quantizers do: to constants, in the arithmetic of the file, and to activations, as steps of a graph.

Quant: ``s (round(clip(x / s + z, low, high)) - z)``, the rounding and the limits as its attributes say. A code k is
reached where ``x / s + z`` is at or above a limit that the rounding tells; so grids of few levels are thresholds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np

from imcsim.graph.formats import BINARY, TERNARY, Format
from imcsim.graph.qonnx.constants import Constant, UnfitError, whole
from imcsim.graph.steps import Affine, Quantize, Step, Threshold

Array = np.ndarray

MOST_BITS_OF_THRESHOLDS = 4
"""Grids of up to so many bits become thresholds, into which a batch norm can be folded; finer ones are divided out."""

MOST_THRESHOLDS = 1 << 12
"""Rounding other than to the nearest is by thresholds; so many at the most."""

MOST_BITS = 16
"""Of an activation or a weight."""

MOST_BITS_OF_CONSTANTS = 32
"""Of a bias, whose codes no tile holds."""

Rounding = Callable[[Array], Array]

ROUNDINGS: dict[str, Rounding] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "ROUND_TO_ZERO": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),
    "DPU": lambda x: np.where((x < 0) & (x - np.floor(x) == 0.5), np.ceil(x), np.round(x)),
}
"""By the names of QONNX, and of Brevitas where it has another; UP is away from zero, DOWN towards it.

DPU, which Brevitas alone has, gives halves below 0 the greater code, the others the even one.
"""

NEAREST = ("ROUND", "HALF_EVEN")


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that a quantizer gives: ``scale * (code - zero)`` with whole codes from `low` to `high`."""

    form: Format
    """Of the codes; its scale and its zero are 1 and 0."""

    low: int
    high: int
    scale: Array
    """float64, with as many axes as the file gives."""

    zero: Array
    rounding: str = "ROUND"

    @property
    def n_levels(self) -> int:
        """How many codes there are."""
        return self.high - self.low + 1


def quant_grid(
    attributes: Mapping[str, Any], scale: Constant, zero: Constant, bits: Constant, *, most_bits: int = MOST_BITS
) -> Grid:
    """Return the grid of a Quant; raises UnfitError for what is not one."""
    n_bits = whole(bits, "a bit width")
    signed, narrow = bool(attributes.get("signed", 1)), bool(attributes.get("narrow", 1))
    if not 1 <= n_bits <= most_bits:
        raise UnfitError(f"of {n_bits} bits", f"1 to {most_bits} bits")
    rounding = rounding_of(attributes, "ROUND")
    values = _positive(scale), np.asarray(zero.numbers, np.float64)
    if signed and n_bits == 1:
        return Grid(BINARY, -1, 1, *values, "SIGN")
    if signed:
        low, high = -(1 << (n_bits - 1)) + narrow, (1 << (n_bits - 1)) - 1
        form = Format("integer", n_bits) if not narrow else TERNARY if n_bits == 2 else Format("signed", n_bits)
    else:
        low, high = 0, (1 << n_bits) - 1 - narrow
        if high < 1:
            raise UnfitError("of one level alone", "2 bits, or a range that is not narrow")
        form = Format("unsigned", n_bits)
    return Grid(form, low, high, *values, rounding)


def bipolar_grid(scale: Constant) -> Grid:
    """Return the grid of a BipolarQuant: -1 below 0, +1 from 0 on."""
    return Grid(BINARY, -1, 1, _positive(scale), np.zeros(()), "SIGN")


def rounding_of(attributes: Mapping[str, Any], default: str) -> str:
    """Return the rounding mode that is meant; raises UnfitError for one that is none."""
    rounding = str(attributes.get("rounding_mode", default)).upper()
    if rounding not in ROUNDINGS:
        raise UnfitError(f"with rounding mode {rounding}", f"one of {', '.join(ROUNDINGS)}")
    return rounding


def quantized(grid: Grid, constant: Constant) -> Constant:
    """Return *constant* quantized, in its own arithmetic, mostly float32."""
    numbers = constant.numbers
    dtype = numbers.dtype if numbers.dtype.kind == "f" else np.dtype(np.float32)
    scale, zero = grid.scale.astype(dtype), grid.zero.astype(dtype)
    steps = numbers.astype(dtype) / scale + zero
    if grid.rounding == "SIGN":
        codes = np.where(steps >= 0, 1, -1).astype(dtype)
    else:
        codes = ROUNDINGS[grid.rounding](np.clip(steps, grid.low, grid.high))
    made = (codes - zero) * scale
    if made.shape != numbers.shape or not np.all(np.isfinite(made)):
        raise UnfitError("of numbers that are not finite, or with a scale that is larger than they are")
    if np.any(grid.zero != np.rint(grid.zero)):
        return Constant(made)
    wide = grid.scale.reshape((1,) * (made.ndim - grid.scale.ndim) + grid.scale.shape)
    form = grid.form if np.all(grid.zero == 0) else None
    return Constant(made, np.rint(codes.astype(np.float64) - grid.zero).astype(np.int64), wide, form)


def quantizing_steps(grid: Grid, scale: Array, zero: Array) -> tuple[Step, ...]:
    """Return the steps that make codes of real numbers; *scale*, *zero*: those of the grid, () or one per channel."""
    if grid.rounding == "SIGN":  # x / s + z >= 0
        return (Threshold((-zero * scale).reshape(-1, 1), np.array([-1, 1]), _with(grid.form, scale, zero)),)
    form = _with(grid.form, scale, zero)
    few = grid.n_levels <= 1 << MOST_BITS_OF_THRESHOLDS
    if few or grid.rounding not in NEAREST or not _is_whole_range(grid):
        if grid.n_levels > MOST_THRESHOLDS:
            raise UnfitError(
                f"of {grid.form.bits} bits with rounding mode {grid.rounding}",
                "at most 12 bits, or rounding mode ROUND",
            )
        codes = range(grid.low + 1, grid.high + 1)
        return (_threshold_step([reached_from(grid.rounding, code) for code in codes], grid, form, scale, zero),)
    if scale.ndim == 0 and zero.ndim == 0 and (zero % 2 == 0 or zero % 1):
        return (Quantize(form),)
    return (Affine(1 / scale, zero), Quantize(grid.form))  # halves go to the even code with the zero added, or else


def _is_whole_range(grid: Grid) -> bool:
    return (grid.low, grid.high) == (grid.form.low, grid.form.high)


def _threshold_step(limits: list[tuple[float, bool]], grid: Grid, form: Format, scale: Array, zero: Array) -> Threshold:
    """Return the step whose codes are reached at or above *limits* of ``x / scale + zero``, one for each code."""
    bounds = np.array([limit for limit, _ in limits])
    thresholds = (bounds - zero.reshape(-1, 1)) * scale.reshape(-1, 1)  # c n, or 1 n
    strict = np.array([is_strict for _, is_strict in limits])
    thresholds = np.where(strict, np.nextafter(thresholds, np.inf), thresholds)
    return Threshold(thresholds, np.arange(grid.low, grid.high + 1), form)


def reached_from(rounding: str, code: int) -> tuple[float, bool]:
    """Return from which number on rounding gives *code* or more, and whether that number itself does not.

    >>> reached_from("ROUND", 1), reached_from("ROUND", 2), reached_from("FLOOR", 1), reached_from("UP", 1)
    ((0.5, True), (1.5, False), (1.0, False), (0.0, True))
    """
    match rounding:
        case "ROUND" | "HALF_EVEN":
            return code - 0.5, code % 2 != 0
        case "FLOOR":
            return float(code), False
        case "CEIL":
            return code - 1.0, True
        case "DOWN" | "ROUND_TO_ZERO":
            return (float(code), False) if code > 0 else (code - 1.0, True)
        case "UP":
            return (code - 1.0, True) if code > 0 else (float(code), False)
        case "HALF_UP":
            return code - 0.5, code <= 0
        case "DPU":
            return code - 0.5, code > 0 and code % 2 != 0
    return code - 0.5, code > 0  # HALF_DOWN


def _with(form: Format, scale: Array, zero: Array) -> Format:
    """Return *form* with a scale and a zero that all channels share; where they do not, with those of plain codes."""
    if scale.ndim or zero.ndim:
        return form
    return Format(form.kind, form.bits, float(scale), zero=float(zero))


def _positive(scale: Constant) -> Array:
    values = np.asarray(scale.numbers, np.float64)
    if not np.all(np.isfinite(values)) or np.any(values <= 0):
        raise UnfitError("with a scale that is not above 0")
    return values


# --- Trunc ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Truncation:
    """A Trunc: codes ``round(x / scale + zero)``, divided by 2^`shift`, rounded again, and counted as `grid` says."""

    grid: Grid
    """Of what comes out; its scale and zero are what the codes that come out count for."""

    scale: Array
    """Of what goes in."""

    zero: Array
    shift: int


def truncation(attributes: Mapping[str, Any], given: list[Constant], bounds: tuple[float, float]) -> Truncation:
    """Return what a Trunc does to numbers within *bounds*: with 5 inputs of its first version, with 6 of its second.

    The first version divides by 2^(input bits - output bits) and counts the codes by the scale that went in; the
    second divides by the ratio of two scales, and has limits.
    """
    if len(given) not in (4, 5):
        raise UnfitError(f"with {len(given) + 1} inputs", "5 of its first version, or 6 of its second")
    rounding = rounding_of(attributes, "FLOOR")
    scale, zero = _positive(given[0]), np.asarray(given[1].numbers, np.float64)
    if scale.size != 1 or zero.size != 1 or zero.reshape(()) != np.rint(zero.reshape(())):
        raise UnfitError("with a scale per channel, or a zero point that is not one whole number")
    scale, zero = scale.reshape(()), zero.reshape(())
    in_bits, out_bits = whole(given[2], "an input bit width"), whole(given[-1], "an output bit width")
    if not (1 <= in_bits <= 32 and 1 <= out_bits <= MOST_BITS):
        raise UnfitError(f"from {in_bits} to {out_bits} bits", f"up to 32 bits, to at most {MOST_BITS}")
    if len(given) == 4:
        if in_bits < out_bits:
            raise UnfitError(f"from {in_bits} to {out_bits} bits", "fewer bits behind it than before")
        shift = in_bits - out_bits
        least, most = -float(1 << (in_bits - 1)), float((1 << in_bits) - 1)  # signed or not, the file does not say
        least, most = (
            max(least, bounds[0] / float(scale) + float(zero)),
            min(most, bounds[1] / float(scale) + float(zero)),
        )
        low, high = floor(least / (1 << shift)), ceil(most / (1 << shift))
        return Truncation(Grid(_form_of(low, high), low, high, scale, zero, rounding), scale, zero, shift)
    out_scale = _positive(given[3])
    if out_scale.size != 1:
        raise UnfitError("with an output scale per channel")
    shift = int(np.round(np.log2(out_scale.reshape(()) / scale)))
    if shift < 0:
        return _finer(attributes, given[-1], scale, zero, -shift, bounds, rounding)
    fresh = {"signed": attributes.get("signed", 1), "narrow": attributes.get("narrow", 0)}
    grid = quant_grid(fresh, Constant(out_scale.reshape(())), Constant(zero / (1 << shift)), given[-1])
    if grid.rounding == "SIGN":
        raise UnfitError("to 1 signed bit", "a BipolarQuant")
    return Truncation(Grid(grid.form, grid.low, grid.high, grid.scale, grid.zero, rounding), scale, zero, shift)


def _finer(
    attributes: Mapping[str, Any],
    bits: Constant,
    scale: Array,
    zero: Array,
    shift: int,
    bounds: tuple[float, float],
    rounding: str,
) -> Truncation:
    """Return a Trunc whose codes are those that go in times 2^*shift*, and are the same numbers: nothing is rounded.

    Raises UnfitError where numbers within *bounds* would leave its range: then some lie between two codes.
    """
    most = 1 << shift
    fine = quant_grid(
        {"signed": attributes.get("signed", 1), "narrow": attributes.get("narrow", 0)},
        Constant(scale / most),
        Constant(zero * most),
        bits,
    )
    least, greatest = (bound / float(scale) + float(zero) for bound in bounds)
    low, high = ceil(fine.low / most), floor(fine.high / most)
    if not low <= round(least, 6) <= round(greatest, 6) <= high:
        raise UnfitError("to a finer scale, with numbers out of its range", "more bits behind it, or no Trunc")
    return Truncation(Grid(_form_of(low, high), low, high, scale, zero, rounding), scale, zero, 0)


def truncating_steps(trunc: Truncation) -> tuple[Step, ...]:
    """Return the step that makes codes of real numbers: thresholds, since it rounds twice."""
    grid = trunc.grid
    if grid.n_levels > MOST_THRESHOLDS:
        raise UnfitError(f"to {grid.n_levels} levels", f"at most {MOST_THRESHOLDS} levels")
    limits = []
    for code in range(grid.low + 1, grid.high + 1):
        limit, is_strict = reached_from(grid.rounding, code)
        wanted = limit * (1 << trunc.shift)  # of the whole number that went in
        least = floor(wanted) + 1 if is_strict else ceil(wanted)
        limits.append(reached_from("ROUND", least))
    form = _with(grid.form, grid.scale, grid.zero)
    return (_threshold_step(limits, grid, form, trunc.scale, trunc.zero),)


def truncated(trunc: Truncation, constant: Constant) -> Constant:
    """Return *constant* truncated."""
    grid = trunc.grid
    codes = ROUNDINGS[grid.rounding](np.round(constant.numbers / trunc.scale + trunc.zero) / (1 << trunc.shift))
    codes = np.clip(codes, grid.low, grid.high)
    return Constant(((codes - grid.zero) * grid.scale).astype(np.float32))


def _form_of(low: int, high: int) -> Format:
    """Return the narrowest format of the codes from *low* to *high*."""
    if low >= 0:
        return Format("unsigned", max(1, high.bit_length()))
    if low >= -1 and high <= 1:
        return TERNARY
    return Format("signed", max(-low, high).bit_length() + 1)


# --- MultiThreshold -------------------------------------------------------------------------------------------------


def multi_threshold(attributes: Mapping[str, Any], thresholds: Constant) -> tuple[Threshold, float, float]:
    """Return the step of a MultiThreshold, and the scale and the zero of its codes.

    It gives ``out_scale * (how many thresholds a number reaches) + out_bias``.
    """
    limits = np.sort(np.asarray(thresholds.numbers, np.float64), axis=-1)
    scale, bias = float(attributes.get("out_scale", 1.0)), float(attributes.get("out_bias", 0.0))
    if limits.ndim != 2 or not limits.size or limits.shape[1] > MOST_THRESHOLDS:
        raise UnfitError(f"with thresholds of shape {limits.shape}", f"(c n) with n up to {MOST_THRESHOLDS}")
    if not scale > 0 or not np.isfinite(scale) or not np.isfinite(bias) or np.any(np.isnan(limits)):
        raise UnfitError(f"with out_scale {scale:g} and out_bias {bias:g}", "a finite scale above 0")
    n = limits.shape[1]
    if n == 1 and bias == -scale / 2:  # -1 and +1
        codes, zero, scale = np.array([-1, 1]), 0.0, scale / 2
        form = Format("binary", 1, scale)
    else:
        zero = -bias / scale
        shift = int(zero) if zero == np.rint(zero) and 0 <= zero <= n else 0
        codes, zero = np.arange(n + 1) - shift, zero - shift
        form = _form_of(int(codes[0]), int(codes[-1]))
        form = Format(form.kind, form.bits, scale, zero=zero)
    return Threshold(limits, codes, form), scale, zero
