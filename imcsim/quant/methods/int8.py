"""Eight-bit integers: post-training calibration (NVIDIA), and training with gradients of 8 bits (DA-INT8, UI8).

Formulas: quantizers.md section A.2 (I1 to I3). Forward all three are ``x_q = clip(R(127 x / amax), -127, 127)``: 7
planes of weights, or 6 trits. Behind a ReLU the codes of activations are 0 to 127, which take 7 passes; with
``unsigned=true`` they are 0 to 255 (``amax / 255``) and take 8.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.quant.gradients import GradientLayer, GradientModule, to_grid
from imcsim.quant.grids import Grid, codec_of
from imcsim.quant.layers import over_group
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import straight_to_weights
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec

BITS = 8
TOP = (1 << (BITS - 1)) - 1
CALIBRATIONS = ("max", "entropy", "percentile", "mse")
N_BINS = 2048
FIRST_BIN = 128
"""The least range that entropy and mse try: as many bins as there are magnitudes of 8 bits."""

# --- weights and activations ----------------------------------------------------------------------------------------


class MaxWeights(WeightQuantizer):
    """``R(127 w / amax)``, amax the greatest magnitude of the layer or of an output channel; straight-through.

    While *is_float* is set the weights pass as they are: before calibration, and in training that minds no grid.
    """

    def __init__(self, *, per_channel: bool, serial: str = "bit", floats_in_training: bool = False) -> None:
        super().__init__()
        self.per_channel, self.serial = per_channel, serial
        self.floats_in_training, self.is_float = floats_in_training, False

    def forward(self, weight: Tensor) -> Coded:
        """Return symmetric codes of 8 bits and the scale ``amax / 127``."""
        greatest = weight.detach().abs().amax(dim=over_group(weight, self.per_channel), keepdim=True)
        scale = greatest / TOP
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # weights of 0 throughout have codes of 0
        if not self.per_channel:
            scale = scale.reshape(())
        if self.is_float or (self.training and self.floats_in_training and torch.is_grad_enabled()):
            return Coded((weight / scale,), (scale,))
        return straight_to_weights(weight, torch.round(weight.detach() / scale).clamp(-TOP, TOP), scale)

    def codec(self) -> Codec:
        """7 planes of the magnitude with the sign, or 6 trits."""
        return codec_of("symmetric", BITS, self.serial)


class MaxGrid(Grid):
    """``clip(R(127 x / amax), -127, 127)``, or unsigned codes up to 255; amax is no parameter but a statistic."""

    amax: Tensor

    def __init__(self, *, unsigned: bool = False, amax: float = 4.0) -> None:
        super().__init__("unsigned" if unsigned else "signed", BITS)
        self.register_buffer("amax", torch.tensor(amax))

    def step(self) -> Tensor:
        """``amax / 127``."""
        return self.amax / self.high

    def set_amax(self, amax: float) -> None:
        """Set the range; one of 0, of numbers that are all 0, leaves it as it is."""
        if amax > 0:
            self.amax.fill_(amax)


class RunningMaxGrid(MaxGrid):
    """A grid up to the running mean of the greatest magnitude of each batch; the first batch sets it."""

    is_ready: Tensor

    def __init__(self, *, unsigned: bool = False, momentum: float = 0.1) -> None:
        super().__init__(unsigned=unsigned)
        self.momentum = momentum
        self.register_buffer("is_ready", torch.tensor(False))

    def prepare(self, x: Tensor) -> None:
        """Move the range towards that of the batch *x*."""
        greatest = float(x.abs().max())
        if self.is_ready:
            greatest = (1 - self.momentum) * float(self.amax) + self.momentum * greatest
        self.set_amax(greatest)
        self.is_ready.fill_(True)


class CalibratedGrid(MaxGrid):
    """A grid whose range is found once from a histogram of magnitudes.

    While `histogram` is set, numbers are counted and pass as they are. With *floats_in_training* they also pass in
    training; unsigned ones through a ReLU.
    """

    def __init__(self, *, unsigned: bool = False, floats_in_training: bool = False) -> None:
        super().__init__(unsigned=unsigned)
        self.floats_in_training = floats_in_training
        self.histogram: Histogram | None = None

    def numbers(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid, or those that came in."""
        passes = torch.relu(x) if self.kind == "unsigned" else x
        if self.histogram is not None:
            self.histogram.add(passes.detach())
            return passes
        if self.training and self.floats_in_training:
            return passes
        return super().numbers(x)


