"""TNN (T6): a teacher that fires at random, and the student of whole numbers that is found to agree with it.

Formula: quantizers.md section A.2. The method stands with the other ternary ones (`imcsim.quant.methods.ternary`).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError, GraphError
from imcsim.graph import TERNARY, Threshold
from imcsim.quant.layers import QuantizedConv2d, weights_and_quantizers
from imcsim.quant.limits import FIRING_HALVES
from imcsim.quant.method import Method, MethodRecord
from imcsim.quant.methods.binary import clip_latent_weights
from imcsim.quant.search import Neuron, agreeing_neuron
from imcsim.quant.straight import surrogate
from imcsim.quant.weights import Coded, WeightQuantizer
from imcsim.ternary import Codec, ternary


class StudentWeights(WeightQuantizer):
    """Real weights of a teacher, in [-1, 1], until `teach` makes ternary ones by two thresholds for each neuron.

    A student's code is +1 where ``w >= high``, -1 where ``w <= low``, else 0; no scale. The gradient of a teacher's
    weights is their own. Source: Alemdar et al., IJCNN 2017.
    """

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.empty(0))
        self.register_buffer("high", torch.empty(0))

    @property
    def is_student(self) -> bool:
        """Whether the weights are ternary."""
        return len(self.low) > 0

    def teach(self, low: Tensor, high: Tensor) -> None:
        """Make the weights ternary by thresholds, one of each per neuron."""
        self.low, self.high = low, high

    def forward(self, weight: Tensor) -> Coded:
        """Return codes of scale 1: ternary ones, or the teacher's real weights themselves."""
        one = weight.new_tensor(1.0)
        if not self.is_student:
            return Coded((weight,), (one,))
        shape = (-1, *(1,) * (weight.ndim - 1))
        wide = weight.detach()
        codes = (wide >= self.high.reshape(shape)).to(wide.dtype) - (wide <= self.low.reshape(shape)).to(wide.dtype)
        return Coded((surrogate(weight, codes),), (one,))

    def codec(self) -> Codec:
        """One plane; raises GraphError for a teacher."""
        if not self.is_student:
            raise GraphError("weights: must be a student's, got the real ones of its teacher; call TNN.deploy first")
        return ternary()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in ("low", "high"):
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class StochasticFire(nn.Module):
    """-1, 0 or +1 by chance: ``floor(clip(x, -1, 1) + U[0, 1))`` in training, ``R(clip(x, -1, 1))`` else, halves away.

    The gradient passes everywhere. Source: Alemdar et al., IJCNN 2017, and the authors' tnn-train.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return a code for each number of *x*."""
        if not self.training:
            return surrogate(x, FIRING_HALVES.codes(x))
        clipped = x.detach().clamp(-1, 1)
        return surrogate(x, torch.floor(clipped + torch.rand_like(clipped)).clamp(max=1))

    def imc_quantizer(self) -> Threshold:
        """Return the thresholds at -+1/2, which fire themselves."""
        return FIRING_HALVES.step()


