"""The command line of post-training quantization: ``imcsim quantize``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from imcsim.cli_terminal import console, print_table, progress

if TYPE_CHECKING:
    from imcsim.post_training.command import Quantized
    from imcsim.post_training.settings import Settings


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            help="A float model: a workload's name or folder, an ONNX file, or FILE.py:NAME of a torch module."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The ONNX file to write, by default NAME-ternary-4.onnx here; its record and test set go beside it."
        ),
    ] = None,
    weights: Annotated[str, typer.Option(help="ternary, binary, or 2 to 8 bits.")] = "ternary",
    activations: Annotated[int, typer.Option(help="Bits of the inputs of layers, 2 to 8.")] = 4,
    edges: Annotated[
        str, typer.Option(help="Bits of weights and inputs of the first and the last layer, 2 to 8; or same.")
    ] = "8",
    calibration: Annotated[
        str, typer.Option(metavar="mse|max|percentile:P", help="How the ranges of activations are found.")
    ] = "mse",
    rounding: Annotated[
        Literal["nearest", "compensated"],
        typer.Option(help="Each weight by itself, or so that weights make up for those rounded before (GPTQ)."),
    ] = "compensated",
    correction: Annotated[
        Literal["none", "bias", "statistics", "scale"],
        typer.Option(
            help="What is set right for each output of a layer: nothing, its mean, its mean and spread, or scale and "
            "bias by least squares."
        ),
    ] = "scale",
    calibration_samples: Annotated[int, typer.Option(help="Calibration samples, drawn by the seed.")] = 512,
    calibration_data: Annotated[
        Path | None, typer.Option(help="An npz file with x to calibrate on; by default what the workload offers.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of data sets, IMCSIM_DATA by default; or an npz file with x and perhaps labels."),
    ] = None,
    state: Annotated[Path | None, typer.Option(help="A .safetensors file with the weights of FILE.py:NAME.")] = None,
    samples: Annotated[int | None, typer.Option(help="Test samples to judge by; all by default.")] = None,
    chip: Annotated[
        str | None, typer.Option(help="Also judge it on this chip: shipped name, or path of a chip file.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the chip: tile.count_max=10. Repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draw of samples.")] = 0,
) -> None:
    """Quantize a trained float model without training it, by calibration samples: a QONNX file, and its accuracy."""
    from imcsim.arch.load import load_chip, parse_override
    from imcsim.errors import ConfigError
    from imcsim.post_training.command import quantize_file
    from imcsim.post_training.settings import Settings

    if edges != "same" and not edges.isdecimal():
        raise ConfigError(f"edges: must be a number of bits or same, got {edges!r}")
    if changes and chip is None:
        raise ConfigError("set: must go with a chip, got none; name one with --chip")
    settings = Settings(
        weights=weights,
        activations=activations,
        edges=None if edges == "same" else int(edges),
        calibration=calibration,
        rounding=rounding,
        correction=correction,
        n_samples=calibration_samples,
        seed=seed,
    )
    described = load_chip(chip, dict(parse_override(text) for text in changes or [])) if chip is not None else None
    with progress() as told:
        made = quantize_file(
            model,
            out or _default_path(model, settings),
            settings,
            state=state,
            data=data,
            calibration_data=calibration_data,
            n_samples=samples,
            chip=described,
            progress=told,
            command=" ".join(["imcsim", *sys.argv[1:]]),
        )
    _print(made)


def _default_path(model: str, settings: "Settings") -> Path:
    """Return the file that is written where none is named: the model's name, and the bits of weights and inputs."""
    name = model.rpartition(":")[2] if ":" in Path(model).name else Path(model).resolve().name.removesuffix(".onnx")
    name = Path(model).resolve().parent.name if name == "workload.py" else name.removesuffix(".py")
    return Path(f"{name}-{settings.weights}-{settings.activations}.onnx")


def _print(made: "Quantized") -> None:
    columns = ["layer", "operator", "weights", "scales", "zeros", "inputs", "scale", "error of outputs"]
    lines = [
        [
            each.layer,
            each.operator,
            each.weights,
            f"{each.least_weight_scale:.3g} to {each.greatest_weight_scale:.3g}",
            f"{each.zeros:.1%}",
            each.inputs,
            f"{each.input_scale:.3g}",
            f"{each.error:.1%}",
        ]
        for each in made.layers
    ]
    print_table(f"{made.name}, quantized", columns, lines)
    said = [f"calibrated on {made.calibration}"]
    found = made.accuracy
    if found is None:
        said.append("accuracy   not measured: there are no labels")
    else:
        chip = f", on {found.chip} {found.on_chip:.2%}" if found.on_chip is not None else ""
        said.append(
            f"accuracy   float {found.original:.2%}, quantized {found.quantized:.2%}{chip} ({found.n_samples} samples)"
        )
    if found is not None and made.samples is None:
        said.append("the test set is too large to be written beside the model; imcsim run tells time and energy")
    said.append(f"imcsim run {made.path} --chip tim-dnn --out DIR")
    for line in said:
        console().print(line, highlight=False, markup=False, soft_wrap=True)
