"""The command line: imcsim run, compare, sweep, train, quantize, quantizer, chip, workload, circuit, report, ...

A user's mistake is one line on standard error and exit status 1; wrong usage is status 2. Heavy libraries are
imported by the commands that need them, so that help is quick.
"""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from imcsim.cli_quantize import quantize
from imcsim.cli_sweep import sweeps
from imcsim.cli_terminal import console as _console
from imcsim.cli_terminal import print_table as _print_table
from imcsim.cli_terminal import progress as _progress
from imcsim.errors import ImcsimError
from imcsim.version import __version__

app = typer.Typer(
    name="imcsim",
    help="Simulate ternary and binary neural networks on in-memory-computing chips: values, time, energy and area.",
    epilog="Example: imcsim run digits-ternary-cnn --chip tim-dnn --out out/demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
chips = typer.Typer(
    help="Chips: list, show, check, schema.", no_args_is_help=True, epilog="Example: imcsim chip show tim-dnn",
    rich_markup_mode=None,
)  # fmt: skip
workloads = typer.Typer(
    help="Workloads: list, show.", no_args_is_help=True, epilog="Example: imcsim workload show digits-ternary-cnn",
    rich_markup_mode=None,
)  # fmt: skip
circuits = typer.Typer(
    help="Circuits: show.", no_args_is_help=True, epilog="Example: imcsim circuit show tim-dnn", rich_markup_mode=None
)
app.add_typer(chips, name="chip")
app.add_typer(circuits, name="circuit")
app.add_typer(workloads, name="workload")
quantizers = typer.Typer(
    help="Published methods: list, show.", no_args_is_help=True, epilog="Example: imcsim quantizer show lsq",
    rich_markup_mode=None,
)  # fmt: skip
app.add_typer(quantizers, name="quantizer")
app.add_typer(sweeps, name="sweep")

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the chip: tile.count_max=10. Repeatable."),
]

Assume = Annotated[
    str | None,
    typer.Option(
        metavar="W=BITS,A=BITS,...",
        help="Bits of layers of real numbers, for time, energy and area without values: W=ternary,A=2. Also first=8, "
        "last=8, W.first, A.last ..., zeros=0.5.",
    ),
]


def main() -> None:
    """Run the command line: the console script ``imcsim``."""
    try:
        app(prog_name="imcsim")
    except ImcsimError as error:
        print(f"imcsim: {' '.join(str(error).splitlines())}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("imcsim: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        sys.exit(0)


def _version(value: bool) -> None:
    if value:
        print(f"imcsim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


@app.command(
    epilog="Example: imcsim run digits-ternary-cnn --chip tim-dnn --set tile.count_max=10 --out out/count10",
)
def run(
    workload: Annotated[
        str, typer.Argument(help="Shipped name, or path of a folder with a workload.py, or of an ONNX file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; made if it is not there.")],
    chip: Annotated[str, typer.Option(help="Shipped name, or path of a chip file.")] = "tim-dnn",
    changes: Set = None,
    assume: Assume = None,
    engine: Annotated[
        Literal["all", "simulate", "estimate", "execute"],
        typer.Option(help="Time by events, time by formula, values, or all of them."),
    ] = "all",
    samples: Annotated[int | None, typer.Option(help="Samples of the test set to execute; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Samples that one inference takes together.")] = 1,
    style: Annotated[
        Literal["spatial", "temporal", "pipelined"] | None,
        typer.Option(
            help="All weights resident, or loaded round by round, or resident with several inferences at a time; "
            "spatial where it fits by default."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="How layers are cut: least_time, as_they_are, least_energy_delay, greatest_rate, search or "
            "search:OBJECTIVE, which tries plans for the least latency, energy or edp."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every generator that draws.")] = 0,
    trials: Annotated[
        int, typer.Option(help="Chips to execute the samples on, each drawn from a seed that follows from --seed.")
    ] = 1,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Also say why: what decides the simulated time, and in which layer error is born."
        ),
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Also execute with one layer real, and all but one: which one loses.")
    ] = False,
    requests: Annotated[
        int | None, typer.Option(help="Also serve this many requests, an inference each: throughput and latencies.")
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(
            metavar="poisson:RATE|every:NS|FILE.csv",
            help="When requests arrive: at random, RATE a second; one each NS ns; or as a file says. All at once by "
            "default.",
        ),
    ] = None,
    loads: Annotated[
        bool, typer.Option("--loads", help="Also serve --requests at several loads up to saturation: a figure.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Folder of data sets; IMCSIM_DATA by default.")] = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where products are counted: cpu, cuda, cuda:NUMBER; auto: a GPU if torch sees one. Same bits."
        ),
    ] = "auto",
    trace: Annotated[bool, typer.Option("--trace", help="Also write trace.json, which Perfetto opens.")] = False,
    page: Annotated[
        bool | None,
        typer.Option("--page/--no-page", help="Draw report.html and figures; left out by estimate alone."),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also draw the energy's interval from the chip's stated ranges.")
    ] = False,
) -> None:
    """Run a workload on a chip: values, time, energy; tables here, files and a report in OUT."""
    from imcsim.arch.load import load_chip, parse_override
    from imcsim.report.terminal import print_run
    from imcsim.run import require_writable
    from imcsim.run import run as walk
    from imcsim.workloads import find_workload

    overrides = dict(parse_override(text) for text in changes or [])
    described = load_chip(chip, overrides)
    found = find_workload(workload, assume=assume)
    require_writable(out)
    with _progress() as progress:
        result = walk(
            found,
            described,
            engine=engine,
            n_samples=samples,
            batch=batch,
            style=style,
            policy=policy,
            seed=seed,
            data=data,
            uncertainty=uncertainty,
            trials=trials,
            explain=explain,
            ablation=ablation,
            requests=requests,
            arrivals=arrivals,
            loads=loads,
            progress=progress,
            device=device,
        )
    draws = page if page is not None else engine != "estimate"
    written = result.write(out, command=" ".join(["imcsim", *sys.argv[1:]]), trace=trace, page=draws)
    print_run(result.summary, result.rows, _console())
    print(f"report: {written}" if draws else f"summary: {written}; imcsim report {out} draws the page")


