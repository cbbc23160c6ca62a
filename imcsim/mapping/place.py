"""A graph and a chip to a plan: split, replicate, assign to rounds."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Literal, TypeVar

import numpy as np

from imcsim.arch.spec import Chip, Tile
from imcsim.arrays import greatest
from imcsim.costs.operating import access_interval_ns
from imcsim.costs.price import price
from imcsim.costs.table import CostTable
from imcsim.errors import MappingError
from imcsim.graph import REAL, Format, Graph, Op, Product
from imcsim.mapping.banks import (
    evenly,
    n_chips_needed,
    pack_banks,
    rate_across_banks,
    relative_rounds_across,
)
from imcsim.mapping.digital import digital_work, is_elementwise, is_on_host, state_bits
from imcsim.mapping.instructions import require_instructions_fit
from imcsim.mapping.packing import (
    RelativeRound,
    Split,
    Tiles,
    accesses_of_block,
    chunks,
    n_banks_for,
    segments,
    shards_of,
)
from imcsim.mapping.plan import LayerPlan, Plan, Round, Shard, Style, places_of
from imcsim.mapping.spread import homes_of, readers_of, with_way
from imcsim.mapping.streams import live_tensors
from imcsim.mapping.written import WITHOUT, with_written_operands

Begin = TypeVar("Begin", int, "np.ndarray")
"""A tile, or an array of one for each variant of the chip."""

Policy = Callable[[list[LayerPlan], Chip, Style], list[Split]]
"""Layers that run on tiles, the chip and the style, to a split for each layer."""


def place(
    graph: Graph, chip: Chip, *, n_samples: int = 1, style: Style | None = None, policy: "Policy | None" = None
) -> Plan:
    """Return *graph* on *chip*, *n_samples* at a time: which shard of which layer lies in which tile in which round.

    *style* says whether all weights are resident and one inference follows the other (spatial), or several are on their
    way at a time (pipelined), or weights are written round by round (temporal). Without a *style* it is spatial if all
    weights fit into the tiles at once, else temporal. The default *policy* is `greatest_rate` for the pipelined style,
    `least_time` for the others. Raises MappingError, naming each layer, for what does not fit.
    """
    require_samples(n_samples)
    graph = with_written_operands(graph, chip)
    layers = [layer_of(op, graph, chip, n_samples) for op in graph.ops]
    on_tiles = [layer for layer in layers if layer.is_on_tiles]
    style = style_of(graph, on_tiles, chip, style)
    on_tiles = [held_in(layer, style) for layer in on_tiles]
    splits = (policy or (greatest_rate if style == "pipelined" else least_time))(on_tiles, chip, style)
    if style != "temporal":
        packed = pack_resident(on_tiles, splits, chip, by_work=style == "pipelined")
        if packed is None:
            raise MappingError(f"{graph.name}: the policy's splits must fit into {chip.name} at once, got more")
    else:
        packed = _pack_rounds(on_tiles, splits, chip)
    placed = {
        layer.name: placed_layer(layer, split, rounds, chip)
        for layer, split, rounds in zip(on_tiles, splits, packed, strict=True)
    }
    spread, off_chip = spread_out([placed.get(layer.name, layer) for layer in layers], graph, chip, style)
    plan = Plan(graph=graph, chip=chip, style=style, n_samples=n_samples, layers=spread, off_chip=off_chip)
    require_instructions_fit(plan)
    return plan


def spread_out(
    layers: list[LayerPlan], graph: Graph, chip: Chip, style: Style
) -> tuple[tuple[LayerPlan, ...], frozenset[str]]:
    """Return placed *layers* with their homes and the banks that take their outputs, and what is off chip."""
    n_samples = layers[0].n_samples if layers else 1
    if chip.all_banks == 1:
        return tuple(layers), off_chip_of(graph, chip, n_samples, style)
    homes = homes_of(layers, graph, chip, style)
    readers = readers_of(layers, graph, chip, style, homes)
    off_chip = frozenset[str]()
    for bank in range(chip.all_banks):
        held = {name for name, banks in readers.items() if bank in banks}
        at_home = {name for name, home in homes.items() if home == bank}
        off_chip |= off_chip_of(graph, chip, n_samples, style, held=held, at_home=at_home)
    outputs = [op.output.name for op in graph.ops]
    spread = [
        with_way(layer, homes[layer.name], readers[name], chip, is_off_chip=name in off_chip)
        for layer, name in zip(layers, outputs, strict=True)
    ]
    return tuple(spread), off_chip


def require_samples(n_samples: int) -> None:
    """Raise MappingError where *n_samples* is no number of samples."""
    if n_samples < 1:
        raise MappingError(f"n_samples: must be at least 1, got {n_samples}")


def style_of(graph: Graph, on_tiles: list[LayerPlan], chip: Chip, style: Style | None) -> Style:
    """Return *style*, or without one spatial where all weights fit at once; raises MappingError where it cannot be."""
    written = [layer.name for layer in on_tiles if layer.is_written]
    if style == "pipelined" and written:
        raise MappingError(
            f"{written[0]}: a product of two activations on tiles must be done before the next inference writes its "
            f"tiles, got pipelined; use spatial or temporal, {WITHOUT}"
        )
    fits = pack_resident(on_tiles, [least_split(layer, chip.tile) for layer in on_tiles], chip) is not None
    if style not in (None, "temporal") and not fits:
        needed = "; ".join(f"{layer.name} {layer.n_cells} cells" for layer in on_tiles)
        capacity = chip.all_tiles * chip.tile.n_rows * chip.tile.n_columns
        n_chips = n_chips_needed(on_tiles, [least_split(layer, chip.tile) for layer in on_tiles], chip)
        others = f", or {n_chips} such chips (n_chips)" if n_chips else ""
        raise MappingError(
            f"{graph.name}: must fit into the {capacity} cells of {chip.name} at once, got {needed}; "
            f"use temporal{others}"
        )
    return style or ("spatial" if fits else "temporal")


def held_in(layer: LayerPlan, style: Style) -> LayerPlan:
    """Return *layer* as *style* holds it: round by round only the kernel that a sample has chosen is written.

    Raises MappingError where several samples, which may choose several, would go round by round.
    """
    if style != "temporal" or layer.n_experts == 1:
        return layer
    if layer.n_samples > 1:
        raise MappingError(
            f"{layer.name}: must take one sample at a time where the kernel it has chosen is written round by round, "
            f"got {layer.n_samples}; use spatial, or one sample"
        )
    return replace(layer, n_experts=1)


def placed_layer(layer: LayerPlan, split: Split, rounds: tuple[Round, ...], chip: Chip) -> LayerPlan:
    """Return *layer* cut by *split* and packed into *rounds*; raises MappingError where its psums have no room."""
    held = tuple(s for round_ in rounds for s in round_.shards if s.group >= layer.n_groups)
    if held:
        rounds = tuple(Round(tuple(s for s in round_.shards if s.group < layer.n_groups)) for round_ in rounds)
    placed = replace(_cut_layer(layer, split, rounds, chip), held=held)
    least = 4 * int(np.max(layer.psum_bits))  # half may keep what waits for a later round; one goes in as one goes out
    if placed.psums_per_output > 1 and chip.psum_buffer.capacity_bits < least:
        raise MappingError(
            f"{layer.name}: the psum buffer of {chip.name} must hold 4 psums ({least} bits), got "
            f"{chip.psum_buffer.capacity_bits} bits; increase psum_buffer.capacity_bits"
        )
    return placed


def _cut_layer(layer: LayerPlan, split: Split, rounds: tuple[Round, ...], chip: Chip) -> LayerPlan:
    """Return *layer* cut by *split* and packed into *rounds*, whether its psums have room or not."""
    return replace(
        layer,
        n_row_chunks=split.n_row_chunks,
        n_row_sums=sum(len(groups) or 1 for *_, groups in chunks(layer, split.n_row_chunks, chip.tile)),
        n_replicas=split.n_replicas,
        rounds=rounds,
    )


def layer_of(op: Op, graph: Graph, chip: Chip, n_samples: int) -> LayerPlan:
    """Return how *op* runs, before it is cut and packed."""
    if op.product is None:
        return LayerPlan(op.name, n_samples)
    product, source, tile = op.product, graph.tensors[op.input].format, chip.tile
    codec = source.codec(tile.serial)
    n_written = n_samples if op.written is not None else 1  # each sample has matrices of its own
    if product.n_planes > tile.n_columns:
        raise MappingError(
            f"{op.name}: the {product.n_planes} weight planes of one output must fit side by side, got a tile of "
            f"{tile.n_columns} columns"
        )
    return LayerPlan(
        op.name,
        n_samples,
        n_vectors=graph.n_vectors(op) * n_samples // n_written,
        n_steps=graph.n_vectors(op) if product.is_recurrent else 0,
        n_groups=product.groups * n_written,
        n_experts=product.n_experts,
        n_rows=product.n_rows,
        row_groups=product.row_groups if product.weights.is_grouped else (),
        n_columns=product.n_columns * product.n_planes,
        n_weight_planes=product.n_planes,
        n_passes=codec.n_planes,
        # near memory the digit of the one row that is read is known, and each word is multiplied by its own level
        accesses_per_pass=2 if graph.is_asymmetric(op) and codec.is_signed and not chip.is_near_memory else 1,
        sense=_sense(product, source, chip),
        bits_per_digit=source.bits_per_digit(tile.serial),
        written_bits=graph.tensors[op.written.other].format.bits if op.written is not None else 0,
        psum_bits=_psum_bits(product, codec.factors, tile),
        digital=tuple((lane, n * n_samples) for lane, n in digital_work(op, graph).items()),
        is_gathered=not is_elementwise(op),
    )


def _sense(product: Product, source: Format, chip: Chip) -> Literal["both", "n", "words"]:
    """What the tiles read of a column."""
    if chip.is_near_memory:
        return "words"
    return "n" if chip.tile.sense == "n" and _is_dense(product, source) else "both"


def _is_dense(product: Product, source: Format) -> bool:
    """Whether every product of the layer is +1 or -1, so that n + k is the number of rows: binary on both sides.

    Asymmetric weights are not: what they weigh differently must be counted apart.
    """
    no_digits = source.high if source.kind == "bases" else 0
    is_padded = product.padding != (0, 0) and product.attrs.pad_value == no_digits
    weights = product.weights
    return source.is_dense and weights.zero_fraction == 0 and not weights.is_asymmetric and not is_padded


def _psum_bits(product: Product, factors: Iterable[float], tile: Tile) -> int:
    """Bits of the largest sum of a psum: every block at its largest count, every pass.

    Passes with real factors add up to real numbers, which take the bits of one beside the count of a pass.
    """
    n_blocks = -(-max(product.row_groups) // tile.rows_per_access)
    factors = tuple(factors)
    largest = n_blocks * min(tile.count_max, tile.rows_per_access)
    if not all(isinstance(factor, int) for factor in factors):
        return max(REAL.bits, (2 * largest * len(factors)).bit_length())
    return int(2 * largest * sum(abs(factor) for factor in factors)).bit_length()


# --- policies ---------------------------------------------------------------------------------------------------


def least_time(layers: list[LayerPlan], chip: Chip, style: Style) -> list[Split]:
    """Cut and replicate so that writing and computing take the least time, by formula.

    Temporal: layer by layer, the split with the least time of writing plus accesses plus reduction. Spatial: tiles
    that are left over go, one doubling after the other, to the layer that takes longest; over many banks in one go.
    """
    if style == "temporal":
        return [min(splits_of(layer, chip), key=lambda s: (time_ns(layer, s, chip), s.n_replicas)) for layer in layers]
    splits = [least_split(layer, chip.tile) for layer in layers]
    if chip.all_banks > 1:
        return time_across_banks(layers, chip) or splits

    offers = [[(split, compute_ns(layer, split, chip)) for split in splits_of(layer, chip)] for layer in layers]
    ns = [compute_ns(layer, split, chip) for layer, split in zip(layers, splits, strict=True)]
    room = _Room(layers, splits, chip)
    while True:
        for i in sorted(range(len(layers)), key=lambda i: -ns[i]):
            better = [offer for offer in offers[i] if offer[1] < ns[i]]
            better.sort(key=lambda offer: (offer[0].n_row_chunks * offer[0].n_replicas, offer[0].n_replicas))
            if better and room.would_fit(i, better[0][0]):
                splits[i], ns[i] = better[0]
                room.replace(i, splits[i])
                break
        else:
            return splits


class _Room:
    """Whether `pack_all` finds room for layers, as the split of one after the other is replaced."""

    def __init__(self, layers: list[LayerPlan], splits: list[Split], chip: Chip) -> None:
        self.layers, self.splits, self.tile = layers, list(splits), chip.tile
        self.sizes = cache(self._sizes)
        self.most = chip.n_tiles * chip.tile.n_blocks * chip.tile.n_columns
        self.filled: list[Tiles | None] = [Tiles(chip)]
        """Tiles before each layer, as far as they were asked for; None where a layer before it finds no room."""

    def _sizes(self, i: int, split: Split) -> list[tuple[int, int]]:
        """Blocks and columns of every shard of a layer."""
        shards = (shard for together in shards_of(self.layers[i], split, self.tile) for shard in together)
        return [(shard.n_blocks(self.tile.rows_per_access), shard.n_columns) for shard in shards]

    def would_fit(self, i: int, split: Split) -> bool:
        """Whether all layers find room with *split* for the *i*-th."""
        sizes = [self.sizes(j, split if j == i else other) for j, other in enumerate(self.splits)]
        if sum(n_blocks * n_columns for layer in sizes for n_blocks, n_columns in layer) > self.most:
            return False
        while len(self.filled) <= i:
            self.filled.append(_with(self.filled[-1], sizes[len(self.filled) - 1]))
        before = self.filled[i]
        if before is None:
            return False
        tiles = before.copy()
        return all(tiles.fill(layer) for layer in sizes[i:])

    def replace(self, i: int, split: Split) -> None:
        self.splits[i] = split
        del self.filled[i + 1 :]


def _with(tiles: Tiles | None, sizes: list[tuple[int, int]]) -> Tiles | None:
    """Return *tiles* with the shards of a further layer, or None where they find no room."""
    copy = tiles and tiles.copy()
    return copy if copy and copy.fill(sizes) else None


def time_across_banks(layers: list[LayerPlan], chip: Chip) -> list[Split] | None:
    """Cut and replicate what is resident in many banks so that the layers that take longest take the least time."""
    splits, _ = evenly(
        layers,
        lambda layer: splits_of(layer, chip),
        lambda layer, split: compute_ns(layer, split, chip),
        lambda splits, _: pack_banks(layers, splits, chip, by_work=False) is not None,
        goes_on=True,
    )
    return splits


def greatest_rate(layers: list[LayerPlan], chip: Chip, style: Style) -> list[Split]:
    """Cut and replicate so that the busiest tile works as little as can be for one inference, all layers together.

    Of the layers on the busiest tile the one that has most work there is copied, or cut where that does not help, as
    long as it helps: copies make no psums, cuts do. What would make only other layers faster is left out. A finer cut
    must not keep the reduce unit busier than the tiles.
    """
    splits = [least_split(layer, chip.tile) for layer in layers]
    if chip.all_banks > 1:
        return rate_across_banks(layers, chip, lambda layer: splits_of(layer, chip)) or splits
    packed = pack_all(layers, splits, chip, by_work=True)
    if packed is None:
        return splits
    while True:
        work = _work_of_tiles(layers, splits, packed, chip)
        least = _rate_key(layers, splits, work, chip)
        there = max(range(chip.n_tiles), key=lambda tile: sum(layer[tile] for layer in work)) if work else 0
        for i in sorted(range(len(layers)), key=lambda i: -work[i][there]):
            trials = [[*splits[:i], split, *splits[i + 1 :]] for split in _finer(layers[i], splits[i], chip)]
            found = []
            for trial in trials:
                if (tried := pack_all(layers, trial, chip, by_work=True)) is not None:
                    key = _rate_key(layers, trial, _work_of_tiles(layers, trial, tried, chip), chip)
                    found.append((key, trial, tried))
            better = min(
                (each for each in found if each[0] < least),
                key=lambda each: (each[1][i].n_row_chunks, each[0]),
                default=None,
            )
            if better is not None:
                _, splits, packed = better
                break
        else:
            return splits


def _finer(layer: LayerPlan, split: Split, chip: Chip) -> Iterator[Split]:
    """Yield the splits of *layer* with the next more chunks, or with twice the copies."""
    for other in splits_of(layer, chip):
        is_copied = other.n_row_chunks == split.n_row_chunks and other.n_replicas == 2 * split.n_replicas
        is_cut = other.n_row_chunks > split.n_row_chunks and other.n_replicas == split.n_replicas
        if is_copied or is_cut:
            yield other


def _work_of_tiles(
    layers: list[LayerPlan], splits: list[Split], packed: list[tuple[Round, ...]], chip: Chip
) -> list[list[float]]:
    """Return for each layer how long each tile works for it in one inference, in ns."""
    tile = chip.tile
    interval = max(access_interval_ns(chip), tile.columns_per_pcu * tile.conversion.interval_ns)
    work = []
    for layer, split, rounds in zip(layers, splits, packed, strict=True):
        of_tile = [0.0] * chip.n_tiles
        for shard in (s for round_ in rounds for s in round_.shards):
            of_tile[shard.tile] += shard.n_blocks(tile.rows_per_access) * accesses_of_block(layer, split) * interval
        work.append(of_tile)
    return work


def _rate_key(layers: list[LayerPlan], splits: list[Split], work: list[list[float]], chip: Chip) -> tuple[float, int]:
    """Return how long the busiest tile, or the reduce unit, works for one inference; then tiles that are as busy."""
    adds = sum(
        layer.n_vectors * layer.n_groups * (split.n_row_chunks - 1) * layer.n_columns
        for layer, split in zip(layers, splits, strict=True)
    )
    of_tile = [sum(layer[tile] for layer in work) for tile in range(chip.n_tiles)]
    most = max(of_tile, default=0.0)
    busiest = max(most, adds / chip.reduce_unit.n_adders * chip.reduce_unit.add.interval_ns)
    return round(busiest, 6), sum(ns > 0.999 * most for ns in of_tile)


def least_energy_delay(layers: list[LayerPlan], chip: Chip, style: Style) -> list[Split]:
    """Cut and replicate so that energy times delay is least, by formula, where weights are written round by round.

    A layer's split changes both totals a little, so what it adds to each counts relative to the total, and the totals
    are those of the splits until then. What is resident anyway is cut as `least_time` does.
    """
    splits = least_time(layers, chip, style)
    if style != "temporal":
        return splits
    costs = price(chip)

    def spent(layer: LayerPlan, split: Split) -> tuple[float, float]:
        time = time_ns(layer, split, chip)
        return time, energy_pJ(layer, split, chip, costs) + costs.leakage_mW * time

    offers = [[(split, *spent(layer, split)) for split in splits_of(layer, chip)] for layer in layers]
    for _ in range(4):  # the totals settle at once
        totals = [spent(layer, split) for layer, split in zip(layers, splits, strict=True)]
        all_ns, all_pJ = sum(time for time, _ in totals), sum(energy for _, energy in totals)
        splits = [
            min(offer, key=lambda o: (o[1] / all_ns + o[2] / (all_pJ or 1.0), o[0].n_replicas))[0] for offer in offers
        ]
    return splits


def as_they_are(layers: list[LayerPlan], chip: Chip, style: Style) -> list[Split]:
    """Cut only where a layer exceeds a tile, and keep one copy of everything."""
    return [least_split(layer, chip.tile) for layer in layers]


def least_split(layer: LayerPlan, tile: Tile) -> Split:
    """Return the split that cuts only where a layer exceeds a tile, in one copy."""
    return Split(-(-layer.n_blocks(tile.rows_per_access) // tile.n_blocks), 1)


def splits_of(layer: LayerPlan, chip: Chip) -> Iterator[Split]:
    """Yield the splits worth trying: as many chunks of rows as blocks allow, as many copies as tiles allow."""
    tile, n_tiles = chip.tile, n_banks_for(layer, chip) * chip.n_tiles
    n_blocks = layer.n_blocks(tile.rows_per_access)
    least = least_split(layer, tile).n_row_chunks
    heights = {-(-n_blocks // n) for n in range(least, n_blocks + 1)}  # blocks of the tallest chunk
    for n_chunks in sorted({-(-n_blocks // height) for height in heights}):
        pieces = layer.n_groups * layer.n_experts * n_chunks * len(segments(layer, tile))
        n_replicas, most = 1, 1 if layer.is_written else layer.n_vectors // max(1, layer.n_steps)
        while n_replicas <= most and (n_replicas == 1 or pieces * n_replicas <= n_tiles):
            yield Split(n_chunks, n_replicas)
            n_replicas *= 2


def compute_ns(layer: LayerPlan, split: Split, chip: Chip) -> float:
    """Return about how long accesses and reduction take; an array where numbers of the chip are arrays."""
    tile, n_banks = chip.tile, n_banks_for(layer, chip)
    interval = greatest(access_interval_ns(chip), tile.columns_per_pcu * tile.conversion.interval_ns)
    n_blocks = layer.n_blocks(tile.rows_per_access)
    pieces = layer.n_groups * split.n_row_chunks * len(segments(layer, tile))
    pieces_per_tile = -(-pieces * split.n_replicas // (n_banks * chip.n_tiles))
    n_together = max(1, layer.n_steps)
    n_vectors = -(-layer.n_vectors // n_together // split.n_replicas) * n_together
    accesses = n_vectors * -(-n_blocks // split.n_row_chunks) * pieces_per_tile
    adds = layer.n_vectors * layer.n_groups * (split.n_row_chunks - 1) * layer.n_columns
    reduce = adds / (n_banks * chip.reduce_unit.n_adders)
    times = (accesses * layer.n_passes * layer.accesses_per_pass * interval, reduce * chip.reduce_unit.add.interval_ns)
    return sum(times) if layer.n_steps else greatest(*times)  # the next time step waits until the last sum is there


def time_ns(layer: LayerPlan, split: Split, chip: Chip) -> float:
    """Return about how long writing and computing take; an array where numbers of the chip are arrays."""
    tile, n_banks = chip.tile, n_banks_for(layer, chip)
    n_chips = -(-n_banks // chip.n_banks)
    pieces = layer.n_groups * split.n_row_chunks * len(segments(layer, tile)) * split.n_replicas
    rows = -(-layer.n_rows // split.n_row_chunks) * -(-pieces // (n_banks * chip.n_tiles))
    cells = layer.n_cells
    write = greatest(
        rows * tile.write_row.latency_ns,
        2 * cells / (n_chips * chip.main_memory.bits_per_ns),
        2 * cells * split.n_replicas / (n_chips * chip.network.bits_per_ns),
    )
    return write + compute_ns(layer, split, chip)


def energy_pJ(layer: LayerPlan, split: Split, chip: Chip, costs: CostTable) -> float:
    """Return the energy of writing, accesses and reduction, without leakage."""
    cut = _cut_layer(layer, split, (), chip)
    cells = layer.n_cells
    accesses = layer.n_vectors * layer.n_passes * layer.accesses_per_pass * layer.n_groups
    accesses *= layer.n_blocks(chip.tile.rows_per_access)
    n_segments = len(segments(layer, chip.tile))
    psums = layer.n_vectors * layer.n_groups * layer.n_outputs * cut.psums_per_output * (cut.psums_per_output > 1)
    words = -(-layer.psum_bits // chip.reduce_unit.adder_bits)
    spent = {
        "main_memory.read": 2 * cells,
        "network.transfer": 2 * cells * split.n_replicas,
        "tile.write_row": layer.n_groups * layer.n_rows * n_segments * split.n_replicas,
        "tile.access": accesses * n_segments,
        "tile.column_read": accesses * layer.n_columns,
        layer.conversion: accesses * layer.n_columns,
        "psum_buffer.write": psums * layer.psum_bits,
        "psum_buffer.read": psums * layer.psum_bits,
        "reduce_unit.add": layer.n_vectors * layer.n_groups * layer.n_outputs * cut.adds_per_output * words,
    }
    return sum(n * costs.energy_pJ(action) for action, n in spent.items())


POLICIES: dict[str, Policy] = {
    "least_time": least_time,
    "as_they_are": as_they_are,
    "least_energy_delay": least_energy_delay,
}
"""The shipped policies by name."""


# --- packing ----------------------------------------------------------------------------------------------------


def pack_resident(
    layers: list[LayerPlan], splits: list[Split], chip: Chip, *, by_work: bool = False
) -> list[tuple[Round, ...]] | None:
    """Return one round a layer, all of them resident together, or None where no way is found to make them fit.

    Spread over the tiles as `pack_all` does, *by_work* where that fits; else as tight as may be.
    """
    if by_work and (packed := pack_all(layers, splits, chip, by_work=True)) is not None:
        return packed
    packed = pack_all(layers, splits, chip)
    return packed if packed is not None or chip.all_banks > 1 else _pack_tightly(layers, splits, chip)


def _pack_tightly(layers: list[LayerPlan], splits: list[Split], chip: Chip) -> list[tuple[Round, ...]] | None:
    """Return the rounds with all shards, the tallest and widest first, each in the first tile with room."""
    tiles, found = Tiles(chip), [list[Shard]() for _ in layers]
    shards = [
        (i, shard)
        for i, (layer, split) in enumerate(zip(layers, splits, strict=True))
        for together in shards_of(layer, split, chip.tile)
        for shard in together
    ]
    shards.sort(key=lambda each: (-each[1].n_blocks(tiles.rows_per_access), -each[1].n_columns))
    for i, shard in shards:
        done = tiles.put(shard, {tile: tile for tile in range(chip.n_tiles)})
        if done is None:
            return None
        found[i].append(done)
    return [(Round(tuple(placed)),) for placed in found]


def pack_all(
    layers: list[LayerPlan], splits: list[Split], chip: Chip, *, by_work: bool = False
) -> list[tuple[Round, ...]] | None:
    """Return one round a layer, all of them resident together, or None where they do not fit.

    A shard goes where its own layer burdens a tile least; *by_work*: where all layers together do, by their accesses.
    """
    if chip.all_banks > 1:
        return pack_banks(layers, splits, chip, by_work=by_work)
    cells = sum(layer.n_cells * split.n_replicas for layer, split in zip(layers, splits, strict=True))
    if cells > chip.n_tiles * chip.tile.n_rows * chip.tile.n_columns:
        return None
    tiles = Tiles(chip)
    rounds: list[tuple[Round, ...]] = []
    for layer, split in zip(layers, splits, strict=True):
        load: dict[int, int] = defaultdict(int)
        placed = []
        for shard in (shard for together in shards_of(layer, split, chip.tile) for shard in together):
            if by_work:
                done = tiles.put(shard, defaultdict(int), work=accesses_of_block(layer, split))
            else:
                done = tiles.put(shard, load)
            if done is None:
                return None
            placed.append(done)
        rounds.append((Round(tuple(placed)),))
    return rounds


def _pack_rounds(layers: list[LayerPlan], splits: list[Split], chip: Chip) -> list[tuple[Round, ...]]:
    """Return the rounds of each layer."""
    packed = []
    first = 0
    for layer, split in zip(layers, splits, strict=True):
        relative = relative_rounds(layer, split, chip)
        *at, first = begins(relative, first, chip.n_tiles)
        packed.append(tuple(_begun(round_, begin, chip.n_tiles) for round_, begin in zip(relative, at, strict=True)))
    return packed


def _begun(round_: RelativeRound, begin: int, n_tiles: int) -> Round:
    if not begin:
        return Round(round_.shards)
    moved = [shard.tile // n_tiles * n_tiles + (shard.tile + begin) % n_tiles for shard in round_.shards]
    return Round(tuple(replace(shard, tile=tile) for shard, tile in zip(round_.shards, moved, strict=True)))


def relative_rounds(layer: LayerPlan, split: Split, chip: Chip) -> list[RelativeRound]:
    """Return the rounds of a layer; each holds whole outputs wherever the tiles suffice for one segment."""
    if chip.all_banks > 1:
        return relative_rounds_across(layer, split, chip)
    rounds: list[RelativeRound] = []
    tiles, load, placed = Tiles(chip), defaultdict[int, int](int), list[Shard]()
    goes_on = False

    def end() -> None:
        rounds.append(RelativeRound(tuple(placed), tuple(sorted({shard.tile for shard in placed})), goes_on))

    for together in shards_of(layer, split, chip.tile):
        if placed and not _fit(tiles, load, together):
            end()
            tiles, load, placed, goes_on = Tiles(chip), defaultdict(int), [], False
        for shard in together:
            done = tiles.put(shard, load)
            if done is None:
                end()
                tiles, load, placed, goes_on = Tiles(chip), defaultdict(int), [], True
                done = tiles.put(shard, load)
                assert done is not None, "a shard is never larger than a tile"
            placed.append(done)
    end()
    return rounds


def begins(rounds: list[RelativeRound], first: Begin, n_tiles: int) -> Iterator[Begin]:
    """Yield the tile that each of *rounds* begins at, the first one at *first*, and then that of the next layer.

    A round begins behind the tiles of the last, so that writing finds tiles at rest.
    """
    for round_, behind in zip(rounds, [*rounds[1:], None], strict=True):
        yield first
        if behind is None:
            first = (first + len(round_.tiles)) % n_tiles
        elif not behind.goes_on:
            first = (greatest(*((first + tile) % n_tiles for tile in round_.tiles)) + 1) % n_tiles
    yield first


def _fit(tiles: Tiles, load: dict[int, int], together: list[Shard]) -> bool:
    """Whether *together* fit into *tiles*, tried on a copy."""
    copy = tiles.copy()
    loads = defaultdict(int, load)
    return all(copy.put(shard, loads) is not None for shard in together)


# --- buffers ----------------------------------------------------------------------------------------------------


def off_chip_of(
    graph: Graph,
    chip: Chip,
    n_samples: int,
    style: Style,
    *,
    held: Collection[str] | None = None,
    at_home: Collection[str] | None = None,
) -> frozenset[str]:
    """Return the tensors that the activation buffer cannot hold: the largest ones of every op that needs too much.

    The state of a recurrent layer lies there too. Pipelined, all layers are at work at once, so that all tensors lie
    there together, those of several inferences.

    The network's inputs always come from main memory, as the codes that the host hands over, and its outputs always
    go there, whence ops that read them fetch them. Of several banks one has a buffer for the tensors *held* and the
    states of the ops *at_home*.
    """
    off_chip = set(graph.outputs)
    off_chip |= {name for op in graph.ops if not is_on_host(op, graph) for name in op.inputs if graph.is_input(name)}
    off_chip |= {op.output.name for op in graph.ops if is_on_host(op, graph)}
    made_at = {tensor.name: -1 for tensor in graph.inputs} | {op.output.name: i for i, op in enumerate(graph.ops)}
    here = {name for name in made_at if held is None or name in held}
    states = [state_bits(op) if at_home is None or op.name in at_home else 0 for op in graph.ops]
    if style == "pipelined":
        places = places_of(graph, style)
        kept = sorted(
            (op.output for op in graph.ops if op.output.name not in off_chip and op.output.name in here),
            key=lambda tensor: (places[tensor.name] * tensor.n_bits, made_at[tensor.name]),
        )
        left = chip.activation_buffer.capacity_bits - sum(states) * n_samples
        while kept and sum(places[tensor.name] * tensor.n_bits for tensor in kept) * n_samples > left:
            off_chip.add(kept.pop().name)
        return frozenset(off_chip)
    for i in range(len(graph.ops)):
        live = [tensor for tensor in live_tensors(graph, i, off_chip) if tensor.name in here]
        live.sort(key=lambda tensor: (tensor.n_bits, made_at[tensor.name]))
        left = chip.activation_buffer.capacity_bits - states[i] * n_samples
        while live and sum(tensor.n_bits for tensor in live) * n_samples > left:
            off_chip.add(live.pop().name)
    return frozenset(off_chip)
