"""Units of a chip by hand-made programs and hand-computed answers: channels, network, decoders, instructions ..."""

from collections import Counter
from itertools import pairwise

import pytest
from strategies import variant

from imcsim import load_workload
from imcsim.analytic import bounds_ps, estimate
from imcsim.arch.load import load_chip
from imcsim.costs.peaks import peaks
from imcsim.costs.price import price
from imcsim.errors import ConfigError, MappingError, SimulationError
from imcsim.graph import REAL, TERNARY, Add, Affine, Graph, Op, Tensor, Threshold
from imcsim.mapping.instructions import n_instructions
from imcsim.mapping.lower import lower
from imcsim.mapping.place import Split, as_they_are, place
from imcsim.mapping.program import Program, Task
from imcsim.mapping.streams import live_tensors, room_of_streams
from imcsim.sim import simulate
from imcsim.sim.engine import play
from imcsim.sim.explanation import explain

every_burst = pytest.mark.parametrize("burst", [None, 1, 1000])


def task(name, unit, n_items, work_ps, *, n_servers=1, lag=0, after=(), behind=()):
    return Task(name, "layer", unit, n_items, work_ps, lag_ps=lag, after=tuple(after), behind=tuple(behind),
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
    return Graph(name="two", inputs=(Tensor("x", (16,), REAL),), ops=ops, outputs=("y",))


CHANNELS = {"main_memory.bits_per_ns": 8.0, "main_memory.n_channels": 8, "main_memory.interleave.piece_bits": 16}


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
                                   "main_memory.interleave.piece_bits": 1})  # fmt: skip
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


# --- network --------------------------------------------------------------------------------------------------------


def two_chunks(*_):
    return [Split(1, 1), Split(2, 1)]


def test_the_network_carries_what_the_chip_says(tiny_chip, tiny_graph):
    sent = {}
    for carries in (["weights"], ["weights", "inputs"], ["weights", "psums"], ["outputs", "weights"]):
        plan = place(tiny_graph, variant(tiny_chip, {"network.carries": carries}), policy=two_chunks)
        tasks = lower(plan, price(plan.chip)).tasks
        sent[carries[-1 if carries[0] == "weights" else 0]] = {
            task.name: task.actions["network.transfer"] for task in tasks if task.unit == "network"
        }
        counted = estimate(plan).counts
        assert {layer: counts["network.transfer"] for layer, counts in counted.items()} == {
            layer: sum(bits for name, bits in sent[list(sent)[-1]].items() if name.startswith(layer))
            for layer in ("conv", "linear")
        }
    assert sent == {
        "weights": {},  # they are resident
        "inputs": {"conv/send.inputs.round0": 4 * 9 * 2, "linear/send.inputs.round0": 8 * 2},
        # one sum of 4 bits for each of 4 x 2 outputs; two of 4 bits for each of 3
        "psums": {"conv/send.psums.round0": 4 * 2 * 4, "linear/send.psums.round0": 2 * 3 * 4},
        "outputs": {"conv/send.outputs": 8 * 2, "linear/send.outputs": 3 * 16},
    }


def test_traffic_goes_from_unit_to_unit_by_way_of_the_network(tiny_chip, tiny_graph):
    chip = variant(tiny_chip, {"network.carries": ["weights", "inputs", "psums", "outputs"]})
    tasks = lower(place(tiny_graph, chip, policy=two_chunks), price(chip)).task_of
    way = ["read.round0", "send.inputs.round0", "access.round0.tile1", "convert.round0.tile1", "send.psums.round0",
           "psums.round0", "psums.read.round0", "reduce.round0", "vpe", "send.outputs", "store"]  # fmt: skip
    for source, reader in pairwise(f"linear/{what}" for what in way):
        assert source in tasks[reader].streams
    # what is on its way holds the PCUs' sums until the network takes them
    assert tasks["linear/send.psums.round0"].rooms.keys() == {
        "linear/convert.round0.tile1", "linear/convert.round0.tile2"
    }  # fmt: skip


