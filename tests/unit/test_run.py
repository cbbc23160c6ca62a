import csv
import json

import numpy as np
import pytest
from strategies import Fixed, variant

from imcsim.errors import ConfigError, DataError, OutputError
from imcsim.results import area_of, energy_of, from_csv, latency_of
from imcsim.run import Result, require_writable, run, shares


@pytest.fixture(scope="module")
def workload(tiny_graph):
    rng = np.random.default_rng(0)
    return Fixed(tiny_graph, (rng.normal(size=(300, 1, 4, 4)), rng.integers(0, 3, 300)))


@pytest.fixture(scope="module")
def result(workload, tiny_chip):
    return run(workload, tiny_chip, seed=5)


def test_a_run_gives_every_engine_its_word(result):
    assert {row.engine for row in result.rows} == {"simulate", "estimate"}
    assert {row.seed for row in result.rows} == {5}
    assert result.outcome.n_samples == 300


def test_the_summary_has_at_least_what_design_promises(result):
    summary = result.summary
    assert {
        "workload",
        "chip",
        "seed",
        "version",
        "simulate",
        "estimate",
        "area_um2",
        "basis",
        "accuracy",
        "check",
    } <= set(summary)
    assert {"latency_ns", "energy_pJ"} <= set(summary["simulate"])
    assert {"latency_ns", "energy_pJ"} <= set(summary["estimate"])
    assert set(summary["basis"]) == {"published", "recalled", "derived", "fitted", "assumed"}
    assert {"reference", "chip", "n_samples", "n_clipped_accesses", "n_accesses"} <= set(summary["accuracy"])
    assert {"exact", "n_outputs", "n_different"} <= set(summary["check"])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_totals_of_the_summary_are_sums_of_rows(result):
    for engine in ("simulate", "estimate"):
        rows = [row for row in result.rows if row.engine == engine]
        assert result.summary[engine]["energy_pJ"] == energy_of(rows)
        assert result.summary[engine]["latency_ns"] == latency_of(rows)
    assert result.summary["area_um2"] == area_of(result.rows)
    assert result.summary["estimate"]["least_ns"] <= result.summary["simulate"]["latency_ns"]
    assert result.summary["simulate"]["latency_ns"] <= result.summary["estimate"]["greatest_ns"]


def test_shares_of_the_basis_add_up_to_one(result):
    assert sum(result.summary["basis"].values()) == pytest.approx(1)
    assert sum(result.summary["basis_area"].values()) == pytest.approx(1)
    assert shares([], "energy_pJ") == dict.fromkeys(["published", "recalled", "derived", "fitted", "assumed"], 0.0)


def test_the_writing_of_resident_weights_is_a_phase_of_its_own(workload, tiny_chip):
    spatial = run(workload, tiny_chip, engine="simulate", style="spatial")
    temporal = run(workload, tiny_chip, engine="simulate", style="temporal")
    assert spatial.summary["setup"]["energy_pJ"] > 0
    assert temporal.summary["setup"] is None


def test_the_summary_names_the_policy_that_cut_the_layers(workload, tiny_chip, result):
    assert result.summary["policy"] == "least_time"
    plain = run(workload, tiny_chip, engine="estimate", style="temporal", policy="as_they_are")
    assert plain.summary["policy"] == "as_they_are"
    assert {layer.n_replicas for layer in plain.plan.layers if layer.is_on_tiles} == {1}


def test_a_chip_that_clips_differs_and_says_how_often(result):
    accuracy, check = result.summary["accuracy"], result.summary["check"]
    assert 0 < accuracy["n_clipped_accesses"] < accuracy["n_accesses"] == 300 * (4 * 3 + 2)
    assert not check["exact"]
    assert 0 < check["n_different"] < check["n_outputs"] == 900
    per_layer = {layer["name"]: layer for layer in result.summary["layers"]}
    assert per_layer["quantize"]["kind"] == "host"
    assert per_layer["conv"]["n_accesses"] + per_layer["linear"]["n_accesses"] == accuracy["n_accesses"]


