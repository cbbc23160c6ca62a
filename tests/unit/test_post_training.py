"""Post-training quantization: what becomes of weights and activations, layer by layer, and of whole small networks."""

from dataclasses import replace
from itertools import product as all_of
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from strategies import seeds
from torch import nn

from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.functional.reference import reference
from imcsim.graph.exported import export, model_of
from imcsim.graph.qonnx.model import Input, Model, Node
from imcsim.graph.qonnx.walk import as_stored
from imcsim.post_training import Settings, quantize
from imcsim.post_training.activations import parse_range, scale_of
from imcsim.post_training.evaluate import outputs_of
from imcsim.post_training.layerwise import calibrate, edge_layers, with_quantizers
from imcsim.post_training.prepare import prepare
from imcsim.post_training.source import find_source
from imcsim.post_training.weights import Levels, compensated, fitted_to, nearest

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

TERNARY, BINARY = Levels(2), Levels(2, is_binary=True)


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model_from(module, *shape):
    """A module with all weights and statistics drawn by one seed, as a model; and the module."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.dtype.is_floating_point:
            fresh = torch.randn(value.shape, generator=generator) * 0.5
            value.copy_(fresh.abs() + 0.5 if "running_var" in name else fresh)
    example = torch.zeros(1, *shape)
    return model_of(export(module.eval(), (example,), "net"), name="net"), module


def kinds(model):
    return [node.kind for node in model.nodes]


def small_cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


# --- weights --------------------------------------------------------------------------------------------------------


def error_of(rows, codes, scales):
    return np.square(rows - scales[:, None] * codes).sum(axis=1)


@given(st.integers(1, 6), seeds())
def test_no_ternary_codes_and_scale_are_nearer_than_those_found(n, seed):
    rng = np.random.default_rng(seed)
    rows = rng.choice([0.0, 0.5, -1.0, rng.normal(), rng.normal()], size=(3, n))
    codes, scales = nearest(rows, TERNARY)
    assert set(np.unique(codes)) <= {-1, 0, 1}
    for row, found in zip(rows, error_of(rows, codes, scales), strict=True):
        least = min(
            np.square(row - max(0.0, row @ t / max(t @ t, 1)) * t).sum()
            for t in map(np.array, all_of((-1, 0, 1), repeat=n))
        )
        assert found == pytest.approx(least, abs=1e-12)


@given(st.integers(3, 8), seeds())
@settings(max_examples=25)
def test_the_scale_of_k_bit_weights_is_as_good_as_any_of_a_fine_grid(bits, seed):
    rows = np.random.default_rng(seed).standard_t(3, size=(2, 400))
    levels = Levels(bits)
    codes, scales = nearest(rows, levels)
    assert np.abs(codes).max() <= levels.top
    found = error_of(rows, codes, scales)
    fine = np.linspace(0.001, 1.1, 2000)[:, None] * np.abs(rows).max(axis=1) / levels.top
    least = np.min([error_of(rows, levels.codes(rows, each), each) for each in fine], axis=0)
    assert np.all(found <= 1.15 * least)


def test_binary_weights_are_signs_times_the_mean_size():
    codes, scales = nearest(np.array([[0.5, -1.0, 0.0, 2.5]]), BINARY)
    assert codes.tolist() == [[1, -1, 1, 1]]
    assert scales.tolist() == [1.0]


@pytest.mark.parametrize("levels", [TERNARY, BINARY, Levels(4)], ids=str)
def test_weights_of_zeros_have_a_scale_all_the_same(levels):
    codes, scales = nearest(np.zeros((1, 4)), levels)
    assert (scales > 0).all()
    assert levels.is_binary or not codes.any()


def test_weights_make_up_for_each_other_where_inputs_go_together():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 24)) + 0.1 * rng.normal(size=(500, 24))
    rows, together = rng.normal(size=(8, 24)), x.T @ x / 500
    codes, scales = nearest(rows, TERNARY)
    other = compensated(rows, scales, TERNARY, together)

    def lost(codes):
        off = rows - scales[:, None] * codes
        return np.einsum("cn,nm,cm->c", off, together, off).sum()

    assert lost(other) < 0.25 * lost(codes)
    assert np.array_equal(compensated(rows, scales, TERNARY, np.eye(24)), codes)  # and nothing where they do not


def test_weights_are_fitted_to_what_the_layers_before_have_lost():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5))
    lossy = x @ np.diag([0.5, 2.0, 1.0, 1.0, 1.0])
    rows = rng.normal(size=(2, 5))
    wanted = lossy.T @ (x @ rows.T) / 4000
    found = fitted_to(rows, lossy.T @ lossy / 4000, wanted, 4000)
    assert found == pytest.approx(rows * [2.0, 0.5, 1.0, 1.0, 1.0], abs=0.1)
    assert fitted_to(rows, lossy.T @ lossy / 4000, wanted, 1) == pytest.approx(rows, abs=0.7)  # one vector tells little


# --- activations ----------------------------------------------------------------------------------------------------


def test_the_range_of_the_greatest_number_and_of_a_percentile():
    numbers, rng = np.arange(101.0), np.random.default_rng(0)
    assert scale_of(numbers, 10, "max", rng) == 10.0
    assert scale_of(-numbers, 10, "percentile:50", rng) == 5.0
    assert scale_of(np.zeros(4), 10, "mse", rng) > 0


@given(seeds())
@settings(max_examples=20)
def test_the_range_of_least_squares_is_as_good_as_any_of_a_fine_grid(seed):
    numbers = np.abs(np.random.default_rng(seed).standard_t(4, size=400))

    def error(scale):
        return np.square(numbers - scale * np.clip(np.round(numbers / scale), 0, 15)).sum()

    found = scale_of(numbers, 15, "mse", np.random.default_rng(0))
    assert error(found) <= 1.02 * min(map(error, np.linspace(0.002, 1.1, 1000) * numbers.max() / 15))


@pytest.mark.parametrize("text", ["mean", "percentile", "percentile:0", "percentile:101", "mse:3", "max:99"])
def test_another_way_to_find_ranges_is_one_line(text):
    with pytest.raises(ConfigError, match=r"^calibration: must be mse, max or percentile:P with P above 0"):
        parse_range(text)


# --- models ---------------------------------------------------------------------------------------------------------


NETWORKS = {
    "norms, pools and padding": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(4, 8, 3, groups=2, dilation=2, padding=2, bias=False), nn.LeakyReLU(0.1), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(32, 3), nn.LogSoftmax(dim=1),
        ),
        (2, 16, 16),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.BatchNorm2d(6), nn.Hardtanh(0, 6), nn.Conv2d(6, 4, 1),
            nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
        ),
        (3, 6, 6),
    ),
    "sequence": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 5, padding=2), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(16, 3)
        ),
        (2, 8),
    ),
    "perceptron": (lambda: nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)), (5,)),
}  # fmt: skip


class Residual(nn.Module):
    """Two convolutions with a shortcut around them that is a third one."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.short = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(64, 3)

    def forward(self, x):
        y = self.norm(self.b(torch.relu(self.a(x)))) + self.short(x)
        return self.last(torch.relu(y).flatten(1))


