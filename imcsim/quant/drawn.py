"""Networks with fresh weights that are ready to be captured: statistics measured on drawn images, nothing trained."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imcsim.quant.method import Method

NORM_OFFSET = 0.1
"""Greatest offset drawn for a batch norm. With offsets of 0, whole-number sums that are exactly their mean would stand
exactly at the threshold of a sign, where the rounding of a norm decides; training leaves no such offsets."""


def drawn_images(n: int, *, n_channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """Return drawn images (n n_channels size size), whole 256ths below 1: patches of 4 x 4 pixels of one colour, noise.

    Where 4 does not divide *size* the last patches are cut.
    """
    generator = torch.Generator().manual_seed(seed)
    side = -(-size // 4)
    patches = torch.randint(0, 192, (n, n_channels, side, side), generator=generator)
    patches = patches.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, :size, :size]
    return (patches + torch.randint(0, 64, (n, n_channels, size, size), generator=generator)).float() / 256


def drawn(make: Callable[[Method], nn.Module], method: Method, images: Tensor, *, seed: int = 0) -> nn.Module:
    """Return the network that *make* gives for *method*, its weights drawn, set up on *images*, in eval mode.

    Weights and norm offsets are drawn from *seed*. One pass in training mode sets what quantizers take from data and
    the statistics of the batch norms; torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = method.build(make).train()
        for norm in norms_of(network):
            if norm.affine:
                nn.init.uniform_(norm.bias, -NORM_OFFSET, NORM_OFFSET)
        method.initialise(network, images)
        method.before_step(network, 0.0)
        measure_norms(network, images)
        method.deploy(network, images)
    return network.eval()


def norms_of(network: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """Return the batch norms of *network*."""
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]


def measure_norms(network: nn.Module, images: Tensor) -> None:
    """Set the statistics of the batch norms of *network* to those of *images*, by one pass in training mode."""
    norms = norms_of(network)
    was_training = network.training
    network.train()
    for norm in norms:
        norm.eval()  # it uses what the hook has just measured
    hooks = [norm.register_forward_pre_hook(_measure) for norm in norms]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)


def _measure(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Set the statistics of *norm* to those of what it is about to take (b c ...).

    NOTE: numpy adds in one order, whatever the number of torch's threads.
    """
    values = inputs[0].detach().double().numpy()
    axes = (0, *range(2, values.ndim))
    for name, found in (("running_mean", values.mean(axis=axes)), ("running_var", values.var(axis=axes))):
        getattr(norm, name).copy_(torch.from_numpy(found))
