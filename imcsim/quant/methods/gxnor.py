"""GXNOR-Net (T4): weights that are states, without hidden ones, and the optimizer that moves them.

Formula: quantizers.md section A.2. The method stands with the other ternary ones (`imcsim.quant.methods.ternary`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import Threshold
from imcsim.quant.layers import weights_and_quantizers
from imcsim.quant.limits import Limits
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import surrogate
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, sign_magnitude, ternary


class DiscreteWeights(WeightQuantizer):
    """Weights that are states of ``Z_N``: ``2^N + 1`` even numbers from -1 to 1; ternary for N = 1.

    The weight itself is a state; one that is not yet counts for the nearest. Its gradient is that of the number.
    Source: Deng et al., "GXNOR-Net", Neural Networks 2018.
    """

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 6:
            raise ConfigError(f"gxnor: n must be a whole number from 1 to 6, got {n!r}; there are 2^n + 1 states")
        self.n = n

    @property
    def step(self) -> float:
        """Distance of two neighbouring states, a power of two."""
        return 2.0 ** (1 - self.n)

    def snapped(self, weight: Tensor) -> Tensor:
        """Return the states nearest to *weight*, in steps; halves to even."""
        return torch.round(weight.clamp(-1, 1) / self.step)

    def forward(self, weight: Tensor) -> Coded:
        """Return whole numbers of steps, and the step."""
        return Coded(
            (surrogate(weight, self.snapped(weight.detach()), 1 / self.step),), (weight.new_tensor(self.step),)
        )

    def codec(self) -> Codec:
        """One plane for N = 1, else one for each bit of the magnitude."""
        return ternary() if self.n == 1 else sign_magnitude(self.n + 1)


class DiscreteStateTransition(torch.optim.Adam):
    """Adam whose steps of discrete weights become transitions between states; no hidden weights are kept.

    Adam's step ``dw`` is ``k`` whole distances L of states and a rest ``v``; the weight moves by
    ``k + sign(v) Bernoulli(tanh(m |v| / L))`` states, and no farther than -1 and +1.
    Source: Deng et al., 2018, and the authors' code (m = 3, update by Adam); its restarts from a random state, where
    training has found nothing better for long, are left out.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        *,
        nonlinearity: float = 3.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(network.parameters(), lr=lr)
        self.discrete = weights_and_quantizers(network, DiscreteWeights)
        self.nonlinearity, self.generator = nonlinearity, generator

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step of Adam, then put discrete weights onto states."""
        before = [weight.detach().clone() for weight, _ in self.discrete]
        result = super().step(closure)
        with torch.no_grad():
            for (weight, states), old in zip(self.discrete, before, strict=True):
                weight.copy_(self.transition(old, weight - old, states.step))
        return result

    def transition(self, old: Tensor, change: Tensor, distance: float) -> Tensor:
        """Return the states that *old* ones move to for the real *change*."""
        whole = torch.trunc(change / distance)
        rest = change / distance - whole
        chance = torch.tanh(self.nonlinearity * rest.abs())
        moves = torch.rand(rest.shape, generator=self.generator, dtype=rest.dtype) < chance
        new = old + (whole + torch.sign(rest) * moves) * distance
        return (torch.round(new / distance) * distance).clamp(-1, 1)


class EventActivation(nn.Module):
    """-1, 0 or +1: fires where ``|x| >= 1``, with the gradient 1 where ``1/2 <= |x| <= 3/2``.

    ``R(s(2 (x - 1)) + s(2 (x + 1)) - 1)`` with ``s(x) = clip((x + 1) / 2, 0, 1)`` and halves away from 0; the window is
    the derivative of the two hard sigmoids. Source: Deng et al., 2018, as in the authors' code.
    """

    LIMITS = Limits(-1.0, 1.0, low_fires=True, high_fires=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return -1, 0 or +1 for each number of *x*."""
        sizes = x.detach().abs()
        return surrogate(x, self.LIMITS.codes(x), ((sizes >= 0.5) & (sizes <= 1.5)).to(x.dtype))

    def imc_quantizer(self) -> Threshold:
        """Return the two thresholds; -1 and +1 themselves fire."""
        return self.LIMITS.step()


@dataclass(frozen=True, kw_only=True)
class GXNOR(Method):
    """GXNOR-Net: ternary weights without hidden ones, by discrete state transitions, and ternary activations.

    *n* makes ``2^n + 1`` states of the weights; *nonlinearity* is m of the transitions. Weights begin with the states
    nearest to uniform draws, as in the authors' code, whatever they were before. Source: see the record; T4.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T4",
        name="gxnor",
        title="GXNOR-Net: training deep neural networks with ternary weights and activations without full-precision "
        "memory",
        paper="Deng, Jiao, Pei, Wu, Li, Neural Networks 2018, arXiv:1705.09283",
        weights="{-1, 0, +1}; 2^n + 1 states",
        activations="{-1, 0, +1}",
        granularity="- / -",
        formula="fires at |x| >= 1; w moves by k + sign(v) Bernoulli(tanh(m |v| / L)) states",
        planes="1 x 1",
        n_planes=(1, 1),
        sign_zero=0,
        rounding="half-away",
        basis="published",
    )
    of_network = ("nonlinearity",)
    n: int = 1
    nonlinearity: float = 3.0

    def __post_init__(self) -> None:
        DiscreteWeights(self.n)
        if not self.nonlinearity > 0:
            raise ConfigError(f"gxnor: nonlinearity must be above 0, got {self.nonlinearity}; the authors take 3")

    def weights(self) -> WeightQuantizer:
        """States."""
        return DiscreteWeights(self.n)

    def activation(self, n_channels: int) -> nn.Module:
        """Fire at 1."""
        return EventActivation()

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """Return Adam with transitions between states."""
        return DiscreteStateTransition(network, learning_rate, nonlinearity=self.nonlinearity)

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Draw the states that weights begin with."""
        with torch.no_grad():
            for weight, states in weights_and_quantizers(network, DiscreteWeights):
                weight.copy_(states.snapped(weight.uniform_(-1, 1)) * states.step)
