"""ResNet-18 for images of 32 x 32, ternary weights throughout, untrained: for shapes, time, energy and speed.

The network of He et al. in its CIFAR shape: a 3x3 stem of stride 1, four stages of two basic blocks with 64, 128, 256
and 512 channels, ten classes; 21 layers, all on tiles, 0.56 billion multiply-adds an image. The weights are drawn, not
trained, so there is no test set; the batch norms hold the statistics that the drawn network has on drawn images.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.quant import (
    InputQuantizer,
    SignActivation,
    SignedActivation,
    TernaryActivation,
    TernaryConv2d,
    TernaryLinear,
    UnsignedActivation,
)

DESCRIPTION = "ResNet-18 for 32 x 32 images, untrained: 20 convolutions and 1 linear layer, ternary weights"
DATASET = "none: untrained"
PAPERS = (
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
)
EIGHT_BIT_LAYERS = (
    "stem takes 8-bit pixels, linear 6-bit averages (weights ternary); all others take ternary activations"
)

WIDTHS = (64, 128, 256, 512)
DELTA = 0.5
"""Threshold of the ternary activations; on standard normal numbers it makes 38 % zeros."""
WEIGHT_DELTA = 0.56
"""Below it a normal weight is 0: what 0.7 times the mean magnitude is for normal weights; 42 % zeros."""

Activation = Callable[[], nn.Module]

ACTIVATIONS: dict[str, Activation] = {
    "ternary": lambda: TernaryActivation(DELTA),
    "binary": SignActivation,
    "2-bit": lambda: UnsignedActivation(2),
}

AVERAGES: dict[str, Activation] = {
    "ternary": lambda: SignedActivation(6, scale=1 / 16),
    "binary": lambda: SignedActivation(6, scale=1 / 16),
    "2-bit": lambda: UnsignedActivation(6, scale=1 / 32),
}
"""What the average of the last 4 x 4 codes goes to the linear layer in: every average is a number of the grid."""


def build() -> nn.Module:
    """Return the network with ternary activations in eval mode; it gives logits (b 10)."""
    return drawn("ternary")


def example_input() -> Tensor:
    """Return one image as the network takes it: (1 3 32 32), float32, pixels divided by 256."""
    return images(1)


def images(n: int, seed: int = 0) -> Tensor:
    """Return drawn images (n 3 32 32) as the network takes them: patches of 4 x 4 pixels of one colour, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randint(0, 192, (n, 3, 8, 8), generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (patches + torch.randint(0, 64, (n, 3, 32, 32), generator=generator)).float() / 256


def drawn(activations: str, seed: int = 0) -> nn.Module:
    """Return the network in eval mode, its weights drawn and the statistics of its batch norms measured.

    *activations*: "ternary", "binary" or "2-bit". Raises ConfigError for another word.
    """
    net = ResNet18(activations).eval()
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, TernaryConv2d | TernaryLinear):
            normal = torch.randn(module.weight.shape, generator=generator)
            codes = torch.sign(normal) * (normal.abs() > WEIGHT_DELTA)
            module.restore_codes(codes, torch.tensor((2 / module.weight[0].numel()) ** 0.5))
    with torch.no_grad():
        net.linear.bias.normal_(std=0.1, generator=generator)
    hooks = [
        module.register_forward_pre_hook(_measure) for module in net.modules() if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        net(images(4, seed + 1))
    for hook in hooks:
        hook.remove()
    return net


def _measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
    """Set the statistics of *norm* from what it is about to take; norms before it have theirs already.

    NOTE: numpy adds in one order, whatever the number of torch's threads.
    """
    values = inputs[0].double().numpy()
    norm.running_mean = torch.from_numpy(values.mean(axis=(0, 2, 3))).float()
    norm.running_var = torch.from_numpy(values.var(axis=(0, 2, 3))).float()


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: the codes that came in, or a 1x1 convolution of them."""

    def __init__(self, n_inputs: int, n_outputs: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = TernaryConv2d(n_inputs, n_outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_outputs)
        self.act1 = activation()
        self.conv2 = TernaryConv2d(n_outputs, n_outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or n_inputs != n_outputs:
            self.shortcut = nn.Sequential(
                TernaryConv2d(n_inputs, n_outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(n_outputs)
            )
        self.act2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return codes (b c h' w') for codes (b c h w)."""
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """The network with fresh weights; *activations*: "ternary", "binary" or "2-bit"."""

    def __init__(self, activations: str) -> None:
        super().__init__()
        if activations not in ACTIVATIONS:
            raise ConfigError(f"activations: must be one of {', '.join(ACTIVATIONS)}, got {activations!r}")
        activation = ACTIVATIONS[activations]
        self.pixels = InputQuantizer(8)
        # (3 32 32)
        self.stem = TernaryConv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTHS[0])
        self.act = activation()
        # (64 32 32) (128 16 16) (256 8 8) (512 4 4)
        stages = []
        for n_inputs, width in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False):
            first = BasicBlock(n_inputs, width, 1 if width == WIDTHS[0] else 2, activation)
            stages.append(nn.Sequential(first, BasicBlock(width, width, 1, activation)))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.average = AVERAGES[activations]()
        self.flatten = nn.Flatten()
        self.linear = TernaryLinear(WIDTHS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b 10) for images (b 3 32 32)."""
        y = self.stages(self.act(self.norm(self.stem(self.pixels(x)))))
        return self.linear(self.flatten(self.average(self.pool(y))))
