"""Modules that attend, as torch computes them in float64 and as they are captured."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from imcsim.arch.load import load_chip
from imcsim.errors import GraphError
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.graph import Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant import ChannelNorm, SignedActivation, TernaryActivation, TernaryConv2d, UnsignedActivation
from imcsim.workloads import find_workload

NAME = "digits-ternary-attention"


class Attends(nn.Module):
    """Attention of two heads over a sequence (b 8 1 5), between other functions of torch."""

    def __init__(self, product):
        super().__init__()
        self.codes = nn.Sequential(ChannelNorm(8), TernaryActivation(0.5))
        self.parts = nn.ModuleList(TernaryConv2d(8, 8, 1) for _ in range(3))
        self.quantizers = nn.ModuleList([SignedActivation(4, top=4.0), TernaryActivation(0.5), SignedActivation(8)])
        self.chances, self.product = UnsignedActivation(8, top=1.0), product
        self.norm = nn.LayerNorm((1, 5))

    def forward(self, x):
        codes = self.codes(functional.silu(x))
        q, k, v = (
            quantizer(part(codes)).reshape(-1, 2, 4, 5)
            for part, quantizer in zip(self.parts, self.quantizers, strict=True)
        )
        scores = self.product(q.permute(0, 1, 3, 2), k) * 0.5
        y = self.product(self.chances(functional.softmax(scores, dim=-1)), v.transpose(-1, -2))
        y = y.transpose(2, 3).contiguous().view(-1, 8, 1, 5)
        return functional.gelu(self.norm(x + y), approximate="tanh").softmax(1)


@pytest.mark.parametrize("product", [torch.matmul, lambda a, b: a @ b, lambda a, b: a.matmul(b)])
def test_a_captured_module_that_attends_gives_what_torch_gives(product):
    torch.manual_seed(5)
    module = Attends(product).eval().double()
    nn.init.normal_(module.norm.weight)
    x = torch.randn(6, 8, 1, 5, dtype=torch.float64)
    graph = capture(module, x[:1], name="attends")
    with torch.no_grad():
        wanted = module(x).numpy()
    assert np.allclose(reference(graph, x.numpy()), wanted, rtol=0, atol=1e-12)
    chip = load_chip("tim-dnn", {"tile.count_max": 16})
    for done_by in ("digital", "tiles"):
        chip = load_chip("tim-dnn", {"tile.count_max": 16, "activation_products.done_by": done_by})
        assert np.array_equal(execute(place(graph, chip), x.numpy()), reference(graph, x.numpy()))
    kinds = {type(step) for op in graph.ops for step in op.steps}
    assert kinds >= {Gelu, LayerNorm, MatMul, Permute, Reshape, Silu, Softmax}


@pytest.mark.parametrize("is_affine", [False, True])
def test_a_functional_layer_norm_is_that_of_the_module(is_affine):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(5)), nn.Parameter(torch.randn(5))

        def forward(self, x):
            given = (self.weight, self.bias) if is_affine else ()
            return functional.layer_norm(x, (5,), *given, eps=1e-2)

    torch.manual_seed(2)
    module, x = Normed().double(), torch.randn(3, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        wanted = module(x).numpy()
    found = reference(capture(module, x), x.numpy()[:, :, None])
    assert np.allclose(found.reshape(wanted.shape), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        nn.LayerNorm(5).double(),
        nn.LayerNorm((4, 5)).double(),
        lambda x: x.softmax(-1),
        lambda x: x.softmax(1),
        lambda x: x.transpose(1, 2).softmax(1),
        lambda x: x.permute(0, 2, 1).softmax(-1),
    ],
)
def test_axes_of_a_sequence_are_those_of_torch(function):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.function = function

        def forward(self, x):
            return self.function(x)

    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = Net()(x).numpy()
    found = reference(capture(Net(), x), x.numpy()[:, :, None])
    assert np.allclose(found.reshape(wanted.shape), wanted, rtol=0, atol=1e-12)


def test_a_layer_norm_whose_weight_is_computed_is_named():
    class Net(nn.Module):
        def forward(self, x):
            return functional.layer_norm(x, (5,), x.mean((0, 1)))

    with pytest.raises(GraphError, match=r"layer_norm with a weight or a bias that is computed x1 .*take parameters"):
        capture(Net(), torch.randn(5, 5, 5))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x.permute(1, 0, 2, 3), r"Tensor\.permute that moves the batch x1"),
        (lambda x: x.transpose(0, 1), r"Tensor\.transpose that moves the batch x1"),
        (lambda x: x.softmax(0), r"Tensor\.softmax over the batch, or over an axis that is not told x1"),
        (lambda x: torch.matmul(x, torch.ones(5, 5)), r"matmul of anything but matrices of two tensors with as many"),
    ],
)
def test_what_is_no_attention_of_ours_is_named(function, message):
    class Net(nn.Module):
        def forward(self, x):
            return function(x)

    with pytest.raises(GraphError, match=message):
        capture(Net(), torch.zeros(1, 8, 1, 5), name="net")


# --- the workload ---------------------------------------------------------------------------------------------------


def test_the_shipped_network_has_the_accuracy_that_is_written_beside_it():
    workload = find_workload(NAME)
    told = json.loads(workload.path.with_name("training.json").read_text())
    x, labels = workload.data()
    found = reference(workload.graph(), x).argmax(axis=1) == labels
    assert found.mean() == pytest.approx(told["test_accuracy"], abs=1.5 / len(labels))
    assert told["test_accuracy"] > 0.9
    assert workload.path.with_name("weights.safetensors").stat().st_size < 100_000


def test_the_shipped_network_gives_the_same_bits_with_its_products_on_ideal_tiles():
    workload = find_workload(NAME)
    graph, x = workload.graph(), workload.data()[0][:8]
    found = reference(graph, x)
    for done_by in ("digital", "tiles"):
        chip = load_chip("tim-dnn", {"tile.count_max": 16, "activation_products.done_by": done_by})
        plan = place(graph, chip)
        assert sum(layer.is_written for layer in plan.layers) == 4 * (done_by == "tiles")
        assert np.array_equal(execute(plan, x), found)
