"""What a run folder says of why its simulation took the time it took: records of ``summary.json``, the path's table."""

import csv
import io
import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from imcsim.errors import DataError
from imcsim.report.parts import NotNegative, Part, Share

if TYPE_CHECKING:
    import pandas as pd  # a terminal does without

PATH_COLUMNS = ("task", "layer", "unit", "component", "kind", "holds_up", "start_ns", "end_ns")


class TimeLayerSummary(Part):
    """What one layer adds to the latency, and what that is spent in."""

    name: str
    added_ns: NotNegative
    path_ns: NotNegative
    """Time of its tasks on the critical path; what it shares with its neighbours may be theirs."""

    bound_by: str
    path_ns_by_component: dict[str, NotNegative]
    without_ns: dict[str, NotNegative]
    """What it adds without the time of each component."""

    speedup: NotNegative | None
    """Without the time of what bounds it; None where nothing is left."""

    helps_most: str
    best_speedup: NotNegative | None


class TimeComponentSummary(Part):
    """What one component does to the time of the whole."""

    name: str
    path_ns: NotNegative
    path_share: Share
    without_ns: NotNegative
    speedup: NotNegative | None


class UseSummary(Part):
    """What a unit, or all units of a component, did with the time; adds up to 1."""

    name: str
    busy: Share
    inputs: Share
    end: Share
    room: Share
    idle: Share


class TimeSummary(Part):
    """Why a simulation took the time it took."""

    latency_ns: NotNegative
    sentences: Annotated[tuple[str, ...], Field(strict=False)]
    kinds: dict[str, NotNegative]
    """Shares of the critical path: work, drain, lag, wait."""

    layers: Annotated[tuple[TimeLayerSummary, ...], Field(strict=False)]
    components: Annotated[tuple[TimeComponentSummary, ...], Field(strict=False)]
    use: Annotated[tuple[UseSummary, ...], Field(strict=False)]
    units: Annotated[tuple[UseSummary, ...], Field(strict=False)]


def parse_path(text: str, where: str) -> "pd.DataFrame":
    """Return the critical path in CSV *text*, columns `PATH_COLUMNS`; raises DataError, naming *where*, for another."""
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != PATH_COLUMNS:
        got = ",".join((lines or [[]])[0])
        raise DataError(f"{where}: must begin with the columns {','.join(PATH_COLUMNS)}, got {got}")
    rows: list[tuple[str | float, ...]] = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            *names, start, end = line
            start_ns, end_ns = float(start), float(end)
        except ValueError as error:
            raise DataError(f"{where}: line {number} must end with two numbers, got {error}") from None
        if len(line) != len(PATH_COLUMNS) or not 0 <= start_ns <= end_ns < math.inf:
            raise DataError(f"{where}: line {number} must hold a segment of the path, got {','.join(line)}")
        rows.append((*names, start_ns, end_ns))
    import pandas as pd

    return pd.DataFrame(rows, columns=list(PATH_COLUMNS))
