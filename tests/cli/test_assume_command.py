"""Bits that are assumed, on the command line: run, compare, workload show and sweep."""

import csv
import json

import numpy as np
import pytest
from commands import imcsim
from onnx_models import Maker
from test_cli import assert_one_line

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

BITS = ("--assume", "W=ternary,A=2")


@pytest.fixture
def model(tmp_path):
    """Two float layers in ``net.onnx``."""
    rng, make = np.random.default_rng(0), Maker()
    x = make.node("Conv", ["x", make.constant(rng.normal(size=(8, 3, 3, 3)))], pads=[1] * 4)
    x = make.node("Flatten", [make.node("Relu", [x])])
    x = make.node("Gemm", [x, make.constant(rng.normal(size=(3, 128)))], transB=1)
    make.write(tmp_path, (1, 3, 4, 4), x).rename(tmp_path / "net.onnx")
    return tmp_path


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_a_float_model_runs_with_assumed_bits_and_says_so(model):
    np.savez(model / "net.npz", x=np.zeros((2, 3, 4, 4)), labels=np.array([0, 1]))  # values are not asked for
    done = imcsim(model, "run", "net.onnx", *BITS, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "assumed    W=ternary,A=2,A.first=8: weights of all 2 layers, inputs of all 2 layers" in done.stdout
    assert "not run: execute (assumed bits have no values)" in done.stdout
    summary = summary_of(model / "out")
    assert summary["assumed"] == {
        "bits": "W=ternary,A=2,A.first=8",
        "basis": "assumed",
        "weights": ["conv0", "gemm3"],
        "inputs": ["conv0", "gemm3"],
        "n_products": 2,
    }
    assert not summary["has_values"]
    assert summary["simulate"]["energy_pJ"] > 0
    page = (model / "out" / "report.html").read_text()
    assert "Assumed, and not told by the model: W=ternary,A=2,A.first=8: weights of all 2 layers" in page
    assert "Bits that are assumed have no values, and so no accuracy." in page


def test_a_run_as_it_is_assumes_nothing(tmp_path):
    done = imcsim(tmp_path, "run", "digits-ternary-cnn", "--engine", "estimate", "--out", "out")
    assert "assumed" not in done.stdout.split("\n\n")[0].split("Layers")[0]
    assert summary_of(tmp_path / "out")["assumed"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*BITS, "--engine", "execute"), "net: has weights and codes of assumed bits (W=ternary,A=2,A.first=8), so no"),
        (("--assume", "W=3bit,A=2"), "assume: W must be binary, ternary or a number of bits from 1 to 16, got '3bit'"),
        ((*BITS, "--trials", "3"), "trials: must go with a run that executes samples, got net, whose bits are assumed"),
        (
            (),
            "Conv that reads real numbers x1 (conv0), take a Quant, BipolarQuant or MultiThreshold before it, or --as",
        ),
    ],
)
def test_what_cannot_be_is_one_line(model, words, message):
    assert_one_line(imcsim(model, "run", "net.onnx", *words, "--out", "out"), message)


def test_a_network_that_says_its_bits_is_left_as_it_is(tmp_path):
    done = imcsim(tmp_path, "run", "resnet18", *BITS, "--out", "out")
    assert_one_line(done, "resnet18: assume: must go with a model file or a torch module, got a workload whose graph()")


def test_a_float_model_is_shown_and_compared_with_assumed_bits(model):
    shown = imcsim(model, "workload", "show", "net.onnx", "--assume", "W=4,A=2")
    assert "3 x 8" in shown.stdout
    done = imcsim(model, "compare", "net.onnx", *BITS, "--chip", "tim-dnn", "--chip", "v100", "--out", "out")
    assert "assumed: W=ternary,A=2,A.first=8: weights of all 2 layers" in done.stdout
    assert json.loads((model / "out" / "compare.json").read_text())["assumed"].startswith("W=ternary,A=2")
    assert "Assumed, and not told by the model: W=ternary" in (model / "out" / "compare.html").read_text()


MODULE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 5)).eval()

def example_input():
    return torch.zeros(1, 3, 6, 6)

def data(folder=None):
    return torch.zeros(4, 3, 6, 6), torch.zeros(4)
