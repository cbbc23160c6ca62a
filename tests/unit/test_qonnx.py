"""Models in ONNX files: what becomes of operators and constants, and what is said of files that cannot be taken."""

import re
from dataclasses import replace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import QONNX, Maker  # noqa: E402

from imcsim import load_workload  # noqa: E402
from imcsim.errors import ConfigError, DataError, GraphError  # noqa: E402
from imcsim.functional.reference import reference  # noqa: E402
from imcsim.graph import Affine, Flatten, Quantize, SpatialAffine, Threshold  # noqa: E402
from imcsim.graph.qonnx import file as reading  # noqa: E402
from imcsim.graph.qonnx import read_qonnx, wire  # noqa: E402
from imcsim.graph.qonnx.walk import as_stored  # noqa: E402
from imcsim.workloads import find_workload  # noqa: E402


def linear(make, codes=((1, 0), (0, -1), (1, 1)), scale=0.5):
    """A ternary linear layer 2 to 3 behind a quantizer of 2 signed bits."""
    x = make.quant("x", 0.5, 0.0, 2, narrow=1)
    weights = make.quant(make.constant(codes), scale, 0.0, 2, narrow=1)
    return make.node("MatMul", [x, make.node("Transpose", [weights], perm=[1, 0])])


@pytest.fixture
def written(tmp_path):
    """The path of a model that a function puts together, and that of the file as it then is."""

    def write(build=linear, shape=(1, 2), **options):
        make = Maker(**{key: options.pop(key) for key in ("opset", "domain", "lists_initializers") if key in options})
        return make.write(tmp_path, shape, build(make), **options)

    return write


# --- what comes out -------------------------------------------------------------------------------------------------


def test_a_quantized_layer_is_one_op_with_its_scales_moved_behind_the_sums(written):
    graph = read_qonnx(written())
    assert graph.name == "model"
    quantizer, layer = graph.ops
    assert isinstance(quantizer.steps[0], Threshold)
    assert (quantizer.output.format.kind, quantizer.output.format.scale) == ("ternary", 0.5)
    assert layer.product.weights.planes.tolist() == [[[1, 0], [0, -1], [1, 1]]]
    (scaled,) = layer.steps
    assert (scaled.scale.item(), scaled.offset.item()) == (0.25, 0.0)
    assert reference(graph, [[0.6, -0.2], [0.1, 9.0]]).tolist() == [[0.25, 0.0, 0.25], [0.0, -0.25, 0.25]]


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"])
@pytest.mark.parametrize("lists_initializers", [False, True])
def test_old_and_new_files_say_the_same(written, domain, lists_initializers):
    graph = read_qonnx(written(domain=domain, lists_initializers=lists_initializers))
    assert graph == read_qonnx(written())


def test_the_batch_may_be_open(written):
    assert read_qonnx(written(symbolic_batch=True)).input.shape == (2,)


def test_a_model_file_is_a_workload_with_the_test_set_beside_it(written, tmp_path):
    path = written()
    workload = find_workload(path)
    assert (workload.name, workload.description, workload.has_data) == ("model", "ONNX model model.onnx", False)
    assert load_workload(path) == workload.graph() == read_qonnx(path)
    with pytest.raises(DataError, match=r"^model: .*model\.npz: missing; a workload without a test set runs with"):
        workload.data()
    np.savez(tmp_path / "model.npz", x=np.ones((4, 2), np.float32), labels=np.arange(4))
    workload = find_workload(path)
    x, labels = workload.data()
    assert (x.shape, x.dtype, labels.tolist()) == ((4, 2), np.float64, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("mode", "codes"),
    [
        ("ROUND", [-2, -2, 0, 0, 0, 2, 2]),
        ("HALF_EVEN", [-2, -2, 0, 0, 0, 2, 2]),
        ("FLOOR", [-3, -2, -1, 0, 0, 1, 2]),
        ("CEIL", [-2, -1, 0, 0, 1, 2, 3]),
        ("UP", [-3, -2, -1, 0, 1, 2, 3]),
        ("DOWN", [-2, -1, 0, 0, 0, 1, 2]),
        ("ROUND_TO_ZERO", [-2, -1, 0, 0, 0, 1, 2]),
        ("HALF_UP", [-3, -2, -1, 0, 1, 2, 3]),
        ("HALF_DOWN", [-2, -1, 0, 0, 0, 1, 2]),
    ],
)
@pytest.mark.parametrize("bits", [3, 8])
def test_every_rounding_mode_rounds_activations_and_weights_alike(written, mode, codes, bits):
    halves = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5])

    def both(make):
        of_input = make.quant("x", 1.0, 0.0, bits, rounding=mode)
        weights = make.quant(make.constant(np.diag(halves)), 1.0, 0.0, bits, rounding=mode)
        return make.node("Gemm", [of_input, weights], transB=1)

    graph = read_qonnx(written(both, (1, 7)))
    layer = graph.products[0].product
    assert np.diag(layer.weights.to_numbers()).tolist() == codes
    assert reference(graph, halves[np.newaxis]).tolist() == [[code * code for code in codes]]


