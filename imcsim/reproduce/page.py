"""What a reproduction writes: tables, figures, a page on every difference, and one HTML page with all of it."""

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from imcsim.report.figures import write_figures
from imcsim.report.page import Card, render_page
from imcsim.report.palette import MEANING_OF_BASIS
from imcsim.report.views import Image, Section, TableView
from imcsim.reproduce.experiments import WORTH_A_WORD, Experiment
from imcsim.reproduce.figures import SHOWN, drawings
from imcsim.reproduce.fit import PARAMETERS, Fit
from imcsim.reproduce.kernel import KernelCurve
from imcsim.reproduce.predict import PARTS, Prediction, Results
from imcsim.reproduce.suite import NETWORKS
from imcsim.reproduce.targets import Accelerator
from imcsim.results import write_whole

COLUMNS = ("quantity", "printed", "ours", "low", "high", "role", "basis")
FIGURES = {
    "overview": ("Ours beside the printed figures", "Ratio of our figure to the printed one, with its interval"),
    "speedup": ("Speed-up over the near-memory baselines", "Bars of the speed-up of five networks over two baselines"),
    "runtime": ("What time is spent in", "The critical path of each network on three chips, split into parts"),
    "energy": ("What energy is spent in", "The energy of each network on TiM-DNN and its baseline, split into parts"),
    "kernel": ("Energy of the kernel against sparsity", "Energy of one 16 x 256 product against the share of zeros"),
    "accelerators": ("Accelerators compared", "TOPS/W against TOPS/mm2 of TiM-DNN and three accelerators"),
    "sensitivity": ("Which numbers move which prediction", "For eight predictions the numbers that move them most"),
}


@dataclass(frozen=True)
class Report:
    """Everything that is written."""

    results: Results
    fit: Fit
    experiments: list[Experiment]
    kernel: KernelCurve
    accelerators: dict[str, Accelerator]
    command: str


