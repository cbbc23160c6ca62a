"""Ternary weights, and ternary weights with ternary activations (list T of the project's papers, and A4, A5, B1).

Formulas: quantizers.md section A.2. Levels are {-1, 0, +1} times scales, so each layer is one plane by one pass.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import TERNARY, Format, Threshold, unsigned
from imcsim.quant.activation import SignActivation, TernaryActivation, UnsignedActivation, as_float32, threshold_step
from imcsim.quant.layers import QuantizedConv2d, over_group, weights_and_quantizers
from imcsim.quant.learned import LEAST, LearnedScales, keep_positive
from imcsim.quant.limits import FIRING_HALVES, HALVES, Limits
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.methods.binary import clip_latent_weights
from imcsim.quant.methods.gxnor import GXNOR
from imcsim.quant.methods.tnn import TNN
from imcsim.quant.methods.xnor import ScaledSigns
from imcsim.quant.search import best_ternary
from imcsim.quant.straight import signs, straight_to_weights, surrogate, window
from imcsim.quant.ternary import TernaryWeights, ternarize
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, binary, ternary

TINY = 1e-16
"""Added to variances of weights, so that weights that are all alike have gradients."""

# --- A4 -------------------------------------------------------------------------------------------------------------


class EednWeights(WeightQuantizer):
    """-1, 0, +1 by the thresholds ``-+1/2`` of hidden weights in [-1, 1], with hysteresis while they are trained.

    A code changes only when the hidden weight is *hysteresis* beyond its threshold, and stays what it was between:
    ``+1 from 1/2 + h up, 0 from -1/2 + h up to 1/2 - h, -1 down from -1/2 - h``. What stays is part of the state, so
    that what was trained is what is deployed. The gradient goes to the hidden weights, all of it.
    Source: Esser et al., PNAS 2016 (recalled; h = 0.1 there).
    """

    held: Tensor

    def __init__(self, hysteresis: float = 0.1) -> None:
        super().__init__()
        if not 0 <= hysteresis < 0.5:
            raise ConfigError(f"eedn: hysteresis must be from 0 to below 0.5, got {hysteresis}; the paper takes 0.1")
        self.hysteresis = hysteresis
        self.register_buffer("held", torch.empty(0))

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1} of scale 1; a step of the hysteresis is taken in training mode."""
        wide = weight.detach()
        codes = FIRING_HALVES.codes(wide)
        if self.held.shape == wide.shape:
            h = self.hysteresis
            is_clear = (wide.abs() >= 0.5 + h) | (wide.abs() <= 0.5 - h)
            codes = torch.where(is_clear, codes, self.held.to(codes.dtype))
        if self.training:
            self.held = codes
        return Coded((surrogate(weight, codes),), (weight.new_tensor(1.0),))

    def codec(self) -> Codec:
        """One plane."""
        return ternary()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if f"{prefix}held" in state_dict:
            self.held = torch.empty_like(state_dict[f"{prefix}held"])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class SpikeActivation(nn.Module):
    """A neuron that fires or not: ``1[x >= 0]``, with the derivative ``max(0, 1 - |x|)``.

    Source: Esser et al., PNAS 2016.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return 0 or 1 for each number of *x*."""
        return surrogate(x, (x >= 0).to(x.dtype), (1 - x.abs()).clamp(min=0))

    def imc_quantizer(self) -> Threshold:
        """Return one threshold at 0, for unsigned codes of 1 bit."""
        return threshold_step([0.0], [0, 1], unsigned(1))


