import subprocess
import sys

import numpy as np
import pytest

from imcsim.ternary.packing import pack_matrix, pack_vectors, unpack_matrix, unpack_vectors


def test_four_rows_make_one_byte_with_plus_in_the_low_half():
    x = np.array([[1, 0, 0, -1, -1, 1]], dtype=np.int8)
    assert pack_vectors(x, 8).codes.tolist() == [[0b1000_0001, 0b0001_0010]]


def test_a_matrix_is_packed_with_its_columns_side_by_side():
    w = np.array([[1, -1], [1, 0], [0, 0], [0, 0], [-1, 1]], dtype=np.int8)
    assert pack_matrix(w, 16).codes.tolist() == [[0b0011, 0b1_0000], [0b1_0000, 0b0001], [0, 0], [0, 0]]


def test_a_block_that_is_no_multiple_of_four_rows_starts_a_new_byte():
    x = np.ones((1, 7), dtype=np.int8)
    packed = pack_vectors(x, 5)
    assert packed.codes.tolist() == [[0b1111, 0b0001, 0b0011, 0]]
    assert (packed.n_blocks, packed.quads_per_block) == (2, 2)


@pytest.mark.parametrize("rows_per_access", [1, 3, 4, 16, 33, 1024])
@pytest.mark.parametrize("n_rows", [0, 1, 5, 16, 100])
def test_unpacking_undoes_packing(rows_per_access, n_rows):
    values = np.random.default_rng(n_rows).integers(-1, 2, (6, n_rows)).astype(np.int8)
    np.testing.assert_array_equal(unpack_vectors(pack_vectors(values, rows_per_access)), values)
    np.testing.assert_array_equal(unpack_matrix(pack_matrix(values.T, rows_per_access)), values.T)


def test_driving_the_negative_inputs_drives_them_as_plus_one():
    x = pack_vectors(np.array([[1, -1, 0, -1]], dtype=np.int8), 16)
    assert unpack_vectors(x.driven("signed")).tolist() == [[1, -1, 0, -1]]
    assert unpack_vectors(x.driven("positive")).tolist() == [[1, 0, 0, 0]]
    assert unpack_vectors(x.driven("negative")).tolist() == [[0, 1, 0, 1]]


def test_a_slice_of_packed_vectors_is_the_packing_of_the_slice():
    x = np.random.default_rng(0).integers(-1, 2, (9, 20)).astype(np.int8)
    np.testing.assert_array_equal(unpack_vectors(pack_vectors(x, 16)[2:5]), x[2:5])


def test_packing_needs_no_numba():
    program = "import sys, imcsim.ternary.packing, imcsim.functional.crossbar; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
