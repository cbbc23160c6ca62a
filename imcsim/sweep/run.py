"""A sweep, from its file to its results: points, stage after stage, what is kept and what goes on.

Everything that is computed is in the store before the next batch begins. A sweep that was stopped is started again
by the same command: what the store knows is not computed again, so it comes to the same rows.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imcsim.analytic.variants import SHAPE
from imcsim.arch.spec import Chip
from imcsim.arrays import numbered, refined
from imcsim.errors import ConfigError, DataError, ImcsimError
from imcsim.results import write_whole
from imcsim.run import require_writable
from imcsim.sweep.evaluate import MAPPING, figures_of
from imcsim.sweep.keys import digest, keys_of, stage_rest
from imcsim.sweep.network import Network, assumption_text, method_text, network_of, path_of, require_method
from imcsim.sweep.output import PARQUET, POINTS, SUMMARY, Found, write_tables
from imcsim.sweep.pareto import front, select
from imcsim.sweep.points import Points, Value, points_of
from imcsim.sweep.progress import SweepProgress
from imcsim.sweep.records import Search
from imcsim.sweep.spec import Sweep, load_sweep
from imcsim.sweep.stages import Batch, Floats, Outcomes, Runner, Stage
from imcsim.sweep.store import Store
from imcsim.version import __version__

if TYPE_CHECKING:
    from imcsim.sweep.search import Study

STORE, ELSEWHERE, FILE, STUDY = "store.sqlite", "store.txt", "sweep.yaml", "search.sqlite"
"""In the folder of a sweep: its store, or where it is, the sweep itself, and what Optuna keeps of a search."""

MOST_AT_ONCE = 1 << 15
"""Points that are estimated in one batch at most."""

MOST_SHAPES = 8
"""Different tiles and buffers in a batch at most: each costs as much as some ten single estimates."""

BATCH_S = 0.5
"""How long a batch of points should take that are simulated or executed: long enough for a scheduler not to matter."""

MOST_SLOW = 64
"""Points in such a batch at most."""

OTHERS_WAIT_S = 0.5
"""Between two looks at what another sweep on the same store computes."""

NOT_OF_CHIP = ("workload", "seed", "assume", "quantizer")
"""Parameters that are neither keys of the chip nor of the mapping; ``assume.KEY``, ``quantizer.NAME`` belong to two."""


@dataclass(eq=False)
class Figures:
    """What is known of points: figures by name (n), and why a point failed."""

    values: dict[str, Floats]
    messages: list[str | None]

    def lay(self, at: NDArray[np.int64], over: "Figures") -> None:
        """Take what *over* says of the points at these places: a later engine's figures, and its messages."""
        for name, found in over.values.items():
            mine = self.values.setdefault(name, np.full(len(self.messages), np.nan))
            mine[at] = np.where(np.isnan(found), mine[at], found)
        for place, message in zip(at.tolist(), over.messages, strict=True):
            self.messages[place] = message or self.messages[place]


@dataclass(eq=False)
class _Part:
    """Points of a stage that share network and seed."""

    network: Network
    workload: str
    quantizer: str | None
    assume: str | None
    seed: int
    at: NDArray[np.int64]
    points: Points
    """Chip and mapping alone."""

    keys: tuple[bytes, ...] = ()


