"""Plan and input to outputs: every product as the tiles compute it, every step as the digital units do.

Images travel channels last (b h w c), so that neighbouring rows of a block are neighbouring numbers; the outputs come
back as the model gives them. Sums before the first scale are whole numbers, exact whatever the order.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from imcsim.circuit.misreads import ErrorTable
from imcsim.errors import ConfigError
from imcsim.functional.axes import channels_first, channels_last
from imcsim.functional.device import COMPILED, Counting, Device, counting_on, keeping_sums
from imcsim.functional.groups import grouped_product_of
from imcsim.functional.instance import ChipInstance
from imcsim.functional.kernels import n_threads, on_threads, run_tasks
from imcsim.functional.noise import error_table
from imcsim.functional.placed import Copies, placed_weights
from imcsim.functional.products import chosen_product_of, packed_weights, product_of
from imcsim.functional.reading import Keys, Reader
from imcsim.functional.recurrence import recurrence
from imcsim.functional.statistics import Clipping, Occupancy
from imcsim.functional.steps import apply_steps
from imcsim.functional.written import written_product_of
from imcsim.graph import Cell, Graph, Op
from imcsim.graph.samples import Samples, as_told, checked_inputs
from imcsim.mapping.plan import Plan
from imcsim.mapping.written import WITHOUT
from imcsim.ternary.packing import PackedMatrix

Array = np.ndarray

MAX_BATCH = 32
"""Samples that at most go through the network together, batches side by side on the threads there are.

Bounds the memory, and says which samples share a key where the chip draws at reads; changes no other number.
"""

MOST_NUMBERS = 1 << 22
"""Numbers of one tensor that go through together: what the caches hold, unless one sample has more."""

Stage = Literal["sums", "outputs"]
"""Numbers of an op: the sums of its product, before the digital steps, or what comes out behind them."""

Observer = Callable[[Op, Stage, Array], None]
"""Told the numbers of each op (b ... c) of a batch, images channels last, in the order in which they are made."""

ONE_CHIP = ChipInstance()
"""The instance of a chip that is meant where none is named."""


@dataclass(frozen=True, eq=False)
class Execution:
    """What came out, and what the ADCs met on the way."""

    graph: Graph

    named: Mapping[str, Array]
    """By output, (b ...), shaped as the model's; float64, or whole-number codes where the network ends in codes."""

    clipping: dict[str, Clipping]
    """By layer, for the layers on tiles."""

    occupancy: dict[str, Occupancy]
    """By layer: what the bitlines held, from a sample of the reads; empty where nobody asked."""

    @property
    def outputs(self) -> Any:
        """What `execute` returns: an array, or a dict of arrays by name where the network has several outputs."""
        return as_told(self.graph, self.named)

    @property
    def judged(self) -> Array:
        """The first output, which the network is judged by."""
        return self.named[self.graph.outputs[0]]

    @property
    def total(self) -> Clipping:
        """All layers together."""
        return sum(self.clipping.values(), Clipping())


def execute(
    plan: Plan,
    x: Any,
    rng: np.random.Generator | None = None,
    device: Device = None,
    *,
    instance: ChipInstance = ONE_CHIP,
) -> Any:
    """Return the outputs of *plan* for the inputs *x* (b ...), an array or tensor as the model takes it.

    Of a network of several inputs *x* is a dict of arrays by name, or a tuple of them in the order of
    ``plan.graph.inputs``. What comes out is an array, or a dict of arrays by name where there are several outputs.

    *rng* is the generator that misreads and noise are drawn from; a chip without them draws nothing. *device* says
    where products are counted (`device.counting_on`); the bits are the same. What is fixed in a chip - stuck cells,
    deviating ADCs, resistive devices - is that of an *instance*. Raises DataError for inputs of other names or
    shapes or with NaN in them, ConfigError for a chip that draws and gets no generator, and for a device that is not
    there.
    """
    return run(plan, x, rng=rng, instance=instance, looks=False, device=device).outputs


