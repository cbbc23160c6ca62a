"""Reader of the BNN-PYNQ networks: plain integer weights and thresholds, and the inputs that they were made for.

Source: github.com/Xilinx/BNN-PYNQ @ d39c1c75403db571f54dd0f0cf27ae5104ac968e, bnn/params; licence BSD-3-Clause,
(c) 2016 Xilinx. The arrays (w0 ..., t0 ...) are read from the folder of models, ``bnn-pynq``; they do not come with
imcsim. A layer adds up whole numbers and compares: one threshold t a channel gives ``+1 if sum > t else -1``, two give
``(sum > t0) + (sum > t1) - 1``. Batch norms are in the thresholds; a constant neuron has one of -32768 or 32767.
"""

from pathlib import Path

import numpy as np

from imcsim.data import find_models, load_arrays, load_cifar10, load_mnist, require_codes
from imcsim.errors import DataError
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Flatten,
    Format,
    Graph,
    MaxPool,
    Op,
    Product,
    Quantize,
    Step,
    Tensor,
    Threshold,
)
from imcsim.graph.formats import integer
from imcsim.ternary import PlaneSum

PIXELS = integer(8)
"""What CNV takes: fixed point with 7 bits behind the point; the first thresholds are in units of 1/128 too."""

CNV = ((64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512), (10, 512))
"""Outputs and inputs of each layer; the first six are 3 x 3 convolutions."""

LFC = ((1024, 784), (1024, 1024), (1024, 1024), (10, 1024))
POOLED = (1, 3)
"""The convolutions of CNV behind whose codes a 2 x 2 pool stands."""

N_CONVOLUTIONS = 6


def cnv(name: str) -> Graph:
    """Return the convolutional network *name* (cnvW1A1, cnvW1A2 or cnvW2A2): 32 x 32 images of 3 colours."""
    shapes = [(c, r, 3, 3) if i < N_CONVOLUTIONS else (c, r) for i, (c, r) in enumerate(CNV)]
    start = Op(name="pixels", input="image", output=Tensor("codes", (3, 32, 32), PIXELS), steps=(Quantize(PIXELS),))
    return _network(name, f"{name}_cifar10", shapes, Tensor("image", (3, 32, 32), REAL), start)


def lfc(name: str) -> Graph:
    """Return the fully connected network *name* (lfcW1A1): 784 pixels, made binary."""
    at_half = Threshold([[128]], [-1, 1], BINARY)
    start = Op(name="pixels", input="image", output=Tensor("codes", (784,), BINARY), steps=(at_half,))
    return _network(name, f"{name}_mnist", list(LFC), Tensor("image", (784,), REAL), start)


def cifar10(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return CIFAR-10's test images as CNV takes them, codes from -128 to 127 (n 3 32 32), and their labels (n).

    The 1 000 lossless ones, or all 10 000 where the folder has the binary version.
    """
    images, labels = load_cifar10("test", folder)
    return np.clip(np.floor((images / 255 * 2 - 1) * 128), -128, 127), labels


def mnist(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST's test images as LFC takes them, pixels from 0 to 255 (10000 784), and their labels (10000)."""
    images, labels = load_mnist("test", folder)
    return images.reshape(len(images), -1).astype(np.float64), labels


def expected(file: str, folder: str | Path | None = None) -> np.ndarray:
    """Return the published logits of the first 1 000 test images, int32 (1000 10)."""
    path = find_models(folder) / "bnn-pynq" / f"{file}_expected.npz"
    return load_arrays(path, {"logits": (1000, 10)})["logits"]


def _network(name: str, file: str, shapes: list[tuple[int, ...]], image: Tensor, start: Op) -> Graph:
    path = find_models() / "bnn-pynq" / f"{file}.npz"
    last = len(shapes) - 1
    wanted: dict[str, tuple[int | None, ...]] = {f"w{i}": shape for i, shape in enumerate(shapes)}
    wanted |= {f"t{i}": (shape[0], None) for i, shape in enumerate(shapes[:last])}
    arrays = load_arrays(path, wanted)
    require_codes(path, arrays, [f"w{i}" for i in range(last + 1)])
    ops, at = [start], start.output
    for i, shape in enumerate(shapes):
        kind = "conv2d" if len(shape) == 4 else "linear"
        product = Product(kind=kind, weights=PlaneSum(planes=[arrays[f"w{i}"]], factors=[1]))
        steps: list[Step] = []
        if i < last:
            steps.append(_threshold(arrays[f"t{i}"], f"{path}: t{i}"))
        if kind == "conv2d" and i in POOLED:
            steps.append(MaxPool((2, 2), (2, 2)))
        if i == N_CONVOLUTIONS - 1 and kind == "conv2d":
            steps.append(Flatten())
        made = product.shape(at.shape)
        for step in steps:
            made = step.shape(made)
        form = _format(arrays[f"t{i}"]) if i < last else REAL
        layer = f"conv{i + 1}" if kind == "conv2d" else f"linear{i + 1}"
        ops.append(Op(name=layer, input=at.name, output=Tensor(f"{layer}.out", made, form), product=product,
                      steps=tuple(steps)))  # fmt: skip
        at = ops[-1].output
    return Graph(name=name, inputs=(image,), ops=tuple(ops), outputs=(at.name,))


def _format(thresholds: np.ndarray) -> Format:
    return BINARY if thresholds.shape[1] == 1 else TERNARY


def _threshold(thresholds: np.ndarray, where: str) -> Threshold:
    """``sum > t`` as ``sum >= t + 1``, which is the same for whole numbers."""
    if thresholds.dtype.kind != "i":
        raise DataError(f"{where} must hold whole numbers, got dtype {thresholds.dtype}")
    if thresholds.shape[1] not in (1, 2):
        raise DataError(f"{where} must hold 1 or 2 thresholds a channel, got {thresholds.shape[1]}")
    codes = [-1, 1] if thresholds.shape[1] == 1 else [-1, 0, 1]
    return Threshold(np.sort(thresholds.astype(np.int64) + 1, axis=1), codes, _format(thresholds))
