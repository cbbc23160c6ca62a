"""The report of a run: one HTML page that opens without a network, with the figures for print beside it.

The page holds what is known and how well: figures first, then what they rest on. Charts are plotly's, drawn when the
page opens; plotly.js is in the page once. The same run folder gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from imcsim.arch.spec import BASES
from imcsim.graph.assumption import assumed_text
from imcsim.report import charts
from imcsim.report.account_figures import account_drawings
from imcsim.report.account_page import account_sections
from imcsim.report.accounts import difference_text, points
from imcsim.report.charts import Chart
from imcsim.report.figures import drawings, write_figures
from imcsim.report.load import Accuracy, OccupancySummary, RunFolder, Summary, read_run
from imcsim.report.origins import origin_sections, value_text
from imcsim.report.palette import MEANING_OF_BASIS
from imcsim.report.request_figures import request_drawings, request_sections
from imcsim.report.sweep_load import is_sweep
from imcsim.report.tables import (
    area_by_component,
    basis_shares,
    clipping_by_layer,
    cost_sources,
    energy_by_component,
    energy_by_layer,
    engines_compared,
    latency_by_bound,
    latency_by_layer,
    layers_of,
    main_engine,
    rows_of,
    timeline,
    utilization,
)
from imcsim.report.terminal import not_run
from imcsim.report.time_figures import time_drawings
from imcsim.report.time_page import time_sections
from imcsim.report.totals import area_text, interval_95
from imcsim.report.views import Section, TableView
from imcsim.results import write_whole
from imcsim.units import human, percent
from imcsim.version import __version__

NOTHING = "–"
"""Where there is no number."""


@dataclass(frozen=True)
class Card:
    """One headline figure."""

    name: str
    value: str
    note: str = ""


def build_report(folder: str | Path) -> Path:
    """Write ``report.html`` and ``figures/`` into the *folder* of a run, or of a sweep; return the path of the page.

    Raises DataError when the folder does not hold a whole run or sweep, OutputError when it cannot be written to.
    """
    if is_sweep(folder):
        from imcsim.report.sweep_page import build_sweep_report  # which builds upon this module

        return build_sweep_report(Path(folder))
    run = read_run(folder)
    drawn = drawings(run) | account_drawings(run.summary) | time_drawings(run) | request_drawings(run.summary)
    write_figures(run.folder, drawn)
    path = run.folder / "report.html"
    write_whole(path, page_of(run))
    return path


def page_of(run: RunFolder) -> str:
    """Return the page of a run."""
    told = run.summary
    footer = f"seed {told.seed}. Every total is a sum of the rows in rows.csv."
    title = f"{told.workload} on {told.chip}"
    return render_page(title, told.chip_description, sections(run), cards=cards(run), footer=footer, by=told.version)


def render_page(
    title: str,
    subtitle: str,
    parts: Sequence[Section],
    *,
    footer: str,
    cards: "Sequence[Card]" = (),
    by: str = __version__,
    template: str = "page.html.j2",
    more: Mapping[str, Any] | None = None,
    draws: bool = False,
) -> str:
    """Return a page of one file with *parts* in order; *by*: the version of imcsim that made what it shows.

    *template* may extend the page, and is given what *more* holds; *draws*: whether it has charts of its own.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files("imcsim.report").joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    charts = [chart for part in parts for chart in part.charts]
    return environment.get_template(template).render(
        **(more or {}),
        title=title,
        subtitle=subtitle,
        cards=cards,
        sections=parts,
        charts=charts,
        plotly_js=_plotly_js() if charts or draws else "",
        version=by,
        footer=footer,
        value_text=value_text,
    )


def sections(run: RunFolder) -> list[Section]:
    """Return the parts of the page in order; what an engine that was not run would give is left out."""
    parts = [what_ran(run.summary)]
    if main_engine(run.frame):
        parts += [energy(run), latency(run), *time_sections(run)]
    if run.spans is not None and len(run.spans):
        parts.append(tiles(run))
    parts += request_sections(run.summary)
    if run.summary.accuracy or run.summary.check:
        parts.append(accuracy(run.summary))
    parts += account_sections(run.summary)
    if run.summary.layers:
        parts.append(mapping(run.summary))
    if run.summary.simulate and run.summary.estimate:
        parts.append(engines(run))
    if len(area_by_component(run.frame)):
        parts.append(area(run))
    if main_engine(run.frame):
        parts.append(sources(run))
    parts += origin_sections(run)
    parts.append(Section("caveats", "Caveats", caveats(run)))
    return parts


