"""MNIST by BMXNet's binary LeNet: the two middle layers binary, the first and the last with real weights.

Source: github.com/hpi-xnor/BMXNet @ ed0b201d, smd_hpi/binary_models/binarized_mnist_32bit-0001.params; licence
Apache-2.0. The weights are read from the folder of models (``bmxnet-lenet-mnist``), not shipped. The layers with real
weights stay on the digital side. The batch norms behind binary layers were trained on popcounts, (sum + K) / 2 for K
inputs; sign(0) is +1.
"""

from pathlib import Path

import numpy as np

from imcsim.data import find_models, load_arrays, load_mnist, require_codes
from imcsim.errors import DataError
from imcsim.graph import (
    BINARY,
    REAL,
    Affine,
    Flatten,
    Graph,
    MaxPool,
    Op,
    Product,
    RealProduct,
    Tanh,
    Tensor,
    Threshold,
)
from imcsim.ternary import PlaneSum

DESCRIPTION = "MNIST, BMXNet LeNet: 2 binary layers between a convolution and a linear layer with real weights"
DATASET = "MNIST"
PAPERS = ("Yang et al., BMXNet: An Open-Source Binary Neural Network Implementation, ACM MM 2017, arXiv:1705.09864",)

FOLDER = "bmxnet-lenet-mnist"
EPSILON = 1e-3
"""Of the batch norms."""

SIGN = Threshold([[0.0]], [-1, 1], BINARY)
POOL = MaxPool((2, 2), (2, 2))


def graph() -> Graph:
    """Return the network, from the folder of models."""
    path = find_models() / FOLDER / "bmxnet_lenet.npz"
    shapes: dict[str, tuple[int | None, ...]] = {
        "conv0.weight": (64, 1, 5, 5),
        "conv0.bias": (64,),
        "qconv.weight": (64, 64, 5, 5),
        "qfc.weight": (1000, 1024),
        "fc.weight": (10, 1000),
        "fc.bias": (10,),
    }
    for i, n in enumerate((64, 64, 1000)):
        shapes |= {f"bn{i}.{part}": (n,) for part in ("gamma", "beta", "moving_mean", "moving_var")}
    arrays = load_arrays(path, shapes)
    require_codes(path, arrays, ["qconv.weight", "qfc.weight"])
    for i in range(3):
        if np.any(arrays[f"bn{i}.moving_var"] < 0):
            raise DataError(f"{path}: bn{i}.moving_var must be 0 or more, got {arrays[f'bn{i}.moving_var'].min()}")
    first = RealProduct("conv2d", arrays["conv0.weight"], arrays["conv0.bias"])
    conv = Product(kind="conv2d", weights=PlaneSum(planes=[arrays["qconv.weight"]], factors=[1]))
    linear = Product(kind="linear", weights=PlaneSum(planes=[arrays["qfc.weight"]], factors=[1]))
    ops = (
        Op(
            name="conv0",
            input="image",
            output=Tensor("conv0.out", (64, 12, 12), BINARY),
            steps=(first, Tanh(), POOL, _norm(arrays, 0), SIGN),
        ),
        Op(
            name="qconv",
            input="conv0.out",
            output=Tensor("qconv.out", (1024,), BINARY),
            product=conv,
            steps=(_popcount(conv), _norm(arrays, 1), POOL, Flatten(), SIGN),
        ),
        Op(
            name="qfc",
            input="qconv.out",
            output=Tensor("qfc.out", (1000,), REAL),
            product=linear,
            steps=(_popcount(linear), _norm(arrays, 2), Tanh()),
        ),
        Op(
            name="fc",
            input="qfc.out",
            output=Tensor("logits", (10,), REAL),
            steps=(RealProduct("linear", arrays["fc.weight"], arrays["fc.bias"]),),
        ),
    )
    return Graph(name="bmxnet-lenet", inputs=(Tensor("image", (1, 28, 28), REAL),), ops=ops, outputs=("logits",))


def data(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images, pixels divided by 255 (10000 1 28 28), and their labels (10000)."""
    images, labels = load_mnist("test", folder)
    return images[:, np.newaxis] / 255, labels


def expected(folder: str | Path | None = None) -> np.ndarray:
    """Return the published logits of the first 1 000 test images, float32 (1000 10)."""
    return load_arrays(find_models(folder) / FOLDER / "expected_first1000.npz", {"logits": (1000, 10)})["logits"]


def _norm(arrays: dict[str, np.ndarray], i: int) -> Affine:
    gamma, beta, mean, var = (
        arrays[f"bn{i}.{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_var")
    )
    scale = gamma / np.sqrt(var + EPSILON)
    return Affine(scale, beta - scale * mean)


def _popcount(product: Product) -> Affine:
    """From the sum of +1 and -1 products to how many are +1."""
    return Affine(0.5, product.n_rows / 2)