def test_a_zero_point_that_is_odd_does_not_change_which_halves_are_even(written):
    graph = read_qonnx(written(lambda make: make.quant("x", 1.0, 1.0, 8, signed=0), (1, 3)))
    assert reference(graph, [[-0.5, 0.5, 1.5]]).tolist() == [[-1.0, 1.0, 1.0]]  # round(0.5) - 1, round(1.5) - 1 ...
    even = read_qonnx(written(lambda make: make.quant("x", 0.5, 2.0, 8, signed=0), (1, 3)))
    assert isinstance(even.ops[0].steps[0], Quantize)
    assert (even.ops[0].steps[0].format.zero, even.ops[0].steps[0].format.scale) == (2.0, 0.5)


@pytest.mark.parametrize(
    ("options", "low", "high"),
    [
        ({"signed": 1, "narrow": 0}, -8, 7),
        ({"signed": 1, "narrow": 1}, -7, 7),
        ({"signed": 0, "narrow": 0}, 0, 15),
        ({"signed": 0, "narrow": 1}, 0, 14),
    ],
)
def test_signedness_and_narrow_range_say_where_numbers_are_cut(written, options, low, high):
    graph = read_qonnx(written(lambda make: make.quant("x", 1.0, 0.0, 4, **options), (1, 2)))
    assert reference(graph, [[-99.0, 99.0]]).tolist() == [[low, high]]


@pytest.mark.parametrize(
    ("numbers", "n_planes", "codes"),
    [
        ([[1, -1], [-1, -1]], 1, [[1, -1], [-1, -1]]),
        ([[0.3, 0], [-0.3, 0.3]], 1, [[1, 0], [-1, 1]]),
        ([[0.3, 0], [-0.7, 0.7]], 1, [[1, 0], [-1, 1]]),  # a scale for each output
        ([[0.25, 0.5], [-0.75, 0.25]], 2, [[1, 2], [-3, 1]]),
        ([[1.4, -0.2], [0.2, 1.0]], 3, [[7, -1], [1, 5]]),
    ],
)
def test_float_weights_of_few_levels_become_planes_by_themselves(written, numbers, n_planes, codes):
    def build(make):
        return make.node("Gemm", [make.bipolar("x"), make.constant(numbers)], transB=1)

    weights = read_qonnx(written(build)).products[0].product.weights
    assert weights.n_planes == n_planes
    assert weights.to_codes().tolist() == codes
    np.testing.assert_allclose(
        reference(read_qonnx(written(build)), [[1.0, 1.0]])[0], np.sum(numbers, axis=1), rtol=1e-6
    )


def test_three_uneven_levels_are_one_asymmetric_plane(written):
    def build(make):
        return make.node("Gemm", [make.bipolar("x"), make.constant([[0.5, -0.2], [0.0, 0.5]])], transB=1)

    weights = read_qonnx(written(build)).products[0].product.weights
    assert (weights.n_planes, weights.is_asymmetric) == (1, True)
    np.testing.assert_allclose(weights.minus.ravel(), [0.4, 1.0], rtol=1e-6)


def test_codes_with_a_common_divisor_are_divided_by_it(written):
    def build(make):
        weights = make.quant(make.constant([[3, 0], [-3, 3]]), 0.5, 0.0, 4)
        return make.node("Gemm", [make.bipolar("x"), weights], transB=1)

    graph = read_qonnx(written(build))
    assert graph.products[0].product.weights.planes.tolist() == [[[1, 0], [-1, 1]]]
    assert reference(graph, [[1.0, 1.0]]).tolist() == [[3.0, 0.0]]


def test_trunc_divides_by_a_power_of_two_and_rounds_down(written):
    def build(make):
        codes = make.quant("x", 0.5, 0.0, 8)
        given = [make.constant(value) for value in (0.5, 0.0, 8.0, 6.0)]
        return make.node("Trunc", [codes, *given], QONNX, rounding_mode="FLOOR")

    graph = read_qonnx(written(build, (1, 4)))
    assert reference(graph, [[-1.0, 1.5, 2.0, 63.5]]).tolist() == [[-0.5, 0.0, 0.5, 15.5]]


def test_trunc_of_the_second_version_has_limits_and_a_scale_of_its_own(written):
    def build(make):
        codes = make.quant("x", 0.5, 0.0, 8)
        given = [make.constant(value) for value in (0.5, 0.0, 8.0, 2.0, 4.0)]
        return make.node("Trunc", [codes, *given], QONNX, rounding_mode="ROUND", signed=1, narrow=1)

    graph = read_qonnx(written(build, (1, 4)))
    assert reference(graph, [[-60.0, 1.0, 3.0, 60.0]]).tolist() == [[-14.0, 0.0, 4.0, 14.0]]


@pytest.mark.parametrize(
    ("scale", "bias", "kind", "outputs"),
    [
        (2.0, -1.0, "binary", [-1.0, 1.0]),
        (1.0, 0.0, "unsigned", [0.0, 1.0]),
        (0.5, -0.75, "unsigned", [-0.75, -0.25]),
    ],
)
def test_one_threshold_gives_the_codes_that_its_scale_and_bias_say(written, scale, bias, kind, outputs):
    def build(make):
        return make.node("MultiThreshold", ["x", make.constant([[0.25]])], QONNX,
                         out_scale=scale, out_bias=bias, out_dtype="INT2")  # fmt: skip

    graph = read_qonnx(written(build))
    assert graph.ops[0].steps[0].format.kind == kind
    assert reference(graph, [[0.0, 0.25]]).tolist() == [outputs]


