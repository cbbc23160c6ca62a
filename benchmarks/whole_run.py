"""The first thing a user runs, as a whole process: time and memory of `imcsim run digits-ternary-cnn`, all engines.

Beside it, as what one would use instead for the accuracy alone: the same network by torch in float32, in a process of
its own. Run: python benchmarks/whole_run.py [--rounds N]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT_S, LIMIT_MIB = 20.0, 1024.0

TORCH = """
import torch
from imcsim.workloads import find_workload
workload = find_workload("digits-ternary-cnn")
module = workload.module.build()
x, labels = workload.module.data()
with torch.no_grad():
    print((module(x).argmax(1) == labels).float().mean())
"""


def measure(command: list[str]) -> tuple[float, float]:
    """Return seconds and the peak resident MiB of the process and its children."""
    start = time.perf_counter()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with status {process.returncode}")
    return time.perf_counter() - start, peak / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    imcsim = str(Path(sys.executable).with_name("imcsim"))
    runs: list[tuple[float, float]] = []
    floors: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            out = f"{folder}/{i}"
            runs.append(measure([imcsim, "run", "digits-ternary-cnn", "--chip", "tim-dnn", "--out", out]))
            floors.append(measure([sys.executable, "-c", TORCH]))
    print(f"{'process':<44} {'median s':>9} {'min':>7} {'max':>7} {'peak MiB':>9}")
    for name, values in (("imcsim run digits-ternary-cnn (all engines)", runs), ("torch, accuracy alone", floors)):
        times, peaks = [t for t, _ in values], [mib for _, mib in values]
        print(f"{name:<44} {statistics.median(times):9.2f} {min(times):7.2f} {max(times):7.2f} {max(peaks):9.0f}")
    ratio = statistics.median(a / b for (a, _), (b, _) in zip(runs, floors, strict=True))
    print(f"ratio of times {ratio:.2f}")
    fast = statistics.median(t for t, _ in runs) < LIMIT_S
    small = max(mib for _, mib in runs) < LIMIT_MIB
    print(f"under {LIMIT_S:.0f} s: {'PASS' if fast else 'MISS'}")
    print(f"under {LIMIT_MIB:.0f} MiB: {'PASS' if small else 'MISS'}")
    return int(not (fast and small))


if __name__ == "__main__":
    sys.exit(main())
