from collections import defaultdict

import numpy as np
import pytest
from strategies import TIM_DNN, plane_sum, variant

from imcsim.analytic.counts import count_actions
from imcsim.costs.price import price
from imcsim.errors import MappingError
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Add,
    Affine,
    Flatten,
    Graph,
    Op,
    Product,
    Quantize,
    Tensor,
    Threshold,
    unsigned,
)
from imcsim.mapping.digital import is_on_host
from imcsim.mapping.lower import lower
from imcsim.mapping.packing import Tiles
from imcsim.mapping.place import Split, as_they_are, energy_pJ, place
from imcsim.ternary import PlaneSum
from imcsim.workloads import find_workload

QUANTIZER = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)


def linear_graph(n_inputs, n_outputs, bits=1):
    """One linear layer behind a quantizer, all weights 1."""
    product = Product(kind="linear", weights=plane_sum(np.ones((n_outputs, n_inputs), dtype=int), bits))
    return Graph(
        name="one",
        inputs=(Tensor("x", (n_inputs,), REAL),),
        ops=(
            Op(name="quantize", input="x", output=Tensor("codes", (n_inputs,), TERNARY), steps=(QUANTIZER,)),
            Op(name="fc", input="codes", output=Tensor("y", (n_outputs,), REAL), product=product),
        ),
        outputs=("y",),
    )


def places(round_):
    return [(s.tile, s.block, s.column, s.row_start, s.row_stop, s.column_start, s.column_stop) for s in round_.shards]


def test_a_layer_that_fits_one_tile_is_one_shard(tiny_chip):
    plan = place(linear_graph(30, 10), tiny_chip, policy=as_they_are)
    (round_,) = plan.layers[1].rounds
    assert places(round_) == [(0, 0, 0, 0, 30, 0, 10)]
    assert plan.style == "spatial"
    assert plan.n_cells == 300


def test_a_layer_higher_and_wider_than_a_tile_is_cut_into_chunks_and_segments(tiny_chip):
    plan = place(linear_graph(40, 20), tiny_chip, style="spatial", policy=as_they_are)
    layer = plan.layers[1]
    assert (layer.n_row_chunks, layer.psums_per_output) == (2, 2)
    assert places(layer.rounds[0]) == [
        (0, 0, 0, 0, 20, 0, 16),
        (1, 0, 0, 20, 40, 0, 16),
        (2, 0, 0, 0, 20, 16, 20),
        (3, 0, 0, 20, 40, 16, 20),
    ]


def test_all_planes_of_an_output_sit_side_by_side_in_one_tile(tiny_chip):
    plan = place(linear_graph(4, 6, bits=4), tiny_chip, style="spatial", policy=as_they_are)
    assert [(s.column_start, s.column_stop) for s in plan.layers[1].rounds[0].shards] == [(0, 15), (15, 18)]


def test_layers_that_fit_together_share_tiles(tiny_chip, tiny_graph):
    plan = place(tiny_graph, variant(tiny_chip, {"n_tiles": 1}), policy=as_they_are)
    conv, linear = plan.layers[1:]
    assert places(conv.rounds[0]) == [(0, 0, 0, 0, 9, 0, 2)]
    assert places(linear.rounds[0]) == [(0, 0, 2, 0, 8, 0, 3)]
    assert plan.shards_of_tile == {0: 2}


def test_tiles_that_are_left_over_hold_copies(tiny_chip, tiny_graph):
    conv = place(tiny_graph, tiny_chip).layers[1]
    assert conv.n_replicas * conv.n_row_chunks > 1
    assert sum(conv.vectors_of(replica) for replica in range(conv.n_replicas)) == conv.n_vectors == 4


def test_vectors_are_shared_out_to_copies_as_evenly_as_can_be(tiny_chip, tiny_graph):
    def four(layers, chip, style):
        return [Split(1, 3), Split(1, 1)]

    layer = place(tiny_graph, tiny_chip, policy=four).layers[1]
    assert [layer.vectors_of(replica) for replica in range(3)] == [2, 1, 1]


def test_what_does_not_fit_at_once_runs_round_after_round(tiny_chip):
    plan = place(linear_graph(64, 64), tiny_chip, policy=as_they_are)
    assert plan.style == "temporal"
    assert [len(round_.shards) for round_ in plan.layers[1].rounds] == [4, 4]


