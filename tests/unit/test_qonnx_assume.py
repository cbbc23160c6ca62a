"""Models of real numbers whose bits are assumed: where codes come to be, and which weights keep their own."""

import numpy as np
import pytest
from onnx_models import Maker

from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.graph.qonnx import read_qonnx
from imcsim.mapping.place import place
from imcsim.workloads import find_workload, load_workload

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

RNG = np.random.default_rng(0)


def drawn(*shape):
    return RNG.normal(size=shape)


class Net(Maker):
    """Layers of real numbers."""

    def conv(self, x, n_outputs, n_inputs, kernel=3, **attributes):
        attributes = {"pads": [kernel // 2] * 4} | attributes
        return self.node("Conv", [x, self.constant(drawn(n_outputs, n_inputs, kernel, kernel))], **attributes)

    def norm(self, x, n):
        return self.node("BatchNormalization", [x, *(self.constant(np.full(n, v)) for v in (1.5, 0.1, 0.2, 1.0))])

    def relu(self, x):
        return self.node("Relu", [x])

    def linear(self, x, n_outputs, n_inputs):
        return self.node("Gemm", [x, self.constant(drawn(n_outputs, n_inputs))], transB=1)


def read(tmp_path, make, output, assume="W=ternary,A=2", shape=(1, 3, 8, 8)):
    return read_qonnx(make.write(tmp_path, shape, output), assume=assume)


def told(graph):
    """For each op: what it reads, its planes of weights, its steps, and what it gives."""
    return [
        (
            str(graph.tensors[op.input].format),
            op.product.n_planes if op.product else 0,
            " ".join(type(step).__name__ for step in op.steps),
            str(op.output.format),
        )
        for op in graph.ops
    ]


def test_codes_come_to_be_behind_the_norm_and_the_relu(tmp_path):
    make = Net()
    x = make.relu(make.norm(make.conv("x", 4, 3), 4))
    x = make.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = make.relu(make.conv(x, 4, 4))
    x = make.node("Flatten", [make.node("GlobalAveragePool", [x])])
    graph = read(tmp_path, make, make.linear(x, 10, 4))
    assert told(graph) == [
        ("real16", 0, "Quantize", "u8"),
        ("u8", 1, "Threshold MaxPool", "u2"),
        ("u2", 1, "Threshold AvgPool Threshold Flatten", "u2"),
        ("u2", 1, "Affine", "real16"),
    ]
    assert graph.assumed.bits == "W=ternary,A=2,A.first=8"
    assert graph.assumed.weights == graph.assumed.inputs == ("conv0", "conv4", "gemm8")
    assert not graph.has_values


def test_a_shortcut_gets_the_codes_that_the_product_beside_it_reads(tmp_path):
    make = Net()
    x = make.relu(make.conv("x", 4, 3))
    y = make.node("Add", [make.norm(make.conv(x, 4, 4), 4), x])
    graph = read(tmp_path, make, make.conv(y, 4, 4), "W=4,A=3")
    assert told(graph)[1:3] == [
        ("u8", 3, "Threshold", "u3"),
        ("u3", 3, "Affine Add Threshold", "s3"),  # nothing says that the sum is above 0
    ]


def test_of_two_readers_the_one_with_more_bits_says_what_both_read(tmp_path):
    make = Net()
    x = make.relu(make.conv("x", 4, 3))
    y = make.relu(make.conv(x, 4, 4))
    last = make.conv(make.node("Concat", [x, y], axis=1), 2, 8)
    graph = read(tmp_path, make, last, "W=2,A=2,A.last=6,W.last=5")
    assert [line[0] for line in told(graph)] == ["real16", "u8", "u6", "u6", "u6"]
    assert [line[1] for line in told(graph)] == [0, 1, 1, 0, 4]


def test_each_place_has_its_bits(tmp_path):
    make = Net()
    x = make.conv("x", 4, 3)
    for _ in range(2):
        x = make.conv(make.relu(x), 4, 4)
    graph = read(tmp_path, make, x, "W=binary,A=s4,first=7,last=9")
    assert [line[:2] for line in told(graph)] == [("real16", 0), ("u7", 6), ("s4", 1), ("u9", 8)]
    alone = Net()
    graph = read(tmp_path, alone, alone.conv("x", 4, 3), "W=binary,A=2,first=7,last=9")
    assert told(graph)[1][:2] == ("u7", 6)


def test_codes_that_were_scaled_on_their_way_are_made_anew(tmp_path):
    make = Net()
    x = make.relu(make.conv("x", 4, 3))
    y = make.conv(x, 4, 4)
    z = make.conv(make.norm(x, 4), 4, 4)
    graph = read(tmp_path, make, make.node("Add", [y, z]))
    assert [line[0] for line in told(graph)] == ["real16", "u8", "u2", "u2", "ternary"]


def test_what_the_file_quantizes_keeps_its_planes_and_its_codes(tmp_path):
    make = Net()
    x = make.quant("x", 0.5, 0.0, 5)
    weights = make.quant(make.constant(drawn(4, 3, 1, 1)), 0.1, 0.0, 4)
    x = make.node("Conv", [x, weights])
    few = make.constant(np.sign(drawn(4, 4, 3, 3)) * 0.25)
    x = make.node("Conv", [make.relu(x), few], pads=[1] * 4)
    graph = read(tmp_path, make, make.conv(make.quant(x, 1.0, 0.0, 3), 2, 4), "W=2,A=2")
    assert [line[0] for line in told(graph)] == ["real16", "i5", "u2", "i3"]
    own = [op.product.weights for op in graph.products]
    assert [weights.has_values for weights in own] == [True, True, False]
    assert graph.assumed.weights == ("conv6",)
    assert graph.assumed.inputs == ("conv4",)
    assert not graph.has_values


def test_constants_in_the_place_of_weights_are_no_weights(tmp_path):
    make = Net()
    x = make.node("Conv", ["x", make.constant(np.zeros((4, 3, 3, 3)))])
    x = make.node("Conv", [x, make.constant(np.linspace(1, 2, 4).reshape(4, 1, 1, 1))], group=4)  # a level an output
    graph = read(tmp_path, make, x)
    assert [op.product.weights.has_values for op in graph.products] == [False, False]


def test_padding_of_one_side_and_gaps_are_weights_of_zero(tmp_path):
    make = Net()
    x = make.conv("x", 4, 3, pads=[0, 0, 2, 1])
    graph = read(tmp_path, make, x)
    (product,) = (op.product for op in graph.products)
    assert (product.weights.shape, product.padding) == ((4, 3, 5, 4), (2, 1))
    assert product.weights.zero_fraction == pytest.approx(1 - 0.6 * 9 / 20)
    make = Net()
    graph = read(tmp_path, make, make.conv("x", 4, 3, pads=[0, 0, 1, 2], dilations=[2, 2]))
    (product,) = (op.product for op in graph.products)
    assert (product.weights.shape, product.padding, product.dilation) == ((4, 3, 6, 7), (1, 2), (1, 1))


@pytest.mark.parametrize("zero", [3.0, 0.5])
def test_assumed_weights_meet_codes_with_a_zero_point(tmp_path, zero):
    make = Net()
    x = make.quant("x", 0.5, zero, 4, signed=0)
    graph = read(tmp_path, make, make.conv(x, 4, 3))
    assert not graph.has_values
    assert graph.tensors[graph.ops[-1].input].format.zero == zero
    own = Net()
    x = own.quant("x", 0.5, zero, 4, signed=0)
    x = own.node("Conv", [x, own.constant(np.sign(drawn(4, 3, 3, 3)))], pads=[1] * 4)
    known = read_qonnx(own.write(tmp_path, (1, 3, 8, 8), x))
    assert [type(step) for step in graph.ops[-1].steps] == [type(step) for step in known.ops[-1].steps]


def test_zeros_are_read_off_the_weights_of_the_file(tmp_path):
    make = Net()
    weights = drawn(16, 3, 3, 3)
    x = make.node("Conv", ["x", make.constant(weights)])
    graph = read(tmp_path, make, x, "W=ternary,A=2,zeros=weights")
    numbers = np.abs(weights.astype(np.float32))
    assert graph.products[0].product.weights.zero_fraction == (numbers <= 0.7 * numbers.mean()).mean()


def test_a_model_that_is_quantized_has_nothing_to_assume(tmp_path):
    make = Net()
    x = make.quant("x", 0.5, 0.0, 5)
    x = make.node("Conv", [x, make.constant(np.sign(drawn(4, 3, 3, 3)))])
    with pytest.raises(
        GraphError, match=r"model.onnx: assume: must meet a layer of real numbers, got quantized ones; "
    ):
        read(tmp_path, make, x)


def test_a_wrong_assumption_is_said_before_the_file_is_read():
    with pytest.raises(ConfigError, match=r"^assume: must say A, got 'W=2'"):
        read_qonnx("there-is-none.onnx", assume="W=2")


def test_values_of_assumed_bits_are_refused_in_one_line(tmp_path):
    make = Net()
    path = make.write(tmp_path, (1, 3, 8, 8), make.conv("x", 4, 3))
    graph = load_workload(path, assume="W=2,A=2")
    line = (
        r"^model: has weights and codes of assumed bits \(W=ternary,A=2,A.first=8\), so no values; run it with --engine"
    )
    with pytest.raises(DataError, match=line):
        execute(place(graph, load_chip("tim-dnn")), np.zeros((1, 3, 8, 8)))
    with pytest.raises(DataError, match=line):
        reference(graph, np.zeros((1, 3, 8, 8)))
    assert find_workload(path).assumption is None


# --- external data --------------------------------------------------------------------------------------------------


def with_external(tmp_path, make, output, shape=(1, 3, 8, 8), least_bytes=64):
    """Write the model with its larger constants in ``model.data``."""
    import onnx
    from onnx.external_data_helper import convert_model_to_external_data

    model = make.model(shape, output)
    convert_model_to_external_data(model, location="model.data", size_threshold=least_bytes)
    onnx.save_model(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def small():
    make = Net()
    x = make.relu(make.norm(make.conv("x", 40, 3), 40))
    x = make.node("Flatten", [make.node("GlobalAveragePool", [x])])
    return make, make.linear(x, 10, 40)


def test_weights_that_are_missing_are_no_loss(tmp_path):
    path = with_external(tmp_path, *small())
    whole = read_qonnx(path, assume="W=ternary,A=2")
    (tmp_path / "model.data").unlink()
    graph = read_qonnx(path, assume="W=ternary,A=2")
    assert told(graph) == told(whole)
    assert [op.product.weights for op in graph.products] == [op.product.weights for op in whole.products]
    with pytest.raises(
        GraphError, match=r"model.onnx: tensor 'c0': external data must be there, got no file 'model.data'"
    ):
        read_qonnx(path)
    with pytest.raises(GraphError, match=r"zeros=weights must be read off weights that are there, got a model without"):
        read_qonnx(path, assume="W=ternary,A=2,zeros=weights")


def test_external_weights_that_are_there_are_looked_at_where_they_lie(tmp_path):
    make = Net()
    signs = np.sign(drawn(64, 3, 5, 5))  # more than are read at once
    x = make.relu(make.node("Conv", ["x", make.constant(signs)]))
    path = with_external(tmp_path, make, make.conv(x, 2, 64))
    graph = read_qonnx(path, assume="W=ternary,A=2")
    assert [op.product.weights.has_values for op in graph.products] == [True, False]
    assert np.array_equal(graph.products[0].product.weights.to_numbers(), signs)


def test_missing_weights_that_a_quantizer_reads_are_said(tmp_path):
    make = Net()
    weights = make.quant(make.node("Transpose", [make.constant(drawn(27, 8))], perm=[1, 0]), 0.1, 0.0, 4)
    weights = make.node("Reshape", [weights, make.constant([8, 3, 3, 3], np.int64)])
    path = with_external(tmp_path, make, make.node("Conv", ["x", weights]), least_bytes=100)
    read_qonnx(path, assume="W=ternary,A=2")
    (tmp_path / "model.data").unlink()
    with pytest.raises(GraphError, match=r"Quant quant1 must read weights that are there, got 'transpose0', whose ext"):
        read_qonnx(path, assume="W=ternary,A=2")


def test_missing_whole_numbers_cannot_be_guessed(tmp_path):
    make = Net()
    x = make.node("Reshape", [make.conv("x", 4, 3), make.constant([1, 256], np.int64)])
    path = with_external(tmp_path, make, make.linear(x, 2, 256), least_bytes=8)
    (tmp_path / "model.data").unlink()
    with pytest.raises(GraphError, match=r"external data must be there, got no file 'model.data'"):
        read_qonnx(path, assume="W=ternary,A=2")


def test_external_shapes_have_a_limit(tmp_path):
    import onnx

    make = Net()
    model = make.model((1, 3), make.linear("x", 4, 3))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [1 << 20, 1 << 17]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="none.data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(GraphError, match=r"constants must be at most 68719476736 numbers, got more with 'c0' of shape"):
        read_qonnx(tmp_path / "model.onnx", assume="W=2,A=2")


def test_a_mean_without_its_axes_is_flat(tmp_path):
    make = Net()
    x = make.node("ReduceMean", [make.relu(make.conv("x", 4, 3))], axes=[2, 3], keepdims=0)
    graph = read(tmp_path, make, make.linear(x, 2, 4))
    assert told(graph)[1:] == [("u8", 1, "Threshold AvgPool Threshold Flatten", "u2"), ("u2", 1, "Affine", "real16")]
