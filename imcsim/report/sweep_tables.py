"""What the figures of a sweep show, in numbers: fronts, the points that are drawn, densities, effects, heat maps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imcsim.report.sweep_axes import Axis, level_text, objective_axis
from imcsim.report.sweep_load import Codes, Floats, Parameter, SweepFolder

MOST_DRAWN = 20_000
"""Up to so many points are drawn one by one; of more, a sample and how many lie where."""

N_SAMPLE = 6_000
"""Points that are drawn beside the front where not all are."""

MOST_LEVELS = 12
"""A parameter with more values than that is cut into bins of equally many points."""

FEW = 4000
N_BINS = 10
N_CELLS = 60
"""Cells of a density along each axis."""

MOST_MAPPED = 6
"""Parameters of which any two can be mapped on the page: those that matter most."""


# Fronts


def step_front(x: Floats, y: Floats, x_max: bool, y_max: bool) -> NDArray[np.int64]:
    """Return the places of the points that no other is better than in both, from the best *x* to the worst.

    Of equal points the first stands for all; NaNs are no points.

    >>> step_front(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 4.0]), False, False).tolist()
    [0, 2]
    """
    at = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(at) > 4 * FEW:  # those that some of the points are better than in both need not be sorted
        some = at[:: len(at) // FEW]
        steps = some[step_front(x[some], y[some], x_max, y_max)]
        a, b = (-x[at] if x_max else x[at]), (-y[at] if y_max else y[at])
        below = np.searchsorted(-x[steps] if x_max else x[steps], a, side="left")
        at = at[b < np.array([np.inf, *(-y[steps] if y_max else y[steps])])[below]]
    a, b = (-x[at] if x_max else x[at]), (-y[at] if y_max else y[at])
    order = np.lexsort((at, b, a))
    best = np.minimum.accumulate(b[order])
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = b[order][1:] < best[:-1]
    return at[order][is_new]


@dataclass(frozen=True, eq=False)
class Drawn:
    """Which points are drawn one by one."""

    at: NDArray[np.int64]
    """Their places in the table, ascending."""

    n_points: int
    """Points that have figures."""

    n_front: int
    """Points on the front, of which `n_front_drawn` are drawn."""

    n_front_drawn: int

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return len(self.at) == self.n_points

    @property
    def words(self) -> str:
        """How many of how many."""
        if self.is_all:
            return f"All {self.n_points:,} points with figures are drawn."
        front = (
            f"all {self.n_front:,} of the front"
            if self.n_front_drawn == self.n_front
            else f"{self.n_front_drawn:,} of the {self.n_front:,} of the front"
        )
        return (
            f"{len(self.at):,} of {self.n_points:,} points with figures are drawn one by one: {front}, the best and "
            "the worst of every objective, and a sample of the others, the same each time; grey cells say how many "
            "points lie where, all of them."
        )


def drawn_points(sweep: SweepFolder) -> Drawn:
    """Return the points that are drawn: all, or fronts, extremes and a sample."""
    figures = np.array(sweep.objectives).reshape(len(sweep.objectives), len(sweep.frame))
    there = np.flatnonzero(np.isfinite(figures).any(axis=0)) if len(figures) else np.arange(0)
    front = np.flatnonzero(sweep.on_front)
    if len(there) <= MOST_DRAWN:
        return Drawn(there, len(there), len(front), len(np.intersect1d(front, there)))
    rng = np.random.default_rng(0)
    kept = front if len(front) <= MOST_DRAWN else np.sort(rng.choice(front, MOST_DRAWN, replace=False))
    wanted = [kept]
    for values in figures:
        if np.isfinite(values).any():
            wanted.append(np.array([np.nanargmin(values), np.nanargmax(values)]))
    for (i, a), (j, b) in combinations(enumerate(sweep.summary.objectives), 2):
        wanted.append(step_front(figures[i], figures[j], a.is_maximized, b.is_maximized)[:MOST_DRAWN])
    wanted.append(rng.choice(there, N_SAMPLE, replace=False))
    at = np.unique(np.concatenate(wanted))
    return Drawn(at, len(there), len(front), len(np.intersect1d(front, at)))


@dataclass(frozen=True, eq=False)
class Density:
    """How many points lie where, for two objectives."""

    x_edges: Floats
    y_edges: Floats
    counts: NDArray[np.int64]
    """By y, then by x."""


def density(x: Floats, y: Floats, x_axis: Axis, y_axis: Axis) -> Density:
    """Return how many points with both figures lie in each cell, in the units of the axes; even cells on each axis."""
    both = np.isfinite(x) & np.isfinite(y)
    edges = [_edges(axis.shown(values[both]), axis.is_log) for axis, values in ((x_axis, x), (y_axis, y))]
    counts, _, _ = np.histogram2d(x_axis.shown(x[both]), y_axis.shown(y[both]), bins=edges)
    return Density(edges[0], edges[1], counts.T.astype(np.int64))


def _edges(values: Floats, is_log: bool) -> Floats:
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low == high:
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    edges = np.geomspace(low, high, N_CELLS + 1) if is_log else np.linspace(low, high, N_CELLS + 1)
    edges[0], edges[-1] = low, high  # so that rounding leaves none outside
    return edges


# Levels


@dataclass(frozen=True, eq=False)
class Levels:
    """A parameter in few steps: its values, or bins of them."""

    name: str
    codes: Codes
    """Which step each point has (n); the last one, where there is such, for points without the parameter."""

    texts: tuple[str, ...]
    has_absent: bool
    is_binned: bool

    def __len__(self) -> int:
        return len(self.texts)


def levels_of(parameter: Parameter) -> Levels:
    """Return the values of *parameter*, or, of many, bins with equally many points each."""
    codes, absent = parameter.codes, parameter.codes < 0
    if parameter.n_levels <= MOST_LEVELS or parameter.kind != "number":
        kept, texts, is_binned = codes, [level_text(level) for level in parameter.levels], False
        if len(texts) > 10 * MOST_LEVELS:  # texts without end: the most frequent, and the rest together
            n_of = np.bincount(codes[~absent], minlength=len(texts))
            often = np.sort(np.argsort(-n_of, kind="stable")[: MOST_LEVELS - 1])
            place = np.full(len(texts), len(often))
            place[often] = np.arange(len(often))
            kept, texts = np.where(absent, -1, place[codes]), [*(texts[i] for i in often), "others"]
    else:
        is_binned, levels = True, parameter.different.astype(float)
        places = np.cumsum(np.bincount(codes[~absent], minlength=len(levels)))
        of_level = np.minimum(N_BINS - 1, ((places - 1) * N_BINS) // max(1, places[-1]))
        _, of_level = np.unique(of_level, return_inverse=True)
        kept = np.where(absent, -1, of_level[codes])
        texts = [_span(levels[of_level == i]) for i in range(int(of_level.max()) + 1)]
    if absent.any():
        kept, texts = np.where(absent, len(texts), kept), [*texts, "not there"]
    return Levels(parameter.name, kept.astype(np.int64), tuple(texts), bool(absent.any()), is_binned)


def _span(values: Floats) -> str:
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} to {high}"


def is_full_grid(levels: Sequence[Levels], n: int) -> bool:
    """Whether *n* points are every combination of the values of *levels*, each once."""
    if any(each.is_binned or each.has_absent for each in levels):
        return False
    if n != np.prod([len(each) for each in levels], dtype=float):
        return False
    place = np.zeros(n, dtype=np.int64)
    for each in levels:
        place = place * len(each) + each.codes
    return len(np.unique(place)) == n


# Effects


@dataclass(frozen=True, eq=False)
class Effect:
    """What one parameter does to one objective."""

    parameter: str
    texts: tuple[str, ...]
    """Its values, or bins, that have points."""

    n_points: tuple[int, ...]
    means: tuple[float, ...]
    """Mean of the objective at each, the other parameters averaged."""

    share: float
    """Of the objective's variance."""

    @property
    def low(self) -> float:
        """The least mean."""
        return min(self.means)

    @property
    def high(self) -> float:
        """The greatest mean."""
        return max(self.means)

    @property
    def low_text(self) -> str:
        """Where the mean is least."""
        return self.texts[self.means.index(self.low)]

    @property
    def high_text(self) -> str:
        """Where it is greatest."""
        return self.texts[self.means.index(self.high)]


