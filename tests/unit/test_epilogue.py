"""Each digital step of `imcsim.graph.epilogue`: what it computes, what it costs, and what it refuses."""

import numpy as np
import pytest

from imcsim.errors import GraphError
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.graph import (
    REAL,
    TERNARY,
    Abs,
    Add,
    AddChannels,
    ChannelMix,
    Clip,
    Concat,
    ExtremePool,
    Format,
    Graph,
    HardSwish,
    Mean,
    Mul,
    OnesColumn,
    Op,
    PRelu,
    Quantize,
    Sigmoid,
    Slice,
    SpatialAffine,
    Tensor,
    Threshold,
    integer,
    unsigned,
)
from imcsim.mapping.digital import digital_work, lane_work
from imcsim.mapping.place import place

IMAGE = np.array([[[1.0, -2.0], [3.0, -4.0]], [[0.5, 0.0], [-0.5, 8.0]]])  # c h w


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


def outputs(chip, *steps, x=IMAGE, branch=None):
    """What both engines make of one sample; they must agree bit for bit."""
    graph = graph_of(*steps, shape=x.shape, branch=branch)
    found = execute(place(graph, chip), x[np.newaxis])
    assert np.array_equal(found, reference(graph, x[np.newaxis]))
    return found[0].tolist()


def test_a_prelu_has_a_slope_for_each_channel_or_one(ideal_chip):
    assert outputs(ideal_chip, PRelu([0.5, -2.0])) == [[[1.0, -1.0], [3.0, -2.0]], [[0.5, 0.0], [1.0, 8.0]]]
    assert outputs(ideal_chip, PRelu(0.25), x=np.array([4.0, -4.0])) == [4.0, -1.0]


def test_a_clip_keeps_what_lies_between(ideal_chip):
    assert outputs(ideal_chip, Clip(-1.0, 2.5)) == [[[1.0, -1.0], [2.5, -1.0]], [[0.5, 0.0], [-0.5, 2.5]]]


def test_a_sigmoid_neither_overflows_nor_loses_small_numbers(ideal_chip):
    with np.errstate(all="raise", under="ignore"):
        found = outputs(ideal_chip, Sigmoid(), x=np.array([0.0, 1.0, -1.0, 1000.0, -1000.0, -40.0]))
    e = np.exp(-1.0)
    assert found == [0.5, 1 / (1 + e), e / (1 + e), 1.0, 0.0, np.exp(-40.0) / (1 + np.exp(-40.0))]


def test_a_hard_swish_bends_at_3(ideal_chip):
    assert outputs(ideal_chip, HardSwish(), x=np.array([-4.0, -3.0, -1.5, 0.0, 3.0, 4.0])) == [0, 0, -0.375, 0, 3, 4]


def test_the_least_code_of_eight_bits_has_an_absolute_value(ideal_chip):
    codes = Threshold([[-64.0]], [-128, 127], integer(8))
    ops = (
        Op(name="codes", input="x", output=Tensor("c", (2,), integer(8)), steps=(codes,)),
        Op(name="abs", input="c", output=Tensor("y", (2,), REAL), steps=(Abs(),)),
    )
    graph = Graph(name="least", inputs=(Tensor("x", (2,), REAL),), ops=ops, outputs=("y",))
    assert execute(place(graph, ideal_chip), [[-100.0, 0.0]]).tolist() == [[128.0, 127.0]]


def test_a_table_over_the_image_is_spread_over_axes_of_one(ideal_chip):
    gamma = np.array([1.0, 10.0]).reshape(2, 1, 1) * np.array([1.0, 2.0]).reshape(1, 2, 1)  # XNOR-Net++: alpha x beta
    assert outputs(ideal_chip, SpatialAffine(gamma, [[[0.0, 100.0]]])) == [
        [[1.0, 98.0], [6.0, 92.0]],
        [[5.0, 100.0], [-10.0, 260.0]],
    ]


