"""Activation functions that give codes: sign, ternary, and even grids of k bits.

A module gives ``scale * code`` as floats and lets gradients through inside a window (straight-through estimator);
`imc_quantizer` says the same as a step of the graph, equal for every float32 number: scales and deltas are rounded to
float32 where they enter, and a threshold that a number must exceed is written as the next float64 above it.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import BINARY, TERNARY, Format, Quantize, Threshold, signed, unsigned
from imcsim.quant.integer import checked_bits
from imcsim.quant.straight import StraightThrough, signs

MOST_BITS_OF_THRESHOLDS = 4
"""Grids of up to so many bits become thresholds, into which a batch norm can be folded; finer ones are divided out."""


class SignActivation(nn.Module):
    """The sign of a number: -1 below 0, +1 above, and *sign_zero* (-1, 0 or +1) at exactly 0.

    ``y = sgn(x)``; the gradient passes where ``|x| <= 1``. With ``sign_zero=0`` the codes are ternary.
    Source: Hubara et al., "Binarized Neural Networks", NIPS 2016; quantizers.md B.4 says who takes which sign(0).
    """

    def __init__(self, sign_zero: int = 1) -> None:
        super().__init__()
        if sign_zero not in (-1, 0, 1):
            raise ConfigError(f"sign_zero: must be -1, 0 or 1, got {sign_zero!r}")
        self.sign_zero = int(sign_zero)

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of *x*, of its dtype."""
        return signs(x, self.sign_zero)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sign of *x*."""
        return StraightThrough.apply(x, self.codes, -1.0, 1.0)

    def imc_quantizer(self) -> Threshold:
        """Return one threshold at 0, or two close around it where 0 stays 0."""
        match self.sign_zero:
            case 1:
                return threshold_step([0.0], [-1, 1], BINARY)
            case -1:
                return threshold_step([above(0.0)], [-1, 1], BINARY)
        return threshold_step([0.0, above(0.0)], [-1, 0, 1], TERNARY)

    def extra_repr(self) -> str:
        """Return the value of sign(0)."""
        return f"sign_zero={self.sign_zero}"


class TernaryActivation(nn.Module):
    """-1 below ``-delta``, +1 above ``delta``, and 0 between; on numbers that a batch norm has made about standard.

    The gradient passes where ``|x| <= 1``. For standard normal numbers ``delta=0.5`` makes 38 % zeros and
    ``delta=0.6745`` one half.
    Source: Alemdar et al., "Ternary Neural Networks for Resource-Efficient AI Applications", IJCNN 2017 (the ternary
    step); Hubara et al., NIPS 2016 (the window).
    """

    def __init__(self, delta: float = 0.5) -> None:
        super().__init__()
        self.delta = as_float32(delta)
        if not 0 <= self.delta < math.inf:
            raise ConfigError(f"delta: must be a finite number from 0 up, got {delta}")

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of *x*, of its dtype."""
        return torch.sign(x) * (x.abs() > self.delta)

    def forward(self, x: Tensor) -> Tensor:
        """Return -1, 0 or +1 for each number of *x*."""
        return StraightThrough.apply(x, self.codes, -1.0, 1.0)

    def imc_quantizer(self) -> Threshold:
        """Return the two thresholds."""
        return threshold_step([-self.delta, above(self.delta)], [-1, 0, 1], TERNARY)

    def extra_repr(self) -> str:
        """Return the threshold."""
        return f"delta={self.delta:g}"


