"""Quantized convolutions over sequences: what they compute, how they train, and what the graph has of them."""

import numpy as np
import pytest
import torch
from strategies import TIM_DNN, variant
from torch import nn

from imcsim.errors import ConfigError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant import IntConv1d, IntConv2d, QuantizedConv1d, SignedActivation, TernaryActivation, TernaryConv1d
from imcsim.quant.methods import find_method

IDEAL = variant(TIM_DNN, {"tile.count_max": 16})


@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"padding": "same", "dilation": 2}, {"groups": 4, "bias": False}, {"groups": 2}],
)
def test_it_is_the_convolution_of_pytorch_with_the_quantized_weights(options):
    torch.manual_seed(0)
    layer = TernaryConv1d(4, 8, 3, **options, per_channel=True).double()
    theirs = nn.Conv1d(4, 8, 3, **options).double()
    codes, scale = layer.checked_codes()
    with torch.no_grad():
        theirs.weight.copy_((codes * scale).squeeze(2))
        if layer.bias is not None:
            theirs.bias.copy_(layer.bias)
        x = torch.randint(-1, 2, (2, 4, 11)).double()
        torch.testing.assert_close(layer(x), theirs(x))


def net_of(conv, n_channels):
    return nn.Sequential(
        SignedActivation(4, top=2.0), conv, nn.BatchNorm1d(n_channels), nn.MaxPool1d(2), TernaryActivation(),
        TernaryConv1d(n_channels, 3, 3, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("conv", "n_channels"),
    [
        (TernaryConv1d(4, 6, 3, padding=1), 6),
        (IntConv1d(4, 6, 5, stride=2, bits=4), 6),
        (TernaryConv1d(4, 8, 3, groups=4), 8),
    ],
)
def test_a_chip_gives_what_the_module_gives(conv, n_channels):
    torch.manual_seed(1)
    net = net_of(conv, n_channels).double()
    net[2].running_mean.uniform_(-1, 1)
    net.eval()
    x = torch.randn(5, 4, 20, dtype=torch.float64)
    graph = capture(net, x)
    found = run(place(graph, IDEAL), x.unsqueeze(2).numpy()).outputs
    assert np.array_equal(found, reference(graph, x.unsqueeze(2).numpy()))
    with torch.no_grad():
        np.testing.assert_allclose(found, net(x).numpy(), rtol=0, atol=1e-12)
    assert np.unique(found).size > 3


def test_a_depthwise_convolution_over_images_is_one_too():
    torch.manual_seed(2)
    net = nn.Sequential(TernaryActivation(), IntConv2d(3, 6, 3, padding=1, groups=3, bits=3)).double().eval()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    graph = capture(net, x)
    assert graph.products[0].product.groups == 3
    found = run(place(graph, IDEAL), x.numpy()).outputs
    with torch.no_grad():
        np.testing.assert_allclose(found, net(x).numpy(), rtol=0, atol=1e-12)


def test_it_learns():
    torch.manual_seed(0)
    net = nn.Sequential(TernaryActivation(), TernaryConv1d(1, 8, 5), nn.BatchNorm1d(8), nn.ReLU(),
                        nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(8, 2))  # fmt: skip
    x = torch.randn(256, 1, 24)
    labels = torch.arange(256) % 2
    x[labels == 1, :, 8:13] = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0])  # a pattern for the window
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(nn.functional.cross_entropy(net(x), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("name", ["twn", "dorefa", "bnn"])
def test_methods_give_convolutions_over_sequences(name):
    torch.manual_seed(0)
    method = find_method(name)
    net = nn.Sequential(method.activation(4), method.conv1d(4, 6, 3, padding=1)).eval()
    assert isinstance(net[1], QuantizedConv1d)
    x = torch.rand(3, 4, 10)
    graph = capture(net, x)
    found = run(place(graph, IDEAL), x.unsqueeze(2).numpy()).outputs[:, :, 0]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(x).numpy(), rtol=0, atol=1e-5)


def test_a_method_whose_convolutions_are_its_own_says_so():
    with pytest.raises(ConfigError, match=r"^lq-nets: a method of convolutions over sequences must bring a quantizer"):
        find_method("lq-nets").conv1d(4, 6, 3)
