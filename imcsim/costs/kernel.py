"""What one vector-matrix product takes on one tile of a chip: the kernel that TiM-DNN is held against others by.

The kernel of TiM-DNN's comparison is a vector of 16 ternary inputs times a matrix of 16 x 256 ternary weights, one
access of a TiM tile, two of a TiM-8 tile, 16 of a near-memory tile (tim-dnn.md sections 7 and 9). Time and energy are
those of the chip's cost table; only what the bitlines discharge follows the products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.spec import Chip
from imcsim.costs.activity import FOLLOWS, mean_discharge
from imcsim.costs.peaks import access_interval_ns, access_timings
from imcsim.costs.price import price, selects_by
from imcsim.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Kernel:
    """One product of a vector with a matrix on one tile, against the share of zeros: arrays (z)."""

    chip: str
    n_rows: int
    n_columns: int
    n_accesses: int
    time_ns: float
    """Time after which the tile can begin the next one: its accesses at full rate."""

    latency_ns: float
    """From the first wordline to the last sum, alone on the tile."""

    zero_products: Floats
    """Shares of the products that are 0."""

    zero_outputs: Floats
    """Shares of the sums that are 0 then, where products are independent and +1 as often as -1."""

    energy_pJ: Floats
    """Of all accesses, at each share."""

    parts_pJ: dict[str, Floats]
    """The same by component: tile.wordlines, tile.bitlines ..."""


def kernel(
    chip: Chip, zero_products: float | Sequence[float] | Floats, *, n_rows: int = 16, n_columns: int = 256
) -> Kernel:
    """Return time and energy of a vector (r) times a matrix (r c) of symmetric ternary values on one tile of *chip*.

    Products are taken as independent, and +1 as often as -1. No access is left out, whatever `skips_zero_blocks` says:
    which inputs are 0 does not follow from the products.

    Args:
        chip: Whose tile does it.
        zero_products: Shares of the products that are 0, one or several (z).
        n_rows: Inputs.
        n_columns: Outputs.

    Raises:
        ConfigError: Where a share is not from 0 to 1, or the matrix does not fit a tile.
    """
    tile, costs = chip.tile, price(chip)
    zeros = np.atleast_1d(np.asarray(zero_products, dtype=np.float64))
    if zeros.ndim != 1 or not np.all((zeros >= 0) & (zeros <= 1)):
        raise ConfigError(f"kernel: zero_products must be shares from 0 to 1, got {zero_products}")
    for name, n, most in (("n_rows", n_rows, tile.n_rows), ("n_columns", n_columns, tile.n_columns)):
        if not 1 <= n <= most:
            raise ConfigError(f"kernel: {name} must be from 1 to {most}, those of a tile of {chip.name}, got {n}")
    whole, rest = divmod(n_rows, tile.rows_per_access)
    blocks = [tile.rows_per_access] * whole + [rest] * (rest > 0)
    counts = {
        selects_by(chip): len(blocks),
        "tile.access": len(blocks),
        FOLLOWS: len(blocks) * n_columns,
        chip.conversion: len(blocks) * n_columns,
    }
    discharges = np.array([_discharges(chip, blocks, 1 - share) for share in zeros])
    parts: dict[str, Floats] = {}
    energy_pJ = np.zeros(len(zeros))
    for action, n in counts.items():
        for cost in costs.by_action[action]:
            spent = n * cost.energy_pJ * (discharges if action == FOLLOWS else np.ones(len(zeros)))
            parts[cost.component] = parts.get(cost.component, 0.0) + spent
            energy_pJ = energy_pJ + spent
    interval_ns = access_interval_ns(chip, costs)
    alone_ns = sum(timing.latency_ns for timing in access_timings(chip, costs))
    return Kernel(
        chip=chip.name,
        n_rows=n_rows,
        n_columns=n_columns,
        n_accesses=len(blocks),
        time_ns=len(blocks) * interval_ns,
        latency_ns=(len(blocks) - 1) * interval_ns + alone_ns,
        zero_products=zeros,
        zero_outputs=np.array([_zero_outputs(n_rows, share) for share in zeros]),
        energy_pJ=energy_pJ,
        parts_pJ=parts,
    )


def _discharges(chip: Chip, blocks: Sequence[int], nonzero_products: float) -> float:
    """Return the energy of a column read, on average over *blocks* of so many rows, relative to that of the file."""
    activity = chip.tile.access.activity
    if activity is None:
        return 1.0
    ours = sum(mean_discharge(chip, n_rows, nonzero_products) for n_rows in blocks) / len(blocks)
    return ours / mean_discharge(chip, chip.tile.rows_per_access, activity.nonzero_products)


def _zero_outputs(n_rows: int, zero_products: float) -> float:
    """Return how likely *n_rows* independent products add up to 0.

    >>> _zero_outputs(2, 0.5)
    0.375
    """
    one = np.array([(1 - zero_products) / 2, zero_products, (1 - zero_products) / 2])
    return float(reduce(np.convolve, [one] * n_rows)[n_rows])
