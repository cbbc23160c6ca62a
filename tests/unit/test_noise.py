import numba
import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from imcsim.arch.load import load_chip
from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError
from imcsim.functional import drawing
from imcsim.functional.adcs import Adcs
from imcsim.functional.conversions import Sums
from imcsim.functional.drawing import exponentials
from imcsim.functional.execute import run
from imcsim.functional.noise import draw_misreads, error_table
from imcsim.functional.reading import Keys, Reader
from imcsim.graph import REAL, TERNARY, Graph, Op, Product, Tensor, Threshold
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum
from imcsim.ternary.packing import pack_matrix, pack_vectors


def packed(x, w, rows_per_access=4):
    return pack_vectors(np.array(x, np.int8), rows_per_access), pack_matrix(np.array(w, np.int8), rows_per_access)


def always(n, step, n_counts=5):
    """Count n is always misread by *step*; no other ever is."""
    lower, higher = np.zeros(n_counts), np.zeros(n_counts)
    (lower if step < 0 else higher)[n] = 1.0
    return ErrorTable(lower=lower, higher=higher)


def reader(table, seed=0):
    return Reader(count_max=4, columns_per_tile=256, table=table, keys=Keys(np.random.default_rng(seed)))


X = [[1, 1, -1, 0, 1, 1, 1, -1]]  # two blocks of four rows
W = [[1], [1], [1], [1], [1], [-1], [0], [0]]  # n = 2, k = 1; n = 1, k = 1


@pytest.mark.parametrize(
    ("n", "step", "difference"),
    [(2, 1, 2), (2, -1, 0), (1, 1, 0), (1, -1, 2), (3, 1, 1)],
    # 1 without misreads; n = 1 is met once as n and twice as k
)
def test_a_count_that_is_always_misread_changes_the_sum_by_it(n, step, difference):
    found = reader(always(n, step)).difference(*packed(X, W))
    assert found.sums[0].tolist() == [[difference]]


def test_n_and_k_are_misread_apart():
    found = reader(always(1, 1)).both(*packed(X, W))
    assert [part.tolist() for part in found.sums] == [[[2 + 2]], [[2 + 2]]]
    assert found.n_misreads == 3


def test_where_n_is_read_alone_no_k_is_misread():
    found = reader(always(1, 1)).n_alone(*packed(X, W))
    assert found.sums[0].tolist() == [[2]]
    assert found.n_misreads == 1


def test_each_of_two_accesses_is_misread_by_its_own_count():
    found = reader(always(2, 1)).twice(*packed(X, W))  # n1 2 and 1, k1 0 and 1; n2 1 and 0, k2 0
    assert [int(part[0, 0]) for part in found.sums] == [3 + 1, 1, 1, 0]


def drawn(x, w, adcs, rng, n_sides=2):
    """How many reads are wrong, and by how much those of n and of k are (b c)."""
    n, k = np.zeros((2, x.n_vectors, w.n_columns), np.int32)
    return draw_misreads(x, w, adcs, Keys(rng).next, n_sides=n_sides, sums=Sums(n, k, 1)), n, k


def test_rates_of_misreads_are_those_of_the_table():
    rng = np.random.default_rng(1)
    x, w = packed(rng.integers(-1, 2, (6000, 16)), rng.integers(-1, 2, (16, 20)), rows_per_access=16)
    table = ErrorTable(
        lower=[0, 0.001, 0.002, 0.005, 0.01] + [0.0] * 12, higher=[0.005, 0.0005, 0.003, 0, 0.015] + [0.0] * 12
    )
    numbers = np.random.default_rng(1)
    dense_x, dense_w = numbers.integers(-1, 2, (6000, 16)), numbers.integers(-1, 2, (16, 20))
    n = ((dense_x > 0) @ (dense_w > 0).astype(int)) + ((dense_x < 0) @ (dense_w < 0).astype(int))
    k = ((dense_x > 0) @ (dense_w < 0).astype(int)) + ((dense_x < 0) @ (dense_w > 0).astype(int))
    n_wrong, *steps = drawn(x, w, Adcs.ideal(16, 16, 0.0, table), np.random.default_rng(7))
    true, step = np.concatenate([n.ravel(), k.ravel()]), np.concatenate([part.ravel() for part in steps])
    occupancy = np.bincount(np.concatenate([n.ravel(), k.ravel()]), minlength=17)
    observed, expected = [], []
    for count in range(5):
        for moved, share in ((-1, table.lower[count]), (1, table.higher[count])):
            if share:
                observed.append(int(np.sum((true == count) & (step == moved))))
                expected.append(occupancy[count] * share)
            else:
                assert not np.any((true == count) & (step == moved))
    assert n_wrong == sum(observed)
    scaled = np.array(expected) * sum(observed) / sum(expected)
    assert chisquare(observed, scaled).pvalue > 0.01
    assert sum(observed) == pytest.approx(sum(expected), abs=4 * sum(expected) ** 0.5)


def test_nothing_above_the_end_of_a_table_is_misread():
    x, w = packed(np.ones((50, 8)), np.ones((8, 3)))
    adcs = Adcs.ideal(4, 4, 0.0, ErrorTable(lower=[0, 0.02], higher=[0.02, 0]))
    assert not adcs.is_dense.any()
    assert drawn(x, w, adcs, np.random.default_rng(0), n_sides=1)[0] == 0


