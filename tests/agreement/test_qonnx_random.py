"""Small models drawn at random, against qonnx's own execution, which runs ONNX's operators in onnxruntime.

Half of the models have scales that are powers of two, so that every number is exact in float32 and halves are met
often; the others have any scales, and are left out where a number lies so near a limit of a quantizer that float32
decides.
``IMCSIM_QONNX_EXAMPLES`` says how many are drawn.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx_models import QONNX, Maker
from strategies import seeds

from imcsim.arch.load import load_chip
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.mapping.place import place
from imcsim.workloads import load_workload

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
pytest.importorskip("qonnx", reason="qonnx is not installed: nothing to compare with")

N_EXAMPLES = int(os.environ.get("IMCSIM_QONNX_EXAMPLES", "60"))
N_SAMPLES = 3
OPSETS = (9, 11, 13, 18, 22)
"""Versions of ONNX's operators that onnxruntime takes."""

ROUNDINGS = ("ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
MARGIN = 1e-4
QUANTIZERS = ("Quant", "BipolarQuant", "MultiThreshold", "Sign")


class Drawing:
    """A model as it is drawn: nodes so far, and what is known of the tensor at hand."""

    def __init__(self, draw, opsets):
        self.draw = draw
        self.rng = np.random.default_rng(draw(seeds()))
        self.is_exact = draw(st.booleans())
        domain = draw(st.sampled_from([QONNX, "onnx.brevitas"]))
        opset = draw(st.sampled_from(opsets))
        self.make = Maker(opset, domain, lists_initializers=draw(st.booleans()))
        self.kept = []
        """Tensors that a residual may come from, with their shapes."""

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def scale(self, low=0.1, high=2.0, size=()):
        if self.is_exact:
            return self.rng.choice([0.25, 0.5, 1.0, 2.0], size=size)
        return np.float32(self.rng.uniform(low, high, size=size))

    def numbers(self, size=()):
        """Of about the size of activations."""
        return self.rng.integers(-8, 9, size) / 4 if self.is_exact else self.rng.normal(0, 1.5, size)

    def channels(self, shape):
        """A shape that meets the channels."""
        return (1, shape[0], *(1,) * (len(shape) - 1))


def activation(d, x, shape):
    """A quantizer of activations; gives whether its codes have one scale."""
    match d.one_of("quant", "quant", "quant", "bipolar", "thresholds", "sign"):
        case "bipolar":
            return d.make.bipolar(x, d.scale())
        case "thresholds":
            n = d.one_of(1, 2, 3, 7)
            limits = np.sort(d.numbers((d.one_of(1, shape[0]), n)), axis=1)
            scale, bias = d.one_of((1.0, 0.0), (2.0, -1.0), (1.0, -1.0), (0.5, -0.75))
            layout = ("NC", "NCW", "NCHW")[len(shape) - 1]
            return d.make.node("MultiThreshold", [x, d.make.constant(limits)], QONNX, out_dtype="INT8",
                               out_scale=scale, out_bias=bias, data_layout=layout)  # fmt: skip
        case "sign":
            return d.make.node("Sign", [x])
    signed, narrow = d.one_of(0, 1), d.one_of(0, 1)
    bits = d.one_of(*range(1 if signed or not narrow else 2, 9))
    few = bits <= 4
    zero = d.one_of(0.0, 0.0, 0.0, 1.0, 2.0, -1.0) if bits > 1 else 0.0
    rounding = d.one_of(*ROUNDINGS)
    assume(few or rounding in ("ROUND", "FLOOR", "CEIL"))
    per_channel = bits > 1 and not d.draw(st.integers(0, 2))
    size = d.channels(shape) if per_channel else ()
    scale = d.scale(size=size)
    if per_channel and d.draw(st.booleans()):
        zero = d.rng.integers(-1, 3, size)
    x = d.make.quant(x, scale, zero, bits, signed=signed, narrow=narrow, rounding=rounding)
    if bits < 3 or per_channel or d.draw(st.integers(0, 3)):
        return x
    parameters = [d.make.constant(value) for value in (scale, zero, bits, d.one_of(2, bits - 1, bits))]
    return d.make.node("Trunc", [x, *parameters], d.make.domain, rounding_mode=d.one_of(*ROUNDINGS))


def weights(d, shape):
    """Weights (c_out ...) with quantizers in front, or of few levels."""
    latent = d.numbers(shape)
    per_output = (shape[0], *(1,) * (len(shape) - 1))
    scale = d.scale(size=d.one_of((), per_output))
    match d.one_of("ternary", "quant", "bipolar", "levels", "uneven", "two"):
        case "ternary":
            return d.make.quant(d.make.constant(latent), scale, 0.0, 2, signed=1, narrow=1)
        case "quant":
            bits, narrow = d.one_of(2, 3, 4, 8), d.one_of(0, 1)
            return d.make.quant(d.make.constant(latent), scale, d.one_of(0.0, 0.0, 1.0), bits, signed=d.one_of(0, 1, 1),
                                narrow=narrow, rounding=d.one_of(*ROUNDINGS))  # fmt: skip
        case "bipolar":
            return d.make.bipolar(d.make.constant(latent), scale)
        case "levels":
            return d.make.constant(np.float32(scale) * d.rng.integers(-3, 4, shape).astype(np.float32))
        case "uneven":
            low, high = np.float32(d.scale(size=per_output)), np.float32(d.scale(size=per_output))
            codes = d.rng.integers(-1, 2, shape)
            return d.make.constant(np.where(codes < 0, -low, high * codes))
    low, gap = np.float32(d.scale(size=per_output)), np.float32(d.scale(size=per_output))
    return d.make.constant(np.where(d.rng.random(shape) < 0.5, -low, -low + gap))


def between(d, x, shape):
    """What may stand between a quantizer and a product and leaves codes codes; gives the tensor and its shape."""
    for _ in range(d.draw(st.integers(0, 2))):
        kind = d.one_of("scale", "shift", "same", "pool", "keep", "slice")
        if kind == "scale":
            x = d.make.node(d.one_of("Mul", "Div"), [x, d.make.constant(d.scale())])
        elif kind == "shift":
            x = d.make.node(d.one_of("Add", "Sub"), [x, d.make.constant(d.one_of(0.25, 1.0, -0.5))])
        elif kind == "same":
            x = d.make.node("Identity", [x])
        elif kind == "keep":
            d.kept.append((x, shape))
        elif kind == "slice" and shape[0] > 2 and d.make.opset >= 10:
            bounds = [d.make.constant([n], np.int64) for n in (1, shape[0], 1)]
            x, shape = d.make.node("Slice", [x, *bounds]), (shape[0] - 1, *shape[1:])
        elif kind == "pool" and len(shape) > 1 and min(shape[1:]) >= 3:
            n = len(shape) - 1
            pad = d.one_of(0, 1)
            x = d.make.node("MaxPool", [x], kernel_shape=[2] * n, strides=[2] * n, pads=[pad] * (2 * n))
            shape = (shape[0], *((m + 2 * pad - 2) // 2 + 1 for m in shape[1:]))
    return x, shape


def padded(d, x, shape):
    """A Pad of its own, or none."""
    if len(shape) < 2 or not d.draw(st.booleans()):
        return x, shape
    n = len(shape) - 1
    before, after = [int(k) for k in d.rng.integers(0, 2, n)], [int(k) for k in d.rng.integers(0, 2, n)]
    pads = [0, 0, *before, 0, 0, *after]
    if d.make.opset < 11:
        x = d.make.node("Pad", [x], pads=pads, mode="constant", value=0.0)
    else:
        x = d.make.node("Pad", [x, d.make.constant(pads, np.int64), d.make.constant(0.0)])
    return x, (shape[0], *(m + a + b for m, a, b in zip(shape[1:], before, after, strict=True)))


def product(d, x, shape):
    """A convolution where there is an image and the draw says so, else a linear map of all numbers."""
    if len(shape) > 1 and d.draw(st.booleans()):
        return convolution(d, *padded(d, x, shape))
    if len(shape) > 1:
        match d.one_of("flatten", "reshape", "shape"):
            case "flatten":
                x = d.make.node("Flatten", [x], axis=1)
            case "reshape":
                x = d.make.node("Reshape", [x, d.make.constant([0, -1], np.int64)])
            case "shape":
                batch = d.make.node("Gather", [d.make.node("Shape", [x]), d.make.constant(0, np.int64)], axis=0)
                if d.make.opset < 13:
                    batch = d.make.node("Unsqueeze", [batch], axes=[0])
                else:
                    batch = d.make.node("Unsqueeze", [batch, d.make.constant([0], np.int64)])
                rest = d.make.constant([-1], np.int64)
                x = d.make.node("Reshape", [x, d.make.node("Concat", [batch, rest], axis=0)])
    n_in, n_out = int(np.prod(shape)), d.one_of(1, 3, 5)
    w = weights(d, (n_out, n_in))
    match d.one_of("matmul", "gemm", "gemm-transposed"):
        case "matmul":
            y = d.make.node("MatMul", [x, d.make.node("Transpose", [w], perm=[1, 0])])
        case "gemm":
            y = d.make.node(
                "Gemm", [x, d.make.node("Transpose", [w], perm=[1, 0]), bias(d, n_out)], alpha=d.one_of(1.0, 0.5)
            )
        case _:
            y = d.make.node("Gemm", [x, w, bias(d, n_out)], transB=1, beta=d.one_of(1.0, 2.0))
    return y, (n_out,)


def bias(d, n):
    return d.make.constant(d.numbers((n,)))


def convolution(d, x, shape):
    sizes = shape[1:]
    n = len(sizes)
    groups = d.one_of(1, 1, shape[0])
    kernel = [int(d.rng.integers(1, min(4, m + 1))) for m in sizes]
    dilation = [d.one_of(1, 1, 2) if d_k * 2 - 1 <= m and d_k > 1 else 1 for d_k, m in zip(kernel, sizes, strict=True)]
    stride = [d.one_of(1, 2) for _ in sizes]
    reach = [(k - 1) * e + 1 for k, e in zip(kernel, dilation, strict=True)]
    n_out = groups * d.one_of(1, 2, 3)
    inputs = [x, weights(d, (n_out, shape[0] // groups, *kernel))]
    if d.draw(st.booleans()):
        inputs.append(bias(d, n_out))
    attributes = {"kernel_shape": kernel, "strides": stride, "dilations": dilation, "group": groups}
    if d.draw(st.booleans()):
        y = d.make.node("Conv", inputs, auto_pad=d.one_of("SAME_UPPER", "SAME_LOWER"), **attributes)
        assume(all(e == 1 for e in dilation))  # onnxruntime's own padding of these differs between versions
        return y, (n_out, *(-(-m // s) for m, s in zip(sizes, stride, strict=True)))
    before, after = [d.one_of(0, 0, 1) for _ in sizes], [d.one_of(0, 1) for _ in sizes]
    y = d.make.node("Conv", inputs, pads=[*before, *after], **attributes)
    made = [(m + a + b - r) // s + 1 for m, a, b, r, s in zip(sizes, before, after, reach, stride, strict=True)]
    assert len(made) == n
    return y, (n_out, *made)


def epilogue(d, x, shape):
    """Steps on real numbers."""
    for _ in range(d.draw(st.integers(0, 3))):
        kind = d.one_of(
            "norm",
            "unrolled",
            "relu",
            "prelu",
            "leaky",
            "clip",
            "average",
            "residual",
            "concat",
            "neg",
            "global",
            "pixels",
        )
        if kind == "norm":
            gamma, beta, mean = (d.numbers(shape[:1]) for _ in range(3))
            variance = d.rng.choice([0.25, 1.0, 4.0], shape[0]) if d.is_exact else d.rng.uniform(0.2, 3, shape[0])
            parameters = [d.make.constant(values) for values in (gamma, beta, mean, variance)]
            x = d.make.node("BatchNormalization", [x, *parameters], epsilon=0.0 if d.is_exact else 1e-5)
        elif kind == "unrolled":
            wide = d.channels(shape)
            x = d.make.node("Sub", [x, d.make.constant(d.numbers(wide))])
            root = d.make.node("Pow", [d.make.constant(d.scale(size=wide) ** 2), d.make.constant(0.5)])
            x = d.make.node("Div", [x, root])
            x = d.make.node(
                "Add", [d.make.node("Mul", [x, d.make.constant(d.numbers(wide))]), d.make.constant(d.numbers(wide))]
            )
        elif kind == "pixels" and len(shape) > 1:
            x = d.make.node(d.one_of("Add", "Mul"), [x, d.make.constant(d.numbers((1, *shape)))])
        elif kind == "relu":
            x = d.make.node("Relu", [x])
        elif kind == "neg":
            x = d.make.node(d.one_of("Neg", "Abs"), [x])
        elif kind == "leaky":
            x = d.make.node("LeakyRelu", [x], alpha=0.125)
        elif kind == "prelu":
            x = d.make.node("PRelu", [x, d.make.constant(d.numbers(d.channels(shape)[1:]))])
        elif kind == "clip":
            if d.make.opset < 11:
                x = d.make.node("Clip", [x], min=-1.5, max=2.25)
            else:
                x = d.make.node(
                    "Clip", [x, d.make.constant(-1.5), *([d.make.constant(2.25)] if d.draw(st.booleans()) else [])]
                )
        elif kind == "average" and len(shape) > 1 and min(shape[1:]) >= 2:
            n, pad = len(shape) - 1, d.one_of(0, 1)
            stride, counts = d.one_of(1, 2), d.one_of(0, 1)
            x = d.make.node("AveragePool", [x], kernel_shape=[2] * n, strides=[stride] * n, pads=[pad] * (2 * n),
                            count_include_pad=counts)  # fmt: skip
            shape = (shape[0], *((m + 2 * pad - 2) // stride + 1 for m in shape[1:]))
        elif kind == "global" and len(shape) > 1 and not d.is_exact:
            x, shape = d.make.node("GlobalAveragePool", [x]), (shape[0], *(1 for _ in shape[1:]))
        elif kind == "residual":
            same = [name for name, kept in d.kept if kept == shape]
            if same:
                other = d.one_of(*same)
                x = d.make.node(d.one_of("Add", "Sub"), [x, other] if d.draw(st.booleans()) else [other, x])
        elif kind == "concat" and d.kept and any(kept[1:] == shape[1:] for _, kept in d.kept):
            other, kept = next((name, kept) for name, kept in d.kept if kept[1:] == shape[1:])
            x, shape = d.make.node("Concat", [x, other], axis=1), (shape[0] + kept[0], *shape[1:])
    return x, shape


@st.composite
def models(draw, opsets=OPSETS):
    """A model, its input, and whether all of it is exact in float32."""
    d = Drawing(draw, opsets)
    shape = draw(st.sampled_from([(4,), (7,), (2, 6), (1, 4, 4), (2, 5, 5), (3, 4, 6)]))
    start, x = shape, "x"
    for number in range(draw(st.integers(1, 3))):
        if number == 0 and draw(st.booleans()):
            x = d.make.node("Sub", [d.make.node("Mul", [x, d.make.constant(2.0)]), d.make.constant([1.0])])
        x = activation(d, x, shape)
        x, shape = between(d, x, shape)
        d.kept.append((x, shape))
        x, shape = product(d, x, shape)
        x, shape = epilogue(d, x, shape)
    if draw(st.booleans()):
        x = activation(d, x, shape)
    values = d.numbers((N_SAMPLES, *start)).astype(np.float32)
    return d.make, x, values, d.is_exact


def run_by_others(model, values):
    """Every tensor for *values* (b ...) by qonnx, which makes a model of every node for onnxruntime."""
    import onnxruntime
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    onnxruntime.set_default_logger_severity(3)
    wrapped = ModelWrapper(model).transform(InferShapes())
    return execute_onnx(wrapped, {"x": values}, return_full_exec_context=True)


def is_near_a_limit(model, context):
    """Whether a number that is quantized lies where the rounding of float32 may choose its code."""
    stored = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in QUANTIZERS:
            continue
        x = context[node.input[0]].astype(np.float64)
        if node.op_type in ("BipolarQuant", "Sign"):
            distance = np.abs(x)
        elif node.op_type == "MultiThreshold":
            distance = np.abs(x[..., np.newaxis] - context[node.input[1]].reshape(-1))
        else:
            steps = x / context[node.input[1]] + context[node.input[2]]
            distance = np.abs(2 * steps - np.rint(2 * steps))  # whole numbers and halves
        is_constant = node.input[0] in stored  # quantized when the file is read, in float32 as elsewhere
        if not is_constant and np.any(distance.reshape(*x.shape, -1)[x != 0] < MARGIN):
            return True
    return False


@pytest.mark.filterwarnings("ignore:Output shapes disagree")  # qonnx tells no shapes behind a chain of shapes
@settings(max_examples=N_EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(drawn=models())
def test_a_model_drawn_at_random_gives_what_qonnx_gives(drawn, tmp_path_factory):
    make, output, values, is_exact = drawn
    model = make.model(values.shape, output)
    context = run_by_others(model, values)
    assume(is_exact or not is_near_a_limit(model, context))
    path = make.write(tmp_path_factory.getbasetemp(), (1, *values.shape[1:]), output)
    graph = load_workload(path)
    expected = context[output]
    x = values.reshape(len(values), *graph.input.shape)
    found = reference(graph, x)
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=tolerance)
    chip = load_chip("tim-dnn", overrides={"tile.count_max": 16})
    assert np.array_equal(execute(place(graph, chip), x), found)
