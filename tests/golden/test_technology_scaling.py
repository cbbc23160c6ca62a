"""Scaling between nodes, against the values that the paper's page and a second transcription of its tables print."""

from pathlib import Path

import pytest
import yaml

from imcsim.costs.technology import area_factor, energy_factor, gate_energy, process

GOLDEN = yaml.safe_load(Path(__file__).with_name("technology-scaling.yaml").read_text())


@pytest.mark.parametrize("row", GOLDEN["gates"], ids=[row["process"] for row in GOLDEN["gates"]])
def test_the_energy_of_a_gate_rounds_to_what_is_printed(row):
    assert gate_energy(process(row["process"])) == pytest.approx(row["printed"], abs=row["step"] / 2)


@pytest.mark.parametrize("row", GOLDEN["energies"], ids=[row["to"] for row in GOLDEN["energies"]])
def test_an_energy_factor_rounds_to_what_is_printed(row):
    factor = energy_factor(process(row["from"]), process(row["to"]))
    assert factor == pytest.approx(row["printed"], abs=row["step"] / 2)


@pytest.mark.parametrize("row", GOLDEN["areas"], ids=[f"{row['from']}-{row['to']}" for row in GOLDEN["areas"]])
def test_an_area_factor_is_the_printed_one(row):
    assert area_factor(process(row["from"]), process(row["to"])) == row["printed"]
