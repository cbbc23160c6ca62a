"""What the layers of a lowered network ask of any machine: vectors, rows, columns, and planes of what kinds.

The same network stands behind every comparison: a layer of P_W x P_A planes costs P_W * P_A products of planes wherever
operands are planes, and one product a weight and input where they are words (quantizers.md D). Digital layers and the
steps behind a product are not counted here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from imcsim.arch.comparators import Comparator, Operands, Plane
from imcsim.errors import MappingError
from imcsim.graph import Graph, Op
from imcsim.graph.formats import Format

COPIES: dict[Plane, dict[Plane, int]] = {
    "binary": {"binary": 1, "ternary": 1, "bit": 1},
    "ternary": {"ternary": 1, "binary": 2, "bit": 2},
    "bit": {"bit": 1, "ternary": 1, "binary": 1},
}
"""How many planes of each kind a plane is the sum of, a constant aside: ``t = (b1 + b2) / 2 = p - m``, ``b = 2 p - 1``.

The constant times a column's sum of weights, or a vector's sum of inputs, is a correction that is known beforehand or
one count more a vector; it is not counted."""


@dataclass(frozen=True)
class LayerWork:
    """One layer with a product, for one sample."""

    name: str
    n_vectors: int
    """Input vectors: output positions, time steps, 1 for linear."""

    n_rows: int
    """Inputs of one output."""

    window: int
    """Positions of the kernel's window among the rows."""

    n_columns: int
    """Outputs of one group."""

    n_groups: int
    is_recurrent: bool
    """Whether each vector waits for what came of the one before."""

    n_macs: int
    """One a weight and activation."""

    n_inputs: int
    """Numbers that go in."""

    n_weights: int
    weight_planes: tuple[Plane, ...]
    activation_planes: tuple[Plane, ...]
    activation_trits: tuple[Plane, ...]
    """The same as balanced ternary digits, where the codes have several bits."""

    zero_weights: float
    """Share of zeros in the weight planes."""

    @property
    def n_columns_in_all(self) -> int:
        """Outputs of all groups."""
        return self.n_columns * self.n_groups

    @property
    def n_outputs(self) -> int:
        """Numbers that come out."""
        return self.n_vectors * self.n_columns_in_all


@dataclass(frozen=True)
class Lowered:
    """How a machine takes the planes of a layer."""

    weights: Plane
    n_weight_planes: int
    activations: Plane
    n_activation_planes: int
    how: str
    """In words, for people."""

    @property
    def n_passes(self) -> int:
        """Pairs of planes."""
        return self.n_weight_planes * self.n_activation_planes

    @property
    def pair(self) -> str:
        """The pair of planes, as chip files name it."""
        return f"{self.weights}x{self.activations}"


def works_of(graph: Graph) -> tuple[LayerWork, ...]:
    """Return what the layers of *graph* that hold products ask for, in order."""
    return tuple(work_of(graph, op) for op in graph.products)


def work_of(graph: Graph, op: Op) -> LayerWork:
    """Return what one layer of *graph* asks for."""
    product, source = op.product, graph.tensors[op.input]
    assert product is not None
    weights, form = product.weights, source.format
    if weights.is_asymmetric:  # +1 and -1 count for different numbers, so each has a plane of its own
        weight_planes: tuple[Plane, ...] = ("bit", "bit")
    else:
        weight_planes = ("binary" if weights.zero_fraction == 0 else "ternary",) * weights.n_planes
    return LayerWork(
        name=op.name,
        n_vectors=graph.n_vectors(op),
        n_rows=product.n_rows,
        window=prod(product.kernel),
        n_columns=product.n_columns,
        n_groups=product.groups,
        is_recurrent=product.is_recurrent,
        n_macs=graph.n_macs(op),
        n_inputs=source.n_values,
        n_weights=product.n_weights,
        weight_planes=weight_planes,
        activation_planes=planes_of(form, "bit"),
        activation_trits=planes_of(form, "trit"),
        zero_weights=weights.zero_fraction,
    )


def planes_of(form: Format, serial: Literal["bit", "trit"]) -> tuple[Plane, ...]:
    """Return the planes that codes of *form* are sent as.

    >>> from imcsim.graph.formats import TERNARY, unsigned
    >>> planes_of(unsigned(2), "bit"), planes_of(unsigned(4), "trit"), planes_of(TERNARY, "bit")
    (('bit', 'bit'), ('ternary', 'ternary', 'ternary'), ('ternary',))
    """
    if form.minus != 1:
        return "bit", "bit"
    if form.kind == "binary":
        return ("binary",)
    codec = form.codec(serial)
    return ("ternary" if codec.is_signed else "bit",) * codec.n_planes


def lower_on(machine: Comparator, works: Sequence[LayerWork]) -> tuple[Lowered, ...]:
    """Return how *machine* takes the planes of each layer; raises MappingError that names all that it cannot take."""
    found = [lowered(work, machine.operands) for work in works]
    refused = [
        f"{work.name} ({went.how})"
        for work, went in zip(works, found, strict=True)
        if went.n_passes > 1 and not machine.operands.adds_planes
    ]
    if refused:
        takes = f"{' or '.join(machine.operands.weights)} weights by {' or '.join(machine.operands.activations)} inputs"
        raise MappingError(f"{machine.name}: must get one plane of {takes} a layer, got {', '.join(refused)}")
    return tuple(found)


def lowered(work: LayerWork, operands: Operands) -> Lowered:
    """Return how the planes of *work* become planes, or words, that a machine takes."""
    if operands.arithmetic == "words":
        return Lowered("ternary", 1, "ternary", 1, "words")
    weights, n_weights = held_as(work.weight_planes, operands.weights)
    sent = work.activation_trits if operands.serial == "trit" else work.activation_planes
    activations, n_activations = held_as(sent, operands.activations)
    how = f"{n_weights} {weights} x {n_activations} {activations}"
    if [weights] * n_weights != [*work.weight_planes] or [activations] * n_activations != [*sent]:
        how += f" for {len(work.weight_planes)} {work.weight_planes[0]} x {len(sent)} {sent[0]}"
    return Lowered(weights, n_weights, activations, n_activations, how)


def held_as(planes: tuple[Plane, ...], taken: tuple[Plane, ...]) -> tuple[Plane, int]:
    """Return the kind of plane among those *taken* that needs the fewest for *planes*, and how many they are.

    >>> held_as(("ternary",), ("binary",)), held_as(("bit", "bit"), ("ternary", "bit"))
    (('binary', 2), ('bit', 2))
    """
    first = planes[0]  # those of one operand are of one kind
    kind = min(taken, key=lambda plane: (COPIES[first][plane], plane != first, taken.index(plane)))
    return kind, len(planes) * COPIES[first][kind]
