"""Straight-through gradients: what a quantizer gives forward, its input gets back."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from imcsim.quant.weights import Coded


class StraightThrough(torch.autograd.Function):
    """Give ``quantize(x)`` forward; pass the gradient to *x* where ``low <= x <= high``, and 0 elsewhere.

    Source: Bengio, Leonard, Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013; the
    window is that of Hubara et al., "Binarized Neural Networks", NIPS 2016.
    """

    @staticmethod
    def forward(ctx, x: Tensor, quantize: Callable[[Tensor], Tensor], low: float, high: float) -> Tensor:  # type: ignore[no-untyped-def]
        """Return ``quantize(x)``."""
        ctx.save_for_backward(x)
        ctx.window = low, high
        return quantize(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        """Return the gradient inside the window."""
        (x,) = ctx.saved_tensors
        low, high = ctx.window
        return grads[0] * ((x >= low) & (x <= high)), None, None, None


class StraightToWeights(torch.autograd.Function):
    """Give *codes* forward; pass the gradient of ``scale * codes`` to the latent *weights*, all of it."""

    @staticmethod
    def forward(ctx, weights: Tensor, codes: Tensor, scale: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Return a copy of *codes*."""
        ctx.save_for_backward(scale)
        return codes.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        """Return the gradient of the codes, divided by the scale that the layer multiplies them with."""
        (scale,) = ctx.saved_tensors
        return torch.where(scale > 0, grads[0] / scale, torch.zeros((), dtype=grads[0].dtype)), None, None


def straight_to_weights(weight: Tensor, codes: Tensor, scale: Tensor) -> Coded:
    """Return ``scale * codes`` whose gradient goes to the latent *weight*, all of it, and none to the scale."""
    return Coded((cast(Tensor, StraightToWeights.apply(weight, codes.detach(), scale.detach())),), (scale.detach(),))
