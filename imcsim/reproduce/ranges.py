"""Which numbers of a chip are uncertain, how far, and draws of all of them at once.

A record of a chip file that states `within_factor` f says that the truth lies between v / f and v * f. What belongs
together in it (latency and interval; area and leakage) moves together; times, bandwidths, energies and areas move
apart. What lies outside the tiles is the same part in TiM-DNN and its baselines, and has one draw for all chips.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.analytic.variants import UNUSED
from imcsim.arch.spec import Basis, Chip, Sourced, Spec
from imcsim.reproduce.suite import CHIPS, ISO_CAPACITY, TIM, Chips
from imcsim.reproduce.targets import Target

Floats = NDArray[np.float64]
Changes = dict[str, Floats]
"""Dotted key to the values that the variants of a chip have (n)."""

KINDS = {
    "time": ("latency_ns", "interval_ns"),
    "bandwidth": ("bits_per_ns",),
    "energy": ("energy_pJ", "energy_pJ_per_bit"),
    "area": ("area_um2", "leakage_mW"),
}
"""Numbers of a record that move together."""

NOT_DRAWN = (*UNUSED, "circuit", "technology", "tile.access.activity", "tile.access.operating_point")
"""Records that nothing here follows from."""


@dataclass(frozen=True)
class Range:
    """Numbers that move together, and how far."""

    name: str
    """The record, the kind of number, and whose tile it is part of where it is part of one."""

    chips: tuple[str, ...]
    """The chips that have it."""

    keys: tuple[str, ...]
    factor: float
    basis: Basis


def value_of(chip: Chip, key: str) -> float:
    """Return the number at a dotted key."""
    record: Any = chip
    for name in key.split("."):
        record = getattr(record, name)
    return float(record)


def has_value(chip: Chip, key: str) -> bool:
    """Whether *chip* has a number at a dotted key."""
    record: Any = chip
    for name in key.split("."):
        if name not in getattr(type(record), "model_fields", ()):
            return False
        record = getattr(record, name)
    return True


def ranges_of(chips: Chips, calibration: Mapping[str, Target]) -> list[Range]:
    """Return everything uncertain about *chips*.

    A number that a calibration target states itself is known as closely as that target; what several such targets
    state (a time in the pace of another) moves together.
    """
    found, stated = [], {key: target for target in calibration.values() for key in target.keys}
    for quantity, target in calibration.items():
        if target.keys:
            found.append(Range(f"{quantity} ({TIM})", (TIM,), target.keys, target.within, target.basis))
    for name, chip in ((TIM, chips.tim), (ISO_CAPACITY, chips.iso_capacity)):
        for path, record in _records(chip):
            is_tile = path.startswith("tile.")
            if record.within_factor in (None, 1.0) or (not is_tile and name != TIM):
                continue
            owners = CHIPS if not is_tile else (TIM,) if name == TIM else CHIPS[1:]
            whose = f" ({'tim-dnn' if name == TIM else 'near-memory'})" if is_tile else ""
            for kind, fields in KINDS.items():
                keys = tuple(f"{path}.{field}" for field in fields if field in type(record).model_fields)
                keys = tuple(key for key in keys if name != TIM or key not in stated)
                if any(value_of(chip, key) for key in keys):
                    assert record.within_factor is not None
                    found.append(Range(f"{path} {kind}{whose}", owners, keys, record.within_factor, record.basis))
    return found


def draw(ranges: list[Range], chips: Chips, rng: np.random.Generator, n: int) -> dict[str, Changes]:
    """Return *n* draws of every number, by chip: all ratios within a range are equally likely."""
    return moved(ranges, chips, {each.name: each.factor ** rng.uniform(-1, 1, n) for each in ranges})


def moved(ranges: list[Range], chips: Chips, factors: Mapping[str, Floats]) -> dict[str, Changes]:
    """Return the values of every number of *ranges* when it is multiplied by *factors* (n), by chip."""
    changes: dict[str, Changes] = {name: {} for name in CHIPS}
    for each in ranges:
        for name in each.chips:
            for key in each.keys:
                changes[name][key] = value_of(chips.of_name[name], key) * factors[each.name]
    return changes


def _records(chip: Spec, at: str = "") -> Iterator[tuple[str, Sourced]]:
    """Yield every record with a source, with its dotted key."""
    for name in type(chip).model_fields:
        key, value = f"{at}{name}", getattr(chip, name)
        if key in NOT_DRAWN or not isinstance(value, Spec):
            continue
        if isinstance(value, Sourced):
            yield key, value
        yield from _records(value, f"{key}.")
