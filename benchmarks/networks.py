"""Networks that several benchmarks time, and the float twins that other tools take."""

from __future__ import annotations

from types import ModuleType

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from imcsim.graph import QuantizedActivation
from imcsim.quant.layers import QuantizedConv2d, QuantizedLinear, QuantizedWeights
from imcsim.workloads import find_workload


def resnet18() -> ModuleType:
    """Return the `workload.py` of the ternary ResNet-18: ``drawn(activations)`` and ``images(n)``."""
    return find_workload("resnet18-cifar-ternary").module


def float_twin(net: nn.Module, *, fold: bool = True) -> nn.Module:
    """Return *net* as an ordinary float32 network: the same layers and weights, ReLU in place of every quantizer.

    A ReLU is the cheapest activation that torch has, and the twin takes its input as it comes: less work than the
    quantized network is. *fold*: batch norms become part of the convolutions before them. Leaves *net* as it is.
    """
    twin = _as_float(net)
    return (_folded(twin) if fold else twin).eval()


def _as_float(module: nn.Module) -> nn.Module:
    if isinstance(module, QuantizedWeights):
        return _float_layer(module)
    if isinstance(module, QuantizedActivation):
        return nn.ReLU(inplace=True)
    if not list(module.children()):
        return module
    copy = module.__new__(type(module))  # the same forward(), other children
    copy.__dict__ = module.__dict__ | {"_modules": {}}
    for name, child in module.named_children():
        is_input = name == "pixels"
        copy.add_module(name, nn.Identity() if is_input else _as_float(child))
    return copy


def _float_layer(layer: QuantizedWeights) -> nn.Conv2d | nn.Linear:
    codes, scale = layer.checked_codes()
    made: nn.Conv2d | nn.Linear
    if isinstance(layer, QuantizedConv2d):
        made = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=False
        )  # fmt: skip
    else:
        assert isinstance(layer, QuantizedLinear)
        made = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        if layer.bias is not None:
            made.bias = nn.Parameter(layer.bias.detach().clone())
    made.weight = nn.Parameter((codes * scale).detach().float())
    return made


def _folded(module: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution that stands before it among its brothers and sisters."""
    before: tuple[str, nn.Module] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
            setattr(module, before[0], fuse_conv_bn_eval(before[1].eval(), child.eval()))
            setattr(module, name, nn.Identity())
        else:
            _folded(child)
        before = (name, child)
    return module
