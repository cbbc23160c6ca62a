"""Batches one after the other, in this process: the plain runner."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imcsim.sweep.stages import Batch, Evaluate, Outcomes


@dataclass(frozen=True)
class InProcess:
    """The runner that needs no other process."""

    evaluate: Evaluate
    n_workers: int = 1

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Outcomes]]:
        """Yield every batch with what came out of it, in the order of *batches*."""
        for batch in batches:
            yield batch, self.evaluate(batch)
