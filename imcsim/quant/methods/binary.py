"""Binary weights and activations without scales: BinaryConnect, BNN and those that train the same levels otherwise.

Formulas: quantizers.md section A.2 (A1, A2, A11, A12, A14). Each layer is one plane of -1 and +1.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import Threshold
from imcsim.quant.activation import SignActivation, UnsignedActivation
from imcsim.quant.integer import checked_bits
from imcsim.quant.layers import QuantizedConv2d, weights_and_quantizers
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import signs, surrogate, window
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, PlaneSum, binary

# --- BNN ------------------------------------------------------------------------------------------------------------


class SignWeights(WeightQuantizer):
    """``height * sgn(w)``, sgn(0) = +1; the gradient passes where ``|w| <= 1``, as through a hard tanh."""

    def __init__(self, height: float = 1.0) -> None:
        super().__init__()
        self.height = height

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and the height."""
        codes = surrogate(weight, signs(weight), window(weight))
        return Coded((codes,), (weight.new_tensor(self.height),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


@dataclass(frozen=True, kw_only=True)
class BNN(Method):
    """Binarized Neural Networks: signs of latent weights, clipped to [-1, 1] after each step, and signs of sums."""

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A2",
        name="bnn",
        title="Binarized Neural Networks",
        paper="Courbariaux, Hubara, Soudry, El-Yaniv, Bengio, 2016, arXiv:1602.02830",
        weights="{-1, +1}",
        activations="{-1, +1}",
        granularity="- / -",
        formula="W_b = sgn(W), x_b = 2 R(clip((x + 1) / 2, 0, 1)) - 1; gradient 1[|x| <= 1]",
        planes="1 x 1",
        n_planes=(1, 1),
        sign_zero=1,
        basis="published",
    )

    def weights(self) -> WeightQuantizer:
        """Signs of height 1."""
        return SignWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1."""
        return SignActivation(sign_zero=1)

    def after_step(self, network: nn.Module) -> None:
        """Clip the latent weights to [-1, 1]."""
        clip_latent_weights(network, SignWeights)


def clip_latent_weights(network: nn.Module, kind: type[WeightQuantizer], limit: float = 1.0) -> None:
    """Clip the latent weights of the layers whose quantizer is of *kind* to ``[-limit, limit]``."""
    with torch.no_grad():
        for weight, _ in weights_and_quantizers(network, kind):
            weight.clamp_(-limit, limit)


# --- BinaryConnect --------------------------------------------------------------------------------------------------


class ConnectWeights(WeightQuantizer):
    """``H * sgn(w)``, sgn(0) = +1; all of the gradient to ``W_b`` goes to the latent weights ``w`` (c ...).

    *height* is H, or None for Glorot's ``sqrt(1.5 / (fan_in + fan_out))`` of each layer. With *stochastic*, training
    draws +H with the probability ``clip((w / H + 1) / 2, 0, 1)``, and a test takes the real weights, which are no
    planes. Source: Courbariaux, Bengio, David, "BinaryConnect", NIPS 2015, and the authors' code.
    """

    def __init__(self, height: float | None = 1.0, *, stochastic: bool = False) -> None:
        super().__init__()
        if height is not None and not 0 < height < math.inf:
            raise ConfigError(f"height: must be finite and above 0, or None for Glorot's, got {height}")
        self.height, self.stochastic = height, stochastic

    def height_of(self, weight: Tensor) -> float:
        """Return H for a layer with this *weight*."""
        return glorot_height(weight) if self.height is None else self.height

    def forward(self, weight: Tensor) -> Coded:
        """Return signs and the height; the real weights where a stochastic quantizer is tested."""
        height = self.height_of(weight)
        if not self.stochastic:
            codes = signs(weight)
        elif self.training:
            codes = torch.where(torch.rand_like(weight) < (weight.detach() / height + 1) / 2, 1.0, -1.0)
        else:
            return Coded((weight,), (weight.new_tensor(1.0),))
        return Coded((surrogate(weight, codes.to(weight.dtype), 1 / height),), (weight.new_tensor(height),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()

    def plane_sum(self, weight: Tensor) -> PlaneSum:
        """Return one plane; raises GraphError for a stochastic quantizer, which is tested with real weights."""
        if self.stochastic:
            raise GraphError(
                "binaryconnect: weights must be planes, got the real weights that stochastic=true is tested with; "
                "train with stochastic=false"
            )
        return super().plane_sum(weight)


def glorot_height(weight: Tensor) -> float:
    """Return ``sqrt(1.5 / (fan_in + fan_out))`` of a layer with *weight* (c_out c_in ...)."""
    n_taps = math.prod(weight.shape[2:])
    return math.sqrt(1.5 / ((weight.shape[0] + weight.shape[1]) * n_taps))


@dataclass(frozen=True, kw_only=True)
class BinaryConnect(Method):
    """BinaryConnect: ``W_b = H (2 1[s(W / H) >= 1/2] - 1)``, ``s(x) = clip((x + 1) / 2, 0, 1)``; real activations.

    W is clipped to [-H, H] after each step. *glorot* takes Glorot's coefficient of each layer for H in place of 1, and
    *glorot_rates* divides the learning rate of each layer by that coefficient, as the paper does for Adam. The weights
    alone are quantized; activations are even grids of *bits_a* bits. With *stochastic*, see `ConnectWeights`.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A1",
        name="binaryconnect",
        title="BinaryConnect",
        paper="Courbariaux, Bengio, David, NIPS 2015, arXiv:1511.00363",
        weights="{-H, +H}",
        activations="none; unsigned k-bit attached",
        granularity="L / L",
        formula="W_b = H sgn(W); stochastic: P(W_b = +H) = clip((W / H + 1) / 2, 0, 1); W clipped to [-H, H]",
        planes="1 x (activation quantizer)",
        n_planes=(1, 8),
        exact="exact with the attached activation quantizer; the paper's activations are real. Not lowered with "
        "stochastic=true: such networks are tested with their real weights",
        act_scale="layer",
        basis="published",
    )
    of_network = ("glorot_rates",)
    bits_a: int = 8
    stochastic: bool = False
    glorot: bool = False
    glorot_rates: bool = False

    def __post_init__(self) -> None:
        """Raise ConfigError for bits that no grid has."""
        checked_bits(self.bits_a, least=1)

    def weights(self) -> WeightQuantizer:
        """Signs of height 1 or Glorot's."""
        return ConnectWeights(None if self.glorot else 1.0, stochastic=self.stochastic)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, where a batch norm leaves few numbers."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """Return Adam, with a learning rate of its own for each binary layer if asked for."""
        if not self.glorot_rates:
            return super().optimizer(network, learning_rate)
        weights = [weight for weight, _ in weights_and_quantizers(network, ConnectWeights)]
        groups: list[dict[str, Any]] = [
            {"params": [weight], "lr": learning_rate / glorot_height(weight)} for weight in weights
        ]
        groups.append({"params": others(network, weights)})
        return torch.optim.Adam(groups, lr=learning_rate)

    def after_step(self, network: nn.Module) -> None:
        """Clip the latent weights of each layer to its H."""
        with torch.no_grad():
            for weight, quantizer in weights_and_quantizers(network, ConnectWeights):
                height = quantizer.height_of(weight)
                weight.clamp_(-height, height)


# --- Self-Binarizing Networks ---------------------------------------------------------------------------------------


class SharpTanh(nn.Module):
    """``tanh(nu x)`` in training, which goes towards the sign as *nu* is raised; the sign in evaluation, sgn(0) = +1.

    Source: Lahoud, Achanta, Marquez-Neila, Suesstrunk, "Self-Binarizing Networks", 2019.
    """

    nu: Tensor

    def __init__(self, nu: float = 1.0) -> None:
        super().__init__()
        if not 0 < nu < math.inf:
            raise ConfigError(f"nu: must be finite and above 0, got {nu}")
        self.register_buffer("nu", torch.tensor(float(nu)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``tanh(nu x)``, with its own gradient; in evaluation the signs, with none."""
        return torch.tanh(self.nu * x) if self.training else signs(x.detach())


