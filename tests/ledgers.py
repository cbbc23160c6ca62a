"""What a search has found, without a database: for tests of what is drawn, to which a database adds only time."""

from typing import ClassVar


class InMemory:
    """Stands in for `imcsim.sweep.ledger.Ledger`, for one process; who opens a study again finds it as it was."""

    kept: ClassVar = {}

    def __init__(self, url, name, maximize):
        self._trials, self._claimed = self.kept.setdefault((url, name), {}), set()

    def close(self):
        self._claimed.clear()

    def trials(self):
        return dict(sorted(self._trials.items()))

    def claim(self, points, n):
        ours = [point for point in points if point not in self._claimed][:n]
        self._claimed |= set(ours)
        return ours

    def release(self, points):
        self._claimed -= set(points)

    def add(self, point, trial):
        self._trials.setdefault(point, trial)
        self.release([point])
