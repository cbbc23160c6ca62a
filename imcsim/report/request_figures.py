"""What the page and print show of requests: latency against offered load, up to saturation."""

from collections.abc import Callable

import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from imcsim.report.charts import Chart, _chart, _layout, _x_axis
from imcsim.report.figures import WIDTH_INCHES
from imcsim.report.load import Summary
from imcsim.report.palette import axis_unit
from imcsim.report.parts import LoadSummary, RequestsSummary
from imcsim.report.requests import loads_table, rate_text, requests_table, requests_text
from imcsim.report.views import Section
from imcsim.units import human, percent

PERCENTILES = (("p99", "#D55E00", "D", "diamond"), ("p95", "#E69F00", "s", "square"), ("p50", "#0072B2", "o", "circle"))
"""Colours of Okabe and Ito, and marks, for print and for the page; the greatest first, as in the figure."""

SERVED, CAPACITY = "#009E73", "#7F7F7F"


def request_drawings(summary: Summary) -> dict[str, Callable[[], Figure]]:
    """Return the figures that *summary* has the numbers for: name to the function that draws it."""
    found = summary.requests
    return {"loads": lambda: loads_figure(found, found.loads or ())} if found and found.loads else {}


def request_sections(summary: Summary) -> list[Section]:
    """Return what became of the requests, where there were some."""
    found = summary.requests
    if found is None:
        return []
    one_by_one = "one inference after the other: a request begins when the one before it has ended"
    several = "several inferences at a time, each in another layer: a request begins when the first layer is free"
    paragraphs = [
        f"{requests_text(found)}.",
        f"The chip does {several if summary.style == 'pipelined' else one_by_one}. Latency is from arrival to end, "
        "with the wait; rates are by the gaps between arrivals, and between ends. requests.csv has every request.",
    ]
    if found.loads is None:
        return [Section("requests", "Requests", paragraphs, tables=[requests_table(found)])]
    paragraphs.append(
        f"Load is the share of the rate that the formula gives, {rate_text(found.capacity_per_s)}. Beyond it more "
        f"arrive than can leave: latencies there grow with the number of requests, here {found.n} at each load."
    )
    tables = [requests_table(found), loads_table(found.loads)]
    return [Section("requests", "Requests", paragraphs, [loads_chart(found, found.loads)], tables)]


def _ns(at: LoadSummary, name: str) -> float:
    return float(getattr(at, f"{name}_ns"))


def spans_decades(loads: tuple[LoadSummary, ...]) -> bool:
    """Whether the latencies differ so much that only a logarithmic axis shows the small ones."""
    return max(at.p99_ns for at in loads) > 20 * min(at.p50_ns for at in loads)


def loads_chart(found: RequestsSummary, loads: tuple[LoadSummary, ...]) -> Chart:
    """Return percentiles of the latency by offered load."""
    size, unit = axis_unit(loads[0].mean_ns, "ns")
    x = [100 * at.load for at in loads]
    lines = [
        go.Scatter(
            name=name, mode="lines+markers", x=x, y=[_ns(at, name) / size for at in loads],
            line={"width": 2, "color": colour}, marker={"size": 7, "symbol": symbol, "color": colour},
            customdata=[[rate_text(at.offered_per_s), human(_ns(at, name), "ns")] for at in loads],
            hovertemplate=name + ": %{customdata[1]}<br>offered %{customdata[0]} (%{x:.0f} %)<extra></extra>",
        )
        for name, colour, _, symbol in PERCENTILES
    ]  # fmt: skip
    layout = _layout() | {
        "xaxis": _x_axis({"title": {"text": "Offered load (% of the formula's rate)"}, "rangemode": "tozero"}),
        "yaxis": {
            "title": {"text": f"Latency ({unit})"},
            "type": "log" if spans_decades(loads) else "linear",
            "rangemode": "tozero",
            "automargin": True,
            "zeroline": False,
        },
    }
    first, last = loads[0], loads[-1]
    label = (
        f"Latency percentiles by offered load: p99 from {human(first.p99_ns, 'ns')} at {percent(first.load, digits=0)} "
        f"to {human(last.p99_ns, 'ns')} at {percent(last.load, digits=0)}"
    )
    legend = [(name, colour) for name, colour, *_ in PERCENTILES]
    return _chart("loads", "Latency by offered load", label, 320, lines, layout, legend)


def loads_figure(found: RequestsSummary, loads: tuple[LoadSummary, ...]) -> Figure:
    """Return percentiles of the latency, and the rate that leaves, by offered load."""
    figure = Figure(figsize=(WIDTH_INCHES, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    per_s, rate_unit = _rate_unit(max(at.offered_per_s for at in loads))
    offered = [at.offered_per_s / per_s for at in loads]
    size, unit = axis_unit(loads[0].mean_ns, "ns")
    for name, colour, mark, _ in PERCENTILES:
        left.plot(offered, [_ns(at, name) / size for at in loads], f"{mark}-", color=colour, label=name, markersize=4,
                  linewidth=1.2)  # fmt: skip
    if spans_decades(loads):
        left.set_yscale("log")
        _plain_ticks(left, [_ns(at, name) / size for at in loads for name, *_ in PERCENTILES])
    else:
        left.set_ylim(0, 1.05 * max(at.p99_ns for at in loads) / size)
    left.set_ylabel(f"Latency ({unit})")
    left.plot([], [], color=CAPACITY, linewidth=1, linestyle="--", label="formula")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    served = [at.throughput_per_s / per_s for at in loads]
    right.plot([0, max(offered)], [0, max(offered)], color="#B8B8B8", linewidth=1, label="offered")
    right.plot(offered, served, "o-", color=SERVED, markersize=4, linewidth=1.2, label="served")
    right.axhline(found.capacity_per_s / per_s, color=CAPACITY, linewidth=1, linestyle="--", label="formula")
    right.set_ylim(0, 1.05 * max(offered))
    right.set_ylabel(f"Inferences served ({rate_unit}/s)")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)
    left.axvline(found.capacity_per_s / per_s, color=CAPACITY, linewidth=1, linestyle="--", zorder=0)
    for axes in (left, right):
        axes.set_xlim(0, 1.04 * max(offered))
        axes.set_xlabel(f"Inferences offered ({rate_unit}/s), {found.n} requests a point")
        axes.grid(visible=True)
    return figure


def _rate_unit(greatest: float) -> tuple[float, str]:
    """Return the size and the name of the unit that suits rates up to *greatest* a second."""
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if greatest >= size:
            return size, name
    return 1.0, ""


def _plain_ticks(axes: Axes, values: list[float]) -> None:
    """Write the ticks of a logarithmic axis as numbers: 0.5, 1, 2, 5 ... where few tens are spanned."""
    subs = (1.0, 2.0, 5.0) if max(values) / min(values) < 300 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(10, subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
