"""The kernel of the paper's comparison: one product of 16 inputs by 256 columns, against the share of zeros.

A product that is zero discharges no bitline, so the energy of a TiM tile falls with the zeros; a near-memory tile reads
every word whatever it holds.
"""

from dataclasses import dataclass

import numpy as np

from imcsim.costs.kernel import kernel
from imcsim.reproduce.predict import SPAN
from imcsim.reproduce.ranges import Floats, ranges_of
from imcsim.reproduce.suite import CHIPS, Chips
from imcsim.reproduce.targets import Target

N_POINTS = 21
N_DRAWS = 2000


@dataclass(frozen=True)
class KernelCurve:
    """Energy of the kernel on three tiles."""

    zero_share: Floats
    """Shares of products that are zero (n)."""

    zero_outputs: Floats
    """Shares of the sums that are zero then, where products are independent (n)."""

    energy_pJ: dict[str, Floats]
    """Tile to the energy of the kernel (n)."""

    gain: dict[str, tuple[Floats, Floats, Floats]]
    """TiM tile to the baseline's energy relative to its own: low, as stated, high (n)."""

    stated_zero_share: float
    """Where the chip file's energies hold."""


def kernel_curve(chips: Chips, calibration: dict[str, Target], *, seed: int = 0) -> KernelCurve:
    """Return the energy of the kernel on TiM-16, TiM-8 and the baseline, whose own may be off as far as stated."""
    zeros = np.linspace(0, 1, N_POINTS)
    tiles = {"TiM-16": chips.tim, "TiM-8": chips.tim_8, "Near-memory": chips.iso_capacity}
    made = {name: kernel(chip, zeros) for name, chip in tiles.items()}
    energy = {name: each.energy_pJ for name, each in made.items()}
    relative = _relative_draws(chips, calibration, np.random.default_rng(seed))
    low, high = np.quantile(relative, SPAN)
    gain = {}
    for name in ("TiM-16", "TiM-8"):
        middle = energy["Near-memory"] / energy[name]
        gain[name] = (low * middle, middle, high * middle)
    activity = chips.tim.tile.access.activity
    assert activity is not None, "TiM-DNN's file says at which activity its energies hold"
    return KernelCurve(zeros, made["TiM-16"].zero_outputs, energy, gain, 1 - activity.nonzero_products)


def _relative_draws(chips: Chips, calibration: dict[str, Target], rng: np.random.Generator) -> Floats:
    """Return draws of the baseline's kernel energy within its stated ranges, relative to what is stated."""
    access = chips.iso_capacity.tile.access
    total = np.zeros(N_DRAWS)
    ranges = [each for each in ranges_of(chips, calibration) if CHIPS[1] in each.chips]
    for part in ("pcus", "bitlines", "wordlines", "decoders"):
        each = next(r for r in ranges if f"tile.access.{part}.energy_pJ" in r.keys)
        total += getattr(access, part).energy_pJ * each.factor ** rng.uniform(-1, 1, N_DRAWS)
    return total / sum(getattr(access, part).energy_pJ for part in ("pcus", "bitlines", "wordlines", "decoders"))
