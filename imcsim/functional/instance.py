"""One chip off the line: which cells are stuck, how its ADCs deviate, how its devices were programmed.

Everything is drawn tile by tile from a stream of its own (seed, kind, tile), whole tiles at a time. So an instance is
the same whatever network runs on it and however its inputs are split; and one draw is scaled by the chip's standard
deviations, so that chips that differ in them alone can be compared instance by instance.
"""

from dataclasses import dataclass

import numpy as np

from imcsim.arch.spec import Resistive, Tile
from imcsim.errors import ConfigError

Array = np.ndarray

FREE = 2
"""In a map of stuck cells: a cell that holds what is written into it."""

_STUCK, _ADCS, _DEVICES = 1, 2, 3


@dataclass(frozen=True)
class ChipInstance:
    """One instance of a chip, one for each *seed*; raises ConfigError where that is no whole number from 0 up."""

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise ConfigError(f"instance: seed must be a whole number of at least 0, got {self.seed!r}")

    def stuck_cells(self, spec: Tile, tile: int) -> Array:
        """Return what each cell of a *tile* (row column) is stuck at, int8: 0, +1, -1, or `FREE`."""
        at_zero, at_plus, at_minus = spec.imperfections.stuck_probabilities
        draw = self._stream(_STUCK, tile).random((spec.n_rows, spec.n_columns))
        stuck = np.full(draw.shape, FREE, np.int8)
        stuck[draw < at_zero + at_plus + at_minus] = -1
        stuck[draw < at_zero + at_plus] = 1
        stuck[draw < at_zero] = 0
        return stuck

    def adcs(self, spec: Tile, tile: int) -> tuple[Array, Array]:
        """Return gain and offset, in counts, of the two ADCs of each PCU of a *tile*, each (side pcu): for n, for k."""
        gain, offset = self._stream(_ADCS, tile).standard_normal((2, 2, spec.n_pcus))
        wrong = spec.imperfections
        return 1 + wrong.adc_gain_fraction * gain, wrong.adc_offset_counts * offset

    def devices(self, spec: Tile, tile: int) -> Array:
        """Return by what factor each device of a resistive *tile* conducts more than nominal (device row column).

        Device 0 is the one that is on where the weight is +1, device 1 that of -1; float32.
        """
        assert spec.resistive is not None
        cells = spec.resistive
        rng = self._stream(_DEVICES, tile)
        programmed = _programmed(cells, rng.standard_normal((2, spec.n_rows, spec.n_columns)))
        exponent = np.maximum(0, cells.drift_exponent + cells.drift_exponent_spread * rng.standard_normal(
            (2, spec.n_rows, spec.n_columns)))  # fmt: skip
        drifted = programmed * (cells.elapsed_s / cells.drift_reference_s) ** -exponent
        return drifted.astype(np.float32)

    def _stream(self, kind: int, tile: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(int(self.seed), spawn_key=(kind, tile)))


def _programmed(cells: Resistive, normal: Array) -> Array:
    """Return the relative conductances that standard *normal* draws stand for; their mean is 1."""
    sigma = cells.programming_fraction
    if cells.spread == "lognormal":
        return np.exp(sigma * normal - sigma**2 / 2)
    return np.maximum(0, 1 + sigma * normal)
