"""MNIST by a LeNet of trained ternary quantization: weights {-Wn, 0, +Wp}, with Wn and Wp of each layer unequal.

Source: github.com/vinsis/ternary-quantization @ 2a8349c3, weights/quantized.ckpt; licence MIT, (c) 2019 Vinay Sisodia.
The weights are read from the folder of models (``ttq-lenet-mnist``), not shipped. As trained, activations are real
numbers; a tile takes codes, so an unsigned quantizer of `ACTIVATION_BITS` bits stands behind each ReLU, and the
pixels are 8-bit codes, which loses nothing.
"""

from pathlib import Path

import numpy as np

from imcsim.data import find_models, load_arrays, load_mnist, require_codes
from imcsim.errors import DataError
from imcsim.graph import (
    REAL,
    Affine,
    Flatten,
    Format,
    Graph,
    LayerAttrs,
    MaxPool,
    Op,
    Product,
    Quantize,
    Relu,
    Step,
    Tensor,
    unsigned,
)
from imcsim.ternary import PlaneSum

DESCRIPTION = "MNIST, TTQ LeNet: 2 convolutions and 1 linear layer, ternary weights with unequal scales"
DATASET = "MNIST"
PAPERS = ("Zhu, Han, Mao, Dally, Trained Ternary Quantization, ICLR 2017, arXiv:1612.01064",)

FOLDER = "ttq-lenet-mnist"
EPSILON = 1e-5
"""Of the batch norms, PyTorch's."""

ACTIVATION_BITS = 16
"""With 16 the logits are within 0.005 of those of the real activations and reach 100; with 24 they are within 1e-4."""

TOPS = (4.0, 8.0)
"""What the greatest code behind each ReLU stands for: more than any number there for 2 000 training images has."""

FEW_BITS = 4
TOPS_OF_FEW_BITS = (2.0, 2.0)
"""With so few bits a finer grid is worth more than the one number in a hundred that lies above 2."""

PIXELS = unsigned(8, 1 / 255)


def graph(activation_bits: int = ACTIVATION_BITS) -> Graph:
    """Return the network, from the folder of models, with codes of *activation_bits* behind each ReLU."""
    path = find_models() / FOLDER / "ttq_lenet.npz"
    shapes: dict[str, tuple[int | None, ...]] = {}
    for layer, shape in (("layer1.0", (16, 1, 5, 5)), ("layer2.0", (32, 16, 5, 5)), ("fc", (10, 1568))):
        for part, whole in (("weight", shape), ("bias", shape[:1])):
            shapes |= {f"{layer}.{part}.ternary": whole, f"{layer}.{part}.wp": (), f"{layer}.{part}.wn": ()}
    for layer, n in (("layer1.1", 16), ("layer2.1", 32)):
        shapes |= {f"{layer}.{part}": (n,) for part in ("weight", "bias", "running_mean", "running_var")}
    arrays = load_arrays(path, shapes)
    require_codes(path, arrays, [name for name in shapes if name.endswith(".ternary")])
    for name in shapes:
        if name.endswith((".wp", ".wn")) and arrays[name] <= 0:
            raise DataError(f"{path}: {name} must be above 0, got {arrays[name]}")
        if name.endswith(".running_var") and np.any(arrays[name] < 0):
            raise DataError(f"{path}: {name} must be 0 or more, got {arrays[name].min()}")
    tops = TOPS if activation_bits > FEW_BITS else TOPS_OF_FEW_BITS
    first, second = (unsigned(activation_bits, top / ((1 << activation_bits) - 1)) for top in tops)
    pool = MaxPool((2, 2), (2, 2))
    ops = (
        Op(name="pixels", input="image", output=Tensor("codes", (1, 28, 28), PIXELS), steps=(Quantize(PIXELS),)),
        _layer(
            arrays, "layer1", "codes", PIXELS, Tensor("layer1.out", (16, 14, 14), first), Relu(), pool, Quantize(first)
        ),
        _layer(
            arrays,
            "layer2",
            "layer1.out",
            first,
            Tensor("layer2.out", (1568,), second),
            Relu(),
            pool,
            Quantize(second),
            Flatten(),
        ),
        _layer(arrays, "fc", "layer2.out", second, Tensor("logits", (10,), REAL)),
    )
    return Graph(name="ttq-lenet", inputs=(Tensor("image", (1, 28, 28), REAL),), ops=ops, outputs=("logits",))


def data(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images, pixels divided by 255 (10000 1 28 28), and their labels (10000)."""
    images, labels = load_mnist("test", folder)
    return images[:, np.newaxis] / 255, labels


def expected(folder: str | Path | None = None) -> np.ndarray:
    """Return the published logits of the first 1 000 test images, float32 (1000 10)."""
    return load_arrays(find_models(folder) / FOLDER / "expected_first1000.npz", {"logits": (1000, 10)})["logits"]


def _layer(arrays: dict[str, np.ndarray], name: str, source: str, codes: Format, output: Tensor, *steps: Step) -> Op:
    """One layer: the product of one asymmetric plane, its scale and bias, its batch norm, then *steps*."""
    is_conv = name != "fc"
    product_name = f"{name}.0" if is_conv else name
    planes, wp, wn = (arrays[f"{product_name}.weight.{part}"] for part in ("ternary", "wp", "wn"))
    scale = float(wp)
    weights = PlaneSum(planes=[planes], factors=[1], scale=scale, minus=float(wn) / scale)
    geometry = {"padding": (2, 2), "attrs": LayerAttrs(pad_value=0)} if is_conv else {}
    product = Product(kind="conv2d" if is_conv else "linear", weights=weights, **geometry)  # type: ignore[arg-type]
    affine = Affine(scale * codes.scale, _bias(arrays, product_name))
    if is_conv:
        affine = affine.then(_norm(arrays, f"{name}.1"))
    return Op(name=name, input=source, output=output, product=product, steps=(affine, *steps))


def _bias(arrays: dict[str, np.ndarray], layer: str) -> np.ndarray:
    codes, wp, wn = (arrays[f"{layer}.bias.{part}"].astype(np.float64) for part in ("ternary", "wp", "wn"))
    return np.where(codes < 0, -wn, wp * codes)


def _norm(arrays: dict[str, np.ndarray], layer: str) -> Affine:
    gamma, beta, mean, var = (
        arrays[f"{layer}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(var + EPSILON)
    return Affine(scale, beta - scale * mean)
