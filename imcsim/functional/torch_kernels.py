"""The counts of a tile as products of matrices in torch, for GPUs: the bits of `kernels`, by other means.

A packed byte holds four rows: which of them are +1, which are -1. Its eight bits, as numbers, are eight rows of a
matrix; their product with the bits of the weights is n, and with the halves of the weights' bytes exchanged it is k.
All numbers on the way are whole, and so small that their type holds them exactly, in whatever order a GPU adds them
(TF32 and float16 sums included). Vectors and blocks go through in parts, so that memory is bounded; what is packed
stays on the device, and comes from there when somebody asks for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcsim.functional.kernels import DRIVEN, ClippedCounts, ClippedProduct
from imcsim.ternary.packing import ROWS_PER_QUAD, Drive, PackedMatrix, PackedVectors, n_blocks_of, quads_of

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


class TorchVectors(PackedVectors):
    """Packed vectors that lie on a device; their `codes` are fetched when they are asked for."""

    def __init__(self, on_device: Tensor, n_rows: int, rows_per_access: int) -> None:
        vars(self).update(on_device=on_device, n_rows=n_rows, rows_per_access=rows_per_access)

    on_device: Tensor
    """The bytes (b quads)."""

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """The bytes (b quads) on this machine."""
        return self.on_device.cpu().numpy()

    @property
    def n_vectors(self) -> int:
        """How many vectors there are."""
        return self.on_device.shape[0]

    def driven(self, which: Drive) -> "TorchVectors":
        """Return the vectors with only the inputs that *which* drives."""
        if which == "signed":
            return self
        codes = self.on_device & 15 if which == "positive" else self.on_device >> 4
        return TorchVectors(codes, self.n_rows, self.rows_per_access)

    def __getitem__(self, vectors: slice | NDArray[np.int64]) -> "TorchVectors":
        at = vectors if isinstance(vectors, slice) else torch.from_numpy(vectors).to(self.on_device.device)
        return TorchVectors(self.on_device[at], self.n_rows, self.rows_per_access)


@dataclass(frozen=True, eq=False)
class TorchKernels:
    """Counts on one device of torch, such as "cpu" or "cuda:0"; see `device.Counting`."""

    device: str
    most_numbers: int | None = None
    """Numbers that are there at a time; None for those of `MOST_NUMBERS`."""

    keeps_sums: bool = False
    """Whether sums stay on the device, as tensors, until `device.fetched` gets them."""

    _weights: "WeakKeyDictionary[PackedMatrix, Tensor]" = field(default_factory=WeakKeyDictionary)
    """Packed weights on the device (quads c), as long as somebody holds them here."""

    def pack_vectors_fast(self, x: NDArray[np.int8], rows_per_access: int) -> TorchVectors:
        """Do what `kernels.pack_vectors_fast` does."""
        return self.pack_patches(x[:, np.newaxis, np.newaxis], kernel=(1, 1), rows_per_access=rows_per_access)

    def pack_patches(
        self,
        codes: NDArray[np.int8],
        *,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        dilation: tuple[int, int] = (1, 1),
        pad_value: int = 0,
        rows_per_access: int,
    ) -> TorchVectors:
        """Do what `kernels.pack_patches` does."""
        n_rows = prod(kernel) * codes.shape[3]
        height = quads_of(rows_per_access)
        images = torch.from_numpy(np.ascontiguousarray(codes, np.int8)).to(self.device)
        (py, px), n_quads = padding, n_blocks_of(n_rows, rows_per_access) * height
        images = torch.nn.functional.pad(images, (0, 0, px, px, py, py), value=pad_value)
        packs_pixels = codes.shape[3] % ROWS_PER_QUAD == 0 and rows_per_access % ROWS_PER_QUAD == 0
        if packs_pixels:  # whole bytes wherever a pixel starts: four times less to move
            images = _packed(images)
        reach = ((size - 1) * step for size, step in zip(kernel, dilation, strict=True))
        out = [max(0, (images.shape[1 + axis] - far - 1) // stride[axis] + 1) for axis, far in enumerate(reach)]
        vectors = torch.zeros(len(codes) * prod(out), n_quads, dtype=torch.uint8, device=self.device)
        at_once = max(1, self._most // max(1, prod(out) * n_rows))
        for first in range(0, len(codes) if vectors.numel() else 0, at_once):
            some = images[first : first + at_once]
            b, y, x, c = some.stride()
            windows = some.as_strided(
                (len(some), *out, *kernel, some.shape[3]),
                (b, y * stride[0], x * stride[1], y * dilation[0], x * dilation[1], c),
                some.storage_offset(),
            )
            rows = windows.reshape(len(some) * prod(out), -1)
            if not packs_pixels:
                rows = _packed(_in_blocks(rows, rows_per_access, dim=1)).flatten(1)
            vectors[first * prod(out) :][: len(rows), : rows.shape[1]] = rows
        return TorchVectors(vectors, n_rows, rows_per_access)

    def clipped_product(
        self, x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256
    ) -> ClippedProduct:
        """Do what `kernels.clipped_product` does."""
        if not _cannot_clip(x, count_max):
            sums, clips = self._sums(x, w, count_max, columns_per_tile)
            return ClippedProduct(self._out(sums[0] - sums[1]), *clips)
        total = torch.zeros(x.n_vectors, w.n_columns, dtype=torch.int32, device=self.device)
        for codes, weights, vectors in self._parts(x, w, TALL):  # one product of -1s and +1s will do
            digits = whole_type(ROWS_PER_QUAD * codes.shape[2], self.device)
            difference = torch.bmm(_signed(codes, digits), _signed(weights.mT, digits).mT)  # g b c
            total[vectors] += _sum_of_blocks(difference, x.n_rows)
        return ClippedProduct(self._out(total), 0, 0)

    def clipped_counts(
        self, x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256
    ) -> ClippedCounts:
        """Do what `kernels.clipped_counts` does."""
        sums, clips = self._sums(x, w, count_max, columns_per_tile)
        plus, minus = self._out(sums)
        return ClippedCounts(plus, minus, *clips)

    def count_histograms(self, x: PackedVectors, w: PackedMatrix) -> NDArray[np.int64]:
        """Do what `kernels.count_histograms` does."""
        found = torch.zeros(2, x.rows_per_access + 1, dtype=torch.int64, device=self.device)
        for counts, _ in self._counts(x, w, x.quads_per_block):
            for side in range(2):
                found[side] += torch.bincount(counts[:, :, side].reshape(-1).long(), minlength=found.shape[1])
        return found.cpu().numpy()

    def count_idle(self, x: PackedVectors, which: Drive = "signed") -> int:
        """Do what `kernels.count_idle` does."""
        if not x.n_vectors or not x.n_rows:
            return 0
        driven = self._on_device(x) & DRIVEN[which]
        return int((driven.unflatten(1, (-1, x.quads_per_block)).amax(dim=2) == 0).sum())

    def _on_device(self, x: PackedVectors) -> Tensor:
        return x.on_device if isinstance(x, TorchVectors) else torch.from_numpy(x.codes).to(self.device)

    @property
    def _most(self) -> int:
        return self.most_numbers or MOST_NUMBERS.get(self.device.partition(":")[0], MOST_NUMBERS["cpu"])

    def _out(self, sums: Tensor) -> Any:
        return sums if self.keeps_sums else sums.cpu().numpy()

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
        codes = self._on_device(x)
        if 0 in (*codes.shape, w.n_columns):
            return
        if w not in self._weights:
            self._weights[w] = torch.from_numpy(w.codes).to(self.device)
        height = min(quads_per_block, codes.shape[1])
        codes = _in_blocks(codes, height, dim=1)  # b g quads
        weights = _in_blocks(self._weights[w], height, dim=0)  # g quads c
        n_blocks = min(codes.shape[1], max(1, self._most // (2 * BITS * height * w.n_columns)))
        n_vectors = max(1, self._most // (n_blocks * (BITS * height + 2 * w.n_columns)))
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


def _packed(rows: Tensor) -> Tensor:
    """Ternary rows (... r) to bytes (... quads), as `packing` lays them out."""
    quads = _in_blocks(rows, ROWS_PER_QUAD, dim=rows.dim() - 1)
    places = torch.arange(ROWS_PER_QUAD, dtype=torch.uint8, device=rows.device)
    halves = [((quads == sign).to(torch.uint8) << places).sum(dim=-1, dtype=torch.uint8) for sign in (1, -1)]
    return halves[0] | (halves[1] << ROWS_PER_QUAD)


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
