"""Binary weights with scales, and what stands between a binary convolution and its batch norm: XNOR-Net and its kin.

Formulas: quantizers.md section A.2 (A3, B6, B7, B9, B10). Each layer is one plane of -1 and +1 by one pass of signs,
but for the k-bit options of BMXNet; scales, K maps, tables and channel mixes belong to the digital side.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)
from torch.nn.parameter import UninitializedParameter, is_lazy

from imcsim.errors import ConfigError
from imcsim.graph import Affine, ChannelMix, SpatialAffine, Step
from imcsim.quant.activation import SignActivation, UnsignedActivation
from imcsim.quant.integer import checked_bits
from imcsim.quant.layers import QuantizedConv2d, weights_and_quantizers
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.methods.binary import SignWeights, clip_latent_weights
from imcsim.quant.methods.uniform import DoReFaWeights
from imcsim.quant.straight import rounded, signs, surrogate
from imcsim.quant.weights import Coded, WeightQuantizer, as_float64, as_whole
from imcsim.ternary import Codec, binary

# --- XNOR-Net -------------------------------------------------------------------------------------------------------


class ScaledSigns(WeightQuantizer):
    """``a_c sgn(w)``, ``a_c`` the mean of ``|w|`` over the filter of output c; least squares of all ``a_c {-1, +1}``.

    With g the gradient to ``a sgn(w)`` and n weights in a filter, the latent weights get
    ``sgn(w_i) sum_j g_j sgn(w_j) / n + g_i a 1[|w_i| < 1]``. sgn(0) is *sign_zero*.
    Source: Rastegari et al., "XNOR-Net", ECCV 2016, with the gradient as the common PyTorch port corrects it.
    """

    def __init__(self, sign_zero: int = 1) -> None:
        super().__init__()
        self.sign_zero = sign_zero

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and their scales (c 1 ...), both with their gradient."""
        inside = (weight.abs() < 1).to(weight.dtype)
        codes = surrogate(weight, signs(weight, self.sign_zero), inside)
        return Coded((codes,), (weight.abs().mean(dim=tuple(range(1, weight.ndim)), keepdim=True),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class MagnitudeScaled(nn.Module):
    """A layer of real numbers whose outputs are multiplied by how large its inputs are: XNOR-Net's K.

    ``product(activation(x)) * K``; for a convolution K (b 1 h' w') is the mean of ``|x|`` over the channels and over
    each window of the convolution, where padding counts as 0; for a linear layer it is the mean of ``|x|`` (b 1).
    """

    def __init__(self, activation: nn.Module, product: nn.Module, conv: QuantizedConv2d | None) -> None:
        super().__init__()
        self.activation, self.product = activation, product
        self.window = None if conv is None else (conv.kernel_size, conv.stride, conv.padding)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product, times K."""
        size = x.abs().mean(1, keepdim=True)
        if self.window is not None:
            kernel, stride, padding = self.window
            size = F.avg_pool2d(size, kernel, stride, cast(tuple[int, int], padding))
        return cast(Tensor, self.product(self.activation(x)) * size)


@dataclass(frozen=True, kw_only=True)
class XnorNet(Method):
    """XNOR-Net: ``I * W ~ (sgn(I) * sgn(W)) K a``, with ``a = mean|W|`` of each filter and K of `MagnitudeScaled`.

    The paper has K, the authors' code has not: *k_map* says. As in that code, latent weights are centred over the
    input channels and clamped to [-1, 1] before they are used (*center*). With *weights_only* this is BWN: real
    activations in the paper, even grids of *bits_a* bits here.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A3",
        name="xnor-net",
        title="XNOR-Net, and BWN (weights_only=true)",
        paper="Rastegari, Ordonez, Redmon, Farhadi, ECCV 2016, arXiv:1603.05279",
        weights="{-a, +a}",
        activations="{-1, +1}, times K with k_map=true; BWN: none, unsigned k-bit attached",
        granularity="C / S (K)",
        formula="B = sgn(W), a = |W|_1 / n; K = box filter of mean_c|I|; y = (sgn(I) * B) K a",
        planes="1 x 1; BWN: 1 x (activation quantizer)",
        n_planes=(1, 1),
        needs=("with k_map=true: mean of magnitudes, average pool and a multiplication for each pixel",),
        exact="exact; BWN with the attached activation quantizer, where the paper's activations are real",
        sign_zero=0,
        act_scale="none",
        basis="published",
    )
    of_network = ("center",)
    k_map: bool = False
    center: bool = True
    weights_only: bool = False
    bits_a: int = 8

    def __post_init__(self) -> None:
        """Raise ConfigError for options that do not go together."""
        checked_bits(self.bits_a, least=1)
        if self.k_map and self.weights_only:
            raise ConfigError(
                "xnor-net: k_map must be false with weights_only, got both; K is the scale of binary activations"
            )

    def weights(self) -> WeightQuantizer:
        """Signs with a scale for each filter; sgn(0) = 0 as in torch."""
        return ScaledSigns(sign_zero=0)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = 0 as in torch; for BWN an even grid up to about 4."""
        if self.weights_only:
            return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))
        return SignActivation(sign_zero=0)

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution of real numbers, with the K map if asked for."""
        if not self.k_map:
            return super().conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)
        conv = cast(QuantizedConv2d, self.conv(n_in, n_out, kernel, stride=stride, padding=padding))
        return MagnitudeScaled(self.activation(n_in), conv, conv)

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer of real numbers, with its K if asked for."""
        if not self.k_map:
            return super().linear_layer(n_in, n_out)
        return MagnitudeScaled(self.activation(n_in), self.linear(n_in, n_out), None)

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Centre and clamp the latent weights for the first step."""
        self.after_step(network)

    def after_step(self, network: nn.Module) -> None:
        """Centre and clamp the latent weights: the code does so before each step and each test."""
        with torch.no_grad():
            for weight, _ in weights_and_quantizers(network, ScaledSigns):
                if self.center and weight.shape[1] > 1:  # one channel less its mean would be nothing
                    weight.sub_(weight.mean(dim=1, keepdim=True))
                weight.clamp_(-1, 1)


