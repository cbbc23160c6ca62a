"""Steps of published quantizers as PyTorch modules write them, in double precision, against reference and chip."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TIM_DNN, seeds, variant
from torch import nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph import (
    AddChannels,
    AvgPool,
    ChannelMix,
    ExtremePool,
    Format,
    Graph,
    LayerAttrs,
    MaxPool,
    Mean,
    Mul,
    OnesColumn,
    Op,
    Product,
    Quantize,
    Slice,
    SpatialAffine,
    Tensor,
    Threshold,
)
from imcsim.graph.capture import as_written, capture
from imcsim.graph.formats import REAL
from imcsim.mapping.place import place
from imcsim.quant import SignActivation, TernaryActivation, TernaryConv2d
from imcsim.ternary import PlaneSum, sign_magnitude, ternary

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})
ZEROS = LayerAttrs()
TRITS = variant(IDEAL, {"tile.serial": "trit"})


class Calls(nn.Module):
    """A network that is its forward function."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def check(net, x, *, chip=IDEAL, exact=False):
    """Reference and chip give the same bits, before and after the passes, and what PyTorch gives up to rounding."""
    net = net.double().eval()
    x = torch.as_tensor(x, dtype=torch.float64)
    with torch.no_grad():
        theirs = net(x).numpy()
    for graph in (as_written(net, x), capture(net, x)):
        ours = reference(graph, x.numpy())
        assert np.array_equal(run(place(graph, chip), x.numpy()).outputs, ours)
        np.testing.assert_allclose(ours, theirs, rtol=0 if exact else 1e-12, atol=0 if exact else 1e-12)
    return graph


def images(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * 3)


def parameter(*shape, seed=1):
    return nn.Parameter(images(*shape, seed=seed))


@pytest.mark.parametrize(
    "module",
    [
        nn.PReLU(),
        nn.PReLU(5),
        nn.LeakyReLU(0.125),
        nn.Hardtanh(-0.5, 2.0),
        nn.ReLU6(),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.Hardswish(),
        nn.Hardsigmoid(),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=str,
)
def test_modules_give_what_pytorch_gives(module):
    check(nn.Sequential(module), images(3, 5, 4, 3))


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: F.prelu(x, net.slope) + 1,
        lambda net, x: F.leaky_relu(x, 0.25) - net.shift,
        lambda net, x: net.shift - F.hardtanh(x),
        lambda net, x: F.hardswish(x) * net.shift / 3,
        lambda net, x: -F.relu6(x) * net.table,
        lambda net, x: x.sigmoid() + net.table,
        lambda net, x: net.table - x.tanh(),
        lambda net, x: torch.cat([x, x.abs(), F.hardsigmoid(x)], dim=1)[:, 2:9],
        lambda net, x: x.clamp(-1, 2) - x,
        lambda net, x: x - x.abs(),
        lambda net, x: x.abs() - x * (net.shift * net.shift),
        lambda net, x: x * x.abs().mean(1, keepdim=True),
        lambda net, x: x.mean((1, 2, 3), keepdim=True) * x.abs(),
        lambda net, x: x.abs().mean((2, 3), keepdim=True) * x,
        lambda net, x: x.mean((2, 3)) * 2,
        lambda net, x: torch.cat([x[:, :2], x[:, 2:] + x.abs()[:, :3] * 0.5], 1),  # MeliusNet adds to the last
    ],
)
def test_functions_give_what_pytorch_gives(forward):
    parts = {"slope": parameter(5), "shift": parameter(1, 5, 1, 1), "table": parameter(1, 1, 4, 3)}
    check(Calls(forward, **parts), images(3, 5, 4, 3))


class RPReLU(nn.Module):
    """ReActNet's activation: shift, PReLU, shift, each with a number for each channel."""

    def __init__(self, n):
        super().__init__()
        self.before, self.slope, self.behind = parameter(1, n, 1, 1), nn.PReLU(n), parameter(1, n, 1, 1, seed=2)

    def forward(self, x):
        return self.slope(x + self.before) + self.behind


