import io
import re
import time

import pytest
from rich.console import Console

from imcsim.sweep.objectives import find_objective
from imcsim.sweep.progress import SweepProgress, best_table

OBJECTIVES = [find_objective("latency"), find_objective("accuracy")]
FRONT = [
    {"point": 7, "latency": 1234.567, "accuracy": 0.91, "tile.count_max": 8},
    {"point": 9, "latency": 99.5, "accuracy": 0.85, "tile.count_max": 4, "mapping.policy": "least_time"},
    {"point": 11, "latency": 5000.0, "accuracy": 0.93, "tile.count_max": 16},
]


class Clock:
    """Time that goes on when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain(**options):
    lines, clock = io.StringIO(), Clock()
    return SweepProgress(OBJECTIVES, is_terminal=False, lines=lines, clock=clock, **options), lines, clock


def drawn(clock):
    console = Console(force_terminal=True, width=110, file=io.StringIO(), record=True)
    return SweepProgress(OBJECTIVES, is_terminal=True, console=console, clock=clock), console


def test_lines_come_first_last_and_every_few_seconds():
    progress, lines, clock = plain()
    with progress:
        progress.stage("estimate", 100)
        progress.add(0)
        for _ in range(100):
            clock.now += 0.11
            progress.add(1, 0)
    assert lines.getvalue().splitlines() == [
        "estimate: 0 of 100 points",
        "estimate: 46 of 100 points, 9.1 points/s, 6 s left",
        "estimate: 92 of 100 points, 9.1 points/s, 1 s left",
        "estimate: 100 of 100 points, in 11 s",
    ]


def test_a_stage_ends_the_one_before_and_failed_points_are_counted():
    progress, lines, clock = plain()
    with progress:
        progress.stage("estimate", 4)
        progress.add(4, 1)
        clock.now += 90
        progress.stage("simulate", 3)
        progress.error("--workers: all is lost")
        progress.add(2, 2)
    assert lines.getvalue().splitlines() == [
        "estimate: 0 of 4 points",
        "estimate: 4 of 4 points, 1 failed, in 1:30 min",
        "simulate: 0 of 3 points",
        "--workers: all is lost",
        "simulate: 2 of 3 points, 2 failed, in 0 s",
    ]


def test_the_rate_is_of_the_last_seconds_and_not_of_points_known_before():
    progress, _, clock = plain()
    progress.stage("estimate", 100_000)
    clock.now += 3
    progress.add(50_000)
    assert progress.points_per_s is None
    for rate in (10, 200):
        for _ in range(60):
            clock.now += 0.5
            progress.add(rate // 2)
    assert progress.points_per_s == pytest.approx(200)
    assert progress.left_s == pytest.approx((50_000 - 60 * 105) / 200)


def test_what_a_stage_waits_for_is_said():
    progress, lines, _ = plain()
    progress.said("training of lsq", 1, 3)
    assert lines.getvalue() == "training of lsq: 1 of 3\n"
    progress, console = drawn(time.monotonic)
    with progress:
        progress.stage("execute", 2)
        progress.said("training of lsq", 1, 3)
        progress._live.refresh()
        assert "training of lsq: 1 of 3" in console.export_text()
        progress.said("training of lsq", 3, 3)
        progress._live.refresh()
        assert "training of lsq" not in console.export_text()


def test_quiet_says_nothing():
    progress, lines, clock = plain(quiet=True)
    with progress:
        progress.stage("estimate", 10)
        clock.now += 60
        progress.add(5)
        progress.error("a batch went wrong")
        progress.said("training", 1, 2)
        progress.front(FRONT)
    assert lines.getvalue() == ""
    console = Console(force_terminal=True, file=io.StringIO())
    with SweepProgress(OBJECTIVES, quiet=True, is_terminal=True, console=console) as progress:
        progress.stage("estimate", 10)
        progress.add(10)
    assert console.file.getvalue() == ""


def test_a_terminal_shows_bars_rates_errors_and_the_best_of_the_front():
    clock = Clock()
    progress, console = drawn(clock)
    with progress:
        progress.stage("estimate", 1000)
        clock.now += 10
        progress.add(1000, 3)
        progress.stage("simulate", 40)
        progress.add(0)
        clock.now += 8
        progress.add(10)
        progress.error("worker tcp://10.0.0.1:1: must have imcsim 0.1.0, got 0.0.9")
        progress.front(FRONT)
        progress._live.refresh()
        text = console.export_text()
    assert re.search(r"^estimate ━+ 1000 of 1000 points, 3 failed in 10 s", text, re.M)
    assert re.search(r"^simulate [━╸]+ +10 of 40 points +1\.2 points/s, 24 s left", text, re.M)
    assert "worker tcp://10.0.0.1:1: must have imcsim 0.1.0, got 0.0.9" in text
    assert "best of 3 on the front" in text
    assert re.search(r"latency +│ +9 │ +99\.5 │ +0\.85 │ tile\.count_max=4, mapping\.policy=least_time", text)
    assert re.search(r"accuracy +│ +11 │ +5000 │ +0\.93 │ tile\.count_max=16", text)


def test_the_table_of_the_best_has_a_few_of_each_objective():
    front = [{"point": i, "latency": float(i), "accuracy": i / 10} for i in range(10)]
    front.append({"point": 10, "latency": 0.5})  # which has no accuracy yet
    table = best_table(front, OBJECTIVES, 2)
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["best in"] == ["latency", "", "accuracy", ""]
    assert columns["point"] == ["0", "10", "9", "8"]
    assert columns["accuracy"] == ["0", "", "0.9", "0.8"]


def test_points_cost_next_to_nothing():
    progress, console = drawn(time.monotonic)
    with progress:
        progress.stage("estimate", 100_000)
        start = time.process_time()
        for _ in range(100_000):
            progress.add(1)
            progress.front(FRONT)
        assert time.process_time() - start < 2.0  # 20 us a call, most of it the watch
    assert "100000 of 100000 points" in console.export_text()
