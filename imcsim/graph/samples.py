"""Samples as they go into a network and come out of it: one array a tensor, the first axis of each the batch.

Who has a network of one input gives an array, and gets one of a network of one output. Of several inputs it is a dict
of arrays by name, or a tuple or list in the order of `Graph.inputs`; of several outputs a dict in the order of
`Graph.outputs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from imcsim.errors import DataError
from imcsim.graph.ir import Graph, Tensor

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Samples:
    """Arrays (n ...) of the same n samples, by name; sliced together as one array is."""

    arrays: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, taken: slice) -> "Samples":
        return Samples({name: array[taken] for name, array in self.arrays.items()})


def checked_inputs(graph: Graph, x: Any) -> Samples:
    """Return *x*, as whoever has the network gives it, as float64 arrays by the names of the inputs of *graph*.

    Raises DataError, in one line, for other names or
    another number of arrays, for other shapes, for batches that differ, and for NaN or infinity.
    """
    names = [tensor.name for tensor in graph.inputs]
    if isinstance(x, Samples):
        x = x.arrays
    if isinstance(x, Mapping):
        given = _by_name(names, x)
    elif len(names) == 1:
        given = [x]
    else:
        given = _in_order(names, x)
    arrays = {}
    for tensor, values in zip(graph.inputs, given, strict=True):
        arrays[tensor.name] = _checked(tensor, values, "input" if len(names) == 1 else f"input {tensor.name!r}")
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        got = ", ".join(f"{n} of {name}" for name, n in sizes.items())
        raise DataError(f"input: must have as many samples in each array, got {got}")
    return Samples(arrays)


def as_told(graph: Graph, outputs: Mapping[str, Array]) -> Any:
    """Return *outputs* by name as whoever has the network gets them: one array, or a dict of several."""
    return {name: outputs[name] for name in graph.outputs} if len(graph.outputs) > 1 else outputs[graph.output]


def _by_name(names: list[str], x: Mapping[Any, Any]) -> list[Any]:
    known = ", ".join(names)
    if unknown := [name for name in x if name not in names]:
        raise DataError(f"input: must have the names of the network's inputs ({known}), got {unknown[0]!r}")
    if missing := [name for name in names if name not in x]:
        raise DataError(f"input: must have an array for each of the network's inputs ({known}), got none for "
                        f"{missing[0]!r}")  # fmt: skip
    return [x[name] for name in names]


def _in_order(names: list[str], x: Any) -> list[Any]:
    if isinstance(x, tuple | list) and len(x) == len(names):
        return list(x)
    got = str(len(x)) if isinstance(x, tuple | list) else f"one {type(x).__name__}"
    raise DataError(
        f"input: must be {len(names)} arrays, by the names of the network's inputs or in their order "
        f"({', '.join(names)}), got {got}"
    )


def _checked(tensor: Tensor, values: Any, where: str) -> Array:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: must be numbers, got {error}") from None
    if array.shape[1:] != tensor.shape or array.ndim != len(tensor.shape) + 1:
        raise DataError(f"{where}: must have shape (b, {', '.join(map(str, tensor.shape))}), got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise DataError(f"{where}: must be finite numbers, got {array[~np.isfinite(array)].flat[0]}")
    return array
