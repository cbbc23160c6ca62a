"""Laws of design spaces: grids, samples, conditions, expressions and the text of a sweep."""

import itertools
import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imcsim.arch.load import parsed
from imcsim.sweep.expressions import Known, parse
from imcsim.sweep.parameters import Choices, Distribution, Range
from imcsim.sweep.spec import sweep_from

KEYS = {
    "n_tiles": st.integers(1, 64),
    "tile.count_max": st.integers(1, 32),
    "tile.rows_per_access": st.integers(1, 64),
    "main_memory.latency_ns": st.floats(0, 1e6, allow_nan=False).map(lambda x: float(f"{x:.6g}")),
    "tile.serial": st.sampled_from(["bit", "trit"]),
    "double_buffered": st.booleans(),
    "mapping.batch": st.integers(1, 16),
    "mapping.policy": st.sampled_from(["least_time", "as_they_are", "search:edp"]),
    "seed": st.integers(0, 2**53),
}
NUMBERS = ["n_tiles", "tile.count_max", "tile.rows_per_access", "mapping.batch"]


@st.composite
def lists(draw):
    """Draw some parameters with values of their kind, each once."""
    names = draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=5, unique=True))
    return {name: draw(st.lists(KEYS[name], min_size=1, max_size=4, unique=True)) for name in names}


@st.composite
def conditional(draw):
    """Draw parameters, each of which may have a condition on those before it."""
    given = draw(lists())
    made = {}
    for name, values in given.items():
        asked = [other for other in made if other in NUMBERS]
        if asked and draw(st.booleans()):
            limit = draw(st.integers(1, 32))
            made[name] = {"values": values, "when": f"{draw(st.sampled_from(asked))} {draw(OPS)} {limit}"}
        else:
            made[name] = values
    return made


OPS = st.sampled_from(["<", "<=", "==", "!=", ">", ">="])
RULES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(NUMBERS), OPS, st.integers(1, 40)).map(lambda r: "{} {} {}".format(*r)),
        st.tuples(st.sampled_from(NUMBERS), st.integers(1, 4), st.integers(0, 3)).map(
            lambda r: "{} % {} == {}".format(*r)
        ),
        st.tuples(st.sampled_from(NUMBERS), OPS, st.sampled_from(NUMBERS)).map(lambda r: "{} {} {}".format(*r)),
    ),
    max_size=2,
)


def sweep(parameters, **others):
    tree = {"workload": "digits-ternary-cnn", "chip": "tim-dnn", "objectives": ["latency"], "parameters": parameters}
    return sweep_from(tree | others, "s.yaml", ".")


def written(value):
    return value["values"] if isinstance(value, dict) else value


@settings(max_examples=15, deadline=None)
@given(lists())
def test_a_grid_without_conditions_is_the_product(parameters):
    found = sweep(parameters).space.points()
    assert len(found) == math.prod(map(len, parameters.values()))
    crossed = itertools.product(*parameters.values())
    assert list(found.rows()) == [dict(zip(parameters, row, strict=True)) for row in crossed]


@settings(max_examples=20, deadline=None)
@given(conditional(), RULES)
def test_a_grid_is_what_trying_every_combination_point_by_point_gives(parameters, rules):
    space = sweep(parameters, constraints=rules).space
    expected = {}  # in the place of a set that keeps its order
    for row in itertools.product(*(written(value) for value in parameters.values())):
        whole = dict(zip(parameters, row, strict=True))
        point = {}
        for parameter in space.ordered:
            if space.is_active(parameter.name, point):
                point[parameter.name] = whole[parameter.name]
        if space.feasible_parameters(point):
            expected[tuple(sorted(point.items()))] = None
    assume(expected)
    found = [tuple(sorted(row.items())) for row in space.points().rows()]
    assert found == list(expected)