@dataclass(frozen=True, kw_only=True)
class Eedn(Method):
    """Eedn: ternary weights with hysteresis, neurons that fire or not, groups that fit a crossbar.

    With *most_inputs* (128 for TrueNorth, whose 256 rows take each input twice) convolutions are split into the
    fewest groups of channels whose filters have no more inputs. How the hidden weights begin is ours: those that are
    there, stretched over [-1, 1]. Source: see the record; A4.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A4",
        name="eedn",
        title="Convolutional networks for fast, energy-efficient neuromorphic computing",
        paper="Esser et al., PNAS 2016, arXiv:1603.08270",
        weights="{-1, 0, +1}",
        activations="{0, 1}",
        granularity="- / -",
        formula="w = round(w_h) by thresholds -+1/2 with hysteresis; y = 1[r >= 0], dy/dr = max(0, 1 - |r|)",
        planes="1 x 1",
        n_planes=(1, 1),
        sign_zero=1,
        basis="recalled",
    )
    hysteresis: float = 0.1
    most_inputs: int = 0

    def __post_init__(self) -> None:
        if self.most_inputs < 0:
            raise ConfigError(f"eedn: most_inputs must be at least 0, got {self.most_inputs}; 0 is no limit")

    def weights(self) -> WeightQuantizer:
        """Thresholds at a half, with hysteresis."""
        return EednWeights(self.hysteresis)

    def activation(self, n_channels: int) -> nn.Module:
        """Fire from 0 up."""
        return SpikeActivation()

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """A convolution of as few groups as `most_inputs` asks for."""
        groups = 1
        if self.most_inputs:
            common = math.gcd(n_in, n_out)
            fits = [g for g in range(1, common + 1) if common % g == 0 and kernel**2 * n_in // g <= self.most_inputs]
            if not fits:
                raise ConfigError(
                    f"eedn: most_inputs must allow some groups of {n_in} to {n_out} channels, got {self.most_inputs} "
                    f"for a window of {kernel} x {kernel}; take more inputs or numbers of channels with a common factor"
                )
            groups = fits[0]
        return QuantizedConv2d(
            n_in,
            n_out,
            kernel,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=False,
            weight_quantizer=self.weights(),
        )

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Stretch the hidden weights of each layer so that the thresholds lie at 0.7 of their mean magnitude."""
        with torch.no_grad():
            for weight, _ in weights_and_quantizers(network, EednWeights):
                size = weight.abs().mean().clamp(min=TINY)
                weight.mul_(0.5 / (0.7 * size)).clamp_(-1, 1)

    def after_step(self, network: nn.Module) -> None:
        """Clip the hidden weights to [-1, 1]."""
        clip_latent_weights(network, EednWeights)


# --- A5 -------------------------------------------------------------------------------------------------------------


class CaffeTernaryWeights(TernaryWeights):
    """TWN as its authors' Caffe code has it: ``a = <T, w> / (<T, T> + epsilon)``; else as `TernaryWeights`."""

    def __init__(self, epsilon: float, *, per_channel: bool = False) -> None:
        super().__init__(per_channel=per_channel)
        if not 0 < epsilon < 1:
            raise ConfigError(f"twn: epsilon must be above 0 and below 1, got {epsilon}; the authors' code takes 1e-6")
        self.epsilon = epsilon

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1} and the scale."""
        codes, scale = ternarize(weight, per_channel=self.per_channel)
        count = codes.double().square().sum(dim=over_group(weight, self.per_channel), keepdim=True)
        shrink = (count / (count + self.epsilon)).reshape(scale.shape)
        return straight_to_weights(weight, codes, (scale.double() * shrink).to(weight.dtype))


class BestTernaryWeights(WeightQuantizer):
    """The ternary weights with the least squared error, in place of TWN's threshold at 0.7 of the mean.

    ``a = mean |w| kept``, with those kept that make ``(sum |w|)^2 / count`` greatest. Straight-through gradient.
    Source: Li et al., 2016, the exact solution that the threshold approximates.
    """

    def __init__(self, *, per_channel: bool = False) -> None:
        super().__init__()
        self.per_channel = per_channel

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1} and the scale, () or (c 1 ...)."""
        rows = weight.detach().reshape(weight.shape[0] if self.per_channel else 1, -1)
        codes, scale = best_ternary(rows)
        shape = (-1, *(1,) * (weight.ndim - 1)) if self.per_channel else ()
        return straight_to_weights(
            weight, codes.reshape(weight.shape).to(weight.dtype), scale.reshape(shape).to(weight.dtype)
        )

    def codec(self) -> Codec:
        """One plane."""
        return ternary()


