"""How often each action is done, layer by layer, by formula: no task is written.

quantizers.md B.2: accesses = vectors x activation planes x ceil(rows / L) x ceil(outputs x weight planes / columns).
Where there are several banks, a count is the sum of what is done in each of them and on each link between them.
"""

from collections import Counter
from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np

from imcsim.analytic.spending import (
    BITS_PER_CELL,
    Spent,
    sent_of_steps,
    shares_of_actions,
    spending,
    weights_of_banks,
)
from imcsim.costs.price import has_decoder_stage
from imcsim.graph.recurrent import PARTS
from imcsim.mapping.digital import cell_of, cell_work, state_bits, work_of_steps
from imcsim.mapping.instructions import is_reloaded, n_instructions
from imcsim.mapping.plan import LayerPlan, Plan

Factor = tuple[str, int]
"""What is multiplied, in a word or two, and how much it is; `imcsim.analytic.factors` says how each follows."""

ONCE = ", once"
"""Behind the name of a share of what writing resident weights takes."""


class Term(NamedTuple):
    """A product that is part of a count."""

    factors: tuple[Factor, ...]

    sign: int = 1
    """-1 for what is left out."""

    @property
    def n(self) -> int:
        """What it adds to the count."""
        return self.sign * prod(n for _, n in self.factors)


class Derivation(dict[str, list[Term]]):
    """The actions of a layer, each with the terms that its count is the sum of."""

    def add(self, action: str, *factors: Factor, sign: int = 1) -> None:
        """Add the product of *factors* to the count of *action*."""
        self.setdefault(action, []).append(Term(factors, sign))

    def counts(self) -> Counter[str]:
        """Return how often each action is done."""
        return Counter({action: sum(term.n for term in terms) for action, terms in self.items()})


def count_actions(plan: Plan) -> dict[str, Counter[str]]:
    """Return the actions that one inference spends, by layer; layers that the host does spend none."""
    return {layer: derived.counts() for layer, derived in derive_actions(plan).items()}


def count_work(plan: Plan) -> dict[str, Counter[str]]:
    """Return the same without the loading of instructions, which depends on all layers together."""
    return {layer: derived.counts() for layer, derived in _derive_work(plan).items()}


def count_setup(plan: Plan) -> dict[str, Counter[str]]:
    """Return the actions that writing resident weights once spends, by layer; none for a temporal plan."""
    return {layer: derived.counts() for layer, derived in derive_setup(plan).items()}


def derive_actions(plan: Plan) -> dict[str, Derivation]:
    """Return how the counts of `count_actions` follow, by layer."""
    found = _derive_work(plan)
    if is_reloaded(plan):
        width = ("bits of an entry", plan.chip.scheduler.entry.width_bits)
        for layer in plan.layers:
            if layer.name in found:
                entries = ("instructions to load", n_instructions(plan, layer))
                found[layer.name].add("main_memory.read", entries, width)
    return found


def derive_setup(plan: Plan) -> dict[str, Derivation]:
    """Return how the counts of `count_setup` follow, by layer."""
    found: dict[str, Derivation] = {}
    if plan.style != "temporal":
        for layer in plan.layers:
            if layer.is_on_tiles and not layer.is_written:
                spent = found.setdefault(layer.name, Derivation())
                if plan.chip.all_banks > 1:
                    _by_place(plan, weights_of_banks(plan, layer), spent, ONCE)
                else:
                    _weights(plan, layer, spent)
    return found


def _derive_work(plan: Plan) -> dict[str, Derivation]:
    return {layer.name: _derive(plan, layer) for layer in plan.layers if not plan.is_on_host(layer)}


def derive_recurrent(plan: Plan, layer: LayerPlan) -> Derivation:
    """Return how what a recurrent *layer* spends in its home follows."""
    spent = Derivation()
    _recurrent(plan, layer, spent)
    return spent


def derive_across(plan: Plan, layer: LayerPlan) -> Derivation:
    """Return how what a *layer* that is not recurrent spends in its banks, and between them, follows."""
    spent = Derivation()
    _by_place(plan, spending(plan, layer), spent)
    return spent


def _derive(plan: Plan, layer: LayerPlan) -> Derivation:
    if layer.n_steps:
        spent = derive_recurrent(plan, layer)
        if plan.chip.all_banks > 1:
            _by_place(plan, sent_of_steps(plan, layer), spent)
        return spent
    if plan.chip.all_banks > 1:
        return derive_across(plan, layer)
    spent = Derivation()
    _digital(plan, layer, spent)
    if layer.is_on_tiles:
        _accesses(plan, layer, spent)
        _reduction(plan, layer, spent)
        spent.add("scheduler.issue", ("rounds", len(layer.rounds)))
        if layer.psums_per_output > 1:
            spent.add("scheduler.issue", ("instructions of the reduce unit", 1))
        if plan.writes_cells(layer):
            _weights(plan, layer, spent)
    return spent


