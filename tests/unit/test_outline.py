"""Networks that are told by their shapes: what the records hold, and what they say when values are asked of them."""

import numpy as np
import pytest

from imcsim.analytic import estimate
from imcsim.analytic.counts import count_actions
from imcsim.arch.load import load_chip
from imcsim.costs.price import price
from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.functional.execute import execute
from imcsim.graph import TERNARY, AddChannels
from imcsim.graph.outline import Outline, Weights
from imcsim.graph.passes import simplify
from imcsim.mapping.lower import lower
from imcsim.mapping.place import place
from imcsim.run import run
from imcsim.sim import simulate
from imcsim.ternary import PlaneSum
from imcsim.workloads import find_workload, load_workload

NO_VALUES = r"^tiny: has shapes alone, no weights, so no values; run it with --engine simulate or estimate$"


def outline(shape=(3, 8, 8), **told):
    return Outline("tiny", shape, weights=Weights(zero_fraction=0.25), **told)


def tiny():
    net = outline()
    x = net.conv("a", net.input, 4, 3, padding=1)
    y = net.conv("b", x, 4, 3, padding=1, add=x)
    return net, net.linear("last", net.average("average", y), 10, codes=False)


def test_weights_without_values_know_their_shape_and_their_zeros():
    weights = PlaneSum.of_shape((4, 3, 3, 3), zero_fraction=0.25, of="tiny", n_planes=2, minus=1.0)
    assert (weights.shape, weights.n_planes, weights.zero_fraction) == ((4, 3, 3, 3), 2, 0.25)
    assert weights.factors.tolist() == [1, 2]
    assert not weights.has_values
    assert weights == PlaneSum.of_shape((4, 3, 3, 3), zero_fraction=0.25, of="tiny", n_planes=2)
    assert PlaneSum.of_shape((4, 3), zero_fraction=0.25, of="tiny", minus=0.5).is_asymmetric


@pytest.mark.parametrize(
    "touch",
    [
        PlaneSum.to_numbers,
        PlaneSum.to_codes,
        lambda weights: np.asarray(weights.planes),
        lambda weights: weights.planes[0],
        lambda weights: weights.planes.sum(),
    ],
)
def test_whoever_asks_for_a_value_is_told_in_one_line(touch):
    with pytest.raises(DataError, match=NO_VALUES):
        touch(PlaneSum.of_shape((4, 3), zero_fraction=0.25, of="tiny"))


def test_a_share_of_zeros_is_a_share_and_a_shape_has_no_empty_axis():
    with pytest.raises(ConfigError, match=r"^tiny: zero_fraction must be from 0 to 1, got 40$"):
        PlaneSum.of_shape((4, 3), zero_fraction=40, of="tiny")
    with pytest.raises(ConfigError, match=r"^tiny: weights must have planes and a shape \(p ...\) of 1 or more, got"):
        PlaneSum.of_shape((4, 0), zero_fraction=0.4, of="tiny")


def test_an_outline_has_the_ops_that_a_captured_network_would_have():
    net, x = tiny()
    graph = simplify(net.graph(x))
    assert [(op.name, [type(step).__name__ for step in op.steps]) for op in graph.ops] == [
        ("input", ["Quantize"]),
        ("a", ["Threshold"]),
        ("b", ["Affine", "Add", "Threshold", "AvgPool", "Threshold", "Flatten"]),
        ("last", ["Affine"]),
    ]
    assert [graph.n_macs(op) for op in graph.products] == [4 * 3 * 9 * 64, 4 * 4 * 9 * 64, 40]
    assert not graph.has_values


def test_a_narrower_shortcut_is_added_to_the_first_channels():
    net = outline()
    x = net.conv("a", net.input, 4, 3, padding=1)
    net.conv("b", x, 8, 3, padding=1, add=x)
    (_, joined, _) = net.graph("b").ops[-1].steps
    assert isinstance(joined, AddChannels)


def test_depthwise_has_a_group_for_each_channel_and_concat_adds_up_channels():
    net = outline()
    x = net.conv("a", net.input, 6, 3, padding=1, groups=-1)
    y = net.conv("b", x, 5, 1)
    graph = net.graph(net.concat("both", [x, y, net.average_pool("pool", y, 3, 1, 1)]))
    assert graph.products[0].product.groups == 3
    assert graph.tensors["both"].shape == (16, 8, 8)
    assert str(graph.tensors["both"].format) == "u2"


