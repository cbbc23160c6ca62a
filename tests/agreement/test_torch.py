"""Random networks of quantized layers: PyTorch in double precision against the reference and against a chip.

They share how a latent weight becomes codes (`imcsim.quant`) and nothing else. Samples in which some number comes
within 1e-6 of a threshold are left out: there the last bit decides.
"""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TIM_DNN, seeds, variant
from torch import nn

from imcsim.functional.execute import run
from imcsim.functional.reference import reference, tensors_of
from imcsim.graph import Quantize
from imcsim.graph.capture import as_written, capture
from imcsim.mapping.place import place
from imcsim.quant import (
    InputQuantizer,
    IntConv2d,
    IntLinear,
    SignActivation,
    SignedActivation,
    TernaryActivation,
    TernaryConv2d,
    TernaryLinear,
    UnsignedActivation,
)

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})


class Residual(nn.Module):
    """``x + inner(x)``, the identity first or last."""

    def __init__(self, inner, x_first):
        super().__init__()
        self.inner, self.x_first = inner, x_first

    def forward(self, x):
        return x + self.inner(x) if self.x_first else self.inner(x) + x


@st.composite
def networks(draw):
    """A module in double precision with random statistics and scales, and the shape of its input."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    size = draw(st.integers(5, 8))
    shape = (draw(st.integers(1, 3)), size, size)
    layers = [draw(st.sampled_from([TernaryActivation(0.3), InputQuantizer(3, scale=0.25), SignedActivation(3)]))]
    at = shape
    for _ in range(draw(st.integers(1, 3))):
        for layer in draw(blocks(*at[:2])):
            if at[1] >= 3 or not isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
                layers.append(layer)
                at = shape_behind(layer, at)
    layers += draw(heads(*at))
    net = nn.Sequential(*layers).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(std=2)
            module.running_var.uniform_(0.5, 4)
            if module.affine:
                module.weight.data.normal_()
                module.bias.data.normal_(std=0.5)
    return net, shape


def shape_behind(layer, shape):
    with torch.no_grad():
        return tuple(layer.eval()(torch.zeros(1, *shape)).shape[1:])


def activations():
    return st.sampled_from(
        [
            [TernaryActivation()],
            [SignActivation()],
            [SignActivation(0)],
            [SignActivation(-1)],
            [nn.ReLU(), UnsignedActivation(2, scale=0.7)],
            [UnsignedActivation(4, scale=0.3)],
            [UnsignedActivation(6, scale=0.1)],
            [SignedActivation(4, scale=0.5)],
        ]
    )


def pools():
    return st.sampled_from([[], [nn.MaxPool2d(2)], [nn.MaxPool2d(3, 1, 1)], [nn.AvgPool2d(2)], [nn.AvgPool2d(3, 2, 1)]])


@st.composite
def blocks(draw, c, size):
    """A convolution and what follows it, up to codes again."""
    kind = draw(st.sampled_from([TernaryConv2d, IntConv2d]))
    per_channel, bias = draw(st.booleans()), draw(st.booleans())
    options = {"per_channel": per_channel, "bias": bias} | ({"bits": 4} if kind is IntConv2d else {})
    kernel = draw(st.sampled_from([1, 3, (3, 1)] if size >= 3 else [1]))
    if draw(st.booleans()) and kernel != (3, 1):
        inner = [kind(c, c, kernel, padding=kernel // 2, **options), nn.BatchNorm2d(c)]
        return [Residual(nn.Sequential(*inner), draw(st.booleans())), *draw(pools()), *draw(activations())]
    groups = draw(st.sampled_from([1, c]))
    conv = kind(
        c,
        groups * draw(st.integers(1, 3)),
        kernel,
        stride=draw(st.integers(1, 2)),
        padding=draw(st.integers(0, 1)),
        groups=groups,
        **options,
    )
    norm = nn.BatchNorm2d(conv.out_channels, affine=draw(st.booleans()))
    before, between, after = (draw(pools()) if at == draw(st.integers(0, 3)) else [] for at in range(3))
    tail = [*after, *draw(activations())] if after and isinstance(after[0], nn.AvgPool2d) else after
    return [conv, *before, norm, *between, *draw(activations()), *tail]


@st.composite
def heads(draw, c, height, width):
    """Scores, by a linear layer or by a global pool."""
    if draw(st.booleans()):
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LogSoftmax(dim=1)]
    linear = draw(st.sampled_from([TernaryLinear, IntLinear]))
    return [nn.Flatten(), linear(c * height * width, 4), nn.BatchNorm1d(4), nn.LogSoftmax(dim=1)]


def outputs_and_margins(net, x):
    """Return what PyTorch gives (b ...), and for each sample how near any number comes to a threshold."""
    nearest = np.full(len(x), np.inf)

    def note(module, inputs, output):
        nonlocal nearest
        step = module.imc_quantizer()
        seen = inputs[0].numpy().reshape(len(x), -1, 1)
        if isinstance(step, Quantize):
            halves = seen / step.format.scale - 0.5
            away = np.abs(halves - np.round(halves)) * step.format.scale
        else:
            away = np.abs(seen - step.thresholds.ravel())
        nearest = np.minimum(nearest, away.min(axis=(1, 2)))

    hooks = [m.register_forward_hook(note) for m in net.modules() if hasattr(m, "imc_quantizer")]
    with torch.no_grad():
        outputs = net(x).numpy()
    for hook in hooks:
        hook.remove()
    return outputs, nearest


@settings(max_examples=20)
@given(networks(), seeds())
def test_a_captured_network_gives_what_pytorch_gives(network, seed):
    net, shape = network
    x = np.random.default_rng(seed).normal(size=(6, *shape)) * 1.5
    wanted, nearest = outputs_and_margins(net, torch.from_numpy(x))
    clear = nearest > 1e-6
    graph = capture(net, torch.from_numpy(x[:2]))
    found = reference(graph, x)
    np.testing.assert_allclose(found[clear], wanted[clear], rtol=1e-9, atol=1e-9)
    assert np.array_equal(run(place(graph, IDEAL), x).outputs, found)
    written = reference(as_written(net, torch.from_numpy(x[:2])), x)
    np.testing.assert_allclose(written[clear], wanted[clear], rtol=1e-9, atol=1e-9)


def test_most_samples_are_clear_of_every_threshold():
    torch.manual_seed(0)
    net = nn.Sequential(TernaryActivation(), TernaryConv2d(2, 4, 3), nn.BatchNorm2d(4), TernaryActivation())
    net = net.double().eval()
    net[2].running_mean.normal_()
    _, nearest = outputs_and_margins(net, torch.randn(50, 2, 6, 6, dtype=torch.float64))
    assert np.mean(nearest > 1e-6) > 0.9


def test_every_code_inside_a_network_is_that_of_pytorch():
    torch.manual_seed(1)
    layers = [
        InputQuantizer(4, scale=0.25),
        TernaryConv2d(2, 6, 3, padding=1, groups=2, per_channel=True),
        nn.BatchNorm2d(6),
        nn.MaxPool2d(2),
        TernaryActivation(),
        IntConv2d(6, 5, 3, stride=2, padding=1, bits=4),
        nn.BatchNorm2d(5),
        UnsignedActivation(3, scale=0.4),
    ]
    net = nn.Sequential(*layers).double().eval()
    for norm in (net[2], net[6]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.05, 1)
        norm.weight.data.normal_()
        norm.bias.data.normal_()
    assert net[2].weight.min() < 0 < net[2].weight.max()
    x = torch.randn(40, 2, 8, 8, dtype=torch.float64)
    _, nearest = outputs_and_margins(net, x)
    clear = nearest > 1e-6
    assert clear.mean() > 0.5
    tensors = tensors_of(capture(net, x), x.numpy())
    with torch.no_grad():
        for upto, name in ((1, "_0"), (5, "_4"), (8, "_7")):
            module = net[upto - 1]
            scale = module.format.scale if hasattr(module, "format") else 1.0
            assert np.array_equal(tensors[name][clear], (net[:upto](x).numpy() / scale)[clear])
            assert len(np.unique(tensors[name])) > 2
