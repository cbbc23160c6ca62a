"""A network that is trained for a chip: its quantized layers compute as the tiles of the chip do, clipping and all.

Forward, each layer gives what `imcsim.execute` gives: the same codes in the same passes, the same blocks of rows, the
same clipped and misread counts, in training as in evaluation. Backward, the gradient is that of the layer as its author
wrote it, as if nothing had clipped (straight-through), so every quantizer keeps its own. A batch norm behind a layer
sees the sums of the tiles, and so its statistics become those of the chip while the network is in training mode.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from imcsim.arch.spec import Chip
from imcsim.errors import ConfigError, DataError, GraphError, ImcsimError
from imcsim.functional.execute import readers
from imcsim.functional.products import packed_weights, product_of
from imcsim.functional.reading import Reader
from imcsim.graph import REAL, Format, Graph, Op, Product, QuantizedProduct
from imcsim.graph import Tensor as Shaped
from imcsim.graph.capture import capture
from imcsim.mapping.place import as_they_are, place

Array = np.ndarray


def for_chip(
    module: nn.Module, chip: Chip, example_input: Tensor, *, rng: np.random.Generator | None = None
) -> nn.Module:
    """Return a copy of *module* whose quantized layers compute as the tiles of *chip* do, to be trained or measured.

    The copy has the same layers under the same names: its ``state_dict()`` loads into *module*, and
    `imcsim.capture` and `imcsim.quant.packed_state` take it as they take *module*.

    Args:
        module: A network that `imcsim.capture` takes, such as one of layers of `imcsim.quant`.
        chip: The hardware that the network is trained for.
        example_input: One input (1 ...), by which the network is captured; later inputs may be of other sizes.
        rng: Draws the misreads, from one layer to the next as they are called; a chip that reads right needs none.
            Up to 32 samples at a time misread as in `imcsim.execute` with the same generator.

    Raises:
        GraphError: The network is not one that a chip can take.
        MappingError: One of its layers does not fit the tiles.
        ConfigError: The chip misreads, and *rng* is None; or its cells, ADCs or devices differ between instances.

    A call of the copy raises GraphError or DataError, with the layer's name, for weights or inputs that are no numbers.
    """
    if chip.tile.has_faults:
        raise ConfigError(
            "for_chip: must get a chip without stuck cells, deviating ADCs and resistive devices, which differ between "
            f"instances, got {chip.name} with some; train with misreads or noise in their place"
        )
    graph = capture(module, example_input)
    reader_of = readers(place(graph, chip), rng)
    tuned = copy.deepcopy(module)
    for path, calls in _calls_of(graph).items():
        formats = {graph.tensors[op.input].format for op in calls}
        if len(formats) > 1:
            found = ", ".join(sorted(f"{form} times {form.scale:g}" for form in formats))
            raise GraphError(f"{path}: must get codes of one format wherever it is called, got {found}")
        layer = tuned.get_submodule(path)
        layer.register_forward_hook(_OnTiles(path, formats.pop(), chip, reader_of[calls[0].name]))
    return tuned


def codes_of(x: Tensor, form: Format) -> Array:
    """Return the codes (b ... ch) behind *x* (b ch ...), numbers of the format *form*; channels last.

    Raises DataError for numbers outside the format, such as NaN.

    >>> codes_of(torch.tensor([[0.0, 0.5, 1.5]]), Format("unsigned", 2, scale=0.5))
    array([[0, 1, 3]], dtype=int8)
    """
    codes = torch.sign(x) if form.minus != 1 else torch.round(x / form.scale)
    if codes.numel():
        least, greatest = (each.item() for each in torch.aminmax(codes))
        if not form.low <= least <= greatest <= form.high:  # NaN is not
            found = x[~((codes >= form.low) & (codes <= form.high))][0].item()
            raise DataError(f"input: must be {form} codes times {form.scale:g}, got {found:g}")
    is_small = form.low >= -128 and form.high < 128
    return codes.movedim(1, -1).to(torch.int8 if is_small else torch.int32).contiguous().cpu().numpy()


class _OnTiles:
    """A forward hook that puts what the tiles compute in the place of what a layer has computed.

    A hook, so that the layer stays what it was: its class, its parameters and their names, its gradient.
    """

    def __init__(self, path: str, form: Format, chip: Chip, reader: Reader) -> None:
        self.path, self.form, self.chip, self.reader = path, form, chip, reader

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        try:
            real = self._numbers(layer, inputs[0].detach())
        except ImcsimError as error:
            raise type(error)(f"{self.path}: {error}") from None
        found: Tensor = _StraightThroughTiles.apply(output, real.to(output))
        return found

    def _numbers(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what the layer gives for *x*, the scale and the bias as the digital side applies them; float64."""
        assert isinstance(layer, QuantizedProduct)
        product = layer.imc_product()  # anew in every call: training moves the weights
        scale = product.weights.scale.reshape(-1) * self.form.scale
        bias = getattr(layer, "bias", None)
        offset = 0.0 if bias is None else bias.detach().double().cpu().numpy()
        return torch.from_numpy(np.moveaxis(scale * self._sums(product, codes_of(x, self.form)) + offset, -1, 1))

    def _sums(self, product: Product, codes: Array) -> Array:
        """Return the sums (b ... c) of the tiles for *codes* (b ... ch), by a graph of this layer alone."""
        shape = (codes.shape[-1], *codes.shape[1:-1])
        op = Op(name=self.path, input="codes", output=Shaped("sums", product.shape(shape), REAL), product=product)
        graph = Graph(name=self.path, inputs=(Shaped("codes", shape, self.form),), ops=(op,), outputs=("sums",))
        plan = place(graph, self.chip, policy=as_they_are)
        weights = packed_weights(plan)[self.path]
        return product_of(plan, op, product, plan.layers[0], codes, weights, self.reader, looks=False).sums


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


def _calls_of(graph: Graph) -> dict[str, list[Op]]:
    """Return the ops on tiles by the path of their layer; one that is called again has the name ``path#2``."""
    calls: dict[str, list[Op]] = {}
    for op in graph.products:
        calls.setdefault(op.name.partition("#")[0], []).append(op)
    return calls
