"""Sweep files: what is read, and every message for what cannot be read."""

import json
import re
from pathlib import Path

import pytest
import yaml

from imcsim.arch.load import dump_chip, load_chip
from imcsim.errors import ConfigError
from imcsim.sweep.objectives import Objective
from imcsim.sweep.parameters import Choices
from imcsim.sweep.space import Sampling
from imcsim.sweep.spec import Search, Training, load_sweep, sweep_from, sweep_schema
from imcsim.sweep.stages import Stage

PLAIN = {
    "workload": "digits-ternary-cnn",
    "chip": "tim-dnn",
    "parameters": {"tile.count_max": [4, 8, 12]},
    "objectives": ["latency", "energy"],
}
FULL = """
name: count-max
description: "What the ADCs tell apart: a study"
workload: [digits-ternary-cnn, fashion-ternary-cnn]
chip: tim-dnn
stages:
  - {engine: estimate, keep: 10%}
  - {engine: [simulate], keep: front}
  - {engine: execute, samples: 500}
parameters:
  tile.count_max: [4, 8, 12]
  tile.rows_per_access: {values: [8, 16, 32], when: "tile.count_max >= 8"}
  main_memory.bits_per_ns: {low: 64, high: 4096, scale: log, n: 7}
  tile.block_select.latency_ns: {distribution: normal, mean: 1, sd: 0.2, low: 0}
  mapping.policy: [least_time, least_energy_delay]
  mapping.style: [spatial, temporal]
  mapping.batch: [1, 8]
  tile.imperfections.adc_offset_counts: [0, 0.5]
  circuit.variation.threshold_fraction: [0.05, 0.1]
  seed: [0, 1]
constraints: ["tile.n_rows % rows_per_access == 0", area <= 2 mm2, latency <= 3 ms]
objectives: [latency_ns, energy, accuracy]
sampling: {method: latin-hypercube, n: 100, seed: 3}
samples: 200
seed: 7
data: sets
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to write files in, so that messages name them briefly."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(message):
    return pytest.raises(ConfigError, match=f"^{re.escape(message)}$")


def made(**changes):
    """The plain sweep with other keys; None takes one away."""
    tree = {key: value for key, value in (PLAIN | changes).items() if value is not None}
    return sweep_from(tree, "s.yaml", ".")


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


# What is read


def test_a_file_becomes_a_sweep(folder):
    write("count-max.yaml", FULL)
    sweep = load_sweep("count-max.yaml")
    assert (sweep.name, sweep.description) == ("count-max", "What the ADCs tell apart: a study")
    assert (sweep.workload, sweep.workloads) == ("digits-ternary-cnn", ("digits-ternary-cnn", "fashion-ternary-cnn"))
    assert sweep.chip == "tim-dnn"
    assert sweep.space.base == load_chip("tim-dnn")
    assert sweep.stages == (
        Stage(("estimate",), keep=0.1),
        Stage(("simulate",), keep="front"),
        Stage(("execute",), n_samples=500),
    )
    assert sweep.objectives == tuple(
        Objective(*names) for names in [("latency_ns", "latency_ns"), ("energy", "energy_pJ"), ("accuracy", "accuracy")]
    )
    assert sweep.space.parameters[0].name == "workload"
    assert sweep.space.sampling == Sampling("latin-hypercube", 100, 3)
    assert (sweep.seed, sweep.data, sweep.search, sweep.training) == (7, "sets", None, None)
    assert len(sweep.space.points()) == 100


def test_what_is_not_said_has_a_default():
    sweep = made()
    assert (sweep.name, sweep.description, sweep.seed, sweep.data) == ("sweep", "", 0, None)
    assert sweep.stages == (Stage(("estimate",)),)
    assert sweep.space.sampling == Sampling()
    assert sweep.workloads == ("digits-ternary-cnn",)


def test_a_sweep_is_called_after_its_file(folder):
    write("my-sweep.yaml", yaml.safe_dump(PLAIN))
    assert load_sweep(folder / "my-sweep.yaml").name == "my-sweep"


def test_the_normalised_text_gives_an_equal_sweep(folder):
    write("sweep.yaml", FULL)
    sweep = load_sweep("sweep.yaml")
    write("again/sweep.yaml", sweep.normalised())
    again = load_sweep("again/sweep.yaml")
    assert again == sweep
    assert again.normalised() == sweep.normalised() == sweep.text


def test_what_means_the_same_has_the_same_text():
    assert made(engine="estimate", seed=0, sampling={"method": "grid"}).text == made().text
    assert made(seed=1).text != made().text


def test_engines_are_ordered_and_all_of_them_have_a_word():
    assert made(engine="all", samples=9).stages == (Stage(("estimate", "simulate", "execute"), n_samples=9),)
    assert made(engine=["simulate", "estimate"]).stages == (Stage(("estimate", "simulate")),)


@pytest.mark.parametrize(
    ("keep", "kept"), [(200, 200), ("10%", 0.1), (" 12.5 % ", 0.125), (0.25, 0.25), ("front", "front")]
)
def test_points_that_go_on_are_a_number_a_share_or_the_front(keep, kept):
    stages = [{"engine": "estimate", "keep": keep}, {"engine": "simulate"}]
    assert made(stages=stages).stages[0].keep == kept


def test_samples_at_the_top_are_those_of_the_stages_that_execute():
    stages = [{"engine": "estimate", "keep": 3}, {"engine": "execute", "keep": 2}, {"engine": "execute", "samples": 9}]
    found = made(stages=stages, samples=5, objectives=["latency", "accuracy"]).stages
    assert [stage.n_samples for stage in found] == [None, 5, 9]


def test_a_search_and_a_training_are_read():
    search = {"sampler": "tpe", "evaluations": 40, "population": 10, "prune": True, "seed": 3}
    assert made(search=search).search == Search(**search)
    assert made(search={"evaluations": 40}).search == Search(
        sampler="nsga2", evaluations=40, population=40, prune=False, seed=0
    )
    quantizers = {
        "quantizer": ["lsq:bits_w=2", "xnor-net"],
        "quantizer.bits_w": {"values": [1, 2], "when": "quantizer != 'xnor-net'"},
    }
    sweep = made(
        parameters=quantizers, engine="execute", objectives=["accuracy"], training={"epochs": 3, "samples": 600}
    )
    assert sweep.training == Training(epochs=3, samples=600)
    assert len(sweep.space.points()) == 3


def test_the_workload_may_be_a_parameter_alone():
    sweep = made(workload=None, parameters={"workload": ["digits-ternary-cnn", "resnet34"]})
    assert sweep.workloads == ("digits-ternary-cnn", "resnet34")
    assert [row["workload"] for row in sweep.space.points().rows()] == ["digits-ternary-cnn", "resnet34"]


def test_paths_begin_at_the_folder_of_the_file_or_at_the_working_folder(folder):
    write("nets/mine/workload.py", "")
    write("nets/chip.yaml", dump_chip(load_chip("tim-dnn")))
    write("nets/sweep.yaml", yaml.safe_dump(PLAIN | {"workload": "mine", "chip": "chip.yaml", "data": "mine"}))
    sweep = load_sweep("nets/sweep.yaml")
    assert (sweep.workload, sweep.folder) == ("mine", folder / "nets")
    assert sweep.chip == str(folder / "nets" / "chip.yaml")
    assert sweep.data == str(folder / "nets" / "mine")
    write("nets/other.yaml", yaml.safe_dump(PLAIN | {"workload": "nets/mine", "chip": "nets/chip.yaml"}))
    other = load_sweep("nets/other.yaml")
    assert (other.workload, other.folder, other.chip) == ("nets/mine", folder, sweep.chip)


def test_a_normalised_text_finds_the_same_files_from_elsewhere(folder, monkeypatch):
    write("nets/mine/workload.py", "")
    write("nets/chip.yaml", dump_chip(load_chip("tim-dnn")))
    write("nets/points.csv", "n_tiles\n8\n16\n")
    tree = {"workload": "mine", "chip": "chip.yaml", "points": "points.csv", "objectives": ["area"]}
    write("nets/sweep.yaml", yaml.safe_dump(tree))
    sweep = load_sweep("nets/sweep.yaml")
    write("out/sweep.yaml", sweep.text)
    monkeypatch.chdir(folder / "out")
    again = load_sweep("sweep.yaml")
    assert again == sweep
    assert (again.folder, again.text) == (sweep.folder, sweep.text)
    write("../nets/points.csv", "n_tiles\n8\n17\n")
    assert load_sweep("sweep.yaml").text != sweep.text


# Points one by one


def listed(points, **changes):
    return made(parameters=None, points=points, **changes)


def test_points_of_a_csv_file_have_the_types_that_they_look_like(folder):
    write(
        "p.csv",
        "n_tiles,tile.serial,double_buffered,main_memory.latency_ns,mapping.batch\n"
        '8,bit,true,1.5,\n16,"trit", false,2,4\n',
    )
    sweep = listed("p.csv")
    assert list(sweep.space.points().rows()) == [
        {"n_tiles": 8, "tile.serial": "bit", "double_buffered": True, "main_memory.latency_ns": 1.5},
        {
            "n_tiles": 16,
            "tile.serial": "trit",
            "double_buffered": False,
            "main_memory.latency_ns": 2.0,
            "mapping.batch": 4,
        },
    ]
    assert sweep.space.by_name["mapping.batch"].domain == Choices((4,))


def test_a_hundred_thousand_points_of_a_csv_file_are_read(folder):
    write("p.csv", "n_tiles,mapping.batch\n" + "".join(f"{n},{m}\n" for n in range(1, 1001) for m in range(1, 101)))
    assert len(listed("p.csv").space.points()) == 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n_tiles\n8\n8\n", "p.csv: 2: must be a point of its own, got point 1 again"),
        ("n_tiles,n_tiles\n8,9\n", "p.csv: must name every column once in its first line, got 'n_tiles,n_tiles'"),
        ("n_tiles,\n8,9\n", "p.csv: must name every column once in its first line, got 'n_tiles,'"),
        ("", "p.csv: must name every column once in its first line, got ''"),
        ("n_tiles\nnan\n", "p.csv: n_tiles: must be finite, got nan in point 1"),
        ("n_tiles,seed\n8,\n", "p.csv: seed: must have a value in some point, got none"),
        ("tiles\n8\n", "tiles: no such key of tim-dnn, and no other parameter; did you mean 'n_tiles'?"),
        ("n_tiles\n8.5\n", "n_tiles: must be a whole number, got 8.5"),
    ],
)
def test_what_is_wrong_in_a_csv_file_is_said(folder, text, message):
    write("p.csv", text)
    with refused(f"s.yaml: points: {message}"):
        listed("p.csv")


@pytest.mark.parametrize(
    "text", ["n_tiles\n", "n_tiles,seed\n8\n", b"\xff\xfe\x00n\n1\n", b"n_tiles\n\xff\n", b"\0\1\2"]
)
def test_a_csv_file_that_cannot_be_read_is_one_line(folder, text):
    write("p.csv", text)
    with pytest.raises(ConfigError, match=r"^s.yaml: points: (p.csv: )?[^\n]+$"):
        listed("p.csv")


def test_a_csv_file_must_be_there(folder):
    with refused("s.yaml: points: p.csv: no such file"):
        listed("p.csv")
    (folder / "p.csv").mkdir()
    with refused("s.yaml: points: p.csv: must be a CSV file, got a folder"):
        listed("p.csv")


def test_a_csv_file_that_is_huge_is_refused(folder):
    with open("p.csv", "wb") as file:
        file.truncate((1 << 30) + 1)  # sparse
    with refused("s.yaml: points: p.csv: must be a CSV file of at most 1073741824 bytes, got 1073741825"):
        listed("p.csv")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "points: must hold at least one, got an empty list"),
        (3, "points: must be a list of points, got 3"),
        ([3], "points: 1: must be a mapping of parameters to values, got 3"),
        ([{}], "points: 1: must be a mapping of parameters to values, got a mapping"),
        ([{"n_tiles": [1]}], "points: 1: n_tiles: must be a number, text, true or false, got a list"),
        ([{"n_tiles": 1}, {"n_tiles": float("inf")}], "points: 2: n_tiles: must be finite, got inf"),
        ([{"n_tiles": 1}, {"n_tiles": "x"}], "points: 2: n_tiles: must be a number as in the points before, got 'x'"),
        ([{"n_tiles": 1}, {"n_tiles": 2}, {"n_tiles": 1}], "points: 3: must be a point of its own, got point 1 again"),
        ([{"n_tiles": 1}, {"n_tiles": 0}], "points: n_tiles: must be greater than or equal to 1, got 0"),
    ],
)
def test_what_is_wrong_in_listed_points_is_said(points, message):
    with pytest.raises(ConfigError, match=f"^s.yaml: {re.escape(message.partition(' must be greater')[0])}"):
        listed(points)


def test_points_stand_in_place_of_parameters_and_samplings():
    for key, value in (
        ("parameters", {"n_tiles": [1]}),
        ("sampling", {"method": "grid"}),
        ("search", {"evaluations": 3}),
    ):
        with refused(f"s.yaml: points: must stand in place of {key}, got both"):
            sweep_from(
                {key: value for key, value in PLAIN.items() if key != "parameters"}
                | {"points": [{"n_tiles": 1}], key: value},
                "s.yaml",
                ".",
            )
    with refused("s.yaml: points: must each name their workload where there are several, got a list of workloads"):
        listed([{"n_tiles": 1}], workload=["resnet34", "resnet18"])
    with refused("s.yaml: workload: missing; points that have none of their own need it"):
        listed([{"n_tiles": 1}, {"workload": "resnet34"}], workload=None)


# What is refused: keys


def test_keys_that_are_missing_or_unknown_are_named():
    with refused("s.yaml: chip: missing; a sweep needs it"):
        made(chip=None)
    with refused("s.yaml: objectives: missing; a sweep needs it"):
        made(objectives=None)
    with refused("s.yaml: workload: missing; a sweep needs it"):
        made(workload=None)
    with refused("s.yaml: parameters: must name at least one, got none; a sweep needs parameters or points"):
        made(parameters=None)
    with refused("s.yaml: objektives: no such key; did you mean 'objectives'?"):
        made(objektives=["latency"])
    with refused("s.yaml: chip: missing; a sweep needs it (and 1 more: chips: no such key; did you mean 'chip'?)"):
        made(chip=None, chips="tim-dnn")
    with refused("s.yaml: seed: must have a value, got nothing; leave the key out for the default"):
        sweep_from(PLAIN | {"seed": None}, "s.yaml", ".")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name: must be text, got 3"),
        ({"name": ""}, "name: must not be empty, got ''"),
        ({"chip": 3}, "chip: must be text, got 3"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"seed": 1.5}, "seed: must be a whole number, got 1.5"),
        ({"seed": True}, "seed: must be a whole number, got true"),
        ({"samples": 0, "engine": "execute"}, "samples: must be at least 1, got 0"),
        ({"samples": 5}, "samples: must go with execute, got estimate"),
        ({"workload": 3}, "workload: must be a list of workloads, got 3"),
        ({"workload": []}, "workload: must hold at least one, got an empty list"),
        ({"workload": [3]}, "workload: must be a name or a path, or a list of them, got 3"),
        (
            {"workload": ["resnet34", "resnet34"]},
            "parameters: workload: must hold every value once, got 'resnet34' twice",
        ),
        ({"parameters": [1]}, "parameters: must be a mapping of names to values, got a list"),
        ({"constraints": "n_tiles < 3"}, "constraints: must be a list of texts, got 'n_tiles < 3'"),
        ({"constraints": [3]}, "constraints: must be texts, got 3"),
        ({"objectives": []}, "objectives: must hold at least one, got an empty list"),
        ({"objectives": "latency"}, "objectives: must be a list of objectives, got 'latency'"),
        ({"objectives": [3]}, "objectives: must be names, got 3"),
        ({"objectives": ["latency", "latency_ns"]}, "objectives: must name everything once, got latency_ns twice"),
        ({"training": {"epochs": 3}}, "training: must have something to train, got no quantizer among the parameters"),
        (
            {"workload": ["resnet34", "resnet18"], "parameters": {"workload": ["resnet34"]}},
            "parameters: workload: must not be given beside a list under workload, got both",
        ),
        (
            {"workload": None, "parameters": {"workload": {"values": ["resnet34"], "when": "seed == 3"}}},
            "workload: missing; points that have none of their own need it",
        ),
    ],
)
def test_what_is_wrong_at_the_top_is_said(changes, message):
    with refused(f"s.yaml: {message}"):
        made(**changes)


def test_an_unknown_chip_or_workload_is_said():
    with pytest.raises(
        ConfigError, match=r"^s.yaml: chip: tim-dn: must be a shipped chip .*; did you mean 'tim-dnn'\?$"
    ):
        made(chip="tim-dn")
    with pytest.raises(ConfigError, match=r"^s.yaml: chip: arch/v100.yaml: kind: must be "):
        made(chip="v100")
    with pytest.raises(ConfigError, match=r"^s.yaml: workload: resnet33: must be .*; did you mean 'resnet34'\?$"):
        made(workload="resnet33")
    with pytest.raises(ConfigError, match=r"^s.yaml: workload: resnet33: must be .*; did you mean 'resnet34'\?$"):
        made(workload=["resnet34", "resnet33"])


def test_an_objective_that_no_engine_gives_names_the_engine_that_would():
    with refused(
        "s.yaml: objectives: accuracy: must be a figure that estimate or simulate gives, got one that execute gives; "
        "add execute to the engines"
    ):
        made(engine=["estimate", "simulate"], objectives=["latency", "accuracy"])
    with refused(
        "s.yaml: objectives: energy: must be a figure that execute gives, got one that estimate or simulate gives; add "
        "estimate to the engines"
    ):
        made(engine="execute", objectives=["energy"])
    with refused(
        "s.yaml: constraints: 'accuracy > 0.9': accuracy: must be a figure that estimate gives, got one that execute "
        "gives; add execute to the engines"
    ):
        made(constraints=["accuracy > 0.9"])
    with pytest.raises(
        ConfigError, match=r"^s.yaml: objectives: must be among .*, got 'latencey'; did you mean 'latency'\?$"
    ):
        made(objectives=["latencey"])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "stages: must hold at least one, got an empty list"),
        ({"engine": "estimate"}, "stages: must be a list of stages, got a mapping"),
        (["estimate"], "stages: 1: must be a mapping, got 'estimate'"),
        ([{}], "stages: 1: engine: missing; stages: 1 needs it"),
        (
            [{"engine": "estimat"}],
            "stages: 1: engine: must be among estimate, simulate, execute, all, got 'estimat'; did you mean "
            "'estimate'?",
        ),
        ([{"engine": []}], "stages: 1: engine: must hold at least one, got an empty list"),
        ([{"engine": 3}], "stages: 1: engine: must be a list of engines, got 3"),
        ([{"engine": ["estimate", 3]}], "stages: 1: engine: must be among estimate, simulate, execute, all, got 3"),
        ([{"engine": ["estimate"] * 2}], "stages: 1: engine: must name every engine once, got estimate, estimate"),
        ([{"engine": "estimate", "kep": 3}], "stages: 1: kep: no such key in stages: 1; did you mean 'keep'?"),
        (
            [{"engine": "estimate"}, {"engine": "simulate"}],
            "stages: 1: keep: must say which points go on to the next stage, got nothing",
        ),
        ([{"engine": "estimate", "keep": 3}], "stages: 1: keep: must not be given for the last stage, got 3"),
        ([{"engine": "estimate", "samples": 3}], "stages: 1: samples: must go with execute, got estimate"),
    ],
)
def test_what_is_wrong_in_stages_is_said(stages, message):
    with refused(f"s.yaml: {message}"):
        made(stages=stages)


@pytest.mark.parametrize("keep", [0, -1, True, 1.0, 1.5, "0%", "100%", "x%", "nan%", "best", [3], float("nan")])
def test_points_that_go_on_are_nothing_else(keep):
    stages = [{"engine": "estimate", "keep": keep}, {"engine": "simulate"}]
    with pytest.raises(
        ConfigError, match=r"^s.yaml: stages: 1: keep: must be a number of points, a share such as 10%, or front, got "
    ):
        made(stages=stages)


def test_stages_must_have_something_to_choose_by():
    with refused("s.yaml: stages: 1: keep: must have an objective that estimate gives to choose by, got accuracy"):
        made(stages=[{"engine": "estimate", "keep": 3}, {"engine": "execute"}], objectives=["accuracy"])
    with refused("s.yaml: stages: must stand in place of engine, got both"):
        made(stages=[{"engine": "estimate"}], engine="estimate")
    with refused("s.yaml: samples: must go with execute, got no stage that executes"):
        made(stages=[{"engine": "estimate"}], samples=3)


# What is refused: parameters


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tile.count_mx", "no such key of tim-dnn, and no other parameter; did you mean 'tile.count_max'?"),
        ("count_max", "no such key of tim-dnn, and no other parameter; did you mean 'tile.count_max'?"),
        ("maping.batch", "no such key of tim-dnn, and no other parameter; did you mean 'mapping.batch'?"),
        ("mapping.polcy", "no such key of tim-dnn, and no other parameter; did you mean 'mapping.policy'?"),
        ("workloads", "no such key of tim-dnn, and no other parameter; did you mean 'workload'?"),
        ("qqqqqqqq", "no such key of tim-dnn, and no other parameter"),
        ("tile", "must be a key with one value, got one with several; name one of its keys, such as tile.basis"),
        ("network.carries", "must be a key with one value, got one with several"),
        ("tile.count_max.x", "no such key of tim-dnn, and no other parameter; did you mean 'tile.count_max'?"),
        (
            "tile.resistive.on_off_ratio",
            "must be a key of tim-dnn, got one of tile.resistive, which it lacks; describe it",
        ),
        ("bank_link", "must be a key of tim-dnn, got one of bank_link, which it lacks; describe it"),
        ("bank_link.bits_per_ns", "must be a key of tim-dnn, got one of bank_link, which it lacks; describe it"),
        ("quantizer.bits_w", "must go with a quantizer, got none; name it under quantizer"),
    ],
)
def test_an_unknown_parameter_is_named_with_the_nearest(name, message):
    with refused(f"s.yaml: parameters: {name}: {message}"):
        made(parameters={name: [1, 2]})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        # lists
        ("n_tiles", [], "must hold at least one, got an empty list"),
        ("n_tiles", 3, "must be a list of values or a record, got 3; write [3]"),
        ("n_tiles", None, "must be a list of values or a record, got nothing"),
        ("n_tiles", [1, 2, 1], "must hold every value once, got 1 twice"),
        ("n_tiles", [1, 1.0], "must hold every value once, got 1.0 twice"),
        ("n_tiles", [[1]], "must be a number, text, true or false, got a list"),
        ("n_tiles", [None], "must be a number, text, true or false, got nothing"),
        ("main_memory.latency_ns", [float("nan")], "must be finite, got nan"),
        ("main_memory.latency_ns", [1, float("inf")], "must be finite, got inf"),
        ("n_tiles", [2**63], "must be less than 2**63, got 9223372036854775808"),
        ("n_tiles", [1, "x"], "must be values of one kind, got 1 and 'x'"),
        ("n_tiles", [1, True], "must be values of one kind, got 1 and true"),
        # values that the chip refuses
        ("n_tiles", [1, 2.5], "must be a whole number, got 2.5"),
        ("n_tiles", [1, 0], "must be at least 1, got 0"),
        ("n_tiles", ["8"], "must be a whole number, got '8'; YAML reads it as text, write 8"),
        ("main_memory.bits_per_ns", [0], "must be greater than 0, got 0"),
        ("tile.serial", ["bit", "trits"], "must be one of bit, trit, got 'trits'; did you mean 'trit'?"),
        ("double_buffered", [1], "must be true or false, got 1"),
        ("tile.misreads", [""], "must not be empty, got ''"),
        ("tile.imperfections.stuck_at_zero_probability", [0, 2], "must be at most 1, got 2"),
        ("circuit.path.alpha", [0.5], "must be at least 1, got 0.5"),
        # beside the chip
        ("mapping.batch", [0], "must be a whole number from 1 up, got 0"),
        ("mapping.batch", [True], "must be a whole number from 1 up, got true"),
        ("seed", [-1], "must be a whole number from 0 up, got -1"),
        ("seed", [0.5], "must be a whole number from 0 up, got 0.5"),
        (
            "mapping.style",
            ["spacial"],
            "must be one of spatial, temporal, pipelined, got 'spacial'; did you mean 'spatial'?",
        ),
        (
            "mapping.policy",
            ["least_tim"],
            "must be one of least_time, as_they_are, least_energy_delay, greatest_rate, search, search:latency, "
            "search:energy, search:edp, got 'least_tim'; did you mean 'least_time'?",
        ),
        ("workload", [3], "must be text, got 3"),
        ("quantizer", [3], "must be text, got 3"),
        # ranges
        ("n_tiles", {}, "must have values, or low and high, or a distribution, got nothing"),
        ("n_tiles", {"low": 3}, "must have values, or low and high, or a distribution, got low"),
        ("n_tiles", {"lo": 3}, "lo: no such key; did you mean 'low'?"),
        ("n_tiles", {"low": "3", "high": 4}, "low: must be a number, got '3'; YAML reads it as text, write 3"),
        ("n_tiles", {"low": None, "high": 4}, "low: must have a value, got nothing"),
        ("n_tiles", {"low": 3, "high": float("nan")}, "high: must be finite, got nan"),
        ("n_tiles", {"low": 3, "high": 3, "n": 2}, "low: must be less than high (3), got 3"),
        ("n_tiles", {"low": 0, "high": 3, "n": 2, "scale": "log"}, "low: must be greater than 0 on a log scale, got 0"),
        (
            "n_tiles",
            {"low": 1, "high": 3, "scale": "lag"},
            "scale: must be one of linear, log, got 'lag'; did you mean 'log'?",
        ),
        ("n_tiles", {"low": 1, "high": 3, "n": 1}, "n: must be at least 2, got 1"),
        ("n_tiles", {"low": 1, "high": 3, "n": 10**7}, "n: must be at most 1000000, got 10000000"),
        ("n_tiles", {"low": 1, "high": 3, "n": 2, "step": 1}, "step: must stand in place of n, got both"),
        ("n_tiles", {"low": 1, "high": 3, "step": 0}, "step: must be greater than 0, got 0"),
        (
            "n_tiles",
            {"low": 1, "high": 3, "step": 1, "scale": "log"},
            "step: must be greater than 1 on a log scale, got 1",
        ),
        ("n_tiles", {"low": 1, "high": 10**9, "step": 1}, "step: must make at most 1000000 values, got 1000000000"),
        (
            "n_tiles",
            {"low": 0.0, "high": 1e300, "step": 1e-300},
            "step: must make at most 1000000 values, got 1000000000000000001",
        ),
        (
            "n_tiles",
            {"low": -1.7e308, "high": 1.7e308, "n": 3},
            "high: must be less than 1.8e308 above low, got -1.7e+308 and 1.7e+308",
        ),
        (
            "n_tiles",
            {"low": 1, "high": 2.5, "whole": True},
            "whole: must have whole numbers as low and high, got 1 and 2.5",
        ),
        (
            "n_tiles",
            {"low": 1, "high": 2**60},
            "high: must be at most 2**53 in a range of whole numbers, got 1 to 1152921504606846976",
        ),
        ("n_tiles", {"low": 1, "high": 4, "n": 3}, "must be a whole number, got 2.5"),
        (
            "n_tiles",
            {"low": 1, "high": 4, "mean": 3},
            "mean: must not be given beside low, got 3; it takes high, n, scale, step, whole",
        ),
        ("n_tiles", {"values": [1], "low": 3}, "low: must not be given beside values, got 3"),
        ("n_tiles", {"values": 3}, "must be a list of values, got 3"),
        ("n_tiles", {"values": [1], "when": ""}, "when: must not be empty, got ''"),
        ("n_tiles", {"values": [1], "when": 3}, "when: must be text, got 3"),
    ],
)
def test_what_is_wrong_in_a_parameter_is_said(name, given, message):
    with refused(f"s.yaml: parameters: {name}: {message}"):
        made(parameters={name: given})


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("n_tiles", {"low": 1.0, "high": 4.5}, "must be drawn as whole numbers, got 2.75; write whole: true"),
        ("n_tiles", {"low": 0, "high": 4}, "must be at least 1, got 0"),
        (
            "n_tiles",
            {"distribution": "normal", "mean": 8, "sd": 2},
            "must be drawn as whole numbers, got 8.0; write whole: true",
        ),
        (
            "main_memory.bits_per_ns",
            {"distribution": "normal", "mean": 8, "sd": 2, "low": -1},
            "must be greater than 0, got -1.0",
        ),
        (
            "n_tiles",
            {"distribution": "gauss"},
            "distribution: must be one of uniform, log-uniform, normal, log-normal, triangular, exponential, got "
            "'gauss'",
        ),
        ("n_tiles", {"distribution": "normal", "mean": 3}, "sd: missing; a normal distribution needs mean, sd"),
        ("n_tiles", {"distribution": "normal", "mean": 3, "sd": 0}, "sd: must be greater than 0, got 0"),
        (
            "n_tiles",
            {"distribution": "normal", "mean": 3, "sd": 1, "low": 5, "high": 4},
            "low: must be less than high (4), got 5",
        ),
        (
            "n_tiles",
            {"distribution": "normal", "mean": 3, "sd": 1, "low": 500},
            "low: must leave some of the distribution up to high, got 500.0 and nothing",
        ),
        (
            "n_tiles",
            {"distribution": "normal", "mean": 3, "sd": 1, "n": 5},
            "n: must not be given beside distribution, got 5; it takes high, low, mean, sd, whole",
        ),
        ("n_tiles", {"distribution": "uniform", "low": 3}, "high: missing; a uniform distribution needs low, high"),
        ("n_tiles", {"distribution": "log-uniform", "low": 0, "high": 3}, "low: must be greater than 0, got 0"),
        (
            "n_tiles",
            {"distribution": "triangular", "low": 0, "mode": 4, "high": 3},
            "mode: must be from low (0) to high (3), got 4",
        ),
        (
            "n_tiles",
            {"distribution": "uniform", "low": 3.2, "high": 3.7, "whole": True},
            "whole: must have a whole number from low to high, got 3.2 and 3.7",
        ),
    ],
)
def test_what_is_wrong_in_what_is_drawn_is_said(name, given, message):
    with refused(f"s.yaml: parameters: {name}: {message}"):
        made(parameters={name: given}, sampling={"method": "random", "n": 3})


def test_values_that_fail_only_together_with_others_are_left_to_the_evaluation():
    assert len(made(parameters={"tile.rows_per_access": [16, 24], "tile.n_rows": [256, 250]}).space.points()) == 4


def test_methods_and_their_options_are_known():
    with pytest.raises(
        ConfigError, match=r"^s.yaml: parameters: quantizer: must be .*, got 'lsqq'; did you mean 'lsq'\?$"
    ):
        made(parameters={"quantizer": ["lsqq"]})
    with pytest.raises(
        ConfigError,
        match=r"^s.yaml: parameters: quantizer.bits: must be an option of lsq, xnor-net \(bits_w, .*\), got 'bits'; "
        r"did you mean 'bits_[aw]'\?$",
    ):
        made(parameters={"quantizer": ["lsq", "xnor-net"], "quantizer.bits": [2]})


def test_options_of_single_layers_are_known():
    varied = {"quantizer": ["lsq:bits_w=2,1.bits_w=3", "xnor-net"],
              "quantizer.2.bits_a": {"values": [2, 8], "when": "quantizer != 'xnor-net'"},
              "quantizer.10.bits_a": {"values": [2, 8], "when": "quantizer.2.bits_a == 8"}}  # fmt: skip
    rows = [tuple(row.items()) for row in made(parameters=varied).space.points().rows()]
    assert len(rows) == len(set(rows)) == 1 + 1 + 2


@pytest.mark.parametrize(
    ("quantizer", "name", "message"),
    [
        ("lsq", "quantizer.2.bit_a", "quantizer.2.bit_a: must be an option of single layers of lsq (bits_w, bits_a, "
         "serial, signed_a), got 'bit_a'; did you mean 'bits_a'?"),
        ("pact", "quantizer.2.decay", "quantizer.2.decay: must be an option of single layers of pact (bits_w, bits_a, "
         "serial, alpha), got 'decay'"),
        ("lie", "quantizer.1.low_share", "quantizer.1.low_share: must be an option of single layers of lie (none), got "
         "'low_share'"),
        ("lsq", "quantizer.0.bits_a", "quantizer: 0.bits_a: the layer must be a whole number from 1 up, got '0'"),
        ("lsq", "quantizer.block2.bits_a",
         "quantizer: block2.bits_a: the layer must be a whole number from 1 up, got 'block2'"),
    ],
)  # fmt: skip
def test_a_layer_or_an_option_of_one_that_is_none_is_said(quantizer, name, message):
    with refused(f"s.yaml: parameters: {message}"):
        made(parameters={"quantizer": [quantizer], name: [2, 3]})


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ("random", "sampling: must be a mapping, got 'random'"),
        (
            {"method": "sobel", "n": 3},
            "sampling: method: must be one of grid, random, latin-hypercube, sobol, got 'sobel'; did you mean 'sobol'?",
        ),
        ({"method": "sobol"}, "sampling: n: missing; sobol needs it"),
        ({"method": "sobol", "n": 0}, "sampling: n: must be at least 1, got 0"),
        ({"method": "sobol", "n": 10**9}, "sampling: n: must be at most 100000000, got 1000000000"),
        ({"n": 3}, "sampling: n: must not be given for a grid, which has every point, got 3"),
        ({"method": "sobol", "n": 3, "sed": 1}, "sampling: sed: no such key in sampling; did you mean 'seed'?"),
    ],
)
def test_what_is_wrong_in_a_sampling_is_said(sampling, message):
    with refused(f"s.yaml: {message}"):
        made(sampling=sampling)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {}}, "search: evaluations: missing; search needs it"),
        ({"search": {"evaluations": 0}}, "search: evaluations: must be at least 1, got 0"),
        ({"search": {"evaluations": 3, "population": 1}}, "search: population: must be at least 2, got 1"),
        (
            {"search": {"evaluations": 3, "sampler": "nsga"}},
            "search: sampler: must be one of nsga2, tpe, got 'nsga'; did you mean 'nsga2'?",
        ),
        ({"search": {"evaluations": 3, "prune": 1}}, "search: prune: must be true or false, got 1"),
        (
            {"search": {"evaluations": 3}, "sampling": {"method": "grid"}},
            "search: must stand in place of sampling, got both",
        ),
        (
            {
                "search": {"evaluations": 3},
                "parameters": {"main_memory.latency_ns": {"distribution": "exponential", "mean": 3}},
            },
            "parameters: main_memory.latency_ns: must be a list or a range in a search, got a distribution; it says "
            "how points are drawn",
        ),
        (
            {"training": {"epochs": 0}, "parameters": {"quantizer": ["xnor-net"]}},
            "training: epochs: must be at least 1, got 0",
        ),
    ],
)
def test_what_is_wrong_in_a_search_or_a_training_is_said(changes, message):
    with refused(f"s.yaml: {message}"):
        made(**changes)


# What is refused: files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: must be a mapping of keys to values, got nothing"),
        ("- 1\n", "s.yaml: must be a mapping of keys to values, got a list"),
        ("chip: a\nchip: b\n", "s.yaml: line 2: cannot be read as YAML: the key 'chip' stands in line 1 too"),
        (
            "parameters:\n  n_tiles: [1]\n  n_tiles: [2]\n",
            "s.yaml: line 3: cannot be read as YAML: the key 'n_tiles' stands in line 2 too",
        ),
        ("parameters: {8: [1]}\n", "s.yaml: line 1: cannot be read as YAML: a key must be text, got 8"),
        (b"\x80\x00\x01", "s.yaml: must be UTF-8 text, got byte 0x80 at 0"),
        (b"chip: \x00", "s.yaml: must be text, got '\\x00' at 6"),
        (b" " * ((1 << 20) + 1), "s.yaml: must be a sweep file of at most 1048576 bytes, got 1048577"),
    ],
)
def test_a_file_that_is_none_is_one_line(folder, text, message):
    write("s.yaml", text)
    with refused(message):
        load_sweep("s.yaml")


def test_a_file_that_was_cut_off_is_refused_wherever_it_was_cut(folder):
    for n in range(0, len(FULL), 37):
        write("s.yaml", FULL[:n])
        try:
            load_sweep("s.yaml")
        except ConfigError as error:
            assert re.fullmatch(r"s\.yaml: [^\n]+", str(error))  # noqa: PT017
        else:
            assert "objectives:" in FULL[:n]


def test_a_file_must_be_there(folder):
    with refused("s.yaml: no such file"):
        load_sweep("s.yaml")
    with refused(f"{folder}: must be a sweep file, got a folder"):
        load_sweep(folder)
    with refused("'s\\x00.yaml': must be a sweep file; no file has such a name"):
        load_sweep("s\0.yaml")


# The schema


def test_the_schema_describes_every_key():
    schema = sweep_schema(load_chip("tim-dnn"))
    json.dumps(schema)
    assert schema["required"] == ["chip", "objectives"]
    assert not schema["additionalProperties"]
    assert all("description" in record for record in schema["properties"].values())
    assert schema["properties"]["parameters"]["properties"]["tile.access.latency_ns"]["description"] == "Unit: ns."
    assert {"ParameterRecord", "StageRecord", "SamplingRecord", "Search", "Training"} == schema["$defs"].keys()
    assert set(yaml.safe_load(FULL)) <= set(schema["properties"])
