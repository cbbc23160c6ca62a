"""Networks of real numbers with assumed bits, against the same networks told by their shapes, which share no reader."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn

import imcsim
from imcsim.analytic import estimate
from imcsim.arch.load import load_chip
from imcsim.mapping.place import place
from imcsim.sim import simulate
from imcsim.workloads import load_workload

BITS = "W=ternary,A=2"


def convolution(n_inputs, n_outputs, kernel, stride=1, groups=1):
    conv = nn.Conv2d(n_inputs, n_outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_outputs))


class Block(nn.Module):
    """A residual block; the shortcut is computed before the rest, or behind it."""

    def __init__(self, n_inputs, n_outputs, stride, *, is_bottleneck, shortcut_first):
        super().__init__()
        self.shortcut_first = shortcut_first
        n_inner = n_outputs // 4 if is_bottleneck else n_outputs
        if is_bottleneck:
            layers = [(n_inputs, n_inner, 1), (n_inner, n_inner, 3, stride), (n_inner, n_outputs, 1)]
        else:
            layers = [(n_inputs, n_inner, 3, stride), (n_inner, n_outputs, 3)]
        self.layers = nn.ModuleList(convolution(*layer) for layer in layers)
        is_same = stride == 1 and n_inputs == n_outputs
        self.shortcut = nn.Identity() if is_same else convolution(n_inputs, n_outputs, 1, stride)

    def forward(self, x):
        shortcut = self.shortcut(x) if self.shortcut_first else None
        y = x
        for layer in self.layers[:-1]:
            y = layer(y).relu()
        y = self.layers[-1](y)
        return torch.relu(y + (self.shortcut(x) if shortcut is None else shortcut))


def resnet(n_blocks, *, is_bottleneck=False, shortcut_first=True):
    layers, n_channels = [*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for stage, n in enumerate(n_blocks):
        n_outputs = (256 if is_bottleneck else 64) << stage
        for block in range(n):
            stride = 2 if stage and not block else 1
            layers.append(
                Block(n_channels, n_outputs, stride, is_bottleneck=is_bottleneck, shortcut_first=shortcut_first)
            )
            n_channels = n_outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_channels, 1000))


def alexnet():
    def conv(n_inputs, n_outputs, kernel, **options):
        return nn.Sequential(nn.Conv2d(n_inputs, n_outputs, kernel, **options), nn.ReLU())

    return nn.Sequential(
        conv(3, 96, 11, stride=4, padding=2), nn.MaxPool2d(3, 2),
        conv(96, 256, 5, padding=2, groups=2), nn.MaxPool2d(3, 2),
        conv(256, 384, 3, padding=1), conv(384, 384, 3, padding=1, groups=2), conv(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(),
        nn.Linear(4096, 1000),
    )  # fmt: skip


def vgg16():
    layers, n_channels = [], 3
    for widths in ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)):
        for width in widths:
            layers += [nn.Conv2d(n_channels, width, 3, padding=1), nn.ReLU()]
            n_channels = width
        layers.append(nn.MaxPool2d(2))
    sizes = (25088, 4096, 4096, 1000)
    linear = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU(), nn.Dropout())]
    return nn.Sequential(*layers, nn.Flatten(), *linear[:-2])


def mobilenet_v1():
    layers = [*convolution(3, 32, 3, 2), nn.ReLU()]
    n_channels = 32
    for n_outputs, stride in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]:
        layers += [*convolution(n_channels, n_channels, 3, stride, n_channels), nn.ReLU()]
        layers += [*convolution(n_channels, n_outputs, 1), nn.ReLU()]
        n_channels = n_outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000))


NETWORKS = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "mobilenet-v1": mobilenet_v1,
    "resnet18": lambda: resnet((2, 2, 2, 2)),
    "resnet34": lambda: resnet((3, 4, 6, 3)),
    "resnet50": lambda: resnet((3, 4, 6, 3), is_bottleneck=True),
}


def captured(build, name):
    """The network, whose weights nobody has, so that it takes no memory."""
    with torch.device("meta"):
        return imcsim.capture(build(), torch.zeros(1, 3, 224, 224), name=name, assume=BITS)


def figures(graph, chip):
    found = estimate(place(graph, chip))
    n_macs = sum(map(graph.n_macs, graph.products))
    counts = sum((Counter(counts) for counts in found.counts.values()), Counter())
    return n_macs, counts, found.latency_ns, found.energy_pJ


@pytest.mark.parametrize("name", NETWORKS)
def test_a_module_of_real_numbers_is_the_network_that_is_told_by_its_shapes(name):
    chip = load_chip("tim-dnn")
    found = figures(captured(NETWORKS[name], name), chip)
    told = figures(load_workload(name), chip)
    assert found[:2] == told[:2]
    assert found[2:] == pytest.approx(told[2:], rel=1e-12)


def test_a_simulation_takes_as_long_for_both():
    chip = load_chip("tim-dnn")
    traces = [simulate(place(g, chip)) for g in (captured(alexnet, "alexnet"), load_workload("alexnet"))]
    assert traces[0].latency_ns == traces[1].latency_ns
    assert traces[0].energy_pJ == pytest.approx(traces[1].energy_pJ, rel=1e-12)


def test_a_shortcut_that_is_computed_last_takes_the_sum():
    """The op that makes the later of two tensors adds them: then real numbers of the other go through the buffer."""
    chip = load_chip("tim-dnn")
    found = figures(captured(lambda: resnet((2, 2, 2, 2), shortcut_first=False), "resnet18"), chip)
    told = figures(load_workload("resnet18"), chip)
    assert found[0] == told[0]
    assert found[1]["tile.access"] == told[1]["tile.access"]
    assert found[2:] == pytest.approx(told[2:], rel=0.02)
    assert found[2:] != pytest.approx(told[2:], rel=1e-6)
