"""Which lane of the special function unit does a digital step, and how many element operations that takes."""

from collections import Counter
from collections.abc import Iterator
from math import prod

from imcsim.graph import (
    REAL,
    Abs,
    Add,
    AddChannels,
    Affine,
    ArgMax,
    AvgPool,
    ChannelMix,
    Clip,
    Concat,
    Embedding,
    Erf,
    Exp,
    ExtremePool,
    Flatten,
    Gelu,
    Graph,
    GruCell,
    HardSwish,
    Joining,
    LayerNorm,
    LogSoftmax,
    LstmCell,
    MatMul,
    MaxPool,
    Mean,
    Mul,
    OnesColumn,
    Op,
    Permute,
    PRelu,
    Quantize,
    RealProduct,
    Relu,
    Reshape,
    Sigmoid,
    Silu,
    Slice,
    Softmax,
    SpatialAffine,
    Step,
    Tanh,
    Threshold,
)
from imcsim.graph.steps import Shape

LANES = ("relu", "vpe", "spe", "qu")


def lane_work(step: Step, before: Shape, other: Shape = ()) -> dict[str, int]:
    """Return the element operations of *step* on one sample of shape *before*, by lane; *other*: its second tensor's.

    A window of k numbers takes k - 1 comparisons, or k - 1 additions and one scaling. One threshold step or one
    multiply-add is one operation of a lane, as its energy in the chip file says; so is a multiply with the choice
    whether it is taken. Exponentials, error functions, tanh, divisions by what is computed and inverse roots are
    operations of an SPE; axes in another order are where numbers are written to, and none.
    """
    n_before, n_after = prod(before), prod(step.shape(before))
    match step:
        case Affine() | Add() | Mul() | PRelu() | SpatialAffine():
            return {"vpe": n_after}
        case Clip() | OnesColumn():  # two comparisons, two multiply-adds
            return {"vpe": 2 * n_after}
        case HardSwish():  # a sum, two comparisons, a scaling and a product
            return {"vpe": 5 * n_after}
        case AddChannels():
            return {"vpe": prod(other)}
        case ArgMax():  # comparisons
            return {"vpe": n_before - 1}
        case Mean():
            return {"vpe": n_before}
        case ChannelMix(n_terms=n_terms):
            return {"vpe": n_terms * prod(before[1:])}
        case RealProduct(weights=weights):
            return {"vpe": n_after * prod(weights.shape[1:])}
        case Tanh() | Sigmoid():
            return {"spe": n_after}
        case Exp() | Erf():
            return {"spe": n_after}
        case Silu():  # a sigmoid and a product
            return {"spe": n_after, "vpe": n_after}
        case Gelu(form=form):  # two scalings, a sum and a product; with a tanh two products and a multiply-add more
            return {"spe": n_after, "vpe": (4 if form == "erf" else 7) * n_after}
        case MatMul():  # multiply-adds
            return {"vpe": n_after * before[-1]}
        case Softmax():  # an exponential and a division a number; a comparison, a difference and an addition
            return {"spe": 2 * n_before, "vpe": 3 * n_before}
        case LayerNorm(axes=axes):
            # a number: addition and difference of the mean, square, scaling, one multiply-add unless that is none; a
            # place: the scalings of mean and variance, an inverse root
            n_places = n_before // prod(before[axis] for axis in axes)
            of_number = 2 + 2 * step.is_centred + (not step.is_plain)
            return {"vpe": n_before * of_number + n_places * (1 + step.is_centred), "spe": n_places}
        case Relu() | Abs():
            return {"relu": n_after}
        case Threshold() | Quantize():
            return {"qu": n_after}
        case MaxPool(kernel=kernel) | ExtremePool(kernel=kernel):
            return {"vpe": n_after * (prod(kernel) - 1)} if prod(kernel) > 1 else {}
        case AvgPool(kernel=kernel):
            return {"vpe": n_after * prod(kernel)}
        case LogSoftmax():
            # an exponential for each number and a logarithm for each place; an addition and a subtraction a number
            return {"spe": n_before + prod(before[1:]), "vpe": 2 * n_before}
        case LstmCell() | GruCell():
            work: Counter[str] = Counter()
            for lane, n in cell_work(step, n_after):
                work[lane] += n
            return dict(work)
        case Flatten() | Permute() | Reshape() | Concat() | Slice() | Embedding():
            return {}  # numbers are written where they belong, tokens looked up
    raise AssertionError(f"no lane for {type(step).__name__}")


