"""Fashion-MNIST by a small network of float weights, which `imcsim quantize` takes; no chip runs it as it is.

Three convolutions and one linear layer, with batch norms, ReLUs and max pools. Trained by ``../train_float_cnn.py``.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_fashion_mnist
from imcsim.workloads import module_beside

DESCRIPTION = "Fashion-MNIST, 3 convolutions and 1 linear layer, float weights and activations: for imcsim quantize"
DATASET = "Fashion-MNIST"
SIZE = 28


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities (b 10)."""
    net: nn.Module = module_beside(__file__, "../float_cnn.py").trained(__file__, SIZE)
    return net


def network() -> nn.Module:
    """Return the network with fresh weights."""
    net: nn.Module = module_beside(__file__, "../float_cnn.py").network(SIZE)
    return net


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 28 28), float32, pixels divided by 256."""
    image: Tensor = module_beside(__file__, "../float_cnn.py").ramp(SIZE, 256)
    return image


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: images (10000 1 28 28) as the network takes them, and labels (10000)."""
    return split("test", folder)


def calibration(folder: str | Path | None = None) -> Tensor:
    """Return the training images (n 1 28 28), of which `imcsim quantize` takes some."""
    return split("train", folder)[0]


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, and their labels."""
    images, labels = load_fashion_mnist(name, folder)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(256).unsqueeze(1), torch.from_numpy(labels)
