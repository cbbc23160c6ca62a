"""The roofline of a sweep's base chip with the layers of its workloads, as a table for the report."""

from pathlib import Path

from imcsim.analytic.estimate import estimate
from imcsim.analytic.roofline import RooflineRow, roofline, to_csv
from imcsim.arch.spec import Chip
from imcsim.errors import ImcsimError
from imcsim.mapping.place import place
from imcsim.results import write_whole
from imcsim.sweep.network import network_of, path_of
from imcsim.sweep.spec import Sweep

FILE = "roofline.csv"


def write_rooflines(sweep: Sweep, out: Path, chip: Chip) -> Path | None:
    """Write ``roofline.csv`` into *out* and return it; None where no workload can be placed on the base chip.

    Points may have what the base chip lacks, so that a network that does not fit it is nothing to stop for.
    """
    rows: list[RooflineRow] = []
    for workload in sweep.workloads:
        try:
            plan = place(network_of(path_of(workload, sweep.folder), None, sweep.first_assumption).graph, chip)
        except ImcsimError:
            continue
        rows += roofline(plan, estimate(plan))
    if not rows:
        (out / FILE).unlink(missing_ok=True)
        return None
    write_whole(out / FILE, to_csv(rows))
    return out / FILE