# --- CI-BCNN --------------------------------------------------------------------------------------------------------


class ChannelInteraction(nn.Module):
    """Popcounts corrected by those of other channels: ``y_s + sum_t k_st y_t``, k whole multiples of ``1 / unit``.

    Takes and gives (b c ...). Channels t that channel s is corrected by are its `edges`; there are none at first. The
    sums are whole numbers, ``unit y_s + sum_t (unit k_st) y_t``, divided by *unit*, a power of two, at the end.
    Rounding to whole strengths passes the gradient straight through to the latent `strengths` (c c).
    """

    edges: Tensor
    """bool (c c): whether channel s (row) is corrected by channel t (column)."""

    def __init__(self, n_channels: int, *, unit: int = 4) -> None:
        super().__init__()
        self.unit = unit
        self.strengths = nn.Parameter(torch.zeros(n_channels, n_channels))
        self.register_buffer("edges", torch.zeros(n_channels, n_channels, dtype=torch.bool))

    def matrix(self) -> Tensor:
        """Return the whole-number matrix (c c), *unit* on the diagonal."""
        return rounded(self.strengths * self.unit) * self.edges + self.unit * torch.eye(len(self.edges))

    def forward(self, y: Tensor) -> Tensor:
        """Return the corrected popcounts."""
        matrix = self.matrix().to(y.dtype)
        mixed = F.linear(y, matrix) if y.ndim == 2 else F.conv2d(y, matrix[:, :, None, None])
        return mixed / self.unit

    def choose(self, popcounts: Tensor, n_edges: int) -> None:
        """Correct each channel by the *n_edges* others whose *popcounts* (b c ...) go most with its own.

        Strengths start at ``1 / unit`` with the sign of the correlation.
        """
        samples = popcounts.detach().double().transpose(0, 1).flatten(1)
        samples = samples - samples.mean(dim=1, keepdim=True)
        sizes = samples.norm(dim=1)
        correlation = samples @ samples.T / (sizes[:, None] * sizes).clamp(min=torch.finfo(torch.float64).tiny)
        correlation.fill_diagonal_(0)
        nearest = correlation.abs().topk(min(n_edges, len(correlation) - 1), dim=1).indices
        with torch.no_grad():
            self.edges.zero_().scatter_(1, nearest, value=True)
            self.strengths.copy_(torch.sign(correlation) * self.edges / self.unit)

    def imc_steps(self) -> tuple[Step, ...]:
        """Return the mix of whole numbers and the division."""
        return (
            ChannelMix(as_whole(self.matrix())),
            Affine(as_float64(torch.tensor(1 / self.unit)), as_float64(torch.tensor(0.0))),
        )