def run(
    plan: Plan,
    x: Any,
    *,
    rng: np.random.Generator | None = None,
    instance: ChipInstance = ONE_CHIP,
    first_sample: int = 0,
    looks: bool = True,
    progress: Callable[[int], None] | None = None,
    only: Collection[str] | None = None,
    observe: Observer | None = None,
    fed: Mapping[str, Array] | None = None,
    device: Device = None,
) -> Execution:
    """Return outputs and statistics.

    The inputs are taken as one inference after another of the plan's `n_samples`, which says what copy of a layer meets
    which vector; so splitting them there changes nothing that an *instance* fixes.

    Args:
        plan: What runs where.
        x: Inputs (b ...), as `execute` takes them.
        rng: The generator that misreads and noise are drawn from.
        instance: The chip whose stuck cells, ADCs and devices are meant.
        first_sample: Place of *x* among all inputs, where they come in several calls.
        looks: Whether to look at what the bitlines hold, at every `VECTORS_PER_SAMPLE`-th vector.
        progress: Is told how many samples were done, batch after batch.
        only: Layers that are read as the chip reads; every other one is ideal. All by default.
        observe: Is told the numbers of every op.
        fed: Numbers (b ... c) that ops read in place of what the chip made, by the name of the tensor.
        device: Where products are counted, as `device.counting_on` takes it; the compiled kernels by default.

    Raises:
        DataError: inputs of other names or shapes, or with NaN in them.
        ConfigError: *only* names something else than a layer on tiles, the chip draws at reads and *rng* is missing, or
            the device is not there.
    """
    plan.graph.require_values()
    x = checked_inputs(plan.graph, x)
    counting = counting_on(device)
    tiles = readers(plan, rng, only, counting)
    weights = _weights(plan, instance, only)
    clipping = {layer.name: Clipping() for layer in plan.layers if layer.is_on_tiles}
    occupancy: dict[str, Occupancy] = {}
    at_once = samples_at_once(plan)
    starts = range(0, len(x), at_once)
    done: list[Execution | None] = [None] * len(starts)
    telling = Lock()

    def one(number: int, keys: Keys | None) -> None:
        taken = slice(starts[number], starts[number] + at_once)
        here = {
            name: replace(reader, first_sample=first_sample + taken.start, keys=reader.keys and keys)
            for name, reader in tiles.items()
        }
        given = {name: numbers[taken] for name, numbers in (fed or {}).items()}
        done[number] = _run_batch(plan, x[taken], weights, here, observe, given, looks=looks)
        if progress is not None:
            with telling:
                progress(len(x[taken]))

    drawing = frozenset(name for name, reader in tiles.items() if reader.keys is not None)
    in_order = observe is not None or counting is not COMPILED
    _side_by_side(plan, one, len(starts), rng if drawing else None, drawing, in_order=in_order)
    outputs: dict[str, list[Array]] = {name: [] for name in plan.graph.outputs}
    for part in done:
        assert part is not None
        for name, numbers in part.named.items():
            outputs[name].append(numbers)
        for layer, clips in part.clipping.items():
            clipping[layer] += clips
        for layer, seen in part.occupancy.items():
            occupancy[layer] = occupancy[layer] + seen if layer in occupancy else seen
    named = {
        name: np.concatenate(parts) if parts else np.zeros((0, *plan.graph.tensors[name].shape))
        for name, parts in outputs.items()
    }
    return Execution(plan.graph, named, clipping, occupancy)


_N_KEYS: "WeakKeyDictionary[Plan, dict[frozenset[str], int]]" = WeakKeyDictionary()
"""How many keys a batch draws, by the layers that draw: known after the first batch."""


