"""Search: batches that depend on nothing but what was found, shared studies, pruning, and what is told of it all."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
import warnings
from contextlib import suppress
from dataclasses import replace

import numpy as np
import optuna
import pytest
from ledgers import InMemory
from optuna.trial import TrialState

from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError, DataError
from imcsim.sweep.expressions import Known, parse
from imcsim.sweep.lease import LEASE_S
from imcsim.sweep.objectives import find_objective
from imcsim.sweep.parameters import Choices, Distribution, Parameter, Range
from imcsim.sweep.pareto import front, hypervolume
from imcsim.sweep.search import Study
from imcsim.sweep.space import Space
from imcsim.sweep.spec import Search

TWO = (find_objective("latency"), find_objective("energy"))
ONE = (find_objective("latency"),)
NAN = float("nan")
N = 24
"""Points of a search: three batches, of which the last one is drawn when TPE has seen enough to leave chance."""


def known(name):
    return Known(name, "text" if name == "mapping.style" else "number")


def chip_space(*constraints):
    """Tiles, rows, bandwidth, a style, and a batch that only one style has."""
    return Space(
        load_chip("tim-dnn"),
        (
            Parameter("n_tiles", Range(1, 64, is_log=True, is_whole=True)),
            Parameter("tile.rows_per_access", Choices((4, 8, 16, 32))),
            Parameter(
                "mapping.batch", Range(1, 8, is_whole=True), parse("mapping.style == 'temporal'", "batch", known)
            ),
            Parameter("mapping.style", Choices(("spatial", "temporal"))),
            Parameter("main_memory.bits_per_ns", Range(64.0, 4096.0, is_log=True)),
            Parameter("tile.access.energy_pJ", Distribution("normal", (26.8, 2.0), low=20.0)),
        ),
        tuple(parse(text, "constraints", known) for text in constraints),
    )


def judged(points):
    """Latency and energy of points, by a formula that costs nothing: the more tiles, the faster and the dearer."""
    columns = points.columns
    waste = 1 + np.log2(columns["tile.rows_per_access"] / 16) ** 2 + (columns["tile.access.energy_pJ"] - 26) ** 2 / 50
    batch = np.where(points.has.get("mapping.batch", np.ones(len(points), dtype=bool)), columns["mapping.batch"], 4)
    memory = np.abs(np.log2(columns["main_memory.bits_per_ns"]) - 9)
    latency = 1000 / columns["n_tiles"] * waste * (1 + 0.1 * memory) * (1 + 1 / batch)
    energy = (columns["n_tiles"] + 5.0) * waste * (1 + memory)
    return {"latency_ns": latency, "energy_pJ": energy}


def url_of(folder):
    return f"sqlite:///{folder}/search.sqlite"


def study_in(folder, sampler="nsga2", evaluations=N, population=8, space=None, objectives=TWO, name="test", **more):
    search = Search(sampler=sampler, evaluations=evaluations, population=population, **more)
    return Study(url_of(folder), name, space or chip_space(), objectives, search)


def finish(study, n=None, judge=judged):
    while (points := study.ask(n)) is not None:
        study.tell(points, judge(points), [None] * len(points))
    return study.finished()


def rows_of(finished):
    figures = {name: values.tolist() for name, values in finished.figures.items()}
    return [
        (number, row, *(figures[name][i] for name in figures), finished.statuses[i], finished.messages[i])
        for i, (number, row) in enumerate(zip(finished.points.numbers.tolist(), finished.points.rows(), strict=True))
    ]


@pytest.fixture(scope="module", params=["nsga2", "tpe"])
def clean(request, tmp_path_factory):
    """The rows of a search that nothing disturbed, and that no database had a part in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imcsim.sweep.search.Ledger", InMemory)
        with study_in(tmp_path_factory.mktemp("clean"), request.param) as study:
            return request.param, rows_of(finish(study))


@pytest.fixture
def in_memory(monkeypatch):
    """For tests of what is drawn and told, to which a database adds only time."""
    monkeypatch.setattr("imcsim.sweep.search.Ledger", InMemory)


def test_a_search_ends_after_its_evaluations_and_numbers_its_points(clean):
    _, rows = clean
    assert [row[0] for row in rows] == list(range(N))
    assert {row[-2] for row in rows} == {"done"}


