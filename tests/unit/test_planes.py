import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.ternary import PlaneSum
from imcsim.ternary.planes import require_ternary

TWO = PlaneSum(planes=[[1, 0, -1], [1, 1, 0]], factors=[1, 2])


def test_an_operand_is_the_sum_of_its_planes_by_their_factors_times_its_scale_plus_its_offset():
    assert TWO.to_codes().tolist() == [3, 2, -1]
    scaled = PlaneSum(planes=TWO.planes, factors=TWO.factors, scale=0.5, offset=10)
    assert scaled.to_numbers().tolist() == [11.5, 11.0, 9.5]


def test_whole_factors_stay_whole_and_others_do_not():
    assert TWO.is_whole
    assert TWO.to_codes().dtype == np.int64
    assert not PlaneSum(planes=[[1]], factors=[0.5]).is_whole


def test_factors_may_differ_from_output_to_output():
    planes = [[[1, -1], [1, 1]], [[1, 0], [0, -1]]]  # two planes of two outputs with two inputs
    operand = PlaneSum(planes=planes, factors=[[1, 2], [3, 5]])
    assert operand.to_codes().tolist() == [[4, -1], [2, -3]]


def test_an_operand_knows_its_planes_its_shape_and_its_zeros():
    assert (TWO.n_planes, TWO.shape) == (2, (3,))
    assert TWO.zero_fraction == 2 / 6


def test_equal_operands_are_equal():
    assert PlaneSum(planes=[[1, 0, -1], [1, 1, 0]], factors=[1, 2]) == TWO
    assert PlaneSum(planes=TWO.planes, factors=[1, 4]) != TWO


def test_nobody_can_write_to_a_plane():
    with pytest.raises(ValueError, match="read-only"):
        TWO.planes[0, 0] = 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"planes": 1, "factors": [1]}, r"planes: must hold at least one plane \(p \.\.\.\), got shape \(\)"),
        ({"planes": np.zeros((0, 2)), "factors": []}, r"planes: must hold at least one plane"),
        ({"planes": [[2]], "factors": [1]}, r"planes: values must be in \{-1, 0, 1\}, got .*2"),
        ({"planes": [[0.5]], "factors": [1]}, r"planes: values must be in \{-1, 0, 1\}, got .*0\.5"),
        ({"planes": [[np.nan]], "factors": [1]}, r"planes: values must be in \{-1, 0, 1\}, got .*nan"),
        ({"planes": [["a"]], "factors": [1]}, r"planes: must hold numbers in \{-1, 0, 1\}, got dtype"),
        ({"planes": [[1]], "factors": [1, 2]}, r"factors: must be one for each of the 1 planes, got 2"),
        ({"planes": [[1]], "factors": [1], "scale": np.inf}, r"scale: must be finite, got inf"),
        ({"planes": [[1]], "factors": [1], "offset": np.nan}, r"offset: must be finite, got nan"),
    ],
)
def test_what_is_no_sum_of_planes_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        PlaneSum(**fields)


def test_ternary_numbers_of_any_type_pass():
    for dtype in (np.int8, np.float32, bool):
        require_ternary(np.array([0, 1], dtype=dtype), "x")


def test_groups_of_inputs_have_scales_of_their_own():
    weights = PlaneSum(
        planes=[[[1, -1, 1, 1, 0]]], factors=[1], scale=2.0, group_size=2, group_scale=[[1.0, 10.0, 5.0]]
    )
    assert weights.to_numbers().tolist() == [[2.0, -2.0, 20.0, 20.0, 0.0]]
    assert weights.to_codes().tolist() == [[1, -1, 1, 1, 0]]
    assert weights.is_grouped
    window = PlaneSum(planes=np.ones((1, 1, 2, 1, 2)), factors=[1], group_size=2, group_scale=[[[[1.0, 3.0]]]])
    assert window.to_numbers().tolist() == [[[[1.0, 3.0]], [[1.0, 3.0]]]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"group_size": 2}, r"group_scale: must come with a group_size, and a group_size with it, got one of the two"),
        ({"group_size": 0, "group_scale": [[1.0]]}, r"group_size: must be a whole number of at least 1, got 0"),
        (
            {"group_size": 2, "group_scale": [[1.0, 2.0]]},
            r"group_scale: must be one for each output and group \(1, 3\), .* \(\) .*, got shape \(1, 2\)",
        ),
        ({"group_size": 2, "group_scale": [[1.0, np.nan, 2.0]]}, r"group_scale: must be finite, got nan"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups, message):
    with pytest.raises(ConfigError, match=message):
        PlaneSum(planes=np.ones((1, 1, 5)), factors=[1], **groups)


def test_a_vector_has_no_groups_of_inputs():
    with pytest.raises(
        ConfigError, match=r"group_size: must be of an operand with outputs and inputs .*, got shape \(5,"
    ):
        PlaneSum(planes=np.ones((1, 5)), factors=[1], group_size=2, group_scale=[[1.0]])