def test_a_network_that_carries_more_holds_more_up(tiny_chip, tiny_graph):
    # 8 bits/ns, 10 ns: the 72 bits of the inputs of conv take 9 ns, and each of three kinds of traffic its 10 ns
    base = {"network.bits_per_ns": 8.0, "network.latency_ns": 10.0}
    plans = {
        carries: place(tiny_graph, variant(tiny_chip, base | {"network.carries": ["weights", *carries]}))
        for carries in ((), ("inputs",), ("inputs", "psums", "outputs"))
    }
    none, inputs, everything = (simulate(plan) for plan in plans.values())
    assert none.latency_ns + 2 * 10 < inputs.latency_ns < none.latency_ns + 2 * 10 + 9 + 2
    assert inputs.latency_ns + 4 * 10 < everything.latency_ns
    for trace, plan in zip((none, inputs, everything), plans.values(), strict=True):
        assert estimate(plan).latency_ns == pytest.approx(trace.latency_ns, rel=0.05)
    assert everything.energy_pJ > inputs.energy_pJ > none.energy_pJ


def test_traffic_that_the_network_does_not_know_is_refused(tiny_chip):
    with pytest.raises(
        ConfigError,
        match=r"network\.carries\.1: must be one of weights, inputs, psums, outputs, got 'input'; did you mean",
    ):
        load_chip("tim-dnn", {"network.carries": ["weights", "input"]})
    with pytest.raises(ConfigError, match=r"network\.carries: must be a list, got 'weights'$"):
        load_chip("tim-dnn", {"network.carries": "weights"})
    with pytest.raises(
        ConfigError, match=r"network\.carries: must name weights, got \['inputs'\]; they have no other way"
    ):
        load_chip("tim-dnn", {"network.carries": ["inputs"]})
    with pytest.raises(ConfigError, match=r"network\.carries: must name everything once, got \['weights', 'weights'\]"):
        load_chip("tim-dnn", {"network.carries": ["weights", "weights"]})


# --- block decoders -------------------------------------------------------------------------------------------------


def selecting(chip, latency_ns):
    return variant(chip, {"tile.block_select.latency_ns": latency_ns})


def test_a_decoder_selects_a_block_while_the_array_is_busy_with_the_one_before(tiny_chip, tiny_graph):
    ends = {}
    for latency_ns in (0.0, 0.5, 2.3, 5.0):
        plan = place(tiny_graph, selecting(tiny_chip, latency_ns), policy=as_they_are)
        spans = {span.task: span for span in simulate(plan, burst=1).spans}
        access = spans["conv/access.round0.tile0"]
        ends[latency_ns] = access.end_ps - spans["conv/read.round0"].start_ps
        assert ("conv/select.round0.tile0" in spans) == (latency_ns > 0)
        assert estimate(plan).latency_ns == pytest.approx(simulate(plan).latency_ns, rel=0.01)
    # 12 accesses of 2.3 ns, behind the first selection; or 12 selections, and the last access
    first = ends[0.0] - 12 * 2_300
    assert ends == {0.0: first + 27_600, 0.5: first + 500 + 27_600, 2.3: first + 2_300 + 27_600,
                    5.0: first + 12 * 5_000 + 2_300}  # fmt: skip


def test_a_decoder_has_the_energy_of_its_accesses_and_a_place_in_trace_and_explanation(tiny_chip, tiny_graph):
    costs = [price(chip) for chip in (tiny_chip, selecting(tiny_chip, 5.0))]
    together = [
        costs[0].energy_pJ("tile.access"),
        costs[1].energy_pJ("tile.access") + costs[1].energy_pJ("tile.select"),
    ]
    assert together[0] == pytest.approx(together[1], rel=1e-12)
    assert costs[1].energy_pJ("tile.select") == 0.28
    plan = place(tiny_graph, selecting(tiny_chip, 5.0), policy=as_they_are)
    trace = simulate(plan)
    assert trace.counts["conv"]["tile.select"] == trace.counts["conv"]["tile.access"] == 12
    assert trace.busy_ns["conv"]["tile.decoder"] == estimate(plan).times["conv"].busy_ns["tile.decoder"] == 60.0
    found = explain(trace)
    assert "tile0.decoder" in found.units
    assert found.speedup("tile.decoder", "conv") > 1.1
    assert peaks(plan.chip, costs[1])[0].value == pytest.approx(peaks(tiny_chip, costs[0])[0].value * 2.3 / 5.0)


# --- streams through the activation buffer --------------------------------------------------------------------------


