"""How long each layer takes, by formula: a chain of stages takes its slowest stage and what fills and drains it.

Where the numbers of the cost table are arrays, with one element for each variant of the chip, so are all times.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imcsim.analytic.spending import BITS_PER_CELL
from imcsim.arrays import greatest
from imcsim.costs.dram import channels_of
from imcsim.costs.table import CostTable
from imcsim.mapping.instructions import n_instructions, pieces_of
from imcsim.mapping.plan import LayerPlan, Plan, PsumFlow, Round
from imcsim.mapping.streams import room_of_streams


@dataclass(frozen=True)
class Stage:
    """A unit, or equal units side by side, that a layer's vectors stream through."""

    component: str
    n_items: int
    work_ns: float
    """Time that the busiest unit works."""

    lag_ns: float
    """From the moment an item leaves the unit to its result."""

    total_work_ns: float
    """Work of all units together."""

    n_units: int = 1
    action: str = ""
    """What the unit does."""

    share: float = 1.0
    """Share of the unit that it takes: of the ports of a buffer, of the channels of main memory."""

    waits_ns: float = 0.0
    """Least time that its results need because those behind it leave them room for a few at a time."""

    @property
    def occupied_ns(self) -> float:
        """How long it keeps its unit busy, all ports or channels together."""
        return self.work_ns * self.share

    @property
    def passes_ns(self) -> float:
        """How long its items take to pass, where nothing else holds them up."""
        return greatest(self.work_ns, self.waits_ns)

    def with_room(self, room: int | None, *behind: "Stage") -> "Stage":
        """Return the stage with room for *room* of its items, which go through those *behind* before they leave it.

        As many items as there is room for take a turn: their way to the reader. Items that wait for room do so with
        their results, so that what is waited for in all may be the lag of every item.
        """
        if room is None:
            return self
        turn_ns = sum(stage.work_ns / stage.n_items + stage.lag_ns for stage in (self, *behind))
        waits_ns = greatest(0.0, self.n_items / room - 1) * turn_ns
        return replace(
            self, waits_ns=greatest(self.waits_ns, waits_ns), n_units=greatest(self.n_units, self.n_items + 1)
        )


@dataclass(frozen=True)
class Part:
    """A part of the time that a layer adds."""

    component: str
    words: str
    time_ns: float
    stage: Stage | None = None
    """Whose time it is; None where something is waited for."""


@dataclass(frozen=True)
class Passage:
    """What a round of a layer waits for, and the chain that its vectors then stream through."""

    issue_ns: float
    wait_ns: float
    """Until its weights are in their tiles, beyond its instruction."""

    chain: tuple[Stage, ...]
    arrive: tuple[Stage, ...] = ()
    """What brings the layer's inputs meanwhile, ahead of the chain."""

    in_turn_ns: float = 0.0
    """Time of the chain where what its stages do on one unit adds up."""

    beside: tuple["Passage", ...] = ()
    """Ways through other banks at the same time: the longest of all counts."""

    def parts(self) -> list[Part]:
        """Return the parts that its time is the sum of; the numbers of the cost table must not be arrays."""
        ways = [self._parts_alone(), *(other.parts() for other in self.beside)]
        return max(ways, key=lambda parts: sum(part.time_ns for part in parts))

    def _parts_alone(self) -> list[Part]:
        waited = [Part("scheduler", "the instruction", self.issue_ns), Part("tile.write", "the weights", self.wait_ns)]
        found = [*(part for part in waited if part.time_ns), *chain_parts(self.chain)]
        more_ns = self.in_turn_ns - chain_ns(self.chain)
        if more_ns > 0:
            found.append(Part("", "stages that share a unit take it in turn", more_ns))
        arriving = chain_parts((*self.arrive, *self.chain)) if self.arrive else []
        return max(arriving, found, key=lambda parts: sum(part.time_ns for part in parts))


