"""Networks on neuromorphic cores, on gated products, under a roofline, and at the rate of a row of a table."""

from collections.abc import Sequence
from dataclasses import replace

from imcsim.arch.comparators import EventDriven, NeuromorphicGrid, Roofline, ThroughputRow
from imcsim.comparators.cost import NS_PER_S, Assessment, LayerCost, bases, n_products, one_after_the_other
from imcsim.comparators.work import LayerWork, Lowered


def assess_grid(machine: NeuromorphicGrid, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> Assessment:
    """Return what an inference costs on spiking cores (quantizers.md D.3).

    Every layer hands on one plane a tick, so an inference takes as many ticks a layer as its widest input has planes,
    a recurrent one as often as it has time steps, and the next one follows after the slowest. Weight planes lie side
    by side.
    """
    planes = max(went.n_activation_planes for went in ways)
    takes = [planes * (work.n_vectors if work.is_recurrent else 1) for work in works]
    ticks = max(takes)
    tick_ns = NS_PER_S / machine.tick.ticks_per_s
    cores = [cores_of(machine, work, went) for work, went in zip(works, ways, strict=True)]
    layers = tuple(
        LayerCost(
            layer=work.name,
            n_macs=work.n_macs,
            n_products=n_products(work.n_macs, went),
            latency_ns=n_ticks * tick_ns,
            energy_pJ=n_cores * n_ticks * machine.power.energy_pJ_per_core_tick,
            how=f"{went.how}; {n_cores} cores",
        )
        for work, went, n_cores, n_ticks in zip(works, ways, cores, takes, strict=True)
    )
    n_chips = -(-sum(cores) // machine.grid.n_cores)
    divided = [work.name for work in works if work.n_rows > inputs_of_core(machine)]
    notes = [f"cores: {sum(cores)}, chips: {n_chips}, ticks of the slowest layer: {ticks}"]
    if n_chips > 1:
        notes.append("the area is that of all chips; nothing is counted for what goes between them")
    if planes > 1:
        notes.append("the planes of an input are taken as if neurons could weigh the ticks that they come in")
    if divided:
        notes.append(
            f"{len(divided)} layers have more inputs than a core ({inputs_of_core(machine)}) and are taken as if their "
            f"partial sums could be joined at no cost, which spikes cannot: {', '.join(divided)}"
        )
    timed = (machine.tick,)
    return Assessment(
        machine=machine,
        layers=layers,
        latency_ns=sum(layer.latency_ns for layer in layers),
        throughput_per_s=NS_PER_S / (ticks * tick_ns),
        idle_energy_pJ=n_chips * machine.power.static_mW * ticks * tick_ns,
        covers=machine.power.covers,
        obtained=machine.power.obtained,
        basis=bases(machine, timed, (*timed, machine.grid, machine.power)),
        notes=tuple(notes),
        n_chips=n_chips,
    )


def inputs_of_core(machine: NeuromorphicGrid) -> int:
    """Return how many inputs a core takes."""
    return machine.grid.n_axons // machine.grid.axons_per_input


def cores_of(machine: NeuromorphicGrid, work: LayerWork, went: Lowered) -> int:
    """Return the cores of a layer: rows and columns of a vector's weights, for every output position.

    The time steps of a recurrent layer follow each other on the same cores. Where a core has room, it takes several
    positions side by side; that neighbours share inputs is not used.
    """
    n_inputs, n_neurons = inputs_of_core(machine), machine.grid.n_neurons
    n_columns = work.n_columns * went.n_weight_planes
    side_by_side = max(1, min(n_inputs // work.n_rows, n_neurons // n_columns))
    per_position = -(-work.n_rows // n_inputs) * -(-n_columns // n_neurons)
    n_positions = 1 if work.is_recurrent else work.n_vectors
    return work.n_groups * -(-n_positions // side_by_side) * per_position


def assess_events(machine: EventDriven, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> Assessment:
    """Return what an inference costs where products with a zero rest (GXNOR: Deng et al., Neural Networks 2018)."""
    layers = []
    for work, went in zip(works, ways, strict=True):
        products, active = n_products(work.n_macs, went), active_share(machine, work, went)
        energy = products * (active * machine.events.active_pJ + (1 - active) * machine.events.resting_pJ)
        latency_ns = products / (machine.units.n_units * machine.clock.clock_GHz)
        layers.append(
            LayerCost(work.name, work.n_macs, products, latency_ns, energy, f"{went.how}; {active:.1%} of them active")
        )
    timed = (machine.clock, machine.units)
    return one_after_the_other(
        machine, tuple(layers), time=timed, energy=(machine.events, machine.density), covers=machine.events.covers,
        obtained=machine.events.obtained, notes=("zeros of activations are assumed, not counted",),
    )  # fmt: skip


def active_share(machine: EventDriven, work: LayerWork, went: Lowered) -> float:
    """Return the share of products of which neither factor is 0."""
    density = {"binary": 1.0, "ternary": machine.density.ternary, "bit": machine.density.bit}[went.activations]
    return (1 - work.zero_weights) * density


def assess_roofline(machine: Roofline, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> Assessment:
    """Return what an inference costs where each layer is held up by the peak or by memory, whichever is slower."""
    peak, memory, layers = machine.peak.macs_per_ns * machine.utilization.share, machine.memory, []
    for work, went in zip(works, ways, strict=True):
        products = n_products(work.n_macs, went)
        n_bits = (work.n_weights / memory.batch + work.n_inputs + work.n_outputs) * memory.operand_bits
        computing_ns, moving_ns = products / peak, n_bits / memory.bits_per_ns
        latency_ns = max(computing_ns, moving_ns) + machine.launch.latency_ns / memory.batch
        bound = "peak" if computing_ns >= moving_ns else "memory"
        bound = "launch" if machine.launch.latency_ns / memory.batch > max(computing_ns, moving_ns) else bound
        energy, how = machine.power.power_mW * latency_ns, f"{went.how}; bound by {bound}"
        layers.append(LayerCost(work.name, work.n_macs, products, latency_ns, energy, how))
    timed = (machine.peak, machine.utilization, machine.memory, machine.launch)
    found = one_after_the_other(
        machine, tuple(layers), time=timed, energy=(*timed, machine.power), covers=machine.power.covers,
        obtained=machine.power.obtained, notes=(f"batches of {memory.batch}",),
    )  # fmt: skip
    return replace(found, latency_ns=found.latency_ns * memory.batch)


def assess_throughput(machine: ThroughputRow, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> Assessment:
    """Return what an inference costs at a stated share of a peak rate."""
    rate = machine.peak.macs_per_ns * machine.utilization.share
    layers = []
    for work, went in zip(works, ways, strict=True):
        products = n_products(work.n_macs, went)
        energy = products * machine.energy.energy_pJ_per_mac
        layers.append(LayerCost(work.name, work.n_macs, products, products / rate, energy, went.how))
    return one_after_the_other(
        machine, tuple(layers), time=(machine.peak, machine.utilization), energy=(machine.energy,),
        covers=machine.energy.covers, obtained=machine.energy.obtained,
        notes=(f"at {machine.utilization.share:.0%} of its peak; loading of weights is not counted",),
    )  # fmt: skip
