"""What a layer across banks spends, by formula: task by task, with the unit that does it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from imcsim.costs.price import has_decoder_stage
from imcsim.mapping.links import Hop, component_of_unit, is_link, local_unit, route, unit_at
from imcsim.mapping.plan import LayerPlan, Plan
from imcsim.mapping.spread import (
    BankPart,
    digital_banks,
    inputs_of_banks,
    parts_of_sums,
    parts_of_tiles,
    psums_between,
    shares_of,
    sums_of_banks,
)

BITS_PER_CELL = 2
"""A ternary weight on its way from main memory takes 2 bits."""

UNIT_OF_ACTION = {"main_memory.read": "main_memory", "main_memory.write": "main_memory",
                   "network.transfer": "network", "reduce_unit.add": "reduce_unit",
                   "scheduler.issue": "scheduler"}  # fmt: skip
"""Where unit and action are named differently."""


class Spent(NamedTuple):
    """What one task of a layer spends."""

    component: str
    unit: str
    action: str
    count: Any
    """How often; of tiles in accesses and rows."""

    n_lags: int = 1
    """How many of its results may be waited for one by one."""

    also: tuple[tuple[str, int], ...] = ()
    """Further actions, which take no time of their own."""


def weights_of_banks(plan: Plan, layer: LayerPlan) -> Iterator[Spent]:
    """Yield what writing the weights of *layer* once spends."""
    for part in parts_of_tiles(layer.stored, plan.chip):
        yield from _weights(plan, part)


def shares_of_actions(plan: Plan, everything: Iterable[Spent]) -> dict[str, dict[str, list[Any]]]:
    """Return how often each action is done, task by task, by where: in banks, what a chip shares, and links."""
    found: dict[str, dict[str, list[Any]]] = {}
    for spent in everything:
        done = list(spent.also)
        if spent.component != f"tile.{plan.chip.converter}":  # which is timed by its accesses, and spends by columns
            done.append((spent.action, spent.count))
        where = spent.unit if is_link(spent.unit) else spent.unit.removesuffix(local_unit(spent.unit)).strip(".")
        for action, n in done:
            found.setdefault(action, {}).setdefault(where or "the chip", []).append(n)
    return found


# --- what is spent --------------------------------------------------------------------------------------------------


def spending(plan: Plan, layer: LayerPlan) -> Iterator[Spent]:
    """Yield what each task of *layer*, which is not recurrent, spends."""
    chip, op, tensors = plan.chip, plan.op_of[layer.name], plan.graph.tensors

    def bits_of(name: str) -> int:
        return tensors[name].n_bits * layer.n_samples

    for bank, names in inputs_of_banks(layer, op.inputs, chip).items():
        for name in names:
            if name in plan.off_chip:
                yield _at(plan, bank, "main_memory.read", bits_of(name))
                yield _at(plan, bank, "activation_buffer.write", bits_of(name))
    if layer.is_on_tiles:
        yield from _product(plan, layer)
    else:
        yield _at(plan, layer.home, "scheduler.issue", 1)
        yield _at(plan, layer.home, "activation_buffer.read", bits_of(op.input))
    weights = digital_banks(layer, chip)
    for name in op.inputs[1:]:
        for bank, bits in shares_of(bits_of(name), weights).items():
            yield _at(plan, bank, "activation_buffer.read", bits)
    lanes = plan.lane_work(layer)
    for lane, n in lanes.items():
        for bank, share in shares_of(n, weights).items():
            yield _at(plan, bank, f"sfu.{lane}", share)
    for bank in weights if lanes else ():
        yield _at(plan, bank, "scheduler.issue", len(lanes))
    for (_, hop), bits in sends_of(plan, layer).items():
        yield Spent(component_of_unit(hop.unit), hop.unit, hop.action, bits)
    for bank, bits in stores_of(plan, layer).items():
        yield from stored(plan, layer, bank, bits)


def sent_of_steps(plan: Plan, layer: LayerPlan) -> Iterator[Spent]:
    """Yield what brings the codes of a recurrent *layer* from its home to other banks, all time steps together."""
    others = [bank for bank in layer.goes_to if bank != layer.home]
    bits, n = plan.op_of[layer.name].output.n_bits // layer.n_steps * layer.n_samples, layer.n_steps
    for hop in route(plan.chip, layer.home, others):
        yield Spent(component_of_unit(hop.unit), hop.unit, hop.action, n * bits, n)
    for bank in others:
        for spent in stored(plan, layer, bank, n * bits):
            yield spent._replace(n_lags=n)


def stored(plan: Plan, layer: LayerPlan, bank: int, bits: int) -> Iterator[Spent]:
    """Yield what storing *bits* of the output of *layer* in *bank* spends, and in main memory where it is off chip."""
    if "outputs" in plan.chip.network.carries:
        yield _at(plan, bank, "network.transfer", bits)
    yield _at(plan, bank, "activation_buffer.write", bits)
    if plan.op_of[layer.name].output.name in plan.off_chip:
        yield _at(plan, bank, "activation_buffer.read", bits)
        yield _at(plan, bank, "main_memory.write", bits)


def _product(plan: Plan, layer: LayerPlan) -> Iterator[Spent]:
    """Yield what the rounds of *layer* spend, up to the sums where its digital steps begin."""
    chip, bits = plan.chip, layer.psum_bits
    for part in parts_of_tiles(layer, chip):
        if not plan.is_resident:
            yield from _weights(plan, part)
        yield from _accesses(plan, part)
    if layer.psums_per_output > 1:
        words = -(-bits // chip.reduce_unit.adder_bits)
        for part in parts_of_sums(layer, chip):
            yield _at(plan, part.bank, "scheduler.issue", 1)
            for flow in plan.psum_flows(part.layer):
                n_items = part.layer.n_vectors * flow.parts_per_vector
                yield _at(plan, part.bank, "psum_buffer.write", flow.n_written * bits, np.max(n_items))
                if np.any(flow.spilt_bits):
                    yield _at(plan, part.bank, "main_memory.write", flow.spilt_bits)
                if not flow.n_read:
                    continue
                if np.any(flow.fetched_bits):
                    yield _at(plan, part.bank, "main_memory.read", flow.fetched_bits)
                yield _at(plan, part.bank, "psum_buffer.read", flow.n_read * bits)
                yield _at(plan, part.bank, "reduce_unit.add", flow.n_outputs * layer.adds_per_output * words)
        for crossing in psums_between(layer, chip):
            for (here, there), n in crossing.items():
                for hop in route(chip, here, [there]):
                    yield Spent(component_of_unit(hop.unit), hop.unit, hop.action, n * bits, layer.n_vectors)
    for (_, hop), sums in gathers_of(plan, layer).items():
        yield Spent(component_of_unit(hop.unit), hop.unit, hop.action, sums)


def _accesses(plan: Plan, part: BankPart) -> Iterator[Spent]:
    """Yield what reading inputs, accesses and conversions spend in one bank."""
    chip, mine, carries = plan.chip, part.layer, plan.chip.network.carries
    for round_ in mine.rounds:
        inputs = {(s.group, s.row_start, s.row_stop) for s in round_.shards}
        digits = sum(stop - start for _, start, stop in inputs) * mine.n_passes * mine.n_vectors
        yield _at(plan, part.bank, "scheduler.issue", 1)
        yield _at(plan, part.bank, "activation_buffer.read", digits * mine.bits_per_digit)
        if "inputs" in carries:
            yield _at(plan, part.bank, "network.transfer", digits * mine.bits_per_digit)
        if "psums" in carries:
            sums = sum(map(mine.psums_of, round_.shards)) * mine.psum_bits
            yield _at(plan, part.bank, "network.transfer", sums, mine.n_vectors)
        taken: Counter[int] = Counter()
        columns: Counter[int] = Counter()
        for shard, (_, n) in zip(round_.shards, mine.accesses(round_, chip.tile.rows_per_access), strict=True):
            taken[shard.tile] += n
            columns[shard.tile] += n * shard.n_columns
        for tile, n in taken.items():
            read = columns[tile]
            if has_decoder_stage(chip):
                yield Spent("tile.decoder", unit_at(chip, part.bank, f"tile{tile}.decoder"), "tile.select", n)
            array, converter = (unit_at(chip, part.bank, f"tile{tile}.{unit}") for unit in ("array", chip.converter))
            yield Spent("tile.array", array, "tile.access", n, also=(("tile.column_read", read),))
            yield Spent(f"tile.{chip.converter}", converter, chip.conversion, n, also=((mine.conversion, read),))


def _weights(plan: Plan, part: BankPart) -> Iterator[Spent]:
    """Yield what writing the weights of one bank spends."""
    mine = part.layer
    for round_ in mine.rounds:
        cells = sum(s.n_rows * s.n_columns for s in round_.shards if mine.is_first(s))
        copies = sum(s.n_rows * s.n_columns for s in round_.shards)
        yield _at(plan, part.bank, "scheduler.issue", 1)
        yield _at(plan, part.bank, "main_memory.read", cells * BITS_PER_CELL)
        yield _at(plan, part.bank, "network.transfer", copies * BITS_PER_CELL)
        rows: Counter[int] = Counter()
        for s in round_.shards:
            rows[s.tile] += s.n_rows
        for tile, n in rows.items():
            yield Spent("tile.write", unit_at(plan.chip, part.bank, f"tile{tile}.array"), "tile.write_row", n)


def _at(plan: Plan, bank: int, action: str, count: Any, n_lags: int = 1) -> Spent:
    local = UNIT_OF_ACTION.get(action, action)
    return Spent(local, unit_at(plan.chip, bank, local), action, count, n_lags)


# --- what goes over links -------------------------------------------------------------------------------------------


def gathers_of(plan: Plan, layer: LayerPlan) -> Counter[tuple[int, Hop]]:
    """Return the bits of sums that go over links to the home of *layer*, by the bank they come from and the link."""
    found: Counter[tuple[int, Hop]] = Counter()
    if layer.is_gathered:
        for bank, n in sums_of_banks(layer, plan.chip).items():
            if bank != layer.home and n:
                for hop in route(plan.chip, bank, [layer.home]):
                    found[bank, hop] = n * max(1, len(layer.row_groups)) * layer.psum_bits
    return found


def sends_of(plan: Plan, layer: LayerPlan) -> Counter[tuple[int, Hop]]:
    """Return the bits of the output of *layer* that go over links, by the bank that they come from and the link."""
    found: Counter[tuple[int, Hop]] = Counter()
    for bank, bits in _made_of(plan, layer).items():
        for hop in route(plan.chip, bank, layer.goes_to) if bits else ():
            found[bank, hop] = bits
    return found


def stores_of(plan: Plan, layer: LayerPlan) -> dict[int, int]:
    """Return the bits of the output of *layer* that each bank stores."""
    made = _made_of(plan, layer)
    return {bank: sum(made.values()) for bank in layer.goes_to} or made


def _made_of(plan: Plan, layer: LayerPlan) -> dict[int, int]:
    bits = plan.op_of[layer.name].output.n_bits * layer.n_samples
    return shares_of(bits, digital_banks(layer, plan.chip))
