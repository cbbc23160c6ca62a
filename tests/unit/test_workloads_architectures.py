"""The workloads whose network takes any method: they are captured, go onto tiles, and tiles give what torch gives."""

import os
from functools import cache

import numpy as np
import pytest
import torch
from methods import check_on_tiles, example
from strategies import TIM_DNN
from torch import nn

from imcsim.analytic import estimate
from imcsim.errors import DataError
from imcsim.graph import Product, RealProduct
from imcsim.mapping.place import place
from imcsim.quant.architectures import (
    GroupedConv2d,
    bireal_net18,
    lenet,
    meliusnet22,
    reactnet,
    resnet18,
    resnet20,
    resnete18,
    vgg_small,
)
from imcsim.quant.digital import DigitalConv2d
from imcsim.quant.drawn import drawn, drawn_images, measure_norms, norms_of
from imcsim.quant.integer import IntWeights
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.methods import find_method
from imcsim.quant.networks import Float
from imcsim.workloads import find_workload

SMALL = ["fashion-cnn", "mnist-cnn", "lenet"]
CIFAR = ["vgg-small", "resnet20-quantized"]
IMAGENET = ["resnet18-quantized", "bireal-net18", "reactnet", "meliusnet22", "resnete18"]

NARROW = {
    "lenet": lambda method: lenet(method, widths=(4, 6, 16)),
    "vgg-small": lambda method: vgg_small(method, widths=(4, 4, 8, 8, 12, 12)),
    "resnet20-quantized": lambda method: resnet20(method, width=4),
    "resnet18-quantized": lambda method: resnet18(method, width=4, n_classes=5),
    "bireal-net18": lambda method: bireal_net18(method, width=4, n_classes=5),
    "reactnet": lambda method: reactnet(method, widths=(4, 8, 8, 16, 16, 32), n_classes=5),
    "meliusnet22": lambda method: meliusnet22(
        method, growth=4, stem=(8, 8), n_blocks=(2, 1, 1), reduced=(8, 6), n_classes=5
    ),
    "resnete18": lambda method: resnete18(method, width=4, n_classes=5),
}
"""The same networks with few channels, for images of 32 x 32, LeNet's of 28 x 28."""


def workload(name):
    return find_workload(name).module


@cache
def narrow(name):
    """The network of few channels in eval mode, double precision, and two images for it."""
    method = find_method(workload(name).METHOD)
    images = example(4, n_channels=1, size=28) if name == "lenet" else example(4, n_channels=3, size=32)
    return drawn(lambda given: NARROW[name](given).double(), method, images), images[:2]


def macs_by_kind(network, x):
    """Multiply-adds of *x* (1 ...): in the method's layers, in real layers, and in the first and the last layer."""
    found = {"method": 0, "real": 0, "edges": 0}

    def count(layer, inputs, output):
        is_edge = isinstance(layer, QuantizedWeights) and isinstance(layer.weight_quantizer, IntWeights)
        kind = "edges" if is_edge else "method" if isinstance(layer, QuantizedWeights) else "real"
        found[kind] += output.numel() * layer.weight[0].numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.to("meta").eval()(x.to("meta"))
    return found


# --- what they are --------------------------------------------------------------------------------------------------

# 3x3 windows x inputs x outputs x positions
RESNET_STAGE = 4 * 9 * 64 * 64 * 56 * 56
RESNET_OTHER = 9 * 64 * 128 * 28 * 28 + 3 * 9 * 128 * 128 * 28 * 28
RESNET_SHORTCUT = 64 * 128 * 28 * 28
RESNET_EDGES = 49 * 3 * 64 * 112 * 112 + 512 * 1000


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lenet", {"method": 25 * 20 * 50 * 64 + 800 * 500, "edges": 25 * 20 * 576 + 500 * 10}),
        ("resnet18-quantized", {"method": RESNET_STAGE + 3 * (RESNET_OTHER + RESNET_SHORTCUT), "edges": RESNET_EDGES}),
        (
            "bireal-net18",
            {"method": RESNET_STAGE + 3 * RESNET_OTHER, "real": 3 * RESNET_SHORTCUT, "edges": RESNET_EDGES},
        ),
        ("resnete18", {"method": RESNET_STAGE + 3 * RESNET_OTHER, "real": 3 * RESNET_SHORTCUT, "edges": RESNET_EDGES}),
    ],
)
def test_multiply_adds_are_those_counted_by_hand(name, wanted):
    found = macs_by_kind(workload(name).network(), workload(name).example_input())
    assert {kind: n for kind, n in found.items() if n} == wanted


