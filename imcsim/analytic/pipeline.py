"""How often a chip can begin an inference, by formula: no task is written."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from imcsim.analytic.counts import count_actions, derive_recurrent
from imcsim.analytic.recurrent import layer_time
from imcsim.analytic.spending import UNIT_OF_ACTION, sent_of_steps, spending
from imcsim.analytic.timing import Clock, LayerTime
from imcsim.costs.table import CostTable
from imcsim.mapping.instructions import is_reloaded
from imcsim.mapping.links import unit_at, unit_of_tile
from imcsim.mapping.plan import Plan


@dataclass(frozen=True)
class Period:
    """From the beginning of one inference to that of the next, where requests never run out."""

    period_ns: float
    bound_by: str
    """The unit that is never idle then, or the layer that the next inference must wait for."""

    busy_ns: dict[str, float]
    """How long each unit works for one inference: no order of the work has a shorter period than the longest."""

    @property
    def rate_per_s(self) -> float:
        """Inferences a second; 0 where the chip has nothing to do."""
        return 1e9 / self.period_ns if self.period_ns else 0.0


def times_of(plan: Plan, costs: CostTable) -> dict[str, LayerTime]:
    """Return the time of each layer of one inference alone on the chip; layers that the host does have none."""
    clock = Clock(plan, costs)
    on_chip = [layer for layer in plan.layers if not plan.is_on_host(layer)]
    times = {layer.name: layer_time(clock, layer) for layer in on_chip}
    if is_reloaded(plan):
        for i, layer in enumerate(on_chip):
            waited_ns = clock.load_wait_ns(layer, is_first=i == 0)
            times[layer.name] = times[layer.name].with_loads(clock.loads(layer), waited_ns)
    return times


def period_of(plan: Plan, costs: CostTable, times: dict[str, LayerTime], counts: Mapping[str, Counter[str]]) -> Period:
    """Return how often *plan* can begin an inference, by the *times* of its layers and what they do (*counts*).

    One after the other (spatial, temporal): each latency. Pipelined: what the busiest unit works for one inference, or
    what a layer takes that only one inference may be in, or the time of the layers that hold a tensor of the
    activation buffer by the places there.
    """
    busy = busy_of_units(plan, costs, counts)
    if plan.style != "pipelined":
        return Period(sum(time.added_ns for time in times.values()), "one inference after the other", busy)
    held = {layer.name: times[layer.name].added_ns for layer in plan.layers if layer.n_steps}
    write = costs.timings["main_memory.write"]
    for name in held:
        if plan.op_of[name].output.name in plan.off_chip:  # the next one enters while the last codes are on their way
            held[name] -= max(0.0, write.latency_ns - write.interval_ns)
    for maker, place_ns in _places(plan, times).items():
        held[maker] = max(held.get(maker, 0.0), place_ns)
    bounds = busy | held
    bound_by = max(bounds, key=lambda name: bounds[name], default="")
    return Period(bounds.get(bound_by, 0.0), bound_by, busy)


def _places(plan: Plan, times: dict[str, LayerTime]) -> dict[str, float]:
    """Return, for each layer whose output stays on the chip, the time that holds one place of it, by the places."""
    names = [op.name for op in plan.graph.ops]
    last_reader = {name: i for i, op in enumerate(plan.graph.ops) for name in op.inputs}
    found = {}
    for i, op in enumerate(plan.graph.ops):
        if op.name not in times or op.output.name in plan.off_chip or op.output.name not in last_reader:
            continue
        chain = [times[name].added_ns for name in names[i : last_reader[op.output.name]] if name in times]
        found[op.name] = sum(chain) / plan.places_of[op.output.name]
    return found


def busy_of_units(plan: Plan, costs: CostTable, counts: Mapping[str, Counter[str]] | None = None) -> dict[str, float]:
    """Return how long each unit works for one inference, all layers and all its servers together, in ns.

    *counts* are those of `count_actions`, counted anew if not given.
    """
    timings, busy = costs.timings, defaultdict[str, float](float)
    chip, of_tiles = plan.chip, defaultdict[str, float](float)
    counts = count_actions(plan) if counts is None else counts
    rows_per_access, servers = chip.tile.rows_per_access, costs.servers  # channels of main memory are in its interval
    for layer in plan.layers:
        if plan.is_on_host(layer):
            continue
        if chip.all_banks > 1:
            for spent in sent_of_steps(plan, layer) if layer.n_steps else spending(plan, layer):
                busy[spent.unit] += spent.count * timings[spent.action].interval_ns / servers.get(spent.action, 1)
            if not layer.n_steps:
                continue
        # of several banks this is the home of a recurrent layer; what it sends to others is in already
        at_home = derive_recurrent(plan, layer).counts() if chip.all_banks > 1 else counts[layer.name]
        for action, n in at_home.items():
            if not action.startswith("tile."):
                unit = unit_at(chip, layer.home, UNIT_OF_ACTION.get(action, action))
                busy[unit] += n * timings[action].interval_ns / servers.get(action, 1)
        times = layer.n_steps if layer.n_steps and len(layer.rounds) > 1 else 1  # rounds are written in every step
        for round_ in layer.rounds:
            for shard, (_, n) in zip(round_.shards, layer.accesses_of_steps(round_, rows_per_access), strict=True):
                written = 0 if plan.is_resident else times * shard.n_rows
                of_tiles[unit_of_tile(chip, shard.tile, "array")] += (
                    n * timings["tile.access"].interval_ns + written * timings["tile.write_row"].interval_ns
                )
                if "tile.select" in timings:
                    of_tiles[unit_of_tile(chip, shard.tile, "decoder")] += n * timings["tile.select"].interval_ns
                of_tiles[unit_of_tile(chip, shard.tile, chip.converter)] += n * timings[chip.conversion].interval_ns
    for unit, ns in of_tiles.items():
        busy[unit] += ns
    return dict(busy)
