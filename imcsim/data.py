"""Data sets as arrays: scikit-learn's digits from the installed package, larger sets from a folder; trained networks.

The folder is an argument or the environment variable ``IMCSIM_DATA``; nothing is downloaded. Files are IDX (gzip or
plain), CIFAR-10's binary batches, in the layouts that torchvision and other loaders leave, npz files of recordings and
plain text. Networks that others trained are npz files in the folder that ``IMCSIM_MODELS`` names, or in ``models``
beside ``IMCSIM_DATA``. Pickle is never read.
"""

import gzip
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

import numpy as np

from imcsim.errors import DataError

Array = np.ndarray
Split = Literal["train", "test"]

VARIABLE = "IMCSIM_DATA"
"""Environment variable that names the folder of data sets."""

MODELS_VARIABLE = "IMCSIM_MODELS"
"""Environment variable that names the folder of trained networks."""


def find_data(folder: str | Path | None = None) -> Path:
    """Return the folder of data sets: *folder*, or what ``IMCSIM_DATA`` names.

    Raises DataError when neither is given or there is no such folder.
    """
    where = "data folder"
    if folder is None:
        where, folder = VARIABLE, os.environ.get(VARIABLE) or None
    if folder is None:
        raise DataError(f"data folder: must be given for this data set, got none; pass --data or set {VARIABLE}")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{where}: must be a folder that exists, got {str(folder)!r}")
    return path


def find_models(folder: str | Path | None = None) -> Path:
    """Return the folder of trained networks: *folder*, what ``IMCSIM_MODELS`` names, or ``models`` beside the data.

    Raises DataError when there is no such folder.
    """
    where, beside = "models folder", os.environ.get(VARIABLE) or None
    if folder is None:
        where, folder = MODELS_VARIABLE, os.environ.get(MODELS_VARIABLE) or None
    if folder is None and beside is not None:
        where, folder = f"models beside {VARIABLE}", Path(beside).expanduser().resolve().parent / "models"
    if folder is None:
        raise DataError(
            "models folder: must be given for this workload, got none; "
            f"set {MODELS_VARIABLE}, or {VARIABLE} to a data folder with models beside it"
        )
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise DataError(f"{where}: must be a folder that exists, got {str(folder)!r}; set {MODELS_VARIABLE}")
    return path


