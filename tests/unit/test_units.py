import pytest

from imcsim.units import human, percent


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "ns", "0 ns"),
        (0, "", "0"),
        (0.5, "ns", "500 ps"),
        (999, "ns", "999 ns"),
        (1000, "ns", "1 µs"),
        (-13579.0, "ns", "-13.58 µs"),
        (2.5e9, "ns", "2.5 s"),
        (1e-6, "ns", "0.001 ps"),
        (26.84, "pJ", "26.84 pJ"),
        (1.5e6, "pJ", "1.5 µJ"),
        (900, "mW", "900 mW"),
        (1_960_000, "um2", "1.96 mm²"),
        (131072, "bits", "16 KiB"),
        (100, "bits", "100 bits"),
        (1_800_000, "", "1.8 M"),
    ],
)
def test_numbers_are_written_with_the_prefix_that_suits_a_reader(value, unit, text):
    assert human(value, unit) == text


def test_a_reader_chooses_how_many_digits():
    assert human(13579.0, "ns", digits=2) == "14 µs"


def test_shares_are_written_as_percentages():
    assert percent(1) == "100.0 %"
    assert percent(0.123456, digits=3) == "12.346 %"
