"""Networks with all layers side by side on an FPGA, images streaming through (quantizers.md D.3, D.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from imcsim.arch.comparators import Fold, FpgaDataflow, Lanes
from imcsim.comparators.cost import NS_PER_S, Assessment, LayerCost, bases, n_products
from imcsim.comparators.work import LayerWork, Lowered
from imcsim.errors import MappingError


@dataclass(frozen=True)
class Folded:
    """One layer with its share of the lanes."""

    fold: Fold
    n_cycles: int
    """An image."""

    n_lanes: int


def assess_dataflow(machine: FpgaDataflow, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> Assessment:
    """Return what an inference costs; raises MappingError for a network that is too large even at its slowest."""
    folded = foldings(machine, works, ways)
    slowest, n_lanes = max(layer.n_cycles for layer in folded), sum(layer.n_lanes for layer in folded)
    period_ns = slowest / machine.clock.clock_GHz
    layers = []
    for work, went, layer in zip(works, ways, folded, strict=True):
        products = n_products(work.n_macs, went)
        layers.append(
            LayerCost(
                layer=work.name,
                n_macs=work.n_macs,
                n_products=products,
                latency_ns=layer.n_cycles / machine.clock.clock_GHz,
                energy_pJ=products * machine.energy.energy_pJ_per_mac,
                how=f"{went.how}; {layer.fold.n_outputs} outputs x {layer.fold.n_inputs} inputs at a time",
            )
        )
    timed = (machine.clock, machine.lanes)
    n_luts = n_lanes * machine.fabric.luts_per_lane
    return Assessment(
        machine=machine,
        layers=tuple(layers),
        latency_ns=fsum(layer.latency_ns for layer in layers),
        throughput_per_s=NS_PER_S / period_ns,
        idle_energy_pJ=machine.static.power_mW * period_ns,
        covers=machine.energy.covers,
        obtained=machine.energy.obtained,
        basis=bases(machine, timed, (*timed, machine.static, machine.energy)),
        notes=(
            f"{n_lanes} lanes, {n_luts:.0f} LUTs of {machine.fabric.n_luts}",
            room_for_weights(machine, works, ways),
            "the latency is without overlap of one image's layers: an upper bound",
        ),
    )


def room_for_weights(machine: FpgaDataflow, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> str:
    """Say whether the weights fit into the block RAM: one bit a binary weight, two a ternary one."""
    n_bits = sum(
        work.n_weights * went.n_weight_planes * (1 if went.weights == "binary" else 2)
        for work, went in zip(works, ways, strict=True)
    )
    how = "fit into" if n_bits <= machine.fabric.memory_bits else "are taken as if they fitted into"
    return f"weights of {n_bits / 1e6:.1f} Mbit {how} {machine.fabric.memory_bits / 1e6:.1f} Mbit"


def foldings(machine: FpgaDataflow, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> list[Folded]:
    """Return the lanes of each layer: as its authors chose, or balanced, so that the slowest is as quick as can be."""
    lanes, pairs = machine.lanes, list(zip(works, ways, strict=True))
    if len(lanes.folding) == len(works) and all(map(fits, lanes.folding, works)):
        return [folded(fold, work, went, lanes) for fold, (work, went) in zip(lanes.folding, pairs, strict=True)]
    least, most = 1, max(folded(Fold(n_outputs=1, n_inputs=1), *pair, lanes).n_cycles for pair in pairs)
    if (needed := used(most, pairs, lanes)) > lanes.n_lanes:
        raise MappingError(
            f"{machine.name}: must have a lane for each pair of planes of each layer, {needed}, got {lanes.n_lanes}"
        )
    while least < most:  # fewer cycles take more lanes
        middle = (least + most) // 2
        if used(middle, pairs, lanes) <= lanes.n_lanes and all(quick(middle, *pair, lanes) for pair in pairs):
            most = middle
        else:
            least = middle + 1
    return [least_fold(most, *pair, lanes) for pair in pairs]


def fits(fold: Fold, work: LayerWork) -> bool:
    """Whether a layer has as many outputs and inputs as *fold* takes at a time."""
    return fold.n_outputs <= work.n_columns_in_all and fold.n_inputs <= work.n_rows


def folded(fold: Fold, work: LayerWork, went: Lowered, lanes: Lanes) -> Folded:
    """Return a layer with the lanes of *fold*, weight planes side by side; those of all groups are outputs alike."""
    serial = went.n_activation_planes if went.n_activation_planes <= lanes.serial_planes else 1
    together = went.n_passes // serial
    per_vector = -(-work.n_columns_in_all // fold.n_outputs) * -(-work.n_rows // fold.n_inputs)
    n_cycles = work.n_vectors * per_vector * serial
    return Folded(fold, n_cycles, fold.n_outputs * fold.n_inputs * together)


def least_fold(n_cycles: int, work: LayerWork, went: Lowered, lanes: Lanes) -> Folded:
    """Return the layer with the fewest lanes that is done in *n_cycles*, or as quick as it can be."""
    widest = work.n_rows if lanes.unrolls_window else work.n_rows // work.window
    widest = min(widest, lanes.most_inputs or widest)
    best: Folded | None = None
    for n_inputs in steps(work.n_rows, widest):
        one = folded(Fold(n_outputs=1, n_inputs=n_inputs), work, went, lanes)
        n_columns = work.n_columns_in_all
        turns = max(1, n_cycles * n_columns // one.n_cycles)  # of the outputs, each of one.n_cycles / n_columns
        n_outputs = -(-n_columns // min(turns, n_columns))
        tried = folded(Fold(n_outputs=n_outputs, n_inputs=n_inputs), work, went, lanes)
        if best is None or better(tried, best, n_cycles):
            best = tried
    assert best is not None
    return best


def better(a: Folded, b: Folded, n_cycles: int) -> bool:
    """Whether *a* is to be preferred: quick enough first, then few lanes, else quicker."""
    if (a.n_cycles <= n_cycles) != (b.n_cycles <= n_cycles):
        return a.n_cycles <= n_cycles
    return (a.n_lanes, a.n_cycles) < (b.n_lanes, b.n_cycles) if a.n_cycles <= n_cycles else a.n_cycles < b.n_cycles


def steps(n: int, widest: int) -> list[int]:
    """Return the widths up to *widest* at which *n* falls into fewer turns than at any narrower one.

    >>> steps(9, 9), steps(9, 4)
    ([1, 2, 3, 5, 9], [1, 2, 3])
    """
    found, width = [], 1
    while width <= widest:
        found.append(width)
        turns = -(-n // width)
        if turns == 1:
            break
        width = -(-n // (turns - 1))
    return found


def used(n_cycles: int, pairs: Sequence[tuple[LayerWork, Lowered]], lanes: Lanes) -> int:
    """Return the lanes of all layers, each done in *n_cycles* if it can."""
    return sum(least_fold(n_cycles, *pair, lanes).n_lanes for pair in pairs)


def quick(n_cycles: int, work: LayerWork, went: Lowered, lanes: Lanes) -> bool:
    """Whether a layer can be done in *n_cycles*."""
    return least_fold(n_cycles, work, went, lanes).n_cycles <= n_cycles
