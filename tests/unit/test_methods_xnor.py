"""Binary methods with scales: XNOR-Net and its K map, channel interaction, Gamma tables, BMXNet's counts and grids."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from methods import check_on_tiles, example, network_of, train
from torch import nn
from torch.nn import functional as F  # noqa: N812

from imcsim.errors import ConfigError
from imcsim.graph import Affine, ChannelMix, Mean, Product, SpatialAffine
from imcsim.graph.capture import capture
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear
from imcsim.quant.methods import find_method, record_of
from imcsim.quant.methods.uniform import DoReFaWeights
from imcsim.quant.methods.xnor import (
    CIBCNN,
    BMXNet,
    BMXNet2,
    ChannelInteraction,
    OutputScale,
    PopcountRange,
    ScaledSigns,
    XnorNet,
    XnorNetPlusPlus,
)


def wide(values, *, grad=True):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def steps_of(graph, kind):
    return [step for op in graph.ops for step in op.steps if isinstance(step, kind)]


# --- XNOR-Net -------------------------------------------------------------------------------------------------------


def test_each_filter_has_the_mean_of_its_magnitudes_as_scale():
    coded = ScaledSigns()(wide([[0.5, -1.5], [0.0, -3.0]]))
    assert coded.numbers().tolist() == [[1.0, -1.0], [1.5, -1.5]]
    assert ScaledSigns(sign_zero=0)(wide([[0.0, -3.0]])).codes[0].tolist() == [[0.0, -1.0]]


@given(arrays(np.float64, (2, 5), elements=st.floats(-2, 2)), arrays(np.int8, (5,), elements=st.sampled_from([-1, 1])))
def test_no_other_signs_and_scale_are_nearer_to_the_filter(values, codes):
    numbers = ScaledSigns()(torch.as_tensor(values)).numbers().numpy()
    for found, wanted in zip(numbers, values, strict=True):
        best = codes * max(0.0, float(codes @ wanted) / 5)  # least squares for these signs
        assert np.sum((found - wanted) ** 2) <= np.sum((best - wanted) ** 2) + 1e-12


def test_the_gradient_is_the_published_one():
    weight = wide([[0.4, -1.2, 0.1, -0.6], [1.0, 0.9, -0.2, -2.0]])
    g = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (ScaledSigns()(weight).numbers() * g).sum().backward()
    w = weight.detach()
    sign, a = torch.sign(w), w.abs().mean(dim=1, keepdim=True)
    expected = sign * (g * sign).sum(dim=1, keepdim=True) / 4 + g * a * (w.abs() < 1)
    assert torch.allclose(weight.grad, expected, rtol=1e-12, atol=0)


def test_a_layer_passes_the_published_gradient_to_its_filters():
    torch.manual_seed(0)
    layer = QuantizedConv2d(2, 3, 3, bias=False, weight_quantizer=ScaledSigns()).double()
    x = torch.sign(torch.randn(4, 2, 6, 6, dtype=torch.float64))
    layer(x).square().sum().backward()
    w = layer.weight.detach()
    real = (torch.sign(w) * w.abs().mean(dim=(1, 2, 3), keepdim=True)).requires_grad_()
    F.conv2d(x, real).square().sum().backward()
    g, sign = real.grad, torch.sign(w)
    expected = sign * (g * sign).mean(dim=(1, 2, 3), keepdim=True) + g * w.abs().mean(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(layer.weight.grad, expected)


def latent(values):
    layer = QuantizedLinear(len(values), 1, bias=False, weight_quantizer=ScaledSigns()).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
    return layer


@pytest.mark.parametrize(("center", "expected"), [(True, [-1.0, -0.6, 1.0]), (False, [-1.0, 0.8, 1.0])])
def test_latent_weights_are_centred_over_the_input_channels_and_then_clamped(center, expected):
    for when in ("initialise", "after_step"):
        layer = latent([-2.0, 0.8, 5.4])
        getattr(XnorNet(center=center), when)(*([layer, None] if when == "initialise" else [layer]))
        assert layer.weight.tolist() == [pytest.approx(expected)]


def test_a_single_input_channel_is_not_centred_away():
    layer = latent([0.5])
    XnorNet().after_step(layer)
    assert layer.weight.tolist() == [[0.5]]


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0)])
def test_the_k_map_is_the_box_filter_of_the_mean_magnitude(stride, padding):
    torch.manual_seed(2)
    layer = XnorNet(k_map=True).conv_layer(3, 4, 3, stride=stride, padding=padding).double()
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    magnitude = np.pad(x.abs().numpy().mean(axis=1), [(0, 0), (padding, padding), (padding, padding)])
    y = F.conv2d(torch.sign(x), layer.product.coded().numbers(), stride=stride, padding=padding).detach().numpy()
    k = np.zeros((2, *y.shape[2:]))
    for row, column in itertools.product(*map(range, y.shape[2:])):
        i, j = row * stride, column * stride
        k[:, row, column] = magnitude[:, i : i + 3, j : j + 3].sum(axis=(1, 2)) / 9
    np.testing.assert_allclose(layer(x).detach().numpy(), y * k[:, None], rtol=1e-12, atol=1e-12)


def test_a_linear_layer_has_one_k_for_each_sample():
    layer = XnorNet(k_map=True).linear_layer(3, 2).double()
    x = wide([[1.0, -2.0, 3.0], [-0.5, 0.5, 0.5]], grad=False)
    plain = torch.sign(x) @ layer.product.coded().numbers().T
    assert torch.allclose(layer(x), plain * wide([[2.0], [0.5]], grad=False))


def test_networks_with_k_maps_run_on_tiles():
    method = XnorNet(k_map=True)
    graph = check_on_tiles(train(method, network_of(method)), example())
    assert [step.over for step in steps_of(graph, Mean)] == ["channels", "channels"]


def test_linear_layers_with_k_run_on_tiles():
    torch.manual_seed(0)
    net = nn.Sequential(
        XnorNet(k_map=True).linear_layer(8, 5), nn.BatchNorm1d(5), XnorNet(k_map=True).linear_layer(5, 3)
    )
    check_on_tiles(net, torch.randn(6, 8, dtype=torch.float64))


def test_bwn_quantizes_the_weights_alone():
    method = XnorNet(weights_only=True, bits_a=3)
    graph = check_on_tiles(train(method, network_of(method)), example())
    inner = [op for op in graph.ops if isinstance(op.product, Product)][1:-1]
    assert [(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in inner] == [(1, 3), (1, 3)]


# --- CI-BCNN --------------------------------------------------------------------------------------------------------


def interaction():
    mix = ChannelInteraction(3, unit=4).double()
    with torch.no_grad():
        mix.strengths.copy_(torch.tensor([[9.0, 0.3, 0.2], [-0.5, 9.0, 0.9], [0.1, 0.0, 9.0]]))
        mix.edges.copy_(torch.tensor([[0, 1, 0], [1, 0, 1], [1, 0, 0]], dtype=torch.bool))
    return mix


def test_popcounts_are_corrected_by_those_along_edges():
    mix = interaction()
    assert mix.matrix().tolist() == [[4, 1, 0], [-2, 4, 4], [0, 0, 4]]  # 0.3, -0.5, 0.9 and 0.1 in quarters
    assert mix(wide([[8.0, 4.0, -4.0]])).tolist() == [[9.0, -4.0, -4.0]]
    image = wide([[8.0, 4.0, -4.0]]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    assert torch.equal(mix(image), wide([[9.0, -4.0, -4.0]]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2))


def test_without_edges_popcounts_stay_as_they_are():
    y = torch.randint(-9, 10, (2, 5, 3, 3)).double()
    assert torch.equal(ChannelInteraction(5).double()(y), y)


def test_strengths_get_the_gradient_straight_through_along_edges_alone():
    mix = interaction()
    mix(wide([[8.0, 4.0, -4.0]])).sum().backward()
    assert mix.strengths.grad.tolist() == [[0.0, 4.0, 0.0], [8.0, 0.0, -4.0], [8.0, 0.0, 0.0]]


def test_the_mix_is_whole_numbers_and_a_shift():
    mix, divide = interaction().imc_steps()
    assert isinstance(mix, ChannelMix)
    assert mix.matrix.tolist() == [[4, 1, 0], [-2, 4, 4], [0, 0, 4]]
    assert (float(divide.scale), float(divide.offset)) == (0.25, 0.0)


def test_edges_go_to_the_channels_that_correlate_most():
    a = torch.randn(200, generator=torch.Generator().manual_seed(0))
    b = torch.randn(200, generator=torch.Generator().manual_seed(1))
    mix = ChannelInteraction(4, unit=2)
    mix.choose(torch.stack([a, b, -3 * a + 0.1 * b, 2 * b + 0.1 * a], dim=1), 1)
    assert mix.edges.int().argmax(dim=1).tolist() == [2, 3, 0, 1]
    assert mix.edges.sum(dim=1).tolist() == [1, 1, 1, 1]
    assert [mix.strengths[0, 2].item(), mix.strengths[1, 3].item()] == [-0.5, 0.5]


def test_constant_channels_have_no_strength():
    mix = ChannelInteraction(3)
    mix.choose(torch.ones(10, 3, 2, 2), 2)
    assert mix.strengths.abs().sum().item() == 0


def test_trained_interactions_run_on_tiles():
    method = CIBCNN(n_edges=3)
    graph = check_on_tiles(train(method, network_of(method), n_steps=2), example())
    mixes = [step.matrix for step in steps_of(graph, ChannelMix)]
    assert [matrix.shape for matrix in mixes] == [(8, 8), (8, 8)]
    assert all(np.count_nonzero(matrix - 4 * np.eye(8)) for matrix in mixes)


# --- XNOR-Net++ -----------------------------------------------------------------------------------------------------

SHAPES = {
    1: {"alpha": (4, 1, 1)},
    2: {"gamma": (4, 5, 6)},
    3: {"alpha": (4, 1, 1), "beta": (1, 5, 6)},
    4: {"alpha": (4, 1, 1), "beta": (1, 5, 1), "gamma": (1, 1, 6)},
}


def filled(case):
    scale = OutputScale(4, case).double()
    scale(torch.zeros(1, 4, 5, 6, dtype=torch.float64))
    generator = torch.Generator().manual_seed(case)
    with torch.no_grad():
        for parameter in scale.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    return scale


@pytest.mark.parametrize("case", SHAPES)
def test_gamma_is_the_product_of_its_tables(case):
    scale = filled(case)
    assert {name: tuple(p.shape) for name, p in scale.named_parameters()} == SHAPES[case]
    y = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    parts = [p.detach().numpy() for p in scale.parameters()]
    for b, c, h, w in [(0, 0, 0, 0), (1, 3, 4, 5), (1, 2, 0, 3)]:
        gamma = np.prod([p[c % p.shape[0], h % p.shape[1], w % p.shape[2]] for p in parts])
        assert scale(y)[b, c, h, w].item() == pytest.approx(y[b, c, h, w].item() * gamma, rel=1e-12)


@pytest.mark.parametrize("case", SHAPES)
def test_gamma_is_saved_and_loaded_into_a_layer_that_has_seen_no_image(case):
    scale = filled(case)
    again = OutputScale(4, case).double()
    again.load_state_dict(scale.state_dict())
    assert torch.equal(again.table(), scale.table())
    assert set(OutputScale(4, case).state_dict()) == {name for name in SHAPES[case] if name == "alpha"}


@pytest.mark.parametrize("case", SHAPES)
def test_gamma_becomes_a_scale_for_each_channel_or_pixel(case):
    (step,) = filled(case).imc_steps()
    assert isinstance(step, Affine if case == 1 else SpatialAffine)
    assert step.scale.shape == ((4,) if case == 1 else (4, 5, 6))


@pytest.mark.parametrize("case", [1, 2, 3])
def test_trained_gammas_run_on_tiles(case):
    method = XnorNetPlusPlus(case=case)
    net = train(method, network_of(method), n_steps=2)
    scales = [module for module in net.modules() if isinstance(module, OutputScale)]
    assert all(not torch.equal(scale.table(), torch.ones_like(scale.table())) for scale in scales), "Gamma is trained"
    check_on_tiles(net, example())


def test_outputs_of_linear_layers_have_a_scale_each():
    layer = XnorNetPlusPlus().linear_layer(3, 2).double()
    with torch.no_grad():
        layer[1][1].alpha.copy_(wide([2.0, 3.0]).reshape(2, 1, 1))
    x = wide([[1.0, 1.0, 1.0]])
    assert torch.equal(layer(x), layer[1][0](x) * wide([[2.0, 3.0]]))


# --- BMXNet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [BMXNet(), BMXNet2()])
def test_sums_of_signs_become_counts_and_padding_is_minus_1(method):
    layer = method.conv_layer(1, 1, 3, padding=1)
    with torch.no_grad():
        layer[1][0].weight.fill_(1.0)
    assert layer(torch.ones(1, 1, 3, 3)).squeeze().tolist() == [[4, 6, 4], [6, 9, 6], [4, 6, 4]]


@given(st.lists(st.sampled_from([-1, 1]), min_size=1, max_size=30))
def test_a_count_is_how_many_products_are_plus_1(products):
    count = PopcountRange(len(products))(torch.tensor(float(sum(products))))
    assert count.item() == products.count(1)


def test_a_linear_layer_gives_counts_too():
    layer = BMXNet().linear_layer(3, 1)
    with torch.no_grad():
        layer[1][0].weight.copy_(torch.tensor([[1.0, -1.0, 1.0]]))
    assert layer(torch.tensor([[2.0, 2.0, -2.0]])).tolist() == [[1.0]]


def test_tanh_grids_are_odd_codes_of_the_share_of_the_greatest_tanh():
    coded = DoReFaWeights(2)(wide([[-2.0, -0.2, 0.4, 1.0]]))
    # tanh: -0.964 -0.197 0.380 0.762; over twice the greatest, plus 1/2, times 3: 0, 1.19, 2.09, 2.68
    assert coded.codes[0].tolist() == [[-3.0, -1.0, 1.0, 3.0]]
    assert coded.numbers().tolist() == [pytest.approx([-1.0, -1 / 3, 1 / 3, 1.0])]


@given(arrays(np.float64, (2, 6), elements=st.floats(-3, 3)), st.integers(2, 8))
def test_tanh_grids_are_written_as_planes_of_signs(values, bits):
    weight = torch.as_tensor(values)
    quantizer = DoReFaWeights(bits)
    planes = quantizer.plane_sum(weight)
    assert planes.planes.shape[0] == bits
    assert np.array_equal(np.abs(planes.planes), np.ones_like(planes.planes))
    codes = np.tensordot(np.asarray(planes.factors), planes.planes, axes=1)
    np.testing.assert_allclose(codes / (2**bits - 1), quantizer(weight).numbers().numpy(), rtol=1e-12)


def test_the_gradient_of_tanh_grids_goes_straight_through_the_rounding():
    weight, again = wide([[-2.0, -0.2, 0.4, 1.0]]), wide([[-2.0, -0.2, 0.4, 1.0]])
    g = wide([[0.3, -1.0, 0.5, 2.0]], grad=False)
    (DoReFaWeights(3)(weight).numbers() * g).sum().backward()
    (torch.tanh(again) / torch.tanh(again).abs().max() * g).sum().backward()
    assert torch.allclose(weight.grad, again.grad, rtol=1e-12)


@pytest.mark.parametrize(
    "method", [BMXNet2(scaling="binet"), BMXNet2(scaling="xnor"), BMXNet2(bits_w=2, bits_a=3), BMXNet(weight_bit=2)]
)
def test_scales_and_grids_run_on_tiles(method):
    graph = check_on_tiles(train(method, network_of(method), n_steps=2), example())
    inner = [op for op in graph.ops if isinstance(op.product, Product)][1:-1]
    w, a = (method.weight_bit, method.act_bit) if isinstance(method, BMXNet) else (method.bits_w, method.bits_a)
    assert [(op.product.n_planes, graph.tensors[op.input].format.n_passes) for op in inner] == [(w, a)] * 2
    assert [op.product.attrs.pad_value for op in inner] == [-1 if a == 1 else 0] * 2


def test_scaled_sums_stay_sums():
    for scaling in ("binet", "xnor"):
        layer = BMXNet2(scaling=scaling).linear_layer(4, 3)
        assert not any(isinstance(module, PopcountRange) for module in layer.modules())
    graph = capture(network_of(BMXNet2(scaling="xnor")).eval(), example(1))
    assert len(steps_of(graph, Mean)) == 2


# --- options and records --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xnor-net:k_map=true,weights_only=true", "xnor-net: k_map must be false with weights_only, got both; K is"),
        ("xnor-net:bits_a=40", "bits: must be a whole number from 1 to 16, got 40"),
        ("ci-bcnn:n_edges=-1", "ci-bcnn: n_edges must be at least 0, got -1"),
        ("ci-bcnn:unit=3", "ci-bcnn: unit must be a power of two, got 3"),
        ("xnor-net++:case=5", r"xnor-net\+\+: case must be 1, 2, 3 or 4, got 5"),
        ("bmxnet-v2:scaling=k", "bmxnet-v2: scaling must be one of none, binet, xnor, got 'k'"),
        ("bmxnet-v2:scaling=binet,bits_a=2", "bmxnet-v2: scaling must be none for more than 1 bit, got binet with"),
        ("bmxnet:act_bit=31", "bits: must be a whole number from 1 to 16, got 31"),
    ],
)
def test_options_out_of_range_are_one_line(text, message):
    with pytest.raises(ConfigError, match=message):
        find_method(text)


def test_the_second_listing_of_xnor_net_is_found_as_the_first():
    assert find_method("B12") == find_method("xnor-net-eccv") == XnorNet()
    assert record_of("B12").same_as == "A3"
