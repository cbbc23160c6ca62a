"""How long a layer across banks takes, by formula.

Psums, sums and codes take ways from a bank through links to others; a round takes as long as its longest way, a link on
which several things meet as long as all of them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from imcsim.analytic.spending import Spent, gathers_of, sends_of, sent_of_steps, spending, stored, stores_of
from imcsim.analytic.timing import Clock, LayerTime, Passage, Stage, alone_ns, chain_ns, sampled_ns
from imcsim.arrays import greatest
from imcsim.mapping.links import Hop, component_of_unit, route
from imcsim.mapping.plan import LayerPlan, Round
from imcsim.mapping.spread import (
    BankPart,
    digital_banks,
    inputs_of_banks,
    parts_of_sums,
    parts_of_tiles,
    psums_between,
    shares_of,
)


def time_across(clock: Clock, layer: LayerPlan) -> LayerTime:
    """Return the time of *layer*, which is not recurrent and the next one of *clock*'s plan."""
    return _Across(clock, layer).time()


def with_sending(clock: Clock, layer: LayerPlan, alone: LayerTime) -> LayerTime:
    """Return the time of a recurrent *layer* that takes *alone* in its home, with the sending of its last codes."""
    plan = clock.plan
    others = [bank for bank in layer.goes_to if bank != layer.home]
    if not others:
        return alone
    n, bits = layer.n_samples, plan.op_of[layer.name].output.n_bits // layer.n_steps * layer.n_samples
    ways = []
    for bank in others:
        hops = [
            clock.stage(component_of_unit(hop.unit), hop.action, n, bits)
            for hop in route(plan.chip, layer.home, [bank])
        ]
        kept = [clock.stage(s.component, s.action, n, bits) for s in stored(plan, layer, bank, bits)]
        ways.append([*hops, *kept])
    longest = greatest(*map(chain_ns, ways))
    clock.now_ns = clock.now_ns + longest
    more = _use(clock, sent_of_steps(plan, layer))
    return LayerTime(
        alone.added_ns + longest,
        {**more.busy_ns, **alone.busy_ns},
        {**more.held_ns, **alone.held_ns},
        alone.least_ns,
        alone.greatest_ns + more.greatest_ns,
        (*alone.passages, _passage(Passage(0.0, 0.0, tuple(way)) for way in ways)),
        alone.told,
    )


def _use(clock: Clock, everything: Iterable[Spent]) -> LayerTime:
    """Return how long the units work for what is spent: of each component the busiest, and all one after the other."""
    busy: dict[tuple[str, str], Any] = defaultdict(float)
    held: dict[tuple[str, str], Any] = defaultdict(float)
    in_turn: Any = 0.0
    for spent in everything:
        stage, at = clock.stage(spent.component, spent.action, 1, spent.count), (spent.component, spent.unit)
        busy[at], held[at] = busy[at] + stage.occupied_ns, held[at] + stage.occupied_ns + stage.lag_ns
        in_turn = in_turn + stage.work_ns + spent.n_lags * stage.lag_ns
    return LayerTime(0.0, _busiest(busy), _busiest(held), 0.0, in_turn)


def _busiest(times: dict[tuple[str, str], Any]) -> dict[str, Any]:
    most: dict[str, Any] = {}
    for (component, _), time in times.items():
        most[component] = greatest(most.get(component, 0.0), time)
    return most


