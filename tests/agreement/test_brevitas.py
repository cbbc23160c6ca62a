"""Small networks of Brevitas layers drawn at random, against their own forward in evaluation mode.

The module comes in by ``imcsim.capture``; its files by both of torch's exporters, also with the domain of old files,
come in by ``imcsim.load_workload`` and must give the same. Scales are learned from a batch, as Brevitas does it, so
that they are any numbers; a network is left out where a number lies so near a limit of a quantizer that the rounding of
float32 decides.
``IMCSIM_BREVITAS_EXAMPLES`` says how many are drawn.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import seeds
from torch import nn

pytest.importorskip("brevitas", reason="brevitas is not installed: pip install imcsim[brevitas]")
pytest.importorskip("onnxoptimizer", reason="onnxoptimizer is not installed: pip install imcsim[brevitas]")

import brevitas.nn as qnn
import brevitas.quant as bq

from imcsim import capture, execute, load_chip, load_workload, place
from imcsim.functional.reference import reference

N_EXAMPLES = int(os.environ.get("IMCSIM_BREVITAS_EXAMPLES", "5"))
N_SAMPLES = 4
FLOAT32 = 1e-5
"""Greatest difference of a logit, relative to the greatest one: float32 sums of up to 100 products."""

MARGIN = 1e-4
"""Of a step of a quantizer: numbers nearer to a limit may fall on either side of it in float32."""

IDEAL = load_chip("tim-dnn", overrides={"tile.count_max": 16})


class Residual(nn.Module):
    """Two layers beside a shortcut, both of whose ends are quantized by one shared quantizer."""

    def __init__(self, layer, act, last):
        super().__init__()
        self.shared, self.layer, self.act, self.last = qnn.QuantIdentity(bit_width=4), layer, act, last

    def forward(self, x):
        x = self.shared(x)
        return x + self.shared(self.last(self.act(self.layer(x))))


class Drawing:
    """What is drawn of a network."""

    def __init__(self, draw):
        self.draw = draw

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def act(self):
        bits = self.one_of(*range(1, 9))
        match self.one_of("identity", "relu", "hardtanh", "shifted", "fixed", "ternary"):
            case "relu":
                return qnn.QuantReLU(bit_width=bits)
            case "hardtanh":
                return qnn.QuantHardTanh(bit_width=max(2, bits), min_val=-1.0, max_val=1.0)
            case "shifted":
                return qnn.QuantIdentity(act_quant=bq.ShiftedUint8ActPerTensorFloat, bit_width=max(2, bits))
            case "fixed":
                return qnn.QuantIdentity(act_quant=bq.Int8ActPerTensorFixedPoint, bit_width=max(2, bits))
            case "ternary":
                return qnn.QuantIdentity(act_quant=bq.SignedTernaryActPerTensorConst)
        if bits == 1:
            return qnn.QuantIdentity(act_quant=bq.SignedBinaryActPerTensorConst)
        return qnn.QuantIdentity(bit_width=bits, narrow_range=self.one_of(False, True))

    def weights(self):
        bits = self.one_of(*range(2, 9))
        match self.one_of("tensor", "channel", "ternary", "binary", "fixed", "decoupled"):
            case "ternary":
                return {"weight_quant": bq.SignedTernaryWeightPerTensorConst}
            case "binary":
                return {"weight_quant": bq.SignedBinaryWeightPerTensorConst}
            case "tensor":
                return {"weight_quant": bq.Int8WeightPerTensorFloat, "weight_bit_width": bits}
            case "channel":
                return {"weight_quant": bq.Int8WeightPerChannelFloat, "weight_bit_width": bits}
            case "fixed":
                return {"weight_quant": bq.Int8WeightPerTensorFixedPoint, "weight_bit_width": bits}
        return {"weight_quant": bq.Int8WeightPerChannelFloatDecoupled, "weight_bit_width": bits}

    def convolution(self, n_in, n_out, **options):
        groups = self.one_of(1, 1, n_in) if n_out % n_in == 0 else 1
        return qnn.QuantConv2d(n_in, n_out, 3, padding=1, groups=groups, bias=self.one_of(False, True),
                               **options, **self.weights())  # fmt: skip


@st.composite
def networks(draw):
    """A network in evaluation mode whose scales are learned, and a batch for it."""
    d = Drawing(draw)
    torch.manual_seed(draw(seeds()))
    n, size, parts = d.one_of(2, 3), 4, []
    shape = (N_SAMPLES, n, size, size)
    if d.one_of(False, True):
        for _ in range(d.one_of(1, 2)):
            parts.append(d.act())
            match d.one_of("plain", "plain", "residual", "pool"):
                case "plain":
                    parts += [d.convolution(n, 2 * n), nn.BatchNorm2d(2 * n)]
                    n *= 2
                case "residual":
                    norm = nn.Sequential(nn.BatchNorm2d(n), d.act())
                    parts.append(Residual(d.convolution(n, n), norm, d.convolution(n, n)))
                case "pool" if size > 1:
                    parts.append(nn.MaxPool2d(2))
                    size //= 2
        n *= size * size
    else:
        n, shape = 6, (N_SAMPLES, 6)
    parts += [nn.Flatten(), d.act(), qnn.QuantLinear(n, 3, bias=d.one_of(False, True), **d.weights())]
    network = nn.Sequential(*parts)
    for _ in range(2):
        network.train()(torch.randn(shape))
    return network.eval(), torch.randn(shape)


def is_near_a_limit(network, x):
    """Whether a number goes into a quantizer of activations where the rounding of float32 may choose its code."""
    from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector

    distances = [1.0]

    def note(proxy, given, made):
        if not proxy.is_quant_enabled or proxy.skip_create_quant_tensor:
            return
        numbers = proxy.fused_activation_quant_proxy.activation_impl(given[0])
        numbers = getattr(numbers, "value", numbers)
        steps = numbers / made.scale + made.zero_point
        away = (steps - torch.floor(steps) - 0.5).abs() if float(made.bit_width) > 1 else steps.abs()
        away = away[(numbers != 0) & (steps.abs() < 2.0 ** float(made.bit_width))]
        distances.append(float(away.min()) if away.numel() else 1.0)

    proxies = [part for part in network.modules() if isinstance(part, ActQuantProxyFromInjector)]
    hooks = [proxy.register_forward_hook(note) for proxy in proxies]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return min(distances) < MARGIN


@settings(max_examples=N_EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(drawn=networks())
def test_a_network_drawn_at_random_gives_what_its_own_forward_gives(drawn):
    network, x = drawn
    assume(not is_near_a_limit(network, x))
    with torch.no_grad():
        expected = network(x).numpy()
    graph = capture(network, x)
    found = reference(graph, x.numpy())
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT32 * max(1e-3, np.abs(expected).max()))
    assert_same_classes(found, expected)
    assert np.array_equal(execute(place(graph, IDEAL), x.numpy()), found)


def assert_same_classes(found, expected):
    """The greatest logit is the same one, unless two are equal to float32's rounding."""
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > FLOAT32 * max(1e-3, np.abs(expected).max())
    assert np.array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])


