"""The near-memory baselines of TiM-DNN, and TiM-8: what the paper prints of them."""

from pathlib import Path

import pytest
import yaml

import imcsim
from imcsim.costs.price import price

GOLDEN = yaml.safe_load(Path(__file__).with_name("near-memory-baselines.yaml").read_text())
TIM_DNN, ISO_CAPACITY, ISO_AREA = map(imcsim.load_chip, ("tim-dnn", "near-memory-iso-capacity", "near-memory-iso-area"))


def tiles_um2(chip):
    return sum(area.area_um2 for area in price(chip).areas if area.component.startswith("tile."))


@pytest.mark.parametrize("row", GOLDEN["kernel_speedups"], ids=lambda row: row["chip"])
def test_a_kernel_is_as_much_faster_as_printed(row):
    speedup = imcsim.kernel(ISO_CAPACITY, 0.5).time_ns / imcsim.kernel(imcsim.load_chip(row["chip"]), 0.5).time_ns
    assert speedup == pytest.approx(row["printed"], abs=row["step"] / 2)


@pytest.mark.parametrize("row", GOLDEN["n_tiles"], ids=lambda row: row["chip"])
def test_a_baseline_has_the_printed_tiles(row):
    assert imcsim.load_chip(row["chip"]).n_tiles == row["printed"]


def test_a_tile_is_smaller_by_the_printed_ratio_and_sixty_take_the_area_of_tim_dnns():
    ratio = GOLDEN["tile_area_ratio"]
    assert tiles_um2(TIM_DNN) / tiles_um2(ISO_CAPACITY) == pytest.approx(ratio["printed"], abs=ratio["step"] / 2)
    a_tile = tiles_um2(ISO_AREA) / ISO_AREA.n_tiles
    assert tiles_um2(TIM_DNN) / a_tile == pytest.approx(ISO_AREA.n_tiles, abs=0.6)  # 60.5: 61 would not fit
    assert tiles_um2(ISO_AREA) < tiles_um2(TIM_DNN)


def test_a_baseline_has_the_capacity_and_the_rest_of_the_system_of_tim_dnn():
    assert (ISO_CAPACITY.tile.n_rows, ISO_CAPACITY.tile.n_columns) == (TIM_DNN.tile.n_rows, TIM_DNN.tile.n_columns)
    for part in ("activation_buffer", "psum_buffer", "reduce_unit", "sfu", "scheduler", "network", "main_memory"):
        assert getattr(ISO_CAPACITY, part) == getattr(ISO_AREA, part) == getattr(TIM_DNN, part)
