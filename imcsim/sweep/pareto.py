"""Which points of a sweep no other is better than, how the rest rank, and the volume that a front covers.

Values are arrays (n m), one row for each point and one column for each objective; *maximize* (m) says of which more is
better. A point dominates another if it is no worse in every objective and better in one. A point with a value that is
not finite (a failed one has NaN) takes no part: it is on no front, has no rank, covers nothing and dominates nobody.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcsim.errors import ConfigError
from imcsim.sweep.stages import Floats, Keep

Bools = NDArray[np.bool_]
Places = NDArray[np.int64]

UNRANKED = -1
"""Rank of a point that takes no part."""

MARGIN = 0.1
"""How much further than the worst value the reference point lies, as a share of the objective's range."""

BLOCK = 512
"""Points that are compared with each other at a time where there are more than three objectives."""


def front(values: ArrayLike, maximize: Sequence[bool]) -> Bools:
    """Return which points no other point dominates (n); of equal points all are on the front or none.

    >>> front([[1, 3], [2, 2], [2, 3], [1, 3]], [False, False]).tolist()
    [True, True, False, True]
    """
    losses, at = _losses(values, maximize)
    mask = np.zeros(len(np.asarray(values)), dtype=bool)
    if len(losses):
        unique, where = _unique(losses)
        mask[at] = _is_first(unique)[where]
    return mask


def ranks(values: ArrayLike, maximize: Sequence[bool], enough: int | None = None) -> Places:
    """Return the rank of each point (n): 0 on the front, 1 on the front of what remains without it, and so on.

    Once *enough* points have their rank, those that are left over may all get one that comes after all others.
    """
    losses, at = _losses(values, maximize)
    out = np.full(len(np.asarray(values)), UNRANKED, dtype=np.int64)
    if len(losses):
        unique, where = _unique(losses)
        out[at] = _ranks_of(unique, len(unique) if enough is None else min(enough, len(unique)))[where]
    return out


def crowding(values: ArrayLike, maximize: Sequence[bool], rank: Places) -> Floats:
    """Return how far each point's neighbours of the same rank lie from each other (n), summed over objectives.

    In units of the range that the rank covers; infinite at the ends of the range, 0 for points without a rank. Equal
    values stand in the order of their points.

    Source: Deb et al., A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Trans. Evol. Comput. 6(2),
    2002, section III B.
    """
    losses, at = _losses(values, maximize)
    distance = np.zeros(len(np.asarray(values)))
    if not len(losses):
        return distance
    groups = rank[at]
    total = np.zeros(len(losses))
    for column in losses.T:
        order = np.lexsort((column, groups))
        ordered, group = column[order], groups[order]
        is_start = np.r_[True, group[1:] != group[:-1]]
        is_end = np.r_[is_start[1:], True]
        width = (ordered[is_end] - ordered[is_start])[np.cumsum(is_start) - 1]
        gap = np.r_[ordered[1:], 0] - np.r_[0, ordered[:-1]]
        share = np.divide(gap, width, out=np.zeros_like(gap), where=width > 0)
        total[order] += np.where(is_start | is_end, np.inf, share)
    distance[at] = total
    return distance


def select(values: ArrayLike, maximize: Sequence[bool], keep: Keep) -> Places:
    """Return the places of the points that go on, in rising order.

    *keep* is a number of points, a share of all of them (below 1; at least one point), or "front". The best are those
    of the least rank; where a rank does not fit in whole, those of it with the greatest crowding distance, so that its
    whole range stays; what is equal even then goes by its place. Raises ConfigError for another *keep*.
    """
    if keep == "front":
        return np.flatnonzero(front(values, maximize))
    if isinstance(keep, str | bool) or not keep > 0 or (isinstance(keep, float) and keep >= 1):
        raise ConfigError(f"keep: must be a number from 1, a share between 0 and 1 or front, got {keep!r}")
    n = len(np.asarray(values))
    wanted = keep if isinstance(keep, int) else max(1, round(keep * n))
    rank = ranks(values, maximize, wanted)
    distance = crowding(values, maximize, rank)
    there = np.flatnonzero(rank != UNRANKED)
    best = there[np.lexsort((there, -distance[there], rank[there]))]
    return np.sort(best[:wanted])


