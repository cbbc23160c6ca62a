"""Recurrent layers: what their records must hold, what one step gives, and that each time step waits for the last."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from imcsim.analytic import estimate
from imcsim.analytic.counts import count_actions
from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.functional.execute import execute, run
from imcsim.functional.reference import reference, tensors_of
from imcsim.graph import (
    REAL,
    TERNARY,
    Add,
    Affine,
    Embedding,
    Graph,
    GruCell,
    LogSoftmax,
    LstmCell,
    Op,
    Product,
    Quantize,
    Tensor,
    Threshold,
    signed,
    unsigned,
)
from imcsim.graph.capture import capture
from imcsim.graph.passes import simplify
from imcsim.mapping.digital import digital_work
from imcsim.mapping.place import place
from imcsim.quant import (
    BernoulliActivation,
    SignedActivation,
    TernaryActivation,
    TernaryEmbedding,
    TernaryGRU,
    TernaryLSTM,
)
from imcsim.sim import simulate
from imcsim.ternary import PlaneSum, ternary

HALVES = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)


def product(rows, kind="lstm"):
    return Product(kind=kind, weights=ternary().plane_sum(np.array(rows)))


def graph_of(rows, cell, n_inputs, n_steps, form=TERNARY):
    """A sequence, made ternary, through one recurrent layer."""
    n_hidden = len(rows) // 4
    codes = Tensor("codes", (n_inputs, 1, n_steps), form)
    quantizer = HALVES if form == TERNARY else Quantize(form)
    return Graph(
        name="sequence",
        inputs=(Tensor("x", (n_inputs, 1, n_steps), REAL),),
        ops=(
            Op(name="q", input="x", output=codes, steps=(quantizer,)),
            Op(
                name="rnn",
                input="codes",
                output=Tensor("h", (n_hidden, 1, n_steps), form),
                product=product(rows, cell.kind),
                steps=(cell,),
            ),
        ),
        outputs=("h",),
    )


def one_lstm(n_steps=3, scale=1.0, offset=0.0):
    """One input, one hidden unit: every gate takes x, and g takes h as well."""
    return graph_of([[1, 0], [1, 0], [1, 1], [1, 0]], LstmCell(scale, offset, HALVES), 1, n_steps)


def big_lstm(n_steps=4, n_inputs=6, n_hidden=5):
    rows = np.random.default_rng(0).integers(-1, 2, size=(4 * n_hidden, n_inputs + n_hidden))
    return graph_of(rows, LstmCell(0.5, 0.0, HALVES), n_inputs, n_steps)


# --- values by hand -------------------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_an_lstm_steps_as_written_by_hand(ideal_chip):
    graph = one_lstm(scale=2.0)
    x = np.array([[[[1.0, 1.0, 0.0]]]])
    c1 = sigmoid(2) * math.tanh(2)
    assert sigmoid(2) * math.tanh(c1) > 0.5  # so the first code is 1
    c2 = sigmoid(2) * c1 + sigmoid(2) * math.tanh(4)
    assert sigmoid(2) * math.tanh(c2) > 0.5
    c3 = 0.5 * c2 + 0.5 * math.tanh(2)
    assert 0.5 * math.tanh(c3) < 0.5  # and the third is 0
    for found in (reference(graph, x), execute(place(graph, ideal_chip), x)):
        assert found.tolist() == [[[[1, 1, 0]]]]


def test_a_gru_resets_the_hidden_sum_alone(ideal_chip):
    # r and z see nothing; a takes x and b takes h: h = n + (h - n) / 2 with n = tanh(a + b / 2)
    rows = [[0, 0], [0, 0], [1, 0], [0, 1]]
    graph = graph_of(rows, GruCell([1, 1, 2, 2], 0.0, HALVES), 1, 3)
    x = np.array([[[[1.0, 1.0, -1.0]]]])
    h1 = math.tanh(2) / 2  # 0.48: the code is 0
    h2 = (math.tanh(2) + h1) / 2  # 0.72: the code is 1
    h3 = (math.tanh(-2 + 1) + h2) / 2  # -0.02
    assert h1 < 0.5 < h2
    assert -0.5 < h3 < 0.5
    for found in (reference(graph, x), execute(place(graph, ideal_chip), x)):
        assert found.tolist() == [[[[0, 1, 0]]]]


def test_a_chip_that_clips_goes_on_from_the_codes_that_it_made(tiny_chip):
    # 4 inputs of 1 in one block: n = 4 is read as 2, so the gates are smaller and no code comes out
    rows = np.zeros((4, 5), int)
    rows[:, :4] = 1
    graph = graph_of(rows, LstmCell(0.3, 0.0, HALVES), 4, 2)
    x = np.ones((1, 4, 1, 2))
    found = run(place(graph, tiny_chip), x)
    assert reference(graph, x).tolist() == [[[[0, 1]]]]
    assert found.outputs.tolist() == [[[[0, 0]]]]
    clips = found.clipping["rnn"]
    assert (clips.n_accesses, clips.n_clipped_accesses) == (4, 2)  # two blocks a step: 4 inputs, 1 hidden code
    assert (clips.n_conversions, clips.n_clipped_conversions) == (16, 8)


def test_tokens_become_rows_of_the_table():
    table = Embedding(np.array([[1, -1], [0, 1]]), TERNARY)
    graph = Graph(
        name="tokens",
        inputs=(Tensor("x", (1, 1, 3), REAL),),
        ops=(Op(name="table", input="x", output=Tensor("codes", (2, 1, 3), TERNARY), steps=(table,)),),
        outputs=("codes",),
    )
    x = np.array([[[[1.0, 0.0, 1.0]]]])
    assert tensors_of(graph, x)["codes"].tolist() == [[[[0, 1, 0]], [[1, -1, 1]]]]


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: product(np.ones((6, 3), int)),
            r"lstm: weights must be symmetric, \(4 h, i \+ h\), in one group",
        ),
        (lambda: product(np.ones((8, 2), int)), r"lstm: weights must be symmetric, .* got shape \(8, 2\)"),
        (
            lambda: Product(kind="lstm", weights=PlaneSum(planes=np.ones((1, 4, 3)), factors=[1], minus=0.5)),
            "lstm: weights must be symmetric",
        ),
        (lambda: product(np.ones((4, 3), int), "gru"), "gru: weights must be 0 where the candidate's sum over the inp"),
        (lambda: product(np.ones((4, 3), int)).shape((3, 1, 5)), r"lstm: must get a sequence \(2 1 t\), got shape"),
        (lambda: LstmCell([1.0, 2.0], 0.0, HALVES), r"cell\.scale: must be finite, a number or 4 for each hidden unit"),
        (lambda: GruCell(1.0, np.inf, HALVES), r"cell\.offset: must be finite, a number or 4 for each hidden unit"),
        (lambda: LstmCell(np.ones(8), 0.0, HALVES).shape((4, 1, 3)), "cell: must have constants for 4 sums, got 8"),
        (
            lambda: Embedding(np.ones((2, 2)), TERNARY),
            r"embedding: table must be whole numbers \(tokens codes\), got",
        ),
        (lambda: Embedding(np.full((2, 2), 2), TERNARY), "embedding: table must hold codes of ternary, got 2 to 2"),
        (
            lambda: Embedding(np.ones((2, 2), int), TERNARY).shape((2, 1, 3)),
            r"embedding: must get one token a time step \(1 1 t\), got shape \(2, 1, 3\)",
        ),
    ],
)
def test_records_say_what_must_hold(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def with_layer(graph, **changes):
    return replace(graph, ops=(graph.ops[0], replace(graph.ops[1], **changes)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: with_layer(g, steps=()), "rnn: lstm: its op must have one step alone, got 0"),
        (
            lambda g: with_layer(g, steps=(*g.ops[1].steps, Affine(1.0, 0.0))),
            "rnn: lstm: its op must have one step alone, got 2",
        ),
        (
            lambda g: with_layer(g, steps=(GruCell(1.0, 0.0, HALVES),)),
            "rnn: cell: must follow a product of its kind, gru, got lstm",
        ),
        (lambda g: with_layer(g, product=None), "rnn: cell: must follow a product of its kind, lstm, got none"),
        (
            lambda g: with_layer(g, steps=(LstmCell(1.0, 0.0, Quantize(signed(3))),)),
            r"rnn: cell: its codes must have the format of the layer's input, ternary of scale 1\.0, got s3",
        ),
        (
            lambda g: with_layer(g, product=None, steps=(Embedding(np.ones((2, 1), int), TERNARY),)),
            "rnn: embedding must read an input of the network, got 'codes'",
        ),
    ],
)
def test_a_graph_keeps_cell_and_product_together(change, message):
    with pytest.raises(GraphError, match=message):
        change(one_lstm())


def test_tokens_that_are_not_in_the_table_are_one_line(ideal_chip):
    net = nn.Sequential(TernaryEmbedding(3, 2), TernaryLSTM(2, 2)).eval()
    plan = place(capture(net, torch.zeros(1, 1, 1, 2)), ideal_chip)
    for wrong in (3, -1, 0.5):
        with pytest.raises(DataError, match=rf"^input: must be tokens, whole numbers from 0 to 2, got {wrong}"):
            execute(plan, np.array([[[[0, wrong]]]], float))


def test_weights_of_a_gru_that_are_always_zero_are_not_counted():
    rows = np.zeros((4 * 300, 600), int)
    assert product(rows, "lstm").n_weights == 720_000  # HitNet's sizes
    assert product(rows, "gru").n_weights == 540_000
    graph = graph_of(rows, GruCell(1.0, 0.0, HALVES), 300, 35)
    assert graph.n_macs(graph.ops[1]) == 35 * 540_000
    assert graph.n_vectors(graph.ops[1]) == 35


# --- capture --------------------------------------------------------------------------------------------------------


def test_capture_makes_one_op_of_a_recurrent_layer_and_joins_nothing_to_it():
    net = nn.Sequential(TernaryActivation(), TernaryGRU(3, 4), nn.MaxPool2d((1, 2)), TernaryLSTM(4, 2)).eval()
    graph = capture(net, torch.zeros(1, 3, 1, 6))
    assert [(op.name, op.product and op.product.kind, len(op.steps)) for op in graph.ops] == [
        ("0", None, 1),
        ("1", "gru", 1),
        ("2", None, 1),
        ("3", "lstm", 1),
    ]
    assert [op.output.shape for op in graph.ops] == [(3, 1, 6), (4, 1, 6), (4, 1, 3), (2, 1, 3)]
    assert simplify(graph) == graph


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([TernaryLSTM(3, 2)], "0: its input must be quantized, got real numbers"),
        ([SignedActivation(3), TernaryLSTM(3, 2)], "1: cell: its codes must have the format of the layer's input, s3"),
    ],
)
def test_capture_refuses_inputs_of_another_format(layers, message):
    with pytest.raises(GraphError, match=message):
        capture(nn.Sequential(*layers).eval(), torch.zeros(1, 3, 1, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TernaryLSTM(0, 3), "n_inputs: must be a whole number of at least 1, got 0"),
        (lambda: TernaryGRU(3, 2.0), r"n_hidden: must be a whole number of at least 1, got 2\.0"),
        (lambda: TernaryGRU(3, 2, slope=0), "slope: must be finite and above 0, got 0"),
        (
            lambda: TernaryGRU(3, 2, quantizer=nn.ReLU()),
            "quantizer: must be an activation that gives .* got ReLU",
        ),
        (lambda: TernaryGRU(3, 2, delta_factor=1), "delta_factor: must be from 0 to below 1"),
    ],
)
def test_layers_say_what_they_take(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_table_that_is_no_number_is_refused():
    table = TernaryEmbedding(2, 2)
    table.weight.data[0, 0] = math.nan
    with pytest.raises(GraphError, match="weights: must be finite numbers, got others"):
        table.imc_quantizer()


def test_codes_are_drawn_in_training_and_compared_with_one_half_otherwise():
    draw = BernoulliActivation()
    x = torch.tensor([0.75, -0.25, 0.0]).repeat(4000, 1)
    torch.manual_seed(0)
    assert draw(x).mean(dim=0).tolist() == pytest.approx([0.75, -0.25, 0.0], abs=0.03)
    assert draw.eval()(x)[0].tolist() == [1, 0, 0]


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    net = nn.Sequential(TernaryEmbedding(5, 6), TernaryLSTM(6, 7), TernaryGRU(7, 4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3)  # as it begins, all hidden states are 0
    net(torch.arange(5.0).reshape(1, 1, 1, 5)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


# --- mapping and time -----------------------------------------------------------------------------------------------


def test_the_lanes_do_the_work_of_the_cell():
    graph = big_lstm(n_steps=4, n_hidden=5)
    assert digital_work(graph.ops[1], graph) == {"vpe": 7 * 20, "spe": 5 * 20, "qu": 20}
    gru = graph_of(np.zeros((20, 11), int), GruCell(1.0, 0.0, HALVES), 6, 4)
    assert digital_work(gru.ops[1], gru) == {"vpe": 7 * 20, "spe": 3 * 20, "qu": 20}


def test_log_softmax_takes_a_logarithm_for_each_time_step():
    x = Tensor("x", (3, 1, 5), REAL)
    op = Op(name="s", input="x", output=Tensor("y", (3, 1, 5), REAL), steps=(LogSoftmax(),))
    assert digital_work(op, Graph(name="s", inputs=(x,), ops=(op,), outputs=("y",))) == {"spe": 15 + 5, "vpe": 30}


def test_the_accesses_of_a_time_step_begin_when_the_codes_of_the_last_are_stored(tiny_chip):
    trace = simulate(place(big_lstm(), tiny_chip))
    span_of = {span.task: span for span in trace.spans}
    for t in range(1, 4):
        stored = span_of[f"rnn/store.t{t - 1}"].end_ps
        accesses = [s for name, s in span_of.items() if name.startswith("rnn/access") and name.endswith(f".t{t}")]
        assert accesses
        assert all(span.start_ps >= stored for span in accesses)
        made = span_of[f"rnn/vpe.2.t{t}"]  # f c + i g needs the state that the last step stored
        assert made.end_ps >= span_of[f"rnn/read.state.t{t}"].end_ps >= span_of[f"rnn/store.state.t{t - 1}"].end_ps


def test_what_comes_from_main_memory_ahead_of_time_is_not_what_binds_the_layer():
    plan = place(big_lstm(n_steps=8), load_chip("tim-dnn"))
    trace = simulate(plan)
    assert trace.bound_by["rnn"] == estimate(plan).times["rnn"].bound_by != "main_memory"


@pytest.mark.parametrize("n_steps", [1, 2, 7, 12, 13])
def test_the_formula_follows_steps_that_wait_for_main_memory(n_steps):
    plan = place(one_lstm(n_steps), load_chip("tim-dnn"))  # a step is shorter than the latency of main memory
    assert estimate(plan).latency_ns == pytest.approx(simulate(plan, burst=1).latency_ns, rel=0.05)


def test_copies_of_a_recurrent_layer_share_samples_and_never_time_steps(tiny_chip):
    chip = tiny_chip.model_copy(update={"n_tiles": 64})
    for n_samples in (1, 3):
        (layer,) = (layer for layer in place(big_lstm(), chip, n_samples=n_samples).layers if layer.n_steps)
        assert layer.n_replicas <= n_samples
        shares = [layer.vectors_of(replica) for replica in range(layer.n_replicas)]
        assert sum(shares) == 4 * n_samples
        assert all(share % 4 == 0 for share in shares)


def test_weights_are_written_once_where_they_stay_and_in_every_step_where_they_do_not(tiny_chip):
    graph = big_lstm(n_hidden=12)  # 18 rows in 5 of the 8 blocks of a tile; 48 columns, 3 times those of a tile
    for n_tiles, times in ((4, 1), (1, 4)):
        plan = place(graph, tiny_chip.model_copy(update={"n_tiles": n_tiles}), style="temporal")
        (layer,) = (layer for layer in plan.layers if layer.n_steps)
        assert (len(layer.rounds) > 1) == (times > 1)
        counts = count_actions(plan)["rnn"]
        assert counts["main_memory.read"] == times * 2 * 18 * 48 * layer.n_replicas + 2 * 6 * 4
        assert simulate(plan).counts["rnn"] == +Counter(counts)


def test_the_state_takes_room_in_the_activation_buffer(tiny_chip):
    graph = big_lstm()  # state: 5 x 16 bits; codes in 48 bits, out 40 bits

    def off_chip(capacity_bits):
        buffer = tiny_chip.activation_buffer.model_copy(update={"capacity_bits": capacity_bits})
        last = Op(name="add", input="h", output=Tensor("y", (5, 1, 4), REAL), steps=(Add("h", 1.0),))
        longer = replace(graph, ops=(*graph.ops, last), outputs=("y",))
        return "h" in place(longer, tiny_chip.model_copy(update={"activation_buffer": buffer})).off_chip

    assert not off_chip(80 + 40)
    assert off_chip(80 + 39)


def test_an_unsigned_format_works_as_well(ideal_chip):
    form = unsigned(2, 0.5)
    rows = np.random.default_rng(1).integers(-1, 2, size=(8, 5))
    graph = graph_of(rows, LstmCell(0.5, 0.25, Quantize(form)), 3, 4, form)
    x = np.random.default_rng(2).normal(size=(3, 3, 1, 4))
    found = execute(place(graph, ideal_chip), x)
    assert np.array_equal(found, reference(graph, x))
    assert found.max() > 0
