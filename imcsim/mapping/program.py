"""What is to be done: tasks, each a burst of equal items on one unit."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Task:
    """*n_items* equal items, one after the other, on one unit of the chip.

    An item keeps the unit busy for its share of `work_ps`; its result is there `lag_ps` after it left the unit.
    What is spent (`actions`) is kept apart from what is waited for (`work_ps`).
    """

    name: str
    layer: str
    unit: str
    n_items: int
    work_ps: int
    """Time that all items together keep the unit busy."""

    lag_ps: int = 0
    """From the moment that an item leaves the unit to its result: the depth of a pipelined unit."""

    actions: Counter[str] = field(default_factory=Counter)
    """What the whole task spends, by action."""

    after: tuple[str, ...] = ()
    """Tasks that must have ended before this one begins."""

    behind: tuple[str, ...] = ()
    """Tasks that must have begun before this one begins."""

    streams: tuple[str, ...] = ()
    """Tasks that feed this one item by item: its i-th of n items needs theirs up to the same share."""

    rooms: Mapping[str, int] = field(default_factory=dict)
    """Of those of `streams` that fill a store: how many of their items it holds that this task has not begun on.

    An item takes its room when it begins, and gives it back when this task begins an item that needs it.
    """

    release_ps: int = 0
    """When the request that it belongs to arrives; it does not begin before."""

    n_servers: int = 1
    """Servers of its unit that a burst takes: channels of main memory."""

    is_aside: bool = False
    """Whether it goes on beside the time steps of a recurrent layer, so that its lag holds nobody up."""


@dataclass(frozen=True)
class Program:
    """Tasks in dependency order."""

    tasks: tuple[Task, ...]

    servers: Mapping[str, int] = field(default_factory=dict)
    """Servers of each unit that has more than one: ports, channels."""

    def servers_of(self, unit: str) -> int:
        """Return how many servers *unit* has."""
        return self.servers.get(unit, 1)

    def occupied_ps(self, task: Task) -> float:
        """Return how long *task* keeps its unit busy, all servers of it together: half of them for 2 ns are 1 ns."""
        return task.work_ps * task.n_servers / self.servers_of(task.unit)

    @cached_property
    def actions(self) -> dict[str, Counter[str]]:
        """What each layer spends, by action."""
        spent: dict[str, Counter[str]] = {}
        for task in self.tasks:
            spent.setdefault(task.layer, Counter()).update(task.actions)
        return spent

    @cached_property
    def task_of(self) -> dict[str, Task]:
        """Each task by its name."""
        return {task.name: task for task in self.tasks}

    @cached_property
    def n_items(self) -> int:
        """Items of all tasks together."""
        return sum(task.n_items for task in self.tasks)
