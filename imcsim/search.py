"""Mapping for time or energy by trial: from the shipped policies on, split by split, simulations as the judge."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from imcsim.analytic import estimate
from imcsim.arch.spec import Chip
from imcsim.costs.price import price
from imcsim.errors import ConfigError, MappingError
from imcsim.graph import Graph
from imcsim.mapping.place import POLICIES, Split, greatest_rate, place, splits_of
from imcsim.mapping.plan import Plan, Style

Objective = Literal["latency", "energy", "edp"]
Engine = Literal["simulate", "estimate"]
Progress = Callable[[str, int, int], None]
Splits = tuple[Split, ...]

SLACK = 1.02
"""A plan is judged if by formula it is less than this times the best: formulas are some percent off."""


@dataclass(frozen=True)
class Trial:
    """One plan that was judged."""

    origin: str
    """The policy it is of, or the layer whose split was changed."""

    latency_ns: float
    energy_pJ: float
    is_best: bool
    """Whether it was the best so far."""


@dataclass(frozen=True, eq=False)
class Found:
    """The best plan, and everything that was judged, in order."""

    plan: Plan
    trials: tuple[Trial, ...]
    was_stopped: bool
    """Whether it was interrupted; the plan is the best until then."""


def search(
    graph: Graph,
    chip: Chip,
    *,
    style: Style | None = None,
    n_samples: int = 1,
    objective: Objective = "latency",
    engine: Engine = "simulate",
    seed: int = 0,
    n_trials: int = 60,
    progress: Progress | None = None,
) -> Found:
    """Return the plan with the least latency, energy or energy times delay (*objective*) that some trials find.

    All shipped policies are judged first, so the plan is never worse than any of theirs. Then one layer's split is
    changed at a time: layers that take long are likelier to come first, neighbours of the split are tried from the one
    that the formulas like best, and what *engine* says is better stays. It ends after *n_trials* plans, when no change
    is left that promises anything, or at an interrupt (Ctrl-C), with the best until then. The same *seed* gives the
    same plan. Raises ConfigError for an unknown objective or engine, MappingError for what does not fit.
    """
    for name, value, kind in (("objective", objective, Objective), ("engine", engine, Engine)):
        if value not in get_args(kind):
            raise ConfigError(f"{name}: must be one of {', '.join(get_args(kind))}, got {value!r}")
    if n_trials < len(POLICIES):
        raise ConfigError(f"n_trials: must be at least {len(POLICIES)}, one for each policy, got {n_trials}")
    state = _Search(graph, chip, style, n_samples, objective, engine, np.random.default_rng(seed), n_trials, progress)
    was_stopped = False
    try:
        state.run()
    except KeyboardInterrupt:
        if state.best is None:
            raise
        was_stopped = True
    assert state.best is not None
    return Found(state.best, tuple(state.trials), was_stopped)


@dataclass(eq=False)
class _Search:
    graph: Graph
    chip: Chip
    style: Style | None
    n_samples: int
    objective: Objective
    engine: Engine
    rng: np.random.Generator
    n_trials: int
    progress: Progress | None

    def __post_init__(self) -> None:
        self.costs = price(self.chip)
        self.best: Plan | None = None
        self.least = float("inf")
        self.trials: list[Trial] = []
        self.judged: set[Splits] = set()
        self.promises: dict[Splits, tuple[Plan, float] | None] = {}

    def run(self) -> None:
        for name, policy in POLICIES.items():
            self.judge(place(self.graph, self.chip, n_samples=self.n_samples, style=self.style, policy=policy), name)
        while len(self.trials) < self.n_trials and any(self.judge(plan, layer) for plan, layer in self.changes()):
            pass

    def judge(self, plan: Plan, origin: str) -> bool:
        """Simulate *plan*, and keep it if it is the best so far; whether it is."""
        self.judged.add(_splits(plan))
        if self.engine == "simulate":
            from imcsim.sim import simulate

            trace = simulate(plan, self.costs)
            latency_ns, energy_pJ = trace.latency_ns, trace.energy_pJ
        else:
            by_formula = estimate(plan, self.costs)
            latency_ns, energy_pJ = by_formula.latency_ns, by_formula.energy_pJ
        is_best = self.score(latency_ns, energy_pJ) < self.least
        if is_best:
            self.best, self.least = plan, self.score(latency_ns, energy_pJ)
        self.trials.append(Trial(origin, latency_ns, energy_pJ, is_best))
        if self.progress is not None:
            self.progress("search", len(self.trials), self.n_trials)
        return is_best

    def score(self, latency_ns: float, energy_pJ: float) -> float:
        return {"latency": latency_ns, "energy": energy_pJ, "edp": latency_ns * energy_pJ}[self.objective]

    def changes(self) -> Iterator[tuple[Plan, str]]:
        """Yield plans that differ from the best in one split and promise something, as long as trials are left."""
        assert self.best is not None
        best = self.best
        now = _splits(best)
        layers = [layer for layer in best.layers if layer.is_on_tiles]
        if not layers:
            return
        times = estimate(best, self.costs).times
        weights = np.array([times[layer.name].added_ns for layer in layers])
        by_formula = self.promise(now)
        assert by_formula is not None
        for i in self.rng.choice(len(layers), len(layers), replace=False, p=weights / weights.sum()):
            trials = [
                (*now[:i], split, *now[i + 1 :]) for split in _neighbours(now[i], list(splits_of(layers[i], self.chip)))
            ]
            promised = [
                (p[1], p[0]) for p in (self.promise(trial) for trial in trials if trial not in self.judged) if p
            ]
            for score, plan in sorted(promised, key=lambda pair: pair[0]):
                if score < SLACK * by_formula[1] and len(self.trials) < self.n_trials:
                    yield plan, layers[i].name

    def promise(self, splits: Splits) -> tuple[Plan, float] | None:
        """Return the plan of *splits* and its score by formula; None where it does not fit."""
        if splits not in self.promises:
            try:
                plan = place(
                    self.graph, self.chip, n_samples=self.n_samples, style=self.style, policy=lambda *_: list(splits)
                )
                by_formula = estimate(plan, self.costs)
                self.promises[splits] = plan, self.score(by_formula.latency_ns, by_formula.energy_pJ)
            except MappingError:
                self.promises[splits] = None
        return self.promises[splits]


def _splits(plan: Plan) -> Splits:
    return tuple(Split(layer.n_row_chunks, layer.n_replicas) for layer in plan.layers if layer.is_on_tiles)


def _neighbours(split: Split, offered: list[Split]) -> list[Split]:
    """Return the splits of *offered* that are at most two steps of chunks and one of copies away.

    Those too that have half the chunks and twice the copies, or the other way round: they keep as many tiles busy.
    """
    chunks = sorted({other.n_row_chunks for other in offered} | {split.n_row_chunks})
    at = chunks.index(split.n_row_chunks)
    near = chunks[max(0, at - 2) : at + 3]
    copies = (split.n_replicas // 2, split.n_replicas, split.n_replicas * 2)
    traded = [
        Split(min(chunks, key=lambda n: abs(n - wanted)), n_copies)
        for wanted, n_copies in ((split.n_row_chunks / 2, copies[2]), (2 * split.n_row_chunks, copies[0]))
    ]
    return [
        other
        for other in offered
        if other != split and (other in traded or (other.n_row_chunks in near and other.n_replicas in copies))
    ]


def default_policy(style: Style) -> str:
    """Return the name of the policy that `place` takes where none is given."""
    return "greatest_rate" if style == "pipelined" else "least_time"


def place_by(
    policy: str | None,
    graph: Graph,
    chip: Chip,
    *,
    n_samples: int = 1,
    style: Style | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """Return the plan of a *policy* by its name: one of the shipped ones, or search, or search:OBJECTIVE.

    Without one it is that of the style, as `place` has it. Raises ConfigError for a name that is none, MappingError for
    what does not fit.
    """
    if policy is None:
        return place(graph, chip, n_samples=n_samples, style=style)
    kind, colon, objective = policy.partition(":")
    if kind == "search" and (not colon or objective in get_args(Objective)):
        aim: Objective = objective or "latency"  # type: ignore[assignment]
        return search(graph, chip, style=style, n_samples=n_samples, objective=aim, seed=seed, progress=progress).plan
    named = POLICIES | {"greatest_rate": greatest_rate}
    if policy not in named:
        names = ", ".join([*named, "search", *(f"search:{name}" for name in get_args(Objective))])
        raise ConfigError(f"policy: must be one of {names}, got {policy!r}")
    return place(graph, chip, n_samples=n_samples, style=style, policy=named[policy])
