import numpy as np
import pytest
from onnx_models import Maker

from imcsim.errors import GraphError
from imcsim.functional.reference import reference
from imcsim.graph.qonnx import read_qonnx

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

X = np.array([[-9.0, -0.75, -0.25, 0.25, 0.75, 1.25, 60.0]])


def coded(make, x, scale, zero, dtype=np.uint8, **attributes):
    """QuantizeLinear and DequantizeLinear, one behind the other."""
    parameters = [make.constant(scale), make.constant(zero, dtype)]
    codes = make.node("QuantizeLinear", [x, *parameters], **attributes)
    return make.node("DequantizeLinear", [codes, *parameters], **attributes)


def numbers(make, folder, output, x=X):
    """What the graph of the model makes of *x*, and the graph."""
    graph = read_qonnx(make.write(folder, (1, *x.shape[1:]), output))
    return reference(graph, x), graph


def reference_of_onnx(make, output, x):
    from onnx.reference import ReferenceEvaluator

    model = make.model((len(x), *x.shape[1:]), output)
    return ReferenceEvaluator(model).run(None, {"x": x.astype(np.float32)})[0]


@pytest.mark.parametrize(
    ("scale", "zero", "dtype", "expected"),
    [
        (0.5, 0, np.uint8, [0, 0, 0, 0, 1.0, 1.0, 60.0]),  # 1.5 goes to 2, 2.5 to 2 and 0.5 to 0
        (0.5, 3, np.uint8, [-1.5, -1.0, 0, 0, 1.0, 1.0, 60.0]),  # rounded before the odd zero point is added
        (0.25, 0, np.int8, [-9.0, -0.75, -0.25, 0.25, 0.75, 1.25, 31.75]),
        (0.25, -128, np.int8, [0, 0, 0, 0.25, 0.75, 1.25, 60.0]),
        (0.125, -1, np.int16, [-9.0, -0.75, -0.25, 0.25, 0.75, 1.25, 60.0]),
    ],
)
def test_numbers_are_rounded_to_even_and_saturate(scale, zero, dtype, expected, tmp_path):
    make = Maker(opset=21)
    output = coded(make, "x", scale, zero, dtype)
    made, _ = numbers(make, tmp_path, output)
    assert made.tolist() == [expected]
    assert np.array_equal(made, reference_of_onnx(make, output, X))


def test_codes_whose_least_one_is_zero_count_from_0_on(tmp_path):
    make = Maker(opset=21)
    _, graph = numbers(make, tmp_path, coded(make, "x", 0.25, -128, np.int8))
    assert str(graph.ops[0].steps[0].format) == "u8"


@pytest.mark.parametrize(("low", "high", "form"), [(0, 127, "u7"), (0, 3, "u2"), (0, 200, "u8"), (2, 9, "u4")])
def test_a_clip_of_codes_narrows_them(low, high, form, tmp_path):
    make = Maker(opset=21)
    parameters = [make.constant(0.25), make.constant(0, np.uint8)]
    codes = make.node("QuantizeLinear", ["x", *parameters])
    clipped = make.node("Clip", [codes, make.constant(low, np.uint8), make.constant(high, np.uint8)])
    output = make.node("DequantizeLinear", [clipped, *parameters])
    made, graph = numbers(make, tmp_path, output)
    assert np.array_equal(made, reference_of_onnx(make, output, X))
    assert str(graph.ops[0].steps[0].format) == form


def test_codes_that_are_read_twice_keep_their_range_before_the_clip(tmp_path):
    make = Maker(opset=21)
    parameters = [make.constant(0.25), make.constant(0, np.uint8)]
    codes = make.node("QuantizeLinear", ["x", *parameters])
    clipped = make.node("Clip", [codes, make.constant(0, np.uint8), make.constant(3, np.uint8)])
    both = [make.node("DequantizeLinear", [each, *parameters]) for each in (codes, clipped)]
    output = make.node("Add", both)
    made, _ = numbers(make, tmp_path, output)
    assert np.array_equal(made, reference_of_onnx(make, output, X))


def test_quantizing_what_is_on_the_grid_already_is_no_step(tmp_path):
    make = Maker(opset=21)
    output = coded(make, make.node("Flatten", [coded(make, "x", 0.5, 3)]), 0.5, 3)
    _, graph = numbers(make, tmp_path, output)
    assert sum(len(op.steps) for op in graph.ops) == 2  # Quantize, and the numbers at the end


@pytest.mark.parametrize("axis", [0, -2])
def test_weights_and_biases_come_in_by_their_codes(axis, tmp_path):
    rng = np.random.default_rng(0)
    make = Maker(opset=21)
    scales = np.array([0.5, 0.25, 2.0], np.float32)
    weights = make.node(
        "DequantizeLinear",
        [make.constant(rng.integers(-127, 128, (3, 7)), np.int8), make.constant(scales)],
        axis=axis,
    )
    codes = make.constant(rng.integers(-900, 900, 3), np.int32)
    bias = make.node("DequantizeLinear", [codes, make.constant(scales / 4)], axis=0)
    output = make.node("Gemm", [coded(make, "x", 0.25, 7), weights, bias], transB=1)
    made, graph = numbers(make, tmp_path, output)
    assert np.array_equal(made, reference_of_onnx(make, output, X))
    (layer,) = graph.products
    assert layer.product.n_planes == 7
    assert layer.product.weights.scale.reshape(-1).tolist() == scales.tolist()