# Headline


def cards(run: RunFolder) -> list[Card]:
    """Return the headline figures; totals are sums of rows."""
    summary = run.summary
    found: list[Card] = []
    engine = main_engine(run.frame)
    if engine:
        spent = rows_of(run.frame)
        latency_ns, energy_pJ = float(spent.latency_ns.sum()), float(spent.energy_pJ.sum())
        known = "simulated" if engine == "simulate" else "estimated by formula"
        found.append(Card("Latency", human(latency_ns, "ns"), f"{known}, of one inference{_batch(summary)}"))
        interval = summary.energy_interval_pJ
        note = f"{human(interval[0], 'pJ')} to {human(interval[1], 'pJ')} (90 % interval)" if interval else known
        found.append(Card("Energy", human(energy_pJ, "pJ"), f"{note}, with leakage"))
        if summary.style == "pipelined" and summary.estimate and summary.estimate.throughput_per_s:
            rate = summary.batch * summary.estimate.throughput_per_s
            found.append(Card("Throughput", f"{human(rate, '')}/s", "inferences, several at a time, by formula"))
        elif latency_ns:
            rate = 1e9 * summary.batch / latency_ns
            found.append(Card("Throughput", f"{human(rate, '')}/s", "inferences, one after the other"))
        if summary.n_macs and energy_pJ:
            per_mac = human(energy_pJ / summary.n_macs, "pJ")
            found.append(Card("Energy a multiply-add", per_mac, f"{human(summary.n_macs, '')} of them an inference"))
            speed = f"at {2 * summary.n_macs / latency_ns / 1000:.4g} TOPS" if latency_ns else ""
            found.append(Card("Effective efficiency", f"{2 * summary.n_macs / energy_pJ:.4g} TOPS/W", speed))
    area_um2 = float(area_by_component(run.frame).area_um2.sum()) or summary.area_um2
    if area_um2:
        found.append(Card("Area", area_text(area_um2), f"{summary.n_tiles} tiles" if summary.n_tiles else ""))
    if told := summary.accuracy:
        low, high = interval_95(told.chip, told.n_samples)
        found.append(Card("Accuracy on the chip", percent(told.chip, digits=2),
                          f"{percent(low)} to {percent(high)} (95 % interval, {told.n_samples} samples)"))  # fmt: skip
        low, high = interval_95(told.reference, told.n_samples)
        found.append(Card("Accuracy of the reference", percent(told.reference, digits=2),
                          f"{percent(low)} to {percent(high)} (95 % interval)"))  # fmt: skip
        if told.difference:
            low, high = told.difference.interval
            found.append(Card("Chip less reference", f"{points(told.difference.value)} points",
                              f"{points(low)} to {points(high)} (95 % interval, same samples)"))  # fmt: skip
    if check := summary.check:
        found.append(Card("Outputs", "exact" if check.exact else f"{check.n_different} differ",
                          f"of {check.n_outputs}, held against the reference's"))  # fmt: skip
    return found


# Sections


def what_ran(summary: Summary) -> Section:
    """Return who ran what."""
    said = [
        ("Workload", summary.workload),
        ("Assumed bits", summary.assumed.bits if summary.assumed else ""),
        ("Chip", summary.chip),
        ("About the chip", summary.chip_description),
        ("Execution style", _style_text(summary)),
        ("Samples an inference", str(summary.batch)),
        ("Samples executed", str(summary.accuracy.n_samples) if summary.accuracy else ""),
        ("Seed", str(summary.seed)),
        ("Version", f"imcsim {summary.version}"),
        ("Command", summary.command),
    ]
    missing = not_run(summary)
    words = {
        "simulate": "Simulation was not run: times and energies are those of the formulas, and there is no timeline.",
        "estimate": "The estimate was not run: there are no analytic bounds, and no areas by component.",
        "execute": "Execution was not run: there is no accuracy, no clipping and no check of the outputs.",
    }
    if not summary.has_values:
        words["execute"] = "The workload is told by its shapes alone: values, and so an accuracy, need weights."
    paragraphs = []
    if assumed := summary.assumed:
        words["execute"] = "Bits that are assumed have no values, and so no accuracy."
        text = assumed_text(assumed.bits, assumed.weights, assumed.inputs, assumed.n_products)
        paragraphs = [
            f"Assumed, and not told by the model: {text}. Times and energies are those of a network of these shapes "
            "with these bits, whether or not one can be trained so. Shares by basis are of the chip's numbers alone."
        ]
    if {"simulate", "estimate"} <= set(missing):
        words["simulate"] = "Neither simulation nor estimate was run: there are no times and no energies."
        missing.remove("estimate")
    table = TableView("What ran", ("", ""), [(name, value) for name, value in said if value])
    paragraphs += [words[engine] for engine in missing]
    return Section("run", "What ran", paragraphs, tables=[table])


