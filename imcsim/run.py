"""The walk, written out once: from a workload and a chip to rows, a summary, and files."""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from imcsim.analytic import Estimate, estimate
from imcsim.arch.spec import BASES, Chip
from imcsim.costs.activity import Activity, relative_energy
from imcsim.costs.price import price
from imcsim.costs.rows import area_rows
from imcsim.costs.table import CostTable
from imcsim.costs.uncertainty import energy_interval_pJ
from imcsim.errors import ConfigError, DataError, OutputError
from imcsim.graph import Graph, Op
from imcsim.graph.samples import Samples
from imcsim.mapping.plan import LayerPlan, Plan, Style
from imcsim.metrics import Metric, classes_of
from imcsim.origins import origins
from imcsim.results import Identity, Row, area_of, energy_of, latency_of, to_csv, write_whole
from imcsim.search import default_policy, place_by
from imcsim.units import PS_PER_NS
from imcsim.version import __version__
from imcsim.workloads import Workload

if TYPE_CHECKING:
    from imcsim.accounts import Accounts
    from imcsim.accuracy import Verdicts
    from imcsim.functional.statistics import Clipping, Occupancy
    from imcsim.sim import Service, Trace
    from imcsim.sim.explanation import TimeExplanation

Engine = Literal["all", "simulate", "estimate", "execute"]
ALL_AT_ONCE = "every:0"
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def run(
    workload: Workload,
    chip: Chip,
    *,
    engine: Engine = "all",
    n_samples: int | None = None,
    batch: int = 1,
    style: Style | None = None,
    policy: str | None = None,
    seed: int = 0,
    data: str | Path | None = None,
    uncertainty: bool = False,
    trials: int = 1,
    explain: bool = False,
    ablation: bool = False,
    requests: int | None = None,
    arrivals: str | None = None,
    loads: bool = False,
    progress: Progress | None = None,
    device: str | None = None,
) -> "Result":
    """Walk from a workload and a chip to a result.

    Args:
        workload: The network and its test set.
        chip: The hardware.
        engine: One engine, or all that the workload allows: without a test set nothing is executed.
        n_samples: How many samples of the test set to execute, from the first; all of them by default.
        batch: Samples that one inference takes together, for time and energy.
        style: spatial, temporal or pipelined; by default spatial where all weights fit at once.
        policy: How layers are cut: least_time, as_they_are, least_energy_delay, greatest_rate, search or
            search:OBJECTIVE; by default greatest_rate for the pipelined style, least_time for the others.
        seed: Of every generator that draws.
        data: Folder of data sets; otherwise the environment variable IMCSIM_DATA.
        uncertainty: Whether to draw the interval of the energy from the ranges that the chip file states.
        trials: How many chips to execute the samples on, each drawn from a seed of its own (`imcsim.trials`).
        explain: Whether to say why what was run came out so: of a simulation the time (`imcsim.sim.explanation`), of
            executed samples every layer's numbers against the reference's (`imcsim.functional.layer_errors`).
        ablation: Whether to execute twice a layer more, to see which one loses the accuracy (`imcsim.ablation`).
        requests: How many requests, an inference each, arrive; of a file of arrivals all by default.
        arrivals: When: ``poisson:RATE`` (a second), ``every:NS``, or a CSV file; all at once by default.
        loads: Whether to serve that many requests at several loads up to saturation as well.
        progress: Is told how far the work is.
        device: Where products are counted: cpu, which is the default, cuda, cuda:NUMBER or auto; the bits are the same.
    """
    if batch < 1:
        raise ConfigError(f"batch: must be at least 1, got {batch}")
    if seed < 0:
        raise ConfigError(f"seed: must be 0 or more, got {seed}")
    wants = {engine} if engine != "all" else {"simulate", "estimate", "execute"}
    if engine == "all" and not workload.has_data:
        wants.discard("execute")
    _require_values(workload, engine, "execute" in wants, trials, ablation=ablation)
    if explain and wants == {"estimate"}:
        raise ConfigError("explain: must go with a run that simulates or executes samples, got engine estimate")
    if "execute" in wants and not workload.has_data:
        workload.graph().require_values()
    arrivals_ns = _arrivals(requests, arrivals, loads, wants, engine, seed)
    samples = samples_of(workload, n_samples, data) if "execute" in wants else None
    graph = workload.graph()
    if samples is not None:
        from imcsim.functional.device import counting_on

        counting_on(device)  # what is wrong with it is said before long work
    costs = price(chip)
    plan = place_by(policy, graph, chip, n_samples=batch, style=style, seed=seed, progress=progress)
    outcome = None
    if samples is not None:
        outcome = execute_samples(plan, *samples, metric=workload.metric, seed=seed, progress=progress, device=device)
    activity = outcome.activity(chip) if outcome is not None else Activity()
    trace, setup = _simulate(plan, costs, activity, seed, progress) if "simulate" in wants else (None, None)
    estimated = estimate(plan, costs, seed=seed, activity=activity) if "estimate" in wants else None
    time = None
    if trace is not None and explain:
        from imcsim.sim.explanation import explain as explain_time

        time = explain_time(trace, progress=progress and (lambda done, n: progress("explain the time", done, n)))
    accounts = None
    if samples is not None and outcome is not None and (trials > 1 or explain or ablation):
        from imcsim.accounts import Asked, account

        asked = Asked(trials=trials, explain=explain, ablation=ablation)
        accounts = account(
            plan, *samples, asked, reference=outcome.right_reference, chip=outcome.chip, seed=seed, progress=progress
        )
    requested = None
    if arrivals_ns is not None:
        requested = _serve(plan, costs, arrivals_ns, arrivals or ALL_AT_ONCE, activity, seed, progress, loads=loads)
    return Result(
        plan,
        costs,
        seed,
        engine,
        estimated,
        trace,
        setup,
        outcome,
        uncertainty,
        accounts,
        time,
        requested,
        policy or default_policy(plan.style),
    )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the functional engine gave, beside what an ideal chip gives."""

    n_samples: int

    right_reference: np.ndarray
    """Whether the reference gets each label right, one a sample or one a token: bool (n)."""

    chip: "Verdicts"
    n_outputs: int
    """Numbers of all outputs together."""

    n_different: int
    """Those that are not the same bits as those of the reference."""

    n_different_classes: int
    """Samples, or tokens, whose greatest output is another one than the reference's."""

    clipping: "dict[str, Clipping]"
    occupancy: "dict[str, Occupancy]"

    perplexity: dict[str, float] | None = None
    """Of the reference and of the chip, where that is the workload's metric."""

    def activity(self, chip: Chip) -> Activity:
        """Return what was gathered about energy and time on *chip*."""
        idle = {layer: clips.idle_share for layer, clips in self.clipping.items()}
        energy = {layer: relative_energy(chip, seen.n, seen.k, idle[layer]) for layer, seen in self.occupancy.items()}
        return Activity(energy, idle)

    @property
    def n_labels(self) -> int:
        """How many labels there were: one a sample, or one a token."""
        return len(self.right_reference)


