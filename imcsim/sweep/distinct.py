"""Points put together, and those among them that were there before."""

import numpy as np
from numpy.typing import NDArray

from imcsim.arrays import numbered, refined
from imcsim.sweep.points import Points


def joined(first: Points, second: Points) -> Points:
    """Return the points of both, which have the same columns, numbered from 0."""

    def there(found: Points, name: str) -> NDArray[np.bool_]:
        return found.has.get(name, np.ones(len(found), dtype=np.bool_))

    columns = {name: np.concatenate([values, second.columns[name]]) for name, values in first.columns.items()}
    partial = [name for name in columns if name in first.has or name in second.has]
    has = {name: np.concatenate([there(first, name), there(second, name)]) for name in partial}
    return Points(np.arange(len(first) + len(second)), columns, has)


def firsts(found: Points) -> NDArray[np.int64]:
    """Return the places of *found* whose point has not been there before, in order."""
    n = len(found)
    group = np.zeros(n, dtype=np.int64)
    n_groups = min(n, 1)
    # floats first: where one of them tells all points apart, the rest need not be looked at
    for name in sorted(found.columns, key=lambda name: found.columns[name].dtype != np.float64):
        if n_groups == n:
            return np.arange(n)
        place = numbered(found.columns[name])[1] + 1
        if name in found.has:
            place = np.where(found.has[name], place, 0)
        group = refined(group, place)
        n_groups = int(group.max()) + 1
    return np.sort(np.unique(group, return_index=True)[1])