def energy(run: RunFolder) -> Section:
    """Return where the energy goes."""
    frame = run.frame
    by_layer, by_component = energy_by_layer(frame), energy_by_component(frame)
    totals = by_layer.sum(axis=1)
    total = float(totals.sum())
    paragraphs = []
    if total:
        most, layer = by_component.index[0], str(totals.idxmax())
        leak = float(by_component.leak_pJ.sum())
        paragraphs.append(
            f"One inference takes {human(total, 'pJ')}. The component that takes most is {most} "
            f"({percent(by_component.share.iloc[0])}), the layer {layer} ({percent(totals[layer] / total)}). "
            f"Leakage of the whole chip while it runs is {percent(leak / total)}."
        )
    setup = rows_of(frame, "simulate", phase="setup")
    setup = setup if len(setup) else rows_of(frame, "estimate", phase="setup")
    if setup.energy_pJ.sum():
        time = f", in {human(float(setup.latency_ns.sum()), 'ns')}" if setup.latency_ns.sum() else ""
        paragraphs.append(
            f"Writing the resident weights once, before the first inference, takes "
            f"{human(float(setup.energy_pJ.sum()), 'pJ')}{time}; this is in no other figure of this page."
        )
    components = TableView(
        "Energy by component",
        ("Component", "Group", "Actions", "Leakage", "Both", "Share"),
        [
            (str(name), row.group, _pJ(row.actions_pJ), _pJ(row.leak_pJ), _pJ(row.energy_pJ), percent(row.share))
            for name, row in by_component.iterrows()
        ],
        frozenset({2, 3, 4, 5}),
    )
    groups = list(by_layer.columns)
    layers = TableView(
        "Energy by layer and group of components",
        ("Layer", *groups, "All", "Share"),
        [
            (str(name), *(_pJ(row[group]) for group in groups), _pJ(row.sum()), percent(row.sum() / (total or 1)))
            for name, row in by_layer.iterrows()
        ],
        frozenset(range(1, len(groups) + 3)),
    )
    drawn = [charts.energy_by_layer(frame), charts.energy_by_component(frame)]
    return Section("energy", "Energy", paragraphs, drawn, [components, layers])


def latency(run: RunFolder) -> Section:
    """Return where the time goes, and what bounds it."""
    frame = run.frame
    by_layer, bounds, busy = latency_by_layer(frame), latency_by_bound(frame), utilization(frame)
    paragraphs = [
        "A layer adds the time from the end of all earlier layers to its own end. What bounds it is the component "
        "whose busiest unit works longest for it. Where that unit works most of the time, throughput counts: more of "
        "it, or less work, makes the layer faster. Where it does not, the time goes into waiting for first results: "
        "latencies of main memory and of the units in a row."
    ]
    if by_layer.latency_ns.sum():
        layer = str(by_layer.latency_ns.idxmax())
        paragraphs.append(
            f"The layer that adds most is {layer} ({percent(by_layer.share[layer])}). {bounds.index[0]} bounds "
            f"{int(bounds.n_layers.iloc[0])} of {len(by_layer)} layers, {percent(bounds.share.iloc[0])} of the time."
        )
    layers = TableView(
        "Latency by layer",
        ("Layer", "Adds", "Share", "Bound by", "Which works"),
        [
            (str(name), human(row.latency_ns, "ns"), percent(row.share), row.bound_by, human(row.bound_busy_ns, "ns"))
            for name, row in by_layer.iterrows()
        ],
        frozenset({1, 2, 4}),
    )
    components = TableView(
        "How busy the components are",
        ("Component", "Busiest unit works", "Of the latency"),
        [(str(name), human(row.busy_ns, "ns"), percent(row.utilization)) for name, row in busy.iterrows()],
        frozenset({1, 2}),
    )
    drawn = [charts.latency_by_layer(frame), charts.utilization(frame)]
    return Section("latency", "Latency and bottlenecks", paragraphs, drawn, [layers, components])


