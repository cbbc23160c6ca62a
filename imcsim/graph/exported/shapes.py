"""What moves numbers, takes some of them, or puts them side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from imcsim.graph.exported.call import Call, NoWordError, Written, axis_of, shape_of

LAST = 2**63 - 1


def _source(call: Call) -> str:
    return "input" if "input" in call.arguments else "self"


def _same(call: Call) -> str:
    return call.tensor(_source(call))


def _dropout(call: Call) -> str:
    name = _source(call)
    if not call.get("train", False) or not call.get("p", 0.0):
        return call.tensor(name)
    ratio, on = call.tensor_of(float(call["p"]), "ratio"), call.constant(np.array(True), "training")
    return call.add("Dropout", call.tensor(name), ratio, on)


def _dropout_with_mask(call: Call) -> Written:
    if call.is_read(1):
        raise NoWordError
    return _dropout(call), None


def _reshape(call: Call) -> str:
    name = _source(call)
    if call.shape(name) == call.shape():
        return call.tensor(name)
    return call.add("Reshape", call.tensor(name), call.whole(call.shape(), "shape"))


def _flatten(call: Call) -> str:
    n_axes = len(call.shape("self"))
    if n_axes == 2 and call.shape("self") == call.shape():
        return call.tensor("self")
    if axis_of(call["start_dim"], n_axes) == 1 and axis_of(call["end_dim"], n_axes) == n_axes - 1:
        return call.add("Flatten", call.tensor("self"), axis=1)
    return _reshape(call)


def _turned(call: Call, order: Sequence[int]) -> str:
    if list(order) == list(range(len(order))):
        return call.tensor("self")
    return call.add("Transpose", call.tensor("self"), perm=tuple(order))


def _permute(call: Call) -> str:
    n_axes = len(call.shape("self"))
    return _turned(call, [axis_of(axis, n_axes) for axis in call["dims"]])


def _transpose(call: Call) -> str:
    order = list(range(len(call.shape("self"))))
    first, second = (axis_of(call.get(name, place), len(order)) for place, name in enumerate(("dim0", "dim1")))
    order[first], order[second] = order[second], order[first]
    return _turned(call, order)


def _turn_matrix(call: Call) -> str:
    return _turned(call, range(len(call.shape("self")))[::-1])


def _move(call: Call) -> str:
    n_axes = len(call.shape("self"))
    both = []
    for name in ("source", "destination"):
        axes = call[name] if isinstance(call[name], list | tuple) else [call[name]]
        both.append([axis_of(axis, n_axes) for axis in axes])
    moved = dict(zip(both[1], both[0], strict=True))
    rest = iter(axis for axis in range(n_axes) if axis not in both[0])
    return _turned(call, [moved[axis] if axis in moved else next(rest) for axis in range(n_axes)])


def _squeeze(call: Call) -> str:
    shape = call.shape("self")
    dims = call.get("dim", list(range(len(shape))))
    axes = sorted({axis_of(axis, len(shape)) for axis in (dims if isinstance(dims, list | tuple) else [dims])})
    axes = [axis for axis in axes if shape and shape[axis] == 1]
    if not axes:
        return call.tensor("self")
    return call.add("Squeeze", call.tensor("self"), call.whole(axes, "axes"))


def _unsqueeze(call: Call) -> str:
    axis = axis_of(call["dim"], len(call.shape()))
    return call.add("Unsqueeze", call.tensor("self"), call.whole([axis], "axes"))


def _expand(call: Call) -> str:
    if call.shape("self") == call.shape():
        return call.tensor("self")
    return call.add("Expand", call.tensor("self"), call.whole(call.shape(), "shape"))


def _repeat(call: Call) -> str:
    times, shape = [int(n) for n in call["repeats"]], call.shape("self")
    tensor = call.tensor("self")
    if len(times) > len(shape):
        wide = (*(1,) * (len(times) - len(shape)), *shape)
        tensor = call.add("Reshape", tensor, call.whole(wide, "wide.shape"), what="wide")
    return call.add("Tile", tensor, call.whole(times, "repeats"))


def _cat(call: Call) -> str:
    tensors = [node for node in call["tensors"] if shape_of(node) != (0,)]
    if len(tensors) == 1:
        return call.tensor_of(tensors[0], "part")
    axis = axis_of(call.get("dim", 0), len(call.shape()))
    return call.add("Concat", *(call.tensor_of(node, "part") for node in tensors), axis=axis)


def _stack(call: Call) -> str:
    axis = axis_of(call.get("dim", 0), len(call.shape()))
    axes = call.whole([axis], "axes")
    parts = [
        call.add("Unsqueeze", call.tensor_of(node, "part"), axes, what=f"part{place}")
        for place, node in enumerate(call["tensors"])
    ]
    return call.add("Concat", *parts, axis=axis)


def _cut(call: Call, axis: int, first: int, last: int, step: int = 1, what: str = "") -> str:
    """Return the numbers from *first* to before *last* of *axis*."""
    n = call.shape("self")[axis]
    first, last, step = slice(first, last, step).indices(n)
    if (first, last, step) == (0, n, 1):
        return call.tensor("self")
    prefix = f"{what}." if what else ""
    said = (("starts", first), ("ends", last), ("axes", axis), ("steps", step))
    limits = [call.whole([number], f"{prefix}{name}") for name, number in said]
    return call.add("Slice", call.tensor("self"), *limits, what=what)


def _slice(call: Call) -> str:
    axis = axis_of(call.get("dim", 0), len(call.shape("self")))
    first, last = call.get("start"), call.get("end")
    return _cut(call, axis, 0 if first is None else first, LAST if last is None else last, call.get("step", 1))


def _narrow(call: Call) -> str:
    if isinstance(call["start"], fx.Node):
        raise NoWordError
    return _cut(call, axis_of(call["dim"], len(call.shape("self"))), call["start"], call["start"] + call["length"])


def _parts(call: Call) -> Written:
    """Ranges of one axis, of which those that are read are cut out."""
    values = call.node.meta["val"]
    shape = call.shape("self")
    axis = axis_of(call.get("dim", 0), len(shape))
    made: list[str | None] = []
    first = 0
    for place, value in enumerate(values):
        n = int(value.shape[axis])
        made.append(_cut(call, axis, first, first + n, what=f"part{place}") if call.is_read(place) else None)
        first += n
    return tuple(made)


def _at(call: Call, axis: int, index: int, what: str = "") -> str:
    number = call.constant(np.array(index % call.shape("self")[axis], np.int64), f"{what}.index" if what else "index")
    return call.add("Gather", call.tensor("self"), number, what=what, axis=axis)


def _select(call: Call) -> str:
    if not isinstance(call["index"], int):
        raise NoWordError
    return _at(call, axis_of(call["dim"], len(call.shape("self"))), call["index"])


def _unbind(call: Call) -> Written:
    axis = axis_of(call.get("dim", 0), len(call.shape("self")))
    n = call.shape("self")[axis]
    return tuple(_at(call, axis, place, f"part{place}") if call.is_read(place) else None for place in range(n))


def _index_select(call: Call) -> str:
    axis = axis_of(call["dim"], len(call.shape("self")))
    return call.add("Gather", call.tensor("self"), call.tensor("index"), axis=axis)


def _index(call: Call) -> str:
    """Numbers of one axis by their places."""
    axes = [axis for axis, index in enumerate(call["indices"]) if index is not None]
    if len(axes) != 1:
        raise NoWordError
    index = call["indices"][axes[0]]
    if index.meta["val"].dtype is torch.bool:
        raise NoWordError
    return call.add("Gather", call.tensor("self"), call.tensor_of(index, "index"), axis=axes[0])


def _gather(call: Call) -> str:
    axis = axis_of(call["dim"], len(call.shape("self")))
    return call.add("GatherElements", call.tensor("self"), call.tensor("index"), axis=axis)


MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pad(call: Call) -> str:
    mode = MODES.get(str(call.get("mode", "constant")))
    if mode is None:
        raise NoWordError
    n_axes = len(call.shape("self"))
    said: Sequence[int] = [int(n) for n in call["pad"]]  # the last axis first
    pairs = [(0, 0)] * n_axes
    for place in range(len(said) // 2):
        pairs[n_axes - 1 - place] = (said[2 * place], said[2 * place + 1])
    pads = call.whole([before for before, _ in pairs] + [after for _, after in pairs], "pads")
    if mode != "constant":
        return call.add("Pad", call.tensor("self"), pads, mode=mode)
    number = call.tensor_of(call.get("value") or 0.0, "value")
    return call.add("Pad", call.tensor("self"), pads, number, mode=mode)


SHAPES: dict[str, Callable[[Call], Any]] = {
    "aten._reshape_alias": _reshape,
    "aten._unsafe_view": _reshape,
    "aten.alias": _same,
    "aten.alias_copy": _same,
    "aten.alpha_dropout": _dropout,
    "aten.cat": _cat,
    "aten.chunk": _parts,
    "aten.clone": _same,
    "aten.concat": _cat,
    "aten.concatenate": _cat,
    "aten.constant_pad_nd": _pad,
    "aten.contiguous": _same,
    "aten.detach": _same,
    "aten.detach_": _same,
    "aten.dropout": _dropout,
    "aten.expand": _expand,
    "aten.expand_as": _expand,
    "aten.expand_copy": _expand,
    "aten.feature_dropout": _dropout,
    "aten.flatten": _flatten,
    "aten.gather": _gather,
    "aten.index": _index,
    "aten.index_select": _index_select,
    "aten.lift_fresh_copy": _same,
    "aten.movedim": _move,
    "aten.narrow": _narrow,
    "aten.native_dropout": _dropout_with_mask,
    "aten.numpy_T": _turn_matrix,
    "aten.pad": _pad,
    "aten.permute": _permute,
    "aten.permute_copy": _permute,
    "aten.repeat": _repeat,
    "aten.reshape": _reshape,
    "aten.select": _select,
    "aten.select_copy": _select,
    "aten.slice": _slice,
    "aten.slice_copy": _slice,
    "aten.split": _parts,
    "aten.split_copy": _parts,
    "aten.split_with_sizes": _parts,
    "aten.split_with_sizes_copy": _parts,
    "aten.squeeze": _squeeze,
    "aten.squeeze_copy": _squeeze,
    "aten.stack": _stack,
    "aten.swapaxes": _transpose,
    "aten.t": _turn_matrix,
    "aten.t_copy": _turn_matrix,
    "aten.tensor_split": _parts,
    "aten.transpose": _transpose,
    "aten.transpose_copy": _transpose,
    "aten.unbind": _unbind,
    "aten.unflatten": _reshape,
    "aten.unsqueeze": _unsqueeze,
    "aten.unsqueeze_copy": _unsqueeze,
    "aten.view": _reshape,
    "aten.view_as": _reshape,
    "aten.view_copy": _reshape,
}
