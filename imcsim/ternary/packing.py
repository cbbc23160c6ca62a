"""Ternary matrices as machine words: four rows to a byte, block after block.

One byte, a *quad*, holds four neighbouring rows of a block. Its low half marks which of them are +1 and its high
half which are -1, the first row in the lowest bit of each half. A block of *rows_per_access* rows takes as many
quads as it needs; rows that are missing in a last quad or in a last block are zero and so count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ROWS_PER_QUAD = 4

Drive = Literal["signed", "positive", "negative"]
"""Which inputs of a vector are driven: all, those at +1, or those at -1 (driven as if they were +1)."""


def n_blocks_of(n_rows: int, rows_per_access: int) -> int:
    """Return how many accesses *n_rows* rows take.

    >>> n_blocks_of(20, 16)
    2
    """
    return -(-n_rows // rows_per_access)


def quads_of(rows_per_access: int) -> int:
    """Return how many quads one block takes.

    >>> quads_of(16), quads_of(10)
    (4, 3)
    """
    return -(-rows_per_access // ROWS_PER_QUAD)


@dataclass(frozen=True, eq=False)
class PackedRows:
    """What packed vectors and packed matrices have in common: how their rows fall into blocks."""

    codes: NDArray[np.uint8]
    """The quads."""

    n_rows: int
    rows_per_access: int

    @property
    def n_blocks(self) -> int:
        """How many blocks the rows fall into."""
        return n_blocks_of(self.n_rows, self.rows_per_access)

    @property
    def quads_per_block(self) -> int:
        """How many bytes one block takes."""
        return quads_of(self.rows_per_access)


@dataclass(frozen=True, eq=False)
class PackedVectors(PackedRows):
    """Vectors (b r) as quads (b, blocks * quads_per_block), to be driven onto the wordlines."""

    @property
    def n_vectors(self) -> int:
        """How many vectors there are."""
        return self.codes.shape[0]

    def words(self) -> NDArray[np.uint32]:
        """Return the quads as words (b block word), each block filled up to whole words; a view where it can be."""
        return _in_words(np.ascontiguousarray(self.codes), self.quads_per_block)

    def driven(self, which: Drive) -> PackedVectors:
        """Return the vectors with only the inputs that *which* drives.

        >>> x = pack_vectors(np.array([[1, -1, 0, -1]], dtype=np.int8), 16)
        >>> unpack_vectors(x.driven("negative"))
        array([[0, 1, 0, 1]], dtype=int8)
        """
        if which == "signed":
            return self
        codes = self.codes & np.uint8(15) if which == "positive" else self.codes >> np.uint8(4)
        return PackedVectors(codes, self.n_rows, self.rows_per_access)

    def __getitem__(self, vectors: slice | NDArray[np.int64]) -> PackedVectors:
        return PackedVectors(self.codes[vectors], self.n_rows, self.rows_per_access)


@dataclass(frozen=True, eq=False)
class PackedMatrix(PackedRows):
    """A matrix (r c) as quads (blocks * quads_per_block, c): block after block, columns side by side."""

    @property
    def n_columns(self) -> int:
        """How many columns there are."""
        return self.codes.shape[1]

    @cached_property
    def words(self) -> NDArray[np.uint32]:
        """The quads of each column as words (2 c block word), as inputs meet them for n and for k.

        Each block is filled up to whole words. What a word has in common with one of the inputs is what is counted.
        """
        words = _in_words(np.ascontiguousarray(self.codes.T), self.quads_per_block)
        low = np.uint32(0x0F0F0F0F)  # for k, +1 and -1 are in each other's place
        return np.stack([words, ((words >> np.uint32(4)) & low) | ((words & low) << np.uint32(4))])


def _in_words(codes: NDArray[np.uint8], quads_per_block: int) -> NDArray[np.uint32]:
    """Return *codes* (v quads) as words of four quads (v block word), each block filled up to whole words."""
    n, n_blocks = len(codes), codes.shape[1] // quads_per_block
    n_words = -(-quads_per_block // 4)
    if quads_per_block % 4:
        filled = np.zeros((n, n_blocks, 4 * n_words), np.uint8)
        filled[:, :, :quads_per_block] = codes.reshape(n, n_blocks, quads_per_block)
        codes = filled
    return codes.view(np.uint32).reshape(n, n_blocks, n_words)


def pack_vectors(x: NDArray[Any], rows_per_access: int) -> PackedVectors:
    """Pack ternary vectors *x* (b r); the values are trusted.

    >>> pack_vectors(np.array([[1, 0, -1, 1, -1]], dtype=np.int8), 16).codes
    array([[73, 16,  0,  0]], dtype=uint8)
    """
    n_vectors, n_rows = x.shape
    n_blocks, n_quads = n_blocks_of(n_rows, rows_per_access), quads_of(rows_per_access)
    rows = np.zeros((n_vectors, n_blocks * rows_per_access), dtype=np.int8)
    rows[:, :n_rows] = x
    padded = np.zeros((n_vectors, n_blocks, n_quads * ROWS_PER_QUAD), dtype=np.int8)
    padded[:, :, :rows_per_access] = rows.reshape(n_vectors, n_blocks, rows_per_access)
    quads = padded.reshape(n_vectors, n_blocks * n_quads, ROWS_PER_QUAD)
    codes = np.zeros(quads.shape[:2], dtype=np.uint8)
    for row in range(ROWS_PER_QUAD):
        codes |= (quads[:, :, row] > 0).view(np.uint8) << np.uint8(row)
        codes |= (quads[:, :, row] < 0).view(np.uint8) << np.uint8(row + 4)
    return PackedVectors(codes, n_rows, rows_per_access)


def pack_matrix(w: NDArray[Any], rows_per_access: int) -> PackedMatrix:
    """Pack a ternary matrix *w* (r c); the values are trusted.

    >>> pack_matrix(np.array([[1, 0], [-1, 1]], dtype=np.int8), 4).codes
    array([[33,  2]], dtype=uint8)
    """
    columns = pack_vectors(w.T, rows_per_access)
    return PackedMatrix(np.ascontiguousarray(columns.codes.T), columns.n_rows, rows_per_access)


def polarities(values: NDArray[Any], axis: int) -> NDArray[np.int8]:
    """Put in the place of each number two: whether it is +1, and whether it is -1.

    The +1 products of two such operands are those of the numbers; there are no others. So n is counted alone.

    >>> polarities(np.array([1, -1, 0]), axis=0)
    array([1, 0, 0, 1, 0, 0], dtype=int8)
    """
    both = np.stack([values > 0, values < 0], axis=axis + 1 if axis >= 0 else axis + values.ndim + 1)
    shape = list(values.shape)
    shape[axis] *= 2
    return both.reshape(shape).astype(np.int8)


def unpack_vectors(x: PackedVectors) -> NDArray[np.int8]:
    """Return the vectors (b r) that were packed.

    >>> unpack_vectors(pack_vectors(np.array([[1, 0, -1, 1, -1]], dtype=np.int8), 2))
    array([[ 1,  0, -1,  1, -1]], dtype=int8)
    """
    quads = np.stack([_digit(x.codes, row) for row in range(ROWS_PER_QUAD)], axis=2)
    padded = quads.reshape(x.n_vectors, x.n_blocks, x.quads_per_block * ROWS_PER_QUAD)
    rows = padded[:, :, : x.rows_per_access].reshape(x.n_vectors, x.n_blocks * x.rows_per_access)
    return np.ascontiguousarray(rows[:, : x.n_rows])


def unpack_matrix(w: PackedMatrix) -> NDArray[np.int8]:
    """Return the matrix (r c) that was packed."""
    columns = PackedVectors(np.ascontiguousarray(w.codes.T), w.n_rows, w.rows_per_access)
    return np.ascontiguousarray(unpack_vectors(columns).T)


def _digit(codes: NDArray[np.uint8], row: int) -> NDArray[np.int8]:
    plus = (codes >> np.uint8(row)) & np.uint8(1)
    minus = (codes >> np.uint8(row + 4)) & np.uint8(1)
    return plus.view(np.int8) - minus.view(np.int8)
