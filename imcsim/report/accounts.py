"""What accounts for an accuracy, in words and tables: for the page and the terminal alike."""

from imcsim.report.parts import (
    AblatedSummary,
    AblationSummary,
    DeviationSummary,
    Difference,
    FirstDifferenceSummary,
    LayerErrorsSummary,
    LayerErrorSummary,
    TrialsSummary,
)
from imcsim.report.views import TableView
from imcsim.units import percent

NOTHING = "-"


def points(share: float) -> str:
    """Return a difference of two shares in points.

    >>> points(-0.0621), points(0.0)
    ('-6.21', '0.00')
    """
    text = f"{100 * share:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def difference_text(found: Difference) -> str:
    """Return a difference with its interval and what it comes from."""
    low, high = found.interval
    return (
        f"{points(found.value)} points, {points(low)} to {points(high)} ({found.method}); "
        f"right on the chip alone {found.n_better} samples, on the reference alone {found.n_worse}"
    )


def trials_text(trials: TrialsSummary) -> str:
    """Return in one line how far the accuracies of the trials spread."""
    if not trials.is_random:
        same = percent(trials.mean, digits=2)
        return f"nothing on this chip is random: all {trials.n} are equal, {same}; one was executed"
    return (
        f"{trials.n} chips: mean {percent(trials.mean, digits=2)}, standard deviation {100 * trials.std:.2f} points, "
        f"worst {percent(trials.worst, digits=2)}, best {percent(trials.best, digits=2)}"
    )


def quantiles_text(trials: TrialsSummary) -> str:
    """Return the quantiles of the trials."""
    return ", ".join(
        f"{percent(float(share), digits=0)}: {percent(value, digits=2)}" for share, value in trials.quantiles.items()
    )


def trials_table(trials: TrialsSummary) -> TableView:
    """Return the figures of the spread, a line each."""
    rows: list[tuple[str, ...]] = [
        ("Mean", percent(trials.mean, digits=2)),
        ("Standard deviation", f"{100 * trials.std:.2f} points"),
        ("Worst", percent(trials.worst, digits=2)),
        *(
            (f"{percent(float(share), digits=0)} quantile", percent(value, digits=2))
            for share, value in trials.quantiles.items()
        ),
        ("Best", percent(trials.best, digits=2)),
    ]
    return TableView(f"Accuracy of {trials.n} chips, {trials.n_samples} samples each", ("", ""), rows, frozenset({1}))


def ratio_text(found: DeviationSummary | None) -> str:
    """Return a signal-to-error ratio in dB."""
    if found is None:
        return NOTHING
    if found.ratio_dB is not None:
        return f"{found.ratio_dB:.1f}"
    return "exact" if found.error == 0 else "no signal"


def share_text(found: DeviationSummary) -> str:
    """Return the share of numbers that differ."""
    return (
        percent(found.n_different / found.n_values, digits=2 if found.n_different else 0) if found.n_values else NOTHING
    )


def layer_errors_table(errors: LayerErrorsSummary) -> TableView:
    """Return a line a layer: ratios in dB in the network and of its own, and how many outputs differ."""
    head = ("Layer", "Sums (dB)", "own (dB)", "Outputs (dB)", "own (dB)", "Outputs differ", "own")
    rows: list[tuple[str, ...]] = [
        (
            layer.name,
            ratio_text(layer.sums),
            ratio_text(layer.own_sums),
            ratio_text(layer.outputs),
            ratio_text(layer.own_outputs),
            share_text(layer.outputs),
            share_text(layer.own_outputs),
        )
        for layer in errors.layers
    ]
    caption = f"Signal-to-error ratio by layer, {errors.n_samples} samples"
    return TableView(caption, head, rows, frozenset(range(1, len(head))))


def first_difference_text(first: FirstDifferenceSummary | None) -> str:
    """Return where the first number differs.

    >>> first_difference_text(None)
    "every number of every layer is the reference's"
    """
    if first is None:
        return "every number of every layer is the reference's"
    channel, *pixel = first.place or (0,)
    place = f"channel {channel}" + (f", row {pixel[0]}, column {pixel[1]}" if len(pixel) == 2 else "")
    what = "sum" if first.stage == "sums" else "output"
    return (
        f"{first.layer}, {what} of sample {first.sample}, {place}: expected {first.expected:g}, found {first.found:g}"
    )


def worst_layer(errors: LayerErrorsSummary) -> LayerErrorSummary | None:
    """Return the layer whose own sums have the least ratio: where most error is born; None where all are exact."""
    found = [layer for layer in errors.layers if layer.own_sums and layer.own_sums.ratio_dB is not None]
    return min(found, key=lambda layer: layer.own_sums.ratio_dB or 0.0, default=None)  # type: ignore[union-attr]


def ablation_table(ablation: AblationSummary) -> TableView:
    """Return a line a layer, and one for the whole chip: accuracies and differences to the reference, in points."""
    head = ("Layer", "Only it real", "Difference", "95 % interval", "All but it real", "Difference", "95 % interval")
    rows = [("all layers", *[NOTHING] * 3, *_cells(ablation.whole))]
    rows += [(layer.name, *_cells(layer.alone), *_cells(layer.others)) for layer in ablation.layers]
    caption = f"Accuracy with one layer real, and with all but one; reference {percent(ablation.reference, digits=2)}"
    return TableView(caption, head, rows, frozenset(range(1, len(head))))


def _cells(found: AblatedSummary) -> tuple[str, str, str]:
    low, high = found.difference.interval
    return percent(found.accuracy, digits=2), points(found.difference.value), f"{points(low)} to {points(high)}"
