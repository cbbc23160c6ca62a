"""A run as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imcsim.graph.assumption import assumed_text
from imcsim.intervals import WILSON
from imcsim.report.accounts import (
    ablation_table,
    difference_text,
    first_difference_text,
    layer_errors_table,
    quantiles_text,
    trials_text,
)
from imcsim.report.load import LayerSummary, Summary, check_summary
from imcsim.report.requests import loads_table, rate_text, requests_text
from imcsim.report.time_tables import time_lines, time_tables
from imcsim.report.totals import LayerTotal, area_text, by_group, by_layer, interval_95, spent_rows
from imcsim.report.views import TableView
from imcsim.results import Row
from imcsim.units import human, percent

NOTHING = "-"
"""Where there is no number: the engine that would give it was not run."""


def print_run(summary: Summary | Mapping[str, Any], rows: Sequence[Row], console: Console) -> None:
    """Print the headline of a run, a table of its layers and a table of the components of the chip."""
    if not isinstance(summary, Summary):
        summary = check_summary(summary, "summary")
    spent = spent_rows(rows)
    for line in headlines(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if any(layer.n_macs for layer in summary.layers) or spent:
        console.print(layers_table(summary, spent))
    if spent:
        console.print(components_table(spent, rows))
    if summary.time:
        for line in time_lines(summary.time):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        for view in time_tables(summary.time):
            console.print(_of_view(view))
    if summary.requests and summary.requests.loads:
        console.print(_of_view(loads_table(summary.requests.loads)))
    if summary.layer_errors:
        console.print(_of_view(layer_errors_table(summary.layer_errors)))
    if summary.ablation:
        console.print(_of_view(ablation_table(summary.ablation)))


def headlines(summary: Summary) -> list[str]:
    """Return the figures of a run, a line each.

    >>> headlines(Summary(workload="digits", chip="tim-dnn", seed=0, version="1"))
    ['digits on tim-dnn', 'not run: simulate, estimate, execute']
    """
    style = f", {summary.style}" if summary.style else ""
    lines = [f"{summary.workload} on {summary.chip}{style}{_batch(summary)}"]
    if assumed := summary.assumed:
        lines.append(f"assumed    {assumed_text(assumed.bits, assumed.weights, assumed.inputs, assumed.n_products)}")
    if totals := summary.simulate:
        lines.append(f"simulated  {human(totals.latency_ns, 'ns')}, {human(totals.energy_pJ, 'pJ')} an inference")
    if estimate := summary.estimate:
        bounds = f"{human(estimate.least_ns, 'ns')} to {human(estimate.greatest_ns, 'ns')}"
        latency, energy = human(estimate.latency_ns, "ns"), human(estimate.energy_pJ, "pJ")
        lines.append(f"estimated  {latency} (bounds {bounds}), {energy} an inference")
        if summary.style == "pipelined" and estimate.throughput_per_s:
            rate = rate_text(estimate.throughput_per_s)
            lines.append(f"pipelined  {rate} inferences by formula, bound by {estimate.throughput_bound_by}")
    if requests := summary.requests:
        lines.append(f"requests   {requests_text(requests)}")
    if interval := summary.energy_interval_pJ:
        lines.append(f"energy     90 % interval {human(interval[0], 'pJ')} to {human(interval[1], 'pJ')}")
    if summary.area_um2 is not None:
        lines.append(f"area       {area_text(summary.area_um2)}")
    if accuracy := summary.accuracy:
        clipped = f"{_share(accuracy.n_clipped_accesses, accuracy.n_accesses)} of accesses clipped"
        lines.append(
            f"accuracy   reference {percent(accuracy.reference, digits=2)}, chip {percent(accuracy.chip, digits=2)} "
            f"({accuracy.n_samples} samples; {clipped if summary.has_adcs else 'nothing clips, there are no ADCs'})"
        )
        spans = [
            f"{who} {percent(low, digits=2)} to {percent(high, digits=2)}"
            for who, (low, high) in (
                ("reference", interval_95(accuracy.reference, accuracy.n_samples)),
                ("chip", interval_95(accuracy.chip, accuracy.n_samples)),
            )
        ]
        lines.append(f"intervals  {', '.join(spans)} ({WILSON})")
        if accuracy.difference:
            lines.append(f"difference {difference_text(accuracy.difference)}")
    if trials := summary.trials:
        lines.append(f"trials     {trials_text(trials)}")
        if trials.is_random:
            lines.append(f"quantiles  {quantiles_text(trials)}")
    if errors := summary.layer_errors:
        lines.append(f"first difference  {first_difference_text(errors.first_difference)}")
    if perplexity := summary.perplexity:
        lines.append(
            f"perplexity reference {perplexity.reference:.3f}, chip {perplexity.chip:.3f} "
            f"({perplexity.n_tokens} tokens)"
        )
    if check := summary.check:
        found = f"all {check.n_outputs} exact"
        if not check.exact:
            found = f"{check.n_different} of {check.n_outputs} differ from the reference's"
        if check.n_different_classes:
            found += f"; another class for {check.n_different_classes} samples"
        lines.append(f"outputs    {found}")
    if missing := not_run(summary):
        without = "" if summary.has_values else " (shapes alone: values need weights)"
        if summary.assumed:
            without = " (assumed bits have no values)"
        lines.append(f"not run: {', '.join(missing)}{without}")
    return lines


def not_run(summary: Summary) -> list[str]:
    """Return the engines that gave nothing to this run."""
    given = {
        "simulate": summary.simulate,
        "estimate": summary.estimate,
        "execute": summary.accuracy or summary.check,
    }
    return [engine for engine, result in given.items() if result is None]


def layers_table(summary: Summary, rows: Sequence[Row]) -> Table:
    """Return a line for each layer: MACs, latency, what bounds it, energy, accesses, clipped ones, those that drive no
    input, zero products. Accesses of a near-memory chip are rows read, and none clips.
    """
    idle = "skipped" if summary.skips_zero_blocks else "idle"
    accesses_of_chip = ("accesses", "clipped") if summary.has_adcs else ("rows read",)
    columns = ("MACs", "latency", "share", "bound by", "energy", "share", *accesses_of_chip, idle, "zero products")
    table = _table("Layers", "layer", columns)
    totals = by_layer(rows)
    total_pJ = sum(total.energy_pJ for total in totals.values())
    total_ns = sum(total.latency_ns or 0.0 for total in totals.values())
    named = {layer.name: layer for layer in summary.layers}
    for name in dict.fromkeys([*named, *totals]):
        layer = named.get(name, LayerSummary(name=name, kind=""))
        total = totals.get(name, LayerTotal())
        latency_ns, spent_pJ = total.latency_ns, total.energy_pJ
        accesses = layer.n_accesses if layer.n_accesses is not None else layer.n_accesses_per_inference
        n_clipped = layer.n_clipped_accesses
        clipped = NOTHING if n_clipped is None else _share(n_clipped, layer.n_accesses or 0)
        table.add_row(
            escape(name),
            human(layer.n_macs, "", digits=3) if layer.n_macs else NOTHING,
            human(latency_ns, "ns", digits=3) if latency_ns is not None else NOTHING,
            percent(latency_ns / (total_ns or 1.0)) if latency_ns is not None else NOTHING,
            total.bound_by if latency_ns is not None else layer.kind if layer.kind == "host" else NOTHING,
            human(spent_pJ, "pJ", digits=3) if spent_pJ else NOTHING,
            percent(spent_pJ / total_pJ) if spent_pJ else NOTHING,
            human(accesses, "", digits=3) if accesses else NOTHING,
            *([clipped] if summary.has_adcs else []),
            NOTHING if layer.n_idle_accesses is None else _share(layer.n_idle_accesses, layer.n_accesses or 0),
            NOTHING if layer.occupancy is None else percent(layer.occupancy.zero_products),
        )
    return table


def components_table(rows: Sequence[Row], every: Sequence[Row]) -> Table:
    """Return a line for each group of components: energy with leakage, how busy, area, which stands in *every* row."""
    table = _table("Components", "component", ("energy", "share", "busy", "busy share", "area", "share"))
    groups = by_group(rows, every)
    total_pJ = sum(group.energy_pJ for group in groups.values())
    total_um2 = sum(group.area_um2 or 0.0 for group in groups.values())
    latency_ns = sum(row.latency_ns for row in rows)
    for name, group in groups.items():
        busy_ns, area_um2 = group.busy_ns, group.area_um2
        table.add_row(
            escape(name),
            human(group.energy_pJ, "pJ", digits=3),
            percent(group.energy_pJ / (total_pJ or 1.0)),
            NOTHING if busy_ns is None else human(busy_ns, "ns", digits=3),
            NOTHING if busy_ns is None else percent(busy_ns / latency_ns if latency_ns else 0.0),
            NOTHING if area_um2 is None else area_text(area_um2),
            NOTHING if area_um2 is None else percent(area_um2 / (total_um2 or 1.0)),
        )
    return table


def _table(title: str, first: str, others: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="left" if name == "bound by" else "right", no_wrap=True)
    return table


def _of_view(view: TableView) -> Table:
    table = _table(view.caption, view.head[0], view.head[1:])
    for row in view.rows:
        table.add_row(escape(row[0]), *row[1:])
    return table


def _share(part: int, whole: int) -> str:
    return percent(part / whole, digits=2 if part else 0) if whole else NOTHING


def _batch(summary: Summary) -> str:
    return f", {summary.batch} samples an inference" if summary.batch > 1 else ""
