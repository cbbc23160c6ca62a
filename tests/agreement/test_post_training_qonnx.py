"""Networks quantized without training: the written file by qonnx, and what is lost on real handwriting."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from imcsim.arch.load import load_chip
from imcsim.functional.execute import execute
from imcsim.functional.reference import reference
from imcsim.graph.qonnx import read_qonnx
from imcsim.graph.qonnx.file import read_file
from imcsim.graph.qonnx.write import to_bytes, to_proto
from imcsim.mapping.place import place
from imcsim.post_training import Settings, quantize
from imcsim.post_training.evaluate import outputs_of
from imcsim.post_training.source import find_source
from imcsim.workloads import find_workload

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

N_SAMPLES = 24


@pytest.fixture(scope="module")
def source():
    """The float digits network and 256 of its training images."""
    return find_source("digits-float-cnn", n_samples=256)


@pytest.fixture(scope="module")
def ternary(source, tmp_path_factory):
    """It with ternary weights and 4-bit activations, as it is written to a file."""
    made, _ = quantize(source.model, source.calibration, Settings())
    path = tmp_path_factory.mktemp("written") / "net.onnx"
    path.write_bytes(to_bytes(made))
    return path


def accuracy(outputs, source):
    return np.mean(outputs.argmax(axis=1) == source.labels)


def test_the_float_model_is_what_torch_computes(source):
    with torch.no_grad():
        wanted = find_workload("digits-float-cnn").call("build")(torch.from_numpy(source.x)).numpy()
    np.testing.assert_allclose(outputs_of(source.model, source.x), wanted, rtol=0, atol=2e-4)
    assert accuracy(wanted, source) > 0.98


@pytest.mark.parametrize(
    ("said", "least"),
    [
        ({"weights": "8", "activations": 8}, 0.98),
        ({"weights": "4", "activations": 4}, 0.97),
        ({"weights": "ternary", "activations": 4}, 0.96),
        ({"weights": "binary", "activations": 4}, 0.94),
    ],
)
def test_little_is_lost_on_handwriting(source, said, least):
    made, _ = quantize(source.model, source.calibration, Settings(**said))
    assert accuracy(outputs_of(made, source.x), source) >= least


def test_without_corrections_much_more_is_lost(source):
    plain = Settings(weights="binary", activations=2, rounding="nearest", correction="none")
    made, _ = quantize(source.model, source.calibration, plain)
    assert accuracy(outputs_of(made, source.x), source) < 0.8


def test_an_ideal_chip_gives_what_the_reference_gives(source, ternary):
    graph = read_qonnx(ternary)
    assert [op.product.n_planes for op in graph.products] == [7, 1, 1, 7]
    chip = load_chip("tim-dnn", overrides={"tile.count_max": 16})
    x = source.x[:N_SAMPLES]
    assert np.array_equal(execute(place(graph, chip), x), reference(graph, x))


def test_qonnx_runs_the_written_file_to_the_same_numbers(source, ternary):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing to compare with")
    pytest.importorskip("qonnx", reason="qonnx is not installed: nothing to compare with")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    onnxruntime.set_default_logger_severity(3)
    model, graph = read_file(ternary), read_qonnx(ternary)
    wrapped = ModelWrapper(to_proto(model)).transform(InferShapes())
    assert to_bytes(model) == ternary.read_bytes()  # what was read and is written again
    name = model.inputs[0].name
    ours = reference(graph, source.x[:N_SAMPLES])
    theirs = np.concatenate([
        execute_onnx(wrapped, {name: x[np.newaxis]})[model.outputs[0]] for x in source.x[:N_SAMPLES]
    ])  # fmt: skip
    close = np.isclose(ours, theirs, rtol=0, atol=1e-4).all(axis=1)
    assert close.mean() >= 0.9  # of the others a number lies at the edge of a code, and float32 decides
    assert np.array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    changed = replace(model, constants={**model.constants, **_shifted(model)})
    assert not np.isclose(reference_of(changed, source), theirs, rtol=0, atol=1e-4).all(axis=1).any()


def _shifted(model):
    """The bias of the last layer, with 1 more for the first class alone."""
    (last,) = [node for node in model.nodes if node.kind == "Gemm"]
    return {last.inputs[2]: model.constants[last.inputs[2]] + np.eye(1, 10, dtype=np.float32)[0]}


def reference_of(model, source):
    return outputs_of(model, source.x[:N_SAMPLES])
