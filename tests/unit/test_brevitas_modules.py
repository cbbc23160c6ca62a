"""Modules of Brevitas layers: what becomes of each quantizer, of names and modes, and what is said of the rest."""

import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

brevitas = pytest.importorskip("brevitas", reason="brevitas is not installed: pip install imcsim[brevitas]")
pytest.importorskip("onnxoptimizer", reason="onnxoptimizer is not installed: pip install imcsim[brevitas]")

import brevitas.nn as qnn  # noqa: E402
import brevitas.quant as bq  # noqa: E402

from imcsim import capture, load_workload  # noqa: E402
from imcsim.errors import ConfigError, GraphError  # noqa: E402
from imcsim.functional.reference import reference  # noqa: E402
from imcsim.graph import brevitas as bringing  # noqa: E402

FLOAT32 = 1e-6
"""Greatest difference of a number, relative to the greatest one."""


def trained(module, shape, n_batches=3):
    """The module in evaluation mode, its scales learned from some batches, and a further batch."""
    torch.manual_seed(1)
    for _ in range(n_batches):
        module.train()(torch.randn(shape))
    return module.eval(), torch.randn(shape)


def assert_alike(module, x):
    """The graph of *module*, which gives what its own forward gives."""
    graph = capture(module, x)
    with torch.no_grad():
        expected = module(x)
    expected = getattr(expected, "value", expected).numpy()
    found = reference(graph, x.numpy().reshape(len(x), *graph.input.shape))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())
    return graph


def layers(act, **options):
    """A quantizer of 6 numbers and a linear layer behind it."""
    torch.manual_seed(0)
    options = options if "weight_quant" in options else {"weight_bit_width": 3} | options
    return nn.Sequential(act, qnn.QuantLinear(6, 3, bias=True, **options))


def identity(bits=4, **options):
    return qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True, **options)


# --- quantizers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantizer", "options", "form"),
    [
        (bq.Int8ActPerTensorFloat, {}, "i8"),
        (bq.Uint8ActPerTensorFloat, {}, "u8"),
        (bq.Uint8ActPerTensorFloatMaxInit, {"max_val": 2.0}, "u8"),
        (bq.Int8ActPerTensorFixedPoint, {}, "i8"),
        (bq.Uint8ActPerTensorFixedPoint, {}, "u8"),
        (bq.ShiftedUint8ActPerTensorFloat, {}, "u8"),
        (bq.ShiftedUint8ActPerTensorFixedPoint, {}, "u8"),
        (bq.SignedBinaryActPerTensorConst, {}, "binary"),
        (bq.SignedTernaryActPerTensorConst, {}, "ternary"),
        *((bq.Int8ActPerTensorFloat, {"bit_width": bits, "narrow_range": True}, f"s{bits}") for bits in (3, 5)),
        *((bq.Int8ActPerTensorFloat, {"float_to_int_impl_type": mode, "bit_width": 4}, "i4")
          for mode in ("round", "floor", "ceil", "round_to_zero", "dpu")),
    ],
)  # fmt: skip
def test_every_quantizer_of_activations_gives_its_own_numbers(quantizer, options, form):
    graph = assert_alike(*trained(layers(qnn.QuantIdentity(act_quant=quantizer, **options)), (32, 6)))
    assert [str(graph.tensors[op.input].format) for op in graph.products] == [form]


