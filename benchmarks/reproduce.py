"""The whole reproduction of TiM-DNN, as a user runs it: time, and what of it lies within its interval.

Run: python benchmarks/reproduce.py [--out FOLDER]
"""

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="folder for the report; a passing one by default")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        out = args.out or Path(passing)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "imcsim", "reproduce", "tim-dnn", "--out", str(out)], stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            return done.returncode
        rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    known = [row for row in rows if row["printed"] and row["role"] == "predicted"]
    inside = [row for row in known if float(row["low"]) <= float(row["printed"]) <= float(row["high"])]
    print(f"{len(rows)} figures, {len(known)} predicted that are printed, {len(inside)} of them within the interval")
    print(f"whole reproduction: {seconds:.1f} s; under {LIMIT_S:.0f} s: {'PASS' if seconds < LIMIT_S else 'MISS'}")
    return int(seconds >= LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
