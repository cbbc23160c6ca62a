"""``origins.json``, which says where the numbers of a run come from: its records, and how it is read."""

import json
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from imcsim.arch.spec import Basis
from imcsim.errors import DataError
from imcsim.report.load import read_text
from imcsim.report.parts import NotNegative, Number, Part


class CostOrigin(Part):
    """What an action costs a component, and how that follows."""

    action: str
    component: str
    energy_pJ: NotNegative
    basis: Basis
    source: str
    formula: str
    keys: dict[str, float]


class AreaOrigin(Part):
    """Area and leakage of a component."""

    component: str
    n_instances: Number
    area_um2: NotNegative
    leakage_mW: NotNegative
    basis: Basis
    source: str
    keys: dict[str, float]


class TimePart(Part):
    """A part of the time that a layer adds."""

    component: str
    words: str
    time_ns: float
    action: str = ""
    n_items: Number = 0
    work_ns: NotNegative = 0.0


Terms = list[tuple[int, list[tuple[str, int]]]]
Counts = dict[str, dict[str, Terms]]


class Origins(BaseModel):
    """``origins.json``, as `imcsim.origins` writes it."""

    counts: Counts
    setup: Counts
    factors: dict[str, dict[str, tuple[str, str]]]
    costs: tuple[CostOrigin, ...]
    areas: tuple[AreaOrigin, ...]
    intervals_ns: dict[str, NotNegative]
    times: dict[str, tuple[TimePart, ...]]
    relative_energy: dict[str, NotNegative] = Field(default_factory=dict)

    def cost(self, action: str, component: str) -> CostOrigin | None:
        """Return what *action* costs *component*; None where it is not told."""
        return next((cost for cost in self.costs if (cost.action, cost.component) == (action, component)), None)

    def area(self, component: str) -> AreaOrigin | None:
        """Return area and leakage of *component*; None where they are not told."""
        return next((area for area in self.areas if area.component == component), None)


def read_origins(folder: Path) -> Origins:
    """Return what the run *folder* keeps of where its numbers come from; raises DataError where it keeps nothing."""
    path = folder / "origins.json"
    try:
        return Origins.model_validate(json.loads(read_text(path)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: must be JSON, got {error}; is it cut off?") from None
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(step) for step in problem["loc"])
        raise DataError(f"{path}: {key}: {problem['msg']}; run again to write it anew") from None
