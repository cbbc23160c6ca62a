import numpy as np
import pytest
from test_layer_errors import X, two_layers

from imcsim.ablation import AblatedLayer, Ablation, ablate
from imcsim.accuracy import Paired, is_right, verdicts
from imcsim.errors import DataError
from imcsim.functional.reference import reference
from imcsim.mapping.place import place

LABELS = np.array([1, 0, 1])
"""The reference gives 1 0 0; where the first layer clips, 1 1 1."""


def test_the_layer_that_clips_is_the_one_that_changes_the_accuracy(tiny_chip):
    plan = place(two_layers(), tiny_chip)
    right = is_right(reference(plan.graph, X), LABELS, "two")
    whole = verdicts(plan, X, LABELS, seed=0).right
    assert (right.tolist(), whole.tolist()) == ([True, True, False], [True, False, True])
    told = []
    found = ablate(plan, X, LABELS, reference=right, whole=whole, progress=told.append)
    as_chip, as_reference = Paired(3, 2, 2, 1, 1), Paired(3, 2, 2, 0, 0)
    assert found == Ablation(
        as_chip,
        (
            AblatedLayer("first", alone=as_chip, others=as_reference),
            AblatedLayer("second", alone=as_reference, others=as_chip),
        ),
    )
    assert told == [1] * 4


def test_a_loss_is_counted_against_the_reference(tiny_chip):
    plan = place(two_layers(), tiny_chip)
    labels = np.array([1, 0, 0])
    right = is_right(reference(plan.graph, X), labels, "two")
    found = ablate(plan, X, labels, reference=right, whole=verdicts(plan, X, labels, seed=0).right).summary
    first, second = found["layers"]
    assert (found["reference"], found["whole"]["accuracy"]) == (1.0, 1 / 3)
    assert (first["alone"]["accuracy"], first["others"]["accuracy"]) == (1 / 3, 1.0)
    assert (second["alone"]["accuracy"], second["others"]["accuracy"]) == (1.0, 1 / 3)
    difference = first["alone"]["difference"]
    assert (difference["value"], difference["n_better"], difference["n_worse"]) == (-2 / 3, 0, 2)
    assert difference["interval"][0] < -2 / 3 < difference["interval"][1]


def test_scores_that_are_none_are_refused():
    message = r"^net: outputs must be scores \(b classes\) and labels whole numbers \(b\), got \(2, 3, 4\) and \(2,\)$"
    with pytest.raises(DataError, match=message):
        is_right(np.zeros((2, 3, 4)), np.zeros(2), "net")
