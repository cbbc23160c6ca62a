"""Chip files of points: the base chip by name, and the keys that a point changes."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from imcsim.arch.load import dump_chip, load_machine, nested, shipped_chips
from imcsim.report.sweep_load import Parameter, SweepFolder
from imcsim.results import write_whole

BESIDE = ("mapping.", "assume", "quantizer", "workload", "seed")
"""Parameters that begin so are no keys of a chip."""

MOST_CHIPS = 200


def is_chip_key(name: str) -> bool:
    """Whether a parameter is a key of the chip.

    >>> is_chip_key("tile.count_max"), is_chip_key("n_tiles"), is_chip_key("mapping.policy"), is_chip_key("seed")
    (True, True, False, False)
    """
    return not any(name == start or name.startswith(start if start.endswith(".") else f"{start}.") for start in BESIDE)


def base_name(sweep: SweepFolder) -> str:
    """Return what a chip file of a point includes: a shipped chip, or ``base.yaml`` beside it.

    A chip of a user's own may have the name of a shipped one.
    """
    name, text = sweep.summary.chip, sweep.summary.chip_text
    is_shipped = name in shipped_chips() and (not text or dump_chip(load_machine(name)) == text)
    return name if is_shipped else "base.yaml"


def chip_text(base: str, changes: Mapping[str, Any], beside: Mapping[str, Any], number: int, sweep: str) -> str:
    """Return the text of the chip file of one point.

    >>> print(chip_text("tim-dnn", {"n_tiles": 8, "tile.count_max": 4}, {"seed": 1}, 7, "tiles"), end="")
    # Point 7 of the sweep tiles; not in a chip file: seed = 1
    include: tim-dnn
    n_tiles: 8
    tile:
      count_max: 4
    """
    others = ", ".join(f"{name} = {scalar_text(value)}" for name, value in beside.items())
    first = f"# Point {number} of the sweep {' '.join(sweep.split())}"
    lines = [first + (f"; not in a chip file: {others}" if others else ""), f"include: {scalar_text(base)}"]
    tree: dict[str, Any] = {}
    for key, value in changes.items():
        _join(tree, nested(key, value))
    return "\n".join([*lines, *_lines(tree, "")]) + "\n"


def scalar_text(value: Any) -> str:
    """Return one value as YAML 1.1 reads it back: texts in quotes where they must be, powers of ten with a point.

    >>> scalar_text(1e-07), scalar_text(True), scalar_text("on"), scalar_text("tim-dnn"), scalar_text(64.0)
    ('1.0e-07', 'true', '"on"', 'tim-dnn', '64.0')
    """
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, str):
        is_bare = re.fullmatch(r"[A-Za-z][A-Za-z_./-]*[A-Za-z0-9_./-]*", value)
        is_word = value.lower() in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
        return value if is_bare and not is_word else json.dumps(value, ensure_ascii=False)
    text = repr(value)
    return re.sub(r"^(-?\d+)e", r"\1.0e", text)


def _join(tree: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _join(tree[key], value)
        else:
            tree[key] = value


def _lines(tree: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {scalar_text(value)}")
    return lines


def row_of(parameters: tuple[Parameter, ...], at: int) -> dict[str, Any]:
    """Return the parameters that the point at this place of the table has."""
    there = [each for each in parameters if each.codes[at] >= 0]
    return {each.name: each.different[each.codes[at] : each.codes[at] + 1].tolist()[0] for each in there}


def write_chips(sweep: SweepFolder) -> int:
    """Write the chip file of every point on the front, at most `MOST_CHIPS`, into ``chips/``; return how many.

    Files of an earlier front are removed: each that is there is on this one.
    """
    folder = sweep.folder / "chips"
    for stale in folder.glob("*.yaml"):
        if stale.stem == "base" or stale.stem.isdecimal():
            stale.unlink()
    base = base_name(sweep)
    if base == "base.yaml" and not sweep.summary.chip_text:
        return 0
    places = np.flatnonzero(sweep.on_front)[:MOST_CHIPS]
    if len(places) and base == "base.yaml":
        write_whole(folder / base, sweep.summary.chip_text)
    for at in places:
        row = row_of(sweep.parameters, at)
        changes = {name: value for name, value in row.items() if is_chip_key(name)}
        beside = {name: value for name, value in row.items() if not is_chip_key(name)}
        number = int(sweep.numbers[at])
        write_whole(folder / f"{number}.yaml", chip_text(base, changes, beside, number, sweep.summary.name))
    return len(places)
