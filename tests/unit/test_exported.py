import importlib
import json
import warnings

import numpy as np
import pytest
import torch
from commands import imcsim
from exported_models import run_onnx
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from imcsim.errors import ConfigError, GraphError
from imcsim.functional.reference import reference
from imcsim.graph.capture import capture
from imcsim.graph.exported import export, model_of
from imcsim.workloads import load_workload


def model_from(module, *inputs, name="net"):
    """The model of *module*, its numbers drawn."""
    return model_of(export(module, inputs, name), name=name)


class Of(nn.Module):
    """A module whose forward() is a function."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(*inputs) if not self._modules else self.function(self, *inputs)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomized(module):
    """*module* with drawn parameters and statistics, none of them a default."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - (0.0 if "var" in name else 0.4))
    return module.eval()


def agree(module, *inputs):
    """Whether onnxruntime makes of the model what torch makes of the module; the model."""
    module = randomized(module)
    model = model_from(module, *inputs)
    with torch.no_grad():
        wanted = module(*inputs)
    wanted = tree_leaves(wanted)
    made = run_onnx(model, [tensor.numpy() for tensor in inputs])
    assert len(made) == len(wanted)
    for ours, theirs in zip(made, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=2e-5, atol=2e-6)
    return model


IMAGE = (2, 4, 8, 6)
SEQUENCE = (2, 4, 8)