def test_a_chip_that_never_clips_is_exact(workload, ideal_chip):
    summary = run(workload, ideal_chip, engine="execute").summary
    assert (summary["check"]["exact"], summary["check"]["n_outputs"], summary["check"]["n_different"]) == (True, 900, 0)
    assert summary["accuracy"]["chip"] == summary["accuracy"]["reference"]
    assert summary["accuracy"]["n_clipped_accesses"] == 0


def test_accuracy_is_the_share_of_right_answers(workload, ideal_chip):
    from imcsim.functional.reference import reference

    x, labels = workload.data()
    right = np.mean(reference(workload.graph(), x[:100]).argmax(axis=1) == labels[:100])
    summary = run(workload, ideal_chip, engine="execute", n_samples=100).summary
    assert summary["accuracy"]["reference"] == right
    assert summary["accuracy"]["n_samples"] == 100


def test_what_accounts_for_an_accuracy_is_there_when_it_is_asked_for(workload, tiny_chip, result):
    assert not {"trials", "layer_errors", "ablation"} & set(result.summary)
    found = run(workload, tiny_chip, engine="execute", n_samples=70, trials=3, explain=True, ablation=True)
    accounts, summary = found.accounts, found.summary
    assert accounts.trials.trials[0].seed == 0
    assert not accounts.trials.is_random
    assert [layer.layer for layer in accounts.explanation.layers] == ["quantize", "conv", "linear"]
    assert [layer.layer for layer in accounts.ablation.layers] == ["conv", "linear"]
    assert summary["ablation"]["whole"]["difference"] == summary["accuracy"]["difference"]
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_values_that_nobody_computes_cannot_be_accounted_for(tiny_graph, tiny_chip):
    message = r"^ablation: must go with a run that executes samples, got tiny, which has no test set$"
    with pytest.raises(ConfigError, match=message):
        run(Fixed(tiny_graph), tiny_chip, ablation=True)


def test_what_was_run_is_explained(workload, tiny_graph, tiny_chip):
    timed = run(Fixed(tiny_graph), tiny_chip, explain=True).summary
    assert timed["time"]["latency_ns"] == timed["simulate"]["latency_ns"]
    assert "layer_errors" not in timed
    both = run(workload, tiny_chip, n_samples=5, explain=True).summary
    assert (both["time"], both["layer_errors"]["n_samples"]) == (timed["time"], 5)
    message = r"^explain: must go with a run that simulates or executes samples, got engine estimate$"
    with pytest.raises(ConfigError, match=message):
        run(workload, tiny_chip, engine="estimate", explain=True)


@pytest.mark.parametrize("engine", ["simulate", "estimate", "execute"])
def test_one_engine_alone_leaves_the_others_out(workload, tiny_chip, engine):
    summary = run(workload, tiny_chip, engine=engine).summary
    asked = {"simulate": summary["simulate"], "estimate": summary["estimate"], "execute": summary["accuracy"]}
    assert {name for name, part in asked.items() if part is not None} == {engine}
    assert summary["area_um2"] > 0


def test_without_a_test_set_all_engines_but_one_run(tiny_graph, tiny_chip):
    summary = run(Fixed(tiny_graph), tiny_chip).summary
    assert summary["accuracy"] is None
    assert summary["simulate"] is not None
    with pytest.raises(DataError, match=r"data\(\): missing"):
        run(Fixed(tiny_graph), tiny_chip, engine="execute")


