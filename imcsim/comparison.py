"""One network on several machines, side by side: latency, energy, rate and area, with the basis of every figure.

Chips are placed and estimated (or simulated); comparators go through their model (`imcsim.comparators`). Every row says
what its energy covers and how it was obtained, since the power of an array and that of a board are not the same thing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from imcsim.analytic import estimate
from imcsim.arch.comparators import Comparator
from imcsim.arch.load import load_machine, parse_override
from imcsim.arch.spec import Chip, Machine, Sourced, Spec
from imcsim.comparators import LayerCost, assess
from imcsim.comparators.compared import Compared, Comparison, Refused
from imcsim.comparators.cost import weakest
from imcsim.costs.price import price
from imcsim.costs.technology import process
from imcsim.errors import ConfigError, ImcsimError
from imcsim.graph import Graph, Op
from imcsim.graph.assumption import assumed_text
from imcsim.results import energy_of, latency_of, write_whole
from imcsim.run import require_writable, shares
from imcsim.search import default_policy, place_by

Engine = Literal["estimate", "simulate"]
TIMES = {"latency_ns", "interval_ns", "bits_per_ns"}
"""Keys of a chip file that a latency rests on."""


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
            refused.append(Refused(machine.name, str(error).removeprefix(f"{machine.name}: ")))
    if not rows:
        why = "; ".join(f"{one.chip}: {one.why}" for one in refused)
        raise ConfigError(f"chips: must be able to run {graph.name}, got {why}")
    n_macs = sum(map(graph.n_macs, graph.products))
    found = graph.assumed
    assumed = "" if found is None else assumed_text(found.bits, found.weights, found.inputs, len(graph.products))
    return Comparison(graph.name, n_macs, tuple(rows), tuple(refused), target, assumed)


def write(found: Comparison, folder: str | Path) -> Path:
    """Write tables, figure and page of a comparison into *folder*; return the page."""
    from imcsim.report.comparison import write_comparison

    folder = Path(folder)
    require_writable(folder)
    write_whole(folder / "compare.csv", found.to_csv())
    write_whole(folder / "layers.csv", found.layers_csv())
    write_whole(folder / "compare.json", found.to_json())
    return write_comparison(found, folder)


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
            layer=op.name,
            n_macs=graph.n_macs(op),
            n_products=graph.n_macs(op) * pairs_of_planes(graph, op, chip),
            latency_ns=latency_of(of_layer.get(op.name, [])),
            energy_pJ=energy_of(of_layer.get(op.name, [])),
            how="on tiles" if op.product is not None else "digital",
        )
        for op in graph.ops
    )
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
        latency_basis=weakest(record.basis for record in timed(chip)),
        energy_basis=weakest(energy_shares),  # type: ignore[arg-type]
        area_basis=weakest(area.basis for area in costs.areas),
        energy_shares=energy_shares,  # type: ignore[arg-type]
        notes=(f"{plan.style}, policy {default_policy(plan.style)}", "all digital steps are counted"),
        layers=layers,
    )


def pairs_of_planes(graph: Graph, op: Op, chip: Chip) -> int:
    """Return how many planes of weights times how many of activations a layer has on *chip*; 0 where it has none."""
    if op.product is None:
        return 0
    return op.product.n_planes * graph.tensors[op.input].format.codec(chip.tile.serial).n_planes


def timed(record: Spec, around: Sourced | None = None) -> list[Sourced]:
    """Return the records of a chip file that hold a latency, an interval or a bandwidth."""
    around = record if isinstance(record, Sourced) else around
    found = [around] if around is not None and TIMES & set(type(record).model_fields) else []
    for _, value in record:
        if isinstance(value, Spec):
            found += timed(value, around)
    return found
