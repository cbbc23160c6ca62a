"""CIFAR-10 by BNN-PYNQ's cnvW1A2: binary weights, ternary activations, pixels in 8 bits, integer thresholds.

Source: github.com/Xilinx/BNN-PYNQ @ d39c1c75, bnn/params/cifar10/cnvW1A2; licence BSD-3-Clause, (c) 2016 Xilinx. The
weights are read from the folder of models (``bnn-pynq``), not shipped.
"""

from pathlib import Path

import numpy as np

from imcsim.graph import Graph
from imcsim.workloads import module_beside

DESCRIPTION = "CIFAR-10, BNN-PYNQ cnvW1A2: 6 convolutions and 3 linear layers, binary weights, ternary activations"
DATASET = "CIFAR-10"
PAPERS = ("Umuroglu et al., FINN: A Framework for Fast, Scalable Binarized Neural Network Inference, FPGA 2017",)
EIGHT_BIT_LAYERS = "conv1 takes 8-bit signed pixels (weights binary); every other layer takes ternary activations"

reader = module_beside(__file__, "../bnn_pynq.py")


def graph() -> Graph:
    """Return the network, from the folder of models."""
    return reader.cnv("cnvW1A2")


def data(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images as codes from -128 to 127 (n 3 32 32), and their labels (n)."""
    return reader.cifar10(folder)


def expected(folder: str | Path | None = None) -> np.ndarray:
    """Return the published logits of the first 1 000 test images, int32 (1000 10)."""
    return reader.expected("cnvW1A2_cifar10", folder)