def test_a_reactnet_block():
    def forward(net, x):
        return net.act(net.norm(net.conv(net.sign(x + net.shift))) + x)

    net = Calls(forward, act=RPReLU(6), norm=nn.BatchNorm2d(6), conv=TernaryConv2d(6, 6, 3, padding=1, bias=False),
                sign=SignActivation(), shift=parameter(1, 6, 1, 1, seed=3))  # fmt: skip
    graph = check(net, images(2, 6, 5, 5))
    assert [len(op.steps) > 0 for op in graph.ops] == [True, True]  # RSign; and everything behind the product


def test_the_k_map_of_xnor_net_is_a_box_filter_of_the_mean_absolute_input():
    from scipy.signal import convolve2d

    def forward(net, x):
        k = F.avg_pool2d(x.abs().mean(1, keepdim=True), 3, stride=1, padding=1)
        return net.conv(net.sign(x)) * k * net.alpha

    net = Calls(forward, conv=TernaryConv2d(4, 3, 3, padding=1, bias=False), sign=SignActivation(),
                alpha=parameter(1, 3, 1, 1))  # fmt: skip
    x = images(2, 4, 5, 6)
    graph = check(net, x)
    (mean,) = [op for op in graph.ops if any(isinstance(step, AvgPool) for step in op.steps)]
    alone = Graph(name="k", inputs=(graph.input,), ops=(mean,), outputs=(mean.output.name,))
    box = [convolve2d(np.abs(image).mean(axis=0), np.full((3, 3), 1 / 9), mode="same") for image in x.numpy()]
    np.testing.assert_allclose(reference(alone, x.numpy())[:, 0], box, rtol=1e-12)
    assert any(isinstance(step, Mul) for op in graph.ops for step in op.steps)


def test_the_scale_of_a_sample_is_its_own_mean():
    def forward(net, x):
        return net.conv(net.sign(x)) * x.abs().mean((1, 2, 3), keepdim=True)

    net = Calls(forward, conv=TernaryConv2d(4, 3, 3, bias=False), sign=SignActivation())
    x = images(3, 4, 5, 5)
    graph = check(net, x)
    assert any(step == Mean("sample") for op in graph.ops for step in op.steps)
    alone = [run(place(graph, IDEAL), x[i : i + 1].numpy()).outputs for i in range(3)]
    assert np.array_equal(np.concatenate(alone), run(place(graph, IDEAL), x.numpy()).outputs)


def test_the_gamma_of_xnor_net_plus_plus_and_a_batch_norm_are_one_table():
    def forward(net, x):
        return net.norm(net.conv(net.sign(x)) * (net.alpha * net.beta * net.gamma))

    net = Calls(forward, conv=TernaryConv2d(4, 3, 3, padding=1, bias=False), sign=SignActivation(),
                norm=nn.BatchNorm2d(3), alpha=parameter(3, 1, 1), beta=parameter(1, 5, 1),
                gamma=parameter(1, 1, 6))  # fmt: skip
    graph = check(net, images(2, 4, 5, 6))
    assert [type(step) for step in graph.ops[-1].steps] == [SpatialAffine]


def test_a_gated_branch_adds_the_real_input():
    def forward(net, x):
        return net.conv(net.sign(x)) + net.gate * x

    net = Calls(forward, conv=TernaryConv2d(4, 4, 3, padding=1), sign=SignActivation(), gate=parameter(1, 4, 1, 1))
    check(net, images(2, 4, 5, 6))


def test_slices_that_are_added_to_are_one_step_in_a_graph_made_by_hand():
    x = images(2, 6, 3, 3).numpy()
    ops = (
        Op(name="part", input="x", output=Tensor("t", (2, 3, 3), REAL), steps=(Slice(0, 2),)),
        Op(name="add", input="x", output=Tensor("y", (6, 3, 3), REAL), steps=(AddChannels("t", [0.5, 2.0], 4),)),
    )
    graph = Graph(name="melius", inputs=(Tensor("x", (6, 3, 3), REAL),), ops=ops, outputs=("y",))
    wanted = x.copy()
    wanted[:, 4:] += np.array([0.5, 2.0]).reshape(2, 1, 1) * x[:, :2]
    assert np.array_equal(reference(graph, x), wanted)
    assert np.array_equal(run(place(graph, IDEAL), x).outputs, wanted)


