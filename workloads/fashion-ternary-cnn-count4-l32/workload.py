"""The network of fashion-ternary-cnn, trained on for a chip that clips hard: counts up to 4, blocks of 32 rows.

Layers, data and delta are those of ``../fashion-ternary-cnn``; only the weights and the statistics of the batch norms
differ. ``train.py`` beside this file trained them with the tiles' behaviour in the forward pass (`imcsim.for_chip`);
``control.safetensors`` holds what the same training gave without it.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from imcsim.quant import load_packed
from imcsim.workloads import module_beside

_plain = module_beside(__file__, "../fashion-ternary-cnn/workload.py")

DESCRIPTION = "fashion-ternary-cnn, trained on for tim-dnn with tile.count_max=4 and tile.rows_per_access=32"
DATASET = "Fashion-MNIST"
PAPERS = _plain.PAPERS
EIGHT_BIT_LAYERS = _plain.EIGHT_BIT_LAYERS
WEIGHTS = Path(__file__).with_name("weights.safetensors")
CONTROL = Path(__file__).with_name("control.safetensors")

CHIP = "tim-dnn"
CHANGES = {"tile.count_max": 4, "tile.rows_per_access": 32}
"""The chip that the network was trained for."""

example_input = _plain.example_input
data = _plain.data
split = _plain.split
network = _plain.network


def start() -> nn.Module:
    """Return the network that training started from: fashion-ternary-cnn as it ships, in eval mode."""
    net: nn.Module = _plain.build()
    return net


def build() -> nn.Module:
    """Return the network trained for the chip, in eval mode; it gives log-probabilities (b 10)."""
    return _filled(WEIGHTS)


def control() -> nn.Module:
    """Return the network trained on for as long without the tiles' behaviour, in eval mode."""
    return _filled(CONTROL)


def _filled(path: Path) -> nn.Module:
    net: nn.Module = network()
    load_packed(net, load_file(path), where=str(path))
    return net.eval()