def is_elementwise(op: Op) -> bool:
    """Whether all steps of *op* make each number from one number, and those at its place in other tensors."""
    return all(isinstance(step, _ELEMENTWISE) for step in op.steps)


_ELEMENTWISE = (Abs, Add, Affine, Clip, Erf, Exp, Flatten, Gelu, HardSwish, Mul, Permute, PRelu, Quantize, Relu,
                Reshape, Sigmoid, Silu, SpatialAffine, Tanh, Threshold)  # fmt: skip


def cell_work(cell: LstmCell | GruCell, n_hidden: int) -> list[tuple[str, int]]:
    """Return what the lanes do in turn for *n_hidden* hidden units of one time step: (lane, element operations).

    A multiply-add is one operation of a vPE, a sigmoid or a tanh one of an SPE.
    """
    match cell:
        case LstmCell():  # scale and bias; four gates; c = f c + i g; tanh(c); times o; codes
            turns = [("vpe", 4), ("spe", 4), ("vpe", 2), ("spe", 1), ("vpe", 1), ("qu", 1)]
        case GruCell():  # scale and bias; r and z; a + r b; tanh; h = n + z (h - n); codes
            turns = [("vpe", 4), ("spe", 2), ("vpe", 1), ("spe", 1), ("vpe", 2), ("qu", 1)]
    return [(lane, n * n_hidden) for lane, n in turns]


def turn_of_state(cell: LstmCell | GruCell) -> int:
    """Return which of the turns of `cell_work` makes the next state."""
    return 2 if isinstance(cell, LstmCell) else 4


def state_bits(op: Op) -> int:
    """Return the bits that the state of a recurrent layer takes between two time steps of one sample; 0 without."""
    return op.product.n_hidden * REAL.bits if op.product is not None else 0


def cell_of(op: Op) -> LstmCell | GruCell:
    """Return the cell of a recurrent layer."""
    (cell,) = op.steps
    assert isinstance(cell, LstmCell | GruCell)
    return cell


def walk_steps(op: Op, graph: Graph) -> Iterator[tuple[Step, Shape]]:
    """Yield each step of *op* with the shape that goes into it."""
    shape = graph.tensors[op.input].shape
    if op.product is not None:
        shape = op.product.shape(shape)
    for step in op.steps:
        yield step, shape
        shape = step.shape(shape)


def work_of_steps(op: Op, graph: Graph) -> Iterator[tuple[str, str, int]]:
    """Yield what does element operations on one sample of *op*: its name, the lane, how many; those that are done."""
    if op.product is not None and op.product.weights.is_grouped:
        n_sums = prod(op.product.shape(graph.tensors[op.input].shape)) * len(op.product.row_groups)
        yield "scaling and adding the sums of input groups", "vpe", n_sums
    for number, (step, shape) in enumerate(walk_steps(op, graph), start=1):
        other = graph.tensors[step.other].shape if isinstance(step, Joining) else ()
        for lane, n in lane_work(step, shape, other).items():
            if n:
                yield f"step {number}, {type(step).__name__}", lane, n


def digital_work(op: Op, graph: Graph) -> dict[str, int]:
    """Return the element operations of all steps of *op* on one sample, by lane in the order of first use."""
    work: Counter[str] = Counter()
    for _, lane, n in work_of_steps(op, graph):
        work[lane] += n
    return dict(work)


def is_on_host(op: Op, graph: Graph) -> bool:
    """Whether the host does *op* before it hands the input over: a quantizer or a table right behind an input.

    Flattening beside it moves no number and costs nothing; nor does another order of axes.
    """
    if op.product is not None or not graph.is_input(op.input):
        return False
    work = [step for step in op.steps if not isinstance(step, Flatten | Permute | Reshape)]
    return len(work) == 1 and isinstance(work[0], Threshold | Quantize | Embedding)
