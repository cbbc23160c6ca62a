"""The page of a sweep, opened as a reader would: in a browser."""

import json
import re
from html import unescape

import pandas as pd
import pytest
from browser import needs_browser, opened
from sweep_folders import many, write_sweep

from imcsim.report.sweep_chips import chip_text
from imcsim.report.sweep_page import build_sweep_report

pytestmark = needs_browser

ASKED = """
<script>
const told = {}, count = () => byId("table-count").textContent;
const listed = () => [...byId("points").tBodies[0].rows].map((row) => row.cells[0].textContent);
told.front = listed();
told.chip = chipText(2);
show(2);
told.panel = byId("picked").textContent;
byId("chart-tradeoff").emit("plotly_selected", {points: [{customdata: 1}, {customdata: 3}, {customdata: undefined}]});
told.boxed = listed();
byId("chart-tradeoff").emit("plotly_deselect");
told.deselected = listed();
Plotly.restyle("chart-parallel", {"dimensions[0].constraintrange": [[7, 9]]}).then(() => {
  told.ranged = listed();
  byId("clear").click();
  told.cleared = listed();
  byId("pick-rows").value = "all";
  fillTable();
  byId("points").tHead.rows[0].cells[3].firstChild.click();
  told.ascending = listed();
  byId("points").tHead.rows[0].cells[3].firstChild.click();
  told.descending = listed();
  byId("pick-x").value = "p0"; byId("pick-x").dispatchEvent(new Event("change"));
  told.across = byId("chart-tradeoff").layout.xaxis.title.text;
  byId("map-objective").value = "1"; byId("map-objective").dispatchEvent(new Event("change"));
  told.map = byId("chart-map").data[0].text;
  told.width = document.documentElement.scrollWidth - innerWidth;
  document.body.append(element("pre", JSON.stringify(told), {id: "told"}));
});
</script>
</body>
"""
"""What a reader would do, done by a script behind that of the page."""


@pytest.fixture(scope="module", autouse=True)
def _one_form():
    """Figures as PNG alone, for those in the page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imcsim.report.sweep_figures.FORMS", ("png",))
        yield


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    parameters = {"tile.count_max": [4, 8, 8, 12], "main_memory.bits_per_ns": [64.0, 512.25, 1e-7, 2048.0],
                  "tile.serial": ["bit", "trit", "bit", "trit"], "mapping.policy": ["least_time"] * 4}  # fmt: skip
    figures = {"latency": [4000.0, 3000.0, 5000.0, 6000.0], "accuracy": [0.6, 0.7, 0.65, 0.9]}
    return build_sweep_report(write_sweep(tmp_path_factory.mktemp("browser") / "out", parameters, figures))


@pytest.fixture(scope="module", params=["1400,900", "500,800"], ids=["desk", "phone"])
def seen(request, page, tmp_path_factory):
    """What a reader sees who picks, brushes and sorts; with the document and the log."""
    asking = page.with_name("asking.html")
    asking.write_text(page.read_text().replace("</body>", ASKED))
    document, log = opened(asking, tmp_path_factory.mktemp("profile"), f"--window-size={request.param}")
    (told,) = re.findall(r'<pre id="told">(.*?)</pre>', document, re.DOTALL) or [None]
    assert told is not None, log
    return json.loads(unescape(told)), document, log


def test_every_chart_is_drawn_and_nothing_goes_wrong(seen):
    _, document, log = seen
    assert "Uncaught" not in log
    assert "Failed to load" not in log
    body = document[document.index("<body") :]
    charts = re.findall(r'id="chart-([a-z-]+)"', body)
    assert {"tradeoff", "parallel", "map", "sensitivity-latency", "sensitivity-accuracy"} <= set(charts)
    for name in charts:
        start = body.index(f'id="chart-{name}"')
        assert 'class="main-svg"' in body[start : start + 200_000].split("</figure>")[0], f"{name} was not drawn"


def test_the_chip_file_in_the_page_is_that_of_the_folder(seen):
    told, _, _ = seen
    changes = {"tile.count_max": 8, "main_memory.bits_per_ns": 1e-7, "tile.serial": "bit"}
    written = chip_text("tim-dnn", changes, {"mapping.policy": "least_time"}, 2, "small")
    assert told["chip"] == written.replace("1.0e-07", "1.0e-7")
    assert "latency5 µs" in told["panel"]
    assert written.splitlines()[1] in told["panel"]


def test_brushes_filter_the_table(seen):
    told, _, _ = seen
    assert told["front"] == ["1", "3"]  # the least latency first
    assert told["boxed"] == ["1", "3"]
    assert told["deselected"] == ["1", "3"]
    assert told["ranged"] == ["1", "2"]
    assert told["cleared"] == ["1", "3"]


def test_columns_sort_and_axes_follow_what_is_chosen(seen):
    told, _, _ = seen
    assert told["ascending"] == ["0", "1", "2", "3"]
    assert told["descending"] == ["3", "1", "2", "0"]
    assert told["across"] == "tile.count_max"
    assert sorted(cell for row in told["map"] for cell in row if cell) == ["60", "65", "70", "90"]
    assert told["width"] <= 0


def test_the_page_of_very_many_points_is_drawn(tmp_path):
    page = build_sweep_report(many(tmp_path / "out"))
    document, log = opened(page, tmp_path / "profile", "--host-resolver-rules=MAP * ~NOTFOUND")
    assert "Uncaught" not in log
    asked = re.findall(r'<(?:script|link|img|iframe|image|use)\b[^>]*?\s(?:src|href|xlink:href)="([^"]*)"', document)
    assert [address for address in asked if not address.startswith(("data:", "#"))] == []
    n_front = int(pd.read_parquet(page.with_name("points.parquet")).on_front.sum())
    assert f">{n_front} points</span>" in document
