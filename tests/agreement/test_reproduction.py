"""The committed report of TiM-DNN against what the code gives now: the parts that are quick to make again."""

import csv
from pathlib import Path

import pytest

from imcsim.reproduce.fit import load_fitted, read_record
from imcsim.reproduce.kernel import kernel_curve
from imcsim.reproduce.page import FIGURES, choices_view, fit_view, kernel_csv
from imcsim.reproduce.predict import PARTS, figures_at_full_rate, figures_of, run_of
from imcsim.reproduce.suite import CHIPS, NETWORKS
from imcsim.reproduce.targets import CALIBRATION, VALIDATION, read_targets

REPORT = Path(__file__).parents[2] / "reports" / "tim-dnn"
RENEW = "imcsim reproduce tim-dnn --out reports/tim-dnn renews it"


def rows_of(name):
    return list(csv.DictReader((REPORT / name).read_text(encoding="utf-8").splitlines()))


@pytest.fixture(scope="module")
def table():
    return {row["quantity"]: row for row in rows_of("table.csv")}


@pytest.fixture(scope="module")
def runs():
    suite, chips = read_record().suite, load_fitted()
    return {(network, name): run_of(suite, network, name, chip, "estimate")
            for network in NETWORKS for name, chip in chips.of_name.items()}  # fmt: skip


def test_the_formulas_give_the_committed_rates_speedups_and_ratios(table, runs):
    rates = {at: run.rate_per_s for at, run in runs.items()}
    energies = {at: run.energy_pJ for at, run in runs.items()}
    for quantity, value in figures_of(rates, energies).items():
        within = 0.05 if quantity.startswith(("rate", "energy")) else 0.1  # a speed-up is a ratio of two of them
        assert value == pytest.approx(float(table[quantity]["ours"]), rel=within), f"{quantity}; {RENEW}"


def test_the_committed_figures_at_full_rate_are_ours(table):
    for quantity, value in figures_at_full_rate(load_fitted(), {name: {} for name in CHIPS}).items():
        assert float(value) == pytest.approx(float(table[quantity]["ours"]), rel=1e-5), f"{quantity}; {RENEW}"


def test_the_committed_split_of_the_energy_is_ours(runs):
    committed = {(row["network"], row["chip"], row["part"]): float(row["energy_pJ"]) for row in rows_of("splits.csv")}
    assert set(committed) == {(network, chip, part) for network in NETWORKS for chip in CHIPS for part in PARTS}
    for at, run in runs.items():
        for part in PARTS[:-1]:  # what leaks follows the time, which the formulas know to some percent
            assert run.energy_of_pJ[part] == pytest.approx(committed[(*at, part)], rel=1e-4), f"{at} {part}; {RENEW}"


def test_the_committed_table_says_what_is_known_of_each_printed_figure(table):
    known = {"calibrated": read_targets(CALIBRATION), "predicted": read_targets(VALIDATION)}
    for quantity, row in table.items():
        target = known[row["role"]].get(quantity)
        assert row["printed"] == ("" if target is None else f"{target.printed:g}"), quantity
        assert row["basis"] == ("" if target is None else target.basis), quantity
        assert float(row["low"]) <= float(row["high"]), quantity
    for role, targets in known.items():
        shown = {quantity for quantity, row in table.items() if row["role"] == role and row["printed"]}
        assert shown == {quantity for quantity, target in targets.items() if not target.keys}


def test_the_committed_kernel_is_ours():
    calibration = read_targets(CALIBRATION)
    assert kernel_csv(kernel_curve(load_fitted(), calibration)) == (REPORT / "kernel.csv").read_text(), RENEW


def test_the_committed_page_has_the_fit_of_the_record_and_every_figure():
    text, fit = (REPORT / "README.md").read_text(encoding="utf-8"), read_record()
    for view in (fit_view(fit), choices_view(fit)):
        assert all(f"| {' | '.join(row)} |" in text for row in view.rows), RENEW
    for name in FIGURES:
        assert (REPORT / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"figures/{name}.png" in text


def test_every_difference_over_a_tenth_has_an_experiment_that_was_run(table):
    text = (REPORT / "differences.md").read_text(encoding="utf-8")
    for quantity, row in table.items():
        if row["printed"] and abs(float(row["ours"]) / float(row["printed"]) - 1) > 0.1:
            head, *tests = text.split("\n## ")
            assert f"| `{quantity}` |" in head, RENEW
            assert any(f"| `{quantity}` |" in test for test in tests), f"{quantity} has no experiment"
