"""Published macros: what their papers print."""

from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from imcsim.arch.load import load_machine, shipped_chips
from imcsim.arch.macros import Macro
from imcsim.costs.macro import macro_figures

GOLDEN = yaml.safe_load(Path(__file__).with_name("macros.yaml").read_text())
MACROS = [machine for name in shipped_chips() if isinstance(machine := load_machine(name), Macro)]
FIGURES = {(macro.name, figure.name): figure for macro in MACROS for figure in macro_figures(macro)}


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=[f"{row['macro']}-{row['figure']}" for row in GOLDEN["rows"]])
def test_a_macro_file_holds_what_is_printed_and_says_what_went_into_ours(row):
    figure = FIGURES[row["macro"], row["figure"]]
    assert (figure.printed, figure.role) == (row["printed"], row["role"])


def test_every_printed_figure_of_a_macro_is_documented():
    printed = {key for key, figure in FIGURES.items() if figure.printed is not None}
    assert printed == {(row["macro"], row["figure"]) for row in GOLDEN["rows"]}


def test_nothing_fitted_is_called_a_prediction_and_what_adds_up_by_itself_is_within_seven_percent():
    by_role = defaultdict(list)
    for figure in FIGURES.values():
        if figure.error is not None:
            by_role[figure.role].append(abs(figure.error))
    assert set(by_role) == {"own parts", "fitted", "predicted"}
    assert max(by_role["own parts"]) < 0.07
    assert max(by_role["fitted"]) < 0.001
    assert len(by_role["predicted"]) >= 2 * len(by_role["fitted"])
