"""Eight-bit integers: grids, calibration and gradients against literals and formulas worked out anew."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import network_of
from torch import nn

from imcsim.errors import ConfigError
from imcsim.quant.gradients import GradientLayer, to_grid
from imcsim.quant.methods import find_method
from imcsim.quant.methods.int8 import (
    UI8,
    AdaptiveGradient,
    CalibratedGrid,
    CosineGradient,
    DAInt8,
    DeviationAdam,
    Histogram,
    Int8,
    MaxGrid,
    MaxWeights,
    RunningMaxGrid,
    calibrate,
    cosine_deviation,
    entropy_range,
    mse_range,
    percentile_range,
)


def t(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def draw(*shape, seed=4):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Weights and activations


def test_weights_are_127_steps_of_the_greatest_of_each_channel():
    w = t(127.0, -63.4, 0.4, 1.27, -0.634, 0.004).reshape(2, 3)
    coded = MaxWeights(per_channel=True)(w)
    assert coded.codes[0].tolist() == [[127, -63, 0], [127, -63, 0]]
    assert coded.scales[0].flatten().tolist() == pytest.approx([1.0, 0.01])


def test_weights_of_one_scale_share_the_greatest_of_the_layer():
    coded = MaxWeights(per_channel=False)(t(127.0, -63.4, 0.4, 1.27, -0.634, 0.004).reshape(2, 3))
    assert coded.codes[0].tolist() == [[127, -63, 0], [1, -1, 0]]
    assert coded.scales[0].shape == ()


def test_a_channel_of_zeros_has_codes_of_zero():
    coded = MaxWeights(per_channel=True)(t(0.0, 0.0, 1.0, 2.0).reshape(2, 2))
    assert coded.codes[0][0].tolist() == [0, 0]
    assert MaxWeights(per_channel=True).plane_sum(t(0.0, 0.0, 1.0, 2.0).reshape(2, 2)).n_planes == 7


@pytest.mark.parametrize("is_float", [False, True])
def test_weights_get_all_of_their_gradient(is_float):
    quantizer = MaxWeights(per_channel=True)
    quantizer.is_float = is_float
    w = t(1.0, -2.0, 0.3, 4.0).reshape(2, 2).requires_grad_()
    coded = quantizer(w)
    (coded.codes[0] * coded.scales[0] * t(1.0, 2.0, 3.0, 4.0).reshape(2, 2)).sum().backward()
    assert torch.allclose(w.grad.flatten(), t(1.0, 2.0, 3.0, 4.0))


def test_float_weights_are_the_latent_ones():
    quantizer = MaxWeights(per_channel=True, floats_in_training=True)
    w = draw(3, 4)
    assert torch.allclose(quantizer.train()(w).numbers(), w)
    assert not torch.allclose(quantizer.eval()(w).numbers(), w)


@pytest.mark.parametrize(("unsigned", "wanted"), [(False, [-127, -1, 0, 63, 127]), (True, [0, 0, 0, 127, 255])])
def test_activations_have_symmetric_or_unsigned_codes(unsigned, wanted):
    grid = MaxGrid(unsigned=unsigned, amax=2.54)
    x = t(-9.0, -0.02, 0.004, 1.265, 9.0)
    codes = grid.double().eval()(x) / grid.step()
    assert codes.round().int().tolist() == wanted


def test_a_running_range_is_set_by_the_first_batch_and_follows_the_others():
    grid = RunningMaxGrid().double().train()
    grid(t(-3.0, 1.0))
    assert float(grid.amax) == 3.0
    grid(t(5.0, 1.0))
    assert float(grid.amax) == pytest.approx(0.9 * 3 + 0.1 * 5)
    grid.eval()(t(100.0))
    assert float(grid.amax) == pytest.approx(3.2)


def test_a_range_of_zero_is_not_taken():
    grid = RunningMaxGrid().double().train()
    grid(t(0.0, 0.0))
    assert float(grid.amax) == 4.0


# Calibration


def test_a_histogram_grows_in_bins_of_one_width():
    histogram = Histogram(n_bins=4)
    histogram.add(t(-4.0, 0.5, 1.0))
    histogram.add(t(6.5))
    assert histogram.counts.tolist() == [1, 1, 0, 1, 0, 0, 1]
    assert histogram.amax("max", 0) == 6.5


def test_a_histogram_of_nothing_but_zeros_has_no_range():
    histogram = Histogram()
    histogram.add(torch.zeros(5))
    assert [histogram.amax(c, 99.0) for c in ("max", "entropy", "percentile", "mse")] == [0.0] * 4


@pytest.mark.parametrize(("percentile", "wanted"), [(50, 0.5), (90, 0.5), (91, 1.0), (99, 1.0), (100, 1.5)])
def test_a_percentile_is_the_edge_of_the_bin_in_which_it_is_reached(percentile, wanted):
    assert percentile_range(np.array([90, 9, 1]), 0.5, percentile) == wanted


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_the_mse_range_is_the_best_by_search_over_drawn_numbers(seed):
    sizes = np.abs(np.random.default_rng(seed).standard_t(3, 3000))
    counts, edges = np.histogram(sizes, bins=400, range=(0, sizes.max()))
    width = edges[1]
    centres = (edges[1:] + edges[:-1]) / 2

    def error(top):
        step = top / 127
        return (counts * (np.clip(np.round(centres / step), -127, 127) * step - centres) ** 2).sum()

    errors = [error(end * width) for end in range(128, 401)]
    assert error(mse_range(counts, width)) == pytest.approx(min(errors))


def entropy_by_hand(counts, width):
    """NVIDIA's search written out bin by bin."""
    bins = counts.astype(float)
    bins[0] = bins[1]
    divergences = []
    for end in range(128, len(bins) + 1):
        reference = bins[:end].copy()
        reference[-1] += bins[end:].sum()
        made = np.zeros(end)
        for level in range(128):
            inside = [i for i in range(end) if i * 128 // end == level and bins[i]]
            for i in inside:
                made[i] = bins[inside].sum() / len(inside)
        p, q = reference / reference.sum(), made / made.sum()
        with np.errstate(divide="ignore"):
            divergences.append(sum(a * math.log(a / b) if b else math.inf for a, b in zip(p, q, strict=True) if a))
    best = min(divergences)
    return (128 + max(i for i, d in enumerate(divergences) if d == best)) * width


def test_the_entropy_range_is_that_of_the_search_bin_by_bin():
    sizes = np.abs(np.random.default_rng(3).laplace(0, 1, 4000))
    counts, edges = np.histogram(sizes, bins=160, range=(0, sizes.max()))
    assert entropy_range(counts, edges[1]) == pytest.approx(entropy_by_hand(counts, edges[1]))


def test_exact_zeros_do_not_move_the_entropy_range():
    sizes = np.abs(np.random.default_rng(3).laplace(0, 1, 4000))
    counts, edges = np.histogram(sizes, bins=600, range=(0, sizes.max()))
    with_zeros = counts.copy()
    with_zeros[0] += 100_000
    assert entropy_range(with_zeros, edges[1]) == entropy_range(counts, edges[1])


def test_of_ranges_that_are_equally_good_entropy_takes_the_widest():
    counts = np.array([1] * 128 + [0] * 128)  # even counts stay as they are in every range
    assert entropy_range(counts, 0.5) == 128.0


def test_entropy_clips_a_long_tail_and_max_does_not():
    histogram = Histogram()
    histogram.add(torch.cat([draw(50000), t(60.0)]))
    assert histogram.amax("entropy", 0) < 10
    assert histogram.amax("mse", 0) < 60
    assert histogram.amax("percentile", 99.9) < 4
    assert histogram.amax("max", 0) == 60


def test_calibration_sees_float_weights_and_leaves_the_network_as_it_was():
    net = network_of(Int8())
    images = draw(4, 2, 8, 8).abs()
    grid = next(m for m in net.modules() if isinstance(m, CalibratedGrid))
    calibrate(net, images, "max", 99.0)
    net.eval()
    with torch.no_grad():
        inner = net[:4](images)
    assert float(grid.amax) == pytest.approx(float(inner.relu().max()))
    assert grid.histogram is None
    net.train()
    calibrate(net, images, "max", 99.0)
    assert all(m.training for m in net.modules())


def test_a_network_that_is_calibrated_after_training_is_trained_in_float():
    method = Int8(calibration="max")
    net = network_of(method).train()
    images = draw(4, 2, 8, 8).abs()
    grid, conv = net.block2[0][0][1], net.block2[0][1]
    x = draw(2, 6, 4, 4)
    assert torch.equal(grid(x), x)
    assert torch.allclose(conv.coded().numbers(), conv.weight)
    method.initialise(net, images)
    assert float(grid.amax) == 4.0
    method.deploy(net, images)
    assert float(grid.amax) != 4.0
    assert not torch.equal(grid.eval()(x), x)


def test_fine_tuning_is_calibrated_before_it_begins():
    method = Int8(calibration="max", qat=True)
    net = network_of(method).train()
    images = draw(4, 2, 8, 8).abs()
    grid = net.block2[0][0][1]
    method.initialise(net, images)
    found = float(grid.amax)
    assert found != 4.0
    x = draw(2, 6, 4, 4)
    codes = grid(x) / grid.step()
    assert torch.allclose(codes, codes.round(), atol=1e-9)
    method.deploy(net, images[:1])
    assert float(grid.amax) == found


# Gradients


@given(st.floats(0.01, 10), st.integers(0, 50))
@settings(max_examples=20)
def test_a_gradient_grid_is_127_steps_to_both_sides(limit, seed):
    values = draw(40, seed=seed)
    found = to_grid(values, t(limit)[0]).numpy()
    wanted = np.round(np.clip(values.numpy(), -limit, limit) * 127 / limit) * limit / 127
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_a_gradient_grid_of_zero_gives_zeros():
    assert to_grid(t(1.0, 2.0), t(0.0)[0]).tolist() == [0.0, 0.0]


def test_gaussian_channels_reach_to_their_greatest_and_others_follow_it():
    adaptive = AdaptiveGradient(2).double()
    first = torch.zeros(1000, 2, dtype=torch.float64)
    first[:, 0] = draw(1000)
    first[0, 1] = 8.0  # one large gradient among zeros: an inverted T
    adaptive.change(first)
    assert adaptive.limits.tolist() == pytest.approx([float(first[:, 0].abs().max()), 8.0])
    found = adaptive.change(first / 4)
    greatest = float(first[:, 0].abs().max()) / 4
    assert adaptive.limits.tolist() == pytest.approx([greatest, 0.2 * 8 + 0.8 * 2])
    steps = found[:, 0] / (greatest / 127)
    assert torch.allclose(steps, steps.round(), atol=1e-9)


def test_images_share_a_range_channel_by_channel():
    gradient = draw(4, 3, 5, 5) * t(1.0, 10.0, 100.0).reshape(1, 3, 1, 1)
    adaptive = AdaptiveGradient(3).double()
    found = adaptive.change(gradient)
    wanted = gradient.abs().amax(dim=(0, 2, 3))
    assert torch.allclose(adaptive.limits, wanted)
    assert float(((found - gradient).abs().amax(dim=(0, 2, 3)) / wanted).max()) <= 0.5 / 127 + 1e-12


def test_da_int8_changes_gradients_in_training_alone():
    layer = DAInt8().conv_layer(2, 3, 1).double()
    x = draw(2, 2, 3, 3).abs()
    layer.eval()(x).sum().backward()
    assert layer.gradient.limits.tolist() == [0, 0, 0]
    layer.train()(x).backward(draw(2, 3, 3, 3))
    assert bool((layer.gradient.limits > 0).all())


@pytest.mark.parametrize(("b", "wanted"), [((2.0, 0.0), 0.0), ((0.0, 1.0), 1.0), ((1.0, 1.0), 1 - math.sqrt(0.5))])
def test_cosine_deviation_is_one_less_the_cosine(b, wanted):
    assert float(cosine_deviation(t(3.0, 0.0), t(*b))) == pytest.approx(wanted)


def test_a_gradient_is_clipped_where_its_direction_changes_least():
    cosine = CosineGradient().double()
    gradient = torch.cat([draw(100_000) * 1e-3, t(0.1)])
    found = cosine.change(gradient)
    deviations = [
        float(cosine_deviation(gradient, to_grid(gradient, gradient.abs().max() * 2 ** (-j / 2)))) for j in range(16)
    ]
    assert float(cosine.deviation) == pytest.approx(min(deviations))
    assert float(cosine_deviation(gradient, found)) == pytest.approx(min(deviations))
    assert min(deviations) < deviations[0], "the example is one that clipping helps"


@pytest.mark.parametrize(("deviation", "rate"), [(0.0, 1.0), (0.05, math.exp(-1)), (0.5, 0.1)])
def test_the_learning_rate_falls_with_the_deviation_to_a_tenth(deviation, rate):
    cosine = CosineGradient()
    cosine.deviation.fill_(deviation)
    assert cosine.rate() == pytest.approx(rate)


def test_a_gradient_of_zeros_stays_and_costs_no_learning_rate():
    cosine = CosineGradient()
    assert cosine.change(torch.zeros(3)).tolist() == [0, 0, 0]
    assert cosine.rate() == 1.0


def test_each_layer_moves_by_its_own_learning_rate():
    net = nn.Sequential(UI8().linear_layer(2, 2), nn.BatchNorm1d(2))
    before = net[0].product.weight.detach().clone()
    optimizer = UI8().optimizer(net, 0.01)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    net[0].gradient.deviation.fill_(0.05)
    optimizer.step()
    # the first step of Adam is the learning rate itself, against the sign of the gradient
    assert torch.allclose(before - net[0].product.weight, torch.full((2, 2), 0.01 * math.exp(-1)), rtol=1e-4)
    assert torch.allclose(1 - net[1].weight, torch.full((2,), 0.01), rtol=1e-4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.01]


def test_every_parameter_is_moved_once():
    net = network_of(UI8())
    optimizer = DeviationAdam(net, 0.01)
    moved = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(moved) == sorted(id(p) for p in net.parameters())
    assert len(optimizer.gradients) == sum(isinstance(m, GradientLayer) for m in net.modules()) == 2


# Options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int8:calibration=mean", "int8: calibration must be one of max, entropy, percentile, mse, got 'mean'"),
        ("int8:percentile=0", "int8: percentile must be above 0 and at most 100, got 0.0"),
        ("ui8:serial=byte", "ui8: serial must be bit or trit, got 'byte'"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_line(text, message):
    with pytest.raises(ConfigError) as error:
        find_method(text)
    assert str(error.value) == message


def test_a_calibration_that_is_none_is_refused():
    histogram = Histogram()
    histogram.add(t(1.0))
    with pytest.raises(ConfigError, match=r"^calibration: must be one of max, entropy, percentile, mse, got 'mean'$"):
        histogram.amax("mean", 0)


@pytest.mark.parametrize(("options", "planes"), [("", (7, 7)), ("serial=trit", (6, 7)), ("unsigned=true", (7, 8))])
def test_weights_take_seven_planes_or_six_trits_and_activations_seven_or_eight_passes(options, planes):
    method = find_method(f"da-int8:{options}")
    layer = method.linear_layer(2, 3)
    grid = next(m for m in layer.modules() if isinstance(m, MaxGrid))
    assert (layer.product.imc_product().n_planes, grid.imc_quantizer().format.n_passes) == planes
