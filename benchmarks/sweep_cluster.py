"""Points per second of two worker processes beside those of one, and what the scheduler takes of every point.

Run: python benchmarks/sweep_cluster.py [--points N] [--rounds N]
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator

import numpy as np

from imcsim.arch.load import load_chip
from imcsim.sweep.cluster import Cluster, local_cluster
from imcsim.sweep.evaluate import evaluate
from imcsim.sweep.local import InProcess
from imcsim.sweep.network import network_of
from imcsim.sweep.points import points_of
from imcsim.sweep.stages import Batch, Outcomes, Runner, Stage

TIMES_AS_FAST = 1.7
OVERHEAD_MS = 2.0
SIZE = 4
"""Points of a batch: about what `imcsim sweep` puts into one, half a second of work."""

WORKLOAD = "bnn-pynq-lfc-w1a1"


def batches(n: int, size: int, engine: str = "simulate") -> Iterator[Batch]:
    """Yield *n* points, no two alike, in batches of *size*."""
    chip, stage, digest = load_chip("tim-dnn"), Stage((engine,)), network_of(WORKLOAD).digest
    for begin in range(0, n, size):
        numbers = range(begin, begin + size)
        points = points_of([{"tile.access.latency_ns": 2 + i / n, "n_tiles": 32} for i in numbers], numbers)
        keys = tuple(i.to_bytes(16, "big") for i in numbers)
        yield Batch(0, stage, WORKLOAD, None, digest, chip, points, keys, 0)


def nothing(batch: Batch) -> Outcomes:
    n = len(batch.points)
    return Outcomes({name: np.zeros(n) for name in ("latency_ns", "energy_pJ", "area_um2")}, (None,) * n, 0.0)


def seconds(runner: Runner, given: Iterable[Batch]) -> float:
    given = list(given)
    start = time.perf_counter()
    done = sum(len(batch.points) for batch, _ in runner.run(given))
    assert done == sum(len(batch.points) for batch in given)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    n = args.points
    times: dict[str, list[float]] = {"this process": [], "1 worker": [], "2 workers": []}
    overheads = []
    with local_cluster(1, evaluate) as one, local_cluster(2, evaluate) as two:
        runners: dict[str, Runner] = {"this process": InProcess(evaluate), "1 worker": one, "2 workers": two}
        for runner in runners.values():
            seconds(runner, batches(8, 1))  # which reads the network in every process
        for _ in range(args.rounds):  # one of each in turn, so that a busy moment of the machine hits all alike
            for name, runner in runners.items():
                times[name].append(seconds(runner, batches(n, SIZE)))
        idle = Cluster(two.client, nothing)
        for size in (1, 100):
            taken = min(seconds(idle, batches(size * 100, size)) for _ in range(args.rounds))
            overheads.append((size, taken / (size * 100) * 1e3))
    print(f"{'where':<14} {'points/s':>9} {'s':>7}  {WORKLOAD}, simulate, {n} points, best of {args.rounds}")
    for name, found in times.items():
        print(f"{name:<14} {n / min(found):9.1f} {min(found):7.2f}")
    gain = min(times["1 worker"]) / min(times["2 workers"])
    print(
        f"2 workers: {gain:.2f} times 1 worker, at least {TIMES_AS_FAST}: {'PASS' if gain >= TIMES_AS_FAST else 'MISS'}"
    )
    for size, each_ms in overheads:
        print(f"scheduler, 2 workers, batches of {size:>3}: {each_ms:.3f} ms a point")
    is_light = overheads[-1][1] < OVERHEAD_MS
    print(f"under {OVERHEAD_MS} ms a point in batches: {'PASS' if is_light else 'MISS'}")
    return int(gain < TIMES_AS_FAST or not is_light)


if __name__ == "__main__":
    sys.exit(main())
