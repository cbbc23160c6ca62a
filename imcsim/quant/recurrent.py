"""Recurrent layers with ternary weights and a hidden state of codes, after HitNet; and a ternary table of tokens.

Sequences are images (b c 1 t). The weights of input and hidden state lie side by side in one matrix, (h i + h) for each
gate, and become ternary together, a scale for each of its rows: one access of a tile adds up both parts.

Source: Wang et al., "HitNet: Hybrid Ternary Recurrent Neural Network", NeurIPS 2018: ternary weights by thresholds,
ternary hidden states drawn from a Bernoulli distribution in training, and a slope in front of the sigmoids and tanhs
that drives them to their extremes. What is said of HitNet here is recalled, not read; its thresholds are not known to
us, so weights follow Li et al., "Ternary Weight Networks", 2016.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import TERNARY, Cell, Embedding, GruCell, LstmCell, Product, Quantize, QuantizedActivation, Threshold
from imcsim.quant.activation import TernaryActivation
from imcsim.quant.layers import QuantizedWeights
from imcsim.quant.straight import StraightThrough
from imcsim.quant.ternary import DELTA_FACTOR, TernaryWeights


class BernoulliActivation(TernaryActivation):
    """Ternary codes of numbers from -1 to 1: in training +-1 with the probability ``|x|``, else by a threshold of 1/2.

    The draws come from torch's generator; the gradient goes straight through. Source: HitNet (recalled).
    """

    def __init__(self) -> None:
        super().__init__(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return -1, 0 or +1 for each number of *x*."""
        return StraightThrough.apply(x, self.drawn if self.training else self.codes, -1.0, 1.0)

    @staticmethod
    def drawn(x: Tensor) -> Tensor:
        """Return codes drawn with the expectation *x*."""
        return torch.sign(x) * (torch.rand_like(x) < x.abs())


