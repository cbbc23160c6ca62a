"""Conditions and constraints: what they say of points, and every message for what they cannot say."""

import re

import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.sweep.expressions import Known, parse


def holds(text, **columns):
    found = parse(text, "here", kinds(columns)).values(columns)
    return found.tolist()


def kinds(columns):
    """Names by the kind of their values; anything else is a number."""

    def find(name):
        value = np.asarray(columns.get(name, 0))
        kind = "text" if value.dtype.kind in "UO" else "truth" if value.dtype.kind == "b" else "number"
        return Known(name, kind)

    return find


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


# What holds


@pytest.mark.parametrize(
    ("text", "is_true"),
    [
        ("1 < 2 <= 2 < 3", True),
        ("1 < 2 > 2", False),
        ("7 // 2 == 3 and -7 // 2 == -4", True),
        ("-7 % 3 == 2", True),
        ("7 / 2 == 3.5", True),
        ("2 ** 10 == 1024 and 2 ** -1 == 0.5", True),
        ("-2 ** 2 == -4", True),
        ("min(3, 1, 2) == 1 and max(3, 1, 2) == 3", True),
        ("abs(-3) == 3 and log2(8) == 3", True),
        ("3 in [1, 2, 3] and 4 not in [1, 2, 3]", True),
        ("not 1 == 2 or 1 / 0 == 1", True),
        ("true and not false", True),
        ("'a' == 'a' and 'a' in ['b', 'a'] and 'a' != 'b'", True),
        ("+1 == 1.0", True),
        ("1e3 == 1000 and 1.5e-3 == 0.0015 and .5 == 0.5 and 1_000 == 1e3", True),
    ],
)
def test_constants_are_judged_as_in_python(text, is_true):
    assert holds(text) is is_true


def test_a_step_of_a_name_may_be_a_number():
    columns = {"quantizer.2.bits_a": np.array([2, 8]), "quantizer.12.bits_a": 4, "quantizer": "lsq:2.bits_a=8"}
    assert holds("quantizer.2.bits_a < quantizer.12.bits_a", **columns) == [True, False]
    assert holds("quantizer == 'lsq:2.bits_a=8' and quantizer.12.bits_a == 4.0", **columns) is True
    assert parse("quantizer.2.bits_a < 3", "here").names == ("quantizer.2.bits_a",)
    with refused("here: quantizer.2.bits_a: must be a comparison here, got 'not quantizer.2.bits_a'"):
        parse("not quantizer.2.bits_a", "here")


def test_a_column_is_judged_at_once():
    assert holds("rows % block == 0", rows=np.array([256, 250]), block=16) == [True, False]


def test_names_may_have_dots():
    rule = parse("tile.n_rows >= 2 * tile.rows_per_access", "here")
    assert rule.names == ("tile.n_rows", "tile.rows_per_access")
    assert rule.values({"tile.n_rows": 64, "tile.rows_per_access": np.array([16, 33])}).tolist() == [True, False]


def test_texts_are_compared_as_wholes():
    serial = np.array(["bit", "trit", "bit"], dtype=object)
    assert holds("serial == 'bit'", serial=serial) == [True, False, True]
    assert holds("serial != 'bit'", serial=serial) == [False, True, False]
    assert holds("serial in ['trit', 'other']", serial=serial) == [False, True, False]
    assert holds("serial not in ['trit']", serial=serial) == [True, False, True]


def test_something_true_or_false_needs_no_comparison():
    assert holds("buffered and n == 1", buffered=np.array([True, False, True]), n=np.array([1, 1, 2])) == [
        True,
        False,
        False,
    ]
    assert holds("not buffered", buffered=np.array([True, False])) == [False, True]
    assert holds("buffered == true", buffered=np.array([True, False])) == [True, False]


def test_what_is_not_defined_compares_as_false():
    zeros = np.array([0, 4])
    assert holds("8 % n == 0", n=zeros) == [False, True]
    assert holds("8 // n != 0", n=zeros) == [False, True]
    assert holds("n == 0 or 8 / n == 2", n=zeros) == [True, True]
    assert holds("x < 1", x=np.array([np.nan, 0.0])) == [False, True]
    assert holds("x != 1", x=np.array([np.nan, 0.0])) == [False, True]
    assert holds("x not in [1]", x=np.array([np.nan, 0.0])) == [False, True]
    assert holds("log2(n) >= 0", n=zeros) == [False, True]


def test_whole_numbers_do_not_wrap_around():
    bits = np.array([2**62])
    assert holds("bits * 4 > 0", bits=bits) == [True]
    assert holds("bits + bits > 0", bits=bits) == [True]
    assert holds("bits ** 2 > bits", bits=bits) == [True]
    assert holds("10 ** 10 ** 10 > bits", bits=bits) == [True]
    assert holds("bits < 100000000000000000000", bits=bits) == [True]


def test_whole_numbers_stay_exact():
    assert holds("n * 3 == 27021597764222979", n=np.array([2**53 + 1])) == [True]


