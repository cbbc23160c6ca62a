"""The networks of the papers, each for any method: LeNet, VGG-small, ResNets, and those made for binary layers.

As in `imcsim.quant.networks`, the first layer has 8-bit weights and pixels and the last one 8-bit weights and
activations, where most of the papers have real numbers, and a batch norm stands behind the last one in place of its
bias. Each network gives log-probabilities (b classes).

A method's activation stands at the entrance of its layer. So shortcuts of the ResNets here carry real numbers, and no
ReLU is between a sum and a shortcut: a method whose activation has a ReLU has it on the way into the layer.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from imcsim.quant.activation import InputQuantizer, SignedActivation
from imcsim.quant.digital import DigitalConv2d
from imcsim.quant.method import Method
from imcsim.quant.methods.shortcuts import DenseBlock, ImprovementBlock, ShortcutBlock, projected, transition
from imcsim.quant.networks import EDGE_BITS, edge_activation, first_conv, last_linear

IMAGENET_CLASSES = 1000


# --- plain networks -------------------------------------------------------------------------------------------------


def lenet(method: Method, *, widths: tuple[int, int, int] = (20, 50, 500), n_classes: int = 10) -> nn.Sequential:
    """Return Caffe's LeNet for images (1 28 28): two 5x5 convolutions, two linear layers, 2.3 million multiply-adds.

    The second convolution and the first linear layer are the method's. Source: LeCun et al., "Gradient-Based Learning
    Applied to Document Recognition", 1998, in the widths of Caffe's example, 20-50-500, which papers on binary and
    ternary weights train (recalled).
    """
    return nn.Sequential(
        InputQuantizer(EDGE_BITS),
        # (1 28 28)
        first_conv(1, widths[0], 5),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(widths[0]),
        # (20 12 12)
        method.block(widths[0], widths[1], 5, padding=0, pool=2),
        # (50 4 4)
        nn.Flatten(),
        method.linear_layer(widths[1] * 16, widths[2]),
        nn.BatchNorm1d(widths[2]),
        *_last(widths[2], n_classes),
    )


def vgg_small(
    method: Method, *, widths: Sequence[int] = (128, 128, 256, 256, 512, 512), n_classes: int = 10
) -> nn.Sequential:
    """Return VGG-small for images (3 32 32): six 3x3 convolutions, halved behind every second, one linear layer.

    0.61 billion multiply-adds. Source: Zhang et al., "LQ-Nets", ECCV 2018, who have one linear layer where the network
    of BinaryConnect had three (recalled).
    """
    layers: list[nn.Module] = [
        InputQuantizer(EDGE_BITS),
        first_conv(3, widths[0], 3, padding=1),
        nn.BatchNorm2d(widths[0]),
    ]
    for number, (n_in, n_out) in enumerate(pairwise(widths), start=2):
        layers.append(method.block(n_in, n_out, pool=2 if number % 2 == 0 else 1))
    return nn.Sequential(*layers, nn.Flatten(), *_last(widths[-1] * 16, n_classes))


# --- ResNets --------------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """``norm(layer(norm(layer(x)))) + shortcut(x)`` with two 3x3 layers of the method.

    Where the shape changes the shortcut is a 1x1 layer of the method with a norm (option B of He et al.).
    """

    def __init__(self, method: Method, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.layer1 = method.conv_layer(n_in, n_out, 3, stride=stride, padding=1)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.layer2 = method.conv_layer(n_out, n_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(method.conv_layer(n_in, n_out, 1, stride=stride), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return (b c h' w') for (b c h w)."""
        return self.norm2(self.layer2(self.norm1(self.layer1(x)))) + self.shortcut(x)


