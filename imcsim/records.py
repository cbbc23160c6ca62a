"""Frozen records that may hold arrays: equal when every field is equal, arrays element by element."""

from dataclasses import fields
from typing import Any

import numpy as np

NO_FIGURE = {"is_about": True}
"""Metadata of a field of a record that no figure follows from, such as where its numbers are from."""


def same(a: Any, b: Any) -> bool:
    """Whether two field values are equal; arrays are equal when dtype, shape and every element are."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return (
            isinstance(a, np.ndarray)
            and isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        )
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


class Record:
    """Mixin for ``@dataclass(frozen=True, eq=False)``: equality by fields, also where a field is an array."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]  # arrays do not hash


def frozen_array(values: Any, dtype: Any) -> np.ndarray:
    """Return *values* as an array of *dtype* that nobody can write to; a record keeps no other kind."""
    array = np.array(values, dtype=dtype, order="C")
    array.setflags(write=False)
    return array
