"""Charts for the page of what accounts for an accuracy: trials, errors by layer, ablation."""

from collections.abc import Sequence

import plotly.graph_objects as go

from imcsim.report.accounts import points, ratio_text, share_text, worst_layer
from imcsim.report.charts import Chart, _chart, _layout, _marker, _rows_chart, _x_axis
from imcsim.report.parts import AblatedSummary, AblationSummary, LayerErrorsSummary, LayerErrorSummary, TrialsSummary
from imcsim.report.tables import MOST_LAYERS
from imcsim.units import percent

IN_NETWORK, OWN = "#0072B2", "#D55E00"
"""Colours of Okabe and Ito: a layer among the others, and by itself."""

REFERENCE, WHOLE = "#7F7F7F", "#009E73"


def exact_dB(layers: Sequence[LayerErrorSummary]) -> float:
    """Return where an infinite ratio is drawn: beyond the greatest that is finite."""
    known = [
        d.ratio_dB for layer in layers for d in (layer.sums, layer.own_sums) if d is not None and d.ratio_dB is not None
    ]
    return 1.15 * max([*known, 10.0])


def shown_errors(errors: LayerErrorsSummary) -> list[LayerErrorSummary]:
    """Return the layers with products, or of very many those with the least ratios, in the order of the walk."""
    found = [layer for layer in errors.layers if layer.sums is not None and layer.own_sums is not None]
    exact = exact_dB(found)
    ranked = sorted(found, key=lambda layer: places_dB(layer, exact)[0])[:MOST_LAYERS]
    kept = {layer.name for layer in ranked}
    return [layer for layer in found if layer.name in kept]


def places_dB(layer: LayerErrorSummary, exact: float) -> tuple[float, float]:
    """Return where the ratios of the sums are drawn: in the network, own."""
    assert layer.sums is not None
    assert layer.own_sums is not None
    return tuple(  # type: ignore[return-value]
        d.ratio_dB if d.ratio_dB is not None else (exact if d.error == 0 else 0.0) for d in (layer.sums, layer.own_sums)
    )


def layer_errors(errors: LayerErrorsSummary) -> Chart:
    """Return a row a layer: the ratio of its sums in the network and of its own, joined by a line."""
    layers = shown_errors(errors)
    exact = exact_dB(layers)
    pairs = [places_dB(layer, exact) for layer in layers]
    lines = go.Scatter(
        mode="lines",
        x=[x for pair in pairs for x in (*pair, None)],
        y=[y for i in range(len(pairs)) for y in (i, i, None)],
        line={"width": 2, "color": "#B8B8B8"},
        hoverinfo="skip",
    )
    dots = [
        go.Scatter(
            name=name,
            mode="markers",
            x=[pair[side] for pair in pairs],
            y=list(range(len(pairs))),
            marker={"size": size, "color": colour, "symbol": symbol, "line": {"width": 2, "color": colour}},
            customdata=[
                [
                    layer.name,
                    ratio_text((layer.sums, layer.own_sums)[side]),
                    share_text((layer.outputs, layer.own_outputs)[side]),
                ]
                for layer in layers
            ],
            hovertemplate="%{customdata[0]}, " + name + "<br>sums: %{customdata[1]} dB<br>"
            "outputs that differ: %{customdata[2]}<extra></extra>",
        )
        for side, (name, colour, symbol, size) in enumerate(
            (("in the network", IN_NETWORK, "circle-open", 14), ("own", OWN, "diamond", 6))
        )
    ]
    worst = worst_layer(errors)
    most = f": least of its own {worst.name}, {ratio_text(worst.own_sums)} dB" if worst else ": all exact"
    drawn = [x for pair in pairs for x in pair]
    ends = {"range": [min([0.0, *drawn]) - 0.02 * exact, 1.02 * exact]}
    rightmost = ", rightmost: exact" if exact in drawn else ""
    axis = {"title": {"text": f"Signal-to-error ratio of the sums (dB){rightmost}"}} | ends
    legend = [("In the network: error so far", IN_NETWORK), ("By itself: error that it adds", OWN)]
    title, label = "Signal-to-error ratio by layer", f"Signal-to-error ratio of the sums of each layer{most}"
    return _rows_chart("layer_errors", title, label, [lines, *dots], [layer.name for layer in layers], axis, legend)


