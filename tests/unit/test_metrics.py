"""What outputs are judged by."""

import math

import numpy as np
import pytest

from imcsim.errors import ConfigError, DataError
from imcsim.metrics import METRICS, classes_of
from imcsim.workloads import Workload

HALF, QUARTER = math.log(0.5), math.log(0.25)
SOURCE = """
import numpy as np
from imcsim.graph import REAL, TERNARY, Embedding, Graph, LogSoftmax, Op, Product, Tensor, Affine
from imcsim.ternary import ternary

METRIC = {metric!r}


def graph():
    product = Product(kind="conv2d", weights=ternary().plane_sum(np.eye(3, dtype=int)[:, :, None, None]))
    return Graph(
        name="tokens",
        inputs=(Tensor("x", (1, 1, 4), REAL),),
        ops=(
            Op(name="table", input="x", output=Tensor("codes", (3, 1, 4), TERNARY),
               steps=(Embedding(np.eye(3, dtype=int), TERNARY),)),
            Op(name="scores", input="codes", output=Tensor("y", (3, 1, 4), REAL), product=product,
               steps=(Affine(2.0, 0.0), LogSoftmax())),
        ),
        outputs=("y",),
    )


def data(folder=None):
    x = np.array([[0, 1, 2, 0], [2, 2, 1, 0], [1, 0, 0, 2]])
    return x[:, None, None, :], {labels}
"""


def workload(tmp_path, metric="perplexity", labels="x"):
    path = tmp_path / "workload.py"
    path.write_text(SOURCE.format(metric=metric, labels=labels))
    return Workload("tokens", path)


def test_perplexity_of_fair_coins_is_two():
    metric = METRICS["perplexity"]
    outputs = np.full((2, 2, 1, 3), HALF)
    labels = np.array([[0, 1, 0], [1, 1, 1]])
    losses = metric.loss(outputs, labels)
    assert losses.tolist() == pytest.approx([-3 * HALF, -3 * HALF])
    assert metric.figure(losses.sum(), labels.size) == pytest.approx(2)


def test_perplexity_takes_the_probability_of_the_label():
    outputs = np.array([[[[HALF, QUARTER]], [[QUARTER, HALF]]]])  # b v 1 t
    assert METRICS["perplexity"].loss(outputs, np.array([[0, 0]])).tolist() == pytest.approx([-HALF - QUARTER])


def test_a_hopeless_model_still_has_a_number():
    assert math.isfinite(METRICS["perplexity"].figure(1e9, 1))


def test_classes_follow_the_labels_shape():
    assert classes_of(np.array([[0.0, 2.0, 1.0]]), np.array([0])).tolist() == [1]
    assert classes_of(np.array([[[[0.0, 5.0]], [[1.0, 4.0]]]]), np.zeros((1, 2))).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "message"),
    [
        ("accuracy", (2, 3), (2, 1), r"net: outputs must be scores \(b classes\) and labels whole numbers \(b\), got"),
        ("perplexity", (2, 3), (2,), r"net: outputs must be log-probabilities \(b v 1 t\) and labels whole numbers"),
        ("perplexity", (2, 3, 1, 4), (2, 5), r"got \(2, 3, 1, 4\) and \(2, 5\)"),
    ],
)
def test_shapes_that_do_not_fit_are_one_line(name, outputs, labels, message):
    with pytest.raises(DataError, match=message):
        METRICS[name].require(np.zeros(outputs), np.zeros(labels, int), "net")


def test_labels_beyond_the_vocabulary_are_one_line():
    with pytest.raises(DataError, match=r"^net: labels must be whole numbers from 0 to 2, got 3$"):
        METRICS["perplexity"].require(np.zeros((1, 3, 1, 2)), np.array([[0, 3]]), "net")


def test_a_workload_names_its_metric(tmp_path):
    assert workload(tmp_path).metric.name == "perplexity"
    with pytest.raises(ConfigError, match="METRIC: must be accuracy or perplexity, got 'bleu'"):
        _ = workload(tmp_path, metric="bleu").metric


def test_a_run_reports_perplexity_and_the_share_of_right_tokens(tmp_path, tiny_chip):
    from imcsim.run import run

    summary = run(workload(tmp_path), tiny_chip, engine="execute").summary
    expected = 1 + 2 * math.exp(-2)  # the right token's score is 2, those of the other two 0
    assert summary["perplexity"] == {
        "reference": pytest.approx(expected),
        "chip": pytest.approx(expected),
        "n_tokens": 12,
    }
    assert summary["accuracy"]["chip"] == summary["accuracy"]["reference"] == 1
    other = run(workload(tmp_path, labels="(x + (np.arange(4) == 0)) % 3"), tiny_chip, engine="execute").summary
    assert other["accuracy"]["chip"] == pytest.approx(9 / 12)
    assert other["perplexity"]["chip"] > expected
