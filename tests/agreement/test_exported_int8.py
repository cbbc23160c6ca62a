"""Networks that others' tools quantized to 8 bits, on an ideal chip, against the runtime that those tools are made for.

Torch's own operators run what torchao's PT2E and torch's FX graph mode give; onnxruntime, unoptimized, runs what its
quantize_static writes. On an ideal chip nothing clips: logits differ by the rounding of float32, but where a number
lies so near the middle of two codes that this rounding decides. With scales that are powers of two every number is
exact in float32, halves are met often, and all logits are equal. ``IMCSIM_INT8_EXAMPLES`` says how many such networks
are drawn.
"""

import contextlib
import io
import os
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from exported_models import as_onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import seeds
from torch import nn
from torch.nn import functional

from imcsim.arch.load import load_chip
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph.capture import capture
from imcsim.graph.exported import export, model_of
from imcsim.mapping.place import place
from imcsim.workloads import load_workload

N_EXAMPLES = int(os.environ.get("IMCSIM_INT8_EXAMPLES", "5"))
N_SAMPLES = 12
FLOAT32 = 1e-5
"""Greatest difference of a logit, as a share of the greatest: sums of float32 numbers in another order."""

LEFT_OUT = 0.1
"""Greatest share of samples in which a code may be another by that rounding."""


class Plain(nn.Module):
    """Convolutions with batch norms, two pools, and a dense layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(4),
        )
        self.classifier = nn.Linear(8, 10)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Residual(nn.Module):
    """A sum, a depthwise convolution, two branches side by side, and numbers below 0 throughout."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pointwise = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(128, 10)

    def forward(self, x):
        x = functional.leaky_relu(self.stem(x), 0.137)
        y = self.pointwise(functional.hardtanh(self.depthwise(x), -0.9, 1.1)) + x
        return self.fc(torch.cat([y, functional.relu(y)], 1).flatten(1))


NETWORKS = {"plain": Plain, "residual": Residual}


