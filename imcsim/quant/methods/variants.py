"""Methods that the list only names, as far as they are thin variants of others: ids N1 and up.

Formulas: quantizers.md section A.3. INQ, WRPN, HORQ, TSQ, BNN+, DSQ. None of them was read again in its paper or its
authors' code, so all are marked recalled; what is not known for sure stands with each.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import Threshold, unsigned
from imcsim.quant.activation import SignActivation, UnsignedActivation, threshold_step
from imcsim.quant.integer import checked_bits
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear, weights_and_quantizers
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.methods.multi_base import (
    FoldableActivation,
    HalfWaveActivation,
    MeanScaledSigns,
    checked_count,
    reached,
)
from imcsim.quant.methods.ternary import BestTernaryWeights
from imcsim.quant.straight import signs, straight_to_weights, surrogate, window
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, binary, odd_binary, powers_of_two, sign_magnitude

# --- INQ ------------------------------------------------------------------------------------------------------------

FIXED_SHARES = (0.5, 0.75, 0.875, 1.0)
"""Share of a layer's weights that is fixed in each quarter of the training."""


class PowerOfTwoWeights(WeightQuantizer):
    """Weights 0 and ``+-2^p`` with p from n_2 to n_1; those that are fixed in training are held, the rest stays real.

    ``n_1 = floor(log2(4 max|w| / 3))`` and ``n_2 = n_1 + 1 - 2^(bits - 2)`` of the layer, from the weights it had when
    the first of them were fixed. Of two neighbouring levels a < b a magnitude becomes b from ``(a + b) / 2`` up. The
    gradient goes straight through to the weights that are not held.
    Source: Zhou, Yao, Guo, Xu, Chen, "Incremental Network Quantization", ICLR 2017, equations 1 to 4.

    Args:
        bits: Of the codes, one of which is 0.
        shape: Of the weights.
    """

    held: Tensor
    largest: Tensor

    def __init__(self, bits: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.bits = checked_bits(bits, least=3, most=6)
        self.register_buffer("held", torch.full(shape, math.nan))
        self.register_buffer("largest", torch.tensor(math.nan))

    @property
    def n_exponents(self) -> int:
        """How many powers of two there are."""
        return int(2 ** (self.bits - 2))

    def least_exponent(self, weight: Tensor) -> int:
        """Return n_2, of what code 1 counts for."""
        largest = float(weight.detach().abs().max() if bool(torch.isnan(self.largest)) else self.largest)
        top = math.floor(math.log2(4 * largest / 3)) if largest > 0 else 0
        return top + 1 - self.n_exponents

    def nearest(self, weight: Tensor) -> Tensor:
        """Return the codes, 0 and +-2^0 ... +-2^(n_exponents - 1), that are next to *weight*."""
        sizes = weight.detach().abs().double() / 2.0 ** self.least_exponent(weight)
        codes = (sizes >= 0.5).double()
        for exponent in range(1, self.n_exponents):
            codes = torch.where(sizes >= 0.75 * 2.0**exponent, 2.0**exponent, codes)
        return (codes * torch.sign(weight.detach())).to(weight.dtype)

    def forward(self, weight: Tensor) -> Coded:
        """Return codes and the scale 2^n_2; in training real numbers in their place where they are not held."""
        scale = weight.new_tensor(2.0 ** self.least_exponent(weight))
        codes = self.nearest(weight)
        if self.training:
            codes = torch.where(torch.isnan(self.held), weight.detach() / scale, codes)
        return straight_to_weights(weight, codes, scale)

    def fix(self, weight: Tensor, share: float) -> None:
        """Set the largest of the weights that are not held to their levels until *share* of all are held."""
        with torch.no_grad():
            if bool(torch.isnan(self.largest)):
                self.largest.copy_(weight.abs().max())
            sizes = torch.where(torch.isnan(self.held), weight.abs(), -1.0).flatten()
            n_more = round(share * weight.numel()) - int((sizes < 0).sum())
            if n_more <= 0:
                return
            chosen = sizes.topk(n_more).indices
            levels = self.nearest(weight) * 2.0 ** self.least_exponent(weight)
            self.held.view(-1)[chosen] = levels.flatten()[chosen]
            self.hold(weight)

    def hold(self, weight: Tensor) -> None:
        """Put *weight* back to its levels where it is held."""
        with torch.no_grad():
            weight.copy_(torch.where(torch.isnan(self.held), weight, self.held))

    def codec(self) -> Codec:
        """One plane for each exponent."""
        return powers_of_two(tuple(range(self.n_exponents)))


@dataclass(frozen=True, kw_only=True)
class INQ(Method):
    """Incremental Network Quantization: weights 0 and powers of two, of which the largest are fixed first.

    A share of each layer's weights, the largest, is set to its levels and held there, while the others go on being
    trained as real numbers: 50, 75, 87.5 and 100 % from each quarter of the training on. Activations are even grids of
    *bits_a* bits, which the paper does not have.
    """

    settles_at: ClassVar[float] = 0.9
    record: ClassVar[MethodRecord] = MethodRecord(
        id="N1",
        name="inq",
        title="Incremental Network Quantization: Towards Lossless CNNs with Low-Precision Weights",
        paper="Zhou, Yao, Guo, Xu, Chen, ICLR 2017",
        weights="{0, +-2^p}, 2^(k-2) exponents",
        activations="none; unsigned k-bit attached",
        granularity="L / L",
        formula="n_1 = floor(log2(4 max|W| / 3)), n_2 = n_1 + 1 - 2^(k-2); W_q = sgn(W) 2^p from 3/4 2^p up",
        planes="2^(k-2) x (activation quantizer)",
        n_planes=(8, 8),
        exact="exact with the attached activation quantizer; the paper's activations are real",
        act_scale="layer",
        basis="recalled",
    )
    bits_w: int = 5
    bits_a: int = 8

    def __post_init__(self) -> None:
        PowerOfTwoWeights(self.bits_w, (1,))  # refuses what it cannot be
        checked_bits(self.bits_a, least=1)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, where a batch norm leaves few numbers."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """A convolution of powers of two."""
        quantizer = PowerOfTwoWeights(self.bits_w, (n_out, n_in, kernel, kernel))
        return QuantizedConv2d(
            n_in, n_out, kernel, stride=stride, padding=padding, bias=False, weight_quantizer=quantizer
        )

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """A linear layer of powers of two."""
        return QuantizedLinear(n_in, n_out, bias=False, weight_quantizer=PowerOfTwoWeights(self.bits_w, (n_out, n_in)))

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Fix as many weights as it is time for."""
        share = FIXED_SHARES[min(int(progress * len(FIXED_SHARES)), len(FIXED_SHARES) - 1)]
        for weight, quantizer in weights_and_quantizers(network, PowerOfTwoWeights):
            quantizer.fix(weight, share)

    def after_step(self, network: nn.Module) -> None:
        """Hold the weights that are fixed, whatever momentum they had."""
        for weight, quantizer in weights_and_quantizers(network, PowerOfTwoWeights):
            quantizer.hold(weight)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Fix all the weights."""
        for weight, quantizer in weights_and_quantizers(network, PowerOfTwoWeights):
            quantizer.fix(weight, 1.0)


# --- WRPN -----------------------------------------------------------------------------------------------------------


class ClippedWeights(WeightQuantizer):
    """``R(clip(w, -1, 1) m) / m`` with ``m = 2^(bits - 1) - 1``; the gradient passes where ``|w| <= 1``.

    Source: Mishra, Nurvitadhi, Cook, Marr, "WRPN", ICLR 2018.
    """

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.bits = checked_bits(bits, least=2)

    def forward(self, weight: Tensor) -> Coded:
        """Return whole numbers and the scale 1 / m."""
        m = 2 ** (self.bits - 1) - 1
        codes = torch.round(weight.detach().clamp(-1, 1) * m)
        return Coded((surrogate(weight, codes, m * window(weight.detach())),), (weight.new_tensor(1 / m),))

    def codec(self) -> Codec:
        """Planes of the magnitude, each with the sign."""
        return sign_magnitude(self.bits)


@dataclass(frozen=True, kw_only=True)
class WRPN(Method):
    """WRPN: even grids of *bits_w* and *bits_a* bits in layers that are wider by two or three times.

    How wide the layers are is said where the network is built (``small_cnn(method, widths=...)``).
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="N2",
        name="wrpn",
        title="WRPN: Wide Reduced-Precision Networks",
        paper="Mishra, Nurvitadhi, Cook, Marr, ICLR 2018",
        weights="k-bit symmetric in [-1, 1]",
        activations="k-bit unsigned in [0, 1]",
        granularity="L / L",
        formula="W_q = R(clip(W, -1, 1) (2^(k-1) - 1)) / (2^(k-1) - 1); x_q = R(clip(x, 0, 1) (2^k - 1)) / (2^k - 1)",
        planes="(k - 1) x k",
        n_planes=(1, 4),
        act_scale="layer",
        basis="recalled",
    )
    bits_w: int = 2
    bits_a: int = 4

    def __post_init__(self) -> None:
        checked_bits(self.bits_w, least=2)
        checked_bits(self.bits_a, least=1)

    def weights(self) -> WeightQuantizer:
        """Whole numbers of clipped weights."""
        return ClippedWeights(self.bits_w)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid from 0 to 1."""
        return UnsignedActivation(self.bits_a, top=1.0)


# --- HORQ -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HORQ(Method):
    """High-order residual quantization: activations of *order* residual signs, ``b_i = mean|r_i|``, binary weights.

    The paper works the scales out anew for each input; tiles need the same thresholds for all, so at inference the
    running averages stand in their place.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="N3",
        name="horq",
        title="Performance Guaranteed Network Acceleration via High-Order Residual Quantization",
        paper="Li Z., Ni, Zhang, Yang, Gao, ICCV 2017",
        weights="{-a, +a}",
        activations="sum_i b_i {-1, +1}",
        granularity="C / L",
        formula="r_0 = x; b_i = mean|r_(i-1)|; r_i = r_(i-1) - b_i sgn(r_(i-1)); W_b = mean|W| sgn(W)",
        planes="1 x order",
        n_planes=(1, 2),
        exact="exact with running averages of the scales; the paper's are of each input",
        sign_zero=1,
        act_scale="layer",
        basis="recalled",
    )
    order: int = 2

    def __post_init__(self) -> None:
        checked_count("order", self.order, most=8)

    def weights(self) -> WeightQuantizer:
        """Signs with one scale per output."""
        return MeanScaledSigns()

    def activation(self, n_channels: int) -> nn.Module:
        """Residual signs with running scales."""
        return FoldableActivation(f"gf{self.order}", average="eval_only")


