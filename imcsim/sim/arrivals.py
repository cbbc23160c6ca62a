"""When requests arrive: at random, evenly, or as a file says. Times in ns, ascending from 0 or later."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imcsim.errors import ConfigError, DataError

MOST_REQUESTS = 1_000_000

NS_PER_S = 1e9


def poisson(rate_per_s: float, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return *n* arrivals (n) at random, *rate_per_s* of them a second on average: gaps are exponential."""
    return np.cumsum(rng.exponential(NS_PER_S / rate_per_s, n))


def every(gap_ns: float, n: int) -> np.ndarray:
    """Return *n* arrivals (n), one each *gap_ns*, the first at 0; with a gap of 0 all at once."""
    return gap_ns * np.arange(n)


def parse_arrivals(text: str, n: int | None, seed: int = 0) -> np.ndarray:
    """Return the arrivals (n) that *text* says: ``poisson:RATE`` (a second), ``every:NS``, or the path of a CSV file.

    Without *n* the whole file. Raises ConfigError for what cannot be, DataError for a file that is broken.
    """
    if n is not None and not 1 <= n <= MOST_REQUESTS:
        raise ConfigError(f"requests: must be from 1 to {MOST_REQUESTS}, got {n}")
    law, colon, value = text.partition(":")
    if not colon or law not in ("poisson", "every"):
        found = read_arrivals(text)
        if n is not None and n > len(found):
            raise ConfigError(f"requests: must be at most the {len(found)} arrivals of {text}, got {n}")
        return found[:n]
    if n is None:
        raise ConfigError(f"requests: must say how many arrive by {text}, got nothing; give --requests N")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    least = "more than 0 requests a second" if law == "poisson" else "a time in ns from 0"
    if not math.isfinite(number) or number < 0 or (law == "poisson" and number == 0):
        raise ConfigError(f"arrivals: {law}: must be {least}, got {value!r}")
    return poisson(number, n, np.random.default_rng(seed)) if law == "poisson" else every(number, n)


def read_arrivals(path: str | Path) -> np.ndarray:
    """Return the arrivals of a CSV file: one time in ns a line, or a column ``arrival_ns``, ascending.

    Raises DataError, naming the line, for anything else.
    """
    try:
        lines = list(csv.reader(io.StringIO(Path(path).read_bytes().decode("utf-8-sig"))))
    except OSError as error:
        raise DataError(
            f"{path}: must be a file of arrival times, got {error.strerror or error}; "
            "or write poisson:RATE (a second) or every:NS"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: must be CSV text, got {error}") from None
    column = 0
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line]
    if numbered and "arrival_ns" in numbered[0][1]:
        column = numbered[0][1].index("arrival_ns")
        numbered = numbered[1:]
    if not numbered:
        raise DataError(f"{path}: line {len(lines) + 1}: must have an arrival time in ns, got an empty file")
    times: list[float] = []
    for number, line in numbered:
        text = line[column] if column < len(line) else ""
        try:
            time = float(text)
        except ValueError:
            time = math.nan
        if not (math.isfinite(time) and time >= 0):
            raise DataError(f"{path}: line {number}: must be an arrival time in ns from 0, got {text!r}")
        if times and time < times[-1]:
            raise DataError(
                f"{path}: line {number}: must not be before the arrival on the line before ({times[-1]:g} ns), "
                f"got {time:g}"
            )
        times.append(time)
    return np.array(times)


def require_arrivals(arrivals_ns: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return *arrivals_ns* as an array (n); raises ConfigError unless they are finite, from 0, and ascending."""
    times = np.asarray(arrivals_ns, dtype=float)
    if times.ndim != 1 or not times.size:
        raise ConfigError(f"arrivals_ns: must be one time a request, got shape {times.shape}")
    wrong = np.flatnonzero(~(np.isfinite(times) & (times >= 0)) | np.r_[False, np.diff(times) < 0])
    if wrong.size:
        raise ConfigError(
            f"arrivals_ns: must be finite, from 0 and ascending, got {times[wrong[0]]:g} at place {wrong[0]}"
        )
    return times