NETWORKS["residual"] = (Residual, (2, 4, 4))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_model_gives_what_the_module_gives_also_when_it_is_prepared(name):
    make, shape = NETWORKS[name]
    model, module = model_from(make(), *shape)
    x = drawn(1, 7, *shape)
    with torch.no_grad():
        wanted = module(torch.from_numpy(x)).numpy()
    assert outputs_of(model, x, n_together=3) == pytest.approx(wanted, abs=1e-4)
    prepared = prepare(model)
    assert outputs_of(prepared, x) == pytest.approx(wanted, abs=1e-4)
    assert kinds(prepared).count("BatchNormalization") == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_quantized_model_is_a_graph_that_gives_the_same(name):
    make, shape = NETWORKS[name]
    model, _ = model_from(make(), *shape)
    made, layers = quantize(model, drawn(1, 32, *shape), Settings(activations=8))
    assert {layer.weights for layer in layers} <= {"8 bits", "ternary"}
    assert all(0 <= layer.error < 1 for layer in layers)
    x = drawn(2, 20, *shape)
    wanted = outputs_of(made, x)
    graph = as_stored(made, "net")
    close = np.isclose(reference(graph, x.reshape(20, *graph.input.shape)), wanted, rtol=0, atol=1e-4)
    assert close.all(axis=1).mean() > 0.8  # of the others a number lies at the edge of a code, and float32 decides


@pytest.mark.parametrize("name", NETWORKS)
def test_eight_bits_everywhere_are_close_to_the_float_model(name):
    make, shape = NETWORKS[name]
    model, _ = model_from(make(), *shape)
    x = drawn(1, 64, *shape)
    made, _ = quantize(model, x, Settings(weights="8", activations=8))
    plain = outputs_of(model, x)
    assert np.abs(outputs_of(made, x) - plain).max() < 0.15 * np.abs(plain).max()