def test_a_channel_mix_behind_a_product_is_a_whole_number_product_and_keeps_whole_thresholds():
    rng = np.random.default_rng(0)
    mix = np.eye(5, dtype=int) + rng.integers(-2, 3, (5, 5)) * (rng.random((5, 5)) < 0.3)
    weights = ternary().plane_sum(rng.integers(-1, 2, (5, 20)))
    form = Format("signed", 3)
    ops = (
        Op(name="q", input="x", output=Tensor("c", (20,), form), steps=(Quantize(form),)),
        Op(name="fc", input="c", output=Tensor("y", (5,), REAL), product=Product(kind="linear", weights=weights),
           steps=(ChannelMix(mix),)),
    )  # fmt: skip
    graph = Graph(name="ci-bcnn", inputs=(Tensor("x", (20,), REAL),), ops=ops, outputs=("y",))
    x = rng.integers(-3, 4, (7, 20))
    found = run(place(graph, IDEAL), x).outputs
    assert found.dtype.kind == "i"
    assert np.array_equal(found, x @ weights.to_numbers().T.astype(int) @ mix.T)
    assert np.array_equal(found, reference(graph, x))


@settings(max_examples=15)
@given(seeds(), st.sampled_from([(2, 2), (3, 2)]), st.sampled_from([(0, 0), (1, 1)]))
def test_a_max_pool_before_a_batch_norm_with_any_gamma_is_a_pool_of_codes(seed, kernel, padding):
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    net = nn.Sequential(TernaryActivation(), TernaryConv2d(3, 4, 3), nn.MaxPool2d(kernel, 1, padding), norm,
                        TernaryActivation())  # fmt: skip
    x = images(3, 3, 6, 6, seed=seed)
    graph = check(net, x, exact=True)
    assert [type(step) for step in graph.ops[-1].steps] in ([Threshold, ExtremePool], [Threshold, MaxPool])
    assert graph.ops[-1].steps[0].thresholds.tolist() == np.ceil(graph.ops[-1].steps[0].thresholds).tolist()


# --- offsets of weights and zeros of codes --------------------------------------------------------------------------


class Shifted(nn.Conv2d):
    """``(gamma T + beta)`` weights: ternary or of several planes, with an offset for each output or one for all."""

    def __init__(self, codes, gamma, beta, n_planes=1, factors=None, attrs=ZEROS, **options):
        super().__init__(codes.shape[1] * options.get("groups", 1), codes.shape[0], codes.shape[2:], **options)
        codec = ternary() if n_planes == 1 else sign_magnitude(n_planes + 1)
        factors = codec.factors if factors is None else factors
        self.planes = PlaneSum(planes=codec.encode(codes), factors=factors, scale=gamma, offset=beta)
        self.weight.data = torch.from_numpy(np.broadcast_to(self.planes.to_numbers(), codes.shape).copy())
        self.attrs = attrs

    def imc_product(self):
        geometry = {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}
        return Product(kind="conv2d", weights=self.planes, attrs=self.attrs, **geometry)


