"""What is done with points: engines one after the other, and in batches, each of which gives figures or a message."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.spec import Chip
from imcsim.sweep.points import Points

Floats = NDArray[np.float64]
Keep = int | float | Literal["front"]
"""How many points go on: a number, a share below 1, or those that no other is better than in every objective."""


@dataclass(frozen=True)
class Stage:
    """One pass over the points that are left."""

    engines: tuple[str, ...]
    """Of estimate, simulate and execute."""

    keep: Keep | None = None
    """Which points the next stage gets; None in the last one."""

    n_samples: int | None = None
    """Samples of the test set to execute; all of them by default."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Points for one engine run of one stage, and all that a process needs to evaluate them; it can be pickled."""

    number: int
    """Place of the stage."""

    stage: Stage
    workload: str
    """Shipped name, or absolute path."""

    quantizer: str | None
    """The method that the network is built with, untrained; None for a workload as it is."""

    network_digest: bytes
    """Of the network that the sweep began with; a process that finds another one refuses the batch."""

    chip: Chip
    """What the points change."""

    points: Points
    """Their parameters: dotted keys of the chip, ``mapping.policy``, ``mapping.style``, ``mapping.batch``."""

    keys: tuple[bytes, ...]
    """Under which the store keeps each."""

    seed: int
    """Of every generator that draws."""

    data: str | None = None
    """Folder of data sets; otherwise the environment variable IMCSIM_DATA."""

    assume: str | None = None
    """Bits of layers of real numbers (`imcsim.graph.assumption`); None for a workload as it is."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What came out of a batch, point by point."""

    figures: Mapping[str, Floats]
    """Name of a figure (`imcsim.sweep.objectives`) to its values (n); NaN where a point failed or has none."""

    messages: tuple[str | None, ...]
    """Why a point failed, in one line; None where it did not."""

    seconds: float
    """What it took."""


Evaluate = Callable[[Batch], Outcomes]
"""`imcsim.sweep.evaluate.evaluate`: pure but for its caches."""


class Runner(Protocol):
    """Where batches are evaluated: in this process, or by a Dask cluster."""

    @property
    def n_workers(self) -> int:
        """How many batches are evaluated at a time."""

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Outcomes]]:
        """Yield every batch with what came out of it, in the order in which they end.

        Batches are taken from *batches* as workers become free, never all at once.
        """
