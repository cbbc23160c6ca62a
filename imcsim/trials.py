"""Trials: the same samples on several chips, each drawn from a seed of its own, and how far their accuracies spread.

A trial is a whole number, its seed. The first is the seed of the run, so that one trial is the plain run; the others
follow from it and from their place alone, so that trial i has the same bits however many trials there are, and
``imcsim run --seed SEED_OF_TRIAL`` repeats it by itself.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.accuracy import Verdicts, verdicts
from imcsim.errors import ConfigError
from imcsim.graph.samples import Samples
from imcsim.mapping.plan import Plan

MOST_TRIALS = 10_000

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def seed_of_trial(seed: int, i: int) -> int:
    """Return the seed of trial *i* of a run with *seed*; 53 bits, which every reader of JSON keeps.

    >>> seed_of_trial(0, 0), seed_of_trial(0, 1), seed_of_trial(1, 1)
    (0, 1411862955063295, 3049525688599375)
    """
    if i == 0:
        return seed
    high, low = np.random.SeedSequence(seed, spawn_key=(i,)).generate_state(2, np.uint32).tolist()
    return (int(high) << 32 | int(low)) >> 11


@dataclass(frozen=True)
class Trial:
    """One chip."""

    seed: int
    n_right: int
    n_samples: int
    n_misreads: int

    @property
    def accuracy(self) -> float:
        """Share of the samples that are right."""
        return self.n_right / self.n_samples


@dataclass(frozen=True)
class Trials:
    """What came out of each trial."""

    trials: tuple[Trial, ...]

    is_random: bool
    """Whether chips can differ at all; where not, the first trial was executed and stands for all."""

    @property
    def accuracies(self) -> np.ndarray:
        """Of each trial (t)."""
        return np.array([trial.accuracy for trial in self.trials])

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the accuracy from chip to chip (n - 1 in the denominator); 0 for a single trial."""
        return float(self.accuracies.std(ddof=1)) if len(self.trials) > 1 else 0.0

    @property
    def quantiles(self) -> dict[float, float]:
        """Accuracy that each share of `QUANTILES` of the trials does not exceed, linear between trials."""
        return {share: float(np.quantile(self.accuracies, share)) for share in QUANTILES}

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says under ``trials``."""
        accuracies = self.accuracies
        return {
            "n": len(self.trials),
            "is_random": self.is_random,
            "n_samples": self.trials[0].n_samples,
            "mean": self.mean,
            "std": self.std,
            "worst": float(accuracies.min()),
            "best": float(accuracies.max()),
            "quantiles": {f"{share:g}": value for share, value in self.quantiles.items()},
            "seeds": [trial.seed for trial in self.trials],
            "accuracies": accuracies.tolist(),
        }

    def to_csv(self) -> str:
        """Return the trials as CSV text, a line each."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["trial", "seed", "accuracy", "n_right", "n_samples", "n_misreads"])
        for i, trial in enumerate(self.trials):
            writer.writerow([i, trial.seed, trial.accuracy, trial.n_right, trial.n_samples, trial.n_misreads])
        return text.getvalue()


def require_trials(n: int) -> None:
    """Raise ConfigError unless *n* is a number of trials that can be run."""
    if not 1 <= n <= MOST_TRIALS:
        raise ConfigError(f"trials: must be from 1 to {MOST_TRIALS}, got {n}")


def run_trials(
    plan: Plan,
    x: np.ndarray | Samples,
    labels: np.ndarray,
    *,
    n: int,
    seed: int = 0,
    first: Verdicts | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trials:
    """Execute the samples *x* (b ...) on *n* chips.

    Args:
        plan: What runs where.
        x: Inputs (b ...).
        labels: What should come out (b).
        n: How many trials; with nothing to draw only the first is executed.
        seed: That the seeds of the trials follow from.
        first: What the first trial came to, where it was executed already.
        progress: Is told how many trials were done, one after the other.
    """
    require_trials(n)
    first = first or verdicts(plan, x, labels, seed=seed)
    seeds = [seed_of_trial(seed, i) for i in range(n)]
    tell = progress or (lambda part: None)
    if not first.is_random:
        tell(n)
        return Trials(tuple(_trial(own, first) for own in seeds), False)
    done = [_trial(seed, first)]
    tell(1)
    for own in seeds[1:]:
        done.append(_trial(own, verdicts(plan, x, labels, seed=own)))
        tell(1)
    return Trials(tuple(done), True)


def _trial(seed: int, found: Verdicts) -> Trial:
    return Trial(seed, int(np.sum(found.right)), len(found.right), found.clipping.n_misreads)
