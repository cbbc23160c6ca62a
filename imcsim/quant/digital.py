"""Layers with real weights, which stay on the digital side of a chip: shortcuts and transitions of binary networks.

`imcsim.capture` refuses a plain `torch.nn.Conv2d`, since it may be one that somebody forgot to quantize. These are the
same layers, meant so: each becomes a `RealProduct`.
"""

from typing import Any, cast

from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.graph import RealProduct
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


def _checked(values: Tensor) -> Any:
    require_finite(values)
    return as_float64(values)
