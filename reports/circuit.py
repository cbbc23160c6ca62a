"""TiM-DNN's bitline: states, margins, distributions and misreads, into reports/out/.

python reports/circuit.py [--samples N] [--seed S]
"""

import argparse
from pathlib import Path

from rich.console import Console

from imcsim.circuit.calibrate import alternatives, fit, predict, report, tim_dnn
from imcsim.circuit.sensing import sense
from imcsim.report.circuit import print_circuit, write_circuit_figure
from imcsim.results import write_whole

OUT = Path(__file__).parent / "out"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000, help="plain samples of each state")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()

    circuit = tim_dnn()
    sensing = sense(circuit, n_samples=chosen.samples, seed=chosen.seed, n_threads=2)
    print_circuit(circuit, sensing, Console(width=160))
    write_whole(chosen.out / "circuit-misreads.csv", sensing.table.to_csv())

    calibration = fit()
    record = report(calibration, predict(calibration.circuit, seed=chosen.seed))
    rows = ["precharge_V,threshold_V,chi_square,error_probability,recalled_over_ours"]
    rows += [
        f"{each.precharge_V},{each.threshold_V},{each.chi_square:.4g},{each.error_probability:.4g},{each.factor:.4g}"
        for each in alternatives(seed=chosen.seed)
    ]
    write_whole(chosen.out / "circuit-calibration.txt", "\n".join(record) + "\n")
    write_whole(chosen.out / "circuit-alternatives.csv", "\n".join(rows) + "\n")
    for path in write_circuit_figure(circuit, sensing, chosen.out):
        print(path)


if __name__ == "__main__":
    main()
