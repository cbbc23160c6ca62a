"""The points of a sweep: grids, samples, conditions, constraints, and what is said where none are left."""

import itertools
import re
from typing import get_args

import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.sweep.parameters import DISTRIBUTIONS, Choices, Distribution, Range
from imcsim.sweep.points import points_of
from imcsim.sweep.records import ParameterRecord
from imcsim.sweep.space import Sampling, points
from imcsim.sweep.spec import sweep_from


def space(parameters, constraints=(), **others):
    tree = {
        "workload": "digits-ternary-cnn",
        "chip": "tim-dnn",
        "objectives": ["latency"],
        "parameters": parameters,
        "constraints": list(constraints),
    }
    return sweep_from(tree | others, "s.yaml", ".").space


def rows(parameters, constraints=(), **others):
    return list(space(parameters, constraints, **others).points().rows())


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


# Grids


def test_a_grid_has_every_combination_and_the_last_parameter_changes_fastest():
    values = {"tile.count_max": [4, 8], "n_tiles": [16, 32, 64], "tile.serial": ["bit", "trit"]}
    crossed = itertools.product(*values.values())
    assert rows(values) == [dict(zip(values, row, strict=True)) for row in crossed]


def test_points_are_numbered_from_0_without_gaps():
    found = space({"tile.count_max": [4, 8, 12], "n_tiles": [16, 32]}, ["count_max != 8"]).points()
    assert found.numbers.tolist() == [0, 1, 2, 3]
    assert found.columns["tile.count_max"].tolist() == [4, 4, 12, 12]


def test_values_come_in_the_types_that_the_user_wrote():
    found = space({"n_tiles": [16, 32], "tile.serial": ["bit"], "double_buffered": [True, False]}).points()
    assert found.row(0) == {"n_tiles": 16, "tile.serial": "bit", "double_buffered": True}
    assert [type(value) for value in found.row(0).values()] == [int, str, bool]
    assert found.columns["n_tiles"].dtype == np.int64
    assert space({"tile.array.area_um2": [1, 2.5]}).points().columns["tile.array.area_um2"].dtype == np.float64


