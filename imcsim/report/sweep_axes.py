"""How a figure is called, and in which unit people read it: axes of objectives and of parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.report.palette import axis_unit, short
from imcsim.report.sweep_load import Floats, ObjectiveSummary, Parameter, spans_decades
from imcsim.units import human

WORDS = {
    "latency_ns": "Latency",
    "energy_pJ": "Energy",
    "edp_pJ_ns": "Energy x delay",
    "area_um2": "Area",
    "throughput_per_s": "Throughput",
    "accuracy": "Accuracy",
    "reference_accuracy": "Accuracy of the reference",
    "perplexity": "Perplexity",
    "clipped_share": "Accesses clipped",
    "different_share": "Outputs that differ",
}

SHARES = frozenset({"accuracy", "reference_accuracy", "clipped_share", "different_share"})
"""Figures from 0 to 1 that people read in percent."""

_EDP_STEPS = ((1e12, "µJ ms"), (1e6, "nJ µs"), (1.0, "pJ ns"))


@dataclass(frozen=True, eq=False)
class Axis:
    """A column of the table as people read it."""

    name: str
    """Of the column."""

    title: str
    """What it is called, without its unit."""

    unit: str
    """Of the numbers shown; empty for none."""

    size: float
    """What a shown 1 is in the column."""

    is_log: bool
    is_maximized: bool | None = None
    """Whether more of it is better; None for a parameter."""

    texts: tuple[str, ...] = ()
    """What stands at 0, 1, ... on the axis of a parameter that holds texts."""

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def shown(self, values: Any) -> Floats:
        """Return *values* of the column as the axis has them."""
        return np.asarray(values, dtype=float) / self.size

    def text(self, value: float) -> str:
        """Return one value of the column with its unit."""
        return f"{value / self.size:.4g} {self.unit}".strip()


def objective_axis(objective: ObjectiveSummary, values: Floats) -> Axis:
    """Return the axis of an objective with *values*, NaN where there are none."""
    there = values[np.isfinite(values)]
    size, unit = _size(objective.figure, float(np.median(there)) if len(there) else 0.0)
    title = WORDS.get(objective.figure, objective.name)
    is_log = objective.figure not in SHARES and spans_decades(there)
    return Axis(objective.name, title, unit, size, is_log, objective.is_maximized)


def _size(figure: str, middle: float) -> tuple[float, str]:
    """Return the size and the name of the unit in which values about *middle* are read."""
    if figure in SHARES:
        return 0.01, "%"
    if figure == "edp_pJ_ns":
        return next(((size, unit) for size, unit in _EDP_STEPS if middle >= size), _EDP_STEPS[-1])
    if figure == "throughput_per_s":
        size, prefix = _prefix(middle)
        return size, f"{prefix}/s".strip()
    unit = next((unit for unit in ("ns", "pJ", "um2") if figure.endswith(f"_{unit}")), None)
    return axis_unit(middle, unit) if unit else (1.0, "")


def _prefix(middle: float) -> tuple[float, str]:
    if middle < 1000:
        return 1.0, ""
    _, prefix = human(middle, "", digits=12).split()
    return {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix], prefix


def parameter_axis(parameter: Parameter) -> Axis:
    """Return the axis of a parameter; its key bears the unit already."""
    texts = () if parameter.kind == "number" else tuple(level_text(level) for level in parameter.levels)
    return Axis(parameter.name, parameter.name, "", 1.0, parameter.is_log, None, texts)


def level_text(level: Any) -> str:
    """Return one value of a parameter for people.

    >>> level_text(0.30000000000000004), level_text(True), level_text(12), level_text("spatial")
    ('0.3', 'true', '12', 'spatial')
    """
    if isinstance(level, bool):
        return "true" if level else "false"
    return f"{level:.6g}" if isinstance(level, float) else str(level)


def rounded_text(value: float, digits: int = 3) -> str:
    """Return a number with so many digits, without powers of ten where people read it without.

    >>> rounded_text(1074.2), rounded_text(0.0312), rounded_text(2.5e9)
    ('1070', '0.0312', '2.5e+09')
    """
    return f"{float(f'{value:.{digits}g}'):.6g}"


def named(parameters: Sequence[Parameter], name: str) -> Parameter:
    """Return the parameter of this name."""
    return next(parameter for parameter in parameters if parameter.name == name)


def short_key(key: str, most: int = 34) -> str:
    """Return a dotted key, as much of its end as there is room for.

    >>> short_key("activation_buffer.read.bits_per_ns", 20)
    '…read.bits_per_ns'
    """
    steps = key.split(".")
    while len(steps) > 1 and len(".".join(steps)) + (len(steps) < len(key.split("."))) > most:
        steps = steps[1:]
    cut = "…" if len(steps) < len(key.split(".")) else ""
    return cut + short(".".join(steps), most)
