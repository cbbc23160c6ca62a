"""Float weights to few levels: the codes and the scale of each output that are nearest to its weights.

Ternary: the exact least of ``|w - scale codes|^2``, of which TWN's threshold of 0.7 E|w| is an estimate (Li et al.,
"Ternary Weight Networks", 2016, arXiv:1605.04711, equations 4 to 6): of the largest n weights, which are kept, that n
is taken for which ``(sum |w|)^2 / n`` is greatest. Binary: signs, and the mean of |w| (Rastegari et al., "XNOR-Net",
ECCV 2016, arXiv:1603.05279, equation 6). k bits: whole numbers up to 2^(k-1) - 1 on both sides, and the scale by
search. With the correlations of the inputs at hand, rounding errors of one weight are made up for by those that are
rounded later: Frantar et al., "GPTQ", ICLR 2023, arXiv:2210.17323.
"""

from dataclasses import dataclass

import numpy as np
import torch

from imcsim.post_training.evaluate import product, tensor
from imcsim.quant.search import best_ternary

Array = np.ndarray

N_TRIED = 80
"""How many clip ranges of k-bit weights are tried for each output, in equal parts of the greatest weight; and then as
many again around the best one."""

N_REFINED = 20
"""How often codes and scale are then fitted to each other in turn, at most."""

DAMPING = 0.01
"""What is added to the squared size of each input, as a share of their mean: GPTQ's own."""


LEAST = 1e-12
"""Of that mean: inputs that never vary have no size."""


@dataclass(frozen=True)
class Levels:
    """What weights may be: -1 and +1, or whole numbers from ``-top`` to ``top``, times a scale."""

    bits: int
    is_binary: bool = False

    @property
    def top(self) -> int:
        """Greatest code."""
        return 1 if self.is_binary else (1 << (self.bits - 1)) - 1

    def __str__(self) -> str:
        return "binary" if self.is_binary else "ternary" if self.bits == 2 else f"{self.bits} bits"

    def codes(self, rows: Array, scales: Array) -> Array:
        """Return the codes that are nearest to *rows* (c n) with *scales* (c), float64."""
        if self.is_binary:
            return np.where(rows < 0, -1.0, 1.0)
        return np.clip(np.round(rows / scales[:, np.newaxis]), -self.top, self.top)


def nearest(rows: Array, levels: Levels) -> tuple[Array, Array]:
    """Return codes (c n) and scales (c), float64, nearest to the weights *rows* (c n); a row of zeros has scale 1."""
    rows = np.asarray(rows, np.float64)
    if levels.is_binary:
        codes, scales = levels.codes(rows, np.ones(len(rows))), np.abs(rows).mean(axis=1)
    elif levels.top == 1:
        codes, scales = (found.numpy() for found in best_ternary(torch.from_numpy(rows)))
    else:
        codes, scales = _searched(rows, levels)
    return codes, np.where(scales > float(np.finfo(np.float32).tiny), scales, 1.0)


def _searched(rows: Array, levels: Levels) -> tuple[Array, Array]:
    """Try clip ranges, then fit the scale to the codes and the codes to the scale until nothing changes."""
    greatest = np.abs(rows).max(axis=1, initial=0.0)
    greatest = np.where(greatest > 0, greatest, 1.0)
    best, shares = np.full(len(rows), np.inf), np.zeros(len(rows))
    steps = np.arange(1, N_TRIED + 1) / N_TRIED
    for width in (1.0, 2 / N_TRIED):  # all of the range, then around the best of it
        start = shares - (0.5 * width if width < 1 else 0.0)
        for step in steps:
            tried = start + step * width
            scales = tried * greatest / levels.top
            error = np.square(rows - scales[:, np.newaxis] * levels.codes(rows, scales)).sum(axis=1)
            shares, best = np.where(error < best, tried, shares), np.minimum(best, error)
    scales = shares * greatest / levels.top
    codes = levels.codes(rows, scales)
    for _ in range(N_REFINED):
        sizes = np.square(codes).sum(axis=1)
        fitted = np.where(sizes > 0, (rows * codes).sum(axis=1) / np.maximum(sizes, 1), scales)
        scales = np.where(fitted > 0, fitted, scales)
        again = levels.codes(rows, scales)
        if np.array_equal(again, codes):
            break
        codes = again
    return codes, scales


def compensated(rows: Array, scales: Array, levels: Levels, correlations: Array) -> Array:
    """Return codes (c n) for *scales* (c) whose products with the inputs are near those of the weights *rows* (c n).

    *correlations* (n n) are the mean products of the inputs. Inputs are taken one after the other, those that are
    largest first; what rounding a weight changes in the outputs is made up for by the weights that are still to come.
    """
    damped = _damped(correlations, DAMPING)
    order = np.argsort(-np.diag(damped), kind="stable")
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(tensor(damped[np.ix_(order, order)])))
    upper = torch.linalg.cholesky(inverse, upper=True).numpy()
    waiting, codes = np.asarray(rows, np.float64)[:, order], np.zeros(rows.shape)
    for at, place in enumerate(order):
        codes[:, place] = levels.codes(waiting[:, at : at + 1], scales)[:, 0]
        error = (waiting[:, at] - scales * codes[:, place]) / upper[at, at]
        waiting[:, at + 1 :] -= np.outer(error, upper[at, at + 1 :])
    return codes


def fitted_to(rows: Array, correlations: Array, wanted: Array, n_vectors: int) -> Array:
    """Return the weights (c n) near *rows* that come nearest to the float layer's outputs for the inputs at hand.

    *wanted* (n c) are the mean products of the inputs with those outputs. The inputs are those of layers that are
    quantized already, so that what these have lost is made up for as far as a linear layer can. The fewer of the
    *n_vectors* that tell it there are for each weight, the nearer the weights stay to *rows*.
    """
    factor = torch.linalg.cholesky(tensor(_damped(correlations, DAMPING + len(correlations) / n_vectors)))
    missing = wanted - product(correlations, rows.T)
    return rows + torch.cholesky_solve(tensor(missing), factor).numpy().T


def _damped(correlations: Array, damping: float) -> Array:
    """Return *correlations* with *damping* times their mean more on the diagonal: positive definite."""
    return correlations + damping * max(float(np.diag(correlations).mean()), LEAST) * np.eye(len(correlations))
