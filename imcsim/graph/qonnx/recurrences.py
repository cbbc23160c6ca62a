"""Recurrent layers: QuantLSTMCell as Brevitas exports it, and ONNX's LSTM and GRU with a hidden state of codes.

ONNX's own LSTM and GRU hand real numbers from one time step to the next, which no tile takes. In the domain `imcsim`
they have three further inputs behind ONNX's own, as Quant has them: scale, zero point and bits of the hidden state,
with the attributes hidden_signed, hidden_narrow and hidden_rounding_mode. Those codes are h: what comes out, and what
the next time step begins with; c of an LSTM stays real.

Source of the operators: onnx.ai/onnx/operators (LSTM, GRU), and github.com/Xilinx/brevitas, whose export says the order
of the inputs of a QuantLSTMCell and whose layer says what they mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imcsim.graph.epilogue import Slice
from imcsim.graph.formats import Format
from imcsim.graph.ir import Product
from imcsim.graph.outline import quantizer as quantizer_of
from imcsim.graph.qonnx.assume import NOTE, Note, weights_of
from imcsim.graph.qonnx.call import Call, Known, Take, finite
from imcsim.graph.qonnx.constants import Constant, UnfitError
from imcsim.graph.qonnx.quantizers import Grid, quant_grid, quantizing_steps
from imcsim.graph.qonnx.sequences import is_time_first
from imcsim.graph.qonnx.shapes import flat
from imcsim.graph.qonnx.values import Value
from imcsim.graph.recurrent import PARTS, Cell, GruCell, LstmCell, LstmQuantizers
from imcsim.graph.steps import Quantize, Threshold
from imcsim.ternary import PlaneSum

Array = np.ndarray

DOMAIN = "imcsim"
"""Of LSTM and GRU whose hidden state is codes."""

INPUTS = {"LSTM": 8, "GRU": 6}
"""How many inputs ONNX's own operators have."""

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2)}
"""Which gate of ONNX's order comes first, second ... in that of a cell: i o f c to i f g o, z r h to r z n."""

FUNCTIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}


# --- ONNX's own, with a hidden state of codes -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Gates:
    """Weights and biases of a layer, in the order of its cell."""

    of_input: Constant
    """(g h, i)."""

    of_hidden: Constant
    """(g h, h)."""

    bias_of_input: Array
    """(g h)."""

    bias_of_hidden: Array

    @property
    def n_hidden(self) -> int:
        """Hidden units."""
        return self.of_hidden.shape[1]


def _lstm(call: Call) -> tuple[Known, ...]:
    gates = _gates(call)
    weights = _joined([gates.of_input, gates.of_hidden], axis=1)
    return _layer(call, "lstm", weights, gates.bias_of_input + gates.bias_of_hidden, _hidden(call), LstmCell)


def _gru(call: Call) -> tuple[Known, ...]:
    if not call.attributes.get("linear_before_reset", 0):
        raise UnfitError("whose reset gate comes before the product", "linear_before_reset=1, as PyTorch has it")
    gates = _gates(call)
    n = gates.n_hidden
    x, h = gates.of_input, gates.of_hidden
    rz = _joined([_rows(x, 0, 2 * n), _rows(h, 0, 2 * n)], axis=1)
    a = _joined([_rows(x, 2 * n, 3 * n), _nothing(_rows(h, 2 * n, 3 * n))], axis=1)
    b = _joined([_nothing(_rows(x, 2 * n, 3 * n)), _rows(h, 2 * n, 3 * n)], axis=1)
    own, hidden = gates.bias_of_input, gates.bias_of_hidden
    bias = np.concatenate([own[: 2 * n] + hidden[: 2 * n], own[2 * n :], hidden[2 * n :]])

    def cell(scale: Array, offset: Array, quantizer: Threshold | Quantize) -> GruCell:
        return GruCell(scale, offset, quantizer, state_is_codes=True)

    return _layer(call, "gru", _joined([rz, a, b], axis=0), bias, _hidden(call), cell)