class _Across:
    """The stages of a layer, bank by bank, and the ways through them."""

    def __init__(self, clock: Clock, layer: LayerPlan) -> None:
        self.clock, self.layer, self.plan = clock, layer, clock.plan
        self.chip = clock.plan.chip
        self.op = self.plan.op_of[layer.name]
        self.n_items = max(layer.n_vectors, layer.n_samples)
        self.weights = digital_banks(layer, self.chip)
        self.issue = clock.stage("scheduler", "scheduler.issue", 1, 1)
        self.arrive = self._arrive()
        self.passages: list[Passage] = []

    def time(self) -> LayerTime:
        """Advance the clock by the layer and return its time."""
        clock, start = self.clock, self.clock.now_ns
        clock.wait_for_gate(self.layer)
        least: Any = 0.0
        for r in range(len(self.layer.rounds)):
            least = least + self._round(r)
        if not self.layer.rounds:
            bits = self.plan.graph.tensors[self.op.input].n_bits * self.layer.n_samples
            read = clock.stage("activation_buffer.read", "activation_buffer.read", self.n_items, bits)
            ways = [
                [*self.arrive.get(self.layer.home, []), read, *way] for way in self._tails(self.layer.home, Counter())
            ]
            least = greatest(*(stage.work_ns for way in ways for stage in way))
            clock.now_ns = clock.now_ns + alone_ns(self.issue) + greatest(*map(chain_ns, ways))
            self.passages.append(_passage(Passage(alone_ns(self.issue), 0.0, tuple(way)) for way in ways))
        use = _use(clock, spending(self.plan, self.layer))
        brings_weights = () if self.plan.is_resident else ("main_memory", "network", "scheduler", "tile.write")
        told = clock.finish(
            start + alone_ns(self.issue), (ns for unit, ns in use.busy_ns.items() if unit not in brings_weights)
        )
        return replace(use, added_ns=clock.now_ns - start, least_ns=least, passages=tuple(self.passages), told=told)

    def _arrive(self) -> dict[int, list[Stage]]:
        """Return how inputs come from main memory into each bank; the banks of a chip share it."""
        stage, chip = self.clock.stage, self.chip
        reads = {
            bank: [name for name in names if name in self.plan.off_chip]
            for bank, names in inputs_of_banks(self.layer, self.op.inputs, chip).items()
        }
        of_chip: Counter[tuple[int, str]] = Counter()
        for bank, names in reads.items():
            of_chip.update((bank // chip.n_banks, name) for name in names)
        found = {}
        for bank, names in reads.items():
            stages = []
            for name in names:
                bits = self.plan.graph.tensors[name].n_bits * self.layer.n_samples
                times = of_chip[bank // chip.n_banks, name]
                stages += [
                    stage("main_memory", "main_memory.read", times * self.n_items, times * bits),
                    stage("activation_buffer.write", "activation_buffer.write", self.n_items, bits),
                ]
            if stages:
                found[bank] = stages
        if found:
            memory = greatest(*(sum(s.occupied_ns for s in stages[::2]) for stages in found.values()))
            self.clock.memory_free_ns = greatest(self.clock.memory_free_ns, self.clock.now_ns + memory)
        return found

    def _round(self, r: int) -> Any:
        """Advance the clock by one round; return the longest that one unit works in it."""
        clock, layer, chip = self.clock, self.layer, self.chip
        is_last = r == len(layer.rounds) - 1
        held = {part.bank: part for part in parts_of_tiles(layer, chip)}
        chains = {bank: clock._round(part.layer, _of_round(part, r)) for bank, part in held.items() if r in part.rounds}
        crossing = psums_between(layer, chip)[r]
        meets: Counter[str] = Counter()  # bits on each link
        for (here, there), n in crossing.items():
            for hop in route(chip, here, [there]):
                meets[hop.unit] += n * layer.psum_bits
        if is_last:
            for (_, hop), bits in [*gathers_of(self.plan, layer).items(), *sends_of(self.plan, layer).items()]:
                meets[hop.unit] += bits
        ways: list[tuple[int, list[Stage]]] = []
        for begin, adder, stages in self._to_sums(r, chains, crossing, meets):
            tails = self._tails(adder, meets) if is_last else [[]]
            handed = self._handed_out(held[begin], r)
            ways += [(begin, [*chains[begin], *handed, *stages, *tail]) for tail in tails]
        start, begin_ns = clock.now_ns, clock.now_ns + alone_ns(self.issue)
        written: list[Stage] = []
        if self.plan.style == "temporal":
            written = self._write(held, r)
            begin_ns = greatest(begin_ns, clock._written_ns(layer, layer.rounds[r], written))
        waited = begin_ns - start - alone_ns(self.issue)
        self.passages.append(
            _passage(
                Passage(alone_ns(self.issue), waited, tuple(way), tuple(self.arrive.get(bank, []) if r == 0 else []))
                for bank, way in ways
            )
        )
        longest = greatest(*(chain_ns(way) for _, way in ways))
        ends = [begin_ns + longest]
        if r == 0:
            ends += [start + chain_ns([*self.arrive[bank], *way]) for bank, way in ways if self.arrive.get(bank)]
        clock.now_ns = greatest(*ends)
        sampled = greatest(*(sampled_ns(chain) for chain in chains.values()))
        clock.hold(layer.rounds[r], clock.now_ns - (longest - sampled))
        return greatest(*(stage.work_ns for _, way in ways for stage in way))

    def _handed_out(self, part: BankPart, r: int) -> list[Stage]:
        """Return the way of the sums of one bank out of its tiles, where the network carries them."""
        return self.clock._sums(part.layer, _of_round(part, r), None)

    def _to_sums(
        self, r: int, chains: dict[int, list[Stage]], crossing: Counter[tuple[int, int]], meets: Counter[str]
    ) -> Iterator[tuple[int, int, list[Stage]]]:
        """Yield each way from a bank's tiles to the bank that has the sums: both banks, and the stages between."""
        clock, layer = self.clock, self.layer
        if layer.psums_per_output == 1:
            yield from ((bank, bank, []) for bank in chains)
            return
        for part in parts_of_sums(layer, self.chip):
            if r not in part.rounds:
                continue
            flow = self.plan.psum_flows(part.layer)[part.rounds.index(r)]
            stages = clock._reduce(part.layer, flow)
            others = [here for here, there in crossing if there == part.bank]
            if part.bank in chains:
                yield part.bank, part.bank, stages
            for here in others:
                hops = self._hops(route(self.chip, here, [part.bank]), layer.n_vectors, meets)
                yield here, part.bank, [*hops, *stages]

    def _tails(self, bank: int, meets: Counter[str]) -> list[list[Stage]]:
        """Return each way from the sums of *bank* into an activation buffer or main memory."""
        clock, layer, chip = self.clock, self.layer, self.chip
        way: list[Stage] = []
        if layer.is_gathered and bank != layer.home:
            way += self._hops(route(chip, bank, [layer.home]), self.n_items, meets)
            bank = layer.home
        for lane, n in self.plan.lane_work(layer).items():
            share = shares_of(n, self.weights)[bank]
            way.append(clock.stage(f"sfu.{lane}", f"sfu.{lane}", self.n_items, share))
        if not meets:
            for (_, hop), bits in sends_of(self.plan, layer).items():
                meets[hop.unit] += bits
        return [
            [*way, *self._hops(route(chip, bank, [there]), self.n_items, meets), *self._stored(there, bits)]
            for there, bits in stores_of(self.plan, layer).items()
            if layer.goes_to or there == bank
        ]

    def _hops(self, hops: Sequence[Hop], n_items: int, meets: Counter[str]) -> list[Stage]:
        return [self.clock.stage(component_of_unit(hop.unit), hop.action, n_items, meets[hop.unit]) for hop in hops]

    def _stored(self, bank: int, bits: int) -> list[Stage]:
        return [
            self.clock.stage(spent.component, spent.action, self.n_items, bits)
            for spent in stored(self.plan, self.layer, bank, bits)
        ]

    def _write(self, held: dict[int, BankPart], r: int) -> list[Stage]:
        """Return the stages that write the weights of a round: those of the chip that has most to do."""
        of_chip: dict[int, list[list[Stage]]] = defaultdict(list)
        for bank, part in held.items():
            if r in part.rounds:
                of_chip[bank // self.chip.n_banks].append(self.clock._write(part.layer, _of_round(part, r)))
        together = [
            [
                *(_joined([stages[i] for stages in banks], sum) for i in (0, 1)),
                _joined([stages[2] for stages in banks], _most),
            ]
            for banks in of_chip.values()
        ]
        return [_joined([stages[i] for stages in together], _most) for i in range(3)]


def _passage(ways: Iterable[Passage]) -> Passage:
    """Return *ways* side by side as one passage."""
    first, *others = ways
    return replace(first, beside=tuple(others))


def _joined(stages: Sequence[Stage], how: Callable[[Iterable[Any]], Any]) -> Stage:
    return replace(stages[0], n_items=int(how(s.n_items for s in stages)), work_ns=how(s.work_ns for s in stages))


def _most(values: Iterable[Any]) -> Any:
    return greatest(*values)


def _of_round(part: BankPart, r: int) -> Round:
    return part.layer.rounds[part.rounds.index(r)]
