"""Numbers of one chip, or arrays of them with one element for each variant of it: what formulas need beside + - * /.

And how variants that agree in some columns are found among many.
"""

from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray


def greatest(*values: Any) -> Any:
    """Return the greatest of *values*, element by element where one of them is an array.

    >>> greatest(1.0, 3.0, 2.0)
    3.0
    >>> greatest(2.0, np.array([1.0, 4.0]))
    array([2., 4.])
    """
    for value in values:
        if isinstance(value, np.ndarray):
            return reduce(np.maximum, values)
    return max(values)


def least(*values: Any) -> Any:
    """Return the least of *values*, element by element where one of them is an array.

    >>> least(2.0, np.array([1.0, 4.0]))
    array([1., 2.])
    """
    for value in values:
        if isinstance(value, np.ndarray):
            return reduce(np.minimum, values)
    return min(values)


def numbered(values: NDArray[Any]) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the distinct *values* (n), and which of them each is (n); 1, 1.0 and True are three among objects.

    >>> numbered(np.array([2.5, 1.0, 2.5]))
    ([1.0, 2.5], array([1, 0, 1]))
    """
    if values.dtype == object:
        kinds: dict[tuple[type, Any], int] = {}
        places = [kinds.setdefault((type(value), value), len(kinds)) for value in values.tolist()]
        return [value for _, value in kinds], np.array(places, dtype=np.int64)
    found, of = np.unique(values, return_inverse=True)
    return found.tolist(), of.astype(np.int64)


def refined(group: NDArray[np.int64], by: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return numbers from 0 on for the groups that *group* (n) falls into where each is parted by *by* (n), from 0 on.

    >>> refined(np.array([0, 0, 1]), np.array([0, 1, 1]))
    array([0, 1, 2])
    """
    return np.unique(group * (int(by.max(initial=0)) + 1) + by, return_inverse=True)[1]
