"""Scales of groups of inputs: FGQ. Formula: quantizers.md section A.2 (T7)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.quant.activation import UnsignedActivation
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.search import best_ternary
from imcsim.quant.straight import surrogate
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, ternary

GREATEST = 64
"""Of the group sizes that the paper looks at: 4 to 64."""


class GroupTernaryWeights(WeightQuantizer):
    """Ternary weights with a scale for each *group_size* consecutive input channels, at each position of the window.

    In each group those weights are kept that make ``(sum |w|)^2 / count`` greatest, and the scale is the mean of their
    magnitudes, rounded to *bits_scale* unsigned bits of a step that the layer shares, a power of two (0 leaves them
    real). The gradient of the numbers goes straight to the latent weights.

    The paper's two thresholds, one for weights above 0 and one for those below, need no search of their own: with one
    scale for both signs the least error over all pairs of thresholds is reached by one threshold of the magnitudes.
    Source: Mellempudi et al., 2017; the form of the 8-bit scales is recalled (dynamic fixed point).
    """

    def __init__(self, group_size: int = 4, *, bits_scale: int = 8) -> None:
        super().__init__()
        if isinstance(group_size, bool) or not isinstance(group_size, int) or not 1 <= group_size <= GREATEST:
            raise ConfigError(f"fgq: group_size must be a whole number from 1 to {GREATEST}, got {group_size!r}")
        if not 0 <= bits_scale <= 16:
            raise ConfigError(f"fgq: bits_scale must be from 0 to 16, got {bits_scale}; 0 leaves scales real")
        self.group_size, self.bits_scale = group_size, bits_scale

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1} and the scales of groups, (c g) or (c g kh kw)."""
        n_out, n_in = weight.shape[:2]
        n_groups = -(-n_in // self.group_size)
        wide = weight.detach().double().flatten(2) if weight.ndim > 2 else weight.detach().double()[:, :, None]
        padded = nn.functional.pad(wide, (0, 0, 0, n_groups * self.group_size - n_in))
        groups = padded.reshape(n_out, n_groups, self.group_size, -1).transpose(2, 3)  # c g positions n
        codes, alphas = best_ternary(groups.flatten(0, 2))
        codes = codes.reshape(groups.shape).transpose(2, 3).reshape(n_out, -1, wide.shape[2])[:, :n_in]
        codes = codes.reshape(weight.shape).to(weight.dtype)
        alphas = self.rounded(alphas).reshape(n_out, n_groups, *weight.shape[2:]).to(weight.dtype)
        per_input = alphas.repeat_interleave(self.group_size, dim=1)[:, :n_in]
        slope = torch.where(per_input > 0, 1 / per_input, 0.0)
        return Coded(
            (surrogate(weight, codes, slope),),
            (weight.new_ones(()),),
            group_size=self.group_size,
            group_scale=alphas,
        )

    def rounded(self, alphas: Tensor) -> Tensor:
        """Return *alphas*, float64, on the layer's grid of `bits_scale` bits; halves to even."""
        most = float(alphas.max())
        if not self.bits_scale or not most:
            return alphas
        step = 2.0 ** math.ceil(math.log2(most / ((1 << self.bits_scale) - 1)))
        return torch.round(alphas / step) * step

    def codec(self) -> Codec:
        """One plane."""
        return ternary()

    def extra_repr(self) -> str:
        """Return the size of groups."""
        return f"group_size={self.group_size}, bits_scale={self.bits_scale}"


@dataclass(frozen=True, kw_only=True)
class FGQ(Method):
    """Fine-Grained Quantization: ternary weights with a scale for each few input channels, 8- or 4-bit activations.

    It is meant for trained float weights; training on from there, as the paper does for groups of 64, passes gradients
    straight through. A chip with imperfections of its devices refuses groups of inputs. Source: see the record; T7.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T7",
        name="fgq",
        title="Ternary Neural Networks with Fine-Grained Quantization",
        paper="Mellempudi, Kundu, Mudigere, Das, Kaul, Dubey, 2017, arXiv:1705.01462",
        weights="a_g {-1, 0, +1} for each group of inputs",
        activations="unsigned 8 or 4 bit",
        granularity="G / L",
        formula="per group max over thresholds of (sum |w|)^2 / count; a_g = mean of the kept, 8 bit",
        planes="1 x k",
        n_planes=(1, 8),
        needs=("a multiply for each group of inputs before its sum is added",),
        act_scale="layer",
        basis="recalled",
    )
    group_size: int = 4
    bits_a: int = 8
    bits_scale: int = 8

    def __post_init__(self) -> None:
        GroupTernaryWeights(self.group_size, bits_scale=self.bits_scale)
        if self.bits_a not in (4, 8):
            raise ConfigError(f"fgq: bits_a must be 4 or 8, got {self.bits_a}")

    def weights(self) -> WeightQuantizer:
        """A scale a group."""
        return GroupTernaryWeights(self.group_size, bits_scale=self.bits_scale)

    def activation(self, n_channels: int) -> nn.Module:
        """An even grid up to about 4, its step a power of two."""
        return UnsignedActivation(self.bits_a, scale=2.0 ** (2 - self.bits_a))


METHODS: tuple[type[Method], ...] = (FGQ,)
