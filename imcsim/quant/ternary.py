"""Ternary Weight Networks: weights in {-a, 0, +a} by a threshold at 0.7 times the mean magnitude.

Source: F. Li, B. Zhang, B. Liu, "Ternary Weight Networks", 2016, arXiv:1605.04711.
"""

from typing import Any

import torch
from torch import Tensor

from imcsim.errors import ConfigError
from imcsim.quant.layers import QuantizedConv1d, QuantizedConv2d, QuantizedLinear, over_group
from imcsim.quant.straight import straight_to_weights
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, ternary

DELTA_FACTOR = 0.7
"""Share of the mean magnitude below which a weight becomes 0; the paper's value for normal and uniform weights."""


def ternarize(
    weights: Tensor, *, per_channel: bool = False, delta_factor: float = DELTA_FACTOR
) -> tuple[Tensor, Tensor]:
    """Return the codes in {-1, 0, +1} of *weights* and their scale: () or, per output channel, (c 1 ...).

    ``delta = 0.7 * mean|w|``; code +1 where ``w > delta``, -1 where ``w < -delta``, else 0; the scale is the mean of
    ``|w|`` over the codes that are not 0, and 0 where there are none. All means run over the weights that share the
    scale. Computed in float64, so that ``ternarize(scale * codes)`` gives the same codes and scale again, bit for bit.

    Source: TWN, equations 4 to 6; quantizers.md A5, without the 1e-6 that the authors' Caffe code adds to the count.
    """
    axes = over_group(weights, per_channel)
    wide = weights.detach().double()
    sizes = wide.abs()
    delta = delta_factor * sizes.mean(dim=axes, keepdim=True)
    kept = sizes > delta
    count = kept.sum(dim=axes, keepdim=True)
    scale = torch.where(kept, sizes, 0.0).sum(dim=axes, keepdim=True) / count.clamp(min=1)
    codes = (torch.sign(wide) * kept).to(weights.dtype)
    return codes, (scale if per_channel else scale.reshape(())).to(weights.dtype)


class TernaryWeights(WeightQuantizer):
    """Weights ``scale * {-1, 0, +1}``, made by `ternarize`; gradients go straight through to the latent weights."""

    def __init__(self, *, per_channel: bool = False, delta_factor: float = DELTA_FACTOR) -> None:
        super().__init__()
        self.per_channel, self.delta_factor = per_channel, checked_delta_factor(delta_factor)

    def forward(self, weight: Tensor) -> Coded:
        """Return codes in {-1, 0, +1} and the scale."""
        codes, scale = ternarize(weight, per_channel=self.per_channel, delta_factor=self.delta_factor)
        return straight_to_weights(weight, codes, scale)

    def codec(self) -> Codec:
        """One plane."""
        return ternary()


class TernaryConv2d(QuantizedConv2d):
    """`torch.nn.Conv2d` with the ternary weights of TWN: ``delta = 0.7 * mean|w|``, one scale per layer or channel.

    Takes the arguments of `torch.nn.Conv2d`, and *per_channel* and *delta_factor* by name.
    Source: Li et al., "Ternary Weight Networks", 2016.
    """

    def __init__(
        self, *args: Any, per_channel: bool = False, delta_factor: float = DELTA_FACTOR, **kwargs: Any
    ) -> None:
        made = TernaryWeights(per_channel=per_channel, delta_factor=delta_factor)
        super().__init__(*args, weight_quantizer=made, **kwargs)


class TernaryConv1d(QuantizedConv1d):
    """`torch.nn.Conv1d` with the ternary weights of TWN: ``delta = 0.7 * mean|w|``, one scale per layer or channel.

    Takes the arguments of `torch.nn.Conv1d`, and *per_channel* and *delta_factor* by name; ``weight`` is
    (c_out, c_in, 1, k). Source: Li et al., "Ternary Weight Networks", 2016.
    """

    def __init__(
        self, *args: Any, per_channel: bool = False, delta_factor: float = DELTA_FACTOR, **kwargs: Any
    ) -> None:
        made = TernaryWeights(per_channel=per_channel, delta_factor=delta_factor)
        super().__init__(*args, weight_quantizer=made, **kwargs)


class TernaryLinear(QuantizedLinear):
    """`torch.nn.Linear` with the ternary weights of TWN: ``delta = 0.7 * mean|w|``, one scale per layer or channel.

    Takes the arguments of `torch.nn.Linear`, and *per_channel* and *delta_factor* by name.
    Source: Li et al., "Ternary Weight Networks", 2016.
    """

    def __init__(
        self, *args: Any, per_channel: bool = False, delta_factor: float = DELTA_FACTOR, **kwargs: Any
    ) -> None:
        made = TernaryWeights(per_channel=per_channel, delta_factor=delta_factor)
        super().__init__(*args, weight_quantizer=made, **kwargs)


def checked_delta_factor(value: float) -> float:
    """Return *value*; raises ConfigError unless it lies from 0 to below 1."""
    if not 0 <= value < 1:
        raise ConfigError(f"delta_factor: must be from 0 to below 1, got {value}; the paper takes {DELTA_FACTOR}")
    return float(value)
