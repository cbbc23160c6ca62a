"""Where every figure of a run comes from: trees of what is added and multiplied, down to keys, formulas and sources.

A node says its value, how it follows from its children (a sum, a product, a quotient; or words alone), and what it
rests on. `check` holds every node against its children, so that a tree is never a story beside the numbers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, partial
from math import isclose, prod
from typing import Any, Literal, get_args

from pydantic import BaseModel

from imcsim.arch.spec import Basis
from imcsim.errors import ConfigError
from imcsim.report.load import RunFolder, Summary
from imcsim.report.origin_parts import Origins, TimePart, read_origins
from imcsim.report.totals import ABOUT_TIME, ENGINES, interval_95
from imcsim.results import Row

Join = Literal["", "sum", "product", "quotient"]

NAMED = {"", "chip_description", "command", "version", "engine", "policy", "style"}
"""Keys of a summary that say what ran and are no figures."""


@dataclass(frozen=True)
class Node:
    """One number and where it comes from."""

    name: str
    value: float | int | str | bool
    unit: str = ""

    how: str = ""
    """In words, with the numbers in it."""

    basis: str = ""
    source: str = ""
    join: Join = ""
    """How the value follows from those of the children; nothing where they only say more about it."""

    children: tuple["Node", ...] = ()

    def check(self) -> list[str]:
        """Return the names of the nodes, this one or below it, whose children do not give their value."""
        wrong = [name for child in self.children for name in child.check()]
        return wrong if self._holds() else [self.name, *wrong]

    def _holds(self) -> bool:
        values = [child.value for child in self.children if isinstance(child.value, int | float)]
        if not self.join:
            return True
        if not isinstance(self.value, int | float) or len(values) != len(self.children):
            return False
        if self.join == "quotient":
            found = values[0] / values[1] if values[1] else 0.0
        else:
            found = sum(values) if self.join == "sum" else prod(values)
        return isclose(found, self.value, rel_tol=1e-9, abs_tol=1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as plain values, without what is empty."""
        said = {"name": self.name, "value": self.value, "unit": self.unit, "how": self.how, "basis": self.basis,
                "source": self.source, "join": self.join}  # fmt: skip
        kept: dict[str, Any] = {key: value for key, value in said.items() if value != "" or key == "value"}
        return kept | ({"children": [child.to_dict() for child in self.children]} if self.children else {})


# Asking


