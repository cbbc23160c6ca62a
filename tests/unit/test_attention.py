"""Each step of `imcsim.graph.attention`: what it computes, what it costs, and what it refuses; and a whole block."""

from math import erf, exp, pi, sqrt, tanh

import numpy as np
import pytest

from imcsim.errors import GraphError
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.graph import (
    REAL,
    Affine,
    Erf,
    Exp,
    Flatten,
    Format,
    Gelu,
    Graph,
    LayerNorm,
    MatMul,
    Mean,
    Op,
    Permute,
    Quantize,
    Reshape,
    Silu,
    Slice,
    Softmax,
    Tensor,
    Threshold,
    unsigned,
)
from imcsim.graph.passes import join_steps, simplify
from imcsim.mapping.digital import is_on_host, lane_work
from imcsim.mapping.place import place

TABLE = np.arange(6.0).reshape(2, 3)


def graph_of(*steps, shape, branch=None):
    """*steps* on the input x, and before them a branch t = branch(x) that they may read."""
    x = at = Tensor("x", shape, REAL)
    ops = []
    if branch:
        ops.append(Op(name="branch", input="x", output=Tensor("t", branch.shape(shape), REAL), steps=(branch,)))
    for step in steps:
        at = Tensor("y", step.shape(at.shape), REAL)
    ops.append(Op(name="op", input="x", output=at, steps=steps))
    return Graph(name="steps", inputs=(x,), ops=tuple(ops), outputs=("y",))


def outputs(chip, *steps, x=TABLE, branch=None):
    """What both engines make of one sample; they must agree bit for bit."""
    graph = graph_of(*steps, shape=x.shape, branch=branch)
    found = execute(place(graph, chip), x[np.newaxis])
    assert np.array_equal(found, reference(graph, x[np.newaxis]))
    return found[0]


@pytest.mark.parametrize("shape", [(4,), (2, 3), (2, 3, 4), (2, 3, 4, 2)])
def test_axes_in_another_order_are_those_of_numpy(ideal_chip, shape):
    x = np.arange(np.prod(shape), dtype=float).reshape(shape)
    axes = tuple(reversed(range(len(shape))))
    assert np.array_equal(outputs(ideal_chip, Permute(axes), x=x), x.transpose(axes))
    if len(shape) == 3:
        assert np.array_equal(outputs(ideal_chip, Permute((1, 2, 0)), x=x), x.transpose(1, 2, 0))


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 3, 4, 2)])
def test_places_along_any_axis_are_cut_out(ideal_chip, shape):
    x = np.arange(np.prod(shape), dtype=float).reshape(shape)
    for axis, n in enumerate(shape):
        assert np.array_equal(outputs(ideal_chip, Slice(1, n, axis), x=x), np.take(x, range(1, n), axis))


def test_numbers_keep_their_order_in_another_shape(ideal_chip):
    x = np.arange(24.0).reshape(2, 3, 4)
    assert np.array_equal(outputs(ideal_chip, Reshape((4, 6)), x=x), x.reshape(4, 6))
    assert np.array_equal(outputs(ideal_chip, Reshape((24,)), x=x), x.ravel())
    assert np.array_equal(outputs(ideal_chip, Reshape((6, 4)), Flatten(), x=x), x.ravel())


def test_matrices_are_multiplied_place_by_place(ideal_chip):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 3, 4))
    swapped = x.transpose(0, 2, 1)
    assert np.allclose(outputs(ideal_chip, MatMul("x", 3, is_transposed=True), x=x), x @ swapped)
    assert np.allclose(outputs(ideal_chip, MatMul("t", 3), x=x, branch=Permute((0, 2, 1))), x @ swapped)
    assert np.array_equal(outputs(ideal_chip, MatMul("t", 2), branch=Permute((1, 0))), TABLE @ TABLE.T)


