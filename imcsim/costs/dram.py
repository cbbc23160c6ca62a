"""Links that are priced by the bit: main memory and the on-chip network."""

from typing import Any

import numpy as np

from imcsim.costs.table import Timing


def per_bit(latency_ns: float, bits_per_ns: float) -> Timing:
    """Return the timing of one bit on a link: the first after the latency, the others at the bandwidth.

    >>> per_bit(100.0, 2048.0).interval_ns
    0.00048828125
    """
    return Timing(latency_ns=latency_ns, interval_ns=1 / bits_per_ns)


def channels_of(bits: Any, n_channels: Any, piece_bits: Any) -> Any:
    """Return in how many channels a transfer of *bits* consecutive bits lies: a number, or an array of them.

    >>> channels_of(600, 8, 256), channels_of(1 << 20, 8, 256), channels_of(0, 8, 256)
    (3, 8, 1)
    """
    pieces = -(-bits // piece_bits)
    if isinstance(pieces, np.ndarray) or isinstance(n_channels, np.ndarray):
        return np.clip(pieces, 1, n_channels)
    return max(1, min(pieces, n_channels))