def test_quantizers_stand_before_pools_and_flattening_where_codes_are_moved():
    model, _ = model_from(small_cnn(), 2, 8, 8)
    made, _ = quantize(model, drawn(1, 16, 2, 8, 8), Settings())
    steps = [kind for kind, node in zip(kinds(made), made.nodes, strict=True) if node.inputs[0] not in made.constants]
    assert steps[:8] == ["Quant", "Conv", "Relu", "Quant", "MaxPool", "Conv", "Relu", "Quant"]
    assert steps[8] in ("Flatten", "Reshape")
    assert steps[9:] == ["Gemm"]


def test_bits_and_signs_are_those_that_were_asked_for_and_seen():
    model, _ = model_from(small_cnn(), 2, 8, 8)
    x = drawn(1, 16, 2, 8, 8)
    _, layers = quantize(model, x, Settings(weights="binary", activations=3, edges=6))
    assert [layer.weights for layer in layers] == ["6 bits", "binary", "6 bits"]
    assert [layer.inputs for layer in layers] == ["signed 6 bits", "unsigned 3 bits", "unsigned 6 bits"]
    assert layers[1].zeros == 0
    _, layers = quantize(model, np.abs(x), Settings(weights="3", activations=2, edges=None))
    assert [layer.weights for layer in layers] == ["3 bits"] * 3
    assert [layer.inputs for layer in layers] == ["unsigned 2 bits"] * 3


def test_edges_are_the_layers_that_none_is_before_or_behind():
    model, _ = model_from(Residual(), 2, 4, 4)
    prepared = prepare(model)
    edges = edge_layers(prepared)
    assert {node.name for node in prepared.nodes if node.outputs[0] in edges} == {"a", "short", "last"}


def test_layers_of_one_name_are_kept_apart():
    weights = {"v": drawn(0, 4, 4), "w": drawn(1, 4, 3)}
    nodes = Node("MatMul", "", "fc", ("x", "v"), ("a",), {}), Node("MatMul", "", "fc", ("a", "w"), ("y",), {})
    model, x = Model("net", 13, (Input("x", (1, 4)),), weights, nodes, ("y",)), drawn(2, 32, 4)
    made, layers = quantize(model, x, Settings(weights="8", activations=8))
    assert [layer.layer for layer in layers] == ["fc", "fc"]
    assert outputs_of(made, x) == pytest.approx(outputs_of(model, x), abs=0.2)


def test_products_of_sequences_get_a_bias_behind_them():
    nodes = (
        Node("MatMul", "", "fc1", ("x", "v"), ("a",), {}),
        Node("Add", "", "bias1", ("a", "b"), ("c",), {}),
        Node("Relu", "", "relu", ("c",), ("d",), {}),
        Node("MatMul", "", "fc2", ("d", "w"), ("y",), {}),
    )
    constants = {"v": drawn(0, 4, 6), "b": drawn(1, 6), "w": drawn(2, 6, 3)}
    model, x = Model("net", 13, (Input("x", (1, 5, 4)),), constants, nodes, ("y",)), drawn(3, 32, 5, 4)
    prepared = prepare(model)
    assert kinds(prepared) == ["MatMul", "Add", "Add", "Relu", "MatMul", "Add"]
    coded, layers = calibrate(prepared, x, Settings(weights="8", activations=8))
    made = with_quantizers(prepared, coded)
    assert [layer.error < 0.02 for layer in layers] == [True, True]
    assert outputs_of(made, x) == pytest.approx(outputs_of(model, x), abs=0.2)
    assert made.constants[coded_weights(made, "fc1")].shape == (4, 6)


def coded_weights(model, name):
    """The name of the weights behind the Quant that the layer *name* reads."""
    maker = {node.outputs[0]: node for node in model.nodes}
    (layer,) = [node for node in model.nodes if node.name == name]
    return maker[layer.inputs[1]].inputs[0]


