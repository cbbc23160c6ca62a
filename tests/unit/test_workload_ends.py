"""Workloads with several inputs and several outputs, from the file to the summary."""

import numpy as np
import pytest

from imcsim import execute
from imcsim.arch.load import load_chip
from imcsim.errors import ConfigError, DataError, GraphError
from imcsim.functional.reference import reference
from imcsim.graph.samples import Samples
from imcsim.mapping.place import place
from imcsim.report.load import read_run
from imcsim.report.page import accuracy
from imcsim.report.terminal import headlines
from imcsim.run import run
from imcsim.sweep.evaluate import evaluate
from imcsim.sweep.keys import digest, keys_of
from imcsim.sweep.network import Network, network_of
from imcsim.sweep.points import points_of
from imcsim.sweep.stages import Batch, Stage
from imcsim.workloads import find_workload, load_workload

MODULE = """
import numpy as np
import torch
from torch import nn
from imcsim.quant import TernaryActivation, TernaryLinear

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.codes, self.scores, self.aux = TernaryActivation(), TernaryLinear(4, 3), TernaryLinear(3, 2)
        self.again = TernaryActivation()

    def forward(self, image, prior):
        hidden = self.scores(self.codes(image))
        return {"aux": self.aux(self.again(hidden)), "scores": hidden + prior}

def build():
    torch.manual_seed(0)
    return Two().eval()

def example_input():
    return {"prior": torch.zeros(1, 3), "image": torch.zeros(1, 4)}

def data(folder):
    rng = np.random.default_rng(0)
    return {"image": rng.normal(size=(40, 4)), "prior": rng.normal(size=(40, 3))}, rng.integers(0, 3, 40)
"""


@pytest.fixture
def write(tmp_path):
    def write_workload(text):
        folder = tmp_path / "two-net"
        folder.mkdir(exist_ok=True)
        (folder / "workload.py").write_text(text)
        return find_workload(folder)

    return write_workload


def test_the_output_that_is_named_comes_first(write):
    assert write(MODULE).graph().outputs == ("aux", "scores")
    graph = write(MODULE + "OUTPUT = 'scores'").graph()
    assert graph.outputs == ("scores", "aux")
    assert [(tensor.name, tensor.shape) for tensor in graph.inputs] == [("image", (4,)), ("prior", (3,))]


def test_a_run_compares_all_outputs_and_is_judged_by_one(write, tmp_path):
    workload = write(MODULE + "OUTPUT = 'scores'")
    chip = load_chip("tim-dnn")
    result = run(workload, chip, n_samples=30, explain=True, ablation=True)
    summary = result.summary
    assert summary["check"] == {"exact": True, "n_outputs": 30 * (3 + 2), "n_different": 0, "n_different_classes": 0}
    assert summary["accuracy"]["n_samples"] == 30
    assert summary["inputs"] == [{"name": "image", "shape": "4"}, {"name": "prior", "shape": "3"}]
    assert summary["outputs"] == [{"name": "scores", "shape": "3"}, {"name": "aux", "shape": "2"}]
    assert summary["layer_errors"]["first_difference"] is None
    assert {row.engine for row in result.rows} == {"simulate", "estimate"}
    result.write(tmp_path / "out", page=False)
    read = read_run(tmp_path / "out").summary
    assert "outputs    all 150 exact (scores, aux; judged by the first)" in headlines(read)
    paragraphs = accuracy(read).paragraphs
    assert "These are the numbers of scores, aux together; accuracy is that of scores." in paragraphs


