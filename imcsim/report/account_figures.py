"""Figures for print of what accounts for an accuracy: trials, errors by layer, ablation."""

from collections.abc import Callable

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from imcsim.report.account_charts import (
    IN_NETWORK,
    OWN,
    REFERENCE,
    WHOLE,
    exact_dB,
    per_accuracy,
    places_dB,
    shown_errors,
    step_of,
    trials_range,
)
from imcsim.report.figures import WIDTH_INCHES, _bars_figure, _row_size
from imcsim.report.load import Summary
from imcsim.report.parts import AblationSummary, LayerErrorsSummary, TrialsSummary
from imcsim.report.tables import MOST_LAYERS
from imcsim.units import percent


def account_drawings(summary: Summary) -> dict[str, Callable[[], Figure]]:
    """Return the figures that *summary* has the numbers for: name to the function that draws it."""
    found: dict[str, Callable[[], Figure]] = {}
    accuracy, trials, errors, ablation = summary.accuracy, summary.trials, summary.layer_errors, summary.ablation
    if trials and accuracy and trials.is_random:
        found["trials"] = lambda: trials_figure(trials, accuracy.reference)
    if errors and shown_errors(errors):
        found["layer_errors"] = lambda: layer_errors_figure(errors)
    if ablation and ablation.layers:
        found["ablation"] = lambda: ablation_figure(ablation)
    return found


def layer_errors_figure(errors: LayerErrorsSummary) -> Figure:
    """Return a row a layer: the ratio of its sums in the network and of its own, joined by a line."""
    layers = shown_errors(errors)
    exact = exact_dB(layers)
    figure, axes = _bars_figure([layer.name for layer in layers], n_legend=2)
    size = 6.0 if _row_size(len(layers))[1] > 6 else 4.0
    for place, layer in enumerate(layers):
        here, own = places_dB(layer, exact)
        axes.plot([here, own], [place, place], color="#B8B8B8", linewidth=1, zorder=1)
        axes.plot(here, place, "o", color=IN_NETWORK, markerfacecolor="white", markersize=size, zorder=2, clip_on=False)
        axes.plot(own, place, "D", color=OWN, markersize=0.5 * size, zorder=3, clip_on=False)
    drawn = [x for layer in layers for x in places_dB(layer, exact)]
    least = min([0.0, *drawn])
    axes.set_xlim(least - 0.5 if least < 0 else 0, exact)
    ticks = [tick for tick in MaxNLocator(7).tick_values(least, exact) if least <= tick <= exact / 1.08]
    if exact in drawn:
        axes.set_xticks([*ticks, exact], [*(f"{tick:g}" for tick in ticks), "exact"])
    axes.set_xlabel(f"Signal-to-error ratio of the layer's sums (dB), {errors.n_samples} samples")
    _legend(figure, [("in the network: error so far", IN_NETWORK, "open"), ("by itself: error that it adds", OWN, "D")])
    return figure


def ablation_figure(ablation: AblationSummary) -> Figure:
    """Return two points a layer with their intervals: the difference to the reference, in points."""
    layers = ablation.layers[:MOST_LAYERS]
    figure, axes = _bars_figure([layer.name for layer in layers], n_legend=4, step=0.34 if len(layers) <= 12 else None)
    axes.axvline(0, color=REFERENCE, linewidth=1, zorder=1)
    axes.axvline(100 * ablation.whole.difference.value, color=WHOLE, linewidth=1, linestyle="--", zorder=1)
    for place, layer in enumerate(layers):
        for found, shift, colour, mark in ((layer.alone, -0.15, OWN, "D"), (layer.others, 0.15, IN_NETWORK, "o")):
            d = found.difference
            error = [[100 * (d.value - d.interval[0])], [100 * (d.interval[1] - d.value)]]
            axes.errorbar(100 * d.value, place + shift, xerr=error, fmt=mark, color=colour, markersize=3.5, capsize=2,
                          linewidth=1)  # fmt: skip
    axes.set_xlabel(f"Accuracy less the reference's (points), with its 95 % interval; {ablation.n_samples} samples")
    _legend(
        figure,
        [
            ("only this layer real", OWN, "D"),
            ("all layers real but this one", IN_NETWORK, "o"),
            ("reference", REFERENCE, "-"),
            ("all layers real", WHOLE, "--"),
        ],
    )
    return figure


def trials_figure(trials: TrialsSummary, reference: float) -> Figure:
    """Return how many chips have which accuracy, beside the reference's."""
    counts = per_accuracy(trials)
    places = [100 * accuracy for accuracy in counts]
    figure = Figure(figsize=(WIDTH_INCHES / 2, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(places, list(counts.values()), width=92 * step_of(trials) / trials.n_samples, color=IN_NETWORK)
    axes.set_xlim(*trials_range(trials, reference))
    axes.axvline(100 * reference, color=REFERENCE, linewidth=1)
    axes.axvline(100 * trials.mean, color=OWN, linewidth=1, linestyle="--")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_xlabel(f"Accuracy (%), {trials.n_samples} samples")
    axes.set_ylabel(f"Chips, of {trials.n}")
    mean = f"mean {percent(trials.mean, digits=2)}, s.d. {100 * trials.std:.2f} points"
    _legend(figure, [(f"reference {percent(reference, digits=2)}", REFERENCE, "-"), (mean, OWN, "--")], columns=1)
    return figure


def _legend(figure: Figure, marks: list[tuple[str, str, str]], columns: int | None = None) -> None:
    handles = []
    for label, colour, mark in marks:
        is_line = mark in ("-", "--")
        shape = {"linestyle": mark} if is_line else {"linestyle": "", "marker": "o" if mark == "open" else mark}
        if mark == "open":
            shape |= {"markerfacecolor": "white"}
        handles.append(Line2D([], [], color=colour, label=label, markersize=4, **shape))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns or len(handles))
