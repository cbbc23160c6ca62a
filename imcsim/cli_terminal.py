"""What commands print with: a console, a table, and how far long work is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def console() -> "Console":
    """Return standard output: as wide as the terminal, or 160 columns elsewhere."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def print_table(title: str, columns: list[str], lines: list[list[str]]) -> None:
    """Print *lines* below *columns*; what is too long goes on in the next line."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*line)
    console().print(table)


@contextmanager
def progress() -> Iterator[Progress]:
    """Yield a progress callback: a bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():

        def line(what: str, done: int, total: int) -> None:
            print(f"{what}: {done} of {total}", file=sys.stderr)

        yield line
        return
    from rich import progress as bar_of
    from rich.console import Console

    columns = (
        bar_of.TextColumn("{task.description}"),
        bar_of.BarColumn(),
        bar_of.MofNCompleteColumn(),
        bar_of.TimeRemainingColumn(),
    )
    with bar_of.Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, object] = {}

        def bar(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]

        yield bar