@dataclass(frozen=True, eq=False)
class Effects:
    """What each parameter does to one objective, the strongest first."""

    objective: Axis
    mean: float
    n_points: int
    explained: float
    """Share of the variance that the parameters explain one by one; the rest is of several together, or chance."""

    is_exact: bool
    """Whether the points are a full grid, so that means are plain means."""

    effects: tuple[Effect, ...]


def effects_of(levels: Sequence[Levels], axis: Axis, values: Floats) -> Effects | None:
    """Return what each parameter does to an objective; None where nothing varies.

    The sum of a constant and one number a value of each parameter that comes nearest to the objective (least squares).
    For a full grid these numbers are the means over all other parameters; for samples, and grids with holes, they are
    means with the others' influence taken off.
    """
    at = np.flatnonzero(np.isfinite(values))
    y = values[at]
    codes = [each.codes[at] for each in levels]
    varying = [i for i, each in enumerate(codes) if len(each) and (each != each[0]).any()]
    if not varying or len(y) < 2:
        return None
    mean, variance = float(y.mean()), float(y.var())
    sizes = [len(levels[i]) for i in varying]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    normal, right = np.zeros((starts[-1], starts[-1])), np.zeros(starts[-1])
    for p, i in enumerate(varying):
        here = slice(starts[p], starts[p + 1])
        right[here] = np.bincount(codes[i], weights=y - mean, minlength=sizes[p])
        for q, j in enumerate(varying[: p + 1]):
            there = slice(starts[q], starts[q + 1])
            together = np.bincount(codes[i] * sizes[q] + codes[j], minlength=sizes[p] * sizes[q])
            normal[here, there] = together.reshape(sizes[p], sizes[q])
            normal[there, here] = normal[here, there].T
    fitted = np.linalg.lstsq(normal, right, rcond=1e-10)[0]
    # The last digits depend on how LAPACK shares out the work, and a page must not.
    digit = 10.0 ** (np.floor(np.log10(np.abs(y).max(initial=0.0) or 1.0)) - 10)
    fitted = np.round(fitted / digit) * digit
    found, predicted = [], np.full(len(y), mean)
    for p, i in enumerate(varying):
        n_of = np.bincount(codes[i], minlength=sizes[p])
        part = fitted[starts[p] : starts[p + 1]]
        part = part - np.average(part, weights=n_of)
        predicted += part[codes[i]]
        share = float(np.average(part**2, weights=n_of)) / variance if variance else 0.0
        shown = [k for k in range(sizes[p]) if n_of[k] and not (levels[i].has_absent and k == sizes[p] - 1)]
        if len(shown) > 1 or (shown and levels[i].has_absent):
            found.append(Effect(levels[i].name, tuple(levels[i].texts[k] for k in shown),
                                tuple(int(n_of[k]) for k in shown), tuple(mean + float(part[k]) for k in shown),
                                share))  # fmt: skip
    explained = 1 - float(((y - predicted) ** 2).mean()) / variance if variance else 0.0
    exact = is_full_grid([levels[i] for i in varying], len(y)) if len(y) == len(values) else False
    order = sorted(found, key=lambda effect: effect.low - effect.high)
    return Effects(axis, mean, len(y), explained, exact, tuple(order))


