"""Monte Carlo over the thresholds of all cells: how often a count of discharging cells is misread.

References lie midway between neighbouring nominal states; a count is read as the number of references that the bitline
lies below (each comparator may have an offset). Misreads are rare, so they are estimated three ways:

    counted    misreads among plain samples
    fitted     a normal tail with the mean and the standard deviation of the plain samples
    weighted   importance sampling: all thresholds (and the offset) are drawn around the likeliest misread, and every
               sample is weighted by how much likelier it was made; unbiased, with a standard error of a few percent
               however rare the misread

Samples are drawn in blocks of fixed size, each from a generator of its own (seed, count, kind, block): the result does
not depend on the number of threads, and the first samples of a longer run are those of a shorter one.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr

from imcsim.arch.spec import Circuit
from imcsim.circuit.bitline import Array, discharged, operating_threshold, states
from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError
from imcsim.records import Record

BLOCK = 8192
"""Samples that share a generator."""

DISTANCES = np.arange(0.0, 40.0, 0.125)
"""Where the likeliest misread is sought, in standard deviations; how finely changes no expected value."""

PLAIN, LOWER, HIGHER = 0, 1, 2
"""Kinds of samples: as they come, drawn towards a lower reading, towards a higher one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sensing(Record):
    """What Monte Carlo found of a bitline and its comparators."""

    states_V: Array
    """Nominal voltages (n), n = 0 .. n_cells."""

    references_V: Array
    """References (m): m = 0 tells count 1 from count 0."""

    mean_V: Array
    """Mean of the samples of each state (n)."""

    sd_V: Array
    counted: ErrorTable
    fitted: ErrorTable
    weighted: ErrorTable
    n_far: Array
    """Plain samples of each state that were read wrong by more than one (n)."""

    @property
    def table(self) -> ErrorTable:
        """The estimate to use."""
        return self.weighted

    def deviation(self) -> float | None:
        """Return the greatest difference of counted and weighted probabilities, in standard errors.

        Only probabilities that promise at least ten counted misreads are looked at: others have no normal error.
        None where there is none.
        """
        found: list[float] = []
        for side in ("lower", "higher"):
            p, error = getattr(self.weighted, side), getattr(self.weighted, f"{side}_error")
            n = self.counted.n_samples
            z = (getattr(self.counted, side) - p) / np.sqrt(np.maximum(p * (1 - p), 1e-300) / n + error**2)
            found += np.abs(z[n * p >= 10]).tolist()
        return max(found, default=None)


def midway(states_V: ArrayLike) -> Array:
    """Return references midway between neighbouring states.

    >>> midway([1.0, 0.9, 0.7])
    array([0.95, 0.8 ])
    """
    states_V = np.asarray(states_V, dtype=float)
    return (states_V[:-1] + states_V[1:]) / 2


def sense(
    circuit: Circuit,
    *,
    n_cells: int = 16,
    n_samples: int = 100_000,
    n_weighted: int = 20_000,
    seed: int = 0,
    references_V: ArrayLike | None = None,
    n_threads: int = 1,
) -> Sensing:
    """Return how often each count 0 .. n_cells is misread.

    Args:
        circuit: The bitline, its cells and its comparators.
        n_cells: Cells of a block (L).
        n_samples: Plain samples of each count.
        n_weighted: Weighted samples of each count towards a lower reading, and towards a higher one.
        seed: Seed of every generator.
        references_V: References of the comparators, falling; midway between the nominal states by default. Those of
            another temperature show what becomes of references that do not follow it.
        n_threads: Threads; they change no number.
    """
    _check(n_cells, n_samples, seed, n_threads)
    _check(n_cells, n_weighted, seed, n_threads)
    states_V = states(circuit, n_cells)
    references = _references(states_V, references_V)
    n_of_kind = {PLAIN: n_samples, LOWER: n_weighted, HIGHER: n_weighted}
    tallies = _tallies(circuit, references, states_V, range(n_cells + 1), n_of_kind, seed, n_threads)
    plain = [tallies[n, PLAIN] for n in range(n_cells + 1)]
    mean_V = states_V + np.array([tally.shift_sum for tally in plain]) / n_samples
    mean_square = np.array([tally.square_sum for tally in plain]) / n_samples
    sd_V = np.sqrt(np.maximum(mean_square - (mean_V - states_V) ** 2, 0.0))
    return Sensing(
        states_V=states_V,
        references_V=references,
        mean_V=mean_V,
        sd_V=sd_V,
        counted=_counted(plain, n_samples, seed),
        fitted=_fitted(mean_V, sd_V, references, circuit.comparator.offset_V, n_samples, seed),
        weighted=_weighted(tallies, n_cells, n_weighted, seed),
        n_far=np.array([tally.n_far for tally in plain]),
    )


