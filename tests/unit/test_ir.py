from dataclasses import replace

import numpy as np
import pytest

from imcsim.errors import GraphError
from imcsim.graph import (
    BINARY,
    REAL,
    TERNARY,
    Add,
    Affine,
    AvgPool,
    Flatten,
    Graph,
    LayerAttrs,
    LogSoftmax,
    MaxPool,
    Op,
    Product,
    Quantize,
    RealProduct,
    Relu,
    Tanh,
    Tensor,
    Threshold,
    unsigned,
)
from imcsim.ternary import PlaneSum


def weights(*shape, planes=1):
    return PlaneSum(planes=np.ones((planes, *shape)), factors=[1 << i for i in range(planes)])


def conv(*shape, **geometry):
    return Product(kind="conv2d", weights=weights(*shape), **geometry)


def graph_of(*ops, form=TERNARY, shape=(2, 4, 4), output=None):
    return Graph(name="net", inputs=(Tensor("x", shape, form),), ops=ops, outputs=(output or ops[-1].output.name,))


def op(name, source, shape, form=REAL, **parts):
    return Op(name=name, input=source, output=Tensor(f"{name}.out", shape, form), **parts)


CODES = Threshold([[0.5]], [0, 1], unsigned(1))


def test_a_window_slides_with_stride_padding_and_dilation_as_in_pytorch():
    assert conv(5, 2, 3, 3).shape((2, 8, 9)) == (5, 6, 7)
    assert conv(5, 2, 3, 3, stride=(2, 1), padding=(1, 0)).shape((2, 8, 9)) == (5, 4, 7)
    assert conv(5, 2, 3, 3, dilation=(2, 3)).shape((2, 8, 9)) == (5, 4, 3)
    assert conv(4, 1, 1, 1, groups=2).shape((2, 8, 9)) == (4, 8, 9)
    assert MaxPool((2, 2), (2, 2)).shape((3, 5, 4)) == (3, 2, 2)
    assert AvgPool((3, 3), (1, 1), (1, 1)).shape((3, 5, 4)) == (3, 5, 4)
    assert Flatten().shape((3, 5, 4)) == (60,)


