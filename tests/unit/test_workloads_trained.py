"""The workloads of networks that others trained: made-up arrays in, what is wrong with them out."""

import numpy as np
import pytest

from imcsim.errors import DataError
from imcsim.functional.reference import reference
from imcsim.graph import RealProduct, Threshold
from imcsim.shipped import shipped_folder
from imcsim.workloads import find_workload, shipped_workloads

NAMES = (
    "bnn-pynq-cnv-w1a1",
    "bnn-pynq-cnv-w1a2",
    "bnn-pynq-cnv-w2a2",
    "bnn-pynq-lfc-w1a1",
    "bmxnet-lenet",
    "ttq-lenet",
)
LFC = ((1024, 784), (1024, 1024), (1024, 1024), (10, 1024))
CNV = ((64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (512, 256), (512, 512), (10, 512))
FILES = {
    "bnn-pynq-cnv-w1a2": "bnn-pynq/cnvW1A2_cifar10.npz",
    "bnn-pynq-lfc-w1a1": "bnn-pynq/lfcW1A1_mnist.npz",
    "bmxnet-lenet": "bmxnet-lenet-mnist/bmxnet_lenet.npz",
    "ttq-lenet": "ttq-lenet-mnist/ttq_lenet.npz",
}


def lfc_arrays(rng):
    arrays = {f"w{i}": rng.choice([-1, 1], size=shape).astype(np.int8) for i, shape in enumerate(LFC)}
    return arrays | {f"t{i}": rng.integers(-9, 9, size=(1024, 1)).astype(np.int32) for i in range(3)}


def cnv_arrays(rng):
    shapes = [(*shape, 3, 3) if i < 6 else shape for i, shape in enumerate(CNV)]
    arrays = {f"w{i}": rng.choice([-1, 1], size=shape).astype(np.int8) for i, shape in enumerate(shapes)}
    thresholds = {f"t{i}": rng.integers(-9, 9, size=(shape[0], 2)) for i, shape in enumerate(shapes[:8])}
    return arrays | {name: np.sort(values, axis=1).astype(np.int32) for name, values in thresholds.items()}


def norm_arrays(rng, names, n):
    return dict(zip(names, (rng.normal(size=n), rng.normal(size=n), rng.normal(size=n), np.ones(n)), strict=True))


def bmxnet_arrays(rng):
    arrays = {
        "conv0.weight": rng.normal(size=(64, 1, 5, 5)),
        "conv0.bias": rng.normal(size=64),
        "qconv.weight": rng.choice([-1, 1], size=(64, 64, 5, 5)),
        "qfc.weight": rng.choice([-1, 1], size=(1000, 1024)),
        "fc.weight": rng.normal(size=(10, 1000)),
        "fc.bias": rng.normal(size=10),
    }
    for i, n in enumerate((64, 64, 1000)):
        names = [f"bn{i}.{part}" for part in ("gamma", "beta", "moving_mean", "moving_var")]
        arrays |= norm_arrays(rng, names, n)
    return arrays


def ttq_arrays(rng):
    arrays = {}
    for layer, shape in (("layer1.0", (16, 1, 5, 5)), ("layer2.0", (32, 16, 5, 5)), ("fc", (10, 1568))):
        for part, whole in (("weight", shape), ("bias", shape[:1])):
            arrays[f"{layer}.{part}.ternary"] = rng.choice([-1, 0, 1], size=whole)
            arrays |= {f"{layer}.{part}.wp": np.float32(0.5), f"{layer}.{part}.wn": np.float32(0.75)}
    for layer, n in (("layer1.1", 16), ("layer2.1", 32)):
        arrays |= norm_arrays(rng, [f"{layer}.{part}" for part in ("weight", "bias", "running_mean", "running_var")], n)
    return arrays


ARRAYS = {
    "bnn-pynq-cnv-w1a2": cnv_arrays,
    "bnn-pynq-lfc-w1a1": lfc_arrays,
    "bmxnet-lenet": bmxnet_arrays,
    "ttq-lenet": ttq_arrays,
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder of models into which made-up arrays are written."""
    monkeypatch.setenv("IMCSIM_MODELS", str(tmp_path))

    def write(name, **changes):
        path = tmp_path / FILES[name]
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **(ARRAYS[name](np.random.default_rng(0)) | changes))
        return find_workload(name)

    return write


@pytest.mark.parametrize("name", NAMES)
def test_they_are_listed_and_described_without_the_models(name, monkeypatch):
    monkeypatch.delenv("IMCSIM_MODELS", raising=False)
    monkeypatch.delenv("IMCSIM_DATA", raising=False)
    assert name in shipped_workloads()
    workload = find_workload(name)
    assert workload.module.DATASET in workload.description
    assert "licence" in workload.module.__doc__
    with pytest.raises(
        DataError, match=r"^models folder: must be given for this workload, got none; set IMCSIM_MODELS"
    ):
        workload.graph()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_network_says_which_file_is_missing(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IMCSIM_MODELS", str(tmp_path))
    message = r"\.npz: must be a file of the trained network, got no such file; check IMCSIM_MODELS$"
    for read in (find_workload(name).graph, find_workload(name).expected):
        with pytest.raises(DataError, match=message):
            read()


def test_no_weights_of_others_are_shipped():
    for name in NAMES:
        folder = shipped_folder("workloads") / name
        assert [path.name for path in folder.iterdir() if path.is_file()] == ["workload.py"]


@pytest.mark.parametrize("name", FILES)
def test_made_up_arrays_make_a_network_that_runs(name, models):
    graph = models(name).graph()
    x = np.random.default_rng(1).random((2, *graph.input.shape))
    assert reference(graph, x).shape == (2, 10)


def test_a_sum_above_its_threshold_is_one_that_reaches_the_next_whole_number(models):
    graph = models("bnn-pynq-lfc-w1a1", t0=np.full((1024, 1), 32767, np.int32)).graph()
    steps = [step for op in graph.products for step in op.steps]
    assert [type(step) for step in steps] == [Threshold] * 3
    assert np.all(steps[0].thresholds == 32768)
    assert np.array_equal(steps[1].thresholds, lfc_arrays(np.random.default_rng(0))["t1"] + 1)


def test_two_thresholds_make_ternary_codes_and_pools_follow_the_second_and_fourth_convolution(models):
    graph = models("bnn-pynq-cnv-w1a2").graph()
    assert [str(op.output.format) for op in graph.ops] == ["i8", *["ternary"] * 8, "real16"]
    assert [op.output.shape for op in graph.ops[1:7]] == [
        (64, 30, 30),
        (64, 14, 14),
        (128, 12, 12),
        (128, 5, 5),
        (256, 3, 3),
        (256,),
    ]
    assert sum(graph.n_macs(op) for op in graph.ops) == 59_461_376


def test_layers_with_real_weights_stay_on_the_digital_side(models):
    graph = models("bmxnet-lenet").graph()
    assert [op.name for op in graph.products] == ["qconv", "qfc"]
    digital = [step for op in graph.ops for step in op.steps if isinstance(step, RealProduct)]
    assert [step.kind for step in digital] == ["conv2d", "linear"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "bnn-pynq-lfc-w1a1",
            {"w1": np.full((1024, 1024), 2)},
            r"lfcW1A1_mnist\.npz: w1 must hold -1, 0 and \+1 alone, ",
        ),
        ("bnn-pynq-lfc-w1a1", {"w1": np.ones((3, 4))}, r"npz: w1 must have shape \(1024, 1024\), got \(3, 4\)$"),
        (
            "bnn-pynq-lfc-w1a1",
            {"t1": np.ones((1024, 3), int)},
            r"npz: t1 must hold 1 or 2 thresholds a channel, got 3$",
        ),
        ("bnn-pynq-lfc-w1a1", {"t2": np.ones((1024, 1))}, r"npz: t2 must hold whole numbers, got dtype float64$"),
        (
            "bmxnet-lenet",
            {"qfc.weight": np.zeros((1000, 1024)) - 7},
            r"npz: qfc\.weight must hold -1, 0 and \+1 alone, ",
        ),
        ("bmxnet-lenet", {"bn1.moving_var": -np.ones(64)}, r"npz: bn1\.moving_var must be 0 or more, got -1\.0$"),
        (
            "ttq-lenet",
            {"fc.weight.ternary": np.full((10, 1568), 3)},
            r"npz: fc\.weight\.ternary must hold -1, 0 and \+1 ",
        ),
        ("ttq-lenet", {"fc.bias.wn": np.float32(0)}, r"npz: fc\.bias\.wn must be above 0, got 0\.0$"),
        ("ttq-lenet", {"layer2.1.running_var": -np.ones(32)}, r"npz: layer2\.1\.running_var must be 0 or more, got -1"),
    ],
)
def test_arrays_that_are_no_such_network_are_one_line(models, name, changes, message):
    with pytest.raises(DataError, match=message):
        models(name, **changes).graph()
