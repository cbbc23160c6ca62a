"""The counts of a tile as products of matrices in torch, for GPUs: the bits of `kernels`, by other means.

A packed byte holds four rows: which of them are +1, which are -1. Its eight bits, as numbers, are eight rows of a
matrix; their product with the bits of the weights is n, and with the halves of the weights' bytes exchanged it is k.
All numbers on the way are whole, and so small that their type holds them exactly, in whatever order a GPU adds them
(TF32 and float16 sums included). Nothing stays on the device but packed weights; vectors and blocks go through in
parts, so that memory is bounded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcsim.functional.kernels import ClippedCounts, ClippedProduct
from imcsim.ternary.packing import ROWS_PER_QUAD, PackedMatrix, PackedVectors

MOST_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Numbers of one matrix that are there at a time, unless one block of one vector has more."""

TALL = 512
"""Quads of a block where nothing clips and it does not matter where blocks end: 2048 rows, exact in float16."""

BITS = 8
"""Rows that one byte becomes: four of +1s, four of -1s."""


def n_gpus() -> int:
    """Return how many GPUs torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def whole_type(bound: int, device: str) -> torch.dtype:
    """Return the quickest type of *device* that holds every whole number up to *bound*."""
    if device.startswith("cuda") and bound <= 1 << 11:
        return torch.float16
    return torch.float32 if bound <= 1 << 24 else torch.float64


@dataclass(frozen=True, eq=False)
class TorchKernels:
    """Counts on one device of torch, such as "cpu" or "cuda:0"; see `device.Counting`."""

    device: str
    most_numbers: int | None = None
    """Numbers that are there at a time; None for those of `MOST_NUMBERS`."""

    _weights: "WeakKeyDictionary[PackedMatrix, Tensor]" = field(default_factory=WeakKeyDictionary)
    """Packed weights on the device (quads c), as long as somebody holds them here."""

    def clipped_product(
        self, x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256
    ) -> ClippedProduct:
        """Do what `kernels.clipped_product` does."""
        if not _cannot_clip(x, count_max):
            sums, clips = self._sums(x, w, count_max, columns_per_tile)
            return ClippedProduct((sums[0] - sums[1]).cpu().numpy(), *clips)
        total = torch.zeros(x.n_vectors, w.n_columns, dtype=torch.int32, device=self.device)
        for codes, weights, vectors in self._parts(x, w, TALL):  # one product of -1s and +1s will do
            digits = whole_type(ROWS_PER_QUAD * codes.shape[2], self.device)
            difference = torch.bmm(_signed(codes, digits), _signed(weights.mT, digits).mT)  # g b c
            total[vectors] += _sum_of_blocks(difference, x.n_rows)
        return ClippedProduct(total.cpu().numpy(), 0, 0)

    def clipped_counts(
        self, x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256
    ) -> ClippedCounts:
        """Do what `kernels.clipped_counts` does."""
        sums, clips = self._sums(x, w, count_max, columns_per_tile)
        plus, minus = sums.cpu().numpy()
        return ClippedCounts(plus, minus, *clips)

    def count_histograms(self, x: PackedVectors, w: PackedMatrix) -> NDArray[np.int64]:
        """Do what `kernels.count_histograms` does."""
        found = torch.zeros(2, x.rows_per_access + 1, dtype=torch.int64, device=self.device)
        for counts, _ in self._counts(x, w, x.quads_per_block):
            for side in range(2):
                found[side] += torch.bincount(counts[:, :, side].reshape(-1).long(), minlength=found.shape[1])
        return found.cpu().numpy()

    def _sums(
        self, x: PackedVectors, w: PackedMatrix, count_max: int, columns_per_tile: int
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return the sums of the clipped n and k (2 b c), int32, and the clipped accesses and conversions."""
        sums = torch.zeros(2, x.n_vectors, w.n_columns, dtype=torch.int32, device=self.device)
        clips = torch.zeros(2, dtype=torch.int64, device=self.device)  # fetched once, since fetching waits
        may_clip = not _cannot_clip(x, count_max)
        for counts, vectors in self._counts(x, w, x.quads_per_block if may_clip else TALL):
            if may_clip:
                above = torch.maximum(counts[:, :, 0], counts[:, :, 1]) > count_max  # g b c
                for tile in above.split(columns_per_tile, dim=2):
                    clips[0] += tile.any(dim=2).sum()
                clips[1] += above.sum()
                counts.clamp_(max=count_max)
            sums[:, vectors] += _sum_of_blocks(counts, x.n_rows).transpose(0, 1)
        n_accesses, n_conversions = clips.tolist()
        return sums, (n_accesses, n_conversions)

    def _counts(self, x: PackedVectors, w: PackedMatrix, quads_per_block: int) -> Iterator[tuple[Tensor, slice]]:
        """Yield n and k (g b 2 c) of some blocks and some vectors, and which vectors."""
        for codes, weights, vectors in self._parts(x, w, quads_per_block):
            digits = whole_type(ROWS_PER_QUAD * codes.shape[2], self.device)
            both = torch.cat([weights, (weights >> 4) | ((weights & 15) << 4)], dim=2)  # g quads 2*c
            counts = torch.bmm(_bits(codes, digits), _bits(both.mT, digits).mT)
            yield counts.unflatten(2, (2, w.n_columns)), vectors

    def _parts(self, x: PackedVectors, w: PackedMatrix, quads_per_block: int) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """Yield the bytes of some blocks for some vectors (g b quads), for the weights (g quads c), and the vectors."""
        assert (x.n_rows, x.rows_per_access) == (w.n_rows, w.rows_per_access), "x and w are packed for each other"
        if 0 in (*x.codes.shape, w.n_columns):
            return
        if w not in self._weights:
            self._weights[w] = torch.from_numpy(w.codes).to(self.device)
        most = self.most_numbers or MOST_NUMBERS.get(self.device.partition(":")[0], MOST_NUMBERS["cpu"])
        height = min(quads_per_block, x.codes.shape[1])
        codes = _in_blocks(torch.from_numpy(x.codes).to(self.device), height, dim=1)  # b g quads
        weights = _in_blocks(self._weights[w], height, dim=0)  # g quads c
        n_blocks = min(codes.shape[1], max(1, most // (2 * BITS * height * w.n_columns)))
        n_vectors = max(1, most // (n_blocks * (BITS * height + 2 * w.n_columns)))
        for block in range(0, codes.shape[1], n_blocks):
            blocks = slice(block, block + n_blocks)
            for vector in range(0, x.n_vectors, n_vectors):
                vectors = slice(vector, vector + n_vectors)
                yield codes[vectors, blocks].transpose(0, 1), weights[blocks], vectors


def _cannot_clip(x: PackedVectors, count_max: int) -> bool:
    return count_max >= min(x.rows_per_access, x.n_rows)


def _in_blocks(codes: Tensor, height: int, dim: int) -> Tensor:
    """Cut the bytes along *dim* into blocks of *height*; the last is filled up with zeros."""
    missing = -codes.shape[dim] % height
    if missing:
        shape = list(codes.shape)
        shape[dim] = missing
        codes = torch.cat([codes, codes.new_zeros(shape)], dim=dim)
    return codes.unflatten(dim, (-1, height))


def _bits(codes: Tensor, digits: torch.dtype) -> Tensor:
    """Bytes (... quads) to their bits (... 8*quads), the lowest first."""
    places = torch.arange(BITS, dtype=torch.uint8, device=codes.device)
    return ((codes.unsqueeze(-1) >> places) & 1).flatten(-2).to(digits)


def _signed(codes: Tensor, digits: torch.dtype) -> Tensor:
    """Bytes (... quads) to the rows that they stand for (... 4*quads): -1, 0, +1."""
    plus, minus = _bits(codes, digits).unflatten(-1, (-1, 2, ROWS_PER_QUAD)).unbind(-2)
    return (plus - minus).flatten(-2)


def _sum_of_blocks(counts: Tensor, n_rows: int) -> Tensor:
    """Add the blocks up: (g ...) to (...), int32; no sum is above *n_rows*."""
    return counts.sum(dim=0, dtype=whole_type(n_rows, "cpu")).to(torch.int32)
