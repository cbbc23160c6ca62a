"""The space of a sweep: parameters, when each is there, what must hold between them, and the points that come of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from imcsim.arch.load import checked_values, near, shown
from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError
from imcsim.mapping.place import POLICIES
from imcsim.mapping.plan import Style
from imcsim.sweep.expressions import Expression, Kind, Known
from imcsim.sweep.objectives import FIGURES, SHORT
from imcsim.sweep.parameters import Choices, Floats, Parameter, Range, column_of
from imcsim.sweep.points import Column, Points, Value

Bools = NDArray[np.bool_]
Method = Literal["grid", "random", "latin-hypercube", "sobol"]

MOST_POINTS = 100_000_000
MOST_DRAWS = 100
"""How often points are drawn anew where constraints or doubles leave fewer than were asked for."""

BESIDE_THE_CHIP = ("workload", "quantizer", "mapping.policy", "mapping.style", "mapping.batch", "seed")
"""What a sweep may vary beside the keys of its chip, and ``quantizer.OPTION``."""


@dataclass(frozen=True)
class Sampling:
    """How points are taken from a space."""

    method: Method = "grid"
    n: int | None = None
    """How many; None for a grid, which has all of them."""

    seed: int = 0


@dataclass(frozen=True, eq=False)
class Space:
    """What a sweep varies, and what it does not vary too: the base chip."""

    base: Chip
    parameters: tuple[Parameter, ...]
    constraints: tuple[Expression, ...] = ()
    idle: Mapping[str, Value] = field(default_factory=dict)
    """What a point without the parameter has, beside the chip's own values: the sweep's workload and seed."""

    listed: Points | None = None
    """The points themselves, where they are given one by one."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        ours, theirs = [
            (space.base, space.parameters, space.constraints, dict(space.idle), _rows(space.listed))
            for space in (self, other)
        ]
        return ours == theirs

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def ordered(self) -> tuple[Parameter, ...]:
        """The parameters, each behind those that its condition asks for; otherwise as the user wrote them."""
        done: dict[str, Parameter] = {}

        def add(parameter: Parameter, asking: tuple[str, ...]) -> None:
            if parameter.name in asking:
                circle = " > ".join([*asking[asking.index(parameter.name) :], parameter.name])
                raise ConfigError(f"parameters: {parameter.name}: when must not lead back to itself, got {circle}")
            if parameter.name in done:
                return
            for name in parameter.when.names if parameter.when else ():
                if name in self.by_name:
                    add(self.by_name[name], (*asking, parameter.name))
            done[parameter.name] = parameter

        for parameter in self.parameters:
            add(parameter, ())
        return tuple(done.values())

    @cached_property
    def of_parameters(self) -> tuple[Expression, ...]:
        """The constraints that are judged before anything is evaluated."""
        return tuple(rule for rule in self.constraints if not figures_of(rule))

    @cached_property
    def of_figures(self) -> tuple[Expression, ...]:
        """The constraints that are judged on results."""
        return tuple(rule for rule in self.constraints if figures_of(rule))

    def value_without(self, name: str) -> Value | None:
        """Return what a point has that lacks the parameter *name*: the base chip's value; None where there is none."""
        return self.idle[name] if name in self.idle else value_of(self.base, name)

    # --- one point -------------------------------------------------------------------------------------------------

    def is_active(self, name: str, values: Mapping[str, Value]) -> bool:
        """Whether a point with *values*, those of the parameters before it in `ordered`, has the parameter *name*."""
        when = self.by_name[name].when
        return when is None or self._holds(when, values, if_undefined=False)

    def feasible_parameters(self, values: Mapping[str, Value]) -> bool:
        """Whether a point with *values* is one that the constraints on parameters allow."""
        return all(self._holds(rule, values, if_undefined=True) for rule in self.of_parameters)

    def _holds(self, rule: Expression, values: Mapping[str, Value], *, if_undefined: bool) -> bool:
        found = {name: values[name] if name in values else self.value_without(name) for name in rule.names}
        return if_undefined if None in found.values() else bool(rule.values(found))

    # --- many points -----------------------------------------------------------------------------------------------

    def from_unit(self, u: Floats) -> Points:
        """Return the points of shares *u* (n p) in 0 ... 1, a column for each of `parameters`; nothing is left out."""
        columns = {p.name: p.domain.from_unit(u[:, i]) for i, p in enumerate(self.parameters)}
        has: dict[str, Bools] = {}
        for parameter in self.ordered:
            if parameter.when is not None:
                there = self._where(parameter.when, columns, has, len(u), if_undefined=False)
                if not there.all():
                    has[parameter.name] = there
        return Points(np.arange(len(u)), columns, has)

    def allowed(self, points: Points) -> Bools:
        """Return which points (n) the constraints on parameters allow."""
        mask = np.ones(len(points), dtype=np.bool_)
        for rule in self.of_parameters:
            mask &= self._holding(rule, points)
        return mask

    def feasible(self, figures: Mapping[str, Floats], points: Points | None = None) -> Bools:
        """Return which points (n) the constraints on figures allow, from each figure's values (n).

        A figure that is not there, or NaN, is not known yet: what asks for it is not judged. *points* are needed where
        a constraint asks for parameters too.
        """
        n = len(next(iter(figures.values()))) if figures else len(points or ())
        mask = np.ones(n, dtype=np.bool_)
        for rule in self.of_figures:
            asked = figures_of(rule)
            if any(name not in figures for name in asked):
                continue
            assert points is not None or not any(name in self.by_name for name in rule.names), "needs the points"
            known = np.logical_and.reduce([~np.isnan(figures[name]) for name in asked])
            columns = {} if points is None else points.columns
            has = {} if points is None else points.has
            both = {**columns, **figures}
            mask &= self._where(rule, both, has, n, if_undefined=True, also=asked) | ~known
        return mask

    def _holding(self, rule: Expression, points: Points) -> Bools:
        return self._where(rule, points.columns, points.has, len(points), if_undefined=True)

    def _where(
        self,
        rule: Expression,
        given: Mapping[str, Column],
        has: Mapping[str, Bools],
        n: int,
        *,
        if_undefined: bool,
        also: tuple[str, ...] = (),
    ) -> Bools:
        """Return where *rule* holds (n); *if_undefined* where it asks for what neither the point nor the chip has."""
        columns: dict[str, Any] = {}
        undefined = np.zeros(n, dtype=np.bool_)
        for name in rule.names:
            if name not in self.by_name and name not in also:
                value = self.value_without(name)
                if value is None:
                    return np.full(n, if_undefined)
                columns[name] = value
                continue
            columns[name] = given[name]
            if name in has:
                value = self.value_without(name)
                if value is None:
                    undefined |= ~has[name]
                else:
                    columns[name] = np.where(has[name], columns[name], column_of([value]))
        held = np.broadcast_to(rule.values(columns), n)
        return np.where(undefined, if_undefined, held)