LAYERS = {
    "conv": (nn.Conv2d(4, 6, 3, padding=1, stride=(2, 1)), IMAGE),
    "conv-same": (nn.Conv2d(4, 6, (4, 3), padding="same", dilation=(1, 2)), IMAGE),
    "conv-valid": (nn.Conv2d(4, 6, 3, padding="valid", bias=False), IMAGE),
    "conv-reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv-circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), IMAGE),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4), IMAGE),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=2, dilation=2), SEQUENCE),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), IMAGE),
    "transposed1d": (nn.ConvTranspose1d(4, 6, 3, stride=2), SEQUENCE),
    "linear": (nn.Linear(8, 5), (2, 8)),
    "linear-of-sequence": (nn.Linear(8, 5), SEQUENCE),
    "linear-of-sequence-without-bias": (nn.Linear(8, 5, bias=False), SEQUENCE),
    "batch-norm": (nn.BatchNorm2d(4, eps=1e-3), IMAGE),
    "batch-norm-plain": (nn.BatchNorm1d(4, affine=False), SEQUENCE),
    "layer-norm": (nn.LayerNorm((4, 8)), SEQUENCE),
    "layer-norm-plain": (nn.LayerNorm(8, elementwise_affine=False), SEQUENCE),
    "layer-norm-without-bias": (nn.LayerNorm(8, bias=False), SEQUENCE),
    "group-norm": (nn.GroupNorm(2, 4), IMAGE),
    "instance-norm": (nn.InstanceNorm2d(4), IMAGE),
    "relu": (nn.ReLU(), IMAGE),
    "relu-in-place": (nn.ReLU(inplace=True), IMAGE),
    "relu6": (nn.ReLU6(), IMAGE),
    "hardtanh": (nn.Hardtanh(-0.5, 0.7), IMAGE),
    "leaky-relu": (nn.LeakyReLU(0.2), IMAGE),
    "prelu": (nn.PReLU(4), IMAGE),
    "prelu-one": (nn.PReLU(), IMAGE),
    "sigmoid": (nn.Sigmoid(), IMAGE),
    "tanh": (nn.Tanh(), IMAGE),
    "hardswish": (nn.Hardswish(), IMAGE),
    "hardsigmoid": (nn.Hardsigmoid(), IMAGE),
    "silu": (nn.SiLU(), IMAGE),
    "gelu": (nn.GELU(), IMAGE),
    "gelu-tanh": (nn.GELU(approximate="tanh"), IMAGE),
    "elu": (nn.ELU(0.7), IMAGE),
    "selu": (nn.SELU(), IMAGE),
    "celu": (nn.CELU(0.7), IMAGE),
    "softplus": (nn.Softplus(), IMAGE),
    "mish": (nn.Mish(), IMAGE),
    "softmax": (nn.Softmax(1), IMAGE),
    "log-softmax": (nn.LogSoftmax(-1), IMAGE),
    "max-pool": (nn.MaxPool2d(3, stride=2, padding=1), IMAGE),
    "max-pool1d": (nn.MaxPool1d(2), SEQUENCE),
    "avg-pool": (nn.AvgPool2d(2), IMAGE),
    "avg-pool-padded": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "avg-pool1d": (nn.AvgPool1d(2), SEQUENCE),
    "adaptive": (nn.AdaptiveAvgPool2d(1), IMAGE),
    "adaptive-windows": (nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "adaptive-max": (nn.AdaptiveMaxPool2d(1), IMAGE),
    "adaptive1d": (nn.AdaptiveAvgPool1d(1), SEQUENCE),
    "flatten": (nn.Flatten(), IMAGE),
    "unflatten": (nn.Unflatten(1, (2, 2)), IMAGE),
    "dropout": (nn.Dropout(0.5), IMAGE),
    "upsample": (nn.Upsample(scale_factor=2), IMAGE),
    "upsample-bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    "pixel-shuffle": (nn.PixelShuffle(2), IMAGE),
    "channel-shuffle": (nn.ChannelShuffle(2), IMAGE),
    "zero-pad": (nn.ZeroPad2d((1, 2, 0, 1)), IMAGE),
    "replication-pad": (nn.ReplicationPad2d(1), IMAGE),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_onnxruntime_makes_the_same_of_the_model_of_a_layer(layer):
    module, shape = LAYERS[layer]
    agree(nn.Sequential(module), drawn(*shape))


FUNCTIONS = {
    "arithmetic": lambda x: (x + 1) * 0.1 - x / 3 + 2 * x - (1 - x),
    "alpha": lambda x: torch.add(x, x * x, alpha=0.3) - torch.sub(x, 2.0, alpha=3),
    "rsub": lambda x: torch.rsub(x, x.exp(), alpha=2),
    "floor-division": lambda x: torch.div(x, 0.3, rounding_mode="floor"),
    "powers": lambda x: x**2 + x.abs() ** 1.5 + x.abs() ** 0.5 + torch.rsqrt(x.abs() + 1) + x.square(),
    "functions": lambda x: x.abs().sqrt() + x.sign() + (-x).exp() + x.round() + x.floor() + x.erf() + x.sin(),
    "clamp": lambda x: x.clamp(-0.3, 0.5) + x.clamp(min=0.1) + x.clamp(max=0.2) + x.clamp_min(-0.1),
    "clamp-by-tensor": lambda x: torch.clamp(x, torch.tensor(-0.3), torch.tensor(0.5)),
    "extremes": lambda x: torch.maximum(x, -x) - torch.minimum(x, x * 2),
    "where": lambda x: torch.where(x > 0.2, x, x * 0.5) + x.masked_fill(x < -0.3, 4.0),
    "comparisons": lambda x: (x != 0.5).float() + (x >= 0) * 2.0 + ((x <= 1) & (x > -1)).float(),
    "mean": lambda x: x.mean((2, 3)) + x.mean(dim=-1).sum(-1) + x.mean((2, 3), keepdim=True).flatten(1),
    "extremes-over-axes": lambda x: x.amax((2, 3)) + x.amin(dim=-1).amax(-1),
    "argmax": lambda x: x.argmax(1),
    "permute": lambda x: x.permute(0, 2, 3, 1).contiguous().transpose(1, 2).movedim(1, -1),
    "reshape": lambda x: x.view(2, -1).reshape(2, 4, 48).unsqueeze(2).squeeze(2).unsqueeze(-1).squeeze(),
    "slices": lambda x: x[:, 1:3] + x[:, ::2] + x[:, -2:],
    "select": lambda x: x[:, 0] + x[:, -1] + x.select(1, 1) + x.narrow(1, 2, 1)[:, 0],
    "split": lambda x: x.split(2, 1)[1] + x.chunk(2, 1)[0] + torch.tensor_split(x, 2, 1)[0],
    "unbind": lambda x: x.unbind(1)[2] + x.unbind(1)[0],
    "cat": lambda x: torch.cat([x, x * 2, x[:, :1]], 1) + torch.cat([x, x, x[:, 1:2]], dim=-3),
    "stack": lambda x: torch.stack([x, -x], 1),
    "expand": lambda x: x[:, :1].expand(2, 4, 8, 6) + x.repeat(1, 1, 1, 1),
    "repeat": lambda x: x.repeat(1, 1, 2, 1, 1),
    "index": lambda x: x[:, torch.tensor([2, 0])] + x.index_select(1, torch.tensor([1, 1])),
    "pad": lambda x: functional.pad(x, (1, 0, 2, 1), value=0.5),
    "matmul": lambda x: (x @ x.transpose(-1, -2)).flatten(0, 1).bmm(x.reshape(8, 8, 6)),
    "casts": lambda x: x.double().float() + (x * 10).to(torch.int64).float(),
    "in-place": lambda x: (x * 2).add_(1).relu_().mul_(3),
    "read-behind-in-place": lambda x: (lambda y: torch.relu_(y) * 0 + y)(x - 0.2),
    "constants": lambda x: x + torch.arange(6.0).view(1, 6) * torch.ones(8, 1),
    "filled": lambda x: x + torch.zeros_like(x) + torch.ones_like(x),
    "attention": lambda x: functional.scaled_dot_product_attention(x, x * 2, x + 1),
    "causal-attention": lambda x: functional.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3),
    "masked-attention": lambda x: functional.scaled_dot_product_attention(x, x, x, attn_mask=torch.eye(8) > 0),
    "two-outputs": lambda x: (x + 1, x[:, 0]),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_onnxruntime_makes_the_same_of_the_model_of_a_function(function):
    agree(Of(FUNCTIONS[function]), drawn(*IMAGE))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_first": True}, {"bidirectional": True}, {"num_layers": 2, "bidirectional": True, "bias": False}],
    ids=str,
)
def test_recurrent_layers_have_onnx_s_order_of_gates(kind, options):
    layer = kind(6, 5, **options)
    agree(Of(lambda self, x: self.layer(x), layer=layer), drawn(3, 4, 6)) if not options.get("batch_first") else None
    model = model_from(randomized(Of(lambda self, x: self.layer(x)[0], layer=layer)), drawn(3, 4, 6))
    layers = [node.name for node in model.nodes if node.kind == kind.__name__]
    assert layers == (["layer.l0", "layer.l1"] if options.get("num_layers") else ["layer"])


def test_nodes_are_called_by_the_paths_of_their_modules():
    module = nn.Sequential(nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU()), Of(lambda x: (x + 1) * 2), nn.Flatten())
    model = model_from(module, drawn(*IMAGE))
    assert [node.name for node in model.nodes] == ["0.0", "0.1", "1.add", "1.mul", "2"]
    assert set(model.constants) == {"0.0.weight", "0.0.bias", "add/other", "mul/other"}
    assert model.inputs[0].shape == IMAGE


