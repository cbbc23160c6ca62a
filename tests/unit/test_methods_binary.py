"""Binary methods without scales: levels, gradients, what training does to the weights, and what is deployed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import check_on_tiles, example, network_of, train
from torch import nn

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import Product
from imcsim.graph.capture import capture
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear, weights_and_quantizers
from imcsim.quant.methods import find_method, record_of
from imcsim.quant.methods.binary import (
    BNN,
    BinaryConnect,
    BinaryWeights,
    Bop,
    BopOptimizer,
    ConnectWeights,
    SelfBinarizing,
    SharpTanh,
    SignWeights,
    TanhActivation,
    TanhWeights,
    WidenedConv,
    WideningSqueezing,
    glorot_height,
)


def wide(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


# --- BinaryConnect --------------------------------------------------------------------------------------------------


def test_binaryconnect_gives_signs_of_height_h():
    coded = ConnectWeights(0.5)(wide([[-0.2, 0.0, 3.0]]))
    assert coded.numbers().tolist() == [[-0.5, 0.5, 0.5]]
    assert ConnectWeights(0.5).plane_sum(wide([[-0.2, 0.0, 3.0]])).planes.tolist() == [[[-1, 1, 1]]]


@pytest.mark.parametrize("stochastic", [False, True])
def test_all_of_the_gradient_to_binary_weights_goes_to_the_latent_ones(stochastic):
    weight = wide([[-0.2, 0.1, 3.0]])
    (ConnectWeights(0.5, stochastic=stochastic)(weight).numbers() * torch.tensor([[1.0, 2.0, 4.0]])).sum().backward()
    assert weight.grad.tolist() == [[1.0, 2.0, 4.0]]


def test_glorots_height_counts_the_taps_of_a_window():
    assert glorot_height(torch.zeros(4, 2, 3, 3)) == pytest.approx(math.sqrt(1.5 / (2 * 9 + 4 * 9)))
    coded = ConnectWeights(None)(torch.ones(4, 2))
    assert coded.scales[0].item() == pytest.approx(0.5)


def test_stochastic_weights_are_high_with_the_probability_of_the_hard_sigmoid():
    torch.manual_seed(0)
    quantizer = ConnectWeights(2.0, stochastic=True)
    weight = torch.tensor([[-2.5, -1.0, 0.0, 1.0, 2.5]]).repeat(4000, 1)
    numbers = quantizer(weight).numbers()
    assert set(numbers.unique().tolist()) == {-2.0, 2.0}
    assert (numbers > 0).double().mean(dim=0).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.03)


def test_a_stochastic_quantizer_is_tested_with_the_real_weights():
    weight = torch.tensor([[-0.3, 0.7]])
    assert torch.equal(ConnectWeights(stochastic=True).eval()(weight).numbers(), weight)


def test_stochastic_binaryconnect_is_refused_by_name():
    net = network_of(BinaryConnect(stochastic=True)).eval()
    with pytest.raises(
        GraphError,
        match=r"got 2 that are not: .*binaryconnect: weights must be planes, got the real weights that stochastic=true "
        r"is tested with; train with stochastic=false x2 \(block2\.0\.1, block3\.0\.1\)$",
    ):
        capture(net, example(1))


@pytest.mark.parametrize("glorot", [False, True])
def test_latent_weights_are_clipped_to_h_after_each_step(glorot):
    net = nn.Sequential(QuantizedLinear(6, 6, weight_quantizer=BinaryConnect(glorot=glorot).weights()), nn.Linear(6, 2))
    with torch.no_grad():
        net[0].weight.fill_(7.0)
        net[1].weight.fill_(7.0)
    BinaryConnect(glorot=glorot).after_step(net)
    assert net[0].weight.unique().item() == pytest.approx(math.sqrt(1.5 / 12) if glorot else 1.0)
    assert net[1].weight.unique().tolist() == [7.0]


def test_glorot_rates_divide_the_rate_of_binary_layers_alone():
    net = nn.Sequential(QuantizedLinear(6, 6, weight_quantizer=ConnectWeights()), nn.Linear(6, 2))
    groups = BinaryConnect(glorot_rates=True).optimizer(net, 0.1).param_groups
    assert [group["lr"] for group in groups] == [pytest.approx(0.1 / math.sqrt(1.5 / 12)), 0.1]
    assert sorted(len(group["params"]) for group in groups) == [1, 3]


def test_glorot_networks_run_on_tiles():
    method = BinaryConnect(glorot=True, bits_a=2, glorot_rates=True)
    graph = check_on_tiles(train(method, network_of(method)), example())
    inner = [op for op in graph.ops if isinstance(op.product, Product)][1:-1]
    assert [(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in inner] == [(1, 2), (1, 2)]


# --- Self-Binarizing Networks ---------------------------------------------------------------------------------------


@given(st.floats(-4, 4), st.floats(0.01, 50))
def test_training_takes_tanh_and_evaluation_the_sign(x, nu):
    tanh = SharpTanh(nu).double()
    number = torch.tensor([x], dtype=torch.float64)
    assert tanh.train()(number).item() == pytest.approx(math.tanh(tanh.nu.item() * x), abs=1e-12)
    assert tanh.eval()(number).item() == (1.0 if x >= 0 else -1.0)


def test_the_gradient_is_that_of_tanh():
    x = wide([-0.7, 0.1, 0.4])
    assert torch.autograd.gradcheck(SharpTanh(3.0).double().train(), (x,))
    assert torch.autograd.gradcheck(lambda w: TanhWeights(3.0).double().train()(w).numbers(), (x,))


def test_nu_rises_by_equal_factors():
    method = SelfBinarizing(nu_start=1.0, nu_end=100.0)
    net = nn.Sequential(TanhActivation(), QuantizedLinear(2, 2, weight_quantizer=TanhWeights()))
    for progress, nu in ((0.0, 1.0), (0.5, 10.0), (1.0, 100.0)):
        method.before_step(net, progress)
        assert [m.nu.item() for m in net.modules() if isinstance(m, SharpTanh)] == [pytest.approx(nu)] * 2


def test_sharp_tanh_comes_near_the_network_that_is_deployed():
    torch.manual_seed(3)
    method = SelfBinarizing(nu_end=1e6)
    layer = method.conv_layer(3, 4, 3, padding=1).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    method.before_step(layer, 1.0)
    assert torch.allclose(layer.train()(x), layer.eval()(x), atol=1e-3)


# --- Bop ------------------------------------------------------------------------------------------------------------


def bop(weights, **options):
    parameter = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    return parameter, BopOptimizer([parameter], [], **options)


def test_bop_flips_where_the_momentum_is_large_and_has_the_sign_of_the_weight():
    weights, optimizer = bop([1.0, 1.0, 1.0, -1.0, -1.0], gamma=0.5, tau=0.1)
    weights.grad = torch.tensor([0.4, 0.1, -0.4, -0.4, 0.0], dtype=torch.float64)  # moments 0.2 0.05 -0.2 -0.2 0
    optimizer.step()
    assert weights.tolist() == [-1.0, 1.0, 1.0, 1.0, -1.0]


def test_bop_takes_a_moving_mean_of_the_gradient():
    weights, optimizer = bop([1.0], gamma=0.5, tau=0.16)
    for gradient, expected in ((0.2, 1.0), (0.2, 1.0), (0.2, -1.0)):  # moments 0.1, 0.15, 0.175
        weights.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        assert weights.tolist() == [expected]
    assert optimizer.state[weights]["momentum"].item() == pytest.approx(0.175)


def test_bop_leaves_weights_without_a_gradient_as_they_are():
    weights, optimizer = bop([1.0, -1.0], tau=0.0)
    optimizer.step()
    assert weights.tolist() == [1.0, -1.0]


def test_bop_has_no_latent_weights():
    method = Bop(gamma=0.5)
    net = network_of(method)
    before = [weight.detach().sign() for weight, _ in weights_and_quantizers(net, BinaryWeights)]
    net = train(method, net)
    after = [weight.detach() for weight, _ in weights_and_quantizers(net, BinaryWeights)]
    assert all(set(weight.unique().tolist()) <= {-1.0, 1.0} for weight in after)
    assert any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)), "some weights are flipped"


def test_bop_moves_the_other_parameters_as_adam_does():
    torch.manual_seed(0)
    ours = nn.Sequential(QuantizedLinear(4, 4, weight_quantizer=BinaryWeights()), nn.Linear(4, 2)).double()
    theirs = nn.Linear(4, 2).double()
    theirs.load_state_dict(ours[1].state_dict())
    method, adam = Bop(tau=1e9), torch.optim.Adam(theirs.parameters(), lr=0.1)
    optimizer = method.optimizer(ours, 0.1)
    for seed in range(3):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for net, mover, y in ((ours, optimizer, ours(x)), (theirs, adam, theirs(ours[0](x).detach()))):
            net.zero_grad()
            y.square().sum().backward()
            mover.step()
    assert torch.equal(ours[1].weight, theirs.weight)


def test_a_saved_bop_goes_on_where_it_was():
    def steps(net, optimizer, n, first=0):
        for seed in range(first, first + n):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()

    def fresh():
        torch.manual_seed(0)
        net = nn.Sequential(QuantizedLinear(4, 4, weight_quantizer=BinaryWeights()), nn.Linear(4, 2)).double()
        return net, Bop(gamma=0.3, tau=0.05).optimizer(net, 0.1)

    whole, optimizer = fresh()
    steps(whole, optimizer, 6)
    net, optimizer = fresh()
    steps(net, optimizer, 3)
    saved, state = net.state_dict(), optimizer.state_dict()
    again, optimizer = fresh()
    again.load_state_dict(saved)
    optimizer.load_state_dict(state)
    steps(again, optimizer, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


# --- Widening and Squeezing -----------------------------------------------------------------------------------------


def widened(**options):
    torch.manual_seed(1)
    layer = WideningSqueezing(**options).conv_layer(3, 4, 3, padding=1).double()
    layer.norm.running_mean.normal_()
    with torch.no_grad():
        layer.norm.weight.copy_(torch.arange(1.0, 9.0))
        layer.norm.bias.normal_()
    return layer.eval()


def test_a_convolution_is_widened_inside():
    layer = widened(factor=2.0)
    assert [tuple(conv.weight.shape) for conv in (layer.widen, layer.narrow)] == [(8, 3, 3, 3), (4, 8, 1, 1)]
    assert layer(torch.randn(2, 3, 5, 5, dtype=torch.float64)).shape == (2, 4, 5, 5)


def test_the_channels_of_least_gamma_are_taken_out():
    layer = widened(removed=0.25)
    with torch.no_grad():
        layer.norm.weight[5] = -0.01
    layer.choose()
    kept = [1, 2, 3, 4, 6, 7]
    assert layer.used.nonzero().flatten().tolist() == kept
    expected = layer.widen.weight[kept].clone(), layer.narrow.weight[:, kept].clone(), layer.norm.bias[kept].clone()
    layer.squeeze()
    found = layer.widen.weight, layer.narrow.weight, layer.norm.bias
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_channels_are_chosen_once():
    layer = widened(removed=0.25)
    layer.choose()
    with torch.no_grad():
        layer.norm.weight[7] = 0.0
    layer.choose()
    assert layer.used.tolist() == [False, False] + [True] * 6


def test_evaluation_leaves_out_what_will_be_taken_out():
    layer, x = widened(removed=0.5), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.norm.momentum = 0.0
        before, whole = layer.eval()(x), layer.train()(x)
        layer.choose()
        layer.squeeze()
        assert torch.equal(layer.eval()(x), before)
        assert not torch.equal(layer.train()(x), whole)


def test_channels_go_out_of_use_halfway():
    net = nn.Sequential(widened(removed=0.25))
    for progress, n_used in ((0.0, 8), (0.49, 8), (0.5, 6), (0.9, 6)):
        WideningSqueezing(removed=0.25).before_step(net, progress)
        assert int(net[0].used.sum()) == n_used


@pytest.mark.parametrize(("removed", "n_left"), [(0.0, 8), (0.3, 6), (0.99, 1)])
def test_a_channel_is_always_left(removed, n_left):
    net = nn.Sequential(widened(removed=removed))
    WideningSqueezing(removed=removed).deploy(net, None)
    assert len(net[0].used) == net[0].widen.out_channels == n_left


def test_gammas_are_driven_to_zero_by_the_penalty():
    method, bare = WideningSqueezing(sparsity=0.5), WideningSqueezing(sparsity=0.0)
    net, outputs, labels = nn.Sequential(widened()), torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)
    losses = [m.loss(net, outputs, outputs, labels, None).item() for m in (method, bare)]
    assert losses[0] - losses[1] == pytest.approx(0.5 * 36)


def test_a_squeezed_network_is_restored_from_what_was_saved():
    method = WideningSqueezing()
    net = train(method, network_of(method))
    again = network_of(method, seed=7).eval()
    method.restore(again, net.state_dict())
    assert torch.equal(again(example()), net(example()))
    assert [len(m.used) for m in again.modules() if isinstance(m, WidenedConv)] == [12, 12]


# --- options and records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("binaryconnect:bits_a=0", "bits: must be a whole number from 1 to 16, got 0"),
        ("self-binarizing:nu_start=0", "self-binarizing: nu_start must be above 0 and not above nu_end, got 0.0 and"),
        ("widen-squeeze:factor=0.5", "widen-squeeze: factor must be a finite number from 1 up, got 0.5"),
        ("widen-squeeze:sparsity=-1", "widen-squeeze: sparsity must be a finite number from 0 up, got -1.0"),
        ("widen-squeeze:removed=1", "widen-squeeze: removed must be a share from 0 to below 1, got 1.0"),
    ],
)
def test_options_out_of_range_are_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        find_method(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "bop: gamma must be above 0 and at most 1, got 0.0"),
        ({"tau": -1.0}, "bop: tau must be a finite number from 0 up, got -1.0"),
    ],
)
def test_bop_refuses_numbers_that_make_no_moving_mean(options, message):
    with pytest.raises(ConfigError, match=message):
        bop([1.0], **options)


def test_heights_and_nu_are_above_0():
    with pytest.raises(ConfigError, match="height: must be finite and above 0, or None for Glorot's, got 0"):
        ConnectWeights(0.0)
    with pytest.raises(ConfigError, match="nu: must be finite and above 0, got inf"):
        SharpTanh(math.inf)


def test_the_neurips_paper_is_found_as_bnn():
    assert find_method("B11") == find_method("bnn-neurips") == BNN()
    assert record_of("B11").same_as == "A2"


def test_bnn_clips_its_own_latent_weights():
    net = QuantizedConv2d(2, 3, 3, weight_quantizer=SignWeights())
    with torch.no_grad():
        net.weight.fill_(-3.0)
    BNN().after_step(net)
    assert net.weight.unique().tolist() == [-1.0]