def load_arrays(path: str | Path, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Array]:
    """Return the arrays of a trained network in the npz file *path*: those of *shapes*, None for any size of an axis.

    Raises DataError for a file that is no npz file, lacks an array, or holds one of another shape or of no numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: must be a file of the trained network, got no such file; check {MODELS_VARIABLE}")
    found = _read_npz(path, shapes)
    for name, array in found.items():
        wanted = shapes[name]
        fits = array.ndim == len(wanted) and all(w in (None, n) for w, n in zip(wanted, array.shape, strict=True))
        if not fits:
            expected = ", ".join("any" if w is None else str(w) for w in wanted)
            raise DataError(f"{path}: {name} must have shape ({expected}), got {array.shape}")
        if array.dtype.kind not in "iuf" or not np.all(np.isfinite(array)):
            raise DataError(f"{path}: {name} must hold finite numbers, got {_odd(array)}")
    return found


def load_samples(path: str | Path, names: Sequence[str] = ("x",)) -> tuple[dict[str, Array], Array]:
    """Return the test set in the npz file *path*: inputs (n ...), an array of each of *names*, and labels (n).

    As they are stored. Raises DataError for a file that is none, or that holds something else.
    """
    inputs, labels = load_inputs(path, names)
    if labels is None:
        raise DataError(f"{path}: must hold the array labels, got none of that name")
    return inputs, labels


def load_inputs(path: str | Path, names: Sequence[str] = ("x",)) -> tuple[dict[str, Array], Array | None]:
    """Return what `load_samples` does, and None in the place of labels where the file holds none."""
    inputs = _read_npz(Path(path), names, optional=("labels",))
    labels = inputs.pop("labels", None)
    for name, x in inputs.items():
        if x.dtype.kind not in "iufb" or x.ndim < 2 or not np.all(np.isfinite(x)):
            raise DataError(f"{path}: {name} must hold finite numbers (n ...), got {_odd(x)} of shape {x.shape}")
        if labels is not None and (labels.dtype.kind not in "iu" or labels.shape[:1] != x.shape[:1]):
            raise DataError(
                f"{path}: labels must be whole numbers, one for each of {len(x)} inputs, got {labels.dtype} of shape "
                f"{labels.shape}"
            )
    return inputs, labels


def require_codes(path: str | Path, arrays: Mapping[str, Array], names: Sequence[str]) -> None:
    """Raise DataError unless the arrays *names*, read from *path*, hold nothing but -1, 0 and +1."""
    for name in names:
        wrong = ~np.isin(arrays[name], (-1, 0, 1))
        if np.any(wrong):
            raise DataError(f"{path}: {name} must hold -1, 0 and +1 alone, got {arrays[name][wrong].flat[0]}")


def _odd(array: Array) -> str:
    wrong = array[~np.isfinite(array)] if array.dtype.kind in "iuf" else array[:0]
    return str(wrong.flat[0]) if wrong.size else f"dtype {array.dtype}"


def load_mnist(split: Split, folder: str | Path | None = None) -> tuple[Array, Array]:
    """Return MNIST: images uint8 (n 28 28) and labels int64 (n).

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
    """
    return _load_idx_set(split, find_data(folder), ("mnist", "MNIST"), "MNIST")


def load_fashion_mnist(split: Split, folder: str | Path | None = None) -> tuple[Array, Array]:
    """Return Fashion-MNIST: images uint8 (n 28 28) and labels int64 (n).

    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
    """
    return _load_idx_set(split, find_data(folder), ("fashion-mnist", "FashionMNIST"), "Fashion-MNIST")


def load_digits(split: Split) -> tuple[Array, Array]:
    """Return scikit-learn's digits: images uint8 (n 8 8) with grey levels 0 to 16, and labels int64 (n).

    The split is fixed and stratified: of each class, in the order of the package, every fifth image (the 5th, the
    10th ...) is in the test set, the others in the training set; 1442 and 355 images.
    Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).
    """
    _require_split(split)
    values = _digits()
    images, labels = values[:, :-1].reshape(-1, 8, 8), values[:, -1]
    rank = np.zeros_like(labels)
    for digit in range(10):
        members = labels == digit
        rank[members] = np.arange(members.sum())
    picked = (rank % 5 == 4) == (split == "test")
    return images[picked].astype(np.uint8), labels[picked]


_DIGITS = "sklearn/datasets/data/digits.csv.gz"


def _digits() -> Array:
    """Return scikit-learn's digits as its file has them, int64 (1797 65): 64 pixels, then the label.

    The file is read where the package keeps it: to import the package takes two seconds, half of a short run.
    """
    try:
        file = Path(str(distribution("scikit-learn").locate_file(_DIGITS)))
    except PackageNotFoundError:
        file = Path()
    if file.is_file():
        return np.loadtxt(file, np.int64, delimiter=",")
    from sklearn.datasets import load_digits as load  # a package that keeps it elsewhere

    bunch = load()
    return np.column_stack([bunch.data, bunch.target]).astype(np.int64)


def load_cifar10(split: Split, folder: str | Path | None = None) -> tuple[Array, Array]:
    """Return CIFAR-10: images uint8 (n 3 32 32), red green blue, and labels int64 (n).

    Reads the binary version (``data_batch_1.bin`` ..., ``test_batch.bin``), or the lossless part of it in
    ``cifar10_lossless_4k1k.npz``: 4000 training and 1000 test images.
    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """
    _require_split(split)
    root = find_data(folder)
    archive = root / "cifar10" / "cifar10_lossless_4k1k.npz"
    names = ["test_batch.bin"] if split == "test" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    places = [root / "cifar-10-batches-bin", root / "cifar10" / "cifar-10-batches-bin", root / "cifar10"]
    if archive.is_file() and not any((place / names[0]).is_file() for place in places):
        return _read_cifar_npz(archive, split)
    batches = [_read_cifar_batch(_found(places, [name], "CIFAR-10")) for name in names]
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def load_spoken_digits(split: Split, folder: str | Path | None = None) -> tuple[list[Array], Array]:
    """Return the Free Spoken Digit Dataset: recordings int16 (n), 8 kHz, and labels int64.

    As its authors recommend, recordings 0 to 4 of each speaker and digit are the test set (300), the others the
    training set (2700); each in the order speaker, digit, number. Reads ``fsdd/fsdd_8khz_int16.npz``: all samples end
    to end (audio), where each recording begins (offsets), its digit (labels), speaker and number (index).
    Source: Jackson et al., github.com/Jakobovski/free-spoken-digit-dataset.
    """
    _require_split(split)
    path = _found([find_data(folder) / "fsdd"], ["fsdd_8khz_int16.npz"], "Free Spoken Digit Dataset")
    arrays = _read_npz(path, ("audio", "offsets", "labels", "speaker", "index"))
    offsets, labels, index = arrays["offsets"], arrays["labels"].astype(np.int64), arrays["index"]
    n = len(labels)
    fits = offsets.shape == (n + 1,) and arrays["speaker"].shape == index.shape == (n,) and offsets[0] == 0
    if not fits or np.any(np.diff(offsets) <= 0) or offsets[-1] != len(arrays["audio"]):
        raise DataError(f"{path}: offsets must cut the {len(arrays['audio'])} samples into {n} recordings, got others")
    order = np.lexsort((index, labels, arrays["speaker"]))
    picked = [i for i in order if (index[i] < 5) == (split == "test")]
    return [arrays["audio"][offsets[i] : offsets[i + 1]] for i in picked], labels[picked]


def load_shakespeare(split: Split, folder: str | Path | None = None) -> tuple[Array, str]:
    """Return Tiny Shakespeare: characters as numbers int64 (n), and the characters that they stand for.

    The first 90 % are the training set, the rest the test set; numbers follow the order of the 65 characters.
    Source: Karpathy, github.com/karpathy/char-rnn, data/tinyshakespeare.
    """
    _require_split(split)
    root = find_data(folder)
    path = _found([root / "tinyshakespeare", root], ["input.txt"], "Tiny Shakespeare")
    content = np.frombuffer(_read_bytes(path), dtype=np.uint8)
    if content.size < 10 or content.max() > 127:
        raise DataError(f"{path}: must be a text of ASCII characters, got {content.size} bytes of something else")
    letters, tokens = np.unique(content, return_inverse=True)
    cut = int(0.9 * len(tokens))
    part = tokens[:cut] if split == "train" else tokens[cut:]
    return part.astype(np.int64), "".join(map(chr, letters))


def read_idx(path: str | Path) -> Array:
    """Return the uint8 array in an IDX file, plain or gzip (by its first bytes, not its name).

    Raises DataError when it is no such file, holds other numbers than unsigned bytes, or is cut off.
    """
    content = _read_bytes(Path(path))
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != 8 or not 1 <= content[3] <= 4:
        raise DataError(f"{path}: must begin with the magic number of an IDX file of bytes, got 0x{content[:4].hex()}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise DataError(f"{path}: must have a header of {start} bytes, got {len(content)}; the file is cut off")
    shape = tuple(int(n) for n in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) - start != math.prod(shape):
        found = len(content) - start
        help_ = "the file is cut off" if found < math.prod(shape) else "the file has more behind its end"
        raise DataError(f"{path}: must hold {math.prod(shape)} bytes for shape {shape}, got {found}; {help_}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def _load_idx_set(split: str, root: Path, folders: tuple[str, str], name: str) -> tuple[Array, Array]:
    _require_split(split)
    stem = "t10k" if split == "test" else "train"
    ours, torchvision = folders
    arrays = []
    for what, ndim in (("images", 3), ("labels", 1)):
        file = f"{stem}-{what}-idx{ndim}-ubyte"
        path = _found([root / ours, root / torchvision / "raw"], [file, f"{file}.gz"], name)
        array = read_idx(path)
        if array.ndim != ndim:
            raise DataError(f"{path}: must have {ndim} axes for {what}, got shape {array.shape}")
        arrays.append(array)
    images, labels = arrays
    if len(images) != len(labels):
        raise DataError(
            f"{path.parent}: {stem} must have one label for each of {len(images)} images, got {len(labels)}"
        )
    return images, labels.astype(np.int64)


def _read_cifar_batch(path: Path) -> tuple[Array, Array]:
    content = np.frombuffer(_read_bytes(path), dtype=np.uint8)
    if content.size == 0 or content.size % 3073:
        raise DataError(f"{path}: must hold whole records of 3073 bytes, got {content.size} bytes; the file is cut off")
    records = content.reshape(-1, 3073)
    if records[:, 0].max() > 9:
        raise DataError(f"{path}: labels must be from 0 to 9, got {records[:, 0].max()}; this is no CIFAR-10 batch")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].astype(np.int64)


def _read_cifar_npz(path: Path, split: str) -> tuple[Array, Array]:
    arrays = _read_npz(path, (f"x_{split}", f"y_{split}"))
    images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
    if len(images) != len(labels):
        raise DataError(f"{path}: {split} must have one label for each of {len(images)} images, got {len(labels)}")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)), labels.astype(np.int64)


def _read_npz(path: Path, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in (*names, *optional) if name in arrays}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: must be a whole npz file without pickles, got {error}") from None
    for name in names:
        if name not in found:
            raise DataError(f"{path}: must hold the array {name}, got none of that name")
    return found


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: must be a whole gzip file, got {error}; the file is cut off or damaged") from None
    except OSError as error:
        raise DataError(f"{path}: must be a file that can be read, got {error.strerror}") from None


def _found(places: Sequence[Path], names: Sequence[str], data_set: str) -> Path:
    for path in (place / name for place in places for name in names):
        if path.is_file():
            return path
    where = " or ".join(str(place) for place in places)
    raise DataError(f"{data_set}: must have {' or '.join(names)} in {where}, got no such file; check the data folder")


def _require_split(split: str) -> None:
    if split not in ("train", "test"):
        raise DataError(f"split: must be 'train' or 'test', got {split!r}")
