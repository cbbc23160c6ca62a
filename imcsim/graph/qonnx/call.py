"""One node with what it reads, as the functions of operators get it, and how constants meet its axes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.model import Node
from imcsim.graph.qonnx.values import Value

if TYPE_CHECKING:
    from imcsim.graph.qonnx.walk import Walk

Array = np.ndarray

NO_PADS = (0, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Call:
    """One node, with what it reads."""

    node: Node
    given: Sequence[Value | Constant | None]
    walk: "Walk"

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the node."""
        return self.node.attributes

    def value(
        self, place: int = 0, *, takes_pads: bool = False, any_order: bool = False, any_batch: bool = False
    ) -> Value:
        """Return the input at *place*, which follows from the network's input.

        Its axes lie in the graph as the file has them, or in *any_order* that is at hand. The file has the batch in
        front, or with *any_batch* anywhere. *takes_pads*: it may have padding that no operator took.
        """
        found = self.given[place] if len(self.given) > place else None
        if not isinstance(found, Value):
            raise UnfitError(f"whose input {place + 1} is a constant", "a constant on the other side")
        if found.pads != NO_PADS and not takes_pads:
            raise UnfitError("behind a Pad", "a Pad right before Conv, MaxPool or AveragePool")
        if found.is_tokens and not (any_order and any_batch):
            raise UnfitError("of tokens", "a Gather of a table")
        if found.batch_axis != 0 and not any_batch:
            where = "part of another axis" if found.batch_axis is None else f"axis {found.batch_axis}"
            raise UnfitError(f"whose batch is {where}", "the batch in front")
        return found if any_order else self.walk.turned(found, range(len(found.shape)))

    def as_it_lies(self, place: int = 0, *, takes_pads: bool = False) -> Value:
        """Return the input at *place*, whose axes are in any order, wherever the batch is."""
        return self.value(place, takes_pads=takes_pads, any_order=True, any_batch=True)

    def is_read(self, place: int) -> bool:
        """Whether somebody reads the output at *place*."""
        return len(self.node.outputs) > place and self.node.outputs[place] in self.walk.read

    def constant(self, place: int, what: str) -> Constant:
        """Return the input at *place*, which the file holds."""
        found = self.given[place] if len(self.given) > place else None
        if not isinstance(found, Constant):
            raise UnfitError(f"with {what} that are {'computed' if found is not None else 'missing'}", "an initializer")
        return found

    def has(self, place: int) -> bool:
        """Whether there is an input at *place*."""
        return len(self.given) > place and self.given[place] is not None

    def constants(self) -> list[Constant | None]:
        """Return the inputs that the file holds, None in the place of others."""
        return [found if isinstance(found, Constant) else None for found in self.given]


Known = Value | Constant | None
Take = Callable[[Call], Known | tuple[Known, ...]]
"""What a node makes; a tuple of as many as it has outputs, None where nobody reads one."""


def per_channel(values: Array, value: Value, what: str) -> Array:
    """Return *values*, which meet the axes of *value*, as one number () or one per channel (c)."""
    wide = value.arranged(meeting(values, value, what))
    if wide.size == 1:
        return wide.reshape(())
    if prod(wide.shape[1:]) != 1:
        raise UnfitError(f"with {what} for each pixel", f"{what} for all, or one per channel")
    return wide.reshape(-1)


def meeting(values: Array, value: Value, what: str) -> Array:
    """Return *values* as float64 with the axes that the file has of *value*, each whole or 1, without the batch."""
    values, shape, whole = np.asarray(values, np.float64), value.shape, value.whole(1)
    if values.size == 1:
        return values.reshape((1,) * len(shape))
    misfit = UnfitError(f"with {what} of shape {values.shape} for numbers of shape {shape}")
    if values.ndim > len(whole) or value.is_tokens:
        raise misfit
    wide = values.reshape((1,) * (len(whole) - values.ndim) + values.shape)
    if any(n not in (1, m) for n, m in zip(wide.shape, whole, strict=True)):
        raise misfit
    return wide if value.batch_axis is None else wide.squeeze(value.batch_axis)


def finite(values: Array, what: str) -> Array:
    """Return *values*; raises UnfitError where they are not finite numbers."""
    if not np.all(np.isfinite(values)):
        raise UnfitError(f"with {what} that is not finite")
    return values
