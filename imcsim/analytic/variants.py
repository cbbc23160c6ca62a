"""Time, energy and area of one network on very many variants of a chip, by the formulas of `estimate`.

The formulas are those of `imcsim.costs` and `imcsim.analytic`, with arrays in the place of numbers. Plans differ from
variant to variant: variants are taken together as far as they share tiles and buffers, and then, layer by layer, as far
as they share the split.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from imcsim.analytic.counts import count_work
from imcsim.analytic.recurrent import layer_time
from imcsim.analytic.timing import Clock
from imcsim.arch.load import checked_values, load_chip, vary, wrong_values
from imcsim.arch.spec import Chip
from imcsim.arrays import numbered, refined
from imcsim.costs.operating import AS_STATED, access_interval_ns, access_latency_ns, relative
from imcsim.costs.price import price
from imcsim.costs.rows import dynamic_energy_pJ
from imcsim.errors import ConfigError, ImcsimError, MappingError
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
from imcsim.mapping.spread import dealt_out, parts_of_sums
from imcsim.mapping.written import with_written_operands

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

SELECT = "tile.block_select.latency_ns"
"""Where it is 0, tiles have no such stage: variants with one and variants without are placed apart."""

UNUSED = (
    *(f"circuit.{record}" for record in ("variation", "comparator", "occupancy")),
    "figures",
    "tile.imperfections",
    "tile.resistive",
)
"""Records of a chip that no time, energy or area follows from; of the circuit what varies alone says how it reads."""

FOLLOWED = ("circuit", "tile.access.operating_point")
"""Records that energies and times of the tile may follow (`imcsim.costs.operating`)."""


@dataclass(frozen=True, eq=False)
class Variants:
    """What the formulas say of one inference on each variant: arrays (n), NaN where it has no figures.

    The figures of a variant are the same bits whichever others stand beside it.
    """

    latency_ns: Floats
    energy_pJ: Floats
    area_um2: Floats

    n_plans: int
    """How many different plans the variants have."""

    keeps_splits: bool
    """Whether the splits are those of a given plan; otherwise `least_time` has chosen them for each variant."""

    n_samples: int
    """Samples that one inference takes together."""

    messages: tuple[str | None, ...]
    """Why a variant has no figures, in one line (n); None where it has them."""

    @cached_property
    def throughput_per_s(self) -> Floats:
        """Samples a second, one inference after the other; 0 where the chip has nothing to do."""
        with np.errstate(divide="ignore"):
            return np.where(self.latency_ns == 0, 0.0, self.n_samples * (1e9 / self.latency_ns))

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
    failures: Literal["raise", "keep"] = "raise",
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
        failures: What becomes of a variant whose values the chip cannot have, or that the network does not fit: raise
            the first such error, or keep them all in `Variants.messages` and go on with the others.

    Raises:
        ConfigError: Where a key is not one that the chip can have, or the style is pipelined; where a value is not one
            that the chip can have, and *failures* are raised.
        MappingError: Where the network does not fit a variant, and *failures* are raised.
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
    require_samples(n_samples)
    base = chip if isinstance(chip, Chip) else load_chip(chip)
    arrays, left, failed = _arrays(changes, is_kept=failures == "keep")
    _require_keys(base, arrays)
    figures, n_plans = np.full((3, failed.n), np.nan), 0
    for shaped, at in _shapes(base, arrays, left, failed):
        rest = {key: values[at] for key, values in arrays.items() if key not in SHAPE}
        try:
            group = _Group(graph, *_settled(shaped, rest, len(at)), len(at), n_samples, style, splits)
            figures[:, left[at]] = group.estimate()
            for among, error in group.failed:
                failed.note(left[at[among]], error)
        except (ConfigError, MappingError) as error:
            failed.note(left[at], error)
        else:
            n_plans += group.n_plans
    latency_ns, energy_pJ, area_um2 = figures
    messages = tuple(failed.messages)
    return Variants(latency_ns, energy_pJ, area_um2, n_plans, splits is not None, n_samples, messages)


# --- what the user gave -----------------------------------------------------------------------------------------


class _Failed:
    """What became of variants that have no figures."""

    def __init__(self, n: int, *, is_kept: bool) -> None:
        self.n, self.is_kept = n, is_kept
        self.messages: list[str | None] = [None] * n

    def note(self, at: Iterable[int], error: ImcsimError) -> None:
        """Keep *error* for those of the variants *at* that have none yet, or raise it."""
        if not self.is_kept:
            raise error
        for i in at:
            self.messages[i] = self.messages[i] or str(error)


def _arrays(changes: Mapping[str, ArrayLike], *, is_kept: bool) -> tuple[Arrays, Indices, _Failed]:
    """Return *changes* as arrays, checked one by one, for those variants whose values pass, and which ones these are.

    What is wrong with the others is kept or raised.
    """
    if not changes:
        raise ConfigError("changes: must name at least one key of the chip, got none")
    given = {key: np.asarray(values) for key, values in changes.items()}
    first, n = next(iter(given)), next(iter(given.values())).size
    for key, values in given.items():
        if any(f"{key}.".startswith(f"{record}.") for record in UNUSED):
            raise ConfigError(f"{key}: must be a key that time, energy or area follow from, got one that none does")
        if values.ndim != 1 or not values.size:
            raise ConfigError(f"{key}: must be one value for each variant (n), got an array of shape {values.shape}")
        if len(values) != n:
            raise ConfigError(f"{key}: must have as many values as {first} ({n}), got {len(values)}")
    failed = _Failed(n, is_kept=is_kept)
    if is_kept:
        for key, values in given.items():
            for i, what in wrong_values(key, values.tolist()).items():
                failed.note([i], ConfigError(f"{key}: {what}"))
    left = np.flatnonzero([message is None for message in failed.messages])
    arrays = {key: np.asarray(checked_values(key, values[left].tolist())) for key, values in given.items()}
    for key, values in arrays.items():
        if key not in SHAPE and len(left) and values.dtype.kind not in "if":
            raise ConfigError(
                f"{key}: must be numbers, got {values[0].item()!r}; texts have no part in time, energy and area"
            )
    return arrays, left, failed


def _suits(base: Chip, arrays: Arrays) -> list[str]:
    """Return the keys among *arrays* whose values must suit each other.

    These are the keys in `SHAPE`, and some that change no plan: PCUs must suit the columns, and what a near-memory chip
    has not must suit its kind.
    """
    sizes = ("rows_per_access", "count_max")
    kind = ("tile.count_max", "tile.conversion.adc_fraction", *(f"tile.access.characterized_at.{s}" for s in sizes))
    return [key for key in arrays if key in SHAPE or key == "tile.n_pcus" or (base.is_near_memory and key in kind)]


def _require_keys(base: Chip, arrays: Arrays) -> None:
    """Raise ConfigError where the chip lacks the record of a key, or its kind the key."""
    for key in arrays:
        if getattr(base, key.partition(".")[0]) is None or (
            key.startswith(f"{FOLLOWED[1]}.") and base.tile.access.operating_point is None
        ):
            raise ConfigError(
                f"{key}: must be a key of {base.name}, got one of a record that it lacks; describe it there"
            )
    others = {*_suits(base, arrays), *_of_circuit(arrays)}
    vary(base, {key: values[0].item() for key, values in arrays.items() if len(values) and key not in others})


def _shapes(base: Chip, arrays: Arrays, left: Indices, failed: _Failed) -> Iterator[tuple[Chip, Indices]]:
    """Yield a chip for each distinct combination of the keys in `SHAPE`, with the variants that have it.

    Every combination of values that must suit each other is checked first; *failed* gets those that do not.
    """
    suits, does_suit = _suits(base, arrays), np.ones(len(left), dtype=bool)
    for at in _alike([arrays[key] for key in suits], np.arange(len(left))):
        try:
            vary(base, {key: arrays[key][at[0]].item() for key in suits})
        except ConfigError as error:
            failed.note(left[at], error)
            does_suit[at] = False
    circuit = _of_circuit(arrays)
    clashing = np.flatnonzero(does_suit & _may_clash(with_arrays(base, {key: arrays[key] for key in circuit}), left))
    for at in _alike([arrays[key] for key in circuit], clashing):
        try:
            vary(base, {key: arrays[key][at[0]].item() for key in circuit})
        except ConfigError as error:
            failed.note(left[at], error)
            does_suit[at] = False
    apart = [values > 0 if key == SELECT else values for key, values in arrays.items() if key in (*SHAPE, SELECT)]
    for at in _alike(apart, np.flatnonzero(does_suit)):
        yield vary(base, {key: arrays[key][at[0]].item() for key in suits}), at


def _of_circuit(arrays: Arrays) -> list[str]:
    """Return the keys among *arrays* that say where the circuit stands, and what must suit it."""
    times = ("tile.access.latency_ns", "tile.access.interval_ns")
    return [key for key in arrays if key.startswith(tuple(f"{record}." for record in FOLLOWED)) or key in times]


def _may_clash(chip: Chip, left: Indices) -> NDArray[np.bool_]:
    """Return which variants (n) have a circuit whose numbers may not suit each other; `vary` then says whether."""
    circuit = chip.circuit
    if circuit is None:
        return np.zeros(len(left), dtype=bool)
    overdrive_V = np.maximum(circuit.discharge.precharge_V - circuit.path.threshold_V, 0.0)
    knee_V = circuit.discharge.saturation_V * overdrive_V ** (circuit.path.alpha / 2)
    wrong = (overdrive_V <= 0) | (circuit.path.modulation_per_V * knee_V > 0.799)
    least_ns = np.minimum(access_latency_ns(chip), access_interval_ns(chip))
    return np.broadcast_to(wrong | (least_ns <= 1e-6), len(left))


def _settled(chip: Chip, arrays: Arrays, n: int) -> tuple[Chip, Arrays]:
    """Return *chip* and the *arrays* of *n* variants of it with the energies and times that follow its circuit.

    What is returned follows it no more: they are worked out once, not for every layer.
    """
    varied = with_arrays(chip, arrays)
    access, found = varied.tile.access, relative(varied)
    arrays = {key: values for key, values in arrays.items() if not key.startswith(tuple(f"{r}." for r in FOLLOWED))}
    settled = _with(chip, ("tile", "access", "operating_point"), None)
    if found is AS_STATED:
        return settled, arrays
    followed = {
        "tile.access.bitlines.energy_pJ": access.bitlines.energy_pJ * found.bitlines,
        "tile.access.wordlines.energy_pJ": access.wordlines.energy_pJ * found.wordlines,
        "tile.write_row.energy_pJ": varied.tile.write_row.energy_pJ * found.write_row,
        "tile.access.latency_ns": access_latency_ns(varied),
        "tile.access.interval_ns": access_interval_ns(varied),
    }
    arrays |= {key: np.array(np.broadcast_to(values, n)) for key, values in followed.items()}
    return settled, arrays


def _alike(columns: Sequence[NDArray[Any]], among: Indices) -> list[Indices]:
    """Return those of the variants *among* that agree in all *columns*, group by group."""
    if not len(among):
        return []
    group = np.zeros(len(among), dtype=np.int64)
    for values in columns:
        group = refined(group, numbered(values[among])[1])
    return [among[at] for at in parts_of(group, int(group.max()) + 1)]


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
        graph = with_written_operands(graph, chip)
        self.graph, self.chip, self.arrays, self.n, self.n_samples = graph, chip, arrays, n, n_samples
        self.layers = [self._with_psums(layer_of(op, graph, chip, n_samples)) for op in graph.ops]
        self.on_tiles = [layer for layer in self.layers if layer.is_on_tiles]
        self.style = style_of(graph, self.on_tiles, chip, style)
        self.layers = [held_in(layer, self.style) for layer in self.layers]
        self.on_tiles = [layer for layer in self.layers if layer.is_on_tiles]
        self.off_chip = self._off_chip()
        self.splits = None if splits is None else [self._kept(layer, splits[layer.name]) for layer in self.on_tiles]
        self.n_plans = 0
        self.failed: list[tuple[Indices, MappingError]] = []
        self.now_ns, self.memory_free_ns = np.zeros(n), np.zeros(n)
        self.tile_free_ns = np.zeros((chip.n_tiles, n))
        self.latency_ns, self.energy_pJ = np.zeros(n), np.zeros(n)
        self.n_instructions, self.load_wait_ns = np.zeros(n, dtype=np.int64), np.zeros(n)

    def estimate(self) -> Floats:
        """Return latency, energy and area (figure n) of every variant; `failed` then says which have none, and why."""
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
        figures = np.array([self.latency_ns, energy_pJ, np.broadcast_to(costs.area_um2, self.n)])
        for at, _ in self.failed:
            figures[:, at] = np.nan
        return figures

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
            for layer, split in zip(self.on_tiles, splits, strict=True):
                at = self._with_room(layer, split, at)
            if not len(at):
                continue
            placed = {
                layer.name: placed_layer(_of_variants(layer, at), split, rounds, self.chip)
                for layer, split, rounds in zip(self.on_tiles, splits, packed, strict=True)
            }
            all_layers = [placed.get(layer.name, layer) for layer in self.layers]
            spread, self.off_chip = spread_out(all_layers, self.graph, self.chip, self.style)
            for layer in spread:
                self._add(layer, at, Clock)
            self.n_plans += 1

    def _temporal(self) -> None:
        """Walk layer by layer, once for each split of the layer.

        Variants with one split differ in the tile that the layer begins at. Packing looks at tiles by their distance
        from there, so all else about their rounds is the same.
        """
        everywhere = np.arange(self.n)
        choices = (
            temporal_choices(self.on_tiles, self._chip_of(everywhere), self.n)
            if self.splits is None
            else [Choice([split], np.zeros(self.n, dtype=np.int64)) for split in self.splits]
        )
        choice_of = {layer.name: choice for layer, choice in zip(self.on_tiles, choices, strict=True)}
        first, plans = np.zeros(self.n, dtype=np.int64), np.zeros(self.n, dtype=np.int64)
        for layer in self.layers:
            if not layer.is_on_tiles:
                self._add(self._dealt_out(layer), everywhere, Clock)
                continue
            choice = choice_of[layer.name]
            plans = refined(plans, choice.of_variant)
            for split, at in zip(choice.splits, parts_of(choice.of_variant, len(choice.splits)), strict=True):
                at = self._with_room(layer, split, at)
                if len(at):
                    rounds, first[at] = self._pack(layer, split, first[at])
                    placed = placed_layer(_of_variants(layer, at), split, rounds, self.chip)
                    self._add(self._dealt_out(placed), at, _SharedClock)
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

    def _with_room(self, layer: LayerPlan, split: Split, at: Indices) -> Indices:
        """Return those of the variants *at* whose psums have room; `failed` gets the others."""
        if not isinstance(layer.psum_bits, np.ndarray):
            return at  # all have room, or none: then placing the layer says so
        fits, of_these = np.ones(len(at), dtype=bool), layer.psum_bits[at]
        for bits in np.unique(of_these)[::-1]:  # where the widest have room, all have
            try:
                placed_layer(replace(layer, psum_bits=int(bits)), split, (), self.chip)
                break
            except MappingError as error:
                has_these = of_these == bits
                self.failed.append((at[has_these], error))
                fits &= ~has_these
        return at[fits]

    def _add(self, layer: LayerPlan, at: Indices, kind: type[Clock]) -> None:
        """Add time and energy of *layer*, which is that of the variants *at*."""
        plan = Plan(self.graph, self._chip_of(at), self.style, self.n_samples, (layer,), self.off_chip)
        if plan.is_on_host(layer):
            return
        parts = _by_spills(plan, layer, len(at))
        for part in parts if len(parts) > 1 else ():
            self._add(_of_variants(layer, part), at[part], kind)
        if len(parts) > 1:
            return
        costs = price(plan.chip)
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


def _of_variants(layer: LayerPlan, at: Indices) -> LayerPlan:
    """Return *layer* for the variants *at* of those that it is for."""
    rounds = tuple(
        replace(round_, held=round_.held[:, at]) if isinstance(round_, _SharedRound) else round_
        for round_ in layer.rounds
    )
    bits = layer.psum_bits[at] if isinstance(layer.psum_bits, np.ndarray) else layer.psum_bits
    return replace(layer, rounds=rounds, psum_bits=bits)


def _by_spills(plan: Plan, layer: LayerPlan, n: int) -> list[Indices]:
    """Return which of *n* variants are alike in what *layer* does: psums that spill take stages of their own."""
    everywhere = np.arange(n)
    if not isinstance(layer.psum_bits, np.ndarray) or layer.psums_per_output == 1 or len(layer.rounds) == 1:
        return [everywhere]
    step = layer.one_step if layer.n_steps else layer
    adding = [part.layer for part in parts_of_sums(step, plan.chip)] if plan.chip.all_banks > 1 else [step]
    flows = [flow for each in adding for flow in plan.psum_flows(each)]
    moved = [bits for flow in flows for bits in (flow.spilt_bits, flow.fetched_bits)]
    return _alike([np.broadcast_to(np.asarray(bits) > 0, n) for bits in moved], everywhere)
