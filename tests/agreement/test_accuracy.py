"""Intervals against their definition, and errors of layers against a walk in plain numpy; no code is shared."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from imcsim.arch.load import load_chip
from imcsim.functional.crossbar import tile_matmul_plain
from imcsim.functional.layer_errors import explain
from imcsim.graph import REAL, TERNARY, Affine, Graph, Op, Product, Tensor, Threshold
from imcsim.intervals import paired_interval
from imcsim.mapping.place import place
from imcsim.ternary import PlaneSum


def score(difference, n_better, n_worse, n):
    """The score statistic, the nuisance probability found by maximizing the likelihood numerically."""
    n_same = n - n_better - n_worse

    def log_likelihood(worse):
        terms = [(n_better, worse + difference), (n_worse, worse), (n_same, 1 - 2 * worse - difference)]
        return sum(count * np.log(p) for count, p in terms if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    margin = 1e-12 * (high - low)
    worse = minimize_scalar(
        lambda p: -log_likelihood(p), bounds=(low + margin, high - margin), method="bounded", options={"xatol": 1e-13}
    ).x
    variance = n * (2 * worse + difference - difference**2)
    return (n_better - n_worse - n * difference) / np.sqrt(variance)


@pytest.mark.parametrize("table", [(6, 16, 161), (1, 7, 21), (30, 4, 1000), (2, 2, 50), (0, 9, 355), (5, 0, 40)])
def test_the_ends_of_a_paired_interval_lie_where_the_score_test_just_rejects(table):
    low, high = paired_interval(*table)
    z = norm.ppf(0.975)
    assert score(low, *table) == pytest.approx(z, abs=2e-3)
    assert score(high, *table) == pytest.approx(-z, abs=2e-3)


def three_layers(rng):
    widths = [(24, 40), (12, 24), (5, 12)]
    weights = [rng.integers(-1, 2, shape) for shape in widths]
    edges = np.array([[-1.5, 1.5]])
    ops = [
        Op(
            name="in",
            input="x",
            output=Tensor("c0", (40,), TERNARY),
            steps=(Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY),),
        )
    ]
    for i, matrix in enumerate(weights, start=1):
        last = i == len(weights)
        steps = (Affine(0.25, 1.0),) if last else (Threshold(edges, [-1, 0, 1], TERNARY),)
        made = Tensor(f"c{i}", (len(matrix),), REAL if last else TERNARY)
        product = Product(kind="linear", weights=PlaneSum(planes=[matrix], factors=[1]))
        ops.append(Op(name=f"layer{i}", input=f"c{i - 1}", output=made, product=product, steps=steps))
    return Graph(name="three", inputs=(Tensor("x", (40,), REAL),), ops=tuple(ops), outputs=("c3",)), weights


def walk(codes, weights, multiply):
    """Sums and outputs of each layer."""
    found = []
    for i, matrix in enumerate(weights, start=1):
        sums = multiply(codes, matrix.T)
        outputs = 0.25 * sums + 1.0 if i == len(weights) else np.where(sums >= 1.5, 1, np.where(sums >= -1.5, 0, -1))
        found.append((codes, sums, outputs))
        codes = outputs
    return found


def decibel(wanted, found):
    wanted, found = np.asarray(wanted, float), np.asarray(found, float)
    return 10 * np.log10(np.sum(wanted**2) / np.sum((found - wanted) ** 2))


def test_errors_of_layers_are_those_of_a_walk_in_plain_numpy():
    rng = np.random.default_rng(3)
    graph, weights = three_layers(rng)
    x = rng.integers(-1, 2, (150, 40))
    plan = place(graph, load_chip("tim-dnn", {"tile.count_max": 3}))

    def clipped(codes, matrix):
        return tile_matmul_plain(codes.astype(int), matrix, rows_per_access=16, count_max=3)

    ideal, chip = walk(x, weights, lambda codes, matrix: codes @ matrix), walk(x, weights, clipped)
    found = explain(plan, x)
    for layer, (codes, wanted, outputs), (_, sums, made) in zip(found.layers[1:], ideal, chip, strict=True):
        matrix = weights[int(layer.layer[-1]) - 1].T
        assert layer.sums.ratio_dB == pytest.approx(decibel(wanted, sums))
        assert layer.own_sums.ratio_dB == pytest.approx(decibel(wanted, clipped(codes, matrix)))
        assert layer.outputs.ratio_dB == pytest.approx(decibel(outputs, made))
        assert layer.outputs.n_different == np.sum(outputs != made)
    sample, channel = np.argwhere(ideal[0][1] != chip[0][1])[0]
    first = found.first_difference
    assert (first.layer, first.stage, first.sample, first.place) == ("layer1", "sums", sample, (channel,))
    assert (first.expected, first.found) == (ideal[0][1][sample, channel], chip[0][1][sample, channel])