# --- TSQ ------------------------------------------------------------------------------------------------------------


class TwoStepWeights(BestTernaryWeights):
    """``a_c {-1, 0, +1}`` per output with the least squared error, once it `is_on`; real weights in training before.

    Source: Wang, Hu, Zhang, Zhang, Liu, Cheng, "Two-Step Quantization", CVPR 2018; its second step fits the outputs of
    the layer, not its weights, which is not done here.
    """

    is_on: Tensor

    def __init__(self) -> None:
        super().__init__(per_channel=True)
        self.register_buffer("is_on", torch.tensor(False))

    def forward(self, weight: Tensor) -> Coded:
        """Return codes and the scales; in the first step of training real numbers in the place of codes."""
        if self.is_on or not self.training:
            return super().forward(weight)
        return Coded((weight,), (weight.new_ones(()),))


@dataclass(frozen=True, kw_only=True)
class TSQ(Method):
    """Two-step quantization: half-wave activations with real weights first, then ternary weights per output.

    The weights become ternary from half of the training on. How long the paper trains each step is not known here.
    """

    settles_at: ClassVar[float] = 0.6
    record: ClassVar[MethodRecord] = MethodRecord(
        id="N4",
        name="tsq",
        title="Two-Step Quantization for Low-bit Neural Networks",
        paper="Wang P., Hu, Zhang Y., Zhang C., Liu, Cheng, CVPR 2018",
        weights="{-a, 0, +a}",
        activations="half-wave levels of 2 bits",
        granularity="C / fixed",
        formula="x_q as HWGQ; W_q = a_c T with the least squared error",
        planes="1 x 2",
        n_planes=(1, 2),
        exact="exact; weights are fitted to weights, where the paper fits them to the outputs of the layer",
        act_scale="layer",
        basis="recalled",
    )

    def weights(self) -> WeightQuantizer:
        """Ternary weights of the least squared error."""
        return TwoStepWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """The levels of HWGQ."""
        return HalfWaveActivation()

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Begin the second step at half of the training."""
        for _, quantizer in weights_and_quantizers(network, TwoStepWeights):
            quantizer.is_on.fill_(progress >= 0.5)


# --- BNN+ -----------------------------------------------------------------------------------------------------------


def swish_slope(x: Tensor, beta: float) -> Tensor:
    """Return ``beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x))``: the derivative of the SwishSign.

    ``SS(x) = 2 sigma(beta x) (1 + beta x (1 - sigma(beta x))) - 1``.
    """
    steep = (beta * x).clamp(-60.0, 60.0)  # beyond it is 0 in any case, and cosh would overflow
    return beta * (2 - steep * torch.tanh(steep / 2)) / (1 + torch.cosh(steep))


class SwishSignWeights(WeightQuantizer):
    """``a_c sgn(w)`` with ``a_c = mean|w|`` of each output; the sign has the derivative of the SwishSign.

    Source: Darabi, Belbahri, Courbariaux, Nia, "BNN+: Improved Binary Network Training", 2018.
    """

    def __init__(self, beta: float = 5.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and one scale per output."""
        scale = weight.detach().abs().mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
        slope = swish_slope(weight.detach(), self.beta)
        return Coded((surrogate(weight, signs(weight.detach()), slope),), (scale,))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class SwishSignActivation(SignActivation):
    """Signs, sgn(0) = +1, with the derivative of the SwishSign. Source: BNN+, see `SwishSignWeights`."""

    def __init__(self, beta: float = 5.0) -> None:
        super().__init__(sign_zero=1)
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Return the sign of *x*."""
        return surrogate(x, self.codes(x.detach()), swish_slope(x.detach(), self.beta))


@dataclass(frozen=True, kw_only=True)
class BNNPlus(Method):
    """BNN+: signs with the derivative of a SwishSign, and a penalty that draws weights to their scale.

    *beta* is how steep the SwishSign is, *penalty* what the loss gets times ``sum | |w| - a_c |``, where ``a_c`` is
    ``mean|w|`` of the output; the paper's values are not known for sure.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="N5",
        name="bnn-plus",
        title="BNN+: Improved Binary Network Training",
        paper="Darabi, Belbahri, Courbariaux, Nia, 2018, arXiv:1812.11800",
        weights="{-a, +a}",
        activations="{-1, +1}",
        granularity="C / -",
        formula="W_b = mean|W| sgn(W); d sgn = beta (2 - beta x tanh(beta x / 2)) / (1 + cosh(beta x)); L1 to +-a",
        planes="1 x 1",
        n_planes=(1, 1),
        sign_zero=1,
        basis="recalled",
    )
    of_network = ("penalty",)
    beta: float = 5.0
    penalty: float = 1e-6

    def __post_init__(self) -> None:
        for name, value in (("beta", self.beta), ("penalty", self.penalty)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{name}: must be finite and above 0, got {value}")

    def weights(self) -> WeightQuantizer:
        """Signs with one scale per output."""
        return SwishSignWeights(self.beta)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs."""
        return SwishSignActivation(self.beta)

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """Return the loss with the penalty of the weights."""
        total = super().loss(network, images, outputs, labels, teacher)
        for weight, _ in weights_and_quantizers(network, SwishSignWeights):
            scale = weight.detach().abs().mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
            total = total + self.penalty * (weight.abs() - scale).abs().sum()
        return total


# --- DSQ ------------------------------------------------------------------------------------------------------------

LEAST_LIMIT, LEAST_ALPHA, MOST_ALPHA = 1e-3, 1e-3, 0.499


def soft_steps(x: Tensor, low: Tensor, high: Tensor, alpha: Tensor, n_steps: int) -> Tensor:
    """Return the soft staircase of *n_steps* steps from *low* to *high*, clipped there; gradients go to all four.

    In the i-th piece, of width D and with middle m, it is ``low + D (i + (phi + 1) / 2)`` with
    ``phi = tanh(k (x - m)) / (1 - alpha)`` and ``k = log(2 / alpha - 1) / D``: alpha is how far from a hard step it is.
    """
    width = (high - low) / n_steps
    piece = ((x.detach() - low.detach()) / width.detach()).floor().clamp(0, n_steps - 1)
    middle = low + (piece + 0.5) * width
    phi = torch.tanh(torch.log(2 / alpha - 1) / width * (x - middle)) / (1 - alpha)
    inner = low + width * (piece + (phi + 1) / 2)
    return torch.where(x < low, low, torch.where(x > high, high, inner))


class SoftWeights(WeightQuantizer):
    """Weights of *bits* bits on an even grid from ``-limit`` to ``limit``, with the gradient of `soft_steps`.

    The levels are odd multiples of ``limit / (2^bits - 1)``; limit and alpha are trained.
    Source: Gong, Liu, Jiang, Li, Hu, Lin, Yu, Yan, "Differentiable Soft Quantization", ICCV 2019.
    """

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.bits = checked_bits(bits, least=1, most=8)
        self.limit, self.alpha = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.2))

    def forward(self, weight: Tensor) -> Coded:
        """Return odd whole numbers and what 1 counts for."""
        n_steps = 2**self.bits - 1
        scale = self.limit.detach() / n_steps
        soft = soft_steps(weight, -self.limit, self.limit, self.alpha, n_steps)
        codes = 2 * torch.floor(weight.detach() / (2 * scale) + 2 ** (self.bits - 1)).clamp(0, n_steps) - n_steps
        return Coded((surrogate(soft / scale, codes),), (scale,))

    def codec(self) -> Codec:
        """One plane of signs a bit."""
        return odd_binary(self.bits)


class SoftActivation(nn.Module):
    """Unsigned codes of *bits* bits up to ``limit``, from the middle between levels, with `soft_steps`' gradient.

    limit and alpha are trained; the limit starts at 2, for numbers that a batch norm has made about standard. Source:
    DSQ, see `SoftWeights`; the least level is 0 here, where the paper trains it, too.
    """

    def __init__(self, bits: int = 2) -> None:
        super().__init__()
        self.bits = checked_bits(bits, least=1, most=4)
        self.limit, self.alpha = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the level next to each number."""
        step = self.imc_quantizer()
        soft = soft_steps(x, torch.zeros_like(self.limit), self.limit, self.alpha, 2**self.bits - 1)
        return surrogate(soft, reached(x, step).to(x.dtype) * step.format.scale)

    def imc_quantizer(self) -> Threshold:
        """Return the middles between levels."""
        n_steps = 2**self.bits - 1
        width = self.limit.item() / n_steps
        middles = [(k + 0.5) * width for k in range(n_steps)]
        return threshold_step(middles, list(range(n_steps + 1)), unsigned(self.bits, width))


@dataclass(frozen=True, kw_only=True)
class DSQ(Method):
    """Differentiable soft quantization: even grids whose steps have the gradient of pieces of tanh in training."""

    record: ClassVar[MethodRecord] = MethodRecord(
        id="N6",
        name="dsq",
        title="Differentiable Soft Quantization: Bridging Full-Precision and Low-Bit Neural Networks",
        paper="Gong, Liu, Jiang, Li, Hu, Lin, Yu, Yan, ICCV 2019",
        weights="k-bit, odd multiples in [-u, u]",
        activations="k-bit unsigned in [0, u]",
        granularity="L / L",
        formula="phi = s tanh(k (x - m_i)), s = 1 / (1 - alpha), k = log(2 / alpha - 1) / D; "
        "Q = l + D (i + (sgn phi + 1) / 2)",
        planes="k x k",
        n_planes=(2, 2),
        act_scale="layer",
        basis="recalled",
    )
    bits_w: int = 2
    bits_a: int = 2

    def __post_init__(self) -> None:
        checked_bits(self.bits_w, least=1, most=8)
        checked_bits(self.bits_a, least=1, most=4)

    def weights(self) -> WeightQuantizer:
        """An even grid without 0."""
        return SoftWeights(self.bits_w)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid from 0."""
        return SoftActivation(self.bits_a)

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Begin with the limits of weights at the largest."""
        with torch.no_grad():
            for weight, quantizer in weights_and_quantizers(network, SoftWeights):
                quantizer.limit.copy_(weight.abs().max().clamp(min=LEAST_LIMIT))

    def after_step(self, network: nn.Module) -> None:
        """Keep limits above 0 and alphas where the staircase rises."""
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, SoftWeights | SoftActivation):
                    module.limit.clamp_(min=LEAST_LIMIT)
                    module.alpha.clamp_(LEAST_ALPHA, MOST_ALPHA)


METHODS: tuple[type[Method], ...] = (INQ, WRPN, HORQ, TSQ, BNNPlus, DSQ)
