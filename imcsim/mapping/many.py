"""The answer of `least_time` for many variants of a chip at once: each distinct answer with the variants that get it.

The chip's timings and counts of units may be arrays here, one element a variant; what says how many shards there are
and what fits (tiles, rows, columns, blocks) is one number for all.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.spec import Chip
from imcsim.mapping.banks import evenly
from imcsim.mapping.place import Split, compute_ns, least_split, pack_all, splits_of, time_ns
from imcsim.mapping.plan import LayerPlan

Indices = NDArray[np.int64]


class Choice(NamedTuple):
    """The splits of one layer, and which variants get which."""

    splits: list[Split]
    of_variant: Indices
    """Index into `splits` for each variant."""


def temporal_choices(layers: list[LayerPlan], chip: Chip, n: int) -> list[Choice]:
    """Return what `least_time` chooses for each of *n* variants in the temporal style, layer by layer."""
    choices = []
    for layer in layers:
        splits = sorted(splits_of(layer, chip), key=lambda split: split.n_replicas)  # equal times: fewer copies
        times = [np.broadcast_to(time_ns(layer, split, chip), n) for split in splits]
        choices.append(Choice(splits, np.argmin(times, axis=0)))
    return choices


def spatial_choices(layers: list[LayerPlan], chip: Chip, n: int) -> Iterator[tuple[list[Split], Indices]]:
    """Yield each answer that `least_time` gives in the spatial style, with the variants that get it.

    Variants that have come to the same splits go on together, and part where the layer that takes longest, or the least
    split that is faster, is another one.
    """
    if chip.all_banks > 1:
        yield from _choices_across_banks(layers, chip, n)
        return
    waiting = {tuple(least_split(layer, chip.tile) for layer in layers): np.arange(n)}
    offered = [sorted(splits_of(layer, chip), key=_size) for layer in layers]
    times = [[np.broadcast_to(compute_ns(layer, split, chip), n) for split in splits]
             for layer, splits in zip(layers, offered, strict=True)]  # fmt: skip
    fits: dict[tuple[Split, ...], bool] = {}
    while waiting:
        splits, at = waiting.popitem()
        now = np.array([times[i][offered[i].index(split)][at] for i, split in enumerate(splits)]).reshape(-1, len(at))
        order = np.argsort(-now, axis=0, kind="stable")
        going = [(at[part], now[:, part], list(column)) for column, part in _distinct(order)]
        while going:
            at, now, slowest = going.pop()
            if not slowest:
                yield list(splits), at
                continue
            i, *others = slowest
            faster = np.array([t[at] < now[i] for t in times[i]])
            least = np.where(faster.any(axis=0), faster.argmax(axis=0), len(offered[i]))
            for (k,), part in _distinct(least[None]):
                if k < len(offered[i]):
                    trial = (*splits[:i], offered[i][k], *splits[i + 1 :])
                    if trial not in fits:
                        fits[trial] = pack_all(layers, list(trial), chip) is not None
                    if fits[trial]:
                        waiting[trial] = np.concatenate([waiting[trial], at[part]]) if trial in waiting else at[part]
                        continue
                going.append((at[part], now[:, part], others))


def _choices_across_banks(layers: list[LayerPlan], chip: Chip, n: int) -> Iterator[tuple[list[Split], Indices]]:
    """Yield the same where there are several banks; each variant is asked for by itself."""
    offered = {layer.name: list(splits_of(layer, chip)) for layer in layers}
    times = {(layer.name, split): np.broadcast_to(compute_ns(layer, split, chip), n)
             for layer in layers for split in offered[layer.name]}  # fmt: skip

    @cache
    def fits(splits: tuple[Split, ...]) -> bool:
        return pack_all(layers, list(splits), chip) is not None

    least = [least_split(layer, chip.tile) for layer in layers]
    answers: dict[tuple[Split, ...], list[int]] = {}
    for i in range(n):

        def time_ns(layer: LayerPlan, split: Split, i: int = i) -> float:
            return float(times[layer.name, split][i])

        found, _ = evenly(
            layers, lambda layer: offered[layer.name], time_ns, lambda splits, _: fits(tuple(splits)), goes_on=True
        )
        answers.setdefault(tuple(found or least), []).append(i)
    for splits, variants in answers.items():
        yield list(splits), np.array(variants)


def _size(split: Split) -> tuple[int, int]:
    return split.n_row_chunks * split.n_replicas, split.n_replicas


def _distinct(columns: NDArray[np.int64]) -> Iterator[tuple[tuple[int, ...], Indices]]:
    """Yield each distinct column of *columns*, with where it stands."""
    if not len(columns):
        yield (), np.arange(columns.shape[1])
        return
    found, inverse = np.unique(columns, axis=1, return_inverse=True)
    for i, part in enumerate(parts_of(inverse.ravel(), found.shape[1])):
        yield tuple(int(k) for k in found[:, i]), part


def parts_of(group: Indices, n_groups: int) -> list[Indices]:
    """Return for each of *n_groups* groups where *group* names it, ascending."""
    order = np.argsort(group, kind="stable")
    return np.split(order, np.searchsorted(group[order], np.arange(1, n_groups)))
