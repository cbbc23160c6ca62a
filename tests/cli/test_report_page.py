"""The page of a report, opened as a reader would: in a browser."""

import importlib.util
import re
from pathlib import Path

import pytest
from browser import needs_browser, opened

from imcsim.report import build_report
from imcsim.report.load import read_run
from imcsim.report.page import sections

pytestmark = needs_browser


def write_run(folder: Path) -> Path:
    """Write the small run of the unit tests."""
    path = Path(__file__).parents[1] / "unit" / "test_report.py"
    spec = importlib.util.spec_from_file_location("report_of_two_layers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write_run(folder)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build_report(write_run(tmp_path_factory.mktemp("report") / "run"))


@pytest.mark.parametrize("size", ["1400,900", "500,800"], ids=["desk", "phone"])
def test_every_chart_is_drawn_and_nothing_goes_wrong(page, tmp_path, size):
    document, log = opened(page, tmp_path / "profile", f"--window-size={size}")
    assert "Uncaught" not in log
    assert "Failed to load" not in log
    body = document[document.index("<body") :]
    wanted = {chart.name for section in sections(read_run(page.parent)) for chart in section.charts}
    assert {
        "energy_by_layer", "energy_by_component", "latency_by_layer", "tile_utilization", "accuracy", "basis",
    } <= wanted  # fmt: skip
    places = {name: body.index(f'id="chart-{name}"') for name in wanted}
    for name, start in places.items():
        end = min([place for place in places.values() if place > start], default=body.index("<footer"))
        drawn = body[start:end]
        assert 'class="main-svg"' in drawn, f"{name} was not drawn"
        assert re.search(r'class="(point|points|trace)', drawn), f"{name} has no data"


def test_the_page_asks_the_network_for_nothing(page, tmp_path):
    document, _ = opened(page, tmp_path / "profile", "--host-resolver-rules=MAP * ~NOTFOUND")
    asked = re.findall(r'<(?:script|link|img|iframe|image|use)\b[^>]*?\s(?:src|href|xlink:href)="([^"]*)"', document)
    assert [address for address in asked if not address.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|url\(\s*['\"]?https?:", document[: document.index("</style>")])


def test_a_phone_needs_no_sideways_scrolling(page, tmp_path):
    wrapper = tmp_path / "phone.html"
    wrapper.write_text(
        f'<iframe id="f" style="width:390px;height:4000px;border:0" src="{page.as_uri()}"></iframe>'
        "<p id='width'></p><script>f.onload = () => setTimeout(() => {"
        "document.getElementById('width').textContent = 'width ' + f.contentDocument.documentElement.scrollWidth;"
        "}, 2000)</script>"
    )
    document, _ = opened(wrapper, tmp_path / "profile", "--allow-file-access-from-files")
    (width,) = re.findall(r"width (\d+)</p>", document)
    assert int(width) <= 390