def points(space: Space, sampling: Sampling) -> Points:
    """Return the points that *sampling* takes from *space* and its constraints allow, numbered from 0 without gaps.

    A grid has every combination once. What is drawn is drawn on until there are as many different points as were asked
    for; there are fewer where the space has no more. The same seed gives the same points. Raises ConfigError for a grid
    of more than `MOST_POINTS`, and where no point is left.
    """
    if space.listed is not None:
        found = space.listed
    elif sampling.method == "grid":
        found = _grid(space)
    else:
        return _drawn(space, sampling)
    mask = space.allowed(found)
    if not mask.any():
        raise _nothing_left(space, found)
    return found if mask.all() else _numbered(found.take(mask))


def _numbered(found: Points) -> Points:
    return Points(np.arange(len(found)), found.columns, found.has)


def _nothing_left(space: Space, found: Points) -> ConfigError:
    """Return what to raise where the constraints allow none of the points *found*."""
    alone = {rule.text: int(space._holding(rule, found).sum()) for rule in space.of_parameters}
    empty = [text for text, n in alone.items() if not n]
    told = [f"{text!r} alone leaves {alone[text]}" for text in empty or alone]
    said = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    return ConfigError(f"constraints: must leave at least one point, got 0 of {len(found)}; {said}")


# --- grids ------------------------------------------------------------------------------------------------------


