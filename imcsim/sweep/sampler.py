"""What Optuna asks for next: the points of one batch, from those of the batches before it.

A batch is a pure function of the space, the seed, its own number and the finished points before it: for each one a
study is made in memory, given the past, and asked. Nothing else is remembered, so nothing can be lost: whoever has the
same past, after a crash or on another machine, draws the same batch.

Every parameter is drawn for every point, also where its condition does not hold: it rests there, as an idle gene does,
and evolves with the others instead of being drawn anew at random.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from imcsim.errors import ConfigError
from imcsim.sweep.ledger import NOTE, directions_of
from imcsim.sweep.parameters import Choices, Distribution, Domain, Range
from imcsim.sweep.points import Points, Value
from imcsim.sweep.space import Space
from imcsim.sweep.spec import Search
from imcsim.sweep.stages import Floats

FORBIDDEN = 100
"""Draws in a row that the constraints on parameters may forbid; then a point that they allow is sought by chance."""

BY_CHANCE = 1 << 16
"""Random points among which it is sought at a time."""

BLOCKS = 16
"""How many times that is done."""

REPEATED = 10
"""Draws in a row that may give a point that was there before; then it is taken, and costs nothing."""

FOREST = {"n_trees": 32, "max_depth": 8}
"""Of fANOVA: as deep as few hundred points allow, and a few seconds for thousands."""

Genes = Mapping[str, Value]


@dataclass(frozen=True)
class Drawn:
    """One point as Optuna drew it."""

    genes: Genes
    """Every parameter, also those that the point does not have; of a distribution its share in 0 ... 1."""

    row: Mapping[str, Value]
    """The parameters that the point has."""

    notes: Mapping[str, Any]
    """What the sampler wants to find with the point later on (its generation)."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what Optuna says of its own parts (experimental, deprecated) from the user, who did not choose them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Return what Optuna has to know of each parameter."""
    return {parameter.name: _distribution(parameter.domain) for parameter in space.parameters}


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choices):
        return CategoricalDistribution(domain.at(np.arange(len(domain.values))).tolist())
    if isinstance(domain, Distribution):
        return FloatDistribution(0.0, 1.0)
    if domain.is_whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.is_log)
    return FloatDistribution(domain.low, domain.high, log=domain.is_log)


def row_of(space: Space, genes: Genes) -> dict[str, Value]:
    """Return the parameters that a point has, as the user wrote them down."""
    row: dict[str, Value] = {}
    for parameter in space.ordered:
        if space.is_active(parameter.name, row):
            gene, domain = genes[parameter.name], parameter.domain
            row[parameter.name] = gene if is_itself(domain) else domain.from_unit(np.array([gene])).tolist()[0]
    return row


def is_itself(domain: Domain) -> bool:
    """Whether Optuna draws the value of a parameter; otherwise it draws the share that the value has."""
    return isinstance(domain, Choices | Range)


def points_of_rows(space: Space, numbers: Sequence[int], rows: Sequence[Mapping[str, Value]]) -> Points:
    """Return points with a column for every parameter, whether or not one of these points has it."""
    columns, has = {}, {}
    for parameter in space.parameters:
        idle = parameter.domain.from_unit(np.full(len(rows), 0.5))
        there = np.array([parameter.name in row for row in rows], dtype=bool)
        idle[there] = [row[parameter.name] for row in rows if parameter.name in row]
        columns[parameter.name] = idle
        if not there.all():
            has[parameter.name] = there
    return Points(np.asarray(numbers, dtype=np.int64), columns, has)


def study_of(maximize: Sequence[bool], past: Sequence[FrozenTrial], sampler: BaseSampler | None = None) -> Study:
    """Return a study in memory to which all of *past* came through.

    A point that failed, that the constraints forbid, or that was dropped on the way has no values; it gets values that
    are worse than all there are in every objective, the same for all such points.
    """
    signs = np.where(maximize, -1.0, 1.0)
    known = [trial for trial in past if is_done(trial)]
    losses = np.array([trial.values for trial in known]).reshape(len(known), len(signs)) * signs
    penalty = np.zeros(len(signs)) if not known else losses.max(axis=0) + np.maximum(1.0, np.ptp(losses, axis=0))
    study = optuna.create_study(
        directions=directions_of(maximize),
        sampler=sampler or optuna.samplers.RandomSampler(seed=0),
    )
    for trial in past:
        study.add_trial(
            optuna.create_trial(
                values=trial.values if is_done(trial) else (penalty * signs).tolist(),
                params=trial.params,
                distributions=trial.distributions,
                system_attrs=trial.user_attrs[NOTE]["sampler"],
            )
        )
    return study