# --- calibration ----------------------------------------------------------------------------------------------------


class Histogram:
    """Magnitudes in even bins, 2048 over those of the first batch; later batches add bins of the same width."""

    def __init__(self, n_bins: int = N_BINS) -> None:
        self.n_bins, self.width, self.greatest = n_bins, 0.0, 0.0
        self.counts = np.zeros(n_bins, dtype=np.int64)

    def add(self, values: Tensor) -> None:
        """Count the magnitudes of *values*."""
        sizes = values.abs().double().flatten().numpy(force=True)
        self.greatest = max(self.greatest, float(sizes.max(initial=0.0)))
        if self.greatest == 0:
            self.counts[0] += sizes.size
            return
        if not self.width:
            self.width = self.greatest / self.n_bins
        n_bins = max(len(self.counts), math.ceil(self.greatest / self.width))
        places = np.minimum((sizes / self.width).astype(np.int64), n_bins - 1)
        counts = np.bincount(places, minlength=n_bins)
        counts[: len(self.counts)] += self.counts
        self.counts = counts

    def amax(self, calibration: str, percentile: float) -> float:
        """Return the range by *calibration*: max, entropy, percentile or mse."""
        if not self.width:
            return 0.0
        match calibration:
            case "max":
                return self.greatest
            case "percentile":
                return percentile_range(self.counts, self.width, percentile)
            case "entropy":
                return entropy_range(self.counts, self.width)
            case "mse":
                return mse_range(self.counts, self.width)
        raise ConfigError(f"calibration: must be one of {', '.join(CALIBRATIONS)}, got {calibration!r}")


def percentile_range(counts: np.ndarray, width: float, percentile: float) -> float:
    """Return the least edge of bins below which *percentile* percent of the magnitudes lie.

    >>> percentile_range(np.array([90, 9, 1]), 1.0, 99)
    2.0
    """
    reached = np.cumsum(counts) >= counts.sum() * percentile / 100
    return float((np.argmax(reached) + 1) * width)