@app.command(
    epilog="Example: imcsim compare resnet18 --chip tim-dnn --chip v100 --chip cutie --technology 32nm --out out/beside"
)
def compare(
    workload: Annotated[
        str, typer.Argument(help="Shipped name, or path of a folder with a workload.py, or of an ONNX file.")
    ],
    chip: Annotated[list[str], typer.Option(help="Shipped name, or path of a chip file of any kind. Repeatable.")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[CHIP:]KEY=VALUE",
            help="Change a number of every chip that has the key, or of one: v100:memory.batch=16. Repeatable.",
        ),
    ] = None,
    assume: Assume = None,
    technology: Annotated[
        str | None,
        typer.Option(help="Bring all figures to one process: 32nm, 22nm-LP, 22nm@0.8V."),
    ] = None,
    engine: Annotated[
        Literal["estimate", "simulate"],
        typer.Option(help="For chips that networks are placed on: time by formula, or by events."),
    ] = "estimate",
    out: Annotated[Path | None, typer.Option(help="Folder for tables, figure and page; none by default.")] = None,
) -> None:
    """Put machines side by side: latency, energy, rate and area, with the basis of every figure."""
    from imcsim.comparison import compare as put_side_by_side
    from imcsim.comparison import load_changed, write
    from imcsim.report.comparison_tables import print_comparison
    from imcsim.run import require_writable
    from imcsim.workloads import load_workload

    machines = load_changed(chip, changes or [])
    graph = load_workload(workload, assume=assume)
    if out is not None:
        require_writable(out)
    found = put_side_by_side(graph, machines, engine=engine, technology=technology)
    print_comparison(found, _console())
    if out is not None:
        print(f"page: {write(found, out)}")


@app.command(epilog="Example: imcsim report out/demo")
def report(folder: Annotated[Path, typer.Argument(help="Folder that imcsim run or imcsim sweep wrote.")]) -> None:
    """Draw the page and the figures of a run's or a sweep's folder anew."""
    from imcsim.report.page import build_report

    if (folder / "sweep.yaml").is_file():  # the store may know more than the tables
        from imcsim.sweep.run import rebuild

        rebuild(folder)
    print(f"report: {build_report(folder)}")


@app.command(epilog="Example: imcsim reproduce tim-dnn --out out/tim-dnn")
def reproduce(
    paper: Annotated[str, typer.Argument(help="Whose numbers: tim-dnn.")],
    out: Annotated[Path, typer.Option(help="Folder for the report; made if it is not there.")],
    changes: Set = None,
    engine: Annotated[
        Literal["simulate", "estimate"], typer.Option(help="Values by events, or by formula, which is quicker.")
    ] = "simulate",
    width: Annotated[int | None, typer.Option(help="Width of the CNNs, 1 or 2; by default what the fit chose.")] = None,
    batch: Annotated[
        int | None, typer.Option(help="Samples that an inference takes together; by default what the fit chose.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Chips drawn from the stated ranges, for the intervals.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Draw report.html and figures.")] = True,
) -> None:
    """Hold everything that is printed of a paper's chip against ours: table, figures, and why they differ."""
    from imcsim.arch.load import parse_override
    from imcsim.reproduce.command import reproduce as made
    from imcsim.reproduce.page import summary, table_view
    from imcsim.run import require_writable

    overrides = dict(parse_override(text) for text in changes or [])
    require_writable(out)
    with _progress() as progress:
        report = made(
            paper,
            out,
            changes=overrides,
            engine=engine,
            width=width,
            batch=batch,
            n_draws=draws,
            seed=seed,
            page=page,
            command=" ".join(["imcsim", *sys.argv[1:]]),
            progress=progress,
        )
    view = table_view(report.results)
    _print_table(view.caption, list(view.head[:7]), [list(row[:7]) for row in view.rows])
    print("\n".join(summary(report)))
    print(f"report: {out / ('report.html' if page else 'README.md')}")


