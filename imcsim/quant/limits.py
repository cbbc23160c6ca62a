"""Two numbers that part -1, 0 and +1, compared by torch as a `Threshold` compares them."""

from dataclasses import dataclass

from torch import Tensor

from imcsim.graph import TERNARY, Format, Threshold
from imcsim.quant.activation import above, threshold_step


@dataclass(frozen=True)
class Limits:
    """Two numbers that part -1, 0 and +1; exact in float32, so that torch and a `Threshold` compare alike."""

    low: float
    high: float

    low_fires: bool = False
    """Whether *low* itself gives -1."""

    high_fires: bool = False
    """Whether *high* itself gives +1."""

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of *x*, of its dtype and without gradients."""
        wide = x.detach()
        minus = wide <= self.low if self.low_fires else wide < self.low
        plus = wide >= self.high if self.high_fires else wide > self.high
        return plus.to(x.dtype) - minus.to(x.dtype)

    def step(self, form: Format = TERNARY) -> Threshold:
        """Return the limits as a step of the graph."""
        low = above(self.low) if self.low_fires else self.low
        return threshold_step([low, self.high if self.high_fires else above(self.high)], [-1, 0, 1], form)


HALVES = Limits(-0.5, 0.5)
"""Rounding to the nearest of -1, 0 and +1, halves to even."""

FIRING_HALVES = Limits(-0.5, 0.5, low_fires=True, high_fires=True)
"""The same, halves away from 0."""