@pytest.mark.parametrize(
    ("quantizer", "options", "n_planes"),
    [
        (bq.Int8WeightPerTensorFloat, {}, 7),
        (bq.Int8WeightPerChannelFloat, {}, 7),
        (bq.Int8WeightPerTensorFixedPoint, {}, 7),
        (bq.Int4WeightPerTensorFloatDecoupled, {}, 3),
        (bq.Int8WeightPerChannelFloatDecoupled, {}, 7),
        (bq.Int8AccumulatorAwareWeightQuant, {}, 7),
        (bq.ShiftedUint8WeightPerTensorFloat, {}, 8),
        (bq.SignedBinaryWeightPerTensorConst, {}, 1),
        (bq.SignedTernaryWeightPerTensorConst, {}, 1),
        *((bq.Int8WeightPerChannelFloat, {"weight_bit_width": 4, "weight_float_to_int_impl_type": mode}, 3)
          for mode in ("round", "floor", "ceil", "round_to_zero", "dpu")),
    ],
)  # fmt: skip
def test_every_quantizer_of_weights_gives_its_own_numbers(quantizer, options, n_planes):
    module, x = trained(layers(identity(), weight_quant=quantizer, **options), (8, 6))
    graph = assert_alike(module, x)
    assert [op.product.n_planes for op in graph.products] == [n_planes]
    wanted = module[1].quant_weight(module[0](x)).value.detach().numpy()
    np.testing.assert_allclose(graph.products[0].product.weights.to_numbers(), wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("threshold", [0.5, 0.7])
def test_ternary_quantizers_have_a_threshold_of_their_own(threshold):
    kinds = [
        type("Ternary", (base,), {"quant_type": "ternary", "threshold": threshold})
        for base in (bq.SignedTernaryActPerTensorConst, bq.SignedTernaryWeightPerTensorConst)
    ]
    module = layers(qnn.QuantIdentity(act_quant=kinds[0]), weight_quant=kinds[1]).eval()
    limit = np.float32(threshold)
    x = np.float32([[limit, np.nextafter(limit, np.float32(1)), 0, -limit, np.nextafter(-limit, np.float32(-1)), 2]])
    graph = assert_alike(module, torch.from_numpy(x))
    assert reference(capture(nn.Sequential(module[0]), torch.from_numpy(x)), x).tolist() == [[0, 1, 0, 0, -1, 1]]
    assert str(graph.tensors["0"].format) == "ternary"


@pytest.mark.parametrize("bias", [bq.Int8Bias, bq.Int16Bias, bq.Int24Bias, bq.Int32Bias,
                                  bq.Int8BiasPerTensorFloatInternalScaling])  # fmt: skip
def test_every_quantizer_of_biases_gives_its_own_numbers(bias):
    options = {"bias_quant": bias, "weight_quant": bq.Int8WeightPerChannelFloat}
    assert_alike(*trained(layers(identity(), **options), (8, 6)))


@pytest.mark.parametrize("quantizer", [bq.TruncTo8bit, bq.RoundTo8bit, bq.ShiftRoundSaturateTo8bit])
@pytest.mark.parametrize("act", [qnn.QuantReLU, qnn.QuantIdentity])
@pytest.mark.parametrize(("kernel", "bits"), [(2, 8), (3, 4)])
def test_a_mean_that_is_truncated_gives_its_own_numbers(quantizer, act, kernel, bits):
    pool = qnn.TruncAvgPool2d(kernel, trunc_quant=quantizer, bit_width=bits, return_quant_tensor=True)
    module = nn.Sequential(act(bit_width=4, return_quant_tensor=True), pool)
    graph = assert_alike(*trained(module, (4, 2, 6, 6)))
    assert [op.name for op in graph.ops] == ["0"]


@pytest.mark.parametrize("kind", ["QuantSigmoid", "QuantTanh", "QuantHardSwish", "QuantReLU"])
def test_activation_functions_are_followed_by_their_quantizers(kind):
    graph = assert_alike(*trained(layers(getattr(qnn, kind)(bit_width=4)), (8, 6)))
    assert [op.name for op in graph.ops] == ["0", "1"]


def test_one_unsigned_bit_is_0_and_1_and_not_what_brevitas_exports():
    graph = assert_alike(*trained(layers(qnn.QuantReLU(bit_width=1)), (8, 6)))
    assert str(graph.tensors["0.quant"].format) == "u1"


def test_a_hard_tanh_is_its_quantizer():
    assert_alike(*trained(layers(qnn.QuantHardTanh(bit_width=2, min_val=-1.0, max_val=1.0)), (8, 6)))


def test_scales_per_channel_of_activations_are_taken():
    options = {"scaling_per_output_channel": True, "per_channel_broadcastable_shape": (1, 4, 1, 1),
               "scaling_stats_permute_dims": (1, 0, 2, 3)}  # fmt: skip
    act = qnn.QuantIdentity(bit_width=4, **options)
    module = nn.Sequential(act, qnn.QuantConv2d(4, 3, 3, padding=1, weight_bit_width=2))
    torch.manual_seed(0)
    module.train()(torch.randn(4, 4, 5, 5) * torch.tensor([1.0, 2.0, 3.0, 5.0])[:, None, None])
    graph = assert_alike(module.eval(), torch.randn(4, 4, 5, 5))
    assert len(graph.products[0].product.row_groups) == 4


# --- layers, names, modes -------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A residual block, both ends of which are quantized by one shared quantizer."""

    def __init__(self, n):
        super().__init__()
        self.shared = identity()
        self.first = nn.Sequential(
            qnn.QuantConv2d(n, n, 3, padding=1, bias=False, weight_bit_width=2),
            nn.BatchNorm2d(n),
            qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        )
        self.second = qnn.QuantConv2d(n, n, 3, padding=1, weight_quant=bq.SignedBinaryWeightPerTensorConst)
        self.act = qnn.QuantHardTanh(bit_width=3, min_val=-1, max_val=1, return_quant_tensor=True)

    def forward(self, x):
        x = self.shared(x)
        return self.act(x + self.shared(self.second(self.first(x))))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(2), Block(2)])
        self.pool = qnn.TruncAvgPool2d(2, bit_width=4)
        self.fc = qnn.QuantLinear(8, 3, bias=True, input_quant=bq.Int8ActPerTensorFloat, weight_bit_width=2)

    def forward(self, images):
        for block in self.blocks:
            images = block(images)
        images = self.pool(images)
        return self.fc(images.view(images.shape[0], -1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return trained(Network(), (5, 2, 4, 4))


def test_ops_and_tensors_bear_the_paths_of_the_modules(network):
    graph = assert_alike(*network)
    assert graph.name == "Network"
    assert graph.input.name == "images"
    assert [op.name for op in graph.ops] == [
        "blocks.0.shared", "blocks.0.first.0", "blocks.0.second", "blocks.1.first.0", "blocks.1.second", "fc",
    ]  # fmt: skip
    assert [op.input for op in graph.products] == [
        "blocks.0.shared", "blocks.0.first.2.quant", "blocks.1.shared", "blocks.1.first.2.quant", "fc.input_quant"
    ]  # fmt: skip


def test_a_layer_that_is_called_twice_gives_two_ops():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.fc = identity(), qnn.QuantLinear(6, 6, weight_bit_width=2)

        def forward(self, x):
            return self.fc(self.act(self.fc(self.act(x))))

    graph = assert_alike(*trained(Twice(), (8, 6)))
    assert [op.name for op in graph.ops] == ["act", "fc", "fc#2"]


def test_the_module_stays_as_it_was(network):
    module, x = network
    module.train()
    module.blocks[0].eval()
    modes = [part.training for part in module.modules()]
    state = {key: value.clone() for key, value in module.state_dict().items()}
    handlers = [getattr(part, "export_handler", None) for part in module.modules()]
    forward = module.forward
    try:
        capture(module, x)
        assert [part.training for part in module.modules()] == modes
        assert [getattr(part, "export_handler", None) for part in module.modules()] == handlers
        assert module.forward == forward
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    finally:
        module.eval()


def test_a_module_that_gives_a_quant_tensor_gives_its_numbers():
    module = layers(identity(), output_quant=bq.Int8ActPerTensorFloat, return_quant_tensor=True)
    assert_alike(*trained(module, (8, 6)))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: qnn.QuantConv1d(3, 4, 3, padding=1, weight_bit_width=2), (2, 3, 7)),
        (lambda: qnn.QuantConv2d(4, 8, 3, padding=1, groups=4, stride=2, weight_bit_width=2), (2, 4, 7, 7)),
        (lambda: qnn.QuantConv2d(2, 3, 4, padding="same", weight_bit_width=2), (2, 2, 7, 7)),
        (lambda: nn.MaxPool2d(2), (2, 2, 6, 6)),
        (lambda: qnn.BatchNorm2dToQuantScaleBias(2), (2, 2, 4, 4)),
    ],
)
def test_layers_behind_a_quantizer_give_their_own_numbers(layer, shape):
    torch.manual_seed(0)
    assert_alike(*trained(nn.Sequential(qnn.QuantIdentity(bit_width=4), layer()), shape))


