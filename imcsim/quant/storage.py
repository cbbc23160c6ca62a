"""Trained networks in small files: quantized layers as int8 codes and scales, everything else as it is.

The names are those of ``state_dict()``, except that ``NAME.weight`` of a quantized layer is replaced by ``NAME.codes``
and ``NAME.scale``. A packed network computes bit for bit what the trained one does; only the latent weights are gone.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from imcsim.errors import DataError, ImcsimError
from imcsim.quant.layers import QuantizedWeights


def packed_state(module: nn.Module) -> dict[str, Tensor]:
    """Return what *module* needs at inference, by name, ready for ``safetensors.torch.save_file``."""
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    for name, layer in quantized_layers(module).items():
        codes, scale = layer.checked_codes()
        del state[f"{name}weight"]
        state[f"{name}codes"] = codes.to(torch.int8 if layer.weight_codec().high < 128 else torch.int32)
        state[f"{name}scale"] = scale
    return {name: value.contiguous() for name, value in state.items()}


def load_packed(module: nn.Module, state: Mapping[str, Tensor], *, where: str = "weights") -> None:
    """Fill *module* with what `packed_state` returned; *where* names the file in error messages.

    Raises DataError when names or shapes do not fit the module.
    """
    layers = quantized_layers(module)
    wanted = set(packed_state_names(module))
    if wanted != set(state):
        odd = sorted(wanted ^ set(state))
        kind = "missing" if odd[0] in wanted else "not known to the network"
        raise DataError(
            f"{where}: must hold the tensors of {type(module).__name__}, got {odd[0]!r} {kind}; train again"
        )
    try:
        for name, layer in layers.items():
            layer.restore_codes(state[f"{name}codes"], state[f"{name}scale"])
        made = {f"{name}{part}" for name in layers for part in ("codes", "scale")}
        rest = {name: value for name, value in state.items() if name not in made}
        rest |= {f"{name}weight": layer.weight.detach() for name, layer in layers.items()}
        module.load_state_dict(rest)
    except (ImcsimError, RuntimeError) as error:
        raise DataError(f"{where}: {error}; train again") from None


def packed_state_names(module: nn.Module) -> list[str]:
    """Return the names that `packed_state` gives."""
    layers = quantized_layers(module)
    rest = [name for name in module.state_dict() if name not in {f"{layer}weight" for layer in layers}]
    return rest + [f"{layer}{part}" for layer in layers for part in ("codes", "scale")]


def quantized_layers(module: nn.Module) -> dict[str, QuantizedWeights]:
    """Return the layers with quantized weights by the prefix of their names in the state: ``""`` or ``"conv1."``."""
    return {
        f"{name}." if name else "": layer
        for name, layer in module.named_modules()
        if isinstance(layer, QuantizedWeights)
    }