# Published figures, all recalled: binary and real multiply-adds of an image.
@pytest.mark.parametrize(
    ("name", "n_binary", "n_real"),
    [
        ("bireal-net18", 1.68e9, 1.38e8),
        ("reactnet", 4.82e9, 0.12e8),
        ("meliusnet22", 4.62e9, 1.35e8),
        ("vgg-small", 0.61e9, None),
        ("resnet20-quantized", 0.041e9, None),
        ("resnet18-quantized", 1.81e9, None),
    ],
)
def test_multiply_adds_are_those_of_the_papers(name, n_binary, n_real):
    found = macs_by_kind(workload(name).network(), workload(name).example_input())
    if n_real is None:
        assert sum(found.values()) == pytest.approx(n_binary, rel=0.01)
    else:
        assert found["method"] == pytest.approx(n_binary, rel=0.005)
        assert found["real"] + found["edges"] == pytest.approx(n_real, rel=0.015)


@pytest.mark.parametrize("name", [*SMALL, *CIFAR, *IMAGENET])
def test_each_says_what_it_is_and_takes_the_image_it_shows(name):
    module = workload(name)
    assert module.DESCRIPTION
    assert module.PAPERS
    assert "8-bit pixels" in module.EIGHT_BIT_LAYERS
    assert not find_workload(name).has_data
    network = module.network().to("meta").eval()
    with torch.no_grad():
        n_classes = network(module.example_input().to("meta")).shape[1]
    assert n_classes == (1000 if name in IMAGENET else 10)


@pytest.mark.parametrize("name", sorted(NARROW))
@pytest.mark.parametrize("method", ["bnn", "twn", "bi-real", "reactnet", "ir-net", "bbg", "meliusnet"])
def test_every_architecture_takes_every_kind_of_method(name, method):
    made = NARROW[name](find_method(method)).eval()
    x = drawn_images(1, n_channels=1, size=28) if name == "lenet" else drawn_images(1)
    assert made(x).exp().sum().item() == pytest.approx(1)
    quantizers = {type(m.weight_quantizer) for m in made.modules() if isinstance(m, QuantizedWeights)}
    assert quantizers == {IntWeights, type(find_method(method).weights())}


def test_a_float_network_has_no_quantized_weights_but_at_its_ends():
    quantized = [m for m in NARROW["bireal-net18"](Float()).modules() if isinstance(m, QuantizedWeights)]
    assert len(quantized) == 2


def test_the_networks_made_for_binary_layers_differ_where_their_papers_do():
    bireal, resnete = bireal_net18(find_method("bnn")), resnete18(find_method("bnn"))
    assert [type(m).__name__ for m in bireal[3:6]] == ["MaxPool2d", "ShortcutBlock", "ShortcutBlock"]
    assert [type(m).__name__ for m in resnete[3:6]] == ["MaxPool2d", "BatchNorm2d", "ShortcutBlock"]
    assert [type(m).__name__ for m in resnete[-7:-5]] == ["ReLU", "AdaptiveAvgPool2d"]


def test_a_grouped_convolution_is_that_of_torch():
    torch.manual_seed(0)
    ours = GroupedConv2d(8, 12, 4)
    theirs = nn.Conv2d(8, 12, 3, padding=1, groups=4, bias=False)
    theirs.weight.data = torch.cat([conv.weight.data for conv in ours.groups])
    x = torch.randn(2, 8, 5, 5)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


# --- on tiles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NARROW))
def test_tiles_give_what_torch_gives_with_few_channels(name):
    network, x = narrow(name)
    graph = check_on_tiles(network, x)
    n_real = sum(isinstance(step, RealProduct) for op in graph.ops for step in (op.product, *op.steps))
    n_quantized = sum(isinstance(m, QuantizedWeights) for m in network.modules())
    assert n_real == sum(isinstance(m, DigitalConv2d) for m in network.modules())
    assert sum(isinstance(op.product, Product) for op in graph.ops) == n_quantized
    assert estimate(place(graph, TIM_DNN)).latency_ns > 0