def wide(n_vectors, *, bits=16):
    """An image of *n_vectors* pixels of one number each that goes through a lane and back to main memory."""
    ops = (Op(name="half", input="x", output=Tensor("y", (1, 1, n_vectors), REAL), steps=(Affine(0.5, 0.0),)),)
    return Graph(name="wide", inputs=(Tensor("x", (1, 1, n_vectors), REAL),), ops=ops, outputs=("y",))


@pytest.mark.parametrize(("capacity", "room"), [(8 * 2 * 16, None), (4 * 2 * 16, 4), (2 * 16, 1), (1, 1)])
def test_streams_share_what_room_the_buffer_has(tiny_chip, capacity, room):
    plan = place(wide(1), variant(tiny_chip, {"activation_buffer.capacity_bits": capacity}), n_samples=8)
    assert room_of_streams(plan, plan.layers[0]) == room
    tasks = lower(plan, price(plan.chip)).task_of
    assert tasks["half/read"].rooms == ({} if room is None else {"half/fetch.x": room})
    assert tasks["half/spill.write"].rooms == ({} if room is None else {"half/store": room})


def test_a_buffer_of_few_items_lets_as_many_requests_be_under_way(tiny_chip):
    # 100 ns from a request to main memory to its word, 1 ns more to store it; 8 words of 16 bits, 4 or 1 at a time
    took = {}
    for room in (8, 4, 1):
        chip = variant(tiny_chip, {"activation_buffer.capacity_bits": room * 2 * 16, "main_memory.n_channels": 1})
        plan = place(wide(1), chip, n_samples=8)
        trace = simulate(plan, burst=1)
        took[room] = {span.task: span for span in trace.spans}["half/read"].start_ps, trace.latency_ns
        assert estimate(plan).latency_ns == pytest.approx(trace.latency_ns, rel=0.15)
        assert simulate(plan).latency_ns == pytest.approx(trace.latency_ns, rel=0.01)
    turn_ns = 100 + 1 + 0.016  # a word: 8 ps of main memory, 31 ps of the buffer
    assert took[4][1] - took[8][1] == pytest.approx(turn_ns, abs=0.2)
    assert took[1][1] - took[8][1] == pytest.approx(7 * turn_ns, abs=0.5)


def test_tensors_that_stay_in_the_buffer_take_their_room_from_streams(tiny_chip, tiny_graph):
    plan = place(tiny_graph, variant(tiny_chip, {"activation_buffer.capacity_bits": 32}))
    # the codes of the input, 4 vectors of 8 bits, go through what the 16 bits of the edges leave of 32
    assert [tensor.name for tensor in live_tensors(plan.graph, 1, plan.off_chip)] == ["edges"]
    assert room_of_streams(plan, plan.layers[1]) == 2


# --- instruction memory ---------------------------------------------------------------------------------------------


@every_burst
def test_a_task_behind_another_begins_when_that_one_has_begun(burst):
    tasks = [task("first", "x", 1, 70), task("long", "y", 4, 400, after=["first"]),
             task("load", "z", 1, 10, behind=["long"])]  # fmt: skip
    assert log(*tasks, burst=burst) == {"first": (0, 70), "long": (70, 470), "load": (70, 80)}


def test_tasks_that_wait_for_each_other_to_begin_are_named():
    with pytest.raises(SimulationError, match=r"got 2 that wait: a waits for b to begin; b waits for a$"):
        log(task("a", "x", 1, 1, behind=["b"]), task("b", "y", 1, 1, after=["a"]))


def loads_of(program):
    return {
        task.name: (task.n_items, task.behind)
        for task in program.tasks
        if task.name.partition("/")[2].startswith("instructions")
    }


def test_a_program_that_fits_stays_and_a_longer_one_is_loaded_in_halves_of_the_memory(tiny_chip, tiny_graph):
    found = {}
    for n_entries in (8, 7, 4, 1):
        plan = place(tiny_graph, variant(tiny_chip, {"scheduler.n_entries": n_entries}),
                     style="temporal", policy=as_they_are)  # fmt: skip
        # weights, accesses and one lane for each of two layers, and sums for neither
        assert sum(n_instructions(plan, layer) for layer in plan.layers) == 6
        found[n_entries] = loads_of(lower(plan, price(plan.chip)))
    assert found[8] == found[7] == {}
    assert found[4] == {
        "conv/instructions.0": (2, ()),
        "conv/instructions.1": (1, ()),
        # one entry is free; two more when weights and accesses of conv have begun, one of them for the last
        "linear/instructions.0": (2, ("conv/weights.round0", "conv/read.round0")),
        "linear/instructions.1": (1, ()),
    }
    assert list(found[1].values()) == [
        (1, ()), (1, ("conv/weights.round0",)), (1, ("conv/read.round0",)), (1, ("conv/qu",)),
        (1, ("linear/weights.round0",)), (1, ("linear/read.round0",)),
    ]  # fmt: skip


