"""Instructions in the scheduler's memory: how many a layer has, and what is loaded when not all of them stay there.

An instruction takes an entry from when it is loaded until it retires: until what it sets going has begun, for units
keep what they need by then. Entries are given back in the order of the program. A program that fits stays in the memory
from one inference to the next, and nothing is loaded. A longer one is read from main memory in every inference, layer
by layer, in pieces of at most half of the memory, so that one is loaded while another is at work. The time steps of a
recurrent layer are a loop, whose instructions are loaded once, unless one step alone exceeds the memory. Writing an
entry is part of the energy of its issue.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from imcsim.errors import MappingError
from imcsim.graph.recurrent import PARTS
from imcsim.mapping.digital import cell_of, cell_work
from imcsim.mapping.plan import LayerPlan, Plan


def n_issues(plan: Plan, layer: LayerPlan) -> int:
    """Return how many instructions one inference issues for *layer*."""
    writes = len(layer.rounds) if plan.writes_cells(layer) else 0
    if layer.n_steps:
        n_writes = writes * (layer.n_steps if len(layer.rounds) > 1 else 1)
        return layer.n_steps * (_n_of_step(plan, layer) - writes) + n_writes
    if plan.is_on_host(layer):
        return 0
    n_lanes = len(plan.lane_work(layer))
    return n_lanes + (writes + len(layer.rounds) + _reduces(layer) if layer.is_on_tiles else 1)


def n_instructions(plan: Plan, layer: LayerPlan) -> int:
    """Return how many entries the program of *layer* takes."""
    return _n_of_step(plan, layer) if _is_loop(plan, layer) else n_issues(plan, layer)


def is_reloaded(plan: Plan) -> bool:
    """Whether the program exceeds the scheduler's memory, so that every inference loads it anew.

    Of several banks each has a scheduler and a part of the program of its own, which is taken to fit.
    """
    return (
        plan.chip.all_banks == 1
        and sum(n_instructions(plan, layer) for layer in plan.layers) > plan.chip.scheduler.n_entries
    )


def pieces_of(plan: Plan, layer: LayerPlan) -> list[int]:
    """Return the instructions of each piece in which those of *layer* are loaded."""
    n, most = n_instructions(plan, layer), max(1, plan.chip.scheduler.n_entries // 2)
    if _is_loop(plan, layer):
        return [n]
    return [min(most, n - start) for start in range(0, n, most)]


def require_instructions_fit(plan: Plan) -> None:
    """Raise MappingError where a pipelined *plan* has more instructions than the scheduler's memory has entries."""
    if plan.style == "pipelined" and is_reloaded(plan):
        n = sum(n_instructions(plan, layer) for layer in plan.layers)
        raise MappingError(
            f"{plan.graph.name}: pipelined, the instructions of all layers must stay in the memory of the scheduler, "
            f"{plan.chip.scheduler.n_entries} entries, got {n}; use spatial or increase scheduler.n_entries"
        )


def _reduces(layer: LayerPlan) -> int:
    return int(layer.psums_per_output > 1)


def _n_of_step(plan: Plan, layer: LayerPlan) -> int:
    """Instructions of a time step that writes its weights."""
    n_turns = len(cell_work(cell_of(plan.op_of[layer.name]), layer.n_outputs // PARTS))
    return len(layer.rounds) * (2 if plan.style == "temporal" else 1) + _reduces(layer) + n_turns


def _is_loop(plan: Plan, layer: LayerPlan) -> bool:
    return layer.n_steps > 0 and _n_of_step(plan, layer) <= plan.chip.scheduler.n_entries


@dataclass(eq=False)
class _Piece:
    """Instructions that are loaded together."""

    load: str
    """The task that brings them."""

    size: int
    n_left: int
    """Those that no task has issued yet."""

    begins: dict[str, list[str]] = field(default_factory=dict)
    """Whose beginning shows that they have retired: what each issue sets going, or the issue itself as long as that is
    nothing; of a loop in its last time step."""


Load = Callable[[LayerPlan, str, int, list[str]], str]
"""Writes the task that loads so many instructions of a layer, once some tasks have begun; returns its name."""


class Loader:
    """Follows a program that is written task by task: loads its instructions, and notes when they retire."""

    def __init__(self, plan: Plan, load: Load) -> None:
        self.plan, self.load = plan, load
        self.layer_of = {layer.name: layer for layer in plan.layers}
        self.sizes: dict[str, deque[int]] = {}  # of the pieces of a layer that are to come
        self.held: deque[_Piece] = deque()
        self.begins: dict[str, list[str]] = {}  # those of the pieces, by the task that issues

    def take(self, layer: LayerPlan, n: int, step: int) -> tuple[str, int]:
        """Return the task that loads the next instruction of *layer*, and how many of the next *n* come with it."""
        if step and _is_loop(self.plan, self.layer_of[layer.name]):
            return self.held[-1].load, n
        if not (self.held and self.held[-1].n_left):
            self._load(layer)
        piece = self.held[-1]
        taken = min(n, piece.n_left)
        piece.n_left -= taken
        return piece.load, taken

    def issued(self, issue: str, what: str) -> None:
        """Take note of the task *issue*, which issues *what*, in any time step, of the instructions loaded last."""
        self.begins[issue] = self.held[-1].begins[what] = [issue]

    def written(self, task: str, after: Iterable[str]) -> None:
        """Take note of a task that waits for those of *after*."""
        for issue in after:
            names = self.begins.get(issue, [])
            if names == [issue]:
                names.clear()
            if issue in self.begins:
                names.append(task)

    def _load(self, layer: LayerPlan) -> None:
        if layer.name not in self.sizes:
            self.sizes[layer.name] = deque(pieces_of(self.plan, self.layer_of[layer.name]))
        n_before = len(pieces_of(self.plan, self.layer_of[layer.name])) - len(self.sizes[layer.name])
        size, retired = self.sizes[layer.name].popleft(), list[str]()
        while sum(piece.size for piece in self.held) + size > self.plan.chip.scheduler.n_entries:
            retired += [name for names in self.held.popleft().begins.values() for name in names]
        self.held.append(_Piece(self.load(layer, f"instructions.{n_before}", size, retired), size, size))
