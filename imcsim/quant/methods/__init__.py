"""Every published method by id and by name: ``find_method("M5")``, ``find_method("lsq")``, ``"lsq:bits_w=2"``."""

import difflib
from functools import cache
from importlib import import_module

from imcsim.errors import ConfigError
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.networks import Float
from imcsim.quant.tailored import method_with

FAMILIES = (
    "binary",
    "xnor",
    "shortcuts",
    "ternary",
    "grouped",
    "multi_base",
    "uniform",
    "int8",
    "selected",
    "variants",
)
"""Modules of this package; each lists its methods as METHODS and, in REPEATS, records that repeat another listing."""


@cache
def methods() -> dict[str, type[Method]]:
    """Return every method by its id, in the order of the families."""
    found: dict[str, type[Method]] = {}
    for family in FAMILIES:
        for kind in import_module(f"imcsim.quant.methods.{family}").METHODS:
            found[kind.record.id] = kind
    return found


@cache
def records() -> tuple[MethodRecord, ...]:
    """Return every record, those that repeat a listing included, in the order of their ids."""
    repeats = [record for family in FAMILIES for record in getattr(_family(family), "REPEATS", ())]
    every = [kind.record for kind in methods().values()] + repeats
    return tuple(sorted(every, key=lambda record: (order_of(record.id), record.name)))


def order_of(identifier: str) -> tuple[int, int]:
    """Return the place of an id: A1 ... A15, B1 ..., T1 ..., M1 ..., I1 ..., then the named-only ones (N1 ...)."""
    letters = "ABTMIN"
    return letters.index(identifier[0]), int(identifier[1:])


def find_method(text: str) -> Method:
    """Return the method of an id or a name, with options behind a colon: ``dorefa:bits_w=2,bits_a=4``.

    ``3.bits_a=8`` is an option of the third layer alone, in the order in which a network asks the method for layers.
    Raises ConfigError for a name that is none, with the nearest, and for options that the method has not.
    """
    name, _, options = text.strip().partition(":")
    if name == Float.record.name:  # the baseline, which no list of papers has
        return Float()
    by_name: dict[str, type[Method]] = {}
    for record in records():
        kind = methods()[record.same_as or record.id]
        by_name[record.id.lower()] = by_name[record.name.lower()] = kind
    found = by_name.get(name.lower())
    if found is None:
        near = difflib.get_close_matches(name.lower(), by_name, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "imcsim quantizer list names them all"
        raise ConfigError(f"quantizer: must be an id or a name of a method, got {name!r}; {hint}")
    return method_with(found, [option.strip() for option in options.split(",") if option.strip()])


def record_of(text: str) -> MethodRecord:
    """Return the record of an id or a name, also of one that repeats another listing."""
    for record in records():
        if text.lower() in (record.id.lower(), record.name.lower()):
            return record
    return find_method(text).record


def _family(name: str) -> object:
    return import_module(f"imcsim.quant.methods.{name}")
