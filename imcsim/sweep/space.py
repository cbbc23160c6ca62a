"""The space of a sweep: parameters, when each is there, what must hold between them, and the points that come of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError
from imcsim.sweep.distinct import firsts, joined
from imcsim.sweep.expressions import Expression
from imcsim.sweep.names import figures_of, value_of
from imcsim.sweep.parameters import Choices, Floats, Parameter, Range, column_of
from imcsim.sweep.points import Column, Points, Value
from imcsim.sweep.records import MOST_POINTS, Method

Bools = NDArray[np.bool_]

MOST_DRAWS = 100
"""How often more points are drawn where constraints and doubles have left fewer than were asked for."""

LEAST_DRAWN = 1 << 13
"""How many are drawn then, at least."""

IN_VAIN = 1 << 16
"""How many have been drawn, at least, before a draw that brings no new point is the last."""


@dataclass(frozen=True)
class Sampling:
    """How points are taken from a space."""

    method: Method = "grid"
    n: int | None = None
    """How many different points are drawn; None for a grid, which has every combination."""

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

    sampling: Sampling = Sampling()
    """How its points are taken, where they are not given."""

    label: str = ""
    """What messages begin with, such as the sweep file."""

    def __eq__(self, other: object) -> bool:
        return _said(self) == _said(other) if isinstance(other, Space) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by name."""
        return {parameter.name: parameter for parameter in self.parameters}

    @cached_property
    def ordered(self) -> tuple[Parameter, ...]:
        """The parameters, each behind those that its condition asks for; otherwise as the user wrote them."""
        done: dict[str, Parameter] = {}
        while len(done) < len(self.parameters):
            n_before = len(done)
            for parameter in self.parameters:
                if parameter.name not in done and all(name in done for name in self._asked(parameter)):
                    done[parameter.name] = parameter
            if len(done) == n_before:
                raise self._circle(done)
        return tuple(done.values())

    def _asked(self, parameter: Parameter) -> list[str]:
        """Return the parameters that the condition of one asks for."""
        return [name for name in (parameter.when.names if parameter.when else ()) if name in self.by_name]

    def _circle(self, done: Mapping[str, Parameter]) -> ConfigError:
        """Return what to raise where the conditions of all that are not *done* wait for each other."""
        at = next(parameter.name for parameter in self.parameters if parameter.name not in done)
        way: list[str] = []
        while at not in way:
            way.append(at)
            at = next(name for name in self._asked(self.by_name[at]) if name not in done)
        circle = " > ".join([*way[way.index(at) :], at])
        return ConfigError(f"parameters: {at}: when: must not lead back to the parameter, got {circle}")

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

    def points(self) -> Points:
        """Return its points, as the function `points` does, taken as `sampling` says."""
        try:
            return points(self, self.sampling)
        except ConfigError as error:
            raise ConfigError(f"{self.label}: {error}" if self.label else str(error)) from None

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
            n *= len(choices_of(parameter).values)
    return n


def choices_of(parameter: Parameter) -> Choices:
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
    places: dict[str, NDArray[Any]] = {}  # small numbers: what has a value is looked up at the end
    has: dict[str, Bools] = {}
    for parameter in space.ordered:
        k = len(choices_of(parameter).values)
        own = np.arange(k, dtype=np.min_scalar_type(k))
        there = np.ones(n, dtype=np.bool_)
        if parameter.when is not None:
            asked = [name for name in parameter.when.names if name in places]
            columns = {name: choices_of(space.by_name[name]).at(places[name]) for name in asked}
            there = space._where(parameter.when, columns, has, n, if_undefined=False)
        n_there = int(there.sum())
        require_few(n - n_there + n_there * k)
        if n_there == n:
            counts: Any = k
            own = np.tile(own, n)
        else:
            counts = np.where(there, k, 1)
            starts = np.repeat(np.cumsum(counts) - counts, counts)
            own = own[np.arange(len(starts)) - starts]
            has[parameter.name] = there
        places = {name: np.repeat(at, counts) for name, at in places.items()} | {parameter.name: own}
        has = {name: np.repeat(mask, counts) for name, mask in has.items()}
        n = len(own)
    return Points(np.arange(n), {p.name: choices_of(p).at(places[p.name]) for p in space.parameters}, has)


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
    n = min(n, _most_points(space))
    found = space.from_unit(draw(n))
    kept = _kept(space, found)
    n_drawn = len(found)
    for _ in range(MOST_DRAWS):
        if len(kept) >= n:
            break
        n_before = len(kept)
        found = space.from_unit(draw(max(n, LEAST_DRAWN)))
        n_drawn += len(found)
        kept = joined(kept, _kept(space, found))
        kept = kept.take(firsts(kept))
        if len(kept) == n_before and n_drawn >= IN_VAIN:
            break
    if not len(kept):
        raise _nothing_left(space, found)
    return _numbered(kept.take(slice(0, n)))


def _most_points(space: Space) -> int:
    """Return how many points *space* has where they can be counted quickly, else `MOST_POINTS`.

    Raises ConfigError where it has none.
    """
    sizes = [len(p.domain.values) if isinstance(p.domain, Choices) else MOST_POINTS for p in space.parameters]
    if math.prod(sizes) > IN_VAIN:
        return MOST_POINTS
    grid = _grid(space)
    if n := int(space.allowed(grid).sum()):
        return n
    raise _nothing_left(space, grid)


def _kept(space: Space, found: Points) -> Points:
    """Return the points of *found* that the constraints allow, each once."""
    allowed = found.take(space.allowed(found))
    return allowed.take(firsts(allowed))


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
    sobol = qmc.Sobol(n_parameters, scramble=True, bits=50, seed=rng)
    return lambda n: np.asarray(sobol.random(1 << max(0, n - 1).bit_length()))


def _said(space: Space) -> tuple[Any, ...]:
    """Return what two spaces have to share to be equal."""
    rows = None if space.listed is None else list(space.listed.rows())
    return space.base, space.parameters, space.constraints, dict(space.idle), rows, space.sampling
