"""Where a figure of a run comes from, on a terminal and on the page."""

import json
from collections.abc import Iterator
from pathlib import Path

from imcsim.report.load import RunFolder, read_run
from imcsim.report.origin_trees import Asked, Node
from imcsim.report.views import Section
from imcsim.units import human, percent

HUMAN = ("ns", "pJ", "um2", "mW")
MOST_CHILDREN = 8
"""So many parts of a sum a terminal shows, the greatest; the others together."""

PAGE_DEPTH = 3
SHOWN = ("energy_pJ", "latency_ns")


def explained(folder: str | Path, name: str | None, depth: int | None, *, as_json: bool) -> str:
    """Return where the figure *name* of the run *folder* comes from, or without a name what can be asked for.

    *depth* is how far down the tree goes, all parts told; by default two steps with the greatest parts, and for JSON
    all of it.
    """
    asked = Asked(read_run(folder))
    if name is None:
        names = list(asked.makers)
        return json.dumps(names, indent=2, ensure_ascii=False) if as_json else "\n".join(listing(asked))
    node = asked.explain(name)
    if as_json:
        return json.dumps(cut(node, depth).to_dict(), indent=2, ensure_ascii=False)
    return "\n".join(lines(node, 2 if depth is None else depth, most=MOST_CHILDREN if depth is None else None))


def listing(asked: Asked) -> list[str]:
    """Return what can be asked for: the figures of the whole, and how those of layers and components are named."""
    found = [f"{node.name} = {value_text(node)}" for node in asked.headlines.values()]
    rows = [row for row in asked.run.rows if row.action not in ("time", "busy")]
    layers = dict.fromkeys(row.layer for row in rows if row.layer)
    components = dict.fromkeys(row.component for row in rows if row.action != "area")
    actions = dict.fromkeys(row.action for row in rows if row.action not in ("area", "leak"))
    heads = [head for head in ("simulate", "estimate", "setup") if f"{head}.energy_pJ" in asked.makers]
    head = heads[0] if heads else ""
    if head and layers:
        found += [
            "",
            f"of {', '.join(heads)} also {head}.energy_pJ.LAYER, .COMPONENT and .LAYER.COMPONENT, "
            f"{head}.latency_ns.LAYER, {head}.count.ACTION and {head}.count.LAYER.ACTION;",
            "of the area area_um2.COMPONENT; of summary.json's layers layers.LAYER.KEY",
            f"layers: {', '.join(layers)}",
            f"components: {', '.join(components)}",
            f"actions: {', '.join(actions)}",
        ]
    return found


def lines(node: Node, depth: int, *, most: int | None = None, indent: str = "") -> Iterator[str]:
    """Yield *node* and what is below it as indented lines, *depth* steps down.

    Of a sum only the *most* greatest parts are told one by one.
    """
    join = f"({node.join})" if node.join and not node.how.startswith(node.join) else ""
    how = f"{node.how} {join}".strip()
    basis = f" [{node.basis}]" if node.basis else ""
    yield f"{indent}{node.name} = {value_text(node)}{basis}" + (f": {how}" if how else "")
    if node.source:
        yield f"{indent}    source: {node.source}"
    if depth <= 0 or not node.children:
        return
    shown, others = split(node, most)
    for child in shown:
        yield from lines(child, depth - 1, most=most, indent=f"{indent}  ")
    if others:
        total = sum(child.value for child in others if isinstance(child.value, int | float))
        share = f", {percent(total / float(node.value))}" if node.value else ""
        yield f"{indent}  {len(others)} smaller parts = {total:.6g} {node.unit}{share}; --depth tells each"


def split(node: Node, most: int | None) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """Return the children of *node* that are told one by one, and those of a sum that are told together."""
    if most is None or node.join != "sum" or len(node.children) <= most + 1:
        return node.children, ()
    ranked = sorted(node.children, key=lambda child: -abs(float(child.value)))
    kept = {id(child) for child in ranked[:most]}
    return (tuple(child for child in node.children if id(child) in kept),
            tuple(child for child in node.children if id(child) not in kept))  # fmt: skip


def cut(node: Node, depth: int | None) -> Node:
    """Return *node* with what is at most *depth* steps below it; all of it where that is None."""
    if depth is None:
        return node
    children = tuple(cut(child, depth - 1) for child in node.children) if depth > 0 else ()
    return Node(node.name, node.value, node.unit, node.how, node.basis, node.source, node.join, children)


def value_text(node: Node) -> str:
    """Return the value with its unit, and as people say it where that is another number.

    >>> value_text(Node("energy", 12345.0, "pJ")), value_text(Node("tiles", 32)), value_text(Node("rate", 0.25))
    ('12345 pJ (12.35 nJ)', '32', '0.25')
    """
    value = node.value
    if isinstance(value, bool | str):
        return str(value)
    text = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    if not node.unit:
        return text
    said = human(value, node.unit) if node.unit in HUMAN else ""
    text = f"{text} {node.unit}"
    return text if not said or said.split()[-1] == node.unit else f"{text} ({said})"


def origin_sections(run: RunFolder) -> list[Section]:
    """Return the section of the page with the trees of the headline figures; none in a folder of an earlier version."""
    if not (run.folder / "origins.json").exists():
        return []
    asked = Asked(run)
    names = [f"{engine}.{figure}" for engine in ("simulate", "estimate") for figure in SHOWN]
    names += ["setup.energy_pJ", "area_um2"]
    names += [name for name in asked.makers if name.startswith(("basis.", "accuracy."))]
    trees = [cut(asked.explain(name), depth_on_page(name)) for name in names if name in asked.makers]
    paragraphs = [
        "Every figure is a sum, a product or a quotient of others, down to the keys of the chip file; a sum has all "
        "its parts here. imcsim explain FOLDER NAME tells each further: the factors of a count, the formula of a cost, "
        "its source."
    ]
    return [Section("origins", "How each figure is made up", paragraphs, trees=trees)] if trees else []


def depth_on_page(name: str) -> int:
    """Return how many steps of the tree of a figure the page tells: energies down to rows, times to parts."""
    return {"latency_ns": 3, "energy_pJ": 2}.get(name.rpartition(".")[2], 1)
