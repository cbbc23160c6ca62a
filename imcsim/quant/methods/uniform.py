"""Even grids of k bits: DoReFa, AQD, NICE, LSQ, LLSQ, QIL, FQ-Conv and PACT.

Formulas: quantizers.md section A.2 (A6, M3 to M8, M10), planes: B.3. Weights are whole numbers times a scale: odd ones
(DoReFa, AQD, PACT), symmetric ones (NICE, QIL, FQ-Conv) or two's complement (LSQ, LLSQ). Activations are unsigned codes
of k bits, which include the ReLU; a batch norm goes before them, but in FQ-Conv.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.quant.gradients import GradientLayer, GradientModule
from imcsim.quant.grids import (
    FixedGrid,
    GridKind,
    LearnedGrid,
    LearnedWeights,
    codec_of,
    keep_positive,
)
from imcsim.quant.layers import QuantizedWeights, over_group
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import StraightToWeights, rounded, scaled_gradient, signs, straight_to_weights, surrogate
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, binary

# --- what the methods share -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EvenGrids(Method):
    """A method with *bits_w* bits for weights, *bits_a* for activations, and weight planes by bits or by trits."""

    bits_w: int = 2
    bits_a: int = 2
    serial: str = "bit"
    least_bits_w: ClassVar[int] = 2

    def __post_init__(self) -> None:
        self.require_bits("bits_w", self.least_bits_w, 8)
        self.require_bits("bits_a", 1, 8)
        if self.serial not in ("bit", "trit"):
            raise ConfigError(f"{self.record.name}: serial must be bit or trit, got {self.serial!r}")

    def require_bits(self, key: str, least: int, most: int) -> None:
        """Raise ConfigError unless the option *key* is a whole number from *least* to *most*."""
        value = getattr(self, key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(f"{self.record.name}: {key} must be a whole number from {least} to {most}, got {value!r}")

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Return a quantizer of weights with one scale, or one for each of *n_scales* output channels."""
        raise NotImplementedError

    def weights(self) -> WeightQuantizer:
        """A quantizer with one scale for the layer."""
        return self.quantizer(None)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """A convolution; with the option per_channel, one scale for each output channel."""
        return self._with_scales(super().conv(n_in, n_out, kernel, stride=stride, padding=padding), n_out)

    def conv1d(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """As `conv`, over sequences."""
        return self._with_scales(self._conv1d(n_in, n_out, kernel, stride=stride, padding=padding), n_out)

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """A linear layer; with the option per_channel, one scale for each output channel."""
        return self._with_scales(super().linear(n_in, n_out), n_out)

    def _with_scales(self, layer: nn.Module, n_out: int) -> nn.Module:
        if getattr(self, "per_channel", False) and isinstance(layer, QuantizedWeights):
            layer.weight_quantizer = self.quantizer(n_out)
        return layer

    def after_step(self, network: nn.Module) -> None:
        """Hold learned steps above 0."""
        keep_positive(network)


def mean_size(values: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """Return the mean magnitude, the reduced *axes* kept; of everything, ()."""
    return values.abs().mean() if axes is None else values.abs().mean(dim=axes, keepdim=True)


STANDARD_MEAN = math.sqrt(2 / math.pi)
"""Mean magnitude of standard normal numbers, which a batch norm leaves: where learned grids stand before training."""


# --- A6 DoReFa ------------------------------------------------------------------------------------------------------


class DoReFaWeights(WeightQuantizer):
    """``2 q_k(tanh(w) / (2 max|tanh w|) + 1/2) - 1``; for one bit ``sgn(w) mean|w|``, sgn(0) = +1, over the layer.

    The codes are odd whole numbers over ``2^k - 1``. The round, and the sign, have derivative 1.
    """

    def __init__(self, bits: int, *, serial: str = "bit") -> None:
        super().__init__()
        self.bits, self.serial = bits, serial

    def forward(self, weight: Tensor) -> Coded:
        """Return odd codes and the scale ``1 / (2^k - 1)``, or signs and the mean magnitude."""
        if self.bits == 1:
            return straight_to_weights(weight, signs(weight), mean_size(weight))
        top = (1 << self.bits) - 1
        bent = torch.tanh(weight)
        greatest = bent.abs().max().clamp(min=torch.finfo(weight.dtype).tiny)
        codes = 2 * rounded(top * (bent / (2 * greatest) + 0.5)) - top
        return Coded((codes,), (weight.new_tensor(1 / top),))

    def codec(self) -> Codec:
        """``k`` planes of -1 and +1, or trits."""
        return binary() if self.bits == 1 else codec_of("odd", self.bits, self.serial)


class UnitGrid(FixedGrid):
    """``q_k(clip(x, 0, 1))``: codes of *bits* bits that reach 1."""

    def __init__(self, bits: int) -> None:
        super().__init__("unsigned", bits, 1 / ((1 << bits) - 1))


class DoReFaGradient(GradientModule):
    """``2 max|g| [q_k(g / (2 max|g|) + 1/2 + N) - 1/2]``, N uniform in ``+-1/2 / (2^k - 1)``, the max per sample."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def change(self, gradient: Tensor) -> Tensor:
        """Return the gradient on its grid, with noise before the rounding."""
        top = (1 << self.bits) - 1
        twice = 2 * gradient.abs().amax(dim=tuple(range(1, gradient.ndim)), keepdim=True)
        unit = gradient / twice.clamp(min=torch.finfo(gradient.dtype).tiny) + 0.5
        noise = (torch.rand_like(gradient) - 0.5) / top
        return twice * (torch.round((unit + noise).clamp(0, 1) * top) / top - 0.5)


@dataclass(frozen=True, kw_only=True)
class DoReFa(EvenGrids):
    """DoReFa-Net: weights bent by tanh onto odd levels, activations clipped to [0, 1], gradients of *bits_g* bits.

    ``bits_g=32`` leaves gradients real. Source: see the record, and the authors' tensorpack code.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A6",
        name="dorefa",
        title="DoReFa-Net: Training Low Bitwidth CNNs with Low Bitwidth Gradients",
        paper="Zhou, Wu, Ni, Zhou, Wen, Zou, 2016, arXiv:1606.06160",
        weights="odd multiples of 1 / (2^k - 1) in [-1, 1]; one bit: {-E|w|, +E|w|}",
        activations="k-bit uniform in [0, 1]",
        granularity="L / L",
        formula="W: 2 q_k(tanh(W) / (2 max|tanh W|) + 1/2) - 1, k = 1: sgn(W) E|W|; A: q_k(clip(x, 0, 1)); "
        "q_k(r) = R((2^k - 1) r) / (2^k - 1)",
        planes="k x k",
        n_planes=(2, 2),
        act_scale="layer",
        basis="published",
    )
    bits_g: int = 32
    least_bits_w: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_bits("bits_g", 1, 32)

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Odd levels, or signs."""
        return DoReFaWeights(self.bits_w, serial=self.serial)

    def activation(self, n_channels: int) -> nn.Module:
        """A grid from 0 to 1."""
        return UnitGrid(self.bits_a)

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Quantize the inputs, and the gradient of the outputs where that is asked for."""
        conv = self.conv(n_in, n_out, kernel, stride=stride, padding=padding)
        return self._layer(self.activation(n_in), conv)

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """Quantize the inputs, and the gradient of the outputs where that is asked for."""
        return self._layer(self.activation(n_in), self.linear(n_in, n_out))

    def _layer(self, activation: nn.Module, product: nn.Module) -> nn.Module:
        if self.bits_g == 32:
            return nn.Sequential(activation, product)
        return GradientLayer(activation, product, DoReFaGradient(self.bits_g))


# --- M3 AQD ---------------------------------------------------------------------------------------------------------


class AQDWeights(LearnedWeights):
    """``c (2 R((y + 1) / 2 (2^k - 1)) / (2^k - 1) - 1)``, ``y = clip(w / c, -1, 1)``: odd levels, none of them 0.

    With *standardise* w is first made ``(w - mean) / std``. The clip c is learned, its gradient scaled as in LSQ; it
    starts where neighbouring levels lie ``2 E|w| / sqrt(2^k - 1)`` apart, LSQ's start.
    """

    def __init__(
        self, bits: int, *, serial: str = "bit", standardise: bool = False, n_scales: int | None = None
    ) -> None:
        super().__init__(n_scales)
        self.bits, self.serial, self.standardise = bits, serial, standardise
        self.top = (1 << bits) - 1

    def first(self, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
        """``E|w| sqrt(2^k - 1)``."""
        return mean_size(weight, axes) * math.sqrt(self.top)

    def forward(self, weight: Tensor) -> Coded:
        """Return odd codes and the scale ``c / (2^k - 1)``."""
        if self.standardise:
            axes = over_group(weight, self.per_channel)
            spread = weight.std(dim=axes, keepdim=True, correction=0).clamp(min=torch.finfo(weight.dtype).eps)
            weight = (weight - weight.mean(dim=axes, keepdim=True)) / spread
        n_sharing = weight[0].numel() if self.per_channel else weight.numel()
        clip = scaled_gradient(self.sized(weight), 1 / math.sqrt(n_sharing * self.top))
        codes = 2 * rounded(((weight / clip).clamp(-1, 1) + 1) / 2 * self.top) - self.top
        return Coded((codes,), (clip / self.top,))

    def codec(self) -> Codec:
        """``k`` planes of -1 and +1, or trits."""
        return codec_of("odd", self.bits, self.serial)


class ClipGrid(LearnedGrid):
    """``c R(clip(x / c, 0, 1) (2^k - 1)) / (2^k - 1)`` with a learned clip c; its gradient scaled as in LSQ."""

    def __init__(self, bits: int) -> None:
        top = (1 << bits) - 1
        super().__init__("unsigned", bits, 2 * STANDARD_MEAN * math.sqrt(top))

    def first(self, x: Tensor) -> Tensor:
        """``2 E|x| sqrt(2^k - 1)``, LSQ's start."""
        return 2 * mean_size(x) * math.sqrt(self.high)

    def step(self) -> Tensor:
        """``c / (2^k - 1)``."""
        return self.size / self.high

    def numbers(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid; the gradient of the clip is scaled by the features of one sample."""
        step = scaled_gradient(self.step(), 1 / math.sqrt(x[0].numel() * self.high))
        codes = rounded((x.double() / step.double()).clamp(self.low, self.high))
        return codes.to(x.dtype) * step.to(x.dtype)


class LevelNorm(nn.Module):
    """Batch norms of *n_levels* levels, one for each place that a shared layer is called from.

    ``norm(x, level)``: heads of a detector share their weights over the levels of a pyramid, but each level has its
    own statistics, scale and offset. A captured network has one product a call, each with its own epilogue.
    """

    def __init__(self, n_channels: int, n_levels: int) -> None:
        super().__init__()
        if n_levels < 1:
            raise ConfigError(f"levels: must be at least 1, got {n_levels}")
        self.norms = nn.ModuleList(nn.BatchNorm2d(n_channels) for _ in range(n_levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Return *x* (b c h w), normed as on *level*."""
        if not 0 <= level < len(self.norms):
            raise ConfigError(f"level: must be from 0 to {len(self.norms) - 1}, got {level}")
        return cast(Tensor, self.norms[level](x))


class SharedLayer(nn.Module):
    """One layer of a head, called on every level: shared weights, a batch norm for each level."""

    def __init__(self, layer: nn.Module, norm: LevelNorm) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Return the layer's output on *level*."""
        return cast(Tensor, self.norm(self.layer(x), level))


@dataclass(frozen=True, kw_only=True)
class AQD(EvenGrids):
    """AQD: odd levels below a learned clip, unsigned activations below another, batch norms for each call of a head.

    ``dyadic_bits=i`` deploys every scale s, and the scale and offset of every batch norm, as ``R(s 2^i) / 2^i``, so
    that the digital side needs whole numbers and shifts alone. Source: see the record, and the authors' QTool code;
    where the learned clips start is LSQ's, since it was not seen.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M3",
        name="aqd",
        title="AQD: Towards Accurate Quantized Object Detection",
        paper="Chen, Liu, Zhuang, Tan, Shen, CVPR 2021",
        weights="odd multiples of c / (2^k - 1) in [-c, c]",
        activations="k-bit uniform in [0, c]",
        granularity="C or L / L",
        formula="y = clip(w / c, -1, 1), Q = c (2 R((y + 1) / 2 (2^k - 1)) / (2^k - 1) - 1); "
        "A: c R(clip(x / c, 0, 1) (2^k - 1)) / (2^k - 1)",
        planes="k x k",
        n_planes=(2, 2),
        needs=("epilogue parameters for each call of a shared layer", "dyadic scales"),
        act_scale="layer",
        basis="published",
    )
    of_network = ("dyadic_bits",)
    per_channel: bool = False
    standardise: bool = False
    dyadic_bits: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_bits("dyadic_bits", 0, 32)

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Odd levels below a learned clip."""
        return AQDWeights(self.bits_w, serial=self.serial, standardise=self.standardise, n_scales=n_scales)

    def activation(self, n_channels: int) -> nn.Module:
        """Unsigned codes below a learned clip."""
        return ClipGrid(self.bits_a)

    def shared_layer(self, n_in: int, n_out: int, kernel: int = 3, *, n_levels: int, padding: int = 1) -> SharedLayer:
        """Return a layer of a head whose weights all levels share and whose batch norms they do not."""
        return SharedLayer(self.conv_layer(n_in, n_out, kernel, padding=padding), LevelNorm(n_out, n_levels))

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Round scales to dyadic numbers, where that is asked for."""
        if self.dyadic_bits:
            self._round_scales(network)

    def _round_scales(self, network: nn.Module) -> None:
        with torch.no_grad():
            for part in network.modules():
                if isinstance(part, QuantizedWeights) and isinstance(part.weight_quantizer, AQDWeights):
                    quantizer = part.weight_quantizer
                    step = quantizer(part.weight).scales[0].reshape(quantizer.size.shape)
                    quantizer.size.copy_(self._dyadic_steps(step) * quantizer.top)
                    quantizer.is_ready.fill_(True)
                elif isinstance(part, ClipGrid):
                    part.size.copy_(self._dyadic_steps(part.step()) * part.high)
        fold_norms(network, lambda s: dyadic(s, self.dyadic_bits), lambda s: dyadic(s, self.dyadic_bits))

    def _dyadic_steps(self, steps: Tensor) -> Tensor:
        made = dyadic(steps, self.dyadic_bits)
        if not bool((made > 0).all()):
            raise ConfigError(
                f"{self.record.name}: dyadic_bits must leave every scale above 0, got {self.dyadic_bits} for a scale "
                f"of {float(steps.min()):.3g}; take more bits"
            )
        return made


def dyadic(values: Tensor, bits: int) -> Tensor:
    """Return ``R(s 2^i) / 2^i`` for each s of *values*.

    >>> dyadic(torch.tensor([0.3, -1.0]), 2).tolist()
    [0.25, -1.0]
    """
    return torch.round(values * 2.0**bits) / 2.0**bits


def fold_norms(network: nn.Module, scale: Callable[[Tensor], Tensor], offset: Callable[[Tensor], Tensor]) -> None:
    """Turn each batch norm into ``a x + b``, with *scale* of what a was and *offset* of what b was.

    The norm keeps its place: its mean becomes 0 and its variance 1.
    """
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_var is not None and norm.affine:
                a = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
                b = norm.bias.double() - a * cast(Tensor, norm.running_mean).double()
                norm.weight.copy_(scale(a))
                norm.bias.copy_(offset(b))
                cast(Tensor, norm.running_mean).zero_()
                norm.running_var.fill_(1.0)
                norm.eps = 0.0


# --- M4 NICE --------------------------------------------------------------------------------------------------------

NOISE_SHARE = 0.05
"""Share of the weights that get noise in a step of training."""


class NICEWeights(LearnedWeights):
    """``c / m R(clip(w, -c, c) m / c)``, ``m = 2^(k-1) - 1``, with c = ``|mean| + 3 sigma`` of the weights at first.

    In training a random 5 % of the weights is clamped and gets uniform noise of half a bin to both sides in place of
    the rounding. With *short_scale* the bin is ``b 2^p``, b a whole number from 1 to 8.
    The clamp is set once and not learned: only that of the activations is.
    """

    def __init__(self, bits: int, *, serial: str = "bit", short_scale: bool = False) -> None:
        super().__init__()
        self.bits, self.serial, self.short_scale = bits, serial, short_scale
        self.top = (1 << (bits - 1)) - 1
        self.size.requires_grad_(False)

    def first(self, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The greater end of ``mean +- 3 sigma``."""
        spread = weight.std(dim=axes, keepdim=True, correction=0)
        return weight.mean(dim=axes, keepdim=True).abs() + 3 * spread

    def forward(self, weight: Tensor) -> Coded:
        """Return symmetric codes, noisy in training, and the bin."""
        scale = self.sized(weight) / self.top
        if self.short_scale:
            scale = short(scale)
        inside = (weight / scale).clamp(-self.top, self.top)
        codes = rounded(inside)
        if self.training and torch.is_grad_enabled():
            is_noisy = torch.rand_like(weight) < NOISE_SHARE
            codes = torch.where(is_noisy, inside + (torch.rand_like(weight) - 0.5), codes)
        return Coded((codes,), (scale,))

    def codec(self) -> Codec:
        """``k - 1`` planes of the magnitude with the sign, or trits."""
        return codec_of("symmetric", self.bits, self.serial)


def short(values: Tensor) -> Tensor:
    """Return the nearest ``b 2^p`` with b from 1 to 8.

    >>> short(torch.tensor([0.3, 5.0, 100.0])).tolist()
    [0.3125, 5.0, 96.0]
    """
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 8), exponent - 3)


class ClampGrid(LearnedGrid):
    """``R(x (2^k - 1) / c) c / (2^k - 1)`` for x in [0, c]; c is learned, from ``mean + 3 sigma`` of the first batch.

    The gradient of c is that of the formula with a round of derivative 1: 1 above c, the rounding error inside.
    """

    def __init__(self, bits: int) -> None:
        super().__init__("unsigned", bits, 3.0)

    def first(self, x: Tensor) -> Tensor:
        """``mean + 3 sigma`` of what a ReLU leaves."""
        x = x.clamp(min=0)
        return x.mean() + 3 * x.std(correction=0)

    def step(self) -> Tensor:
        """``c / (2^k - 1)``."""
        return self.size / self.high


@dataclass(frozen=True, kw_only=True)
class NICE(EvenGrids):
    """NICE: noise injection and clamping estimation; biases of *bits_b* bits.

    Biases are the offsets of the batch norms, which `deploy` rounds to symmetric codes of *bits_b* bits, one scale a
    layer. ``short_scale=true`` makes the bin of the weights ``b 2^p``, b from 1 to 8, as for the paper's hardware.
    Recalled: how the activation clamp starts, and that noise meets weights alone.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M4",
        name="nice",
        title="NICE: Noise Injection and Clamping Estimation for Neural Network Quantization",
        paper="Baskin, Zheltonozhskii, Rozen, Liss, Chai, Schwartz, Giryes, Bronstein, Mendelson, Mathematics 2021",
        weights="symmetric whole numbers up to 2^(k-1) - 1, times c / (2^(k-1) - 1)",
        activations="k-bit uniform in [0, c], c learned",
        granularity="L / L",
        formula="W: c / m R(clip(w, -c, c) m / c), m = 2^(k-1) - 1, c from mean +- 3 sigma; "
        "A: R(x (2^k - 1) / c) c / (2^k - 1); training: uniform noise of half a bin on 5 %",
        planes="(k-1) x k",
        n_planes=(3, 4),
        needs=("16-bit bias",),
        act_scale="layer",
        basis="published",
    )
    of_network = ("bits_b",)
    bits_w: int = 4
    bits_a: int = 4
    bits_b: int = 16
    short_scale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_bits("bits_b", 2, 32)

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Symmetric codes below a clamp, noisy in training."""
        return NICEWeights(self.bits_w, serial=self.serial, short_scale=self.short_scale)

    def activation(self, n_channels: int) -> nn.Module:
        """Unsigned codes below a learned clamp."""
        return ClampGrid(self.bits_a)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Round the offsets of the batch norms to *bits_b* bits."""
        top = (1 << (self.bits_b - 1)) - 1

        def rounded_bias(bias: Tensor) -> Tensor:
            scale = bias.abs().max() / top
            return torch.round(bias / scale) * scale if scale > 0 else bias

        fold_norms(network, lambda scale: scale, rounded_bias)


# --- M5 LSQ ---------------------------------------------------------------------------------------------------------


class LSQWeights(LearnedWeights):
    """``s R(clip(w / s, -2^(k-1), 2^(k-1) - 1))`` with a learned step s.

    The gradient of s is ``R(w/s) - w/s`` inside and the code outside, times ``1 / sqrt(N Q_P)``, N the weights of the
    layer. s starts at ``2 E|w| / sqrt(Q_P)``.
    """

    def __init__(self, bits: int, *, serial: str = "bit") -> None:
        super().__init__()
        self.bits, self.serial = bits, serial
        self.low, self.high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def first(self, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
        """``2 E|w| / sqrt(Q_P)``."""
        return 2 * mean_size(weight, axes) / math.sqrt(self.high)

    def forward(self, weight: Tensor) -> Coded:
        """Return whole-number codes and the step."""
        step = scaled_gradient(self.sized(weight), 1 / math.sqrt(weight.numel() * self.high))
        return Coded((rounded((weight / step).clamp(self.low, self.high)),), (step,))

    def codec(self) -> Codec:
        """``k`` planes, the last for the least code alone; or trits."""
        return codec_of("integer", self.bits, self.serial)


class LSQGrid(LearnedGrid):
    """``s R(clip(x / s, -Q_N, Q_P))`` with a learned step s, Q_N = 0 for *kind* unsigned.

    The gradient of s is scaled by ``1 / sqrt(N Q_P)``, N the features of one sample (some codes count the batch, too).
    s starts at ``2 E|x| / sqrt(Q_P)`` of the first batch.
    """

    def __init__(self, bits: int, *, kind: GridKind = "unsigned") -> None:
        super().__init__(kind, bits, 1.0)
        with torch.no_grad():
            self.size.fill_(2 * STANDARD_MEAN / math.sqrt(self.high))

    def first(self, x: Tensor) -> Tensor:
        """``2 E|x| / sqrt(Q_P)``."""
        return 2 * mean_size(x) / math.sqrt(self.high)

    def step(self) -> Tensor:
        """The learned step."""
        return self.size

    def numbers(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid; the gradient of the step is scaled."""
        step = scaled_gradient(self.step(), 1 / math.sqrt(x[0].numel() * self.high))
        codes = rounded((x.double() / step.double()).clamp(self.low, self.high))
        return codes.to(x.dtype) * step.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class LSQ(EvenGrids):
    """Learned Step Size Quantization: a step for the weights and one for the activations of each layer.

    2-bit weights are {-2, -1, 0, 1}. ``signed_a=true`` is for activations that no ReLU precedes: two's complement.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M5",
        name="lsq",
        title="Learned Step Size Quantization",
        paper="Esser, McKinstry, Bablani, Appuswamy, Modha, ICLR 2020",
        weights="s {-2^(k-1), ..., 2^(k-1) - 1}",
        activations="s {0, ..., 2^k - 1}",
        granularity="L / L",
        formula="v_hat = s R(clip(v / s, -Q_N, Q_P)); gradient of s: R(v/s) - v/s inside, -Q_N or Q_P outside, times "
        "1 / sqrt(N Q_P); s starts at 2 E|v| / sqrt(Q_P)",
        planes="k x k",
        n_planes=(2, 2),
        act_scale="layer",
        basis="published",
    )
    signed_a: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_bits("bits_a", 2 if self.signed_a else 1, 8)

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Two's complement codes with a learned step."""
        return LSQWeights(self.bits_w, serial=self.serial)

    def activation(self, n_channels: int) -> nn.Module:
        """Unsigned codes, or two's complement ones, with a learned step."""
        return LSQGrid(self.bits_a, kind="integer" if self.signed_a else "unsigned")


# --- M6 LLSQ --------------------------------------------------------------------------------------------------------


class _Given(torch.autograd.Function):
    """Give *value* forward; its gradient is *gradient*, whatever comes back."""

    @staticmethod
    def forward(ctx, value: Tensor, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return ctx.saved_tensors[0], None


def simulated_gradient(values: Tensor, alpha: Tensor, low: int, high: int, axes: tuple[int, ...]) -> Tensor:
    """Return LLSQ's gradient for the scale *alpha*: +alpha^2, -alpha^2 or 0.

    The squared error of quantizing *values* is compared at alpha/2, alpha and 2 alpha: where the half is best alpha
    must fall, so the gradient is +alpha^2; where the double is, -alpha^2.

    Args:
        values: What is quantized.
        alpha: () or, per channel, (c 1 ...).
        low: Least code.
        high: Greatest code.
        axes: Those that share a scale.
    """
    values, alpha = values.detach(), alpha.detach()
    errors = []
    for scale in (alpha, alpha / 2, alpha * 2):  # the first of equals stays
        made = scale * torch.round(values / scale).clamp(low, high)
        errors.append((values - made).square().sum(dim=axes, keepdim=alpha.ndim > 0))
    best = torch.stack(errors).argmin(dim=0)
    way = torch.where(best == 1, 1.0, torch.where(best == 2, -1.0, 0.0)).to(alpha.dtype)
    return way * alpha.square()


def next_power_of_two(values: Tensor) -> Tensor:
    """Return ``2^ceil(log2 v)``, exactly.

    >>> next_power_of_two(torch.tensor([0.3, 0.5, 1.1])).tolist()
    [0.5, 0.5, 2.0]
    """
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.ones_like(values), torch.where(mantissa == 0.5, exponent - 1, exponent))


class LLSQWeights(LearnedWeights):
    """``a R(clip(w / a, -2^(k-1), 2^(k-1) - 1))``; a moves by `simulated_gradient`, w by all of its gradient.

    With *pow2* the scale is ``2^ceil(log2 a)``. a starts as in LSQ.
    """

    def __init__(self, bits: int, *, serial: str = "bit", pow2: bool = False, n_scales: int | None = None) -> None:
        super().__init__(n_scales)
        self.bits, self.serial, self.pow2 = bits, serial, pow2
        self.low, self.high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def first(self, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
        """``2 E|w| / sqrt(Q_P)``."""
        return 2 * mean_size(weight, axes) / math.sqrt(self.high)

    def forward(self, weight: Tensor) -> Coded:
        """Return whole-number codes and the scale."""
        alpha = self.sized(weight)
        scale = simulated(weight, alpha, self.low, self.high, over_group(weight, self.per_channel), self.pow2)
        codes = torch.round(weight.detach() / scale.detach()).clamp(self.low, self.high)
        return Coded((cast(Tensor, StraightToWeights.apply(weight, codes, scale.detach())),), (scale,))

    def codec(self) -> Codec:
        """``k`` planes, the last for the least code alone; or trits."""
        return codec_of("integer", self.bits, self.serial)


def simulated(values: Tensor, alpha: Tensor, low: int, high: int, axes: tuple[int, ...], pow2: bool) -> Tensor:
    """Return the scale of *alpha*, whose gradient is the simulated one; a power of two with *pow2*."""
    if not torch.is_grad_enabled():
        return next_power_of_two(alpha) if pow2 else alpha
    scale = cast(Tensor, _Given.apply(alpha, simulated_gradient(values, alpha, low, high, axes)))
    return surrogate(scale, next_power_of_two(scale.detach())) if pow2 else scale


class LLSQGrid(LearnedGrid):
    """``a R(clip(x / a, 0, 2^k - 1))``; a moves by `simulated_gradient`, and the gradient of x passes inside."""

    def __init__(self, bits: int, *, pow2: bool = False) -> None:
        super().__init__("unsigned", bits, 1.0)
        self.pow2 = pow2
        with torch.no_grad():
            self.size.fill_(2 * STANDARD_MEAN / math.sqrt(self.high))

    def first(self, x: Tensor) -> Tensor:
        """``2 E|x| / sqrt(Q_P)``, LSQ's start."""
        return 2 * mean_size(x) / math.sqrt(self.high)

    def step(self) -> Tensor:
        """The scale, a power of two with *pow2*."""
        return next_power_of_two(self.size) if self.pow2 else self.size

    def numbers(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid; the scale gets the simulated gradient."""
        axes = tuple(range(x.ndim))
        scale = simulated(x, self.size, self.low, self.high, axes, self.pow2)
        # Behind the division the scale is a constant: what comes back to it is not used, only that something does.
        codes = rounded((x.double() / scale.detach().double()).clamp(self.low, self.high))
        return codes.to(x.dtype) * scale.to(x.dtype)


class PlainScalesAdam(torch.optim.Adam):
    """Adam that moves LLSQ's scales by plain gradient descent.

    A simulated gradient says how far to go, alpha^2; Adam would divide that by itself and throw small scales about.
    """

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        self.scales = [part.size for part in network.modules() if isinstance(part, LLSQWeights | LLSQGrid)]
        taken = {id(scale) for scale in self.scales}
        others = [parameter for parameter in network.parameters() if id(parameter) not in taken]
        groups: list[dict[str, Any]] = [{"params": self.scales}, {"params": others}]
        super().__init__([group for group in groups if group["params"]], lr=learning_rate)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the scales by ``-learning rate * gradient``, the rest by Adam."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for scale in self.scales:
                if scale.grad is not None:
                    scale.sub_(scale.grad * self.param_groups[0]["lr"])
                    scale.grad = None  # so that Adam leaves it
        super().step()
        return loss


@dataclass(frozen=True, kw_only=True)
class LLSQ(EvenGrids):
    """Linear Symmetric Quantization: scales that step towards the least error among half, itself and double.

    ``per_channel=true`` is the authors' "kernel_wise". ``pow2=true`` rounds scales up to powers of two, so that the
    digital side shifts. The batch norm stays behind the product: the authors fold it for their hardware. Scales move by
    plain gradient descent, as all does in the authors' training; the rest by Adam.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M6",
        name="llsq",
        title="Linear Symmetric Quantization of Neural Networks for Low-precision Integer Hardware",
        paper="Zhao, Wang, Cai, Liu, Zhang, ICLR 2020",
        weights="a {-2^(k-1), ..., 2^(k-1) - 1}",
        activations="a {0, ..., 2^k - 1}",
        granularity="C or L / L",
        formula="v_hat = a R(clip(v / a, -Q_N, Q_P)); gradient of a: +a^2 where a/2 errs least, -a^2 where 2a does, "
        "else 0; pow2: 2^ceil(log2 a)",
        planes="k x k",
        n_planes=(4, 4),
        act_scale="layer",
        basis="published",
    )
    bits_w: int = 4
    bits_a: int = 4
    per_channel: bool = False
    pow2: bool = False

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Two's complement codes; the scale moves by comparing errors."""
        return LLSQWeights(self.bits_w, serial=self.serial, pow2=self.pow2, n_scales=n_scales)

    def activation(self, n_channels: int) -> nn.Module:
        """Unsigned codes; the scale moves by comparing errors."""
        return LLSQGrid(self.bits_a, pow2=self.pow2)

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """Adam, but for the scales."""
        return PlainScalesAdam(network, learning_rate)


# --- M7 QIL ---------------------------------------------------------------------------------------------------------


class Interval(nn.Module):
    """A learned interval: its centre c and its half width d, as the beginning and the end of what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.centre, self.half_width = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(1.0))
        self.is_ready: Tensor
        self.register_buffer("is_ready", torch.tensor(False))

    def ends(self, top: Tensor) -> None:
        """Let the interval run from 0 to *top*."""
        with torch.no_grad():
            if top > 0:
                self.centre.copy_(top / 2)
                self.half_width.copy_(top / 2)
            self.is_ready.fill_(True)


class QILWeights(WeightQuantizer):
    """Pruned below ``c - d``, clipped above ``c + d``, ``sgn(w) (a|w| + b)^gamma`` between; then ``R(. q) / q``.

    ``a = 1/2 / d``, ``b = -1/2 c / d + 1/2``, ``q = 2^(k-1) - 1``; c, d and gamma are learned. The interval starts at
    0 and ends at ``2 E|w| sqrt(q)``, where LSQ's grid would; that start was not seen in the paper.
    """

    def __init__(self, bits: int, *, serial: str = "bit") -> None:
        super().__init__()
        self.bits, self.serial = bits, serial
        self.top = (1 << (bits - 1)) - 1
        self.interval = Interval()
        self.gamma = nn.Parameter(torch.tensor(1.0))

    def forward(self, weight: Tensor) -> Coded:
        """Return symmetric codes and the scale ``1 / q``."""
        centre, half_width = self._interval(weight)
        along = ((weight.abs() - centre) / (2 * half_width) + 0.5).clamp(0, 1)
        is_kept = along > 0
        bent = torch.where(is_kept, torch.where(is_kept, along, torch.ones_like(along)) ** self.gamma, 0.0)
        codes = torch.sign(weight) * rounded(bent * self.top)
        return Coded((codes,), (weight.new_tensor(1 / self.top),))

    def _interval(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        if not self.interval.is_ready:
            top = 2 * mean_size(weight.detach()) * math.sqrt(self.top)
            if not self.training:
                half = torch.where(top > 0, top / 2, torch.ones_like(top))
                return half, half
            self.interval.ends(top)
        return self.interval.centre, self.interval.half_width

    def codec(self) -> Codec:
        """``k - 1`` planes of the magnitude with the sign, or trits."""
        return codec_of("symmetric", self.bits, self.serial)


class QILGrid(nn.Module):
    """0 below ``c - d``, 1 above ``c + d``, ``a x + b`` between; then ``R(. q) / q``, ``q = 2^k - 1``.

    The interval is learned; it starts at 0 and ends at ``2 E|x| sqrt(q)`` of the first batch.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.interval, self.grid = Interval(), UnitGrid(bits)
        self.interval.ends(torch.tensor(2 * STANDARD_MEAN * math.sqrt(self.grid.high)))
        self.interval.is_ready.fill_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return multiples of ``1 / q`` from 0 to 1."""
        if self.training and not self.interval.is_ready:
            self.interval.ends(2 * mean_size(x.detach()) * math.sqrt(self.grid.high))
        slope = 0.5 / self.interval.half_width
        return cast(Tensor, self.grid(x * slope + (0.5 - self.interval.centre * slope)))


@dataclass(frozen=True, kw_only=True)
class QIL(EvenGrids):
    """Quantization Interval Learning: an interval for weights and one for activations, learned with the task's loss.

    gamma bends weights alone; it is learned from 1 on, and matters when weights are prepared only.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M7",
        name="qil",
        title="Learning to Quantize Deep Networks by Optimizing Quantization Intervals with Task Loss",
        paper="Jung, Son, Lee, Son, Han, Kwak, Hwang, Choi, CVPR 2019",
        weights="symmetric multiples of 1 / (2^(k-1) - 1) in [-1, 1]",
        activations="k-bit uniform in [0, 1]",
        granularity="L / L",
        formula="w_hat = 0 below c - d, sgn(w) above c + d, sgn(w) (a|w| + b)^gamma between, a = 1/2 / d, "
        "b = -1/2 c / d + 1/2; then R(w_hat q) / q; x likewise with gamma = 1",
        planes="(k-1) x k",
        n_planes=(2, 3),
        act_scale="layer",
        basis="published",
    )
    bits_w: int = 3
    bits_a: int = 3

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Symmetric codes of a learned interval."""
        return QILWeights(self.bits_w, serial=self.serial)

    def activation(self, n_channels: int) -> nn.Module:
        """Unsigned codes of a learned interval."""
        return QILGrid(self.bits_a)

    def after_step(self, network: nn.Module) -> None:
        """Hold the half widths above 0."""
        with torch.no_grad():
            for part in network.modules():
                if isinstance(part, Interval):
                    part.half_width.clamp_(min=1e-3)
                elif isinstance(part, QILWeights):
                    part.gamma.clamp_(min=1e-3)


# --- M8 FQ-Conv -----------------------------------------------------------------------------------------------------


class FQWeights(LearnedWeights):
    """``e^s R(clip(w / e^s, -1, 1) n) / n``, ``n = 2^(k-1) - 1``, s learned; 2 bits are ternary weights.

    s starts where ``e^s / n = 2 E|w| / sqrt(n)``, as in LSQ.
    """

    is_positive = False

    def __init__(self, bits: int, *, serial: str = "bit") -> None:
        super().__init__()
        self.bits, self.serial = bits, serial
        self.top = (1 << (bits - 1)) - 1

    def first(self, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
        """``ln(2 E|w| sqrt(n))``."""
        return torch.log((2 * mean_size(weight, axes) * math.sqrt(self.top)).clamp(min=1e-12))

    def forward(self, weight: Tensor) -> Coded:
        """Return symmetric codes and the scale ``e^s / n``."""
        height = torch.exp(self.sized(weight))
        codes = rounded((weight / height).clamp(-1, 1) * self.top)
        return Coded((codes,), (height / self.top,))

    def codec(self) -> Codec:
        """``k - 1`` planes of the magnitude with the sign, or trits."""
        return codec_of("symmetric", self.bits, self.serial)


class FQGrid(LearnedGrid):
    """``e^s R(clip(x / e^s, b, 1) n) / n``, s learned: b = 0, ``n = 2^k - 1`` for *kind* unsigned.

    For signed codes, where no ReLU is meant, b = -1 and ``n = 2^(k-1) - 1``. s starts from the first batch as in LSQ.
    """

    is_positive = False

    def __init__(self, bits: int, *, kind: GridKind = "unsigned") -> None:
        super().__init__(kind, bits, 0.0)
        with torch.no_grad():
            self.size.fill_(math.log(2 * STANDARD_MEAN * math.sqrt(self.high)))

    def first(self, x: Tensor) -> Tensor:
        """``ln(2 E|x| sqrt(n))``."""
        return torch.log((2 * mean_size(x) * math.sqrt(self.high)).clamp(min=1e-12))

    def step(self) -> Tensor:
        """``e^s / n``."""
        return torch.exp(self.size) / self.high


@dataclass(frozen=True, kw_only=True)
class FQConv(EvenGrids):
    """FQ-Conv: no batch norm and no non-linearity but the grid; sums go straight to the codes of the next layer.

    The paper removes the batch norms of a trained network and trains on. Here `initialise` takes their place: layer by
    layer it divides the latent weights and e^s by the spread of the outputs, which leaves every code as it is.
    Recalled: the form of n for activations.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M8",
        name="fq-conv",
        title="FQ-Conv: Fully Quantized Convolution for Efficient and Accurate Inference",
        paper="Verhoef, Laubeuf, Cosemans, Debacker, Papistas, Mallik, Verkest, 2019, arXiv:1912.09356",
        weights="e^s {-n, ..., n} / n; n = 1: ternary",
        activations="k-bit uniform in [0, e^s], or signed in [-e^s, e^s]",
        granularity="L / L",
        formula="Q(x) = e^s R(clip(x / e^s, b, 1) n) / n; b = -1 for weights, 0 behind a ReLU",
        planes="(k-1) x k; ternary weights: 1 x k",
        n_planes=(1, 4),
        act_scale="layer",
        basis="recalled",
    )
    bits_a: int = 4
    signed_a: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_bits("bits_a", 2 if self.signed_a else 1, 8)

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """Symmetric codes below a learned e^s."""
        return FQWeights(self.bits_w, serial=self.serial)

    def activation(self, n_channels: int) -> nn.Module:
        """Codes up to a learned e^s."""
        return FQGrid(self.bits_a, kind="signed" if self.signed_a else "unsigned")

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """A layer without batch norm: conv, max pool."""
        layer = self.conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)
        return nn.Sequential(layer, nn.MaxPool2d(pool)) if pool > 1 else layer

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Give the outputs of each layer spread 1 by scaling its weights and e^s alike, from the first layer on."""

        def scale(layer: nn.Module, inputs: Any, outputs: Tensor) -> Tensor:
            spread = outputs.std(correction=0)
            if not spread > 0:
                return outputs
            weighted = cast(QuantizedWeights, layer)
            weighted.weight.div_(spread)
            cast(FQWeights, weighted.weight_quantizer).size.sub_(torch.log(spread))
            return outputs / spread

        layers = [
            part
            for part in network.modules()
            if isinstance(part, QuantizedWeights) and isinstance(part.weight_quantizer, FQWeights)
        ]
        hooks = [cast(nn.Module, layer).register_forward_hook(scale) for layer in layers]
        was_training = network.training
        network.train()
        try:
            with torch.no_grad():
                network(images)
        finally:
            network.train(was_training)
            for hook in hooks:
                hook.remove()


# --- M10 PACT -------------------------------------------------------------------------------------------------------


class PACTGrid(LearnedGrid):
    """``R(y (2^k - 1) / a) a / (2^k - 1)`` with ``y = clip(x, 0, a)`` and a learned a.

    The gradient of a is 1 where ``x >= a`` and 0 elsewhere, that of x is 1 where ``0 <= x < a``.
    """

    def __init__(self, bits: int, alpha: float) -> None:
        super().__init__("unsigned", bits, alpha)
        self.is_ready.fill_(True)

    def first(self, x: Tensor) -> Tensor:
        """Where it stands: PACT starts from a given a."""
        return self.size.detach()

    def step(self) -> Tensor:
        """``a / (2^k - 1)``."""
        return self.size / self.high

    def numbers(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid."""
        step, alpha = self.step().detach(), self.size
        codes = torch.round((x.detach().double() / step.double()).clamp(self.low, self.high))
        inside = ((x >= 0) & (x < alpha)).to(x.dtype)
        values = surrogate(x, codes.to(x.dtype) * step.to(x.dtype), inside)
        return values + (alpha - alpha.detach()) * (x >= alpha)  # the difference is 0, its gradient 1


