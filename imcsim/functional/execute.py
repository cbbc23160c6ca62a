"""Plan and input to outputs: every product as the tiles compute it, every step as the digital units do.

Images travel channels last (b h w c), so that neighbouring rows of a block are neighbouring numbers; the outputs come
back as the model gives them. Sums before the first scale are whole numbers, exact whatever the order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError, DataError
from imcsim.functional.noise import error_table
from imcsim.functional.products import packed_weights, product_of
from imcsim.functional.reading import Reader
from imcsim.functional.recurrence import recurrence
from imcsim.functional.statistics import Clipping
from imcsim.functional.steps import STEPS
from imcsim.graph import Cell
from imcsim.mapping.plan import Plan
from imcsim.ternary.packing import PackedMatrix

Array = np.ndarray

MAX_BATCH = 64
"""Samples that go through the network together; bounds the memory, changes no number."""


@dataclass(frozen=True, eq=False)
class Execution:
    """What came out, and what the ADCs met on the way."""

    outputs: Array
    """(b ...), shaped as the model's outputs; float64, or whole-number codes where the network ends in codes."""

    clipping: dict[str, Clipping]
    """By layer, for the layers on tiles."""

    @property
    def total(self) -> Clipping:
        """All layers together."""
        return sum(self.clipping.values(), Clipping())


def execute(plan: Plan, x: Any, rng: np.random.Generator | None = None) -> Array:
    """Return the outputs of *plan* for the inputs *x* (b ...), an array or tensor as the model takes it.

    *rng* is the generator that imperfections are drawn from; a chip without any draws nothing. Raises DataError for
    an input of another shape or with NaN in it.
    """
    return run(plan, x, rng=rng).outputs


def run(
    plan: Plan,
    x: Any,
    *,
    rng: np.random.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Execution:
    """Return outputs and clipping statistics; *progress* is told how many samples were done, batch after batch."""
    x = checked_input(plan, x)
    weights = packed_weights(plan)
    tiles = _readers(plan, rng)
    clipping = {layer.name: Clipping() for layer in plan.layers if layer.is_on_tiles}
    outputs = []
    for start in range(0, len(x), MAX_BATCH):
        batch = x[start : start + MAX_BATCH]
        outputs.append(_run_batch(plan, batch, weights, tiles, clipping))
        if progress is not None:
            progress(len(batch))
    if not outputs:
        outputs.append(np.zeros((0, *plan.graph.tensors[plan.graph.output].shape)))
    return Execution(np.concatenate(outputs), clipping)


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


def _readers(plan: Plan, rng: np.random.Generator | None) -> dict[str, Reader]:
    """Return how the tiles read each layer; raises ConfigError for a chip that misreads without a generator."""
    tile = plan.chip.tile
    if plan not in _TABLES:
        _TABLES[plan] = error_table(plan.chip)
    table = _TABLES[plan]
    if table is not None and rng is None:
        raise ConfigError("rng: must be a generator for a chip that misreads, got None; numpy.random.default_rng(seed)")
    return {
        layer.name: Reader(tile.count_max, tile.n_columns // layer.n_weight_planes * layer.n_weight_planes, table, rng)
        for layer in plan.layers
        if layer.is_on_tiles
    }


def _run_batch(
    plan: Plan,
    x: Array,
    weights: dict[str, list[PackedMatrix]],
    tiles: dict[str, Reader],
    clipping: dict[str, Clipping],
) -> Array:
    tensors = {plan.graph.input.name: np.moveaxis(x, 1, -1) if x.ndim == 4 else x}
    layers = {layer.name: layer for layer in plan.layers}
    for op in plan.graph.ops:
        values, steps = tensors[op.input], op.steps
        if op.product is not None:
            product = partial(
                product_of, plan, op, op.product, layers[op.name], weights=weights[op.name], tiles=tiles[op.name]
            )
            if isinstance(steps[0] if steps else None, Cell):
                values, clips = recurrence(steps[0], values, op.product.n_hidden, product)  # type: ignore[arg-type]
                steps = steps[1:]
            else:
                values, clips = product(values)
            clipping[op.name] += clips
        for step in steps:
            values = STEPS[type(step)](step, values, tensors)
        tensors[op.output.name] = values
    output = tensors[plan.graph.output]
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output
