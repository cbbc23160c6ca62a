"""Binary networks with real shortcuts: Bi-Real, ReActNet, IR-Net, BBG, MeliusNet.

Formulas: quantizers.md section A.2 (A15, B2, B4, B5, B8). Each layer is one plane of -1 and +1 by one pass; between the
layers run real numbers, which the digital side adds. Each method's `block` is one 1-bit convolution of a plain network
with the shortcut of the paper around it (MeliusNet: a dense and an improvement block). There, a pool is a max pool
behind the convolution and an average pool in the shortcut, and where a convolution without padding trims the image,
there is no shortcut.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import ConfigError
from imcsim.graph import TERNARY, Threshold
from imcsim.quant.activation import SignActivation, above
from imcsim.quant.digital import DigitalConv2d
from imcsim.quant.layers import over_group
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import signs, surrogate, window
from imcsim.quant.weights import Coded, WeightQuantizer, as_float64
from imcsim.ternary import Codec, binary

# --- weights --------------------------------------------------------------------------------------------------------


class ScaledSignWeights(WeightQuantizer):
    """``alpha_c * sgn(w)``, ``alpha_c = mean |w|`` of an output channel; no gradient goes to alpha.

    The gradient of the number that a weight counts for passes to the latent weight where ``|w| <= 1``; where it is
    *is_magnitude_aware*, alpha_c times that. A weight of exactly 0, which the authors' ``torch.sign`` leaves 0, is +1.
    Source: the code of ReActNet (B2); Bi-Real Net (B8), for the magnitude-aware gradient.
    """

    def __init__(self, *, is_magnitude_aware: bool = False) -> None:
        super().__init__()
        self.is_magnitude_aware = is_magnitude_aware

    def forward(self, weight: Tensor) -> Coded:
        """Return signs, and scales (c 1 ...)."""
        scale = weight.detach().abs().mean(dim=over_group(weight, per_channel=True), keepdim=True)
        slope = window(weight)
        if not self.is_magnitude_aware:  # the layer multiplies the gradient of the codes by the scale
            slope = torch.where(scale > 0, slope / scale, slope)
        return Coded((surrogate(weight, signs(weight), slope),), (scale,))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class LibraWeights(WeightQuantizer):
    """``2^s_c * sgn(v)``, ``v = (w - mean_c) / std_c``, ``s_c = R(log2 mean |v|)``, halves to even, of a channel.

    *std_c* divides by n - 1. The derivative of the sign is that of `ede_slope`; the gradient goes on through v to the
    latent weights, and not to the scale. Where all weights of a channel are equal they count for 0.
    Source: IR-Net and the authors' ``ir_1w1a.py`` (B4).
    """

    def __init__(self) -> None:
        super().__init__()
        self.t = EDE_FIRST
        """Steepness of the derivative, which `IRNet.before_step` moves."""

    def forward(self, weight: Tensor) -> Coded:
        """Return signs, and powers of two (c 1 ...)."""
        axes = over_group(weight, per_channel=True)
        centred = weight - weight.mean(dim=axes, keepdim=True)
        deviation = centred.std(dim=axes, keepdim=True, correction=min(1, weight[0].numel() - 1))
        standard = centred / deviation.clamp(min=torch.finfo(weight.dtype).tiny)
        size = standard.detach().abs().mean(dim=axes, keepdim=True)
        codes = surrogate(standard, signs(standard), ede_slope(standard, self.t))
        return Coded((codes,), (torch.exp2(torch.round(torch.log2(size))),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class BalancedSignWeights(WeightQuantizer):
    """``alpha * sgn(v)``, ``v = w - mean(w)``, ``alpha = mean |v|``: about as many -1 as +1, of most entropy.

    One mean and alpha for a layer, or *per_channel* one for each output. The gradient of a code passes where
    ``|v| <= 1``, through v, undiminished by alpha. Source: Shen et al., ICASSP 2020 (B5); that alpha is the mean of
    |v|, not of |w|, and its gradient are recalled.
    """

    def __init__(self, *, per_channel: bool = False) -> None:
        super().__init__()
        self.per_channel = per_channel

    def forward(self, weight: Tensor) -> Coded:
        """Return signs, and the scale, () or (c 1 ...)."""
        axes = over_group(weight, self.per_channel)
        centred = weight - weight.mean(dim=axes, keepdim=True)
        scale = centred.detach().abs().mean(dim=axes, keepdim=True)
        slope = torch.where(scale > 0, window(centred) / scale, window(centred))
        codes = surrogate(centred, signs(centred), slope)
        return Coded((codes,), (scale if self.per_channel else scale.reshape(()),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class ClippedSignWeights(WeightQuantizer):
    """``sgn(w)`` without a scale, sgn(0) = +1; the gradient passes where ``|w| <= clip``. Source: MeliusNet (A15)."""

    def __init__(self, clip: float) -> None:
        super().__init__()
        self.clip = _checked_clip(clip)

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and 1."""
        return Coded((surrogate(weight, signs(weight), window(weight, self.clip)),), (weight.new_ones(()),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


# --- activations ----------------------------------------------------------------------------------------------------


def polynomial_slope(x: Tensor) -> Tensor:
    """Return ``2 - 2 |x|`` where ``|x| < 1`` and 0 elsewhere: Bi-Real Net's derivative of a sign."""
    return (2 - 2 * x.abs()).clamp(min=0)


EDE_FIRST, EDE_LAST = 0.1, 10.0
"""Steepness at the beginning and at the end of training: T_min and T_max of IR-Net's code."""


def ede_slope(x: Tensor, t: float) -> Tensor:
    """Return ``k t (1 - tanh^2(t x))`` with ``k = max(1 / t, 1)``: IR-Net's error decay estimator."""
    return max(1 / t, 1.0) * t * (1 - torch.tanh(t * x) ** 2)


class PolynomialSign(SignActivation):
    """A sign, of 0 at 0, with the derivative `polynomial_slope`. Source: Bi-Real Net, ECCV 2018."""

    def __init__(self) -> None:
        super().__init__(sign_zero=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sign of *x*."""
        return surrogate(x, self.codes(x), polynomial_slope(x))


class EdeSign(SignActivation):
    """A sign, of 0 at 0, with the derivative `ede_slope`. Source: IR-Net, CVPR 2020."""

    def __init__(self) -> None:
        super().__init__(sign_zero=0)
        self.t = EDE_FIRST
        """Steepness of the derivative, which `IRNet.before_step` moves."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sign of *x*."""
        return surrogate(x, self.codes(x), ede_slope(x, self.t))


class ClippedSign(SignActivation):
    """A sign with sgn(0) = +1; the gradient passes where ``|x| <= clip``. Source: MeliusNet, with a clip of 1.3."""

    def __init__(self, clip: float) -> None:
        super().__init__(sign_zero=1)
        self.clip = _checked_clip(clip)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sign of *x*."""
        return surrogate(x, self.codes(x), window(x, self.clip))


class RSign(nn.Module):
    """``sgn(x + b_c)``, 0 at 0, with a learned shift of each channel and the derivative `polynomial_slope`.

    Source: ReActNet; b is minus the paper's alpha, as in the authors' code.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the signs of (b c ...)."""
        shifted = x + _over(self.shift, x)
        return surrogate(shifted, torch.sign(shifted), polynomial_slope(shifted))

    def imc_quantizer(self) -> Threshold:
        """Return two close thresholds around ``-b`` for each channel; a sum is above 0 exactly where x is above -b."""
        at = -as_float64(self.shift)
        return Threshold(np.stack([at, np.array([above(t) for t in at])], axis=1), np.array([-1, 0, 1]), TERNARY)


class RPReLU(nn.Module):
    """``PReLU_c(x + b_c) + d_c``: a leaky ReLU with a learned slope, its knee moved for each channel.

    Source: ReActNet; the slopes begin at 0.25.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(n_channels, 1, 1))
        self.slope = nn.Parameter(torch.full((n_channels,), 0.25))
        self.behind = nn.Parameter(torch.zeros(n_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (b c h w) for (b c h w)."""
        return F.prelu(x + self.before, self.slope) + self.behind


# --- shortcuts ------------------------------------------------------------------------------------------------------


def keeps_size(kernel: int, padding: int) -> bool:
    """Whether a convolution gives an image as large as it took, but for its stride."""
    return 2 * padding == kernel - 1


class CopiedChannels(nn.Module):
    """A shortcut without weights: the average of windows of *factor* x *factor*, its channels again and again.

    Channel c of the output is channel ``c mod n_in`` of the input. Where channels double this is ReActNet's pair of
    convolutions, each with the same shortcut.
    """

    def __init__(self, n_in: int, n_out: int, factor: int = 1) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.pool = nn.AvgPool2d(factor) if factor > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (b n_out h/factor w/factor) for (b n_in h w)."""
        x = self.pool(x)
        n_whole, n_rest = divmod(self.n_out, self.n_in)
        parts = [x] * n_whole + ([x[:, :n_rest]] if n_rest else [])
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def projected(n_in: int, n_out: int, factor: int = 1) -> nn.Module:
    """Return Bi-Real's shortcut: nothing where the shape stays, else average pool, real 1x1 convolution, batch norm."""
    if n_in == n_out and factor == 1:
        return nn.Identity()
    pool: list[nn.Module] = [nn.AvgPool2d(factor)] if factor > 1 else []
    return nn.Sequential(*pool, DigitalConv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))


class ShortcutBlock(nn.Module):
    """``behind(norm(pool(layer(x))) + shortcut(x))``; without a shortcut, ``behind(norm(pool(layer(x))))``."""

    def __init__(
        self,
        layer: nn.Module,
        n_out: int,
        *,
        pool: int = 1,
        shortcut: nn.Module | None,
        behind: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.norm = nn.BatchNorm2d(n_out)
        self.shortcut = shortcut
        self.behind = behind or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (b c h' w') for (b c h w)."""
        y = self.norm(self.pool(self.layer(x)))
        return self.behind(y if self.shortcut is None else y + self.shortcut(x))


class GatedBlock(nn.Module):
    """``norm(pool(layer(x)) + g_c * shortcut(x))`` with a trained gate for each channel, which begins at 1.

    Source: BBG, ICASSP 2020; that the batch norm stands behind the sum is recalled.
    """

    def __init__(self, layer: nn.Module, n_out: int, *, pool: int = 1, shortcut: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.shortcut = shortcut
        self.gate = nn.Parameter(torch.ones(n_out, 1, 1))
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return (b c h' w') for (b c h w)."""
        return self.norm(self.pool(self.layer(x)) + self.shortcut(x) * self.gate)


class DenseBlock(nn.Module):
    """``concat(x, layer(norm(x)))``: MeliusNet's new channels behind those that there are."""

    def __init__(self, layer: nn.Module, n_in: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(n_in), layer

    def forward(self, x: Tensor) -> Tensor:
        """Return (b c+g h w) for (b c h w)."""
        return torch.cat([x, self.layer(self.norm(x))], dim=1)


class ImprovementBlock(nn.Module):
    """``layer(norm(x))`` added to the last *growth* channels of x, the others kept as they are."""

    def __init__(self, layer: nn.Module, n_in: int, growth: int) -> None:
        super().__init__()
        self.norm, self.layer, self.n_kept = nn.BatchNorm2d(n_in), layer, n_in - growth

    def forward(self, x: Tensor) -> Tensor:
        """Return (b c h w) for (b c h w)."""
        better = x[:, self.n_kept :] + self.layer(self.norm(x))
        return torch.cat([x[:, : self.n_kept], better], dim=1)


# --- methods --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BiReal(Method):
    """Bi-Real Net: a shortcut of real numbers around every 1-bit convolution, ``x + BN(alpha_c sgn(W) * sgn(x))``.

    Where the shape changes the shortcut is an average pool, a real 1x1 convolution and a batch norm. The derivative of
    the activations' sign is ``2 - 2 |x|``; that of the weights' is alpha_c where ``|w| <= 1`` (*magnitude_aware*).
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B8",
        name="bi-real",
        title="Bi-Real Net",
        paper="Liu, Wu, Luo, Yang, Liu, Cheng, ECCV 2018, arXiv:1808.00278",
        weights="{-a, +a}",
        activations="{-1, +1}, 0 at 0",
        granularity="C / -",
        formula="y = x + BN(a_c sgn(W) * sgn(x)), a_c = mean |w|; gradient of sgn(x): 2 - 2 |x|",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("real shortcut", "real 1x1 convolution where the shape changes"),
        sign_zero=0,
        basis="published",
    )
    magnitude_aware: bool = True

    def weights(self) -> WeightQuantizer:
        """Scaled signs."""
        return ScaledSignWeights(is_magnitude_aware=self.magnitude_aware)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with the polynomial derivative."""
        return PolynomialSign()

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return a 1-bit convolution with its norm and the shortcut around both."""
        return ShortcutBlock(
            self.conv_layer(n_in, n_out, kernel, stride=stride, padding=padding),
            n_out,
            pool=pool,
            shortcut=projected(n_in, n_out, stride * pool) if keeps_size(kernel, padding) else None,
        )


@dataclass(frozen=True, kw_only=True)
class ReActNet(Method):
    """ReActNet: ``RPReLU(x + BN(alpha_c sgn(W) * sgn(x + b_c)))``, learned shifts before each sign and each PReLU.

    Shortcuts have no weights: averages where the image shrinks, copied channels where channels grow. Trained to the
    outputs of a real network alone (the distributional loss); without a teacher, to the labels. The authors' first
    step, with real weights, is not taken.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B2",
        name="reactnet",
        title="ReActNet",
        paper="Liu, Shen, Savvides, Cheng, ECCV 2020, arXiv:2003.03488",
        weights="{-a, +a}",
        activations="{-1, +1}, 0 at 0, of x + b_c",
        granularity="C / -",
        formula="y = RPReLU(x + BN(a_c sgn(W) * sgn(x + b_c))), RPReLU(x) = PReLU_c(x + g_c) + z_c, a_c = mean |w|",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("real shortcut", "RPReLU", "thresholds of each channel on real numbers"),
        sign_zero=0,
        basis="published",
    )
    takes_teacher: ClassVar[bool] = True

    def weights(self) -> WeightQuantizer:
        """Scaled signs."""
        return ScaledSignWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs of shifted numbers."""
        return RSign(n_channels)

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return a 1-bit convolution with its norm, the shortcut around both, and an RPReLU behind."""
        return ShortcutBlock(
            self.conv_layer(n_in, n_out, kernel, stride=stride, padding=padding),
            n_out,
            pool=pool,
            shortcut=CopiedChannels(n_in, n_out, stride * pool) if keeps_size(kernel, padding) else None,
            behind=RPReLU(n_out),
        )

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """Return the divergence from the teacher's outputs."""
        if teacher is None:
            return super().loss(network, images, outputs, labels, teacher)
        with torch.no_grad():
            wanted = teacher(images)
        return F.kl_div(outputs, wanted, reduction="batchmean", log_target=True)


@dataclass(frozen=True, kw_only=True)
class IRNet(Method):
    """IR-Net: balanced and standardised weights (Libra), and a derivative that grows from a line to a step (EDE).

    ``t = t_min (t_max / t_min)^progress``, ``k = max(1 / t, 1)``, derivative ``k t (1 - tanh^2(t x))``. The block is
    that of the authors' ResNets, a hard tanh behind the sum of norm and *shortcut* (recalled); where the shape changes
    the shortcut is Bi-Real's: a graph cannot have that of their CIFAR code, every second pixel and channels of zeros.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B4",
        name="ir-net",
        title="Forward and Backward Information Retention for Accurate Binary Neural Networks",
        paper="Qin, Gong, Liu, Shen, Wei, Yu, Song, CVPR 2020, arXiv:1909.10788",
        weights="{-2^s, +2^s}",
        activations="{-1, +1}, 0 at 0",
        granularity="C (power of two) / -",
        formula="v = (w - mean_c) / std_c, W_b = 2^R(log2 mean |v|) sgn(v); gradient k t (1 - tanh^2(t x))",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("real shortcut",),
        sign_zero=0,
        basis="published",
    )
    of_network = ("t_min", "t_max")
    shortcut: bool = True
    t_min: float = EDE_FIRST
    t_max: float = EDE_LAST

    def __post_init__(self) -> None:
        if not 0 < self.t_min <= self.t_max < math.inf:
            raise ConfigError(
                f"ir-net: t_min and t_max must be finite and 0 < t_min <= t_max, got {self.t_min} and {self.t_max}"
            )

    def weights(self) -> WeightQuantizer:
        """Signs of standardised weights, times powers of two."""
        return LibraWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with the derivative that grows steeper."""
        return EdeSign()

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return a 1-bit convolution with its norm, the shortcut around both, and a hard tanh behind."""
        has_shortcut = self.shortcut and keeps_size(kernel, padding)
        return ShortcutBlock(
            self.conv_layer(n_in, n_out, kernel, stride=stride, padding=padding),
            n_out,
            pool=pool,
            shortcut=projected(n_in, n_out, stride * pool) if has_shortcut else None,
            behind=nn.Hardtanh(),
        )

    def steepness(self, progress: float) -> float:
        """Return t at *progress*, 0 to 1, of the training.

        >>> [round(IRNet().steepness(progress), 6) for progress in (0, 0.5, 1)]
        [0.1, 1.0, 10.0]
        """
        return float(self.t_min * (self.t_max / self.t_min) ** progress)

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Set the steepness of the derivatives."""
        for module in network.modules():
            if isinstance(module, LibraWeights | EdeSign):
                module.t = self.steepness(progress)


@dataclass(frozen=True, kw_only=True)
class BBG(Method):
    """BBG: weights with as many -1 as +1, and the real input added to each sum through a gate for each channel.

    ``y = BN(alpha sgn(W - mean W) * sgn(x) + g_c x)``; the form of the gate is recalled, and so are sgn(0) = +1, the
    gradient window ``|x| <= 1``, the norm behind the sum and the copied channels where the shape changes.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B5",
        name="bbg",
        title="Balanced Binary Neural Networks with Gated Residual",
        paper="Shen, Liu, Gong, Han, ICASSP 2020, arXiv:1909.12117",
        weights="{-a, +a}, balanced",
        activations="{-1, +1}, and a gated real branch",
        granularity="L / C gate",
        formula="W_b = a sgn(W - mean W); y = W_b * sgn(x) + g_c x",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("real gated shortcut",),
        sign_zero=1,
        basis="recalled",
    )
    per_channel: bool = False

    def weights(self) -> WeightQuantizer:
        """Balanced signs."""
        return BalancedSignWeights(per_channel=self.per_channel)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1."""
        return SignActivation(sign_zero=1)

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return a 1-bit convolution with the gated shortcut around it, and a norm."""
        layer = self.conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)
        if not keeps_size(kernel, padding):
            return ShortcutBlock(layer, n_out, pool=pool, shortcut=None)
        return GatedBlock(layer, n_out, pool=pool, shortcut=CopiedChannels(n_in, n_out, stride * pool))


@dataclass(frozen=True, kw_only=True)
class MeliusNet(Method):
    """MeliusNet: signs without scales; dense blocks bring new channels, improvement blocks add to the last of them.

    The block of a plain network is one of each with *growth* new channels (0: as many as the block gives), then the
    transition of the paper: batch norm, max pool, ReLU, real 1x1 convolution; and a norm, so that its numbers are about
    standard. A *stride* is part of the pool. Padding is -1, as in BMXNet v2, in which the authors trained.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A15",
        name="meliusnet",
        title="MeliusNet",
        paper="Bethge, Bartz, Yang, Chen, Meinel, WACV 2021, arXiv:2001.05936",
        weights="{-1, +1}",
        activations="{-1, +1}",
        granularity="- / -",
        formula="x = concat(x, sgn(W) * sgn(BN(x))), then x[last] += sgn(V) * sgn(BN(x)); gradient 1[|x| <= 1.3]",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("real concatenation", "sums of slices of channels", "real 1x1 convolution as transition"),
        sign_zero=1,
        pad=-1,
        basis="published",
    )
    clip: float = 1.3
    growth: int = 0

    def __post_init__(self) -> None:
        _checked_clip(self.clip)
        if self.growth < 0:
            raise ConfigError(f"meliusnet: growth must be at least 0, got {self.growth}; 0 takes the block's outputs")

    def weights(self) -> WeightQuantizer:
        """Signs."""
        return ClippedSignWeights(self.clip)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs."""
        return ClippedSign(self.clip)

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return a dense block, an improvement block and a transition.

        A convolution that trims the image can keep none of its channels: it stands alone, behind a norm.
        """
        if not keeps_size(kernel, padding):
            return nn.Sequential(
                nn.BatchNorm2d(n_in), super().block(n_in, n_out, kernel, stride=stride, padding=padding, pool=pool)
            )
        growth = self.growth or n_out
        n_wide = n_in + growth
        factor = stride * pool
        return nn.Sequential(
            DenseBlock(self.conv_layer(n_in, growth, kernel, padding=padding), n_in),
            ImprovementBlock(self.conv_layer(n_wide, growth, kernel, padding=padding), n_wide, growth),
            transition(n_wide, n_out, factor),
            nn.BatchNorm2d(n_out),
        )


def transition(n_in: int, n_out: int, factor: int = 2) -> nn.Module:
    """Return MeliusNet's way to fewer channels and pixels: norm, max pool, ReLU, real 1x1 convolution."""
    pool: list[nn.Module] = [nn.MaxPool2d(factor)] if factor > 1 else []
    return nn.Sequential(nn.BatchNorm2d(n_in), *pool, nn.ReLU(), DigitalConv2d(n_in, n_out, 1, bias=False))


def _over(values: Tensor, x: Tensor) -> Tensor:
    """Return *values* (c) so that they meet the channels of *x* (b c ...)."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def _checked_clip(value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigError(f"meliusnet: clip must be finite and above 0, got {value}; the paper takes 1.3")
    return float(value)


METHODS: tuple[type[Method], ...] = (MeliusNet, ReActNet, IRNet, BBG, BiReal)
