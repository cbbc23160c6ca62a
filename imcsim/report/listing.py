"""A chip and a workload as tables on a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imcsim.arch.macros import Macro
from imcsim.arch.spec import Chip, Machine
from imcsim.costs.kernel import Kernel
from imcsim.costs.macro import macro_figures
from imcsim.costs.price import price
from imcsim.report.chip import ChipRow, chip_tables, parameters, peak_rows
from imcsim.units import UM2_PER_MM2, human, percent

FOR_PEOPLE = {"um2": (1 / UM2_PER_MM2, "mm2"), "mW": (1e-3, "W")}
"""Units in which people read the figures of a whole chip."""


def print_machine(machine: Machine, console: Console) -> None:
    """Print every number of *machine* with its basis and source; of a chip also costs of actions and peaks."""
    console.print(f"{machine.name}: {machine.description}")
    if not isinstance(machine, Chip):
        print_rows("Parameters", list(parameters(machine)), console)
        if isinstance(machine, Macro):
            print_macro(machine, console)
        return
    titles = {"parameters": "Parameters", "costs": "Energy of actions", "timings": "Times of actions",
              "areas": "Area and leakage"}  # fmt: skip
    for name, rows in chip_tables(machine, price(machine)).items():
        print_rows(titles.get(name, name), rows, console)
    print_peaks(machine, console)


def print_macro(macro: Macro, console: Console) -> None:
    """Print what *macro* reaches by its parts and by our models, beside what its paper prints."""
    table = Table(title="Ours, beside what the paper prints", title_justify="left")
    table.add_column("figure", no_wrap=True)
    for name in ("ours", "unit", "printed", "error"):
        table.add_column(name, justify="left" if name == "unit" else "right", no_wrap=True)
    for name in ("printed figure is", "ours is"):
        table.add_column(name)
    table.add_column("how", overflow="fold")
    for figure in macro_figures(macro):
        printed = "" if figure.printed is None else f"{figure.printed:.5g}"
        error = "" if figure.error is None else f"{100 * figure.error:+.1f} %"
        table.add_row(figure.name, f"{figure.value:.5g}", figure.unit, printed, error, figure.printed_basis or "",
                      figure.role, figure.how)  # fmt: skip
    console.print(table)


def print_rows(title: str, rows: list[ChipRow], console: Console) -> None:
    """Print numbers of a chip as a table."""
    table = Table(title=title, title_justify="left")
    table.add_column("key", no_wrap=True)
    table.add_column("value", justify="right", overflow="fold", max_width=24)
    table.add_column("unit")
    has_basis = any(row.basis for row in rows)
    if has_basis:
        table.add_column("basis")
        table.add_column("within", justify="right")
        table.add_column("source", overflow="fold")
    for row in rows:
        line = [row.key, shown_value(row.value), row.unit]
        if has_basis:
            line += [row.basis or "", f"x{row.within_factor:g}" if row.within_factor else "", row.source]
        table.add_row(*line)
    console.print(table)


def shown_value(value: object) -> str:
    """Return a number, a text or several of them for a table."""
    if isinstance(value, tuple):
        return ", ".join(map(shown_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_kernels(kernels: list[Kernel], console: Console) -> None:
    """Print the time of one product on each chip, and its energy against the share of zeros; ratios are to the first.

    All *kernels* have the same shape and the same shares.
    """
    first = kernels[0]
    table = Table(title=f"{first.n_rows} inputs times {first.n_rows} x {first.n_columns} weights", title_justify="left")
    table.add_column("")
    for each in kernels:
        table.add_column(each.chip, justify="right")
    table.add_row("accesses", *(str(each.n_accesses) for each in kernels))
    table.add_row("time", *(f"{each.time_ns:.4g} ns (x {each.time_ns / first.time_ns:.3g})" for each in kernels))
    for z, (zeros, outputs) in enumerate(zip(first.zero_products, first.zero_outputs, strict=True)):
        energies = ((each.energy_pJ[z], each.energy_pJ[z] / first.energy_pJ[z]) for each in kernels)
        table.add_row(
            f"{percent(zeros, digits=0)} zero products, {percent(outputs, digits=0)} zero outputs",
            *(f"{energy_pJ:.4g} pJ (x {ratio:.3g})" for energy_pJ, ratio in energies),
        )
    console.print(table)


def print_peaks(chip: Chip, console: Console) -> None:
    """Print what *chip* reaches at full rate, beside what its paper prints."""
    table = Table(title="At full rate, beside what the paper prints", title_justify="left")
    table.add_column("figure", no_wrap=True)
    for name in ("ours", "unit", "printed", "difference"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    table.add_column("printed figure is")
    table.add_column("rests on")
    table.add_column("how", overflow="fold")
    for row in peak_rows(chip, price(chip)):
        rests = ", ".join(f"{basis} {share:.0f} %" for basis, share in row.shares_percent.items() if share >= 0.5)
        scale, unit = FOR_PEOPLE.get(row.unit, (1.0, row.unit))
        table.add_row(
            row.name.removesuffix(f"_{row.unit}"),
            f"{row.value * scale:.5g}",
            unit,
            "" if row.printed is None else f"{row.printed * scale:.5g}",
            "" if row.difference_percent is None else f"{row.difference_percent:+.2f} %",
            row.printed_basis or "",
            rests,
            row.formula,
        )
    console.print(table)


def print_workload(
    name: str, description: str, ends: dict[str, list[dict[str, str]]], layers: list[dict[str, Any]], console: Console
) -> None:
    """Print what goes into a workload and comes out, and its layers: shapes, precisions, MACs, planes, sparsity."""
    console.print(f"{name}: {description}")
    for what, tensors in ends.items():
        judged = "; judged by the first" if what == "outputs" and len(tensors) > 1 else ""
        listed = ", ".join(f"{tensor['name']} ({tensor['shape']})" for tensor in tensors)
        console.print(Text(f"{what + ':':<8} {listed}{judged}"))  # brackets may be part of names
    table = Table(title="Layers", title_justify="left")
    for column, justify in (
        ("layer", "left"), ("kind", "left"), ("input", "right"), ("output", "right"), ("in", "left"), ("out", "left"),
        ("MACs", "right"), ("weights", "right"), ("planes W x A", "right"), ("zero weights", "right"),
        ("steps", "left"),
    ):  # fmt: skip
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for layer in layers:
        on_tiles = "n_macs" in layer
        table.add_row(
            layer["name"],
            layer["kind"],
            layer["input"],
            layer["shape"],
            layer["input_format"],
            layer["output_format"],
            human(layer["n_macs"], "") if on_tiles else "",
            f"{layer['n_weights']:,}" if on_tiles else "",
            f"{layer['weight_planes']} x {layer['activation_planes']}" if on_tiles else "",
            percent(layer["zero_weights"]) if on_tiles else "",
            ", ".join(layer["steps"]),
        )
    n_macs = sum(layer.get("n_macs", 0) for layer in layers)
    n_weights = sum(layer.get("n_weights", 0) for layer in layers)
    table.add_section()
    table.add_row("total", "", "", "", "", "", human(n_macs, ""), f"{n_weights:,}", "", "", "")
    console.print(table)


def print_method(name: str, console: Console) -> None:
    """Print what is known of the method of an id or a name, and its options."""
    from imcsim.quant.methods import find_method, record_of

    record, method = record_of(name), find_method(name)
    table = Table(title=f"{record.id} {record.name}", show_header=False, title_justify="left")
    lines = {
        "title": record.title,
        "paper": record.paper,
        "role": record.role,
        "listed again as": record.same_as and f"the same as {record.same_as}",
        "weights": record.weights,
        "activations": record.activations,
        "scales": f"{record.granularity} (weights / activations)",
        "formula": record.formula,
        "basis of the formula": record.basis,
        "planes": f"{record.planes}; {record.n_planes[0]} x {record.n_planes[1]} with the default options",
        "needs": ", ".join(record.needs) or "planes, scales and thresholds",
        "exact": record.exact,
        "sign(0)": None if record.sign_zero is None else str(record.sign_zero),
        "padding": str(record.pad),
        "scale of activations": record.act_scale,
        "rounding": record.rounding,
        "options": ", ".join(f"{name}={default}" for name, default in method.options().items()) or "none",
        "not of single layers": ", ".join(method.of_network),
    }
    for what, text in lines.items():
        if text:
            table.add_row(what, Text(text))  # brackets are part of formulas
    console.print(table)
