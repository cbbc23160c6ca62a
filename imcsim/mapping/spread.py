"""A layer across banks: what each bank holds, adds up and does, and where its output goes.

A bank reads the inputs of the shards that it holds from its own activation buffer, so a tensor lies whole in every bank
that reads it, or, where the buffers have no room for it, in main memory of every chip that does. Psums of one output
are added in the bank that holds most of its shards; its digital steps are done there, too, unless they need other sums
beside: then one bank, the home of the layer, gathers all sums. Round by round (temporal), all banks take all tensors.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from imcsim.arch.spec import Chip
from imcsim.graph import Graph
from imcsim.mapping.digital import is_on_host
from imcsim.mapping.plan import LayerPlan, Round, Shard, Style

Outputs = tuple[int, int, int]
"""The outputs of a segment in one copy of a layer: group, first column, copy."""


class BankPart(NamedTuple):
    """What one bank has of a layer."""

    bank: int

    rounds: tuple[int, ...]
    """Which rounds of the layer it has a part in."""

    layer: LayerPlan
    """These rounds; tiles are counted in the bank, copies and vectors are those that it has a part in."""


def parts_of_tiles(layer: LayerPlan, chip: Chip) -> list[BankPart]:
    """Return the shards of *layer* by the bank that holds them."""
    return _parts(layer, chip, lambda shard: shard.tile // chip.n_tiles)


def parts_of_sums(layer: LayerPlan, chip: Chip) -> list[BankPart]:
    """Return the shards of *layer* by the bank that adds up their psums, wherever they lie."""
    adder = adders_of(layer, chip)
    return _parts(layer, chip, lambda shard: adder[outputs_of(shard)])


def outputs_of(shard: Shard) -> Outputs:
    """Return which outputs *shard* has a part in."""
    return shard.group, shard.column_start, shard.replica


def adders_of(layer: LayerPlan, chip: Chip) -> dict[Outputs, int]:
    """Return the bank that adds up the psums of each of the outputs of *layer*: the one with most of their shards."""
    held: dict[Outputs, Counter[int]] = defaultdict(Counter)
    for shard in (shard for round_ in layer.rounds for shard in round_.shards):
        held[outputs_of(shard)][shard.tile // chip.n_tiles] += 1
    return {outputs: min(banks, key=lambda bank: (-banks[bank], bank)) for outputs, banks in held.items()}


def psums_between(layer: LayerPlan, chip: Chip) -> list[Counter[tuple[int, int]]]:
    """Return for each round of *layer* the psums that go from one bank to another, by the two."""
    adder = adders_of(layer, chip)
    found = []
    for round_ in layer.rounds:
        crossing: Counter[tuple[int, int]] = Counter()
        for s in round_.shards:
            there = adder[outputs_of(s)]
            if (here := s.tile // chip.n_tiles) != there:
                crossing[here, there] += layer.vectors_of(s.replica) * s.n_columns * s.n_sums
        found.append(crossing)
    return found


def sums_of_banks(layer: LayerPlan, chip: Chip) -> dict[int, int]:
    """Return how many outputs, all vectors together, each bank makes the sums of."""
    made: Counter[int] = Counter()
    width = {outputs_of(s): s.n_columns for round_ in layer.rounds for s in round_.shards}
    for outputs, bank in adders_of(layer, chip).items():
        made[bank] += width[outputs] // layer.n_weight_planes * layer.vectors_of(outputs[2])
    return {bank: made[bank] for bank in sorted(made)}


def digital_banks(layer: LayerPlan, chip: Chip) -> dict[int, int]:
    """Return the banks that do the digital steps of *layer*, each with its weight in the work."""
    if layer.is_gathered or not layer.is_on_tiles:
        return {layer.home: 1}
    return sums_of_banks(layer, chip)


def shares_of(n: int, weights: Mapping[int, int]) -> dict[int, int]:
    """Return *n* dealt out by *weights*, in whole numbers that add up to it.

    >>> shares_of(10, {0: 1, 3: 2})
    {0: 3, 3: 7}
    """
    whole, before, found = sum(weights.values()), 0, {}
    for bank, weight in weights.items():
        found[bank] = n * (before + weight) // whole - n * before // whole
        before += weight
    return found


def homes_of(layers: Sequence[LayerPlan], graph: Graph, chip: Chip, style: Style) -> dict[str, int]:
    """Return the home of each of the placed *layers*; without a product it is that of the layer that it reads first."""
    maker = {op.output.name: op.name for op in graph.ops}
    homes: dict[str, int] = {}
    for layer, op in zip(layers, graph.ops, strict=True):
        before = 0 if style == "temporal" else homes.get(maker.get(op.input, ""), 0)
        homes[layer.name] = home_of(layer, chip) if layer.is_on_tiles else before
    return homes


def home_of(layer: LayerPlan, chip: Chip) -> int:
    """Return the bank that makes most of the sums of a placed *layer*."""
    made = sums_of_banks(layer, chip)
    return min(made, key=lambda bank: (-made[bank], bank))


def readers_of(
    layers: Sequence[LayerPlan], graph: Graph, chip: Chip, style: Style, homes: Mapping[str, int]
) -> dict[str, set[int]]:
    """Return the banks that read each tensor."""
    readers: dict[str, set[int]] = {op.output.name: set() for op in graph.ops}
    for layer, op in zip(layers, graph.ops, strict=True):
        if is_on_host(op, graph):
            continue
        homed = replace(layer, home=homes[layer.name])
        for bank, names in inputs_of_banks(homed, op.inputs, chip).items():
            for name in names:
                readers.setdefault(name, set()).add(bank)
    if style == "temporal":
        readers = {name: set(range(chip.all_banks)) if banks else banks for name, banks in readers.items()}
    for layer, op in zip(layers, graph.ops, strict=True):
        if layer.n_steps:  # its codes go round there
            readers[op.output.name].add(homes[layer.name])
    return readers


def inputs_of_banks(layer: LayerPlan, names: Sequence[str], chip: Chip) -> dict[int, list[str]]:
    """Return which of the inputs of *layer*, called *names*, each bank reads, those that read none left out."""
    first, others = names[:1], names[1:]
    found: dict[int, list[str]] = {}
    for part in parts_of_tiles(layer, chip):
        found.setdefault(part.bank, []).extend(first)
    for bank in digital_banks(layer, chip):
        found.setdefault(bank, []).extend(others if layer.is_on_tiles else names)
    return {bank: list(dict.fromkeys(read)) for bank, read in sorted(found.items()) if read}


def with_way(layer: LayerPlan, home: int, readers: Iterable[int], chip: Chip, *, is_off_chip: bool) -> LayerPlan:
    """Return *layer* with its home and the banks that its output goes to, those of *readers*.

    What lies in main memory goes to one bank of each chip that reads it.
    """
    banks = sorted(readers)
    if is_off_chip:
        first = {bank // chip.n_banks: bank for bank in reversed(banks)}
        if layer.n_steps:
            first[home // chip.n_banks] = home
        banks = sorted(first.values())
    return replace(layer, home=home, goes_to=tuple(banks))


def dealt_out(layer: LayerPlan, graph: Graph, chip: Chip, off_chip: frozenset[str]) -> LayerPlan:
    """Return a placed *layer* of a temporal plan with its home, its output going to all banks if anyone reads it."""
    home = home_of(layer, chip) if layer.is_on_tiles else 0
    output = next(op.output.name for op in graph.ops if op.name == layer.name)
    is_read = any(output in op.inputs for op in graph.ops if not is_on_host(op, graph))
    readers = range(chip.all_banks) if is_read else [home] if layer.n_steps else []
    return with_way(layer, home, readers, chip, is_off_chip=output in off_chip)


def _parts(layer: LayerPlan, chip: Chip, bank_of: Callable[[Shard], int]) -> list[BankPart]:
    shards: dict[int, dict[int, list[Shard]]] = defaultdict(lambda: defaultdict(list))
    for r, round_ in enumerate(layer.rounds):
        for shard in round_.shards:
            shards[bank_of(shard)][r].append(replace(shard, tile=shard.tile % chip.n_tiles))
    return [_part(layer, bank, shards[bank]) for bank in sorted(shards)]


def _part(layer: LayerPlan, bank: int, shards: Mapping[int, Sequence[Shard]]) -> BankPart:
    """Return a part of *layer*; the copies in it are counted anew, in their order, so that each keeps its vectors."""
    copies = sorted({shard.replica for together in shards.values() for shard in together})
    number = {copy: i for i, copy in enumerate(copies)}
    rounds = tuple(
        Round(tuple(replace(shard, replica=number[shard.replica]) for shard in together))
        for together in shards.values()
    )
    n_vectors = sum(map(layer.vectors_of, copies))
    return BankPart(bank, tuple(shards), replace(layer, n_vectors=n_vectors, n_replicas=len(copies), rounds=rounds))