@pytest.mark.parametrize("name", [*SMALL, *CIFAR])
def test_the_whole_network_goes_onto_tim_dnn(name):
    graph = find_workload(name).graph()
    plan = place(graph, TIM_DNN)
    placed = [layer.name for layer in plan.layers if layer.is_on_tiles]
    assert placed == [op.name for op in graph.ops if isinstance(op.product, Product)]
    assert estimate(plan).latency_ns > 0


@pytest.mark.parametrize("name", ["fashion-cnn", "lenet"])
def test_tiles_give_what_torch_gives_with_all_channels(name):
    check_on_tiles(workload(name).build(), workload(name).example_input().double())


# --- how they are made ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_building_twice_gives_the_same_bits_whatever_the_threads(name):
    state, n_threads = workload(name).build().state_dict(), torch.get_num_threads()
    torch.set_num_threads(1 if n_threads > 1 else 2)
    try:
        other = workload(name).build().state_dict()
    finally:
        torch.set_num_threads(n_threads)
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("name", SMALL)
def test_building_leaves_the_generator_of_torch_alone(name):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    workload(name).build()
    assert torch.equal(torch.rand(1), wanted)


def test_what_is_built_is_in_eval_mode_with_the_method_that_is_named():
    network = workload("resnet20-quantized").build()
    assert not any(module.training for module in network.modules())
    layers = [m for m in network.modules() if isinstance(m, QuantizedWeights)]
    assert {type(layer.weight_quantizer).__name__ for layer in layers} == {"IntWeights", "TernaryWeights"}


def test_norms_hold_the_statistics_of_the_images():
    norm, scaled = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    network = nn.Sequential(norm, scaled).double().eval()
    x = 5 + 3 * torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    measure_norms(network, x)
    assert torch.allclose(norm.running_mean, x.mean(dim=(0, 2, 3)))
    assert torch.allclose(norm.running_var, x.var(dim=(0, 2, 3), correction=0))
    assert torch.allclose(scaled.running_mean, torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert not any(module.training for module in network.modules())
    measure_norms(network.train(), x)
    assert all(module.training for module in network.modules())
    assert not norm._forward_pre_hooks


def test_no_sum_stands_exactly_at_a_threshold():
    offsets = torch.cat([norm.bias.flatten() for norm in norms_of(workload("lenet").build())])
    assert offsets.abs().max() <= 0.1
    assert torch.unique(offsets).numel() > 0.99 * offsets.numel()


def test_drawn_images_are_whole_256ths_and_cut_where_4_does_not_divide_the_side():
    x = drawn_images(2, n_channels=1, size=30, seed=7)
    assert tuple(x.shape) == (2, 1, 30, 30)
    assert torch.equal(x * 256, (x * 256).round())
    assert 0 <= x.min() < x.max() < 1
    assert torch.equal(x, drawn_images(2, n_channels=1, size=30, seed=7))
    assert not torch.equal(x, drawn_images(2, n_channels=1, size=30, seed=8))


# --- their data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape"), [*((name, (1, 28, 28)) for name in SMALL), ("vgg-small", (3, 32, 32))])
@pytest.mark.skipif(not os.environ.get("IMCSIM_DATA"), reason="IMCSIM_DATA is not set: no images here")
def test_images_are_whole_256ths_with_a_label_each(name, shape):
    x, y = workload(name).split("test")
    assert tuple(x.shape) == (len(y), *shape)
    assert np.array_equal(np.unique(y), np.arange(10))
    assert torch.equal(x[:100] * 256, (x[:100] * 256).round())
    assert x.max() == 255 / 256


@pytest.mark.parametrize("name", [*SMALL, *CIFAR])
def test_without_a_folder_it_says_what_to_set(name, monkeypatch):
    monkeypatch.delenv("IMCSIM_DATA", raising=False)
    with pytest.raises(DataError, match="pass --data or set IMCSIM_DATA"):
        workload(name).split("train")
