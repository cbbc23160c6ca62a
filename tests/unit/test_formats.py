import pytest

from imcsim.errors import GraphError
from imcsim.graph import BINARY, REAL, TERNARY, Format, integer, signed, unsigned


@pytest.mark.parametrize(
    ("form", "low", "high", "passes", "digit", "text"),
    [
        (BINARY, -1, 1, 1, 1, "binary"),
        (TERNARY, -1, 1, 1, 2, "ternary"),
        (unsigned(1), 0, 1, 1, 1, "u1"),
        (unsigned(8), 0, 255, 8, 1, "u8"),
        (signed(2), -1, 1, 1, 2, "s2"),
        (signed(8), -127, 127, 7, 2, "s8"),
        (integer(8), -128, 127, 8, 2, "i8"),
    ],
)
def test_a_format_knows_its_codes_and_how_they_travel(form, low, high, passes, digit, text):
    assert (form.low, form.high) == (low, high)
    assert (form.n_passes, form.bits_per_digit(), str(form)) == (passes, digit, text)
    assert (form.codec().low, form.codec().high) == (low, high)
    assert not form.is_real


def test_real_numbers_take_bits_but_no_tile_takes_them():
    assert REAL.is_real
    assert str(REAL) == "real16"
    with pytest.raises(GraphError, match=r"format: a tile takes codes, got real numbers; quantize the activation"):
        REAL.codec()


@pytest.mark.parametrize(
    ("kind", "bits", "message"),
    [
        ("binary", 2, r"format: binary codes take 1 bits, got 2"),
        ("ternary", 1, r"format: ternary codes take 2 bits, got 1"),
        ("unsigned", 0, r"format: bits must be from 1 to 64, got 0"),
        ("real", 65, r"format: bits must be from 1 to 64, got 65"),
    ],
)
def test_codes_of_other_widths_are_refused(kind, bits, message):
    with pytest.raises(GraphError, match=message):
        Format(kind, bits)
