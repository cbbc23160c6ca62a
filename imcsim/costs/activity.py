"""What a layer's numbers change about its energy and time: what the bitlines discharge, and what drives no input.

A chip file gives the energy of a column read at one activity: `access.activity` says how many products are not zero
there. Where a workload was executed, its histograms of n and k say what each layer discharges in truth, and the energy
of its column reads is that of the file times the ratio of the two means. An access is idle where no input of its block
is driven; `tile.skips_zero_blocks` says whether the chip leaves such accesses out. The columns of a near-memory chip
discharge whatever they hold: its file gives no activity, and its energy follows none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.spec import Chip, Circuit
from imcsim.circuit.bitline import binomial, bitline_energy, states
from imcsim.errors import ConfigError


@dataclass(frozen=True)
class Activity:
    """What was gathered, or is assumed, of the layers of a network; a layer not named is as the chip file says."""

    relative_energy: Mapping[str, float] = field(default_factory=dict)
    """Layer to the energy of one of its column reads, relative to that of the chip file; 1 where it is not named."""

    idle_share: Mapping[str, float] = field(default_factory=dict)
    """Layer to the share of its accesses that drive no input, all blocks, passes and polarities; 0 where not named.

    It is nothing but noted on a chip that does not skip them.
    """

    def __post_init__(self) -> None:
        for layer, energy in self.relative_energy.items():
            if not 0 <= energy < np.inf:
                raise ConfigError(f"activity: relative_energy of {layer} must be finite and at least 0, got {energy}")
        for layer, share in self.idle_share.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"activity: idle_share of {layer} must be from 0 to 1, got {share}")


FOLLOWS = "tile.column_read"
"""The action whose energy follows the activity."""


def bitline_energies(chip: Chip) -> NDArray[np.float64]:
    """Return the energy of charging one bitline again against its count, 0 .. rows_per_access, in any unit.

    It follows the chip's circuit; where none is described it is proportional to the count.
    """
    n_rows = chip.tile.rows_per_access
    if chip.circuit is None:
        return np.arange(n_rows + 1, dtype=np.float64)
    return _energies_of(chip.circuit, n_rows)


@lru_cache(maxsize=256)
def _energies_of(circuit: Circuit, n_rows: int) -> NDArray[np.float64]:
    """Return the energies of a circuit; kept, as each layer asks for them and they are integrated."""
    energies = bitline_energy(circuit, states(circuit, n_rows))
    energies.flags.writeable = False
    return energies


def relative_energy(chip: Chip, n: NDArray[np.int64], k: NDArray[np.int64], idle_share: float = 0.0) -> float:
    """Return the mean energy of column reads with the histograms *n* and *k*, relative to that of the chip file.

    The file's activity is taken as independent products, each +1 and -1 with half of `nonzero_products`. A chip that
    skips zero blocks does not do *idle_share* of these reads; they discharge nothing, so that what the others discharge
    is shared by fewer. Returns 1 where nothing was read, and where the file gives no activity.
    """
    activity = chip.tile.access.activity
    if activity is None:
        return 1.0
    energies = bitline_energies(chip)
    n_reads = float(n.sum())
    if chip.tile.skips_zero_blocks:
        n_reads *= 1 - idle_share
    if not n_reads:
        return 1.0
    ours = (float(energies @ n) + float(energies @ k)) / n_reads
    return ours / mean_discharge(chip, chip.tile.rows_per_access, activity.nonzero_products)


def mean_discharge(chip: Chip, n_rows: int, nonzero_products: float) -> float:
    """Return what both bitlines of a column spend on average where so many rows are on, in the unit of the energies.

    Products are taken as independent, each +1 and -1 with half of *nonzero_products*.
    """
    return 2 * float(bitline_energies(chip)[: n_rows + 1] @ binomial(n_rows, nonzero_products / 2))