def tiles(run: RunFolder) -> Section:
    """Return who worked when."""
    assert run.spans is not None
    lanes = timeline(run.spans)
    paragraphs = [
        f"A tile has its array in the upper half of its lane and its {lanes.converters} in the lower; a thin bar is "
        "the writing of weights. A pale bar spends part of its time waiting for those that feed it."
    ]
    tile_lanes = lanes.utilizations[: lanes.n_tile_lanes]
    if tile_lanes:
        mean = sum(tile_lanes) / len(tile_lanes)
        paragraphs.append(f"The arrays of the tiles that are used at all work {percent(mean)} of the time, on average.")
    return Section("tiles", "Tile utilization", paragraphs, [charts.tile_utilization(lanes)])


def _held(seen: OccupancySummary | None) -> tuple[str, str]:
    """Return the share of zero products and the relative energy of a column read, in words."""
    return (NOTHING, NOTHING) if seen is None else (percent(seen.zero_products), f"x {seen.relative_energy:.3f}")


def accuracy(summary: Summary) -> Section:
    """Return what came out, and how often an ADC clipped."""
    paragraphs: list[str] = []
    drawn: list[Chart] = []
    tables: list[TableView] = []
    if check := summary.check:
        if check.exact:
            paragraphs.append(f"All {check.n_outputs} outputs are those of the reference, bit for bit.")
        else:
            share = check.n_different / (check.n_outputs or 1)
            paragraphs.append(f"{check.n_different} of {check.n_outputs} outputs ({percent(share, digits=2)}) are not "
                              "those of the reference: the chip's clipping and errors, computed exactly.")  # fmt: skip
        if check.n_different_classes is not None:
            paragraphs.append(f"Samples for which another class comes out: {check.n_different_classes}.")
    if perplexity := summary.perplexity:
        paragraphs.append(
            f"Perplexity over {perplexity.n_tokens} tokens: {perplexity.chip:.3f} on the chip, "
            f"{perplexity.reference:.3f} by the reference. "
            "Accuracy is the share of tokens whose greatest probability is the right one's."
        )
    if told := summary.accuracy:
        drawn.append(charts.accuracy(told))
        if told.difference:
            paragraphs.append(f"Chip less reference: {difference_text(told.difference)}.")
        paragraphs.append(_clipped(told) if summary.has_adcs else
                          "Words are read, multiplied and added digitally, without ADCs: nothing clips.")  # fmt: skip
    accesses = clipping_by_layer(summary.layers)
    if len(accesses):
        idle = "Skipped" if summary.skips_zero_blocks else "Idle"
        if summary.has_adcs:
            drawn.append(charts.clipping(accesses))
        tables.append(_accesses(summary, accesses, idle))
        if accesses.idle_share.notna().any():
            done = "leaves them out, in no time" if summary.skips_zero_blocks else "takes them all the same"
            paragraphs.append(f"{idle} accesses drive no input of their block; this chip {done}.")
        if any(layer.occupancy for layer in summary.layers):
            paragraphs.append(
                "Zero products discharge no bitline; bitline energy is that of a column read relative to the chip "
                "file's, by the counts that a sample of the reads held."
                if summary.has_adcs
                else "What a row read spends does not follow the products: every column discharges."
            )
    title = "Accuracy and clipping" if summary.has_adcs else "Accuracy and rows read"
    return Section("accuracy", title, paragraphs, drawn, tables)


def _clipped(told: Accuracy) -> str:
    """Return how often ADCs clipped, in words."""
    share = percent(told.n_clipped_accesses / (told.n_accesses or 1), digits=2)
    said = f"{told.n_clipped_accesses} of {told.n_accesses} accesses ({share}) had a column that an ADC clipped"
    if not told.n_conversions:
        return f"{said}."
    share = percent(told.n_clipped_conversions / told.n_conversions, digits=3)
    return f"{said}; of {told.n_conversions} conversions {share} clipped."


