"""How each factor of a count follows from the layer and the chip: in words, and as arithmetic with the numbers in it.

The arithmetic is in the signs of a formula, with ``ceil`` and ``floor``; it gives the factor, which tests hold for all
shipped workloads and for random ones.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imcsim.analytic.counts import ONCE, Derivation, Term, name_of_share
from imcsim.analytic.spending import BITS_PER_CELL, sent_of_steps, shares_of_actions, spending, weights_of_banks
from imcsim.graph.recurrent import PARTS
from imcsim.mapping.digital import cell_of, cell_work
from imcsim.mapping.plan import LayerPlan, Plan


@dataclass(frozen=True)
class How:
    """Where a factor comes from."""

    words: str

    numbers: str = ""
    """The arithmetic; nothing where the factor is read off as it stands."""


STEP = How("element operations on one sample: as many as imcsim.mapping.digital.lane_work says of the step")

SHARES = {
    "tile.access": "accesses of the blocks that its tiles hold, without those that drive no input",
    "tile.select": "accesses of the blocks that its tiles hold, without those that drive no input",
    "tile.column_read": "columns of the accesses of its tiles",
    "tile.convert": "columns of the accesses of its tiles",
    "tile.convert_one": "columns of the accesses of its tiles",
    "tile.multiply_add": "columns of the accesses of its tiles",
    "tile.write_row": "rows of the shards that its tiles hold",
    "activation_buffer.read": "bits of what its tiles and lanes read, and of what it writes to main memory",
    "activation_buffer.write": "bits of the output that it stores, and of what comes from main memory",
    "psum_buffer.write": "psums that are added up there x bits a psum",
    "psum_buffer.read": "psums that are added up there x bits a psum",
    "reduce_unit.add": "outputs that are added up there x additions an output x words a psum",
    "network.transfer": "bits of the weights that its tiles hold, and of what else the network carries there",
    "main_memory.read": "bits of weights, of tensors that lie there, and of psums that come back",
    "main_memory.write": "bits of tensors that lie there, and of psums that the buffers cannot keep",
    "bank_link.transfer": "bits of psums, sums and codes whose way it is on",
    "chip_link.transfer": "bits of psums, sums and codes whose way it is on",
    "scheduler.issue": "instructions for weights, rounds, sums and lanes",
}
"""What a bank's, a link's or a shared unit's share of an action is, where there are several banks."""

LANE_SHARE = "element operations, dealt out by the sums that each bank has"


def how_of_factors(plan: Plan, layer: LayerPlan, derived: Derivation) -> dict[str, How]:
    """Return how the factors of *derived*, which are those of *layer*, follow."""
    named = {name for terms in derived.values() for term in terms for name, _ in term.factors}
    said = dict(_of_any_layer(plan, layer))
    if layer.is_on_tiles:
        said |= dict(_of_a_product(plan, layer))
    if plan.chip.all_banks > 1:
        said |= dict(_of_shares(plan, layer))
    said |= {name: STEP for name in named if name.startswith("operations of ")}
    return {name: said[name] for name in said if name in named}


def _of_shares(plan: Plan, layer: LayerPlan) -> Iterator[tuple[str, How]]:
    """Yield how the shares of banks and links follow, as sums over their tasks."""
    for when, everything in (
        ("", sent_of_steps(plan, layer) if layer.n_steps else spending(plan, layer)),
        (ONCE, weights_of_banks(plan, layer)),
    ):
        for action, places in shares_of_actions(plan, everything).items():
            for place, counts in places.items():
                equal = Counter(n for n in counts if n)
                numbers = " + ".join(f"{times} * {n}" if times > 1 else str(n) for n, times in equal.items())
                yield name_of_share(action, place, when), How(SHARES.get(action, LANE_SHARE), numbers or "0")


def _of_any_layer(plan: Plan, layer: LayerPlan) -> Iterator[tuple[str, How]]:
    op = plan.op_of[layer.name]
    yield "samples", How("samples that one inference takes together: the batch")
    for tensor in dict.fromkeys([*(plan.graph.tensors[name] for name in op.inputs), op.output]):
        shape = " * ".join(map(str, tensor.shape))
        where = ", which lies in main memory" if tensor.name in plan.off_chip else ""
        words = f"numbers of one sample of {tensor.name}{where} x bits of {tensor.format}"
        yield f"bits of {tensor.name}", How(words, f"{shape} * {tensor.format.bits}")
    yield "lanes in use", How(f"kinds of lanes that its steps use: {', '.join(plan.lane_work(layer)) or 'none'}")
    yield "instructions to load", How("entries that its part of the program takes; not all of it fits into the memory")
    yield "bits of an entry", How("width of an instruction (scheduler.entry.width_bits)")
    yield "instructions without a product", How("one instruction reads the tensors that no tile reads")


