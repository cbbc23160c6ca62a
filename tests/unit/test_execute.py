import numba
import numpy as np
import pytest
from strategies import variant

from imcsim.errors import DataError
from imcsim.functional.execute import execute, run
from imcsim.functional.reference import reference
from imcsim.functional.statistics import Clipping
from imcsim.graph import (
    REAL,
    TERNARY,
    Graph,
    LayerAttrs,
    LogSoftmax,
    Op,
    Product,
    Quantize,
    RealProduct,
    Tanh,
    Tensor,
    Threshold,
    unsigned,
)
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum

CODES = Quantize(unsigned(2))


def one_op(steps=(), *, product=None, shape=(2,), form=REAL, first=CODES):
    """A quantizer and one op behind it."""
    codes = Tensor("codes", shape, first.format)
    made = product.shape(shape) if product else shape
    for step in steps:
        made = step.shape(made)
    ops = (
        Op(name="quantize", input="x", output=codes, steps=(first,)),
        Op(name="op", input="codes", output=Tensor("y", made, form), product=product, steps=tuple(steps)),
    )
    return Graph(name="one", inputs=(Tensor("x", shape, REAL),), ops=ops, outputs=("y",))


def linear(planes, factors=(1,)):
    return Product(kind="linear", weights=PlaneSum(planes=planes, factors=factors))


