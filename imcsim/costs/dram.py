"""Links that are priced by the bit: main memory and the on-chip network."""

from imcsim.costs.table import Timing


def per_bit(latency_ns: float, bits_per_ns: float) -> Timing:
    """Return the timing of one bit on a link: the first after the latency, the others at the bandwidth.

    >>> per_bit(100.0, 2048.0).interval_ns
    0.00048828125
    """
    return Timing(latency_ns=latency_ns, interval_ns=1 / bits_per_ns)
