"""Plan and input to outputs: every product as the tiles compute it, every step as the digital units do.

Images travel channels last (b h w c), so that neighbouring rows of a block are neighbouring numbers; the outputs come
back as the model gives them. Sums before the first scale are whole numbers, exact whatever the order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError, DataError
from imcsim.functional.device import Counting, Device, counting_on, keeping_sums
from imcsim.functional.noise import error_table
from imcsim.functional.products import packed_weights, product_of
from imcsim.functional.reading import Reader
from imcsim.functional.statistics import Clipping, Occupancy
from imcsim.functional.steps import apply_steps
from imcsim.mapping.plan import Plan
from imcsim.ternary.packing import PackedMatrix

Array = np.ndarray

MAX_BATCH = 64
"""Samples that at most go through the network together; bounds the memory, changes no number."""

MOST_NUMBERS = 1 << 22
"""Numbers of one tensor that go through together: what the caches hold, unless one sample has more."""


@dataclass(frozen=True, eq=False)
class Execution:
    """What came out, and what the ADCs met on the way."""

    outputs: Array
    """(b ...), shaped as the model's outputs; float64, or whole-number codes where the network ends in codes."""

    clipping: dict[str, Clipping]
    """By layer, for the layers on tiles."""

    occupancy: dict[str, Occupancy]
    """By layer: what the bitlines held, from a sample of the reads; empty where nobody asked."""

    @property
    def total(self) -> Clipping:
        """All layers together."""
        return sum(self.clipping.values(), Clipping())


def execute(plan: Plan, x: Any, rng: np.random.Generator | None = None, device: Device = None) -> Array:
    """Return the outputs of *plan* for the inputs *x* (b ...), an array or tensor as the model takes it.

    *rng* is the generator that imperfections are drawn from; a chip without any draws nothing. *device* says
    where products are counted (`device.counting_on`); the bits are the same. Raises DataError for an input of another
    shape or with NaN in it, ConfigError for a device that is not there.
    """
    return run(plan, x, rng=rng, looks=False, device=device).outputs


def run(
    plan: Plan,
    x: Any,
    *,
    rng: np.random.Generator | None = None,
    looks: bool = True,
    progress: Callable[[int], None] | None = None,
    device: Device = None,
) -> Execution:
    """Return outputs and statistics.

    Args:
        plan: The network on its chip.
        x: Inputs (b ...).
        rng: Draws what goes wrong.
        looks: Whether to look at what the bitlines hold, at every `VECTORS_PER_SAMPLE`-th vector.
        progress: Is told how many samples were done, batch after batch.
        device: Where products are counted, as `device.counting_on` takes it; the compiled kernels by default.
    """
    x = checked_input(plan, x)
    weights = packed_weights(plan)
    tiles = _readers(plan, rng, counting_on(device))
    clipping = {layer.name: Clipping() for layer in plan.layers if layer.is_on_tiles}
    occupancy: dict[str, Occupancy] = {}
    outputs = []
    largest = max(tensor.n_values for tensor in plan.graph.tensors.values())
    at_once = max(1, min(MAX_BATCH, MOST_NUMBERS // largest))
    for start in range(0, len(x), at_once):
        batch = x[start : start + at_once]
        outputs.append(_run_batch(plan, batch, weights, tiles, clipping, occupancy if looks else None))
        if progress is not None:
            progress(len(batch))
    if not outputs:
        outputs.append(np.zeros((0, *plan.graph.tensors[plan.graph.output].shape)))
    return Execution(np.concatenate(outputs), clipping, occupancy)


def checked_input(plan: Plan, x: Any) -> Array:
    """Return *x* as float64 (b ...); raises DataError for another shape, NaN or infinity."""
    try:
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"input: must be numbers, got {error}") from None
    shape = plan.graph.input.shape
    if array.shape[1:] != shape or array.ndim != len(shape) + 1:
        raise DataError(f"input: must have shape (b, {', '.join(map(str, shape))}), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise DataError(f"input: must be finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    return array


_TABLES: "WeakKeyDictionary[Plan, ErrorTable | None]" = WeakKeyDictionary()


def _readers(plan: Plan, rng: np.random.Generator | None, counting: Counting) -> dict[str, Reader]:
    """Return how the tiles read each layer; raises ConfigError for a chip that misreads without a generator."""
    tile = plan.chip.tile
    if plan not in _TABLES:
        _TABLES[plan] = error_table(plan.chip)
    table = _TABLES[plan]
    if table is not None and rng is None:
        raise ConfigError("rng: must be a generator for a chip that misreads, got None; numpy.random.default_rng(seed)")
    if table is None:  # then nobody changes the sums of single passes
        counting = keeping_sums(counting)
    return {
        layer.name: Reader(
            tile.count_max, tile.n_columns // layer.n_weight_planes * layer.n_weight_planes, table, rng, counting
        )
        for layer in plan.layers
        if layer.is_on_tiles
    }


def _run_batch(
    plan: Plan,
    x: Array,
    weights: dict[str, list[PackedMatrix]],
    tiles: dict[str, Reader],
    clipping: dict[str, Clipping],
    occupancy: dict[str, Occupancy] | None,
) -> Array:
    tensors = {plan.graph.input.name: np.moveaxis(x, 1, -1) if x.ndim == 4 else x}
    layers = {layer.name: layer for layer in plan.layers}
    last_reader = {name: op.name for op in plan.graph.ops for name in op.inputs}
    for op in plan.graph.ops:
        values = tensors[op.input]
        if op.product is not None:
            done = product_of(
                plan, op, op.product, layers[op.name], values, weights[op.name], tiles[op.name],
                looks=occupancy is not None,
            )  # fmt: skip
            values = done.sums
            clipping[op.name] += done.clipping
            if occupancy is not None and done.occupancy is not None:
                seen = occupancy.get(op.name)
                occupancy[op.name] = done.occupancy if seen is None else seen + done.occupancy
        tensors[op.output.name] = apply_steps(op.steps, values, tensors)
        for name in op.inputs:
            if last_reader[name] == op.name and name != plan.graph.output:
                tensors.pop(name, None)  # nobody reads it again
    output = tensors[plan.graph.output]
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output
