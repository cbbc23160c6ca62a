"""Where the products are counted: by the compiled kernels, or by torch on a GPU; the bits are the same.

Whatever counts has the functions of `Counting`. All else - what goes wrong with a read, the digital steps - is one
code for every device.
"""

import re
from dataclasses import replace
from functools import cache
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from imcsim.errors import ConfigError
from imcsim.functional import kernels
from imcsim.functional.kernels import ClippedCounts, ClippedProduct
from imcsim.ternary.packing import Drive, PackedMatrix, PackedVectors, pack_matrix

Device = Any
"""None, "cpu", "cuda", "cuda:NUMBER", "auto", or a `torch.device`; see `counting_on`."""


class Counting(Protocol):
    """What packs vectors and counts n and k of every block; `kernels` says what each function returns."""

    def pack_vectors_fast(self, x: NDArray[np.int8], rows_per_access: int) -> PackedVectors:
        """Pack ternary vectors (b r)."""

    def pack_patches(
        self,
        codes: NDArray[np.int8],
        *,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        pad_value: int = 0,
        rows_per_access: int,
    ) -> PackedVectors:
        """Pack the patches under a sliding kernel."""

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

    def count_idle(self, x: PackedVectors, which: Drive = "signed") -> int:
        """Return how many blocks, of all vectors, have no input that *which* drives."""


COMPILED: Counting = kernels
"""The compiled kernels, on all threads of this machine."""


def counting_on(device: Device) -> Counting:
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


def keeping_sums(counting: Counting) -> Counting:
    """Return *counting* with sums that stay where they are made until they are `fetched`.

    For those alone who do nothing with the sums of single passes but `add_pass` them: on a device they are tensors.
    """
    if counting is COMPILED:
        return counting
    from imcsim.functional.torch_kernels import TorchKernels

    return replace(counting, keeps_sums=True) if isinstance(counting, TorchKernels) else counting


def add_pass(counted: list[Any], sums: list[Any], factor: float, bound: float) -> list[Any]:
    """Return *counted*, or zeros where nothing was, plus *factor* times *sums*; no total is beyond *bound*.

    A factor that is no whole number makes float64 of the totals, each product and each sum rounded.
    """
    if not isinstance(factor, int):
        parts = [part.astype(np.float64) for part in fetched(sums)]
        return [part * factor + (counted[i] if counted else 0.0) for i, part in enumerate(parts)]
    is_wide = bound >= 1 << 31
    if isinstance(sums[0], np.ndarray):
        counted = counted or [np.zeros(part.shape, np.int64 if is_wide else np.int32) for part in sums]
        for total, part in zip(counted, sums, strict=True):
            kernels.add_up(total, part, factor)
        return counted
    wide = [part.long() if is_wide else part for part in sums]
    if not counted:
        return [part * factor for part in wide]
    return [total.add_(part, alpha=factor) for total, part in zip(counted, wide, strict=True)]


def fetched(sums: list[Any]) -> list[NDArray[Any]]:
    """Return *sums* as arrays of this machine."""
    return [part if isinstance(part, np.ndarray) else part.cpu().numpy() for part in sums]


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
    images, weights = rng.integers(-1, 2, (2, 6, 7, 8), np.int8), rng.integers(-1, 2, (72, 40), np.int8)
    for rows_per_access, count_max in ((16, 3), (10, 4), (80, 80)):
        window: dict[str, Any] = {"kernel": (3, 3), "padding": (1, 1), "rows_per_access": rows_per_access}
        ours, theirs = (where.pack_patches(images, **window) for where in (counting, COMPILED))
        if not np.array_equal(ours.codes, theirs.codes):
            return "others from pack_patches"
        for drive in get_args(Drive):
            if counting.count_idle(ours, drive) != COMPILED.count_idle(theirs, drive):
                return "others from count_idle"
        matrix = pack_matrix(weights, rows_per_access)
        for name in ("clipped_product", "clipped_counts", "count_histograms"):
            limits = {} if name == "count_histograms" else {"count_max": count_max, "columns_per_tile": 16}
            if _numbers(getattr(counting, name)(ours, matrix, **limits)) != _numbers(
                getattr(COMPILED, name)(theirs, matrix, **limits)
            ):
                return f"others from {name}"
    return ""


def _numbers(found: Any) -> list[Any]:
    values = [found] if isinstance(found, np.ndarray) else vars(found).values()
    return [np.asarray(value).tolist() for value in values]
