"""Where figures come from: every tree holds, every factor's arithmetic gives it, and wrong names are answered."""

import json
from math import ceil, floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import STYLES, chips, graphs

from imcsim.analytic import estimate
from imcsim.analytic.counts import count_actions, derive_actions, derive_setup
from imcsim.analytic.factors import arithmetic, how_of_factors
from imcsim.arch.load import load_chip
from imcsim.arch.spec import BASES
from imcsim.errors import ConfigError, DataError
from imcsim.mapping.place import place
from imcsim.report.load import read_run
from imcsim.report.origin_trees import Asked, Node
from imcsim.report.origins import explained, lines, origin_sections
from imcsim.run import run
from imcsim.workloads import find_workload

OUTLINES = ["alexnet", "lstm-ptb", "gru-ptb"]
CHIP = load_chip("tim-dnn")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    result = run(find_workload("digits-ternary-cnn"), CHIP, n_samples=8, uncertainty=True)
    result.write(folder, page=False)
    return folder


def nodes_of(node):
    yield node
    for child in node.children:
        yield from nodes_of(child)


def require_told(plan):
    """Every factor of every count says how it follows, and its arithmetic gives it; parts add up to times."""
    for derived in (derive_actions(plan), derive_setup(plan)):
        for layer in plan.layers:
            found = derived.get(layer.name)
            hows = how_of_factors(plan, layer, found) if found else {}
            for terms in (found or {}).values():
                for name, n in (factor for term in terms for factor in term.factors):
                    assert hows[name].words
                    if hows[name].numbers:
                        assert eval(hows[name].numbers, {"ceil": ceil, "floor": floor}) == n, name
    for time in estimate(plan).times.values():
        assert sum(part.time_ns for part in time.parts()) == pytest.approx(time.added_ns, rel=1e-9, abs=1e-6)


@settings(max_examples=15)
@given(graphs(), chips(), st.sampled_from([None, *STYLES]), st.integers(1, 3))
def test_every_factor_of_a_random_plan_follows_as_it_says(graph, chip, style, n_samples):
    try:
        plan = place(graph, chip, style=style, n_samples=n_samples)
    except ValueError:  # not all fit where they must be resident
        plan = place(graph, chip, n_samples=n_samples)
    require_told(plan)
    for layer, derived in derive_actions(plan).items():
        for action, terms in derived.items():
            assert eval(arithmetic(terms).replace("x", "*")) == count_actions(plan)[layer][action]


@pytest.mark.parametrize("name", OUTLINES)
def test_every_factor_of_a_shipped_network_follows_as_it_says(name):
    require_told(place(find_workload(name).graph(), CHIP))


def test_what_is_skipped_is_told_as_left_out():
    chip = load_chip("tim-dnn", {"tile.skips_zero_blocks": True})
    plan = place(find_workload("lstm-ptb").graph(), chip).skipping({"lstm": 0.25})
    require_told(plan)
    (terms,) = [terms for action, terms in derive_actions(plan)["lstm"].items() if action == "tile.access"]
    assert [term.sign for term in terms] == [1, -1]
    assert terms[1].n == pytest.approx(-0.25 * terms[0].n, rel=0.05)


def test_every_figure_of_a_run_answers_and_every_tree_holds(ran):
    asked = Asked(read_run(ran))
    for name in asked.makers:
        node = asked.explain(name)
        assert node.check() == [], name
        if name in asked.figures:
            assert node.value == asked.figures[name]
    assert {"simulate.latency_ns", "estimate.energy_pJ.conv2.tile.pcu", "setup.energy_pJ", "area_um2.tile.array",
            "basis.assumed", "accuracy.chip", "simulate.count.conv2.tile.access", "energy_interval_pJ.0", "seed",
            "layers.conv1.n_macs"} <= asked.makers.keys()  # fmt: skip


def test_a_row_is_told_down_to_the_keys_of_the_chip_file(ran):
    node = Asked(read_run(ran)).explain("estimate.energy_pJ.conv2.tile.wordlines")
    (access,) = [child for child in node.children if child.name == "tile.wordlines, tile.access"]
    count, cost = access.children
    assert count.how == ("64 input vectors x 1 passes x 1 accesses a pass x 1 groups x 18 blocks x 1 column segments")
    (blocks,) = [child for child in count.children if child.name == "blocks"]
    assert blocks.how == "ceil(rows of a group / tile.rows_per_access) = ceil(288 / 16)"
    assert (cost.value, cost.basis) == (0.38, "recalled")
    assert cost.source == CHIP.tile.access.wordlines.source
    assert ("tile.access.wordlines.energy_pJ", 0.38) in [(key.name, key.value) for key in cost.children]


def test_every_cost_names_a_key_of_the_chip_file_but_the_one_that_halves_another(ran):
    costs = Asked(read_run(ran)).origins.costs
    assert [cost.action for cost in costs if not cost.keys] == ["tile.convert_one"]


def test_a_wrong_figure_is_answered_with_near_ones(ran):
    with pytest.raises(
        ConfigError,
        match=r"asked for a figure that it holds, got 'estimate\.enery_pJ'; did you mean estimate\.energy_pJ or ",
    ):
        explained(ran, "estimate.enery_pJ", None, as_json=False)


def test_an_estimate_alone_is_told_too_and_the_answer_is_one_tree(tmp_path):
    run(find_workload("resnet20-cifar"), CHIP, engine="estimate").write(tmp_path, page=False)
    tree = json.loads(explained(tmp_path, "estimate.energy_pJ", 1, as_json=True))
    assert tree["join"] == "sum"
    assert sum(child["value"] for child in tree["children"]) == pytest.approx(tree["value"])
    asked = Asked(read_run(tmp_path))
    assert all(asked.explain(name).check() == [] for name in ("estimate.energy_pJ", "estimate.latency_ns", "area_um2"))
    (section,) = origin_sections(asked.run)
    names = ["estimate.energy_pJ", "estimate.latency_ns", "area_um2", *(f"basis.{basis}" for basis in BASES)]
    assert sorted(tree.name for tree in section.trees) == sorted(names)


def test_a_node_that_its_children_do_not_give_is_found():
    parts = (Node("a", 2.0), Node("b", 3.0, join="product", children=(Node("c", 1.0), Node("d", 2.0))))
    assert Node("whole", 6.0, join="sum", children=parts).check() == ["whole", "b"]


def test_small_parts_of_a_sum_are_told_together():
    node = Node("sum", 55.0, join="sum", children=tuple(Node(str(n), float(n)) for n in range(11)))
    told = list(lines(node, 1, most=3))
    assert told[0] == "sum = 55: (sum)"
    assert told[1:4] == ["  8 = 8", "  9 = 9", "  10 = 10"]
    assert told[4].strip().startswith("8 smaller parts = 28")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "must be there, got no such file"), ("{", "must be JSON"), ("{}", r"counts: .*run again to write it anew")],
)
def test_a_folder_without_whole_origins_says_so(ran, tmp_path, content, message):
    for file in ("summary.json", "rows.csv", "spans.csv"):
        (tmp_path / file).write_bytes((ran / file).read_bytes())
    if content is not None:
        (tmp_path / "origins.json").write_text(content)
    with pytest.raises(DataError, match=rf"origins\.json: .*{message}|origins\.json: {message}"):
        explained(tmp_path, None, None, as_json=False)