def digits():
    """Images (n 1 8 8) from 0 to 1, and labels; 8/16 lies between two codes up to 127, so pixels are drawn apart."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 17
    apart = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(0)) / 17
    return pixels + apart, torch.tensor(labels)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A network that knows the digits a little, and images that it has not seen."""
    images, labels = digits()
    torch.manual_seed(0)
    module = NETWORKS[request.param]()
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for step in range(60):
        chosen = torch.randint(0, 1500, (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return module.eval(), images[1500 : 1500 + N_SAMPLES], images[:32]


def on_an_ideal_chip(graph, x):
    """Outputs of tiles that clip nothing; the reference agrees."""
    x = np.asarray(x, np.float64)
    done = run(place(graph, load_chip("tim-dnn", overrides={"tile.count_max": 16})), x)
    assert done.total.n_clipped_accesses == 0
    np.testing.assert_allclose(done.outputs, reference(graph, x), rtol=0, atol=1e-9 * np.abs(done.outputs).max())
    return done.outputs


def assert_equal_to_rounding(ours, theirs, difference=FLOAT32):
    """Whether the logits are those of the other runtime, but for few samples whose codes float32 decides."""
    ours, theirs = np.asarray(ours), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    far = np.abs(ours - theirs).max(axis=1) > difference * np.abs(theirs).max()
    assert far.mean() <= LEFT_OUT, f"{far.sum()} of {len(far)} samples differ, by {np.abs(ours - theirs).max():g}"
    np.testing.assert_allclose(ours[far], theirs[far], rtol=0, atol=0.05 * np.abs(theirs).max())


def each_alone(module, x):
    """What torch makes of the samples one by one: the batch of a program is 1."""
    with torch.no_grad():
        return np.concatenate([module(x[i : i + 1]).numpy() for i in range(len(x))])


# --- torch ------------------------------------------------------------------------------------------------------------


def quantizer(kind):
    """A quantizer of torchao by its processor; skips where torchao or the quantizer is not there."""
    pytest.importorskip("torchao", reason="torchao is not installed: nothing quantizes")
    if kind == "x86":
        x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
        return x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    xnnpack = pytest.importorskip("torchao.testing.pt2e._xnnpack_quantizer")
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=kind == "xnnpack-per-channel")
    return xnnpack.XNNPACKQuantizer().set_global(config)


QUANTIZERS = ("x86", "xnnpack", "xnnpack-per-channel")


def by_pt2e(module, calibration, kind):
    """*module* as PT2E quantizes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chosen = quantizer(kind)
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        prepared = prepare_pt2e(torch.export.export(module, (calibration[:1],)).module(), chosen)
        each_alone(prepared, calibration)
        return convert_pt2e(prepared)


@pytest.fixture(scope="module")
def quantized_by(network):
    """*network* as PT2E quantizes it, once for each quantizer."""
    module, _, calibration = network
    return cache(lambda kind: by_pt2e(module, calibration, kind))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_what_pt2e_quantized_gives_torch_s_logits(kind, network, quantized_by):
    module, x, _ = network
    quantized = quantized_by(kind)
    graph = capture(quantized, x[:1])
    assert_equal_to_rounding(on_an_ideal_chip(graph, x), each_alone(quantized, x))
    assert all(str(graph.tensors[op.input].format) in ("u8", "i8") for op in graph.products)
    assert len(graph.products) == sum(isinstance(part, nn.Conv2d | nn.Linear) for part in module.modules())


def test_codes_of_pt2e_are_those_of_the_graph(network, quantized_by):
    """The last layer's numbers are codes, too, with XNNPACK: they count in whole steps of their scale."""
    _, x, _ = network
    quantized = quantized_by("xnnpack-per-channel")
    last = [node for node in quantized.graph.nodes if "dequantize_per_tensor" in str(node.target)][-1]
    scale, zero = last.args[1], last.args[2]
    ours = on_an_ideal_chip(capture(quantized, x[:1]), x) / scale + zero
    theirs = each_alone(quantized, x) / scale + zero
    np.testing.assert_allclose(ours, np.rint(ours), rtol=0, atol=1e-6)
    differs = np.rint(ours) != np.rint(theirs)
    assert differs.any(axis=1).mean() <= LEFT_OUT
    assert np.abs(np.rint(ours) - np.rint(theirs)).max() <= 1


def test_a_program_of_a_quantized_module_is_the_same_network(network, quantized_by):
    _, x, _ = network
    quantized = quantized_by("x86")
    program = torch.export.export(quantized, (x[:1],))
    made = on_an_ideal_chip(capture(program, x[:1], name="p"), x)
    assert np.array_equal(made, on_an_ideal_chip(capture(quantized, x[:1], name="p"), x))
    decomposed = program.run_decompositions()  # to the core operators: convolution, addmm, permute
    np.testing.assert_allclose(on_an_ideal_chip(capture(decomposed, x[:1]), x), made, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("engine", ["x86", "qnnpack"])
def test_what_fx_graph_mode_quantized_gives_torch_s_logits(engine, network):
    module, x, calibration = network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fx = pytest.importorskip("torch.ao.quantization.quantize_fx", reason="this torch has no FX graph mode")
        from torch.ao.quantization import get_default_qconfig_mapping

        prepared = fx.prepare_fx(module, get_default_qconfig_mapping(engine), (x[:1],))
        prepared(calibration)
        quantized = fx._convert_to_reference_decomposed_fx(prepared)
    graph = capture(quantized, x[:1])
    assert_equal_to_rounding(on_an_ideal_chip(graph, x), each_alone(quantized, x))
    limits = {(graph.tensors[op.input].format.low, graph.tensors[op.input].format.high) for op in graph.products}
    assert limits <= ({(0, 127)} if engine == "x86" else {(0, 255)})  # x86 leaves a bit for 16-bit sums


def made_exact(quantized):
    """*quantized* with scales that are powers of two, and biases of few bits."""

    def power(scale):
        return 2.0 ** np.round(np.log2(scale))

    for node in quantized.graph.nodes:
        if node.op == "call_function" and "quantize_per_tensor" in str(node.target):
            node.args = (node.args[0], float(power(node.args[1])), *node.args[2:])
    quantized.recompile()
    with torch.no_grad():
        for name, tensor in [*quantized.named_buffers(), *quantized.named_parameters()]:
            if "scale" in name:
                tensor.copy_(torch.from_numpy(power(tensor.numpy())))
            elif "bias" in name:
                tensor.copy_(torch.round(tensor * 256) / 256)
    return quantized


class Drawn(nn.Module):
    """Layers as they are drawn, from an image (2 8 8) to four numbers."""

    def __init__(self, draw):
        super().__init__()
        self.parts = nn.ModuleList()
        self.kinds = []
        channels, size = 2, 8
        for _ in range(draw(st.integers(1, 3))):
            groups, after = draw(st.sampled_from([(1, 3), (1, 4), (channels, 2 * channels)]))
            kernel, dilation = draw(st.sampled_from([(1, 1), (3, 1), (3, 2)]))
            conv = nn.Conv2d(
                channels, after, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=groups,
                stride=draw(st.sampled_from([1, 2])) if size > 2 else 1, bias=draw(st.booleans()),
            )  # fmt: skip
            size, channels = -(-size // conv.stride[0]), after
            self.parts.append(conv)
            self.kinds.append("call")
            for part in draw(st.lists(st.sampled_from(["norm", "function", "pool", "twice", "beside"]), max_size=3)):
                made = nn.Identity()
                if part == "norm":
                    made = nn.BatchNorm2d(channels)
                elif part == "function":
                    functions = [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 1.0), nn.LeakyReLU(0.125), nn.ReLU(True)]
                    made = draw(st.sampled_from(functions))
                elif part == "pool" and size % 2 == 0:
                    made, size = draw(st.sampled_from([nn.MaxPool2d(2), nn.AvgPool2d(2)])), size // 2
                elif part == "beside":
                    channels *= 2
                self.parts.append(made)
                self.kinds.append(part if part in ("twice", "beside") else "call")
        is_mean = draw(st.booleans())
        self.head = nn.AdaptiveAvgPool2d(1) if is_mean else nn.Identity()
        self.fc = nn.Linear(channels if is_mean else channels * size**2, 4)

    def forward(self, x):
        for kind, part in zip(self.kinds, self.parts, strict=True):
            if kind == "twice":
                x = functional.relu(x) + x
            elif kind == "beside":
                x = torch.cat([x, functional.relu(x)], 1)
            else:
                x = part(x)
        return self.fc(torch.flatten(self.head(x), 1))


@settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(st.data(), st.sampled_from(QUANTIZERS), seeds())
def test_drawn_networks_of_exact_scales_give_torch_s_logits(data, kind, seed):
    torch.manual_seed(seed % 2**31)
    module = Drawn(data.draw).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.3, 0.3)
            part.running_var.uniform_(0.5, 2.0)
    x = torch.randn(4, 2, 8, 8)
    quantized = made_exact(by_pt2e(module, x, kind))
    assert np.array_equal(on_an_ideal_chip(capture(quantized, x[:1]), x), each_alone(quantized, x))


# --- onnxruntime ------------------------------------------------------------------------------------------------------


class Calibration:
    """Images one by one, as quantize_static asks for them."""

    def __init__(self, name, x):
        self.rest = iter({name: x[i : i + 1].numpy()} for i in range(len(x)))

    def get_next(self):
        return next(self.rest, None)


def statically_quantized(folder, module, calibration, *, is_per_operator=False, symmetric=False, **options):
    """The file that onnxruntime's quantize_static writes for *module*."""
    quantization = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime is not installed")
    model = model_of(export(module, calibration[:1], "net"), name="net")
    (folder / "float.onnx").write_bytes(as_onnx(model).SerializeToString())
    formats = quantization.QuantFormat
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(
            folder / "float.onnx",
            folder / "int8.onnx",
            Calibration(model.inputs[0].name, calibration),
            quant_format=formats.QOperator if is_per_operator else formats.QDQ,
            extra_options={"ActivationSymmetric": symmetric},
            **options,
        )
    return folder / "int8.onnx"


def by_onnxruntime(path, x):
    """Outputs of the file, without onnxruntime's optimizations, which change its roundings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + 1].numpy()})[0] for i in range(len(x))])


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8", "symmetric", "QUInt16"])
@pytest.mark.parametrize("per_channel", [False, True], ids=["per-tensor", "per-channel"])
def test_files_of_quantize_static_give_onnxruntime_s_logits(activations, per_channel, network, tmp_path):
    module, x, calibration = network
    types = pytest.importorskip("onnxruntime.quantization").QuantType
    path = statically_quantized(
        tmp_path,
        module,
        calibration,
        symmetric=activations == "symmetric",
        activation_type=types.QInt8 if activations == "symmetric" else types[activations],
        weight_type=types.QInt8,
        per_channel=per_channel,
    )
    difference = 1e-4 if activations == "QUInt16" else FLOAT32  # of 65536 codes some always lie near a middle
    assert_equal_to_rounding(on_an_ideal_chip(load_workload(path), x), by_onnxruntime(path, x), difference)


def test_weights_from_0_to_255_lose_their_zero_point(network, tmp_path):
    module, x, calibration = network
    types = pytest.importorskip("onnxruntime.quantization").QuantType
    path = statically_quantized(tmp_path, module, calibration, activation_type=types.QUInt8, weight_type=types.QUInt8)
    assert_equal_to_rounding(on_an_ideal_chip(load_workload(path), x), by_onnxruntime(path, x))


def test_qlinear_convolutions_are_taken(network, tmp_path):
    module, x, calibration = network
    types = pytest.importorskip("onnxruntime.quantization").QuantType
    options = {"activation_type": types.QUInt8, "weight_type": types.QInt8, "is_per_operator": True}
    options["reduce_range"] = True  # its kernels for AVX2 add pairs of products in 16 bits, which saturate
    convolutions = nn.Sequential(next(part for part in module.modules() if isinstance(part, nn.Conv2d)), nn.Flatten())
    path = statically_quantized(tmp_path, convolutions, calibration, per_channel=True, **options)
    assert_equal_to_rounding(on_an_ideal_chip(load_workload(path), x), by_onnxruntime(path, x))