def n_grid(space: Space) -> int:
    """Return how many points the grid has without the parameters that have conditions, and without constraints."""
    n = 1
    for parameter in space.parameters:
        if parameter.when is None:
            n *= len(_choices(parameter).values)
    return n


def _choices(parameter: Parameter) -> Choices:
    """Return the values of a parameter; raises ConfigError where they cannot be counted."""
    if isinstance(parameter.domain, Choices):
        return parameter.domain
    if isinstance(parameter.domain, Range):
        raise ConfigError(
            f"parameters: {parameter.name}: must have n or step in a grid, got a range from {parameter.domain.low:g} "
            f"to {parameter.domain.high:g}"
        )
    raise ConfigError(
        f"parameters: {parameter.name}: must be a list or a range in a grid, got a distribution; give a sampling such "
        "as {method: sobol, n: 256}"
    )


def _grid(space: Space) -> Points:
    """Return every combination once: the last parameter changes fastest, and what is absent takes part in none."""
    require_few(n_grid(space))
    n = 1
    places: dict[str, NDArray[Any]] = {}
    has: dict[str, Bools] = {}
    for parameter in space.ordered:
        values = _choices(parameter).values
        there = np.ones(n, dtype=np.bool_)
        if parameter.when is not None:
            columns = {name: _choices(space.by_name[name]).at(at) for name, at in places.items()}
            there = space._where(parameter.when, columns, has, n, if_undefined=False)
        n_there = int(there.sum())
        require_few(n - n_there + n_there * len(values))
        counts = np.where(there, len(values), 1)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        places = {name: np.repeat(at, counts) for name, at in places.items()}
        has = {name: np.repeat(mask, counts) for name, mask in has.items()}
        n = len(starts)
        places[parameter.name] = (np.arange(n) - starts).astype(np.min_scalar_type(len(values)))
        if n_there < len(there):
            has[parameter.name] = np.repeat(there, counts)
    return Points(np.arange(n), {p.name: _choices(p).at(places[p.name]) for p in space.parameters}, has)


def require_few(n: int) -> None:
    """Raise ConfigError for more than `MOST_POINTS` points."""
    if n > MOST_POINTS:
        raise ConfigError(
            f"parameters: must make at most {MOST_POINTS} points, got {n}; give a sampling such as "
            "{method: sobol, n: 100000}"
        )


# --- sampling ---------------------------------------------------------------------------------------------------


def _drawn(space: Space, sampling: Sampling) -> Points:
    n = sampling.n
    assert n is not None, "checked when the file is read"
    draw = _sequence(sampling, len(space.parameters))
    kept: Points | None = None
    first = None
    for i in range(MOST_DRAWS):
        found = space.from_unit(draw(n if i == 0 else max(n, 1024)))
        first = first or found
        n_before = 0 if kept is None else len(kept)
        found = found.take(space.allowed(found))
        kept = _different(found if kept is None else _joined(kept, found))
        if len(kept) >= n or (i > 1 and len(kept) == n_before):
            break
    assert kept is not None
    assert first is not None
    if not len(kept):
        raise _nothing_left(space, first)
    return _numbered(kept.take(slice(0, n)))


def _sequence(sampling: Sampling, n_parameters: int) -> Callable[[int], Floats]:
    """Return what gives the next shares (n p)."""
    rng = np.random.default_rng(sampling.seed)
    if sampling.method == "random" or not n_parameters:
        return lambda n: rng.random((n, n_parameters))
    from scipy.stats import qmc  # takes long to load, and only some sweeps need it

    if sampling.method == "latin-hypercube":
        cube = qmc.LatinHypercube(n_parameters, seed=rng)
        return lambda n: np.asarray(cube.random(n))
    # whole powers of 2 keep the balance of the sequence, and are not warned about
    sobol = qmc.Sobol(n_parameters, scramble=True, seed=rng)
    return lambda n: np.asarray(sobol.random(1 << max(0, n - 1).bit_length()))


