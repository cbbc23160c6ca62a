"""How far a sweep is, for people who look at its folder from outside, while it runs or later."""

from rich.console import Console
from rich.table import Table

from imcsim.sweep.spec import Sweep
from imcsim.sweep.store import Store
from imcsim.units import human


def print_status(store: Store, number: int, sweep: Sweep, *, width: int | None = None) -> None:
    """Print how many points each stage has, how many are done, failed and being computed, by whom and how quickly.

    *width* is that of the lines in letters; by default that of the terminal.
    Raises DataError where the store does not hold a sweep of this *number*.
    """
    console, progress = Console(width=width), store.progress(number)
    console.print(f"{sweep.name}: {', '.join(objective.name for objective in sweep.objectives)}", highlight=False)
    table = Table(title="Stages", title_justify="left")
    for column in ("stage", "engines", "points", "done", "failed", "being computed"):
        table.add_column(column, justify="left" if column == "engines" else "right")
    counts = {stage.stage: stage for stage in progress.stages}
    for place, stage in enumerate(sweep.stages):
        engines, seen = " + ".join(stage.engines), counts.get(place)
        if seen is None:
            table.add_row(str(place + 1), engines, "not begun", "", "", "")
        else:
            figures = (seen.n_points, seen.n_known, seen.n_failed, seen.n_claimed)
            table.add_row(str(place + 1), engines, *map(str, figures))
    console.print(table)
    at_work = [worker for worker in progress.workers if worker.is_alive]
    for worker in at_work:
        console.print(f"{worker.name}: at {worker.n_claims} points, heard from {_time(worker.silent_s)} ago",
                      highlight=False)  # fmt: skip
    left = sum(seen.n_points - seen.n_known for seen in progress.stages)
    if at_work:
        per_s = progress.n_last_minute / 60
        rest = f", {_time(left / per_s)} left for these" if per_s and left else ""
        console.print(f"{progress.n_last_minute} points in the last minute{rest}", highlight=False)
    elif left or len(counts) < len(sweep.stages):
        console.print("stopped; the same command goes on where it was", highlight=False)
    else:
        console.print("complete", highlight=False)


def _time(seconds: float) -> str:
    return human(1e9 * seconds, "ns", digits=2)
