"""Choices among layers and kernels: which layers are binary (FNBin), how many bits a layer gets (LIE), what a teacher
tells the layers (KTDet), and which of several kernels a sample meets (CConv).

Formulas: quantizers.md section A.2 (A7, A10, M1, M2). Of all four papers the idea is known, and no code was read: where
a formula had to be chosen, the docstring says so.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import ConfigError
from imcsim.graph import ArgMax, Product, Quantize, Threshold
from imcsim.quant.activation import SignedActivation, UnsignedActivation
from imcsim.quant.digital import DigitalLinear
from imcsim.quant.integer import checked_bits, to_integers
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.methods.xnor import ScaledSigns
from imcsim.quant.straight import rounded, scaled_gradient, straight_to_weights
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, binary, sign_magnitude

REAL_BITS = 8
"""Bits that layers are deployed with that a method leaves real."""


# --- weights --------------------------------------------------------------------------------------------------------


class LaterBinary(ScaledSigns):
    """Real weights until `make_binary`, then `ScaledSigns`.

    A layer that is still real is one in training alone: in evaluation its weights have 8 bits (`to_integers`), as a
    tile can hold them.
    """

    is_binary: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("is_binary", torch.tensor(False))

    def make_binary(self) -> None:
        """From now on the weights are binary."""
        self.is_binary.fill_(True)

    def forward(self, weight: Tensor) -> Coded:
        """Return scaled signs, the weights themselves, or codes of 8 bits."""
        if self.is_binary:
            return super().forward(weight)
        if self.training:
            return Coded((weight,), (weight.new_ones(()),))
        return straight_to_weights(weight, *to_integers(weight, REAL_BITS))

    def codec(self) -> Codec:
        """One plane, or those of 8 bits."""
        return binary() if self.is_binary else sign_magnitude(REAL_BITS)


class StepWeights(WeightQuantizer):
    """Symmetric codes of k bits with a learned step: ``s R(clip(w / s, -Q, Q))``, ``Q = 2^(k-1) - 1``.

    The gradient to s is ``R(w / s) - w / s`` inside and -+Q outside, times ``1 / sqrt(n Q)``; that to w passes inside.
    The step starts as ``2 mean|w| / sqrt(Q)`` of the weights it first meets in training. One step for all weights.
    Source: Esser et al., "Learned Step Size Quantization", ICLR 2020, with a range that is symmetric about 0.
    """

    bits: Tensor
    is_ready: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.ones(()))
        self.register_buffer("bits", torch.tensor(checked_bits(bits, least=2)))
        self.register_buffer("is_ready", torch.tensor(False))

    @property
    def greatest(self) -> int:
        """The greatest code."""
        return int((1 << (int(self.bits) - 1)) - 1)

    def first_step(self, weight: Tensor) -> Tensor:
        """Return what the step begins as; 1 where all weights are 0."""
        step = 2 * weight.detach().abs().mean() / sqrt(self.greatest)
        return torch.where(step > 0, step, torch.ones_like(step))

    def set_bits(self, bits: int) -> None:
        """Give the codes other *bits*; the step begins anew."""
        self.bits.fill_(checked_bits(bits, least=2))
        self.is_ready.fill_(False)

    def forward(self, weight: Tensor) -> Coded:
        """Return codes and the step."""
        if not self.is_ready and self.training:
            with torch.no_grad():
                self.step.copy_(self.first_step(weight))
            self.is_ready.fill_(True)
        step = self.step if self.is_ready else self.first_step(weight)
        slowed = scaled_gradient(step, 1 / sqrt(weight.numel() * self.greatest))
        steps = (weight / slowed).clamp(-self.greatest, self.greatest)
        return Coded((rounded(steps),), (slowed,))

    def codec(self) -> Codec:
        """``bits - 1`` planes: each bit of the magnitude with the sign."""
        return sign_magnitude(int(self.bits))


# --- layers that are made binary one after the other ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FNBin(Method):
    """Flexible Network Binarization: layers become binary one after the other, the deepest first, amid the training.

    Of n layers the k-th from the end becomes binary at ``(k - 1) / n`` of the training, and all layers learn on; with
    *n_layers* above 0 only so many of them, spread over the training alike. Layers that stay real are deployed with
    weights of 8 bits, and activations, real in the paper, have *bits_a* bits. When a layer's turn comes is chosen here;
    the paper's times are not known.
    """

    settles_at: ClassVar[float] = 0.9
    record: ClassVar[MethodRecord] = MethodRecord(
        id="A7",
        name="fnbin",
        title="Flexible Network Binarization with Layer-wise Priority",
        paper="Zhuang et al., ICIP 2017",
        weights="by layer {-a, +a} or real",
        activations="none; unsigned k-bit attached",
        granularity="C / L",
        formula="a_c = mean|w|, B = sgn(W); layers in inverse order of depth, all of them trained on in between",
        planes="1 (binary layers) or 7 (real ones, 8-bit) x (activation quantizer)",
        n_planes=(1, 8),
        exact="exact with the attached activation quantizer; real layers are deployed with 8-bit weights",
        role="schedule",
        act_scale="layer",
        basis="recalled",
    )
    of_network = ("n_layers",)
    bits_a: int = 8
    n_layers: int = 0

    def __post_init__(self) -> None:
        checked_bits(self.bits_a, least=1)
        if self.n_layers < 0:
            raise ConfigError(f"fnbin: n_layers must be at least 0, got {self.n_layers}; 0 makes all layers binary")

    def weights(self) -> WeightQuantizer:
        """Real at first."""
        return LaterBinary()

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, where a batch norm leaves few numbers."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))

    def turns(self, network: nn.Module) -> list[LaterBinary]:
        """Return the quantizers of the layers that become binary, in their turn: the deepest first."""
        found = [part for part in network.modules() if isinstance(part, LaterBinary)]
        return found[::-1][: self.n_layers or len(found)]

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Make those layers binary whose turn has come."""
        turns = self.turns(network)
        for k, quantizer in enumerate(turns):
            if progress >= k / len(turns):
                quantizer.make_binary()

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Make those layers binary whose turn the last step came before."""
        for quantizer in self.turns(network):
            quantizer.make_binary()


# --- layers that a teacher tells what to give -----------------------------------------------------------------------


class FeatureBlock(nn.Sequential):
    """A block that remembers, in training, what it gave last: the feature map that a teacher's is held against."""

    features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layers make of *x*."""
        x = super().forward(x)
        if self.training:
            self.features = x
        return x


@dataclass(frozen=True, kw_only=True)
class KTDet(Method):
    """Knowledge Transfer for binary-weight detectors: feature maps like those of a teacher with real weights.

    ``loss = task + weight * mean over blocks of mean (F_student - F_teacher)^2``, the teacher's block being the one of
    the same name. The weights are those of Binary-Weight-Networks, the activation a leaky ReLU, as in YOLOv2, with
    *bits_a* bits attached. Which layers the paper compares, and the weight, are not known: here it is the output of
    every block, and *transfer*.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A10",
        name="ktdet",
        title="Training a Binary Weight Object Detector by Knowledge Transfer for Autonomous Driving",
        paper="Xu et al., ICRA 2019, arXiv:1804.06332",
        weights="{-a, +a}",
        activations="none; leaky ReLU, signed k-bit attached",
        granularity="C / L",
        formula="a_c = mean|w|, B = sgn(W); loss = task + L2 between feature maps of student and teacher",
        planes="1 x (activation quantizer)",
        n_planes=(1, 7),
        needs=("leaky ReLU",),
        exact="exact with the attached activation quantizer; the paper's activations are real",
        role="distillation",
        act_scale="layer",
        basis="recalled",
    )
    of_network = ("transfer",)
    takes_teacher: ClassVar[bool] = True
    bits_a: int = 8
    slope: float = 0.1
    transfer: float = 1.0

    def __post_init__(self) -> None:
        checked_bits(self.bits_a, least=2)
        if not self.slope >= 0 or not self.transfer >= 0:
            raise ConfigError(
                f"ktdet: slope and transfer must be at least 0, got {self.slope} and {self.transfer}; "
                "0 makes a ReLU, and leaves the teacher out"
            )

    def weights(self) -> WeightQuantizer:
        """Signs with a scale an output channel."""
        return ScaledSigns()

    def activation(self, n_channels: int) -> nn.Module:
        """A leaky ReLU on an even signed grid up to about 4, where a batch norm leaves few numbers."""
        return nn.Sequential(nn.LeakyReLU(self.slope), SignedActivation(self.bits_a, scale=2.0 ** (3 - self.bits_a)))

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """The usual block, which remembers what it gave."""
        return FeatureBlock(super().block(n_in, n_out, kernel, stride=stride, padding=padding, pool=pool))

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """Return the loss of the task and that of the feature maps; *outputs* are what *network* gave last."""
        task = F.nll_loss(outputs, labels)
        ours = {name: part for name, part in network.named_modules() if isinstance(part, FeatureBlock)}
        features = {name: part.features for name, part in ours.items()}
        for part in ours.values():  # nobody needs them again, and a network that holds them cannot be copied
            part.features = None
        if teacher is None or not self.transfer or not features:
            return task
        theirs = features_of(teacher, images, features)
        differences = [F.mse_loss(_features(name, mine, theirs[name]), theirs[name]) for name, mine in features.items()]
        return task + self.transfer * torch.stack(differences).mean()


