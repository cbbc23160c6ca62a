"""What methods share that train scales and slopes beside the latent weights."""

from typing import cast

import torch
from torch import Tensor, nn

from imcsim.quant.weights import WeightQuantizer

LEAST = 1e-3
"""What learned scales and slopes are kept at or above, so that levels stay in order."""


class LearnedScales(WeightQuantizer):
    """A quantizer with parameters ``alpha``, set from the weights when it first sees them."""

    alpha: nn.Parameter
    is_ready: Tensor

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(n))
        self.register_buffer("is_ready", torch.zeros((), dtype=torch.bool))

    def start(self, weight: Tensor) -> Tensor:
        """Return what the parameters (n) begin with for the latent *weight*."""
        raise NotImplementedError

    def make_ready(self, weight: Tensor) -> None:
        """Set the parameters, if they are not set."""
        if not bool(self.is_ready):
            with torch.no_grad():
                self.alpha.copy_(self.start(weight.detach()))
                self.is_ready.fill_(True)


def keep_positive(network: nn.Module, kinds: tuple[type[nn.Module], ...], *names: str, least: float = LEAST) -> None:
    """Raise the parameters called *names* of the modules of *kinds* to at least *least*."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, kinds):
                for name in names:
                    cast(Tensor, getattr(module, name)).clamp_(min=least)
