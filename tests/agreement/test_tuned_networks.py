"""Networks for a chip, as torch modules: against the functional engine, and against counting one product at a time.

They share with the engine how a layer's blocks are read; the graph around it, the folding of batch norms and the
digital steps they do not share: here torch computes those, in double precision. The last test shares nothing.
"""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TIM_DNN, seeds, variant
from test_torch import networks, outputs_and_margins
from torch import nn

import imcsim
from imcsim.functional.execute import run
from imcsim.quant import (
    IntConv2d,
    SignActivation,
    SignedActivation,
    TernaryActivation,
    TernaryConv2d,
    UnsignedActivation,
)


@st.composite
def clipping_chips(draw):
    return variant(
        TIM_DNN,
        {
            "n_tiles": 4,
            "tile.rows_per_access": draw(st.sampled_from([16, 32, 8, 4, 2])),
            "tile.count_max": draw(st.sampled_from([1, 2, 3, 4, 8, 32])),
            "tile.serial": draw(st.sampled_from(["bit", "trit"])),
            "tile.sense": draw(st.sampled_from(["both", "n"])),
        },
    )


@settings(max_examples=20)
@given(networks(), clipping_chips(), seeds())
def test_a_network_for_a_chip_gives_what_the_engine_gives(drawn, chip, seed):
    net, shape = drawn
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, *shape)))
    outputs, margins = outputs_and_margins(imcsim.for_chip(net, chip, x[:1]), x)
    found = run(imcsim.place(imcsim.capture(net, x[:1]), chip), x).outputs
    told = margins > 1e-6  # nearer to a threshold the last bit decides
    np.testing.assert_allclose(outputs[told], found[told], rtol=1e-9, atol=1e-9)


@st.composite
def layers(draw):
    """One activation and one convolution on its codes, a factor for each pass, and the shape of the input."""
    torch.manual_seed(draw(seeds()))
    activation, factors = draw(
        st.sampled_from(
            [
                (TernaryActivation(0.4), [1]),
                (SignActivation(), [1]),
                (UnsignedActivation(2, scale=0.25), [1, 2]),
                (UnsignedActivation(5, scale=0.125), [1, 2, 4, 8, 16]),
                (SignedActivation(3, scale=0.5), [1, 2]),
            ]
        )
    )
    groups = draw(st.sampled_from([1, 2]))
    kind, options = draw(st.sampled_from([(TernaryConv2d, {}), (IntConv2d, {"bits": 3})]))
    conv = kind(
        groups * draw(st.integers(1, 4)),
        groups * draw(st.integers(1, 3)),
        (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
        padding=(draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        per_channel=draw(st.booleans()),
        bias=False,
        **options,
    )
    return activation, factors, conv


def counted_by_hand(codes, weights, conv, factors, rows_per_access, count_max):
    """Sums (b c h w) of one layer: pass by pass, plane by plane, each block of each window by itself."""
    bits = np.arange(len(factors)).reshape(-1, *(1,) * codes.ndim)
    passes = np.sign(codes) * (np.abs(codes) >> bits & 1) if len(factors) > 1 else codes[None]
    n_planes = max(1, int(np.abs(weights).max()).bit_length())
    (sy, sx), (py, px), (dy, dx) = conv.stride, conv.padding, conv.dilation
    n_out, per_group, kh, kw = weights.shape
    padded = np.pad(passes, ((0, 0), (0, 0), (0, 0), (py, py), (px, px)))
    height = (padded.shape[3] - dy * (kh - 1) - 1) // sy + 1
    width = (padded.shape[4] - dx * (kw - 1) - 1) // sx + 1
    sums = np.zeros((codes.shape[0], n_out, height, width), int)
    for c in range(n_out):
        first = c // (n_out // conv.groups) * per_group
        rows = [(i, j, ch) for i in range(kh) for j in range(kw) for ch in range(per_group)]
        for y in range(height):
            for x in range(width):
                for p, factor in enumerate(factors):
                    seen = padded[p, :, :, y * sy :, x * sx :]
                    for bit in range(n_planes):
                        plane = np.sign(weights[c]) * (np.abs(weights[c]) >> bit & 1)
                        for start in range(0, len(rows), rows_per_access):
                            block = rows[start : start + rows_per_access]
                            products = np.array([seen[:, first + ch, i * dy, j * dx] * plane[ch, i, j]
                                                 for i, j, ch in block])  # fmt: skip
                            n, k = (products == 1).sum(axis=0), (products == -1).sum(axis=0)
                            read = np.minimum(n, count_max) - np.minimum(k, count_max)
                            sums[:, c, y, x] += factor * 2**bit * read
    return sums


@settings(max_examples=25)
@given(layers(), st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(1, 5), seeds())
def test_a_layer_for_a_chip_counts_as_one_counts_by_hand(drawn, rows_per_access, count_max, seed):
    activation, factors, conv = drawn
    chip = variant(TIM_DNN, {"tile.rows_per_access": rows_per_access, "tile.count_max": count_max})
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, conv.in_channels, 5, 5)))
    net = nn.Sequential(activation, conv).double()
    with torch.no_grad():
        found = imcsim.for_chip(net, chip, x[:1])(x)
        codes = activation(x) / (1 if len(factors) == 1 else activation.format.scale)
        weights, scale = conv.checked_codes()
    sums = counted_by_hand(codes.numpy().astype(int), weights.numpy(), conv, factors, rows_per_access, count_max)
    unit = scale.reshape(-1, 1, 1).numpy() * (1 if len(factors) == 1 else activation.format.scale)
    np.testing.assert_allclose(found.numpy(), sums * unit, rtol=1e-12, atol=1e-300)
