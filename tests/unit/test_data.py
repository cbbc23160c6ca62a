"""Reading data sets: hand-made files, and one line for each way in which a file can be broken."""

import gzip
import os
import re
import struct

import numpy as np
import pytest

from imcsim.data import (
    find_data,
    find_models,
    load_arrays,
    load_cifar10,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    read_idx,
    require_codes,
)
from imcsim.errors import DataError

IMAGES = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28)
LABELS = np.array([7, 3], dtype=np.uint8)


def idx(array):
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder, stem="train", *, images=IMAGES, labels=LABELS, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{stem}-images-idx3-ubyte", images), (f"{stem}-labels-idx1-ubyte", labels)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


# The folder


def test_the_argument_wins_over_the_environment(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("IMCSIM_DATA", str(tmp_path / "nowhere"))
    assert find_data(tmp_path / "here") == tmp_path / "here"


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IMCSIM_DATA", str(tmp_path))
    assert find_data() == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_no_folder_at_all_is_an_error(monkeypatch, value):
    monkeypatch.delenv("IMCSIM_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("IMCSIM_DATA", value)
    message = "data folder: must be given for this data set, got none; pass --data or set IMCSIM_DATA"
    with pytest.raises(DataError, match=message):
        load_mnist("test")


def test_a_folder_that_is_not_there_is_named_with_who_named_it(tmp_path, monkeypatch):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(DataError, match=f"data folder: must be a folder that exists, got '{re.escape(str(nowhere))}'"):
        find_data(nowhere)
    monkeypatch.setenv("IMCSIM_DATA", str(nowhere))
    with pytest.raises(DataError, match="IMCSIM_DATA: must be a folder that exists"):
        find_data()


# IDX


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("load", "place"),
    [
        (load_mnist, "mnist"),
        (load_mnist, "MNIST/raw"),
        (load_fashion_mnist, "fashion-mnist"),
        (load_fashion_mnist, "FashionMNIST/raw"),
    ],
)
def test_images_and_labels_are_read_in_every_layout(tmp_path, load, place, zipped):
    write_set(tmp_path / place, "t10k", zipped=zipped)
    images, labels = load("test", tmp_path)
    np.testing.assert_array_equal(images, IMAGES)
    assert (images.dtype, labels.dtype, labels.tolist()) == (np.uint8, np.int64, [7, 3])


def test_a_missing_file_is_named_with_the_places_looked_at(tmp_path):
    write_set(tmp_path / "mnist", "train")
    message = (
        f"MNIST: must have t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz in {tmp_path}/mnist or "
        f"{tmp_path}/MNIST/raw, got no such file; check the data folder"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        load_mnist("test", tmp_path)


def test_an_unknown_split_is_an_error(tmp_path):
    for load in (load_mnist, load_cifar10):
        with pytest.raises(DataError, match="split: must be 'train' or 'test', got 'valid'"):
            load("valid", tmp_path)
    with pytest.raises(DataError, match="split: must be 'train' or 'test', got 'all'"):
        load_digits("all")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with the magic number of an IDX file of bytes, got 0x$"),
        (b"PNG!1234", "must begin with the magic number of an IDX file of bytes, got 0x504e4721"),
        (struct.pack(">BBBBI", 0, 0, 0x0D, 1, 1) + b"1234", "magic number of an IDX file of bytes, got 0x00000d01"),
        (idx(LABELS)[:6], "must have a header of 8 bytes, got 6; the file is cut off"),
        (idx(IMAGES)[:-5], r"must hold 1568 bytes for shape \(2, 28, 28\), got 1563; the file is cut off"),
        (idx(LABELS) + b"x", r"must hold 2 bytes for shape \(2,\), got 3; the file has more behind its end"),
        (gzip.compress(idx(IMAGES))[:-9], "must be a whole gzip file, got .*; the file is cut off or damaged"),
        (b"\x1f\x8bnot a zipped file at all", "must be a whole gzip file, got .*; the file is cut off or damaged"),
    ],
)
def test_a_broken_idx_file_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match="must be a file that can be read, got Is a directory"):
        read_idx(tmp_path)


def test_as_many_labels_as_images_are_needed(tmp_path):
    write_set(tmp_path / "mnist", labels=np.array([1, 2, 3], dtype=np.uint8))
    with pytest.raises(DataError, match="mnist: train must have one label for each of 2 images, got 3"):
        load_mnist("train", tmp_path)


