"""Several banks and chips, by hand: exact times over a link, what crosses, ways, what is refused."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from strategies import TIM_DNN, many_banks, variant

from imcsim.analytic import estimate
from imcsim.analytic.across import time_across
from imcsim.analytic.counts import derive_across
from imcsim.analytic.timing import Clock
from imcsim.analytic.variants import estimate_variants
from imcsim.arch.load import load_chip
from imcsim.costs.peaks import peaks
from imcsim.costs.price import price
from imcsim.errors import ConfigError, MappingError
from imcsim.graph import REAL, TERNARY, Flatten, Graph, LogSoftmax, Op, Product, Tensor, Threshold
from imcsim.mapping.across import write_across
from imcsim.mapping.links import route
from imcsim.mapping.lower import _Writer, lower
from imcsim.mapping.place import as_they_are, greatest_rate, least_time, place
from imcsim.sim import serve, simulate
from imcsim.sim.explanation import explain
from imcsim.ternary import PlaneSum
from imcsim.workloads import load_workload

EASY = {  # one tile of 4 x 4 cells in a bank, 8 bits/ns wherever bits go, 1 ns wherever else nothing is said
    "n_tiles": 1,
    "tile.n_rows": 4,
    "tile.n_columns": 4,
    "tile.rows_per_access": 4,
    "tile.n_pcus": 4,
    "tile.access.latency_ns": 2.0,
    "tile.access.interval_ns": 2.0,
    "tile.conversion.latency_ns": 1.0,
    "tile.conversion.interval_ns": 1.0,
    "sfu.qu.n_lanes": 4,
    "main_memory.latency_ns": 10.0,
    "main_memory.bits_per_ns": 8.0,
    "main_memory.n_channels": 1,
    **{f"{buffer}_buffer.{port}.latency_ns": 0.0 for buffer in ("activation", "psum") for port in ("read", "write")},
    **{f"{buffer}_buffer.{port}.bits_per_ns": 8.0 for buffer in ("activation", "psum") for port in ("read", "write")},
}

QUANTIZER = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)


def chain_of(*widths):
    """Linear layers of so many inputs and outputs, ternary codes between them; the last one gives numbers."""
    ops = [Op(name="q", input="x", output=Tensor("t0", (widths[0],), TERNARY), steps=(QUANTIZER,))]
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        is_last = i == len(widths) - 2
        weights = PlaneSum(planes=[np.ones((n_out, n_in), dtype=np.int8)], factors=[1])
        ops.append(
            Op(
                name=f"fc{i}",
                input=f"t{i}",
                output=Tensor(f"t{i + 1}", (n_out,), REAL if is_last else TERNARY),
                product=Product(kind="linear", weights=weights),
                steps=() if is_last else (QUANTIZER,),
            )
        )
    return Graph(
        name="chain", inputs=(Tensor("x", (widths[0],), REAL),), ops=tuple(ops), outputs=(f"t{len(widths) - 1}",)
    )


def easy(n_chips=2, **link):
    return many_banks(variant(TIM_DNN, EASY), n_chips=n_chips, **{"latency_ns": 20.0, "bits_per_ns": 2.0} | link)


def units_of(program):
    return {task.unit: task for task in program.tasks}


def test_two_chips_with_a_layer_each_take_the_time_of_their_units_and_of_the_link():
    plan = place(chain_of(4, 4, 4), easy(), style="spatial")
    assert [sorted({s.tile for r in layer.rounds for s in r.shards}) for layer in plan.layers] == [[], [0], [1]]
    trace = simulate(plan, burst=1)
    # ns, one vector of 4 codes of 2 bits: 1 + 9.875 main memory (10 ns a first bit), 1 fill, 1 read, 2 access, 1
    # convert, 1 + 0.75 quantize; 4 + 19.5 over the link; 1 store, 1 issue, 1 read, 2 access, 1 convert; 64 bits of
    # output: 8 store, 8 read, 8 + 9.875 main memory
    assert trace.latency_ns == 81.0
    (sent,) = [span for span in trace.spans if span.unit == "chip_link.0-1"]
    assert (sent.start_ps, sent.end_ps, sent.busy_ps) == (17_625, 41_125, 4_000)
    assert trace.counts["fc0"]["chip_link.transfer"] == 8
    assert {span.unit.partition(".")[0] for span in trace.spans if span.layer == "fc1"} == {"chip1"}
    assert estimate(plan).latency_ns == pytest.approx(81.0)


def test_a_network_that_one_chip_cannot_hold_is_resident_in_two_and_the_refusal_says_how_many():
    graph = chain_of(4, 4, 4)
    with pytest.raises(MappingError, match=r"use temporal, or 2 such chips \(n_chips\)$"):
        place(graph, easy(n_chips=1), style="spatial")
    assert place(graph, easy(n_chips=1)).style == "temporal"
    assert place(graph, easy()).style == "spatial"


def test_psums_of_rows_in_two_chips_are_added_in_one_of_them():
    plan = place(chain_of(8, 4), easy(), policy=as_they_are)
    layer = plan.layers[1]
    assert (layer.n_row_chunks, layer.home, plan.style) == (2, 0, "spatial")
    program = lower(plan, price(plan.chip))
    units = units_of(program)
    bits = 4 * layer.psum_bits
    assert units["chip_link.1-0"].actions == {"chip_link.transfer": bits}
    assert units["chip0.psum_buffer.write"].actions == {"psum_buffer.write": 2 * bits}
    assert units["chip0.reduce_unit"].actions == {"reduce_unit.add": 4}
    assert "chip_link.0-1" not in units
    assert "chip1.psum_buffer.write" not in units
    assert set(units["chip0.psum_buffer.write"].streams) == {
        "fc0/convert.round0.tile0.chip0",
        "fc0/psums.round0.1-0.chip_link.1-0",
    }


def test_columns_in_two_chips_are_done_there_and_each_reads_the_whole_input():
    plan = place(chain_of(4, 8, 4), many_banks(variant(TIM_DNN, EASY), n_chips=4), policy=as_they_are)
    units = units_of(lower(plan, price(plan.chip)))
    assert plan.layers[1].goes_to == (2, 3)  # the rows of the next layer lie there
    for chip in (0, 1):
        assert units[f"chip{chip}.sfu.qu"].actions == {"sfu.qu": 4}
    # 4 codes of 2 bits from each half to both readers; those of chip 0 pass chip 1
    sent = [task for task in lower(plan, price(plan.chip)).tasks if task.name.startswith("fc0/send")]
    assert {task.name.removeprefix("fc0/send."): task.actions.total() for task in sent} == {
        "0.chip_link.0-1": 8, "0.chip_link.1-2": 8, "0.chip_link.2-3": 8, "1.chip_link.1-2": 8, "1.chip_link.2-3": 8,
    }  # fmt: skip


def test_what_two_senders_share_is_one_link_first_come_first_served():
    plan = place(chain_of(4, 8, 4), many_banks(variant(TIM_DNN, EASY), n_chips=4, bits_per_ns=1.0), policy=as_they_are)
    spans = [span for span in simulate(plan, burst=1).spans if span.unit == "chip_link.1-2"]
    works = sorted((span.bursts[0].start_ps, span.bursts[0].start_ps + span.busy_ps) for span in spans)
    assert [end - start for start, end in works] == [8000, 8000]
    assert works[1][0] >= works[0][1]


@pytest.mark.parametrize(
    ("topology", "way"),
    [
        ("chain", ["chip_link.0-1", "chip_link.1-2", "chip_link.2-3", "chip_link.3-4"]),
        ("ring", ["chip_link.0-4"]),
        ("all-to-all", ["chip_link.0-4"]),
    ],
)
def test_the_way_from_chip_0_to_chip_4_of_5(topology, way):
    chip = many_banks(TIM_DNN, n_chips=5, topology=topology)
    assert [hop.unit for hop in route(chip, 0, [4])] == way


def test_ways_between_chips_lead_by_way_of_their_first_banks_and_share_their_links():
    chip = many_banks(TIM_DNN, n_banks=2, n_chips=2)
    assert [hop.unit for hop in route(chip, 1, [2, 3])] == [
        "chip0.bank_link.1-0",
        "chip_link.0-1",
        "chip1.bank_link.0-1",
    ]
    assert [(hop.source, hop.target) for hop in route(chip, 1, [2, 3])] == [(1, 0), (0, 2), (2, 3)]


@pytest.mark.parametrize("style", ["spatial", "temporal"])
def test_across_one_bank_tasks_counts_and_times_are_those_of_a_chip_of_one(tiny_chip, tiny_graph, style):
    for policy in (as_they_are, least_time):
        plan, costs = place(tiny_graph, tiny_chip, style=style, policy=policy), price(tiny_chip)
        across, clock, other = _Writer(plan, costs, "inference"), Clock(plan, costs), Clock(plan, costs)
        by_formula = estimate(plan, costs)
        for layer in plan.layers[1:]:
            write_across(across, layer)
            counted = derive_across(plan, layer).counts()
            assert +counted == +by_formula.counts[layer.name]  # without zeros
            there, here = time_across(clock, layer), other.layer(layer)
            assert (there.added_ns, there.least_ns) == pytest.approx((here.added_ns, here.least_ns))
        assert tuple(across.task_of.values()) == lower(plan, costs).tasks


def test_a_chip_of_one_bank_has_nothing_of_links_that_it_describes(tiny_chip, tiny_graph):
    described = many_banks(tiny_chip)
    assert price(described) == price(tiny_chip)
    for style in ("spatial", "temporal", "pipelined"):
        plan, other = place(tiny_graph, tiny_chip, style=style), place(tiny_graph, described, style=style)
        assert other.layers == plan.layers
        assert simulate(other).spans == simulate(plan).spans
        assert estimate(other).to_rows() == estimate(plan).to_rows()


def test_areas_leakage_and_peaks_are_those_of_all_banks_and_chips():
    one, many = price(TIM_DNN), price(many_banks(TIM_DNN, n_banks=2, n_chips=3))
    areas, of_one = {a.component: a for a in many.areas}, {a.component: a for a in one.areas}
    for component, times in {"tile.array": 6, "psum_buffer": 6, "sfu.qu": 6, "scheduler": 6, "network": 3}.items():
        assert areas[component].area_um2 == pytest.approx(times * of_one[component].area_um2)
        assert areas[component].leakage_mW == pytest.approx(times * of_one[component].leakage_mW)
    # chains: 2 directions between the 2 banks of each chip, 4 between 3 chips
    assert (areas["bank_link"].n_instances, areas["chip_link"].n_instances) == (6, 4)
    assert areas["chip_link"].area_um2 == 4 * 1000.0
    figures = {peak.name: peak for peak in peaks(many_banks(TIM_DNN, n_banks=2, n_chips=3), many)}
    alone = {peak.name: peak for peak in peaks(TIM_DNN, one)}
    assert figures["peak_TOPS"].value == pytest.approx(6 * alone["peak_TOPS"].value)
    assert figures["main_memory_power_mW"].value == pytest.approx(3 * alone["main_memory_power_mW"].value)
    assert figures["tile_TOPS_per_W"].value == pytest.approx(alone["tile_TOPS_per_W"].value)
    assert figures["power_mW"].printed is None


def test_time_on_links_is_explained(tmp_path):
    trace = simulate(place(chain_of(4, 4, 4), easy(bits_per_ns=0.01), style="spatial"))
    why = explain(trace)
    assert why.bound_by["fc0"] == "chip_link"
    assert "the links between chips" in why.sentences[0]
    assert {"chip0.tile0.array", "chip_link.0-1"} <= set(why.units)


def test_pipelined_chips_serve_more_than_they_could_one_after_the_other():
    graph = chain_of(4, 4, 4, 4, 4)
    spatial, pipelined = (place(graph, easy(n_chips=4), style=style) for style in ("spatial", "pipelined"))
    assert estimate(pipelined).throughput_per_s > 1.5 * estimate(spatial).throughput_per_s
    assert [layer.home for layer in pipelined.layers[1:]] == [0, 1, 2, 3]


def test_banks_that_share_the_work_of_a_pipeline_are_about_as_busy():
    graph = chain_of(*[4] * 9)
    chip = many_banks(variant(TIM_DNN, EASY | {"n_tiles": 4}), n_chips=4)
    plan = place(graph, chip, style="pipelined", policy=greatest_rate)
    of_chip = {c: [layer.home for layer in plan.layers[1:]].count(c) for c in range(4)}
    assert of_chip == {0: 2, 1: 2, 2: 2, 3: 2}


def test_a_pipeline_that_a_link_holds_up_serves_what_the_link_lets_through():
    chip = many_banks(variant(TIM_DNN, EASY | {"n_tiles": 4}), n_chips=4, latency_ns=3.0, bits_per_ns=0.5)
    plan = place(chain_of(*[4] * 8, 1), chip, style="pipelined")
    period = estimate(plan).period
    assert period.period_ns == 16.0  # 4 codes of 2 bits at 0.5 bits/ns; its latency holds nobody up
    assert period.bound_by.startswith("chip_link.")
    assert set(np.diff(serve(plan, [0.0] * 12).ends_ps)) == {16_000}


def test_a_resnet34_over_sixteen_chips_takes_the_time_of_the_formula():
    plan = place(load_workload("resnet34"), load_chip("tim-dnn-x16"), style="pipelined", policy=as_they_are)
    assert len({s.tile // 32 for layer in plan.layers for r in layer.rounds for s in r.shards}) >= 12
    assert simulate(plan).latency_ns == pytest.approx(estimate(plan).latency_ns, rel=0.05)


def test_variants_of_links_and_numbers_of_chips_are_estimated_together():
    graph, chip = chain_of(4, 4, 4), easy()
    changes = {
        "n_chips": [2, 3, 2],
        "chip_link.topology": ["chain", "ring", "ring"],
        "chip_link.bits_per_ns": [1.0, 2.0, 4.0],
    }
    found = estimate_variants(graph, chip, changes)
    for i in range(3):
        alone = estimate(place(graph, variant(chip, {key: values[i] for key, values in changes.items()})))
        assert found.latency_ns[i] == pytest.approx(alone.latency_ns)
        assert found.area_um2[i] == pytest.approx(alone.area_um2)
    with pytest.raises(ConfigError, match=r"^chip_link.bits_per_ns: must be a key of tim-dnn, got one of a record"):
        estimate_variants(graph, TIM_DNN, {"chip_link.bits_per_ns": [1.0]})


def test_a_layer_whose_steps_mix_channels_is_gathered_in_its_home():
    graph = chain_of(4, 8)
    last = replace(graph.ops[-1], steps=(Flatten(),))
    plan = place(replace(graph, ops=(*graph.ops[:-1], last)), easy(), policy=as_they_are)
    assert not plan.layers[-1].is_gathered

    last = replace(graph.ops[-1], steps=(LogSoftmax(),))
    plan = place(replace(graph, ops=(*graph.ops[:-1], last)), easy(), policy=as_they_are)
    layer = plan.layers[-1]
    units = units_of(lower(plan, price(plan.chip)))
    assert layer.is_gathered
    assert units["chip_link.1-0"].actions == {"chip_link.transfer": 4 * layer.psum_bits}
    assert "chip1.sfu.spe" not in units


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_chips": 2}, r"n_chips: must be 1 without chip_link, got 2; describe chip_link"),
        ({"n_banks": 3}, r"n_banks: must be 1 without bank_link, got 3; describe bank_link"),
        ({"n_chips": 0}, r"n_chips: must be at least 1, got 0"),
    ],
)
def test_a_chip_that_lacks_its_link_is_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load_chip("tim-dnn", overrides=changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chip_link.bits_per_ns": 0}, r"chip_link\.bits_per_ns: must be greater than 0, got 0"),
        ({"chip_link.topology": "star"}, r"chip_link\.topology: must be one of chain, ring, all-to-all, got 'star'"),
    ],
)
def test_a_link_that_cannot_be_is_refused_in_one_line(changes, message):
    with pytest.raises(ConfigError, match=message):
        load_chip("tim-dnn-x16", overrides=changes)