def weighted_table(
    circuit: Circuit, *, n_cells: int = 16, count_max: int | None = None, n_samples: int = 10_000, seed: int = 0
) -> ErrorTable:
    """Return the table by importance sampling alone; counts above *count_max* are not sampled and read right."""
    _check(n_cells, n_samples, seed, 1)
    states_V = states(circuit, n_cells)
    counts = range(min(n_cells, n_cells if count_max is None else count_max) + 1)
    tallies = _tallies(circuit, midway(states_V), states_V, counts, {LOWER: n_samples, HIGHER: n_samples}, seed, 1)
    table = _weighted(tallies, n_cells, n_samples, seed)
    return table if count_max is None else table.clipped(count_max)


def sample_voltages(circuit: Circuit, n: int, *, n_cells: int = 16, n_samples: int = 10_000, seed: int = 0) -> Array:
    """Return bitline voltages of *n* discharging cells (b): the first plain samples that `sense` draws."""
    parts = []
    for block, size in _blocks(n_samples):
        rng = _generator(seed, n, PLAIN, block)
        parts.append(discharged(circuit, _thresholds(circuit, rng.standard_normal((size, n))), n_cells=n_cells))
    return np.concatenate(parts)


# Sampling


@dataclass(frozen=True)
class Tally:
    """Sums over the samples of one count and kind."""

    lower: float = 0.0
    """Sum of the weights of samples read too low."""

    higher: float = 0.0
    lower_square: float = 0.0
    """Sum of their squared weights."""

    higher_square: float = 0.0
    n_far: int = 0
    shift_sum: float = 0.0
    """Sum of the voltages less the nominal one."""

    square_sum: float = 0.0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            lower=self.lower + other.lower,
            higher=self.higher + other.higher,
            lower_square=self.lower_square + other.lower_square,
            higher_square=self.higher_square + other.higher_square,
            n_far=self.n_far + other.n_far,
            shift_sum=self.shift_sum + other.shift_sum,
            square_sum=self.square_sum + other.square_sum,
        )


def _tallies(
    circuit: Circuit,
    references: Array,
    states_V: Array,
    counts: Sequence[int],
    n_of_kind: dict[int, int],
    seed: int,
    n_threads: int,
) -> dict[tuple[int, int], Tally]:
    """Sample every count and kind, and add up the blocks in their order."""
    jobs = [(n, kind) for n in counts for kind in n_of_kind]
    tilts = {(n, kind): _tilt(circuit, references, len(states_V) - 1, n, kind) for n, kind in jobs}
    parts = [(n, kind, block, size) for n, kind in jobs for block, size in _blocks(n_of_kind[kind])]

    def sample(part: tuple[int, int, int, int]) -> Tally:
        n, kind, block, size = part
        rng = _generator(seed, n, kind, block)
        return _sampled(circuit, references, states_V, n, kind, tilts[n, kind], rng, size)

    totals = dict.fromkeys(jobs, Tally())
    with ThreadPoolExecutor(n_threads) as pool:
        for (n, kind, _, _), tally in zip(parts, pool.map(sample, parts), strict=True):
            totals[n, kind] += tally
    return totals