def _of_assumed_bits(take: Take) -> Take:
    """Return what takes ONNX's own operator where bits are assumed, as *take* takes that of `DOMAIN`."""

    def taken(call: Call) -> tuple[Known, ...]:
        if not isinstance(call.attributes.get(NOTE), Note):
            raise UnfitError(
                "whose hidden state is real numbers from one time step to the next",
                f"QuantLSTM of Brevitas, {call.node.kind} of domain {DOMAIN!r} (a quantizer of the hidden state behind "
                "ONNX's own inputs), or imcsim.quant's recurrent layers (imcsim.capture)",
            )
        return take(call)  # type: ignore[return-value]

    return taken


def _gates(call: Call) -> Gates:
    """Return what the node multiplies by; raises UnfitError for what a cell has not."""
    kind, attributes = call.node.kind, call.attributes
    if attributes.get("direction", "forward") != "forward":
        raise UnfitError(f"that runs {attributes['direction']}", "direction forward")
    named = tuple(str(name).lower() for name in attributes.get("activations", FUNCTIONS[kind]))
    if named != FUNCTIONS[kind]:
        raise UnfitError(f"with activations {', '.join(named)}", ", ".join(FUNCTIONS[kind]))
    if attributes.get("clip"):
        raise UnfitError("with clip", "gates that are not clipped")
    if attributes.get("input_forget", 0):
        raise UnfitError("with coupled gates (input_forget)", "a forget gate of its own")
    n = call.constant(2, "recurrent weights").shape[-1]
    if attributes.get("hidden_size", n) != n:
        raise UnfitError(f"of hidden_size {attributes['hidden_size']} with recurrent weights for {n}")
    order = np.concatenate([np.arange(gate * n, (gate + 1) * n) for gate in GATES[kind]])
    of_input, of_hidden = (
        call.constant(place, "weights").moved(lambda array: array[0][order]) for place in (1, 2)
    )  # fmt: skip
    bias = np.zeros((2, len(order)))
    if call.has(3):
        values = call.constant(3, "a bias").numbers.astype(np.float64)
        bias = finite(values, "a bias").reshape(2, len(order))[:, order]
    _require_lengths(call, 4)
    for place in (5, 6)[: 2 if kind == "LSTM" else 1]:
        _require_zero(call, place, "an initial state")
    if kind == "LSTM":
        _require_zero(call, 7, "peepholes")
    return Gates(of_input, of_hidden, bias[0], bias[1])


def _require_lengths(call: Call, place: int) -> None:
    if call.has(place):
        found = call.given[place]
        n_steps = call.as_it_lies().shape[0]
        if not isinstance(found, Constant) or np.any(found.numbers != n_steps):
            raise UnfitError("with lengths of sequences", "sequences of one length")


def _require_zero(call: Call, place: int, what: str) -> None:
    if call.has(place):
        found = call.given[place]
        if not isinstance(found, Constant) or np.any(found.numbers != 0):
            raise UnfitError(f"with {what} other than 0", "zeros, or none")


def _hidden(call: Call) -> Threshold | Quantize:
    """Return what makes codes of the hidden state; where bits are assumed, codes like those of the input."""
    if isinstance(call.attributes.get(NOTE), Note):
        return quantizer_of(_sequence(call).as_format())
    first = INPUTS[call.node.kind]
    said = {name: call.attributes[f"hidden_{name}"] for name in ATTRIBUTES if f"hidden_{name}" in call.attributes}
    return _quantizer(_grid(call, first, said, "the hidden state"), "the hidden state")


# --- Brevitas -------------------------------------------------------------------------------------------------------

ATTRIBUTES = ("signed", "narrow", "rounding_mode")

QUANTIZERS = (
    "output", "cell_state", "input_acc", "forget_acc", "cell_acc", "output_acc", "input_sigmoid", "forget_sigmoid",
    "cell_tanh", "output_sigmoid", "hidden_state_tanh",
)  # fmt: skip
"""Of a QuantLSTMCell, in the order of its inputs; each has a scale, a zero point and bits."""