def test_a_real_product_makes_the_shapes_of_a_product():
    step = RealProduct("conv2d", np.ones((5, 2, 3, 2)), np.zeros(5), stride=(2, 1), padding=(1, 0))
    assert step.shape((2, 8, 9)) == conv(5, 2, 3, 2, stride=(2, 1), padding=(1, 0)).shape((2, 8, 9)) == (5, 4, 8)
    assert RealProduct("linear", np.ones((3, 7))).shape((7,)) == (3,)
    assert Tanh().shape((3, 5, 4)) == (3, 5, 4)
    assert step == RealProduct("conv2d", np.ones((5, 2, 3, 2)), np.zeros(5), stride=(2, 1), padding=(1, 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RealProduct("linear", np.ones((3, 7, 1))),
            r"real linear: weights must have 2 axes, got shape \(3, 7, 1",
        ),
        (lambda: RealProduct("linear", [[1.0, np.nan]]), r"real linear: weights must be finite, got nan"),
        (lambda: RealProduct("linear", [[1.0]], np.inf), r"real linear: bias must be finite, got inf"),
        (
            lambda: RealProduct("linear", np.ones((3, 7)), np.ones(7)),
            r"real linear: bias must be a number or one for each of the 3 outputs, got shape \(7,\)",
        ),
        (
            lambda: RealProduct("linear", np.ones((3, 7))).shape((8,)),
            r"real linear: must get 7 inputs, got shape \(8,\)",
        ),
        (
            lambda: RealProduct("conv2d", np.ones((3, 7, 1, 1))).shape((8, 2, 2)),
            r"real conv2d: must get 7 channels, got shape \(8, 2, 2\)",
        ),
        (
            lambda: graph_of(op("a", "x", (3, 2, 2), steps=(RealProduct("conv2d", np.ones((3, 2, 5, 5))),))),
            r"a: window: kernel \(5, 5\) must fit the image \(4, 4\) with padding \(0, 0\)",
        ),
    ],
)
def test_real_products_that_do_not_fit_are_refused(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_rows_are_the_inputs_of_one_output_and_columns_the_outputs_of_one_group():
    product = conv(6, 2, 3, 1, groups=3)
    assert (product.n_rows, product.n_columns, product.n_planes, product.kernel) == (6, 2, 1, (3, 1))
    linear = Product(kind="linear", weights=weights(5, 7, planes=3))
    assert (linear.n_rows, linear.n_columns, linear.n_planes, linear.kernel) == (7, 5, 3, (1, 1))


def test_the_matrix_holds_neighbouring_channels_in_neighbouring_rows():
    kernel = np.zeros((1, 2, 2, 2), dtype=int)  # one output, two channels, 2 x 2
    kernel[0, 1, 0, 1] = 1
    product = Product(kind="conv2d", weights=PlaneSum(planes=[kernel], factors=[1]))
    assert product.matrix.shape == (1, 1, 8, 1)
    assert product.matrix[0, 0, :, 0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]  # position (0, 1), channel 1


def test_the_matrix_of_a_linear_map_has_a_column_for_each_output():
    product = Product(kind="linear", weights=PlaneSum(planes=[[[1, 0, -1], [0, 1, 1]]], factors=[1]))
    assert product.matrix.tolist() == [[[[1, 0], [0, 1], [-1, 1]]]]


def test_each_group_has_a_matrix_of_its_own():
    kernel = np.array([1, -1]).reshape(2, 1, 1, 1)
    product = Product(kind="conv2d", weights=PlaneSum(planes=[kernel], factors=[1]), groups=2)
    assert product.matrix.reshape(2).tolist() == [1, -1]


def test_a_graph_counts_multiply_accumulates_and_vectors(tiny_graph):
    quantize, convolution, linear = tiny_graph.ops
    assert [tiny_graph.n_macs(o) for o in tiny_graph.ops] == [0, 9 * 2 * 2 * 2, 8 * 3]
    assert [tiny_graph.n_vectors(o) for o in (convolution, linear)] == [4, 1]
    assert tiny_graph.products == (convolution, linear)
    assert quantize.inputs == ("x",)


def test_an_op_reads_what_it_adds(tiny_graph):
    added = op("sum", "x", (2, 4, 4), steps=(Add("x"), Relu(), Add("x", 0.5)))
    assert added.inputs == ("x", "x", "x")


def test_a_tensor_knows_how_many_bits_a_buffer_keeps():
    assert Tensor("t", (3, 2, 2), unsigned(5)).n_bits == 60
    assert Tensor("t", (3,), TERNARY).n_values == 3


def test_graphs_are_equal_when_all_their_parts_are(tiny_graph):
    assert replace(tiny_graph) == tiny_graph
    assert replace(tiny_graph, name="other") != tiny_graph


def test_codes_that_become_real_numbers_again_in_one_op_are_no_codes():
    graph = graph_of(op("pooled", "x", (2, 2, 2), REAL, steps=(CODES, AvgPool((2, 2), (2, 2)))), form=REAL)
    assert graph.tensors["pooled.out"].format == REAL


def test_two_affine_steps_are_one():
    first, second = Affine(2.0, [1.0, 3.0]), Affine([3.0, -1.0], 0.5)
    assert first.then(second) == Affine([6.0, -2.0], [3.5, -2.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Product(kind="conv2d", weights=weights(2, 2)),
            r"conv2d: weights must have 4 axes, got shape \(2, 2\)",
        ),
        (lambda: Product(kind="linear", weights=weights(2)), r"linear: weights must have 2 axes, got shape \(2,\)"),
        (lambda: conv(3, 1, 1, 1, groups=2), r"conv2d: groups must divide the 3 outputs, got 2"),
        (lambda: conv(3, 1, 1, 1, groups=0), r"conv2d: groups must divide the 3 outputs, got 0"),
        (lambda: Affine([np.nan], 0), r"affine.scale: must be finite, a number or one per channel, got \[nan\]"),
        (lambda: Affine(1, [[0.0]]), r"affine.offset: must be finite, a number or one per channel"),
        (lambda: Threshold([[1, 0]], [-1, 0, 1], TERNARY), r"threshold: thresholds must be numbers in ascending order"),
        (lambda: Threshold([[np.nan]], [0, 1], TERNARY), r"threshold: thresholds must be numbers in ascending order"),
        (lambda: Threshold([[0]], [-1, 0, 1], TERNARY), r"threshold: 1 thresholds need 2 ascending codes, got \[-1, 0"),
        (lambda: Threshold([[0]], [1, 0], TERNARY), r"threshold: 1 thresholds need 2 ascending codes, got \[1, 0\]"),
        (lambda: Threshold([[0]], [0, 2], TERNARY), r"threshold: codes must fit ternary, got 0 to 2"),
        (lambda: Threshold([[0]], [0, 1], REAL), r"threshold: format must be one of codes, got real numbers"),
        (lambda: Threshold([[0]], [0, 1], TERNARY, 0), r"threshold: direction must be \+1 or -1 for each channel"),
        (lambda: MaxPool((2, 2), (2, 2)).shape((4,)), r"window: needs an image \(c h w\), got shape \(4,\)"),
        (lambda: MaxPool((3, 3), (1, 1)).shape((1, 2, 2)), r"window: kernel \(3, 3\) must fit the image \(2, 2\)"),
    ],
)
def test_parts_that_cannot_be_are_refused(make, message):
    with pytest.raises(GraphError, match=message):
        make()