def _sampled(
    circuit: Circuit,
    references: Array,
    states_V: Array,
    n: int,
    kind: int,
    tilt: tuple[float, float],
    rng: np.random.Generator,
    size: int,
) -> Tally:
    """Draw *size* samples of *n* discharging cells and read them."""
    cell_shift, offset_shift = tilt
    deviates = rng.standard_normal((size, n))
    log_weight = np.zeros(size)
    if cell_shift:
        deviates += cell_shift
        log_weight -= cell_shift * deviates.sum(axis=1) - 0.5 * n * cell_shift**2
    voltage = discharged(circuit, _thresholds(circuit, deviates), n_cells=len(states_V) - 1)
    if circuit.comparator.offset_V:
        offsets = rng.standard_normal((size, len(references)))
        if offset_shift:
            towards = offsets[:, _reference_index(n, kind)]
            towards += offset_shift
            log_weight -= offset_shift * towards - 0.5 * offset_shift**2
        read = (voltage[:, None] < references + circuit.comparator.offset_V * offsets).sum(axis=1)
    else:
        read = len(references) - np.searchsorted(references[::-1], voltage, side="right")
    lower, higher = read < n, read > n
    weight = np.exp(log_weight)
    shift = voltage - states_V[n]
    return Tally(
        lower=float(weight[lower].sum()),
        higher=float(weight[higher].sum()),
        lower_square=float((weight[lower] ** 2).sum()),
        higher_square=float((weight[higher] ** 2).sum()),
        n_far=int((np.abs(read - n) > 1).sum()),
        shift_sum=float(shift.sum()),
        square_sum=float((shift**2).sum()),
    )


def _tilt(circuit: Circuit, references: Array, n_cells: int, n: int, kind: int) -> tuple[float, float]:
    """Return where the likeliest misread lies, in standard deviations: of each threshold, and of the offset.

    It is sought on the line along which the voltage less the reference changes fastest, all cells alike.
    """
    index = _reference_index(n, kind)
    if kind == PLAIN or not 0 <= index < len(references):
        return 0.0, 0.0
    offset_V = circuit.comparator.offset_V
    low_V, high_V = _voltages_at(circuit, n, n_cells, np.array([-0.5, 0.5]))
    cell_V = float(high_V - low_V) / max(n, 1)  # a standard deviation of one cell
    spread_V = float(np.hypot(np.sqrt(n) * cell_V, offset_V))
    if spread_V == 0:
        return 0.0, 0.0
    sign = 1.0 if kind == LOWER else -1.0  # a higher voltage is a lower reading
    cell, offset = sign * cell_V / spread_V, -sign * offset_V / spread_V
    above = _voltages_at(circuit, n, n_cells, DISTANCES * cell) - references[index] - DISTANCES * offset * offset_V
    beyond = np.flatnonzero(sign * above >= 0)
    if not len(beyond) or beyond[0] == 0:  # never misread, or misread as it stands
        return 0.0, 0.0
    distance = float(DISTANCES[beyond[0]])
    return distance * cell, distance * offset


def _voltages_at(circuit: Circuit, n: int, n_cells: int, deviates: Array) -> Array:
    """Return the voltages when all *n* cells lie as many standard deviations off the mean as *deviates* (b) says."""
    return discharged(circuit, _thresholds(circuit, np.repeat(deviates[:, None], n, axis=1)), n_cells=n_cells)


def _thresholds(circuit: Circuit, deviates: Array) -> Array:
    """Return thresholds from standard normal deviates; their standard deviation does not follow the temperature."""
    return operating_threshold(circuit) + circuit.path.threshold_V * circuit.variation.threshold_fraction * deviates


def _reference_index(n: int, kind: int) -> int:
    """Return the index of the reference on the wrong side of which *n* is misread."""
    return n - 1 if kind == LOWER else n


def _generator(seed: int, n: int, kind: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(n, kind, block))))


