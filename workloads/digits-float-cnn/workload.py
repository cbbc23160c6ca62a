"""scikit-learn digits by a small network of float weights, which `imcsim quantize` takes; no chip runs it as it is.

Three convolutions and one linear layer, with batch norms, ReLUs and max pools. Trained by ``../train_float_cnn.py``.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from imcsim.data import load_digits
from imcsim.workloads import module_beside

DESCRIPTION = (
    "scikit-learn digits, 3 convolutions and 1 linear layer, float weights and activations: for imcsim quantize"
)
DATASET = "scikit-learn digits"
SIZE = 8


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities (b 10)."""
    net: nn.Module = module_beside(__file__, "../float_cnn.py").trained(__file__, SIZE)
    return net


def network() -> nn.Module:
    """Return the network with fresh weights."""
    net: nn.Module = module_beside(__file__, "../float_cnn.py").network(SIZE)
    return net


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 8 8), float32, grey levels 0 to 16 divided by 16."""
    image: Tensor = module_beside(__file__, "../float_cnn.py").ramp(SIZE, 17)
    return image


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: images (355 1 8 8) as the network takes them, and labels (355); *folder* is not needed."""
    return split("test", folder)


def calibration(folder: str | Path | None = None) -> Tensor:
    """Return the training images (n 1 8 8), of which `imcsim quantize` takes some."""
    return split("train", folder)[0]


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, and their labels; *folder* is not needed."""
    images, labels = load_digits(name)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(16).unsqueeze(1), torch.from_numpy(labels)
