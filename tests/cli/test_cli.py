import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import IMCSIM, imcsim, imcsim_alone

NET = """
import torch
from torch import nn
from imcsim.quant import TernaryActivation, TernaryLinear

def build():
    torch.manual_seed(0)
    return nn.Sequential({layers}).eval()

def example_input():
    return torch.zeros(1, 12)
"""
TERNARY = "TernaryActivation(0.5), TernaryLinear(12, 8), nn.BatchNorm1d(8), TernaryActivation(0.5), TernaryLinear(8, 3)"
DATA = """
def data(folder=None):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(40, 12, generator=generator), torch.randint(0, 3, (40,), generator=generator)
"""


def workload(folder, layers=TERNARY, data=DATA, name="net"):
    path = folder / name / "workload.py"
    path.parent.mkdir()
    path.write_text(NET.format(layers=layers) + data)
    return name


def assert_one_line(done, *parts):
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("imcsim: ")
    for part in parts:
        assert part in last
    assert done.stderr.strip().count("\nimcsim: ") == 0


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    words = ("run", "digits-ternary-cnn", "--chip", "tim-dnn", "--samples", 64, "--trace", "--out", "out")
    done = imcsim(folder, *words)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_a_figure_of_a_run_is_explained_and_a_wrong_one_is_told_in_a_line(ran):
    folder, _ = ran
    done = imcsim(folder, "explain", "out", "estimate.count.conv2.tile.access", "--json")
    tree = json.loads(done.stdout)
    assert (tree["value"], tree["join"]) == (1152, "product")
    how = "ceil(rows of a group / tile.rows_per_access) = ceil(288 / 16)"
    assert {"name": "blocks", "value": 18, "how": how} in tree["children"]
    assert "estimate.energy_pJ = " in imcsim(folder, "explain", "out").stdout
    wrong = imcsim(folder, "explain", "out", "estimate.enery_pJ")
    assert_one_line(wrong, "out: must be asked for a figure that it holds", "did you mean estimate.energy_pJ")


def test_a_run_writes_all_its_files_and_names_the_report(ran):
    folder, done = ran
    out = folder / "out"
    for name in ("summary.json", "rows.csv", "spans.csv", "trace.json", "report.html"):
        assert (out / name).stat().st_size > 0
    assert list((out / "figures").glob("*.png"))
    assert list((out / "figures").glob("*.svg"))
    assert done.stdout.strip().splitlines()[-1] == "report: out/report.html"


def test_the_summary_has_the_promised_figures(ran):
    folder, _ = ran
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert (summary["workload"], summary["chip"], summary["seed"]) == ("digits-ternary-cnn", "tim-dnn", 0)
    for engine in ("simulate", "estimate"):
        assert summary[engine]["latency_ns"] > 0
        assert summary[engine]["energy_pJ"] > 0
    assert summary["area_um2"] > 0
    assert set(summary["basis"]) == {"published", "recalled", "derived", "fitted", "assumed"}
    assert sum(summary["basis"].values()) == pytest.approx(1)
    assert summary["accuracy"]["n_samples"] == 64
    assert summary["accuracy"]["reference"] > 0.9
    assert 0 < summary["accuracy"]["n_clipped_accesses"] < summary["accuracy"]["n_accesses"]
    assert summary["check"]["n_outputs"] == 640
    assert summary["check"]["exact"] == (summary["check"]["n_different"] == 0)


def test_totals_of_the_summary_are_sums_of_rows(ran):
    import pandas as pd

    folder, _ = ran
    summary = json.loads((folder / "out" / "summary.json").read_text())
    rows = pd.read_csv(folder / "out" / "rows.csv", keep_default_na=False)
    for engine in ("simulate", "estimate"):
        mine = rows[(rows.engine == engine) & (rows.phase == "inference")]
        assert mine.energy_pJ.sum() == pytest.approx(summary[engine]["energy_pJ"])
        assert mine.latency_ns.sum() == pytest.approx(summary[engine]["latency_ns"])
    assert rows[rows.action == "area"].area_um2.sum() == pytest.approx(summary["area_um2"])


