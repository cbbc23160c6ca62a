"""Activations and weights of several real bases: tiles, reference and torch agree, with padding too."""

import numpy as np
import pytest
import torch
from strategies import TIM_DNN, variant
from torch import nn

from imcsim.errors import GraphError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph import Threshold, bases
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import binary

FACTORS = (0.7, 0.3, 0.45)


class ThreeSigns(nn.Module):
    """The nearest of eight sums of -+0.7, -+0.3 and -+0.45."""

    def __init__(self, factors=FACTORS):
        super().__init__()
        self.format = bases(factors)
        self.levels = torch.tensor(self.format.digits).double() @ torch.tensor(factors).double()

    def forward(self, x):
        levels = self.levels.to(x.dtype)
        middles = (levels[1:] + levels[:-1]) / 2
        return levels[torch.bucketize(x, middles, right=True)]

    def imc_quantizer(self):
        levels = self.levels.double().numpy()
        return Threshold((levels[1:] + levels[:-1]) / 2, np.arange(len(levels)), self.format)


class TwoSigns(WeightQuantizer):
    """Two residual signs, each with a scale per output."""

    def forward(self, weight):
        axes = tuple(range(1, weight.ndim))
        a = weight.abs().mean(dim=axes, keepdim=True)
        rest = weight - a * torch.sign(weight)
        return Coded((torch.sign(weight), torch.sign(rest)), (a, rest.abs().mean(dim=axes, keepdim=True)))

    def codec(self):
        return binary()


def net():
    torch.manual_seed(5)
    return (
        nn.Sequential(
            ThreeSigns(),
            QuantizedConv2d(3, 4, 3, padding=1, weight_quantizer=TwoSigns()),
            nn.BatchNorm2d(4),
            ThreeSigns((0.5, 0.25)),
            nn.Flatten(),
            QuantizedLinear(4 * 25, 3, weight_quantizer=TwoSigns(), bias=False),
        )
        .double()
        .eval()
    )


@pytest.mark.parametrize("changes", [{}, {"tile.sense": "n"}, {"tile.serial": "trit"}])
def test_several_bases_give_the_bits_of_the_reference_and_the_numbers_of_torch(changes):
    module, x = net(), np.random.default_rng(3).standard_normal((4, 3, 5, 5))
    graph = capture(module, torch.zeros(1, 3, 5, 5, dtype=torch.float64))
    chip = variant(TIM_DNN, {"tile.count_max": 16, **changes})
    ours = reference(graph, x)
    assert np.array_equal(run(place(graph, chip), x).outputs, ours)
    with torch.no_grad():
        np.testing.assert_allclose(ours, module(torch.as_tensor(x)).numpy(), rtol=1e-12, atol=1e-12)


def test_each_base_is_a_pass_and_each_term_of_the_weights_a_column():
    graph = capture(net(), torch.zeros(1, 3, 5, 5, dtype=torch.float64))
    plan = place(graph, TIM_DNN)
    assert [(layer.n_passes, layer.n_weight_planes) for layer in plan.layers if layer.is_on_tiles] == [(3, 2), (2, 2)]


def test_levels_must_ascend():
    with pytest.raises(GraphError, match=r"bases: levels must ascend, got \[-1.0, 0.0, 0.0, 1.0\]"):
        bases((0.5, 0.5))


def test_a_digital_step_may_not_read_the_numbers_of_levels():
    class Twice(nn.Module):
        def forward(self, x):
            return x + x

    with pytest.raises(GraphError, match=r"got 8 levels of 3 bases in .*; such codes go to products alone"):
        capture(nn.Sequential(ThreeSigns(), Twice()), torch.zeros(1, 3, 5, 5))
