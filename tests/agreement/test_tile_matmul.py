"""The fast kernels against counting cell by cell, against PyTorch, and against themselves on other threads."""

import threading

import numba
import numpy as np
import pytest
import torch

from imcsim.functional import kernels
from imcsim.functional.crossbar import tile_matmul, tile_matmul_plain
from imcsim.ternary.packing import pack_matrix, pack_vectors, unpack_vectors


@pytest.fixture(params=["AVX2", "any machine"])
def machine(request, monkeypatch):
    if request.param == "any machine":
        monkeypatch.setattr(kernels, "_HAS_SHUFFLE", False)
    elif not kernels._HAS_SHUFFLE:
        pytest.skip("this machine has no AVX2")


def ternary(seed, shape, nonzero=0.6):
    rng = np.random.default_rng(seed)
    return (rng.choice([-1, 1], shape) * (rng.random(shape) < nonzero)).astype(np.int8)


def count_one_by_one(x, w, rows_per_access, count_max, columns_per_tile):
    plus, minus = np.zeros((2, len(x), w.shape[1]), dtype=int)
    n_accesses = n_conversions = 0
    for b in range(len(x)):
        for start in range(0, len(w), rows_per_access):
            tiles = set()
            for c in range(w.shape[1]):
                rows = range(start, min(start + rows_per_access, len(w)))
                products = [int(x[b, r]) * int(w[r, c]) for r in rows]
                n, k = products.count(1), products.count(-1)
                plus[b, c] += min(n, count_max)
                minus[b, c] += min(k, count_max)
                if n > count_max or k > count_max:
                    n_conversions += 1
                    tiles.add(c // columns_per_tile)
            n_accesses += len(tiles)
    return plus, minus, n_accesses, n_conversions


@pytest.mark.parametrize(
    ("rows_per_access", "count_max", "columns_per_tile"),
    [
        (16, 8, 256),
        (16, 3, 32),
        (16, 15, 7),
        (16, 16, 256),
        (7, 2, 40),
        (4, 1, 16),
        (20, 5, 33),
        (64, 9, 20),
        (300, 2, 50),
    ],
)
@pytest.mark.parametrize("nonzero", [0.4, 1.0])
def test_sums_and_clips_are_those_counted_one_by_one(machine, rows_per_access, count_max, columns_per_tile, nonzero):
    x, w = ternary(1, (5, 70), nonzero), ternary(2, (70, 45), nonzero)
    vectors, matrix = pack_vectors(x, rows_per_access), pack_matrix(w, rows_per_access)
    limits = {"count_max": count_max, "columns_per_tile": columns_per_tile}
    for which, driven in (("signed", x), ("positive", x > 0), ("negative", x < 0)):
        plus, minus, *clips = count_one_by_one(driven, w, rows_per_access, count_max, columns_per_tile)
        product = kernels.clipped_product(vectors, matrix, which=which, **limits)
        counts = kernels.clipped_counts(vectors, matrix, which=which, **limits)
        np.testing.assert_array_equal(product.total, plus - minus)
        np.testing.assert_array_equal(counts.plus, plus)
        np.testing.assert_array_equal(counts.minus, minus)
        np.testing.assert_array_equal(counts.total, plus - minus)
        assert [product.n_clipped_accesses, product.n_clipped_conversions] == clips
        assert [counts.n_clipped_accesses, counts.n_clipped_conversions] == clips


def test_dense_blocks_with_all_products_equal_are_clipped_and_counted(machine):
    vectors, matrix = pack_vectors(np.ones((3, 32)), 16), pack_matrix(-np.ones((32, 300)), 16)
    product = kernels.clipped_product(vectors, matrix, count_max=8)
    assert (product.total == -16).all()
    assert product.n_clipped_accesses == 3 * 2 * 2
    assert product.n_clipped_conversions == 3 * 2 * 300


@pytest.mark.parametrize("rows_per_access", [8, 16, 64, 512])
def test_sums_of_many_blocks_do_not_overflow(machine, rows_per_access):
    ones = np.ones((2, 8192), dtype=np.int8)
    for count_max in (1, 7, 8, 15, 300, 1024):
        expected = 8192 // rows_per_access * min(count_max, rows_per_access)
        vectors, matrix = pack_vectors(ones, rows_per_access), pack_matrix(ones.T, rows_per_access)
        assert (kernels.clipped_product(vectors, matrix, count_max=count_max).total == expected).all()
        assert (kernels.clipped_counts(vectors, matrix, count_max=count_max).plus == expected).all()
        assert (kernels.clipped_counts(vectors, matrix, count_max=count_max, which="negative").plus == 0).all()


def test_a_tile_wider_than_a_byte_of_registers_counts_its_clips(machine):
    vectors, matrix = pack_vectors(np.ones((1, 16)), 16), pack_matrix(np.ones((16, 9000)), 16)
    product = kernels.clipped_product(vectors, matrix, count_max=8, columns_per_tile=8960)
    assert (product.n_clipped_accesses, product.n_clipped_conversions) == (2, 9000)


@pytest.mark.parametrize("levels", [{}, {"x_levels": (-0.3, 0.7), "w_levels": (-1.1, 0.9)}])
@pytest.mark.parametrize("rows_per_access", [16, 40])
def test_the_number_of_threads_changes_no_bit(levels, rows_per_access):
    x, w = ternary(3, (333, 200)), ternary(4, (200, 300))
    results = []
    n_threads = numba.get_num_threads()
    try:
        for n in {1, min(2, n_threads), n_threads}:
            numba.set_num_threads(n)
            results.append(tile_matmul(x, w, rows_per_access=rows_per_access, count_max=5, **levels))
    finally:
        numba.set_num_threads(n_threads)
    assert len({result.tobytes() for result in results}) == 1
    np.testing.assert_array_equal(
        results[0][:20], tile_matmul_plain(x, w, rows_per_access=rows_per_access, count_max=5, **levels)[:20]
    )


def test_several_python_threads_may_multiply_at_once():
    x, w = ternary(5, (200, 160)), ternary(6, (160, 64))
    expected, results = tile_matmul(x, w), {}
    threads = [
        threading.Thread(target=lambda name=name: results.update({name: tile_matmul(x, w)})) for name in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((result == expected).all() for result in results.values())


@pytest.mark.parametrize("rows_per_access", [1, 6, 8, 16, 33])
@pytest.mark.parametrize("n_rows", [0, 1, 12, 16, 77])
def test_packing_on_all_threads_is_packing(n_rows, rows_per_access):
    x = ternary(7, (50, n_rows))
    expected = pack_vectors(x, rows_per_access)
    for same in (x, np.asfortranarray(x), np.repeat(x, 2, axis=0)[::2]):
        packed = kernels.pack_vectors_fast(same, rows_per_access)
        np.testing.assert_array_equal(packed.codes, expected.codes)
        assert (packed.n_rows, packed.rows_per_access) == (n_rows, rows_per_access)


@pytest.mark.parametrize(
    ("n_channels", "rows_per_access"), [(3, 16), (16, 16), (32, 16), (4, 16), (5, 5), (10, 5), (7, 16), (6, 33)]
)
@pytest.mark.parametrize(
    "window",
    [
        {"kernel": (3, 3), "padding": (1, 1)},
        {"kernel": (1, 1), "stride": (2, 2)},
        {"kernel": (3, 2), "stride": (2, 1), "padding": (2, 0), "dilation": (1, 2)},
        {"kernel": (5, 5), "padding": (2, 3), "dilation": (2, 1)},
    ],
)
def test_patches_are_those_of_torch_unfold(n_channels, rows_per_access, window):
    images = ternary(8, (2, 9, 8, n_channels))
    unfolded = torch.nn.functional.unfold(
        torch.from_numpy(images).permute(0, 3, 1, 2).float(),
        window["kernel"],
        **{name: value for name, value in window.items() if name != "kernel"},
    )  # b, ch kernel_h kernel_w, windows
    vectors = unfolded.reshape(2, n_channels, -1, unfolded.shape[2]).permute(0, 3, 2, 1)
    expected = vectors.reshape(-1, unfolded.shape[1]).numpy().astype(np.int8)
    packed = kernels.pack_patches(images, **window, rows_per_access=rows_per_access)
    np.testing.assert_array_equal(unpack_vectors(packed), expected)
    np.testing.assert_array_equal(packed.codes, pack_vectors(expected, rows_per_access).codes)


@pytest.mark.parametrize("n_channels", [3, 16])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_the_padding_of_patches_holds_the_value_it_is_given(n_channels, pad_value):
    images = ternary(9, (1, 4, 4, n_channels))
    packed = kernels.pack_patches(images, kernel=(3, 3), padding=(1, 1), pad_value=pad_value, rows_per_access=16)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=pad_value)
    same = kernels.pack_patches(padded, kernel=(3, 3), rows_per_access=16)
    np.testing.assert_array_equal(packed.codes, same.codes)


@pytest.mark.parametrize("shape", [(2, 2, 2, 4), (2, 1, 1, 3), (0, 9, 9, 4), (0, 9, 9, 3)])
def test_no_images_or_images_smaller_than_the_window_have_no_patches(shape):
    packed = kernels.pack_patches(np.zeros(shape, dtype=np.int8), kernel=(5, 5), rows_per_access=16)
    assert packed.codes.shape == (0, 4 * -(-25 * shape[3] // 16))


def test_kernels_compile_where_no_folder_can_be_written(monkeypatch):
    njit = numba.njit

    def refuse_to_cache(*, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refuse_to_cache)
    assert kernels.compiled(lambda value: value + 1)(2) == 3


@pytest.mark.parametrize(("rows_per_access", "n_rows"), [(16, 70), (3, 10), (32, 64), (300, 610)])
def test_histograms_of_counts_are_those_of_a_loop(rows_per_access, n_rows):
    rng = np.random.default_rng(3)
    x = rng.integers(-1, 2, (9, n_rows)).astype(np.int8)
    w = rng.integers(-1, 2, (n_rows, 5)).astype(np.int8)
    expected = np.zeros((2, rows_per_access + 1), int)
    for vector in x:
        for column in w.T:
            for start in range(0, n_rows, rows_per_access):
                products = vector[start : start + rows_per_access] * column[start : start + rows_per_access]
                expected[0, np.sum(products == 1)] += 1
                expected[1, np.sum(products == -1)] += 1
    found = kernels.count_histograms(pack_vectors(x, rows_per_access), pack_matrix(w, rows_per_access))
    assert found.tolist() == expected.tolist()


def test_more_reads_than_a_byte_can_tally_are_all_counted():
    x = pack_vectors(np.ones((300, 32), np.int8), 16)
    found = kernels.count_histograms(x, pack_matrix(np.ones((32, 2), np.int8), 16))
    assert found[0].tolist() == [0] * 16 + [300 * 2 * 2]
    assert found[1].tolist() == [300 * 2 * 2] + [0] * 16
