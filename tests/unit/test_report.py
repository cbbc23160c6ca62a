import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from imcsim.errors import DataError, OutputError
from imcsim.report import build_report, charts, tables, totals
from imcsim.report.figures import drawings, render
from imcsim.report.load import Accuracy, LayerSummary, check_summary, read_run, to_frame
from imcsim.report.page import cards, page_of, sections
from imcsim.report.palette import COLOUR_OF_GROUP, axis_unit, layer_colours, short
from imcsim.report.terminal import headlines, print_run
from imcsim.results import Identity, Row, to_csv

SPANS = """\
task,layer,unit,component,start_ns,end_ns,busy_ns
a/read,a,activation_buffer.read,activation_buffer.read,0.0,2.0,1.0
a/write,a,tile0.array,tile.write,0.0,1.0,1.0
a/access0,a,tile0.array,tile.array,1.0,4.0,3.0
a/access1,a,tile1.array,tile.array,1.0,4.0,3.0
a/convert0,a,tile0.pcu,tile.pcu,2.0,5.0,3.0
b/access0,b,tile0.array,tile.array,5.0,10.0,5.0
"""


def rows_of_engine(engine: str, *, stretch: float = 1.0) -> list[Row]:
    """Two layers: 30 pJ and 10 pJ of actions, 4 pJ of leakage; 6 ns and 4 ns; 100 um2."""
    row = Identity(chip="c", workload="w", engine=engine, seed=7, version="1").row
    said = {"basis": "recalled", "source": "a paper, table 1"}
    guess = {"basis": "assumed", "source": "a guess"}
    rows = [
        row(
            phase="inference",
            layer="a",
            component="tile.bitlines",
            action="tile.access",
            count=3,
            energy_pJ=18.0,
            **said,
        ),
        row(
            phase="inference", layer="a", component="tile.pcu", action="tile.convert", count=6, energy_pJ=12.0, **guess
        ),
        row(
            phase="inference",
            layer="b",
            component="tile.bitlines",
            action="tile.access",
            count=1,
            energy_pJ=6.0,
            **said,
        ),
        row(phase="inference", layer="b", component="sfu.qu", action="sfu.qu", count=2, energy_pJ=4.0, **guess),
        row(phase="inference", layer="a", component="tile.pcu", action="leak", count=1, energy_pJ=3.0, **guess),
        row(phase="inference", layer="b", component="tile.pcu", action="leak", count=1, energy_pJ=1.0, **guess),
        row(phase="inference", layer="a", component="tile.array", action="time", count=1, latency_ns=6.0 * stretch),
        row(phase="inference", layer="b", component="sfu.qu", action="time", count=1, latency_ns=4.0),
        row(phase="inference", layer="a", component="tile.array", action="busy", count=1, busy_ns=3.0),
        row(phase="inference", layer="b", component="tile.array", action="busy", count=1, busy_ns=1.0),
        row(phase="inference", layer="b", component="sfu.qu", action="busy", count=1, busy_ns=2.0),
        row(
            phase="setup", layer="a", component="tile.write", action="tile.write_row", count=9, energy_pJ=900.0, **guess
        ),
    ]
    if engine == "estimate":
        rows += [
            row(phase="inference", layer="", component="tile.array", action="area", count=2, area_um2=75.0, **said),
            row(phase="inference", layer="", component="tile.pcu", action="area", count=4, area_um2=25.0, **guess),
        ]
    return rows


LAYERS = [
    {"name": "q", "kind": "host"},
    {"name": "a", "kind": "conv2d", "shape": "8x4x4", "n_macs": 300, "n_weights": 30, "weight_planes": 1,
     "activation_planes": 2, "zero_weights": 0.5, "n_rows": 3, "n_columns": 10, "n_groups": 1, "n_row_chunks": 1,
     "n_replicas": 2, "n_rounds": 1, "n_tiles": 2, "utilization": 0.25, "n_accesses": 40, "n_clipped_accesses": 4,
     "n_idle_accesses": 10, "n_conversions": 400, "n_clipped_conversions": 5},
    {"name": "b", "kind": "linear", "shape": "10", "n_macs": 100, "n_weights": 10, "n_accesses": 10,
     "n_clipped_accesses": 0},
]  # fmt: skip