def _joined(first: Points, second: Points) -> Points:
    """Return the points of both."""

    def mask(found: Points, name: str) -> Bools:
        return found.has.get(name, np.ones(len(found), dtype=np.bool_))

    columns = {name: np.concatenate([values, second.columns[name]]) for name, values in first.columns.items()}
    names = [name for name in columns if name in first.has or name in second.has]
    has = {name: np.concatenate([mask(first, name), mask(second, name)]) for name in names}
    return Points(np.arange(len(first) + len(second)), columns, has)


def _different(found: Points) -> Points:
    """Return *found* without points that were there before."""
    n = len(found)
    group = np.zeros(n, dtype=np.int64)
    n_groups = min(n, 1)
    for name, values in found.columns.items():
        if n_groups == n:
            return found
        place = np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)[1] + 1
        if name in found.has:
            place = np.where(found.has[name], place, 0)
        names, group = np.unique(group * (int(place.max()) + 1) + place, return_inverse=True)
        n_groups = len(names)
    return found.take(np.sort(np.unique(group, return_index=True)[1]))


# --- names and values -------------------------------------------------------------------------------------------


def value_of(chip: Chip, key: str) -> Value | None:
    """Return what *chip* has at a dotted key; None where it has nothing there, or no single value."""
    found: Any = chip
    for step in key.split("."):
        found = found.get(step) if isinstance(found, dict) else getattr(found, step, None)
    return found if isinstance(found, bool | int | float | str) else None


def keys_of(chip: BaseModel, above: str = "") -> Iterator[str]:
    """Yield the dotted keys of *chip* that a sweep may vary, also those that have no value."""
    for name in type(chip).model_fields:
        found = getattr(chip, name)
        if isinstance(found, BaseModel):
            yield from keys_of(found, f"{above}{name}.")
        elif not isinstance(found, dict | tuple):
            yield f"{above}{name}"


def figures_of(rule: Expression) -> tuple[str, ...]:
    """Return the figures that *rule* asks for."""
    return tuple(name for name in rule.names if name in FIGURES)


def kind_of(values: tuple[Value, ...]) -> Kind:
    """Return of what kind the first of *values* is."""
    first = values[0]
    return "truth" if isinstance(first, bool) else "text" if isinstance(first, str) else "number"


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
    found: Any = base
    steps = name.split(".")
    for i, step in enumerate(steps):
        if found is None:
            record = ".".join(steps[:i])
            raise ConfigError(f"{name}: must be a key of {base.name}, got one of {record}, which it lacks; describe it")
        if not isinstance(found, BaseModel) or step not in type(found).model_fields:
            hint = near(name, (*keys_of(base), *BESIDE_THE_CHIP))
            raise ConfigError(f"{name}: no such key of {base.name}, and no other parameter{hint}")
        found = getattr(found, step)
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
    if isinstance(domain, Choices):
        some: list[Any] = list(domain.values)
    else:
        share = np.array([0.0, 0.37, 1.0]) if isinstance(domain, Range) else np.array([0.37])
        ends = [] if isinstance(domain, Range) else [end for end in (domain.low, domain.high) if end is not None]
        some = [*domain.from_unit(share).tolist(), *(column_of(ends).tolist() if not domain.is_whole else [])]
        if isinstance(domain, Range) and not domain.is_whole:
            some = [domain.low, some[1], domain.high]
    takes = _BESIDE.get(name)
    if name.startswith("quantizer."):
        return
    if takes is not None:
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


def _workload(name: str, value: Value) -> None:
    _text(name, value)


def _quantizer(name: str, value: Value) -> None:
    _text(name, value)
    from imcsim.quant.methods import find_method  # brings in torch

    find_method(str(value))


_BESIDE: dict[str, Callable[[str, Value], None]] = {
    "workload": _workload,
    "quantizer": _quantizer,
    "mapping.policy": _policy,
    "mapping.style": lambda name, value: _one_of(name, value, get_args(Style)),
    "mapping.batch": _whole_from(1),
    "seed": _whole_from(0),
}


def _rows(listed: Points | None) -> list[dict[str, Value]] | None:
    return None if listed is None else list(listed.rows())