def _accesses(summary: Summary, accesses: pd.DataFrame, idle: str) -> TableView:
    """Return the accesses of each layer: those that clipped, or the rows that were read, and those that were *idle*."""
    occupancy = {layer.name: layer.occupancy for layer in summary.layers}
    if summary.has_adcs:
        caption = "Clipping by layer, all samples executed"
        head: tuple[str, ...] = ("Layer", "Accesses", "Clipped", "Share", "Conversions", "Clipped", idle,
                                 "Zero products", "Bitline energy")  # fmt: skip
    else:
        caption, head = "Rows read by layer, all samples executed", ("Layer", "Rows", "Words", idle, "Zero products")
    lines: list[tuple[str, ...]] = []
    for name, row in accesses.iterrows():
        n_accesses, n_conversions = f"{row.n_accesses:.0f}", f"{row.n_conversions:.0f}"
        n_idle = NOTHING if pd.isna(row.idle_share) else percent(row.idle_share, digits=2)
        zeros, energy = _held(occupancy.get(str(name)))
        if summary.has_adcs:
            clipped = (f"{row.n_clipped_accesses:.0f}", percent(row.share, digits=2))
            counted = (*clipped, n_conversions, f"{row.n_clipped_conversions:.0f}")
            lines.append((str(name), n_accesses, *counted, n_idle, zeros, energy))
        else:
            lines.append((str(name), n_accesses, n_conversions, n_idle, zeros))
    return TableView(caption, head, lines, frozenset(range(1, len(head))))


def mapping(summary: Summary) -> Section:
    """Return how each layer lies on the tiles."""
    head = ("Layer", "Kind", "Output", "Multiply-adds", "Weights", "Zero", "Planes (weights x inputs)", "Rows",
            "Columns", "Groups", "Chunks of rows", "Copies", "Rounds", "Tiles", "Cells used",
            "Accesses an inference")  # fmt: skip
    rows = []
    for layer in summary.layers:
        if not layer.n_macs:
            rows.append((layer.name, layer.kind, layer.shape, *[NOTHING] * (len(head) - 3)))
            continue
        accesses = layer.n_accesses_per_inference
        rows.append(
            (
                layer.name,
                layer.kind,
                layer.shape,
                human(layer.n_macs, ""),
                human(layer.n_weights, ""),
                NOTHING if layer.zero_weights is None else percent(layer.zero_weights),
                f"{layer.weight_planes} x {layer.activation_planes}",
                str(layer.n_rows),
                str(layer.n_columns),
                str(layer.n_groups),
                str(layer.n_row_chunks),
                str(layer.n_replicas),
                str(layer.n_rounds),
                str(layer.n_tiles),
                NOTHING if layer.utilization is None else percent(layer.utilization),
                NOTHING if accesses is None else str(accesses),
            )
        )
    n_off = sum(layer.kind == "host" for layer in summary.layers)
    paragraphs = [f"Execution is {_style_text(summary)}."] if summary.style else []
    if n_off:
        paragraphs.append(f"Layers that the host does: {n_off}. They take no time and no energy here.")
    table = TableView("Mapping by layer", head, rows, frozenset(range(3, len(head))))
    return Section("mapping", "Mapping", paragraphs, tables=[table])


def engines(run: RunFolder) -> Section:
    """Return the estimate beside the simulation."""
    estimate, simulate = run.summary.estimate, run.summary.simulate
    assert estimate is not None
    assert simulate is not None
    within = estimate.least_ns <= simulate.latency_ns <= estimate.greatest_ns
    ratio = f" ({estimate.latency_ns / simulate.latency_ns:.3f} times as long)" if simulate.latency_ns else ""
    lies = "lies between them" if within else "does NOT lie between them: a defect of imcsim, please report it"
    paragraphs = [
        f"Two engines read the same plan. The simulation, with contention, says {human(simulate.latency_ns, 'ns')}; "
        f"the formulas say {human(estimate.latency_ns, 'ns')}{ratio}. No order of the work can take less than "
        f"{human(estimate.least_ns, 'ns')} or more than {human(estimate.greatest_ns, 'ns')}; "
        f"the simulated time {lies}.",
        f"Energy: {human(simulate.energy_pJ, 'pJ')} simulated, {human(estimate.energy_pJ, 'pJ')} estimated. Both "
        "count the same actions; they differ by what the chip leaks in the time that each of them gives.",
    ]
    table = TableView(
        "Latency by layer and engine",
        ("Layer", "Simulated", "Estimated", "Estimated / simulated"),
        [
            (
                str(name),
                human(row.simulate, "ns"),
                NOTHING if pd.isna(row.estimate) else human(row.estimate, "ns"),
                NOTHING if pd.isna(row.ratio) else f"{row.ratio:.3f}",
            )
            for name, row in engines_compared(run.frame).iterrows()
        ],
        frozenset({1, 2, 3}),
    )
    return Section("engines", "Estimate and simulation", paragraphs, [charts.bounds(estimate, simulate)], [table])


