"""Symmetric whole-number weights of k bits: for first and last layers, where a workload chooses them.

The codes run from ``-(2^(k-1) - 1)`` to ``2^(k-1) - 1`` and go to the tiles as ``k - 1`` planes, each bit of the
magnitude with the sign (quantizers.md B.3). The scale is a power of two, so the digital side only shifts.
"""

from typing import Any

import torch
from torch import Tensor

from imcsim.errors import ConfigError
from imcsim.quant.layers import QuantizedConv1d, QuantizedConv2d, QuantizedLinear, over_group
from imcsim.quant.straight import straight_to_weights
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, sign_magnitude


def to_integers(weights: Tensor, bits: int, *, per_channel: bool = False) -> tuple[Tensor, Tensor]:
    """Return the whole-number codes of *weights* and their scale: () or, per output channel, (c 1 ...).

    ``scale = 2^ceil(log2(max|w| / top))`` with ``top = 2^(bits-1) - 1``, and ``code = round(w / scale)``, halves to
    even; where all weights are 0 the scale is 0. ``to_integers(scale * codes)`` gives the same again bit for bit.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", CVPR 2018, with a symmetric range and a scale rounded up to a power of two.
    """
    top = (1 << (bits - 1)) - 1
    wide = weights.detach().double()
    greatest = wide.abs().amax(dim=over_group(weights, per_channel), keepdim=True)
    mantissa, exponent = torch.frexp(greatest / top)  # greatest / top = mantissa * 2^exponent, 0.5 <= mantissa < 1
    exponent = torch.where(mantissa == 0.5, exponent - 1, exponent)
    scale = torch.where(greatest > 0, torch.ldexp(torch.ones_like(greatest), exponent), 0.0)
    codes = torch.round(wide / scale.where(scale > 0, 1.0)).to(weights.dtype)
    return codes, (scale if per_channel else scale.reshape(())).to(weights.dtype)


class IntWeights(WeightQuantizer):
    """Weights ``scale * code`` with symmetric codes of k bits, made by `to_integers`; straight-through gradient."""

    def __init__(self, bits: int = 8, *, per_channel: bool = False) -> None:
        super().__init__()
        self.bits, self.per_channel = checked_bits(bits, least=2), per_channel

    def forward(self, weight: Tensor) -> Coded:
        """Return whole-number codes and the scale, a power of two."""
        return straight_to_weights(weight, *to_integers(weight, self.bits, per_channel=self.per_channel))

    def codec(self) -> Codec:
        """``bits - 1`` planes: each bit of the magnitude with the sign."""
        return sign_magnitude(self.bits)


class IntConv2d(QuantizedConv2d):
    """`torch.nn.Conv2d` with symmetric weights of *bits* bits: ``code = round(w / scale)``, the scale a power of two.

    Takes the arguments of `torch.nn.Conv2d`, and *bits* and *per_channel* by name. Source: see `to_integers`.
    """

    def __init__(self, *args: Any, bits: int = 8, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, weight_quantizer=IntWeights(bits, per_channel=per_channel), **kwargs)


class IntConv1d(QuantizedConv1d):
    """`torch.nn.Conv1d` with symmetric weights of *bits* bits: ``code = round(w / scale)``, the scale a power of two.

    Takes the arguments of `torch.nn.Conv1d`, and *bits* and *per_channel* by name; ``weight`` is (c_out, c_in, 1, k).
    Source: see `to_integers`.
    """

    def __init__(self, *args: Any, bits: int = 8, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, weight_quantizer=IntWeights(bits, per_channel=per_channel), **kwargs)


class IntLinear(QuantizedLinear):
    """`torch.nn.Linear` with symmetric weights of *bits* bits: ``code = round(w / scale)``, the scale a power of two.

    Takes the arguments of `torch.nn.Linear`, and *bits* and *per_channel* by name. Source: see `to_integers`.
    """

    def __init__(self, *args: Any, bits: int = 8, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, weight_quantizer=IntWeights(bits, per_channel=per_channel), **kwargs)


def checked_bits(bits: int, *, least: int, most: int = 16) -> int:
    """Return *bits*; raises ConfigError unless it is a whole number from *least* to *most*."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
        raise ConfigError(f"bits: must be a whole number from {least} to {most}, got {bits!r}")
    return bits
