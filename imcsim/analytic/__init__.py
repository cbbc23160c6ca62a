"""Time, energy and area from a plan by formula, without writing tasks."""

from imcsim.analytic.bounds import bounds_ps
from imcsim.analytic.estimate import Bounds, Estimate, estimate
from imcsim.analytic.roofline import RooflineRow, roofline

__all__ = ["Bounds", "Estimate", "RooflineRow", "bounds_ps", "estimate", "roofline"]
