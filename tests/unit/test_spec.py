"""The records of a chip file: frozen, strict, and consistent in themselves."""

import pytest
from pydantic import ValidationError

from imcsim.arch.load import load_chip
from imcsim.arch.spec import Chip, Energy

CHIP = load_chip("tim-dnn")


def changed(**changes) -> dict:
    return CHIP.model_dump() | changes


def test_a_chip_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        CHIP.n_tiles = 3


def test_a_tile_counts_its_blocks_and_the_columns_of_a_pcu():
    assert (CHIP.tile.n_blocks, CHIP.tile.columns_per_pcu) == (16, 8)


def test_a_whole_number_is_a_number_too():
    assert Energy(energy_pJ=3, basis="assumed", source="a test").energy_pJ == 3.0


@pytest.mark.parametrize("value", [True, "3", None, -1.0, float("inf"), float("nan")])
def test_an_energy_is_a_finite_number_from_zero_up(value):
    with pytest.raises(ValidationError):
        Energy(energy_pJ=value, basis="assumed", source="a test")


def test_a_record_with_numbers_needs_a_source():
    with pytest.raises(ValidationError, match="source"):
        Energy(energy_pJ=1.0, basis="assumed", source="")


@pytest.mark.parametrize("n_pcus", [3, 100])
def test_each_pcu_serves_the_same_number_of_columns(n_pcus):
    tile = CHIP.tile.model_dump() | {"n_pcus": n_pcus}
    with pytest.raises(ValidationError, match=rf"n_columns \(256\) evenly, got {n_pcus}"):
        Chip.model_validate(changed(tile=tile))


def test_a_tile_is_made_of_whole_blocks():
    tile = CHIP.tile.model_dump() | {"rows_per_access": 24}
    with pytest.raises(ValidationError, match="a tile is made of whole blocks"):
        Chip.model_validate(changed(tile=tile))


def test_every_record_with_numbers_says_where_they_come_from():
    assert {"basis", "source"} <= CHIP.tile.access.pcus.model_dump().keys()


def test_what_is_not_read_in_the_source_states_a_range():
    recalled = [CHIP.tile.access.pcus, CHIP.tile.access.bitlines, CHIP.main_memory.read_energy, CHIP.network]
    assert all(record.within_factor > 1 for record in recalled)