def test_the_tiny_network_by_hand(ideal_chip, tiny_graph):
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, :, 0] = 1.0  # a bright edge on the left
    # edges: 3 for the vertical kernel in the left windows, 0 for the horizontal one; codes 1 and 0 behind (-1, 2)
    edges = [1, 0, 1, 0, 0, 0, 0, 0]
    rows = (np.arange(3 * 8).reshape(3, 8) * 5 // 3) % 3 - 1
    assert execute(place(tiny_graph, ideal_chip), x).tolist() == [(0.5 * (rows @ edges) + [0, 1, -1]).tolist()]


def test_counts_above_count_max_are_read_as_count_max_and_counted(tiny_chip):
    graph = one_op(
        product=linear(np.ones((1, 1, 8), dtype=int)), shape=(8,), first=Threshold([[0.5]], [0, 1], unsigned(1))
    )
    x = np.array([[1, 1, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 1, 0, 0]])
    found = run(place(graph, tiny_chip), x)  # two blocks of 4 rows, counts up to 2
    assert found.outputs.tolist() == [[2 + 1], [1 + 2]]
    assert found.clipping == {"op": Clipping(4, 1, 4, 1)}
    assert found.total == Clipping(4, 1, 4, 1)


def test_each_pass_of_an_activation_is_clipped_by_itself(tiny_chip):
    graph = one_op(product=linear(np.ones((1, 1, 4), dtype=int)), shape=(4,))
    found = run(place(graph, tiny_chip), np.array([[3.0, 3.0, 3.0, 1.0]]))
    assert found.outputs.tolist() == [[2 * 1 + 2 * 2]]
    assert found.total == Clipping(2, 2, 2, 2)


@pytest.mark.parametrize("bits", [27, 30])  # psums of 31 bits and of 34
def test_sums_beyond_32_bits_are_exact(ideal_chip, bits):
    graph = one_op(product=linear([[[1] * 8, [-1] * 8]]), shape=(8,), first=Quantize(unsigned(bits)))
    plan = place(graph, ideal_chip)
    top = 2**bits - 1
    assert plan.layers[1].psum_bits == bits + 4
    assert execute(plan, np.full((1, 8), top)).tolist() == [[8 * top, -8 * top]]


def test_a_layer_of_fewer_rows_than_a_block_clips_and_counts_its_accesses_as_any_other(tiny_chip):
    graph = one_op(product=linear(np.ones((1, 1, 3), dtype=int)), shape=(3,))
    found = run(place(graph, tiny_chip), np.array([[3.0, 3.0, 3.0]]))
    assert found.outputs.tolist() == [[1 * 2 + 2 * 2]]
    assert found.total == Clipping(2, 2, 2, 2)


def test_each_weight_plane_is_clipped_by_itself(tiny_chip):
    graph = one_op(product=linear(np.ones((2, 1, 4), dtype=int), (1, 2)), shape=(4,))
    found = run(place(graph, tiny_chip), np.array([[1.0, 1.0, 1.0, 1.0]]))
    assert found.outputs.tolist() == [[2 * 1 + 2 * 2]]
    assert found.total == Clipping(
        2, 1, 4, 2, n_idle_accesses=1
    )  # both planes side by side in one access; the second pass is all zeros


def test_padding_brings_in_a_code_whatever_its_planes(ideal_chip):
    kernel = Product(
        kind="conv2d", weights=PlaneSum(planes=np.ones((1, 1, 1, 3, 3)), factors=[1]), padding=(1, 1),
        attrs=LayerAttrs(pad_value=1),
    )  # fmt: skip
    graph = one_op(product=kernel, shape=(1, 1, 1))
    assert execute(place(graph, ideal_chip), [[[[3.0]]]]).tolist() == [[[[3 + 8 * 1]]]]


def test_factors_may_differ_from_output_to_output_and_group_to_group(ideal_chip):
    planes = np.ones((2, 4, 1, 1, 1))
    factors = np.array([[1, 2, 3, 4], [10, 20, 30, 40]])
    for shaped in (factors, factors.reshape(2, 4, 1, 1, 1)):
        kernel = Product(kind="conv2d", weights=PlaneSum(planes=planes, factors=shaped), groups=2)
        graph = one_op(product=kernel, shape=(2, 1, 1))
        x = np.array([[1.0, 2.0]]).reshape(1, 2, 1, 1)
        assert execute(place(graph, ideal_chip), x).ravel().tolist() == [11, 22, 66, 88]
        assert reference(graph, x).ravel().tolist() == [11, 22, 66, 88]


def test_one_plane_with_a_factor_for_each_output_is_no_plane_without(ideal_chip):
    graph = one_op(product=linear(np.ones((1, 2, 2)), [[1, 5]]))
    assert execute(place(graph, ideal_chip), [[1.0, 1.0]]).tolist() == [[2, 10]]


@pytest.mark.parametrize("sum_bits", [1, 3])
def test_a_threshold_out_of_reach_is_never_reached(ideal_chip, sum_bits):
    never = Threshold([[-np.inf, np.inf], [-1e300, 1e300]], [-1, 0, 1], TERNARY)
    graph = one_op(
        [never], product=linear(np.ones((1, 2, 2), dtype=int)), form=TERNARY, first=Quantize(unsigned(sum_bits))
    )
    assert execute(place(graph, ideal_chip), [[1.0, 1.0]]).tolist() == [[0, 0]]


def test_codes_meet_thresholds_wider_than_themselves(ideal_chip):
    graph = one_op(
        [Threshold([[200.0]], [0, 1], unsigned(1))], form=unsigned(1), first=Threshold([[0.0]], [0, 127], unsigned(7))
    )
    assert execute(place(graph, ideal_chip), [[1.0, -1.0]]).tolist() == [[0, 0]]


def test_codes_far_apart_are_reached(ideal_chip):
    step = Threshold([[0.5]], [-200, 200], REAL.__class__("signed", 9))
    graph = one_op([step], form=step.format)
    assert execute(place(graph, ideal_chip), [[0.0, 1.0]]).tolist() == [[-200, 200]]


def test_log_softmax_of_codes_is_as_exact_as_of_real_numbers(ideal_chip):
    graph = one_op([LogSoftmax()], first=Threshold([[0.5, 1.5]], [0, 1, 2], unsigned(2)))
    x = np.array([[2.0, 1.0]])
    assert execute(place(graph, ideal_chip), x).tolist() == [[-np.log1p(np.exp(-1)), -1 - np.log1p(np.exp(-1))]]


def test_tanh_of_codes_is_as_exact_as_of_real_numbers(ideal_chip):
    graph = one_op([Tanh()], first=Threshold([[0.5, 1.5]], [0, 1, 2], unsigned(2)))
    assert execute(place(graph, ideal_chip), [[2.0, 1.0]]).tolist() == [[np.tanh(2.0), np.tanh(1.0)]]


def test_a_real_linear_map_by_hand(ideal_chip):
    graph = one_op([RealProduct("linear", [[0.5, -1.0], [2.0, 0.25], [0.0, 0.0]], [0.0, 1.0, 3.0])])
    for outputs in (execute(place(graph, ideal_chip), [[2.0, 3.0]]), reference(graph, [[2.0, 3.0]])):
        assert outputs.tolist() == [[-2.0, 5.75, 3.0]]


def real_conv(shape, n_outputs, *, rng, **geometry):
    weights = rng.normal(size=(n_outputs, shape[0], 3, 2))
    step = RealProduct("conv2d", weights, rng.normal(size=n_outputs), **geometry)
    made = Tensor("y", step.shape(shape), REAL)
    ops = (Op(name="op", input="x", output=made, steps=(step, Tanh())),)
    return Graph(name="real", inputs=(Tensor("x", shape, REAL),), ops=ops, outputs=("y",))


@pytest.mark.parametrize("geometry", [{}, {"stride": (2, 1), "padding": (1, 2)}])
def test_a_real_convolution_is_that_of_pytorch_and_has_the_same_bits_in_both_engines(ideal_chip, geometry):
    import torch

    rng = np.random.default_rng(0)
    graph = real_conv((5, 9, 8), 7, rng=rng, **geometry)
    step = graph.ops[0].steps[0]
    x = rng.normal(size=(3, 5, 9, 8))
    theirs = torch.nn.functional.conv2d(*map(torch.tensor, (x, step.weights, step.bias)), **geometry).tanh().numpy()
    ours = execute(place(graph, ideal_chip), x)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)
    assert np.array_equal(ours, reference(graph, x))


