"""ResNet-18, residual additions and all: tiles against whole numbers without tiles, and against PyTorch in float64."""

import numpy as np
import pytest
import torch

from imcsim.arch.load import load_chip
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.workloads import find_workload

WORKLOAD = find_workload("resnet18-cifar-ternary").module


@pytest.mark.parametrize("activations", ["ternary", "2-bit"])
def test_an_ideal_chip_gives_the_reference_bit_for_bit_and_the_values_of_pytorch(activations):
    net, x = WORKLOAD.drawn(activations), WORKLOAD.images(2, seed=3)
    graph = capture(net, WORKLOAD.example_input())
    expected = reference(graph, x)

    ideal = run(place(graph, load_chip("tim-dnn", overrides={"tile.count_max": 16})), x)
    np.testing.assert_array_equal(ideal.outputs, expected)
    assert ideal.total.n_clipped_accesses == 0

    clipping = run(place(graph, load_chip("tim-dnn", overrides={"tile.count_max": 5})), x)
    assert clipping.total.n_clipped_accesses > 0
    assert not np.array_equal(clipping.outputs, expected)

    with torch.no_grad():
        np.testing.assert_allclose(net.double()(x.double()).numpy(), expected, rtol=0, atol=1e-6)
