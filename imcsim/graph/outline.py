"""A network written down by its shapes, layer after layer, without a single weight: for time and energy alone.

What is published of a large network is the shape of its layers; its weights are not needed to place it on a chip, to
play it or to estimate it. An `Outline` is told the layers and gives the graph, whose weights have a shape, planes, an
encoding and a share of zeros, and take no memory:

>>> net = Outline("two-layers", (3, 8, 8), weights=Weights(zero_fraction=0.5))
>>> x = net.conv("conv", net.input, 16, 3, padding=1)
>>> x = net.linear("linear", net.flatten("flatten", x), 10, codes=False)
>>> sum(map(net.graph(x).n_macs, net.graph(x).products))
37888
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from imcsim.errors import GraphError
from imcsim.graph.attention import Gelu, LayerNorm, MatMul, Permute, Reshape, Softmax
from imcsim.graph.epilogue import AddChannels, Concat
from imcsim.graph.formats import REAL, Format, unsigned
from imcsim.graph.ir import Graph, Op, Product, Tensor
from imcsim.graph.recurrent import PARTS, GruCell, LstmCell
from imcsim.graph.steps import Add, Affine, AvgPool, Flatten, MaxPool, Quantize, Shape, Step, Threshold
from imcsim.ternary import PlaneSum

MOST_THRESHOLD_BITS = 4
"""Codes of up to so many bits are made by thresholds, as a captured network makes them; wider ones on an even grid."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How the weights of a layer are stored; their entries are not told."""

    zero_fraction: float
    """Share of zeros among the entries of all planes."""

    n_planes: int = 1
    minus: float = 1.0
    """What -1 counts for where +1 counts for 1; other than 1 makes the encoding asymmetric."""


