"""What a quantizer makes of latent weights: whole-number codes and what they count for, with gradients.

A quantizer of weights is a torch module: ``forward(weight)`` gives a `Coded`, and `codec` says how its codes are
written as planes. `QuantizedConv2d` and `QuantizedLinear` take any of them as ``weight_quantizer=``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import GraphError
from imcsim.ternary import Codec, PlaneSum


@dataclass(frozen=True)
class Coded:
    """Weights as ``sum_i scales[i] * codes[i] + offset``; one term for most quantizers, several for multi-base ones."""

    codes: tuple[Tensor, ...]
    """Each shaped like the weights, whole numbers in the weights' dtype, with the gradient of the method."""

    scales: tuple[Tensor, ...]
    """Each () or (c 1 ...): per layer or per output channel."""

    offset: Tensor | None = None
    """() or (c 1 ...): added to every weight (RTN's beta); a column of ones on the tile."""

    minus: Tensor | None = None
    """() or (c 1 ...), above 0: codes of -1 count for ``-minus * scale`` (TTQ); one ternary term alone."""

    group_size: int | None = None
    """How many consecutive inputs of an output share a further scale (FGQ)."""

    group_scale: Tensor | None = None
    """(c g) or (c g kh kw): that scale."""

    @property
    def is_plain(self) -> bool:
        """Whether the weights are one term ``scale * codes``, so that products of the codes can be scaled behind."""
        return len(self.codes) == 1 and self.offset is None and self.minus is None and self.group_scale is None

    def numbers(self) -> Tensor:
        """Return the weights as numbers."""
        codes = self.codes
        if self.minus is not None:
            codes = (torch.where(codes[0] < 0, codes[0] * self.minus, codes[0]), *codes[1:])
        if self.group_size is not None and self.group_scale is not None:
            per_input = self.group_scale.repeat_interleave(self.group_size, dim=1)[:, : codes[0].shape[1]]
            per_input = per_input.reshape(*per_input.shape, *(1,) * (codes[0].ndim - per_input.ndim))
            codes = tuple(part * per_input for part in codes)
        total = sum((part * scale for part, scale in zip(codes, self.scales, strict=True)), start=torch.zeros(()))
        return total if self.offset is None else total + self.offset


class WeightQuantizer(nn.Module):
    """How latent weights become codes; a subclass gives `forward` and `codec`."""

    def forward(self, weight: Tensor) -> Coded:
        """Return what *weight* becomes; the gradient to it, and to parameters, is the method's own."""
        raise NotImplementedError

    def codec(self) -> Codec:
        """Return how the codes of each term are written as planes."""
        raise NotImplementedError

    def plane_sum(self, weight: Tensor) -> PlaneSum:
        """Return the planes that tiles hold; raises GraphError where a weight is not a finite number."""
        require_finite(weight)
        with torch.no_grad():
            coded = self(weight.detach())
        codec = self.codec()
        codes = [as_whole(part) for part in coded.codes]
        scales = [as_float64(scale) for scale in coded.scales]
        extra = {
            "offset": 0.0 if coded.offset is None else as_float64(coded.offset),
            "minus": 1.0 if coded.minus is None else as_float64(coded.minus),
            "group_size": coded.group_size,
            "group_scale": None if coded.group_scale is None else as_float64(coded.group_scale),
        }
        if len(codes) == 1:
            return PlaneSum(planes=codec.encode(codes[0]), factors=np.array(codec.factors), scale=scales[0], **extra)
        per_output = (weight.shape[0], *(1,) * (weight.ndim - 1))
        factors = [f * np.broadcast_to(scale, per_output) for scale in scales for f in codec.factors]
        return PlaneSum(
            planes=np.concatenate([codec.encode(part) for part in codes]), factors=np.stack(factors), **extra
        )


def require_finite(weight: Tensor) -> None:
    """Raise GraphError, with the first of them, where a weight is not a finite number."""
    weight = weight.detach()
    if not bool(torch.isfinite(weight).all()):
        found = weight[~torch.isfinite(weight)][0].item()
        raise GraphError(f"weights: must be finite numbers, got {found}; check the training or the weights file")


def as_whole(codes: Tensor) -> np.ndarray:
    """Return whole-number *codes* as int32; raises GraphError where one is not whole."""
    values = codes.detach().cpu().numpy()
    whole = np.rint(values).astype(np.int32)
    if not np.array_equal(whole, values):
        raise GraphError(f"codes: must be whole numbers, got {values[whole != values].flat[0]}; check the quantizer")
    return whole


def as_float64(values: Tensor) -> np.ndarray:
    """Return *values* as numpy's float64."""
    return values.detach().cpu().double().numpy()
