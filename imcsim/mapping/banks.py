"""Layers and the banks that they fill, where a chip has several, or there are several chips.

What is resident fills one bank after the other, so that layers which feed each other are neighbours: a layer that does
not fit into what is left of a bank goes on in the next one, copy by copy and segment by segment, so that psums need
not cross; only where that leaves too little room, or pipelined too much work, shard by shard. Pipelined, a bank takes
no more work than keeps all banks about as busy. Round by round (temporal), the outputs of a layer are dealt out to
all banks.

Some layers stay within one bank (`stays_together`): a recurrent one, since its codes go round in every time step, and
one whose digital steps need sums of several outputs or vectors at a time, unless a single copy of it exceeds a bank.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import inf

from imcsim.arch.spec import Chip
from imcsim.costs.operating import access_interval_ns, access_latency_ns
from imcsim.mapping.packing import (
    RelativeRound,
    Split,
    Tiles,
    accesses_of_block,
    n_banks_for,
    segments,
    shards_of,
    stays_together,
)
from imcsim.mapping.plan import LayerPlan, Round, Shard

Rounds = list[tuple[Round, ...]]

_HOW = ((True, False), (False, False), (False, True))
"""Whether psums stay within banks, and whether banks are gone back to: one after the other, until all layers fit."""

_STEPS = 12
"""Halvings in the search for the least work that a bank must take."""


def pack_banks(layers: Sequence[LayerPlan], splits: Sequence[Split], chip: Chip, *, by_work: bool) -> Rounds | None:
    """Return one round a layer, all of them resident together, or None where they do not fit.

    *by_work*: the bank and the tile that are busiest work as little as the order of the layers allows.
    """
    cells = sum(layer.n_cells * split.n_replicas for layer, split in zip(layers, splits, strict=True))
    if cells > chip.all_tiles * chip.tile.n_rows * chip.tile.n_columns:
        return None

    packed = ((how, _Filling(chip, inf, by_work=by_work).all(layers, splits, *how)) for how in _HOW)
    fitting = ((how, rounds) for how, rounds in packed if rounds is not None)
    if not by_work:
        return next((rounds for _, rounds in fitting), None)
    best, least_ns = None, inf
    for how, found in fitting:
        if best is not None and how == _HOW[2]:
            break
        low, high = 0.0, sum(max(work_ns(layer, chip).values()) for layer in layers) * chip.n_tiles
        for _ in range(_STEPS):
            middle = (low + high) / 2
            trial = _Filling(chip, middle, by_work=True).all(layers, splits, *how)
            if trial is None:
                low = middle
            else:
                found, high = trial, middle
        if high < least_ns:
            best, least_ns = found, high
    return best


def evenly(
    layers: Sequence[LayerPlan],
    offers: Callable[[LayerPlan], Iterable[Split]],
    time_ns: Callable[[LayerPlan, Split], float],
    fits: Callable[[list[Split], float], bool],
    *,
    goes_on: bool = False,
) -> tuple[list[Split] | None, float]:
    """Cut and replicate so that the layer that takes longest takes as little as can be; None where nothing fits.

    Of the *offers* for a layer it gets the smallest one that takes no longer, by *time_ns*, than all may take; *fits*
    is told the splits and that time, which is returned too. *goes_on*: where a layer cannot be as fast, others may be.
    """
    times = [
        {
            s: time_ns(layer, s)
            for s in sorted(offers(layer), key=lambda s: (s.n_row_chunks * s.n_replicas, s.n_replicas))
        }
        for layer in layers
    ]
    fastest = [min(offer.values()) for offer in times]
    least_ns = 0.0 if goes_on else max(fastest, default=0.0)
    limits = sorted({ns for offer in times for ns in offer.values() if ns >= least_ns})
    found, low, high = None, 0, len(limits)
    while low < high:
        middle = (low + high) // 2
        splits = [
            next(s for s, ns in offer.items() if ns <= max(limits[middle], least))
            for offer, least in zip(times, fastest, strict=True)
        ]
        if fits(splits, limits[middle]):
            found, high = splits, middle
        else:
            low = middle + 1
    return found, limits[high] if found is not None else inf


def rate_across_banks(
    layers: list[LayerPlan], chip: Chip, offers: Callable[[LayerPlan], Iterable[Split]]
) -> list[Split] | None:
    """Cut and replicate so that the busiest tile and the busiest bank work as little as can be for one inference."""

    best, least_ns = None, inf
    for how in _HOW[:2]:

        def fits(splits: list[Split], most_ns: float, how: tuple[bool, bool] = how) -> bool:
            return _Filling(chip, most_ns, by_work=True).all(layers, splits, *how) is not None

        found, most_ns = evenly(layers, offers, lambda layer, split: shard_ns(layer, split, chip), fits)
        if most_ns < least_ns:
            best, least_ns = found, most_ns
    return best


def n_chips_needed(layers: Sequence[LayerPlan], splits: Sequence[Split], chip: Chip) -> int | None:
    """Return how many such chips hold all layers at once; None where no number of them does.

    That is where a layer that stays together is larger than a bank.
    """
    if any(_Filling(chip, inf, by_work=False).all([layer], [split], *_HOW[0]) is None
           for layer, split in zip(layers, splits, strict=True) if stays_together(layer, chip)):  # fmt: skip
        return None
    cells = sum(layer.n_cells for layer in layers)
    n = max(1, -(-cells // (chip.n_banks * chip.n_tiles * chip.tile.n_rows * chip.tile.n_columns)))
    while pack_banks(layers, splits, chip.model_copy(update={"n_chips": n}), by_work=False) is None:
        n += 1
    return n


def work_ns(layer: LayerPlan, chip: Chip) -> dict[str, float]:
    """Return how long the kinds of units of one bank work for a whole layer in one inference, its tiles on average."""
    tile, port = chip.tile, chip.activation_buffer.read
    passes = layer.n_vectors * layer.n_passes * layer.n_groups
    accesses = passes * layer.accesses_per_pass * layer.n_blocks(tile.rows_per_access) * len(segments(layer, tile))
    return {
        "tile": accesses * _access_ns(chip) / chip.n_tiles,
        "activation_buffer.read": passes * layer.n_rows * layer.bits_per_digit / port.bits_per_ns,
        **{
            f"sfu.{lane}": n * getattr(chip.sfu, lane).operation.interval_ns / getattr(chip.sfu, lane).n_lanes
            for lane, n in layer.digital
        },
    }


def shard_ns(layer: LayerPlan, split: Split, chip: Chip) -> float:
    """Return how long a tile works for the largest shard of a layer in one inference."""
    n_blocks = -(-layer.n_blocks(chip.tile.rows_per_access) // split.n_row_chunks)
    return n_blocks * accesses_of_block(layer, split) * _access_ns(chip)


def _access_ns(chip: Chip) -> float:
    tile = chip.tile
    latency_ns, interval_ns = access_latency_ns(chip), access_interval_ns(chip)
    return max(latency_ns, interval_ns, tile.columns_per_pcu * tile.conversion.interval_ns)


def _pieces(layer: LayerPlan, split: Split, chip: Chip) -> Iterator[list[Shard]]:
    """Yield the shards whose psums are added, copy by copy; those of a layer that stays together as one."""
    by_output = _by_output(layer, split, chip)
    yield from [[shard for piece in by_output for shard in piece]] if stays_together(layer, chip) else by_output


def _by_output(layer: LayerPlan, split: Split, chip: Chip) -> Iterator[list[Shard]]:
    """Yield the shards whose psums are added, copy by copy."""
    groups, n = list(shards_of(layer, split, chip.tile)), split.n_row_chunks
    for replica in range(split.n_replicas):
        for together in groups:
            yield together[replica * n : (replica + 1) * n]


class _Filling:
    """Banks that fill up, each up to a time that its units work."""

    def __init__(self, chip: Chip, most_ns: float, *, by_work: bool) -> None:
        self.chip, self.most_ns, self.by_work = chip, most_ns, by_work
        self.banks = [Tiles(chip) for _ in range(chip.all_banks)]
        self.busy_ns = [Counter[str]() for _ in self.banks]
        self.most = most_ns / _access_ns(chip) if most_ns < inf else None

    def all(
        self, layers: Sequence[LayerPlan], splits: Sequence[Split], is_whole: bool, is_anywhere: bool
    ) -> Rounds | None:
        """Return the rounds of all layers or None; *is_whole*: no psums cross; *is_anywhere*: it goes back to banks."""
        rounds: Rounds = []
        at = 0
        for layer, split in zip(layers, splits, strict=True):
            loads = [defaultdict[int, int](int) for _ in self.banks]
            work = work_ns(layer, self.chip) if self.by_work else {}
            placed, is_one = list[Shard](), stays_together(layer, self.chip)
            for piece in _pieces(layer, split, self.chip):
                for part in [piece] if is_whole or is_one else [[shard] for shard in piece]:
                    for bank in range(0 if is_anywhere else at, len(self.banks)):
                        if (done := self.put(part, bank, loads[bank], layer, split, work)) is not None:
                            placed += done
                            at = bank
                            break
                    else:
                        return None
            rounds.append((Round(tuple(placed)),))
        return rounds

    def put(
        self, part: list[Shard], bank: int, load: dict[int, int], layer: LayerPlan, split: Split, work: dict[str, float]
    ) -> list[Shard] | None:
        """Place *part* of a layer in *bank*, all of it or nothing."""
        share = sum(s.n_rows * s.n_columns for s in part) / (layer.n_cells * split.n_replicas)
        busy = self.busy_ns[bank]
        if busy and any(busy[unit] + share * ns > self.most_ns for unit, ns in work.items()):
            return None
        tiles = self.banks[bank]
        if len(part) > 1:
            tiles = tiles.copy()
        placed = []
        trial = load if len(part) == 1 else defaultdict(int, load)
        for shard in part:
            if self.by_work:
                done = tiles.put(shard, defaultdict(int), accesses_of_block(layer, split), self.most)
            else:
                done = tiles.put(shard, trial)
            if done is None:
                return None
            placed.append(replace(done, tile=bank * self.chip.n_tiles + done.tile))
        self.banks[bank] = tiles
        load.update(trial)
        for unit, ns in work.items():
            busy[unit] += share * ns  # type: ignore[assignment]
        return placed


def relative_rounds_across(layer: LayerPlan, split: Split, chip: Chip) -> list[RelativeRound]:
    """Return the rounds of a layer whose outputs are dealt out to all banks, or stay together in bank 0.

    What fits nowhere begins a new round; psums cross only where the shards of an output are more than a bank holds.
    """
    banks = [Tiles(chip) for _ in range(n_banks_for(layer, chip))]
    loads = [defaultdict[int, int](int) for _ in banks]
    rounds, placed, goes_on = list[RelativeRound](), list[Shard](), False

    def put(part: list[Shard]) -> bool:
        for bank in sorted(range(len(banks)), key=lambda bank: sum(loads[bank].values())):
            tiles, load = banks[bank].copy(), defaultdict(int, loads[bank])
            done = [tiles.put(shard, load) for shard in part]
            if all(done):
                banks[bank], loads[bank] = tiles, load
                placed.extend(replace(s, tile=bank * chip.n_tiles + s.tile) for s in done if s is not None)
                return True
        return False

    def end() -> None:
        tiles = tuple(sorted({shard.tile % chip.n_tiles for shard in placed}))
        rounds.append(RelativeRound(tuple(placed), tiles, goes_on))
        placed.clear()
        for bank in range(len(banks)):
            banks[bank], loads[bank] = Tiles(chip), defaultdict(int)

    for piece in _by_output(layer, split, chip):
        if put(piece):
            continue
        if placed:
            end()
            goes_on = False
            if put(piece):
                continue
        for shard in piece:
            if not put([shard]):
                end()
                goes_on = True
                put([shard])
    end()
    return rounds