# Units


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("area_um2 <= 2 mm2", {"area_um2": [2e6, 2.1e6]}, [True, False]),
        ("area_um2 <= 500um2", {"area_um2": [500, 501]}, [True, False]),
        ("latency_ns <= 3 ms", {"latency_ns": [3e6, 3.1e6]}, [True, False]),
        ("latency_ns <= 3e-3s", {"latency_ns": [3e6, 3.1e6]}, [True, False]),
        ("1.5 us < latency_ns < 2 µs", {"latency_ns": [1600, 2100]}, [True, False]),
        ("energy_pJ < 1 nJ", {"energy_pJ": [999, 1000]}, [True, False]),
        ("energy_pJ < 1 uJ and energy_pJ < 1 mJ and energy_pJ < 1 J", {"energy_pJ": [999999, 1e6]}, [True, False]),
        ("min(latency_ns, 5) + 1 us <= 1005 ns", {"latency_ns": [4, 7]}, [True, True]),
        ("resistive.elapsed_s <= 10 ms", {"resistive.elapsed_s": [0.01, 0.02]}, [True, False]),
        ("buffer.capacity_bits >= 2 KiB", {"buffer.capacity_bits": [16384, 16383]}, [True, False]),
        ("2 * latency_ns - 1 us <= 0", {"latency_ns": [500, 501]}, [True, False]),
        ("name == '3 ms' or latency_ns < 3 ms", {"name": ["3 ms", "x"], "latency_ns": [5e6, 5e6]}, [True, False]),
    ],
)
def test_a_number_is_brought_to_the_unit_of_what_it_is_compared_with(text, values, expected):
    columns = {name: np.array(v, dtype=object if isinstance(v[0], str) else None) for name, v in values.items()}
    assert parse(text, "here", kinds(columns)).values(columns).tolist() == expected


def test_a_unit_must_suit_what_it_is_compared_with():
    with refused(
        "s.yaml: constraints: 3 ms: must be compared with a time, not with what is in um2, got 'area_um2 <= 3 ms'"
    ):
        parse("area_um2 <= 3 ms", "s.yaml: constraints")
    with refused("here: 3 ms: must be compared with a time, not with what has no unit, got 'rows <= 3 ms'"):
        parse("rows <= 3 ms", "here")
    with refused("here: 2 J: must be compared with an energy, not with what has no unit, got 'edp_pJ_ns <= 2 J'"):
        parse("edp_pJ_ns <= 2 J", "here")
    with refused(
        "here: 1 pJ: must be compared with an energy, not with what has no unit, got 'x.energy_pJ_per_bit < 1 pJ'"
    ):
        parse("x.energy_pJ_per_bit < 1 pJ", "here")
    with refused("here: 1 ms: must be compared with one unit of time, not with ns and s, got 'a_s < b_ns + 1 ms'"):
        parse("a_s < b_ns + 1 ms", "here")


def test_an_unknown_unit_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"^here: 2 mmm2: the unit must be one of ps, .*; did you mean 'mm2'\?$"):
        parse("area_um2 <= 2 mmm2", "here")


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows = 3", "here: must be an expression, got 'rows = 3'; write == for equal"),
        ("a < 1 && b < 1", "here: must be an expression, got 'a < 1 && b < 1'; write and, or"),
        ("rows <", "here: must be an expression, got 'rows <'"),
        ("", "here: must be an expression, got ''"),
        ("(" * 900 + "1" + ")" * 900, None),
        ("rows", "here: must be a comparison, something that holds or does not, got 'rows'"),
        ("rows % 3", "here: must be a comparison, something that holds or does not, got 'rows % 3'"),
        ("rows == 'x'", """here: 'x': must be a number here, got "rows == 'x'\""""),
        ("'a' < 'b'", """here: 'a': must be a number to be greater or less, got "'a' < 'b'\""""),
        ("1 + (a < b) == 2", "here: a < b: must be a number here, got '1 + (a < b) == 2'"),
        ("a and b < 1", "here: a: must be a comparison here, got 'a and b < 1'"),
        ("a in 3", "here: 3: must be a list in brackets after in, got 'a in 3'"),
        ("a in []", "here: []: must be a list in brackets after in, got 'a in []'"),
        ("a is b", "here: must compare with ==, !=, <, <=, >, >= or in, got 'a is b'"),
        ("min(a) < 1", "here: min(): must have 2 or more arguments, got 'min(a) < 1'"),
        ("abs(a, b) < 1", "here: abs(): must have 1 arguments, got 'abs(a, b) < 1'"),
        ("a < 1e999", "here: numbers must be finite, got 'a < 1e999'"),
        ("a @ b < 1", "here: must be made of comparisons and arithmetic, got 'a @ b < 1'"),
        ("a.b().c < 1", "here: a.b().c: must be a name, got 'a.b().c < 1'"),
        ("__import__('os').x < 1", """here: __import__('os').x: must be a name, got "__import__('os').x < 1\""""),
    ],
)
def test_what_is_no_expression_is_refused(text, message):
    with pytest.raises(ConfigError) if message is None else refused(message):
        parse(text, "here")


@pytest.mark.parametrize(
    "text",
    [
        "exec('1') == 1",
        "open('x') == 1",
        "[1] == a",
        "(lambda: 1)() == 1",
        "a if b < 1 else c",
        "[x for x in a] == 1",
        "f'{a}' == 'x'",
        "a[0] == 1",
        "(a := 1) == 1",
        "min(a, key=b) == 1",
        "min(*a) == 1",
        "1j == a",
        "b'x' == a",
        "None == a",
        "... == a",
        "a << 2 == 4",
        "~a == 1",
        "{1: 2} == a",
    ],
)
def test_the_rest_of_python_is_refused(text):
    with pytest.raises(ConfigError, match=r"^here: .*, got "):
        parse(text, "here")


def test_a_text_that_is_too_long_is_refused():
    with refused("here: must be at most 2000 characters, got 2004"):
        parse("a" * 2000 + " < 1", "here")


def test_a_name_that_is_not_known_is_said_with_the_text():
    def find(name):
        raise ConfigError(f"{name}: no such thing")

    with refused("here: rows: no such thing; in 'rows < 3'"):
        parse("rows < 3", "here", find)


def test_two_expressions_are_equal_where_their_texts_are():
    assert parse("a < 1", "here") == parse("a < 1", "there")
    assert parse("a < 1", "here") != parse("a < 2", "here")
