import itertools

import numpy as np
import pandas as pd
import pytest
from sweep_folders import many, write_sweep

import imcsim
from imcsim.analytic import roofline
from imcsim.analytic.roofline import to_csv
from imcsim.analytic.variants import estimate_variants
from imcsim.arch.load import dump_chip
from imcsim.errors import DataError
from imcsim.report import build_report
from imcsim.report import sweep_tables as tables
from imcsim.report.sweep_axes import objective_axis
from imcsim.report.sweep_chips import chip_text, scalar_text
from imcsim.report.sweep_load import ObjectiveSummary, parameter_of, read_sweep
from imcsim.report.sweep_page import build_sweep_report, cards, page_data, sections
from imcsim.report.sweep_tables import effects_of, findings_of, heat_map, levels_of, step_front

KINDS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


GRID = {"tile.count_max": [4, 8, 12], "tile.rows_per_access": [8, 16], "n_tiles": [16, 32]}


@pytest.fixture(scope="module")
def estimated(tmp_path_factory):
    """A grid of twelve chips as the formulas have them, with the roofline of the base chip."""
    chip, graph = imcsim.load_chip("tim-dnn"), imcsim.load_workload("digits-ternary-cnn")
    points = list(itertools.product(*GRID.values()))
    columns = {name: np.array([point[i] for point in points]) for i, name in enumerate(GRID)}
    found = estimate_variants(graph, chip, columns)
    accuracy = 0.9 - 0.02 * (12 - columns["tile.count_max"]) * columns["tile.rows_per_access"] / 16
    figures = {"latency": found.latency_ns, "energy_pJ": found.energy_pJ, "accuracy": accuracy}
    folder = write_sweep(tmp_path_factory.mktemp("sweep") / "out", columns, figures, chip_text=dump_chip(chip))
    plan = imcsim.place(graph, chip)
    (folder / "roofline.csv").write_text(to_csv(roofline(plan, imcsim.estimate(plan))))
    build_report(folder)
    return folder


@pytest.fixture(autouse=True)
def _one_form(monkeypatch):
    """Figures as PNG alone: the others take most of the time, and the folder above, made before, has all of them."""
    monkeypatch.setattr("imcsim.report.sweep_figures.FORMS", ("png",))


# Files


def test_every_figure_is_there_in_every_form_with_its_numbers(estimated):
    names = {path.stem for path in (estimated / "figures").iterdir()}
    assert names == {"front", "parallel", "sensitivity", "heat_map", "roofline"}
    for name in names:
        for form, begin in KINDS.items():
            assert (estimated / "figures" / f"{name}.{form}").read_bytes().startswith(begin)
        assert len(pd.read_csv(estimated / "figures" / f"{name}.csv"))


def test_the_numbers_beside_the_front_are_those_of_the_points(estimated):
    points = pd.read_parquet(estimated / "points.parquet")
    beside = pd.read_csv(estimated / "figures" / "front.csv")
    assert beside.energy_pJ.to_numpy() == pytest.approx(points.energy_pJ.to_numpy(), rel=1e-9)
    assert beside.on_front.tolist() == points.on_front.tolist()


def test_the_same_folder_gives_the_same_bytes(estimated, tmp_path, monkeypatch):
    monkeypatch.setattr("imcsim.report.sweep_figures.FORMS", tuple(KINDS))
    for name in ("points.parquet", "sweep.json", "roofline.csv"):
        (tmp_path / name).write_bytes((estimated / name).read_bytes())
    build_report(tmp_path)
    for path in sorted(estimated.rglob("*")):
        if path.is_file():
            assert (tmp_path / path.relative_to(estimated)).read_bytes() == path.read_bytes(), path.name


def test_chip_files_of_the_front_load_and_give_the_figures_of_their_points(estimated):
    points = pd.read_parquet(estimated / "points.parquet")
    on_front = points[points.on_front]
    assert sorted(int(path.stem) for path in (estimated / "chips").iterdir()) == on_front.point.tolist()
    graph = imcsim.load_workload("digits-ternary-cnn")
    for point in on_front.itertuples():
        chip = imcsim.load_chip(estimated / "chips" / f"{point.point}.yaml")
        assert (chip.tile.count_max, chip.n_tiles) == (points["tile.count_max"][point.Index], point.n_tiles)
        assert imcsim.estimate(imcsim.place(graph, chip)).energy_pJ == pytest.approx(point.energy_pJ)


