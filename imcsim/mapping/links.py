"""The units of many banks and chips by name, and the links between them.

Banks are counted over all chips: bank b of chip c is number c x n_banks + b. A unit is named after its bank and its
chip where there are several of them: ``bank1.psum_buffer.write``, ``chip2.bank0.tile5.pcu``; main memory and the
network after their chip. A link is named after its two ends, from and to: ``chip_link.0-1``, ``chip2.bank_link.1-0``.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from imcsim.arch.spec import Chip, Link

_OF_CHIP = ("main_memory", "network")
_PLACE = re.compile(r"(?:chip\d+\.)?(?:bank\d+\.)?")


def place_of(chip: Chip, bank: int) -> str:
    """Return what the names of the units of *bank* begin with."""
    of_bank = f"bank{bank % chip.n_banks}." if chip.n_banks > 1 else ""
    return place_of_chip(chip, bank) + of_bank


def place_of_chip(chip: Chip, bank: int) -> str:
    """Return what the names of the units begin with that all banks of the chip of *bank* share."""
    return f"chip{bank // chip.n_banks}." if chip.n_chips > 1 else ""


def unit_at(chip: Chip, bank: int, unit: str) -> str:
    """Return the name of *unit* of *bank*, or of its chip."""
    return (place_of_chip(chip, bank) if unit in _OF_CHIP else place_of(chip, bank)) + unit


def unit_of_tile(chip: Chip, tile: int, part: str) -> str:
    """Return the name of *part* (array, pcu or nmc) of *tile*, counted over all banks of all chips."""
    return unit_at(chip, tile // chip.n_tiles, f"tile{tile % chip.n_tiles}.{part}")


def local_unit(unit: str) -> str:
    """Return the name of *unit* inside its bank or chip.

    >>> local_unit("chip2.bank0.tile5.pcu"), local_unit("bank1.sfu.qu"), local_unit("chip3.bank_link.0-1")
    ('tile5.pcu', 'sfu.qu', 'bank_link.0-1')
    """
    found = _PLACE.match(unit)
    return unit[found.end() :] if found else unit


def component_of_unit(unit: str) -> str:
    """Return the component that *unit* is one of.

    >>> component_of_unit("bank1.tile5.pcu"), component_of_unit("chip_link.0-1"), component_of_unit("sfu.qu")
    ('tile.pcu', 'chip_link', 'sfu.qu')
    """
    local = local_unit(unit)
    first, _, rest = local.partition(".")
    if first in ("bank_link", "chip_link"):
        return first
    return f"tile.{rest}" if first.startswith("tile") else local


def is_link(unit: str) -> bool:
    """Return whether *unit* is a link between banks or chips."""
    return component_of_unit(unit) in ("bank_link", "chip_link")


class Hop(NamedTuple):
    """What goes over one link on its way from one bank to others."""

    source: int
    target: int
    """The banks at its ends."""

    unit: str
    action: str


def route(chip: Chip, source: int, targets: Iterable[int]) -> list[Hop]:
    """Return the links on the way from bank *source* to *targets*, each behind the one that leads to it.

    What goes to several banks goes over each link once and is handed on where ways part: all ways from one bank make a
    tree. From chip to chip the way is by bank 0 of each.
    """
    hops: dict[int, Hop] = {}  # by the bank that each leads to
    for target in sorted(set(targets) - {source}):
        for hop in _way(chip, source, target):
            hops.setdefault(hop.target, hop)
    return list(hops.values())


def _way(chip: Chip, source: int, target: int) -> list[Hop]:
    """Return the links from bank to bank, one after the other."""
    n = chip.n_banks
    here, there = source // n, target // n
    if here == there:
        return _between_banks(chip, source, target)
    assert chip.chip_link is not None, "the chip file was checked"
    chips = [
        Hop(a * n, b * n, f"chip_link.{a}-{b}", "chip_link.transfer")
        for a, b in _steps(chip.chip_link, chip.n_chips, here, there)
    ]
    return [*_between_banks(chip, source, here * n), *chips, *_between_banks(chip, there * n, target)]


def _between_banks(chip: Chip, source: int, target: int) -> list[Hop]:
    if source == target:
        return []
    assert chip.bank_link is not None, "the chip file was checked"
    n, first = chip.n_banks, source // chip.n_banks * chip.n_banks
    return [
        Hop(first + a, first + b, f"{place_of_chip(chip, source)}bank_link.{a}-{b}", "bank_link.transfer")
        for a, b in _steps(chip.bank_link, n, source - first, target - first)
    ]


def _steps(link: Link, n: int, source: int, target: int) -> list[tuple[int, int]]:
    """Return the links that lead from one of *n* equals to another; half way round a ring upwards."""
    if link.topology == "all-to-all":
        return [(source, target)]
    up = 1 if target > source else -1
    if link.topology == "ring":
        up = 1 if (target - source) % n <= n // 2 else -1
    way = [source]
    while way[-1] != target:
        way.append((way[-1] + up) % n)
    return list(pairwise(way))
