"""What every layer with quantized weights does: latent float weights in training, codes and scales at inference.

A layer takes any `WeightQuantizer`. Where the weights are one term it computes ``scale * product(x, codes) + bias``: a
product of whole-number codes is exact in float32 below 2^24, so what is trained is what a chip adds up.
"""

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import LayerAttrs, Product
from imcsim.quant.weights import Coded, WeightQuantizer, require_finite
from imcsim.ternary import Codec


class QuantizedWeights(nn.Module):
    """A layer whose weights are what a `WeightQuantizer` makes of latent ones."""

    weight: Tensor
    """Latent float weights, which training moves."""

    weight_quantizer: WeightQuantizer

    def coded(self) -> Coded:
        """Return the weights as codes and scales, with their gradient."""
        return cast(Coded, self.weight_quantizer(self.weight))

    def weight_codec(self) -> Codec:
        """Return how the codes are written as planes."""
        return self.weight_quantizer.codec()

    def checked_codes(self) -> tuple[Tensor, Tensor]:
        """Return the codes, int32, and the scale, () or (c 1 ...), of weights that are one term.

        Raises GraphError where a weight is not a finite number, or for weights of several terms.
        """
        require_finite(self.weight)
        with torch.no_grad():
            coded = self.coded()
        if not coded.is_plain:
            raise GraphError(f"{type(self.weight_quantizer).__name__}: must give one term scale * codes, got others")
        return coded.codes[0].to(torch.int32), coded.scales[0]

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

    def _times(self) -> tuple[Tensor, Tensor | None]:
        """Return what the input is multiplied by, and the scale of the sums or None."""
        coded = self.coded()
        return (coded.codes[0], coded.scales[0]) if coded.is_plain else (coded.numbers(), None)

    def _product(self, kind: Any, **geometry: Any) -> Product:
        return Product(kind=kind, weights=self.weight_quantizer.plane_sum(self.weight), **geometry)


class QuantizedConv2d(QuantizedWeights, nn.Conv2d):
    """A 2d convolution with the weights of *weight_quantizer*, padded with the number *pad_value*.

    Takes the arguments of `torch.nn.Conv2d`. *pad_value* is 0, or -1 or +1 for inputs that are -1 and +1
    (quantizers.md B.4).
    """

    def __init__(self, *args: Any, weight_quantizer: WeightQuantizer, pad_value: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.padding_mode != "zeros":
            raise ConfigError(
                f"padding_mode: must be 'zeros', got {self.padding_mode!r}; put the padding into a layer before"
            )
        if pad_value not in (-1, 0, 1):
            raise ConfigError(f"pad_value: must be -1, 0 or 1, got {pad_value!r}")
        self.weight_quantizer, self.pad_value = weight_quantizer, int(pad_value)
        self.padding = padding_numbers(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale * conv(x, codes) + bias``."""
        weights, scale = self._times()
        padding = cast(tuple[int, int], self.padding)
        if self.pad_value:
            x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=float(self.pad_value))
            padding = (0, 0)
        y = F.conv2d(x, weights, None, self.stride, padding, self.dilation, self.groups)
        if scale is not None:
            y = y * scale.flatten()[:, None, None]
        return y if self.bias is None else y + self.bias[:, None, None]

    def imc_product(self) -> Product:
        """Return the layer as a `Product`; the bias stays an attribute of the module."""
        return self._product(
            "conv2d",
            stride=cast(tuple[int, int], self.stride),
            padding=cast(tuple[int, int], self.padding),
            dilation=cast(tuple[int, int], self.dilation),
            groups=self.groups,
            attrs=LayerAttrs(pad_value=self.pad_value),
        )


class QuantizedConv1d(QuantizedConv2d):
    """A 1d convolution (b c t) with the weights of *weight_quantizer*, padded with the number *pad_value*.

    Takes the arguments of `torch.nn.Conv1d`. A sequence is an image of height 1, and ``weight`` is (c_out, c_in, 1, k),
    so that every quantizer of weights of images takes it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: int | tuple[int] | str = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        weight_quantizer: WeightQuantizer,
        pad_value: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            (1, _number(kernel_size)),
            (1, _number(stride)),
            padding if isinstance(padding, str) else (0, _number(padding)),
            (1, _number(dilation)),
            groups,
            bias,
            weight_quantizer=weight_quantizer,
            pad_value=pad_value,
            **kwargs,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale * conv(x, codes) + bias``, (b c t) to (b c' t')."""
        return super().forward(x.unsqueeze(2)).squeeze(2)


def _number(value: int | tuple[int]) -> int:
    return value if isinstance(value, int) else value[0]


class QuantizedLinear(QuantizedWeights, nn.Linear):
    """A linear layer with the weights of *weight_quantizer*; takes the arguments of `torch.nn.Linear`."""

    def __init__(self, *args: Any, weight_quantizer: WeightQuantizer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale * (x @ codes.T) + bias``."""
        weights, scale = self._times()
        y = F.linear(x, weights)
        if scale is not None:
            y = y * scale.flatten()
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


Q = TypeVar("Q", bound=WeightQuantizer)


def weights_and_quantizers(network: nn.Module, kind: type[Q]) -> list[tuple[Tensor, Q]]:
    """Return the latent weights and the quantizer of each layer of *network* whose quantizer is of *kind*."""
    return [
        (layer.weight, layer.weight_quantizer)
        for layer in network.modules()
        if isinstance(layer, QuantizedWeights) and isinstance(layer.weight_quantizer, kind)
    ]
