"""The command line of sweeps: ``imcsim sweep FILE.yaml``, and what else there is to do with its folder."""

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from imcsim.errors import ConfigError


class _FileFirst(TyperGroup):
    """Takes a sweep file where a command is expected: ``imcsim sweep FILE.yaml`` is ``imcsim sweep run FILE.yaml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweeps = typer.Typer(
    cls=_FileFirst,
    help="Explore a design space: imcsim sweep FILE.yaml --out DIR; stopped, the same command goes on. Or new, "
    "status, recover, export, schema.",
    no_args_is_help=True,
    epilog="Example: imcsim sweep reports/sweeps/tiles-buffer-bandwidth.yaml --out out/sweep",
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Argument(help="Folder that imcsim sweep wrote.")]


@sweeps.command(epilog="Example: imcsim sweep reports/sweeps/tiles-buffer-bandwidth.yaml --workers 2 --out out/sweep")
def run(
    file: Annotated[Path, typer.Argument(help="The sweep file.")],
    out: Annotated[Path, typer.Option(help="Folder for store, tables and report; made if it is not there.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes of this machine; without it, this process alone.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler that is there: tcp://HOST:PORT.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Store of results, which several sweeps may share; OUT/store.sqlite by default.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of data sets; IMCSIM_DATA by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but the end and what went wrong.")] = False,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Draw report.html and figures at the end.")] = True,
) -> None:
    """Explore the points of a sweep file and keep every result; stopped, the same command goes on where it was."""
    from imcsim.sweep.evaluate import evaluate
    from imcsim.sweep.local import InProcess
    from imcsim.sweep.progress import SweepProgress
    from imcsim.sweep.run import run_sweep
    from imcsim.sweep.spec import load_sweep
    from imcsim.sweep.stages import Runner

    if workers is not None and scheduler is not None:
        raise ConfigError("workers: must not go with scheduler, got both; a cluster has its own workers")
    sweep = load_sweep(file)
    if data is not None:
        sweep = replace(sweep, data=str(data.resolve()))
    with ExitStack() as stack:
        if workers is not None or scheduler is not None:
            from imcsim.sweep.cluster import join, local_cluster

            cluster = join(str(scheduler), evaluate) if workers is None else local_cluster(workers, evaluate)
            runner: Runner = stack.enter_context(cluster)
        else:
            runner = InProcess(evaluate)
        progress = stack.enter_context(SweepProgress(sweep.objectives, quiet=quiet))
        try:
            written = run_sweep(sweep, out, runner=runner, progress=progress, store=store)
        except KeyboardInterrupt:
            print("imcsim: stopped; everything so far is stored, and the same command goes on", file=sys.stderr)
            raise typer.Exit(130) from None
    print(_said(out))
    print(f"points: {written}")
    if page:
        from imcsim.report.sweep_page import build_sweep_report

        print(f"report: {build_sweep_report(out)}")


@sweeps.command(epilog="Example: imcsim sweep new first.yaml")
def new(file: Annotated[Path, typer.Argument(help="The sweep file to write; it must not be there yet.")]) -> None:
    """Write a small sweep file to begin with."""
    from importlib.resources import files

    from imcsim.results import write_whole

    if file.exists():
        raise ConfigError(f"{file}: must not be there yet, got a file or folder; choose another name")
    write_whole(file, files("imcsim.sweep").joinpath("example.yaml").read_text(encoding="utf-8"))
    print(f"imcsim sweep {file} --out out/{file.stem}")


@sweeps.command(epilog="Example: imcsim sweep status out/sweep")
def status(folder: Folder) -> None:
    """Say how far a sweep is, while it runs or after it was stopped."""
    from imcsim.sweep.run import FILE, find_store, number_of
    from imcsim.sweep.spec import load_sweep
    from imcsim.sweep.status import print_status
    from imcsim.sweep.store import Store

    with Store(find_store(folder), read_only=True) as store:
        sweep = load_sweep(folder / FILE)
        print_status(store, number_of(store, sweep), sweep, width=None if sys.stdout.isatty() else 120)


@sweeps.command(epilog="Example: imcsim sweep recover out/sweep")
def recover(folder: Folder) -> None:
    """Bring what can be read of a damaged store into a new one in its place; the damaged file is kept beside it."""
    from imcsim.sweep.recover import put_in_place
    from imcsim.sweep.recover import recover as recovered
    from imcsim.sweep.run import find_store

    store = find_store(folder)
    found = recovered(store)
    aside = put_in_place(found, store)
    print(
        f"{store}: {found.n_results} results ({found.n_from_exports} from exports), {found.n_sweeps} sweeps; the "
        f"damaged file is {aside}"
    )


@sweeps.command(epilog="Example: imcsim sweep export out/sweep --to results.parquet")
def export(
    folder: Folder,
    to: Annotated[Path, typer.Option(help="A .parquet or .csv file: every result of the store, of all its sweeps.")],
) -> None:
    """Write every result of a store, of all sweeps and stages, as Parquet or CSV."""
    from imcsim.sweep.run import find_store
    from imcsim.sweep.store import Store

    with Store(find_store(folder), read_only=True) as store:
        store.export(to)
    print(f"results: {to}")


@sweeps.command(epilog="Example: imcsim sweep schema > sweep.schema.json")
def schema() -> None:
    """Print the JSON Schema of a sweep file, for editors."""
    from imcsim.sweep.spec import sweep_schema

    print(json.dumps(sweep_schema(), indent=2))


def _said(out: Path) -> str:
    """Return a line about what a sweep came to."""
    said = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    counts = {name: n for name, n in said["counts"].items() if n and name != "points"}
    parts = ", ".join(f"{n} {name}" for name, n in counts.items())
    return f"{said['name']}: {said['counts']['points']} points ({parts}), {len(said['front'])} on the front"
