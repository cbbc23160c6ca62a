"""What of a model does not fit, said in one line, all at once: operator, how many, where, why, and what would."""

from collections.abc import Iterable

MOST_LETTERS = 4000
"""Of a message."""


class UnfitError(Exception):
    """Why a node is not taken; the second argument, if any, says the nearest thing that is."""

    @property
    def help(self) -> str:
        """The nearest thing that is taken, or nothing."""
        return str(self.args[1]) if len(self.args) > 1 else ""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class Refusals:
    """What was refused so far."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def add(self, operator: str, why: str, instead: str, where: str) -> None:
        """Note that *operator* is not taken *where* it is: *why*, and what is taken *instead*, each perhaps empty."""
        self._places.setdefault((f"{operator}{why if why.strip() else ''}", instead), []).append(where)

    def line(self, what: str) -> str:
        """Return what must hold of every *what*, and all of those of which it does not.

        >>> refusals = Refusals()
        >>> for where in ("a", "b"):
        ...     refusals.add("Gelu", "", "Relu", where)
        >>> refusals.line("node")
        'every node must be one that a graph has, got 2 that are not: Gelu x2 (a, b), take Relu'
        """
        parts = [
            f"{said} x{len(places)} ({listed(places)})" + (f", take {instead}" if instead else "")
            for (said, instead), places in self._places.items()
        ]
        return f"every {what} must be one that a graph has, got {len(self)} that are not: {one_line('; '.join(parts))}"


def one_line(message: str) -> str:
    """Return *message* in one line of bearable length, whatever names are in it."""
    line = " ".join(message.splitlines())
    return line if len(line) <= MOST_LETTERS else f"{line[:MOST_LETTERS]} ..."


def listed(names: Iterable[str], most: int = 12) -> str:
    """Return *names* with commas between them, and how many more there are.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    names = list(names)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
