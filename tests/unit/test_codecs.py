import numpy as np
import pytest

from imcsim.errors import ConfigError
from imcsim.ternary import CODECS, binary, bit_serial, sign_magnitude, ternary


def test_binary_and_ternary_codes_are_their_own_plane():
    assert binary().encode(np.array([-1, 1])).tolist() == [[-1, 1]]
    assert ternary().encode(np.array([-1, 0, 1])).tolist() == [[-1, 0, 1]]


def test_bit_serial_planes_are_the_bits_least_first():
    assert bit_serial(3).encode(np.array([0, 5, 7])).tolist() == [[0, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert bit_serial(3).factors == (1, 2, 4)


def test_sign_magnitude_planes_are_the_bits_of_the_magnitude_each_with_the_sign():
    assert sign_magnitude(3).encode(np.array([-3, -2, 0, 1])).tolist() == [[-1, 0, 0, 1], [-1, -1, 0, 0]]
    assert sign_magnitude(8).n_planes == 7


def test_codecs_are_found_by_name():
    assert CODECS["bit-serial"](2).name == "bit-serial"
    assert {"binary", "bit-serial", "sign-magnitude", "ternary"} <= set(CODECS)


def test_a_codec_makes_an_operand_with_its_scale():
    operand = bit_serial(2).plane_sum(np.array([[0, 3]]), scale=0.25)
    assert operand.to_numbers().tolist() == [[0.0, 0.75]]
    assert operand.is_whole


@pytest.mark.parametrize(
    ("codec", "code", "message"),
    [
        (ternary(), 2, r"ternary: codes must be from -1 to 1, got 2"),
        (binary(), -2, r"binary: codes must be from -1 to 1, got -2"),
        (bit_serial(2), -1, r"bit-serial: codes must be from 0 to 3, got -1"),
        (bit_serial(2), 4, r"bit-serial: codes must be from 0 to 3, got 4"),
        (sign_magnitude(3), -4, r"sign-magnitude: codes must be from -3 to 3, got -4"),
    ],
)
def test_a_code_that_the_planes_cannot_carry_is_refused(codec, code, message):
    with pytest.raises(ConfigError, match=message):
        codec.encode(np.array([0, code]))


@pytest.mark.parametrize("bits", [0, 33, 2.0, "2"])
def test_bits_that_are_no_whole_number_in_range_are_refused(bits):
    with pytest.raises(ConfigError, match=r"bit-serial: bits must be a whole number from 1 to 32, got"):
        bit_serial(bits)


def test_one_bit_holds_no_sign_and_magnitude():
    with pytest.raises(ConfigError, match=r"sign-magnitude: bits must be a whole number from 2 to 32, got 1"):
        sign_magnitude(1)