def test_a_gru_has_the_zeros_that_its_rows_always_have():
    net = outline((6, 1, 5), activations=TERNARY, input_codes=TERNARY)
    graph = net.graph(net.recurrent("gru", "gru", net.input, 4))
    product = graph.products[0].product
    assert product.weights.zero_fraction == 0.25 + 0.75 * 0.25
    assert product.n_weights == 3 * 4 * 10


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda net: net.conv("b", "y", 4, 3), r"^b: must read a tensor that was made before, got 'y'$"),
        (
            lambda net: net.conv("input", net.input, 4, 3),
            r"^tiny: layers must have different names, got 'input' twice$",
        ),
        (lambda net: net.conv("b", net.input, 4, 3, groups=2), r"^b: groups must divide the 3 inputs, got 2$"),
        (lambda net: net.conv("b", net.input, 4, 9), r"^b: window: kernel \(9, 9\) must fit the image"),
    ],
)
def test_a_slip_in_an_outline_is_one_line(build, message):
    with pytest.raises(GraphError, match=message):
        build(outline())


def test_executing_shapes_is_refused_in_one_line_and_all_engines_leave_values_out():
    net, x = tiny()
    plan = place(simplify(net.graph(x)), load_chip("tim-dnn"))
    with pytest.raises(DataError, match=NO_VALUES):
        execute(plan, np.zeros((1, 3, 8, 8)))
    workload = find_workload("lstm-ptb")
    with pytest.raises(DataError, match=r"^lstm-ptb: has shapes alone, no weights"):
        run(workload, plan.chip, engine="execute")
    summary = run(workload, plan.chip).summary
    assert summary["simulate"]
    assert summary["estimate"]
    assert summary["accuracy"] is None
    assert not summary["has_values"]


def test_an_outline_counts_what_a_captured_network_counts():
    """The layers of the first stages of the captured ResNet-18, told by their shapes."""
    pytest.importorskip("torch")
    from imcsim.graph.capture import capture

    module = find_workload("resnet18-cifar-ternary").module
    net = outline((3, 32, 32))
    x = net.conv("stem", net.input, 64, 3, padding=1)
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            at, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            y = net.conv(f"{at}.conv1", x, width, 3, stride=stride, padding=1)
            if stride == 1:
                x = net.conv(f"{at}.conv2", y, width, 3, padding=1, add=x)
            else:
                y = net.conv(f"{at}.conv2", y, width, 3, padding=1, codes=False)
                x = net.conv(f"{at}.shortcut.0", x, width, 1, stride=stride, add=y)
    ours = simplify(net.graph(net.linear("linear", net.average("average", x), 10, codes=False)))
    theirs = capture(module.ResNet18("2-bit"), module.example_input())
    chip = load_chip("tim-dnn")
    told, captured = (count_actions(place(graph, chip)) for graph in (ours, theirs))
    last = {"stages.3.1.conv2", "linear", "input", "pixels"}  # its average goes into 6 bits
    assert {layer: told[layer] for layer in told if layer not in last} == {
        layer: captured[layer] for layer in captured if layer not in last
    }


def test_loading_a_network_of_shapes_gives_the_same_graph_again():
    assert load_workload("resnet20-cifar") == load_workload("resnet20-cifar")


@pytest.mark.parametrize("norm", ["before", "behind"])
def test_a_block_that_attends_has_the_products_of_its_paper_and_engines_agree_on_it(norm):
    net = outline((8, 1, 5))
    graph = simplify(net.graph(net.transformer("block", net.input, 2, 16, norm=norm)))
    assert sum(map(graph.n_macs, graph.products)) == 5 * (4 * 8 * 8 + 2 * 8 * 16)
    names = [op.name.removeprefix("block.") for op in graph.ops if op.product is None]
    assert {"attention.chances", "attention.context"} < set(names)
    plan = place(graph, load_chip("tim-dnn"))
    counted = count_actions(plan)
    for part in ("chances", "context"):
        assert counted[f"block.attention.{part}"]["sfu.vpe"] >= 2 * 5 * 5 * 4
    assert counted == lower(plan, price(plan.chip)).actions
    bounds = estimate(plan).bounds
    assert bounds.least_ns <= simulate(plan).latency_ns <= bounds.greatest_ns


def test_heads_must_divide_the_channels():
    net = outline((8, 1, 5))
    with pytest.raises(GraphError, match=r"^block\.attention: n_heads must divide the 8 channels, got 3$"):
        net.transformer("block", net.input, 3, 16)
