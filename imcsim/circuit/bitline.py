"""Voltage of a bitline against the number of cells that discharge it, and the energy of charging it again.

Each of n cells of a column pulls the bitline down through its path, one effective nMOS with the alpha-power law of
Sakurai and Newton: with the overdrive u = precharge - threshold, the current is

    saturated, V >= knee:   I0 (1 + modulation (V - knee)),     I0 = current u^alpha, knee = saturation u^(alpha / 2)
    triode,    V <  knee:   I0 (V / knee) (2 - V / knee)

Cells that are off leak in proportion to V. Summed over cells of any thresholds the current is, between one knee and
the next, a polynomial of second degree in V, so that C dV/dt = -(q0 + q1 V + q2 V^2) has a closed solution; it is
evaluated for many samples at once.
"""

import numpy as np
from numpy.typing import ArrayLike

from imcsim.arch.spec import Circuit
from imcsim.errors import ConfigError

Array = np.ndarray


def operating_threshold(circuit: Circuit) -> float:
    """Return the mean threshold of a cell at the operating temperature, in V."""
    temperature = circuit.temperature
    return circuit.path.threshold_V - temperature.threshold_V_per_K * (temperature.operating_K - temperature.nominal_K)


def strengths(circuit: Circuit, threshold_V: ArrayLike) -> tuple[Array, Array]:
    """Return the saturated current (mA) and the knee (V) of cells with the given thresholds, at temperature."""
    overdrive_V = np.maximum(circuit.discharge.precharge_V - np.asarray(threshold_V, dtype=float), 0.0)
    temperature = circuit.temperature
    mobility = (temperature.operating_K / temperature.nominal_K) ** -temperature.mobility_exponent
    root = overdrive_V ** (circuit.path.alpha / 2)
    return circuit.discharge.current_mA * mobility * root * root, circuit.discharge.saturation_V * root


def cell_current(circuit: Circuit, voltage_V: ArrayLike, threshold_V: ArrayLike | None = None) -> Array:
    """Return the current, in mA, that a cell draws from a bitline at the given voltage."""
    voltage_V = np.asarray(voltage_V, dtype=float)
    current_mA, knee_V = strengths(circuit, operating_threshold(circuit) if threshold_V is None else threshold_V)
    u = np.minimum(voltage_V / knee_V, 1.0)
    return current_mA * (u * (2 - u) + circuit.path.modulation_per_V * np.maximum(voltage_V - knee_V, 0.0))


def discharged(circuit: Circuit, threshold_V: ArrayLike, *, n_cells: int = 16, pulse_ns: float | None = None) -> Array:
    """Return the bitline voltage after the pulse (b) for samples of the thresholds of the cells that are on (b n).

    The other `n_cells` - n cells of the block leak.
    """
    threshold_V = np.asarray(threshold_V, dtype=float)
    n_samples, n = threshold_V.shape
    if n > n_cells:
        raise ConfigError(f"n_cells: must be at least the number of discharging cells ({n}), got {n_cells}")
    bitline, precharge_V = circuit.bitline, circuit.discharge.precharge_V
    span = (bitline.pulse_ns if pulse_ns is None else pulse_ns) / bitline.capacitance_pF  # ns / pF = V / mA
    leak = (n_cells - n) * bitline.off_current_mA / precharge_V
    weakest_last = np.ascontiguousarray(np.sort(threshold_V, axis=1).T)  # n b; current and knee fall with the threshold
    current_mA, knee_V = strengths(circuit, weakest_last)
    return _fall(np.full(n_samples, precharge_V), current_mA, knee_V, circuit.path.modulation_per_V, leak, span)


def states(circuit: Circuit, n_cells: int = 16, *, pulse_ns: float | None = None) -> Array:
    """Return the nominal voltages V(n) of the bitline, n = 0 .. n_cells."""
    threshold_V = operating_threshold(circuit)
    return np.array([
        discharged(circuit, np.full((1, n), threshold_V), n_cells=n_cells, pulse_ns=pulse_ns)[0]
        for n in range(n_cells + 1)
    ])  # fmt: skip