LINEAR = Product(kind="linear", weights=weights(3, 32))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: graph_of(op("a", "y", (2, 4, 4))), r"a: must read a tensor that was made before, got 'y'"),
        (lambda: graph_of(op("a", "x", (2, 4, 4), steps=(Add("later"),))), r"a: must read a tensor .* got 'later'"),
        (
            lambda: graph_of(op("a", "x", (2, 4, 4)), Op(name="b", input="x", output=Tensor("a.out", (2, 4, 4), REAL))),
            r"b: tensor 'a\.out' is made twice; names must differ",
        ),
        (lambda: graph_of(op("a", "x", (3,), steps=(Flatten(),))), r"a: its steps give shape \(32,\), got \(3,\) decl"),
        (
            lambda: graph_of(op("a", "x", (2, 4, 4), TERNARY, steps=(CODES,))),
            r"a: its steps give u1 codes, got ternary declared",
        ),
        (
            lambda: graph_of(op("a", "x", (32,), BINARY, steps=(Quantize(unsigned(8)), Flatten()))),
            r"a: its steps give u8 codes, got binary declared",
        ),
        (lambda: graph_of(op("a", "x", (2, 4, 4)), output="z"), r"net: output must be a tensor of the graph, got 'z'"),
        (
            lambda: graph_of(op("a", "x", (2, 4, 4)), output="x"),
            r"net: output must be made by an op, got the input 'x'; l",
        ),
        (
            lambda: replace(graph_of(op("a", "x", (2, 4, 4))), outputs=("a.out", "a.out")),
            r"net: outputs must be one or more different tensors, got a\.out, a\.out",
        ),
        (
            lambda: replace(graph_of(op("a", "x", (2, 4, 4))), outputs=()),
            r"net: outputs must be one or more different tensors, got none",
        ),
        (
            lambda: replace(graph_of(op("a", "x", (2, 4, 4))), inputs=()),
            r"net: inputs must be one or more of different names, got none",
        ),
        (
            lambda: replace(graph_of(op("a", "x", (2, 4, 4))), inputs=(Tensor("x", (2,), REAL),) * 2),
            r"net: inputs must be one or more of different names, got x, x",
        ),
        (
            lambda: replace(
                graph_of(op("a", "x", (2, 4, 4))), inputs=(Tensor("x", (2, 4, 4), TERNARY), Tensor("h", (2,), REAL))
            ),
            r"net: input 'h' must be read by an op, got none that does; leave it out",
        ),
        (
            lambda: graph_of(op("a", "x", (2, 4, 4)), Op(name="a", input="x", output=Tensor("b", (2, 4, 4), REAL))),
            r"net: ops must have different names",
        ),
        (lambda: graph_of(op("a", "x", (3,), product=LINEAR)), r"a: linear: must get 32 inputs, got shape \(2, 4, 4\)"),
        (
            lambda: graph_of(op("a", "x", (3, 4, 4), product=conv(3, 5, 1, 1))),
            r"a: conv2d: must get 5 channels, got shape \(2, 4, 4\)",
        ),
        (
            lambda: graph_of(op("a", "x", (3, 4, 4), product=conv(3, 2, 1, 1)), form=REAL),
            r"a: format: a tile takes codes, got real numbers; quantize the activation first",
        ),
        (
            lambda: graph_of(
                op("a", "x", (3, 4, 4), product=conv(3, 2, 1, 1, attrs=LayerAttrs(pad_value=-1))), form=unsigned(2)
            ),
            r"a: conv2d: padding must bring in a code of u2, got -1",
        ),
        (
            lambda: graph_of(op("a", "x", (2, 2, 2), steps=(MaxPool((2, 2), (2, 2)), Add("x")))),
            r"a: add: must get shapes that are equal, got \(2, 2, 2\) and \(2, 4, 4\)",
        ),
        (
            lambda: graph_of(op("a", "x", (2, 1, 1), steps=(AvgPool((5, 5), (1, 1)), LogSoftmax()))),
            r"a: window: kernel \(5, 5\) must fit the image \(4, 4\) with padding \(0, 0\)",
        ),
    ],
)
def test_graphs_that_do_not_hold_together_are_refused_with_the_op(make, message):
    with pytest.raises(GraphError, match=message):
        make()