def _blocks(n_samples: int) -> Iterator[tuple[int, int]]:
    """Yield number and size of each block."""
    for block, start in enumerate(range(0, n_samples, BLOCK)):
        yield block, min(BLOCK, n_samples - start)


# From sums to tables


def _counted(plain: Sequence[Tally], n_samples: int, seed: int) -> ErrorTable:
    lower = np.array([tally.lower for tally in plain]) / n_samples
    higher = np.array([tally.higher for tally in plain]) / n_samples
    return ErrorTable(
        lower=lower, higher=higher,
        lower_error=np.sqrt(lower * (1 - lower) / n_samples), higher_error=np.sqrt(higher * (1 - higher) / n_samples),
        n_samples=n_samples, seed=seed, source="counted misreads",
    )  # fmt: skip


def _fitted(mean_V: Array, sd_V: Array, references: Array, offset_V: float, n_samples: int, seed: int) -> ErrorTable:
    spread = np.hypot(sd_V, offset_V)
    above, below = np.append(np.inf, references), np.append(references, -np.inf)
    lower, lower_error = _normal_tail(above - mean_V, spread, n_samples)
    higher, higher_error = _normal_tail(mean_V - below, spread, n_samples)
    return ErrorTable(lower=lower, higher=higher, lower_error=lower_error, higher_error=higher_error,
                      n_samples=n_samples, seed=seed, source="normal tails")  # fmt: skip


def _normal_tail(room: Array, spread: Array, n_samples: int) -> tuple[Array, Array]:
    """Return the probability that a normal deviate exceeds *room*, and its error from those of mean and spread."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(np.isinf(room), np.inf, np.where(spread > 0, room / spread, np.copysign(np.inf, room)))
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        error = np.where(np.isfinite(z), density * np.sqrt((1 + 0.5 * z**2) / n_samples), 0.0)
    return ndtr(-z), error


def _weighted(tallies: dict[tuple[int, int], Tally], n_cells: int, n_samples: int, seed: int) -> ErrorTable:
    lower, lower_error = _means(tallies, LOWER, n_cells, n_samples, lambda t: (t.lower, t.lower_square))
    higher, higher_error = _means(tallies, HIGHER, n_cells, n_samples, lambda t: (t.higher, t.higher_square))
    lower, higher = np.minimum(lower, 1.0), np.minimum(higher, 1.0)
    return ErrorTable(lower=lower, higher=np.minimum(higher, 1 - lower), lower_error=lower_error,
                      higher_error=higher_error, n_samples=n_samples, seed=seed,
                      source="weighted misreads")  # fmt: skip


def _means(
    tallies: dict[tuple[int, int], Tally],
    kind: int,
    n_cells: int,
    n_samples: int,
    sums: Callable[[Tally], tuple[float, float]],
) -> tuple[Array, Array]:
    """Return mean and standard error of the weights of misreads, by count; 0 for counts that were not sampled."""
    pairs = np.array([sums(tallies.get((n, kind), Tally())) for n in range(n_cells + 1)])
    mean = pairs[:, 0] / n_samples
    return mean, np.sqrt(np.maximum(pairs[:, 1] / n_samples - mean**2, 0.0) / n_samples)


# Checks


def _references(states_V: Array, references_V: ArrayLike | None) -> Array:
    if references_V is None:
        return midway(states_V)
    references = np.array(references_V, dtype=float)
    if references.shape != (len(states_V) - 1,) or not (
        np.isfinite(references).all() and (np.diff(references) < 0).all()
    ):
        raise ConfigError(f"references_V: must be {len(states_V) - 1} falling voltages, got {references.tolist()}")
    return references


def _check(n_cells: int, n_samples: int, seed: int, n_threads: int) -> None:
    for name, value, least in (
        ("n_cells", n_cells, 1), ("n_samples", n_samples, 2), ("seed", seed, 0), ("n_threads", n_threads, 1),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigError(f"{name}: must be a whole number of at least {least}, got {value!r}")