"""


def test_a_workload_of_a_float_module_runs_with_assumed_bits(tmp_path):
    (tmp_path / "workload.py").write_text(MODULE)
    words = ("run", "workload.py", "--no-page", "--out", "out")
    assert_one_line(
        imcsim(tmp_path, *words),
        "0, 3: weights must be ternary or binary planes, got float32 values; quantize the model first (imcsim.quant)",
    )
    done = imcsim(tmp_path, *words, *BITS)
    assert done.returncode == 0, done.stderr
    assert "weights of all 2 layers, inputs of all 2 layers" in done.stdout
    summary = summary_of(tmp_path / "out")
    assert summary["assumed"]["weights"] == ["0", "3"]
    assert summary["accuracy"] is None
    done = imcsim(tmp_path, *words, *BITS, "--engine", "execute")
    assert_one_line(done, ": has weights and codes of assumed bits (W=ternary,A=2,A.first=8), so no values")


def test_a_module_that_says_its_bits_is_left_as_it_is(tmp_path):
    done = imcsim(tmp_path, "run", "digits-ternary-cnn", *BITS, "--out", "out")
    assert_one_line(done, "assume: must meet layers of torch, got", "which says its bits; leave it out")


SWEEP = """
workload: net.onnx
chip: tim-dnn
{more}
objectives: [latency_ns, energy_pJ]
"""


def sweep(model, more, *words):
    (model / "bits.yaml").write_text(SWEEP.format(more=more))
    return imcsim(model, "sweep", "bits.yaml", "--out", "out", *words)


def points(model):
    return list(csv.DictReader((model / "out" / "points.csv").open()))


def test_a_sweep_varies_assumed_bits_key_by_key(model):
    more = "assume: W=ternary,A=2,last=8\nparameters: {assume.W: [1, 2, 4], assume.A: [1, 2, 4]}"
    done = sweep(model, more)
    assert done.returncode == 0, done.stderr
    energies = {(p["assume.W"], p["assume.A"]): float(p["energy_pJ"]) for p in points(model)}
    assert len(energies) == 9
    run = imcsim(
        model, "run", "net.onnx", "--assume", "W=4,A=1,last=8", "--engine", "estimate", "--out", "one"
    )  # fmt: skip
    assert run.returncode == 0
    assert energies["4", "1"] == summary_of(model / "one")["estimate"]["energy_pJ"]
    assert energies["1", "1"] < energies["4", "1"]
    page = (model / "out" / "report.html").read_text()
    assert "W=ternary,A=2,last=8" in page
    assert list((model / "out" / "chips").iterdir())


def test_a_sweep_varies_whole_assumptions_beside_the_chip(model):
    more = 'parameters: {assume: ["W=binary,A=1", "W=8,A=8"], n_tiles: [8, 32]}\nengine: simulate'
    assert sweep(model, more).returncode == 0
    assert len({p["energy_pJ"] for p in points(model)}) == 4


def test_a_sweep_with_the_same_bits_for_all_knows_its_points(model):
    assert sweep(model, "assume: W=ternary,A=2\nparameters: {n_tiles: [8, 32]}").returncode == 0
    first = points(model)
    assert sweep(model, "assume: W=2,A=2,A.first=8\nparameters: {n_tiles: [8, 32]}").returncode == 0
    assert points(model) == first


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("assume: W=2\nparameters: {n_tiles: [8]}", "bits.yaml: assume: must say A, got 'W=2'"),
        ("parameters: {assume.W: [2]}", "bits.yaml: assume: must say A, got 'W=2'; add A=2"),
        ("assume: W=2,A=2\nparameters: {assume.W: [y, x]}", "assume: W must be binary, ternary or a number of bits"),
        ("assume: W=2,A=2\nparameters: {assume.B: [2]}", "assume: keys must be W, A, first, last, W.first"),
        ("assume: W=2,A=2\nparameters: {assume.W: {low: 2, high: 40, step: 1}}", "from 1 to 16, got '17'"),
        (
            "assume: W=2,A=2\nparameters: {n_tiles: [8]}\nengine: [estimate, execute]",
            "assume: must go with estimate or simulate alone",
        ),
        ("assume: W=2,A=2\nparameters: {quantizer: [lsq]}", "assume: must go without a quantizer, which says its bits"),
        ("assume: [W=2]\nparameters: {n_tiles: [8]}", "assume: must be text, got a list"),
    ],
)
def test_a_sweep_that_assumes_what_cannot_be_is_one_line(model, more, message):
    if "execute" in more:
        more += "\nsamples: 2"
    assert_one_line(sweep(model, more), message)