def test_parameters_keep_their_kinds_their_ranges_and_their_conditions(clean):
    for _, row, *_ in clean[1]:
        assert isinstance(row["n_tiles"], int)
        assert 1 <= row["n_tiles"] <= 64
        assert row["tile.rows_per_access"] in (4, 8, 16, 32)
        assert 64 <= row["main_memory.bits_per_ns"] <= 4096
        assert row["tile.access.energy_pJ"] > 20
        assert ("mapping.batch" in row) == (row["mapping.style"] == "temporal")
    assert len({row["mapping.style"] for _, row, *_ in clean[1]}) == 2


def test_how_many_points_are_asked_for_at_a_time_changes_none_of_them(clean, tmp_path):
    sampler, rows = clean
    with study_in(tmp_path, sampler) as study:
        assert rows_of(finish(study, n=3)) == rows


@pytest.mark.usefixtures("in_memory")
def test_another_seed_gives_other_points(clean, tmp_path):
    sampler, rows = clean
    with study_in(tmp_path, sampler, seed=1) as study:
        assert next(study.ask().rows()) != rows[0][1]


def test_points_that_are_told_in_another_order_lead_to_the_same_next_ones(clean, tmp_path):
    sampler, rows = clean
    with study_in(tmp_path, sampler) as study:
        while (points := study.ask()) is not None:
            for at in reversed(range(len(points))):
                one = points.take(np.array([at]))
                study.tell(one, judged(one), [None])
        assert rows_of(study.finished()) == rows


def test_a_search_that_asks_for_more_goes_on_with_what_is_there(clean, tmp_path):
    sampler, rows = clean
    with study_in(tmp_path, sampler, evaluations=12) as study:
        assert rows_of(finish(study)) == rows[:12]
    with study_in(tmp_path, sampler, evaluations=N) as study:
        assert study.ask().numbers.tolist() == [12, 13, 14, 15]
    with study_in(tmp_path, sampler, evaluations=N) as study:
        assert rows_of(finish(study)) == rows


def test_no_point_is_drawn_twice_while_there_are_others(clean):
    rows = [tuple(sorted(row.items())) for _, row, *_ in clean[1]]
    assert len(set(rows)) == len(rows)


@pytest.mark.usefixtures("in_memory")
def test_a_space_that_is_smaller_than_the_search_gives_points_again(tmp_path):
    space = Space(load_chip("tim-dnn"), (Parameter("n_tiles", Choices((1, 2, 4))),))
    with study_in(tmp_path, evaluations=12, population=4, space=space) as study:
        found = finish(
            study,
            judge=lambda points: {"latency_ns": 1 / points.columns["n_tiles"], "energy_pJ": points.columns["n_tiles"]},
        )
    assert sorted(set(found.points.columns["n_tiles"].tolist())) == [1, 2, 4]
    assert len(found.points) == 12


@pytest.mark.usefixtures("in_memory")
def test_points_that_the_constraints_forbid_are_never_asked_for(tmp_path):
    space = chip_space("n_tiles * tile.rows_per_access == 256")
    with study_in(tmp_path, evaluations=16, space=space) as study:
        columns = finish(study).points.columns
    assert (columns["n_tiles"] * columns["tile.rows_per_access"] == 256).all()


@pytest.mark.usefixtures("in_memory")
def test_one_point_in_fifty_thousand_is_found_too(tmp_path):
    space = chip_space("n_tiles == 17", "tile.rows_per_access == 4", "main_memory.bits_per_ns >= 4000")
    with study_in(tmp_path, evaluations=6, population=3, space=space) as study:
        rows = list(finish(study).points.rows())
    assert {(row["n_tiles"], row["tile.rows_per_access"]) for row in rows} == {(17, 4)}


@pytest.mark.usefixtures("in_memory")
def test_constraints_that_leave_nothing_are_said_in_one_line(tmp_path):
    space = chip_space("n_tiles > 100")
    line = r"^constraints: must leave points that a search can find, got none among 1048576 random ones \('n_tiles"
    with study_in(tmp_path, space=space) as study, pytest.raises(ConfigError, match=line):
        study.ask()


