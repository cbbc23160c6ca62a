"""Numbers to codes and back: the operators of torch's PT2E and of torchao as QuantizeLinear and DequantizeLinear."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from imcsim.graph.exported.call import Call, NoWordError

Array = np.ndarray

LIMITS = {
    torch.int8: (-128, 127),
    torch.uint8: (0, 255),
    torch.int16: (-32768, 32767),
    torch.uint16: (0, 65535),
    torch.int32: (-(2**31), 2**31 - 1),
}
"""Types of codes that ONNX has, too."""


def _parameters(call: Call, dtype: torch.dtype, shape: tuple[int, ...] | None = None) -> list[str]:
    """Return the scale and the zero point as tensors, of *shape* where that is said: numbers, or tensors of them."""
    found = []
    for name, plural, kind in (("scale", "scales", np.float32), ("zero_point", "zero_points", None)):
        name = name if name in call.arguments else plural
        value = call.get(name)
        wanted = kind or torch.empty(0, dtype=dtype).numpy().dtype
        if isinstance(value, fx.Node):
            array = call.array(name)
            if array is None:
                found.append(call.tensor(name))
                continue
        else:
            array = np.array(0 if value is None else value)
        array = array.reshape(() if array.size == 1 and shape is None else shape or array.shape)
        if name.startswith("zero") and np.any(array != np.rint(array)):
            raise NoWordError
        found.append(call.constant(array.astype(wanted), name))
    return found


def _limits(call: Call, dtype: torch.dtype) -> tuple[int, int]:
    if dtype not in LIMITS:
        raise NoWordError
    least, most = LIMITS[dtype]
    low, high = call.get("quant_min"), call.get("quant_max")
    return (least if low is None else int(low), most if high is None else int(high))


def _coded(call: Call, tensor: str, dtype: torch.dtype, parameters: list[str], **attributes: Any) -> str:
    """Write a QuantizeLinear, and a Clip behind it where the codes are fewer than those of the type."""
    low, high = _limits(call, dtype)
    if (low, high) == LIMITS[dtype]:
        return call.add("QuantizeLinear", tensor, *parameters, **attributes)
    wide = call.add("QuantizeLinear", tensor, *parameters, what="codes", **attributes)
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    limits = [call.constant(np.array(n, kind), name) for n, name in ((low, "low"), (high, "high"))]
    return call.add("Clip", wide, *limits)


def _quantize(call: Call) -> str:
    dtype = call["dtype"]
    return _coded(call, call.tensor("input"), dtype, _parameters(call, _known(dtype)))


def _quantize_per_channel(call: Call) -> str:
    dtype = call["dtype"]
    return _coded(call, call.tensor("input"), dtype, _parameters(call, _known(dtype)), axis=int(call["axis"]))


def _known(dtype: torch.dtype) -> torch.dtype:
    if dtype not in LIMITS:
        raise NoWordError
    return dtype


def _dequantize(call: Call) -> str:
    if call.get("out_dtype") not in (None, torch.float32):
        raise NoWordError
    return call.add("DequantizeLinear", call.tensor("input"), *_parameters(call, _known(call.dtype("input"))))


def _dequantize_per_channel(call: Call) -> str:
    if call.get("out_dtype") not in (None, torch.float32):
        raise NoWordError
    parameters = _parameters(call, _known(call.dtype("input")))
    return call.add("DequantizeLinear", call.tensor("input"), *parameters, axis=int(call["axis"]))


def _spread(call: Call) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Return the shape and the attributes of scales that torchao has for each block of numbers."""
    shape, block = call.shape("input"), tuple(int(n) for n in call["block_size"])
    if len(block) != len(shape):
        raise NoWordError
    counts = [n if b == -1 else n // b for n, b in zip(shape, block, strict=True)]
    counts = [1 if b == -1 else count for b, count in zip(block, counts, strict=True)]
    several = [axis for axis, count in enumerate(counts) if count > 1]
    if not several:
        return (), {}
    if len(several) > 1 or counts[several[0]] != shape[several[0]]:
        raise NoWordError
    return (shape[several[0]],), {"axis": several[0]}


def _quantize_affine(call: Call) -> str:
    dtype = _known(call["output_dtype"])
    shape, said = _spread(call)
    return _coded(call, call.tensor("input"), dtype, _parameters(call, dtype, shape), **said)


def _dequantize_affine(call: Call) -> str:
    shape, said = _spread(call)
    if call.dtype() is not torch.float32:
        raise NoWordError
    parameters = _parameters(call, _known(call.dtype("input")), shape)
    return call.add("DequantizeLinear", call.tensor("input"), *parameters, **said)


QUANTIZED: dict[str, Callable[[Call], str]] = {
    "quantized_decomposed.dequantize_per_channel": _dequantize_per_channel,
    "quantized_decomposed.dequantize_per_tensor": _dequantize,
    "quantized_decomposed.quantize_per_channel": _quantize_per_channel,
    "quantized_decomposed.quantize_per_tensor": _quantize,
    "torchao.dequantize_affine": _dequantize_affine,
    "torchao.quantize_affine": _quantize_affine,
}
