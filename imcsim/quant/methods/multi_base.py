"""Sums of several bases: ReBNet, ABC-Net, LS-BQNN, LQ-Nets, HWGQ.

Formulas: quantizers.md section A.2 (A8, A9, A13, M9, M11). Weights of several bases are as many planes, each with a
real scale; an activation of several bases is as many passes. What a number becomes is the count of the thresholds that
it reaches, in the torch module as on the chip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import BINARY, TERNARY, Threshold, bases, unsigned
from imcsim.quant.activation import SignActivation, above, threshold_step
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import signs, straight_to_weights, surrogate, window
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, binary, residual_levels, ternary, thermometer

# --- what they share ------------------------------------------------------------------------------------------------


def reached(x: Tensor, step: Threshold) -> Tensor:
    """Return for each number of *x* how many thresholds of *step* it reaches, compared as the step compares."""
    return torch.bucketize(x.detach().double(), torch.tensor(step.thresholds[0]), right=True)


def digits_reached(x: Tensor, step: Threshold) -> Tensor:
    """Return the digits (p ...) of what *x* (...) becomes, of its dtype; one digit, the code, where it is no base."""
    table = step.format.digits or [(int(code),) for code in step.codes]
    return torch.tensor(table, dtype=x.dtype)[reached(x, step)].movedim(-1, 0)


def residual_step(factors: Sequence[float], sign_zero: int = 1) -> Threshold:
    """Return the residual encoder of *factors* (`imcsim.ternary.residual_levels`) as thresholds.

    One factor makes binary codes, or ternary ones where sgn(0) is 0; several make as many bases.
    """
    thresholds, digits = residual_levels(factors, sign_zero=sign_zero)
    if len(factors) == 1:
        form = replace(BINARY if sign_zero else TERNARY, scale=float(factors[0]))
        return threshold_step(list(thresholds), [digit for (digit,) in digits], form)
    return threshold_step(list(thresholds), list(range(len(digits))), bases(tuple(factors), digits))


def residual_signs(
    x: Tensor, factors: Sequence[Tensor], digits: Sequence[Tensor] | None = None, *, sign_zero: int = 1
) -> list[Tensor]:
    """Return the signs ``e_l = sgn(r_l)`` of the rests ``r_1 = x, r_(l+1) = r_l - factors[l] e_l``, with gradients.

    Each sign passes the gradient to its rest where ``|r_l| <= 1``, and so on to the signs before it and the factors.

    Args:
        x: Numbers.
        factors: Each broadcast against *x*.
        digits: The signs where they are known, of shape *x*; by default they follow from the rests.
        sign_zero: The sign of a rest of exactly 0.
    """
    found: list[Tensor] = []
    rest = x
    for level, factor in enumerate(factors):
        values = signs(rest.detach(), sign_zero) if digits is None else digits[level]
        sign = surrogate(rest, values, window(rest.detach()))
        found.append(sign)
        rest = rest - factor * sign
    return found


def per_output(values: Tensor, weight: Tensor) -> Tensor:
    """Return *values* (c) as (c 1 ...), to be broadcast against *weight* (c ...)."""
    return values.reshape(-1, *(1,) * (weight.ndim - 1))


def checked_count(name: str, value: int, *, most: int) -> int:
    """Return *value*; raises ConfigError unless it is a whole number from 1 to *most*."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name}: must be a whole number from 1 to {most}, got {value!r}")
    return value


# --- ReBNet ---------------------------------------------------------------------------------------------------------