FIRST_QUANTIZER = 15
"""Input of a QuantLSTMCell: behind the sequence, two states, the weights of four gates for input and for hidden state,
and their biases; gates are input, forget, cell, output."""


def _quant_lstm_cell(call: Call) -> tuple[Known, ...]:
    attributes = call.attributes
    if attributes.get("reverse_input", 0):
        raise UnfitError("that runs in reverse", "bidirectional=False")
    if attributes.get("cifg", 0):
        raise UnfitError("with coupled gates (cifg)", "coupled_input_forget_gates=False")
    for place, what in ((1, "an initial hidden state"), (2, "an initial cell state")):
        _require_zero(call, place, what)
    of_input, of_hidden = (
        _joined([call.constant(place, "weights") for place in range(first, first + 4)], axis=0) for first in (3, 7)
    )
    n = of_hidden.shape[1]
    biases = [call.constant(place, "a bias").numbers.astype(np.float64).reshape(-1) for place in range(11, 15)]
    bias = np.concatenate([np.broadcast_to(finite(each, "a bias"), (n,)) for each in biases])
    grids = {}
    for number, name in enumerate(QUANTIZERS):
        said = {key: attributes[f"{name}_{key}"] for key in ATTRIBUTES if f"{name}_{key}" in attributes}
        if f"{name}_narrow_range" in attributes:  # as one of them is called
            said["narrow"] = attributes[f"{name}_narrow_range"]
        grids[name] = _grid(call, FIRST_QUANTIZER + 3 * number, said, name)
    inside = LstmQuantizers(
        sums=tuple(_quantizer(grids[f"{gate}_acc"], gate) for gate in ("input", "forget", "cell", "output")),
        gates=tuple(
            _quantizer(grids[name], name) for name in ("input_sigmoid", "forget_sigmoid", "cell_tanh", "output_sigmoid")
        ),
        state=_quantizer(grids["cell_state"], "cell_state"),
        tanh_of_state=_quantizer(grids["hidden_state_tanh"], "hidden_state_tanh"),
    )

    def cell(scale: Array, offset: Array, quantizer: Threshold | Quantize) -> LstmCell:
        return LstmCell(scale, offset, quantizer, inside)

    return _layer(
        call, "lstm", _joined([of_input, of_hidden], axis=1), bias, _quantizer(grids["output"], "output"), cell
    )


# --- what they share ------------------------------------------------------------------------------------------------


def _layer(
    call: Call,
    kind: str,
    weights: Constant,
    bias: Array,
    quantizer: Threshold | Quantize,
    make: Callable[[Array, Array, Threshold | Quantize], Cell],
) -> tuple[Known, ...]:
    """Return the codes of all time steps, and of the last one where somebody reads it."""
    value, form = _sequence(call), quantizer.format
    if quantizer.format != value.as_format() or quantizer.format != value.form:
        raise UnfitError(
            f"whose hidden state is {_said(quantizer.format)} and whose input is {_said(value.as_format())}",
            "one quantizer for both, since their codes meet in one sum",
        )
    planes = weights_of(call, weights)
    if kind == "gru" and not planes.has_values and call.attributes[NOTE].assumption.zeros != "weights":
        fixed = 1 / PARTS  # rows that meet nothing
        zeros = fixed + (1 - fixed) * planes.zero_fraction
        planes = PlaneSum.of_shape(planes.shape, zero_fraction=zeros, of=call.node.name, n_planes=planes.n_planes)
    if np.any(planes.offset != 0) or planes.is_asymmetric:
        raise UnfitError("with weights of levels that are not about 0", "-a, 0 and +a")
    product = Product(kind=kind, weights=planes)  # type: ignore[arg-type]
    cell = make(planes.scale.reshape(-1) * float(value.scale) if planes.scale.size > 1 else
                planes.scale.reshape(()) * float(value.scale), bias, quantizer)  # fmt: skip
    bounds = form.scale * (form.low - form.zero), form.scale * (form.high - form.zero)
    made = call.walk.recur(value, product, cell, bounds)
    return (_with_direction(call, made), _last(call, made) if call.is_read(1) else None)


