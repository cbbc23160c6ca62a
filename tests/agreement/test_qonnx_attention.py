"""Small transformers, made by hand and by torch.onnx.export, against onnxruntime, which runs them in float32.

Inputs of products are codes of 8 bits on a grid so fine that float32 and float64 seldom choose differently; where they
do, a number is wrong by one step of the grid.
"""

import io

import numpy as np
import pytest
from onnx_models import Maker

from imcsim.arch.load import load_chip
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.graph import Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax
from imcsim.mapping.place import place
from imcsim.workloads import load_workload

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
pytest.importorskip("qonnx", reason="qonnx is not installed: nothing to compare with")

N_SAMPLES = 4


def run_by_others(model, values):
    """What qonnx makes of *values*, sample by sample, in onnxruntime."""
    import onnxruntime
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    onnxruntime.set_default_logger_severity(3)
    wrapped = ModelWrapper(model).transform(InferShapes())
    name = model.graph.output[0].name
    return np.concatenate([execute_onnx(wrapped, {"x": value[None]})[name] for value in values])


def agree(path, model, shape, *, seed=0, tolerance=1e-4):
    """The graph of the file, whose outputs are those of onnxruntime, on an ideal chip as in the reference."""
    values = np.random.default_rng(seed).normal(size=(N_SAMPLES, *shape)).astype(np.float32)
    expected = run_by_others(model, values)
    graph = load_workload(path)
    found = reference(graph, values.reshape(len(values), *graph.input.shape))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=tolerance)
    chip = load_chip("tim-dnn", overrides={"tile.count_max": 16})
    on_chip = execute(place(graph, chip), values.reshape(len(values), *graph.input.shape))
    assert np.array_equal(on_chip, found)
    return graph


def kinds(graph):
    """The steps of all ops, in their order."""
    return [type(step) for op in graph.ops for step in op.steps]


def ternary(rng, *shape):
    return rng.integers(-1, 2, shape).astype(np.float32)


# --- by hand --------------------------------------------------------------------------------------------------------


def by_hand(opset, *, n_heads=2, n_channels=8, n_tokens=5, codes=True, causal=False, pooled="mean"):
    """A block of attention and one of two maps, on (b t c); *codes*: what attention multiplies is quantized."""
    make, rng = Maker(opset), np.random.default_rng(n_heads)
    t, c, d = n_tokens, n_channels, n_channels // n_heads

    def linear(x, n_in, n_out):
        x = make.quant(x, 0.02, 0.0, 8)
        made = make.node("MatMul", [x, make.constant(0.2 * ternary(rng, n_in, n_out))])
        return make.node("Add", [made, make.constant(rng.normal(size=n_out))])

    def quant(x, scale=0.03125, **more):
        return make.quant(x, scale, 0.0, 8, **more) if codes else x

    def reshape(x, *shape):
        return make.node("Reshape", [x, make.constant(shape, np.int64)])

    def heads(x, perm):
        return make.node("Transpose", [reshape(x, 1, t, n_heads, d)], perm=perm)

    def norm(x):
        scale, offset = make.constant(rng.normal(size=c)), make.constant(rng.normal(size=c))
        if opset >= 17:
            return make.node("LayerNormalization", [x, scale, offset], axis=-1, epsilon=1e-3)
        mean = make.node("ReduceMean", [x], axes=[-1])
        less = make.node("Sub", [x, mean])
        square = make.node("Pow", [less, make.constant(2.0)])
        variance = make.node("Add", [make.node("ReduceMean", [square], axes=[-1]), make.constant(1e-3)])
        normal = make.node("Div", [less, make.node("Sqrt", [variance])])
        return make.node("Add", [make.node("Mul", [normal, scale]), offset])

    def gelu(x):
        if opset >= 20:
            return make.node("Gelu", [x])
        erf = make.node("Erf", [make.node("Div", [x, make.constant(np.sqrt(2))])])
        return make.node(
            "Mul", [make.node("Mul", [x, make.node("Add", [erf, make.constant(1.0)])]), make.constant(0.5)]
        )

    x = make.node("Add", ["x", make.constant(rng.normal(size=(t, c)))])  # where tokens stand
    query = heads(quant(linear(x, c, c)), [0, 2, 1, 3])
    key = heads(quant(linear(x, c, c)), [0, 2, 3, 1])
    value = heads(quant(linear(x, c, c)), [0, 2, 1, 3])
    scores = make.node("Mul", [make.node("MatMul", [query, key]), make.constant(d**-0.5)])
    if causal:
        scores = make.node("Add", [scores, make.constant(np.triu(np.full((t, t), -np.inf), 1))])
    chances = quant(make.node("Softmax", [scores], axis=-1), 1 / 255, signed=0)
    context = make.node("Transpose", [make.node("MatMul", [chances, value])], perm=[0, 2, 1, 3])
    x = norm(make.node("Add", [x, linear(reshape(context, 1, t, c), c, c)]))
    x = norm(make.node("Add", [linear(gelu(linear(x, c, 2 * c)), 2 * c, c), x]))
    if pooled == "mean":
        x = make.node("ReduceMean", [x], axes=[1], keepdims=0) if opset < 18 else make.node(
            "ReduceMean", [x, make.constant([1], np.int64)], keepdims=0)  # fmt: skip
    elif pooled == "first":
        x = make.node("Gather", [x, make.constant(0, np.int64)], axis=1)
    return make, x, (t, c)


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("codes", [True, False])
def test_a_transformer_gives_what_onnxruntime_gives(opset, codes, tmp_path):
    make, output, shape = by_hand(opset, codes=codes)
    path = make.write(tmp_path, (1, *shape), output)
    graph = agree(path, make.model((1, *shape), output), shape, tolerance=0.02)
    assert len(graph.products) == 6
    found = kinds(graph)
    assert (found.count(MatMul), found.count(Softmax), found.count(LayerNorm), found.count(Gelu)) == (2, 1, 2, 1)