def test_scales_per_channel_move_into_a_depthwise_convolution(written):
    def build(make):
        x = make.quant("x", np.array([0.5, 2.0]).reshape(1, 2, 1, 1), 0.0, 4)
        return make.node("Conv", [x, make.constant(np.ones((2, 1, 1, 1)))], group=2)

    graph = read_qonnx(written(build, (1, 2, 1, 1)))
    assert graph.products[0].product.groups == 2
    assert reference(graph, np.full((1, 2, 1, 1), 2.0)).ravel().tolist() == [2.0, 2.0]


def test_padding_of_one_side_is_padding_of_both_with_weights_of_zero(written):
    def build(make):
        return make.node("Conv", [make.bipolar("x"), make.constant(np.ones((1, 1, 2, 2)))], pads=[0, 0, 1, 1])

    product = read_qonnx(written(build, (1, 1, 3, 3))).products[0].product
    assert (product.padding, product.weights.planes[0, 0, 0].tolist()) == ((1, 1), [[0, 0, 0], [0, 1, 1], [0, 1, 1]])


def test_a_pad_with_a_code_is_padding_with_that_code(written):
    def build(make):
        pads = [make.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), make.constant(-1.0)]
        padded = make.node("Pad", [make.bipolar("x"), *pads])
        return make.node("Conv", [padded, make.constant(np.ones((1, 1, 3, 3)))])

    graph = read_qonnx(written(build, (1, 1, 1, 1)))
    assert graph.products[0].product.attrs.pad_value == -1
    assert reference(graph, np.ones((1, 1, 1, 1))).item() == -7.0


def test_sequences_are_images_of_height_one(written):
    def build(make):
        y = make.node("Conv", [make.bipolar("x"), make.constant(np.ones((3, 2, 2)))])
        return make.node("MaxPool", [y], kernel_shape=[3])

    graph = read_qonnx(written(build, (1, 2, 5)))
    assert (graph.input.shape, graph.tensors[graph.output].shape) == ((2, 1, 5), (3, 1, 2))


def test_an_average_that_leaves_padding_out_is_corrected_at_the_border(written):
    def build(make):
        return make.node("AveragePool", ["x"], kernel_shape=[2, 2], pads=[1, 1, 1, 1], strides=[2, 2])

    graph = read_qonnx(written(build, (1, 1, 2, 2)))
    assert any(isinstance(step, SpatialAffine) for op in graph.ops for step in op.steps)
    assert reference(graph, [[[[1.0, 2.0], [3.0, 4.0]]]]).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]


def test_a_chain_of_shapes_is_worked_out(written):
    def build(make):
        last = make.node("Slice", [make.node("Shape", ["x"]), *(make.constant([n], np.int64) for n in (0, 1))])
        shape = make.node("Concat", [last, make.node("Constant", [], value_ints=[-1])], axis=0)
        return make.bipolar(make.node("Reshape", ["x", shape]))

    graph = read_qonnx(written(build, (1, 2, 2, 2)))
    assert [type(step) for op in graph.ops for step in op.steps] == [Threshold, Flatten]
    assert graph.tensors[graph.output].shape == (8,)


def test_quantizing_again_on_the_same_grid_makes_no_step(written):
    graph = read_qonnx(written(lambda make: make.quant(make.quant("x", 0.5, 0.0, 4, narrow=1), 0.5, 0.0, 5)))
    assert [type(step) for op in graph.ops for step in op.steps] == [Threshold, Affine]


def test_reading_needs_no_torch_and_imcsim_no_onnx(written):
    import subprocess
    import sys

    code = "import sys, imcsim; print('onnx' in sys.modules)\n"
    code += f"imcsim.load_workload({str(written())!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# --- what does not fit ----------------------------------------------------------------------------------------------


def test_everything_that_does_not_fit_is_said_at_once(written):
    def build(make):
        x = make.quant("x", 1.0, 0.0, 4)
        x = make.node("ConvTranspose", [x, make.constant(np.ones((2, 2, 2, 2)))])
        x = make.node("ConvTranspose", [x, make.constant(np.ones((2, 2, 2, 2)))])
        x = make.node("Fancy", [x], "com.example")
        parameters = [make.constant(value) for value in (1.0, 4.0, 3.0, 7.0)]
        x = make.node("FloatQuant", [x, *parameters], QONNX)
        y = make.node("Conv", ["x", make.constant(np.ones((2, 2, 1, 1)))])
        return make.node("Sqrt", [make.node("Add", [x, y])])

    message = (
        r"model\.onnx: every node must be one that a graph has, got 6 that are not: ConvTranspose x2 \(convtranspose1, "
        r"convtranspose\d+\), take Conv, and what.*; Fancy of domain 'com\.example' x1 \(fancy\d+\); FloatQuant "
        r"x1 \(floatquant\d+\), take Quant, whose numbers are whole; Conv that reads real "
        r"numbers x1 \(conv\d+\), take a Quant, .*; Sqrt x1 \(sqrt\d+\), take LayerNormalization as one node"
    )
    with pytest.raises(GraphError, match=message) as caught:
        read_qonnx(written(build, (1, 2, 2, 2)))
    assert "\n" not in str(caught.value)