@dataclass(frozen=True, kw_only=True)
class CIBCNN(Method):
    """Channel-wise Interaction: popcounts of a few other channels correct each popcount before batch norm and sign.

    ``y'_s = y_s + sum_t d(y_t; k_st)``. Known of the paper is that d gives whole numbers, that the graph is sparse,
    and that edges and strengths come from a policy found by reinforcement learning. The form taken here is linear,
    ``d = k_st y_t`` with k a multiple of ``1 / unit``. In place of the policy, `initialise` gives each channel the
    *n_edges* others whose popcounts correlate most with its own, and strengths are trained with the weights.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B6",
        name="ci-bcnn",
        title="Learning Channel-wise Interactions for Binary Convolutional Neural Networks",
        paper="Wang, Lu, Tao, Zhou, Tian, CVPR 2019",
        weights="{-1, +1}",
        activations="{-1, +1}",
        granularity="- / - and a graph of channels",
        formula="y'_s = y_s + sum_t k_st y_t over few t, k_st whole multiples of 1 / unit; then batch norm and sign",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("a sparse whole-number mix of channels behind the products",),
        exact="exact for the linear form; the paper's function d and its policy are not known here",
        sign_zero=1,
        basis="recalled",
    )
    of_network = ("n_edges",)
    n_edges: int = 2
    unit: int = 4

    def __post_init__(self) -> None:
        """Raise ConfigError for options out of range."""
        if self.n_edges < 0:
            raise ConfigError(f"ci-bcnn: n_edges must be at least 0, got {self.n_edges}")
        if self.unit < 1 or self.unit & (self.unit - 1):
            raise ConfigError(f"ci-bcnn: unit must be a power of two, got {self.unit}")

    def weights(self) -> WeightQuantizer:
        """Signs of height 1."""
        return SignWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1."""
        return SignActivation(sign_zero=1)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution whose popcounts correct each other."""
        conv = super().conv(n_in, n_out, kernel, stride=stride, padding=padding)
        return nn.Sequential(conv, ChannelInteraction(n_out, unit=self.unit))

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer whose popcounts correct each other."""
        return nn.Sequential(super().linear(n_in, n_out), ChannelInteraction(n_out, unit=self.unit))

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Choose the edges by the popcounts of *images*."""
        found: dict[ChannelInteraction, Tensor] = {}

        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            found[cast(ChannelInteraction, module)] = inputs[0].detach()

        mixes = [module for module in network.modules() if isinstance(module, ChannelInteraction)]
        hooks = [module.register_forward_pre_hook(note) for module in mixes]
        try:
            with torch.no_grad():
                network(images)
        finally:
            for hook in hooks:
                hook.remove()
        for module, popcounts in found.items():
            module.choose(popcounts, self.n_edges)

    def after_step(self, network: nn.Module) -> None:
        """Clip the latent weights to [-1, 1]."""
        clip_latent_weights(network, SignWeights)


# --- XNOR-Net++ -----------------------------------------------------------------------------------------------------


class OutputScale(nn.Module):
    """Learned scales of outputs (b c h w) or (b c): ``y * Gamma``, in one of the four shapes of XNOR-Net++.

    case 1: ``a_c``; case 2: a table (c h w); case 3: ``a_c b_hw``; case 4: ``a_c b_h g_w``. Tables over the image are
    made, as ones, when the first outputs or a saved state say how large it is. Outputs (b c) take case 1 only.
    Source: Bulat, Tzimiropoulos, "XNOR-Net++", BMVC 2019.
    """

    def __init__(self, n_channels: int, case: int = 4) -> None:
        super().__init__()
        self.case = checked_case(case)
        self.axes: dict[str, str] = {
            1: {"alpha": "c"},
            2: {"gamma": "chw"},
            3: {"alpha": "c", "beta": "hw"},
            4: {"alpha": "c", "beta": "h", "gamma": "w"},
        }[case]
        for name, axes in self.axes.items():
            known = nn.Parameter(torch.ones(n_channels, 1, 1)) if axes == "c" else UninitializedParameter()
            self.register_parameter(name, cast(nn.Parameter, known))

    def table(self) -> Tensor:
        """Return Gamma (c|1 h|1 w|1)."""
        parts = [cast(Tensor, getattr(self, name)) for name in self.axes]
        return math.prod(parts[1:], start=parts[0])

    def forward(self, y: Tensor) -> Tensor:
        """Return the outputs times Gamma."""
        if y.ndim == 2:
            return y * self.table().flatten()
        for name, axes in self.axes.items():
            if is_lazy(getattr(self, name)):
                sizes = dict(zip("chw", y.shape[1:], strict=True))
                self._start(name, tuple(sizes[axis] if axis in axes else 1 for axis in "chw"))
        return y * self.table()

    def _start(self, name: str, shape: tuple[int, ...]) -> None:
        parameter = cast(UninitializedParameter, getattr(self, name))
        with torch.no_grad():
            parameter.materialize(shape)
            parameter.fill_(1.0)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        for name in self.axes:
            parameter = getattr(self, name)
            if not is_lazy(parameter):
                destination[prefix + name] = parameter if keep_vars else parameter.detach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.axes:
            if is_lazy(getattr(self, name)) and prefix + name in state_dict:
                self._start(name, tuple(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def imc_steps(self) -> tuple[Step, ...]:
        """Return Gamma as a scale for each channel, or as a table over the image."""
        table = as_float64(self.table())
        if table.shape[1:] == (1, 1):
            return (Affine(table.reshape(-1), 0.0),)  # type: ignore[arg-type]
        return (SpatialAffine(table),)

    def extra_repr(self) -> str:
        """Return the case."""
        return f"case={self.case}"


def checked_case(case: int) -> int:
    """Return *case*; raises ConfigError unless it is one of the paper's four."""
    if case not in (1, 2, 3, 4):
        raise ConfigError(f"xnor-net++: case must be 1, 2, 3 or 4, got {case!r}")
    return case


