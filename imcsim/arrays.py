"""Numbers of one chip, or arrays of them with one element for each variant of it: what formulas need beside + - * /."""

from functools import reduce
from typing import Any

import numpy as np


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
