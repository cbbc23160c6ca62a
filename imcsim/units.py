"""The unit set in words, and numbers written for people.

Inside imcsim: ns, GHz, pJ, mW, V, mA, pF, kOhm, um2, um, bits; whole picoseconds inside the simulator. The set is
coherent (pJ / ns = mW), so no formula needs a power of ten. Other units appear only through this module.
"""

PS_PER_NS = 1000
"""Picoseconds, the simulator's clock, in a nanosecond."""

UM2_PER_MM2 = 1e6

_STEPS = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1, "ns"), (1e-3, "ps")),
    "pJ": ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1, "pJ"), (1e-3, "fJ")),
    "mW": ((1e3, "W"), (1, "mW"), (1e-3, "µW")),
    "um2": ((1e6, "mm²"), (1, "µm²")),
    "bits": ((8 * 1024 * 1024, "MiB"), (8 * 1024, "KiB"), (1, "bits")),
    "": ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")),
}


def human(value: float, unit: str, *, digits: int = 4) -> str:
    """Return *value*, in *unit* (ns, pJ, mW, um2, bits or none), with the prefix that suits a reader.

    >>> human(13579.0, "ns"), human(0, "pJ"), human(2_350_000, "um2"), human(724_406_816, "")
    ('13.58 µs', '0 pJ', '2.35 mm²', '724.4 M')
    """
    steps = _STEPS[unit]
    for size, name in steps:
        if abs(value) >= size:
            return f"{value / size:.{digits}g} {name}".strip()
    if value == 0:
        return f"0 {unit}".strip()
    size, name = steps[-1]
    return f"{value / size:.{digits}g} {name}".strip()


def percent(share: float, *, digits: int = 1) -> str:
    """Return a share of 1 as a percentage.

    >>> percent(0.9342)
    '93.4 %'
    """
    return f"{100 * share:.{digits}f} %"
