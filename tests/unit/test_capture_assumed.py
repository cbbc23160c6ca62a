"""Modules of torch with assumed bits: names, inputs, what stays as it is, and one line for what cannot be."""

import pytest
import torch
from torch import nn

import imcsim
from imcsim.errors import ConfigError, GraphError
from imcsim.quant import TernaryActivation, TernaryConv2d

BITS = "W=ternary,A=2"


def small():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


class Two(nn.Module):
    """Two inputs, which a layer each reads."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.last = nn.Linear(6, 5), nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, left, right):
        both = torch.relu(self.left(left) + self.right(right))
        return self.last(both), both


def test_layers_bear_the_names_of_modules_and_the_module_is_left_in_its_mode():
    module = small().train()
    graph = imcsim.capture(module, torch.zeros(3, 3, 8, 8), name="net", assume=BITS)
    assert all(part.training for part in module.modules())
    assert graph.assumed.weights == ("0", "5")
    assert [(op.name, str(graph.tensors[op.input].format)) for op in graph.products] == [("0", "u8"), ("5", "u2")]
    assert not graph.has_values


def test_a_module_has_several_inputs_and_outputs():
    given = {"right": torch.zeros(1, 4), "left": torch.zeros(1, 6)}
    graph = imcsim.capture(Two(), given, assume=BITS)
    assert [tensor.shape for tensor in graph.inputs] == [(6,), (4,)]
    assert [graph.tensors[op.input].shape for op in graph.products] == [(6,), (4,), (5,)]
    assert [op.product.weights.shape for op in graph.products] == [(5, 6), (5, 4), (2, 5)]
    assert len(graph.outputs) == 2
    other = imcsim.capture(Two(), (torch.zeros(1, 6), torch.zeros(1, 4)), assume=BITS)
    assert [op.output for op in other.ops] == [op.output for op in graph.ops]


def test_weights_without_numbers_are_enough():
    with torch.device("meta"):
        module = small()
    graph = imcsim.capture(module, torch.zeros(1, 3, 8, 8), assume=BITS)
    whole = imcsim.capture(small(), torch.zeros(1, 3, 8, 8), assume=BITS)
    assert [op.product for op in graph.ops] == [op.product for op in whole.ops]
    assert [op.output for op in graph.ops] == [op.output for op in whole.ops]
    with pytest.raises(GraphError, match=r"zeros=weights must be read off weights that are there, got a model without"):
        imcsim.capture(module, torch.zeros(1, 3, 8, 8), assume=f"{BITS},zeros=weights")


def test_weights_of_few_levels_keep_their_planes():
    module = small()
    module[0].weight.data.sign_()
    graph = imcsim.capture(module, torch.zeros(1, 3, 8, 8), assume=BITS)
    assert [op.product.weights.has_values for op in graph.products] == [True, False]
    assert graph.assumed.weights == ("5",)


def test_what_cannot_be_is_one_line():
    with pytest.raises(
        GraphError, match=r"^1: assume: must meet layers of torch, got TernaryConv2d, which says its bits"
    ):
        imcsim.capture(nn.Sequential(nn.ReLU(), TernaryConv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8), assume=BITS)
    with pytest.raises(
        GraphError, match=r"^TernaryActivation: assume: must meet layers of torch, got TernaryActivation"
    ):
        imcsim.capture(TernaryActivation(), torch.zeros(1, 3, 8, 8), assume=BITS)
    with pytest.raises(GraphError, match=r"^net: must be a torch.nn.Module, got int"):
        imcsim.capture(7, torch.zeros(1, 3), name="net", assume=BITS)
    with pytest.raises(ConfigError, match=r"^assume: must say A, got 'W=2'"):
        imcsim.capture(small(), torch.zeros(1, 3, 8, 8), assume="W=2")
    with pytest.raises(
        GraphError, match=r"^net: assume: must meet a layer of real numbers, got quantized ones; leave it"
    ):
        imcsim.capture(nn.ReLU(), torch.zeros(1, 3, 8, 8), name="net", assume=BITS)
