"""Methods with several bases: literal levels, scales, thresholds, gradients and options."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import check_on_tiles, example, network_of, train
from torch import nn

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import MaxPool, Product, bases
from imcsim.graph.capture import capture
from imcsim.quant.layers import QuantizedLinear
from imcsim.quant.methods import find_method, record_of
from imcsim.quant.methods.multi_base import (
    FoldableActivation,
    FoldableWeights,
    HalfWaveActivation,
    LearnedBasisActivation,
    LearnedBasisWeights,
    LeastSquaresBases,
    MeanScaledSigns,
    ReBNetWeights,
    ResidualSigns,
    ShiftedSigns,
    least_squares_scales,
)


def d(*values):
    return torch.tensor(values, dtype=torch.float64)


def gradient(function, x):
    """What the sum of the outputs gives back to each number of x."""
    x = x.clone().requires_grad_()
    function(x).sum().backward()
    return x.grad.tolist()


def of_step(module, x):
    """The numbers that the step of *module* stands for, worked out from thresholds and digits alone."""
    step = module.imc_quantizer()
    count = (x[:, None].numpy() >= step.thresholds[0]).sum(axis=1)
    codes = step.codes[count]
    if step.format.kind == "bases":
        return np.array(step.format.digits)[codes] @ np.array(step.format.factors)
    return step.format.scale * codes


def with_parameters(module, **values):
    module = module.double().eval()
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(torch.as_tensor(value, dtype=torch.float64))
    return module


# --- ReBNet


def test_residual_signs_start_with_falling_gammas_that_add_up_to_1():
    assert ResidualSigns(3).gamma.tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_residual_signs_take_away_what_each_sign_counts_for():
    module = with_parameters(ResidualSigns(2), gamma=[0.5, -0.25])
    assert module(d(-2, -0.5, -0.3, 0, 0.3, 0.5, 2)).tolist() == [-0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize(("sign_zero", "at_zero", "at_half"), [(1, 0.25, 0.75), (0, 0, 0.5), (-1, -0.25, 0.25)])
def test_the_sign_of_a_rest_of_0_is_an_option(sign_zero, at_zero, at_half):
    module = with_parameters(ResidualSigns(2, sign_zero=sign_zero), gamma=[0.5, 0.25])
    assert module(d(0, 0.5)).tolist() == [at_zero, at_half]
    assert of_step(module, d(0, 0.5)).tolist() == [at_zero, at_half]


@given(
    st.lists(st.integers(1, 64).map(lambda n: n / 16), min_size=1, max_size=4),
    st.lists(st.integers(-400, 400).map(lambda n: n / 32), min_size=1),
    st.sampled_from([-1, 0, 1]),
)
def test_the_residual_step_does_what_the_formula_does(gamma, numbers, sign_zero):
    expected = []
    for number in numbers:  # sixteenths: no rounding anywhere
        rest, total = number, 0.0
        for g in gamma:
            sign = sign_zero if rest == 0 else np.sign(rest)
            rest, total = rest - g * sign, total + g * sign
        expected.append(total)
    if sign_zero == 0:  # behind a rest of 0 the signs are 0
        assert all(abs(total) <= sum(gamma) for total in expected)
    module = with_parameters(ResidualSigns(len(gamma), sign_zero=sign_zero), gamma=gamma)
    assert module(d(*numbers)).tolist() == expected
    assert of_step(module, d(*numbers)).tolist() == expected


def test_a_residual_sign_passes_gradients_inside_its_window_and_through_the_rests():
    module = with_parameters(ResidualSigns(2), gamma=[0.5, 0.25])
    # e1 passes 0.5 where |x| <= 1; e2 passes 0.25 (1 - 0.5) there, and 0.25 where |x| > 1 and |x - 0.5| <= 1
    assert gradient(module, d(0.3, 1.2, 3)) == [0.5 + 0.25 * 0.5, 0.25, 0]


def test_the_gammas_get_their_signs_and_what_the_rest_passes():
    module = with_parameters(ResidualSigns(2), gamma=[0.5, 0.25])
    module(d(0.3)).sum().backward()
    assert module.gamma.grad.tolist() == [1 - 0.25, -1]


def test_rebnet_weights_have_one_trained_scale_and_a_sign_of_0_at_0():
    coded = with_parameters(ReBNetWeights(), gamma=-0.5)(d(-2, 0, 0.1))
    assert coded.numbers().tolist() == [-0.5, 0, 0.5]
    assert gradient(lambda w: ReBNetWeights()(w).numbers(), d(-2, 0, 0.1)) == [0, 1, 1]


# --- ABC-Net


def test_bases_of_weights_are_signs_of_shifted_weights_with_the_least_squared_error():
    weight = torch.as_tensor(np.random.default_rng(0).standard_normal((3, 4, 2, 2)))
    coded = LeastSquaresBases(3)(weight)
    flat = weight.numpy().ravel()
    found = [np.where(flat - flat.mean() + u * flat.std() >= 0, 1.0, -1.0) for u in (-1, 0, 1)]
    for code, base in zip(coded.codes, found, strict=True):
        assert code.numpy().ravel().tolist() == base.tolist()
    matrix = np.stack(found, axis=1)
    alpha = np.linalg.inv(matrix.T @ matrix) @ matrix.T @ flat
    np.testing.assert_allclose([float(s) for s in coded.scales], alpha, rtol=1e-9)


def test_bases_per_channel_are_those_of_each_channel_alone():
    weight = torch.as_tensor(np.random.default_rng(1).standard_normal((2, 9)))
    coded = LeastSquaresBases(2, per_channel=True)(weight)
    for c in range(2):
        alone = LeastSquaresBases(2)(weight[c : c + 1])
        for ours, theirs in zip(coded.scales, alone.scales, strict=True):
            np.testing.assert_allclose(float(ours[c]), float(theirs), rtol=1e-9)


def test_bases_that_are_alike_share_what_one_would_count_for():
    coded = LeastSquaresBases(2)(d(1, 1, 1, 1)[None])
    assert [float(s) for s in coded.scales] == pytest.approx([0.5, 0.5])


def test_every_base_passes_its_share_of_the_gradient():
    weight = torch.as_tensor(np.random.default_rng(2).standard_normal((2, 8)))
    total = sum(float(s) for s in LeastSquaresBases(3)(weight).scales)
    found = gradient(lambda w: LeastSquaresBases(3)(w).numbers(), weight)
    np.testing.assert_allclose(found, np.full((2, 8), total), rtol=1e-12)


def test_shifted_signs_add_up_the_bases_whose_threshold_is_reached():
    module = with_parameters(ShiftedSigns(2), shift=[1.0, 0.0], beta=[0.75, 0.5])
    assert module(d(-1, -0.5, 0.4, 0.5, 2)).tolist() == [-1.25, 0.25, 0.25, 1.25, 1.25]


def test_a_negative_beta_makes_levels_that_do_not_ascend():
    module = with_parameters(ShiftedSigns(2), shift=[0.0, 1.0], beta=[-0.25, 1.0])
    x = d(-1, 0, 1)
    assert module(x).tolist() == of_step(module, x).tolist() == [-0.75, 1.25, 0.75]
    assert not module.imc_quantizer().format.ascends


@given(
    st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=1, max_size=4),
    st.lists(st.integers(-40, 40), min_size=1),
)
def test_the_step_of_shifted_signs_does_what_the_formula_does(parameters, numbers):
    shift, beta = [[value / 4 for value in values] for values in zip(*parameters, strict=True)]
    x = d(*numbers) / 8
    expected = [
        sum(b * (2 * (min(max(n / 8 + v, 0), 1) >= 0.5) - 1) for v, b in zip(shift, beta, strict=True)) for n in numbers
    ]
    module = with_parameters(ShiftedSigns(len(shift)), shift=shift, beta=beta)
    assert module(x).tolist() == of_step(module, x).tolist() == expected


def test_shifted_signs_pass_gradients_where_the_shifted_number_is_from_0_to_1():
    module = with_parameters(ShiftedSigns(2), shift=[1.0, 0.0], beta=[0.75, 0.5])
    assert gradient(module, d(-1.1, -0.5, 0, 0.5, 1.1)) == [0, 0.75, 1.25, 0.5, 0]
    module.zero_grad()
    module(d(-0.5, 0.5)).sum().backward()
    assert module.shift.grad.tolist() == [0.75, 0.5]
    assert module.beta.grad.tolist() == [2, 0]


# --- LS-BQNN


def error(row, scales, kind):
    """Squared error of the residual signs with *scales*."""
    scales = list(scales) * (2 if kind == "lst" else 1)
    rest = np.array(row, dtype=float)
    for v in scales:
        rest = rest - v * np.where(rest >= 0, 1, -1)
    return float((rest**2).sum())


def test_scales_of_a_row_by_hand():
    row = d(-3, 1, 2, -6)[None]
    assert least_squares_scales(row, "ls1").tolist() == [[3]]
    assert least_squares_scales(row, "gf2").tolist() == [[3], [1.5]]  # rests 0, -2, -1, -3
    # ls2: 1, 2, 3 | 6 gives v1 = (2 + 6) / 2 = 4, v2 = mean(3, 2, 1, 2) = 2: rests 1, 0, 1, 0
    assert least_squares_scales(row, "ls2").tolist() == [[4], [2]]
    # lst: {1, 2} | {3, 6} gives v = 2.25; {1, 2, 3} | {6} gives v = 3 with the error 1 + 4 + 9
    assert least_squares_scales(row, "lst").tolist() == [[2.25]]


def test_numbers_of_one_size_are_the_ternary_levels_themselves():
    assert least_squares_scales(d(-2, 2, 2)[None], "lst").tolist() == [[1]]


@pytest.mark.parametrize("kind", ["ls2", "lst"])
@given(st.lists(st.integers(-30, 30).map(lambda n: n / 4), min_size=1, max_size=8))
def test_no_other_scale_has_a_smaller_error(kind, row):
    found = least_squares_scales(d(*row)[None], kind)[:, 0].tolist()
    ours = error(row, found, kind)
    for v1 in np.linspace(0, 8, 200):
        scales = [v1] if kind == "lst" else [v1, float(np.mean(np.abs(np.abs(row) - v1)))]
        assert ours <= error(row, scales, kind) + 1e-9


@given(st.lists(st.integers(-30, 30).map(lambda n: n / 4), min_size=1, max_size=8), st.integers(1, 4))
def test_greedy_scales_are_mean_magnitudes_of_what_is_left(row, n):
    rest = np.array(row)
    for v in least_squares_scales(d(*row)[None], f"gf{n}")[:, 0].tolist():
        assert v == pytest.approx(np.abs(rest).mean())
        rest = rest - v * np.where(rest >= 0, 1, -1)


@pytest.mark.parametrize(("kind", "n_terms"), [("ls1", 1), ("ls2", 2), ("lst", 1), ("gf3", 3)])
def test_foldable_weights_have_scales_per_output(kind, n_terms):
    weight = d(*range(-6, 6)).reshape(2, 6) + 0.25
    coded = FoldableWeights(kind)(weight)
    assert len(coded.codes) == n_terms
    for c in range(2):
        alone = FoldableWeights(kind)(weight[c : c + 1]).numbers()
        np.testing.assert_allclose(coded.numbers()[c], alone[0], rtol=1e-12)
        scales = [float(s[c]) / (2 if kind == "lst" else 1) for s in coded.scales]
        residual = float(((weight[c] - coded.numbers()[c]) ** 2).sum())
        assert residual == pytest.approx(error(weight[c].numpy(), scales, kind))


def test_ternary_weights_are_twice_the_threshold():
    coded = FoldableWeights("lst")(d(-3, 1, 2, -6)[None])
    assert coded.numbers().tolist() == [[-4.5, 0, 0, -4.5]]


def test_scales_of_samples_differ_in_training_and_their_average_counts_at_inference():
    module = FoldableActivation("ls1", average="eval_only", momentum=0.75).double().train()
    x = d(1, -3, 4, 4).reshape(2, 2)
    assert module(x).tolist() == [[2, -2], [4, 4]]
    assert module.running.tolist() == [3]
    module(2 * x)
    assert module.running.tolist() == [0.75 * 3 + 0.25 * 6]
    assert module.eval()(x).tolist() == [[3.75, -3.75], [3.75, 3.75]]


def test_the_average_counts_in_training_too_where_it_is_said_so():
    module = FoldableActivation("ls1", average="train_and_eval").double().train()
    assert module(d(1, -3, 4, 4).reshape(2, 2)).tolist() == [[3, -3], [3, 3]]


@pytest.mark.parametrize("kind", ["ls1", "ls2", "lst", "gf3"])
def test_the_step_of_an_average_gives_the_numbers_of_the_module(kind):
    x = torch.as_tensor(np.random.default_rng(4).standard_normal(200))
    module = FoldableActivation(kind).double().train()
    module(x.reshape(10, 20))
    np.testing.assert_allclose(of_step(module, x), module.eval()(x[:, None])[:, 0], rtol=1e-12)


def test_scales_of_each_sample_by_itself_are_refused_by_name():
    method = find_method("ls-bqnn:kind_a=lst,average=off")
    net = network_of(method).eval()
    with pytest.raises(GraphError, match=r"lst: thresholds must be the same for every sample.*average=eval_only"):
        capture(net, example())


@pytest.mark.parametrize(
    "text",
    [
        "ls-bqnn:kind_a=ls1,average=off",
        "ls-bqnn:kind_w=gf2,kind_a=gf1,average=off",
        "ls-bqnn:kind_w=ls2,kind_a=lst",
        "ls-bqnn:kind_w=lst,kind_a=gf3,average=train_and_eval",
        "rebnet:levels=1",
        "rebnet:levels=3,sign_zero=-1",
        "abc-net:bases_w=2,bases_a=1,per_channel=true",
        "lq-nets:bits_w=3,bits_a=1",
        "lq-nets:bits_w=1,bits_a=3",
        "hwgq:uniform=false",
    ],
)
def test_other_options_run_on_tiles_too(text):
    method = find_method(text)
    check_on_tiles(train(method, network_of(method), n_steps=2), example())


def test_linear_layers_of_samples_with_their_own_scale_run_on_tiles():
    torch.manual_seed(0)
    method = find_method("ls-bqnn:kind_a=ls1,average=off")
    net = nn.Sequential(nn.Flatten(), method.linear_layer(2 * 64, 5), nn.BatchNorm1d(5))
    check_on_tiles(net, example() - 0.5)


def test_levels_that_do_not_ascend_run_on_tiles():
    method = find_method("abc-net")
    net = train(method, network_of(method))
    for module in net.modules():
        if isinstance(module, ShiftedSigns):
            module.beta.data[0] *= -1
    check_on_tiles(net, example())


def test_a_max_pool_may_not_read_levels_that_do_not_ascend():
    module = with_parameters(ShiftedSigns(2), shift=[0.0, 1.0], beta=[-0.25, 1.0])
    head = nn.Sequential(nn.Flatten(), QuantizedLinear(2, 2, weight_quantizer=MeanScaledSigns())).double()
    images = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    with pytest.raises(GraphError, match=r"MaxPool2d of 3 levels of 2 bases, whose numbers do not ascend with their"):
        capture(nn.Sequential(module, nn.MaxPool2d(2), head), images)
    before = capture(nn.Sequential(nn.MaxPool2d(2), module, head), images)
    assert any(isinstance(step, MaxPool) for op in before.ops for step in op.steps)
    assert any(isinstance(op.product, Product) for op in before.ops)


def test_formats_know_whether_their_levels_ascend():
    assert bases((0.5, 0.25)).ascends
    assert not bases((1.0, -0.25), ((-1, -1), (1, -1), (1, 1))).ascends


# --- LQ-Nets


def test_learned_bases_start_at_powers_of_two():
    assert LearnedBasisActivation(2).basis.tolist() == pytest.approx([0.6745 * 2 / 3, 0.6745 * 4 / 3])
    assert LearnedBasisWeights(2, 3, 8).basis[:, 0].tolist() == pytest.approx([0.6745 * 0.25, 0.6745 * 0.5])


def test_an_activation_goes_to_the_next_level_and_two_as_near_to_the_lower():
    module = with_parameters(LearnedBasisActivation(2), basis=[2.0, 1.0])
    x = d(-3, 0.5, 0.75, 1.5, 1.75, 2.5, 9)
    assert module(x).tolist() == of_step(module, x).tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_a_negative_base_gives_levels_below_0_behind_the_relu():
    module = with_parameters(LearnedBasisActivation(2), basis=[-1.0, 3.0])
    x = d(-9, 0, 0.9, 1.1, 2.4, 2.6)  # levels -1, 0, 2, 3
    assert module(x).tolist() == of_step(module, x).tolist() == [0, 0, 0, 2, 2, 3]


def test_the_basis_of_an_activation_moves_a_tenth_of_the_way_to_least_squares():
    module = with_parameters(LearnedBasisActivation(2), basis=[1.0, 2.0]).train()
    x = d(0.2, 1.2, 1.9, 3.5, -1)
    digits = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0, 0]])
    wanted = np.linalg.lstsq(digits, np.array([0.2, 1.2, 1.9, 3.5, 0]), rcond=None)[0]
    assert module(x).tolist() == [0, 1, 2, 3, 0]
    np.testing.assert_allclose(module.basis, 0.9 * np.array([1, 2]) + 0.1 * wanted, rtol=1e-12)


def test_a_basis_stays_where_numbers_do_not_tell_it():
    module = with_parameters(LearnedBasisActivation(2), basis=[1.0, 2.0]).train()
    module(d(0, 0.1, -1))
    assert module.basis.tolist() == [1, 2]


def test_learned_levels_pass_gradients_above_0_up_to_the_top():
    module = with_parameters(LearnedBasisActivation(2), basis=[1.0, 2.0])
    assert gradient(module, d(-0.1, 0, 0.1, 3, 3.1)) == [0, 0, 1, 1, 0]


def test_the_basis_of_weights_moves_channel_by_channel_with_a_pull_to_itself():
    weight = torch.as_tensor(np.random.default_rng(5).standard_normal((2, 6)))
    quantizer = with_parameters(LearnedBasisWeights(2, 2, 8), basis=[[0.25, 0.3], [0.5, 0.9]]).train()
    coded = quantizer(weight)
    levels = {c: [(e0 * a + e1 * b, e0, e1) for e0, e1 in itertools.product((-1, 1), repeat=2)]
              for c, (a, b) in enumerate(((0.25, 0.5), (0.3, 0.9)))}  # fmt: skip
    for c, (a, b) in enumerate(((0.25, 0.5), (0.3, 0.9))):
        rows = weight[c].numpy()
        near = [min(levels[c], key=lambda level: abs(level[0] - w)) for w in rows]
        np.testing.assert_allclose(coded.numbers()[c], [level[0] for level in near], rtol=1e-12)
        digits = np.array([level[1:] for level in near])
        gram = digits.T @ digits + 1e-4 * np.eye(2)
        wanted = np.linalg.inv(gram) @ (digits.T @ rows + 1e-4 * np.array([a, b]))
        np.testing.assert_allclose(quantizer.basis[:, c], 0.9 * np.array([a, b]) + 0.1 * wanted, rtol=1e-9)


def test_the_basis_of_weights_stays_at_inference():
    quantizer = LearnedBasisWeights(2, 1, 8).eval()
    before = quantizer.basis.clone()
    quantizer(torch.ones(1, 3))
    assert torch.equal(quantizer.basis, before)


def test_learned_weights_pass_the_gradient_once():
    quantizer = LearnedBasisWeights(3, 2, 8).double().eval()
    weight = torch.as_tensor(np.random.default_rng(6).standard_normal((2, 5)))
    np.testing.assert_allclose(gradient(lambda w: quantizer(w).numbers(), weight), np.ones((2, 5)), rtol=1e-12)


# --- HWGQ


def test_half_wave_levels_are_the_nearest_centres_of_positive_numbers():
    uniform, uneven = HalfWaveActivation(), HalfWaveActivation(uniform=False)
    x = d(-1, 0, 1e-9, 0.8, 0.81, 1.34, 1.35, 9)
    assert uniform(x).tolist() == pytest.approx([0, 0, 0.538, 0.538, 1.076, 1.076, 1.614, 1.614])
    assert uneven(d(-1, 0, 1e-9, 0.98, 0.99)).tolist() == [0, 0, 0.453, 0.453, 1.51]
    np.testing.assert_allclose(of_step(uniform, x), uniform(x), rtol=1e-12)
    np.testing.assert_allclose(of_step(uneven, x), uneven(x), rtol=1e-12)


def test_half_wave_gradients_are_those_of_a_clipped_relu():
    assert gradient(HalfWaveActivation(), d(-0.1, 0, 0.1, 1.6, 1.7)) == [0, 0, 1, 1, 0]
    assert gradient(HalfWaveActivation(uniform=False), d(0.1, 1.5, 1.6)) == [1, 1, 0]


def test_uneven_centres_are_two_steps_of_a_thermometer():
    form = HalfWaveActivation(uniform=False).imc_quantizer().format
    assert form.factors == pytest.approx((0.453, 1.057))
    assert form.digits == ((0, 0), (1, 0), (1, 1))


def test_binary_weights_count_for_the_mean_magnitude_of_their_output():
    coded = MeanScaledSigns()(d(-1, 0, 4, 2, -3, 4).reshape(2, 3))
    np.testing.assert_allclose(coded.numbers(), [[-5 / 3, 5 / 3, 5 / 3], [3, -3, 3]], rtol=1e-12)


# --- options


def test_the_workshop_listing_of_ls_bqnn_is_the_same_method():
    assert record_of("B3").same_as == "A13"
    assert find_method("B3") == find_method("ls-bqnn")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rebnet:levels=0", "levels: must be a whole number from 1 to 8, got 0"),
        ("rebnet:sign_zero=2", "sign_zero: must be -1, 0 or 1, got 2"),
        ("abc-net:bases_w=0", "bases_w: must be a whole number from 1 to 16, got 0"),
        ("abc-net:bases_a=9", "bases_a: must be a whole number from 1 to 8, got 9"),
        ("ls-bqnn:kind_w=ls3", "kind_w: must be ls1, ls2, lst or gf1 to gf8, got 'ls3'"),
        ("ls-bqnn:kind_a=gf9", "kind_a: must be ls1, ls2, lst or gf1 to gf8, got 'gf9'"),
        ("ls-bqnn:average=on", "average: must be off, eval_only or train_and_eval, got 'on'"),
        ("lq-nets:bits_w=0", "bits_w: must be a whole number from 1 to 8, got 0"),
        ("lq-nets:bits_a=9", "bits_a: must be a whole number from 1 to 8, got 9"),
        ("hwgq:uniform=maybe", "hwgq: uniform: must be like True, got 'maybe'"),
    ],
)
def test_options_out_of_range_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        find_method(text)


def test_a_momentum_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="momentum: must be from 0 to 1, got 2"):
        FoldableActivation("ls1", momentum=2)
