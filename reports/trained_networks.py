"""Networks that others trained, on tim-dnn and on what wins their accuracy back: reports/trained-networks/.

IMCSIM_DATA=FOLDER python reports/trained_networks.py [--samples N]

Of each network and each variant of the chip: accuracy beside that of an ideal chip, the share of accesses that clip,
energy and latency of one inference. Samples are the first of the test set, those whose logits were published.
"""

import argparse
import csv
import io
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from imcsim.analytic import estimate
from imcsim.arch.load import load_chip
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.functional.statistics import Clipping
from imcsim.graph import Graph
from imcsim.graph.passes import simplify
from imcsim.mapping.place import place
from imcsim.results import write_whole
from imcsim.workloads import find_workload

OUT = Path(__file__).parent / "trained-networks"
CHIP = "tim-dnn"
BATCH = 250
N_CLASSES = 10
WITHIN = 0.005
"""Accuracy that a variant may lose and still count as won back."""

TERNARY = {
    "as it is": {},
    "count_max 10": {"tile.count_max": 10},
    "count_max 12": {"tile.count_max": 12},
    "count_max 16, ideal": {"tile.count_max": 16},
    "L 8": {"tile.rows_per_access": 8},
}
BINARY = TERNARY | {
    "sense n": {"tile.sense": "n"},
    "sense n, count_max 10": {"tile.sense": "n", "tile.count_max": 10},
    "sense n, count_max 12": {"tile.sense": "n", "tile.count_max": 12},
    "sense n, L 8": {"tile.sense": "n", "tile.rows_per_access": 8},
}
NETWORKS = {
    "bnn-pynq-cnv-w2a2": TERNARY,
    "bnn-pynq-cnv-w1a2": TERNARY,
    "bnn-pynq-cnv-w1a1": BINARY,
    "bnn-pynq-lfc-w1a1": BINARY,
    "bmxnet-lenet": BINARY,
    "ttq-lenet": TERNARY,
}
BITS = {"ttq-lenet": (16, 8, 4, 2)}
"""Bits of the activations, where a network leaves them open."""

INTRODUCTION = f"""\
# Networks that others trained, on tim-dnn

Made by `python reports/trained_networks.py`; every figure, unrounded, in `table.csv`. *Ideal* is the accuracy of the
reference. *Clipped* is the share of accesses in which at least one column had n or k above count_max, *columns* the
share of column reads that did, *changed* the share of outputs that are not those of the reference. Energy and latency
are those of one inference, by `estimate`, at a batch of 1; where a network does not fit on the chip at once, most of
the energy is its weights coming from main memory. Accuracy is that of the first test images: with 1 000 of them one
standard error is 1.1 points at 85 %, 0.4 at 98 %.

In a full block of a dense binary layer n + k = 16, so with count_max 8 one of the two clips unless both are 8. Read
together they keep the sign: min(n, 8) - min(k, 8). Read alone, 2 min(n, 8) - 16 is never above 0: sensing n alone saves
conversions and loses more accuracy, until count_max is nearer to 16 or a block has 8 rows.

## What wins the accuracy back: the least energy within {WITHIN:.1%} of ideal

| network | ideal | tim-dnn as it is | clipped | least energy within | energy more | latency more |
|---|---:|---:|---:|---|---:|---:|"""


@dataclass(frozen=True)
class Line:
    """One network on one variant of the chip."""

    workload: str
    activation_bits: int | None
    chip: str
    changes: str
    n_samples: int

    accuracy_published: float
    """Of the published logits."""

    accuracy_reference: float
    accuracy_chip: float

    greatest_difference_reference: float
    """Between a logit of the reference and the published one."""

    n_outputs_different: int
    """Outputs of the chip that are not the same bits as those of the reference."""

    n_accesses: int
    n_clipped_accesses: int
    n_conversions: int
    n_clipped_conversions: int
    energy_pJ: float
    latency_ns: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="of each test set, from the first; 1000 at most")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()

    lines: list[Line] = []
    for name in chosen.networks:
        for bits in BITS.get(name, (None,)):
            lines += walk(name, bits, chosen.samples)
    write_whole(chosen.out / "table.csv", to_csv(lines))
    write_whole(chosen.out / "table.md", to_markdown(lines))
    print(chosen.out / "table.md")


