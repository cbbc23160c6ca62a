"""imcsim: ternary and binary neural networks on in-memory-computing chips; values, time, energy and area.

The names below are what a user types. They are fetched when they are first used, so that importing imcsim brings in
neither torch nor numba nor plotly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imcsim.errors import (
    ConfigError,
    DataError,
    GraphError,
    ImcsimError,
    MappingError,
    OutputError,
    SimulationError,
)
from imcsim.version import __version__

if TYPE_CHECKING:
    from imcsim.analytic import estimate
    from imcsim.analytic.variants import estimate_variants
    from imcsim.arch.load import load_chip, load_machine
    from imcsim.comparison import compare
    from imcsim.costs.activity import Activity
    from imcsim.costs.kernel import kernel
    from imcsim.functional.crossbar import tile_matmul
    from imcsim.functional.execute import execute
    from imcsim.functional.instance import ChipInstance
    from imcsim.graph.capture import capture
    from imcsim.mapping.place import place
    from imcsim.report.page import build_report
    from imcsim.sim import serve, simulate
    from imcsim.sim.explanation import explain
    from imcsim.tuning import for_chip
    from imcsim.workloads import load_workload

_HOME = {
    "Activity": "imcsim.costs.activity",
    "ChipInstance": "imcsim.functional.instance",
    "build_report": "imcsim.report.page",
    "capture": "imcsim.graph.capture",
    "compare": "imcsim.comparison",
    "execute": "imcsim.functional.execute",
    "estimate": "imcsim.analytic",
    "estimate_variants": "imcsim.analytic.variants",
    "explain": "imcsim.sim.explanation",
    "for_chip": "imcsim.tuning",
    "kernel": "imcsim.costs.kernel",
    "load_chip": "imcsim.arch.load",
    "load_machine": "imcsim.arch.load",
    "load_workload": "imcsim.workloads",
    "place": "imcsim.mapping.place",
    "serve": "imcsim.sim",
    "simulate": "imcsim.sim",
    "tile_matmul": "imcsim.functional.crossbar",
}

__all__ = [
    "Activity",
    "ChipInstance",
    "ConfigError",
    "DataError",
    "GraphError",
    "ImcsimError",
    "MappingError",
    "OutputError",
    "SimulationError",
    "__version__",
    "build_report",
    "capture",
    "compare",
    "estimate",
    "estimate_variants",
    "execute",
    "explain",
    "for_chip",
    "kernel",
    "load_chip",
    "load_machine",
    "load_workload",
    "place",
    "serve",
    "simulate",
    "tile_matmul",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'imcsim' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