@dataclass(frozen=True, kw_only=True)
class PACT(EvenGrids):
    """PACT: a clipping level for the activations of each layer, learned with an L2 penalty; weights as in DoReFa.

    *alpha* is where the levels start, *decay* the weight of the sum of their squares in the loss; neither number was
    seen in what was read of the paper.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M10",
        name="pact",
        title="PACT: Parameterized Clipping Activation for Quantized Neural Networks",
        paper="Choi, Wang, Venkataramani, Chuang, Srinivasan, Gopalakrishnan, 2018, arXiv:1805.06085",
        weights="odd multiples of 1 / (2^k - 1) in [-1, 1]",
        activations="k-bit uniform in [0, a], a learned",
        granularity="L / L",
        formula="y = clip(x, 0, a), y_q = R(y (2^k - 1) / a) a / (2^k - 1); gradient of a: 1[x >= a]; L2 on a; "
        "weights: DoReFa",
        planes="k x k",
        n_planes=(2, 2),
        act_scale="layer",
        basis="published",
    )
    of_network = ("decay",)
    alpha: float = 4.0
    decay: float = 2e-4
    least_bits_w: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, holds in (("alpha", self.alpha > 0), ("decay", self.decay >= 0)):
            if not (holds and math.isfinite(getattr(self, key))):
                least = "above 0" if key == "alpha" else "at least 0"
                raise ConfigError(
                    f"{self.record.name}: {key} must be a finite number {least}, got {getattr(self, key)}"
                )

    def quantizer(self, n_scales: int | None) -> WeightQuantizer:
        """DoReFa's odd levels."""
        return DoReFaWeights(self.bits_w, serial=self.serial)

    def activation(self, n_channels: int) -> nn.Module:
        """Unsigned codes below a learned clipping level."""
        return PACTGrid(self.bits_a, self.alpha)

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """The loss of the labels plus *decay* times the squares of the clipping levels."""
        squares = [part.size.square() for part in network.modules() if isinstance(part, PACTGrid)]
        return super().loss(network, images, outputs, labels, teacher) + self.decay * sum(squares)


METHODS: tuple[type[Method], ...] = (DoReFa, AQD, NICE, LSQ, LLSQ, QIL, FQConv, PACT)
REPEATS: tuple[MethodRecord, ...] = (replace(DoReFa.record, id="M12", same_as="A6"),)
