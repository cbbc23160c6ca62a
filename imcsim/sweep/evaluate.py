"""What the engines say of a batch of points: by formula all at once, by events and values one after the other.

A point that fails has a message and no figures, and its batch goes on. What comes out of a point does not depend on
which others are in the batch.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcsim.analytic import estimate
from imcsim.analytic.variants import SHAPE, UNUSED, estimate_variants
from imcsim.arch.load import vary
from imcsim.arch.spec import Chip
from imcsim.arrays import numbered, refined
from imcsim.costs.activity import Activity
from imcsim.costs.price import price
from imcsim.errors import ConfigError, ImcsimError
from imcsim.run import Outcome, execute_samples
from imcsim.search import place_by
from imcsim.sweep.network import Network, network_of
from imcsim.sweep.objectives import GIVEN_BY
from imcsim.sweep.points import Points, Value
from imcsim.sweep.stages import Batch, Floats, Outcomes

MAPPING = ("mapping.policy", "mapping.style", "mapping.batch")
"""Parameters that say how a network is placed; all others of a batch are keys of the chip."""


def evaluate(batch: Batch) -> Outcomes:
    """Return what the engines of *batch* say of its points.

    Raises ConfigError where this process finds another network under the workload's name than the sweep began with.
    """
    start = time.perf_counter()
    network = network_of(batch.workload, batch.quantizer, batch.assume)
    if network.digest != batch.network_digest:
        raise ConfigError(
            f"{batch.workload}: must be the network that the sweep began with, got another one; its files differ from "
            "machine to machine, or have changed meanwhile"
        )
    if batch.stage.engines == ("estimate",):
        figures, messages = _by_formula(network, batch)
    else:
        figures, messages = _one_by_one(network, batch)
    return Outcomes(figures, _finite(figures, messages), time.perf_counter() - start)


def figures_of(engines: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the figures that *engines* give, in a fixed order."""
    return tuple(sorted(set().union(*(GIVEN_BY[engine] for engine in engines))))


def _finite(figures: Mapping[str, Floats], messages: list[str | None]) -> tuple[str | None, ...]:
    """Return *messages*, with one for each point of which a figure is infinite; its figures are none."""
    for name, values in figures.items():
        for i in np.flatnonzero(np.isinf(values)):
            messages[i] = messages[i] or f"{name}: must be finite, got {values[i]}; a number of the chip is too large"
    lost = np.array([message is not None for message in messages], dtype=bool)
    for values in figures.values():
        values[lost] = np.nan
    return tuple(messages)


# --- all at once ------------------------------------------------------------------------------------------------


def _by_formula(network: Network, batch: Batch) -> tuple[dict[str, Floats], list[str | None]]:
    """Return the figures of `estimate_variants`, group by group: points that differ in numbers of the chip alone."""
    n = len(batch.points)
    figures = {name: np.full(n, np.nan) for name in figures_of(batch.stage.engines)}
    messages: list[str | None] = [None] * n
    for at in _groups(batch.points):
        points = batch.points.take(at)
        first = points.row(0)
        placed = {name: first[name] for name in MAPPING if name in first}
        if placed.get("mapping.policy", "least_time") != "least_time" or placed.get("mapping.style") == "pipelined":
            found, said = _one_by_one(network, batch, at)
        else:
            found, said = _variants(network, batch.chip, points)
        for name, values in found.items():
            figures[name][at] = values
        for i, message in zip(at.tolist(), said, strict=True):
            messages[i] = message
    return figures, messages


def _groups(points: Points) -> Iterator[NDArray[np.int64]]:
    """Yield the places of points that share mapping, texts, and which parameters they have."""
    n = len(points)
    group = np.zeros(n, dtype=np.int64)
    parting = [values for name, values in points.columns.items() if name in MAPPING or _is_text(name, values)]
    for values in [*parting, *points.has.values()]:
        group = refined(group, numbered(values)[1])
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _is_text(name: str, values: NDArray[Any]) -> bool:
    return values.dtype.kind not in "if" and name not in SHAPE


def _is_unused(name: str) -> bool:
    return any(f"{name}.".startswith(f"{record}.") for record in UNUSED)