def is_done(trial: FrozenTrial) -> bool:
    """Whether a point of the past has all its values, and the constraints allow it."""
    return trial.user_attrs[NOTE]["status"] == "done"


def draw(
    space: Space, search: Search, maximize: Sequence[bool], past: Sequence[FrozenTrial], batch: int, n: int
) -> list[Drawn]:
    """Return the *n* points of a *batch*, which *past*, every point of the batches before it, leads to.

    What the constraints on parameters forbid is drawn anew, and so is, a few times, what was there before. Raises
    ConfigError where the constraints leave nothing that can be found.
    """
    with quiet():
        study = study_of(maximize, past, _sampler(search, batch))
        distributions = distributions_of(space)
        seen = {_key(row_of(space, trial.params)) for trial in past}
        rng = np.random.default_rng([search.seed, batch])
        drawn: list[Drawn] = []
        for _ in range(n):
            drawn.append(_drawn(space, study, distributions, seen, rng))
            seen.add(_key(drawn[-1].row))
    return drawn


def _sampler(search: Search, batch: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([search.seed, batch]).generate_state(1)[0])
    if search.sampler == "nsga2":
        return NSGAIISampler(population_size=search.population, seed=seed)
    return TPESampler(seed=seed, constant_liar=True)  # a batch is asked at once, and must not be one point over again


def _drawn(
    space: Space, study: Study, distributions: dict[str, BaseDistribution], seen: set[Any], rng: np.random.Generator
) -> Drawn:
    n_repeated = 0
    notes: dict[str, Any] = {}
    for _ in range(FORBIDDEN):
        trial = study.ask(distributions)
        notes = _notes(study, trial)
        row = row_of(space, trial.params)
        if space.feasible_parameters(row):
            if _key(row) not in seen or n_repeated == REPEATED:
                return Drawn(trial.params, row, notes)
            n_repeated += 1
        study.tell(trial, state=TrialState.FAIL)
    genes = _allowed_genes(space, rng)
    return Drawn(genes, row_of(space, genes), notes)


def _allowed_genes(space: Space, rng: np.random.Generator) -> Genes:
    """Return a random point that the constraints on parameters allow."""
    for _ in range(BLOCKS):
        shares = rng.random((BY_CHANCE, len(space.parameters)))
        found = space.from_unit(shares)
        allowed = np.flatnonzero(space.allowed(found))
        if len(allowed):
            genes = {}
            for i, parameter in enumerate(space.parameters):
                column = found.columns[parameter.name] if is_itself(parameter.domain) else shares[:, i]
                genes[parameter.name] = column[allowed[:1]].tolist()[0]
            return genes
    rules = ", ".join(repr(rule.text) for rule in space.of_parameters)
    raise ConfigError(
        f"constraints: must leave points that a search can find, got none among {BLOCKS * BY_CHANCE} random ones "
        f"({rules}); narrow the parameters, or list the points"
    )


def _notes(study: Study, trial: Trial) -> dict[str, Any]:
    return dict(study.get_trials(deepcopy=False)[trial.number].system_attrs)


def _key(row: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(row.items()))


def importances(
    maximize: Sequence[bool], past: Sequence[FrozenTrial], seed: int, n_least: int
) -> list[dict[str, float]]:
    """Return for each objective how much of its variance each parameter explains, the greatest first (fANOVA).

    Empty where fewer than *n_least* points have values, or all have the same one. Shares add up to 1.

    Source: Hutter, Hoos and Leyton-Brown, An efficient approach for assessing hyperparameter importance, ICML 2014.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    done = [trial for trial in past if is_done(trial)]
    values: Floats = np.array([trial.values for trial in done]).reshape(len(done), len(maximize))
    found: list[dict[str, float]] = []
    for column in values.T:
        if len(done) < n_least or np.ptp(column) == 0:
            found.append({})
            continue
        with quiet():
            study = study_of([False], [])
            for trial, value in zip(done, column.tolist(), strict=True):
                study.add_trial(
                    optuna.create_trial(value=value, params=trial.params, distributions=trial.distributions)
                )
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(**FOREST, seed=seed))
        ordered = sorted(shares.items(), key=lambda share: (-share[1], share[0]))
        found.append({name: float(share) for name, share in ordered})
    return found
