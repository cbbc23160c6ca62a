"""Machines side by side, as tables of text: for the page and the terminal alike."""

from rich.console import Console
from rich.table import Table

from imcsim.comparators.compared import Compared, Comparison
from imcsim.report.palette import MEANING_OF_BASIS
from imcsim.report.views import TableView
from imcsim.units import human, percent

NOTHING = "-"


def title_of(found: Comparison) -> str:
    """Return what is compared, in a line."""
    at = f", all brought to {found.technology}" if found.technology is not None else ""
    return f"{found.workload} on {len(found.rows)} machine{'s' if len(found.rows) > 1 else ''}{at}"


def comparison_table(found: Comparison) -> TableView:
    """Return a line a machine, the least energy first; the basis of each figure stands behind it."""
    head = ("Chip", "Node", "Latency", "is", "Energy", "is", "covers", "obtained", "Inferences/s", "Inferences/s/W",
            "Area", "is", "Notes")  # fmt: skip
    rows = [cells(row) for row in sorted(found.shown, key=lambda row: row.energy_pJ)]
    return TableView("Side by side", head, rows, frozenset({1, 2, 4, 8, 9, 10}))


def cells(row: Compared) -> tuple[str, ...]:
    """Return a line of the table."""
    return (
        row.chip,
        f"{row.node_nm:g} nm",
        human(row.latency_ns, "ns"),
        row.latency_basis,
        human(row.energy_pJ, "pJ"),
        basis_text(row),
        row.energy_covers,
        row.energy_obtained,
        human(row.throughput_per_s, ""),
        human(row.throughput_per_s_per_W, ""),
        NOTHING if row.area_um2 is None else human(row.area_um2, "um2"),
        row.area_basis or "not told",
        "; ".join([*row.notes, *shares_note(row)]),
    )


def basis_text(row: Compared) -> str:
    """Return the weakest of what the energy rests on, with its share where that is known."""
    if row.energy_shares is None:
        return row.energy_basis
    return f"{row.energy_basis} {percent(row.energy_shares[row.energy_basis], digits=0)}"


def shares_note(row: Compared) -> list[str]:
    """Return what the energy rests on, all of it, where the shares are known."""
    if row.energy_shares is None:
        return []
    return ["energy: " + ", ".join(f"{basis} {percent(share, digits=0)}" for basis, share in row.energy_shares.items())]


def caveats(found: Comparison) -> list[str]:
    """Return what a reader must know to read the table."""
    lines = [
        f"{found.workload} has {human(found.n_macs, '')} multiply-adds an inference. A layer of P x Q planes costs P "
        "times Q products on every machine that multiplies planes, and one a weight and input on those that multiply "
        "words. Energies that cover different things (an array, a core, a chip, a board) are not to be divided by each "
        "other.",
        "What a figure rests on is the weakest of its numbers, or shares of the energy: "
        + "; ".join(f"{basis}: {meaning}" for basis, meaning in MEANING_OF_BASIS.items())
        + ".",
    ]
    if found.assumed:
        lines.insert(0, f"Assumed, and not told by the model: {found.assumed}.")
    if found.technology is not None:
        lines.append(
            f"All figures are brought to {found.technology} by the scaling of Stillmaker and Baas (Integration 58, "
            "2017), which is of logic gates: memories, converters, wires and boards scale less. Where a supply is not "
            "told, the nominal one of its node is taken."
        )
    lines += [f"{one.chip} cannot take it: {one.why}." for one in found.refused]
    return lines


def layers_table(row: Compared) -> TableView:
    """Return a line a layer of one machine."""
    head = ("Layer", "MACs", "Products", "Latency", "Energy", "How")
    rows: list[tuple[str, ...]] = [
        (layer.layer, human(layer.n_macs, ""), human(layer.n_products, ""), human(layer.latency_ns, "ns"),
         human(layer.energy_pJ, "pJ"), layer.how)
        for layer in row.layers
    ]  # fmt: skip
    return TableView(f"{row.chip}, in its own technology", head, rows, frozenset({1, 2, 3, 4}))


def print_comparison(found: Comparison, console: Console) -> None:
    """Print the table, without the notes, which follow it a line a machine, and who cannot take the network."""
    view = comparison_table(found)
    table = Table(title=title_of(found), title_justify="left")
    for i, name in enumerate(view.head[:-1]):
        table.add_column(name, justify="right" if i in view.numbers else "left", overflow="fold", no_wrap=i == 0)
    for row in view.rows:
        table.add_row(*row[:-1])
    console.print(table)
    if found.assumed:
        console.print(f"assumed: {found.assumed}", highlight=False, markup=False, soft_wrap=True)
    for name, *_, notes in view.rows:
        console.print(f"{name}: {notes}", highlight=False, markup=False, soft_wrap=True)
    for one in found.refused:
        console.print(f"{one.chip} cannot take it: {one.why}", highlight=False, markup=False, soft_wrap=True)