@pytest.mark.parametrize("n_heads", [1, 4])
@pytest.mark.parametrize("pooled", ["first", "none"])
def test_heads_masks_and_the_choice_of_a_token_are_taken(n_heads, pooled, tmp_path):
    make, output, shape = by_hand(17, n_heads=n_heads, causal=True, pooled=pooled)
    path = make.write(tmp_path, (1, *shape), output)
    agree(path, make.model((1, *shape), output), shape, tolerance=0.02)


def test_what_attention_multiplies_stays_codes_and_begins_an_op(tmp_path):
    make, output, shape = by_hand(17)
    graph = load_workload(make.write(tmp_path, (1, *shape), output))
    for op in graph.ops:
        if any(isinstance(step, MatMul) for step in op.steps):
            assert isinstance(op.steps[0], MatMul)
            assert not any(graph.tensors[name].format.is_real for name in op.inputs)


def test_no_op_does_nothing_but_move_numbers(tmp_path):
    make, output, shape = by_hand(17)
    graph = load_workload(make.write(tmp_path, (1, *shape), output))
    moves = [op.name for op in graph.ops if op.product is None and all(type(s) in (Permute, Reshape) for s in op.steps)]
    assert len(moves) <= 1  # the sum of tokens and their places, which two halves read


# --- layers alone ---------------------------------------------------------------------------------------------------


def one(make, kind, *constants, **attributes):
    return make.node(kind, ["x", *(make.constant(values) for values in constants)], **attributes)


@pytest.mark.parametrize(
    ("opset", "shape", "build"),
    [
        (17, (3, 4), lambda make: one(make, "Softmax", axis=1)),
        (17, (3, 4), lambda make: one(make, "Softmax", axis=-1)),
        (17, (2, 3, 4), lambda make: one(make, "Softmax", axis=1)),
        (17, (3, 4), lambda make: one(make, "LogSoftmax", axis=-1)),
        (17, (2, 3, 4), lambda make: one(make, "LayerNormalization", np.arange(12.0).reshape(3, 4), axis=2)),
        (17, (2, 3, 4), lambda make: one(make, "InstanceNormalization", [1.0, 2.0], [0.5, -0.5])),
        (21, (4, 3, 2), lambda make: one(make, "GroupNormalization", np.arange(4.0), np.ones(4), num_groups=2)),
        (20, (2, 3), lambda make: one(make, "Gelu", approximate="tanh")),
        (13, (2, 3), lambda make: one(make, "Erf")),
        (13, (2, 3), lambda make: one(make, "Exp")),
        (13, (2, 3), lambda make: make.node("Mul", [one(make, "Sigmoid"), "x"])),
        (13, (2, 3, 4), lambda make: one(make, "Transpose", perm=[0, 2, 3, 1])),
        (13, (2, 3, 4), lambda make: make.node("Relu", [one(make, "Transpose", perm=[0, 3, 1, 2])])),
        (13, (3, 4), lambda make: make.node("MatMul", ["x", one(make, "Transpose", perm=[0, 2, 1])])),
        (13, (2, 3, 4), lambda make: make.node("MatMul", ["x", one(make, "Transpose", perm=[0, 1, 3, 2])])),
        (13, (2, 3, 4), lambda make: one(make, "ReduceMean", axes=[2], keepdims=0)),
        (13, (4, 3), lambda make: make.node("Concat", ["x", one(make, "Relu")], axis=2)),
        (
            13,
            (4, 3),
            lambda make: make.node("Gather", [one(make, "Transpose", perm=[2, 0, 1]), make.constant(1, np.int64)]),
        ),
    ],
    ids=lambda value: "",
)
def test_a_layer_alone_gives_what_onnxruntime_gives(opset, shape, build, tmp_path):
    make = Maker(opset)
    output = build(make)
    agree(make.write(tmp_path, (1, *shape), output), make.model((1, *shape), output), shape)