SUMMARY = {
    "workload": "w", "chip": "c", "seed": 7, "version": "1", "engine": "all", "command": "imcsim run w --chip c",
    "style": "spatial", "n_tiles": 2,
    "simulate": {"latency_ns": 10.0, "energy_pJ": 44.0},
    "estimate": {"latency_ns": 13.0, "energy_pJ": 44.0, "least_ns": 5.0, "greatest_ns": 20.0},
    "setup": None, "area_um2": 100.0,
    "accuracy": {"reference": 0.9, "chip": 0.8, "n_samples": 50, "n_clipped_accesses": 4, "n_accesses": 50,
                 "n_clipped_conversions": 5, "n_conversions": 800},
    "check": {"exact": False, "n_outputs": 500, "n_different": 3},
    "layers": LAYERS, "chip_description": "two tiles <fast> & small",
}  # fmt: skip


def write_run(folder: Path, **changes: object) -> Path:
    summary = SUMMARY | changes
    rows = [*(rows_of_engine("simulate") if summary["simulate"] else [])]
    rows += rows_of_engine("estimate", stretch=1.5) if summary["estimate"] else []
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "rows.csv").write_text(to_csv(rows))
    if summary["simulate"]:
        (folder / "spans.csv").write_text(SPANS)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def frame():
    return to_frame([*rows_of_engine("simulate"), *rows_of_engine("estimate", stretch=1.5)])


# Tables


def test_energy_by_layer_adds_up_to_the_energy_of_the_inference_rows(frame):
    table = tables.energy_by_layer(frame)
    assert list(table.index) == ["a", "b"]
    assert list(table.columns) == ["Tile array", "PCUs", "SFU", "Leakage"]
    assert table.loc["a"].tolist() == [18.0, 12.0, 0.0, 3.0]
    assert table.sum().sum() == 44.0


def test_the_setup_is_a_table_of_its_own(frame):
    assert tables.energy_by_layer(frame, phase="setup").loc["a", "Tile writes"] == 900.0


def test_energy_by_component_keeps_actions_and_leakage_apart(frame):
    table = tables.energy_by_component(frame)
    assert table.loc["tile.pcu", ["actions_pJ", "leak_pJ", "energy_pJ"]].tolist() == [12.0, 4.0, 16.0]
    assert list(table.index) == ["tile.bitlines", "tile.pcu", "sfu.qu"]
    assert table.energy_pJ.sum() == 44.0
    assert table.share.sum() == pytest.approx(1.0)


def test_the_simulation_leads_and_the_estimate_is_there_on_demand(frame):
    assert tables.main_engine(frame) == "simulate"
    assert tables.latency_by_layer(frame).latency_ns.tolist() == [6.0, 4.0]
    assert tables.latency_by_layer(frame, "estimate").latency_ns.tolist() == [9.0, 4.0]
    assert tables.engines_compared(frame).ratio.tolist() == [1.5, 1.0]


def test_latency_by_layer_says_what_bounds_each_layer(frame):
    table = tables.latency_by_layer(frame)
    assert table.bound_by.tolist() == ["tile.array", "sfu.qu"]
    assert table.share.tolist() == [0.6, 0.4]
    assert table.bound_busy_ns.tolist() == [3.0, 2.0]
    assert tables.latency_by_bound(frame).n_layers.tolist() == [1, 1]


def test_utilization_is_busy_time_of_the_latency(frame):
    table = tables.utilization(frame)
    assert table.busy_ns.to_dict() == {"tile.array": 4.0, "sfu.qu": 2.0}
    assert table.utilization.to_dict() == {"tile.array": 0.4, "sfu.qu": 0.2}