def test_labels_in_place_of_images_are_an_error(tmp_path):
    write_set(tmp_path / "mnist", images=LABELS)
    with pytest.raises(DataError, match=r"images-idx3-ubyte.gz: must have 3 axes for images, got shape \(2,\)"):
        load_mnist("train", tmp_path)


# Digits


def test_digits_are_split_into_the_documented_parts():
    train, test = load_digits("train"), load_digits("test")
    assert (train[0].shape, test[0].shape) == ((1442, 8, 8), (355, 8, 8))
    assert (train[0].dtype, train[1].dtype) == (np.uint8, np.int64)
    assert (train[0].min(), train[0].max()) == (0, 16)
    shares = np.bincount(test[1]) / (np.bincount(train[1]) + np.bincount(test[1]))
    assert shares.shape == (10,)
    assert np.all(np.abs(shares - 0.2) < 0.01)


def test_every_fifth_digit_of_a_class_is_in_the_test_set():
    from sklearn.datasets import load_digits as original

    images, target = original().images, original().target
    fours = images[target == 4]
    test, labels = load_digits("test")
    np.testing.assert_array_equal(test[labels == 4], fours[4::5])


def test_digits_are_those_that_the_package_loads(monkeypatch):
    from_file = [load_digits(split) for split in ("train", "test")]
    monkeypatch.setattr("imcsim.data._DIGITS", "laid out/in another way.csv.gz")
    for found, loaded in zip(from_file, [load_digits(split) for split in ("train", "test")], strict=True):
        np.testing.assert_array_equal(found[0], loaded[0])
        np.testing.assert_array_equal(found[1], loaded[1])


# CIFAR-10


def cifar_record(label, first):
    return bytes([label]) + ((np.arange(3072) + first) % 256).astype(np.uint8).tobytes()


