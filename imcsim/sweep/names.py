"""What the names in a sweep file stand for: keys of the chip, parameters beside it, figures."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel

from imcsim.arch.load import checked_values, near, shown
from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError
from imcsim.mapping.place import POLICIES
from imcsim.mapping.plan import Style
from imcsim.sweep.expressions import Expression, Kind, Known
from imcsim.sweep.objectives import FIGURES, SHORT
from imcsim.sweep.parameters import Choices, Distribution, Parameter, Range, kind_of
from imcsim.sweep.points import Value

BESIDE_THE_CHIP = ("workload", "assume", "quantizer", "mapping.policy", "mapping.style", "mapping.batch", "seed")
"""What a sweep may vary beside the keys of its chip, ``assume.KEY``, ``quantizer.OPTION`` and those of a LAYER."""


def value_of(chip: Chip, key: str) -> Value | None:
    """Return what *chip* has at a dotted key; None where it has nothing there, or no single value."""
    found: Any = chip
    for step in key.split("."):
        found = found.get(step) if isinstance(found, dict) else getattr(found, step, None)
    return found if isinstance(found, bool | int | float | str) else None


def keys_of(chip: BaseModel, above: str = "") -> Iterator[str]:
    """Yield the dotted keys of *chip* that a sweep may vary, also those that have no value."""
    for name, field in type(chip).model_fields.items():
        found = getattr(chip, name)
        if isinstance(found, BaseModel):
            yield from keys_of(found, f"{above}{name}.")
        elif not isinstance(found, dict | tuple) and not _is_record(field.annotation):
            yield f"{above}{name}"


def _is_record(kind: Any) -> bool:
    """Whether *kind*, the annotation of a field, stands for a record, or for one that may be missing."""
    return any(isinstance(part, type) and issubclass(part, BaseModel) for part in (kind, *get_args(kind)))


def figures_of(rule: Expression) -> tuple[str, ...]:
    """Return the figures that *rule* asks for."""
    return tuple(name for name in rule.names if name in FIGURES)


class Names:
    """What names in conditions and constraints stand for."""

    def __init__(self, base: Chip, kinds: Mapping[str, Kind]) -> None:
        self.base, self.kinds = base, kinds  # of the parameters, and of what is beside the chip and has a value
        self.keys = tuple(keys_of(base))

    def find(self, name: str) -> Known:
        """Return what *name* stands for: a parameter, a key of the chip, a figure, or the last part of one of these."""
        if name in self.kinds:
            return Known(name, self.kinds[name])
        if (value := value_of(self.base, name)) is not None:
            return Known(name, kind_of((value,)))
        if SHORT.get(name, name) in FIGURES:
            return Known(SHORT.get(name, name))
        if name in BESIDE_THE_CHIP:
            raise ConfigError(f"{name}: must be one of parameters to be asked for, got nothing")
        for where in (tuple(self.kinds), self._own_keys):
            found = [key for key in where if key.rpartition(".")[2] == name]
            if len(found) == 1:
                return self.find(found[0])
            if found:
                some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
                raise ConfigError(f"{name}: must say which, got a name that several keys end with; write one of {some}")
        if name in self.keys:
            raise ConfigError(f"{name}: must have a value in the base chip, got nothing")
        known = (*self.kinds, *self._own_keys, *BESIDE_THE_CHIP, *SHORT, *FIGURES)
        lasts = tuple(dict.fromkeys(key.rpartition(".")[2] for key in (*self.kinds, *self._own_keys)))
        hint = near(name, known) or near(name, lasts) or "; a text stands in quotes"
        raise ConfigError(f"{name}: no such parameter, key of {self.base.name} or figure{hint}")

    @property
    def _own_keys(self) -> tuple[str, ...]:
        """The chip's keys without those of the tile that its energies were characterized at."""
        return tuple(key for key in self.keys if ".characterized_at." not in key)


def require_key(name: str, base: Chip) -> None:
    """Raise ConfigError unless a sweep on the chip *base* may vary *name*."""
    if name in BESIDE_THE_CHIP or (name.startswith("quantizer.") and len(name) > len("quantizer.")):
        return
    if name.startswith("assume."):
        return  # `imcsim.sweep.spec` reads it with the other keys
    found: Any = base
    steps = name.split(".")
    for i, step in enumerate(steps, start=1):
        if not isinstance(found, BaseModel) or step not in type(found).model_fields:
            hint = near(name, (*keys_of(base), *BESIDE_THE_CHIP))
            raise ConfigError(f"{name}: no such key of {base.name}, and no other parameter{hint}")
        field = type(found).model_fields[step]
        found = getattr(found, step)
        if found is None and _is_record(field.annotation):
            record = ".".join(steps[:i])
            raise ConfigError(f"{name}: must be a key of {base.name}, got one of {record}, which it lacks; describe it")
    if isinstance(found, BaseModel | dict | tuple):
        hint = (
            f"; name one of its keys, such as {next(keys_of(found, f'{name}.'))}"
            if isinstance(found, BaseModel)
            else ""
        )
        raise ConfigError(f"{name}: must be a key with one value, got one with several{hint}")


def require_values(parameter: Parameter) -> None:
    """Raise ConfigError unless what the *parameter* can be is what its key takes, the rest of the chip apart."""
    name, domain = parameter.name, parameter.domain
    if name.startswith(("assume.", "quantizer.")):
        return  # what a method takes, it says itself; the keys of an assumption are read together
    some = list(domain.values) if isinstance(domain, Choices) else examples(domain)
    if takes := _BESIDE.get(name):
        for value in some:
            takes(name, value)
        return
    try:
        checked_values(name, some, "value")
    except ConfigError as error:
        if not isinstance(domain, Choices) and "a whole number" in str(error):
            raise ConfigError(
                f"{name}: must be drawn as whole numbers, got {shown(some[-1])}; write whole: true"
            ) from None
        key, _, rest = str(error).partition(": value ")
        raise ConfigError(f"{key}: {rest.partition(': ')[2]}" if rest else str(error)) from None


def examples(domain: Range | Distribution) -> list[Any]:
    """Return the ends of a range, or of a distribution as far as it has any, and a number between."""
    ends = [end for end in (domain.low, domain.high) if end is not None]
    between = domain.from_unit(np.array([0.5])).tolist()
    return [*(between if domain.is_whole and isinstance(domain, Distribution) else ends), *between]


def _policy(name: str, value: Value) -> None:
    from imcsim.search import Objective

    names = (*POLICIES, "greatest_rate", "search", *(f"search:{aim}" for aim in get_args(Objective)))
    _one_of(name, value, names)


def _one_of(name: str, value: Value, names: tuple[str, ...]) -> None:
    if value not in names:
        raise ConfigError(f"{name}: must be one of {', '.join(names)}, got {shown(value)}{near(str(value), names)}")


def _whole_from(least: int) -> Callable[[str, Value], None]:
    def check(name: str, value: Value) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigError(f"{name}: must be a whole number from {least} up, got {shown(value)}")

    return check


def _text(name: str, value: Value) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: must be text, got {shown(value)}")


def _quantizer(name: str, value: Value) -> None:
    _text(name, value)
    from imcsim.quant.methods import find_method  # brings in torch

    find_method(str(value))


_BESIDE: dict[str, Callable[[str, Value], None]] = {
    "workload": _text,
    "assume": _text,
    "quantizer": _quantizer,
    "mapping.policy": _policy,
    "mapping.style": lambda name, value: _one_of(name, value, get_args(Style)),
    "mapping.batch": _whole_from(1),
    "seed": _whole_from(0),
}
