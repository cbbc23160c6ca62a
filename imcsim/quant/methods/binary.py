"""Binary weights and activations without scales: BinaryConnect, BNN and those that train the same levels otherwise.

Formulas: quantizers.md section A.2 (A1, A2, A11, A12, A14). Each layer is one plane of -1 and +1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from imcsim.quant.activation import SignActivation
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.straight import signs, surrogate, window
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, binary


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
        for layer in network.modules():
            if isinstance(layer, QuantizedWeights) and isinstance(layer.weight_quantizer, kind):
                layer.weight.clamp_(-limit, limit)


METHODS: tuple[type[Method], ...] = (BNN,)