def test_one_matrix_may_meet_all_heads(ideal_chip):
    x = np.random.default_rng(3).normal(size=(2, 3, 4))
    mean = x.mean(axis=0, keepdims=True)  # (1 3 4)
    found = outputs(ideal_chip, MatMul("t", 3, is_transposed=True), x=x, branch=Mean("channels"))
    assert np.allclose(found, x @ mean.transpose(0, 2, 1))


def test_the_terms_of_a_product_are_added_in_their_order(ideal_chip):
    x = np.array([[1e16, 1.0, -1e16, 1.0]])  # 1e16 + 1 rounds to 1e16, so that the order shows
    graph = Graph(
        name="order",
        inputs=(Tensor("x", (1, 4), REAL),),
        ops=(
            Op(name="ones", input="x", output=Tensor("t", (1, 4), REAL), steps=(Affine(0.0, 1.0),)),
            Op(name="mul", input="x", output=Tensor("y", (1, 1), REAL), steps=(MatMul("t", 1, is_transposed=True),)),
        ),
        outputs=("y",),
    )
    assert execute(place(graph, ideal_chip), x[None]).tolist() == [[[1.0]]]
    assert reference(graph, x[None]).tolist() == [[[1.0]]]


def test_products_of_codes_are_whole_and_exact(ideal_chip):
    x = np.random.default_rng(5).normal(size=(3, 4, 6)) * 40
    codes = Quantize(Format("integer", 8, 0.5))
    ops = (
        Op(name="codes", input="x", output=Tensor("c", (4, 6), codes.format), steps=(codes,)),
        Op(name="scores", input="c", output=Tensor("y", (4, 4), REAL), steps=(MatMul("c", 4, is_transposed=True),)),
    )
    graph = Graph(name="codes", inputs=(Tensor("x", (4, 6), REAL),), ops=ops, outputs=("y",))
    c = np.clip(np.rint(x / 0.5), -128, 127)
    found = execute(place(graph, ideal_chip), x)
    assert np.array_equal(found, c @ c.transpose(0, 2, 1))
    assert np.array_equal(found, reference(graph, x))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_softmax_adds_up_to_one_along_its_axis_and_never_overflows(ideal_chip, axis):
    with np.errstate(all="raise", under="ignore"):
        found = outputs(ideal_chip, Softmax(axis), x=np.array([[0.0, 1000.0], [-1000.0, 1000.0], [1.0, 999.0]]))
    assert np.allclose(found.sum(axis=axis), 1.0)
    e = exp(-1.0)
    assert outputs(ideal_chip, Softmax(0), x=np.array([1.0, 0.0])).tolist() == [1 / (1 + e), e / (1 + e)]


def test_a_layer_norm_has_mean_zero_and_variance_one_over_its_axes(ideal_chip):
    x = np.random.default_rng(7).normal(size=(3, 4, 5)) * 7 + 2
    for axes in ((0,), (1, 2), (0, 2), (0, 1, 2)):
        found = outputs(ideal_chip, LayerNorm(axes, 0.0), x=x)
        assert np.allclose(found.mean(axis=axes), 0.0)
        assert np.allclose(found.var(axis=axes), 1.0)


def test_a_layer_norm_scales_and_shifts_by_tables(ideal_chip):
    x = np.array([[-1.0, 1.0], [1.0, 3.0]])
    scale, offset = np.array([[2.0, 3.0]]), np.array([[10.0], [20.0]])
    found = outputs(ideal_chip, LayerNorm((1,), 0.0, scale, offset), x=x)
    assert found.tolist() == [[8.0, 13.0], [18.0, 23.0]]
    half = outputs(ideal_chip, LayerNorm((1,), 3.0), x=x)  # variance 1 + 3
    assert half.tolist() == [[-0.5, 0.5], [-0.5, 0.5]]


