"""Products of two activations on tiles: the codes of one are written into rows, as weights are, for each sample anew.

A head of a sample is a group of its own, so that every tensor has as many groups as its heads and samples together.
"""

from dataclasses import replace
from math import prod

from imcsim.arch.spec import Chip
from imcsim.errors import MappingError
from imcsim.graph import Graph, MatMul, Op, Product
from imcsim.graph.formats import Format
from imcsim.ternary import Codec, PlaneSum
from imcsim.ternary.planes import whole_factors

WITHOUT = "or set activation_products.done_by to digital"


def with_written_operands(graph: Graph, chip: Chip) -> Graph:
    """Return *graph* with its products of two activations as products of tiles, where *chip* does them there.

    Raises MappingError for operands that are no codes, and for a chip of several banks.
    """
    if chip.activation_products.done_by == "digital":
        return graph
    ops = tuple(_written(op, graph, chip) for op in graph.ops)
    return graph if all(a is b for a, b in zip(ops, graph.ops, strict=True)) else graph.replace_ops(ops)


def _written(op: Op, graph: Graph, chip: Chip) -> Op:
    if not any(isinstance(step, MatMul) for step in op.steps) or op.written is not None:
        return op
    first = op.steps[0]
    if op.product is not None or not isinstance(first, MatMul) or any(isinstance(s, MatMul) for s in op.steps[1:]):
        raise MappingError(f"{op.name}: a product on tiles must read codes that lie in a buffer, got others; {WITHOUT}")
    if chip.all_banks > 1:
        raise MappingError(
            f"{op.name}: products of two activations on tiles must be done in one bank, got {chip.all_banks}; {WITHOUT}"
        )
    for name in (op.input, first.other):
        form = graph.tensors[name].format
        if form.is_real or form.kind == "bases" or form.minus != 1:
            raise MappingError(
                f"{op.name}: a product on tiles must read symmetric codes, got {form} in {name!r}; quantize it, "
                f"{WITHOUT}"
            )
    shape, form = graph.tensors[op.input].shape, graph.tensors[first.other].format
    n_groups, codec = prod(shape[:-2]), codec_of_written(form)
    weights = PlaneSum.of_shape(
        (n_groups * first.n_columns, shape[-1]),
        zero_fraction=0.0 if form.is_dense else 0.5,  # nobody knows; that there may be zeros is what counts
        of=graph.name,
        n_planes=codec.n_planes,
    )
    weights = replace(weights, factors=whole_factors([int(factor) for factor in codec.factors]))
    product = Product(kind="matmul", weights=weights, groups=n_groups)
    return replace(op, product=product, written=first, steps=op.steps[1:])


def codec_of_written(form: Format) -> Codec:
    """Return how codes of *form* are held in cells: planes side by side, as those of weights."""
    codec = form.codec("bit")
    assert not codec.offset, "planes of bits have none"
    return codec
