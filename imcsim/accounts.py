"""What accounts for the accuracy of a run, as far as it is asked for: trials, errors by layer, ablation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.ablation import Ablation, ablate
from imcsim.accuracy import Verdicts
from imcsim.functional.layer_errors import Explanation, explain, summary_of
from imcsim.graph.samples import Samples
from imcsim.mapping.plan import Plan
from imcsim.trials import Trials, run_trials

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """What was asked for; None where it was not."""

    trials: Trials | None = None
    explanation: Explanation | None = None
    ablation: Ablation | None = None

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says of them."""
        return {
            "trials": self.trials.summary if self.trials else None,
            "layer_errors": summary_of(self.explanation) if self.explanation else None,
            "ablation": self.ablation.summary if self.ablation else None,
        }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to account for."""

    trials: int = 1
    """How many chips to execute the samples on; one is the plain run."""

    explain: bool = False
    ablation: bool = False


def account(
    plan: Plan,
    x: np.ndarray | Samples,
    labels: np.ndarray,
    asked: Asked,
    *,
    reference: np.ndarray,
    chip: Verdicts,
    seed: int,
    progress: Progress | None = None,
) -> Accounts:
    """Execute the samples *x* (b ...) again, in all the ways that are asked for.

    Args:
        plan: What runs where.
        x: Inputs (b ...).
        labels: What should come out (b).
        asked: What to account for.
        reference: Whether the reference gets each sample right (b).
        chip: What the plain run came to: the first trial, and the chip with all its layers real.
        seed: Of the plain run.
        progress: Is told how far the work is.
    """
    trials = explanation = ablation = None
    if asked.trials > 1:
        tell = _counted(progress, "trials", asked.trials)
        trials = run_trials(plan, x, labels, n=asked.trials, seed=seed, first=chip, progress=tell)
    if asked.explain:
        explanation = explain(plan, x, seed=seed, progress=_counted(progress, "explain", len(x)))
    if asked.ablation:
        tell = _counted(progress, "ablation", 2 * sum(layer.is_on_tiles for layer in plan.layers))
        ablation = ablate(plan, x, labels, reference=reference, whole=chip.right, seed=seed, progress=tell)
    return Accounts(trials=trials, explanation=explanation, ablation=ablation)


def _counted(progress: Progress | None, what: str, total: int) -> Callable[[int], None] | None:
    """Return what tells *progress* the sum of the parts that it is told."""
    if progress is None:
        return None
    done = 0

    def tell(part: int) -> None:
        nonlocal done
        done += part
        progress(what, done, total)

    return tell