@dataclass(frozen=True, kw_only=True)
class XnorNetPlusPlus(Method):
    """XNOR-Net++: ``Y = (sgn(I) * sgn(W)) Gamma``, Gamma learned; its four shapes are those of `OutputScale`.

    Case 4, the paper's best, by default. Gamma starts at ones, which is a choice: a batch norm follows. Linear layers
    have no image and take case 1.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B7",
        name="xnor-net++",
        title="XNOR-Net++: Improved Binary Neural Networks",
        paper="Bulat, Tzimiropoulos, BMVC 2019, arXiv:1909.13863",
        weights="{-1, +1}",
        activations="{-1, +1}",
        granularity="C, or C x S of rank 1 / -",
        formula="Y = (sgn(I) * sgn(W)) Gamma; Gamma = a_c | dense (c h w) | a_c b_hw | a_c b_h g_w",
        planes="1 x 1",
        n_planes=(1, 1),
        needs=("cases 2 to 4: a scale for each pixel, which is fixed",),
        sign_zero=1,
        basis="recalled",
    )
    case: int = 4

    def __post_init__(self) -> None:
        """Raise ConfigError for a case that the paper has not."""
        checked_case(self.case)

    def weights(self) -> WeightQuantizer:
        """Signs of height 1."""
        return SignWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1."""
        return SignActivation(sign_zero=1)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution and the scales of its outputs."""
        conv = super().conv(n_in, n_out, kernel, stride=stride, padding=padding)
        return nn.Sequential(conv, OutputScale(n_out, self.case))

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer with a scale for each output."""
        return nn.Sequential(super().linear(n_in, n_out), OutputScale(n_out, 1))

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Make the tables over the image, as large as one image shows."""
        was_training = network.training
        with torch.no_grad():
            network.eval()(images[:1])
        network.train(was_training)


# --- BMXNet ---------------------------------------------------------------------------------------------------------


class PopcountRange(nn.Module):
    """Sums of *n* products of signs, from -n to n, as counts from 0 to n: ``(y + n) / 2``."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, y: Tensor) -> Tensor:
        """Return the counts."""
        return (y + self.n) / 2

    def extra_repr(self) -> str:
        """Return how many products a sum has."""
        return f"n={self.n}"