@settings(max_examples=20, deadline=None)
@given(conditional(), RULES, st.sampled_from(["random", "latin-hypercube", "sobol"]), st.integers(0, 9))
def test_what_is_drawn_is_in_the_grid_and_the_same_for_the_same_seed(parameters, rules, method, seed):
    sampling = {"method": method, "n": 8, "seed": seed}
    space = sweep(parameters, constraints=rules, sampling=sampling).space
    try:
        grid = list(sweep(parameters, constraints=rules).space.points().rows())
    except ValueError:
        assume(False)
    found = space.points()
    rows = list(found.rows())
    assert len(rows) == min(8, len(grid))
    assert all(row in grid for row in rows)
    assert all(rows.count(row) == 1 for row in rows)
    assert found.numbers.tolist() == list(range(len(rows)))
    assert list(sweep(parameters, constraints=rules, sampling=sampling).space.points().rows()) == rows


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.booleans(), st.booleans(), st.lists(st.floats(0, 1), min_size=1))
def test_ranges_and_distributions_stay_within_their_ends(low, width, is_log, is_whole, shares):
    u = np.array(sorted(shares))
    low, high = (math.floor(low), math.floor(low) + math.ceil(width)) if is_whole else (low, low + width)
    domains = [Distribution("normal", (0.0, 1e5), low, high, is_whole)]
    if low > 0 or not is_log:
        domains.append(Range(low, high, is_log, is_whole))
    if domains[0].mass == 0:
        domains.pop(0)
    for domain in domains:
        values = domain.from_unit(u)
        assert (values >= low).all()
        assert (values <= high).all()
        assert (np.diff(values) >= 0).all()
        assert (values.dtype == np.int64) == is_whole


@given(st.lists(st.integers(), min_size=1, max_size=20, unique=True), st.floats(0, 1))
def test_a_share_picks_one_of_the_choices(values, share):
    values = [value % 2**60 for value in values]
    assert (
        Choices(tuple(values)).from_unit(np.array([share]))[0] == values[min(int(share * len(values)), len(values) - 1)]
    )


@settings(max_examples=20, deadline=None)
@given(conditional(), RULES, st.sampled_from([None, {"method": "sobol", "n": 5, "seed": 3}, {"method": "grid"}]))
def test_the_normalised_text_gives_an_equal_sweep(parameters, rules, sampling):
    others = {"constraints": rules} | ({} if sampling is None else {"sampling": sampling})
    first = sweep(parameters, **others)
    again = sweep_from(parsed(first.text, "text"), "text", "/")
    assert again == first
    assert again.text == first.text


# Expressions

INTEGERS = {"a": 3, "b": -2, "c.d": 16, "e_f": 0}
NAMES = st.sampled_from(sorted(INTEGERS))
LITERALS = st.one_of(
    st.integers(0, 100).map(str), st.floats(0.01, 100).map(lambda x: f"{x:.3g}"), NAMES, st.just("2**3")
)
ARITHMETIC = st.recursive(
    LITERALS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
            lambda t: "({} {} {})".format(*t)
        ),
        inner.map(lambda x: f"-{x}"),
        inner.map(lambda x: f"abs({x})"),
        st.tuples(inner, inner).map(lambda t: "min({}, {})".format(*t)),
        st.tuples(inner, inner, inner).map(lambda t: "max({}, {}, {})".format(*t)),
    ),
    max_leaves=6,
)
COMPARED = st.one_of(
    st.tuples(ARITHMETIC, OPS, ARITHMETIC).map(" ".join),
    st.tuples(ARITHMETIC, OPS, ARITHMETIC, OPS, ARITHMETIC).map(" ".join),
    st.tuples(NAMES, st.sampled_from(["in", "not in"]), st.lists(st.integers(-3, 16), min_size=1)).map(
        lambda t: "{} {} {}".format(*t)
    ),
)
EXPRESSIONS = st.recursive(
    COMPARED,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: "({} {} {})".format(*t)),
        inner.map(lambda x: f"not ({x})"),
    ),
    max_leaves=4,
)


class Inner:
    d = INTEGERS["c.d"]


@settings(max_examples=100, deadline=None)
@given(EXPRESSIONS)
def test_expressions_agree_with_python(text):
    assume(len(text) < 1000)
    names = {"a": INTEGERS["a"], "b": INTEGERS["b"], "c": Inner, "e_f": INTEGERS["e_f"]}
    try:
        expected = eval(text, {}, names)
    except (ZeroDivisionError, OverflowError):
        assume(False)
    rule = parse(text, "here", Known)
    n = 3
    assert bool(rule.values(INTEGERS)) == expected, "values one by one"
    columns = {name: np.full(n, value) for name, value in INTEGERS.items()}
    assert np.broadcast_to(rule.values(columns), n).tolist() == [expected] * n, "columns"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_a_line(text):
    try:
        parse(text, "here")
    except ValueError as error:
        assert str(error).startswith("here: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
