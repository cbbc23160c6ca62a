"""The tasks of a recurrent layer: one time step after the other, each waiting for the codes of the one before.

A time step reads its input and the hidden codes from the activation buffer, goes through the tiles like a linear layer
and then through the turns of its cell. The state stays in the activation buffer between two steps, 16 bits a number,
or as many as its codes have. The input of a step comes from main memory while the step before is at work. Weights that
do not fit into the tiles at once are written again in every time step.
"""

from typing import TYPE_CHECKING

from imcsim.graph.recurrent import PARTS
from imcsim.mapping.across import send
from imcsim.mapping.digital import cell_of, cell_work, state_bits, turn_of_state
from imcsim.mapping.plan import LayerPlan

if TYPE_CHECKING:
    from imcsim.mapping.lower import _Writer


def write_recurrence(writer: "_Writer", layer: LayerPlan) -> None:
    """Write the tasks of all time steps of *layer*."""
    plan = writer.plan
    op = plan.op_of[layer.name]
    source, output = plan.graph.tensors[op.input], op.output
    ends = [writer.frontier, writer.frontier]  # of the time steps, and twice of the layer before
    state: list[str] = []
    for t in range(layer.n_steps):
        writer.step, writer.suffix = t, f".t{t}"
        step, n = layer.one_step, layer.n_samples
        bits = source.n_bits // layer.n_steps * n
        arrived = [writer.fetch(step, "fetch", bits, n, after=ends[t])] if source.name in plan.off_chip else []
        sums = writer.product(step, arrived, is_resident=t > 0 and len(layer.rounds) == 1)
        made, state = _cell(writer, step, sums, state, is_last=t == layer.n_steps - 1)
        bits = output.n_bits // layer.n_steps * n
        stored = writer.store(step, n, [made], bits)
        others = [bank for bank in layer.goes_to if bank != layer.home]
        writer.frontier += tuple(send(writer, step, n, {layer.home: ([made], bits)}, others))
        if t < layer.n_steps - 1:
            writer.frontier = (stored,)  # what goes on to main memory holds up nobody but the next layer
        ends.append(writer.frontier)
    writer.step, writer.suffix = 0, ""


def _cell(
    writer: "_Writer", step: LayerPlan, sums: list[str], state: list[str], *, is_last: bool
) -> tuple[str, list[str]]:
    """Write the turns of the cell; return the task that makes the codes and those that store the state."""
    op = writer.plan.op_of[step.name]
    cell, n = cell_of(op), step.n_samples
    turns = cell_work(cell, step.n_outputs // PARTS)
    issue = writer.issue(step, "issue.lanes", len(turns))
    read = []
    if state:
        read = [
            writer.task(step, "read.state", "activation_buffer.read", n, "activation_buffer.read",
                        count=state_bits(op) * n, after=[issue, *state])
        ]  # fmt: skip
    made, stored = sums, list[str]()
    for i, (lane, work) in enumerate(turns):
        makes_state = i == turn_of_state(cell)
        fed_by = made + read if makes_state else made
        made = [
            writer.task(step, f"{lane}.{i}", f"sfu.{lane}", n, f"sfu.{lane}", count=work * n, after=[issue],
                        streams=fed_by)
        ]  # fmt: skip
        if makes_state and not is_last:
            stored = [
                writer.task(step, "store.state", "activation_buffer.write", n, "activation_buffer.write",
                            count=state_bits(op) * n, streams=made)
            ]  # fmt: skip
    return made[0], stored