@pytest.mark.parametrize(
    ("record", "values"),
    [
        ({"low": 64, "high": 4096, "scale": "log", "n": 7}, [64, 128, 256, 512, 1024, 2048, 4096]),
        ({"low": 64, "high": 4096, "scale": "log", "step": 4}, [64, 256, 1024, 4096]),
        ({"low": 1, "high": 10, "step": 3}, [1, 4, 7, 10]),
        ({"low": 1, "high": 9, "step": 3}, [1, 4, 7]),
        ({"low": 1, "high": 2, "n": 3}, [1, 1.5, 2]),
        ({"low": 0.1, "high": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"low": 0, "high": 1, "n": 11}, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        ({"low": 1, "high": 4, "n": 20, "whole": True}, [1, 2, 3, 4]),
        ({"low": 1, "high": 100, "scale": "log", "n": 5, "whole": True}, [1, 3, 10, 32, 100]),
        ({"low": 1.0, "high": 3.0, "n": 3}, [1.0, 2.0, 3.0]),
    ],
)
def test_a_range_with_steps_is_a_list(record, values):
    found = space({"main_memory.latency_ns": record}).parameters[0].domain
    assert found == Choices(tuple(values))
    assert list(map(type, found.values)) == list(map(type, values))


def test_a_grid_needs_steps_and_no_distribution():
    with refused("s.yaml: parameters: main_memory.latency_ns: must have n or step in a grid, got a range from 1 to 9"):
        space({"main_memory.latency_ns": {"low": 1, "high": 9}})
    with refused(
        "s.yaml: parameters: main_memory.latency_ns: must be a list or a range in a grid, got a distribution; give a "
        "sampling such as {method: sobol, n: 256}"
    ):
        space({"main_memory.latency_ns": {"distribution": "uniform", "low": 1, "high": 9}})


def test_a_million_points_are_made_column_by_column():
    record = {"low": 1, "high": 100, "n": 100}
    found = space({"tile.count_max": record, "n_tiles": record, "main_memory.latency_ns": record}).points()
    assert len(found) == 1_000_000
    assert found.row(999_999) == {"tile.count_max": 100, "n_tiles": 100, "main_memory.latency_ns": 100}


def test_too_many_points_are_refused_before_any_is_made():
    record = {"low": 1, "high": 1000, "n": 1000}
    with refused(
        "s.yaml: parameters: must make at most 100000000 points, got 1000000000; give a sampling such as {method: "
        "sobol, n: 100000}"
    ):
        space({"tile.count_max": record, "n_tiles": record, "main_memory.latency_ns": record})


def test_too_many_points_that_come_of_conditions_are_refused_too():
    record = {"low": 1, "high": 1000, "n": 1000}
    always = record | {"when": "n_tiles >= 1"}
    with pytest.raises(ConfigError, match=r"^s.yaml: parameters: must make at most 100000000 points, got 1000000000; "):
        space({"n_tiles": record, "tile.count_max": always, "main_memory.latency_ns": always}).points()


# Conditions


def test_a_parameter_whose_condition_is_false_is_absent_and_doubles_no_point():
    found = rows(
        {
            "tile.count_max": [4, 8],
            "tile.rows_per_access": {"values": [8, 16], "when": "tile.count_max >= 8"},
            "n_tiles": [16, 32],
        }
    )
    assert found == [
        {"tile.count_max": 4, "n_tiles": 16},
        {"tile.count_max": 4, "n_tiles": 32},
        {"tile.count_max": 8, "tile.rows_per_access": 8, "n_tiles": 16},
        {"tile.count_max": 8, "tile.rows_per_access": 8, "n_tiles": 32},
        {"tile.count_max": 8, "tile.rows_per_access": 16, "n_tiles": 16},
        {"tile.count_max": 8, "tile.rows_per_access": 16, "n_tiles": 32},
    ]


def test_a_condition_may_ask_for_what_stands_below_it_and_is_conditional_itself():
    found = rows(
        {
            "n_tiles": {"values": [16, 32], "when": "mapping.batch == 2"},
            "mapping.batch": {"values": [2, 4], "when": "tile.serial == 'trit'"},
            "tile.serial": ["bit", "trit"],
        }
    )
    assert found == [
        {"tile.serial": "bit"},
        {"n_tiles": 16, "mapping.batch": 2, "tile.serial": "trit"},
        {"n_tiles": 32, "mapping.batch": 2, "tile.serial": "trit"},
        {"mapping.batch": 4, "tile.serial": "trit"},
    ]


def test_an_absent_parameter_has_the_value_of_the_base_chip():
    # tim-dnn has 16 rows in an access
    parameters = {
        "tile.serial": ["bit", "trit"],
        "tile.rows_per_access": {"values": [8, 16], "when": "tile.serial == 'trit'"},
    }
    assert len(rows(parameters, ["rows_per_access == 16"])) == 2
    then = parameters | {"n_tiles": {"values": [1, 2], "when": "tile.rows_per_access == 16"}}
    assert [row.get("n_tiles") for row in rows(then)] == [1, 2, None, 1, 2]


def test_what_neither_a_point_nor_the_chip_has_makes_conditions_false_and_constraints_hold():
    parameters = {
        "tile.serial": ["bit", "trit"],
        "mapping.style": {"values": ["spatial", "temporal"], "when": "tile.serial == 'trit'"},
        "n_tiles": {"values": [16, 32], "when": "mapping.style != 'spatial'"},
    }
    assert rows(parameters, ["mapping.style == 'temporal'"]) == [
        {"tile.serial": "bit"},
        {"tile.serial": "trit", "mapping.style": "temporal", "n_tiles": 16},
        {"tile.serial": "trit", "mapping.style": "temporal", "n_tiles": 32},
    ]


def test_conditions_in_a_circle_are_refused():
    with refused(
        "s.yaml: parameters: tile.count_max: when: must not lead back to the parameter, got tile.count_max > n_tiles > "
        "tile.count_max"
    ):
        space(
            {
                "mapping.batch": {"values": [1, 2], "when": "tile.count_max > 1"},
                "tile.count_max": {"values": [4, 8], "when": "n_tiles > 16"},
                "n_tiles": {"values": [16, 32], "when": "tile.count_max > 4"},
            }
        )
    with refused("s.yaml: parameters: n_tiles: when: must not lead back to the parameter, got n_tiles > n_tiles"):
        space({"n_tiles": {"values": [16, 32], "when": "n_tiles > 16"}})


def test_a_condition_is_not_about_results():
    with refused("s.yaml: parameters: n_tiles: when: must not ask for results, which come later, got latency_ns"):
        space({"n_tiles": {"values": [16, 32], "when": "latency < 3 ms"}})


# Constraints


def test_a_constraint_takes_what_is_not_varied_from_the_base_chip():
    # tim-dnn has 256 rows
    assert rows({"tile.rows_per_access": [16, 24, 32]}, ["tile.n_rows % tile.rows_per_access == 0"]) == [
        {"tile.rows_per_access": 16},
        {"tile.rows_per_access": 32},
    ]


def test_a_bare_name_may_be_the_last_part_of_a_key():
    expected = [{"tile.rows_per_access": 16}]
    assert rows({"tile.rows_per_access": [16, 24]}, ["tile.n_rows % rows_per_access == 0"]) == expected
    assert rows({"n_tiles": [16, 24]}, ["rows_per_access == n_tiles"]) == [{"n_tiles": 16}]


def test_names_that_could_be_several_or_none_are_refused():
    with pytest.raises(
        ConfigError,
        match=r"^s.yaml: constraints: basis: must say which, got a name that several keys end with; write one of .*, "
        r"\.\.\.; in \"basis == 'fitted'\"$",
    ):
        space({"n_tiles": [1]}, ["basis == 'fitted'"])
    with refused(
        "s.yaml: constraints: rows_per_acces: no such parameter, key of tim-dnn or figure; did you mean "
        "'tile.rows_per_access'?; in 'rows_per_acces < 3'"
    ):
        space({"n_tiles": [1]}, ["rows_per_acces < 3"])
    with refused(
        "s.yaml: constraints: zzz: no such parameter, key of tim-dnn or figure; a text stands in quotes; in "
        "'tile.serial == zzz'"
    ):
        space({"n_tiles": [1]}, ["tile.serial == zzz"])
    with refused(
        "s.yaml: constraints: mapping.style: must be one of parameters to be asked for, got nothing; in "
        "\"mapping.style == 'spatial'\""
    ):
        space({"n_tiles": [1]}, ["mapping.style == 'spatial'"])
    with refused(
        "s.yaml: constraints: tile.within_factor: must have a value in the base chip, got nothing; in "
        "'tile.within_factor < 3'"
    ):
        space({"n_tiles": [1]}, ["tile.within_factor < 3"])


def test_an_empty_space_says_which_constraint_leaves_nothing():
    parameters = {"tile.rows_per_access": [24, 48], "n_tiles": [16, 32]}
    rules = ["n_tiles > 1", "tile.n_rows % rows_per_access == 0"]
    with refused(
        "s.yaml: constraints: must leave at least one point, got 0 of 4; 'tile.n_rows % rows_per_access == 0' alone "
        "leaves 0"
    ):
        rows(parameters, rules)
    with refused(
        "s.yaml: constraints: must leave at least one point, got 0 of 4; 'n_tiles > 16' alone leaves 2 and "
        "'n_tiles < 32' alone leaves 2"
    ):
        rows(parameters, ["n_tiles > 16", "n_tiles < 32"])
    with pytest.raises(
        ConfigError, match=r"^s.yaml: constraints: must leave at least one point, got 0 of \d+; 'n_tiles"
    ):
        rows(parameters, ["n_tiles > 64"], sampling={"method": "random", "n": 3})


def test_constraints_on_figures_are_judged_on_results():
    found = space({"n_tiles": [16, 32, 64]}, ["area <= 2 mm2", "latency <= 3 ms", "n_tiles > 16"])
    assert [rule.text for rule in found.of_parameters] == ["n_tiles > 16"]
    assert len(found.points()) == 2
    figures = {"area_um2": np.array([1e6, 3e6, np.nan]), "latency_ns": np.array([1.0, 1.0, 1.0])}
    assert found.feasible(figures).tolist() == [True, False, True]
    assert found.feasible({"area_um2": np.array([3e6])}).tolist() == [False]
    assert found.feasible({"energy_pJ": np.array([3e6])}).tolist() == [True]


def test_a_constraint_may_ask_for_figures_and_parameters_together():
    found = space({"n_tiles": [16, 32]}, ["area <= n_tiles * 0.1 mm2 + 1 um2"])
    figures = {"area_um2": np.array([1.7e6, 1.7e6])}
    assert found.feasible(figures, found.points()).tolist() == [False, True]


# One point


def test_a_search_asks_for_conditions_and_constraints_point_by_point():
    found = space(
        {
            "tile.rows_per_access": {"values": [8, 16, 24], "when": "tile.count_max >= 8"},
            "tile.count_max": [4, 8],
        },
        ["tile.n_rows % rows_per_access == 0"],
    )
    assert [parameter.name for parameter in found.ordered] == ["tile.count_max", "tile.rows_per_access"]
    assert not found.is_active("tile.rows_per_access", {"tile.count_max": 4})
    assert found.is_active("tile.rows_per_access", {"tile.count_max": 8})
    assert found.is_active("tile.count_max", {})
    assert found.feasible_parameters({"tile.count_max": 4})
    assert found.feasible_parameters({"tile.count_max": 8, "tile.rows_per_access": 8})
    assert not found.feasible_parameters({"tile.count_max": 8, "tile.rows_per_access": 24})


def test_a_search_finds_out_what_a_parameter_can_be():
    found = space(
        {
            "tile.count_max": [4, 8],
            "n_tiles": {"low": 1, "high": 64},
            "main_memory.bits_per_ns": {"low": 64.0, "high": 4096.0, "scale": "log"},
        },
        search={"evaluations": 10},
    )
    assert [parameter.domain for parameter in found.parameters] == [
        Choices((4, 8)),
        Range(1, 64, is_whole=True),
        Range(64.0, 4096.0, is_log=True),
    ]


def test_shares_become_values():
    found = space(
        {
            "tile.serial": ["bit", "trit"],
            "n_tiles": {"low": 1, "high": 3},
            "main_memory.bits_per_ns": {"low": 1.0, "high": 100.0, "scale": "log"},
            "main_memory.latency_ns": {"distribution": "normal", "mean": 5, "sd": 1},
        },
        sampling={"method": "random", "n": 1},
    ).from_unit(np.array([[0.0, 0.0, 0.0, 0.5], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 0.5]]))
    assert found.columns["tile.serial"].tolist() == ["bit", "trit", "trit"]
    assert found.columns["n_tiles"].tolist() == [1, 2, 3]
    assert found.columns["main_memory.bits_per_ns"] == pytest.approx([1, 10, 100])
    assert found.columns["main_memory.latency_ns"] == pytest.approx([5, 5, 5])