REFUSED = {
    "Gemm with float weights": (
        (1, 4),
        lambda make: make.node("Gemm", [make.bipolar("x"), make.constant([[1.0], [0.3147], [0.2718], [-0.577]])]),
    ),
    "Conv of 2 channels with weights of shape": (
        (1, 2, 3, 3),
        lambda make: make.node("Conv", [make.bipolar("x"), make.constant(np.ones((2, 3, 1, 1)))]),
    ),
    "Quant with rounding mode DITHER": ((1, 2), lambda make: make.quant("x", rounding="DITHER")),
    "Quant of 40 bits": ((1, 2), lambda make: make.quant("x", bits=40)),
    "Quant with a bit width that is not one whole number": ((1, 2), lambda make: make.quant("x", bits=2.5)),
    "Quant with a scale that is not above 0": ((1, 2), lambda make: make.quant("x", scale=0.0)),
    "Quant of 14 bits with rounding mode FLOOR": ((1, 2), lambda make: make.quant("x", bits=14, rounding="FLOOR")),
    "BipolarQuant with a scale of shape": ((1, 2), lambda make: make.bipolar("x", [1.0, 2.0, 3.0])),
    "Transpose by (0, 1, 1)": ((1, 2, 3), lambda make: make.node("Transpose", ["x"], perm=[0, 1, 1])),
    "Reshape from": ((2, 4), lambda make: make.node("Reshape", ["x", make.constant([4, 2], np.int64)])),
    "Cast to whole numbers": ((1, 2), lambda make: make.node("Cast", ["x"], to=7)),
    "MaxPool with dilation": (
        (1, 1, 4, 4),
        lambda make: make.node("MaxPool", ["x"], kernel_shape=[2, 2], dilations=[2, 2]),
    ),
    "MaxPool with ceil_mode": (
        (1, 1, 4, 4),
        lambda make: make.node("MaxPool", ["x"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    ),
    "Relu behind a Pad": (
        (1, 1, 4, 4),
        lambda make: make.node("Relu", [make.node("Pad", ["x", make.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)])]),
    ),
    "Gather of places (0, 2) of 3": (
        (1, 3),
        lambda make: make.node("Gather", ["x", make.constant([0, 2], np.int64)], axis=1),
    ),
    "Split of the batch": ((1, 2), lambda make: make.node("Split", ["x"], axis=0)),
    "Softmax over the batch": ((1, 2), lambda make: make.node("Softmax", ["x"], axis=0)),
    "LayerNormalization that gives means, too": (
        (1, 2),
        lambda make: make.node("LayerNormalization", ["x", make.constant(np.ones(2))], n_outputs=2),
    ),
    "Gelu of the form fast": ((1, 2), lambda make: make.node("Gelu", ["x"], approximate="fast")),
    "Where with conditions that are computed": (
        (1, 2),
        lambda make: make.node("Where", ["x", make.constant(1.0), make.constant(2.0)]),
    ),
    "MatMul of shapes (2, 3) and (2, 3)": ((1, 2, 3), lambda make: make.node("MatMul", ["x", "x"])),
    "Add with a constant over 4 axes": (
        (1, 16),
        lambda make: make.node(
            "Add",
            [
                make.node("Reshape", ["x", make.constant([1, 2, 2, 2, 2], np.int64)]),
                make.constant(np.arange(4.0).reshape(2, 2)),
            ],
        ),
    ),
    "Flatten whose batch is axis 1": (
        (1, 2, 3),
        lambda make: make.node("Flatten", [make.node("Transpose", ["x"], perm=[1, 0, 2])]),
    ),
    "MatMul whose input 1 is a constant": (
        (1, 2),
        lambda make: make.node("MatMul", [make.constant(np.ones((2, 2))), make.bipolar("x")]),
    ),
    "BatchNormalization that is not as ONNX has it": (
        (1, 2),
        lambda make: make.node("BatchNormalization", ["x", *[make.constant([1.0, 1.0])] * 4], epsilon="small"),
    ),
    "BatchNormalization with parameters that are missing": (
        (1, 2),
        lambda make: make.node("BatchNormalization", ["x", make.constant([1.0, 1.0])]),
    ),
    "Expand with a result of shape": (
        (1, 2),
        lambda make: make.node(
            "Add", ["x", make.node("Expand", [make.constant(1.0), make.constant([100000, 100000], np.int64)])]
        ),
    ),
    "MultiThreshold with data layout NWC": (
        (1, 2, 4),
        lambda make: make.node("MultiThreshold", ["x", make.constant(np.zeros((2, 1)))], QONNX, out_dtype="INT2"),
    ),
    "Conv with a result of shape (1, 2000000003, 2000000003)": (
        (1, 1, 3, 3),
        lambda make: make.node("Conv", [make.bipolar("x"), make.constant(np.ones((1, 1, 1, 1)))], pads=[10**9] * 4),
    ),
    "Conv with a window (1, 80001)": (
        (1, 1, 3, 3),
        lambda make: make.node(
            "Conv",
            [make.bipolar("x"), make.constant(np.ones((900, 1, 1, 9)))],
            dilations=[1, 10000],
            pads=[0, 10**5, 0, 1],
        ),
    ),
    "AveragePool with a result of shape": (
        (1, 1, 3, 3),
        lambda make: make.node("AveragePool", ["x"], kernel_shape=[1, 1], pads=[10**9] * 4),
    ),
    "Sub of shapes": ((1, 2), lambda make: make.node("Sub", [make.node("Relu", ["x"]), linear(make)])),
}


def test_an_output_whose_batch_is_not_in_front_is_refused(written):
    path = written(lambda make: make.node("Transpose", ["x"], perm=[1, 0, 2]), shape=(1, 2, 3))
    with pytest.raises(GraphError, match=r"model\.onnx: output must have the batch in front, got it elsewhere"):
        read_qonnx(path)


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_named_with_its_reason(written, said):
    shape, build = REFUSED[said]
    with pytest.raises(GraphError, match=rf"got 1 that are not: {re.escape(said)}.* x1 \("):
        read_qonnx(written(build, shape))


# --- files that are broken ------------------------------------------------------------------------------------------


def changed(path, change):
    """Change the model in the file *path*."""
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def no_graph(model):
    model.ClearField("graph")


def cycle(model):
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def missing(model):
    del model.graph.initializer[0]


def twice(model):
    model.graph.node[1].output[0] = model.graph.node[0].output[0]


def unread_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 2]))


