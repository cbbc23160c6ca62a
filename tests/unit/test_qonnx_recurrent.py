"""Sequences in model files: recurrent layers against onnxruntime step by step, tables of tokens, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from onnx_models import Maker
from strategies import TIM_DNN, variant

from imcsim.errors import DataError, GraphError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph import Embedding, LogSoftmax, Slice
from imcsim.graph.qonnx import read_qonnx
from imcsim.mapping.place import place

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})
N_INPUTS, N_HIDDEN, N_STEPS = 4, 5, 7
SCALE = 1 / 8
GATES = {"LSTM": 4, "GRU": 3}
N_OWN_INPUTS = {"LSTM": 8, "GRU": 6}


class Layer:
    """A recurrent layer drawn at random, with weights and hidden states of codes."""

    def __init__(self, kind, seed=0, **attributes):
        rng = np.random.default_rng(seed)
        self.kind, n = kind, GATES[kind] * N_HIDDEN
        self.attributes = {
            "hidden_size": N_HIDDEN,
            **({"linear_before_reset": 1} if kind == "GRU" else {}),
        } | attributes
        self.w, self.r, self.b = (
            np.float32(rng.integers(-3, 4, shape) * 0.25) for shape in ((1, n, N_INPUTS), (1, n, N_HIDDEN), (1, 2 * n))
        )

    def put(self, make, x, **options):
        """Put the layer into a model, behind *x*; give the names of its outputs."""
        w, r = (make.quant(make.constant(each), 0.25, 0.0, 3, narrow=1) for each in (self.w, self.r))
        own = [x, w, r, make.constant(self.b), *[""] * (N_OWN_INPUTS[self.kind] - 4)]
        for number, value in options.pop("inputs", {}).items():
            own[number] = make.constant(value)
        hidden = [make.constant(value) for value in options.pop("hidden", (SCALE, 0.0, 4.0))]
        domain = options.pop("domain", "imcsim")
        attributes = self.attributes | {"hidden_signed": 1, "hidden_narrow": 0} | options
        y = make.node(self.kind, own + hidden, domain, n_outputs=3 if self.kind == "LSTM" else 2, **attributes)
        return [y, f"{y}.1", f"{y}.2"]

    def by_onnxruntime(self, codes):
        """The codes (b h t) of the hidden states for the numbers (b i t) of codes, one time step after the other."""
        onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
        from onnx import TensorProto, helper, numpy_helper

        states = ["h", "c"][: GATES[self.kind] - 2]
        tensors = [numpy_helper.from_array(each, name) for each, name in ((self.w, "w"), (self.r, "r"), (self.b, "b"))]
        outputs = ["", *(f"{name}_next" for name in states)]
        node = helper.make_node(self.kind, ["x", "w", "r", "b", "", *states], outputs, **self.attributes)
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *states)]
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs[1:]]
        graph = helper.make_graph([node], "step", inputs, made, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        state = {name: np.zeros((1, len(codes), N_HIDDEN), np.float32) for name in states}
        found = []
        for t in range(codes.shape[2]):
            step = {"x": np.float32(codes[None, :, :, t]), **state}
            state = dict(zip(states, session.run(None, step), strict=True))
            state["h"] = np.float32(np.clip(np.round(state["h"] / SCALE), -8, 7) * SCALE)
            found.append(state["h"][0])
        return np.stack(found, axis=2)


def write(make, shape, output, folder) -> Path:
    from onnx import helper

    model = make.model(shape, output)
    model.opset_import.append(helper.make_opsetid("imcsim", 1))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def drawn(shape, seed=1):
    return np.random.default_rng(seed).integers(-8, 8, shape) * SCALE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", GATES)
def test_codes_are_those_of_onnxruntime_whose_hidden_state_is_quantized_in_between(kind, seed, tmp_path):
    layer, make = Layer(kind, seed), Maker(opset=14)
    y, *_ = layer.put(make, make.quant("x", SCALE, 0.0, 4))
    output = make.node("Squeeze", [y, make.constant([1], np.int64)])
    graph = read_qonnx(write(make, (N_STEPS, 1, N_INPUTS), output, tmp_path))  # time first
    x = drawn((6, N_INPUTS, 1, N_STEPS), seed)
    found = reference(graph, x)
    assert np.array_equal(found[:, :, 0], layer.by_onnxruntime(x[:, :, 0]))
    assert len(np.unique(found)) > 6
    assert np.array_equal(run(place(graph, IDEAL), x).outputs, found)


def test_two_layers_with_transposes_around_and_the_last_hidden_state(tmp_path):
    first, make = Layer("LSTM", 3), Maker(opset=14)
    x = make.node("Transpose", [make.quant("x", SCALE, 0.0, 4)], perm=[1, 0, 2])
    y, *_ = first.put(make, x)
    batch_first = make.node("Transpose", [make.node("Squeeze", [y, make.constant([1], np.int64)])], perm=[1, 0, 2])
    second = Layer("GRU", 4)
    second.w = np.float32(np.random.default_rng(5).integers(-3, 4, (1, 3 * N_HIDDEN, N_HIDDEN)) * 0.25)
    _, last, _ = second.put(make, batch_first, layout=1)
    output = make.node("Squeeze", [last, make.constant([1], np.int64)])
    graph = read_qonnx(write(make, (1, N_STEPS, N_INPUTS), output, tmp_path))
    assert [op.product.kind for op in graph.products] == ["lstm", "gru"]
    assert isinstance(graph.ops[-1].steps[0], Slice)
    assert graph.tensors[graph.output].shape == (N_HIDDEN,)
    x = drawn((5, N_INPUTS, 1, N_STEPS))
    expected = second.by_onnxruntime(first.by_onnxruntime(x[:, :, 0]))[:, :, -1]
    assert np.array_equal(reference(graph, x), expected)


@pytest.mark.parametrize("rank", ["gather", "slice", "squeezed"])
def test_one_time_step_goes_on_as_a_vector(rank, tmp_path):
    layer, make = Layer("LSTM"), Maker(opset=14)
    y, *_ = layer.put(make, make.quant("x", SCALE, 0.0, 4), layout=1)
    y = make.node("Squeeze", [y, make.constant([2], np.int64)])
    if rank == "gather":
        y = make.node("Gather", [y, make.constant(-1, np.int64)], axis=1)
    else:
        cut = [make.constant([n], np.int64) for n in (N_STEPS - 1, 1 << 40, 1)]
        y = make.node("Slice", [y, *cut])
        y = make.node("Squeeze", [y, make.constant([1], np.int64)]) if rank == "squeezed" else make.node(
            "Reshape", [y, make.constant([-1, N_HIDDEN], np.int64)]
        )  # fmt: skip
    output = make.node("Gemm", [y, make.quant(make.constant(np.eye(N_HIDDEN)), 1.0, 0.0, 2)])
    graph = read_qonnx(write(make, (1, N_STEPS, N_INPUTS), output, tmp_path))
    x = drawn((5, N_INPUTS, 1, N_STEPS))
    assert np.array_equal(reference(graph, x), layer.by_onnxruntime(x[:, :, 0])[:, :, -1])


def test_a_matrix_a_bias_and_log_probabilities_follow_every_time_step(tmp_path):
    layer, make = Layer("GRU"), Maker(opset=14)
    y, *_ = layer.put(make, make.quant("x", SCALE, 0.0, 4), layout=1)
    y = make.node("Squeeze", [y, make.constant([2], np.int64)])
    weights, bias = np.random.default_rng(0).integers(-1, 2, (N_HIDDEN, 3)), np.array([0.5, -0.5, 0.25])
    y = make.node("MatMul", [y, make.constant(weights)])
    output = make.node("LogSoftmax", [make.node("Add", [make.constant(bias), y])], axis=-1)
    graph = read_qonnx(write(make, (1, N_STEPS, N_INPUTS), output, tmp_path))
    assert graph.tensors[graph.output].shape == (3, 1, N_STEPS)
    assert isinstance(graph.ops[-1].steps[-1], LogSoftmax)
    x = drawn((5, N_INPUTS, 1, N_STEPS))
    z = np.einsum("bht,ho->bot", layer.by_onnxruntime(x[:, :, 0]), weights) + bias[:, None]
    expected = z - np.log(np.exp(z).sum(1, keepdims=True))
    np.testing.assert_allclose(reference(graph, x)[:, :, 0], expected, atol=1e-6)


def test_functions_and_a_matrix_go_with_a_sequence_whose_time_comes_first(tmp_path):
    layer, make = Layer("LSTM", 6), Maker(opset=14)
    bias = np.array([0.5, -0.5, 0.25, 1.0])
    x = make.quant(make.node("Relu", [make.node("Add", ["x", make.constant(bias)])]), SCALE, 0.0, 4)
    y, *_ = layer.put(make, x)
    y = make.node("Squeeze", [y, make.constant([1], np.int64)])
    weights = np.random.default_rng(0).integers(-1, 2, (N_HIDDEN, 3))
    y = make.node("MatMul", [y, make.constant(weights)])
    output = make.node("Mul", [y, make.constant(np.array([[[1.0, 2.0, -1.0]]]))])
    graph = read_qonnx(write(make, (N_STEPS, 1, N_INPUTS), output, tmp_path))
    x = drawn((5, N_INPUTS, 1, N_STEPS))
    codes = np.clip(np.maximum(x[:, :, 0] + bias[:, None], 0), -1, 7 / 8)
    expected = np.einsum("bht,ho->bot", layer.by_onnxruntime(codes), weights * [1.0, 2.0, -1.0])
    assert np.array_equal(reference(graph, x)[:, :, 0], expected)
    assert np.array_equal(run(place(graph, IDEAL), x).outputs, reference(graph, x))


# --- tables ---------------------------------------------------------------------------------------------------------


def words(make, table, behind=lambda rows: rows):
    """A model that looks up tokens (b t) and goes on with channels first."""
    tokens = make.node("Cast", ["x"], to=7)
    return make.node("Transpose", [behind(make.node("Gather", [table, tokens], axis=0))], perm=[0, 2, 1])


def test_tokens_become_rows_of_a_table_whose_quantizer_may_stand_behind_it(tmp_path):
    values = np.random.default_rng(0).normal(0, 1, (6, 3))
    outputs = []
    for stands_behind in (False, True):
        make = Maker()
        table = make.constant(values)
        if stands_behind:
            y = words(make, table, lambda rows, make=make: make.quant(rows, 0.25, 0.0, 4))
        else:
            y = words(make, make.quant(table, 0.25, 0.0, 4))
        y = make.node("Conv", [y, make.constant(np.sign(values[:2, :, None]))])
        graph = read_qonnx(make.write(tmp_path, (1, 4), y))
        assert graph.input.shape == (1, 1, 4)
        outputs.append(reference(graph, np.array([[[[5, 0, 1, 1]]]])))
        if not stands_behind:
            assert [type(step) for step in graph.ops[0].steps] == [Embedding]
    codes = np.clip(np.round(values / 0.25), -8, 7) * 0.25
    expected = np.sign(values[:2]) @ codes[[5, 0, 1, 1]].T
    assert np.array_equal(outputs[0][0, :, 0], expected)
    assert np.array_equal(outputs[1], outputs[0])


@pytest.mark.parametrize("opset", [13, 17])
def test_tokens_attend_to_each_other(opset, tmp_path):
    values, make = np.random.default_rng(0).normal(0, 1, (6, 3)), Maker(opset=opset)
    rows = make.node("Gather", [make.quant(make.constant(values), 0.25, 0.0, 4), make.node("Cast", ["x"], to=7)])
    scores = make.node("MatMul", [rows, make.node("Transpose", [rows], perm=[0, 2, 1])])
    shares = make.node("Softmax", [scores], axis=-1)
    places = make.constant(np.arange(12.0).reshape(1, 4, 3))
    met = make.node("MatMul", [shares, make.node("Add", [rows, places])])
    output = make.node("ReduceMean", [met], axes=[1], keepdims=0)
    graph = read_qonnx(make.write(tmp_path, (1, 4), output))
    assert graph.input.shape == (1, 1, 4)
    tokens = np.array([[5, 0, 1, 1], [2, 3, 4, 0]])
    codes = (np.clip(np.round(values / 0.25), -8, 7) * 0.25)[tokens]
    scores = codes @ codes.transpose(0, 2, 1)
    shares = np.exp(scores) / np.exp(scores).sum(2, keepdims=True)
    expected = (shares @ (codes + np.arange(12.0).reshape(4, 3))).mean(1)
    np.testing.assert_allclose(reference(graph, tokens[:, None, None]), expected, rtol=1e-9)
    np.testing.assert_allclose(run(place(graph, IDEAL), tokens[:, None, None]).outputs, expected, rtol=1e-9)


def test_a_token_beyond_the_table_is_one_line(tmp_path):
    make = Maker()
    graph = read_qonnx(make.write(tmp_path, (1, 4), words(make, make.constant(np.eye(6)))))
    with pytest.raises(DataError, match=r"^input: must be tokens, whole numbers from 0 to 5, got 6\.0$"):
        run(place(graph, IDEAL), np.array([[[[5, 0, 6, 1]]]]))


def test_what_is_no_table_of_codes_is_refused(tmp_path):
    make = Maker()
    real = words(make, make.constant(np.random.default_rng(0).normal(size=(99, 3))))
    with pytest.raises(
        GraphError, match=r"Gather of a table of real numbers x1 \(gather\d+\), take a table through Qua"
    ):
        read_qonnx(make.write(tmp_path, (1, 4), real))
    make = Maker()
    codes = make.quant(make.node("Mul", ["x", make.constant(2.0)]), 1.0, 0.0, 4)
    y = make.node("Gather", [make.constant(np.eye(6)), make.node("Cast", [codes], to=7)], axis=0)
    with pytest.raises(
        GraphError, match=r"Cast to whole numbers x1 .*, take a Quant|Gather of a table by anything but"
    ):
        read_qonnx(make.write(tmp_path, (1, 4, 4), y))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "LSTM",
            {"domain": ""},
            r"LSTM whose hidden state is real numbers .* x1 \(lstm\d+\), take QuantLSTM of Brevitas",
        ),
        ("GRU", {"domain": ""}, r"GRU whose hidden state is real numbers from one time step to the next x1"),
        ("LSTM", {"direction": "reverse"}, r"LSTM that runs reverse x1 .*, take direction forward"),
        ("LSTM", {"direction": "bidirectional"}, r"LSTM that runs bidirectional x1"),
        (
            "LSTM",
            {"activations": ["Sigmoid", "Relu", "Tanh"]},
            r"with activations sigmoid, relu, tanh x1 .*, take sigm",
        ),
        ("LSTM", {"clip": 3.0}, r"LSTM with clip x1 .*, take gates that are not clipped"),
        ("LSTM", {"input_forget": 1}, r"LSTM with coupled gates \(input_forget\) x1 .*, take a forget gate of its own"),
        ("LSTM", {"hidden_size": 9}, r"LSTM of hidden_size 9 with recurrent weights for 5 x1"),
        ("LSTM", {"inputs": {4: [3]}}, r"LSTM with lengths of sequences x1 .*, take sequences of one length"),
        (
            "LSTM",
            {"inputs": {5: np.ones((1, 1, 5))}},
            r"LSTM with an initial state other than 0 x1 .*, take zeros, or n",
        ),
        ("LSTM", {"inputs": {6: np.ones((1, 1, 5))}}, r"LSTM with an initial state other than 0 x1"),
        ("LSTM", {"inputs": {7: np.ones((1, 15))}}, r"LSTM with peepholes other than 0 x1 .*, take zeros, or none"),
        (
            "GRU",
            {"linear_before_reset": 0},
            r"GRU whose reset gate comes before the product x1 .*, take linear_before_res",
        ),
        (
            "LSTM",
            {"hidden": (0.25, 0.0, 4.0)},
            r"hidden state is i4 of scale 0\.25 and whose input is i4 of scale 0\.125",
        ),
        ("LSTM", {"hidden": (SCALE, 0.0, 5.0)}, r"hidden state is i5 of .* x1 .*, take one quantizer for both, since"),
        (
            "LSTM",
            {"hidden": ([SCALE] * 5, 0.0, 4.0)},
            r"LSTM with a scale per channel for the hidden state x1 .*, take on",
        ),
        (
            "LSTM",
            {"layout": 1},
            r"LSTM of what is no sequence \(b t c\) x1 .*, take a Transpose to \(b t c\) before it",
        ),
    ],
)
def test_what_no_cell_has_is_refused_by_name(kind, options, message, tmp_path):
    make = Maker(opset=14)
    x = make.quant("x", SCALE, 0.0, 4)
    if options == {"layout": 1}:
        x = make.quant(make.node("Conv", [x, make.constant(np.ones((N_STEPS, N_STEPS, 1)))]), SCALE, 0.0, 4)
        x = make.node("Transpose", [x], perm=[1, 0, 2])
    y, *_ = Layer(kind).put(make, x, **options)
    with pytest.raises(GraphError, match=message):
        read_qonnx(write(make, (1, N_STEPS, N_INPUTS) if "layout" in options else (N_STEPS, 1, N_INPUTS), y, tmp_path))


def test_lengths_that_are_all_the_same_and_zeros_are_no_hindrance(tmp_path):
    make = Maker(opset=14)
    given = {4: [N_STEPS], 5: np.zeros((1, 1, 5)), 6: np.zeros((1, 1, 5)), 7: np.zeros((1, 15))}
    y, *_ = Layer("LSTM").put(make, make.quant("x", SCALE, 0.0, 4), inputs=given)
    assert read_qonnx(write(make, (N_STEPS, 1, N_INPUTS), y, tmp_path)).products[0].product.kind == "lstm"


def test_an_output_that_is_read_and_not_made_is_said(tmp_path):
    make = Maker(opset=14)
    *_, state = Layer("LSTM").put(make, make.quant("x", SCALE, 0.0, 4))
    with pytest.raises(GraphError, match=r"LSTM whose output 3 is read x1 .*, take its first output alone"):
        read_qonnx(write(make, (N_STEPS, 1, N_INPUTS), state, tmp_path))


def test_nodes_that_no_output_follows_from_cost_nothing(tmp_path):
    make = Maker()
    y = make.node("Relu", ["x"])
    make.node("Fancy", [make.node("Sigmoid", ["x"])], "com.example")
    assert [op.name for op in read_qonnx(make.write(tmp_path, (1, 3), y)).ops] == [y]


def test_real_numbers_are_refused(tmp_path):
    make = Maker(opset=14)
    y, *_ = Layer("LSTM").put(make, "x")
    with pytest.raises(GraphError, match=r"LSTM that reads real numbers x1 .*, take a Quant before it"):
        read_qonnx(write(make, (N_STEPS, 1, N_INPUTS), y, tmp_path))


def test_all_time_steps_go_on_as_one_vector_in_the_order_of_the_file(tmp_path):
    layer, make = Layer("LSTM"), Maker(opset=14)
    y, *_ = layer.put(make, make.quant("x", SCALE, 0.0, 4), layout=1)
    output = make.node("Reshape", [y, make.constant([1, -1], np.int64)])
    graph = read_qonnx(write(make, (1, N_STEPS, N_INPUTS), output, tmp_path))
    x = drawn((5, N_INPUTS, 1, N_STEPS))
    expected = layer.by_onnxruntime(x[:, :, 0]).transpose(0, 2, 1).reshape(5, -1)
    assert np.array_equal(reference(graph, x), expected)


def test_a_sequence_whose_channels_lie_first_is_turned_for_a_layer_behind_a_convolution(tmp_path):
    layer, make = Layer("GRU"), Maker(opset=14)
    swap = np.eye(N_STEPS)[::-1, :, None]
    x = make.node("Conv", [make.quant("x", SCALE, 0.0, 4), make.constant(swap)])  # the file's (t c) as channels
    y, *_ = layer.put(make, make.quant(x, SCALE, 0.0, 4), layout=1)
    output = make.node("Squeeze", [y, make.constant([2], np.int64)])
    graph = read_qonnx(write(make, (1, N_STEPS, N_INPUTS), output, tmp_path))
    x = drawn((5, N_STEPS, 1, N_INPUTS))
    expected = layer.by_onnxruntime(x[:, ::-1, 0].transpose(0, 2, 1))
    assert np.array_equal(reference(graph, x)[:, :, 0], expected)


# --- assumed bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GATES)
def test_a_layer_of_real_numbers_has_assumed_bits_where_they_are_asked_for(kind, tmp_path):
    rng, n, make = np.random.default_rng(0), GATES[kind] * N_HIDDEN, Maker(opset=14)
    shapes = (1, n, N_INPUTS), (1, n, N_HIDDEN), (1, 2 * n)
    weights = [make.constant(rng.normal(size=shape)) for shape in shapes]
    reset = {"linear_before_reset": 1} if kind == "GRU" else {}
    y = make.node(kind, ["x", *weights], hidden_size=N_HIDDEN, layout=1, **reset)
    squeezed = make.node("Squeeze", [y, make.constant([2], np.int64)])
    output = make.node("MatMul", [squeezed, make.constant(rng.normal(size=(N_HIDDEN, 3)))])
    path = write(make, (1, N_STEPS, N_INPUTS), output, tmp_path)
    graph = read_qonnx(path, assume="W=ternary,A=2")
    layer, matrix = graph.products
    assert (layer.product.kind, layer.product.weights.shape) == (kind.lower(), (4 * N_HIDDEN, N_INPUTS + N_HIDDEN))
    assert not graph.has_values
    assert graph.assumed.weights == (layer.name, matrix.name)
    assert layer.output.format == graph.tensors[layer.input].format
    assert str(layer.output.format) == "ternary"  # 2 bits with a sign, which the hidden state has, too
    assert (matrix.product.kernel, matrix.output.shape) == ((1, 1), (3, 1, N_STEPS))
    theirs = read_qonnx(path, assume="W=ternary,A=2,zeros=0.5").products[0].product.weights.zero_fraction
    assert theirs == (1 / 4 + 3 / 4 * 0.5 if kind == "GRU" else 0.5)  # a quarter of a GRU's meets nothing
