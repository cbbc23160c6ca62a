"""The roofline of a chip with the layers of a network on it (Williams, Waterman, Patterson, CACM 52(4), 2009).

Two roofs slope up to the rate of the tiles: what main memory brings, and what the activation buffers give. An operation
is a multiplication or an addition of one weight plane with one activation plane, the currency of the tiles' peak rate.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from math import isfinite

from imcsim.analytic.estimate import Estimate
from imcsim.costs.peaks import access_interval_ns
from imcsim.errors import DataError
from imcsim.mapping.plan import Plan


@dataclass(frozen=True, kw_only=True)
class RooflineRow:
    """One layer below the roofs of its chip, in one inference."""

    chip: str
    workload: str
    peak_operations_per_ns: float
    """All tiles, an access as often as array and PCUs allow, on columns that use all rows."""

    main_memory_bits_per_ns: float
    """Of all chips together."""

    buffer_bits_per_ns: float
    """What the activation buffers of all banks give to read."""

    layer: str
    operations: float
    """Two for each product of a weight plane with an activation plane; all samples of the inference."""

    main_memory_bits: float
    """Read and written: weights that do not stay, activations and sums that do not fit."""

    buffer_bits: float
    """Read from the activation buffers."""

    time_ns: float
    """What the layer adds to the latency."""

    @property
    def operations_per_ns(self) -> float:
        """The rate that it reaches: GOPS."""
        return self.operations / self.time_ns

    @property
    def operations_per_main_memory_bit(self) -> float | None:
        """None where it moves nothing to or from main memory."""
        return self.operations / self.main_memory_bits if self.main_memory_bits else None

    @property
    def operations_per_buffer_bit(self) -> float | None:
        """None where it reads nothing from the activation buffers."""
        return self.operations / self.buffer_bits if self.buffer_bits else None


COLUMNS = tuple(field.name for field in fields(RooflineRow))


def roofline(plan: Plan, estimate: Estimate) -> list[RooflineRow]:
    """Return a row for each layer of *plan* that has products and takes time, in order.

    A layer may lie above the slope of main memory: what is written into idle tiles while the layers before it work is
    its traffic, but not its time. Nothing lies above the tiles' rate but on a chip that leaves out idle accesses.
    """
    chip, costs = plan.chip, estimate.costs
    n_operations_of_access = 2 * chip.tile.rows_per_access * chip.tile.n_columns
    n_ports = costs.servers.get("activation_buffer.read", 1)
    rows = []
    for layer in plan.layers:
        time_ns = float(estimate.times[layer.name].added_ns) if layer.name in estimate.times else 0.0
        if not layer.is_on_tiles or time_ns <= 0:
            continue
        counts = estimate.counts[layer.name]
        n_macs = plan.graph.n_macs(plan.op_of[layer.name]) * layer.n_samples
        rows.append(
            RooflineRow(
                chip=chip.name,
                workload=plan.graph.name,
                peak_operations_per_ns=chip.all_tiles * n_operations_of_access / access_interval_ns(chip, costs),
                main_memory_bits_per_ns=chip.n_chips / costs.timings["main_memory.read"].interval_ns,
                buffer_bits_per_ns=chip.all_banks * n_ports / costs.timings["activation_buffer.read"].interval_ns,
                layer=layer.name,
                operations=2 * n_macs * layer.n_weight_planes * layer.n_passes,
                main_memory_bits=counts["main_memory.read"] + counts["main_memory.write"],
                buffer_bits=counts["activation_buffer.read"],
                time_ns=time_ns,
            )
        )
    return rows


def to_csv(rows: Iterable[RooflineRow]) -> str:
    """Return *rows* as CSV text with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def from_csv(text: str, where: str) -> list[RooflineRow]:
    """Return the rows of CSV *text* that `to_csv` wrote; raises DataError, naming *where*, for any other."""
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise DataError(f"{where}: must begin with the columns {','.join(COLUMNS)}, got {','.join((lines or [[]])[0])}")
    kinds: list[type] = [field.type for field in fields(RooflineRow)]  # type: ignore[misc]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            values = {name: kind(value) for name, kind, value in zip(COLUMNS, kinds, line, strict=True)}
        except ValueError:
            values = {}
        numbers = [value for value in values.values() if isinstance(value, float)]
        if not values or not all(isfinite(value) and value >= 0 for value in numbers) or not values["time_ns"]:
            raise DataError(f"{where}: line {number} must be a layer below its roofs, got {','.join(line)!r}")
        rows.append(RooflineRow(**values))
    return rows
