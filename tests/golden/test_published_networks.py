"""Networks told by their shapes, against the multiply-adds and weights that others print of them."""

from pathlib import Path

import pytest
import yaml

from imcsim.workloads import load_workload

PRINTED = yaml.safe_load(Path(__file__).with_name("networks.yaml").read_text())


@pytest.mark.parametrize("printed", PRINTED, ids=[row["workload"] for row in PRINTED])
def test_a_network_has_the_multiply_adds_and_the_weights_that_are_printed(printed):
    graph = load_workload(printed["workload"])
    within = 1.01 * 10 ** (1 - printed["digits"]) / 2
    assert sum(map(graph.n_macs, graph.products)) == pytest.approx(float(printed["macs"]), rel=within)
    assert sum(op.product.n_weights for op in graph.products) == pytest.approx(float(printed["weights"]), rel=within)


def test_the_sums_are_exact_where_they_are_known_to_the_last_one():
    graphs = {name: load_workload(name) for name in ("alexnet", "resnet34", "bn-inception", "mobilenet-v1")}
    assert {name: sum(map(graph.n_macs, graph.products)) for name, graph in graphs.items()} == {
        "alexnet": 724_406_816,
        "resnet34": 3_663_761_408,
        "bn-inception": 2_018_851_840,
        "mobilenet-v1": 568_740_352,
    }
