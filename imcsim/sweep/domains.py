"""What a parameter can be, from the list or the record that a sweep file gives of it."""

import math
from collections.abc import Mapping
from typing import Any

from imcsim.arch.load import shown
from imcsim.errors import ConfigError
from imcsim.sweep.parameters import (
    DISTRIBUTIONS,
    Choices,
    Distribution,
    Domain,
    Range,
    kind_of,
    n_steps,
    require_value,
    steps,
)
from imcsim.sweep.points import Value
from imcsim.sweep.records import MOST_VALUES, ParameterRecord, checked, listed


def domain_of(given: object) -> Domain:
    """Return what a parameter can be, from a list or a record."""
    if isinstance(given, list | tuple):
        return Choices(values_of(given))
    if not isinstance(given, Mapping):
        hint = f"; write [{given}]" if isinstance(given, bool | int | float | str) else ""
        raise ConfigError(f"must be a list of values or a record, got {shown(given)}{hint}")
    record = _checked_record(given)
    if record.values is not None:
        _require_only(given, {"values", "when"}, "values")
        return Choices(values_of(record.values))
    return _distribution(record, given) if record.distribution else _range(record, given)


def _checked_record(given: Mapping[str, Any]) -> ParameterRecord:
    for key, value in given.items():
        if value is None:
            raise ConfigError(f"{key}: must have a value, got nothing")
    return checked(ParameterRecord, given, "")


def _require_only(given: Mapping[str, Any], allowed: set[str], of: str) -> None:
    for key in given:
        if key not in allowed:
            others = sorted(allowed - {of, "when"})
            may = f"; it takes {', '.join(others)}" if others else ""
            raise ConfigError(f"{key}: must not be given beside {of}, got {shown(given[key])}{may}")


def values_of(given: object) -> tuple[Value, ...]:
    """Return a list of values, of one kind and each once."""
    values = listed(given, "", "values")
    seen: dict[Value, None] = {}
    for value in values:
        require_value(value)
        if kind_of((value,)) != kind_of((values[0],)):
            raise ConfigError(f"must be values of one kind, got {shown(values[0])} and {shown(value)}")
        if value in seen:
            raise ConfigError(f"must hold every value once, got {shown(value)} twice")
        seen[value] = None
    return tuple(seen)


def _range(record: ParameterRecord, given: Mapping[str, Any]) -> Choices | Range:
    _require_only(given, {"low", "high", "scale", "n", "step", "whole", "when"}, "low")
    if record.low is None or record.high is None:
        raise ConfigError(f"must have values, or low and high, or a distribution, got {', '.join(given) or 'nothing'}")
    low, high = given["low"], given["high"]
    if not low < high:
        raise ConfigError(f"low: must be less than high ({high}), got {low}")
    if not math.isfinite(high - low):
        raise ConfigError(f"high: must be less than 1.8e308 above low, got {low} and {high}")
    is_log = record.scale == "log"
    if is_log and low <= 0:
        raise ConfigError(f"low: must be greater than 0 on a log scale, got {low}")
    has_whole_ends = isinstance(low, int) and isinstance(high, int)
    if record.whole and not (float(low).is_integer() and float(high).is_integer()):
        raise ConfigError(f"whole: must have whole numbers as low and high, got {low} and {high}")
    is_whole = has_whole_ends if record.whole is None else record.whole
    if is_whole and max(abs(low), abs(high)) > 2**53:
        raise ConfigError(f"high: must be at most 2**53 in a range of whole numbers, got {low} to {high}")
    if record.n is None and record.step is None:
        return Range(int(low), int(high), is_log, True) if is_whole else Range(float(low), float(high), is_log, False)
    numbers = _steps(record, low, high, is_log=is_log)
    if record.whole or (is_whole and all(number.is_integer() for number in numbers)):
        return Choices(tuple(dict.fromkeys(map(round, numbers))))
    # whole numbers between whole ends stay whole: a key that takes no others says which number it does not take
    return Choices(tuple(dict.fromkeys(int(x) if is_whole and x.is_integer() else x for x in numbers)))


def _steps(record: ParameterRecord, low: float, high: float, *, is_log: bool) -> list[float]:
    """Return the numbers of a range with n or step."""
    if record.n is not None and record.step is not None:
        raise ConfigError("step: must stand in place of n, got both")
    if record.step is not None:
        least = 1 if is_log else 0
        if record.step <= least:
            raise ConfigError(f"step: must be greater than {least}{' on a log scale' * is_log}, got {record.step:g}")
        if (n := n_steps(low, high, record.step, is_log=is_log)) > MOST_VALUES:
            raise ConfigError(f"step: must make at most {MOST_VALUES} values, got {n}")
    return steps(float(low), float(high), step=record.step, n=record.n, is_log=is_log).tolist()


def _distribution(record: ParameterRecord, given: Mapping[str, Any]) -> Distribution:
    assert record.distribution is not None
    family = DISTRIBUTIONS[record.distribution]
    _require_only(given, {"distribution", *family.needs, "low", "high", "whole", "when"}, "distribution")
    for key in family.needs:
        if getattr(record, key) is None:
            raise ConfigError(f"{key}: missing; a {record.distribution} distribution needs {', '.join(family.needs)}")
    low, high = record.low, record.high
    if low is not None and high is not None and not low < high:
        raise ConfigError(f"low: must be less than high ({high:g}), got {low:g}")
    positive = {
        "normal": ("sd",),
        "log-normal": ("median", "sigma"),
        "exponential": ("mean",),
        "log-uniform": ("low",),
    }
    for key in positive.get(record.distribution, ()):
        if not getattr(record, key) > 0:
            raise ConfigError(f"{key}: must be greater than 0, got {getattr(record, key):g}")
    if record.mode is not None and low is not None and high is not None and not low <= record.mode <= high:
        raise ConfigError(f"mode: must be from low ({low:g}) to high ({high:g}), got {record.mode:g}")
    made = Distribution(
        record.distribution, tuple(getattr(record, key) for key in family.needs), low, high, bool(record.whole)
    )
    if not made.mass > 0:
        raise ConfigError(f"low: must leave some of the distribution up to high, got {shown(low)} and {shown(high)}")
    if record.whole and low is not None and high is not None and math.ceil(low) > math.floor(high):
        raise ConfigError(f"whole: must have a whole number from low to high, got {low:g} and {high:g}")
    return made