class TernaryRecurrence(QuantizedWeights):
    """What ternary LSTM and GRU share: (b i 1 t) to (b h 1 t), from a state of 0.

    Args:
        n_inputs: Channels of the input, whose codes have the quantizer's format.
        n_hidden: Hidden units.
        quantizer: What makes codes of the hidden state, ``TernaryActivation(0.5)`` by default.
        slope: Factor in front of every sigmoid and tanh that takes sums.
        per_channel: Whether each row of the weights has a scale of its own.
        delta_factor: As of `TernaryLinear`.
    """

    N_GATES: int

    def __init__(
        self,
        n_inputs: int,
        n_hidden: int,
        *,
        quantizer: nn.Module | None = None,
        slope: float = 1.0,
        per_channel: bool = True,
        delta_factor: float = DELTA_FACTOR,
    ) -> None:
        super().__init__()
        for name, value in (("n_inputs", n_inputs), ("n_hidden", n_hidden)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: must be a whole number of at least 1, got {value!r}")
        if not 0 < slope < float("inf"):
            raise ConfigError(f"slope: must be finite and above 0, got {slope}")
        quantizer = TernaryActivation(0.5) if quantizer is None else quantizer
        if not isinstance(quantizer, QuantizedActivation):
            raise ConfigError(
                f"quantizer: must be an activation that gives codes (imcsim.quant), got {type(quantizer).__name__}"
            )
        self.n_inputs, self.n_hidden, self.slope = n_inputs, n_hidden, float(slope)
        self.weight_quantizer = TernaryWeights(per_channel=per_channel, delta_factor=delta_factor)
        self.quantizer = quantizer
        bound = n_hidden**-0.5  # as torch.nn.LSTM begins
        self.weight = nn.Parameter(torch.empty(self.N_GATES * n_hidden, n_inputs + n_hidden).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(self.bias_size))

    @property
    def bias_size(self) -> int:
        """Numbers of the bias."""
        return self.N_GATES * self.n_hidden

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers of the hidden states' codes (b h 1 t) for sequences (b i 1 t)."""
        coded = self.coded()
        codes, scale = coded.codes[0], coded.scales[0]
        factor = (scale.flatten() * self.slope).expand(len(codes))
        w_x, w_h = codes.split((self.n_inputs, self.n_hidden), dim=1)
        of_inputs = F.linear(x.squeeze(2).permute(2, 0, 1), w_x)  # t b c
        hidden = state = x.new_zeros(len(x), self.n_hidden)
        outputs = []
        for now in of_inputs:
            hidden, state = self.step(now, F.linear(hidden, w_h), factor, state)
            hidden = self.quantizer(hidden)
            outputs.append(hidden)
        return torch.stack(outputs, dim=2).unsqueeze(2)

    def step(self, of_input: Tensor, of_hidden: Tensor, factor: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden numbers and the state that follow from the two sums (b c) and *state* (b h)."""
        raise NotImplementedError

    def imc_recurrence(self) -> tuple[Product, Cell]:
        """Return the product of one time step and its cell."""
        codes, scale = self.checked_codes()
        quantizer = self.quantizer.eval().imc_quantizer()
        assert isinstance(quantizer, Threshold | Quantize)
        rows = codes.cpu().numpy()
        scales = np.broadcast_to(scale.detach().cpu().double().numpy().reshape(-1), len(rows))
        bias = self.bias.detach().cpu().double().numpy() * self.slope
        return self._as_cell(rows, scales * quantizer.format.scale * self.slope, bias, quantizer)

    def _as_cell(
        self, rows: np.ndarray, scale: np.ndarray, bias: np.ndarray, quantizer: Threshold | Quantize
    ) -> tuple[Product, Cell]:
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the sizes and the slope."""
        return f"{self.n_inputs}, {self.n_hidden}, slope={self.slope:g}"


class TernaryLSTM(TernaryRecurrence):
    """An LSTM with ternary weights whose hidden state is codes; its cell state stays real, on the digital side.

    ``weight`` is (4h, i + h), ``bias`` (4h), gates in the order of `torch.nn.LSTM`: i, f, g, o. The bias of the forget
    gate begins at 1. Source: see the module; Jozefowicz et al., ICML 2015, for that bias.
    """

    N_GATES = 4

    def __init__(self, n_inputs: int, n_hidden: int, **options: Any) -> None:
        super().__init__(n_inputs, n_hidden, **options)
        with torch.no_grad():
            self.bias[n_hidden : 2 * n_hidden] = 1

    def step(self, of_input: Tensor, of_hidden: Tensor, factor: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return h before its quantizer, and c."""
        gates = (of_input + of_hidden) * factor + self.bias * self.slope
        i, f, g, o = gates.chunk(4, dim=1)
        state = torch.sigmoid(f) * state + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(state), state

    def _as_cell(
        self, rows: np.ndarray, scale: np.ndarray, bias: np.ndarray, quantizer: Threshold | Quantize
    ) -> tuple[Product, Cell]:
        product = Product(kind="lstm", weights=self.weight_codec().plane_sum(rows))
        return product, LstmCell(scale, bias, quantizer)


class TernaryGRU(TernaryRecurrence):
    """A GRU with ternary weights whose hidden state goes into the products as codes; h itself stays real.

    ``weight`` is (3h, i + h), gates in the order of `torch.nn.GRU`: r, z, n; ``bias`` (4h) has one for r and z and, for
    n, that of the input's sum and that of the hidden state's, which the reset gate multiplies. Those two sums take
    columns of their own on a tile. Source: see the module.
    """

    N_GATES = 3

    @property
    def bias_size(self) -> int:
        """One more than the gates."""
        return 4 * self.n_hidden

    def step(self, of_input: Tensor, of_hidden: Tensor, factor: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return h before its quantizer, twice."""
        n = self.n_hidden
        bias = self.bias * self.slope
        rz = torch.sigmoid((of_input + of_hidden)[:, : 2 * n] * factor[: 2 * n] + bias[: 2 * n])
        r, z = rz.chunk(2, dim=1)
        a = of_input[:, 2 * n :] * factor[2 * n :] + bias[2 * n : 3 * n]
        b = of_hidden[:, 2 * n :] * factor[2 * n :] + bias[3 * n :]
        new = torch.tanh(a + r * b)
        state = new + z * (state - new)
        return state, state

    def _as_cell(
        self, rows: np.ndarray, scale: np.ndarray, bias: np.ndarray, quantizer: Threshold | Quantize
    ) -> tuple[Product, Cell]:
        n, n_inputs = self.n_hidden, self.n_inputs
        a, b = rows[2 * n :].copy(), rows[2 * n :].copy()
        a[:, n_inputs:], b[:, :n_inputs] = 0, 0
        columns = np.concatenate([rows[: 2 * n], a, b])
        product = Product(kind="gru", weights=self.weight_codec().plane_sum(columns))
        return product, GruCell(np.concatenate([scale, scale[2 * n :]]), bias, quantizer)


class TernaryEmbedding(nn.Module):
    """A table of ternary codes: tokens (b 1 1 t), whole numbers, to (b e 1 t); gradients go straight to the table.

    Code +1 where a latent number is above *delta*, -1 where it is below ``-delta``. Source: as `TernaryActivation`.
    """

    def __init__(self, n_tokens: int, n_codes: int, delta: float = 0.5) -> None:
        super().__init__()
        self.activation = TernaryActivation(delta)
        self.weight = nn.Parameter(torch.empty(n_tokens, n_codes).uniform_(-1, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the codes of *tokens*."""
        picked = F.embedding(tokens[:, 0].long(), self.weight)  # b 1 t e
        return self.activation(picked).permute(0, 3, 1, 2)

    def imc_quantizer(self) -> Embedding:
        """Return the table as a step of the graph."""
        if not bool(torch.isfinite(self.weight).all()):
            raise GraphError("weights: must be finite numbers, got others; check the training or the weights file")
        table = self.activation.codes(self.weight.detach())
        return Embedding(table.cpu().numpy().astype(np.int8), TERNARY)
