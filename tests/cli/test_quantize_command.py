"""imcsim quantize as a user runs it: a small float network trained here, and one that ships."""

import json

import numpy as np
import pytest
import torch
from commands import imcsim
from safetensors.torch import save_file
from test_cli import assert_one_line

from imcsim.data import load_digits
from imcsim.quant.training import fit

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

NET = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(64, 10), nn.LogSoftmax(1),
        )
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """``net.py`` with a float network, its weights after a few epochs on the digits, and samples with labels."""
    folder = tmp_path_factory.mktemp("float")
    (folder / "net.py").write_text(NET)
    scope = {}
    exec(NET, scope)
    torch.manual_seed(0)
    net = scope["Net"]()
    sets = []
    for split in ("train", "test"):
        images, labels = load_digits(split)
        sets.append((torch.from_numpy(images).float()[:, None] / 16, torch.from_numpy(labels)))
    fit(net, *sets, n_epochs=6, batch_size=32, learning_rate=0.01, generator=torch.Generator().manual_seed(0),
        say=lambda text: None)  # fmt: skip
    save_file(net.state_dict(), folder / "net.safetensors")
    for name, (x, labels) in zip(("train", "test"), sets, strict=True):
        np.savez(folder / f"{name}.npz", x=x.numpy(), labels=labels.numpy())
    np.savez(folder / "unlabelled.npz", x=sets[1][0].numpy())
    return folder


NET_WORDS = ("quantize", "net.py:Net", "--state", "net.safetensors", "--calibration-data", "train.npz")


def test_a_module_is_quantized_judged_written_and_run(trained):
    done = imcsim(trained, *NET_WORDS, "--data", "test.npz", "--chip", "tim-dnn", "--out", "out/net.onnx")
    assert done.returncode == 0, done.stderr
    record = json.loads((trained / "out/net.json").read_text())
    accuracy = record["accuracy"]
    assert accuracy["original"] > 0.9
    assert accuracy["quantized"] > accuracy["original"] - 0.05
    assert (accuracy["n_samples"], accuracy["chip"]) == (355, "tim-dnn")
    said = (
        f"float {accuracy['original']:.2%}, quantized {accuracy['quantized']:.2%}, on tim-dnn {accuracy['on_chip']:.2%}"
    )
    assert said in done.stdout
    assert [layer["weights"] for layer in record["layers"]] == ["8 bits", "ternary", "8 bits"]
    assert record["settings"]["activations"] == 4
    assert record["calibration_samples"] == "512 of 1442 samples of train.npz"
    assert "calibrated on 512 of 1442 samples of train.npz" in done.stdout
    ran = imcsim(trained, "run", "out/net.onnx", "--samples", "355", "--no-page", "--out", "out/run")
    assert f"accuracy   reference {100 * accuracy['quantized']:.2f} %" in ran.stdout


def test_the_same_command_gives_the_same_bytes(trained):
    for name in ("one", "two"):
        done = imcsim(trained, *NET_WORDS, "--data", "test.npz", "--samples", "20", "--out", f"{name}.onnx")
        assert done.returncode == 0
    for end in (".onnx", ".npz"):
        assert (trained / f"one{end}").read_bytes() == (trained / f"two{end}").read_bytes()
    with np.load(trained / "one.npz") as samples:
        assert samples["x"].shape == (20, 1, 8, 8)


def test_samples_without_labels_leave_the_accuracy_out(trained):
    words = ("quantize", "net.py:Net", "--state", "net.safetensors", "--data", "unlabelled.npz", "--out", "bare.onnx")
    done = imcsim(trained, *words)
    assert done.returncode == 0
    assert "accuracy   not measured: there are no labels" in done.stdout
    assert json.loads((trained / "bare.json").read_text())["accuracy"] is None
    assert not (trained / "bare.npz").exists()
    assert imcsim(trained, "run", "bare.onnx", "--engine", "estimate", "--out", "out/bare").returncode == 0


def test_a_large_test_set_is_not_written(trained, monkeypatch):
    monkeypatch.setattr("imcsim.post_training.command.MOST_SAMPLE_BYTES", 1000)
    done = imcsim(trained, *NET_WORDS, "--data", "test.npz", "--samples", "20", "--out", "large.onnx")
    assert done.returncode == 0
    assert "the test set is too large to be written beside the model" in done.stdout
    assert not (trained / "large.npz").exists()


def test_a_float_onnx_file_with_samples_beside_it_is_quantized(trained):
    """What quantize wrote with 8 bits, its quantizers taken off, stands for a float file."""
    from imcsim.graph.exported import export, model_of
    from imcsim.graph.qonnx.write import to_bytes

    scope = {}
    exec(NET, scope)
    model = model_of(export(scope["Net"]().eval(), (torch.zeros(1, 1, 8, 8),), "net"), name="net")
    (trained / "plain.onnx").write_bytes(to_bytes(model))
    (trained / "plain.npz").write_bytes((trained / "test.npz").read_bytes())
    done = imcsim(trained, "quantize", "plain.onnx", "--calibration-samples", "55", "--out", "few.onnx")
    assert done.returncode == 0, done.stderr
    assert "calibrated on the first 55 samples of the test set, which is judged without them" in done.stdout
    assert "(300 samples)" in done.stdout
    assert_one_line(
        imcsim(trained, "quantize", "plain.onnx", "--out", "plain.onnx"),
        "out: must be another file than the float model, got plain.onnx",
    )
    assert_one_line(
        imcsim(trained, "quantize", "few.onnx", "--out", "again.onnx"),
        "few.onnx: must be a float model to be quantized, got 6 quantizers, Quant; it runs as it is",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "1.5"), "weights: must be ternary, binary or 2 to 8 bits, got '1.5'"),
        (("--edges", "all"), "edges: must be a number of bits or same, got 'all'"),
        (("--calibration", "least"), "calibration: must be mse, max or percentile:P with P above 0 and up to 100, got"),
        (("--set", "tile.count_max=8"), "set: must go with a chip, got none; name one with --chip"),
        (("--chip", "tim"), "tim"),
        (("--samples", "0"), "samples: must be at least 1, got 0"),
        (("--state", "net.pt"), "state: must go with a module, FILE.py:NAME, got digits-float-cnn"),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line(tmp_path, words, message):
    assert_one_line(imcsim(tmp_path, "quantize", "digits-float-cnn", *words, "--out", "net.onnx"), message)
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_quantized_are_one_line(tmp_path):
    named = imcsim(tmp_path, "quantize", "digits-float-cnn", "--out", "net.pt")
    assert_one_line(named, "out: must be a file that ends in .onnx, got net.pt")
    missing = imcsim(tmp_path, "quantize", "no-such-net", "--out", "net.onnx")
    assert_one_line(missing, "no-such-net: must be a shipped workload, a folder with a workload.py")
    shapes = imcsim(tmp_path, "quantize", "resnet18", "--out", "net.onnx")
    assert_one_line(shapes, "resnet18: calibration samples must be there, got none; give --data FILE.npz with x")
    no_data = imcsim(tmp_path, "quantize", "mnist-float-cnn", "--out", "net.onnx")
    assert_one_line(no_data, "data folder: must be given for this data set, got none; pass --data or set IMCSIM_DATA")


def test_a_float_workload_that_is_run_says_what_to_do(tmp_path):
    done = imcsim(tmp_path, "run", "digits-float-cnn", "--out", "out")
    assert_one_line(
        done, "digits-float-cnn: ", "weights must be ternary or binary planes, got float32 values; quantize"
    )
