import copy
import json
import re

import pytest
from rich.console import Console
from test_report import SUMMARY, rows_of_engine, write_run

from imcsim.errors import DataError
from imcsim.report import account_charts
from imcsim.report.account_figures import account_drawings
from imcsim.report.accounts import ablation_table, layer_errors_table, points
from imcsim.report.figures import render
from imcsim.report.load import check_summary, read_run
from imcsim.report.page import cards, page_of, sections
from imcsim.report.terminal import headlines, print_run


def difference(value, low, high):
    return {"value": value, "interval": [low, high], "n_better": 1, "n_worse": 6, "method": "95 % Tango score interval"}


def deviation(ratio_dB, n_different=1, error=1.0):
    return {"n_values": 8, "n_different": n_different, "signal": 9.0, "error": error, "ratio_dB": ratio_dB}


EXACT = deviation(None, 0, 0.0)
ACCURACY = SUMMARY["accuracy"] | {"difference": difference(-0.1, -0.2, -0.01)}
TRIALS = {
    "n": 4, "is_random": True, "n_samples": 50, "mean": 0.79, "std": 0.0115, "worst": 0.78, "best": 0.8,
    "quantiles": {"0.05": 0.78, "0.5": 0.79, "0.95": 0.8}, "seeds": [0, 11, 12, 13],
    "accuracies": [0.78, 0.8, 0.78, 0.8],
}  # fmt: skip
ERRORS = {
    "n_samples": 50,
    "first_difference": {"layer": "a", "stage": "sums", "sample": 3, "place": [7, 0, 2], "expected": 4.0, "found": 2.0},
    "layers": [
        {"name": "q", "sums": None, "own_sums": None, "outputs": EXACT, "own_outputs": EXACT},
        {"name": "a", "sums": deviation(20.0), "own_sums": deviation(20.0),
         "outputs": deviation(8.5), "own_outputs": deviation(8.5)},
        {"name": "b", "sums": deviation(12.04, 4), "own_sums": EXACT,
         "outputs": deviation(3.0, 2), "own_outputs": EXACT},
    ],
}  # fmt: skip
ABLATION = {
    "n_samples": 50, "reference": 0.9, "whole": {"accuracy": 0.8, "difference": difference(-0.1, -0.2, -0.01)},
    "layers": [
        {"name": name, "alone": {"accuracy": 0.82, "difference": difference(-0.08, -0.18, 0.0)},
         "others": {"accuracy": 0.9, "difference": difference(0.0, -0.07, 0.07)}} for name in ("a", "b")
    ],
}  # fmt: skip
WHOLE = {"accuracy": ACCURACY, "trials": TRIALS, "layer_errors": ERRORS, "ablation": ABLATION}


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", **WHOLE)


def summary_of(**changes):
    return check_summary(SUMMARY | WHOLE | changes, "summary")


def test_headlines_say_how_sure_an_accuracy_is():
    lines = headlines(summary_of())
    assert "intervals  reference 78.64 % to 95.65 %, chip 66.96 % to 88.76 % (95 % Wilson score interval)" in lines
    assert (
        "difference -10.00 points, -20.00 to -1.00 (95 % Tango score interval); "
        "right on the chip alone 1 samples, on the reference alone 6"
    ) in lines
    assert "trials     4 chips: mean 79.00 %, standard deviation 1.15 points, worst 78.00 %, best 80.00 %" in lines
    assert "quantiles  5 %: 78.00 %, 50 %: 79.00 %, 95 %: 80.00 %" in lines
    assert "first difference  a, sum of sample 3, channel 7, row 0, column 2: expected 4, found 2" in lines


def test_trials_of_a_chip_with_nothing_random_are_one_line():
    lines = headlines(summary_of(trials=TRIALS | {"is_random": False}))
    assert "trials     nothing on this chip is random: all 4 are equal, 79.00 %; one was executed" in lines
    assert not [line for line in lines if line.startswith("quantiles")]


def test_a_summary_of_an_earlier_version_has_intervals_and_nothing_else():
    words = [line.split()[0] for line in headlines(check_summary(SUMMARY, "summary"))]
    assert "intervals" in words
    assert not {"difference", "trials", "quantiles", "first"} & set(words)


def test_tables_say_what_is_exact():
    table = layer_errors_table(summary_of().layer_errors)
    assert table.rows[0] == ("q", "-", "-", "exact", "exact", "0 %", "0 %")
    assert table.rows[2] == ("b", "12.0", "exact", "3.0", "exact", "25.00 %", "0 %")
    assert ablation_table(summary_of().ablation).rows[:2] == [
        ("all layers", "-", "-", "-", "80.00 %", "-10.00", "-20.00 to -1.00"),
        ("a", "82.00 %", "-8.00", "-18.00 to 0.00", "90.00 %", "0.00", "-7.00 to +7.00"),
    ]
    assert points(1e-9) == points(-1e-9) == "0.00"


