"""The ternary ResNet-18: what it is made of, counted by hand, and that what it draws is the same every time."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError, DataError
from imcsim.graph import BINARY, TERNARY, Add
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant.layers import QuantizedWeights
from imcsim.workloads import find_workload

WORKLOAD = find_workload("resnet18-cifar-ternary")

# 3x3 windows x inputs x outputs x positions
STEM = 9 * 3 * 64 * 32 * 32
FIRST_STAGE = 4 * (9 * 64 * 64 * 32 * 32)
OTHER_STAGE = 9 * 64 * 128 * 16 * 16 + 3 * (9 * 128 * 128 * 16 * 16) + 64 * 128 * 16 * 16  # as much in all three
LINEAR = 512 * 10


@pytest.fixture(scope="module")
def net():
    return WORKLOAD.module.build()


@pytest.fixture(scope="module")
def graph(net):
    return capture(net, WORKLOAD.module.example_input())


def test_it_has_the_layers_and_the_multiply_adds_of_a_resnet_18(graph):
    assert len(graph.products) == 1 + 16 + 3 + 1
    macs = {op.name: graph.n_macs(op) for op in graph.products}
    assert macs["stem"] == STEM == 1_769_472
    assert sum(n for name, n in macs.items() if name.startswith("stages.0")) == FIRST_STAGE == 150_994_944
    for stage in ("stages.1", "stages.2", "stages.3"):
        assert sum(n for name, n in macs.items() if name.startswith(stage)) == OTHER_STAGE == 134_217_728
    assert macs["linear"] == LINEAR
    assert sum(macs.values()) == STEM + FIRST_STAGE + 3 * OTHER_STAGE + LINEAR == 555_422_720


def test_every_layer_is_one_ternary_plane_and_every_block_adds_its_shortcut(graph):
    assert {op.product.n_planes for op in graph.products} == {1}
    adds = [step.other for op in graph.ops for step in op.steps if isinstance(step, Add)]
    assert len(adds) == 8
    assert graph.tensors["act"].shape == (64, 32, 32)
    assert "act" in adds  # the first block's shortcut: the codes of the stem
    assert [graph.tensors[op.output.name].shape for op in graph.ops if op.name.endswith("shortcut.0")] == [
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
    ]


def test_it_goes_onto_tim_dnn_round_by_round_with_every_weight_written(graph):
    plan = place(graph, load_chip("tim-dnn"))
    weights = 9 * (3 * 64 + 4 * 64 * 64) + LINEAR
    for width in (128, 256, 512):
        weights += 9 * (width // 2 * width + 3 * width * width) + width // 2 * width
    assert weights == 11_164_352
    assert plan.style == "temporal"  # 32 tiles hold 2.1 million
    held = Counter()
    for layer in plan.layers:
        for shard in (shard for part in layer.rounds for shard in part.shards if shard.replica == 0):
            held[layer.name] += shard.n_rows * shard.n_columns
    assert held == {op.name: op.product.weights.planes.size for op in graph.products}
    assert held.total() == weights


@pytest.mark.parametrize(
    ("activations", "kind", "n_bits"),
    [("ternary", TERNARY.kind, 2), ("binary", BINARY.kind, 1), ("2-bit", "unsigned", 2)],
)
def test_the_activations_are_those_that_were_asked_for(activations, kind, n_bits):
    block = WORKLOAD.module.ResNet18(activations).stages[0][0]
    for step in (block.act1.imc_quantizer(), block.act2.imc_quantizer()):
        assert (step.format.kind, step.format.bits) == (kind, n_bits)


def test_other_activations_are_refused():
    message = r"^activations: must be one of ternary, binary, 2-bit, got '4-bit'$"
    with pytest.raises(ConfigError, match=message):
        WORKLOAD.module.ResNet18("4-bit")


def test_the_average_loses_nothing_on_its_way_to_the_linear_layer():
    for activations in ("ternary", "binary", "2-bit"):
        codes = torch.arange(-16.0, 17.0) / 16 if activations != "2-bit" else torch.arange(0.0, 49.0) / 32
        assert torch.equal(WORKLOAD.module.AVERAGES[activations]()(codes), codes)


def test_the_norms_hold_the_statistics_that_the_network_has(net):
    found = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    with torch.no_grad():
        net(WORKLOAD.module.images(4, seed=1))
    assert len(found) == 1 + 16 + 3
    for values in found.values():
        mean, variance = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), correction=0)
        assert mean.abs().max() < 1e-4
        np.testing.assert_allclose(variance, 1, rtol=1e-3)


def test_building_twice_gives_the_same_bits_whatever_the_threads(net):
    n_threads = torch.get_num_threads()
    torch.set_num_threads(3 - n_threads if n_threads in (1, 2) else 1)
    try:
        again = WORKLOAD.module.build()
    finally:
        torch.set_num_threads(n_threads)
    assert not again.training
    state, other = net.state_dict(), again.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[key], other[key]) for key in state)


def test_about_two_weights_in_five_are_zero(net):
    codes = [m.checked_codes()[0].flatten() for m in net.modules() if isinstance(m, QuantizedWeights)]
    assert torch.cat(codes).eq(0).float().mean().item() == pytest.approx(0.4245, abs=0.002)  # P(|w| < 0.56)


def test_there_is_no_test_set():
    with pytest.raises(DataError, match=r"^resnet18-cifar-ternary: data\(\): missing"):
        WORKLOAD.data()
