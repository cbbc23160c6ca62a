"""Bi-Real, ReActNet, IR-Net, BBG and MeliusNet: their levels, gradients, blocks and options."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import check_on_tiles, example, network_of, train
from torch import nn

from imcsim.errors import ConfigError
from imcsim.graph import BINARY, TERNARY, AddChannels, Concat, PRelu, Product, RealProduct, Threshold
from imcsim.graph.capture import capture
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.methods import find_method
from imcsim.quant.methods.shortcuts import (
    BBG,
    METHODS,
    BalancedSignWeights,
    BiReal,
    ClippedSign,
    ClippedSignWeights,
    CopiedChannels,
    DenseBlock,
    EdeSign,
    GatedBlock,
    ImprovementBlock,
    IRNet,
    LibraWeights,
    MeliusNet,
    PolynomialSign,
    ReActNet,
    RPReLU,
    RSign,
    ScaledSignWeights,
    ShortcutBlock,
    ede_slope,
    polynomial_slope,
    projected,
)

WEIGHTS = torch.tensor([[0.5, -1.5, 0.25, -0.75], [0.125, 0.25, -0.5, 0.125]], dtype=torch.float64)
GRADIENT = torch.tensor([[1.0, 2.0, -3.0, 4.0], [5.0, -6.0, 7.0, 8.0]], dtype=torch.float64)
NUMBERS = st.lists(st.floats(-4, 4, allow_subnormal=False), min_size=2, max_size=12)


def gradient_of(quantizer, weight=WEIGHTS):
    """The gradient that the latent weights get where each number ``scale * code`` gets GRADIENT."""
    latent = weight.clone().requires_grad_()
    (quantizer(latent).numbers() * GRADIENT).sum().backward()
    return latent.grad


def slope_of(activation, x):
    x = torch.as_tensor(x, dtype=torch.float64).requires_grad_()
    activation(x).sum().backward()
    return x.grad


def thresholded(step: Threshold, x):
    """What a threshold makes of numbers (b c): as many codes further as thresholds are reached."""
    reached = (np.asarray(x)[..., None] >= step.thresholds).sum(axis=-1)
    return np.asarray(step.codes)[reached]


# --- weights --------------------------------------------------------------------------------------------------------


def test_bi_real_and_reactnet_scale_the_signs_of_a_channel_by_its_mean_magnitude():
    coded = ScaledSignWeights()(WEIGHTS)
    assert coded.codes[0].tolist() == [[1, -1, 1, -1], [1, 1, -1, 1]]
    assert coded.scales[0].tolist() == [[0.75], [0.25]]


def test_the_gradient_of_reactnet_passes_inside_the_window_whatever_the_scale():
    assert gradient_of(ScaledSignWeights()).tolist() == [[1, 0, -3, 4], [5, -6, 7, 8]]


def test_the_gradient_of_bi_real_is_as_large_as_the_weights_of_the_channel():
    aware = gradient_of(ScaledSignWeights(is_magnitude_aware=True))
    assert aware.tolist() == [[0.75, 0, -2.25, 3], [1.25, -1.5, 1.75, 2]]


def test_the_weights_of_ir_net_are_powers_of_two_by_hand():
    # mean 1, deviation sqrt(20 / 3); |v| = 3, 1, 1, 3 over it: mean 2 / 2.582 = 0.775, log2 -0.37 -> 0
    coded = LibraWeights()(torch.tensor([[-2.0, 0.0, 2.0, 4.0]], dtype=torch.float64))
    assert (coded.codes[0].tolist(), coded.scales[0].tolist()) == ([[-1, -1, 1, 1]], [[1.0]])
    # one weight of 16 alone: deviation 1 / 4, |v| = 3.75 and fifteen times 0.25: mean 0.469, log2 -1.09 -> -1
    lonely = torch.zeros(1, 16, dtype=torch.float64)
    lonely[0, 0] = 1
    coded = LibraWeights()(lonely)
    assert (coded.codes[0][0, :3].tolist(), coded.scales[0].tolist()) == ([1, -1, -1], [[0.5]])


def test_the_weights_of_ir_net_follow_the_formula_channel_by_channel():
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.3
    coded = LibraWeights()(weight)
    for channel, codes, scale in zip(weight.numpy(), coded.codes[0].numpy(), coded.scales[0].numpy(), strict=True):
        v = (channel - channel.mean()) / channel.std(ddof=1)
        assert np.array_equal(codes, np.where(v >= 0, 1, -1))
        assert scale.item() == 2.0 ** round(math.log2(np.abs(v).mean()))


@given(st.floats(-3, 3), st.floats(0.1, 5))
def test_the_weights_of_ir_net_do_not_see_mean_and_size(shift, size):
    weight = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ours, other = LibraWeights()(weight), LibraWeights()(size * weight + shift)
    assert torch.equal(ours.codes[0], other.codes[0])
    assert torch.equal(ours.scales[0], other.scales[0])


def test_equal_weights_count_for_nothing_in_ir_net():
    assert LibraWeights()(torch.full((2, 4), 0.5)).numbers().tolist() == [[0] * 4] * 2
    assert LibraWeights()(torch.ones(2, 1, 1, 1)).numbers().flatten().tolist() == [0, 0]


def test_the_gradient_of_ir_net_goes_through_the_standardised_weights():
    def smooth(weight):  # what the error decay estimator is the derivative of, k tanh(t v), with the scales held
        v = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
        return k * torch.tanh(t * v) * scales

    quantizer = LibraWeights()
    quantizer.t = t = 0.4
    k, scales = 1 / t, quantizer(WEIGHTS).scales[0]
    found, step = gradient_of(quantizer), 1e-6
    for at in np.ndindex(2, 4):
        moved = torch.zeros_like(WEIGHTS)
        moved[at] = step
        change = (smooth(WEIGHTS + moved) - smooth(WEIGHTS - moved)) / (2 * step)
        assert found[at].item() == pytest.approx((change * GRADIENT).sum().item(), rel=1e-6)


def test_bbg_balances_the_weights_of_a_layer_by_hand():
    # mean -0.1875; magnitudes less the mean: 0.6875 1.3125 0.4375 0.5625 0.3125 0.4375 0.3125 0.3125
    coded = BalancedSignWeights()(WEIGHTS)
    assert coded.codes[0].tolist() == [[1, -1, 1, -1], [1, 1, -1, 1]]
    assert coded.scales[0].tolist() == 0.546875


def test_bbg_per_channel_takes_a_mean_of_each_output():
    # mean -0.375 and 0: magnitudes 0.875 1.125 0.625 0.375 and 0.125 0.25 0.5 0.125
    coded = BalancedSignWeights(per_channel=True)(WEIGHTS)
    assert coded.scales[0].tolist() == [[0.75], [0.25]]
    assert coded.codes[0].tolist() == [[1, -1, 1, -1], [1, 1, -1, 1]]


def test_bbg_moves_the_sign_with_the_mean():
    weight = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    assert BalancedSignWeights()(weight).codes[0].tolist() == [[-1, -1, 1, 1]]


def test_the_gradient_of_bbg_passes_inside_the_window_and_has_no_mean():
    inside = torch.tensor([[1, 0, -3, 4], [5, -6, 7, 8]], dtype=torch.float64)  # -1.3125 is outside
    assert torch.allclose(gradient_of(BalancedSignWeights()), inside - inside.mean(), atol=1e-15)


def test_meliusnet_has_no_scale_and_a_window_of_1_3():
    coded = ClippedSignWeights(1.3)(torch.tensor([-0.5, 0.0, 1.25]))
    assert (coded.codes[0].tolist(), coded.scales[0].item()) == ([-1, 1, 1], 1)
    latent = torch.tensor([-1.31, -1.29, 0.0, 1.29, 1.31], requires_grad=True)
    ClippedSignWeights(1.3)(latent).numbers().sum().backward()
    assert latent.grad.tolist() == [0, 1, 1, 1, 0]


# --- activations ----------------------------------------------------------------------------------------------------


def test_the_polynomial_derivative_is_that_of_two_parabolas():
    def parabolas(x):
        if x < -1:
            return -1.0
        if x < 0:
            return 2 * x + x * x
        return 2 * x - x * x if x < 1 else 1.0

    for x in (-1.5, -0.75, -0.25, 0.3, 0.9, 1.5):
        change = (parabolas(x + 1e-6) - parabolas(x - 1e-6)) / 2e-6
        assert slope_of(PolynomialSign(), [x]).item() == pytest.approx(change, abs=1e-5)


def test_the_polynomial_derivative_by_hand():
    assert polynomial_slope(torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0])).tolist() == [0, 0, 1, 2, 1.5, 0]


@pytest.mark.parametrize(("t", "k"), [(0.1, 10), (0.5, 2), (1, 1), (4, 1)])
def test_the_error_decay_estimator_is_the_derivative_of_k_tanh(t, k):
    sign = EdeSign()
    sign.t = t
    for x in (-1.7, -0.2, 0.0, 0.6):
        change = k * (math.tanh(t * (x + 1e-6)) - math.tanh(t * (x - 1e-6))) / 2e-6
        assert slope_of(sign, [x]).item() == pytest.approx(change, rel=1e-5)


def test_the_error_decay_estimator_begins_as_a_line_and_ends_as_a_step():
    x = torch.linspace(-1, 1, 5)
    assert ede_slope(x, 0.1).min() > 0.99
    assert ede_slope(x, 10.0).tolist() == pytest.approx([0, 0.0018, 10, 0.0018, 0], abs=1e-4)


def test_meliusnet_lets_gradients_of_activations_through_up_to_1_3():
    assert slope_of(ClippedSign(1.3), [-1.31, -1.29, 0, 1.29, 1.31]).tolist() == [0, 1, 1, 1, 0]


def test_the_sign_of_0_is_that_of_each_authors_code():
    zero = torch.zeros(1, 2)
    kinds = [PolynomialSign(), EdeSign(), RSign(2), ClippedSign(1.3), BBG().activation(2)]
    assert [kind(zero)[0, 0].item() for kind in kinds] == [0, 0, 0, 1, 1]
    assert [kind.imc_quantizer().format for kind in kinds] == [TERNARY] * 3 + [BINARY] * 2
    by_id = {kind.record.id: kind.record for kind in METHODS}
    assert {name: (record.sign_zero, record.pad) for name, record in by_id.items()} == {
        "A15": (1, -1),
        "B2": (0, 0),
        "B4": (0, 0),
        "B5": (1, 0),
        "B8": (0, 0),
    }


def rsign(shifts):
    sign = RSign(len(shifts)).double()
    sign.shift.data = torch.tensor(shifts, dtype=torch.float64)
    return sign


def test_rsign_moves_each_channel_by_its_own_shift():
    x = torch.tensor([[0.1, 0.1, 0.1]], dtype=torch.float64)
    assert rsign([0.0, -0.2, -0.1])(x).tolist() == [[1, -1, 0]]
    image = x.reshape(1, 3, 1, 1).expand(2, 3, 2, 2)
    assert rsign([0.0, -0.2, -0.1])(image)[1, :, 1, 1].tolist() == [1, -1, 0]


@given(NUMBERS, st.floats(-2, 2, allow_subnormal=False))
def test_the_thresholds_of_rsign_are_what_torch_computes(numbers, shift):
    x = np.array([*numbers, -shift, np.nextafter(-shift, 9), np.nextafter(-shift, -9)])[:, None]
    sign = rsign([shift])
    assert np.array_equal(sign(torch.tensor(x)).detach().numpy(), thresholded(sign.imc_quantizer(), x))


def test_the_shift_of_rsign_learns_by_the_polynomial():
    sign = rsign([0.25, 0.0])
    sign(torch.tensor([[0.25, -0.75], [-0.5, 2.0]], dtype=torch.float64)).sum().backward()
    assert sign.shift.grad.tolist() == [1.0 + 1.5, 0.5 + 0]


def test_rprelu_moves_knee_and_slope():
    layer = RPReLU(2)
    layer.before.data[:] = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    layer.behind.data[:] = torch.tensor([0.5, -1.0]).reshape(2, 1, 1)
    layer.slope.data[:] = torch.tensor([0.25, 0.5])
    y = layer(torch.tensor([-3.0, -3.0, 2.0, 2.0]).reshape(2, 2, 1, 1))
    assert y.flatten().tolist() == [0.25 * -2 + 0.5, 0.5 * -3 - 1, 3.5, 1.0]


# --- blocks ---------------------------------------------------------------------------------------------------------


def test_copied_channels_are_averages_again_and_again():
    x = torch.arange(16.0).reshape(1, 2, 2, 4)
    assert CopiedChannels(2, 5, 2)(x).flatten(1).tolist() == [[2.5, 4.5, 10.5, 12.5, 2.5, 4.5, 10.5, 12.5, 2.5, 4.5]]
    assert CopiedChannels(2, 1)(x).shape == (1, 1, 2, 4)


def test_one_convolution_of_twice_the_channels_is_reactnets_pair_with_one_shortcut():
    torch.manual_seed(0)
    block = ReActNet().block(3, 6, 1, padding=0).double().eval()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    conv = block.layer[1]
    y = torch.cat([nn.functional.conv2d(block.layer[0](x), w) for w in conv.coded().numbers().split(3)], dim=1)
    pair = [block.norm(y)[:, :3] + x, block.norm(y)[:, 3:] + x]
    assert torch.allclose(block(x), block.behind(torch.cat(pair, dim=1)))


def test_bi_reals_shortcut_is_nothing_where_the_shape_stays():
    assert isinstance(projected(4, 4), nn.Identity)
    kinds = [type(module).__name__ for module in projected(4, 8, 2)]
    assert kinds == ["AvgPool2d", "DigitalConv2d", "BatchNorm2d"]
    assert [type(module).__name__ for module in projected(4, 8)] == ["DigitalConv2d", "BatchNorm2d"]


def quiet(block):
    """*block* with norms that give 0: what is left is the shortcut."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    return block.eval()


