import csv
import json

import numpy as np
import pytest
import yaml

import imcsim
from imcsim.errors import ConfigError, DataError
from imcsim.sweep import run as sweep_run
from imcsim.sweep.evaluate import evaluate
from imcsim.sweep.local import InProcess
from imcsim.sweep.progress import SweepProgress
from imcsim.sweep.run import find_store, number_of, rebuild, run_sweep
from imcsim.sweep.spec import sweep_from
from imcsim.sweep.store import Store
from imcsim.version import __version__

GRID = {
    "name": "grid",
    "workload": "digits-ternary-cnn",
    "chip": "tim-dnn",
    "engine": "estimate",
    "parameters": {"tile.count_max": [4, 8, 12], "n_tiles": [8, 16], "mapping.batch": [1, 2]},
    "objectives": ["latency_ns", "energy"],
}
FUNNEL = GRID | {
    "name": "funnel",
    "stages": [
        {"engine": "estimate", "keep": 4},
        {"engine": "simulate", "keep": "front"},
        {"engine": "execute", "samples": 20},
    ],
    "objectives": ["energy_pJ", "latency_ns", "accuracy"],
}
del FUNNEL["engine"]


class Counting:
    """A runner of this process that counts what it evaluates."""

    n_workers = 1

    def __init__(self, stop_after=None):
        self.n_points, self.batches, self.stop_after = 0, [], stop_after

    def run(self, batches):
        for batch in batches:
            if self.stop_after is not None and len(self.batches) >= self.stop_after:
                raise KeyboardInterrupt
            self.batches.append(batch)
            self.n_points += len(batch.points)
            yield batch, evaluate(batch)


def explored(tree, out, runner=None, store=None):
    runner = runner or Counting()
    with SweepProgress(quiet=True) as progress:
        run_sweep(sweep_from(tree, "test.yaml", out.parent), out, runner=runner, progress=progress, store=store)
    return runner


def rows_of(out):
    with (out / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """The grid, explored once for those that read it."""
    out = tmp_path_factory.mktemp("grid") / "out"
    explored(GRID, out)
    return out


@pytest.fixture(scope="module")
def funnel(tmp_path_factory):
    """The funnel, explored once: its folder and the runner, which counted."""
    out = tmp_path_factory.mktemp("funnel") / "out"
    return out, explored(FUNNEL, out)


def test_a_grid_has_a_row_for_each_point_with_parameters_and_objectives_under_their_own_names(grid):
    rows = rows_of(grid)
    assert len(rows) == 12
    assert list(rows[0]) == [
        "point", "tile.count_max", "n_tiles", "mapping.batch", "latency_ns", "energy", "engine", "status", "on_front",
        "message",
    ]  # fmt: skip
    assert [row["point"] for row in rows] == [str(i) for i in range(12)]
    assert {row["status"] for row in rows} == {"done"}
    for row in rows:
        chip = imcsim.load_chip(
            "tim-dnn", {"tile.count_max": int(row["tile.count_max"]), "n_tiles": int(row["n_tiles"])}
        )
        plan = imcsim.place(imcsim.load_workload("digits-ternary-cnn"), chip, n_samples=int(row["mapping.batch"]))
        alone = imcsim.estimate(plan)
        assert float(row["latency_ns"]) == pytest.approx(alone.latency_ns, rel=1e-12)
        assert float(row["energy"]) == pytest.approx(alone.energy_pJ, rel=1e-12)


def test_the_front_is_what_no_other_point_is_better_than(grid):
    rows = rows_of(grid)
    values = [(float(row["latency_ns"]), float(row["energy"])) for row in rows]
    for row, mine in zip(rows, values, strict=True):
        beaten = any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in values)
        assert row["on_front"] == str(not beaten).lower()
    said = json.loads((grid / "sweep.json").read_text())
    assert said["front"] == [int(row["point"]) for row in rows if row["on_front"] == "true"]
    assert said["counts"]["points"] == said["counts"]["done"] == 12