def test_products_are_added_in_the_order_of_the_weights(ideal_chip):
    # 1e16 + 1 rounds to 1e16, so that the order shows
    graph = one_op([RealProduct("linear", [[1e16, 1.0, -1e16, 1.0]])], shape=(4,))
    x = np.ones((1, 4))
    assert execute(place(graph, ideal_chip), x).tolist() == reference(graph, x).tolist() == [[1.0]]


def test_progress_is_told_of_each_batch(tiny_chip, tiny_graph, monkeypatch):
    monkeypatch.setattr("imcsim.functional.execute.MAX_BATCH", 4)
    told = []
    run(place(tiny_graph, tiny_chip), np.zeros((10, 1, 4, 4)), progress=told.append)
    assert sorted(told) == [2, 4, 4]  # batches go side by side


def test_batches_side_by_side_misread_as_one_after_the_other(tiny_chip, tiny_graph, monkeypatch):
    monkeypatch.setattr("imcsim.functional.execute.MAX_BATCH", 4)
    chip = variant(tiny_chip, {"tile.imperfections.read_noise_counts": 0.4})
    plan, x = place(tiny_graph, chip), np.random.default_rng(0).random((30, 1, 4, 4))
    found = []
    was = numba.get_num_threads()
    for n_threads in (1, min(2, numba.config.NUMBA_NUM_THREADS), 1):
        numba.set_num_threads(n_threads)
        done = run(plan, x, rng=np.random.default_rng(3))
        found.append((done.outputs.tobytes(), done.total, [seen.n.tolist() for seen in done.occupancy.values()]))
    numba.set_num_threads(was)
    watched = run(plan, x, rng=np.random.default_rng(3), observe=lambda *_: None)  # in order, one after the other
    assert found[0] == found[1] == found[2]
    assert watched.outputs.tobytes() == found[0][0]
    assert watched.total == found[0][1]
    assert watched.total.n_misreads > 0


def test_a_batch_that_fails_stops_those_that_wait(tiny_chip, tiny_graph, monkeypatch):
    monkeypatch.setattr("imcsim.functional.execute.MAX_BATCH", 1)
    told = []

    def fail(n):
        told.append(n)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(place(tiny_graph, tiny_chip), np.zeros((200, 1, 4, 4)), progress=fail)
    assert len(told) < 10


def test_no_samples_give_no_outputs(tiny_chip, tiny_graph):
    empty = run(place(tiny_graph, tiny_chip), np.zeros((0, 1, 4, 4)))
    assert empty.outputs.shape == reference(tiny_graph, np.zeros((0, 1, 4, 4))).shape == (0, 3)
    assert empty.total == Clipping()


def test_tensors_and_lists_are_taken_as_arrays_are(tiny_chip, tiny_graph):
    import torch

    plan, x = place(tiny_graph, tiny_chip), np.ones((2, 1, 4, 4))
    assert np.array_equal(execute(plan, x), execute(plan, torch.ones(2, 1, 4, 4)))
    assert np.array_equal(execute(plan, x), execute(plan, x.tolist()))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 4, 4)), r"^input: must have shape \(b, 1, 4, 4\), got \(1, 4, 4\)$"),
        (np.zeros((1, 2, 4, 4)), r"^input: must have shape \(b, 1, 4, 4\), got \(1, 2, 4, 4\)$"),
        (np.zeros(()), r"^input: must have shape \(b, 1, 4, 4\), got \(\)$"),
        (np.full((1, 1, 4, 4), np.nan), r"^input: must be finite numbers, got nan$"),
        (np.full((1, 1, 4, 4), -np.inf), r"^input: must be finite numbers, got -inf$"),
        ("picture", r"^input: must be numbers, got could not convert"),
        ([[1], [1, 2]], r"^input: must be numbers, got "),
    ],
)
def test_inputs_that_the_network_cannot_take_are_refused(tiny_chip, tiny_graph, x, message):
    with pytest.raises(DataError, match=message):
        execute(place(tiny_graph, tiny_chip), x)


def test_a_layer_is_looked_at_for_what_its_bitlines_hold(tiny_chip):
    graph = one_op(
        product=linear(np.ones((1, 1, 8), dtype=int)), shape=(8,), first=Threshold([[0.5]], [0, 1], unsigned(1))
    )
    plan = place(graph, tiny_chip)
    x = np.array([[1, 1, 1, 1, 1, 0, 0, 0]])
    seen = run(plan, x).occupancy["op"]  # two blocks of 4 rows: counts of 4 and of 1, whatever an ADC reads of them
    assert (seen.n.tolist(), seen.k.tolist()) == ([0, 1, 0, 0, 1], [2, 0, 0, 0, 0])
    assert seen.zero_products == 3 / 8
    assert run(plan, x, looks=False).occupancy == {}


def test_looking_changes_no_output(tiny_chip, tiny_graph):
    plan, x = place(tiny_graph, tiny_chip), np.random.default_rng(0).normal(size=(5, 1, 4, 4))
    assert np.array_equal(run(plan, x).outputs, run(plan, x, looks=False).outputs)
