"""The least and the greatest time that a program can take."""

from collections import Counter

from imcsim.mapping.program import Program, Task


def bounds_ps(program: Program) -> tuple[int, int]:
    """Return the least and the greatest time, in ps, that *program* can take in any order of its tasks.

    Least: no unit can do its work faster, and no chain of tasks can be shorter, even if every stream passes its first
    item on at once. Greatest: one task after the other, once the last request has arrived, with the lag of each item
    that goes into a store which may be full.
    """
    first: dict[str, int] = {}  # earliest first result
    last: dict[str, int] = {}  # earliest last result
    begins: dict[str, int] = {}
    busy: Counter[str] = Counter()
    for task in program.tasks:  # in dependency order
        ready = max((last[name] for name in task.after), default=0)
        one = _work_of_last(task)
        fed = max((first[name] for name in task.streams), default=0)
        begin = max(ready, fed, task.release_ps, *(begins[name] for name in task.behind))
        begins[task.name] = begin
        first[task.name] = begin + task.work_ps // task.n_items + task.lag_ps
        ends = [begin + task.work_ps, *(last[name] + one for name in task.streams)]
        last[task.name] = max(ends) + task.lag_ps
        busy[task.unit] += task.work_ps * task.n_servers
    shared = [ps // program.servers_of(unit) for unit, ps in busy.items()]
    least = max([*last.values(), *shared], default=0)
    n_lags = {task.name: 1 for task in program.tasks}
    for task in program.tasks:
        for name in task.rooms:
            n_lags[name] += min(task.n_items, program.task_of[name].n_items)
    arrived = max((task.release_ps for task in program.tasks), default=0)
    return least, arrived + sum(task.work_ps + n_lags[task.name] * task.lag_ps for task in program.tasks)


def _work_of_last(task: Task) -> int:
    return task.work_ps - task.work_ps * (task.n_items - 1) // task.n_items