class Outline:
    """Layers that are told one after the other; each call names the tensor it reads and returns the one it makes."""

    def __init__(
        self,
        name: str,
        shape: Shape,
        *,
        weights: Weights,
        activations: Format = unsigned(2),  # noqa: B008  # a frozen value
        input_codes: Format = unsigned(8),  # noqa: B008
    ) -> None:
        """Begin *name* with an input of *shape* (c h w), or (c 1 t) for a sequence.

        Args:
            name: Of the network.
            shape: Of one input, without the batch.
            weights: How the weights of every layer are stored that says nothing else.
            activations: Codes that go from layer to layer.
            input_codes: What the host makes of the input.
        """
        self.name, self.weights, self.activations = name, weights, activations
        self._inputs: tuple[Tensor, ...] = ()
        self._tensors: dict[str, Tensor] = {}
        self._ops: list[Op] = []
        self.input = self._take("x", shape, "input", input_codes)
        """Codes of the input: what the first layer reads."""

    def further_input(self, name: str, shape: Shape, *, codes: Format = unsigned(8)) -> str:  # noqa: B008
        """Return the codes of a further input of *shape*, called *name*."""
        return self._take(f"{name}.x", shape, name, codes)

    def conv(
        self,
        name: str,
        x: str,
        n_outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        add: str | None = None,
        codes: bool = True,
        weights: Weights | None = None,
    ) -> str:
        """Return a convolution of *x* with its batch norm; *groups* of -1: one for each channel (depthwise).

        *add* is a tensor that is added behind the batch norm: the shortcut of a residual block; where it has fewer
        channels, it is added to the first ones. Without *codes* real numbers come out, for whoever adds to them.
        Raises GraphError where *groups* do not divide the inputs, and for a tensor that nothing made.
        """
        n_inputs = self._tensor(name, x).shape[0]
        groups = n_inputs if groups == -1 else groups
        window = (kernel, kernel) if isinstance(kernel, int) else kernel
        if n_inputs % groups:
            raise GraphError(f"{name}: groups must divide the {n_inputs} inputs, got {groups}")
        planes = self._planes((n_outputs, n_inputs // groups, *window), weights)
        product = Product(
            kind="conv2d", weights=planes, stride=(stride, stride), padding=(padding, padding), groups=groups
        )
        return self._add(name, x, product, self._behind(name, n_outputs, add, codes=codes))

    def linear(self, name: str, x: str, n_outputs: int, *, codes: bool = True, weights: Weights | None = None) -> str:
        """Return a linear map of the flat tensor *x*; without *codes* its real numbers, as a last layer gives them."""
        planes = self._planes((n_outputs, *self._tensor(name, x).shape), weights)
        product = Product(kind="linear", weights=planes)
        return self._add(name, x, product, self._behind(name, n_outputs, None, codes=codes))

    def transformer(
        self,
        name: str,
        x: str,
        n_heads: int,
        n_inner: int,
        *,
        norm: Literal["before", "behind"] = "behind",
        weights: Weights | None = None,
    ) -> str:
        """Return a block of attention of *n_heads* and of two maps with *n_inner* channels between, over (c 1 t).

        Each half adds to what it reads, whose numbers stay real between blocks, and has a layer norm behind the sum
        (BERT) or *before* the half (GPT-2, ViT). Chances of attention are codes of 8 bits.
        """
        step = LayerNorm((0,), scale=np.array(2.0))  # a scale, so that its multiply-adds are counted
        before, behind = ((step,), ()) if norm == "before" else ((), (step,))
        codes = self._codes_of(f"{name}.attention.codes", x, before)
        context = self.attention(f"{name}.attention", codes, n_heads, weights=weights)
        middle = self._half(f"{name}.attention.output", context, x, behind, weights)
        codes = self._codes_of(f"{name}.inner.codes", middle, before)
        steps = (Affine(np.array(1.0), np.array(0.0)), Gelu(), quantizer(self.activations))
        inner = self._add(f"{name}.inner", codes, self._map(codes, n_inner, weights), steps)
        return self._half(f"{name}.output", inner, middle, behind, weights)

    def attention(self, name: str, x: str, n_heads: int, *, weights: Weights | None = None) -> str:
        """Return what *n_heads* gather of the codes *x* (c 1 t), each head by its chances, as codes (c 1 t).

        Raises GraphError where *n_heads* do not divide the channels.
        """
        n_channels, _, n_tokens = self._tensor(name, x).shape
        if n_channels % n_heads:
            raise GraphError(f"{name}: n_heads must divide the {n_channels} channels, got {n_heads}")
        codes, chances = quantizer(self.activations), quantizer(unsigned(8))
        heads, turn = Reshape((n_heads, n_channels // n_heads, n_tokens)), Permute((0, 2, 1))
        scale = Affine(np.array(1.0), np.array(0.0))
        key, value, query = (
            self._add(f"{name}.{part}", x, self._map(x, n_channels, weights), (codes, heads, *behind))
            for part, behind in (("key", ()), ("value", ()), ("query", (turn,)))
        )
        found = self._add(f"{name}.chances", query, None, (MatMul(key, n_tokens), scale, Softmax(2), chances))
        gather = MatMul(value, heads.sizes[1], is_transposed=True)
        back = Reshape((n_channels, 1, n_tokens))
        return self._add(f"{name}.context", found, None, (gather, scale, turn, back, codes))

    def _map(self, x: str, n_outputs: int, weights: Weights | None) -> Product:
        """Return a linear map of each token."""
        shape = (n_outputs, self._tensor("map", x).shape[0], 1, 1)
        return Product(kind="conv2d", weights=self._planes(shape, weights))

    def _codes_of(self, name: str, x: str, steps: tuple[Step, ...]) -> str:
        """Return the codes of what *steps* make of *x*; *x* itself where it holds codes already."""
        if not steps and not self._tensor(name, x).format.is_real:
            return x
        return self._add(name, x, None, (*steps, quantizer(self.activations)))

    def _half(self, name: str, x: str, add: str, steps: tuple[Step, ...], weights: Weights | None = None) -> str:
        """Return the map of *x* to the channels of *add*, with *add* and *steps* behind it, as real numbers."""
        other = self._tensor(name, add)
        behind = (Affine(np.array(1.0), np.array(0.0)), Add(add, other.format.scale), *steps)
        return self._add(name, x, self._map(x, other.shape[0], weights), behind)

    def recurrent(
        self, name: str, kind: Literal["lstm", "gru"], x: str, n_hidden: int, *, weights: Weights | None = None
    ) -> str:
        """Return the hidden codes of a recurrent layer over the sequence *x*, in the format of *x*."""
        source = self._tensor(name, x)
        told = weights or self.weights
        if kind == "gru":  # a quarter of its rows and columns meet nothing and hold zeros
            fixed = 1 / PARTS
            told = Weights(
                zero_fraction=fixed + (1 - fixed) * told.zero_fraction, n_planes=told.n_planes, minus=told.minus
            )
        planes = self._planes((PARTS * n_hidden, source.shape[0] + n_hidden), told)
        make = LstmCell if kind == "lstm" else GruCell
        cell = make(np.array(1.0), np.array(0.0), quantizer(source.format))
        return self._add(name, x, Product(kind=kind, weights=planes), (cell,))

    def max_pool(self, name: str, x: str, kernel: int, stride: int, padding: int = 0) -> str:
        """Return the greatest code of each window of *x*."""
        return self._add(name, x, None, (MaxPool((kernel,) * 2, (stride,) * 2, (padding,) * 2),))

    def average_pool(self, name: str, x: str, kernel: int, stride: int, padding: int = 0) -> str:
        """Return the mean of each window of *x*, as codes."""
        pool = AvgPool((kernel,) * 2, (stride,) * 2, (padding,) * 2)
        return self._add(name, x, None, (pool, quantizer(self.activations)))

    def average(self, name: str, x: str) -> str:
        """Return the mean of each channel of *x* over its image, as flat codes (c)."""
        _, height, width = self._tensor(name, x).shape
        pool = AvgPool((height, width), (height, width))
        return self._add(name, x, None, (pool, quantizer(self.activations), Flatten()))

    def flatten(self, name: str, x: str) -> str:
        """Return *x* (c h w) as (c * h * w)."""
        return self._add(name, x, None, (Flatten(),))

    def concat(self, name: str, branches: Sequence[str]) -> str:
        """Return the channels of all *branches*, one behind the other."""
        first, *others = branches
        steps = tuple(Concat(other, self._tensor(name, other).shape[0]) for other in others)
        return self._add(name, first, None, steps)

    def graph(self, *outputs: str) -> Graph:
        """Return the graph, whose outputs are the tensors *outputs*."""
        named = tuple(self._tensor("output", output).name for output in outputs)
        return Graph(name=self.name, inputs=self._inputs, ops=tuple(self._ops), outputs=named)

    def _take(self, name: str, shape: Shape, op: str, codes: Format) -> str:
        if name in self._tensors:
            raise GraphError(f"{self.name}: layers must have different names, got {name!r} twice")
        self._tensors[name] = Tensor(name, shape, REAL)
        self._inputs += (self._tensors[name],)
        return self._add(op, name, None, (quantizer(codes),))

    def _planes(self, shape: Shape, weights: Weights | None) -> PlaneSum:
        told = weights or self.weights
        return PlaneSum.of_shape(
            shape, zero_fraction=told.zero_fraction, of=self.name, n_planes=told.n_planes, minus=told.minus
        )

    def _behind(self, name: str, n_outputs: int, add: str | None, *, codes: bool) -> tuple[Step, ...]:
        """Return batch norm, shortcut and quantizer, joined as `imcsim.graph.passes` joins them."""
        norm = Affine(np.array(1.0), np.array(0.0))
        behind: tuple[Step, ...] = (quantizer(self.activations),) if codes else ()
        if add is None:
            return behind if codes else (norm,)
        other = self._tensor(name, add)
        joined = Add(add, other.format.scale)
        if other.shape[0] != n_outputs:
            joined = AddChannels(add, np.array(other.format.scale))  # type: ignore[assignment]
        return (norm, joined, *behind)

    def _add(self, name: str, x: str, product: Product | None, steps: tuple[Step, ...]) -> str:
        source = self._tensor(name, x)
        if name in self._tensors:
            raise GraphError(f"{self.name}: layers must have different names, got {name!r} twice")
        try:
            shape = product.shape(source.shape) if product is not None else source.shape
            now = REAL if product is not None else source.format
            for step in steps:
                shape = step.shape(shape)
                if isinstance(step, Threshold | Quantize | LstmCell | GruCell):
                    now = step.format
                elif not step.keeps_codes:
                    now = REAL
        except GraphError as error:
            raise GraphError(f"{name}: {error}") from None
        made = Tensor(name, shape, now)
        self._ops.append(Op(name=name, input=x, output=made, product=product, steps=steps))
        self._tensors[name] = made
        return name

    def _tensor(self, reader: str, name: str) -> Tensor:
        if name not in self._tensors:
            raise GraphError(f"{reader}: must read a tensor that was made before, got {name!r}")
        return self._tensors[name]


def quantizer(form: Format) -> Threshold | Quantize:
    """Return what makes codes of *form* of numbers; where the thresholds lie tells neither time nor energy."""
    if form.bits > MOST_THRESHOLD_BITS:
        return Quantize(form)
    codes = np.arange(form.low, form.high + 1, 2 if form.kind == "binary" else 1)
    return Threshold((codes[1:] + codes[:-1])[None] / 2, codes, form)
