"""Texts such as W=ternary,A=2: what they stand for, and one line for each that stands for nothing."""

import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.graph.assumption import Assumption, assumed_text, codes_of, parse_assumption, zeros_of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "keys must be W, A, first, last, W.first, A.first, W.last, A.last, zeros, got ''; for example",
        ),
        ("w=2,A=2", "keys must be W, A, first, last, W.first, A.first, W.last, A.last, zeros, got 'w'; for example"),
        ("W=2,A=2,zero=0.5", "zeros, got 'zero'; did you mean 'zeros'?"),
        ("W=2,A=2,middle=8", "zeros, got 'middle'; "),
        ("W=2,A", "A must have a value, got nothing; for example A=2"),
        ("W=,A=2", "W must have a value, got nothing; for example W=ternary"),
        ("W=2,A=2,zeros", "zeros must have a value, got nothing; for example zeros=0.4"),
        ("W=2,A=2,W=4", "W must be given once, got 2 and 4"),
        ("W=2,A=2,first=8,A.first=4", "first must stand in place of A.first, got both"),
        ("W=2,A=2,last=8,W.last=4", "last must stand in place of W.last, got both"),
        ("A=2", "must say W, got 'A=2'; add W=ternary"),
        ("W=2", "must say A, got 'W=2'; add A=2"),
        (
            "W=tern,A=2",
            "W must be binary, ternary or a number of bits from 1 to 16, got 'tern'; did you mean 'ternary'?",
        ),
        ("W=u4,A=2", "W must be binary, ternary or a number of bits from 1 to 16, got 'u4'"),
        ("W=0,A=2", "W must be binary, ternary or a number of bits from 1 to 16, got '0'"),
        ("W=17,A=2", "W must be binary, ternary or a number of bits from 1 to 16, got '17'"),
        ("W=2.5,A=2", "W must be binary, ternary or a number of bits from 1 to 16, got '2.5'"),
        ("W=2,A=2,W.last=x", "W.last must be binary, ternary or a number of bits from 1 to 16, got 'x'"),
        ("W=2,A=2,first=u8", "first must be binary, ternary or a number of bits from 1 to 16, got 'u8'"),
        ("W=2,A=17", "A must be binary, ternary or a number of bits from 1 to 16, u4 or s4, got '17'"),
        ("W=2,A=s1", "A must be binary, ternary or a number of bits from 1 to 16, u4 or s4, got 's1'"),
        ("W=2,A=i4", "A must be binary, ternary or a number of bits from 1 to 16, u4 or s4, got 'i4'"),
        (
            "W=2,A=2,A.first=bin",
            "A.first must be binary, ternary or a number of bits from 1 to 16, u4 or s4, got 'bin'",
        ),
        ("W=2,A=2,zeros=1", "zeros must be a share from 0 to below 1, or weights, got '1'"),
        ("W=2,A=2,zeros=nan", "zeros must be a share from 0 to below 1, or weights, got 'nan'"),
        ("W=2,A=2,zeros=most", "zeros must be a share from 0 to below 1, or weights, got 'most'"),
        ("W=1,A=2,zeros=0.5", "zeros must go with weights that can be 0, got W=binary,zeros=0.5"),
        (7, "must be a text such as W=ternary,A=2, got 7"),
    ],
)
def test_what_is_no_assumption_is_said_in_one_line(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_assumption(text)
    assert str(caught.value).startswith("assume: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_have_their_own_bits_and_pixels_have_eight():
    found = parse_assumption(" W = ternary , A = 2 ")
    assert found.weights == {"first": "ternary", "middle": "ternary", "last": "ternary"}
    assert found.activations == {"first": "8", "middle": "2", "last": "2"}
    found = parse_assumption("W=1,A=2,first=4,A.last=u8")
    assert found.weights == {"first": "4", "middle": "binary", "last": "binary"}
    assert found.activations == {"first": "4", "middle": "2", "last": "u8"}


@pytest.mark.parametrize("text", ["W=ternary,A=2", "W=binary,A=s4,last=8", "W=5,A=u1,W.first=8,zeros=weights"])
def test_an_assumption_is_read_as_it_is_written(text):
    found = parse_assumption(text)
    assert parse_assumption(str(found)) == found == parse_assumption(found)


def test_a_number_of_bits_has_a_sign_where_numbers_have_one():
    assert [str(codes_of("4", is_positive=sign)) for sign in (True, False)] == ["u4", "s4"]
    assert [str(codes_of("2", is_positive=sign)) for sign in (True, False)] == ["u2", "ternary"]
    assert [str(codes_of("1", is_positive=sign)) for sign in (True, False)] == ["u1", "binary"]
    assert [str(codes_of(told, is_positive=True)) for told in ("s4", "s2", "binary", "ternary")] == [
        "s4", "ternary", "binary", "ternary",
    ]  # fmt: skip
    assert str(codes_of("u4", is_positive=False)) == "u4"


def planes(text, numbers=None, place="middle"):
    return parse_assumption(text).planes(place, (4, 3), numbers, "net")


def test_bits_of_weights_are_planes_with_a_share_of_zeros():
    for text, n_planes, zeros in [
        ("W=binary,A=2", 1, 0.0),
        ("W=ternary,A=2", 1, 0.4),
        ("W=4,A=2", 3, 0.5),
        ("W=ternary,A=2,zeros=0.7", 1, 0.7),
        ("W=8,A=2,zeros=0.7", 7, 0.7),
    ]:
        found = planes(text)
        assert (found.n_planes, found.zero_fraction, found.has_values) == (n_planes, zeros, False)
        assert found.factors.tolist() == [1 << p for p in range(n_planes)]
    assert planes("W=binary,A=2,W.first=8,zeros=0.7").zero_fraction == 0  # a binary layer beside others
    assert planes("W=binary,A=2,W.first=8,zeros=0.7", place="first").zero_fraction == 0.7


def test_zeros_are_those_of_the_weights_where_that_is_asked_for():
    numbers = np.array([[0.0, 0.1, -0.2], [1.0, -1.0, 1.0], [0.3, 0.4, -0.5], [1.0, 1.0, 1.0]])
    limit = 0.7 * np.abs(numbers).mean()
    assert planes("W=ternary,A=2,zeros=weights", numbers).zero_fraction == (np.abs(numbers) <= limit).mean()
    # 3 bits: codes 0 to 3, two planes
    assert zeros_of(np.array([0.0, 1.0, -2.0, 3.0]), 3) == 0.5
    assert zeros_of(np.array([3.0, -3.0]), 3) == 0.0
    assert zeros_of(np.zeros(5), 3) == 1.0
    with pytest.raises(
        ConfigError, match=r"^assume: zeros=weights must be read off weights that are there, got a model"
    ):
        planes("W=ternary,A=2,zeros=weights")


def test_normally_distributed_weights_have_the_zeros_that_are_assumed():
    drawn = np.random.default_rng(0).normal(size=100_000)
    assert zeros_of(drawn, 2) == pytest.approx(0.42, abs=0.01)


def test_layers_are_named_where_it_is_not_all_of_them():
    assert (
        assumed_text("W=2,A=2", list("abc"), list("abc"), 3)
        == "W=2,A=2: weights of all 3 layers, inputs of all 3 layers"
    )
    names = [f"conv{i}" for i in range(14)]
    assert assumed_text("W=2,A=2", names, [], 20).endswith("conv11, ... 2 more)")


def test_an_assumption_is_a_value():
    assert isinstance(parse_assumption("W=2,A=2"), Assumption)
    assert parse_assumption("W=2,A=2") == parse_assumption("W=ternary,A=2")