def test_basis_shares_add_up_to_one(frame):
    table = tables.basis_shares(frame)
    assert table.energy.to_dict() == pytest.approx(
        {"published": 0, "recalled": 24 / 44, "derived": 0, "fitted": 0, "assumed": 20 / 44}
    )
    assert table.area["recalled"] == 0.75
    assert table.sum().tolist() == pytest.approx([1.0, 1.0])


def test_area_is_counted_once_though_two_engines_wrote_it():
    rows = rows_of_engine("estimate")
    twice = [*rows, *(replace(row, engine="simulate") for row in rows)]
    table = tables.area_by_component(to_frame(twice))
    assert table.area_um2.to_dict() == {"tile.array": 75.0, "tile.pcu": 25.0}
    assert table.n_instances.to_dict() == {"tile.array": 2, "tile.pcu": 4}


def test_cost_sources_give_the_energy_of_one_action(frame):
    table = tables.cost_sources(frame)
    first = table.iloc[0]
    assert (first.component, first.action, first["count"], first.energy_pJ_per_action) == (
        "tile.bitlines",
        "tile.access",
        4,
        6.0,
    )
    assert table.energy_pJ.sum() == 40.0


def test_groups_join_what_a_component_is_called_in_costs_and_in_times():
    rows = [*rows_of_engine("simulate"), *rows_of_engine("estimate", stretch=1.5)]
    groups = totals.by_group(totals.spent_rows(rows), rows)
    assert groups["Tile array"] == totals.GroupTotal(energy_pJ=24.0, busy_ns=4.0, area_um2=75.0)
    assert sum(group.energy_pJ for group in groups.values()) == 44.0


def test_totals_of_layers_are_those_of_the_tables(frame):
    rows = [*rows_of_engine("simulate"), *rows_of_engine("estimate", stretch=1.5)]
    layers = totals.by_layer(totals.spent_rows(rows))
    assert {name: total.latency_ns for name, total in layers.items()} == (
        tables.latency_by_layer(frame).latency_ns.to_dict()
    )
    assert {name: total.energy_pJ for name, total in layers.items()} == (
        tables.energy_by_layer(frame).sum(axis=1).to_dict()
    )


def test_clipping_is_a_share_of_the_accesses_of_a_layer():
    layers = check_summary(SUMMARY, "summary").layers
    assert tables.clipping_by_layer(layers).share.to_dict() == {"a": 0.1, "b": 0.0}
    assert not len(tables.clipping_by_layer([LayerSummary(name="a", kind="conv2d", n_accesses=4)]))


def test_many_layers_are_cut_to_the_greatest_and_the_sum_of_the_rest():
    table = pd.DataFrame({"x": [float(i) for i in range(100)]}, index=[f"l{i}" for i in range(100)])
    shown = tables.limited(table, 10)
    assert list(shown.index) == [*(f"l{i}" for i in range(91, 100)), "91 smaller layers"]
    assert shown.x.sum() == table.x.sum()


def test_tables_of_no_rows_are_empty():
    frame = to_frame([])
    assert tables.main_engine(frame) is None
    for table in (tables.energy_by_layer, tables.energy_by_component, tables.latency_by_layer, tables.utilization):
        assert len(table(frame)) == 0
    assert len(tables.area_by_component(frame)) == 0
    assert tables.basis_shares(frame).sum().sum() == 0.0


