"""What training for a chip wins back of the accuracy that its tiles lose: reports/noise-aware/.

IMCSIM_DATA=FOLDER python reports/noise_aware.py [--samples N]

Four networks of the same layers: fashion-ternary-cnn as it ships; the same with the statistics of its batch norms taken
anew on the chip; trained on without the tiles' behaviour; trained on with it. Each on four variants of tim-dnn. A line
of table.csv whose weights and chip are still the same is kept, so that a run that was stopped goes on; --again
computes every line.
"""

import argparse
import csv
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

import imcsim
from imcsim.functional.execute import run
from imcsim.functional.reference import reference
from imcsim.intervals import wilson_interval
from imcsim.quant import packed_state
from imcsim.results import write_whole
from imcsim.workloads import find_workload, module_beside

OUT = Path(__file__).parent / "noise-aware"
WORKLOAD = "fashion-ternary-cnn-count4-l32"
CHIP = "tim-dnn"
SEED = 0
N_STATISTICS = 6400
"""Training images that the statistics of the batch norms are taken from, anew."""

HARD = {"tile.count_max": 4, "tile.rows_per_access": 32}
CHIPS: dict[str, dict | None] = {
    "ideal": None,
    "tim-dnn (count_max 8, L 16)": {},
    "count_max 4, L 32": HARD,
    "count_max 4, L 32, misreads of its circuit": HARD | {"tile.misreads": "circuit"},
    "count_max 4, L 32, misreads of 0.5 % each way": HARD | {"tile.misreads": "reports/noise-aware/misreads.csv"},
}
"""Changes of tim-dnn; None: the reference, which has no tile."""


@dataclass(frozen=True)
class Line:
    """One network on one variant of the chip."""

    network: str
    weights_sha256: str
    chip: str
    changes: str
    seed: int
    n_samples: int
    n_right: int
    clipped_accesses: float
    """Share of accesses in which at least one column had n or k above count_max."""

    misreads: float
    """Share of single reads, of n or of k, that came out wrong by one."""

    @property
    def accuracy(self) -> float:
        return self.n_right / self.n_samples

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.n_right, self.n_samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000, help="of the test set, from the first (default all)")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--again", action="store_true", help="compute lines that are there already")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()

    workload = find_workload(WORKLOAD)
    x, labels = (each[: chosen.samples] for each in workload.data())
    before = {} if chosen.again else read(chosen.out / "table.csv")
    lines: list[Line] = []
    for name in chosen.networks:
        net = NETWORKS[name](workload.module)
        weights = hashlib.sha256(save(packed_state(net))).hexdigest()
        graph = imcsim.capture(net, workload.module.example_input(), name=WORKLOAD)
        for chip, changes in CHIPS.items():
            started = time.perf_counter()
            said = " ".join(f"{key}={value}" for key, value in (changes or {}).items())
            line = before.get((name, weights, chip, said, SEED, len(x)))
            if line is None:
                outputs, clipped, misread = on_chip(graph, changes, x)
                n_right = int(np.sum(outputs.argmax(axis=1) == labels))
                line = Line(name, weights, chip, said, SEED, len(x), n_right, clipped, misread)
            lines.append(line)
            write_whole(chosen.out / "table.csv", to_csv(lines + others(before, lines)))
            print(f"{name}, {chip}: {line.accuracy:.4f} in {time.perf_counter() - started:.0f} s", flush=True)
    write_whole(chosen.out / "table.md", to_markdown(lines))
    print(chosen.out / "table.md")