def reference_point(values: ArrayLike, maximize: Sequence[bool], margin: float = MARGIN) -> Floats:
    """Return the point that a hypervolume is measured from (m): the worst value of each objective, and a bit further.

    The bit is *margin* times the range of the objective over all points with values, or of the value itself where all
    are equal; it makes points at the end of the front count. Volumes can be compared only from one reference point.
    Raises ConfigError where no point has values.
    """
    losses, _ = _losses(values, maximize)
    if not len(losses):
        raise ConfigError("hypervolume: needs a point with a value in every objective, got none")
    worst, best = losses.max(axis=0), losses.min(axis=0)
    width = np.where(worst > best, worst - best, np.where(worst != 0, np.abs(worst), 1.0))
    return _signs(maximize) * (worst + margin * width)


def hypervolume(values: ArrayLike, maximize: Sequence[bool], reference: ArrayLike) -> float:
    """Return the volume between *reference* (m) and the front: what some point is better than in every objective.

    Exact; its unit is the product of the objectives' units. A point that is not better than the reference in every
    objective adds nothing.

    >>> hypervolume([[1, 3], [2, 1]], [False, False], [4, 4])
    7.0
    """
    losses, corner = _inside(values, maximize, reference)
    return _volume(losses, corner)


def growth(values: ArrayLike, maximize: Sequence[bool], reference: ArrayLike) -> Floats:
    """Return the hypervolume of the first point, of the first two, and so on (n)."""
    corner = _corner(reference, maximize)
    losses = np.asarray(values, dtype=np.float64) * _signs(maximize)
    counts = np.isfinite(losses).all(axis=1) & (losses < corner).all(axis=1)
    added = np.zeros(len(losses))
    best = np.empty((0, len(corner)))
    for i in np.flatnonzero(counts):
        point = losses[i]
        if (best <= point).all(axis=1).any():
            continue
        added[i] = np.prod(corner - point) - _volume(np.maximum(best, point), corner)
        best = np.vstack([best[~(point <= best).all(axis=1)], point])
    return np.cumsum(added)


def _signs(maximize: Sequence[bool]) -> Floats:
    return np.where(np.asarray(maximize, dtype=bool), -1.0, 1.0)