def _by_place(plan: Plan, everything: Iterable[Spent], spent: Derivation, when: str = "") -> None:
    """Add what is done across banks: one term for each bank, link and what a chip's banks share."""
    for action, places in shares_of_actions(plan, everything).items():
        for place, counts in places.items():
            spent.add(action, (name_of_share(action, place, when), sum(counts)))


def name_of_share(action: str, place: str, when: str = "") -> str:
    """Return what the *action*s that are done at a *place* are called as a factor."""
    return f"{action} of {place}{when}"


def n_blocks(plan: Plan, layer: LayerPlan) -> int:
    """Blocks that the rows of one group take."""
    return layer.n_blocks(plan.chip.tile.rows_per_access)


def n_segments(plan: Plan, layer: LayerPlan) -> int:
    """Segments that the columns of one group are cut into; a segment holds all planes of its outputs."""
    outputs_per_segment = plan.chip.tile.n_columns // layer.n_weight_planes
    return -(-layer.n_outputs // outputs_per_segment)


def reads_of_inputs(plan: Plan, layer: LayerPlan) -> int:
    """Digits that are read from the activation buffer, of one vector and one pass.

    Tiles that hold different columns of the same rows share a read, in one round.
    """
    if len(layer.rounds) == 1:
        return layer.n_groups * layer.n_rows
    return sum(
        stop - start
        for round_ in layer.rounds
        for _, start, stop in {(shard.group, shard.row_start, shard.row_stop) for shard in round_.shards}
    )


def _accesses(plan: Plan, layer: LayerPlan, spent: Derivation) -> None:
    vectors, passes = ("input vectors", layer.n_vectors), ("passes", layer.n_passes)
    blocks = (
        vectors,
        passes,
        ("accesses a pass", layer.accesses_per_pass),
        ("groups", layer.n_groups),
        ("blocks", n_blocks(plan, layer)),
    )
    skipped, skipped_columns = _skipped(plan, layer)
    for action in ("tile.select", "tile.access") if has_decoder_stage(plan.chip) else ("tile.access",):
        spent.add(action, *blocks, ("column segments", n_segments(plan, layer)))
        if layer.skipped_share:
            spent.add(action, ("accesses left out", skipped), sign=-1)
    for action in ("tile.column_read", layer.conversion):
        spent.add(action, *blocks, ("columns of a group", layer.n_columns))
        if layer.skipped_share:
            spent.add(action, ("columns of accesses left out", skipped_columns), sign=-1)
    inputs = (
        vectors,
        passes,
        ("digits read for a vector and pass", reads_of_inputs(plan, layer)),
        ("bits a digit", layer.bits_per_digit),
    )
    spent.add("activation_buffer.read", *inputs)
    if "inputs" in plan.chip.network.carries:
        spent.add("network.transfer", *inputs)


def _skipped(plan: Plan, layer: LayerPlan) -> tuple[int, int]:
    """Return the accesses that the chip leaves out, and the column reads: in whole numbers."""
    if not layer.skipped_share:
        return 0, 0
    accesses = columns = 0
    for round_ in layer.rounds:
        for shard, (asked, taken) in zip(
            round_.shards, layer.accesses_of_steps(round_, plan.chip.tile.rows_per_access), strict=True
        ):
            accesses += asked - taken
            columns += (asked - taken) * shard.n_columns
    return accesses, columns


def _reduction(plan: Plan, layer: LayerPlan, spent: Derivation, *times: Factor) -> None:
    """Derive what becomes of the sums of the tiles."""
    outputs = (
        *times,
        ("input vectors", layer.n_vectors) if not times else ("input vectors of a time step", layer.n_vectors),
        ("groups", layer.n_groups),
        ("outputs of a group", layer.n_outputs),
    )
    bits = (*outputs, ("psums an output", layer.psums_per_output), ("bits a psum", layer.psum_bits))
    if "psums" in plan.chip.network.carries:
        spent.add("network.transfer", *bits)
    if layer.psums_per_output == 1:
        return
    words = -(-layer.psum_bits // plan.chip.reduce_unit.adder_bits)
    spilt_bits = sum(flow.spilt_bits for flow in plan.psum_flows(layer))
    if np.any(spilt_bits):
        for action in ("main_memory.write", "main_memory.read"):
            spent.add(action, *times, ("psum bits that the buffer cannot keep", spilt_bits))
    for action in ("psum_buffer.write", "psum_buffer.read"):
        spent.add(action, *bits)
    spent.add("reduce_unit.add", *outputs, ("additions an output", layer.adds_per_output), ("words a psum", words))


def _weights(plan: Plan, layer: LayerPlan, spent: Derivation, *times: Factor) -> None:
    kernels = [("kernels to choose from", layer.n_experts)] if layer.n_experts > 1 else []
    rows = (*times, ("groups", layer.n_groups), *kernels, ("rows of a group", layer.n_rows))
    bits = (*rows, ("columns of a group", layer.n_columns), ("bits a weight", BITS_PER_CELL))
    replicas = ("replicas", layer.n_replicas)
    if layer.is_written:
        codes = (*rows, ("outputs of a group", layer.n_outputs), ("bits a code", layer.written_bits))
        spent.add(plan.source_of_cells(layer), *codes)
    else:
        spent.add("main_memory.read", *bits)
    spent.add("network.transfer", *bits, replicas)
    spent.add("tile.write_row", *rows, ("column segments", n_segments(plan, layer)), replicas)
    spent.add("scheduler.issue", *times, ("rounds of writing", len(layer.rounds)))


def _recurrent(plan: Plan, layer: LayerPlan, spent: Derivation) -> None:
    """Everything that a recurrent layer spends: each time step issues anew, and reads and stores the state."""
    op, samples, steps = plan.op_of[layer.name], ("samples", layer.n_samples), ("time steps", layer.n_steps)
    n_turns = len(cell_work(cell_of(op), layer.n_outputs // PARTS))
    _accesses(plan, layer, spent)
    _reduction(plan, layer.one_step, spent, steps)
    _lanes(plan, layer, spent)
    n_issues = len(layer.rounds) + (layer.psums_per_output > 1) + n_turns
    spent.add("scheduler.issue", steps, ("instructions a time step", n_issues))
    for action in ("activation_buffer.read", "activation_buffer.write"):
        between = ("time steps but one", layer.n_steps - 1)
        spent.add(action, between, ("bits of the state", state_bits(op)), samples)
    _to_and_from_memory(plan, layer, spent)
    if plan.style == "temporal":  # once where the weights of all rounds stay in the tiles
        _weights(plan, layer, spent, *([] if len(layer.rounds) == 1 else [steps]))


def _digital(plan: Plan, layer: LayerPlan, spent: Derivation) -> None:
    op = plan.op_of[layer.name]
    _lanes(plan, layer, spent)
    spent.add("scheduler.issue", ("lanes in use", len(plan.lane_work(layer))))
    if not layer.is_on_tiles:
        spent.add("scheduler.issue", ("instructions without a product", 1))
    for i, tensor in enumerate(plan.graph.tensors[name] for name in op.streamed):
        if i > 0 or not layer.is_on_tiles:
            bits = (f"bits of {tensor.name}", tensor.n_bits)
            spent.add("activation_buffer.read", bits, ("samples", layer.n_samples))
    _to_and_from_memory(plan, layer, spent)


def _lanes(plan: Plan, layer: LayerPlan, spent: Derivation) -> None:
    for step, lane, n in work_of_steps(plan.op_of[layer.name], plan.graph):
        spent.add(f"sfu.{lane}", (f"operations of {step}", n), ("samples", layer.n_samples))


def _to_and_from_memory(plan: Plan, layer: LayerPlan, spent: Derivation) -> None:
    """What brings inputs from main memory, stores the output, and takes it to main memory."""
    op, samples = plan.op_of[layer.name], ("samples", layer.n_samples)
    for tensor in dict.fromkeys(plan.graph.tensors[name] for name in op.streamed):
        if tensor.name in plan.off_chip:
            bits = (f"bits of {tensor.name}", tensor.n_bits)
            spent.add("main_memory.read", bits, samples)
            spent.add("activation_buffer.write", bits, samples)
    bits = (f"bits of {op.output.name}", op.output.n_bits)
    spent.add("activation_buffer.write", bits, samples)
    if "outputs" in plan.chip.network.carries:
        spent.add("network.transfer", bits, samples)
    if op.output.name in plan.off_chip:
        spent.add("activation_buffer.read", bits, samples)
        spent.add("main_memory.write", bits, samples)
