"""Sections of the page that account for an accuracy: trials, errors by layer, ablation."""

from imcsim.report import account_charts
from imcsim.report.accounts import (
    ablation_table,
    first_difference_text,
    layer_errors_table,
    points,
    ratio_text,
    trials_table,
    trials_text,
    worst_layer,
)
from imcsim.report.load import Summary
from imcsim.report.parts import AblationSummary, LayerErrorsSummary, TrialsSummary
from imcsim.report.views import Section


def account_sections(summary: Summary) -> list[Section]:
    """Return the sections that *summary* has the numbers for."""
    found = []
    if summary.trials and summary.accuracy:
        found.append(trials(summary.trials, summary.accuracy.reference))
    if summary.layer_errors:
        found.append(layer_errors(summary.layer_errors))
    if summary.ablation:
        found.append(ablation(summary.ablation))
    return found


def trials(found: TrialsSummary, reference: float) -> Section:
    """Return how far the accuracies of several chips spread."""
    text = trials_text(found)
    if not found.is_random:
        return Section("trials", "Trials", [text[0].upper() + text[1:] + "."])
    paragraphs = [
        f"{text}. Every chip is drawn from a seed of its own and sees the same {found.n_samples} samples, so that the "
        "spread is that of chips. trials.csv has all of them with their seeds; imcsim run --seed SEED repeats one."
    ]
    return Section("trials", "Trials", paragraphs, [account_charts.trials(found, reference)], [trials_table(found)])


def layer_errors(errors: LayerErrorsSummary) -> Section:
    """Return where error is born, and where it is only passed on."""
    first = first_difference_text(errors.first_difference)
    paragraphs = [
        "The ratio of a layer is 10 log10 of the sum of squares of the reference's numbers by that of the differences. "
        "In the network a layer reads what the layers before it made on the chip: all error so far. By itself (own) it "
        "reads the reference's numbers: the error that it adds. Where both are equal, error is born; where its own "
        "ratio is much higher, it is passed on. Sums are those of the layer's product; outputs are what its digital "
        "steps make of them, mostly codes.",
        f"First difference: {first}.",
    ]
    if worst := worst_layer(errors):
        paragraphs.append(f"The layer that adds most is {worst.name}: {ratio_text(worst.own_sums)} dB of its own.")
    drawn = [account_charts.layer_errors(errors)] if account_charts.shown_errors(errors) else []
    return Section("layer_errors", "Error by layer", paragraphs, drawn, [layer_errors_table(errors)])


def ablation(found: AblationSummary) -> Section:
    """Return which layer loses the accuracy."""
    paragraphs = [
        "An ideal layer reads every count exactly; a real one clips, and errs, as the chip does. With only one layer "
        "real, a loss is that layer's own; with all but one real, what is regained is what making that layer ideal "
        f"would bring. With all layers real the accuracy is {points(found.whole.difference.value)} points off the "
        "reference's. Intervals are those of differences on the same samples."
    ]
    drawn = [account_charts.ablation(found)] if found.layers else []
    return Section("ablation", "Which layer loses the accuracy", paragraphs, drawn, [ablation_table(found)])