def area(run: RunFolder) -> Section:
    """Return what the silicon is used for."""
    table = area_by_component(run.frame)
    view = TableView(
        "Area by component",
        ("Component", "Instances", "Area", "Share", "Basis", "Source"),
        [
            (str(name), str(row.n_instances), area_text(row.area_um2), percent(row.share), row.basis, row.source)
            for name, row in table.iterrows()
        ],
        frozenset({1, 2, 3}),
    )
    paragraph = f"The components add up to {area_text(float(table.area_um2.sum()))}; main memory is another chip."
    return Section("area", "Area", [paragraph], [charts.area(run.frame)], [view])


def sources(run: RunFolder) -> Section:
    """Return how well the numbers are known, and where each comes from."""
    known, costs = basis_shares(run.frame), cost_sources(run.frame)
    has_area = bool(known.area.sum())
    meanings = TableView(
        "What the words mean, and how much rests on them",
        ("Basis", "The number is", "Share of energy", "Share of area"),
        [
            (
                basis,
                MEANING_OF_BASIS[basis],
                percent(known.energy[basis]),
                percent(known.area[basis]) if has_area else NOTHING,
            )
            for basis in BASES
        ],
        frozenset({2, 3}),
    )
    used = TableView(
        "Costs of actions that this run rests on, the greatest first",
        ("Component", "Action", "Energy an action", "Actions", "Share of energy", "Basis", "Source"),
        [
            (
                row["component"],
                row["action"],
                _pJ(row["energy_pJ_per_action"]),
                human(row["count"], ""),
                percent(row["share"]),
                row["basis"],
                row["source"],
            )
            for _, row in costs.iterrows()
        ],
        frozenset({2, 3, 4}),
    )
    paragraphs = ["Every number of the chip file says how well it is known. Leakage rests on the sources of the areas."]
    return Section("sources", "Where the numbers come from", paragraphs, [charts.basis(run.frame)], [meanings, used])


def caveats(run: RunFolder) -> list[str]:
    """Return what a reader should keep in mind, as far as this run shows it."""
    summary = run.summary
    found: list[str] = []
    if main_engine(run.frame):
        known = basis_shares(run.frame)
        weak = float(known.energy[["fitted", "assumed"]].sum())
        if weak:
            found.append(f"{percent(weak)} of the energy rests on numbers that are assumed or fitted.")
        if not known.energy["published"]:
            found.append("None of the energy rests on a number that was read in the source it is attributed to.")
        if summary.energy_interval_pJ:
            found.append(
                "The interval of the energy comes from the ranges that the chip file states; numbers without a range "
                "are taken as they stand, and errors of the model itself are not in it."
            )
        else:
            found.append("No interval of the energy was computed; imcsim run --uncertainty does.")
        if summary.style != "pipelined":
            found.append(
                "Throughput is one inference after the other; nothing of the next begins before the end of this one."
            )
    if summary.style in ("spatial", "pipelined"):
        found.append("Weights are resident: writing them once is not part of an inference.")
    if told := summary.accuracy:
        low, high = interval_95(told.chip, told.n_samples)
        found.append(f"Accuracy was counted on {told.n_samples} samples: its 95 % interval (Wilson) is "
                     f"{100 * (high - low):.1f} points wide. Reference and chip saw the same samples.")  # fmt: skip
    if any(layer.kind == "host" for layer in summary.layers):
        found.append("What the host does is neither timed nor costed.")
    n_unnamed = len([name for name in layers_of(run.frame) if name not in {layer.name for layer in summary.layers}])
    if n_unnamed and summary.layers:
        found.append(f"{n_unnamed} layers of the rows are not in the summary.")
    return found


def _pJ(value: float) -> str:
    return human(value, "pJ") if value else "0"


def _batch(summary: Summary) -> str:
    return f" of {summary.batch} samples" if summary.batch > 1 else ""


def _style_text(summary: Summary) -> str:
    meaning = {
        "spatial": "spatial: all weights stay in the tiles and were written once",
        "temporal": "temporal: weights are written round after round from main memory",
        "pipelined": "pipelined: all weights stay in the tiles, and several inferences at a time stream through",
    }
    return meaning.get(summary.style, "")


@cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # reads five megabytes

    return str(get_plotlyjs()).replace("</script", "<\\/script")
