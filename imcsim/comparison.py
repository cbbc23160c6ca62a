"""One network on several machines, side by side: latency, energy, rate and area, with the basis of every figure.

Chips are placed and estimated (or simulated); comparators go through their model (`imcsim.comparators`). Every row says
what its energy covers and how it was obtained, since the power of an array and that of a board are not the same thing.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from imcsim.analytic import estimate
from imcsim.arch.comparators import Comparator
from imcsim.arch.load import load_machine, parse_override
from imcsim.arch.spec import BASES, Basis, Chip, Machine, Sourced, Spec
from imcsim.comparators import LayerCost, assess
from imcsim.costs.price import price
from imcsim.costs.technology import Process, normalized, process
from imcsim.errors import ConfigError, ImcsimError
from imcsim.graph import Graph
from imcsim.results import energy_of, latency_of, write_whole
from imcsim.run import require_writable, shares
from imcsim.search import default_policy, place_by
from imcsim.version import __version__

Engine = Literal["estimate", "simulate"]
PJ_PER_J = 1e12
TIMES = {"latency_ns", "interval_ns", "bits_per_ns"}
"""Keys of a chip file that a latency rests on."""


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
                "version": __version__,
                "technology": None if self.technology is None else str(self.technology),
                "rows": [record_of(row) | {"there": figures_of(there)}
                         for row, there in zip(self.rows, self.shown, strict=True)],
                "refused": [asdict(one) for one in self.refused],
            },
            indent=2, ensure_ascii=False, allow_nan=False,
        ) + "\n"  # fmt: skip

    def write(self, folder: str | Path) -> Path:
        """Write tables, figure and page into *folder*; return the page."""
        from imcsim.report.comparison import write_comparison

        folder = Path(folder)
        require_writable(folder)
        write_whole(folder / "compare.csv", self.to_csv())
        write_whole(folder / "layers.csv", self.layers_csv())
        write_whole(folder / "compare.json", self.to_json())
        return write_comparison(self, folder)


def compare(
    graph: Graph,
    chips: Sequence[Machine | str | Path],
    *,
    engine: Engine = "estimate",
    technology: str | None = None,
    keep_going: bool = True,
) -> Comparison:
    """Return *graph* on each of *chips*: machines, shipped names or paths of chip files.

    Args:
        graph: The network.
        chips: At least one; no two of one name.
        engine: For chips that networks are placed on: by formula, or by events.
        technology: What to bring all figures to, as ``32nm`` or ``22nm-LP@0.8V``; own figures by default.
        keep_going: Whether a machine that cannot take the network is listed as such; otherwise it raises.

    Raises ConfigError for a bad argument, and where no machine can take the network.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"engine: must be one of {', '.join(get_args(Engine))}, got {engine!r}")
    target = process(technology) if technology is not None else None
    machines = [chip if isinstance(chip, Machine) else load_machine(chip) for chip in chips]
    names = [machine.name for machine in machines]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"chips: must be one or more of different names, got {', '.join(names) or 'none'}")
    rows, refused = [], []
    for machine in machines:
        try:
            row = compared(graph, machine, engine)
            if target is not None:
                row.at(target)  # what does not reach is said before anything is written
            rows.append(row)
        except ImcsimError as error:
            if not keep_going:
                raise
            refused.append(Refused(machine.name, str(error)))
    if not rows:
        raise ConfigError(f"chips: must be able to run {graph.name}, got {'; '.join(one.why for one in refused)}")
    n_macs = sum(map(graph.n_macs, graph.products))
    return Comparison(graph.name, n_macs, tuple(rows), tuple(refused), target)


def load_changed(chips: Sequence[str | Path], changes: Sequence[str]) -> list[Machine]:
    """Return the machines of chip files with *changes*: KEY=VALUE for all that have the key, NAME:KEY=VALUE for one.

    *NAME* is what stands in *chips*. Raises ConfigError for a change that reaches none of them.
    """
    names = [str(chip) for chip in chips]
    own: dict[str, dict[str, object]] = {name: {} for name in names}
    for text in changes:
        key, value = parse_override(text)
        name, colon, rest = key.rpartition(":")
        if colon:
            if name not in own:
                raise ConfigError(f"{text}: must change a chip that is compared ({', '.join(names)}), got {name!r}")
            own[name][rest] = value
            continue
        having = [name for name in names if key.split(".")[0] in type(load_machine(name)).model_fields]
        if not having:
            raise ConfigError(f"{key}: must be a key of a chip that is compared, got {', '.join(names)}")
        for name in having:
            own[name][key] = value
    return [load_machine(name, own[name]) for name in names]