class Coded(nn.Module):
    """Codes with a zero: numbers ``scale * (code - zero)`` on an even grid."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        whole = np.floor(self.form.zero)
        codes = torch.round(x / self.form.scale + (self.form.zero - whole)) + whole
        return self.form.scale * (codes.clamp(self.form.low, self.form.high) - self.form.zero)

    def imc_quantizer(self):
        if self.form.kind != "ternary":
            return Quantize(self.form)
        steps = (np.array([-0.5, 0.5]) - self.form.zero) * self.form.scale
        return Threshold([[np.nextafter(steps[0], 9), np.nextafter(steps[1], 9)]], [-1, 0, 1], self.form)


@st.composite
def shifted_nets(draw):
    rng = np.random.default_rng(draw(seeds()))
    kind, bits = draw(st.sampled_from([("ternary", 2), ("unsigned", 3), ("unsigned", 8), ("signed", 3)]))
    zero = draw(st.sampled_from([0.0, 1.0, 3.0, 0.3, -2.0]))
    form = Format(kind, bits, scale=draw(st.sampled_from([1.0, 0.37])), zero=zero)
    groups, n_planes = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2]))
    shape = (groups * draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3)), 2)
    codes = rng.integers(-(2**n_planes) + 1, 2**n_planes, shape)
    each = (shape[0], 1, 1, 1)
    gamma, beta = (rng.normal(size=draw(st.sampled_from([(), each]))) for _ in range(2))
    if draw(st.integers(0, 2)) == 0:
        beta = 0.0
    factors = rng.choice([0.5, 3.0], (n_planes, *each)) if draw(st.integers(0, 3)) == 0 else None
    conv = Shifted(codes, gamma, beta, n_planes, factors, groups=groups, padding=draw(st.integers(0, 1)),
                   stride=draw(st.integers(1, 2)), bias=draw(st.booleans()))  # fmt: skip
    return nn.Sequential(Coded(form), conv), images(2, conv.in_channels, 4, 5, seed=draw(seeds()))


@settings(max_examples=30)
@given(shifted_nets(), st.sampled_from([IDEAL, TRITS]))
def test_weights_with_offsets_and_codes_with_zeros_are_those_numbers_at_the_borders_too(net_and_x, chip):
    net, x = net_and_x
    graph = check(net, x, chip=chip)
    has_offset = bool(np.any(net[1].planes.offset != 0))
    assert any(isinstance(step, OnesColumn) for op in graph.ops for step in op.steps) == has_offset
    columns = sum(layer.n_columns for layer in place(graph, chip).layers)
    assert columns == (net[1].out_channels // net[1].groups + has_offset) * net[1].planes.n_planes


def test_a_pad_value_that_is_said_stays_the_code_that_it_is():
    form = Format("unsigned", 4, scale=0.5, zero=3.0)
    conv = Shifted(np.ones((1, 1, 3, 3), int), 1.0, 0.25, padding=1, bias=False, attrs=LayerAttrs(pad_value=1))
    graph = capture(nn.Sequential(Coded(form), conv).double(), images(1, 1, 1, 1))
    # one number 0.5 * (7 - 3) = 2, and around it eight of 0.5 * (1 - 3) = -1; weights of 1.25
    assert reference(graph, np.full((1, 1, 1, 1), 2.0)).tolist() == [[[[1.25 * (2 - 8)]]]]
    assert run(place(graph, IDEAL), np.full((1, 1, 1, 1), 2.0)).outputs.tolist() == [[[[1.25 * (2 - 8)]]]]


def test_the_zero_of_a_code_pads_where_there_is_one_and_a_table_corrects_where_there_is_none():
    def graph_of(zero):
        conv = Shifted(np.ones((1, 1, 3, 3), int), 1.0, 0.0, padding=1, bias=False)
        return capture(nn.Sequential(Coded(Format("unsigned", 4, zero=zero)), conv).double(), images(1, 1, 3, 3))

    whole, between = graph_of(3.0), graph_of(2.5)
    assert whole.ops[1].product.attrs.pad_value == 3
    assert [type(step).__name__ for step in whole.ops[1].steps] == ["Affine"]
    assert between.ops[1].product.attrs.pad_value == 0
    assert [type(step).__name__ for step in between.ops[1].steps] == ["SpatialAffine"]
    assert between.ops[1].steps[0].offset.tolist() == [[[-10, -15, -10], [-15, -22.5, -15], [-10, -15, -10]]]


def test_weights_with_an_offset_do_not_enter_a_graph_as_they_are():
    weights = PlaneSum(planes=np.ones((1, 2, 3)), factors=[1], offset=0.5)
    product = Product(kind="linear", weights=weights)
    form = Format("unsigned", 2)
    ops = (
        Op(name="q", input="x", output=Tensor("c", (3,), form), steps=(Quantize(form),)),
        Op(name="fc", input="c", output=Tensor("y", (2,), REAL), product=product),
    )
    message = r"^fc: linear: weights must be planes without an offset, got an offset; take it apart with imcsim\.graph"
    with pytest.raises(ValueError, match=message):
        Graph(name="g", inputs=(Tensor("x", (3,), REAL),), ops=ops, outputs=("y",))
