"""Training: what is written is a workload, what was stopped goes on with the same bits, bad settings are one line."""

import json

import numpy as np
import pytest
import torch
from commands import imcsim
from safetensors.torch import load_file

import imcsim as package
from imcsim import train as training
from imcsim.errors import ConfigError, DataError
from imcsim.graph import Product
from imcsim.quant.methods import find_method
from imcsim.train import Settings, accuracy_of, load, train
from imcsim.workloads import find_workload

FEW = {"n_epochs": 3, "n_train": 240, "batch_size": 40, "start": "scratch"}


def trained(folder, quantizer="bnn", **settings):
    return train(find_workload("digits-cnn"), find_method(quantizer), Settings(**FEW | settings), folder)


class StoppedError(Exception):
    pass


def stop_after(n_epochs):
    def progress(what, done, total):
        if done == n_epochs:
            raise StoppedError

    return progress


@pytest.mark.parametrize("quantizer", ["bnn", "twn:bits_a=2"])
def test_a_training_that_was_stopped_goes_on_with_the_same_bits(tmp_path, quantizer):
    whole = trained(tmp_path / "whole", quantizer, augment="both")
    method, settings = find_method(quantizer), Settings(**FEW | {"augment": "both"})
    with pytest.raises(StoppedError):
        train(find_workload("digits-cnn"), method, settings, tmp_path / "cut", progress=stop_after(2))
    assert (tmp_path / "cut" / training.CHECKPOINT).exists()
    again = train(find_workload("digits-cnn"), method, settings, tmp_path / "cut")
    assert again.validation == whole.validation
    ours, theirs = (load_file(tmp_path / name / training.WEIGHTS) for name in ("whole", "cut"))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert not (tmp_path / "cut" / training.CHECKPOINT).exists()


def test_what_was_trained_is_a_workload_that_gives_the_same_numbers(tmp_path):
    made = trained(tmp_path / "net")
    found = find_workload(tmp_path / "net")
    x, labels = found.data()
    chip = package.load_chip("tim-dnn", overrides={"tile.count_max": 16})
    outputs = package.execute(package.place(found.graph(), chip), x)
    assert np.mean(outputs.argmax(axis=1) == labels) == pytest.approx(made.test_accuracy)
    assert accuracy_of(tmp_path / "net") == made.test_accuracy > 0.5


def test_a_layer_of_its_own_bits_is_trained_resumed_and_run(tmp_path):
    quantizer, few = "lsq:bits_w=2,bits_a=2,2.bits_a=8", Settings(**FEW | {"n_epochs": 2, "start": "float"})
    whole = train(find_workload("digits-cnn"), find_method(quantizer), few, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(find_workload("digits-cnn"), find_method(quantizer), few, tmp_path / "net", progress=stop_in(quantizer))
    assert (tmp_path / "net" / training.CHECKPOINT).exists()
    again = train(find_workload("digits-cnn"), find_method(quantizer), few, tmp_path / "net")
    assert (again.validation, again.test_accuracy) == (whole.validation, whole.test_accuracy)
    assert json.loads((tmp_path / "net" / training.RECORD).read_text())["settings"]["quantizer"] == (
        "lsq:2.bits_a=8"  # the default is 2 for both
    )
    graph = find_workload(tmp_path / "net").graph()
    inner = [graph.tensors[op.input].format.n_passes for op in graph.ops if isinstance(op.product, Product)][1:-1]
    assert inner == [2, 8]
    assert "lsq:2.bits_a=8" in (tmp_path / "net" / training.MODULE).read_text()
    done = imcsim(tmp_path, "run", "net", "--chip", "tim-dnn", "--set", "tile.count_max=16", "--samples", "40",
                  "--out", "out")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["check"]["exact"] is True


def stop_in(quantizer):
    def progress(what, done, total):
        if quantizer.rpartition(",")[2] in what:
            raise StoppedError

    return progress


def test_a_folder_of_ones_own_that_bears_a_shipped_name_is_not_taken_for_the_shipped_one(tmp_path):
    own = tmp_path / "digits-cnn"
    own.mkdir()
    shipped = find_workload("digits-cnn").path.read_text()
    (own / "workload.py").write_text(shipped + "\n\nOWN = True\n")
    train(find_workload(own), find_method("bnn"), Settings(**FEW | {"n_epochs": 1}), tmp_path / "net")
    record = json.loads((tmp_path / "net" / training.RECORD).read_text())
    assert record["workload_path"] == str(own / "workload.py")
    (own / "workload.py").unlink()
    with pytest.raises(ConfigError, match="digits-cnn"):
        find_workload(tmp_path / "net").graph()


def test_training_from_float_weights_starts_from_them(tmp_path):
    trained(tmp_path / "net", start="float", n_epochs=1)
    assert accuracy_of(tmp_path / "net" / "float") is not None
    _, network = load(tmp_path / "net" / "float")
    assert "float" in json.loads((tmp_path / "net" / "float" / training.RECORD).read_text())["settings"]["quantizer"]
    again = trained(tmp_path / "again", start=str(tmp_path / "net" / "float"), n_epochs=1)
    assert again.test_accuracy == accuracy_of(tmp_path / "net")
    assert network.training is False


def test_distillation_learns_from_the_float_network(tmp_path):
    plain = trained(tmp_path / "plain", n_epochs=1)
    taught = trained(tmp_path / "taught", n_epochs=1, distillation=2.0)
    assert (tmp_path / "taught" / "float" / training.WEIGHTS).exists()
    assert not (tmp_path / "plain" / "float").exists()
    ours, theirs = (load_file(tmp_path / name / training.WEIGHTS) for name in ("plain", "taught"))
    assert not all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert plain.validation != taught.validation or plain.test_accuracy != taught.test_accuracy


def test_a_start_that_nobody_trained_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"training.json: must be what imcsim train wrote, got FileNotFoundError"):
        trained(tmp_path / "net", start=str(tmp_path / "nothing"))


