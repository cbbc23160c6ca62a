"""Chip files: what is read, and every message for what cannot be read."""

import json
import re
from pathlib import Path

import pytest
import yaml

from imcsim.arch.kinds import KINDS, MODELS
from imcsim.arch.load import chip_schema, dump_chip, load_chip, load_machine, parse_override, shipped_chips, vary
from imcsim.arch.spec import Chip, Imperfections, kinds_of
from imcsim.errors import ConfigError

TIM_DNN = yaml.safe_load(dump_chip(load_chip("tim-dnn")))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to write chip files in, so that messages name them briefly."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(message: str):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


def write(name: str, text: str | bytes) -> None:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def write_changed(name: str, key: str, value: object) -> None:
    """Write tim-dnn with one dotted key set, or taken away where *value* is ``...``."""
    tree = json.loads(json.dumps(TIM_DNN))
    *path, last = key.split(".")
    record = tree
    for step in path:
        record = record[step]
    if value is ...:
        del record[last]
    else:
        record[last] = value
    write(name, yaml.safe_dump(tree, sort_keys=False))


# What is read


def test_a_shipped_chip_is_found_by_its_name():
    assert "tim-dnn" in shipped_chips()
    assert load_chip("tim-dnn").name == "tim-dnn"


def test_every_shipped_chip_loads():
    assert all(load_machine(name).name == name for name in shipped_chips())


def test_a_chip_saved_and_loaded_is_equal(folder):
    chip = load_chip("tim-dnn")
    write("copy.yaml", dump_chip(chip))
    assert load_chip("copy.yaml") == chip
    assert load_chip(folder / "copy.yaml") == chip


def test_an_override_lays_a_value_over_the_file():
    assert load_chip("tim-dnn", {"tile.count_max": 10}).tile.count_max == 10


def test_an_override_given_as_text_is_read_as_yaml():
    assert load_chip("tim-dnn", {"tile.count_max": "10"}).tile.count_max == 10


def test_several_overrides_are_checked_together():
    chip = load_chip("tim-dnn", {"tile.n_pcus": 60, "tile.n_columns": 240})
    assert chip.tile.columns_per_pcu == 4


def test_a_number_set_by_the_user_is_assumed_and_remembers_its_source():
    pcus = load_chip("tim-dnn", {"tile.access.pcus.energy_pJ": 20.0}).tile.access.pcus
    assert pcus.basis == "assumed"
    assert pcus.source == (
        "set by the user (was: TiM-DNN tile access energy, PCUs, recalled; the parts add up to the recalled 26.84 pJ)"
    )


def test_a_published_figure_that_the_user_changes_is_published_no_more():
    figure = load_chip("tim-dnn", {"figures.power_mW.value": 800.0}).figures["power_mW"]
    assert figure.basis == "assumed"


def test_setting_a_number_to_what_it_was_changes_nothing():
    assert load_chip("tim-dnn", {"tile.count_max": 8}) == load_chip("tim-dnn")


def test_a_user_who_gives_a_basis_is_believed():
    overrides = {"tile.count_max": 7, "tile.basis": "published", "tile.source": "measured here"}
    tile = load_chip("tim-dnn", overrides).tile
    assert (tile.basis, tile.source) == ("published", "measured here")


def test_a_change_inside_a_record_leaves_the_records_around_it_alone():
    chip = load_chip("tim-dnn", {"tile.access.pcus.energy_pJ": 20.0})
    assert chip.tile.source == load_chip("tim-dnn").tile.source
    assert chip.tile.access.basis == "recalled"


def test_a_change_of_the_characterized_tile_is_a_change_of_the_access():
    access = load_chip("tim-dnn", {"tile.access.characterized_at.n_rows": 128}).tile.access
    assert access.basis == "assumed"


def test_a_second_override_keeps_the_first_source():
    tile = load_chip("tim-dnn", {"tile.count_max": 10, "tile.n_pcus": 64}).tile
    assert tile.source.count("was:") == 1


def test_the_text_of_an_override_becomes_key_and_value():
    assert parse_override("tile.count_max=10") == ("tile.count_max", 10)
    assert parse_override("double_buffered=false") == ("double_buffered", False)
    assert parse_override("name = my-chip") == ("name", "my-chip")


def test_an_including_file_wins(folder):
    write("tim-8.yaml", "include: tim-dnn\nname: tim-8\ntile: {rows_per_access: 8}\n")
    chip, base = load_chip("tim-8.yaml"), load_chip("tim-dnn")
    assert (chip.name, chip.tile.rows_per_access) == ("tim-8", 8)
    assert chip.tile.source == f"set in tim-8.yaml (was: {base.tile.source})"
    assert chip.tile.access == base.tile.access


