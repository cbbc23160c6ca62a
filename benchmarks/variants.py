"""100 000 variants of tim-dnn at once, 8 numbers of the chip varied, beside a loop of single estimates.

Run: python benchmarks/variants.py [--variants N] [--singles N]
"""

import argparse
import sys
import time

import numpy as np

import imcsim
from imcsim.analytic.variants import estimate_variants
from imcsim.arch.load import vary
from imcsim.workloads import shipped_workloads

LIMIT_S = 60.0


def draws(n: int) -> dict[str, np.ndarray]:
    """Return the numbers of *n* variants; the policy chooses other splits for most of the combinations."""
    rng = np.random.default_rng(0)
    return {
        "tile.access.latency_ns": rng.uniform(1, 4, n),
        "tile.access.interval_ns": rng.uniform(1, 4, n),
        "tile.n_pcus": rng.choice([8, 16, 32, 64], n),
        "tile.count_max": rng.integers(4, 17, n),
        "n_tiles": rng.choice([16, 32, 64], n),
        "reduce_unit.n_adders": rng.choice([64, 128, 256, 512], n),
        "network.bits_per_ns": rng.uniform(512, 8192, n),
        "main_memory.bits_per_ns": rng.uniform(128, 4096, n),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=100_000)
    parser.add_argument("--singles", type=int, default=20)
    args = parser.parse_args()
    name = "resnet34" if "resnet34" in shipped_workloads() else "resnet18-cifar-ternary"
    graph, chip, changes = imcsim.load_workload(name), imcsim.load_chip("tim-dnn"), draws(args.variants)
    start = time.perf_counter()
    found = estimate_variants(graph, chip, changes)
    seconds = time.perf_counter() - start
    start, worst = time.perf_counter(), 0.0
    for i in range(args.singles):
        variant = vary(chip, {key: values[i].item() for key, values in changes.items()})
        one = imcsim.estimate(imcsim.place(graph, variant))
        for ours, alone in ((found.latency_ns, one.latency_ns), (found.energy_pJ, one.energy_pJ)):
            worst = max(worst, abs(ours[i] / alone - 1))
    each = (time.perf_counter() - start) / args.singles
    print(f"{name}: {args.variants} variants of tim-dnn, {len(changes)} keys, {found.n_plans} plans: {seconds:.1f} s")
    print(f"one by one: {each * 1e3:.1f} ms each, measured on {args.singles}; greatest relative difference {worst:.1e}")
    print(f"times as fast as one by one: {each * args.variants / seconds:.0f}")
    is_fast = seconds < LIMIT_S * args.variants / 100_000
    print(f"under {LIMIT_S:.0f} s for 100 000: {'PASS' if is_fast else 'MISS'}")
    return int(not is_fast)


if __name__ == "__main__":
    sys.exit(main())
