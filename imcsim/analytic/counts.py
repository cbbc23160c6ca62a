"""How often each action is done, layer by layer, by formula: no task is written.

quantizers.md B.2: accesses = vectors x activation planes x ceil(rows / L) x ceil(outputs x weight planes / columns).
"""

from collections import Counter

import numpy as np

from imcsim.analytic.spending import BITS_PER_CELL, count_across, count_sent, count_setup_across
from imcsim.graph.recurrent import PARTS
from imcsim.mapping.digital import cell_of, cell_work, state_bits
from imcsim.mapping.plan import LayerPlan, Plan


def count_actions(plan: Plan) -> dict[str, Counter[str]]:
    """Return the actions that one inference spends, by layer; layers that the host does spend none."""
    counts = {}
    for layer in plan.layers:
        if plan.is_on_host(layer):
            continue
        if plan.chip.all_banks > 1:
            counts[layer.name] = _of_banks(plan, layer)
            continue
        spent = count_recurrent(plan, layer) if layer.n_steps else _digital(plan, layer)
        if layer.is_on_tiles and not layer.n_steps:
            spent.update(_accesses(plan, layer))
            spent.update(_reduction(plan, layer))
            spent["scheduler.issue"] += len(layer.rounds) + (layer.psums_per_output > 1)
            if plan.style == "temporal":
                spent.update(_weights(plan, layer))
        counts[layer.name] = spent
    return counts


def count_setup(plan: Plan) -> dict[str, Counter[str]]:
    """Return the actions that writing resident weights once spends, by layer; none for a temporal plan."""
    if plan.style == "temporal":
        return {}
    weights = count_setup_across if plan.chip.all_banks > 1 else _weights
    return {layer.name: weights(plan, layer) for layer in plan.layers if layer.is_on_tiles}


def _of_banks(plan: Plan, layer: LayerPlan) -> Counter[str]:
    """What a layer spends where there are several banks."""
    if not layer.n_steps:
        return count_across(plan, layer)
    spent = count_recurrent(plan, layer)
    spent.update(count_sent(plan, layer))
    return spent


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


def _accesses(plan: Plan, layer: LayerPlan) -> Counter[str]:
    passes = layer.n_vectors * layer.n_passes
    blocks = passes * layer.accesses_per_pass * layer.n_groups * n_blocks(plan, layer)
    skipped, skipped_columns = _skipped(plan, layer)
    columns = blocks * layer.n_columns - skipped_columns
    return Counter(
        {
            "tile.access": blocks * n_segments(plan, layer) - skipped,
            "tile.column_read": columns,
            layer.conversion: columns,
            "activation_buffer.read": passes * reads_of_inputs(plan, layer) * layer.bits_per_digit,
        }
    )


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


def _reduction(plan: Plan, layer: LayerPlan) -> Counter[str]:
    if layer.psums_per_output == 1:
        return Counter()
    outputs = layer.n_vectors * layer.n_groups * layer.n_outputs
    words = -(-layer.psum_bits // plan.chip.reduce_unit.adder_bits)
    bits = outputs * layer.psums_per_output * layer.psum_bits
    spilt_bits = sum(flow.spilt_bits for flow in plan.psum_flows(layer))
    spilt = {"main_memory.write": spilt_bits, "main_memory.read": spilt_bits} if np.any(spilt_bits) else {}
    return Counter(
        {
            **spilt,
            "psum_buffer.write": bits,
            "psum_buffer.read": bits,
            "reduce_unit.add": outputs * layer.adds_per_output * words,
        }
    )


def _weights(plan: Plan, layer: LayerPlan) -> Counter[str]:
    bits = layer.n_groups * layer.n_rows * layer.n_columns * BITS_PER_CELL
    return Counter(
        {
            "main_memory.read": bits,
            "network.transfer": bits * layer.n_replicas,
            "tile.write_row": layer.n_groups * layer.n_rows * n_segments(plan, layer) * layer.n_replicas,
            "scheduler.issue": len(layer.rounds),
        }
    )


def count_recurrent(plan: Plan, layer: LayerPlan) -> Counter[str]:
    """Return what a recurrent layer spends in its home: each time step issues anew, and reads and stores the state."""
    op, n = plan.op_of[layer.name], layer.n_samples
    n_turns = len(cell_work(cell_of(op), layer.n_outputs // PARTS))
    spent = _accesses(plan, layer)
    for action, count in _reduction(plan, layer.one_step).items():
        spent[action] += layer.n_steps * count
    spent.update({f"sfu.{lane}": work for lane, work in plan.lane_work(layer).items()})
    spent["scheduler.issue"] += layer.n_steps * (len(layer.rounds) + (layer.psums_per_output > 1) + n_turns)
    state = (layer.n_steps - 1) * state_bits(op) * n
    spent.update({"activation_buffer.read": state, "activation_buffer.write": state})
    spent.update(_to_and_from_memory(plan, layer))
    if plan.style == "temporal":  # once where the weights of all rounds stay in the tiles
        for _ in range(1 if len(layer.rounds) == 1 else layer.n_steps):
            spent.update(_weights(plan, layer))
    return spent


def _digital(plan: Plan, layer: LayerPlan) -> Counter[str]:
    op = plan.op_of[layer.name]
    spent: Counter[str] = Counter()
    lanes = plan.lane_work(layer)
    for lane, n in lanes.items():
        spent[f"sfu.{lane}"] += n
    spent["scheduler.issue"] += len(lanes)
    sources = [plan.graph.tensors[name] for name in op.inputs]
    if not layer.is_on_tiles:
        spent["scheduler.issue"] += 1
    for i, tensor in enumerate(sources):
        if i > 0 or not layer.is_on_tiles:
            spent["activation_buffer.read"] += tensor.n_bits * layer.n_samples
    spent.update(_to_and_from_memory(plan, layer))
    return spent


def _to_and_from_memory(plan: Plan, layer: LayerPlan) -> Counter[str]:
    """What brings inputs from main memory, stores the output, and takes it to main memory."""
    op = plan.op_of[layer.name]
    spent: Counter[str] = Counter()
    for tensor in dict.fromkeys(plan.graph.tensors[name] for name in op.inputs):
        if tensor.name in plan.off_chip:
            spent["main_memory.read"] += tensor.n_bits * layer.n_samples
            spent["activation_buffer.write"] += tensor.n_bits * layer.n_samples
    bits = op.output.n_bits * layer.n_samples
    spent["activation_buffer.write"] += bits
    if op.output.name in plan.off_chip:
        spent["activation_buffer.read"] += bits
        spent["main_memory.write"] += bits
    return spent