def test_an_include_is_found_beside_the_including_file_first(folder):
    (folder / "parts").mkdir()
    write("parts/base.yaml", dump_chip(load_chip("tim-dnn")))
    write("parts/top.yaml", "include: base.yaml\nname: top\n")
    assert load_chip("parts/top.yaml").name == "top"


def test_of_several_includes_the_last_wins(folder):
    write("slow.yaml", "n_tiles: 8\ndouble_buffered: false\n")
    write("few.yaml", "n_tiles: 4\n")
    write("top.yaml", "include: [tim-dnn, slow.yaml, few.yaml]\n")
    chip = load_chip("top.yaml")
    assert (chip.n_tiles, chip.double_buffered) == (4, False)


def test_the_schema_describes_the_file_with_units():
    schema = chip_schema()
    assert schema["$defs"]["Conversion"]["properties"]["interval_ns"]["description"].endswith("Unit: ns.")
    assert "include" in schema["properties"]
    json.dumps(schema)


def test_the_schema_knows_every_kind_and_what_each_needs():
    schema = chip_schema()
    assert schema["discriminator"]["mapping"].keys() == set(KINDS) == set(schema["properties"]["kind"]["enum"])
    for model in MODELS:
        record = schema["$defs"][model.__name__]
        needed, or_includes = (way["required"] for way in record["anyOf"])
        assert {"name", "kind", "description"} <= set(needed)
        assert or_includes == ["include"]
        assert record["additionalProperties"] is False


# Kinds


def test_every_kind_saved_and_loaded_is_equal(folder):
    machines = [load_machine(name) for name in shipped_chips()]
    assert {machine.kind for machine in machines} == set(KINDS)
    for machine in machines:
        write("copy.yaml", dump_chip(machine))
        assert load_machine("copy.yaml") == machine


def test_a_kind_that_no_network_is_placed_on_is_told_where_to_go():
    where, which = "arch/brein.yaml: kind", " or ".join(kinds_of(Chip))
    with refused(f"{where}: must be {which} to place a network on, got throughput; imcsim compare takes it"):
        load_chip("brein")


def test_numbers_of_every_kind_lose_their_basis_when_they_are_changed():
    machine = load_machine("brein", {"peak.macs_per_ns": "500"})
    assert (machine.peak.macs_per_ns, machine.peak.basis) == (500.0, "assumed")
    assert machine.peak.source.startswith("set by the user (was: 1.4 TOPS")
    assert vary(machine, {"area": None}).area is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peak.mac_per_ns": 1.0}, "peak.mac_per_ns: no such field in PeakRate; did you mean 'macs_per_ns'?"),
        ({"energy.covers": "chips"},
         "energy.covers: must be one of array, core, chip, board, got 'chips'; did you mean 'chip'?"),
        ({"area.area_um2": 0.0}, "area.area_um2: must be greater than 0, got 0.0"),
        ({"kind": "throughputs"},
         f"kind: must be one of {', '.join(KINDS)}, got 'throughputs'; did you mean 'throughput'?"),
        ({"kind": "throughput", "tile": 1}, "tile: no such field in ThroughputRow"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_that_does_not_hold_is_named_with_its_own_model(changes, message):
    with refused(message):
        load_machine("brein", changes)


def test_a_variation_keeps_the_model():
    with refused("brein: kind: must stay throughput, got 'ternary-in-memory'"):
        vary(load_machine("brein"), TIM_DNN)


# Files that cannot be read


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tim-dn", "tim-dn: must be a shipped chip (tim-dnn) or a file; did you mean 'tim-dnn'?"),
        ("zebra", "zebra: must be a shipped chip (tim-dnn) or a file"),
        ("arch/tim-dn.yaml", "arch/tim-dn.yaml: no such file; did you mean 'tim-dnn'?"),
        ("some", "some: must be a chip file, got a folder"),
        ("a\0b", "'a\\x00b': must be a shipped chip or a file; no file has such a name"),
    ],
)
def test_a_chip_that_is_not_there(folder, monkeypatch, name, message):
    monkeypatch.setattr("imcsim.arch.load.shipped_chips", lambda: ("tim-dnn",))
    (folder / "some").mkdir()
    with refused(message):
        load_chip(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping of keys to values, got nothing"),
        ("- 1\n", "must be a mapping of keys to values, got a list"),
        ("tim\n", "must be a mapping of keys to values, got 'tim'"),
        (b"name: \xff\n", "must be UTF-8 text, got byte 0xff at 6"),
        ("name: \x01\n", "must be text, got '\\x01' at 6"),
        ("name: x\nname: y\n", "line 2: cannot be read as YAML: the key 'name' stands in line 1 too"),
        ("1: x\n", "line 1: cannot be read as YAML: a key must be text, got 1"),
        ("a: &x 1\nb: *x\n", "line 2: cannot be read as YAML: aliases are not read; use include"),
        ("[" * 5000, "cannot be read as YAML: nested too deeply"),
        ("include: 5\n", "include: must be a file name or a list of them, got 5"),
        ("include: tim-dn\n", "include: no such file or shipped chip, got 'tim-dn'; did you mean 'tim-dnn'?"),
    ],
)
def test_a_file_that_is_no_chip_file(folder, text, message):
    write("x.yaml", text)
    with refused(f"x.yaml: {message}"):
        load_chip("x.yaml")