class TernaryNeurons(nn.Module):
    """What follows the sums of a layer: batch norm and `StochasticFire` of a teacher, two whole numbers of a student.

    A student's neuron gives +1 where its sum is above ``high``, -1 where it is below ``low``, else 0, and the opposite
    where it is inverted. Source: Alemdar et al., IJCNN 2017.
    """

    low: Tensor
    high: Tensor
    is_inverted: Tensor
    is_student: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.norm, self.fire = nn.BatchNorm2d(n), StochasticFire()
        self.register_buffer("low", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("high", torch.zeros(n, dtype=torch.int64))
        self.register_buffer("is_inverted", torch.zeros(n, dtype=torch.bool))
        self.register_buffer("is_student", torch.zeros((), dtype=torch.bool))

    def teach(self, neurons: list[Neuron]) -> None:
        """Take the thresholds of *neurons*."""
        for name in ("low", "high", "is_inverted"):
            buffer = cast(Tensor, getattr(self, name))
            buffer.copy_(torch.tensor([getattr(neuron, name) for neuron in neurons], dtype=buffer.dtype))
        self.is_student.fill_(True)

    def chances(self, sums: Tensor) -> Tensor:
        """Return (... 3) how likely the teacher gives -1, 0 and +1 for *sums* (b c h w), in evaluation mode."""
        x = self.norm(sums).clamp(-1, 1)
        plus, minus = x.clamp(min=0), (-x).clamp(min=0)
        return torch.stack([minus, 1 - plus - minus, plus], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Return codes of the sums *x* (b c h w)."""
        if not bool(self.is_student):
            return cast(Tensor, self.fire(self.norm(x)))
        low, high = self.low[:, None, None], self.high[:, None, None]
        codes = (x > high).to(x.dtype) - (x < low).to(x.dtype)
        return torch.where(self.is_inverted[:, None, None], -codes, codes)

    def imc_quantizer(self) -> Threshold:
        """Return a student's thresholds; raises GraphError for a teacher."""
        if not bool(self.is_student):
            raise GraphError("neurons: must be a student's, got those of its teacher; call TNN.deploy first")
        low, high = self.low.numpy().astype(np.float64), self.high.numpy().astype(np.float64)
        is_inverted = self.is_inverted.numpy()
        rising, falling = np.stack([low, high + 1], axis=1), np.stack([-high, 1 - low], axis=1)
        return Threshold(
            np.where(is_inverted[:, None], falling, rising),
            np.array([-1, 0, 1]),
            TERNARY,
            np.where(is_inverted, -1, 1).astype(np.int8),
        )


class TernaryBlock(nn.Module):
    """A layer of a ternary network: inputs fire, are multiplied, pooled, and neurons fire; ternary codes come out."""

    def __init__(self, fire: nn.Module, conv: nn.Module, pool: int, n_out: int) -> None:
        super().__init__()
        self.fire, self.conv = fire, conv
        self.pool = nn.MaxPool2d(pool) if pool > 1 else nn.Identity()
        self.neurons = TernaryNeurons(n_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the codes of the neurons for real numbers or codes *x* (b c h w)."""
        return cast(Tensor, self.neurons(self.pool(self.conv(self.fire(x)))))

    def windows(self, x: Tensor) -> Tensor:
        """Return (b h w q k): for each output the inputs of the q sums of its pool."""
        conv, codes = cast(QuantizedConv2d, self.conv), self.fire(x)
        (kh, kw), (ph, pw), (sh, sw) = conv.kernel_size, cast(tuple[int, int], conv.padding), conv.stride
        padded = nn.functional.pad(codes, (pw, pw, ph, ph))
        patches = padded.unfold(2, kh, sh).unfold(3, kw, sw)  # b c h w kh kw
        patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)  # b h w k
        size = self.pool.kernel_size if isinstance(self.pool, nn.MaxPool2d) else 1
        size = cast(int, size)
        pooled = patches.unfold(1, size, size).unfold(2, size, size)  # b h w k p p
        return pooled.flatten(4).transpose(3, 4)

    def learn(self, x: Tensor, n_samples: int, *, is_exhaustive: bool) -> list[Neuron]:
        """Turn the teacher into the student that agrees most with it on the inputs *x*; return the neurons.

        Up to *n_samples* outputs are looked at, spread evenly over images and positions.
        """
        conv = cast(QuantizedConv2d, self.conv)
        quantizer = cast(StudentWeights, conv.weight_quantizer)
        with torch.no_grad():
            n_positions = self.pool(conv(self.fire(x[:1])))[0, 0].numel()
            n_images = max(64, -(-n_samples // n_positions))
            x = x[torch.linspace(0, len(x) - 1, min(n_images, len(x))).round().long()]
            inputs = self.windows(x)
            chances = self.neurons.chances(self.pool(conv(self.fire(x)))).permute(0, 2, 3, 1, 4)  # b h w c 3
            inputs, chances = inputs.flatten(0, 2), chances.flatten(0, 2)
            picks = torch.linspace(0, len(inputs) - 1, min(n_samples, len(inputs))).round().long()
            codes, wanted = inputs[picks].to(torch.int8).numpy(), chances[picks].double().numpy()
            weights = conv.weight.detach().flatten(1)
            neurons = [
                agreeing_neuron(row.double().numpy(), codes, wanted[:, c], is_exhaustive=is_exhaustive)
                for c, row in enumerate(weights)
            ]
            quantizer.teach(*limits_of(weights, neurons))
            self.neurons.teach(neurons)
        return neurons


def limits_of(weights: Tensor, neurons: list[Neuron]) -> tuple[Tensor, Tensor]:
    """Return (c) up to which weight the codes are -1, and (c) from which on they are +1, for *weights* (c k)."""
    ordered = weights.sort(dim=1).values
    infinite = torch.tensor(math.inf, dtype=weights.dtype)
    low = [
        row[neuron.n_minus - 1] if neuron.n_minus else -infinite for row, neuron in zip(ordered, neurons, strict=True)
    ]
    high = [row[-neuron.n_plus] if neuron.n_plus else infinite for row, neuron in zip(ordered, neurons, strict=True)]
    return torch.stack(low), torch.stack(high)


@dataclass(frozen=True, kw_only=True)
class TNN(Method):
    """Ternary Neural Networks: a teacher that fires at random, and a student of whole numbers that agrees with it.

    What is trained is the teacher: real weights clipped to [-1, 1], batch norm, stochastic firing. `deploy` makes the
    student, layer by layer from the input, each with the outputs of the student's earlier layers as inputs: for each
    neuron the thresholds of its weights, those of its sum, and whether it is inverted, so that its code is most likely
    that of the teacher. Blocks fire at their end, too, so that whole numbers alone pass between them; what reads the
    last one gets codes.

    The search tries all thresholds of the sum; those of the weights by thirds and then around the best, as the authors'
    code does, or all of them with *search=exhaustive*. *n_samples* outputs of a layer are looked at. A convolution that
    is used without a block becomes ternary by rounding. Source: see the record; T6.
    """

    record: ClassVar[MethodRecord] = MethodRecord(
        id="T6",
        name="tnn",
        title="Ternary Neural Networks for Resource-Efficient AI Applications",
        paper="Alemdar, Leroy, Prost-Boucle, Petrot, IJCNN 2017, arXiv:1609.00222",
        weights="{-1, 0, +1}",
        activations="{-1, 0, +1}",
        granularity="- / -",
        formula="y = +1 if sum > hi_j, -1 if sum < lo_j, else 0, perhaps inverted; w by thresholds per neuron",
        planes="1 x 1",
        n_planes=(1, 1),
        sign_zero=0,
        rounding="half-away",
        basis="published",
    )
    of_network = ("search", "n_samples")
    search: str = "log"
    n_samples: int = 1024

    def __post_init__(self) -> None:
        if self.search not in ("log", "exhaustive"):
            raise ConfigError(f"tnn: search must be log or exhaustive, got {self.search!r}")
        if self.n_samples < 1:
            raise ConfigError(f"tnn: n_samples must be at least 1, got {self.n_samples}")

    def weights(self) -> WeightQuantizer:
        """A teacher's, until `deploy`."""
        return StudentWeights()

    def activation(self, n_channels: int) -> nn.Module:
        """Fire at random in training."""
        return StochasticFire()

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return a layer whose outputs are codes."""
        conv = self.conv(n_in, n_out, kernel, stride=stride, padding=padding)
        return TernaryBlock(self.activation(n_in), conv, pool, n_out)

    def after_step(self, network: nn.Module) -> None:
        """Clip the teacher's weights to [-1, 1]."""
        clip_latent_weights(network, StudentWeights)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Turn the teacher into the student, with *images* as samples."""
        was_training = [module for module in network.modules() if module.training]
        network.eval()
        blocks = [module for module in network.modules() if isinstance(module, TernaryBlock)]
        for block in blocks:
            inputs = _inputs_of(block, network, images)
            if bool(((inputs == 0) | (inputs.abs() == 1)).all()):
                block.fire = nn.Identity()  # a block before fires already
            block.learn(inputs, self.n_samples, is_exhaustive=self.search == "exhaustive")
        for weight, quantizer in weights_and_quantizers(network, StudentWeights):
            if not quantizer.is_student:
                half = weight.new_full(weight.shape[:1], 0.5)
                quantizer.teach(-half, half)
        for module in was_training:
            module.training = True


def _inputs_of(block: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    """Return what *block* gets when *network* gets *images*."""
    found: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda module, args: found.append(args[0].detach()))
    with torch.no_grad():
        network(images)
    handle.remove()
    return found[0]
