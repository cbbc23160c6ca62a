"""Recurrent layers against PyTorch's own, against their torch modules, and, clipped, against the plain crossbar."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TIM_DNN, seeds, variant
from torch import nn

from imcsim.functional.crossbar import tile_matmul_plain
from imcsim.functional.execute import run
from imcsim.functional.reference import reference, tensors_of
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant import SignedActivation, TernaryActivation, TernaryGRU, TernaryLSTM

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})
KINDS = [(TernaryLSTM, nn.LSTM), (TernaryGRU, nn.GRU)]


def spread(layer, factor=2.0):
    """Give the biases some width, and the weights and so the gates more of it."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.normal_(std=0.5)
    return layer


def pytorch_layer(layer, kind):
    """The same layer by PyTorch: the real numbers of the weights, biases in their places."""
    codes, scale = layer.checked_codes()
    weights = codes.double() * scale
    n, n_inputs = layer.n_hidden, layer.n_inputs
    theirs = kind(n_inputs, n).double()
    bias_x, bias_h = layer.bias.double().clone(), torch.zeros_like(theirs.bias_hh_l0)
    if kind is nn.GRU:
        bias_h[2 * n :] = bias_x[3 * n :]
        bias_x = bias_x[: 3 * n]
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(weights[:, :n_inputs])
        theirs.weight_hh_l0.copy_(weights[:, n_inputs:])
        theirs.bias_ih_l0.copy_(bias_x)
        theirs.bias_hh_l0.copy_(bias_h)
    return theirs


@pytest.mark.parametrize(("ours", "theirs"), KINDS)
def test_with_fine_codes_a_layer_is_that_of_pytorch(ours, theirs):
    torch.manual_seed(1)
    fine = SignedActivation(16, top=1.0)  # 65535 levels: a step of 3e-5
    layer = spread(ours(5, 7, quantizer=fine)).double()
    x = torch.rand(3, 5, 1, 12, dtype=torch.float64) * 2 - 1
    graph = capture(nn.Sequential(fine, layer).eval(), x)
    (op,) = graph.products
    found = reference(graph, x.numpy()) * op.output.format.scale
    executed = run(place(graph, IDEAL), x.numpy()).outputs
    with torch.no_grad():
        expected, _ = pytorch_layer(layer, theirs)(x.squeeze(2).permute(2, 0, 1))
    np.testing.assert_allclose(found[:, :, 0], expected.permute(1, 2, 0).numpy(), atol=2e-3)
    assert expected.abs().max() > 0.3  # not about 0
    assert np.array_equal(executed * op.output.format.scale, found)


@settings(max_examples=20)
@given(st.sampled_from(KINDS), st.integers(1, 40), st.integers(1, 20), st.integers(1, 8), st.booleans(), seeds())
def test_an_ideal_chip_gives_what_the_module_gives_in_double_precision(kinds, n_inputs, n_hidden, n_steps, rows, seed):
    torch.manual_seed(seed)
    layers = [spread(kinds[0](n_inputs, n_hidden, slope=1.5, per_channel=rows)), spread(TernaryGRU(n_hidden, 3))]
    net = nn.Sequential(TernaryActivation(), *layers).double().eval()
    x = torch.randn(4, n_inputs, 1, n_steps, dtype=torch.float64)
    graph = capture(net, x)
    with torch.no_grad():
        expected = net(x).numpy()
    found = run(place(graph, IDEAL), x.numpy())
    assert np.array_equal(found.outputs, reference(graph, x.numpy()))
    assert found.total.n_clipped_accesses == 0
    same = np.all(found.outputs == expected, axis=(1, 2, 3))
    assert same.mean() >= 0.75  # a number within the last bit of a threshold may fall on the other side


@settings(max_examples=15)
@given(st.sampled_from(KINDS), st.sampled_from([1, 2, 3, 8]), st.sampled_from([4, 5, 16]), seeds())
def test_a_chip_that_clips_gives_what_the_plain_crossbar_and_pytorchs_cell_give(kinds, count_max, rows, seed):
    torch.manual_seed(seed)
    layer = spread(kinds[0](9, 6), 3.0).double().eval()
    chip = variant(TIM_DNN, {"tile.rows_per_access": rows, "tile.n_rows": 8 * rows, "tile.count_max": count_max})
    x = torch.randn(3, 9, 1, 6, dtype=torch.float64)
    graph = capture(nn.Sequential(TernaryActivation(), layer), x)
    (op,) = graph.products
    codes = tensors_of(graph, x.numpy())[op.input].astype(np.int8)
    columns = op.product.matrix[0, 0]
    scale, offset = torch.tensor(op.steps[0].scale), torch.tensor(op.steps[0].offset)
    h = np.zeros((3, 6), np.int8)
    state = torch.zeros(3, 6, dtype=torch.float64)
    for t in range(6):
        sums = tile_matmul_plain(np.hstack([codes[:, :, 0, t], h]), columns, rows_per_access=rows, count_max=count_max)
        one, two, three, four = (torch.as_tensor(sums) * scale + offset).chunk(4, dim=1)
        if kinds[1] is nn.LSTM:
            state = torch.sigmoid(two) * state + torch.sigmoid(one) * torch.tanh(three)
            real = torch.sigmoid(four) * torch.tanh(state)
        else:
            new = torch.tanh(three + torch.sigmoid(one) * four)
            z = torch.sigmoid(two)
            real = state = (1 - z) * new + z * state
        h = (torch.sign(real) * (real.abs() > 0.5)).numpy().astype(np.int8)
        found = run(place(graph, chip), x.numpy()).outputs[:, :, 0, t]
        assert np.array_equal(found, h)
