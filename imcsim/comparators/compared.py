"""What a comparison gives: a row a machine, brought to one technology where that is asked for, and tables of them."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from imcsim.arch.spec import Basis
from imcsim.comparators.cost import LayerCost
from imcsim.costs.technology import Process, normalized
from imcsim.errors import ConfigError
from imcsim.version import __version__

PJ_PER_J = 1e12


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One machine with what an inference costs there."""

    chip: str
    kind: str
    description: str
    engine: str
    """estimate or simulate for chips that networks are placed on; formula for comparators."""

    node_nm: float
    supply_V: float | None
    latency_ns: float
    energy_pJ: float
    throughput_per_s: float
    """Inferences a second, where they follow each other without a gap."""

    area_um2: float | None
    energy_covers: str
    energy_obtained: str
    latency_basis: Basis
    """The weakest basis of what the latency rests on; so for the others."""

    energy_basis: Basis
    area_basis: Basis | None
    energy_shares: dict[Basis, float] | None
    """Share of each basis in the energy; None where the energy is one product of its numbers."""

    notes: tuple[str, ...]
    layers: tuple[LayerCost, ...]

    @property
    def throughput_per_s_per_W(self) -> float:  # noqa: N802
        """Inferences a second and watt: inferences a joule."""
        return PJ_PER_J / self.energy_pJ

    def at(self, target: Process) -> "Compared":
        """Return the same with its figures as they would be in the process *target* (`imcsim.costs.technology`).

        Raises ConfigError where the published factors do not reach the machine's process.
        """
        try:
            source = Process(self.node_nm, self.supply_V)
            return replace(
                self,
                latency_ns=normalized("latency", self.latency_ns, source, target),
                energy_pJ=normalized("energy", self.energy_pJ, source, target),
                throughput_per_s=normalized("throughput", self.throughput_per_s, source, target),
                area_um2=None if self.area_um2 is None else normalized("area", self.area_um2, source, target),
            )
        except ConfigError as error:
            raise ConfigError(f"{self.chip}: {error}") from None


@dataclass(frozen=True)
class Refused:
    """A machine that cannot take the network, and why."""

    chip: str
    why: str


@dataclass(frozen=True)
class Comparison:
    """Several machines with one network."""

    workload: str
    n_macs: int
    rows: tuple[Compared, ...]
    refused: tuple[Refused, ...] = ()
    technology: Process | None = None
    """What the figures are brought to; None where they are the machines' own."""

    assumed: str = ""
    """Bits of the network that were assumed, in words."""

    @property
    def shown(self) -> tuple[Compared, ...]:
        """The rows, brought to one technology where that is asked for."""
        return self.rows if self.technology is None else tuple(row.at(self.technology) for row in self.rows)

    def to_csv(self) -> str:
        """Return a line a machine; where a technology is asked for, with the figures there beside the own ones."""
        lines = []
        for own, there in zip(self.rows, self.shown, strict=True):
            line = {"workload": self.workload, "version": __version__} | record_of(own)
            if self.technology is not None:
                line["technology"] = str(self.technology)
                line |= {f"{name}_there": value for name, value in figures_of(there).items()}
            lines.append(line)
        return table_csv(lines)

    def layers_csv(self) -> str:
        """Return a line for each machine and layer, in the machine's own technology."""
        return table_csv(
            [{"workload": self.workload, "chip": row.chip} | asdict(layer) for row in self.rows for layer in row.layers]
        )

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(
            {
                "workload": self.workload,
                "n_macs": self.n_macs,
                "assumed": self.assumed or None,
                "version": __version__,
                "technology": None if self.technology is None else str(self.technology),
                "rows": [record_of(row) | {"there": figures_of(there)}
                         for row, there in zip(self.rows, self.shown, strict=True)],
                "refused": [asdict(one) for one in self.refused],
            },
            indent=2, ensure_ascii=False, allow_nan=False,
        ) + "\n"  # fmt: skip


FIGURES = ("latency_ns", "energy_pJ", "throughput_per_s", "throughput_per_s_per_W", "area_um2")


def figures_of(row: Compared) -> dict[str, Any]:
    """Return the figures of a row by name."""
    return {name: getattr(row, name) for name in FIGURES}


def record_of(row: Compared) -> dict[str, Any]:
    """Return a row without its layers, flat."""
    flat = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "layers"}
    flat["throughput_per_s_per_W"] = row.throughput_per_s_per_W
    return flat


def table_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return *lines* of the same keys as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(lines[0])
    writer.writerows([cell(value) for value in line.values()] for line in lines)
    return text.getvalue()


def cell(value: Any) -> Any:
    """Return what stands in a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{basis} {share:.4f}" for basis, share in value.items())
    return "; ".join(value) if isinstance(value, tuple) else value