def test_the_interval_of_a_share_never_leaves_what_a_share_can_be():
    assert totals.interval_95(1.0, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert totals.interval_95(0.0, 20)[0] == 0.0
    assert totals.interval_95(0.5, 0) == (0.0, 1.0)


# Timelines


def test_a_timeline_has_a_lane_a_tile_and_then_a_lane_a_shared_unit(folder):
    lanes = tables.timeline(read_run(folder).spans)
    assert lanes.lanes == ("tile 0", "tile 1", "activation_buffer.read")
    assert lanes.n_tile_lanes == 2
    assert lanes.latency_ns == 10.0
    assert lanes.utilizations == pytest.approx((0.9, 0.3, 0.1))
    assert lanes.layers == ("a", "b")
    assert sorted(lanes.bars.stage) == ["array", "array", "array", "pcu", "unit", "write"]


def test_bars_that_touch_become_one():
    spans = pd.DataFrame(
        [["t", "a", "tile0.array", "tile.array", float(i), float(i + 1), 0.5] for i in range(50)],
        columns=["task", "layer", "unit", "component", "start_ns", "end_ns", "busy_ns"],
    )
    bars = tables.timeline(spans).bars
    assert bars[["start_ns", "end_ns", "busy", "n_tasks"]].values.tolist() == [[0.0, 50.0, 0.5, 50]]


def test_many_tiles_share_lanes():
    spans = pd.DataFrame(
        [["t", "a", f"tile{i}.array", "tile.array", 0.0, 2.0, 1.0] for i in range(200)],
        columns=["task", "layer", "unit", "component", "start_ns", "end_ns", "busy_ns"],
    )
    lanes = tables.timeline(spans)
    assert len(lanes.lanes) == 50
    assert lanes.lanes[:2] == ("tiles 0-3", "tiles 4-7")
    assert set(lanes.utilizations) == {0.5}
    assert set(lanes.bars.busy) == {0.5}


# Files of a run


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", None, r"summary\.json: must be there, got no such file; imcsim run --out writes it"),
        ("rows.csv", None, r"rows\.csv: must be there, got no such file"),
        ("spans.csv", None, r"spans\.csv: must be there, got no such file"),
        ("summary.json", '{"workload": "w"', r"summary\.json: must be JSON, got .*; is it cut off\?"),
        ("summary.json", "[1]", r"summary\.json: must be an object with the keys of a summary, got list"),
        ("summary.json", '{"workload": "w"}', r"summary\.json: chip: must be there, got nothing; run again"),
        ("summary.json", json.dumps(SUMMARY | {"seed": "x"}), r"summary\.json: seed: must be .*integer, got 'x'"),
        ("summary.json", b"\xff", r"summary\.json: must be UTF-8 text, got byte 0xff"),
        ("rows.csv", "chip,workload\n", r"rows\.csv: must begin with the columns chip,workload,engine"),
        ("rows.csv", to_csv(rows_of_engine("simulate"))[:-9], r"rows\.csv: must end with a whole line, got .*cut off"),
        (
            "rows.csv",
            to_csv(rows_of_engine("simulate")[1:]),
            r"rows\.csv: the energy of engine simulate must add up to summary\.json's 44 pJ, got 26 pJ; is it cut off",
        ),
        ("rows.csv", to_csv([replace(rows_of_engine("simulate")[0], energy_pJ=-1.0)]), "row 2 must hold finite"),
        ("spans.csv", "task,layer\n", r"spans\.csv: must begin with the columns task,layer,unit"),
        ("spans.csv", SPANS + "b,b,u\n", r"spans\.csv: line 8 must have 7 columns, got 3"),
        ("spans.csv", SPANS + "b,b,u,u,1,x,1\n", r"spans\.csv: line 8 must end with three numbers, got .*'x'"),
        ("spans.csv", SPANS + "b,b,u,u,3,2,1\n", r"spans\.csv: line 8 must end no earlier than it starts, got 3"),
    ],
)  # fmt: skip
def test_a_broken_run_folder_is_one_line_that_says_where(folder, file, content, message):
    path = folder / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_run(folder)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(DataError, match="nowhere: must be the folder of a run, got no such folder; imcsim run --out"):
        build_report(tmp_path / "nowhere")


def test_a_page_that_cannot_be_written_is_said_so_and_leaves_nothing(folder):
    (folder / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"report\.html: must be possible to write, got"):
        build_report(folder)
    assert not list(folder.glob(".*.part"))


