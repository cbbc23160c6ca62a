"""Time and energy of a lowered network on machines that are told by a few figures: CPUs, FPGAs, GPUs and others.

A model is a function of a machine, the layers' work and how the machine takes their planes; `MODEL_OF` names it for
each class of `imcsim.arch.comparators`.
"""

from collections.abc import Callable
from typing import Any

from imcsim.arch.comparators import (
    Comparator,
    EventDriven,
    FpgaDataflow,
    NeuromorphicGrid,
    PopcountCpu,
    Roofline,
    ThroughputRow,
)
from imcsim.comparators.cost import Assessment, LayerCost
from imcsim.comparators.dataflow import assess_dataflow
from imcsim.comparators.others import assess_events, assess_grid, assess_roofline, assess_throughput
from imcsim.comparators.popcount import assess_popcount
from imcsim.comparators.work import lower_on, works_of
from imcsim.errors import MappingError
from imcsim.graph import Graph

MODEL_OF: dict[type[Comparator], Callable[[Any, Any, Any], Assessment]] = {
    PopcountCpu: assess_popcount,
    FpgaDataflow: assess_dataflow,
    NeuromorphicGrid: assess_grid,
    EventDriven: assess_events,
    Roofline: assess_roofline,
    ThroughputRow: assess_throughput,
}


def assess(graph: Graph, machine: Comparator) -> Assessment:
    """Return time and energy of one inference of *graph* on *machine*, layer by layer.

    Raises MappingError for a network without products, and for layers that the machine cannot take.
    """
    works = works_of(graph)
    if not works:
        raise MappingError(f"{graph.name}: must have a layer with a product to be compared, got none")
    return MODEL_OF[type(machine)](machine, works, lower_on(machine, works))


__all__ = ["MODEL_OF", "Assessment", "LayerCost", "assess"]