def second_batch(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [2, 2]))


def no_input(model):
    del model.graph.input[:]


def same_input(model):
    model.graph.input.append(model.graph.input[0])


def no_output(model):
    del model.graph.output[:]


def same_output(model):
    model.graph.output.append(model.graph.output[0])


def second_output(model):
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1, 2]))


def nobody_makes_it(model):
    model.graph.output[0].name = "nothing"


def open_axis(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"


def no_axis(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -3


def absurd(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1 << 40


def five_axes(model):
    for _ in range(3):
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_value = 2


def text_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def new_opset(model):
    model.opset_import[0].version = 99


def no_opset(model):
    del model.opset_import[:]


def large_tensor(model):
    model.graph.initializer[0].dims[:] = [1 << 20, 1 << 20]


def short_tensor(model):
    model.graph.initializer[3].dims[:] = [3, 7]


def negative_tensor(model):
    model.graph.initializer[0].dims[:] = [-2]


def text_tensor(model):
    model.graph.initializer[0].data_type = TensorProto.STRING


def same_name(model):
    model.graph.initializer[1].name = model.graph.initializer[0].name


def sparse(model):
    model.graph.sparse_initializer.add()


BROKEN = {
    no_graph: "must be an ONNX model with a graph of nodes, got none",
    cycle: "nodes must have no cycle, got one among quant",
    missing: r"every tensor that a node reads must be an input, an initializer or made by a node, got none for c0$",
    twice: "every tensor must be made once, got more for quant0",
    unread_input: "model: input 'more' must be read by an op, got none that does; leave it out$",
    second_batch: "all inputs must have one batch, got 1 of x, 2 of more$",
    no_input: "must have one or more inputs of different names, got none$",
    same_input: "must have one or more inputs of different names, got x, x$",
    no_output: "must have one or more outputs of different names, got none$",
    same_output: r"must have one or more outputs of different names, got matmul\d, matmul\d$",
    second_output: "output 'more' must be made by a node, got none that makes it$",
    nobody_makes_it: "output 'nothing' must be made by a node, got none that makes it",
    open_axis: "input 'x': every axis behind the batch must have a fixed size, got width for axis 1; export the model",
    no_axis: "every axis behind the batch must have a fixed size, got -3 for axis 1",
    absurd: r"input 'x' must have at most 16777216 numbers a sample, got shape \(1, 1099511627776\)",
    five_axes: r"input 'x' must have shape \(b c\), \(b c l\) or \(b c h w\), got \(1, 2, 2, 2, 2\)",
    text_input: "input 'x' must be a tensor of numbers with a shape, got another",
    new_opset: r"opset must be from 9 to 27, got 99; convert it \(onnx\.version_converter\)",
    no_opset: "must import one version of ONNX's operators, got 0",
    large_tensor: r"constants must take at most 512 MiB together, got more with 'c0' of shape \(1048576, 1048576\)",
    short_tensor: r"tensor 'c3' must hold 21 numbers for shape \(3, 7\), got 6",
    negative_tensor: r"tensor 'c0' must have a shape of whole numbers, got \(-2,\)",
    text_tensor: "tensor 'c0' must hold numbers, got data type 8",
    same_name: "initializers must have different names, got 7 of 6 names",
    sparse: "initializers must be dense, got sparse ones; make them dense",
}


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_a_broken_file_is_one_line_that_names_it(written, change):
    path = written()
    changed(path, change)
    with pytest.raises(GraphError, match=rf"^{re.escape(str(path))}: .*{BROKEN[change]}") as caught:
        read_qonnx(path)
    assert "\n" not in str(caught.value)


def of_several(tmp_path, build, **options):
    make = Maker()
    return make.write(tmp_path, (1, 2), *build(make), **options)


def test_outputs_are_called_as_the_file_calls_them_whatever_reads_them(tmp_path):
    def build(make):
        codes = make.quant("x", 0.5, 0.0, 3)
        return codes, make.node("Relu", [make.node("Add", [codes, "more"])])

    graph = read_qonnx(of_several(tmp_path, build, more_inputs={"more": (1, 2)}))
    assert graph.outputs == ("quant0", "relu2")
    assert [(op.name, op.output.name) for op in graph.ops] == [
        ("quant0", "quant0'"),
        ("add1", "relu2"),
        ("output", "quant0"),
    ]
    found = reference(graph, {"x": [[0.6, -0.9]], "more": [[-4, 4]]})
    assert {name: array.tolist() for name, array in found.items()} == {"quant0": [[0.5, -1.0]], "relu2": [[0.0, 3.0]]}


def test_the_batch_may_be_open_for_some_inputs(tmp_path):
    def build(make):
        return [make.node("Reshape", [make.node("Add", ["x", "more"]), make.constant([1, 2], np.int64)])]

    graph = read_qonnx(of_several(tmp_path, build, more_inputs={"more": (1, 2)}, symbolic_batch=True))
    assert [tensor.shape for tensor in graph.inputs] == [(2,), (2,)]
    assert reference(graph, {"x": [[1, 2]], "more": [[3, 5]]}).ravel().tolist() == [4, 7]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda make: (make.node("Relu", ["x"]), make.node("Identity", ["x"])),
         "output 'identity1' must follow from the input by an operator, got one that does not"),
        (lambda make: (make.node("Relu", ["x"]), make.node("Identity", ["relu0"])),
         "model: outputs must be one or more different tensors, got relu0, relu0"),
    ],
)  # fmt: skip
def test_outputs_that_a_graph_cannot_have_are_one_line(tmp_path, build, message):
    with pytest.raises(GraphError, match=rf"model\.onnx: {message}$"):
        read_qonnx(of_several(tmp_path, build))


