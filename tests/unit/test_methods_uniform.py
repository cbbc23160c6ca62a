"""Even grids of k bits: each quantizer against numbers worked out by hand, its formula and its published gradient."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import check_on_tiles, network_of
from torch import nn

from imcsim.errors import ConfigError
from imcsim.graph import Quantize
from imcsim.quant.grids import LEAST_STEP, FixedGrid, codec_of, keep_positive, least_with_code
from imcsim.quant.methods import find_method, record_of
from imcsim.quant.methods.uniform import (
    AQD,
    LLSQ,
    LSQ,
    NICE,
    PACT,
    QIL,
    AQDWeights,
    ClampGrid,
    ClipGrid,
    DoReFa,
    DoReFaGradient,
    DoReFaWeights,
    FQConv,
    FQGrid,
    FQWeights,
    LevelNorm,
    LLSQGrid,
    LLSQWeights,
    LSQGrid,
    LSQWeights,
    NICEWeights,
    PACTGrid,
    QILGrid,
    QILWeights,
    UnitGrid,
    dyadic,
    fold_norms,
    next_power_of_two,
    short,
    simulated_gradient,
)
from imcsim.quant.networks import edge_activation


def t(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def size_of(module):
    return float(module.size.detach())


def sized(module, size):
    """*module* in double precision with its learned number set, as if training had begun."""
    module = module.double()
    with torch.no_grad():
        module.size.fill_(size)
    module.is_ready.fill_(True)
    return module


def gradients(quantizer, w, upstream):
    """Gradients to *w* and to `size` of ``sum upstream * weights``, the way the layer multiplies codes and scale."""
    coded = quantizer(w)
    (coded.codes[0] * coded.scales[0] * upstream).sum().backward()
    return w.grad, quantizer.size.grad


def same(found, *wanted):
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-12, atol=1e-12)


DRAWN = torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def draw(*shape, seed=4):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Grids


@given(code=st.integers(-7, 15), scale=st.floats(1e-6, 1e6))
def test_a_threshold_is_the_least_number_that_gets_its_code(code, scale):
    least = least_with_code(code, scale)
    assert np.rint(least / scale) >= code
    assert np.rint(np.nextafter(least, -np.inf) / scale) < code


@settings(max_examples=30)
@given(
    kind=st.sampled_from(["unsigned", "signed", "integer"]),
    bits=st.integers(2, 6),
    scale=st.floats(1e-3, 10),
    seed=st.integers(0, 99),
)
def test_the_graphs_step_gives_the_codes_of_the_module_at_and_beside_every_threshold(kind, bits, scale, seed):
    grid = FixedGrid(kind, bits, scale).eval()
    halves = (np.arange(grid.low - 1, grid.high + 2) + 0.5) * scale
    drawn = np.random.default_rng(seed).normal(0, grid.high * scale, 50)
    x = np.concatenate([halves, np.nextafter(halves, np.inf), np.nextafter(halves, -np.inf), drawn])
    step = grid.imc_quantizer()
    if isinstance(step, Quantize):
        codes = np.clip(np.rint(x / scale), step.format.low, step.format.high)
    else:
        codes = step.codes[(x[:, None] >= step.thresholds[0]).sum(axis=1)]
    assert (step.format.kind, step.format.bits) == (kind, bits)
    assert np.array_equal(grid(torch.as_tensor(x)).numpy(), codes * scale)


def test_a_float32_grid_divides_in_float64():
    grid = LSQGrid(2)
    with torch.no_grad():
        grid.size.fill_(0.1)
    x = torch.tensor([0.05, 0.15, 0.25], dtype=torch.float32)
    steps = x.double() / size_of(grid)
    assert grid.eval()(x).dtype == torch.float32
    assert torch.equal(grid(x) / grid.size, torch.round(steps).float())


def test_grids_of_up_to_four_bits_are_thresholds_and_finer_ones_a_division():
    assert len(LSQGrid(4).imc_quantizer().thresholds[0]) == 15
    assert isinstance(LSQGrid(5).imc_quantizer(), Quantize)


def test_a_learned_grid_is_set_by_the_first_batch_in_training_only():
    grid = LSQGrid(2).double()
    start = size_of(grid)
    grid.eval()(t(1.0, 3.0))
    assert size_of(grid) == start
    grid.train()(t(1.0, 3.0))
    assert size_of(grid) == pytest.approx(2 * 2 / math.sqrt(3))
    grid(t(10.0, 30.0))
    assert size_of(grid) == pytest.approx(2 * 2 / math.sqrt(3))


def test_a_first_batch_of_zeros_leaves_the_grid_as_it_is():
    grid = ClampGrid(2).double().train()
    grid(torch.zeros(4, dtype=torch.float64))
    assert size_of(grid) == 3.0


def test_learned_weights_are_set_in_training_and_worked_out_before():
    quantizer = LSQWeights(3).double()
    w = t(1.0, -2.0, 3.0)
    before = quantizer.eval()(w).scales[0]
    assert not quantizer.is_ready
    assert torch.equal(quantizer.train()(w).scales[0], before)
    assert size_of(quantizer) == pytest.approx(2 * 2 / math.sqrt(3))


def test_steps_are_held_above_zero():
    net = nn.Sequential(sized(LSQGrid(2), -0.5), sized(FQGrid(2), -0.5))
    keep_positive(net)
    assert size_of(net[0]) == LEAST_STEP
    assert size_of(net[1]) == -0.5, "a logarithm may be below 0"


# DoReFa


def test_dorefa_weights_of_two_bits_are_thirds_of_the_bent_weights():
    w = torch.atanh(t(0.9, 0.25, -0.25, -0.9, 0.7))
    # tanh / (2 max) + 1/2 = 1, .639, .361, 0, .889; times 3: 3, 1.92, 1.08, 0, 2.67
    coded = DoReFaWeights(2)(w)
    assert coded.codes[0].tolist() == [3, 1, -1, -3, 3]
    assert coded.scales[0].item() == pytest.approx(1 / 3)


def test_dorefa_weights_of_one_bit_are_signs_times_the_mean_of_the_layer():
    coded = DoReFaWeights(1)(t(0.5, 0.0, -2.5))
    assert coded.numbers().tolist() == [1.0, 1.0, -1.0]


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_dorefa_weights_are_the_formula(bits):
    n = 2**bits - 1
    w = DRAWN.numpy()
    bent = np.tanh(w)
    wanted = 2 * np.round((bent / (2 * np.abs(bent).max()) + 0.5) * n) / n - 1
    np.testing.assert_allclose(DoReFaWeights(bits)(DRAWN).numbers().numpy(), wanted, atol=1e-12)


@given(bits=st.integers(1, 8), serial=st.sampled_from(["bit", "trit"]))
@settings(max_examples=20)
def test_dorefa_codes_are_odd_and_go_through_their_codec(bits, serial):
    quantizer = DoReFaWeights(bits, serial=serial)
    codes = quantizer(DRAWN).codes[0].numpy().astype(int)
    assert set(np.abs(codes % 2).flat) == {1}
    codec = quantizer.codec()
    assert np.array_equal(codec.decode(codec.encode(codes)), codes)


def test_dorefa_weights_get_the_gradient_of_tanh_over_its_greatest():
    w = t(0.3, -1.0, 0.1, grad=True)
    coded = DoReFaWeights(2)(w)
    (coded.codes[0] * coded.scales[0])[0].backward()
    # of tanh(w_0) / max|tanh w|: the round has derivative 1, and the greatest has its share
    slope, top = 1 - math.tanh(0.3) ** 2, math.tanh(1.0)
    same(w.grad, slope / top, math.tanh(0.3) / top**2 * (1 - top**2), 0.0)


def test_dorefa_weights_that_are_all_zero_stay_finite():
    assert torch.isfinite(DoReFaWeights(2)(torch.zeros(3)).codes[0]).all()


def test_dorefa_activations_are_thirds_up_to_one():
    same(UnitGrid(2)(t(-1.0, 0.1, 0.2, 0.6, 0.9, 7.0)), 0, 0, 1 / 3, 2 / 3, 1, 1)


def test_dorefa_gradients_lie_on_a_grid_around_zero_of_each_samples_greatest():
    torch.manual_seed(0)
    gradient = draw(6, 4, 3, 3)
    found = DoReFaGradient(3).change(gradient)
    greatest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    places = (found / (2 * greatest) + 0.5) * 7
    assert torch.allclose(places, places.round(), atol=1e-9)
    assert float(places.min()) >= 0
    assert float(places.max()) <= 7 + 1e-9
    # half a step of noise and half a step of rounding
    assert float(((found - gradient) / (2 * greatest)).abs().max()) <= 1 / 7 + 1e-12


def test_dorefa_gradients_are_right_on_average():
    torch.manual_seed(1)
    gradient = t(1.0, 0.3, -0.1).expand(4000, 3)
    found = DoReFaGradient(2).change(gradient).mean(dim=0)
    assert torch.allclose(found[1:], t(0.3, -0.1), atol=0.05)


def test_dorefa_quantizes_gradients_in_training_alone_and_where_asked():
    torch.manual_seed(2)
    layer = DoReFa(bits_g=2).linear_layer(3, 2).double()
    outputs = []
    layer.product.register_forward_hook(lambda module, inputs, y: outputs.append(y) or y.retain_grad())
    for _ in range(2):
        layer(t(0.2, 0.5, 0.9).reshape(1, 3)).backward(t(1.0, 0.1).reshape(1, 2))
        layer.eval()
    assert outputs[0].grad.abs().flatten().tolist() == pytest.approx([1.0, 1 / 3])
    assert outputs[-1].grad.tolist() == [[1.0, 0.1]]
    assert isinstance(DoReFa().linear_layer(3, 2), nn.Sequential), "32 bits leave gradients as they are"


# AQD


def test_aqd_weights_have_odd_levels_below_the_clip():
    quantizer = sized(AQDWeights(2), 1.5)
    coded = quantizer(t(-9.0, -0.9, -0.1, 0.1, 0.9, 1.2))
    # (y + 1) / 2 * 3 = 0, .6, 1.4, 1.6, 2.4, 2.7
    assert coded.codes[0].tolist() == [-3, -1, -1, 1, 1, 3]
    assert coded.scales[0].item() == 0.5


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_aqd_weights_are_the_formula_of_standardised_weights(bits):
    n = 2**bits - 1
    quantizer = sized(AQDWeights(bits, standardise=True), 1.7)
    w = DRAWN.numpy()
    y = np.clip((w - w.mean()) / w.std() / 1.7, -1, 1)
    wanted = 1.7 * (2 * np.round((y + 1) / 2 * n) / n - 1)
    np.testing.assert_allclose(quantizer(DRAWN).numbers().detach().numpy(), wanted, atol=1e-12)


def test_aqd_gradient_of_the_clip_is_scaled_by_weights_and_levels():
    w = t(0.3, 5.0, grad=True)
    grad_w, grad_c = gradients(sized(AQDWeights(2), 1.5), w, t(1.0, 10.0))
    same(grad_w, 1, 0)
    # inside: level 1/3 less w / c = 0.2; beyond the clip: 1
    assert float(grad_c) == pytest.approx((1 * (1 / 3 - 0.2) + 10 * 1) / math.sqrt(2 * 3))


def test_aqd_has_a_clip_for_each_output_channel_where_asked():
    layer = AQD(per_channel=True).conv(3, 5, 3).train()
    scale = layer.coded().scales[0]
    assert scale.shape == (5, 1, 1, 1)
    wanted = layer.weight.abs().mean(dim=(1, 2, 3)) * math.sqrt(3) / 3
    assert torch.allclose(scale.flatten(), wanted)


def test_aqd_activations_reach_the_clip():
    same(sized(ClipGrid(2), 1.5)(t(-1.0, 0.2, 0.3, 1.0, 9.0).reshape(1, 5)).flatten(), 0, 0, 0.5, 1.0, 1.5)


def test_aqd_gradient_of_the_clip_of_activations_minds_the_features_of_one_sample():
    grid = sized(ClipGrid(2), 1.5).train()
    x = t(0.3, 9.0, -1.0, 0.1).reshape(2, 2)
    (grid(x) * t(1.0, 10.0, 100.0, 1000.0).reshape(2, 2)).sum().backward()
    inside = (1 - 0.3 / 0.5) / 3 + 1000 * (0 - 0.1 / 0.5) / 3
    assert float(grid.size.grad) == pytest.approx((inside + 10) / math.sqrt(2 * 3))


def test_a_shared_layer_has_its_own_epilogue_on_each_level():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = edge_activation()
            self.layer = AQD().shared_layer(2, 3, n_levels=2)

        def forward(self, x):
            x = self.act(x)
            return self.layer(x, 0) + self.layer(x, 1)

    torch.manual_seed(0)
    head = Head().double().train()
    x = draw(4, 2, 5, 5).abs()
    head(x)
    for norm, offset in zip(head.layer.norm.norms, (1.0, -2.0), strict=True):
        nn.init.constant_(norm.bias, offset)
        nn.init.constant_(norm.weight, offset)
    graph = check_on_tiles(head, x)
    assert sum(op.product is not None for op in graph.ops) == 2


def test_levels_that_are_none_are_refused():
    with pytest.raises(ConfigError, match=r"^levels: must be at least 1, got 0$"):
        LevelNorm(3, 0)
    with pytest.raises(ConfigError, match=r"^level: must be from 0 to 1, got 2$"):
        LevelNorm(3, 2)(torch.zeros(1, 3, 2, 2), 2)


def test_dyadic_scales_are_whole_multiples_of_a_power_of_two():
    method = AQD(dyadic_bits=10)
    net = network_of(method).train()
    images = draw(4, 2, 8, 8).abs()
    net(images)
    method.deploy(net, images)
    scales = [net.block2[0][1].coded().scales[0], net.block2[0][0].step(), net.block2[-1].weight, net.block2[-1].bias]
    for scale in scales:
        assert torch.equal(scale * 2**10, (scale * 2**10).round())


def test_dyadic_bits_that_lose_a_scale_are_refused():
    method = AQD(dyadic_bits=1)
    net = network_of(method).train()
    images = draw(4, 2, 8, 8).abs()
    net(images)
    with pytest.raises(ConfigError, match=r"^aqd: dyadic_bits must leave every scale above 0, got 1 for .*more bits$"):
        method.deploy(net, images)


def test_a_folded_norm_computes_what_it_computed():
    norm = nn.BatchNorm2d(3).double()
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    x = draw(8, 3, 2, 2)
    norm(x + 1)
    before = norm.eval()(x)
    fold_norms(nn.Sequential(norm), lambda scale: scale, lambda offset: offset)
    assert torch.allclose(norm(x), before, atol=1e-12)
    assert float(norm.running_mean.abs().max()) == 0


@given(st.floats(0.01, 100), st.integers(0, 12))
def test_a_dyadic_number_is_the_nearest(value, bits):
    found = float(dyadic(t(value), bits)[0])
    assert (found * 2**bits).is_integer()
    assert abs(found - value) <= 0.5 / 2**bits


# NICE


def test_nice_weights_are_clamped_symmetric_whole_numbers():
    quantizer = sized(NICEWeights(3), 1.5).eval()
    coded = quantizer(t(-4.0, -0.8, 0.2, 0.3, 1.2, 1.3))
    assert coded.codes[0].tolist() == [-3, -2, 0, 1, 2, 3]
    assert coded.scales[0].item() == 0.5


def test_nice_clamps_at_three_sigma_from_the_mean():
    quantizer = NICEWeights(4).double().eval()
    wanted = (abs(DRAWN.numpy().mean()) + 3 * DRAWN.numpy().std()) / 7
    assert float(quantizer(DRAWN).scales[0]) == pytest.approx(wanted)


def test_nice_gives_noise_of_half_a_bin_to_about_five_percent_of_the_weights():
    torch.manual_seed(3)
    quantizer = sized(NICEWeights(4), 3.0).train()
    w = draw(20000)
    codes = quantizer(w).codes[0]
    inside = (w * 7 / 3).clamp(-7, 7)
    is_noisy = codes != codes.round()
    assert 0.04 < float(is_noisy.double().mean()) < 0.06
    assert float((codes - inside).abs().max()) <= 0.5
    assert torch.equal(codes[~is_noisy], inside.round()[~is_noisy])
    with torch.no_grad():
        assert torch.equal(quantizer(w).codes[0], inside.round()), "what is stored has no noise"


@given(st.floats(1e-6, 1e6))
def test_a_short_scale_has_a_mantissa_of_three_bits(value):
    found = float(short(t(value))[0])
    mantissa, _ = math.frexp(found)
    assert (mantissa * 8).is_integer()
    assert abs(found - value) <= value / 8


def test_nice_rounds_biases_to_sixteen_bits():
    method = NICE(bits_b=4)
    norm = nn.BatchNorm2d(3, eps=0.0).double()
    with torch.no_grad():
        norm.bias.copy_(t(0.7, -0.33, 0.1))
    method.deploy(nn.Sequential(norm), torch.zeros(1))
    same(norm.bias, 0.7, -0.3, 0.1)


def test_nice_learns_the_clamp_of_activations_from_what_is_clipped_and_rounded():
    grid = sized(ClampGrid(2), 1.5).train()
    x = t(0.4, 5.0, -1.0, grad=True)
    (grid(x) * t(1.0, 10.0, 100.0)).sum().backward()
    same(x.grad, 1, 0, 0)
    assert float(grid.size.grad) == pytest.approx((1 / 3 - 0.4 / 1.5) + 10)


def test_nice_clamps_activations_at_first_at_three_sigma():
    grid = ClampGrid(4).double().train()
    x = draw(1000)
    grid(x)
    positive = np.maximum(x.numpy(), 0)
    assert size_of(grid) == pytest.approx(positive.mean() + 3 * positive.std())


# LSQ


def test_lsq_weights_of_two_bits_are_minus_two_to_one():
    coded = sized(LSQWeights(2), 0.5)(t(-9.0, -0.6, -0.25, 0.2, 0.3, 9.0))
    assert coded.codes[0].tolist() == [-2, -1, 0, 0, 1, 1]
    assert coded.scales[0].item() == 0.5


def test_lsq_gradients_are_the_published_ones():
    w = t(0.3, -9.0, 9.0, grad=True)
    grad_w, grad_s = gradients(sized(LSQWeights(3), 0.5), w, t(1.0, 10.0, 100.0))
    same(grad_w, 1, 0, 0)
    # R(v/s) - v/s = 1 - 0.6 inside, -Q_N = -4 and Q_P = 3 outside, times 1 / sqrt(N Q_P)
    assert float(grad_s) == pytest.approx((0.4 - 40 + 300) / math.sqrt(3 * 3))


def test_lsq_gradient_of_the_step_of_activations_minds_the_features_of_one_sample():
    grid = sized(LSQGrid(2), 0.5).train()
    x = t(0.3, 9.0, -1.0, 0.1).reshape(2, 2).requires_grad_()
    (grid(x) * t(1.0, 10.0, 100.0, 1000.0).reshape(2, 2)).sum().backward()
    same(x.grad.flatten(), 1, 0, 0, 1000)
    assert float(grid.size.grad) == pytest.approx((0.4 + 30 + 0 - 200) / math.sqrt(2 * 3))


def test_lsq_takes_signed_activations():
    grid = sized(LSQ(bits_a=3, signed_a=True).activation(1), 0.5)
    assert grid.imc_quantizer().format.kind == "integer"
    assert grid(t(-9.0, -0.6, 9.0).reshape(1, 3)).flatten().tolist() == [-2.0, -0.5, 1.5]


@pytest.mark.parametrize(("serial", "n_planes"), [("bit", 4), ("trit", 3)])
def test_lsq_weights_go_as_bits_or_as_trits(serial, n_planes):
    assert LSQ(bits_w=4, serial=serial).weights().plane_sum(DRAWN).n_planes == n_planes


# LLSQ


@pytest.mark.parametrize(
    ("alpha", "way"),
    [(4.0, 1.0), (1.0, 0.0), (0.25, -1.0)],  # the half is better, none is, the double is
)
def test_llsq_steps_towards_the_least_error_of_half_and_double(alpha, way):
    values = t(-4.0, -3.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    found = simulated_gradient(values, t(alpha)[0], -4, 3, (0,))
    assert float(found) == way * alpha**2


def test_llsq_gradient_of_the_scale_is_the_simulated_one_whatever_comes_back():
    for upstream in (1.0, -50.0):
        w = t(-4.0, -3.0, 2.0, 3.0, grad=True)
        grad_w, grad_a = gradients(sized(LLSQWeights(3), 4.0), w, torch.full((4,), upstream, dtype=torch.float64))
        assert float(grad_a) == 16.0
        assert grad_w.tolist() == [upstream] * 4, "weights get all of their gradient"


def test_llsq_compares_errors_channel_by_channel():
    quantizer = LLSQWeights(3, n_scales=2).double()
    with torch.no_grad():
        quantizer.size.copy_(t(4.0, 0.25))
    quantizer.is_ready.fill_(True)
    w = t(-4.0, -3.0, 2.0, 3.0).expand(2, 4).clone().requires_grad_()
    _, grad = gradients(quantizer, w, torch.ones(2, 4, dtype=torch.float64))
    assert grad.tolist() == [16.0, -0.0625]
    assert LLSQ(per_channel=True).linear(4, 2).weight_quantizer.size.shape == (2,)


def test_llsq_scales_move_by_the_learning_rate_times_their_gradient_and_weights_by_adam():
    layer = LLSQ(bits_w=3).linear(4, 1).double()
    sized(layer.weight_quantizer, 4.0)
    with torch.no_grad():
        layer.weight.copy_(t(-4.0, -3.0, 2.0, 3.0))
    optimizer = LLSQ(bits_w=3).optimizer(layer, 0.01)
    layer(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert size_of(layer.weight_quantizer) == pytest.approx(4 - 0.01 * 16)
    assert torch.allclose(layer.weight.detach(), t(-4.01, -3.01, 1.99, 2.99), atol=1e-6)


def test_llsq_learns_classes_that_differ_by_a_stripe():
    torch.manual_seed(0)
    labels = torch.arange(24) % 3
    images = 0.2 * draw(24, 2, 8, 8).abs()
    images[torch.arange(24), :, 2 * labels + 1] += 0.5
    method = LLSQ()
    net = network_of(method).train()
    optimizer = method.optimizer(net, 0.02)
    for _ in range(12):
        loss = method.loss(net, images, net(images), labels, None)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        method.after_step(net)
    assert float(loss.detach()) < 0.4


def test_llsq_activations_pass_gradients_inside_the_range():
    grid = sized(LLSQGrid(2), 1.0).train()
    x = t(-1.0, 0.6, 2.0, 9.0, grad=True)
    (grid(x) * t(1.0, 2.0, 3.0, 4.0)).sum().backward()
    same(x.grad, 0, 2, 3, 0)
    assert float(grid.size.grad) == -1.0, "the double errs less on 9"


def test_llsq_rounds_scales_up_to_powers_of_two_where_asked():
    assert sized(LLSQWeights(3, pow2=True), 0.3)(DRAWN).scales[0].item() == 0.5
    assert sized(LLSQGrid(3, pow2=True), 0.3).imc_quantizer().format.scale == 0.5


@given(st.floats(1e-6, 1e6))
def test_the_next_power_of_two_is_the_least_that_is_not_below(value):
    found = float(next_power_of_two(t(value))[0])
    assert math.frexp(found)[0] == 0.5
    assert found / 2 < value <= found


# QIL


def interval_of(module, centre, half_width):
    module = module.double()
    with torch.no_grad():
        module.interval.centre.fill_(centre)
        module.interval.half_width.fill_(half_width)
    module.interval.is_ready.fill_(True)
    return module


def test_qil_weights_are_pruned_below_clipped_above_and_rounded_between():
    quantizer = interval_of(QILWeights(3), 1.0, 0.5)
    # along the interval: |w| - 1/2; times q = 3
    coded = quantizer(t(0.4, -0.6, -0.7, 1.0, 1.4, -2.0))
    assert coded.codes[0].tolist() == [0, 0, -1, 2, 3, -3]
    assert coded.scales[0].item() == pytest.approx(1 / 3)


def test_qil_gamma_bends_weights():
    quantizer = interval_of(QILWeights(3), 1.0, 0.5)
    with torch.no_grad():
        quantizer.gamma.fill_(2.0)
    assert quantizer(t(1.0)).codes[0].tolist() == [1], "0.5 ^ 2 times 3"


def test_qil_gradients_are_those_of_the_transformer():
    quantizer = interval_of(QILWeights(3), 1.0, 0.5)
    w = t(-0.8, 0.2, 3.0, grad=True)
    coded = quantizer(w)
    (coded.codes[0] * coded.scales[0] * t(1.0, 10.0, 100.0)).sum().backward()
    # w_hat = -(|w| - c) / 2d - 1/2 inside; nothing is learned from what is pruned or clipped
    along = 0.3
    same(w.grad, 1.0, 0, 0)
    assert float(quantizer.interval.centre.grad) == pytest.approx(1.0)
    assert float(quantizer.interval.half_width.grad) == pytest.approx((0.8 - 1) / (2 * 0.25))
    assert float(quantizer.gamma.grad) == pytest.approx(-along * math.log(along))


def test_qil_interval_of_activations_moves_the_thresholds():
    grid = interval_of(QILGrid(2), 1.0, 0.5).eval()
    same(grid(t(0.6, 0.7, 1.1, 1.4, 8.0)), 0, 1 / 3, 2 / 3, 1, 1)


def test_qil_interval_begins_at_zero():
    grid = QILGrid(2).double().train()
    grid(t(1.0, -3.0))
    top = 2 * 2 * math.sqrt(3)
    assert grid.interval.centre.item() == pytest.approx(top / 2)
    assert grid.interval.half_width.item() == pytest.approx(top / 2)


def test_qil_holds_half_widths_above_zero():
    grid = interval_of(QILGrid(2), 1.0, -3.0)
    QIL().after_step(grid)
    assert float(grid.interval.half_width.detach()) == 1e-3


# FQ-Conv


def test_fq_weights_of_two_bits_are_ternary():
    coded = sized(FQWeights(2), math.log(0.8))(t(-3.0, -0.5, 0.3, 0.5))
    assert coded.codes[0].tolist() == [-1, -1, 0, 1]
    assert coded.scales[0].item() == pytest.approx(0.8)


def test_fq_gradient_of_s_is_that_of_the_height_times_the_height():
    w = t(0.3, 5.0, grad=True)
    grad_w, grad_s = gradients(sized(FQWeights(3), math.log(0.8)), w, t(1.0, 10.0))
    same(grad_w, 1, 0)
    assert float(grad_s) == pytest.approx((0.8 / 3 - 0.3) + 10 * 0.8)


@pytest.mark.parametrize(("kind", "wanted"), [("unsigned", [0, 0, 0.4, 1.2]), ("signed", [-1.2, 0, 0, 1.2])])
def test_fq_activations_reach_e_to_the_s(kind, wanted):
    x = t(-9.0, 0.1, 0.5, 9.0)
    same(sized(FQGrid(2, kind=kind), math.log(1.2))(x), *wanted)


def test_fq_conv_has_no_batch_norm_within():
    net = network_of(FQConv())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.block2.modules())


def test_fq_conv_starts_with_outputs_of_spread_one_and_codes_as_they_were():
    method = FQConv()
    net = network_of(method)
    images = draw(8, 2, 8, 8).abs()
    conv = net.block2[0][1]
    before = conv.coded().codes[0].clone()
    method.initialise(net, images)
    assert torch.equal(conv.coded().codes[0], before)
    seen = []
    conv.register_forward_hook(lambda module, inputs, outputs: seen.append(outputs))
    with torch.no_grad():
        net(images)
    assert float(seen[0].std(correction=0)) == pytest.approx(1.0)


# PACT


def test_pact_activations_are_clipped_at_alpha():
    same(sized(PACTGrid(2, 4.0), 1.5)(t(-1.0, 0.2, 0.3, 1.0, 9.0)), 0, 0, 0.5, 1.0, 1.5)


def test_pact_gradient_of_alpha_counts_what_reaches_it():
    grid = sized(PACTGrid(2, 4.0), 1.5).train()
    x = t(-1.0, 0.7, 1.5, 9.0, grad=True)
    (grid(x) * t(1.0, 10.0, 100.0, 1000.0)).sum().backward()
    same(x.grad, 0, 10, 0, 0)
    assert float(grid.size.grad) == 1100


def test_pact_penalises_the_squares_of_alpha():
    method = PACT(alpha=3.0, decay=0.1)
    net = nn.Sequential(method.activation(1), method.activation(1))
    outputs = torch.log_softmax(torch.zeros(1, 2), dim=1)
    loss = method.loss(net, torch.zeros(1), outputs, torch.tensor([0]), None)
    assert loss.item() == pytest.approx(math.log(2) + 0.1 * (9 + 9))


# Options


def test_dorefa_is_listed_twice_and_is_one_method():
    assert find_method("M12:bits_a=3") == find_method("dorefa:bits_a=3")
    assert record_of("M12").same_as == "A6"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dorefa:bits_w=0", "dorefa: bits_w must be a whole number from 1 to 8, got 0"),
        ("dorefa:bits_g=0", "dorefa: bits_g must be a whole number from 1 to 32, got 0"),
        ("lsq:bits_w=1", "lsq: bits_w must be a whole number from 2 to 8, got 1"),
        ("lsq:signed_a=true,bits_a=1", "lsq: bits_a must be a whole number from 2 to 8, got 1"),
        ("aqd:dyadic_bits=99", "aqd: dyadic_bits must be a whole number from 0 to 32, got 99"),
        ("nice:bits_b=1", "nice: bits_b must be a whole number from 2 to 32, got 1"),
        ("fq-conv:signed_a=true,bits_a=1", "fq-conv: bits_a must be a whole number from 2 to 8, got 1"),
        ("qil:serial=tri", "qil: serial must be bit or trit, got 'tri'"),
        ("pact:alpha=0", "pact: alpha must be a finite number above 0, got 0.0"),
        ("pact:decay=-1", "pact: decay must be a finite number at least 0, got -1.0"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError) as error:
        find_method(text)
    assert str(error.value) == message


def test_a_codec_is_of_bits_or_of_trits():
    with pytest.raises(ConfigError, match=r"^serial: must be bit or trit, got 'byte'$"):
        codec_of("odd", 2, "byte")
