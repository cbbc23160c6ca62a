"""Gradients that are changed on their way back, such as quantized ones; forward, nothing happens.

A `GradientModule` stands behind a layer and passes its outputs on. In training it sees the gradient to these outputs,
which is what both the gradient to the weights and that to the inputs are made of, and puts another in its place.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


class _Changed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return ctx.change(grads[0]), None


class GradientModule(nn.Module):
    """Numbers pass; in training, `change` says what their gradient becomes."""

    def change(self, gradient: Tensor) -> Tensor:
        """Return what takes the place of *gradient* (b c ...)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return *x*."""
        return cast(Tensor, _Changed.apply(x, self.change)) if self.training else x


class GradientLayer(nn.Module):
    """A quantizer of inputs, a product, and what happens to the gradient of its outputs."""

    def __init__(self, activation: nn.Module, product: nn.Module, gradient: GradientModule) -> None:
        super().__init__()
        self.activation, self.product, self.gradient = activation, product, gradient

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of the codes of *x*."""
        return cast(Tensor, self.gradient(self.product(self.activation(x))))


def to_grid(values: Tensor, limit: Tensor, bits: int = 8) -> Tensor:
    """Return ``R(q clip(v, -limit, limit) / limit) limit / q``, ``q = 2^(bits-1) - 1``; 0 where the limit is 0."""
    top = (1 << (bits - 1)) - 1
    step = limit / top
    codes = torch.round(values / torch.where(step > 0, step, torch.ones_like(step))).clamp(-top, top)
    return codes * step
