"""The ternary product of a tile with clipped counts, on packed words, compiled with numba.

NOTE: this file is written for speed; `crossbar.tile_matmul_plain` says the same in six lines and is what it is
held against. How it is fast: four rows of weights are a number from 0 to 15 for the +1s and another for the -1s, and
an AVX2 shuffle looks 32 such numbers up in a table of 16 in one instruction. The table belongs to four inputs and
holds, for every pattern of weights, how many products are +1 (low half of a byte) and how many are -1 (high half).
Eight look-ups give both counts of a block of 16 rows for 32 columns. A block with no more nonzero inputs than
*count_max* cannot clip: there the table holds the difference and nothing else is left to do.

Taller blocks that may clip collect their counts 12 rows at a time; machines without AVX2 count bits. Tasks (some
vectors against one tile of columns) are shared out to threads as they become free; ``numba.set_num_threads`` says to
how many. All results are sums of integers over tasks of their own, so they are the same bits for any number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic as _untyped_intrinsic
from numpy.typing import NDArray

from imcsim.ternary.packing import Drive, PackedMatrix, PackedVectors, n_blocks_of, quads_of

LANES = 32
"""Columns that one vector register holds."""

QUADS_PER_STEP = 4
"""Quads (of four rows) that one word holds and that are looked up together."""

ROWS_PER_STEP = 16

QUADS_PER_PART = 3
"""Quads of a step of a tall block: the counts of 12 rows fit half a byte, whatever they are."""

MAX_CHUNK = 256
"""Vectors that at most share one unpacking of the weights: their sums still fit the nearest cache."""

MAX_COLUMNS = 255 * LANES
"""Columns of a tile whose clips one register of bytes can count."""


BLOCKS_PER_TASK = 1 << 17
"""Blocks that a thread looks through in one go for those that are all zero."""

DRIVEN: dict[Drive, int] = {"signed": 0xFF, "positive": 0x0F, "negative": 0xF0}
"""The bits of a quad that stand for inputs that are driven."""

_intrinsic: Any = _untyped_intrinsic


@dataclass(frozen=True, eq=False)
class ClippedProduct:
    """What the columns read, summed over the blocks, and how often an ADC met a count above *count_max*."""

    total: NDArray[np.int32]
    """The clipped n less the clipped k (b c)."""

    n_clipped_accesses: int
    """(vector, block, tile of columns) in which at least one column had n or k above count_max."""

    n_clipped_conversions: int
    """(vector, block, column) in which n or k was above count_max."""


@dataclass(frozen=True, eq=False)
class ClippedCounts:
    """The two sums of a `ClippedProduct` kept apart, for encodings that weigh them differently."""

    plus: NDArray[np.int32]
    """The clipped n (b c)."""

    minus: NDArray[np.int32]
    """The clipped k (b c)."""

    n_clipped_accesses: int
    n_clipped_conversions: int

    @property
    def total(self) -> NDArray[np.int32]:
        """The clipped n less the clipped k (b c)."""
        return self.plus - self.minus


# --- What others call -----------------------------------------------------------------------------------------------


def clipped_product(
    x: PackedVectors,
    w: PackedMatrix,
    *,
    count_max: int,
    columns_per_tile: int = 256,
    which: Drive = "signed",
    onto: tuple[NDArray[np.int32], int] | None = None,
) -> ClippedProduct:
    """Multiply *x* (b r) by *w* (r c) block after block, each count clipped at *count_max*, and count what clips.

    Args:
        x: Vectors, packed with the same rows_per_access as *w*.
        w: Weights.
        count_max: The largest count an ADC tells apart.
        columns_per_tile: Columns that one access reads; only the number of clipped accesses depends on it.
        which: Inputs that are driven: all ("signed"), or only those at +1 or at -1, as +1 ("positive", "negative").
        onto: Totals (b c) that the product is added to, so many times, in place; by default there are none yet.
    """
    assert (x.n_rows, x.rows_per_access) == (w.n_rows, w.rows_per_access), "x and w are packed for each other"
    x = x.driven(which)
    if not _fits_steps(x, count_max, columns_per_tile):
        counts = _count(x, w, count_max, columns_per_tile)
        total = counts.total
        if onto is not None:
            add_up(onto[0], total, onto[1])
            total = onto[0]
        return ClippedProduct(total, counts.n_clipped_accesses, counts.n_clipped_conversions)
    total, factor = (np.empty((x.n_vectors, w.n_columns), np.int32), 1) if onto is None else onto
    sign = (factor, onto is not None)
    if not x.n_rows and onto is None:
        total[:] = 0
    if _cannot_clip(x, count_max):  # then it does not matter where the blocks end
        words, quads = _in_steps(x, w, x.codes.shape[1], QUADS_PER_STEP)
        clips = _play(_difference_task, words, quads, columns_per_tile, ROWS_PER_STEP, total, *sign, False)
    else:
        is_paired = x.quads_per_block <= QUADS_PER_STEP // 2
        room = QUADS_PER_STEP // 2 if is_paired else QUADS_PER_STEP
        words, quads = _in_steps(x, w, x.quads_per_block, x.quads_per_block, room)
        clips = _play(_difference_task, words, quads, columns_per_tile, count_max, total, *sign, is_paired)
    return ClippedProduct(total, *clips)


def clipped_counts(
    x: PackedVectors, w: PackedMatrix, *, count_max: int, columns_per_tile: int = 256, which: Drive = "signed"
) -> ClippedCounts:
    """Do the same as `clipped_product`, but keep the sum of the clipped n and that of the clipped k apart."""
    assert (x.n_rows, x.rows_per_access) == (w.n_rows, w.rows_per_access), "x and w are packed for each other"
    x = x.driven(which)
    if not _fits_steps(x, count_max, columns_per_tile):
        return _count(x, w, count_max, columns_per_tile)
    sums = np.zeros((2, x.n_vectors, w.n_columns), np.int32)
    if _cannot_clip(x, count_max):
        words, quads = _in_steps(x, w, x.codes.shape[1], QUADS_PER_STEP)
        clips = _play(_both_task, words, quads, columns_per_tile, ROWS_PER_STEP, sums)
    else:
        words, quads = _in_steps(x, w, x.quads_per_block, x.quads_per_block)
        clips = _play(_both_task, words, quads, columns_per_tile, count_max, sums)
    return ClippedCounts(sums[0], sums[1], *clips)


@dataclass(frozen=True, eq=False)
class GroupedProduct:
    """What the columns read where each group of blocks has a scale of its own."""

    total: NDArray[np.float64]
    """The scaled sums of the groups, added one after the other (b c)."""

    n_clipped_accesses: int
    n_clipped_conversions: int


def takes_groups(rows_per_access: int, columns_per_tile: int) -> bool:
    """Whether `grouped_product` can be asked: a block fits one step, and the machine has the instruction."""
    return _HAS_SHUFFLE and rows_per_access <= ROWS_PER_STEP and columns_per_tile <= MAX_COLUMNS


def grouped_product(
    passes: list[PackedVectors],
    w: PackedMatrix,
    *,
    pass_factors: NDArray[np.int32],
    group_of_block: NDArray[np.int64],
    start: NDArray[np.int32],
    group_factors: NDArray[np.float64],
    count_max: int,
    columns_per_tile: int = 256,
) -> GroupedProduct:
    """Multiply as `clipped_product` does, and scale the sums of each group of blocks before they are added.

    Args:
        passes: Vectors, one plane after the other, packed with the same rows_per_access as *w*.
        w: Weights.
        pass_factors: What each plane counts for; the sums of a group must stay below 2^31.
        group_of_block: The group of each block, ascending.
        start: What the sums of each group begin with (groups c).
        group_factors: What they count for (groups c).
        count_max: The largest count an ADC tells apart.
        columns_per_tile: Columns that one access reads.
    """
    assert all((x.n_rows, x.rows_per_access) == (w.n_rows, w.rows_per_access) for x in passes), "packed for each other"
    steps = [_in_steps(x, w, x.quads_per_block, x.quads_per_block) for x in passes]
    words, quads = np.stack([words for words, _ in steps], axis=1), steps[0][1]  # b passes steps
    total = np.zeros((len(words), w.n_columns))
    limit = min(count_max, ROWS_PER_STEP)
    clips = _play(
        _group_task, words, quads, columns_per_tile, limit, total, pass_factors, group_of_block, start, group_factors
    )
    return GroupedProduct(total, *clips)


def pack_vectors_fast(x: NDArray[np.int8], rows_per_access: int) -> PackedVectors:
    """Pack ternary vectors *x* (b r) as `packing.pack_vectors` does, on all threads."""
    n_vectors, n_rows = x.shape
    n_quads = n_blocks_of(n_rows, rows_per_access) * quads_of(rows_per_access)
    codes = np.zeros((n_vectors, n_quads), np.uint8)
    x = np.ascontiguousarray(x, np.int8)
    if rows_per_access % 4 == 0 and n_rows % 4 == 0:
        share(_pack_words_task, n_vectors, x.view(np.uint32), codes)
    else:
        share(_pack_rows_task, n_vectors, x, rows_per_access, codes)
    return PackedVectors(codes, n_rows, rows_per_access)


def pack_patches(
    codes: NDArray[np.int8],
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    pad_value: int = 0,
    rows_per_access: int,
) -> PackedVectors:
    """Pack the patches under a sliding *kernel* as vectors, without writing the patches out.

    Args:
        codes: Ternary images, channels last (b h w ch).
        kernel: Height and width of the window; the other pairs follow the same order.
        stride: Step from one window to the next.
        padding: Rows and columns put around every image, on both sides.
        dilation: Step from one pixel of a window to the next.
        pad_value: What the padding holds: -1, 0 or +1.
        rows_per_access: Rows of a block.

    Returns:
        One vector for each window (b * out_h * out_w), its rows ordered (kernel_h kernel_w ch).
    """
    n_images, height, width, n_channels = codes.shape
    out_height, out_width = (
        max(0, (size + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1)
        for axis, size in enumerate((height, width))
    )
    n_rows = kernel[0] * kernel[1] * n_channels
    n_quads = n_blocks_of(n_rows, rows_per_access) * quads_of(rows_per_access)
    patches = np.zeros((n_images * out_height * out_width, n_quads), np.uint8)
    window = (out_height, out_width, *kernel, *stride, *padding, *dilation)
    rows_per_unit = 4 if rows_per_access % 4 == 0 else rows_per_access  # what fills whole bytes wherever it starts
    if n_channels % rows_per_unit == 0:
        pixels = pack_vectors_fast(codes.reshape(-1, n_channels), rows_per_unit).codes
        pad = pack_vectors_fast(np.full((1, n_channels), pad_value, np.int8), rows_per_unit).codes[0]
        pixels = pixels.reshape(n_images, height, width, len(pad))
        share(_gather_patches_task, len(patches), pixels, pad, window, patches)
    else:
        no_pixel = _in_words(np.full((1, n_channels), pad_value, np.int8))[0]
        words = _in_words(codes.reshape(n_images * height * width, n_channels)).reshape(
            n_images, height, width, len(no_pixel)
        )
        share(_append_patches_task, len(patches), words, no_pixel, n_channels, window, rows_per_access, patches)
    return PackedVectors(patches, n_rows, rows_per_access)


def add_up(total: NDArray[Any], part: NDArray[np.int32], factor: int) -> None:
    """Add *factor* times *part* to *total*, both of one shape and contiguous, on all threads."""
    share(_add_up_task, total.size, total.reshape(-1), part.reshape(-1), factor, at_most=1 << 16)


def count_histograms(x: PackedVectors, w: PackedMatrix) -> NDArray[np.int64]:
    """Return how often each count occurs, before any clipping: (2 rows_per_access+1), of n and of k, from 0."""
    assert (x.n_rows, x.rows_per_access) == (w.n_rows, w.rows_per_access), "x and w are packed for each other"
    n_tasks = min(x.n_vectors, 4 * numba.get_num_threads())  # of which some take longer than others
    found = np.zeros((n_tasks, 2, x.rows_per_access + 1), np.int64)
    ends = np.linspace(0, x.n_vectors, n_tasks + 1).astype(np.int64)
    run_tasks(lambda t: _histogram_task(ends[t], ends[t + 1], x.codes, w.codes, x.quads_per_block, found[t]), n_tasks)
    return found.sum(axis=0)


def count_idle(x: PackedVectors, which: Drive = "signed") -> int:
    """Return how many blocks, of all vectors, have no input that *which* drives."""
    if not x.codes.size:
        return 0
    kind = np.dtype(f"u{min(8, x.quads_per_block & -x.quads_per_block)}")  # as few numbers a block as may be
    parts = np.ascontiguousarray(x.codes).reshape(-1, x.quads_per_block).view(kind)
    mask = np.full(8, DRIVEN[which], np.uint8).view(kind)[0]
    n_tasks = -(-len(parts) // BLOCKS_PER_TASK)
    found = np.zeros(n_tasks, np.int64)
    run_tasks(lambda t: _idle_task(t, parts[t * BLOCKS_PER_TASK : (t + 1) * BLOCKS_PER_TASK], mask, found), n_tasks)
    return int(found.sum())


def _in_words(x: NDArray[np.int8]) -> NDArray[np.uint64]:
    """Return vectors *x* (b r) as words of 32 rows: +1s in the lower half of a word, -1s in the upper."""
    words = np.zeros((len(x), -(-x.shape[1] // 32)), np.uint64)
    share(_pack_halves_task, len(x), np.ascontiguousarray(x, np.int8), words)
    return words


# --- Sharing the work out -------------------------------------------------------------------------------------------


def _cannot_clip(x: PackedVectors, count_max: int) -> bool:
    return count_max >= min(x.rows_per_access, x.n_rows)


def _fits_steps(x: PackedVectors, count_max: int, columns_per_tile: int) -> bool:
    narrow = x.rows_per_access <= ROWS_PER_STEP or _cannot_clip(x, count_max)
    return _HAS_SHUFFLE and narrow and columns_per_tile <= MAX_COLUMNS


def _in_steps(
    x: PackedVectors, w: PackedMatrix, quads_per_block: int, quads_per_step: int, room: int = QUADS_PER_STEP
) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return *x* as words (b words) and *w* as quads (4*words c), blocks cut into steps as `_fill_steps` does."""
    words = _fill_steps(x.codes, quads_per_block, quads_per_step, room).view(np.uint32)
    return words, np.ascontiguousarray(_fill_steps(w.codes.T, quads_per_block, quads_per_step, room).T)