def test_the_terminal_prints_both_tables():
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_run(SUMMARY | WHOLE, rows_of_engine("simulate"), console)
    lines = [re.sub(r"\s+", " ", line).strip() for line in console.export_text().splitlines()]
    assert "a 20.0 20.0 8.5 8.5 12.50 % 12.50 %" in lines
    assert "b 82.00 % -8.00 -18.00 to 0.00 90.00 % 0.00 -7.00 to +7.00" in lines


def test_the_page_has_a_section_of_each_with_its_chart(folder):
    run = read_run(folder)
    found = {section.name: section for section in sections(run)}
    assert {"trials", "layer_errors", "ablation"} <= set(found)
    for name in ("trials", "layer_errors", "ablation"):
        assert [chart.name for chart in found[name].charts] == [name]
        assert len(found[name].tables) == 1
    assert "The layer that adds most is a: 20.0 dB of its own." in found["layer_errors"].paragraphs
    assert {card.name: card.value for card in cards(run)}["Chip less reference"] == "-10.00 points"
    page = page_of(run)
    assert all(f'id="chart-{name}"' in page for name in ("trials", "layer_errors", "ablation"))


def test_without_what_was_not_asked_for_there_is_no_section(tmp_path):
    names = {section.name for section in sections(read_run(write_run(tmp_path / "run")))}
    assert not names & {"trials", "layer_errors", "ablation"}


def test_figures_are_drawn_with_the_same_bytes_twice(folder):
    drawn = account_drawings(read_run(folder).summary)
    assert sorted(drawn) == ["ablation", "layer_errors", "trials"]
    for draw in drawn.values():
        assert render(draw) == render(draw)


def test_charts_hold_the_numbers():
    data = json.loads(account_charts.layer_errors(summary_of().layer_errors).json)["data"]
    assert data[1]["x"] == [20.0, 12.04]
    assert data[2]["x"] == [20.0, pytest.approx(1.15 * 20)]  # exact: beyond the greatest ratio
    bars = json.loads(account_charts.trials(summary_of().trials, 0.9).json)["data"][0]
    assert (bars["x"], bars["y"]) == (pytest.approx([78.0, 80.0]), [2, 2])
    dots = json.loads(account_charts.ablation(summary_of().ablation).json)["data"][2]
    assert dots["x"] == [-8.0, -8.0]
    assert dots["error_x"]["array"] == pytest.approx([8.0, 8.0])


def test_many_accuracies_share_bars_and_each_is_counted():
    accuracies = [i / 10_000 for i in range(5000, 9000, 3)]
    many = TRIALS | {"n": len(accuracies), "n_samples": 10_000, "worst": 0.5, "best": 0.8999, "accuracies": accuracies}
    counts = account_charts.per_accuracy(summary_of(trials=many).trials)
    assert sum(counts.values()) == len(accuracies)
    assert len(counts) <= account_charts.MOST_BARS + 1
    assert all(0.5 <= accuracy < 0.9 for accuracy in counts)


def test_all_exact_and_a_hundred_layers_can_be_drawn():
    exact = {"name": "a", "sums": EXACT, "own_sums": EXACT, "outputs": EXACT, "own_outputs": EXACT}
    errors = summary_of(layer_errors=ERRORS | {"first_difference": None, "layers": [exact]})
    many = [exact | {"name": f"l{i}", "sums": deviation(float(i)), "own_sums": deviation(50.0)} for i in range(100)]
    deep = summary_of(layer_errors=ERRORS | {"layers": many})
    for summary in (errors, deep):
        assert render(account_drawings(summary)["layer_errors"])[0].startswith(b"\x89PNG")
    assert [layer.name for layer in account_charts.shown_errors(deep.layer_errors)] == [f"l{i}" for i in range(64)]
    assert "all exact" in account_charts.layer_errors(errors.layer_errors).label


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("trials", "mean", 1.5), r"summary: trials\.mean: must be less than or equal to 1, got 1\.5"),
        (("ablation", "whole", {}), r"summary: ablation\.whole\.accuracy: must be there, got nothing; run again"),
        (("layer_errors", "layers", [{}]), r"summary: layer_errors\.layers\.0\.name: must be there, got nothing"),
    ],
)
def test_a_broken_summary_says_where(change, message):
    part, key, value = change
    tree = copy.deepcopy(SUMMARY | WHOLE)
    tree[part][key] = value
    with pytest.raises(DataError, match=message):
        check_summary(tree, "summary")
