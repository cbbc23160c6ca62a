import warnings

import numpy as np
import pytest

from imcsim.functional.reference import reference, tensors_of
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Abs,
    Add,
    Affine,
    AvgPool,
    Clip,
    ExtremePool,
    Flatten,
    Graph,
    HardSwish,
    MaxPool,
    Mean,
    OnesColumn,
    Op,
    PRelu,
    Product,
    Relu,
    SpatialAffine,
    Tensor,
    Threshold,
    unsigned,
)
from imcsim.graph.passes import fold_into_thresholds, join_steps, simplify
from imcsim.ternary import PlaneSum

HALF = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)


def chain(*steps, shape=(2, 4, 4), product=None, joined=False):
    """A graph of one step an op, or of one op with all *steps*."""
    ops, at, form = [], Tensor("x", shape, TERNARY if product else REAL), REAL
    start = at
    if product:
        at = Tensor("sum", product.shape(shape), REAL)
        ops.append(Op(name="product", input="x", output=at, product=product))
    for i, step in enumerate(steps):
        form = step.format if isinstance(step, Threshold) else form if isinstance(step, MaxPool | Flatten) else REAL
        made = Tensor(f"t{i}", step.shape(at.shape), form)
        ops.append(Op(name=f"step{i}", input=at.name, output=made, steps=(step,)))
        at = made
    graph = Graph(name="chain", inputs=(start,), ops=tuple(ops), outputs=(at.name,))
    return join_steps(graph) if joined else graph


def steps_of(graph):
    assert len(graph.ops) == 1
    return list(graph.ops[0].steps)


def test_steps_join_the_op_that_makes_their_input():
    graph = join_steps(chain(Affine(2.0, 1.0), Relu(), HALF))
    assert [op.name for op in graph.ops] == ["step0"]
    assert steps_of(graph) == [Affine(2.0, 1.0), Relu(), HALF]
    assert graph.output == graph.ops[0].output.name == "t2"


def test_steps_stay_apart_where_somebody_else_reads_between_them():
    x = Tensor("x", (2,), REAL)
    made = [Tensor(name, (2,), REAL) for name in "abc"]
    graph = Graph(
        name="two readers",
        inputs=(x,),
        ops=(
            Op(name="a", input="x", output=made[0], steps=(Relu(),)),
            Op(name="b", input="a", output=made[1], steps=(Affine(2.0, 0.0),)),
            Op(name="c", input="b", output=made[2], steps=(Add("a"),)),
        ),
        outputs=("c",),
    )
    assert [op.name for op in join_steps(graph).ops] == ["a", "b"]
    assert join_steps(graph).ops[1].steps == (Affine(2.0, 0.0), Add("a"))


def test_the_output_of_the_network_is_kept_even_where_an_op_reads_it():
    graph = chain(Relu(), Affine(2.0, 0.0))
    kept = join_steps(Graph(name="kept", inputs=(graph.input,), ops=graph.ops, outputs=("t0",)))
    assert len(kept.ops) == 2


def test_an_addition_moves_no_earlier_than_what_it_adds():
    x = Tensor("x", (2,), REAL)
    graph = Graph(
        name="late",
        inputs=(x,),
        ops=(
            Op(name="a", input="x", output=Tensor("a", (2,), REAL), steps=(Relu(),)),
            Op(name="b", input="x", output=Tensor("b", (2,), REAL), steps=(Affine(2.0, 0.0),)),
            Op(name="c", input="a", output=Tensor("c", (2,), REAL), steps=(Add("b"),)),
        ),
        outputs=("c",),
    )
    assert [op.name for op in join_steps(graph).ops] == ["a", "b", "c"]


def test_codes_can_be_added_and_averaged_behind_their_threshold():
    for step in (AvgPool((2, 2), (2, 2)), Affine(0.5, 0.0), Relu()):
        joined = join_steps(chain(HALF, step))
        assert steps_of(joined) == [HALF, step]
        assert joined.ops[0].output.format == REAL


def test_a_batch_norm_becomes_thresholds():
    graph = simplify(chain(Affine([2.0, 4.0], [1.0, 0.0]), HALF))
    assert steps_of(graph) == [Threshold([[-0.75, -0.25], [-0.125, 0.125]], [-1, 0, 1], TERNARY, [1, 1])]


def test_a_negative_gamma_turns_the_direction_round():
    graph = simplify(chain(Affine([-2.0, 1.0], [1.0, 0.0]), HALF))
    # -2 x + 1 >= 0.5 where -x >= -0.25
    assert steps_of(graph) == [Threshold([[-0.75, -0.25], [-0.5, 0.5]], [-1, 0, 1], TERNARY, [-1, 1])]


def test_a_limit_that_numbers_must_exceed_stays_one_behind_a_batch_norm():
    exceeding_zero = Threshold([[np.nextafter(0, 1)]], [-1, 1], BINARY)
    (folded,) = steps_of(simplify(chain(Affine(2.0, -1.0), exceeding_zero, joined=True)))
    assert folded.thresholds.tolist() == [[np.nextafter(0.5, 1)]]  # 2 * 0.5 - 1 is 0 and does not exceed it
    (far,) = steps_of(
        simplify(chain(Affine(1e-300, 0.0), Threshold([[-1e300, 1e300]], [-1, 0, 1], TERNARY), joined=True))
    )
    assert far.thresholds.tolist() == [[-np.inf, np.inf]]


