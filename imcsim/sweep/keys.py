"""Under which key the store keeps a result: a digest of network, chip, mapping, engines, samples, seed and version.

A key follows from what a thing is, not from how somebody wrote it: a chip file and a chip with the same numbers by
overrides have one key, and so have two files of one network. Names, sources and descriptions have no part in it.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from imcsim.arch.spec import Chip
from imcsim.arrays import numbered
from imcsim.circuit.misreads import read_table
from imcsim.records import NO_FIGURE
from imcsim.sweep.points import Points
from imcsim.sweep.stages import Stage
from imcsim.version import __version__

SIZE = 16
"""Bytes of a key."""

_MODULUS = 1 << (8 * SIZE)
ABOUT = frozenset({"name", "description", "source", "basis", "within_factor", "figures"})
"""Keys of a chip file that no figure follows from."""


def digest(value: object) -> bytes:
    """Return a digest of *value*: numbers, texts, arrays, and mappings, sequences and records of such.

    Raises TypeError for what it does not know: a digest that left something out would make two things one.
    """
    hashed = hashlib.blake2b(digest_size=SIZE)
    for part in _parts(value):
        hashed.update(part)
    return hashed.digest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yield *value* as bytes, each part with its kind and length before it, so that no two values look alike."""
    match value:
        case None | bool():
            yield f"{value};".encode()
        case int() | np.integer():
            yield f"i{int(value)};".encode()
        case float() | np.floating():
            yield f"f{float(value).hex()};".encode()
        case str():
            text = value.encode()
            yield f"s{len(text)};".encode() + text
        case bytes():
            yield f"b{len(value)};".encode() + value
        case Enum():
            yield from _parts(value.value)
        case np.ndarray():
            yield f"a{value.dtype.str}{value.shape};".encode()
            yield np.ascontiguousarray(value).tobytes()
        case Mapping():
            yield f"m{len(value)};".encode()
            for key in sorted(value):
                yield from _parts(key)
                yield from _parts(value[key])
        case list() | tuple():
            yield f"t{len(value)};".encode()
            for part in value:
                yield from _parts(part)
        case BaseModel():
            yield from _parts({name: getattr(value, name) for name in type(value).model_fields})
        case _ if is_dataclass(value) and not isinstance(value, type):
            yield from _parts(type(value).__name__)
            told = [field.name for field in fields(value) if field.metadata != NO_FIGURE]
            yield from _parts({name: getattr(value, name) for name in told})
        case _:
            raise TypeError(f"digest: must be a record, an array, a number or a text, got {type(value).__name__}")


def leaves(chip: Chip) -> dict[str, Any]:
    """Return the values of a chip by dotted key, without `ABOUT` them."""
    return dict(_leaves(chip.model_dump(), ""))


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if key in ABOUT:
            continue
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def keys_of(points: Points, chip: Chip, rest: Sequence[object]) -> tuple[bytes, ...]:
    """Return the key of each point: *chip* with its changes, its mapping, and what is the same for all (*rest*).

    A chip's digest is the sum of its leaves' digests, so that a change costs two of them, however large the chip is:
    a hundred thousand points are a second. What of a point is no key of the chip counts by its name and value.
    """
    base = leaves(chip)
    of_leaf = {key: _number(digest((key, _told(key, value)))) for key, value in base.items()}
    common = sum(of_leaf.values())
    total: list[int] = [common] * len(points)
    for name, column in points.columns.items():
        there = points.has.get(name)
        was = of_leaf.get(name, 0)
        kinds, of_point = numbered(column)
        now = [_number(digest((name, _told(name, kind)))) for kind in _as_in(base.get(name), kinds)]
        change = [value - was for value in now]
        chosen = of_point.tolist() if there is None else np.where(there, of_point, -1).tolist()
        total = [value + change[kind] if kind >= 0 else value for value, kind in zip(total, chosen, strict=True)]
    tail = digest(tuple(rest))
    return tuple(
        hashlib.blake2b((value % _MODULUS).to_bytes(SIZE, "big") + tail, digest_size=SIZE).digest() for value in total
    )


def stage_rest(workload: bytes, stage: Stage, seed: int, samples: bytes | None) -> tuple[object, ...]:
    """Return what, beside chip and mapping, the figures of a stage follow from.

    Args:
        workload: Digest of the network.
        stage: Its engines; how many samples it executes is in *samples*.
        seed: Of every generator that draws.
        samples: Digest of the samples and labels that are executed; None where none are.
    """
    return ("imcsim", __version__, workload, tuple(sorted(stage.engines)), seed, samples)


def _told(key: str, value: object) -> object:
    """Return what a chip's value says: where it is the path of an error table, what stands in the table."""
    if key != "tile.misreads" or value in ("none", "circuit") or not Path(str(value)).is_file():
        return value
    table = read_table(str(value))
    return table.lower, table.higher


def _number(digested: bytes) -> int:
    return int.from_bytes(digested, "big")


def _as_in(base: object, kinds: list[Any]) -> list[Any]:
    """Return values as the chip's model holds them: a whole number for a real-valued key is a float there."""
    return [float(value) if isinstance(base, float) and type(value) is int else value for value in kinds]