def _bmxnet_weights(bits: int) -> WeightQuantizer:
    return SignWeights() if bits == 1 else DoReFaWeights(bits)


def _bmxnet_activation(bits: int) -> nn.Module:
    return SignActivation(sign_zero=1) if bits == 1 else UnsignedActivation(bits, top=1.0)


def _bmxnet_pad(bits: int) -> int:
    """Return what padding brings in: -1 among signs; 0 among codes from 0, which have no -1."""
    return -1 if bits == 1 else 0


SCALINGS = ("none", "binet", "xnor")


@dataclass(frozen=True, kw_only=True)
class BMXNet2(Method):
    """BMXNet-v2: signs without scales, padded with -1; the sums of n products become counts, ``(h + n) / 2``.

    *scaling* "binet" has ``a_c = mean|w|`` for each filter, with the gradient through it; "xnor" has ``a_c`` and the K
    map of XNOR-Net; with either, sums stay as they are. *bits_w* and *bits_a* above 1 are DoReFa's: grids, padded with
    0, sums as they are. In the K map padding counts as 0, which is not known for sure.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B9",
        name="bmxnet-v2",
        title="Training Competitive Binary Neural Networks from Scratch (BMXNet-v2)",
        paper="Bethge, Bornstein, Loy, Yang, Meinel, 2018, arXiv:1812.01965",
        weights="{-1, +1}; {-a, +a} with scaling; k-bit in [-1, 1]",
        activations="{-1, +1}; times K with scaling=xnor; k-bit in [0, 1]",
        granularity="-, or C (+ K) / -, or S",
        formula="y = (sgn(x) * sgn(w) + n) / 2; binet: a_c (sgn(x) * sgn(w)); xnor: a_c K (sgn(x) * sgn(w))",
        planes="1 x 1, or k x k",
        n_planes=(1, 1),
        needs=("with scaling=xnor: mean of magnitudes, average pool and a multiplication for each pixel",),
        sign_zero=1,
        pad=-1,
        basis="published",
    )
    bits_w: int = 1
    bits_a: int = 1
    scaling: str = "none"

    def __post_init__(self) -> None:
        """Raise ConfigError for options that do not go together."""
        checked_bits(self.bits_w, least=1)
        checked_bits(self.bits_a, least=1)
        if self.scaling not in SCALINGS:
            raise ConfigError(f"bmxnet-v2: scaling must be one of {', '.join(SCALINGS)}, got {self.scaling!r}")
        if self.scaling != "none" and (self.bits_w, self.bits_a) != (1, 1):
            raise ConfigError(
                f"bmxnet-v2: scaling must be none for more than 1 bit, got {self.scaling} with bits_w={self.bits_w} "
                f"and bits_a={self.bits_a}"
            )

    @property
    def counts(self) -> bool:
        """Whether sums become counts of products that are +1."""
        return self.scaling == "none" and self.bits_w == self.bits_a == 1

    def weights(self) -> WeightQuantizer:
        """Signs, with a scale for each filter if asked for, or DoReFa's grid."""
        return ScaledSigns(sign_zero=1) if self.scaling != "none" else _bmxnet_weights(self.bits_w)

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1, or DoReFa's grid from 0 to 1."""
        return _bmxnet_activation(self.bits_a)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution of signs padded with -1, and its counts where there are no scales."""
        conv = self._conv(n_in, n_out, kernel, stride, padding)
        return nn.Sequential(conv, PopcountRange(n_in * kernel * kernel)) if self.counts else conv

    def _conv(self, n_in: int, n_out: int, kernel: int, stride: int, padding: int) -> QuantizedConv2d:
        return QuantizedConv2d(
            n_in,
            n_out,
            kernel,
            stride=stride,
            padding=padding,
            bias=False,
            pad_value=_bmxnet_pad(self.bits_a),
            weight_quantizer=self.weights(),
        )

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer of signs, and its counts where there are no scales."""
        linear = super().linear(n_in, n_out)
        return nn.Sequential(linear, PopcountRange(n_in)) if self.counts else linear

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution of real numbers, with a K map if asked for."""
        if self.scaling != "xnor":
            return super().conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)
        conv = self._conv(n_in, n_out, kernel, stride, padding)
        return MagnitudeScaled(self.activation(n_in), conv, conv)

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer of real numbers, with its K if asked for."""
        if self.scaling != "xnor":
            return super().linear_layer(n_in, n_out)
        return MagnitudeScaled(self.activation(n_in), self.linear(n_in, n_out), None)


