"""How energy and time of the array follow the circuit: its supply, pulse, bitline and temperature.

A chip file says at which operating point its energies and times were given (`access.operating_point`). Where the chip's
circuit stands at another one, they follow by

    bitlines        C V (V - V(n)), what the supply gives to charge a bitline again, at the file's activity
    wordlines       V^2: the gates of a row are driven to the supply of the array
    a row written   C V^2: bitlines and source lines swing from rail to rail
    latency         holds the pulse, and grows or shrinks by as much

with V the precharge voltage, C the capacitance of a bitline, and V(n) that of `imcsim.circuit.bitline`. Each energy is
that of the file times the ratio of the two operating points, so that it is the file's own where they are one.

Converters, decoders, buffers and digital units are assumed to keep a supply of their own, leakage is assumed to stay,
and the pulse stays as it is set: at a smaller supply margins shrink, which `tile.misreads: circuit` shows.
"""

from typing import Any, NamedTuple

import numpy as np

from imcsim.arch.spec import Chip, Circuit, OperatingPoint
from imcsim.circuit.bitline import alike_states, binomial, bitline_energy


class Relative(NamedTuple):
    """What the array takes where its circuit stands, relative to the operating point of the chip file.

    Arrays where numbers of the chip are.
    """

    bitlines: Any = 1.0
    wordlines: Any = 1.0
    write_row: Any = 1.0
    longer_ns: Any = 0.0
    """By how much an access takes longer."""


AS_STATED = Relative()


def relative(chip: Chip) -> Relative:
    """Return how energies and time of the array of *chip* follow its circuit."""
    point, circuit, activity = chip.tile.access.operating_point, chip.circuit, chip.tile.access.activity
    if point is None or circuit is None or activity is None or _stands_at(circuit, point):
        return AS_STATED
    volts = circuit.discharge.precharge_V / point.precharge_V
    n_rows, nonzero = chip.tile.rows_per_access, activity.nonzero_products
    ours = _discharge_pJ(circuit, n_rows, nonzero)
    stated = _discharge_pJ(_at(circuit, point), n_rows, nonzero)
    return Relative(
        bitlines=ours / stated,
        wordlines=volts * volts,
        write_row=circuit.bitline.capacitance_pF / point.capacitance_pF * volts * volts,
        longer_ns=circuit.bitline.pulse_ns - point.pulse_ns,
    )


def access_latency_ns(chip: Chip) -> Any:
    """Return the time from wordline to sampled bitlines."""
    return chip.tile.access.latency_ns + longer_ns(chip)


def access_interval_ns(chip: Chip) -> Any:
    """Return the time until the array takes the next access."""
    return chip.tile.access.interval_ns + longer_ns(chip)


def longer_ns(chip: Chip) -> Any:
    """Return by how much the pulse of the circuit is longer than that of the operating point."""
    point, circuit = chip.tile.access.operating_point, chip.circuit
    return 0.0 if point is None or circuit is None else circuit.bitline.pulse_ns - point.pulse_ns


def _stands_at(circuit: Circuit, point: OperatingPoint) -> bool:
    there = _at(circuit, point)
    pairs = ((circuit.discharge, there.discharge), (circuit.bitline, there.bitline),
             (circuit.temperature, there.temperature))  # fmt: skip
    return all(np.all(getattr(ours, name) == value) for ours, theirs in pairs for name, value in theirs)


def _at(circuit: Circuit, point: OperatingPoint) -> Circuit:
    """Return *circuit* at the operating *point*.

    Arrays stand where the circuit has some, so that equal numbers give equal bits.
    """
    records = {
        "discharge": ("precharge_V",),
        "bitline": ("pulse_ns", "capacitance_pF"),
        "temperature": ("operating_K",),
    }

    def like(value: Any, ours: Any) -> Any:
        return np.full(np.shape(ours), value) if np.ndim(ours) else value

    changes = {}
    for name, keys in records.items():
        record = getattr(circuit, name)
        update = {key: like(getattr(point, key), getattr(record, key)) for key in keys}
        changes[name] = record.model_copy(update=update)
    return circuit.model_copy(update=changes)


def _discharge_pJ(circuit: Circuit, n_rows: int, nonzero: float) -> Any:
    """Return the mean energy of a bitline in one access."""
    energies = bitline_energy(circuit, alike_states(circuit, n_rows))
    mean = sum(share * energy for share, energy in zip(binomial(n_rows, nonzero / 2), energies, strict=True))
    return mean if np.ndim(mean) else float(mean)
