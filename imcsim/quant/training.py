"""The plain training loop of the workloads that ship: one seed, one order, one result.

Nothing here is special to hardware. Two runs with one seed on one machine and with as many threads give the same bits.
"""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

Labelled = tuple[Tensor, Tensor]
"""Images (n ch h w), float32, and labels (n), int64."""


def fit(
    network: nn.Module,
    train: Labelled,
    validation: Labelled,
    *,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    say: Callable[[str], None] = print,
) -> list[float]:
    """Train *network*, which gives log-probabilities, and leave it as it was after its best epoch.

    Adam with one cycle of the learning rate. Returns the accuracy on *validation* after each epoch; the best one
    decides (the last of equals).
    """
    images, labels = train
    n_batches = len(images) // batch_size
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, n_epochs * n_batches, pct_start=0.2)
    accuracies: list[float] = []
    best: dict[str, Tensor] = {}
    for epoch in range(n_epochs):
        start, total = time.perf_counter(), 0.0
        network.train()
        order = torch.randperm(len(images), generator=generator)
        for picks in order[: n_batches * batch_size].split(batch_size):
            x = images[picks] if augment is None else augment(images[picks], generator)
            loss = F.nll_loss(network(x), labels[picks])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        accuracies.append(accuracy(network, *validation))
        say(
            f"epoch {epoch + 1:3d}/{n_epochs}  loss {total / n_batches:.4f}  validation {accuracies[-1]:.4f}  "
            f"{time.perf_counter() - start:.1f} s"
        )
        if accuracies[-1] >= max(accuracies):
            best = copy.deepcopy(network.state_dict())
    network.load_state_dict(best)
    return accuracies


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> float:
    """Return the share of *images* that *network* puts into the class of their label; leaves it in eval mode."""
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(x).argmax(dim=1) == y).sum())
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        )
    return right / len(images)


def shifted(images: Tensor, generator: torch.Generator, *, most: int) -> Tensor:
    """Return *images* (n ch h w), each moved by up to *most* pixels in each direction; zeros come in."""
    n, _, height, width = images.shape
    padded = F.pad(images, (most, most, most, most))
    down = torch.randint(0, 2 * most + 1, (n, 1), generator=generator) + torch.arange(height)
    right = torch.randint(0, 2 * most + 1, (n, 1), generator=generator) + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return *images* (n ch h w), about half of them turned left to right."""
    turned = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(turned[:, None, None, None], images.flip(3), images)
