"""How fast the clipped product of a tile is, beside PyTorch's float32 matrix product on the same cores.

Run as ``python benchmarks/tile_matmul.py [--threads N] [--repeats N]``. Both are timed in turns in one run, and our
result is checked against the plain one before anything is timed. Our product clips every count and counts what
clipped; packing the activations, which a network does once for each layer, is timed apart.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch

from imcsim.functional import kernels
from imcsim.functional.crossbar import tile_matmul_plain
from imcsim.ternary.packing import pack_matrix

WANTED = 1.5
N_VECTORS, N_ROWS, N_COLUMNS = 1024, 1152, 256
ROWS_PER_ACCESS, COUNT_MAX = 16, 8
NONZERO = (0.3, 0.5, 0.7, 1.0)
TERMS = N_VECTORS * N_ROWS * N_COLUMNS


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, nargs="+", default=sorted({1, numba.config.NUMBA_NUM_THREADS}))
    options.add_argument("--repeats", type=int, default=60, help="rounds for every line of the table")
    chosen = options.parse_args()

    print(f"cpu:      {cpu_name()}, {numba.config.NUMBA_NUM_THREADS} cores")
    print(f"versions: python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}")
    print(f"product:  ({N_VECTORS} x {N_ROWS}) @ ({N_ROWS} x {N_COLUMNS}), L = {ROWS_PER_ACCESS}", end=", ")
    print(f"count_max = {COUNT_MAX}, clipped accesses counted; {chosen.repeats} rounds, medians")
    print()
    print("threads  nonzero  clipped    float32      ours  with packing   ours / float32            best /  wanted")
    print("                  accesses   GMAC/s    GMAC/s        GMAC/s   (least .. greatest)         best")
    passed = True
    for n_threads in chosen.threads:
        for nonzero in NONZERO:
            passed &= line(n_threads, nonzero, chosen.repeats)
    sys.exit(not passed)


def line(n_threads: int, nonzero: float, repeats: int) -> bool:
    torch.set_num_threads(n_threads)
    numba.set_num_threads(n_threads)
    rng = np.random.default_rng(7)
    x, w = (ternary(rng, shape, nonzero) for shape in ((N_VECTORS, N_ROWS), (N_ROWS, N_COLUMNS)))
    matrix = pack_matrix(w, ROWS_PER_ACCESS)
    vectors = kernels.pack_vectors_fast(x, ROWS_PER_ACCESS)
    a, b = torch.from_numpy(x).float(), torch.from_numpy(w).float()

    def ours() -> kernels.ClippedProduct:
        return kernels.clipped_product(vectors, matrix, count_max=COUNT_MAX)

    def with_packing() -> kernels.ClippedProduct:
        return kernels.clipped_product(kernels.pack_vectors_fast(x, ROWS_PER_ACCESS), matrix, count_max=COUNT_MAX)

    few = slice(0, 64)  # the plain version is slow
    expected = tile_matmul_plain(x[few], w, rows_per_access=ROWS_PER_ACCESS, count_max=COUNT_MAX)
    np.testing.assert_array_equal(ours().total[few], expected)
    np.testing.assert_array_equal(with_packing().total, ours().total)

    times = in_turns([lambda: a @ b, ours, with_packing], repeats)
    ratios = times[:, 0] / times[:, 1]
    rates = TERMS / np.median(times, axis=0) / 1e9
    share = ours().n_clipped_accesses / (N_VECTORS * vectors.n_blocks)
    best = times[:, 0].min() / times[:, 1].min()  # on a busy machine closer to the truth than the median
    verdict = "PASS" if min(best, np.median(ratios)) >= WANTED else "MISS"
    print(
        f"{n_threads:7}  {nonzero:7}  {share:7.1%}  {rates[0]:8.1f}  {rates[1]:8.1f}  {rates[2]:12.1f}"
        f"  {np.median(ratios):6.2f} ({ratios.min():5.2f} .. {ratios.max():5.2f})     {best:6.2f}  {verdict} {WANTED}"
    )
    return verdict == "PASS"


def ternary(rng: np.random.Generator, shape: tuple[int, int], nonzero: float) -> np.ndarray:
    signs = rng.integers(0, 2, shape, dtype=np.int8) * 2 - 1
    return signs * (rng.random(shape) < nonzero).astype(np.int8)


def in_turns(functions: list[Callable[[], object]], repeats: int) -> np.ndarray:
    """Return seconds (round function); within a round each is called twice and the better time kept."""
    times = np.empty((repeats, len(functions)))
    for round_times in times:
        for place, function in enumerate(functions):
            round_times[place] = min(seconds(function), seconds(function))
    return times


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = [row.partition(":")[2].strip() for row in info.read_text().splitlines() if row.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
