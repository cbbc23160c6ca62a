"""Intervals of what was counted: how sure an accuracy is, and a difference of two on the same samples."""

from math import copysign, sqrt

Interval = tuple[float, float]
"""(low, high)"""

WILSON = "95 % Wilson score interval"
"""Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927."""

TANGO = "95 % Tango score interval, paired"
"""Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
Statistics in Medicine 1998."""


def wilson_interval(n_right: int, n: int) -> Interval:
    """Return the 95 % Wilson score interval of the share *n_right* of *n* (binomial).

    Unlike the normal interval it stays within 0 and 1, and says something when every sample is right.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest  # slow to load

    interval = binomtest(n_right, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def paired_interval(n_better: int, n_worse: int, n: int) -> Interval:
    """Return the 95 % Tango score interval of ``(n_better - n_worse) / n``, where both judged the same *n* samples.

    Samples on which both agree tell the interval nothing but their number, so it is much narrower than two intervals
    side by side. It inverts the score test: a difference is within where the discordant pairs lie no more than 1.96
    standard errors from it, the other probability being the likeliest under that difference.

    >>> low, high = paired_interval(6, 16, 161)
    >>> round(low, 4), round(high, 4)
    (-0.124, -0.0054)
    """
    if n == 0:
        return -1.0, 1.0
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = float(norm.ppf(0.975))
    found = (n_better - n_worse) / n

    def distance(difference: float) -> float:
        """Return the score statistic of *difference*; it falls as the difference grows, from above z to below -z."""
        b = (2 * n - n_better + n_worse) * difference - n_better - n_worse
        c = -n_worse * difference * (1 - difference)
        worse = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)  # likeliest probability of a worse sample
        variance = n * (2 * worse + difference * (1 - difference))
        gap = n_better - n_worse - n * difference
        if variance > 0:
            return gap / sqrt(variance)
        return copysign(1e300, gap) if gap else 0.0  # as far as can be, yet finite for the root finder

    low = -1.0 if found == -1 else brentq(lambda d: distance(d) - z, -1.0, found, xtol=1e-12)
    high = 1.0 if found == 1 else brentq(lambda d: distance(d) + z, found, 1.0, xtol=1e-12)
    return float(low), float(high)
