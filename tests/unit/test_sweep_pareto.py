import time

import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.sweep.pareto import (
    UNRANKED,
    crowding,
    front,
    growth,
    hypervolume,
    ranks,
    reference_point,
    select,
)

LEAST = (False, False)
NAN = float("nan")

STAIRS = [[1, 4], [2, 2], [4, 1], [2, 3], [5, 5], [1, 4]]


def test_the_front_is_what_nothing_is_better_than_and_equal_points_share_it():
    assert front(STAIRS, LEAST).tolist() == [True, True, True, False, False, True]


def test_more_can_be_better_in_one_objective_and_less_in_the_other():
    assert front([[1, 0.9], [2, 0.9], [2, 0.95]], (False, True)).tolist() == [True, False, True]


def test_one_objective_has_its_best_points_as_front():
    assert front([[3], [1], [2], [1]], (False,)).tolist() == [False, True, False, True]
    assert ranks([[3], [1], [2], [1]], (False,)).tolist() == [2, 0, 1, 0]
    assert ranks([[3], [1], [2], [1]], (True,)).tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize("m", [3, 4, 5])
def test_many_objectives_have_a_front_too(m):
    values = np.vstack([np.eye(m), np.zeros(m), np.ones(m), np.zeros(m)])
    assert np.flatnonzero(front(values, [False] * m)).tolist() == [m, m + 2]
    assert ranks(values, [False] * m).tolist() == [*[1] * m, 0, 2, 0]
    assert np.flatnonzero(front(values, [True] * m)).tolist() == [m + 1]


def test_a_failed_point_is_on_no_front_and_hides_nobody():
    values = [[NAN, 0], [0, NAN], [NAN, NAN], [np.inf, 0], [1, 1]]
    assert front(values, LEAST).tolist() == [False, False, False, False, True]
    assert ranks(values, LEAST).tolist() == [UNRANKED] * 4 + [0]
    assert select(values, LEAST, 5).tolist() == [4]
    assert hypervolume(values, LEAST, [2, 2]) == 1
    assert not front(np.full((3, 2), NAN), LEAST).any()


def test_no_points_have_no_front():
    assert front(np.empty((0, 2)), LEAST).tolist() == []
    assert select(np.empty((0, 2)), LEAST, 3).tolist() == []
    assert hypervolume(np.empty((0, 2)), LEAST, [1, 1]) == 0


def test_zero_is_zero_whatever_its_sign():
    assert front([[0.0, 1.0], [-0.0, 1.0]], (True, False)).tolist() == [True, True]


def test_ranks_are_fronts_of_what_remains():
    assert ranks(STAIRS, LEAST).tolist() == [0, 0, 0, 1, 2, 0]


def test_ranks_may_end_where_there_are_enough():
    values = np.repeat(np.arange(6.0), 4).reshape(6, 4)
    assert ranks(values, [False] * 4).tolist() == [0, 1, 2, 3, 4, 5]
    assert ranks(values, [False] * 4, 2).tolist() == [0, 1, 2, 2, 2, 2]


def test_crowding_is_the_space_between_neighbours_of_the_same_rank():
    values = [[0, 10], [1, 6], [4, 5], [10, 0], [11, 11]]
    rank = ranks(values, LEAST)
    assert rank.tolist() == [0, 0, 0, 0, 1]
    inner = [4 / 10 + 5 / 10, 9 / 10 + 6 / 10]
    assert crowding(values, LEAST, rank) == pytest.approx([np.inf, *inner, np.inf, np.inf])


def test_points_that_are_all_equal_crowd_each_other():
    assert crowding([[1, 1]] * 3, LEAST, np.zeros(3, dtype=np.int64)).tolist() == [np.inf, 0, np.inf]


def test_the_best_go_on_by_rank_then_by_the_space_around_them_then_by_number():
    values = [[11, 11], [0, 10], [1, 6], [4, 5], [10, 0]]
    assert select(values, LEAST, 3).tolist() == [1, 3, 4]
    assert select(values, LEAST, 4).tolist() == [1, 2, 3, 4]
    assert select(values, LEAST, 99).tolist() == [0, 1, 2, 3, 4]
    assert select([[1, 1]] * 4, LEAST, 2).tolist() == [0, 3]
    assert select([[2], [1], [1], [1]], (False,), 1).tolist() == [1]


def test_a_share_is_of_all_points_and_at_least_one():
    values = np.arange(20.0).reshape(10, 2)
    assert select(values, LEAST, 0.3).tolist() == [0, 1, 2]
    assert select(values, LEAST, 0.01).tolist() == [0]
    assert select(STAIRS, LEAST, "front").tolist() == [0, 1, 2, 5]


@pytest.mark.parametrize("keep", [0, -1, 1.0, 2.5, True, "best", NAN])
def test_a_keep_that_is_none_is_refused(keep):
    with pytest.raises(ConfigError, match="keep: must be a number from 1, a share between 0 and 1 or front, got "):
        select(STAIRS, LEAST, keep)


@pytest.mark.parametrize("values", [[1, 2], [[1, 2, 3]], 1.0])
def test_values_need_a_column_for_each_objective(values):
    with pytest.raises(ConfigError, match="values: must have a column for each of 2 objectives, got shape"):
        front(values, LEAST)


def test_the_reference_point_is_the_worst_of_each_objective_and_a_tenth_of_its_range_further():
    values = [[1, 0.5], [3, 0.9], [2, 0.7], [NAN, 0.1]]
    assert reference_point(values, (False, True)) == pytest.approx([3.2, 0.46])
    assert reference_point([[5, 0], [5, 0]], (False, True)) == pytest.approx([5.5, -0.1])
    assert reference_point([[5, 1]], (True, True), margin=0.5) == pytest.approx([2.5, 0.5])


def test_no_points_have_no_reference_point():
    with pytest.raises(ConfigError, match="hypervolume: needs a point with a value in every objective, got none"):
        reference_point([[NAN, 1]], LEAST)


@pytest.mark.parametrize(
    ("values", "reference", "volume"),
    [
        ([[2]], [5], 3),
        ([[1, 3], [2, 1]], [4, 4], 7),
        ([[1, 3], [2, 1], [3, 3], [4, 0], [9, 9]], [4, 4], 7),
        ([[1, 1, 1]], [2, 3, 4], 6),
        ([[0, 1, 1], [1, 0, 1], [1, 1, 0]], [2, 2, 2], 4),
        ([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]], [2, 2, 2, 2], 5),
    ],
)
def test_hypervolumes_that_can_be_counted_by_hand(values, reference, volume):
    assert hypervolume(values, [False] * len(reference), reference) == volume
    assert hypervolume(-np.array(values), [True] * len(reference), -np.array(reference)) == volume


def test_the_hypervolume_grows_with_each_point_that_adds_something():
    values = [[9, 9], [1, 3], [NAN, 0], [3, 3], [2, 1], [1, 3], [0, 0]]
    assert growth(values, LEAST, [4, 4]).tolist() == [0, 3, 3, 3, 7, 7, 16]


@pytest.mark.parametrize(("m", "seconds"), [(2, 10), (3, 20)])
def test_a_million_points_have_their_front_in_seconds(m, seconds):
    values = np.random.default_rng(m).random((1_000_000, m))
    start = time.perf_counter()
    mask = front(values, [False] * m)
    assert time.perf_counter() - start < seconds
    best = values[mask]
    assert 1 < len(best) < 1000
    sample = values[:2000]
    is_dominated = (best[None] <= sample[:, None]).all(axis=2) & (best[None] < sample[:, None]).any(axis=2)
    assert (is_dominated.any(axis=1) == ~mask[:2000]).all()