@pytest.mark.parametrize(
    ("text", "line", "words"),  # the words are those of PyYAML's parser, of which there are two
    [
        ("name: x\ntile: {n_rows: 256,\n", 3, "(stream end|did not find)"),
        ("name: a: b\n", 1, "mapping values are not allo"),
    ],
)
def test_a_file_that_is_cut_off_or_no_yaml(folder, text, line, words):
    write("cut.yaml", text)
    with pytest.raises(ConfigError, match=rf"^cut\.yaml: line {line}: cannot be read as YAML: .*{words}"):
        load_chip("cut.yaml")


def test_a_file_that_wants_to_run_something(folder):
    write("evil.yaml", "name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match=r"^evil\.yaml: line 1: cannot be read as YAML: could not determine a constr"):
        load_chip("evil.yaml")


def test_a_whole_number_of_thousands_of_digits(folder):
    write("big.yaml", f"n_tiles: {'1' * 6000}\n")
    with pytest.raises(ConfigError, match=r"^big\.yaml: cannot be read as YAML: Exceeds the limit"):
        load_chip("big.yaml")


def test_a_file_that_is_far_too_large(folder):
    write("huge.yaml", "#" * (1 << 20) + "\n")
    with refused("huge.yaml: must be a chip file of at most 1048576 bytes, got 1048577"):
        load_chip("huge.yaml")


def test_includes_that_go_round_in_a_circle(folder):
    write("a.yaml", "include: b.yaml\n")
    write("b.yaml", "include: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a file that is being read, got a\.yaml > b\.yaml > a\.yaml$"):
        load_chip("a.yaml")


# Values that do not hold


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tile.pcus.area", 1.0, "tile.pcus.area: no such field in Silicon; did you mean 'area_um2'?"),
        ("tile.wxyz", 1, "tile.wxyz: no such field in Tile"),
        ("tile.n_pcus", ..., "tile.n_pcus: missing; Tile needs it"),
        ("tile.access.pcus.source", ..., "tile.access.pcus.source: missing; Energy needs it"),
        ("tile.access.pcus", ..., "tile.access.pcus: missing; Access needs it"),
        ("n_tiles", 1.0, "n_tiles: must be a whole number, got 1.0; write 1"),
        ("n_tiles", 1.5, "n_tiles: must be a whole number, got 1.5"),
        ("n_tiles", "32", "n_tiles: must be a whole number, got '32'; YAML reads it as text, write 32"),
        ("n_tiles", True, "n_tiles: must be a whole number, got true"),
        ("n_tiles", None, "n_tiles: must be a whole number, got nothing"),
        ("n_tiles", 0, "n_tiles: must be at least 1, got 0"),
        ("n_tiles", 10**13, "n_tiles: must be at most 1099511627776, got 10000000000000"),
        ("double_buffered", 1, "double_buffered: must be true or false, got 1"),
        ("name", 5, "name: must be text, got 5"),
        ("name", "A B", "name: must match ^[a-z0-9][a-z0-9._-]*$, got 'A B'"),
        ("tile.source", "", "tile.source: must not be empty, got ''"),
        ("tile", 5, "tile: must be a mapping, got 5"),
        ("figures", [1], "figures: must be a mapping, got a list"),
        ("figures.power_mW.value", "x", "figures.power_mW.value: must be a number, got 'x'"),
        ("figures.power_mW.unity", "x", "figures.power_mW.unity: no such field in Figure; did you mean 'unit'?"),
        ("tile.pcus.area_um2", -1.0, "tile.pcus.area_um2: must be at least 0, got -1.0"),
        ("tile.access.latency_ns", 0.0, "tile.access.latency_ns: must be greater than 0, got 0.0"),
        ("tile.pcus.area_um2", float("nan"), "tile.pcus.area_um2: must be finite, got nan"),
        ("tile.pcus.area_um2", float("inf"), "tile.pcus.area_um2: must be finite, got inf"),
        (
            "tile.pcus.area_um2",
            "1e-3",
            "tile.pcus.area_um2: must be a number, got '1e-3'; YAML reads it as text, write 0.001",
        ),
        (
            "tile.pcus.area_um2",
            10**400,
            "tile.pcus.area_um2: must be a number, got a whole number of more than 40 digits",
        ),
        (
            "tile.basis",
            "recaled",
            "tile.basis: must be one of published, recalled, derived, fitted, assumed, got 'recaled'; "
            "did you mean 'recalled'?",
        ),
        (
            "kind",
            "ternary-in-memry",
            f"kind: must be one of {', '.join(KINDS)}, got 'ternary-in-memry'; did you mean 'ternary-in-memory'?",
        ),
        ("kind", ..., f"kind: must be one of {', '.join(KINDS)}, got nothing"),
        ("kind", [1], f"kind: must be one of {', '.join(KINDS)}, got a list"),
        (
            "tile.n_pcus",
            10,
            "tile.n_pcus: must divide n_columns (256) evenly, got 10; each PCU serves the same number of columns",
        ),
    ],
)
def test_a_value_that_does_not_hold_is_named_with_file_and_key(folder, key, value, message):
    write_changed("x.yaml", key, value)
    with refused(f"x.yaml: {message}"):
        load_chip("x.yaml")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tile.count_mx", 10, "tile.count_mx: no such field in Tile; did you mean 'count_max'?"),
        ("tilt.count_max", 10, "tilt: no such field in Chip; did you mean 'tile'?"),
        ("tile.n_pcus", 10,
         "tile.n_pcus: must divide n_columns (256) evenly, got 10; each PCU serves the same number of columns"),
        ("tile.count_max", "", "tile.count_max: must be a whole number, got nothing"),
        ("tile.count_max", "1e1", "tile.count_max: must be a whole number, got '1e1'; YAML reads it as text, write 10"),
        ("tile.count_max", "[1]", "tile.count_max: must be a whole number, got a list"),
        ("tile.count_max.x", 1, "tile.count_max: must be a whole number, got a mapping"),
    ],
)  # fmt: skip
def test_an_override_that_does_not_hold_is_named_by_its_key_alone(key, value, message):
    with refused(message):
        load_chip("tim-dnn", {key: value})


