"""Model files on the command line: a run by formula, one with a test set, and one line for a file that is broken."""

import re
import subprocess
import sys

import numpy as np
import pytest
from commands import imcsim
from onnx_models import Maker
from test_cli import assert_one_line

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")


@pytest.fixture
def model(tmp_path):
    """A ternary layer in ``net.onnx``: scores of 3 classes, of which the greatest is that of the greatest input."""
    make = Maker()
    x = make.quant("x", 1.0, 0.0, 2, narrow=1)
    weights = make.quant(make.constant(np.eye(3)), 1.0, 0.0, 2, narrow=1)
    make.write(tmp_path, (1, 3), make.node("Gemm", [x, weights], transB=1)).rename(tmp_path / "net.onnx")
    return tmp_path


def test_a_model_file_is_run_by_formula(model):
    done = imcsim(model, "run", "net.onnx", "--chip", "tim-dnn", "--engine", "estimate", "--out", "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("net on tim-dnn")


def test_a_model_file_is_executed_on_the_test_set_beside_it(model):
    np.savez(model / "net.npz", x=np.eye(3, dtype=np.float32), labels=np.array([0, 1, 0]))
    done = imcsim(model, "run", "net.onnx", "--no-page", "--out", "out")
    assert done.returncode == 0
    assert "accuracy   reference 66.67 %, chip 66.67 % (3 samples" in done.stdout


def test_a_model_file_is_shown_and_compared(model):
    shown = imcsim(model, "workload", "show", "net.onnx")
    assert "ONNX model net.onnx" in shown.stdout
    assert imcsim(model, "compare", "net.onnx", "--chip", "tim-dnn", "--chip", "v100").returncode == 0


@pytest.fixture
def guided(tmp_path):
    """Scores of ``x`` by a ternary layer, and the same with ``prior`` added, in ``guided.onnx``; samples beside it."""
    make = Maker()
    weights = make.quant(make.constant(np.eye(3)), 1.0, 0.0, 2, narrow=1)
    scores = make.node("Gemm", [make.quant("x", 1.0, 0.0, 2, narrow=1), weights], transB=1)
    path = make.write(tmp_path, (1, 3), make.node("Add", [scores, "prior"]), scores, more_inputs={"prior": (1, 3)})
    path.rename(tmp_path / "guided.onnx")
    prior = np.array([[0, 0, 0], [0, 0, 9], [0, 9, 0]])
    np.savez(tmp_path / "guided.npz", x=np.eye(3), prior=prior, labels=np.array([0, 2, 2]))
    return tmp_path


def test_a_model_file_of_several_inputs_and_outputs_goes_through_every_command(guided):
    shown = imcsim(guided, "workload", "show", "guided.onnx").stdout
    assert "inputs:  x (3), prior (3)" in shown
    assert re.search(r"outputs: add\d \(3\), gemm\d \(3\); judged by the first", shown)
    done = imcsim(guided, "run", "guided.onnx", "--explain", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "accuracy   reference 66.67 %, chip 66.67 % (3 samples" in done.stdout
    assert re.search(r"outputs    all 18 exact \(add\d, gemm\d; judged by the first\)", done.stdout)
    assert "These are the numbers of" in (guided / "out" / "report.html").read_text()
    compared = imcsim(guided, "compare", "guided.onnx", "--chip", "tim-dnn", "--chip", "v100")
    assert compared.returncode == 0
    (guided / "sweep.yaml").write_text(
        "workload: guided.onnx\nchip: tim-dnn\nengine: execute\nparameters:\n  tile.count_max: [1, 8]\n"
        "objectives: [accuracy, different_share]\n"
    )
    swept = imcsim(guided, "sweep", "sweep.yaml", "--out", "swept")
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.startswith("sweep: 2 points (2 done)")


def test_samples_without_one_of_the_inputs_are_one_line(guided):
    np.savez(guided / "guided.npz", x=np.eye(3), labels=np.array([0, 2, 2]))
    done = imcsim(guided, "run", "guided.onnx", "--out", "out")
    assert_one_line(done, "guided.npz: must hold the array prior, got none of that name")
    np.savez(guided / "guided.npz", x=np.eye(3), prior=np.eye(4)[:3], labels=np.array([0, 2, 2]))
    done = imcsim(guided, "run", "guided.onnx", "--out", "out")
    assert_one_line(done, "input 'prior': must have shape (b, 3), got (1, 4)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0a\x00no model", "bad.onnx: must be a whole ONNX file, got"),
        (b"", "bad.onnx: must be an ONNX model with a graph of nodes, got none"),
    ],
)
def test_a_broken_model_file_is_one_line(tmp_path, content, message):
    (tmp_path / "bad.onnx").write_bytes(content)
    assert_one_line(imcsim(tmp_path, "run", "bad.onnx", "--out", "out"), message)


def test_a_broken_test_set_is_one_line(model):
    (model / "net.npz").write_bytes(b"none")
    done = imcsim(model, "run", "net.onnx", "--engine", "execute", "--out", "out")
    assert_one_line(done, "net.npz: must be a whole npz file without pickles, got")
    np.savez(model / "net.npz", x=np.full((2, 3), np.nan), labels=np.arange(2))
    done = imcsim(model, "run", "net.onnx", "--engine", "execute", "--out", "out")
    assert_one_line(done, "net.npz: x must hold finite numbers (n ...), got nan of shape (2, 3)")
    np.savez(model / "net.npz", x=np.ones((2, 3)), labels=np.arange(3))
    done = imcsim(model, "run", "net.onnx", "--engine", "execute", "--out", "out")
    assert_one_line(done, "net.npz: labels must be whole numbers, one for each of 2 inputs, got int64 of shape (3,)")


def test_a_file_of_a_million_empty_records_takes_little_memory(tmp_path):
    nodes = b"\x0a\x00" * 1_000_001
    size = len(nodes)
    digits = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
    (tmp_path / "many.onnx").write_bytes(b"\x3a" + digits + nodes)
    code = "import sys\nfrom imcsim.cli import main\nsys.argv = ['imcsim', 'workload', 'show', 'many.onnx']\n"
    # not getrusage, whose figure counts what this process had when it made that one
    code += "try:\n    sys.exit(main())\nfinally:\n"
    code += "    status = dict(line.split(':') for line in open('/proc/self/status'))\n"
    code += "    print(int(status['VmHWM'].split()[0]) >> 10)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "imcsim: many.onnx: must have at most 1000000 fields, got more; split the model\n"
    assert int(done.stdout) < 512  # MiB
