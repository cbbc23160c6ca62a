import csv
import json

import pytest
from test_run import Fixed

from imcsim.errors import ConfigError
from imcsim.report.load import read_run
from imcsim.report.request_figures import loads_figure, request_sections, spans_decades
from imcsim.report.requests import loads_table, requests_table, requests_text
from imcsim.report.terminal import headlines
from imcsim.run import run


@pytest.fixture(scope="module")
def folder(tiny_chip, tiny_graph, tmp_path_factory):
    result = run(Fixed(tiny_graph), tiny_chip, style="pipelined", requests=6, arrivals="every:200", loads=True)
    folder = tmp_path_factory.mktemp("requests")
    result.write(folder)
    return folder


@pytest.fixture(scope="module")
def summary(folder):
    return read_run(folder).summary


def test_a_run_with_requests_writes_a_line_each_and_a_figure_of_the_loads(folder, summary):
    with (folder / "requests.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["arrival_ns"]) for line in lines] == [0, 200, 400, 600, 800, 1000]
    latencies = [float(line["end_ns"]) - float(line["arrival_ns"]) for line in lines]
    assert [float(line["latency_ns"]) for line in lines] == pytest.approx(latencies)
    written = json.loads((folder / "summary.json").read_text())["requests"]
    assert written["offered_per_s"] == pytest.approx(5e6)
    assert written["arrivals"] == "every:200"
    assert [at["load"] for at in written["loads"]] == [0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2]
    assert summary.requests.latency_ns.mean == pytest.approx(sum(latencies) / 6)
    assert (folder / "figures" / "loads.png").stat().st_size > 10_000
    assert (folder / "figures" / "loads.svg").exists()
    assert 'id="chart-loads"' in (folder / "report.html").read_text()


def test_requests_are_told_in_a_line_and_in_tables(summary):
    found = summary.requests
    assert requests_text(found).startswith("6 requests, offered 5 M/s, served ")
    assert f"requests   {requests_text(found)}" in headlines(summary)
    assert [line[0] for line in requests_table(found).rows][:3] == ["Requests", "Arrivals", "Offered"]
    assert [row[0] for row in loads_table(found.loads).rows][-2:] == ["100 %", "120 %"]
    (section,) = request_sections(summary)
    assert "several inferences at a time" in section.paragraphs[1]
    assert request_sections(summary.model_copy(update={"requests": None})) == []


def test_latencies_of_many_sizes_have_a_logarithmic_axis(summary):
    loads = summary.requests.loads
    assert not spans_decades(loads)
    assert loads_figure(summary.requests, loads).axes[0].get_yscale() == "linear"
    long = (*loads[:-1], loads[-1].model_copy(update={"p99_ns": 1e6}))
    assert loads_figure(summary.requests, long).axes[0].get_yscale() == "log"


def test_requests_need_a_simulation_and_loads_need_requests(tiny_chip, tiny_graph):
    for asked, said in (
        ({"engine": "estimate", "requests": 3}, "requests: must go with a run that simulates, got engine estimate"),
        ({"loads": True}, "loads: must go with requests, got none; give --requests N"),
        ({"requests": 1, "loads": True}, "loads: must go with at least 2 requests, got 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            run(Fixed(tiny_graph), tiny_chip, **asked)