@pytest.mark.usefixtures("in_memory")
def test_failed_and_forbidden_points_are_kept_and_told_apart(tmp_path):
    space = chip_space("energy_pJ <= 60")

    def tell(study, points):
        figures = judged(points)
        figures["energy_pJ"] = np.where(points.numbers == 2, NAN, figures["energy_pJ"])
        messages = ["no such chip" if number == 1 else None for number in points.numbers]
        study.tell(points, figures, messages)

    with study_in(tmp_path, evaluations=40, space=space) as study:
        while (points := study.ask()) is not None:
            tell(study, points)
        found = study.finished()
        forbidden = found.figures["energy_pJ"] > 60
        assert found.statuses[1:3] == ("failed", "failed")
        assert found.messages[1:3] == ("no such chip", "point 2: must have a value for energy, got none")
        others = np.delete(np.arange(40), [1, 2])
        assert [found.statuses[i] for i in others] == ["infeasible" if forbidden[i] else "done" for i in others]
        assert 0 < forbidden.sum() < 38
        values = np.stack([found.figures["latency_ns"], found.figures["energy_pJ"]], axis=1)
        values[[status != "done" for status in found.statuses]] = NAN
        assert study.front().tolist() == np.flatnonzero(front(values, [False, False])).tolist()
        late = forbidden[24:].mean()
        assert late < forbidden[:8].mean()  # what the constraint forbids does not breed


def test_optuna_itself_reads_the_study_and_finds_the_same_front(tmp_path):
    space = chip_space("energy_pJ <= 60")
    with study_in(tmp_path, space=space) as study:
        finish(study)
        ours = study.front().tolist()
    theirs = optuna.load_study(study_name="test", storage=url_of(tmp_path))
    assert len(theirs.trials) == N
    assert sorted(trial.user_attrs["imcsim"]["point"] for trial in theirs.best_trials) == ours


# --- more than one process, and fewer -------------------------------------------------------------------------------


def take_part(folder, sampler, pipe, delay_s, n):
    """Take part in a search, *n* points at a time, and send the numbers of those that were evaluated here."""
    pipe.send("begun")
    with study_in(folder, sampler) as study:
        while (points := study.ask(n)) is not None:
            time.sleep(delay_s)
            study.tell(points, judged(points), [None] * len(points))
            pipe.send(points.numbers.tolist())


