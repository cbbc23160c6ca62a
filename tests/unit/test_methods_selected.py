"""FNBin, KTDet, LIE and CConv: quantizers by hand, gradients, schedules, allocation, the gate, wrong options."""

import copy
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import check_on_tiles, example, network_of, train
from torch import nn
from torch.nn import functional as F  # noqa: N812

from imcsim.errors import ConfigError
from imcsim.graph import Product
from imcsim.quant.methods import find_method
from imcsim.quant.methods.selected import (
    LIE,
    CConv,
    FeatureBlock,
    FNBin,
    GatedConv2d,
    KTDet,
    LaterBinary,
    MixedActivation,
    MixedBlock,
    MixedWeights,
    StepWeights,
    WinnerTakesAll,
    gains_of,
    imprinted_accuracy,
)
from imcsim.quant.methods.xnor import ScaledSigns
from imcsim.quant.networks import Float


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


# --- scaled signs


def test_scaled_signs_are_signs_times_the_mean_magnitude_of_each_output():
    coded = ScaledSigns()(tensor([[0.5, -1.0, 0.0], [2.0, -3.0, 4.0]]))
    assert coded.codes[0].tolist() == [[1, -1, 1], [1, -1, 1]]
    assert coded.scales[0].tolist() == [[0.5], [3.0]]


@given(st.lists(st.floats(-2, 2), min_size=2, max_size=6))
def test_no_other_scale_or_signs_come_nearer_to_the_weights(values):
    w = tensor([values])
    best = ((w - ScaledSigns()(w).numbers()) ** 2).sum().item()
    rng = np.random.default_rng(len(values))
    for _ in range(20):
        signs, scale = rng.choice([-1.0, 1.0], w.shape), rng.uniform(0, 2)
        assert best <= ((w.numpy() - scale * signs) ** 2).sum() + 1e-12


def test_the_gradient_of_scaled_signs_goes_through_the_scale_too():
    w = tensor([[0.5, -1.5, 0.25]]).requires_grad_()
    g = tensor([[1.0, 2.0, -3.0]])
    (ScaledSigns()(w).numbers() * g).sum().backward()
    sign, alpha = tensor([[1.0, -1.0, 1.0]]), 0.75
    through_scale = sign / 3 * (g * sign).sum()
    through_signs = g * alpha * tensor([[1.0, 0.0, 1.0]])  # |w| <= 1
    torch.testing.assert_close(w.grad, through_scale + through_signs)


# --- the learned step


def step_weights(bits, step):
    quantizer = StepWeights(bits).double()
    with torch.no_grad():
        quantizer.step.fill_(step)
    quantizer.is_ready.fill_(True)
    return quantizer


def test_codes_of_a_step_are_rounded_and_clipped():
    coded = step_weights(3, 0.5)(tensor([0.2, 0.3, -0.8, 5.0, -5.0, 0.25]))
    assert coded.codes[0].tolist() == [0, 1, -2, 3, -3, 0]
    assert coded.scales[0].item() == 0.5


@settings(max_examples=25)
@given(st.integers(2, 6), st.floats(0.05, 2), st.lists(st.floats(-4, 4), min_size=1, max_size=8))
def test_numbers_of_a_step_are_the_nearest_of_its_levels(bits, step, values):
    top = 2 ** (bits - 1) - 1
    levels = step * np.arange(-top, top + 1)
    found = step_weights(bits, step)(tensor(values)).numbers().detach().numpy()
    least = np.abs(np.array(values)[:, None] - levels).min(axis=1)
    np.testing.assert_allclose(np.abs(np.array(values) - found), least, atol=1e-12)


def test_gradients_of_a_step_are_those_of_lsq():
    bits, step, values = 3, 0.5, [0.2, 0.4, -0.8, 5.0, -5.0]
    w, g = tensor(values).requires_grad_(), tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    quantizer = step_weights(bits, step)
    (quantizer(w).numbers() * g).sum().backward()
    ratio = tensor(values) / step
    inside = ratio.abs() <= 3
    slope = torch.where(inside, torch.round(ratio) - ratio, 3 * torch.sign(ratio))
    assert quantizer.step.grad.item() == pytest.approx(((g * slope).sum() / sqrt(5 * 3)).item())
    torch.testing.assert_close(w.grad, g * inside)


def test_a_step_begins_as_twice_the_mean_magnitude_over_the_root_of_the_greatest_code():
    quantizer, w = StepWeights(3).double(), tensor([[1.0, -2.0], [3.0, 0.0]])
    quantizer.eval()(w)
    assert not quantizer.is_ready
    quantizer.train()(w)
    assert quantizer.step.item() == pytest.approx(2 * 1.5 / sqrt(3))
    quantizer(10 * w)
    assert quantizer.step.item() == pytest.approx(2 * 1.5 / sqrt(3))


