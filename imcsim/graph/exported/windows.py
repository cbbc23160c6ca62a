"""Pools, means and extremes over axes, and images made larger."""

from collections.abc import Callable
from typing import Any

from imcsim.graph.exported.call import Call, NoWordError, Write, Written, axis_of
from imcsim.graph.exported.layers import _per_axis


def _window(call: Call, n: int) -> dict[str, Any]:
    if len(call.shape("self")) != n + 2:
        raise NoWordError
    kernel = _per_axis(call["kernel_size"], n)
    padding = _per_axis(call.get("padding", 0), n)
    return {
        "kernel_shape": kernel,
        "strides": _per_axis(call["stride"], n) if call.get("stride") else kernel,
        "pads": padding * 2,
        "ceil_mode": int(bool(call.get("ceil_mode", False))),
    }


def _max_pool(n: int) -> Callable[[Call], str]:
    def write(call: Call) -> str:
        said = _window(call, n)
        return call.add("MaxPool", call.tensor("self"), **said, dilations=_per_axis(call.get("dilation", 1), n))

    return write


def _max_pool_with_places(n: int) -> Callable[[Call], Written]:
    def write(call: Call) -> Written:
        if not call.is_read(1):
            return _max_pool(n)(call), None
        said = _window(call, n)
        made = (call.node.name, call.output("places"))
        call.add_many("MaxPool", [call.tensor("self")], made, **said, dilations=_per_axis(call.get("dilation", 1), n))
        return made

    return write


def _avg_pool(n: int) -> Write:
    def write(call: Call) -> str:
        if call.get("divisor_override") is not None:
            raise NoWordError
        is_counted = int(bool(call.get("count_include_pad", True)))
        return call.add("AveragePool", call.tensor("self"), **_window(call, n), count_include_pad=is_counted)

    return write


def _adaptive(whole: str, pool: str, n: int) -> Callable[[Call], str]:
    """Return what writes a pool that is told the size behind it: over everything, or with windows that fit."""

    def write(call: Call) -> str:
        shape = call.shape("self")
        if len(shape) != n + 2:
            raise NoWordError
        before, after = shape[2:], tuple(call.node.meta["val"][0].shape[2:] if _has_places(call) else call.shape()[2:])
        if before == after:
            return call.tensor("self")
        if all(size == 1 for size in after):
            return call.add(whole, call.tensor("self"))
        if any(b % a for b, a in zip(before, after, strict=True)):
            raise NoWordError
        kernel = tuple(b // a for b, a in zip(before, after, strict=True))
        return call.add(pool, call.tensor("self"), kernel_shape=kernel, strides=kernel, pads=(0,) * (2 * n))

    return write


def _has_places(call: Call) -> bool:
    return isinstance(call.node.meta["val"], tuple | list)


def _adaptive_max(n: int) -> Callable[[Call], Written]:
    def write(call: Call) -> Written:
        if call.is_read(1):
            raise NoWordError
        return _adaptive("GlobalMaxPool", "MaxPool", n)(call), None

    return write


def _reduce(kind: str) -> Write:
    def write(call: Call) -> str:
        if call.get("dtype") not in (None, call.dtype("self")):
            raise NoWordError
        n_axes = len(call.shape("self"))
        dims = call.get("dim")
        dims = range(n_axes) if dims is None or dims == [] else dims if isinstance(dims, list | tuple) else [dims]
        axes = call.whole(sorted(axis_of(axis, n_axes) for axis in dims), "axes")
        return call.add(kind, call.tensor("self"), axes, keepdims=int(bool(call.get("keepdim", False))))

    return write


def _argument(kind: str) -> Write:
    def write(call: Call) -> str:
        if call.get("dim") is None:
            raise NoWordError
        axis = axis_of(call["dim"], len(call.shape("self")))
        return call.add(kind, call.tensor("self"), axis=axis, keepdims=int(bool(call["keepdim"])))

    return write


def _resize(mode: str) -> Write:
    def write(call: Call) -> str:
        sizes = call.whole(call.shape(), "sizes")
        said: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        if mode != "nearest":
            is_aligned = bool(call.get("align_corners", False))
            said = {"mode": mode, "coordinate_transformation_mode": "align_corners" if is_aligned else "half_pixel"}
        return call.add("Resize", call.tensor("input" if "input" in call.arguments else "self"), "", "", sizes, **said)

    return write


WINDOWS: dict[str, Callable[[Call], Any]] = {
    "aten._adaptive_avg_pool2d": _adaptive("GlobalAveragePool", "AveragePool", 2),
    "aten.adaptive_avg_pool1d": _adaptive("GlobalAveragePool", "AveragePool", 1),
    "aten.adaptive_avg_pool2d": _adaptive("GlobalAveragePool", "AveragePool", 2),
    "aten.adaptive_max_pool1d": _adaptive_max(1),
    "aten.adaptive_max_pool2d": _adaptive_max(2),
    "aten.amax": _reduce("ReduceMax"),
    "aten.amin": _reduce("ReduceMin"),
    "aten.argmax": _argument("ArgMax"),
    "aten.argmin": _argument("ArgMin"),
    "aten.avg_pool1d": _avg_pool(1),
    "aten.avg_pool2d": _avg_pool(2),
    "aten.max_pool1d": _max_pool(1),
    "aten.max_pool1d_with_indices": _max_pool_with_places(1),
    "aten.max_pool2d": _max_pool(2),
    "aten.max_pool2d_with_indices": _max_pool_with_places(2),
    "aten.mean": _reduce("ReduceMean"),
    "aten.prod": _reduce("ReduceProd"),
    "aten.sum": _reduce("ReduceSum"),
    "aten.upsample_bilinear2d": _resize("linear"),
    "aten.upsample_nearest1d": _resize("nearest"),
    "aten.upsample_nearest2d": _resize("nearest"),
}
