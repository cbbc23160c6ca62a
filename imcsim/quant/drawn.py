"""Networks with fresh weights that are ready to be captured: statistics measured on drawn images, nothing trained."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imcsim.quant.method import Method


def drawn_images(n: int, *, n_channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """Return drawn images (n n_channels size size), whole 256ths below 1: patches of 4 x 4 pixels of one colour, noise.

    Raises nothing for a *size* that 4 does not divide: the last patches are cut.
    """
    generator = torch.Generator().manual_seed(seed)
    side = -(-size // 4)
    patches = torch.randint(0, 192, (n, n_channels, side, side), generator=generator)
    patches = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, :size, :size]
    return (patches + torch.randint(0, 64, (n, n_channels, size, size), generator=generator)).float() / 256


def drawn(make: Callable[[], nn.Module], method: Method, images: Tensor, *, seed: int = 0) -> nn.Module:
    """Return what *make* gives with weights drawn from *seed*, set up by *method* on *images*, in eval mode.

    One pass in training mode sets what quantizers take from data and the statistics of the batch norms; torch's own
    generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make().train()
        method.initialise(network, images)
        method.before_step(network, 0.0)
        measure_norms(network, images)
        method.deploy(network, images)
    return network.eval()


def measure_norms(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of the batch norms of *network* to those of *images*, by one pass in training mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    for norm in norms:
        norm.momentum = 1.0
    try:
        with torch.no_grad():
            network.train()(images)
    finally:
        network.train(was_training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