def test_a_model_that_gives_one_tensor_twice_is_refused(written):
    model = reading.read_file(written())
    with pytest.raises(
        GraphError, match=r"model: outputs must be one or more different tensors, got matmul3, matmul3$"
    ):
        as_stored(replace(model, outputs=model.outputs * 2), "model")


@pytest.mark.parametrize("content", [b"", b"no model at all\n", b"\x00" * 100])
def test_a_file_of_something_else_is_said_to_be_none(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(
        GraphError, match=r"m\.onnx: must be an? (whole ONNX file|ONNX model with a graph of nodes), got"
    ):
        read_qonnx(tmp_path / "m.onnx")


def test_a_file_that_is_cut_off_anywhere_is_one_line(written, tmp_path):
    content = written().read_bytes()
    for n in range(0, len(content), 7):
        (tmp_path / "cut.onnx").write_bytes(content[:n])
        with pytest.raises(GraphError, match=r"^[^\n]*cut\.onnx: [^\n]*got [^\n]*$"):
            read_qonnx(tmp_path / "cut.onnx")


def test_a_file_with_bytes_changed_is_read_or_is_one_line(written, tmp_path):
    content, rng = bytearray(written().read_bytes()), np.random.default_rng(3)
    said = []
    for _ in range(300):
        copy = bytearray(content)
        for place in rng.integers(0, len(copy), 3):
            copy[place] = rng.integers(0, 256)
        (tmp_path / "odd.onnx").write_bytes(copy)
        try:
            read_qonnx(tmp_path / "odd.onnx")
        except GraphError as error:
            said.append(str(error))
    assert len(said) > 100
    assert not any("\n" in line for line in said)


def test_a_file_that_is_not_there_or_too_large_is_said_so(tmp_path, written, monkeypatch):
    with pytest.raises(GraphError, match=r"none\.onnx: must be a file that can be read, got No such file or directory"):
        read_qonnx(tmp_path / "none.onnx")
    monkeypatch.setattr(reading, "MOST_FILE_BYTES", 100)
    with pytest.raises(GraphError, match=r"must have at most 0 MiB, got 0 MiB; keep weights as external data"):
        read_qonnx(written())


def nested(n, *numbers):
    """*n* empty messages, each the field of the last number in messages of the fields before."""
    content = bytes([numbers[-1] << 3 | 2, 0]) * n
    for number in reversed(numbers[:-1]):
        size, digits = len(content), b""
        while size > 127:
            digits, size = digits + bytes([size & 127 | 128]), size >> 7
        content = bytes([number << 3 | 2]) + digits + bytes([size]) + content
    return content


@pytest.mark.parametrize("numbers", [(7, 1), (7, 5), (7, 1, 5), (7, 1, 1), (7, 1, 5, 6, 1)])
def test_many_small_records_are_counted_before_they_take_memory(tmp_path, numbers, monkeypatch):
    monkeypatch.setattr(wire, "MOST_FIELDS", 1000)
    (tmp_path / "many.onnx").write_bytes(nested(1001, *numbers))
    with pytest.raises(GraphError, match=r"many\.onnx: must have at most 1000 fields, got more; split the model$"):
        read_qonnx(tmp_path / "many.onnx")


def test_many_nodes_and_long_numbers_are_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(nested(20_001, 7, 1))
    with pytest.raises(GraphError, match=r"m\.onnx: must have at most 20000 nodes, got 20001$"):
        read_qonnx(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(nested((65 << 20) // 2, 7, 5, 7, 1))  # int64_data
    with pytest.raises(
        GraphError, match=r"m\.onnx: must have at most 64 MiB of numbers outside of raw data, got 65 MiB"
    ):
        read_qonnx(tmp_path / "m.onnx")


def test_a_missing_package_is_said_with_the_command_that_installs_it(written, monkeypatch):
    path = written()
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"the package onnx must be installed, got none; pip install imcsim\[onnx\]$"):
        read_qonnx(path)


# --- external data --------------------------------------------------------------------------------------------------


def external(path, location, **entries):
    """Move the weights of the model *path* out of it, into the file that *location* says."""

    def change(model):
        tensor = model.graph.initializer[3]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in ({"location": location} | entries).items():
            tensor.external_data.add(key=key, value=str(value))

    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[3])
    changed(path, change)
    return weights


def test_weights_are_read_from_a_file_beside_the_model(written):
    path = written()
    graph = read_qonnx(path)
    weights = external(path, "weights.bin", offset=8, length=24)
    (path.parent / "weights.bin").write_bytes(b"\0" * 8 + weights.tobytes())
    assert read_qonnx(path) == graph


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("weights.bin", {}, "tensor 'c3': external data must be there, got no file 'weights.bin'"),
        ("../out.bin", {}, "tensor 'c3': external data must lie in the folder of the model, got '../out.bin'"),
        ("/etc/hostname", {}, "external data must lie in the folder of the model, got '/etc/hostname'"),
        ("", {}, "external data must lie in the folder of the model, got ''"),
        ("link.bin", {}, "external data must lie in the folder of the model, got 'link.bin'"),
        ("short.bin", {}, "external data must hold 24 bytes from 0 on, got a length of 24 in a file of 3"),
        ("short.bin", {"length": 3}, "external data must hold 24 bytes from 0 on, got a length of 3 in a file of 3"),
        ("short.bin", {"offset": "x"}, "external data must have an offset and a length in bytes, got others"),
    ],
)
def test_external_data_that_is_not_as_it_should_be_is_one_line(written, location, entries, message):
    path = written()
    (path.parent.parent / "out.bin").write_bytes(b"\0" * 24)
    (path.parent / "link.bin").symlink_to(path.parent.parent / "out.bin")
    (path.parent / "short.bin").write_bytes(b"abc")
    external(path, location, **entries)
    with pytest.raises(GraphError, match=re.escape(message)):
        read_qonnx(path)