def test_chip_files_of_a_users_own_base_include_the_base_that_lies_beside(tmp_path):
    base = imcsim.load_chip("tim-dnn", {"n_tiles": 5})  # its name is still that of the shipped chip
    folder = write_sweep(tmp_path, {"tile.count_max": [4, 8], "mapping.policy": ["least_time", "search"]},
                         {"energy_pJ": [1.0, 2.0]}, chip_text=dump_chip(base))  # fmt: skip
    build_sweep_report(folder)
    assert imcsim.load_chip(folder / "chips" / "base.yaml") == base
    chip = imcsim.load_chip(folder / "chips" / "0.yaml")
    assert (chip.n_tiles, chip.tile.count_max) == (5, 4)
    assert "not in a chip file: mapping.policy = least_time" in (folder / "chips" / "0.yaml").read_text()


def test_figures_and_chip_files_of_an_earlier_front_are_removed(estimated, tmp_path):
    folder = write_sweep(tmp_path, {"n_tiles": [8, 16]}, {"energy_pJ": [1.0, 2.0]})
    (folder / "figures").mkdir()
    (folder / "chips").mkdir()
    (folder / "figures" / "hypervolume.svg").write_text("old")
    (folder / "chips" / "1.yaml").write_text("old")
    (folder / "chips" / "mine.yaml").write_text("kept")
    build_sweep_report(folder)
    assert not (folder / "figures" / "hypervolume.svg").exists()
    assert sorted(path.name for path in (folder / "chips").iterdir()) == ["0.yaml", "mine.yaml"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-07, "1.0e-07"), (2.5e-07, "2.5e-07"), (64, "64"), (True, "true"), ("yes", '"yes"'), ("12", '"12"'),
     ("a: b", '"a: b"'), ("tim-dnn", "tim-dnn"), ("", '""')],
)  # fmt: skip
def test_values_of_chip_files_are_read_back_as_they_were(value, text):
    from imcsim.arch.load import parsed

    assert scalar_text(value) == text
    read = parsed(chip_text("tim-dnn", {"a.b": value}, {}, 1, "s"), "test")["a"]["b"]
    assert read == value
    assert type(read) is type(value)


def test_the_page_of_a_sweep_is_built_through_the_report_of_a_folder(estimated):
    page = (estimated / "report.html").read_text()
    assert "<title>Sweep small - imcsim</title>" in page
    assert page.count("plotly.js v") == 1
    assert "All 12 points with figures are drawn." in page


# Numbers


def brute_front(x, y, x_max, y_max):
    a, b = (-x if x_max else x), (-y if y_max else y)
    kept = []
    for i in range(len(a)):
        better = (a <= a[i]) & (b <= b[i]) & ((a < a[i]) | (b < b[i]))
        equal_before = (a[:i] == a[i]) & (b[:i] == b[i])
        if np.isfinite(a[i] + b[i]) and not better.any() and not equal_before.any():
            kept.append(i)
    return sorted(kept, key=lambda i: a[i])


@pytest.mark.parametrize("few", [10, 1 << 30], ids=["many", "few"])
@pytest.mark.parametrize("x_max", [False, True])
@pytest.mark.parametrize("y_max", [False, True])
def test_the_front_of_two_is_that_of_comparing_all_with_all(monkeypatch, few, x_max, y_max):
    monkeypatch.setattr(tables, "FEW", few)
    rng = np.random.default_rng(3)
    for _ in range(5):
        x, y = rng.integers(0, 40, 300).astype(float), rng.integers(0, 40, 300).astype(float)
        x[rng.random(300) < 0.05] = np.nan
        assert step_front(x, y, x_max, y_max).tolist() == brute_front(x, y, x_max, y_max)


def levels_and_axis(columns, values):
    parameters = [parameter_of(name, pd.Series(column)) for name, column in columns.items()]
    axis = objective_axis(ObjectiveSummary(name="energy", figure="energy_pJ"), values)
    return [levels_of(parameter) for parameter in parameters], axis


def test_effects_of_a_full_grid_are_the_means_over_all_others():
    grid = list(itertools.product([1, 2, 3], ["a", "b"], [10, 20]))
    columns = {name: [point[i] for point in grid] for i, name in enumerate(("p", "q", "r"))}
    values = np.random.default_rng(0).random(12)
    levels, axis = levels_and_axis(columns, values)
    found = effects_of(levels, axis, values)
    assert found.is_exact
    frame = pd.DataFrame(columns).assign(y=values)
    for effect in found.effects:
        assert effect.means == pytest.approx(frame.groupby(effect.parameter).y.mean().tolist())
    assert {effect.parameter for effect in found.effects} == {"p", "q", "r"}
    assert found.effects[0].high - found.effects[0].low >= found.effects[1].high - found.effects[1].low


