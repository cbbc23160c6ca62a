"""Recurrent layers: one time step after the other, each product as the tiles compute it, the cell in float64."""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np

from imcsim.functional.products import Multiplied
from imcsim.functional.statistics import Clipping
from imcsim.functional.steps import STEPS
from imcsim.graph import Cell, GruCell, LstmCell, Quantize, Threshold

Array = np.ndarray


def recurrence(cell: Cell, x: Array, n_hidden: int, product: Callable[[Array], Multiplied]) -> tuple[Array, Multiplied]:
    """Return the codes (b 1 t h) of the hidden states for the codes *x* (b 1 t i), and all products together.

    *product* gives the sums (b 4h) of one time step for its rows (b i + h).
    """
    n_samples, _, n_steps, n_inputs = x.shape
    step = partial(_STEPS[type(cell)], cell)
    quantize = STEPS[type(cell.quantizer)]
    dtype = np.int8 if cell.format.low >= -128 and cell.format.high < 128 else np.int32
    rows = np.zeros((n_samples, n_inputs + n_hidden), dtype)
    state = np.zeros((n_samples, n_hidden))
    outputs = np.zeros((n_samples, 1, n_steps, n_hidden), dtype)
    done: list[Multiplied] = []
    for t in range(n_steps):
        rows[:, :n_inputs] = x[:, 0, t]
        done.append(product(rows))
        hidden, state = step(cell.scale * done[-1].sums + cell.offset, state)
        codes = quantize(cell.quantizer, hidden, {})
        rows[:, n_inputs:] = outputs[:, 0, t] = codes
        if isinstance(cell, GruCell) and cell.state_is_codes:
            state = cell.format.scale * (codes - cell.format.zero)
    return outputs, _together(done)


def _together(done: list[Multiplied]) -> Multiplied:
    """Put the products of all time steps, sums (b 4h), together: sums (b 1 t 4h)."""
    looked = [each.occupancy for each in done if each.occupancy is not None]
    return Multiplied(
        np.stack([each.sums for each in done], axis=1)[:, np.newaxis],
        sum((each.clipping for each in done), Clipping()),
        reduce(add, looked) if looked else None,
    )


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))`` in a form that never overflows."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


def _lstm(cell: LstmCell, sums: Array, state: Array) -> tuple[Array, Array]:
    parts = np.split(sums, 4, axis=1)
    if cell.inside is None:
        i, f, g, o = parts
        state = sigmoid(f) * state + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(state), state
    inside = cell.inside
    functions: tuple[Callable[[Array], Array], ...] = (sigmoid, sigmoid, np.tanh, sigmoid)
    i, f, g, o = (
        on_grid(of_gate, function(on_grid(of_sum, part)))
        for part, of_sum, function, of_gate in zip(parts, inside.sums, functions, inside.gates, strict=True)
    )
    state = on_grid(inside.state, on_grid(inside.state, f * state) + on_grid(inside.state, i * g))
    return o * on_grid(inside.tanh_of_state, np.tanh(state)), state


def on_grid(quantizer: Threshold | Quantize, x: Array) -> Array:
    """Return the numbers that the codes of *x* count for."""
    form = quantizer.format
    return form.scale * (STEPS[type(quantizer)](quantizer, x, {}) - form.zero)


def _gru(cell: GruCell, sums: Array, state: Array) -> tuple[Array, Array]:
    r, z, a, b = np.split(sums, 4, axis=1)
    candidate = np.tanh(a + sigmoid(r) * b)
    state = candidate + sigmoid(z) * (state - candidate)
    return state, state


_STEPS: dict[type, Callable[[Any, Any, Any], tuple[Array, Array]]] = {LstmCell: _lstm, GruCell: _gru}
