"""What one parameter of a sweep can be: one of some values, a number of a range, or one that a distribution gives."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcsim.arch.load import shown
from imcsim.errors import ConfigError
from imcsim.sweep.expressions import Expression, Kind
from imcsim.sweep.points import Column, Value

Floats = NDArray[np.float64]

SMALLEST = 2.0**-54
"""Shares are kept this far from 0 and 1, where a distribution without ends has no number."""


@dataclass(frozen=True)
class Choices:
    """One of some values; a range with steps is one of these, in ascending order."""

    values: tuple[Value, ...]

    def at(self, index: NDArray[Any]) -> Column:
        """Return the values at these places."""
        return column_of(self.values)[index]

    def from_unit(self, u: Floats) -> Column:
        """Return the values of shares (n) in 0 ... 1, each value with the same share."""
        return self.at(np.minimum((u * len(self.values)).astype(np.int64), len(self.values) - 1))


@dataclass(frozen=True)
class Range:
    """A number from low to high, both included."""

    low: float
    high: float
    is_log: bool = False
    """Whether ratios count, not differences."""

    is_whole: bool = False

    def from_unit(self, u: Floats) -> Column:
        """Return the numbers of shares (n) in 0 ... 1; every whole number has a share of the same width."""
        by = 0.5 if self.is_whole else 0.0
        low, high = self.low - by, self.high + by
        if self.is_log:
            drawn = np.exp(np.log(low) + u * (np.log(high) - np.log(low)))
        else:
            drawn = low + u * (high - low)
        if self.is_whole:
            return np.clip(np.floor(drawn + 0.5), self.low, self.high).astype(np.int64)
        return np.clip(drawn, self.low, self.high)


@dataclass(frozen=True)
class Distribution:
    """A random number; what lies outside of low ... high is cut off, and the rest makes up the whole."""

    kind: str
    """One of `DISTRIBUTIONS`."""

    numbers: tuple[float, ...]
    """What it needs, in the order of `DISTRIBUTIONS`."""

    low: float | None = None
    high: float | None = None
    is_whole: bool = False
    """Whether what is drawn is rounded."""

    def from_unit(self, u: Floats) -> Column:
        """Return the numbers below which the distribution has shares *u* (n) of 0 ... 1."""
        made, low, high, is_upper, below, above = _cut(self)
        share = np.clip(u, SMALLEST, 1 - 2 * SMALLEST)
        drawn = (made.isf if is_upper else made.ppf)(below + share * (above - below))
        drawn = np.clip(drawn, low, high)
        if self.is_whole:
            return np.clip(np.rint(drawn), np.ceil(low), np.floor(high)).astype(np.int64)
        return np.asarray(drawn, dtype=np.float64)

    @property
    def mass(self) -> float:
        """The share of the distribution that lies in low ... high."""
        made = DISTRIBUTIONS[self.kind].make(*self.numbers)
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return max(float(made.cdf(high) - made.cdf(low)), float(made.sf(low) - made.sf(high)))


@cache
def _cut(drawn: Distribution) -> tuple[Any, float, float, bool, float, float]:
    """Return scipy's distribution, its bounds, and the shares there; kept, since a search asks for number by number.

    In the upper tail shares are counted from above: they are the ones that tell numbers apart.
    """
    made = DISTRIBUTIONS[drawn.kind].make(*drawn.numbers)
    low = -np.inf if drawn.low is None else drawn.low
    high = np.inf if drawn.high is None else drawn.high
    is_upper = bool(made.cdf(low) > 0.5)
    share_of = made.sf if is_upper else made.cdf
    return made, low, high, is_upper, share_of(low), share_of(high)


Domain = Choices | Range | Distribution


@dataclass(frozen=True)
class Family:
    """A kind of distribution."""

    needs: tuple[str, ...]
    """The keys of its numbers."""

    make: Callable[..., Any]
    """From those numbers to a distribution of scipy."""


def _stats() -> Any:
    from scipy import stats  # takes long to load, and only some sweeps need it

    return stats


DISTRIBUTIONS = {
    "uniform": Family(("low", "high"), lambda low, high: _stats().uniform(low, high - low)),
    "log-uniform": Family(("low", "high"), lambda low, high: _stats().loguniform(low, high)),
    "normal": Family(("mean", "sd"), lambda mean, sd: _stats().norm(mean, sd)),
    "log-normal": Family(("median", "sigma"), lambda median, sigma: _stats().lognorm(sigma, scale=median)),
    "triangular": Family(
        ("low", "mode", "high"),
        lambda low, mode, high: _stats().triang((mode - low) / (high - low), loc=low, scale=high - low),
    ),
    "exponential": Family(("mean",), lambda mean: _stats().expon(scale=mean)),
}
"""Distributions by the names that users type; sigma is the standard deviation of the natural logarithm."""


@dataclass(frozen=True)
class Parameter:
    """One thing that a sweep varies."""

    name: str
    domain: Domain
    when: Expression | None = None
    """Points for which it does not hold do not have the parameter."""


def kind_of(values: tuple[Value, ...]) -> Kind:
    """Return of what kind the first of *values* is."""
    first = values[0]
    return "truth" if isinstance(first, bool) else "text" if isinstance(first, str) else "number"


def require_value(value: object) -> None:
    """Raise ConfigError unless *value* is one that a point can have."""
    if not isinstance(value, bool | int | float | str):
        raise ConfigError(f"must be a number, text, true or false, got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"must be finite, got {shown(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"must be less than 2**63, got {shown(value)}")


def column_of(values: ArrayLike) -> Column:
    """Return *values* of one kind as a column: int64, float64 where one of them is a float, bool, or object.

    >>> column_of((1, 2.5)), column_of((True, False)), column_of(("bit",))
    (array([1. , 2.5]), array([ True, False]), array(['bit'], dtype=object))
    """
    found = np.asarray(values)
    return np.asarray(values, dtype=object) if found.dtype.kind not in "bif" else found


def steps(low: float, high: float, *, step: float | None, n: int | None, is_log: bool) -> Floats:
    """Return the numbers of a range with a *step* (on a log scale a factor), or *n* of them, the ends included.

    >>> steps(0, 1, step=0.25, n=None, is_log=False), steps(1, 100, step=None, n=3, is_log=True)
    (array([0.  , 0.25, 0.5 , 0.75, 1.  ]), array([  1.,  10., 100.]))
    """
    if n is not None:
        found = np.geomspace(low, high, n) if is_log else np.linspace(low, high, n)
        return _tidy(found)
    assert step is not None
    n = n_steps(low, high, step, is_log=is_log)
    if is_log:
        return _tidy(low * np.power(float(step), np.arange(n)))
    digits = max(0, *(-int(Decimal(repr(number)).as_tuple().exponent) for number in (low, step)))
    return np.round(low + np.arange(n) * step, digits)


def n_steps(low: float, high: float, step: float, *, is_log: bool) -> int:
    """Return how many numbers a range with a *step* has."""
    spans = (math.log(high) - math.log(low)) / math.log(step) if is_log else (high - low) / step
    return math.floor(min(spans, 1e18) + 1e-9) + 1


def _tidy(numbers: Floats) -> Floats:
    """Return *numbers* with 12 digits: 128, not 127.99999999999997."""
    return np.array([float(f"{number:.12g}") for number in numbers.tolist()])