def test_effects_of_a_grid_with_holes_take_the_others_influence_off():
    points = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 1), (1, 0)]  # high p goes with high q: means alone would lie
    p, q = (np.array(column) for column in zip(*points, strict=True))
    values = 5.0 + 2.0 * p + 10.0 * q
    levels, axis = levels_and_axis({"p": p, "q": q}, values)
    found = effects_of(levels, axis, values)
    assert not found.is_exact
    assert {effect.parameter: round(effect.high - effect.low, 9) for effect in found.effects} == {"q": 10.0, "p": 2.0}
    assert found.explained == pytest.approx(1.0)
    assert [effect.low_text for effect in found.effects] == ["0", "0"]


def test_effects_of_samples_are_told_in_bins():
    x = np.linspace(0, 1, 1000)
    levels, axis = levels_and_axis({"x": x}, 3 * x)
    assert levels[0].is_binned
    (effect,) = effects_of(levels, axis, 3 * x).effects
    assert effect.n_points == (100,) * 10
    assert effect.low == pytest.approx(0.15, abs=0.01)
    assert effect.high_text == "0.9009 to 1"


def test_points_without_a_parameter_are_no_value_of_it():
    q = pd.Series([1.0, 2.0, None, None])
    levels, axis = levels_and_axis({"p": [0, 0, 1, 1], "q": q}, np.array([1.0, 2.0, 3.0, 4.0]))
    assert levels[1].texts == ("1", "2", "not there")
    effects = {effect.parameter: effect for effect in effects_of(levels, axis, np.array([1.0, 2.0, 7.0, 7.0])).effects}
    assert effects["q"].texts == ("1", "2")
    assert effects["q"].high - effects["q"].low == pytest.approx(1.0)


def test_nothing_varies_where_there_is_one_point():
    levels, axis = levels_and_axis({"p": [1]}, np.array([1.0]))
    assert effects_of(levels, axis, np.array([1.0])) is None


def test_a_map_has_the_best_and_the_mean_of_each_pair():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"p": rng.integers(0, 3, 60), "q": rng.integers(0, 2, 60), "y": rng.random(60)})
    frame.loc[frame.p.eq(2) & frame.q.eq(1), "y"] = np.nan
    levels, _ = levels_and_axis({"p": frame.p, "q": frame.q}, frame.y.to_numpy())
    grouped = frame.groupby(["q", "p"]).y
    for is_max, best in ((True, grouped.max()), (False, grouped.min())):
        found = heat_map(levels[0], levels[1], frame.y.to_numpy(), is_max)
        assert found.best.ravel() == pytest.approx(best.to_numpy(), nan_ok=True)
    assert found.mean.ravel() == pytest.approx(grouped.mean().to_numpy(), nan_ok=True)
    assert found.counts.ravel().tolist() == grouped.count().tolist()
    assert found.counts[1, 2] == 0


@pytest.mark.parametrize(
    ("figure", "values", "unit", "text"),
    [
        ("latency_ns", [2000.0, 3000.0], "µs", "2 µs"),
        ("energy_pJ", [4e5], "nJ", "400 nJ"),
        ("area_um2", [2.5e6], "mm²", "2.5 mm²"),
        ("accuracy", [0.9], "%", "90 %"),
        ("edp_pJ_ns", [3e7], "nJ µs", "30 nJ µs"),
        ("throughput_per_s", [5e5], "k/s", "500 k/s"),
        ("perplexity", [90.0], "", "90"),
    ],
)
def test_figures_are_read_in_units_for_people(figure, values, unit, text):
    axis = objective_axis(ObjectiveSummary(name="x", figure=figure), np.array(values))
    assert axis.unit == unit
    assert axis.text(values[0]) == text


def test_of_very_many_points_front_and_extremes_are_drawn_and_the_rest_counted(tmp_path):
    found = findings_of(read_sweep(many(tmp_path)))
    drawn = set(found.drawn.at.tolist())
    assert set(np.flatnonzero(found.sweep.on_front).tolist()) <= drawn
    for values in found.sweep.objectives:
        assert {int(values.argmin()), int(values.argmax())} <= drawn
    assert len(drawn) < 7000
    assert found.drawn.words.startswith(f"{len(drawn):,} of 60,000 points with figures are drawn one by one: all")
    cells = page_data(found, 0)["density"]["0,1"]
    assert sum(map(sum, cells["n"])) == 60_000
    assert np.array_equal(found.drawn.at, findings_of(read_sweep(tmp_path)).drawn.at)


def test_the_page_of_very_many_points_is_small(tmp_path):
    page = build_sweep_report(many(tmp_path))
    assert page.stat().st_size < 8_000_000
    assert len(pd.read_csv(tmp_path / "figures" / "front.csv")) < 7000