def _side_by_side(
    plan: Plan,
    one: Callable[[int, Keys | None], None],
    n_batches: int,
    rng: np.random.Generator | None,
    drawing: frozenset[str],
    *,
    in_order: bool,
) -> None:
    """Run ``one(number, keys)`` for each batch, as many at a time as there are threads.

    Each batch gets the keys that it would draw if it came after those before it, so that the bits are the same.
    """
    threads = n_threads()
    first, each = 0, None
    if rng is not None:
        each = _N_KEYS.setdefault(plan, {}).get(drawing)
        if each is None and n_batches:
            begun = Keys(rng)
            one(0, begun)
            first, each = 1, begun.n_drawn
            _N_KEYS[plan][drawing] = each
    given = [None if rng is None else Keys(rng, each) for _ in range(first, n_batches)]
    n_workers = 1 if in_order else min(threads, len(given))

    def work(number: int) -> None:
        with on_threads(max(1, threads // n_workers)):
            one(first + number, given[number])

    if n_workers > 1:
        run_tasks(work, len(given))
    else:
        for number, keys in enumerate(given, start=first):
            one(number, keys)


def samples_at_once(plan: Plan) -> int:
    """Return how many samples go through together: a power of two, so that whoever takes 64 or 256 splits alike."""
    largest = max(tensor.n_values for tensor in plan.graph.tensors.values())
    most = max(1, min(MAX_BATCH, MOST_NUMBERS // largest))
    return int(1 << (most.bit_length() - 1))


_TABLES: "WeakKeyDictionary[Plan, ErrorTable | None]" = WeakKeyDictionary()


def _weights(
    plan: Plan, instance: ChipInstance, only: Collection[str] | None
) -> Mapping[str, Sequence[PackedMatrix | Copies]]:
    """Return the weights of each layer, as the chip's cells hold them or as they are meant to be."""
    written = [layer.name for layer in plan.layers if layer.is_written and (only is None or layer.name in only)]
    if written and (plan.chip.tile.has_faults or plan.chip.tile.draws_at_reads):
        raise ConfigError(
            f"{written[0]}: a product of two activations must be on tiles that clip and do nothing else wrong, got "
            f"stuck cells, deviating ADCs, misreads, noise or resistive devices; leave the imperfection out, {WITHOUT}"
        )
    if not plan.chip.tile.has_faults:
        return packed_weights(plan)
    for op in plan.graph.ops:
        if op.gate is not None and (only is None or op.name in only):
            raise ConfigError(
                f"{op.name}: must have one kernel on a chip with stuck cells, deviating ADCs or resistive devices, got "
                f"{op.product.n_experts if op.product else 0} to choose from; leave the imperfection out"
            )
        if op.product is not None and op.product.weights.is_grouped and (only is None or op.name in only):
            raise ConfigError(
                f"{op.name}: must have one scale an output on a chip with stuck cells, deviating ADCs or resistive "
                f"devices, got scales for groups of {op.product.weights.group_size} inputs; leave the imperfection out"
            )
    placed = placed_weights(plan, instance, _TABLES[plan])
    ideal = packed_weights(plan) if only is not None else {}
    return {
        layer.name: placed[layer.name] if only is None or layer.name in only else ideal[layer.name]
        for layer in plan.layers
        if layer.is_on_tiles and not layer.is_written
    }


def readers(
    plan: Plan,
    rng: np.random.Generator | None,
    only: Collection[str] | None = None,
    counting: Counting = COMPILED,
) -> dict[str, Reader]:
    """Return how the tiles read each layer; raises ConfigError for a chip that draws without a generator."""
    tile = plan.chip.tile
    on_tiles = [layer.name for layer in plan.layers if layer.is_on_tiles]
    if unknown := sorted(set(only or ()) - set(on_tiles)):
        raise ConfigError(f"only: must name layers on tiles ({', '.join(on_tiles)}), got {unknown[0]!r}")
    if plan not in _TABLES:
        _TABLES[plan] = error_table(plan.chip)
    table = _TABLES[plan]
    if tile.draws_at_reads and rng is None:
        raise ConfigError(
            "rng: must be a generator for a chip that misreads or reads with noise, got None; "
            "numpy.random.default_rng(seed)"
        )
    if not tile.draws_at_reads and not tile.has_faults:  # then nobody changes the sums of single passes
        counting = keeping_sums(counting)
    readers = {}
    for layer in plan.layers:
        if layer.is_on_tiles:
            columns = tile.n_columns // layer.n_weight_planes * layer.n_weight_planes
            if only is None or layer.name in only:
                noise_counts = tile.imperfections.read_noise_counts
                draws = tile.draws_at_reads or table is not None
                keys = Keys(rng) if rng is not None and draws else None
                readers[layer.name] = Reader(
                    tile.count_max, columns, table, keys, noise_counts=noise_counts, cells=tile.resistive, layer=layer,
                    counting=counting, skips=tile.skips_zero_blocks,
                )  # fmt: skip
            else:
                readers[layer.name] = Reader(tile.rows_per_access, columns, counting=counting)  # ideal
    return readers


def _run_batch(
    plan: Plan,
    x: Samples,
    weights: Mapping[str, Sequence[PackedMatrix | Copies]],
    tiles: dict[str, Reader],
    observe: Observer | None,
    fed: Mapping[str, Array],
    *,
    looks: bool,
) -> Execution:
    clipping = {name: Clipping() for name in tiles}
    occupancy: dict[str, Occupancy] = {}
    tensors = {name: channels_last(array) for name, array in x.arrays.items()}
    layers = {layer.name: layer for layer in plan.layers}
    last_reader = {name: op.name for op in plan.graph.ops for name in op.inputs}
    for op in plan.graph.ops:
        values, steps = tensors[op.input], op.steps
        if op.product is not None:
            layer, reader = layers[op.name], tiles[op.name]
            compute = grouped_product_of if op.product.weights.is_grouped else product_of
            if op.gate is not None:
                compute = partial(chosen_product_of, chosen=tensors[op.gate][:, 0])
            cell = steps[0] if steps else None
            if isinstance(cell, Cell):  # a product after the other, each of all samples
                reader = replace(reader, layer=layer.one_step)
                product = partial(product_of, plan, op, op.product, layer, weights=weights[op.name], tiles=reader)
                values, done = recurrence(cell, values, op.product.n_hidden, partial(product, looks=looks))
                steps = steps[1:]
            elif op.written is not None:
                done = written_product_of(
                    plan, op, layer, values, tensors[op.written.other], reader, looks=looks
                )  # fmt: skip
                values = done.sums
            else:
                done = compute(plan, op, op.product, layer, values, weights[op.name], reader, looks=looks)
                values = done.sums
            clipping[op.name] += done.clipping
            if done.occupancy is not None:
                seen = occupancy.get(op.name)
                occupancy[op.name] = done.occupancy if seen is None else seen + done.occupancy
            if observe is not None:
                observe(op, "sums", done.sums)
        values = apply_steps(steps, values, tensors)
        if observe is not None:
            observe(op, "outputs", values)
        tensors[op.output.name] = fed.get(op.output.name, values)
        for name in op.inputs:
            if last_reader[name] == op.name and name not in plan.graph.outputs:
                tensors.pop(name, None)  # nobody reads it again
    named = {name: channels_first(tensors[name]) for name in plan.graph.outputs}
    return Execution(plan.graph, named, clipping, occupancy)