def test_loading_instructions_takes_main_memory_time_and_energy(tiny_chip, tiny_graph):
    trace = {}
    for n_entries in (128, 4, 1):
        plan = place(tiny_graph, variant(tiny_chip, {"scheduler.n_entries": n_entries}),
                     style="temporal", policy=as_they_are)  # fmt: skip
        trace[n_entries] = simulate(plan)
        assert estimate(plan).counts == {layer: Counter(counts) for layer, counts in trace[n_entries].counts.items()}
    read = {n: sum(counts["main_memory.read"] for counts in t.counts.values()) for n, t in trace.items()}
    assert [read[n] - read[128] for n in (4, 1)] == [6 * 64] * 2
    starts = {n: {span.task: span.start_ps for span in t.spans} for n, t in trace.items()}
    # 128 bits in one of eight channels, 256 bits/ns, 100 ns on their way; behind the 64 bits for the lane and its issue
    assert starts[4]["conv/issue.weights0"] == 250 + 100_000 + 1_000
    assert starts[1]["conv/issue.weights0"] == 250 + 100_000
    # the next ones come when those of conv have begun, accesses last
    assert starts[4]["linear/instructions.0"] == starts[4]["conv/read.round0"] > 200_000
    assert trace[128].latency_ns + 2 * 100 < trace[4].latency_ns < trace[128].latency_ns + 3 * 100
    assert trace[1].latency_ns > trace[4].latency_ns + 100


def test_an_issue_of_several_instructions_is_parted_where_the_memory_ends(tiny_chip, two_readers):
    chip = variant(tiny_chip, {"scheduler.n_entries": 1})
    program = lower(place(two_readers, chip), price(chip))
    issues = [task for task in program.tasks if task.name.startswith("add/issue.lanes")]
    assert [(task.name, task.n_items) for task in issues] == [("add/issue.lanes", 1), ("add/issue.lanes.1", 1)]
    assert issues[1].after[-1] == "add/issue.lanes"
    assert loads_of(program)["add/instructions.2"] == (1, ("add/issue.lanes",))


def test_time_steps_are_a_loop_unless_one_of_them_exceeds_the_memory():
    plans = {
        n_entries: place(load_workload("lstm-ptb"), load_chip("tim-dnn", {"scheduler.n_entries": n_entries}))
        for n_entries in (8, 7)
    }
    n_steps = 35
    assert [n_instructions(plan, plan.layers[1]) for plan in plans.values()] == [8, 8 * n_steps]
    assert loads_of(lower(plans[8], price(plans[8].chip))) == {}
    loads = loads_of(lower(plans[7], price(plans[7].chip)))
    assert sum(n for n, _ in loads.values()) == 8 * n_steps
    assert estimate(plans[7]).latency_ns == pytest.approx(simulate(plans[7]).latency_ns, rel=0.1)
    works = {n_entries: estimate(plan).period.busy_ns["main_memory"] for n_entries, plan in plans.items()}
    assert works[7] - works[8] == pytest.approx(8 * n_steps * 64 / 2048)  # bits of the entries / bits a ns


def test_a_pipeline_keeps_the_instructions_of_all_layers(tiny_chip, tiny_graph):
    message = (
        r"^tiny: pipelined, the instructions of all layers must stay in the memory of the scheduler, 3 entries, "
        r"got 4; use spatial or increase scheduler.n_entries$"
    )
    with pytest.raises(MappingError, match=message):
        place(tiny_graph, variant(tiny_chip, {"scheduler.n_entries": 3}), style="pipelined", policy=as_they_are)
    place(tiny_graph, variant(tiny_chip, {"scheduler.n_entries": 4}), style="pipelined", policy=as_they_are)