# Sweeps of every kind

TEXTS = {"workload": ["a", "b", "a"], "quantizer": ["lsq:bits_w=2", "xnor", "xnor"]}
FAILED = {"status": ["failed"] * 3, "message": ["fc: must fit, got 9"] * 3, "on_front": [False] * 3, "engine": [""] * 3}
NONE = [np.nan] * 3
TILES, TIME = {"n_tiles": [8, 16, 32]}, {"latency": [3.0, 2.0, 1.0]}
ALL = {"tradeoff", "parallel", "table", "map", "sensitivity"}


@pytest.mark.parametrize(
    ("parameters", "figures", "changes", "names"),
    [
        (TILES | {"tile.count_max": [4, 4, 8]}, TIME | {"energy_pJ": [1.0, 2.0, 3.0]}, {}, ALL),
        (TILES, {"energy_pJ": [1.0, 2.0, 3.0]}, {}, ALL - {"map"}),
        (TILES, TIME | {"accuracy": [0.5, 0.6, 0.7]}, {}, ALL - {"map"}),
        ({"n_tiles": [8]}, {"latency": [3.0], "accuracy": [0.5]}, {}, {"tradeoff", "table"}),
        ({"n_tiles": [8]}, {"energy_pJ": [3.0]}, {}, {"tradeoff", "table"}),
        ({}, {"energy_pJ": [3.0]}, {}, {"tradeoff", "table"}),
        (TILES, {"latency": NONE, "energy_pJ": NONE}, {"status": ["pending"] * 3, "engine": [""] * 3}, {"nothing"}),
        (TILES, {"latency": NONE, "energy_pJ": NONE}, FAILED, {"nothing"}),
        (TEXTS, TIME | {"accuracy": [0.5, 0.6, 0.7]}, {}, ALL),
        (TILES | {"tile.n_pcus": [16.0, np.nan, 32.0]}, TIME | {"accuracy": [0.5, 0.6, 0.7]}, {}, ALL),
        (TILES | {"double_buffered": [True, False, True]}, TIME | {"accuracy": [0.5, np.nan, 0.7]},
         {"status": ["done", "dropped", "done"]}, ALL),
        (TILES, {"latency": [2.0, 2.0, 2.0], "accuracy": [0.5, 0.5, 0.5]}, {}, ALL - {"map"}),
    ],
    ids=["no accuracy", "one objective", "one parameter", "one point", "one point and objective", "no parameter",
         "none done", "only failures", "texts", "conditional", "a dropped one", "all equal"],
)  # fmt: skip
def test_every_kind_of_sweep_has_a_page(tmp_path, parameters, figures, changes, names):
    folder = write_sweep(tmp_path, parameters, figures, kind="csv", changes=changes)  # other tests have Parquet
    page = build_sweep_report(folder).read_text()
    body = page[page.index("<body>") :]
    for name in ("tradeoff", "parallel", "table", "map", "sensitivity", "nothing"):
        assert (f'<section id="{name}"' in body) == (name in names), name
    assert f'<section id="{"status"}"' in body
    assert ("plotly.js v" in page) == ("tradeoff" in names)


def test_a_sweep_without_a_point_has_a_page(tmp_path):
    folder = write_sweep(tmp_path, {"n_tiles": []}, {"energy_pJ": []})
    assert "The table holds no point." in build_sweep_report(folder).read_text()


def test_what_a_blank_stands_for_is_kept(tmp_path):
    write_sweep(tmp_path, {"n_tiles": [8, 16], "tile.n_pcus": [16.0, np.nan], "double_buffered": [True, None],
                           "mapping.policy": ["search", None]}, {"energy_pJ": [1.0, 2.0]}, kind="csv")  # fmt: skip
    by_name = {parameter.name: parameter for parameter in read_sweep(tmp_path).parameters}
    assert by_name["tile.n_pcus"].levels == (16,)
    assert by_name["tile.n_pcus"].codes.tolist() == [0, -1]
    assert (by_name["double_buffered"].kind, by_name["double_buffered"].levels) == ("bool", (True,))
    assert by_name["mapping.policy"].codes.tolist() == [0, -1]