def test_a_norm_that_is_not_centred_divides_by_the_root_of_the_mean_square(ideal_chip):
    found = outputs(ideal_chip, LayerNorm((0,), 0.0, is_centred=False), x=np.array([3.0, 4.0, 0.0, 0.0]))
    assert found.tolist() == [3.0 * (1 / 2.5), 4.0 * (1 / 2.5), 0.0, 0.0]


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (Gelu(), lambda x: 0.5 * x * (1 + erf(x / sqrt(2)))),
        (Gelu("tanh"), lambda x: 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))),
        (Silu(), lambda x: x / (1 + exp(-x))),
        (Exp(), exp),
        (Erf(), erf),
    ],
    ids=lambda value: type(value).__name__,
)
def test_functions_of_one_number_are_what_their_formulas_say(ideal_chip, step, wanted):
    x = np.array([-3.0, -0.5, 0.0, 0.25, 4.0])
    assert outputs(ideal_chip, step, x=x) == pytest.approx([wanted(v) for v in x], rel=1e-14)


def test_functions_take_codes(ideal_chip):
    codes = Threshold([[-1.5, -0.5, 0.5, 1.5]], [-2, -1, 0, 1, 2], Format("integer", 3))
    for step in (Gelu(), Silu(), Exp(), Erf(), Softmax(0), LayerNorm((0,))):
        ops = (
            Op(name="codes", input="x", output=Tensor("c", (3,), codes.format), steps=(codes,)),
            Op(name="step", input="c", output=Tensor("y", (3,), REAL), steps=(step,)),
        )
        graph = Graph(name="of-codes", inputs=(Tensor("x", (3,), REAL),), ops=ops, outputs=("y",))
        x = np.array([[-2.0, 0.0, 1.0]])
        assert np.array_equal(execute(place(graph, ideal_chip), x), outputs(ideal_chip, step, x=x[0])[None])


# --- costs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "shape", "wanted"),
    [
        (Permute((1, 0)), (2, 3), {}),
        (Reshape((6,)), (2, 3), {}),
        (MatMul("t", 5), (2, 3, 4), {"vpe": 2 * 3 * 5 * 4}),
        (Softmax(1), (2, 3), {"spe": 12, "vpe": 18}),
        (LayerNorm((0,)), (6, 1, 4), {"vpe": 4 * 24 + 2 * 4, "spe": 4}),
        (LayerNorm((0,), 1e-5, 2.0), (6, 1, 4), {"vpe": 5 * 24 + 2 * 4, "spe": 4}),
        (LayerNorm((0,), is_centred=False), (6, 1, 4), {"vpe": 2 * 24 + 4, "spe": 4}),
        (Gelu(), (2, 3), {"spe": 6, "vpe": 24}),
        (Gelu("tanh"), (2, 3), {"spe": 6, "vpe": 42}),
        (Silu(), (2, 3), {"spe": 6, "vpe": 6}),
        (Exp(), (2, 3), {"spe": 6}),
        (Erf(), (2, 3), {"spe": 6}),
    ],
)
def test_the_work_of_each_step(step, shape, wanted):
    assert lane_work(step, shape) == wanted


def test_the_host_hands_codes_over_in_any_order(tiny_chip):
    codes = Quantize(unsigned(8))
    op = Op(name="codes", input="x", output=Tensor("c", (3, 2), codes.format), steps=(Permute((1, 0)), codes))
    graph = Graph(name="host", inputs=(Tensor("x", (2, 3), REAL),), ops=(op,), outputs=("c",))
    assert is_on_host(op, graph)


# --- graphs ---------------------------------------------------------------------------------------------------------


def test_a_product_of_two_tensors_begins_an_op_of_its_own():
    x = Tensor("x", (2, 3), REAL)
    ops = (
        Op(name="exp", input="x", output=Tensor("e", (2, 3), REAL), steps=(Exp(),)),
        Op(name="mul", input="e", output=Tensor("m", (2, 2), REAL), steps=(MatMul("x", 2, is_transposed=True),)),
        Op(name="soft", input="m", output=Tensor("s", (2, 2), REAL), steps=(Softmax(1),)),
    )
    joined = join_steps(Graph(name="two", inputs=(x,), ops=ops, outputs=("s",)))
    assert [(op.name, len(op.steps)) for op in joined.ops] == [("exp", 1), ("mul", 2)]


