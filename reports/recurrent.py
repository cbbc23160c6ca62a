"""Recurrent networks with ternary weights and states, in float, ideal and on tim-dnn: reports/recurrent/.

IMCSIM_DATA=FOLDER python reports/recurrent.py [--samples N]

Of each shipped recurrent workload and each variant of the chip: the figure of merit beside that of an ideal chip and
of the float network trained beside it, the share of accesses that clip, latency and energy of one sequence and of one
time step. And the layers of HitNet's size (300 units, 35 steps) with random weights, for their time alone.
"""

import argparse
import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imcsim.analytic import estimate
from imcsim.arch.load import load_chip
from imcsim.graph import REAL, TERNARY, Graph, GruCell, LstmCell, Op, Product, Tensor, Threshold
from imcsim.mapping.place import place
from imcsim.results import write_whole
from imcsim.run import run
from imcsim.shipped import shipped_folder
from imcsim.sim import simulate
from imcsim.ternary import ternary
from imcsim.workloads import find_workload

OUT = Path(__file__).parent / "recurrent"
CHIP = "tim-dnn"
VARIANTS = {
    "as it is": {},
    "count_max 4": {"tile.count_max": 4},
    "count_max 16, ideal": {"tile.count_max": 16},
    "misreads": {"tile.misreads": "circuit"},
}
WORKLOADS = ("spoken-digits-ternary-gru", "shakespeare-ternary-lstm")
N_UNITS, N_STEPS = 300, 35
SEED = 0


@dataclass(frozen=True)
class Line:
    """A workload on a variant of the chip."""

    workload: str
    variant: str
    metric: str
    float_network: float
    """Of the float network, from training.json, on the whole test set."""

    reference: float
    chip: float
    n_samples: int
    clipped_share: float
    latency_ns: float
    """Of one sequence, simulated."""

    energy_pJ: float
    n_steps: int

    @property
    def step_ns(self) -> float:
        """Latency of the sequence by the number of its time steps."""
        return self.latency_ns / self.n_steps


def main() -> None:
    """Run everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, help="sequences of each test set, from the first (default: all)")
    n_samples = parser.parse_args().samples
    lines = [line_of(name, variant, n_samples) for name in WORKLOADS for variant in VARIANTS]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(lines[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    OUT.mkdir(exist_ok=True)
    write_whole(OUT / "table.csv", text.getvalue())
    write_whole(OUT / "table.md", page(lines, n_samples))


def line_of(name: str, variant: str, n_samples: int | None) -> Line:
    """Run one workload on one variant."""
    workload = find_workload(name)
    result = run(workload, load_chip(CHIP, overrides=VARIANTS[variant]), n_samples=n_samples, seed=SEED)
    summary: dict[str, Any] = result.summary
    training = json.loads((shipped_folder("workloads") / name / "training.json").read_text())
    metric = workload.metric.name
    found, clips = summary[metric], summary["accuracy"]
    line = Line(
        name,
        variant,
        metric,
        training[f"float_test_{metric}"],
        found["reference"],
        found["chip"],
        clips["n_samples"],
        clips["n_clipped_accesses"] / clips["n_accesses"],
        summary["simulate"]["latency_ns"],
        summary["simulate"]["energy_pJ"],
        result.plan.graph.input.shape[-1],
    )
    print(line, flush=True)
    return line


def layer(kind: str) -> Graph:
    """Return one layer of HitNet's size with random ternary weights behind its quantizer."""
    rng = np.random.default_rng(SEED)
    rows = rng.integers(-1, 2, size=(4 * N_UNITS, 2 * N_UNITS))
    if kind == "gru":
        rows[2 * N_UNITS : 3 * N_UNITS, N_UNITS:] = rows[3 * N_UNITS :, :N_UNITS] = 0
    halves = Threshold([[-0.5, 0.5]], [-1, 0, 1], TERNARY)
    cell = (LstmCell if kind == "lstm" else GruCell)(0.1, 0.0, halves)
    shape = (N_UNITS, 1, N_STEPS)
    ops = (
        Op(name="codes", input="x", output=Tensor("codes", shape, TERNARY), steps=(halves,)),
        Op(name=kind, input="codes", output=Tensor("h", shape, TERNARY), steps=(cell,),
           product=Product(kind=kind, weights=ternary().plane_sum(rows))),  # type: ignore[arg-type]
    )  # fmt: skip
    return Graph(name=kind, inputs=(Tensor("x", shape, REAL),), ops=ops, outputs=("h",))


def page(lines: list[Line], n_samples: int | None) -> str:
    """Return the tables as Markdown."""
    command = "python reports/recurrent.py" + (f" --samples {n_samples}" if n_samples else "")
    text = [
        "# Recurrent networks on tim-dnn\n",
        f"Made by `{command}` with IMCSIM_DATA set. Accuracy in percent (greater is better), perplexity of the next "
        "character (less is better). *Float*: a network of the same shape in float32, trained beside the ternary one "
        "with the same epochs; *ideal*: the ternary network without clipping. Latency and energy are those of one "
        "sequence, simulated.\n",
        "| workload | chip | sequences | metric | float | ternary, ideal | ternary, chip | accesses clipped | "
        "latency of a sequence (µs) | of a time step (ns) | energy (nJ) |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for line in lines:
        times, digits = (100, 2) if line.metric == "accuracy" else (1, 3)
        figures = " | ".join(f"{times * value:.{digits}f}" for value in (line.float_network, line.reference, line.chip))
        text.append(
            f"| {line.workload} | {line.variant} | {line.n_samples} | {line.metric} | {figures} | "
            f"{100 * line.clipped_share:.2f} % | {line.latency_ns / 1000:.2f} | {line.step_ns:.0f} | "
            f"{line.energy_pJ / 1000:.1f} |"
        )
    text += [
        "\nLayers of HitNet's size, random weights, for time alone. The figure for TiM-DNN's LSTM is recalled, not "
        "read: about 2 million inferences a second, presumably time steps; what its time step holds besides is not "
        "known.\n",
        "| layer | units | steps | latency (µs) | by formula (µs) | a time step (ns) | time steps a second (million) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in ("lstm", "gru"):
        plan = place(layer(kind), load_chip(CHIP))
        played, formula = simulate(plan).latency_ns, estimate(plan).latency_ns
        step = played / N_STEPS
        text.append(
            f"| {kind} | {N_UNITS} | {N_STEPS} | {played / 1000:.2f} | {formula / 1000:.2f} | {step:.0f} | "
            f"{1000 / step:.2f} |"
        )
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