def test_means_go_over_the_channels_of_a_pixel_or_over_all_of_a_sample(ideal_chip):
    assert outputs(ideal_chip, Mean("channels")) == [[[0.75, -1.0], [1.25, 2.0]]]
    assert outputs(ideal_chip, Abs(), Mean("sample")) == [[[19.0 / 8]]]
    assert outputs(ideal_chip, Mean("sample"), x=np.array([1.0, 2.0, 6.0])) == [3.0]


def test_means_are_added_up_in_the_order_of_the_channels(ideal_chip):
    x = np.array([1e16, 1.0, -1e16, 1.0])  # 1e16 + 1 rounds to 1e16, so that the order shows
    assert outputs(ideal_chip, Mean("channels"), x=x.reshape(4, 1, 1)) == [[[0.25]]]
    assert outputs(ideal_chip, Mean("sample"), x=x) == [0.25]


def test_a_tensor_is_multiplied_by_one_that_has_one_number_a_pixel(ideal_chip):
    assert outputs(ideal_chip, Mul("t"), branch=Mean("channels")) == [
        [[0.75, 2.0], [3.75, -8.0]],
        [[0.375, 0.0], [-0.625, 16.0]],
    ]


def test_channels_are_joined_cut_and_added_to(ideal_chip):
    assert outputs(ideal_chip, Slice(1, 2)) == IMAGE[1:].tolist()
    assert outputs(ideal_chip, Concat("t", 1), branch=Slice(0, 1)) == [*IMAGE.tolist(), IMAGE[0].tolist()]
    assert outputs(ideal_chip, AddChannels("t", 2.0, first=1), branch=Slice(0, 1)) == [
        IMAGE[0].tolist(),
        [[2.5, -4.0], [5.5, 0.0]],
    ]
    assert outputs(ideal_chip, AddChannels("x", [1.0, 0.5])) == [
        [[2.0, -4.0], [6.0, -8.0]],
        [[0.75, 0.0], [-0.75, 12.0]],
    ]


def test_joined_codes_of_one_format_stay_codes(ideal_chip):
    codes = Threshold([[-1.0, 1.0]], [-1, 0, 1], TERNARY)
    ops = (
        Op(name="codes", input="x", output=Tensor("c", (2,), TERNARY), steps=(codes,)),
        Op(name="both", input="c", output=Tensor("y", (4,), TERNARY), steps=(Concat("c", 2),)),
    )
    graph = Graph(name="joined", inputs=(Tensor("x", (2,), REAL),), ops=ops, outputs=("y",))
    assert execute(place(graph, ideal_chip), [[5.0, -2.0]]).tolist() == [[1, -1, 1, -1]]


def test_sums_of_channels_are_mixed_in_whole_numbers(ideal_chip):
    mix = ChannelMix([[1, 3], [0, -2], [0, 0]])
    assert outputs(ideal_chip, mix, x=np.array([5.0, 7.0])) == [26.0, -14.0, 0.0]
    assert mix.n_terms == 2  # 5 + 3 * 7, -2 * 7
    assert ChannelMix(np.eye(3)).n_terms == 0


def test_the_sum_of_inputs_is_used_and_dropped_group_by_group(ideal_chip):
    step = OnesColumn([1.0, 2.0], [0.5, -1.0], 0.25, groups=2)  # outputs and sums: a, ones of a, b, ones of b
    assert outputs(ideal_chip, step, x=np.array([3.0, 10.0, 4.0, 100.0])) == [3 + 5 + 0.25, 8 - 100 + 0.25]


def test_an_extreme_pool_takes_the_greatest_or_the_least_and_never_the_padding(ideal_chip):
    assert outputs(ideal_chip, ExtremePool((2, 2), (2, 2), direction=[1, -1])) == [[[3.0]], [[-0.5]]]
    assert outputs(ideal_chip, ExtremePool((2, 2), (2, 2), (1, 1))) == [
        [[1.0, -2.0], [3.0, -4.0]],
        [[0.5, 0.0], [-0.5, 8.0]],
    ]


