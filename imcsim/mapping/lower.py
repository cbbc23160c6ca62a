"""Plan and cost table to a program: which unit does what for how long, and who waits for whom.

One layer after the other. Within a layer everything streams: input digits from the activation buffer to the
tiles, counts to the PCUs, psums through the reduce unit, sums through the lanes, codes back into the buffer. In the
temporal style each round first brings its weights from main memory; where the chip is double-buffered, into tiles
that have done their part while others still compute.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from imcsim.costs.dram import channels_of
from imcsim.costs.price import has_decoder_stage
from imcsim.costs.table import CostTable
from imcsim.mapping.across import in_its_bank, write_across, write_setup_across
from imcsim.mapping.instructions import Loader, is_reloaded
from imcsim.mapping.links import local_unit, place_of, unit_at
from imcsim.mapping.plan import LayerPlan, Plan, PsumFlow, Round
from imcsim.mapping.program import Program, Task
from imcsim.mapping.recurrent import write_recurrence
from imcsim.mapping.streams import room_of_streams
from imcsim.units import PS_PER_NS

Phase = Literal["inference", "setup"]

BITS_PER_CELL = 2
"""A ternary weight on its way from main memory takes 2 bits."""


SAMPLES_HELD = 1
"""Accesses of an array that its sample-and-holds keep until the PCUs begin on them."""

BLOCKS_SELECTED = 1
"""Blocks that a decoder has selected, and whose access has not begun."""


def lower(plan: Plan, costs: CostTable, *, phase: Phase = "inference") -> Program:
    """Write out the tasks of *plan*: of one inference, or of the setup that writes resident weights before the first.

    The setup of a temporal plan is empty: its weights are written in every inference.
    """
    writer = _Writer(plan, costs, phase)
    if phase == "setup":
        if plan.is_resident:
            for layer in plan.layers:
                writer.setup(layer)
    else:
        for layer in plan.layers:
            writer.layer(layer)
    tasks = tuple(writer.task_of.values())
    units = {task.unit: local_unit(task.unit) for task in tasks}
    return Program(tasks, {unit: costs.servers[local] for unit, local in units.items() if local in costs.servers})


class _Writer:
    """Writes tasks in order and remembers who used which tile last."""

    def __init__(self, plan: Plan, costs: CostTable, phase: Phase) -> None:
        self.plan, self.costs = plan, costs
        self.loader = Loader(plan, self.load) if phase == "inference" and is_reloaded(plan) else None
        self.task_of: dict[str, Task] = {}
        self.frontier: tuple[str, ...] = ()  # the tasks that end the layer before, or the time step
        self.step = 0
        self.suffix = ""  # of the tasks of one time step
        self.bank: int | None = 0  # whose units the tasks are on; None: units that are named in full
        self.readers_of_bank: dict[int | None, dict[int, str]] = defaultdict(dict)

    @property
    def readers_of_tile(self) -> dict[int, str]:
        """The last accesses of each tile of the bank."""
        return self.readers_of_bank[self.bank]

    @contextmanager
    def at(self, bank: int | None) -> Iterator[None]:
        """Write tasks on the units of *bank*."""
        before, self.bank = self.bank, bank
        yield
        self.bank = before

    # one task

    def task(
        self,
        layer: LayerPlan,
        what: str,
        unit: str,
        n_items: int,
        action: str,
        *,
        count: int,
        spends: Counter[str] | None = None,
        after: Iterable[str] = (),
        behind: Iterable[str] = (),
        streams: Iterable[str] = (),
        rooms: Mapping[str, int] | None = None,
    ) -> str:
        """Write a task of *count* repetitions of *action*, in *n_items* items; return its name."""
        timing = self.costs.timings[action]
        n_servers, spread = 1, 1.0
        if unit == "main_memory":
            memory = self.plan.chip.main_memory
            n_servers = int(channels_of(count, memory.n_channels, memory.interleave.piece_bits))
            spread = memory.n_channels / n_servers
        place, after = "", tuple(after)
        if self.bank is not None:
            place, unit = place_of(self.plan.chip, self.bank), unit_at(self.plan.chip, self.bank, unit)
        name = f"{layer.name}/{what}{place and f'.{place[:-1]}'}{self.suffix}"
        if self.loader is not None:
            self.loader.written(name, after)
        self.task_of[name] = Task(
            name,
            layer.name,
            unit,
            n_items,
            work_ps=round(count * timing.interval_ns * spread * PS_PER_NS),
            lag_ps=max(0, round((timing.latency_ns - timing.interval_ns) * PS_PER_NS)),
            actions=Counter({action: count}) if spends is None else spends,
            after=after,
            behind=tuple(behind),
            streams=tuple(streams),
            rooms=rooms or {},
            n_servers=n_servers,
            is_aside=bool(self.suffix) and what in ("fetch", "spill.write"),
        )
        return name

    # one layer

    def setup(self, layer: LayerPlan) -> None:
        """Write the tasks that write the resident weights of *layer*."""
        if self.plan.chip.all_banks > 1:
            write_setup_across(self, layer)
            return
        if layer.is_written:
            return
        for r, round_ in enumerate(layer.stored.rounds):
            self.write_weights(layer.stored, r, round_)

    def layer(self, layer: LayerPlan) -> None:
        plan = self.plan
        op = plan.op_of[layer.name]
        if plan.is_on_host(layer):
            return
        if layer.n_steps:
            with self.at(layer.home):
                write_recurrence(self, in_its_bank(layer, plan.chip))
            return
        if plan.chip.all_banks > 1:
            write_across(self, layer)
            return
        lanes = plan.lane_work(layer)
        tensors = [plan.graph.tensors[name] for name in op.streamed]
        n_items = layer.n_items
        room = room_of_streams(plan, layer)
        arrived = [
            self.fetch(layer, f"fetch.{tensor.name}", tensor.n_bits * layer.n_samples, n_items)
            for tensor in dict.fromkeys(tensors)
            if tensor.name in plan.off_chip
        ]
        fetched = {name.removesuffix(".fill"): room for name in arrived} if room is not None else {}
        if layer.is_on_tiles:
            source = self.product(layer, arrived, rooms=fetched)
        else:
            issue = self.issue(layer, "issue", 1)
            bits = tensors[0].n_bits * layer.n_samples
            source = [
                self.task(layer, "read", "activation_buffer.read", n_items, "activation_buffer.read",
                          count=bits, after=[issue], streams=[*arrived, *fetched], rooms=fetched)
            ]  # fmt: skip
        for i, tensor in enumerate(tensors[1:]):
            source.append(
                self.task(layer, f"read.{i + 1}", "activation_buffer.read", n_items, "activation_buffer.read",
                          count=tensor.n_bits * layer.n_samples, after=self.frontier, streams=[*arrived, *fetched],
                          rooms=fetched)
            )  # fmt: skip
        if lanes:
            issue = self.issue(layer, "issue.lanes", len(lanes))
            for lane, n in lanes.items():
                source = [
                    self.task(
                        layer, lane, f"sfu.{lane}", n_items, f"sfu.{lane}", count=n, after=[issue], streams=source
                    )
                ]
        self.store(layer, n_items, source, op.output.n_bits * layer.n_samples, room)

    def product(
        self,
        layer: LayerPlan,
        arrived: list[str],
        *,
        is_resident: bool = False,
        rooms: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Write the rounds of a layer; return the tasks that hand out its sums.

        *is_resident*: its weights are there. *rooms*: of what brings the inputs that have *arrived*.
        """
        flows = self.plan.psum_flows(layer) if layer.psums_per_output > 1 else []
        source: list[str] = []
        reduce_issued: list[str] = []
        for r, round_ in enumerate(layer.rounds):
            is_written = self.plan.writes_cells(layer) and not is_resident
            written = self.write_weights(layer, r, round_) if is_written else []
            gate = [*self.frontier, *source]
            issue = self.issue(layer, f"issue.{r}", 1, after=gate)
            reads = (arrived, rooms or {}) if r == 0 else ([], {})
            source = self.accesses(layer, r, round_, issue, written, *reads)
            if "psums" in self.plan.chip.network.carries:
                source = [self.hand_out(layer, r, round_, flows[r].parts_per_vector if flows else 1, source)]
            if flows:
                reduce_issued = reduce_issued or [self.issue(layer, "issue.reduce", 1)]
                source = [self.reduce(layer, r, flows[r], source, [issue, *reduce_issued])]
        return source

    def hand_out(self, layer: LayerPlan, r: int, round_: Round, parts_per_vector: int, counted: list[str]) -> str:
        """Write one round's way of sums out of the tiles over the network."""
        n_items = layer.n_vectors * parts_per_vector
        return self.task(
            layer, f"send.psums.round{r}", "network", n_items, "network.transfer",
            count=sum(map(layer.psums_of, round_.shards)) * layer.psum_bits, streams=counted,
            rooms={name: self.room(name, n_items) for name in counted},
        )  # fmt: skip

    def reduce(self, layer: LayerPlan, r: int, flow: PsumFlow, counted: list[str], issued: list[str]) -> str:
        """Write one round's way of psums through their buffer to the reduce unit; return the last task of it.

        Where the buffer is full its writing waits, and so do the PCUs, which keep the sums of one vector while they
        add up those of the next.
        """
        n_items = layer.n_vectors * flow.parts_per_vector
        written = self.task(
            layer, f"psums.round{r}", "psum_buffer.write", n_items, "psum_buffer.write",
            count=flow.n_written * layer.psum_bits, streams=counted,
            rooms={name: self.room(name, n_items) for name in counted},
        )  # fmt: skip
        if flow.spilt_bits:
            written = self.task(layer, f"psums.spill.round{r}", "main_memory", n_items, "main_memory.write",
                                count=flow.spilt_bits, streams=[written], rooms={written: flow.room})  # fmt: skip
        if not flow.n_read:
            return written
        sources = [written]
        if flow.fetched_bits:
            sources.append(self.task(layer, f"psums.fetch.round{r}", "main_memory", n_items, "main_memory.read",
                                     count=flow.fetched_bits, after=issued))  # fmt: skip
        read = self.task(
            layer, f"psums.read.round{r}", "psum_buffer.read", n_items, "psum_buffer.read",
            count=flow.n_read * layer.psum_bits, streams=sources, rooms={written: flow.room},
        )  # fmt: skip
        words = -(-layer.psum_bits // self.plan.chip.reduce_unit.adder_bits)
        return self.task(
            layer, f"reduce.round{r}", "reduce_unit", n_items, "reduce_unit.add",
            count=flow.n_outputs * layer.adds_per_output * words, after=issued, streams=[read],
            rooms={read: self.room(read, n_items)},
        )  # fmt: skip

    def room(self, feeder: str, n_items: int) -> int:
        """Return room for what a reader of *n_items* takes at once, for as much again, and for what is on its way."""
        task = self.task_of[feeder]
        together = -(-task.n_items // n_items)
        item_ps = max(1, task.work_ps * together // task.n_items)
        return together * (2 - -task.lag_ps // item_ps)

    def accesses(
        self,
        layer: LayerPlan,
        r: int,
        round_: Round,
        issue: str,
        written: list[str],
        arrived: list[str],
        rooms: Mapping[str, int],
    ) -> list[str]:
        """Write one round's accesses and conversions, tile by tile; return the conversions."""
        chip, tile_spec = self.plan.chip, self.plan.chip.tile
        inputs = {(s.group, s.row_start, s.row_stop) for s in round_.shards}
        digits = sum(stop - start for _, start, stop in inputs) * layer.n_passes * layer.n_vectors
        read = self.task(
            layer, f"read.round{r}", "activation_buffer.read", layer.n_vectors, "activation_buffer.read",
            count=digits * layer.bits_per_digit, after=[issue, *written], streams=[*arrived, *rooms], rooms=rooms,
        )  # fmt: skip
        if "inputs" in self.plan.chip.network.carries:
            read = self.task(layer, f"send.inputs.round{r}", "network", layer.n_vectors, "network.transfer",
                             count=digits * layer.bits_per_digit, streams=[read])  # fmt: skip
        shards_of_tile = defaultdict(list)
        for shard, accesses in zip(round_.shards, layer.accesses(round_, tile_spec.rows_per_access), strict=True):
            shards_of_tile[shard.tile].append((shard, accesses))
        converted = []
        for tile, shards in sorted(shards_of_tile.items()):
            n_accesses, n_taken, n_columns = 0, 0, 0  # what is skipped is an item that takes no time
            for shard, (asked, taken) in shards:
                n_accesses += asked
                n_taken += taken
                n_columns += taken * shard.n_columns
            if not n_accesses:
                continue
            selected, latches = read, dict[str, int]()
            if has_decoder_stage(self.plan.chip):
                selected = self.task(layer, f"select.round{r}.tile{tile}", f"tile{tile}.decoder", n_accesses,
                                     "tile.select", count=n_taken, streams=[read])  # fmt: skip
                latches[selected] = BLOCKS_SELECTED
            array = self.task(
                layer, f"access.round{r}.tile{tile}", f"tile{tile}.array", n_accesses, "tile.access", count=n_taken,
                spends=Counter({"tile.access": n_taken, "tile.column_read": n_columns}), streams=[selected],
                rooms=latches,
            )  # fmt: skip
            self.readers_of_tile[tile] = array
            converted.append(
                self.task(layer, f"convert.round{r}.tile{tile}", f"tile{tile}.{chip.converter}", n_accesses,
                          chip.conversion, count=n_taken, spends=Counter({layer.conversion: n_columns}),
                          streams=[array], rooms={array: SAMPLES_HELD})
            )  # fmt: skip
        return converted

    def write_weights(self, layer: LayerPlan, r: int, round_: Round) -> list[str]:
        """Write one round's weights through the network into the tiles; return the row writes.

        They come from main memory, or, made by a layer before, from the activation buffer.
        """
        tiles = round_.tiles
        free = [self.readers_of_tile[tile] for tile in tiles if tile in self.readers_of_tile]
        if not self.plan.chip.double_buffered:
            free += [*self.frontier, *self.readers_of_tile.values()]
        elif self.plan.op_of[layer.name].gate is not None or layer.is_written:
            free += self.frontier  # until the layers before are done nobody knows which, or what
        free = list(dict.fromkeys(free))
        rows = sum(s.n_rows for s in round_.shards if layer.is_first(s))
        bits = sum(s.n_rows * s.n_columns for s in round_.shards if layer.is_first(s)) * BITS_PER_CELL
        copies = sum(s.n_rows * s.n_columns for s in round_.shards) * BITS_PER_CELL
        issue = self.issue(layer, f"issue.weights{r}", 1, after=free)
        if layer.is_written:
            bits = bits // BITS_PER_CELL // layer.n_weight_planes * layer.written_bits
        action = self.plan.source_of_cells(layer)
        unit = "main_memory" if action == "main_memory.read" else action
        loaded = self.task(layer, f"weights.round{r}", unit, max(1, rows), action,
                           count=bits, after=[issue, *free])  # fmt: skip
        sent = self.task(layer, f"send.round{r}", "network", max(1, rows), "network.transfer",
                         count=copies, streams=[loaded])  # fmt: skip
        written = []
        for tile in tiles:
            n_rows = sum(s.n_rows for s in round_.shards if s.tile == tile)
            written.append(
                self.task(layer, f"write.round{r}.tile{tile}", f"tile{tile}.array", n_rows, "tile.write_row",
                          count=n_rows, streams=[sent])
            )  # fmt: skip
        return written

    def fetch(self, layer: LayerPlan, what: str, bits: int, n_items: int, after: Iterable[str] | None = None) -> str:
        """Bring a tensor from main memory into the activation buffer."""
        after = self.frontier if after is None else after
        loaded = self.task(layer, what, "main_memory", n_items, "main_memory.read", count=bits, after=after)
        return self.task(layer, f"{what}.fill", "activation_buffer.write", n_items, "activation_buffer.write",
                         count=bits, streams=[loaded])  # fmt: skip

    def store(self, layer: LayerPlan, n_items: int, source: list[str], bits: int, room: int | None = None) -> str:
        """Put the layer's output into the activation buffer, and into main memory where the buffer cannot hold it.

        *room*: items of it that the buffer holds on their way to main memory. Return the task after which it is in the
        buffer.
        """
        output = self.plan.op_of[layer.name].output
        if "outputs" in self.plan.chip.network.carries:
            source = [self.task(layer, "send.outputs", "network", n_items, "network.transfer", count=bits,
                                streams=source)]  # fmt: skip
        stored = last = self.task(layer, "store", "activation_buffer.write", n_items, "activation_buffer.write",
                                  count=bits, streams=source)  # fmt: skip
        if output.name in self.plan.off_chip:
            out = self.task(layer, "spill", "activation_buffer.read", n_items, "activation_buffer.read",
                            count=bits, streams=[last])  # fmt: skip
            rooms = {stored: room} if room is not None else {}
            last = self.task(layer, "spill.write", "main_memory", n_items, "main_memory.write",
                             count=bits, streams=[out, *rooms], rooms=rooms)  # fmt: skip
        self.frontier = (last,)
        return stored

    def issue(self, layer: LayerPlan, what: str, n: int, after: Iterable[str] | None = None) -> str:
        """Issue *n* instructions; one sets a unit, or all tiles of a round, going for a whole burst."""
        after = list(self.frontier if after is None else after)
        if self.loader is None:
            return self.task(layer, what, "scheduler", n, "scheduler.issue", count=n, after=after)
        name, n_parts = "", 0
        while n:  # those that are loaded together are issued together
            part = f"{what}.{n_parts}" if n_parts else what
            load, taken = self.loader.take(layer, n, self.step)
            name = self.task(layer, part, "scheduler", taken, "scheduler.issue", count=taken,
                             after=[*after, load, *([name] if name else [])])  # fmt: skip
            self.loader.issued(name, part)
            n, n_parts = n - taken, n_parts + 1
        return name

    def load(self, layer: LayerPlan, what: str, n: int, behind: list[str]) -> str:
        """Bring *n* instructions from main memory; the first ones of a request have nobody to wait for."""
        return self.task(layer, what, "main_memory", n, "main_memory.read",
                         count=n * self.plan.chip.scheduler.entry.width_bits, behind=behind)  # fmt: skip
