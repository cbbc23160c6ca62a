"""Fashion-MNIST by a small network of ternary weights and activations, the pixels in 8 bits.

Four convolutions and one linear layer, 12 million multiply-adds an image. Ternary weights follow Li et al., "Ternary
Weight Networks", 2016; ternary activations follow Alemdar et al., IJCNN 2017. Trained by ``train.py`` beside this file.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imcsim.data import load_fashion_mnist
from imcsim.quant import InputQuantizer, TernaryActivation, TernaryConv2d, TernaryLinear, load_packed

DESCRIPTION = "Fashion-MNIST, 4 convolutions and 1 linear layer, ternary weights and activations"
DATASET = "Fashion-MNIST"
PAPERS = (
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
    "Alemdar et al., Ternary Neural Networks for Resource-Efficient AI Applications, IJCNN 2017, arXiv:1609.00222",
)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit pixels (weights ternary); every other layer takes ternary activations"
WEIGHTS = Path(__file__).with_name("weights.safetensors")

DELTA = 0.625
"""Threshold of the ternary activations; on standard normal numbers it makes 47 % zeros."""


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities (b 10)."""
    net = network()
    load_packed(net, load_file(WEIGHTS), where=str(WEIGHTS))
    return net.eval()


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 1 28 28), float32, pixels divided by 256."""
    ramp = torch.arange(28 * 28, dtype=torch.float32) % 256
    return (ramp / 256).reshape(1, 1, 28, 28)


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: images (10000 1 28 28) as the network takes them, and labels (10000)."""
    return split("test", folder)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` images as the network takes them, and their labels."""
    images, labels = load_fashion_mnist(name, folder)  # type: ignore[arg-type]
    return torch.from_numpy(images).float().div_(256).unsqueeze(1), torch.from_numpy(labels)


def network() -> nn.Sequential:
    """Return the network with fresh weights."""
    layers = OrderedDict(
        pixels=InputQuantizer(8),
        # (1 28 28)
        conv1=TernaryConv2d(1, 32, 3, padding=1, bias=False),
        pool1=nn.MaxPool2d(2),
        norm1=nn.BatchNorm2d(32),
        act1=TernaryActivation(DELTA),
        # (32 14 14)
        conv2=TernaryConv2d(32, 64, 3, padding=1, bias=False),
        pool2=nn.MaxPool2d(2),
        norm2=nn.BatchNorm2d(64),
        act2=TernaryActivation(DELTA),
        # (64 7 7)
        conv3=TernaryConv2d(64, 96, 3, padding=1, bias=False),
        norm3=nn.BatchNorm2d(96),
        act3=TernaryActivation(DELTA),
        # (96 7 7)
        conv4=TernaryConv2d(96, 128, 3, padding=1, bias=False),
        pool4=nn.MaxPool2d(2),
        norm4=nn.BatchNorm2d(128),
        act4=TernaryActivation(DELTA),
        # (128 3 3)
        flatten=nn.Flatten(),
        linear=TernaryLinear(1152, 10, bias=False),
        norm5=nn.BatchNorm1d(10),
        log_softmax=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)
