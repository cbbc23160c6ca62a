"""The recurrent workloads that ship, their data sets, and the loop that trains them."""

import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from imcsim.data import load_shakespeare, load_spoken_digits
from imcsim.errors import DataError
from imcsim.quant import TernaryEmbedding, TernaryLSTM
from imcsim.quant.sequences import fit_sequences, mean_loss, windows
from imcsim.quant.training import accuracy
from imcsim.workloads import find_workload

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads"
DIGITS, TEXT = "spoken-digits-ternary-gru", "shakespeare-ternary-lstm"
needs_data = pytest.mark.skipif(not os.environ.get("IMCSIM_DATA"), reason="IMCSIM_DATA is not set: no recordings, text")


def load(name, file="workload"):
    spec = importlib.util.spec_from_file_location(f"{name}-{file}".replace("-", "_"), WORKLOADS / name / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record_of(name):
    return json.loads((WORKLOADS / name / "training.json").read_text())


@pytest.mark.parametrize(
    ("name", "kinds", "shape"),
    [
        (DIGITS, {"conv": "conv2d", "gru": "gru", "scores": "conv2d"}, (10,)),
        (TEXT, {"lstm": "lstm", "scores": "conv2d"}, (65, 1, 64)),
    ],
)
def test_every_layer_with_weights_is_ternary_and_on_tiles(name, kinds, shape):
    workload = find_workload(name)
    graph = workload.graph()
    assert {op.name: op.product.kind for op in graph.products} == kinds
    assert all(op.product.n_planes == 1 for op in graph.products)
    assert graph.tensors[graph.output].shape == shape
    with torch.no_grad():
        y = workload.module.build()(workload.module.example_input())
    assert torch.allclose(y.exp().sum(dim=1), torch.ones(1), atol=1e-5)
    assert (WORKLOADS / name / "weights.safetensors").stat().st_size < 300_000
    assert record_of(name)["command"].startswith(f"python workloads/{name}/train.py --seed 0")


@needs_data
def test_spoken_digits_reach_the_accuracy_that_is_written_beside_them():
    workload, record = load(DIGITS), record_of(DIGITS)
    x, labels = workload.data()
    assert tuple(x.shape) == (300, 32, 1, 48)
    assert torch.bincount(labels).tolist() == [30] * 10
    assert accuracy(workload.build(), x, labels) == pytest.approx(record["test_accuracy"], abs=1.5 / 300)
    assert record["test_accuracy"] > 0.97


@needs_data
def test_the_language_model_reaches_about_the_perplexity_that_is_written_beside_it():
    workload, record = load(TEXT), record_of(TEXT)
    x, labels = workload.split("test")
    assert (tuple(x.shape), tuple(labels.shape)) == ((1742, 1, 1, 64), (1742, 1, 64))
    assert torch.equal(x[5, 0, 0, 1:].long(), labels[5, 0, :-1])
    found = math.exp(mean_loss(workload.build(), [(x[::10], labels[::10])]))
    assert found == pytest.approx(record["test_perplexity"], rel=0.06)
    assert record["test_perplexity"] < 8


@needs_data
def test_the_recordings_are_split_as_their_authors_recommend():
    assert [len(load_spoken_digits(part)[0]) for part in ("train", "test")] == [2700, 300]
    with pytest.raises(DataError, match="split: must be 'train' or 'test', got 'dev'"):
        load_spoken_digits("dev")


def recordings(tmp_path, **changes):
    folder = tmp_path / "fsdd"
    folder.mkdir()
    arrays = {
        "audio": np.arange(30, dtype=np.int16),
        "offsets": np.array([0, 5, 12, 30]),
        "labels": np.array([1, 0, 1], np.uint8),
        "speaker": np.array([1, 0, 0], np.uint8),
        "index": np.array([4, 5, 0], np.uint8),
    }
    np.savez(folder / "fsdd_8khz_int16.npz", **(arrays | changes))
    return tmp_path


def test_recordings_come_speaker_by_speaker_with_their_samples(tmp_path):
    found, labels = load_spoken_digits("test", recordings(tmp_path))
    assert labels.tolist() == [1, 1]
    assert [samples.tolist() for samples in found] == [list(range(12, 30)), list(range(5))]
    (only,), labels = load_spoken_digits("train", tmp_path)
    assert (only.tolist(), labels.tolist()) == (list(range(5, 12)), [0])


def test_recordings_that_are_cut_wrong_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"npz: offsets must cut the 30 samples into 3 recordings, got others$"):
        load_spoken_digits("test", recordings(tmp_path, offsets=np.array([0, 5, 12, 31])))


