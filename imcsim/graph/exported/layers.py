"""Products, normalizations, tables of vectors, and attention written out."""

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np
from torch import fx

from imcsim.graph.exported.call import Call, NoWordError, Written

Array = np.ndarray


def _per_axis(values: Any, n: int) -> tuple[int, ...]:
    """Return a number for each of *n* axes; one alone counts for all."""
    values = tuple(values) if isinstance(values, list | tuple) else (values,)
    return tuple(int(value) for value in (values * n if len(values) == 1 else values))


def _conv(call: Call) -> str:
    weights = call.shape("weight")
    n = len(weights) - 2
    if len(call.shape("input")) != n + 2:
        raise NoWordError
    strides, dilations = _per_axis(call["stride"], n), _per_axis(call["dilation"], n)
    said: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": int(call["groups"])}
    inputs = [call.tensor("input"), call.tensor("weight")]
    if call.get("bias") is not None:
        inputs.append(call.tensor("bias"))
    padding = call["padding"]
    if isinstance(padding, str):
        reach = [d * (k - 1) for k, d in zip(weights[2:], dilations, strict=True)]
        before = [r // 2 if padding == "same" else 0 for r in reach]
        after = [r - b if padding == "same" else 0 for r, b in zip(reach, before, strict=True)]
    else:
        before = after = list(_per_axis(padding, n))
    said |= {"kernel_shape": weights[2:], "pads": (*before, *after)}
    if call.get("transposed", "output_padding" in call.arguments):
        return call.add("ConvTranspose", *inputs, output_padding=_per_axis(call["output_padding"], n), **said)
    return call.add("Conv", *inputs, **said)


def _linear(call: Call) -> str:
    source, weight = call.tensor("input"), call.tensor("weight")
    has_bias = call.get("bias") is not None
    if len(call.shape("input")) == 2 and len(call.shape("weight")) == 2:
        bias = (call.tensor("bias"),) if has_bias else ()
        return call.add("Gemm", source, weight, *bias, transB=1)
    array = call.array("weight")
    moved = call.moved(weight, None if array is None else array.T, "Transpose", "weight", perm=(1, 0))
    if not has_bias:
        return call.add("MatMul", source, moved)
    call.add_many("MatMul", (source, moved), (call.output("product"),))  # it has the layer's name
    call.add_many("Add", (call.output("product"), call.tensor("bias")), (call.output(),), what="bias")
    return call.output()


def _addmm(call: Call) -> str:
    inputs = (call.tensor("mat1"), call.tensor("mat2"), call.tensor("self"))
    return call.add("Gemm", *inputs, alpha=float(call["alpha"]), beta=float(call["beta"]))


def _baddbmm(call: Call) -> str:
    if call["alpha"] != 1 or call["beta"] != 1:
        raise NoWordError
    return call.add(
        "Add", call.add("MatMul", call.tensor("batch1"), call.tensor("batch2"), what="product"), call.tensor("self")
    )


def _matmul(call: Call) -> str:
    other = next(name for name in ("mat2", "other", "vec") if name in call.arguments)
    return call.add("MatMul", call.tensor("self"), call.tensor(other))


def _batch_norm(call: Call) -> str:
    channels = call.shape("input")[1]
    is_training = bool(call.get("training", False)) or call.get("running_mean") is None
    inputs = [
        call.tensor("input"),
        _given(call, "weight", np.ones(channels, np.float32)),
        _given(call, "bias", np.zeros(channels, np.float32)),
        call.optional("running_mean"),
        call.optional("running_var"),
    ]
    said: dict[str, Any] = {"training_mode": 1} if is_training else {}
    return call.add("BatchNormalization", *inputs, epsilon=float(call["eps"]), **said)


def _given(call: Call, name: str, otherwise: Array) -> str:
    return call.constant(otherwise, name) if call.get(name) is None else call.tensor(name)


def _first_of_three(write: Callable[[Call], str]) -> Callable[[Call], Written]:
    """Return what writes an operator that also gives statistics, which nothing but training reads."""

    def first(call: Call) -> Written:
        if any(call.is_read(place) for place in (1, 2)):
            raise NoWordError
        return write(call), None, None

    return first


def _layer_norm(call: Call) -> str:
    shape = tuple(call["normalized_shape"])
    scale = _given(call, "weight", np.ones(shape, np.float32))
    bias = () if call.get("bias") is None else (call.tensor("bias"),)
    return call.add(
        "LayerNormalization", call.tensor("input"), scale, *bias, axis=-len(shape), epsilon=float(call["eps"])
    )


def _rms_norm(call: Call) -> str:
    shape = tuple(call["normalized_shape"])
    epsilon = call.get("eps")
    if epsilon is None:
        epsilon = float(np.finfo(np.float32).eps)
    scale = _given(call, "weight", np.ones(shape, np.float32))
    return call.add("RMSNormalization", call.tensor("input"), scale, axis=-len(shape), epsilon=float(epsilon))


def _group_norm(call: Call) -> str:
    channels = call.shape("input")[1]
    scale = _given(call, "weight", np.ones(channels, np.float32))
    bias = _given(call, "bias", np.zeros(channels, np.float32))
    said: dict[str, Any] = {"num_groups": int(call["num_groups"]), "epsilon": float(call["eps"])}
    return call.add("GroupNormalization", call.tensor("input"), scale, bias, **said)


def _instance_norm(call: Call) -> str:
    if not call["use_input_stats"]:
        return _batch_norm(call)
    channels = call.shape("input")[1]
    scale = _given(call, "weight", np.ones(channels, np.float32))
    bias = _given(call, "bias", np.zeros(channels, np.float32))
    return call.add("InstanceNormalization", call.tensor("input"), scale, bias, epsilon=float(call["eps"]))


def _embedding(call: Call) -> str:
    return call.add("Gather", call.tensor("weight"), call.tensor("indices"), axis=0)


def _attention(call: Call) -> str:
    """Scaled products of queries and keys, a softmax over keys, and the means of values that it weighs."""
    queries, keys = call.shape("query"), call.shape("key")
    if call.get("dropout_p", 0.0) or call.get("enable_gqa", False) or call.get("return_debug_mask", False):
        raise NoWordError
    scale = call.get("scale")
    scale = 1 / sqrt(queries[-1]) if scale is None else scale
    n = len(keys)
    turned = call.add("Transpose", call.tensor("key"), what="keys", perm=(*range(n - 2), n - 1, n - 2))
    scores = call.add("MatMul", call.tensor("query"), turned, what="products")
    scores = call.add("Mul", scores, call.tensor_of(float(scale), "scale"), what="scores")
    mask = _mask(call, (queries[-2], keys[-2]))
    if mask:
        scores = call.add("Add", scores, mask, what="masked")
    shares = call.add("Softmax", scores, what="shares", axis=-1)
    return call.add("MatMul", shares, call.tensor("value"))


def _mask(call: Call, shape: tuple[int, int]) -> str:
    """Return what is added to the scores: minus infinity where a query must not see a key; "": nothing."""
    if call["is_causal"]:
        return call.constant(np.triu(np.full(shape, -np.inf, np.float32), 1), "mask")
    if call["attn_mask"] is None:
        return ""
    array = call.array("attn_mask")
    if array is not None and array.dtype == np.bool_:
        return call.constant(np.where(array, 0, -np.inf).astype(np.float32), "mask")
    if array is None and isinstance(call["attn_mask"], fx.Node) and not call.dtype("attn_mask").is_floating_point:
        zero, least = call.tensor_of(0.0, "seen"), call.tensor_of(-float("inf"), "unseen")
        return call.add("Where", call.tensor("attn_mask"), zero, least, what="mask")
    return call.tensor("attn_mask")


def _attention_alone(call: Call) -> Written:
    n = len(call.node.meta["val"])
    if any(call.is_read(place) for place in range(1, n)):
        raise NoWordError
    return (_attention(call), *(None,) * (n - 1))


def _pixel_shuffle(call: Call) -> str:
    if len(call.shape("self")) != 4:
        raise NoWordError
    return call.add("DepthToSpace", call.tensor("self"), blocksize=int(call["upscale_factor"]), mode="CRD")


def _channel_shuffle(call: Call) -> str:
    batch, channels, *size = call.shape("self")
    groups, n = int(call["groups"]), 3 + len(size)
    split = (batch, groups, channels // groups, *size)
    parts = call.add("Reshape", call.tensor("self"), call.whole(split, "groups"), what="parts")
    turned = call.add("Transpose", parts, what="turned", perm=(0, 2, 1, *range(3, n)))
    return call.add("Reshape", turned, call.whole((batch, prod(split[1:3]), *size), "shape"))


LAYERS: dict[str, Callable[[Call], Written]] = {
    "aten._native_batch_norm_legit": _first_of_three(_batch_norm),
    "aten._native_batch_norm_legit_no_training": _first_of_three(_batch_norm),
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention_alone,
    "aten.addmm": _addmm,
    "aten.baddbmm": _baddbmm,
    "aten.batch_norm": _batch_norm,
    "aten.bmm": _matmul,
    "aten.channel_shuffle": _channel_shuffle,
    "aten.conv1d": _conv,
    "aten.conv2d": _conv,
    "aten.conv3d": _conv,
    "aten.conv_transpose1d": _conv,
    "aten.conv_transpose2d": _conv,
    "aten.convolution": _conv,
    "aten.embedding": _embedding,
    "aten.group_norm": _group_norm,
    "aten.instance_norm": _instance_norm,
    "aten.layer_norm": _layer_norm,
    "aten.linear": _linear,
    "aten.matmul": _matmul,
    "aten.mm": _matmul,
    "aten.native_batch_norm": _first_of_three(_batch_norm),
    "aten.native_channel_shuffle": _channel_shuffle,
    "aten.native_layer_norm": _first_of_three(_layer_norm),
    "aten.pixel_shuffle": _pixel_shuffle,
    "aten.rms_norm": _rms_norm,
    "aten.scaled_dot_product_attention": _attention,
}
