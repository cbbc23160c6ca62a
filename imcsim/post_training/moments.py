"""What a layer's inputs and the float layer's outputs have in common: means and mean products, group by group.

All that a linear layer can be fitted by follows from them, so samples are gone through once.
"""

from dataclasses import dataclass

import numpy as np
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.graph.qonnx.model import Node
from imcsim.post_training.evaluate import padded, product, tensor, window_of

Array = np.ndarray

MOST_VECTORS = 1 << 16
"""So many vectors of inputs, drawn among all samples and places of the image, tell the moments of a layer."""

N_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Moments:
    """Of vectors of inputs (n) and outputs (c) of one group, float64; mean products are about the means."""

    n: int
    """How many vectors there were."""

    input: Array
    """Means (n)."""

    output: Array
    """Means (c)."""

    inputs: Array
    """Mean products (n n) of inputs."""

    both: Array
    """Mean products (n c) of inputs and outputs."""

    spread: Array
    """Mean squares (c) of outputs."""


def moments(node: Node, kernel: tuple[int, ...], x: Array, y: Array, rng: np.random.Generator) -> list[Moments]:
    """Return the moments of each group of the product *node* with inputs *x* (b ...) and float outputs *y* (b ...).

    *kernel* is the shape of the weights (c_out c_in ...).
    """
    n_groups = int(node.attributes.get("group", 1)) if node.kind == "Conv" else 1
    n_inputs, n_outputs = int(np.prod(kernel[1:])), kernel[0] // n_groups
    sums = [_Sums(n_inputs, n_outputs) for _ in range(n_groups)]
    n_places = int(np.prod(y.shape[2:])) if node.kind == "Conv" else int(np.prod(y.shape[1:-1]))
    n_taken = min(n_places, max(1, MOST_VECTORS // len(x)))
    for start in range(0, len(x), N_TOGETHER):
        picks = np.sort(rng.choice(n_places, n_taken, replace=False))
        inputs, outputs = _vectors(node, kernel, x[start : start + N_TOGETHER], y[start : start + N_TOGETHER], picks)
        for group, each in enumerate(sums):
            each.add(
                inputs[:, group * n_inputs : (group + 1) * n_inputs],
                outputs[:, group * n_outputs : (group + 1) * n_outputs],
            )
    return [each.moments() for each in sums]


class _Sums:
    """Sums over vectors of ones, inputs and outputs."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        self.n = 0
        self.x, self.y, self.yy = np.zeros(n_inputs), np.zeros(n_outputs), np.zeros(n_outputs)
        self.xx, self.xy = np.zeros((n_inputs, n_inputs)), np.zeros((n_inputs, n_outputs))

    def add(self, x: Array, y: Array) -> None:
        """Take in vectors (v n) of inputs and (v c) of outputs."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        self.n += len(x)
        self.x, self.y, self.yy = self.x + x.sum(axis=0), self.y + y.sum(axis=0), self.yy + np.square(y).sum(axis=0)
        self.xx, self.xy = self.xx + product(x.T, x), self.xy + product(x.T, y)

    def moments(self) -> Moments:
        """Return what the sums come to."""
        x, y = self.x / self.n, self.y / self.n
        return Moments(
            self.n, x, y, self.xx / self.n - np.outer(x, x), self.xy / self.n - np.outer(x, y), self.yy / self.n - y * y
        )


def _vectors(node: Node, kernel: tuple[int, ...], x: Array, y: Array, picks: Array) -> tuple[Array, Array]:
    """Return inputs (v n), all groups side by side, and outputs (v c) at the places *picks* of some samples."""
    if node.kind != "Conv":
        inputs, outputs = (array.reshape(len(array), -1, array.shape[-1])[:, picks] for array in (x, y))
        return inputs.reshape(-1, x.shape[-1]), outputs.reshape(-1, y.shape[-1])
    strides, dilations, pads = window_of(node.attributes, len(kernel) - 2)
    image, window = padded(tensor(x), pads), kernel[2:]
    if len(window) == 1:
        image, window, strides, dilations = image.unsqueeze(2), (1, *window), (1, *strides), (1, *dilations)
    patches = F.unfold(image, window, dilation=dilations, stride=strides).numpy()  # b n places
    inputs = patches[:, :, picks].transpose(0, 2, 1).reshape(-1, patches.shape[1])
    outputs = y.reshape(*y.shape[:2], -1)[:, :, picks].transpose(0, 2, 1).reshape(-1, y.shape[1])
    return inputs, outputs
