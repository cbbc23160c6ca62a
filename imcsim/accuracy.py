"""Task accuracy of a chip beside that of the reference on the same samples, and how sure both are.

Whether a sample is right is said in one place, `is_right`; everything else works on those verdicts.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.functional.execute import run
from imcsim.functional.instance import ChipInstance
from imcsim.functional.statistics import Clipping
from imcsim.graph.samples import Samples
from imcsim.intervals import TANGO, WILSON, Interval, paired_interval, wilson_interval
from imcsim.mapping.plan import Plan
from imcsim.metrics import METRICS, classes_of

Array = np.ndarray


def is_right(outputs: Array, labels: Array, where: str) -> Array:
    """Return whether the greatest score is that of the label, for each sample or each token of a sequence: bool (n).

    Raises DataError, naming *where*, unless *outputs* and *labels* are what some metric takes: (b classes) and (b), or
    (b v 1 t) and (b t).
    """
    if not any(metric.fits(outputs.shape, labels.shape) for metric in METRICS.values()):
        METRICS["accuracy"].require(outputs, labels, where)
    return np.asarray(classes_of(outputs, labels) == labels).reshape(-1)


@dataclass(frozen=True)
class Paired:
    """How many samples the reference and the chip get right, and on how many only one of them does."""

    n_samples: int
    n_right_reference: int
    n_right_chip: int
    n_better: int
    """Samples that the chip alone gets right."""

    n_worse: int
    """Samples that the reference alone gets right."""

    @classmethod
    def of(cls, reference: Array, chip: Array) -> "Paired":
        """Count verdicts (b) on the same samples."""
        n_better, n_worse = int(np.sum(chip & ~reference)), int(np.sum(reference & ~chip))
        return cls(len(reference), int(np.sum(reference)), int(np.sum(chip)), n_better, n_worse)

    @property
    def reference(self) -> float:
        """Accuracy of the reference."""
        return self.n_right_reference / self.n_samples

    @property
    def chip(self) -> float:
        """Accuracy of the chip."""
        return self.n_right_chip / self.n_samples

    @property
    def interval_reference(self) -> Interval:
        """95 % Wilson score interval."""
        return wilson_interval(self.n_right_reference, self.n_samples)

    @property
    def interval_chip(self) -> Interval:
        """95 % Wilson score interval."""
        return wilson_interval(self.n_right_chip, self.n_samples)

    @property
    def difference(self) -> float:
        """Accuracy of the chip less that of the reference."""
        return (self.n_better - self.n_worse) / self.n_samples

    @property
    def interval_difference(self) -> Interval:
        """95 % Tango score interval: the samples are the same."""
        return paired_interval(self.n_better, self.n_worse, self.n_samples)

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of it under ``accuracy``."""
        return {
            "reference": self.reference,
            "chip": self.chip,
            "n_samples": self.n_samples,
            "interval_reference": list(self.interval_reference),
            "interval_chip": list(self.interval_chip),
            "interval_method": WILSON,
            "difference": self.difference_summary,
        }

    @property
    def difference_summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of the difference, chip less reference."""
        return {
            "value": self.difference,
            "interval": list(self.interval_difference),
            "n_better": self.n_better,
            "n_worse": self.n_worse,
            "method": TANGO,
        }


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What one execution of a test set came to."""

    right: Array
    """Whether each sample is right: bool (b)."""

    clipping: Clipping
    is_random: bool
    """Whether another seed can give another result."""


def verdicts(
    plan: Plan,
    x: Array | Samples,
    labels: Array,
    *,
    seed: int,
    only: Collection[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Verdicts:
    """Execute the samples *x* (b ...) on the chip that *seed* gives; *only*: the layers that are not ideal."""
    rng = np.random.default_rng(seed)
    done = run(plan, x, rng=rng, instance=ChipInstance(seed), looks=False, only=only, progress=progress)
    return Verdicts(is_right(done.judged, labels, plan.graph.name), done.total, is_random(plan))


def is_random(plan: Plan) -> bool:
    """Whether two seeds can give two results: another instance of the chip, or other reads."""
    return plan.chip.tile.has_faults or plan.chip.tile.draws_at_reads