def resnet20(method: Method, *, width: int = 16, n_classes: int = 10) -> nn.Sequential:
    """Return ResNet-20 for images (3 32 32): three stages of three blocks, *width*, twice and four times as many.

    41 million multiply-adds. Source: He et al., CVPR 2016, section 4.2, with 1x1 layers as shortcuts between stages.
    """
    return nn.Sequential(
        InputQuantizer(EDGE_BITS),
        first_conv(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        *_basic_stages(method, width, (3, 3, 3)),
        nn.ReLU(),
        *_head(4 * width, n_classes),
    )


def resnet18(method: Method, *, width: int = 64, n_classes: int = IMAGENET_CLASSES) -> nn.Sequential:
    """Return ResNet-18 for images (3 224 224): four stages of two blocks, *width* up to eight times as many.

    1.81 billion multiply-adds. Source: He et al., CVPR 2016, table 1, option B.
    """
    return nn.Sequential(
        *_imagenet_stem(width), *_basic_stages(method, width, (2, 2, 2, 2)), nn.ReLU(), *_head(8 * width, n_classes)
    )


def _basic_stages(method: Method, width: int, n_blocks: Sequence[int]) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for stage, n in enumerate(n_blocks):
        n_out = width << stage
        blocks.append(BasicBlock(method, n_out // 2 if stage else n_out, n_out, 2 if stage else 1))
        blocks += [BasicBlock(method, n_out, n_out) for _ in range(n - 1)]
    return blocks


# --- networks made for binary layers --------------------------------------------------------------------------------


def bireal_net18(method: Method, *, width: int = 64, n_classes: int = IMAGENET_CLASSES) -> nn.Sequential:
    """Return Bi-Real Net 18 for images (3 224 224): ResNet-18 with a shortcut around each 3x3 layer of the method.

    Between stages the shortcut is an average pool, a real 1x1 convolution and a norm. 1.68 billion multiply-adds in the
    method's layers, 0.14 billion in the others. Source: Liu et al., ECCV 2018.
    """
    return nn.Sequential(
        *_imagenet_stem(width), *_single_stages(method, width), *_head(8 * width, n_classes, is_signed=True)
    )


def resnete18(method: Method, *, width: int = 64, n_classes: int = IMAGENET_CLASSES) -> nn.Sequential:
    """Return ResNetE-18 for images (3 224 224): as Bi-Real Net 18, with a norm behind the pool and a ReLU at the end.

    Source: Bethge et al., "Back to Simplicity: How to Train Accurate BNNs from Scratch?", 2019, arXiv:1906.08637, as
    its re-implementations have it (recalled).
    """
    return nn.Sequential(
        *_imagenet_stem(width),
        nn.BatchNorm2d(width),
        *_single_stages(method, width),
        nn.ReLU(),
        *_head(8 * width, n_classes),
    )


def _single_stages(method: Method, width: int) -> list[nn.Module]:
    blocks: list[nn.Module] = []
    for stage in range(4):
        n_out = width << stage
        for number in range(4):
            n_in, stride = (n_out // 2, 2) if stage and not number else (n_out, 1)
            layer = method.conv_layer(n_in, n_out, 3, stride=stride, padding=1)
            blocks.append(ShortcutBlock(layer, n_out, shortcut=projected(n_in, n_out, stride)))
    return blocks


REACTNET_WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
"""Channels of MobileNet V1, whose body ReActNet-A takes: those of the first layer, then those behind each block."""


def reactnet(
    method: Method, *, widths: Sequence[int] = REACTNET_WIDTHS, n_classes: int = IMAGENET_CLASSES
) -> nn.Sequential:
    """Return ReActNet-A for images (3 224 224): MobileNet's body, each block a 3x3 and a 1x1 layer of the method.

    The 3x3 layers are no depthwise ones: 4.82 billion multiply-adds in the method's layers, 12 million in the others.
    The image is halved where channels grow, but in the first block. Shortcuts are those of the method's `block`: with
    a method that has none this is a plain network. Source: Liu et al., ECCV 2020, and the authors' code.
    """
    layers: list[nn.Module] = [
        InputQuantizer(EDGE_BITS),
        first_conv(3, widths[0], 3, stride=2, padding=1),
        nn.BatchNorm2d(widths[0]),
    ]
    for number, (n_in, n_out) in enumerate(pairwise(widths)):
        stride = 2 if number and n_in != n_out else 1
        layers += [method.block(n_in, n_in, 3, stride=stride), method.block(n_in, n_out, 1, padding=0)]
    return nn.Sequential(*layers, *_head(widths[-1], n_classes, is_signed=True))


class GroupedConv2d(nn.Module):
    """A real 3x3 convolution in groups, side by side: each group of channels has a digital convolution of its own."""

    def __init__(self, n_in: int, n_out: int, groups: int) -> None:
        super().__init__()
        self.n_each = n_in // groups
        self.groups = nn.ModuleList(
            DigitalConv2d(self.n_each, n_out // groups, 3, padding=1, bias=False) for _ in range(groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n_out h w) for (b n_in h w)."""
        n = self.n_each
        return torch.cat([conv(x[:, i * n : (i + 1) * n]) for i, conv in enumerate(self.groups)], dim=1)


def meliusnet22(
    method: Method,
    *,
    growth: int = 64,
    stem: tuple[int, int] = (32, 64),
    n_blocks: Sequence[int] = (4, 5, 4, 4),
    reduced: Sequence[int] = (160, 224, 256),
    n_classes: int = IMAGENET_CLASSES,
) -> nn.Sequential:
    """Return MeliusNet-22 for images (3 224 224): four stages of pairs of a dense and an improvement block.

    4.62 billion multiply-adds in the method's layers, 136 million in the others: a stem of a 3x3 and two real grouped
    convolutions, and a real 1x1 convolution between stages. Source: Bethge et al., WACV 2021; the channels behind the
    transitions are recalled.

    Args:
        method: Whose 3x3 layers the blocks have.
        growth: New channels of each pair.
        stem: Channels of the first two convolutions and of the third.
        n_blocks: Pairs of each stage.
        reduced: Channels behind each transition, one fewer than stages.
        n_classes: Outputs.
    """
    layers: list[nn.Module] = [
        InputQuantizer(EDGE_BITS),
        first_conv(3, stem[0], 3, stride=2, padding=1),
        *(nn.BatchNorm2d(stem[0]), nn.ReLU()),
        GroupedConv2d(stem[0], stem[0], 4),
        *(nn.BatchNorm2d(stem[0]), nn.ReLU()),
        GroupedConv2d(stem[0], stem[1], 8),
        *(nn.BatchNorm2d(stem[1]), nn.ReLU()),
        nn.MaxPool2d(3, 2, 1),
    ]
    n = stem[1]
    for stage, n_pairs in enumerate(n_blocks):
        if stage:
            layers.append(transition(n, reduced[stage - 1]))
            n = reduced[stage - 1]
        for _ in range(n_pairs):
            layers.append(DenseBlock(method.conv_layer(n, growth, 3, padding=1), n))
            n += growth
            layers.append(ImprovementBlock(method.conv_layer(n, growth, 3, padding=1), n, growth))
    return nn.Sequential(*layers, nn.BatchNorm2d(n), nn.ReLU(), *_head(n, n_classes))


# --- both ends ------------------------------------------------------------------------------------------------------


def _imagenet_stem(width: int) -> list[nn.Module]:
    """A 7x7 layer of stride 2, a norm and a 3x3 max pool of stride 2."""
    return [
        InputQuantizer(EDGE_BITS),
        first_conv(3, width, 7, stride=2, padding=3),
        nn.BatchNorm2d(width),
        nn.MaxPool2d(3, 2, 1),
    ]


def _head(n_in: int, n_classes: int, *, is_signed: bool = False) -> list[nn.Module]:
    """The average of each channel, and the last layer; *is_signed*: averages below 0 count."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), *_last(n_in, n_classes, is_signed=is_signed)]


def _last(n_in: int, n_classes: int, *, is_signed: bool = False) -> list[nn.Module]:
    act = SignedActivation(EDGE_BITS, scale=2.0 ** (3 - EDGE_BITS)) if is_signed else edge_activation()
    return [act, last_linear(n_in, n_classes), nn.BatchNorm1d(n_classes), nn.LogSoftmax(dim=1)]