def write_report(report: Report, folder: Path, *, page: bool = True) -> list[Path]:
    """Write the report into *folder* and return the paths; without *page* no figures and no HTML page."""
    texts = {
        "table.csv": table_csv(report.results.predictions),
        "splits.csv": splits_csv(report.results),
        "sensitivity.csv": levers_csv(report.results),
        "kernel.csv": kernel_csv(report.kernel),
        "README.md": readme(report),
        "differences.md": differences(report),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
    if not page:
        return [folder / name for name in texts]
    drawn = write_figures(folder, drawings(report.results, report.kernel, report.accelerators))
    write_whole(folder / "report.html", page_of(report, folder))
    return [*(folder / name for name in texts), *drawn, folder / "report.html"]


# --- tables -----------------------------------------------------------------------------------------------------


def table_csv(lines: list[Prediction]) -> str:
    """Return the table: what is printed, ours with its interval, calibrated or predicted, how well it is known."""
    rows = [
        ("" if each.printed is None else f"{each.printed:g}", *(f"{x:.6g}" for x in (each.ours, each.low, each.high)))
        for each in lines
    ]
    return _csv(COLUMNS, [(each.quantity, *row, each.role, each.basis or "")
                          for each, row in zip(lines, rows, strict=True)])  # fmt: skip


def splits_csv(results: Results) -> str:
    """Return time and energy of an inference by part, for every network and chip."""
    rows = [
        (run.network, run.chip, part, f"{run.time_ns[part]:.6g}", f"{run.energy_of_pJ[part]:.6g}")
        for run in results.runs
        for part in PARTS
    ]
    return _csv(("network", "chip", "part", "time_ns", "energy_pJ"), rows)


def levers_csv(results: Results) -> str:
    """Return what each uncertain number makes of each prediction, at both ends of its range."""
    rows = [
        (each.quantity, each.range, each.basis, f"{each.factor:g}", f"{each.low:.6g}", f"{each.high:.6g}")
        for each in results.levers
        if abs(each.high / each.low - 1) > 1e-3
    ]
    return _csv(("quantity", "number", "basis", "factor", "ours_at_low", "ours_at_high"), rows)


def kernel_csv(curve: KernelCurve) -> str:
    """Return the energy of the kernel against the share of zeros, and what the baseline's is relative to it."""
    columns = {"zero_products": curve.zero_share, "zero_outputs": curve.zero_outputs}
    columns |= {f"{_key(name)}_pJ": values for name, values in curve.energy_pJ.items()}
    for name, ends in curve.gain.items():
        columns |= {f"{_key(name)}_gain{end}": values for end, values in zip(("_low", "", "_high"), ends, strict=True)}
    rows = [tuple(f"{values[i]:.6g}" for values in columns.values()) for i in range(len(curve.zero_share))]
    return _csv(tuple(columns), rows)


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def _csv(head: tuple[str, ...], rows: list[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def number(value: float) -> str:
    """Return a figure for people.

    >>> number(4827.0), number(2374199.0), number(3.1478), number(0.9)
    ('4827', '2.374e+06', '3.148', '0.9')
    """
    return f"{value:.4g}"


def table_view(results: Results) -> TableView:
    """Return the table as the page shows it."""
    rows: list[tuple[str, ...]] = [
        (
            each.quantity,
            "" if each.printed is None else number(each.printed),
            number(each.ours),
            f"{number(each.low)} to {number(each.high)}",
            "" if each.difference is None else f"{each.difference:+.1%}",
            each.role,
            each.basis or "not known",
            each.source,
        )
        for each in results.predictions
    ]
    head = (
        "Quantity",
        "Printed",
        "Ours",
        "90 % interval",
        "Difference",
        "Role",
        "Basis of the print",
        "Source of the print",
    )
    return TableView("Printed and ours", head, rows, frozenset({1, 2, 3, 4}))


def fit_view(found: Fit) -> TableView:
    """Return the fitted factors."""
    rows: list[tuple[str, ...]] = [
        (
            each.name,
            f"{found.factors[each.name]:.4g}",
            f"{1 / found.stated_within[each.name]:.3g} to {found.stated_within[each.name]:.3g}",
            each.quantity,
            "beyond its range" if each.name in found.beyond else "",
        )
        for each in PARAMETERS
    ]
    return TableView(
        "Fitted factors", ("Factor", "Value", "Range of the chip file", "Read off", ""), rows, frozenset({1, 2})
    )


def choices_view(found: Fit) -> TableView:
    """Return the comparison of widths and batches."""
    rows: list[tuple[str, ...]] = [
        (f"{it.width} wide, {it.batch} at once", f"{it.share_alexnet:.1%}", f"{it.share_lstm:.1%}", f"{it.share:.1%}",
         "chosen" if (it.width, it.batch) == (found.suite.width, found.suite.batch) else "")
        for it in found.choices
    ]  # fmt: skip
    head = ("Width and batch, all networks", "Meet AlexNet's rate", "Meet the LSTM's", "Meet both", "")
    return TableView("Chips within the stated ranges that meet the rates", head, rows, frozenset({1, 2, 3}))


def residuals_view(found: Fit) -> TableView:
    """Return the calibration targets after the fit."""
    rows: list[tuple[str, ...]] = [
        (each.quantity, number(each.printed), number(each.ours), f"{each.ours / each.printed - 1:+.2%}")
        for each in found.residuals
    ]
    return TableView("Residuals of the fit", ("Target", "Printed", "Ours", "Difference"), rows, frozenset({1, 2, 3}))


# --- words ------------------------------------------------------------------------------------------------------


def summary(report: Report) -> list[str]:
    """Return the answer: does it give the printed figures, and where not, why?"""
    results = report.results
    known = [each for each in results.predictions if each.printed is not None and each.role == "predicted"]
    met = [each for each in known if abs(each.difference or 0.0) <= WORTH_A_WORD]
    inside = [each for each in known if each.low <= (each.printed or 0.0) <= each.high]
    far = [each.quantity for each in known if each not in met]
    suite = results.suite
    kept = results.n_kept or "none"
    beside = "" if results.n_kept else ", so that the intervals are those of all draws"
    width = "as wide as published" if suite.width == 1 else f"{suite.width} times as wide as published"
    chosen = "a choice of whoever ran this, not that of the fit"
    if suite == report.fit.suite:
        chosen = (
            "of all widths and batches the one with which most chips within the stated ranges meet both printed rates"
        )
    why = "; ".join(f"{quantity}: {explained_by(report, quantity)}" for quantity in far)
    said = [f"Why, as far as experiments tell (the differences say what each of them is): {why}."] if far else []
    return [
        f"Of {len(known)} predicted figures that something printed is known of, {len(met)} are within 10 % "
        f"({', '.join(each.quantity for each in met)}), and of {len(inside)} the interval holds the printed figure. "
        + (f"Further off are {', '.join(far)}." if far else ""),
        *said,
        f"The CNNs are {width}, and all networks take {suite.batch} at once: {chosen}. No network has a constant of "
        "its own.",
        f"Times and energies are {'simulated' if results.engine == 'simulate' else 'those of the formulas'}. Intervals "
        "hold nine of ten chips drawn from the ranges that the chip files state, each calibrated anew to the fitted "
        f"figures as closely as those are known; {kept} of {results.n_draws} draws could be{beside}.",
    ]


def about_fit(found: Fit) -> list[str]:
    """Return what the fit did, in words."""
    beyond = found.beyond
    return [
        "Five factors on numbers that no source gives are fitted, each to one figure of calibration.yaml, the only "
        "file of targets that the fit reads; the fitted chips are arch/*-fitted.yaml. With as many figures as factors "
        "a residual only remains where a figure cannot be reached; TiM-8's kernel speed-up is left to check.",
        f"Outside the range that the chip file states: {', '.join(beyond)}. What such a factor stands for need not be "
        "what it is named after: it takes up whatever else makes the printed rate slower than ours."
        if beyond
        else "Every factor lies within the range that the chip file states.",
    ]


def explained_by(report: Report, quantity: str) -> str:
    """Return the experiments that explain a difference, or the one that closes most of the gap."""
    tried = {test.name: it for test in report.experiments for it in test.outcomes if it.quantity == quantity}
    by = [name for name, it in tried.items() if it.verdict.startswith(("met", "explained for"))]
    if by or not tried:
        return ", ".join(by) or "nothing that was tried"
    most = max(tried, key=lambda name: tried[name].closed)
    return f"no single hypothesis; most by {most}, {tried[most].closed:.0%}"


def differences(report: Report) -> str:
    """Return the page on every difference over 10 %: hypothesis, experiment, outcome."""
    results = report.results
    far = [each for each in results.predictions if each.difference is not None and abs(each.difference) > WORTH_A_WORD]
    text = [
        "# Where the reproduction differs from what is printed, and why\n",
        f"Made by `{report.command}`. Every predicted or calibrated figure that is more than 10 % off what is printed, "
        "and the experiments that were run to find out why. Experiments are computed by formula; none of them changes "
        "the table. *Closed* is the share of the gap, as a ratio, that the experiment closes.\n",
        "| figure | printed | ours | difference | explained for the most part, or met, by |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    text += [
        f"| `{each.quantity}` | {number(each.printed or 0)} | {number(each.ours)} | {each.difference:+.0%} | "
        f"{explained_by(report, each.quantity)} |"
        for each in far
    ]
    text.append("\nBy network, where only the range over all five is printed:\n")
    text += _by_network(results)
    for test in report.experiments:
        text += ["", f"## {test.name}\n", f"**Hypothesis.** {test.hypothesis}\n", f"**Experiment.** {test.done}\n"]
        if test.outcomes:
            text += [
                "| figure | printed | ours | in the experiment | closed | outcome |",
                "| --- | ---: | ---: | ---: | ---: | --- |",
            ]
            text += [
                f"| `{each.quantity}` | {number(each.printed)} | {number(each.before)} | {number(each.after)} | "
                f"{each.closed:.0%} | {each.verdict} |"
                for each in test.outcomes
            ]
            text.append("")
        if test.remark:
            text.append(f"**Beside it:** {test.remark}.")
    return "\n".join(text) + "\n"


def _by_network(results: Results) -> list[str]:
    lines = ["| | " + " | ".join(SHOWN[network] for network in NETWORKS) + " | printed |",
             "| --- |" + " ---: |" * (len(NETWORKS) + 1)]  # fmt: skip
    for quantity in ("speedup_iso_capacity", "speedup_iso_area", "energy_ratio"):
        ends = [results.prediction(f"{quantity}.{end}").printed for end in ("least", "greatest")]
        each = [results.prediction(f"{quantity}.{network}") for network in NETWORKS]
        cells = " | ".join(f"{it.ours:.2f} ({it.low:.2f} to {it.high:.2f})" for it in each)
        lines.append(
            f"| `{quantity}` | {cells} | {ends[0]:g} to {ends[1]:g} |" if all(ends) else f"| `{quantity}` | {cells} | |"
        )
    return lines


def readme(report: Report) -> str:
    """Return the report as Markdown: the answer, the table, the fit and the figures."""
    text = [
        "# TiM-DNN reproduced\n",
        f"Made by `{report.command}`; `differences.md` says of every figure that is more than 10 % off what was tried "
        "to find out why.\n",
        *(f"{said}\n" for said in summary(report)),
        "## The table\n",
        *_markdown(table_view(report.results)),
        "## The fit\n",
        *(f"{said}\n" for said in about_fit(report.fit)),
    ]
    for view in (fit_view(report.fit), residuals_view(report.fit), choices_view(report.fit)):
        text += [f"{view.caption}:\n", *_markdown(view)]
    text.append("## The figures\n")
    text += [f"![{label}](figures/{name}.png)\n\n{title}.\n" for name, (title, label) in FIGURES.items()]
    return "\n".join(text)


def _markdown(view: TableView) -> list[str]:
    ruler = ["---:" if i in view.numbers else "---" for i in range(len(view.head))]
    rows = [view.head, tuple(ruler), *view.rows]
    return [*(f"| {' | '.join(row)} |" for row in rows), ""]


# --- the page ---------------------------------------------------------------------------------------------------


def page_of(report: Report, folder: Path) -> str:
    """Return the HTML page; the figures are those in *folder*."""
    return render_page(
        "TiM-DNN reproduced",
        "Does imcsim give the printed numbers, and where not, why?",
        sections(report, folder),
        footer=f"by {report.command}.",
        cards=_cards(report.results),
    )


def _cards(results: Results) -> list[Card]:
    shown = ("rate.alexnet", "rate.lstm", "speedup_iso_area.greatest", "speedup_iso_capacity.greatest",
             "energy_ratio.greatest", "tops_per_w")  # fmt: skip
    lines = [results.prediction(quantity) for quantity in shown]
    return [
        Card(each.quantity, number(each.ours),
             f"printed {number(each.printed) if each.printed else 'not known'}, {each.role}")
        for each in lines
    ]  # fmt: skip


def sections(report: Report, folder: Path) -> list[Section]:
    """Return the parts of the page in order."""
    images = {
        name: Image(name, title, label, base64.b64encode((folder / "figures" / f"{name}.png").read_bytes()).decode())
        for name, (title, label) in FIGURES.items()
    }
    tests = [
        TableView(
            f"{test.name}: {test.hypothesis}",
            ("Figure", "Printed", "Ours", "In the experiment", "Closed", "Outcome"),
            [
                (it.quantity, number(it.printed), number(it.before), number(it.after), f"{it.closed:.0%}", it.verdict)
                for it in test.outcomes
            ]
            or [("", "", "", "", "", test.remark)],
            frozenset({1, 2, 3, 4}),
        )
        for test in report.experiments
    ]
    bases = TableView(
        "What the bases mean", ("", ""), [(basis, meaning) for basis, meaning in MEANING_OF_BASIS.items()]
    )
    return [
        Section("answer", "The answer", summary(report), images=[images["overview"]]),
        Section("table", "Printed and ours", tables=[table_view(report.results), bases]),
        Section("networks", "Networks", images=[images["speedup"], images["runtime"], images["energy"]]),
        Section("others", "Kernel and other accelerators", images=[images["kernel"], images["accelerators"]]),
        Section("differences", "Differences, and why",
                ["Each hypothesis was tested by an experiment; differences.md has what was done."], tables=tests),
        Section("fit", "The fit", about_fit(report.fit),
                tables=[fit_view(report.fit), residuals_view(report.fit), choices_view(report.fit)]),
        Section("sensitivity", "What moves the predictions",
                ["One number at a time through the range that its chip file states, nothing calibrated anew; "
                 "sensitivity.csv has all of them."], images=[images["sensitivity"]]),
    ]  # fmt: skip