def test_a_root_mean_square_norm_in_pieces_is_one_step(tmp_path):
    make = Maker(13)
    square = make.node("Pow", ["x", make.constant(2.0)])
    mean = make.node("Add", [make.node("ReduceMean", [square], axes=[-1]), make.constant(1e-2)])
    inverse = make.node("Div", [make.constant(1.0), make.node("Sqrt", [mean])])
    output = make.node("Mul", ["x", inverse])
    graph = agree(make.write(tmp_path, (1, 3, 4), output), make.model((1, 3, 4), output), (3, 4))
    (step,) = (step for op in graph.ops for step in op.steps)
    assert isinstance(step, LayerNorm)
    assert not step.is_centred


def test_parts_of_any_axis_are_cut_out(tmp_path):
    make = Maker(13)
    parts = make.node("Split", ["x", make.constant([1, 2, 3], np.int64)], axis=2, n_outputs=3)
    ends = [make.constant([value], np.int64) for value in (1, 3, 2)]
    tail = make.node("Slice", [f"{parts}.2", *ends])
    output = make.node("Concat", [parts, tail, make.node("Relu", [f"{parts}.1"]), f"{parts}.1"], axis=2)
    agree(make.write(tmp_path, (1, 3, 6), output), make.model((1, 3, 6), output), (3, 6))


def test_a_constant_mask_chooses_before_a_softmax(tmp_path):
    make = Maker(13)
    mask = make.constant(np.tril(np.ones((3, 3))), bool)
    scores = make.node("MatMul", ["x", make.node("Transpose", ["x"], perm=[0, 2, 1])])
    output = make.node("Softmax", [make.node("Where", [mask, scores, make.constant(-np.inf)])], axis=-1)
    agree(make.write(tmp_path, (1, 3, 4), output), make.model((1, 3, 4), output), (3, 4))


# --- by torch -------------------------------------------------------------------------------------------------------


def quantized(model, scale=0.02):
    """The model with a Quant in front of every product with a matrix that the file holds."""
    from onnx import helper, numpy_helper

    stored = {tensor.name for tensor in model.graph.initializer}
    nodes, made = [], {}
    for name, value in (("q.scale", scale), ("q.zero", 0.0), ("q.bits", 8.0)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in stored:
            x = node.input[0]
            if x not in made:
                made[x] = f"{x}.codes"
                inputs = [x, "q.scale", "q.zero", "q.bits"]
                said = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", "domain": "qonnx.custom_op.general"}
                nodes.append(helper.make_node("Quant", inputs, [made[x]], name=f"{made[x]}.q", **said))
            node.input[0] = made[x]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("qonnx.custom_op.general", 1))
    return model


def exported(module, shape, opset, *, dynamo):
    import onnx
    import torch

    file = io.BytesIO()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 2:
                parameter.copy_(0.1 * torch.randint(-1, 2, parameter.shape))
            else:
                parameter.normal_()
        options = {"input_names": ["x"], "opset_version": opset, "dynamo": dynamo}
        if dynamo:
            torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), **options).save(file)
        else:
            torch.onnx.export(module.eval(), (torch.zeros(1, *shape),), file, **options)
    return quantized(onnx.load_from_string(file.getvalue()))


def block(style):
    """A block that attends, in one of the styles of published code: parts by split and view, or by one permutation."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
            self.parts, self.output = nn.Linear(8, 24), nn.Linear(8, 8)
            self.inner = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def attend(self, x):
            b, t, c = x.shape
            if style == "split":
                parts = (part.view(b, t, 2, 4).transpose(1, 2) for part in self.parts(x).split(8, dim=2))
                y = functional.scaled_dot_product_attention(*parts, is_causal=True)
            else:
                q, k, v = self.parts(x).reshape(b, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
                y = torch.softmax(q * 4**-0.5 @ k.transpose(-2, -1), dim=-1) @ v
            return self.output(y.transpose(1, 2).reshape(b, t, c))

        def forward(self, x):
            x = x + self.attend(self.norm1(x))
            return x + self.inner(self.norm2(x))

    return Block()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("style", ["split", "permute"])
@pytest.mark.parametrize(("opset", "dynamo"), [(14, False), (17, False), (18, True)])
def test_a_block_exported_by_torch_gives_what_onnxruntime_gives(style, opset, dynamo, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    model = exported(block(style), (5, 8), opset, dynamo=dynamo)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    graph = agree(path, model, (5, 8), tolerance=0.05)
    found = kinds(graph)
    assert (found.count(MatMul), found.count(Softmax), found.count(LayerNorm), found.count(Gelu)) == (2, 1, 2, 1)


@pytest.mark.filterwarnings("ignore")
def test_a_gated_map_of_torch_has_a_silu(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    layer = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.SiLU(), torch.nn.Linear(8, 3))
    model = exported(layer, (5, 6), 17, dynamo=False)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert kinds(agree(path, model, (5, 6), tolerance=0.05)).count(Silu) == 1
