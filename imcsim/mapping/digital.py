"""Which lane of the special function unit does a digital step, and how many element operations that takes."""

from collections import Counter
from collections.abc import Iterator
from math import prod

from imcsim.graph import (
    Add,
    Affine,
    AvgPool,
    Flatten,
    Graph,
    LogSoftmax,
    MaxPool,
    Op,
    Quantize,
    RealProduct,
    Relu,
    Step,
    Tanh,
    Threshold,
)
from imcsim.graph.steps import Shape

LANES = ("relu", "vpe", "spe", "qu")


def lane_work(step: Step, before: Shape) -> dict[str, int]:
    """Return the element operations of *step* on one sample of shape *before*, by lane.

    A window of k numbers takes k - 1 comparisons, or k - 1 additions and one scaling. One threshold step or one
    multiply-add is one operation of a lane, as its energy in the chip file says.
    """
    n_before, n_after = prod(before), prod(step.shape(before))
    match step:
        case Affine() | Add():
            return {"vpe": n_after}
        case RealProduct(weights=weights):
            return {"vpe": n_after * prod(weights.shape[1:])}
        case Tanh():
            return {"spe": n_after}
        case Relu():
            return {"relu": n_after}
        case Threshold() | Quantize():
            return {"qu": n_after}
        case MaxPool(kernel=kernel):
            return {"vpe": n_after * (prod(kernel) - 1)} if prod(kernel) > 1 else {}
        case AvgPool(kernel=kernel):
            return {"vpe": n_after * prod(kernel)}
        case LogSoftmax():
            # an exponential for each number and a logarithm; an addition and a subtraction for each number
            return {"spe": n_before + 1, "vpe": 2 * n_before}
        case Flatten():
            return {}
    raise AssertionError(f"no lane for {type(step).__name__}")


def walk_steps(op: Op, graph: Graph) -> Iterator[tuple[Step, Shape]]:
    """Yield each step of *op* with the shape that goes into it."""
    shape = graph.tensors[op.input].shape
    if op.product is not None:
        shape = op.product.shape(shape)
    for step in op.steps:
        yield step, shape
        shape = step.shape(shape)


def digital_work(op: Op, graph: Graph) -> dict[str, int]:
    """Return the element operations of all steps of *op* on one sample, by lane in the order of first use."""
    work: Counter[str] = Counter()
    for step, shape in walk_steps(op, graph):
        work.update(lane_work(step, shape))
    return {lane: n for lane, n in work.items() if n}


def is_on_host(op: Op, graph: Graph) -> bool:
    """Whether the host does *op* before it hands the input over: a quantizer right behind the network's input.

    Flattening beside it moves no number and costs nothing.
    """
    if op.input != graph.input.name or op.product is not None:
        return False
    work = [step for step in op.steps if not isinstance(step, Flatten)]
    return len(work) == 1 and isinstance(work[0], Threshold | Quantize)
