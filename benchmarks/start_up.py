"""How long imcsim takes to start: the import, and the help page, beside bare Python and an import of torch.

Run: python benchmarks/start_up.py [--rounds N]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMITS_S = {"import imcsim": 0.5, "imcsim --help": 1.0}


def commands() -> dict[str, list[str]]:
    python = [sys.executable, "-c"]
    return {
        "python -c pass": [*python, "pass"],
        "import imcsim": [*python, "import imcsim"],
        "imcsim --help": [str(Path(sys.executable).with_name("imcsim")), "--help"],
        "import torch": [*python, "import torch"],
    }


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in commands()}
    for _ in range(rounds):  # one of each in turn, so that a busy moment of the machine hits all alike
        for name, command in commands().items():
            times[name].append(seconds(command))
    bare = statistics.median(times["python -c pass"])
    print(f"{'command':<16} {'median s':>9} {'min':>7} {'max':>7} {'x bare':>7}  limit")
    missed = False
    for name, values in times.items():
        median, limit = statistics.median(values), LIMITS_S.get(name)
        verdict = "" if limit is None else f"{limit} s {'PASS' if median < limit else 'MISS'}"
        missed |= limit is not None and median >= limit
        print(f"{name:<16} {median:9.3f} {min(values):7.3f} {max(values):7.3f} {median / bare:7.1f}  {verdict}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