class TanhWeights(WeightQuantizer):
    """``tanh(nu w)`` in training, ``sgn(w)`` in evaluation; see `SharpTanh`."""

    def __init__(self, nu: float = 1.0) -> None:
        super().__init__()
        self.tanh = SharpTanh(nu)

    def forward(self, weight: Tensor) -> Coded:
        """Return what goes towards signs, of scale 1."""
        return Coded((self.tanh(weight),), (weight.new_tensor(1.0),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class TanhActivation(SharpTanh):
    """``tanh(nu x)`` in training, the sign in evaluation: with the batch norm before it, one comparison a number."""

    def imc_quantizer(self) -> Threshold:
        """Return one threshold at 0."""
        return SignActivation(sign_zero=1).imc_quantizer()


@dataclass(frozen=True, kw_only=True)
class SelfBinarizing(Method):
    """Self-Binarizing Networks: ``tanh(nu w)`` and ``tanh(nu x)``, nu raised in training; deployed as signs.

    Evaluation takes the signs, at any nu. Batch norm and sign are one comparison, ``x >= mu - beta sigma / gamma``, as
    `imcsim.capture` folds them. How fast nu is raised is not known here: it goes from *nu_start* to *nu_end* by equal
    factors, which is a choice.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A11",
        name="self-binarizing",
        title="Self-Binarizing Networks",
        paper="Lahoud, Achanta, Marquez-Neila, Suesstrunk, 2019, arXiv:1902.00730",
        weights="{-1, +1}",
        activations="{-1, +1}",
        granularity="- / -",
        formula="w_b = tanh(nu w), x_b = tanh(nu x), nu raised in training; deployed as signs",
        planes="1 x 1",
        n_planes=(1, 1),
        exact="exact: in evaluation both are signs, which tanh(nu x) of training goes to as nu is raised",
        role="training",
        sign_zero=1,
        basis="recalled",
    )
    of_network = ("nu_start", "nu_end")
    nu_start: float = 1.0
    nu_end: float = 1000.0

    def __post_init__(self) -> None:
        """Raise ConfigError unless nu can be raised from its start to its end."""
        if not 0 < self.nu_start <= self.nu_end < math.inf:
            raise ConfigError(
                f"self-binarizing: nu_start must be above 0 and not above nu_end, got {self.nu_start} and {self.nu_end}"
            )

    def weights(self) -> WeightQuantizer:
        """tanh of weights."""
        return TanhWeights(self.nu_start)

    def activation(self, n_channels: int) -> nn.Module:
        """tanh of activations."""
        return TanhActivation(self.nu_start)

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Raise nu."""
        nu = self.nu_start * (self.nu_end / self.nu_start) ** progress
        for module in network.modules():
            if isinstance(module, SharpTanh):
                module.nu.fill_(nu)


# --- Bop ------------------------------------------------------------------------------------------------------------


class BinaryWeights(WeightQuantizer):
    """Weights that are -1 and +1 themselves, not latent ones; all of the gradient goes to them. sgn(0) = +1."""

    def forward(self, weight: Tensor) -> Coded:
        """Return the weights, as signs, of scale 1."""
        return Coded((surrogate(weight, signs(weight)),), (weight.new_tensor(1.0),))

    def codec(self) -> Codec:
        """One plane."""
        return binary()


class BopOptimizer(torch.optim.Optimizer):
    """The binary optimizer: flips weights of -1 and +1 by a moving mean of their gradient; Adam for the others.

    ``m <- (1 - gamma) m + gamma g``; w flips where ``|m| > tau`` and ``sgn(m) = sgn(w)``. The *binary* parameters
    are set to their signs here, once. Source: Helwegen et al., "Latent Weights Do Not Exist", NeurIPS 2019,
    algorithm 1; the authors' code also flips where ``m w = tau`` exactly.
    """

    def __init__(
        self,
        binary: Iterable[Tensor],
        real: Iterable[Tensor],
        *,
        lr: float = 0.001,
        gamma: float = 1e-4,
        tau: float = 1e-8,
    ) -> None:
        if not 0 < gamma <= 1:
            raise ConfigError(f"bop: gamma must be above 0 and at most 1, got {gamma}")
        if not 0 <= tau < math.inf:
            raise ConfigError(f"bop: tau must be a finite number from 0 up, got {tau}")
        self.adam = torch.optim.Adam([{"params": list(real)}], lr=lr)
        super().__init__(
            [
                {"params": list(binary), "flips": True, "gamma": gamma, "tau": tau},
                {"params": self.adam.param_groups[0]["params"], "flips": False},
            ],
            dict(self.adam.defaults),
        )
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.copy_(signs(parameter))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Flip binary weights, and move the others as Adam does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["flips"]:
                for weight in group["params"]:
                    self._flip(weight, group["gamma"], group["tau"])
        # Groups and state are handed over each time: loading a state puts new ones into their place.
        self.adam.param_groups = [group for group in self.param_groups if not group["flips"]]
        self.adam.state = self.state
        self.adam.step()
        return loss

    def _flip(self, weight: Tensor, gamma: float, tau: float) -> None:
        if weight.grad is None:
            return
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(1 - gamma).add_(weight.grad, alpha=gamma)
        weight.mul_(torch.where((momentum.abs() > tau) & (torch.sign(momentum) == weight), -1.0, 1.0).to(weight.dtype))


@dataclass(frozen=True, kw_only=True)
class Bop(Method):
    """Bop: networks with the levels of BNN and no latent weights; an optimizer flips the weights themselves.

    The rule and its *gamma* and *tau* stand in `BopOptimizer`; the paper's values for CIFAR-10 begin at these. What is
    not a binary weight is moved by Adam.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A12",
        name="bop",
        title="Latent Weights Do Not Exist: Bop",
        paper="Helwegen, Widdicombe, Geiger, Liu, Cheng, Nusselder, NeurIPS 2019, arXiv:1906.02107",
        weights="{-1, +1}",
        activations="{-1, +1}",
        granularity="- / -",
        formula="m <- (1 - gamma) m + gamma g; w <- -w where |m| > tau and sgn(m) = sgn(w)",
        planes="1 x 1",
        n_planes=(1, 1),
        role="optimizer",
        sign_zero=1,
        basis="published",
    )
    of_network = ("gamma", "tau")
    gamma: float = 1e-4
    tau: float = 1e-8

    def weights(self) -> WeightQuantizer:
        """The weights themselves."""
        return BinaryWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1."""
        return SignActivation(sign_zero=1)

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """Return Bop for the binary layers and Adam for the rest; the weights become -1 and +1 here."""
        weights = [weight for weight, _ in weights_and_quantizers(network, BinaryWeights)]
        return BopOptimizer(weights, others(network, weights), lr=learning_rate, gamma=self.gamma, tau=self.tau)


# --- Widening and Squeezing -----------------------------------------------------------------------------------------


class WidenedConv(nn.Module):
    """A binary convolution to *n_wide* channels, batch norm, sign, and a binary 1 x 1 convolution to the outputs.

    (b c h w) real numbers to (b n_out h' w'). The share *removed* of the wide channels, those of least ``|gamma|``,
    counts for 0 in evaluation, and from `choose` on in training, too; `squeeze` takes them out.
    """

    used: Tensor
    """bool (n_wide); all of them until the channels are chosen."""

    def __init__(
        self,
        activation: nn.Module,
        widen: QuantizedConv2d,
        select: nn.Module,
        narrow: QuantizedConv2d,
        *,
        removed: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation, self.widen, self.select, self.narrow = activation, widen, select, narrow
        self.norm = nn.BatchNorm2d(widen.out_channels)
        self.n_left = widen.out_channels - math.floor(removed * widen.out_channels)
        self.register_buffer("used", torch.ones(widen.out_channels, dtype=torch.bool))

    def chosen(self) -> Tensor:
        """Return which wide channels are left in the end, as far as is known now; bool (n_wide)."""
        if int(self.used.sum()) == self.n_left:
            return self.used
        order = torch.argsort(self.norm.weight.detach().abs(), descending=True, stable=True)
        return torch.zeros_like(self.used).index_fill(0, order[: self.n_left], value=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        codes = self.select(self.norm(self.widen(self.activation(x))))
        used = self.used if self.training else self.chosen()
        return cast(Tensor, self.narrow(codes if bool(used.all()) else codes * used[:, None, None]))

    def choose(self) -> None:
        """Stop using the channels of least ``|gamma|``; once they are chosen they stay so."""
        self.used = self.chosen()

    def squeeze(self) -> None:
        """Take out the channels that are not used, which changes no output."""
        kept, widen, norm, narrow = self.used, self.widen, self.norm, self.narrow
        with torch.no_grad():
            widen.weight = nn.Parameter(widen.weight[kept].clone())
            norm.weight, norm.bias = nn.Parameter(norm.weight[kept].clone()), nn.Parameter(norm.bias[kept].clone())
            norm.running_mean = cast(Tensor, norm.running_mean)[kept].clone()
            norm.running_var = cast(Tensor, norm.running_var)[kept].clone()
            narrow.weight = nn.Parameter(narrow.weight[:, kept].clone())
        self.used = kept[kept]
        widen.out_channels = norm.num_features = narrow.in_channels = len(self.used)


@dataclass(frozen=True, kw_only=True)
class WideningSqueezing(Method):
    """Widening and Squeezing, around BNN: features go to *factor* times as many binary ones, then some are removed.

    Known of the paper is its abstract: features are projected to quantized features of more dimensions, and redundant
    ones are eliminated, so that a compact network with enough of them is left. Here each convolution goes to ``factor *
    n_out`` channels and by a binary 1 x 1 convolution back to the channels that the network asks for; an L1 penalty of
    weight *sparsity* on the batch norm's gammas marks what is redundant. Halfway through the training the share
    *removed* of the wide channels of each layer, those of least ``|gamma|``, goes out of use, and `deploy` takes them
    out. How the paper selects them is not known here.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="A14",
        name="widen-squeeze",
        title="Widening and Squeezing: Towards Accurate and Efficient QNNs",
        paper="Liu, Han, Wang, Chen, Tian, Xu, 2020, arXiv:2002.00555",
        weights="{-1, +1}, as BNN",
        activations="{-1, +1}, as BNN",
        granularity="- / -",
        formula="n -> factor n binary features -> n; L1 on batch norm gammas; channels of least |gamma| removed",
        planes="1 x 1, wider",
        n_planes=(1, 1),
        role="architecture",
        sign_zero=1,
        basis="recalled",
    )
    of_network = ("sparsity",)
    factor: float = 2.0
    sparsity: float = 1e-4
    removed: float = 0.25

    def __post_init__(self) -> None:
        """Raise ConfigError for options out of range."""
        if not 1 <= self.factor < math.inf:
            raise ConfigError(f"widen-squeeze: factor must be a finite number from 1 up, got {self.factor}")
        if not 0 <= self.sparsity < math.inf:
            raise ConfigError(f"widen-squeeze: sparsity must be a finite number from 0 up, got {self.sparsity}")
        if not 0 <= self.removed < 1:
            raise ConfigError(f"widen-squeeze: removed must be a share from 0 to below 1, got {self.removed}")

    def weights(self) -> WeightQuantizer:
        """Signs of height 1."""
        return SignWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Signs with sgn(0) = +1."""
        return SignActivation(sign_zero=1)

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a widened convolution of real numbers."""
        n_wide = round(self.factor * n_out)
        widen = cast(QuantizedConv2d, self.conv(n_in, n_wide, kernel, stride=stride, padding=padding))
        narrow = cast(QuantizedConv2d, self.conv(n_wide, n_out, 1))
        return WidenedConv(self.activation(n_in), widen, self.activation(n_wide), narrow, removed=self.removed)

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """Return the loss with the penalty on the gammas of the wide channels."""
        loss = super().loss(network, images, outputs, labels, teacher)
        for layer in _widened(network):
            loss = loss + self.sparsity * layer.norm.weight.abs().sum()
        return loss

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Halfway, choose the wide channels that go out of use."""
        if progress >= WHEN_TO_SQUEEZE:
            for layer in _widened(network):
                layer.choose()

    def after_step(self, network: nn.Module) -> None:
        """Clip the latent weights to [-1, 1]."""
        clip_latent_weights(network, SignWeights)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Take out the channels that are not used."""
        for layer in _widened(network):
            layer.choose()
            layer.squeeze()

    def restore(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Take out as many wide channels as were taken out, then load the rest."""
        for name, layer in network.named_modules():
            if isinstance(layer, WidenedConv):
                layer.used[len(state[f"{name}.used"]) :] = False
                layer.squeeze()
        super().restore(network, state)


WHEN_TO_SQUEEZE = 0.5
"""Share of the training before wide channels go out of use: a choice."""


def _widened(network: nn.Module) -> list[WidenedConv]:
    return [module for module in network.modules() if isinstance(module, WidenedConv)]


# --- what they share ------------------------------------------------------------------------------------------------


def others(network: nn.Module, weights: Iterable[Tensor]) -> list[nn.Parameter]:
    """Return the parameters of *network* that are none of *weights*."""
    known = {id(weight) for weight in weights}
    return [parameter for parameter in network.parameters() if id(parameter) not in known]


METHODS: tuple[type[Method], ...] = (BinaryConnect, BNN, SelfBinarizing, Bop, WideningSqueezing)

REPEATS: tuple[MethodRecord, ...] = (
    replace(
        BNN.record,
        id="B11",
        name="bnn-neurips",
        title="Binarized Neural Networks (NIPS 2016)",
        paper="Hubara, Courbariaux, Soudry, El-Yaniv, Bengio, NIPS 2016",
        same_as="A2",
    ),
)