def test_the_same_run_twice_gives_the_same_bytes(tmp_path):
    name = workload(tmp_path)
    for out, run in (("a", imcsim_alone), ("b", imcsim)):  # in a process of its own, and in one that has run others
        assert run(tmp_path, "run", name, "--out", "out").returncode == 0
        (tmp_path / "out").rename(tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_tile_that_cannot_clip_is_exact(tmp_path):
    done = imcsim(tmp_path, "run", workload(tmp_path), "--set", "tile.count_max=16", "--no-page", "--out", "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["check"] == {"exact": True, "n_outputs": 120, "n_different": 0, "n_different_classes": 0}


def test_kernels_of_chips_are_compared(tmp_path):
    done = imcsim(tmp_path, "chip", "kernel", "tim-dnn", "tim-8", "near-memory-iso-capacity")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "ns" in line]
    assert re.findall(r"x ([\d.]+)", line) == ["1", "2", "11.8"]
    wrong = imcsim(tmp_path, "chip", "kernel", "tim-dnn", "--rows", "300")
    assert wrong.returncode == 1
    assert wrong.stderr.strip() == "imcsim: kernel: n_rows must be from 1 to 256, those of a tile of tim-dnn, got 300"


@pytest.mark.parametrize("engine", ["simulate", "estimate", "execute"])
def test_each_engine_runs_alone(tmp_path, engine):
    done = imcsim(tmp_path, "run", workload(tmp_path), "--engine", engine, "--no-page", "--out", "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    present = {key for key in ("simulate", "estimate") if summary[key]} | (
        {"execute"} if summary["accuracy"] else set()
    )
    assert present == {engine}


def test_a_workload_without_a_test_set_runs_without_values(tmp_path):
    done = imcsim(tmp_path, "run", workload(tmp_path, data=""), "--no-page", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["accuracy"] is None


MISREADS = "n,lower,higher\n" + "".join(f"{n},{0.05 if n else 0},0.05\n" for n in range(9))


def test_an_accuracy_is_accounted_for(tmp_path):
    name = workload(tmp_path)
    (tmp_path / "misreads.csv").write_text(MISREADS)
    asked = [name, "--engine", "execute", "--set", "tile.misreads=misreads.csv"]
    done = imcsim(tmp_path, "run", *asked, "--trials", 3, "--explain", "--ablation", "--out", "out")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    accuracy, trials = summary["accuracy"], summary["trials"]
    for who in ("reference", "chip"):
        low, high = accuracy[f"interval_{who}"]
        assert low < accuracy[who] < high
    assert accuracy["difference"]["value"] == pytest.approx(accuracy["chip"] - accuracy["reference"])
    assert (trials["n"], trials["is_random"], trials["seeds"][0]) == (3, True, 0)
    assert trials["accuracies"][0] == accuracy["chip"]
    lines = (tmp_path / "out" / "trials.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == [str(seed) for seed in trials["seeds"]]
    on_tiles = [layer["name"] for layer in summary["layers"] if layer["kind"] == "linear"]
    assert [layer["name"] for layer in summary["ablation"]["layers"]] == on_tiles
    assert summary["ablation"]["whole"]["accuracy"] == accuracy["chip"]
    names = [[layer["name"] for layer in part["layers"]] for part in (summary, summary["layer_errors"])]
    assert names[0] == names[1]
    assert summary["layer_errors"]["first_difference"]["layer"] == on_tiles[0]
    assert {"trials.png", "layer_errors.svg", "ablation.png"} <= {p.name for p in (tmp_path / "out/figures").iterdir()}
    for words in ("95 % Tango score interval", "trials     3 chips", "first difference", "with one layer real"):
        assert words in done.stdout
    alone = imcsim(tmp_path, "run", *asked, "--seed", trials["seeds"][2], "--out", "out")
    assert alone.returncode == 0, alone.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["accuracy"]["chip"] == trials["accuracies"][2]
    assert not (tmp_path / "out" / "trials.csv").exists()
    assert not (tmp_path / "out" / "figures" / "ablation.png").exists()


def test_a_simulated_time_is_explained(tmp_path):
    name = workload(tmp_path)
    done = imcsim(tmp_path, "run", name, "--engine", "simulate", "--explain", "--out", "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert "layer_errors" not in summary
    time_ns = summary["simulate"]["latency_ns"]
    assert sum(layer["path_ns"] for layer in summary["time"]["layers"]) == pytest.approx(time_ns)
    lines = [line.split(",") for line in (out / "critical_path.csv").read_text().splitlines()[1:]]
    assert [line[-2] for line in lines] == ["0.000", *(line[-1] for line in lines[:-1])]
    assert float(lines[-1][-1]) == pytest.approx(time_ns)
    assert {"critical_path.png", "critical_path.svg"} <= {path.name for path in (out / "figures").iterdir()}
    page = (out / "report.html").read_text()
    assert 'id="time"' in page
    assert "data:image/png;base64," in page
    said = " ".join(done.stdout.split())
    assert all(" ".join(sentence.split()) in said for sentence in summary["time"]["sentences"])
    assert imcsim(tmp_path, "report", "out").returncode == 0
    assert (out / "report.html").read_text() == page
    assert imcsim(tmp_path, "run", name, "--engine", "simulate", "--out", "out").returncode == 0
    assert not (out / "critical_path.csv").exists()
    assert not (out / "figures" / "critical_path.png").exists()


def test_trials_that_are_interrupted_write_nothing(tmp_path):
    name = workload(tmp_path)
    (tmp_path / "misreads.csv").write_text(MISREADS)
    process = subprocess.Popen(
        [*IMCSIM, "run", name, "--engine", "execute", "--set", "tile.misreads=misreads.csv", "--trials", "10000",
         "--out", "out"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    while not process.stderr.readline().startswith("trials: 3 of 10000"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in errors
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_second_run_leaves_nothing_of_the_first(tmp_path):
    name = workload(tmp_path)
    assert imcsim(tmp_path, "run", name, "--no-page", "--trace", "--out", "out").returncode == 0
    assert (tmp_path / "out" / "trace.json").exists()
    assert imcsim(tmp_path, "run", name, "--no-page", "--engine", "execute", "--out", "out").returncode == 0
    assert not (tmp_path / "out" / "trace.json").exists()
    assert not (tmp_path / "out" / "spans.csv").exists()


def test_a_report_is_drawn_anew_from_its_folder(ran):
    folder, _ = ran
    page = folder / "out" / "report.html"
    before = page.read_bytes()
    page.unlink()
    done = imcsim(folder, "report", "out")
    assert done.returncode == 0, done.stderr
    assert page.read_bytes() == before


CHIP = "include: tim-dnn\nname: mine\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tile: {n_colums: 256}\n", ["mine.yaml: tile.n_colums: no such field in Tile", "did you mean 'n_columns'?"]),
        ("tile: {count_max: eight}\n", ["mine.yaml: tile.count_max: must be", "got 'eight'"]),
        ("tile: {access: {pcus: {energy_pJ: -17}}}\n", ["tile.access.pcus.energy_pJ: must be", "got -17"]),
        ("tile: {n_pcus: 10}\n", ["tile.n_pcus: must divide n_columns (256) evenly, got 10"]),
    ],
)
def test_a_slip_in_a_chip_file_is_one_line(tmp_path, text, parts):
    (tmp_path / "mine.yaml").write_text(CHIP + text)
    done = imcsim(tmp_path, "run", "digits-ternary-cnn", "--chip", "mine.yaml", "--out", "out")
    assert_one_line(done, *parts)
    assert not (tmp_path / "out").exists()
    assert_one_line(imcsim(tmp_path, "chip", "check", "mine.yaml"), *parts)


def test_an_unknown_key_to_set_is_one_line(tmp_path):
    done = imcsim(tmp_path, "run", "digits-ternary-cnn", "--set", "tile.count_mx=4", "--out", "out")
    assert_one_line(done, "tile.count_mx: no such field in Tile", "did you mean 'count_max'?")
    assert not (tmp_path / "out").exists()


def test_float_weights_are_one_line(tmp_path):
    name = workload(tmp_path, layers="nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)")
    done = imcsim(tmp_path, "run", name, "--engine", "estimate", "--out", "out")
    assert_one_line(done, "0, 2: weights must be ternary or binary planes, got float32 values; quantize the model")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_unsupported_operators_are_listed_with_counts_and_paths(tmp_path):
    name = workload(tmp_path, layers=f"nn.Mish(), {TERNARY}, nn.Mish(), nn.SELU()")
    done = imcsim(tmp_path, "run", name, "--engine", "estimate", "--out", "out")
    assert_one_line(
        done,
        "got 3 that are not: torch.nn.Mish x2 (0, 6), take ReLU, PReLU, GELU or Hardswish; torch.nn.SELU x1 (7), take",
    )


def test_a_missing_data_folder_is_one_line(tmp_path):
    done = imcsim(tmp_path, "run", "fashion-ternary-cnn", "--data", "nowhere", "--out", "out")
    assert_one_line(done, "nowhere")
    done = imcsim(tmp_path, "run", "fashion-ternary-cnn", "--out", "out")
    assert_one_line(done, "IMCSIM_DATA")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_an_output_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = imcsim(tmp_path, "run", "digits-ternary-cnn", "--out", "file/out")
    assert_one_line(done, "file/out: must be a folder that can be written to", "choose another --out")
    assert (tmp_path / "file").read_text() == "not a folder"


def test_an_unknown_workload_is_one_line_with_the_nearest_name(tmp_path):
    done = imcsim(tmp_path, "run", "digits-ternary-cn", "--out", "out")
    assert_one_line(done, "did you mean 'digits-ternary-cnn'?")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--samples", 0], "n_samples: must be at least 1, got 0"),
        (["--samples", 999], "n_samples: must be at most the 40 samples of the test set, got 999"),
        (["--batch", 0], "batch: must be at least 1, got 0"),
        (["--seed", -1], "seed: must be 0 or more, got -1"),
        (["--trials", 0], "trials: must be from 1 to 10000, got 0"),
        (["--trials", -2], "trials: must be from 1 to 10000, got -2"),
        (["--trials", 10**12], "trials: must be from 1 to 10000, got 1000000000000"),
        (
            ["--engine", "estimate", "--trials", 2],
            "trials: must go with a run that executes samples, got engine",
        ),
        (
            ["--engine", "estimate", "--explain"],
            "explain: must go with a run that simulates or executes samples, got engine estimate",
        ),
        (["--engine", "estimate", "--ablation"], "ablation: must go with a run that executes samples, got engine"),
        (["--set", "tile.count_max"], "tile.count_max"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, arguments, part):
    done = imcsim(tmp_path, "run", workload(tmp_path), *arguments, "--out", "out")
    assert_one_line(done, part)


@pytest.mark.parametrize("arguments", [["frobnicate"], ["run"], ["run", "x", "--out", "y", "--engine", "steam"]])
def test_wrong_usage_has_status_2(tmp_path, arguments):
    assert imcsim(tmp_path, *arguments).returncode == 2


@pytest.mark.parametrize(
    "command", [[], ["run"], ["report"], *([g, c] for g in ["chip"] for c in ["list", "show", "check", "schema"]),
                ["workload", "list"], ["workload", "show"], ["circuit", "show"]]
)  # fmt: skip
def test_every_command_shows_an_example(tmp_path, command):
    done = imcsim(tmp_path, *command, "--help")
    assert done.returncode == 0
    assert "Example: imcsim " + " ".join(command) in " ".join(done.stdout.split())


def test_a_run_that_is_interrupted_leaves_no_half_written_file(tmp_path):
    process = subprocess.Popen(
        [*IMCSIM, "run", "digits-ternary-cnn", "--out", "out"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    process.stderr.readline()  # the first line of progress: it is at work
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    assert process.wait(timeout=60) != 0
    assert "Traceback" not in errors
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix == ".part"]


def test_the_chip_is_shown_with_its_peaks_beside_the_papers(tmp_path):
    done = imcsim(tmp_path, "chip", "show", "tim-dnn")
    assert done.returncode == 0
    peaks = [line for line in done.stdout.splitlines() if "peak" in line and "TOPS" in line]
    assert any("114" in line and "-0.02 %" in line for line in peaks)


def test_the_schema_is_json(tmp_path):
    done = imcsim(tmp_path, "chip", "schema")
    assert json.loads(done.stdout)["$defs"]["Chip"]["title"] == "Chip"


def test_a_workload_is_shown_layer_by_layer(tmp_path):
    done = imcsim(tmp_path, "workload", "show", "digits-ternary-cnn")
    assert done.returncode == 0
    assert "conv2" in done.stdout
    listed = imcsim(tmp_path, "workload", "list")
    assert "digits-ternary-cnn" in listed.stdout
    assert "fashion-ternary-cnn" in listed.stdout


def test_a_wheel_brings_chips_and_workloads(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, root],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("imcsim-*.whl")
    place = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, wheel], check=True
    )
    listed = imcsim_alone(tmp_path, "chip", "list", PYTHONPATH=str(place))
    assert "tim-dnn" in listed.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import imcsim.shipped as s; print(s.shipped_folder('workloads'))"],
        env=os.environ | {"PYTHONPATH": str(place)}, capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout.strip()  # fmt: skip
    assert Path(where).is_relative_to(place)
    assert (Path(where) / "digits-ternary-cnn" / "weights.safetensors").is_file()


def test_a_device_is_chosen_or_refused_in_one_line(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = ["run", workload(tmp_path), "--engine", "execute", "--no-page", "--out", "out", "--device"]
    done = imcsim(tmp_path, *run, "cuda")
    assert_one_line(done, "imcsim: device: cuda needs a GPU that torch sees, got none; leave it out")
    done = imcsim(tmp_path, *run, "auto")
    assert done.returncode == 0, done.stderr


def test_shapes_alone_are_played_and_estimated_and_not_executed(tmp_path):
    done = imcsim(tmp_path, "run", "gru-ptb", "--no-page", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "not run: execute (shapes alone: values need weights)" in done.stdout
    assert done.stdout.splitlines()[-1] == "summary: out/summary.json; imcsim report out draws the page"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["simulate"]
    assert summary["estimate"]
    done = imcsim(tmp_path, "run", "gru-ptb", "--engine", "execute", "--out", "other")
    assert_one_line(done, "gru-ptb: has shapes alone, no weights, so no values; run it with --engine simulate or")


def test_machines_are_put_side_by_side(tmp_path):
    compare = ["compare", "resnet20-cifar", "--chip", "tim-dnn", "--chip", "v100", "--technology", "32nm"]
    done = imcsim(tmp_path, *compare, "--set", "v100:memory.batch=2")
    assert done.returncode == 0, done.stderr
    assert "resnet20-cifar on 2 machines, all brought to 32 nm HP at 0.9 V" in done.stdout
    assert "v100: batches of 2" in done.stdout
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_compared_is_one_line(tmp_path):
    assert_one_line(imcsim(tmp_path, "compare", "resnet20-cifar", "--chip", "v10"), "did you mean 'v100'?")
    assert_one_line(
        imcsim(tmp_path, "run", "resnet20-cifar", "--chip", "v100", "--out", "out"), "imcsim compare takes it"
    )
