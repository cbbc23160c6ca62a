"""Every published method on one network, one data set and three chips: reports/quantizers/.

IMCSIM_DATA=FOLDER python reports/quantizers.py [--workers 2] [--methods lsq bnn ...]

Each method trains fashion-cnn from the same float weights with the same budget, once a seed; each network is executed
on tim-dnn, on tim-dnn with 8 rows an access and on tim-dnn with ADCs that count to 16. rows.csv has a row for each
method, seed and chip; rows that are there are kept, so that a run that was stopped goes on. The trained networks lie
in reports/out/quantizers, which is not kept.
"""

import argparse
import csv
import io
import math
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean

import matplotlib as mpl
import yaml

from imcsim.arch.load import load_chip
from imcsim.results import write_whole
from imcsim.workloads import find_workload

OUT = Path(__file__).parent / "quantizers"
TRAINED = Path(__file__).parent / "out" / "quantizers"
WORKLOAD = "fashion-cnn"
SEEDS = (0, 1)
N_EPOCHS, N_TRAIN, N_TEST = 5, 10_000, 2_000
FLOAT = "float"
CHIPS: dict[str, dict] = {
    "tim-dnn": {},
    "tim-dnn, L 8": {"tile.rows_per_access": 8},
    "tim-dnn, count_max 16": {"tile.count_max": 16},
}
"""Changes of tim-dnn. The second and third cannot clip: as many counts as rows."""

SHOWN = {"tim-dnn": "tim-dnn, which clips at 8 of 16", "tim-dnn, count_max 16": "ADCs that count to 16: no clipping"}


