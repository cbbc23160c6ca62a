import csv
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from commands import IMCSIM, imcsim

from imcsim.arch.load import load_chip
from imcsim.sweep.spec import load_sweep

GRID = """
workload: digits-ternary-cnn
chip: tim-dnn
engine: estimate
parameters:
  tile.count_max: [4, 8, 12]
  n_tiles: [8, 16]
objectives: [latency, energy_pJ]
"""
FUNNEL = """
workload: digits-ternary-cnn
chip: tim-dnn
stages:
  - {engine: estimate, keep: 16}
  - {engine: simulate, keep: front}
  - {engine: execute, samples: 10}
parameters:
  tile.count_max: [2, 4, 6, 8, 10, 16]
  tile.n_pcus: [16, 32, 64]
  n_tiles: [8, 16]
objectives: [energy_pJ, latency_ns, area_um2, accuracy]
"""
STUDIES = Path(__file__).parents[2] / "reports" / "sweeps"


def sweep(folder, text=GRID, *more, out="out"):
    (folder / "mine.yaml").write_text(text)
    return imcsim(folder, "sweep", "mine.yaml", "--out", out, "--no-page", *more)


def rows_of(folder, out="out"):
    with (folder / out / "points.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_one_line(done, *parts):
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("imcsim: ")
    for part in parts:
        assert part in line, line


def test_a_sweep_is_explored_reported_and_looked_at(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(GRID)
    done = imcsim(tmp_path, "sweep", "mine.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "mine: 6 points (6 done)" in done.stdout
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
    for form in ("png", "svg", "pdf", "csv"):
        assert (tmp_path / "out" / "figures" / f"front.{form}").is_file()
    rows = rows_of(tmp_path)
    assert list(rows[0])[:5] == ["point", "tile.count_max", "n_tiles", "latency", "energy_pJ"]
    assert "estimate: 6 of 6 points" in done.stderr
    status = imcsim(tmp_path, "sweep", "status", "out")
    assert status.returncode == 0, status.stderr
    assert "complete" in status.stdout
    for row in rows:
        if row["on_front"] == "true":
            chip = load_chip(tmp_path / "out" / "chips" / f"{row['point']}.yaml")
            assert (chip.tile.count_max, chip.n_tiles) == (int(row["tile.count_max"]), int(row["n_tiles"]))
    exported = imcsim(tmp_path, "sweep", "export", "out", "--to", "all.csv")
    assert exported.returncode == 0, exported.stderr
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 7
    page = (tmp_path / "out" / "report.html").read_bytes()
    monkeypatch.setattr("imcsim.report.sweep_figures.FORMS", ("png",))  # those that the page holds
    assert imcsim(tmp_path, "report", "out").returncode == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == page


def test_the_example_file_is_written_once_and_can_be_read(tmp_path):
    done = imcsim(tmp_path, "sweep", "new", "first.yaml")
    assert done.stdout == "imcsim sweep first.yaml --out out/first\n"
    assert len(load_sweep(tmp_path / "first.yaml").space.points()) > 100
    assert_one_line(imcsim(tmp_path, "sweep", "new", "first.yaml"), "first.yaml: must not be there yet")


def test_a_quiet_sweep_says_the_end_alone(tmp_path):
    done = sweep(tmp_path, GRID, "--quiet")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [done.stdout.splitlines()[0], "points: out/points.csv"]


def test_a_worker_process_gives_the_rows_of_this_one(tmp_path):
    """One is enough for what it evaluates; what becomes of more, and of dead ones, is tested with the cluster."""
    text = GRID.replace("digits-ternary-cnn", "gru-ptb").replace("engine: estimate", "engine: [estimate, simulate]")
    assert sweep(tmp_path, text, out="one").returncode == 0
    done = sweep(tmp_path, text, "--workers", "1", "--quiet", out="two")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "points.csv").read_bytes() == (tmp_path / "two" / "points.csv").read_bytes()


def test_a_sweep_that_is_killed_goes_on_to_the_same_rows(tmp_path):
    assert sweep(tmp_path, FUNNEL, out="clean").returncode == 0
    wanted = (tmp_path / "clean" / "points.csv").read_bytes()
    draw, n_cut = random.Random(1), 0
    command = [*IMCSIM, "sweep", "mine.yaml", "--out", "out", "--no-page", "--quiet"]
    for _ in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
        begun = time.monotonic()
        while not (tmp_path / "out" / "store.sqlite").is_file() and time.monotonic() - begun < 60:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.1, 1.5))
        n_cut += process.poll() is None
        process.kill()
        process.wait()
    assert sweep(tmp_path, FUNNEL).returncode == 0
    assert (tmp_path / "out" / "points.csv").read_bytes() == wanted
    assert n_cut