@dataclass(frozen=True, kw_only=True)
class TWN(Method):
    """Ternary Weight Networks: ``delta = 0.7 mean|w|``, ``T = 1[w > delta] - 1[w < -delta]``, ``a = mean |w| kept``.

    The weights alone are quantized; activations are even grids of *bits_a* bits. An *epsilon* of 1e-6 is added to the
    count of kept weights as in the authors' Caffe code; *optimum* takes the threshold with the least squared error in
    place of 0.7. Source: see the record; A5.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A5",
        name="twn",
        title="Ternary Weight Networks",
        paper="Li, Zhang, Liu, 2016, arXiv:1605.04711",
        weights="{-a, 0, +a}",
        activations="none; unsigned k-bit attached",
        granularity="L (code) or C / L",
        formula="delta = 0.7 mean|w|; T = 1[w > delta] - 1[w < -delta]; a = <T, w> / <T, T>",
        planes="1 x (activation quantizer)",
        n_planes=(1, 8),
        exact="exact with the attached activation quantizer; the paper's activations are real",
        act_scale="layer",
        basis="published",
    )
    bits_a: int = 8
    per_channel: bool = False
    epsilon: float = 0.0
    optimum: bool = False

    def __post_init__(self) -> None:
        if self.optimum and self.epsilon:
            raise ConfigError(f"twn: epsilon must be 0 with optimum, got {self.epsilon}; it is of the other threshold")

    def weights(self) -> WeightQuantizer:
        """Threshold at 0.7 of the mean magnitude, or the best one."""
        if self.optimum:
            return BestTernaryWeights(per_channel=self.per_channel)
        if self.epsilon:
            return CaffeTernaryWeights(self.epsilon, per_channel=self.per_channel)
        return TernaryWeights(per_channel=self.per_channel)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, where a batch norm leaves few numbers."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))


# --- B1 -------------------------------------------------------------------------------------------------------------


class AdaptiveWeights(WeightQuantizer):
    """Binary or ternary weights, as the shape of the layer's regulariser says.

    ``beta`` above ``3 pi / 8``, the middle of its range, makes them binary, ``mean|w| sgn(w)``; else they are ternary
    as TWN has them. `fix` holds the choice. The gradient goes straight through to the latent weights. How the paper
    chooses while it trains is not known for sure; the middle is ours.
    """

    RANGE = (math.pi / 4, math.pi / 2)
    beta: nn.Parameter
    choice: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(3 * math.pi / 8))
        self.register_buffer("choice", torch.zeros((), dtype=torch.int64))

    @property
    def is_binary(self) -> bool:
        """Whether the weights are -a and +a alone."""
        return int(self.choice) == 1 or (int(self.choice) == 0 and float(self.beta.detach()) > sum(self.RANGE) / 2)

    def fix(self) -> None:
        """Hold what the weights are now, whatever becomes of beta."""
        self.choice.fill_(1 if self.is_binary else 2)

    def forward(self, weight: Tensor) -> Coded:
        """Return signs or ternary codes, and one scale."""
        if self.is_binary:
            scale = weight.detach().double().abs().mean().to(weight.dtype)
            return straight_to_weights(weight, signs(weight.detach()), scale)
        return straight_to_weights(weight, *ternarize(weight))

    def codec(self) -> Codec:
        """One plane of -1 and +1, or with 0 too."""
        return binary() if self.is_binary else ternary()

    def regulariser(self, weight: Tensor) -> Tensor:
        """Return the mean of ``min(||w| - mu|, tan(beta) |w|)``, mu being the scale of the weights as they are now.

        Its minima are at -+mu, and at 0, which attracts from the farther the flatter it is: for beta = pi/4 the levels
        0 and mu part half way, for beta to pi/2 there is no pull to 0.
        """
        with torch.no_grad():
            mu = self(weight).scales[0]
        sizes = weight.abs()
        return torch.minimum((sizes - mu).abs(), torch.tan(self.beta) * sizes).mean()


@dataclass(frozen=True, kw_only=True)
class ABTQ(Method):
    """Adaptive Binary-Ternary Quantization: a regulariser that each layer bends to two levels or to three.

    The loss has ``strength * sum_l R_l + preference * sum_l cot(beta_l)``, with `AdaptiveWeights.regulariser` as R and
    beta trained within (pi/4, pi/2); the cotangent prefers two levels. `deploy` fixes each layer to BWN or TWN.
    The form of R and of the penalty is recalled, mu as the scale of the present levels and the default strengths are
    ours. Source: see the record; B1.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B1",
        name="abtq",
        title="Adaptive Binary-Ternary Quantization (Smart Quantization)",
        paper="Razani et al., CVPR Workshops 2021, arXiv:1909.12205",
        weights="per layer {-a, +a} or {-a, 0, +a}",
        activations="none; unsigned k-bit attached",
        granularity="L / L",
        formula="R(w) = min(||w| - mu|, tan(beta) |w|), beta in (pi/4, pi/2) trained, + cot(beta); then BWN or TWN",
        planes="1 x (activation quantizer)",
        n_planes=(1, 8),
        exact="exact with the attached activation quantizer; the paper's activations are real",
        act_scale="layer",
        basis="recalled",
    )
    of_network = ("strength", "preference")
    bits_a: int = 8
    strength: float = 0.1
    preference: float = 0.01

    def weights(self) -> WeightQuantizer:
        """Binary or ternary, as trained."""
        return AdaptiveWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """Return the loss with the regulariser of each layer and the penalty on its beta."""
        total = super().loss(network, images, outputs, labels, teacher)
        for weight, shape in weights_and_quantizers(network, AdaptiveWeights):
            total = total + self.strength * shape.regulariser(weight) + self.preference / torch.tan(shape.beta)
        return total

    def after_step(self, network: nn.Module) -> None:
        """Keep beta within its range; at its upper end the tangent would be infinite."""
        low, high = AdaptiveWeights.RANGE
        with torch.no_grad():
            for _, shape in weights_and_quantizers(network, AdaptiveWeights):
                shape.beta.clamp_(low + LEAST, high - LEAST)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Fix each layer to two or three levels."""
        for _, shape in weights_and_quantizers(network, AdaptiveWeights):
            shape.fix()


# --- T1 -------------------------------------------------------------------------------------------------------------


class ResidualTernaryWeights(LearnedScales):
    """Ternary weights as a stem and its residual, with learned alphas; several of them in turn for more bits.

    ``S = alpha sgn(w)``, ``R = alpha sgn(w - S)``, ``T = S + R`` in {-2 alpha, 0, 2 alpha}; base i does the same with
    what the bases before it left. Alpha gets the gradient of ``alpha (sgn(w) + sgn(w - S))`` with the signs held, the
    latent weights that of T where ``|w| <= 1``. Alphas begin with 0.7 of the mean of what their base gets.
    Source: Li et al., "TRQ", AAAI 2021; how the paper passes gradients through the threshold is not known for sure.
    """

    def __init__(self, n_bases: int = 1) -> None:
        if not 1 <= n_bases <= 8:
            raise ConfigError(f"trq: n_bases must be from 1 to 8, got {n_bases}")
        super().__init__(n_bases)

    def start(self, weight: Tensor) -> Tensor:
        """0.7 of the mean magnitude of what each base gets."""
        alphas, rest = [], weight
        for _ in range(len(self.alpha)):
            alphas.append(0.7 * rest.abs().mean())
            rest = rest - 2 * alphas[-1] * self._codes(rest, alphas[-1])
        return torch.stack(alphas)

    def forward(self, weight: Tensor) -> Coded:
        """Return the codes and the scale ``2 alpha`` of each base."""
        self.make_ready(weight)
        rest, codes = weight.detach(), []
        for alpha in self.alpha.detach():
            codes.append(self._codes(rest, alpha))
            rest = rest - 2 * alpha * codes[-1]
        scales = tuple(2 * alpha for alpha in self.alpha)
        slope = window(weight.detach()) / scales[0].detach()  # the sum of all bases has the slope of one
        first = surrogate(weight, codes[0], slope)
        return Coded((first, *codes[1:]), scales)

    def codec(self) -> Codec:
        """One plane for each base."""
        return ternary()

    @staticmethod
    def _codes(rest: Tensor, alpha: Tensor) -> Tensor:
        stem = signs(rest)
        return (stem + signs(rest - alpha * stem)) / 2


@dataclass(frozen=True, kw_only=True)
class TRQ(Method):
    """Ternary Residual Quantization: ternary weights by a stem and its residual, learned alpha per layer.

    Activations are those of a host: *activations* is ternary (threshold 0.5) or binary. *n_bases* is how often the
    recursion is done. Source: see the record; T1.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T1",
        name="trq",
        title="TRQ: Ternary Neural Networks With Residual Quantization",
        paper="Li, Ding, Liu, Zhang, Guo, AAAI 2021",
        weights="{-2a, 0, +2a}, or a sum of several",
        activations="host: {-1, 0, +1} or {-1, +1}",
        granularity="L / -",
        formula="S = a sgn(w); R = a sgn(w - S); T = S + R; a learned; multi-bit by recursion on w - T",
        planes="r x 1",
        n_planes=(1, 1),
        sign_zero=1,
        basis="recalled",
    )
    n_bases: int = 1
    activations: str = "ternary"

    def __post_init__(self) -> None:
        if self.activations not in ("ternary", "binary"):
            raise ConfigError(f"trq: activations must be ternary or binary, got {self.activations!r}")
        if not 1 <= self.n_bases <= 8:
            raise ConfigError(f"trq: n_bases must be from 1 to 8, got {self.n_bases}")

    def weights(self) -> WeightQuantizer:
        """Stem and residual with learned scales."""
        return ResidualTernaryWeights(self.n_bases)

    def activation(self, n_channels: int) -> nn.Module:
        """The host's."""
        return TernaryActivation(0.5) if self.activations == "ternary" else SignActivation(sign_zero=1)

    def after_step(self, network: nn.Module) -> None:
        """Keep the alphas above 0; latent weights need no clipping beyond the window."""
        keep_positive(network, (ResidualTernaryWeights,), "alpha", least=LEAST**2)


