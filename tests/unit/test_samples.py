import numpy as np
import pytest

from imcsim import execute
from imcsim.analytic import estimate
from imcsim.errors import DataError, GraphError
from imcsim.functional.execute import run
from imcsim.functional.layer_errors import explain
from imcsim.functional.reference import reference
from imcsim.graph import REAL, TERNARY, Add, Graph, Op, Product, Tensor, Threshold
from imcsim.graph.samples import Samples, checked_inputs
from imcsim.mapping.place import place
from imcsim.sim import simulate
from imcsim.ternary import PlaneSum

CODES = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)


def two_ends():
    """Codes of `left` (3) go through weights to `sums` (2), an output; `right` (2) is added late and gives `late`."""
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1, 0, 1], [0, -1, 1]]], factors=[1]))
    ops = (
        Op(name="quantize", input="left", output=Tensor("codes", (3,), TERNARY), steps=(CODES,)),
        Op(name="linear", input="codes", output=Tensor("sums", (2,), REAL), product=product),
        Op(name="join", input="sums", output=Tensor("late", (2,), REAL), steps=(Add("right", 0.5),)),
    )
    inputs = Tensor("left", (3,), REAL), Tensor("right", (2,), REAL)
    return Graph(name="two", inputs=inputs, ops=ops, outputs=("late", "sums"))


LEFT = np.array([[1.0, 1, 1], [-1, 0, 1]])
RIGHT = np.array([[10.0, 20], [0, -2]])


@pytest.mark.parametrize("x", [{"right": RIGHT, "left": LEFT}, (LEFT, RIGHT), [LEFT.tolist(), RIGHT.tolist()]])
def test_several_inputs_are_given_by_name_or_in_order_and_several_outputs_come_by_name(tiny_chip, x):
    graph = two_ends()
    for found in (execute(place(graph, tiny_chip), x), reference(graph, x)):
        assert list(found) == ["late", "sums"]
        assert found["sums"].tolist() == [[2, 0], [0, 1]]
        assert found["late"].tolist() == [[7, 10], [0, 0]]
    assert run(place(graph, tiny_chip), x).judged.tolist() == [[7, 10], [0, 0]]


def test_no_samples_of_several_inputs_give_no_outputs(tiny_chip):
    graph = two_ends()
    none = {"left": np.zeros((0, 3)), "right": np.zeros((0, 2))}
    for found in (execute(place(graph, tiny_chip), none), reference(graph, none)):
        assert {name: array.shape for name, array in found.items()} == {"late": (0, 2), "sums": (0, 2)}


def test_samples_are_cut_together():
    found = Samples({"a": np.arange(6).reshape(3, 2), "b": np.arange(3)})[1:]
    assert len(found) == 2
    assert {name: array.tolist() for name, array in found.arrays.items()} == {"a": [[2, 3], [4, 5]], "b": [1, 2]}


def test_one_input_may_be_given_by_its_name(tiny_chip, tiny_graph):
    plan, x = place(tiny_graph, tiny_chip), np.ones((2, 1, 4, 4))
    assert np.array_equal(execute(plan, {"x": x}), execute(plan, x))


def test_every_input_comes_from_main_memory_and_every_output_goes_there(tiny_chip):
    plan = place(two_ends(), tiny_chip)
    assert plan.off_chip == {"codes", "sums", "right", "late"}
    bits = {"codes": 3 * 2, "sums": 2 * 16, "right": 2 * 16, "late": 2 * 16}
    for found in (estimate(plan), simulate(plan)):
        linear, join = found.counts["linear"], found.counts["join"]
        assert (linear["main_memory.read"], linear["main_memory.write"]) == (bits["codes"], bits["sums"])
        assert (join["main_memory.read"], join["main_memory.write"]) == (bits["sums"] + bits["right"], bits["late"])


def test_layers_of_several_inputs_are_held_against_the_reference(tiny_chip):
    found = explain(place(two_ends(), tiny_chip), {"left": LEFT, "right": RIGHT})
    assert [layer.layer for layer in found.layers] == ["quantize", "linear", "join"]
    assert found.first_difference is None


def test_what_has_several_is_not_taken_for_what_has_one():
    graph = two_ends()
    with pytest.raises(GraphError, match=r"^two: must have one input here, got 2: left, right$"):
        _ = graph.input
    with pytest.raises(GraphError, match=r"^two: must have one output here, got 2: late, sums$"):
        _ = graph.output


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (LEFT, r"^input: must be 2 arrays, by the names .* or in their order \(left, right\), got one ndarray$"),
        ((LEFT,), r"^input: must be 2 arrays, by the names of the network's inputs .* \(left, right\), got 1$"),
        ({"left": LEFT}, r"^input: must have an array for each .* inputs \(left, right\), got none for 'right'$"),
        ({"left": LEFT, "r": RIGHT}, r"^input: must have the names of the network's inputs \(left, right\), got 'r'$"),
        ((RIGHT, LEFT), r"^input 'left': must have shape \(b, 3\), got \(2, 2\)$"),
        ((LEFT, "x"), r"^input 'right': must be numbers, got could not convert"),
        ((LEFT, 1.0), r"^input 'right': must have shape \(b, 2\), got \(\)$"),
        ((LEFT, RIGHT * np.nan), r"^input 'right': must be finite numbers, got nan$"),
        ((LEFT, RIGHT[:1]), r"^input: must have as many samples in each array, got 2 of left, 1 of right$"),
    ],
)
def test_inputs_that_do_not_fit_the_network_are_one_line(tiny_chip, x, message):
    graph = two_ends()
    for ask in (lambda: execute(place(graph, tiny_chip), x), lambda: checked_inputs(graph, x)):
        with pytest.raises(DataError, match=message):
            ask()


def test_one_input_of_another_name_is_one_line(tiny_chip, tiny_graph):
    with pytest.raises(DataError, match=r"^input: must have the names of the network's inputs \(x\), got 'image'$"):
        execute(place(tiny_graph, tiny_chip), {"image": np.ones((2, 1, 4, 4))})