def features_of(teacher: nn.Module, images: Tensor, names: Any) -> dict[str, Tensor]:
    """Return what the parts of *teacher* called *names* give for *images*; raises ConfigError where one is missing."""
    parts = dict(teacher.named_modules())
    if missing := [name for name in names if name not in parts]:
        raise ConfigError(
            f"teacher: must have a block {missing[0]!r} as the student has, got none; build both as the same network"
        )
    found: dict[str, Tensor] = {}
    hooks = [
        parts[name].register_forward_hook(lambda _module, _inputs, output, name=name: found.update({name: output}))
        for name in names
    ]
    try:
        with torch.no_grad():
            teacher(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _features(name: str, ours: Tensor | None, theirs: Tensor) -> Tensor:
    if ours is None:
        raise ConfigError(f"{name}: must have run in training before its loss is asked for, got no feature map")
    if ours.shape != theirs.shape:
        raise ConfigError(
            f"{name}: must give feature maps like the teacher's, {tuple(theirs.shape)}, got {tuple(ours.shape)}; build "
            "both as the same network"
        )
    return ours


# --- layers that get bits by what they add --------------------------------------------------------------------------


class MixedWeights(StepWeights):
    """`StepWeights` that can be told to stay real, while a layer's use is found out."""

    is_real: bool = False

    def forward(self, weight: Tensor) -> Coded:
        """Return codes and the step, or the weights themselves."""
        return Coded((weight,), (weight.new_ones(()),)) if self.is_real else super().forward(weight)


class MixedActivation(nn.Module):
    """`UnsignedActivation` up to about 4 whose bits can be set, and which can be told to be a ReLU alone."""

    bits: Tensor
    is_real: bool = False

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.register_buffer("bits", torch.tensor(checked_bits(bits, least=1)))

    @property
    def grid(self) -> UnsignedActivation:
        """The grid of as many bits as there are now."""
        return UnsignedActivation(int(self.bits), scale=2.0 ** (2 - int(self.bits)))

    def set_bits(self, bits: int) -> None:
        """Give the codes other *bits*."""
        self.bits.fill_(checked_bits(bits, least=1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the number of the grid next to each number of *x*."""
        return F.relu(x) if self.is_real else cast(Tensor, self.grid(x))

    def imc_quantizer(self) -> Threshold | Quantize:
        """Return the grid as a step of the graph."""
        return self.grid.imc_quantizer()


class MixedBlock(nn.Sequential):
    """A block whose layers have bits of their own."""

    def set_bits(self, bits: int) -> None:
        """Give weights and activations *bits*."""
        for part in self.modules():
            if isinstance(part, MixedWeights | MixedActivation):
                part.set_bits(bits)

    def stay_real(self, is_real: bool) -> None:
        """Say whether weights and activations are to be left as they are."""
        for part in self.modules():
            if isinstance(part, MixedWeights | MixedActivation):
                part.is_real = is_real


@dataclass(frozen=True, kw_only=True)
class LIE(Method):
    """Layer Importance Estimation with Imprinting: layers that add little to the accuracy get fewer bits.

    Of each block the features are pooled over the image, and the mean of the normalised ones of a class is imprinted as
    that class's weights; the class with the greatest cosine gives an accuracy. A block's use is what its output's
    accuracy has over its input's. The *low_share* of the blocks with the least use gets *bits_low* bits, weights and
    activations, the others *bits_high*; of equals the deeper one is of less use. The paper's split into more than two
    widths, and what it pools to, are not known.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M2",
        name="lie",
        title="Layer Importance Estimation with Imprinting for Neural Network Quantization",
        paper="Liu, Elkerdawy, Ray, Elhoushi, CVPR Workshops 2021",
        weights="k-bit symmetric, k by layer",
        activations="k-bit unsigned, k by layer",
        granularity="L / L",
        formula="w_y = mean of normalised pooled features of class y; rank layers by gain in accuracy -> bits a layer",
        planes="(k - 1) x k, k by layer",
        n_planes=(3, 4),
        needs=("bits by layer",),
        role="bit allocation",
        act_scale="layer",
        basis="recalled",
    )
    of_network = ("bits_low", "bits_high", "low_share")
    bits_low: int = 2
    bits_high: int = 4
    low_share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("bits_low", "bits_high"):
            checked_bits(getattr(self, name), least=2)
        if self.bits_low > self.bits_high:
            raise ConfigError(f"lie: bits_low must not exceed bits_high, got {self.bits_low} and {self.bits_high}")
        if not 0 <= self.low_share <= 1:
            raise ConfigError(f"lie: low_share must be from 0 to 1, got {self.low_share}; it is a share of the blocks")

    def weights(self) -> WeightQuantizer:
        """The greater number of bits, until they are allocated."""
        return MixedWeights(self.bits_high)

    def activation(self, n_channels: int) -> nn.Module:
        """The greater number of bits, until they are allocated."""
        return MixedActivation(self.bits_high)

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """The usual block, which gets bits of its own."""
        return MixedBlock(super().block(n_in, n_out, kernel, stride=stride, padding=padding, pool=pool))

    def allocate(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Rank the blocks of *network*, with the real weights that it has, and give each its bits."""
        blocks = [part for part in network.modules() if isinstance(part, MixedBlock)]
        gains = gains_of(network, blocks, images, labels)
        least_first = sorted(range(len(blocks)), key=lambda i: (gains[i], -i))
        n_low = round(self.low_share * len(blocks))
        for rank, i in enumerate(least_first):
            blocks[i].set_bits(self.bits_low if rank < n_low else self.bits_high)


def gains_of(network: nn.Module, blocks: list[MixedBlock], images: Tensor, labels: Tensor) -> list[float]:
    """Return by how much the imprinted accuracy of each block's output exceeds that of its input, block by block.

    *network* runs on real weights and activations in evaluation mode, and is left in the mode it was in.
    """
    met: list[tuple[Tensor, Tensor]] = []
    hooks = [
        block.register_forward_hook(lambda _module, inputs, output: met.append((inputs[0], output))) for block in blocks
    ]
    was_training = network.training
    try:
        network.eval()
        for block in blocks:
            block.stay_real(True)
        with torch.no_grad():
            network(images)
    finally:
        network.train(was_training)
        for block in blocks:
            block.stay_real(False)
        for hook in hooks:
            hook.remove()
    return [imprinted_accuracy(after, labels) - imprinted_accuracy(before, labels) for before, after in met]


def imprinted_accuracy(features: Tensor, labels: Tensor) -> float:
    """Return the share of samples that class weights imprinted from *features* (b c ...) put into their class.

    The features go through a ReLU, as on their way to the next layer, are averaged over the image and normalised; the
    normalised mean of each class is its weights, and the greatest product decides.
    Source: Qi, Brown, Lowe, "Low-Shot Learning with Imprinted Weights", CVPR 2018.
    """
    pooled = F.relu(features)
    pooled = F.normalize(pooled.flatten(2).mean(dim=2) if pooled.ndim > 2 else pooled, dim=1)
    classes = labels.unique()
    imprinted = F.normalize(torch.stack([pooled[labels == label].mean(dim=0) for label in classes]), dim=1)
    return float((classes[(pooled @ imprinted.T).argmax(dim=1)] == labels).double().mean())


# --- kernels that a gate chooses from -------------------------------------------------------------------------------


class WinnerTakesAll(nn.Module):
    """Which of *n_choices* numbers (b n_choices) is the greatest.

    In training the winners as ones among zeros (b n_choices), with the gradient of a softmax; in evaluation their
    numbers (b 1), as a chip has them.
    """

    def __init__(self, n_choices: int) -> None:
        super().__init__()
        self.n_choices = n_choices

    def forward(self, x: Tensor) -> Tensor:
        """Return the winners; the first one of equals."""
        winner = x.argmax(dim=1, keepdim=True)
        if not self.training:
            return winner.to(x.dtype)
        soft = F.softmax(x, dim=1)
        return torch.zeros_like(x).scatter(1, winner, 1.0) + (soft - soft.detach())

    def imc_steps(self) -> tuple[ArgMax]:
        """Return the choice as a digital step."""
        return (ArgMax(self.n_choices),)


class ExpertConv2d(QuantizedWeights, nn.Conv2d):
    """*n_experts* convolutions of one shape, the outputs of one after those of another, of which a sample uses one.

    All have one step or scale, that of *weight_quantizer*. Takes the arguments of `torch.nn.Conv2d` for one of them,
    without bias.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: int,
        *,
        n_experts: int,
        weight_quantizer: WeightQuantizer,
        stride: int = 1,
        padding: int = 0,
    ) -> None:
        super().__init__(n_in, n_experts * n_out, kernel, stride=stride, padding=padding, bias=False)
        self.n_experts, self.weight_quantizer = n_experts, weight_quantizer

    def forward(self, x: Tensor, choice: Tensor) -> Tensor:  # type: ignore[override]  # it takes a choice beside
        """Return (b n_out h w): of each sample of *x* what the kernel of *choice* makes, as `WinnerTakesAll` gives it.

        NOTE: every kernel meets every sample, since a batch goes through torch in one go.
        """
        weights, scale = self._times()
        y = F.conv2d(x, weights, None, self.stride, cast(tuple[int, int], self.padding))
        y = y if scale is None else y * scale
        y = y.unflatten(1, (self.n_experts, -1))  # b e c h w
        if self.training:
            return (y * choice[:, :, None, None, None]).sum(dim=1)
        return y[torch.arange(len(y)), choice[:, 0].long()]

    def imc_product(self) -> Product:
        """Return the kernels as one `Product`."""
        return self._product(
            "conv2d",
            stride=cast(tuple[int, int], self.stride),
            padding=cast(tuple[int, int], self.padding),
            n_experts=self.n_experts,
        )


class GatedConv2d(nn.Module):
    """A convolution whose kernel a gate chooses: mean of each input channel over the image, a linear map, the winner.

    The gate is a *digital* one, with real weights. Takes the arguments of `ExpertConv2d`.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, *, n_experts: int, **others: Any) -> None:
        super().__init__()
        self.gate = DigitalLinear(n_in, n_experts)
        self.winner = WinnerTakesAll(n_experts)
        self.experts = ExpertConv2d(n_in, n_out, kernel, n_experts=n_experts, **others)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the chosen kernels make of *x* (b c h w)."""
        return cast(Tensor, self.experts(x, self.winner(self.gate(x.mean(dim=(2, 3))))))


@dataclass(frozen=True, kw_only=True)
class CConv(Method):
    """Conditional convolution: of *n_experts* quantized kernels a gate picks one for each sample, winner takes all.

    The gate sees the layer's quantized input, pooled over the image; its gradient is that of a softmax. Kernels have
    *bits_w* bits with one learned step for all kernels of a layer (`StepWeights`), activations *bits_a* bits: which
    quantizer the paper hosts, and how the gate learns, are not known for sure. Linear layers have one kernel.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="M1",
        name="cconv",
        title="Conditional Computation for Quantized Neural Networks",
        paper="Pham et al., Electronics, 2021",
        weights="k-bit symmetric, E kernels",
        activations="k-bit unsigned",
        granularity="L / L",
        formula="e(x) = argmax(V mean_hw(x) + b), y = W_e(x) * x",
        planes="(k - 1) x k, E times the cells",
        n_planes=(1, 2),
        needs=("gate of real weights", "bank select per sample"),
        exact="exact; time and energy are those of one kernel a sample, the first one of the layer",
        role="architecture",
        act_scale="layer",
        basis="recalled",
    )
    n_experts: int = 2
    bits_w: int = 2
    bits_a: int = 2

    def __post_init__(self) -> None:
        checked_bits(self.bits_w, least=2)
        checked_bits(self.bits_a, least=1)
        if self.n_experts < 2:
            raise ConfigError(f"cconv: n_experts must be at least 2, got {self.n_experts}; one kernel needs no gate")

    def weights(self) -> WeightQuantizer:
        """An even grid with a learned step."""
        return StepWeights(self.bits_w)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, where a batch norm leaves few numbers."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Several kernels and their gate."""
        return GatedConv2d(
            n_in,
            n_out,
            kernel,
            n_experts=self.n_experts,
            stride=stride,
            padding=padding,
            weight_quantizer=self.weights(),
        )


METHODS: tuple[type[Method], ...] = (FNBin, KTDet, CConv, LIE)
