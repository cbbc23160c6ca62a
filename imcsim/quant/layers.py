"""What every layer with quantized weights does: latent float weights in training, codes and a scale at inference.

A family of weights is one subclass of `QuantizedWeights` that says how a latent tensor becomes codes and a scale, and
two classes that join it to `torch.nn.Conv2d` and `torch.nn.Linear`. The layer computes ``scale * product(x, codes) +
bias``: a product of whole-number codes is exact in float32 below 2^24, so what is trained is what a chip adds up.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import Product
from imcsim.quant.straight import StraightToWeights
from imcsim.ternary import Codec


class QuantizedWeights(nn.Module):
    """A layer whose weights are whole-number codes times one scale, or one scale per output channel."""

    weight: Tensor
    """Latent float weights, which training moves."""

    per_channel: bool = False
    """Whether each output channel has a scale of its own."""

    def weight_codes(self) -> tuple[Tensor, Tensor]:
        """Return the codes, shaped like the weights, and the scale: () or (c 1 ...); both of the weights' dtype."""
        raise NotImplementedError

    def weight_codec(self) -> Codec:
        """Return how the codes are written as planes."""
        raise NotImplementedError

    def checked_codes(self) -> tuple[Tensor, Tensor]:
        """Return the codes, int32, and the scale; raises GraphError where a weight is not a finite number."""
        weights = self.weight.detach()
        if not bool(torch.isfinite(weights).all()):
            found = weights[~torch.isfinite(weights)][0].item()
            raise GraphError(f"weights: must be finite numbers, got {found}; check the training or the weights file")
        codes, scale = self.weight_codes()
        return codes.to(torch.int32), scale

    def restore_codes(self, codes: Tensor, scale: Tensor) -> None:
        """Set the latent weights to ``scale * codes``, which give those codes and that scale back bit for bit.

        Raises GraphError when they do not, because they were not made by a layer of this kind.
        """
        if codes.shape != self.weight.shape:
            raise GraphError(
                f"codes: must have the weights' shape {tuple(self.weight.shape)}, got {tuple(codes.shape)}"
            )
        with torch.no_grad():
            self.weight.copy_(codes.to(self.weight.dtype) * scale)
        again, scale_again = self.checked_codes()
        if not torch.equal(again, codes.to(torch.int32)) or not torch.equal(scale_again, scale):
            raise GraphError(f"codes: must be what {type(self).__name__} makes of weights, got others; check the file")

    def _straight_codes(self) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            codes, scale = self.weight_codes()
        return cast(Tensor, StraightToWeights.apply(self.weight, codes, scale)), scale

    def _product(self, kind: Any, **geometry: Any) -> Product:
        codes, scale = self.checked_codes()
        weights = self.weight_codec().plane_sum(codes.cpu().numpy(), scale=scale.cpu().numpy().astype(np.float64))
        return Product(kind=kind, weights=weights, **geometry)


class QuantizedConv2d(QuantizedWeights, nn.Conv2d):
    """A 2d convolution with quantized weights and padding by zeros."""

    def __init__(self, *args: Any, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.padding_mode != "zeros":
            raise ConfigError(
                f"padding_mode: must be 'zeros', got {self.padding_mode!r}; put the padding into a layer before"
            )
        self.per_channel = per_channel
        self.padding = padding_numbers(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale * conv(x, codes) + bias``."""
        codes, scale = self._straight_codes()
        y = (
            F.conv2d(x, codes, None, self.stride, self.padding, self.dilation, self.groups)
            * scale.flatten()[:, None, None]
        )
        return y if self.bias is None else y + self.bias[:, None, None]

    def imc_product(self) -> Product:
        """Return the layer as a `Product`; the bias stays an attribute of the module."""
        return self._product(
            "conv2d",
            stride=cast(tuple[int, int], self.stride),
            padding=cast(tuple[int, int], self.padding),
            dilation=cast(tuple[int, int], self.dilation),
            groups=self.groups,
        )


class QuantizedLinear(QuantizedWeights, nn.Linear):
    """A linear layer with quantized weights."""

    def __init__(self, *args: Any, per_channel: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.per_channel = per_channel

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale * (x @ codes.T) + bias``."""
        codes, scale = self._straight_codes()
        y = F.linear(x, codes) * scale.flatten()
        return y if self.bias is None else y + self.bias

    def imc_product(self) -> Product:
        """Return the layer as a `Product`; the bias stays an attribute of the module."""
        return self._product("linear")


def padding_numbers(conv: nn.Conv2d) -> tuple[int, int]:
    """Return the padding of *conv* as numbers; raises ConfigError for 'same' with a window of even extent.

    >>> padding_numbers(nn.Conv2d(1, 1, (3, 5), padding="same"))
    (1, 2)
    """
    if not isinstance(conv.padding, str):
        return cast(tuple[int, int], conv.padding)
    if conv.padding == "valid":
        return (0, 0)
    totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    if any(total % 2 for total in totals):
        raise ConfigError(
            f"padding: 'same' must add as much on both sides, got kernel {conv.kernel_size} with dilation "
            f"{conv.dilation}; take an odd kernel, or put the padding into a layer before"
        )
    return (totals[0] // 2, totals[1] // 2)


def over_group(weights: Tensor, per_channel: bool) -> tuple[int, ...]:
    """Return the axes that share one scale: all of them, or all but the output channels."""
    return tuple(range(1 if per_channel else 0, weights.ndim))