@pytest.mark.parametrize("opset", [9, 13])
def test_a_model_of_loose_parts_is_prepared_into_layers_with_a_bias(opset):
    """Weights that are transposed by the file, scales and shifts around products, padding by a rule."""
    constants = {
        "w": drawn(0, 4, 2, 3, 3), "by": np.abs(drawn(1, 4, 1, 1)) + 0.5, "plus": drawn(2, 1, 4, 1, 1),
        "v": drawn(3, 3, 64), "shape": np.array([0, -1]), "less": drawn(4, 3), "over": np.array(2.0, np.float32),
    }  # fmt: skip
    nodes = (
        Node("Conv", "", "conv", ("x", "w"), ("a",), {"auto_pad": "SAME_LOWER", "kernel_shape": (3, 3)}),
        Node("Mul", "", "mul", ("by", "a"), ("b",), {}),
        Node("Add", "", "add", ("b", "plus"), ("c",), {}),
        Node("AveragePool", "", "pool", ("c",), ("d",), {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}),
        Node("Reshape", "", "reshape", ("d", "shape"), ("e",), {}),
        Node("Transpose", "", "turn", ("v",), ("t",), {"perm": (1, 0)}),
        Node("Gemm", "", "fc", ("e", "t", "less"), ("f",), {"alpha": 0.5, "beta": 2.0}),
        Node("Sub", "", "sub", ("f", "less"), ("g",), {}),
        Node("Div", "", "div", ("g", "over"), ("y",), {}),
    )
    model = Model("net", opset, (Input("x", (1, 2, 4, 4)),), constants, nodes, ("y",))
    x = drawn(5, 6, 2, 4, 4)
    images = torch.nn.functional.pad(torch.from_numpy(x), (1, 1, 1, 1))
    y = torch.nn.functional.conv2d(images, torch.from_numpy(constants["w"])) * torch.from_numpy(constants["by"])
    y = torch.nn.functional.avg_pool2d(y + torch.from_numpy(constants["plus"]), 3, 1, 1, count_include_pad=False)
    f = 0.5 * y.flatten(1).numpy() @ constants["v"].T + 2 * constants["less"]
    prepared = prepare(model)
    assert kinds(prepared) == ["Conv", "AveragePool", "Reshape", "Gemm"]
    assert all(len(node.inputs) == 3 for node in prepared.nodes if node.kind in ("Conv", "Gemm"))
    for each in (model, prepared):
        assert outputs_of(each, x) == pytest.approx((f - constants["less"]) / 2, abs=1e-4)
    made, _ = quantize(model, x, Settings(weights="8", activations=8))
    assert outputs_of(made, x) == pytest.approx(outputs_of(model, x), abs=0.3)


@pytest.mark.parametrize("better", ["bias", "statistics", "scale"])
def test_corrections_leave_less_error_than_none(better):
    model, _ = model_from(small_cnn(), 2, 8, 8)
    x = drawn(1, 64, 2, 8, 8)
    last = {}
    for correction in ("none", better):
        _, layers = quantize(model, x, Settings(correction=correction, rounding="nearest", edges=None))
        last[correction] = layers[-1].error
    assert last[better] < 0.9 * last["none"]


def test_rounding_that_makes_up_for_errors_leaves_less_of_them():
    model, _ = model_from(small_cnn(), 2, 8, 8)
    x = drawn(1, 256, 2, 8, 8)
    nearest_, together = (quantize(model, x, Settings(rounding=way))[1] for way in ("nearest", "compensated"))
    assert together[1].error < nearest_[1].error


def test_one_seed_gives_the_same_bits_whatever_the_number_of_threads():
    model, _ = model_from(small_cnn(), 2, 8, 8)
    x = drawn(1, 64, 2, 8, 8)
    n_threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(quantize(model, x, Settings(seed=3))[0])
    finally:
        torch.set_num_threads(n_threads)
    one, other = found
    assert list(one.constants) == list(other.constants)
    assert all(np.array_equal(one.constants[name], other.constants[name]) for name in one.constants)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"weights": "1"}, "weights: must be ternary, binary or 2 to 8 bits, got '1'"),
        ({"weights": "tern"}, "weights: must be ternary, binary or 2 to 8 bits, got 'tern'"),
        ({"activations": 1}, "activations: must be from 2 to 8 bits, got 1"),
        ({"edges": 9}, "edges: must be from 2 to 8 bits, got 9"),
        ({"rounding": "up"}, "rounding: must be nearest, compensated, got 'up'"),
        ({"correction": "all"}, "correction: must be none, bias, statistics, scale, got 'all'"),
        ({"n_samples": 0}, "calibration samples: must be at least 1, got 0"),
        ({"seed": -1}, "seed: must be 0 or more, got -1"),
    ],
)
def test_settings_that_mean_nothing_are_one_line(said, message):
    with pytest.raises(ConfigError) as raised:
        Settings(**said)
    assert str(raised.value) == message


