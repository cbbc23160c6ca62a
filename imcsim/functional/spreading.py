"""Rows of input groups laid into blocks of their own: the last block of each is filled up with empty rows."""

import numpy as np

Array = np.ndarray


def block_height(row_groups: tuple[int, ...], rows_per_access: int) -> int:
    """Return the rows of a block that are worth packing: none are, above the largest group.

    >>> block_height((4, 4, 3), 16), block_height((64, 64), 16)
    (4, 16)
    """
    return min(rows_per_access, max(row_groups))


def spread(values: Array, sizes: list[int] | tuple[int, ...], height: int, axis: int) -> Array:
    """Put empty rows behind each group of *sizes* rows along *axis*, so that it fills whole blocks of *height*.

    >>> spread(np.array([1, 1, 1, 2]), [3, 1], 2, axis=0)
    array([1, 1, 1, 0, 2, 0])
    """
    if all(size % height == 0 for size in sizes):
        return values
    places, row = [], 0
    for size in sizes:
        places += [*range(row, row + size), *[-1] * (-size % height)]
        row += size
    found = np.take(values, np.maximum(places, 0), axis=axis)
    empty = [slice(None)] * values.ndim
    empty[axis] = np.flatnonzero(np.array(places) < 0)  # type: ignore[call-overload]
    found[tuple(empty)] = 0
    return found
