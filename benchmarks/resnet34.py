"""A ResNet-34 told by its shapes, as whole processes: time and peak memory of an estimate and of a simulation.

Without the page and its figures (--no-page), whose drawing takes longer than either. Processor seconds stand beside
seconds on the clock, which say little on a busy machine; the limits hold for the lesser.
With --burst1 every single item of ResNet-20 is played, and the time that comes out is held against that of the default
bursts; this takes minutes. Run: python benchmarks/resnet34.py [--rounds N] [--burst1]
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

from imcsim import load_chip, load_workload, place, simulate

LIMITS = {"estimate": (1.5, 500.0), "simulate": (5.0, 500.0)}
"""Seconds, and MiB."""

AGREEMENT = 0.01


def measure(command: list[str]) -> tuple[float, float, float]:
    """Return seconds on the clock, seconds of processor time and the peak resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {os.waitstatus_to_exitcode(status)}")
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / per_mib


def whole_processes(rounds: int) -> bool:
    """Print time and memory of each engine; return whether all limits hold."""
    found: dict[str, list[tuple[float, float, float]]] = {engine: [] for engine in LIMITS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):  # one of each in turn, so that a busy moment of the machine hits both alike
            for engine in LIMITS:
                run = [
                    "run",
                    "resnet34",
                    "--chip",
                    "tim-dnn",
                    "--engine",
                    engine,
                    "--no-page",
                    "--out",
                    f"{folder}/{engine}",
                ]
                found[engine].append(measure([sys.executable, "-m", "imcsim", *run]))
    print(f"{'imcsim run resnet34':<20} {'least s':>8} {'processor s':>12} {'peak MiB':>9}  limits")
    good = True
    for engine, (limit_s, limit_mib) in LIMITS.items():
        wall, processor, peak = (min(column) for column in zip(*found[engine], strict=True))
        holds = min(wall, processor) < limit_s and peak < limit_mib
        good &= holds
        verdict = f"{limit_s} s, {limit_mib:.0f} MiB: {'PASS' if holds else 'MISS'}"
        print(f"--engine {engine:<11} {wall:8.2f} {processor:12.2f} {peak:9.0f}  {verdict}")
    return good


def single_items() -> bool:
    """Print what bursts of one item say of ResNet-20 beside the default; return whether they agree."""
    plan = place(load_workload("resnet20-cifar"), load_chip("tim-dnn"))
    start = time.process_time()
    default, single = simulate(plan), simulate(plan, burst=1)
    took = time.process_time() - start
    difference = default.latency_ns / single.latency_ns - 1
    good = abs(difference) <= AGREEMENT and default.counts == single.counts
    print(f"resnet20-cifar: default bursts {default.latency_ns:.1f} ns, burst=1 {single.latency_ns:.1f} ns")
    verdict = f"{100 * AGREEMENT:.0f} %, equal action counts: {'PASS' if good else 'MISS'}"
    print(f"difference {100 * difference:+.3f} %, {took:.0f} s of processor time  {verdict}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burst1", action="store_true", help="also play every item of ResNet-20")
    asked = parser.parse_args()
    good = whole_processes(asked.rounds)
    if asked.burst1:
        good &= single_items()
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
