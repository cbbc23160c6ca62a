"""The workloads that ship: they load from anywhere, are ternary, and reach the accuracy that is written beside them."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import imcsim
from imcsim.errors import DataError
from imcsim.graph import QuantizedActivation, QuantizedProduct
from imcsim.quant import packed_state
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.training import accuracy

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads"
TUNED = "fashion-ternary-cnn-count4-l32"
NAMES = ["digits-ternary-cnn", "fashion-ternary-cnn", TUNED]
SHAPES = {"digits-ternary-cnn": (1, 1, 8, 8), "fashion-ternary-cnn": (1, 1, 28, 28), TUNED: (1, 1, 28, 28)}
DIGITAL = (nn.MaxPool2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.Flatten, nn.LogSoftmax)


def load(name, file="workload"):
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), WORKLOADS / name / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def training(name):
    return json.loads((WORKLOADS / name / "training.json").read_text())


@pytest.fixture(params=NAMES)
def name(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # nothing may depend on the current folder
    return request.param


def test_the_network_takes_the_example_and_gives_ten_log_probabilities(name):
    workload = load(name)
    net, x = workload.build(), workload.example_input()
    assert not net.training
    assert (tuple(x.shape), x.dtype) == (SHAPES[name], torch.float32)
    with torch.no_grad():
        y = net(x)
    assert tuple(y.shape) == (1, 10)
    assert y.exp().sum().item() == pytest.approx(1)


def test_building_twice_gives_the_bits_of_the_file(name):
    workload = load(name)
    stored = load_file(WORKLOADS / name / "weights.safetensors")
    for _ in range(2):
        state = packed_state(workload.build())
        assert set(state) == set(stored)
        assert all(torch.equal(state[key], stored[key]) for key in stored)


def test_every_layer_is_one_that_a_chip_can_take(name):
    for module in load(name).build().children():
        assert isinstance(module, (QuantizedProduct, QuantizedActivation, *DIGITAL))


def test_all_weights_are_one_ternary_plane_with_many_zeros(name):
    layers = [module for module in load(name).build().modules() if isinstance(module, QuantizedWeights)]
    products = [layer.imc_product() for layer in layers]
    assert [product.n_planes for product in products] == [1] * len(products)
    zeros = sum(product.weights.zero_fraction * product.weights.planes.size for product in products)
    assert zeros / sum(product.weights.planes.size for product in products) > 0.35


def test_the_weights_file_is_small(name):
    assert (WORKLOADS / name / "weights.safetensors").stat().st_size < 300_000


def test_the_description_names_data_papers_and_layers_of_8_bits(name):
    workload = load(name)
    assert workload.DATASET in ("scikit-learn digits", "Fashion-MNIST")
    assert workload.DESCRIPTION
    assert workload.EIGHT_BIT_LAYERS
    assert "Ternary Weight Networks" in workload.PAPERS[0]


def test_the_record_of_the_training_says_how_to_repeat_it(name):
    record = training(name)
    assert record["workload"] == name
    assert record["dataset"] == load(name).DATASET
    assert record["command"].startswith(f"python workloads/{name}/train.py --seed {record['seed']}")
    assert {"imcsim", "python", "torch"} <= set(record["versions"])


def test_digits_reach_the_accuracy_that_is_written_beside_them():
    workload, record = load("digits-ternary-cnn"), training("digits-ternary-cnn")
    x, y = workload.data()
    assert tuple(x.shape) == (355, 1, 8, 8)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert accuracy(workload.build(), x, y) == pytest.approx(record["test_accuracy"], abs=1.5 / 355)
    assert record["test_accuracy"] >= 0.98


@pytest.mark.skipif(not os.environ.get("IMCSIM_DATA"), reason="IMCSIM_DATA is not set: no Fashion-MNIST here")
def test_fashion_reaches_about_the_accuracy_that_is_written_beside_it():
    workload, record = load("fashion-ternary-cnn"), training("fashion-ternary-cnn")
    x, y = workload.data()
    assert tuple(x.shape) == (10000, 1, 28, 28)
    some = accuracy(workload.build(), x[:2000], y[:2000])  # all 10,000 take half a minute on a busy machine
    assert some == pytest.approx(record["test_accuracy"], abs=0.015)
    assert record["test_accuracy"] >= 0.90


@pytest.mark.skipif(not os.environ.get("IMCSIM_DATA"), reason="IMCSIM_DATA is not set: no Fashion-MNIST here")
def test_a_network_trained_for_a_chip_does_there_what_is_written_beside_it_and_the_control_does_not():
    workload, record = load(TUNED), training(TUNED)
    chip = imcsim.load_chip(workload.CHIP, overrides=workload.CHANGES)
    x, y = (each[:500] for each in workload.data())

    def accuracy_on_chip(net):
        plan = imcsim.place(imcsim.capture(net, workload.example_input()), chip)
        return np.mean(imcsim.execute(plan, x).argmax(axis=1) == y.numpy())

    assert accuracy_on_chip(workload.build()) == pytest.approx(record["test_accuracy_on_chip"], abs=0.05)
    assert record["test_accuracy_on_chip"] > 0.85
    assert accuracy_on_chip(workload.start()) < 0.3
    assert accuracy_on_chip(workload.control()) < 0.3


def test_the_control_was_trained_as_long_and_with_the_same_order():
    record, control = training(TUNED), json.loads((WORKLOADS / TUNED / "control.json").read_text())
    assert (record["tiles_in_forward_pass"], control["tiles_in_forward_pass"]) == (True, False)
    assert control["command"] == f"{record['command']} --control"
    for same in ("seed", "n_epochs", "n_train", "n_validation", "changes", "started_from"):
        assert record[same] == control[same]


def test_fashion_without_a_folder_says_what_to_set(monkeypatch):
    monkeypatch.delenv("IMCSIM_DATA", raising=False)
    with pytest.raises(DataError, match="pass --data or set IMCSIM_DATA"):
        load("fashion-ternary-cnn").data()


def test_digits_do_not_share_pixels_between_training_and_test():
    workload = load("digits-ternary-cnn")
    train, test = (workload.split(part)[0].flatten(1) for part in ("train", "test"))
    assert not bool((train[:, None] == test[None]).all(dim=2).any())


def test_training_code_keeps_validation_images_out_of_training(name):
    images = torch.arange(48.0).reshape(48, 1, 1, 1)
    train, validation = load(name, "train").train_and_validation((images, torch.arange(48)))
    assert sorted([*train[1].tolist(), *validation[1].tolist()]) == list(range(48))
    assert torch.equal(train[0].flatten().long(), train[1])
    assert 0 < len(validation[1]) < len(train[1]) / 4
