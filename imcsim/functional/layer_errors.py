"""Where a chip's numbers leave the reference's: signal-to-error ratios layer by layer, and the first difference.

Each layer is met twice. *In the network* it reads what the layers before it made on the chip, and shows the error that
has come together so far. *By itself* it reads the reference's numbers, and shows the error that it adds of its own. A
layer whose two ratios are about equal is where the error is born; one whose own ratio is much higher passes it on.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf, isfinite, log10
from typing import Any

import numpy as np

from imcsim.functional.axes import channels_first, channels_last
from imcsim.functional.execute import Observer, Stage, run, samples_at_once
from imcsim.functional.instance import ChipInstance
from imcsim.functional.reference import tensors_of
from imcsim.graph import Graph, Op
from imcsim.graph.formats import Format
from imcsim.graph.samples import checked_inputs
from imcsim.mapping.plan import Plan

Array = np.ndarray


@dataclass(frozen=True)
class Deviation:
    """How far the chip's numbers are from the reference's, over all samples."""

    n_values: int = 0
    n_different: int = 0
    signal: float = 0.0
    """Sum of the squares of the reference's numbers; codes count for what they stand for, in units of their scale."""

    error: float = 0.0
    """Sum of the squares of the differences."""

    @property
    def ratio_dB(self) -> float:
        """Signal-to-error ratio, 10 log10(signal / error); infinite where every number is exact.

        >>> Deviation(n_values=4, n_different=1, signal=100.0, error=1.0).ratio_dB
        20.0
        """
        if self.error == 0:
            return inf
        return 10 * log10(self.signal / self.error) if self.signal else -inf

    @property
    def share_different(self) -> float:
        """Share of the numbers that differ."""
        return self.n_different / self.n_values if self.n_values else 0.0

    def __add__(self, other: "Deviation") -> "Deviation":
        return Deviation(
            self.n_values + other.n_values,
            self.n_different + other.n_different,
            self.signal + other.signal,
            self.error + other.error,
        )


@dataclass(frozen=True)
class LayerErrors:
    """How far one layer is from the reference."""

    layer: str

    sums: Deviation | None
    """Of the sums of its product, in the network; None without a product."""

    own_sums: Deviation | None
    """The same where it reads the reference's numbers."""

    outputs: Deviation
    """Of what leaves the layer behind its digital steps, in the network."""

    own_outputs: Deviation


@dataclass(frozen=True)
class FirstDifference:
    """The first number that is not the reference's: first layer of the walk, then first sample, then first place."""

    layer: str
    stage: Stage
    """Whether the product's sums differ, or only what the digital steps made of them."""

    sample: int
    place: tuple[int, ...]
    """(channel), or (channel, row, column) in an image."""

    expected: float
    found: float


@dataclass(frozen=True)
class Explanation:
    """Where error is born, where it is only passed on, and where the first number differs."""

    n_samples: int
    layers: tuple[LayerErrors, ...]
    """In the order of the walk."""

    first_difference: FirstDifference | None
    """None where every number of every layer is the reference's."""