class GridActivation(nn.Module):
    """An even grid: ``scale * clip(round(x / scale), low, high)``, halves to even; low and high as the format has them.

    The gradient passes where *x* lies between the least and the greatest number of the grid.
    """

    def __init__(self, form: Format) -> None:
        super().__init__()
        self.format = form

    def codes(self, x: Tensor) -> Tensor:
        """Return the codes of *x*, of its dtype; x / scale is worked out exactly, whatever the scale."""
        scale = self.format.scale
        steps = x / scale if is_power_of_two(scale) else x.double() / scale
        return torch.round(steps).clamp_(self.format.low, self.format.high).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the number of the grid next to each number of *x*."""
        form = self.format
        return StraightThrough.apply(
            x, lambda x: self.codes(x) * form.scale, form.low * form.scale, form.high * form.scale
        )

    def imc_quantizer(self) -> Threshold | Quantize:
        """Return the grid as a step of the graph."""
        return Quantize(self.format)

    def extra_repr(self) -> str:
        """Return bits and scale."""
        return f"bits={self.format.bits}, scale={self.format.scale:g}"


class UnsignedActivation(GridActivation):
    """Unsigned codes of *bits* bits: ``scale * clip(round(x / scale), 0, 2^bits - 1)``, halves to even.

    Give the *scale* (what code 1 stands for) or the *top* (what the greatest code stands for); by default the scale is
    ``2^(1 - bits)``, so that the grid ends just below 2. A ReLU is included: numbers below 0 become 0.
    Source: Zhou et al., "DoReFa-Net", 2016, and Choi et al., "PACT", 2018, with the clipping level held fixed.
    """

    def __init__(self, bits: int, *, scale: float | None = None, top: float | None = None) -> None:
        greatest = (1 << checked_bits(bits, least=1)) - 1
        super().__init__(unsigned(bits, chosen_scale(scale, top, greatest, default=2.0 ** (1 - bits))))

    def imc_quantizer(self) -> Threshold | Quantize:
        """Return thresholds for up to 4 bits, else the division by the scale."""
        if self.format.bits > MOST_BITS_OF_THRESHOLDS:
            return Quantize(self.format)
        halves = [(k - 0.5) * self.format.scale for k in range(1, self.format.high + 1)]
        # Halves go to the even code: k - 1/2 becomes k only where k is even.
        thresholds = [half if k % 2 == 0 else above(half) for k, half in enumerate(halves, start=1)]
        return threshold_step(thresholds, list(range(self.format.high + 1)), self.format)


class SignedActivation(GridActivation):
    """Symmetric codes of *bits* bits: ``scale * clip(round(x / scale), -top, top)``, ``top = 2^(bits-1) - 1``.

    Give the *scale* (what code 1 stands for) or the *top* (what the greatest code stands for); by default the scale is
    ``2^(2 - bits)``, so that the grid ends just below 2.
    Source: Jacob et al., CVPR 2018, with a symmetric range.
    """

    def __init__(self, bits: int, *, scale: float | None = None, top: float | None = None) -> None:
        greatest = (1 << (checked_bits(bits, least=2) - 1)) - 1
        super().__init__(signed(bits, chosen_scale(scale, top, greatest, default=2.0 ** (2 - bits))))


class InputQuantizer(UnsignedActivation):
    """What a network does with its input: unsigned codes of *bits* bits, 8 for pixels.

    By default the scale is ``2^-bits``: hand in ``pixel / 256`` and code 200 is the pixel 200. Source: see
    `UnsignedActivation`.
    """

    def __init__(self, bits: int = 8, *, scale: float | None = None, top: float | None = None) -> None:
        if scale is None and top is None:
            scale = 2.0 ** -checked_bits(bits, least=1)
        super().__init__(bits, scale=scale, top=top)


def chosen_scale(scale: float | None, top: float | None, greatest: int, *, default: float) -> float:
    """Return what code 1 stands for, exact in float32, from the *scale*, the *top* or the *default*."""
    if scale is not None and top is not None:
        raise ConfigError(
            f"scale: must be given without top, got scale {scale} and top {top}; top is scale * {greatest}"
        )
    if top is not None:
        scale = top / greatest
    value = as_float32(default if scale is None else scale)
    if not float(np.finfo(np.float32).tiny) <= value < math.inf:
        raise ConfigError(
            f"{'scale' if top is None else 'top'}: must be finite and above 0, got {scale if top is None else top}"
        )
    return value


def threshold_step(thresholds: list[float], codes: list[int], form: Format) -> Threshold:
    """Return the step with the same *thresholds* for every channel."""
    return Threshold(np.array([thresholds]), np.array(codes), form)


def as_float32(value: float) -> float:
    """Return *value* rounded to float32, as torch compares it with float32 numbers."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def above(value: float) -> float:
    """Return the next float64 above *value*: reaching it is exceeding *value*."""
    return float(np.nextafter(value, np.inf))


def is_power_of_two(value: float) -> bool:
    """Whether dividing by *value* is exact."""
    return math.frexp(value)[0] == 0.5