def test_what_a_later_version_adds_to_the_summary_is_passed_over(folder):
    write_run(folder, colour="red")
    assert read_run(folder).summary.workload == "w"


# Figures


def test_every_figure_is_drawn_in_both_forms_and_has_no_date(folder):
    for draw in drawings(read_run(folder)).values():
        png, svg = render(draw)
        assert png.startswith(b"\x89PNG")
        assert "<svg" in svg
        assert "dc:date" not in svg


def test_figures_are_those_that_there_are_numbers_for(folder):
    assert sorted(drawings(read_run(folder))) == [
        "accuracy", "basis", "energy_by_component", "energy_by_layer", "latency_by_layer", "tile_utilization",
    ]  # fmt: skip
    estimated = write_run(folder, simulate=None, accuracy=None, check=None)
    assert sorted(drawings(read_run(estimated))) == [
        "basis", "energy_by_component", "energy_by_layer", "latency_by_layer",
    ]  # fmt: skip


def test_zero_energies_and_times_can_be_drawn(folder):
    rows = [replace(row, energy_pJ=0.0, latency_ns=0.0, busy_ns=0.0) for row in rows_of_engine("simulate")]
    (folder / "rows.csv").write_text(to_csv(rows))
    zero = {"latency_ns": 0.0, "energy_pJ": 0.0}
    (folder / "summary.json").write_text(json.dumps(SUMMARY | {"simulate": zero, "estimate": None}))
    run = read_run(folder)
    for draw in drawings(run).values():
        assert render(draw)[0].startswith(b"\x89PNG")
    assert "Energy" in page_of(run)


def test_long_names_and_many_layers_can_be_drawn():
    row = rows_of_engine("simulate")[0]
    rows = [replace(row, layer=f"features.{'deep.' * 12}{i}", energy_pJ=1e6 + i) for i in range(90)]
    chart = charts.energy_by_layer(to_frame(rows))
    assert json.loads(chart.json)["layout"]["yaxis"]["ticktext"][-1] == "27 smaller layers"
    assert "aria" not in chart.label


def test_colours_and_units():
    assert set(COLOUR_OF_GROUP) == set(totals.GROUPS)
    assert len(set(layer_colours(60))) == 60
    assert axis_unit(999.0, "ns") == (1.0, "ns")
    assert axis_unit(0.5, "pJ") == (1e-3, "fJ")
    assert short("x" * 40, 9) == "xxxx…xxxx"


# The page


def test_the_page_says_what_ran_and_what_came_out(folder):
    run = read_run(folder)
    found = {card.name: card.value for card in cards(run)}
    assert found == {
        "Latency": "10 ns",
        "Energy": "44 pJ",
        "Throughput": "100 M/s",
        "Energy a multiply-add": "110 fJ",
        "Effective efficiency": "18.18 TOPS/W",
        "Area": "100 µm²",
        "Accuracy on the chip": "80.00 %",
        "Accuracy of the reference": "90.00 %",
        "Outputs": "3 differ",
    }
    assert [section.name for section in sections(run)] == [
        "run", "energy", "latency", "tiles", "accuracy", "mapping", "engines", "area", "sources", "caveats",
    ]  # fmt: skip


def test_text_from_files_is_escaped(folder):
    write_run(folder, workload="</script><script>alert(1)</script>")
    rows = [replace(row, layer=row.layer and f"<b>{row.layer}") for row in rows_of_engine("simulate")]
    (folder / "rows.csv").write_text(to_csv([*rows, *rows_of_engine("estimate", stretch=1.5)]))
    page = page_of(read_run(folder))
    assert "alert(1)</script>" not in page
    assert "<b>a" not in page
    assert "two tiles &lt;fast&gt; &amp; small" in page


def test_the_page_is_one_file_without_addresses(folder):
    page = page_of(read_run(folder))
    ours = page.replace(page.split("<script>")[1].split("</script>")[0], "")
    assert not re.findall(r"https?:", ours)
    assert set(re.findall(r'(?:src|href)="([^"#]*)', page.split("<script>")[0])) == {"data:,", ""}
    assert page.count("plotly.js v") == 1


