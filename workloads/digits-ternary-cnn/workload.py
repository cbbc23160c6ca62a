"""scikit-learn's digits (8 x 8, real handwriting) by a small network of ternary weights and activations.

Three convolutions and one linear layer, 1.8 million multiply-adds an image; needs no data folder. Ternary weights
follow Li et al., "Ternary Weight Networks", 2016; ternary activations follow Alemdar et al., IJCNN 2017. Trained by
``train.py`` beside this file.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imcsim.data import load_digits
from imcsim.quant import InputQuantizer, TernaryActivation, TernaryConv2d, TernaryLinear, load_packed

DESCRIPTION = "scikit-learn digits, 3 convolutions and 1 linear layer, ternary weights and activations"
DATASET = "scikit-learn digits"
PAPERS = (
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
    "Alemdar et al., Ternary Neural Networks for Resource-Efficient AI Applications, IJCNN 2017, arXiv:1609.00222",
)
EIGHT_BIT_LAYERS = "none; conv1 takes the grey levels 0 to 16 as 5-bit codes (weights ternary)"
WEIGHTS = Path(__file__).with_name("weights.safetensors")

DELTA = 0.8
"""Threshold of the ternary activations; the trained network has 37 to 53 % zeros in them."""


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities (b 10)."""
    net = network()
    load_packed(net, load_file(WEIGHTS), where=str(WEIGHTS))
    return net.eval()


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 8 8), float32, grey levels 0 to 16 divided by 16."""
    ramp = torch.arange(64, dtype=torch.float32) % 17
    return (ramp / 16).reshape(1, 1, 8, 8)


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: images (355 1 8 8) as the network takes them, and labels (355); *folder* is not needed."""
    return split("test", folder)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, and their labels; *folder* is not needed."""
    images, labels = load_digits(name)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(16).unsqueeze(1), torch.from_numpy(labels)


def network() -> nn.Sequential:
    """Return the network with fresh weights."""
    layers = OrderedDict(
        grey=InputQuantizer(5, scale=1 / 16),
        # (1 8 8)
        conv1=TernaryConv2d(1, 32, 3, padding=1, bias=False),
        norm1=nn.BatchNorm2d(32),
        act1=TernaryActivation(DELTA),
        # (32 8 8)
        conv2=TernaryConv2d(32, 64, 3, padding=1, bias=False),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(64),
        act2=TernaryActivation(DELTA),
        # (64 4 4)
        conv3=TernaryConv2d(64, 64, 3, padding=1, bias=False),
        pool3=nn.MaxPool2d(2),
        norm3=nn.BatchNorm2d(64),
        act3=TernaryActivation(DELTA),
        # (64 2 2)
        flatten=nn.Flatten(),
        linear=TernaryLinear(256, 10, bias=False),
        norm4=nn.BatchNorm1d(10),
        log_softmax=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)