def _fill_steps(codes: NDArray[np.uint8], quads_per_block: int, quads_per_step: int, room: int) -> NDArray[np.uint8]:
    """Cut every block of *codes* (b quads) into steps; put empty quads behind each up to *room*, and fill the words."""
    if quads_per_step == QUADS_PER_STEP and quads_per_block % QUADS_PER_STEP == 0:
        return codes
    n_vectors, n_quads = codes.shape
    n_blocks, steps_per_block = n_quads // max(1, quads_per_block), -(-quads_per_block // quads_per_step)
    n_steps = n_blocks * steps_per_block
    blocks = np.zeros((n_vectors, n_blocks, steps_per_block * quads_per_step), np.uint8)
    blocks[:, :, :quads_per_block] = codes.reshape(n_vectors, n_blocks, quads_per_block)
    steps_per_word = QUADS_PER_STEP // room
    n_words = -(-n_steps // steps_per_word)
    steps = np.zeros((n_vectors, n_words * steps_per_word, room), np.uint8)
    steps[:, :n_steps, :quads_per_step] = blocks.reshape(n_vectors, n_steps, quads_per_step)
    return steps.reshape(n_vectors, n_words * QUADS_PER_STEP)


def _count(x: PackedVectors, w: PackedMatrix, count_max: int, columns_per_tile: int) -> ClippedCounts:
    """Count blocks that do not fit one step."""
    sums = np.zeros((2, x.n_vectors, w.n_columns), np.int32)
    if _HAS_SHUFFLE and columns_per_tile <= MAX_COLUMNS and count_max < 255:
        words, quads = _in_steps(x, w, x.quads_per_block, QUADS_PER_PART)
        steps_per_block = -(-x.quads_per_block // QUADS_PER_PART)
        clips = _play(_tall_task, words, quads, columns_per_tile, count_max, sums, steps_per_block)
    else:
        limit = min(count_max, x.rows_per_access)
        clips = _play(_any_task, x.codes, w.codes, columns_per_tile, limit, sums, x.quads_per_block)
    return ClippedCounts(sums[0], sums[1], *clips)


def _play(
    task: Any, x: NDArray[Any], w: NDArray[np.uint8], columns_per_tile: int, count_max: int, out: Any, *more: Any
) -> tuple[int, int]:
    """Run *task* for every chunk of vectors and tile of columns; return clipped accesses and conversions."""
    n_vectors, n_columns = len(x), w.shape[1]
    if 0 in (n_vectors, n_columns, len(w)):
        return 0, 0
    tile = min(columns_per_tile, n_columns)
    chunk = min(MAX_CHUNK, -(-n_vectors // numba.get_num_threads()))
    n_tasks = -(-n_vectors // chunk) * -(-n_columns // tile)
    clips = np.zeros((n_tasks, 2), np.int64)
    run_tasks(lambda number: task(number, _TABLES, x, w, tile, chunk, count_max, out, clips, *more), n_tasks)
    n_accesses, n_conversions = clips.sum(axis=0).tolist()
    return n_accesses, n_conversions


def share(task: Callable[..., None], n_vectors: int, *args: Any, at_most: int = 1024) -> None:
    """Run ``task(first, last, *args)`` for ranges of the vectors, each of *at_most* so many, on all threads."""
    chunk = max(1, min(at_most, -(-n_vectors // numba.get_num_threads())))
    run_tasks(lambda n: task(n * chunk, min((n + 1) * chunk, n_vectors), *args), -(-n_vectors // chunk))


def n_threads() -> int:
    """Return how many threads this thread may take for its tasks."""
    return int(numba.get_num_threads())


@contextmanager
def on_threads(n: int) -> Iterator[None]:
    """Let this thread take *n* threads for its tasks; numba keeps the number of each thread apart."""
    was = n_threads()
    numba.set_num_threads(n)
    try:
        yield
    finally:
        numba.set_num_threads(was)


def run_tasks(task: Callable[[int], None], n_tasks: int) -> None:
    """Run the tasks on as many threads as numba is set to; each takes the next number when it is free.

    Compiled code lets go of the interpreter, so plain threads do. Unlike numba's own they bear being called from
    several threads at once, and cost no time to compile.
    """
    numbers = iter(range(n_tasks))

    def work() -> None:
        for number in numbers:
            task(number)

    helpers = [_pool().submit(work) for _ in range(min(numba.get_num_threads(), n_tasks) - 1)]
    try:
        work()
    except BaseException:
        for _ in numbers:  # the others find nothing left to do
            pass
        raise
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="imcsim")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not live on in a forked process


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with numba and keep the result on disk, or in memory alone where no folder can be written."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder to keep compiled code in
        return numba.njit(nogil=True)(function)


# --- Look-up tables -------------------------------------------------------------------------------------------------


def _tables() -> NDArray[np.uint8]:
    """Return for each quad of inputs its four tables (256 4 16), one entry for each pattern of four weights.

    Tables 0 and 1 hold n + 16 k for weights at +1 and at -1; tables 2 and 3 hold n - k for them.
    """
    ones = np.array([bin(pattern).count("1") for pattern in range(16)])
    pattern = np.arange(16)
    code = np.arange(256)[:, None]
    same, opposite = ones[code % 16 & pattern], ones[code // 16 & pattern]  # 256 16
    rows = [same + 16 * opposite, opposite + 16 * same, same - opposite, opposite - same]
    return np.ascontiguousarray(np.stack(rows, axis=1).astype(np.int8).view(np.uint8))


_TABLES = _tables()
_HAS_SHUFFLE = "+avx2" in cpu_target.target_context.codegen().magic_tuple()[2]


# --- One block against all columns of a tile, in LLVM's own words ---------------------------------------------------

_BYTE, _WORD, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_HALF, _VECTOR, _LONGS = ir.VectorType(_BYTE, 16), ir.VectorType(_BYTE, LANES), ir.VectorType(_LONG, 4)
_PLACES = ir.VectorType(_WORD, LANES)


@_intrinsic
def popcount(typing_context, word):
    """Return how many bits of *word* are set; the answer is as wide as the word."""

    def emit(context, builder, signature, args):
        return builder.ctpop(args[0])

    return word(word), emit


@dataclass(frozen=True)
class _Machine:
    """What the steps need of a machine with 32 bytes to a register, in the words of an LLVM builder."""

    builder: Any

    def load(self, base, offset, vector=_VECTOR):
        value = self.builder.load(self._address(base, offset, vector))
        value.align = 1
        return value

    def store(self, value, base, offset):
        self.builder.store(value, self._address(base, offset, _VECTOR)).align = 1

    def _address(self, base, offset, vector):
        return self.builder.bitcast(self.builder.gep(base, [offset]), vector.as_pointer())

    def call(self, name, result, *values):
        function = ir.FunctionType(result, [value.type for value in values])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), values)

    def all_lanes(self, value):
        return ir.Constant(_VECTOR, [value] * LANES)

    def spread(self, byte):
        """Return a vector that holds *byte* in every lane."""
        one = self.builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), byte, _WORD(0))
        return self.builder.shuffle_vector(one, one, ir.Constant(_PLACES, [0] * LANES))

    def twice(self, half):
        return self.builder.shuffle_vector(half, half, ir.Constant(_PLACES, [*range(16), *range(16)]))

    def look_up(self, table, places):
        return self.call("llvm.x86.avx2.pshuf.b", _VECTOR, table, places)

    def least(self, a, b):
        return self.call("llvm.umin.v32i8", _VECTOR, a, b)

    def greatest(self, a, b):
        return self.call("llvm.umax.v32i8", _VECTOR, a, b)

    def total(self, values):
        return reduce(self.builder.add, values)

    def total_up_to_255(self, a, b):
        return self.call("llvm.uadd.sat.v32i8", _VECTOR, a, b)

    def sum_of_lanes(self, vector):
        quarters = self.call("llvm.x86.avx2.psad.bw", _LONGS, vector, self.all_lanes(0))
        return self.total([self.builder.extract_element(quarters, _WORD(quarter)) for quarter in range(4)])


def _step(kind: str, *groups: tuple[int, ...]) -> Any:
    """Make the intrinsic that plays up to 16 rows of one vector against a tile of columns.

    It is called with the tables, the word of four quads, the weights (columns/32 quad sign 32), the sums (any
    columns), the number of columns (a multiple of 32) and count_max. It returns the number of columns that clipped.
    The quads of a group are looked up and added together: their counts must fit half a byte.

    exact: n - k is added to sums[0]; nothing can clip.
    difference: n and k are clipped and their difference is added to sums[0].
    pair: the same for two blocks, one in each group; the clips of the second are in the upper half of the answer.
    both: the clipped n is added to sums[0] and the clipped k to sums[1].
    part: n is added to sums[0] and k to sums[1], as they are, but no sum grows beyond 255.
    read: those sums are clipped, added to sums[2] and sums[3], and cleared.
    """

    @_intrinsic
    def step(typing_context, tables, word, weights, sums, n_columns, count_max):
        def emit(context, builder, signature, args):
            _, word, _, _, n_columns, count_max = args
            table_base, weight_base, sum_base = (
                builder.bitcast(
                    context.make_array(signature.args[place])(context, builder, args[place]).data, _BYTE.as_pointer()
                )
                for place in (0, 2, 3)
            )
            machine = _Machine(builder)
            limit = machine.spread(builder.trunc(count_max, _BYTE))

            tables = {}
            for quad in (quad for group in groups for quad in group):
                code = builder.and_(builder.lshr(word, _WORD(8 * quad)), _WORD(255))
                for sign in range(2):
                    place = 16 * (sign + (2 if kind == "exact" else 0))
                    offset = builder.add(builder.mul(builder.zext(code, _LONG), _LONG(4 * 16)), _LONG(place))
                    tables[quad, sign] = machine.twice(machine.load(table_base, offset, _HALF))

            clips = [cgutils.alloca_once_value(builder, machine.all_lanes(0)) for _ in range(2)]
            with cgutils.for_range(builder, builder.udiv(n_columns, _LONG(LANES))) as loop:
                first = builder.mul(loop.index, _LONG(LANES))
                first_weight = builder.mul(loop.index, _LONG(LANES * 2 * QUADS_PER_STEP))

                def found(group):
                    places = {
                        (quad, sign): builder.add(first_weight, _LONG(LANES * (2 * quad + sign)))
                        for quad in group
                        for sign in range(2)
                    }
                    return machine.total(
                        [machine.look_up(tables[at], machine.load(weight_base, place)) for at, place in places.items()]
                    )

                def place_of(row):
                    return builder.add(first, builder.mul(n_columns, _LONG(row)))

                def old(row):
                    return machine.load(sum_base, place_of(row))

                def put(row, value):
                    machine.store(value, sum_base, place_of(row))

                def clipped(n, k, block=0):
                    compare = builder.icmp_unsigned if kind == "read" else builder.icmp_signed  # up to 255 or to 16
                    above = compare(">", machine.greatest(n, k), limit)
                    builder.store(builder.sub(builder.load(clips[block]), builder.sext(above, _VECTOR)), clips[block])
                    return machine.least(n, limit), machine.least(k, limit)

                counts = [found(group) for group in groups]
                pairs = [
                    (builder.and_(count, machine.all_lanes(15)), builder.lshr(count, machine.all_lanes(4)))
                    for count in counts
                ]
                if kind == "exact":
                    put(0, machine.total([old(0), *counts]))
                elif kind == "pair":
                    for block, (n, k) in enumerate(pairs):
                        n, k = clipped(n, k, block)
                        put(0, machine.total([old(0), builder.sub(n, k)]))
                elif kind == "read":
                    n, k = clipped(old(0), old(1))
                    put(2, machine.total([old(2), n]))
                    put(3, machine.total([old(3), k]))
                    put(0, machine.all_lanes(0))
                    put(1, machine.all_lanes(0))
                else:
                    n, k = (machine.total(list(side)) for side in zip(*pairs, strict=True))
                    if kind == "part":
                        put(0, machine.total_up_to_255(old(0), n))
                        put(1, machine.total_up_to_255(old(1), k))
                    elif kind == "both":
                        n, k = clipped(n, k)
                        put(0, machine.total([old(0), n]))
                        put(1, machine.total([old(1), k]))
                    else:
                        put(0, machine.total([old(0), builder.sub(*clipped(n, k))]))

            first_block, second_block = (machine.sum_of_lanes(builder.load(clip)) for clip in clips)
            return builder.or_(first_block, builder.shl(second_block, _LONG(32)))

        return types.int64(tables, word, weights, sums, n_columns, count_max), emit

    return step


_step_exact = _step("exact", (0, 1, 2, 3))
_step_sparse = _step("difference", (0, 1, 2, 3))  # of 16 inputs at least one is zero: no count is 16
_step_dense = _step("difference", (0, 1, 2), (3,))
_step_pair = _step("pair", (0, 1), (2, 3))
_step_both = _step("both", (0, 1, 2), (3,))
_step_part = _step("part", (0, 1, 2))
_step_read = _step("read")


@compiled
def _unpack_step(w, step, first, last, weights):
    """Lay the halves of the bytes of *w* out as the steps read them: (columns/32 quad sign 32)."""
    for group in range(weights.shape[0]):
        c = first + group * LANES
        for quad in range(QUADS_PER_STEP):
            codes = w[QUADS_PER_STEP * step + quad][c : min(c + LANES, last)]
            plus, minus = weights[group, quad, 0], weights[group, quad, 1]
            for lane in range(codes.size):
                plus[lane] = codes[lane] & np.uint8(15)
                minus[lane] = codes[lane] >> np.uint8(4)


@compiled
def _flush(narrow, out, first, last):
    """Add the *narrow* sums to the columns from *first* to *last* of *out* and clear them."""
    wide = out[first:last]
    for c in range(wide.size):
        wide[c] += np.int32(narrow[c])
        narrow[c] = 0


@compiled
def _flush_times(narrow, factor, out, first, last):
    """Add *factor* times the *narrow* sums to columns of *out*, and clear them."""
    wide = out[first:last]
    for c in range(wide.size):
        wide[c] += factor * np.int32(narrow[c])
        narrow[c] = 0


@compiled
def _flush_first(narrow, factor, out, first, last):
    """Write them to columns of *out* that nothing was written to, and clear them."""
    wide = out[first:last]
    for c in range(wide.size):
        wide[c] = factor * np.int32(narrow[c])
        narrow[c] = 0


@compiled
def _place_of(task, tile, chunk, n_vectors, n_columns):
    """Return the vectors and the columns of a task, each from and up to, and the columns in whole registers."""
    n_tiles = (n_columns + tile - 1) // tile
    b, c = task // n_tiles * chunk, task % n_tiles * tile
    last = min(c + tile, n_columns)
    return b, min(b + chunk, n_vectors), c, last, (last - c + LANES - 1) // LANES * LANES


@compiled
def _difference_task(task, tables, words, w, tile, chunk, count_max, out, clips, factor, is_begun, is_paired):
    """Put *factor* times n - k of some vectors and one tile of columns in *out* (b c), or add it where that is begun.

    What clipped is counted in ``clips[task]``.
    """
    factor = np.int32(factor)
    b_first, b_last, first, last, n_columns = _place_of(task, tile, chunk, words.shape[0], w.shape[1])
    weights = np.zeros((n_columns // LANES, QUADS_PER_STEP, 2, LANES), np.uint8)
    sums = np.zeros((b_last - b_first, n_columns), np.int8)
    steps_that_fit = 127 // min(2 * count_max if is_paired else count_max, ROWS_PER_STEP)  # into a signed byte
    n_accesses = n_conversions = 0
    for step in range(words.shape[1]):
        _unpack_step(w, step, first, last, weights)
        for b in range(b_first, b_last):
            word = words[b, step]
            n_nonzero = np.int64(popcount(word))
            if n_nonzero == 0:
                continue
            if n_nonzero <= count_max:
                _step_exact(tables, word, weights, sums[b - b_first], n_columns, count_max)
                continue
            if is_paired:
                n_low = np.int64(popcount(np.uint32(word & np.uint32(0xFFFF))))
                if max(n_low, n_nonzero - n_low) <= count_max:
                    _step_exact(tables, word, weights, sums[b - b_first], n_columns, count_max)
                    continue
                both = _step_pair(tables, word, weights, sums[b - b_first], n_columns, count_max)
                n = both & 0xFFFFFFFF
                n_conversions += both >> 32
                n_accesses += both >> 32 > 0
            elif n_nonzero < ROWS_PER_STEP:
                n = _step_sparse(tables, word, weights, sums[b - b_first], n_columns, count_max)
            else:
                n = _step_dense(tables, word, weights, sums[b - b_first], n_columns, count_max)
            n_conversions += n
            n_accesses += n > 0
        if (step + 1) % steps_that_fit == 0 or step + 1 == words.shape[1]:
            for b in range(b_first, b_last):
                if step < steps_that_fit and not is_begun:
                    _flush_first(sums[b - b_first], factor, out[b], first, last)
                else:
                    _flush_times(sums[b - b_first], factor, out[b], first, last)
    clips[task, 0] = n_accesses
    clips[task, 1] = n_conversions


@compiled
def _group_task(task, tables, words, w, tile, chunk, count_max, out, clips, pass_factors, group_of_block, start, scale):
    """Do the same block after block: the sums of a group, over all passes, are scaled into *out* (b c)."""
    b_first, b_last, first, last, n_columns = _place_of(task, tile, chunk, words.shape[0], w.shape[1])
    weights = np.zeros((n_columns // LANES, QUADS_PER_STEP, 2, LANES), np.uint8)
    narrow = np.zeros((b_last - b_first, n_columns), np.int8)
    sums = np.zeros((b_last - b_first, last - first), np.int32)
    blocks_that_fit = 127 // count_max  # into a signed byte
    n_blocks = words.shape[2]
    n_accesses = n_conversions = begin = 0
    while begin < n_blocks:
        group, end = group_of_block[begin], begin + 1
        while end < n_blocks and group_of_block[end] == group:
            end += 1
        sums[:] = start[group, first:last]
        for p in range(words.shape[1]):
            for block in range(begin, end):
                _unpack_step(w, block, first, last, weights)
                for b in range(b_first, b_last):
                    word = words[b, p, block]
                    n_nonzero = np.int64(popcount(word))
                    if n_nonzero == 0:
                        continue
                    if n_nonzero <= count_max:
                        _step_exact(tables, word, weights, narrow[b - b_first], n_columns, count_max)
                        continue
                    if n_nonzero < ROWS_PER_STEP:
                        n = _step_sparse(tables, word, weights, narrow[b - b_first], n_columns, count_max)
                    else:
                        n = _step_dense(tables, word, weights, narrow[b - b_first], n_columns, count_max)
                    n_conversions += n
                    n_accesses += n > 0
                if (block - begin + 1) % blocks_that_fit == 0 or block + 1 == end:
                    for b in range(b_last - b_first):
                        wide, few = sums[b], narrow[b]
                        for c in range(wide.size):
                            wide[c] += pass_factors[p] * np.int32(few[c])
                            few[c] = 0
        factors = scale[group, first:last]
        for b in range(b_first, b_last):
            wide, row = sums[b - b_first], out[b, first:last]
            for c in range(row.size):
                row[c] += factors[c] * wide[c]
        begin = end
    clips[task, 0] = n_accesses
    clips[task, 1] = n_conversions


@compiled
def _both_task(task, tables, words, w, tile, chunk, count_max, out, clips):
    """Do the same for n and k apart: *out* (2 b c)."""
    b_first, b_last, first, last, n_columns = _place_of(task, tile, chunk, words.shape[0], w.shape[1])
    weights = np.zeros((n_columns // LANES, QUADS_PER_STEP, 2, LANES), np.uint8)
    sums = np.zeros((b_last - b_first, 2, n_columns), np.uint8)
    steps_that_fit = 255 // min(count_max, ROWS_PER_STEP)
    n_accesses = n_conversions = 0
    for step in range(words.shape[1]):
        _unpack_step(w, step, first, last, weights)
        for b in range(b_first, b_last):
            word = words[b, step]
            if word != 0:
                n = _step_both(tables, word, weights, sums[b - b_first], n_columns, min(count_max, 255))
                n_conversions += n
                n_accesses += n > 0
        if (step + 1) % steps_that_fit == 0 or step + 1 == words.shape[1]:
            for b in range(b_first, b_last):
                for side in range(2):
                    _flush(sums[b - b_first, side], out[side, b], first, last)
    clips[task, 0] = n_accesses
    clips[task, 1] = n_conversions


@compiled
def _tall_task(task, tables, words, w, tile, chunk, count_max, out, clips, steps_per_block):
    """Do the same for blocks of several steps, each of 12 rows: *out* (2 b c)."""
    b_first, b_last, first, last, n_columns = _place_of(task, tile, chunk, words.shape[0], w.shape[1])
    weights = np.zeros((n_columns // LANES, QUADS_PER_STEP, 2, LANES), np.uint8)
    sums = np.zeros((b_last - b_first, 4, n_columns), np.uint8)
    blocks_that_fit = 255 // count_max
    n_blocks = words.shape[1] // steps_per_block
    n_accesses = n_conversions = 0
    for block in range(n_blocks):
        for step in range(block * steps_per_block, (block + 1) * steps_per_block):
            _unpack_step(w, step, first, last, weights)
            for b in range(b_first, b_last):
                _step_part(tables, words[b, step], weights, sums[b - b_first], n_columns, count_max)
        for b in range(b_first, b_last):
            n = _step_read(tables, np.uint32(0), weights, sums[b - b_first], n_columns, count_max)
            n_conversions += n
            n_accesses += n > 0
        if (block + 1) % blocks_that_fit == 0 or block + 1 == n_blocks:
            for b in range(b_first, b_last):
                for side in range(2):
                    _flush(sums[b - b_first, 2 + side], out[side, b], first, last)
    clips[task, 0] = n_accesses
    clips[task, 1] = n_conversions


# --- Blocks of any height, on any machine ---------------------------------------------------------------------------


@compiled
def _any_task(task, tables, codes, w, tile, chunk, count_max, out, clips, quads_per_block):
    """Add n and k of some vectors (b quads) and one tile of columns to *out* (2 b c) by counting bits."""
    b_first, b_last, first, last, n_columns = _place_of(task, tile, chunk, codes.shape[0], w.shape[1])
    few_n, few_k = np.zeros(n_columns, np.uint8), np.zeros(n_columns, np.uint8)
    n, k = np.zeros(n_columns, np.int32), np.zeros(n_columns, np.int32)
    n_accesses = n_conversions = 0
    for start in range(0, codes.shape[1], quads_per_block):
        for b in range(b_first, b_last):
            for from_quad in range(start, start + quads_per_block, 63):  # 252 rows, as many as a byte can count
                for quad in range(from_quad, min(from_quad + 63, start + quads_per_block)):
                    same = codes[b, quad]
                    if same != 0:
                        _count_quad(same, w[quad], first, last, few_n, few_k)
                _flush(few_n, n, 0, last - first)
                _flush(few_k, k, 0, last - first)
            clipped = _read(n, k, count_max, first, last, out[0, b], out[1, b])
            n_conversions += clipped
            n_accesses += clipped > 0
    clips[task, 0] = n_accesses
    clips[task, 1] = n_conversions


@compiled
def _count_quad(same, w, first, last, n, k):
    """Add to *n* and *k* what four rows contribute to each column."""
    opposite = np.uint8((same >> 4) | (same << 4))
    weights = w[first:last]
    for c in range(weights.size):
        n[c] += popcount(np.uint8(same & weights[c]))
        k[c] += popcount(np.uint8(opposite & weights[c]))


@compiled
def _histogram_task(first, last, codes, w, quads_per_block, found):
    """Count how often the columns of vectors (b quads) hold each n and each k: *found* (2 counts).

    NOTE: each column has a tally of its own, of a byte, so that one register counts 32 columns.
    """
    n_columns = w.shape[1]
    few_n, few_k = np.zeros(n_columns, np.uint8), np.zeros(n_columns, np.uint8)
    n, k = np.zeros(n_columns, np.int32), np.zeros(n_columns, np.int32)
    tallies = np.zeros((2, found.shape[1], n_columns), np.uint8)
    n_tallied = 0
    is_low = found.shape[1] <= 253
    for b in range(first, last):
        for start in range(0, codes.shape[1], quads_per_block):
            for from_quad in range(start, start + quads_per_block, 63):
                for quad in range(from_quad, min(from_quad + 63, start + quads_per_block)):
                    if codes[b, quad] != 0:
                        _count_quad(codes[b, quad], w[quad], 0, n_columns, few_n, few_k)
                if not is_low:
                    _flush(few_n, n, 0, n_columns)
                    _flush(few_k, k, 0, n_columns)
            if is_low:
                _tally(few_n, tallies[0])
                _tally(few_k, tallies[1])
            else:
                _tally(n, tallies[0])
                _tally(k, tallies[1])
            n_tallied += 1
            if n_tallied == 255:
                _gather_tallies(tallies, found)
                n_tallied = 0
    _gather_tallies(tallies, found)


@compiled
def _tally(counts, tallies):
    """Count the *counts* (c) in *tallies* (counts c), and clear them."""
    for value in range(tallies.shape[0]):
        row, same = tallies[value], counts.dtype.type(value)
        for c in range(counts.size):
            row[c] += np.uint8(counts[c] == same)
    counts[:] = 0


@compiled
def _gather_tallies(tallies, found):
    """Add the tallies of all columns to *found*, and clear them."""
    for side in range(2):
        for value in range(found.shape[1]):
            row = tallies[side, value]
            for c in range(row.size):
                found[side, value] += row[c]
            row[:] = 0


@compiled
def _read(n, k, count_max, first, last, plus, minus):
    """Add the clipped *n* and *k* to *plus* and *minus*, clear them, and return how many columns clipped."""
    n_clipped = 0
    plus, minus = plus[first:last], minus[first:last]
    for c in range(plus.size):
        n_clipped += max(n[c], k[c]) > count_max
        plus[c] += min(n[c], np.int32(count_max))
        minus[c] += min(k[c], np.int32(count_max))
        n[c] = 0
        k[c] = 0
    return n_clipped


@compiled
def _idle_task(task, parts, mask, found):
    """Count the blocks (block part) that have no bit of *mask*."""
    n = 0
    if parts.shape[1] == 1:  # a loop that becomes vector instructions
        for block in range(parts.shape[0]):
            n += parts[block, 0] & mask == 0
    else:
        for block in range(parts.shape[0]):
            bits = parts[block, 0]
            for part in range(1, parts.shape[1]):
                bits |= parts[block, part]
            n += bits & mask == 0
    found[task] = n


# --- Packing --------------------------------------------------------------------------------------------------------


@compiled
def _pack_words_task(first, last, x, codes):
    """Pack the vectors from *first* to *last* where four rows are one word of *x*."""
    for b in range(first, last):
        words, quads = x[b], codes[b]
        for quad in range(words.size):
            sign = words[quad] >> np.uint32(7)
            minus = sign & np.uint32(0x01010101)
            plus = words[quad] & ~sign & np.uint32(0x01010101)
            gather = np.uint32(0x01020408)  # brings the lowest bits of four bytes together, in bits 24 to 27
            plus = np.uint32(plus * gather) >> np.uint32(24)
            minus = np.uint32(minus * gather) >> np.uint32(20)
            quads[quad] = (plus & np.uint32(15)) | (minus & np.uint32(240))


@compiled
def _bits(value, row):
    """Return what one *value* adds to its quad."""
    return (np.uint8(value > 0) << np.uint8(row)) | (np.uint8(value < 0) << np.uint8(row + 4))


@compiled
def _pack_rows_task(first, last, x, rows_per_access, codes):
    """Pack the vectors from *first* to *last* row by row."""
    quads_per_block = (rows_per_access + 3) // 4
    n_rows = x.shape[1]
    for b in range(first, last):
        for block in range((n_rows + rows_per_access - 1) // rows_per_access):
            start = block * rows_per_access
            for row in range(min(rows_per_access, n_rows - start)):
                codes[b, block * quads_per_block + row // 4] |= _bits(x[b, start + row], row % 4)


@compiled
def _gather_patches_task(first, last, pixels, pad, window, patches):
    """Put patches together from pixels (b h w bytes) that are packed already."""
    out_h, out_w, kernel_h, kernel_w, stride_y, stride_x, padding_y, padding_x, step_y, step_x = window
    height, width, n_bytes = pixels.shape[1:]
    for number in range(first, last):
        image = pixels[number // (out_h * out_w)]
        top = number // out_w % out_h * stride_y - padding_y
        left = number % out_w * stride_x - padding_x
        patch = patches[number]
        for y in range(kernel_h):
            for x in range(kernel_w):
                at_y, at_x = top + y * step_y, left + x * step_x
                start = (y * kernel_w + x) * n_bytes
                source = image[at_y, at_x] if 0 <= at_y < height and 0 <= at_x < width else pad
                for byte in range(n_bytes):
                    patch[start + byte] = source[byte]


@compiled
def _pack_halves_task(first, last, x, words):
    """Pack vectors into words of 32 rows."""
    for b in range(first, last):
        for row in range(x.shape[1]):
            bit = np.uint64(1) << np.uint64(row % 32)
            if x[b, row] > 0:
                words[b, row // 32] |= bit
            elif x[b, row] < 0:
                words[b, row // 32] |= bit << np.uint64(32)


@compiled
def _append_patches_task(first, last, pixels, pad, n_channels, window, rows_per_access, patches):
    """Put patches together from pixels (b h w words) that may end anywhere in a quad."""
    out_h, out_w, kernel_h, kernel_w, stride_y, stride_x, padding_y, padding_x, step_y, step_x = window
    height, width = pixels.shape[1:3]
    low_half = np.uint64(0xFFFFFFFF)
    for number in range(first, last):
        image = pixels[number // (out_h * out_w)]
        top = number // out_w % out_h * stride_y - padding_y
        left = number % out_w * stride_x - padding_x
        plus = minus = np.uint64(0)  # rows that are not written yet, the first in the lowest bit
        n_rows = quad = 0  # how many these are; where they go
        room = rows_per_access  # rows that the block still takes
        for y in range(kernel_h):
            for x in range(kernel_w):
                at_y, at_x = top + y * step_y, left + x * step_x
                source = image[at_y, at_x] if 0 <= at_y < height and 0 <= at_x < width else pad
                for word in range(source.size):
                    plus |= (source[word] & low_half) << np.uint64(n_rows)
                    minus |= (source[word] >> np.uint64(32)) << np.uint64(n_rows)
                    n_rows += min(32, n_channels - 32 * word)
                    while n_rows >= min(4, room):
                        n = min(4, room)
                        few = (np.uint64(1) << np.uint64(n)) - np.uint64(1)
                        patches[number, quad] = (plus & few) | (minus & few) << np.uint64(4)
                        plus, minus = plus >> np.uint64(n), minus >> np.uint64(n)
                        quad, n_rows, room = quad + 1, n_rows - n, room - n
                        if room == 0:
                            room = rows_per_access
        if n_rows > 0:
            patches[number, quad] = plus | minus << np.uint64(4)


@compiled
def _add_up_task(first, last, total, part, factor):
    for i in range(first, last):
        total[i] += factor * part[i]
