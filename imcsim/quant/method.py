"""A published method as one object: what it is, the layers it makes, and what it does while a network is trained.

A network is built of layers that a `Method` gives (`imcsim.quant.networks`), so that every method can be run on every
network that takes one. A method that brings nothing but a quantizer of weights and one of activations overrides
`weights` and `activation`; others override the layer, the block or what happens in training.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (torch's own short name)

from imcsim.errors import ConfigError
from imcsim.quant.layers import QuantizedConv1d, QuantizedConv2d, QuantizedLinear
from imcsim.quant.weights import WeightQuantizer

Role = Literal["quantizer", "optimizer", "training", "distillation", "bit allocation", "schedule", "architecture"]
"""What a paper brings: levels of its own, or a way to find good ones for the levels of others."""


@dataclass(frozen=True, kw_only=True)
class MethodRecord:
    """What is known of a published method; the ids are those of the project's list of papers."""

    id: str
    name: str
    """What users type: short, lower case, words joined by ``-``."""

    title: str
    paper: str
    """Authors, venue, year."""

    weights: str
    """Levels of the weights: ``{-a, 0, +a}``."""

    activations: str
    """Levels of the activations."""

    granularity: str
    """Of the scales of weights / activations: L layer, C output channel, G group of inputs, S spatial, - none."""

    formula: str
    """The forward map, in one or two lines."""

    planes: str
    """Weight planes x activation planes: ``1 x 1``, ``k x k``."""

    n_planes: tuple[int, int]
    """The same at the default options: weight planes and bit-serial activation passes of an inner layer."""

    needs: tuple[str, ...] = ()
    """What the tile or the digital side must offer beside planes, batch norm and thresholds."""

    exact: str = "exact"
    """Whether a chip without clipping gives what the torch module gives; else what differs, and why."""

    role: Role = "quantizer"
    same_as: str | None = None
    """Id of the record that this listing repeats; methods are looked up there."""

    sign_zero: int | None = None
    """Code of an activation of exactly 0; None where there is no sign."""

    pad: int = 0
    """Number that padding brings in."""

    act_scale: Literal["none", "layer", "channel", "sample", "pixel"] = "none"
    rounding: str = "half-even"
    basis: Literal["published", "recalled", "derived"] = "recalled"
    """How well the formula is known: read in the paper or its authors' code, or attributed to it."""

    def to_json(self) -> dict[str, Any]:
        """Return the record as `imcsim quantizer list --json` prints it."""
        record = asdict(self)
        weights, activations = record.pop("weights"), record.pop("activations")
        n_weights, n_activations = record.pop("n_planes")
        traps = {key: record.pop(key) for key in ("sign_zero", "pad", "act_scale", "rounding")}
        record["levels"] = {"weights": weights, "activations": activations}
        record["n_planes"] = {"weights": n_weights, "activations": n_activations}
        record["attributes"] = traps
        return record


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method with its options, which are the fields of the subclass: bits, whether there is a K map.

    A method keeps no state: what training changes lives in the modules that it makes.
    """

    record: ClassVar[MethodRecord]

    takes_teacher: ClassVar[bool] = False
    """Whether `loss` wants a trained float network of the same kind."""

    settles_at: ClassVar[float] = 0.0
    """Share of the training after which what is evaluated is what is deployed; no epoch before that is picked."""

    lowers: ClassVar[bool] = True
    """Whether its networks run on tiles once an activation quantizer is attached."""

    of_network: ClassVar[tuple[str, ...]] = ()
    """Options that the training below reads from the method: no layer can have a value of its own of these."""

    def build(self, network: Callable[["Method"], nn.Module]) -> nn.Module:
        """Return what *network* makes of the layers that it asks the method which it is given for.

        Every network is built by this: where single layers have options of their own (`imcsim.quant.tailored`), layers
        are counted anew for each. Raises ConfigError where the network has not as many.
        """
        return network(self)

    # --- layers -------------------------------------------------------------------------------------------------

    def weights(self) -> WeightQuantizer:
        """Return a fresh quantizer of the weights of one layer."""
        raise NotImplementedError

    def activation(self, n_channels: int) -> nn.Module:
        """Return a fresh quantizer of the inputs of one layer: real numbers (b c ...) to ``scale * codes``."""
        raise NotImplementedError

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution of numbers that `activation` gave; without bias, since a batch norm follows."""
        return QuantizedConv2d(
            n_in,
            n_out,
            kernel,
            stride=stride,
            padding=padding,
            bias=False,
            pad_value=self.record.pad,
            weight_quantizer=self.weights(),
        )

    def conv1d(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution over sequences (b c t), as `conv` does over images.

        Raises ConfigError for a method whose convolutions are layers of its own.
        """
        if type(self).conv is not Method.conv:
            raise ConfigError(
                f"{self.record.name}: a method of convolutions over sequences must bring a quantizer of weights alone, "
                "got layers of its own; take another method, or images of height 1 (conv)"
            )
        return self._conv1d(n_in, n_out, kernel, stride=stride, padding=padding)

    def _conv1d(self, n_in: int, n_out: int, kernel: int, *, stride: int, padding: int) -> QuantizedConv1d:
        return QuantizedConv1d(
            n_in,
            n_out,
            kernel,
            stride=stride,
            padding=padding,
            bias=False,
            pad_value=self.record.pad,
            weight_quantizer=self.weights(),
        )

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer for numbers that `activation` gave; without bias."""
        return QuantizedLinear(n_in, n_out, bias=False, weight_quantizer=self.weights())

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """Return a convolution of real numbers: `activation`, then `conv`."""
        return nn.Sequential(self.activation(n_in), self.conv(n_in, n_out, kernel, stride=stride, padding=padding))

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """Return a linear layer of real numbers: `activation`, then `linear`."""
        return nn.Sequential(self.activation(n_in), self.linear(n_in, n_out))

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """Return one layer of a plain network, real numbers to real numbers about standard: conv, max pool, norm."""
        parts: list[nn.Module] = [self.conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)]
        if pool > 1:
            parts.append(nn.MaxPool2d(pool))
        return nn.Sequential(*parts, nn.BatchNorm2d(n_out))

    # --- training -----------------------------------------------------------------------------------------------

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """Return what moves the parameters."""
        return torch.optim.Adam(network.parameters(), lr=learning_rate)

    def allocate(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Give each layer its bits, from float weights and labelled *images* (b c h w): before `initialise`."""

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """Set what is set once from float weights and some *images* (b c h w), before the first step."""

    def before_step(self, network: nn.Module, progress: float) -> None:
        """Do what is done before each step; *progress* goes from 0 to 1 over the training."""

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """Return the loss of log-probabilities *outputs* (b classes), with the penalties of the method."""
        return F.nll_loss(outputs, labels)

    def after_backward(self, network: nn.Module) -> None:
        """Change the gradients before they are applied."""

    def after_step(self, network: nn.Module) -> None:
        """Do what is done after each step, such as to clip latent weights."""

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """Turn what was trained into what is deployed, with some training *images* where statistics are needed."""

    def restore(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load what was deployed into a fresh *network*; a method whose `deploy` changes layers changes them here."""
        network.load_state_dict(state)

    # --- options ------------------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Return the default of each option."""
        return {field.name: field.default for field in fields(self)}

    def layer_options(self) -> tuple[str, ...]:
        """Return the options of which a layer can have a value of its own."""
        return tuple(name for name in self.options() if name not in self.of_network)

    @classmethod
    def with_options(cls, options: Iterable[str]) -> "Method":
        """Return the method with *options*, each ``key=value``; raises ConfigError for one that it has not."""
        return cls(**cls.values_of(options))

    @classmethod
    def values_of(cls, options: Iterable[str]) -> dict[str, Any]:
        """Return the values of *options*, each ``key=value``; raises ConfigError for one that the method has not."""
        known = {field.name: field for field in fields(cls)}
        values: dict[str, Any] = {}
        for option in options:
            key, equals, text = option.partition("=")
            if key not in known or not equals:
                has = ", ".join(f"{name}={field.default}" for name, field in known.items()) or "none"
                raise ConfigError(f"{cls.record.name}: options are {has}; got {option!r}")
            values[key] = _as_type_of(known[key].default, text, f"{cls.record.name}: {key}")
        return values

    def __str__(self) -> str:
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ":".join([self.record.name, ",".join(changed)]) if changed else self.record.name


def _as_type_of(default: Any, text: str, where: str) -> Any:
    """Return *text* as a value of the type of *default*."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{where}: must be like {default}, got {text!r}") from None
    return text
