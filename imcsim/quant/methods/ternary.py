"""Ternary weights, and ternary weights with ternary activations (list T of the project's papers, and A4, A5, B1).

Formulas: quantizers.md section A.2. Levels are {-1, 0, +1} times scales, so each layer is one plane by one pass.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from imcsim.quant.activation import UnsignedActivation
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.ternary import TernaryWeights
from imcsim.quant.weights import WeightQuantizer


@dataclass(frozen=True, kw_only=True)
class TWN(Method):
    """Ternary Weight Networks: ``delta = 0.7 mean|w|``, ``T = 1[w > delta] - 1[w < -delta]``, ``a = mean |w| kept``.

    The weights alone are quantized; activations are even grids of *bits_a* bits. Source: see the record; A5.
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

    def weights(self) -> WeightQuantizer:
        """Threshold at 0.7 of the mean magnitude."""
        return TernaryWeights(per_channel=self.per_channel)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, where a batch norm leaves few numbers."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))


METHODS: tuple[type[Method], ...] = (TWN,)