def explain(plan: Plan, x: Any, *, seed: int = 0, progress: Callable[[int], None] | None = None) -> Explanation:
    """Hold every layer of *plan* against the reference for the inputs *x* (b ...), as `execute` takes them.

    Both ways the chip is that of *seed* and draws from ``default_rng(seed)``, so that a layer whose inputs are the
    reference's meets the same imperfections twice. *progress* is told how many samples were done, batch after batch.
    """
    x = checked_inputs(plan.graph, x)
    rng, own_rng = np.random.default_rng(seed), np.random.default_rng(seed)
    network, alone = _Comparison(plan.graph), _Comparison(plan.graph)
    instance, step = ChipInstance(seed), samples_at_once(plan)  # so that each op is observed once a batch
    for start in range(0, len(x), step):
        batch = x[start : start + step]
        expected: dict[tuple[str, Stage], Array] = {}

        def note(op: Op, stage: str, numbers: Array, expected: dict[tuple[str, Stage], Array] = expected) -> None:
            expected[op.name, "sums"] = numbers

        tensors = tensors_of(plan.graph, batch, observe=note)
        expected |= {(op.name, "outputs"): tensors[op.output.name] for op in plan.graph.ops}
        run(
            plan,
            batch,
            rng=rng,
            instance=instance,
            first_sample=start,
            looks=False,
            observe=network.against(expected, start),
        )
        fed = {name: channels_last(_as_on_chip(plan.graph, name, numbers)) for name, numbers in tensors.items()}
        run(
            plan,
            batch,
            rng=own_rng,
            instance=instance,
            first_sample=start,
            looks=False,
            observe=alone.against(expected, start),
            fed=fed,
        )
        if progress is not None:
            progress(len(batch))
    layers = []
    for op in plan.graph.ops:
        sums: tuple[str, Stage] = (op.name, "sums")
        outputs: tuple[str, Stage] = (op.name, "outputs")
        has_sums = op.product is not None
        layers.append(
            LayerErrors(
                op.name,
                network.deviations[sums] if has_sums else None,
                alone.deviations[sums] if has_sums else None,
                network.deviations[outputs],
                alone.deviations[outputs],
            )
        )
    return Explanation(len(x), tuple(layers), network.first)


def summary_of(explanation: Explanation) -> dict[str, Any]:
    """Return what ``summary.json`` says under ``layer_errors``; the ratio of numbers that are all exact is None."""

    def said(found: Deviation | None) -> dict[str, Any] | None:
        if found is None:
            return None
        ratio_dB = found.ratio_dB
        return asdict(found) | {"ratio_dB": ratio_dB if isfinite(ratio_dB) else None}

    first = explanation.first_difference
    return {
        "n_samples": explanation.n_samples,
        "first_difference": None if first is None else asdict(first) | {"place": list(first.place)},
        "layers": [
            {
                "name": found.layer,
                "sums": said(found.sums),
                "own_sums": said(found.own_sums),
                "outputs": said(found.outputs),
                "own_outputs": said(found.own_outputs),
            }
            for found in explanation.layers
        ],
    }


class _Comparison:
    """Takes the chip's numbers batch after batch and keeps how far they are from the reference's."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        keys: list[tuple[str, Stage]] = []
        for op in graph.ops:
            keys += [(op.name, "sums"), (op.name, "outputs")]
        self.order = {key: i for i, key in enumerate(keys)}
        self.deviations = dict.fromkeys(keys, Deviation())
        self.first: FirstDifference | None = None

    def against(self, expected: dict[tuple[str, Stage], Array], start: int) -> Observer:
        """Return an observer that compares with *expected*; sample *start* of all is the first of the batch."""

        def compare(op: Op, stage: Stage, numbers: Array) -> None:
            key = (op.name, stage)
            found, wanted = channels_first(numbers).astype(np.float64), expected[key]
            differs = found != wanted
            n_different = int(np.count_nonzero(differs))
            if n_different and (self.first is None or self.order[key] < self.order[self.first.layer, self.first.stage]):
                sample, *place = (int(i) for i in np.unravel_index(int(np.argmax(differs)), differs.shape))
                at = (sample, *place)
                self.first = FirstDifference(
                    op.name, stage, start + sample, tuple(place), float(wanted[at]), float(found[at])
                )
            fmt = op.output.format
            meant = _meant(wanted, fmt, stage)
            error = _meant(found, fmt, stage) - meant if n_different else np.zeros(0)
            self.deviations[key] += Deviation(
                found.size, n_different, float(np.sum(meant * meant)), float(np.sum(error * error))
            )

        return compare


def _meant(numbers: Array, fmt: Format, stage: Stage) -> Array:
    """Return what codes stand for, in units of their scale."""
    return np.where(numbers < 0, fmt.minus * numbers, numbers) if stage == "outputs" and fmt.minus != 1 else numbers


def _as_on_chip(graph: Graph, name: str, numbers: Array) -> Array:
    """Return the reference's numbers in the type that a chip has them in: codes are whole."""
    return numbers if graph.tensors[name].format.is_real else numbers.astype(np.int32)