@dataclass(eq=False)
class Exploration:
    """A sweep at work."""

    sweep: Sweep
    out: Path
    store: Store
    runner: Runner
    progress: SweepProgress
    chip: Chip = field(init=False)
    number: int = field(init=False)
    found: Found | None = None
    """What a search has found, in the end."""

    each_s: dict[int, float] = field(default_factory=dict)
    """What a point of each stage took lately."""

    staged: Points = field(default_factory=lambda: points_of([]))
    """Points of the stage at hand, by rising number."""

    best: list[dict[str, Value]] = field(default_factory=list)
    """The front so far, for people who watch: number, parameters and objectives of each point."""

    def __post_init__(self) -> None:
        self.chip = self.sweep.space.base
        text = self.sweep.normalised()
        self.number = self.store.begin(self.sweep.name, text, digest(text))

    def run(self) -> None:
        """Explore to the end; raises KeyboardInterrupt where it is stopped, with everything stored."""
        if self.sweep.search is not None:
            self._search(self.sweep.search)
            return
        points = self.sweep.space.points()
        known = Figures({}, [None] * len(points))
        at = np.arange(len(points))
        for number, stage in enumerate(self.sweep.stages):
            keys = self.stage(points.take(at), number)
            if stage.keep is not None:
                known.lay(at, self.figures(keys, stage))
                at = self.survivors(points, known, at, stage)

    def _search(self, search: Search) -> None:
        """Evaluate what the search asks for, batch after batch, stage after stage."""
        # on a database that others may share, a part of the batch, so that there is something left for them
        n = None if search.storage is None else 2 * self.runner.n_workers
        with open_study(self.sweep, self.out) as study:
            try:
                while (points := study.ask(n)) is not None:
                    known = Figures({}, [None] * len(points))
                    at = np.arange(len(points))
                    for number, stage in enumerate(self.sweep.stages):
                        known.lay(at, self.figures(self.stage(points.take(at), number), stage))
                        asked = points.take(at)
                        goes_on = study.survivors(asked, number, {name: of[at] for name, of in known.values.items()})
                        goes_on &= self._is_whole(asked, known, at)
                        at = at[goes_on]
                    study.tell(points, known.values, known.messages)
            finally:
                self.found = found_of(study, search)

    def _is_whole(self, points: Points, known: Figures, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which *points*, at these places, have not failed and satisfy the constraints that can be judged."""
        whole = np.array([known.messages[i] is None for i in at.tolist()], dtype=bool)
        return whole & self.sweep.space.feasible({name: values[at] for name, values in known.values.items()}, points)

    def write(self) -> Path:
        """Write the tables, as far as the sweep is, and return ``points.csv``."""
        return write_tables(self.store, self.number, self.sweep, self.out, self.found)

    def survivors(self, points: Points, known: Figures, at: NDArray[np.int64], stage: Stage) -> NDArray[np.int64]:
        """Return the places, of *at*, of the points that go on."""
        whole = self._is_whole(points.take(at), known, at)
        figures = {name: values[at] for name, values in known.values.items()}
        given = [o for o in self.sweep.objectives if o.figure in figures and not np.isnan(figures[o.figure]).all()]
        if not given:
            raise ConfigError(f"stages: keep must go with an objective that the stage gives, got {stage.engines}")
        values = np.stack([figures[objective.figure] for objective in given], axis=1)
        values[~whole] = np.nan
        assert stage.keep is not None
        chosen = select(values, [objective.is_maximized for objective in given], stage.keep)
        return at[np.sort(chosen)]

    # --- one stage ----------------------------------------------------------------------------------------------

    def stage(self, points: Points, number: int) -> list[bytes]:
        """Have the engines of a stage look at *points*, and return their keys: what the store knows is not computed."""
        self.staged, stage = points, self.sweep.stages[number]
        parts = list(self._parts(points, stage))
        keys: list[bytes] = [b""] * len(points)
        for part in parts:
            for i, key in zip(part.at.tolist(), part.keys, strict=True):
                keys[i] = key
        self.store.place(self.number, number, points.numbers, keys, points.rows())
        self.progress.stage(" + ".join(stage.engines), len(set(keys)))
        known = self.store.known(keys)
        n_failed = sum(kept.message is not None for kept in known.values())
        self.progress.add(len(known), n_failed)
        left = {key for key in keys if key not in known}
        while left:
            batches = self._batches(parts, number, stage, left)
            n_before = len(left)
            for batch, outcomes in self.runner.run(batches):
                self._keep(batch, outcomes)
                left -= set(batch.keys)
            if left and len(left) == n_before:  # another sweep on the same store is at them
                time.sleep(OTHERS_WAIT_S)
            theirs = self.store.known(sorted(left)) if left else {}
            self.progress.add(len(theirs), sum(kept.message is not None for kept in theirs.values()))
            left -= set(theirs)
        return keys

    def figures(self, keys: Sequence[bytes], stage: Stage) -> Figures:
        """Return what the store knows of points of a stage, by their *keys*."""
        known = self.store.known(keys)
        names = figures_of(stage.engines)
        kept = [known[key] for key in keys]
        return Figures(
            {name: np.array([one.figures.get(name, np.nan) for one in kept], dtype=np.float64) for name in names},
            [one.message for one in kept],
        )

    def _keep(self, batch: Batch, outcomes: Outcomes) -> None:
        names = list(outcomes.figures)
        columns = [outcomes.figures[name].tolist() for name in names]
        rows = [
            {name: value for name, value in zip(names, values, strict=True) if value == value}
            for values in zip(*columns, strict=True)
        ]
        each_s = outcomes.seconds / max(1, len(rows))
        self.each_s[batch.number] = each_s
        self.store.add(batch.keys, rows, outcomes.messages, [each_s] * len(rows), "+".join(batch.stage.engines))
        self.progress.add(len(rows), sum(message is not None for message in outcomes.messages))
        self._watch(batch, outcomes)

    def _watch(self, batch: Batch, outcomes: Outcomes) -> None:
        """Show the front so far, of points whose stage gives every objective."""
        objectives = self.sweep.objectives
        if not all(objective.figure in outcomes.figures for objective in objectives):
            return
        maximize = [objective.is_maximized for objective in objectives]
        fresh = np.stack([outcomes.figures[objective.figure] for objective in objectives], axis=1)
        points = self.staged.take(np.searchsorted(self.staged.numbers, batch.points.numbers))
        fresh[~self.sweep.space.feasible(outcomes.figures, points)] = np.nan
        for i in np.flatnonzero(front(fresh, maximize)).tolist():
            values = {objective.name: float(fresh[i, j]) for j, objective in enumerate(objectives)}
            self.best.append({"point": int(points.numbers[i]), **values, **points.row(i)})
        known = np.array([[float(row[objective.name]) for objective in objectives] for row in self.best])
        if len(known):
            is_best = front(known, maximize)
            self.best = [row for row, stays in zip(self.best, is_best.tolist(), strict=True) if stays]
        self.progress.front(self.best)

    def _batches(self, parts: Sequence[_Part], number: int, stage: Stage, left: set[bytes]) -> Iterator[Batch]:
        """Yield what is left to do and is not being done by another, each as it is claimed."""
        begun: set[bytes] = set()
        for part in parts:
            todo = []
            for i, key in enumerate(part.keys):
                if key in left and key not in begun:
                    begun.add(key)
                    todo.append(i)
            for at in self._cut(part.points.take(np.array(todo, dtype=np.int64)), number, stage):
                places = np.array(todo, dtype=np.int64)[at]
                keys = [part.keys[i] for i in places.tolist()]
                ours = np.array(self.store.claim(keys), dtype=bool)
                if not ours.any():
                    continue
                places = places[ours]
                yield Batch(
                    number=number,
                    stage=stage,
                    workload=part.workload,
                    quantizer=part.quantizer,
                    network_digest=part.network.digest,
                    chip=self.chip,
                    points=part.points.take(places),
                    keys=tuple(part.keys[i] for i in places.tolist()),
                    seed=part.seed,
                    data=self.sweep.data,
                    assume=part.assume,
                )

    def _cut(self, points: Points, number: int, stage: Stage) -> Iterator[NDArray[np.int64]]:
        """Yield the places of the points of each batch: many by formula, of others what takes some tenths of a second.

        How long a point takes is known from the last ones; the first batch of a stage has one point.
        """
        if stage.engines == ("estimate",) and not _is_slow(points):
            yield from _by_shape(points)
            return
        start = 0
        while start < len(points):
            each_s = self.each_s.get(number, BATCH_S)
            n = min(MOST_SLOW, max(1, int(BATCH_S / each_s))) if each_s else MOST_SLOW
            yield np.arange(start, min(start + n, len(points)))
            start += n

    # --- networks -----------------------------------------------------------------------------------------------

    def _parts(self, points: Points, stage: Stage) -> Iterator[_Part]:
        """Yield the points of each network and seed, with their keys."""
        mine = [name for name in points.columns if _is_of_network(name)]
        by_choice: dict[tuple[tuple[str, Value], ...], list[int]] = {}
        of_network = Points(points.numbers, {name: points.columns[name] for name in mine},
                            {name: points.has[name] for name in mine if name in points.has})  # fmt: skip
        for i, row in enumerate(of_network.rows()):
            by_choice.setdefault(tuple(sorted(row.items())), []).append(i)
        of_chip = Points(points.numbers, {name: values for name, values in points.columns.items() if name not in mine},
                         {name: there for name, there in points.has.items() if name not in mine})  # fmt: skip
        for choice, places in by_choice.items():
            at = np.array(places, dtype=np.int64)
            workload, quantizer, seed = self._network(dict(choice), stage)
            assume = assumption_text(dict(choice), self.sweep.assume)
            network = network_of(workload, quantizer, assume)
            samples = None
            if "execute" in stage.engines:
                samples = network.samples_digest(stage.n_samples, self.sweep.data)
            taken = of_chip.take(at)
            keys = keys_of(taken, self.chip, stage_rest(network.digest, stage, seed, samples))
            yield _Part(network, workload, quantizer, assume, seed, at, taken, keys)

    def _network(self, choice: Mapping[str, Value], stage: Stage) -> tuple[str, str | None, int]:
        """Return workload, method and seed that a point names; where a stage executes a method, it is trained first."""
        workload = path_of(str(choice.get("workload", self.sweep.workload)), self.sweep.folder)
        method = method_text(choice)
        seed = int(choice.get("seed", self.sweep.seed))
        if method is None:
            return workload, None, seed
        found = network_of(workload).workload
        require_method(found)
        if "execute" not in stage.engines:
            return workload, method, seed
        if self.sweep.training is None:
            raise ConfigError(
                "training: must say how the methods are trained, as execute needs trained weights, got none; for "
                "example training: {epochs: 3}"
            )
        from imcsim.sweep.training import trained

        return str(trained(found, method, self.sweep.training, self.out, self.sweep.data, self.progress)), None, seed


def _is_of_network(name: str) -> bool:
    return name in NOT_OF_CHIP or name.startswith(("assume.", "quantizer."))


def _by_shape(points: Points) -> Iterator[NDArray[np.int64]]:
    """Yield the places of points that share tiles and buffers as far as they do, many at a time."""
    n = len(points)
    shape = np.zeros(n, dtype=np.int64)
    for name in points.columns:
        if name in SHAPE or name in MAPPING:
            shape = refined(shape, numbered(points.columns[name])[1])
    order = np.argsort(shape, kind="stable")
    ordered = shape[order]
    start = 0
    while start < n:
        end = min(start + MOST_AT_ONCE, n)
        end = min(end, int(np.searchsorted(ordered, ordered[start] + MOST_SHAPES)))
        yield order[start:end]
        start = end


def _is_slow(points: Points) -> bool:
    """Whether some of the points search for their plans: such a one takes seconds."""
    policies = points.columns.get("mapping.policy")
    return policies is not None and any(str(policy).startswith("search") for policy in set(policies.tolist()))


# --- the command ------------------------------------------------------------------------------------------------


def run_sweep(sweep: Sweep, out: Path, *, runner: Runner, progress: SweepProgress, store: Path | None = None) -> Path:
    """Explore *sweep*, keep every result in the store of *out* (or *store*), and write tables; returns ``points.csv``.

    Stopped (Ctrl-C, kill, a full disk) and called again, it goes on; two at once on one store share the work.
    """
    out = Path(out)
    require_writable(out)
    if store is not None:
        write_whole(out / ELSEWHERE, f"{store.resolve()}\n")
    with Store(find_store(out, must_exist=False)) as kept:
        exploration = Exploration(sweep, out, kept, runner, progress)
        write_whole(out / FILE, sweep.normalised())
        try:
            exploration.run()
        except BaseException:
            with suppress(ImcsimError):  # what went wrong first is what is said
                exploration.write()
            raise
        written = exploration.write()
    written.touch()  # the store, closed now, is no younger than its tables: `rebuild` takes them as they are
    return written


def open_study(sweep: Sweep, out: Path) -> "Study":
    """Return the study of a sweep with a search: in the database that it names, or in a file of its folder."""
    from imcsim.sweep.search import open_study as opened  # brings Optuna

    assert sweep.search is not None
    return opened(sweep, sweep.search.storage or f"sqlite:///{(out / STUDY).resolve()}")


def found_of(study: "Study", search: Search) -> Found:
    """Return what a search has found so far."""
    finished = study.finished()
    importances: dict[str, dict[str, float]] = {}
    for row in study.importances():
        importances.setdefault(str(row["objective"]), {})[str(row["parameter"])] = float(row["importance"])
    said = {
        "sampler": search.sampler,
        "evaluations": study.n_finished,
        "history": [[int(row["evaluations"]), row["hypervolume"]] for row in study.history()],
        "reference": study.reference(),
        "importances": importances,
    }
    return Found(finished.points, finished.figures, finished.messages, finished.statuses, said)


def rebuild(folder: Path) -> Path:
    """Write the tables of a sweep's *folder* anew from its store, as far as the sweep is; returns ``points.csv``.

    Nothing is written where the tables are younger than the store. What a search found may lie elsewhere: its tables
    are always written anew.
    """
    sweep, path = load_sweep(folder / FILE), find_store(folder)
    points = folder / POINTS
    log = path.with_name(f"{path.name}-wal")
    changed = max(part.stat().st_mtime_ns for part in (path, log) if part.is_file() and part.stat().st_size)
    is_whole = all((folder / name).is_file() for name in (POINTS, PARQUET, SUMMARY))
    if sweep.search is None and is_whole and points.stat().st_mtime_ns >= changed:
        return points
    with Store(path, read_only=True) as store:
        number = number_of(store, sweep)
        found = None
        if sweep.search is not None:
            with open_study(sweep, folder) as study:
                found = found_of(study, sweep.search)
        return write_tables(store, number, sweep, folder, found)


def number_of(store: Store, sweep: Sweep) -> int:
    """Return the number of *sweep* in a store: that of this imcsim, or else the one that was begun last.

    Raises DataError where it was never begun there.
    """
    text = sweep.normalised()
    begun = [kept for kept in store.sweeps() if kept.text == text]
    found = next((kept.number for kept in begun if kept.version == __version__), begun[-1].number if begun else None)
    if found is None:
        raise DataError(f"{store.path}: must hold the sweep {sweep.name}, got others; run imcsim sweep again")
    return found


def find_store(folder: Path, *, must_exist: bool = True) -> Path:
    """Return where the store of a sweep's *folder* is; raises DataError where there is none."""
    elsewhere = folder / ELSEWHERE
    store = Path(elsewhere.read_text(encoding="utf-8").strip()) if elsewhere.is_file() else folder / STORE
    if must_exist and not store.is_file():
        raise DataError(f"{folder}: must be a folder that imcsim sweep wrote, got no {store.name} in it")
    return store
