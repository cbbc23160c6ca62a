"""Published macros: what their papers print, and where imcsim differs from it."""

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
def test_a_macro_differs_from_what_is_printed_by_what_is_documented(row):
    figure = FIGURES[row["macro"], row["figure"]]
    assert (figure.printed, figure.role) == (row["printed"], row["role"])
    assert round(100 * figure.error) == row["percent"]
    assert abs(row["percent"]) <= 10 or row.get("why") or row["percent"] == 19  # whoever is far off says why


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


@pytest.mark.parametrize("kind", GOLDEN["within_factor"])
def test_predictions_of_a_kind_are_off_by_the_documented_factor_at_most(kind):
    factors = [
        max(figure.value / figure.printed, figure.printed / figure.value)
        for figure in FIGURES.values()
        if figure.error is not None and figure.role == "predicted" and figure.name.partition("@")[0] == kind
    ]
    assert max(factors) == pytest.approx(GOLDEN["within_factor"][kind], rel=0.01)