def test_what_has_no_word_in_onnx_keeps_its_name_and_everything_else_comes_in():
    module = Of(lambda x: torch.special.bessel_j0(x).cumsum(1).relu() + nn.functional.adaptive_avg_pool2d(x, 3).sum())
    kinds = [node.kind for node in model_from(module, drawn(1, 2, 8, 8)).nodes]
    assert kinds == ["aten.special_bessel_j0", "aten.cumsum", "Relu", "aten.adaptive_avg_pool2d", "ReduceSum", "Add"]


def test_a_parameter_that_is_called_like_an_operator_does_not_take_its_place():
    module = Of(lambda self, x: x + self.add, mark=nn.Identity())
    module.add = nn.Parameter(torch.ones(6))
    model = agree(module, drawn(*IMAGE))
    assert "p_add" in model.constants


def test_nothing_that_no_output_needs_is_written():
    model = model_from(Of(lambda x: (x.exp(), x.relu())[1]), drawn(*IMAGE))
    assert [node.kind for node in model.nodes] == ["Relu"]


def test_several_inputs_come_in_by_their_names():
    class Two(nn.Module):
        def forward(self, left, right):
            return left - right

    agree(Two(), drawn(*IMAGE), drawn(*IMAGE, seed=1))
    program = export(Two(), {"left": drawn(2, 3), "right": drawn(2, 3)}, "two")
    assert [each.name for each in model_of(program, name="two").inputs] == ["left", "right"]


def test_a_symbolic_batch_is_that_of_the_example():
    batch = torch.export.Dim("batch", min=2, max=64)
    module = nn.Sequential(nn.Linear(6, 4), Of(lambda x: x.view(x.shape[0], 2, 2).flatten(1)))
    program = torch.export.export(module, (drawn(3, 6),), dynamic_shapes=({0: batch},))
    model = model_of(program, name="net")
    assert model.inputs[0].shape == (3, 6)
    made = run_onnx(model, [drawn(3, 6).numpy()])[0]
    np.testing.assert_allclose(made, module(drawn(3, 6)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_the_module_stays_in_the_mode_that_it_was_in():
    module = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))
    module[0].eval()
    model = model_from(module, drawn(2, 6))
    assert [node.kind for node in model.nodes] == ["Gemm"]
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


def test_what_torch_export_cannot_read_is_said_in_one_line():
    module = Of(lambda x: x if x.sum() > 0 else -x).train()
    with pytest.raises(GraphError, match=r"^net: forward\(\) must be one that torch.export can read, got: ") as caught:
        export(module, drawn(2, 3), "net")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("make it free of branches and loops that depend on values")
    assert module.training