def test_padding_counts_as_the_number_0_whatever_code_that_is(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.integers(-20, 20, (2, 2, 5, 5)) / 4
    make = Maker(opset=21)
    weights = make.node(
        "DequantizeLinear", [make.constant(rng.integers(-8, 8, (3, 2, 3, 3)), np.int8), make.constant(0.5)]
    )
    output = make.node("Conv", [coded(make, "x", 0.25, 10), weights], pads=[1, 1, 1, 1])
    made, _ = numbers(make, tmp_path, output, x)
    assert np.array_equal(made, reference_of_onnx(make, output, x))


def test_a_quantized_product_is_codes_times_codes_and_codes_again(tmp_path):
    rng = np.random.default_rng(2)
    make = Maker(opset=21)
    x_scale, x_zero = make.constant(0.25), make.constant(3, np.uint8)
    codes = make.node("QuantizeLinear", ["x", x_scale, x_zero])
    weights = make.constant(rng.integers(0, 255, (7, 4)), np.uint8)
    rest = [make.constant(0.5), make.constant(100, np.uint8), make.constant(32.0), make.constant(90, np.uint8)]
    product = make.node("QLinearMatMul", [codes, x_scale, x_zero, weights, *rest])
    output = make.node("DequantizeLinear", [product, rest[2], rest[3]])
    made, graph = numbers(make, tmp_path, output)
    assert np.array_equal(made, reference_of_onnx(make, output, X))
    assert len(graph.products) == 1


def refusal(make, folder, output, shape=(1, 7)):
    with pytest.raises(GraphError) as caught:
        read_qonnx(make.write(folder, shape, output))
    return str(caught.value)


def test_scales_that_follow_from_the_sample_are_refused_by_name(tmp_path):
    make = Maker(opset=21)
    codes = make.node("DynamicQuantizeLinear", ["x"], n_outputs=3)
    output = make.node("DequantizeLinear", [codes, f"{codes}.1", f"{codes}.2"])
    assert refusal(make, tmp_path, output).endswith(
        "DynamicQuantizeLinear whose scale follows from each sample x1 (dynamicquantizelinear0), take static "
        "quantization (QuantizeLinear)"
    )


def test_products_of_whole_numbers_are_refused_with_the_nearest_thing(tmp_path):
    make = Maker(opset=21)
    codes = make.node("QuantizeLinear", ["x", make.constant(1.0), make.constant(0, np.uint8)])
    output = make.node("MatMulInteger", [codes, make.constant(np.ones((7, 2)), np.int8)])
    assert refusal(make, tmp_path, output).endswith(
        "MatMulInteger x1 (matmulinteger1), take QuantizeLinear, DequantizeLinear and MatMul (static quantization)"
    )


@pytest.mark.parametrize(
    ("scale", "zero", "dtype", "message"),
    [
        (-1.0, 0, np.uint8, "QuantizeLinear with a scale that is not above 0 x1"),
        ([0.5, 1.0], 0, np.uint8, r"QuantizeLinear with a scale of shape \(2,\) for axis 1 of \(1, 7\) x1"),
        ([0.5] * 7, range(7), np.uint8, "QuantizeLinear with a zero point for each channel x1 .*, take one zero point"),
        (0.5, 0, np.int64, "QuantizeLinear to anything but whole numbers x1 .*, take uint8, int8, uint16 or int16"),
        (0.5, 0, np.int32, "QuantizeLinear to codes from -2147483648 to 2147483647 x1 .*, take 2 levels to 16 bits"),
    ],
)
def test_codes_that_a_graph_does_not_have_are_refused(scale, zero, dtype, message, tmp_path):
    make = Maker(opset=21)
    output = coded(make, "x", scale, list(zero) if isinstance(zero, range) else zero, dtype)
    with pytest.raises(GraphError, match=message):
        read_qonnx(make.write(tmp_path, (1, 7), output))


@pytest.mark.parametrize(("kind", "attribute"), [("QuantizeLinear", "precision"), ("DequantizeLinear", "output_dtype")])
def test_arithmetic_in_less_than_float32_is_refused(kind, attribute, tmp_path):
    make = Maker(opset=23)
    parameters = [make.constant(0.5), make.constant(0, np.uint8)]
    said = {name: {attribute: 10} if name == kind else {} for name in ("QuantizeLinear", "DequantizeLinear")}
    codes = make.node("QuantizeLinear", ["x", *parameters], **said["QuantizeLinear"])
    output = make.node("DequantizeLinear", [codes, *parameters], **said["DequantizeLinear"])
    with pytest.raises(GraphError, match=f"{kind} whose {attribute} is data type 10 x1 .*, take float32, data type 1"):
        read_qonnx(make.write(tmp_path, (1, 7), output))
