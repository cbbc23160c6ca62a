"""Units of a chip by hand-made programs and hand-computed answers: channels, ports."""

import pytest
from strategies import variant

from imcsim.analytic import bounds_ps, estimate
from imcsim.costs.price import price
from imcsim.errors import SimulationError
from imcsim.graph import REAL, TERNARY, Add, Graph, Op, Tensor, Threshold
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.mapping.program import Program, Task
from imcsim.sim import simulate
from imcsim.sim.engine import play

every_burst = pytest.mark.parametrize("burst", [None, 1, 1000])


def task(name, unit, n_items, work_ps, *, n_servers=1, lag=0, after=(), streams=()):
    return Task(name, "layer", unit, n_items, work_ps, lag_ps=lag, after=tuple(after), streams=tuple(streams),
                n_servers=n_servers)  # fmt: skip


def log(*tasks, burst=None, **servers):
    program = Program(tasks, servers)
    spans = {span.task: (span.start_ps, span.end_ps) for span in play(program, burst=burst)}
    least, greatest = bounds_ps(program)
    assert least <= max(end for _, end in spans.values()) <= greatest
    return spans


# --- several servers: channels of main memory, ports of a buffer ----------------------------------------------------


@every_burst
def test_as_many_tasks_as_a_unit_has_servers_go_on_side_by_side(burst):
    tasks = [task(name, "port", 1, 100) for name in "abc"]
    assert log(*tasks, burst=burst, port=2) == {"a": (0, 100), "b": (0, 100), "c": (100, 200)}


@every_burst
def test_a_transfer_over_all_channels_waits_for_all_and_nobody_overtakes_it(burst):
    tasks = [
        task("small", "memory", 1, 100),
        task("long", "memory", 1, 50, n_servers=4),
        task("late", "memory", 1, 30),
        task("later", "memory", 1, 20, n_servers=3),
    ]
    # three channels stand idle before the long one, though the late ones could have them
    assert log(*tasks, burst=burst, memory=4) == {
        "small": (0, 100), "long": (100, 150), "late": (150, 180), "later": (150, 170)
    }  # fmt: skip


def test_no_task_takes_more_servers_than_there_are():
    with pytest.raises(SimulationError, match=r"^a: must take at most the 2 servers of memory, got 3$"):
        log(task("a", "memory", 1, 1, n_servers=3), memory=2)


def test_the_least_time_counts_all_servers():
    tasks = [task(name, "memory", 1, 80, n_servers=n) for name, n in (("a", 4), ("b", 2), ("c", 1), ("d", 1))]
    assert bounds_ps(Program(tuple(tasks), {"memory": 4})) == (160, 320)


@pytest.fixture(scope="module")
def two_readers():
    """Two tensors of 16 numbers, of 2 bits each, that are added and made ternary."""
    quantizer = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    ops = (
        Op(name="quantize", input="x", output=Tensor("codes", (16,), TERNARY), steps=(quantizer,)),
        Op(name="again", input="codes", output=Tensor("more", (16,), TERNARY), steps=(quantizer,)),
        Op(name="add", input="codes", output=Tensor("y", (16,), TERNARY), steps=(Add("more"), quantizer)),
    )
    return Graph(name="two", input=Tensor("x", (16,), REAL), ops=ops, output="y")


CHANNELS = {"main_memory.bits_per_ns": 8.0, "main_memory.n_channels": 8, "main_memory.interleave_bits": 16}


def test_a_transfer_takes_as_many_channels_as_it_has_pieces(tiny_chip, two_readers):
    chip = variant(tiny_chip, CHANNELS)
    fetched = lower(place(two_readers, chip), price(chip)).task_of["again/fetch.codes"]
    # 32 bits lie in two of eight channels of 1 bit/ns each
    assert (fetched.n_servers, fetched.work_ps, fetched.lag_ps) == (2, 16_000, 99_875)
    one = variant(chip, {"main_memory.n_channels": 1})
    fetched = lower(place(two_readers, one), price(one)).task_of["again/fetch.codes"]
    assert (fetched.n_servers, fetched.work_ps) == (1, 4_000)


def test_small_transfers_go_on_side_by_side_in_channels_of_their_own(tiny_chip, two_readers):
    ends = {}
    for n_channels in (8, 1):
        chip = variant(tiny_chip, CHANNELS | {"main_memory.n_channels": n_channels,
                                              "activation_buffer.capacity_bits": 1})  # fmt: skip
        plan = place(two_readers, chip)
        assert plan.off_chip >= {"codes", "more"}
        spans = {span.task: span for span in simulate(plan).spans}
        fetched = [spans[f"add/fetch.{name}"] for name in ("codes", "more")]
        ends[n_channels] = [span.end_ps - fetched[0].start_ps for span in fetched]
    # 32 bits each, at 8 bits/ns one after the other, or at 2 bits/ns at the same time; results come 99.875 ns later
    assert ends[1] == [4_000 + 99_875, 8_000 + 99_875]
    assert ends[8] == [16_000 + 99_875] * 2


@pytest.mark.parametrize("bits_per_ns", [0.5, 2048.0])
def test_channels_change_no_energy_and_no_long_transfer(tiny_chip, tiny_graph, bits_per_ns):
    costs = {}
    for n_channels in (1, 8):
        chip = variant(tiny_chip, {"main_memory.n_channels": n_channels, "main_memory.bits_per_ns": bits_per_ns,
                                   "main_memory.interleave_bits": 1})  # fmt: skip
        plan = place(tiny_graph, chip, style="temporal")
        trace, est = simulate(plan), estimate(plan)
        assert est.latency_ns == pytest.approx(trace.latency_ns, rel=0.05)
        costs[n_channels] = (trace.latency_ns, est.latency_ns, trace.counts)
    assert costs[1] == costs[8]


def test_two_tensors_are_read_at_one_time_through_two_ports(tiny_chip, two_readers):
    slow = {"activation_buffer.read.bits_per_ns": 2.0, "activation_buffer.read.latency_ns": 0.5}
    found = {}
    for n_ports in (1, 2):
        plan = place(two_readers, variant(tiny_chip, slow | {"activation_buffer.read.n_ports": n_ports}))
        trace = simulate(plan)
        spans = {span.task: span for span in trace.spans}
        found[n_ports] = spans["add/read"], spans["add/read.1"], trace
    (a, b, one), (c, d, two) = found.values()
    assert (a.start_ps - b.start_ps, c.start_ps - d.start_ps) == (16_000, 0)  # 32 bits at 2 bits/ns
    assert one.energy_pJ - two.energy_pJ == pytest.approx((one.latency_ns - two.latency_ns) * one.costs.leakage_mW)
    assert two.busy_ns["add"]["activation_buffer.read"] == one.busy_ns["add"]["activation_buffer.read"] / 2
