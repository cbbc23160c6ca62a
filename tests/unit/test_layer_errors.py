from math import inf, log10

import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.functional.execute import run
from imcsim.functional.layer_errors import Deviation, FirstDifference, LayerErrors, explain, summary_of
from imcsim.graph import REAL, TERNARY, Affine, Format, Graph, Op, Product, Tensor, Threshold, unsigned
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum


def two_layers():
    """Four inputs; two codes, 1 from a sum of 3 and of 1; their scores, 0.5 added to the second."""
    linear = [
        Product(kind="linear", weights=PlaneSum(planes=[planes], factors=[1]))
        for planes in (np.array([[1, 1, 1, 1], [1, -1, 0, 0]]), np.eye(2, dtype=int))
    ]
    bits = unsigned(1)
    quantizer, reached = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY), Threshold([[3], [1]], [0, 1], bits)
    added = Affine(1.0, [0.0, 0.5])
    ops = (
        Op(name="in", input="x", output=Tensor("c", (4,), TERNARY), steps=(quantizer,)),
        Op(name="first", input="c", output=Tensor("d", (2,), bits), product=linear[0], steps=(reached,)),
        Op(name="second", input="d", output=Tensor("y", (2,), REAL), product=linear[1], steps=(added,)),
    )
    return Graph(name="two", inputs=(Tensor("x", (4,), REAL),), ops=ops, outputs=("y",))


X = np.array([[1, -1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]])
"""Sums of the first layer: 0 2, 4 0 and 3 0; with counts up to 2 those of the last two are 2 0."""


def test_error_is_born_where_counts_clip_and_passed_on_behind(tiny_chip):
    found = explain(place(two_layers(), tiny_chip), X)
    exact = Deviation(12, 0, 9.0, 0.0)
    assert found.n_samples == 3
    assert found.layers == (
        LayerErrors("in", None, None, exact, exact),
        LayerErrors("first", *[Deviation(6, 2, 4 + 16 + 9, 4 + 1)] * 2, *[Deviation(6, 2, 3.0, 2.0)] * 2),
        LayerErrors(
            "second",
            Deviation(6, 2, 3.0, 2.0),
            Deviation(6, 0, 3.0, 0.0),
            Deviation(6, 2, 2.25 + 1.25 + 1.25, 2.0),
            Deviation(6, 0, 4.75, 0.0),
        ),
    )
    assert found.layers[1].sums.ratio_dB == 10 * log10(29 / 5)
    assert found.layers[1].outputs.share_different == 2 / 6
    assert found.layers[2].own_sums.ratio_dB == inf


def test_the_first_difference_is_that_of_the_first_layer_and_its_first_sample(tiny_chip):
    first = explain(place(two_layers(), tiny_chip), X).first_difference
    assert first == FirstDifference("first", "sums", sample=1, place=(0,), expected=4.0, found=2.0)


def test_the_place_in_an_image_is_channel_row_and_column(tiny_chip, tiny_graph):
    x = np.zeros((2, 1, 4, 4))
    x[1, 0, 1, 1:] = 1.0  # the top row of the last window, where the horizontal kernel is +1: three in one block
    first = explain(place(tiny_graph, tiny_chip), x).first_difference
    assert first == FirstDifference("conv", "sums", sample=1, place=(1, 1, 1), expected=3.0, found=2.0)


def test_an_exact_chip_has_no_first_difference(ideal_chip):
    found = explain(place(two_layers(), ideal_chip), X)
    assert found.first_difference is None
    assert summary_of(found)["first_difference"] is None
    assert summary_of(found)["layers"][1]["sums"] == {
        "n_values": 6, "n_different": 0, "signal": 29.0, "error": 0.0, "ratio_dB": None,
    }  # fmt: skip


def test_codes_count_for_what_they_stand_for(tiny_chip):
    form = Format("ternary", 2, minus=0.5)
    steps = (Threshold([[-1, 3]], [-1, 0, 1], form),)
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1, 1, 1, 1]]], factors=[1]))
    ops = (
        two_layers().ops[0],
        Op(name="layer", input="c", output=Tensor("y", (1,), form), product=product, steps=steps),
    )
    graph = Graph(name="one", inputs=(Tensor("x", (4,), REAL),), ops=ops, outputs=("y",))
    x = np.array([[-1, -1, 0, 0], [1, 1, 1, 0]])  # sums -2 and 3: codes -1 and 1; the chip gives -1 and 0
    (_, layer) = explain(place(graph, tiny_chip), x).layers
    assert layer.outputs == Deviation(2, 1, 0.25 + 1.0, 1.0)


def test_a_reference_of_zeros_has_no_signal():
    assert Deviation(2, 1, 0.0, 1.0).ratio_dB == -inf
    assert Deviation().share_different == 0.0


def test_progress_is_told_batch_after_batch(tiny_chip):
    told = []
    explain(place(two_layers(), tiny_chip), np.tile(X, (30, 1)), progress=told.append)
    assert told == [32, 32, 26]


def test_only_names_the_layers_that_are_real(tiny_chip):
    plan = place(two_layers(), tiny_chip)
    assert run(plan, X, only=["second"]).outputs.tolist() == [[0, 1.5], [1, 0.5], [1, 0.5]]
    assert run(plan, X, only=["first"]).outputs.tolist() == [[0, 1.5], [0, 0.5], [0, 0.5]]
    with pytest.raises(ConfigError, match=r"^only: must name layers on tiles \(first, second\), got 'in'$"):
        run(plan, X, only=["first", "in"])


def test_an_observer_is_told_sums_and_outputs_in_order(tiny_chip):
    told = []
    run(
        place(two_layers(), tiny_chip),
        X,
        observe=lambda op, stage, numbers: told.append((op.name, stage, numbers.tolist())),
    )
    assert [what[:2] for what in told] == [
        ("in", "outputs"), ("first", "sums"), ("first", "outputs"), ("second", "sums"), ("second", "outputs"),
    ]  # fmt: skip
    assert told[1][2] == [[0, 2], [2, 0], [2, 0]]


def test_what_is_fed_is_read_in_place_of_what_the_chip_made(tiny_chip):
    fed = {"d": np.array([[1, 1], [0, 0], [1, 0]])}
    assert run(place(two_layers(), tiny_chip), X, fed=fed).outputs.tolist() == [[1, 1.5], [0, 0.5], [1, 0.5]]


def test_an_earlier_layer_comes_first_even_where_a_later_batch_shows_it(tiny_chip, tiny_graph, monkeypatch):
    plan, x = place(tiny_graph, tiny_chip), np.random.default_rng(0).normal(size=(60, 1, 4, 4))
    firsts = [explain(plan, sample[None]).first_difference for sample in x]
    late = next(i for i, first in enumerate(firsts) if first is not None and first.layer == "linear")
    early = next(i for i, first in enumerate(firsts) if first is not None and first.layer == "conv")
    monkeypatch.setattr("imcsim.functional.execute.MAX_BATCH", 1)
    first = explain(plan, x[[late, early]]).first_difference
    assert (first.layer, first.sample, first.place) == ("conv", 1, firsts[early].place)