def test_weights_that_are_all_0_have_a_step():
    coded = StepWeights(2).double().train()(tensor([0.0, 0.0]))
    assert coded.codes[0].tolist() == [0, 0]
    assert coded.scales[0].item() == 1


# --- FNBin


def layers_of(net):
    return [part for part in net.modules() if isinstance(part, LaterBinary)]


@pytest.mark.parametrize(
    ("progress", "n_layers", "expected"),
    [
        (0.0, 0, [False, False, True]),
        (0.3, 0, [False, False, True]),
        (0.34, 0, [False, True, True]),
        (0.67, 0, [True, True, True]),
        (0.49, 2, [False, False, True]),
        (0.5, 2, [False, True, True]),
        (0.99, 2, [False, True, True]),
        (0.0, 9, [False, False, True]),
    ],
)
def test_layers_become_binary_from_the_deepest_on(progress, n_layers, expected):
    method = FNBin(n_layers=n_layers)
    net = network_of(method, widths=(4, 5, 6))
    method.before_step(net, progress)
    assert [bool(layer.is_binary) for layer in layers_of(net)] == expected


def test_deploying_makes_those_binary_whose_turn_never_came():
    method = FNBin(n_layers=1)
    net = network_of(method)
    method.deploy(net, example())
    assert [bool(layer.is_binary) for layer in layers_of(net)] == [False, True]


def test_layers_to_come_are_real_in_training_and_have_8_bits_in_evaluation():
    quantizer, w = LaterBinary(), tensor([[0.3, -1.27]])
    assert quantizer.train()(w).numbers().tolist() == w.tolist()
    coded = quantizer.eval()(w)
    assert coded.scales[0].item() == 2.0**-6
    assert coded.codes[0].tolist() == [[19, -81]]
    assert quantizer.codec().n_planes == 7
    quantizer.make_binary()
    assert quantizer(w).codes[0].tolist() == [[1, -1]]
    assert quantizer.codec().n_planes == 1


def test_the_turn_of_a_layer_is_saved_with_it():
    quantizer, other = LaterBinary(), LaterBinary()
    quantizer.make_binary()
    other.load_state_dict(quantizer.state_dict())
    assert other.is_binary


def test_a_network_with_layers_left_real_runs_on_tiles():
    method = find_method("fnbin:n_layers=1,bits_a=3")
    graph = check_on_tiles(train(method, network_of(method)), example())
    assert [op.product.n_planes for op in graph.products] == [7, 7, 1, 7]


# --- KTDet


def test_the_loss_holds_each_block_against_the_one_of_the_teacher():
    method, teacher = KTDet(transfer=3.0), network_of(Float(), seed=4).eval()
    net, x, labels = network_of(method), example(), torch.tensor([0, 1, 2, 0])
    seen, theirs = {}, {}
    for store, of in ((seen, net), (theirs, teacher)):
        for name in ("block2", "block3"):
            of.get_submodule(name).register_forward_hook(
                lambda _m, _i, output, store=store, name=name: store.update({name: output.detach()})
            )
    outputs = net(x)
    loss = method.loss(net, x, outputs, labels, teacher)
    transfer = np.mean([((seen[name] - theirs[name]) ** 2).mean().item() for name in seen])
    assert len(theirs) == 2
    assert loss.item() == pytest.approx(F.nll_loss(outputs, labels).item() + 3 * transfer)


def test_the_teacher_moves_the_weights_of_the_student_and_not_its_own():
    method, teacher = KTDet(), network_of(Float(), seed=4).eval()
    net, x, labels = network_of(method), example(), torch.tensor([0, 1, 2, 0])
    grads = []
    for taught in (None, teacher):
        net.zero_grad()
        method.loss(net, x, net(x), labels, taught).backward()
        grads.append(net.block2[0][0][1].weight.grad.clone())
    assert not torch.allclose(*grads)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_student_can_be_copied_behind_its_loss():
    method, teacher = KTDet(), network_of(Float()).eval()
    net, x = network_of(method), example()
    method.loss(net, x, net(x), torch.tensor([0, 1, 2, 0]), teacher)
    assert copy.deepcopy(net).block2.features is None


def test_a_block_remembers_nothing_in_evaluation():
    block = FeatureBlock(nn.Identity()).eval()
    block(torch.ones(1))
    assert block.features is None


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((6,), "teacher: must have a block 'block3' as the student has, got none"),
        ((6, 9), r"block2: must give feature maps like the teacher's, \(4, 9, 2, 2\), got \(4, 8, 2, 2\)"),
    ],
)
def test_a_teacher_of_another_kind_is_refused(widths, message):
    method, teacher, x = KTDet(), network_of(Float(), widths=widths).eval(), example()
    net = network_of(method)
    with pytest.raises(ConfigError, match=message):
        method.loss(net, x, net(x), torch.tensor([0, 1, 2, 0]), teacher)


