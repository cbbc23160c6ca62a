"""A tiny chip and a tiny graph, small enough to check by hand; and few threads, since tests share their machine."""

import os

# read when torch is imported; of several test processes each has a core
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from imcsim.arch.load import load_chip
from imcsim.graph import REAL, TERNARY, Affine, Flatten, Graph, Op, Product, Tensor, Threshold
from imcsim.ternary import PlaneSum

# a quarter of Hypothesis's own number, so that all tests take less than ten minutes, and the same ones each time;
# IMCSIM_EXAMPLES asks for as many as it says, others each time
N_EXAMPLES = int(os.environ.get("IMCSIM_EXAMPLES", "25"))
settings.register_profile(
    "imcsim",
    deadline=None,
    max_examples=N_EXAMPLES,
    derandomize="IMCSIM_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("imcsim")

TINY = {
    "n_tiles": 4,
    "tile.n_rows": 32,
    "tile.n_columns": 16,
    "tile.rows_per_access": 4,
    "tile.count_max": 2,
    "tile.n_pcus": 4,
    "activation_buffer.capacity_bits": 1024,
    "psum_buffer.capacity_bits": 1024,
}

LONGEST = (
    "test_readme.py",
    "test_plan_laws.py",
    "test_cli.py",
    "test_workloads_architectures.py",
    "test_workloads_shipped.py",
    "test_methods_uniform.py",
    "test_circuit.py",
    "test_trained_networks.py",
    "test_methods.py",
    "test_workloads_recurrent.py",
)
"""Files that come first, so that workers that take file after file end at about the same time. The second of them needs
no compiled code, which the first one meanwhile makes for all."""


def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))  # the others as they stand


@pytest.fixture(scope="session")
def tiny_chip():
    """Four tiles of 32 x 16 cells in blocks of 4 rows, counts up to 2, buffers of 128 bytes."""
    return load_chip("tim-dnn", overrides=TINY)


@pytest.fixture(scope="session")
def ideal_chip():
    """The tiny chip with ADCs that tell every count of a block apart."""
    return load_chip("tim-dnn", overrides=TINY | {"tile.count_max": 4})


@pytest.fixture(scope="session")
def tiny_graph():
    """An image 1 x 4 x 4, made ternary; a 3 x 3 convolution to 2 channels, made ternary; 3 scores."""
    quantizer = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    kernels = np.array([[[[1, 0, -1], [1, 0, -1], [1, 0, -1]]], [[[1, 1, 1], [0, 0, 0], [-1, -1, -1]]]])
    rows = (np.arange(3 * 8).reshape(3, 8) * 5 // 3) % 3 - 1
    return Graph(
        name="tiny",
        inputs=(Tensor("x", (1, 4, 4), REAL),),
        ops=(
            Op(name="quantize", input="x", output=Tensor("codes", (1, 4, 4), TERNARY), steps=(quantizer,)),
            Op(
                name="conv",
                input="codes",
                output=Tensor("edges", (8,), TERNARY),
                product=Product(kind="conv2d", weights=PlaneSum(planes=[kernels], factors=[1])),
                steps=(Threshold([[-1, 2]], [-1, 0, 1], TERNARY), Flatten()),
            ),
            Op(
                name="linear",
                input="edges",
                output=Tensor("scores", (3,), REAL),
                product=Product(kind="linear", weights=PlaneSum(planes=[rows], factors=[1], scale=0.5)),
                steps=(Affine(0.5, [0.0, 1.0, -1.0]),),
            ),
        ),
        outputs=("scores",),
    )
