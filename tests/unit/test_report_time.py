import json

import pandas as pd
import pytest
from rich.console import Console
from test_report import SUMMARY, rows_of_engine, write_run

from imcsim.errors import DataError
from imcsim.report import build_report
from imcsim.report.figures import render
from imcsim.report.load import check_summary, read_run
from imcsim.report.page import sections
from imcsim.report.terminal import print_run
from imcsim.report.time_figures import MOST_TILES, critical_path_figure, rows_of_units
from imcsim.report.time_parts import PATH_COLUMNS, parse_path
from imcsim.report.time_tables import time_layers_table, time_tables
from imcsim.sim.explanation import PATH_COLUMNS as WRITTEN_COLUMNS

USE = {"busy": 0.5, "inputs": 0.25, "end": 0.125, "room": 0.0, "idle": 0.125}
LAYER = {"name": "a", "added_ns": 6.0, "path_ns": 5.0, "bound_by": "tile.array", "speedup": 1.5, "best_speedup": None,
         "path_ns_by_component": {"tile.array": 4.0, "sfu": 1.0}, "without_ns": {"tile.array": 4.0, "sfu": 0.0},
         "helps_most": "sfu"}  # fmt: skip
TIME = {
    "latency_ns": 10.0,
    "sentences": ["a takes 60 % of the 10 ns.", "Freeing <the SFU> helps."],
    "kinds": {"work": 0.9, "lag": 0.1},
    "layers": [LAYER, LAYER | {"name": "b", "added_ns": 4.0}],
    "components": [
        {"name": "sfu", "path_ns": 3.0, "path_share": 0.3, "without_ns": 8.0, "speedup": 1.25},
        {"name": "tile.array", "path_ns": 7.0, "path_share": 0.7, "without_ns": 0.0, "speedup": None},
    ],
    "use": [{"name": "tile.array"} | USE],
    "units": [{"name": "tile0.array"} | USE, {"name": "tile1.array"} | USE],
}
PATH = """\
task,layer,unit,component,kind,holds_up,start_ns,end_ns
a/access0,a,tile0.array,tile.array,work,stream,0.0,4.0
a/convert0,a,tile0.pcu,tile.pcu,lag,after,4.0,5.0
b/access0,b,tile0.array,tile.array,work,,5.0,10.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("time") / "run", time=TIME)
    (folder / "critical_path.csv").write_text(PATH)
    return folder


def test_what_is_written_is_what_is_read():
    assert PATH_COLUMNS == WRITTEN_COLUMNS


def test_the_page_has_the_words_the_tables_and_the_figure(folder):
    page = build_report(folder).read_text()
    assert "Freeing &lt;the SFU&gt; helps." in page
    assert page.count('<img class="print"') == 1
    (section,) = [part for part in sections(read_run(folder)) if part.name == "time"]
    assert section.tables == time_tables(check_summary(SUMMARY | {"time": TIME}, "s").time)
    assert (folder / "figures" / "critical_path.svg").stat().st_size > 0


def test_the_tables_say_what_bounds_a_layer_and_what_would_help():
    components, layers, use = time_tables(check_summary(SUMMARY | {"time": TIME}, "s").time)
    assert components.rows[0] == ("tile.array", "7 ns", "70.0 %", "0 ns", "no time left")
    assert components.rows[1] == ("sfu", "3 ns", "30.0 %", "8 ns", "x 1.25")
    assert layers.rows[0] == ("a", "6 ns", "60.0 %", "tile.array", "80.0 %", "x 1.50", "sfu", "no time left")
    assert use.rows == [("tile.array", "50.0 %", "25.0 %", "12.5 %", "0.0 %", "12.5 %")]


def test_of_very_many_layers_those_that_take_longest_are_shown():
    many = [LAYER | {"name": f"l{i}", "added_ns": float(i)} for i in range(100)]
    table = time_layers_table(check_summary(SUMMARY | {"time": TIME | {"layers": many}}, "s").time)
    assert [row[0] for row in table.rows] == [f"l{i}" for i in range(36, 100)]


def test_the_terminal_says_the_same():
    console = Console(width=160)
    with console.capture() as captured:
        print_run(SUMMARY | {"time": TIME}, rows_of_engine("simulate"), console)
    said = captured.get()
    assert "the time   a takes 60 % of the 10 ns." in said
    assert "What the units do with the time" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task\n", r"^p: must begin with the columns task,layer,.*end_ns, got task$"),
        (PATH + "x,y\n", r"^p: line 5 must end with two numbers, got could not convert"),
        (PATH + "\n", r"^p: line 5 must end with two numbers, got not enough values"),
        (PATH + "a,b,1.0,2.0\n", r"^p: line 5 must hold a segment of the path, got a,b,1\.0,2\.0$"),
        (PATH + "a,b,c,d,e,f,2.0,1.0\n", r"^p: line 5 must hold a segment of the path, got a,b,c,d,e,f,2\.0,1\.0$"),
    ],
)
def test_a_broken_path_says_where(text, message):
    with pytest.raises(DataError, match=message):
        parse_path(text, "p")


def test_a_path_that_is_not_there_is_one_line(tmp_path):
    folder = write_run(tmp_path / "run", time=TIME)
    with pytest.raises(DataError, match=r"critical_path\.csv: must be there, got no such file"):
        read_run(folder)


def test_a_broken_time_says_where():
    broken = json.loads(json.dumps(SUMMARY | {"time": TIME}))
    broken["time"]["use"][0]["busy"] = 1.5
    with pytest.raises(DataError, match=r"^s: time\.use\.0\.busy: must be less than or equal to 1, got 1\.5$"):
        check_summary(broken, "s")


def test_of_many_tiles_those_with_most_of_the_path_have_rows():
    units = [f"tile{i}.{part}" for i in range(100) for part in ("array", "pcu")] + ["sfu.qu", "main_memory"]
    spans = pd.DataFrame({"task": units, "layer": "a", "unit": units, "component": "x", "start_ns": 0.0, "end_ns": 9.0,
                          "busy_ns": 3.0})  # fmt: skip
    path = parse_path(PATH.replace("tile0.array", "tile42.array"), "p")
    rows = rows_of_units(spans, path)
    assert [row.name for row in rows] == [
        "main_memory", "tile0.array", "tile1.array", "tile42.array", "97 other tiles' array",
        "tile0.pcu", "tile1.pcu", "tile2.pcu", "97 other tiles' pcu", "sfu.qu",
    ]  # fmt: skip
    assert MOST_TILES == 3
    assert sorted(unit for row in rows for unit in row.units) == sorted(units)
    assert len(render(lambda: critical_path_figure(spans, path))[0]) > 1000
