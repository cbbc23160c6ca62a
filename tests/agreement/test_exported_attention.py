"""torch's own layers that attend, by torch.export: with codes of 12 bits in each product, against torch in float32."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx_models import QONNX
from torch import nn

import imcsim
from imcsim.functional.reference import reference
from imcsim.graph.exported import export, model_of
from imcsim.graph.passes import simplify
from imcsim.graph.qonnx.model import Node
from imcsim.graph.qonnx.walk import as_stored

GREATEST = 2**11 - 1
N_TOKENS, N_CHANNELS = 6, 32


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(N_CHANNELS, 4, batch_first=True)
        self.norm, self.scores = nn.LayerNorm(N_CHANNELS), nn.Linear(N_CHANNELS, 10)

    def forward(self, x):
        y, _ = self.attention(x, x, x, need_weights=False)
        return self.scores(self.norm(x + y).mean(1))


class Encoding(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(N_CHANNELS, 4, 64, batch_first=True, activation="gelu")
        self.scores = nn.Linear(N_CHANNELS, 10)

    def forward(self, x):
        return self.scores(self.encoder(x).mean(1))


def quantized(model):
    """The model with a quantizer on each side of its products with weights."""
    constants = dict(model.constants) | {"zero": np.float32(0), "bits": np.float32(12)}
    said = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"}
    nodes = []
    for node in model.nodes:
        if node.kind in ("Gemm", "MatMul") and node.inputs[1] in constants:
            reach = float(np.abs(constants[node.inputs[1]]).max()), 6.0
            read = []
            for name, what, greatest in zip(node.inputs[1::-1], "wx", reach, strict=True):
                constants[f"{node.name}.s{what}"] = np.float32(greatest / GREATEST)
                inputs = (name, f"{node.name}.s{what}", "zero", "bits")
                nodes.append(Node("Quant", QONNX, f"{node.name}.{what}", inputs, (f"{node.name}.q{what}",), said))
                read.insert(0, f"{node.name}.q{what}")
            node = replace(node, inputs=(*read, *node.inputs[2:]))
        nodes.append(node)
    return replace(model, constants=constants, nodes=tuple(nodes))


@pytest.mark.parametrize("layer", [Attending, Encoding])
def test_layers_of_torch_that_attend_give_its_numbers(layer):
    torch.manual_seed(0)
    net, x = layer().eval(), torch.randn(8, N_TOKENS, N_CHANNELS)
    graph = simplify(as_stored(quantized(model_of(export(net, x[:1], "net"), name="net")), "net"))
    found = reference(graph, x.double().numpy().reshape(len(x), *graph.input.shape))
    np.testing.assert_allclose(found, net(x).detach().numpy(), rtol=0, atol=5e-3)


@pytest.mark.parametrize("layer", [Attending, Encoding])
def test_they_take_assumed_bits(layer):
    graph = imcsim.capture(layer().eval(), torch.zeros(1, N_TOKENS, N_CHANNELS), assume="W=ternary,A=4")
    plan = imcsim.place(graph, imcsim.load_chip("tim-dnn"))
    assert imcsim.simulate(plan).latency_ns > 0
    n_products = {Attending: 3, Encoding: 5}[layer]
    assert len(graph.assumed.weights) == n_products