class Asked:
    """A run folder that answers where its figures come from."""

    def __init__(self, run: RunFolder, origins: Origins | None = None) -> None:
        self.run, self.summary = run, run.summary
        self.origins = origins or read_origins(run.folder)

    def explain(self, name: str) -> Node:
        """Return the tree of the figure *name*; raises ConfigError, with near matches, where there is none."""
        make = self.makers.get(name)
        if make is None:
            near = get_close_matches(name, self.makers, n=3, cutoff=0.5) or list(self.headlines)[:3]
            raise ConfigError(
                f"{self.run.folder}: must be asked for a figure that it holds, got {name!r}; "
                f"did you mean {' or '.join(near)}?"
            )
        return make()

    @cached_property
    def headlines(self) -> dict[str, Node]:
        """The figures of ``summary.json`` that are not of one layer, each without its children."""
        return {name: _leaf(name, value, self.meanings.get(name, "")) for name, value in self.figures.items()
                if not name.startswith("layers.")}  # fmt: skip

    @cached_property
    def figures(self) -> dict[str, float | int | str | bool]:
        """Every number of ``summary.json`` by its dotted name; layers by theirs."""
        found: dict[str, float | int | str | bool] = {}
        _flatten(self.summary.model_dump(exclude={"layers"}), "", found)
        for layer in self.summary.layers:
            _flatten(layer.model_dump(exclude={"occupancy"}), f"layers.{layer.name}", found)
        return found

    @cached_property
    def meanings(self) -> dict[str, str]:
        """What each figure is, as the records of a summary say."""
        found: dict[str, str] = {}
        _meanings(Summary, "", found)
        return found | MEANINGS

    @cached_property
    def makers(self) -> dict[str, Callable[[], Node]]:
        """Every name that can be asked for, and what makes its tree."""
        makers: dict[str, Callable[[], Node]] = {
            name: partial(_leaf, name, value, self._meaning(name)) for name, value in self.figures.items()
        }
        for engine in ENGINES:
            if self._rows(engine):
                makers |= self._of_engine(engine, engine, "inference")
        for engine in ENGINES:
            if self.summary.setup is not None and self._rows(engine, "setup"):
                makers |= self._of_engine("setup", engine, "setup")
                break
        if self.summary.area_um2 is not None:
            makers["area_um2"] = self._area
            makers |= {f"area_um2.{row.component}": partial(self._area_of, row) for row in self._area_rows}
        if self.summary.estimate is not None and self.summary.estimate.throughput_per_s:
            makers["estimate.throughput_per_s"] = self._throughput
        makers |= self._of_basis()
        makers |= self._of_accuracy()
        return makers

    def _meaning(self, name: str) -> str:
        if name.startswith("layers."):
            layer = next(layer.name for layer in self.summary.layers if name.startswith(f"layers.{layer.name}."))
            return self.meanings.get("layers." + name.removeprefix(f"layers.{layer}."), "")
        return self.meanings.get(name, "")

    # Rows

    @cached_property
    def _rows_of(self) -> dict[tuple[str, str], list[Row]]:
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.run.rows:
            if row.action != "area":
                found.setdefault((row.engine, row.phase), []).append(row)
        return found

    def _rows(self, engine: str, phase: str = "inference") -> list[Row]:
        return self._rows_of.get((engine, phase), [])

    @cached_property
    def _area_rows(self) -> list[Row]:
        rows = [row for row in self.run.rows if row.action == "area"]
        return [row for row in rows if row.engine == rows[0].engine]

    def _of_engine(self, head: str, engine: str, phase: str) -> dict[str, Callable[[], Node]]:
        """Energies, times and counts of one engine: whole, by layer, by component, by both."""
        rows = self._rows(engine, phase)
        spending = [row for row in rows if row.action not in ABOUT_TIME]
        makers: dict[str, Callable[[], Node]] = {}
        energy, latency = f"{head}.energy_pJ", f"{head}.latency_ns"
        makers[energy] = partial(self._energy, energy, spending, head)
        for layer in dict.fromkeys(row.layer for row in spending):
            of_layer = [row for row in spending if row.layer == layer]
            makers[f"{energy}.{layer}"] = partial(self._energy_rows, f"{energy}.{layer}", of_layer, "rows of the layer")
            for component in dict.fromkeys(row.component for row in of_layer):
                both = [row for row in of_layer if row.component == component]
                name = f"{energy}.{layer}.{component}"
                makers[name] = partial(self._energy_rows, name, both, "rows of the component in the layer")
        for component in dict.fromkeys(row.component for row in spending):
            of_component = [row for row in spending if row.component == component]
            name = f"{energy}.{component}"
            makers[name] = partial(self._energy_rows, name, of_component, "rows of the component, all layers")
        if any(row.action == "time" for row in rows):
            makers[latency] = partial(self._latency, latency, rows, engine)
            for row in rows:
                if row.action == "time":
                    name = f"{latency}.{row.layer}"
                    makers[name] = partial(self._layer_time, name, row, rows, engine)
        counted = {(row.layer, row.action): row for row in spending if row.action != "leak"}
        for (layer, action), row in counted.items():
            makers[f"{head}.count.{layer}.{action}"] = partial(self._count, f"{head}.count.{layer}.{action}", row)
        for action in dict.fromkeys(action for _, action in counted):
            of_action = [row for row in counted.values() if row.action == action]
            makers[f"{head}.count.{action}"] = partial(self._counts, f"{head}.count.{action}", of_action)
        return makers

    # Energy

    def _energy(self, name: str, rows: Sequence[Row], head: str) -> Node:
        layers = dict.fromkeys(row.layer for row in rows)
        children = [self._energy_rows(f"{name}.{layer}", [row for row in rows if row.layer == layer],
                                      "rows of the layer") for layer in layers]  # fmt: skip
        return _joined(name, "pJ", "sum of layers", "sum", children, value=self.figures.get(name))

    def _energy_rows(self, name: str, rows: Sequence[Row], words: str) -> Node:
        one_layer = len({row.layer for row in rows}) == 1
        children = [self._energy_row(row, one_layer=one_layer) for row in rows]
        return _joined(name, "pJ", f"sum of {len(rows)} {words}", "sum", children)

    def _energy_row(self, row: Row, *, one_layer: bool) -> Node:
        layer = "" if one_layer else f"{row.layer}: "
        name = f"{layer}{row.component}, {row.action}"
        if row.action == "leak":
            return self._leak(name, row)
        count = self._count("count", row)
        children = [count, self._cost(row)]
        how = f"{row.count:,} {row.action} x {children[1].value:.6g} pJ"
        share = self.origins.relative_energy.get(row.layer, 1.0)
        if row.action == "tile.column_read" and share != 1:
            words = "what the bitlines of the layer discharged, gathered from the samples, relative to the chip file's"
            children.append(Node("relative energy", share, "", words))
            how += f" x {share:.4g} by the discharges gathered"
        if isinstance(count.how, str) and count.how:
            how += f"; {row.count:,} = {count.how}"
        return Node(name, row.energy_pJ, "pJ", how, row.basis, "", "product", tuple(children))

    def _leak(self, name: str, row: Row) -> Node:
        area = self.origins.area(row.component)
        time_ns = self._time_of(row)
        if area is None or time_ns is None:
            return Node(name, row.energy_pJ, "pJ", "what it leaks while the layer runs", row.basis, row.source)
        power = Node(f"leakage of {row.component}", area.leakage_mW, "mW", _keys_text(area.keys, "leakage_mW"),
                     area.basis, area.source)  # fmt: skip
        time = Node(f"time of {row.layer}", time_ns, "ns", f"what the layer adds: {row.engine}.latency_ns.{row.layer}")
        how = f"{area.leakage_mW:.6g} mW x {time_ns:.6g} ns"
        return Node(name, row.energy_pJ, "pJ", how, row.basis, "", "product", (power, time))

    def _time_of(self, row: Row) -> float | None:
        rows = self._rows(row.engine, row.phase)
        return next((each.latency_ns for each in rows if each.action == "time" and each.layer == row.layer), None)

    def _cost(self, row: Row) -> Node:
        cost = self.origins.cost(row.action, row.component)
        if cost is None:
            value = row.energy_pJ / row.count if row.count else 0.0
            return Node(f"cost of {row.action}", value, "pJ", "", row.basis, row.source)
        keys = tuple(Node(key, value, _unit(key), "in the chip file") for key, value in cost.keys.items())
        return Node(f"cost of {row.action}", cost.energy_pJ, "pJ", cost.formula, cost.basis, cost.source, "", keys)

    # Counts

    def _counts(self, name: str, rows: Sequence[Row]) -> Node:
        children = [self._count(f"{name.removesuffix(row.action)}{row.layer}.{row.action}", row) for row in rows]
        return _joined(name, "", "sum of layers", "sum", children)

    def _count(self, name: str, row: Row) -> Node:
        counts = self.origins.setup if row.phase == "setup" else self.origins.counts
        terms = counts.get(row.layer, {}).get(row.action)
        if terms is None:
            return Node(name, row.count, "", f"how often {row.layer} does {row.action}")
        hows = self.origins.factors.get(row.layer, {})
        children = []
        for sign, factors in terms:
            of = tuple(Node(factor, n, "", _how_text(hows.get(factor))) for factor, n in factors)
            words = " x ".join(f"{n:,} {factor}" for factor, n in factors)
            name_of_term = "left out" if sign < 0 else "done"
            minus = (Node("left out", -1),) if sign < 0 else ()
            children.append(Node(name_of_term, sign * prod(n for _, n in factors), "", words, join="product",
                                 children=(*minus, *of)))  # fmt: skip
        how = " + ".join(str(child.how) if child.name == "done" else f"(-1) x {child.how}" for child in children)
        if len(children) == 1 and terms[0][0] > 0:
            return Node(name, row.count, "", how, join="product", children=children[0].children)
        return Node(name, row.count, "", how, join="sum", children=tuple(children))

    # Time

    def _latency(self, name: str, rows: Sequence[Row], engine: str) -> Node:
        children = [self._layer_time(f"{name}.{row.layer}", row, rows, engine) for row in rows if row.action == "time"]
        how = "sum of what the layers add, each from the end of all before it to its own end"
        if engine == "simulate":
            how += ": played event by event, in whole picoseconds"
        if engine == "simulate" and self.summary.time is not None:
            how = f"{' '.join(self.summary.time.sentences)} It is the {how}"
        return _joined(name, "ns", how, "sum", children, value=self.figures.get(name))

    def _layer_time(self, name: str, row: Row, rows: Sequence[Row], engine: str) -> Node:
        busy = {each.component: each.busy_ns for each in rows if each.action == "busy" and each.layer == row.layer}
        works_ns = busy.get(row.component, 0.0)
        bound = f"bound by {row.component}, whose busiest unit works {works_ns:.6g} ns"
        if works_ns < max(busy.values(), default=0.0):
            bound += "; with the time until its results are out it holds the layer longest"
        works = Node(
            "busiest units", len(busy), "", "how long the busiest unit of each component works for the layer",
            children=tuple(Node(component, ns, "ns", self._busy_text(row, component, ns)) for component, ns in
                           sorted(busy.items(), key=lambda item: -item[1])),
        )  # fmt: skip
        parts = self.origins.times.get(row.layer, ()) if row.phase == "inference" else ()
        if engine == "estimate" and parts:
            told = tuple(self._part(part) for part in parts)
            chain = Node("by formula", row.latency_ns, "ns", CHAIN, join="sum", children=told)
            return Node(name, row.latency_ns, "ns", bound, children=(chain, works))
        if not parts:
            return Node(name, row.latency_ns, "ns", bound, children=(works,))
        told = tuple(self._part(part) for part in parts)
        formula_ns = sum(part.time_ns for part in parts)
        formula = Node("by formula", formula_ns, "ns", f"for comparison, {CHAIN}", join="sum", children=told)
        return Node(name, row.latency_ns, "ns", bound, children=(formula, works))

    def _throughput(self) -> Node:
        told = self.summary.estimate
        assert told is not None, "asked only where it was estimated"
        rate = told.throughput_per_s or 0.0
        set_by = f"set by: {told.throughput_bound_by}" if told.throughput_bound_by else ""
        period = Node(
            "period", 1e9 / rate, "ns", f"from one inference to the next, where requests never run out; {set_by}"
        )
        second = Node("a second", 1e9, "ns")
        return Node("estimate.throughput_per_s", rate, "1/s", "a second / period", join="quotient",
                    children=(second, period))  # fmt: skip

    def _busy_text(self, row: Row, component: str, ns: float) -> str:
        share = f"{100 * ns / row.latency_ns:.1f} % of what the layer adds" if row.latency_ns else ""
        return share + (", bounds it" if component == row.component else "")

    def _part(self, part: TimePart) -> Node:
        interval = self.origins.intervals_ns.get(part.action)
        how = part.words
        if part.action and interval:
            n = part.work_ns / interval
            how += f"; of {part.action}, {n:.6g} in the busiest unit x {interval:.6g} ns = {part.work_ns:.6g} ns in all"
        return Node(part.component or "time steps", part.time_ns, "ns", how)

    # Area

    def _area(self) -> Node:
        if not self._area_rows:
            return _leaf("area_um2", self.figures["area_um2"], "sum of all components of the chip")
        children = [self._area_of(row) for row in self._area_rows]
        return _joined("area_um2", "um2", "sum of components", "sum", children, value=self.figures.get("area_um2"))

    def _area_of(self, row: Row) -> Node:
        name, area = f"area_um2.{row.component}", self.origins.area(row.component)
        key = next((key for key in area.keys if key.endswith("area_um2")), None) if area is not None else None
        if area is None or key is None or not area.keys[key]:
            return Node(name, row.area_um2, "um2", f"{row.count} instances", row.basis, row.source)
        one, times = area.keys[key], row.area_um2 / area.keys[key]
        children = (Node(key, one, "um2", "in the chip file", area.basis, area.source),
                    Node("times", times, "", "as many, and scaled in size by imcsim.costs"))  # fmt: skip
        how = f"{one:.6g} um2 x {times:.6g}, {row.count} instances"
        return Node(name, row.area_um2, "um2", how, row.basis, "", "product", children)

    # Shares and accuracy

    def _of_basis(self) -> dict[str, Callable[[], Node]]:
        makers: dict[str, Callable[[], Node]] = {}
        engine = next((engine for engine in ENGINES if self._rows(engine)), None)
        spending = [row for row in self._rows(engine or "") if row.action not in ABOUT_TIME]
        for basis in get_args(Basis):
            if self.summary.basis and basis in self.summary.basis and spending:
                makers[f"basis.{basis}"] = partial(self._share, f"basis.{basis}", basis, spending, "energy_pJ", "pJ")
            if self.summary.basis_area and basis in self.summary.basis_area and self._area_rows:
                makers[f"basis_area.{basis}"] = partial(
                    self._share, f"basis_area.{basis}", basis, self._area_rows, "area_um2", "um2"
                )
        return makers

    def _share(self, name: str, basis: str, rows: Sequence[Row], column: str, unit: str) -> Node:
        sums: dict[tuple[str, str, str], float] = {}
        for row in rows:
            if row.basis == basis:
                key = (row.component, row.action, row.source)
                sums[key] = sums.get(key, 0.0) + getattr(row, column)
        parts = tuple(
            Node(f"{component}, {action}", value, unit, "all layers", basis, source)
            for (component, action, source), value in sorted(sums.items(), key=lambda item: -item[1])
        )
        part = Node(f"{column} that is {basis}", sum(sums.values()), unit, "sum of rows", join="sum", children=parts)
        whole = Node(f"{column} in all", sum(getattr(row, column) for row in rows), unit, "sum of all rows")
        how = f"share of the {column.partition('_')[0]} whose numbers are {basis}: {BASIS_WORDS[basis]}"
        return Node(name, self.figures[name], "", how, join="quotient", children=(part, whole))

    def _of_accuracy(self) -> dict[str, Callable[[], Node]]:
        makers: dict[str, Callable[[], Node]] = {}
        told = self.summary.accuracy
        if told is None:
            return makers
        for side in ("reference", "chip"):
            makers[f"accuracy.{side}"] = partial(self._right, side, getattr(told, side), told.n_samples)
        if told.difference is not None:
            makers["accuracy.difference.value"] = partial(self._difference, told.chip, told.reference)
        for count in ("n_clipped_accesses", "n_accesses", "n_clipped_conversions", "n_conversions"):
            if any(getattr(layer, count) is not None for layer in self.summary.layers):
                makers[f"accuracy.{count}"] = partial(self._over_layers, count)
        return makers

    def _right(self, side: str, share: float, n_samples: int) -> Node:
        low, high = interval_95(share, n_samples)
        who = (
            "the ideal network (integer reference)" if side == "reference" else "what the chip gives, clipping included"
        )
        what = "samples (tokens) whose greatest output is the label's"
        how = f"share right of {who}; 95 % interval {100 * low:.2f} to {100 * high:.2f} % (Wilson)"
        children = (Node("right", round(share * n_samples), "", what),
                    Node("n_samples", n_samples, "", "executed, from the first of the test set"))  # fmt: skip
        return Node(f"accuracy.{side}", share, "", how, join="quotient", children=children)

    def _difference(self, chip: float, reference: float) -> Node:
        name = "accuracy.difference.value"
        children = (Node("accuracy.chip", chip), Node("accuracy.reference, taken away", -reference))
        return Node(name, self.figures[name], "", self.meanings[name], join="sum", children=children)

    def _over_layers(self, count: str) -> Node:
        layers = [layer for layer in self.summary.layers if getattr(layer, count) is not None]
        children = [Node(f"layers.{layer.name}.{count}", getattr(layer, count), "", "counted while executing")
                    for layer in layers]  # fmt: skip
        return _joined(f"accuracy.{count}", "", "sum of layers on tiles, all samples", "sum", children,
                       value=self.figures.get(f"accuracy.{count}"))  # fmt: skip


