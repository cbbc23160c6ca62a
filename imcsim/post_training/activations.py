"""Activations to few levels: the clip range of a tensor, from what it holds for the calibration samples."""

import numpy as np

from imcsim.errors import ConfigError

Array = np.ndarray

MOST_NUMBERS = 1 << 17
"""So many numbers of a tensor, drawn once, tell its range."""

N_TRIED = 100
"""How many clip ranges are tried, in equal parts of the greatest number."""


def parse_range(text: str) -> tuple[str, float]:
    """Return the way to find clip ranges that *text* names, and its percentile; raises ConfigError for others.

    >>> parse_range("percentile:99.9"), parse_range("mse")
    (('percentile', 99.9), ('mse', 100.0))
    """
    name, _, number = text.partition(":")
    if name in ("mse", "max") and not number:
        return name, 100.0
    try:
        percentile = float(number)
    except ValueError:
        percentile = -1.0
    if name != "percentile" or not 0 < percentile <= 100:
        raise ConfigError(f"calibration: must be mse, max or percentile:P with P above 0 and up to 100, got {text!r}")
    return name, percentile


def scale_of(numbers: Array, top: int, way: str, rng: np.random.Generator) -> float:
    """Return what code 1 stands for, so that codes up to *top* (from 0, or from -top) are near *numbers*.

    *way*: mse tries ranges for the least squared error, max takes the greatest number, percentile:P the number that P
    of 100 do not exceed. Always a float32, above 0.
    """
    name, percentile = parse_range(way)
    sizes = np.abs(numbers.reshape(-1)).astype(np.float64)
    if sizes.size > MOST_NUMBERS:
        sizes = np.append(sizes[rng.choice(sizes.size, MOST_NUMBERS, replace=False)], sizes.max())
    greatest = float(sizes.max(initial=0.0)) if name != "percentile" else float(np.percentile(sizes, percentile))
    if greatest <= 0:
        greatest = float(sizes.max(initial=0.0)) or 1.0  # nearly all are 0
    scale = greatest / top
    if name == "mse":
        tried = (greatest / top * np.arange(1, N_TRIED + 1) / N_TRIED).astype(np.float32)
        tried = tried[tried > 0]
        errors = [np.square(sizes - each * np.clip(np.round(sizes / each), 0, top)).sum() for each in tried]
        scale = float(tried[int(np.argmin(errors))])
    return float(np.float32(max(scale, float(np.finfo(np.float32).tiny))))
