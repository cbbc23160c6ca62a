"""How far a sweep is: bars and the best front so far on a terminal, plain lines elsewhere, nothing when quiet.

`SweepProgress.add` and `SweepProgress.front` only note what they are told; what is shown is drawn from that a few times
a second, or every few seconds, so that a million points cost no more than a few.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from imcsim.sweep.objectives import Objective
from imcsim.sweep.points import Value

DRAWN_PER_S = 4
LINE_EVERY_S = 5.0
N_BEST = 3
"""Points of the front that are shown for each objective."""

RATE_OVER_S = 20.0
"""The rate is that of so many last seconds: points are not all alike."""

FrontRow = Mapping[str, Value]
"""A point of the front: ``point`` (its number), the figures of the objectives by name, and its parameters."""


@dataclass
class _Stage:
    name: str
    n_points: int
    begun: float
    n_done: int = 0
    n_failed: int = 0
    ended: float | None = None


class SweepProgress:
    """What a sweep tells a person while it goes on.

    >>> with SweepProgress(lines=sys.stdout, is_terminal=False) as progress:
    ...     progress.stage("estimate", 2)
    ...     progress.add(2, 1)
    estimate: 0 of 2 points
    estimate: 2 of 2 points, 1 failed, in 0 s
    """

    def __init__(
        self,
        objectives: Sequence[Objective] = (),
        *,
        quiet: bool = False,
        is_terminal: bool | None = None,
        console: Console | None = None,
        lines: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the objectives whose best points are shown.

        Args:
            objectives: What is asked of the points.
            quiet: Show nothing.
            is_terminal: Draw bars, and plain lines otherwise; as standard error is by default.
            console: Where bars are drawn.
            lines: Where plain lines go; standard error by default.
            clock: What time it is, in seconds.
        """
        self.objectives = tuple(objectives)
        self.clock = clock
        self._lines = sys.stderr if lines is None else lines
        is_drawn = not quiet and (sys.stderr.isatty() if is_terminal is None else is_terminal)
        self._is_quiet = quiet
        self._stages: list[_Stage] = []
        self._front: Sequence[FrontRow] = ()
        self._messages: list[str] = []
        self._aside = ""
        self._past: list[tuple[float, int]] = []  # when, and how many were done then
        self._said = clock()
        self._live = (
            Live(
                get_renderable=self._drawing,
                console=console or Console(stderr=True),
                refresh_per_second=DRAWN_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            if is_drawn
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_stage()
        if self._live is not None:
            self._live.stop()

    def stage(self, name: str, n_points: int) -> None:
        """Begin a stage of so many points; it ends the one before."""
        self._end_stage()
        self._stages.append(_Stage(name, n_points, self.clock()))
        self._past = []
        self._line()

    def add(self, n_done: int, n_failed: int = 0) -> None:
        """Note that so many more points are done, of which some failed.

        The rate begins with the first call of a stage, which may be of points that were known before.
        """
        stage = self._stages[-1]
        stage.n_done += n_done
        stage.n_failed += n_failed
        now = self.clock()
        if not self._past or now > self._past[-1][0] + 1 / DRAWN_PER_S:
            self._past.append((now, stage.n_done))
            while len(self._past) > 2 and self._past[1][0] < now - RATE_OVER_S:
                del self._past[0]
        if self._live is None and now >= self._said + LINE_EVERY_S and stage.n_done < stage.n_points:
            self._line()

    def said(self, what: str, done: int, total: int) -> None:
        """Note how far something else is that a stage has to wait for: a training, say."""
        self._aside = f"{what}: {done} of {total}" if done < total else ""
        if self._live is None and not self._is_quiet:
            print(f"{what}: {done} of {total}", file=self._lines, flush=True)

    def error(self, message: str) -> None:
        """Note what went wrong with a whole batch."""
        self._messages.append(message)
        if self._live is None and not self._is_quiet:
            print(message, file=self._lines, flush=True)

    def front(self, rows: Sequence[FrontRow]) -> None:
        """Note the points of the best front so far; it may be told as often as is convenient."""
        self._front = rows

    @property
    def points_per_s(self) -> float | None:
        """How fast the stage goes now; None before there is something to tell by."""
        if not self._past:
            return None
        (then, n_then), (now, n_now) = self._past[0], self._past[-1]
        return (n_now - n_then) / (now - then) if now > then and n_now > n_then else None

    @property
    def left_s(self) -> float | None:
        """How long the stage will take yet, at the rate that it has."""
        stage, rate = self._stages[-1], self.points_per_s
        return None if rate is None else (stage.n_points - stage.n_done) / rate

    def _end_stage(self) -> None:
        if self._stages and self._stages[-1].ended is None:
            self._stages[-1].ended = self.clock()
            self._line()

    def _line(self) -> None:
        self._said = self.clock()
        if self._live is None and not self._is_quiet:
            stage = self._stages[-1]
            said = ", ".join(part for part in (_counts(stage), self._pace(stage)) if part)
            print(f"{stage.name}: {said}", file=self._lines, flush=True)

    def _pace(self, stage: _Stage) -> str:
        if stage.ended is not None:
            return f"in {_duration(stage.ended - stage.begun)}"
        rate, left = self.points_per_s, self.left_s
        return "" if rate is None or left is None else f"{_rate(rate)}, {_duration(left)} left"

    def _drawing(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        for stage in self._stages:
            bar = ProgressBar(total=max(1, stage.n_points), completed=stage.n_done if stage.n_points else 1, width=30)
            grid.add_row(stage.name, bar, Text(_counts(stage)), Text(self._pace(stage)))
        parts: list[RenderableType] = [grid]
        if self._aside:
            parts.append(Text(self._aside))
        parts += [Text(message, style="red") for message in self._messages[-2:]]
        if self._front and self.objectives:
            parts.append(best_table(self._front, self.objectives))
        return Group(*parts)


def best_table(front: Sequence[FrontRow], objectives: Sequence[Objective], n: int = N_BEST) -> Table:
    """Return a table of the best *n* points of a front in each objective."""
    table = Table(title=f"best of {len(front)} on the front", title_justify="left")
    table.add_column("best in")
    table.add_column("point", justify="right")
    for objective in objectives:
        table.add_column(objective.name, justify="right")
    names = [objective.name for objective in objectives]
    parameters = [name for name in dict.fromkeys(key for row in front for key in row) if name not in ("point", *names)]
    table.add_column("parameters", overflow="ellipsis", no_wrap=True, ratio=1)
    for objective in objectives:
        known = [row for row in front if objective.name in row]
        ranked = sorted(known, key=itemgetter(objective.name), reverse=objective.is_maximized)
        for i, row in enumerate(ranked[:n]):
            values = [_shown(row.get(name)) for name in ("point", *names)]
            said = ", ".join(f"{name}={_shown(row[name])}" for name in parameters if name in row)
            table.add_row(objective.name if i == 0 else "", *values, Text(said))
    return table


def _counts(stage: _Stage) -> str:
    failed = f", {stage.n_failed} failed" if stage.n_failed else ""
    return f"{stage.n_done} of {stage.n_points} points{failed}"


def _shown(value: Value | None) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _rate(points_per_s: float) -> str:
    return f"{points_per_s:.0f} points/s" if points_per_s >= 10 else f"{points_per_s:.2g} points/s"


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(7), _duration(725), _duration(7270)
    ('7 s', '12:05 min', '2:01 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d} h"