# --- T2 -------------------------------------------------------------------------------------------------------------


def full_range(alphas: Tensor) -> Limits:
    """Return where FATNN's codes -1, 0 and 1 part, for its two slopes."""
    first, second = alphas.detach().tolist()
    return Limits(as_float32(-0.5 / first), as_float32(0.5 / second))


def half_range(alphas: Tensor) -> Limits:
    """Return where FATNN's codes 0, 1 and 2 part, for its two slopes."""
    first, second = alphas.detach().tolist()
    return Limits(as_float32(0.5 / first), as_float32(1 / first + 0.5 / second), low_fires=True)


class FatnnWeights(LearnedScales):
    """Ternary weights by two learned slopes: ``Q(w) = R(clip(a0 w, -1, 0)) + R(clip(a1 w, 0, 1))``.

    Thresholds are ``-1/(2 a0)`` and ``+1/(2 a1)``; R passes gradients straight. With *standardise* w is
    ``(w - mean) / std`` of its output. *gamma* is the scale of the codes: ``none`` (1), ``learned`` (one a layer) or
    ``closed``, ``<Q, w> / <Q, Q>`` with w as it is quantized. The slopes begin with thresholds at 0.7 of the mean.
    Source: Chen et al., "FATNN", ICCV 2021, and the authors' QTool; that means and deviations are per output is ours.
    """

    gamma: nn.Parameter | None

    def __init__(self, *, standardise: bool = True, gamma: str = "none", per_channel: bool = False) -> None:
        super().__init__(2)
        self.standardise, self.kind, self.per_channel = standardise, checked_gamma(gamma), per_channel
        self.gamma = nn.Parameter(torch.ones(())) if gamma == "learned" else None

    def seen(self, weight: Tensor) -> Tensor:
        """Return the weights that are quantized, with gradients."""
        if not self.standardise:
            return weight
        axes = tuple(range(1, weight.ndim))
        centred = weight - weight.mean(dim=axes, keepdim=True)
        return centred / (centred.square().mean(dim=axes, keepdim=True) + TINY).sqrt()

    def start(self, weight: Tensor) -> Tensor:
        """Slopes that put both thresholds at 0.7 of the mean magnitude."""
        return (0.5 / (0.7 * self.seen(weight).abs().mean()).clamp(min=LEAST)).expand(2)

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1} and the scale."""
        self.make_ready(weight)
        seen = self.seen(weight)
        codes = full_range(self.alpha).codes(seen)
        soft = (self.alpha[0] * seen).clamp(-1, 0) + (self.alpha[1] * seen).clamp(0, 1)
        scale = weight.new_ones(())
        if self.gamma is not None:
            scale = self.gamma
        elif self.kind == "closed":
            axes = over_group(weight, self.per_channel)
            kept = codes.abs().sum(dim=axes, keepdim=True).clamp(min=1)
            scale = (codes * seen.detach()).sum(dim=axes, keepdim=True) / kept
            scale = scale if self.per_channel else scale.reshape(())
        return Coded((surrogate(soft, codes),), (scale,))

    def codec(self) -> Codec:
        """One plane."""
        return ternary()


class FatnnActivation(nn.Module):
    """Ternary activations by two learned slopes, in {-1, 0, 1} or, behind a ReLU, in {0, 1, 2}.

    Full range: ``R(clip(a0 x, -1, 0)) + R(clip(a1 x, 0, 1))``. Half range:
    ``R(clip(a0 x, 0, 1)) + R(clip(a1 (x - 1/a0), 0, 1))``, which goes to the tiles as ternary codes whose zero is -1.
    R rounds halves to even and passes gradients straight, to the slopes too. Source: see `FatnnWeights`.
    """

    def __init__(self, *, half_range: bool = False) -> None:
        super().__init__()
        self.half_range = half_range
        self.alpha = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return -1, 0 or 1, or 0, 1 or 2, for each number of *x*."""
        codes = self.limits().codes(x)
        if self.half_range:
            soft = (self.alpha[0] * x).clamp(0, 1) + (self.alpha[1] * (x - 1 / self.alpha[0])).clamp(0, 1)
            return surrogate(soft, codes + 1)
        return surrogate((self.alpha[0] * x).clamp(-1, 0) + (self.alpha[1] * x).clamp(0, 1), codes)

    def imc_quantizer(self) -> Threshold:
        """Return the two thresholds; the codes 0, 1, 2 are -1, 0, 1 counted from -1."""
        form = Format("ternary", 2, zero=-1.0) if self.half_range else TERNARY
        return self.limits().step(form)

    def limits(self) -> Limits:
        """Return where the codes part."""
        return half_range(self.alpha) if self.half_range else full_range(self.alpha)

    def extra_repr(self) -> str:
        """Return the range."""
        return f"half_range={self.half_range}"