def test_a_round_begins_behind_the_tiles_of_the_last_so_that_writing_finds_tiles_at_rest(tiny_chip):
    plan = place(linear_graph(32, 16 * 3), variant(tiny_chip, {"n_tiles": 2}), policy=as_they_are)
    assert [round_.tiles for round_ in plan.layers[1].rounds] == [(0, 1), (0,)]


def test_a_plan_knows_what_each_layer_sends_and_sums(tiny_chip, tiny_graph):
    quantize, conv, linear = place(tiny_graph, tiny_chip, n_samples=5).layers
    assert not quantize.is_on_tiles
    assert (conv.n_vectors, conv.n_rows, conv.n_columns, conv.n_passes, conv.bits_per_digit) == (20, 9, 2, 1, 2)
    assert conv.psum_bits == 4  # three blocks with counts up to 2: from -6 to 6
    assert (linear.n_vectors, linear.n_outputs) == (5, 3)


def test_large_inputs_and_outputs_go_through_main_memory(tiny_chip, tiny_graph):
    assert place(tiny_graph, tiny_chip).off_chip == {"codes", "scores"}
    assert place(tiny_graph, variant(tiny_chip, {"activation_buffer.capacity_bits": 15})).off_chip == {
        "codes",
        "edges",
        "scores",
    }
    assert place(tiny_graph, variant(tiny_chip, {"activation_buffer.capacity_bits": 31}), n_samples=2).off_chip == {
        "codes",
        "edges",
        "scores",
    }


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_of_two_tensors_of_one_size_the_later_goes_to_main_memory_whatever_their_names(tiny_chip, names):
    first, second = names
    ops = (
        Op(name="1", input="x", output=Tensor(first, (4,), REAL), steps=(Affine(2.0, 0.0),)),
        Op(name="2", input=first, output=Tensor(second, (4,), REAL), steps=(Affine(2.0, 0.0),)),
        Op(name="3", input=second, output=Tensor("y", (4,), REAL), steps=(Add(first),)),
    )
    graph = Graph(name="g", inputs=(Tensor("x", (4,), REAL),), ops=ops, outputs=("y",))
    one_fits = variant(tiny_chip, {"activation_buffer.capacity_bits": 64})
    assert place(graph, one_fits).off_chip == {"x", second, "y"}


def test_the_host_quantizes_the_input_and_hands_over_codes(tiny_chip, tiny_graph):
    plan = place(tiny_graph, tiny_chip)
    assert [plan.is_on_host(layer) for layer in plan.layers] == [True, False, False]
    assert plan.lane_work(plan.layers[0]) == {}
    assert plan.lane_work(plan.layers[1]) == {"qu": 8}


def test_an_input_that_a_chip_reads_as_it_is_comes_from_main_memory_too(tiny_chip):
    graph = linear_graph(4, 4)
    raw = Op(name="raw", input="x", output=Tensor("double", (4,), REAL), steps=(Affine(2.0, 0.0),))
    plan = place(Graph(name="g", inputs=(graph.input,), ops=(*graph.ops, raw), outputs=("y",)), tiny_chip)
    assert {"x", "codes", "y"} <= plan.off_chip
    assert "x" not in place(graph, tiny_chip).off_chip


def test_unsigned_digits_travel_in_one_bit_and_ternary_ones_in_two(tiny_chip):
    graph = linear_graph(4, 4)
    codes = Threshold([[0.5, 1.5, 2.5]], [0, 1, 2, 3], unsigned(2))
    first = Op(name="quantize", input="x", output=Tensor("codes", (4,), unsigned(2)), steps=(codes,))
    layer = place(Graph(name="g", inputs=(graph.input,), ops=(first, graph.ops[1]), outputs=("y",)), tiny_chip).layers[
        1
    ]
    assert (layer.n_passes, layer.bits_per_digit) == (2, 1)


# --- messages -------------------------------------------------------------------------------------------------------


def test_less_than_one_sample_is_refused(tiny_chip, tiny_graph):
    with pytest.raises(MappingError, match=r"^n_samples: must be at least 1, got 0$"):
        place(tiny_graph, tiny_chip, n_samples=0)


