"""Which layer loses the accuracy: each layer real while all others are ideal, and each ideal while all others are real.

An ideal layer reads every count exactly; a real one clips, and errs, as the chip does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.accuracy import Paired, verdicts
from imcsim.graph.samples import Samples
from imcsim.mapping.plan import Plan


@dataclass(frozen=True)
class AblatedLayer:
    """What one layer does to the accuracy."""

    layer: str

    alone: Paired
    """This layer real, all others ideal, against the reference."""

    others: Paired
    """This layer ideal, all others real, against the reference."""


@dataclass(frozen=True)
class Ablation:
    """What each layer on tiles does to the accuracy."""

    whole: Paired
    """All layers real: the chip."""

    layers: tuple[AblatedLayer, ...]
    """In the order of the walk."""

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says under ``ablation``."""
        return {
            "n_samples": self.whole.n_samples,
            "reference": self.whole.reference,
            "whole": _said(self.whole),
            "layers": [
                {"name": found.layer, "alone": _said(found.alone), "others": _said(found.others)}
                for found in self.layers
            ],
        }


def ablate(
    plan: Plan,
    x: np.ndarray | Samples,
    labels: np.ndarray,
    *,
    reference: np.ndarray,
    whole: np.ndarray,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Ablation:
    """Execute the samples *x* (b ...) twice a layer.

    Args:
        plan: What runs where.
        x: Inputs (b ...).
        labels: What should come out (b).
        reference: Whether the reference gets each sample right (b).
        whole: Whether the chip does (b).
        seed: Of the generator of each execution.
        progress: Is told how many executions were done, one after the other.
    """
    names = [layer.name for layer in plan.layers if layer.is_on_tiles]

    def paired(only: list[str]) -> Paired:
        found = Paired.of(reference, verdicts(plan, x, labels, seed=seed, only=only).right)
        if progress is not None:
            progress(1)
        return found

    layers = [AblatedLayer(name, paired([name]), paired([other for other in names if other != name])) for name in names]
    return Ablation(Paired.of(reference, whole), tuple(layers))


def _said(found: Paired) -> dict[str, Any]:
    return {"accuracy": found.chip, "difference": found.difference_summary}
