"""How the energy of the bitlines follows what they discharge.

A chip file gives the energy of a column read at one activity: `access.activity` says how many products are not zero
there. Where a workload was executed, its histograms of n and k say what each layer discharges in truth, and the energy
of its column reads is that of the file times the ratio of the two means.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from imcsim.arch.spec import Chip
from imcsim.circuit.bitline import binomial, bitline_energy, states

Activity = Mapping[str, float]
"""Layer to the energy of one of its column reads, relative to that of the chip file; a layer not named has 1."""

FOLLOWS = "tile.column_read"
"""The action whose energy follows the activity."""


def bitline_energies(chip: Chip) -> NDArray[np.float64]:
    """Return the energy of charging one bitline again against its count, 0 .. rows_per_access, in any unit.

    It follows the chip's circuit; where none is described it is proportional to the count.
    """
    n_rows = chip.tile.rows_per_access
    if chip.circuit is None:
        return np.arange(n_rows + 1, dtype=np.float64)
    return bitline_energy(chip.circuit, states(chip.circuit, n_rows))


def relative_energy(chip: Chip, n: NDArray[np.int64], k: NDArray[np.int64]) -> float:
    """Return the mean energy of column reads with the histograms *n* and *k*, relative to that of the chip file.

    The file's activity is taken as independent products, each +1 and -1 with half of `nonzero_products`. Returns 1
    where nothing was read.
    """
    energies = bitline_energies(chip)
    if not n.sum():
        return 1.0
    ours = (float(energies @ n) + float(energies @ k)) / float(n.sum())
    half = chip.tile.access.activity.nonzero_products / 2
    return ours / (2 * float(energies @ binomial(chip.tile.rows_per_access, half)))
