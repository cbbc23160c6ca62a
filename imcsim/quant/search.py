"""Searches for thresholds: the best ternary weights of a row, and the ternary neuron that agrees most with a teacher.

Both are done once, when weights are prepared, and not while a network runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray


def best_ternary(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes in {-1, 0, +1} (g n) and scales (g), float64, with the least ``|rows - scale codes|^2``.

    ``scale = mean of |w| over the kept``, and those are kept that make ``(sum |w|)^2 / count`` greatest: the largest
    ones up to some number of them, found by trying all numbers. A row of zeros gets the scale 0.

    Thresholds of their own for positive and negative weights gain nothing at this optimum: with one scale for both
    the error depends on the magnitudes alone. Source: TWN, equation 5 and FGQ, equation 4 (as quantizers.md has them).
    """
    wide = rows.detach().double()
    sizes = wide.abs()
    ordered = sizes.sort(dim=1, descending=True).values
    counts = torch.arange(1, rows.shape[1] + 1, dtype=torch.float64)
    n_kept = (ordered.cumsum(dim=1).square() / counts).argmax(dim=1, keepdim=True)
    least = ordered.gather(1, n_kept)  # numbers of one size are kept or left out together
    kept = (sizes >= least) & (sizes > 0)
    scale = torch.where(kept, sizes, 0.0).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
    return torch.sign(wide) * kept, scale


@dataclass(frozen=True)
class Neuron:
    """A ternary neuron: codes of the weights by two thresholds, and a code of their sum by two whole numbers."""

    n_plus: int
    """How many of the largest weights above 0 become +1."""

    n_minus: int
    """How many of the least weights below 0 become -1."""

    low: int
    """Sums below it give -1."""

    high: int
    """Sums above it give +1."""

    is_inverted: bool
    """Whether -1 and +1 change places in the output."""

    agreement: float
    """Expected share of the samples on which it gives what its teacher does."""


def agreeing_neuron(weights: Array, inputs: Array, chances: Array, *, is_exhaustive: bool = False) -> Neuron:
    """Return the ternary neuron that agrees most with a teacher which fires at random.

    For each choice of how many weights become +1 and -1 the best thresholds of the sum, and the inversion, are found
    by trying all of them. Of the choices all are tried, or, as the authors' code does it for speed, a search by thirds
    along both, one within the other, and then all within twice the logarithm of their number around what it found.

    Args:
        weights: (k), real.
        inputs: (s q k), ternary codes: for each sample the q windows whose greatest sum counts (max pool), mostly 1.
        chances: (s 3): of the teacher's output to be -1, 0 and +1.
        is_exhaustive: Whether to try all choices.

    Source: Alemdar et al., "Ternary Neural Networks for Resource-Efficient AI Applications", IJCNN 2017, and the
    authors' tnn_convert (score AGREEMENT, search LogLog). Of equals the first that is found is taken.
    """
    order = np.argsort(-weights, kind="stable")
    plus = order[weights[order] > 0]
    minus = order[::-1][weights[order[::-1]] < 0]
    ends = _ends(weights[plus]), _ends(weights[minus])
    whole = inputs.astype(np.int32)
    above = _running_sums(whole, plus)[:, :, ends[0]]  # s q choices
    below = _running_sums(whole, minus)[:, :, ends[1]]
    most = weights.size + 1

    @cache
    def best(i: int, j: int) -> Neuron:
        sums = (above[:, :, i] - below[:, :, j]).max(axis=1)
        low, high, is_inverted, score = _best_limits(sums, chances, most)
        return Neuron(int(ends[0][i]), int(ends[1][j]), low, high, is_inverted, score / len(sums))

    limits = (len(ends[0]) - 1, len(ends[1]) - 1)
    if is_exhaustive:
        centre, reach = (0, 0), (limits[0], limits[1])
    else:
        at = _by_thirds(lambda i: best(i, _by_thirds(lambda j: best(i, j).agreement, limits[1])).agreement, limits[0])
        centre = (at, _by_thirds(lambda j: best(at, j).agreement, limits[1]))
        reach = tuple(int(2 * math.log(n + 1)) // 2 + 1 for n in limits)  # type: ignore[assignment]
    tried = [range(max(0, c - r), min(n, c + r) + 1) for c, r, n in zip(centre, reach, limits, strict=True)]
    return max((best(i, j) for i in tried[0] for j in tried[1]), key=lambda neuron: neuron.agreement)


def _ends(ordered: Array) -> Array:
    """Return after how many of the *ordered* weights a threshold can lie: none, or all that are alike."""
    changes = np.flatnonzero(np.diff(ordered)) + 1
    return np.unique(np.concatenate([[0], changes, [len(ordered)]])).astype(int)


def _running_sums(inputs: Array, order: Array) -> Array:
    """Return the sums of the first 0, 1, 2 ... inputs of *order*: (s q k) to (s q n + 1)."""
    sums = np.cumsum(inputs[:, :, order], axis=2, dtype=np.int32)
    return np.concatenate([np.zeros((*inputs.shape[:2], 1), np.int32), sums], axis=2)


def _best_limits(sums: Array, chances: Array, most: int) -> tuple[int, int, bool, float]:
    """Return low, high and inversion for the greatest expected agreement of *sums* (s) with *chances*, and that."""
    hit = np.stack([np.bincount(sums + most, weights=chances[:, i], minlength=2 * most + 1) for i in range(3)])
    found: tuple[int, int, bool, float] | None = None
    for is_inverted, (less, more) in ((False, (hit[0], hit[2])), (True, (hit[2], hit[0]))):
        # sum below low: less, above high: more, between: hit[1]; low from -most, high up to most, low <= high + 1
        gain_low = np.concatenate([[0.0], np.cumsum(less - hit[1])])  # of low = i - most
        gain_high = np.concatenate([np.cumsum((more - hit[1])[::-1])[::-1], [0.0]])  # of high = i - 1 - most
        before = np.maximum.accumulate(gain_low)
        at_high = int(np.argmax(before + gain_high))
        at_low = int(np.argmax(gain_low[: at_high + 1]))
        score = float(hit[1].sum() + gain_low[at_low] + gain_high[at_high])
        if found is None or score > found[3] + 1e-9:
            found = (at_low - most, at_high - 1 - most, is_inverted, score)
    assert found is not None
    return found


def _by_thirds(score: Callable[[int], float], last: int) -> int:
    """Return where *score* is greatest on 0 ... last, if it rises up to there and then falls."""
    first = 0
    while last - first > 2:
        third = (last - first) // 3
        left, right = first + third, last - third
        if score(left) > score(right):
            last = right - 1
        else:
            first = left + 1
    return max(range(first, last + 1), key=score)