# --- scales per channel of activations ------------------------------------------------------------------------------


def scaled(make, scale, weights, zero=0.0, signed=1, **options):
    """A product of codes of 4 bits whose scales are one for each channel."""
    scale, zero = (np.reshape(values, (1, -1, *options.get("behind", ()))) for values in (scale, zero))
    x = make.quant("x", scale, zero, 4, signed=signed)
    if "kernel" in options:
        return make.node("Conv", [x, make.constant(weights)], kernel_shape=options["kernel"], pads=options["pads"],
                         group=options.get("group", 1))  # fmt: skip
    return make.node("Gemm", [x, make.constant(weights)], transB=1)


TERNARY_ROWS = [[1, 0, -1, 1], [0, -1, 1, -1]]


@pytest.mark.parametrize(
    ("scale", "n_planes", "row_groups"),
    [
        ([0.5, 0.5, 0.5, 0.5], 1, (4,)),  # one scale after all
        ([0.5, 1.0, 0.5, 2.0], 3, (4,)),  # whole multiples of 0.5: codes 1, 2, 1, 4 of the weights
        ([0.5, 8.0, 0.5, 0.5], 5, (4,)),
        ([0.5, 0.5, 16.0, 16.0], 1, (2, 2)),  # too many planes: groups of neighbours
        ([0.5, 0.5, 0.7, 0.7], 1, (2, 2)),
        ([0.5, 0.5, 0.5, 0.7], 1, (3, 1)),
        ([0.5, 0.7, 0.7, 0.5], 1, (1, 1, 1, 1)),
    ],
)
def test_scales_per_channel_become_planes_or_input_groups(written, scale, n_planes, row_groups):
    graph = read_qonnx(written(lambda make: scaled(make, scale, TERNARY_ROWS), (1, 4)))
    product = graph.products[0].product
    assert (product.n_planes, product.row_groups) == (n_planes, row_groups)
    codes = np.array([[3, -2, 1, -8], [7, 7, -8, -8]])
    scale = np.float32(scale).astype(float)
    np.testing.assert_allclose(reference(graph, codes * scale), codes * scale @ np.transpose(TERNARY_ROWS), rtol=1e-15)