# Sampling

MIXED = {
    "tile.serial": ["bit", "trit"],
    "tile.count_max": {"low": 1, "high": 16},
    "main_memory.bits_per_ns": {"low": 64.0, "high": 4096.0, "scale": "log"},
}


@pytest.mark.parametrize("method", ["random", "latin-hypercube", "sobol"])
def test_a_seed_gives_the_same_points_and_another_one_others(method):
    def drawn(seed):
        return rows(MIXED, sampling={"method": method, "n": 20, "seed": seed})

    assert len(drawn(1)) == 20
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("method", ["random", "latin-hypercube", "sobol"])
def test_as_many_different_points_are_drawn_as_were_asked_for(method):
    found = rows(MIXED, ["tile.count_max % 4 == 0"], sampling={"method": method, "n": 50})
    assert len(found) == 50
    assert all(row["tile.count_max"] % 4 == 0 for row in found)


@pytest.mark.parametrize("method", ["random", "latin-hypercube", "sobol"])
def test_a_space_that_has_no_more_points_gives_each_once(method):
    values = {"tile.serial": ["bit", "trit"], "n_tiles": {"values": [1, 2, 3], "when": "tile.serial == 'bit'"}}
    found = rows(values, sampling={"method": method, "n": 100})
    assert sorted(map(str, found)) == sorted(map(str, rows(values)))


