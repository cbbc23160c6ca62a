"""Laws of networks whose bits are assumed, drawn as models of real numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import chips

from imcsim.analytic import estimate
from imcsim.errors import MappingError
from imcsim.graph import Graph
from imcsim.graph.assumption import parse_assumption
from imcsim.graph.passes import simplify
from imcsim.graph.qonnx.model import Input, Model, Node
from imcsim.graph.qonnx.walk import as_assumed
from imcsim.mapping.place import place
from imcsim.sim import simulate

WEIGHTS = ("binary", "ternary", "3", "5")
DIGITAL = ("Add", "BatchNormalization", "MaxPool", "Relu", "Sigmoid")
ACTIVATIONS = ("binary", "ternary", "1", "2", "3", "5", "u3", "s3")


@st.composite
def assumptions(draw):
    """A text of an assumption."""
    parts = [f"W={draw(st.sampled_from(WEIGHTS))}", f"A={draw(st.sampled_from(ACTIVATIONS))}"]
    for place_ in ("first", "last"):
        if draw(st.booleans()):
            parts.append(f"{place_}={draw(st.integers(2, 8))}")
    return ",".join(parts)


@st.composite
def models(draw):
    """A chain of convolutions with what stands between them, perhaps with a shortcut, and a linear layer."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    nodes, constants = [], {}
    n_channels, size = draw(st.integers(1, 3)), draw(st.integers(4, 7))
    shape = (1, n_channels, size, size)

    def node(kind, *inputs, **attributes):
        name = f"{kind.lower()}{len(nodes)}"
        nodes.append(Node(kind, "", name, inputs, (name,), attributes))
        return name

    def constant(*shape):
        constants[f"c{len(constants)}"] = (1 + rng.random(shape)).astype(np.float32)
        return f"c{len(constants) - 1}"

    x = "x"
    for _ in range(draw(st.integers(1, 3))):
        shortcut = x
        n_outputs = draw(st.sampled_from([2, n_channels]))
        kernel = draw(st.sampled_from([1, 3]))
        x = node("Conv", x, constant(n_outputs, n_channels, kernel, kernel), pads=(kernel // 2,) * 4)
        for kind in draw(st.lists(st.sampled_from(DIGITAL), max_size=3)):
            if kind == "BatchNormalization":
                x = node(kind, x, *(constant(n_outputs) for _ in range(4)))
            elif kind == "MaxPool":
                x = node(kind, x, kernel_shape=(2, 2), strides=(1, 1), pads=(1, 1, 1, 1))
                x = node("MaxPool", x, kernel_shape=(2, 2), strides=(1, 1))
            elif kind == "Add":
                x = node(kind, x, shortcut if n_outputs == n_channels and shortcut != "x" else x)
            else:
                x = node(kind, x)
        n_channels = n_outputs
    x = node("Flatten", node("GlobalAveragePool", x))
    x = node("Gemm", x, constant(3, n_channels), transB=1)
    return Model("drawn.onnx", 13, (Input("x", shape),), constants, tuple(nodes), (x,))


def assumed(model, text) -> Graph:
    return simplify(as_assumed(model, parse_assumption(text), "drawn"))


@given(models(), assumptions(), chips())
@settings(max_examples=30)
def test_the_formulas_count_what_is_simulated(model, text, chip):
    try:
        plan = place(assumed(model, text), chip)
    except MappingError:
        return
    found, trace = estimate(plan), simulate(plan)
    assert found.counts == trace.counts
    assert found.bounds.least_ns <= trace.latency_ns * (1 + 1e-9)
    assert trace.latency_ns <= found.bounds.greatest_ns * (1 + 1e-9)


@given(models(), assumptions())
def test_every_product_reads_codes_of_its_place_and_no_weight_is_known(model, text):
    graph, told = assumed(model, text), parse_assumption(text)
    names = tuple(op.name for op in graph.products)
    assert graph.assumed.weights == graph.assumed.inputs == names
    assert not any(op.product.weights.has_values for op in graph.products)
    places = ["first", *["middle"] * (len(names) - 2), "last"]
    for op, place_ in zip(graph.products, places, strict=True):
        bits = {"binary": 1, "ternary": 2}.get(told.weights[place_]) or int(told.weights[place_])
        assert op.product.n_planes == max(1, bits - 1)


@given(models(), assumptions(), st.integers(0, 99))
def test_what_stands_in_the_place_of_the_weights_changes_nothing(model, text, seed):
    rng = np.random.default_rng(seed)
    read = {node.inputs[1] for node in model.nodes if node.kind in ("Conv", "Gemm")}
    others = {
        name: rng.normal(size=array.shape).astype(np.float32) if name in read else array
        for name, array in model.constants.items()
    }
    other = Model(model.origin, model.opset, model.inputs, others, model.nodes, model.outputs)
    assert assumed(model, text) == assumed(other, text)
