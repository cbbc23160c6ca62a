"""Where the axes of numbers lie: the digital side keeps channels, the first axis of a shape, behind all others."""

import numpy as np

Array = np.ndarray


def channels_last(numbers: Array) -> Array:
    """(b c ...) to (b ... c)."""
    return np.moveaxis(numbers, 1, -1) if numbers.ndim > 2 else numbers


def channels_first(numbers: Array) -> Array:
    """(b ... c) to (b c ...)."""
    return np.moveaxis(numbers, -1, 1) if numbers.ndim > 2 else numbers