def test_a_model_without_layers_is_refused():
    model, _ = model_from(nn.Sequential(nn.ReLU(), nn.Sigmoid()), 4)
    with pytest.raises(
        GraphError, match=r"^net: must have a layer with weights \(Conv, Gemm or MatMul\), got none amo"
    ):
        quantize(model, drawn(1, 4, 4), Settings())


def test_operators_that_no_graph_has_are_listed_before_anything_is_run():
    weights = {"w": np.ones((4, 4), np.float32)}
    nodes = (
        Node("MatMul", "", "first", ("x", "w"), ("a",), {}),
        Node("Unheard", "", "odd", ("a",), ("b",), {}),
        Node("MatMul", "", "second", ("b", "w"), ("c",), {}),
        Node("Strange", "mine", "other", ("c",), ("y",), {}),
    )
    with pytest.raises(GraphError) as raised:
        quantize(Model("net", 13, (Input("x", (1, 4)),), weights, nodes, ("y",)), drawn(1, 4, 4), Settings())
    assert str(raised.value) == (
        "net: every node must be one that a graph has, got 2 that are not: Unheard x1 (odd); Strange of domain 'mine' "
        "x1 (other)"
    )


def test_a_model_that_is_quantized_already_is_refused():
    model, _ = model_from(small_cnn(), 2, 8, 8)
    x = drawn(1, 16, 2, 8, 8)
    made, _ = quantize(model, x, Settings())
    with pytest.raises(GraphError, match=r"^net: must be a float model to be quantized, got 6 quantizers, Quant; it r"):
        quantize(made, x, Settings())


def test_a_model_whose_weights_are_not_there_is_refused():
    model, _ = model_from(small_cnn(), 2, 8, 8)
    names = frozenset(name for name, array in model.constants.items() if array.ndim == 4)
    with pytest.raises(
        GraphError, match=r"^net: weights must be there to be quantized, got shapes alone of 0.weight, 4"
    ):
        quantize(replace(model, missing=names), drawn(1, 16, 2, 8, 8), Settings())


def test_a_node_that_cannot_be_run_is_named():
    node = Node("MatMul", "", "mm", ("x", "w"), ("y",), {})
    model = Model("net", 13, (Input("x", (1, 3)),), {"w": np.zeros((4, 2), np.float32)}, (node,), ("y",))
    with pytest.raises(
        GraphError, match=r"^net: MatMul mm must run on samples, got RuntimeError: mat1 and mat2 shapes"
    ):
        outputs_of(model, drawn(0, 2, 3))


# --- where models and samples come from -----------------------------------------------------------------------------


