"""FGQ: scales of groups of inputs, their rounding, and what the options refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imcsim.errors import ConfigError
from imcsim.quant.methods import find_method
from imcsim.quant.methods.grouped import GroupTernaryWeights


def test_each_group_has_its_own_threshold_and_scale():
    weight = torch.tensor([[4.0, -3, 0.5, 0.25, 0.125, -0.0625]]).double()
    coded = GroupTernaryWeights(3, bits_scale=0)(weight)  # 24.5 of two; then 0.25: 0.0625, 0.0703 of 2, 0.0638 of 3
    assert coded.codes[0].tolist() == [[1, -1, 0, 1, 1, 0]]
    assert coded.group_scale.tolist() == [[3.5, 0.1875]]
    assert coded.numbers().tolist() == [[3.5, -3.5, 0, 0.1875, 0.1875, 0]]


def test_each_position_of_a_window_has_groups_of_its_own():
    weight = torch.zeros(1, 3, 2, 2).double()
    weight[0, :, 0, 1] = torch.tensor([1.0, 2.0, 5.0])
    coded = GroupTernaryWeights(2, bits_scale=0)(weight)
    assert coded.group_scale.shape == (1, 2, 2, 2)
    assert coded.group_scale[0, :, 0, 1].tolist() == [1.5, 5.0]
    assert coded.codes[0][0, :, 0, 1].tolist() == [1, 1, 1]
    assert coded.codes[0].abs().sum() == 3


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_groups_are_the_best_ternary_rows_of_consecutive_inputs(n_inputs, size, seed):
    weight = np.random.default_rng(seed).standard_normal((2, n_inputs, 1, 2))
    ours = GroupTernaryWeights(size, bits_scale=0)(torch.as_tensor(weight)).numbers().numpy()
    for index in np.ndindex(2, 1, 2):
        for first in range(0, n_inputs, size):
            row = weight[index[0], first : first + size, index[1], index[2]]
            ordered = np.sort(np.abs(row))[::-1]
            gains = ordered.cumsum() ** 2 / np.arange(1, len(row) + 1)
            least_error = np.sum(row**2) - gains.max()
            error = np.sum((row - ours[index[0], first : first + size, index[1], index[2]]) ** 2)
            assert error == pytest.approx(least_error, abs=1e-9)


def test_scales_have_eight_bits_of_a_step_that_is_a_power_of_two():
    weight = torch.as_tensor(np.random.default_rng(2).standard_normal((8, 64)))
    scales = GroupTernaryWeights(4)(weight).group_scale
    real = GroupTernaryWeights(4, bits_scale=0)(weight).group_scale
    step = 2.0**-6  # the greatest is above 255 / 128 and up to 255 / 64
    assert 255 / 128 < real.max() <= 255 / 64
    assert torch.equal(scales, torch.round(scales / step) * step)
    assert (scales - real).abs().max() <= step / 2
    assert (scales / step).max() <= 255


def test_gradients_of_the_numbers_go_straight_to_the_weights():
    weight = torch.tensor([[4.0, -3, 0.5, 1.0]]).double().requires_grad_()
    upstream = torch.tensor([[1.0, 2, 3, 4]]).double()
    (GroupTernaryWeights(4)(weight).numbers() * upstream).sum().backward()
    np.testing.assert_allclose(weight.grad, upstream)


def test_a_layer_of_zeros_has_no_scale_and_no_gradient():
    weight = torch.zeros(1, 4, requires_grad=True)
    coded = GroupTernaryWeights(2)(weight)
    coded.numbers().sum().backward()
    assert not coded.group_scale.any()
    assert not weight.grad.any()


def test_the_trained_float_weights_are_quantized_as_they_are():
    method = find_method("fgq:group_size=2,bits_scale=0,bits_a=4")
    layer = method.linear(4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.5, 0.25, 0.25]]))
    assert layer(torch.tensor([[1.0, 0, 2, 2]])).item() == 1.5
    assert isinstance(method.activation(3), nn.Module)
    assert method.activation(3).imc_quantizer().format.bits == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fgq:group_size=0", "fgq: group_size must be a whole number from 1 to 64, got 0"),
        ("fgq:group_size=65", "fgq: group_size must be a whole number from 1 to 64, got 65"),
        ("fgq:bits_scale=17", "fgq: bits_scale must be from 0 to 16, got 17"),
        ("fgq:bits_a=3", "fgq: bits_a must be 4 or 8, got 3"),
    ],
)
def test_an_option_out_of_range_is_one_line(text, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        find_method(text)
