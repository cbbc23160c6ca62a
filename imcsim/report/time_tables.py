"""Why a simulation took the time it took, in words and tables: for the page and the terminal alike."""

import textwrap

from imcsim.report.time_parts import TimeSummary
from imcsim.report.views import TableView
from imcsim.units import human, percent

MOST_ROWS = 64


def time_lines(time: TimeSummary) -> list[str]:
    """Return what decides the time, in lines for the terminal."""
    lines: list[str] = []
    for i, sentence in enumerate(time.sentences):
        lines += textwrap.wrap(
            sentence, 110, initial_indent="the time   " if i == 0 else 11 * " ", subsequent_indent=11 * " "
        )
    return lines


def time_tables(time: TimeSummary) -> list[TableView]:
    """Return what every component, every layer and every kind of unit does to the time."""
    return [components_table(time), time_layers_table(time), use_table(time)]


def components_table(time: TimeSummary) -> TableView:
    """Return a line a component: its share of the critical path, and the whole without its time."""
    head = ("Component", "On the critical path", "Share", "Latency if it were free", "Speed-up")
    rows: list[tuple[str, ...]] = [
        (c.name, human(c.path_ns, "ns"), percent(c.path_share), human(c.without_ns, "ns"), speedup_text(c.speedup))
        for c in sorted(time.components, key=lambda c: -c.path_ns)
    ]
    return TableView(
        f"What decides the time, {human(time.latency_ns, 'ns')} in all", head, rows, frozenset({1, 2, 3, 4})
    )


def time_layers_table(time: TimeSummary) -> TableView:
    """Return a line a layer, of very many those that take longest: what bounds it, and what would help."""
    head = ("Layer", "Adds", "Share", "Bound by", "Of its path", "If free", "Helps most", "If free")
    kept = {layer.name for layer in sorted(time.layers, key=lambda layer: -layer.added_ns)[:MOST_ROWS]}
    rows: list[tuple[str, ...]] = [
        (
            layer.name,
            human(layer.added_ns, "ns"),
            percent(layer.added_ns / (time.latency_ns or 1)),
            layer.bound_by,
            percent(layer.path_ns_by_component.get(layer.bound_by, 0.0) / (layer.path_ns or 1)),
            speedup_text(layer.speedup),
            layer.helps_most,
            speedup_text(layer.best_speedup),
        )
        for layer in time.layers
        if layer.name in kept
    ]
    return TableView("What bounds each layer, and how fast it would be", head, rows, frozenset({1, 2, 4, 5, 7}))


def use_table(time: TimeSummary) -> TableView:
    """Return a line a kind of unit: busy, or why not; all its units together."""
    head = ("Units", "Busy", "Waiting for inputs", "for a task's end", "for room", "Nothing to do")
    rows = [
        (use.name, *(percent(share) for share in (use.busy, use.inputs, use.end, use.room, use.idle)))
        for use in sorted(time.use, key=lambda use: -use.busy)
    ]
    return TableView("What the units do with the time", head, rows, frozenset(range(1, 6)))


def speedup_text(speedup: float | None) -> str:
    """Return a speed-up.

    >>> speedup_text(1.234), speedup_text(None)
    ('x 1.23', 'no time left')
    """
    return "no time left" if speedup is None else f"x {speedup:.2f}"
