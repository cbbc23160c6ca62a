"""TiM-DNN: what the paper prints, and where imcsim differs from it."""

from pathlib import Path

import pytest
import yaml

from imcsim.arch.load import load_chip
from imcsim.costs.peaks import peaks
from imcsim.costs.price import price

GOLDEN = yaml.safe_load(Path(__file__).with_name("tim-dnn.yaml").read_text())
CHIP = load_chip(GOLDEN["arch"])
PEAKS = {peak.name: peak for peak in peaks(CHIP, price(CHIP))}


def named(rows, key="name"):
    return pytest.mark.parametrize("row", rows, ids=[row[key] for row in rows])


@named(GOLDEN["peaks"])
def test_a_peak_rounds_to_what_is_printed(row):
    assert PEAKS[row["name"]].value == pytest.approx(row["printed"], abs=row["step"] / 2)


@named(GOLDEN["parameters"], "key")
def test_a_parameter_is_the_printed_one(row):
    value = CHIP
    for name in row["key"].split("."):
        value = getattr(value, name)
    assert value == row["printed"]


@named(GOLDEN["quotients"])
def test_the_printed_figures_agree_with_one_another(row):
    figures = CHIP.figures
    quotient = figures[row["of"]].value / figures[row["by"]].value * row["times"]
    assert quotient == pytest.approx(row["printed"], abs=row["step"] / 2)
    assert figures[row["name"]].value == row["printed"]


@named(GOLDEN["differences"])
def test_a_difference_is_the_documented_one(row):
    peak = PEAKS[row["name"]]
    assert peak.printed == row["printed"]
    assert round(100 * peak.difference) == row["percent"]


def test_every_printed_figure_of_the_chip_is_either_met_or_documented():
    met = {row["name"] for row in GOLDEN["peaks"]} | {"tile_TOPS_per_mm2"}  # the area of the PCUs is taken from it
    assert CHIP.figures.keys() == met | {row["name"] for row in GOLDEN["differences"]}