@app.command(epilog="Example: imcsim explain out/demo estimate.energy_pJ")
def explain(
    folder: Annotated[Path, typer.Argument(help="Folder that imcsim run or imcsim sweep wrote.")],
    quantity: Annotated[
        str | None,
        typer.Argument(help="Name of a figure, as estimate.energy_pJ.conv1; without one, what can be asked for."),
    ] = None,
    depth: Annotated[int | None, typer.Option(min=0, help="Steps down the tree; 2, with the greatest parts.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The tree as JSON.")] = False,
) -> None:
    """Say where a figure of a run comes from: what is added and multiplied, by which formula, from which source."""
    from imcsim.report.origins import explained

    print(explained(folder, quantity, depth, as_json=as_json))


@chips.command("list", epilog="Example: imcsim chip list")
def chip_list() -> None:
    """List the chips that come with imcsim."""
    from imcsim.arch.load import load_machine, shipped_chips

    _print_table("Chips", ["name", "kind", "description"],
                 [[name, (c := load_machine(name)).kind, c.description] for name in shipped_chips()])  # fmt: skip


@chips.command("show", epilog="Example: imcsim chip show tim-dnn --set n_tiles=16")
def chip_show(
    name: Annotated[str, typer.Argument(help="Shipped name, or path of a chip file.")], changes: Set = None
) -> None:
    """Show every number of a chip with its source, and what it reaches beside what its paper prints."""
    from imcsim.arch.load import load_machine, parse_override
    from imcsim.report.listing import print_machine

    print_machine(load_machine(name, dict(parse_override(text) for text in changes or [])), _console())


@chips.command("kernel", epilog="Example: imcsim chip kernel tim-dnn tim-8 near-memory-iso-capacity")
def chip_kernel(
    names: Annotated[list[str], typer.Argument(help="Shipped names, or paths of chip files; ratios are to the first.")],
    rows: Annotated[int, typer.Option(help="Inputs of the vector.")] = 16,
    columns: Annotated[int, typer.Option(help="Outputs.")] = 256,
) -> None:
    """Show what one vector-matrix product takes on a tile of each chip: time, and energy against zero products."""
    import numpy as np

    from imcsim.arch.load import load_chip
    from imcsim.costs.kernel import kernel
    from imcsim.report.listing import print_kernels

    zeros = np.linspace(0, 1, 11)
    print_kernels([kernel(load_chip(name), zeros, n_rows=rows, n_columns=columns) for name in names], _console())


@chips.command("check", epilog="Example: imcsim chip check my-chip.yaml")
def chip_check(file: Annotated[str, typer.Argument(help="Shipped name, or path of a chip file.")]) -> None:
    """Check a chip file and say what is wrong with it."""
    from imcsim.arch.load import load_machine

    chip = load_machine(file)
    print(f"{file}: {chip.name} is well formed")


@chips.command("schema", epilog="Example: imcsim chip schema > chip.schema.json")
def chip_schema() -> None:
    """Print the JSON Schema of chip files, for editors."""
    import json

    from imcsim.arch.load import chip_schema

    print(json.dumps(chip_schema(), indent=2))


@workloads.command("list", epilog="Example: imcsim workload list")
def workload_list() -> None:
    """List the workloads that come with imcsim."""
    from imcsim.workloads import find_workload, shipped_workloads

    found = [find_workload(name) for name in shipped_workloads()]
    _print_table("Workloads", ["name", "data set", "description"],
                 [[w.name, w.said("DATASET"), w.description] for w in found])  # fmt: skip


@workloads.command("show", epilog="Example: imcsim workload show digits-ternary-cnn")
def workload_show(
    name: Annotated[
        str, typer.Argument(help="Shipped name, or path of a folder with a workload.py, or of an ONNX file.")
    ],
    assume: Assume = None,
) -> None:
    """Show the layers of a workload: shapes, precisions, MACs, weights, planes, sparsity."""
    from imcsim.report.listing import print_workload
    from imcsim.run import ends_record, layer_record
    from imcsim.workloads import find_workload

    found = find_workload(name, assume=assume)
    graph = found.graph()
    layers = [layer_record(graph, op) for op in graph.ops]
    print_workload(found.name, found.description, ends_record(graph), layers, _console())