def _losses(values: ArrayLike, maximize: Sequence[bool]) -> tuple[Floats, Places]:
    """Return the values of points that take part, less being better, and their places."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != len(maximize) or not len(maximize):
        raise ConfigError(f"values: must have a column for each of {len(maximize)} objectives, got shape {given.shape}")
    at = np.flatnonzero(np.isfinite(given).all(axis=1))
    return given[at] * _signs(maximize), at


def _unique(losses: Floats) -> tuple[Floats, Places]:
    """Return the distinct rows, sorted by their first column, then the second and so on, and where each row went.

    One column gets a second one of zeros, so that the rest need not know of it.
    """
    if losses.shape[1] == 1:
        losses = np.hstack([losses, np.zeros_like(losses)])
    # NOTE: np.unique(axis=0) does the same, ten times as slowly for a million rows.
    order = np.lexsort(losses.T[::-1])
    ordered = losses[order]
    is_new = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    where = np.empty(len(losses), dtype=np.int64)
    where[order] = np.cumsum(is_new) - 1
    return ordered[is_new], where


def _is_first(losses: Floats) -> Bools:
    """Return which of some distinct, sorted rows no other dominates."""
    if losses.shape[1] == 2:
        second = losses[:, 1]
        return np.r_[True, second[1:] < np.minimum.accumulate(second)[:-1]]
    if losses.shape[1] == 3:
        stairs = _Stairs()
        mask = np.zeros(len(losses), dtype=bool)
        for i, (second, third) in enumerate(zip(losses[:, 1].tolist(), losses[:, 2].tolist(), strict=True)):
            if not stairs.cover(second, third):
                stairs.add(second, third)
                mask[i] = True
        return mask
    mask = np.zeros(len(losses), dtype=bool)
    best = np.empty((0, losses.shape[1]))
    for start in range(0, len(losses), BLOCK):
        block = losses[start : start + BLOCK]
        left = np.flatnonzero(~_are_dominated(block, best))
        left = left[~_are_dominated(block[left], block[left])]
        mask[start + left] = True
        best = np.vstack([best, block[left]])
    return mask


def _are_dominated(losses: Floats, by: Floats) -> Bools:
    """Return which rows some other row of *by* is no worse than in every column; rows of both are distinct."""
    mask = np.zeros(len(losses), dtype=bool)
    for start in range(0, len(by), BLOCK):
        some = by[start : start + BLOCK]
        no_worse = np.ones((len(losses), len(some)), dtype=bool)
        is_equal = np.ones((len(losses), len(some)), dtype=bool)
        for column in range(losses.shape[1]):
            mine, theirs = losses[:, column, None], some[None, :, column]
            no_worse &= theirs <= mine
            is_equal &= theirs == mine
        mask |= (no_worse & ~is_equal).any(axis=1)
    return mask


class _Stairs:
    """The front of pairs seen so far: the first numbers rise, the second ones fall."""

    def __init__(self) -> None:
        self.firsts: list[float] = []
        self.seconds: list[float] = []

    def cover(self, first: float, second: float) -> bool:
        """Whether a pair seen so far is no worse than this one in both."""
        at = bisect_right(self.firsts, first)
        return at > 0 and self.seconds[at - 1] <= second

    def add(self, first: float, second: float) -> None:
        """Take in a pair that is not covered, and drop those that it covers."""
        start = end = bisect_left(self.firsts, first)
        while end < len(self.seconds) and self.seconds[end] >= second:
            end += 1
        self.firsts[start:end] = [first]
        self.seconds[start:end] = [second]


def _is_open(first: float, second: float, stairs: _Stairs) -> bool:
    return not stairs.cover(first, second)


def _ranks_of(losses: Floats, enough: int) -> Places:
    """Return the ranks of distinct, sorted rows.

    Whoever dominates a row stands before it, and what dominates it on one front is itself dominated on the one before;
    so a row goes to the first front that does not dominate it, which bisection finds.
    """
    rank = np.zeros(len(losses), dtype=np.int64)
    if losses.shape[1] == 2:
        lasts: list[float] = []  # the least second value on each front; rises from front to front
        for i, second in enumerate(losses[:, 1].tolist()):
            at = bisect_right(lasts, second)
            lasts[at : at + 1] = [second]
            rank[i] = at
    elif losses.shape[1] == 3:
        fronts: list[_Stairs] = []
        for i, (second, third) in enumerate(zip(losses[:, 1].tolist(), losses[:, 2].tolist(), strict=True)):
            at = bisect_left(fronts, True, key=partial(_is_open, second, third))
            if at == len(fronts):
                fronts.append(_Stairs())
            fronts[at].add(second, third)
            rank[i] = at
    else:
        left = np.arange(len(losses))
        number = 0
        while len(left):
            is_first = _is_first(losses[left])
            rank[left] = number
            left = left[~is_first]
            number += 1
            if len(losses) - len(left) >= enough:
                rank[left] = number
                break
    return rank


def _corner(reference: ArrayLike, maximize: Sequence[bool]) -> Floats:
    corner: Any = np.asarray(reference, dtype=np.float64) * _signs(maximize)
    return corner


def _inside(values: ArrayLike, maximize: Sequence[bool], reference: ArrayLike) -> tuple[Floats, Floats]:
    losses, _ = _losses(values, maximize)
    corner = _corner(reference, maximize)
    return losses[(losses < corner).all(axis=1)], corner


def _volume(losses: Floats, corner: Floats) -> float:
    """Return the volume that rows, all within *corner*, cover up to it.

    With the rows sorted so that the last column falls, a row and those after it have in common what lies beyond its
    own last value: as thick for all. So what a row adds to those after it is that thickness times an area of one
    column less, and so on down to two columns.

    Source: While, Bradstreet and Barone, A fast way of calculating exact hypervolumes, IEEE Trans. Evol. Comput. 16(1),
    2012 (the exclusive volume of a point by a limit set), with the limit set one dimension lower.
    """
    if not len(losses):
        return 0.0
    if losses.shape[1] == 1:
        return float(corner[0] - losses.min())
    unique, _ = _unique(losses)
    best = unique[_is_first(unique)]
    if best.shape[1] == 2:
        widths = np.diff(np.r_[best[:, 0], corner[0]])
        return float(widths @ (corner[1] - best[:, 1]))
    best = best[np.argsort(-best[:, -1], kind="stable")]
    flat, rim = best[:, :-1], corner[:-1]
    areas = [np.prod(rim - flat[i]) - _volume(np.maximum(flat[i + 1 :], flat[i]), rim) for i in range(len(best))]
    return float((corner[-1] - best[:, -1]) @ np.array(areas))