def test_what_does_not_fit_spatially_is_said_layer_by_layer(tiny_chip):
    message = (
        r"^one: must fit into the 2048 cells of tim-dnn at once, got fc 4096 cells; "
        r"use temporal, or 2 such chips \(n_chips\)$"
    )
    with pytest.raises(MappingError, match=message):
        place(linear_graph(64, 64), tiny_chip, style="spatial")


@pytest.mark.parametrize("n_tiles", [2, 3, 4])
def test_layers_that_only_fit_side_by_side_are_packed_tightly(n_tiles):
    chip = variant(TIM_DNN, {"n_tiles": n_tiles})
    plan = place(find_workload("digits-ternary-cnn").graph(), chip)  # conv3 alone is three chunks, 12 blocks high
    assert plan.style == "spatial"
    cells = np.zeros((n_tiles, chip.tile.n_blocks, chip.tile.n_columns), int)
    for layer in plan.layers:
        assert sum(s.n_rows * s.n_columns for r in layer.rounds for s in r.shards) == layer.n_cells * layer.n_replicas
        for shard in (shard for round_ in layer.rounds for shard in round_.shards):
            last = shard.block + shard.n_blocks(chip.tile.rows_per_access)
            cells[shard.tile, shard.block : last, shard.column : shard.column + shard.n_columns] += 1
    assert cells.max() == 1


def test_planes_that_do_not_fit_side_by_side_are_refused():
    narrow = variant(TIM_DNN, {"tile.n_columns": 4, "tile.n_pcus": 2})
    message = r"^fc: the 5 weight planes of one output must fit side by side, got a tile of 4 columns$"
    with pytest.raises(MappingError, match=message):
        place(linear_graph(4, 4, bits=6), narrow)


def test_a_policy_that_asks_for_too_much_is_refused(tiny_chip):
    with pytest.raises(MappingError, match=r"^one: the policy's splits must fit into tim-dnn at once, got more$"):
        place(linear_graph(30, 10), tiny_chip, style="spatial", policy=lambda layers, chip, style: [Split(1, 64)])


def test_flattening_beside_the_input_quantizer_stays_with_the_host():
    quantizer = Threshold([[0.5]], [0, 1], unsigned(1))
    op = Op(name="in", input="x", output=Tensor("codes", (4,), unsigned(1)), steps=(quantizer, Flatten()))
    graph = Graph(name="g", inputs=(Tensor("x", (1, 2, 2), REAL),), ops=(op,), outputs=("codes",))
    assert is_on_host(op, graph)


