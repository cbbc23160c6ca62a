"""Methods some of whose layers have options of their own: ``lsq:bits_a=2,3.bits_a=8``.

A network asks its method for layers by `Method.block`, `Method.conv_layer` and `Method.linear_layer`. The first that it
asks for is layer 1, whatever layers that one is made of; the 8-bit layers at both ends, which no method makes, do not
count. A layer with options of its own is what the same method with those options makes. What the method does in
training is the same for the whole network, so an option that training reads from the method is no layer's.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from imcsim.errors import ConfigError
from imcsim.quant.method import Method
from imcsim.quant.weights import WeightQuantizer


@dataclass(frozen=True)
class LayerOption:
    """An option of a single layer; its text is ``3.bits_a=8``."""

    number: int
    """Of the layer, from 1."""

    name: str
    value: Any

    def __str__(self) -> str:
        return f"{self.number}.{self.name}={self.value}"


def layer_and_option(key: str) -> tuple[int | None, str]:
    """Return the layer that the option *key* is of, None for that of all layers, and its name.

    Raises ConfigError for a layer that is no whole number from 1 up.

    >>> layer_and_option("3.bits_a"), layer_and_option("bits_a")
    ((3, 'bits_a'), (None, 'bits_a'))
    """
    layer, dot, name = key.rpartition(".")
    if not dot:
        return None, name
    if not (layer.isascii() and layer.isdigit()) or layer.startswith("0"):
        raise ConfigError(f"{key}: the layer must be a whole number from 1 up, got {layer!r}")
    return int(layer), name


def method_with(kind: type[Method], options: Sequence[str]) -> Method:
    """Return the method *kind* with *options*, each ``name=value``, or ``3.name=value`` for the third layer alone.

    Raises ConfigError for an option that the method, or a layer of it, has not.
    """
    of_all: list[str] = []
    by_layer: dict[int, list[str]] = defaultdict(list)
    for option in options:
        key, equals, value = option.partition("=")
        number, name = layer_and_option(key)
        (of_all if number is None else by_layer[number]).append(f"{name}{equals}{value}")
    base = kind.with_options(of_all)
    if not by_layer:
        return base
    own: list[LayerOption] = []
    for number in sorted(by_layer):
        values = kind.values_of(by_layer[number])
        own += [LayerOption(number, name, values[name]) for name in base.options() if name in values]
    return Tailored(base=base, own=tuple(own))


@dataclass(frozen=True, kw_only=True)
class Tailored(Method):
    """A method of which some layers have options of their own; in training it is the method."""

    base: Method
    """The method, with the options of all other layers."""

    own: tuple[LayerOption, ...]
    """Ordered by layer, then as the options of the method are."""

    def __post_init__(self) -> None:
        for name in ("record", "takes_teacher", "settles_at", "lowers", "of_network"):
            object.__setattr__(self, name, getattr(self.base, name))  # what the class of the method says
        for option in self.own:
            if option.name in self.of_network:
                has = ", ".join(self.base.layer_options()) or "none"
                raise ConfigError(
                    f"{self.record.name}: options of single layers are {has}, since training reads the others from "
                    f"the method; got '{option}'"
                )
        assert self.methods  # raises for values that the method does not take

    @cached_property
    def methods(self) -> Mapping[int, Method]:
        """The method of each layer with options of its own, by number."""
        by_layer: dict[int, dict[str, Any]] = defaultdict(dict)
        for option in self.own:
            by_layer[option.number][option.name] = option.value
        methods: dict[int, Method] = {}
        for number, options in by_layer.items():
            try:
                methods[number] = replace(self.base, **options)
            except ConfigError as error:
                raise ConfigError(f"{error}; in layer {number}") from None
        return methods

    def build(self, network: Callable[[Method], nn.Module]) -> nn.Module:
        """Return what *network* makes. Raises ConfigError for a layer that it did not ask for."""
        counting = _Counting(base=self.base, own=self.own)
        made = network(counting)
        n_layers, most = len(counting.asked), max(self.methods)
        if most > n_layers:
            raise ConfigError(
                f"{self}: layers must be among the {n_layers} that the network asks a method for, got {most}"
            )
        return made

    def options(self) -> dict[str, Any]:
        """The options of the method."""
        return self.base.options()

    def __str__(self) -> str:
        text = str(self.base)
        return f"{text}{',' if ':' in text else ':'}{','.join(map(str, self.own))}"

    # --- layers -------------------------------------------------------------------------------------------------

    def weights(self) -> WeightQuantizer:
        """Those of layers without options of their own, as they are where layers are not counted."""
        return self.base.weights()

    def activation(self, n_channels: int) -> nn.Module:
        """As `weights`."""
        return self.base.activation(n_channels)

    def conv(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """As `weights`."""
        return self.base.conv(n_in, n_out, kernel, stride=stride, padding=padding)

    def conv1d(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """As `weights`."""
        return self.base.conv1d(n_in, n_out, kernel, stride=stride, padding=padding)

    def linear(self, n_in: int, n_out: int) -> nn.Module:
        """As `weights`."""
        return self.base.linear(n_in, n_out)

    def conv_layer(self, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0) -> nn.Module:
        """A layer that is counted."""
        return self._next().conv_layer(n_in, n_out, kernel, stride=stride, padding=padding)

    def linear_layer(self, n_in: int, n_out: int) -> nn.Module:
        """A layer that is counted."""
        return self._next().linear_layer(n_in, n_out)

    def block(
        self, n_in: int, n_out: int, kernel: int = 3, *, stride: int = 1, padding: int = 1, pool: int = 1
    ) -> nn.Module:
        """A layer that is counted."""
        return self._next().block(n_in, n_out, kernel, stride=stride, padding=padding, pool=pool)

    def _next(self) -> Method:
        """Return the method of the layer that is asked for next, which only a network under construction knows."""
        raise ConfigError(
            f"{self}: must build the networks whose layers it counts, got one that takes layers by itself; write "
            "method.build(network)"
        )

    # --- training -----------------------------------------------------------------------------------------------

    def optimizer(self, network: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        """That of the method, and so on."""
        return self.base.optimizer(network, learning_rate)

    def allocate(self, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        """As the method."""
        self.base.allocate(network, images, labels)

    def initialise(self, network: nn.Module, images: Tensor) -> None:
        """As the method."""
        self.base.initialise(network, images)

    def before_step(self, network: nn.Module, progress: float) -> None:
        """As the method."""
        self.base.before_step(network, progress)

    def loss(
        self, network: nn.Module, images: Tensor, outputs: Tensor, labels: Tensor, teacher: nn.Module | None
    ) -> Tensor:
        """As the method."""
        return self.base.loss(network, images, outputs, labels, teacher)

    def after_backward(self, network: nn.Module) -> None:
        """As the method."""
        self.base.after_backward(network)

    def after_step(self, network: nn.Module) -> None:
        """As the method."""
        self.base.after_step(network)

    def deploy(self, network: nn.Module, images: Tensor) -> None:
        """As the method."""
        self.base.deploy(network, images)

    def restore(self, network: nn.Module, state: Mapping[str, Tensor]) -> None:
        """As the method."""
        self.base.restore(network, state)


@dataclass(frozen=True, kw_only=True)
class _Counting(Tailored):
    """The method of one network under construction, which counts the layers that the network asks for."""

    asked: list[Method] = field(default_factory=list, compare=False)
    """The methods of the layers so far."""

    def build(self, network: Callable[[Method], nn.Module]) -> nn.Module:
        """Return a part of the network under construction."""
        return network(self)

    def _next(self) -> Method:
        self.asked.append(self.methods.get(len(self.asked) + 1, self.base))
        return self.asked[-1]