def alike_states(circuit: Circuit, n_cells: int = 16) -> Array:
    """Return `states` by the solution for cells that are all alike: numbers of *circuit* may be arrays, of one shape.

    Saturated, the voltage falls at n (a + b V), in triode at n V (c - d V); returns (n ...), n = 0 .. n_cells.
    """
    start_V, bitline, path = np.asarray(circuit.discharge.precharge_V, dtype=float), circuit.bitline, circuit.path
    current_mA, knee_V = strengths(circuit, operating_threshold(circuit))
    shape = np.broadcast_shapes(*(np.shape(each) for each in (current_mA, knee_V, bitline.pulse_ns, start_V)))
    n = np.arange(n_cells + 1).reshape(-1, *(1 for _ in shape))
    span = bitline.pulse_ns / bitline.capacitance_pF
    leak = (n_cells - n) * bitline.off_current_mA / start_V
    bottom_V = np.minimum(knee_V, start_V)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_knee = np.where(knee_V > 0, current_mA / knee_V, 0.0)
        per_square = np.where(knee_V > 0, per_knee / knee_V, 0.0)
        q0 = n * current_mA * (1 - path.modulation_per_V * knee_V)
        q1 = n * path.modulation_per_V * current_mA + leak
        grown = np.log1p(q1 * (start_V - bottom_V) / (q0 + q1 * bottom_V))
        saturated = np.where(q1 > 0, grown / q1, (start_V - bottom_V) / q0)
        saturated = np.where(bottom_V < start_V, saturated, 0.0)
        reach = np.where(q1 > 0, -np.expm1(-q1 * span) / q1, span)
        above_V = start_V - (q0 + q1 * start_V) * reach
    rest = np.maximum(span - saturated, 0.0)
    below_V = _in_triode(2 * n * per_knee + leak, -n * per_square, bottom_V, rest)
    return np.where(saturated >= span, above_V, below_V)


def margins(states_V: ArrayLike) -> Array:
    """Return the sensing margins V(n-1) - V(n), n = 1 .. n_cells."""
    return -np.diff(np.asarray(states_V, dtype=float))


def saturation_count(states_V: ArrayLike, share: float = 0.5) -> int | None:
    """Return the first n whose margin from n - 1 is less than *share* of the first margin; None where there is none.

    >>> saturation_count([1.0, 0.9, 0.8, 0.76])
    3
    """
    steps = margins(states_V)
    below = np.flatnonzero(steps < share * steps[0])
    return int(below[0]) + 1 if len(below) else None


# Energy


def bitline_energy(circuit: Circuit, states_V: ArrayLike) -> Array:
    """Return what the supply gives, in pJ, to charge a bitline from each voltage back to `precharge_V`."""
    precharge_V = circuit.discharge.precharge_V
    return circuit.bitline.capacitance_pF * precharge_V * (precharge_V - np.asarray(states_V, dtype=float))


def column_energy(
    circuit: Circuit, n_cells: int = 16, *, energy_pJ: float | None = None, nonzero: float = 0.36
) -> Array:
    """Return the energy of one column in one access, in pJ, against its counts (n k); NaN where n + k > n_cells.

    With *energy_pJ* the energies are scaled so that a column takes that much on average where a product is not zero
    with probability *nonzero*: TiM-DNN's recalled 9.18 pJ / 256 columns, at the chip file's 0.6 x 0.6.
    """
    of_count = bitline_energy(circuit, states(circuit, n_cells))
    if energy_pJ is not None:
        of_count = of_count * (energy_pJ / mean_column_energy(circuit, nonzero, n_cells))
    n = np.arange(n_cells + 1)
    return np.where(n[:, None] + n <= n_cells, of_count[:, None] + of_count, np.nan)


def mean_column_energy(circuit: Circuit, nonzero: float, n_cells: int = 16) -> float:
    """Return the mean energy of one column in one access, in pJ, both bitlines.

    A product is +1 and -1 with probability *nonzero* / 2 each, independently of the others.
    """
    of_count = bitline_energy(circuit, states(circuit, n_cells))
    return 2 * float(of_count @ binomial(n_cells, nonzero / 2))


def nonzero_of_energy(circuit: Circuit, energy_pJ: float, n_cells: int = 16) -> float:
    """Return the share of products that are not zero at which a column takes *energy_pJ* on average."""
    from scipy.optimize import brentq

    greatest_pJ = mean_column_energy(circuit, 1.0, n_cells)
    if not 0 <= energy_pJ <= greatest_pJ:
        raise ConfigError(
            f"energy_pJ: must be from 0 to {greatest_pJ:.4g} pJ, what a column takes when no product is zero, "
            f"got {energy_pJ:g}"
        )
    return float(brentq(lambda nonzero: mean_column_energy(circuit, nonzero, n_cells) - energy_pJ, 0.0, 1.0))