def test_the_same_run_gives_the_same_bytes(folder):
    first = {path.name: path.read_bytes() for path in [build_report(folder), *(folder / "figures").iterdir()]}
    second = {path.name: path.read_bytes() for path in [build_report(folder), *(folder / "figures").iterdir()]}
    assert first == second
    assert len(first) == 13


@pytest.mark.parametrize(
    ("changes", "names", "said"),
    [
        ({"simulate": None, "accuracy": None, "check": None},
         ["run", "energy", "latency", "mapping", "area", "sources", "caveats"],
         ["Simulation was not run", "Execution was not run"]),
        ({"estimate": None, "accuracy": None, "check": None},
         ["run", "energy", "latency", "tiles", "mapping", "sources", "caveats"],
         ["The estimate was not run", "Execution was not run"]),
        ({"simulate": None, "estimate": None}, ["run", "accuracy", "mapping", "caveats"],
         ["Neither simulation nor estimate was run"]),
    ],
    ids=["estimate", "simulate", "execute"],
)  # fmt: skip
def test_with_one_engine_the_page_leaves_the_rest_out_and_says_so(tmp_path, changes, names, said):
    run = read_run(write_run(tmp_path / "run", **changes))
    parts = sections(run)
    assert [part.name for part in parts if part.name != "accuracy" or run.summary.accuracy] == names
    assert [text.split(":")[0] for text in parts[0].paragraphs] == said
    assert build_report(run.folder).stat().st_size > 4_000_000 or not any(part.charts for part in parts)


def test_setup_is_told_but_in_no_total(folder):
    (energy,) = [part for part in sections(read_run(folder)) if part.name == "energy"]
    assert any("takes 900 pJ" in text for text in energy.paragraphs)


def test_importing_the_report_brings_no_heavy_library():
    code = "import sys, imcsim.report; print(sorted({'pandas', 'plotly', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The terminal


def printed(summary: dict, rows: list[Row], width: int = 120) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_run(summary, rows, console)
    return console.export_text()


def test_the_terminal_shows_layers_components_and_headlines():
    text = printed(SUMMARY, [*rows_of_engine("simulate"), *rows_of_engine("estimate", stretch=1.5)])
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
    assert "simulated 10 ns, 44 pJ an inference" in lines
    assert "a 300 6 ns 60.0 % tile.array 33 pJ 75.0 % 40 10.00 % 25.00 % -" in lines
    assert "q - - - host - - - - - -" in lines
    assert "Tile array 24 pJ 54.5 % 4 ns 40.0 % 75 µm² 75.0 %" in lines


def test_what_drives_no_input_is_called_idle_or_skipped():
    rows = rows_of_engine("simulate")
    assert "clipped    idle zero products" in printed(SUMMARY, rows)
    assert "clipped skipped zero products" in printed(SUMMARY | {"skips_zero_blocks": True}, rows)


def test_the_terminal_does_with_any_engine_missing():
    text = printed(SUMMARY | {"simulate": None, "estimate": None}, [])
    assert "not run: simulate, estimate" in text
    assert "10.00 %" in text
    assert "Components" not in text


def test_headlines_say_that_all_outputs_are_exact():
    exact = check_summary(SUMMARY | {"check": {"exact": True, "n_outputs": 5, "n_different": 0}}, "summary")
    assert "outputs    all 5 exact" in headlines(exact)


def test_accuracy_without_layers_can_be_drawn(folder):
    write_run(folder, layers=[])
    run = read_run(folder)
    assert render(drawings(run)["accuracy"])[0].startswith(b"\x89PNG")
    accuracy = Accuracy(reference=1.0, chip=1.0, n_samples=3, n_clipped_accesses=0, n_accesses=0)
    assert "100.00 %" in charts.accuracy(accuracy).label