@pytest.mark.parametrize("place", ["cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "cifar10"])
def test_binary_batches_are_read_in_their_order(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    for i in range(1, 6):
        (tmp_path / place / f"data_batch_{i}.bin").write_bytes(cifar_record(i, i) + cifar_record(9, 0))
    images, labels = load_cifar10("train", tmp_path)
    assert images.shape == (10, 3, 32, 32)
    assert labels.tolist() == [1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert images[2, 0, 0, :3].tolist() == [2, 3, 4]
    assert images[2, 1, 0, 0] == (1024 + 2) % 256


def test_the_lossless_part_is_read_where_there_are_no_batches(tmp_path):
    (tmp_path / "cifar10").mkdir()
    pixels = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(1, 32, 32, 3)
    np.savez(tmp_path / "cifar10" / "cifar10_lossless_4k1k.npz", x_test=pixels, y_test=np.array([6], dtype=np.uint8))
    images, labels = load_cifar10("test", tmp_path)
    assert images.shape == (1, 3, 32, 32)
    assert images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert labels.tolist() == [6]
    with pytest.raises(DataError, match=r"4k1k\.npz: must hold the array x_train, got none of that name"):
        load_cifar10("train", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_test": np.array([{}], dtype=object), "y_test": np.zeros(1)}, "must be a whole npz file without pickles"),
        ({"x_test": np.zeros((2, 32, 32, 3)), "y_test": np.zeros(1)}, "one label for each of 2 images, got 1"),
    ],
)
def test_a_broken_npz_file_is_an_error(tmp_path, arrays, message):
    (tmp_path / "cifar10").mkdir()
    np.savez(tmp_path / "cifar10" / "cifar10_lossless_4k1k.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_cifar10("test", tmp_path)


def test_an_npz_file_that_is_cut_off_is_an_error(tmp_path):
    (tmp_path / "cifar10").mkdir()
    path = tmp_path / "cifar10" / "cifar10_lossless_4k1k.npz"
    np.savez(path, x_test=np.zeros((1, 32, 32, 3)), y_test=np.zeros(1))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="must be a whole npz file without pickles, got File is not a zip file"):
        load_cifar10("test", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar_record(1, 0)[:-1], "must hold whole records of 3073 bytes, got 3072 bytes; the file is cut off"),
        (b"", "must hold whole records of 3073 bytes, got 0 bytes"),
        (cifar_record(10, 0), "labels must be from 0 to 9, got 10; this is no CIFAR-10 batch"),
    ],
)
def test_a_broken_batch_is_an_error(tmp_path, content, message):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "test_batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_cifar10("test", tmp_path)


def test_a_folder_without_cifar_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR-10: must have test_batch\.bin in .*cifar-10-batches-bin or .*, got no"):
        load_cifar10("test", tmp_path)


# Trained networks


def test_the_folder_of_models_is_named_or_lies_beside_the_data(tmp_path, monkeypatch):
    for folder in ("data", "models", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.delenv("IMCSIM_MODELS", raising=False)
    monkeypatch.setenv("IMCSIM_DATA", str(tmp_path / "data"))
    assert find_models() == tmp_path / "models"
    monkeypatch.setenv("IMCSIM_MODELS", str(tmp_path / "elsewhere"))
    assert find_models() == tmp_path / "elsewhere"
    assert find_models(tmp_path / "models") == tmp_path / "models"


def test_without_a_folder_of_models_one_line_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.delenv("IMCSIM_MODELS", raising=False)
    monkeypatch.delenv("IMCSIM_DATA", raising=False)
    message = (
        r"^models folder: must be given for this workload, got none; set IMCSIM_MODELS, or IMCSIM_DATA to a data "
        r"folder with models beside it$"
    )
    with pytest.raises(DataError, match=message):
        find_models()
    monkeypatch.setenv("IMCSIM_DATA", str(tmp_path / "data"))
    message = r"^models beside IMCSIM_DATA: must be a folder that exists, got '.*/models'; set IMCSIM_MODELS$"
    with pytest.raises(DataError, match=message):
        find_models()
    monkeypatch.setenv("IMCSIM_MODELS", str(tmp_path / "none"))
    with pytest.raises(
        DataError, match=r"^IMCSIM_MODELS: must be a folder that exists, got '.*/none'; set IMCSIM_MODE"
    ):
        find_models()
    with pytest.raises(DataError, match=r"^models folder: must be a folder that exists, got '.*/none'; set IMCSIM_MOD"):
        find_models(tmp_path / "none")


def test_arrays_of_a_network_come_with_the_shapes_that_were_asked_for(tmp_path):
    np.savez(tmp_path / "net.npz", w=np.ones((2, 3), np.int8), t=np.zeros((2, 1)), more=np.zeros(9))
    arrays = load_arrays(tmp_path / "net.npz", {"w": (2, 3), "t": (2, None)})
    assert {name: array.shape for name, array in arrays.items()} == {"w": (2, 3), "t": (2, 1)}
    require_codes("net.npz", arrays, ["w", "t"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, r"net\.npz: must hold the array w, got none of that name$"),
        ({"w": np.ones((3, 2))}, r"net\.npz: w must have shape \(2, any\), got \(3, 2\)$"),
        ({"w": np.ones(2)}, r"net\.npz: w must have shape \(2, any\), got \(2,\)$"),
        ({"w": np.array([["a"], ["b"]])}, r"net\.npz: w must hold finite numbers, got dtype <U1$"),
        ({"w": np.array([[1.0], [np.nan]])}, r"net\.npz: w must hold finite numbers, got nan$"),
        ({"w": np.array([[{}], [{}]], dtype=object)}, r"net\.npz: must be a whole npz file without pickles, got "),
    ],
)
def test_arrays_that_are_not_as_they_must_be_are_one_line(tmp_path, arrays, message):
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load_arrays(tmp_path / "net.npz", {"w": (2, None)})


def test_a_network_that_is_not_there_or_no_npz_file_is_one_line(tmp_path):
    message = r"net\.npz: must be a file of the trained network, got no such file; check IMCSIM_MODELS$"
    with pytest.raises(DataError, match=message):
        load_arrays(tmp_path / "net.npz", {"w": (2,)})
    for content in (b"", b"weights"):
        (tmp_path / "net.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"net\.npz: must be a whole npz file without pickles, got "):
            load_arrays(tmp_path / "net.npz", {"w": (2,)})
    np.save(tmp_path / "one.npy", np.ones(2))
    with pytest.raises(DataError, match=r"one\.npy: must be a whole npz file without pickles, got "):
        load_arrays(tmp_path / "one.npy", {"w": (2,)})


def test_a_weight_that_is_no_code_is_named(tmp_path):
    arrays = {"w0": np.array([1, -1]), "w1": np.array([0, 2, -3])}
    with pytest.raises(DataError, match=r"^net\.npz: w1 must hold -1, 0 and \+1 alone, got 2$"):
        require_codes("net.npz", arrays, ["w0", "w1"])


# The real files

needs_data = pytest.mark.skipif(not os.environ.get("IMCSIM_DATA"), reason="IMCSIM_DATA is not set: no data sets here")


@needs_data
@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
def test_the_real_test_sets_have_ten_thousand_images_in_ten_classes(load):
    images, labels = load("test")
    assert images.shape == (10000, 28, 28)
    assert labels.shape == (10000,)
    assert sorted(set(labels.tolist())) == list(range(10))