def test_text_becomes_numbers_in_the_order_of_its_characters(tmp_path):
    (tmp_path / "input.txt").write_text("abcabcabcb")
    tokens, letters = load_shakespeare("train", tmp_path)
    assert (tokens.tolist(), letters) == ([0, 1, 2, 0, 1, 2, 0, 1, 2], "abc")
    assert load_shakespeare("test", tmp_path)[0].tolist() == [1]


@pytest.mark.parametrize("content", [b"", "naïve text".encode()])
def test_text_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "input.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"input\.txt: must be a text of ASCII characters, got"):
        load_shakespeare("train", tmp_path)


@pytest.mark.parametrize("load_set", [load_shakespeare, load_spoken_digits])
def test_a_folder_without_the_set_says_which_file_is_missing(tmp_path, load_set):
    with pytest.raises(DataError, match=r"must have (input\.txt|fsdd_8khz_int16\.npz) in .*, got no such file"):
        load_set("test", tmp_path)


# --- features -------------------------------------------------------------------------------------------------------


def test_a_tone_is_loudest_in_the_band_around_it_and_silence_is_zero():
    workload = load(DIGITS)
    tone = 1000 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 8000)
    found = workload.features(tone.astype(np.int16))
    n_frames = 1 + (4000 - 256) // 128
    bands = workload.mel_bands()
    assert found.shape == (32, 1, 48)
    assert found[:, 0, :n_frames].argmax(axis=0).tolist() == [int(bands[:, 64].argmax())] * n_frames  # bin 64: 1 kHz
    assert not found[:, 0, n_frames:].any()
    assert found.max() == pytest.approx(255 / 256)
    assert not workload.features(np.zeros(10, np.int16))[:, 0, 1:].any()


def test_loudness_does_not_matter_and_bands_cover_every_frequency_between_their_ends():
    workload = load(DIGITS)
    samples = np.random.default_rng(0).normal(size=3000) * 100
    np.testing.assert_allclose(workload.features(samples), workload.features(50 * samples), atol=1e-5)
    assert np.all(workload.mel_bands()[:, 6:255].sum(axis=0) > 0)


@pytest.mark.parametrize(("name", "n", "every"), [(DIGITS, 90, 9), (TEXT, 40, 20)])
def test_validation_is_kept_out_of_training(name, n, every):
    train, validation = load(name, "train").train_and_validation((torch.arange(n), torch.arange(n)))
    assert sorted([*train[0].tolist(), *validation[0].tolist()]) == list(range(n))
    assert len(validation[0]) == n // every


# --- training -------------------------------------------------------------------------------------------------------


def small_text():
    return windows(torch.arange(200) ** 2 % 5, 8)


def fit(checkpoint=None, stop_after=None):
    x, labels = small_text()
    torch.manual_seed(3)
    net = nn.Sequential(TernaryEmbedding(5, 6), TernaryLSTM(6, 8), nn.Conv2d(8, 5, 1), nn.LogSoftmax(dim=1))
    generator = torch.Generator().manual_seed(4)
    said = []

    def batches(generator):
        for picks in torch.randperm(len(x), generator=generator).split(8):
            yield x[picks], labels[picks]

    def say(line):
        said.append(line)

    def score(net):
        if len(said) == stop_after:
            raise KeyboardInterrupt
        return -mean_loss(net, [(x, labels)])

    scores = fit_sequences(
        net, batches, score, n_epochs=4, learning_rate=0.02, generator=generator, checkpoint=checkpoint, say=say
    )
    return scores, net.state_dict()


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, weights = fit()
    assert whole[-1] > whole[0]
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "checkpoint", stop_after=2)
    again, others = fit(tmp_path / "checkpoint")
    assert again == whole
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_windows_stand_side_by_side_and_what_comes_next_is_one_further():
    x, labels = windows(torch.arange(9), 4)
    assert x.tolist() == [[[[0, 1, 2, 3]]], [[[4, 5, 6, 7]]]]
    assert labels.tolist() == [[[1, 2, 3, 4]], [[5, 6, 7, 8]]]
