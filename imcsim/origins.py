"""What a run folder keeps of where its numbers come from: ``origins.json``, so that a report needs no workload to tell.

Counts as sums of products with the words for each factor; what an action costs, by which formula from which keys of the
chip file, with source and basis; and the parts of the time that each layer adds.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from imcsim.analytic.counts import Derivation, derive_actions, derive_setup
from imcsim.analytic.estimate import Estimate
from imcsim.analytic.factors import how_of_factors
from imcsim.analytic.timing import LayerTime, Part
from imcsim.arch.spec import Chip, Spec
from imcsim.costs.activity import Activity
from imcsim.costs.table import ComponentArea, Cost, CostTable
from imcsim.mapping.plan import Plan

_KEY = re.compile(r"[A-Za-z]\w*(?:\.\w+)*")
_SILICON = {"tile.array": "tile.array", "tile.pcu": "tile.pcus"}
"""Where the record of a component's area is not its `silicon`."""


def origins(plan: Plan, costs: CostTable, estimate: Estimate | None, activity: Activity) -> dict[str, Any]:
    """Return where the numbers of a run come from, as plain values."""
    if estimate is not None:
        plan = estimate.plan  # with what its chip skips
    else:
        plan = plan.skipping(activity.idle_share)
    derived = derive_actions(plan)
    layer_of = {layer.name: layer for layer in plan.layers}
    return {
        "counts": {layer: _terms(found) for layer, found in derived.items()},
        "setup": {layer: _terms(found) for layer, found in derive_setup(plan).items()},
        "factors": {
            name: {
                factor: [how.words, how.numbers] for factor, how in how_of_factors(plan, layer_of[name], found).items()
            }
            for name, found in derived.items()
        },
        "costs": [_cost(cost, plan.chip) for cost in costs.costs],
        "areas": [_area(area, plan.chip) for area in costs.areas],
        "intervals_ns": {action: float(timing.interval_ns) for action, timing in costs.timings.items()},
        "times": {} if estimate is None else {layer: _times(time) for layer, time in estimate.times.items()},
        "relative_energy": dict(activity.relative_energy),
    }


def _terms(derived: Derivation) -> dict[str, list[Any]]:
    return {
        action: [[term.sign, [[name, int(n)] for name, n in term.factors]] for term in terms]
        for action, terms in derived.items()
    }


def _cost(cost: Cost, chip: Chip) -> dict[str, Any]:
    owner = cost.action if cost.action.startswith("sfu.") else cost.action.partition(".")[0]
    return {
        "action": cost.action,
        "component": cost.component,
        "energy_pJ": float(cost.energy_pJ),
        "basis": cost.basis,
        "source": cost.source,
        "formula": cost.formula,
        "keys": keys_of(cost.formula, chip, owner),
    }


def _area(area: ComponentArea, chip: Chip) -> dict[str, Any]:
    record = _SILICON.get(area.component, f"{area.component}.silicon")
    names = ("area_um2", "leakage_mW")
    keys = {f"{record}.{name}": value for name in names if (value := _number(chip, f"{record}.{name}")) is not None}
    return {
        "component": area.component,
        "n_instances": area.n_instances,
        "area_um2": float(area.area_um2),
        "leakage_mW": float(area.leakage_mW),
        "basis": area.basis,
        "source": area.source,
        "keys": keys,
    }


def _times(time: LayerTime) -> list[dict[str, Any]]:
    return [_part(part) for part in time.parts()]


def _part(part: Part) -> dict[str, Any]:
    said: dict[str, Any] = {"component": part.component, "words": part.words, "time_ns": float(part.time_ns)}
    if part.stage is not None:
        stage = part.stage
        said |= {"action": stage.action, "n_items": int(stage.n_items), "work_ns": float(stage.work_ns)}
    return said


def keys_of(formula: str, chip: Chip, owner: str) -> dict[str, float]:
    """Return the numbers of *chip* that a *formula* of its costs names, by their keys in the chip file.

    Keys of a formula stand within the record *owner*, or within an access of the tile; what is told relative to
    `characterized_at` is there too.
    """
    words = [word.group() for word in _KEY.finditer(formula)]
    if "characterized_at" in words:
        words += [f"characterized_at.{word}" for word in words]
    found = {}
    for word in words:
        for key in _places(owner, word):
            value = _number(chip, key)
            if value is not None:
                found[key] = value
                break
    return found


def _places(owner: str, word: str) -> Iterator[str]:
    yield f"{owner}.{word}"
    if owner == "tile":
        yield f"tile.access.{word}"
        yield f"tile.conversion.{word}"


def _number(chip: Chip, key: str) -> float | None:
    """Return the number at *key*, or None where there is none."""
    found: Any = chip
    for step in key.split("."):
        if not isinstance(found, Spec | Mapping):
            return None
        found = found.get(step) if isinstance(found, Mapping) else getattr(found, step, None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
