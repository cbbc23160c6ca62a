"""What holds for fronts, ranks and hypervolumes of any points."""

from itertools import combinations

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imcsim.sweep.pareto import crowding, front, growth, hypervolume, ranks, reference_point, select

optuna.logging.set_verbosity(optuna.logging.WARNING)

NUMBERS = st.one_of(st.integers(0, 4).map(float), st.floats(0, 4, allow_subnormal=False))


@st.composite
def clouds(draw, most=12, objectives=(1, 2, 3, 4), with_nan=True):
    """Points (n m), some equal in places, and of which objectives more is better."""
    m = draw(st.sampled_from(objectives))
    number = st.one_of(NUMBERS, st.just(float("nan"))) if with_nan else NUMBERS
    rows = draw(st.lists(st.lists(number, min_size=m, max_size=m), min_size=1, max_size=most))
    return np.array(rows), draw(st.lists(st.booleans(), min_size=m, max_size=m))


def dominates(a, b, maximize):
    """By the definition, one number after the other."""
    if np.isnan(a).any() or np.isnan(b).any():
        return False
    signed = [(-x, -y) if more else (x, y) for x, y, more in zip(a, b, maximize, strict=True)]
    return all(x <= y for x, y in signed) and any(x < y for x, y in signed)


def front_by_hand(values, maximize):
    return [
        not np.isnan(point).any() and not any(dominates(other, point, maximize) for other in values) for point in values
    ]


@given(clouds())
def test_nothing_dominates_the_front_and_something_of_it_dominates_the_rest(cloud):
    values, maximize = cloud
    mask = front(values, maximize)
    assert mask.tolist() == front_by_hand(values, maximize)
    for point in values[~mask]:
        assert np.isnan(point).any() or any(dominates(best, point, maximize) for best in values[mask])


@given(clouds(), st.data())
def test_a_dominated_point_changes_nothing(cloud, data):
    values, maximize = cloud
    mask = front(values, maximize)
    if not mask.any():
        return
    worse = values[data.draw(st.sampled_from(np.flatnonzero(mask).tolist()))].copy()
    at = data.draw(st.integers(0, len(maximize) - 1))
    worse[at] += -1 if maximize[at] else 1
    assert front(np.vstack([values, worse]), maximize).tolist() == [*mask.tolist(), False]
    reference = reference_point(np.vstack([values, worse]), maximize)
    before = hypervolume(values, maximize, reference)
    assert hypervolume(np.vstack([values, worse]), maximize, reference) == pytest.approx(before)


@given(clouds(), st.data())
def test_neither_the_scale_of_an_objective_nor_the_order_of_points_changes_the_front(cloud, data):
    values, maximize = cloud
    scales = [2.0 ** data.draw(st.integers(-8, 8)) for _ in maximize]  # powers of two: nothing is rounded
    order = np.array(data.draw(st.permutations(range(len(values)))))
    assert front(values * scales, maximize).tolist() == front(values, maximize).tolist()
    assert front(values[order], maximize).tolist() == front(values, maximize)[order].tolist()
    assert ranks(values[order], maximize).tolist() == ranks(values, maximize)[order].tolist()


@given(clouds())
def test_turning_an_objective_round_is_the_same_as_its_negative(cloud):
    values, maximize = cloud
    signs = np.where(maximize, -1, 1)
    assert front(values, maximize).tolist() == front(values * signs, [False] * len(maximize)).tolist()


@given(clouds())
def test_ranks_are_fronts_peeled_off_one_after_the_other(cloud):
    values, maximize = cloud
    rank = ranks(values, maximize)
    left = np.ones(len(values), dtype=bool)
    for number in range(rank.max() + 1):
        peeled = values.copy()
        peeled[~left] = np.nan
        assert np.flatnonzero(rank == number).tolist() == np.flatnonzero(front_by_hand(peeled, maximize)).tolist()
        left &= rank != number
    assert np.isnan(values[left]).any(axis=1).all()


@given(clouds(), st.integers(1, 14))
def test_who_goes_on_ranks_no_worse_than_who_does_not(cloud, keep):
    values, maximize = cloud
    rank = ranks(values, maximize)
    distance = crowding(values, maximize, rank)
    chosen = select(values, maximize, keep)
    left = np.setdiff1d(np.flatnonzero(rank >= 0), chosen)
    assert len(chosen) == min(keep, (rank >= 0).sum())
    assert (rank[chosen] >= 0).all()
    for i in chosen:
        for j in left:
            assert (rank[i], -distance[i], i) < (rank[j], -distance[j], j)


@given(clouds(objectives=(1, 2, 3), with_nan=False))
def test_the_front_is_that_of_optuna(cloud):
    values, maximize = cloud
    study = optuna.create_study(directions=["maximize" if more else "minimize" for more in maximize])
    for row in values.tolist():
        study.add_trial(optuna.trial.create_trial(values=row))
    best = {trial.number for trial in study.best_trials} if len(maximize) > 1 else {study.best_trial.number}
    ours = set(np.flatnonzero(front(values, maximize)).tolist())
    assert ours == best if len(maximize) > 1 else best <= ours


def volume_by_hand(losses, corner):
    """By inclusion and exclusion over all subsets of points."""
    inside = [np.minimum(row, corner) for row in losses]
    return sum(
        (-1) ** (n + 1) * np.prod(corner - np.max(some, axis=0))
        for n in range(1, len(inside) + 1)
        for some in combinations(inside, n)
    )


@given(clouds(most=7, with_nan=False))
@settings(deadline=None)
def test_the_hypervolume_is_that_of_inclusion_and_exclusion(cloud):
    values, maximize = cloud
    signs = np.where(maximize, -1, 1)
    corner = np.full(len(maximize), 3.5) * signs
    by_hand = volume_by_hand(values * signs, corner)
    assert hypervolume(values, maximize, corner * signs) == pytest.approx(by_hand, rel=1e-9, abs=1e-9)


@given(clouds())
def test_the_hypervolume_never_falls_as_points_come(cloud):
    values, maximize = cloud
    if np.isnan(values).any(axis=1).all():
        return
    reference = reference_point(values, maximize)
    history = growth(values, maximize, reference)
    assert (np.diff(history) >= 0).all()
    one_by_one = [hypervolume(values[: i + 1], maximize, reference) for i in range(len(values))]
    assert history == pytest.approx(one_by_one, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_the_hypervolume_is_the_share_of_darts_that_land_in_it(m):
    rng = np.random.default_rng(m)
    values = rng.random((60, m))
    darts = rng.random((100_000, m))
    landed = np.zeros(len(darts), dtype=bool)
    for point in values:
        landed |= (point <= darts).all(axis=1)
    share = landed.mean()
    error = np.sqrt(share * (1 - share) / len(darts))
    assert abs(hypervolume(values, [False] * m, np.ones(m)) - share) < 5 * error