def test_the_command_trains_and_says_what_came_of_it(tmp_path):
    done = imcsim(
        tmp_path, "train", "digits-cnn", "--quantizer", "bnn", "--samples", 120, "--epochs", 1, "--out", "net"
    )
    assert done.returncode == 0, done.stderr
    assert "digits-cnn by bnn: validation" in done.stdout
    again = imcsim(
        tmp_path, "train", "digits-cnn", "--quantizer", "twn", "--samples", 120, "--epochs", 1, "--out", "net"
    )
    assert again.returncode == 1
    assert "must be a new folder or one of the same training, got quantizer 'bnn' there and 'twn' asked" in again.stderr


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"n_epochs": 0}, "n_epochs: must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate: must be finite and above 0, got nan"),
        ({"augment": "flip"}, "augment: must be none, mirror, shift, both, got 'flip'"),
        ({"seed": -1}, "seed: must be 0 or more, got -1"),
        ({"n_train": 5}, "n_train: must be at least 24, got 5"),
    ],
)
def test_settings_are_checked(settings, line):
    with pytest.raises(ConfigError, match=line):
        Settings(**settings)


def test_more_training_images_than_there_are_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="n_train: must be at most the 1442 training images, got 5000"):
        trained(tmp_path / "net", n_train=5000)


def test_a_cut_off_checkpoint_is_one_line(tmp_path):
    settings = Settings(**FEW)
    with pytest.raises(StoppedError):
        train(find_workload("digits-cnn"), find_method("bnn"), settings, tmp_path, progress=stop_after(1))
    path = tmp_path / training.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="must be a checkpoint that can be read"):
        train(find_workload("digits-cnn"), find_method("bnn"), settings, tmp_path)


def test_a_checkpoint_of_another_training_is_left_alone(tmp_path):
    with pytest.raises(StoppedError):
        train(find_workload("digits-cnn"), find_method("bnn"), Settings(**FEW), tmp_path, progress=stop_after(1))
    with pytest.raises(ConfigError, match="must be of the same training, got another"):
        trained(tmp_path, seed=7)


def test_a_loss_that_is_no_number_is_one_line(tmp_path):
    with pytest.raises(DataError, match="bnn: the loss must stay finite, got"):
        trained(tmp_path / "net", learning_rate=1e30)


def test_a_workload_that_takes_no_method_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"split\(\): missing|network\(\): missing"):
        train(find_workload("ttq-lenet"), find_method("bnn"), Settings(**FEW), tmp_path)


def test_a_workload_whose_network_takes_no_method_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"network\(\) must run, got TypeError: network\(\) takes 0 positional"):
        train(find_workload("digits-ternary-cnn"), find_method("bnn"), Settings(**FEW), tmp_path)


def test_no_data_folder_is_one_line(tmp_path):
    done = imcsim(tmp_path, "train", "mnist-cnn", "--quantizer", "bnn", "--out", "net")
    assert done.returncode == 1
    assert done.stderr.startswith("imcsim: ")
    assert "IMCSIM_DATA" in done.stderr


def test_a_folder_that_holds_something_else_is_one_line(tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "training.json").write_text("[1]")
    done = imcsim(tmp_path, "train", "digits-cnn", "--quantizer", "bnn", "--out", "net")
    assert done.returncode == 1
    assert "training.json: must be what a training wrote, got something else; delete it" in done.stderr


def test_a_method_of_no_such_name_is_one_line(tmp_path):
    done = imcsim(tmp_path, "train", "digits-cnn", "--quantizer", "bn", "--out", "net")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "imcsim: quantizer: must be an id or a name of a method, got 'bn'; did you mean 'tbn'?"
    )
    assert not (tmp_path / "net").exists()


def test_an_option_that_a_method_has_not_is_one_line(tmp_path):
    done = imcsim(tmp_path, "train", "digits-cnn", "--quantizer", "twn:bits=2", "--out", "net")
    assert done.returncode == 1
    assert "twn: options are bits_a=8" in done.stderr