def test_codes_count_from_their_zero(ideal_chip):
    whole, between = Format("unsigned", 3, scale=0.5, zero=2.0), Format("unsigned", 3, scale=0.5, zero=2.25)
    x = np.array([0.0, 0.25, 0.75, -1.0, -5.0, 9.0])
    # 0, 0.5, 1.5, -2, -10 and 18 steps; halves go to the even step where the zero is a code
    assert outputs(ideal_chip, Quantize(whole), Abs(), x=x) == [2, 2, 4, 0, 0, 7]
    assert outputs(ideal_chip, Quantize(between), Abs(), x=x) == [2, 3, 4, 0, 0, 7]


@pytest.mark.parametrize(
    ("step", "before", "other", "work"),
    [
        (PRelu(0.5), (3, 4, 4), (), {"vpe": 48}),
        (Clip(0.0, 1.0), (3, 4, 4), (), {"vpe": 96}),
        (HardSwish(), (3, 4, 4), (), {"vpe": 240}),
        (Sigmoid(), (3, 4, 4), (), {"spe": 48}),
        (Abs(), (3, 4, 4), (), {"relu": 48}),
        (SpatialAffine(2.0), (3, 4, 4), (), {"vpe": 48}),
        (Mean("channels"), (3, 4, 4), (), {"vpe": 48}),
        (Mul("t"), (3, 4, 4), (1, 4, 4), {"vpe": 48}),
        (AddChannels("t"), (3, 4, 4), (2, 4, 4), {"vpe": 32}),
        (ChannelMix([[1, 0, 4], [0, 0, 1]]), (3, 4, 4), (), {"vpe": 16}),
        (OnesColumn(1.0, 1.0), (3, 4, 4), (), {"vpe": 64}),
        (ExtremePool((2, 2), (2, 2)), (3, 4, 4), (), {"vpe": 36}),
        (Concat("t", 2), (3, 4, 4), (2, 4, 4), {}),
        (Slice(0, 2), (3, 4, 4), (), {}),
    ],
)
def test_each_step_has_its_lane(step, before, other, work):
    assert lane_work(step, before, other) == work


