"""The benchmark suite of TiM-DNN, and the chips that it runs on.

Five networks (tim-dnn.md, section 8). Whether the paper's CNNs are those of WRPN's text, twice as wide, and how many
images it loads weights for is not known: *width* and *batch* are one choice for all networks, never one each.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from imcsim.arch.spec import Chip
from imcsim.graph import Graph
from imcsim.workloads import load_workload

NETWORKS = {
    "alexnet": "alexnet",
    "resnet34": "resnet34",
    "inception": "bn-inception",
    "lstm": "lstm-ptb",
    "gru": "gru-ptb",
}
"""Name in the table to the shipped workload."""

RECURRENT = ("lstm", "gru")
WIDTHS = (1, 2)
BATCHES = (1, 2, 4, 8, 16, 64)
"""What the comparison of choices tries."""

TIM, ISO_CAPACITY, ISO_AREA = "tim-dnn", "near-memory-iso-capacity", "near-memory-iso-area"
CHIPS = (TIM, ISO_CAPACITY, ISO_AREA)
TIM_8 = "tim-8"


@dataclass(frozen=True)
class Suite:
    """How the five networks are run, all of them alike."""

    width: int = 1
    """Of the CNNs: 1, or 2 for twice as many feature maps (WRPN)."""

    batch: int = 1
    """Samples that an inference takes together."""

    graphs: dict[str, Graph] = field(default_factory=dict, compare=False, repr=False)
    """Networks that were built already."""

    def workload(self, network: str) -> str:
        """Return the shipped workload of a *network*."""
        name = NETWORKS[network]
        return name if self.width == 1 or network in RECURRENT else f"{name}-{self.width}x"

    def graph(self, network: str) -> Graph:
        """Return the graph of a *network*."""
        name = self.workload(network)
        if name not in self.graphs:
            self.graphs[name] = load_workload(name)
        return self.graphs[name]

    def inferences(self, network: str) -> int:
        """Return how many inferences one run is: of recurrent networks each time step is one."""
        graph = self.graph(network)
        steps = max((graph.n_vectors(op) for op in graph.products if op.product.is_recurrent), default=1)  # type: ignore[union-attr]
        return steps * self.batch


@dataclass(frozen=True)
class Chips:
    """TiM-DNN, its two baselines, and its variant TiM-8, which the kernel alone is compared on."""

    tim: Chip
    iso_capacity: Chip
    iso_area: Chip
    tim_8: Chip

    @cached_property
    def of_name(self) -> dict[str, Chip]:
        """The chips that networks run on, by what they are, in the order of `CHIPS`."""
        return {TIM: self.tim, ISO_CAPACITY: self.iso_capacity, ISO_AREA: self.iso_area}

    def each(self, change: Callable[[str, Chip], Chip]) -> "Chips":
        """Return the chips with *change* done to each of those that networks run on, by its name."""
        tim, iso_capacity, iso_area = (change(name, chip) for name, chip in self.of_name.items())
        return Chips(tim, iso_capacity, iso_area, self.tim_8)
