"""The workloads whose network takes any method: they are captured, go onto tiles, and tiles give what torch gives."""

import os

import numpy as np
import pytest
import torch

from imcsim.workloads import find_workload

SMALL = ["fashion-cnn", "mnist-cnn"]


@pytest.mark.parametrize("name", SMALL)
def test_building_twice_gives_the_same_bits(name):
    workload = find_workload(name).module
    state, other = workload.build().state_dict(), workload.build().state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", SMALL)
def test_building_leaves_the_generator_of_torch_alone(name):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    find_workload(name).module.build()
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.skipif(not os.environ.get("IMCSIM_DATA"), reason="IMCSIM_DATA is not set: no images here")
def test_images_are_whole_256ths_with_a_label_each(name):
    x, y = find_workload(name).module.split("test")
    assert tuple(x.shape) == (10000, 1, 28, 28)
    assert np.array_equal(np.unique(y), np.arange(10))
    assert torch.equal(x[:100] * 256, (x[:100] * 256).round())
    assert x.max() == 255 / 256
