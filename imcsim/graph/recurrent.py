"""Recurrent cells: what the digital side does with the sums of one time step, before the next step may begin.

A sequence is an image (c 1 t) whose width is time. The product of a recurrent layer is told by its kind (`Product`,
"lstm" or "gru"): at each time step its rows take the codes of the input and the codes of the hidden state that the cell
gave one step before (0 before the first), and its columns give four numbers for each hidden unit. The cell is the only
step of its op. It keeps a state of real numbers, which begins at 0, and hands out codes.
"""

from dataclasses import dataclass

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.formats import Format
from imcsim.graph.steps import Quantize, Shape, Step, Threshold
from imcsim.records import Record, frozen_array

PARTS = 4
"""Columns that a recurrent product has for each hidden unit."""


@dataclass(frozen=True, eq=False)
class Cell(Step):
    """What turns the sums of one time step and the state of the step before into the next state and its codes."""

    scale: np.ndarray
    """float64, a number or one for each of the 4 h sums: scale of the weights times that of the codes."""

    offset: np.ndarray
    """float64, a number or one for each of the 4 h sums: biases."""

    quantizer: Threshold | Quantize
    """The hidden state to codes; they must have the format of the layer's input, since both meet in one sum."""

    def __post_init__(self) -> None:
        for name in ("scale", "offset"):
            values = frozen_array(getattr(self, name), np.float64)
            if values.ndim > 1 or not np.all(np.isfinite(values)) or (values.ndim and values.size % PARTS):
                raise GraphError(
                    f"cell.{name}: must be finite, a number or {PARTS} for each hidden unit, got shape {values.shape}"
                )
            object.__setattr__(self, name, values)

    @property
    def kind(self) -> str:
        """Kind of the product whose sums the cell takes."""
        raise NotImplementedError

    @property
    def format(self) -> Format:
        """Of the codes that come out."""
        return self.quantizer.format

    def shape(self, shape: Shape) -> Shape:
        """(4h 1 t) to (h 1 t)."""
        for values in (self.scale, self.offset):
            if values.ndim and values.shape != shape[:1]:
                raise GraphError(f"cell: must have constants for {shape[0]} sums, got {len(values)}")
        return (shape[0] // PARTS, *shape[1:])


@dataclass(frozen=True, eq=False)
class LstmQuantizers(Record):
    """What makes codes of the numbers inside an LSTM cell, each on a grid of its own: then they are few, and small.

    Behind each of them stand the numbers that the codes count for. Source: Brevitas' QuantLSTM, which has all of them.
    """

    sums: tuple[Threshold | Quantize, ...]
    """Of the scaled sums, biases added, in the order i, f, g, o."""

    gates: tuple[Threshold | Quantize, ...]
    """Of their sigmoids and of the tanh of g, in the same order."""

    state: Threshold | Quantize
    """Of the state: of both of its terms, and of their sum."""

    tanh_of_state: Threshold | Quantize

    def __post_init__(self) -> None:
        if (len(self.sums), len(self.gates)) != (PARTS, PARTS):
            raise GraphError(
                f"cell: must have {PARTS} quantizers of sums and of gates, got {len(self.sums)} and {len(self.gates)}"
            )
        for quantizer in (*self.sums, *self.gates, self.state, self.tanh_of_state):
            if not quantizer.format.is_affine:
                raise GraphError(f"cell: codes inside must be whole numbers times a scale, got {quantizer.format}")
            if isinstance(quantizer, Threshold) and len(quantizer.thresholds) > 1:
                raise GraphError(
                    "cell: quantizers inside must be the same for all hidden units, got thresholds for "
                    f"{len(quantizer.thresholds)}"
                )


@dataclass(frozen=True, eq=False)
class LstmCell(Cell):
    """``c = sigmoid(f) c + sigmoid(i) tanh(g)``, ``h = sigmoid(o) tanh(c)``; sums in the order i, f, g, o.

    The state is c. Source: Hochreiter, Schmidhuber, 1997, with forget gates; gates ordered as in `torch.nn.LSTM`.
    """

    inside: LstmQuantizers | None = None
    """What makes codes of the numbers inside; None: they stay real."""

    @property
    def kind(self) -> str:
        """lstm."""
        return "lstm"


@dataclass(frozen=True, eq=False)
class GruCell(Cell):
    """``h = n + sigmoid(z) (h - n)`` with ``n = tanh(a + sigmoid(r) b)``; sums in the order r, z, a, b.

    a is the candidate's sum over the input and b that over the hidden state, which the reset gate multiplies: so
    they are apart, and each has zeros in the rows of the other. The state is h, mostly before it is quantized.
    Source: Cho et al., 2014, with the reset gate behind the product, as in `torch.nn.GRU`.
    """

    state_is_codes: bool = False
    """Whether the state is what the codes of h count for, and not h before it is quantized."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state_is_codes and not self.format.is_affine:
            raise GraphError(f"cell: codes that are the state must be whole numbers times a scale, got {self.format}")

    @property
    def kind(self) -> str:
        """gru."""
        return "gru"


@dataclass(frozen=True, eq=False)
class Embedding(Step):
    """Tokens to codes: row after row of a table, (1 1 t) to (e 1 t). The host does it, before the chip begins.

    It is the only step of its op, and its op reads the network's input: whole numbers from 0 up.
    """

    table: np.ndarray
    """int8, or int32 for more than 8 bits, (v e): the codes of each token."""

    format: Format

    def __post_init__(self) -> None:
        values = np.asarray(self.table)
        if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "iu":
            raise GraphError(
                f"embedding: table must be whole numbers (tokens codes), got {values.dtype} of shape {values.shape}"
            )
        if self.format.is_real or values.min() < self.format.low or values.max() > self.format.high:
            raise GraphError(f"embedding: table must hold codes of {self.format}, got {values.min()} to {values.max()}")
        object.__setattr__(self, "table", frozen_array(values, np.int8 if self.format.bits <= 8 else np.int32))

    def shape(self, shape: Shape) -> Shape:
        """(1 1 t) to (e 1 t)."""
        if len(shape) != 3 or shape[:2] != (1, 1):
            raise GraphError(f"embedding: must get one token a time step (1 1 t), got shape {shape}")
        return (self.table.shape[1], *shape[1:])