def test_scales_per_channel_of_a_grouped_convolution_go_to_the_groups_that_they_are_of(written):
    weights = np.ones((2, 2, 1, 1))
    options = {"behind": (1, 1), "kernel": (1, 1), "pads": (0, 0, 0, 0), "group": 2}
    graph = read_qonnx(written(lambda make: scaled(make, [0.5, 0.5, 0.7, 0.7], weights, **options), (1, 4, 1, 1)))
    product = graph.products[0].product
    assert (product.n_planes, product.row_groups) == (1, (2,))  # one scale for each output
    graph = read_qonnx(written(lambda make: scaled(make, [0.5, 0.7, 0.3, 0.7], weights, **options), (1, 4, 1, 1)))
    assert graph.products[0].product.row_groups == (1, 1)
    found = reference(graph, np.array([1.0, 0.7, 0.9, 1.4]).reshape(1, 4, 1, 1))
    np.testing.assert_allclose(found.reshape(2), [1.7, 2.3], rtol=1e-6)


def test_zeros_per_channel_are_taken_off_where_the_image_is(written):
    weights = np.array([[[[1, 0, -1]] * 3, [[0, 1, 1]] * 3]])
    options = {"behind": (1, 1), "kernel": (3, 3), "pads": (1, 1, 1, 1), "signed": 0}
    scale, zero = [0.5, 0.25], [3.0, 5.0]
    graph = read_qonnx(written(lambda make: scaled(make, scale, weights, zero, **options), (1, 2, 4, 4)))
    rng = np.random.default_rng(0)
    x = (rng.integers(0, 16, (2, 2, 4, 4)) - np.reshape(zero, (2, 1, 1))) * np.reshape(scale, (2, 1, 1))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    assert np.array_equal(reference(graph, x), np.einsum("bihwyx,oiyx->bohw", windows, weights))
    options["pads"] = (0, 0, 0, 0)
    graph = read_qonnx(written(lambda make: scaled(make, scale, weights, zero, **options), (1, 2, 4, 4)))
    inner = np.einsum("bihwyx,oiyx->bohw", windows[:, :, 1:-1, 1:-1], weights)
    assert np.array_equal(reference(graph, x), inner)


def test_weights_of_unequal_levels_meet_scales_per_channel(written):
    rows = np.float32([[-0.731, 0.0, 0.5, 0.5], [0.5, -0.731, 0.0, 0.5]]).astype(float)
    graph = read_qonnx(written(lambda make: scaled(make, [0.5, 1.0, 0.5, 0.5], rows), (1, 4)))
    assert graph.products[0].product.weights.is_asymmetric
    x = np.array([[1.0, -2.0, 0.5, 0.0]])
    np.testing.assert_allclose(reference(graph, x), x @ np.transpose(rows), rtol=1e-12)
    two = [[-0.75, 0.5, 0.5, 0.5], [0.5, -0.75, -0.75, 0.5]]
    graph = read_qonnx(written(lambda make: scaled(make, [0.5, 0.7, 0.5, 0.5], two), (1, 4)))
    np.testing.assert_allclose(reference(graph, x[:, [0, 3, 2, 3]]), x[:, [0, 3, 2, 3]] @ np.transpose(two), rtol=1e-6)


def test_a_slice_of_channels_keeps_their_scales(written):
    def sliced(make):
        x = make.quant("x", [[0.5, 1.0, 0.25]], 0.0, 4)
        bounds = [make.constant([n], np.int64) for n in (1, 3, 1)]
        return make.node("Gemm", [make.node("Slice", [x, *bounds]), make.constant([[1, -1]])], transB=1)

    assert reference(read_qonnx(written(sliced, (1, 3))), [[1.5, 3.0, 0.75]]).tolist() == [[2.25]]


def test_a_bias_may_have_32_bits_and_weights_may_not(written):
    def biased(make, bits=32):
        bias = make.quant(make.constant([1e5, -3.25]), 0.25, 0.0, 32)
        weights = make.quant(make.constant([[1, 0], [0, 1]]), 1.0, 0.0, 2, narrow=1)
        return make.node("Gemm", [make.quant("x", 1.0, 0.0, 4), weights, bias], transB=1)

    assert reference(read_qonnx(written(biased)), [[1.0, 2.0]]).tolist() == [[100001.0, -1.25]]
    with pytest.raises(GraphError, match=r"Quant of 17 bits x1 \(quant0\), take 1 to 16 bits"):
        read_qonnx(written(lambda make: make.quant("x", 1.0, 0.0, 17)))


def test_a_trunc_to_a_finer_scale_changes_no_number(written):
    def finer(make, bits=8, out_bits=8):
        x = make.quant("x", 0.5, 0.0, 4)
        parameters = [make.constant(value) for value in (0.5, 0.0, 6, 0.125, out_bits)]
        return make.node("Trunc", [x, *parameters], make.domain, rounding_mode="FLOOR", signed=1, narrow=0)

    assert reference(read_qonnx(written(finer)), [[-9.0, 3.26]]).tolist() == [[-4.0, 3.5]]
    message = r"Trunc to a finer scale, with numbers out of its range x1 .*, take more bits behind it, or no Trunc"
    with pytest.raises(GraphError, match=message):
        read_qonnx(written(lambda make: finer(make, out_bits=5)))
