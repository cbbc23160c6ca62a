"""QONNX files that others published, as they are, against what qonnx and onnxruntime make of them.

On an ideal chip nothing clips: the greatest logit is that of the other runtime for every image, and the logits differ
by the rounding of its float32.
"""

import os

import numpy as np
import pytest

from imcsim.arch.load import load_chip
from imcsim.data import find_models, load_mnist
from imcsim.errors import DataError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.mapping.place import place
from imcsim.workloads import find_workload

pytest.importorskip("onnx", reason="onnx is not installed: pip install imcsim[onnx]")

N_SAMPLES = 1000
N_REFERENCE = 100
FLOAT32 = 1e-6
"""Greatest difference of a logit; they reach 10, where float32 numbers lie 1e-6 apart."""

ACCURACY = {"TFC_1W1A": 0.913, "TFC_1W2A": 0.938, "TFC_2W2A": 0.966}
"""On the first 1 000 test images, by the stored logits."""


def lacks():
    """Why the published models cannot be had here, or an empty text."""
    if not os.environ.get("IMCSIM_DATA"):
        return "IMCSIM_DATA is not set: no data sets here"
    try:
        folder = find_models() / "qonnx-tfc-mnist"
    except DataError as error:
        return str(error)
    return "" if folder.is_dir() else f"{folder} is not there"


pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "all there")


@pytest.fixture(scope="module")
def images():
    """Pixels from 0 to 1 as float32 has them, which is what the other runtime got."""
    pixels, labels = load_mnist("test")
    x = pixels[:N_SAMPLES].astype(np.float32) / np.float32(255)
    return x.reshape(-1, 1, 28, 28), labels[:N_SAMPLES]


@pytest.mark.parametrize("name", ACCURACY)
def test_every_image_gets_the_class_and_the_logits_of_the_other_runtime(name, images):
    x, labels = images
    folder = find_models() / "qonnx-tfc-mnist"
    with np.load(folder / f"{name}_expected_first1000.npz", allow_pickle=False) as stored:
        expected = stored["logits"]
        assert np.array_equal(stored["labels"], labels)
    graph = find_workload(folder / f"{name}.onnx").graph()
    done = run(place(graph, load_chip("tim-dnn", overrides={"tile.count_max": 16})), x)
    assert done.total.n_clipped_accesses == 0
    assert np.array_equal(done.outputs.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(done.outputs, expected, rtol=0, atol=FLOAT32)
    assert np.array_equal(reference(graph, x[:N_REFERENCE]), done.outputs[:N_REFERENCE])
    assert np.mean(done.outputs.argmax(axis=1) == labels) == pytest.approx(ACCURACY[name], abs=1e-9)


@pytest.mark.parametrize(("name", "codes"), [("TFC_1W1A", "binary"), ("TFC_1W2A", "ternary"), ("TFC_2W2A", "ternary")])
def test_the_networks_come_in_as_four_layers_of_one_plane(name, codes):
    graph = find_workload(find_models() / "qonnx-tfc-mnist" / f"{name}.onnx").graph()
    assert [op.product.weights.shape for op in graph.products] == [(64, 784), (64, 64), (64, 64), (10, 64)]
    assert [op.product.n_planes for op in graph.products] == [1, 1, 1, 1]
    assert [str(graph.tensors[op.input].format) for op in graph.products] == [codes] * 4
    assert [len(op.steps) for op in graph.products] == [1, 1, 1, 1]  # batch norms are in the thresholds