@dataclass(frozen=True)
class LayerTime:
    """The time of one layer."""

    added_ns: float
    """From the end of the layer before to the end of this one."""

    busy_ns: dict[str, float]
    """For each component how long its busiest unit works."""

    held_ns: dict[str, float]
    """For each component how long its busiest unit works and its results take to come out."""

    least_ns: float
    """No order of the work is faster than this."""

    greatest_ns: float
    """All work of all units, one after the other."""

    passages: tuple[Passage, ...] = ()
    """One a round, one after the other."""

    told: tuple[Part, ...] = ()
    """Parts that are told at once, ahead of all passages: those of time steps."""

    def parts(self) -> list[Part]:
        """Return the parts that `added_ns` is the sum of; the numbers of the cost table must not be arrays."""
        found = [*self.told, *(part for passage in self.passages for part in passage.parts())]
        return [part for part in found if part.time_ns]

    @property
    def bound_by(self) -> str:
        """The component whose busiest unit, with the time its results take to come out, holds the layer longest."""
        return max(self.held_ns, key=lambda component: self.held_ns[component])

    def with_loads(self, loads: Sequence[Stage], waited_ns: float) -> "LayerTime":
        """Return the time with the *loads* of its instructions, for which it waits *waited_ns*."""
        busy_ns = sum(load.occupied_ns for load in loads)
        lag_ns = sum(load.lag_ns for load in loads)
        return replace(
            self,
            added_ns=self.added_ns + waited_ns,
            busy_ns=self.busy_ns | {"main_memory": self.busy_ns.get("main_memory", 0.0) + busy_ns},
            held_ns=self.held_ns | {"main_memory": self.held_ns.get("main_memory", 0.0) + busy_ns + lag_ns},
            greatest_ns=self.greatest_ns + sum(alone_ns(load) for load in loads),
            told=(*self.told, Part("main_memory", "until its instructions are loaded", waited_ns)),
        )


def chain_ns(stages: Sequence[Stage]) -> float:
    """Return the time from the first item's start to the last item's result through a chain of *stages*.

    The greatest, over the stages, of what fills those before it, its own work, and what drains those behind it.
    """
    if not stages:
        return 0.0
    fills, drains = _fills_and_drains(stages)
    slowest = greatest(*(sum(fills[:i]) + stage.passes_ns + sum(drains[i + 1 :]) for i, stage in enumerate(stages)))
    return slowest + sum(stage.lag_ns for stage in stages)


def chain_parts(stages: Sequence[Stage]) -> list[Part]:
    """Return the parts that `chain_ns` is the sum of, in the order of the *stages*."""
    if not stages:
        return []
    fills, drains = _fills_and_drains(stages)
    times = [sum(fills[:i]) + stage.passes_ns + sum(drains[i + 1 :]) for i, stage in enumerate(stages)]
    slowest = times.index(max(times))
    found = []
    for i, stage in enumerate(stages):
        if i < slowest:
            words = f"{_n_first(stage, stages[i + 1])} of {stage.n_items} items, until {stages[i + 1].component} begins"
            found.append(Part(stage.component, words, fills[i], stage))
        elif i == slowest:
            words = f"all {stage.n_items} items: the slowest of the chain"
            if stage.waits_ns > stage.work_ns:
                words += ", for they wait for room"
            found.append(Part(stage.component, words, stage.passes_ns, stage))
        else:
            found.append(Part(stage.component, f"the last of {stage.n_items} items", drains[i], stage))
        if stage.lag_ns:
            found.append(Part(stage.component, "results on their way", stage.lag_ns, stage))
    return found


def _fills_and_drains(stages: Sequence[Stage]) -> tuple[list[float], list[float]]:
    """Return what each stage takes until the one behind it can begin, and what it takes for its last item."""
    items = [stage.work_ns / stage.n_items for stage in stages]
    behind = [*stages[1:], None]
    firsts = [_n_first(stage, next_) if next_ is not None else 1 for stage, next_ in zip(stages, behind, strict=True)]
    return [n * item for n, item in zip(firsts, items, strict=True)], items


