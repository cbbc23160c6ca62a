"""Quantizers of the ternary methods: hand-computed values, level sets, gradients as published, options."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import example, network_of
from torch import nn

from imcsim.errors import ConfigError, GraphError
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear, weights_and_quantizers
from imcsim.quant.limits import Limits
from imcsim.quant.methods import find_method
from imcsim.quant.methods.gxnor import DiscreteStateTransition, DiscreteWeights, EventActivation
from imcsim.quant.methods.ternary import (
    AdaptiveWeights,
    BestTernaryWeights,
    CaffeTernaryWeights,
    EednWeights,
    FatnnActivation,
    FatnnWeights,
    ReparameterizedActivation,
    ReparameterizedWeights,
    ResidualTernaryWeights,
    RunningTernaryActivation,
    SpikeActivation,
)
from imcsim.quant.methods.tnn import StochasticFire, StudentWeights, TernaryBlock, TernaryNeurons, limits_of
from imcsim.quant.methods.xnor import ScaledSigns
from imcsim.quant.search import Neuron, agreeing_neuron, best_ternary

finite = st.floats(-4, 4, width=32)
rows = st.lists(finite, min_size=1, max_size=9)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def slopes(module, *at):
    """The derivative of *module* at some numbers."""
    x = tensor(*at).requires_grad_()
    module(x).sum().backward()
    return x.grad.tolist()


def codes_of_step(step, x):
    (thresholds,) = step.thresholds
    codes = step.codes[(np.asarray(x, dtype=np.float64)[:, None] >= thresholds).sum(axis=1)]
    return step.format.scale * (codes - step.format.zero)


# --- limits


def activations():
    half, full, rtn, tbn, scaled = (
        FatnnActivation(half_range=True),
        FatnnActivation(),
        ReparameterizedActivation(),
        RunningTernaryActivation(0.5),
        RunningTernaryActivation(0.4, scaled=True),
    )
    with torch.no_grad():
        half.alpha.copy_(torch.tensor([0.7, 1.3]))
        full.alpha.copy_(torch.tensor([0.7, 1.3]))
        rtn.gamma.fill_(0.75)
        rtn.beta.fill_(0.375)
        tbn.mean.fill_(0.77)
        scaled.mean.fill_(0.77)
    return [half, full, rtn, tbn, scaled, EventActivation(), SpikeActivation(), StochasticFire()]


@pytest.mark.parametrize("module", activations(), ids=lambda module: repr(module))
def test_an_activation_and_its_thresholds_agree_for_float32_numbers_beside_them(module):
    module.eval()
    step = module.imc_quantizer()
    near = np.float32(step.thresholds.ravel())
    x = np.concatenate(
        [np.nextafter(near, np.float32(way)) for way in (-np.inf, np.inf)] + [near, -near, np.float32([0, -3, 3])]
    )
    with torch.no_grad():
        ours = module(torch.from_numpy(x)).double().numpy()
    np.testing.assert_allclose(ours, codes_of_step(step, x), rtol=1e-6)
    assert len(set(ours)) == len(step.codes)


def test_limits_fire_at_their_ends_when_told_to():
    x = tensor(-1, -0.5, 0.5, 1)
    assert Limits(-0.5, 0.5).codes(x).tolist() == [-1, 0, 0, 1]
    assert Limits(-0.5, 0.5, low_fires=True).codes(x).tolist() == [-1, -1, 0, 1]
    assert Limits(-0.5, 0.5, high_fires=True).codes(x).tolist() == [-1, 0, 1, 1]


# --- searches


def test_the_best_ternary_weights_of_a_row_by_hand():
    codes, scale = best_ternary(tensor(4, -3, 0.5, 0)[None])  # 16/1, 49/2 = 24.5, 56.25/3 = 18.75
    assert codes.tolist() == [[1, -1, 0, 0]]
    assert scale.tolist() == [3.5]


def test_a_row_of_zeros_stays_zero():
    codes, scale = best_ternary(torch.zeros(2, 3))
    assert not codes.any()
    assert not scale.any()


@given(rows)
@settings(max_examples=30, deadline=None)
def test_no_pair_of_thresholds_has_a_smaller_error(row):
    w = np.array(row, dtype=np.float64)
    codes, scale = best_ternary(torch.as_tensor(w)[None])
    ours = np.sum((w - scale.item() * codes.numpy()[0]) ** 2)
    for plus in [np.inf, *w[w > 0]]:
        for minus in [-np.inf, *w[w < 0]]:  # thresholds of their own for each sign
            t = (w >= plus).astype(float) - (w <= minus)
            a = np.abs(w[t != 0]).mean() if t.any() else 0.0
            assert ours <= np.sum((w - a * t) ** 2) + 1e-9


@given(
    st.lists(st.sampled_from([-1.0, -0.75, -0.25, 0.0, 0.5, 1.0]), min_size=2, max_size=5),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2),
)
@settings(max_examples=15, deadline=None)
def test_the_exhaustive_search_finds_the_greatest_agreement_of_all_neurons(row, seed, n_windows):
    rng = np.random.default_rng(seed)
    weights, inputs, k = np.array(row), rng.integers(-1, 2, (7, n_windows, len(row))), len(row)
    chances = rng.dirichlet(np.ones(3), 7)
    agreements = {}
    for plus in [np.inf, *weights[weights > 0]]:
        for minus in [-np.inf, *weights[weights < 0]]:
            t = (weights >= plus).astype(int) - (weights <= minus)
            sums = (inputs @ t).max(axis=1)
            for low in range(-k - 1, k + 2):
                for high in range(low - 1, k + 2):
                    out = np.where(sums > high, 1, np.where(sums < low, -1, 0))
                    for sign in (1, -1):
                        key = (int((t > 0).sum()), int((t < 0).sum()), low, high, sign < 0)
                        agreements[key] = chances[np.arange(7), sign * out + 1].mean()
    found = agreeing_neuron(weights, inputs, chances, is_exhaustive=True)
    assert found.agreement == pytest.approx(max(agreements.values()))
    key = (found.n_plus, found.n_minus, found.low, found.high, found.is_inverted)
    assert agreements[key] == pytest.approx(found.agreement)


def test_weights_that_are_alike_get_one_code():
    inputs = np.array([[[1, -1, 0]], [[-1, 1, 0]], [[0, 0, 1]]])
    found = agreeing_neuron(np.array([1.0, 1.0, 0.5]), inputs, np.eye(3)[[2, 0, 1]], is_exhaustive=True)
    assert found.n_plus in (0, 2, 3)


def test_the_search_by_thirds_finds_a_ternary_neuron_again():
    rng = np.random.default_rng(1)
    weights = np.linspace(-1, 1, 21)
    inputs = rng.integers(-1, 2, (400, 1, 21))
    t = (weights > 0.35).astype(int) - (weights < -0.25)
    sums = (inputs @ t)[:, 0]
    out = np.where(sums > 1, 1, np.where(sums < -2, -1, 0))
    found = agreeing_neuron(weights, inputs, np.eye(3)[out + 1])
    assert found == Neuron(int((t > 0).sum()), int((t < 0).sum()), -2, 1, False, 1.0)


def test_a_neuron_whose_teacher_falls_as_its_sum_rises_is_inverted():
    inputs = np.array([[[-1]], [[0]], [[1]]])
    found = agreeing_neuron(np.array([0.5]), inputs, np.eye(3)[[2, 1, 0]])
    assert (found.is_inverted, found.n_plus, found.low, found.high) == (True, 1, 0, 0)


# --- A4 Eedn


def test_hidden_weights_from_a_half_up_count():
    coded = EednWeights()(tensor(-0.6, -0.5, -0.4, 0.49, 0.5))
    assert coded.codes[0].tolist() == [-1, -1, 0, 0, 1]
    assert coded.scales[0].item() == 1


def test_a_code_stays_until_its_weight_is_clear_of_the_threshold():
    quantizer = EednWeights(0.1)
    seen = [quantizer(tensor(w)).codes[0].item() for w in (0.3, 0.55, 0.6, 0.45, 0.4, -0.55, -0.7, -0.41)]
    assert seen == [0, 0, 1, 1, 0, 0, -1, -1]


def test_evaluation_keeps_what_training_held_and_a_saved_state_has_it():
    quantizer = EednWeights()
    quantizer(tensor(0.3))
    fresh = EednWeights()
    fresh.load_state_dict(quantizer.state_dict())
    assert fresh.eval()(tensor(0.55)).codes[0].item() == 0
    assert EednWeights().eval()(tensor(0.55)).codes[0].item() == 1


def test_hidden_weights_begin_stretched_over_their_range():
    method = find_method("eedn")
    net = nn.Sequential(method.linear(4, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.01, -0.02, 0.03, -0.06]]))  # mean 0.03, 0.7 of it 0.021
    method.initialise(net, example())
    np.testing.assert_allclose(net[0].weight.detach(), [[0.5 / 2.1, -1 / 2.1, 1.5 / 2.1, -1]], rtol=1e-6)


def test_a_spike_has_a_triangle_as_its_derivative():
    assert slopes(SpikeActivation(), -1.5, -0.25, 0, 0.5, 2) == [0, 0.75, 1, 0.5, 0]
    assert SpikeActivation()(tensor(-0.1, 0.0, 2.0)).tolist() == [0, 1, 1]


def test_groups_keep_the_inputs_of_a_filter_within_the_limit():
    method = find_method("eedn:most_inputs=128")
    assert [method.conv(64, 32, k).groups for k in (1, 3)] == [1, 8]  # 9 * 64 / 8 = 72; of 4 groups 144


def test_channels_without_a_common_factor_cannot_be_grouped():
    with pytest.raises(ConfigError, match=r"eedn: most_inputs must allow some groups of 16 to 9 channels, got 64"):
        find_method("eedn:most_inputs=64").conv(16, 9, 3)


# --- A5 TWN


def test_the_caffe_code_shrinks_the_scale_by_the_epsilon():
    coded = CaffeTernaryWeights(0.5)(tensor(1, -0.25, 0.75, -0.5, 0, -2))  # delta 0.525; kept 1, 0.75, 2
    assert coded.codes[0].tolist() == [1, 0, 1, 0, 0, -1]
    assert coded.scales[0].item() == pytest.approx(3.75 / 3.5)


def test_the_optimum_per_output_is_that_of_its_own_row():
    coded = BestTernaryWeights(per_channel=True)(torch.stack([tensor(4, -3, 0.5), tensor(0, 0, 1)]))
    assert coded.codes[0].tolist() == [[1, -1, 0], [0, 0, 1]]
    assert coded.scales[0].tolist() == [[3.5], [1.0]]


def test_the_optimum_is_no_worse_than_seven_tenths():
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(1)).double()
    error = [
        float((kind.weights()(weight).numbers() - weight).square().sum())
        for kind in (find_method("twn"), find_method("twn:optimum=true"))
    ]
    assert error[1] < error[0]


# --- B1 ABTQ


def test_beta_chooses_between_two_levels_and_three():
    quantizer, weight = AdaptiveWeights(), tensor(1, -0.25, 0.75, -2)
    with torch.no_grad():
        quantizer.beta.fill_(1.3)
    binary = quantizer(weight)
    assert (binary.codes[0].tolist(), binary.scales[0].item()) == ([1, -1, 1, -1], 1.0)
    with torch.no_grad():
        quantizer.beta.fill_(1.0)
    ternary = quantizer(weight)  # delta 0.7
    assert (ternary.codes[0].tolist(), ternary.scales[0].item()) == ([1, 0, 1, -1], 1.25)


def test_a_fixed_choice_stays_when_beta_moves():
    quantizer = AdaptiveWeights()
    with torch.no_grad():
        quantizer.beta.fill_(1.3)
    quantizer.fix()
    with torch.no_grad():
        quantizer.beta.fill_(1.0)
    assert quantizer.is_binary
    assert quantizer.codec().n_planes == 1


def test_the_regulariser_is_the_lower_of_two_distances():
    quantizer, weight = AdaptiveWeights(), tensor(0.1, -0.5, 1.0, 0.4)
    with torch.no_grad():
        quantizer.beta.fill_(1.3)  # mu = 0.5
    parts = [min(abs(abs(w) - 0.5), math.tan(1.3) * abs(w)) for w in (0.1, -0.5, 1.0, 0.4)]
    assert parts[0] == pytest.approx(0.1 * math.tan(1.3))
    assert quantizer.regulariser(weight).item() == pytest.approx(sum(parts) / 4)


def test_the_penalty_moves_beta_towards_two_levels():
    method = find_method("abtq:strength=0,preference=0.5")
    net = network_of(method, widths=(2,))
    images, labels = example(2), torch.tensor([0, 1])
    method.loss(net, images, net(images), labels, None).backward()
    ((_, quantizer),) = weights_and_quantizers(net, AdaptiveWeights)
    beta = quantizer.beta
    assert beta.grad.item() == pytest.approx(-0.5 / math.sin(beta.item()) ** 2)


def test_beta_stays_within_its_range():
    method = find_method("abtq")
    net = network_of(method, widths=(2,))
    ((_, quantizer),) = weights_and_quantizers(net, AdaptiveWeights)
    for value, least, most in ((0.1, math.pi / 4, 0.8), (2.0, 1.5, math.pi / 2)):
        with torch.no_grad():
            quantizer.beta.fill_(value)
        method.after_step(net)
        assert least < quantizer.beta.item() < most


def test_deployment_fixes_every_layer():
    method = find_method("abtq")
    net = network_of(method)
    method.deploy(net, example())
    assert all(int(quantizer.choice) in (1, 2) for _, quantizer in weights_and_quantizers(net, AdaptiveWeights))


# --- T1 TRQ


def residual(alphas):
    quantizer = ResidualTernaryWeights(len(alphas))
    with torch.no_grad():
        quantizer.alpha.copy_(torch.tensor(alphas))
        quantizer.is_ready.fill_(True)
    return quantizer.double()


def test_stem_and_residual_are_a_threshold_at_alpha_and_levels_of_twice_it():
    coded = residual([0.5])(tensor(-2, -0.6, -0.4, 0.1, 0.55, 3))
    assert coded.numbers().tolist() == [-1, -1, 0, 0, 1, 1]


@given(st.lists(finite, min_size=1, max_size=8), st.floats(0.125, 2, width=32), st.floats(0.0625, 0.5, width=32))
@settings(max_examples=30, deadline=None)
def test_the_recursion_adds_stem_and_residual_of_what_is_left(row, first, second):
    def sign(x):
        return np.where(x >= 0, 1.0, -1.0)

    w = np.array(row, dtype=np.float64)
    total = np.zeros_like(w)
    for alpha in (first, second):
        stem = alpha * sign(w - total)
        total = total + stem + alpha * sign(w - total - stem)
    np.testing.assert_allclose(residual([first, second])(tensor(*row)).numbers().detach().numpy(), total, atol=1e-12)


def test_alpha_gets_the_gradient_of_the_signs_and_the_weights_that_of_the_window():
    quantizer, weight = residual([0.5, 0.125]), tensor(-2, -0.6, 0.1, 0.9).requires_grad_()
    upstream = tensor(1, 2, 3, 4)
    coded = quantizer(weight)
    (coded.numbers() * upstream).sum().backward()
    assert quantizer.alpha.grad.tolist() == [2 * float((codes.detach() * upstream).sum()) for codes in coded.codes]
    np.testing.assert_allclose(weight.grad, [0, 2, 3, 4])


def test_alphas_begin_with_seven_tenths_of_what_is_left():
    quantizer = ResidualTernaryWeights(2).double()
    quantizer(tensor(1, -1, 0.5, -0.5))  # alpha 0.525, levels 0 and 1.05, left 0.05, 0.05, 0.5, 0.5
    np.testing.assert_allclose(quantizer.alpha.detach(), [0.525, 0.7 * 0.275])


# --- T2 FATNN


def fatnn(module, first, second):
    with torch.no_grad():
        module.alpha.copy_(torch.tensor([first, second]))
        if hasattr(module, "is_ready"):
            module.is_ready.fill_(True)
    return module.double()


slope = st.floats(0.25, 4, width=32)


@given(rows, slope, slope, st.booleans())
@settings(max_examples=40, deadline=None)
def test_fatnn_rounds_two_clipped_slopes(row, first, second, is_half):
    x = np.array(row, dtype=np.float64)
    if is_half:
        soft = np.clip(first * x, 0, 1), np.clip(second * (x - 1 / first), 0, 1)
    else:
        soft = np.clip(first * x, -1, 0), np.clip(second * x, 0, 1)
    is_clear = np.all([np.abs(np.abs(part) - 0.5) > 1e-6 for part in soft], axis=0)  # thresholds are float32
    with torch.no_grad():
        ours = fatnn(FatnnActivation(half_range=is_half), first, second)(tensor(*row)).numpy()
    assert np.array_equal(ours[is_clear], (np.round(soft[0]) + np.round(soft[1]))[is_clear])
    assert set(ours) <= ({0, 1, 2} if is_half else {-1, 0, 1})


def test_fatnn_rounds_halves_to_even():
    assert FatnnActivation()(tensor(-0.5, 0.5)).tolist() == [0, 0]
    assert FatnnActivation(half_range=True)(tensor(0.5, 1.5)).tolist() == [0, 1]


def test_the_half_range_goes_to_tiles_as_ternary_codes_counted_from_minus_one():
    step = FatnnActivation(half_range=True).imc_quantizer()
    assert (step.format.kind, step.format.zero, step.format.zero_code) == ("ternary", -1.0, -1)
    np.testing.assert_allclose(step.thresholds, [[0.5, 1.5]])


@pytest.mark.parametrize("is_half", [False, True])
def test_fatnn_passes_the_gradients_of_the_clipped_slopes(is_half):
    module = fatnn(FatnnActivation(half_range=is_half), 0.8, 1.5)
    x, alpha = tensor(-2, -0.7, 0.3, 0.6, 1.4, 1.9).requires_grad_(), module.alpha
    module(x).sum().backward()

    def soft(x, a, b):
        if is_half:
            return np.clip(a * x, 0, 1) + np.clip(b * (x - 1 / a), 0, 1)
        return np.clip(a * x, -1, 0) + np.clip(b * x, 0, 1)

    at, h = x.detach().numpy(), 1e-6
    a, b = alpha.detach().tolist()
    np.testing.assert_allclose(x.grad, (soft(at + h, a, b) - soft(at - h, a, b)) / (2 * h), atol=1e-6)
    by_first = (soft(at, a + h, b) - soft(at, a - h, b)).sum() / (2 * h)
    by_second = (soft(at, a, b + h) - soft(at, a, b - h)).sum() / (2 * h)
    np.testing.assert_allclose(alpha.grad, [by_first, by_second], atol=1e-6)


def test_weights_are_standardised_per_output_before_their_thresholds():
    weight = torch.stack([tensor(1, 2, 3, 6), tensor(-10, -10, -10, 30)])
    codes = fatnn(FatnnWeights(), 1.0, 1.0)(weight).codes[0]
    assert codes.tolist() == [[-1, -1, 0, 1], [-1, -1, -1, 1]]  # (w - 3) / sqrt(3.5), (w - 0) / sqrt(300)


def test_weights_that_are_all_alike_have_finite_gradients():
    weight = torch.full((2, 3), 0.5, dtype=torch.float64, requires_grad=True)
    for quantizer in (FatnnWeights(), ReparameterizedWeights()):
        quantizer.double()(weight).numbers().sum().backward()
        assert torch.isfinite(weight.grad).all()


def test_the_closed_gamma_is_the_least_squares_scale():
    quantizer = fatnn(FatnnWeights(standardise=False, gamma="closed", per_channel=True), 1.0, 1.0)
    coded = quantizer(torch.stack([tensor(1, -2, 0.1), tensor(0, 0.1, 4)]))
    assert coded.scales[0].tolist() == [[1.5], [4.0]]


def test_the_learned_gamma_is_a_parameter_and_none_is_one():
    learned, none = FatnnWeights(gamma="learned").double(), FatnnWeights().double()
    assert learned(torch.eye(3).double()).scales[0] is learned.gamma
    assert none(torch.eye(3).double()).scales[0].item() == 1


# --- T3 RTN


def test_reparameterized_weights_have_a_scale_and_an_offset_of_their_own():
    quantizer = ReparameterizedWeights().double()
    coded = quantizer(tensor(1, 2, 3, 6))  # mean 3, deviations -2 -1 0 3, std 1.87: codes -1 -1 0 1
    assert coded.codes[0].tolist() == [-1, -1, 0, 1]
    np.testing.assert_allclose(coded.numbers().detach(), [1, 1, 3, 5])  # gamma (2 + 1 + 3) / 3, beta 3


def test_gamma_and_beta_of_weights_get_their_gradients():
    quantizer, upstream = ReparameterizedWeights().double(), tensor(1, 2, 4, 8)
    (quantizer(tensor(1, 2, 3, 6)).numbers() * upstream).sum().backward()
    assert (quantizer.gamma.grad.item(), quantizer.beta.grad.item()) == (-1 - 2 + 8, 15)


def test_a_reparameterized_activation_has_the_format_of_its_numbers():
    module = ReparameterizedActivation().double()
    with torch.no_grad():
        module.gamma.fill_(0.5)
        module.beta.fill_(0.125)
    x = tensor(-2, -0.5, 0.5, 0.6).requires_grad_()
    y = module(x)
    assert y.tolist() == [-0.375, 0.125, 0.125, 0.625]
    form = module.imc_quantizer().format
    assert [form.scale * (code - form.zero) for code in (-1, 0, 1)] == [-0.375, 0.125, 0.625]
    y.sum().backward()
    assert x.grad.tolist() == [0, 0.5, 0.5, 0.5]
    assert (module.gamma.grad.item(), module.beta.grad.item()) == (0, 4)


# --- T4 GXNOR


def test_events_fire_at_one_and_pass_gradients_in_windows_around_it():
    module = EventActivation()
    assert module(tensor(-1, -0.99, 0, 0.99, 1)).tolist() == [-1, 0, 0, 0, 1]
    assert slopes(module, -1.6, -1.5, -0.5, 0, 0.4, 0.75, 1.5, 1.6) == [0, 1, 1, 0, 0, 1, 1, 0]


def test_the_published_sum_of_hard_sigmoids_fires_alike():
    x = np.linspace(-2, 2, 401)

    def sigma(x):
        return np.clip((x + 1) / 2, 0, 1)

    soft = sigma(2 * (x - 1)) + sigma(2 * (x + 1)) - 1
    away = np.sign(soft) * np.floor(np.abs(soft) + 0.5)
    is_clear = np.abs(np.abs(soft) - 0.5) > 1e-9
    assert np.array_equal(EventActivation()(torch.as_tensor(x)).numpy()[is_clear], away[is_clear])


@pytest.mark.parametrize(("n", "states"), [(1, [-1, 0, 1]), (2, [-1, -0.5, 0, 0.5, 1])])
def test_weights_are_states(n, states):
    quantizer = DiscreteWeights(n)
    coded = quantizer(torch.linspace(-1.2, 1.2, 101).double())
    assert sorted(set(coded.numbers().tolist())) == states
    assert quantizer.codec().n_planes == n


def linear(states):
    layer = QuantizedLinear(len(states), 1, bias=False, weight_quantizer=DiscreteWeights())
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([states]))
    return layer


def test_transitions_move_whole_states_and_rests_by_chance():
    optimizer = DiscreteStateTransition(linear([0.0]), 0.1, generator=torch.Generator().manual_seed(0))
    n = 20_000
    new = optimizer.transition(torch.full((n,), -1.0), torch.full((n,), 1.25), 1.0)
    assert set(new.tolist()) == {0.0, 1.0}
    chance = math.tanh(3 * 0.25)
    assert new.mean().item() == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / n))


def test_no_transition_leaves_the_range_and_none_happens_without_a_change():
    optimizer = DiscreteStateTransition(linear([0.0]), 0.1)
    assert optimizer.transition(tensor(1, -1, 0), tensor(3, -0.9, 0), 1.0).tolist() == [1, -1, 0]


def test_weights_are_states_after_every_step():
    layer = linear([1.0, 0.0, -1.0, 0.0])
    optimizer = DiscreteStateTransition(layer, 0.3, generator=torch.Generator().manual_seed(0))
    seen = set()
    for _ in range(20):
        optimizer.zero_grad()
        (layer(torch.ones(1, 4)) - 3).square().sum().backward()
        optimizer.step()
        seen |= set(layer.weight.flatten().tolist())
        assert set(layer.weight.flatten().tolist()) <= {-1, 0, 1}
    assert layer.weight.sum().item() >= 2
    assert 1.0 in seen


def test_initial_states_are_draws_rounded():
    method = find_method("gxnor")
    net = network_of(method)
    method.initialise(net, example())
    states = torch.cat([weight.flatten() for weight, _ in weights_and_quantizers(net, DiscreteWeights)])
    assert set(states.tolist()) == {-1, 0, 1}
    assert (states == 0).double().mean().item() == pytest.approx(0.5, abs=0.1)


# --- T5 TBN


def test_the_sign_of_a_zero_weight_is_zero():
    coded = ScaledSigns(sign_zero=0)(torch.stack([tensor(2, -1, 0), tensor(3, 3, -3)]))
    assert coded.codes[0].tolist() == [[1, -1, 0], [1, 1, -1]]
    assert coded.scales[0].tolist() == [[1.0], [3.0]]


def test_binary_weights_get_the_gradient_of_scale_and_sign():
    weight, upstream = tensor(0.5, -2, 0.25, -0.75)[None].requires_grad_(), tensor(1, 2, 3, 4)[None]
    (ScaledSigns(sign_zero=0)(weight).numbers() * upstream).sum().backward()
    w, g = weight.detach().numpy(), upstream.numpy()
    alpha = np.abs(w).mean()
    expected = np.sign(w) * (g * np.sign(w)).sum() / 4 + g * alpha * (np.abs(w) <= 1)
    np.testing.assert_allclose(weight.grad, expected)


def test_the_threshold_is_a_share_of_the_mean_and_its_ends_fire():
    module = RunningTernaryActivation(0.5)
    assert module(tensor(-0.5, 0.25, 0.5, 2.75)).tolist() == [-1, 0, 1, 1]  # mean 1
    assert module(tensor(-8, 0.5, 3.5, 0)).tolist() == [-1, 0, 1, 0]  # mean 3
    assert module.eval().threshold() == pytest.approx(0.5 * (0.9 * 1 + 0.1 * 3))


def test_the_second_version_counts_codes_for_twice_the_threshold():
    module = RunningTernaryActivation(0.5, scaled=True)
    assert module(tensor(-4, 0.5, 1.5)).tolist() == [-2, 0, 2]  # mean 2
    assert module.eval().imc_quantizer().format.scale == 2.0


def test_evaluation_leaves_the_running_mean():
    module = RunningTernaryActivation().eval()
    module(tensor(5, 5))
    assert module.mean.item() == 1


# --- T6 TNN


def test_a_teacher_fires_at_random_with_the_chances_of_its_sum():
    torch.manual_seed(0)
    fired = StochasticFire()(torch.full((20_000,), -0.3))
    assert set(fired.tolist()) == {-1, 0}
    assert fired.mean().item() == pytest.approx(-0.3, abs=0.015)
    assert StochasticFire()(tensor(-7, -1, 0, 1, 7)).tolist() == [-1, -1, 0, 1, 1]


def test_a_teacher_in_evaluation_rounds_halves_away():
    assert StochasticFire().eval()(tensor(-0.5, -0.4, 0.4, 0.5, 3)).tolist() == [-1, 0, 0, 1, 1]


def neurons(low, high, is_inverted):
    module = TernaryNeurons(1).double()
    module.teach([Neuron(0, 0, low, high, is_inverted, 1.0)])
    return module


@pytest.mark.parametrize("is_inverted", [False, True])
@pytest.mark.parametrize(("low", "high"), [(-1, 2), (0, 0), (1, 0)])
def test_a_student_compares_its_sum_with_two_whole_numbers(low, high, is_inverted):
    sums = np.arange(-4, 5)
    wanted = np.where(sums > high, 1, np.where(sums < low, -1, 0)) * (-1 if is_inverted else 1)
    module = neurons(low, high, is_inverted)
    assert module(torch.as_tensor(sums).double().reshape(-1, 1, 1, 1)).flatten().tolist() == wanted.tolist()
    step = module.imc_quantizer()
    reached = (step.direction[0] * sums[:, None] >= step.thresholds[0]).sum(axis=1)
    assert step.codes[reached].tolist() == wanted.tolist()


def test_thresholds_of_weights_keep_as_many_as_were_found():
    weights = torch.stack([tensor(-3, 1, 2, -1), tensor(1, 2, 3, 4)])
    quantizer = StudentWeights()
    quantizer.teach(*limits_of(weights, [Neuron(1, 2, 0, 0, False, 1), Neuron(0, 0, 0, 0, False, 1)]))
    assert quantizer(weights).codes[0].tolist() == [[-1, 0, 1, -1], [0, 0, 0, 0]]


def test_a_student_is_what_its_saved_state_says():
    quantizer, fresh = StudentWeights(), StudentWeights()
    quantizer.teach(tensor(-0.5), tensor(0.25))
    fresh.load_state_dict(quantizer.state_dict())
    assert fresh(tensor(-0.5, 0.2, 0.3)[None]).codes[0].tolist() == [[-1, 0, 1]]


def test_a_teacher_cannot_go_to_tiles():
    layer = QuantizedConv2d(2, 2, 1, weight_quantizer=StudentWeights())
    with pytest.raises(GraphError, match="weights: must be a student's, got the real ones of its teacher"):
        layer.imc_product()
    with pytest.raises(GraphError, match="neurons: must be a student's, got those of its teacher"):
        TernaryNeurons(2).imc_quantizer()


@pytest.mark.parametrize("stride", [1, 2])
def test_the_windows_of_a_block_are_what_its_sums_are_made_of(stride):
    torch.manual_seed(0)
    block = find_method("tnn").block(3, 4, stride=stride, pool=2).double().eval()
    x = torch.randn(2, 3, 8, 8).double()
    sums = (block.windows(x) @ block.conv.weight.flatten(1).T).amax(dim=3).permute(0, 3, 1, 2)
    torch.testing.assert_close(sums, block.pool(block.conv(block.fire(x))))


def test_a_student_agrees_with_a_teacher_that_is_one():
    torch.manual_seed(0)
    block = find_method("tnn:search=exhaustive").block(2, 3, pool=2).double().eval()
    with torch.no_grad():
        block.conv.weight.copy_(torch.randint(-1, 2, block.conv.weight.shape))
        block.neurons.norm.weight.copy_(tensor(40, -40, 40))
        block.neurons.norm.bias.copy_(tensor(-60, 100, 20))
        x = torch.randn(40, 2, 6, 6).double()
        before = block(x)
        found = block.learn(x, 10_000, is_exhaustive=True)
        assert torch.equal(block(x), before)
    assert [neuron.agreement for neuron in found] == [1, 1, 1]
    assert {-1.0, 1.0} <= set(before.unique().tolist())


def test_deployment_leaves_whole_numbers_alone():
    method = find_method("tnn")
    net = network_of(method)
    net(example(8))
    method.deploy(net, example(8))
    assert net.training
    blocks = [module for module in net.modules() if isinstance(module, TernaryBlock)]
    assert [type(block.fire) for block in blocks] == [StochasticFire, nn.Identity]
    assert all(block.conv.weight_quantizer.is_student and block.neurons.is_student for block in blocks)


def test_a_convolution_without_a_block_becomes_ternary_by_rounding():
    method = find_method("tnn")
    net = nn.Sequential(method.conv_layer(1, 1, 1))
    with torch.no_grad():
        net[0][1].weight.fill_(-0.6)
    method.deploy(net, torch.zeros(1, 1, 2, 2))
    assert net[0][1].coded().codes[0].item() == -1


# --- options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eedn:hysteresis=0.7", "eedn: hysteresis must be from 0 to below 0.5, got 0.7"),
        ("eedn:most_inputs=-1", "eedn: most_inputs must be at least 0, got -1"),
        ("twn:optimum=true,epsilon=1e-6", "twn: epsilon must be 0 with optimum, got 1e-06"),
        ("twn:epsilon=2", "twn: epsilon must be above 0 and below 1, got 2.0"),
        ("trq:n_bases=0", "trq: n_bases must be from 1 to 8, got 0"),
        ("trq:activations=real", "trq: activations must be ternary or binary, got 'real'"),
        ("fatnn:gamma=some", "fatnn: gamma must be none, learned or closed, got 'some'"),
        ("fatnn:per_channel=true", "fatnn: per_channel must come with gamma=closed, got gamma=none"),
        ("gxnor:n=0", "gxnor: n must be a whole number from 1 to 6, got 0"),
        ("gxnor:nonlinearity=0", "gxnor: nonlinearity must be above 0, got 0.0"),
        ("tbn:delta=0", "tbn: delta must be above 0, got 0.0"),
        ("tbn:momentum=2", "tbn: momentum must be above 0 and up to 1, got 2.0"),
        ("tnn:search=none", "tnn: search must be log or exhaustive, got 'none'"),
        ("tnn:n_samples=0", "tnn: n_samples must be at least 1, got 0"),
    ],
)
def test_an_option_out_of_range_is_one_line(text, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        find_method(text).weights()


@pytest.mark.parametrize(
    ("text", "names"), [("trq", ["alpha"]), ("fatnn", ["alpha"]), ("rtn", ["gamma"])], ids=lambda value: str(value)
)
def test_learned_scales_stay_above_zero(text, names):
    method = find_method(text)
    net = network_of(method, widths=(2,))
    scales = [p for name, p in net.named_parameters() if name.rsplit(".", 1)[-1] in names]
    with torch.no_grad():
        for scale in scales:
            scale.fill_(-1.0)
    method.after_step(net)
    assert scales
    assert all((scale > 0).all() for scale in scales)
