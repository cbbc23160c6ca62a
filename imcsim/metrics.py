"""How good outputs are, by their labels: what is added up sample after sample, and the figure that follows.

A workload names its metric (`METRIC`); every metric also counts the labels that the greatest output names, so that
there is an accuracy of any workload.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from imcsim.errors import DataError

Array = np.ndarray


@dataclass(frozen=True)
class Metric:
    """A figure of merit."""

    name: str

    shapes: str
    """What outputs and labels must be, in words."""

    fits: Callable[[tuple[int, ...], tuple[int, ...]], bool]
    """Whether outputs and labels have such shapes."""

    loss: Callable[[Array, Array], Array] | None
    """Outputs and labels to what is added up, float64 (b); None where counting right labels is all."""

    figure: Callable[[float, int], float]
    """The sum over all samples and the number of labels to the figure."""

    def require(self, outputs: Array, labels: Array, where: str) -> None:
        """Raise DataError, naming *where*, unless outputs and labels are what the metric takes."""
        if not self.fits(outputs.shape, labels.shape):
            raise DataError(f"{where}: outputs must be {self.shapes}, got {outputs.shape} and {labels.shape}")
        wrong = (labels < 0) | (labels >= outputs.shape[1]) | (labels != np.floor(labels))
        if self.loss is not None and np.any(wrong):
            raise DataError(
                f"{where}: labels must be whole numbers from 0 to {outputs.shape[1] - 1}, got {labels[wrong].flat[0]}"
            )


def classes_of(outputs: Array, labels: Array) -> Array:
    """Return the greatest of the *outputs* (b c ...), the first of equals, shaped like *labels* (b ...)."""
    return outputs.argmax(axis=1).reshape(labels.shape)


def _negative_log_probability(outputs: Array, labels: Array) -> Array:
    """(b v 1 t) log-probabilities and (b t) labels to what each sample's labels cost, in nats (b)."""
    picked = np.take_along_axis(outputs[:, :, 0, :], labels[:, None, :].astype(np.int64), axis=1)
    return np.array([-math.fsum(sample) for sample in picked[:, 0, :]])  # the same however the batch is split


METRICS = {
    "accuracy": Metric(
        "accuracy",
        "scores (b classes) and labels whole numbers (b)",
        lambda outputs, labels: len(outputs) == 2 and labels == outputs[:1],
        None,
        lambda total, n_labels: total / n_labels,
    ),
    "perplexity": Metric(
        "perplexity",
        "log-probabilities (b v 1 t) and labels whole numbers (b t)",
        lambda outputs, labels: len(outputs) == 4 and outputs[2] == 1 and labels == (outputs[0], outputs[3]),
        _negative_log_probability,
        lambda total, n_labels: math.exp(min(total / n_labels, 700.0)),  # beyond, a float64 is no longer finite
    ),
}
