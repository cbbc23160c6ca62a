"""Networks that others trained, against the logits that were published with them.

On an ideal chip nothing clips, so whole-number networks give the published logits bit for bit. With real weights the
published ones are float32: ours, in float64, differ by its rounding.
"""

import os

import numpy as np
import pytest

from imcsim.arch.load import load_chip
from imcsim.data import find_models
from imcsim.errors import DataError
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.mapping.place import place
from imcsim.workloads import find_workload

N_SAMPLES = 1000
N_REFERENCE = 100
"""Of these the reference is checked too; all 1 000 by reports/trained_networks.py, which takes longer."""

WHOLE = ["bnn-pynq-cnv-w1a1", "bnn-pynq-cnv-w1a2", "bnn-pynq-cnv-w2a2", "bnn-pynq-lfc-w1a1"]
ACCURACY = {
    "bnn-pynq-cnv-w1a1": 0.806,
    "bnn-pynq-cnv-w1a2": 0.841,
    "bnn-pynq-cnv-w2a2": 0.860,
}
"""On the 1 000 lossless images, as their README says."""

TOLERANCE = {"ttq-lenet": 5e-3, "bmxnet-lenet": 1e-4}
"""Greatest difference of a logit; they reach 100. TTQ's is that of 16-bit activations, BMXNet's that of float32."""


def lacks():
    """Why the published networks cannot be had here, or an empty text."""
    if not os.environ.get("IMCSIM_DATA"):
        return "IMCSIM_DATA is not set: no data sets here"
    try:
        find_models()
    except DataError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(lacks()), reason=lacks() or "all there")


@pytest.fixture(scope="module")
def ideal_tim_dnn():
    return load_chip("tim-dnn", overrides={"tile.count_max": 16})


def samples(workload):
    expected = workload.expected()
    x, labels = workload.data()
    assert len(expected) == N_SAMPLES
    return x[:N_SAMPLES], labels[:N_SAMPLES], expected


@pytest.mark.parametrize("name", WHOLE)
def test_whole_number_networks_give_the_published_logits_bit_for_bit(name, ideal_tim_dnn):
    workload = find_workload(name)
    x, labels, expected = samples(workload)
    graph = workload.graph()
    done = run(place(graph, ideal_tim_dnn), x)
    assert done.total.n_clipped_accesses == 0
    assert np.array_equal(done.outputs, expected)
    assert np.array_equal(reference(graph, x[:N_REFERENCE]), expected[:N_REFERENCE])
    if name in ACCURACY:
        assert np.mean(done.outputs.argmax(axis=1) == labels) == pytest.approx(ACCURACY[name], abs=1e-9)


@pytest.mark.parametrize("name", TOLERANCE)
def test_networks_with_real_numbers_give_the_published_logits_to_their_rounding(name, ideal_tim_dnn):
    workload = find_workload(name)
    x, _, expected = samples(workload)
    graph = workload.graph()
    done = run(place(graph, ideal_tim_dnn), x)
    assert done.total.n_clipped_accesses == 0
    np.testing.assert_allclose(done.outputs, expected, rtol=0, atol=TOLERANCE[name])
    assert np.array_equal(done.outputs.argmax(axis=1), expected.argmax(axis=1))
    assert np.array_equal(reference(graph, x[:N_REFERENCE]), done.outputs[:N_REFERENCE])


def test_finer_activations_leave_float32_rounding_alone():
    workload = find_workload("ttq-lenet")
    x, _, expected = samples(workload)
    graph = workload.module.graph(24)
    np.testing.assert_allclose(reference(graph, x[:N_REFERENCE]), expected[:N_REFERENCE], rtol=0, atol=1e-4)


def test_lfc_reaches_its_accuracy_on_the_whole_test_set(ideal_tim_dnn):
    workload = find_workload("bnn-pynq-lfc-w1a1")
    x, labels = workload.data()
    outputs = run(place(workload.graph(), ideal_tim_dnn), x).outputs
    assert np.mean(outputs.argmax(axis=1) == labels) == pytest.approx(0.9834, abs=1e-9)


@pytest.mark.parametrize(("bits", "least"), [(8, 0.97), (4, 0.97), (2, 0.96)])
def test_ttq_keeps_its_accuracy_with_fewer_bits(bits, least):
    workload = find_workload("ttq-lenet")
    x, labels, _ = samples(workload)
    outputs = reference(workload.module.graph(bits), x[:500])
    assert np.mean(outputs.argmax(axis=1) == labels[:500]) >= least


def test_dense_binary_clips_heavily_on_tim_dnn_as_it_is_and_ternary_does_not():
    shares = {}
    for name in ("bnn-pynq-lfc-w1a1", "ttq-lenet"):
        workload = find_workload(name)
        x, _, _ = samples(workload)
        clips = run(place(workload.graph(), load_chip("tim-dnn")), x[:50]).total
        shares[name] = clips.n_clipped_accesses / clips.n_accesses
    assert shares["bnn-pynq-lfc-w1a1"] > 0.99  # n + k = 16: one of the two is above 8 unless both are 8
    assert shares["ttq-lenet"] < 0.01


def test_unequal_scales_are_one_asymmetric_plane_and_no_offset():
    graph = find_workload("ttq-lenet").graph()
    for op in graph.products:
        weights = op.product.weights
        assert (weights.n_planes, weights.is_asymmetric) == (1, True)
        low, zero, high = np.unique(weights.to_numbers())
        assert zero == 0
        assert -low != high


def test_constant_neurons_keep_their_saturated_thresholds():
    graph = find_workload("bnn-pynq-cnv-w2a2").graph()
    thresholds = np.concatenate([step.thresholds.ravel() for op in graph.products for step in op.steps[:1]
                                 if hasattr(step, "thresholds")])  # fmt: skip
    assert (thresholds.min(), thresholds.max()) == (-32767, 32768)