def test_capture_names_the_modules_of_a_program_that_a_graph_does_not_have():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ConvTranspose2d(2, 2, 3)), Of(torch.special.bessel_j0))
    program = export(module, drawn(1, 1, 6, 6), "net")
    with pytest.raises(GraphError) as caught:
        capture(program, drawn(1, 1, 6, 6), name="net")
    said = str(caught.value)
    assert said.startswith(
        "net: every node must be one that a graph has, got 3 that are not: Conv that reads real numbers"
    )
    assert "x1 (0), take a Quant" in said
    assert "ConvTranspose x1 (1.0), take " in said
    assert said.endswith("; aten.special_bessel_j0 x1 (2)")


def test_layers_packed_for_a_processor_are_refused_with_what_to_do():
    quantize_fx = pytest.importorskip("torch.ao.quantization.quantize_fx")
    from torch.ao.quantization import get_default_qconfig_mapping

    x = drawn(1, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = quantize_fx.prepare_fx(nn.Sequential(nn.Linear(4, 2)).eval(), get_default_qconfig_mapping(), (x,))
        prepared(x)
        packed = quantize_fx.convert_fx(prepared)
    with pytest.raises(GraphError, match=r"^net: codes must be made by operators of their own, got 1 .*convert_pt2e"):
        capture(packed, x, name="net")


def test_weights_keep_their_codes_and_activations_their_limits():
    weights = torch.tensor([[3, -2, 1], [0, 5, -7]], dtype=torch.int8)

    def forward(x):
        quantized = torch.ops.quantized_decomposed
        codes = quantized.quantize_per_tensor(x, 0.5, 1, 0, 15, torch.uint8)
        numbers = quantized.dequantize_per_tensor(codes, 0.5, 1, 0, 15, torch.uint8)
        scales, zeros = torch.tensor([0.25, 0.5]), torch.tensor([0, 0])
        return numbers @ quantized.dequantize_per_channel(weights, scales, zeros, 0, -128, 127, torch.int8).T

    importlib.import_module("torch.ao.quantization.fx._decomposed")  # which makes the operators known
    x = drawn(2, 3)
    model = model_from(Of(forward), x)
    assert [node.kind for node in model.nodes] == [
        "QuantizeLinear", "Clip", "DequantizeLinear", "DequantizeLinear", "Transpose", "MatMul",
    ]  # fmt: skip
    assert any(np.array_equal(array, weights) for array in model.constants.values() if array.dtype == np.int8)
    graph = capture(export(Of(forward), x[:1], "net"), x[:1])
    assert str(graph.tensors[graph.products[0].input].format) == "u4"
    np.testing.assert_allclose(reference(graph, x.double().numpy()), forward(x).numpy(), rtol=1e-6)


WORKLOAD = """
import importlib
import json
import torch

importlib.import_module("torch.ao.quantization.fx._decomposed")  # which makes the operators known


class Coded(torch.nn.Module):
    def __init__(self):
        super().__init__()
        weights = torch.arange(12).view(3, 4) - 6
        self.register_buffer("weights", weights.to(torch.int8))

    def forward(self, x):
        quantized = torch.ops.quantized_decomposed
        codes = quantized.quantize_per_tensor(x, 0.25, 10, 0, 255, torch.uint8)
        numbers = quantized.dequantize_per_tensor(codes, 0.25, 10, 0, 255, torch.uint8)
        weights = quantized.dequantize_per_tensor(self.weights, 0.5, 0, -128, 127, torch.int8)
        return torch.nn.functional.linear(numbers, weights)


def build():
    program = torch.export.export(Coded(), (example_input(),))
    return {built}


def example_input():
    return torch.ones(1, 4)


def data(folder=None):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    return x.numpy(), Coded()(x).argmax(1).numpy()
"""


@pytest.mark.parametrize("built", ["program", "program.module()"])
def test_a_workload_may_build_a_program_or_a_module_that_torch_quantized(built, tmp_path):
    (tmp_path / "workload.py").write_text(WORKLOAD.replace("{built}", built))
    done = imcsim(
        tmp_path, "run", tmp_path, "--chip", "tim-dnn", "--set", "tile.count_max=16", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["check"]["exact"] is True
    assert summary["accuracy"]["reference"] == summary["accuracy"]["chip"] == 1.0


@pytest.mark.parametrize("ending", ["pt2", "pt", "pth"])
def test_files_that_torch_unpickles_are_refused_before_anything_is_read(ending, tmp_path):
    path = tmp_path / f"net.{ending}"
    torch.export.save(export(nn.ReLU(), drawn(1, 2), "net"), path)
    with pytest.raises(ConfigError) as caught:
        load_workload(path)
    assert str(caught.value) == (
        f"{path}: must be a file of data alone, got one that torch unpickles, by which it could run code; write it as "
        "an .onnx file (torch.onnx.export), or load it in the build() of a workload.py"
    )