def on_chip(graph: imcsim.graph.Graph, changes: dict | None, x: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return outputs, the share of accesses that clip and the share of reads that are wrong."""
    if changes is None:
        return reference(graph, x), 0.0, 0.0
    plan = imcsim.place(graph, imcsim.load_chip(CHIP, overrides=changes))
    done = run(plan, x, rng=np.random.default_rng(SEED))
    clips = done.total
    return done.outputs, clips.n_clipped_accesses / clips.n_accesses, clips.n_misreads / (2 * clips.n_conversions)


def with_statistics_of_the_chip(module) -> nn.Module:
    """Return the shipped network, its batch norms averaged over training images on the chip; no weight changes."""
    chip = imcsim.load_chip(CHIP, overrides=HARD)
    tuned = imcsim.for_chip(module.start(), chip, module.example_input()).train()
    for part in tuned.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the average of all batches
    training = module_beside(__file__, f"../workloads/{WORKLOAD}/train.py")
    (images, _), _ = training.train_and_validation(module.split("train"))
    with torch.no_grad():
        for batch in images[:N_STATISTICS].split(128):
            tuned(batch)
    return tuned.eval()


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "as it ships": lambda module: module.start(),
    "batch norms taken anew on the chip": with_statistics_of_the_chip,
    "trained on without the tiles": lambda module: module.control(),
    "trained on with the tiles": lambda module: module.build(),
}


def read(path: Path) -> dict[tuple, Line]:
    """Return the lines of an earlier run by what they depend on."""
    if not path.exists():
        return {}
    lines = [
        Line(**{name: Line.__annotations__[name](value) for name, value in row.items()})
        for row in csv.DictReader(io.StringIO(path.read_text()))
    ]
    return {key(line): line for line in lines}


def key(line: Line) -> tuple:
    return line.network, line.weights_sha256, line.chip, line.changes, line.seed, line.n_samples


def others(before: dict[tuple, Line], lines: list[Line]) -> list[Line]:
    """Return the lines of the earlier run that this one has not come to yet."""
    done = {key(line) for line in lines}
    return [line for at, line in before.items() if at not in done]


def to_csv(lines: list[Line]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(Line.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    return text.getvalue()


def to_markdown(lines: list[Line]) -> str:
    found = {(line.network, line.chip): line for line in lines}
    names = list(dict.fromkeys(line.network for line in lines))
    text = [
        "# Training for a chip that clips hard",
        "",
        "Made by `python reports/noise_aware.py`; every figure, unrounded, in `table.csv`. Accuracy on the first "
        f"{lines[0].n_samples} test images of Fashion-MNIST,",
        "with the 95 % interval by Wilson's score. Rows of the table are chips, columns are networks of the same "
        "layers: *as it ships*, fashion-ternary-cnn;",
        f"*batch norms taken anew*, the same weights with statistics from {N_STATISTICS} training images on the chip "
        "of count_max 4 and L 32; *trained on*, by",
        f"`workloads/{WORKLOAD}/train.py`, from the shipped weights, for as many epochs without the tiles' behaviour "
        "in the forward pass (the control) and with",
        "it, count_max 4 and L 32, no misreads. *Clipped* is the share of accesses in which at least one column had n "
        "or k above count_max, for the network as it ships and",
        "for the last; *misread* the share of single reads wrong by one, for the last. The circuit's table is that of "
        "32 cells on tim-dnn's bitline; the table of 0.5 % each way is assumed (`misreads.csv`).",
        "",
        f"| chip | {' | '.join(names)} | clipped, before | clipped, after | misread |",
        f"|---|{'---:|' * (len(names) + 3)}",
    ]
    for chip in CHIPS:
        row = [found[name, chip] for name in names]
        cells = " | ".join(cell(line) for line in row)
        first, last = row[0], row[-1]
        shares = f"{first.clipped_accesses:.1%} | {last.clipped_accesses:.1%} | {last.misreads:.2g}"
        text.append(f"| {chip} | {cells} | {shares if chip != 'ideal' else '| |'} |")
    return "\n".join(text) + "\n"


def cell(line: Line) -> str:
    low, high = line.interval
    return f"{line.accuracy:.2%} ({100 * low:.2f} to {100 * high:.2f})"


if __name__ == "__main__":
    main()