def entropy_range(counts: np.ndarray, width: float, *, n_levels: int = 1 << (BITS - 1)) -> float:
    """Return the range whose quantized histogram diverges least from the clipped one (Kullback, Leibler).

    For each range of at least 128 bins: what lies beyond is counted into its last bin; the bins are put together into
    128 even levels, each spread evenly over its bins that were not empty. The first bin is counted like the second,
    for zeros are exact whatever the range. Of equals the widest range is taken.
    Source: Migacz, "8-bit inference with TensorRT", GTC 2017, as in NVIDIA's pytorch-quantization.
    """
    bins = counts.astype(np.float64)
    bins[0] = bins[1] if len(bins) > 1 else bins[0]
    beyond = bins.sum() - np.cumsum(bins)
    best, best_end = math.inf, len(bins)
    for end in range(min(FIRST_BIN, len(bins)), len(bins) + 1):
        inside = bins[:end]
        is_filled = inside > 0
        level = np.minimum(np.arange(end) * n_levels // end, n_levels - 1)
        n_filled = np.bincount(level, weights=is_filled, minlength=n_levels)
        sums = np.bincount(level, weights=inside, minlength=n_levels)
        spread = np.where(is_filled, (sums / np.maximum(n_filled, 1))[level], 0.0)
        clipped = inside.copy()
        clipped[-1] += beyond[end - 1]
        divergence = _divergence(clipped, spread)
        if divergence <= best:
            best, best_end = divergence, end
    return best_end * width


def _divergence(reference: np.ndarray, made: np.ndarray) -> float:
    """Kullback-Leibler divergence of counts *made* from counts *reference*; infinite where made alone is 0."""
    if not reference.sum() or not made.sum():
        return math.inf
    p, q = reference / reference.sum(), made / made.sum()
    seen = p > 0
    if np.any(q[seen] == 0):
        return math.inf
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


def mse_range(counts: np.ndarray, width: float, *, top: int = TOP) -> float:
    """Return the range that leaves the least mean squared error of the bins' centres, of at least 128 bins."""
    centres = (np.arange(len(counts)) + 0.5) * width
    best, best_range = math.inf, len(counts) * width
    for end in range(min(FIRST_BIN, len(counts)), len(counts) + 1):
        step = end * width / top
        error = float(np.sum(counts * (np.minimum(np.rint(centres / step), top) * step - centres) ** 2))
        if error < best:
            best, best_range = error, end * width
    return best_range


def calibrate(network: nn.Module, images: Tensor, calibration: str, percentile: float) -> None:
    """Run float weights and activations on *images* (b c h w), then set the range of each `CalibratedGrid`."""
    grids = [part for part in network.modules() if isinstance(part, CalibratedGrid)]
    weights = [part for part in network.modules() if isinstance(part, MaxWeights)]
    was_training = [part for part in network.modules() if part.training]
    network.eval()
    for grid in grids:
        grid.histogram = Histogram()
    for quantizer in weights:
        quantizer.is_float = True
    try:
        with torch.no_grad():
            for batch in images.split(256):
                network(batch)
        for grid in grids:
            grid.set_amax(cast(Histogram, grid.histogram).amax(calibration, percentile))
    finally:
        for grid in grids:
            grid.histogram = None
        for quantizer in weights:
            quantizer.is_float = False
        for part in was_training:
            part.training = True


# --- gradients ------------------------------------------------------------------------------------------------------

GAUSSIAN_SHARE = 0.3
"""A channel of which more than this share of gradients exceeds sigma is taken for Gaussian (0.317 for normal ones)."""

DA_RATE = 0.8
"""A of the paper, with k = 1: how fast the range of an inverted-T channel follows the greatest gradient."""


class AdaptiveGradient(GradientModule):
    """8 bits for each channel: ranges up to ``max|g|``, or up to its running mean where few gradients are large.

    A channel with ``P(|g| > sigma) > 0.3`` is Gaussian and its range s is ``max|g|``; else it is an inverted T and
    ``s_t = (1 - k A) s_(t-1) + A max|g|_t``, k = 1, A = 0.8. The first range of each is ``max|g|``.
    """

    limits: Tensor

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.register_buffer("limits", torch.zeros(n_channels))

    def change(self, gradient: Tensor) -> Tensor:
        """Return the gradient (b c ...) on the grid of each channel."""
        axes = (0, *range(2, gradient.ndim))
        greatest = gradient.abs().amax(dim=axes)
        shape = (1, -1, *(1,) * (gradient.ndim - 2))
        sigma = gradient.std(dim=axes, correction=0).reshape(shape)
        is_gaussian = (gradient.abs() > sigma).to(gradient.dtype).mean(dim=axes) > GAUSSIAN_SHARE
        followed = torch.where(self.limits > 0, (1 - DA_RATE) * self.limits + DA_RATE * greatest, greatest)
        self.limits.copy_(torch.where(is_gaussian, greatest, followed))
        return to_grid(gradient, self.limits.to(gradient.dtype).reshape(shape), BITS)


class CosineGradient(GradientModule):
    """8 bits, clipped where the direction of the gradient changes least: ``d_c = 1 - cos(g, g_hat)`` is minimised.

    The range is searched among ``max|g| 2^(-j/2)``, j from 0 to 15. `rate` is what the learning rate of the layer is
    multiplied with: ``max(e^(-20 d_c), 0.1)``.
    """

    deviation: Tensor
    N_RANGES: ClassVar[int] = 16

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("deviation", torch.zeros(()))

    def change(self, gradient: Tensor) -> Tensor:
        """Return the gradient on the grid whose direction is nearest."""
        greatest = gradient.abs().max()
        best, best_deviation = gradient, math.inf
        for j in range(self.N_RANGES if greatest > 0 else 0):
            made = to_grid(gradient, greatest * 2.0 ** (-j / 2), BITS)
            deviation = float(cosine_deviation(gradient, made))
            if deviation < best_deviation:
                best, best_deviation = made, deviation
        self.deviation.fill_(best_deviation if math.isfinite(best_deviation) else 0.0)
        return best

    def rate(self) -> float:
        """Return the factor of the learning rate."""
        return max(math.exp(-20 * float(self.deviation)), 0.1)


def cosine_deviation(a: Tensor, b: Tensor) -> Tensor:
    """Return ``1 - cos(a, b)`` of all their numbers, 1 where one of them is 0 throughout."""
    wide_a, wide_b = a.double().flatten(), b.double().flatten()
    lengths = wide_a.norm() * wide_b.norm()
    return torch.where(lengths > 0, (1 - wide_a @ wide_b / lengths).clamp(min=0), 1.0)


class DeviationAdam(torch.optim.Adam):
    """Adam whose learning rate is scaled, layer by layer, by how far the quantized gradient points elsewhere."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        layers = [m for m in network.modules() if isinstance(m, GradientLayer)]
        scaled = [m for m in layers if isinstance(m.gradient, CosineGradient)]
        taken = {id(p) for layer in scaled for p in layer.product.parameters()}
        others = [p for p in network.parameters() if id(p) not in taken]
        groups: list[dict[str, Any]] = [{"params": list(layer.product.parameters())} for layer in scaled]
        super().__init__([*groups, {"params": others}] if others else groups, lr=learning_rate)
        self.gradients = [cast(CosineGradient, layer.gradient) for layer in scaled]

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step with scaled rates; the rates of the groups are left as they were."""
        rates = [group["lr"] for group in self.param_groups]
        for group, gradient in zip(self.param_groups, self.gradients, strict=False):
            group["lr"] = group["lr"] * gradient.rate()
        try:
            return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate


# --- methods --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Int8Method(Method):
    """Weights of 8 bits as planes of bits or trits; activations of 8 bits, symmetric or unsigned."""

    serial: str = "bit"
    unsigned: bool = False
    per_channel: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.serial not in ("bit", "trit"):
            raise ConfigError(f"{self.record.name}: serial must be bit or trit, got {self.serial!r}")

    def weights(self) -> WeightQuantizer:
        """Symmetric codes up to the greatest weight."""
        return MaxWeights(per_channel=self.per_channel, serial=self.serial)

    def grid(self) -> Grid:
        """Return a fresh grid for activations."""
        return RunningMaxGrid(unsigned=self.unsigned)

    def activation(self, n_channels: int) -> nn.Module:
        """A ReLU and a grid; unsigned codes are both."""
        return self.grid() if self.unsigned else nn.Sequential(nn.ReLU(), self.grid())

    def gradient(self, n_channels: int) -> GradientModule | None:
        """Return what changes the gradient of a layer's outputs, or None."""
        return None

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Quantize inputs and weights and, where the method does, the gradient of the outputs."""
        conv = self.conv(n_in, n_out, kernel, stride=stride, padding=padding)
        return self._layer(self.activation(n_in), conv, n_out)

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """Quantize inputs and weights and, where the method does, the gradient of the outputs."""
        return self._layer(self.activation(n_in), self.linear(n_in, n_out), n_out)

    def _layer(self, activation: nn.Module, product: nn.Module, n_out: int) -> nn.Module:
        gradient = self.gradient(n_out)
        return nn.Sequential(activation, product) if gradient is None else GradientLayer(activation, product, gradient)


@dataclass(frozen=True, kw_only=True)
class DAInt8(Int8Method):
    """Distribution Adaptive INT8 training: gradients of 8 bits, ranges chosen channel by channel.

    Forward the ranges are the greatest weight of the layer and the running mean of the greatest activation. Recalled:
    the weighting of errors by ``e^(a|g|)`` is what the paper derives the ranges from, so it is not worked out again.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="I1",
        name="da-int8",
        title="Distribution Adaptive INT8 Quantization for Training CNNs",
        paper="Zhao, Huang, Pan, Li, Zhang, Gu, Xu, AAAI 2021",
        weights="INT8: s / 127 {-127, ..., 127}",
        activations="INT8: s / 127 {0, ..., 127} behind a ReLU",
        granularity="L / L; gradients C",
        formula="q = R(127 clamp(x, s) / s); gradients: s = max|g| where P(|g| > sigma) > 0.3, else "
        "s_t = (1 - kA) s_(t-1) + A max|g|_t, k = 1, A = 0.8",
        planes="7 (6 trits) x 7, unsigned 8 (6 trits)",
        n_planes=(7, 7),
        role="training",
        act_scale="layer",
        basis="recalled",
    )

    def gradient(self, n_channels: int) -> GradientModule:
        """8 bits a channel."""
        return AdaptiveGradient(n_channels)


