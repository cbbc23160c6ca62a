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


class _Surrogate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, values: Tensor, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(slope)
        return values.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (slope,) = ctx.saved_tensors
        return grads[0] * slope, None, None


def surrogate(x: Tensor, values: Tensor, slope: Tensor | float = 1.0) -> Tensor:
    """Give *values* forward, bit for bit; pass ``slope`` times the gradient back to *x*.

    Args:
        x: What the values were made of.
        values: Shaped like *x*; no gradient goes through them.
        slope: The derivative that a method takes in place of that of a step: 1, a window, a polynomial.
    """
    return cast(Tensor, _Surrogate.apply(x, values.detach(), torch.as_tensor(slope, dtype=x.dtype).detach()))


def signs(x: Tensor, zero: int = 1) -> Tensor:
    """Return -1 or +1 for each number of *x*, and *zero* (-1, 0 or +1) where it is exactly 0; of its dtype."""
    return torch.sign(x) + zero * (x == 0) if zero else torch.sign(x)


def window(x: Tensor, half_width: float = 1.0) -> Tensor:
    """Return 1 where ``|x| <= half_width`` and 0 elsewhere: the derivative of a hard tanh (Hubara et al., 2016)."""
    return (x.abs() <= half_width).to(x.dtype)


def scaled_gradient(value: Tensor, factor: float) -> Tensor:
    """Return *value*, bit for bit, with *factor* times its gradient (LSQ's gradient scale)."""
    return surrogate(value, value, factor)


def rounded(x: Tensor) -> Tensor:
    """Return *x* rounded, halves to even, with the gradient of *x* itself."""
    return surrogate(x, torch.round(x))
