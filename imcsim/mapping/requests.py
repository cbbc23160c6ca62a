"""The tasks of many requests at a time: one inference each, pipelined through layers that lie side by side.

A request does the tasks of one inference, under names that end in ``#`` and its number. It begins when it arrives.
What holds it back, beside the units that all share:

* a task waits until the same task of the request before has ended, so that requests stay in their order; on a link
  between banks, whose ends may be far apart, they are in order as it is;
* a recurrent layer, whose state there is once, is left by one request before the next one enters;
* a layer is entered when the activation buffer has a place for its output: when that of the request `places_of`
  earlier has been read;
* inputs come from main memory, which can be asked again before it has answered, for up to two requests at a time.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from imcsim.costs.table import CostTable
from imcsim.mapping.links import is_link, local_unit
from imcsim.mapping.lower import lower
from imcsim.mapping.plan import Plan
from imcsim.mapping.program import Program, Task

FETCHED_AHEAD = 2
"""Requests whose inputs from main memory lie in the activation buffer at one time."""

Gates = dict[str, list[tuple[str, int]]]
"""For each task of a request: tasks that it waits for, and how many requests earlier these are."""


def lower_requests(plan: Plan, costs: CostTable, releases_ps: Sequence[int]) -> Program:
    """Write out the tasks of a pipelined *plan* for requests that arrive at *releases_ps*, ascending."""
    once = lower(plan, costs)
    gates = _gates(plan, once)
    tasks: list[Task] = []
    for number, release_ps in enumerate(releases_ps):
        for task in once.tasks:
            earlier = [f"{name}#{number - by}" for name, by in gates[task.name] if number >= by]
            tasks.append(
                replace(
                    task,
                    name=f"{task.name}#{number}",
                    after=(*(f"{name}#{number}" for name in task.after), *earlier),
                    behind=tuple(f"{name}#{number}" for name in task.behind),
                    streams=tuple(f"{name}#{number}" for name in task.streams),
                    rooms={f"{name}#{number}": n for name, n in task.rooms.items()},
                    release_ps=release_ps,
                )
            )
    return Program(tuple(tasks), once.servers)


def _gates(plan: Plan, once: Program) -> Gates:
    """Return what the tasks of a request wait for of earlier requests."""
    of_layer: dict[str, list[Task]] = defaultdict(list)
    for task in once.tasks:
        of_layer[task.layer].append(task)
    readers: dict[str, list[str]] = defaultdict(list)
    for op in plan.graph.ops:
        for name in dict.fromkeys(op.inputs):
            readers[name] += _reads(of_layer[op.name])
    gates: Gates = {task.name: [] for task in once.tasks}
    for layer in plan.layers:
        tasks = of_layer[layer.name]
        output = plan.op_of[layer.name].output.name
        entrances, exits = _ends(tasks)
        for task in tasks:
            is_from_memory = local_unit(task.unit) == "main_memory"
            if layer.n_steps:
                gates[task.name] += [(name, 1) for name in exits if task.name in entrances]
            elif not is_from_memory and not is_link(task.unit):
                gates[task.name].append((task.name, 1))
            if task.name not in entrances:
                continue
            if is_from_memory and not layer.n_steps:
                gates[task.name] += [(name, FETCHED_AHEAD) for name in _reads(tasks)]
            if output not in plan.off_chip:
                gates[task.name] += [(name, plan.places_of[output]) for name in readers[output]]
    return gates


def _reads(tasks: list[Task]) -> list[str]:
    """Those of a layer's *tasks* that read its inputs from the activation buffer."""
    return [
        task.name
        for task in tasks
        if local_unit(task.unit) == "activation_buffer.read" and not task.name.startswith(f"{task.layer}/spill")
    ]


def _ends(tasks: list[Task]) -> tuple[set[str], list[str]]:
    """Those of a layer's *tasks* that wait for no other of them, and those on the chip that no other there waits for.

    What is on its way to main memory has left the chip.
    """
    names = {task.name for task in tasks}
    entrances = {task.name for task in tasks if not names & {*task.after, *task.streams}}
    on_chip = [task for task in tasks if local_unit(task.unit) != "main_memory"]
    needed = {name for task in on_chip for name in (*task.after, *task.streams)}
    return entrances, [task.name for task in on_chip if task.name not in needed]