CHAIN = (
    "the chain of units: what fills those before the slowest, its work, what drains those behind, results on their way"
)

BASIS_WORDS = {
    "published": "read in the named source",
    "recalled": "attributed to the source, not read there",
    "derived": "follow from others",
    "fitted": "fitted to published figures",
    "assumed": "assumptions, each with its reason",
}

MEANINGS = {
    "estimate.least_ns": "no order of the work is faster: the busiest units of the layers, one layer after the other",
    "estimate.greatest_ns": "all work of all units, one after the other",
    "seed": "of every generator that draws",
    "n_tiles": "tiles of the chip",
    "area_um2": "sum of all components of the chip",
    "check.exact": "whether every output is the reference's, bit for bit",
    "check.n_outputs": "outputs of all samples that were executed",
    "check.n_different": "outputs that are not the reference's, bit for bit",
    "accuracy.n_samples": "samples executed",
    "accuracy.difference.value": "accuracy of the chip less that of the reference, on the same samples",
    "energy_interval_pJ.0": "5 % of the draws from the chip file's stated ranges lie below",
    "energy_interval_pJ.1": "5 % of the draws from the chip file's stated ranges lie above",
    "layers.n_accesses_per_inference": "tile.access of the layer: ask for estimate.count.LAYER.tile.access",
    "layers.n_macs": "multiply-adds of one sample: rows x columns x places of the output",
    "layers.n_weights": "weights of the layer",
    "layers.n_rounds": "how often the tiles are filled anew for the layer",
    "layers.n_tiles": "tiles that ever hold a part of the layer",
    "layers.n_replicas": "copies of the layer's weights",
    "layers.n_row_chunks": "parts that the rows of a group are cut into",
}
"""Of figures whose records do not say it themselves."""


