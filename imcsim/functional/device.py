"""Where the products are counted: by the compiled kernels, or by torch on a GPU; the bits are the same.

Whatever counts has the three functions of `Counting`, on packed vectors and packed weights. All else - packing, what
goes wrong with a read, the digital steps - is one code for every device.
"""

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imcsim.errors import ConfigError
from imcsim.functional import kernels
from imcsim.functional.kernels import ClippedCounts, ClippedProduct
from imcsim.ternary.packing import PackedMatrix, PackedVectors, pack_matrix, pack_vectors

if TYPE_CHECKING:
    import torch


class Counting(Protocol):
    """What counts n and k of every block; `kernels` says what each function returns."""

    def clipped_product(
        self, x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256
    ) -> ClippedProduct:
        """Return the clipped n less the clipped k, summed over the blocks."""

    def clipped_counts(
        self, x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256
    ) -> ClippedCounts:
        """Return the two sums apart."""

    def count_histograms(self, x: PackedVectors, w: PackedMatrix) -> NDArray[np.int64]:
        """Return how often each count occurs (2 rows_per_access+1)."""


COMPILED: Counting = kernels
"""The compiled kernels, on all threads of this machine."""


def counting_on(device: "str | torch.device | None") -> Counting:
    """Return what counts on *device*.

    Args:
        device: None or "cpu": the compiled kernels. "cuda" or "cuda:1": that GPU. "auto": the first GPU if torch sees
            one that works, else the compiled kernels. A `torch.device` is taken as it is, so that
            ``torch.device("cpu")`` lets torch count on this machine's processor: slow, but what a GPU runs.

    Raises:
        ConfigError: another name, no such GPU, or one that does not give the bits of the compiled kernels.
    """
    if device is None or (isinstance(device, str) and device == "cpu"):
        return COMPILED
    from imcsim.functional.torch_kernels import n_gpus  # here, so that torch is loaded by those who ask for it

    name = str(device)
    if name == "auto":
        counting, problem = _tried("cuda") if n_gpus() else (COMPILED, "")
        return COMPILED if problem else counting
    gpu = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if isinstance(device, str) and gpu is None:
        raise ConfigError(f"device: must be cpu, cuda, cuda:NUMBER or auto, got {device!r}")
    if gpu is not None and int(gpu[1] or 0) >= n_gpus():
        seen = ", ".join(f"cuda:{number}" for number in range(n_gpus())) or "none"
        raise ConfigError(f"device: {name} needs a GPU that torch sees, got {seen}; leave it out")
    counting, problem = _tried(name)
    if problem:
        raise ConfigError(f"device: {name} must give the bits of the compiled kernels, got {problem}; leave it out")
    return counting


@cache
def _tried(name: str) -> tuple[Counting, str]:
    """Return what counts on a device, and what is wrong with it: GPUs are many, and none is trusted untried."""
    from imcsim.functional.torch_kernels import TorchKernels

    counting = TorchKernels(name)
    try:
        return counting, _difference_from_kernels(counting)
    except RuntimeError as error:  # such as a GPU that this build of torch has no code for
        return counting, str(error).partition("\n")[0]


def _difference_from_kernels(counting: Counting) -> str:
    """Return in which function *counting* differs from the kernels for some random numbers, or nothing."""
    rng = np.random.default_rng(0)
    for rows_per_access, count_max in ((16, 3), (10, 4), (40, 40)):
        x, w = rng.integers(-1, 2, (70, 90)), rng.integers(-1, 2, (90, 40))
        packed = pack_vectors(x, rows_per_access), pack_matrix(w, rows_per_access)
        for name in ("clipped_product", "clipped_counts", "count_histograms"):
            limits = {} if name == "count_histograms" else {"count_max": count_max, "columns_per_tile": 16}
            ours, theirs = (_numbers(getattr(where, name)(*packed, **limits)) for where in (counting, COMPILED))
            if ours != theirs:
                return f"others from {name}"
    return ""


def _numbers(found: Any) -> list[Any]:
    values = [found] if isinstance(found, np.ndarray) else vars(found).values()
    return [np.asarray(value).tolist() for value in values]
