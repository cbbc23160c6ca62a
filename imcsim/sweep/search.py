"""Search in place of sampling: Optuna asks for points, batch after batch, and is told what came of them.

The points are those of `imcsim.sweep.sampler`: a batch is drawn from the finished batches before it and from the seed,
and from nothing else; its size is the population that the file asks for. So the same file gives the same points
whatever the number of workers and machines, and whatever was killed in between. What was found is in a `Ledger`, which
several processes may share: each claims points of the batch at hand, and waits for the others where none is left.

**Pruning** (``prune: true``) judges points between stages, from the cheap to the dear, once a stage has given every
objective. They are compared with the points of earlier batches that came through, by what the same stage said of
those. With one objective Optuna's median pruner decides. With several a point goes if one of those is better in every
objective, by more than a tenth of the point's own value: a stage may be that far off. A point with an objective that
the stage does not give is never pruned.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from imcsim.sweep.ledger import NOTE, Ledger
from imcsim.sweep.objectives import Objective
from imcsim.sweep.pareto import front, growth, reference_point
from imcsim.sweep.points import Points
from imcsim.sweep.sampler import (
    Drawn,
    distributions_of,
    draw,
    importances,
    is_done,
    points_of_rows,
    quiet,
    row_of,
    study_of,
)
from imcsim.sweep.space import Space
from imcsim.sweep.spec import Search, Sweep
from imcsim.sweep.stages import Floats

Bools = NDArray[np.bool_]

WAIT_S = 0.1
"""How often to look whether other processes are done with the batch."""

MARGIN = 0.1
"""How much better a point must be that another is pruned for, as a share of each of the other's values."""

N_STARTUP = 10
"""Points that must have come through before one is pruned, or importances are told."""


@dataclass(frozen=True)
class Finished:
    """Every finished point of a search, whoever evaluated it, in the order of their numbers."""

    points: Points
    figures: Mapping[str, Floats]
    """Name of a figure to its values (n); NaN where a point has none."""

    messages: tuple[str | None, ...]
    statuses: tuple[str, ...]
    """Of done, failed, infeasible and pruned."""