@dataclass(frozen=True, kw_only=True)
class Int8(Int8Method):
    """Integer quantization as NVIDIA does it: float training, then calibration; or fine-tuning on the grids.

    *calibration* is max, entropy, percentile (of *percentile* percent) or mse. By default `deploy` calibrates what was
    trained in float; with ``qat=true`` `initialise` does, ranges stay, and the training sees the grids. Which layers
    are better left in float (partial quantization) is for the user to say.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="I2",
        name="int8",
        title="Integer Quantization for Deep Learning Inference: Principles and Empirical Evaluation",
        paper="Wu, Judd, Zhang, Isaev, Micikevicius, 2020, arXiv:2004.09602",
        weights="INT8: amax_c / 127 {-127, ..., 127}",
        activations="INT8: amax / 127 {0, ..., 127} behind a ReLU",
        granularity="C / L",
        formula="x_q = clip(R(127 x / amax), -127, 127); weights: amax of each output channel; activations: amax by "
        "max, entropy (2048 bins), percentile or mse",
        planes="7 (6 trits) x 7, unsigned 8 (6 trits)",
        n_planes=(7, 7),
        act_scale="layer",
        basis="published",
    )
    of_network = ("calibration", "percentile", "qat")
    calibration: str = "entropy"
    percentile: float = 99.99
    qat: bool = False
    per_channel: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.calibration not in CALIBRATIONS:
            raise ConfigError(
                f"{self.record.name}: calibration must be one of {', '.join(CALIBRATIONS)}, got {self.calibration!r}"
            )
        if not 0 < self.percentile <= 100:
            raise ConfigError(f"{self.record.name}: percentile must be above 0 and at most 100, got {self.percentile}")

    def weights(self) -> WeightQuantizer:
        """Symmetric codes up to the greatest weight of each output channel."""
        return MaxWeights(per_channel=True, serial=self.serial, floats_in_training=not self.qat)

    def grid(self) -> Grid:
        """A grid whose range is found by calibration."""
        return CalibratedGrid(unsigned=self.unsigned, floats_in_training=not self.qat)

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Calibrate before the training sees the grids."""
        if self.qat:
            calibrate(network, images, self.calibration, self.percentile)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Calibrate what was trained in float."""
        if not self.qat:
            calibrate(network, images, self.calibration, self.percentile)


@dataclass(frozen=True, kw_only=True)
class UI8(Int8Method):
    """Unified INT8 training: gradients clipped so as to keep their direction; where they cannot, smaller steps.

    Recalled: the paper searches the range every so many steps and trains by stochastic gradient descent; here it is
    searched in each step, and Adam takes the scaled learning rates.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="I3",
        name="ui8",
        title="Towards Unified INT8 Training for Convolutional Neural Network",
        paper="Zhu, Gong, Yu, Liu, Wang, Li, Yang, Yan, CVPR 2020",
        weights="INT8: s / 127 {-127, ..., 127}",
        activations="INT8: s / 127 {0, ..., 127} behind a ReLU",
        granularity="L / L",
        formula="q = R(127 clamp(x, s) / s); gradients: s minimises d_c = 1 - cos(g, g_hat); learning rate times "
        "max(e^(-20 d_c), 0.1)",
        planes="7 (6 trits) x 7, unsigned 8 (6 trits)",
        n_planes=(7, 7),
        role="training",
        act_scale="layer",
        basis="recalled",
    )

    def gradient(self, n_channels: int) -> GradientModule:
        """8 bits a layer, clipped by cosine deviation."""
        return CosineGradient()

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """Adam with a learning rate for each layer."""
        return DeviationAdam(network, learning_rate)


METHODS: tuple[type[Method], ...] = (DAInt8, Int8, UI8)