def test_a_chip_that_skips_zero_blocks_leaves_out_what_the_run_gathered(workload, tiny_chip, result):
    summary = run(workload, variant(tiny_chip, {"tile.skips_zero_blocks": True}), seed=5).summary
    assert (summary["skips_zero_blocks"], result.summary["skips_zero_blocks"]) == (True, False)
    for engine in ("simulate", "estimate"):
        assert summary[engine]["energy_pJ"] < result.summary[engine]["energy_pJ"]
        assert summary[engine]["latency_ns"] <= result.summary[engine]["latency_ns"]
    for layer, all_taken in zip(summary["layers"][1:], result.summary["layers"][1:], strict=True):
        assert layer["n_idle_accesses"] == all_taken["n_idle_accesses"] > 0
        share = layer["n_idle_accesses"] / layer["n_accesses"]
        asked = all_taken["n_accesses_per_inference"]
        assert abs(layer["n_accesses_per_inference"] - (1 - share) * asked) <= 0.5


def test_a_run_says_how_far_it_is(workload, tiny_chip):
    said = []
    run(workload, tiny_chip, progress=lambda *what: said.append(what))
    assert said == [("execute", 256, 300), ("execute", 300, 300), ("simulate", 0, 1), ("simulate", 1, 1)]


def test_the_interval_of_the_energy_holds_the_energy_and_is_the_same_for_one_seed(workload, tiny_chip):
    def interval(seed):
        return run(workload, tiny_chip, engine="estimate", uncertainty=True, seed=seed).summary["energy_interval_pJ"]

    low, high = interval(1)
    assert 0 < low < run(workload, tiny_chip, engine="estimate").summary["estimate"]["energy_pJ"] < high
    assert interval(1) == [low, high] != interval(2)


def test_every_file_of_a_run_is_written(result, tmp_path, monkeypatch):
    monkeypatch.setattr("imcsim.report.page.build_report", lambda folder: folder / "report.html", raising=False)
    result.write(tmp_path / "out", command="imcsim run tiny", trace=True)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"rows.csv", "spans.csv", "trace.json", "summary.json"} <= written
    assert from_csv((tmp_path / "out" / "rows.csv").read_text(), "rows.csv") == result.rows
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == result.summary | {"command": "imcsim run tiny"}
    spans = list(csv.DictReader((tmp_path / "out" / "spans.csv").open()))
    assert len(spans) == len(result.trace.spans)
    assert max(float(span["end_ns"]) for span in spans) == result.trace.latency_ns
    assert isinstance(result, Result)


# --- messages -------------------------------------------------------------------------------------------------------


def test_more_samples_than_there_are_is_refused(workload, tiny_chip):
    with pytest.raises(ConfigError, match=r"^n_samples: must be at most the 300 samples of the test set, got 301$"):
        run(workload, tiny_chip, n_samples=301)
    with pytest.raises(ConfigError, match=r"^n_samples: must be at least 1, got 0$"):
        run(workload, tiny_chip, n_samples=0)


def test_a_test_set_needs_a_label_for_each_input(tiny_graph, tiny_chip):
    for x, labels in ((np.zeros((2, 1, 4, 4)), np.zeros(3)), (np.zeros((0, 1, 4, 4)), np.zeros(0))):
        message = rf"^tiny: data\(\) must give as many labels as inputs, got {len(x)} and {len(labels)}$"
        with pytest.raises(DataError, match=message):
            run(Fixed(tiny_graph, (x, labels)), tiny_chip)


def test_labels_are_whole_numbers_one_a_sample(tiny_graph, tiny_chip):
    samples = np.zeros((2, 1, 4, 4)), np.zeros((2, 3))
    message = r"^tiny: outputs must be scores \(b classes\) and labels whole numbers \(b\), got \(2, 3\) and \(2, 3\)$"
    with pytest.raises(DataError, match=message):
        run(Fixed(tiny_graph, samples), tiny_chip, engine="execute")


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    message = r"file/out: must be a folder that can be written to, got Not a directory; choose another --out$"
    with pytest.raises(OutputError, match=message):
        require_writable(tmp_path / "file" / "out")
    with pytest.raises(OutputError, match=r"file: must be a folder that can be written to, got File exists; choose"):
        require_writable(tmp_path / "file")


def test_a_folder_that_can_be_written_to_is_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