def test_the_second_tensor_says_how_much_is_added():
    graph = graph_of(AddChannels("t"), shape=(3, 4, 4), branch=Slice(0, 2))
    assert [digital_work(op, graph) for op in graph.ops] == [{}, {"vpe": 32}]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PRelu([[1.0]]), r"prelu: slope must be a number or one per channel, got shape \(1, 1\)"),
        (lambda: PRelu(np.nan), r"prelu: slope must be finite, got nan"),
        (lambda: PRelu([1.0, 2.0]).shape((3, 4, 4)), r"prelu: slope must be one for each of the 3 channels, got 2"),
        (lambda: Clip(1.0, 0.0), r"clip: must have a finite low that is not above high, got 1.0 and 0.0"),
        (lambda: Clip(-np.inf, 0.0), r"clip: must have a finite low that is not above high, got -inf and 0.0"),
        (
            lambda: SpatialAffine([1.0]),
            r"spatial affine: scale must be finite, a number or a table \(c h w\), got shape",
        ),
        (lambda: SpatialAffine(1.0, np.inf), r"spatial affine: offset must be finite, .*, got inf"),
        (
            lambda: SpatialAffine(np.ones((1, 4, 3))).shape((2, 4, 4)),
            r"spatial affine: scale must meet an image .*, got shape \(1, 4, 3\) for numbers of shape \(2, 4, 4\)",
        ),
        (lambda: SpatialAffine(2.0).shape((2,)), r"spatial affine: scale must meet an image .* of shape \(2,\)"),
        (lambda: Mean("pixels"), r"mean: over must be channels or sample, got 'pixels'"),
        (
            lambda: graph_of(Mul("t"), shape=(3, 4, 4), branch=Slice(0, 2)),
            r"op: mul: must get a tensor of shape \(3, 4, 4\), or with 1 in the place of an axis, got \(2, 4, 4\)",
        ),
        (
            lambda: graph_of(Concat("t", 3), shape=(3, 4, 4), branch=Slice(0, 2)),
            r"op: concat: must get a tensor of shape \(3, 4, 4\), got \(2, 4, 4\)",
        ),
        (lambda: Slice(2, 2), r"slice: must have first below last, both from 0 up, got 2 and 2"),
        (lambda: Slice(1, 4).shape((3, 2, 2)), r"slice: must lie within the 3 channels, got 1 up to 4"),
        (lambda: AddChannels("t", first=-1), r"add channels: first must be at least 0, got -1"),
        (lambda: AddChannels("t", [np.nan]), r"add channels: scale must be finite, got nan"),
        (
            lambda: graph_of(AddChannels("t", first=2), shape=(3, 4, 4), branch=Slice(0, 2)),
            r"op: add channels: must get channels that lie within the 3 of shape \(3, 4, 4\) from 2 on, got shape \(2,",
        ),
        (
            lambda: graph_of(AddChannels("t", [1.0, 2.0, 3.0]), shape=(3, 4, 4), branch=Slice(0, 2)),
            r"op: add channels: scale must be one for each of the 2 channels, got 3",
        ),
        (lambda: ChannelMix([1]), r"channel mix: matrix must have two axes \(c_out c_in\), got shape \(1,\)"),
        (lambda: ChannelMix([[0.5]]), r"channel mix: matrix must hold whole numbers, got 0.5"),
        (lambda: ChannelMix([[np.nan]]), r"channel mix: matrix must hold whole numbers, got nan"),
        (lambda: ChannelMix([[1, 2]]).shape((3, 2, 2)), r"channel mix: must get 2 channels, got shape \(3, 2, 2\)"),
        (lambda: OnesColumn(1.0, np.nan), r"ones column: ones_scale must be finite, got nan"),
        (lambda: OnesColumn(1.0, 1.0, groups=0), r"ones column: groups must be at least 1, got 0"),
        (
            lambda: OnesColumn(1.0, 1.0, groups=2).shape((5, 2, 2)),
            r"ones column: must get the outputs of 2 groups, each with its sum of inputs behind them, got shape \(5, 2",
        ),
        (
            lambda: OnesColumn([1.0, 2.0], 1.0).shape((4,)),
            r"ones column: scale must be one for each of the 3 channels, got 2",
        ),
        (
            lambda: ExtremePool((2, 2), (2, 2), direction=[0]),
            r"extreme pool: direction must be \+1 or -1 .*, got \[0\]",
        ),
        (
            lambda: ExtremePool((2, 2), (2, 2), direction=[1, 1]).shape((3, 4, 4)),
            r"extreme pool: direction must be one for each of the 3 channels, got 2",
        ),
        (lambda: Format("real", 16, zero=1.0), r"format: zero must be finite, and 0 for real numbers .*, got 1.0 for"),
        (lambda: Format("unsigned", 4, zero=np.nan), r"format: zero must be finite, .*, got nan for unsigned"),
    ],
)
def test_steps_that_cannot_be_are_refused(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_codes_of_two_formats_are_not_joined():
    ops = (
        Op(name="a", input="x", output=Tensor("a", (2,), unsigned(2)), steps=(Quantize(unsigned(2)),)),
        Op(name="b", input="x", output=Tensor("b", (2,), unsigned(3)), steps=(Quantize(unsigned(3)),)),
        Op(name="c", input="a", output=Tensor("c", (4,), unsigned(2)), steps=(Concat("b", 2),)),
    )
    message = r"^c: concat: must get numbers of one format, got u2 and u3; make real numbers of codes first$"
    with pytest.raises(GraphError, match=message):
        Graph(name="g", inputs=(Tensor("x", (2,), REAL),), ops=ops, outputs=("c",))


def test_an_op_reads_every_tensor_that_its_steps_join():
    op = Op(name="op", input="x", output=Tensor("y", (2,), REAL), steps=(Mul("a"), Concat("b", 1), Add("c")))
    assert op.inputs == ("x", "a", "b", "c")