def ranking(effects: Sequence[Effects], parameters: Sequence[Parameter]) -> list[str]:
    """Return the parameters that have several values, the one that matters most first: by shares of variance, summed.

    Those that the effects do not tell apart stay in their order.
    """
    weight: Counter[str] = Counter()
    for each in effects:
        for effect in each.effects:
            weight[effect.parameter] += effect.share  # type: ignore[assignment]
    several = [parameter.name for parameter in parameters if parameter.n_levels > 1]
    return sorted(several, key=lambda name: (-round(weight[name], 9), several.index(name)))


# Heat maps


@dataclass(frozen=True, eq=False)
class HeatMap:
    """One objective over two parameters."""

    x: Levels
    y: Levels
    best: Floats
    """Best over all points with both values, by y, then by x; NaN where there is none."""

    mean: Floats
    counts: NDArray[np.int64]


def heat_map(x: Levels, y: Levels, values: Floats, is_maximized: bool) -> HeatMap:
    """Return best and mean of an objective for each pair of values."""
    at = np.flatnonzero(np.isfinite(values))
    if len(at) == len(values):
        at = slice(None)  # type: ignore[assignment]
    place = y.codes[at] * len(x) + x.codes[at]
    n, shape = len(x) * len(y), (len(y), len(x))
    counts = np.bincount(place, minlength=n)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=values[at], minlength=n) / counts
    best = np.full(n, -np.inf if is_maximized else np.inf)
    (np.maximum if is_maximized else np.minimum).at(best, place, values[at])
    best[counts == 0] = np.nan
    return HeatMap(x, y, best.reshape(shape), mean.reshape(shape), counts.reshape(shape))


