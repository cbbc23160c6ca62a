"""A network that is trained for a chip: its quantized layers compute as the tiles of the chip do, clipping and all.

Forward, each layer gives what the engine `execute` gives: the same codes in the same passes, the same blocks of rows, the
same clipped and misread counts. Backward, the gradient is that of the layer as it was written (straight-through), so
every quantizer keeps its own. A batch norm behind a layer sees the clipped sums, in training as at inference, and so
its statistics become those of the chip.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError, DataError, GraphError, ImcsimError
from imcsim.functional.execute import readers
from imcsim.functional.products import packed_weights, product_of
from imcsim.functional.reading import Reader
from imcsim.graph import REAL, Format, Graph, Op, Product
from imcsim.graph import Tensor as Shaped
from imcsim.graph.capture import capture
from imcsim.mapping.place import as_they_are, place

Array = np.ndarray


def for_chip(
    module: nn.Module, chip: Chip, example_input: Tensor, *, rng: np.random.Generator | None = None
) -> nn.Module:
    """Return a copy of *module* whose quantized layers compute as the tiles of *chip* do, ready to be trained.

    The copy has the same layers under the same names. Its ``state_dict()`` loads into *module*, and `capture` takes it
    as it takes *module*.

    Args:
        module: A network that `capture` takes.
        chip: The hardware that the network is trained for.
        example_input: One input (1 ...), by which the network is captured; later inputs may have other sizes.
        rng: Draws the misreads, layer after layer as they are called; a chip that reads right needs none.

    Raises:
        GraphError: The network is not one that a chip can take.
        MappingError: It does not fit the chip.
        ConfigError: The chip misreads and *rng* is None.
    """
    graph = capture(module, example_input)
    plan = place(graph, chip)
    reader_of = readers(plan, rng)
    tuned = copy.deepcopy(module)
    for path, ops in _calls(graph).items():
        formats = {graph.tensors[op.input].format for op in ops}
        if len(formats) > 1:
            found = ", ".join(str(form) for form in formats)
            raise GraphError(f"{path}: must get codes of one format wherever it is called, got {found}")
        layer = tuned.get_submodule(path)
        layer.register_forward_hook(_OnTiles(path, ops[0], formats.pop(), chip, reader_of[ops[0].name]))
    return tuned


def _calls(graph: Graph) -> dict[str, list[Op]]:
    """Return the ops on tiles by the path of their layer; one that is called again has the name ``path#2``."""
    calls: dict[str, list[Op]] = {}
    for op in graph.products:
        calls.setdefault(op.name.partition("#")[0], []).append(op)
    return calls


class _OnTiles:
    """A forward hook that puts what the tiles compute in the place of what a layer has computed."""

    def __init__(self, path: str, op: Op, form: Format, chip: Chip, reader: Reader) -> None:
        self.path, self.op, self.form, self.chip, self.reader = path, op, form, chip, reader

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        try:
            real = self.numbers(layer, inputs[0].detach())
        except ImcsimError as error:
            raise type(error)(f"{self.path}: {error}") from None
        return _StraightThroughTiles.apply(output, real.to(output))

    def numbers(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what the layer gives for *x* (b ch h w) or (b r): scaled sums and bias, float64."""
        product: Product = layer.imc_product()  # type: ignore[operator]  # the weights move from call to call
        sums = self.sums(product, codes_of(x, self.form))
        scale = product.weights.scale.reshape(-1) * self.form.scale
        bias = getattr(layer, "bias", None)
        numbers = scale * sums + (0.0 if bias is None else bias.detach().double().cpu().numpy())
        return torch.from_numpy(np.moveaxis(numbers, -1, 1))

    def sums(self, product: Product, codes: Array) -> Array:
        """Return the sums (b ... c) that the tiles give for *codes* (b ... ch)."""
        shape = (codes.shape[-1], *codes.shape[1:-1])
        source = Shaped("codes", shape, self.form)
        total = Shaped("sums", product.shape(shape), REAL)
        op = replace(self.op, input=source.name, output=total, product=product, steps=())
        graph = Graph(name=op.name, input=source, ops=(op,), output=total.name)
        plan = place(graph, self.chip, policy=as_they_are)
        (layer,) = plan.layers
        return product_of(plan, op, product, layer, codes, packed_weights(plan)[op.name], self.reader)[0]


class _StraightThroughTiles(torch.autograd.Function):
    """Give *real* forward; pass the gradient to *ideal*, as if it had been that."""

    @staticmethod
    def forward(ctx, ideal: Tensor, real: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Return *real*."""
        return real

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        """Return the gradient, unchanged."""
        return grads[0], None


def codes_of(x: Tensor, form: Format) -> Array:
    """Return the codes (b ... ch) of numbers *x* (b ch ...), which are numbers of *form*.

    Raises DataError for what is no number of the format, such as NaN.

    >>> codes_of(torch.tensor([[0.0, 0.5, 1.5]]), Format("unsigned", 2, scale=0.5))
    array([[0, 1, 3]], dtype=int32)
    """
    codes = torch.sign(x) if form.minus != 1 else torch.round(x / form.scale)
    within = (codes >= form.low) & (codes <= form.high)  # NaN is not
    if not bool(within.all()):
        raise DataError(f"input: must be {form} codes times {form.scale:g}, got {x[~within][0].item():g}")
    small = -128 <= form.low and form.high < 128
    return codes.movedim(1, -1).contiguous().to(torch.int8 if small else torch.int32).cpu().numpy()