def test_each_gate_of_a_recurrent_layer_has_its_own_weights():
    act, positive = bq.Int8ActPerTensorFixedPoint, bq.Uint8ActPerTensorFixedPoint
    options = {
        "weight_quant": bq.Int8WeightPerTensorFixedPoint, "io_quant": act, "gate_acc_quant": act,
        "sigmoid_quant": positive, "tanh_quant": act, "cell_state_quant": act,
    }  # fmt: skip

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = qnn.QuantLSTM(5, 4, batch_first=True, weight_float_to_int_impl_type="floor", **options)

        def forward(self, x):
            return self.lstm(x)[0]

    module, x = trained(Recurrent(), (3, 6, 5))
    graph = capture(module, x)
    assert [(op.name, op.product.kind) for op in graph.products] == [("lstm", "lstm")]
    with torch.no_grad():
        expected = module(x).permute(0, 2, 1).numpy()
    found = reference(graph, x.permute(0, 2, 1).unsqueeze(2).double().numpy())
    assert np.array_equal(found[:, :, 0], expected)
    assert len(np.unique(found)) > 20


class Both(nn.Module):
    """Two inputs, of which the second is added; two outputs."""

    def __init__(self):
        super().__init__()
        self.act, self.fc = qnn.QuantIdentity(bit_width=4), qnn.QuantLinear(6, 3, weight_bit_width=2)

    def forward(self, x, more):
        score = self.fc(self.act(x))
        return {"score": score, "sum": score + more}


