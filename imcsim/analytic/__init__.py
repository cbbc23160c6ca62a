"""Time, energy and area from a plan by formula, without writing tasks."""

from imcsim.analytic.bounds import bounds_ps
from imcsim.analytic.estimate import Bounds, Estimate, estimate

__all__ = ["Bounds", "Estimate", "bounds_ps", "estimate"]
