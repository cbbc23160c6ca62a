"""The tasks of a layer across banks: each bank's own, as on a chip of one bank, and those of the links between them.

What crosses a link streams (cut-through) from the task that makes it, over one link after the other, into the task that
takes it; a link is a unit like any other, first come first served, one for each direction. Psums cross from the PCUs to
the psum buffer of the bank that adds them up, which may push back; sums to the bank that gathers them; codes to every
bank whose activation buffer takes them.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from imcsim.arch.spec import Chip
from imcsim.mapping.links import route
from imcsim.mapping.plan import LayerPlan
from imcsim.mapping.spread import (
    digital_banks,
    inputs_of_banks,
    parts_of_sums,
    parts_of_tiles,
    psums_between,
    shares_of,
    sums_of_banks,
)

if TYPE_CHECKING:
    from imcsim.mapping.lower import _Writer

Made = dict[int, list[str]]
"""For each bank the tasks that hand something out there."""


def write_setup_across(writer: "_Writer", layer: LayerPlan) -> None:
    """Write the tasks that write the resident weights of *layer* into the tiles of all banks."""
    for part in parts_of_tiles(layer.stored, writer.plan.chip):
        with writer.at(part.bank):
            for r, round_ in zip(part.rounds, part.layer.rounds, strict=True):
                writer.write_weights(part.layer, r, round_)


def in_its_bank(layer: LayerPlan, chip: Chip) -> LayerPlan:
    """Return a *layer* that lies in one bank with its tiles counted there."""
    (part,) = parts_of_tiles(layer, chip)
    return part.layer


def write_across(writer: "_Writer", layer: LayerPlan) -> None:
    """Write the tasks of *layer*, which is not recurrent."""
    plan, chip = writer.plan, writer.plan.chip
    op = plan.op_of[layer.name]
    tensors = plan.graph.tensors
    n_items = max(layer.n_vectors, layer.n_samples)
    begin = writer.frontier
    arrived: Made = {}
    for bank, names in inputs_of_banks(layer, op.inputs, chip).items():
        with writer.at(bank):
            arrived[bank] = [
                writer.fetch(layer, f"fetch.{name}", tensors[name].n_bits * layer.n_samples, n_items)
                for name in names
                if name in plan.off_chip
            ]
    weights = digital_banks(layer, chip)
    if layer.is_on_tiles:
        made = _product(writer, layer, arrived)
        if layer.is_gathered:
            made = _gather(writer, layer, n_items, made)
    else:
        with writer.at(layer.home):
            issue = writer.issue(layer, "issue", 1)
            made = {
                layer.home: [
                    writer.task(layer, "read", "activation_buffer.read", n_items, "activation_buffer.read",
                                count=tensors[op.input].n_bits * layer.n_samples, after=[issue],
                                streams=arrived.get(layer.home, ()))
                ]
            }  # fmt: skip
    joined = [shares_of(tensors[name].n_bits * layer.n_samples, weights) for name in op.inputs[1:]]
    lanes = {lane: shares_of(n, weights) for lane, n in plan.lane_work(layer).items()}
    for bank in weights:
        made.setdefault(bank, [])
        with writer.at(bank):
            for i, read in enumerate(joined, start=1):
                made[bank].append(
                    writer.task(layer, f"read.{i}", "activation_buffer.read", n_items, "activation_buffer.read",
                                count=read[bank], after=begin, streams=arrived.get(bank, ()))
                )  # fmt: skip
            if lanes:
                issue = writer.issue(layer, "issue.lanes", len(lanes))
            for lane, n in lanes.items():
                made[bank] = [
                    writer.task(layer, lane, f"sfu.{lane}", n_items, f"sfu.{lane}", count=n[bank], after=[issue],
                                streams=made[bank])
                ]  # fmt: skip
    bits_of = shares_of(op.output.n_bits * layer.n_samples, weights)
    parts = {bank: (made[bank], bits_of[bank]) for bank in weights}
    if layer.goes_to:
        writer.frontier = tuple(send(writer, layer, n_items, parts, layer.goes_to))
        return
    ends: list[str] = []
    for bank, (source, bits) in parts.items():
        with writer.at(bank):
            writer.store(layer, n_items, source, bits)
            ends += writer.frontier
    writer.frontier = tuple(ends)


def _product(writer: "_Writer", layer: LayerPlan, arrived: Made) -> Made:
    """Write the rounds of a layer in all banks; return the tasks that hand out its sums."""
    plan, chip = writer.plan, writer.plan.chip
    held = {part.bank: part for part in parts_of_tiles(layer, chip)}
    adding = {part.bank: part for part in parts_of_sums(layer, chip)}
    is_reduced = layer.psums_per_output > 1
    flows = {bank: plan.psum_flows(part.layer) for bank, part in adding.items()} if is_reduced else {}
    crossing = psums_between(layer, chip)
    begin, last = writer.frontier, list[str]()  # of the layer before, and of the round before
    written: dict[int, list[str]] = {}
    made: Made = {}
    reduce_issued: dict[int, str] = {}
    for r in range(len(layer.rounds)):
        here = {bank: (part.layer, part.layer.rounds[part.rounds.index(r)]) for bank, part in held.items()
                if r in part.rounds}  # fmt: skip
        if not plan.is_resident:
            for bank, (mine, round_) in here.items():
                with writer.at(bank):
                    written[bank] = writer.write_weights(mine, r, round_)
        counted: Made = {}
        issued: Made = {}
        for bank, (mine, round_) in here.items():
            with writer.at(bank):
                issued[bank] = [writer.issue(layer, f"issue.{r}", 1, after=[*begin, *last])]
                inputs = arrived.get(bank, []) if r == 0 else []
                counted[bank] = writer.accesses(mine, r, round_, issued[bank][0], written.get(bank, []), inputs, {})
                if "psums" in chip.network.carries:
                    counted[bank] = [writer.hand_out(mine, r, round_, 1, counted[bank])]
        if not is_reduced:
            made |= counted
            last = [name for tasks in counted.values() for name in tasks]
            continue
        taken = _carry_psums(writer, layer, r, counted, crossing[r])
        last = []
        for bank, part in adding.items():
            if r not in part.rounds:
                continue
            flow = flows[bank][part.rounds.index(r)]
            from_others = sum(n for (_, there), n in crossing[r].items() if there == bank)
            own = counted[bank] if flow.n_written > from_others else []
            with writer.at(bank):
                if bank not in reduce_issued:
                    reduce_issued[bank] = writer.issue(layer, "issue.reduce", 1)
                after = [*issued.get(bank, begin), reduce_issued[bank]]
                made[bank] = [writer.reduce(part.layer, r, flow, [*own, *taken.get(bank, [])], after)]
            last += made[bank]
    return made


def _carry_psums(
    writer: "_Writer", layer: LayerPlan, r: int, counted: Made, crossing: Mapping[tuple[int, int], int]
) -> Made:
    """Write what carries the psums of one round to the banks that add them up; return the tasks that arrive there."""
    taken: Made = {}
    for (here, there), n in crossing.items():
        if not counted[here]:
            continue
        feeders, bits = counted[here], n * layer.psum_bits
        for hop in route(writer.plan.chip, here, [there]):
            with writer.at(None):
                carried = writer.task(
                    layer, f"psums.round{r}.{here}-{there}.{hop.unit}", hop.unit, layer.n_vectors, hop.action,
                    count=bits, streams=feeders, rooms={name: writer.room(name, layer.n_vectors) for name in feeders},
                )  # fmt: skip
            feeders = [carried]
        taken.setdefault(there, []).extend(feeders)
    return taken


def _gather(writer: "_Writer", layer: LayerPlan, n_items: int, made: Made) -> Made:
    """Write what carries all sums of *layer* to its home; return the tasks that hand them out there."""
    there = list(made.get(layer.home, []))
    sums_per_output = max(1, len(layer.row_groups))
    for bank, n in sums_of_banks(layer, writer.plan.chip).items():
        if bank != layer.home and made.get(bank):
            bits = n * sums_per_output * layer.psum_bits
            there += _carry(writer, layer, "sums", n_items, bank, made[bank], bits, [layer.home])[layer.home]
    return {layer.home: there}


def send(
    writer: "_Writer",
    layer: LayerPlan,
    n_items: int,
    parts: Mapping[int, tuple[list[str], int]],
    targets: Iterable[int],
) -> list[str]:
    """Write what brings *parts* of an output together in the banks *targets*, and stores them there.

    Of each part the bank that makes it is given, and the tasks that hand it out with its bits. Return the tasks behind
    which the output is there.
    """
    arrived: Made = {bank: [] for bank in targets}
    for bank, (source, bits) in parts.items():
        others = [target for target in arrived if target != bank]
        if bank in arrived:
            arrived[bank] += source
        if bits and others:
            for target, names in _carry(writer, layer, "send", n_items, bank, source, bits, others).items():
                arrived[target] += names
    ends: list[str] = []
    before = writer.frontier
    for bank, source in arrived.items():
        with writer.at(bank):
            writer.store(layer, n_items, source, sum(bits for _, bits in parts.values()))
        ends += writer.frontier
    writer.frontier = before
    return ends


def _carry(
    writer: "_Writer", layer: LayerPlan, what: str, n_items: int, source: int, made: list[str], bits: int,
    targets: list[int],
) -> Made:  # fmt: skip
    """Write what carries *bits*, which *made* hand out in one bank, to other banks; return what arrives in each."""
    at = {source: made}
    with writer.at(None):
        for hop in route(writer.plan.chip, source, targets):
            name = f"{what}.{source}.{hop.unit}"
            at[hop.target] = [
                writer.task(layer, name, hop.unit, n_items, hop.action, count=bits, streams=at[hop.source])
            ]
    return {target: at[target] for target in targets}