def checked_gamma(gamma: str) -> str:
    """Return *gamma*; raises ConfigError for a word that is none."""
    if gamma not in ("none", "learned", "closed"):
        raise ConfigError(f"fatnn: gamma must be none, learned or closed, got {gamma!r}")
    return gamma


@dataclass(frozen=True, kw_only=True)
class FATNN(Method):
    """Fast and Accurate Ternary Neural Networks: learned thresholds on both sides, no scale of outputs unless asked.

    Source: see the record; T2. Slopes are per layer.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T2",
        name="fatnn",
        title="FATNN: Fast and Accurate Ternary Neural Networks",
        paper="Chen, Zhuang, Shen, ICCV 2021, arXiv:2008.05101",
        weights="{-1, 0, +1}",
        activations="{-1, 0, +1} or {0, 1, 2}",
        granularity="C or L / L",
        formula="Q(x) = R(clip(a0 x, -1, 0)) + R(clip(a1 x, 0, 1)); half range R(clip(a0 x, 0, 1)) + R(clip(a1 (x - "
        "1/a0), 0, 1))",
        planes="1 x 1",
        n_planes=(1, 1),
        basis="published",
    )
    half_range: bool = False
    standardise: bool = True
    gamma: str = "none"
    per_channel: bool = False

    def __post_init__(self) -> None:
        checked_gamma(self.gamma)
        if self.per_channel and self.gamma != "closed":
            raise ConfigError(f"fatnn: per_channel must come with gamma=closed, got gamma={self.gamma}")

    def weights(self) -> WeightQuantizer:
        """Two learned slopes."""
        return FatnnWeights(standardise=self.standardise, gamma=self.gamma, per_channel=self.per_channel)

    def activation(self, n_channels: int) -> nn.Module:
        """Two learned slopes."""
        return FatnnActivation(half_range=self.half_range)

    def after_step(self, network: nn.Module) -> None:
        """Keep the slopes above 0, so that thresholds stay in order."""
        keep_positive(network, (FatnnWeights, FatnnActivation), "alpha")


# --- T3 -------------------------------------------------------------------------------------------------------------


class ReparameterizedWeights(WeightQuantizer):
    """``gamma T(w) + beta`` with ``T = R(clip(w', -1, 1))``, gamma and beta learned, one of each a layer.

    ``w' = (w - mean) / std`` of the layer, so that the clip and the thresholds at -+1/2 fit; the paper's own normaliser
    is not known for sure. The gradient of T is 1 where ``|w'| <= 1``. Gamma begins with ``<T, w> / <T, T>``, beta with
    the mean of the weights. Source: Li et al., "RTN", AAAI 2020.
    """

    gamma: nn.Parameter
    beta: nn.Parameter
    is_ready: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("is_ready", torch.zeros((), dtype=torch.bool))

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1}, the scale gamma and the offset beta."""
        centred = weight - weight.mean()
        seen = centred / (centred.square().mean() + TINY).sqrt()
        codes = HALVES.codes(seen)
        if not bool(self.is_ready):
            with torch.no_grad():
                kept = codes.abs().sum().clamp(min=1)
                self.gamma.copy_(((codes * centred).sum() / kept).clamp(min=LEAST**2))
                self.beta.copy_(weight.mean())
                self.is_ready.fill_(True)
        return Coded((surrogate(seen, codes, window(seen.detach())),), (self.gamma,), offset=self.beta)

    def codec(self) -> Codec:
        """One plane; the offset is a column of ones."""
        return ternary()


class ReparameterizedActivation(nn.Module):
    """``gamma T(x) + beta`` with ``T = R(clip(x, -1, 1))``, gamma and beta learned.

    T is 0 from -1/2 to 1/2; its gradient is 1 where ``|x| <= 1``. Source: Li et al., "RTN", AAAI 2020.
    """

    gamma: nn.Parameter
    beta: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``beta - gamma``, beta or ``beta + gamma`` for each number of *x*."""
        codes = surrogate(x, HALVES.codes(x), window(x.detach()))
        return self.gamma * codes + self.beta

    def imc_quantizer(self) -> Threshold:
        """Return the thresholds, for ternary codes whose zero is ``-beta / gamma``."""
        gamma, beta = float(self.gamma.detach()), float(self.beta.detach())
        return HALVES.step(Format("ternary", 2, gamma, zero=-beta / gamma))


@dataclass(frozen=True, kw_only=True)
class RTN(Method):
    """Reparameterized Ternary Network: ternary codes with a learned scale and offset, of weights and of activations.

    A product has four terms: that of the codes, the sum of the input's codes (a column of ones on the tile), and two
    that are known before. Padding brings in the number 0, as in PyTorch, which is no code here: its share is corrected
    at the borders. Source: see the record; T3.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T3",
        name="rtn",
        title="RTN: Reparameterized Ternary Network",
        paper="Li, Dong, Zhang, Bai, Chen, Wang, AAAI 2020, arXiv:1912.02057",
        weights="gamma_w {-1, 0, +1} + beta_w",
        activations="gamma_a {-1, 0, +1} + beta_a",
        granularity="L / L",
        formula="gamma R(clip(x, -1, 1)) + beta for both; four terms of a product",
        planes="1 x 1, and a column of ones",
        n_planes=(1, 1),
        needs=("a column of ones for the sum of the inputs", "corrections at padded borders"),
        act_scale="layer",
        basis="recalled",
    )

    def weights(self) -> WeightQuantizer:
        """Ternary with scale and offset."""
        return ReparameterizedWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Ternary with scale and offset."""
        return ReparameterizedActivation()

    def after_step(self, network: nn.Module) -> None:
        """Keep the scales above 0."""
        keep_positive(network, (ReparameterizedActivation,), "gamma")
        keep_positive(network, (ReparameterizedWeights,), "gamma", least=LEAST**2)


# --- T5 -------------------------------------------------------------------------------------------------------------


class RunningTernaryActivation(nn.Module):
    """+1 from ``delta E|x|`` up, -1 from ``-delta E|x|`` down, else 0, the mean running over batches.

    In training mode a batch uses its own mean and moves the running one towards it by *momentum*; inference uses the
    running one. With *scaled* the codes count for twice the threshold. The gradient passes where ``|x| <= 1``.
    Source: Wan et al., "TBN", ECCV 2018, and the authors' code (delta 0.5; which mean a batch itself uses, and the
    momentum, are ours).
    """

    mean: Tensor
    n_batches: Tensor

    def __init__(self, delta: float = 0.5, *, momentum: float = 0.1, scaled: bool = False) -> None:
        super().__init__()
        if not delta > 0:
            raise ConfigError(f"tbn: delta must be above 0, got {delta}; the authors' code takes 0.5, the paper 0.4")
        if not 0 < momentum <= 1:
            raise ConfigError(f"tbn: momentum must be above 0 and up to 1, got {momentum}")
        self.delta, self.momentum, self.scaled = delta, momentum, scaled
        self.register_buffer("mean", torch.ones(()))
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.int64))

    def threshold(self, mean: Tensor | None = None) -> float:
        """Return ``delta * mean``, of the running mean by default, exact in float32 and above 0."""
        value = as_float32(self.delta * float(self.mean if mean is None else mean))
        return max(value, float(np.finfo(np.float32).tiny))

    def forward(self, x: Tensor) -> Tensor:
        """Return codes, or twice the threshold times them, for each number of *x*."""
        limit = self.threshold()
        if self.training:
            mean = x.detach().abs().mean()
            limit = self.threshold(mean)
            with torch.no_grad():
                self.mean.lerp_(mean.to(self.mean.dtype), self.momentum if int(self.n_batches) else 1.0)
                self.n_batches += 1
        codes = Limits(-limit, limit, low_fires=True, high_fires=True).codes(x)
        return surrogate(x, codes * (2 * limit) if self.scaled else codes, window(x.detach()))

    def imc_quantizer(self) -> Threshold:
        """Return the two thresholds of the running mean."""
        limit = self.threshold()
        form = Format("ternary", 2, 2 * limit) if self.scaled else TERNARY
        return Limits(-limit, limit, low_fires=True, high_fires=True).step(form)

    def extra_repr(self) -> str:
        """Return share and scale."""
        return f"delta={self.delta:g}, scaled={self.scaled}"


@dataclass(frozen=True, kw_only=True)
class TBN(Method):
    """Ternary-Binary Network: binary weights with a scale per output, ternary activations.

    *v2* multiplies the activations by twice their threshold. Source: see the record; T5.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T5",
        name="tbn",
        title="TBN: Convolutional Neural Network with Ternary Inputs and Binary Weights",
        paper="Wan et al., ECCV 2018",
        weights="{-a, +a}",
        activations="{-1, 0, +1}; v2: times 2 delta",
        granularity="C / L",
        formula="W = mean_c|w| sgn(w); T = 1[x >= D] - 1[x <= -D], D = delta E|x| running",
        planes="1 x 1",
        n_planes=(1, 1),
        sign_zero=0,
        act_scale="layer",
        basis="published",
    )
    delta: float = 0.5
    momentum: float = 0.1
    v2: bool = False

    def __post_init__(self) -> None:
        RunningTernaryActivation(self.delta, momentum=self.momentum)

    def weights(self) -> WeightQuantizer:
        """Signs with a scale per output."""
        return ScaledSigns(sign_zero=0)

    def activation(self, n_channels: int) -> nn.Module:
        """Ternary by a running threshold."""
        return RunningTernaryActivation(self.delta, momentum=self.momentum, scaled=self.v2)


METHODS: tuple[type[Method], ...] = (Eedn, TWN, ABTQ, TRQ, FATNN, RTN, GXNOR, TBN, TNN)