def test_a_latin_hypercube_puts_one_point_into_each_slice():
    found = space(MIXED, sampling={"method": "latin-hypercube", "n": 16}).points()
    assert sorted(found.columns["tile.count_max"].tolist()) == list(range(1, 17))


def test_a_sobol_sequence_is_balanced_and_goes_on():
    few, many = (space(MIXED, sampling={"method": "sobol", "n": n}).points() for n in (16, 64))
    assert list(many.take(slice(0, 16)).rows()) == list(few.rows())
    assert (few.columns["tile.serial"] == "bit").sum() == 8


def test_a_sampling_can_be_given_in_place_of_the_files():
    found = points(space({"n_tiles": [1, 2, 3]}), Sampling("random", 2, seed=3))
    assert len(found) == 2


# Distributions


@pytest.mark.parametrize(
    ("record", "mean", "sd"),
    [
        ({"distribution": "uniform", "low": 2, "high": 8}, 5, 6 / 12**0.5),
        ({"distribution": "normal", "mean": 26.84, "sd": 1.5}, 26.84, 1.5),
        ({"distribution": "log-normal", "median": 10, "sigma": 0.1}, 10 * np.exp(0.005), 1.005),
        ({"distribution": "exponential", "mean": 3}, 3, 3),
        ({"distribution": "triangular", "low": 0, "mode": 1, "high": 2}, 1, 6**-0.5),
        ({"distribution": "log-uniform", "low": 1, "high": 100}, 99 / np.log(100), 24.97),
        ({"distribution": "normal", "mean": 0, "sd": 1, "low": 0}, (2 / np.pi) ** 0.5, (1 - 2 / np.pi) ** 0.5),
        ({"distribution": "normal", "mean": 8, "sd": 2, "low": 1, "high": 15, "whole": True}, 8, 2),
    ],
)
def test_drawn_numbers_have_the_mean_and_the_spread_of_their_distribution(record, mean, sd):
    drawn = space({"main_memory.latency_ns": record}, sampling={"method": "sobol", "n": 1}).parameters[0].domain
    values = drawn.from_unit((np.arange(100_000) + 0.5) / 100_000)
    assert values.mean() == pytest.approx(mean, rel=2e-3)
    assert values.std() == pytest.approx(sd, rel=2e-2)


