"""One vector-matrix product on one tile: literal times and energies, and where they come from."""

import numpy as np
import pytest

import imcsim
from imcsim.costs.activity import relative_energy
from imcsim.errors import ConfigError

TIM_DNN, TIM_8, NEAR = map(imcsim.load_chip, ("tim-dnn", "tim-8", "near-memory-iso-capacity"))


def test_a_tile_takes_the_accesses_that_the_rows_need():
    for chip, n_accesses, time_ns in ((TIM_DNN, 1, 2.3), (TIM_8, 2, 4.6), (NEAR, 16, 27.2)):
        found = imcsim.kernel(chip, 0.5)
        assert (found.n_accesses, found.time_ns) == (n_accesses, pytest.approx(time_ns))
    assert imcsim.kernel(NEAR, 0.5).latency_ns == pytest.approx(16 * 1.70 + 1.0)
    assert imcsim.kernel(TIM_DNN, 0.5, n_rows=17).n_accesses == 2


def test_at_the_activity_of_the_file_it_spends_the_files_energy():
    found = imcsim.kernel(TIM_DNN, 0.64)
    assert found.energy_pJ == pytest.approx([26.84])
    assert {name: float(part[0]) for name, part in found.parts_pJ.items()} == pytest.approx(
        {"tile.wordlines": 0.38, "tile.decoders": 0.28, "tile.bitlines": 9.18, "tile.pcu": 17}
    )
    assert imcsim.kernel(NEAR, 0.64).energy_pJ == pytest.approx([16 * (6.2 + 2.6 + 0.158 + 0.28)])


def test_a_decoder_that_is_a_stage_of_its_own_takes_its_time_and_no_other_energy():
    apart = imcsim.kernel(imcsim.load_chip("tim-dnn", {"tile.block_select.latency_ns": 3.0}), 0.5, n_rows=32)
    within = imcsim.kernel(TIM_DNN, 0.5, n_rows=32)
    assert apart.energy_pJ == pytest.approx(within.energy_pJ)
    assert apart.parts_pJ["tile.decoders"] == pytest.approx([2 * 0.28])
    assert (apart.time_ns, apart.latency_ns) == pytest.approx((6.0, within.latency_ns + 3.0 + 0.7))  # 3.0 between two


def test_only_bitlines_that_count_follow_the_zeros():
    zeros = np.linspace(0, 1, 11)
    counted, read = imcsim.kernel(TIM_DNN, zeros), imcsim.kernel(NEAR, zeros)
    assert np.all(np.diff(counted.energy_pJ) < 0)
    assert counted.parts_pJ["tile.bitlines"][-1] == 0
    assert counted.energy_pJ == pytest.approx(sum(counted.parts_pJ.values()))
    assert np.ptp(read.energy_pJ) == 0


def test_energies_are_those_of_drawn_products():
    zero, rng = 0.3, np.random.default_rng(0)
    products = rng.choice([1, -1, 0], p=[(1 - zero) / 2, (1 - zero) / 2, zero], size=(200_000, 16))
    n, k = (np.bincount((products == sign).sum(axis=1), minlength=17) for sign in (1, -1))
    found = imcsim.kernel(TIM_DNN, zero)
    assert found.parts_pJ["tile.bitlines"][0] == pytest.approx(9.18 * relative_energy(TIM_DNN, n, k), rel=3e-3)
    assert found.zero_outputs[0] == pytest.approx(np.mean(products.sum(axis=1) == 0), abs=3e-3)


@pytest.mark.parametrize(
    ("zeros", "more", "message"),
    [
        ([0.5, 1.5], {}, "kernel: zero_products must be shares from 0 to 1, got"),
        (float("nan"), {}, "kernel: zero_products must be shares from 0 to 1, got nan"),
        (0.5, {"n_rows": 257}, "kernel: n_rows must be from 1 to 256, those of a tile of tim-dnn, got 257"),
        (0.5, {"n_columns": 0}, "kernel: n_columns must be from 1 to 256, those of a tile of tim-dnn, got 0"),
    ],
)
def test_what_is_no_share_or_fits_no_tile_is_refused(zeros, more, message):
    with pytest.raises(ConfigError, match=message):
        imcsim.kernel(TIM_DNN, zeros, **more)