def test_the_same_point_is_never_computed_twice(tmp_path):
    first = explored(GRID, tmp_path / "out")
    again = explored(GRID, tmp_path / "out")
    larger = explored(GRID | {"parameters": GRID["parameters"] | {"n_tiles": [8, 16, 32]}}, tmp_path / "out")
    assert (first.n_points, again.n_points, larger.n_points) == (12, 0, 6)
    assert len(rows_of(tmp_path / "out")) == 18


def test_points_that_are_the_same_chip_are_computed_once(tmp_path):
    tree = GRID | {"parameters": None, "points": [{"n_tiles": 32}, {"tile.count_max": 8}, {"n_tiles": 16}]}
    del tree["parameters"]
    runner = explored(tree, tmp_path / "out")
    assert runner.n_points == 2  # the chip has 32 tiles and counts to 8
    rows = rows_of(tmp_path / "out")
    assert rows[0]["latency_ns"] == rows[1]["latency_ns"]
    assert rows[0]["tile.count_max"] == ""


def test_a_funnel_sends_on_what_is_kept_and_says_what_became_of_the_rest(funnel):
    out, runner = funnel
    rows = rows_of(out)
    by_engine = [sum(len(b.points) for b in runner.batches if b.stage.engines == (e,)) for e in
                 ("estimate", "simulate", "execute")]  # fmt: skip
    assert by_engine[:2] == [12, 4]
    assert [row["engine"] for row in rows].count("execute") == by_engine[2] > 0
    done = [row for row in rows if row["status"] == "done"]
    assert all(row["accuracy"] for row in done)
    assert len(done) == by_engine[2]
    dropped = [row for row in rows if row["status"] == "dropped"]
    assert len(dropped) == 12 - by_engine[2]
    assert not any(row["accuracy"] or row["on_front"] == "true" for row in dropped)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_sweep_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, funnel, stop_after):
    clean, _ = funnel
    stopped = Counting(stop_after)
    with pytest.raises(KeyboardInterrupt):
        explored(FUNNEL, tmp_path / "out", stopped)
    statuses = [row["status"] for row in rows_of(tmp_path / "out")]
    assert len(statuses) == 12
    assert "pending" in statuses
    rest = explored(FUNNEL, tmp_path / "out")
    whole = sum(len(rows) for rows in ([1] * 12, [1] * 4))
    assert stopped.n_points + rest.n_points >= whole
    for name in ("points.csv", "points.parquet", "sweep.json", "sweep.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (clean / name).read_bytes(), name


def test_failed_points_are_kept_with_their_message_and_the_sweep_goes_on(tmp_path):
    tree = GRID | {"parameters": {"tile.rows_per_access": [16, 17], "tile.n_pcus": [32, 10]}}
    explored(tree, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows].count("failed") == 3
    assert "must divide n_rows (256) evenly, got 17" in rows[2]["message"]
    assert rows[2]["latency_ns"] == ""
    assert explored(tree, tmp_path / "out").n_points == 0


def test_a_constraint_on_figures_makes_points_infeasible(tmp_path):
    tree = GRID | {"constraints": ["area <= 0.8 mm2"], "objectives": ["latency", "area"]}
    explored(tree, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert {row["status"] for row in rows} == {"done", "infeasible"}
    for row in rows:
        assert (row["status"] == "done") == (float(row["area"]) <= 0.8e6)
        assert row["on_front"] == "false" or row["status"] == "done"


def test_several_workloads_and_seeds_are_points(tmp_path):
    tree = GRID | {
        "workload": ["digits-ternary-cnn", "gru-ptb"],
        "parameters": {"seed": [0, 1], "mapping.policy": ["least_time", "as_they_are"]},
    }
    explored(tree, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 8
    assert {row["workload"] for row in rows} == {"digits-ternary-cnn", "gru-ptb"}
    latencies = {(row["workload"], row["mapping.policy"]): row["latency_ns"] for row in rows}
    assert len(set(latencies.values())) >= 3


def test_methods_are_trained_once_and_executed(tmp_path):
    tree = {
        "name": "methods",
        "workload": "digits-cnn",
        "chip": "tim-dnn",
        "engine": ["estimate", "execute"],
        "samples": 10,
        "training": {"epochs": 1, "samples": 64},
        "parameters": {"quantizer": ["twn"], "tile.count_max": [8, 16]},
        "objectives": ["energy_pJ", "accuracy"],
    }
    explored(tree, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "done"]
    (folder,) = (tmp_path / "out" / "trained").iterdir()
    assert (folder / "workload.py").is_file()
    again = explored(tree, tmp_path / "out")
    assert again.n_points == 0


BITS_OF_A_LAYER = {
    "name": "bits",
    "workload": "digits-cnn",
    "chip": "tim-dnn",
    "objectives": ["latency_ns", "energy_pJ"],
}


def test_bits_of_a_single_layer_are_varied(tmp_path):
    varied = {"quantizer": ["lsq:bits_w=2,bits_a=2"], "quantizer.2.bits_a": [2, 4, 8]}
    explored(BITS_OF_A_LAYER | {"parameters": varied}, tmp_path / "one")
    rows = rows_of(tmp_path / "one")
    assert [row["status"] for row in rows] == ["done"] * 3
    latencies = [float(row["latency_ns"]) for row in rows]
    assert latencies == sorted(set(latencies))  # each pass more takes longer
    varied = {"quantizer": ["lsq:bits_w=2"], "quantizer.bits_a": [2, 8]}
    explored(BITS_OF_A_LAYER | {"parameters": varied}, tmp_path / "all")
    of_all = [float(row["latency_ns"]) for row in rows_of(tmp_path / "all")]
    assert latencies[0] == of_all[0] < latencies[2] < of_all[1]  # layer 1 stays at 2 bits


def test_a_layer_that_the_network_has_not_is_one_line(tmp_path):
    tree = BITS_OF_A_LAYER | {"parameters": {"quantizer": ["lsq"], "quantizer.3.bits_a": [2, 4]}}
    with pytest.raises(ConfigError, match=r"layers must be among the 2 that the network asks a method for, got 3$"):
        explored(tree, tmp_path / "out")


def test_methods_without_training_cannot_be_executed(tmp_path):
    tree = GRID | {"workload": "digits-cnn", "engine": "execute", "objectives": ["accuracy"],
                   "parameters": {"quantizer": ["twn"]}}  # fmt: skip
    with pytest.raises(ConfigError, match="training"):
        explored(tree, tmp_path / "out")


def test_two_sweeps_share_one_store(tmp_path):
    store = tmp_path / "shared.sqlite"
    explored(GRID, tmp_path / "one", store=store)
    second = explored(GRID | {"name": "other"}, tmp_path / "two", store=store)
    assert second.n_points == 0
    assert find_store(tmp_path / "two") == store
    assert (tmp_path / "one" / "points.csv").read_bytes() == (tmp_path / "two" / "points.csv").read_bytes()


def test_what_another_sweep_is_at_is_waited_for_and_not_computed(tmp_path, monkeypatch):
    """Another owner holds the claims of half of the points and delivers them while this sweep waits."""
    runner = Counting()
    whole = explored(GRID, tmp_path / "whole")
    keys = [key for batch in whole.batches for key in batch.keys]
    mine, theirs = keys[:6], keys[6:]
    out = tmp_path / "out"
    with Store(tmp_path / "whole" / "store.sqlite") as done:
        results = done.known(theirs)
    out.mkdir()
    with Store(out / "store.sqlite", owner="other") as other:
        assert other.claim(theirs) == [True] * 6

        def deliver(_):
            other.add(theirs, [results[key].figures for key in theirs], [None] * 6, [0.0] * 6, "estimate")

        monkeypatch.setattr(sweep_run.time, "sleep", deliver)
        explored(GRID, out, runner)
    assert sorted(key for batch in runner.batches for key in batch.keys) == sorted(mine)
    assert (out / "points.csv").read_bytes() == (tmp_path / "whole" / "points.csv").read_bytes()


def test_the_tables_of_a_killed_sweep_come_from_its_store(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        explored(FUNNEL, tmp_path / "out", Counting(1))
    before = (tmp_path / "out" / "points.csv").read_bytes()
    for name in ("points.csv", "points.parquet", "sweep.json"):
        (tmp_path / "out" / name).unlink()
    rebuild(tmp_path / "out")
    assert (tmp_path / "out" / "points.csv").read_bytes() == before


def test_the_tables_of_a_finished_sweep_are_taken_as_they_are(tmp_path, monkeypatch):
    explored(GRID, tmp_path / "out")
    points = tmp_path / "out" / "points.csv"
    before = points.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(sweep_run, "write_tables", None)  # whoever writes them fails
        assert rebuild(tmp_path / "out") == points
    with Store(tmp_path / "out" / "store.sqlite") as store:
        store.begin("another", "name: another", b"another")
    rebuild(tmp_path / "out")
    assert points.stat().st_mtime_ns > before


def test_a_sweep_of_an_older_imcsim_is_not_the_one_that_is_meant(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("imcsim.sweep.store.__version__", "0.0.1")
        explored(GRID, tmp_path / "out")
    explored(GRID, tmp_path / "out")
    with Store(tmp_path / "out" / "store.sqlite", read_only=True) as store:
        text = (tmp_path / "out" / "sweep.yaml").read_text()
        assert [kept.version for kept in store.sweeps()] == ["0.0.1", __version__]
        assert number_of(store, sweep_from(yaml.safe_load(text), "sweep.yaml", tmp_path)) == store.sweeps()[1].number


def test_a_folder_without_a_store_is_told_so(tmp_path):
    with pytest.raises(DataError, match=r"must be a folder that imcsim sweep wrote, got no store\.sqlite in it"):
        find_store(tmp_path)


def test_results_are_in_the_store_before_the_next_batch_begins(tmp_path):
    """What a kill -9 would lose is the batch that is being computed, and no more."""

    class Looking(Counting):
        def run(self, batches):
            for batch, outcomes in super().run(batches):
                yield batch, outcomes
                with Store(tmp_path / "out" / "store.sqlite", read_only=True) as store:
                    assert set(store.known(batch.keys)) == set(batch.keys)

    runner = explored(FUNNEL, tmp_path / "out", Looking())
    assert len(runner.batches) > 4


def test_the_copy_of_the_sweep_is_the_sweep(grid, tmp_path):
    text = (grid / "sweep.yaml").read_text()
    again = sweep_from(yaml.safe_load(text), "sweep.yaml", tmp_path)
    assert again.normalised() == text


def test_batches_hold_points_that_share_tiles_and_buffers(tmp_path):
    tree = GRID | {"parameters": {"n_tiles": list(range(2, 22)), "tile.count_max": [4, 8]}}
    runner = explored(tree, tmp_path / "out")
    assert runner.n_points == 40
    assert all(len(set(batch.points.columns["n_tiles"].tolist())) <= 8 for batch in runner.batches)
    shapes = [set(batch.points.columns["n_tiles"].tolist()) for batch in runner.batches]
    assert not any(one & other for i, one in enumerate(shapes) for other in shapes[:i])


def test_the_runner_of_this_process_gives_what_evaluate_gives(grid, tmp_path):
    explored(GRID, tmp_path / "one", InProcess(evaluate))
    assert (tmp_path / "one" / "points.csv").read_bytes() == (grid / "points.csv").read_bytes()
    assert np.isfinite([float(row["energy"]) for row in rows_of(tmp_path / "one")]).all()