def test_every_distribution_has_its_word_in_the_file():
    words = get_args(get_args(ParameterRecord.model_fields["distribution"].annotation)[0])
    assert set(words) == set(DISTRIBUTIONS)
    assert {key for family in DISTRIBUTIONS.values() for key in family.needs} <= set(ParameterRecord.model_fields)


def test_a_distribution_is_cut_off_at_its_ends_even_far_out():
    u = np.linspace(0, 1, 101)
    tail = Distribution("normal", (0.0, 1.0), low=10.0, high=11.0).from_unit(u)
    assert (tail >= 10).all()
    assert (tail <= 11).all()
    assert (np.diff(tail) > 0).all()
    assert np.isfinite(Distribution("normal", (0.0, 1.0)).from_unit(u)).all()
    whole = Distribution("normal", (0.0, 5.0), low=-1.5, high=2.5, is_whole=True).from_unit(u)
    assert set(whole.tolist()) == {-1, 0, 1, 2}


# Points one by one


def test_listed_points_are_the_points_and_constraints_hold_for_them_too():
    listed = [{"n_tiles": 8}, {"n_tiles": 16, "tile.serial": "trit"}, {"tile.serial": "bit"}]
    given = {"points": listed, "workload": "digits-ternary-cnn", "chip": "tim-dnn", "objectives": ["area"]}
    assert list(sweep_from(given, "s", ".").space.points().rows()) == listed
    found = sweep_from(given | {"constraints": ["n_tiles > 8"]}, "s", ".").space.points()
    assert list(found.rows()) == listed[1:]  # tim-dnn has 32 tiles
    assert found.numbers.tolist() == [0, 1]


def test_points_of_rows_are_those_that_the_space_gives():
    found = space({"n_tiles": [16, 32], "tile.serial": {"values": ["bit"], "when": "n_tiles == 16"}}).points()
    again = points_of(list(found.rows()))
    assert list(again.rows()) == list(found.rows())
