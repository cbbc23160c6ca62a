"""What a sweep asks of every point: objectives by the names users write, the figures behind them, who gives them."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from imcsim.errors import ConfigError

ENGINES = ("estimate", "simulate", "execute")
"""From the quick to the slow."""

COST = frozenset({"latency_ns", "energy_pJ", "edp_pJ_ns", "area_um2", "throughput_per_s"})
VALUES = frozenset({"accuracy", "reference_accuracy", "perplexity", "clipped_share", "different_share", "area_um2"})
GIVEN_BY = {"estimate": COST, "simulate": COST, "execute": VALUES}
"""Figures that an engine gives of a point; a later engine's take the place of an earlier one's."""

SHORT = {
    "latency": "latency_ns",
    "energy": "energy_pJ",
    "edp": "edp_pJ_ns",
    "area": "area_um2",
    "throughput": "throughput_per_s",
}
"""What a user may write in place of a figure's name."""

FIGURES = tuple(sorted(COST | VALUES))
GREATER_IS_BETTER = frozenset({"accuracy", "reference_accuracy", "throughput_per_s"})


@dataclass(frozen=True)
class Objective:
    """One thing that a sweep asks of every point."""

    name: str
    """As the user wrote it: the name of the column in ``points.csv``."""

    figure: str
    """The figure it is, with its unit: one of `FIGURES`."""

    @property
    def is_maximized(self) -> bool:
        """Whether more of it is better."""
        return self.figure in GREATER_IS_BETTER

    def given_by(self, engines: Iterable[str]) -> bool:
        """Whether one of *engines* gives it."""
        return any(self.figure in GIVEN_BY[engine] for engine in engines)


def find_objective(name: str) -> Objective:
    """Return the objective of a name, long (latency_ns) or short (latency); raises ConfigError where it is none.

    >>> find_objective("edp")
    Objective(name='edp', figure='edp_pJ_ns')
    """
    figure = SHORT.get(name, name)
    if figure not in FIGURES:
        near = difflib.get_close_matches(name, (*SHORT, *FIGURES), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"objectives: must be among {', '.join((*SHORT, *FIGURES))}, got {name!r}{hint}")
    return Objective(name, figure)
