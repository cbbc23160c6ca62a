"""What a tile computes, in words a reader can check, and the fast product that is held against them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcsim.errors import ConfigError

Levels = tuple[float, float]
"""The values of the codes -1 and +1: (low, high), with low < 0 < high."""

UNWEIGHTED: Levels = (-1.0, 1.0)


def tile_matmul(
    x: ArrayLike,
    w: ArrayLike,
    *,
    rows_per_access: int = 16,
    count_max: int = 8,
    x_levels: Levels | None = None,
    w_levels: Levels | None = None,
) -> NDArray[Any]:
    """Multiply ternary *x* (b r) by ternary *w* (r c) as a tile does, block after block.

    In each block of *rows_per_access* rows a column counts its +1 products, n, and its -1 products, k; the ADCs read
    each count up to *count_max*; the PCU subtracts and accumulates over blocks. With
    ``count_max >= rows_per_access`` the result equals ``x @ w``.

    >>> tile_matmul(np.ones((1, 20), dtype=int), np.ones((20, 2), dtype=int))
    array([[12, 12]], dtype=int32)

    With levels the codes -1 and +1 stand for two values each, and the PCU weighs the counts. Unequal levels with
    any input at -1 take two accesses a block, the inputs at +1 first and then those at -1; counts of the two are
    clipped apart.

    >>> tile_matmul([[1, -1]], [[1], [1]], x_levels=(-0.5, 1.0))
    array([[0.5]])

    Args:
        x: Input codes -1, 0, +1 (b r), of any type of number; a torch tensor will do.
        w: Weight codes (r c).
        rows_per_access: Rows of a block; the last block may have fewer.
        count_max: The largest count an ADC tells apart.
        x_levels: Values of the input codes -1 and +1; (-1, 1) if only *w_levels* are given.
        w_levels: Values of the weight codes -1 and +1; (-1, 1) if only *x_levels* are given.

    Returns:
        Sums (b c): int32, or float64 with levels.

    Raises:
        ConfigError: a code is not -1, 0 or +1, the shapes do not meet, or an option is out of its range.
    """
    from imcsim.functional import kernels  # here, so that numba is loaded by those who multiply
    from imcsim.ternary.packing import pack_matrix

    x, w = _checked(x, w, rows_per_access, count_max, x_levels, w_levels)
    vectors, matrix = kernels.pack_vectors_fast(x, rows_per_access), pack_matrix(w, rows_per_access)
    if x_levels is None and w_levels is None:
        return kernels.clipped_product(vectors, matrix, count_max=count_max).total

    (x_low, x_high), (w_low, w_high) = _values(x_levels), _values(w_levels)
    if x_high == -x_low and w_high == -w_low:
        return x_high * w_high * kernels.clipped_product(vectors, matrix, count_max=count_max).total

    read = kernels.clipped_counts(vectors, matrix, count_max=count_max, which="positive")
    result = x_high * (w_high * read.plus + w_low * read.minus)
    if (x < 0).any():
        read = kernels.clipped_counts(vectors, matrix, count_max=count_max, which="negative")
        result += x_low * (w_high * read.plus + w_low * read.minus)
    return result


def tile_matmul_plain(
    x: ArrayLike,
    w: ArrayLike,
    *,
    rows_per_access: int = 16,
    count_max: int = 8,
    x_levels: Levels | None = None,
    w_levels: Levels | None = None,
) -> NDArray[Any]:
    """Do what `tile_matmul` does, slowly, in the fewest words; they share the checks of the arguments alone.

    >>> tile_matmul_plain(np.ones((1, 20), dtype=int), np.ones((20, 2), dtype=int))
    array([[12, 12]], dtype=int32)
    """
    x, w = _checked(x, w, rows_per_access, count_max, x_levels, w_levels)
    x_blocks = _blocks(x, rows_per_access, axis=1)  # b g r
    w_blocks = _blocks(w, rows_per_access, axis=0)  # g r c
    n1 = _clipped(_together(x_blocks > 0, w_blocks > 0), count_max)  # b c
    k1 = _clipped(_together(x_blocks > 0, w_blocks < 0), count_max)
    n2 = _clipped(_together(x_blocks < 0, w_blocks > 0), count_max)
    k2 = _clipped(_together(x_blocks < 0, w_blocks < 0), count_max)
    n = _clipped(_together(x_blocks > 0, w_blocks > 0) + _together(x_blocks < 0, w_blocks < 0), count_max)
    k = _clipped(_together(x_blocks > 0, w_blocks < 0) + _together(x_blocks < 0, w_blocks > 0), count_max)
    if x_levels is None and w_levels is None:
        return (n - k).astype(np.int32)

    i1, i2 = _values(x_levels)[1], -_values(x_levels)[0]
    w1, w2 = _values(w_levels)[1], -_values(w_levels)[0]
    if i1 == i2 and w1 == w2:  # unweighted or symmetric: one access
        return i1 * w1 * (n - k)
    if not (x < 0).any():  # inputs never negative: one access
        return i1 * (w1 * n - w2 * k)
    return i1 * (w1 * n1 - w2 * k1) - i2 * (w1 * n2 - w2 * k2)  # positive inputs first, then negative inputs


def _blocks(values: NDArray[Any], rows_per_access: int, axis: int) -> NDArray[Any]:
    """Cut the rows, which lie along *axis*, into blocks; the last is filled up with zeros."""
    n_blocks = -(-values.shape[axis] // rows_per_access)
    missing = [(0, 0), (0, 0)]
    missing[axis] = (0, n_blocks * rows_per_access - values.shape[axis])
    shape = list(values.shape)
    shape[axis : axis + 1] = [n_blocks, rows_per_access]
    return np.pad(values, missing).reshape(shape)


def _together(x_blocks: NDArray[np.bool_], w_blocks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count in each block and column the rows where both hold: (b g r), (g r c) to (b g c)."""
    return np.einsum("bgr,grc->bgc", x_blocks.astype(np.int64), w_blocks.astype(np.int64))