def _variants(network: Network, chip: Chip, points: Points) -> tuple[dict[str, Floats], list[str | None]]:
    """Return the figures of points that share everything but numbers of the chip."""
    first = points.row(0)
    batch: Any = first.get("mapping.batch", 1)
    style: Any = first.get("mapping.style")
    numbers = {
        name: values
        for name, values in points.columns.items()
        if name in first and name not in MAPPING and not _is_text(name, values) and not _is_unused(name)
    }
    texts = {name: first[name] for name, values in points.columns.items() if name in first and _is_text(name, values)}
    texts = {name: value for name, value in texts.items() if name not in MAPPING}
    n = len(points)
    figures = {name: np.full(n, np.nan) for name in figures_of(("estimate",))}
    try:
        chip = vary(chip, texts) if texts else chip
    except ImcsimError as error:
        return figures, [_line(error)] * n
    # without a change the chip's own number of tiles stands for one: a point is estimated in one way, whoever asks
    changes = numbers or {"n_tiles": np.full(n, chip.n_tiles)}
    try:
        with np.errstate(all="ignore"):  # what is not finite is said of its point
            found = estimate_variants(network.graph, chip, changes, n_samples=batch, style=style, failures="keep")
    except Exception as error:  # whatever a number of the chip brings about is the point's, not the sweep's
        if n == 1:
            return figures, [_line(error)]
        parts = [_variants(network, chip, points.take(at)) for at in np.array_split(np.arange(n), 2)]
        joined = {name: np.concatenate([found[name] for found, _ in parts]) for name in figures}
        return joined, [message for _, said in parts for message in said]
    figures = {
        "latency_ns": found.latency_ns,
        "energy_pJ": found.energy_pJ,
        "edp_pJ_ns": found.edp,
        "area_um2": found.area_um2,
        "throughput_per_s": found.throughput_per_s,
    }
    return figures, [message and " ".join(message.split()) for message in found.messages]


# --- one by one -------------------------------------------------------------------------------------------------


def _one_by_one(
    network: Network, batch: Batch, at: NDArray[np.int64] | None = None
) -> tuple[dict[str, Floats], list[str | None]]:
    points = batch.points if at is None else batch.points.take(at)
    figures = {name: np.full(len(points), np.nan) for name in figures_of(batch.stage.engines)}
    messages: list[str | None] = []
    for i, parameters in enumerate(points.rows()):
        try:
            for name, value in _walk(network, batch, parameters).items():
                figures[name][i] = value
            messages.append(None)
        except Exception as error:  # whatever a number of the chip brings about is the point's, not the sweep's
            messages.append(_line(error))
    return figures, messages


def _walk(network: Network, batch: Batch, parameters: Mapping[str, Value]) -> dict[str, float]:
    """Return the figures of one point: the walk of `imcsim.run`, without its rows."""
    changes = {name: value for name, value in parameters.items() if name not in MAPPING}
    chip = vary(batch.chip, changes) if changes else batch.chip
    policy: Any = parameters.get("mapping.policy")
    style: Any = parameters.get("mapping.style")
    n_samples = int(parameters.get("mapping.batch", 1))
    plan = place_by(policy, network.graph, chip, n_samples=n_samples, style=style, seed=batch.seed)
    costs, engines = price(chip), batch.stage.engines
    figures: dict[str, float] = {"area_um2": float(costs.area_um2)}
    activity = Activity()
    if "execute" in engines:
        n = batch.stage.n_samples
        outcome = execute_samples(
            plan,
            *network.samples(n, batch.data),
            metric=network.workload.metric,
            seed=batch.seed,
            ideal=network.ideal(n, batch.data),
        )
        activity = outcome.activity(chip)
        figures |= _values(outcome)
    if {"estimate", "simulate"} & set(engines):
        estimated = estimate(plan, costs, seed=batch.seed, activity=activity)
        latency_ns, energy_pJ = estimated.latency_ns, estimated.energy_pJ
        per_s = n_samples * estimated.throughput_per_s
        if "simulate" in engines:
            from imcsim.sim import simulate

            trace = simulate(plan, costs, seed=batch.seed, activity=activity)
            latency_ns, energy_pJ = trace.latency_ns, trace.energy_pJ
            if plan.style != "pipelined":  # one inference after the other
                per_s = 1e9 * n_samples / latency_ns if latency_ns else 0.0
        figures |= {
            "latency_ns": latency_ns,
            "energy_pJ": energy_pJ,
            "edp_pJ_ns": latency_ns * energy_pJ,
            "throughput_per_s": per_s,
        }
    return figures


def _values(outcome: Outcome) -> dict[str, float]:
    total = outcome.chip.clipping
    figures = {
        "accuracy": float(np.mean(outcome.chip.right)),
        "reference_accuracy": float(np.mean(outcome.right_reference)),
        "clipped_share": total.n_clipped_accesses / total.n_accesses if total.n_accesses else 0.0,
        "different_share": outcome.n_different / outcome.n_outputs,
    }
    return figures | ({"perplexity": outcome.perplexity["chip"]} if outcome.perplexity else {})


def _line(error: Exception) -> str:
    """Return a message in one line; a mistake that imcsim did not foresee bears its kind."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ImcsimError) else f"{type(error).__name__}: {text}"