def compared(graph: Graph, machine: Machine, engine: Engine) -> Compared:
    """Return *graph* on one machine."""
    if isinstance(machine, Chip):
        return on_chip(graph, machine, engine)
    if not isinstance(machine, Comparator):
        raise ConfigError(
            f"{machine.name}: must be a chip or a comparator, got {machine.kind}; {machine.taken_by} takes it"
        )
    found = assess(graph, machine)
    return Compared(
        chip=machine.name,
        kind=machine.kind,
        description=machine.description,
        engine="formula",
        node_nm=machine.technology.node_nm,
        supply_V=machine.technology.supply_V,
        latency_ns=found.latency_ns,
        energy_pJ=found.energy_pJ,
        throughput_per_s=found.throughput_per_s,
        area_um2=found.area_um2,
        energy_covers=found.covers,
        energy_obtained=found.obtained,
        latency_basis=found.basis["latency"],
        energy_basis=found.basis["energy"],
        area_basis=found.basis.get("area"),
        energy_shares=None,
        notes=found.notes,
        layers=found.layers,
    )


def on_chip(graph: Graph, chip: Chip, engine: Engine) -> Compared:
    """Return *graph* placed on *chip* by its default policy, by formula or by events."""
    costs = price(chip)
    plan = place_by(None, graph, chip)
    found = estimate(plan, costs)
    rows = found.to_rows()
    latency_ns, energy_pJ = found.latency_ns, found.energy_pJ
    if engine == "simulate":
        from imcsim.sim import simulate

        rows = simulate(plan, costs).to_rows()
        latency_ns, energy_pJ = latency_of(rows), energy_of(rows)
    of_layer: dict[str, list[Any]] = {}
    for row in rows:
        if row.phase == "inference" and row.layer:
            of_layer.setdefault(row.layer, []).append(row)
    layers = tuple(
        LayerCost(
            op.name, graph.n_macs(op), graph.n_macs(op), latency_of(of_layer.get(op.name, [])),
            energy_of(of_layer.get(op.name, [])), "on tiles" if op.product is not None else "digital",
        )
        for op in graph.ops
    )  # fmt: skip
    energy_shares = {basis: share for basis, share in shares(rows, "energy_pJ").items() if share}
    return Compared(
        chip=chip.name,
        kind=chip.kind,
        description=chip.description,
        engine=engine,
        node_nm=chip.technology.node_nm,
        supply_V=chip.technology.supply_V,
        latency_ns=latency_ns,
        energy_pJ=energy_pJ,
        throughput_per_s=found.throughput_per_s,
        area_um2=costs.area_um2,
        energy_covers="chip and memory",
        energy_obtained="modelled",
        latency_basis=weakest([record.basis for record in timed(chip)]),
        energy_basis=weakest(list(energy_shares)),  # type: ignore[arg-type]
        area_basis=weakest([area.basis for area in costs.areas]),
        energy_shares=energy_shares,  # type: ignore[arg-type]
        notes=(f"{plan.style}, policy {default_policy(plan.style)}", "all digital steps are counted"),
        layers=layers,
    )


def timed(record: Spec, around: Sourced | None = None) -> list[Sourced]:
    """Return the records of a chip file that hold a latency, an interval or a bandwidth."""
    around = record if isinstance(record, Sourced) else around
    found = [around] if around is not None and TIMES & set(type(record).model_fields) else []
    for _, value in record:
        if isinstance(value, Spec):
            found += timed(value, around)
    return found


def weakest(bases: Sequence[Basis]) -> Basis:
    """Return the basis that is known least well."""
    return max(bases, key=BASES.index)


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