class ResidualSigns(nn.Module):
    """Residual binarization: ``sum_l |gamma_l| e_l`` with ``e_l = sgn(r_l)``, ``r_(l+1) = r_l - |gamma_l| e_l``.

    The gammas of the layer are trained and start at ``M, M - 1, ..., 1``, divided by their sum. The sign passes the
    gradient where ``|r_l| <= 1``. Source: Ghasemzadeh et al., "ReBNet", FCCM 2018, and the authors' code.
    """

    def __init__(self, n_levels: int = 2, *, sign_zero: int = 0) -> None:
        super().__init__()
        if sign_zero not in (-1, 0, 1):
            raise ConfigError(f"sign_zero: must be -1, 0 or 1, got {sign_zero!r}")
        n_levels = checked_count("levels", n_levels, most=8)
        falling = torch.arange(n_levels, 0, -1, dtype=torch.get_default_dtype())
        self.gamma = nn.Parameter(falling / falling.sum())
        self.sign_zero = int(sign_zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the signs of *x*, each times its gamma."""
        gamma = self.gamma.abs()
        found = residual_signs(x, list(gamma), list(digits_reached(x, self.imc_quantizer())))
        return sum((g * e for g, e in zip(gamma, found, strict=True)), start=torch.zeros(()))

    def imc_quantizer(self) -> Threshold:
        """Return the thresholds, sums of gammas, and the digits between them."""
        return residual_step([abs(gamma) for gamma in self.gamma.tolist()], self.sign_zero)


class ReBNetWeights(WeightQuantizer):
    """``|gamma| sgn(clip(w, -1, 1))`` with one trained gamma, which starts at 1; sgn(0) = 0.

    The gradient passes where ``|w| <= 1``. Source: ReBNet, the authors' code.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and the magnitude of gamma."""
        return Coded((surrogate(weight, signs(weight, 0), window(weight)),), (self.gamma.abs(),))

    def codec(self) -> Codec:
        """One plane."""
        return ternary()


@dataclass(frozen=True, kw_only=True)
class ReBNet(Method):
    """ReBNet: activations of *levels* residual signs with trained gammas, weights of one sign and one trained gamma.

    The authors' training takes sgn(0) = 0, which is the default of *sign_zero*; their circuit has one bit a level,
    ``1[acc > 0]``, which is ``sign_zero=-1``. The two differ at rests of exactly 0 alone.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A8",
        name="rebnet",
        title="ReBNet: Residual Binarized Neural Network",
        paper="Ghasemzadeh, Samragh, Koushanfar, FCCM 2018",
        weights="{-g, +g}",
        activations="sum_l g_l {-1, +1}, M levels",
        granularity="L / L",
        formula="r_0 = x; e_l = sgn(r_(l-1)); r_l = r_(l-1) - |g_l| e_l; x_b = sum_l |g_l| e_l; W_b = |g| sgn(W)",
        planes="1 x M",
        n_planes=(1, 2),
        needs=("residual encoder: M compares and M adds a number",),
        exact="exact; the authors' circuit rounds the gammas to fixed point",
        sign_zero=0,
        act_scale="layer",
        basis="published",
    )
    levels: int = 2
    sign_zero: int = 0

    def __post_init__(self) -> None:
        ResidualSigns(self.levels, sign_zero=self.sign_zero)  # refuses what it cannot be

    def weights(self) -> WeightQuantizer:
        """Signs with one trained scale."""
        return ReBNetWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Residual signs with trained scales."""
        return ResidualSigns(self.levels, sign_zero=self.sign_zero)


# --- ABC-Net --------------------------------------------------------------------------------------------------------


class LeastSquaresBases(WeightQuantizer):
    """``sum_i alpha_i B_i`` with ``B_i = sgn(w - mean(w) + u_i std(w))``, u evenly from -1 to 1, and alpha refitted.

    ``alpha = (B^T B)^-1 B^T w`` over the layer, or over each output with *per_channel*; where bases are alike, the
    alphas with the least sum of squares. Every base passes the gradient straight to w:
    ``dc/dw = sum_i alpha_i dc/dB_i``. Source: Lin, Zhao, Pan, NIPS 2017, sections 3.1 and 3.2.
    """

    def __init__(self, n_bases: int = 3, *, per_channel: bool = False) -> None:
        super().__init__()
        self.n_bases, self.per_channel = checked_count("bases_w", n_bases, most=16), per_channel

    def forward(self, weight: Tensor) -> Coded:
        """Return one term of signs for each base."""
        rows = weight.detach().reshape(weight.shape[0] if self.per_channel else 1, -1)  # r n
        centred = rows - rows.mean(dim=1, keepdim=True)
        spread = rows.std(dim=1, keepdim=True, correction=0)
        shifts = torch.linspace(-1.0, 1.0, self.n_bases) if self.n_bases > 1 else torch.zeros(1)
        found = torch.stack([signs(centred + float(u) * spread) for u in shifts], dim=2)  # r n m
        alpha = torch.linalg.lstsq(found, rows[:, :, None], driver="gelsd").solution[:, :, 0]  # r m
        codes = tuple(surrogate(weight, found[:, :, i].reshape(weight.shape)) for i in range(self.n_bases))
        scales = [per_output(a, weight) if self.per_channel else a[0] for a in alpha.T]
        return Coded(codes, tuple(scales))

    def codec(self) -> Codec:
        """One plane a base."""
        return binary()


class ShiftedSigns(nn.Module):
    """``sum_n beta_n H_n(x)`` with ``H_n(x) = 2 1[clip(x + v_n, 0, 1) >= 1/2] - 1``: signs with a threshold 1/2 - v_n.

    v and beta are trained. H_n passes the gradient to x and to v_n where ``0 <= x + v_n <= 1``. They start so that the
    thresholds cut a standard normal distribution into equal parts and the levels go from -1 to 1; how the paper starts
    them is not known here. Source: Lin, Zhao, Pan, NIPS 2017, section 3.3.
    """

    def __init__(self, n_bases: int = 3) -> None:
        super().__init__()
        n_bases = checked_count("bases_a", n_bases, most=8)
        parts = torch.arange(1, n_bases + 1, dtype=torch.float64) / (n_bases + 1)
        self.shift = nn.Parameter((0.5 - torch.special.ndtri(parts)).to(torch.get_default_dtype()))
        self.beta = nn.Parameter(torch.full((n_bases,), 1.0 / n_bases))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the shifted signs."""
        total = torch.zeros((), dtype=x.dtype)
        for shift, beta in zip(self.shift, self.beta, strict=True):
            moved = x + shift
            values = 2.0 * (x.detach().double() >= 0.5 - shift.detach().double()) - 1.0
            total = total + beta * surrogate(moved, values.to(x.dtype), ((moved >= 0) & (moved <= 1)).to(x.dtype))
        return total

    def imc_quantizer(self) -> Threshold:
        """Return the thresholds in ascending order, and as digits the bases whose threshold is reached.

        The levels need not ascend, since a beta may be negative.
        """
        thresholds = 0.5 - self.shift.detach().double().numpy()
        order = np.argsort(thresholds, kind="stable")
        rank = np.argsort(order)
        digits = tuple(tuple(1 if r < level else -1 for r in rank) for level in range(len(order) + 1))
        form = bases(tuple(self.beta.tolist()), digits)
        return threshold_step(thresholds[order].tolist(), list(range(len(digits))), form)


@dataclass(frozen=True, kw_only=True)
class ABCNet(Method):
    """ABC-Net: *bases_w* binary bases of the weights by least squares, *bases_a* shifted signs of the activations."""

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A9",
        name="abc-net",
        title="Towards Accurate Binary Convolutional Neural Network",
        paper="Lin, Zhao, Pan, NIPS 2017",
        weights="sum_m a_m {-1, +1}, M bases",
        activations="sum_n b_n {-1, +1}, N bases",
        granularity="L or C / L",
        formula="B_i = sgn(W - mean W + u_i std W), a = (B^T B)^-1 B^T W; H_v(x) = 2 1[clip(x + v, 0, 1) >= 1/2] - 1",
        planes="M x N",
        n_planes=(3, 3),
        exact="exact up to the order in which real-scaled sums are added",
        sign_zero=None,
        act_scale="layer",
        basis="recalled",
    )
    bases_w: int = 3
    bases_a: int = 3
    per_channel: bool = False

    def __post_init__(self) -> None:
        checked_count("bases_w", self.bases_w, most=16)
        checked_count("bases_a", self.bases_a, most=8)

    def weights(self) -> WeightQuantizer:
        """Bases by least squares."""
        return LeastSquaresBases(self.bases_w, per_channel=self.per_channel)

    def activation(self, n_channels: int) -> nn.Module:
        """Shifted signs."""
        return ShiftedSigns(self.bases_a)


# --- LS-BQNN --------------------------------------------------------------------------------------------------------

Average = Literal["off", "eval_only", "train_and_eval"]


def n_signs(kind: str, option: str = "kind") -> int:
    """Return how many scales a kind has: ls1 and lst 1, ls2 2, gfK K; raises ConfigError for what is none."""
    known = {"ls1": 1, "ls2": 2, "lst": 1}
    if kind in known:
        return known[kind]
    if kind.startswith("gf") and kind[2:].isdecimal() and 1 <= int(kind[2:]) <= 8:
        return int(kind[2:])
    raise ConfigError(f"{option}: must be ls1, ls2, lst or gf1 to gf8, got {kind!r}")


def least_squares_scales(rows: Tensor, kind: str) -> Tensor:
    """Return the scales (v r) that fit each row of *rows* (r n) best, without gradient.

    ls1: ``v = mean|x|``. gfK: ``v_i = mean|r|`` of the rest of the i-th sign. ls2: of all v1 that satisfy
    ``v1 = (mean_{|x|<=v1}|x| + mean_{|x|>v1}|x|) / 2`` or ``v1 = mean_{|x|>v1}|x| / 2`` for some split of the sorted
    magnitudes, that of the least squared error, and ``v2 = mean||x| - v1|``. lst: the same with ``v2 = v1``. The
    authors' code looks at every third number alone; here it is all of them.
    Source: Pouransari, Tu, Tuzel, 2020, sections 3 and 4.
    """
    rows = rows.detach()
    match kind:
        case "ls1":
            return rows.abs().mean(dim=1)[None]
        case "lst":
            return best_fold(rows.abs(), is_ternary=True)[None]
        case "ls2":
            v1 = best_fold(rows.abs(), is_ternary=False)
            return torch.stack([v1, (rows.abs() - v1[:, None]).abs().mean(dim=1)])
    found = []
    rest = rows
    for _ in range(n_signs(kind)):
        v = rest.abs().mean(dim=1)
        found.append(v)
        rest = rest - v[:, None] * signs(rest)
    return torch.stack(found)


def best_fold(sizes: Tensor, *, is_ternary: bool) -> Tensor:
    """Return for each row of magnitudes *sizes* (r n) the v1 of the least squared error; *is_ternary*: v2 is v1."""
    values = sizes.double().sort(dim=1).values
    n = values.shape[1]
    sums = torch.nn.functional.pad(values.cumsum(dim=1), (1, 0))  # r n+1: of the k least
    total = sums[:, -1:]
    counts = torch.arange(n + 1, dtype=torch.float64)
    tails = (total - sums[:, :-1]) / (n - counts[:-1])  # r n: mean of all but the k least
    candidates = tails / 2
    if not is_ternary:
        heads = sums[:, 1:-1] / counts[1:-1]
        candidates = torch.cat([candidates, (heads + tails[:, 1:]) / 2], dim=1)
    split = torch.searchsorted(values, candidates.contiguous(), right=True)  # how many are at most v1
    below = sums.gather(1, split)
    square = (values**2).sum(dim=1, keepdim=True)
    if is_ternary:  # sum of x^2 below v, of (x - 2v)^2 above
        cost = square - 4 * candidates * (total - below) + 4 * candidates**2 * (n - split)
    else:  # sum of (|x| - v1)^2, less n v2^2
        rests = total - 2 * below + (2 * split - n) * candidates
        cost = square - 2 * candidates * total + n * candidates**2 - rests**2 / n
    return candidates.gather(1, cost.argmin(dim=1, keepdim=True))[:, 0].to(sizes.dtype)


class FoldableWeights(WeightQuantizer):
    """Weights of *kind* ls1, ls2, lst or gfK: signs of residuals, their scales per output by `least_squares_scales`.

    sgn(0) = +1; each sign passes the gradient where ``|r| <= 1``. Source: LS-BQNN, the authors' code.
    """

    def __init__(self, kind: str = "ls1") -> None:
        super().__init__()
        n_signs(kind)
        self.kind = kind

    def forward(self, weight: Tensor) -> Coded:
        """Return one term of signs for each scale; of lst one ternary term."""
        found = least_squares_scales(weight.detach().reshape(len(weight), -1), self.kind)
        scales = [per_output(v, weight) for v in found]
        if self.kind == "lst":
            first, second = residual_signs(weight, [scales[0], scales[0]])
            return Coded(((first + second) / 2,), (2 * scales[0],))
        return Coded(tuple(residual_signs(weight, scales)), tuple(scales))

    def codec(self) -> Codec:
        """One plane a term."""
        return ternary() if self.kind == "lst" else binary()


class FoldableActivation(nn.Module):
    """Activations of *kind* ls1, ls2, lst or gfK, with scales of each sample or of their running average.

    *average* is off (scales of each sample, also at inference), eval_only (of each sample in training, the running
    average at inference) or train_and_eval (the average in both). The average is of the scales of samples:
    ``momentum * old + (1 - momentum) * new``; the first batch sets it. sgn(0) = +1; each sign passes the gradient
    where ``|r| <= 1``. Source: LS-BQNN, the authors' code.
    """

    running: Tensor
    n_batches: Tensor

    def __init__(self, kind: str = "ls2", *, average: Average = "eval_only", momentum: float = 0.99) -> None:
        super().__init__()
        if average not in get_args(Average):
            raise ConfigError(f"average: must be off, eval_only or train_and_eval, got {average!r}")
        if not 0 <= momentum <= 1:
            raise ConfigError(f"momentum: must be from 0 to 1, got {momentum}")
        self.kind, self.average, self.momentum = kind, average, momentum
        self.register_buffer("running", torch.zeros(n_signs(kind)))
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return what *x* (b ...) becomes."""
        scales: Tensor | None = None
        if self.training or self.average == "off":
            scales = least_squares_scales(x.detach().reshape(len(x), -1), self.kind)  # v b
        if self.training and self.average != "off" and scales is not None:
            self._follow(scales.mean(dim=1))
        if scales is None or (self.training and self.average == "train_and_eval"):
            return self._of_average(x)
        return _folded(x, [per_output(v, x) for v in scales], self.kind)

    def _follow(self, new: Tensor) -> None:
        kept = self.momentum if int(self.n_batches) else 0.0
        self.running.copy_(kept * self.running + (1 - kept) * new)
        self.n_batches += 1

    def _of_average(self, x: Tensor) -> Tensor:
        # A copy, since the average moves on before the gradient is worked out.
        scales = list(self.running.clone())
        if self.kind == "lst":
            return _folded(x, scales, self.kind)
        return _folded(x, scales, self.kind, list(digits_reached(x, self._step())))

    def _step(self) -> Threshold:
        scales = self.running.tolist()
        if self.kind == "lst":
            return threshold_step([-scales[0], scales[0]], [-1, 0, 1], replace(TERNARY, scale=2 * scales[0]))
        return residual_step(scales)

    def imc_quantizer(self) -> Threshold:
        """Return the thresholds of the running average; raises GraphError where there is none."""
        if self.average == "off":
            raise GraphError(
                f"{self.kind}: thresholds must be the same for every sample, got scales of each sample; take "
                "average=eval_only, or ls1, whose scale multiplies the sums alone"
            )
        return self._step()

    def extra_repr(self) -> str:
        """Return the options."""
        return f"kind={self.kind}, average={self.average}"


def _folded(x: Tensor, scales: list[Tensor], kind: str, digits: list[Tensor] | None = None) -> Tensor:
    scales = scales * 2 if kind == "lst" else scales
    found = residual_signs(x, scales, digits)
    return sum((v * e for v, e in zip(scales, found, strict=True)), start=torch.zeros(()))


class ScaledPerSample(nn.Module):
    """A layer of the signs of its input, times the input's mean magnitude, sample by sample: LS-1 without an average.

    ``layer(sgn(x)) * mean|x|``: the scale multiplies the sums, digitally, and has no gradient.
    """

    def __init__(self, layer: nn.Module, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.sign, self.layer, self.axes = SignActivation(sign_zero=1), layer, axes

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums of the layer, each sample times its scale."""
        with torch.no_grad():
            size = x.abs().mean(dim=self.axes, keepdim=True)
        return self.layer(self.sign(x)) * size


class ScaledPerSampleConv2d(ScaledPerSample):
    """`ScaledPerSample` of a convolution: the mean is over channels and pixels."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer, (1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class LSBQNN(Method):
    """Least squares binary quantization: *kind_w* and *kind_a* are each ls1, ls2, lst or gf1 to gf8.

    *average* says where the scales of activations come from at inference. off (each sample by itself) runs on tiles
    for ls1 alone, since the thresholds of the others depend on the sample.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A13",
        name="ls-bqnn",
        title="Least squares binary quantization of neural networks",
        paper="Pouransari, Tu, Tuzel, 2020, arXiv:2001.02786; CVPR workshops 2020",
        weights="LS-1 {-v, +v}; LS-2 v1 {-1, +1} + v2 {-1, +1}; LS-T {-2v, 0, +2v}; GF-k sum_i v_i {-1, +1}",
        activations="the same",
        granularity="C / L, per sample or running average",
        formula="s1 = sgn(x), s2 = sgn(x - v1 s1), x_q = v1 s1 + v2 s2; v of the least squared error",
        planes="{1, 2, k} x {1, 2, k}",
        n_planes=(1, 2),
        needs=("mean magnitude of a sample (average=off)",),
        exact="exact with a running average, or with ls1; average=off with other kinds has thresholds that depend on "
        "the sample and is refused by name",
        sign_zero=1,
        act_scale="layer",
        basis="published",
    )
    kind_w: str = "ls1"
    kind_a: str = "ls2"
    average: str = "eval_only"

    def __post_init__(self) -> None:
        n_signs(self.kind_w, "kind_w")
        n_signs(self.kind_a, "kind_a")
        if self.average not in get_args(Average):
            raise ConfigError(f"average: must be off, eval_only or train_and_eval, got {self.average!r}")

    def weights(self) -> WeightQuantizer:
        """Signs of residuals with scales per output."""
        return FoldableWeights(self.kind_w)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs of residuals with scales of samples or of their average."""
        return FoldableActivation(self.kind_a, average=self.average)  # type: ignore[arg-type]

    @property
    def _scales_sums(self) -> bool:
        return self.average == "off" and self.kind_a in ("ls1", "gf1")

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Where the scale is that of a sample and multiplies the sums, it stands behind the layer."""
        if not self._scales_sums:
            return super().conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)
        return ScaledPerSampleConv2d(self.conv(n_in, n_out, kernel, stride=stride, padding=padding))

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """Where the scale is that of a sample and multiplies the sums, it stands behind the layer."""
        if not self._scales_sums:
            return super().linear_layer(n_in, n_out)
        return ScaledPerSample(self.linear(n_in, n_out), (1,))


# --- LQ-Nets --------------------------------------------------------------------------------------------------------

NORMAL_UPPER_QUARTILE = 0.6745
KEPT_OF_BASIS = 0.9
PULL_TO_BASIS = 1e-4


def sorted_levels(basis: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return levels (n ...) in ascending order, the middles between them and the rows of *table* they come from.

    Args:
        basis: (k ...).
        table: (n k), the digits of each level.
    """
    levels, order = torch.tensordot(table, basis, dims=1).sort(dim=0, stable=True)
    return levels, (levels[1:] + levels[:-1]) / 2, order


class LearnedBasisWeights(WeightQuantizer):
    """``sum_i v_i e_i``, e in {-1, +1}, with a basis v per output that follows the weights in training.

    Codes are those of the nearest level, of two as near the lower. After each forward pass in training
    ``v <- 0.9 v + 0.1 (B^T B + 1e-4 I)^-1 (B^T w + 1e-4 v)``. v starts at
    ``2^j 0.6745 sqrt(2 / n) / 2^(bits - 1)`` with n = kh kw c_out. The gradient goes straight through.
    Source: Zhang, Yang, Ye, Hua, ECCV 2018, and the authors' code.
    """

    basis: Tensor

    def __init__(self, bits: int, n_out: int, n: int) -> None:
        super().__init__()
        self.bits = checked_count("bits_w", bits, most=8)
        base = NORMAL_UPPER_QUARTILE * (2 / n) ** 0.5 / 2 ** (bits - 1)
        self.register_buffer("basis", base * (2.0 ** torch.arange(bits))[:, None].repeat(1, n_out))

    def forward(self, weight: Tensor) -> Coded:
        """Return one term of signs for each base; in training the basis moves on."""
        rows = weight.detach().reshape(len(weight), -1)  # c n
        table = (2 * _binary_digits(self.bits) - 1).to(rows.dtype)
        basis = self.basis.clone()
        _, middles, order = sorted_levels(basis, table)
        index = (rows > middles[:, :, None]).sum(dim=0)  # c n: how many middles are exceeded
        digits = table[order.gather(0, index.T).T].movedim(-1, 0)  # k c n
        if self.training:
            self._follow(rows, digits)
        # The terms together pass the gradient of the weights just once.
        share = basis / (basis**2).sum(dim=0).clamp(min=torch.finfo(basis.dtype).tiny)
        codes = tuple(
            surrogate(weight, digit.reshape(weight.shape), per_output(part, weight))
            for digit, part in zip(digits, share, strict=True)
        )
        return Coded(codes, tuple(per_output(v, weight) for v in basis))

    def _follow(self, rows: Tensor, digits: Tensor) -> None:
        with torch.no_grad():
            gram = torch.einsum("kcn,jcn->ckj", digits, digits)
            gram = gram + PULL_TO_BASIS * torch.eye(self.bits, dtype=rows.dtype)
            wanted = torch.einsum("kcn,cn->ck", digits, rows) + PULL_TO_BASIS * self.basis.T
            found = torch.linalg.solve(gram, wanted[:, :, None])[:, :, 0].T
            self.basis.copy_(KEPT_OF_BASIS * self.basis + (1 - KEPT_OF_BASIS) * found)

    def codec(self) -> Codec:
        """One plane a base."""
        return binary()


class LearnedBasisActivation(nn.Module):
    """A ReLU, then ``sum_j v_j e_j``, e in {0, 1}, with a basis v of the layer that follows the numbers in training.

    Codes are those of the nearest level, of two as near the lower. After each forward pass in training
    ``v <- 0.9 v + 0.1 (B^T B)^-1 B^T x``; where B^T B has no inverse v stays. v starts at
    ``2^j 0.6745 * 2 / (2^bits - 1)``. The gradient passes above 0 up to the greatest level.
    Source: Zhang, Yang, Ye, Hua, ECCV 2018, and the authors' code.
    """

    basis: Tensor

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.bits = checked_count("bits_a", bits, most=8)
        base = NORMAL_UPPER_QUARTILE * 2 / (2**bits - 1)
        self.register_buffer("basis", base * 2.0 ** torch.arange(bits))

    def _levels(self) -> tuple[Tensor, Tensor, Tensor]:
        levels, middles, order = sorted_levels(self.basis.double(), _binary_digits(self.bits).double())
        return levels, middles, _binary_digits(self.bits)[order]

    def forward(self, x: Tensor) -> Tensor:
        """Return the level next to each number; in training the basis moves on."""
        levels, _, digits = self._levels()
        index = reached(x, self.imc_quantizer())
        if self.training:
            self._follow(x.detach().clamp(min=0), digits[index].to(x.dtype))
        return surrogate(x, levels.to(x.dtype)[index], ((x > 0) & (x <= levels[-1])).to(x.dtype))

    def _follow(self, x: Tensor, digits: Tensor) -> None:
        rows = digits.reshape(-1, self.bits)
        gram = rows.T @ rows
        if int(torch.linalg.matrix_rank(gram)) < self.bits:
            return
        found = torch.linalg.solve(gram, rows.T @ x.reshape(-1))
        self.basis.copy_(KEPT_OF_BASIS * self.basis + (1 - KEPT_OF_BASIS) * found)

    def imc_quantizer(self) -> Threshold:
        """Return the middles between levels as thresholds; those below 0 every number exceeds, behind a ReLU."""
        _, middles, digits = self._levels()
        thresholds = [above(float(middle)) if middle >= 0 else -np.inf for middle in middles]
        form = bases(tuple(self.basis.tolist()), tuple(map(tuple, digits.tolist())))
        return threshold_step(thresholds, list(range(len(digits))), form)


def _binary_digits(bits: int) -> Tensor:
    """Return the digits {0, 1} of 0 ... 2^bits - 1, least first (2^bits bits)."""
    return (torch.arange(1 << bits)[:, None] >> torch.arange(bits)) & 1


@dataclass(frozen=True, kw_only=True)
class LQNets(Method):
    """LQ-Nets: learned bases of *bits_w* signs a weight, per output, and *bits_a* binary digits an activation."""

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M9",
        name="lq-nets",
        title="LQ-Nets: Learned Quantization for Highly Accurate and Compact Deep Neural Networks",
        paper="Zhang, Yang, Ye, Hua, ECCV 2018",
        weights="sum_i v_i {-1, +1}",
        activations="sum_j v_j {0, 1}",
        granularity="C / L",
        formula="nearest level v^T e; v <- 0.9 v + 0.1 (B^T B + eps I)^-1 (B^T x + eps v)",
        planes="K_w x K_a",
        n_planes=(2, 2),
        exact="exact up to the order in which real-scaled sums are added",
        act_scale="layer",
        basis="published",
    )
    bits_w: int = 2
    bits_a: int = 2

    def __post_init__(self) -> None:
        checked_count("bits_w", self.bits_w, most=8)
        checked_count("bits_a", self.bits_a, most=8)

    def activation(self, n_channels: int) -> nn.Module:
        """Levels of a learned basis."""
        return LearnedBasisActivation(self.bits_a)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """A convolution whose basis starts at the size that its shape says."""
        quantizer = LearnedBasisWeights(self.bits_w, n_out, kernel * kernel * n_out)
        return QuantizedConv2d(
            n_in, n_out, kernel, stride=stride, padding=padding, bias=False, weight_quantizer=quantizer
        )

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """A linear layer whose basis starts at the size that its shape says."""
        return QuantizedLinear(n_in, n_out, bias=False, weight_quantizer=LearnedBasisWeights(self.bits_w, n_out, n_out))


# --- HWGQ -----------------------------------------------------------------------------------------------------------


class MeanScaledSigns(WeightQuantizer):
    """``alpha_c sgn(w)`` with ``alpha_c = mean|w|`` of each output and sgn(0) = +1; straight-through gradient.

    Source: Rastegari et al., "XNOR-Net", ECCV 2016 (BWN), which HWGQ takes for its weights.
    """

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and one scale per output."""
        scale = weight.detach().abs().mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
        return straight_to_weights(weight, signs(weight.detach()), scale)

    def codec(self) -> Codec:
        """One plane."""
        return binary()


UNIFORM_STEP = 0.538
UNEVEN_LEVELS = (0.0, 0.453, 1.51)


class HalfWaveActivation(nn.Module):
    """0 where ``x <= 0``, else the nearest of fixed centres, the best ones for the positive half of a normal number.

    With *uniform* the centres are 0.538, 1.076 and 1.614, codes of 2 bits with the scale 0.538; else 0.453 and 1.51, as
    two steps of a thermometer. Between centres the upper one begins in the middle. The gradient is that of a ReLU
    clipped at the top centre. Source: Cai, He, Sun, Vasconcelos, CVPR 2017, and the authors' code.
    """

    def __init__(self, *, uniform: bool = True) -> None:
        super().__init__()
        self.uniform = uniform
        self.levels = tuple(UNIFORM_STEP * k for k in range(4)) if uniform else UNEVEN_LEVELS

    def forward(self, x: Tensor) -> Tensor:
        """Return the centre next to each positive number, and 0 for the others."""
        values = torch.tensor(self.levels, dtype=x.dtype)[reached(x, self.imc_quantizer())]
        return surrogate(x, values, ((x > 0) & (x <= self.levels[-1])).to(x.dtype))

    def imc_quantizer(self) -> Threshold:
        """Return a threshold just above 0 and the middles between the centres."""
        positive = self.levels[1:]
        middles = [(a + b) / 2 for a, b in pairwise(positive)]
        codes = np.arange(len(self.levels))
        if self.uniform:
            return threshold_step([above(0.0), *middles], codes.tolist(), unsigned(2, UNIFORM_STEP))
        codec = thermometer(self.levels)
        form = bases(codec.factors, tuple(map(tuple, codec.encode(codes).T.tolist())))
        return threshold_step([above(0.0), *middles], codes.tolist(), form)

    def extra_repr(self) -> str:
        """Return the levels."""
        return f"levels={self.levels}"


@dataclass(frozen=True, kw_only=True)
class HWGQ(Method):
    """Half-wave Gaussian quantization: fixed levels of activations behind a batch norm, binary weights."""

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M11",
        name="hwgq",
        title="Deep Learning with Low Precision by Half-wave Gaussian Quantization",
        paper="Cai, He, Sun, Vasconcelos, CVPR 2017",
        weights="{-a, +a}",
        activations="0.538 {0, 1, 2, 3}, or {0, 0.453, 1.51}",
        granularity="C / fixed",
        formula="W_b = E|W| sgn(W); x_q = 0 if x <= 0, else the nearest centre",
        planes="1 x 2",
        n_planes=(1, 2),
        sign_zero=1,
        act_scale="layer",
        basis="published",
    )
    uniform: bool = True

    def weights(self) -> WeightQuantizer:
        """Signs with one scale per output."""
        return MeanScaledSigns()

    def activation(self, n_channels: int) -> nn.Module:
        """Fixed levels for half a normal number."""
        return HalfWaveActivation(uniform=self.uniform)


METHODS: tuple[type[Method], ...] = (ReBNet, ABCNet, LSBQNN, LQNets, HWGQ)

REPEATS = (replace(LSBQNN.record, id="B3", name="ls-bqnn-cvprw", same_as="A13"),)
