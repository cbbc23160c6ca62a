"""LSTM, GRU and RNN, whose weights ONNX keeps in another order: a node for each layer.

Torch has the gates of an LSTM as input, forget, cell, output, ONNX as input, output, forget, cell; those of a GRU as
reset, update, new and as update, reset, hidden. Torch's GRU resets behind the product (linear_before_reset).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from imcsim.graph.exported.call import Call, NoWordError, Written, as_array, shape_of

Array = np.ndarray

ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Which of torch's gates stands where in ONNX."""


def _layers(kind: str, states: Sequence[str], **attributes: Any) -> Callable[[Call], Written]:
    """Return what writes *kind*, whose first states are the tensors *states*: h alone, or h and c."""

    def write(call: Call) -> Written:
        said: dict[str, Any] = dict(attributes)
        if "batch_sizes" in call.arguments or (call["train"] and call["dropout"]):
            raise NoWordError
        n_layers, n_directions = int(call["num_layers"]), 1 + bool(call["bidirectional"])
        per_direction = 4 if call["has_biases"] else 2
        weights = call["params"]
        if len(weights) != n_layers * n_directions * per_direction:
            raise NoWordError  # a projection of the state
        first = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
        if call["batch_first"]:
            said["layout"] = 1
        if "activations" in said:
            said["activations"] *= n_directions
        said["direction"] = "bidirectional" if n_directions == 2 else "forward"
        ends: list[list[str]] = [[] for _ in states]
        source = call.tensor("input")
        for layer in range(n_layers):
            what = f"l{layer}" if n_layers > 1 else ""
            at = layer * n_directions * per_direction
            parts = [weights[at + d * per_direction : at + (d + 1) * per_direction] for d in range(n_directions)]
            inputs = [source, *_arranged(call, kind, parts, what), ""]
            for state, given in zip(states, first, strict=True):
                inputs.append(_first_state(call, given, layer, n_directions, f"{what or 'first'}.{state}"))
            while inputs[-1] == "":
                inputs.pop()
            hidden = shape_of(parts[0][1])[1]
            outputs = [call.output(f"{what or 'all'}.{name}") for name in ("y", *states)]
            call.add_many(kind, inputs, outputs, what=what, hidden_size=hidden, **said)
            source = _joined(call, outputs[0], n_directions, hidden, what or "all")
            for end, output in zip(ends, outputs[1:], strict=True):
                end.append(output)
        found = (_last_states(call, end, state, 1 + n) for n, (end, state) in enumerate(zip(ends, states, strict=True)))
        return (source, *found)

    return write


def _arranged(call: Call, kind: str, parts: Sequence[Sequence[fx.Node]], what: str) -> list[str]:
    """Return W (d 4h in), R (d 4h h) and, where there are biases, B (d 8h) in ONNX's order of gates."""
    arrays = [[_ordered(_held(call, weight), kind) for weight in part] for part in parts]
    name = f"{what}." if what else ""
    found = []
    for place, letter in enumerate("WR"):
        found.append(call.constant(np.stack([part[place] for part in arrays]), f"{name}{letter}"))
    if len(arrays[0]) > 2:
        biases = np.stack([np.concatenate(part[2:]) for part in arrays])
        found.append(call.constant(biases, f"{name}B"))
    else:
        found.append("")
    return found


def _held(call: Call, node: fx.Node) -> Array:
    value = call.writer.value_of(node)
    if not isinstance(value, torch.Tensor):
        raise NoWordError
    return as_array(value)


def _ordered(array: Array, kind: str) -> Array:
    gates = np.split(array, len(ORDER[kind]))
    return np.concatenate([gates[place] for place in ORDER[kind]])


def _first_state(call: Call, given: fx.Node, layer: int, n_directions: int, what: str) -> str:
    """Return the state that a layer starts from, (d b h), or (b d h) where the batch is first; "": zeros."""
    held = call.writer.value_of(given)
    first, last = layer * n_directions, (layer + 1) * n_directions
    if isinstance(held, torch.Tensor):
        array = as_array(held)[first:last]
        if not array.any():
            return ""
        return call.constant(array.swapaxes(0, 1) if call["batch_first"] else array, what)
    tensor = call.tensor_of(given, what)
    if shape_of(given)[0] != n_directions:
        limits = [call.whole([n], f"{what}.{side}") for n, side in ((first, "starts"), (last, "ends"), (0, "axes"))]
        tensor = call.add("Slice", tensor, *limits, what=f"{what}.slice")
    return call.add("Transpose", tensor, what=what, perm=(1, 0, 2)) if call["batch_first"] else tensor


def _joined(call: Call, tensor: str, n_directions: int, hidden: int, what: str) -> str:
    """Return the states of all steps with both directions side by side: (b s dh), or (s b dh)."""
    shape = (*call.shape("input")[:2], n_directions * hidden)
    axis = 2 if call["batch_first"] else 1
    if n_directions == 1:
        return call.add("Squeeze", tensor, call.whole([axis], f"{what}.axes"), what=f"{what}.states")
    if not call["batch_first"]:
        tensor = call.add("Transpose", tensor, what=f"{what}.turned", perm=(0, 2, 1, 3))
    return call.add("Reshape", tensor, call.whole(shape, f"{what}.shape"), what=f"{what}.states")


def _last_states(call: Call, ends: Sequence[str], state: str, place: int) -> str | None:
    """Return the states (layers x d, b, h) behind the last step; None where nothing reads them."""
    if not call.is_read(place):
        return None
    if call["batch_first"]:
        ends = [call.add("Transpose", end, what=f"{state}{i}", perm=(1, 0, 2)) for i, end in enumerate(ends)]
    return ends[0] if len(ends) == 1 else call.add("Concat", *ends, what=state, axis=0)


RECURRENT: dict[str, Callable[[Call], Written]] = {
    "aten.gru": _layers("GRU", ("h",), linear_before_reset=1),
    "aten.lstm": _layers("LSTM", ("h", "c")),
    "aten.rnn_relu": _layers("RNN", ("h",), activations=("Relu",)),
    "aten.rnn_tanh": _layers("RNN", ("h",), activations=("Tanh",)),
}