# All of it


@dataclass(frozen=True, eq=False)
class Findings:
    """What is drawn and told of a sweep, worked out once."""

    sweep: SweepFolder
    axes: tuple[Axis, ...]
    """Of the objectives."""

    drawn: Drawn
    levels: dict[str, Levels]
    effects: tuple[Effects, ...]
    ranked: tuple[str, ...]
    """Parameters with several values, the one that matters most first."""

    pair: tuple[int, int] | None
    """The two objectives that are drawn against each other: energy and accuracy where there are both."""

    @cached_property
    def pair_front(self) -> NDArray[np.int64]:
        """The places of the points that no other is better than in both objectives drawn, by the first of them."""
        assert self.pair is not None
        i, j = self.pair
        figures, objectives = self.sweep.objectives, self.sweep.summary.objectives
        return step_front(figures[i], figures[j], objectives[i].is_maximized, objectives[j].is_maximized)

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which points have all that was asked for (n)."""
        return (self.sweep.frame["status"] == "done").to_numpy(dtype=bool)


def findings_of(sweep: SweepFolder) -> Findings:
    """Return what is to be drawn and told of *sweep*."""
    pairs = zip(sweep.summary.objectives, sweep.objectives, strict=True)
    axes = tuple(objective_axis(objective, values) for objective, values in pairs)
    levels = {parameter.name: levels_of(parameter) for parameter in sweep.parameters}
    found = [effects_of(list(levels.values()), axis, values)
             for axis, values in zip(axes, sweep.objectives, strict=True)]  # fmt: skip
    effects = tuple(each for each in found if each is not None)
    ranked = tuple(ranking(effects, sweep.parameters))
    return Findings(sweep, axes, drawn_points(sweep), levels, effects, ranked, _pair(sweep))


def _pair(sweep: SweepFolder) -> tuple[int, int] | None:
    objectives = sweep.summary.objectives
    if len(objectives) < 2:
        return None
    figures = [objective.figure for objective in objectives]
    if "energy_pJ" in figures and "accuracy" in figures:
        return figures.index("energy_pJ"), figures.index("accuracy")
    return 0, 1


def counts_by_status(frame: pd.DataFrame) -> dict[str, int]:
    """Return how many points have each status, of those that some have."""
    from imcsim.report.sweep_load import STATUSES

    counted = frame["status"].value_counts()
    return {status: int(counted[status]) for status in STATUSES if status in counted.index}


def failures(frame: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    """Return the messages of points, the most frequent first: status, message, how many have it, the first of them."""
    told = frame[frame["message"].notna() & (frame["message"].astype(object) != "")]
    if not len(told):
        return []
    grouped = told.groupby([told["status"].astype(str), told["message"].astype(str)])["point"].agg(["size", "min"])
    rows: list[Any] = [(status, message, int(n), int(first))
                       for (status, message), n, first in zip(grouped.index, grouped["size"], grouped["min"],
                                                              strict=True)]  # fmt: skip
    return sorted(rows, key=lambda row: (-row[2], row[3]))