def test_a_module_may_have_several_inputs_and_outputs():
    torch.manual_seed(0)
    module, given = Both(), (torch.randn(4, 6), torch.randn(4, 3))
    module.train()(*given)
    with torch.no_grad():
        expected = module.eval()(*given)
    for example in (given, {"more": given[1], "x": given[0]}):
        graph = capture(module, example)
        assert [tensor.name for tensor in graph.inputs] == ["x", "more"]
        assert graph.outputs == ("score", "sum")
        found = reference(graph, {"x": given[0].numpy(), "more": given[1].numpy()})
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("example", "got"), [((torch.zeros(1, 6),) * 3, "1, 2, 3"), ({"y": torch.zeros(1, 6)}, "y")])
def test_inputs_that_forward_does_not_take_are_one_line(example, got):
    message = rf"^Both: example input must be tensors for the first arguments of forward\(\) \(x, more\), got {got}$"
    with pytest.raises(GraphError, match=message):
        capture(Both(), example)


def test_a_sum_is_quantized_on_both_sides():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.fc, self.sum = identity(), qnn.QuantLinear(6, 6, weight_bit_width=2), qnn.QuantEltwiseAdd()

        def forward(self, x):
            x = self.act(x)
            return self.sum(x, self.act(self.fc(x)))

    graph = assert_alike(*trained(Sum(), (8, 6)))
    assert [op.name for op in graph.ops] == ["act", "fc", "sum.input_quant", "sum"]


# --- a workload; what reaches the terminal --------------------------------------------------------------------------

WORKLOAD = """
    import torch
    import brevitas.nn as qnn

    def build():
        torch.manual_seed(0)
        return torch.nn.Sequential(qnn.QuantIdentity(bit_width=2), qnn.QuantLinear(6, 3, weight_bit_width=2)).eval()

    def example_input():
        return torch.zeros(1, 6)
"""


def test_a_workload_may_build_a_module_of_brevitas(tmp_path):
    (tmp_path / "workload.py").write_text(textwrap.dedent(WORKLOAD))
    graph = load_workload(tmp_path)
    assert [op.name for op in graph.ops] == ["0", "1"]
    assert graph.name == tmp_path.name


QUIETLY = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
import torch
import imcsim

class Odd(torch.nn.Module):
    def forward(self, x):
        return torch.special.erfcx(x)

assert imcsim.capture(torch.nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 3)), torch.randn(2, 6)).ops
try:
    imcsim.capture(torch.nn.Sequential(qnn.QuantIdentity(), Odd()), torch.randn(2, 6))
except imcsim.GraphError as error:
    print(error)