def test_activations_of_ktdet_are_leaky_and_signed():
    act = KTDet(bits_a=4).activation(1)
    assert act(tensor([-10.0, -1.0, 0.6, 9.0])).tolist() == [-1.0, 0.0, 0.5, 3.5]


# --- LIE


def test_imprinted_accuracy_is_that_of_the_nearest_mean_direction():
    images = tensor([[4.0, 0.0], [3.0, 1.0], [0.0, 2.0], [2.0, 1.0]])
    labels = torch.tensor([5, 5, 7, 7])
    # means of directions: class 5 about (.974, .158), class 7 about (.447, .724); the last sample lies nearer to 5
    assert imprinted_accuracy(images, labels) == 0.75
    assert imprinted_accuracy(images[:, :, None, None].expand(4, 2, 3, 3), labels) == 0.75


def test_imprinting_sees_what_a_relu_leaves():
    images = tensor([[1.0, -50.0], [2.0, 0.0], [-9.0, 1.0], [0.0, 1.0]])
    assert imprinted_accuracy(images, torch.tensor([0, 0, 1, 1])) == 1


class Sorter(nn.Module):
    """Makes of samples (b 2 1 1) what tells classes apart, or what does not."""

    def __init__(self, helps):
        super().__init__()
        self.helps = helps

    def forward(self, x):
        return x if self.helps is None else (x[:, [1, 0]] if self.helps else torch.ones_like(x))


def lie_net(*helps):
    return nn.Sequential(*(MixedBlock(MixedWeightsHolder(), Sorter(each)) for each in helps))


class MixedWeightsHolder(nn.Module):
    def __init__(self):
        super().__init__()
        self.weights, self.act = MixedWeights(4), MixedActivation(4)

    def forward(self, x):
        return x


X = tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])[:, :, None, None]
LABELS = torch.tensor([0, 0, 1, 1])


def bits_of(net):
    return [(int(block[0].weights.bits), int(block[0].act.bits)) for block in net]


def test_blocks_gain_what_their_output_has_over_their_input():
    net = lie_net(None, False, True)
    assert gains_of(net, list(net), X, LABELS) == [0.0, -0.5, 0.0]


def test_the_blocks_of_least_use_get_fewer_bits():
    net = lie_net(None, False, None)
    LIE(low_share=1 / 3).allocate(net, X, LABELS)
    assert bits_of(net) == [(4, 4), (2, 2), (4, 4)]
    LIE(low_share=2 / 3, bits_low=3, bits_high=5).allocate(net, X, LABELS)
    assert bits_of(net) == [(5, 5), (3, 3), (3, 3)]  # of equals the deeper one


@pytest.mark.parametrize(("share", "bits"), [(0.0, [4, 4]), (1.0, [2, 2])])
def test_all_blocks_or_none_may_get_fewer_bits(share, bits):
    net = lie_net(None, None)
    LIE(low_share=share).allocate(net, X, LABELS)
    assert [w for w, _ in bits_of(net)] == bits


def test_allocating_leaves_a_network_as_it_was_but_for_its_bits():
    method = LIE()
    net, x = network_of(method), example(6)
    before = {name: value.clone() for name, value in net.state_dict().items() if not name.endswith("bits")}
    method.allocate(net, x, torch.tensor([0, 1, 2, 0, 1, 2]))
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert net.training
    assert not any(part.is_real for part in net.modules() if isinstance(part, MixedWeights | MixedActivation))
    assert not any(part._forward_hooks for part in net.modules())


def test_weights_are_real_while_the_use_of_layers_is_found_out():
    weights, act = MixedWeights(2).double(), MixedActivation(2)
    weights.is_real = act.is_real = True
    w = tensor([0.123, -4.56])
    assert weights(w).numbers().tolist() == w.tolist()
    assert act(w).tolist() == [0.123, 0.0]


def test_bits_are_saved_with_the_network():
    method = LIE(bits_low=2, bits_high=3)
    net = train(method, network_of(method))
    other = network_of(method, seed=9).eval()
    other.load_state_dict(net.state_dict())
    planes = [op.product.n_planes for op in check_on_tiles(other, example()).products]
    assert planes == [op.product.n_planes for op in check_on_tiles(net, example()).products]
    assert sorted(planes[1:-1]) == [1, 2]
    with torch.no_grad():
        assert torch.equal(net(example()), other(example()))