def binomial(n_cells: int, probability: float) -> Array:
    """Return the probabilities of 0 .. n_cells hits of *n_cells* independent tries; (n ...) where it is an array.

    >>> binomial(2, 0.5)
    array([0.25, 0.5 , 0.25])
    """
    from math import comb

    each = (-1, *(1 for _ in np.shape(probability)))
    n = np.arange(n_cells + 1).reshape(each)
    ways = np.array([comb(n_cells, hits) for hits in range(n_cells + 1)], dtype=float).reshape(each)
    return ways * probability**n * (1 - probability) ** (n_cells - n)


# The closed solution


def _fall(start_V: Array, current_mA: Array, knee_V: Array, modulation_per_V: float, leak: float, span: float) -> Array:
    """Return the voltage after *span* (ns / pF), cells sorted by falling knee (n b).

    In the j-th piece the j cells of highest knee are in triode, the others saturated. With P(V) = q0 + q1 V + q2 V^2,
    w^2 = q1^2 - 4 q0 q2 and s = (2 / w) tanh(w span / 2), the solution is V - P(V) s / (1 + P'(V) s / 2); solved for
    s, it gives the span from one knee to the next.
    """
    n = len(current_mA)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_knee = np.where(knee_V > 0, current_mA / knee_V, 0.0)
        per_square = np.where(knee_V > 0, per_knee / knee_V, 0.0)
    saturated = current_mA * (1 - modulation_per_V * knee_V)
    q0 = saturated.sum(axis=0)
    q1 = modulation_per_V * current_mA.sum(axis=0) + leak
    q2 = np.zeros_like(start_V)
    end_V = np.empty_like(start_V)
    live, voltage, left = np.arange(len(start_V)), start_V, np.full(start_V.shape, span)
    for j in range(n):
        bottom = np.minimum(knee_V[j, live], voltage)
        needed = _span_between(q0, q1, q2, voltage, bottom)
        ends = needed >= left
        if ends.any():
            end_V[live[ends]] = _after(q0[ends], q1[ends], q2[ends], voltage[ends], left[ends])
            goes = ~ends
            live, bottom, left, needed = live[goes], bottom[goes], left[goes], needed[goes]
            q0, q1, q2 = q0[goes], q1[goes], q2[goes]
        if not len(live):
            return end_V
        voltage, left = bottom, left - needed
        q0 = q0 - saturated[j, live]
        q1 = q1 + 2 * per_knee[j, live] - modulation_per_V * current_mA[j, live]
        q2 = q2 - per_square[j, live]
    end_V[live] = _in_triode(q1, q2, voltage, left)
    return end_V


def _span_between(q0: Array, q1: Array, q2: Array, top: Array, bottom: Array) -> Array:
    """Return the span in which the voltage falls from *top* to *bottom*; infinite where no current flows."""
    drop = top - bottom
    here, there = q0 + (q1 + q2 * top) * top, q0 + (q1 + q2 * bottom) * bottom
    with np.errstate(divide="ignore", invalid="ignore"):
        s = drop / (0.5 * (here + there) - 0.5 * q2 * drop * drop)
        square = (q1 * q1 - 4 * q0 * q2) * (0.25 * s * s)  # of w s / 2
        # NOTE: knees lie close together, and four terms of the series of artanh are quicker than artanh.
        if np.nanmax(square, initial=0.0) < 1e-3:
            ratio = 1 + square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square / 11))))
        else:
            x = np.sqrt(np.clip(square, 0.0, 1.0))
            ratio = np.where(x > 1e-9, np.arctanh(x) / x, 1.0)
        return np.where(here > 0, s * ratio, np.inf)


def _after(q0: Array, q1: Array, q2: Array, voltage: Array, span: Array) -> Array:
    """Return the voltage after *span* in one piece."""
    here, slope = q0 + (q1 + q2 * voltage) * voltage, q1 + 2 * q2 * voltage
    x = 0.5 * span * np.sqrt(np.maximum(q1 * q1 - 4 * q0 * q2, 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        s = span * np.where(x > 1e-9, np.tanh(x) / x, 1.0)
    return voltage - here * s / (1 + 0.5 * slope * s)


def _in_triode(q1: Array, q2: Array, voltage: Array, span: Array) -> Array:
    """Return the voltage after *span* in the last piece, where q0 = 0: to full relative precision, however small."""
    x = q1 * span
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(q1 > 0, -np.expm1(-x) / q1, span)
    return voltage * np.exp(-x) / (1 + q2 * voltage * reach)