def ablation(found: AblationSummary) -> Chart:
    """Return two points a layer with their intervals: the difference to the reference, in points."""
    layers = found.layers[:MOST_LAYERS]
    whole = 100 * found.whole.difference.value
    n = len(layers)
    lines = [
        go.Scatter(
            mode="lines", x=[x, x], y=[-0.6, n - 0.4], line={"width": 1.5, "color": colour, "dash": dash},
            hovertemplate=f"{name}: {points(x / 100)} points<extra></extra>",
        )
        for name, x, colour, dash in (("reference", 0.0, REFERENCE, "solid"), ("all layers real", whole, WHOLE, "dash"))
    ]  # fmt: skip
    dots = [
        _with_intervals(name, [layer.name for layer in layers], values, shift, colour, symbol)
        for name, values, shift, colour, symbol in (
            ("only it real", [layer.alone for layer in layers], -0.14, OWN, "diamond"),
            ("all but it real", [layer.others for layer in layers], 0.14, IN_NETWORK, "circle"),
        )
    ]
    legend = [
        ("Only this layer real", OWN),
        ("All layers real but this one", IN_NETWORK),
        ("Reference", REFERENCE),
        ("All layers real", WHOLE),
    ]
    label = f"Accuracy less the reference's with one layer real and with all but one; all real: {points(whole / 100)}"
    axis = "Accuracy less the reference's (points), 95 % interval"
    title = "What each layer does to the accuracy"
    return _rows_chart("ablation", title, label, [*lines, *dots], [layer.name for layer in layers], axis, legend)


def _with_intervals(
    name: str, layers: list[str], values: list[AblatedSummary], shift: float, colour: str, symbol: str
) -> go.Scatter:
    differences = [value.difference for value in values]
    return go.Scatter(
        name=name,
        mode="markers",
        x=[100 * d.value for d in differences],
        y=[i + shift for i in range(len(values))],
        marker={"size": 9, "color": colour, "symbol": symbol},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [100 * (d.interval[1] - d.value) for d in differences],
            "arrayminus": [100 * (d.value - d.interval[0]) for d in differences],
            "color": colour,
            "thickness": 1.2,
            "width": 3,
        },
        customdata=[
            [layer, percent(value.accuracy, digits=2), *(points(x) for x in (d.value, *d.interval))]
            for layer, value, d in zip(layers, values, differences, strict=True)
        ],
        hovertemplate="%{customdata[0]}, " + name + ": %{customdata[1]}<br>%{customdata[2]} points "
        "(%{customdata[3]} to %{customdata[4]})<extra></extra>",
    )


def trials(found: TrialsSummary, reference: float) -> Chart:
    """Return how many chips have which accuracy, beside the reference's."""
    counts = per_accuracy(found)
    bars = go.Bar(
        x=[100 * accuracy for accuracy in counts],
        y=list(counts.values()),
        width=92 * step_of(found) / found.n_samples,
        marker=_marker(IN_NETWORK),
        customdata=[[percent(accuracy, digits=2), n] for accuracy, n in counts.items()],
        hovertemplate="%{customdata[0]}: chips %{customdata[1]}<extra></extra>",
    )
    top = max(counts.values())
    lines = [
        go.Scatter(
            mode="lines", x=[100 * x, 100 * x], y=[0, 1.05 * top], line={"width": 1.5, "color": colour, "dash": dash},
            hovertemplate=f"{name}: {percent(x, digits=2)}<extra></extra>",
        )
        for name, x, colour, dash in (("reference", reference, REFERENCE, "solid"), ("mean", found.mean, OWN, "dash"))
    ]  # fmt: skip
    layout = _layout() | {
        "xaxis": _x_axis({"title": {"text": "Accuracy (%)"}, "range": trials_range(found, reference)}),
        "yaxis": {"title": {"text": "Chips"}, "automargin": True, "zeroline": False, "rangemode": "tozero"},
    }
    label = f"Accuracies of {found.n} chips, from {percent(found.worst, digits=2)} to {percent(found.best, digits=2)}"
    legend = [("Chips", IN_NETWORK), ("Mean", OWN), ("Reference", REFERENCE)]
    return _chart("trials", "How far chips spread", label, 280, [bars, *lines], layout, legend)


MOST_BARS = 40


def step_of(found: TrialsSummary) -> int:
    """Return how many accuracies, which are whole numbers of samples, one bar stands for."""
    return max(1, round((found.best - found.worst) * found.n_samples / MOST_BARS))


def trials_range(found: TrialsSummary, reference: float) -> list[float]:
    """Return from where to where, in percent, the accuracies of the trials and of the reference are shown."""
    room = 100 * max(3 * step_of(found) / found.n_samples, 0.05 * (max(found.best, reference) - found.worst))
    low, high = 100 * min(found.worst, reference) - room, 100 * max(found.best, reference) + room
    bar = 100 * step_of(found) / found.n_samples
    return [max(low, -bar), min(high, 100 + bar)]


def per_accuracy(found: TrialsSummary) -> dict[float, int]:
    """Return how many chips have each accuracy; of very many accuracies, neighbours are counted together."""
    step = step_of(found)
    counts: dict[int, int] = {}
    for accuracy in sorted(found.accuracies):
        place = round(accuracy * found.n_samples) // step
        counts[place] = counts.get(place, 0) + 1
    middle = (step - 1) / 2
    return {(place * step + middle) / found.n_samples: n for place, n in counts.items()}