assert imcsim.capture(torch.nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(6, 3)), torch.randn(2, 6)).ops
"""


def test_nothing_of_the_exporter_reaches_the_terminal_and_one_that_fails_leaves_the_next_alone():
    done = subprocess.run([sys.executable, "-c", QUIETLY], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert re.fullmatch(
        r"Sequential: must be a module that brevitas\.export takes, got UnsupportedOperatorError: Exporting the "
        r"operator 'aten::special_erfcx' to ONNX opset version 17 is not supported\n",
        done.stdout,
    )


# --- what is refused ------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = qnn.QuantIdentity()

    def forward(self, x):
        return self.act(x) if x.sum() > 0 else x


class ByShape(Branching):
    def forward(self, x):
        return self.act(x) if x.shape[0] > 1 else x


class Pair(Branching):
    def forward(self, x):
        return self.act(x), "x"


class Uncopied(Branching):
    def __deepcopy__(self, memo):
        raise RuntimeError("no copies\nof this")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Branching, r"Branching: forward\(\) must be free of branches and loops that depend on values, got one at line "
                    r"\d+ of test_brevitas_modules\.py; rewrite it"),
        (Pair, r"Pair: forward\(\) must return tensors, alone or in tuples and dicts, got str"),
        (Uncopied, r"Uncopied: must be a module that can be copied, got RuntimeError: no copies"),
        (lambda: nn.Sequential(identity(), qnn.QuantLinear(5, 3)),
         r"Sequential: forward\(\) must run on the example input \(2, 6\), got: RuntimeError: .* cannot be mult.*"),
        (lambda: layers(identity(), weight_quant=None),
         r"Sequential: every node must be one that a graph has, got 1 that are not: Gemm with float weights x1 \(1\), "
         r"take weights through Quant or BipolarQuant, or of few levels; quantize the model first"),
        (lambda: nn.Sequential(qnn.QuantLinear(6, 3)),
         r"Sequential: every node must be one that a graph has, got 1 that are not: Gemm that reads real numbers x1 "
         r"\(0\), take a Quant, BipolarQuant or MultiThreshold before it, or --assume .*"),
        (lambda: layers(qnn.QuantIdentity(act_quant=bq.Fp8e4m3OCPActPerTensorFloat)),
         r"Sequential: every quantizer must be one that QONNX has, of whole numbers with scales that do not depend on "
         r"the input, got ActFloatQuantProxyFromInjector \(0\.act_quant\)"),
        (lambda: layers(identity(), weight_quant=bq.Fp8e4m3OCPWeightPerTensorFloat),
         r"Sequential: every quantizer must be .*, got WeightFloatQuantProxyFromInjector \(1\.weight_quant\)"),
        (lambda: layers(qnn.QuantIdentity(bit_width=4, quant_delay_steps=9)),
         r"0\.act_quant: must be a quantizer that gives what its export says, got RescalingIntQuant, which gives other "
         r"numbers \(a rounding of its own, a delay, or an observer\)"),
        (lambda: layers(identity(), weight_quant=bq.Int8WeightPerTensorFloat, weight_bit_width=1,
                        weight_narrow_range=False),
         r"1\.weight_quant: must be a quantizer whose numbers are those of its export, got others"),
        (lambda: layers(qnn.QuantIdentity(bit_width=1)), r"0\.act_quant: must be a quantizer that gives what its .*"),
        (lambda: layers(qnn.QuantIdentity(float_to_int_impl_type="stochastic_round")),
         r"Sequential: every node must be one that a graph has, got 1 that are not: Quant with rounding mode "
         r"STOCHASTIC_ROUND x1 \(0\), take one of ROUND, .*"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_taken_is_one_line(build, message):
    torch.manual_seed(0)
    with pytest.raises(GraphError) as raised:
        capture(build().eval(), torch.randn(2, 6))
    assert re.fullmatch(message, str(raised.value))


def test_a_branch_that_depends_on_shapes_is_taken():
    assert_alike(*trained(ByShape(), (8, 6)))


def test_layers_of_two_kinds_are_one_line():
    from imcsim.quant import TernaryLinear

    module = nn.Sequential(identity(), TernaryLinear(6, 3))
    with pytest.raises(GraphError, match=r"^Sequential: must have layers of Brevitas or of imcsim\.quant, got both; "):
        capture(module, torch.randn(2, 6))


@pytest.mark.parametrize(
    ("example", "got"), [(np.zeros((1, 6)), "ndarray"), (torch.zeros(6), r"\(6,\)"), (torch.zeros(0, 6), r"\(0, 6\)")]
)
def test_an_example_that_is_none_is_one_line(example, got):
    message = rf"^Sequential: example input must be a tensor \(b c\), \(b c t\) or \(b c h w\), got {got}$"
    with pytest.raises(GraphError, match=message):
        capture(layers(identity()), example)


@pytest.mark.parametrize("found", ["0.9.1", "0.14.0", "1.0"])
def test_another_version_of_brevitas_is_one_line(monkeypatch, found):
    monkeypatch.setattr(bringing, "version", lambda package: found)
    message = (
        rf"^Sequential: brevitas must be at least 0\.13 and below 0\.14, got {found}; pip install imcsim\[brevitas\]$"
    )
    with pytest.raises(ConfigError, match=message):
        capture(layers(identity()), torch.zeros(1, 6))


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(bringing, "find_spec", lambda package: None if package == "onnxoptimizer" else object())
    message = r"^Sequential: the packages onnx and onnxoptimizer must be installed, got no onnxoptimizer; pip install "
    with pytest.raises(ConfigError, match=message):
        capture(layers(identity()), torch.zeros(1, 6))


def test_the_range_of_versions_is_that_of_the_extra():
    from pathlib import Path

    said = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    least, beyond = (".".join(map(str, part)) for part in bringing.VERSIONS)
    assert said.count(f'"brevitas>={least},<{beyond}"') == 2