def _clipped(counts: NDArray[np.int64], count_max: int) -> NDArray[np.int64]:
    """Read each count up to *count_max* and add the blocks up: (b g c) to (b c)."""
    return np.minimum(counts, count_max).sum(axis=1)


def _values(levels: Levels | None) -> Levels:
    """Return what the codes -1 and +1 stand for."""
    return UNWEIGHTED if levels is None else (float(levels[0]), float(levels[1]))


# --- Checking arguments, where they enter ---------------------------------------------------------------------------


def _checked(
    x: ArrayLike, w: ArrayLike, rows_per_access: int, count_max: int, x_levels: Levels | None, w_levels: Levels | None
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return the codes as int8, or say what is wrong with the arguments."""
    _check_count("rows_per_access", rows_per_access)
    _check_count("count_max", count_max)
    _check_levels("x_levels", x_levels)
    _check_levels("w_levels", w_levels)
    x, w = _codes("x", x, "(b r)"), _codes("w", w, "(r c)")
    if x.shape[1] != w.shape[0]:
        raise ConfigError(
            f"tile_matmul: w must have as many rows as x has columns ({x.shape[1]}), got {w.shape[0]}; "
            f"x is {x.shape} and w is {w.shape}"
        )
    return x, w


def _codes(name: str, values: Any, axes: str) -> NDArray[np.int8]:
    try:
        array = np.asarray(values.detach() if hasattr(values, "detach") else values)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"tile_matmul: {name} must be a matrix of numbers, got {type(values).__name__}; {error}"
        ) from None
    if array.ndim != 2:
        raise ConfigError(f"tile_matmul: {name} must have two axes {axes}, got shape {array.shape}")
    if array.dtype == object or array.dtype.kind not in "biuf":
        raise ConfigError(f"tile_matmul: {name} must hold numbers, got {array.dtype}")
    codes = array.astype(np.int8) if array.dtype == bool else array
    if codes.size and not (codes.min() >= -1 and codes.max() <= 1):
        outside = ~((codes >= -1) & (codes <= 1))
        raise ConfigError(_not_ternary(name, array[outside][0]))
    if codes.dtype.kind == "f" and (codes != np.rint(codes)).any():
        raise ConfigError(_not_ternary(name, array[codes != np.rint(codes)][0]))
    return np.ascontiguousarray(codes, dtype=np.int8)


def _not_ternary(name: str, value: Any) -> str:
    return f"tile_matmul: {name} must hold -1, 0 and +1 only, got {value}; give scales as {name}_levels"


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"tile_matmul: {name} must be a whole number of at least 1, got {value!r}")


def _check_levels(name: str, levels: Any) -> None:
    if levels is None:
        return
    try:
        low, high = (float(level) for level in levels)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (low < 0 < high and math.isfinite(low) and math.isfinite(high)):
        raise ConfigError(
            f"tile_matmul: {name} must be two finite values (low, high) with low < 0 < high, got {levels!r}"
        )