def grouped_plan(chip, group_size, n_inputs=40, n_outputs=3, **options):
    n_groups = -(-n_inputs // group_size)
    weights = PlaneSum(
        planes=np.ones((1, n_outputs, n_inputs)),
        factors=[1],
        group_size=group_size,
        group_scale=np.ones((n_outputs, n_groups)),
    )
    form = unsigned(2)
    ops = (
        Op(name="q", input="x", output=Tensor("c", (n_inputs,), form), steps=(Quantize(form),)),
        Op(
            name="fc",
            input="c",
            output=Tensor("y", (n_outputs,), REAL),
            product=Product(kind="linear", weights=weights),
        ),
    )
    graph = Graph(name="grouped", inputs=(Tensor("x", (n_inputs,), REAL),), ops=ops, outputs=("y",))
    return place(graph, chip, policy=as_they_are, **options)


def test_blocks_do_not_straddle_groups_of_inputs(tiny_chip):
    # blocks of 4 rows, 5 of them a tile; groups of 10 inputs take 3 blocks of 4, 4 and 2 rows: 12 blocks, 4 a tile
    plan = grouped_plan(variant(tiny_chip, {"tile.n_rows": 20}), 10)
    layer = plan.layers[1]
    shards = layer.rounds[0].shards
    assert layer.n_blocks(4) == 12
    assert [(s.row_start, s.row_stop, s.row_groups) for s in shards] == [
        (0, 14, (10, 4)),
        (14, 28, (6, 8)),
        (28, 40, (2, 10)),
    ]
    assert [s.n_blocks(4) for s in shards] == [4, 4, 4]
    assert (layer.psums_per_output, layer.adds_per_output) == (6, 2)  # two groups are cut and added up again
    counts = count_actions(plan)["fc"]
    assert counts["tile.access"] == 12 * 2
    assert counts["psum_buffer.write"] == 6 * 3 * layer.psum_bits
    assert counts["sfu.vpe"] == 3 * 4  # a multiply-add for each output and group


def test_groups_as_large_as_blocks_cost_no_more_accesses(tiny_chip):
    assert grouped_plan(tiny_chip, 4).layers[1].n_blocks(4) == grouped_plan(tiny_chip, 40).layers[1].n_blocks(4) == 10
    assert grouped_plan(tiny_chip, 1).layers[1].n_blocks(4) == 40


def test_asymmetric_weights_are_not_sensed_as_n_alone(tiny_chip):
    chip = variant(tiny_chip, {"tile.sense": "n"})
    for minus, sense in ((1.0, "n"), (0.5, "both")):
        weights = PlaneSum(planes=np.ones((1, 2, 4)), factors=[1], minus=minus)
        sign = Threshold([[0.0]], [-1, 1], BINARY)
        ops = (
            Op(name="q", input="x", output=Tensor("c", (4,), BINARY), steps=(sign,)),
            Op(name="fc", input="c", output=Tensor("y", (2,), REAL), product=Product(kind="linear", weights=weights)),
        )
        graph = Graph(name="dense", inputs=(Tensor("x", (4,), REAL),), ops=ops, outputs=("y",))
        assert place(graph, chip).layers[1].sense == sense


def test_psums_that_wait_for_a_later_round_go_to_main_memory_where_half_of_the_buffer_is_full(tiny_chip):
    # 64 rows of 9 outputs in a single tile of 32 rows and 16 columns: each waits for the second round with a psum
    one_tile = variant(tiny_chip, {"n_tiles": 1})
    graph = linear_graph(64, 9)
    bits = place(graph, one_tile, policy=as_they_are).layers[1].psum_bits
    spilt = {}
    for psums in (4, 18):
        plan = place(graph, variant(one_tile, {"psum_buffer.capacity_bits": psums * bits}), policy=as_they_are)
        first, second = plan.psum_flows(plan.layers[1])
        assert (first.n_written, first.n_read, second.n_written, second.n_read) == (9, 0, 9, 18)
        assert (first.n_outputs, second.n_outputs) == (0, 9)
        assert (second.spilt_bits, first.fetched_bits, second.fetched_bits) == (0, 0, first.spilt_bits)
        program = lower(plan, price(plan.chip))
        assert +count_actions(plan)["fc"] == +program.actions["fc"]
        spilt[psums] = first.spilt_bits, "fc/psums.spill.round0" in program.task_of
    assert spilt == {4: (7 * bits, True), 18: (0, False)}


def test_a_psum_buffer_that_cannot_stream_is_refused(tiny_chip):
    small = variant(tiny_chip, {"n_tiles": 1, "psum_buffer.capacity_bits": 3})
    message = r"^fc: the psum buffer of tim-dnn must hold 4 psums \(\d+ bits\), got 3 bits; increase psum_buffer.cap"
    with pytest.raises(MappingError, match=message):
        place(linear_graph(64, 3), small)


def test_a_policy_may_weigh_splits_whose_psums_would_have_no_room(tiny_chip):
    small = variant(tiny_chip, {"psum_buffer.capacity_bits": 3})
    graph = linear_graph(32, 3)  # as tall as a tile: one chunk makes no psums, two do
    whole = place(graph, small, style="temporal", policy=as_they_are).layers[1]
    costs = price(small)
    assert energy_pJ(whole, Split(2, 1), small, costs) > energy_pJ(whole, Split(1, 1), small, costs)


@pytest.mark.parametrize("seed", range(10))
def test_rectangles_filled_together_lie_where_one_after_the_other_finds_room(seed):
    chip = variant(TIM_DNN, {"n_tiles": 5})
    draw = np.random.default_rng(seed)
    tiles, together = Tiles(chip), Tiles(chip)
    while True:
        sizes = [(int(draw.integers(1, 3)), int(draw.choice([96, 100, 200]))) for _ in range(draw.integers(1, 20))]
        load = defaultdict(int)
        fits = all(tiles.take(*size, load) for size in sizes)
        assert together.fill(sizes) == fits
        assert (together.free, together.load) == (tiles.free, tiles.load)
        if not fits:
            break
    assert sum(tiles.load) > 20  # of 80 blocks: it went on for several layers
