"""What a torch module must offer for `imcsim.graph.capture` to keep it whole. Needs no torch.

A quantized layer is any module with the methods of one of these protocols. Whatever else it does to train (gradients,
latent weights, noise) is its own affair: these methods say what it computes at inference.
"""

from typing import Protocol, runtime_checkable

from imcsim.graph.ir import Product
from imcsim.graph.recurrent import Cell, Embedding
from imcsim.graph.steps import Quantize, Step, Threshold


@runtime_checkable
class QuantizedProduct(Protocol):
    """A convolution or linear layer whose weights are planes.

    The layer computes ``product(x)``, where ``weights.scale`` and an optional ``bias`` attribute (a parameter of one
    number per output, or None) apply to the sum as usual. One that holds several kernels (`Product.n_experts`) is
    called with a second tensor, which an `ArgMax` made: the kernel of each sample.
    """

    def imc_product(self) -> Product:
        """Return the layer as a `Product`; its weights' scale is one number or one per output channel."""
        ...


@runtime_checkable
class QuantizedActivation(Protocol):
    """An activation function that gives codes, or a table of codes for tokens."""

    def imc_quantizer(self) -> Threshold | Quantize | Embedding:
        """Return the activation as a step from real numbers to codes; its format's scale is what code 1 stands for."""
        ...


@runtime_checkable
class DigitalLayer(Protocol):
    """A layer of the digital side that torch's own modules do not tell: a mix of channels, a layer of real weights."""

    def imc_steps(self) -> tuple[Step, ...]:
        """Return the steps, one after the other; each reads what the one before gives and no other tensor."""
        ...


@runtime_checkable
class QuantizedRecurrence(Protocol):
    """A recurrent layer: (b i 1 t) to (b h 1 t), step by step in time, from a state of 0."""

    def imc_recurrence(self) -> tuple[Product, Cell]:
        """Return the product of one time step and the cell that follows it.

        The cell's scale holds that of the weights and that of the codes; its codes have the format of the input's.
        """
        ...
