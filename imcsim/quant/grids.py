"""Even grids whose step is a parameter: what LSQ, PACT and their like have in common.

Forward, a code is ``R(clip(x / step, low, high))``, halves to even, the division in float64 whatever the network is
in. Its step of the graph, thresholds or `Quantize`, gives the same code for every number of float32 and of float64.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import Format, Quantize, Threshold
from imcsim.quant.activation import MOST_BITS_OF_THRESHOLDS, threshold_step
from imcsim.quant.layers import over_group
from imcsim.quant.straight import rounded
from imcsim.quant.weights import WeightQuantizer
from imcsim.ternary import (
    Codec,
    odd_binary,
    odd_trits,
    sign_magnitude,
    signed_trits,
    twos_complement,
    twos_complement_trits,
)

GridKind = Literal["unsigned", "signed", "integer"]
LEAST_STEP = 1e-8
"""Learned steps and clips are held at or above it; papers leave open what a step at 0 or below would mean."""

_CODECS = {
    ("odd", "bit"): odd_binary,
    ("odd", "trit"): odd_trits,
    ("symmetric", "bit"): sign_magnitude,
    ("symmetric", "trit"): signed_trits,
    ("integer", "bit"): twos_complement,
    ("integer", "trit"): twos_complement_trits,
}


def codec_of(levels: Literal["odd", "symmetric", "integer"], bits: int, serial: str) -> Codec:
    """Return how codes of weights are written as planes: binary digits, or fewer balanced ternary ones.

    >>> codec_of("odd", 3, "bit").n_planes, codec_of("integer", 8, "trit").n_planes
    (3, 6)
    """
    if serial not in ("bit", "trit"):
        raise ConfigError(f"serial: must be bit or trit, got {serial!r}")
    return _CODECS[levels, serial](bits)


# --- activations ----------------------------------------------------------------------------------------------------


class Grid(nn.Module):
    """``step * R(clip(x / step, low, high))``; low and high are those of codes of *kind* and *bits*.

    Gradients are those of the formula with a round of derivative 1: to *x* inside the range, and to whatever the step
    is made of. Unsigned codes include a ReLU. A subclass says in `step` what the step is.
    """

    def __init__(self, kind: GridKind, bits: int) -> None:
        super().__init__()
        self.kind, self.bits = kind, bits
        form = Format(kind, bits)
        self.low, self.high = form.low, form.high

    def step(self) -> Tensor:
        """Return what code 1 stands for, ()."""
        raise NotImplementedError

    def prepare(self, x: Tensor) -> None:
        """See the numbers of a step of training before they are quantized."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid."""
        if self.training:
            with torch.no_grad():
                self.prepare(x.detach())
        return self.numbers(x)

    def numbers(self, x: Tensor) -> Tensor:
        """Return the numbers of the grid, with the gradient of the method."""
        step = self.step()
        codes = rounded((x.double() / step.double()).clamp(self.low, self.high))
        return codes.to(x.dtype) * step.to(x.dtype)

    def imc_quantizer(self) -> Threshold | Quantize:
        """Return the grid as thresholds for up to 4 bits, else as a division by the step."""
        scale = float(self.step().detach())
        form = Format(self.kind, self.bits, scale)
        if self.bits > MOST_BITS_OF_THRESHOLDS:
            return Quantize(form)
        codes = list(range(self.low, self.high + 1))
        return threshold_step([least_with_code(code, scale) for code in codes[1:]], codes, form)

    def extra_repr(self) -> str:
        """Return kind and bits."""
        return f"{self.kind}, bits={self.bits}"


class FixedGrid(Grid):
    """A grid whose step is given once for all."""

    def __init__(self, kind: GridKind, bits: int, step: float) -> None:
        super().__init__(kind, bits)
        self.fixed_step = step

    def step(self) -> Tensor:
        """Return the step."""
        return torch.tensor(self.fixed_step, dtype=torch.float64)


class LearnedGrid(Grid):
    """A grid with one learned number, `size`: its step, its clip or their logarithm.

    The number is set from the first batch that comes in training; until then it is *start*.
    """

    size: nn.Parameter
    is_ready: Tensor
    is_positive = True
    """Whether `size` must stay above 0."""

    def __init__(self, kind: GridKind, bits: int, start: float) -> None:
        super().__init__(kind, bits)
        self.size = nn.Parameter(torch.tensor(start))
        self.register_buffer("is_ready", torch.tensor(False))

    def first(self, x: Tensor) -> Tensor:
        """Return `size` for a first batch *x*; values that are 0 throughout leave it as it is."""
        raise NotImplementedError

    def prepare(self, x: Tensor) -> None:
        """Set `size` from the first batch."""
        if not self.is_ready:
            found = self.first(x.double())
            if torch.isfinite(found) and (found > LEAST_STEP or not self.is_positive):
                self.size.copy_(found)
            self.is_ready.fill_(True)


def least_with_code(code: int, scale: float) -> float:
    """Return the least float64 x with ``round(x / scale) >= code``, halves to even: the threshold of *code*.

    >>> least_with_code(2, 0.5), least_with_code(1, 0.5) > 0.25
    (0.75, True)
    """
    x = (code - 0.5) * scale
    while np.rint(x / scale) >= code:
        x = float(np.nextafter(x, -np.inf))
    while np.rint(x / scale) < code:
        x = float(np.nextafter(x, np.inf))
    return x


# --- weights --------------------------------------------------------------------------------------------------------


class LearnedWeights(WeightQuantizer):
    """A quantizer of weights with one learned number for a layer, or one for each of *n_scales* output channels.

    The number, `size`, is set from the latent weights when they first pass in training. Before that each call takes
    what it would be set to.
    """

    size: nn.Parameter
    is_ready: Tensor
    is_positive = True

    def __init__(self, n_scales: int | None = None) -> None:
        super().__init__()
        self.per_channel = n_scales is not None
        self.size = nn.Parameter(torch.ones(()) if n_scales is None else torch.ones(n_scales))
        self.register_buffer("is_ready", torch.tensor(False))

    def first(self, weight: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Return `size` for latent weights, the *axes* that share it reduced and kept."""
        raise NotImplementedError

    def sized(self, weight: Tensor) -> Tensor:
        """Return `size` as () or (c 1 ...), ready to meet *weight*."""
        if not self.is_ready:
            with torch.no_grad():
                found = self.first(weight.detach(), over_group(weight, self.per_channel))
                if self.is_positive:
                    found = torch.where(found > LEAST_STEP, found, torch.ones_like(found))
                if not self.training:
                    return found if self.per_channel else found.reshape(())
                self.size.copy_(found.reshape(self.size.shape))
                self.is_ready.fill_(True)
        return self.size.reshape(-1, *(1,) * (weight.ndim - 1)) if self.per_channel else self.size


def keep_positive(network: nn.Module) -> None:
    """Hold the learned steps and clips of *network* at `LEAST_STEP` or above."""
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, LearnedGrid | LearnedWeights) and part.is_positive:
                part.size.clamp_(min=LEAST_STEP)
