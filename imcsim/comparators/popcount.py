"""Networks of planes on processors: XOR, AND and popcount of whole words (quantizers.md D.2, D.3)."""

from collections.abc import Sequence

from imcsim.arch.comparators import PopcountCpu
from imcsim.comparators.cost import Assessment, LayerCost, n_products, one_after_the_other
from imcsim.comparators.work import LayerWork, Lowered


def assess_popcount(machine: PopcountCpu, works: Sequence[LayerWork], ways: Sequence[Lowered]) -> Assessment:
    """Return what an inference costs: each layer by planes or, where that is quicker, by whole words."""
    layers = tuple(layer_cost(machine, work, went) for work, went in zip(works, ways, strict=True))
    used = tuple(machine.instructions[pair] for pair in sorted({went.pair for went in ways}))
    words = (machine.words,) if machine.words is not None else ()
    timed = (machine.clock, machine.cores, machine.issue, machine.overhead, *used, *words)
    power = machine.power
    return one_after_the_other(
        machine, layers, time=timed, energy=(*timed, power), covers=power.covers, obtained=power.obtained,
        notes=("steps between layers beyond one scale and comparison an output are not counted",),
    )  # fmt: skip


def layer_cost(machine: PopcountCpu, work: LayerWork, went: Lowered) -> LayerCost:
    """Return what one layer costs."""
    cycles, products, how = plane_cycles(machine, work, went), n_products(work.n_macs, went), went.how
    whole = word_cycles(machine, work)
    if whole is not None and whole < cycles:
        cycles, products, how = whole, work.n_macs, "words"
    latency_ns = cycles / machine.clock.clock_GHz
    return LayerCost(work.name, work.n_macs, products, latency_ns, machine.power.power_mW * latency_ns, how)


def plane_cycles(machine: PopcountCpu, work: LayerWork, went: Lowered) -> float:
    """Return the cycles of one layer by planes, of all cores together.

    Rows are packed into whole words, which the last one need not fill.
    """
    per_word, issue = machine.instructions[went.pair], machine.issue
    words = work.n_outputs * -(-work.n_rows // machine.cores.word_bits) * went.n_passes
    issued = (
        per_word.n_logic / issue.logic_per_cycle
        + per_word.n_pop / issue.pop_per_cycle
        + per_word.n_add / issue.add_per_cycle
    )
    beside = machine.overhead.output_cycles * work.n_outputs
    beside += machine.overhead.input_cycles * work.n_inputs * went.n_activation_planes
    return words * issued / (issue.utilization * n_effective(machine)) + beside


def word_cycles(machine: PopcountCpu, work: LayerWork) -> float | None:
    """Return the cycles of one layer in whole words; None where the machine has no such way."""
    if machine.words is None:
        return None
    return work.n_macs / (machine.words.macs_per_cycle * n_effective(machine))


def n_effective(machine: PopcountCpu) -> float:
    """Return how many cores' work all of them do together."""
    return 1 + machine.cores.scaling * (machine.cores.n_cores - 1)
