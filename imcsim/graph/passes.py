"""Graph to graph: each pass returns a graph that computes the same, with fewer and larger ops.

A pass promises that every tensor that is left holds the same numbers as before, up to the rounding of the float64
constants that it folds; whole numbers stay whole.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.attention import MatMul, Permute, Reshape
from imcsim.graph.epilogue import ExtremePool, OnesColumn, SpatialAffine
from imcsim.graph.ir import Graph, Op
from imcsim.graph.recurrent import Cell, Embedding
from imcsim.graph.steps import Affine, Flatten, Joining, MaxPool, Relu, Step, Threshold


def simplify(graph: Graph) -> Graph:
    """Join steps to the products they follow, and fold scales, batch norms and ReLUs into thresholds."""
    return fold_into_thresholds(join_steps(graph))


def join_steps(graph: Graph) -> Graph:
    """Join each op without a product to the op that makes its input, where nobody else reads that tensor.

    A product of two tensors begins an op of its own, which a chip may do elsewhere than what was before.
    """
    readers = Counter(name for op in graph.ops for name in op.inputs)
    readers.update(graph.outputs)
    ops: list[Op] = []
    for op in graph.ops:
        before = ops[-1] if ops else None
        maker = next((i for i, earlier in enumerate(ops) if earlier.output.name == op.input), None)
        # An op that reads further tensors moves no earlier than they are made: it joins only its neighbour.
        can_join = (
            op.product is None
            and maker is not None
            and readers[op.input] == 1
            and not any(isinstance(step, Cell | Embedding) for step in (*ops[maker].steps, *op.steps))
            and (ops[maker] is before or len(op.inputs) == 1)
            and not (op.steps and isinstance(op.steps[0], MatMul))
        )
        if can_join and maker is not None:
            ops[maker] = replace(ops[maker], steps=ops[maker].steps + op.steps, output=op.output)
        else:
            ops.append(op)
    return graph.replace_ops(tuple(ops))


def rename_outputs(graph: Graph, names: Sequence[str]) -> Graph:
    """Return *graph* with the outputs called *names*; another tensor that is called so gets an apostrophe.

    Raises GraphError where an input is called so.
    """
    new = dict(zip(graph.outputs, names, strict=True))
    taken = {*graph.tensors, *names}
    for name in graph.tensors:
        if name in names and name not in new:
            if graph.is_input(name):
                raise GraphError(f"{graph.name}: outputs must have other names than inputs, got {name!r} for both")
            new[name] = name
            while new[name] in taken:
                new[name] += "'"
            taken.add(new[name])

    def renamed(op: Op) -> Op:
        steps = tuple(
            replace(step, other=new.get(step.other, step.other))  # type: ignore[type-var]  # each kind is a dataclass
            if isinstance(step, Joining)
            else step
            for step in op.steps
        )
        return replace(
            op,
            input=new.get(op.input, op.input),
            output=replace(op.output, name=new.get(op.output.name, op.output.name)),
            gate=op.gate and new.get(op.gate, op.gate),
            steps=steps,
        )

    return replace(graph, ops=tuple(map(renamed, graph.ops)), outputs=tuple(names))


def fold_into_thresholds(graph: Graph) -> Graph:
    """Fold affine steps and ReLUs into the thresholds that follow them; where none follows, join affine steps.

    A batch norm ``a * x + b`` before a threshold ``t`` becomes the threshold ``(t - b) / |a|`` in the direction of a.
    Max pools move behind thresholds; in channels where codes fall as the numbers rise they become min pools. Behind a
    product with whole-number factors the thresholds are rounded up to whole numbers, which changes no comparison.
    """
    return graph.replace_ops(
        tuple(_fold_op(op, is_symmetric=graph.tensors[op.input].format.is_affine) for op in graph.ops)
    )


def _fold_op(op: Op, *, is_symmetric: bool) -> Op:
    steps = list(op.steps)
    sums_are_whole = op.product is not None and op.product.is_whole and is_symmetric
    at = 0
    while at + 1 < len(steps):
        folded = _fold_pair(steps[at], steps[at + 1], is_whole=sums_are_whole and at == 0)
        if folded is None:
            at += 1
        else:
            steps[at : at + 2] = folded
            at = max(at - 1, 0)
    if sums_are_whole and steps and isinstance(steps[0], Threshold):
        steps[0] = replace(steps[0], thresholds=np.ceil(steps[0].thresholds))
    return replace(op, steps=tuple(steps))


def _fold_pair(first: Step, second: Step, *, is_whole: bool) -> list[Step] | None:
    """Return what two neighbours become, or None; *is_whole*: the first one takes whole numbers."""
    match first, second:
        case Affine(), Affine():
            return [first.then(second)]
        case Affine(), Threshold():
            return [_fold_affine(first, second, is_whole=is_whole)]
        case Relu(), Threshold() if np.all(second.direction == 1):
            # max(x, 0) reaches every threshold up to 0, whatever x is
            reached = np.where(second.thresholds <= 0, -np.inf, second.thresholds)
            return [replace(second, thresholds=reached)]
        case MaxPool(), Threshold() if np.all(second.direction == 1):
            return [second, first]
        case MaxPool() | ExtremePool(), Threshold():  # where codes fall as the numbers rise, the greatest has the least
            turned = second.direction * (first.direction if isinstance(first, ExtremePool) else np.int8(1))
            return [second, ExtremePool(first.kernel, first.stride, first.padding, turned)]
        case OnesColumn(), Affine(scale=scale, offset=offset):
            return [
                OnesColumn(scale * first.scale, scale * first.ones_scale, scale * first.offset + offset, first.groups)
            ]
        case SpatialAffine(), Affine():
            scale, offset = _over_image(second.scale), _over_image(second.offset)
            return [SpatialAffine(scale * first.scale, scale * first.offset + offset)]
        case Affine(), SpatialAffine(scale=scale, offset=offset):
            return [SpatialAffine(scale * _over_image(first.scale), scale * _over_image(first.offset) + offset)]
        case Flatten() | Permute() | Reshape(), Threshold() if len(second.thresholds) == 1 == len(second.direction):
            return [second, first]
    return None


def _over_image(values: np.ndarray) -> np.ndarray:
    """One number, or one per channel as a table (c 1 1)."""
    return values.reshape(-1, 1, 1) if values.ndim else values


def _fold_affine(affine: Affine, threshold: Threshold, *, is_whole: bool) -> Threshold:
    scale = np.atleast_1d(affine.scale) * np.atleast_1d(threshold.direction)
    offset = np.atleast_1d(affine.offset) * np.atleast_1d(threshold.direction)
    size, offset, limits = np.broadcast_arrays(np.abs(scale)[:, None], offset[:, None], threshold.thresholds)  # (c n)
    least = np.vectorize(_least_whole if is_whole else _least_real, otypes=[np.float64])
    reached = least(size, offset, limits)
    return replace(threshold, thresholds=reached, direction=np.where(scale < 0, -1, 1).astype(np.int8))


def _least_whole(size: float, offset: float, limit: float) -> float:
    """Return the least whole x with ``size * x + offset >= limit``, in exact arithmetic.

    A strict threshold is the next float64 above it; in floating point an offset would swallow that difference.
    """
    exact = _least(size, offset, limit)
    if isinstance(exact, float):
        return exact
    least = ceil(exact)
    return float(least) if abs(least) < 2**53 else float(np.copysign(np.inf, least))


def _least_real(size: float, offset: float, limit: float) -> float:
    """Return the least float64 x with ``size * x + offset >= limit``, in exact arithmetic as above."""
    exact = _least(size, offset, limit)
    if isinstance(exact, float):
        return exact
    try:
        nearest = float(exact)
    except OverflowError:
        return float(np.inf if exact > 0 else -np.inf)
    return nearest if Fraction(nearest) >= exact else float(np.nextafter(nearest, np.inf))


def _least(size: float, offset: float, limit: float) -> Fraction | float:
    """Return ``(limit - offset) / size``, or an infinity where every number, or none, reaches the limit."""
    if np.isinf(limit):
        return float(limit)
    short = Fraction(float(limit)) - Fraction(float(offset))
    if size == 0:
        return -np.inf if short <= 0 else np.inf
    return short / Fraction(float(size))