@quantizers.command("list", epilog="Example: imcsim quantizer list --json")
def quantizer_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of records as JSON.")] = False,
) -> None:
    """List every published method: levels, granularity of scales, planes, what it is."""
    from imcsim.quant.methods import records

    known = records()
    if as_json:
        import json

        print(json.dumps([record.to_json() for record in known], indent=2, ensure_ascii=False))
        return
    columns = ["id", "name", "weights", "activations", "granularity", "planes", "role"]
    _print_table("Methods", columns, [[str(getattr(record, column)) for column in columns] for record in known])


@quantizers.command("show", epilog="Example: imcsim quantizer show lsq")
def quantizer_show(name: Annotated[str, typer.Argument(help="Id or name: M5, lsq.")]) -> None:
    """Show one method: paper, formula, planes, what the tile needs, what is not exact, its options."""
    from imcsim.report.listing import print_method

    print_method(name, _console())


@app.command(
    epilog="Example: imcsim train fashion-cnn --quantizer lsq --samples 3000 --epochs 2 --out out/lsq",
)
def train(
    workload: Annotated[
        str,
        typer.Argument(
            help="A workload that takes a method: digits-cnn, which needs no data folder, fashion-cnn, mnist-cnn ..."
        ),
    ],
    quantizer: Annotated[
        str,
        typer.Option(
            metavar="NAME[:OPTION=VALUE,...]",
            help="Id or name of a method, or float: lsq:bits_w=2,bits_a=3; of the third layer alone: 3.bits_a=8.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the trained network, itself a workload for imcsim run.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 6,
    samples: Annotated[int | None, typer.Option(help="Training images, drawn once; all by default.")] = None,
    batch: Annotated[int, typer.Option(help="Images of one step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="Greatest learning rate of the cosine.")] = 0.002,
    seed: Annotated[int, typer.Option(help="Of weights, order, augmentation and draws of the method.")] = 0,
    start: Annotated[
        str, typer.Option(metavar="float|scratch|DIR", help="Train with real weights first, or not, or go on from DIR.")
    ] = "float",
    augment: Annotated[
        str, typer.Option(metavar="none|mirror|shift|both", help="What is done to the training images.")
    ] = "none",
    distillation: Annotated[
        float, typer.Option(help="Weight of the divergence from the float network's outputs; 0: labels alone.")
    ] = 0.0,
    data: Annotated[Path | None, typer.Option(help="Folder of data sets; otherwise IMCSIM_DATA.")] = None,
) -> None:
    """Train a workload with a published method; stopped, the same command goes on where it was."""
    from imcsim.quant.methods import find_method
    from imcsim.train import Settings
    from imcsim.train import train as train_it
    from imcsim.workloads import find_workload

    method = find_method(quantizer)
    settings = Settings(n_epochs=epochs, batch_size=batch, learning_rate=learning_rate, seed=seed, n_train=samples,
                        start=start, augment=augment, distillation=distillation)  # fmt: skip
    with _progress() as progress:
        trained = train_it(find_workload(workload), method, settings, out, data=data, progress=progress)
    console = _console()
    console.print(
        f"{workload} by {method}: validation {max(trained.validation):.2%}, test {trained.test_accuracy:.2%} of "
        f"{trained.n_test}",
        highlight=False,
    )
    console.print(f"imcsim run {out} --out DIR", soft_wrap=True, highlight=False)


app.command(
    epilog="Example: imcsim quantize digits-float-cnn --weights ternary --activations 4 --out out/ternary.onnx"
)(quantize)


@circuits.command("show", epilog="Example: imcsim circuit show tim-dnn --samples 20000 --out out/circuit")
def circuit_show(
    name: Annotated[str, typer.Argument(help="Shipped name, or path of a chip file.")],
    changes: Set = None,
    samples: Annotated[int, typer.Option(help="Monte Carlo samples of each count.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of every generator that draws.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the error table and the figure.")] = None,
) -> None:
    """Show the bitline of a chip: voltages, margins, and how often each count is misread."""
    from imcsim.arch.load import load_chip, parse_override
    from imcsim.circuit.sensing import sense
    from imcsim.errors import ConfigError
    from imcsim.report.circuit import print_circuit, write_circuit_figure
    from imcsim.results import write_whole

    chip = load_chip(name, dict(parse_override(text) for text in changes or []))
    if chip.circuit is None:
        raise ConfigError(f"{name}: circuit: must be described to draw misreads, got nothing")
    count_max = min(chip.tile.count_max, chip.tile.rows_per_access)
    found = sense(chip.circuit, n_cells=chip.tile.rows_per_access, n_samples=samples, seed=seed, n_threads=2)
    print_circuit(chip.circuit, found, _console(), count_max=count_max)
    if out is not None:
        write_whole(out / "misreads.csv", found.table.clipped(count_max).to_csv())
        for path in write_circuit_figure(chip.circuit, found, out, count_max=count_max):
            print(f"figure: {path}")