@dataclass(frozen=True)
class Row:
    """One method with one seed on one chip."""

    id: str
    method: str
    seed: int
    chip: str
    n_epochs: int
    n_train: int
    float_accuracy: float
    """Of the float network that the training started from, on the whole test set."""

    quantized_accuracy: float
    """Of the torch module on the whole test set."""

    n_samples: int
    """First images of the test set, executed on the chip."""

    ideal_accuracy: float
    """On those images, of the reference."""

    chip_accuracy: float
    clipped_accesses: float
    """Share of accesses in which at least one column had n or k above count_max."""

    energy_pJ: float
    inner_energy_pJ: float
    """Of the layers of the method: all but the first and the last one, which are in 8 bits for all methods."""

    latency_ns: float
    n_cells: int
    """Ternary cells that one copy of the weights takes."""

    weight_planes: int
    activation_planes: int
    """Of the layers between first and last, the most that one has."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", help="ids or names; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread (default 2)")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--draw", action="store_true", help="only draw the table and the figure anew")
    chosen = parser.parse_args()
    rows = read(chosen.out / "rows.csv")
    if not chosen.draw:
        work(chosen.methods or names(), chosen.seeds, chosen.workers, rows, chosen.out)
    write_whole(chosen.out / "table.md", to_markdown(rows))
    draw(rows, chosen.out)
    print(chosen.out / "table.md")


def names() -> list[str]:
    """The methods that run on tiles, as the registry has them; the named-only variants come last."""
    from imcsim.quant.methods import methods

    return [kind.record.name for kind in methods().values() if kind.lowers]


def work(methods: Iterable[str], seeds: Iterable[int], workers: int, rows: list[Row], out: Path) -> None:
    """Train and run what is missing, and write the rows as they come."""
    from imcsim.quant.methods import order_of

    done = {(row.method, row.seed) for row in rows}
    jobs = [(name, seed) for seed in seeds for name in methods if (name, seed) not in done]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(train_float, seeds))  # what every other training starts from
        running = {pool.submit(one, name, seed): (name, seed) for name, seed in jobs}
        for number, future in enumerate(as_completed(running), start=1):
            name, seed = running[future]
            started = f"{number} of {len(jobs)}: {name}, seed {seed}"
            try:
                found = future.result()
            except Exception as error:  # one method that fails loses no other
                print(f"{started}: failed: {error}", flush=True)
                continue
            rows += found
            rows.sort(key=lambda row: (order_of(row.id), row.method, row.seed, list(CHIPS).index(row.chip)))
            write_whole(out / "rows.csv", to_csv(rows))
            accuracy = ", ".join(f"{row.chip} {row.chip_accuracy:.2%} {row.energy_pJ / 1e3:.0f} nJ" for row in found)
            print(f"{started}: {found[0].quantized_accuracy:.2%}; {accuracy}", flush=True)


def train_float(seed: int) -> float:
    """Train the float network of a *seed*, unless it is there; return its test accuracy."""
    return trained(FLOAT, seed, start="scratch")


def trained(name: str, seed: int, *, start: str) -> float:
    """Train, or take what was trained; return the test accuracy."""
    import torch

    from imcsim.quant.methods import find_method
    from imcsim.train import Settings, accuracy_of, train

    torch.set_num_threads(1)
    folder = folder_of(name, seed)
    known = accuracy_of(folder)
    if known is not None:
        return known
    settings = Settings(n_epochs=N_EPOCHS, n_train=N_TRAIN, seed=seed, start=start)
    return train(find_workload(WORKLOAD), find_method(name), settings, folder).test_accuracy


def folder_of(name: str, seed: int) -> Path:
    """Return where the network of a method, its options in its name, and a seed is trained."""
    return TRAINED / f"{name.replace(':', '-')}-{seed}"


def one(name: str, seed: int) -> list[Row]:
    """Train *name* with *seed* and run it on each chip."""
    from imcsim.quant.methods import find_method
    from imcsim.run import run

    float_accuracy = train_float(seed)
    quantized = trained(name, seed, start=str(folder_of(FLOAT, seed)))
    workload = find_workload(folder_of(name, seed))
    graph = workload.graph()
    inner = graph.products[1:-1]
    edges = {"", graph.products[0].name, graph.products[-1].name}
    rows = []
    for chip, changes in CHIPS.items():
        result = run(workload, load_chip("tim-dnn", overrides=changes), engine="all", n_samples=N_TEST, seed=seed)
        said = result.summary
        accuracy = said["accuracy"]
        rows.append(
            Row(
                id=find_method(name).record.id,
                method=name,
                seed=seed,
                chip=chip,
                n_epochs=N_EPOCHS,
                n_train=N_TRAIN,
                float_accuracy=float_accuracy,
                quantized_accuracy=quantized,
                n_samples=N_TEST,
                ideal_accuracy=accuracy["reference"],
                chip_accuracy=accuracy["chip"],
                clipped_accesses=accuracy["n_clipped_accesses"] / accuracy["n_accesses"],
                energy_pJ=said["simulate"]["energy_pJ"],
                inner_energy_pJ=sum(
                    row.energy_pJ
                    for row in result.rows
                    if row.engine == "simulate" and row.phase == "inference" and row.layer not in edges
                ),
                latency_ns=said["simulate"]["latency_ns"],
                n_cells=sum(op.product.n_weights * op.product.n_planes for op in graph.products),
                weight_planes=max(op.product.n_planes for op in inner),
                activation_planes=max(graph.tensors[op.input].format.n_passes for op in inner),
            )
        )
    return rows


# --- what is written --------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """Return the rows of an earlier run."""
    if not path.exists():
        return []
    kinds = {field.name: field.type for field in fields(Row)}
    text = csv.DictReader(io.StringIO(path.read_text()))
    return [Row(**{key: kinds[key](value) for key, value in row.items()}) for row in text]  # type: ignore[operator]


def to_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


@dataclass(frozen=True)
class Mean:
    """One method on one chip, over its seeds."""

    id: str
    method: str
    n_seeds: int
    accuracy: float
    least: float
    greatest: float
    quantized: float
    clipped: float
    inner_nJ: float  # noqa: N815  (unit in its own case)
    energy_nJ: float  # noqa: N815  (unit in its own case)
    latency_us: float
    n_cells: int
    planes: str

    @classmethod
    def of(cls, rows: list[Row]) -> "Mean":
        found = [row.chip_accuracy for row in rows]
        return cls(
            rows[0].id,
            rows[0].method,
            len(rows),
            fmean(found),
            min(found),
            max(found),
            fmean(row.quantized_accuracy for row in rows),
            fmean(row.clipped_accesses for row in rows),
            fmean(row.inner_energy_pJ for row in rows) / 1e3,
            fmean(row.energy_pJ for row in rows) / 1e3,
            fmean(row.latency_ns for row in rows) / 1e3,
            rows[0].n_cells,
            f"{rows[0].weight_planes} x {rows[0].activation_planes}",
        )


def means(rows: list[Row], chip: str) -> list[Mean]:
    """Return each method on *chip*, in the order of the ids."""
    of_method: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.chip == chip:
            of_method[row.method].append(row)
    return [Mean.of(each) for each in of_method.values()]


def front(points: list[Mean]) -> list[Mean]:
    """Return the methods that no other one beats in accuracy at the same inner energy or less, from the least."""
    found: list[Mean] = []
    for point in sorted(points, key=lambda each: (each.inner_nJ, -each.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def to_markdown(rows: list[Row]) -> str:
    """Return the page: what was done, the table, the fronts, the papers' own figures."""
    by_chip = {chip: {each.method: each for each in means(rows, chip)} for chip in CHIPS}
    floats = {row.seed: row.float_accuracy for row in rows}
    seeds = sorted(floats)
    text = [
        "# Published quantizers on one network, one data set and one chip",
        "",
        "Made by `python reports/quantizers.py`; every figure, with its seed, in `rows.csv`. Each method trains "
        f"`{WORKLOAD}` (four convolutions and a linear layer, the first and the last in 8 bits) on "
        f"{N_TRAIN} images of Fashion-MNIST for {N_EPOCHS} epochs from the same float weights, seeds "
        f"{', '.join(map(str, seeds))}; the float networks, with the same budget, reach "
        + " and ".join(f"{floats[seed]:.2%}" for seed in seeds)
        + f" of the whole test set. Accuracy on a chip is that of the first {N_TEST} test images: a difference of less "
        "than about 1.5 points "
        "says nothing.",
        "",
        "**This is a small network, a small data set and a short training.** It tells what a method costs on the tile "
        "and how it meets clipping ADCs; it does not rank methods by what they reach on ImageNet with the training of "
        "their papers. Methods that bring a network of their own (MeliusNet, ReActNet, Bi-Real) run here with their "
        "blocks in the place of the plain ones.",
        "",
        "*Planes*: weight planes x activation passes of the layers between. *Torch*: the module itself, whole test "
        "set. *Clipped*: accesses in which a column had n or k above 8. Energy and latency of one inference are "
        "simulated, with the bitline energy of the counts that occurred; *inner* is the energy of the layers between "
        "the first and the last one, which are in 8 bits for every method and take most of the energy of so small a "
        "network. Cells: one copy of the weights.",
        "",
        "| id | method | planes | torch | tim-dnn | clipped | L 8 | count_max 16 | inner nJ | energy nJ | latency us "
        "| cells |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, plain in by_chip["tim-dnn"].items():
        eight, wide = by_chip["tim-dnn, L 8"][name], by_chip["tim-dnn, count_max 16"][name]
        text.append(
            f"| {plain.id} | {name} | {plain.planes} | {plain.quantized:.2%} | {plain.accuracy:.2%} | "
            f"{plain.clipped:.1%} | {eight.accuracy:.2%} | {wide.accuracy:.2%} | {plain.inner_nJ:.1f} | "
            f"{plain.energy_nJ:.1f} | {plain.latency_us:.2f} | {plain.n_cells} |"
        )
    text += ["", "Pareto fronts of accuracy against inner energy, from the least (mean over the seeds):", ""]
    for chip, said in SHOWN.items():
        listed = ", ".join(f"{each.method} ({each.inner_nJ:.0f} nJ, {each.accuracy:.1%})"
                           for each in front(list(by_chip[chip].values())))  # fmt: skip
        text.append(f"* {said}: {listed}.")
    text += [
        "",
        "![Accuracy against energy](energy-accuracy.png)",
        "",
        "## What the papers and their code report",
        "",
        "Of other networks and data sets, with the training of the papers; only figures that were read in the code or "
        "README of a repository or in a paper's abstract (`papers.yaml`). They do not compare with the table above.",
        "",
        "| id | figure | read in |",
        "|---|---|---|",
    ]
    papers = yaml.safe_load((OUT / "papers.yaml").read_text())
    text += [f"| {each['id']} | {each['figure']} | {each['read_in']} |" for each in papers["figures"]]
    return "\n".join(text) + "\n"


COLOURS = {1: "#0072B2", 2: "#009E73", 3: "#E69F00", 4: "#D55E00"}
"""By activation passes; more than 4 are the last colour."""


def draw(rows: list[Row], out: Path) -> None:
    """Draw accuracy against energy on two chips side by side, with the Pareto front of each and a key of the ids."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 8, "svg.hashsalt": "imcsim", "svg.fonttype": "none"})
    figure = plt.figure(figsize=(10, 6.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(4.6, 2.0))
    axes = above.subplots(1, len(SHOWN))
    baseline = 100 * fmean({row.seed: row.float_accuracy for row in rows}.values())
    for side, (chip, title) in zip(axes, SHOWN.items(), strict=True):
        points = means(rows, chip)
        best = front(points)
        side.axhline(baseline, color="0.3", lw=0.7, ls="--", zorder=0)
        side.step([p.inner_nJ for p in best], [100 * p.accuracy for p in best], where="post", color="0.6", zorder=1)
        for point in points:
            at = point.inner_nJ, 100 * point.accuracy
            spread = [[at[1] - 100 * point.least], [100 * point.greatest - at[1]]]
            side.errorbar(*at, yerr=spread, fmt="o", ms=3.5, color=colour_of(point), lw=0.7, zorder=2)
        side.set(xscale="log", title=title, xlabel="energy of the layers between first and last, one inference (nJ)")
        side.margins(x=0.06, y=0.06)
        side.grid(visible=True, which="both", lw=0.3, color="0.9")
        side.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
        side.xaxis.set_minor_formatter(plt.NullFormatter())
        side.annotate("float network, whole test set", (0.995, baseline), xycoords=("axes fraction", "data"),
                      ha="right", va="bottom", color="0.3", fontsize=7)  # fmt: skip
    axes[0].set_ylabel(f"accuracy on the chip (%), first {N_TEST} test images")
    labels = {1: "1 activation pass", 2: "2 passes", 3: "3 or 4", 4: "more"}
    handles = [plt.Line2D([], [], marker="o", ls="", ms=3.5, color=COLOURS[key], label=labels[key]) for key in COLOURS]
    handles.append(plt.Line2D([], [], color="0.6", label="Pareto front"))
    axes[0].legend(handles=handles, loc="lower right", frameon=False)
    key_of(below, means(rows, "tim-dnn"))
    figure.canvas.draw()
    for side, chip in zip(axes, SHOWN, strict=True):
        best = front(means(rows, chip))
        place_labels(side, [(p.inner_nJ, 100 * p.accuracy, p.id, p in best) for p in means(rows, chip)])
    out.mkdir(parents=True, exist_ok=True)
    for form in ("png", "svg"):
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(out / f"energy-accuracy.{form}", dpi=200, metadata=metadata)
    plt.close(figure)
    lines = [{"chip": chip, "on_front": each in front(means(rows, chip)), **asdict(each)}
             for chip in SHOWN for each in means(rows, chip)]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["chip"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_whole(out / "energy-accuracy.csv", text.getvalue())


def colour_of(point: Mean) -> str:
    """Return the colour of its activation passes."""
    passes = int(point.planes.rpartition(" ")[2])
    return COLOURS[1 if passes == 1 else 2 if passes == 2 else 3 if passes <= 4 else 4]


def key_of(figure, points: list[Mean], *, n_columns: int = 6) -> None:
    """Write the names of the ids under the plots, column after column."""
    axes = figure.subplots()
    axes.set_axis_off()
    n_lines = -(-len(points) // n_columns)
    for number, point in enumerate(points):
        column, line = divmod(number, n_lines)
        x, y = column / n_columns + 0.01, 1 - (line + 0.5) / n_lines
        axes.text(x, y, point.id, color=colour_of(point), fontsize=7, fontweight="bold", va="center")
        axes.text(x + 0.028, y, f"{point.method} ({point.planes})", fontsize=7, va="center")


def place_labels(axes, points: list[tuple[float, float, str, bool]]) -> None:
    """Write the id beside each point, those of the front first and in bold, where it covers no other id or point.

    Where there is no room beside it, an id stands further off with a thin line to its point.
    """
    renderer = axes.figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    spots = [axes.transData.transform(point[:2]) for point in points]
    taken: list[tuple[float, float, float, float]] = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    order_of = sorted(range(len(points)), key=lambda i: (not points[i][3], points[i][1]))
    for i in order_of:
        x, y, name, is_best = points[i]
        for distance in (8.5, 13, 18, 26, 36, 48, 62):
            found = None
            for step in range(16):
                angle = 2 * math.pi * step / 16
                dx, dy = distance * math.cos(angle), distance * math.sin(angle)
                text = axes.annotate(
                    name,
                    (x, y),
                    xytext=(dx, dy),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    fontsize=6,
                    fontweight="bold" if is_best else "normal",
                    arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "0.5", "shrinkA": 0, "shrinkB": 1}
                    if distance > 8.5
                    else None,
                    zorder=3,
                )
                box = text.get_window_extent(renderer) if distance <= 8.5 else extent_of_words(text, renderer)
                corners = box.x0, box.y0, box.x1, box.y1
                others = taken[:i] + taken[i + 1 :]
                is_inside = box.x0 > inside.x0 and box.x1 < inside.x1 and box.y0 > inside.y0 and box.y1 < inside.y1
                if is_inside and not any(overlap(corners, each) for each in others):
                    found = corners
                    break
                text.remove()
            if found is not None:
                taken.append(found)
                break


def extent_of_words(text, renderer):
    """Return the extent of the words of an annotation alone, without its line."""
    from matplotlib.text import Text

    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (x0 y0 x1 y1) share a point."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


if __name__ == "__main__":
    started_at = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started_at:.0f} s")
