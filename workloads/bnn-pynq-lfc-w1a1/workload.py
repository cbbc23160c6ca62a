"""MNIST by BNN-PYNQ's lfcW1A1: four linear layers, binary weights, activations and pixels, integer thresholds.

Source: github.com/Xilinx/BNN-PYNQ @ d39c1c75, bnn/params/mnist/lfcW1A1; licence BSD-3-Clause, (c) 2016 Xilinx. The
weights are read from the folder of models (``bnn-pynq``), not shipped.
"""

from pathlib import Path

import numpy as np

from imcsim.graph import Graph
from imcsim.workloads import module_beside

DESCRIPTION = "MNIST, BNN-PYNQ lfcW1A1: 4 linear layers, binary weights and activations"
DATASET = "MNIST"
PAPERS = ("Umuroglu et al., FINN: A Framework for Fast, Scalable Binarized Neural Network Inference, FPGA 2017",)

reader = module_beside(__file__, "../bnn_pynq.py")


def graph() -> Graph:
    """Return the network, from the folder of models."""
    return reader.lfc("lfcW1A1")


def data(folder: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images as pixels from 0 to 255 (10000 784), and their labels (10000)."""
    return reader.mnist(folder)


def expected(folder: str | Path | None = None) -> np.ndarray:
    """Return the published logits of the first 1 000 test images, int32 (1000 10)."""
    return reader.expected("lfcW1A1_mnist", folder)