def test_a_gamma_of_zero_decides_at_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = simplify(chain(Affine([0.0, 0.0], [3.0, 0.0]), HALF))
    found = steps_of(graph)[0].thresholds.tolist()
    assert found == [[-np.inf, -np.inf], [-np.inf, np.inf]]


def test_a_relu_reaches_every_threshold_up_to_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = simplify(chain(Relu(), Threshold([[-1.0, 0.0, 0.5]], [0, 1, 2, 3], unsigned(2))))
    assert steps_of(graph)[0].thresholds.tolist() == [[-np.inf, -np.inf, 0.5]]


def test_a_relu_stays_before_a_threshold_that_looks_down():
    down = Threshold([[-0.5]], [0, 1], unsigned(1), -1)
    assert steps_of(simplify(chain(Relu(), down))) == [Relu(), down]


def test_a_max_pool_moves_behind_a_threshold_and_becomes_a_min_pool_where_it_looks_down():
    pool, down = MaxPool((2, 2), (2, 2)), Threshold([[-0.5]], [0, 1], unsigned(1), -1)
    assert steps_of(simplify(chain(pool, HALF))) == [HALF, pool]
    assert steps_of(simplify(chain(pool, down))) == [down, ExtremePool((2, 2), (2, 2), direction=-1)]
    assert steps_of(simplify(chain(ExtremePool((2, 2), (2, 2), direction=[-1, 1]), down))) == [
        down,
        ExtremePool((2, 2), (2, 2), direction=[1, -1]),
    ]


def test_a_batch_norm_behind_a_max_pool_folds_and_then_the_pool_moves():
    pool = MaxPool((2, 2), (2, 2))
    up = Threshold([[-0.25, 0.25], [-0.5, 0.5]], [-1, 0, 1], TERNARY, [1, 1])
    assert steps_of(simplify(chain(pool, Affine([2.0, 1.0], 0.0), HALF))) == [up, pool]
    down = steps_of(simplify(chain(pool, Affine([-2.0, 1.0], 0.0), HALF)))
    assert [type(step) for step in down] == [Threshold, ExtremePool]
    assert down[0].direction.tolist() == down[1].direction.tolist() == [-1, 1]


def test_a_batch_norm_folds_into_tables_over_the_image_and_into_the_use_of_a_ones_column():
    table, norm = np.arange(32.0).reshape(2, 4, 4), Affine([2.0, -1.0], [0.5, 0.25])
    over = np.array([2.0, -1.0]).reshape(2, 1, 1)
    more = np.array([0.5, 0.25]).reshape(2, 1, 1)
    assert steps_of(simplify(chain(SpatialAffine(table, 1.0), norm))) == [SpatialAffine(table * over, over + more)]
    assert steps_of(simplify(chain(norm, SpatialAffine(table, 1.0)))) == [SpatialAffine(table * over, table * more + 1)]
    ones = OnesColumn([1.0, 2.0], 3.0, [0.0, 1.0])
    assert steps_of(simplify(chain(ones, norm, shape=(3, 4, 4)))) == [
        OnesColumn([2.0, -2.0], [6.0, -3.0], [0.5, -0.75])
    ]


def test_steps_that_a_threshold_cannot_take_in_stay_before_it():
    for step in (PRelu(0.25), Clip(-1.0, 1.0), HardSwish(), Abs(), SpatialAffine(np.ones((2, 4, 4))), Mean("channels")):
        assert steps_of(simplify(chain(step, HALF))) == [step, HALF]
        assert steps_of(simplify(chain(HALF, step, Affine(2.0, 1.0)))) != [HALF, Affine(2.0, 1.0), step]


def test_a_flatten_moves_behind_one_threshold_for_all_and_stays_before_one_for_each():
    each = Threshold(np.zeros((32, 1)), [-1, 1], BINARY)
    assert steps_of(simplify(chain(Flatten(), HALF))) == [HALF, Flatten()]
    assert steps_of(simplify(chain(Flatten(), each))) == [Flatten(), each]


def test_affine_steps_without_a_threshold_become_one():
    assert steps_of(simplify(chain(Affine(2.0, 1.0), Affine(3.0, 0.5), Relu()))) == [Affine(6.0, 3.5), Relu()]


def test_thresholds_of_whole_sums_are_whole_numbers():
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1, -1], [0, 1]]], factors=[1]))
    graph = simplify(chain(Affine([3.0, -3.0], 0.25), HALF, product=product, shape=(2,)))
    step = steps_of(graph)[0]
    assert step.thresholds.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert step.direction.tolist() == [1, -1]


def test_thresholds_of_weights_that_are_no_whole_numbers_are_left_as_they_are():
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1, -1], [0, 1]]], factors=[0.5]))
    graph = simplify(chain(Affine(4.0, 0.0), HALF, product=product, shape=(2,)))
    assert steps_of(graph)[0].thresholds.tolist() == [[-0.125, 0.125]]


@pytest.mark.parametrize("pass_", [join_steps, fold_into_thresholds, simplify])
def test_a_pass_changes_no_number_of_a_tensor_that_is_left(pass_):
    steps = [Affine([2.0, -0.5], [0.25, 0.5]), MaxPool((2, 2), (1, 1)), Relu(), Affine([-1.0, 1.0], 0.125), HALF]
    graph = chain(*steps)
    x = np.random.default_rng(0).integers(-8, 9, size=(5, 2, 4, 4)) / 8
    before, after = tensors_of(graph, x), tensors_of(pass_(graph), x)
    assert all(np.array_equal(after[name], before[name]) for name in after)
    assert len(np.unique(reference(graph, x))) == 3
