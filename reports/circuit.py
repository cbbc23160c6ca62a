"""TiM-DNN's bitline: states, margins, distributions and misreads, into reports/out/.

python reports/circuit.py [--samples N] [--seed S] [--data FOLDER]

With the data sets (--data or IMCSIM_DATA) it also counts anew how often the bitlines hold each count, which is what
`circuit.occupancy` of arch/tim-dnn.yaml is.
"""

import argparse
from pathlib import Path

from rich.console import Console

from imcsim.arch.load import load_chip
from imcsim.circuit.calibrate import alternatives, fit, predict, report, tim_dnn
from imcsim.circuit.sensing import sense
from imcsim.costs.activity import relative_energy
from imcsim.errors import DataError
from imcsim.functional.execute import run
from imcsim.mapping.place import place
from imcsim.report.circuit import print_circuit, write_circuit_figure
from imcsim.results import write_whole
from imcsim.workloads import find_workload

OUT = Path(__file__).parent / "out"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000, help="plain samples of each state")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=None, help="folder of data sets")
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
    try:
        write_whole(chosen.out / "circuit-occupancy.csv", occupancy(chosen.data))
    except DataError as error:
        print(f"occupancy not counted: {error}")


def occupancy(folder: Path | None, name: str = "fashion-ternary-cnn") -> str:
    """Return as CSV how often the bitlines of each layer hold each count when the whole test set is executed."""
    workload = find_workload(name)
    images, _ = workload.data(folder)
    chip = load_chip("tim-dnn")
    found = run(place(workload.graph(), chip), images).occupancy
    lines = [f"layer,side,zero_products,relative_energy,{','.join(map(str, range(chip.tile.rows_per_access + 1)))}"]
    for layer, seen in found.items():
        about = f"{seen.zero_products:.4f},{relative_energy(chip, seen.n, seen.k):.4f}"
        lines += [f"{layer},{side},{about},{','.join(map(str, getattr(seen, side)))}" for side in ("n", "k")]
    total = sum(seen.n + seen.k for seen in found.values())
    return "\n".join([*lines, f"all,both,,,{','.join(map(str, total))}"]) + "\n"


if __name__ == "__main__":
    main()