def _sequence(call: Call) -> Value:
    """Return the sequence that the node takes; raises UnfitError where its axes are not those that it wants."""
    value = call.as_it_lies()
    if not value.is_codes:
        raise UnfitError("that reads real numbers", "a Quant before it")
    wanted = "(t b c)" if is_time_first(call.node) else "(b t c)"
    if len(value.shape) != 2 or value.batch_axis != int(is_time_first(call.node)):
        raise UnfitError(f"of what is no sequence {wanted}", f"a Transpose to {wanted} before it")
    return call.walk.turned(value, (1, 0))


def _with_direction(call: Call, made: Value) -> Value:
    """Return (t c), with the batch, as the node gives it: ONNX has an axis of directions, (t 1 b c) or (b t 1 c)."""
    if call.node.kind == "QuantLSTMCell":
        return made
    n_steps, n_hidden = made.shape
    return replace(made, shape=(n_steps, 1, n_hidden), order=(2, 1, 0), batch_axis=2 if made.batch_axis else 0)


def _last(call: Call, made: Value) -> Value:
    """Return the hidden state of the last time step: (b c), or ONNX's (1 b c) or (b 1 c)."""
    n_steps = made.shape[0]
    last = call.walk.apply(
        made, (Slice(n_steps - 1, n_steps, axis=2),), scale=made.scale, zero=made.zero, bounds=(made.low, made.high),
        what="last",
    )  # fmt: skip
    if call.node.kind == "QuantLSTMCell":
        return flat(call, replace(last, batch_axis=0), "state")
    return last


def _grid(call: Call, first: int, attributes: dict[str, object], what: str) -> Grid:
    scale, zero, bits = (call.constant(first + at, f"a quantizer of {what}") for at in range(3))
    grid = quant_grid(attributes, scale, zero, bits)
    if grid.scale.size != 1 or grid.zero.size != 1:
        raise UnfitError(f"with a scale per channel for {what}", "one scale")
    return grid


def _quantizer(grid: Grid, what: str) -> Threshold | Quantize:
    """Return the step that makes codes on *grid*."""
    steps = quantizing_steps(grid, grid.scale.reshape(()), grid.zero.reshape(()))
    if len(steps) != 1 or not isinstance(steps[0], Threshold | Quantize):
        raise UnfitError(f"with a zero point that is odd for {what}", "a zero point of 0")
    return steps[0]


def _said(form: Format) -> str:
    return f"{form} of scale {form.scale:g}" + (f" and zero {form.zero:g}" if form.zero else "")


def _joined(parts: Sequence[Constant], axis: int) -> Constant:
    """Return constants one behind the other, with their codes where all have some."""
    numbers = np.concatenate([part.numbers for part in parts], axis)
    if any(part.codes is None or part.scale is None for part in parts):
        return Constant(numbers)
    codes = np.concatenate([part.codes for part in parts], axis)
    scales = [np.broadcast_to(part.scale, part.shape) for part in parts]  # type: ignore[arg-type]
    return Constant(numbers, codes, np.concatenate(scales, axis))


def _rows(constant: Constant, first: int, last: int) -> Constant:
    return constant.moved(lambda array: array[first:last])


def _nothing(constant: Constant) -> Constant:
    """Return zeros of the same shape and scale."""
    if constant.codes is None:
        return Constant(np.zeros_like(constant.numbers))
    return Constant(np.zeros_like(constant.numbers), np.zeros_like(constant.codes), constant.scale)


CELLS: dict[str, Take] = {"QuantLSTMCell": _quant_lstm_cell}
"""In the domains of QONNX."""

OWN: dict[str, Take] = {"LSTM": _lstm, "GRU": _gru}
"""In the domain `DOMAIN`."""

RECURRENCES: dict[str, Take] = {"LSTM": _of_assumed_bits(_lstm), "GRU": _of_assumed_bits(_gru)}
"""ONNX's own, where bits are assumed."""