@dataclass(frozen=True, eq=False)
class Requested:
    """What became of the requests that arrived."""

    service: "Service"
    arrivals: str
    """When they arrived, in the words of the command line."""

    capacity_per_s: float
    """What the chip can serve, by formula."""

    loads: list[dict[str, float]] | None

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` says under ``requests``."""
        said = {"arrivals": self.arrivals, "capacity_per_s": self.capacity_per_s}
        return said | self.service.summary | {"loads": self.loads}


@dataclass(frozen=True, eq=False)
class Result:
    """Everything that came out of a run."""

    plan: Plan
    costs: CostTable
    seed: int
    engine: Engine
    estimate: Estimate | None
    trace: "Trace | None"
    setup: "Trace | None"
    """The writing of resident weights; None without a simulation or for a temporal plan."""

    outcome: Outcome | None
    wants_interval: bool = False
    accounts: "Accounts | None" = None
    time: "TimeExplanation | None" = None
    requested: "Requested | None" = None
    policy: str = "least_time"

    @cached_property
    def rows(self) -> list[Row]:
        """One row per engine, layer, component and action."""
        rows: list[Row] = []
        for trace in (self.trace, self.setup):
            rows += trace.to_rows() if trace is not None else []
        if self.estimate is not None:
            rows += self.estimate.to_rows()
        elif self.trace is not None:
            identity = Identity(
                chip=self.plan.chip.name, workload=self.plan.graph.name, engine="simulate", seed=self.seed
            )
            rows += area_rows(self.costs, identity)
        return rows

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The headline figures; each total is a sum of rows."""
        of_engine: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            of_engine[row.engine].append(row)
        leading = of_engine["simulate"] or of_engine["estimate"]
        summary: dict[str, Any] = {
            "workload": self.plan.graph.name,
            "chip": self.plan.chip.name,
            "chip_description": self.plan.chip.description,
            "chip_kind": self.plan.chip.kind,
            "seed": self.seed,
            "version": __version__,
            "engine": self.engine,
            "style": self.plan.style,
            "policy": self.policy,
            "batch": self.plan.n_samples,
            "n_tiles": self.plan.chip.all_tiles,
            "skips_zero_blocks": self.plan.chip.tile.skips_zero_blocks,
            "simulate": _totals(of_engine["simulate"]),
            "estimate": self._estimate(of_engine["estimate"]),
            "setup": _totals(of_engine["simulate"], phase="setup") if self.setup is not None else None,
            "area_um2": area_of(self.rows) if self.rows else self.costs.area_um2,
            "basis": shares(leading, "energy_pJ"),
            "basis_area": _area_shares(self.costs),
            "accuracy": self._accuracy(),
            "perplexity": self._perplexity(),
            "check": self._check(),
            "has_values": self.plan.graph.has_values,
            "assumed": self._assumed(),
            "layers": [self._layer(layer) for layer in self.plan.layers],
        }
        if self.accounts is not None:
            summary |= self.accounts.summary
        if self.time is not None:
            summary["time"] = self.time.summary
        if self.requested is not None:
            summary["requests"] = self.requested.summary
        if self.wants_interval and leading:
            counted = self.trace or self.estimate
            assert counted is not None
            rng = np.random.default_rng(self.seed)
            interval = energy_interval_pJ(counted.counts, counted.latency_ns, self.costs, rng, counted.activity)
            summary["energy_interval_pJ"] = list(interval)
        return summary

    @property
    def origins(self) -> dict[str, Any]:
        """Where the numbers come from."""
        activity = self.outcome.activity(self.plan.chip) if self.outcome is not None else Activity()
        return origins(self.plan, self.costs, self.estimate, activity)

    def write(self, folder: str | Path, *, command: str = "", trace: bool = False, page: bool = True) -> Path:
        """Write every file of the run into *folder* and return the page; each file appears when it is whole.

        Without *page* no page and no figures are drawn, which takes some seconds, and the summary is returned;
        `imcsim.report.build_report` draws them later.
        """
        folder = Path(folder)
        require_writable(folder)
        asked = ("trials", "layer_errors", "ablation", "critical_path", "loads")
        drawn = [f"figures/{name}.{form}" for name in asked for form in ("png", "svg")]
        tables = ("rows.csv", "spans.csv", "trials.csv", "critical_path.csv", "requests.csv")
        for stale in ("summary.json", "origins.json", "trace.json", "report.html", *tables, *drawn):
            (folder / stale).unlink(missing_ok=True)  # of an earlier run; nothing of it may stand beside this one
        for figure in [] if page else [*folder.glob("figures/*.png"), *folder.glob("figures/*.svg")]:
            figure.unlink()
        write_whole(folder / "rows.csv", to_csv(self.rows))
        if self.accounts is not None and self.accounts.trials is not None:
            write_whole(folder / "trials.csv", self.accounts.trials.to_csv())
        if self.requested is not None:
            write_whole(folder / "requests.csv", self.requested.service.to_csv())
        if self.trace is not None:
            write_whole(folder / "spans.csv", _spans_csv(self.trace))
            if self.time is not None:
                write_whole(folder / "critical_path.csv", self.time.to_csv())
            if trace:
                self.trace.to_perfetto(folder / "trace.json")
        write_whole(folder / "origins.json", json.dumps(self.origins, ensure_ascii=False, separators=(",", ":")) + "\n")
        summary = self.summary | {"command": command}
        write_whole(folder / "summary.json", json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        if not page:
            return folder / "summary.json"
        from imcsim.report.page import build_report

        return build_report(folder)

    def _estimate(self, rows: list[Row]) -> dict[str, Any] | None:
        if self.estimate is None:
            return None
        bounds = self.estimate.bounds
        rate = {
            "throughput_per_s": self.estimate.throughput_per_s,
            "throughput_bound_by": self.estimate.period.bound_by,
        }
        return {**(_totals(rows) or {}), "least_ns": bounds.least_ns, "greatest_ns": bounds.greatest_ns, **rate}

    def _accuracy(self) -> dict[str, Any] | None:
        outcome = self.outcome
        if outcome is None:
            return None
        from imcsim.accuracy import Paired

        clips = outcome.chip.clipping
        return Paired.of(outcome.right_reference, outcome.chip.right).summary | {
            "n_clipped_accesses": clips.n_clipped_accesses,
            "n_accesses": clips.n_accesses,
            "n_clipped_conversions": clips.n_clipped_conversions,
            "n_conversions": clips.n_conversions,
            "n_misreads": clips.n_misreads,
        }

    def _assumed(self) -> dict[str, Any] | None:
        """Return what was assumed of the network."""
        found = self.plan.graph.assumed
        if found is None:
            return None
        return {
            "bits": found.bits,
            "basis": "assumed",
            "weights": list(found.weights),
            "inputs": list(found.inputs),
            "n_products": len(self.plan.graph.products),
        }

    def _perplexity(self) -> dict[str, Any] | None:
        outcome = self.outcome
        if outcome is None or outcome.perplexity is None:
            return None
        return {**outcome.perplexity, "n_tokens": outcome.n_labels}

    def _check(self) -> dict[str, Any] | None:
        if self.outcome is None:
            return None
        n = self.outcome.n_different
        return {
            "exact": n == 0,
            "n_outputs": self.outcome.n_outputs,
            "n_different": n,
            "n_different_classes": self.outcome.n_different_classes,
        }

    def _layer(self, layer: LayerPlan) -> dict[str, Any]:
        record = layer_record(self.plan.graph, self.plan.op_of[layer.name])
        if self.plan.is_on_host(layer):
            return record | {"kind": "host"}
        if not layer.is_on_tiles:
            return record
        rounds = layer.stored.rounds
        tiles = {shard.tile for round_ in rounds for shard in round_.shards}
        cells = sum(shard.n_rows * shard.n_columns for round_ in rounds for shard in round_.shards)
        capacity = sum(len(round_.tiles) for round_ in rounds) * self.plan.chip.tile.n_rows
        capacity *= self.plan.chip.tile.n_columns
        counts = (self.trace or self.estimate).counts if self.trace or self.estimate else {}  # type: ignore[union-attr]
        clips = self.outcome.clipping[layer.name] if self.outcome is not None else None
        return record | {
            "n_row_chunks": layer.n_row_chunks,
            "n_replicas": layer.n_replicas,
            "n_rounds": len(layer.rounds),
            "n_tiles": len(tiles),
            "utilization": cells / capacity,
            "n_accesses_per_inference": counts.get(layer.name, Counter())["tile.access"],
            "n_accesses": clips.n_accesses if clips else None,
            "n_clipped_accesses": clips.n_clipped_accesses if clips else None,
            "n_idle_accesses": clips.n_idle_accesses if clips else None,
            "n_conversions": clips.n_conversions if clips else None,
            "n_clipped_conversions": clips.n_clipped_conversions if clips else None,
            "occupancy": self._occupancy(layer.name),
        }

    def _occupancy(self, layer: str) -> dict[str, Any] | None:
        """Return what the bitlines of a layer held, and what follows for the energy of its column reads."""
        if self.outcome is None or layer not in self.outcome.occupancy:
            return None
        seen = self.outcome.occupancy[layer]
        return {
            "n": seen.n.tolist(),
            "k": seen.k.tolist(),
            "zero_products": seen.zero_products,
            "relative_energy": relative_energy(self.plan.chip, seen.n, seen.k, self.outcome.clipping[layer].idle_share),
        }


def layer_record(graph: Graph, op: Op) -> dict[str, Any]:
    """Return what a layer is, whatever chip it runs on: shapes, formats, MACs, weights, planes, sparsity."""
    source = graph.tensors[op.input]
    record: dict[str, Any] = {
        "name": op.name,
        "kind": "digital" if op.product is None else op.product.kind,
        "input": "x".join(map(str, source.shape)),
        "shape": "x".join(map(str, op.output.shape)),
        "input_format": str(source.format),
        "output_format": str(op.output.format),
        "steps": [type(step).__name__ for step in op.steps],
    }
    if op.product is None:
        return record
    weights = op.product.weights
    return record | {
        "n_macs": graph.n_macs(op),
        "n_weights": op.product.n_weights,
        "weight_planes": weights.n_planes,
        "activation_planes": source.format.n_passes,
        "zero_weights": weights.zero_fraction,
        "n_rows": op.product.n_rows,
        "n_columns": op.product.n_columns * weights.n_planes,
        "n_groups": op.product.groups,
    }


def shares(rows: Iterable[Row], column: Literal["energy_pJ", "area_um2"]) -> dict[str, float]:
    """Return the share of each basis in the total of *column* over the rows of inferences."""
    total: Counter[str] = Counter()
    for row in rows:
        if row.phase == "inference" and row.basis:
            total[row.basis] += getattr(row, column)
    return _normalized(total)


def require_writable(folder: Path) -> None:
    """Make *folder* if it is not there; raises OutputError when nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".imcsim-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: must be a folder that can be written to, got {error.strerror or error}; choose another --out"
        ) from None


def _require_values(workload: Workload, engine: Engine, executes: bool, trials: int, *, ablation: bool) -> None:
    """Raise ConfigError when values are asked about that nobody computes."""
    if trials != 1:
        from imcsim.trials import require_trials  # brings numba, which an estimate does without

        require_trials(trials)
    asked = [name for name, is_asked in {"trials": trials > 1, "ablation": ablation}.items() if is_asked]
    if asked and not executes:
        got = f"engine {engine}" if engine != "all" else _without_test_set(workload)
        raise ConfigError(f"{asked[0]}: must go with a run that executes samples, got {got}")


def _without_test_set(workload: Workload) -> str:
    why = "which has no test set" if workload.assumption is None else "whose bits are assumed"
    return f"{workload.name}, {why}"


def samples_of(
    workload: Workload, n_samples: int | None, data: str | Path | None
) -> tuple[np.ndarray | Samples, np.ndarray]:
    """Return the first *n_samples* inputs (n ...) and labels (n) of a test set; raises ConfigError or DataError."""
    if n_samples is not None and n_samples < 1:
        raise ConfigError(f"n_samples: must be at least 1, got {n_samples}")
    x, labels = workload.data(data)
    if len(x) == 0 or len(x) != len(labels):
        raise DataError(f"{workload.name}: data() must give as many labels as inputs, got {len(x)} and {len(labels)}")
    if n_samples is not None and n_samples > len(x):
        raise ConfigError(f"n_samples: must be at most the {len(x)} samples of the test set, got {n_samples}")
    return x[:n_samples], labels[:n_samples]


def _simulate(
    plan: Plan, costs: CostTable, activity: Activity, seed: int, progress: Progress | None
) -> "tuple[Trace, Trace | None]":
    from imcsim.sim import simulate

    if progress is not None:
        progress("simulate", 0, 1)
    trace = simulate(plan, costs, seed=seed, activity=activity)
    setup = simulate(plan, costs, seed=seed, phase="setup") if plan.is_resident else None
    if progress is not None:
        progress("simulate", 1, 1)
    return trace, setup


def _arrivals(
    requests: int | None, arrivals: str | None, loads: bool, wants: Collection[str], engine: Engine, seed: int
) -> np.ndarray | None:
    """Return when requests arrive; None where none are asked for."""
    if requests is None and arrivals is None:
        if loads:
            raise ConfigError("loads: must go with requests, got none; give --requests N")
        return None
    if "simulate" not in wants:
        raise ConfigError(f"requests: must go with a run that simulates, got engine {engine}")
    from imcsim.sim.arrivals import parse_arrivals

    found = parse_arrivals(arrivals or ALL_AT_ONCE, requests, seed)
    if loads and len(found) < 2:
        raise ConfigError(f"loads: must go with at least 2 requests, got {len(found)}")
    return found


def _serve(
    plan: Plan,
    costs: CostTable,
    arrivals_ns: np.ndarray,
    arrivals: str,
    activity: Activity,
    seed: int,
    progress: Progress | None,
    *,
    loads: bool,
) -> Requested:
    from imcsim.sim.service import LOADS, serve, serve_loads

    tell = progress or (lambda what, done, total: None)
    capacity_per_s = estimate(plan, costs).throughput_per_s
    n = len(arrivals_ns)
    tell("serve", 0, n)
    service = serve(plan, arrivals_ns, costs, activity=activity)
    tell("serve", n, n)
    found = None
    if loads:
        found = serve_loads(
            plan, costs, capacity_per_s, n, seed=seed, activity=activity,
            progress=lambda done: tell("loads", done, len(LOADS)),
        )  # fmt: skip
    return Requested(service, arrivals, capacity_per_s, found)


def execute_samples(
    plan: Plan,
    x: np.ndarray | Samples,
    labels: np.ndarray,
    *,
    metric: Metric,
    seed: int,
    progress: Progress | None = None,
    device: str | None = None,
    ideal: Samples | None = None,
) -> Outcome:
    """Execute the samples *x* (n ...) on the chip that *seed* gives and judge them beside what an ideal chip gives.

    All outputs are compared; the first one is held against the labels.
    *ideal* are the reference's outputs for all of them, where they are known; otherwise they are computed.
    """
    from imcsim.accuracy import Verdicts, is_random, is_right
    from imcsim.functional.execute import run
    from imcsim.functional.instance import ChipInstance
    from imcsim.functional.reference import reference_outputs
    from imcsim.functional.statistics import Clipping, Occupancy

    clipping = {layer.name: Clipping() for layer in plan.layers if layer.is_on_tiles}
    right: dict[str, list[np.ndarray]] = {"reference": [], "chip": []}
    losses: dict[str, list[float]] = {"reference": [], "chip": []}
    occupancy: dict[str, Occupancy] = {}
    n_outputs = n_different = n_different_classes = 0
    rng, instance = np.random.default_rng(seed), ChipInstance(seed)
    step = max(1, 256 // plan.n_samples) * plan.n_samples  # whole inferences
    for start in range(0, len(x), step):
        batch, truth = x[start : start + step], labels[start : start + step]
        done = run(plan, batch, rng=rng, instance=instance, device=device)
        expected = reference_outputs(plan.graph, batch) if ideal is None else ideal[start : start + len(batch)]
        found, wanted = done.judged, expected.arrays[plan.graph.outputs[0]]
        metric.require(found, truth, plan.graph.name)
        for side, outputs in (("chip", found), ("reference", wanted)):
            right[side].append(is_right(outputs, truth, plan.graph.name))
            if metric.loss is not None:
                losses[side].extend(metric.loss(outputs, truth))
        n_different_classes += int(np.sum(classes_of(found, truth) != classes_of(wanted, truth)))
        for name, numbers in done.named.items():
            n_outputs += numbers.size
            n_different += int(np.sum(numbers != expected.arrays[name]))
        for layer, clips in done.clipping.items():
            clipping[layer] += clips
        for layer, seen in done.occupancy.items():
            occupancy[layer] = occupancy[layer] + seen if layer in occupancy else seen
        if progress is not None:
            progress("execute", min(start + step, len(x)), len(x))
    verdicts = {side: np.concatenate(parts) for side, parts in right.items()}
    chip = Verdicts(verdicts["chip"], sum(clipping.values(), Clipping()), is_random(plan))
    figures = {side: metric.figure(fsum(values), labels.size) for side, values in losses.items() if values}
    return Outcome(
        n_samples=len(x),
        right_reference=verdicts["reference"],
        chip=chip,
        n_outputs=n_outputs,
        n_different=n_different,
        n_different_classes=n_different_classes,
        clipping=clipping,
        occupancy=occupancy,
        perplexity=figures or None,
    )


def _totals(rows: list[Row], phase: str = "inference") -> dict[str, float] | None:
    if not rows:
        return None
    return {"latency_ns": latency_of(rows, phase=phase), "energy_pJ": energy_of(rows, phase=phase)}


def _area_shares(costs: CostTable) -> dict[str, float]:
    total: Counter[str] = Counter()
    for area in costs.areas:
        total[area.basis] += area.area_um2  # type: ignore[assignment]
    return _normalized(total)


def _normalized(total: Counter[str]) -> dict[str, float]:
    whole = sum(total.values())
    return {basis: total[basis] / whole if whole else 0.0 for basis in BASES}


def _spans_csv(trace: "Trace") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "layer", "unit", "component", "start_ns", "end_ns", "busy_ns"])
    for span in trace.spans:
        times = [f"{ps / PS_PER_NS:.3f}" for ps in (span.start_ps, span.end_ps, span.busy_ps)]
        writer.writerow([span.task, span.layer, span.unit, trace.component_of(span), *times])
    return text.getvalue()