@dataclass(frozen=True, kw_only=True)
class BMXNet(Method):
    """BMXNet: layers of *weight_bit* and *act_bit* bits; with 1 bit both, sums of n products become ``(x + n) / 2``.

    1 bit is the sign, padded with -1 among activations; more bits are DoReFa's grids, padded with 0. The code takes
    1 to 31 bits, this 1 to 16.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="B10",
        name="bmxnet",
        title="BMXNet: An Open-Source Binary Neural Network Implementation Based on MXNet",
        paper="Yang, Fritzsche, Bartz, Meinel, ACM Multimedia 2017, arXiv:1705.09864",
        weights="{-1, +1}; k-bit in [-1, 1]",
        activations="{-1, +1}; k-bit in [0, 1]",
        granularity="- / L",
        formula="y = (sgn(x) * sgn(w) + n) / 2; k > 1: DoReFa",
        planes="1 x 1, or k x k",
        n_planes=(1, 1),
        sign_zero=1,
        pad=-1,
        basis="recalled",
    )
    act_bit: int = 1
    weight_bit: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for bits that no grid has."""
        checked_bits(self.act_bit, least=1)
        checked_bits(self.weight_bit, least=1)

    def _host(self) -> BMXNet2:
        return BMXNet2(bits_w=self.weight_bit, bits_a=self.act_bit)

    def weights(self) -> WeightQuantizer:
        """Signs, or DoReFa's grid."""
        return self._host().weights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1, or DoReFa's grid from 0 to 1."""
        return self._host().activation(n_channels)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution, and its counts where both have 1 bit."""
        return self._host().conv(n_in, n_out, kernel, stride=stride, padding=padding)

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer, and its counts where both have 1 bit."""
        return self._host().linear(n_in, n_out)


METHODS: tuple[type[Method], ...] = (XnorNet, CIBCNN, XnorNetPlusPlus, BMXNet2, BMXNet)

REPEATS: tuple[MethodRecord, ...] = (
    replace(XnorNet.record, id="B12", name="xnor-net-eccv", title="XNOR-Net (ECCV 2016)", same_as="A3"),
)