def _joined(name: str, unit: str, how: str, join: Join, children: Iterable[Node], value: object = None) -> Node:
    children = tuple(children)
    numbers = [child.value for child in children if isinstance(child.value, int | float)]
    total = value if isinstance(value, int | float) else sum(numbers)
    return Node(name, total, unit, how, join=join, children=children)


def _leaf(name: str, value: float | int | str | bool, how: str) -> Node:
    return Node(name, value, _unit(name), how)


def _unit(name: str) -> str:
    for unit in ("pJ_per_bit", "pJ", "ns", "um2", "mW", "per_s", "dB"):
        if name.endswith(f"_{unit}"):
            return {"per_s": "1/s", "pJ_per_bit": "pJ"}.get(unit, unit)
    return ""


def _keys_text(keys: Mapping[str, float], name: str) -> str:
    return "".join(f"from {key} = {value:.6g} in the chip file" for key, value in keys.items() if key.endswith(name))


def _how_text(how: tuple[str, str] | None) -> str:
    if how is None:
        return ""
    words, numbers = how
    return f"{words} = {numbers}" if numbers else words


def _flatten(tree: object, name: str, found: dict[str, float | int | str | bool]) -> None:
    """Put every number and word of *tree* into *found* under its dotted name."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            _flatten(value, f"{name}.{key}" if name else str(key), found)
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            label = value["name"] if isinstance(value, Mapping) and "name" in value else i
            _flatten(value, f"{name}.{label}", found)
    elif isinstance(tree, int | float | str) and not (name in NAMED or name.endswith(".name")):
        found[name] = tree


def _meanings(model: type[BaseModel], name: str, found: dict[str, str]) -> None:
    """Put what the fields of *model* say of themselves into *found* under their dotted names."""
    for key, info in model.model_fields.items():
        at = f"{name}.{key}" if name else key
        if info.description:
            found[at] = " ".join(info.description.split())
        for inner in _models_in(info.annotation):
            _meanings(inner, at, found)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)
