"""Thin variants of other methods: literal levels, gradients, and what they do in training."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import example, network_of, train

from imcsim.errors import ConfigError
from imcsim.graph import Product
from imcsim.graph.capture import capture
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.method import Method
from imcsim.quant.methods import find_method
from imcsim.quant.methods.multi_base import FoldableActivation, HalfWaveActivation
from imcsim.quant.methods.variants import (
    ClippedWeights,
    PowerOfTwoWeights,
    SoftActivation,
    SoftWeights,
    SwishSignActivation,
    SwishSignWeights,
    TwoStepWeights,
    soft_steps,
    swish_slope,
)


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


def gradient(function, x):
    """What the sum of the outputs gives back to each number of x."""
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad


def layers_of(net, kind):
    return [m for m in net.modules() if isinstance(m, QuantizedWeights) and isinstance(m.weight_quantizer, kind)]


# --- INQ


def test_weights_become_powers_of_two_from_three_quarters_of_them_up():
    # largest 1: n_1 = floor(log2(4 / 3)) = 0, and of 3 bits there are two exponents: -1 and 0
    weight = d(1, -0.76, 0.74, 0.5, -0.26, 0.24, 0)
    coded = PowerOfTwoWeights(3, (7,)).double().eval()(weight)
    assert coded.numbers().tolist() == [1, -1, 0.5, 0.5, -0.5, 0, 0]
    assert float(coded.scales[0]) == 0.5


@given(st.lists(st.integers(-96, 96).map(lambda n: n / 32), min_size=1, max_size=10), st.integers(3, 5))
def test_the_levels_are_those_of_the_equations_of_inq(row, bits):
    weight = d(*row)
    ours = PowerOfTwoWeights(bits, (len(row),)).double().eval()(weight).numbers().tolist()
    largest = max(map(abs, row))
    top = int(np.floor(np.log2(4 * largest / 3))) if largest else 0
    levels = [0.0, *(2.0**p for p in range(top + 1 - 2 ** (bits - 1) // 2, top + 1))]
    expected = []
    for w in row:
        level = 0.0
        for a, b in pairwise(levels):
            if (a + b) / 2 <= abs(w) < 3 * b / 2:
                level = b
        expected.append(level * np.sign(w))
    assert ours == expected


def test_the_largest_weights_are_fixed_first_and_held():
    quantizer = PowerOfTwoWeights(3, (1, 4)).double().train()
    weight = d(0.9, -0.3, 0.1, -0.6)[None]
    quantizer.fix(weight, 0.5)
    assert weight.tolist() == [[1, -0.3, 0.1, -0.5]]
    weight += 0.25
    quantizer.hold(weight)
    assert weight[0].tolist() == pytest.approx([1, -0.05, 0.35, -0.5])
    assert quantizer(weight).numbers()[0].tolist() == pytest.approx([1, -0.05, 0.35, -0.5])
    assert quantizer.eval()(weight).numbers().tolist() == [[1, 0, 0.5, -0.5]]


def test_the_exponents_stay_those_of_the_weights_that_were_there_at_first():
    quantizer = PowerOfTwoWeights(3, (1, 2)).double()
    weight = d(1.0, 0.1)[None]
    quantizer.fix(weight, 0.5)
    weight[0, 1] = 8.0
    assert quantizer.eval()(weight).numbers().tolist() == [[1, 1]]


def test_after_its_training_all_weights_of_inq_are_their_levels():
    method = find_method("inq:bits_w=3")
    net = train(method, network_of(method), n_steps=4)
    layers = layers_of(net, PowerOfTwoWeights)
    assert layers
    for layer in layers:
        assert torch.equal(layer.weight, layer.coded().numbers())


def test_each_quarter_of_the_training_fixes_a_larger_share():
    method = find_method("inq")
    net = network_of(method)
    shares = []
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        method.before_step(net, progress)
        held = torch.cat(
            [~torch.isnan(layer.weight_quantizer.held).flatten() for layer in layers_of(net, PowerOfTwoWeights)]
        )
        shares.append(float(held.double().mean()))
    assert shares == pytest.approx([0.5, 0.75, 0.875, 1, 1], abs=0.01)


# --- WRPN


def test_clipped_weights_are_whole_numbers_of_steps():
    coded = ClippedWeights(3)(d(-2, -0.5, 0.1, 0.2, 0.6))
    assert coded.codes[0].tolist() == [-3, -2, 0, 1, 2]
    assert float(coded.scales[0]) == pytest.approx(1 / 3)
    assert gradient(lambda w: ClippedWeights(3)(w).numbers(), d(-2, -1, 0.1, 1.1)).tolist() == pytest.approx(
        [0, 1, 1, 0]
    )


def test_activations_of_wrpn_end_at_1():
    activation = find_method("wrpn:bits_a=2").activation(1)
    assert activation(torch.tensor([-1.0, 0.2, 0.9, 5.0])).tolist() == pytest.approx([0, 1 / 3, 1, 1])


# --- HORQ


def test_horq_takes_as_many_residual_signs_as_its_order():
    activation = find_method("horq:order=3").activation(1)
    assert isinstance(activation, FoldableActivation)
    assert (activation.kind, activation.average) == ("gf3", "eval_only")
    method = find_method("horq:order=3")
    graph = capture(train(method, network_of(method), n_steps=1), example())
    inner = [op for op in graph.ops if isinstance(op.product, Product)][1:-1]
    assert {graph.tensors[op.input].format.n_passes for op in inner} == {3}


# --- TSQ


@given(st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=1, max_size=7))
def test_no_other_ternary_weights_are_nearer(row):
    found = TwoStepWeights().eval()(d(*row)[None]).numbers()[0].numpy()
    ours = float(((np.array(row) - found) ** 2).sum())
    for kept in {abs(w) for w in row}:
        mask = np.abs(row) >= kept
        scale = np.abs(row)[mask].mean()
        assert ours <= float(((np.array(row) - scale * np.sign(row) * mask) ** 2).sum()) + 1e-9


def test_ternary_weights_by_hand():
    coded = TwoStepWeights().eval()(d(4, -3, 1, 0, 0.5, 0.5, -0.5, 0.5).reshape(2, 4))
    assert coded.numbers().tolist() == [[3.5, -3.5, 0, 0], [0.5, 0.5, -0.5, 0.5]]


def test_weights_of_tsq_stay_real_in_the_first_step():
    method = find_method("tsq")
    net = network_of(method)
    (layer, *_) = layers_of(net, TwoStepWeights)
    method.before_step(net, 0.4)
    torch.testing.assert_close(layer.coded().numbers(), layer.weight, rtol=1e-12, atol=0)
    method.before_step(net, 0.5)
    assert set(layer.coded().codes[0].flatten().tolist()) <= {-1, 0, 1}
    assert isinstance(method.activation(1), HalfWaveActivation)


# --- BNN+


@given(st.floats(-3, 3), st.sampled_from([1.0, 5.0]))
def test_the_slope_is_the_derivative_of_the_swish_sign(x, beta):
    def swish_sign(x):
        sigma = 1 / (1 + np.exp(-beta * x))
        return 2 * sigma * (1 + beta * x * (1 - sigma)) - 1

    step = 1e-5
    difference = (swish_sign(x + step) - swish_sign(x - step)) / (2 * step)
    assert float(swish_slope(d(x), beta)) == pytest.approx(difference, abs=1e-6)


def test_the_slope_ends_at_0():
    assert float(swish_slope(d(1e6), 5.0)) == pytest.approx(0, abs=1e-12)


def test_signs_of_bnn_plus_have_that_slope():
    x = d(-0.5, 0, 0.2)
    assert SwishSignActivation(5.0)(x).tolist() == [-1, 1, 1]
    assert gradient(SwishSignActivation(5.0), x).tolist() == swish_slope(x, 5.0).tolist()
    coded = SwishSignWeights(5.0)(x[None])
    assert coded.numbers()[0].tolist() == pytest.approx([-0.7 / 3, 0.7 / 3, 0.7 / 3])
    passed = gradient(lambda w: SwishSignWeights(5.0)(w).numbers(), x[None])
    torch.testing.assert_close(passed[0], 0.7 / 3 * swish_slope(x, 5.0))


def test_the_penalty_of_bnn_plus_is_how_far_weights_are_from_their_scale():
    method = find_method("bnn-plus:penalty=0.5")
    net = network_of(method).eval()
    images, labels = example(), torch.zeros(4, dtype=torch.int64)
    outputs = net(images)
    far = 0.0
    for layer in layers_of(net, SwishSignWeights):
        sizes = layer.weight.detach().abs().flatten(1)
        far += float((sizes - sizes.mean(dim=1, keepdim=True)).abs().sum())
    plain = Method.loss(method, net, images, outputs, labels, None)
    assert (method.loss(net, images, outputs, labels, None) - plain).item() == pytest.approx(0.5 * far)


# --- DSQ


def test_soft_weights_are_odd_multiples_of_a_share_of_the_limit():
    quantizer = SoftWeights(2).double()
    with torch.no_grad():
        quantizer.limit.fill_(1.5)
    coded = quantizer(d(-9, -1.1, -0.9, -0.1, 0, 0.9, 1.1))
    assert coded.numbers().tolist() == [-1.5, -1.5, -0.5, -0.5, 0.5, 0.5, 1.5]


def test_soft_activations_are_the_next_of_an_even_grid():
    activation = SoftActivation(2).double()
    with torch.no_grad():
        activation.limit.fill_(3.0)
    assert activation(d(-1, 0.4, 0.5, 1.4, 2.6, 9)).tolist() == [0, 0, 1, 1, 3, 3]
    assert activation.imc_quantizer().thresholds.tolist() == [[0.5, 1.5, 2.5]]


def test_the_soft_staircase_meets_its_levels_and_has_the_slope_of_a_tanh():
    low, high, alpha = d(-1)[0], d(2)[0], d(0.25)[0]
    assert soft_steps(d(-2, -1, 0, 1, 2, 3), low, high, alpha, 3).tolist() == pytest.approx([-1, -1, 0, 1, 2, 2])
    x = d(-0.7, 0.5, 1.9)
    k = np.log(2 / 0.25 - 1)
    middles = np.array([-0.5, 0.5, 1.5])
    expected = 0.5 * k / (1 - 0.25) * (1 - np.tanh(k * (x.numpy() - middles)) ** 2)
    assert gradient(lambda x: soft_steps(x, low, high, alpha, 3), x).tolist() == pytest.approx(expected.tolist())


def test_the_gradients_of_dsq_are_those_of_its_soft_staircase():
    values = [value.requires_grad_() for value in (d(-0.7, 0.5, 0.9, 2.5), d(0.1)[0], d(1.9)[0], d(0.3)[0])]
    assert torch.autograd.gradcheck(lambda *given: soft_steps(*given, 3), values)
    activation = SoftActivation(2).double()
    x = d(-0.2, 0.3, 1.1, 2.5)
    soft = gradient(lambda x: soft_steps(x, d(0)[0], d(2)[0], activation.alpha.detach(), 3), x)
    assert gradient(activation, x).tolist() == pytest.approx(soft.tolist())
    quantizer = SoftWeights(2).double()
    soft = gradient(lambda w: soft_steps(w, d(-1)[0], d(1)[0], quantizer.alpha.detach(), 3), x)
    assert gradient(lambda w: quantizer(w).numbers(), x).tolist() == pytest.approx(soft.tolist())


def test_the_limits_of_dsq_begin_at_the_largest_weight_and_stay_above_0():
    method = find_method("dsq")
    net = network_of(method)
    method.initialise(net, example())
    for layer in layers_of(net, SoftWeights):
        assert layer.weight_quantizer.limit.item() == layer.weight.abs().max().item()
        with torch.no_grad():
            layer.weight_quantizer.limit.fill_(-1)
            layer.weight_quantizer.alpha.fill_(2)
    method.after_step(net)
    assert {q.weight_quantizer.limit.item() for q in layers_of(net, SoftWeights)} == {1e-3}
    assert {q.weight_quantizer.alpha.item() for q in layers_of(net, SoftWeights)} == {0.499}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inq:bits_w=2", "bits: must be a whole number from 3 to 6, got 2"),
        ("inq:bits_a=0", "bits: must be a whole number from 1 to 16, got 0"),
        ("wrpn:bits_w=1", "bits: must be a whole number from 2 to 16, got 1"),
        ("horq:order=0", "order: must be a whole number from 1 to 8, got 0"),
        ("bnn-plus:beta=0", "beta: must be finite and above 0, got 0"),
        ("dsq:bits_a=5", "bits: must be a whole number from 1 to 4, got 5"),
        ("bnn-plus:penalty=-1", "penalty: must be finite and above 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        find_method(text)
