"""Layers with real weights, which stay on the digital side of a chip: shortcuts of binary networks, norms of tokens.

`imcsim.capture` refuses a plain `torch.nn.Conv2d`, since it may be one that somebody forgot to quantize. These are the
same layers, meant so: each becomes a `RealProduct`.
"""

from typing import Any, cast

from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import LayerNorm, RealProduct
from imcsim.quant.layers import padding_numbers
from imcsim.quant.weights import as_float64, require_finite


class DigitalConv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, without groups and dilation, that a chip computes digitally."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.groups != 1 or self.dilation != (1, 1) or self.padding_mode != "zeros":
            raise ConfigError(
                f"digital conv2d: must have one group, no dilation and padding by zeros, got groups {self.groups}, "
                f"dilation {self.dilation}, padding_mode {self.padding_mode!r}"
            )
        self.padding = padding_numbers(self)

    def imc_steps(self) -> tuple[RealProduct]:
        """Return the layer as a digital step."""
        return (
            RealProduct(
                "conv2d",
                _checked(self.weight),
                0.0 if self.bias is None else _checked(self.bias),  # type: ignore[arg-type]
                stride=cast(tuple[int, int], self.stride),
                padding=cast(tuple[int, int], self.padding),
            ),
        )


class DigitalLinear(nn.Linear):
    """`torch.nn.Linear` that a chip computes digitally."""

    def imc_steps(self) -> tuple[RealProduct]:
        """Return the layer as a digital step."""
        return (
            RealProduct(
                "linear",
                _checked(self.weight),
                0.0 if self.bias is None else _checked(self.bias),
            ),
        )


class ChannelNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the channels of each place of (b c h w), such as each token of (b c 1 t)."""

    def __init__(self, n_channels: int, eps: float = 1e-5) -> None:
        super().__init__(n_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normed numbers, channels still in front."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)

    def imc_steps(self) -> tuple[LayerNorm]:
        """Return the layer as a digital step."""
        scale, offset = (_checked(values).reshape(-1, 1, 1) for values in (self.weight, self.bias))
        return (LayerNorm((0,), self.eps, scale, offset),)


def _checked(values: Tensor) -> Any:
    require_finite(values)
    return as_float64(values)
