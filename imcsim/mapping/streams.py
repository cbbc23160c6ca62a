"""Tensors on their way through the activation buffer, from or to main memory: what room they have there.

An item, the share of one input vector, takes its room from its request to main memory until it is read, and of an
output from when it is made until main memory takes it. The streams of a layer share what the tensors that stay in the
buffer leave, by their sizes. One item of each has its room in any case.
"""

from collections.abc import Container

from imcsim.graph import Graph, Op, Tensor
from imcsim.mapping.digital import is_on_host, state_bits
from imcsim.mapping.plan import LayerPlan, Plan


def live_tensors(graph: Graph, i: int, off_chip: Container[str]) -> list[Tensor]:
    """Return what lies in the activation buffer while op *i* is at work, with its inputs and its output."""
    used = {name for op in graph.ops[i:] for name in op.inputs} | {graph.ops[i].output.name}
    made = (op.output for op in graph.ops[: i + 1])
    return [tensor for tensor in made if tensor.name in used and tensor.name not in off_chip]


def room_of_streams(plan: Plan, layer: LayerPlan) -> int | None:
    """Return how many items of each of its streams *layer* has room for; None where all of them have.

    Pipelined, all layers are at work at once: the streams of each have as much room as those of another. Time steps of
    recurrent layers are fetched one ahead, whatever the room; so are the streams of a chip of several banks.
    """
    graph, op = plan.graph, plan.op_of[layer.name]
    streamed = _streamed(op, plan)
    bits = layer.n_samples * sum(tensor.n_bits for tensor in streamed)
    if not bits or layer.n_steps or plan.chip.all_banks > 1:
        return None
    if plan.style == "pipelined":
        kept = [each.output for each in graph.ops if each.output.name not in plan.off_chip]
        held = sum(plan.places_of[tensor.name] * tensor.n_bits for tensor in kept) + sum(map(state_bits, graph.ops))
        n_at_work = sum(bool(_streamed(each, plan)) for each in graph.ops if not is_on_host(each, graph))
    else:
        at = [each.name for each in graph.ops].index(op.name)
        held = sum(tensor.n_bits for tensor in live_tensors(graph, at, plan.off_chip)) + state_bits(op)
        n_at_work = 1
    left = (plan.chip.activation_buffer.capacity_bits - held * layer.n_samples) // n_at_work
    n_items = layer.n_items
    room = max(1, left * n_items // bits)
    return room if room < n_items else None


def _streamed(op: Op, plan: Plan) -> list[Tensor]:
    tensors = [plan.graph.tensors[name] for name in dict.fromkeys(op.streamed)] + [op.output]
    return [tensor for tensor in tensors if tensor.name in plan.off_chip]
