"""Networks that take any method: the same layers, channels and data for each, so that they can be compared.

The first layer takes 8-bit pixels and 8-bit weights, the last one 8-bit activations and weights, whatever the method
is: that is what most of the papers do, with real numbers in place of 8 bits.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.quant.activation import InputQuantizer, UnsignedActivation
from imcsim.quant.digital import DigitalConv2d, DigitalLinear
from imcsim.quant.integer import IntConv2d, IntLinear
from imcsim.quant.method import Method, MethodRecord

EDGE_BITS = 8


def small_cnn(
    method: Method, *, n_channels: int = 1, size: int = 28, n_classes: int = 10, widths: tuple[int, ...] = (16, 32, 64)
) -> nn.Sequential:
    """Return a small plain network for images (n_channels size size): a first layer, a block a width, a last layer.

    The image is halved behind each layer as long as it has more than 3 pixels a side. Gives log-probabilities.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["pixels"] = InputQuantizer(EDGE_BITS)
    layers["conv1"] = first_conv(n_channels, widths[0], 3, padding=1)
    layers["pool1"] = nn.MaxPool2d(2)
    layers["norm1"] = nn.BatchNorm2d(widths[0])
    size //= 2
    for number, (n_in, n_out) in enumerate(zip(widths, (*widths[1:], widths[-1]), strict=True), start=2):
        pool = 2 if size > 3 else 1
        layers[f"block{number}"] = method.block(n_in, n_out, pool=pool)
        size //= pool
    layers["flatten"] = nn.Flatten()
    layers["act"] = edge_activation()
    layers["linear"] = last_linear(widths[-1] * size * size, n_classes)
    layers["norm"] = nn.BatchNorm1d(n_classes)
    layers["log_softmax"] = nn.LogSoftmax(dim=1)
    return nn.Sequential(layers)


def first_conv(n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
    """Return a first layer: 8-bit weights for 8-bit pixels."""
    return IntConv2d(n_in, n_out, kernel, stride=stride, padding=padding, bias=False, bits=EDGE_BITS)


def last_linear(n_in: int, n_out: int) -> nn.Module:
    """Return a last layer: 8-bit weights for the codes of `edge_activation`."""
    return IntLinear(n_in, n_out, bias=False, bits=EDGE_BITS)


def edge_activation() -> nn.Module:
    """Return a ReLU with 8-bit codes from 0 to almost 4, for numbers that a batch norm has made about standard."""
    return UnsignedActivation(EDGE_BITS, scale=2.0 ** (2 - EDGE_BITS))


class Float(Method):
    """The network before it is quantized, as baseline and teacher: real weights, ReLU; first and last layer alike."""

    record = MethodRecord(
        id="F0",
        name="float",
        title="Real weights and activations between the first and the last layer",
        paper="-",
        weights="real",
        activations="real, from 0",
        granularity="-",
        formula="y = W * max(x, 0)",
        planes="none",
        n_planes=(0, 0),
        exact="not lowered to planes: its layers stay on the digital side",
        basis="derived",
    )
    lowers = False

    def activation(self, n_channels: int) -> nn.Module:
        """A ReLU."""
        return nn.ReLU()

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """A digital convolution."""
        return DigitalConv2d(n_in, n_out, kernel, stride=stride, padding=padding, bias=False)

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """A digital linear layer."""
        return DigitalLinear(n_in, n_out, bias=False)


def copy_float(source: nn.Module, target: nn.Module) -> int:
    """Copy the weights of *source* into the latent weights of *target*, layer by layer; return how many layers met.

    Layers and batch norms are taken in the order in which they stand, each kind by itself, and pairs of unlike shapes
    are left out: a method may bring further layers.
    """

    def of(network: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
        weighted: list[nn.Module] = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        norms: list[nn.Module] = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        return weighted, norms

    n_met = 0
    with torch.no_grad():
        for theirs, ours in zip(of(source), of(target), strict=True):
            waiting = list(ours)
            for layer in theirs:
                meets = [i for i, mine in enumerate(waiting) if _shape(mine) == _shape(layer)]
                if not meets:
                    continue
                mine = waiting[meets[0]]
                del waiting[: meets[0] + 1]
                state = mine.state_dict()
                state |= {name: value for name, value in layer.state_dict().items() if name in state}
                mine.load_state_dict(state)
                n_met += 1
    return n_met


def _shape(layer: nn.Module) -> tuple[int, ...]:
    weight = getattr(layer, "weight", None)
    return () if not isinstance(weight, Tensor) else tuple(weight.shape)


def soft_targets(outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of log-probabilities *outputs* from those of a teacher (b classes)."""
    return F.kl_div(outputs, teacher_outputs.detach(), reduction="batchmean", log_target=True)