@pytest.mark.parametrize("method", [BiReal(), IRNet()], ids=str)
def test_a_block_of_one_shape_passes_its_input_on(method):
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(quiet(method.block(4, 4))(x), x)


def test_reactnets_block_ends_in_a_leaky_relu():
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(quiet(ReActNet().block(4, 4))(x), nn.functional.leaky_relu(x, 0.25))


def test_ir_net_without_a_shortcut_passes_nothing_on():
    assert IRNet(shortcut=False).block(4, 4).shortcut is None
    assert not quiet(IRNet(shortcut=False).block(4, 4))(torch.rand(1, 4, 6, 6)).any()


def test_ir_nets_block_ends_in_a_hard_tanh():
    assert quiet(IRNet().block(2, 2))(torch.full((1, 2, 3, 3), 3.0)).unique().tolist() == [1]


def test_bbg_weighs_its_real_input_by_the_gate_of_each_channel():
    block = BBG().block(2, 2).eval()
    block.gate.data[:] = torch.tensor([2.0, 0.0]).reshape(2, 1, 1)
    x = torch.rand(1, 2, 5, 5)
    wanted = block.layer(x) + x * torch.tensor([2.0, 0.0]).reshape(2, 1, 1)
    assert torch.allclose(block(x), wanted / math.sqrt(1 + 1e-5))
    block.train()(x).square().sum().backward()
    assert block.gate.grad.abs().min() > 0