def _of_a_product(plan: Plan, layer: LayerPlan) -> Iterator[tuple[str, How]]:
    chip, op = plan.chip, plan.op_of[layer.name]
    source, tile = plan.graph.tensors[op.input].format, chip.tile
    places = plan.graph.n_vectors(op)
    what = "time steps" if layer.n_steps else "places of the product's output"
    if layer.is_written:
        yield "input vectors", How("rows of each matrix of the first operand")
        yield "groups", How("matrices of a sample x samples: each is written into cells of its own")
    else:
        yield "input vectors", How(f"{what} x samples", f"{places} * {layer.n_samples}")
        yield "groups", How("groups of the product, each with weights of its own")
    yield "input vectors of a time step", How("one a sample: the batch")
    yield "passes", How(f"planes of {source}, sent one after the other (tile.serial: {tile.serial})")
    two = layer.accesses_per_pass > 1
    yield (
        "accesses a pass",
        How(
            "positive inputs, then negative ones: the encoding is asymmetric" if two else "one access serves both signs"
        ),
    )
    yield "bits a code", How("bits of a code of the operand that is written into the tiles")
    yield "kernels to choose from", How("kernels that the tiles hold, of which a sample uses one")
    rows = Counter(layer.row_groups or (layer.n_rows,))
    parts = [f"{f'{n} * ' if n > 1 else ''}ceil({size} / {tile.rows_per_access})" for size, n in rows.items()]
    of = "each input group's rows" if layer.row_groups else "rows of a group"
    yield "blocks", How(f"ceil({of} / tile.rows_per_access)", " + ".join(parts))
    planes = layer.n_weight_planes
    columns = f"ceil({layer.n_outputs} / floor({tile.n_columns} / {planes}))"
    yield "column segments", How("ceil(outputs of a group / floor(tile.n_columns / weight planes))", columns)
    yield "columns of a group", How("outputs of a group x weight planes", f"{layer.n_outputs} * {planes}")
    yield "rows of a group", How("inputs of one group of the product")
    yield "outputs of a group", How("outputs of one group of the product")
    share = layer.skipped_share
    yield "accesses left out", How(f"{share:.4g} of them drive no input, rounded shard by shard")
    yield "columns of accesses left out", How(f"columns of the {share:.4g} of accesses that drive no input")
    yield "digits read for a vector and pass", _digits(layer)
    yield "bits a digit", How(f"bits of one digit of {source} in the activation buffer (tile.serial: {tile.serial})")
    sums = f"{layer.n_row_sums} * {planes}"
    yield "psums an output", How("sums of its rows, one a chunk of rows or input group, x weight planes", sums)
    together = max(1, len(layer.row_groups))
    yield "additions an output", How("psums an output - sums that stay apart", f"{sums} - {together}")
    yield "bits a psum", How("bits that the largest sum of the layer's blocks and passes takes")
    bits = f"ceil({layer.psum_bits} / {chip.reduce_unit.adder_bits})"
    yield "words a psum", How("ceil(bits a psum / reduce_unit.adder_bits)", bits)
    yield (
        "psum bits that the buffer cannot keep",
        How("psums that wait for a later round, beyond half of psum_buffer.capacity_bits, all rounds"),
    )
    yield "bits a weight", How(f"a ternary weight on its way takes {BITS_PER_CELL} bits")
    yield "replicas", How("copies of the layer's weights, which share its input vectors")
    yield "rounds", How("an instruction a round: what is resident at one time")
    yield "rounds of writing", How("an instruction for the weights of each round")
    yield "instructions of the reduce unit", How("one, since outputs take several psums")
    if layer.n_steps:
        yield from _of_time_steps(layer, n_turns=len(cell_work(cell_of(op), layer.n_outputs // PARTS)))


def _of_time_steps(layer: LayerPlan, n_turns: int) -> Iterator[tuple[str, How]]:
    yield "time steps", How("steps of the sequence, one after the other")
    yield "time steps but one", How("the state is kept between steps", f"{layer.n_steps} - 1")
    reduces = int(layer.psums_per_output > 1)
    issues = f"{len(layer.rounds)} + {reduces} + {n_turns}"
    yield "instructions a time step", How("rounds + instructions of the reduce unit + turns of the lanes", issues)
    yield "bits of the state", How("hidden units x bits of a real number")


def _digits(layer: LayerPlan) -> How:
    if len(layer.rounds) == 1:
        words = "groups x rows of a group: tiles with other columns share a read"
        return How(words, f"{layer.n_groups} * {layer.n_rows}")
    chunks = Counter(
        stop - start
        for round_ in layer.rounds
        for _, start, stop in {(shard.group, shard.row_start, shard.row_stop) for shard in round_.shards}
    )
    return How(
        "rows of each chunk that a round reads; tiles with other columns share a read in one round",
        " + ".join(f"{n} * {size}" for size, n in chunks.items()),
    )


def arithmetic(terms: Iterable[Term]) -> str:
    """Return a count as the sum of its products.

    >>> arithmetic([Term((("input vectors", 784), ("blocks", 3))), Term((("left out", 5),), sign=-1)])
    '784 x 3 - 5'
    """
    text = ""
    for term in terms:
        sign = " - " if term.sign < 0 else " + " if text else ""
        text += sign + " x ".join(str(n) for _, n in term.factors)
    return text
