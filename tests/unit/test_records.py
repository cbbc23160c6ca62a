from dataclasses import dataclass

import numpy as np
import pytest

from imcsim.records import Record, frozen_array, same


@dataclass(frozen=True, eq=False)
class Pair(Record):
    values: np.ndarray
    name: str = "pair"


@dataclass(frozen=True, eq=False)
class Other(Record):
    values: np.ndarray
    name: str = "pair"


def test_records_are_equal_when_their_arrays_are_equal_element_by_element():
    assert Pair(np.array([1, 2])) == Pair(np.array([1, 2]))
    assert Pair(np.array([1, 2])) != Pair(np.array([1, 3]))
    assert Pair(np.array([1, 2])) != Pair(np.array([1, 2, 3]))
    assert Pair(np.array([1, 2]), "a") != Pair(np.array([1, 2]), "b")


def test_records_of_two_classes_differ_whatever_their_fields():
    assert Pair(np.array([1])) != Other(np.array([1]))
    assert Pair(np.array([1])) != 1


def test_equal_numbers_of_another_type_are_not_the_same():
    assert not same(np.array([1]), np.array([1.0]))
    assert not same(np.array([1]), [1])
    assert not same(1, 1.0)
    assert not same(True, 1)


def test_a_missing_number_is_the_same_as_a_missing_number():
    assert same(np.array([np.nan]), np.array([np.nan]))


def test_tuples_of_arrays_are_the_same_item_by_item():
    assert same((np.array([1]), "a"), (np.array([1]), "a"))
    assert not same((np.array([1]), "a"), (np.array([2]), "a"))
    assert not same((np.array([1]),), (np.array([1]), "a"))


def test_records_do_not_hash_because_arrays_do_not():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Pair(np.array([1])))


def test_a_frozen_array_is_a_copy_that_nobody_can_write_to():
    values = np.array([1, 2])
    kept = frozen_array(values, np.int64)
    values[0] = 9
    assert kept.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 5