# --- CConv


def test_the_winner_is_a_number_in_evaluation_and_ones_among_zeros_in_training():
    winner, x = WinnerTakesAll(3), tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 3.0]])
    assert winner.eval()(x).tolist() == [[1], [0]]
    assert winner.train()(x).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_the_gradient_of_the_gate_is_that_of_a_softmax():
    x, g = tensor([[0.0, 2.0, 1.0]]).requires_grad_(), tensor([[1.0, -2.0, 0.5]])
    (WinnerTakesAll(3).train()(x) * g).sum().backward()
    soft = F.softmax(tensor([[0.0, 2.0, 1.0]]), dim=1)
    torch.testing.assert_close(x.grad, soft * (g - (soft * g).sum()))


def gated(n_experts=3, seed=0):
    torch.manual_seed(seed)
    return GatedConv2d(2, 4, 3, n_experts=n_experts, padding=1, stride=2, weight_quantizer=StepWeights(2)).double()


def test_each_sample_is_convolved_with_the_kernel_of_the_greatest_gate():
    layer, x = gated(), torch.randn(8, 2, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.gate.bias.sub_(layer.gate(x.mean(dim=(2, 3))).mean(dim=0))  # so that samples differ in what they choose
    trained, kernels = layer.train()(x), layer.experts.coded().numbers()
    scores = x.mean(dim=(2, 3)) @ layer.gate.weight.T + layer.gate.bias
    chosen = scores.argmax(dim=1).tolist()
    assert len(set(chosen)) > 1
    expected = torch.cat(
        [F.conv2d(x[i : i + 1], kernels[4 * e : 4 * e + 4], padding=1, stride=2) for i, e in enumerate(chosen)]
    )
    torch.testing.assert_close(trained, expected)
    torch.testing.assert_close(layer.eval()(x), expected)


def test_only_chosen_kernels_and_the_gate_learn():
    layer, x = gated(2), torch.randn(3, 2, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.gate.bias.copy_(tensor([100.0, 0.0]))
    layer.train()(x).square().sum().backward()
    grads = layer.experts.weight.grad
    assert grads[:4].abs().sum() > 0
    assert grads[4:].abs().sum() == 0
    assert layer.gate.weight.grad is not None


@pytest.mark.parametrize("n_experts", [2, 4])
def test_a_trained_network_of_several_kernels_uses_several_of_them_on_tiles(n_experts):
    method = CConv(n_experts=n_experts, bits_w=3)
    net = train(method, network_of(method))
    scores = []
    net.block2[0][1].gate.register_forward_hook(lambda _m, _i, output: scores.append(output))
    with torch.no_grad():
        net(example(16))
        mean = scores.pop().mean(dim=0)
        net.block2[0][1].gate.bias.sub_(mean)  # so that samples differ in what they choose
        net(example(16))
    assert len(set(scores.pop().argmax(dim=1).tolist())) > 1
    graph = check_on_tiles(net, example(16))
    inner = [op.product for op in graph.ops if isinstance(op.product, Product)][1:-1]
    assert [product.n_experts for product in inner] == [n_experts] * 2
    assert [product.n_planes for product in inner] == [2, 2]


# --- options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fnbin:n_layers=-1", "fnbin: n_layers must be at least 0, got -1"),
        ("fnbin:bits_a=0", "bits: must be a whole number from 1 to 16, got 0"),
        ("fnbin:layers=2", "fnbin: options are bits_a=8, n_layers=0; got 'layers=2'"),
        ("ktdet:slope=-0.5", "ktdet: slope and transfer must be at least 0, got -0.5 and 1.0"),
        ("ktdet:transfer=nan", "ktdet: slope and transfer must be at least 0"),
        ("ktdet:bits_a=1", "bits: must be a whole number from 2 to 16, got 1"),
        ("lie:bits_low=5", "lie: bits_low must not exceed bits_high, got 5 and 4"),
        ("lie:low_share=1.5", "lie: low_share must be from 0 to 1, got 1.5"),
        ("lie:bits_high=1", "bits: must be a whole number from 2 to 16, got 1"),
        ("cconv:n_experts=1", "cconv: n_experts must be at least 2, got 1"),
        ("cconv:bits_w=1", "bits: must be a whole number from 2 to 16, got 1"),
    ],
)
def test_a_wrong_option_is_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        find_method(text)


def test_methods_are_found_by_id_and_name():
    for identifier, name, kind in (
        ("A7", "fnbin", FNBin),
        ("A10", "ktdet", KTDet),
        ("M1", "cconv", CConv),
        ("M2", "lie", LIE),
    ):
        assert type(find_method(identifier)) is type(find_method(name)) is kind
