"""Spoken digits by a small network of ternary weights and activations: a convolution over time, a GRU, ten scores.

The Free Spoken Digit Dataset (six speakers, 8 kHz) as log-mel energies in 8 bits. Ternary weights follow Li et al.,
"Ternary Weight Networks", 2016; ternary hidden states follow HitNet (Wang et al., NeurIPS 2018, recalled). The
scores of all time steps are averaged. Trained by ``train.py`` beside this file.
"""

from collections import OrderedDict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.fft import rfft
from scipy.signal.windows import hann
from torch import Tensor, nn

from imcsim.data import load_spoken_digits
from imcsim.quant import InputQuantizer, TernaryActivation, TernaryConv2d, TernaryGRU, load_packed

DESCRIPTION = "Spoken digits (FSDD), a convolution over time and a GRU of 128 units, ternary weights and activations"
DATASET = "Free Spoken Digit Dataset"
PAPERS = (
    "Li, Zhang, Liu, Ternary Weight Networks, 2016, arXiv:1605.04711",
    "Wang et al., HitNet: Hybrid Ternary Recurrent Neural Network, NeurIPS 2018 (recalled)",
)
EIGHT_BIT_LAYERS = "conv takes 8-bit log-mel energies (weights ternary); every other layer takes ternary activations"
WEIGHTS = Path(__file__).with_name("weights.safetensors")

RATE_HZ = 8000
WINDOW = 256
"""Samples of a frame: 32 ms."""

HOP = 128
"""Samples from one frame to the next: 16 ms."""

N_FFT = 512
N_BANDS = 32
N_FRAMES = 48
"""Frames that the network takes: 0.78 s; longer recordings (4 % of them) are cut, shorter ones filled with silence."""

RANGE_DB = 60.0
"""What lies so far below the loudest band of a recording counts as silence."""

N_CHANNELS = 96
N_HIDDEN = 128
DELTA = 0.625
"""Threshold of the ternary activations in front of the GRU; on standard normal numbers it makes 47 % zeros."""


def build() -> nn.Module:
    """Return the trained network in eval mode; it gives log-probabilities (b 10)."""
    net = network()
    load_packed(net, load_file(WEIGHTS), where=str(WEIGHTS))
    return net.eval()


def example_input() -> Tensor:
    """Return one recording as the network takes it: (1 32 1 48), float32, from 0 to below 1."""
    ramp = torch.arange(N_BANDS * N_FRAMES, dtype=torch.float32) % 256
    return (ramp / 256).reshape(1, N_BANDS, 1, N_FRAMES)


def data(folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the test set: features (300 32 1 48) as the network takes them, and labels (300)."""
    return split("test", folder)


def split(name: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the ``train`` or ``test`` recordings as the network takes them, and their labels."""
    recordings, labels = load_spoken_digits(name, folder)  # type: ignore[arg-type]
    return torch.from_numpy(np.stack([features(samples) for samples in recordings])), torch.from_numpy(labels)


def features(samples: np.ndarray) -> np.ndarray:
    """Return the log-mel energies of a recording (n): float32 (32 1 48), 0 for silence, just below 1 for the loudest.

    Hann windows of 32 ms every 16 ms, power spectrum, 32 triangles even on the mel scale, decibels below the loudest.
    """
    padded = np.pad(samples.astype(np.float64), (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:N_FRAMES]  # frames samples
    power = np.abs(rfft(frames * hann(WINDOW), N_FFT)) ** 2  # frames bins
    energies = mel_bands() @ power.T
    level = 10 * np.log10(np.maximum(energies, 1e-12) / max(float(energies.max()), 1e-12))
    scaled = np.clip(1 + level / RANGE_DB, 0, 1) * (255 / 256)
    filled = np.zeros((N_BANDS, 1, N_FRAMES), np.float32)
    filled[:, 0, : scaled.shape[1]] = scaled
    return filled


@cache
def mel_bands() -> np.ndarray:
    """Return the filter bank (bands bins): triangles of height 1 whose corners are even in mel from 60 Hz to 4 kHz.

    mel = 2595 log10(1 + f / 700 Hz) (O'Shaughnessy's formula).
    """
    mel = np.linspace(*2595 * np.log10(1 + np.array([60.0, RATE_HZ / 2]) / 700), N_BANDS + 2)
    corners = 700 * (10 ** (mel / 2595) - 1)
    low, middle, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    bins = np.arange(N_FFT // 2 + 1) * RATE_HZ / N_FFT
    return np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))


def network() -> nn.Sequential:
    """Return the network with fresh weights."""
    layers = OrderedDict(
        features=InputQuantizer(8),
        # (32 1 48)
        conv=TernaryConv2d(N_BANDS, N_CHANNELS, (1, 3), padding=(0, 1), bias=False),
        norm=nn.BatchNorm2d(N_CHANNELS),
        act=TernaryActivation(DELTA),
        # (96 1 48)
        gru=TernaryGRU(N_CHANNELS, N_HIDDEN),
        # (128 1 48)
        scores=TernaryConv2d(N_HIDDEN, 10, 1, bias=False),
        mean=nn.AvgPool2d((1, N_FRAMES)),
        flatten=nn.Flatten(),
        norm2=nn.BatchNorm1d(10),
        log_softmax=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)


class FloatGRU(nn.GRU):
    """`torch.nn.GRU` on sequences (b i 1 t)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Return the hidden states (b h 1 t)."""
        y, _ = super().forward(x.squeeze(2).permute(2, 0, 1))
        return y.permute(1, 2, 0).unsqueeze(2)


def float_network() -> nn.Sequential:
    """Return the same network in plain float32, for comparison: tanh in place of the ternary activation."""
    layers = OrderedDict(
        conv=nn.Conv2d(N_BANDS, N_CHANNELS, (1, 3), padding=(0, 1), bias=False),
        norm=nn.BatchNorm2d(N_CHANNELS),
        act=nn.Tanh(),
        gru=FloatGRU(N_CHANNELS, N_HIDDEN),
        scores=nn.Conv2d(N_HIDDEN, 10, 1, bias=False),
        mean=nn.AvgPool2d((1, N_FRAMES)),
        flatten=nn.Flatten(),
        norm2=nn.BatchNorm1d(10),
        log_softmax=nn.LogSoftmax(dim=1),
    )
    return nn.Sequential(layers)
