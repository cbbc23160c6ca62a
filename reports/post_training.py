"""What float networks lose when they are quantized without training: reports/post-training/.

IMCSIM_DATA=FOLDER python reports/post_training.py [--samples N]

Of each shipped float network and each setting of `imcsim quantize`: accuracy of the float network, of the quantized one
on an ideal chip, and of the same file on tim-dnn, whose ADCs clip.
"""

import argparse
import csv
import io
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imcsim.arch.load import load_chip
from imcsim.intervals import wilson_interval
from imcsim.post_training import Settings
from imcsim.post_training.command import quantize_file
from imcsim.results import write_whole

OUT = Path(__file__).parent / "post-training"
CHIP = "tim-dnn"
NETWORKS = ("digits-float-cnn", "mnist-float-cnn", "fashion-float-cnn")
PLAIN = {"rounding": "nearest", "correction": "none"}
SETTINGS: tuple[dict[str, Any], ...] = (
    {"weights": "8", "activations": 8},
    {"weights": "4", "activations": 4},
    {"weights": "3", "activations": 4},
    {"weights": "ternary", "activations": 8},
    {"weights": "ternary", "activations": 4},
    {"weights": "ternary", "activations": 2},
    {"weights": "ternary", "activations": 4, "edges": None},
    {"weights": "ternary", "activations": 2, "edges": None},
    {"weights": "binary", "activations": 4},
    {"weights": "binary", "activations": 2},
    {"weights": "ternary", "activations": 4, **PLAIN},
    {"weights": "ternary", "activations": 4, **PLAIN, "correction": "bias"},
    {"weights": "ternary", "activations": 4, **PLAIN, "correction": "scale"},
    {"weights": "ternary", "activations": 2, **PLAIN},
    {"weights": "binary", "activations": 2, **PLAIN},
)
N_SAMPLES = 1000


@dataclass(frozen=True)
class Line:
    """A network by one setting; accuracies are shares of right samples."""

    network: str
    weights: str
    activations: int
    edges: str
    rounding: str
    correction: str
    n_samples: int
    float_accuracy: float
    ideal_accuracy: float
    chip_accuracy: float


def main() -> None:
    """Quantize everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=N_SAMPLES, help="test samples, from the first (default 1000)")
    n_samples = parser.parse_args().samples
    lines = [line_of(name, Settings(**said), n_samples) for name in NETWORKS for said in SETTINGS]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(lines[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(line) for line in lines)
    OUT.mkdir(exist_ok=True)
    write_whole(OUT / "table.csv", text.getvalue())
    write_whole(OUT / "table.md", page(lines))


def line_of(name: str, settings: Settings, n_samples: int) -> Line:
    """Quantize one network by one setting and judge it."""
    with tempfile.TemporaryDirectory() as folder:
        made = quantize_file(name, Path(folder) / "net.onnx", settings, n_samples=n_samples, chip=load_chip(CHIP))
    found = made.accuracy
    assert found is not None
    assert found.on_chip is not None
    line = Line(
        name,
        settings.weights,
        settings.activations,
        "same" if settings.edges is None else str(settings.edges),
        settings.rounding,
        settings.correction,
        found.n_samples,
        found.original,
        found.quantized,
        found.on_chip,
    )
    print(line, flush=True)
    return line


def page(lines: list[Line]) -> str:
    """Return the table as Markdown."""
    n = max(line.n_samples for line in lines)
    widest = max(
        (high - low) / 2
        for low, high in (
            wilson_interval(round(line.ideal_accuracy * line.n_samples), line.n_samples) for line in lines
        )
    )
    text = [
        "# Float networks, quantized without training\n",
        f"Made by `python reports/post_training.py --samples {n}` with IMCSIM_DATA set: `imcsim quantize NETWORK "
        "--weights ... --activations ...` with 512 training images for calibration, and accuracy in percent on the "
        f"first {n} test images (all 355 of the digits; half of a 95 % interval is up to {100 * widest:.1f}). The "
        "networks have three convolutions of 16, 32 and 64 channels and a linear layer, trained in float by "
        "`workloads/train_float_cnn.py`; nothing is trained afterwards. *Edges*: bits of the first and the last layer; "
        "*same*: as the others. *Ideal*: without clipping; the last column is tim-dnn as it is, which clips counts "
        "above 8.\n",
        "| network | weights | activations | edges | rounding | correction | float | quantized, ideal | on tim-dnn |",
        "| --- | --- | ---: | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for line in lines:
        weights = line.weights if line.weights in ("ternary", "binary") else f"{line.weights} bits"
        figures = (line.float_accuracy, line.ideal_accuracy, line.chip_accuracy)
        text.append(
            f"| {line.network} | {weights} | {line.activations} | {line.edges} | {line.rounding} | {line.correction} | "
            + " | ".join(f"{100 * value:.2f}" for value in figures)
            + " |"
        )
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