class Classifier(nn.Module):
    """A network with what the two exporters write differently: a flattening, a bias, a shared quantizer, a mean."""

    def __init__(self):
        super().__init__()
        self.act = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True)
        self.conv = nn.Sequential(qnn.QuantConv2d(2, 4, 3, padding=1, weight_bit_width=2), nn.BatchNorm2d(4),
                                  qnn.QuantReLU(bit_width=3))  # fmt: skip
        self.norm = nn.BatchNorm1d(16)
        self.ternary = qnn.QuantLinear(16, 8, bias=False, weight_quant=bq.SignedTernaryWeightPerTensorConst)
        self.last = qnn.QuantLinear(8, 3, bias=True, weight_quant=bq.SignedBinaryWeightPerTensorConst,
                                    input_quant=bq.Uint8ActPerTensorFloat)  # fmt: skip

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv(self.act(x)), 2)
        x = self.act(self.norm(x.flatten(1)))
        return self.last(torch.relu(self.ternary(x)))


@pytest.mark.parametrize("dynamo", [False, True])
def test_files_of_both_exporters_and_of_old_ones_give_the_same(tmp_path, dynamo):
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed: no second exporter")
    import onnx
    from brevitas.export import export_qonnx

    torch.manual_seed(3)
    network = Classifier()
    for _ in range(3):
        network.train()(torch.randn(8, 2, 4, 4))
    x = torch.randn(32, 2, 4, 4)
    with torch.no_grad():
        expected = network.eval()(x).numpy()
    assert not is_near_a_limit(network, x)
    captured = reference(capture(network, x[:1]), x.numpy())
    np.testing.assert_allclose(captured, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())
    path = tmp_path / "model.onnx"
    model = export_qonnx(network, args=(x[:1],), export_path=str(path), dynamo=dynamo)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds >= {"Quant", "BipolarQuant", "Conv", *(["Reshape"] if dynamo else ["Flatten", "Transpose", "MatMul"])}
    graph = load_workload(path)
    np.testing.assert_allclose(reference(graph, x.numpy()), captured, rtol=0, atol=1e-12)
    for entry in (*model.graph.node, *model.opset_import):
        if entry.domain == "qonnx.custom_op.general":
            entry.domain = "onnx.brevitas"
    onnx.save(model, path)
    assert load_workload(path) == graph