def test_one_threshold_for_all_moves_before_another_order_of_axes():
    threshold = Threshold([[0.5]], [0, 1], unsigned(1))
    steps = (Affine([2.0, 4.0], 0.0), Permute((1, 0)), threshold)
    op = Op(name="op", input="x", output=Tensor("y", (3, 2), threshold.format), steps=steps)
    (folded,) = simplify(Graph(name="fold", inputs=(Tensor("x", (2, 3), REAL),), ops=(op,), outputs=("y",))).ops
    assert [type(step) for step in folded.steps] == [Threshold, Permute]
    assert folded.steps[0].thresholds.tolist() == [[0.25], [0.125]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Permute((0, 2)), r"permute: axes must be those from 0 on, each once, got \(0, 2\)"),
        (lambda: Permute((0, 1)).shape((3,)), r"permute: must get 2 axes, got shape \(3,\)"),
        (lambda: Reshape((0, 2)), r"reshape: sizes must be at least 1, got \(0, 2\)"),
        (lambda: Reshape((4, 2)).shape((3, 2)), r"reshape: must get 8 numbers for \(4, 2\), got shape \(3, 2\)"),
        (lambda: MatMul("t", 0), "mat mul: n_columns must be at least 1, got 0"),
        (lambda: MatMul("t", 2).shape((3,)), r"mat mul: must get matrices \(\.\.\. m d\), got shape \(3,\)"),
        (
            lambda: MatMul("t", 2).require_fit((4, 3, 5), (4, 2, 5)),
            r"mat mul: must get matrices of shape \(4, 5, 2\), or with 1 in the place of an axis before the last two, "
            r"got \(4, 2, 5\)",
        ),
        (lambda: MatMul("t", 2).require_fit((4, 3, 5), (2, 5, 2)), r"of shape \(4, 5, 2\).* got \(2, 5, 2\)"),
        (lambda: MatMul("t", 2).require_fit((4, 3, 5), (5, 2)), r"got \(5, 2\)"),
        (lambda: Softmax(-1), "softmax: axis must be counted from 0 behind the batch, got -1"),
        (lambda: Softmax(2).shape((3, 2)), r"softmax: axis must be one of the 2 of shape \(3, 2\), got 2"),
        (lambda: LayerNorm(()), r"layer norm: axes must ascend, counted from 0 behind the batch, got \(\)"),
        (lambda: LayerNorm((1, 0)), r"layer norm: axes must ascend, counted from 0 behind the batch, got \(1, 0\)"),
        (lambda: LayerNorm((0,), -1.0), "layer norm: eps must be finite and at least 0, got -1.0"),
        (lambda: LayerNorm((0,), scale=np.inf), "layer norm: scale must be finite, got inf"),
        (lambda: LayerNorm((2,)).shape((3, 2)), r"layer norm: axes must be among the 2 of shape \(3, 2\), got \(2,\)"),
        (
            lambda: LayerNorm((0,), offset=np.ones(3)).shape((3, 2)),
            r"layer norm: offset must be a number or a table of shape \(3, 2\), each axis whole or 1, got shape \(3,\)",
        ),
        (lambda: Gelu("fast"), "gelu: form must be erf or tanh, got 'fast'"),
    ],
)
def test_each_refusal_says_what_must_hold(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_asymmetric_codes_are_no_second_operand():
    codes = Threshold([[-0.5, 0.5]], [-1, 0, 1], Format("ternary", 2, minus=2.0))
    ops = (
        Op(name="codes", input="x", output=Tensor("c", (2, 3), codes.format), steps=(codes,)),
        Op(name="mul", input="x", output=Tensor("y", (2, 2), REAL), steps=(MatMul("c", 2, is_transposed=True),)),
    )
    with pytest.raises(GraphError, match="mul: matmul: must get numbers or symmetric codes beside, got ternary in 'c'"):
        Graph(name="asymmetric", inputs=(Tensor("x", (2, 3), REAL),), ops=ops, outputs=("y",))