def test_the_dense_block_adds_channels_and_the_improvement_block_adds_to_the_last():
    class Two(nn.Module):
        def forward(self, x):
            return torch.full_like(x[:, :2], 2.0)

    x = torch.zeros(1, 3, 2, 2)
    dense = DenseBlock(Two(), 3)(x)
    assert dense[0, :, 0, 0].tolist() == [0, 0, 0, 2, 2]
    assert ImprovementBlock(Two(), 5, 2)(dense)[0, :, 0, 0].tolist() == [0, 0, 0, 4, 4]


@pytest.mark.parametrize("method", [kind() for kind in METHODS], ids=str)
@pytest.mark.parametrize(("stride", "pool", "size"), [(1, 1, 7), (1, 2, 7), (2, 1, 8), (2, 2, 8), (1, 1, 1)])
def test_a_block_gives_the_image_that_a_plain_convolution_gives(method, stride, pool, size):
    block = method.block(3, 5, stride=stride, pool=pool).eval()
    side = -(-size // stride) // pool
    assert block(torch.randn(2, 3, size, size)).shape == (2, 5, side, side)


@pytest.mark.parametrize("method", [kind() for kind in METHODS], ids=str)
def test_a_convolution_that_trims_the_image_has_no_shortcut(method):
    block = method.block(3, 5, 5, padding=0, pool=2).eval()
    assert block(torch.randn(2, 3, 12, 12)).shape == (2, 5, 4, 4)
    assert not any(isinstance(module, GatedBlock | DenseBlock) for module in block.modules())
    assert all(module.shortcut is None for module in block.modules() if isinstance(module, ShortcutBlock))


# --- as hardware ----------------------------------------------------------------------------------------------------


def steps_of(graph):
    return [type(step) for op in graph.ops for step in op.steps]


def test_reactnet_becomes_planes_and_digital_steps():
    graph = capture(network_of(ReActNet()).eval(), example(1))
    assert PRelu in steps_of(graph)
    assert not any(isinstance(op.product, RealProduct) for op in graph.ops)


@pytest.mark.parametrize(("method", "n_real"), [(BiReal(), 1), (MeliusNet(), 2), (BBG(), 0)], ids=str)
def test_real_convolutions_stay_digital(method, n_real):
    graph = capture(network_of(method).eval(), example(1))
    real = [step for op in graph.ops for step in (op.product, *op.steps) if isinstance(step, RealProduct)]
    assert len(real) == n_real


def test_meliusnet_joins_channels_on_the_digital_side():
    graph = capture(network_of(MeliusNet()).eval(), example(1))
    found = steps_of(graph)
    assert found.count(Concat) + found.count(AddChannels) >= 4
    assert len([op for op in graph.ops if isinstance(op.product, Product)]) == 2 + 2 * 2


@pytest.mark.parametrize(
    "method",
    [BBG(per_channel=True), IRNet(shortcut=False), MeliusNet(growth=3), BiReal(magnitude_aware=False)],
    ids=str,
)
def test_tiles_give_what_torch_gives_with_other_options(method):
    check_on_tiles(train(method, network_of(method), n_steps=2), example(2))


# --- training and options -------------------------------------------------------------------------------------------


def test_ir_net_moves_the_steepness_of_every_sign():
    method, net = IRNet(), network_of(IRNet())
    method.before_step(net, 0.5)
    signs = [module for module in net.modules() if isinstance(module, EdeSign)]
    layers = [module for module in net.modules() if isinstance(module, QuantizedWeights)]
    libras = [layer.weight_quantizer for layer in layers if isinstance(layer.weight_quantizer, LibraWeights)]
    assert (len(signs), len(libras)) == (2, 2)
    assert {module.t for module in (*signs, *libras)} == {1.0}


def test_reactnet_learns_from_its_teacher_alone():
    method = ReActNet()
    ours = torch.log_softmax(torch.tensor([[1.0, 2.0], [0.0, 0.5]]), dim=1)
    theirs = torch.log_softmax(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), dim=1)

    class Teacher(nn.Module):
        def forward(self, x):
            return theirs

    loss = method.loss(nn.Identity(), torch.zeros(2), ours, torch.tensor([0, 1]), Teacher())
    wanted = (
        sum(math.exp(p) * (p - q) for p, q in zip(theirs.flatten().tolist(), ours.flatten().tolist(), strict=True)) / 2
    )
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    alone = method.loss(nn.Identity(), torch.zeros(2), ours, torch.tensor([0, 1]), None)
    assert alone.item() == pytest.approx(-(ours[0, 0] + ours[1, 1]).item() / 2)


def test_methods_are_found_by_id_and_with_options():
    assert find_method("B8:magnitude_aware=false") == BiReal(magnitude_aware=False)
    assert [find_method(name) for name in ("B2", "ir-net", "bbg", "a15")] == [ReActNet(), IRNet(), BBG(), MeliusNet()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IRNet(t_min=0), r"^ir-net: t_min and t_max must be finite and 0 < t_min <= t_max, got 0 and 10.0$"),
        (lambda: IRNet(t_min=3, t_max=2), r"got 3 and 2$"),
        (lambda: MeliusNet(clip=0), r"^meliusnet: clip must be finite and above 0, got 0; the paper takes 1.3$"),
        (lambda: MeliusNet(growth=-1), r"^meliusnet: growth must be at least 0, got -1; 0 takes the block's outputs$"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