NET = """
import torch
class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(4, 3))
def broken():
    raise ValueError("no weights here")
def number():
    return 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A module in ``net.py``, its weights, and 20 samples with labels in ``samples.npz``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    save_file({"0.weight": torch.full((3, 4), 2.0), "0.bias": torch.arange(3.0)}, tmp_path / "net.safetensors")
    np.savez(tmp_path / "samples.npz", x=drawn(0, 20, 4), labels=np.arange(20) % 3)
    return tmp_path


def test_a_module_comes_with_its_weights_and_the_first_samples_are_taken_off(folder):
    found = find_source("net.py:Net", n_samples=8, state=folder / "net.safetensors", data=folder / "samples.npz")
    assert found.name == "Net"
    assert len(found.calibration) == 8
    assert len(found.x) == len(found.labels) == 12
    assert np.array_equal(np.concatenate([found.calibration, found.x]), drawn(0, 20, 4))
    assert outputs_of(found.model, np.ones((1, 4), np.float32)).tolist() == [[8.0, 9.0, 10.0]]
    assert found.calibration_from == "the first 8 samples of the test set, which is judged without them"


def test_calibration_samples_of_their_own_leave_the_test_set_whole(folder):
    np.savez(folder / "more.npz", x=drawn(1, 30, 4))
    ways = {"data": folder / "samples.npz", "calibration_data": folder / "more.npz"}
    found, again = (find_source("net.py:Net", n_samples=10, seed=1, **ways) for _ in range(2))
    assert (len(found.calibration), len(found.x)) == (10, 20)
    assert np.array_equal(found.calibration, again.calibration)
    other = find_source("net.py:Net", n_samples=10, seed=2, **ways)
    assert not np.array_equal(found.calibration, other.calibration)


def test_samples_that_are_all_needed_leave_no_test_set(folder):
    found = find_source("net.py:Net", n_samples=512, data=folder / "samples.npz")
    assert (len(found.calibration), found.x, found.labels) == (20, None, None)


def refused(error, message, text="net.py:Net", **options):
    with pytest.raises(error) as raised:
        find_source(text, **({"n_samples": 8} | options))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_models_that_cannot_be_had_are_one_line(folder):
    samples = {"data": folder / "samples.npz"}
    refused(ConfigError, "nope.py: must be a Python file, got nothing there", "nope.py:Net", **samples)
    refused(
        ConfigError, "net.py: Nope: must be a class or function that gives a torch module", "net.py:Nope", **samples
    )
    refused(ConfigError, "net.py:broken: must run without arguments, got ValueError: no weights here", "net.py:broken",
            **samples)  # fmt: skip
    refused(GraphError, "net.py:number: must give a torch.nn.Module, got int", "net.py:number", **samples)
    refused(ConfigError, "no_such_module: must be a module that Python can read, got ModuleNotFoundError",
            "no_such_module:Net", **samples)  # fmt: skip
    (folder / "worse.py").write_text("import")
    refused(ConfigError, "worse.py: must be a module that Python can read, got SyntaxError", "worse.py:Net", **samples)
    refused(ConfigError, "build(): missing; a workload that is quantized needs it", "resnet18", calibration_data=
            folder / "samples.npz")  # fmt: skip


def test_weights_that_do_not_fit_are_one_line(folder):
    samples = {"data": folder / "samples.npz"}
    refused(ConfigError, "state: must be a .safetensors file, got net.pt; safetensors.torch.save_file", state=
            folder.joinpath("net.pt").relative_to(folder), **samples)  # fmt: skip
    refused(DataError, "gone.safetensors: must hold the weights of net.py:Net, got", state=folder / "gone.safetensors",
            **samples)  # fmt: skip
    save_file({"0.weight": torch.zeros(3, 4)}, folder / "part.safetensors")
    refused(DataError, 'Missing key(s) in state_dict: "0.bias"', state=folder / "part.safetensors", **samples)
    refused(ConfigError, "state: must go with a module, FILE.py:NAME, got digits-float-cnn", "digits-float-cnn",
            state=folder / "net.safetensors")  # fmt: skip


def test_samples_that_do_not_fit_are_one_line(folder):
    refused(DataError, "Net: calibration samples must be there, got none; give --data FILE.npz with x")
    refused(DataError, "gone.npz: must be a whole npz file without pickles, got", data=folder / "gone.npz")
    np.savez(folder / "odd.npz", x=drawn(0, 9, 2, 2))
    refused(DataError, "Net: test samples must have shape (n, 4), got (9, 2, 2)", data=folder / "odd.npz",
            calibration_data=folder / "samples.npz")  # fmt: skip
    refused(DataError, "digits-float-cnn: calibration samples must have shape (n, 1, 8, 8), got (8, 2, 2)",
            "digits-float-cnn", calibration_data=folder / "odd.npz")  # fmt: skip
    np.savez(folder / "nan.npz", x=np.full((9, 4), np.nan))
    refused(DataError, "nan.npz: x must hold finite numbers (n ...), got nan of shape (9, 4)", data=folder / "nan.npz")
    (folder / "mine.py").write_text("from net import *\ndef build():\n    return Net()\ndef example_input():\n"
                                    "    return torch.ones(1, 4)\ndef calibration(folder):\n    return CALIBRATION\n"
                                    "CALIBRATION = torch.full((9, 4), float('inf'))\n")  # fmt: skip
    refused(DataError, "mine: calibration samples must be finite, got inf", "mine.py")
    with (folder / "mine.py").open("a") as file:
        file.write("CALIBRATION = 'samples'\n")
    refused(
        DataError, "mine: calibration(): samples must be an array of numbers (n ...), got: could not convert", "mine.py"
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("digits-float-cnn", "digits-float-cnn"),
        ("nets/model.onnx", "model"),
        ("nets/net.py:Net", "Net"),
        ("nets/mine/workload.py", "mine"),
        ("nets/mine/", "mine"),
        ("nets/resnet.v2", "resnet.v2"),
    ],
)
def test_a_file_is_named_after_the_model_and_its_bits_where_none_is_said(model, name):
    from imcsim.cli_quantize import _default_path

    assert _default_path(model, Settings(weights="binary", activations=2)) == Path(f"{name}-binary-2.onnx")