def start(folder, sampler, delay_s, n):
    """Start a process that takes part; its end of a pipe and itself."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["pytest", "scipy.stats", "imcsim.sweep.search"])  # once for all processes
    here, there = server.Pipe(duplex=False)
    process = server.Process(target=take_part, args=(folder, sampler, there, delay_s, n), daemon=True)
    process.start()
    there.close()
    assert here.recv() == "begun"
    return here, process


def sent(pipe):
    numbers = []
    with suppress(EOFError):
        while True:
            numbers += pipe.recv()
    return numbers


def test_two_processes_share_a_search_and_no_point_is_doubled(clean, tmp_path):
    sampler, rows = clean
    started = [start(tmp_path, sampler, 0.05, 2) for _ in range(2)]
    numbers = [sent(pipe) for pipe, _ in started]
    assert sorted(numbers[0] + numbers[1]) == list(range(N))
    assert min(map(len, numbers)) > 0
    with study_in(tmp_path, sampler) as study:
        assert rows_of(study.finished()) == rows
    assert len(optuna.load_study(study_name="test", storage=url_of(tmp_path)).trials) == N


def test_what_a_killed_process_was_at_is_taken_up_by_another(tmp_path, clean):
    sampler, rows = clean
    _, process = start(tmp_path, sampler, 60, 2)
    deadline = time.time() + 60
    while not claims_in(tmp_path):
        assert time.time() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with study_in(tmp_path, sampler) as study:
        begun = time.time()
        points = study.ask()
        assert time.time() - begun < 0.8 * LEASE_S  # nobody waited until the dead one was silent for long enough
        assert points.numbers.tolist() == list(range(8))
        study.tell(points, judged(points), [None] * len(points))
        assert rows_of(finish(study)) == rows
    assert claims_in(tmp_path) == []


def claims_in(folder):
    path = folder / "search.sqlite"
    if not path.exists():
        return []
    with sqlite3.connect(path) as db:
        try:
            return db.execute("SELECT point FROM imcsim_claims").fetchall()
        except sqlite3.OperationalError:
            return []


def test_a_live_process_keeps_what_it_claimed(tmp_path):
    with study_in(tmp_path, population=4) as first, study_in(tmp_path, population=4) as second:
        assert first.ask(3).numbers.tolist() == [0, 1, 2]
        assert second.ask(3).numbers.tolist() == [3]
        assert len(second.ask()) == 0
    with study_in(tmp_path, population=4) as third:
        assert third.ask().numbers.tolist() == [0, 1, 2, 3]


def test_a_result_that_comes_late_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("imcsim.sweep.ledger.BEAT_S", 3600.0)  # a beat of the first would wake it up, for good
    first = study_in(tmp_path, evaluations=4, population=4)
    points = first.ask()
    with sqlite3.connect(tmp_path / "search.sqlite") as db:
        db.execute("UPDATE imcsim_claims SET seen = 0")  # silent for long
    with study_in(tmp_path, evaluations=4, population=4) as second:
        rows = rows_of(finish(second))
    first.tell(points, {name: values + 1 for name, values in judged(points).items()}, [None] * 4)
    assert rows_of(first.finished()) == rows
    first.close()


def test_a_search_that_is_killed_at_any_moment_goes_on_to_the_same_rows(clean, tmp_path):
    sampler, rows = clean
    moments = random.Random(sampler)
    for _ in range(2):
        pipe, process = start(tmp_path, sampler, 0, 1)
        for _ in range(moments.randrange(4)):
            pipe.recv()
        time.sleep(moments.uniform(0.0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    with study_in(tmp_path, sampler) as study:
        assert 0 < study.n_finished < N
        assert rows_of(finish(study)) == rows
        assert study.n_finished == N


# --- pruning --------------------------------------------------------------------------------------------------------


def stages_of(study, points, off=1.05):
    """Judge points in two stages, the first of which is some percent off; which of them went on."""
    figures = judged(points)
    mask = study.survivors(points, 0, {name: values * off for name, values in figures.items()})
    both = {name: np.where(mask, values, values * off) for name, values in figures.items()}
    study.tell(points, both, [None] * len(points))
    return mask


@pytest.mark.parametrize("objectives", [ONE, TWO], ids=["median", "front"])
def test_poor_points_are_pruned_and_the_front_stays(objectives, tmp_path):
    more = {"population": 16, "evaluations": 64, "objectives": objectives}
    (tmp_path / "all").mkdir()
    with study_in(tmp_path, prune=True, **more) as study:
        masks = []
        while (points := study.ask()) is not None:
            masks.append(stages_of(study, points))
        found = study.finished()
        pruned = np.array([status == "pruned" for status in found.statuses])
        assert masks[0].all()
        assert (pruned == ~np.concatenate(masks)).all()
        assert 0 < pruned.sum() < 48
        names = [objective.figure for objective in objectives]
        values = np.stack([judged(found.points)[name] for name in names], axis=1)
        assert not pruned[front(values, [False] * len(names))].any()
    trials = optuna.load_study(study_name="test", storage=url_of(tmp_path)).trials
    assert sum(trial.state == TrialState.PRUNED for trial in trials) == pruned.sum()


@pytest.mark.usefixtures("in_memory")
def test_without_prune_everything_goes_on(tmp_path):
    with study_in(tmp_path, population=12) as study:
        while (points := study.ask()) is not None:
            assert stages_of(study, points).all()
        assert set(study.finished().statuses) == {"done"}


@pytest.mark.usefixtures("in_memory")
def test_a_point_whose_figures_are_not_all_known_is_not_pruned(tmp_path):
    with study_in(tmp_path, population=12, prune=True) as study:
        while (points := study.ask()) is not None:
            assert study.survivors(points, 0, {"latency_ns": judged(points)["latency_ns"] * 100}).all()
            study.tell(points, judged(points), [None] * len(points))


@pytest.mark.usefixtures("in_memory")
def test_pruning_decides_the_same_after_a_restart_and_in_pieces(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    more = {"population": 10, "evaluations": 30, "prune": True}
    with study_in(tmp_path / "a", **more) as study:
        while (points := study.ask()) is not None:
            stages_of(study, points)
        rows = rows_of(study.finished())
    while True:
        with study_in(tmp_path / "b", **more) as study:
            if (points := study.ask(5)) is None:
                break
            stages_of(study, points)
    with study_in(tmp_path / "b", **more) as study:
        assert rows_of(study.finished()) == rows
    assert "pruned" in {row[-2] for row in rows}


# --- what is told of a search ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_memory")
def test_the_history_ends_at_the_hypervolume_of_all_points(tmp_path):
    with study_in(tmp_path) as study:
        assert study.history() == []
        assert study.reference() is None
        found = finish(study)
        values = np.stack([found.figures["latency_ns"], found.figures["energy_pJ"]], axis=1)
        reference = study.reference()
        assert list(reference.values()) == pytest.approx((values.max(axis=0) * 1.1 - values.min(axis=0) * 0.1).tolist())
        history = study.history()
        assert [row["evaluations"] for row in history] == list(range(1, N + 1))
        volumes = [row["hypervolume"] for row in history]
        assert volumes == sorted(volumes)
        assert volumes[-1] == pytest.approx(hypervolume(values, [False, False], list(reference.values())))


@pytest.mark.usefixtures("in_memory")
def test_importances_are_of_each_objective_and_the_greatest_comes_first(tmp_path):
    with study_in(tmp_path) as study:
        assert study.importances() == []
        finish(study)
        rows = study.importances()
        assert rows == study.importances()
    of_latency = [row for row in rows if row["objective"] == "latency"]
    assert len(of_latency) == 6
    assert of_latency[0]["parameter"] == "n_tiles"
    assert sum(row["importance"] for row in of_latency) == pytest.approx(1)


@pytest.mark.usefixtures("in_memory")
def test_an_objective_that_never_changes_has_no_importances(tmp_path):
    flat = lambda points: judged(points) | {"energy_pJ": np.ones(len(points))}  # noqa: E731
    with study_in(tmp_path, evaluations=16) as study:
        finish(study, judge=flat)
        assert {row["objective"] for row in study.importances()} == {"latency"}


# --- storage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("no url", "Could not parse"),
        ("oracle9://somewhere/x", "Can't load plugin"),
        ("sqlite:////no/such/folder/x.sqlite", "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_in_one_line(url, reason):
    line = rf"^search: storage: must be a database that can be reached and used, got '{url}' \(.*{reason}.*\); write "
    with pytest.raises(ConfigError, match=line) as caught:
        Study(url, "test", chip_space(), TWO, Search(evaluations=4))
    assert "\n" not in str(caught.value)


def test_a_missing_driver_is_said_without_the_password():
    url = "postgresql+asyncpg9://me:secret@nowhere/x"
    with pytest.raises(ConfigError, match="search: storage: must be") as caught:
        Study(url, "test", chip_space(), TWO, Search(evaluations=4))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_stays_as_it_is(tmp_path):
    path = tmp_path / "search.sqlite"
    path.write_text("a letter to a friend, long enough to be one" * 30)
    with pytest.raises(ConfigError, match="file is not a database"):
        study_in(tmp_path)
    assert path.read_text().startswith("a letter")


def test_a_database_that_goes_away_is_said_in_one_line(tmp_path):
    with study_in(tmp_path) as study:
        points = study.ask()
        with sqlite3.connect(tmp_path / "search.sqlite") as db:
            db.execute("DROP TABLE trial_user_attributes")
        line = r"^search: storage: must stay there and be writable, got .*no such table.*; what was finished is kept"
        with pytest.raises(DataError, match=line):
            study.tell(points, judged(points), [None] * len(points))


def test_optuna_says_nothing_to_the_user(tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with study_in(tmp_path, "tpe", evaluations=24, population=12) as study:
            finish(study)
            study.importances()
    assert capfd.readouterr() == ("", "")


def test_a_study_is_shared_by_equal_files_and_by_those_that_ask_for_more(tmp_path):
    from imcsim.sweep.search import open_study
    from imcsim.sweep.spec import load_sweep

    path = tmp_path / "sweep.yaml"
    path.write_text(
        "workload: resnet34\nchip: tim-dnn\nengine: estimate\nparameters: {n_tiles: {low: 1, high: 64}}\n"
        "objectives: [latency, energy]\nsearch: {evaluations: 8, population: 4}\n"
    )
    sweep = load_sweep(path)

    def name_of(changed):
        with open_study(changed, url_of(tmp_path)) as study:
            return study._ledger.name

    more = replace(sweep, search=sweep.search.model_copy(update={"evaluations": 16}))
    other = replace(sweep, search=sweep.search.model_copy(update={"seed": 1}))
    assert name_of(sweep) == name_of(load_sweep(path)) == name_of(more)
    assert name_of(sweep) != name_of(other)