def test_what_differs_is_counted_over_all_outputs(write):
    worse = load_chip("tim-dnn", overrides={"tile.count_max": 1})
    for text in (MODULE + "OUTPUT = 'scores'", MODULE.replace("(0, 3, 40)", "(0, 2, 40)")):
        workload = write(text)
        x, _ = workload.data()
        found = run(workload, worse, engine="execute").outcome
        expected, chip = reference(workload.graph(), x), execute(place(workload.graph(), worse), x)
        assert found.n_different == sum(int(np.sum(chip[name] != expected[name])) for name in expected) > 0
        assert found.n_outputs == 40 * (3 + 2)
        judged = workload.graph().outputs[0]
        classes = [outputs[judged].argmax(axis=1) for outputs in (chip, expected)]
        assert found.n_different_classes == np.sum(classes[0] != classes[1]) > 0


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("", "OUTPUT = 'logits'", ConfigError, r"workload\.py: OUTPUT: must be aux or scores, got 'logits'$"),
        ("size=(40, 3)", "size=(39, 3)", DataError,
         r"workload\.py: data\(\) must give as many samples of each input, got 40 of image, 39 of prior$"),
        ('"image": rng', '"picture": rng', DataError,
         r"^input: must have the names of the network's inputs \(image, prior\), got 'picture'$"),
        ("size=(40, 3)", "size=(40, 2)", DataError, r"^input 'prior': must have shape \(b, 3\), got \(1, 2\)$"),
        ("rng.integers(0, 3, 40)", "rng.integers(0, 3, 39)", DataError,
         r"^two-net: data\(\) must give as many labels as inputs, got 40 and 39$"),
        ("rng.integers(0, 3, 40)", "rng.integers(0, 3, (40, 2))", DataError,
         r"^two-net, output 'aux': outputs must be scores \(b classes\) and labels whole numbers \(b\), got \(40, 2\)"),
        ('return {"image": rng.normal(size=(40, 4)), "prior": rng.normal(size=(40, 3))}', "return {}", DataError,
         r"workload\.py: data\(\) must give as many samples of each input, got no input$"),
        ('"prior": torch.zeros(1, 3), ', "", GraphError,
         r"^two-net: two-net: example input must be a tensor for each .* \(image, prior\), got image; give a tuple"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(write, old, new, error, message):
    workload = write(MODULE.replace(old, new) if old else MODULE + new)
    with pytest.raises(error, match=message):
        run(workload, load_chip("tim-dnn"))


def test_methods_are_for_networks_of_one_input(write, tmp_path):
    from imcsim.quant.methods import find_method
    from imcsim.train import Settings, train

    workload = write(MODULE + "\ndef network(method):\n    return Two()\ndef split(folder):\n    return None\n")
    message = r"workload\.py: example_input\(\) must give one tensor for a network that is built .* got dict$"
    with pytest.raises(ConfigError, match=message):
        _ = Network(workload, "twn").graph
    with pytest.raises(ConfigError, match=message):
        train(workload, find_method("twn"), Settings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sweep_executes_samples_of_several_inputs(write):
    workload = write(MODULE + "OUTPUT = 'scores'")
    network, points = network_of(str(workload.path.parent)), points_of([{}, {"tile.count_max": 1}])
    chip = load_chip("tim-dnn")
    stage = Stage(("execute",), n_samples=40)
    batch = Batch(0, stage, str(workload.path.parent), None, network.digest, chip, points, keys_of(points, chip, ()), 0)
    found = evaluate(batch)
    assert found.messages == (None, None)
    for i, changes in enumerate(({}, {"tile.count_max": 1})):
        outcome = run(workload, load_chip("tim-dnn", overrides=changes), engine="execute").outcome
        assert found.figures["different_share"][i] == outcome.n_different / (40 * 5)
        assert found.figures["accuracy"][i] == np.mean(outcome.chip.right)
    assert found.figures["different_share"][0] == 0 < found.figures["different_share"][1]


def test_the_samples_that_a_store_knows_a_result_by_have_their_names(write):
    network = Network(write(MODULE))
    x, labels = network.samples(None, None)
    other = Samples({"image": x.arrays["image"], "more": x.arrays["prior"]})
    changed = Samples(x.arrays | {"prior": -x.arrays["prior"]})
    assert len({network.samples_digest(None, None), digest((other, labels)), digest((changed, labels))}) == 3
    assert network.samples_digest(None, None) == digest((Samples(dict(x.arrays)), labels))


def test_a_model_file_has_its_samples_beside_it_by_the_names_of_its_inputs(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")
    from onnx_models import Maker

    make = Maker()
    weights = make.quant(make.constant(np.eye(3)), 1.0, 0.0, 2, narrow=1)
    scores = make.node("Gemm", [make.quant("x", 1.0, 0.0, 2, narrow=1), weights], transB=1)
    sums = make.node("Add", [scores, "prior"])
    path = make.write(tmp_path, ("n", 3), sums, scores, symbolic_batch=True, more_inputs={"prior": (1, 3)})
    graph = load_workload(path)
    assert [tensor.name for tensor in graph.inputs] == ["x", "prior"]
    assert graph.outputs == (sums, scores)
    prior = np.array([[0, 0, 0], [0, 0, 9], [0, 9, 0]])
    np.savez(tmp_path / "model.npz", x=np.eye(3), prior=prior, labels=np.array([0, 2, 2]))
    outcome = run(find_workload(path), load_chip("tim-dnn"), engine="execute").outcome
    assert outcome.chip.right.tolist() == [True, True, False]
    assert outcome.n_outputs == 3 * (3 + 3)
    np.savez(tmp_path / "model.npz", x=np.eye(3), labels=np.array([0, 2, 2]))
    with pytest.raises(DataError, match=r"model\.npz: must hold the array prior, got none of that name$"):
        run(find_workload(path), load_chip("tim-dnn"), engine="execute")