def test_an_interrupted_sweep_says_how_to_go_on(tmp_path):
    (tmp_path / "mine.yaml").write_text(FUNNEL.replace("samples: 10", "samples: 300"))
    command = [*IMCSIM, "sweep", "mine.yaml", "--out", "out", "--no-page"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("simulate"):
            os.kill(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "Traceback" not in rest
    assert "everything so far is stored, and the same command goes on" in rest
    assert any(row["status"] != "pending" for row in rows_of(tmp_path))
    status = imcsim(tmp_path, "sweep", "status", "out")
    assert "stopped; the same command goes on" in status.stdout


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"parameters": {"tile.cuont_max": [4]}}, ["tile.cuont_max", "did you mean 'tile.count_max'?"]),
        ({"parameters": {"tile.count_max": ["four"]}}, ["tile.count_max", "must be a whole number", "'four'"]),
        ({"constraints": ["n_tiles > 100"]}, ["constraints: must leave at least one point", "n_tiles > 100"]),
        ({"objectives": ["accuracy"]}, ["objectives", "accuracy", "execute"]),
        ({"objectives": ["speed"]}, ["objectives", "'speed'"]),
        ({"workload": "digits-ternary-cn"}, ["workload", "did you mean 'digits-ternary-cnn'?"]),
        ({"chip": "tim-dn"}, ["chip", "did you mean 'tim-dnn'?"]),
        ({"engine": "guess"}, ["engine", "'guess'"]),
        ({"paramters": {}}, ["paramters", "did you mean 'parameters'?"]),
        ({"constraints": ["area <= 2 kg"]}, ["constraints", "kg"]),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path, change, parts):
    tree = yaml.safe_load(GRID) | change
    assert_one_line(sweep(tmp_path, yaml.safe_dump(tree)), "mine.yaml", *parts)


def test_a_missing_file_and_a_missing_folder_are_one_line(tmp_path):
    assert_one_line(imcsim(tmp_path, "sweep", "none.yaml", "--out", "out"), "none.yaml: no such file")
    assert_one_line(imcsim(tmp_path, "sweep", "status", "none"), "none: must be a folder that imcsim sweep wrote")
    assert_one_line(imcsim(tmp_path, "sweep", "recover", "none"), "none: must be a folder that imcsim sweep wrote")


def test_workers_and_a_scheduler_are_not_both_taken(tmp_path):
    done = sweep(tmp_path, GRID, "--workers", "2", "--scheduler", "tcp://127.0.0.1:1")
    assert_one_line(done, "workers: must not go with scheduler")


def test_an_unreachable_scheduler_is_one_line(tmp_path):
    assert_one_line(sweep(tmp_path, GRID, "--scheduler", "tcp://127.0.0.1:1"), "tcp://127.0.0.1:1")


def test_a_store_of_another_format_is_refused_and_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "store.sqlite").write_bytes(b"something else" * 1000)
    assert_one_line(sweep(tmp_path), "out/store.sqlite")
    assert (tmp_path / "out" / "store.sqlite").read_bytes() == b"something else" * 1000


def test_a_damaged_store_is_recovered_and_nothing_is_lost_that_can_be_read(tmp_path):
    assert sweep(tmp_path).returncode == 0
    clean = (tmp_path / "out" / "points.csv").read_bytes()
    store = tmp_path / "out" / "store.sqlite"
    whole = store.read_bytes()
    store.write_bytes(b"\0" * 100 + whole[100:])  # without its header no database can read it
    damaged = store.read_bytes()
    assert_one_line(sweep(tmp_path), "store.sqlite", "imcsim sweep recover out")
    done = imcsim(tmp_path, "sweep", "recover", "out")
    assert done.returncode == 0, done.stderr
    assert "6 results" in done.stdout
    (aside,) = (tmp_path / "out").glob("store-damaged*.sqlite")
    assert aside.read_bytes() == damaged
    assert sweep(tmp_path).returncode == 0
    assert (tmp_path / "out" / "points.csv").read_bytes() == clean


def test_a_search_gives_the_same_rows_each_time(tmp_path):
    text = GRID + "search: {sampler: nsga2, evaluations: 12, population: 4, seed: 3}\n"
    text = text.replace("n_tiles: [8, 16]", "main_memory.bits_per_ns: {low: 64.0, high: 4096.0, scale: log}")
    for out in ("one", "two"):
        done = sweep(tmp_path, text, out=out)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "points.csv").read_bytes() == (tmp_path / "two" / "points.csv").read_bytes()
    rows = rows_of(tmp_path, "one")
    assert len(rows) == 12
    assert len({row["main_memory.bits_per_ns"] for row in rows}) > 6
    more = sweep(tmp_path, text.replace("evaluations: 12", "evaluations: 16"), out="one")
    assert more.returncode == 0, more.stderr
    assert rows_of(tmp_path, "one")[:12] == [row | {"on_front": new["on_front"]} for row, new in
                                             zip(rows, rows_of(tmp_path, "one"), strict=False)]  # fmt: skip


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_can_be_read_and_have_their_results(path):
    points = load_sweep(path).space.points()
    with (path.parent / path.stem / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(points)
    names = [name for name in rows[0] if name in points.columns]
    for row, wanted in zip(rows, points.rows(), strict=True):
        for name in names:
            is_number = isinstance(wanted.get(name), float)
            assert (float(row[name]) if is_number else row[name]) == (wanted[name] if is_number else str(wanted[name]))
    assert {row["status"] for row in rows} <= {"done", "dropped"}
    assert (path.parent / path.stem / "figures" / "front.png").is_file()