def test_the_same_weights_may_be_read_by_many_adcs_in_turn():
    x, w = packed(np.ones((2000, 4)), np.ones((4, 3)))
    for i in range(20):  # more than are kept
        lower, higher = (0.02, 0.0) if i % 2 else (0.0, 0.01)
        adcs = Adcs.ideal(4, 4, 0.0, ErrorTable(lower=[0, 0, 0, 0, lower], higher=[0, 0, 0, higher, 0]))
        n_wrong, n, _ = drawn(x, w, adcs, np.random.default_rng(i), n_sides=1)
        assert n_wrong == -n.sum()
        assert (n_wrong > 50) is bool(i % 2)


def network():
    rng = np.random.default_rng(0)
    product = Product(kind="linear", weights=PlaneSum(planes=rng.integers(-1, 2, (1, 40, 200)), factors=[1]))
    quantizer = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    return Graph(
        name="net",
        inputs=(Tensor("x", (200,), REAL),),
        ops=(
            Op(name="in", input="x", output=Tensor("codes", (200,), TERNARY), steps=(quantizer,)),
            Op(name="layer", input="codes", output=Tensor("y", (40,), REAL), product=product),
        ),
        outputs=("y",),
    ), rng.integers(-1, 2, (300, 200))


def test_a_seed_gives_the_same_bits_with_one_thread_and_two():
    graph, x = network()
    plan = place(graph, load_chip("tim-dnn", {"tile.misreads": "circuit"}))
    outputs = []
    before = numba.get_num_threads()
    for n_threads, seed in ((1, 5), (min(2, before), 5), (1, 6)):
        numba.set_num_threads(n_threads)
        outputs.append(run(plan, x, rng=np.random.default_rng(seed)))
    numba.set_num_threads(before)
    assert np.array_equal(outputs[0].outputs, outputs[1].outputs)
    assert outputs[0].total.n_misreads > 0
    assert not np.array_equal(outputs[0].outputs, outputs[2].outputs)


def test_a_chip_that_misreads_nothing_draws_nothing():
    graph, x = network()
    rng = np.random.default_rng(3)
    found = run(place(graph, load_chip("tim-dnn")), x, rng=rng)
    assert found.total.n_misreads == 0
    assert rng.bit_generator.state == np.random.default_rng(3).bit_generator.state


def test_a_chip_that_misreads_needs_a_generator():
    graph, x = network()
    with pytest.raises(
        ConfigError, match=r"rng: must be a generator for a chip that misreads or reads with noise, got None"
    ):
        run(place(graph, load_chip("tim-dnn", {"tile.misreads": "circuit"})), x)


def test_a_users_table_is_read_and_must_reach_count_max(tmp_path):
    path = tmp_path / "misreads.csv"
    path.write_text("n,lower,higher\n" + "".join(f"{n},0,{0.5 if n == 1 else 0}\n" for n in range(9)))
    table = error_table(load_chip("tim-dnn", {"tile.misreads": str(path)}))
    assert table is not None
    assert table.higher.tolist() == [0, 0.5, 0, 0, 0, 0, 0, 0, 0]
    path.write_text("n,lower,higher\n0,0,0\n1,0,0.5\n")
    with pytest.raises(ConfigError, match=r"must have a line for each count up to 8, got 2"):
        error_table(load_chip("tim-dnn", {"tile.misreads": str(path)}))


def test_misreads_of_a_circuit_need_a_circuit():
    chip = load_chip("tim-dnn", {"tile.misreads": "circuit"}).model_copy(update={"circuit": None})
    with pytest.raises(ConfigError, match=r"tile\.misreads: circuit needs a chip that describes one, got none"):
        error_table(chip)


def test_passes_that_go_into_one_total_are_misread_as_often_as_they_count():
    found = reader(always(1, 1))
    x, w = packed(X, W)
    alone = found.difference(x, w).sums[0]
    total = np.full((1, 1), 100, np.int32)
    assert found.difference(x, w, onto=(total, -4)).sums[0] is total
    assert total.tolist() == (100 - 4 * alone).tolist()


# --- exponential numbers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn_exponentials():
    drawn = np.empty(200_000)
    exponentials(np.uint64(11), 0, drawn, np.empty(len(drawn), np.uint64), np.empty(len(drawn), np.int64))
    return drawn


def test_an_exponential_number_depends_on_its_place_alone(drawn_exponentials):
    drawn = np.empty(300)
    exponentials(np.uint64(11), 700, drawn, np.empty(300, np.uint64), np.empty(300, np.int64))
    assert np.array_equal(drawn, drawn_exponentials[700:1000])


def test_exponential_numbers_have_the_distribution(drawn_exponentials):
    assert kstest(drawn_exponentials, "expon").pvalue > 0.01
    assert drawn_exponentials.mean() == pytest.approx(1, abs=0.01)
    assert (drawn_exponentials**2).mean() == pytest.approx(2, abs=0.05)


def test_the_tail_of_exponential_numbers_is_that_of_the_distribution(drawn_exponentials):
    n, beyond = len(drawn_exponentials), 7.69711747013104972
    expected = n * np.exp(-beyond)
    assert abs(np.sum(drawn_exponentials > beyond) - expected) < 4 * np.sqrt(expected)
    assert drawn_exponentials.min() > 0


def test_layers_of_the_ziggurat_have_one_area():
    widths, densities = drawing._WIDTHS, drawing._DENSITIES
    areas = widths[1:-1] * (densities[2:] - densities[1:-1])
    assert areas == pytest.approx(np.full(len(areas), drawing._AREA), rel=1e-6)
