"""How long a recurrent layer takes, by formula: the first time steps one by one, the others like the last two."""

from dataclasses import replace

from imcsim.analytic.across import time_across, with_sending
from imcsim.analytic.timing import Clock, LayerTime, Part, Stage, alone_ns, chain_ns, in_turn_ns, sampled_ns
from imcsim.arrays import greatest
from imcsim.graph.recurrent import PARTS
from imcsim.mapping.digital import cell_of, cell_work, state_bits, turn_of_state
from imcsim.mapping.plan import LayerPlan

FIRST_STEPS = 6
"""Time steps that are worked out one by one: the first inputs and weights arrive, the next steps find them there."""


def layer_time(clock: Clock, layer: LayerPlan) -> LayerTime:
    """Return the time of *layer*, recurrent or not, which is the next one of *clock*'s plan."""
    if layer.n_steps:
        return with_sending(clock, layer, recurrent_time(clock, layer))
    return time_across(clock, layer) if clock.plan.chip.all_banks > 1 else clock.layer(layer)


def recurrent_time(clock: Clock, layer: LayerPlan) -> LayerTime:
    """Return the time of the recurrent *layer*, which is the next one of *clock*'s plan."""
    return _Steps(clock, layer).time()


class _Steps:
    """The stages of one time step, and when each step ends."""

    def __init__(self, clock: Clock, layer: LayerPlan) -> None:
        self.clock, self.layer = clock, layer
        plan, n = clock.plan, layer.n_samples
        self.op = plan.op_of[layer.name]
        self.step = layer.one_step
        cell = cell_of(self.op)
        source, output = plan.graph.tensors[self.op.input], self.op.output
        stage = clock.stage
        self.issue = stage("scheduler", "scheduler.issue", 1, 1)
        self.arrive, self.spill = list[Stage](), list[Stage]()
        if source.name in plan.off_chip:
            bits = source.n_bits // layer.n_steps * n
            self.arrive = [
                stage("main_memory", "main_memory.read", n, bits),
                stage("activation_buffer.write", "activation_buffer.write", n, bits),
            ]
        bits = output.n_bits // layer.n_steps * n
        self.send = [stage("network", "network.transfer", n, bits)] if "outputs" in plan.chip.network.carries else []
        self.store = stage("activation_buffer.write", "activation_buffer.write", n, bits)
        if output.name in plan.off_chip:
            self.spill = [
                stage("activation_buffer.read", "activation_buffer.read", n, bits),
                stage("main_memory", "main_memory.write", n, bits),
            ]
        turns = cell_work(cell, layer.n_outputs // PARTS)
        self.turns = [stage(f"sfu.{lane}", f"sfu.{lane}", n, work * n) for lane, work in turns]
        self.turn_of_state = turn_of_state(cell)
        bits = state_bits(self.op) * n
        self.state_read = stage("activation_buffer.read", "activation_buffer.read", n, bits)
        self.state_write = stage("activation_buffer.write", "activation_buffer.write", n, bits)
        self.rounds = [clock._round(self.step, round_) for round_ in layer.rounds]
        flows = plan.psum_flows(self.step) if layer.psums_per_output > 1 else [None] * len(layer.rounds)
        self.sums = [clock._sums(self.step, *each) for each in zip(layer.rounds, flows, strict=True)]
        self.written = [clock._write(self.step, round_) for round_ in layer.rounds] if plan.style == "temporal" else []

    def time(self) -> LayerTime:
        """Return the time of all steps."""
        clock, n_steps = self.clock, self.layer.n_steps
        start = clock.now_ns
        ends = [start, start]  # of the layer before, twice; then of each time step
        arrived = start
        for t in range(min(n_steps, FIRST_STEPS)):
            if self.arrive:  # the input comes while the step before is at work
                at_rate = arrived + greatest(*(s.occupied_ns for s in self.arrive))
                arrived = greatest(ends[t] + chain_ns(self.arrive), at_rate if t else 0.0)
            ends.append(self._step(t, arrived))
        told = [Part("", f"the first {min(n_steps, FIRST_STEPS)} time steps, each worked out", ends[-1] - start)]
        more = n_steps - FIRST_STEPS
        if more > 0:
            # In pairs: where a step waits for main memory, which goes on when the step before the last has ended, long
            # and short steps take turns.
            pairs, odd = divmod(more, 2)
            passed = pairs * (ends[-1] - ends[-3]) + odd * (ends[-2] - ends[-3])
            clock.now_ns = clock.now_ns + passed
            if len(self.written) > 1:
                clock.memory_free_ns = clock.memory_free_ns + passed
            clock.delay(self.layer.rounds, passed)
            told.append(Part("", f"the other {more} time steps, like the last two of these", passed))
        if self.spill:
            spilt = start + n_steps * self.spill[1].occupied_ns
            stepped = clock.now_ns
            clock.now_ns = greatest(clock.now_ns, spilt) + chain_ns(self.spill)
            told.append(Part("main_memory", "the last codes on their way to main memory", clock.now_ns - stepped))
        return replace(self._sum_up(clock.now_ns - start), told=tuple(told))

    def _step(self, t: int, arrived: float) -> float:
        """Advance the clock by one time step; return its end."""
        clock = self.clock
        for r, chain in enumerate(self.rounds):
            begin = clock.now_ns + alone_ns(self.issue)
            if r == 0:
                begin = greatest(begin, arrived)
            if self.written and (t == 0 or len(self.rounds) > 1):
                begin = greatest(begin, clock._written_ns(self.layer, self.layer.rounds[r], self.written[r]))
            last = r == len(self.rounds) - 1
            full = [*chain, *self.sums[r], *(self._behind_tiles() if last else [])]
            end = begin + greatest(chain_ns(full), in_turn_ns(full))
            if last:
                end = greatest(end, begin + self._by_way_of_state(chain, t))
            clock.hold(self.layer.rounds[r], begin + sampled_ns(chain))
            clock.now_ns = end
        return clock.now_ns

    def _behind_tiles(self) -> list[Stage]:
        return [*self.turns, *self.send, self.store]

    def _by_way_of_state(self, chain: list[Stage], t: int) -> float:
        """Return when the codes are stored where the state is stored before them, through the one port."""
        is_own_port = self.clock.costs.servers.get("activation_buffer.write", 1) > 1
        if t == self.layer.n_steps - 1 or is_own_port:
            return 0.0
        until = [*chain, *self.sums[-1], *self.turns[: self.turn_of_state + 1], self.state_write]
        return chain_ns(until) - self.state_write.lag_ns + alone_ns(self.store)

    def _sum_up(self, added_ns: float) -> LayerTime:
        n_steps = self.layer.n_steps
        in_turn = [[*chain, *self.sums[r], *(self._behind_tiles() if r == len(self.rounds) - 1 else [])]
                   for r, chain in enumerate(self.rounds)]  # fmt: skip
        times_of = [(stage, n_steps) for chain in in_turn for stage in chain]
        aside = (*self.arrive, *self.spill)  # beside the time steps: their lags hold nobody up
        times_of += [(stage, n_steps) for stage in aside]
        times_of += [(stage, n_steps - 1) for stage in (self.state_read, self.state_write)]
        n_writes = n_steps if len(self.rounds) > 1 else 1
        times_of += [(stage, n_writes) for stages in self.written for stage in stages]
        busy: dict[str, float] = {}
        held: dict[str, float] = {}
        one_by_one = 0.0
        for stage, times in times_of:
            busy[stage.component] = busy.get(stage.component, 0.0) + times * stage.occupied_ns
            lag_ns = 0.0 if stage.component == "main_memory" and any(stage is s for s in aside) else stage.lag_ns
            held[stage.component] = held.get(stage.component, 0.0) + times * (stage.occupied_ns + lag_ns)
            one_by_one = one_by_one + times * (stage.total_work_ns + stage.n_units * stage.lag_ns)
        n_issues = n_steps * (2 * len(self.rounds) + 2 + len(self.turns))
        least = n_steps * sum(greatest(*(stage.work_ns for stage in chain)) for chain in in_turn)
        return LayerTime(added_ns, busy, held, least, one_by_one + n_issues * alone_ns(self.issue))
