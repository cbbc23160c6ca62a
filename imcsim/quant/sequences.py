"""A training loop for recurrent networks that can be stopped and started again without changing a bit of the result.

After each epoch the state (weights, Adam's moments, generators, scores) is written beside the result as safetensors; a
later run with the same file goes on from there.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.results import write_whole

Batches = Callable[[torch.Generator], Iterable[tuple[Tensor, Tensor]]]
"""The batches (inputs, labels) of one epoch, drawn with a generator."""

WARM_UP = 0.1
"""Share of the training in which the learning rate rises; then it falls as half a cosine."""


def fit_sequences(
    network: nn.Module,
    batches: Batches,
    score: Callable[[nn.Module], float],
    *,
    n_epochs: int,
    learning_rate: float,
    generator: torch.Generator,
    checkpoint: Path | None = None,
    most_gradient: float = 1.0,
    say: Callable[[str], None] = print,
) -> list[float]:
    """Train *network*, which gives log-probabilities (b c ...), and leave it as it was after its best epoch.

    Args:
        network: Trained in place by Adam; gradients longer than *most_gradient* are shortened to it.
        batches: The batches of an epoch.
        score: Measures the network on the validation set; greater is better, the last of equals decides.
        n_epochs: How many epochs.
        learning_rate: Its greatest value.
        generator: Draws what *batches* draws; what layers draw comes from torch's own.
        checkpoint: File to go on from and to write after each epoch.
        most_gradient: Greatest length of the gradient.
        say: Is told of each epoch.

    Returns:
        The score after each epoch.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    scores: list[float] = []
    best: dict[str, Tensor] = {}
    if checkpoint is not None and checkpoint.is_file():
        scores, best = _read(checkpoint, network, optimizer, generator)
    for epoch in range(len(scores), n_epochs):
        start, total, n_batches = time.perf_counter(), 0.0, 0
        network.train()
        for share, (x, labels) in _with_share(batches(generator)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate_at((epoch + share) / n_epochs)
            loss = F.nll_loss(network(x), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), most_gradient)
            optimizer.step()
            total, n_batches = total + loss.item(), n_batches + 1
        network.eval()
        with torch.no_grad():
            scores.append(score(network))
        say(
            f"epoch {epoch + 1:3d}/{n_epochs}  loss {total / n_batches:.4f}  validation {scores[-1]:.4f}  "
            f"{time.perf_counter() - start:.1f} s"
        )
        if scores[-1] >= max(scores):
            best = copy.deepcopy(network.state_dict())
        if checkpoint is not None:
            _write(checkpoint, network, optimizer, generator, scores, best)
    network.load_state_dict(best)
    network.eval()
    return scores


def rate_at(progress: float) -> float:
    """Return the share of the greatest learning rate at *progress*, from 0 to 1, of the training.

    >>> [round(rate_at(x), 3) for x in (0, 0.05, 0.1, 0.55, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def mean_loss(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean over all labels of the negative log-probability that *network* gives them, in nats."""
    network.eval()
    total, n = 0.0, 0
    with torch.no_grad():
        for x, labels in batches:
            total += F.nll_loss(network(x), labels, reduction="sum").item()
            n += labels.numel()
    return total / n


def windows(tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return *tokens* (n) as windows side by side: inputs (w 1 1 length) float32 and what comes next (w 1 length).

    The last tokens, which fill no window, are left out.
    """
    n = (len(tokens) - 1) // length
    inputs, labels = tokens[: n * length], tokens[1 : n * length + 1]
    return inputs.reshape(n, 1, 1, length).float(), labels.reshape(n, 1, length)


def _with_share(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[float, tuple[Tensor, Tensor]]]:
    listed = list(batches)
    for i, batch in enumerate(listed):
        yield (i + 1) / len(listed), batch


def _write(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    scores: list[float],
    best: dict[str, Tensor],
) -> None:
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    state |= {f"best.{name}": value for name, value in best.items()}
    state |= {"generator": generator.get_state(), "torch": torch.get_rng_state()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    write_whole(path, save({k: v.contiguous().clone() for k, v in state.items()}, {"scores": json.dumps(scores)}))


def _read(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
) -> tuple[list[float], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        scores = json.loads(file.metadata()["scores"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    network.load_state_dict(under("network."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in under("adam.").items():
        number, _, what = name.partition(".")
        moments.setdefault(int(number), {})[what] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return scores, under("best.")