def test_failures_are_told_by_message_with_counts(tmp_path):
    messages = ["b: too big", None, "a: does not fit", "b: too big", None, "c > 2 mm2"]
    status = ["failed", "done", "failed", "failed", "dropped", "infeasible"]
    folder = write_sweep(tmp_path, {"n_tiles": list(range(6))}, {"energy_pJ": [np.nan, 1.0, np.nan, np.nan, 2.0, 3.0]},
                         changes={"message": messages, "status": status})  # fmt: skip
    found = findings_of(read_sweep(folder))
    section = next(section for section in sections(found, 0) if section.name == "status")
    by_status, by_message = section.tables
    assert [row[:2] for row in by_status.rows] == [
        ("done", "1"),
        ("dropped", "1"),
        ("infeasible", "1"),
        ("failed", "3"),
    ]
    assert by_message.rows == [("b: too big", "failed", "2", "0"), ("a: does not fit", "failed", "1", "2"),
                               ("c > 2 mm2", "infeasible", "1", "5")]  # fmt: skip


def test_cards_tell_the_best_of_done_points(tmp_path):
    figures = {"energy_pJ": [1.0, 2000.0, 3000.0], "accuracy": [0.9, 0.5, 0.7]}
    folder = write_sweep(tmp_path, {"n_tiles": [1, 2, 3]}, figures,
                         changes={"status": ["infeasible", "done", "done"]})  # fmt: skip
    told = {card.name: (card.value, card.note) for card in cards(findings_of(read_sweep(folder)))}
    assert told["Points"] == ("3", "2 done, 1 infeasible")
    assert told["Least energy"] == ("2 nJ", "point 1")
    assert told["Greatest accuracy"] == ("70 %", "point 2")


def test_a_search_shows_its_history_and_what_matters(tmp_path):
    search = {"sampler": "nsga2", "evaluations": 40, "history": [[10, 0.5], [40, 0.8]],
              "importances": {"energy_pJ": {"n_tiles": 0.7, "tile.count_max": 0.3}}}  # fmt: skip
    folder = write_sweep(tmp_path, {"n_tiles": [1, 2, 3], "tile.count_max": [1, 2, 3]}, {"energy_pJ": [1.0, 2.0, 3.0]},
                         search=search)  # fmt: skip
    page = build_sweep_report(folder).read_text()
    assert "nsga2 chose the points, 40 evaluations in all." in page
    assert 'id="chart-hypervolume"' in page
    assert 'id="chart-importance"' in page
    beside = pd.read_csv(folder / "figures" / "hypervolume.csv")
    assert beside.to_numpy().tolist() == [[10, 0.5], [40, 0.8]]
    assert pd.read_csv(folder / "figures" / "importance.csv").importance.tolist() == [0.7, 0.3]


def test_layers_without_main_memory_traffic_stand_at_the_edge(estimated):
    page = (estimated / "report.html").read_text()
    beside = pd.read_csv(estimated / "figures" / "roofline.csv")
    n_none = int(beside.operations_per_main_memory_bit.isna().sum())
    assert n_none
    assert f"{n_none} of {len(beside)} layers move nothing to or from main memory" in page
    assert "triangle-right" in page


# Mistakes


def damaged(tmp_path, change):
    folder = write_sweep(tmp_path, {"n_tiles": [1, 2]}, {"energy_pJ": [1.0, 2.0]}, kind="csv")
    change(folder)
    return folder


def edited(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "points.csv").unlink(), r"points.csv: must be there, got no such file; imcsim sweep"),
        (edited("sweep.json", "}", ""), r"sweep.json: must be JSON, got .*; is it cut off\?"),
        (edited("sweep.json", '"parameters"', '"others"'), r"sweep.json: parameters: must be there, got nothing;"),
        (edited("sweep.json", '"seed": 0', '"seed": "x"'), r"sweep.json: seed: must be integer, got 'x'"),
        (edited("points.csv", "energy_pJ", "energy"), r"points.csv: must have the columns of sweep.json, got none"),
        (edited("points.csv", "done", "gone"), r"points.csv: status: must be among done, .*, got gone"),
        (edited("points.csv", "true", "perhaps"), r"points.csv: on_front: must be true or false in every line, got"),
        (edited("points.csv", "2.0", "many"), r"points.csv: energy_pJ: must be a number in every line, got"),
        (edited("points.csv", "\n1,", "\nx,"), r"points.csv: point: must be a whole number in every line, got another"),
        (lambda folder: (folder / "points.parquet").write_bytes(b"PAR1"), r"points.parquet: must be a table"),
        (lambda folder: (folder / "roofline.csv").write_text("x\n"), r"roofline.csv: must begin with the columns"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_told_in_one_line(tmp_path, change, message):
    folder = damaged(tmp_path, change)
    with pytest.raises(DataError, match=message) as error:
        build_sweep_report(folder)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_none_is_told(tmp_path):
    with pytest.raises(DataError, match="none: must be the folder of a sweep, got no such folder; imcsim sweep --out"):
        build_sweep_report(tmp_path / "none")