class Study:
    """A search that is under way: `ask`, evaluate, `survivors` between stages, `tell`, until there is nothing left."""

    def __init__(self, url: str, name: str, space: Space, objectives: Sequence[Objective], search: Search):
        """Open it, or begin it. Raises ConfigError where the database of *url* cannot be reached or used."""
        self.space, self.objectives, self.search = space, tuple(objectives), search
        self.maximize = [objective.is_maximized for objective in objectives]
        self._ledger = Ledger(url, name, self.maximize)
        self._distributions = distributions_of(space)
        self._drawn: dict[int, Drawn] = {}
        self._pruned: set[int] = set()
        self._stages: dict[int, dict[str, list[float]]] = {}

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the points that were asked for and not told of; others may take them up at once."""
        self._ledger.close()

    def ask(self, n: int | None = None) -> Points | None:
        """Return up to *n* points that are ours to evaluate, the whole batch by default; None when all are finished.

        Waits while other processes are at all that is left of the batch: the next one depends on what they find. If
        they die, what they were at is returned here. No points at all are returned where nothing is left of the batch
        but what was asked for before, some of it here: `tell` first.
        """
        while True:
            trials = self._ledger.trials()
            numbers = self._at_hand(trials)
            if not numbers:
                return None
            drawn = self._batch(numbers.start // self.search.population, trials)
            open_ones = [number for number in numbers if number not in trials]
            claimed = self._ledger.claim(open_ones, len(open_ones) if n is None else n)
            ours = [number for number in claimed if number not in self._ledger.trials()] if claimed else []
            if len(ours) < len(claimed):  # finished by their owner between our two looks
                self._ledger.release([number for number in claimed if number not in ours])
            if ours:
                self._drawn |= {number: drawn[number - numbers.start] for number in ours}
                return points_of_rows(self.space, ours, [self._drawn[number].row for number in ours])
            if any(number in self._drawn for number in open_ones):
                return points_of_rows(self.space, [], [])
            if not claimed:
                time.sleep(WAIT_S)

    def _at_hand(self, trials: Mapping[int, FrozenTrial]) -> range:
        """Return the numbers of the first batch with points that are not finished; empty where there is none."""
        size, end = self.search.population, self.search.evaluations
        for start in range(0, end, size):
            numbers = range(start, min(start + size, end))
            if any(number not in trials for number in numbers):
                return numbers
        return range(0)

    def _batch(self, batch: int, trials: Mapping[int, FrozenTrial]) -> list[Drawn]:
        if self._last is None or self._last[0] != batch:
            past = [trial for number, trial in trials.items() if number < batch * self.search.population]
            drawn = draw(self.space, self.search, self.maximize, past, batch, self.search.population)
            self._last = batch, drawn
        return self._last[1]

    _last: tuple[int, list[Drawn]] | None = None

    def survivors(self, points: Points, stage: int, figures: Mapping[str, Floats]) -> Bools:
        """Return which *points* (n) go on from this *stage*, whose place it is, by the *figures* that it gave (n each).

        All of them without ``prune``. What does not go on counts as pruned from here on.
        """
        mask = np.ones(len(points), dtype=bool)
        values = self._values(figures, len(points))
        for number, row in zip(points.numbers.tolist(), values.tolist(), strict=True):
            if np.isfinite(row).all():
                self._stages.setdefault(number, {})[str(stage)] = row
        if not self.search.prune:
            return mask
        trials = self._ledger.trials()
        for place, number in enumerate(points.numbers.tolist()):
            if str(stage) in self._stages.get(number, {}):
                start = number // self.search.population * self.search.population
                past = [trial for other, trial in trials.items() if other < start and is_done(trial)]
                mask[place] = not self._is_poor(number, str(stage), past)
        self._pruned |= set(points.numbers[~mask].tolist())
        return mask

    def _is_poor(self, number: int, stage: str, past: Sequence[FrozenTrial]) -> bool:
        past = [trial for trial in past if stage in trial.user_attrs[NOTE]["stages"]]
        if len(past) < N_STARTUP:
            return False
        row = self._stages[number]
        if len(self.objectives) == 1:
            return _is_pruned_by_median(row, past, self.maximize)
        signs = np.where(self.maximize, -1.0, 1.0)
        losses = np.array([trial.user_attrs[NOTE]["stages"][stage] for trial in past]) * signs
        own = np.array(row[stage]) * signs
        return bool((losses + MARGIN * np.abs(own) < own).all(axis=1).any())

    def tell(self, points: Points, figures: Mapping[str, Floats], messages: Sequence[str | None]) -> None:
        """Say what came of *points*: every figure that is known of them (n each), and why a point failed."""
        values = self._values(figures, len(points))
        allowed = self.space.feasible(figures, points)
        for place, number in enumerate(points.numbers.tolist()):
            is_complete = bool(np.isfinite(values[place]).all())
            message = messages[place]
            if message is not None:
                status = "failed"
            elif number in self._pruned:
                status = "pruned"
            elif not allowed[place]:
                status = "infeasible"
            elif is_complete:
                status = "done"
            else:
                status, message = "failed", f"point {number}: {self._missing(values[place])}"
            known = {name: float(column[place]) for name, column in figures.items() if np.isfinite(column[place])}
            self._ledger.add(number, self._trial(number, status, values[place].tolist(), known, message))

    def _missing(self, row: Floats) -> str:
        names = [o.name for o, value in zip(self.objectives, row.tolist(), strict=True) if not np.isfinite(value)]
        return f"must have a value for {', '.join(names)}, got none"

    def _trial(
        self, number: int, status: str, values: list[float], figures: Mapping[str, float], message: str | None
    ) -> FrozenTrial:
        drawn = self._drawn.pop(number)
        is_complete = status in ("done", "infeasible") and bool(np.isfinite(values).all())
        states = {"pruned": TrialState.PRUNED}
        return optuna.create_trial(
            state=TrialState.COMPLETE if is_complete else states.get(status, TrialState.FAIL),
            values=values if is_complete else None,
            params=dict(drawn.genes),
            distributions=self._distributions,
            user_attrs={
                NOTE: {
                    "point": number,
                    "status": status,
                    "parameters": dict(drawn.row),
                    "figures": dict(figures),
                    "message": message,
                    "stages": self._stages.pop(number, {}),
                    "sampler": dict(drawn.notes),
                }
            },
            # Above 0 means forbidden: Optuna's own lists of the best then leave the point out.
            system_attrs={"constraints": [1.0]} if status == "infeasible" else {},
        )

    def _values(self, figures: Mapping[str, Floats], n: int) -> Floats:
        """Return the objectives (n m), NaN where a figure is not known."""
        none = np.full(n, np.nan)
        return np.stack([np.asarray(figures.get(o.figure, none), dtype=np.float64) for o in self.objectives], axis=1)

    # --- what was found ----------------------------------------------------------------------------------------------

    @property
    def n_finished(self) -> int:
        """How many points are finished, by all processes."""
        return len(self._ledger.trials())

    def finished(self) -> Finished:
        """Return every finished point, also of other processes."""
        trials = self._ledger.trials()
        told = [trial.user_attrs[NOTE] for trial in trials.values()]
        names = sorted({name for told_of in told for name in told_of["figures"]})
        figures = {name: np.array([told_of["figures"].get(name, np.nan) for told_of in told]) for name in names}
        rows = [row_of(self.space, trial.params) for trial in trials.values()]
        return Finished(
            points_of_rows(self.space, list(trials), rows),
            figures,
            tuple(told_of["message"] for told_of in told),
            tuple(told_of["status"] for told_of in told),
        )

    def front(self) -> NDArray[np.int64]:
        """Return the numbers of the points that no other is better than."""
        return np.array(list(self._ledger.trials()), dtype=np.int64)[front(self._told_values(), self.maximize)]

    def reference(self) -> dict[str, float] | None:
        """Return what the hypervolume is measured from, by objective; None where no point has values.

        It is the worst value of each objective over all points with values, and a tenth of its range further.
        """
        values = self._told_values()
        if not np.isfinite(values).all(axis=1).any():
            return None
        corner = reference_point(values, self.maximize)
        return {objective.name: float(value) for objective, value in zip(self.objectives, corner, strict=True)}

    def history(self) -> list[dict[str, float]]:
        """Return the hypervolume against the number of evaluations, one row for each; empty before any has values.

        All rows are measured from the `reference` of the search as it is now. With one objective the volume is how far
        the best value is from it.
        """
        reference = self.reference()
        if reference is None:
            return []
        volumes = growth(self._told_values(), self.maximize, list(reference.values()))
        return [{"evaluations": i, "hypervolume": volume} for i, volume in enumerate(volumes.tolist(), 1)]

    def importances(self) -> list[dict[str, str | float]]:
        """Return how much each parameter matters for each objective, one row for each pair; empty for few points."""
        shares = importances(self.maximize, list(self._ledger.trials().values()), self.search.seed, N_STARTUP)
        return [
            {"objective": objective.name, "parameter": name, "importance": share}
            for objective, of_objective in zip(self.objectives, shares, strict=True)
            for name, share in of_objective.items()
        ]

    def _told_values(self) -> Floats:
        """Return the objectives of all points (n m), NaN for those that did not come through."""
        none = [np.nan] * len(self.objectives)
        rows = [trial.values if is_done(trial) else none for trial in self._ledger.trials().values()]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(self.objectives))


def _is_pruned_by_median(row: Mapping[str, list[float]], past: Sequence[FrozenTrial], maximize: Sequence[bool]) -> bool:
    """Whether a point is worse, by its best stage so far, than the median of *past* at the stage that it is at."""
    with quiet():
        study = study_of(maximize, [])
        study.pruner = optuna.pruners.MedianPruner(n_startup_trials=N_STARTUP, n_warmup_steps=0)
        for trial in past:
            steps = {int(stage): values[0] for stage, values in trial.user_attrs[NOTE]["stages"].items()}
            study.add_trial(optuna.create_trial(value=trial.value, intermediate_values=steps))
        asked = study.ask()
        for stage, values in sorted(row.items()):
            asked.report(values[0], int(stage))
        return bool(asked.should_prune())


def open_study(sweep: Sweep, url: str) -> Study:
    """Return the study of a *sweep* with a search, in the database of *url*; begins it where it is not there yet.

    Its name says what it depends on, all but the number of evaluations: processes with the same file share one, a
    file that asks for more goes on with what is there, and any other file gets a study of its own.
    """
    assert sweep.search is not None
    name = f"{sweep.name[:200]}-{_digest(sweep)}"
    return Study(url, name, sweep.space, sweep.objectives, sweep.search)


def _digest(sweep: Sweep) -> str:
    assert sweep.search is not None
    space = sweep.space
    asked = {
        "workloads": sweep.workloads,
        "chip": space.base.model_dump(mode="json"),
        "parameters": [[p.name, repr(p.domain), p.when.text if p.when else None] for p in space.parameters],
        "constraints": [rule.text for rule in space.constraints],
        "idle": dict(space.idle),
        "objectives": [objective.figure for objective in sweep.objectives],
        "stages": repr(sweep.stages),
        "seed": sweep.seed,
        **({} if sweep.assume is None else {"assume": sweep.assume}),
        "search": sweep.search.model_dump(mode="json", exclude={"evaluations", "storage"}),
        "training": repr(sweep.training),
    }
    return hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=8).hexdigest()
