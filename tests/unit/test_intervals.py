import pytest

from imcsim.intervals import paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("n_right", "n", "interval"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_intervals_are_those_of_newcombes_table(n_right, n, interval):
    """Newcombe, Statistics in Medicine 17, 857-872, 1998, table I, method 3; recalled, not read there."""
    assert wilson_interval(n_right, n) == pytest.approx(interval, abs=5e-5)


def test_a_paired_interval_is_that_of_another_program():
    """Complete response (Cavo et al., 2012): contingencytables (R), tests/testthat/test-ch8.R, prints this."""
    assert paired_interval(6, 16, 161) == pytest.approx((-0.1240, -0.0054), abs=5e-5)


def test_a_paired_interval_is_much_narrower_than_two_intervals_side_by_side():
    (low, high), (low_a, high_a) = paired_interval(0, 10, 1000), wilson_interval(900, 1000)
    assert high < 0
    assert high - low < 0.6 * (high_a - low_a)


def test_no_sample_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert paired_interval(0, 0, 0) == (-1.0, 1.0)


@pytest.mark.parametrize(("n_better", "n_worse", "end"), [(1, 0, 1.0), (9, 0, 1.0), (0, 9, -1.0)])
def test_where_every_sample_differs_one_end_is_the_greatest_difference(n_better, n_worse, end):
    low, high = paired_interval(n_better, n_worse, n_better + n_worse)
    assert end in (low, high)
    assert low < high