def _n_first(stage: Stage, behind: Stage) -> int:
    """Return how many items of *stage* the first item of the one *behind* it is made of."""
    return -(-stage.n_items // behind.n_items)


def in_turn_ns(stages: Sequence[Stage]) -> float:
    """Return the time through *stages* where the work of those on one unit adds up; 0 where none share a unit."""
    at_of: dict[str, list[int]] = {}
    for i, stage in enumerate(stages):
        at_of.setdefault(stage.component, []).append(i)
    longest = [0.0]
    for at in at_of.values():
        if len(at) > 1:
            outside = (*stages[: at[0]], *stages[at[-1] + 1 :])
            items = sum(stage.work_ns / stage.n_items for stage in outside)
            longest.append(items + sum(stages[i].occupied_ns for i in at))
    return greatest(*longest) + sum(stage.lag_ns for stage in stages) if len(longest) > 1 else 0.0


def sampled_ns(chain: Sequence[Stage]) -> float:
    """Return the time until the last access of a round is sampled.

    It does not begin before the PCUs have begun on the one before it.
    """
    array, pcus = chain[-2], chain[-1]
    held = chain_ns(chain) - pcus.lag_ns - 2 * pcus.work_ns / pcus.n_items + array.work_ns / array.n_items
    return greatest(chain_ns(chain[:-1]), held if array.n_items > 1 else 0.0)


class Clock:
    """Walks a plan layer by layer; remembers when each tile, and main memory, is free."""

    def __init__(self, plan: Plan, costs: CostTable) -> None:
        self.plan, self.costs = plan, costs
        self.now_ns = 0.0
        self.tile_free_ns = [0.0] * plan.chip.all_tiles
        self.memory_free_ns = 0.0

    def stage(
        self, component: str, action: str, n_items: int, count: float, *, n_units: int = 1, total: float | None = None
    ) -> Stage:
        """Return a stage that does *action* *count* times in its busiest unit, *total* times in all."""
        timing = self.costs.timings[action]
        total = count if total is None else total
        interval_ns, share = timing.interval_ns, 1 / self.costs.servers.get(action, 1)
        if component == "main_memory":
            memory = self.plan.chip.main_memory
            share = channels_of(count, memory.n_channels, memory.interleave.piece_bits) / memory.n_channels
            interval_ns = interval_ns / share
        return Stage(
            component,
            n_items,
            count * interval_ns,
            greatest(0.0, timing.latency_ns - timing.interval_ns),
            total * interval_ns,
            n_units,
            action,
            share,
        )

    def loads(self, layer: LayerPlan) -> list[Stage]:
        """Return the loading of the instructions of *layer*, piece by piece, where they do not stay in their memory."""
        bits = self.plan.chip.scheduler.entry.width_bits
        return [self.stage("main_memory", "main_memory.read", n, n * bits) for n in pieces_of(self.plan, layer)]

    def load_wait_ns(self, layer: LayerPlan, *, is_first: bool) -> float:
        """Return how long *layer* waits for its instructions.

        The first layer waits for its first piece; all others come while instructions before them are at work. Where not
        even those of the layer fit into the memory, it waits for every piece, of which two may be under way.
        """
        first, *others = (alone_ns(load) for load in self.loads(layer))
        n_entries = self.plan.chip.scheduler.n_entries
        exceeds = n_instructions(self.plan, layer) > n_entries
        return (first if is_first else 0.0) + sum(others, 0.0) * exceeds / min(n_entries, 2)

    def wait_for_gate(self, layer: LayerPlan) -> None:
        """Keep main memory from writing the kernel that *layer* uses before the layers ahead have chosen it."""
        if self.plan.style == "temporal" and self.plan.op_of[layer.name].gate is not None:
            issue = self.stage("scheduler", "scheduler.issue", 1, 1)
            self.memory_free_ns = greatest(self.memory_free_ns, self.now_ns + alone_ns(issue))

    def free_ns(self, round_: Round) -> float:
        """Return when the last of the tiles of *round_* is free."""
        return greatest(*(self.tile_free_ns[tile] for tile in round_.tiles))

    def hold(self, round_: Round, until_ns: float) -> None:
        """Keep the tiles of *round_* until *until_ns*."""
        for tile in round_.tiles:
            self.tile_free_ns[tile] = until_ns

    def delay(self, rounds: Sequence[Round], by_ns: float) -> None:
        """Let the tiles of *rounds* be free later by *by_ns*."""
        for tile in {tile for round_ in rounds for tile in round_.tiles}:
            self.tile_free_ns[tile] = self.tile_free_ns[tile] + by_ns

    def layer(self, layer: LayerPlan) -> LayerTime:
        """Return the time of the next layer."""
        plan = self.plan
        start = self.now_ns
        self.wait_for_gate(layer)
        op = plan.op_of[layer.name]
        n_items = layer.n_items
        tensors = [plan.graph.tensors[name] for name in op.streamed]
        stages: list[list[Stage]] = []  # chains, one after the other
        passages: list[Passage] = []
        arrive: list[Stage] = []
        room = room_of_streams(plan, layer)
        for tensor in dict.fromkeys(tensors):
            if tensor.name in plan.off_chip:
                bits = tensor.n_bits * layer.n_samples
                fill = self.stage("activation_buffer.write", "activation_buffer.write", n_items, bits)
                arrive += [self.stage("main_memory", "main_memory.read", n_items, bits).with_room(room, fill), fill]
        side = [
            self.stage("activation_buffer.read", "activation_buffer.read", n_items, tensor.n_bits * layer.n_samples)
            for i, tensor in enumerate(tensors)
            if i > 0 or not layer.is_on_tiles
        ]
        issue = self.stage("scheduler", "scheduler.issue", 1, 1)
        chains = [self._round(layer, round_) for round_ in layer.rounds]
        flows = plan.psum_flows(layer) if layer.psums_per_output > 1 else []
        written: list[list[Stage]] = []
        if plan.writes_cells(layer):
            written = [self._write(layer, round_) for round_ in layer.rounds]
        tail = self._tail(layer, n_items, room)
        if arrive:  # the input comes while the weights do; they share main memory
            self.memory_free_ns = greatest(self.memory_free_ns, start + sum(s.occupied_ns for s in arrive[::2]))
        for r, chain in enumerate(chains):
            last = r == len(chains) - 1
            sums = self._sums(layer, layer.rounds[r], flows[r] if flows else None)
            full = [*chain, *sums, *(tail if last else [])]
            begin = self.now_ns + alone_ns(issue)
            if written:
                begin = greatest(begin, self._written_ns(layer, layer.rounds[r], written[r]))
            arrived = self.now_ns + chain_ns([*arrive, *full]) if arrive and r == 0 else 0.0
            waited = begin - self.now_ns - alone_ns(issue)
            in_turn = in_turn_ns(full)
            passages.append(Passage(alone_ns(issue), waited, tuple(full), tuple(arrive if r == 0 else []), in_turn))
            self.now_ns = greatest(begin + greatest(chain_ns(full), in_turn), arrived)
            drain = chain_ns(full) - sampled_ns(chain)
            self.hold(layer.rounds[r], self.now_ns - drain)
            stages.append([*(arrive if r == 0 else []), *full])
        if not chains:
            full = [*arrive, *side, *tail]
            self.now_ns = self.now_ns + alone_ns(issue) + chain_ns(full)
            passages.append(Passage(alone_ns(issue), 0.0, tuple(full)))
            stages.append(full)
        else:
            stages.append(side)
        busy: dict[str, float] = {}
        for stage in (stage for chain in stages for stage in chain):
            busy[stage.component] = busy.get(stage.component, 0.0) + stage.occupied_ns
        told = self.finish(start + alone_ns(issue), busy.values())
        return replace(self._sum_up(layer, start, stages, written, issue), passages=tuple(passages), told=told)

    def finish(self, begin_ns: float, busy_ns: Iterable[float]) -> tuple[Part, ...]:
        """Let the layer that began at *begin_ns* end no sooner than its units have done their work; tell the wait.

        A unit that several of its streams share does one of them after the other: a buffer that is read for the tiles,
        for the sums' other operand and for main memory.
        """
        waited_ns = greatest(0.0, begin_ns + greatest(0.0, *busy_ns) - self.now_ns)
        self.now_ns = self.now_ns + waited_ns
        return (Part("", "until the busiest unit has done all its work", waited_ns),)

    def _sum_up(
        self, layer: LayerPlan, start: float, chains: list[list[Stage]], written: list[list[Stage]], issue: Stage
    ) -> LayerTime:
        busy: dict[str, float] = {}
        held: dict[str, float] = {}
        for stage in (stage for chain in [*chains, *written] for stage in chain):
            busy[stage.component] = busy.get(stage.component, 0.0) + stage.occupied_ns
            held[stage.component] = held.get(stage.component, 0.0) + stage.occupied_ns + stage.lag_ns
        everything = [stage for chain in [*chains, *written] for stage in chain]
        n_issues = 2 * len(layer.rounds) + 2 + len(self.plan.lane_work(layer))
        in_turn = sum(s.total_work_ns + s.n_units * s.lag_ns for s in everything) + n_issues * alone_ns(issue)
        # A layer's sums flow only after the layer before has stored its own: the longest stage of each round counts.
        least = sum(greatest(0.0, *(s.work_ns for s in chain)) for chain in chains[: max(1, len(layer.rounds))])
        return LayerTime(self.now_ns - start, busy, held, least, in_turn)

    def _round(self, layer: LayerPlan, round_: Round) -> list[Stage]:
        """Read inputs, access blocks, convert."""
        chip, tile = self.plan.chip, self.plan.chip.tile
        accesses, taken = np.zeros((2, self.plan.chip.n_tiles), dtype=np.int64)
        for shard, (n_asked, n_taken) in zip(round_.shards, layer.accesses(round_, tile.rows_per_access), strict=True):
            accesses[shard.tile % len(accesses)] += n_asked
            taken[shard.tile % len(taken)] += n_taken
        n_items, n_tiles = int(accesses.max()), int(np.count_nonzero(accesses))
        most, total = int(taken.max()), int(taken.sum())
        inputs = {(shard.group, shard.row_start, shard.row_stop) for shard in round_.shards}
        digits = sum(stop - start for _, start, stop in inputs) * layer.n_passes * layer.n_vectors
        bits, carries = digits * layer.bits_per_digit, self.plan.chip.network.carries
        chain = [self.stage("activation_buffer.read", "activation_buffer.read", layer.n_vectors, bits)]
        if "inputs" in carries:
            chain.append(self.stage("network", "network.transfer", layer.n_vectors, bits))
        if "tile.select" in self.costs.timings:
            chain.append(self.stage("tile.decoder", "tile.select", n_items, most, n_units=n_tiles, total=total))
        return [
            *chain,
            self.stage("tile.array", "tile.access", n_items, most, n_units=n_tiles, total=total),
            self.stage(f"tile.{chip.converter}", chip.conversion, n_items, most, n_units=n_tiles, total=total),
        ]

    def _sums(self, layer: LayerPlan, round_: Round, flow: PsumFlow | None) -> list[Stage]:
        """Hand the sums of the tiles out; add up what is complete where an output takes several, as *flow* says."""
        sent = []
        if "psums" in self.plan.chip.network.carries:
            n_items = layer.n_vectors * (flow.parts_per_vector if flow is not None else 1)
            bits = sum(map(layer.psums_of, round_.shards)) * layer.psum_bits
            sent.append(self.stage("network", "network.transfer", n_items, bits, n_units=n_items))
        return [*sent, *(self._reduce(layer, flow) if flow is not None else [])]

    def _reduce(self, layer: LayerPlan, flow: PsumFlow) -> list[Stage]:
        """Put psums aside, in main memory what the buffer cannot keep, and add up those that are complete."""
        n_items = layer.n_vectors * flow.parts_per_vector
        bits = flow.n_written * layer.psum_bits
        chain = [self.stage("psum_buffer.write", "psum_buffer.write", n_items, bits).with_room(flow.room)]
        if np.any(flow.spilt_bits):
            chain.append(self._spill("main_memory.write", n_items, flow.spilt_bits))
        if not flow.n_read:
            return chain
        chain[-1] = chain[-1].with_room(flow.room)
        if np.any(flow.fetched_bits):
            chain.append(self._spill("main_memory.read", n_items, flow.fetched_bits))
        words = -(-layer.psum_bits // self.plan.chip.reduce_unit.adder_bits)
        adds = flow.n_outputs * layer.adds_per_output * words
        return [
            *chain,
            self.stage("psum_buffer.read", "psum_buffer.read", n_items, flow.n_read * layer.psum_bits),
            self.stage("reduce_unit", "reduce_unit.add", n_items, adds),
        ]

    def _spill(self, action: str, n_items: int, bits: int) -> Stage:
        """Return what main memory does for psums; where the *bits* are an array, variants without any have no lag."""
        stage = self.stage("main_memory", action, n_items, bits)
        return replace(stage, lag_ns=stage.lag_ns * (np.asarray(bits) > 0)) if isinstance(bits, np.ndarray) else stage

    def _tail(self, layer: LayerPlan, n_items: int, room: int | None) -> list[Stage]:
        """The lanes, and where the output goes; *room*: items of it that the buffer holds on their way to memory."""
        output = self.plan.op_of[layer.name].output
        bits = output.n_bits * layer.n_samples
        tail = [self.stage(f"sfu.{lane}", f"sfu.{lane}", n_items, n) for lane, n in self.plan.lane_work(layer).items()]
        if "outputs" in self.plan.chip.network.carries:
            tail.append(self.stage("network", "network.transfer", n_items, bits))
        tail.append(self.stage("activation_buffer.write", "activation_buffer.write", n_items, bits))
        if output.name in self.plan.off_chip:
            spill = self.stage("activation_buffer.read", "activation_buffer.read", n_items, bits)
            tail[-1:] = [tail[-1].with_room(room, spill), spill]
            tail.append(self.stage("main_memory", "main_memory.write", n_items, bits))
        return tail

    def _write(self, layer: LayerPlan, round_: Round) -> list[Stage]:
        """Weights of one round: main memory or buffer, network, rows."""
        rows_of_tile = np.zeros(self.plan.chip.n_tiles, dtype=np.int64)
        rows = cells = copies = 0
        for shard in round_.shards:
            rows_of_tile[shard.tile % len(rows_of_tile)] += shard.n_rows
            copies += shard.n_rows * shard.n_columns
            if layer.is_first(shard):
                rows += shard.n_rows
                cells += shard.n_rows * shard.n_columns
        most = int(rows_of_tile.max())
        bits, action = cells * BITS_PER_CELL, self.plan.source_of_cells(layer)
        if layer.is_written:
            bits = cells // layer.n_weight_planes * layer.written_bits
        return [
            self.stage("main_memory" if action == "main_memory.read" else action, action, max(1, rows), bits),
            self.stage("network", "network.transfer", max(1, rows), copies * BITS_PER_CELL),
            self.stage("tile.write", "tile.write_row", most, most, n_units=len(round_.tiles),
                       total=int(rows_of_tile.sum())),
        ]  # fmt: skip

    def _written_ns(self, layer: LayerPlan, round_: Round, stages: list[Stage]) -> float:
        """Return when the weights of a round are in their tiles; what layers before make is not there sooner."""
        free = self.free_ns(round_) if self.plan.chip.double_buffered else self.now_ns
        if layer.is_written:
            free = greatest(free, self.now_ns)
        issue, is_from_memory = self.stage("scheduler", "scheduler.issue", 1, 1), stages[0].component == "main_memory"
        begin = free + alone_ns(issue)
        if is_from_memory:
            begin = greatest(begin, self.memory_free_ns)
            self.memory_free_ns = begin + stages[0].occupied_ns
        return begin + chain_ns(stages)


def alone_ns(stage: Stage) -> float:
    """Return the time of a stage by itself, its results included."""
    return stage.work_ns + stage.lag_ns
