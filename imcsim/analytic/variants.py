"""Time, energy and area of one network on very many variants of a chip, by the formulas of `estimate`.

The formulas are those of `imcsim.costs` and `imcsim.analytic`, with arrays in the place of numbers. Plans differ from
variant to variant: variants are taken together as far as they share tiles and buffers, and then, layer by layer, as far
as they share the split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcsim.analytic.counts import count_work
from imcsim.analytic.recurrent import layer_time
from imcsim.analytic.timing import Clock
from imcsim.arch.load import checked_values, load_chip, vary
from imcsim.arch.spec import Chip
from imcsim.costs.price import price
from imcsim.costs.rows import dynamic_energy_pJ
from imcsim.errors import ConfigError, MappingError
from imcsim.graph import Graph
from imcsim.mapping.instructions import n_instructions
from imcsim.mapping.many import Choice, Indices, parts_of, spatial_choices, temporal_choices
from imcsim.mapping.place import (
    Split,
    as_they_are,
    begins,
    held_in,
    layer_of,
    least_split,
    off_chip_of,
    pack_resident,
    place,
    placed_layer,
    relative_rounds,
    require_samples,
    spread_out,
    style_of,
)
from imcsim.mapping.plan import LayerPlan, Plan, Round, Style
from imcsim.mapping.spread import dealt_out

Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
"""Dotted key to the values that the variants have (n)."""

SHAPE = (
    "n_tiles",
    "n_banks",
    "n_chips",
    "bank_link.topology",
    "chip_link.topology",
    "double_buffered",
    "tile.n_rows",
    "tile.n_columns",
    "tile.rows_per_access",
    "tile.serial",
    "tile.sense",
    "activation_buffer.capacity_bits",
    "psum_buffer.capacity_bits",
    "scheduler.n_entries",
    *(f"{buffer}.{way}.n_ports" for buffer in ("activation_buffer", "psum_buffer") for way in ("read", "write")),
)
"""Keys that say what there is to place and where it fits: variants that differ in them are placed apart."""

UNUSED = ("circuit", "figures", "tile.imperfections", "tile.resistive")
"""Records of a chip that no time, energy or area follows from."""


@dataclass(frozen=True, eq=False)
class Variants:
    """What the formulas say of one inference on each variant: arrays (n)."""

    latency_ns: Floats
    energy_pJ: Floats
    area_um2: Floats

    n_plans: int
    """How many different plans the variants have."""

    keeps_splits: bool
    """Whether the splits are those of a given plan; otherwise `least_time` has chosen them for each variant."""

    @cached_property
    def edp(self) -> Floats:
        """Energy times delay, in pJ ns."""
        return self.energy_pJ * self.latency_ns


def estimate_variants(
    workload: Plan | Graph,
    chip: Chip | str,
    changes: Mapping[str, ArrayLike],
    *,
    n_samples: int | None = None,
    style: Style | None = None,
) -> Variants:
    """Return latency, energy and area of one inference on every variant of *chip*.

    With a graph each variant has what ``estimate(place(graph, variant, ...))`` gives: `least_time` chooses the splits
    for it. With a plan the variants keep its splits, style and samples, whatever would be better for them, and have
    what ``estimate(place(plan.graph, variant, policy=those splits, ...))`` gives; only the tiles are packed anew.
    Variants with different tiles or buffers (the keys in `SHAPE`) are placed apart, so each such combination costs as
    much as some ten single estimates; all other keys cost next to nothing.

    Args:
        workload: The network, or how it is placed on a chip like these.
        chip: The chip that is changed: a chip, or the name or path of one.
        changes: Dotted key to the values that the variants have (n), as `load_chip` takes them one by one.
        n_samples: How many samples an inference takes together, with a graph; 1 by default.
        style: spatial or temporal, with a graph; by default spatial where all weights fit at once.

    Raises:
        ConfigError: Where a key or a value is not one that the chip can have.
        MappingError: Where the network does not fit a variant.
    """
    splits = None
    if isinstance(workload, Plan):
        if n_samples is not None or style is not None:
            raise ConfigError("estimate_variants: n_samples and style must come from the plan, got them beside it")
        splits = {layer.name: Split(layer.n_row_chunks, layer.n_replicas) for layer in workload.layers}
        graph, n_samples, style = workload.graph, workload.n_samples, workload.style
    else:
        graph, n_samples = workload, 1 if n_samples is None else n_samples
    if style == "pipelined":
        raise ConfigError(
            "estimate_variants: style must be spatial or temporal, got pipelined; its policy takes one chip"
        )
    base = chip if isinstance(chip, Chip) else load_chip(chip)
    arrays, n = _arrays(changes)
    for key in arrays:
        if getattr(base, key.partition(".")[0]) is None:
            raise ConfigError(
                f"{key}: must be a key of {base.name}, got one of a record that it lacks; describe it there"
            )
    vary(base, {key: values[0].item() for key, values in arrays.items()})  # its kind may lack it
    latency_ns, energy_pJ, area_um2, n_plans = np.zeros(n), np.zeros(n), np.zeros(n), 0
    for shaped, at in _shapes(base, arrays, n):
        rest = {key: values[at] for key, values in arrays.items() if key not in SHAPE}
        group = _Group(graph, shaped, rest, len(at), n_samples, style, splits)
        latency_ns[at], energy_pJ[at], area_um2[at] = group.estimate()
        n_plans += group.n_plans
    return Variants(latency_ns, energy_pJ, area_um2, n_plans, keeps_splits=splits is not None)


# --- what the user gave -----------------------------------------------------------------------------------------


def _arrays(changes: Mapping[str, ArrayLike]) -> tuple[Arrays, int]:
    """Return *changes* as arrays, checked one by one, and their length."""
    if not changes:
        raise ConfigError("changes: must name at least one key of the chip, got none")
    arrays: Arrays = {}
    for key, values in changes.items():
        if any(f"{key}.".startswith(f"{record}.") for record in UNUSED):
            raise ConfigError(f"{key}: must be a key that time, energy or area follow from, got one that none does")
        given = np.asarray(values)
        if given.ndim != 1 or not given.size:
            raise ConfigError(f"{key}: must be one value for each variant (n), got an array of shape {given.shape}")
        arrays[key] = np.asarray(checked_values(key, given.tolist()))
        if key not in SHAPE and arrays[key].dtype.kind not in "if":
            raise ConfigError(f"{key}: must be numbers, got {given[0]!r}; texts have no part in time, energy and area")
        first = next(iter(arrays))
        if len(given) != len(arrays[first]):
            raise ConfigError(f"{key}: must have as many values as {first} ({len(arrays[first])}), got {len(given)}")
    return arrays, len(given)


def _shapes(base: Chip, arrays: Arrays, n: int) -> Iterator[tuple[Chip, Indices]]:
    """Yield a chip for each distinct combination of the keys in `SHAPE`, with the variants that have it.

    Some keys change no plan, but must suit the others: PCUs the columns, and what a near-memory chip has not its kind.
    Every combination of these is checked.
    """
    keys = [key for key in arrays if key in SHAPE]
    kind = ("tile.count_max", "tile.conversion.adc_fraction") if base.is_near_memory else ()
    suits = [key for key in (*keys, "tile.n_pcus", *kind) if key in arrays]
    for at in _alike(arrays, suits, n):
        vary(base, {key: arrays[key][at[0]].item() for key in suits})
    for at in _alike(arrays, keys, n):
        yield vary(base, {key: arrays[key][at[0]].item() for key in suits}), at


def _alike(arrays: Arrays, keys: Sequence[str], n: int) -> list[Indices]:
    """Return the variants that agree in all *keys*, group by group."""
    group = np.zeros(n, dtype=np.int64)
    for key in keys:
        group = _refined(group, np.unique(arrays[key], return_inverse=True)[1])
    return parts_of(group, int(group.max()) + 1)


def _refined(group: Indices, by: Indices) -> Indices:
    """Return numbers for the groups that *group* falls into where each is parted by *by*."""
    return np.unique(group * (int(by.max()) + 1) + by, return_inverse=True)[1]


def with_arrays(chip: Chip, arrays: Arrays) -> Chip:
    """Return *chip* with *arrays* in the place of numbers; unchecked, for formulas alone."""
    for key, values in arrays.items():
        chip = _with(chip, key.split("."), values)
    return chip


def _with(record: Any, path: Sequence[str], value: object) -> Any:
    first, *rest = path
    return record.model_copy(update={first: _with(getattr(record, first), rest, value) if rest else value})


# --- variants of one shape --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _SharedRound(Round):
    """A round that the variants run in different tiles."""

    held: NDArray[np.bool_]
    """Which tiles each variant uses: (tile, n)."""


class _SharedClock(Clock):
    """A clock for variants that run their rounds in different tiles, otherwise alike: `tile_free_ns` is (tile, n)."""

    def free_ns(self, round_: Round) -> Any:
        return np.where(_held(round_), self.tile_free_ns, -np.inf).max(axis=0)

    def hold(self, round_: Round, until_ns: Any) -> None:
        self.tile_free_ns = np.where(_held(round_), until_ns, self.tile_free_ns)  # type: ignore[assignment]

    def delay(self, rounds: Sequence[Round], by_ns: Any) -> None:
        held = np.logical_or.reduce([_held(round_) for round_ in rounds])
        self.tile_free_ns = np.where(held, self.tile_free_ns + by_ns, self.tile_free_ns)  # type: ignore[assignment]


def _held(round_: Round) -> NDArray[np.bool_]:
    assert isinstance(round_, _SharedRound)
    return round_.held


class _Group:
    """Variants that share tiles and buffers, and so the style and the splits to choose from."""

    def __init__(
        self,
        graph: Graph,
        chip: Chip,
        arrays: Arrays,
        n: int,
        n_samples: int,
        style: Style | None,
        splits: Mapping[str, Split] | None,
    ) -> None:
        require_samples(n_samples)
        self.graph, self.chip, self.arrays, self.n, self.n_samples = graph, chip, arrays, n, n_samples
        self.layers = [self._with_psums(layer_of(op, graph, chip, n_samples)) for op in graph.ops]
        self.on_tiles = [layer for layer in self.layers if layer.is_on_tiles]
        self.style = style_of(graph, self.on_tiles, chip, style)
        self.layers = [held_in(layer, self.style) for layer in self.layers]
        self.on_tiles = [layer for layer in self.layers if layer.is_on_tiles]
        self.off_chip = self._off_chip()
        self.splits = None if splits is None else [self._kept(layer, splits[layer.name]) for layer in self.on_tiles]
        self.n_plans = 0
        self.now_ns, self.memory_free_ns = np.zeros(n), np.zeros(n)
        self.tile_free_ns = np.zeros((chip.n_tiles, n))
        self.latency_ns, self.energy_pJ = np.zeros(n), np.zeros(n)
        self.n_instructions, self.load_wait_ns = np.zeros(n, dtype=np.int64), np.zeros(n)

    def estimate(self) -> tuple[Floats, Floats, Floats]:
        """Return latency, energy and area of every variant."""
        if self.style == "spatial":
            self._spatial()
        else:
            self._temporal()
        chip = self._chip_of(np.arange(self.n))
        costs = price(chip)
        is_loaded = self.n_instructions > chip.scheduler.n_entries
        bits = is_loaded * self.n_instructions * chip.scheduler.entry.width_bits
        self.energy_pJ += bits * costs.energy_pJ("main_memory.read")
        self.latency_ns += is_loaded * self.load_wait_ns
        energy_pJ = self.energy_pJ + costs.leakage_mW * self.latency_ns
        return self.latency_ns, energy_pJ, np.broadcast_to(costs.area_um2, self.n)

    def _chip_of(self, at: Indices) -> Chip:
        return with_arrays(self.chip, {key: values[at] for key, values in self.arrays.items()})

    def _with_psums(self, layer: LayerPlan) -> LayerPlan:
        """Return *layer* with the psum bits of each variant, which follow from how far its ADCs count."""
        counts = self.arrays.get("tile.count_max")
        if counts is None or not layer.is_on_tiles:
            return layer
        op = next(op for op in self.graph.ops if op.name == layer.name)
        told_apart, of_variant = np.unique(np.minimum(counts, self.chip.tile.rows_per_access), return_inverse=True)
        bits = [
            layer_of(op, self.graph, _with(self.chip, ("tile", "count_max"), int(count)), self.n_samples).psum_bits
            for count in told_apart
        ]
        return replace(layer, psum_bits=np.array(bits)[of_variant])  # type: ignore[arg-type]

    def _kept(self, layer: LayerPlan, split: Split) -> Split:
        """Return the *split* of the given plan, if it suits these tiles."""
        tile = self.chip.tile
        least, most = least_split(layer, tile).n_row_chunks, layer.n_blocks(tile.rows_per_access)
        if not least <= split.n_row_chunks <= most:
            raise MappingError(
                f"{layer.name}: the plan's row chunks must be from {least} to {most} in tiles of {tile.n_rows} rows "
                f"and blocks of {tile.rows_per_access}, got {split.n_row_chunks}; give the graph in place of the plan"
            )
        return split

    def _off_chip(self) -> frozenset[str]:
        """Return what is off chip, whatever the splits; of what is resident over several banks they decide."""
        if self.chip.all_banks == 1:
            return off_chip_of(self.graph, self.chip, self.n_samples, self.style)
        if self.style == "temporal":
            placed = place(self.graph, self.chip, n_samples=self.n_samples, style="temporal", policy=as_they_are)
            return placed.off_chip
        return frozenset()

    def _dealt_out(self, layer: LayerPlan) -> LayerPlan:
        """Return a *layer* that is not resident with the banks that its output goes to."""
        return layer if self.chip.all_banks == 1 else dealt_out(layer, self.graph, self.chip, self.off_chip)

    # the walk through the layers

    def _spatial(self) -> None:
        """Walk once for each distinct answer of the policy; nothing is written, so no tile is waited for."""
        everywhere = np.arange(self.n)
        kept = None if self.splits is None else [(self.splits, everywhere)]
        for splits, at in kept or spatial_choices(self.on_tiles, self._chip_of(everywhere), self.n):
            packed = pack_resident(self.on_tiles, splits, self.chip)
            if packed is None:
                raise MappingError(
                    f"{self.graph.name}: the plan's splits must fit into {self.chip.name} at once, got more"
                )
            placed = {
                layer.name: placed_layer(layer, split, rounds, self.chip)
                for layer, split, rounds in zip(self.on_tiles, splits, packed, strict=True)
            }
            chip = self._chip_of(at)
            all_layers = [placed.get(layer.name, layer) for layer in self.layers]
            spread, self.off_chip = spread_out(all_layers, self.graph, self.chip, self.style)
            for layer in spread:
                self._add(layer, at, chip, Clock)
            self.n_plans += 1

    def _temporal(self) -> None:
        """Walk layer by layer, once for each split of the layer.

        Variants with one split differ in the tile that the layer begins at. Packing looks at tiles by their distance
        from there, so all else about their rounds is the same.
        """
        everywhere = np.arange(self.n)
        whole = self._chip_of(everywhere)
        choices = (
            temporal_choices(self.on_tiles, whole, self.n)
            if self.splits is None
            else [Choice([split], np.zeros(self.n, dtype=np.int64)) for split in self.splits]
        )
        choice_of = {layer.name: choice for layer, choice in zip(self.on_tiles, choices, strict=True)}
        first, plans = np.zeros(self.n, dtype=np.int64), np.zeros(self.n, dtype=np.int64)
        for layer in self.layers:
            if not layer.is_on_tiles:
                self._add(self._dealt_out(layer), everywhere, whole, Clock)
                continue
            choice = choice_of[layer.name]
            plans = _refined(plans, choice.of_variant)
            for split, at in zip(choice.splits, parts_of(choice.of_variant, len(choice.splits)), strict=True):
                if len(at):
                    rounds, first[at] = self._pack(layer, split, first[at])
                    placed = self._dealt_out(placed_layer(layer, split, rounds, self.chip))
                    self._add(placed, at, self._chip_of(at), _SharedClock)
        self.n_plans = int(plans.max()) + 1

    def _pack(self, layer: LayerPlan, split: Split, first: Indices) -> tuple[tuple[Round, ...], Indices]:
        """Return the rounds of variants that begin at the tiles *first* (n), and where their next layer begins."""
        relative, n_tiles = relative_rounds(layer, split, self.chip), self.chip.n_tiles
        *at, behind = begins(relative, first, n_tiles)
        shared = []
        for round_, begin in zip(relative, at, strict=True):
            held = np.zeros((n_tiles, len(first)), dtype=bool)
            for tile in round_.tiles:
                held[(begin + tile) % n_tiles, np.arange(len(first))] = True
            shared.append(_SharedRound(round_.shards, held))
        return tuple(shared), behind

    def _add(self, layer: LayerPlan, at: Indices, chip: Chip, kind: type[Clock]) -> None:
        """Add time and energy of *layer* on the variants *at*, which *chip* describes."""
        if isinstance(layer.psum_bits, np.ndarray):
            layer = replace(layer, psum_bits=layer.psum_bits[at])
        plan = Plan(self.graph, chip, self.style, self.n_samples, (layer,), self.off_chip)
        if plan.is_on_host(layer):
            return
        costs = price(chip)
        clock = kind(plan, costs)
        clock.now_ns, clock.memory_free_ns = self.now_ns[at], self.memory_free_ns[at]  # type: ignore[assignment]
        if kind is _SharedClock:
            clock.tile_free_ns = self.tile_free_ns[:, at]  # type: ignore[assignment]
        self.latency_ns[at] += layer_time(clock, layer).added_ns
        self.energy_pJ[at] += dynamic_energy_pJ(count_work(plan), costs)
        self.load_wait_ns[at] += clock.load_wait_ns(layer, is_first=not self.n_instructions[at].any())
        self.n_instructions[at] += n_instructions(plan, layer)
        self.now_ns[at], self.memory_free_ns[at] = clock.now_ns, clock.memory_free_ns
        if kind is _SharedClock:
            self.tile_free_ns[:, at] = clock.tile_free_ns
