"""How long each layer takes, by formula: a chain of stages takes its slowest stage and what fills and drains it.

Where the numbers of the cost table are arrays, with one element for each variant of the chip, so are all times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from imcsim.analytic.counts import BITS_PER_CELL
from imcsim.arrays import greatest
from imcsim.costs.table import CostTable
from imcsim.mapping.plan import LayerPlan, Plan, PsumFlow, Round


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

    def parts(self) -> list[Part]:
        """Return the parts that its time is the sum of; the numbers of the cost table must not be arrays."""
        waited = [Part("scheduler", "the instruction", self.issue_ns), Part("tile.write", "the weights", self.wait_ns)]
        found = [*(part for part in waited if part.time_ns), *chain_parts(self.chain)]
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
    """Parts that are told at once: those of time steps."""

    def parts(self) -> list[Part]:
        """Return the parts that `added_ns` is the sum of; the numbers of the cost table must not be arrays."""
        return [*(part for passage in self.passages for part in passage.parts()), *self.told]

    @property
    def bound_by(self) -> str:
        """The component whose busiest unit, with the time its results take to come out, holds the layer longest."""
        return max(self.held_ns, key=lambda component: self.held_ns[component])


def chain_ns(stages: Sequence[Stage]) -> float:
    """Return the time from the first item's start to the last item's result through a chain of *stages*.

    The greatest, over the stages, of what fills those before it, its own work, and what drains those behind it.
    """
    if not stages:
        return 0.0
    fills, drains = _fills_and_drains(stages)
    slowest = greatest(*(sum(fills[:i]) + stage.work_ns + sum(drains[i + 1 :]) for i, stage in enumerate(stages)))
    return slowest + sum(stage.lag_ns for stage in stages)


def chain_parts(stages: Sequence[Stage]) -> list[Part]:
    """Return the parts that `chain_ns` is the sum of, in the order of the *stages*."""
    if not stages:
        return []
    fills, drains = _fills_and_drains(stages)
    times = [sum(fills[:i]) + stage.work_ns + sum(drains[i + 1 :]) for i, stage in enumerate(stages)]
    slowest = times.index(max(times))
    found = []
    for i, stage in enumerate(stages):
        if i < slowest:
            words = f"{_n_first(stage, stages[i + 1])} of {stage.n_items} items, until {stages[i + 1].component} begins"
            found.append(Part(stage.component, words, fills[i], stage))
        elif i == slowest:
            found.append(
                Part(stage.component, f"all {stage.n_items} items: the slowest of the chain", stage.work_ns, stage)
            )
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


def sampled_ns(chain: Sequence[Stage]) -> float:
    """Return the time until the last access of a round is sampled.

    It does not begin before the PCUs have begun on the one before it.
    """
    array, pcus = chain[1], chain[2]
    held = chain_ns(chain) - pcus.lag_ns - 2 * pcus.work_ns / pcus.n_items + array.work_ns / array.n_items
    return greatest(chain_ns(chain[:2]), held if array.n_items > 1 else 0.0)


class Clock:
    """Walks a plan layer by layer; remembers when each tile, and main memory, is free."""

    def __init__(self, plan: Plan, costs: CostTable) -> None:
        self.plan, self.costs = plan, costs
        self.now_ns = 0.0
        self.tile_free_ns = [0.0] * plan.chip.n_tiles
        self.memory_free_ns = 0.0

    def stage(
        self, component: str, action: str, n_items: int, count: float, *, n_units: int = 1, total: float | None = None
    ) -> Stage:
        """Return a stage that does *action* *count* times in its busiest unit, *total* times in all."""
        timing = self.costs.timings[action]
        total = count if total is None else total
        return Stage(
            component,
            n_items,
            count * timing.interval_ns,
            greatest(0.0, timing.latency_ns - timing.interval_ns),
            total * timing.interval_ns,
            n_units,
            action,
        )

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
        op = plan.op_of[layer.name]
        n_items = max(layer.n_vectors, layer.n_samples)
        tensors = [plan.graph.tensors[name] for name in op.inputs]
        stages: list[list[Stage]] = []  # chains, one after the other
        passages: list[Passage] = []
        arrive: list[Stage] = []
        for tensor in dict.fromkeys(tensors):
            if tensor.name in plan.off_chip:
                bits = tensor.n_bits * layer.n_samples
                arrive += [
                    self.stage("main_memory", "main_memory.read", n_items, bits),
                    self.stage("activation_buffer.write", "activation_buffer.write", n_items, bits),
                ]
        side = [
            self.stage("activation_buffer.read", "activation_buffer.read", n_items, tensor.n_bits * layer.n_samples)
            for i, tensor in enumerate(tensors)
            if i > 0 or not layer.is_on_tiles
        ]
        issue = self.stage("scheduler", "scheduler.issue", 1, 1)
        chains = [self._round(layer, round_) for round_ in layer.rounds]
        flows = plan.psum_flows(layer) if layer.psums_per_output > 1 else []
        written: list[list[Stage]] = []
        if plan.style == "temporal":
            written = [self._write(layer, round_) for round_ in layer.rounds]
        tail = self._tail(layer, n_items)
        if arrive:  # the input comes while the weights do; they share main memory
            self.memory_free_ns = greatest(self.memory_free_ns, start + sum(s.work_ns for s in arrive[::2]))
        for r, chain in enumerate(chains):
            last = r == len(chains) - 1
            full = [*chain, *(self._reduce(layer, flows[r]) if flows else []), *(tail if last else [])]
            begin = self.now_ns + alone_ns(issue)
            if written:
                begin = greatest(begin, self._written_ns(layer.rounds[r], written[r]))
            arrived = self.now_ns + chain_ns([*arrive, *full]) if arrive and r == 0 else 0.0
            waited = begin - self.now_ns - alone_ns(issue)
            passages.append(Passage(alone_ns(issue), waited, tuple(full), tuple(arrive if r == 0 else [])))
            self.now_ns = greatest(begin + chain_ns(full), arrived)
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
        return replace(self._sum_up(layer, start, stages, written, issue), passages=tuple(passages))

    def _sum_up(
        self, layer: LayerPlan, start: float, chains: list[list[Stage]], written: list[list[Stage]], issue: Stage
    ) -> LayerTime:
        busy: dict[str, float] = {}
        held: dict[str, float] = {}
        for stage in (stage for chain in [*chains, *written] for stage in chain):
            busy[stage.component] = busy.get(stage.component, 0.0) + stage.work_ns
            held[stage.component] = held.get(stage.component, 0.0) + stage.work_ns + stage.lag_ns
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
            accesses[shard.tile] += n_asked
            taken[shard.tile] += n_taken
        n_items, n_tiles = int(accesses.max()), int(np.count_nonzero(accesses))
        most, total = int(taken.max()), int(taken.sum())
        inputs = {(shard.group, shard.row_start, shard.row_stop) for shard in round_.shards}
        digits = sum(stop - start for _, start, stop in inputs) * layer.n_passes * layer.n_vectors
        return [
            self.stage(
                "activation_buffer.read", "activation_buffer.read", layer.n_vectors, digits * layer.bits_per_digit
            ),
            self.stage("tile.array", "tile.access", n_items, most, n_units=n_tiles, total=total),
            self.stage(f"tile.{chip.converter}", chip.conversion, n_items, most, n_units=n_tiles, total=total),
        ]

    def _reduce(self, layer: LayerPlan, flow: PsumFlow) -> list[Stage]:
        """Put psums aside, in main memory what the buffer cannot keep, and add up those that are complete."""
        n_items = layer.n_vectors * flow.parts_per_vector
        bits = flow.n_written * layer.psum_bits
        # where the buffer is full, the result of each piece may be waited for
        chain = [self.stage("psum_buffer.write", "psum_buffer.write", n_items, bits, n_units=n_items)]
        if np.any(flow.spilt_bits):
            chain.append(self._spill("main_memory.write", n_items, flow.spilt_bits))
        if not flow.n_read:
            return chain
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

    def _tail(self, layer: LayerPlan, n_items: int) -> list[Stage]:
        """The lanes, and where the output goes."""
        output = self.plan.op_of[layer.name].output
        bits = output.n_bits * layer.n_samples
        tail = [self.stage(f"sfu.{lane}", f"sfu.{lane}", n_items, n) for lane, n in self.plan.lane_work(layer).items()]
        tail.append(self.stage("activation_buffer.write", "activation_buffer.write", n_items, bits))
        if output.name in self.plan.off_chip:
            tail.append(self.stage("activation_buffer.read", "activation_buffer.read", n_items, bits))
            tail.append(self.stage("main_memory", "main_memory.write", n_items, bits))
        return tail

    def _write(self, layer: LayerPlan, round_: Round) -> list[Stage]:
        """Weights of one round: main memory, network, rows."""
        rows_of_tile = np.zeros(self.plan.chip.n_tiles, dtype=np.int64)
        rows = cells = copies = 0
        for shard in round_.shards:
            rows_of_tile[shard.tile] += shard.n_rows
            copies += shard.n_rows * shard.n_columns
            if shard.replica == 0:
                rows += shard.n_rows
                cells += shard.n_rows * shard.n_columns
        most = int(rows_of_tile.max())
        return [
            self.stage("main_memory", "main_memory.read", max(1, rows), cells * BITS_PER_CELL),
            self.stage("network", "network.transfer", max(1, rows), copies * BITS_PER_CELL),
            self.stage("tile.write", "tile.write_row", most, most, n_units=len(round_.tiles),
                       total=int(rows_of_tile.sum())),
        ]  # fmt: skip

    def _written_ns(self, round_: Round, stages: list[Stage]) -> float:
        """Return when the weights of a round are in their tiles."""
        free = self.free_ns(round_) if self.plan.chip.double_buffered else self.now_ns
        issue = self.stage("scheduler", "scheduler.issue", 1, 1)
        begin = greatest(free + alone_ns(issue), self.memory_free_ns)
        self.memory_free_ns = begin + stages[0].work_ns
        return begin + chain_ns(stages)


def alone_ns(stage: Stage) -> float:
    """Return the time of a stage by itself, its results included."""
    return stage.work_ns + stage.lag_ns
