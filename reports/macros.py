"""Published macros beside what their papers print: reports/macros/.

python reports/macros.py

Of each shipped chip file of kind macro: every figure that its paper prints, ours beside it with the error. What adds up
the paper's own parts, what was fitted, and what is predicted stand apart; how each is worked out is in
`imcsim.costs.macro`, why the large ones are off in `reports/macros/differences.yaml`.
"""

from math import exp, log
from pathlib import Path
from statistics import median

import yaml

from imcsim.arch.load import load_machine, shipped_chips
from imcsim.arch.macros import Macro
from imcsim.costs.macro import MacroFigure, Role, macro_figures
from imcsim.report.figures import write_figures
from imcsim.report.macros import MEANING, ratios_figure
from imcsim.results import write_whole

OUT = Path(__file__).parent / "macros"
WHY = OUT / "differences.yaml"
ROLES: tuple[Role, ...] = ("predicted", "own parts", "fitted")


def main() -> None:
    """Work everything out; write the table and the figure."""
    macros = [machine for name in shipped_chips() if isinstance(machine := load_machine(name), Macro)]
    found = [(macro, figure) for macro in macros for figure in macro_figures(macro) if figure.printed is not None]
    text = page(found)
    write_whole(OUT / "table.md", text)
    write_figures(OUT, {"macros": lambda: ratios_figure(found)})
    print(text)


def page(found: list[tuple[Macro, MacroFigure]]) -> str:
    """Return the tables as Markdown."""
    rows = yaml.safe_load(WHY.read_text(encoding="utf-8"))["rows"]
    why = {(row["macro"], row["figure"]): row.get("why", "") for row in rows}
    text = [
        "# Published macros: ours beside what is printed\n",
        "Made by `python reports/macros.py`. An error of +100 % is twice the printed figure. *Predicted* rows have "
        "nothing in them that was measured of the macro at that point: they are scaled from another supply by "
        "`imcsim.costs.technology`, or are the tile of TiM-DNN, changed to the macro's measures and scaled to its "
        "node.\n",
        "| macro | made in | as |",
        "| --- | --- | --- |",
    ]
    for macro in dict.fromkeys(macro.name for macro, _ in found):
        described = next(each for each, _ in found if each.name == macro)
        text.append(f"| {macro} | {described.technology.node_nm:g} nm | {described.description} |")
    for role in ROLES:
        of_role = [(macro, figure) for macro, figure in found if figure.role == role]
        text += [f"\n## {MEANING[role].capitalize()}\n", *table(of_role, why), summary(of_role)]
    text.append("\n![Ours by printed](figures/macros.png)")
    return "\n".join(text) + "\n"


def table(found: list[tuple[Macro, MacroFigure]], why: dict[tuple[str, str], str]) -> list[str]:
    """Return the lines of a table."""
    lines = ["| macro | figure | unit | ours | printed | error | how | why it is off |",
             "| --- | --- | --- | ---: | ---: | ---: | --- | --- |"]  # fmt: skip
    for macro, figure in found:
        assert figure.error is not None
        assert figure.printed is not None
        lines.append(
            f"| {macro.name} | {figure.name} | {figure.unit} | {figure.value:.4g} | {figure.printed:.4g} | "
            f"{100 * figure.error:+.1f} % | {figure.how} | {why.get((macro.name, figure.name), '')} |"
        )
    return lines


def summary(found: list[tuple[Macro, MacroFigure]]) -> str:
    """Return how far off *found* are, in words."""
    logs = [abs(log(figure.value / figure.printed)) for _, figure in found if figure.printed]
    near = sum(size <= log(1.3) for size in logs)
    return (
        f"\nOff by a factor {exp(median(logs)):.2f} in the median, {exp(max(logs)):.2f} at most; "
        f"{near} of {len(logs)} within a factor 1.3."
    )


if __name__ == "__main__":
    main()
