"""Dense binary networks on tiles whose ADCs count to half of an access: what clips, and what takes the clipping away.

Among 16 products of -1 and +1, n + k = 16 always, so that one of n and k is above 8 unless both are 8.
"""

import numpy as np
import pytest
from methods import example, network_of, train
from strategies import TIM_DNN, variant

from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.graph.capture import capture
from imcsim.mapping.place import place
from imcsim.quant.methods import find_method

X = example(6).numpy()


@pytest.fixture(scope="module")
def graphs():
    """BMXNet's binary network, which pads with -1 so that no product is 0, and a ternary one of the same layers."""
    made = {}
    for name in ("bmxnet", "gxnor"):
        method = find_method(name)
        made[name] = capture(train(method, network_of(method, widths=(16, 16))), example(1))
    return made


def clipped(graph, **changes):
    """Share of the accesses of an inner layer that clip, and whether the outputs are those of the reference."""
    chip = variant(TIM_DNN, {f"tile.{key}": value for key, value in changes.items()})
    done = run(place(graph, chip), X)
    clips = done.clipping[graph.products[1].name]
    return clips.n_clipped_accesses / clips.n_accesses, np.array_equal(done.outputs, reference(graph, X))


def test_dense_binary_clips_in_nearly_every_access(graphs):
    assert clipped(graphs["bmxnet"])[0] > 0.9  # of 16 columns at least one has n other than 8


def test_what_clips_changes_the_sums(graphs):
    graph = graphs["bmxnet"]
    name = graph.products[1].name
    found = []
    for count_max in (8, 16):
        plan = place(graph, variant(TIM_DNN, {"tile.count_max": count_max}))
        sums = {}
        run(plan, X, observe=lambda op, stage, numbers, sums=sums: sums.setdefault((op.name, stage), numbers))
        found.append(sums[name, "sums"])
    assert np.mean(found[0] != found[1]) > 0.5


def test_ternary_layers_of_the_same_size_clip_less(graphs):
    assert clipped(graphs["gxnor"])[0] < 0.5 * clipped(graphs["bmxnet"])[0]


@pytest.mark.parametrize("changes", [{"rows_per_access": 8}, {"count_max": 16}, {"sense": "n", "count_max": 16}])
def test_eight_rows_or_adcs_that_count_to_the_rows_take_the_clipping_away(graphs, changes):
    assert clipped(graphs["bmxnet"], **changes) == (0, True)


def test_sensing_n_alone_clips_less_but_needs_adcs_that_count_to_the_rows(graphs):
    alone, both = clipped(graphs["bmxnet"], sense="n"), clipped(graphs["bmxnet"])
    assert 0 < alone[0] <= both[0]