def test_an_override_that_breaks_what_the_file_says_names_the_file():
    with pytest.raises(ConfigError, match=r"^arch/tim-dnn\.yaml: tile\.n_pcus: must divide n_columns \(250\) evenly"):
        load_chip("tim-dnn", {"tile.n_columns": 250})


@pytest.mark.parametrize("text", ["tile.count_max", "=10", "tile..count_max=10", ".x=1"])
def test_an_override_without_key_or_value(text):
    with refused(f"override: must be KEY=VALUE, got {text!r}; for example tile.count_max=10"):
        parse_override(text)


def test_null_takes_a_record_of_an_included_file_away(folder):
    write("x.yaml", "include: tim-dnn\nname: x\nfigures: null\ncircuit: null\ntile: {imperfections: null}\n")
    chip = load_chip("x.yaml")
    assert (chip.figures, chip.circuit) == ({}, None)
    assert chip.tile.imperfections == Imperfections()
    write("x.yaml", "include: tim-dnn\ntile: {pcus: null}\n")
    with refused("x.yaml: tile.pcus: missing; Tile needs it"):
        load_chip("x.yaml")


def test_several_problems_come_in_one_line(folder):
    tree = TIM_DNN | {"n_tiles": 0, "name": "X"}
    del tree["network"]
    write("x.yaml", yaml.safe_dump(tree))
    with refused(
        "x.yaml: name: must match ^[a-z0-9][a-z0-9._-]*$, got 'X' (and 2 more: n_tiles: must be at least 1, got 0 | "
        "network: missing; Chip needs it)"
    ):
        load_chip("x.yaml")


def test_a_problem_is_named_by_the_file_that_it_stands_in(folder):
    write("part.yaml", "n_tiles: 0\n")
    write("top.yaml", "include: [tim-dnn, part.yaml]\n")
    with pytest.raises(ConfigError, match=r"part\.yaml: n_tiles: must be at least 1, got 0$"):
        load_chip("top.yaml")


def test_no_message_points_to_pydantic(folder):
    write("x.yaml", "name: x\nn_tiles: []\n")
    with pytest.raises(ConfigError) as error:
        load_chip("x.yaml")
    assert "pydantic" not in str(error.value)
    assert "\n" not in str(error.value)
