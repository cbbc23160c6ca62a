"""Large sweeps as a user starts them: 100 000 chips by formula, a report of a million points, sweeps that are killed.

Run: python benchmarks/sweep.py [--points N] [--stored N] [--kills N]
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S, LIMIT_GIB, REPORT_LIMIT_S = 60.0, 2.0, 30.0
IMCSIM = [sys.executable, "-m", "imcsim"]

CHIPS = """
name: chips
workload: resnet34
chip: tim-dnn
engine: estimate
sampling: {{method: random, n: {n}}}
parameters:
  tile.access.latency_ns: {{low: 1.0, high: 4.0}}
  tile.access.interval_ns: {{low: 1.0, high: 4.0}}
  tile.n_pcus: [8, 16, 32, 64]
  tile.count_max: {{low: 4, high: 16, step: 1}}
  n_tiles: [16, 32, 64]
  reduce_unit.n_adders: [64, 128, 256, 512]
  network.bits_per_ns: {{low: 512.0, high: 8192.0}}
  main_memory.bits_per_ns: {{low: 128.0, high: 4096.0}}
objectives: [latency_ns, energy_pJ, area_um2]
"""

STORED = """
name: stored
workload: digits-ternary-cnn
chip: tim-dnn
engine: estimate
sampling: {{method: random, n: {n}}}
parameters:
  tile.access.latency_ns: {{low: 1.0, high: 4.0}}
  tile.access.pcus.energy_pJ: {{low: 1.0, high: 40.0}}
  main_memory.bits_per_ns: {{low: 128.0, high: 4096.0}}
  tile.count_max: {{low: 4, high: 16, step: 1}}
objectives: [latency_ns, energy_pJ, area_um2]
"""

KILLED = """
name: killed
workload: digits-ternary-cnn
chip: tim-dnn
stages:
  - {engine: estimate, keep: 60}
  - {engine: simulate, keep: front}
  - {engine: execute, samples: 40}
parameters:
  tile.count_max: [2, 4, 6, 8, 10, 16]
  tile.n_pcus: [8, 16, 32, 64]
  n_tiles: [4, 8, 16]
  main_memory.bits_per_ns: {low: 64, high: 4096, scale: log, n: 7}
objectives: [energy_pJ, latency_ns, area_um2, accuracy]
"""


def command(file: Path, out: Path) -> list[str]:
    return [*IMCSIM, "sweep", str(file), "--out", str(out), "--quiet", "--no-page"]


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def chips(folder: Path, n: int) -> bool:
    """Estimate *n* chips, the store included; whether it is quick enough and needs little enough memory."""
    file = folder / "chips.yaml"
    file.write_text(CHIPS.format(n=n))
    wall_s = seconds(command(file, folder / "chips"))
    gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    is_met = wall_s < LIMIT_S * max(1.0, n / 100_000) and gib < LIMIT_GIB
    print(f"resnet34, {n} chips by formula, store and tables included: {wall_s:.1f} s, at most {gib:.2f} GiB")
    print(f"under {LIMIT_S:.0f} s and {LIMIT_GIB:.0f} GiB for 100 000: {'PASS' if is_met else 'MISS'}")
    return is_met


def report(folder: Path, n: int) -> bool:
    """Draw the report of a sweep of *n* stored points; whether that is quick enough."""
    file, out = folder / "stored.yaml", folder / "stored"
    file.write_text(STORED.format(n=n))
    explored_s = seconds(command(file, out))
    size = sum(path.stat().st_size for path in out.glob("store.sqlite*")) / 2**20
    print(f"{n} points estimated and stored: {explored_s:.1f} s, {size:.0f} MiB")
    wall_s = seconds([*IMCSIM, "report", str(out)])
    page = (out / "report.html").stat().st_size / 2**20
    is_met = wall_s < REPORT_LIMIT_S
    print(f"imcsim report of them: {wall_s:.1f} s, a page of {page:.1f} MiB")
    print(f"under {REPORT_LIMIT_S:.0f} s: {'PASS' if is_met else 'MISS'}")
    return is_met


def kills(folder: Path, n: int) -> bool:
    """Kill a sweep at *n* random moments, go on, and compare with a clean run; whether all rows are the same."""
    file = folder / "killed.yaml"
    file.write_text(KILLED)
    whole_s = seconds(command(file, folder / "clean"))
    wanted = (folder / "clean" / "points.csv").read_bytes()
    draw, n_same, n_cut = random.Random(0), 0, 0
    for i in range(n):
        out = folder / f"killed-{i}"
        process = subprocess.Popen(command(file, out), stdout=subprocess.DEVNULL, start_new_session=True)
        time.sleep(draw.uniform(0.1, 1.0) * whole_s)
        n_cut += process.poll() is None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seconds(command(file, out))
        n_same += (out / "points.csv").read_bytes() == wanted
    print(
        f"killed at {n} random moments, {n_cut} of them before the end of {whole_s:.1f} s: {n_same} times the rows of "
        "a clean run"
    )
    print(f"all of them: {'PASS' if n_same == n else 'MISS'}")
    return n_same == n


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--stored", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        met = [chips(folder, args.points)] if args.points else []
        met += [report(folder, args.stored)] if args.stored else []
        met += [kills(folder, args.kills)] if args.kills else []
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