def walk(name: str, bits: int | None, n_samples: int) -> list[Line]:
    """Return the lines of one network."""
    workload = find_workload(name)
    graph = workload.graph() if bits is None else simplify(workload.module.graph(bits))
    published = workload.expected()[:n_samples]
    x, labels = (each[: len(published)] for each in workload.data())
    ideal = np.concatenate([reference(graph, x[i : i + BATCH]) for i in range(0, len(x), BATCH)])
    lines = []
    for title, changes in NETWORKS[name].items():
        started = time.perf_counter()
        outputs, clips, energy_pJ, latency_ns = on_chip(graph, changes, x)
        line = Line(
            workload=name,
            activation_bits=bits,
            chip=f"{CHIP}, {title}" if changes else CHIP,
            changes=" ".join(f"{key}={value}" for key, value in changes.items()),
            n_samples=len(x),
            accuracy_published=accuracy(published, labels),
            accuracy_reference=accuracy(ideal, labels),
            accuracy_chip=accuracy(outputs, labels),
            greatest_difference_reference=float(np.abs(ideal - published).max()),
            n_outputs_different=int(np.sum(outputs != ideal)),
            n_accesses=clips.n_accesses,
            n_clipped_accesses=clips.n_clipped_accesses,
            n_conversions=clips.n_conversions,
            n_clipped_conversions=clips.n_clipped_conversions,
            energy_pJ=energy_pJ,
            latency_ns=latency_ns,
        )
        lines.append(line)
        print(
            f"{name} {bits or ''} {title}: {line.accuracy_chip:.3f} in {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    return lines


def on_chip(graph: Graph, changes: dict, x: np.ndarray) -> tuple[np.ndarray, Clipping, float, float]:
    """Return outputs and clipping for *x*, and energy and latency of one inference."""
    plan = place(graph, load_chip(CHIP, overrides=changes))
    estimated = estimate(plan)
    done = run(plan, x)
    return done.outputs, done.total, estimated.energy_pJ, estimated.latency_ns


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(outputs.argmax(axis=1) == labels))


def to_csv(lines: list[Line]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Line.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    return text.getvalue()


def to_markdown(lines: list[Line]) -> str:
    text = [INTRODUCTION]
    groups: dict[str, list[Line]] = {}
    for line in lines:
        bits = f", activations of {line.activation_bits} bits" if line.activation_bits else ""
        groups.setdefault(line.workload + bits, []).append(line)
    for head, (first, *others) in groups.items():
        good = [line for line in (first, *others) if line.accuracy_chip >= line.accuracy_reference - WITHIN]
        best = min(good, key=lambda line: line.energy_pJ)
        text.append(
            f"| {head} | {first.accuracy_reference:.1%} | {first.accuracy_chip:.1%} | {clipped(first)} | "
            f"{best.chip} ({best.accuracy_chip:.1%}) | {best.energy_pJ / first.energy_pJ - 1:.1%} | "
            f"{best.latency_ns / first.latency_ns - 1:.1%} |"
        )
    for head, group in groups.items():
        first = group[0]
        text += [
            "",
            f"## {head}",
            "",
            f"{first.n_samples} samples; published {first.accuracy_published:.1%}, "
            f"ideal {first.accuracy_reference:.1%}; "
            f"the logits of the two differ by {first.greatest_difference_reference:.2g} at most",
            "",
            "| chip | accuracy | points lost | clipped | columns | changed | energy (uJ) | latency (us) |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
            *(row(line) for line in group),
        ]
    return "\n".join(text) + "\n"


def row(line: Line) -> str:
    lost = round(100 * (line.accuracy_reference - line.accuracy_chip), 1) + 0.0  # no negative zero
    columns = line.n_clipped_conversions / line.n_conversions
    changed = line.n_outputs_different / (N_CLASSES * line.n_samples)
    return (
        f"| {line.chip} | {line.accuracy_chip:.1%} | {lost:.1f} | {clipped(line)} | {columns:.3%} | {changed:.1%} | "
        f"{line.energy_pJ / 1e6:.3f} | {line.latency_ns / 1e3:.1f} |"
    )


def clipped(line: Line) -> str:
    return f"{line.n_clipped_accesses / line.n_accesses:.2%}"


if __name__ == "__main__":
    main()
